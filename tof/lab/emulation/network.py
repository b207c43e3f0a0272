"""Laboratory: the emulated network around a box: frames that come out of it in, frames to send into it out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from ipaddress import ip_address
from random import Random
from typing import NamedTuple, Self, TypeVar

from tof.errors import DecodeError
from tof.lab.emulation.bearers import Bearer, End, Exchange, Stream, Ue
from tof.lab.emulation.edge import Application
from tof.lab.emulation.frames import (
    Arrived,
    Place,
    UserPacket,
    arrived,
    echo_of,
    frame,
    neighbour_answer,
    neighbour_request,
    udp_packet,
    user_packet,
    wanted_neighbour,
)
from tof.lab.emulation.ledger import Ledger, Origin
from tof.lab.emulation.nodes import Core, Node, Outgoing, Radio
from tof.lab.emulation.settings import HUB_MAC, IPV4, IPV6, Settings
from tof.model import Side, TunnelKey
from tof.wire import gtpu, inet

ELSEWHERE = {IPV4: bytes((198, 51, 100, 7)), IPV6: ip_address("2001:db8:ffff::7").packed}
_SIDES = {End.ENB: Side.ENB, End.SGW: Side.SGW}
_Node = TypeVar("_Node", bound=Node)
_ENDS = {side: end for end, side in _SIDES.items()}


class Numbers(NamedTuple):
    """The first TEID and UE that are free: networks that follow each other share none."""

    teid: int
    ue: int

    @classmethod
    def drawn(cls, draw: Random) -> Self:
        """Anywhere."""
        return cls(draw.randrange(0x1000, 0xFFF00000), draw.randrange(1, 40_000))


class Network:
    """The nodes, their UEs, and the ledger of what they sent; time comes in with ``receive`` and ``tick``."""

    def __init__(self, settings: Settings, draw: Random, first: Numbers) -> None:
        self.settings, self.draw = settings, draw
        self.now = 0.0
        self.outbox: list[tuple[End, bytes]] = []
        self.ledger = Ledger(settings.routed)
        self._first = first
        self.radios: list[Radio] = []
        self.cores: list[Core] = []
        self.add_nodes(settings.vlan)
        self.application = Application(settings.edge, self._to_apps) if settings.edge else None
        self.ues: list[Ue] = []
        self.exchanges: dict[bytes, Exchange] = {}
        self.streams: list[Stream] = []
        self.paged: list[Ue] = []
        self.failures: list[str] = []
        """What the nodes saw that must never be."""
        self.used: set[TunnelKey] = set()
        """Tunnels in which the nodes sent."""
        self.next_ue = first.ue

    def add_nodes(self, vlan: int | None) -> None:
        """Nodes at all places, on this VLAN: one network each."""
        teid, settings = self._first.teid, self.settings
        self.radios += [Radio(f"enb{n}", place, self, teid, vlan) for n, place in enumerate(settings.enbs, 1)]
        self.cores += [Core(f"sgw{n}", place, self, teid, vlan) for n, place in enumerate(settings.sgws, 1)]

    def radio(self, number: int = 0, family: int = IPV4, vlan: int | None = None) -> Radio:
        """The eNB of that number with an address of this family."""
        return self._of(self.radios, family, vlan)[number]

    def core(self, number: int = 0, family: int = IPV4, vlan: int | None = None) -> Core:
        """The SGW of that number with an address of this family."""
        return self._of(self.cores, family, vlan)[number]

    def _of(self, nodes: Sequence[_Node], family: int, vlan: int | None) -> list[_Node]:
        vlan = vlan or self.settings.vlan
        return [node for node in nodes if len(node.place.address) == family and node.vlan == vlan]

    @property
    def unused(self) -> Numbers:
        """What the next network may use."""
        return Numbers(max(node.next_teid for node in (*self.radios, *self.cores)), self.next_ue)

    @property
    def expected_tunnels(self) -> dict[TunnelKey, frozenset[bytes]]:
        """What a learner must hold now: the tunnels in use, with their UEs (an IPv6 one as its /64)."""
        found: dict[TunnelKey, frozenset[bytes]] = {}
        for ue in self.ues:
            owners = frozenset(address[:8] if len(address) == IPV6 else address for address in ue.addresses)
            found |= {key: owners for bearer in ue.bearers for key in self._keys(bearer) if key in self.used}
        return found

    def _keys(self, bearer: Bearer) -> Iterator[TunnelKey]:
        core, vlan = bearer.core.place.address, bearer.core.vlan
        if bearer.ue.radio is not None:
            yield TunnelKey(bearer.ue.radio.place.address, core, bearer.up, vlan)
        if bearer.path is not None:
            yield TunnelKey(core, bearer.path[0].place.address, bearer.path[1], vlan)

    # time and wire

    @property
    def wake_at(self) -> float | None:
        """When the next packet of a stream is due."""
        return min((stream.next_at for stream in self.streams if stream.running), default=None)

    def tick(self, now: float) -> None:
        """Send what streams have to say by now."""
        self.now = now
        for stream in self.streams:
            while stream.running and stream.next_at <= now:
                stream.next_at += stream.interval_s
                stream.exchanges.append(stream.ask())

    def receive(self, end: End, data: bytes, now: float) -> None:
        """A frame came out of the box at ``end``."""
        self.now = now
        try:
            eth = inet.decode_ethernet(data)
        except DecodeError:
            return
        if end is End.APPS:
            self._at_edge(eth)
            return
        side = _SIDES[end]
        message = arrived(eth, injected=False)
        user = user_packet(message.message.payload) if message else None
        service = user is not None and self._is_service(user)
        origin = self.ledger.arrive(side, data, service=service)
        if (asked := wanted_neighbour(eth)) and self._answer_neighbour(end, eth, asked, origin):
            return
        if origin is Origin.BOX and not self._concerns(eth, message):
            self.ledger.background += 1
        elif message is not None:
            self._message(side, data, message._replace(injected=origin is Origin.BOX), user)
        elif origin is Origin.BOX:
            self.ledger.extra(side, data)

    def _message(self, side: Side, data: bytes, message: Arrived, user: UserPacket | None) -> None:
        if message.injected and not self._legitimate(side, message, user):
            self.ledger.extra(side, data)
            return
        node = self._node(message.destination, message.vlan)
        if isinstance(node, Radio) and side is Side.SGW:
            self._forward(data, node)
        elif node is not None:
            for out in node.receive(message):
                self.send(out)

    def _legitimate(self, side: Side, message: Arrived, user: UserPacket | None) -> bool:
        """Whether a frame of the box's own is what a TOF makes: a probe, or an application's packet."""
        edge = self.settings.edge
        if edge is None or user is None or message.message.type != gtpu.G_PDU:
            return False
        if side is Side.SGW:
            echo = echo_of(user)
            probe = echo is not None and not echo.reply and user.destination in self.settings.targets
            self.ledger.probes += probe
            return probe
        ours = user.source in edge.services and user.token in self.exchanges
        self.ledger.injected += ours
        return ours

    def _concerns(self, eth: inet.Ethernet, message: Arrived | None) -> bool:
        macs = {node.place.mac for node in (*self.radios, *self.cores)}
        return message is not None or bool({eth.source, eth.destination} & macs)

    def _answer_neighbour(
        self, end: End, eth: inet.Ethernet, asked: tuple[bytes, Place], origin: Origin
    ) -> bool:
        wanted, asker = asked
        nodes: Iterable[Node] = self.radios if end is End.ENB else self.cores
        owner = next((node.place for node in nodes if node.place.address == wanted), None)
        if owner is None:
            return False
        reply = neighbour_answer(owner, asker, eth.vlan)
        if origin is Origin.OURS:
            self.ledger.send(_SIDES[end].other, reply)
        self.outbox.append((end, reply))
        return True

    def _at_edge(self, eth: inet.Ethernet) -> None:
        if self.application is None:
            return
        user = self.application.receive(eth)
        if user is not None and (exchange := self.exchanges.get(user.token)):
            exchange.reached.append(End.APPS)

    def _to_apps(self, data: bytes) -> None:
        self.outbox.append((End.APPS, data))

    def _forward(self, data: bytes, radio: Radio) -> None:
        """The router at the core's end: from one eNB to another."""
        eth = inet.decode_ethernet(data)
        packet = hopped(eth.payload)
        out = inet.encode_ethernet(eth._replace(destination=radio.place.mac, source=HUB_MAC, payload=packet))
        self._put(Side.SGW, out)

    def send(self, out: Outgoing) -> None:
        """Put a node's message on the wire."""
        source, node = out.node.place, self._node(out.destination, out.node.vlan)
        side = Side.ENB if isinstance(out.node, Radio) else Side.SGW
        ends = (source.address, out.source_port), (out.destination, out.destination_port)
        packet = udp_packet(*ends, gtpu.encode(out.message))
        data = frame((source.mac, self._next_mac(side, node)), packet, out.node.vlan)
        user = user_packet(out.message.payload) if out.message.type == gtpu.G_PDU else None
        if user is not None:
            self.used.add(TunnelKey(source.address, out.destination, out.message.teid, out.node.vlan))
        service = side is Side.ENB and user is not None and self._is_service(user)
        across = self.settings.routed and isinstance(node, Radio) and side is Side.ENB
        self._put(side, data, hidden=out.hidden, service=service, back=across)

    def resolve(self, radio: Radio, core: Core) -> None:
        """The eNB asks who has the SGW's address, as neighbours do; behind a router nobody would answer."""
        if not self.settings.routed:
            self._put(Side.ENB, neighbour_request(radio.place, core.place.address, radio.vlan))

    def _put(
        self, side: Side, data: bytes, *, hidden: bool = False, service: bool = False, back: bool = False
    ) -> None:
        hidden = hidden and self.settings.edge is not None
        self.ledger.send(side if back else side.other, data, hidden=hidden, service=service)
        self.outbox.append((_ENDS[side], data))

    def _next_mac(self, side: Side, node: Node | None) -> bytes:
        hop = self.settings.enb_next_hop if side is Side.ENB else self.settings.sgw_next_hop
        if hop is not None:
            return hop
        if node is None or (isinstance(node, Radio) and side is Side.ENB):
            return HUB_MAC
        return node.place.mac

    def _node(self, address: bytes, vlan: int | None) -> Node | None:
        nodes: tuple[Node, ...] = (*self.radios, *self.cores)
        return next((node for node in nodes if node.place.address == address and node.vlan == vlan), None)

    def _is_service(self, user: UserPacket) -> bool:
        return self.settings.edge is not None and user.destination in self.settings.edge.services

    # what nodes ask of the world (Air)

    def deliver(self, bearer: Bearer, packet: bytes, arrived: Arrived) -> None:
        """A packet reaches a UE: it must be the UE's own, and an answer must fit its bearer."""
        user, ue = user_packet(packet), bearer.ue
        exchange = self.exchanges.get(user.token) if user else None
        if user is None or not ue.owns(user.destination) or (exchange and exchange.ue is not ue):
            ue.foreign += 1
            owner = exchange.ue.name if exchange else "nobody"
            self.failures.append(f"{ue.name} got a packet of {owner} in tunnel {arrived.message.teid:#010x}")
            return
        if exchange is None:
            return
        exchange.answers += 1
        exchange.answered_at = exchange.answered_at if exchange.answered else self.now
        exchange.answered_in = bearer
        if arrived.injected:
            exchange.wrong = self._wrong(exchange, bearer, arrived, user)

    def _wrong(self, exchange: Exchange, bearer: Bearer, arrived: Arrived, user: UserPacket) -> str:
        if arrived.source not in (bearer.core.place.address, *exchange.cores):
            return f"came from {ip_address(arrived.source)}, its core is {bearer.core.name}"
        return bearer.misfit(arrived.message, user.source_port)

    def internet(self, bearer: Bearer, packet: UserPacket, arrived: Arrived) -> None:
        """A packet left the core."""
        if exchange := self.exchanges.get(packet.token):
            exchange.reached.append(End.SGW)
            if exchange.ue is not bearer.ue:
                self.failures.append(f"the core took a packet of {exchange.ue.name} for {bearer.ue.name}'s")

    def page(self, ue: Ue) -> None:
        """The core has something for an idle UE."""
        self.paged.append(ue)


def hopped(packet: bytes) -> bytes:
    """The packet behind one router: TTL or hop limit one less."""
    if packet[0] >> 4 == 4:
        return inet.fix_ipv4_header(packet[:8] + bytes((packet[8] - 1,)) + packet[9:])
    return packet[:7] + bytes((packet[7] - 1,)) + packet[8:]
