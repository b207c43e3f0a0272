"""The values in the BPF maps, byte for byte as tof/drivers/bpf/tof.bpf.c lays them out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import xor
from struct import Struct
from typing import NamedTuple

from tof.agent.accounting import Account, AccountKey
from tof.dataplane.desired import Serving
from tof.dataplane.selection import Rule
from tof.dataplane.spreading import SLOTS
from tof.model import Direction, Form, IpNetwork, Link, TunnelKey

NO_VLAN = 0xFFFF
MAX_PORTS = 8
HEARTBEAT_NS = 900_000_000
"""An older heartbeat is none: services go to the core."""
SETTLING, ENDED, CONTAINER, MOVED, LEFT = 1, 2, 4, 8, 16

_KEY4 = Struct("=4s4s4sHH")
_KEY = Struct("=16s16s4sHH")
_TUNNEL = Struct("=QQQ8s4sIIIIIBBBBI6s6sIQQII8s")
_OUTLET_END = Struct("=I4xQ")
_PENDING = Struct("=IIQQQ6s6sII4x")
_UE = Struct("=8s4sI")
_CONFIG = Struct("=4I2I2I2I16I2I6sHIIIIQ")
_RULE = Struct("=IHHHHHHIII4xQ")
_SERVED = Struct("=QQII64s")
_SPREAD = Struct(f"=I4x{SLOTS}I")
_ACCOUNT_KEY = Struct("=16s16s16sIHH")
_ACCOUNT = Struct("=QQQQQQ")
_EVENT = Struct("=IIIIIHH")
_SEEN = Struct("=16s16s4sHH16s16s6s6sIHBBBBBB")

TUNNEL_SIZE = _TUNNEL.size
SERVED_SIZE = _SERVED.size
SIZES = {
    "tof_tunnels4": (_KEY4.size, _TUNNEL.size),
    "tof_tunnels6": (_KEY.size, _TUNNEL.size),
    "tof_pending": (_KEY.size, _PENDING.size),
    "tof_outlets": (4, _KEY.size + _OUTLET_END.size),
    "tof_ues": (_UE.size, 4),
    "tof_config": (4, _CONFIG.size),
    "tof_rules": (4, _RULE.size),
    "tof_served": (4, _SERVED.size),
    "tof_spread": (4, _SPREAD.size),
    "tof_flows": (16, 64),
    "tof_accounts": (_ACCOUNT_KEY.size, _ACCOUNT.size),
    "tof_reported": (_ACCOUNT_KEY.size, _ACCOUNT.size),
}
"""Key and value sizes of the maps whose contents are packed here; checked against the loaded object."""
_FLOW_WORDS = 8
LAST_SEEN_WORD, INJECTED_WORD = 2, 11  # last_ns and injected_ns are these 64-bit words of a tunnel
_UES_AT, _SESSION_AT, _FLAGS_AT, _CALM_AT = 24, 40, 57, 100
_MAPPED = bytes(10) + b"\xff\xff"
OUTLET_SIZE = _KEY.size + _OUTLET_END.size
DSCP = 0xFC
"""Of a tunnel's tos; the data path remembers beside it whether its packets may be cut."""
DIRECTIONS = (Direction.UPLINK, Direction.DOWNLINK)


class TunnelRecord(NamedTuple):
    """A tunnel as the data path holds it; ``last_ns`` is CLOCK_MONOTONIC."""

    packets: int
    octets: int
    last_ns: int
    ues: tuple[bytes, ...]
    number: int
    session: int
    direction: Direction
    flags: int
    qfi: int
    link: Link
    learnt_ns: int
    injected_ns: int = 0
    interface_identifier: bytes = bytes(8)

    @property
    def exact(self) -> tuple[bytes, ...]:
        """``ues`` with the last address that an IPv6 UE has used, or one of its /64 if it has not been heard."""
        identifier = self.interface_identifier if any(self.interface_identifier) else bytes(7) + b"\x01"
        return tuple(ue if len(ue) == 4 else ue + identifier for ue in self.ues)

    @property
    def used_ns(self) -> int:
        """When anything last went through it, injected packets included."""
        return max(self.last_ns, self.injected_ns)

    @property
    def form(self) -> Form:
        """How injected packets look."""
        return Form(0x34, self.qfi) if self.flags & CONTAINER else Form()


