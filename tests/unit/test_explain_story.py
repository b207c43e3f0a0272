"""`tof explain --capture`: a named reason for every frame, each shown by frames made for it."""

from __future__ import annotations

import re
from collections import Counter
from ipaddress import ip_network
from pathlib import Path

import pytest

from tests.netns.gtp_explained import (
    CORE_MAC,
    EDGE,
    ELSEWHERE,
    FIVE,
    FOUR,
    FRESH,
    MACS,
    RAN_MAC,
    SERVICE,
    SERVICE6,
    SERVICES,
    SIX,
    TWIN,
    UE,
    UE6,
    bent,
    down,
    inner_pieces,
    oddities,
    pieces,
    up,
)  # fmt: skip
from tests.netns.gtp_packets import ACK, SYN, Bearer, carried, gtp, ip, ping, tcp, udp
from tof.agent.service_body import parse
from tof.daemon import fragments
from tof.explain.reasons import COUNTERS, FRAGMENTS, LEARNER, OWN, REASONS
from tof.explain.story import explain, flows
from tof.explain.words import Verdict
from tof.lab.capture import Frame
from tof.lab.verdict import Sent
from tof.model import Direction, Mode, PortRange, Selection, Service, Side, TunnelKey, address_text
from tof.wire import gtpu, inet
from tools.fuzz.packets import Source
from tools.fuzz.scenario import SERVICE as SERVICE_4
from tools.fuzz.scenario import SERVICE6 as SERVICE_6

ROOT = Path(__file__).resolve().parents[2]
GAP_NS = 10_000_000
ASKED = udp(UE, SERVICE, 1000, 53, b"asked")
LONG = udp(UE, SERVICE, 1000, 53, bytes(1000))
LEARNT = up(FOUR.uplink(udp(UE, ELSEWHERE, 1000, 53)))
SPOKEN_TO = down(FOUR.downlink(udp(ELSEWHERE, UE, 53, 1000)))
WEB = SERVICES[0]


def sent(*sided, gap_ns=GAP_NS):
    return [
        Sent(Frame(number, number * gap_ns, data, len(data)), side)
        for number, (side, data) in enumerate(sided, 1)
    ]


def told(*sided, services=SERVICES, gap_ns=GAP_NS):
    return explain(sent(*sided, gap_ns=gap_ns), services)


def last(*sided, **more):
    one = told(*sided, **more)[-1]
    return one.outcome.verdict.value, one.outcome.reason


def signal(kind, teid, body=b"", *, forged=False):
    """A signalling message of the core; ``forged``: by somebody on the eNB's side."""
    return carried(FOUR.sgw, FOUR.enb, gtp(teid, body, kind=kind), macs=MACS if forged else MACS[::-1])


def identified(frame, ident):
    return frame[:14] + inet.fix_ipv4_header(frame[14:18] + ident.to_bytes(2, "big") + frame[20:])


def piece(ident, offset, part, *, more):
    """An outer fragment from the eNB."""
    packet = inet.IPv4(
        *(bytes(map(int, end.split("."))) for end in (FOUR.enb, FOUR.sgw)), 17, part,
        identification=ident, flags=int(more), offset=offset,
    )  # fmt: skip
    return up(CORE_MAC + RAN_MAC + b"\x08\0" + inet.encode_ipv4(packet))


FIRST, SECOND = pieces(identified(FOUR.uplink(LONG), 7), 576)[:2]
PAYLOAD = FOUR.uplink(LONG)[34:]
TWINS_TCP = (
    LEARNT, up(FOUR.uplink(tcp(UE, SERVICE, 1002, 80, SYN))), up(TWIN.uplink(tcp(UE, SERVICE, 1002, 80, ACK))),
)  # fmt: skip
LATER_TCP = inner_pieces(ip(UE, SERVICE, 6, bytes(2000)), 900)[1]
UNCUTTABLE = inet.encode_ipv4(
    inet.IPv4(
        bytes(map(int, UE.split("."))), bytes(map(int, SERVICE.split("."))), 17, bytes(1992), offset=65528
    )
)
LYING = PAYLOAD[:4] + b"\x0b\xb8" + PAYLOAD[6:10] + b"\x0b\xa8" + PAYLOAD[12:]
"""The same, but UDP and GTP-U claim lengths of 3 000 and 2 984."""


