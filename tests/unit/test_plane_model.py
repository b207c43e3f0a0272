"""The service plane whole: services, chains, VNFs, applications, hours and UEs change and fail in any order.

After every step a packet of each UE to each address is followed: the judgement, the application's number, every rule of
br-ue and every VNF on its way, and back into the UE's own downlink. A model that only knows the rules of the house says
where it has to come out.
"""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tests.agent_world import SGW, UE, UE2, World, downlink, uplink
from tests.chain_walk import MAC, PORTS, TUNNEL, walk
from tof.agent.catalog import Catalog
from tof.agent.core import Agent
from tof.agent.events import (
    AdoptedService,
    ApplicationProbed,
    MinuteTurned,
    NextHopChanged,
    ServiceAdded,
    ServiceRemoved,
    ServicesReplaced,
    TunnelsAdopted,
    TunnelsIdle,
    VnfSeen,
)
from tof.dataplane.desired import Desired, Serving, Vnf
from tof.dataplane.pipeline import render
from tof.dataplane.selection import Facts
from tof.dataplane.spreading import FlowEnds, slot_of, slots
from tof.errors import RequestError
from tof.model import (
    GATEWAY_MAC,
    Chain,
    HealthCheck,
    Hours,
    Mark,
    MarkKind,
    OnDeath,
    OnFailure,
    ProbeKind,
    Service,
    Spread,
    SpreadBy,
    service_mac,
)

VNFS = tuple(
    Vnf(name, 100 + 2 * n, 101 + 2 * n, frozenset(MarkKind) if name == "b" else frozenset())
    for n, name in enumerate("abc")
)
APPS = tuple(ip_address(f"192.168.50.{n}") for n in (10, 11, 12))
TO = ip_address("203.0.113.70")
UES = {UE: (1, 2), UE2: (3, 4)}
MORNING, NIGHT = 8 * 60, 23 * 60
PROTOCOLS = (6, 17)

chains = st.lists(
    st.builds(
        Chain,
        st.sampled_from("xy"),
        st.lists(st.sampled_from("abc"), min_size=1, max_size=3, unique=True).map(tuple),
        st.sampled_from(OnFailure),
        st.sampled_from((None, None, Mark(MarkKind.VLAN, 7), Mark(MarkKind.DSCP, 10), Mark(MarkKind.NSH, 9))),
    ),
    max_size=2,
    unique_by=lambda chain: (chain.name, chain.mark),
).filter(lambda found: len({chain.name for chain in found}) == len(found))
services = st.builds(
    Service,
    st.sampled_from(("one", "two", "three")),
    st.just(TO),
    st.sampled_from(APPS[:2]),
    priority=st.integers(0, 3),
    health=st.sampled_from((None, HealthCheck(ProbeKind.ICMP, fall=1, rise=1))),
    chain=st.sampled_from((None, "x", "y")),
    hours=st.sampled_from(((), (Hours(tuple(range(7)), 6 * 60, 20 * 60),))),
    spread=st.sampled_from(
        (
            None,
            None,
            Spread(APPS[2:]),
            Spread(APPS[2:], SpreadBy.UE),
            Spread(APPS[2:], SpreadBy.UE, OnDeath.CORE),
        )
    ),
)


BOTH = Chain("x", ("a", "b"), mark=Mark(MarkKind.DSCP, 10))
OTHER = Chain("y", ("c", "b"), OnFailure.SKIP, Mark(MarkKind.NSH, 9))