def is_v6(key: TunnelKey) -> bool:
    """Whether the outer addresses are IPv6."""
    return len(key.source) == 16


def tunnel_key(key: TunnelKey) -> bytes:
    """The key under which tof_tunnels4 or tof_tunnels6 holds the tunnel."""
    teid = key.teid.to_bytes(4, "big")
    vlan = NO_VLAN if key.vlan is None else key.vlan
    if is_v6(key):
        return _KEY.pack(key.source, key.destination, teid, vlan, 6)
    return _KEY4.pack(key.source, key.destination, teid, vlan, 0)


def general_key(key: TunnelKey) -> bytes:
    """The key of either family in one shape (tof_pending, tof_outlets)."""
    vlan = NO_VLAN if key.vlan is None else key.vlan
    return _KEY.pack(key.source, key.destination, key.teid.to_bytes(4, "big"), vlan, 6 if is_v6(key) else 4)


def unpack_key(raw: bytes) -> TunnelKey:
    """The tunnel key behind a key of tof_tunnels4 or tof_tunnels6."""
    source, destination, teid, vlan, _ = (_KEY4 if len(raw) == _KEY4.size else _KEY).unpack(raw)
    return TunnelKey(source, destination, int.from_bytes(teid, "big"), None if vlan == NO_VLAN else vlan)


def pack_tunnel(record: TunnelRecord, link_signature: int = 0) -> bytes:
    """A tunnel's value."""
    ue4 = next((ue for ue in record.ues if len(ue) == 4), bytes(4))
    ue6 = next((ue for ue in record.ues if len(ue) == 8), bytes(8))
    return _TUNNEL.pack(
        record.packets, record.octets, record.last_ns, ue6, ue4, record.number, record.session, link_signature,
        0, 0, DIRECTIONS.index(record.direction), record.flags, record.qfi, record.link.tos, 0,
        record.link.source_mac, record.link.destination_mac, record.link.ifindex, record.learnt_ns,
        record.injected_ns, 0, 0, record.interface_identifier,
    )  # fmt: skip


def unpack_tunnel(raw: bytes, offset: int = 0) -> TunnelRecord:
    """The tunnel behind a value."""
    (packets, octets, last_ns, ue6, ue4, index, session, _signature, _out, _generation, direction, flags, qfi, tos,
     _event_ms, source_mac, destination_mac, ifindex, learnt_ns, injected_ns, _qfi_ms, _pad, identifier,
     ) = _TUNNEL.unpack_from(raw, offset)  # fmt: skip
    ues = tuple(ue for ue in (ue4, ue6) if any(ue))
    return TunnelRecord(
        packets, octets, last_ns, ues, index, session, DIRECTIONS[direction], flags, qfi,
        Link(source_mac, destination_mac, ifindex, tos & DSCP), learnt_ns, injected_ns, identifier,
    )  # fmt: skip


def with_owners(raw: bytes, ues: tuple[bytes, ...]) -> bytes:
    """A tunnel's value with other UEs behind it; what else the data path keeps in it stays."""
    ue4 = next((ue for ue in ues if len(ue) == 4), bytes(4))
    ue6 = next((ue for ue in ues if len(ue) == 8), bytes(8))
    return raw[:_UES_AT] + ue6 + ue4 + raw[_UES_AT + 12 :]


def with_session(raw: bytes, session: int) -> bytes:
    """A tunnel's value as one of that session."""
    return raw[:_SESSION_AT] + session.to_bytes(4, "little") + raw[_SESSION_AT + 4 :]


def with_flags(raw: bytes, put: int = 0, drop: int = 0) -> bytes:
    """A tunnel's value with some flags changed."""
    return raw[:_FLAGS_AT] + bytes((raw[_FLAGS_AT] & ~drop | put,)) + raw[_FLAGS_AT + 1 :]


def with_calm(raw: bytes, until_ns: int) -> bytes:
    """A tunnel's value in which foreign sources are no news until then (CLOCK_MONOTONIC)."""
    until_ms = until_ns // 1_000_000 & 0xFFFFFFFF or 1
    return raw[:_CALM_AT] + until_ms.to_bytes(4, "little") + raw[_CALM_AT + 4 :]


