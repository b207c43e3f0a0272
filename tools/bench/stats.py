"""Medians, spreads, ratios: what a series of measurements says."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Summary:
    """A series: its median, and the quarter and three-quarter points around it."""

    median: float
    low: float
    high: float
    rounds: int

    @property
    def spread(self) -> float:
        """Half the distance between the quartiles, as a part of the median."""
        return (self.high - self.low) / 2 / self.median if self.median else 0.0


def summary(values: Sequence[float]) -> Summary:
    """What a series says; one value is its own median."""
    if len(values) == 1:
        return Summary(values[0], values[0], values[0], 1)
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Summary(median, low, high, len(values))


def paired_ratio(values: Sequence[float], base: Sequence[float]) -> float:
    """The median of round-by-round ratios: what slows a whole round slows both and cancels."""
    return statistics.median(value / other for value, other in zip(values, base, strict=True))


def nanoseconds(packets_per_second: float) -> float:
    """Nanoseconds per packet at this rate."""
    return 1e9 / packets_per_second


def net_nanoseconds(packets_per_second: float, floor_per_second: float) -> float:
    """Nanoseconds per packet beyond what the generator and the sink take by themselves."""
    return nanoseconds(packets_per_second) - nanoseconds(floor_per_second)


def highest_without_loss(tries: Sequence[tuple[int, Sequence[bool]]]) -> int:
    """The highest rate up to which every rate had more good tries than bad ones; 0 if there is none."""
    best = 0
    for rate, results in sorted(tries):
        if sum(results) * 2 <= len(results):
            break
        best = rate
    return best
