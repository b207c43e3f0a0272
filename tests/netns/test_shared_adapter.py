"""One adapter for both sides: a switch joins it with two eNBs and three SGWs, which reach each other through the TOF."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from gtp_apps import udp_echo
from gtp_names import answered, asking, question, saying
from gtp_packets import (
    ELSEWHERE,
    SYN,
    Bearer,
    Gpdu,
    ethernet,
    gtp,
    is_pinger,
    new_bearer,
    pieces,
    ping,
    pong,
    tcp,
    udp,
)
from gtp_peers import APP, TOF_APPS, Setting, Tof, _end, until
from gtp_wires import Wire
from netns_helper import Netns

from tof.wire.inet import IPv4, encode_ipv4

pytestmark = pytest.mark.netns

SERVICE = "203.0.113.10"
TOF_ADDRESS, TOF_ADDRESS6 = "10.0.0.254", "fd00:1::254"
# sgw3 is never heard: no ARP, and nothing but what a test sends.
NODES = {"enb1": 11, "enb2": 12, "sgw1": 201, "sgw2": 202, "sgw3": 203}
FRESH_SGWS = [f"10.0.0.{n}" for n in range(225, 239)]

_CONFIG = """\
[s1]
enb_interface = "s1"
sgw_interface = "s1"
enb = ["10.0.0.0/25", "fd00:1::/120"]
sgw = ["10.0.0.201", "10.0.0.202", "10.0.0.203", "10.0.0.224/28", "fd00:1::201", "fd00:1::202"]
xdp = "{xdp}"
[ue]
app_interface = "apps0"
[pinger]
interval_s = 0.3
[dns]
resolvers = ["198.51.100.53"]
[api]
listen = ["unix:{dir}/api.sock"]
[state]
dir = "{dir}/state"
run_dir = "{dir}/run"
[log]
level = "debug"
"""


@dataclass(frozen=True, slots=True)
class Node:
    """An eNB or SGW with a kernel and a raw socket on its adapter."""

    netns: Netns
    address: str
    address6: str
    mac: bytes
    wire: Wire

    def speaks(self, address: str | None = None) -> socket.socket:
        """A UDP socket on the GTP-U port."""
        with self.netns.entered():
            speaker = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        speaker.bind((address or self.address, 2152))
        speaker.settimeout(3)
        return speaker


@dataclass
class Lan:
    """A TOF with one S1 adapter on a switch, and the nodes around it."""

    tof: Tof
    mac: bytes
    routed: bool
    nodes: dict[str, Node] = field(default_factory=dict)

    def bearer(self, enb: str = "enb1", sgw: str = "sgw1") -> Bearer:
        return new_bearer(enb=self.nodes[enb].address, sgw=self.nodes[sgw].address)

    def send(self, source: Node, *packets: bytes) -> None:
        """To the TOF's MAC address."""
        source.wire.send(*(self.framed(packet, source.mac, self.mac) for packet in packets))

    def expect(self, sink: Node, packet: bytes) -> None:
        """Exactly this packet comes, from the TOF's MAC address."""
        sink.wire.expect(self.framed(packet, self.mac, sink.mac))

    def framed(self, packet: bytes, source: bytes, sink: bytes) -> bytes:
        return ethernet(packet, 0x800 if packet[0] >> 4 == 4 else 0x86DD, (source, sink))

    def cross(self, source: str, sink: str, packet: bytes) -> None:
        self.send(self.nodes[source], packet)
        self.expect(self.nodes[sink], packet)

    def attach(self, bearer: Bearer, enb: str = "enb1", sgw: str = "sgw1") -> None:
        """Teach the TOF both tunnels, and use both once they take the fast lane."""
        for _ in range(2):
            self.cross(enb, sgw, up(bearer))
            self.cross(sgw, enb, down(bearer))
            until("paired", lambda: len(self.tof.known(bearer)) == 2)
            time.sleep(0.12)

    def seen(self, packet: bytes, within_s: float = 0.1) -> list[str]:
        """Where this packet has come to, once for each copy, whatever its frame."""
        time.sleep(within_s)
        found = []
        for name, node in self.nodes.items():
            while node.wire.receive(0) is not None:
                pass
            found += [name for frame in node.wire.history if frame[14:].startswith(packet)]
        return found

    def drain(self) -> None:
        for node in self.nodes.values():
            node.wire.drain()
        self.tof.drain()


def up(bearer: Bearer, inner: bytes | None = None) -> bytes:
    """The outer packet of an uplink G-PDU."""
    return bearer.uplink(inner or udp(bearer.ue, ELSEWHERE, 1000, 2000, os.urandom(40)))[14:]


