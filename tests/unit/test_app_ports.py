"""Application ports: what is configured, what the agent makes of them, and what br-ue does at them."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from pathlib import Path

import pytest

from tests.agent_world import World
from tof.agent.catalog import Catalog
from tof.agent.commands import Command, Converge
from tof.agent.events import AppPortsChanged, Event, NextHopChanged, ServiceAdded
from tof.agent.plugged import Plugged
from tof.agent.services import ServicePlane
from tof.config import Application
from tof.config.reading import parse
from tof.daemon.plugged import Plugged as PluggedPort
from tof.daemon.plugged import PluggedFile
from tof.dataplane import nat
from tof.dataplane.applications import link_local
from tof.dataplane.desired import AppPort, Desired, Ports, ServiceRoute, Vnf
from tof.dataplane.desired import Path as Path_
from tof.dataplane.flow import CT_REPLY, Commit, Flow, Goto, Inspect, Masked, Output, SetField, bits
from tof.dataplane.pipeline import render
from tof.dataplane.refusals import refusals
from tof.dataplane.security import TRUSTED, membership, openings, port_values, remote_groups
from tof.dataplane.tables import CLASSIFIER, EGRESS, INGRESS, LAN, OUTPUT, PORTS, REMOTE
from tof.drivers.openflow_codec import put_in_bundle
from tof.errors import BackendError, SetupError
from tof.model import (
    GATEWAY_MAC,
    Heading,
    Initiates,
    PortRange,
    SecurityGroup,
    SecurityRule,
    Service,
)

AT = Ports(ue=1, heartbeat=2, apps=3, gateway=4, pinger=5)
OURS = (ip_address("192.168.50.1"), ip_address("fd00:50::1"))
ONE = AppPort(
    "one",
    0x8001,
    bytes.fromhex("020000000501"),
    (ip_address("192.168.50.21"), ip_address("fd00:50::21")),
    ("web",),
)
TWO = AppPort(
    "two", 0x8002, bytes.fromhex("020000000502"), (ip_address("192.168.50.22"),), ("db", "unheard-of")
)
POSTGRES = (PortRange(5432, 5432),)
GROUPS = (
    SecurityGroup(
        "web",
        (
            SecurityRule(Heading.EGRESS, 6, POSTGRES, group="db"),
            SecurityRule(Heading.EGRESS, 17, ues=True),
            SecurityRule(Heading.INGRESS, 1),
        ),
    ),
    SecurityGroup(
        "db",
        (
            SecurityRule(Heading.INGRESS, 6, POSTGRES, group="web"),
            SecurityRule(Heading.INGRESS, None, prefix=ip_network("192.168.50.64/26")),
        ),
    ),
)
VIDEO = Service("video", ip_address("203.0.113.10"), ip_address("192.168.50.21"))

CONFIG = """
[s1]
enb_interface = "enb0"
sgw_interface = "sgw0"
[ue]
app_interface = "apps0"
app_gateway = "192.168.50.254"
[mirror]
interfaces = ["mon0"]
[vnfs.fw]
ingress = "fw0"
egress = "fw1"
"""
APPLICATION = """
[applications.web]
interface = "app-web"
mac = "02:00:00:00:05:01"
addresses = ["192.168.50.21", "fd00:50::21"]
security_groups = "web"
"""


# Configuration


def test_applications_are_configured() -> None:
    second = '[applications.a]\ninterface = "app-a"\nmac = "52:54:00:00:00:0A"\naddresses = "192.168.50.22"\n'
    assert parse(CONFIG + APPLICATION + second).applications == (
        Application("a", "app-a", bytes.fromhex("52540000000a"), (IPv4Address("192.168.50.22"),)),
        Application(
            "web",
            "app-web",
            bytes.fromhex("020000000501"),
            (IPv4Address("192.168.50.21"), IPv6Address("fd00:50::21")),
            ("web",),
        ),
    )


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("applications.web", 'applications."-"', "applications.-: a name is"),
        ('interface = "app-web"', "", "applications.web.interface: missing"),
        ('"app-web"', '"enb0"', "applications.web.interface: enb0 is in use already"),
        ('"app-web"', '"apps0"', "applications.web.interface: apps0 is in use already"),
        ('"app-web"', '"mon0"', "applications.web.interface: mon0 is in use already"),
        ('"app-web"', '"fw1"', "applications.web.interface: fw1 is in use already"),
        ('"app-web"', '"tofgw0"', "applications.web.interface: tofgw0 is in use already"),
        ('"app-web"', '"app-b"', "applications.b.interface: app-b is in use already"),
        ("02:00:00:00:05:01", "02:00:00:00:05", "applications.web.mac: expected a MAC address"),
        ("02:00:00:00:05:01", "02:70:00:00:00:01", "applications.web.mac: 02:70:00:00:00:01 is the TOF's"),
        ("02:00:00:00:05:01", "02:72:00:00:00:01", "applications.web.mac: 02:72:00:00:00:01 is the TOF's"),
        (
            "02:00:00:00:05:01",
            "01:00:00:00:00:01",
            "applications.web.mac: 01:00:00:00:00:01 is no address of one",
        ),
        (
            "02:00:00:00:05:01",
            "00:00:00:00:00:00",
            "applications.web.mac: 00:00:00:00:00:00 is no address of one",
        ),
        ("02:00:00:00:05:01", "02:00:00:00:05:0b", "applications.b.mac: 02:00:00:00:05:0b is given twice"),
        (
            '"fd00:50::21"',
            '"192.168.50.1"',
            "applications.web.addresses: 192.168.50.1 is an address of the TOF",
        ),
        ('"fd00:50::21"', '"192.168.50.254"', "192.168.50.254 is an address of ue.app_gateway"),
        ('"fd00:50::21"', '"192.168.50.23"', "192.168.50.23 is an address of applications.web"),
        ('"fd00:50::21"', '"fe80::1"', "applications.web.addresses[1]: expected a global unicast"),
        (
            '"fd00:50::21"',
            ", ".join(f'"10.0.0.{n}"' for n in range(8)),
            "9 of them; an application has 1 to 8",
        ),
        ('"web"', '"-"', "applications.web.security_groups: expected the name of a security group"),
        ('= "web"', f"= {[f'g{n}' for n in range(17)]}", "security_groups: 17 of them; 16 at most"),
        ('= "web"', '= "web"\nspeed = 1', "applications.web.speed: unknown key"),
    ],
)
def test_what_is_wrong_with_an_application_is_named(old: str, new: str, message: str) -> None:
    second = '[applications.b]\ninterface = "app-b"\nmac = "02:00:00:00:05:0b"\naddresses = "192.168.50.23"\n'
    with pytest.raises(SetupError) as caught:
        parse(CONFIG + APPLICATION.replace(old, new, 1) + second)
    assert message in str(caught.value)


def test_there_are_only_so_many_applications() -> None:
    many = "".join(
        f'[applications.a{n}]\ninterface = "x{n}"\nmac = "52:54:00:00:{n >> 8:02x}:{n & 255:02x}"\n'
        f'addresses = "10.1.{n >> 8}.{n & 255}"\n'
        for n in range(1025)
    )
    with pytest.raises(SetupError, match="there are 1024 already"):
        parse(CONFIG + many)


def test_each_application_of_each_instance_has_its_own_devices() -> None:
    names = parse(CONFIG).names
    other = parse(CONFIG + '[agent]\nname = "two"').names
    pairs = [names.app_pair("one"), names.app_pair("two"), other.app_pair("one")]
    assert len({end for pair in pairs for end in pair}) == 6
    assert all(len(end) < 16 for pair in pairs for end in pair)


# The agent


def tell(world: World, event: Event) -> list[Command]:
    return world.agent.handle(event, 0.0)


def test_an_application_with_a_port_needs_no_asking_but_a_link() -> None:
    world = World()
    services = world.agent.services
    world.agent.handle(ServiceAdded(VIDEO), 0.0)
    assert services.applications == {VIDEO.application_ip}
    assert tell(world, AppPortsChanged((TWO, ONE), frozenset())) == [Converge(world.agent.revision)]
    assert services.plugged.ports == (ONE, TWO)
    assert services.applications == frozenset()
    assert (services.is_resolved(VIDEO.application_ip), services.routes) == (False, ())
    assert tell(world, AppPortsChanged((TWO, ONE), frozenset({"one"}))) == [Converge(world.agent.revision)]
    assert tell(world, AppPortsChanged((TWO, ONE), frozenset({"one"}))) == []
    (route,) = services.routes
    assert (route.next_hop_mac, route.own_port, route.opens) == (ONE.mac, True, False)
    tell(world, NextHopChanged(VIDEO.application_ip, b"spoofs"))
    assert services.next_hop(VIDEO.application_ip) == ONE.mac
    tell(world, AppPortsChanged((), frozenset()))
    assert services.plugged.mac(VIDEO.application_ip) is None
    assert not services.plugged.has(VIDEO.application_ip)


def test_groups_are_part_of_what_is_provisioned() -> None:
    plane = ServicePlane(Catalog())
    plane.replace_all([VIDEO], (), reversed(GROUPS))
    assert plane.policy.groups == (GROUPS[1], GROUPS[0])
    plane.replace_all([VIDEO])
    assert plane.policy.groups == ()


# What br-ue does

DESIRED = Desired(AT, OURS, app_ports=(ONE, TWO), groups=GROUPS)


def flows(desired: Desired, table: int, **match: object) -> list[Flow]:
    return [
        flow
        for flow in render(desired)
        if flow.table == table and all(dict(flow.match).get(name) == value for name, value in match.items())
    ]


def test_without_application_ports_nothing_is_there_for_them() -> None:
    assert not {flow.table for flow in render(Desired(AT, OURS))} & {EGRESS, LAN, INGRESS}


def test_a_port_says_only_what_is_its_own() -> None:
    for port in (ONE, TWO):
        for flow in flows(DESIRED, PORTS, in_port=port.port):
            match = dict(flow.match)
            if not flow.actions:
                continue
            assert match["eth_src"] == port.mac
            own = {address.packed for address in port.addresses} | {link_local(port.mac).packed}
            sources = [match[name] for name in ("ipv4_src", "ipv6_src", "arp_spa") if name in match]
            assert len(sources) == 1
            assert sources[0] in own
            assert match.get("arp_sha", port.mac) == port.mac
            assert match.get("ipv6_nd_sll", port.mac) in (port.mac, bytes(6))
            assert match.get("ipv6_nd_tll", port.mac) in (port.mac, bytes(6))
            if match.get("icmpv6_type") == 136:
                assert match["ipv6_nd_target"] in own
            else:
                assert link_local(port.mac).packed not in sources or match["icmpv6_type"] == 135


def test_to_ues_goes_what_is_for_the_gateway_and_all_else_is_judged() -> None:
    for flow in flows(DESIRED, PORTS, in_port=ONE.port):
        match = dict(flow.match)
        is_packet = flow.actions and (
            "ipv4_src" in match or ("ipv6_src" in match and "icmpv6_type" not in match)
        )
        if Goto(CLASSIFIER) in flow.actions:
            assert match["eth_dst"] == GATEWAY_MAC
        elif is_packet:
            assert flow.actions == (SetField("reg5", 2), SetField("reg7", ONE.zone), Goto(REMOTE))
    for flow in flows(DESIRED, REMOTE):
        assert flow.actions[-1] == Inspect("reg7", EGRESS)


def test_nobody_behind_the_apps_adapter_is_another() -> None:
    taken = {address.packed for address in (*OURS, *ONE.addresses, *TWO.addresses)}
    refused = [
        flow for flow in flows(DESIRED, PORTS, in_port=AT.apps) if not flow.actions and flow.priority > 300
    ]
    assert taken <= {value for flow in refused for name, value in flow.match if name in ("arp_spa", "ipv4_src", "ipv6_src")
                     if isinstance(value, bytes)}  # fmt: skip


def test_what_is_for_a_port_reaches_it_alone_and_after_its_rules() -> None:
    for table, source in ((PORTS, AT.apps), (PORTS, AT.gateway), (LAN, None)):
        where = {} if source is None else {"in_port": source}
        (flow,) = flows(DESIRED, table, ipv4_dst=TWO.addresses[0].packed, **where)
        assert flow.actions[-1] == Inspect(TWO.zone, INGRESS)
        (flow,) = flows(DESIRED, table, arp_tpa=TWO.addresses[0].packed, **where)
        assert flow.actions == (Output(TWO.port),)


def test_zones_of_ports_are_nobody_elses() -> None:
    assert {port.zone for port in (ONE, TWO)} == {0x8001, 0x8002}
    assert all(nat.zone_of(IPv4Address(number)) <= nat.MOST_ZONE for number in range(100_000, 200_000, 7))


def test_by_default_only_the_tof_and_what_answers_it_pass() -> None:
    desired = replace(DESIRED, groups=())
    for table in (EGRESS, INGRESS):
        for flow in flows(desired, table):
            marks = {action.mark for action in flow.actions if isinstance(action, Commit)}
            assert not flow.actions or marks == {TRUSTED} or dict(flow.match)["ct_mark"] == TRUSTED


def test_the_tof_s_dns_server_may_be_asked_without_a_rule() -> None:
    dns = ip_address("192.168.50.53")
    asking = flows(replace(DESIRED, local=(dns,)), EGRESS, in_port=TWO.port, ct_nw_dst=dns.packed)
    said = {flow.match[4:] for flow in asking}
    assert said == {
        (("ct_nw_proto", 1), ("ct_tp_src", 8)),
        (("ct_nw_proto", 6), ("ct_tp_dst", 53)),
        (("ct_nw_proto", 17), ("ct_tp_dst", 53)),
    }


def test_a_rule_lets_its_flows_in_or_out_and_marks_them() -> None:
    out, _ = [flow for flow in flows(DESIRED, EGRESS, in_port=ONE.port) if ("ct_nw_proto", 6) in flow.match]
    match = dict(out.match)
    assert match["ct_tp_dst"] == 5432
    (remote,) = flows(DESIRED, REMOTE, ipv4_dst=TWO.addresses[0].packed)
    assert SetField("reg6", 1) in remote.actions
    assert match["reg6"] == Masked(1, 1)
    commit, onward = out.actions
    assert isinstance(commit, Commit)
    assert (commit.zone, onward) == (ONE.zone, Goto(LAN))
    for table, place in ((EGRESS, {"in_port": ONE.port}), (INGRESS, {"reg4": ONE.port})):
        assert len(flows(DESIRED, table, ct_mark=commit.mark, **place)) == 1
    assert not flows(replace(DESIRED, groups=GROUPS[1:]), EGRESS, ct_mark=commit.mark)


def test_what_is_held_against_the_rules_is_no_reply() -> None:
    for flow in (*flows(DESIRED, EGRESS), *flows(DESIRED, INGRESS)):
        if any(isinstance(action, Commit) for action in flow.actions):
            state = dict(flow.match)["ct_state"]
            assert isinstance(state, Masked)
            assert not bits(state) & CT_REPLY
            assert int(state.mask) & CT_REPLY  # type: ignore[arg-type]


def test_remotes_are_of_the_rule_s_families() -> None:
    (icmp, icmp6) = openings(DESIRED, ONE, Heading.INGRESS)
    assert {opening.match for opening in (icmp, icmp6)} == {
        (("eth_type", 0x0800), ("ct_nw_proto", 1)),
        (("eth_type", 0x86DD), ("ct_nw_proto", 58)),
    }
    found = {opening.match for opening in openings(DESIRED, TWO, Heading.INGRESS)}
    web = (("ct_nw_proto", 6), ("ct_tp_dst", 5432))
    assert found == {
        (("eth_type", 0x0800), *web),
        (("eth_type", 0x86DD), *web),
        (("eth_type", 0x0800), ("ct_nw_src", Masked(bytes((192, 168, 50, 64)), bytes((255, 255, 255, 192))))),
    }
    everybody = SecurityGroup("db", (SecurityRule(Heading.INGRESS, prefix=ip_network("0.0.0.0/0")),))
    (opening,) = openings(replace(DESIRED, groups=(everybody,)), TWO, Heading.INGRESS)
    assert opening.match == (("eth_type", 0x0800),)


def test_who_is_in_a_group_is_a_bit_of_either_end() -> None:
    assert remote_groups(DESIRED) == {"db": 1, "web": 2}
    assert membership(DESIRED) == {ONE.port: 2, TWO.port: 1}
    bits_wanted = {opening.group for opening in openings(DESIRED, TWO, Heading.INGRESS)}
    assert bits_wanted == {0, 2}
    for flow in flows(DESIRED, INGRESS, reg4=TWO.port):
        if ("ct_nw_proto", 6) in flow.match:
            assert dict(flow.match)["reg5"] == Masked(2, 2)
    # A connection is let in only while its other end is in the group.
    admitted = [flow for flow in flows(DESIRED, INGRESS, reg4=TWO.port) if "ct_mark" in dict(flow.match)]
    assert {dict(flow.match).get("reg5") for flow in admitted} == {None, Masked(2, 2)}


def test_one_address_is_the_remote_of_a_rule() -> None:
    host = SecurityGroup("db", (SecurityRule(Heading.EGRESS, prefix=ip_network("192.168.50.77")),))
    (opening,) = openings(replace(DESIRED, groups=(host,)), TWO, Heading.EGRESS)
    assert opening.match == (("eth_type", 0x0800), ("ct_nw_dst", bytes((192, 168, 50, 77))))


def test_rules_that_say_the_same_are_one_and_others_have_an_order() -> None:
    rules = (
        SecurityRule(Heading.INGRESS, 6),
        SecurityRule(Heading.INGRESS, 6, (PortRange(1, 65535),)),
        SecurityRule(Heading.INGRESS, 6, prefix=ip_network("0.0.0.0/0")),
    )
    port = replace(ONE, groups=("a", "b"))
    groups = (SecurityGroup("a", rules), SecurityGroup("b", rules[:2]))
    desired = Desired(AT, OURS, app_ports=(port,), groups=groups)
    assert render(desired)
    matches = [opening.match for opening in openings(desired, port, Heading.INGRESS)]
    assert len(matches) == len(set(matches))


@pytest.mark.parametrize("ports", [(1, 65535), (80, 80), (5430, 5440), (1000, 1999), (0, 65535)])
def test_a_range_of_ports_is_values_under_masks(ports: tuple[int, int]) -> None:
    values = list(port_values(PortRange(*ports)))
    for number in (
        *range(max(0, ports[0] - 3), ports[0] + 20),
        *range(ports[1] - 20, min(65535, ports[1] + 3) + 1),
    ):
        held = [
            value
            for value in values
            if (number & int(value.mask) if isinstance(value, Masked) else number)  # type: ignore[arg-type]
            == bits(value)
        ]
        assert len(held) == (ports[0] <= number <= ports[1])


# Towards UEs


def routed(service: Service = VIDEO, *, own_port: bool = True) -> Desired:
    return replace(DESIRED, services=(ServiceRoute(service, 256, ONE.mac, own_port=own_port),))


def test_a_service_of_an_application_with_a_port_is_tracked_and_goes_there() -> None:
    desired = routed()
    assert desired.port_of(VIDEO.application_ip) == ONE.port
    assert nat.tracked(desired.services) == {VIDEO.application_ip}
    (to_it,) = [flow for flow in flows(desired, OUTPUT, reg3=1) if flow.actions]
    assert to_it.actions[-1] == Output(ONE.port)


def test_an_application_with_a_port_opens_to_ues_what_its_groups_say() -> None:
    opened = [flow for flow in flows(routed(), OUTPUT, reg3=2) if ("ct_nw_proto", 17) in flow.match]
    assert len(opened) == 2
    commits = [action for flow in opened for action in flow.actions if isinstance(action, Commit)]
    assert commits == [Commit(nat.zone_of(VIDEO.application_ip), nat_src=bytes((203, 0, 113, 10)))]
    without = replace(routed(), groups=())
    replies = [flow for flow in flows(without, OUTPUT, reg3=2) if flow.actions]
    assert all(bits(dict(flow.match)["ct_state"]) & CT_REPLY for flow in replies)


@pytest.mark.parametrize("own_port", [True, False])
def test_a_service_may_say_that_its_application_opens_any_flow_or_none(own_port: bool) -> None:
    for initiates, opens in ((Initiates.ANY, True), (Initiates.NONE, False), (None, not own_port)):
        desired = routed(replace(VIDEO, initiates=initiates), own_port=own_port)
        if not own_port:
            desired = replace(desired, app_ports=())
        assert desired.services[0].opens is opens
        stateless = [
            flow
            for flow in flows(desired, OUTPUT, reg3=2)
            if flow.actions and "ct_state" not in dict(flow.match) and "ct_nw_proto" not in dict(flow.match)
        ]
        assert bool(stateless) is opens
        opened = [flow for flow in flows(desired, OUTPUT) if ("ct_nw_proto", 17) in flow.match]
        assert bool(opened) is (own_port and initiates is None)


def test_several_services_of_which_one_may_open_flows() -> None:
    other = replace(VIDEO, name="other", service_ip=ip_address("203.0.113.11"), initiates=Initiates.ANY)
    desired = replace(
        routed(), services=(*routed().services, ServiceRoute(other, 512, ONE.mac, own_port=True))
    )
    (opened,) = [
        flow for flow in flows(desired, OUTPUT, reg3=2) if flow.actions and "ct_state" not in dict(flow.match)
    ]
    assert opened.priority == 100


def test_a_chain_may_lead_to_an_application_with_a_port() -> None:
    vnf = Vnf("firewall", 4096, 4097)
    chained = replace(VIDEO, chain="watched")
    route = ServiceRoute(chained, 256, ONE.mac, Path_("watched", (vnf,)), own_port=True)
    desired = replace(DESIRED, services=(route,), vnfs=(vnf,))
    (to_it,) = [flow for flow in flows(desired, OUTPUT, reg3=1) if flow.actions]
    assert to_it.actions[-1] == Output(ONE.port)
    out = {
        action.port
        for flow in flows(desired, OUTPUT, reg3=2)
        for action in flow.actions
        if isinstance(action, Output)
    }
    assert out == {vnf.far}


def test_every_flow_has_its_message() -> None:
    for flow in render(routed()):
        assert put_in_bundle(1, 1, flow)


def test_what_refuses_is_known_by_port_and_reason() -> None:
    found = refusals(render(routed()), routed().app_ports)
    assert set(found.values()) == {
        (name, reason) for name in ("one", "two") for reason in ("spoofed", "egress", "ingress")
    }
    for flow in flows(routed(), PORTS, in_port=ONE.port, eth_src=ONE.mac):
        assert flow.cookie not in found
    dropping = {flow.cookie for flow in render(routed()) if not flow.actions}
    assert found.keys() < dropping
    assert refusals(render(routed()), ()) == {}


def test_the_next_agent_is_told_of_ports(tmp_path: Path) -> None:
    file = PluggedFile(tmp_path / "ports.json")
    assert file.read() == []
    web = Application("web", "app-web", ONE.mac, ONE.addresses, ("web",))
    told = [PluggedPort(web, 0x8001, given=False), PluggedPort(replace(web, name="b"), 0x8002, given=True)]
    file.write(told)
    assert file.read() == told
    for damage in ("", "{}", '[{"name": "web"}]', "[1]"):
        (tmp_path / "ports.json").write_text(damage)
        assert file.read() == []
    with pytest.raises(BackendError):
        PluggedFile(tmp_path / "nowhere" / "ports.json").write(told)


def test_what_is_plugged_begins_with_nothing() -> None:
    assert (Plugged().ports, Plugged().groups) == ((), ())


def test_a_service_is_added_beside_ports() -> None:
    world = World()
    tell(world, AppPortsChanged((ONE,), frozenset({"one"})))
    tell(world, ServiceAdded(VIDEO))
    assert world.agent.services.is_resolved(VIDEO.application_ip)
