"""br-ue on a real Open vSwitch: what is programmed, and what frames then do."""

from __future__ import annotations

import asyncio
import os
import runpy
import select
import signal
import sys
from dataclasses import replace
from ipaddress import IPv4Address, ip_address
from pathlib import Path
from time import monotonic

import pytest
from ovs_fixtures import BRIDGE, PORT_LIST, PORTS, Bench, Wire, bench, private_ovs, sh
from scapy.all import ARP, ICMP, IP, TCP, UDP, Ether, ICMPv6EchoRequest, ICMPv6ND_NS, IPv6

from tof.dataplane.desired import Desired, PingRoute, ServiceRoute
from tof.dataplane.flow import Flow, Output
from tof.dataplane.nat import zones
from tof.dataplane.pipeline import render
from tof.dataplane.plan import Plan, diff
from tof.drivers.openflow import OpenFlowChannel
from tof.drivers.ovsdb import Port, PrivateOvs, SystemOvs
from tof.errors import BackendError, SetupError
from tof.model import GATEWAY_MAC, Service, service_mac, tunnel_mac

__all__ = ["bench", "private_ovs"]

pytestmark = [pytest.mark.netns, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

FLOWS = Path(__file__).parents[2] / "flows"
GATEWAY = GATEWAY_MAC.hex(":")
APP_MAC = "02:00:00:00:a0:01"
BROADCAST = "ff:ff:ff:ff:ff:ff"
CFM = b"\x89\x02"
APP_ADDRESSES = (ip_address("192.168.50.1"), ip_address("2001:db8:50::1"))
BASE = Desired(PORTS, APP_ADDRESSES)


def route(name: str, number: int, service_ip: str, application_ip: str) -> ServiceRoute:
    service = Service(name, ip_address(service_ip), ip_address(application_ip))
    return ServiceRoute(service, number, bytes.fromhex(APP_MAC.replace(":", "")))


WEB = route("web", 1, "203.0.113.10", "192.168.50.10")
WEB6 = route("web6", 2, "2001:db8:113::10", "2001:db8:50::10")
CACHE = route("cache", 3, "192.168.50.30", "192.168.50.30")
MAPS = route("maps", 4, "203.0.113.40", "192.168.50.40")
TILES = route("tiles", 5, "203.0.113.41", "192.168.50.40")


def mac_of(service: ServiceRoute) -> str:
    """To which the frames go that belong to the service."""
    return service_mac(service.service_id).hex(":")


def tunnel(number: int) -> str:
    return tunnel_mac(number).hex(":")


def is_ip(frame: bytes) -> bool:
    return frame[12:14] in (b"\x08\x00", b"\x86\xdd")


def assert_checksums(frame: bytes) -> None:
    """Every checksum in the frame is what scapy would write."""
    again = Ether(frame)
    layer = again.payload
    while layer:
        for name in ("chksum", "cksum"):
            if name in layer.fields:
                delattr(layer, name)
        layer = layer.payload
    assert bytes(again) == frame


@pytest.mark.parametrize("path", sorted(FLOWS.glob("*.flows")), ids=lambda path: path.stem)
async def test_a_golden_pipeline_loads_and_reads_back(bench: Bench, path: Path) -> None:
    bench.ofctl("add-flows", str(path))
    cookies = {line.split(",")[0].removeprefix("cookie=") for line in path.read_text().splitlines()}
    wanted = {int(cookie, 0) for cookie in cookies if cookie.startswith("0x")}
    assert (await bench.channel.read_cookies()).keys() == wanted
    bench.ofctl("diff-flows", str(path))


@pytest.mark.parametrize("name", sorted(path.stem for path in FLOWS.glob("*.flows")))
async def test_what_the_channel_writes_is_the_golden_text(bench: Bench, name: str) -> None:
    _, desired = load_examples()["EXAMPLES"][name]
    await bench.program(desired)
    bench.ofctl("diff-flows", str(FLOWS / f"{name}.flows"))
    cookies = await bench.channel.read_cookies()
    assert diff(cookies, render(desired)).empty


def load_examples() -> dict[str, dict[str, tuple[str, Desired]]]:
    return runpy.run_path(str(FLOWS.parent / "tools" / "render-flows"))


@pytest.mark.parametrize(
    "layer",
    [TCP(sport=4000, dport=80, flags="S"), UDP(sport=4000, dport=53) / b"query", ICMP(id=7, seq=1) / b"ping"],
    ids=["tcp", "udp", "icmp"],
)
async def test_a_request_reaches_the_application_and_its_reply_the_ue(bench: Bench, layer: object) -> None:
    await bench.program(replace(BASE, services=(WEB, CACHE)))
    with Wire("ue0") as ue, Wire("tofapp0") as apps:
        ue.send(Ether(src=tunnel(7), dst=mac_of(WEB)) / IP(src="10.60.0.7", dst="203.0.113.10") / layer)
        frame = await apps.receive(is_ip)
        assert frame is not None
        request = Ether(frame)
        assert (request.src, request.dst) == (tunnel(7), APP_MAC)
        assert (request[IP].src, request[IP].dst) == ("10.60.0.7", "192.168.50.10")
        assert_checksums(frame)
        apps.send(Ether(src=APP_MAC, dst=GATEWAY) / IP(src="192.168.50.10", dst="10.60.0.7") / layer)
        frame = await ue.receive(is_ip)
        assert frame is not None
        reply = Ether(frame)
        assert (reply.src, reply.dst) == (APP_MAC, GATEWAY)
        assert (reply[IP].src, reply[IP].dst) == ("203.0.113.10", "10.60.0.7")
        assert_checksums(frame)


async def test_ipv6_and_an_application_with_the_services_own_address(bench: Bench) -> None:
    await bench.program(replace(BASE, services=(WEB6, CACHE)))
    ue_ip, udp = "2001:db8:60:7::1", UDP(sport=4000, dport=53) / b"x"
    with Wire("ue0") as ue, Wire("tofapp0") as apps:
        ue.send(Ether(src=tunnel(7), dst=mac_of(WEB6)) / IPv6(src=ue_ip, dst="2001:db8:113::10") / udp)
        frame = await apps.receive(is_ip)
        assert frame is not None
        assert Ether(frame)[IPv6].dst == "2001:db8:50::10"
        assert_checksums(frame)
        apps.send(Ether(src=APP_MAC, dst=GATEWAY) / IPv6(src="2001:db8:50::10", dst=ue_ip) / udp)
        frame = await ue.receive(is_ip)
        assert frame is not None
        assert Ether(frame)[IPv6].src == "2001:db8:113::10"
        assert_checksums(frame)
        sent = Ether(src=tunnel(7), dst=mac_of(CACHE)) / IP(src="10.60.0.7", dst="192.168.50.30") / udp
        ue.send(sent)
        frame = await apps.receive(is_ip)
        assert frame is not None
        assert frame[14:] == bytes(sent)[14:]
        back = Ether(src=APP_MAC, dst=GATEWAY) / IP(src="192.168.50.30", dst="10.60.0.7") / udp
        apps.send(back)
        assert await ue.receive(is_ip) == bytes(back)


async def test_what_is_no_service_goes_nowhere(bench: Bench) -> None:
    await bench.program(replace(BASE, services=(WEB,)))
    with Wire("ue0") as ue, Wire("tofapp0") as apps, Wire("tofgw0") as gateway:
        ue.send(Ether(src=tunnel(7), dst=mac_of(WEB)) / IP(src="10.60.0.7", dst="203.0.113.99") / UDP())
        ue.send(Ether(src=tunnel(7), dst=GATEWAY) / IP(src="10.60.0.7", dst="192.168.50.1") / UDP())
        ue.send(Ether(src=tunnel(7), dst=BROADCAST) / ARP(pdst="192.168.50.1"))
        apps.send(Ether(src=APP_MAC, dst=GATEWAY) / IP(src="192.168.50.99", dst="10.60.0.7") / UDP())
        apps.send(Ether(src=APP_MAC, dst=BROADCAST) / IP(src="192.168.50.10", dst="10.60.0.7") / UDP())
        assert await apps.receive(timeout_s=0.3) is None
        assert await gateway.receive(timeout_s=0.1) is None
        assert await ue.receive(is_ip, timeout_s=0.1) is None


async def test_the_heartbeat_beats_exactly_while_ovs_is_programmed(bench: Bench) -> None:
    def is_cfm(frame: bytes) -> bool:
        return frame[12:14] == CFM

    with Wire("ue0") as ue:
        assert await ue.receive(is_cfm, timeout_s=0.5) is None
        await bench.program(BASE)
        programmed = monotonic()
        assert await ue.receive(is_cfm, timeout_s=1.0) is not None
        assert monotonic() - programmed < 1.0
        beats = [await ue.receive(is_cfm, timeout_s=0.3) for _ in range(5)]
        assert None not in beats
        await bench.channel.apply(Plan(drop=tuple(await bench.channel.read_cookies())))
        while await ue.receive(is_cfm, timeout_s=0) is not None:
            pass
        assert await ue.receive(is_cfm, timeout_s=0.5) is None


@pytest.mark.parametrize(
    ("source", "destination"),
    [(tunnel(7), GATEWAY), (GATEWAY, GATEWAY), (APP_MAC, tunnel(7)), (APP_MAC, APP_MAC)],
)
async def test_applications_cannot_use_tunnel_macs(bench: Bench, source: str, destination: str) -> None:
    await bench.program(replace(BASE, services=(WEB,)))
    with Wire("ue0") as ue, Wire("tofapp0") as apps, Wire("tofgw0") as gateway:
        to_ue = IP(src="192.168.50.10", dst="10.60.0.7") / UDP()
        apps.send(Ether(src=source, dst=destination) / to_ue)
        apps.send(Ether(src=source, dst=destination) / IP(src="192.168.50.10", dst="192.168.50.1") / UDP())
        apps.send(Ether(src=source, dst=destination) / ARP(pdst="192.168.50.1"))
        assert await ue.receive(is_ip, timeout_s=0.3) is None
        assert await gateway.receive(timeout_s=0.1) is None
        apps.send(Ether(src=APP_MAC, dst=GATEWAY) / to_ue)
        assert await ue.receive(is_ip) is not None


async def test_apps_and_gateway_talk(bench: Bench) -> None:
    await bench.program(BASE)
    arp = Ether(src=APP_MAC, dst=BROADCAST) / ARP(hwsrc=APP_MAC, psrc="192.168.50.10", pdst="192.168.50.1")
    solicitation = IPv6(src="fe80::1", dst="ff02::1:ff00:1") / ICMPv6ND_NS(tgt="2001:db8:50::1")
    to_gateway = [
        arp,
        Ether(src=APP_MAC, dst="33:33:ff:00:00:01") / solicitation,
        Ether(src=APP_MAC, dst=GATEWAY) / IP(src="192.168.50.10", dst="192.168.50.1") / ICMP(),
        Ether(src=APP_MAC, dst=GATEWAY) / IPv6(src="2001:db8:50::9", dst="2001:db8:50::1") / UDP(),
    ]
    with Wire("tofapp0") as apps, Wire("tofgw0") as gateway, Wire("ue0") as ue:
        for frame in to_gateway:
            apps.send(frame)
            assert await gateway.receive() == bytes(frame)
        answer = Ether(src=GATEWAY, dst=APP_MAC) / ARP(op=2, hwsrc=GATEWAY, psrc="192.168.50.1")
        gateway.send(answer)
        assert await apps.receive() == bytes(answer)
        assert await ue.receive(is_ip, timeout_s=0.1) is None


async def test_the_pinger_speaks_for_the_ue_and_says_nothing_else(bench: Bench) -> None:
    ue_ip, target = ip_address("10.60.0.7"), ip_address("8.8.8.8")
    ue6, target6 = ip_address("2001:db8:60:7::1"), ip_address("2001:4860:4860::8888")
    pings = (PingRoute(7, ue_ip.packed, target.packed), PingRoute(7, ue6.packed, target6.packed))
    await bench.program(replace(BASE, pings=pings))
    mac = "02:00:00:00:00:01"
    echo = IP(src="192.0.2.1", dst=str(target)) / ICMP(id=7, seq=1) / b"token"
    echo6 = IPv6(src="fe80::2", dst=str(target6)) / ICMPv6EchoRequest(id=7, seq=1, data=b"token")
    with Wire("pinger0") as pinger, Wire("ue0") as ue:
        for request, address in ((echo, ue_ip), (echo6, ue6)):
            pinger.send(Ether(src=mac, dst=tunnel(7)) / request)
            frame = await ue.receive(is_ip)
            assert frame is not None
            assert Ether(frame).dst == tunnel(7)
            assert Ether(frame).payload.src == str(address)
            assert_checksums(frame)
        pinger.send(Ether(src=mac, dst=tunnel(8)) / echo)
        pinger.send(Ether(src=mac, dst=GATEWAY) / echo)
        pinger.send(Ether(src=mac, dst=tunnel(7)) / IP(src="192.0.2.1", dst="9.9.9.9") / ICMP())
        pinger.send(Ether(src=mac, dst=tunnel(7)) / IP(src="192.0.2.1", dst=str(target)) / UDP())
        pinger.send(Ether(src=mac, dst=tunnel(7)) / IP(src="192.0.2.1", dst=str(target)) / ICMP(type=0))
        assert await ue.receive(is_ip, timeout_s=0.3) is None
        await bench.program(BASE)
        pinger.send(Ether(src=mac, dst=tunnel(7)) / echo)
        assert await ue.receive(is_ip, timeout_s=0.3) is None


def uplink(service: ServiceRoute, number: int, layer: object) -> Ether:
    service_ip = service.service.service_ip
    frame = Ether(src=tunnel(number * 2654435761 % 2**32), dst=mac_of(service))
    if isinstance(service_ip, IPv4Address):
        return frame / IP(src=f"10.{number * 37 % 250}.{number}.{number}", dst=str(service_ip)) / layer
    return frame / IPv6(src=f"2001:db8:{number * 997:x}::{number}", dst=str(service_ip)) / layer


def downlink(service: ServiceRoute, request: Ether) -> Ether:
    application_ip = str(service.service.application_ip)
    frame = Ether(src=APP_MAC, dst=GATEWAY)
    if IP in request:
        return frame / IP(src=application_ip, dst=request[IP].src) / request[IP].payload
    return frame / IPv6(src=application_ip, dst=request[IPv6].src) / request[IPv6].payload


@pytest.mark.parametrize(
    ("service", "shared"), [(WEB, ()), (WEB6, ()), (TILES, (MAPS,))], ids=["ipv4", "ipv6", "conntrack"]
)
async def test_megaflows_do_not_grow_with_ues(
    bench: Bench, service: ServiceRoute, shared: tuple[ServiceRoute, ...]
) -> None:
    await bench.program(replace(BASE, services=(service, *shared)))
    await bench.ovs.appctl("revalidator/purge")
    ping = ICMP(id=7) if isinstance(service.service.service_ip, IPv4Address) else ICMPv6EchoRequest(id=7)
    counts = {}
    with Wire("ue0") as ue, Wire("tofapp0") as apps:
        for number in range(1, 51):
            for layer in (TCP(sport=4000 + number, dport=80, flags="S"), UDP(sport=5000 + number), ping):
                request = uplink(service, number, layer)
                ue.send(request)
                assert await apps.receive(is_ip) is not None
                apps.send(downlink(service, request))
                assert await ue.receive(is_ip) is not None
            counts[number] = len(await bench.megaflows()) if number in (25, 50) else 0
        flows = await bench.megaflows()
    print(f"{counts[25]} megaflows after 25 UEs, {counts[50]} after 50 (TCP, UDP, ICMP; both ways)")
    assert not [flow for flow in flows if "eth(src=02:70" in flow.split("actions")[0]], flows
    # A rule for the TOF's own address splits the others by their first differing bit, at most.
    per_protocol = len(flows) / 3
    assert per_protocol <= 15, "\n".join(flows)
    assert counts[50] - counts[25] <= 6, "\n".join(flows)


async def test_a_change_is_in_force_for_flows_that_run(bench: Bench) -> None:
    moved = route("web", 1, "203.0.113.10", "192.168.50.11")
    request = uplink(WEB, 7, UDP(sport=9))
    with Wire("ue0") as ue, Wire("tofapp0") as apps:
        for service in (WEB, moved, WEB):
            await bench.program(replace(BASE, services=(service,)))
            for _ in range(3):
                ue.send(request)
                frame = await apps.receive(is_ip)
                assert frame is not None
                assert Ether(frame)[IP].dst == str(service.service.application_ip)
        await bench.program(BASE)
        ue.send(request)
        apps.send(downlink(WEB, request))
        assert await apps.receive(is_ip, timeout_s=0.3) is None
        assert await ue.receive(is_ip, timeout_s=0.1) is None


async def test_one_application_behind_two_services(bench: Bench) -> None:
    await bench.program(replace(BASE, services=(MAPS, TILES)))
    with Wire("ue0") as ue, Wire("tofapp0") as apps:

        async def ask(service: ServiceRoute, port: int) -> None:
            query = (
                IP(src="10.60.0.7", dst=str(service.service.service_ip)) / UDP(sport=port, dport=53) / b"q"
            )
            ue.send(Ether(src=tunnel(7), dst=mac_of(service)) / query)
            frame = await apps.receive(is_ip)
            assert frame is not None
            assert Ether(frame)[IP].dst == "192.168.50.40"
            assert_checksums(frame)

        async def answer(port: int, timeout_s: float = 2.0) -> str | None:
            reply = IP(src="192.168.50.40", dst="10.60.0.7") / UDP(sport=53, dport=port) / b"a"
            apps.send(Ether(src=APP_MAC, dst=GATEWAY) / reply)
            frame = await ue.receive(is_ip, timeout_s)
            return None if frame is None else str(Ether(frame)[IP].src)

        await ask(MAPS, 1001)
        await ask(TILES, 1002)
        assert await answer(1002) == "203.0.113.41"
        assert await answer(1001) == "203.0.113.40"
        # What the application starts itself comes from its first service.
        assert await answer(1003) == "203.0.113.40"

        third = route("third", 6, "203.0.113.42", "192.168.50.40")
        await bench.program(replace(BASE, services=(MAPS, third)))
        assert await answer(1002, timeout_s=0.3) is None, "a removed service has ended at once"
        assert await answer(1001) == "203.0.113.40", "another service of that application goes on"


async def test_flushing_a_zone(bench: Bench) -> None:
    desired = replace(BASE, services=(MAPS, TILES))
    await bench.program(desired)
    (zone,) = zones(desired)
    with Wire("ue0") as ue, Wire("tofapp0") as apps:
        ue.send(uplink(TILES, 9, UDP(sport=1, dport=2)))
        assert await apps.receive(is_ip) is not None
    assert f"zone={zone}" in await bench.ovs.appctl("dpctl/dump-conntrack", "netdev@ovs-netdev")
    await bench.channel.flush_zone(zone)
    assert f"zone={zone}" not in await bench.ovs.appctl("dpctl/dump-conntrack", "netdev@ovs-netdev")


async def test_a_bundle_with_one_bad_rule_is_refused_as_a_whole(bench: Bench) -> None:
    await bench.program(BASE)
    before = bench.ofctl("dump-flows", "--no-stats")
    good = render(replace(BASE, services=(WEB,)))
    bad = Flow(4, 7, (("in_port", 1),), (Output(0xFFFFFF05),))
    plan = diff(await bench.channel.read_cookies(), good | {bad})
    with pytest.raises(BackendError, match=r"OVS refused cookie=.*BAD"):
        await bench.channel.apply(plan)
    assert bench.ofctl("dump-flows", "--no-stats") == before
    await bench.program(replace(BASE, services=(WEB,)))
    assert set(await bench.channel.read_cookies()) == {flow.cookie for flow in good}


async def test_a_refusal_at_commit_leaves_everything_as_it_was(bench: Bench) -> None:
    await bench.program(BASE)
    before = bench.ofctl("dump-flows", "--no-stats")
    await bench.ovs.vsctl(
        "set", "Bridge", BRIDGE, "flow_tables:9=@t", "--", "--id=@t", "create", "Flow_Table", "flow_limit=0"
    )
    try:
        good = Flow(8, 1, (("in_port", 1),))
        too_many = Flow(9, 1, (("in_port", 1),))
        with pytest.raises(BackendError, match="TABLE_FULL"):
            await bench.channel.apply(Plan(put=(good, too_many)))
        assert bench.ofctl("dump-flows", "--no-stats") == before
    finally:
        await bench.ovs.vsctl("remove", "Bridge", BRIDGE, "flow_tables", "9")


async def test_foreign_flows_and_bridges_survive(bench: Bench) -> None:
    sh(
        "ovs-vsctl",
        f"--db=unix:{bench.ovs.db_socket}",
        "add-br",
        "br-other",
        "--",
        "set",
        "Bridge",
        "br-other",
        "datapath_type=netdev",
    )
    bench.ofctl("add-flow", "cookie=0x1234,table=7,priority=1,actions=drop")
    try:
        await bench.program(replace(BASE, services=(WEB,)))
        await bench.program(BASE)
        assert "cookie=0x1234" in bench.ofctl("dump-flows")
        assert 0x1234 not in await bench.channel.read_cookies()
        with pytest.raises(SetupError, match="br-other exists and is not the TOF's"):
            await bench.ovs.ensure_bridge("br-other")
        await bench.ovs.remove_bridge("br-other")
        assert "br-other" in await bench.ovs.vsctl("list-br")
    finally:
        await bench.ovs.vsctl("del-br", "br-other")


async def test_a_killed_switch_comes_back_and_is_programmed_again(bench: Bench) -> None:
    desired = replace(BASE, services=(WEB,))
    await bench.program(desired)
    before = bench.ovs.pids()
    handle = os.pidfd_open(before["ovs-vswitchd"])
    signal.pidfd_send_signal(handle, signal.SIGKILL)
    assert select.select([handle], [], [], 5) == ([handle], [], [])
    os.close(handle)
    async with asyncio.timeout(2):
        await bench.channel.closed.wait()
    with pytest.raises(BackendError, match="connection"):
        await bench.channel.read_cookies()
    with pytest.raises(BackendError, match="no OpenFlow switch at"):
        await OpenFlowChannel.connect(bench.ovs.management_socket(BRIDGE))
    assert bench.ovs.pids().keys() == {"ovsdb-server"}
    await bench.ovs.ensure_running()
    await bench.ovs.ensure_bridge(BRIDGE)
    await bench.ovs.ensure_ports(BRIDGE, PORT_LIST)
    await bench.reconnect()
    assert await bench.channel.read_cookies() == {}
    await bench.program(desired)
    assert bench.ovs.pids()["ovsdb-server"] == before["ovsdb-server"]
    with Wire("ue0") as ue, Wire("tofapp0") as apps:
        assert await ue.receive(lambda frame: frame[12:14] == CFM, timeout_s=1.0) is not None
        ue.send(uplink(WEB, 7, UDP()))
        assert await apps.receive(is_ip) is not None


async def test_a_killed_database_comes_back_under_a_running_switch(bench: Bench) -> None:
    await bench.program(BASE)
    before = bench.ovs.pids()
    os.kill(before["ovsdb-server"], signal.SIGKILL)
    await asyncio.sleep(0.1)
    assert bench.ovs.pids().keys() == {"ovs-vswitchd"}
    await bench.ovs.ensure_running()
    await bench.ovs.ensure_bridge(BRIDGE)
    await bench.ovs.ensure_ports(BRIDGE, PORT_LIST)
    assert bench.ovs.pids()["ovs-vswitchd"] == before["ovs-vswitchd"]
    assert diff(await bench.channel.read_cookies(), render(BASE)).empty


async def test_a_restarted_agent_adopts_what_runs(bench: Bench) -> None:
    again = PrivateOvs(bench.ovs.run_dir, "default")
    before = again.pids()
    assert before.keys() == {"ovsdb-server", "ovs-vswitchd"}
    await again.ensure_running()
    assert again.pids() == before
    system = SystemOvs(bench.ovs.db_socket, "default")
    await system.ensure_running()
    assert system.pids() == before
    assert await system.ensure_ports(BRIDGE, PORT_LIST) == {port.device: port.ofport for port in PORT_LIST}


async def test_ports_that_are_no_longer_wanted_leave_and_missing_devices_are_named(bench: Bench) -> None:
    await bench.ovs.ensure_ports(BRIDGE, PORT_LIST[:-1])
    assert "tofhb0" not in await bench.ovs.vsctl("list-ports", BRIDGE)
    with pytest.raises(BackendError, match="nosuch0"):
        await bench.ovs.ensure_ports(BRIDGE, (*PORT_LIST, Port("nosuch0", 9)))
    await bench.ovs.ensure_ports(BRIDGE, PORT_LIST)
    assert "nosuch0" not in await bench.ovs.vsctl("list-ports", BRIDGE)


async def test_a_thousand_rules_at_once(bench: Bench, record_property: pytest.RecordProperty) -> None:
    services = tuple(
        route(f"s{n}", n, f"198.18.{n >> 8}.{n & 255}", f"172.16.{n >> 8}.{n & 255}") for n in range(167)
    )
    desired = replace(BASE, services=services)
    plan = diff({}, render(desired))
    assert len(plan.put) > 1000
    began = monotonic()
    await bench.channel.apply(plan)
    put_s = monotonic() - began
    began = monotonic()
    cookies = await bench.channel.read_cookies()
    read_s = monotonic() - began
    assert diff(cookies, render(desired)).empty
    record_property("put_s", put_s)
    print(f"{len(plan.put)} rules: put {put_s:.3f} s, read {read_s:.3f} s")
    assert put_s < 2.0


async def test_stop_ends_the_daemons_and_removes_their_files(private_ovs: PrivateOvs, tmp_path: Path) -> None:
    other = PrivateOvs(tmp_path, "other")
    await other.ensure_running()
    pids = other.pids()
    assert len(pids) == 2
    await other.stop()
    assert other.pids() == {}
    assert not [pid for pid in pids.values() if Path(f"/proc/{pid}/exe").exists()]
    assert {path.suffix for path in tmp_path.iterdir()} == {".log"}
    await other.stop()
    with pytest.raises(SetupError, match="does not run"):
        await SystemOvs(tmp_path / "db.sock", "other").ensure_running()
    assert len(private_ovs.pids()) == 2


async def test_a_stale_pidfile_names_nobody(tmp_path: Path) -> None:
    (tmp_path / "ovs-vswitchd.pid").write_text(str(os.getpid()))
    (tmp_path / "ovsdb-server.pid").write_text("not a number")
    assert PrivateOvs(tmp_path, "default").pids() == {}


async def test_open_vswitch_outlives_a_killed_agent(private_ovs: PrivateOvs, tmp_path: Path) -> None:
    agent = (
        "import asyncio, os, pathlib, sys\n"
        "from tof.drivers.ovsdb import PrivateOvs\n"
        "asyncio.run(PrivateOvs(pathlib.Path(sys.argv[1]), 'x').ensure_running())\n"
        "os.kill(os.getpid(), 9)\n"
    )
    adopted = PrivateOvs(tmp_path, "x")
    try:
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", agent, str(tmp_path))
        assert await process.wait() == -signal.SIGKILL
        before = adopted.pids()
        assert before.keys() == {"ovsdb-server", "ovs-vswitchd"}
        await adopted.ensure_running()
        await adopted.ensure_bridge("br-x")
        assert adopted.pids() == before
    finally:
        await adopted.stop()


async def test_a_switch_that_is_silent_probes_or_speaks_another_version(tmp_path: Path) -> None:
    path = tmp_path / "switch"
    said = bytearray()
    to_say = bytes.fromhex("0502000c0000000970696e67")

    async def switch(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(to_say)
        while heard := await reader.read(1000):
            said.extend(heard)
        writer.close()

    async with await asyncio.start_unix_server(switch, path):
        with pytest.raises(BackendError, match="did not answer in"):
            await OpenFlowChannel.connect(path, timeout_s=0.2)
        assert said.endswith(bytes.fromhex("0503000c0000000970696e67")), "an echo request is answered"
        to_say = bytes.fromhex("0101000c0000000000000000")
        with pytest.raises(BackendError, match=r"refuses OpenFlow 1\.4"):
            await OpenFlowChannel.connect(path, timeout_s=2)
