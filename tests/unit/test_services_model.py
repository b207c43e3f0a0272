"""Services of any kind, provisioned, changed and withdrawn in any order, against a model that keeps none of it clever."""

from __future__ import annotations

from ipaddress import ip_address

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tof.agent.catalog import Catalog
from tof.agent.events import AdoptedService
from tof.agent.service_body import body_of, parse
from tof.agent.services import ServicePlane
from tof.dataplane.desired import Serving
from tof.dataplane.selection import Facts, overlap, rank
from tof.errors import Conflict, NotFound
from tof.model import (
    HealthCheck,
    Mode,
    OnDeath,
    PortRange,
    ProbeKind,
    Selection,
    Service,
    Spread,
    SpreadBy,
)

APPS = tuple(ip_address(f"192.168.50.{n}") for n in (10, 11))
FURTHER = ip_address("192.168.50.12")
UE, TO = bytes((10, 45, 0, 2)), bytes((203, 0, 113, 70))
FACTS = [Facts(UE, TO, 17, port, 0, bytes(4), bytes(4)) for port in (53, 80, None)]
MAC = b"\x02" * 6

names = st.sampled_from(("a", "b", "c", "d"))
services = st.builds(
    Service,
    names,
    st.just(ip_address("203.0.113.70")),
    st.sampled_from(APPS),
    st.none(),
    st.builds(
        Selection,
        st.just(17),
        st.sampled_from(((), (PortRange(53, 53),), (PortRange(80, 90),))),
        vlans=st.sampled_from((frozenset(), frozenset({0}), frozenset({7}))),
    ),
    priority=st.integers(-1, 1),
    mode=st.sampled_from((Mode.DIVERT, Mode.DIVERT, Mode.SHADOW)),
    health=st.sampled_from((None, None, HealthCheck(ProbeKind.ICMP, fall=1, rise=1))),
    spread=st.sampled_from((None, Spread((FURTHER,)), Spread((FURTHER,), SpreadBy.UE, OnDeath.CORE))),
) | st.builds(
    Service,
    names,
    st.just(ip_address("203.0.113.64")),
    st.sampled_from(APPS),
    st.just(26),
    priority=st.integers(-1, 1),
)