def down(bearer: Bearer, inner: bytes | None = None) -> bytes:
    return bearer.downlink(inner or udp(ELSEWHERE, bearer.ue, 2000, 1000, os.urandom(40)))[14:]


def _mac(netns: Netns, device: str) -> bytes:
    (link,) = json.loads(netns.run("ip", "-j", "link", "show", device))
    return bytes.fromhex(link["address"].replace(":", ""))


def _join(tof: Tof, lan: Lan, name: str, switch: Netns) -> None:
    """One node, with ways to all nodes of the other side by the TOF."""
    netns, tail = tof.netns[name], NODES[name]
    switch.veth(name, netns, "eth0")
    switch.run("ip", "link", "set", name, "master", "br0")
    netns.run("sysctl", "-qw", "net.ipv4.conf.all.rp_filter=1")
    address, address6 = f"10.0.0.{tail}", f"fd00:1::{tail}"
    netns.run("ip", "address", "add", f"{address}/24", "dev", "eth0")
    netns.run("ip", "address", "add", f"{address6}/64", "dev", "eth0", "nodad")
    far = [f"10.0.0.{n}" for other, n in NODES.items() if other[:3] != name[:3]]
    far += FRESH_SGWS if name.startswith("enb") else []
    for one in far:
        if lan.routed:
            netns.run("ip", "route", "add", f"{one}/32", "via", TOF_ADDRESS)
        else:
            netns.run(
                "ip", "neigh", "add", one, "lladdr", lan.mac.hex(":"), "dev", "eth0", "nud", "permanent"
            )
    mac = _mac(netns, "eth0")
    wire = tof.wires[name] = Wire(netns, "eth0")
    lan.nodes[name] = Node(netns, address, address6, mac, wire)


def _silence(lan: Lan) -> None:
    """The TOF's kernel knows sgw3, the TOF has never heard it."""
    node = lan.nodes["sgw3"]
    node.netns.run("ip", "link", "set", "eth0", "arp", "off")
    lan.tof.netns["tof"].run(
        "ip", "neigh", "add", node.address, "lladdr", node.mac.hex(":"), "dev", "s1", "nud", "permanent"
    )


def _wire_up(tof: Tof, routed: bool) -> Lan:
    switch, host, apps = (tof.netns[role] for role in ("switch", "tof", "apps"))
    for one in tof.netns.values():
        one.run("sysctl", "-qw", "net.ipv6.conf.default.accept_dad=0", "net.ipv6.conf.all.accept_dad=0")
    switch.run("ip", "link", "add", "br0", "type", "bridge", "mcast_snooping", "0")
    switch.run("ip", "link", "set", "br0", "up")
    host.veth("s1", switch, "tof")
    switch.run("ip", "link", "set", "tof", "master", "br0")
    # As from an adapter: VLAN tags in the frame.
    switch.run("ethtool", "-K", "tof", "tx-vlan-hw-insert", "off", "tx-vlan-stag-hw-insert", "off")
    if tof.setting.xdp == "native":
        switch.run("ethtool", "-K", "tof", "gro", "on")
    if routed:
        host.run("ip", "address", "add", f"{TOF_ADDRESS}/24", "dev", "s1")
        host.run("ip", "address", "add", f"{TOF_ADDRESS6}/64", "dev", "s1", "nodad")
    host.run("sysctl", "-qw", "net.ipv4.ip_forward=0")
    lan = Lan(tof, _mac(host, "s1"), routed)
    for name in NODES:
        _join(tof, lan, name, switch)
    for address in FRESH_SGWS:
        tof.netns["sgw2"].run("ip", "address", "add", f"{address}/32", "dev", "eth0")
    _silence(lan)
    host.veth("apps0", apps, "eth0")
    apps.run("ip", "address", "add", f"{APP}/24", "dev", "eth0")
    apps.run("ip", "route", "add", "default", "via", TOF_APPS)
    tof.wires["apps"] = Wire(apps, "eth0")
    return lan


@contextlib.contextmanager
def made(xdp: str, routed: bool) -> Iterator[Lan]:
    """The network, with a configured TOF that does not run yet."""
    directory = Path(tempfile.mkdtemp(prefix="tof-"))
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        roles = ("switch", "tof", "apps", *NODES)
        tof = Tof(Setting(xdp=xdp), directory, {role: stack.enter_context(Netns(role)) for role in roles})
        stack.callback(_end, tof)
        tof.config.write_text(_CONFIG.format(xdp="native" if xdp == "native" else "auto", dir=directory))
        yield _wire_up(tof, routed)


