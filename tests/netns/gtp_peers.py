"""Both ends of S1-U and N3 for tests: frames made and read packet by packet, and a TOF of its own between them.

    with running_tof() as tof:                       # namespaces ran, core, apps and tof; the agent is up
        bearer = new_bearer()
        tof.ran.send(bearer.uplink(udp(bearer.ue, "198.51.100.7", 1000, 2000, b"hello")))
        tof.core.expect(the_same_frame)

The eNBs' and SGWs' addresses belong to no kernel, so nothing but the tests answers for them; the kernels at both ends
have addresses of their own (10.9.0.1, 10.9.0.2) for traffic that is no GTP-U.
"""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import itertools
import json
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any, NamedTuple

from netns_helper import Netns

from tof.wire.gtpu import G_PDU, PDU_SESSION_CONTAINER, Extension, Message, decode_gpdu, encode
from tof.wire.icmp import Echo, decode_echo, echo_packet
from tof.wire.inet import (
    ETHERTYPE_IPV4,
    ETHERTYPE_IPV6,
    ICMP,
    ICMPV6,
    TCP,
    UDP,
    UDP_PROTOCOL,
    Ethernet,
    IPv4,
    IPv6,
    checksum,
    decode_ethernet,
    decode_ipv4,
    decode_ipv6,
    encode_ethernet,
    encode_ipv4,
    encode_ipv6,
    encode_udp,
    fill_checksum,
    pseudo_header,
)

RAN_MAC = bytes.fromhex("020000000101")
CORE_MAC = bytes.fromhex("020000000202")
APP_MAC = bytes.fromhex("020000000303")
RAN_KERNEL, CORE_KERNEL = "10.9.0.1", "10.9.0.2"
ENB, SGW = "10.1.0.11", "10.1.0.1"
APP, TOF_APPS = "192.168.50.10", "192.168.50.1"
APP6, TOF_APPS6 = "fd00:50::10", "fd00:50::1"
TARGET, TARGET6 = "8.8.8.8", "2001:4860:4860::8888"
ELSEWHERE, ELSEWHERE6 = "198.51.100.7", "2001:db8:ffff::7"
FIN, SYN, ACK = 0x01, 0x02, 0x10

_AUXDATA, _SOL_PACKET, _VLAN_VALID = 8, 263, 1 << 4
_OUTGOING = 4


# ------------------------------------------------------------------------------------------------ packets


def packed(address: str) -> bytes:
    return ip_address(address).packed


def ip(source: str, destination: str, protocol: int, segment: bytes, ttl: int = 64, tos: int = 0) -> bytes:
    """An IP packet of the addresses' family around a segment whose checksum is made right."""
    a, b = packed(source), packed(destination)
    segment = fill_checksum(a, b, protocol, segment)
    if len(a) == 4:
        return encode_ipv4(IPv4(a, b, protocol, segment, ttl, tos))
    return encode_ipv6(IPv6(a, b, protocol, segment, ttl, tos))


def udp(
    source: str, destination: str, sport: int, dport: int, data: bytes = b"", ttl: int = 64, tos: int = 0
) -> bytes:
    return ip(source, destination, UDP_PROTOCOL, encode_udp(UDP(sport, dport, data)), ttl, tos)


def tcp(
    source: str, destination: str, sport: int, dport: int, flags: int, *, seq: int = 1000, ack: int = 0,
    mss: int | None = None, data: bytes = b"",
) -> bytes:  # fmt: skip
    options = b"" if mss is None else struct.pack("!BBH", 2, 4, mss)
    head = struct.pack("!HHIIBBHHH", sport, dport, seq, ack, (20 + len(options)) << 2, flags, 65000, 0, 0)
    return ip(source, destination, TCP, head + options + data)


def ping(source: str, destination: str, ident: int, sequence: int = 1, data: bytes = b"a UE's own") -> bytes:
    return echo_packet(packed(source), packed(destination), Echo(ident, sequence, data))


