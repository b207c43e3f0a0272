"""What was measured, and whose time it was: the VIM's, the app's own until it answers, the TOF's."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from tof.vim.bench.plan import Point
from tof.vim.statistics import Estimate, estimate

BUILD: Final = "build."
PORT: Final = "port"
"""The phase of a VIM's create in which it asks the TOF for the app's port: the TOF's own work."""
APP, TOF_PORT, TOF_REST = "app", "TOF: port", "TOF: rest"
TOTAL, TOF = "total", "TOF"


@dataclass(frozen=True, slots=True)
class Sample:
    """One instantiation: ``wall_s`` from the request to the answer that it is ready; ``timings``: the agent's."""

    name: str
    run: int
    wall_s: float
    timings: Mapping[str, float]

    @property
    def phases(self) -> dict[str, float]:
        """The VIM's phases; what of its create is in none of them is ``other``."""
        found = {
            key.removeprefix(BUILD): seconds for key, seconds in self.timings.items() if key.startswith(BUILD)
        }
        plugged = found.pop(PORT, 0.0)
        other = self.timings.get("build", 0.0) - plugged - sum(found.values())
        return {**found, "other": max(0.0, other)}

    @property
    def vim_s(self) -> float:
        """What the VIM took."""
        return sum(self.phases.values())

    @property
    def app_s(self) -> float:
        """Until the app answered, from when the VIM said that it runs."""
        return self.timings.get("probe", 0.0)

    @property
    def port_s(self) -> float:
        """What the TOF took for the app's port."""
        return self.timings.get(BUILD + PORT, 0.0)

    @property
    def tof_s(self) -> float:
        """The TOF's own share: everything else, its API and that port included."""
        return max(0.0, self.wall_s - self.vim_s - self.app_s)

    @property
    def parts(self) -> dict[str, float]:
        """All of it in order."""
        rest = max(0.0, self.tof_s - self.port_s)
        return {**self.phases, APP: self.app_s, TOF_PORT: self.port_s, TOF_REST: rest}


@dataclass(slots=True)
class Series:
    """Everything of one point; ``walls``: each run from its first request until all of it was ready."""

    point: Point
    samples: list[Sample] = field(default_factory=list)
    walls: list[float] = field(default_factory=list)

    def parts(self) -> dict[str, Estimate]:
        """The mean of each part."""
        keys = dict.fromkeys(key for sample in self.samples for key in sample.parts)
        return {key: estimate([sample.parts.get(key, 0.0) for sample in self.samples]) for key in keys}

    @property
    def total(self) -> Estimate:
        """The mean of a run."""
        return estimate(self.walls)

    @property
    def tof(self) -> Estimate:
        """The mean of the TOF's own share of an instantiation."""
        return estimate([sample.tof_s for sample in self.samples])

    @property
    def tof_median_s(self) -> float:
        """Its median."""
        return statistics.median(sample.tof_s for sample in self.samples)


@dataclass(slots=True)
class Results:
    """All points that were begun; ``error``: why it did not go on; ``left``: what could not be removed."""

    vim: str
    series: list[Series] = field(default_factory=list)
    error: str = ""
    left: Sequence[str] = ()

    def measured(self) -> Iterator[Series]:
        """Those with at least one complete run."""
        return (one for one in self.series if one.walls)
