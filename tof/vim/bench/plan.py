"""What is to be measured: single instantiations, on top of a background, in batches; and how many at most are there."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from tof.errors import SetupError

MOST: Final = 100_000
_RANGE: Final = re.compile(r"(\d+)-(\d+)")
_DOTS: Final = frozenset({"…", "..."})


@dataclass(frozen=True, slots=True)
class Point:
    """``runs`` times ``batch`` instances at once, while ``background`` others run."""

    background: int
    batch: int
    runs: int

    @property
    def label(self) -> str:
        """In words."""
        what = "one more" if self.batch == 1 else f"a batch of {self.batch}"
        return f"{what}, {self.background} running"


@dataclass(frozen=True, slots=True)
class Plan:
    """Without background it is always measured; ``loads`` and ``batch_loads``: numbers of background instances."""

    runs: int = 100
    loads: Sequence[int] = ()
    batches: Sequence[int] = ()
    batch_loads: Sequence[int] = (0,)

    def points(self) -> Iterator[Point]:
        """In ascending background, so that each background instance is made once."""
        for background in sorted({0, *self.loads, *(self.batch_loads if self.batches else ())}):
            if background in {0, *self.loads}:
                yield Point(background, 1, self.runs)
            if background in self.batch_loads:
                yield from (Point(background, size, self.runs) for size in self.batches)

    @property
    def peak(self) -> int:
        """How many instances there are at most."""
        return max(point.background + point.batch for point in self.points())

    @property
    def instances(self) -> int:
        """How many are made altogether."""
        points = list(self.points())
        return max(point.background for point in points) + sum(one.batch * one.runs for one in points)


def plan_of(runs: int, loads: str, batches: str, batch_loads: str) -> Plan:
    """The plan that the command line says; SetupError if it cannot be."""
    if not 1 <= runs <= MOST:
        raise SetupError(f"--runs: {runs} is not a number from 1 to {MOST}")
    sizes = numbers("--batch", batches)
    if any(size < 2 for size in sizes):
        raise SetupError("--batch: a batch is of 2 or more")
    return Plan(
        runs, numbers("--background", loads), sizes, numbers("--batch-background", batch_loads) or (0,)
    )


def numbers(option: str, text: str) -> tuple[int, ...]:
    """``5-10``, ``10,20,50``, and ``10,20,…,300`` (or ``...``), which goes on in steps as before; ascending, each once."""
    found: list[int] = []
    words = [word.strip() for word in text.split(",")] if text.strip() else []
    for place, word in enumerate(words):
        if word in _DOTS:
            found += _steps(option, words, place)
        elif ends := _RANGE.fullmatch(word):
            first, last = int(ends[1]), int(ends[2])
            found += range(first, min(last, MOST + 1) + 1)
        elif word.isdecimal():
            found.append(int(word))
        else:
            raise SetupError(f"{option}: {word!r} is neither a number nor a range such as 5-10")
    if found and max(found) > MOST:
        raise SetupError(f"{option}: {max(found)} is more than {MOST}")
    return tuple(sorted(set(found)))


def _steps(option: str, words: Sequence[str], place: int) -> range:
    around = [*words[place - 2 : place], *words[place + 1 : place + 2]] if place >= 2 else []
    if len(around) != 3 or not all(word.isdecimal() for word in around):
        raise SetupError(f"{option}: … stands between two numbers and a last one, as in 10,20,…,300")
    first, second, last = map(int, around)
    if second <= first or last < second:
        raise SetupError(f"{option}: {first},{second},…,{last} does not ascend")
    return range(second, min(last, MOST + 1), second - first)
