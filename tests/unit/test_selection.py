"""Which service has a packet: the rules against the words they stand for, and what overlaps against a witness."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tof.dataplane.selection import (
    ANY_PORT,
    ANY_PROTOCOL,
    ANY_VLAN,
    Facts,
    downlink_facts,
    judge,
    overlap,
    rank,
    rule_lists,
    rules_of,
    uplink_facts,
)
from tof.model import PortRange, Selection, Service, TunnelKey
from tof.wire.inet import IPv4, IPv6, encode_ipv4, encode_ipv6

APP = ip_address("192.168.50.10")
TCP, UDP, ICMP, OTHER = 6, 17, 1, 253


def packed(text):
    return ip_address(text).packed


def service(name="a", prefix="198.51.100.10/32", priority=0, **selection):
    network = ip_network(prefix)
    length = None if network.prefixlen == network.max_prefixlen else network.prefixlen
    return Service(name, network.network_address, APP, length, Selection(**selection), priority=priority)


def packet(destination="198.51.100.10", protocol=TCP, port=80, ue="10.45.0.2", **more):
    plain = {"dscp": 0, "enb": packed("10.0.0.1"), "sgw": packed("10.0.1.1"), "vlan": 0}
    return Facts(packed(ue), packed(destination), protocol, port, **{**plain, **more})


def judged(services, facts):
    """The name of the service that has the packet."""
    rule = judge(rule_lists(services), facts)
    return rule and rule.service.name


def ports(*ranges):
    return tuple(PortRange(first, last) for first, last in ranges)


# --- facts -------------------------------------------------------------------------------------------------

UP, DOWN = (
    TunnelKey(packed("10.0.0.1"), packed("10.0.1.1"), 7, 5),
    TunnelKey(packed("10.0.1.1"), packed("10.0.0.1"), 8),
)


def datagram(source, destination, protocol=UDP, tos=0xB9, **more):
    segment = bytes((0x0F, 0xA0, 0x00, 0x35)) + bytes(8)
    ends = packed(source), packed(destination)
    if len(ends[0]) == 4:
        return encode_ipv4(IPv4(*ends, protocol, segment, tos=tos, **more))
    return encode_ipv6(IPv6(*ends, protocol, segment, tos=tos, **more))


@pytest.mark.parametrize(
    ("ue", "server"), [("10.45.0.2", "198.51.100.10"), ("2001:db8:45::2", "2001:db8::10")]
)
def test_the_facts_of_a_packet_and_of_its_answer(ue, server):
    nodes = {"enb": packed("10.0.0.1"), "sgw": packed("10.0.1.1")}
    asked = uplink_facts(UP, datagram(ue, server))
    assert asked == Facts(packed(ue), packed(server), UDP, 53, 46, **nodes, vlan=5)
    answer = downlink_facts(DOWN, datagram(server, ue))
    assert answer == Facts(packed(ue), packed(server), UDP, 4000, 46, **nodes)
    assert uplink_facts(UP, datagram(ue, server, protocol=50)).port is None
    assert uplink_facts(UP, datagram(ue, server)[: -len(bytes(10))]).port is None


def test_fragments_show_their_port_first():
    first = uplink_facts(UP, datagram("10.45.0.2", "198.51.100.10", flags=1))
    later = uplink_facts(UP, datagram("10.45.0.2", "198.51.100.10", offset=64))
    assert (first.port, first.later, later.port, later.later) == (53, False, None, True)
    for offset, port in ((0, 53), (64, None)):
        header = bytes((UDP, 0)) + (offset | 1).to_bytes(2, "big") + bytes(4)
        facts = uplink_facts(UP, datagram("2001:db8:45::2", "2001:db8::10", next_header=44, headers=header))
        assert (facts.protocol, facts.port, facts.later) == (UDP, port, offset > 0)


def test_a_later_fragment_is_nobodys_where_its_port_would_decide():
    by_port = service("web", protocol=UDP, ports=ports((53, 53)))
    anything = service("all", priority=-1)
    assert judged([by_port, anything], packet(protocol=UDP, port=None, later=True)) is None
    assert judged([by_port, anything], packet(protocol=TCP, port=None, later=True)) == "all"


def test_a_prefix_has_no_address_that_is_no_servers():
    everything = service("all", "0.0.0.0/0")
    assert judged([everything], packet("8.8.8.8")) == "all"
    for to in ("224.0.0.5", "255.255.255.255", "127.0.0.1", "169.254.1.1", "0.0.0.1"):
        assert judged([everything], packet(to)) is None
    assert judged([service("six", "::/0")], packet("ff02::1", ue="2001:db8:45::2")) is None


# --- one service -------------------------------------------------------------------------------------------


def test_a_plain_service_is_one_rule_that_selects_all():
    [rule] = rules_of(service())
    assert (rule.protocol, rule.ports, rule.vlan) == (ANY_PROTOCOL, ANY_PORT, ANY_VLAN)
    assert not rule.looks_at_ports
    assert rule.holds(packet(protocol=ICMP, port=None))


def test_ports_and_vlans_multiply_into_rules():
    rules = list(rules_of(service(protocol=TCP, ports=ports((80, 80), (443, 445)), vlans=frozenset({7, 0}))))
    assert [(r.ports, r.vlan) for r in rules] == list(product(ports((80, 80), (443, 445)), (0, 7)))
    assert all(r.looks_at_ports for r in rules)


@pytest.mark.parametrize(
    ("selection", "suits", "suits_not"),
    [
        ({"protocol": TCP}, [{}, {"port": None}], [{"protocol": UDP}]),
        (
            {"protocol": TCP, "ports": ports((80, 82))},
            [{"port": 80}, {"port": 82}],
            [{"port": 79}, {"port": 83}, {"port": None}, {"protocol": UDP}],
        ),
        ({"ports": ports((80, 80))}, [{"protocol": 132}], [{"protocol": ICMP}, {"protocol": OTHER}]),
        ({"dscps": frozenset({46, 10})}, [{"dscp": 46}, {"dscp": 10}], [{"dscp": 0}]),
        ({"vlans": frozenset({0})}, [{}], [{"vlan": 100}]),
        ({"vlans": frozenset({0, 100})}, [{}, {"vlan": 100}], [{"vlan": 101}]),
        (
            {"ues": (ip_network("10.45.0.0/24"), ip_network("10.46.0.1/32"))},
            [{"ue": "10.45.0.255"}, {"ue": "10.46.0.1"}],
            [{"ue": "10.45.1.0"}, {"ue": "2001:db8::1"}],
        ),
        ({"enbs": (ip_network("10.0.0.1/32"),)}, [{}], [{"enb": packed("10.0.0.2")}]),
        ({"sgws": (ip_network("2001:db8::/32"),)}, [{"sgw": packed("2001:db8::9")}], [{}]),
    ],
)
def test_each_word_of_a_selection(selection, suits, suits_not):
    services = [service(**selection)]
    for change in suits:
        assert judged(services, packet(**change)) == "a", change
    for change in suits_not:
        assert judged(services, packet(**change)) is None, change


# --- several services --------------------------------------------------------------------------------------


def test_what_goes_nowhere_near_is_nobodys():
    assert judged([], packet()) is None
    assert judged([service()], packet("198.51.100.11")) is None
    assert judged([service(prefix="0.0.0.0/0")], packet("2001:db8::1", ue="2001:db8:1::1")) is None


def test_the_longest_prefix_has_a_packet_and_the_one_around_it_what_it_leaves():
    around = service("around", "198.51.100.0/24")
    inside = service("inside", protocol=TCP, ports=ports((443, 443)))
    everything = service("everything", "0.0.0.0/0")
    services = [everything, around, inside]
    assert judged(services, packet(port=443)) == "inside"
    assert judged(services, packet(port=80)) == "around"
    assert judged(services, packet("198.51.100.11", port=443)) == "around"
    assert judged(services, packet("203.0.113.1")) == "everything"


def test_priority_goes_before_the_length_of_the_prefix():
    around = service("around", "198.51.100.0/24", priority=1, protocol=UDP)
    services = [service("inside"), around]
    assert judged(services, packet(protocol=UDP)) == "around"
    assert judged(services, packet(protocol=TCP)) == "inside"
    assert sorted(services, key=rank) == [around, service("inside")]


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ({}, {}, True),
        ({}, {"prefix": "198.51.100.11/32"}, False),
        ({"prefix": "198.51.100.0/24"}, {"prefix": "198.51.100.0/25"}, False),
        ({"prefix": "198.51.100.0/24"}, {"prefix": "198.51.101.0/24"}, False),
        ({}, {"priority": 1}, False),
        ({}, {"protocol": TCP}, True),
        ({"protocol": UDP}, {"protocol": TCP}, False),
        (
            {"protocol": TCP, "ports": ports((80, 90))},
            {"protocol": TCP, "ports": ports((1, 2), (90, 91))},
            True,
        ),
        (
            {"protocol": TCP, "ports": ports((80, 90))},
            {"protocol": TCP, "ports": ports((1, 79), (91, 95))},
            False,
        ),
        ({"protocol": TCP, "ports": ports((80, 90))}, {"protocol": TCP}, True),
        ({"dscps": frozenset({1, 2})}, {"dscps": frozenset({2, 3})}, True),
        ({"dscps": frozenset({1, 2})}, {"dscps": frozenset({3})}, False),
        ({"vlans": frozenset({0})}, {"vlans": frozenset({100})}, False),
        ({"ues": (ip_network("10.45.0.0/16"),)}, {"ues": (ip_network("10.45.7.0/24"),)}, True),
        ({"ues": (ip_network("10.45.0.0/24"),)}, {"ues": (ip_network("10.45.7.0/24"),)}, False),
        ({"enbs": (ip_network("10.0.0.1/32"),)}, {"enbs": (ip_network("2001:db8::/32"),)}, False),
        ({"enbs": (ip_network("10.0.0.1/32"),)}, {"sgws": (ip_network("10.0.1.1/32"),)}, True),
    ],
)
def test_what_overlaps(one, other, expected):
    assert overlap(service("a", **one), service("b", **other)) is expected
    assert overlap(service("b", **other), service("a", **one)) is expected


# --- against brute force -----------------------------------------------------------------------------------


def within(address, networks):
    """Whether an address lies in one of the prefixes, by its bits; none given: always."""
    bits = "".join(f"{octet:08b}" for octet in address)
    return not networks or any(
        len(bits) == n.max_prefixlen
        and bits.startswith("".join(f"{o:08b}" for o in n.network_address.packed)[: n.prefixlen])
        for n in networks
    )


def port_is_in(facts, ranges):
    """Whether a packet's port is one of these; a packet that has none is not selected by ports."""
    if not ranges:
        return True
    numbers = {number for first, last in ranges for number in range(first, last + 1)}
    return facts.protocol in (6, 17, 132) and facts.port in numbers


