"""Frames from apps that wait for their UE's downlink tunnel; bounded per UE, in UEs, and in time.

The bounds stop an app that sends to addresses nobody has from taking the agent's memory.
"""

from __future__ import annotations

from collections import OrderedDict

PER_UE = 64
FRAMES = 16384
UES = 1024
HOLD_S = 5.0


class Holding:
    """Held frames by UE, the longest waiting UE first."""

    def __init__(self) -> None:
        self._frames: OrderedDict[bytes, tuple[float, list[bytes]]] = OrderedDict()
        self._answered: set[bytes] = set()
        self._count = 0
        self.expired = 0

    @property
    def wake_at(self) -> float | None:
        """When ``due`` has something to do."""
        if self._answered:
            return 0.0
        return next(iter(self._frames.values()))[0] + HOLD_S if self._frames else None

    def hold(self, ue: bytes, frame: bytes, now: float) -> bool:
        """Keep ``frame`` for ``ue``; False if its share is used up."""
        if ue not in self._frames and len(self._frames) >= UES:
            self._give_up_oldest()
        _, frames = self._frames.setdefault(ue, (now, []))
        if len(frames) >= PER_UE or self._count >= FRAMES:
            self.expired += 1
            return False
        frames.append(frame)
        self._count += 1
        return True

    def _give_up_oldest(self) -> None:
        frames = self._frames.popitem(last=False)[1][1]
        self._count -= len(frames)
        self.expired += len(frames)

    def answered(self, ue: bytes) -> None:
        """``ue`` has its tunnel already: the frames crossed with it, and are due at the next Tick.

        Not at once: a data path that disagrees would give them back as often as it gets them.
        """
        self._answered.add(ue)

    def release(self, ue: bytes) -> list[bytes]:
        """The frames held for ``ue``, in order, which are held no more."""
        frames = self._frames.pop(ue, (0.0, []))[1]
        self._count -= len(frames)
        return frames

    def due(self, now: float) -> list[bytes]:
        """The frames whose UE has its tunnel; those that waited too long are given up."""
        ready = [frame for ue in self._answered for frame in self.release(ue)]
        self._answered.clear()
        while self._frames and next(iter(self._frames.values()))[0] + HOLD_S <= now:
            self._give_up_oldest()
        return ready