@pytest.fixture(
    scope="module",
    params=[("generic", True), ("native", True), ("generic", False), ("native", False)],
    ids=["generic-routed", "native-routed", "generic-bare", "native-bare"],
)
def lan(request: pytest.FixtureRequest) -> Iterator[Lan]:
    with made(*request.param) as lan:
        lan.tof.start()
        udp_echo(lan.tof.netns["apps"], APP)
        lan.tof.provision("echo", SERVICE)
        yield lan


@pytest.fixture(autouse=True)
def _fresh(request: pytest.FixtureRequest) -> None:
    if "lan" in request.fixturenames:
        request.getfixturevalue("lan").drain()


# What passes


def test_packets_to_an_sgw_that_nobody_has_heard_wait_for_its_mac(lan: Lan) -> None:
    """None is lost or doubled; their order is the kernel's while it resolves, ours from then on."""
    bearer = new_bearer(enb=lan.nodes["enb1"].address, sgw=FRESH_SGWS[0])
    sink = lan.nodes["sgw2"]
    for burst in range(3):
        data = [(burst * 300 + n).to_bytes(4, "big") for n in range(300)]
        packets = [up(bearer, udp(bearer.ue, ELSEWHERE, 1, 2, each)) for each in data]
        lan.send(lan.nodes["enb1"], *packets)
        wanted = {lan.framed(packet, lan.mac, sink.mac): n for n, packet in enumerate(packets)}
        seen: list[int] = []
        while len(seen) < len(packets) and (one := sink.wire.find(wanted.__contains__, 2)) is not None:
            seen.append(wanted[one])
        assert sorted(seen) == list(range(len(packets)))
        assert burst == 0 or seen == sorted(seen)


def test_tunnels_of_all_enbs_and_sgws_are_learnt_and_pass(lan: Lan) -> None:
    for enb in ("enb1", "enb2"):
        for sgw in ("sgw1", "sgw2"):
            bearer = lan.bearer(enb, sgw)
            for pause_s in (0, 0, 0.12, 0):
                time.sleep(pause_s)
                packets = up(bearer), down(bearer)
                lan.cross(enb, sgw, packets[0])
                lan.cross(sgw, enb, packets[1])
                assert [lan.seen(packet, 0.02) for packet in packets] == [[sgw], [enb]]
            known = lan.tof.known(bearer)
            assert set(known) == {"uplink", "downlink"}
            assert all(tunnel["ues"] == [bearer.ue] for tunnel in known.values())
            assert known["downlink"]["packets"] == 4
    assert lan.tof.packets("passed") > 0


def test_a_downlink_packet_may_be_the_first(lan: Lan) -> None:
    bearer = lan.bearer("enb2", "sgw1")
    lan.cross("sgw1", "enb2", down(bearer))
    assert set(until("learnt", lambda: lan.tof.known(bearer))) == {"downlink"}


def test_sockets_of_kernels_with_default_offloads(lan: Lan) -> None:
    """Unfinished checksums, sizes up to the MTU, and datagrams that their sender fragments."""
    for enb, sgw in (("enb1", "sgw1"), ("enb2", "sgw2")):
        one, other = lan.nodes[enb], lan.nodes[sgw]
        with one.speaks() as radio, other.speaks() as core:
            for size in (10, 1400, 1436, 3000, 10, 4000, 20):
                bearer = lan.bearer(enb, sgw)
                for pause_s in (0, 0, 0.12):
                    time.sleep(pause_s)
                    asked = gtp(bearer.up, udp(bearer.ue, ELSEWHERE, 1, 2, os.urandom(size)))
                    radio.sendto(asked, (other.address, 2152))
                    assert _heard(core) == asked
                    told = gtp(bearer.down, udp(ELSEWHERE, bearer.ue, 2, 1, os.urandom(size)))
                    core.sendto(told, (one.address, 2152))
                    assert radio.recv(65535) == told
                until(f"learnt at {size}", lambda b=bearer: len(lan.tof.known(b)) == 2)
            for speaker in (radio, core):
                speaker.setblocking(False)
                with pytest.raises(BlockingIOError):
                    _heard(speaker)


def _heard(core: socket.socket) -> bytes:
    """The next datagram that is none of the Pinger's."""
    while (datagram := core.recv(65535)).endswith(b"tof-pinger"):
        pass
    return datagram


def test_fragments_and_options_pass_as_they_are(lan: Lan) -> None:
    whole = up(lan.bearer(), udp("10.45.0.9", ELSEWHERE, 1, 2, os.urandom(900)))
    ip4 = IPv4(whole[12:16], whole[16:20], 17, whole[20:])
    for packet in (
        encode_ipv4(ip4._replace(payload=ip4.payload[:480], flags=1, identification=77)),
        encode_ipv4(ip4._replace(payload=ip4.payload[480:], offset=480, identification=77)),
        encode_ipv4(ip4._replace(options=b"\x94\x04\0\0")),
    ):
        lan.cross("enb1", "sgw1", packet)
        assert lan.seen(packet, 0.02) == ["sgw1"]


