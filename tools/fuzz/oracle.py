"""What the programs of tof.bpf.c must do with a frame, written from docs/architecture.md on top of ``tof.wire``.

An ``Oracle`` holds the state that the maps hold. A method a program: frame in, (verdict, frame out) back; what is
counted, learnt and told is in the oracle afterwards and is compared with counters, maps and ring buffer.
"""

from __future__ import annotations

from collections import Counter
from ipaddress import ip_network
from struct import Struct
from typing import NamedTuple

from tof.agent.accounting import AccountKey
from tof.agent.commands import AMBIGUOUS
from tof.agent.tunnels import ue_of
from tof.dataplane.desired import ServedService, Serving
from tof.dataplane.selection import judge, uplink_facts
from tof.dataplane.spreading import ends_of, slot_of, slots
from tof.drivers import layout
from tof.errors import DecodeError
from tof.model import (
    GATEWAY_MAC,
    SERVICE_MAC_PREFIX,
    TUNNEL_MAC_PREFIX,
    Direction,
    TunnelKey,
    service_mac,
    tunnel_mac,
)
from tof.wire import gtpu, inet
from tools.fuzz.scenario import DEFAULTS, MTU, RULES, SERVED, TOKEN, TRACKED, TUNNELS, Known

_BY_NUMBER = {one.service_id: one for one in SERVED}
_BEHIND = {one.service_id: (one.service_id, one.service.application_ip) for one in SERVED} | {
    application.number: (one.service_id, application.address)
    for one in SERVED
    for application in one.applications
}
"""An application's number: the service's number and its address."""
_LIVING = {application.number for one in SERVED for application in one.applications if application.lives}
_BY_NAME = {one.service.name: one for one in SERVED}
DROP, PASS, REDIRECT = 1, 2, 4  # XDP
TC_OK, TC_SHOT, TC_REDIRECT = 0, 2, 7

# What the fast lane takes upon itself; the bridge has the rest.
MOST_EXTENSIONS = 8
MOST_HEADER = 1536
MOST_TCP_OPTIONS = 20
HELD = 9728
DSCP = 0xFC
"""Of a tunnel's packets: the other two bits are one packet's mark of congestion (RFC 6040)."""
RESERVED_GROUPS = bytes.fromhex("0180c20000")
"""IEEE 802.1Q table 8-1: 00 to 0f behind these end at a bridge."""
WORST_GTP = 16
ANSWERS = (gtpu.ERROR_INDICATION, gtpu.ECHO_RESPONSE)
SIGNALS = (*ANSWERS, gtpu.END_MARKER)
WRAPPER = bytes.fromhex("027100000002 027100000001")
ETHERTYPES = (b"\x08\0", b"\x88\xb5")
"""Behind it: through the queue, or past it."""
WRAPPER_PROTOCOL, WRAPPER_ADDRESS, WRAPPER_BYTES = 253, bytes((192, 0, 0, 8)), 38

REASONS = {
    "gtpu_truncated": "bridged_length",
    "gtpu_length": "bridged_length",
    "gtpu_extension_truncated": "bridged_extension",
    "gtpu_extension_length": "bridged_extension",
}
"""Why a G-PDU takes the bridge, by what the codec says of it."""

_U16, _U32 = Struct("!H"), Struct("!I")
_IPV4, _IPV6, _UDP = Struct("!BBHHHBBH4s4s"), Struct("!IHBB16s16s"), Struct("!HHHH")
_GTP = Struct("!BBHI")

OTHER, ODD, FRAGMENT, PIECE, GPDU, SIGNAL, MESSAGE = range(7)
FIRST, LATER = 1, 2
UNDECIDED, PASSES, DIVERTS, LEFT = range(1, 5)
COPIED = 2048
"""A longer fragment cannot reach the agent whole."""
VEILS, VEIL_BIT = {inet.UDP_PROTOCOL: 253, inet.TCP: 254}, 0x80


class Station(NamedTuple):
    """Where a MAC address was heard; ``tagged``: with a tag that was in the frame."""

    ifindex: int
    side: int
    tagged: bool = False

    def pack(self) -> bytes:
        return self.ifindex.to_bytes(4, "little") + bytes((self.side, 0, self.tagged, 0))


class Inner:
    """A user's packet: ``segment`` is its first L4 header and what follows, None for a later fragment."""

    __slots__ = ("destination", "ident", "packet", "piece", "protocol", "segment", "segment_at", "source")

    def __init__(
        self,
        packet: bytes,
        source: bytes,
        destination: bytes,
        protocol: int,
        piece: int,
        ident: bytes,
        at: int,
    ) -> None:
        self.packet, self.source, self.destination = packet, source, destination
        self.protocol, self.piece, self.ident = protocol, piece, ident
        self.segment_at = at
        self.segment = packet[at:] if at else None

    @property
    def v6(self) -> bool:
        return len(self.source) == 16

    def ports(self) -> tuple[int, int]:
        """Source and destination port, or an echo's identifier twice; zeros where there are none."""
        segment = self.segment
        if segment is None or len(segment) < 8:
            return 0, 0
        if self.protocol in (inet.TCP, inet.UDP_PROTOCOL):
            return _U16.unpack_from(segment)[0], _U16.unpack_from(segment, 2)[0]
        if self.protocol in (inet.ICMP, inet.ICMPV6):
            return (_U16.unpack_from(segment, 4)[0],) * 2
        return 0, 0

    def goes_to(self, port: int) -> bool:
        """Whether that is its destination port."""
        return (
            self.segment is not None
            and len(self.segment) >= 4
            and _U16.unpack_from(self.segment, 2)[0] == port
        )

    def opens(self) -> bool:
        """Whether it is the first segment of a TCP connection."""
        segment = self.segment
        return (
            self.protocol == inet.TCP
            and segment is not None
            and len(segment) >= 14
            and segment[13] & 0x12 == 2
        )

    def token(self) -> int | None:
        """The first 64 bits of the data of an echo reply."""
        segment = self.segment
        if segment is None or self.piece or len(segment) < 16:
            return None
        if (self.protocol, segment[0]) not in ((inet.ICMP, 0), (inet.ICMPV6, 129)):
            return None
        return int.from_bytes(segment[8:16], "big")