def full_of_pairs():
    for n in range(64):
        here = FOUR.but(enb=f"10.2.0.{n + 1}", sgw=f"10.3.0.{n + 1}")
        yield up(here.uplink(udp(UE, ELSEWHERE, 1, 2)))
        yield down(here.downlink(udp(ELSEWHERE, UE, 2, 1)))
    yield up(FOUR.uplink(udp(UE, SERVICE, 1, 2)))


def too_many():
    yield from (piece(9, 8 * n, PAYLOAD[8 * n : 8 * n + 8], more=True) for n in range(64, 0, -1))
    yield piece(9, 0, PAYLOAD.ljust(2000, b"\0")[:800], more=True)


def overflow():
    """Sixty-six datagrams of sixty-three fragments each; the first of them gives way."""
    for ident in range(66):
        yield from (piece(100 + ident, 8 * n, bytes(8), more=True) for n in range(1, 64))


CASES = {
    "diverted": (("diverted", "diverted"), (LEARNT, up(FOUR.uplink(ASKED)))),
    "diverted at first": (("diverted", "diverted"), (up(FOUR.uplink(ASKED)),)),
    "diverted whole": (("diverted", "diverted"), (LEARNT, up(FIRST), up(SECOND))),
    "no_service": (("passes", "no_service"), (LEARNT, LEARNT)),
    "downlink": (("passes", "downlink"), (SPOKEN_TO, SPOKEN_TO)),
    "downlink moved": (
        ("teaches", "downlink"), (LEARNT, SPOKEN_TO, down(FOUR.downlink(udp(ELSEWHERE, "10.45.0.9", 1, 2)))),
    ),
    "tunnel_learnt": (("teaches", "tunnel_learnt"), (LEARNT,)),
    "tunnel_learnt down": (("teaches", "tunnel_learnt"), (SPOKEN_TO,)),
    "bridged_length": (("passes", "bridged_length"), (up(bent(FOUR.uplink(ASKED), 45, 0xEE)),)),
    "bridged_version": (("passes", "bridged_version"), (up(bent(FOUR.uplink(ASKED), 42, 0x50)),)),
    "bridged_message": (("passes", "bridged_message"), (down(signal(gtpu.ECHO_REQUEST, 0)),)),
    "bridged_extension": (("passes", "bridged_extension"), (up(bent(FIVE.uplink(ASKED), 54, 0)),)),
    "bridged_inner": (("passes", "bridged_inner"), (up(FOUR.uplink(b"\x10 no IP")),)),
    "bridged_inner of TEID 0": (("passes", "bridged_inner"), (up(FOUR.but(up=0).uplink(ASKED)),)),
    "bridged_fragment": (
        ("passes", "bridged_fragment"),
        (LEARNT, *map(up, pieces(FOUR.uplink(udp(UE, ELSEWHERE, 1, 2, bytes(1000))), 576))),
    ),
    "bridged_fragment down": (("passes", "bridged_fragment"), (SPOKEN_TO, down(pieces(FOUR.downlink(LONG), 576)[0]))),
    "bridged_fragment that came too early": (
        ("passes", "bridged_fragment"),
        (
            LEARNT,
            *map(up, reversed(pieces(identified(FOUR.uplink(udp(UE, ELSEWHERE, 1, 2, bytes(1000))), 5), 576))),
        ),
    ),
    "bridged_fragment after one that was refused": (
        ("passes", "bridged_fragment"),
        (LEARNT, *map(up, pieces(FOUR.uplink(udp(UE, SERVICE, 1, 53, bytes(5000))), 3000)[:2])),
    ),
    "bridged_fragment teaches": (
        ("teaches", "bridged_fragment"), (down(pieces(FOUR.downlink(udp(ELSEWHERE, UE, 1, 2, bytes(1000))), 576)[0]),),
    ),
    "spoofed": (("passes", "spoofed"), (LEARNT, up(FOUR.uplink(udp("10.45.9.9", SERVICE, 1, 2))))),
    "spoofed to no service": (("passes", "spoofed"), (LEARNT, up(FOUR.uplink(udp("10.45.9.9", ELSEWHERE, 1, 2))))),
    "spoofed by nobody": (("passes", "spoofed"), (LEARNT, up(FOUR.uplink(udp("169.254.1.1", SERVICE, 1, 2))))),
    "nested": (("passes", "nested"), (LEARNT, up(FOUR.uplink(udp(UE, ELSEWHERE, 1, 2152))))),
    "wrong_side": (("passes", "wrong_side"), (LEARNT, down(FOUR.uplink(ASKED)))),
    "wrong_side in pieces": (("passes", "wrong_side"), (LEARNT, down(FIRST))),
    "flow_unknown": (("passes", "flow_unknown"), (LEARNT, up(FOUR.uplink(tcp(UE, SERVICE, 1, 80, ACK))))),
    "flow_unknown in pieces": (
        ("passes", "flow_unknown"),
        (LEARNT, up(pieces(FOUR.uplink(tcp(UE, SERVICE, 1, 80, ACK, data=bytes(1000))), 576)[0])),
    ),
    "flow_ambiguous": (
        ("passes", "flow_ambiguous"), (up(FOUR.uplink(ASKED)), up(TWIN.uplink(ASKED))),
    ),
    "flow_waits": (("dropped", "flow_waits"), TWINS_TCP),
    "inner_fragment": (("passes", "inner_fragment"), (LEARNT, up(FOUR.uplink(LATER_TCP)))),
    "fragment_refused": (
        ("passes", "fragment_refused"),
        (LEARNT, up(pieces(FOUR.uplink(udp(UE, SERVICE, 1, 53, bytes(5000))), 3000)[0])),
    ),
    "timeout": (("passes", "timeout"), (LEARNT, up(FIRST))),
    "overlap": (("passes", "overlap"), (LEARNT, up(FIRST), piece(7, 8, PAYLOAD[8:40], more=True))),
    "end_inconsistent": (
        ("passes", "end_inconsistent"),
        (LEARNT, piece(7, 1600, bytes(8), more=False), piece(7, 2400, bytes(8), more=False)),
    ),
    "odd_length": (("passes", "odd_length"), (LEARNT, piece(7, 800, bytes(9), more=True))),
    "beyond_maximum": (("passes", "beyond_maximum"), (LEARNT, piece(7, 65528, bytes(80), more=False))),
    "too_many": (("passes", "too_many"), (LEARNT, *too_many())),
    "refused_before": (
        ("passes", "refused_before"), (LEARNT, piece(7, 800, bytes(9), more=True), piece(7, 1600, bytes(8), more=True)),
    ),
    "not_a_gpdu": (
        ("passes", "not_a_gpdu"),
        (LEARNT, piece(7, 0, LYING[:552], more=True), piece(7, 552, LYING[552:], more=False)),
    ),
    "too_big": (("passes", "too_big"), (LEARNT, *map(up, pieces(FOUR.uplink(UNCUTTABLE), 1500)))),
    "undecodable": (
        ("passes", "undecodable"),
        (up(FOUR.uplink(inet.encode_ipv6(inet.IPv6(b"\x20" + bytes(15), b"\x20" + bytes(15), 0, b"\x3b\0\0\0")))),),
    ),
    "refused_address": (("passes", "refused_address"), (up(FOUR.uplink(udp(SERVICE, ELSEWHERE, 1, 2))),)),
    "refused_pairs": (("passes", "refused_pairs"), (*full_of_pairs(),)),
    "end_marker": (("teaches", "end_marker"), (LEARNT, SPOKEN_TO, down(signal(gtpu.END_MARKER, FOUR.down)))),
    "end_marker of nothing": (("passes", "end_marker"), (down(signal(gtpu.END_MARKER, 77)),)),
    "end_marker_wrong_side": (
        ("passes", "end_marker_wrong_side"), (LEARNT, SPOKEN_TO, up(signal(gtpu.END_MARKER, FOUR.down, forged=True))),
    ),
    "error_indication": (
        ("teaches", "error_indication"), (LEARNT, down(signal(gtpu.ERROR_INDICATION, FOUR.up))),
    ),
    "error_indication_unknown": (
        ("passes", "error_indication_unknown"), (down(signal(gtpu.ERROR_INDICATION, 77)),),
    ),
    "error_indication_wrong_side": (
        ("passes", "error_indication_wrong_side"),
        (LEARNT, up(signal(gtpu.ERROR_INDICATION, FOUR.up, forged=True))),
    ),
    "undecodable signal": (
        ("passes", "undecodable"),
        (down(signal(gtpu.ERROR_INDICATION, 0, b"\x10\0")),),
    ),
    "echo_response": (("passes", "echo_response"), (down(signal(gtpu.ECHO_RESPONSE, 0, b"\x0e\x01")),)),
    "echo_response of a restarted peer": (
        ("teaches", "echo_response"),
        (
            LEARNT,
            *(down(signal(gtpu.ECHO_RESPONSE, 0, b"\x0e\x01")) for _ in range(200)),
            down(signal(gtpu.ECHO_RESPONSE, 0, b"\x0e\x02")),
        ),
    ),
    "echo_response_wrong_side": (
        ("passes", "echo_response_wrong_side"),
        (LEARNT, up(signal(gtpu.ECHO_RESPONSE, 0, b"\x0e\x01", forged=True))),
    ),
    "no_ue_address": (("passes", "no_ue_address"), (up(FOUR.uplink(udp("169.254.1.1", SERVICE, 1, 2))),)),
    "forwarded": (
        ("passes", "forwarded"), (SPOKEN_TO, up(FOUR.but(up=99).uplink(udp(ELSEWHERE, UE, 1, 2)))),
    ),
    "not_gtpu": (("passes", "not_gtpu"), (up(CORE_MAC + RAN_MAC + b"\x08\x06" + bytes(46)),)),
    "same_side": (
        ("passes", "same_side"),
        (
            up(FOUR.but(macs=(RAN_MAC, CORE_MAC)).uplink(ASKED)),
            up(TWIN.but(macs=(CORE_MAC[:-1] + b"\x77", RAN_MAC)).uplink(ASKED)),
        ),
    ),
}  # fmt: skip
FAST = ("too_many", "overflow")


