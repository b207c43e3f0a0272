"""Tables and targets, for people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class Target:
    """Something to reach, and what was reached."""

    name: str
    wanted: float
    seen: float
    at_most: bool = False

    @property
    def met(self) -> bool:
        """Whether it was reached."""
        return self.seen <= self.wanted if self.at_most else self.seen >= self.wanted

    def as_json(self) -> dict[str, object]:
        """For the JSON document."""
        return {**asdict(self), "met": self.met}

    def __str__(self) -> str:
        sign = "<=" if self.at_most else ">="
        return f"{'met' if self.met else 'MISSED'}: {self.name} {self.seen:,.2f} ({sign} {self.wanted:,g})"


def count_word(count: int) -> str:
    """1, 10 k, 1 M."""
    if count >= 1_000_000 and count % 1_000_000 == 0:
        return f"{count // 1_000_000} M"
    if count >= 1000 and count % 1000 == 0:
        return f"{count // 1000} k"
    return str(count)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table whose columns line up; the first column is text, the others are figures."""
    lines = [head, *rows]
    widths = [max(len(line[at]) for line in lines) for at in range(len(head))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    out = []
    for line in (lines[0], rule, *lines[1:]):
        cells = [line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))]
        out.append("| " + " | ".join(cells) + " |")
    return "\n".join(out)
