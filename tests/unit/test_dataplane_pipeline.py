"""The pipeline as a whole: golden files, checks, and what rendering promises."""

from __future__ import annotations

import runpy
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tof.dataplane.desired import Desired, Mirrors, PingRoute, Ports, ServiceRoute, by_application
from tof.dataplane.flow import Flow, Goto, Masked, Output, SetField, Track
from tof.dataplane.nat import tracked, zone_of, zones
from tof.dataplane.pipeline import check, dump, render
from tof.dataplane.plan import Plan, diff
from tof.dataplane.tables import BACK, CLASSIFIER, DOWN, OUTPUT
from tof.model import IpAddress, Mirror, Service, service_mac

ROOT = Path(__file__).parents[2]
TOOL = runpy.run_path(str(ROOT / "tools" / "render-flows"))
PORTS = Ports(ue=1, heartbeat=2, apps=3, gateway=4, pinger=5)
MAC = bytes.fromhex("02000000a001")
TUNNEL = bytes.fromhex("027000000007")


@pytest.mark.parametrize("name", sorted(TOOL["EXAMPLES"]))
def test_a_golden_file_is_what_the_code_renders(name: str) -> None:
    assert (ROOT / "flows" / f"{name}.flows").read_text() == TOOL["golden"](name)


def test_there_is_no_golden_file_without_its_example() -> None:
    assert {path.stem for path in (ROOT / "flows").glob("*.flows")} == set(TOOL["EXAMPLES"])


def test_every_line_of_a_dump_is_a_rule_a_comment_or_empty() -> None:
    desired = TOOL["EXAMPLES"]["service"][1]
    lines = dump(desired).splitlines()
    assert sum(line.startswith("cookie=0x70f") for line in lines) == len(render(desired))
    assert all(line.startswith(("cookie=0x70f", "# ")) or not line for line in lines)


@pytest.mark.parametrize("action", [Goto(1), Goto(0), Track(1, 1)])
def test_rules_only_go_to_higher_tables(action: Goto | Track) -> None:
    with pytest.raises(ValueError, match="higher table"):
        check([Flow(1, 1, (), (action,))])


IN = ("in_port", 1)
TUNNEL_MACS = Masked(b"\x02\x70" + bytes(4), b"\xff\xff" + bytes(4))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((IN,), (IN, ("eth_type", 0x0800))),
        ((IN,), (("eth_type", 0x0800),)),
        ((IN, ("eth_dst", TUNNEL_MACS)), (IN, ("eth_dst", TUNNEL))),
        ((("reg2", 1), IN), (IN, ("reg2", 1))),
    ],
)
def test_rules_that_tie_are_refused(one: tuple[object, ...], other: tuple[object, ...]) -> None:
    with pytest.raises(ValueError, match="ambiguous"):
        check([Flow(0, 1, one), Flow(0, 1, other)])  # type: ignore[arg-type]


def test_the_same_match_with_other_actions_is_refused() -> None:
    with pytest.raises(ValueError, match="ambiguous"):
        check([Flow(0, 1, (IN,)), Flow(0, 1, (IN,), (Output(2),))])


def test_rules_that_cannot_tie_are_fine() -> None:
    check(
        [
            Flow(0, 1, (IN,)),
            Flow(0, 2, (IN,), (Output(1),)),
            Flow(1, 1, (IN,)),
            Flow(0, 1, (("in_port", 2), ("eth_type", 0x0800))),
            Flow(0, 1, (("in_port", 3), ("eth_dst", TUNNEL_MACS))),
            Flow(0, 1, (("in_port", 3), ("eth_dst", MAC))),
        ]
    )


def test_two_ues_cannot_be_pinged_through_one_tunnel_at_once() -> None:
    pings = (PingRoute(7, b"\x0a\x00\x00\x01", b"\x08" * 4), PingRoute(7, b"\x0a\x00\x00\x02", b"\x08" * 4))
    with pytest.raises(ValueError, match="ambiguous"):
        render(Desired(PORTS, pings=pings))


def test_one_of_several_applications_is_named_without_accounting() -> None:
    _, desired = TOOL["EXAMPLES"]["several-applications"]
    assert render(desired) == render(replace(desired, accounting=True))


