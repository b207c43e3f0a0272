"""TCP segments → connections: each direction's bytes in order, with the time each became readable, and holes by size.

The whole capture is at hand, so nothing has to wait or expire: a direction's segments are put in order of sequence,
the first copy of a byte counts, and a byte is readable when it and all before it have come. What no packet holds is a hole.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from tof.vim.analyzer.segments import ACK, SYN, End, Segment

FARTHEST: Final = 1 << 30
"""A segment farther than this from the one before it is none of this connection: a forged or a broken one."""


class Piece(NamedTuple):
    """Bytes of one direction; ``hole`` bytes before them are in no packet. ``number``: the packet they are from."""

    time_ns: int
    number: int
    data: bytes
    hole: int = 0


class _Part(NamedTuple):
    start: int
    arrival: int
    time_ns: int
    number: int
    data: bytes


@dataclass(slots=True)
class Direction:
    """What one end sent, as it is collected."""

    origin: int | None = None
    last: int | None = None
    parts: list[_Part] = field(default_factory=list)

    def add(self, one: Segment) -> bool:
        """Take the segment's bytes; False if its place is beyond all measure."""
        sequence = one.sequence
        if one.flags & SYN:
            sequence = self.origin = sequence + 1
        last = sequence if self.last is None else self.last
        ahead = (sequence - last + (1 << 31)) % (1 << 32) - (1 << 31)
        if abs(ahead) > FARTHEST:
            return False
        start = last + ahead
        self.last = max(last, start + len(one.data))
        if one.data:
            self.parts.append(_Part(start, len(self.parts), one.time_ns, one.number, one.data))
        return True

    def pieces(self) -> list[Piece]:
        """Its bytes in order."""
        found: list[Piece] = []
        at, time_ns = self.origin, 0
        for part in sorted(self.parts):
            at = part.start if at is None else at
            data = part.data[max(0, at - part.start) :]
            if data:
                hole = max(0, part.start - at)
                time_ns = max(time_ns, part.time_ns)
                found.append(Piece(time_ns, part.number, data, hole))
                at = max(at, part.start) + len(data)
        return found


@dataclass(slots=True)
class Connection:
    """Two ends and what they sent; ``opener`` is who sent the SYN, if the capture has it."""

    ends: tuple[End, End]
    opener: End | None = None
    directions: dict[End, Direction] = field(default_factory=dict)
    refused: int = 0

    def __str__(self) -> str:
        return f"{self.ends[0]} - {self.ends[1]}"

    def add(self, one: Segment) -> None:
        """Take a segment of it."""
        if not self.directions.setdefault(one.source, Direction()).add(one):
            self.refused += 1

    def pieces(self, end: End) -> list[Piece]:
        """What ``end`` sent, in order."""
        direction = self.directions.get(end)
        return [] if direction is None else direction.pieces()


def connections(segments: Iterable[Segment]) -> list[Connection]:
    """The connections of a capture in the order of their first packets; a SYN on used ports begins another one."""
    found: list[Connection] = []
    current: dict[frozenset[End], tuple[Connection, int | None]] = {}
    for one in segments:
        key = frozenset((one.source, one.destination))
        known, opening = current.get(key, (None, None))
        opens = bool(one.flags & SYN and not one.flags & ACK)
        if known is None or (opens and one.sequence != opening):
            known = Connection((one.source, one.destination))
            found.append(known)
        if opens:
            known.opener, opening = one.source, one.sequence
        current[key] = known, opening
        known.add(one)
    return found
