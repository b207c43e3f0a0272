"""A TOF with one UE, one service that an application echoes, and VNFs; and how to play with them."""

from __future__ import annotations

import signal
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from tof.errors import BackendError
from tof.lab.namespaces import Job, Lab, until
from tof.lab.node import TofNode
from tof.wire.inet import UDP, UDP_PROTOCOL, IPv4, encode_ipv4, encode_udp, fill_checksum, fix_ipv4_header
from tools.bench.scene import ENB_MAC, SGW_MAC, entered
from tools.bench.tunnels import ELSEWHERE, ENB, SERVICE, SGW, gpdu, inner

APP, FURTHER, UE = "192.168.50.10", "192.168.50.11", bytes((10, 45, 0, 1))
SERVICE_IP = ".".join(map(str, SERVICE))
GAP_S = 0.001
UNDER_WAY = 64
_TEID_AT, _INNER_AT = 46, 50
"""Of a G-PDU in a frame: behind Ethernet, IPv4, UDP, and what is before, or the GTP-U header."""
_APPLICATION = """
import selectors, socket
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); udp.bind(("%s", 53))
tcp = socket.create_server(("%s", 8080))
def serve(peer):
    with peer:
        peer.recv(2048); peer.sendall(b"HTTP/1.0 200 OK\\r\\n\\r\\n")
both = selectors.DefaultSelector()
both.register(udp, 1, lambda: udp.sendto(*udp.recvfrom(2048)))
both.register(tcp, 1, lambda: serve(tcp.accept()[0]))
print("ready", flush=True)
while True:
    for key, _ in both.select():
        key.data()
"""


def _in_tunnel(teid: int, frame: bytes) -> bytes:
    return frame[:_TEID_AT] + teid.to_bytes(4, "big") + frame[_TEID_AT + 4 :]


def _uplink(destination: bytes) -> bytes:
    return _in_tunnel(1, gpdu(fix_ipv4_header(inner(UE, destination))))


def _datagram(data: int) -> bytes:
    segment = fill_checksum(UE, SERVICE, UDP_PROTOCOL, encode_udp(UDP(40000, 53, bytes(data))))
    return encode_ipv4(IPv4(UE, SERVICE, UDP_PROTOCOL, segment))


class Watch(threading.Thread):
    """When requests last came out on the core's side, and answers on the eNB's; asks all the time."""

    def __init__(self, lab: Lab) -> None:
        super().__init__(daemon=True)
        self._lab, self._over = lab, threading.Event()
        self.at_core = self.answered = 0.0

    def run(self) -> None:
        """Ask and look, a thousand times a second."""
        ends = {}
        for role in ("ran", "core"):
            with entered(self._lab.name(role)):
                ends[role] = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0x0008)
            ends[role].bind(("s1", 0x0800))
            ends[role].setblocking(False)
        asking = _uplink(SERVICE)
        while not self._over.wait(GAP_S):
            ends["ran"].send(asking)
            if self._came(ends["core"], 16, SERVICE):
                self.at_core = time.monotonic()
            if self._came(ends["ran"], 12, SERVICE):
                self.answered = time.monotonic()
        for end in ends.values():
            end.close()

    @staticmethod
    def _came(end: socket.socket, at: int, address: bytes) -> bool:
        found, at = False, at + _INNER_AT
        while True:
            try:
                frame = end.recv(2048)
            except BlockingIOError:
                return found
            found = found or frame[at : at + 4] == address

    def stop(self) -> None:
        """Ask no more."""
        self._over.set()
        self.join()


