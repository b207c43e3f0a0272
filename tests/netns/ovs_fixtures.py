"""A namespace with an Open vSwitch of its own and the devices of br-ue; raw sockets on their far ends."""

from __future__ import annotations

import asyncio
import ctypes
import os
import secrets
import socket
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pytest

from tof.dataplane.desired import Desired, Ports
from tof.dataplane.pipeline import render
from tof.dataplane.plan import diff
from tof.drivers.openflow import OpenFlowChannel
from tof.drivers.ovsdb import Port, PrivateOvs

BRIDGE = "br-ue"
PAIRS = (("ue0", "ue0-ovs"), ("tofhb0", "tofhb1"), ("tofapp0", "tofapp1"), ("tofgw0", "tofgw1"))
PAIRS = (*PAIRS, ("pinger0", "pinger1"))
PORTS = Ports(ue=1, heartbeat=2, apps=3, gateway=4, pinger=5)
PORT_LIST = (
    Port("ue0-ovs", 1),
    Port("tofhb1", 2),
    Port("tofapp1", 3),
    Port("tofgw1", 4),
    Port("pinger1", 5),
    Port("tofhb0", 6, cfm_mpid=1),
)
CLONE_NEWNET = 0x40000000
OUTGOING = 4


def sh(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=20).stdout


def enter(path: str) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if ctypes.CDLL(None, use_errno=True).setns(handle, CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"setns {path}")
    finally:
        os.close(handle)


@contextmanager
def namespace(prefix: str) -> Iterator[str]:
    """This thread, and the processes it starts, live in a fresh network namespace."""
    name = f"{prefix}-{secrets.token_hex(3)}"
    home = f"/proc/{os.getpid()}/task/{os.getpid()}/ns/net"
    origin = os.open(home, os.O_RDONLY | os.O_CLOEXEC)
    sh("ip", "netns", "add", name)
    try:
        enter(f"/run/netns/{name}")
        yield name
    finally:
        enter(f"/proc/self/fd/{origin}")
        os.close(origin)
        sh("ip", "netns", "del", name)


class Wire:
    """A raw socket on a device: what is sent here goes to its peer; what the peer sends is received."""

    def __init__(self, device: str) -> None:
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self.socket.bind((device, 0))
        self.socket.setblocking(False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, frame: object) -> None:
        self.socket.send(bytes(frame))  # type: ignore[call-overload]

    async def receive(self, wanted: Callable[[bytes], bool] = bool, timeout_s: float = 2.0) -> bytes | None:
        """The next frame that is wanted, or None if none came in time."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    frame, sender = await loop.sock_recvfrom(self.socket, 65535)
                    if sender[2] != OUTGOING and wanted(frame):
                        return frame
        except TimeoutError:
            return None


@dataclass
class Bench:
    """A running private OVS with br-ue and an OpenFlow channel to it."""

    ovs: PrivateOvs
    channel: OpenFlowChannel

    async def program(self, desired: Desired) -> None:
        await self.channel.apply(diff(await self.channel.read_cookies(), render(desired)))
        await self.ovs.forget_cached_flows()

    async def reconnect(self) -> None:
        await self.channel.close()
        self.channel = await OpenFlowChannel.connect(self.ovs.management_socket(BRIDGE))

    async def megaflows(self) -> list[str]:
        dump = await self.ovs.appctl("dpctl/dump-flows", "netdev@ovs-netdev")
        return [line for line in dump.splitlines() if "in_port" in line]

    def ofctl(self, command: str, *arguments: str) -> str:
        bridge = f"unix:{self.ovs.management_socket(BRIDGE)}"
        return sh("ovs-ofctl", "-O", "OpenFlow14", command, bridge, *arguments)


async def _set_up(ovs: PrivateOvs) -> None:
    await ovs.ensure_running()
    await ovs.ensure_bridge(BRIDGE)
    numbers = await ovs.ensure_ports(BRIDGE, PORT_LIST)
    assert numbers == {port.device: port.ofport for port in PORT_LIST}


@pytest.fixture(scope="module")
def private_ovs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateOvs]:
    with namespace("tof-ovs"):
        for kind in ("all", "default"):
            Path(f"/proc/sys/net/ipv6/conf/{kind}/disable_ipv6").write_text("1")
        for far, near in PAIRS:
            sh("ip", "link", "add", far, "type", "veth", "peer", "name", near)
            for device in (far, near):
                sh("ip", "link", "set", device, "up")
        ovs = PrivateOvs(tmp_path_factory.mktemp("ovs"), "default")
        try:
            with asyncio.Runner() as runner:
                runner.run(_set_up(ovs))
            yield ovs
        finally:
            with asyncio.Runner() as runner:
                runner.run(ovs.stop())


@pytest.fixture
async def bench(private_ovs: PrivateOvs) -> AsyncIterator[Bench]:
    await _set_up(private_ovs)
    channel = await OpenFlowChannel.connect(private_ovs.management_socket(BRIDGE))
    bench = Bench(private_ovs, channel)
    bench.ofctl("del-flows")
    try:
        yield bench
    finally:
        await bench.channel.close()
