"""The stage: one namespace with three veths, of which nothing remains.

    [enb]==[enb-far]   [sgw]==[sgw-far]   [ue]==[ue-far]

Frames are generated into a far end and arrive at the near one as if from a wire; what the near ends send arrives at
the far ends, where a sink counts it. ``enb`` and ``sgw`` are the S1 adapters, ``ue`` is ue0.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

DEVICES = ("enb", "sgw", "ue")
ENB_MAC, SGW_MAC = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")
BRIDGE = "br0"
_CLONE_NEWNET = 0x40000000


def _run(*argv: str, check: bool = True) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise SystemExit(f"{' '.join(argv)}: {done.stderr.strip()}")


def _enter(handle: int) -> None:
    if ctypes.CDLL(None, use_errno=True).setns(handle, _CLONE_NEWNET):
        raise SystemExit(f"setns: {os.strerror(ctypes.get_errno())}")


@contextlib.contextmanager
def entered(netns: str) -> Iterator[None]:
    """This thread inside the namespace for the length of the block."""
    with Path("/proc/thread-self/ns/net").open("rb") as home, Path("/run/netns", netns).open("rb") as inside:
        _enter(inside.fileno())
        try:
            yield
        finally:
            _enter(home.fileno())


@contextlib.contextmanager
def scene() -> Iterator[dict[str, int]]:
    """Build the stage and stay inside; interface indexes by name."""
    name = f"tof-bench-{secrets.token_hex(3)}"
    _run("ip", "netns", "add", name)
    try:
        with entered(name):
            for device in DEVICES:
                _veth(device)
            _run("ip", "link", "set", "lo", "up")
            _bridge()
            yield {each: socket.if_nametoindex(each) for d in DEVICES for each in (d, f"{d}-far")}
    finally:
        _run("ip", "netns", "del", name, check=False)


def _veth(device: str) -> None:
    far = f"{device}-far"
    _run("ip", "link", "add", device, "type", "veth", "peer", "name", far)
    for each in (device, far):
        _run("sysctl", "-q", "-w", f"net.ipv6.conf.{each}.disable_ipv6=1")
        _run("ip", "link", "set", each, "up")
    # GRO makes the near end take redirected frames without an XDP program, as the plain bridge needs it.
    _run("ethtool", "-K", device, "gro", "on")


def _bridge() -> None:
    _run("ip", "link", "add", BRIDGE, "type", "bridge", "stp_state", "0", "mcast_snooping", "0")
    _run("sysctl", "-q", "-w", f"net.ipv6.conf.{BRIDGE}.disable_ipv6=1")
    for name in ("iptables", "ip6tables", "arptables"):
        # absent without br_netfilter, which is as good
        _run("sysctl", "-q", "-w", f"net.bridge.bridge-nf-call-{name}=0", check=False)
    for device, mac in (("enb", ENB_MAC), ("sgw", SGW_MAC)):
        _run("ip", "link", "set", device, "master", BRIDGE)
        _run("bridge", "fdb", "add", mac.hex(":"), "dev", device, "master", "static")
    _run("ip", "link", "set", BRIDGE, "up")
