"""Applications on ports of their own: what reaches them, what they may do, and what they try in vain."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from gtp_apps import udp_echo, ue_kernel
from gtp_packets import Bearer, new_bearer, new_bearer6, packed, pieces, ping, udp
from gtp_peers import APP, APP6, TOF_APPS, TOF_APPS6, Setting, Tof, running_tof, until
from gtp_ports import App, section
from gtp_wires import Wire
from netns_helper import Netns

from tof.model import GATEWAY_MAC, service_mac, tunnel_mac
from tof.wire.inet import ICMPV6, decode_ipv4, fill_checksum

pytestmark = pytest.mark.netns

SERVICE, SERVICE6, QUIET, ECHO = "203.0.113.10", "2001:db8:113::10", "203.0.113.20", 7
OTHER_MAC = bytes.fromhex("020000000333")
CONFIG = section("one", 21, "one") + section("two", 22, "two")


@dataclass
class Edge:
    """A TOF with two applications on ports of their own, and one behind the apps adapter."""

    tof: Tof
    one: App
    two: App

    @property
    def apps(self) -> Netns:
        return self.tof.netns["apps"]

    def provision(self, *groups: dict[str, object], services: tuple[dict[str, object], ...] = ()) -> None:
        own = (
            {"name": "echo", "serviceIP": SERVICE, "applicationIP": self.one.ip},
            {"name": "echo6", "serviceIP": SERVICE6, "applicationIP": self.one.ip6},
        )
        mine = {str(service["name"]): service for service in (*own, *services)}
        body = {"services": [mine[name] for name in sorted(mine)]}
        body |= {"securityGroups": sorted(groups, key=lambda group: str(group["name"]))} if groups else {}
        assert self.tof.call("PUT", "/policy", body) == (200, body)


@pytest.fixture(scope="module", params=["generic", "native"])
def edge(request: pytest.FixtureRequest) -> Iterator[Edge]:
    with running_tof(Setting(xdp=request.param, more=CONFIG)) as tof, contextlib.ExitStack() as stack:
        one, two = App(tof, "one", 21), App(tof, "two", 22)
        for app in (one, two):
            stack.callback(app.close)
            for address in (app.ip, app.ip6):
                udp_echo(app.netns, address, ECHO)
        for address in (APP, APP6):
            udp_echo(tof.netns["apps"], address, ECHO)
        yield Edge(tof, one, two)


@pytest.fixture(autouse=True)
def _fresh(edge: Edge) -> None:
    edge.provision()
    until("it is in force", lambda: edge.tof.get("/service/echo/status")["state"] == "in_force")
    edge.tof.drain()


def group(name: str, *rules: dict[str, object]) -> dict[str, object]:
    return {"name": name, "rules": list(rules)}


def egress(**more: object) -> dict[str, object]:
    return {"direction": "egress", **more}


def ingress(**more: object) -> dict[str, object]:
    return {"direction": "ingress", **more}


def attached(tof: Tof, bearer: Bearer | None = None) -> Bearer:
    bearer = bearer or new_bearer()
    tof.attach(bearer)
    tof.drain()
    return bearer


def asks(
    netns: Netns, address: str, port: int = ECHO, data: bytes = b"hello", timeout_s: float = 0.6
) -> bool:
    """Whether a UDP echo server answers whoever is in ``netns``."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with netns.entered(), socket.socket(family, socket.SOCK_DGRAM) as speaker:
        speaker.settimeout(timeout_s)
        try:
            speaker.sendto(data, (address, port))
            return speaker.recv(65535) == b"app:" + data
        except (TimeoutError, OSError):
            return False


def pings(netns: Netns, address: str) -> bool:
    return ", 0% packet loss" in netns.run("ping", "-c", "1", "-W", "1", address, check=False)


@contextlib.contextmanager
def serving(netns: Netns, address: str, port: int) -> Iterator[socket.socket]:
    with netns.entered():
        server = socket.create_server((address, port))
    server.settimeout(5)
    with server:
        yield server


def connected(netns: Netns, address: str, port: int, timeout_s: float = 0.8) -> socket.socket | None:
    with netns.entered():
        try:
            return socket.create_connection((address, port), timeout_s)
        except OSError:
            return None


# Services


