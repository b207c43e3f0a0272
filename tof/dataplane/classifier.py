"""The Classifier (table 1): which chain, and which service, a packet belongs to."""

from __future__ import annotations

from collections.abc import Iterator

from tof.dataplane.desired import DEFAULT_CHAIN, Desired, ServiceRoute, by_application
from tof.dataplane.flow import Action, Flow, Goto, Masked, Match, SetField, family
from tof.dataplane.tables import CLASSIFIER, SFF
from tof.model import service_mac


def rules(desired: Desired) -> Iterator[Flow]:
    """From the UE by what its packets were judged to be; from an application by its address, once for all its services."""
    for group in by_application(desired.services):
        for route in group:
            first_hop = _classify(route, 0)
            yield Flow(
                CLASSIFIER, 100, _selected(desired, route), first_hop, f"{route.service.name}: from the UE"
            )
        owner = group[0]
        application_ip = owner.service.application_ip.packed
        ip = family(application_ip)
        of = (("in_port", desired.ports.apps), ("eth_type", ip.eth_type), (ip.source, application_ip))
        last_hop = _classify(owner, len(DEFAULT_CHAIN.hops) - 1)
        yield Flow(CLASSIFIER, 100, of, last_hop, f"{owner.service.name}: from its application")


def _selected(desired: Desired, route: ServiceRoute) -> Match:
    """By its MAC address, which the GTP Tunnel Endpoint gave the frames that the service selects."""
    network = route.service.network
    ip = family(network.network_address.packed)
    match: Match = (
        ("in_port", desired.ports.ue),
        ("eth_dst", service_mac(route.service_id)),
        ("eth_type", ip.eth_type),
    )
    if network.prefixlen == network.max_prefixlen:
        return (*match, (ip.destination, network.network_address.packed))
    if network.prefixlen == 0:
        return match
    return (*match, (ip.destination, Masked(network.network_address.packed, network.netmask.packed)))


def _classify(route: ServiceRoute, hop: int) -> tuple[Action, ...]:
    registers = (("reg0", DEFAULT_CHAIN.id), ("reg1", hop), ("reg2", route.service_id))
    return (*(SetField(name, value) for name, value in registers), Goto(SFF))