def test_names_are_learnt(lan: Lan) -> None:
    bearer, asked = lan.bearer(), question("video.example.com")
    lan.attach(bearer)
    body = {"name": "named", "domain": "video.example.com", "applicationIP": APP}
    assert lan.tof.call("POST", "/service", body)[0] == 200
    try:
        lan.cross("enb1", "sgw1", asking(bearer, asked)[1][14:])
        port, frame = asking(bearer, asked)
        lan.cross("enb1", "sgw1", frame[14:])
        said = saying(bearer, port, answered(asked, "video.example.com. 60 IN A 203.0.113.91"))
        lan.cross("sgw1", "enb1", said[14:])
        until("it is learnt", lambda: lan.tof.get("/service/named/status")["addresses"])
        lan.send(lan.nodes["enb1"], up(bearer, udp(bearer.ue, "203.0.113.91", 44, 7, b"by name")))
        one = lan.nodes["enb1"].wire.gpdu(lambda one: one.inner.data == b"app:by name")
        assert (one.inner.source, one.teid) == ("203.0.113.91", bearer.down)
    finally:
        assert lan.tof.call("DELETE", "/service/named")[0] == 200


def test_fragments_of_service_traffic_are_diverted_whole(lan: Lan) -> None:
    bearer, enb, sgw = lan.bearer(), lan.nodes["enb1"], lan.nodes["sgw1"]
    lan.attach(bearer)
    for n, order in enumerate((1, -1)):
        data = bytes([n]) * 1300
        parts = pieces(up(bearer, udp(bearer.ue, SERVICE, 40 + n, 7, data)), 800, 90 + n)
        lan.send(enb, *parts[::order])
        answered = enb.wire.gpdu(lambda one, d=data: one.inner.data == b"app:" + d)
        assert answered.teid == bearer.down
        assert not [where for part in parts for where in lan.seen(part, 0.02)]
    parts = pieces(up(bearer, udp(bearer.ue, SERVICE, 42, 7, bytes(1300))), 400, 92)[:3]
    lan.send(enb, *parts)
    for part in parts:
        lan.expect(sgw, part)
    others = pieces(up(bearer, udp(bearer.ue, ELSEWHERE, 43, 7, bytes(1300))), 400, 93)
    for order in (1, -1):
        lan.send(enb, *others[::order])
        for part in others[::order]:
            lan.expect(sgw, part)
        others = pieces(up(bearer, udp(bearer.ue, ELSEWHERE, 43, 7, bytes(1300))), 400, 94)


@pytest.mark.parametrize(
    "kind", [1, 2, 26, 31, 254], ids=["Echo Request", "Echo Response", "Error", "31", "End"]
)
def test_gtpu_messages_other_than_gpdus_pass(lan: Lan, kind: int) -> None:
    one, other = lan.nodes["enb1"], lan.nodes["sgw1"]
    for _ in range(3):
        lan.drain()
        body = b"\x10\0\0\0\1\x85\0\4" + bytes(4) if kind == 26 else b""
        packet = udp(one.address, other.address, 2152, 2152, gtp(0 if kind < 254 else 0x77, body, kind=kind))
        lan.cross("enb1", "sgw1", packet)
        assert lan.seen(packet, 0.02) == ["sgw1"]
    with one.speaks() as radio, other.speaks() as core:
        radio.sendto(gtp(0, body, kind=kind), (other.address, 2152))
        assert _heard(core) == gtp(0, body, kind=kind)


def test_gtpu_over_ipv6(lan: Lan) -> None:
    one, other = lan.nodes["enb1"], lan.nodes["sgw1"]
    for node in (one, other):  # each is heard once: an adapter without an IPv6 address cannot look for them
        node.netns.run("ping", "-6", "-c1", "-W1", TOF_ADDRESS6, check=False)
    bearer = new_bearer(enb=one.address6, sgw=other.address6)
    if not lan.routed:
        lan.send(other, down(bearer))
    for pause_s in (0, 0, 0.12, 0):
        time.sleep(pause_s)
        packets = bearer.uplink(udp(bearer.ue, ELSEWHERE, 1, 2))[14:], bearer.downlink(b"E" + bytes(9))[14:]
        lan.cross("enb1", "sgw1", packets[0])
        lan.cross("sgw1", "enb1", packets[1])
    until("learnt", lambda: "uplink" in lan.tof.known(bearer))