@pytest.mark.parametrize("version", [4, 6])
def test_a_service_is_answered_by_an_application_with_a_port(edge: Edge, version: int) -> None:
    bearer = attached(edge.tof, new_bearer() if version == 4 else new_bearer6())
    service = SERVICE if version == 4 else SERVICE6
    for n in range(3):
        edge.tof.ran.send(bearer.uplink(udp(bearer.ue, service, 4000, ECHO, b"hello %d" % n)))
        got = edge.tof.ran.gpdu(lambda one, n=n: one.inner.data == b"app:hello %d" % n)
        assert (got.inner.source, got.teid, got.inner.checksum_right) == (service, bearer.down, True)
    edge.tof.ran.send(bearer.uplink(ping(bearer.ue, service, 77)))
    assert edge.tof.ran.gpdu(lambda one: one.inner.source == service).inner.checksum_right
    assert not [one for one in edge.tof.core.gpdus() if one.inner.destination == service]


@pytest.mark.parametrize("size", [1500, 3000, 9000])
def test_fragments_reach_it_and_come_back(edge: Edge, size: int) -> None:
    bearer, data = attached(edge.tof), os.urandom(size)
    for piece in pieces(udp(bearer.ue, SERVICE, 4000, ECHO, data), 1200, 99):
        edge.tof.ran.send(bearer.uplink(piece))
    wanted, got = b"app:" + data, dict[int, bytes]()
    while sum(map(len, got.values())) < len(wanted) + 8:
        answer = edge.tof.ran.gpdu(lambda one: one.inner.source == SERVICE)
        packet = decode_ipv4(answer.message.payload)
        got[packet.offset] = packet.payload
    assert b"".join(got[at] for at in sorted(got))[8:] == wanted


def test_tcp_of_two_kernels_at_full_size_both_ways(edge: Edge) -> None:
    bearer, data = attached(edge.tof), os.urandom(2_000_000)
    with serving(edge.one.netns, edge.one.ip, 8088) as server:

        def serve() -> None:
            peer, _ = server.accept()
            with peer:
                got = bytearray()
                while len(got) < len(data):
                    got += peer.recv(1 << 20)
                peer.sendall(got)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        with ue_kernel(edge.tof, bearer):
            connection = connected(edge.tof.netns["ran"], SERVICE, 8088, 5)
            assert connection is not None
            with connection:
                connection.settimeout(30)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                connection.sendall(data)
                back = bytearray()
                while len(back) < len(data) and (chunk := connection.recv(1 << 20)):
                    back += chunk
            thread.join(5)
    assert bytes(back) == data


def test_an_application_is_told_what_fits_the_tunnel(edge: Edge) -> None:
    bearer = attached(edge.tof)
    edge.provision(
        services=({"name": "echo", "serviceIP": SERVICE, "applicationIP": edge.one.ip, "initiates": "any"},)
    )
    with edge.one.netns.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as speaker:
        speaker.setsockopt(socket.IPPROTO_IP, 10, 2)  # IP_MTU_DISCOVER: don't fragment
        speaker.connect((bearer.ue, 9))
        speaker.send(bytes(1472))
        until("the route's MTU has shrunk", lambda: speaker.getsockopt(socket.IPPROTO_IP, 14) < 1500)


def test_its_health_is_probed(edge: Edge) -> None:
    service = {
        "name": "echo",
        "serviceIP": SERVICE,
        "applicationIP": edge.one.ip,
        "protocol": "tcp",
        "ports": [8099],
    }
    service |= {"health": {"kind": "tcp", "interval": 0.1}}
    with serving(edge.one.netns, edge.one.ip, 8099):
        edge.provision(services=(service,))
        until("it lives", lambda: edge.tof.get("/service/echo/status")["state"] == "in_force")
    until("it is dead", lambda: edge.tof.get("/service/echo/status")["state"] == "unhealthy")


# Who may speak with whom


def test_applications_are_strangers_to_each_other(edge: Edge) -> None:
    one, two, apps = edge.one, edge.two, edge.apps
    for here, there in ((one.netns, two.ip), (two.netns, one.ip), (one.netns, APP), (apps, one.ip)):
        assert not asks(here, there), (here.name, there)
        assert not pings(here, there)
    for here, there in ((one.netns, two.ip6), (one.netns, APP6), (apps, two.ip6)):
        if there != two.ip6:
            assert not asks(here, there)
    with serving(two.netns, two.ip, 8000):
        assert connected(one.netns, two.ip, 8000) is None
        assert connected(apps, two.ip, 8000) is None