def inner_of(payload: bytes) -> Inner | None:
    """The packet at the start of ``payload`` if it is one: what follows its length is none of it."""
    version = payload[0] >> 4 if payload else 0
    if version == 4 and len(payload) >= 20:
        first, _, total, ident, fragment, _, protocol, _, source, destination = _IPV4.unpack_from(payload)
        header = (first & 15) * 4
        if 20 <= header <= total <= len(payload):
            piece = LATER if fragment & 0x1FFF else FIRST if fragment & 0x2000 else 0
            at = 0 if piece == LATER else header
            return Inner(payload[:total], source, destination, protocol, piece, _U16.pack(ident), at)
    elif version == 6 and len(payload) >= 40:
        _, length, protocol, _, source, destination = _IPV6.unpack_from(payload)
        if 40 + length <= len(payload):
            packet = payload[: 40 + length]
            if protocol != inet.IPV6_FRAGMENT:
                return Inner(packet, source, destination, protocol, 0, b"", 40)
            if length < 8:
                return Inner(packet, source, destination, protocol, LATER, b"", 0)
            piece = LATER if _U16.unpack_from(packet, 42)[0] & 0xFFF8 else FIRST
            at = 0 if piece == LATER else 48
            return Inner(packet, source, destination, packet[40], piece, packet[44:48], at)
    return None


class Seen:
    """What a frame is, as far as the data path has to know."""

    __slots__ = (
        "ident",
        "inner",
        "key",
        "kind",
        "may_cut",
        "message",
        "outer6",
        "partial",
        "piece",
        "qfi",
        "reason",
        "tos",
        "vlan",
    )

    def __init__(self, vlan: int | None) -> None:
        self.vlan = vlan
        self.kind, self.reason = OTHER, ""
        self.partial = self.outer6 = self.may_cut = False
        self.tos = self.message = self.piece = 0
        self.qfi: int | None = None

    def odd(self, reason: str, kind: int = ODD) -> Seen:
        self.kind, self.reason = kind, reason
        return self


def read(frame: bytes) -> Seen:
    """Ethernet with at most one 802.1Q tag, IPv4 or IPv6, UDP to 2152, GTP-U version 1: anything else is other."""
    kind, at = frame[12:14], 14
    seen = Seen(None)
    if kind == b"\x81\x00":
        if len(frame) < 18:
            return seen
        seen.vlan = (_U16.unpack_from(frame, 14)[0] & 0xFFF) or None
        kind, at = frame[16:18], 18
    if kind == b"\x08\x00":
        return _read_ipv4(frame, at, seen)
    if kind == b"\x86\xdd":
        return _read_ipv6(frame, at, seen)
    return seen


def _read_ipv4(frame: bytes, at: int, seen: Seen) -> Seen:
    if len(frame) < at + 20:
        return seen
    first, tos, total, ident, fragment, _, protocol, _, source, destination = _IPV4.unpack_from(frame, at)
    if first >> 4 != 4 or protocol != inet.UDP_PROTOCOL:
        return seen
    seen.tos, header = tos & DSCP, (first & 15) * 4
    seen.may_cut = not fragment & inet.DONT_FRAGMENT << 13
    if not 20 <= header <= total <= len(frame) - at:
        return seen.odd("bridged_length")
    start, end = at + header, at + total
    if fragment & 0x3FFF:
        return _read_piece(frame, start, end, source, destination, fragment & 0x1FFF, ident, seen)
    return _read_udp(frame, start, end, source, destination, seen)


def _read_ipv6(frame: bytes, at: int, seen: Seen) -> Seen:
    if len(frame) < at + 40:
        return seen
    first, length, protocol, _, source, destination = _IPV6.unpack_from(frame, at)
    if first >> 28 != 6:
        return seen
    seen.outer6 = True
    seen.tos = first >> 20 & DSCP
    start, end = at + 40, at + 40 + length
    if protocol == inet.IPV6_FRAGMENT:
        if len(frame) < start + 8 or frame[start] != inet.UDP_PROTOCOL or length < 8 or end > len(frame):
            return seen.odd("bridged_fragment")
        word, ident = _U16.unpack_from(frame, start + 2)[0], _U32.unpack_from(frame, start + 4)[0]
        return _read_piece(frame, start + 8, end, source, destination, word & 0xFFF8, ident, seen)
    if protocol != inet.UDP_PROTOCOL:
        return seen
    if end > len(frame):
        return seen.odd("bridged_length")
    return _read_udp(frame, start, end, source, destination, seen)


