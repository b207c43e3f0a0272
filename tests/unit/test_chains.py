"""Port-chains: what may be provisioned, and the path that is walked while VNFs die and come back."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.agent_world import World
from tests.chain_walk import DOWN_FRAME, MAC, PORTS, TUNNEL, UP_FRAME, WEB, walk
from tof.agent.catalog import Catalog
from tof.agent.chain_body import MOST_VNFS, chain_body, parse_chain
from tof.agent.chains import Chains
from tof.agent.commands import Converge
from tof.agent.core import Agent
from tof.agent.events import ServicesReplaced, VnfSeen
from tof.agent.policy import parse_policy, policy_body
from tof.agent.services import ServicePlane
from tof.config.reading import parse
from tof.daemon.switch import vnfs_of
from tof.dataplane.desired import DIRECT, Desired, Path, ServiceRoute, Serving, Vnf
from tof.dataplane.flow import Flow, Output, PopVlan, PushVlan
from tof.dataplane.pipeline import render
from tof.drivers.openflow_codec import put_in_bundle
from tof.errors import BadRequest, Conflict, SetupError
from tof.model import GATEWAY_MAC, Chain, Mark, MarkKind, OnFailure, Policy, service_mac

A, B, C = (Vnf(name, 100 + 2 * n, 101 + 2 * n) for n, name in enumerate("abc"))
VLAN = MarkKind.VLAN


# Bodies


@pytest.mark.parametrize(
    "chain",
    [Chain("c", ("a",)), Chain("c", ("a", "b"), OnFailure.SKIP, Mark(VLAN, 40))],
)
def test_a_chain_is_read_as_it_is_written(chain):
    assert parse_chain(chain_body(chain)) == chain


@pytest.mark.parametrize(
    ("body", "field", "why"),
    [
        ({"name": "c", "vnfs": ["a"], "hops": 1}, "hops", "not a field"),
        ({"name": "-c", "vnfs": ["a"]}, "name", "must match"),
        ({"vnfs": ["a"]}, "name", "must match"),
        ({"name": "c"}, "vnfs", "missing"),
        ({"name": "c", "vnfs": []}, "vnfs", "missing"),
        ({"name": "c", "vnfs": [1]}, "vnfs", "list of names"),
        ({"name": "c", "vnfs": [str(n) for n in range(MOST_VNFS + 1)]}, "vnfs", "more than"),
        ({"name": "c", "vnfs": ["a", "b", "a"]}, "vnfs[2]", "walked twice"),
        ({"name": "c", "vnfs": ["a"], "vlan": 4095}, "vlan", "between 1 and 4094"),
        ({"name": "c", "vnfs": ["a"], "vlan": True}, "vlan", "between 1 and 4094"),
        ({"name": "c", "vnfs": ["a"], "dscp": 64}, "dscp", "between 0 and 63"),
        ({"name": "c", "vnfs": ["a"], "nsh": 0}, "nsh", "between 1 and 16777215"),
        ({"name": "c", "vnfs": ["a"], "nsh": 1 << 24}, "nsh", "between 1 and 16777215"),
        ({"name": "c", "vnfs": ["a"], "vlan": 4, "nsh": 1}, "nsh", "one mark, and vlan is one"),
        ({"name": "c", "vnfs": ["a"], "nsh": 4, "dscp": 0}, "nsh", "one mark, and dscp is one"),
        ({"name": "c", "vnfs": ["a"], "onFailure": "pray"}, "onFailure", "neither skip nor core"),
    ],
)
def test_what_is_no_chain_is_refused_by_its_field(body, field, why):
    with pytest.raises(BadRequest, match=why) as refused:
        parse_chain(body)
    assert refused.value.field == field


POLICY = {
    "services": [
        {"name": "web", "serviceIP": "203.0.113.10", "applicationIP": "192.168.50.10", "chain": "watched"}
    ],
    "chains": [{"name": "watched", "vnfs": ["a", "b"]}],
}


def test_a_policy_has_chains():
    assert policy_body(parse_policy(POLICY)) == POLICY
    assert parse_policy(POLICY) == Policy((WEB,), (Chain("watched", ("a", "b")),))


@pytest.mark.parametrize(
    ("change", "field", "kind"),
    [
        ({"chains": []}, "services[0].chain", BadRequest),
        ({"chains": {}}, "chains", BadRequest),
        ({"vnfs": []}, "vnfs", BadRequest),
        ({"chains": [1]}, "chains[0]", BadRequest),
        ({"chains": [{"name": "watched"}]}, "chains[0].vnfs", BadRequest),
        ({"chains": [*POLICY["chains"], *POLICY["chains"]]}, "chains[1].name", Conflict),
    ],
)
def test_what_is_wrong_with_a_policy_s_chains_is_named(change, field, kind):
    with pytest.raises(kind) as refused:
        parse_policy({**POLICY, **change})
    assert refused.value.field == field


def test_a_catalog_knows_the_vnfs_that_there_are():
    catalog = Catalog(vnfs={"a": ()})
    with pytest.raises(BadRequest, match=r"chain watched: vnfs: there is no VNF called b; \[vnfs\] names a"):
        catalog.replace_all([WEB], [Chain("watched", ("a", "b"))])
    assert (catalog.services, catalog.chains) == ((), ())
    with pytest.raises(BadRequest, match="there is no chain called watched"):
        catalog.put_new(WEB)
    catalog.replace_all([WEB], [Chain("watched", ("a",))])
    assert catalog.services == (WEB,)
    with pytest.raises(BadRequest, match="service web: chain: there is no chain called watched"):
        catalog.replace_all([WEB])
    with pytest.raises(BadRequest, match="names none"):
        Catalog(vnfs={}).replace_all([], [Chain("watched", ("a",))])


# Configuration

CONFIG = """
[s1]
enb_interface = "enb0"
sgw_interface = "sgw0"
[ue]
app_interface = "apps0"
"""


def test_vnfs_are_configured():
    config = parse(
        CONFIG
        + '[vnfs.fw]\ningress = "fw0"\negress = "fw1"\n[vnfs.a]\ningress = "a0"\negress = "a1"\nhealth = "frames"'
    )
    assert [(vnf.name, vnf.ingress, vnf.egress, vnf.health) for vnf in config.vnfs] == [
        ("a", "a0", "a1", "frames"), ("fw", "fw0", "fw1", "port"),
    ]  # fmt: skip
    ports = vnfs_of(config)
    assert [vnf.name for vnf in ports] == ["a", "fw"]
    assert ports == vnfs_of(
        parse(CONFIG + '[vnfs.fw]\ningress = "x"\negress = "y"\n[vnfs.a]\ningress = "a0"\negress = "a1"')
    )


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('[vnfs.fw]\ningress = "fw0"', "vnfs.fw.egress: missing"),
        ('[vnfs.fw]\ningress = "fw0"\negress = "fw0"', "vnfs.fw.egress: fw0 is in use already"),
        ('[vnfs.fw]\ningress = "apps0"\negress = "fw0"', "vnfs.fw.ingress: apps0 is in use already"),
        ('[vnfs.fw]\ningress = "a"\negress = "b"\ncolour = 1', "vnfs.fw.colour: unknown key"),
        ('[vnfs.FW]\ningress = "a"\negress = "b"', "vnfs.FW: a name is"),
        ("[vnfs]\nfw = 1", "vnfs.fw: expected a table"),
        ("".join(f'[vnfs.v{n}]\ningress = "i{n}"\negress = "e{n}"\n' for n in range(65)), "64 at most"),
    ],
)
def test_what_is_wrong_with_a_vnf_is_named(text, why):
    with pytest.raises(SetupError, match=why):
        parse(CONFIG + text)


def test_vnfs_whose_names_fall_together_have_ports_of_their_own():
    text = "".join(f'[vnfs.v{n}]\ningress = "i{n}"\negress = "e{n}"\n' for n in range(64))
    numbers = [port for vnf in vnfs_of(parse(CONFIG + text)) for port in (vnf.near, vnf.far)]
    assert len(set(numbers)) == 128


# What is walked


def plane(on_failure=OnFailure.CORE, *alive):
    one = ServicePlane(Catalog(), vnfs=(A, B, C))
    one.replace_all([WEB], [Chain("watched", ("a", "b", "c"), on_failure, Mark(VLAN, 40))])
    one.next_hop_changed(WEB.application_ip, MAC)
    for vnf in alive:
        one.chains.seen(vnf, alive=True)
    return one


def test_a_chain_whose_vnfs_live_is_walked_as_a_whole():
    one = plane(OnFailure.CORE, "a", "b", "c")
    (route,) = one.routes
    assert route.path == Path("watched", (A, B, C), Mark(VLAN, 40), ("a", "b", "c"))
    assert one.served[0].serving is Serving.DIVERT
    assert one.policy == Policy((WEB,), (Chain("watched", ("a", "b", "c"), OnFailure.CORE, Mark(VLAN, 40)),))


def test_a_dead_vnf_breaks_its_chain_and_the_switch_stays_as_it_is():
    one = plane(OnFailure.CORE, "a", "c")
    assert one.chains.dead(WEB) == ("b",)
    assert one.routes[0].path == Path("watched", (A, B, C), Mark(VLAN, 40), ("a", "b", "c"))
    assert one.served[0].serving is Serving.OFF


def test_a_dead_vnf_is_left_out():
    one = plane(OnFailure.SKIP, "a", "c")
    assert one.routes[0].path == Path("watched", (A, C), Mark(VLAN, 40), ("a", "b", "c"))
    assert one.served[0].serving is Serving.DIVERT
    assert one.chains.seen("a", alive=False)
    assert one.chains.seen("c", alive=False)
    assert one.routes[0].path.vnfs == ()
    assert one.served[0].serving is Serving.DIVERT


def test_a_service_without_a_chain_goes_straight_on():
    chains = Chains((A,))
    assert chains.path(replace(WEB, chain=None)) is DIRECT
    assert chains.dead(replace(WEB, chain=None)) == ()
    assert not chains.is_broken(WEB)  # no such chain: the catalog would not have it


def test_the_agent_converges_when_a_vnf_changes():
    world = World()
    world.agent = Agent(replace(world.policy, vnfs=(A,)), Catalog(vnfs={"a": ()}), world.tokens)
    world.say(ServicesReplaced((WEB,), (Chain("watched", ("a",)),)))
    assert world.say(VnfSeen("a", True)) == [Converge(2)]
    assert world.say(VnfSeen("a", True)) == []
    assert world.say(VnfSeen("a", False)) == [Converge(3)]


# The pipeline, walked packet by packet


def desired(path: Path) -> Desired:
    return Desired(PORTS, services=(ServiceRoute(WEB, 12, MAC, path),), vnfs=(A, B, C))


@given(st.permutations([A, B, C]), st.integers(0, 3), st.sampled_from([None, 40]))
def test_a_packet_walks_its_chain_and_its_answer_walks_back(vnfs, length, vlan):
    path = Path("watched", tuple(vnfs[:length]), None if vlan is None else Mark(VLAN, vlan))
    flows = render(desired(path))
    ups, frame = [], UP_FRAME
    while (left := walk(flows, frame))[0] != PORTS.apps:
        assert left[1]["vlan_vid"] == (0 if vlan is None else 0x1000 | vlan)
        assert left[1]["ipv4_dst"] == UP_FRAME["ipv4_dst"]  # VNFs see the service's address
        ups.append(left[0])
        frame = {**left[1], "in_port": left[0] + 1}
    assert ups == [vnf.near for vnf in path.vnfs]
    assert (left[1]["eth_dst"], left[1]["eth_src"], left[1]["vlan_vid"]) == (MAC, TUNNEL, 0)
    downs, frame = [], DOWN_FRAME
    while (left := walk(flows, frame))[0] != PORTS.ue:
        assert (left[1]["eth_src"], left[1]["eth_dst"]) == (service_mac(12), GATEWAY_MAC)
        downs.append(left[0])
        frame = {**left[1], "in_port": left[0] - 1}
    assert downs == [vnf.far for vnf in reversed(path.vnfs)]
    assert (left[1]["eth_dst"], left[1]["vlan_vid"]) == (GATEWAY_MAC, 0)


def test_what_is_in_a_vnf_that_the_chain_has_left_goes_on():
    flows = render(desired(Path("watched", (A,))))
    port, frame = walk(flows, {**UP_FRAME, "in_port": B.far})
    assert (port, frame["eth_dst"]) == (PORTS.apps, MAC)
    port, frame = walk(flows, {**DOWN_FRAME, "in_port": C.near, "eth_src": service_mac(12)})
    assert (port, frame["eth_dst"]) == (PORTS.ue, GATEWAY_MAC)
    marked = {**UP_FRAME, "in_port": B.far, "vlan_vid": 0x1000 | 40}
    assert walk(flows, marked)[0] == PORTS.apps


@pytest.mark.parametrize(
    "change",
    [
        {"in_port": A.far, "eth_dst": TUNNEL},
        {"in_port": A.far, "eth_dst": GATEWAY_MAC},
        {"in_port": A.near, "eth_src": MAC},
        {"in_port": A.near, "eth_src": service_mac(12), "eth_dst": MAC},
        {"in_port": A.far, "eth_dst": service_mac(99)},
        {"in_port": A.far, "eth_type": 0x0806},
    ],
)
def test_a_vnf_says_nothing_of_its_own(change):
    assert walk(render(desired(Path("watched", (A,)))), {**UP_FRAME, **change}) is None


def test_a_vnf_s_answer_to_a_ue_picks_no_tunnel():
    flows = render(desired(Path("watched", (A,))))
    port, frame = walk(
        flows, {**DOWN_FRAME, "in_port": A.near, "eth_src": service_mac(12), "eth_dst": TUNNEL}
    )
    assert (port, frame["eth_dst"]) == (PORTS.ue, GATEWAY_MAC)


def test_without_vnfs_there_are_no_rules_for_any():
    plain = replace(WEB, chain=None)
    flows = render(Desired(PORTS, services=(ServiceRoute(plain, 12, MAC),)))
    assert not any(value == 3 for flow in flows for name, value in flow.match if name == "reg3")
    assert not any(flow.priority == 50 for flow in flows if flow.table == 1)


def test_tags_are_pushed_and_popped_by_openflow():
    pushed = put_in_bundle(1, 1, Flow(2, 1, (("in_port", 1),), (PushVlan(40), Output(2))))
    assert bytes.fromhex("00110008810000000019001080000c02102800") in pushed.replace(b"", b"")
    popped = put_in_bundle(1, 1, Flow(2, 1, (("in_port", 1),), (PopVlan(), Output(2))))
    assert bytes.fromhex("0012000800000000") in popped


def test_a_policy_without_services_is_refused():
    with pytest.raises(BadRequest, match="services is missing"):
        parse_policy({"chains": []})
