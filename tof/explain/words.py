"""The words of an explanation: verdicts, and what is said of a frame."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from tof.explain.reading import User
from tof.model import Direction, Service, Side, TunnelKey


class Verdict(StrEnum):
    """What becomes of a frame. ``teaches``: it passes, and the agent knows more afterwards.

    ``dropped``: it waits for the core's word and is sent again by its TCP. ``cut``: the capture does not hold enough of it.
    """

    DIVERTED = "diverted"
    SHADOW = "shadow"
    TEACHES = "teaches"
    PASSES = "passes"
    DROPPED = "dropped"
    CUT = "cut"


class Outcome(NamedTuple):
    """A judgement: ``reason`` is a short, stable name that ``reasons.REASONS`` explains; ``detail`` has the facts."""

    verdict: Verdict
    reason: str
    service: Service | None = None
    detail: str = ""
    learnt: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Explanation:
    """What is said of one frame; ``tunnel`` has TEID 0 where the frame does not show it."""

    number: int
    side: Side
    outcome: Outcome
    tunnel: TunnelKey | None = None
    direction: Direction | None = None
    qfi: int | None = None
    user: User | None = None

    @property
    def ue(self) -> bytes | None:
        """The address that the frame is of, or for."""
        if self.user is None:
            return None
        return self.user.source if self.direction is Direction.UPLINK else self.user.destination