def _read_piece(
    frame: bytes, start: int, end: int, source: bytes, destination: bytes, offset: int, ident: int, seen: Seen
) -> Seen:
    """A fragment of UDP: the first one of a G-PDU has to hold all headers that are read."""
    seen.key, seen.ident, seen.piece = (
        TunnelKey(source, destination, 0, seen.vlan),
        ident,
        LATER if offset else FIRST,
    )
    if not offset and end - start >= 16:
        _, port, length, _ = _UDP.unpack_from(frame, start)
        flags, kind, _, teid = _GTP.unpack_from(frame, start + 8)
        if port == gtpu.PORT and length > end - start and flags >> 4 == 3 and kind == gtpu.G_PDU:
            whole = frame[start + 8 : end].ljust(length - 8, b"\0")
            seen.key = TunnelKey(source, destination, teid, seen.vlan)
            if _read_gpdu(whole, seen).kind == GPDU:
                inner = seen.inner
                at = length - 8 - len(gtpu.decode(whole).payload)
                headers = inner.segment_at + 14 if inner.segment_at else 48 if inner.v6 else 20
                if at + min(headers, len(inner.packet)) <= end - start - 8:
                    return seen.odd("bridged_fragment", FRAGMENT)
    return seen.odd("bridged_fragment", PIECE)


def _read_udp(frame: bytes, start: int, end: int, source: bytes, destination: bytes, seen: Seen) -> Seen:
    if end - start < 8:
        return seen.odd("bridged_length")
    source_port, port, length, check = _UDP.unpack_from(frame, start)
    if port != gtpu.PORT:
        answers = source_port == gtpu.PORT and length == end - start
        return _read_answer(frame, start, source, destination, seen) if answers else seen
    if length != end - start or length < 16:
        return seen.odd("bridged_length")
    if check:
        pseudo = inet.pseudo_header(source, destination, inet.UDP_PROTOCOL, length)
        seen.partial = check == inet.ones_sum(pseudo)
    flags, kind, size, teid = _GTP.unpack_from(frame, start + 8)
    seen.message, seen.key = kind, TunnelKey(source, destination, teid, seen.vlan)
    if flags >> 4 != 3:
        return seen.odd("bridged_version")
    if kind == gtpu.G_PDU:
        return _read_gpdu(frame[start + 8 : end], seen)
    if kind not in SIGNALS:
        return seen.odd("bridged_message", MESSAGE)
    return seen.odd("", SIGNAL) if length == size + 16 else seen.odd("bridged_length")


def _read_gpdu(data: bytes, seen: Seen) -> Seen:
    try:
        message = gtpu.decode(data)
    except DecodeError as error:
        return seen.odd(REASONS[error.reason])
    chain = message.extensions
    if chain and (len(chain) > MOST_EXTENSIONS or 12 + sum(len(e.content) + 2 for e in chain) > MOST_HEADER):
        return seen.odd("bridged_extension")
    inner = inner_of(message.payload) if message.teid else None
    if inner is None:
        return seen.odd("bridged_inner")
    seen.inner, seen.qfi, seen.kind = inner, message.qfi, GPDU
    return seen


def _read_answer(frame: bytes, start: int, source: bytes, destination: bytes, seen: Seen) -> Seen:
    """To any port from 2152: only what cannot be anything but an answer (TS 29.281 section 4.4.2)."""
    length = _U16.unpack_from(frame, start + 4)[0]
    if length < 16:
        return seen
    flags, kind, size, teid = _GTP.unpack_from(frame, start + 8)
    if flags >> 4 == 3 and kind in ANSWERS and length == size + 16:
        seen.message, seen.key = kind, TunnelKey(source, destination, teid, seen.vlan)
        return seen.odd("", SIGNAL)
    return seen


class Tunnel:
    """What the data path holds of a tunnel."""

    __slots__ = (
        "container", "destination_mac", "direction", "doubted", "ended", "ifindex", "index", "injected", "left", "link",
        "may_cut", "moved", "octets", "packets", "qfi", "qfi_seen", "session", "settling", "source_mac", "tos", "ues",
        "uplink", "young",
    )  # fmt: skip

    def __init__(self, known: Known) -> None:
        self.direction, self.uplink = known.direction, known.direction is Direction.UPLINK
        self.ues, self.index, self.session = known.ues, known.number, known.session
        self.container, self.qfi, self.qfi_seen = known.qfi is not None, known.qfi or 0, False
        self.ended, self.settling, self.left = known.ended, known.settling, known.left
        self.young, self.doubted = known.young, known.doubted
        self.moved = self.injected = self.may_cut = False
        self.packets = self.octets = self.tos = self.ifindex = 0
        self.source_mac = self.destination_mac = bytes(6)
        self.link: tuple[bytes, int, int, bool, int, bool] | None = None

    def owns(self, address: bytes) -> bool:
        return (address if len(address) == 4 else address[:8]) in self.ues


FlowKey = tuple[bytes, bytes, int, int, int]
Flow = tuple[int, int, int, int | None, bool]
"""Session, service, uplink tunnel, the QFI that a reply mirrors; whether it is in the pool of unanswered tunnels."""