class Plane(RuleBasedStateMachine):
    """What is provisioned, what lives, who is attached: the model is these few sets."""

    def __init__(self):
        super().__init__()
        self.world = World()
        self.world.policy = replace(self.world.policy, vnfs=VNFS)
        self.world.start()
        self.minute = MORNING
        self.world.say(MinuteTurned(self.minute))
        self.services: dict[str, Service] = {}
        self.chains: dict[str, Chain] = {}
        self.vnfs: set[str] = set()
        self.hops: set = set()
        self.answers: dict[tuple[str, object], bool] = {}
        self.attached: set[bytes] = set()
        self.policy([], [BOTH, OTHER])
        for vnf in VNFS:
            self.vnf(vnf.name, True)

    @property
    def plane(self):
        return self.world.agent.services

    # What an orchestrator does

    def settle(self, before):
        """Whom nobody asks any more, or asks something else, has said nothing."""
        self.answers = {
            (name, one): said
            for (name, one), said in self.answers.items()
            if name in self.services
            and one in self.services[name].applications
            and before.get(name) is not None
            and before[name].health == self.services[name].health
        }
        self.hops &= {one for service in self.services.values() for one in service.applications}

    def attempt(self, event, after, chains=None):
        """Refused, nothing has changed; else it is as the model says from now on."""
        before = self.services
        try:
            self.world.say(event)
        except RequestError:
            return
        self.services, self.chains = after, self.chains if chains is None else chains
        self.settle(before)
        for application in {one for service in after.values() for one in service.applications} - self.hops:
            self.next_hop(application, True)  # the resolver finds most of them at once

    @rule(service=services)
    def add(self, service):
        self.attempt(ServiceAdded(service), {**self.services, service.name: service})

    @rule(name=st.sampled_from(("one", "two", "three")))
    def remove(self, name):
        left = {other: service for other, service in self.services.items() if other != name}
        self.attempt(ServiceRemoved(name), left)

    @rule(wanted=st.lists(services, max_size=3, unique_by=lambda one: one.name), listed=chains)
    def replace_policy(self, wanted, listed):
        self.policy(wanted, listed)

    def policy(self, wanted, listed):
        event = ServicesReplaced(tuple(wanted), tuple(listed))
        self.attempt(event, {one.name: one for one in wanted}, {one.name: one for one in listed})

    # What fails and comes back

    @rule(name=st.sampled_from("abc"), alive=st.sampled_from((True, True, False)))
    def vnf_seen(self, name, alive):
        self.vnf(name, alive)

    def vnf(self, name, alive):
        self.world.say(VnfSeen(name, alive))
        (self.vnfs.add if alive else self.vnfs.discard)(name)

    @rule(application=st.sampled_from(APPS), there=st.booleans())
    def next_hop_changed(self, application, there):
        self.next_hop(application, there)

    def next_hop(self, application, there):
        if any(application in service.applications for service in self.services.values()):
            self.world.say(NextHopChanged(application, MAC if there else None))
            (self.hops.add if there else self.hops.discard)(application)

    @rule(
        name=st.sampled_from(("one", "two", "three")),
        application=st.sampled_from(APPS),
        answered=st.sampled_from((True, True, False)),
    )
    def probe(self, name, application, answered):
        self.world.say(ApplicationProbed(name, application, answered))
        service = self.services.get(name)
        if service is not None and service.health is not None and application in service.applications:
            self.answers[name, application] = answered

    @rule(minute=st.sampled_from((MORNING, NIGHT)))
    def clock(self, minute):
        self.world.say(MinuteTurned(minute))
        self.minute = minute

    @rule()
    def restart(self):
        """Another agent on the same data path; the store has what was provisioned."""
        world = self.world
        found = [
            AdoptedService(one.service.name, one.service_id, one.service_id, self.lives_first(one))
            for one in self.plane.served
        ]
        found += [
            AdoptedService(str(one.address), one.number, served.service_id, one.lives)
            for served in self.plane.served
            for one in served.applications[1:]
        ]
        # What nothing was diverted to is asked anew.
        self.answers = {(name, one): self.diverts_to(self.services[name], one) for name, one in self.answers}
        world.agent = Agent(world.policy, Catalog(), world.tokens)
        world.say(TunnelsAdopted(world.path.adopt(), tuple(found), world.path.adopt_tokens()))
        world.say(ServicesReplaced(tuple(self.services.values()), tuple(self.chains.values())))
        world.say(MinuteTurned(self.minute))
        for vnf in self.vnfs:
            world.say(VnfSeen(vnf, True))
        for hop in self.hops:
            world.say(NextHopChanged(hop, MAC))

    # UEs

    @rule(ue=st.sampled_from(sorted(UES)))
    def attach(self, ue):
        up, down = UES[ue]
        self.world.say(uplink(up, ue))
        self.world.say(downlink(down, ue))
        self.attached.add(ue)

    @rule(ue=st.sampled_from(sorted(UES)))
    def detach(self, ue):
        gone = frozenset(tunnel.index for tunnel in self.world.sessions if ue in tunnel.ues)
        if gone:
            self.world.say(TunnelsIdle(gone))
        self.attached.discard(ue)

    # The model

    def usable(self, service, application):
        asked = service.health is not None
        return application in self.hops and (
            not asked or self.answers.get((service.name, application), False)
        )

    def diverts_to(self, service, application):
        """Whether the data path knows the application as one that flows go to."""
        if service.spread is not None:
            return self.usable(service, application)
        return self.usable(service, application) and not self.broken(service)

    @staticmethod
    def lives_first(served):
        return served.applications[0].lives if served.applications else served.serving is Serving.DIVERT

    def chain(self, service):
        return None if service.chain is None else self.chains[service.chain]

    def broken(self, service):
        chain = self.chain(service)
        return chain is not None and chain.on_failure is OnFailure.CORE and bool(set(chain.vnfs) - self.vnfs)

    def goes_to(self, service, ue):
        """The application, None: the core."""
        if self.broken(service):
            return None
        if service.spread is None or service.spread.by is SpreadBy.ORDER:
            return next((one for one in service.applications if self.usable(service, one)), None)
        served = next(one for one in self.plane.served if one.service.name == service.name)
        number = slots(served.applications, service.spread)[slot_of(FlowEnds(ue, 17, (1, 2)), SpreadBy.UE)]
        chosen = next((one.address for one in served.applications if one.number == number), None)
        assert chosen is None or self.usable(service, chosen)
        return chosen

    def selected(self):
        """The service that has the packets to the one address: whose hours it is, of the highest priority."""
        on_duty = [s for s in self.services.values() if not s.hours or self.minute == MORNING]
        return max(on_duty, key=lambda service: service.priority, default=None)

    @invariant()
    def packets_come_out_where_they_should(self):
        service = self.selected()
        flows = render(Desired(PORTS, (), self.plane.routes, vnfs=VNFS))
        for ue in UES:
            judged = self.plane.judged(Facts(ue, TO.packed, 17, 53, 0, bytes(4), SGW))
            assert (judged and judged.service) == service
            if service is None:
                continue
            application = self.goes_to(service, ue)
            found = self.plane.application_of(judged, self.packet(ue))
            diverted = judged.serving is Serving.DIVERT and found is not None and found.lives
            assert diverted == (application is not None)
            if application is None:
                continue
            assert found.address == application
            self.follow(flows, service, found.number, application, ue)

    @staticmethod
    def packet(ue):
        return (
            bytes.fromhex("4500001c000000004011000000000000")[:12]
            + ue
            + TO.packed
            + bytes((0, 1, 0, 2))
            + bytes(4)
        )

    def follow(self, flows, service, number, application, ue):
        chain = self.chain(service)
        walked = [
            vnf for vnf in VNFS if chain is not None and vnf.name in chain.vnfs and vnf.name in self.vnfs
        ]
        walked.sort(key=lambda vnf: chain.vnfs.index(vnf.name))
        up = {
            "in_port": PORTS.ue, "eth_dst": service_mac(number), "eth_src": TUNNEL, "eth_type": 0x0800,
            "vlan_vid": 0, "ip_dscp": 46, "ipv4_dst": TO.packed, "ipv4_src": ue,
        }  # fmt: skip
        for vnf in walked:
            port, up = walk(flows, up, number)
            assert port == vnf.near
            self.is_marked(up, chain, vnf, 46)
            up = {**up, "in_port": vnf.far}
        port, up = walk(flows, up, number)
        assert (port, up["eth_dst"], up["ip_dscp"], up["vlan_vid"]) == (PORTS.apps, MAC, 46, 0)
        assert up["ipv4_dst"] == application.packed
        down = {
            "in_port": PORTS.apps, "eth_dst": GATEWAY_MAC, "eth_src": MAC, "eth_type": 0x0800, "vlan_vid": 0,
            "ip_dscp": 34, "ipv4_src": application.packed, "ipv4_dst": ue,
        }  # fmt: skip
        # What is a reply, and whose, connection tracking knows; without it the application is of one service.
        for vnf in reversed(walked):
            port, down = walk(flows, down, number)
            assert port == vnf.far
            self.is_marked(down, chain, vnf, 34)
            down = {**down, "in_port": vnf.near}
        port, down = walk(flows, down, number)
        assert (port, down["eth_dst"], down["ip_dscp"]) == (PORTS.ue, GATEWAY_MAC, 34)
        if service.spread is not None:
            assert down["eth_src"] == service_mac(number)

    @staticmethod
    def is_marked(frame, chain, vnf, dscp):
        kind = chain.mark.kind if chain.mark is not None and chain.mark.kind in vnf.speaks else None
        if kind is MarkKind.NSH:
            assert frame["nsh_spi"] == chain.mark.number
            return
        assert "nsh_spi" not in frame
        assert frame["vlan_vid"] == (chain.mark.number | 0x1000 if kind is MarkKind.VLAN else 0)
        assert frame["ip_dscp"] == (chain.mark.number if kind is MarkKind.DSCP else dscp)

    @invariant()
    def replies_have_their_ue_s_own_tunnel(self):
        for ue, (_, teid) in UES.items():
            index = self.world.path.defaults.get(ue, 0)
            tunnel = self.world.sessions.at(index) if index else None
            assert (tunnel is not None) == (ue in self.attached)
            assert tunnel is None or (tunnel.key.teid, tunnel.ues) == (teid, (ue,))

    def teardown(self):
        """There and back."""
        self.world.say(ServicesReplaced((), ()))
        assert (self.plane.routes, self.plane.served) == ((), ())
        assert render(Desired(PORTS, (), self.plane.routes, vnfs=VNFS)) == render(Desired(PORTS, vnfs=VNFS))


Plane.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestPlane = Plane.TestCase