@pytest.mark.parametrize("name", CASES)
def test_a_reason(name):
    wanted, sided = CASES[name]
    gap_ns = 1000 if name in FAST else GAP_NS
    if sided[1:] and "fragment" not in name and "pieces" not in name and "whole" not in name:
        assert last(*sided[:-1], gap_ns=gap_ns) != wanted or sided[-1] == sided[-2] or "learnt" in name
    assert last(*sided, gap_ns=gap_ns) == wanted


def test_the_longest_waiting_fragments_give_way():
    reasons = Counter(one.outcome.reason for one in told(*overflow(), gap_ns=10))
    assert reasons == {"overflow": 63, "timeout": 66 * 63 - 63}


def test_the_rate_of_what_fragments_ask_is_bounded():
    lone = [piece(ident, 800, bytes(8), more=True) for ident in range(201)]
    assert told(*lone, gap_ns=10)[-1].outcome.reason == "fragment_refused"
    assert told(*lone, gap_ns=GAP_NS)[-1].outcome.reason == "timeout"


def test_every_reason_is_shown_or_cannot_be_in_a_capture():
    shown = {reason for (_, reason), _ in CASES.values()} | {"overflow", "shadow", "cut"}
    live = {
        "bypassed",
        "ovs_down",
        "ue_no_tunnel",
        "ue_ended",
        "ue_unknown",
        "uplink_unknown",
        "unresolved",
        "unhealthy",
        "broken_chain",
        "out_of_hours",
    }
    live |= {"answered", "answered_in_one"}
    bounds = {"refused_room", "refused_bearers"}  # a million tunnels; sixteen that the core has confirmed
    assert shown | live | bounds == set(REASONS)
    assert len(REASONS) == sum(map(len, (COUNTERS, FRAGMENTS, LEARNER, OWN)))


