"""What happened: facts from the wire, the switch, the API and the clock, as values in the past tense."""

from __future__ import annotations

from dataclasses import dataclass

from tof.dataplane.desired import AppPort
from tof.model import Chain, Direction, Form, IpAddress, Link, SecurityGroup, Service, Side, TunnelKey
from tof.wire.dns import Answer


@dataclass(frozen=True, slots=True)
class GpduSeen:
    """A G-PDU met the agent; inner addresses are packed. ``token`` is the first 64 bits of an echo reply's data."""

    side: Side
    key: TunnelKey
    source: bytes
    destination: bytes
    form: Form
    size: int
    token: int | None = None
    link: Link | None = None


@dataclass(frozen=True, slots=True)
class AnswerSeen:
    """Downlink tunnel ``index`` carried to ``ue`` (exact) what a resolver answered to its question."""

    index: int
    ue: bytes
    answer: Answer


@dataclass(frozen=True, slots=True)
class OwnApplicationChanged:
    """The application in the TOF's own kernel, its DNS server, answers or does not."""

    lives: bool


@dataclass(frozen=True, slots=True)
class AddressesUnused:
    """To none of these addresses (packed) of services given by domain is there a flow in use."""

    addresses: frozenset[bytes]


@dataclass(frozen=True, slots=True)
class AddressesRecalled:
    """What an earlier agent had learnt: service, address, and until when that holds."""

    learnt: tuple[tuple[str, IpAddress, float], ...]


@dataclass(frozen=True, slots=True)
class EndMarkerSeen:
    """The last packet of a tunnel before it moved (TS 29.281 section 7.3.2)."""

    key: TunnelKey
    side: Side = Side.SGW


@dataclass(frozen=True, slots=True)
class ErrorIndicationSeen:
    """``sender`` knows no tunnel ``teid`` (TS 29.281 section 7.3.1).

    ``ours``: the tunnels (by index) into which the TOF injected a moment ago, and nobody else has spoken since.
    """

    sender: bytes
    teid: int
    vlan: int | None
    side: Side
    ours: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class EchoResponseSeen:
    """A peer answered an Echo Request; ``recovery`` is its restart counter, if it sends one (TS 29.281 7.2.2)."""

    sender: bytes
    recovery: int | None
    vlan: int | None
    side: Side


@dataclass(frozen=True, slots=True)
class ForeignSourceSeen:
    """An uplink tunnel carried a packet whose inner source is none of its UE's addresses."""

    index: int
    source: bytes


@dataclass(frozen=True, slots=True)
class DownlinkMoved:
    """A downlink tunnel carried a packet to another address than its UE's."""

    index: int
    destination: bytes


@dataclass(frozen=True, slots=True)
class FrameHeld:
    """An app's frame for ``ue`` (packed exact address) found no downlink tunnel that it may go into.

    ``via`` is the uplink tunnel (by index) that its flow came in, 0 if there is none. ``doubted``: the tunnel is known but
    has come into doubt in the data path; if no flow says better, ``via`` is that downlink tunnel. ``moved``: the tunnel of
    its flow is another UE's by now.
    """

    frame: bytes
    ue: bytes
    via: int = 0
    doubted: bool = False
    moved: bool = False


@dataclass(frozen=True, slots=True)
class UplinkReturned:
    """An uplink tunnel that its UE had left carried a packet of it again."""

    index: int


@dataclass(frozen=True, slots=True)
class TunnelsIdle:
    """These tunnels (by index) have carried nothing for the idle time."""

    indices: frozenset[int]


@dataclass(frozen=True, slots=True)
class TunnelRefused:
    """The data path did not take this tunnel (by index)."""

    index: int


@dataclass(frozen=True, slots=True)
class AdoptedTunnel:
    """A tunnel that the data path held already when the agent started; ``ues`` are whole addresses."""

    key: TunnelKey
    index: int
    session: int
    direction: Direction
    ues: tuple[bytes, ...]
    form: Form
    ended: bool
    peer: int
    doubted: bool = False
    left: bool = False


@dataclass(frozen=True, slots=True)
class AdoptedService:
    """A service found in the data path at start, or (``service`` is another number) a further application of one.

    ``name``: the service's name, or the application's address. ``lives``: packets are diverted to the application.
    """

    name: str
    number: int
    service: int
    lives: bool = False


@dataclass(frozen=True, slots=True)
class TunnelsAdopted:
    """Everything found in the data path at start, and the services' identifiers there."""

    tunnels: tuple[AdoptedTunnel, ...]
    services: tuple[AdoptedService, ...] = ()
    tokens: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class ServiceAdded:
    """POST /service."""

    service: Service


@dataclass(frozen=True, slots=True)
class ServiceReplaced:
    """PUT /service/{name}."""

    name: str
    service: Service


@dataclass(frozen=True, slots=True)
class ServiceRemoved:
    """DELETE /service/{name or service IP}."""

    key: str


@dataclass(frozen=True, slots=True)
class ServicesReplaced:
    """PUT /policy: exactly these services, chains that they may walk, and security groups."""

    services: tuple[Service, ...]
    chains: tuple[Chain, ...] = ()
    groups: tuple[SecurityGroup, ...] = ()


@dataclass(frozen=True, slots=True)
class NextHopChanged:
    """The next hop towards an application answered with ``mac``, or stopped answering (None)."""

    application: IpAddress
    mac: bytes | None


@dataclass(frozen=True, slots=True)
class AppPortsChanged:
    """These are the ports that applications have of their own; ``linked``: the names of those that have a link."""

    ports: tuple[AppPort, ...]
    linked: frozenset[str]


@dataclass(frozen=True, slots=True)
class ApplicationProbed:
    """A probe of an application of the service ``name`` is over."""

    name: str
    application: IpAddress
    answered: bool


@dataclass(frozen=True, slots=True)
class VnfSeen:
    """A VNF was looked at."""

    name: str
    alive: bool


@dataclass(frozen=True, slots=True)
class MinuteTurned:
    """It is this minute of the week, from Monday 00:00 on, where the operator is."""

    minute: int


@dataclass(frozen=True, slots=True)
class SwitchReturned:
    """br-ue is as wanted after a time without it, in which no ping could leave."""


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed; sent when ``wake_at`` is due."""


Event = (
    GpduSeen
    | AnswerSeen
    | OwnApplicationChanged
    | AddressesUnused
    | AddressesRecalled
    | EndMarkerSeen
    | ErrorIndicationSeen
    | EchoResponseSeen
    | ForeignSourceSeen
    | DownlinkMoved
    | FrameHeld
    | UplinkReturned
    | TunnelsIdle
    | TunnelRefused
    | TunnelsAdopted
    | ServiceAdded
    | ServiceReplaced
    | ServiceRemoved
    | ServicesReplaced
    | NextHopChanged
    | AppPortsChanged
    | ApplicationProbed
    | VnfSeen
    | MinuteTurned
    | SwitchReturned
    | Tick
)
