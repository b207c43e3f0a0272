"""Put a capture's frames on the wire in their order, and collect what comes out at both ends."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from tof.errors import BackendError
from tof.lab.verdict import Sent, without_padding
from tof.lab.wire_ends import WireEnd
from tof.model import Side

BURST_GAP_NS = 1_000_000
"""Frames of one side that the capture shows closer together than this go out back to back."""
WINDOW = 64
PATIENCE_S = 0.2
IMPATIENCE_S = 0.01
PATIENT_TIMES = 10
LAST_S = 1.0
QUIET_S = 0.05

Reply = Callable[[bytes, Side], bytes | None]


@dataclass(slots=True)
class Injection:
    """One run over two open ends; ``reply`` may answer what comes out, ``expects`` what need not come out.

    Before a frame of the other side, or after a pause in the capture, everything so far must be out (or
    given up as lost after ``PATIENCE_S``), so that order between the sides means what it meant when recorded.
    """

    ends: Mapping[Side, WireEnd]
    reply: Reply | None = None
    expects: Callable[[bytes], bool] = lambda _: True
    received: dict[Side, list[bytes]] = field(default_factory=lambda: {side: [] for side in Side})
    replies: list[tuple[Side, bytes]] = field(default_factory=list)
    _awaited: Counter[tuple[Side, bytes]] = field(default_factory=Counter)
    _missing: int = 0
    _open: int = 0
    _given_up: int = 0
    _progress: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, sent: Sequence[Sent]) -> None:
        """Send every frame that is whole; returns when all is out, or nothing more can be expected."""
        loop = asyncio.get_running_loop()
        for side, end in self.ends.items():
            end.receive()
            end.dropped()
            loop.add_reader(end, self._collect, side)
        try:
            await self._send_all(sent)
            # what was given up may be late rather than lost
            self._open = self._missing
            await self._until_out(LAST_S)
            await asyncio.sleep(QUIET_S)
        finally:
            for side, end in self.ends.items():
                loop.remove_reader(end)
                self._collect(side)
        for end in self.ends.values():
            if dropped := end.dropped():
                raise BackendError(f"{end.name}: {dropped} frames did not fit into the receive buffer")

    async def linger(self, quiet_s: float) -> None:
        """Keep replying until nothing was left to reply to for this long."""
        loop = asyncio.get_running_loop()
        for side, end in self.ends.items():
            loop.add_reader(end, self._collect, side)
        try:
            before = -1
            while len(self.replies) > before:
                before = len(self.replies)
                await asyncio.sleep(quiet_s)
        finally:
            for end in self.ends.values():
                loop.remove_reader(end)

    async def _send_all(self, sent: Sequence[Sent]) -> None:
        previous: Sent | None = None
        for item in sent:
            if item.frame.cut:
                continue
            if previous is not None and not in_burst(previous, item):
                await self._until_out(self._patience)
            while self._open >= WINDOW:
                await self._until_out(self._patience)
            self._send(item)
            previous = item

    def _send(self, item: Sent) -> None:
        if self.expects(item.frame.data):
            self._awaited[item.side.other, without_padding(item.frame.data)] += 1
            self._missing += 1
            self._open += 1
        self.ends[item.side].send(item.frame.data)

    @property
    def _patience(self) -> float:
        return PATIENCE_S if self._given_up < PATIENT_TIMES else IMPATIENCE_S

    async def _until_out(self, patience_s: float) -> None:
        try:
            async with asyncio.timeout(patience_s):
                while self._open:
                    self._progress.clear()
                    await self._progress.wait()
        except TimeoutError:
            self._given_up += 1
            self._open = 0

    def _collect(self, side: Side) -> None:
        for data in self.ends[side].receive():
            self.received[side].append(data)
            key = side, without_padding(data)
            if self._awaited[key] > 0:
                self._awaited[key] -= 1
                self._missing -= 1
                self._open = max(0, self._open - 1)
            self._respond(side, data)
        self._progress.set()

    def _respond(self, side: Side, data: bytes) -> None:
        answer = self.reply(data, side) if self.reply else None
        if answer is not None:
            self.replies.append((side, answer))
            self.ends[side].send(answer)


def in_burst(previous: Sent, item: Sent) -> bool:
    """Whether this frame follows so closely, from the same side, that it goes out back to back."""
    gap = item.frame.time_ns - previous.frame.time_ns
    return item.side is previous.side and 0 <= gap < BURST_GAP_NS
