"""Laboratory: the nodes at the ends of GTP-U tunnels, as the real ones behave."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple, Protocol

from tof.lab.emulation.bearers import Bearer, Ue, container
from tof.lab.emulation.frames import Arrived, Place, UserPacket, answer, router_advertisement, user_packet
from tof.wire import gtpu


class ErrorShape(Enum):
    """The three shapes of an Error Indication seen in the field (TS 29.281 section 7.3.1 knows the first)."""

    ELEMENTS = "TEID 0 and information elements"
    UDP_PORT = "the offending TEID, extension header UDP Port"
    BARE = "the offending TEID, no information element"


class Outgoing(NamedTuple):
    """A message on its way: from a node to an outer address; ``hidden``: only the box's own doing caused it."""

    node: Node
    destination: bytes
    message: gtpu.Message
    hidden: bool = False
    destination_port: int = gtpu.PORT
    source_port: int = gtpu.PORT


class Relay(NamedTuple):
    """Forwarding of a handover: what arrives goes on to this node under this TEID."""

    node: Node
    teid: int


class Air(Protocol):
    """What nodes ask of the world around them."""

    def deliver(self, bearer: Bearer, packet: bytes, arrived: Arrived) -> None:
        """A packet reaches the UE."""

    def internet(self, bearer: Bearer, packet: UserPacket, arrived: Arrived) -> None:
        """A packet left the core for the Internet."""

    def page(self, ue: Ue) -> None:
        """The core has something for an idle UE."""


@dataclass(slots=True, eq=False)
class Node:
    """What eNBs and SGWs (gNBs and UPFs) have in common; TEIDs count up from the same number in all of them."""

    name: str
    place: Place
    air: Air
    next_teid: int
    vlan: int | None = None
    error_shape: ErrorShape = ErrorShape.ELEMENTS
    recovery: int | None = 1
    tunnels: dict[int, Bearer] = field(default_factory=dict)
    relays: dict[int, Relay] = field(default_factory=dict)
    errors: list[Arrived] = field(default_factory=list)
    """Error Indications that it got."""
    end_markers: int = 0
    peers: dict[bytes, int | None] = field(default_factory=dict)
    """Restart counters, as its peers' Echo Responses told them."""

    def allocate(self) -> int:
        """A TEID that is free here."""
        self.next_teid += 1
        return self.next_teid - 1

    def receive(self, arrived: Arrived) -> Iterator[Outgoing]:
        """What it answers to a message."""
        match arrived.message.type:
            case gtpu.G_PDU:
                yield from self._gpdu(arrived)
            case gtpu.END_MARKER:
                yield from self._end_marker(arrived)
            case gtpu.ERROR_INDICATION:
                self.errors.append(arrived)
                self.error_indicated(arrived)
            case gtpu.ECHO_REQUEST:
                yield self._echo_response(arrived)
            case gtpu.ECHO_RESPONSE:
                self.peers[arrived.source] = gtpu.recovery(arrived.message)

    def restart(self) -> None:
        """Lose every tunnel, as a crashed node does (TS 23.007 section 20)."""
        self.tunnels.clear()
        self.relays.clear()
        self.recovery = ((self.recovery or 0) + 1) & 0xFF

    def error_indicated(self, arrived: Arrived) -> None:
        """A peer has no such tunnel."""
        raise NotImplementedError

    def user_data(self, bearer: Bearer, arrived: Arrived) -> Iterator[Outgoing]:
        """A G-PDU in one of its tunnels."""
        raise NotImplementedError

    def _gpdu(self, arrived: Arrived) -> Iterator[Outgoing]:
        teid = arrived.message.teid
        if relay := self.relays.get(teid):
            yield self._relayed(arrived, relay)
        elif bearer := self.tunnels.get(teid):
            yield from self.user_data(bearer, arrived)
        else:
            yield self._error_indication(arrived)

    def _end_marker(self, arrived: Arrived) -> Iterator[Outgoing]:
        """The last packet of a tunnel (TS 29.281 section 7.3.2): passed on, then the tunnel is released."""
        teid = arrived.message.teid
        self.end_markers += 1
        self.tunnels.pop(teid, None)
        if relay := self.relays.pop(teid, None):
            yield self._relayed(arrived, relay)

    def _relayed(self, arrived: Arrived, relay: Relay) -> Outgoing:
        """As it came but for the TEID: forwarded downlink data keeps its container. It is ours from here on."""
        message = arrived.message._replace(teid=relay.teid)
        return Outgoing(self, relay.node.place.address, message)

    def _error_indication(self, arrived: Arrived) -> Outgoing:
        teid = arrived.message.teid
        own = self.place.address
        elements = bytes((gtpu.IE_TEID,)) + teid.to_bytes(4, "big")
        elements += bytes((gtpu.IE_PEER_ADDRESS, 0, len(own))) + own
        port = gtpu.Extension(gtpu.EXTENSION_UDP_PORT, arrived.source_port.to_bytes(2, "big"))
        kind, flags = gtpu.ERROR_INDICATION, gtpu.VERSION_1
        message = {
            ErrorShape.ELEMENTS: gtpu.Message(flags, kind, 0, 0, payload=elements),
            ErrorShape.UDP_PORT: gtpu.Message(flags, kind, teid, 0, None, (port,), elements),
            ErrorShape.BARE: gtpu.Message(flags, kind, teid, 0),
        }[self.error_shape]
        return Outgoing(self, arrived.source, message, arrived.injected, arrived.source_port)

    def _echo_response(self, arrived: Arrived) -> Outgoing:
        element = b"" if self.recovery is None else bytes((gtpu.IE_RECOVERY, self.recovery))
        message = gtpu.Message(
            gtpu.VERSION_1, gtpu.ECHO_RESPONSE, 0, arrived.message.sequence or 0, payload=element
        )
        return Outgoing(self, arrived.source, message, arrived.injected, arrived.source_port)

    def echo_request(self, peer: Node) -> Outgoing:
        """A path check."""
        message = gtpu.Message(gtpu.VERSION_1, gtpu.ECHO_REQUEST, 0, 1)
        return Outgoing(self, peer.place.address, message)


