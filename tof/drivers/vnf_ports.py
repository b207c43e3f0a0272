"""The two interfaces of a VNF: whether they are up, and whether frames go through what is between them."""

from __future__ import annotations

import asyncio
import fcntl
import socket
import struct
import sys
from typing import Final

from tof.errors import BackendError
from tof.model import FAR_MAC, NEAR_MAC

PROBE: Final = 0x88B5
"""EtherType for experiments on a local network (IEEE 802, clause 9.2.3)."""
ETHERNET_BYTES: Final = 14
NSH_BYTES: Final = 24 + ETHERNET_BYTES
"""What a packet in NSH (MD type 1) needs in its frame beside itself: the frame that it came in is in there."""
_SIOCGIFFLAGS: Final = 0x8913
_SIOCGIFMTU: Final = 0x8921
_UP_AND_RUNNING: Final = 0x1 | 0x40


def is_up(device: str) -> bool:
    """Whether it is there, set up, and has a carrier."""
    flags = int.from_bytes(_asked(device, _SIOCGIFFLAGS)[:2], sys.byteorder)
    return flags & _UP_AND_RUNNING == _UP_AND_RUNNING


def mtu(device: str) -> int:
    """The longest packet that it takes; 0 if it is not there."""
    return int.from_bytes(_asked(device, _SIOCGIFMTU)[:4], sys.byteorder)


def _asked(device: str, what: int) -> bytes:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        try:
            return fcntl.ioctl(asking, what, struct.pack("16s24x", device.encode()))[16:]
        except OSError:
            return bytes(24)


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

    async def passes(self, within_s: float, size: int = 60) -> bool:
        """Whether one frame of ``size`` bytes has come through; BackendError if an interface is gone, or takes none."""
        self._number += 1
        wanted = self._number.to_bytes(8, "big")
        frame = FAR_MAC + NEAR_MAC + PROBE.to_bytes(2, "big") + wanted
        try:
            self._into.send(frame.ljust(size, b"\0"))
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