TESTS = {
    "destination": lambda service, facts: within(facts.destination, [service.network]),
    "protocol": lambda service, facts: service.selection.protocol in (None, facts.protocol),
    "port": lambda service, facts: port_is_in(facts, service.selection.ports),
    "dscp": lambda service, facts: not service.selection.dscps or facts.dscp in service.selection.dscps,
    "vlan": lambda service, facts: not service.selection.vlans or facts.vlan in service.selection.vlans,
    "ue": lambda service, facts: within(facts.ue, service.selection.ues),
    "enb": lambda service, facts: within(facts.enb, service.selection.enbs),
    "sgw": lambda service, facts: within(facts.sgw, service.selection.sgws),
}


def selects(service, facts):
    return all(test(service, facts) for test in TESTS.values())


def brute_force(services, facts):
    """Whom the packet belongs to, straight from the words: priority, then prefix, then name."""
    mine = [s for s in services if selects(s, facts)]
    order = {s.name: (-s.priority, -s.network.prefixlen, s.name) for s in mine}
    return min(order, key=order.get, default=None)


def some(*networks):
    return st.lists(st.sampled_from([ip_network(n) for n in networks]), max_size=2).map(tuple)


def subset(*numbers):
    return st.frozensets(st.sampled_from(numbers), max_size=2)