class Oracle:
    """The state of one world and what its programs must do; ``ports`` are the adapters of each side."""

    def __init__(self, ports: tuple[tuple[int, ...], tuple[int, ...]], ue: int) -> None:
        self.ports, self.ue_ifindex = ports, ue
        self.bypass = self.heart_dead = False
        self.tokens: frozenset[int] = frozenset((TOKEN,))
        self.tunnels: dict[TunnelKey, Tunnel] = {}
        self.by_index: dict[int, tuple[TunnelKey, int]] = {}
        for one in TUNNELS:
            self.tunnels[one.key] = Tunnel(one)
            self.by_index[one.number] = one.key, one.peer
        self.defaults = DEFAULTS
        self.stations: dict[tuple[bytes, int | None], Station] = {}
        self.flows: dict[FlowKey, Flow] = {}
        self.pieces: dict[tuple[object, ...], int] = {}
        """Where a later inner fragment belongs: 0 core, else its service; from an application: its tunnel."""
        self.outer_pieces: dict[tuple[object, ...], tuple[int, bool]] = {}
        """(fate, whether its fragments take the queue) of outer datagrams."""
        self.pending: set[TunnelKey] = set()
        self.counts: Counter[str] = Counter()
        self.handed: list[tuple[int, int, bytes]] = []
        """Frames given to the agent: (kind, tunnel, frame)."""
        self.told: set[tuple[int, int, bytes]] = set()
        """What may be told of tunnels: (kind, tunnel, inner addresses)."""
        self.accounts: dict[AccountKey, list[int]] = {}
        """Packets up and down, bytes up and down."""
        self.samples = 0
        self.tickets = [0, 0]
        self.generation = 0
        """Of the stations: any change of them makes tunnels say again where theirs is."""

    # The S1 adapters

    def s1(self, frame: bytes, side: int, ifindex: int) -> tuple[int, bytes]:
        """tof_s1_enb, tof_s1_sgw."""
        if self.bypass:
            self.counts["bypassed"] += 1
            return PASS, frame
        seen = read(frame)
        tunnel = self.tunnels.get(seen.key) if seen.kind in (GPDU, SIGNAL) else None
        if seen.kind == GPDU and tunnel is not None:
            if tunnel.uplink == (side == 0):
                return self._known(frame, seen, tunnel, side, ifindex)
            self.counts["wrong_side"] += 1
        self._learn_station(frame, seen.vlan, ifindex, side)
        if seen.reason and not seen.piece:  # the slow lane counts those
            self.counts[seen.reason] += 1
        if tunnel is not None and seen.message == gtpu.END_MARKER and not tunnel.uplink and side == 1:
            tunnel.ended = True
        return PASS, frame

    def _known(self, frame: bytes, seen: Seen, tunnel: Tunnel, side: int, ifindex: int) -> tuple[int, bytes]:
        station_moved = self._follow_link(tunnel, frame, seen, ifindex, side)
        inner = seen.inner
        if not tunnel.uplink and inner.token() in self.tokens:
            return PASS, frame
        self._notice(tunnel, inner)
        self.counts["nested"] += (
            tunnel.uplink and inner.protocol == inet.UDP_PROTOCOL and inner.goes_to(gtpu.PORT)
        )
        tunnel.settling = False
        self._follow_form(tunnel, seen)
        self._add(tunnel, inner)
        service = self._service(tunnel, seen)
        if service is not None:
            diverted = self._divert(tunnel, seen, frame, service)
            if diverted is not None:
                return diverted
        tunnel.injected = False
        if seen.partial:
            self.counts["bridged_partial"] += 1
            return PASS, frame
        if station_moved:  # so that the bridge learns it too
            return PASS, frame
        if not self._way_out(tunnel, seen.vlan, side):
            self.counts["bridged_way_unknown"] += 1
            return PASS, frame
        self.counts["passed"] += 1
        return REDIRECT, frame

    def _notice(self, tunnel: Tunnel, inner: Inner) -> None:
        """What a packet says of its tunnel's UE; how often it is told is a matter of time."""
        kind = 0
        if tunnel.uplink:
            foreign = not tunnel.owns(inner.source) and inet.is_global_unicast(inner.source)
            self.counts["spoofed"] += foreign
            kind = layout.RETURNED if tunnel.left and tunnel.owns(inner.source) else 0
        elif tunnel.owns(inner.destination):
            kind = layout.DOWNLINK_MOVED if tunnel.ended else 0
            tunnel.moved = tunnel.moved and tunnel.ended
        elif (
            inet.is_global_unicast(inner.destination)
            and ip_network(inner.destination) not in RULES.lists  # a service's is no UE's
        ):
            kind = layout.DOWNLINK_MOVED
            tunnel.moved = True
        if kind:
            self.told.add((kind, tunnel.index, inner.source + inner.destination))

    def back(self, frame: bytes, side: int) -> tuple[int, bytes]:
        """tof_ret_enb, tof_ret_sgw: a service's packet is diverted after all; the ticket goes before it as metadata."""
        if len(frame) < WRAPPER_BYTES + 14 or frame[12:14] not in ETHERTYPES or frame[23] != WRAPPER_PROTOCOL:
            return DROP, frame  # nothing else has any business there
        ticket, seen = frame[WRAPPER_BYTES - 4 : WRAPPER_BYTES], read(frame[WRAPPER_BYTES:])
        passed = PASS, frame[WRAPPER_BYTES - 4 :]
        tunnel = self.tunnels.get(seen.key) if seen.kind == GPDU else None
        if tunnel is None or tunnel.uplink != (side == 0):
            return passed
        self._follow_form(tunnel, seen)
        self._add(tunnel, seen.inner)
        service = None if self.bypass else self._service(tunnel, seen)
        if service is not None:
            diverted = self._divert(tunnel, seen, frame[WRAPPER_BYTES:], service)
            if diverted is not None:
                self.counts["returned"] += ticket != bytes(4)
                return diverted[0], ticket + diverted[1]
        tunnel.injected = False
        return passed

    def _learn_station(self, frame: bytes, vlan: int | None, ifindex: int, side: int) -> bool:
        """Whether the station has moved."""
        place = frame[6:12], vlan
        known = self.stations.get(place, Station(0, 0))
        tagged = is_tagged(frame)
        if frame[6] & 1 or known.ifindex == ifindex:
            if not frame[6] & 1:
                self.stations[place] = known._replace(tagged=known.tagged or tagged)
            return False
        self.stations[place] = Station(ifindex, side, tagged)
        self.generation += 1
        self.counts["station_moved"] += known.ifindex != 0
        return known.ifindex != 0

    def _follow_link(self, tunnel: Tunnel, frame: bytes, seen: Seen, ifindex: int, side: int) -> bool:
        link = frame[:12], ifindex, seen.tos, seen.may_cut, self.generation, is_tagged(frame)
        if tunnel.link == link:
            return False
        tunnel.link = link
        tunnel.destination_mac, tunnel.source_mac = frame[:6], frame[6:12]
        tunnel.ifindex, tunnel.tos, tunnel.may_cut = ifindex, seen.tos, seen.may_cut
        return self._learn_station(frame, seen.vlan, ifindex, side)

    def _way_out(self, tunnel: Tunnel, vlan: int | None, side: int) -> int:
        ifindex, there, _ = self.stations.get((tunnel.destination_mac, vlan), Station(0, 0))
        return 0 if there == side and ifindex == tunnel.ifindex else ifindex

    @staticmethod
    def _follow_form(tunnel: Tunnel, seen: Seen) -> None:
        """The first QoS flow is the session's default one, as long as it is in use."""
        if seen.qfi is not None:
            if not tunnel.container or not tunnel.qfi_seen:
                tunnel.container, tunnel.qfi = True, seen.qfi
            tunnel.qfi_seen = tunnel.qfi_seen or tunnel.qfi == seen.qfi

    @staticmethod
    def _add(tunnel: Tunnel, inner: Inner) -> None:
        tunnel.packets += 1
        tunnel.octets += len(inner.packet)

    def _service(self, tunnel: Tunnel | None, seen: Seen) -> ServedService | None:
        """The service that an uplink packet belongs to; later fragments follow their first one."""
        inner = seen.inner
        if tunnel is not None and not tunnel.uplink:
            return None
        if not RULES.towards(inner.destination):
            return None
        if tunnel is not None and inner.piece == LATER:
            key = tunnel.session, inner.source, inner.destination, inner.ident, inner.protocol
            if key in self.pieces:
                return _BY_NUMBER.get(_service_behind(self.pieces[key]))
        rule = judge(RULES, uplink_facts(seen.key, inner.packet))
        return _BY_NAME[rule.service.name] if rule is not None else None

    def _divert(
        self, tunnel: Tunnel, seen: Seen, frame: bytes, service: ServedService
    ) -> tuple[int, bytes] | None:
        inner = seen.inner
        if service.serving is Serving.OFF:
            return None
        if not tunnel.owns(inner.source):
            if not inet.is_global_unicast(inner.source):
                self.counts["spoofed"] += 1
                return None
            if service.serving is not Serving.DIVERT or not self._may_have_moved(inner, service.service_id):
                return None
            self.counts["flow_waits"] += 1
            return DROP, frame
        if service.serving is Serving.SHADOW:
            self.counts["shadowed"] += 1
            return None
        taken = self._take_flow(tunnel, inner, seen.qfi, service)
        if taken <= 0:
            return (DROP, frame) if taken else None
        self.counts["diverted"] += 1
        key, _ = self.by_index[tunnel.index]
        self._account(
            AccountKey(ue_of(inner.source), key.source, key.destination, key.vlan, service.service_id),
            inner,
            0,
        )
        ethertype = b"\x86\xdd" if inner.v6 else b"\x08\x00"
        packet = clamped(inner, seen.outer6)
        if _BEHIND[taken][1].packed not in TRACKED:  # connection tracking has to see it as it is
            packet = veiled(packet)
        return REDIRECT, service_mac(taken) + tunnel_mac(tunnel.index) + ethertype + packet

    def _may_have_moved(self, inner: Inner, service: int) -> bool:
        """Whether it is a segment of a diverted connection: dropped until its tunnel is known to be its UE's."""
        if inner.protocol != inet.TCP or inner.piece == LATER or inner.opens() or self.heart_dead:
            return False
        known = self.flows.get((inner.source, inner.destination, *inner.ports(), inner.protocol))
        return known is not None and _service_behind(known[1]) == service and known[2] in self.by_index

    def _take_flow(self, tunnel: Tunnel, inner: Inner, qfi: int | None, service: ServedService) -> int:
        """The number of the application, 0: the core's, -1: nobody's for the moment.

        The first fragment is judged like a whole packet, the later ones go where it went.
        """
        key = tunnel.session, inner.source, inner.destination, inner.ident, inner.protocol
        if inner.piece != LATER or self.heart_dead:
            taken = self._judge_flow(tunnel, inner, qfi, service)
            if inner.piece == FIRST:
                self.pieces[key] = max(taken, 0)
            return taken
        if key in self.pieces:
            return self.pieces[key]
        self.counts["inner_fragment"] += inner.protocol == inet.TCP
        return 0 if inner.protocol == inet.TCP else _application_of(service, inner, 0)

    def _judge_flow(self, tunnel: Tunnel, inner: Inner, qfi: int | None, service: ServedService) -> int:
        ue_port, service_port = inner.ports()
        key = inner.source, inner.destination, ue_port, service_port, inner.protocol
        opens = inner.opens()
        runs = inner.protocol == inet.TCP and not opens
        if self.heart_dead:
            if opens:
                self.flows.pop(key, None)
            self.counts["ovs_down"] += 1
            return 0
        known = self.flows.get(key)
        paired = self.by_index[tunnel.index][1] != 0
        # A young tunnel is younger than every flow's last packet: with the core's word, its UE has come from there.
        arrived = tunnel.young and paired
        if known is not None and known[0] != tunnel.session and known[2] in self.by_index and not arrived:
            waits = runs and tunnel.young
            self.counts["flow_waits" if waits else "flow_ambiguous"] += 1
            return -1 if waits else 0
        if runs and (known is None or (known[1] and _service_behind(known[1]) != service.service_id)):
            self.counts["flow_unknown"] += 1
            return 0
        application = _application_of(service, inner, 0 if known is None else known[1])
        if not application:
            self.counts["no_application"] += 1
            return 0
        pooled = (known is None or known[4]) and not paired
        self.flows[key] = tunnel.session, application, tunnel.index, qfi, pooled
        return application

    # ue0

    def ue(self, frame: bytes) -> tuple[int, bytes]:
        """tof_ue: encapsulation into the tunnel that the destination MAC or the packet's flow names."""
        kind = frame[12:14]
        if kind == b"\x89\x02":
            self.counts["heartbeats"] += 1
            self.heart_dead = False
            return DROP, frame
        if self.bypass:
            self.counts["ue_bypassed"] += 1
            return DROP, frame
        addressed = frame[:2] == TUNNEL_MAC_PREFIX and kind in (b"\x08\x00", b"\x86\xdd")
        frame = unveiled(frame) if addressed and kind == b"\x08\x00" else frame
        inner = inner_of(frame[14:]) if addressed else None
        if inner is None:
            self.counts["ue_malformed"] += 1
            return DROP, frame
        index, via, qfi = int.from_bytes(frame[2:6], "big"), 0, None
        if frame[:6] == GATEWAY_MAC:
            index, via, qfi = self._reply_tunnel(inner)
        if index == AMBIGUOUS:
            return self._hold("ue_ambiguous", layout.HELD, via, frame)
        key, _ = self.by_index.get(index, (None, 0))
        if key is None:
            return self._hold("ue_no_tunnel", layout.HELD, via, frame)
        tunnel = self.tunnels[key]
        if tunnel.ended:
            return self._hold("ue_ended", layout.HELD, via, frame)
        if frame[:6] == GATEWAY_MAC and not tunnel.owns(inner.destination):
            return self._hold("ue_moved", layout.MOVED_ON, via, frame)
        if tunnel.moved or tunnel.doubted:
            return self._hold("ue_doubted", layout.DOUBTED, via or index, frame)
        return self._inject(frame, inner, key, qfi)

    def _inject(self, frame: bytes, inner: Inner, key: TunnelKey, qfi: int | None) -> tuple[int, bytes]:
        tunnel, outer6 = self.tunnels[key], len(key.source) == 16
        if len(inner.packet) + (40 if outer6 else 20) + 8 + (16 if tunnel.container else 8) > MTU:
            return self._hold("ue_too_big", layout.TOO_BIG, tunnel.index, frame)
        side = 0 if tunnel.uplink else 1
        if not self._way_out(tunnel, key.vlan, side) and len(self.ports[1 - side]) != 1:
            self.counts["ue_no_way_out"] += 1
            return DROP, frame
        self.counts["encapsulated"] += 1
        number = int.from_bytes(frame[8:12], "big") if frame[6:8] == SERVICE_MAC_PREFIX else 0
        service = _service_behind(number)
        spread = service in _BY_NUMBER and bool(_BY_NUMBER[service].applications)
        if frame[:6] == GATEWAY_MAC and inner.piece != LATER and (inner.opens() or spread):
            service_port, ue_port = inner.ports()
            opened = inner.destination, inner.source, ue_port, service_port, inner.protocol
            self.flows.setdefault(opened, (0, number, 0, None, False))
        self._add(tunnel, inner)
        if number and not tunnel.uplink:
            ue = ue_of(inner.destination)
            self._account(AccountKey(ue, key.destination, key.source, key.vlan, service), inner, 1)
        tunnel.injected = True
        return REDIRECT, encapsulated(tunnel, key, requoted(inner) or clamped(inner, outer6), qfi)

    def _account(self, key: AccountKey, inner: Inner, way: int) -> None:
        so_far = self.accounts.setdefault(key, [0, 0, 0, 0])
        so_far[way] += 1
        so_far[2 + way] += len(inner.packet)

    def _reply_tunnel(self, inner: Inner) -> tuple[int, int, int | None]:
        """Tunnel, the uplink tunnel of the flow, and the flow's QFI."""
        key = 0, inner.source, inner.destination, inner.ident, inner.protocol
        if inner.piece == LATER and key in self.pieces:
            return self.pieces[key], 0, None
        service_port, ue_port = inner.ports()
        flow = self.flows.get((inner.destination, inner.source, ue_port, service_port, inner.protocol))
        found = self.defaults.get(inner.destination[:8] if inner.v6 else inner.destination, 0), 0, None
        answer = (
            found
            if flow is None or flow[2] not in self.by_index
            else (self.by_index[flow[2]][1], flow[2], flow[3])
        )
        if inner.piece == FIRST:
            self.pieces[key] = answer[0]
        return answer

    def _hold(self, counter: str, kind: int, index: int, frame: bytes) -> tuple[int, bytes]:
        self.counts[counter] += 1
        if len(frame) <= HELD:
            self.handed.append((kind, index, frame))
        else:
            self.counts["hand_over_lost"] += 1
        return DROP, frame

    # The slow lane

    def slow(self, frame: bytes, side: int, ifindex: int) -> tuple[int, bytes]:
        """tof_slow_enb, tof_slow_sgw: what the agent must see goes to the queue, a copy of what cannot be queued."""
        ends_here = frame[:5] == RESERVED_GROUPS and frame[5] < 16
        verdict, after = (TC_OK, frame) if self.bypass or ends_here else self._judge(frame, side, ifindex)
        if verdict == TC_OK and (frame[6] & 1 or frame[6:12] == bytes(6)):
            return TC_SHOT, after  # no bridge takes it: carried to the other side from here
        return verdict, after

    def _judge(self, frame: bytes, side: int, ifindex: int) -> tuple[int, bytes]:
        seen = read(frame)
        if seen.kind == SIGNAL:
            return self._to_queue(frame, seen, side, ifindex)
        if seen.piece:
            if self._fate(frame, seen, side):
                return self._to_queue(frame, seen, side, ifindex)
            self.counts["bridged_fragment"] += 1
        if seen.kind != GPDU:
            return TC_OK, frame
        tunnel = self.tunnels.get(seen.key)
        reply = tunnel is not None and not tunnel.uplink and seen.inner.token() in self.tokens
        if tunnel is not None and not tunnel.settling and not reply:
            return TC_OK, frame
        self.counts["pinger_replies"] += reply
        return self._to_queue(frame, seen, side, ifindex)

    def _fate(self, frame: bytes, seen: Seen, side: int) -> bool:
        """Whether an outer fragment takes the queue: once one of a datagram's has, all do."""
        fate = self._judge_first(seen, side) if seen.kind == FRAGMENT else PASSES
        if side:
            return False
        key = *seen.key[:2], seen.ident, seen.vlan
        known, queued = self.outer_pieces.get(key, (0, False))
        if known and (seen.piece == LATER or known == LEFT):
            return queued
        fate = UNDECIDED if seen.piece == LATER else fate
        if fate != PASSES and len(frame) > COPIED:
            fate = PASSES if queued else LEFT
            self.counts["fragment_refused"] += 1
        self.outer_pieces[key] = fate, queued or fate in (UNDECIDED, DIVERTS)
        return self.outer_pieces[key][1]

    def _judge_first(self, seen: Seen, side: int) -> int:
        """The judgement on a whole packet, passed on its first fragment."""
        tunnel, inner = self.tunnels.get(seen.key), seen.inner
        service = self._service(tunnel, seen) if side == 0 else None
        diverted = service is not None and service.serving is Serving.DIVERT
        if tunnel is None:
            if diverted and inner.protocol != inet.TCP:
                return UNDECIDED
            self.samples += 1
            return PASSES
        if tunnel.uplink != (side == 0):
            self.counts["wrong_side"] += 1
            return PASSES
        tunnel.may_cut = True
        self._add(tunnel, inner)
        self._notice(tunnel, inner)
        if service is None or not diverted or not tunnel.owns(inner.source):
            tunnel.injected = False
            return PASSES
        if self._take_flow(tunnel, inner, seen.qfi, service) > 0:
            return DIVERTS
        tunnel.injected = False
        return PASSES

    def _to_queue(self, frame: bytes, seen: Seen, side: int, ifindex: int) -> tuple[int, bytes]:
        towards, there, _ = self.stations.get((frame[:6], seen.vlan), Station(0, 1 - side))
        if there == side:
            return TC_OK if towards == ifindex else TC_REDIRECT, frame
        if seen.piece:
            self.counts["fragment_queued"] += 1
        else:
            self.pending.add(seen.key)
            self.counts["queued"] += 1
        self.tickets[side] += 1
        return TC_REDIRECT, wrapped(frame, self.tickets[side])

    def onward(self, frame: bytes) -> tuple[int, bytes]:
        """tof_onward_*: sent on by the way out, as it is; nothing in these runs says that it has a ticket."""
        return TC_SHOT, frame


