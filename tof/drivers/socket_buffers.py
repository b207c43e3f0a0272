"""Deeper receive buffers for Open vSwitch's packet sockets.

The userspace datapath reads each port from a raw socket with the system's default buffer (some ninety full frames):
one burst of an application, or one look of the switch at its configuration, overflows it. The agent borrows the sockets
of its own ports by ``pidfd_getfd`` (Linux 5.6) and deepens them; host-wide settings stay as they are.
"""

from __future__ import annotations

import ctypes
import os
import socket
from collections.abc import Iterator, Set
from contextlib import contextmanager, suppress

RECEIVE_BYTES = 8 << 20
_PIDFD_GETFD = 438
_SO_RCVBUFFORCE = 33
_libc = ctypes.CDLL(None, use_errno=True)


def deepen(pid: int, devices: Set[str]) -> int:
    """Deepen the packet sockets that process ``pid`` has on ``devices``; how many. 0 where that is not permitted."""
    deepened = 0
    with suppress(OSError), _process(pid) as handle:
        for number in _sockets(pid):
            if (fd := _libc.syscall(_PIDFD_GETFD, handle, number, 0)) < 0:
                continue
            with socket.socket(fileno=fd) as one:
                if one.family == socket.AF_PACKET and one.getsockname()[0] in devices:
                    one.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, RECEIVE_BYTES)
                    deepened += 1
    return deepened


@contextmanager
def _process(pid: int) -> Iterator[int]:
    handle = os.pidfd_open(pid)
    try:
        yield handle
    finally:
        os.close(handle)


def _sockets(pid: int) -> Iterator[int]:
    for entry in os.scandir(f"/proc/{pid}/fd"):
        with suppress(OSError):
            if os.readlink(entry.path).startswith("socket:"):
                yield int(entry.name)