def pong(request: bytes) -> bytes:
    """The echo reply to an echo request."""
    inner = Inner.of(request)
    echo = decode_echo(inner.protocol, inner.segment)
    return echo_packet(packed(inner.destination), packed(inner.source), echo._replace(reply=True))


class Inner(NamedTuple):
    """An IP packet, read."""

    source: str
    destination: str
    protocol: int
    ttl: int
    tos: int
    segment: bytes

    @classmethod
    def of(cls, packet: bytes) -> Inner:
        one: IPv4 | IPv6 = decode_ipv4(packet) if packet[0] >> 4 == 4 else decode_ipv6(packet)
        ttl = one.ttl if isinstance(one, IPv4) else one.hop_limit
        names = str(ip_address(one.source)), str(ip_address(one.destination))
        return cls(*names, one.protocol, ttl, one.tos, one.payload)

    @property
    def ports(self) -> tuple[int, int]:
        return struct.unpack_from("!HH", self.segment)  # type: ignore[return-value]

    @property
    def data(self) -> bytes:
        return self.segment[8:]

    @property
    def tcp_flags(self) -> int:
        return self.segment[13]

    @property
    def mss(self) -> int | None:
        at, end = 20, (self.segment[12] >> 4) * 4
        while at < end:
            kind = self.segment[at]
            if kind == 2:
                return int.from_bytes(self.segment[at + 2 : at + 4], "big")
            at += 1 if kind < 2 else self.segment[at + 1]
        return None

    @property
    def checksum_right(self) -> bool:
        pseudo = b""
        if self.protocol != ICMP:
            pseudo = pseudo_header(
                packed(self.source), packed(self.destination), self.protocol, len(self.segment)
            )
        return checksum(pseudo + self.segment) == 0


def container(pdu_type: int, qfi: int) -> Extension:
    return Extension(PDU_SESSION_CONTAINER, bytes((pdu_type << 4, qfi)))


def gtp(teid: int, payload: bytes = b"", *, kind: int = G_PDU, **more: Any) -> bytes:
    """A GTP-U message; ``more`` are fields of ``Message`` (flags, sequence, npdu, extensions)."""
    return encode(Message(more.pop("flags", 0x30), kind, teid, payload=payload, **more))


def carried(
    source: str, destination: str, message: bytes, *, macs: tuple[bytes, bytes], vlan: int | None = None,
    tos: int = 0, sport: int = 2152, ttl: int = 64,
) -> bytes:  # fmt: skip
    """The frame that carries a GTP-U message."""
    packet = udp(source, destination, sport, 2152, message, ttl, tos)
    ethertype = ETHERTYPE_IPV4 if packet[0] >> 4 == 4 else ETHERTYPE_IPV6
    return ethernet(packet, ethertype, macs, vlan)


def ethernet(payload: bytes, ethertype: int, macs: tuple[bytes, bytes], vlan: int | None = None) -> bytes:
    tags = () if vlan is None else ((0x8100, vlan),)
    return encode_ethernet(Ethernet(macs[1], macs[0], ethertype, payload, tags))


@dataclass(frozen=True, slots=True)
class Bearer:
    """A UE's bearer: one tunnel up, one down. With a QFI it is a 5G one."""

    ue: str
    up: int
    down: int
    enb: str = ENB
    sgw: str = SGW
    vlan: int | None = None
    qfi: int | None = None
    tos: int = 0
    macs: tuple[bytes, bytes] = (RAN_MAC, CORE_MAC)

    def uplink(self, inner: bytes, **more: Any) -> bytes:
        """The frame that carries ``inner`` from the UE."""
        more |= {} if self.qfi is None else {"extensions": (container(1, self.qfi),)}
        return carried(
            self.enb, self.sgw, gtp(self.up, inner, **more), macs=self.macs, vlan=self.vlan, tos=self.tos
        )

    def downlink(self, inner: bytes, **more: Any) -> bytes:
        """The frame that carries ``inner`` to the UE."""
        more |= {} if self.qfi is None else {"extensions": (container(0, self.qfi),)}
        macs, message = self.macs[::-1], gtp(self.down, inner, **more)
        return carried(self.sgw, self.enb, message, macs=macs, vlan=self.vlan, tos=self.tos)

    def but(self, **changes: Any) -> Bearer:
        return replace(self, **changes)


