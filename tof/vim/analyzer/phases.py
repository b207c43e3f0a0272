"""What is found of each instantiation: the milestones it reached, the phases between them, and what is missing and why.

A phase is named after the milestone that ends it and lasts from whichever milestone came before, so that the phases of an
instantiation add up to its whole time in whatever order a version of a VIM sends its messages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

NANOSECONDS: Final = 1_000_000_000


class Outcome(Enum):
    """How an instantiation ended, as far as the capture shows."""

    ACTIVE = "active"
    FAILED = "failed"
    UNFINISHED = "unfinished"


@dataclass(frozen=True, slots=True)
class Milestone:
    """A message that marks a step. ``ends_phase``: a phase ends with it; ``needed``: its absence is remarkable."""

    key: str
    message: str
    ends_phase: bool = True
    needed: bool = True


@dataclass(frozen=True, slots=True)
class Phase:
    """A part of an instantiation."""

    key: str
    seconds: float


@dataclass(slots=True)
class Instantiation:
    """One VM, job or unikernel. Times are the capture's, of each message's last byte; ``began_ns`` None: no request seen."""

    key: str
    name: str
    began_ns: int | None
    number: int
    outcome: Outcome = Outcome.UNFINISHED
    fault: str = ""
    reached: dict[str, int] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    @property
    def since_ns(self) -> int:
        """When it was asked for; 0 if that is not known."""
        return 0 if self.began_ns is None else self.began_ns

    def reach(self, key: str, time_ns: int | None, why_not: str) -> None:
        """A milestone, or why it was not found."""
        if time_ns is None:
            self.missing[key] = why_not
        else:
            self.reached[key] = time_ns


@dataclass(frozen=True, slots=True)
class Analysis:
    """All instantiations that a capture holds of one VIM; ``notes`` are about the capture itself."""

    vim: str
    milestones: Sequence[Milestone]
    instantiations: Sequence[Instantiation]
    notes: Sequence[str] = ()


def phases(analysis: Analysis, one: Instantiation) -> list[Phase]:
    """The phases of an instantiation, in order of time, as far as it came; none if its request was not seen."""
    if one.began_ns is None:
        return []
    end = one.reached.get(analysis.milestones[-1].key)
    steps = sorted(
        (time_ns, order, milestone.key)
        for order, milestone in enumerate(analysis.milestones)
        if milestone.ends_phase and (time_ns := one.reached.get(milestone.key)) is not None
        if one.began_ns <= time_ns and (end is None or time_ns <= end)
    )
    found, before = [], one.began_ns
    for time_ns, _, key in steps:
        found.append(Phase(key, (time_ns - before) / NANOSECONDS))
        before = time_ns
    return found


def total(analysis: Analysis, one: Instantiation) -> float | None:
    """Seconds from the request to the end, None if one of them was not seen or it did not end well."""
    end = one.reached.get(analysis.milestones[-1].key)
    if one.began_ns is None or end is None or one.outcome is not Outcome.ACTIVE:
        return None
    return (end - one.began_ns) / NANOSECONDS


def since_request(one: Instantiation) -> Mapping[str, float]:
    """When each milestone was reached, in seconds after the request, or after the first milestone if there is none."""
    begin = one.began_ns if one.began_ns is not None else min(one.reached.values(), default=0)
    return {key: (time_ns - begin) / NANOSECONDS for key, time_ns in one.reached.items()}
