"""The words of the TOF: tunnels, UEs, services, as values.

Addresses on the packet path are packed bytes (4 or 16), as they came off the wire: hashing and
comparing them costs a tenth of what ``ipaddress`` objects cost. They become text at the API's edge.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import NamedTuple

IpAddress = IPv4Address | IPv6Address
IpNetwork = IPv4Network | IPv6Network

GATEWAY_MAC = bytes.fromhex("0270ffffffff")
TUNNEL_MAC_PREFIX = bytes.fromhex("0270")
SERVICE_MAC_PREFIX = bytes.fromhex("0272")
NEAR_MAC, FAR_MAC = bytes.fromhex("027300000000"), bytes.fromhex("027500000000")
"""The TOF's two sides of a VNF, the UE's and the application's, in frames that are about no service."""


class Side(Enum):
    """Which side of the bump in the wire a packet came from; the value is its NFQUEUE number."""

    ENB = 0
    SGW = 1

    @property
    def other(self) -> Side:
        """The opposite side."""
        return Side.SGW if self is Side.ENB else Side.ENB


class Direction(StrEnum):
    """Uplink: UE towards the core. Downlink: core towards the UE."""

    UPLINK = "uplink"
    DOWNLINK = "downlink"


class TunnelState(StrEnum):
    """``paired``: its opposite tunnel is known. ``ended``: an End Marker passed, nothing is injected."""

    LEARNT = "learnt"
    PAIRED = "paired"
    ENDED = "ended"


class TunnelKey(NamedTuple):
    """What makes a GTP-U tunnel distinct: outer addresses (packed), TEID and VLAN (None: untagged)."""

    source: bytes
    destination: bytes
    teid: int
    vlan: int | None = None


class Form(NamedTuple):
    """How a tunnel's G-PDUs look: header flags, and the QFI of its PDU Session Container, if any."""

    flags: int = 0x30
    qfi: int | None = None


class Link(NamedTuple):
    """How a tunnel's packets looked on the link: what injected ones will look like."""

    source_mac: bytes
    destination_mac: bytes
    ifindex: int
    tos: int


class PortRange(NamedTuple):
    """Ports of a transport protocol, both ends included."""

    first: int
    last: int


class Initiates(StrEnum):
    """Whether an application may open flows to UEs through a service; ``none``: it only answers them."""

    ANY = "any"
    NONE = "none"


class Heading(StrEnum):
    """Towards an application, or from it, as OpenStack has it."""

    INGRESS = "ingress"
    EGRESS = "egress"


@dataclass(frozen=True, slots=True)
class SecurityRule:
    """Flows that an application's port lets in, or out; of ``prefix``, ``group`` and ``ues`` at most one is given.

    ``protocol``: 1 is ICMP of either family. ``group``: with the addresses of the ports in it. Without a remote: with
    anybody but UEs.
    """

    heading: Heading
    protocol: int | None = None
    ports: tuple[PortRange, ...] = ()
    prefix: IpNetwork | None = None
    group: str | None = None
    ues: bool = False


@dataclass(frozen=True, slots=True)
class SecurityGroup:
    """Rules that hold at every port that is in the group."""

    name: str
    rules: tuple[SecurityRule, ...] = ()


class Mode(StrEnum):
    """What becomes of a service's packets. ``shadow``: they go to the core, and are counted."""

    DIVERT = "divert"
    SHADOW = "shadow"


@dataclass(frozen=True, slots=True)
class Selection:
    """Which of the packets to a service's addresses are the service's; what is empty selects all."""

    protocol: int | None = None
    """IP protocol number."""
    ports: tuple[PortRange, ...] = ()
    """Destination ports, of TCP, UDP or SCTP."""
    dscps: frozenset[int] = frozenset()
    """Of the UE's packet (RFC 2474)."""
    ues: tuple[IpNetwork, ...] = ()
    enbs: tuple[IpNetwork, ...] = ()
    sgws: tuple[IpNetwork, ...] = ()
    vlans: frozenset[int] = frozenset()
    """Of S1; 0 is untagged."""


class ProbeKind(StrEnum):
    """How an application is asked whether it lives: an accepted connection, a status below 400, an echo reply."""

    TCP = "tcp"
    HTTP = "http"
    ICMP = "icmp"


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """An application is dead after ``fall`` probes in a row without an answer, and lives again after ``rise`` with one."""

    kind: ProbeKind
    port: int | None = None
    path: str = "/"
    interval_s: float = 1.0
    timeout_s: float = 1.0
    fall: int = 3
    rise: int = 2


class OnFailure(StrEnum):
    """What becomes of a chain while one of its VNFs is dead: that one is left out, or its services go to the core."""

    SKIP = "skip"
    CORE = "core"


class MarkKind(StrEnum):
    """How frames tell VNFs which chain they walk: an 802.1Q tag, their packet's DSCP, or NSH (RFC 8300) around them."""

    VLAN = "vlan"
    DSCP = "dscp"
    NSH = "nsh"


