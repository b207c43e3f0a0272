"""Services given by domain: which answers are believed, who has which address, for how long; the bounds."""

from __future__ import annotations

from collections import Counter
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tests.agent_world import ENB, ENB2, SGW, UE, UE2, UE_V6, World, downlink, uplink
from tof.agent.catalog import Catalog
from tof.agent.commands import Converge
from tof.agent.events import (
    AddressesRecalled,
    AddressesUnused,
    AnswerSeen,
    EndMarkerSeen,
    OwnApplicationChanged,
    ServiceAdded,
    ServiceReplaced,
    ServicesReplaced,
)
from tof.agent.names import MOST_OF_A_SERVICE, MOST_RULES, NamePolicy, Names
from tof.agent.naming import observe_answer
from tof.agent.service_body import body_of, parse
from tof.agent.service_check import checked
from tof.dataplane.selection import Facts
from tof.errors import BadRequest, Conflict, DecodeError, NotFound
from tof.model import Service
from tof.wire.dns import Address, Answer
from tof.wire.inet import UDP, IPv4, IPv6, encode_ipv4, encode_ipv6, encode_udp, fill_checksum

APP, APP6 = "192.168.50.10", "2001:db8:ed9e::10"
ONE, TWO, SIX = "203.0.113.81", "203.0.113.82", "2001:db8:113::81"
RESOLVER = "198.51.100.53"


def by(domain, name="s", app=APP, **fields):
    return parse({"name": name, "domain": domain, "applicationIP": app, **fields})


def at(address, name="fixed", **fields):
    return parse({"name": name, "serviceIP": address, "applicationIP": APP, **fields})


def said(*names, addresses=(ONE,), ttl=300):
    return Answer(1, names, tuple(Address(ip_address(each).packed, ttl) for each in addresses))


class Known:
    """Names over a catalog, with what was counted."""

    def __init__(self, *services, **policy):
        resolvers = (ip_network(RESOLVER), ip_network("10.53.0.0/16"))
        self.catalog = Catalog([ip_address("8.8.8.8")], [ip_address("192.168.50.1")])
        self.counts = Counter()
        self.names = Names(self.catalog, NamePolicy(**{"resolvers": resolvers, **policy}), self.counts)
        for service in services:
            self.put(service)

    def put(self, service):
        self.catalog.put_new(service)
        self.names.keep()

    def of(self, name="s"):
        return {str(each.address): each.until for each in self.names.of(name)}


def test_an_answer_gives_a_service_its_addresses():
    known = Known(by("video.example.com"))
    assert known.names.heard(said("video.example.com", addresses=(TWO, ONE)), 100.0)
    assert known.of() == {ONE: 400.0, TWO: 400.0}
    assert known.names.networks == {"s": (ip_network(TWO), ip_network(ONE))}
    assert known.counts == {"names_learnt": 2}
    assert not known.names.heard(said("other.example.com"), 100.0)
    assert known.counts["names_of_no_service"] == 1


def test_how_long_an_answer_holds_is_bounded():
    known = Known(by("video.example.com"), least_s=60, most_s=3600)
    for address, ttl in ((ONE, 0), (TWO, 1_000_000)):
        known.names.heard(said("video.example.com", addresses=(address,), ttl=ttl), 10.0)
    assert known.of() == {ONE: 70.0, TWO: 3610.0}


def test_what_is_said_again_holds_longer_and_never_shorter():
    known = Known(by("video.example.com"))
    known.names.heard(said("video.example.com", ttl=600), 0.0)
    revision, changes = known.names.revision, known.names.changes
    assert not known.names.heard(said("video.example.com", ttl=600), 50.0)
    assert not known.names.heard(said("video.example.com", ttl=60), 60.0)
    assert known.of() == {ONE: 650.0}
    assert known.names.revision == revision
    assert known.names.changes == changes + 2
    assert known.counts["names_confirmed"] == 2


@pytest.mark.parametrize(
    ("names", "winner"),
    [
        (("video.example.com",), "exact"),
        (("a.example.com",), "wild"),
        (("a.b.example.com",), "deep"),
        (("x.a.b.example.com",), "deep"),
        (("b.example.com",), "wild"),
        (("example.com",), None),
        (("notexample.com",), None),
        (("www.example.org", "video.example.com"), "exact"),
        (("www.example.org", "cdn.net", "a.example.com"), "wild"),
        (("a.example.com", "video.example.com"), "wild"),
        (("com",), None),
        (("",), None),
    ],
)
def test_the_first_name_that_a_service_has_decides_and_of_domains_the_longest(names, winner):
    services = [
        by("video.example.com", "exact"),
        by("*.example.com", "wild"),
        by("*.b.example.com", "deep"),
    ]
    known = Known(*services)
    assert known.names.heard(said(*names), 0.0) == (winner is not None)
    assert [name for name, _, _ in known.names.all()] == ([winner] if winner else [])


