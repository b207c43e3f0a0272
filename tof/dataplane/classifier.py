"""The Classifier (table 1): which chain, and which service, a packet belongs to."""

from __future__ import annotations

from collections.abc import Iterator

from tof.dataplane.desired import DEFAULT_CHAIN, Desired, ServiceRoute, by_application
from tof.dataplane.flow import Action, Flow, Goto, SetField, family
from tof.dataplane.tables import CLASSIFIER, SFF


def rules(desired: Desired) -> Iterator[Flow]:
    """From the UE by service address; from an application by its own, once for all its services."""
    for group in by_application(desired.services):
        for route in group:
            service_ip = route.service.service_ip.packed
            ip = family(service_ip)
            to = (("in_port", desired.ports.ue), ("eth_type", ip.eth_type), (ip.destination, service_ip))
            first_hop = _classify(route, 0)
            yield Flow(CLASSIFIER, 100, to, first_hop, f"{route.service.name}: from the UE")
        owner = group[0]
        application_ip = owner.service.application_ip.packed
        ip = family(application_ip)
        of = (("in_port", desired.ports.apps), ("eth_type", ip.eth_type), (ip.source, application_ip))
        last_hop = _classify(owner, len(DEFAULT_CHAIN.hops) - 1)
        yield Flow(CLASSIFIER, 100, of, last_hop, f"{owner.service.name}: from its application")


def _classify(route: ServiceRoute, hop: int) -> tuple[Action, ...]:
    registers = (("reg0", DEFAULT_CHAIN.id), ("reg1", hop), ("reg2", route.service_id))
    return (*(SetField(name, value) for name, value in registers), Goto(SFF))
