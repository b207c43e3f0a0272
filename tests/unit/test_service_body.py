"""A service as JSON and as a value: what is taken, what is refused, and the one form of what is equal."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tof.agent.service_body import FIELDS, body_of, parse
from tof.agent.service_check import checked
from tof.errors import BadRequest
from tof.model import (
    HealthCheck,
    Hours,
    Initiates,
    Mirror,
    Mode,
    OnDeath,
    PortRange,
    ProbeKind,
    Selection,
    Service,
    Spread,
    SpreadBy,
    probe_port,
)

PLAIN = {"name": "video", "serviceIP": "198.51.100.10", "applicationIP": "192.168.50.10"}
SIX = {"name": "six", "serviceIP": "2001:db8::1", "applicationIP": "2001:db8::2"}


def shown(**fields):
    """What comes back for fields that are put on top of a plain service, beyond the plain service."""
    body = body_of(parse({**PLAIN, **fields}))
    return {field: value for field, value in body.items() if PLAIN.get(field) != value}


def test_a_plain_service_comes_back_byte_for_byte():
    assert list(body_of(parse(PLAIN)).items()) == list(PLAIN.items())
    assert list(body_of(parse(SIX)).items()) == list(SIX.items())


def test_every_field_becomes_a_part_of_the_value():
    body = {
        "name": "games",
        "serviceIP": "203.0.113.0/24",
        "applicationIP": "203.0.113.9",
        "protocol": "udp",
        "ports": [3478],
        "applicationPort": 3479,
        "dscp": [46, 0],
        "vlans": [100, 0],
        "ues": ["10.45.0.0/16"],
        "enbs": ["2001:db8::7", "10.0.0.1"],
        "sgws": ["10.0.1.0/24"],
        "priority": -3,
        "mode": "shadow",
        "health": {"kind": "icmp", "fall": 5},
        "chain": "inspected",
        "hours": ["Mon-Fri 08:00-18:00"],
        "mirror": {"interface": "mon0"},
        "spread": {"applications": ["203.0.113.10", "203.0.113.11"], "by": "flow", "onDeath": "core"},
        "initiates": "none",
    }
    assert (*body, "domain") == (*(each for each in FIELDS if each != "domain"), "domain")
    assert parse(body) == Service(
        "games",
        ip_address("203.0.113.0"),
        ip_address("203.0.113.9"),
        24,
        Selection(
            17,
            (PortRange(3478, 3478),),
            frozenset({0, 46}),
            (ip_network("10.45.0.0/16"),),
            (ip_network("10.0.0.1"), ip_network("2001:db8::7")),
            (ip_network("10.0.1.0/24"),),
            frozenset({0, 100}),
        ),
        3479,
        -3,
        Mode.SHADOW,
        HealthCheck(ProbeKind.ICMP, fall=5),
        chain="inspected",
        hours=(Hours((0, 1, 2, 3, 4), 480, 1080),),
        mirror=Mirror("mon0"),
        spread=Spread((ip_address("203.0.113.10"), ip_address("203.0.113.11")), SpreadBy.FLOW, OnDeath.CORE),
        initiates=Initiates.NONE,
    )
    assert list(body_of(parse(body))) == list(body)


@pytest.mark.parametrize(
    ("fields", "canonical"),
    [
        ({"serviceIP": "198.51.100.10/32"}, {}),
        ({"serviceIP": "::ffff:198.51.100.10/128"}, {}),
        ({"serviceIP": "203.0.113.0/24"}, {"serviceIP": "203.0.113.0/24"}),
        ({"serviceIP": "::ffff:203.0.113.0/120"}, {"serviceIP": "203.0.113.0/24"}),
        ({"serviceIP": "::ffff:0:0/96"}, {"serviceIP": "0.0.0.0/0"}),
        ({"serviceIP": "0.0.0.0/0"}, {"serviceIP": "0.0.0.0/0"}),
        ({"serviceIP": "0.0.0.0/1"}, {"serviceIP": "0.0.0.0/1"}),
        ({"serviceIP": "192.0.0.0/2"}, {"serviceIP": "192.0.0.0/2"}),
        ({"serviceIP": "192.168.50.0/24"}, {"serviceIP": "192.168.50.0/24"}),
        ({"protocol": "tcp"}, {"protocol": "tcp"}),
        ({"protocol": 17}, {"protocol": "udp"}),
        ({"protocol": 132}, {"protocol": "sctp"}),
        ({"protocol": "icmp"}, {"protocol": "icmp"}),
        ({"protocol": 1}, {"protocol": "icmp"}),
        ({"protocol": 58}, {"protocol": 58}),
        ({"protocol": 0}, {"protocol": 0}),
        ({"ports": []}, {}),
        ({"protocol": "tcp", "ports": [443, 80, 443]}, {"protocol": "tcp", "ports": [80, 443]}),
        ({"protocol": "tcp", "ports": [82, "80-81", 90]}, {"protocol": "tcp", "ports": ["80-82", 90]}),
        ({"protocol": "tcp", "ports": ["1-65535", 5]}, {"protocol": "tcp", "ports": ["1-65535"]}),
        ({"protocol": "sctp", "ports": ["9-9"]}, {"protocol": "sctp", "ports": [9]}),
        (
            {"protocol": "tcp", "ports": [80, 80], "applicationPort": 80},
            {"protocol": "tcp", "ports": [80], "applicationPort": 80},
        ),
        ({"dscp": [46, 0, 46]}, {"dscp": [0, 46]}),
        ({"dscp": [], "vlans": [], "ues": [], "enbs": [], "sgws": []}, {}),
        ({"vlans": [4094, 0]}, {"vlans": [0, 4094]}),
        (
            {"ues": ["10.45.0.2/32", "10.45.0.0/16", "::ffff:10.45.0.2"]},
            {"ues": ["10.45.0.0/16", "10.45.0.2"]},
        ),
        (
            {"enbs": ["2001:DB8::/32", "10.0.0.2", "10.0.0.1"]},
            {"enbs": ["10.0.0.1", "10.0.0.2", "2001:db8::/32"]},
        ),
        ({"sgws": ["10.0.0.0/8", "10.0.0.0/16"]}, {"sgws": ["10.0.0.0/8", "10.0.0.0/16"]}),
        ({"priority": 0, "mode": "divert"}, {}),
        ({"priority": -1000, "mode": "shadow"}, {"priority": -1000, "mode": "shadow"}),
    ],
)
def test_equal_services_have_one_form(fields, canonical):
    assert shown(**fields) == canonical


def test_icmp_is_of_the_family_of_the_service():
    assert parse({**SIX, "protocol": "icmp"}).selection.protocol == 58
    assert parse({**PLAIN, "protocol": "icmp"}).selection.protocol == 1
    mapped = {**PLAIN, "serviceIP": "::ffff:203.0.113.0/120", "protocol": "icmp"}
    assert parse(mapped).selection.protocol == 1
    assert body_of(parse({**SIX, "protocol": 58}))["protocol"] == "icmp"
    assert body_of(parse({**SIX, "protocol": 1}))["protocol"] == 1


def test_everything_is_a_prefix_of_either_family():
    assert parse({**SIX, "serviceIP": "::/0"}).network == ip_network("::/0")
    assert parse({**PLAIN, "serviceIP": "0.0.0.0/0"}).network == ip_network("0.0.0.0/0")


@pytest.mark.parametrize(
    ("fields", "field", "says"),
    [
        ({"serviceIP": "203.0.113.7/24"}, "serviceIP", "203.0.113.0/24 is the prefix, 203.0.113.7 the one"),
        ({"serviceIP": "::ffff:203.0.113.7/120"}, "serviceIP", "203.0.113.0/24 is the prefix"),
        ({"serviceIP": "203.0.113.0/33"}, "serviceIP", "no longer than /32"),
        ({"serviceIP": "203.0.113.0/024"}, "serviceIP", "neither"),
        ({"serviceIP": "203.0.113.0/255.255.255.0"}, "serviceIP", "neither"),
        ({"serviceIP": "203.0.113.0/"}, "serviceIP", "neither"),
        ({"serviceIP": "/24"}, "serviceIP", "neither"),
        ({"serviceIP": "fe80::%eth0/64"}, "serviceIP", "neither"),
        ({"serviceIP": "224.0.0.0/4"}, "serviceIP", "multicast"),
        ({"serviceIP": "239.1.0.0/16"}, "serviceIP", "multicast"),
        ({"serviceIP": "127.0.0.0/8"}, "serviceIP", "loopback"),
        ({"serviceIP": "0.0.0.0/8"}, "serviceIP", "unspecified"),
        ({"serviceIP": "0.0.0.0/32"}, "serviceIP", "unspecified"),
        ({"serviceIP": "fe80::/10"}, "serviceIP", "link-local"),
        ({"serviceIP": "ff00::/8"}, "serviceIP", "multicast"),
        ({"serviceIP": "255.255.255.255/32"}, "serviceIP", "broadcast"),
        ({"serviceIP": "2001:db8::/32"}, "applicationIP", "families"),
        ({"applicationIP": "192.168.50.0/24"}, "applicationIP", "not an IP address"),
        ({"protocol": "TCP"}, "protocol", "neither tcp"),
        ({"protocol": "6"}, "protocol", "neither tcp"),
        ({"protocol": 256}, "protocol", "256 is not between 0 and 255"),
        ({"protocol": -1}, "protocol", "between"),
        ({"protocol": True}, "protocol", "whole"),
        ({"protocol": 6.0}, "protocol", "whole"),
        ({"protocol": None}, "protocol", "whole"),
        ({"ports": [80]}, "ports", "tcp, udp or sctp"),
        ({"ports": [80], "protocol": "icmp"}, "ports", "tcp, udp or sctp"),
        ({"ports": 80, "protocol": "tcp"}, "ports", "not a list"),
        ({"ports": [0], "protocol": "tcp"}, "ports", "0 is not between 1 and 65535"),
        ({"ports": [65536], "protocol": "tcp"}, "ports", "65536"),
        ({"ports": ["80-65536"], "protocol": "tcp"}, "ports", "65536"),
        ({"ports": ["90-80"], "protocol": "tcp"}, "ports", "ends before it begins"),
        ({"ports": ["80"], "protocol": "tcp"}, "ports", "8000-8100"),
        ({"ports": ["-80"], "protocol": "tcp"}, "ports", "8000-8100"),
        ({"ports": ["80 - 90"], "protocol": "tcp"}, "ports", "8000-8100"),
        ({"ports": [True], "protocol": "tcp"}, "ports", "whole"),
        ({"ports": [[80]], "protocol": "tcp"}, "ports", "whole"),
        ({"ports": list(range(1, 131, 2)), "protocol": "tcp"}, "ports", "65 entries, more than 64"),
        (
            {"ports": list(range(1, 66, 2)), "vlans": list(range(9)), "protocol": "tcp"},
            "ports",
            "33 x 9 combinations, more than 256",
        ),
        ({"applicationPort": 80}, "applicationPort", "exactly one port"),
        ({"applicationPort": 80, "ports": [80, 82], "protocol": "tcp"}, "applicationPort", "exactly one"),
        ({"applicationPort": 80, "ports": ["80-81"], "protocol": "tcp"}, "applicationPort", "exactly one"),
        ({"applicationPort": 0, "ports": [80], "protocol": "tcp"}, "applicationPort", "between 1"),
        ({"applicationPort": "80", "ports": [80], "protocol": "tcp"}, "applicationPort", "whole"),
        ({"dscp": [64]}, "dscp", "64 is not between 0 and 63"),
        ({"dscp": ["46"]}, "dscp", "whole"),
        ({"dscp": 46}, "dscp", "not a list"),
        ({"vlans": [4095]}, "vlans", "4095"),
        ({"vlans": list(range(65))}, "vlans", "65 entries"),
        ({"ues": ["2001:db8::/32"]}, "ues", "family of applicationIP"),
        ({"ues": ["10.45.0.1/16"]}, "ues", "10.45.0.0/16 is the prefix"),
        ({"ues": [7]}, "ues", "neither"),
        ({"ues": "10.45.0.1"}, "ues", "not a list"),
        ({"ues": [f"10.45.0.{n}" for n in range(65)]}, "ues", "65 entries"),
        ({"enbs": ["enb.example"]}, "enbs", "neither"),
        ({"sgws": ["10.0.0.0/33"]}, "sgws", "no longer than /32"),
        ({"priority": 1001}, "priority", "between -1000 and 1000"),
        ({"priority": "high"}, "priority", "whole"),
        ({"mode": "mirror"}, "mode", "divert nor shadow"),
        ({"mode": ["shadow"]}, "mode", "divert nor shadow"),
        ({"port": 80}, "port", "not a field"),
    ],
)
def test_a_refusal_names_the_field_and_says_why(fields, field, says):
    with pytest.raises(BadRequest, match=says) as caught:
        parse({**PLAIN, **fields})
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("fields", "canonical"),
    [
        ({"prefix_length": 32}, {"prefix_length": None}),
        ({"service_ip": ip_address("::ffff:198.51.100.10")}, {}),
        (
            {"service_ip": ip_address("::ffff:198.51.100.0"), "prefix_length": 120},
            {"service_ip": ip_address("198.51.100.0"), "prefix_length": 24},
        ),
        (
            {"selection": Selection(ues=(ip_network("::ffff:10.45.0.0/112"),))},
            {"selection": Selection(ues=(ip_network("10.45.0.0/16"),))},
        ),
    ],
)
def test_values_are_brought_into_the_form_that_bodies_have(fields, canonical):
    plain = {
        "name": "video",
        "service_ip": ip_address("198.51.100.10"),
        "application_ip": ip_address("192.168.50.10"),
    }
    assert checked(Service(**{**plain, **fields})) == Service(**{**plain, **canonical})


@pytest.mark.parametrize("length", [24, 33, -1])
def test_a_value_with_an_impossible_prefix_is_refused(length):
    wrong = Service("video", ip_address("198.51.100.10"), ip_address("192.168.50.10"), length)
    with pytest.raises(BadRequest) as caught:
        checked(wrong)
    assert caught.value.field == "serviceIP"


PORTS = st.integers(1, 65535)
PORT_ENTRIES = PORTS | st.tuples(PORTS, PORTS).map(lambda ends: f"{min(ends)}-{max(ends)}")


@st.composite
def prefixes(draw, version):
    # The first bit set: an IPv4-mapped one would be of the other family.
    bits, network_class = (32, IPv4Network) if version == 4 else (128, IPv6Network)
    length = draw(st.integers(0, bits))
    number = draw(st.integers(2 ** (bits - 1), 2**bits - 1)) >> (bits - length) << (bits - length)
    network = network_class((number, length))
    return draw(st.sampled_from([str(network), network.exploded]))


@st.composite
def bodies(draw):
    version = draw(st.sampled_from([4, 6]))
    # What begins like this is neither multicast, loopback, link-local nor unspecified.
    start = "198.18.0.0/15" if version == 4 else "2001:db8::/32"
    inside = draw(st.integers(ip_network(start).prefixlen, ip_network(start).max_prefixlen))
    body = {
        "name": draw(st.from_regex(r"[a-z][a-z0-9._-]{0,8}", fullmatch=True)),
        "serviceIP": str(ip_network((ip_network(start).network_address, inside))),
        "applicationIP": "192.168.50.10" if version == 4 else "2001:db8:1::1",
        "protocol": draw(st.sampled_from(["tcp", "udp", "sctp", 6, 17, 132])),
        "ports": draw(st.lists(PORT_ENTRIES, max_size=8)),
        "dscp": draw(st.lists(st.integers(0, 63), max_size=8)),
        "vlans": draw(st.lists(st.integers(0, 4094), max_size=8)),
        "ues": draw(st.lists(prefixes(version), max_size=4)),
        "enbs": draw(st.lists(prefixes(4) | prefixes(6), max_size=4)),
        "sgws": draw(st.lists(prefixes(4) | prefixes(6), max_size=4)),
        "priority": draw(st.integers(-1000, 1000)),
        "mode": draw(st.sampled_from(["divert", "shadow"])),
    }
    if draw(st.booleans()):
        body |= {"ports": [draw(PORTS)], "applicationPort": draw(PORTS)}
    elif draw(st.booleans()):
        body |= {"ports": [], "protocol": draw(st.integers(0, 255) | st.just("icmp"))}
    given_fields = draw(
        st.sets(st.sampled_from(["dscp", "vlans", "ues", "enbs", "sgws", "priority", "mode"]))
    )
    always = {"name", "serviceIP", "applicationIP", "protocol", "ports", "applicationPort"}
    return {field: value for field, value in body.items() if field in always | given_fields}


@given(bodies())
def test_what_is_shown_is_read_back_as_the_same_service(body):
    service = parse(body)
    assert parse(body_of(service)) == service
    assert checked(service) == service
    assert body_of(parse(body_of(service))) == body_of(service)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["tcp", "80-90", "::/0"]),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@given(bodies(), st.dictionaries(st.sampled_from(FIELDS) | st.text(), JSON))
def test_whatever_is_sent_is_a_service_or_a_bad_request_that_names_a_field(body, junk):
    refused = None
    try:
        service = parse({**body, **junk})
    except BadRequest as error:
        refused = error
    if refused is None:
        assert parse(body_of(service)) == service
    else:
        assert refused.field in (*FIELDS, *junk)


@given(bodies(), st.randoms())
def test_order_and_repetition_make_no_difference(body, random):
    other = {}
    for field, value in random.sample(list(body.items()), len(body)):
        other[field] = random.sample(value * 2, len(value) * 2) if isinstance(value, list) else value
    assert parse(other) == parse(body)
    assert hash(parse(other)) == hash(parse(body))


HEALTH = {
    "kind": "http",
    "port": 8080,
    "path": "/healthz",
    "interval": 0.5,
    "timeout": 2.0,
    "fall": 2,
    "rise": 1,
}


def test_a_health_check_there_and_back():
    for health in (HEALTH, {"kind": "icmp"}, {"kind": "tcp", "port": 80}):
        body = {**PLAIN, "health": health}
        assert body_of(parse(body)) == body
    assert parse({**PLAIN, "health": HEALTH}).health == HealthCheck(
        ProbeKind.HTTP, 8080, "/healthz", 0.5, 2.0, 2, 1
    )


def test_a_probe_asks_the_application_s_port_unless_told_another():
    web = {**PLAIN, "protocol": "tcp", "ports": [80]}
    for body, port in (
        (web | {"health": {"kind": "tcp"}}, 80),
        (web | {"applicationPort": 8080, "health": {"kind": "tcp"}}, 8080),
        (web | {"health": {"kind": "tcp", "port": 81}}, 81),
        (PLAIN | {"health": {"kind": "icmp"}}, None),
    ):
        assert probe_port(parse(body)) == port


@pytest.mark.parametrize(
    ("health", "field"),
    [
        ("tcp", "health"),
        ({}, "health.kind"),
        ({"kind": "smtp"}, "health.kind"),
        ({"kind": "tcp", "port": 80, "colour": 1}, "health.colour"),
        ({"kind": "tcp"}, "health.port"),
        ({"kind": "tcp", "port": 0}, "health.port"),
        ({"kind": "tcp", "port": "80"}, "health.port"),
        ({"kind": "http", "port": 80, "path": "healthz"}, "health.path"),
        ({"kind": "http", "port": 80, "path": 5}, "health.path"),
        ({"kind": "http", "port": 80, "path": "/a b"}, "health.path"),
        ({"kind": "icmp", "interval": 0}, "health.interval"),
        ({"kind": "icmp", "interval": True}, "health.interval"),
        ({"kind": "icmp", "timeout": 61}, "health.timeout"),
        ({"kind": "icmp", "fall": 0}, "health.fall"),
        ({"kind": "icmp", "rise": 1.5}, "health.rise"),
    ],
)
def test_a_health_check_that_cannot_be_names_its_field(health, field):
    with pytest.raises(BadRequest) as refused:
        parse({**PLAIN, "health": health})
    assert refused.value.field == field


@pytest.mark.parametrize("mirror", [{"interface": "mon0.7"}, {"file": "video-1.x"}])
def test_a_mirror_there_and_back(mirror):
    body = {**PLAIN, "mirror": mirror}
    assert body_of(parse(body)) == body
    assert parse(body).mirror == Mirror(**mirror)


@pytest.mark.parametrize(
    ("mirror", "field"),
    [
        ("mon0", "mirror"),
        ({}, "mirror"),
        ({"interface": "mon0", "file": "video"}, "mirror"),
        ({"interface": ""}, "mirror"),
        ({"port": 3}, "mirror.port"),
        ({"interface": 3}, "mirror.interface"),
        ({"file": None}, "mirror.file"),
        ({"interface": "a b"}, "mirror.interface"),
        ({"interface": "a234567890123456"}, "mirror.interface"),
        ({"file": "../video"}, "mirror.file"),
        ({"file": ".video"}, "mirror.file"),
        ({"file": "v" * 64}, "mirror.file"),
        ({"file": "video\n"}, "mirror.file"),
    ],
)
def test_a_mirror_that_cannot_be_names_its_field(mirror, field):
    with pytest.raises(BadRequest) as refused:
        parse({**PLAIN, "mirror": mirror})
    assert refused.value.field == field
