"""One device's clsact: to list queueing disciplines, the kernel goes through those of all devices."""

from __future__ import annotations

import errno
import os
import socket
import struct
from typing import Final

from tof.errors import BackendError

_HEADER: Final = struct.Struct("=IHHII")
_TCMSG: Final = struct.Struct("=BxHiIII")
_ERROR, _NEW, _GET = 2, 36, 38
_REQUEST_ACK_ECHO: Final = 0xD
_CLSACT_PARENT: Final = 0xFFFFFFF1
_ABSENT: Final = (errno.ENOENT, errno.ENODEV)


def has_clsact(index: int) -> bool:
    """Whether the device has a clsact (or ingress) discipline."""
    body = _TCMSG.pack(socket.AF_UNSPEC, 0, index, 0, _CLSACT_PARENT, 0)
    head = _HEADER.pack(_HEADER.size + len(body), _GET, _REQUEST_ACK_ECHO, 1, 0)
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as asking:
            asking.send(head + body)
            return _answered(asking, index)
    except OSError as error:
        raise BackendError(f"cannot look up the clsact of device {index}: {error.strerror}") from error


def _answered(asking: socket.socket, index: int) -> bool:
    """The discipline comes, as an echo, before the acknowledgement; one that was removed leaves nothing but that."""
    found = False
    while True:
        data = asking.recv(1 << 16)
        while len(data) >= _HEADER.size:
            length, kind, *_ = _HEADER.unpack_from(data)
            if kind == _NEW:
                found = True
            elif kind == _ERROR:
                code = -struct.unpack_from("=i", data, _HEADER.size)[0]
                if code and code not in _ABSENT:
                    raise BackendError(f"cannot look up the clsact of device {index}: {os.strerror(code)}")
                return found
            data = data[(length + 3) & ~3 :]
