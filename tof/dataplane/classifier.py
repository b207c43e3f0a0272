"""The Classifier (table 1): which chain, and which service, a packet belongs to."""

from __future__ import annotations

from collections.abc import Iterator

from tof.dataplane.desired import DIRECT, Desired, Path, ServiceRoute, by_application
from tof.dataplane.flow import IPV4, IPV6, Action, Flow, Goto, Masked, Match, Output, SetField, family
from tof.dataplane.tables import BACK, CLASSIFIER, DOWN, NAT, OUTPUT, SFF, UP
from tof.model import service_mac


def rules(desired: Desired) -> Iterator[Flow]:
    """From the UE by what its packets were judged to be; from an application by its address, once for all its services."""
    for group in by_application(desired.services):
        for route in group:
            mirror = desired.mirrors.port(route.service)
            copy = () if mirror is None else (Output(mirror),)
            first_hop = (*copy, *_classify(route, route.path, 0))
            yield Flow(
                CLASSIFIER, 100, _selected(desired, route), first_hop, f"{route.service.name}: from the UE"
            )
        owner = group[0]
        application_ip = owner.service.application_ip.packed
        ip = family(application_ip)
        in_port = desired.port_of(owner.service.application_ip)
        of = (("in_port", in_port), ("eth_type", ip.eth_type), (ip.source, application_ip))
        last_hop = _classify(owner, DIRECT, 0)
        yield Flow(CLASSIFIER, 100, of, last_hop, f"{owner.service.name}: from its application")
    if desired.vnfs:
        for route in desired.services:
            yield from _from_vnfs(route)


def _from_vnfs(route: ServiceRoute) -> Iterator[Flow]:
    """By the service's MAC address, which VNFs leave alone: towards the application the destination, back the source.

    What comes out of a VNF that the chain does not have (any more) goes on as if it had been the last one.
    """
    mac, name = service_mac(route.service_id), route.service.name
    eth_type = (IPV4 if route.service.application_ip.version == 4 else IPV6).eth_type
    for place, vnf in enumerate(route.path.vnfs):
        up = (("in_port", vnf.far), ("eth_type", eth_type), ("eth_dst", mac))
        yield Flow(
            CLASSIFIER, 100, up, _classify(route, route.path, place + 1), f"{name}: up, from {vnf.name}"
        )
        down = (("in_port", vnf.near), ("eth_type", eth_type), ("eth_src", mac))
        yield Flow(
            CLASSIFIER, 100, down, _classify(route, route.path, place), f"{name}: down, from {vnf.name}"
        )
    number = SetField("reg2", route.service_id)
    up = (("reg3", UP), ("eth_type", eth_type), ("eth_dst", mac))
    yield Flow(CLASSIFIER, 50, up, (number, Goto(NAT)), f"{name}: up, from a former VNF")
    down = (("reg3", DOWN), ("eth_type", eth_type), ("eth_src", mac))
    home = (number, SetField("reg3", BACK), Goto(OUTPUT))
    yield Flow(CLASSIFIER, 50, down, home, f"{name}: down, from a former VNF")


def _selected(desired: Desired, route: ServiceRoute) -> Match:
    """By its MAC address, which the GTP Tunnel Endpoint gave the frames that the service selects."""
    network = route.service.network
    ip = family(route.service.application_ip.packed)
    match: Match = (
        ("in_port", desired.ports.ue),
        ("eth_dst", service_mac(route.service_id)),
        ("eth_type", ip.eth_type),
    )
    if network is None:  # by name: XDP alone knows the addresses of the moment
        return match
    if network.prefixlen == network.max_prefixlen:
        return (*match, (ip.destination, network.network_address.packed))
    if network.prefixlen == 0:
        return match
    return (*match, (ip.destination, Masked(network.network_address.packed, network.netmask.packed)))


def _classify(route: ServiceRoute, path: Path, place: int) -> tuple[Action, ...]:
    registers = (("reg0", path.id), ("reg1", place), ("reg2", route.service_id))
    return (*(SetField(name, value) for name, value in registers), Goto(SFF))