@dataclass(slots=True, eq=False)
class Radio(Node):
    """An eNB or gNB: its tunnels lead to UEs."""

    torn_down: list[Bearer] = field(default_factory=list)

    def uplink(self, bearer: Bearer, packet: bytes, port: int) -> Outgoing:
        """A packet of the UE's on its way to the core."""
        message = bearer.message(1, bearer.up, packet, port)
        core = bearer.core.place.address
        return Outgoing(self, core, message, source_port=bearer.source_port)

    def user_data(self, bearer: Bearer, arrived: Arrived) -> Iterator[Outgoing]:
        """Downlink: over the air, if the UE is here."""
        if bearer.ue.radio is self:
            self.air.deliver(bearer, arrived.message.payload, arrived)
        yield from ()

    def error_indicated(self, arrived: Arrived) -> None:
        """The core lost the bearer: the UE loses it too (TS 23.007 section 22)."""
        teid, _ = gtpu.error_indication(arrived.message)
        for own, bearer in list(self.tunnels.items()):
            if bearer.up == teid and bearer.core.place.address == arrived.source:
                self.torn_down.append(bearer)
                del self.tunnels[own]

    def serve(self, bearer: Bearer, teid: int | None = None) -> int:
        """Set up the bearer's downlink tunnel here; its TEID."""
        teid = self.allocate() if teid is None else teid
        self.tunnels[teid] = bearer
        return teid

    def release(self, ue: Ue) -> None:
        """Forget the UE (TS 36.413: UE Context Release)."""
        self.tunnels = {teid: bearer for teid, bearer in self.tunnels.items() if bearer.ue is not ue}

    def hand_over(self, bearer: Bearer, teid: int, relay: Relay) -> None:
        """What still arrives under ``teid`` is forwarded from now on."""
        if self.tunnels.get(teid) is bearer:
            del self.tunnels[teid]
        self.relays[teid] = relay


@dataclass(slots=True, eq=False)
class Core(Node):
    """An SGW or UPF: its tunnels lead to the Internet."""

    spoofed: int = 0
    """Packets whose source was none of the session's (TS 29.244: dropped)."""
    waiting: list[tuple[Bearer, bytes, int, bool]] = field(default_factory=list)
    """What is buffered for idle UEs."""
    torn_down: list[Bearer] = field(default_factory=list)

    def user_data(self, bearer: Bearer, arrived: Arrived) -> Iterator[Outgoing]:
        """Uplink: to the Internet, if its source is the UE's."""
        packet = user_packet(arrived.message.payload)
        if packet is None or not bearer.ue.owns(packet.source):
            self.spoofed += 1
            return
        if (advertisement := router_advertisement(packet, bearer.ue.addresses[-1])) is not None:
            yield from self._encapsulated(bearer, advertisement, 0, arrived.injected)
            return
        self.air.internet(bearer, packet, arrived)
        if (back := answer(packet, b"net:")) is not None:
            yield from self.downlink(bearer.ue, back, packet.port, hidden=arrived.injected)

    def downlink(self, ue: Ue, packet: bytes, port: int, *, hidden: bool = False) -> Iterator[Outgoing]:
        """A packet for the UE into the bearer that takes it; an idle UE is paged."""
        bearer = ue.bearer_for(port)
        if bearer.path is None:
            self.waiting.append((bearer, packet, port, hidden))
            self.air.page(ue)
            return
        yield from self._encapsulated(bearer, packet, port, hidden)

    def resume(self, ue: Ue) -> Iterator[Outgoing]:
        """The UE is back: deliver what waits for it."""
        mine = [item for item in self.waiting if item[0].ue is ue]
        self.waiting = [item for item in self.waiting if item[0].ue is not ue]
        for bearer, packet, port, hidden in mine:
            yield from self._encapsulated(bearer, packet, port, hidden)

    def end_marker(self, bearer: Bearer, radio: Radio, teid: int) -> Outgoing:
        """The last packet into a tunnel that is left (TS 23.401 section 5.5.1.1.2)."""
        extensions = container(0, bearer.shape.down.qfi)
        message = gtpu.Message(gtpu.VERSION_1, gtpu.END_MARKER, teid, extensions=extensions)
        return Outgoing(self, radio.place.address, message)

    def error_indicated(self, arrived: Arrived) -> None:
        """The eNB lost the UE: release its access bearers, so that it is paged next (TS 23.007 section 22)."""
        teid, _ = gtpu.error_indication(arrived.message)
        for bearer in self.tunnels.values():
            if bearer.path and bearer.path[1] == teid and bearer.path[0].place.address == arrived.source:
                self.torn_down.append(bearer)
                bearer.path = None

    def _encapsulated(self, bearer: Bearer, packet: bytes, port: int, hidden: bool) -> Iterator[Outgoing]:
        if bearer.path is not None:
            radio, teid = bearer.path
            message = bearer.message(0, teid, packet, port)
            yield Outgoing(self, radio.place.address, message, hidden)
