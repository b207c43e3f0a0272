"""Which of a service's applications a flow goes to; the programs in the kernel are held to it in netns/test_fuzz_kernel."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tof.agent.service_body import body_of, parse
from tof.agent.spread_body import MOST
from tof.dataplane.desired import ServedApplication
from tof.dataplane.spreading import SLOTS, FlowEnds, ends_of, slot_of, slots
from tof.errors import BadRequest
from tof.model import OnDeath, Spread, SpreadBy

PLAIN = {"name": "video", "serviceIP": "198.51.100.10", "applicationIP": "192.168.50.10"}
ADDRESSES = [ip_address(f"192.168.50.{n}") for n in range(10, 18)]
living = st.lists(st.booleans(), min_size=1, max_size=8).map(
    lambda lives: [ServedApplication(ADDRESSES[n], 100 + n, one) for n, one in enumerate(lives)]
)


def spread(by: SpreadBy = SpreadBy.UE, on_death: OnDeath = OnDeath.NEXT) -> Spread:
    return Spread(tuple(ADDRESSES[1:]), by, on_death)


@given(living)
def test_in_order_the_first_one_that_lives_has_all(applications):
    first = next((one.number for one in applications if one.lives), 0)
    assert set(slots(applications, spread(SpreadBy.ORDER))) == {first}


@given(living, st.data())
def test_a_death_moves_the_flows_of_the_dead_alone(applications, data):
    dies = data.draw(st.integers(0, len(applications) - 1))
    before = slots(applications, spread())
    after = slots(
        [replace(one, lives=one.lives and n != dies) for n, one in enumerate(applications)], spread()
    )
    gone = applications[dies].number
    assert all(was == now for was, now in zip(before, after, strict=True) if was != gone)
    assert gone not in after
    assert (0 in after) == (not any(one.lives for n, one in enumerate(applications) if n != dies))


@given(living)
def test_to_the_core_goes_the_share_of_the_dead(applications):
    everybody = [replace(one, lives=True) for one in applications]
    shares = slots(everybody, spread(on_death=OnDeath.CORE))
    dead = {one.number for one in applications if not one.lives}
    wanted = tuple(0 if number in dead else number for number in shares)
    assert slots(applications, spread(on_death=OnDeath.CORE)) == wanted


def test_shares_are_about_equal():
    applications = [ServedApplication(one, n, True) for n, one in enumerate(ADDRESSES[:4], 1)]
    shares = Counter(slots(applications, spread()))
    assert all(SLOTS // 4 * 0.6 < count < SLOTS // 4 * 1.4 for count in shares.values())
    falls = Counter(
        slot_of(FlowEnds(bytes((10, 45, n >> 8, n & 255)), 6, (1, 2)), SpreadBy.UE) for n in range(4096)
    )
    assert len(falls) > SLOTS * 0.9
    assert max(falls.values()) < 64


UDP4 = bytes.fromhex("4500002000000000401100000a2d0007cb00710a") + bytes.fromhex("0fa00007000c0000")
ECHO4 = bytes.fromhex("4500001c00000000400100000a2d0007cb00710a") + bytes.fromhex("0800000012340001")
UDP6 = bytes.fromhex("6000000000081140") + bytes(range(16)) + bytes(16) + bytes.fromhex("0fa0000700080000")


@pytest.mark.parametrize(
    ("packet", "ends"),
    [
        (UDP4, FlowEnds(bytes((10, 45, 0, 7)), 17, (4000, 7))),
        (ECHO4, FlowEnds(bytes((10, 45, 0, 7)), 1, (0x1234, 0x1234))),
        (UDP4[:9] + b"\x32" + UDP4[10:], FlowEnds(bytes((10, 45, 0, 7)), 50, (0, 0))),
        (UDP4[:24], FlowEnds(bytes((10, 45, 0, 7)), 17, (0, 0))),
        (UDP4[:6] + b"\x20\0" + UDP4[8:], FlowEnds(bytes((10, 45, 0, 7)), 17, None)),
        (UDP6, FlowEnds(bytes(range(8)), 17, (4000, 7))),
        (UDP6[:6] + b"\x2c" + UDP6[7:], FlowEnds(bytes(range(8)), 44, None)),
    ],
)
def test_what_a_flow_is_spread_by(packet, ends):
    assert ends_of(packet) == ends


def test_an_ipv6_ue_is_its_prefix():
    ends = [
        FlowEnds(bytes.fromhex("20010db800600007") + tail, 6, (1, 2)) for tail in (b"", bytes(8), b"\xff" * 8)
    ]
    assert len({slot_of(one, SpreadBy.UE) for one in ends}) == 1
    others = [FlowEnds(bytes.fromhex("20010db80060") + n.to_bytes(2, "big"), 6, None) for n in range(100)]
    assert len({slot_of(one, SpreadBy.UE) for one in others}) > 50


@given(st.binary(min_size=4, max_size=4), st.integers(0, 255), st.integers(0, 65535), st.integers(0, 65535))
def test_a_ue_s_flows_share_a_slot_unless_flows_are_spread(ue, protocol, source, destination):
    flow, fragment = FlowEnds(ue, protocol, (source, destination)), FlowEnds(ue, protocol, None)
    assert slot_of(flow, SpreadBy.UE) == slot_of(fragment, SpreadBy.UE) == slot_of(fragment, SpreadBy.FLOW)
    assert 0 <= slot_of(flow, SpreadBy.FLOW) < SLOTS


def test_flows_of_a_ue_are_spread():
    ue = bytes((10, 45, 0, 7))
    assert len({slot_of(FlowEnds(ue, 6, (port, 80)), SpreadBy.FLOW) for port in range(40000, 40200)}) > 80


def test_what_may_be_left_out_is():
    body = {**PLAIN, "spread": {"applications": ["::ffff:192.168.50.11"]}}
    assert parse(body).applications == (ADDRESSES[0], ADDRESSES[1])
    assert body_of(parse(body)) == {**PLAIN, "spread": {"applications": ["192.168.50.11"]}}
    assert parse(PLAIN).applications == (ADDRESSES[0],)


@pytest.mark.parametrize(
    ("value", "field", "words"),
    [
        ([], "spread", "not an object"),
        ({"applications": ["192.168.50.11"], "weight": 3}, "spread.weight", "not a field"),
        ({}, "spread.applications", "not a list"),
        ({"applications": []}, "spread.applications", "not a list"),
        ({"applications": [7]}, "spread.applications", "not an IP address"),
        ({"applications": ["192.168.50.300"]}, "spread.applications", "not an IP address"),
        ({"applications": ["224.0.0.1"]}, "spread.applications", "multicast"),
        ({"applications": ["fd00:50::11"]}, "spread.applications", "family"),
        ({"applications": ["192.168.50.10"]}, "spread.applications", "twice"),
        ({"applications": ["192.168.50.11"] * 2}, "spread.applications", "twice"),
        (
            {"applications": [f"192.168.51.{n}" for n in range(MOST + 1)]},
            "spread.applications",
            "more than 15",
        ),
        ({"applications": ["192.168.50.11"], "by": "weight"}, "spread.by", "order, ue, flow"),
        ({"applications": ["192.168.50.11"], "onDeath": "cloud"}, "spread.onDeath", "next, core"),
        ({"applications": ["192.168.50.11"], "onDeath": "core"}, "spread.onDeath", "order"),
    ],
)
def test_what_cannot_be_is_refused(value, field, words):
    with pytest.raises(BadRequest, match=words) as caught:
        parse({**PLAIN, "spread": value})
    assert caught.value.field == field