_serial = itertools.count(2)


def new_bearer(**more: Any) -> Bearer:
    """A bearer of a UE that no test has seen before."""
    n = next(_serial)
    return Bearer(f"10.45.{n // 250}.{n % 250 + 1}", 0x1000 + n, 0x2000 + n, **more)


def new_bearer6(**more: Any) -> Bearer:
    """The same with an IPv6 UE."""
    n = next(_serial)
    return Bearer(f"2001:db8:45:{n:x}::99", 0x1000 + n, 0x2000 + n, **more)


class Gpdu(NamedTuple):
    """A frame with a G-PDU in it, read."""

    macs: tuple[bytes, bytes]
    vlan: int | None
    source: str
    destination: str
    tos: int
    outer: Inner
    message: Message

    @classmethod
    def of(cls, frame: bytes) -> Gpdu:
        eth = decode_ethernet(frame)
        one, outer = decode_gpdu(eth.payload), Inner.of(eth.payload)
        macs = (eth.source, eth.destination)
        return cls(macs, eth.vlan, outer.source, outer.destination, one.tos, outer, one.message)

    @property
    def teid(self) -> int:
        return self.message.teid

    @property
    def inner(self) -> Inner:
        return Inner.of(self.message.payload)

    @property
    def checksum_zero_or_right(self) -> bool:
        return self.outer.segment[6:8] == b"\0\0" or self.outer.checksum_right


def gpdu_of(frame: bytes) -> Gpdu | None:
    """The G-PDU in a frame, None if there is none."""
    eth = decode_ethernet(frame)
    if eth.ethertype not in (ETHERTYPE_IPV4, ETHERTYPE_IPV6) or len(eth.payload) < 36:
        return None
    at = 20 if eth.payload[0] >> 4 == 4 else 40
    at_protocol = 9 if at == 20 else 6
    if eth.payload[at_protocol] != UDP_PROTOCOL or eth.payload[at + 2 : at + 4] != b"\x08\x68":
        return None
    return Gpdu.of(frame) if eth.payload[at + 9 : at + 10] == b"\xff" else None


# ------------------------------------------------------------------------------------------------ wires