class Mark(NamedTuple):
    """What stands for a chain in its frames: a VLAN id, a DSCP, or a Service Path Identifier."""

    kind: MarkKind
    number: int


@dataclass(frozen=True, slots=True)
class Chain:
    """A port-chain: the VNFs, by name, that packets walk from the UE to the application, and back in reverse order.

    ``mark``: what those of them that speak it find in the frames, to tell chains apart.
    """

    name: str
    vnfs: tuple[str, ...]
    on_failure: OnFailure = OnFailure.CORE
    mark: Mark | None = None


@dataclass(frozen=True, slots=True)
class Mirror:
    """Where diverted packets go a second time: a port of br-ue, or a file of that name."""

    interface: str = ""
    file: str = ""


class Hours(NamedTuple):
    """Of these days of the week (0: Monday), the minutes from ``begin`` on and before ``end``.

    An ``end`` that is not later is one of the next day.
    """

    days: tuple[int, ...]
    begin: int
    end: int


class SpreadBy(StrEnum):
    """Which of a service's applications has a flow: the first one that lives, or a share of the UEs or of the flows each."""

    ORDER = "order"
    UE = "ue"
    FLOW = "flow"


class OnDeath(StrEnum):
    """Where a dead application's share goes: to the next application, or to the core."""

    NEXT = "next"
    CORE = "core"


@dataclass(frozen=True, slots=True)
class Spread:
    """Further applications of a service, and how its flows are spread over all of them."""

    applications: tuple[IpAddress, ...]
    by: SpreadBy = SpreadBy.ORDER
    on_death: OnDeath = OnDeath.NEXT


@dataclass(frozen=True, slots=True)
class Service:
    """Traffic to ``service_ip`` is answered by ``application_ip`` (source document, section 4.3.4.1).

    ``prefix_length``: the service has all addresses that begin as ``service_ip`` does. ``application_port``: the one port
    in ``selection`` is translated to it. ``priority``: the higher one has a packet that several services select.
    ``health``: while the application does not answer, the service's packets go to the core. ``domain``, without
    ``service_ip``: its addresses are those that DNS says (``*.`` before it: of all names below it); with it: the DNS
    server at the edge says that the domain has this address. ``chain``: the name of the port-chain that its packets walk.
    ``hours``: when it selects packets at all; none: always. ``mirror``: its diverted packets, both ways, are duplicated
    there. ``spread``: it has more applications than ``application_ip``. ``initiates``: None is ``any`` for an application
    behind the apps adapter, and what its security groups say for one that has a port of its own.
    """

    name: str
    service_ip: IpAddress | None
    application_ip: IpAddress
    prefix_length: int | None = None
    selection: Selection = Selection()
    application_port: int | None = None
    priority: int = 0
    mode: Mode = Mode.DIVERT
    health: HealthCheck | None = None
    domain: str | None = None
    chain: str | None = None
    hours: tuple[Hours, ...] = ()
    mirror: Mirror | None = None
    spread: Spread | None = None
    initiates: Initiates | None = None

    @property
    def applications(self) -> tuple[IpAddress, ...]:
        """All of them, ``application_ip`` first."""
        return (self.application_ip, *(self.spread.applications if self.spread is not None else ()))

    @property
    def network(self) -> IpNetwork | None:
        """The service's addresses; None if they are learnt."""
        return None if self.service_ip is None else ip_network((self.service_ip, self.length))

    @property
    def length(self) -> int:
        """Of the prefixes that the service has: that of one address if they are learnt."""
        address = self.service_ip or self.application_ip
        return address.max_prefixlen if self.prefix_length is None else self.prefix_length

    @property
    def is_host(self) -> bool:
        """Whether it has one address."""
        return self.prefix_length is None and self.service_ip is not None


@dataclass(frozen=True, slots=True)
class Policy:
    """Everything that is provisioned, sorted by name."""

    services: tuple[Service, ...] = ()
    chains: tuple[Chain, ...] = ()
    groups: tuple[SecurityGroup, ...] = ()


def probe_port(service: Service) -> int | None:
    """The application's port that a probe of it asks."""
    if service.health is not None and service.health.port is not None:
        return service.health.port
    return service.application_port or next((ports.first for ports in service.selection.ports), None)


def address_text(packed: bytes) -> str:
    """Text of a packed address; eight bytes are an IPv6 UE's /64 prefix."""
    if len(packed) == 8:
        return f"{ip_address(packed + bytes(8))}/64"
    return str(ip_address(packed))


def service_mac(number: int) -> bytes:
    """The MAC address that stands on br-ue for the service that a UE's packet belongs to (02:72 + 32-bit number)."""
    return SERVICE_MAC_PREFIX + number.to_bytes(4, "big")


def tunnel_mac(index: int) -> bytes:
    """The MAC address that stands for tunnel ``index`` on br-ue (02:70 + 32-bit index)."""
    return TUNNEL_MAC_PREFIX + index.to_bytes(4, "big")