def pack_outlet(key: TunnelKey, peer: int, doubted_ns: int = 0) -> bytes:
    """A value of tof_outlets."""
    return general_key(key) + _OUTLET_END.pack(peer, doubted_ns)


def unpack_outlet(raw: bytes, offset: int = 0) -> tuple[int, bool]:
    """The peer in a value of tof_outlets, and whether the tunnel is doubted."""
    peer, doubted_ns = _OUTLET_END.unpack_from(raw, offset + _KEY.size)
    return peer, doubted_ns != 0


def unpack_pending_link(raw: bytes) -> Link:
    """How the queued packets of an unknown tunnel looked on the link."""
    _, _, _, _, _, source_mac, destination_mac, ifindex, tos = _PENDING.unpack(raw)
    return Link(source_mac, destination_mac, ifindex, tos)


def ue_key(ue: bytes) -> bytes:
    """The key of tof_ues: an IPv4 address or the first half of an IPv6 one."""
    return _UE.pack(bytes(8), ue, 0) if len(ue) == 4 else _UE.pack(ue, bytes(4), 0)


def mapped(address: bytes) -> bytes:
    """Sixteen bytes for an address of either family (::ffff:a.b.c.d)."""
    return address if len(address) == 16 else _MAPPED + address


def unmapped(address: bytes) -> bytes:
    """The address of either family that ``mapped`` made sixteen bytes of."""
    return address[12:] if address[:12] == _MAPPED else address


def filter_bit(address: bytes) -> int:
    """The bit of ``service_filter`` that stands for a service address, as ``may_be_service`` in C has it."""
    words = (int.from_bytes(address[at : at + 4], "big") for at in range(0, len(address), 4))
    mixed = reduce(xor, words) * 0x9E3779B1 & 0xFFFFFFFF
    return 1 << (mixed >> 26)


@dataclass(slots=True)
class DataPathConfig:
    """The one entry of tof_config; ``ports`` are interface indexes by side."""

    bypass: int = 0
    services: int = 0
    pinging: int = 0
    shared: int = 0
    ue_ifindex: int = 0
    mtu: int = 1500
    queues: tuple[int, int] = (0, 0)
    ports: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())
    apps_ifindex: int = 0
    splice_ifindex: int = 0
    own_mac: bytes = bytes(6)
    restricted: int = 0
    prefixes: int = 0
    names: int = 0
    accounting: int = 0
    apps_mtu: int = 0
    service_filter: int = 0

    def pack(self) -> bytes:
        """The bytes of the entry."""
        listed = [index for side in self.ports for index in (*side, *[0] * (MAX_PORTS - len(side)))]
        return _CONFIG.pack(
            self.bypass, self.services, self.pinging, self.shared, self.ue_ifindex, self.mtu, *self.queues,
            len(self.ports[0]), len(self.ports[1]), *listed, self.apps_ifindex, self.splice_ifindex,
            self.own_mac, self.restricted, self.prefixes, self.names, self.accounting, self.apps_mtu,
            self.service_filter,
        )  # fmt: skip


class ServedRecord(NamedTuple):
    """A service as the data path holds it, with what it has selected; ``state``: see SERVING and what follows it.

    One whose ``service`` is not its own number is a further application of that one; its name is its address.
    """

    packets: int
    octets: int
    state: int
    service: int
    name: str


SERVING = {Serving.OFF: 0, Serving.DIVERT: 1, Serving.SHADOW: 2}
TRACKED, LIVES, SPREAD = 4, 8, 16


def pack_served(record: ServedRecord) -> bytes:
    """A value of tof_served."""
    return _SERVED.pack(record.packets, record.octets, record.state, record.service, record.name.encode())


def unpack_served(raw: bytes, offset: int = 0) -> ServedRecord:
    """The service behind a value."""
    packets, octets, state, service, name = _SERVED.unpack_from(raw, offset)
    return ServedRecord(packets, octets, state, service, name.rstrip(b"\0").decode())


def pack_spread(slots: Sequence[int], *, by_flow: bool) -> bytes:
    """A value of tof_spread."""
    return _SPREAD.pack(by_flow, *slots)


def pack_account_key(key: AccountKey) -> bytes:
    """A key of tof_accounts and tof_reported."""
    ue = key.ue + bytes(8) if len(key.ue) == 8 else mapped(key.ue)
    vlan = NO_VLAN if key.vlan is None else key.vlan
    return _ACCOUNT_KEY.pack(ue, mapped(key.enb), mapped(key.sgw), key.service, vlan, key.by_agent)


