"""Reassembly of the outer fragments that carry service traffic: fragments in, whole datagrams or their release out.

Every fragment given in comes out exactly once, with all the others of its datagram and in the order in which they
came: either with the datagram they make up, or released to go on as what they are. So a datagram that is refused,
incomplete or one too many reaches the core as it was sent, and whoever reassembles it there judges it.

Refused (RFC 791 section 3.2, RFC 8200 section 4.5, RFC 5722): any overlap, a part that is empty or ends between two
units of eight bytes, a second end, anything beyond the end or beyond what an IP datagram can carry. An exact duplicate
is tolerated. Bounds, which a flood of fragments meets: datagrams, fragments of a datagram, fragments and bytes in all;
the longest waiting datagram gives way.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Generic, TypeVar

from tof.wire.fragment import Fragment, FragmentKey

DATAGRAMS = 1024
FRAGMENTS_OF_ONE = 64  # 65 535 bytes over links of 1 280 make 53
FRAGMENTS = 4096  # a quarter of what the kernel's queue takes: learning must have room beside it
OCTETS = 8 << 20
UNDECIDED_S = 0.05
"""A later fragment that overtook its first is some packets ahead of it, not seconds."""
DIVERTED_S = 0.2
REFUSED_S = 0.5
"""What still comes of a refused datagram is released at once."""

Packet = TypeVar("Packet")


class Fate(Enum):
    """What the data path says of a fragment's datagram; the value is what its mark carries."""

    UNDECIDED = 1
    PASS = 2
    DIVERT = 3


@dataclass(frozen=True, slots=True)
class Whole(Generic[Packet]):
    """A datagram's payload, and the packets it came in."""

    key: FragmentKey
    payload: bytes
    packets: list[Packet]


@dataclass(frozen=True, slots=True)
class Released(Generic[Packet]):
    """Packets that go on as they came; ``reason`` is a short, stable, countable name."""

    reason: str
    packets: list[Packet]


@dataclass(slots=True)
class _Datagram(Generic[Packet]):
    deadline: float
    packets: list[Packet] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    parts: dict[int, bytes] = field(default_factory=dict)
    octets: int = 0
    size: int | None = None
    divert: bool = False
    refused: bool = False

    @property
    def complete(self) -> bool:
        return self.divert and self.octets == self.size

    def payload(self) -> bytes:
        return b"".join(self.parts[offset] for offset in self.offsets)

    def put(self, fragment: Fragment) -> str:
        """Take the fragment in; why not, if its datagram is to be refused."""
        at, part = fragment.offset, fragment.payload
        end = at + len(part)
        if not part or (fragment.more and len(part) % 8):
            return "odd_length"
        if end > fragment.most:
            return "beyond_maximum"
        if len(self.packets) > FRAGMENTS_OF_ONE:
            return "too_many"
        if self.parts.get(at) == part and fragment.more == (end != self.size):
            return ""
        if self._contradicts(end, fragment.more):
            return "end_inconsistent"
        where = bisect_left(self.offsets, at)
        if where < len(self.offsets) and end > self.offsets[where]:
            return "overlap"
        if where and self.offsets[where - 1] + len(self.parts[self.offsets[where - 1]]) > at:
            return "overlap"
        self.offsets.insert(where, at)
        self.parts[at] = part
        self.octets += len(part)
        if not fragment.more:
            self.size = end
        return ""

    def _contradicts(self, end: int, more: bool) -> bool:
        """Whether a part that ends at ``end`` cannot be of a datagram whose end, or whose other parts, are known."""
        if more:
            return self.size is not None and end >= self.size
        furthest = self.offsets[-1] + len(self.parts[self.offsets[-1]]) if self.offsets else 0
        return self.size is not None or end < furthest


class Reassembly(Generic[Packet]):
    """Datagrams in pieces, the longest waiting first; ``Packet`` is whatever stands for a packet outside."""

    def __init__(self) -> None:
        self._open: OrderedDict[FragmentKey, _Datagram[Packet]] = OrderedDict()
        self.fragments = self.octets = 0

    def __len__(self) -> int:
        return len(self._open)

    def add(
        self, fragment: Fragment, packet: Packet, fate: Fate, now: float
    ) -> Iterator[Whole[Packet] | Released[Packet]]:
        """Take in ``packet``, which ``fragment`` was read from; what comes out because of it, in order."""
        datagram = self._open.get(fragment.key)
        if fate is Fate.PASS or (datagram is not None and datagram.refused):
            yield self._passing(fragment.key, datagram, packet)
            return
        if datagram is None:
            while len(self._open) >= DATAGRAMS:
                yield from self._evict()
            datagram = self._open[fragment.key] = _Datagram(now + UNDECIDED_S)
        if fate is Fate.DIVERT and not datagram.divert:
            datagram.divert, datagram.deadline = True, now + DIVERTED_S
        yield from self._take(fragment, packet, datagram, now)

    def due(self, now: float) -> Iterator[Released[Packet]]:
        """The packets of datagrams that waited long enough."""
        for key in [key for key, one in self._open.items() if one.deadline <= now]:
            yield from self._end(key, "timeout")

    def flush(self) -> Iterator[Released[Packet]]:
        """Everything that is held: nobody will come back for it."""
        for key in list(self._open):
            yield from self._end(key, "shutdown")

    def _take(
        self, fragment: Fragment, packet: Packet, datagram: _Datagram[Packet], now: float
    ) -> Iterator[Whole[Packet] | Released[Packet]]:
        before = datagram.octets
        datagram.packets.append(packet)
        self.fragments += 1
        refusal = datagram.put(fragment)
        self.octets += datagram.octets - before
        if refusal:
            yield Released(refusal, self._emptied(datagram))
            datagram.refused, datagram.deadline = True, now + REFUSED_S
        elif datagram.complete:
            del self._open[fragment.key]
            payload = datagram.payload()
            yield Whole(fragment.key, payload, self._emptied(datagram))
        while self.fragments > FRAGMENTS or self.octets > OCTETS:
            yield from self._evict()

    def _passing(
        self, key: FragmentKey, datagram: _Datagram[Packet] | None, packet: Packet
    ) -> Released[Packet]:
        if datagram is None:
            return Released("passed", [packet])
        if datagram.refused:
            return Released("refused_before", [packet])
        del self._open[key]
        return Released("passed", [*self._emptied(datagram), packet])

    def _evict(self) -> Iterator[Released[Packet]]:
        yield from self._end(next(iter(self._open)), "overflow")

    def _end(self, key: FragmentKey, reason: str) -> Iterator[Released[Packet]]:
        datagram = self._open.pop(key)
        if datagram.packets:
            yield Released(reason, self._emptied(datagram))

    def _emptied(self, datagram: _Datagram[Packet]) -> list[Packet]:
        """The packets of a datagram that is held no more."""
        packets = datagram.packets
        self.fragments -= len(packets)
        self.octets -= datagram.octets
        datagram.packets, datagram.offsets, datagram.parts, datagram.octets = [], [], {}, 0
        return packets