def test_the_names_are_those_of_the_counters():
    program = (ROOT / "tof/drivers/bpf/tof.bpf.c").read_text()
    assert {f"c_{name}" for name in COUNTERS} <= set(re.findall(r"\bc_\w+", program))
    assert set(FRAGMENTS) <= {*fragments.REASONS}
    agent = "".join(file.read_text() for file in (ROOT / "tof/agent").glob("*.py"))
    assert all(f'"{name}"' in agent for name in LEARNER)


def test_every_name_is_documented():
    text = (ROOT / "docs/explain.md").read_text() + (ROOT / "docs/operations.md").read_text()
    assert not {name for name in (*REASONS, *Verdict) if f"`{name}`" not in text}


def test_the_odd_frames_of_the_namespace_test_have_many_reasons():
    frames = [
        item._replace(frame=item.frame._replace(time_ns=n * GAP_NS)) for n, item in enumerate(oddities())
    ]
    found = explain(frames, SERVICES)
    assert len({one.outcome.reason for one in found}) > 20
    assert [one.number for one in found] == [item.frame.number for item in frames]


def test_what_is_said_of_a_frame():
    one = told(
        down(FIVE.downlink(udp(ELSEWHERE, FIVE.ue, 53, 1000))),
        up(FIVE.uplink(udp(FIVE.ue, SERVICE, 1000, 53))),
    )[-1]
    assert (one.number, one.side, one.direction) == (2, Side.ENB, Direction.UPLINK)
    ends = (bytes(map(int, end.split("."))) for end in (FIVE.enb, FIVE.sgw))
    assert (one.tunnel, one.qfi) == (TunnelKey(*ends, FIVE.up), 9)
    assert one.ue == bytes((10, 45, 0, 3))
    assert one.outcome.service == WEB
    assert one.outcome.learnt == ("tunnel_learnt", "tunnels_paired")