def test_the_family_is_that_of_the_application():
    known = Known(by("video.example.com"), by("video.example.com", "six", APP6))
    known.names.heard(said("video.example.com", addresses=(ONE, SIX)), 0.0)
    assert known.of().keys() == {ONE}
    assert known.of("six").keys() == {SIX}
    assert known.counts["names_of_other_family"] == 2


@pytest.mark.parametrize("taken", ["203.0.113.90", "192.168.50.1", "8.8.8.8", RESOLVER])
def test_addresses_of_others_are_refused(taken):
    known = Known(by("video.example.com", priority=1000), at("203.0.113.90"))
    assert not known.names.heard(said("video.example.com", addresses=(taken,)), 0.0)
    assert known.counts == {"names_refused_taken": 1}
    assert not known.of()


@pytest.mark.parametrize("address", ["127.0.0.1", "224.0.0.1", "0.0.0.0", "255.255.255.255"])
def test_addresses_of_no_server_are_refused(address):
    known = Known(by("video.example.com"))
    assert not known.names.heard(said("video.example.com", addresses=(address,)), 0.0)
    assert known.counts == {"names_refused_unusable": 1}


def test_an_address_inside_another_services_prefix_is_the_names():
    known = Known(by("video.example.com"), at("203.0.113.0/24"))
    assert known.names.heard(said("video.example.com"), 0.0)


def test_names_may_share_an_address_as_far_as_their_selections_let_them():
    web = {"protocol": "tcp", "ports": [80]}
    tls = {"protocol": "tcp", "ports": [443]}
    known = Known(by("a.example", "a", **web), by("b.example", "b", **tls), by("c.example", "c", **web))
    for name in ("a.example", "b.example", "c.example"):
        known.names.heard(said(name), 0.0)
    assert [name for name, _, _ in known.names.all()] == ["a", "b"]
    assert known.counts == {"names_learnt": 2, "names_refused_taken": 1}
    known.catalog.replace("c", by("c.example", "c", priority=5, **web))
    known.names.keep()
    assert known.names.heard(said("c.example"), 0.0)


def test_a_service_provisioned_at_a_learnt_address_takes_it():
    known = Known(by("video.example.com"))
    known.names.heard(said("video.example.com", addresses=(ONE, TWO)), 0.0)
    known.put(at(ONE))
    assert known.of().keys() == {TWO}


def test_what_becomes_of_the_addresses_when_services_change():
    known = Known(by("video.example.com"))
    known.names.heard(said("video.example.com"), 0.0)
    known.catalog.replace("s", by("video.example.com", "s", priority=3))
    known.names.keep()
    assert known.of().keys() == {ONE}
    known.names.rename("s", "t")
    known.names.rename("absent", "u")
    assert known.of("t").keys() == {ONE}
    known.catalog.replace("s", by("video.example.com", "t", APP6))
    known.names.keep()
    assert not known.of("t")
    known.catalog.remove("t")
    known.names.keep()
    assert not list(known.names.all())


def test_a_service_has_so_many_addresses_and_no_more():
    known = Known(by("video.example.com"))
    many = [f"203.0.113.{n}" for n in range(1, MOST_OF_A_SERVICE + 3)]
    known.names.heard(said("video.example.com", addresses=many), 0.0)
    assert len(known.of()) == MOST_OF_A_SERVICE
    assert known.counts == {"names_learnt": MOST_OF_A_SERVICE, "names_refused_full": 2}
    assert known.names.unused(frozenset([ip_address(many[0]).packed]), 1e6)
    assert known.names.heard(said("video.example.com", addresses=many[-1:]), 1e6)