def _service_behind(application: int) -> int:
    return _BEHIND[application][0] if application in _BEHIND else application


def _application_of(service: ServedService, inner: Inner, before: int) -> int:
    spread = service.service.spread
    if spread is None:
        return service.service_id
    if before in _LIVING and _service_behind(before) == service.service_id:
        return before
    return slots(service.applications, spread)[slot_of(ends_of(inner.packet), spread.by)]


def is_tagged(frame: bytes) -> bool:
    """Whether there is an 802.1Q tag in the frame."""
    return frame[12:14] == b"\x81\0" and len(frame) >= 18


def wrapped(frame: bytes, ticket: int) -> bytes:
    """The frame as it crosses the queue: behind a plain IPv4 header and its ticket; past it without one."""
    payload = ticket.to_bytes(4, "little") + frame
    return (
        WRAPPER
        + ETHERTYPES[ticket == 0]
        + inet.encode_ipv4(inet.IPv4(WRAPPER_ADDRESS, WRAPPER_ADDRESS, WRAPPER_PROTOCOL, payload))
    )


def veiled(packet: bytes) -> bytes:
    """A later IPv4 fragment as br-ue sees it, in which Open vSwitch takes nothing for a TCP or UDP header."""
    if packet[0] >> 4 != 4 or not _U16.unpack_from(packet, 6)[0] & 0x1FFF or packet[9] not in VEILS:
        return packet
    return _reworded(packet, packet[6] | VEIL_BIT, VEILS[packet[9]])