def test_of_the_tof_itself_they_see_that_it_is_there(edge: Edge) -> None:
    udp_echo(edge.tof.netns["tof"], TOF_APPS, 5555)
    for app in (edge.one, edge.two):
        assert pings(app.netns, TOF_APPS)
        assert pings(app.netns, TOF_APPS6)
        assert not asks(app.netns, TOF_APPS, 5555)
    edge.provision(group("one", egress(protocol="udp", ports=[5555], remote=TOF_APPS)))
    assert asks(edge.one.netns, TOF_APPS, 5555)
    before = refused(edge.tof, "two", "egress")
    assert not asks(edge.two.netns, TOF_APPS, 5555)
    until("that is counted", lambda: refused(edge.tof, "two", "egress") > before)


def test_a_rule_is_in_force_at_once_and_takes_its_connections_with_it(edge: Edge) -> None:
    one, two = edge.one, edge.two
    out = group("one", egress(protocol="tcp", ports=["8000-8001"], remote="group:two"))
    into = group("two", ingress(protocol="tcp", ports=[8000], remote="group:one"))
    with serving(two.netns, two.ip, 8000) as server, serving(two.netns, two.ip, 8001):
        edge.provision(out, group("two"))
        assert connected(one.netns, two.ip, 8000) is None
        edge.provision(group("one"), into)
        assert connected(one.netns, two.ip, 8000) is None
        edge.provision(out, into)
        connection = connected(one.netns, two.ip, 8000)
        assert connection is not None
        assert connected(one.netns, two.ip, 8001) is None
        assert not asks(one.netns, two.ip)
        peer, _ = server.accept()
        with connection, peer:
            connection.settimeout(1)
            peer.settimeout(1)
            _talk(connection, peer)
            # A rule more, a rule that goes beside it: what was let in stays.
            edge.provision(out, group("two", *into["rules"], ingress(protocol="udp")))  # type: ignore[misc]
            _talk(connection, peer)
            edge.provision(out, into)
            _talk(connection, peer)
            edge.provision(out, group("two"))
            connection.send(b"is anybody there")
            with pytest.raises(TimeoutError):
                peer.recv(100)
            peer.send(b"nobody is")
            with pytest.raises(TimeoutError):
                connection.recv(100)
            edge.provision(out, into)
            connection.settimeout(20)
            peer.settimeout(20)
            assert peer.recv(100) == b"is anybody there"
            assert connection.recv(100) == b"nobody is"
            edge.provision(group("one"), into)
            connection.settimeout(1)
            peer.send(b"again")
            with pytest.raises(TimeoutError):
                connection.recv(100)


def _talk(one: socket.socket, other: socket.socket) -> None:
    for speaker, listener in ((one, other), (other, one)):
        speaker.send(b"hello")
        assert listener.recv(100) == b"hello"


def test_rules_by_prefix_open_the_apps_network_in_either_direction(edge: Edge) -> None:
    edge.provision(
        group("one", egress(protocol="udp", remote="192.168.50.0/28"), ingress(protocol="icmp", remote=APP))
    )
    assert asks(edge.one.netns, APP)
    assert asks(edge.one.netns, APP, data=os.urandom(4000))
    assert pings(edge.apps, edge.one.ip)
    assert not asks(edge.apps, edge.one.ip)
    assert not pings(edge.one.netns, APP)
    assert not asks(edge.two.netns, APP)
    edge.provision(group("one", ingress(protocol="udp")))
    assert asks(edge.apps, edge.one.ip, data=os.urandom(4000))
    assert asks(edge.apps, edge.one.ip6, data=os.urandom(4000))


# What they say to UEs


def says(netns: Netns, source: str, ue: str, data: bytes, kind: int = socket.SOCK_DGRAM) -> None:
    with netns.entered(), socket.socket(socket.AF_INET, kind) as speaker:
        speaker.bind((source, 6000))
        speaker.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            speaker.connect((ue, 6001))
            if kind == socket.SOCK_DGRAM:
                speaker.send(data)
        time.sleep(0.1)