def test_eth_src_of_what_a_ue_sends_is_never_rewritten_nor_looked_at() -> None:
    for _, desired in TOOL["EXAMPLES"].values():
        for flow in render(desired):
            written = {action.name for action in flow.actions if isinstance(action, SetField)}
            assert "eth_src" not in written or ("reg3", DOWN) in flow.match
            if ("in_port", PORTS.ue) in flow.match:
                assert "eth_src" not in dict(flow.match)


def test_with_accounting_what_leaves_for_a_ue_names_its_service_and_nothing_else_changes() -> None:
    for _, desired in TOOL["EXAMPLES"].values():
        unnamed = tuple(replace(route, named=False) for route in desired.services)
        desired = replace(desired, services=unnamed)
        plain = {_place(flow): flow for flow in render(replace(desired, accounting=False, mirrors=Mirrors()))}
        told = {_place(flow): flow for flow in render(replace(desired, accounting=True, mirrors=Mirrors()))}
        assert plain.keys() == told.keys()
        names = {SetField("eth_src", service_mac(route.service_id)) for route in desired.services}
        for place, flow in told.items():
            to_ue = ("reg3", DOWN) in flow.match and Output(PORTS.ue) in flow.actions
            if flow == plain[place]:
                assert not to_ue
                continue
            marks = [action for action in flow.actions if action in names]
            assert len(marks) == to_ue
            assert tuple(action for action in flow.actions if action not in names) == plain[place].actions


def test_a_mirror_sees_both_ways_of_its_service_as_the_ue_does_and_changes_nothing_else() -> None:
    mirrors = Mirrors((("mon0", 16),), 7)
    for _, desired in TOOL["EXAMPLES"].values():
        for mirror, port in ((Mirror(interface="mon0"), 16), (Mirror(file="x"), 7), (Mirror("mon1"), None)):
            if not desired.services:
                continue
            first, *others = (
                replace(route, service=replace(route.service, mirror=None)) for route in desired.services
            )
            watched = replace(first, service=replace(first.service, mirror=mirror))
            without = render(replace(desired, services=(first, *others), mirrors=mirrors))
            flows = render(replace(desired, services=(watched, *others), mirrors=mirrors))
            assert {_place(flow) for flow in flows} == {_place(flow) for flow in without}
            if port is None:
                assert flows == without
                continue
            copies = [flow for flow in flows if Output(port) in flow.actions]
            assert copies
            assert flows - frozenset(copies) <= without
            assert {flow.table for flow in copies} == {CLASSIFIER, OUTPUT}
            for flow in copies:
                before = flow.actions[: flow.actions.index(Output(port))]
                way_up = ("in_port", PORTS.ue) in flow.match
                if way_up:
                    assert before == ()
                else:  # what comes from a chain has it already
                    if ("reg3", BACK) not in flow.match:
                        assert before[-1] == SetField("eth_src", service_mac(first.service_id))
                    assert flow.actions[-1] == Output(PORTS.ue)


def _place(flow: Flow) -> tuple[object, ...]:
    return flow.table, flow.priority, flow.match


def test_only_where_the_way_back_needs_it_is_anything_tracked() -> None:
    for name, (_, desired) in TOOL["EXAMPLES"].items():
        tracked = {
            action.zone for flow in render(desired) for action in flow.actions if isinstance(action, Track)
        }
        assert tracked == zones(desired)
        ways = {
            "shared-application",
            "selecting-services",
            "named-services",
            "edge-dns",
            "chains",
            "isolation",
            "marked-chains",
        }
        assert bool(tracked) == (name in ways | {"accounting", "mirror"})


def test_the_zone_of_an_application_is_never_the_hosts() -> None:
    assert zone_of(IPv4Address("192.168.50.40")) == 2357
    assert all(zone_of(IPv4Address(number)) > 0 for number in range(100_000, 300_000, 7))


def test_connection_tracking_serves_applications_whose_way_back_is_not_plain() -> None:
    shared, alone = (route(3, 101, 7), route(4, 102, 7)), route(5, 103, 8)
    prefix = replace(alone.service, name="p", prefix_length=28, application_ip=IPv4Address("192.168.50.9"))
    port = replace(alone.service, name="q", application_port=80, application_ip=IPv4Address("192.168.50.11"))
    assert tracked((*shared, alone)) == {shared[0].service.application_ip}
    assert tracked((alone,)) == frozenset()
    for service in (prefix, port):
        assert tracked((alone, ServiceRoute(service, 9, MAC))) == {service.application_ip}


