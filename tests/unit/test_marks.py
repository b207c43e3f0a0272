"""Marks of port-chains: what VNFs see of them that speak them, and that nothing of them is left behind."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.chain_walk import DOWN_FRAME, MAC, PORTS, UP_FRAME, WEB, walk
from tof.agent.catalog import Catalog
from tof.agent.chain_body import chain_body, parse_chain
from tof.agent.chains import Chains
from tof.agent.policy import parse_policy, policy_body
from tof.config.reading import parse
from tof.daemon.switch import vnfs_of
from tof.dataplane.desired import Desired, Path, ServiceRoute, Vnf
from tof.dataplane.flow import (
    NSH,
    Flow,
    Goto,
    Output,
    PassNsh,
    PopNsh,
    PushNsh,
    RestoreDscp,
    StowDscp,
    text,
)
from tof.dataplane.pipeline import check, render
from tof.drivers.openflow_codec import put_in_bundle
from tof.errors import BadRequest, Conflict, SetupError
from tof.model import FAR_MAC, GATEWAY_MAC, NEAR_MAC, Chain, Mark, MarkKind, OnFailure, service_mac

ALL = frozenset(MarkKind)
A, B, C = (Vnf(name, 100 + 2 * n, 101 + 2 * n, ALL) for n, name in enumerate("abc"))
MUTE = Vnf("mute", 200, 201, frozenset())
VLAN, DSCP, SPI = Mark(MarkKind.VLAN, 40), Mark(MarkKind.DSCP, 10), Mark(MarkKind.NSH, 77)


def desired(*vnfs: Vnf, mark: Mark | None, whole: tuple[str, ...] = ()) -> Desired:
    path = Path("watched", vnfs, mark, whole)
    return Desired(PORTS, services=(ServiceRoute(WEB, 12, MAC, path),), vnfs=(A, B, C, MUTE))


def mark_of(frame: dict) -> Mark | None:
    """What a VNF can tell a chain by."""
    if frame["eth_type"] == NSH:
        return Mark(MarkKind.NSH, frame["nsh_spi"])
    if frame["vlan_vid"]:
        return Mark(MarkKind.VLAN, frame["vlan_vid"] & 0xFFF)
    service = frame["eth_dst"] if frame["eth_dst"][1] != 0x70 else frame["eth_src"]
    return Mark(MarkKind.DSCP, frame["ip_dscp"]) if service[1] == 0x74 else None


def through(flows: frozenset[Flow], frame: dict, step: int, end: int) -> tuple[list, dict]:
    """The ports of VNFs that it is given to, with what it is there, and what leaves in the end."""
    seen = []
    while (left := walk(flows, frame))[0] != end:
        seen.append(left)
        frame = {**left[1], "in_port": left[0] + step}
    return seen, left[1]


@given(st.permutations([A, B, C, MUTE]), st.integers(0, 4), st.sampled_from([None, VLAN, DSCP, SPI]))
def test_vnfs_see_the_marks_that_they_speak_and_nobody_else_any(order, length, mark):
    walked = tuple(order[:length])
    flows = render(desired(*walked, mark=mark))
    seen, out = through(flows, UP_FRAME, 1, PORTS.apps)
    assert [port for port, _ in seen] == [vnf.near for vnf in walked]
    assert [mark_of(frame) for _, frame in seen] == [None if vnf is MUTE else mark for vnf in walked]
    assert out == {**walk(render(desired(mark=None)), UP_FRAME)[1], "in_port": out["in_port"]}
    seen, out = through(flows, DOWN_FRAME, -1, PORTS.ue)
    assert [port for port, _ in seen] == [vnf.far for vnf in reversed(walked)]
    assert [mark_of(frame) for _, frame in seen] == [None if vnf is MUTE else mark for vnf in walked[::-1]]
    assert (out["ip_dscp"], out["vlan_vid"], out["eth_dst"]) == (DOWN_FRAME["ip_dscp"], 0, GATEWAY_MAC)
    assert out["eth_src"] == (service_mac(12) if walked else MAC)


@given(st.integers(0, 63), st.integers(0, 63))
def test_a_packet_has_its_own_dscp_again(own, marked):
    flows = render(desired(A, MUTE, B, mark=Mark(MarkKind.DSCP, marked)))
    seen, out = through(flows, {**UP_FRAME, "ip_dscp": own}, 1, PORTS.apps)
    assert [frame["ip_dscp"] for _, frame in seen] == [marked, own, marked]
    assert out["ip_dscp"] == own
    seen, out = through(flows, {**DOWN_FRAME, "ip_dscp": own}, -1, PORTS.ue)
    assert [frame["ip_dscp"] for _, frame in seen] == [marked, own, marked]
    assert out["ip_dscp"] == own


def indices(seen: list) -> list[int | None]:
    return [frame.get("nsh_si") for _, frame in seen]


def test_the_service_index_says_which_place_of_the_path_a_frame_is_at():
    flows = render(desired(A, MUTE, B, C, mark=SPI))
    seen, _ = through(flows, UP_FRAME, 1, PORTS.apps)
    assert indices(seen) == [255, None, 253, 252]
    assert {(f["eth_src"], f["eth_dst"]) for _, f in seen if f["eth_type"] == NSH} == {(NEAR_MAC, FAR_MAC)}
    seen, _ = through(flows, DOWN_FRAME, -1, PORTS.ue)
    assert indices(seen) == [251, 250, None, 248]
    assert {(f["eth_src"], f["eth_dst"]) for _, f in seen if f["eth_type"] == NSH} == {(FAR_MAC, NEAR_MAC)}


def test_vnfs_that_are_left_out_do_not_move_the_others():
    flows = render(desired(B, C, mark=SPI, whole=("a", "b", "mute", "c")))
    assert indices(through(flows, UP_FRAME, 1, PORTS.apps)[0]) == [254, 252]
    assert indices(through(flows, DOWN_FRAME, -1, PORTS.ue)[0]) == [251, 249]


def test_between_vnfs_that_speak_nsh_the_header_stays():
    flows = render(desired(A, B, mark=SPI))
    _, frame = walk(flows, UP_FRAME)
    said = {**frame, "in_port": A.far, "nsh_c1": 4711, "nsh_si": 254}
    port, onward = walk(flows, said)
    assert (port, onward["nsh_c1"], onward["nsh_si"], onward["nsh_ttl"]) == (B.near, 4711, 254, 62)
    assert walk(flows, {**onward, "in_port": B.far})[1]["ip_dscp"] == UP_FRAME["ip_dscp"]


def test_a_frame_in_a_vnf_survives_any_change_of_marks():
    for before in (None, VLAN, DSCP, SPI):
        _, frame = walk(render(desired(A, mark=before)), UP_FRAME)
        _, back = walk(render(desired(A, mark=before)), DOWN_FRAME)
        for after in (None, VLAN, DSCP, SPI, replace_number(SPI), replace_number(DSCP)):
            for vnfs in ((A,), (B,), (A, B), (B, A), ()):
                flows = render(desired(*vnfs, mark=after))
                _, out = through(flows, {**frame, "in_port": A.far}, 1, PORTS.apps)
                assert (out["ip_dscp"], out["vlan_vid"], out["eth_dst"]) == (46, 0, MAC)
                _, out = through(flows, {**back, "in_port": A.near}, -1, PORTS.ue)
                assert (out["ip_dscp"], out["vlan_vid"], out["eth_src"]) == (34, 0, service_mac(12))


def replace_number(mark: Mark) -> Mark:
    return Mark(mark.kind, mark.number + 1)


def test_a_vnf_gives_back_nothing_else_in_its_mark():
    flows = render(desired(A, MUTE, mark=SPI))
    _, frame = walk(flows, UP_FRAME)
    inner = frame["inner"]
    for change in (
        {"in_port": MUTE.far},  # speaks no NSH
        {"nsh_np": 1},
        {"inner": {**inner, "vlan_vid": 0x1000 | 5}},
        {"inner": {**inner, "eth_dst": service_mac(99)}},
        {"inner": {**inner, "eth_type": 0x0806}},
        {"inner": {**inner, "eth_type": NSH}},
    ):
        assert walk(flows, {**frame, "in_port": A.far, **change}) is None, change
    stowed = walk(render(desired(A, mark=DSCP)), UP_FRAME)[1]
    for change in ({"in_port": MUTE.far}, {"vlan_vid": 0x1000}, {"eth_dst": b"\x01" + stowed["eth_dst"][1:]}):
        assert walk(flows, {**stowed, "in_port": A.far, **change}) is None, change


def test_nothing_goes_on_with_a_header_that_was_just_put_on():
    push = PushNsh(77, 255, NEAR_MAC, FAR_MAC)
    check([Flow(0, 1, (("in_port", 1),), (push, Output(2)))])
    with pytest.raises(ValueError, match="put on"):
        check([Flow(0, 1, (("in_port", 1),), (push, Goto(2)))])


# What may be provisioned


def test_marks_are_read_as_they_are_written():
    for mark in (VLAN, DSCP, SPI, Mark(MarkKind.DSCP, 0), Mark(MarkKind.NSH, (1 << 24) - 1)):
        chain = Chain("c", ("a",), OnFailure.SKIP, mark)
        assert parse_chain(chain_body(chain)) == chain
    policy = {"services": [], "chains": [{"name": "c", "vnfs": ["a"], "nsh": 77}]}
    assert policy_body(parse_policy(policy)) == policy


def test_two_chains_have_two_service_path_identifiers():
    chains = [{"name": name, "vnfs": [name], "nsh": 77} for name in "cd"]
    with pytest.raises(Conflict, match="chains c and d have the same service path identifier, 77") as refused:
        parse_policy({"services": [], "chains": chains})
    assert refused.value.field == "chains[1].nsh"
    catalog = Catalog()
    with pytest.raises(Conflict, match="chain d: nsh: chains c and d"):
        catalog.replace_all([], [Chain(name, (name,), mark=SPI) for name in "cd"])
    assert catalog.chains == ()
    catalog.replace_all([], [Chain("c", ("a",), mark=SPI), Chain("d", ("a",), mark=replace_number(SPI))])


def test_a_vnf_can_tell_chains_by_their_dscp():
    catalog = Catalog(vnfs={"a": {MarkKind.DSCP}, "b": {MarkKind.DSCP}, "m": {MarkKind.VLAN}})
    one, other = Chain("one", ("a", "m"), mark=DSCP), Chain("other", ("b", "m"), mark=DSCP)
    catalog.replace_all([], [one, other])  # the VNF that they share is not shown it
    with pytest.raises(Conflict, match=r"the same, 10, and share the VNF a") as refused:
        catalog.replace_all([], [one, replace(other, vnfs=("b", "a"))])
    assert refused.value.field == "dscp"
    tagged = [Chain(name, ("m",), mark=VLAN) for name in "cd"]
    catalog.replace_all([], tagged)


def test_somebody_has_to_speak_the_mark():
    catalog = Catalog(vnfs={"a": {MarkKind.VLAN, MarkKind.NSH}, "b": {MarkKind.VLAN}})
    with pytest.raises(BadRequest, match=r"chain c: dscp: none of its VNFs has it") as refused:
        catalog.replace_all([], [Chain("c", ("a", "b"), mark=DSCP)])
    assert refused.value.field == "dscp"
    catalog.replace_all([], [Chain("c", ("a", "b"), mark=SPI)])


def test_the_places_of_a_path_are_those_of_its_chain():
    chains = Chains((A, B))
    chains.replace_all([Chain("watched", ("a", "b"), OnFailure.SKIP, SPI)])
    chains.seen("b", alive=True)
    assert chains.path(WEB) == Path("watched", (B,), SPI, ("a", "b"))


CONFIG = """
[s1]
enb_interface = "enb0"
sgw_interface = "sgw0"
[ue]
app_interface = "apps0"
[vnfs.fw]
ingress = "fw0"
egress = "fw1"
"""


@pytest.mark.parametrize(
    ("line", "speaks"),
    [
        ("", {MarkKind.VLAN}),
        ("speaks = []", set()),
        ('speaks = "nsh"', {MarkKind.NSH}),
        ('speaks = ["dscp", "vlan"]', {MarkKind.VLAN, MarkKind.DSCP}),
    ],
)
def test_what_a_vnf_speaks_is_configured(line, speaks):
    (vnf,) = vnfs_of(parse(CONFIG + line))
    assert vnf.speaks == speaks


def test_a_language_that_nobody_knows_is_refused():
    with pytest.raises(SetupError, match=r"vnfs.fw.speaks\[1\]: expected vlan or dscp or nsh"):
        parse(CONFIG + 'speaks = ["vlan", "mpls"]')


# OpenFlow


@pytest.mark.parametrize(
    ("action", "encoded", "written"),
    [
        (
            StowDscp("eth_dst"),
            "ffff001800002320000600060000002a8000100180000606"
            "ffff001800002320000708098000060600000000000002"
            "74",
            "move:ip_dscp[0..5]->eth_dst[42..47],load:0x274->eth_dst[32..41]",
        ),
        (
            RestoreDscp("eth_src"),
            "ffff00180000232000060006002a00008000080680001001",
            "move:eth_src[42..47]->ip_dscp[0..5],load:0x272->eth_src[32..47]",
        ),
        (
            PushNsh(77, 254, NEAR_MAC, FAR_MAC),
            "ffff001800002320002e00000001894f0004010501000000",
            "encap(nsh(md_type=1)),set_field:77->nsh_spi,set_field:254->nsh_si,encap(ethernet),"
            "load:0x273->eth_src[32..47],set_field:02:75:00:00:00:00->dl_dst",
        ),
        (PopNsh(), "ffff001000002320002f00000000fffe" * 2, "decap(),decap()"),
        (
            PassNsh(250, FAR_MAC, NEAR_MAC),
            "00190010ffff0a05005ad650fa",
            "set_field:250->nsh_si,dec_nsh_ttl,"
            "set_field:02:75:00:00:00:00->dl_src,set_field:02:73:00:00:00:00->dl_dst",
        ),
    ],
)
def test_marks_in_openflow(action, encoded, written):
    flow = Flow(2, 1, (("in_port", 3), ("eth_type", 0x0800)), (action, Output(2)))
    assert text(flow).endswith(f"actions={written},output:2")
    assert encoded in put_in_bundle(1, 1, flow).hex()