def test_it_opens_flows_to_ues_that_its_groups_let_out_and_no_others(edge: Edge) -> None:
    tof, one, bearer = edge.tof, edge.one, attached(edge.tof)
    says(one.netns, one.ip, bearer.ue, b"unasked")
    says(one.netns, one.ip, bearer.ue, b"", socket.SOCK_STREAM)
    tof.ran.silent(lambda got: got.inner.destination == bearer.ue, 0.3)
    edge.provision(group("one", egress(protocol="udp", ports=[6001], remote="ues")))
    says(one.netns, one.ip, bearer.ue, b"let out")
    got = tof.ran.to_ue(bearer.ue)
    assert (got.inner.source, got.inner.ports, got.inner.data) == (SERVICE, (6000, 6001), b"let out")
    assert got.inner.checksum_right
    tof.drain()
    says(one.netns, one.ip, bearer.ue, b"", socket.SOCK_STREAM)
    tof.ran.silent(lambda got: got.inner.destination == bearer.ue, 0.3)
    # The UE answers, and the flow goes on both ways.
    with one.netns.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as speaker:
        speaker.bind((one.ip, 6000))
        speaker.settimeout(2)
        speaker.sendto(b"first", (bearer.ue, 6001))
        tof.ran.to_ue(bearer.ue)
        tof.ran.send(bearer.uplink(udp(bearer.ue, SERVICE, 6001, 6000, b"answer")))
        assert speaker.recv(100) == b"answer"
        speaker.sendto(b"second", (bearer.ue, 6001))
        assert tof.ran.to_ue(bearer.ue).inner.data == b"second"
        edge.provision(group("one"))
        tof.drain()
        speaker.sendto(b"third", (bearer.ue, 6001))
        tof.ran.silent(lambda got: got.inner.destination == bearer.ue, 0.3)


def test_a_service_lets_its_application_open_any_flow(edge: Edge) -> None:
    tof, one, bearer = edge.tof, edge.one, attached(edge.tof)
    service = {"name": "echo", "serviceIP": SERVICE, "applicationIP": one.ip}
    edge.provision(services=(service | {"initiates": "any"},))
    says(one.netns, one.ip, bearer.ue, b"unasked")
    assert tof.ran.to_ue(bearer.ue).inner.source == SERVICE
    tof.drain()
    edge.provision(group("one", egress(remote="ues")), services=(service | {"initiates": "none"},))
    says(one.netns, one.ip, bearer.ue, b"unasked")
    tof.ran.silent(lambda got: got.inner.destination == bearer.ue, 0.3)


def test_behind_the_apps_adapter_it_opens_flows_unless_its_service_says_no(edge: Edge) -> None:
    tof, bearer = edge.tof, attached(edge.tof)
    service = {"name": "quiet", "serviceIP": QUIET, "applicationIP": APP}
    edge.provision(services=(service,))
    until("it is in force", lambda: tof.get("/service/quiet/status")["state"] == "in_force")
    says(edge.apps, APP, bearer.ue, b"unasked")
    assert tof.ran.to_ue(bearer.ue).inner.source == QUIET
    edge.provision(services=(service | {"initiates": "none"},))
    tof.drain()
    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
        says(edge.apps, APP, bearer.ue, b"unasked", kind)
    tof.ran.silent(lambda got: got.inner.destination == bearer.ue, 0.3)
    other = attached(tof)
    for data in (b"hello", os.urandom(3000)):
        for piece in pieces(udp(other.ue, QUIET, 4000, ECHO, data), 1200, 100):
            tof.ran.send(other.uplink(piece))
        assert tof.ran.to_ue(other.ue).inner.source == QUIET
    tof.drain()
    says(edge.apps, APP, bearer.ue, b"still unasked")
    tof.ran.silent(lambda got: got.inner.destination == bearer.ue, 0.3)


# What they try


def refused(tof: Tof, application: str, reason: str) -> float:
    start = f'tof_refused_packets_total{{application="{application}",reason="{reason}"}} '
    (line,) = [line for line in tof.get("/metrics").splitlines() if line.startswith(start)]
    return float(line.removeprefix(start))


def arp(
    sender_mac: bytes, sender: str, target: str, operation: int = 2, target_mac: bytes = bytes(6)
) -> bytes:
    return (
        b"\x08\x06" + struct.pack("!HHBBH", 1, 0x0800, 6, 4, operation)
        + sender_mac + packed(sender) + target_mac + packed(target)
    )  # fmt: skip


