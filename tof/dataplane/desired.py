"""What the UE-decapsulated data plane should do, as values: the only input of every rule on br-ue."""

from __future__ import annotations

from binascii import crc32
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Final

from tof.model import Initiates, IpAddress, Mark, MarkKind, SecurityGroup, Service


@dataclass(frozen=True, slots=True)
class Ports:
    """OpenFlow port numbers of br-ue, by role."""

    ue: int
    heartbeat: int
    apps: int
    gateway: int
    pinger: int


@dataclass(frozen=True, slots=True)
class Vnf:
    """A VNF's two ports: ``near`` is the one on the UE's side of it, ``far`` that on the application's.

    ``speaks``: the marks that it is shown.
    """

    name: str
    near: int
    far: int
    speaks: frozenset[MarkKind] = frozenset({MarkKind.VLAN})


@dataclass(frozen=True, slots=True)
class Path:
    """A port-chain as it is walked now: in order from the UE, in reverse order towards it.

    ``mark`` is in the frames that VNFs get which speak it. ``whole``: the names of all VNFs of the chain, of those as well
    that are left out now; none: of ``vnfs``.
    """

    name: str
    vnfs: tuple[Vnf, ...] = ()
    mark: Mark | None = None
    whole: tuple[str, ...] = ()

    @property
    def id(self) -> int:
        """The number that stands for it on br-ue: equal paths have the same, 1 is the one without VNFs."""
        if not self.vnfs:
            return 1
        walked = repr((self.mark, self.whole, [(vnf.near, vnf.far) for vnf in self.vnfs]))
        return crc32(walked.encode()) & 0x7FFFFFFF | 2


DIRECT: Final = Path("default")
"""Straight to NAT."""


@dataclass(frozen=True, slots=True)
class AppPort:
    """A port of br-ue that is one application's own: its MAC address, its addresses, the security groups it is in."""

    name: str
    port: int
    mac: bytes
    addresses: tuple[IpAddress, ...]
    groups: tuple[str, ...] = ()

    @property
    def zone(self) -> int:
        """The conntrack zone of what it says to and hears from everybody but UEs; ``nat.zone_of`` stays below these."""
        return self.port


@dataclass(frozen=True, slots=True)
class ServiceRoute:
    """A service whose application is resolved: ``next_hop_mac`` is where its packets go on the apps side.

    One with several applications has a route to each: that is its ``application_ip``, the number the application's.
    ``own_port``: the application has a port of its own.
    """

    service: Service
    service_id: int
    next_hop_mac: bytes
    path: Path = DIRECT
    named: bool = False
    """Whether GTP Tunnel Endpoints have to be told which application speaks to a UE."""
    own_port: bool = False

    @property
    def opens(self) -> bool:
        """Whether the application may open any flow to UEs as this service."""
        if self.service.initiates is None:
            return not self.own_port
        return self.service.initiates is Initiates.ANY

    @property
    def transparent(self) -> bool:
        """Whether the application has the service's own address, so that nothing is translated."""
        same = self.service.service_ip == self.service.application_ip
        return same and self.service.is_host and self.service.application_port is None


class Serving(Enum):
    """What becomes of the packets that a service selects. ``OFF``: its application is not there, they go to the core."""

    OFF = "off"
    DIVERT = "divert"
    SHADOW = "shadow"


@dataclass(frozen=True, slots=True)
class ServedApplication:
    """One of a service's several applications; the first one's number is the service's own."""

    address: IpAddress
    number: int
    lives: bool


@dataclass(frozen=True, slots=True)
class ServedService:
    """A service as the data path in front of br-ue knows it; ``applications``: all of them, where it has several."""

    service: Service
    service_id: int
    serving: Serving
    applications: tuple[ServedApplication, ...] = ()

    @property
    def numbers(self) -> tuple[int, ...]:
        """Those under which its packets are on br-ue, one for each application."""
        return tuple(one.number for one in self.applications) or (self.service_id,)


@dataclass(frozen=True, slots=True)
class PingRoute:
    """The Pinger asks ``target`` on behalf of ``ue`` through uplink tunnel ``tunnel_index``.

    At most one UE per tunnel and target: the Pinger's frames name nothing else.
    """

    tunnel_index: int
    ue: bytes
    target: bytes


@dataclass(frozen=True, slots=True)
class Mirrors:
    """OpenFlow port numbers of br-ue that mirrored packets go to, by interface; ``file``: where files are written from."""

    interfaces: tuple[tuple[str, int], ...] = ()
    file: int | None = None

    def port(self, service: Service) -> int | None:
        """The port for this service's packets; None: they are not mirrored, or not to what is there."""
        if service.mirror is None:
            return None
        return self.file if service.mirror.file else dict(self.interfaces).get(service.mirror.interface)


@dataclass(frozen=True, slots=True)
class Desired:
    """All that br-ue should do; ``app_addresses`` are the TOF's own on the apps side, ``local`` those of them that are
    applications: what they say to UEs comes from the gateway port, and goes to the gateway's own MAC address.

    ``accounting``: what leaves for a UE says which service it is of, by its source MAC address.
    """

    ports: Ports
    app_addresses: tuple[IpAddress, ...] = ()
    services: tuple[ServiceRoute, ...] = ()
    pings: tuple[PingRoute, ...] = ()
    vnfs: tuple[Vnf, ...] = ()
    """All that have ports on br-ue, whether a chain uses them or not."""
    local: tuple[IpAddress, ...] = ()
    accounting: bool = False
    mirrors: Mirrors = Mirrors()
    app_ports: tuple[AppPort, ...] = ()
    groups: tuple[SecurityGroup, ...] = ()

    def app_port(self, application: IpAddress) -> AppPort | None:
        """The port that is this application's own."""
        return next((port for port in self.app_ports if application in port.addresses), None)

    def port_of(self, application: IpAddress) -> int:
        """Where an application is."""
        own = self.app_port(application)
        if own is not None:
            return own.port
        return self.ports.gateway if application in self.local else self.ports.apps


def by_application(services: Iterable[ServiceRoute]) -> tuple[tuple[ServiceRoute, ...], ...]:
    """Services grouped by application; the oldest of a group speaks for flows the application starts."""
    groups: dict[IpAddress, list[ServiceRoute]] = {}
    for route in services:
        groups.setdefault(route.service.application_ip, []).append(route)
    return tuple(tuple(sorted(group, key=lambda route: route.service_id)) for group in groups.values())