def unveiled(frame: bytes) -> bytes:
    """The frame as it was before it was veiled."""
    packet = frame[14:]
    shown = {veil: protocol for protocol, veil in VEILS.items()}
    if len(packet) < 20 or not packet[6] & VEIL_BIT or packet[9] not in shown:
        return frame
    if not _U16.unpack_from(packet, 6)[0] & 0x1FFF:
        return frame
    return frame[:14] + _reworded(packet, packet[6] & ~VEIL_BIT, shown[packet[9]])


def _reworded(packet: bytes, flags: int, protocol: int) -> bytes:
    words = bytes((flags, packet[7], packet[8], protocol))
    check = inet.update_checksum(_U16.unpack_from(packet, 10)[0], packet[6:10], words)
    return packet[:6] + words + _U16.pack(check) + packet[12:]


def requoted(inner: Inner) -> bytes | None:
    """The packet, if it is an ICMP error about one to somebody else than its sender: about one to its sender."""
    segment, size = inner.segment, 16 if inner.v6 else 4
    error = (1, 2, 3, 4) if inner.v6 else (3, 11, 12)
    wanted, shortest = (inet.ICMPV6, 48) if inner.v6 else (inet.ICMP, 28)
    if (
        segment is None
        or inner.piece
        or inner.protocol != wanted
        or len(segment) < shortest
        or segment[0] not in error
    ):
        return None
    to = 8 + (24 if inner.v6 else 16)
    sender, receiver = segment[to - size : to], segment[to : to + size]
    if segment[8] >> 4 != (6 if inner.v6 else 4) or sender != inner.destination or receiver == inner.source:
        return None
    check = 2 if inner.v6 else 8 + 10
    words = _U16.unpack_from(segment, check)[0] ^ 0xFFFF, _folded(receiver) ^ 0xFFFF, _folded(inner.source)
    total = _folded(sum(words).to_bytes(4, "big")) ^ 0xFFFF
    mended = bytearray(segment)
    mended[check : check + 2] = total.to_bytes(2, "big")
    mended[to : to + size] = inner.source
    return inner.packet[: inner.segment_at] + bytes(mended)