def test_the_rules_that_answers_may_bring_about_are_bounded():
    ports = [{"protocol": "tcp", "ports": [2 * n + 1 for n in range(64)]} for _ in range(2)]
    known = Known(*(by(f"{n}.example", f"s{n}", **ports[0]) for n in range(4)))
    for n in range(4):
        many = [f"203.0.{n}.{m}" for m in range(1, 40)]
        known.names.heard(said(f"{n}.example", addresses=many), 0.0)
    assert len(list(known.names.all())) * 64 == MOST_RULES
    known = Known(by("a.example"), *(at("203.0.113.0/24", f"f{n}", priority=n, **ports[1]) for n in range(4)))
    assert not known.names.heard(said("a.example"), 0.0)
    assert known.counts == {"names_refused_full": 1}
    assert known.names.heard(said("a.example", addresses=("203.0.112.1",)), 0.0)


def test_what_is_overdue_and_unused_is_given_up():
    known = Known(by("video.example.com"))
    known.names.heard(said("video.example.com", addresses=(ONE,), ttl=60), 0.0)
    known.names.heard(said("video.example.com", addresses=(TWO,), ttl=90), 0.0)
    one, two = (ip_address(each).packed for each in (ONE, TWO))
    assert known.names.overdue(59.9) == frozenset()
    assert known.names.overdue(60.0) == {one}
    assert not known.names.unused(frozenset(), 60.0)
    assert not known.names.unused(frozenset({two}), 60.0)
    assert known.names.unused(frozenset({one, two}), 60.0)
    assert known.of().keys() == {TWO}
    assert known.counts["names_expired"] == 1


def test_what_an_earlier_agent_knew():
    known = Known(by("video.example.com"), at(TWO))
    entries = [("s", ip_address(ONE), -5.0), ("s", ip_address(TWO), 9.0), ("gone", ip_address(ONE), 9.0)]
    known.names.recall(entries)
    assert known.of() == {ONE: -5.0}
    assert known.names.overdue(0.0) == {ip_address(ONE).packed}


# --- the catalog ---------------------------------------------------------------------------------------------


def test_a_service_is_found_by_its_domain():
    catalog = Catalog()
    catalog.put_new(by("video.example.com", "a"))
    assert catalog.lookup("Video.Example.com.").name == "a"
    catalog.put_new(by("video.example.com", "b", priority=1))
    with pytest.raises(Conflict, match=r"video\.example\.com belongs to several services"):
        catalog.lookup("video.example.com")
    assert catalog.remove("a").name == "a"
    assert catalog.remove("video.example.com").name == "b"
    with pytest.raises(NotFound):
        catalog.lookup("video.example.com")


def test_a_domain_is_taken_once():
    catalog = Catalog()
    catalog.put_new(by("video.example.com", "a"))
    with pytest.raises(Conflict, match=r"video\.example\.com already belongs to service a") as caught:
        catalog.put_new(by("VIDEO.example.com", "b"))
    assert caught.value.field == "domain"
    catalog.put_new(by("*.example.com", "b"))
    assert ip_address("192.168.50.10").packed not in catalog.taken


def test_without_resolvers_no_name_can_be_learnt():
    catalog = Catalog(learns=False)
    for put in (catalog.put_new, lambda service: catalog.replace_all([service])):
        with pytest.raises(BadRequest, match=r"dns\.resolvers") as caught:
            put(by("video.example.com"))
        assert caught.value.field == "domain"


@pytest.mark.parametrize(
    ("domain", "canonical"),
    [
        ("Video.Example.COM.", "video.example.com"),
        ("*.example.com", "*.example.com"),
        ("*.com", "*.com"),
        ("localhost", "localhost"),
        ("_sip.xn--bcher-kva.example", "_sip.xn--bcher-kva.example"),
        ("a" * 63 + ".example", "a" * 63 + ".example"),
    ],
)
def test_a_domain_in_its_one_form(domain, canonical):
    assert by(domain).domain == canonical


@pytest.mark.parametrize(
    "domain",
    ["", ".", "*", "*.", "a..b", "-a.example", "a-.example", "a.*.example", "**.example", "bücher.example",
     "a b.example", "a" * 64 + ".example", ".".join(["a" * 50] * 6), "198.51.100.300", "2001:db8::1", "a/b"],
)  # fmt: skip
def test_what_is_no_domain(domain):
    with pytest.raises(BadRequest) as caught:
        by(domain)
    assert caught.value.field == "domain"


