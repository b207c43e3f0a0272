"""The two interfaces of a VNF: whether they are up, and whether frames go through what is between them."""

from __future__ import annotations

import asyncio
import fcntl
import socket
import struct
import sys
from typing import Final

from tof.errors import BackendError

PROBE: Final = 0x88B5
"""EtherType for experiments on a local network (IEEE 802, clause 9.2.3)."""
_SIOCGIFFLAGS: Final = 0x8913
_UP_AND_RUNNING: Final = 0x1 | 0x40
_FROM, _TO = bytes.fromhex("027300000001"), bytes.fromhex("027300000002")


def is_up(device: str) -> bool:
    """Whether it is there, set up, and has a carrier."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        try:
            answer = fcntl.ioctl(asking, _SIOCGIFFLAGS, struct.pack("16sH22x", device.encode(), 0))
        except OSError:
            return False
    flags = int.from_bytes(answer[16:18], sys.byteorder)
    return flags & _UP_AND_RUNNING == _UP_AND_RUNNING


def indices(*devices: str) -> tuple[int, ...]:
    """The kernel's numbers of these; BackendError if one is gone."""
    try:
        return tuple(map(socket.if_nametoindex, devices))
    except OSError as error:
        raise BackendError(f"a VNF's interface is gone: {error.strerror}") from error


class Passage:
    """Sends frames into one interface and looks whether they come out of the other."""

    def __init__(self, ingress: str, egress: str) -> None:
        self._into, self._out_of = _packet_socket(ingress, 0), _packet_socket(egress, PROBE)
        self._number = 0

    async def passes(self, within_s: float) -> bool:
        """Whether one frame has come through; BackendError if an interface is gone."""
        self._number += 1
        wanted = self._number.to_bytes(8, "big")
        frame = _TO + _FROM + PROBE.to_bytes(2, "big") + wanted
        try:
            self._into.send(frame.ljust(60, b"\0"))
            async with asyncio.timeout(within_s):
                while (await asyncio.get_running_loop().sock_recv(self._out_of, 64))[14:22] != wanted:
                    pass
        except TimeoutError:
            return False
        except OSError as error:
            raise BackendError(f"cannot probe a VNF: {error.strerror}") from error
        return True

    def close(self) -> None:
        """Close both sockets."""
        self._into.close()
        self._out_of.close()


def _packet_socket(device: str, protocol: int) -> socket.socket:
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    try:
        opened.bind((device, protocol))
    except OSError as error:
        opened.close()
        raise BackendError(f"no raw socket on {device}: {error.strerror}") from error
    opened.setblocking(False)
    return opened
