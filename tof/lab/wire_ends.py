"""The tester's ends of the wire: raw frames in and out of an adapter, as they are on the link."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import socket
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from struct import Struct
from typing import NamedTuple

from tof.errors import BackendError, SetupError

HEADER = 14
TAG = 4

_CLONE_NEWNET = 0x40000000
_ETH_P_ALL = 3
_SOL_PACKET = 263
_ADD_MEMBERSHIP, _STATISTICS, _AUXDATA, _IGNORE_OUTGOING = 1, 6, 8, 23
_PROMISCUOUS = 1
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33
_SEND_BUFFER, _RECEIVE_BUFFER = 16 << 20, 128 << 20
_SIOCGIFINDEX, _SIOCGIFMTU, _SIOCGIFFLAGS = 0x8933, 0x8921, 0x8913
_IFF_UP = 1
_VLAN_VALID, _TPID_VALID = 0x10, 0x40
_AUXILIARY = Struct("=IIIHHHH")
_TAG_BYTES = Struct("!HH")
_REQUEST = Struct("=16si12x")
_MEMBERSHIP = Struct("=iHH8s")
_LARGEST = 1 << 17
_ANCILLARY = socket.CMSG_SPACE(_AUXILIARY.size)
_PATIENCE_S = 1.0
_MEANING = {errno.ENETDOWN: "is down", errno.EMSGSIZE: "has too small an MTU for this frame"}


class WireEnd(NamedTuple):
    """An adapter, opened in its namespace; ``mtu`` as it was then."""

    name: str
    mtu: int
    socket: socket.socket

    def fileno(self) -> int:
        """For whoever waits until frames arrive."""
        return self.socket.fileno()

    def send(self, data: bytes) -> None:
        """Put a frame on the wire; what the far end refuses at once is offered again for a second."""
        give_up = time.monotonic() + _PATIENCE_S
        while True:
            try:
                self.socket.send(data)
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS or time.monotonic() > give_up:
                    meaning = _MEANING.get(error.errno or 0, error.strerror)
                    raise BackendError(f"{self.name} {meaning} ({len(data)} bytes)") from error
            time.sleep(0.0005)

    def receive(self) -> list[bytes]:
        """All frames that have arrived, in order, with their VLAN tags."""
        frames = []
        with contextlib.suppress(BlockingIOError):
            while True:
                data, ancillary, _, _ = self.socket.recvmsg(_LARGEST, _ANCILLARY, socket.MSG_DONTWAIT)
                frames.append(with_tag(data, ancillary))
        return frames

    def dropped(self) -> int:
        """Frames that arrived since the last call but did not fit into the receive buffer."""
        answer = self.socket.getsockopt(_SOL_PACKET, _STATISTICS, 8)
        return int.from_bytes(answer[4:8], "little")

    def close(self) -> None:
        """Let go of the adapter."""
        self.socket.close()


def with_tag(data: bytes, ancillary: Sequence[tuple[int, int, bytes]]) -> bytes:
    """The frame with the VLAN tag that the kernel took out of it, told by its auxiliary data, put back."""
    for level, kind, value in ancillary:
        if (level, kind) != (_SOL_PACKET, _AUXDATA) or len(value) < _AUXILIARY.size:
            continue
        status, _, _, _, _, tci, tpid = _AUXILIARY.unpack_from(value)
        if status & _VLAN_VALID:
            tag = _TAG_BYTES.pack(tpid if status & _TPID_VALID else 0x8100, tci)
            return data[:12] + tag + data[12:]
    return data


def open_ends(names: Sequence[str], netns: str = "") -> list[WireEnd]:
    """Open adapters in a namespace (its name or a path; empty: this one); SetupError says what is wrong."""
    # A thread that entered a namespace is of no further use, so it is not this one.
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(_open_inside, names, netns).result()


def _open_inside(names: Sequence[str], netns: str) -> list[WireEnd]:
    if netns:
        _enter(netns)
    with contextlib.ExitStack() as stack:
        ends = []
        for name in names:
            ends.append(_open(name, netns))
            stack.callback(ends[-1].close)
        stack.pop_all()
        return ends


def _enter(netns: str) -> None:
    path = Path(netns) if "/" in netns else Path("/run/netns", netns)
    try:
        with path.open("rb") as handle:
            if ctypes.CDLL(None, use_errno=True).setns(handle.fileno(), _CLONE_NEWNET):
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number))
    except OSError as error:
        raise SetupError(f"namespace {netns}: {error.strerror}") from error


def _open(name: str, netns: str) -> WireEnd:
    where = f"{name} in namespace {netns}" if netns else name
    try:
        # Bound before it is given a protocol, so that it never holds another adapter's frames.
        raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    except PermissionError as error:
        raise SetupError("replaying needs root: it sends raw frames") from error
    try:
        if not _ask(raw, _SIOCGIFFLAGS, name) & _IFF_UP:
            raise SetupError(f"adapter {where} is down: ip link set {name} up")
        _configure(raw, name)
        return WireEnd(name, _ask(raw, _SIOCGIFMTU, name), raw)
    except OSError as error:
        raw.close()
        raise SetupError(f"adapter {where}: {error.strerror}") from error
    except SetupError:
        raw.close()
        raise


def _configure(raw: socket.socket, name: str) -> None:
    raw.setsockopt(_SOL_PACKET, _AUXDATA, 1)
    raw.setsockopt(_SOL_PACKET, _IGNORE_OUTGOING, 1)
    raw.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER)
    raw.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _SEND_BUFFER)
    index = _ask(raw, _SIOCGIFINDEX, name)
    raw.setsockopt(_SOL_PACKET, _ADD_MEMBERSHIP, _MEMBERSHIP.pack(index, _PROMISCUOUS, 0, bytes(8)))
    raw.bind((name, _ETH_P_ALL))


def _ask(raw: socket.socket, what: int, name: str) -> int:
    answer = fcntl.ioctl(raw, what, _REQUEST.pack(name.encode()[:15], 0))
    value: int = _REQUEST.unpack(answer)[1]
    return value & 0xFFFF if what == _SIOCGIFFLAGS else value
