"""tof.lab.learner: what the learner holds against what the capture shows."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

from tof.lab.learner import Conflict, describe, disagreements, owners, several_ues, tunnel_key
from tof.model import TunnelKey

ENB, SGW = ip_address("192.0.2.1").packed, ip_address("192.0.2.2").packed
UE, OTHER = ip_address("10.45.0.2").packed, ip_address("10.45.0.3").packed
UE6 = ip_address("2001:db8:1:2::").packed[:8]
KEY = TunnelKey(ENB, SGW, 7, None)


def tunnel(*ues: str, teid: int = 7, vlan: int | None = None) -> dict[str, Any]:
    return {"source": "192.0.2.1", "destination": "192.0.2.2", "teid": teid, "vlan": vlan, "ues": list(ues)}


def test_an_element_of_the_api_is_read():
    assert tunnel_key(tunnel(vlan=5)) == TunnelKey(ENB, SGW, 7, 5)
    assert owners(tunnel("10.45.0.2", "2001:db8:1:2::/64")) == {UE, UE6}
    assert owners(tunnel("2001:db8:1:2::99")) == {UE6}


def test_agreement_is_silent():
    assert disagreements({KEY: frozenset({UE})}, [tunnel("10.45.0.2")]) == []
    both = frozenset({UE, UE6})
    assert disagreements({KEY: both}, [tunnel("10.45.0.2", "2001:db8:1:2::/64")]) == []
    assert several_ues({KEY: both}) == []


def test_a_tunnel_that_was_not_learnt():
    ends = None, "192.0.2.1", "192.0.2.2", 7
    assert disagreements({KEY: frozenset({UE})}, []) == [
        Conflict("missing_tunnel", *ends, ("10.45.0.2",), ())
    ]


def test_a_tunnel_that_nobody_sent_unless_it_was_there_before():
    found = disagreements({}, [tunnel("10.45.0.2")])
    assert [(conflict.kind, conflict.expected, conflict.seen) for conflict in found] == [
        ("unexpected_tunnel", (), ("10.45.0.2",))
    ]
    assert disagreements({}, [tunnel("10.45.0.2")], {KEY}) == []
    assert disagreements({}, [tunnel("10.45.0.2", vlan=5)], {KEY}) != []


def test_a_wrong_a_lacking_and_a_surplus_ue():
    for held in (["10.45.0.9"], [], ["10.45.0.2", "2001:db8::/64"]):
        found = disagreements({KEY: frozenset({UE})}, [tunnel(*held)])
        assert [conflict.kind for conflict in found] == ["wrong_ue"]
    lacking = disagreements({KEY: frozenset({UE, UE6})}, [tunnel("10.45.0.2")])
    assert [conflict.kind for conflict in lacking] == ["wrong_ue"]


def test_only_one_of_several_can_own_a_tunnel():
    expected = {KEY: frozenset({UE, OTHER})}
    assert disagreements(expected, [tunnel("10.45.0.3")]) == []
    assert [conflict.kind for conflict in disagreements(expected, [tunnel("10.45.0.3", "10.45.0.2")])] == [
        "wrong_ue"
    ]
    (conflict,) = several_ues(expected, [tunnel("10.45.0.3")])
    assert conflict.document() == {
        "kind": "several_ues",
        "vlan": None,
        "source": "192.0.2.1",
        "destination": "192.0.2.2",
        "teid": 7,
        "expected": ("10.45.0.2", "10.45.0.3"),
        "seen": ("10.45.0.3",),
    }


def test_conflicts_are_one_line_each():
    expected = {KEY._replace(vlan=5): frozenset({UE})}
    assert describe(disagreements(expected, [])) == [
        "missing tunnel: 192.0.2.1 > 192.0.2.2 0x00000007 vlan 5: capture 10.45.0.2, learner -"
    ]