class Services(RuleBasedStateMachine):
    """The model: services by name, next hops, and what each probed application last said."""

    def __init__(self):
        super().__init__()
        self.plane = ServicePlane(Catalog())
        self.there: dict[str, Service] = {}
        self.hops: set = set()
        self.alive: dict[tuple[str, object], bool] = {}
        self.numbers: dict[str, set[int]] = {}

    def clashes(self, service, without=None):
        return any(overlap(service, other) for name, other in self.there.items() if name != without)

    def settle(self, there):
        """What the model is after a change."""
        kept = {
            (name, one): alive
            for (name, one), alive in self.alive.items()
            if name in there
            and name in self.there
            and one in there[name].applications
            and watched(there[name]) == watched(self.there[name])
        }
        self.there, self.alive = there, kept
        self.hops &= {one for service in there.values() for one in service.applications}

    @rule(service=services)
    def add(self, service):
        if service.name in self.there or self.clashes(service):
            refused(Conflict, lambda: self.plane.add(service))
            return
        self.plane.add(service)
        self.settle({**self.there, service.name: service})
        fresh = self.plane.number(service)
        assert fresh not in self.numbers.setdefault(service.name, set()), "a successor has another's number"
        self.numbers[service.name].add(fresh)

    @rule(name=names, service=services)
    def replace(self, name, service):
        if name not in self.there:
            refused(NotFound, lambda: self.plane.replace(name, service))
            return
        if (service.name != name and service.name in self.there) or self.clashes(service, without=name):
            refused(Conflict, lambda: self.plane.replace(name, service))
            return
        before, number = self.there[name], self.plane.number(self.there[name])
        self.plane.replace(name, service)
        rest = {other: kept for other, kept in self.there.items() if other != name}
        self.settle({**rest, service.name: service})
        assert (self.plane.number(service) == number) == (before.network == service.network)
        self.numbers.setdefault(service.name, set()).add(self.plane.number(service))

    @rule(name=names)
    def remove(self, name):
        if name not in self.there:
            refused(NotFound, lambda: self.plane.remove(name))
            return
        self.plane.remove(name)
        self.settle({other: kept for other, kept in self.there.items() if other != name})

    @rule(wanted=st.lists(services, max_size=3))
    def replace_all(self, wanted):
        if any(a.name == b.name or overlap(a, b) for n, a in enumerate(wanted) for b in wanted[:n]):
            refused(Conflict, lambda: self.plane.replace_all(wanted))
            return
        self.plane.replace_all(wanted)
        self.settle({service.name: service for service in wanted})
        for service in wanted:
            self.numbers.setdefault(service.name, set()).add(self.plane.number(service))

    @rule(application=st.sampled_from((*APPS, FURTHER)), there=st.booleans())
    def next_hop(self, application, there):
        if not any(application in service.applications for service in self.there.values()):
            return
        self.plane.next_hop_changed(application, MAC if there else None)
        (self.hops.add if there else self.hops.discard)(application)

    @rule(name=names, application=st.sampled_from((*APPS, FURTHER)), answered=st.booleans())
    def probed(self, name, application, answered):
        self.plane.health.checked(name, application, answered=answered)
        service = self.there.get(name)
        if service is not None and watched(service) is not None and application in service.applications:
            self.alive[name, application] = answered

    @rule()
    def restart(self):
        """Another agent finds what the data path holds, and loads the services in their order."""
        found = [
            AdoptedService(s.service.name, s.service_id, s.service_id, first_lives(s))
            for s in self.plane.served
        ]
        found += [
            AdoptedService(str(one.address), one.number, s.service_id, one.lives)
            for s in self.plane.served
            for one in s.applications[1:]
        ]
        numbers = {name: self.numbers_of(name) for name in self.there}
        # What was not diverted to has to be asked anew.
        self.alive = {(name, one): lives and one in self.hops for (name, one), lives in self.alive.items()}
        self.plane = ServicePlane(Catalog())
        self.plane.adopt(found)
        for service in self.there.values():
            self.plane.add(service)
        for hop in self.hops:
            self.plane.next_hop_changed(hop, MAC)
        assert {name: self.numbers_of(name) for name in self.there} == numbers
        self.numbers = {
            name: {found[0]} for name, found in numbers.items()
        }  # a restart forgets who was there before

    def numbers_of(self, name):
        return {s.service.name: s.numbers for s in self.plane.served}[name]

    def usable(self, service, application):
        lives = watched(service) is None or self.alive.get((service.name, application), False)
        return lives and application in self.hops

    def serving(self, service):
        if service.mode is Mode.SHADOW:
            return Serving.SHADOW
        lives = any(self.usable(service, one) for one in service.applications)
        return Serving.DIVERT if lives else Serving.OFF

    @invariant()
    def it_is_as_the_model_says(self):
        served = {one.service.name: one for one in self.plane.served}
        assert {name: one.service for name, one in served.items()} == self.there
        assert {name: one.serving for name, one in served.items()} == {
            name: self.serving(service) for name, service in self.there.items()
        }
        numbers = [number for one in served.values() for number in one.numbers]
        assert len({*numbers, 0}) == len(numbers) + 1
        assert {
            (one.address, one.lives, self.plane.behind(one.number).application_ip)
            for two in served.values()
            for one in two.applications
        } == {
            (one, self.usable(service, one), one)
            for service in self.there.values()
            if service.spread is not None
            for one in service.applications
        }
        assert {(route.service.name, route.service.application_ip) for route in self.plane.routes} == {
            (name, one)
            for name, service in self.there.items()
            if service.mode is Mode.DIVERT
            for one in service.applications
            if one in self.hops
        }

    @invariant()
    def each_packet_is_the_first_service_s_that_selects_it(self):
        for facts in FACTS:
            judged = self.plane.judged(facts)
            wanted = next((s for s in sorted(self.there.values(), key=rank) if selects(s, facts)), None)
            assert (judged and judged.service) == wanted

    @invariant()
    def bodies_give_the_services_back(self):
        again = Catalog()
        for service in self.plane.catalog.services:
            again.put_new(parse(body_of(service)))
        assert again.services == self.plane.catalog.services

    def teardown(self):
        """There and back: nothing is left."""
        self.plane.replace_all([])
        assert (self.plane.routes, self.plane.served, self.plane.applications) == ((), (), frozenset())
        assert self.plane.catalog.taken == set()


def watched(service):
    if service.health is None or service.mode is Mode.SHADOW:
        return None
    return service.application_port, service.selection, service.health


def first_lives(served):
    return served.applications[0].lives if served.applications else served.serving is Serving.DIVERT


def selects(service, facts):
    ports, vlans = service.selection.ports, service.selection.vlans
    port = not ports or (facts.port is not None and any(a <= facts.port <= b for a, b in ports))
    return port and (not vlans or facts.vlan in vlans)


def refused(kind, change):
    try:
        change()
    except kind:
        return
    raise AssertionError(f"{kind.__name__} expected")


Services.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestServices = Services.TestCase