def advertisement(source: str, destination: str, target: str, mac: bytes) -> bytes:
    segment = struct.pack("!BBHI", 136, 0, 0, 0x60000000) + packed(target) + b"\x02\x01" + mac
    segment = fill_checksum(packed(source), packed(destination), ICMPV6, segment)
    head = struct.pack("!IHBB", 6 << 28, len(segment), ICMPV6, 255)
    return b"\x86\xdd" + head + packed(source) + packed(destination) + segment


def forged_by(one: App, two: App) -> Iterator[bytes]:
    """What an application says of addresses that are not its own."""
    for claimed in (two.ip, TOF_APPS, APP):
        for target, mac in (
            (two.ip, two.mac),
            (APP, b"\xff" * 6),
            (TOF_APPS, GATEWAY_MAC),
            (one.ip, b"\xff" * 6),
        ):
            for source in (one.mac, two.mac, GATEWAY_MAC):
                for operation in (1, 2):
                    yield mac + source + arp(one.mac, claimed, target, operation)
                    yield mac + source + arp(one.mac, claimed, target, operation, mac)
    yield two.mac + one.mac + arp(two.mac, one.ip, two.ip)
    for claimed in (two.ip6, TOF_APPS6, APP6, two.link_local):
        for target, mac in ((two.ip6, two.mac), (APP6, OTHER_MAC), (TOF_APPS6, GATEWAY_MAC)):
            for source in (one.ip6, one.link_local, claimed):
                yield mac + one.mac + advertisement(source, target, claimed, one.mac)


def forged_behind_the_apps_adapter(one: App, two: App) -> Iterator[bytes]:
    for claimed in (TOF_APPS, one.ip):
        yield two.mac + OTHER_MAC + arp(OTHER_MAC, claimed, two.ip)
        yield b"\xff" * 6 + OTHER_MAC + arp(OTHER_MAC, claimed, two.ip, 1)
    for claimed in (TOF_APPS6, one.ip6):
        for source in (APP6, claimed):
            yield two.mac + OTHER_MAC + advertisement(source, two.ip6, claimed, OTHER_MAC)


def neighbour(netns: Netns, address: str) -> str:
    """The MAC address under which a kernel knows an address."""
    words = netns.run("ip", "neigh", "show", address).split()
    return words[words.index("lladdr") + 1] if "lladdr" in words else ""


def test_nobody_believes_arp_or_neighbour_discovery_that_is_forged(edge: Edge) -> None:
    one, two, apps = edge.one, edge.two, edge.apps
    everything = group("one", egress(), ingress()), group("two", egress(), ingress())
    edge.provision(*everything)
    pairs = [(two.netns, APP), (two.netns, TOF_APPS), (apps, two.ip), (apps, TOF_APPS), (two.netns, one.ip)]
    pairs += [(two.netns, APP6), (two.netns, TOF_APPS6), (apps, two.ip6), (two.netns, one.ip6)]
    for netns, address in pairs:
        assert pings(netns, address), address
    tof_ns = edge.tof.netns["tof"]
    before = {(netns.name, address): neighbour(netns, address) for netns, address in pairs}
    known = {address: neighbour(tof_ns, address) for address in (one.ip, two.ip, one.ip6, two.ip6)}
    time.sleep(1.1)  # a kernel takes no other address for one that it learnt within a second
    there, gateway = Wire(two.netns, "eth0"), Wire(tof_ns, "tofgw0")
    for netns, forged in ((one.netns, forged_by(one, two)), (apps, forged_behind_the_apps_adapter(one, two))):
        lies = list(forged)
        with contextlib.closing(Wire(netns, "eth0")) as wire:
            wire.send(*lies)
        told = {lie[12:] for lie in lies}
        for wire in (there, gateway, edge.tof.apps):
            wire.find(lambda _: False, 0.2)
            assert not [frame for frame in wire.history if frame[12:] in told]
            wire.drain()
    there.close()
    gateway.close()
    assert {(netns.name, address): neighbour(netns, address) for netns, address in pairs} == before
    assert {address: neighbour(tof_ns, address) for address in known} == known
    for netns, address in pairs:
        assert pings(netns, address), address