def unpack_account_key(raw: bytes) -> AccountKey:
    """The account behind a key."""
    ue, enb, sgw, service, vlan, by_agent = _ACCOUNT_KEY.unpack(raw)
    short = unmapped(ue)
    return AccountKey(
        short if len(short) == 4 else ue[:8], unmapped(enb), unmapped(sgw),
        None if vlan == NO_VLAN else vlan, service, bool(by_agent),
    )  # fmt: skip


def pack_account(account: Account) -> bytes:
    """A value of tof_accounts and tof_reported."""
    return _ACCOUNT.pack(*account)


def unpack_account(raw: bytes) -> Account:
    """The account in a value."""
    return Account(*_ACCOUNT.unpack(raw))


def pack_rule(rule: Rule, number: int, sets: tuple[int, ...], *, last: bool) -> bytes:
    """A value of tof_rules; ``sets``: the numbers in tof_sets of its UEs, eNBs and SGWs."""
    ports, dscps = rule.ports, sum(1 << dscp for dscp in rule.dscps)
    return _RULE.pack(
        number, last, rule.protocol, ports.first, ports.last, rule.vlan, rule.looks_at_ports, *sets, dscps
    )


def prefix_key(network: IpNetwork, set_number: int | None = None) -> bytes:
    """The key of a prefix in tof_prefixes, or in one of the sets of tof_sets."""
    length = network.prefixlen + (96 if network.version == 4 else 0)
    address = mapped(network.network_address.packed)
    if set_number is None:
        return length.to_bytes(4, "little") + address
    return (32 + length).to_bytes(4, "little") + set_number.to_bytes(4, "little") + address


class RawEvent(NamedTuple):
    """A record of tof_events."""

    kind: int
    side: int
    ifindex: int
    tunnel: int
    length: int
    vlan: int | None
    data: bytes


class SeenRecord(NamedTuple):
    """A record of tof_seen: a G-PDU of an unknown tunnel that did not take the queue."""

    side: int
    key: TunnelKey
    source: bytes
    destination: bytes
    form: Form
    size: int
    link: Link


def unpack_seen(raw: bytes) -> SeenRecord:
    """The G-PDU behind a record."""
    (source, destination, teid, vlan, family, inner_source, inner_destination, source_mac, destination_mac, ifindex,
     size, side, inner6, tos, flags, has_container, qfi) = _SEEN.unpack(raw)  # fmt: skip
    outer, inner = 16 if family == 6 else 4, 16 if inner6 else 4
    number = int.from_bytes(teid, "big")
    key = TunnelKey(source[:outer], destination[:outer], number, None if vlan == NO_VLAN else vlan)
    return SeenRecord(
        side, key, inner_source[:inner], inner_destination[:inner],
        Form(flags, qfi if has_container else None), size, Link(source_mac, destination_mac, ifindex, tos),
    )  # fmt: skip


SAMPLE, SPOOFED, DOWNLINK_MOVED, HELD, TOO_BIG, RETURNED, DOUBTED, MOVED_ON, ANSWER, APPS_TOO_BIG = range(
    1, 11
)


def flow_target(address: bytes) -> tuple[int, int]:
    """A service address as the two 64-bit words in which the values of tof_flows have it."""
    words = memoryview(address.ljust(16, b"\0")).cast("Q")
    return words[0], words[1]


def flow_targets(values: bytes, since_ns: int) -> set[tuple[int, int]]:
    """Where the flows behind values of tof_flows go that have been in use since then; one that is over never has."""
    words = memoryview(values).cast("Q")
    columns = (words[at::_FLOW_WORDS].tolist() for at in (5, 6, 0))
    return {(first, second) for first, second, last_ns in zip(*columns, strict=True) if last_ns >= since_ns}


def unpack_event(raw: bytes) -> RawEvent:
    """The event behind a record."""
    kind, side, ifindex, index, length, vlan, captured = _EVENT.unpack_from(raw)
    start = _EVENT.size
    return RawEvent(
        kind, side, ifindex, index, length, None if vlan == NO_VLAN else vlan, raw[start : start + captured]
    )
