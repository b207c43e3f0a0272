"""What speaks with a kernel's stack: an application that echoes, a UE that has TCP."""

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
    Bearer,
    gpdu_of,
)
from gtp_peers import Tof
from netns_helper import Netns

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