class Wire:
    """A raw socket on a device at the far end: what is sent enters the TOF, what leaves the TOF is received."""

    def __init__(self, netns: Netns, device: str) -> None:
        with netns.entered():
            self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
            self.socket.bind((device, 3))
        self.socket.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)
        self.socket.setsockopt(socket.SOL_SOCKET, 32, 16 << 20)
        self.socket.setsockopt(_SOL_PACKET, _AUXDATA, 1)
        self.socket.setblocking(False)
        self.history: list[bytes] = []

    def send(self, *frames: bytes) -> None:
        for frame in frames:
            while True:
                try:
                    self.socket.send(frame)
                    break
                except BlockingIOError:
                    select.select([], [self.socket], [], 1)

    def receive(self, timeout_s: float) -> bytes | None:
        """The next frame that came from the TOF, its VLAN tag in place; None if there is none in time."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                frame, extra, _, sender = self.socket.recvmsg(65535, 64)
            except BlockingIOError:
                left = deadline - time.monotonic()
                if left <= 0:
                    return None
                select.select([self.socket], [], [], left)
                continue
            if sender[2] != _OUTGOING:
                self.history.append(_retagged(frame, extra))
                return self.history[-1]

    def drain(self) -> None:
        """Forget everything that has come so far."""
        while self.receive(0) is not None:
            pass
        self.history.clear()

    def find(self, wanted: Callable[[bytes], bool], timeout_s: float = 3.0) -> bytes | None:
        """The next frame that is wanted; others are let go."""
        deadline = time.monotonic() + timeout_s
        while (frame := self.receive(max(0.0, deadline - time.monotonic()))) is not None:
            if wanted(frame):
                return frame
        return None

    def expect(self, frame: bytes, timeout_s: float = 3.0) -> None:
        """Exactly this frame comes, byte for byte."""
        seen: list[bytes] = []

        def same(one: bytes) -> bool:
            seen.append(one)
            return one == frame

        found = self.find(same, timeout_s)
        assert found is not None, f"expected {frame.hex()}\nsaw {[one.hex() for one in seen]}"

    def gpdu(self, wanted: Callable[[Gpdu], bool] = lambda _: True, timeout_s: float = 3.0) -> Gpdu:
        """The next wanted G-PDU."""
        found = self.find(lambda frame: (one := gpdu_of(frame)) is not None and wanted(one), timeout_s)
        assert found is not None, "the G-PDU did not come"
        return Gpdu.of(found)

    def to_ue(self, ue: str, timeout_s: float = 3.0) -> Gpdu:
        """The next G-PDU to this UE."""
        return self.gpdu(lambda one: one.inner.destination == ue, timeout_s)

    def gpdus(self) -> list[Gpdu]:
        """The G-PDUs that have come since the last ``drain``."""
        return [one for frame in self.history if (one := gpdu_of(frame)) is not None]

    def silent(self, wanted: Callable[[Gpdu], bool] = lambda _: True, for_s: float = 0.2) -> None:
        """No such G-PDU has come since the last ``drain``, and none comes for a while."""
        self.find(lambda _: False, for_s)
        found = [one for one in self.gpdus() if wanted(one)]
        assert not found, f"came against expectation: {found}"

    def packet(self, wanted: Callable[[Inner], bool], timeout_s: float = 3.0) -> tuple[Ethernet, Inner]:
        """The next wanted IP packet that is in no tunnel, with the frame it came in."""

        def judged(frame: bytes) -> bool:
            eth = decode_ethernet(frame)
            return eth.ethertype in (ETHERTYPE_IPV4, ETHERTYPE_IPV6) and wanted(Inner.of(eth.payload))

        found = self.find(judged, timeout_s)
        assert found is not None, "the packet did not come"
        eth = decode_ethernet(found)
        return eth, Inner.of(eth.payload)

    def close(self) -> None:
        self.socket.close()


def _retagged(frame: bytes, extra: list[tuple[int, int, bytes]]) -> bytes:
    for level, kind, data in extra:
        if (level, kind) == (_SOL_PACKET, _AUXDATA):
            status, _, _, _, _, tci, tpid = struct.unpack("=IIIHHHH", data[:20])
            if status & _VLAN_VALID:
                return frame[:12] + struct.pack("!HH", tpid or 0x8100, tci) + frame[12:]
    return frame


# ------------------------------------------------------------------------------------------------ the TOF


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("tof", timeout=20)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(20)
        self.sock.connect(self._path)


def until(what: str, probe: Callable[[], Any], within: float = 5.0, every: float = 0.02) -> Any:
    """Ask until ``probe`` answers something true."""
    deadline = time.monotonic() + within
    while not (found := probe()):
        assert time.monotonic() < deadline, f"waited {within:g} s in vain: {what}"
        time.sleep(every)
    return found


_CONFIG = """\
[s1]
enb_interface = {enb}
sgw_interface = "sgw0"
xdp = "{xdp}"
[ue]
app_interface = "apps0"
app_address = ["192.168.50.1/24", "fd00:50::1/64"]
[pinger]
target = ["8.8.8.8", "2001:4860:4860::8888"]
interval_s = {ping_interval_s}
attempts = {ping_attempts}
[tunnels]
idle_timeout_s = {idle_timeout_s}
[api]
listen = ["unix:{dir}/api.sock"]
[state]
dir = "{dir}/state"
run_dir = "{dir}/run"
[log]
level = "debug"
"""


@dataclass
class Setting:
    """What differs between the modules' TOFs."""

    xdp: str = "generic"
    enbs: int = 1
    mtu: int = 1500
    ping_interval_s: float = 0.3
    ping_attempts: int = 5
    idle_timeout_s: int = 300