def test_a_wrong_side_is_told_with_its_tunnel_s_direction():
    one = told(LEARNT, down(FOUR.uplink(ASKED)))[-1]
    assert (one.side, one.direction) == (Side.SGW, Direction.UPLINK)


def test_fragments_in_any_order_are_of_their_tunnel_and_service():
    for order in ((0, 1), (1, 0)):
        both = [
            pieces(identified(FOUR.uplink(LONG), 5), 576)[n]
            for n in (
                0,
                1,
            )
        ]
        found = told(LEARNT, *(up(both[n]) for n in order))[1:]
        assert {one.outcome.verdict for one in found} == {Verdict.DIVERTED}
        assert {one.outcome.service for one in found} == {WEB}
        assert {(one.tunnel.teid, one.ue) for one in found} == {(FOUR.up, bytes((10, 45, 0, 2)))}


def test_the_first_fragments_of_a_tunnel_teach_it():
    found = told(*map(up, pieces(FRESH.uplink(udp(FRESH.ue, SERVICE, 1, 2, bytes(1000))), 576)))
    assert [one.outcome.verdict for one in found] == [Verdict.DIVERTED] * 2
    assert found[0].outcome.learnt == ("tunnel_learnt",)


def test_a_second_family_is_the_ue_s_with_the_core_s_word():
    six = up(FOUR.uplink(udp(UE6, SERVICE6, 1, 2)))
    found = told(LEARNT, SPOKEN_TO, six, six, down(FOUR.downlink(udp(SERVICE6, UE6, 2, 1))), six)
    assert [one.outcome.reason for one in found[2:]] == ["spoofed", "spoofed", "downlink", "diverted"]
    assert found[2].outcome.learnt == ("candidate_asked",)
    assert "candidate_confirmed" in found[4].outcome.learnt


