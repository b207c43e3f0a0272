"""GTP Filter and GTP Tunnel Endpoints in XDP: loads or takes over the programs and maps, and keeps them in step.

The state survives the agent: maps live as long as a program on an adapter uses them. A starting agent finds them
through the programs attached to its adapters, loads its own programs on top of them, and swaps those in one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib import resources
from ipaddress import IPv6Network
from pathlib import Path

from tof.agent.commands import (
    DropToken,
    DropTunnel,
    PutToken,
    PutTunnel,
    SetCalm,
    SetDefault,
    SetDoubt,
    SetLeft,
    SetOwners,
    SetPeer,
    SetSession,
    TunnelCommand,
)
from tof.agent.events import AdoptedService, AdoptedTunnel
from tof.config import S1, Accounting
from tof.dataplane.desired import ServedService
from tof.dataplane.selection import RuleLists
from tof.drivers import layout
from tof.drivers.accounts import AccountMaps
from tof.drivers.attachment import Attachment
from tof.drivers.hooks import Hooks
from tof.drivers.host import Plumbing
from tof.drivers.layout import DataPathConfig, TunnelRecord
from tof.drivers.libbpf import BpfObject, Map, RingBuffer, maps_of
from tof.drivers.selection import SelectionMaps, filter_bits
from tof.drivers.splices import SpliceMaps
from tof.errors import SetupError
from tof.model import IpAddress, IpNetwork, Link, TunnelKey

_ZERO = bytes(4)
_NO_LINK = Link(bytes(6), bytes(6), 0, 0)
EVENTS_A_TURN = 128
TICK_NS = 10_000_000
"""The programs' coarse clock may be so far behind: what a flow did after a tunnel was learnt never looks older than that."""


def object_path() -> Path:
    """The compiled BPF object; SetupError if it was not built."""
    path = Path(str(resources.files("tof.drivers.bpf") / "tof.bpf.o"))
    if not path.exists():
        raise SetupError(
            "tof/drivers/bpf/tof.bpf.o is missing: run tools/setup, which compiles it with clang"
        )
    return path


def counter_names() -> tuple[str, ...]:
    """The names of tof_counters' entries, in order, as the C source's ``enum counter`` lists them."""
    source = (resources.files("tof.drivers.bpf") / "tof.bpf.c").read_text()
    body = source.split("enum counter {", 1)[1].split("}", 1)[0]
    words = (line.split("//")[0].strip().rstrip(",") for line in body.splitlines())
    return tuple(word.removeprefix("c_") for word in words if word.startswith("c_") and word != "c_max")