def test_gtpu_in_a_vlan_of_the_adapter(lan: Lan) -> None:
    bearer, sides = lan.bearer().but(vlan=100), (lan.nodes["enb1"], lan.nodes["sgw1"])
    for pause_s in (0, 0, 0.12, 0):
        time.sleep(pause_s)
        for packet, one, other in (("uplink", *sides), ("downlink", *reversed(sides))):
            make = bearer.but(macs=(one.mac, lan.mac)[:: 1 if packet == "uplink" else -1])
            came = make.but(macs=(lan.mac, other.mac)[:: 1 if packet == "uplink" else -1])
            inner = udp(bearer.ue, ELSEWHERE, 1, 2) if packet == "uplink" else udp(ELSEWHERE, bearer.ue, 2, 1)
            one.wire.send(getattr(make, packet)(inner))
            other.wire.expect(getattr(came, packet)(inner))
    assert len(lan.tof.known(bearer)) == 2
    for n in range(2):
        sides[0].wire.send(
            bearer.but(macs=(sides[0].mac, lan.mac)).uplink(udp(bearer.ue, SERVICE, 9, 7, b"%d" % n))
        )
        answered = sides[0].wire.gpdu(lambda one, n=n: one.inner.data == b"app:%d" % n)
        assert (answered.vlan, answered.teid, answered.macs) == (100, bearer.down, (lan.mac, sides[0].mac))


def test_two_vlans_with_the_same_node_addresses(lan: Lan) -> None:
    queued = lan.tof.packets("queued")
    _two_vlans(lan)
    assert lan.tof.packets("queued") - queued < 30


@pytest.mark.parametrize(("xdp", "routed"), [("generic", True), ("native", False)])
def test_two_vlans_whose_tags_are_beside_the_frames(xdp: str, routed: bool) -> None:
    """As a kernel hands them over a veth."""
    with made(xdp, routed) as lan:
        lan.tof.netns["switch"].run("ethtool", "-K", "tof", "tx-vlan-hw-insert", "on")
        lan.tof.start()
        udp_echo(lan.tof.netns["apps"], APP)
        lan.tof.provision("echo", SERVICE)
        _two_vlans(lan)
        assert lan.tof.packets("tags_beside") > 0


def _two_vlans(lan: Lan) -> None:
    """In each VLAN the addresses are other boxes': enb1 and sgw1 in one, enb2 and sgw2 in the other."""
    bearer = lan.bearer("enb1", "sgw1")
    worlds = [
        (bearer.but(vlan=300), lan.nodes["enb1"], lan.nodes["sgw1"]),
        (bearer.but(vlan=400, ue=new_bearer().ue), lan.nodes["enb2"], lan.nodes["sgw2"]),
    ]
    for one, enb, sgw in worlds:  # each node has been heard
        enb.wire.send(one.but(macs=(enb.mac, lan.mac)).uplink(udp(one.ue, ELSEWHERE, 1, 2)))
        sgw.wire.send(one.but(macs=(lan.mac, sgw.mac)).downlink(udp(ELSEWHERE, one.ue, 2, 1)))
    time.sleep(0.3)
    unknown = lan.tof.packets("hop_unknown")
    for n in range(20):
        for one, enb, sgw in worlds:
            inner = udp(one.ue, ELSEWHERE, 1, 2, b"%d" % n)
            enb.wire.send(one.but(macs=(enb.mac, lan.mac)).uplink(inner))
            sgw.wire.expect(one.but(macs=(lan.mac, sgw.mac)).uplink(inner))
            inner = udp(ELSEWHERE, one.ue, 2, 1, b"%d" % n)
            sgw.wire.send(one.but(macs=(lan.mac, sgw.mac)).downlink(inner))
            enb.wire.expect(one.but(macs=(enb.mac, lan.mac)).downlink(inner))
            enb.wire.send(one.but(macs=(enb.mac, lan.mac)).uplink(udp(one.ue, SERVICE, 9, 7, b"%d" % n)))
            answered = enb.wire.gpdu(lambda g, n=n: g.inner.data == b"app:%d" % n)
            assert (answered.vlan, answered.macs, answered.inner.destination) == (
                one.vlan,
                (lan.mac, enb.mac),
                one.ue,
            )
    assert lan.tof.packets("hop_unknown") == unknown


# What does not