def test_a_connection_waits_for_its_ue_in_another_tunnel():
    syn, goes_on = (tcp(UE, SERVICE, 1002, 80, flags) for flags in (SYN, ACK))
    other = TWIN.but(ue="10.45.0.99")
    known = LEARNT, up(FOUR.uplink(syn)), up(other.uplink(udp(other.ue, ELSEWHERE, 1000, 53)))
    assert last(*known, up(other.uplink(goes_on)), gap_ns=5_000_000_000) == ("dropped", "flow_waits")
    assert last(*known, up(other.uplink(syn)), gap_ns=5_000_000_000) == ("passes", "spoofed")
    assert last(*known, up(other.uplink(goes_on)), gap_ns=31_000_000_000) == ("passes", "spoofed")


def test_a_flow_goes_on_where_the_core_answers_its_ue_now():
    """The UE has come to another SGW: what it says there is diverted once the core has spoken to it there."""
    answered = down(TWIN.downlink(udp(ELSEWHERE, UE, 53, 1000)))
    known = LEARNT, up(FOUR.uplink(ASKED)), up(TWIN.uplink(udp(UE, ELSEWHERE, 1000, 53)))
    assert last(*known, up(TWIN.uplink(ASKED))) == ("passes", "flow_ambiguous")
    assert last(*known, answered, up(TWIN.uplink(ASKED))) == ("diverted", "diverted")
    assert last(*known, answered, up(FOUR.uplink(ASKED)), up(TWIN.uplink(ASKED))) == (
        "passes",
        "flow_ambiguous",
    )


def test_a_candidate_that_the_core_speaks_to_owns_the_tunnel():
    other = "10.45.0.77"
    stolen = up(FOUR.uplink(udp(other, SERVICE, 1, 2)))
    found = told(LEARNT, SPOKEN_TO, stolen, down(FOUR.downlink(udp(ELSEWHERE, other, 2, 1))), stolen)
    assert [one.outcome.reason for one in found[2:]] == ["spoofed", "downlink", "diverted"]
    assert "candidate_confirmed" in found[3].outcome.learnt
    assert found[2].outcome.detail == "10.45.0.77 in a tunnel of 10.45.0.2"


def test_events_about_one_tunnel_have_a_distance():
    leaks = [up(FOUR.uplink(udp(f"10.46.0.{n}", SERVICE, 1, 2))) for n in range(1, 5)]
    asked = [one.outcome.learnt for one in told(LEARNT, *leaks)]
    assert asked == [("tunnel_learnt",), ("candidate_asked",), (), (), ()]
    nobody = [up(FOUR.uplink(udp("169.254.1.1", SERVICE, 1, 2)))] * 2
    assert [one.outcome.reason for one in told(LEARNT, *nobody)[1:]] == ["spoofed"] * 2


def test_the_address_of_a_service_in_a_tunnel_calms_it():
    odd = [up(FOUR.uplink(udp(SERVICE, ELSEWHERE, 1, 2)))] * 3
    found = told(LEARNT, *odd, gap_ns=200_000_000)
    assert [one.outcome.learnt for one in found[1:]] == [("refused_address",), (), ()]


def test_an_ended_downlink_that_speaks_again_is_another_one():
    ended = down(signal(gtpu.END_MARKER, FOUR.down))
    found = told(LEARNT, SPOKEN_TO, ended, SPOKEN_TO, SPOKEN_TO)
    assert [one.outcome.reason for one in found[3:]] == ["downlink", "tunnel_learnt"]