@dataclass
class Tof:
    """Namespaces ran, core, apps around one with an agent in it."""

    setting: Setting
    dir: Path
    netns: dict[str, Netns]
    wires: dict[str, Wire] = field(default_factory=dict)
    agent: subprocess.Popen[bytes] | None = None

    @property
    def ran(self) -> Wire:
        return self.wires["ran"]

    @property
    def core(self) -> Wire:
        return self.wires["core"]

    @property
    def apps(self) -> Wire:
        return self.wires["apps"]

    @property
    def config(self) -> Path:
        return self.dir / "tof.toml"

    @property
    def log(self) -> str:
        return (self.dir / "agent.log").read_text()

    def start(self) -> None:
        """Start the agent, each time by an ``ip netns exec`` of its own; return when it is healthy."""
        argv = ["ip", "netns", "exec", self.netns["tof"].name, sys.executable, "-m", "tof", "agent"]
        with (self.dir / "agent.log").open("ab") as log:
            self.agent = subprocess.Popen([*argv, "--config", str(self.config)], stdout=log, stderr=log)
        until("the agent is healthy", self._healthy, 30)

    def _healthy(self) -> bool:
        assert self.agent is not None
        assert self.agent.poll() is None, f"the agent ended: {self.log[-2000:]}"
        try:
            checks = self.get("/health")["checks"]
        except OSError:
            return False
        return all(each["state"] == "ok" for each in checks if each["name"] in ("ovs", "heartbeat", "queue"))

    def signal(self, number: signal.Signals) -> None:
        assert self.agent is not None
        self.agent.send_signal(number)
        if number in (signal.SIGKILL, signal.SIGTERM):
            self.agent.wait()

    def tof(self, *arguments: str) -> str:
        """Run ``tof ... --config FILE`` beside the agent."""
        argv = (sys.executable, "-m", "tof", *arguments, "--config", str(self.config))
        return self.netns["tof"].run(*argv)

    # the API

    def call(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        connection = _UnixConnection(self.dir / "api.sock")
        with contextlib.closing(connection):
            text = None if body is None else json.dumps(body)
            connection.request(method, path, text, {"content-type": "application/json"} if text else {})
            answer = connection.getresponse()
            raw = answer.read()
            is_json = "json" in (answer.headers.get("content-type") or "")
            return answer.status, json.loads(raw) if is_json and raw else raw.decode()

    def get(self, path: str) -> Any:
        return self.call("GET", path)[1]

    def metrics(self) -> dict[str, float]:
        """Every sample by name, or ``name{reason}``."""
        found: dict[str, float] = {}
        for line in self.get("/metrics").splitlines():
            if line and not line.startswith("#"):
                name, _, value = line.rpartition(" ")
                found[name.replace('{reason="', "{").replace('"}', "}")] = float(value)
        return found

    def packets(self, reason: str) -> int:
        return int(self.metrics().get(f"tof_packets_total{{{reason}}}", 0))

    def undecodable(self, reason: str) -> int:
        return int(self.metrics().get(f"tof_undecodable_total{{{reason}}}", 0))

    def tunnels(self, **query: object) -> list[dict[str, Any]]:
        text = "&".join(f"{key}={value}" for key, value in query.items())
        return self.get(f"/tunnels?{text}")  # type: ignore[no-any-return]

    def known(self, bearer: Bearer) -> dict[str, dict[str, Any]]:
        """Direction -> tunnel, of those of this bearer that the TOF knows."""
        found = {}
        for one in self.tunnels():
            for direction, teid, ends in (
                ("uplink", bearer.up, (bearer.enb, bearer.sgw)),
                ("downlink", bearer.down, (bearer.sgw, bearer.enb)),
            ):
                mine = (one["source"], one["destination"], one["teid"], one["vlan"])
                if mine == (*ends, teid, bearer.vlan) and one["direction"] == direction:
                    found[direction] = one
        return found

    def provision(self, name: str, service: str, application: str = APP) -> None:
        body = {"name": name, "serviceIP": service, "applicationIP": application}
        status, answer = self.call("POST", "/service", body)
        assert status == 200, answer

    def withdraw(self, name: str) -> None:
        assert self.call("DELETE", f"/service/{name}")[0] == 200

    @contextlib.contextmanager
    def service(self, address: str, application: str = APP) -> Iterator[str]:
        name = f"s{next(_serial)}"
        self.provision(name, address, application)
        try:
            yield name
        finally:
            self.call("DELETE", f"/service/{name}")

    # short cuts

    def drain(self) -> None:
        for wire in self.wires.values():
            wire.drain()

    def up(self, bearer: Bearer) -> None:
        """Teach the TOF the bearer's uplink tunnel, with a packet to no service."""
        frame = bearer.uplink(udp(bearer.ue, _elsewhere(bearer), 1000, 2000, os.urandom(8)))
        self.ran.send(frame)
        self.core.expect(frame)

    def down(self, bearer: Bearer) -> None:
        """Teach the TOF the bearer's downlink tunnel."""
        frame = bearer.downlink(udp(_elsewhere(bearer), bearer.ue, 2000, 1000, os.urandom(8)))
        self.core.send(frame)
        self.ran.expect(frame)

    def attach(self, *bearers: Bearer) -> None:
        """Teach the TOF both tunnels of these bearers, and let the queue come to rest."""
        for bearer in bearers:
            self.up(bearer)
            self.down(bearer)
            until("the tunnels are paired", lambda b=bearer: len(self.known(b)) == 2)
        self.settle(*bearers)

    def settle(self, *bearers: Bearer) -> None:
        """A packet each way once the queue is at rest, so that the tunnels take the fast lane."""
        time.sleep(0.11)
        for bearer in bearers:
            self.up(bearer)
            self.down(bearer)
        self.drain()

    def answer_ping(self, bearer: Bearer, timeout_s: float = 3.0) -> Gpdu:
        """The core answers the next of the Pinger's requests for this UE in the downlink tunnel."""
        request = self.pinger_request(bearer, timeout_s)
        self.core.send(bearer.downlink(pong(request.message.payload)))
        return request

    def pinger_request(self, bearer: Bearer, timeout_s: float = 3.0) -> Gpdu:
        return self.core.gpdu(lambda one: one.teid == bearer.up and is_pinger(one), timeout_s)


def is_pinger(one: Gpdu) -> bool:
    """Whether this is an echo request of the Pinger's (by what it says after its token)."""
    inner = one.inner
    return inner.protocol in (ICMP, ICMPV6) and inner.segment[16:] == b"tof-pinger"


def _elsewhere(bearer: Bearer) -> str:
    return ELSEWHERE6 if ":" in bearer.ue else ELSEWHERE


def _quiet(netns: Netns) -> None:
    netns.run("sysctl", "-q", "-w", "net.ipv6.conf.all.accept_dad=0", "net.ipv6.conf.default.accept_dad=0")


def _wire_up(tof: Tof) -> None:
    ran, core, apps, node = (tof.netns[role] for role in ("ran", "core", "apps", "tof"))
    for netns in (ran, core, apps, node):
        _quiet(netns)
    ends = [(ran, f"s{n}", f"enb{n}", "ran" if n == 0 else f"ran{n}") for n in range(tof.setting.enbs)]
    for far, device, near, _ in [*ends, (core, "s0", "sgw0", "core"), (apps, "eth0", "apps0", "apps")]:
        node.veth(near, far, device)
        for netns, name in ((node, near), (far, device)):
            if near != "apps0":
                netns.run("ip", "link", "set", name, "mtu", str(tof.setting.mtu))
        if tof.setting.xdp == "native":
            far.run("ethtool", "-K", device, "gro", "on")
    for netns, device, mac in ((ran, "s0", RAN_MAC), (core, "s0", CORE_MAC), (apps, "eth0", APP_MAC)):
        netns.run("ip", "link", "set", device, "address", mac.hex(":"))
    ran.run("ip", "address", "add", f"{RAN_KERNEL}/24", "dev", "s0")
    core.run("ip", "address", "add", f"{CORE_KERNEL}/24", "dev", "s0")
    apps.run("ip", "address", "add", f"{APP}/24", "dev", "eth0")
    apps.run("ip", "address", "add", f"{APP6}/64", "dev", "eth0", "nodad")
    apps.run("ip", "route", "add", "default", "via", TOF_APPS)
    apps.run("ip", "route", "add", "default", "via", TOF_APPS6)
    for far, device, _, role in [*ends, (core, "s0", "", "core"), (apps, "eth0", "", "apps")]:
        tof.wires[role] = Wire(far, device)


def _end(tof: Tof) -> None:
    """Take the TOF down, then end whatever it left running in its namespace."""
    if tof.agent is not None and tof.agent.poll() is None:
        tof.agent.send_signal(signal.SIGCONT)
        tof.agent.kill()
        tof.agent.wait()
    with contextlib.suppress(AssertionError, subprocess.TimeoutExpired):
        tof.tof("down")
    for wire in tof.wires.values():
        wire.close()
    pids = subprocess.run(
        ["ip", "netns", "pids", tof.netns["tof"].name], text=True, capture_output=True, check=False
    )
    for pid in pids.stdout.split():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)


