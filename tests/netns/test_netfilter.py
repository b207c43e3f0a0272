"""What the slow lane wraps reaches the queue and leaves it byte for byte, on a real kernel."""

import contextlib
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from netfilterqueue import NetfilterQueue, Packet
from netns_helper import MakeNetns, Netns
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Raw

from tof.config import Config, parse
from tof.drivers import netfilter
from tof.drivers.host import Host

pytestmark = pytest.mark.netns

PACKET_IGNORE_OUTGOING = 23
COPIED = 2048
DUMMY = "192.0.0.8"
G_PDU = bytes.fromhex("30ff000400000001") + b"user"
ETHER = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
V4 = IP(src="10.0.0.1", dst="10.0.0.2", tos=0xB8, ttl=1, id=7)
V6 = IPv6(src="fd00::1", dst="fd00::2", tc=0xB8, fl=5)
PORTS = {"sport": 2152, "dport": 2152}
FRAMES = {
    "IPv4": ETHER / V4 / UDP(**PORTS) / G_PDU,
    "IPv4, wrong IP checksum": ETHER
    / IP(src="10.0.0.1", dst="10.0.0.2", chksum=0x1234)
    / UDP(**PORTS)
    / G_PDU,
    "IPv4, jumbo": ETHER / V4 / UDP(**PORTS) / (G_PDU + bytes(8900)),
    "IPv4, first fragment": ETHER / IP(src="10.0.0.1", dst="10.0.0.2", flags="MF") / UDP(**PORTS) / G_PDU,
    "IPv6": ETHER / V6 / UDP(**PORTS) / G_PDU,
    "VLAN, IPv4": ETHER / Dot1Q(vlan=7, prio=3) / V4 / UDP(**PORTS) / G_PDU,
    "padding": ETHER / V4 / UDP(**PORTS) / G_PDU / Raw(bytes(9)),
    "no IP at all": ETHER / Raw(b"anything"),
}


def wrapped(kind: str) -> bytes:
    """A frame as the slow lane puts it into the detour: behind an IPv4 header of its own, the second layer 2 header."""
    frame = bytes(FRAMES[kind])
    return bytes(
        Ether(src="02:71:00:00:00:01", dst="02:71:00:00:00:02")
        / IP(proto=253, src=DUMMY, dst=DUMMY)
        / bytes(4)
        / frame
    )


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return parse(
        '[s1]\nenb_interface = "enb0"\nsgw_interface = "sgw0"\n[ue]\napp_interface = "apps0"\n'
        f'[state]\ndir = "{tmp_path}/lib"\nrun_dir = "{tmp_path}/run"\n'
    )


@pytest.fixture
def host(netns: MakeNetns, config: Config) -> Iterator[Netns]:
    host, far = netns("host"), netns("far")
    for name in ("enb0", "sgw0", "apps0"):
        host.veth(name, far, name)
    with host.entered():
        Host(config).up()
        netfilter.ensure(netfilter.wanted(config))
        yield host


class Wire:
    """Into the detour at ``a``, out of it at ``d``, as whole frames."""

    def __init__(self, queue: int) -> None:
        self._send = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        self._send.bind((f"tofq{queue}a", 0))
        self._receive = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        self._receive.setsockopt(263, PACKET_IGNORE_OUTGOING, 1)
        self._receive.bind((f"tofq{queue}d", 0))
        self._receive.settimeout(1)

    def __enter__(self) -> "Wire":
        return self

    def __exit__(self, *_: object) -> None:
        self._send.close()
        self._receive.close()

    def send(self, frame: bytes) -> None:
        self._send.send(frame)

    def receive(self) -> bytes | None:
        with contextlib.suppress(TimeoutError):
            return self._receive.recv(65535)
        return None


@contextlib.contextmanager
def listening(queue: int, verdict: str = "accept") -> Iterator["Heard"]:
    """A listener that gives every packet the same verdict, and what it heard."""
    heard: list[bytes] = []

    def decide(packet: Packet) -> None:
        heard.append(packet.get_payload())
        getattr(packet, verdict)()

    listener = NetfilterQueue()
    # Its buffer is 4096 bytes: what is copied to us must be cut, or a jumbo frame never gets a verdict.
    listener.bind(queue, decide, range=COPIED)
    try:
        yield Heard(heard, listener)
    finally:
        listener.unbind()