def test_after_a_handover_the_former_node_may_be_returned_to():
    here, there = FOUR, FOUR.but(enb="10.1.0.99")
    packets = [up(each.uplink(udp(UE, ELSEWHERE, 1, 2))) for each in (here, there, here)]
    assert told(*packets)[-1].outcome.learnt == ("uplink_returned",)


def test_shadow_goes_to_the_core():
    shadow = Service("web", WEB.service_ip, WEB.application_ip, mode=Mode.SHADOW)
    assert last(LEARNT, up(FOUR.uplink(ASKED)), services=[shadow]) == ("shadow", "shadow")
    found = told(LEARNT, up(FIRST), up(SECOND), services=[shadow])
    assert [one.outcome.verdict for one in found[1:]] == [Verdict.SHADOW, Verdict.PASSES]


def selected(**selection):
    return [Service("web", WEB.service_ip, WEB.application_ip, selection=Selection(**selection))]


@pytest.mark.parametrize(
    ("selection", "detail"),
    [
        ({"protocol": 6}, "web: protocol udp is not tcp"),
        (
            {"protocol": 17, "ports": (PortRange(80, 80), PortRange(8000, 8100))},
            "web: port 53 is not 80 or 8000-8100",
        ),
        ({"dscps": frozenset((46, 8))}, "web: DSCP 0 is not 8 or 46"),
        ({"vlans": frozenset((7,))}, "web: VLAN 0 is not 7"),
        ({"ues": (ip_network("10.46.0.0/16"),)}, "web: UE 10.45.0.2 is not 10.46.0.0/16"),
        ({"enbs": (ip_network("10.9.0.0/16"),)}, "web: eNB 10.1.0.11 is not 10.9.0.0/16"),
        ({"sgws": (ip_network("10.9.0.0/16"),)}, "web: SGW 10.1.0.1 is not 10.9.0.0/16"),
    ],
)
def test_the_first_condition_that_does_not_hold_is_named(selection, detail):
    outcome = told(LEARNT, up(FOUR.uplink(ASKED)), services=selected(**selection))[-1].outcome
    assert (outcome.reason, outcome.detail) == ("no_service", detail)
    first = told(up(FOUR.uplink(ASKED)), services=selected(**selection))[-1].outcome
    assert (first.reason, first.detail) == ("tunnel_learnt", detail)


def test_later_fragments_follow_their_first_one_where_ports_decide():
    first, *later = inner_pieces(udp(UE, SERVICE, 1000, 53, bytes(2000)), 800)
    for port, reason in ((53, "diverted"), (80, "no_service")):
        found = told(
            LEARNT, *(up(FOUR.uplink(each)) for each in (first, *later)),
            services=selected(protocol=17, ports=(PortRange(port, port),)),
        )  # fmt: skip
        assert {one.outcome.reason for one in found[1:]} == {reason}


def test_a_reply_of_a_diverted_flow_goes_on_for_thirty_seconds_only():
    asked = up(FOUR.uplink(ASKED)), up(TWIN.uplink(ASKED))
    assert last(*asked, gap_ns=29_000_000_000) == ("passes", "flow_ambiguous")
    assert last(*asked, gap_ns=31_000_000_000) == ("diverted", "diverted")


def test_a_young_tunnel_alone_waits():
    assert last(*TWINS_TCP, TWINS_TCP[-1], gap_ns=1_900_000_000) == ("dropped", "flow_waits")
    assert last(*TWINS_TCP, TWINS_TCP[-1], gap_ns=2_100_000_000) == ("passes", "flow_ambiguous")


def cut(frame, size):
    return Sent(Frame(1, 0, frame[:size], len(frame)), Side.ENB)


def test_a_capture_that_cut_frames():
    frame = FOUR.uplink(udp(UE, SERVICE, 1000, 53, bytes(100)))
    assert explain([cut(frame, 14 + 20 + 8 + 8 + 28)], SERVICES)[0].outcome.reason == "diverted"
    assert explain([cut(frame, 14 + 20 + 8 + 8 + 20)], SERVICES)[0].outcome.reason == "cut"
    assert explain([cut(signal(gtpu.END_MARKER, 1, bytes(8)), 50)], SERVICES)[0].outcome.reason == "cut"
    assert explain([cut(frame, 10)], SERVICES)[0].outcome.reason == "cut"


