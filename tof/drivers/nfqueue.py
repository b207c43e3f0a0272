"""The queues of the GTP Filter: unknown G-PDUs and signalling, answered in the call that delivers them."""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

from netfilterqueue import COPY_PACKET, NetfilterQueue

from tof.agent.reassembly import Fate
from tof.errors import SetupError
from tof.model import Side

LENGTH = 16384
SOCKET_BYTES = 64 << 20
WRAPPER_BYTES = 24
"""The IPv4 header and the ticket that the slow lane puts in front of the frame (docs/decisions/0010)."""
FRAME_BYTES = 2048
"""So much of a frame is copied: the binding's receive buffer is 4096 bytes, and the rest is user data."""
PACKETS_A_TURN = 256
"""A flood must leave the event loop time for everything else."""
_FATE_MARK = 0x70F00000

# Linux UAPI nfnetlink_queue.h: NFQNL_MSG_CONFIG with NFQA_CFG_FLAGS and NFQA_CFG_MASK.
_NFNL_SUBSYS_QUEUE, _NFQNL_MSG_CONFIG = 3, 2
_NFQA_CFG_MASK, _NFQA_CFG_FLAGS = 4, 5
_FAIL_OPEN = 1
_NLM_F_REQUEST = 1


class _Turn:
    """The queue's socket, on which nothing more waits after ``PACKETS_A_TURN`` packets until it is ``renewed``."""

    def __init__(self, fd: int) -> None:
        self._socket = socket.socket(fileno=os.dup(fd))
        self._left = 0
        self.close = self._socket.close

    def renewed(self) -> _Turn:
        self._left = PACKETS_A_TURN
        return self

    def recv(self, size: int) -> bytes:
        if not self._left:
            raise BlockingIOError(errno.EAGAIN, "the turn is over")
        self._left -= 1
        return self._socket.recv(size, socket.MSG_DONTWAIT)


class QueuedPacket(Protocol):
    """A packet that the kernel holds until it is told what to do; it takes one verdict."""

    def accept(self) -> None:
        """Let it go on."""

    def drop(self) -> None:
        """Let it end here."""


class PacketQueue:
    """One NFQUEUE: ``decide(side, frame)`` sees each frame, as it came off the wire, and says whether it passes.

    Fragments whose fate the data path has marked go to ``hold`` instead, which gives the verdict when it likes.
    """

    def __init__(
        self,
        number: int,
        side: Side,
        decide: Callable[[Side, bytes], bool],
        hold: Callable[[Side, bytes, Fate, QueuedPacket], None],
    ) -> None:
        self.number, self.side, self._decide, self._hold = number, side, decide, hold
        self._queue = NetfilterQueue()
        try:
            self._queue.bind(
                number, self._deliver, LENGTH, COPY_PACKET, WRAPPER_BYTES + FRAME_BYTES, SOCKET_BYTES
            )
        except OSError as error:
            raise SetupError(
                f"NFQUEUE {number} cannot be bound ({error}): another program listens on it; set agent.queue_base"
            ) from error
        self.fd = int(self._queue.get_fd())
        self._turn = _Turn(self.fd)
        self._fail_open()

    def _deliver(self, packet: object) -> None:
        fate = packet.get_mark() - _FATE_MARK  # type: ignore[attr-defined]
        if 0 < fate <= len(Fate):
            frame = packet.get_payload()[WRAPPER_BYTES:]  # type: ignore[attr-defined]
            self._hold(self.side, frame, Fate(fate), packet)  # type: ignore[arg-type]
            return
        passes = True
        try:
            frame = packet.get_payload()[WRAPPER_BYTES:]  # type: ignore[attr-defined]
            passes = self._decide(self.side, frame)
        finally:
            # Whatever goes wrong in here, the packet is not what must suffer.
            packet.accept() if passes else packet.drop()  # type: ignore[attr-defined]

    def read(self) -> None:
        """Answer the packets that wait, so many at a time."""
        self._queue.run_socket(self._turn.renewed())

    def _fail_open(self) -> None:
        """Let packets pass when the queue is full: `--queue-bypass` covers only an absent listener."""
        body = _attribute(_NFQA_CFG_MASK, _FAIL_OPEN) + _attribute(_NFQA_CFG_FLAGS, _FAIL_OPEN)
        head = struct.pack("!BBH", socket.AF_UNSPEC, 0, self.number)
        kind = _NFNL_SUBSYS_QUEUE << 8 | _NFQNL_MSG_CONFIG
        message = struct.pack("=IHHII", 16 + len(head) + len(body), kind, _NLM_F_REQUEST, 0, 0) + head + body
        with socket.socket(fileno=os.dup(self.fd)) as netlink:
            netlink.send(message)

    def close(self) -> None:
        """Stop listening: from here on packets bypass the queue."""
        self._queue.unbind()
        self._turn.close()


def listened_to(numbers: Iterable[int]) -> bool:
    """Whether every queue has a listener, by the kernel's own word."""
    try:
        lines = Path("/proc/net/netfilter/nfnetlink_queue").read_text().splitlines()
    except OSError:
        return False
    return set(numbers) <= {int(line.split()[0]) for line in lines}


def _attribute(kind: int, value: int) -> bytes:
    return struct.pack("=HH", 8, kind) + struct.pack("!I", value)