def test_nothing_passes_that_is_not_from_the_port_s_own_addresses(edge: Edge) -> None:
    tof, one, two, bearer = edge.tof, edge.one, edge.two, attached(edge.tof)
    edge.provision(
        group("one", egress(), egress(remote="ues"), ingress()),
        group("two", egress(), egress(remote="ues"), ingress()),
        services=({"name": "echo2", "serviceIP": QUIET, "applicationIP": two.ip},),
    )
    assert pings(one.netns, two.ip)
    ethertype = b"\x08\x00"
    good = udp(one.ip, two.ip, 1, 2, b"good")
    to_ue = udp(one.ip, bearer.ue, 1, 2, b"good to the UE")
    with (
        contextlib.closing(Wire(one.netns, "eth0")) as wire,
        contextlib.closing(Wire(two.netns, "eth0")) as there,
    ):
        for source in (two.ip, APP, TOF_APPS, bearer.ue, "10.9.9.9"):
            wire.send(two.mac + one.mac + ethertype + udp(source, two.ip, 1, 2, b"forged"))
            wire.send(GATEWAY_MAC + one.mac + ethertype + udp(source, bearer.ue, 1, 2, b"forged"))
        for mac in (two.mac, GATEWAY_MAC, tunnel_mac(1), service_mac(1)):
            wire.send(two.mac + mac + ethertype + udp(one.ip, two.ip, 1, 2, b"forged"))
            wire.send(GATEWAY_MAC + mac + ethertype + udp(one.ip, bearer.ue, 1, 2, b"forged"))
        for index in range(64):
            wire.send(tunnel_mac(index) + one.mac + ethertype + udp(one.ip, bearer.ue, 1, 2, b"forged"))
            wire.send(service_mac(index) + one.mac + ethertype + udp(one.ip, bearer.ue, 1, 2, b"forged"))
        wire.send(two.mac + one.mac + b"\x81\x00\x00\x05" + ethertype + udp(one.ip, two.ip, 1, 2, b"forged"))
        wire.send(
            GATEWAY_MAC + one.mac + b"\x81\x00\x00\x05" + ethertype + udp(one.ip, bearer.ue, 1, 2, b"forged")
        )
        wire.send(two.mac + one.mac + b"\x86\xdd" + udp("fd00:50::99", two.ip6, 1, 2, b"forged"))
        wire.send(two.mac + one.mac + b"\x88\xb5" + b"forged".ljust(46))
        wire.send(two.mac + one.mac + ethertype + good, GATEWAY_MAC + one.mac + ethertype + to_ue)
        assert there.find(lambda frame: b"good" in frame) is not None
        assert tof.ran.to_ue(bearer.ue).inner.data == b"good to the UE"
        there.find(lambda _: False, 0.3)
        tof.ran.find(lambda _: False, 0.1)
        for one_wire in (there, tof.ran, tof.core, tof.apps):
            one_wire.find(lambda _: False, 0.05)
            assert not [frame for frame in one_wire.history if b"forged" in frame]
    until("what was forged is counted", lambda: refused(tof, "one", "spoofed") >= 140)


def megaflows(tof: Tof) -> int:
    (control,) = (tof.dir / "run").rglob("ovs-vswitchd*.ctl")
    argv = ["ovs-appctl", f"--target={control}", "dpctl/dump-flows"]
    return len(subprocess.run(argv, check=True, text=True, capture_output=True).stdout.splitlines())


def test_flows_in_the_switch_do_not_grow_with_ues(edge: Edge) -> None:
    tof = edge.tof
    bearers = [new_bearer() for _ in range(24)]
    tof.attach(*bearers)
    found = []
    for some in (bearers[:4], bearers):
        for bearer in some:
            tof.ran.send(bearer.uplink(udp(bearer.ue, SERVICE, 4000, ECHO, b"hello")))
            tof.ran.to_ue(bearer.ue)
        found.append(megaflows(tof))
    assert found[1] - found[0] < 8, found


# Life