PREFIXES = [
    "198.51.100.10/32",
    "198.51.100.11/32",
    "198.51.100.0/28",
    "198.51.100.0/24",
    "0.0.0.0/0",
    "2001:db8::1/128",
    "2001:db8::/32",
    "::/0",
]
RANGES = [(80, 80), (80, 90), (85, 95), (443, 443), (1, 65535)]
SELECTIONS = st.builds(
    Selection,
    protocol=st.sampled_from([None, TCP, UDP, ICMP]),
    dscps=subset(0, 10, 46),
    ues=some("10.45.0.0/16", "10.45.0.2/32", "10.46.0.0/16", "2001:db8:1::/64", "2001:db8:2::/64"),
    enbs=some("10.0.0.1/32", "10.0.0.0/24", "2001:db8:e::/64"),
    sgws=some("10.0.1.1/32", "10.0.1.0/24", "2001:db8:f::/64"),
    vlans=subset(0, 100, 200),
)
PORTS = st.lists(st.sampled_from(RANGES), max_size=2).map(lambda ranges: ports(*ranges))


@st.composite
def services(draw, name, prefixes=PREFIXES):
    selection = draw(st.just(Selection()) | SELECTIONS)
    if selection.protocol in (TCP, UDP):
        selection = replace(selection, ports=draw(PORTS))
    found = service(name, draw(st.sampled_from(prefixes)), draw(st.integers(0, 1)))
    return replace(found, selection=selection)