def _folded(data: bytes) -> int:
    total = sum(word for (word,) in _U16.iter_unpack(data))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def clamped(inner: Inner, outer6: bool) -> bytes:
    """The packet with the MSS option of a SYN no larger than what fits the tunnel in its longest form."""
    segment = inner.segment
    overhead = (40 if outer6 else 20) + 8 + WORST_GTP + (40 if inner.v6 else 20) + 20
    if inner.protocol != inet.TCP or segment is None or len(segment) < 20 or not segment[13] & 2:
        return inner.packet
    limit, at, header = MTU - overhead, 20, (segment[12] >> 4) * 4
    for _ in range(MOST_TCP_OPTIONS):
        if at + 4 > min(header, len(segment)) or segment[at] == 0:
            return inner.packet
        if segment[at] == 1:
            at += 1
        elif segment[at : at + 2] == b"\x02\x04":
            return _with_mss(inner, at, limit)
        elif segment[at + 1] < 2:
            return inner.packet
        else:
            at += segment[at + 1]
    return inner.packet


def _with_mss(inner: Inner, at: int, limit: int) -> bytes:
    segment = inner.packet[inner.segment_at :]
    before, after = segment[at + 2 : at + 4], _U16.pack(limit)
    if int.from_bytes(before, "big") <= limit:
        return inner.packet
    odd = at % 2
    value = inet.update_checksum(
        _U16.unpack_from(segment, 16)[0], before[::-1] if odd else before, after[::-1] if odd else after
    )
    segment = segment[:16] + _U16.pack(value) + segment[18 : at + 2] + after + segment[at + 4 :]
    return inner.packet[: inner.segment_at] + segment