def test_a_domain_that_the_edge_answers():
    body = {"name": "a", "serviceIP": ONE, "domain": "a.example", "applicationIP": APP}
    assert body_of(parse(body)) == body
    for wrong in ({"serviceIP": "203.0.113.0/24"}, {"domain": "*.example"}):
        with pytest.raises(BadRequest) as caught:
            parse({**body, **wrong})
        assert caught.value.field == "domain"
    with pytest.raises(BadRequest, match=r"dns\.server") as caught:
        Catalog(answers=False).put_new(parse(body))
    assert caught.value.field == "domain"
    catalog = Catalog(learns=False)
    catalog.put_new(parse(body))
    known = Known(parse(body))
    assert not known.names.heard(said("a.example", addresses=(TWO,)), 0.0)


def test_address_or_domain():
    for body in ({}, {"domain": 7}):
        with pytest.raises(BadRequest):
            parse({"name": "a", "applicationIP": APP, **body})
    with pytest.raises(BadRequest) as caught:
        checked(Service("a", None, ip_address(APP)))
    assert caught.value.field == "serviceIP"


# --- the agent -----------------------------------------------------------------------------------------------


@pytest.fixture
def world():
    world = World()
    world.hear(uplink(1))
    world.hear(downlink(2))
    world.say(ServiceAdded(by("video.example.com")))
    return world


def index_of(world, event):
    return world.sessions.get(event.key).index


def test_an_answer_in_a_ues_own_tunnel_is_believed(world):
    index = index_of(world, downlink(2))
    assert [type(each) for each in world.say(AnswerSeen(index, UE, said("video.example.com")))] == [Converge]
    assert world.say(AnswerSeen(index, UE, said("video.example.com"))) == []
    facts = Facts(UE, ip_address(ONE).packed, 6, 80, 0, ENB, SGW)
    assert world.agent.services.judged(facts).service.name == "s"
    world.now = 299.0
    assert world.say(AddressesUnused(frozenset({ip_address(ONE).packed}))) == []
    world.now = 300.0
    assert len(world.say(AddressesUnused(frozenset({ip_address(ONE).packed})))) == 1
    assert world.agent.services.judged(facts) is None


def test_an_answer_in_any_other_tunnel_is_not(world):
    world.hear(downlink(3, UE2, ENB2))  # nothing has come from that UE
    world.hear(uplink(5, UE2, ENB))
    world.hear(downlink(6, UE2, ENB))
    world.say(EndMarkerSeen(downlink(6, UE2, ENB).key))
    events = [
        AnswerSeen(99, UE, said("video.example.com")),
        AnswerSeen(index_of(world, uplink(1)), UE, said("video.example.com")),
        AnswerSeen(index_of(world, downlink(2)), UE2, said("video.example.com")),
        AnswerSeen(index_of(world, downlink(2)), UE_V6, said("video.example.com")),
        AnswerSeen(index_of(world, downlink(3, UE2, ENB2)), UE2, said("video.example.com")),
        AnswerSeen(index_of(world, downlink(6, UE2, ENB)), UE2, said("video.example.com")),
    ]
    for number, event in enumerate(events):
        assert world.say(event) == []
        assert world.agent.counts["names_refused_tunnel"] == number + 1
    assert not list(world.agent.services.names.all())


def test_what_is_remembered_is_in_force_at_once(world):
    assert len(world.say(AddressesRecalled((("s", ip_address(ONE), 50.0),)))) == 1
    [held] = world.agent.services.names.of("s")
    assert held == (ip_address(ONE), 50.0)


def test_the_tofs_own_application_comes_and_goes(world):
    own = Service("_dns", ip_address("203.0.113.53"), ip_address("192.168.50.53"))
    world.agent.services.own = (own,)
    assert [len(world.say(OwnApplicationChanged(lives))) for lives in (True, True, False)] == [1, 0, 1]


def test_number_and_addresses_stay_with_the_domain(world):
    plane = world.agent.services
    world.say(AddressesRecalled((("s", ip_address(ONE), 50.0),)))
    number = plane.number(plane.catalog.get("s"))
    world.say(ServiceReplaced("s", by("video.example.com", "t", priority=4)))
    assert plane.number(plane.catalog.get("t")) == number
    assert len(plane.names.of("t")) == 1
    world.say(ServicesReplaced((by("video.example.com", "t"),)))
    assert len(plane.names.of("t")) == 1
    world.say(ServiceReplaced("t", by("*.example.com", "t")))
    assert plane.number(plane.catalog.get("t")) != number
    assert plane.names.of("t") == ()


# --- packets -------------------------------------------------------------------------------------------------

MESSAGE = bytes.fromhex("000181800001000000000000") + b"\1a\7example\0\0\1\0\1"


