"""Mirrored packets: frames off a device with the kernel's own times, and the files that they are written to."""

from __future__ import annotations

import os
import socket
from errno import ENOSPC
from pathlib import Path
from struct import Struct

from tof.errors import BackendError
from tof.wire import pcapng

# Linux UAPI: if_ether.h, if_packet.h, asm-generic/socket.h
_ALL_PROTOCOLS = 0x0003
_OUTGOING = 4
_SOL_PACKET, _PACKET_STATISTICS = 263, 6
_TIMESTAMPNS, _RCVBUFFORCE = 35, 33
_STATISTICS, _TIMESPEC = Struct("=II"), Struct("=qq")
_BUFFER_OCTETS = 16 << 20
_LARGEST = 65535
_AT_ONCE = 256 << 10


class CaptureSocket:
    """Reads what arrives at a device."""

    def __init__(self, device: str) -> None:
        try:
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL_PROTOCOLS))
            self._socket.setsockopt(socket.SOL_SOCKET, _RCVBUFFORCE, _BUFFER_OCTETS)
            self._socket.setsockopt(socket.SOL_SOCKET, _TIMESTAMPNS, 1)
            self._socket.bind((device, _ALL_PROTOCOLS))
        except OSError as error:
            raise BackendError(f"no raw socket on {device}: {error.strerror}") from error
        self._socket.setblocking(False)
        self._lost = 0

    def fileno(self) -> int:
        """For whoever waits until there is something to read."""
        return self._socket.fileno()

    def receive(self) -> tuple[int, bytes] | None:
        """The next frame, with nanoseconds since 1970; None if there is none."""
        while True:
            try:
                frame, extra, _, address = self._socket.recvmsg(_LARGEST, 64)
            except BlockingIOError:
                return None
            if address[2] == _OUTGOING:
                continue
            seconds, rest = _TIMESPEC.unpack(extra[0][2][: _TIMESPEC.size])
            return seconds * 1_000_000_000 + rest, frame

    @property
    def lost(self) -> int:
        """How many frames there was no room for, since the beginning."""
        raw = self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, _STATISTICS.size)
        self._lost += _STATISTICS.unpack(raw)[1]  # since the last look
        return self._lost

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


class CaptureFile:
    """NAME.pcapng in ``directory``: at most ``max_octets``, then it becomes NAME.1.pcapng, of which ``kept`` are left.

    Only whole blocks are written, whatever becomes of the agent: what is appended later can be read.
    """

    def __init__(self, directory: Path, name: str, max_octets: int, kept: int) -> None:
        self._directory, self._name, self._max_octets, self._kept = directory, name, max_octets, kept
        self._file = -1
        self._size = 0
        self._waiting = bytearray()

    def write(self, way: int, time_ns: int, packet: bytes) -> None:
        """Append; BackendError if that cannot be done, and what waited for it is lost."""
        block = pcapng.packet(way, time_ns, packet)
        try:
            if self._file < 0:
                self._open()
            if self._size + len(self._waiting) + len(block) > self._max_octets:
                self._turn_over()
            self._waiting += block
            if len(self._waiting) > _AT_ONCE:
                self._put()
        except OSError as error:
            raise self._failed(error) from error

    def flush(self) -> None:
        """Let readers see what has been written; BackendError if it cannot be."""
        try:
            self._put()
        except OSError as error:
            raise self._failed(error) from error

    def close(self) -> None:
        """Write no more for now."""
        try:
            self.flush()
        finally:
            self._end()

    def _put(self) -> None:
        data, self._waiting = bytes(self._waiting), bytearray()
        if data:
            written = os.write(self._file, data)
            if written < len(data):
                os.ftruncate(self._file, self._size)
                raise OSError(ENOSPC, os.strerror(ENOSPC))
            self._size += written

    def _open(self) -> None:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Users' packets are nobody else's business.
        self._file = os.open(self._path(), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._size = os.fstat(self._file).st_size
        self._waiting += pcapng.section()

    def _turn_over(self) -> None:
        self._put()
        self._end()
        for number in range(self._kept - 1, -1, -1):
            if (path := self._path(number)).exists():
                path.replace(self._path(number + 1))
        self._open()

    def _failed(self, error: OSError) -> BackendError:
        self._end()
        return BackendError(f"{self._path()}: {error.strerror or error}")

    def _end(self) -> None:
        self._waiting.clear()
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _path(self, number: int = 0) -> Path:
        return self._directory / (f"{self._name}.{number}.pcapng" if number else f"{self._name}.pcapng")