@contextlib.contextmanager
def running_tof(setting: Setting | None = None) -> Iterator[Tof]:
    """A TOF that runs, with its far ends; nothing is left of it afterwards."""
    setting = setting or Setting()
    directory = Path(tempfile.mkdtemp(prefix="tof-"))
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        netns = {role: stack.enter_context(Netns(role)) for role in ("ran", "core", "apps", "tof")}
        tof = Tof(setting, directory, netns)
        stack.callback(_end, tof)
        _wire_up(tof)
        enbs = json.dumps([f"enb{n}" for n in range(setting.enbs)])
        values = {"xdp": "native" if setting.xdp == "native" else "auto", "dir": directory, "enb": enbs}
        for name in ("ping_interval_s", "ping_attempts", "idle_timeout_s"):
            values[name] = getattr(setting, name)
        tof.config.write_text(_CONFIG.format(**values))
        tof.start()
        yield tof


# ------------------------------------------------------------------------------------------------ apps


_ECHO = """\
import socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
s = socket.socket(family, socket.SOCK_DGRAM)
s.bind((sys.argv[1], int(sys.argv[2])))
print("ready", flush=True)
while True:
    data, peer = s.recvfrom(65535)
    s.sendto(b"app:" + data, peer)
"""


_TUN_IOCTL, _TUN_NO_PI = 0x400454CA, 0x1001


