"""Raw frames out of a device."""

from __future__ import annotations

import fcntl
import socket
import struct

from tof.errors import BackendError

_SIOCGIFMTU = 0x8921  # Linux UAPI sockios.h


class FrameSocket:
    """Sends whole Ethernet frames out of one device; receives nothing."""

    def __init__(self, device: str) -> None:
        self._device = device.encode()
        try:
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            self._socket.bind((device, 0))
        except OSError as error:
            raise BackendError(f"no raw socket on {device}: {error.strerror}") from error
        self._socket.setblocking(False)
        self.mac = self._socket.getsockname()[4]

    @property
    def mtu(self) -> int:
        """The longest packet that the device takes now."""
        answer = fcntl.ioctl(self._socket, _SIOCGIFMTU, struct.pack("16si12x", self._device, 0))
        return int.from_bytes(answer[16:20], "little")

    def send(self, frame: bytes) -> bool:
        """Send one frame; False if the device's queue is full."""
        try:
            self._socket.send(frame)
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