def test_what_comes_from_where_it_goes_says_nothing_of_sides():
    zero = bytes(6)
    loop = up(FOUR.but(macs=(zero, zero)).uplink(ASKED))
    assert last(loop, loop) == ("diverted", "diverted")
    grouped = up(b"\x01" * 6 + b"\x01" * 5 + b"\x02" + FOUR.uplink(ASKED)[12:])
    assert last(grouped) == ("diverted", "diverted")
    assert last(up(b"short")) == ("passes", "not_gtpu")


def test_a_padded_frame_without_services():
    assert last(up(pieces(FOUR.uplink(LONG), 576)[1]), services=()) == ("passes", "bridged_fragment")
    assert last(up(SIX.uplink(ASKED) + bytes(8)), services=()) == ("teaches", "tunnel_learnt")


def test_six_carried_by_six_in_fragments_of_another_protocol():
    frame = SIX.uplink(ASKED)
    fragmented = frame[:20] + b"\x2c" + frame[21:54] + b"\x06\0\0\0\0\0\0\1" + frame[54:]
    assert last(up(fragmented)) == ("passes", "bridged_fragment")


def test_a_duplicate_of_a_service_is_refused_like_the_api_refuses_it():
    with pytest.raises(Exception, match="already"):
        explain([], [WEB, WEB])


def test_later_fragments_that_came_first_are_of_their_tunnel_too():
    frame = identified(FOUR.uplink(udp(UE, ELSEWHERE, 1, 2, bytes(1000))), 5)
    found = told(LEARNT, *map(up, reversed(pieces(frame, 576))))
    assert {one.tunnel.teid for one in found} == {FOUR.up}
    assert {one.ue for one in found} == {bytes((10, 45, 0, 2))}


@pytest.mark.parametrize("seed", ["a", "b"])
def test_any_frames_are_explained(seed):
    source, served = Source(f"story {seed}"), [(SERVICE_4, EDGE), (SERVICE_6, "fd00:50::10")]
    services = [
        parse({"name": f"s{len(address)}", "serviceIP": address_text(address), "applicationIP": application})
        for address, application in served
    ]
    frames = []
    for number in range(1, 4001):
        side = source.random.choice(list(Side))
        made = source.s1(side.value)
        frame = source.bent(made) if source.random.random() < 0.6 else made.frame
        size = len(frame) + source.random.choice((0, 0, 0, 50))
        frames.append(Sent(Frame(number, number * 1_000_000, frame, size), side))
    found = explain(frames, services)
    assert [one.number for one in found] == list(range(1, 4001))
    assert all(one.outcome.reason in REASONS for one in found)
    assert len({one.outcome.reason for one in found}) > 15


def test_flows_are_grouped_by_tunnel_packet_and_fate():
    asked = up(FOUR.uplink(ASKED))
    found = flows(told(LEARNT, asked, LEARNT, asked, asked, up(FIVE.uplink(ping(FIVE.ue, SERVICE, 7)))))
    assert [(flow.first.number, flow.last, flow.count, flow.first.outcome.reason) for flow in found] == [
        (1, 1, 1, "tunnel_learnt"), (2, 5, 3, "diverted"), (3, 3, 1, "no_service"), (6, 6, 1, "diverted"),
    ]  # fmt: skip


def test_a_service_of_the_api_s_body():
    body = {"name": "dns", "serviceIP": "8.8.8.8", "applicationIP": EDGE}
    asked = up(FOUR.uplink(udp(UE, "8.8.8.8", 1, 53)))
    assert last(asked, services=[parse(body)]) == ("diverted", "diverted")
    assert Bearer("10.45.0.9", 1, 2).enb == FOUR.enb