class RoundTrips:
    """Asks one request after another, each when the one before was answered."""

    def __init__(self, lab: Lab) -> None:
        self._asking = _uplink(SERVICE)
        with entered(lab.name("ran")):
            self._end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0x0008)
        self._end.bind(("s1", 0x0800))
        self._end.settimeout(2.0)

    def carry(self, data: int) -> None:
        """From now on requests of so many bytes, with their checksum."""
        self._asking = _in_tunnel(1, gpdu(_datagram(data)))

    def measure(self, count: int) -> list[float]:
        """The time of each, in seconds; BackendError when one is not answered."""
        asking, times, at = self._asking, [], _INNER_AT + 12
        for _ in range(count):
            began = time.perf_counter()
            self._end.send(asking)
            try:
                while self._end.recv(2048)[at : at + 4] != SERVICE:
                    pass
            except TimeoutError:
                raise BackendError("the service does not answer") from None
            times.append(time.perf_counter() - began)
        return times

    def rate(self, count: int) -> float:
        """Answers a second with so many requests under way that nobody waits; lost ones are asked again."""
        asking, at, answered, under_way = self._asking, _INNER_AT + 12, 0, 0
        began = time.perf_counter()
        self._end.settimeout(0.05)
        while answered < count:
            while under_way < UNDER_WAY:
                self._end.send(asking)
                under_way += 1
            try:
                while self._end.recv(2048)[at : at + 4] != SERVICE:
                    pass
            except TimeoutError:
                under_way = 0
                continue
            answered, under_way = answered + 1, under_way - 1
        taken = time.perf_counter() - began
        self._end.settimeout(0.2)
        with suppress(TimeoutError):  # what is still under way
            while True:
                self._end.recv(2048)
        self._end.settimeout(2.0)
        return count / taken

    def close(self) -> None:
        """Close the socket."""
        self._end.close()


async def serve_at(lab: Lab, role: str, address: str, name: str = "app") -> Job:
    """An application that echoes there."""
    return await lab.start(role, name, sys.executable, "-c", _APPLICATION % (address, address))


@dataclass(slots=True)
class Scene:
    """The namespaces ``ran``, ``core``, ``apps``, ``tof``, and what runs in them."""

    lab: Lab
    tof: TofNode
    application: Job | None = None

    async def start_application(self) -> None:
        """The application, from its start on."""
        self.application = await serve_at(self.lab, "apps", APP)

    async def start_further(self) -> None:
        """An application that stands by."""
        await serve_at(self.lab, "apps", FURTHER, "further")

    def signal(self, number: signal.Signals) -> None:
        """To the application."""
        assert self.application is not None
        self.application.process.send_signal(number)

    async def provision(
        self, services: Sequence[dict[str, object]], chains: Sequence[dict[str, object]] = (),
        groups: Sequence[dict[str, object]] = (),
    ) -> None:  # fmt: skip
        """Exactly these; BackendError if they are refused."""
        body = {"services": list(services), "chains": list(chains), "securityGroups": list(groups)}
        answer = await self.tof.request("PUT", "/policy", body, 120.0)
        if answer.status != 200:
            raise BackendError(f"the services were refused: {answer.body}")


@asynccontextmanager
async def served_scene(lab: Lab, config: str) -> AsyncIterator[Scene]:
    """``lab`` with a TOF that has this configuration beside the lab's, and a UE that it knows."""
    for role in ("ran", "core", "apps"):
        await lab.namespace(role, "net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1")
    await lab.namespace("tof", "net.ipv6.conf.default.accept_dad=0")
    for role, device, here in (("ran", "s1", "enb0"), ("core", "s1", "sgw0"), ("apps", "eth0", "apps0")):
        await lab.veth(role, device, "tof", here)
    for address in (APP, FURTHER):
        await lab.address("apps", "eth0", f"{address}/24")
    await lab.ip("apps", "route", "add", "default", "via", "192.168.50.1")
    for role, mac in (("ran", ENB_MAC), ("core", SGW_MAC)):
        await lab.ip(role, "link", "set", "s1", "address", mac.hex(":"))
    tof = TofNode(lab, "tof")
    tof.configure()
    adapter = 'app_interface = "apps0"\n'
    whole = tof.config.read_text().replace(adapter, f'{adapter}app_gateway = "{APP}"\n') + config
    tof.config.write_text(whole)
    await tof.start()
    scene = Scene(lab, tof)
    await scene.start_application()
    await scene.start_further()
    await _attach(lab, tof)
    try:
        yield scene
    finally:
        await tof.kill()
        await tof.tof("down")


async def _attach(lab: Lab, tof: TofNode) -> None:
    """Both tunnels of the UE, known and paired."""
    up = _uplink(ELSEWHERE)
    down = _in_tunnel(2, gpdu(inner(ELSEWHERE, UE), ends=(SGW, ENB), macs=(SGW_MAC, ENB_MAC)))

    async def known() -> bool | None:
        for role, frame in (("ran", up), ("core", down)):
            with entered(lab.name(role)):
                raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
            with raw:
                raw.bind(("s1", 0))
                raw.send(frame)
        return len(await tof.tunnels()) == 2 or None

    await until("the UE's tunnels are known", known)
