"""`tof explain --ue`: what a running TOF would do with a packet, from what its agent tells."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tof.dataplane.selection import Facts, Rule, judge, rule_lists, rules_of
from tof.explain import report
from tof.explain.choosing import missed, nearest, protocol_text
from tof.explain.live import Known, Question, answers
from tof.explain.reasons import REASONS
from tof.model import Mode, PortRange, Selection, Service

UE, TO = ip_address("10.45.0.2").packed, ip_address("203.0.113.10").packed
NET = ip_address("203.0.113.0")
ENB, SGW = "10.1.0.11", "10.1.0.1"
WEB = Service("web", ip_address("203.0.113.10"), ip_address("192.168.50.10"))


def tunnel(direction, teid, *, state="paired", enb=ENB, sgw=SGW, vlan=None):
    ends = (enb, sgw) if direction == "uplink" else (sgw, enb)
    return {
        "direction": direction, "source": ends[0], "destination": ends[1], "teid": teid, "vlan": vlan, "qfi": None,
        "state": state,
    }  # fmt: skip


UP, DOWN = tunnel("uplink", 1), tunnel("downlink", 2)
BOTH = UP, DOWN


def only(question=Question(UE, TO), tunnels=BOTH, services=(WEB,), **more):  # noqa: B008
    (one,) = answers(question, Known(tunnels, services, **more))
    assert one.outcome.reason in REASONS
    assert one.reply is None or one.reply.reason in REASONS
    return one


def judged(one):
    return one.outcome.verdict.value, one.outcome.reason, one.outcome.service and one.outcome.service.name


def test_a_service_s_packet_and_its_reply():
    one = only()
    assert judged(one) == ("diverted", "diverted", "web")
    assert (one.uplink, one.reply) == (UP, ("answered", (DOWN,)))


def test_to_no_service():
    one = only(Question(UE, ip_address("198.51.100.1").packed))
    assert (judged(one), one.outcome.detail, one.reply) == (
        ("passes", "no_service", None), "no service has 198.51.100.1", None,
    )  # fmt: skip


def test_the_nearest_service_s_first_condition_is_named():
    near = Service("near", WEB.service_ip, WEB.application_ip, selection=Selection(6, (PortRange(443, 443),)))
    far = Service("far", NET, WEB.application_ip, 24, Selection(17, (PortRange(9, 9),)), priority=9)
    one = only(Question(UE, TO, 6, 80), services=(far, near))
    assert one.outcome.detail == "near: port 80 is not 443"
    unsaid = only(Question(UE, TO), services=(far, near))
    assert unsaid.outcome.detail == "far: no protocol is known, it asks for udp"
    portless = only(Question(UE, TO, 6), services=(near,))
    assert portless.outcome.detail == "near: no port is known, it asks for 443"


def test_the_one_that_ranks_higher_has_it():
    video = Service("video", NET, ip_address("192.168.50.11"), 24, priority=1)
    assert judged(only(services=(WEB, video)))[2] == "video"


@pytest.mark.parametrize(
    ("more", "reason", "detail"),
    [
        ({"bypass": "on: everything goes to the wire"}, "bypassed", "on: everything goes to the wire"),
        ({"ovs_down": "no heartbeat"}, "ovs_down", "no heartbeat"),
        (
            {"unresolved": {"web": "192.168.50.10 does not answer"}},
            "unresolved",
            "192.168.50.10 does not answer",
        ),
    ],
)
def test_why_a_service_s_packet_passes(more, reason, detail):
    one = only(**more)
    assert (one.outcome.verdict.value, one.outcome.reason, one.outcome.detail) == ("passes", reason, detail)
    assert one.reply is None


def test_a_service_whose_application_is_not_there_keeps_its_packets():
    wide = Service("wide", NET, ip_address("192.168.50.11"), 24)
    for reason in ("unresolved", "unhealthy"):
        assert judged(only(services=(WEB, wide), **{reason: {"web": "no"}})) == ("passes", reason, "web")


def test_shadow():
    shadow = Service("web", WEB.service_ip, WEB.application_ip, mode=Mode.SHADOW)
    assert judged(only(services=(shadow,))) == ("shadow", "shadow", "web")


def test_an_unknown_ue():
    one = only(tunnels=())
    assert (judged(one), one.uplink, one.reply) == (
        ("diverted", "ue_unknown", "web"),
        None,
        ("ue_no_tunnel", ()),
    )
    other = only(Question(UE, ip_address("198.51.100.1").packed), tunnels=())
    assert (judged(other), other.outcome.detail) == (
        ("teaches", "ue_unknown", None),
        "no service has 198.51.100.1",
    )
    assert judged(only(tunnels=(), bypass="on"))[1] == "bypassed"


def test_an_unknown_ue_behind_named_nodes():
    here = Service(
        "here", WEB.service_ip, WEB.application_ip, selection=Selection(enbs=(ip_network("10.1.0.0/16"),))
    )
    unsaid = only(tunnels=(), services=(here,))
    assert unsaid.outcome.detail == "here: eNB 0.0.0.0 is not 10.1.0.0/16"
    said = Question(UE, TO, source=ip_address(ENB).packed, destination=ip_address(SGW).packed, vlan=5)
    assert judged(only(said, tunnels=(), services=(here,))) == ("diverted", "ue_unknown", "here")


@pytest.mark.parametrize(
    "narrow",
    [{"teid": 9}, {"source": bytes(4)}, {"destination": bytes(4)}, {"vlan": 7}],
)
def test_no_such_uplink(narrow):
    assert judged(only(Question(UE, TO, **narrow))) == ("diverted", "uplink_unknown", "web")


def test_every_uplink_is_answered_for_by_itself():
    tagged = tunnel("uplink", 5, vlan=7), tunnel("downlink", 6, vlan=7)
    here = Service("here", WEB.service_ip, WEB.application_ip, selection=Selection(vlans=frozenset((7,))))
    found = answers(Question(UE, TO), Known((*BOTH, *tagged), (here,)))
    assert [(one.uplink["teid"], one.outcome.reason) for one in found] == [(1, "no_service"), (5, "diverted")]
    assert found[0].outcome.detail == "here: VLAN 0 is not 7"
    assert found[1].reply == ("answered", (tagged[1],))
    (one,) = answers(Question(UE, TO, vlan=0), Known((*BOTH, *tagged), (here,)))
    assert one.uplink == UP


LEARNT = tunnel("uplink", 1, state="learnt")
ENDED = tunnel("downlink", 2, state="ended")
SECOND = tunnel("downlink", 3)
ELSEWHERE = tunnel("downlink", 4, enb="10.1.0.99")


@pytest.mark.parametrize(
    ("tunnels", "reply"),
    [
        ((LEARNT,), ("ue_no_tunnel", ())),
        ((LEARNT, DOWN), ("ue_no_tunnel", ())),
        ((LEARNT, ENDED), ("ue_ended", (ENDED,))),
        ((UP, ENDED), ("ue_ended", (ENDED,))),
        ((UP, ENDED, SECOND), ("answered", (SECOND,))),
        ((UP, DOWN, SECOND), ("answered_in_one", (DOWN, SECOND))),
        ((UP, ELSEWHERE), ("answered", (ELSEWHERE,))),
        ((UP, DOWN, ELSEWHERE), ("answered", (DOWN,))),
        ((UP,), ("ue_no_tunnel", ())),
    ],
)
def test_where_the_reply_goes(tunnels, reply):
    assert only(tunnels=tunnels).reply == reply


def test_answers_as_a_document_and_as_rows():
    question, known = Question(UE, TO, 6, 80, 46), Known((*BOTH, LEARNT), (WEB,))
    found = answers(question, known)
    document = report.answer_document(question, found)
    assert {name: document[name] for name in ("ue", "to", "protocol", "port", "dscp")} == {
        "ue": "10.45.0.2", "to": "203.0.113.10", "protocol": "tcp", "port": 80, "dscp": 46,
    }  # fmt: skip
    first, second = document["answers"]
    assert (first["uplink"], first["service"], first["application"]) == (UP, "web", "192.168.50.10")
    assert first["reply"] == {"reason": "answered", "why": REASONS["answered"], "downlinks": [DOWN]}
    assert second["reply"]["downlinks"] == []
    assert first["detail"].startswith("from the SYN on")
    (unknown,) = report.answer_document(Question(UE, TO), answers(Question(UE, TO), Known()))["answers"]
    assert (unknown["uplink"], unknown["service"], unknown["reply"]) == (None, None, None)
    rows = report.answer_rows([*found, *answers(Question(UE, TO), Known())])
    assert rows[0] == (
        "10.1.0.11 > 10.1.0.1 0x00000001", "diverted", "diverted", "web > 192.168.50.10",
        "answered  10.1.0.1 > 10.1.0.11 0x00000002", first["detail"],
    )  # fmt: skip
    assert [row[0] for row in rows[1:]] == ["10.1.0.11 > 10.1.0.1 0x00000001", "not known yet"]
    assert rows[2][3:] == ("-", "-", "no service has 203.0.113.10")


def test_protocols_by_name_and_by_number():
    assert [protocol_text(number) for number in (1, 6, 17, 58, 132, 50)] == [
        "icmp", "tcp", "udp", "icmpv6", "sctp", "50",
    ]  # fmt: skip


networks = st.lists(st.sampled_from([ip_network(f"10.{n}.0.0/16") for n in range(3)]), max_size=2).map(tuple)
addresses = st.integers(0, 2).map(lambda n: bytes((10, n, 0, 1)))
selections = st.builds(
    Selection,
    st.sampled_from([None, 6, 17]),
    st.lists(st.builds(PortRange, st.integers(0, 3), st.integers(3, 5)), max_size=2).map(tuple),
    st.frozensets(st.integers(0, 2), max_size=2),
    networks, networks, networks,
    st.frozensets(st.integers(0, 2), max_size=2),
)  # fmt: skip
facts = st.builds(
    Facts, addresses, st.just(TO), st.sampled_from([1, 6, 17]), st.sampled_from([None, *range(6)]), st.integers(0, 2),
    addresses, addresses, st.integers(0, 2),
)  # fmt: skip


@given(selections, facts)
def test_a_condition_is_missed_exactly_where_the_judgement_fails(selection, packet):
    service = Service("web", WEB.service_ip, WEB.application_ip, selection=selection)
    for rule in rules_of(service):
        assert (missed(rule, packet) == []) is (rule.holds(packet) and rule.port_holds(packet))
    assert (nearest([service], packet) is None) is (judge(rule_lists([service]), packet) is not None)
    assert missed(Rule(service), packet) == []