class XdpEndpoints:
    """The kernel's half of the data path."""

    def __init__(
        self, plumbing: Plumbing, most_tunnels: int, s1: S1, accounting: Accounting | None = None
    ) -> None:
        self._plumbing, self._s1 = plumbing, s1
        self._accounting = accounting or Accounting()
        self._hooks = Hooks()
        old = self._find_maps()
        sizes = {
            "tof_tunnels4": most_tunnels,
            "tof_tunnels6": most_tunnels,
            "tof_outlets": 2 * most_tunnels,
            "tof_ues": 2 * most_tunnels,
            "tof_accounts": self._accounting.max_accounts,
            "tof_reported": 2 * self._accounting.max_accounts,
        }
        self._object = BpfObject(object_path(), sizes, old)
        for unused in old.values():
            unused.close()
        self._maps = self._object.maps
        for name, sizes_here in layout.SIZES.items():
            if (self._maps[name].key_size, self._maps[name].value_size) != sizes_here:
                raise SetupError(f"tof.bpf.o does not fit this TOF (map {name}): run tools/setup")
        self.adopted = self._object.reused and "tof_outlets" in old
        programs = self._object.programs
        self.attachment = Attachment(plumbing, s1, self._hooks, programs, adopting=self.adopted)
        self.tracked: frozenset[bytes] = frozenset()
        self.selection = SelectionMaps(self._maps)
        self.accounts = AccountMaps(self._maps)
        self.splices = SpliceMaps(self._maps["tof_splices"], programs, self._hooks)
        self._tokens = len(self.adopt_tokens()) if self.adopted else 0
        self._config = DataPathConfig()
        self._names = counter_names()

    # Taking over

    def _find_maps(self) -> dict[str, Map]:
        found: dict[str, Map] = {}
        for ifindex in (*self._plumbing.enb, *self._plumbing.sgw, self._plumbing.ue):
            for program in self._hooks.xdp_programs(ifindex):
                for name, one in (maps_of(program) if program else {}).items():
                    if name in found:
                        one.close()
                    else:
                        found[name] = one
        return found

    def attach(self) -> None:
        """Put the configuration in force, then every program on its device, consumers before producers."""
        p = self._plumbing
        if self.adopted:
            raw = self._get_config()
            self._config.bypass = int.from_bytes(raw[:4], "little")
            self._config.services = int.from_bytes(raw[4:8], "little")
            self._config.pinging = int.from_bytes(raw[8:12], "little")
            self._config.prefixes = int.from_bytes(raw[-24:-20], "little")
            self._config.names = int.from_bytes(raw[-20:-16], "little")
            self._config.service_filter = int.from_bytes(raw[-8:], "little")
        self._config.ue_ifindex, self._config.mtu = p.ue, p.s1_mtu
        self._config.apps_mtu = p.apps_mtu
        self._config.queues = (p.queue[0].a, p.queue[1].a)
        self._config.ports = (p.enb, p.sgw)
        self._config.apps_ifindex, self._config.splice_ifindex = p.app, p.app0
        self._config.accounting = int(self._accounting.on)
        if self._s1.shared:
            self._config.shared, self._config.own_mac = 1, self._hooks.mac(p.enb[0])
        self._config.restricted = int(not self._s1.shared and bool(self._s1.enb or self._s1.sgw))
        if self._config.shared or self._config.restricted:
            self._put_sides()
        self._write_config()
        if not self.adopted:
            state = self._maps["tof_state"]
            state.put(_ZERO, (bytes(8) + (1).to_bytes(4, "little")).ljust(state.value_size, b"\0"))
        self.attachment.attach()

    def _put_sides(self) -> None:
        """The provisioned nodes; a side that is not provisioned is everybody else."""
        everybody = (IPv6Network("::/0"),)
        wanted = {}
        for side, networks in enumerate((self._s1.enb or everybody, self._s1.sgw or everybody)):
            for network in networks:
                length = network.prefixlen + (96 if network.version == 4 else 0)
                key = length.to_bytes(4, "little") + layout.mapped(network.network_address.packed)
                wanted[key] = side.to_bytes(4, "little")
        table = self._maps["tof_sides"]
        for key, value in wanted.items():
            table.put(key, value)
        for keys, _, count in table.slices():
            for at in range(count):
                if (key := keys[at * 20 : at * 20 + 20]) not in wanted:
                    table.drop(key)

    def close(self) -> None:
        """Let go of everything; what is attached stays in force."""
        self._object.close()
        self.attachment.close()
        self._hooks.close()

    # Tunnels

    def carry_out(self, command: TunnelCommand, now_ns: int) -> None:
        """Make the maps say what the command says."""
        match command:
            case PutTunnel():
                self._put_tunnel(command, now_ns)
            case SetPeer(key, index, peer):
                self._put_outlet(key, index, peer)
            case SetOwners() | SetSession() | SetLeft() | SetCalm():
                self._change_tunnel(command, now_ns)
            case SetDoubt(key, index, doubted):
                self._put_outlet(key, index, 0, now_ns if doubted else 0)
                if not doubted:
                    self._change(key, lambda raw: layout.with_flags(raw, drop=layout.MOVED))
            case DropTunnel(key, index):
                self._table(key).drop(layout.tunnel_key(key))
                self._maps["tof_outlets"].drop(index.to_bytes(4, "little"))
                self._maps["tof_pending"].drop(layout.general_key(key))
            case SetDefault() | PutToken() | DropToken():
                self._carry_out_beside(command)

    def _change_tunnel(self, command: SetOwners | SetSession | SetLeft | SetCalm, now_ns: int) -> None:
        match command:
            case SetOwners(key, ues):
                # The agent has decided whose it is: another's packet in it is news again.
                self._change(
                    key, lambda raw: layout.with_flags(layout.with_owners(raw, ues), drop=layout.MOVED)
                )
            case SetSession(key, session):
                self._change(key, lambda raw: layout.with_session(raw, session))
            case SetLeft(key, left):
                put, drop = (layout.LEFT, 0) if left else (0, layout.LEFT)
                self._change(key, lambda raw: layout.with_flags(raw, put, drop))
            case SetCalm(key, seconds):
                self._change(key, lambda raw: layout.with_calm(raw, now_ns + int(seconds * 1e9)))

    def _carry_out_beside(self, command: SetDefault | PutToken | DropToken) -> None:
        match command:
            case SetDefault(ue, index):
                self._set_default(ue, index)
            case PutToken(token, index):
                self._maps["tof_tokens"].put(token.to_bytes(8, "big"), index.to_bytes(4, "little"))
                self._count_tokens(1)
            case DropToken(token):
                if self._maps["tof_tokens"].drop(token.to_bytes(8, "big")):
                    self._count_tokens(-1)

    def _put_tunnel(self, command: PutTunnel, now_ns: int) -> None:
        link = command.link or self._pending_link(command.like or command.key)
        flags = layout.SETTLING | (layout.CONTAINER if command.form.qfi is not None else 0)
        record = TunnelRecord(
            1 if command.dropped else 0, command.dropped, now_ns, command.ues, command.index, command.session,
            command.direction, flags, command.form.qfi or 0, link, now_ns - TICK_NS, 0,
            command.identifier,
        )  # fmt: skip
        self._put_outlet(command.key, command.index, command.peer)
        self._table(command.key).put(layout.tunnel_key(command.key), layout.pack_tunnel(record))

    def _pending_link(self, key: TunnelKey) -> Link:
        pending = self._maps["tof_pending"].get(layout.general_key(key))
        return layout.unpack_pending_link(pending) if pending else _NO_LINK

    def _put_outlet(self, key: TunnelKey, index: int, peer: int, doubted_ns: int = 0) -> None:
        value = layout.pack_outlet(key, peer, doubted_ns)
        self._maps["tof_outlets"].put(index.to_bytes(4, "little"), value)

    def _change(self, key: TunnelKey, change: Callable[[bytes], bytes]) -> None:
        raw = self._table(key).get(layout.tunnel_key(key))
        if raw is not None:
            self._table(key).put(layout.tunnel_key(key), change(raw))

    def _set_default(self, ue: bytes, index: int) -> None:
        if index:
            self._maps["tof_ues"].put(layout.ue_key(ue), index.to_bytes(4, "little"))
        else:
            self._maps["tof_ues"].drop(layout.ue_key(ue))

    def _count_tokens(self, step: int) -> None:
        self._tokens += step
        if (self._tokens > 0) != bool(self._config.pinging):
            self._config.pinging = int(self._tokens > 0)
            self._write_config()

    def _table(self, key: TunnelKey) -> Map:
        return self._maps["tof_tunnels6" if layout.is_v6(key) else "tof_tunnels4"]

    # Reading back

    def tunnel(self, key: TunnelKey) -> TunnelRecord | None:
        """The tunnel as the data path holds it."""
        raw = self._table(key).get(layout.tunnel_key(key))
        return layout.unpack_tunnel(raw) if raw is not None else None

    def slices(self) -> Iterator[tuple[bytes, bytes, int, int]]:
        """All tunnels in slices: keys and values back to back, key size, count."""
        for name in ("tof_tunnels4", "tof_tunnels6"):
            table = self._maps[name]
            for keys, values, count in table.slices():
                yield keys, values, table.key_size, count

    def tunnels(self) -> Iterator[tuple[TunnelKey, TunnelRecord]]:
        """Every tunnel with its key."""
        for keys, values, size, count in self.slices():
            for at in range(count):
                key = layout.unpack_key(keys[at * size : (at + 1) * size])
                yield key, layout.unpack_tunnel(values, at * layout.TUNNEL_SIZE)

    def adopt(self) -> tuple[AdoptedTunnel, ...]:
        """What a starting agent takes over."""
        outlets = {
            int.from_bytes(keys[at * 4 : at * 4 + 4], "little"): layout.unpack_outlet(
                values, at * layout.OUTLET_SIZE
            )
            for keys, values, count in self._maps["tof_outlets"].slices()
            for at in range(count)
        }
        return tuple(
            AdoptedTunnel(
                key, one.number, one.session, one.direction, one.exact, one.form, bool(one.flags & layout.ENDED),
                *outlets.get(one.number, (0, False)), left=bool(one.flags & layout.LEFT),
            )
            for key, one in self.tunnels()
        )  # fmt: skip

    def adopt_tokens(self) -> tuple[int, ...]:
        """The tokens an earlier agent left: their replies are still not the UEs' to see."""
        return tuple(
            int.from_bytes(keys[at * 8 : at * 8 + 8], "big")
            for keys, _, count in self._maps["tof_tokens"].slices()
            for at in range(count)
        )

    def adopt_services(self) -> tuple[AdoptedService, ...]:
        """The services that an earlier agent left."""
        return tuple(
            AdoptedService(record.name, number, record.service, bool(record.state & layout.LIVES))
            for number, record in self.selection.served()
        )

    def counters(self) -> dict[str, int]:
        """Every named counter, summed over the CPUs."""
        table = self._maps["tof_counters"]
        return {
            name: sum(int.from_bytes(one, "little") for one in table.get_per_cpu(at.to_bytes(4, "little")))
            for at, name in enumerate(self._names)
        }

    def heartbeat_ns(self) -> int:
        """When OVS's heartbeat last came through br-ue, CLOCK_MONOTONIC."""
        raw = self._maps["tof_state"].get(_ZERO) or bytes(8)
        return int.from_bytes(raw[:8], "little")

    def agent_lives(self, now_ns: int) -> None:
        """The agent turns to the fragments it holds: it is given more for a while."""
        self._maps["tof_agent"].put(_ZERO, now_ns.to_bytes(8, "little"))

    # Services, bypass, events

    def set_services(self, wanted: Sequence[ServedService], rules: RuleLists) -> None:
        """Judge packets by these rules, and do with those of each service what is wanted."""
        if self.selection.put(wanted, rules, self.tracked):
            bits = filter_bits(rules)
            prefixes = sum(network.prefixlen < network.max_prefixlen for network in rules.lists)
            before = self._config.services, self._config.prefixes, self._config.service_filter
            if before != (len(rules.lists), prefixes, bits):
                self._config.services, self._config.prefixes = len(rules.lists), prefixes
                self._config.service_filter = bits
                self._write_config()
        self.selection.drop_others(wanted)
        names = int(any(one.service.network is None for one in wanted))
        if names != self._config.names:
            self._config.names = names
            self._write_config()

    def set_resolvers(self, resolvers: Iterable[IpNetwork]) -> None:
        """The agent is shown the answers of these, while a service is given by domain."""
        table, wanted = self._maps["tof_resolvers"], {layout.prefix_key(network) for network in resolvers}
        present = {keys[at * 20 : at * 20 + 20] for keys, _, count in table.slices() for at in range(count)}
        for key in wanted - present:
            table.put(key, bytes(4))
        for key in present - wanted:
            table.drop(key)

    def flow_targets(self, since_ns: int) -> Iterator[set[tuple[int, int]]]:
        """Where the flows go that have been in use since then, in slices: see ``layout.flow_target``."""
        for _, values, _ in self._maps["tof_flows"].slices():
            yield layout.flow_targets(values, since_ns)

    def set_tracked(self, addresses: Iterable[IpAddress]) -> None:
        """Leave the later fragments of these, services and applications, to connection tracking."""
        table = self._maps["tof_tracked"]
        self.tracked = frozenset(address.packed for address in addresses)
        wanted = {layout.mapped(address) for address in self.tracked}
        present = {keys[at * 16 : at * 16 + 16] for keys, _, count in table.slices() for at in range(count)}
        for address in wanted - present:
            table.put(address, bytes(4))
        for address in present - wanted:
            table.drop(address)

    def drop_services(self, numbers: Iterable[int]) -> None:
        """Stop diverting these at once."""
        for number in numbers:
            self.selection.stop(number)

    @property
    def mtu(self) -> int:
        """The largest outer IP packet on every S1 adapter."""
        return self._config.mtu

    @property
    def bypass(self) -> bool:
        """Whether everything goes to the wire."""
        return any(self._get_config()[:4])

    def events(self, sink: Callable[[bytes], None]) -> RingBuffer:
        """Copies and held frames from the data path."""
        return RingBuffer(self._maps["tof_events"], sink, EVENTS_A_TURN)

    def seen(self, sink: Callable[[bytes], None]) -> RingBuffer:
        """G-PDUs of unknown tunnels that did not take the queue, because it could not keep up."""
        return RingBuffer(self._maps["tof_seen"], sink, EVENTS_A_TURN)

    def _get_config(self) -> bytes:
        return self._maps["tof_config"].get(_ZERO) or bytes(self._maps["tof_config"].value_size)

    def _write_config(self) -> None:
        # `tof bypass` writes this entry too: its word is kept.
        self._config.bypass = int.from_bytes(self._get_config()[:4], "little")
        self._maps["tof_config"].put(_ZERO, self._config.pack())