def test_the_oldest_service_of_an_application_speaks_for_it() -> None:
    (group,) = by_application((route(3, 101, 7), route(2, 7, 7), route(4, 102, 7)))
    assert [one.service_id for one in group] == [2, 3, 4]
    assert [one.transparent for one in group] == [True, False, False]


def test_the_pinger_has_no_rules_without_a_tunnel_being_pinged() -> None:
    pinger = [flow for flow in render(Desired(PORTS)) if ("in_port", PORTS.pinger) in flow.match]
    assert {flow.table for flow in pinger} == {0}


def route(number: int, service: int, application: int) -> ServiceRoute:
    base = 0x0A000000
    name = f"s{number}"
    return ServiceRoute(
        Service(name, IPv4Address(base + service), IPv4Address(base + application)), number, MAC
    )


def address(number: int, version: int) -> IpAddress:
    return IPv4Address(0x0A000000 + number) if version == 4 else IPv6Address((0x20010DB8 << 96) + number)


@st.composite
def services(draw: st.DrawFn) -> tuple[ServiceRoute, ...]:
    service_ips = draw(st.lists(st.integers(0, 40), unique=True, max_size=12))
    drawn = []
    for number, service_ip in enumerate(service_ips):
        version = draw(st.sampled_from((4, 6)))
        application_ip = address(draw(st.integers(30, 45)), version)
        service = Service(f"s{number}", address(service_ip, version), application_ip)
        drawn.append(ServiceRoute(service, number, MAC))
    return tuple(drawn)


@given(services(), st.data())
def test_services_render_independently_unless_they_share_an_application(
    everything: tuple[ServiceRoute, ...], data: st.DataObject
) -> None:
    groups = by_application(everything)
    left = [data.draw(st.booleans()) for _ in groups]
    base = Desired(PORTS)
    a, b = (
        tuple(one for group, at in zip(groups, left, strict=True) for one in group if at is side)
        for side in (True, False)
    )
    assert render(replace(base, services=everything)) == render(replace(base, services=a)) | render(
        replace(base, services=b)
    )


def apply(switch: dict[tuple[object, ...], Flow], plan: Plan) -> dict[tuple[object, ...], Flow]:
    """What a switch does with a plan: same table, priority and match replaces; drop goes by cookie."""
    after = dict(switch)
    for flow in plan.put:
        after[flow.table, flow.priority, frozenset(flow.match)] = flow
    return {key: flow for key, flow in after.items() if flow.cookie not in plan.drop}


def cookies(switch: dict[tuple[object, ...], Flow]) -> dict[int, int]:
    return {flow.cookie: flow.table for flow in switch.values()}


@given(services(), services())
def test_a_plan_turns_any_state_into_the_wanted_one(
    one: tuple[ServiceRoute, ...], other: tuple[ServiceRoute, ...]
) -> None:
    switch = apply({}, diff({}, render(Desired(PORTS, services=one))))
    wanted = render(Desired(PORTS, services=other))
    after = apply(switch, diff(cookies(switch), wanted))
    assert frozenset(after.values()) == wanted
    assert diff(cookies(after), wanted) == Plan()
    assert diff(cookies(after), wanted).empty


def test_a_plan_puts_downstream_first_and_drops_upstream_first() -> None:
    flows = [Flow(table, 1, (IN,)) for table in range(5)]
    plan = diff({}, frozenset(flows))
    assert [flow.table for flow in plan.put] == [4, 3, 2, 1, 0]
    assert not plan.empty
    back = diff({flow.cookie: flow.table for flow in flows}, frozenset())
    assert back.drop == tuple(flow.cookie for flow in flows)
    assert not back.empty


def test_foreign_cookies_are_never_dropped() -> None:
    ours = Flow(0, 1, (IN,))
    assert diff({0x1234: 0, ours.cookie: 0, 0x70E << 52: 1}, frozenset()).drop == (ours.cookie,)