def encapsulated(tunnel: Tunnel, key: TunnelKey, packet: bytes, qfi: int | None) -> bytes:
    """The frame that carries ``packet`` in the tunnel as the tunnel's own packets are carried."""
    chain = (
        (gtpu.Extension(0x85, bytes((0x10 if tunnel.uplink else 0, tunnel.qfi if qfi is None else qfi))),)
        if tunnel.container
        else ()
    )
    message = gtpu.encode(gtpu.Message(0x30, gtpu.G_PDU, key.teid, extensions=chain, payload=packet))
    datagram = inet.encode_udp(inet.UDP(gtpu.PORT, gtpu.PORT, message))
    if len(key.source) == 4:
        ident = tunnel.packets - 1 + tunnel.index * 0x9E37 & 0xFFFF if tunnel.may_cut else 0
        outer = inet.encode_ipv4(
            inet.IPv4(
                key.source, key.destination, 17, datagram, tos=tunnel.tos, identification=ident,
                flags=0 if tunnel.may_cut else inet.DONT_FRAGMENT,
            )
        )  # fmt: skip
    else:
        datagram = inet.fill_checksum(key.source, key.destination, 17, datagram)
        outer = inet.encode_ipv6(inet.IPv6(key.source, key.destination, 17, datagram, tos=tunnel.tos))
    tags = ((0x8100, key.vlan),) if key.vlan is not None else ()
    ethertype = inet.ETHERTYPE_IPV4 if len(key.source) == 4 else inet.ETHERTYPE_IPV6
    return inet.encode_ethernet(
        inet.Ethernet(tunnel.destination_mac, tunnel.source_mac, ethertype, outer, tags)
    )
