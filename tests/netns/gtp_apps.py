"""What speaks with a kernel's stack: an application that echoes, a UE that has TCP; and a TOF with services in force."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import struct
import sys
import threading
from collections.abc import Iterator

from gtp_packets import (
    CORE_MAC,
    RAN_MAC,
    Bearer,
    Gpdu,
    gpdu_of,
    is_pinger,
    udp,
)
from gtp_peers import APP, APP6, Setting, Tof, running_tof
from netns_helper import Netns

SERVICE, SERVICE6 = "203.0.113.10", "2001:db8:113::10"
ECHO = 7

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
    ran.run("ip", "link", "set", device, "up")
    length, network = (128, "2001:db8:113::/48") if ":" in bearer.ue else (32, "203.0.113.0/24")
    ran.run("ip", "address", "add", f"{bearer.ue}/{length}", "dev", device)
    ran.run("ip", "route", "add", network, "dev", device)

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


@contextlib.contextmanager
def serving_tof(setting: Setting) -> Iterator[Tof]:
    """A TOF that has an IPv4 and an IPv6 service in force, with an application behind each that echoes."""
    with running_tof(setting) as tof:
        udp_echo(tof.netns["apps"], APP, ECHO)
        udp_echo(tof.netns["apps"], APP6, ECHO)
        tof.provision("echo", SERVICE)
        tof.provision("echo6", SERVICE6, APP6)
        yield tof


def service_of(bearer: Bearer) -> str:
    return SERVICE6 if ":" in bearer.ue else SERVICE


def echo(bearer: Bearer, data: bytes = b"hello", port: int = 4000, **more: int) -> bytes:
    """The frame in which the UE speaks to the service."""
    return bearer.uplink(udp(bearer.ue, service_of(bearer), port, ECHO, data, **more))


def answer(tof: Tof, bearer: Bearer, data: bytes = b"hello") -> Gpdu:
    """The application's answer, as it reaches the eNB."""
    return tof.ran.gpdu(lambda one: one.inner.data == b"app:" + data and one.inner.destination == bearer.ue)


def to_core(tof: Tof, bearer: Bearer) -> list[Gpdu]:
    """What the UE sent and the core has seen."""
    return [one for one in tof.core.gpdus() if one.teid == bearer.up and not is_pinger(one)]


def looks_as_from_the_core(one: Gpdu, bearer: Bearer) -> None:
    """The outer packet of what the TOF injects downlink."""
    assert (one.source, one.destination, one.teid) == (bearer.sgw, bearer.enb, bearer.down)
    assert (one.macs, one.vlan, one.tos) == ((CORE_MAC, RAN_MAC), bearer.vlan, bearer.tos)
    assert one.outer.ports == (2152, 2152)
    assert one.checksum_zero_or_right
    assert ":" not in one.source or one.outer.checksum_right
    forms = [one.message.flags, one.message.pdu_type, one.message.qfi]
    assert forms == ([0x30, None, None] if bearer.qfi is None else [0x34, 0, bearer.qfi])
    assert one.inner.checksum_right
