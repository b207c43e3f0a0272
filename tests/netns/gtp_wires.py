"""Raw sockets at the far ends of the TOF's adapters: what is sent enters it, what leaves it is received."""

from __future__ import annotations

import errno
import select
import socket
import struct
import time
from collections.abc import Callable

from gtp_packets import (
    Gpdu,
    Inner,
    gpdu_of,
)
from netns_helper import Netns

from tof.wire.inet import (
    ETHERTYPE_IPV4,
    ETHERTYPE_IPV6,
    Ethernet,
    decode_ethernet,
)

_AUXDATA, _SOL_PACKET, _VLAN_VALID = 8, 263, 1 << 4
_OUTGOING = 4


class Wire:
    """A raw socket on a device at the far end: what is sent enters the TOF, what leaves the TOF is received."""

    def __init__(self, netns: Netns, device: str) -> None:
        with netns.entered():
            self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
            self.socket.bind((device, 3))
        self.socket.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)
        self.socket.setsockopt(socket.SOL_SOCKET, 32, 16 << 20)
        self.socket.setsockopt(_SOL_PACKET, _AUXDATA, 1)
        self.socket.setblocking(False)
        self.history: list[bytes] = []

    def send(self, *frames: bytes) -> None:
        for frame in frames:
            while True:
                try:
                    self.socket.send(frame)
                    break
                except BlockingIOError:
                    select.select([], [self.socket], [], 1)
                except OSError as error:
                    if error.errno != errno.ENOBUFS:  # the veth's ring is full
                        raise
                    time.sleep(0.001)

    def receive(self, timeout_s: float) -> bytes | None:
        """The next frame that came from the TOF, its VLAN tag in place; None if there is none in time."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                frame, extra, _, sender = self.socket.recvmsg(65535, 64)
            except BlockingIOError:
                left = deadline - time.monotonic()
                if left <= 0:
                    return None
                select.select([self.socket], [], [], left)
                continue
            if sender[2] != _OUTGOING:
                self.history.append(_retagged(frame, extra))
                return self.history[-1]

    def drain(self) -> None:
        """Forget everything that has come so far."""
        while self.receive(0) is not None:
            pass
        self.history.clear()

    def find(self, wanted: Callable[[bytes], bool], timeout_s: float = 3.0) -> bytes | None:
        """The next frame that is wanted; others are let go."""
        deadline = time.monotonic() + timeout_s
        while (frame := self.receive(max(0.0, deadline - time.monotonic()))) is not None:
            if wanted(frame):
                return frame
        return None

    def expect(self, frame: bytes, timeout_s: float = 3.0) -> None:
        """Exactly this frame comes, byte for byte."""
        seen: list[bytes] = []

        def same(one: bytes) -> bool:
            seen.append(one)
            return one == frame

        found = self.find(same, timeout_s)
        assert found is not None, f"expected {frame.hex()}\nsaw {[one.hex() for one in seen]}"

    def gpdu(self, wanted: Callable[[Gpdu], bool] = lambda _: True, timeout_s: float = 3.0) -> Gpdu:
        """The next wanted G-PDU."""
        found = self.find(lambda frame: (one := gpdu_of(frame)) is not None and wanted(one), timeout_s)
        assert found is not None, "the G-PDU did not come"
        return Gpdu.of(found)

    def to_ue(self, ue: str, timeout_s: float = 3.0) -> Gpdu:
        """The next G-PDU to this UE."""
        return self.gpdu(lambda one: one.inner.destination == ue, timeout_s)

    def gpdus(self) -> list[Gpdu]:
        """The G-PDUs that have come since the last ``drain``."""
        return [one for frame in self.history if (one := gpdu_of(frame)) is not None]

    def silent(self, wanted: Callable[[Gpdu], bool] = lambda _: True, for_s: float = 0.2) -> None:
        """No such G-PDU has come since the last ``drain``, and none comes for a while."""
        self.find(lambda _: False, for_s)
        found = [one for one in self.gpdus() if wanted(one)]
        assert not found, f"came against expectation: {found}"

    def packet(self, wanted: Callable[[Inner], bool], timeout_s: float = 3.0) -> tuple[Ethernet, Inner]:
        """The next wanted IP packet that is in no tunnel, with the frame it came in."""

        def judged(frame: bytes) -> bool:
            eth = decode_ethernet(frame)
            return eth.ethertype in (ETHERTYPE_IPV4, ETHERTYPE_IPV6) and wanted(Inner.of(eth.payload))

        found = self.find(judged, timeout_s)
        assert found is not None, "the packet did not come"
        eth = decode_ethernet(found)
        return eth, Inner.of(eth.payload)

    def close(self) -> None:
        self.socket.close()


def _retagged(frame: bytes, extra: list[tuple[int, int, bytes]]) -> bytes:
    for level, kind, data in extra:
        if (level, kind) == (_SOL_PACKET, _AUXDATA):
            status, _, _, _, _, tci, tpid = struct.unpack("=IIIHHHH", data[:20])
            if status & _VLAN_VALID:
                return frame[:12] + struct.pack("!HH", tpid or 0x8100, tci) + frame[12:]
    return frame
