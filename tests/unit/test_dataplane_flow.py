"""Rules as values: text, cookies, families."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from tof.dataplane.flow import (
    COOKIE_PREFIX,
    CT_REPLY,
    CT_TRACKED,
    IPV4,
    IPV6,
    Action,
    Commit,
    Flow,
    Goto,
    Inspect,
    Masked,
    Match,
    Output,
    SetField,
    Track,
    bits,
    family,
    is_ours,
    text,
)

MAC = bytes.fromhex("0270ffffffff")


@pytest.mark.parametrize(
    ("match", "expected"),
    [
        ((("in_port", 3),), "in_port=3"),
        ((("eth_type", 0x0800), ("ipv4_dst", b"\x0a\x00\x00\x01")), "ip,nw_dst=10.0.0.1"),
        ((("eth_type", 0x86DD), ("ipv6_src", bytes(15) + b"\x01")), "ipv6,ipv6_src=::1"),
        ((("eth_type", 0x8902),), "dl_type=0x8902"),
        ((("eth_dst", MAC),), "dl_dst=02:70:ff:ff:ff:ff"),
        (
            (("eth_src", Masked(MAC, b"\xff\xff" + bytes(4))),),
            "dl_src=02:70:ff:ff:ff:ff/ff:ff:00:00:00:00",
        ),
        ((("ct_state", Masked(CT_TRACKED, CT_REPLY | CT_TRACKED)),), "ct_state=-rpl+trk"),
        ((("eth_type", 0x0806), ("arp_sha", MAC)), "arp,arp_sha=02:70:ff:ff:ff:ff"),
        ((("ct_tp_dst", Masked(8000, 0xFFF0)),), "ct_tp_dst=8000/65520"),
        ((("ct_state", Masked(CT_REPLY | CT_TRACKED, CT_REPLY | CT_TRACKED)),), "ct_state=+rpl+trk"),
    ],
)
def test_a_match_in_ovs_ofctl_syntax(match: Match, expected: str) -> None:
    flow = Flow(0, 5, match)
    assert text(flow) == f"cookie={flow.cookie:#x}, table=0,priority=5,{expected} actions=drop"


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        (Output(4), "output:4"),
        (Goto(2), "goto_table:2"),
        (SetField("reg0", 7), "set_field:7->reg0"),
        (SetField("ipv4_src", b"\x0a\x00\x00\x01"), "set_field:10.0.0.1->nw_src"),
        (SetField("eth_dst", MAC), "set_field:02:70:ff:ff:ff:ff->dl_dst"),
        (Track(9, 4), "ct(table=4,zone=9,nat)"),
        (Track(9, 4, b"\x0a\x00\x00\x01"), "ct(commit,table=4,zone=9,nat(dst=10.0.0.1))"),
        (Track(9, 4, bytes(15) + b"\x01"), "ct(commit,table=4,zone=9,nat(dst=[::1]))"),
        (Inspect(9, 4), "ct(table=4,zone=9)"),
        (Inspect("reg7", 4), "ct(table=4,zone=NXM_NX_REG7[0..15])"),
        (Commit(9), "ct(commit,zone=9)"),
        (Commit(9, 255), "ct(commit,zone=9,exec(set_field:0xff->ct_mark))"),
        (Commit(9, nat_src=b"\x0a\x00\x00\x01"), "ct(commit,zone=9,nat(src=10.0.0.1))"),
        (Commit(9, 1, bytes(15) + b"\x01"), "ct(commit,zone=9,nat(src=[::1]),exec(set_field:0x1->ct_mark))"),
    ],
)
def test_an_action_in_ovs_ofctl_syntax(action: Action, expected: str) -> None:
    assert text(Flow(0, 5, (), (action, Output(1)))).endswith(f" actions={expected},output:1")


def test_a_cookie_is_stable_and_names_the_rule() -> None:
    flow = Flow(1, 100, (("in_port", 1),), (Output(2),), note="a")
    assert flow.cookie == 0x70FED17D533FE0F1
    same = Flow(1, 100, (("in_port", 1),), (Output(2),), note="b")
    assert (flow, flow.cookie, hash(flow)) == (same, same.cookie, hash(same))
    assert flow.cookie != Flow(1, 100, (("in_port", 1),), (Output(3),)).cookie
    assert is_ours(flow.cookie)
    assert not is_ours(flow.cookie ^ COOKIE_PREFIX)


def test_where_a_rule_continues() -> None:
    assert Flow(1, 1, (), (Output(7), Goto(3))).onward == (3,)
    assert Flow(1, 1, (), (Track(5, 4),)).onward == (4,)
    assert Flow(1, 1, ()).onward == ()


def test_families_and_bits() -> None:
    assert family(ip_address("10.0.0.1").packed) is IPV4
    assert family(ip_address("::1").packed) is IPV6
    assert bits(5) == bits(b"\x00\x05") == bits(Masked(5, 7)) == bits(Masked(b"\x05", b"\x07")) == 5