def _foreign(lan: Lan) -> dict[str, bytes]:
    enb, other, sgw = (lan.nodes[name].address for name in ("enb1", "enb2", "sgw1"))
    gtpc = bytes.fromhex("48200010000000000000010003000100c4000000") + bytes(900)
    fragment = IPv4(
        *(bytes(map(int, a.split("."))) for a in (enb, sgw)), 17, udp(enb, sgw, 2123, 2123, gtpc)[20:500]
    )
    inner = udp("10.45.0.7", ELSEWHERE, 1, 2)
    return {
        "GTP-C": udp(enb, sgw, 2123, 2123, gtpc),
        "first fragment of GTP-C": encode_ipv4(fragment._replace(flags=1, identification=5)),
        "ICMP": ping(enb, sgw, 1),
        "TCP": tcp(enb, sgw, 1, 2152, SYN),
        "from port 2152": udp(enb, sgw, 2152, 53, b"dns"),
        "GTP-U to an address that is not provisioned": udp(enb, "10.0.0.199", 2152, 2152, gtp(5, inner)),
        "GTP-U between two eNBs": udp(enb, other, 2152, 2152, gtp(5, inner)),
        "GTP-U from an address that is not provisioned": udp("10.0.0.199", sgw, 2152, 2152, gtp(5, inner)),
        "GTP-U to the TOF": udp(enb, TOF_ADDRESS, 2152, 2152, gtp(5, inner)),
    }


def test_nothing_else_is_reflected(lan: Lan) -> None:
    for case, packet in _foreign(lan).items():
        for _ in range(2):
            lan.send(lan.nodes["enb1"], packet)
        assert not lan.seen(packet, 0.03), case
    assert not lan.tof.tunnels(teid=5)


def test_gtpu_to_another_mac_is_not_ours(lan: Lan) -> None:
    """A switch floods what it has not learnt; the TOF sees it and lets it be."""
    source, packet = lan.nodes["enb1"], up(lan.bearer())
    for mac in (b"\xff" * 6, bytes.fromhex("020000abcdef")):
        source.wire.send(lan.framed(packet, source.mac, mac))
    time.sleep(0.1)
    for node in lan.nodes.values():
        node.wire.find(lambda _: False, 0)
        assert lan.framed(packet, lan.mac, node.mac) not in node.wire.history


def test_the_hosts_own_traffic_on_the_adapter(lan: Lan) -> None:
    host = lan.tof.netns["tof"]
    if not lan.routed:
        pytest.skip("the host has no address there in this variant")
    for node in (lan.nodes["enb1"], lan.nodes["sgw2"]):
        assert "3 received" in node.netns.run("ping", "-c3", "-i0.05", "-W2", TOF_ADDRESS)
        assert "3 received" in host.run("ping", "-c3", "-i0.05", "-W2", node.address)
    with host.entered():
        listener = socket.create_server((TOF_ADDRESS, 5001))
    with listener, lan.nodes["sgw1"].netns.entered():
        connection = socket.create_connection((TOF_ADDRESS, 5001), 3)
    listener.close()
    with lan.nodes["enb1"].netns.entered():
        server = socket.create_server((lan.nodes["enb1"].address, 5002))
    with host.entered():
        client = socket.create_connection((lan.nodes["enb1"].address, 5002), 3)
    served, _ = server.accept()
    with connection, server, client, served:
        data = os.urandom(200_000)
        client.settimeout(3)
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        assert b"".join(iter(lambda: served.recv(65536), b"")) == data


def test_a_forwarding_host_doubles_nothing(lan: Lan) -> None:
    """With ip_forward=1 the host forwards what is not GTP-U, as it would without a TOF."""
    host = lan.tof.netns["tof"]
    host.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
    try:
        bearer = lan.bearer("enb1", "sgw2")
        for pause_s in (0, 0, 0.12, 0):
            time.sleep(pause_s)
            packets = up(bearer), down(bearer)
            lan.send(lan.nodes["enb1"], packets[0])
            lan.send(lan.nodes["sgw2"], packets[1])
            assert [lan.seen(packet, 0.05) for packet in packets] == [["sgw2"], ["enb1"]]
        if lan.routed:
            assert "2 received" in lan.nodes["enb1"].netns.run(
                "ping", "-c2", "-i0.05", "-W2", lan.nodes["sgw2"].address
            )
    finally:
        host.run("sysctl", "-qw", "net.ipv4.ip_forward=0")


# Diversion and the Pinger


def _speak(lan: Lan, bearer: Bearer, data: bytes, enb: str = "enb1") -> None:
    lan.send(lan.nodes[enb], up(bearer, udp(bearer.ue, SERVICE, 4000, 7, data)))


def _answer(lan: Lan, bearer: Bearer, data: bytes, enb: str = "enb1") -> Gpdu:
    found = lan.nodes[enb].wire.gpdu(lambda one: one.inner.data == b"app:" + data)
    assert (found.source, found.destination, found.teid) == (bearer.sgw, bearer.enb, bearer.down)
    assert (found.macs, found.vlan) == ((lan.mac, lan.nodes[enb].mac), None)
    assert (found.inner.source, found.inner.destination) == (SERVICE, bearer.ue)
    assert found.checksum_zero_or_right
    assert found.inner.checksum_right
    return found