class Heard:
    """What a listener heard; ``serve`` handles what is waiting."""

    def __init__(self, heard: list[bytes], listener: NetfilterQueue) -> None:
        self.heard, self._listener = heard, listener

    def serve(self) -> list[bytes]:
        deadline = time.monotonic() + 1
        while not self.heard and time.monotonic() < deadline:
            self._listener.run(block=False)
            time.sleep(0.005)
        heard = list(self.heard)
        self.heard.clear()
        return heard


@pytest.mark.parametrize("kind", FRAMES)
@pytest.mark.parametrize("queue", [0, 1])
def test_queued_and_let_through_unchanged(host: Netns, kind: str, queue: int) -> None:
    with Wire(queue) as wire, listening(queue) as heard:
        wire.send(wrapped(kind))
        assert heard.serve() == [wrapped(kind)[14:][:COPIED]]
        assert wire.receive() == wrapped(kind)


@pytest.mark.parametrize("kind", FRAMES)
def test_bypass_without_listener(host: Netns, kind: str) -> None:
    with Wire(0) as wire:
        wire.send(wrapped(kind))
        assert wire.receive() == wrapped(kind)


def test_drop(host: Netns) -> None:
    with Wire(0) as wire, listening(0, "drop") as heard:
        wire.send(wrapped("IPv4"))
        assert len(heard.serve()) == 1
        assert wire.receive() is None


def test_a_firewall_that_drops_forwarded_packets(host: Netns) -> None:
    host.run("iptables", "-P", "FORWARD", "DROP")
    host.run("ip6tables", "-P", "FORWARD", "DROP")
    with Wire(0) as wire, listening(0) as heard:
        for kind in ("IPv4", "IPv6", "VLAN, IPv4"):
            wire.send(wrapped(kind))
            assert len(heard.serve()) == 1
            assert wire.receive() == wrapped(kind)


def test_conntrack_does_not_see_them(host: Netns) -> None:
    host.run("iptables", "-A", "INPUT", "-m", "conntrack", "--ctstate", "NEW", "-j", "ACCEPT")
    host.run("iptables", "-A", "FORWARD", "-m", "conntrack", "--ctstate", "NEW", "-j", "DROP")
    with Wire(0) as wire, listening(0) as heard:
        wire.send(wrapped("IPv4, first fragment"))
        assert len(heard.serve()) == 1
        assert wire.receive() == wrapped("IPv4, first fragment")
    table = Path("/proc/net/nf_conntrack")
    assert DUMMY not in (table.read_text() if table.exists() else "")


def test_s1_never_meets_netfilter(host: Netns, netns: MakeNetns) -> None:
    for tool in ("iptables", "ip6tables"):
        host.run(tool, "-t", "raw", "-A", "PREROUTING", "-j", "DROP")
    counter = "iptables", "-t", "raw", "-nvxL", "PREROUTING"
    before = host.run(*counter)
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
        sender.bind(("enb0", 0))
        sender.send(bytes(FRAMES["IPv4"]))
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
        sender.bind(("br-s1", 0))
        sender.send(bytes(FRAMES["IPv4"]))
    assert host.run(*counter) == before


@pytest.mark.parametrize("variant", ["", "nft", "legacy"])
def test_ensure_repair_remove(netns: MakeNetns, config: Config, variant: str) -> None:
    rules = netfilter.wanted(config)
    tool = f"iptables-{variant}" if variant else "iptables"
    host = netns("rules")
    host.run(tool, "-A", "FORWARD", "-s", "10.9.9.9", "-j", "DROP")
    with host.entered():
        assert not netfilter.present(rules, variant)
        assert netfilter.ensure(rules, variant)
        assert not netfilter.ensure(rules, variant)
        assert netfilter.present(rules, variant)
        host.run(tool, "-t", "raw", "-F", "PREROUTING")
        host.run(tool, "-D", rules.chain, "1")
        assert not netfilter.present(rules, variant)
        assert netfilter.ensure(rules, variant)
        assert netfilter.present(rules, variant)
        assert netfilter.remove(rules, variant)
        assert not netfilter.remove(rules, variant)
    assert "-A FORWARD -s 10.9.9.9/32 -j DROP" in host.run(f"{tool}-save")
    assert "TOF" not in host.run(f"{tool}-save")
