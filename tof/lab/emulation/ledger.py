"""Laboratory: what was sent and what came out: transparency is judged from it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import Enum

from tof.errors import DecodeError
from tof.lab.capture import Frame
from tof.lab.verdict import Received, Report, Sent, compare, without_padding
from tof.model import Side
from tof.wire import inet


class Origin(Enum):
    """Where a frame that came out was made."""

    OURS = 0
    BOX = 1
    LEAKED = 2
    """Ours, but answering the box's own doing: it was the box's to keep."""


@dataclass(slots=True)
class Ledger:
    """Frames by the end that they must come out at. A routed box may change MACs and TTL, nothing else."""

    routed: bool = False
    sent: list[Sent] = field(default_factory=list)
    received: dict[Side, list[bytes]] = field(default_factory=lambda: {side: [] for side in Side})
    hidden: Counter[tuple[Side, bytes]] = field(default_factory=Counter)
    withheld: int = 0
    """How many frames were the box's to keep."""
    leaked: list[bytes] = field(default_factory=list)
    probes: int = 0
    """Echo requests that the box made."""
    injected: int = 0
    """Packets of an application that the box brought into tunnels."""
    background: int = 0
    """Frames of others on the same wires."""
    _awaited: Counter[tuple[Side, bytes]] = field(default_factory=Counter)
    in_flight: int = 0

    def send(self, out: Side, data: bytes, *, hidden: bool = False, service: bool = False) -> None:
        """Record a frame that goes in and should come out at ``out``; ``service``: it may be diverted."""
        data = self.canonical(data)
        if hidden:
            self.hidden[out, data] += 1
            self.withheld += 1
            return
        self.sent.append(Sent(Frame(len(self.sent) + 1, 0, data, len(data)), out.other))
        self._awaited[out, data] += 1
        self.in_flight += not service

    def arrive(self, side: Side, data: bytes, *, service: bool = False) -> Origin:
        """Whether a frame that came out at ``side`` is one of ours; if so it is recorded as received."""
        data = self.canonical(data)
        key = side, data
        if self._awaited[key] > 0:
            self._awaited[key] -= 1
            self.in_flight -= not service
            self.received[side].append(data)
            return Origin.OURS
        if self.hidden[key] > 0:
            self.hidden[key] -= 1
            self.leaked.append(data)
            return Origin.LEAKED
        return Origin.BOX

    def extra(self, side: Side, data: bytes) -> None:
        """Record a frame that the box had no reason to make: one of ours, changed, or its own."""
        self.received[side].append(self.canonical(data))

    def report(self, services: frozenset[bytes]) -> Report:
        """The verdict on every frame that was not to be withheld."""
        received = Received(self.received[Side.ENB], self.received[Side.SGW], None, services)
        return compare(self.sent, received)

    def canonical(self, data: bytes) -> bytes:
        """The part of a frame that must come out as it went in."""
        return unrouted(data) if self.routed else without_padding(data)


def unrouted(data: bytes) -> bytes:
    """The frame without what a router may change: MACs, TTL or hop limit, IPv4 header checksum."""
    try:
        frame = inet.decode_ethernet(without_padding(data))
    except DecodeError:
        return data
    packet = frame.payload
    if packet[:1] and packet[0] >> 4 == 4:
        packet = packet[:8] + b"\0" + packet[9:10] + b"\0\0" + packet[12:]
    elif packet[:1] and packet[0] >> 4 == 6:
        packet = packet[:7] + b"\0" + packet[8:]
    return inet.encode_ethernet(frame._replace(destination=bytes(6), source=bytes(6), payload=packet))
