"""NAT (table 3): service address to application address, and back.

Stateless wherever the way back is unambiguous. An application that stands behind several services, addresses or
ports needs connection tracking, to remember which of them a UE had asked. Its zone belongs to the application, a
connection's mark is the number of its service, and table 4 admits only replies on behalf of services that still are,
so removing or moving one is in force with its rules: no entry needs to be flushed for that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from hashlib import blake2b
from typing import Final

from tof.dataplane.desired import Desired, ServiceRoute, by_application
from tof.dataplane.flow import Action, Flow, Goto, Match, SetField, Track, family
from tof.dataplane.tables import DOWN, NAT, OUTPUT, UP
from tof.model import IpAddress, Service

MOST_ZONE: Final = 0x7FFF
"""The zones above are those of application ports."""


def rules(desired: Desired) -> Iterator[Flow]:
    """Translation of every service, in both directions."""
    for group in by_application(desired.services):
        if is_tracked(group):
            yield from _tracked(group)
        else:
            yield from _stateless(group[0])


def zone_of(application_ip: IpAddress) -> int:
    """The conntrack zone of an application that stands behind several services: never 0, the host's own, nor a port's."""
    digest = blake2b(application_ip.packed, digest_size=2).digest()
    return max(1, int.from_bytes(digest, "big") & MOST_ZONE)


def is_tracked(group: tuple[ServiceRoute, ...]) -> bool:
    """Whether the services of one application need connection tracking to find the way back.

    Several services do, and so does one that has several addresses or another port than its application, or a chain: its
    VNFs see fragments as they are. So does one that may not open flows: what is an answer has to be known.
    """
    service = group[0].service
    plain = service.is_host and service.application_port is None and service.chain is None
    return len(group) > 1 or not plain or group[0].own_port or not group[0].opens


def address_of(service: Service) -> bytes:
    """The one address (packed) of a service that has one."""
    assert service.service_ip is not None, service.name
    return service.service_ip.packed


def tracked(services: Iterable[ServiceRoute]) -> frozenset[IpAddress]:
    """The applications whose packets connection tracking translates."""
    groups = by_application(services)
    return frozenset(group[0].service.application_ip for group in groups if is_tracked(group))


def zones(desired: Desired) -> frozenset[int]:
    """The conntrack zones in use."""
    return frozenset(zone_of(application) for application in tracked(desired.services))


def _stateless(route: ServiceRoute) -> Iterator[Flow]:
    service = route.service
    name = service.name
    application_ip = service.application_ip.packed
    ip = family(application_ip)
    there: tuple[Action, ...] = (SetField(ip.destination, application_ip),)
    back: tuple[Action, ...] = (SetField(ip.source, address_of(service)),)
    if route.transparent:
        there, back, name = (), (), f"{name} (its own address)"
    onward = Goto(OUTPUT)
    yield Flow(NAT, 100, _match(UP, route), (*there, onward), f"{name}: to the application")
    yield Flow(NAT, 100, _match(DOWN, route), (*back, onward), f"{name}: back to the service")


def _tracked(group: tuple[ServiceRoute, ...]) -> Iterator[Flow]:
    application_ip = group[0].service.application_ip
    zone = zone_of(application_ip)
    for route in group:
        port = route.service.application_port
        track = Track(zone, OUTPUT, application_ip.packed, port, mark=route.service_id)
        match = _match(UP, route)
        yield Flow(NAT, 100, match, (track,), f"{route.service.name}: to the shared application")
    match = _match(DOWN, group[0])
    yield Flow(NAT, 100, match, (Track(zone, OUTPUT),), f"{application_ip}: back to the service asked")


def _match(direction: int, route: ServiceRoute) -> Match:
    eth_type = family(route.service.application_ip.packed).eth_type
    return (("reg3", direction), ("eth_type", eth_type), ("reg2", route.service_id))