def test_a_killed_agent_s_configured_ports_lose_nothing(edge: Edge) -> None:
    tof, bearer = edge.tof, attached(edge.tof)
    edge.provision(
        group("one", egress(protocol="udp", remote="group:two")), group("two", ingress(protocol="udp"))
    )
    before = tof.get("/policy")
    sent, over = 0, threading.Event()

    def ask() -> None:
        nonlocal sent
        while not over.is_set():
            tof.ran.send(bearer.uplink(udp(bearer.ue, SERVICE, 4000, ECHO, b"%06d" % sent)))
            sent += 1
            time.sleep(0.003)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        time.sleep(0.3)
        tof.signal(signal.SIGKILL)
        time.sleep(0.3)
        assert asks(edge.one.netns, edge.two.ip)
        tof.start()
        time.sleep(0.5)
        assert asks(edge.one.netns, edge.two.ip)
    finally:
        over.set()
        thread.join()
    tof.ran.find(lambda _: False, 0.5)
    answered = {one.inner.data[4:] for one in tof.ran.gpdus() if one.inner.data.startswith(b"app:0")}
    assert {b"%06d" % n for n in range(sent)} == answered
    assert tof.get("/policy") == before


def test_connections_go_on_when_open_vswitch_has_died(edge: Edge) -> None:
    one, two = edge.one, edge.two
    edge.provision(
        group("one", egress(protocol="tcp", ports=[8000], remote="group:two")),
        group("two", ingress(protocol="tcp", ports=[8000])),
    )
    with serving(two.netns, two.ip, 8000) as server:
        connection = connected(one.netns, two.ip, 8000)
        assert connection is not None
        peer, _ = server.accept()
        with connection, peer:
            connection.settimeout(20)
            peer.settimeout(20)
            _talk(connection, peer)
            (file,) = (edge.tof.dir / "run").rglob("ovs-vswitchd.pid")
            os.kill(int(file.read_text()), signal.SIGKILL)
            until("it is noticed", lambda: not edge.tof._healthy())
            until("another runs", edge.tof._healthy, 20)
            _talk(connection, peer)
            assert connected(one.netns, two.ip, 8001) is None


def test_an_interface_that_goes_and_comes_again(edge: Edge) -> None:
    tof, two = edge.tof, edge.two
    edge.provision(services=({"name": "echo2", "serviceIP": QUIET, "applicationIP": two.ip},))
    bearer = attached(tof)
    tof.netns["tof"].run("ip", "link", "del", two.interface)
    until("nobody is there", lambda: tof.get("/service/echo2/status")["state"] == "unresolved")
    assert _check(tof)["detail"] == f"missing: two (there is no interface {two.interface})"
    two.wire_up()
    until("it is back", lambda: tof.get("/service/echo2/status")["state"] == "in_force")

    def answered() -> bool:
        tof.ran.send(bearer.uplink(udp(bearer.ue, QUIET, 4000, ECHO, b"again")))
        return tof.ran.find(lambda frame: b"app:again" in frame, 0.3) is not None

    until("it answers", answered)
    assert _check(tof)["state"] == "ok"


def _check(tof: Tof) -> dict[str, str]:
    (check,) = [check for check in tof.get("/health")["checks"] if check["name"] == "ports"]
    return check  # type: ignore[no-any-return]


def test_tof_down_gives_the_interfaces_back(edge: Edge) -> None:
    node, before = edge.tof.netns["tof"], edge.tof.get("/policy")
    assert "clsact" in node.run("tc", "qdisc", "show", "dev", edge.one.interface)
    assert "PROMISC" in node.run("ip", "link", "show", edge.one.interface)
    edge.tof.tof("down")
    assert edge.tof.agent is not None
    edge.tof.agent.wait()
    for app in (edge.one, edge.two):
        assert "clsact" not in node.run("tc", "qdisc", "show", "dev", app.interface)
        assert "PROMISC" not in node.run("ip", "link", "show", app.interface)
        assert node.run("sysctl", "-n", f"net.ipv6.conf.{app.interface}.disable_ipv6").strip() == "0"
    assert "tofp" not in node.run("ip", "-o", "link")
    edge.tof.start()
    assert edge.tof.get("/policy") == before
    until("it is back", lambda: edge.tof.get("/service/echo/status")["state"] == "in_force")
    bearer = attached(edge.tof)
    edge.tof.ran.send(bearer.uplink(udp(bearer.ue, SERVICE, 4000, ECHO, b"hello")))
    assert edge.tof.ran.to_ue(bearer.ue).inner.data == b"app:hello"