def _asked(lan: Lan, bearer: Bearer, sgw: str) -> Gpdu:
    """The Pinger's request, as it reaches the SGW."""
    node = lan.nodes[sgw]
    request = node.wire.gpdu(lambda one: one.teid == bearer.up and is_pinger(one))
    assert (request.source, request.destination) == (bearer.enb, bearer.sgw)
    assert request.macs == (lan.mac, node.mac)
    assert request.inner.source == bearer.ue
    return request


@pytest.mark.parametrize(("enb", "sgw"), [("enb1", "sgw1"), ("enb2", "sgw2")])
def test_a_service_answers_in_the_ues_tunnel(lan: Lan, enb: str, sgw: str) -> None:
    bearer = lan.bearer(enb, sgw)
    lan.attach(bearer, enb, sgw)
    lan.drain()
    for n in range(3):
        data = os.urandom(20 + n)
        _speak(lan, bearer, data, enb)
        _answer(lan, bearer, data, enb)
    assert not [one for one in lan.nodes[sgw].wire.gpdus() if one.teid == bearer.up]


def test_a_ues_very_first_packet_is_diverted_and_the_pinger_learns_the_downlink(lan: Lan) -> None:
    bearer = lan.bearer("enb2", "sgw2")
    _speak(lan, bearer, b"first", "enb2")
    request = _asked(lan, bearer, "sgw2")
    reply = down(bearer, pong(request.message.payload))
    lan.send(lan.nodes["sgw2"], reply)
    _answer(lan, bearer, b"first", "enb2")
    assert not lan.seen(reply)
    assert set(lan.tof.known(bearer)) == {"uplink", "downlink"}
    assert not [one for one in lan.nodes["sgw2"].wire.gpdus() if one.teid == bearer.up and not is_pinger(one)]


def test_an_sgw_that_was_never_heard_is_reached_by_the_kernels_neighbour_table(lan: Lan) -> None:
    bearer = lan.bearer("enb1", "sgw3")
    for pause_s in (0, 0, 0.12, 0):
        time.sleep(pause_s)
        packet = up(bearer)
        lan.cross("enb1", "sgw3", packet)
        assert lan.seen(packet, 0.02) == ["sgw3"]
    request = _asked(lan, bearer, "sgw3")
    lan.send(lan.nodes["sgw3"], down(bearer, pong(request.message.payload)))
    until("the downlink is learnt", lambda: len(lan.tof.known(bearer)) == 2)


# Life


def test_bypass_passes_everything_and_can_be_left(lan: Lan) -> None:
    bearer = lan.bearer()
    lan.attach(bearer)
    with lan.nodes["enb1"].speaks() as radio, lan.nodes["sgw1"].speaks() as core:
        lan.tof.tof("bypass", "on")
        try:
            lan.drain()
            to_service = up(bearer, udp(bearer.ue, SERVICE, 4000, 7, b"to the core"))
            unknown = up(lan.bearer())
            for packet in (to_service, unknown, up(bearer)):
                lan.cross("enb1", "sgw1", packet)
                assert lan.seen(packet, 0.02) == ["sgw1"]
            lan.cross("sgw1", "enb1", down(bearer))
            radio.sendto(b"a kernel's", (lan.nodes["sgw1"].address, 2152))
            until("it comes", lambda: core.recv(2000) == b"a kernel's")
            for case, packet in _foreign(lan).items():
                lan.send(lan.nodes["enb1"], packet)
                assert not lan.seen(packet, 0.02), case
        finally:
            lan.tof.tof("bypass", "off")
    lan.drain()
    _speak(lan, bearer, b"back")
    _answer(lan, bearer, b"back")


def test_kill_and_restart_keep_traffic_and_tunnels(lan: Lan) -> None:
    bearer = lan.bearer("enb2", "sgw1")
    lan.attach(bearer, "enb2", "sgw1")
    before = {(one["source"], one["teid"]) for one in lan.tof.tunnels()}
    lan.tof.signal(signal.SIGKILL)
    for n in range(5):
        lan.cross("enb2", "sgw1", up(bearer))
        lan.cross("sgw1", "enb2", down(bearer))
        _speak(lan, bearer, b"dead %d" % n, "enb2")
        _answer(lan, bearer, b"dead %d" % n, "enb2")
    unknown = lan.bearer("enb1", "sgw2")
    lan.cross("enb1", "sgw2", up(unknown))
    lan.drain()
    ticks = _Ticks(lan, bearer)
    lan.tof.start()
    assert not ticks.stop()
    assert before <= {(one["source"], one["teid"]) for one in lan.tof.tunnels()}
    _speak(lan, bearer, b"alive", "enb2")
    _answer(lan, bearer, b"alive", "enb2")
    lan.cross("enb1", "sgw2", up(unknown))
    until("learnt by the new agent", lambda: lan.tof.known(unknown))