CATALOGS = st.lists(st.sampled_from("abcdefgh"), unique=True).flatmap(
    lambda names: st.tuples(*(services(name) for name in names))
)
FACTS = st.builds(
    Facts,
    ue=st.sampled_from(["10.45.0.2", "10.45.9.9", "10.46.0.1", "10.47.0.1", "2001:db8:1::5"]).map(packed),
    destination=st.sampled_from(
        [
            "198.51.100.10",
            "198.51.100.11",
            "198.51.100.12",
            "198.51.100.99",
            "8.8.8.8",
            "2001:db8::1",
            "2001:db9::",
        ]
    ).map(packed),
    protocol=st.sampled_from([TCP, UDP, ICMP, OTHER]),
    port=st.sampled_from([None, 1, 79, 80, 85, 90, 95, 443, 65535]),
    dscp=st.sampled_from([0, 10, 46]),
    enb=st.sampled_from(["10.0.0.1", "10.0.0.2", "2001:db8:e::1"]).map(packed),
    sgw=st.sampled_from(["10.0.1.1", "10.0.1.2", "2001:db8:f::1"]).map(packed),
    vlan=st.sampled_from([0, 100, 300]),
    later=st.just(False),  # what does not show its port has none
)


@given(CATALOGS, st.lists(FACTS, min_size=1, max_size=10))
def test_the_rules_judge_as_the_words_say(catalog, packets):
    lists = rule_lists(catalog)
    for facts in packets:
        rule = judge(lists, facts)
        assert (rule and rule.service.name) == brute_force(catalog, facts)
        assert rule is None or (rule.holds(facts) and rule in tuple(rules_of(rule.service)))


def witness(one, other):
    """A packet that both select, None: there is none.

    Two sets of one kind (ranges, prefixes, numbers) have something in common exactly if they have a first number or a
    network address of one of them in common, so that trying these is trying all.
    """
    both = (one.selection, other.selection)

    def firsts(field, otherwise):
        networks = [n for selection in both for n in getattr(selection, field)]
        return {n.network_address.packed for n in networks} | {packed(otherwise)}

    candidates = {
        "ue": firsts("ues", "10.99.0.1"),
        "destination": {s.service_ip.packed for s in (one, other)},
        "protocol": {s.protocol for s in both if s.protocol is not None} | {OTHER},
        "port": {first for s in both for first, _ in s.ports} | {1},
        "dscp": {number for s in both for number in s.dscps} | {1},
        "enb": firsts("enbs", "10.99.0.2"),
        "sgw": firsts("sgws", "10.99.0.3"),
        "vlan": {number for s in both for number in s.vlans} | {1},
    }
    for field, values in candidates.items():
        if field != "port":  # whether a port suits depends on the protocol
            start = packet()._replace
            values -= {
                v for v in values if not all(TESTS[field](s, start(**{field: v})) for s in (one, other))
            }
    for values in product(*candidates.values()):
        facts = Facts(**dict(zip(candidates, values, strict=True)))
        if selects(one, facts) and selects(other, facts):
            return facts
    return None


@given(services("a", PREFIXES[:4]), services("b", PREFIXES[:4]))
def test_services_overlap_exactly_if_some_packet_is_both_s_alike(one, other):
    alike = (one.priority, one.network.prefixlen) == (other.priority, other.network.prefixlen)
    assert overlap(one, other) == overlap(other, one) == (alike and witness(one, other) is not None)


@given(services("a", PREFIXES[:1]), services("b", PREFIXES[:1]))
def test_services_of_one_address_overlap_exactly_if_some_packet_is_both_s(one, other):
    one, other = replace(one, priority=0), replace(other, priority=0)
    assert overlap(one, other) == (witness(one, other) is not None)
