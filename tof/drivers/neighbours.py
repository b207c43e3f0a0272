"""Next hops of the applications: resolved by the kernel on the gateway adapter, followed within a second."""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
from collections.abc import Callable, Iterator, Set
from ipaddress import ip_address

from tof.config import Ue
from tof.drivers import sysctl
from tof.errors import BackendError
from tof.model import IpAddress

PROBE_INTERVAL_S = 0.5
_RTMGRP_NEIGH = 4
_NEWNEIGH, _DELNEIGH, _GETNEIGH = 28, 29, 30
_REQUEST, _REPLACE, _CREATE, _DUMP = 0x1, 0x100, 0x400, 0x300
_NUD_PROBE, _NUD_VALID = 0x10, 0xDE
_NTF_USE = 0x1
_NDA_DST, _NDA_LLADDR = 1, 2
# Probed twice a second, given up after 0.4 s: a changed address or a vanished application shows in a second.
_TIMING = {
    "retrans_time_ms": "100",
    "ucast_solicit": "2",
    "mcast_resolicit": "2",
    "mcast_solicit": "1",
}

Changed = Callable[[IpAddress, bytes | None], None]


def next_hop(ue: Ue, application: IpAddress) -> IpAddress | None:
    """Whom to hand packets for an application: itself if on-link, else the app gateway, else nobody."""
    if any(application in own.network for own in ue.app_address if own.version == application.version):
        return application
    return next((gateway for gateway in ue.app_gateway if gateway.version == application.version), None)


class Neighbours:
    """Watches wanted addresses on a device; ``changed(address, mac)`` tells each change, None: unreachable."""

    def __init__(self, device: str, changed: Changed) -> None:
        self._changed = changed
        self._known: dict[IpAddress, bytes | None] = {}
        self._timer: asyncio.TimerHandle | None = None
        for family in ("ipv4", "ipv6"):
            for setting, value in _TIMING.items():
                sysctl.write(f"net/{family}/neigh/{device}/{setting}", value)
        try:
            self._index = socket.if_nametoindex(device)
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
            self._socket.bind((0, _RTMGRP_NEIGH))
        except OSError as error:
            raise BackendError(f"cannot watch the neighbours on {device}: {error.strerror}") from error
        self._socket.setblocking(False)

    def start(self) -> None:
        """Begin to watch, on the running event loop."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._socket, self._readable)
        self._tick()

    def want(self, addresses: Set[IpAddress]) -> None:
        """Watch exactly these addresses from now on; those no longer wanted are forgotten."""
        fresh = addresses - self._known.keys()
        self._known = {address: self._known.get(address) for address in addresses}
        if fresh:
            self._send(_GETNEIGH, _DUMP, struct.pack("=BxHiHBB", 0, 0, 0, 0, 0, 0))
        for address in fresh:
            self._resolve(address)

    def close(self) -> None:
        """Stop watching; the kernel keeps what it knows."""
        if self._timer:
            self._timer.cancel()
            asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()

    def _tick(self) -> None:
        for address, mac in self._known.items():
            if mac is None:
                self._resolve(address)
            else:
                self._neighbour(address, _REPLACE, _NUD_PROBE, 0)
        self._timer = asyncio.get_running_loop().call_later(PROBE_INTERVAL_S, self._tick)

    def _resolve(self, address: IpAddress) -> None:
        self._neighbour(address, _CREATE, 0, _NTF_USE)

    def _neighbour(self, address: IpAddress, flags: int, state: int, use: int) -> None:
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        head = struct.pack("=BxHiHBB", family, 0, self._index, state, use, 0)
        packed = address.packed
        self._send(_NEWNEIGH, flags, head + struct.pack("=HH", 4 + len(packed), _NDA_DST) + packed)

    def _send(self, kind: int, flags: int, body: bytes) -> None:
        header = struct.pack("=IHHII", 16 + len(body), kind, _REQUEST | flags, 0, 0)
        try:
            self._socket.send(header + body)
        except OSError as error:
            # The kernel is busy with us already; the next tick asks again.
            if error.errno not in (errno.ENOBUFS, errno.EAGAIN, errno.EBUSY):
                raise BackendError(f"cannot ask for neighbours: {error.strerror}") from error

    def _readable(self) -> None:
        try:
            while data := self._socket.recv(65536):
                self._take(data)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise BackendError(f"cannot follow the neighbours: {error.strerror}") from error
            self._send(_GETNEIGH, _DUMP, struct.pack("=BxHiHBB", 0, 0, 0, 0, 0, 0))

    def _take(self, data: bytes) -> None:
        at = 0
        while at + 16 <= len(data):
            length, kind = struct.unpack_from("=IH", data, at)
            if kind in (_NEWNEIGH, _DELNEIGH):
                self._heard(kind, data[at + 16 : at + length])
            at += max(16, (length + 3) & ~3)

    def _heard(self, kind: int, body: bytes) -> None:
        family, index, state = struct.unpack_from("=BxxxiH", body)
        attributes = dict(_attributes(body[12:]))
        if index != self._index or family not in (socket.AF_INET, socket.AF_INET6):
            return
        address = ip_address(attributes[_NDA_DST])
        valid = kind == _NEWNEIGH and state & _NUD_VALID
        mac = attributes.get(_NDA_LLADDR) if valid else None
        if address in self._known and self._known[address] != mac:
            self._known[address] = mac
            self._changed(address, mac)


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, at)
        yield kind, data[at + 4 : at + length]
        at += max(4, (length + 3) & ~3)