class _Ticks:
    """Numbered packets of a known tunnel, sent by a process of its own while something happens."""

    def __init__(self, lan: Lan, bearer: Bearer) -> None:
        self._lan, self._bearer = lan, bearer
        source = lan.nodes["enb2"]
        frame = lan.framed(up(bearer, udp(bearer.ue, ELSEWHERE, 1, 2, b"tick")), source.mac, lan.mac)
        code = (
            "import socket,sys,time\n"
            "s=socket.socket(socket.AF_PACKET,socket.SOCK_RAW);s.bind(('eth0',0));n=0\n"
            "import select\n"
            "while not select.select([sys.stdin],[],[],0.002)[0]:\n"
            f"  s.send(bytes.fromhex('{frame.hex()}')); n+=1\n"
            "print(n)\n"
        )
        self._process = source.netns.start(sys.executable, "-c", code)
        self._wanted = lan.framed(frame[14:], lan.mac, lan.nodes["sgw1"].mac)

    def stop(self) -> int:
        """How many were lost."""
        sent = int(self._process.communicate("\n", timeout=5)[0])
        wire = self._lan.nodes["sgw1"].wire
        wire.find(lambda _: False, 0.2)
        came = sum(frame == self._wanted for frame in wire.history)
        assert sent > 10
        return sent - came


def _state_of(netns: Netns, probe: Callable[..., str]) -> dict[str, str]:
    commands = (
        ("ip", "-d", "link", "show", "s1"),
        ("ip", "address", "show", "dev", "s1"),
        ("ip", "route"),
        ("tc", "qdisc", "show", "dev", "s1"),
        ("ethtool", "-k", "s1"),
        ("ip", "-br", "link"),
        ("sysctl", "net.ipv6.conf.s1.disable_ipv6"),
    )
    return {" ".join(command): probe(*command) for command in commands}


@pytest.mark.parametrize("routed", [True, False], ids=["routed", "bare"])
@pytest.mark.parametrize("xdp", ["generic", "native"])
def test_down_leaves_all_as_it_was(xdp: str, routed: bool) -> None:
    with made(xdp, routed) as lan:
        host = lan.tof.netns["tof"]
        before = _state_of(host, host.run)
        lan.tof.start()
        lan.cross("enb1", "sgw1", up(lan.bearer()))
        lan.tof.tof("down")
        assert lan.tof.agent is not None
        lan.tof.agent.wait(5)
        assert _state_of(host, host.run) == before


def test_an_adapter_in_a_bridge_is_taken_out_of_it_and_put_back() -> None:
    with made("generic", False) as lan:
        host = lan.tof.netns["tof"]
        host.run("ip", "link", "add", "old0", "type", "bridge")
        host.run("ip", "link", "set", "s1", "master", "old0")
        lan.tof.start()
        assert "master" not in host.run("ip", "link", "show", "s1")
        lan.cross("enb1", "sgw1", up(lan.bearer()))
        lan.tof.tof("down")
        assert "master old0" in host.run("ip", "link", "show", "s1")


def test_other_sides_after_a_restart() -> None:
    """A node that is no longer provisioned is no longer served."""
    with made("generic", True) as lan:
        lan.tof.start()
        packet = up(lan.bearer())
        lan.cross("enb1", "sgw1", packet)
        lan.tof.signal(signal.SIGTERM)
        text = lan.tof.config.read_text()
        lan.tof.config.write_text(text.replace('sgw = ["10.0.0.201", ', "sgw = ["))
        lan.tof.start()
        lan.drain()
        lan.send(lan.nodes["enb1"], packet)
        assert not lan.seen(packet)
        lan.cross("enb1", "sgw2", up(lan.bearer("enb1", "sgw2")))


@pytest.mark.parametrize("side", ["enb", "sgw"])
def test_both_sides_are_required(tmp_path: Path, side: str) -> None:
    lines = _CONFIG.format(xdp="auto", dir=tmp_path).splitlines()
    config = tmp_path / "tof.toml"
    config.write_text("\n".join(line for line in lines if not line.startswith(f"{side} =")))
    argv = [sys.executable, "-m", "tof", "check-config", str(config)]
    done = subprocess.run(argv, text=True, capture_output=True, check=False)
    assert done.returncode == 2
    assert f"s1.{side}:" in done.stderr + done.stdout