@contextlib.contextmanager
def ue_kernel(tof: Tof, bearer: Bearer) -> Iterator[None]:
    """A UE with a kernel's TCP: a tun device in the RAN whose packets travel in the bearer's tunnels."""
    ran, done = tof.netns["ran"], threading.Event()
    device = f"ue{bearer.up:x}"
    with ran.entered():
        tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(tun, _TUN_IOCTL, struct.pack("16sH22x", device.encode(), _TUN_NO_PI))
    ran.run("ip", "address", "add", f"{bearer.ue}/32", "dev", device)
    ran.run("ip", "link", "set", device, "up")
    ran.run("ip", "route", "add", "203.0.113.0/24", "dev", device)

    def shuttle() -> None:
        wire = tof.ran
        while not done.is_set():
            ready, _, _ = select.select([tun, wire.socket], [], [], 0.1)
            for _ in range(64 if tun in ready else 0):
                try:
                    wire.send(bearer.uplink(os.read(tun, 65535)))
                except BlockingIOError:
                    break
            for _ in range(64 if wire.socket in ready else 0):
                frame = wire.receive(0)
                if frame is None:
                    break
                one = gpdu_of(frame)
                if one is not None and one.teid == bearer.down:
                    os.write(tun, one.message.payload)

    thread = threading.Thread(target=shuttle)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        os.close(tun)


def udp_echo(netns: Netns, address: str, port: int = 7) -> None:
    """A UDP server that answers ``app:`` and what it was sent."""
    process = netns.start(sys.executable, "-c", _ECHO, address, str(port))
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