def packet(message=MESSAGE, *, six=False, port=53, spoil=0, protocol=17, offset=0, more=b"", checksum=True):
    source, destination = (SIX, "2001:db8:45::1") if six else (RESOLVER, "10.45.0.1")
    ends = ip_address(source).packed, ip_address(destination).packed
    segment = encode_udp(UDP(port, 4000, message)) + more
    if checksum:
        segment = fill_checksum(*ends, 17, segment)
    segment = segment[:-1] + bytes((segment[-1] ^ spoil,))
    if six:
        return encode_ipv6(IPv6(*ends, protocol, segment))
    return encode_ipv4(IPv4(*ends, protocol, segment, offset=offset))


def test_an_answer_is_read_from_a_packet():
    for six in (False, True):
        event = observe_answer(7, packet(six=six) + b"trailer")
        ue = ip_address("2001:db8:45::1" if six else "10.45.0.1").packed
        assert event == AnswerSeen(7, ue, Answer(1, ("a.example",), ()))
    assert observe_answer(7, packet(checksum=False)).answer.names == ("a.example",)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "ip_truncated"),
        (b"\x60", "ip_truncated"),
        (packet()[:-1], "ip_length"),
        (packet(protocol=6), "dns_no_answer"),
        (packet(offset=8), "dns_no_answer"),
        (packet(port=5353), "dns_no_answer"),
        (packet(more=b"\0"), "dns_no_answer"),
        (packet(spoil=1), "dns_checksum"),
        (packet(six=True, spoil=1), "dns_checksum"),
        (packet(six=True, checksum=False), "dns_checksum"),
        (packet(MESSAGE[:-1]), "dns_short"),
    ],
)
def test_what_is_no_sound_answer(raw, reason):
    with pytest.raises(DecodeError) as caught:
        observe_answer(7, raw)
    assert caught.value.reason == reason


# --- a model -------------------------------------------------------------------------------------------------

ADDRESSES = tuple(f"203.0.113.{n}" for n in range(1, 6))


class Learning(RuleBasedStateMachine):
    """Against a model that keeps, for each service, what each address was last said to hold until."""

    def __init__(self):
        super().__init__()
        self.known = Known(by("a.example", "a"), by("b.example", "b", priority=1), by("*.b.example", "w"))
        self.now = 0.0
        self.held = {"a": {}, "b": {}, "w": {}}
        self.fixed = set()

    def may_have(self, name, address):
        if address in self.fixed:
            return False
        ranks = {"a": 0, "b": 1, "w": 0}
        return not any(
            address in held and ranks[other] == ranks[name]
            for other, held in self.held.items()
            if other != name
        )

    @rule(
        asked=st.sampled_from("abw"), addresses=st.sets(st.sampled_from(ADDRESSES)), ttl=st.integers(0, 5000)
    )
    def answered(self, asked, addresses, ttl):
        chain = {"a": ["a.example"], "b": ["www.example", "b.example"], "w": ["x.y.b.example", "a.example"]}
        self.known.names.heard(said(*chain[asked], addresses=sorted(addresses), ttl=ttl), self.now)
        for address in addresses:
            held = self.held[asked]
            if address in held or self.may_have(asked, address):
                held[address] = max(held.get(address, 0.0), self.now + min(max(ttl, 60), 3600))

    @rule(seconds=st.integers(1, 2000))
    def time_passes(self, seconds):
        self.now += seconds

    @rule(busy=st.sets(st.sampled_from(ADDRESSES)))
    def reviewed(self, busy):
        overdue = self.known.names.overdue(self.now)
        self.known.names.unused(overdue - {ip_address(each).packed for each in busy}, self.now)
        for held in self.held.values():
            for address in [a for a, until in held.items() if until <= self.now and a not in busy]:
                del held[address]

    @rule(address=st.sampled_from(ADDRESSES))
    def provisioned(self, address):
        if address in self.fixed:
            self.known.catalog.remove(f"f{address}")
            self.fixed.remove(address)
        else:
            self.known.catalog.put_new(at(address, f"f{address}"))
            self.fixed.add(address)
            for held in self.held.values():
                held.pop(address, None)
        self.known.names.keep()

    @invariant()
    def it_is_as_the_model_says(self):
        assert {name: self.known.of(name) for name in self.held} == self.held
        assert {
            name: {str(n.network_address) for n in networks}
            for name, networks in self.known.names.networks.items()
            if networks
        } == {name: set(held) for name, held in self.held.items() if held}


TestLearning = Learning.TestCase
TestLearning.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
