"""Outer fragments on their way: ``judge_piece`` of tof.bpf.c, and the agent's own reassembly behind it.

A fragment is known by its place in the list of explanations; what becomes of it may be known only later.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from tof.agent.delivery import frames, user_packet
from tof.agent.reassembly import Fate, Reassembly, Released, Whole
from tof.errors import DecodeError
from tof.explain.reading import Part
from tof.model import TunnelKey
from tof.wire.fragment import FragmentKey, decode_fragment

PIECE_NS: Final = 1_000_000_000
PIECE_BYTES: Final = 2048
WINDOW_NS: Final = 100_000_000
MOST: Final = {Fate.UNDECIDED: 200, Fate.DIVERT: 500}
"""Datagrams a window that fragments may ask of the agent."""
APPS_MTU: Final = 1500

Settled = tuple[int, str]


@dataclass(slots=True)
class _Datagram:
    since_ns: int
    fate: Fate | None
    """None: one of its fragments went on already, so do the others."""
    queued: bool


class Pieces:
    """The fragments that take the queue, and what becomes of them."""

    def __init__(self) -> None:
        self._known: dict[FragmentKey, _Datagram] = {}
        self._held: Reassembly[int] = Reassembly()
        self._window_ns = -WINDOW_NS - 1
        self._asked = dict.fromkeys(MOST, 0)

    def queue(self, key: FragmentKey, part: Part, fate: Fate, size: int, now_ns: int) -> Fate | str:
        """With which fate the agent gets the fragment, or the reason why it takes the bridge."""
        known = self._known.get(key)
        if known is not None and now_ns - known.since_ns >= PIECE_NS:
            known = None
        if known is not None and (part is Part.LATER or known.fate is None):
            return known.fate if known.queued and known.fate else "bridged_fragment"
        before = known is not None and known.queued
        wanted: Fate | None = Fate.UNDECIDED if part is Part.LATER else fate
        reason = "bridged_fragment"
        if wanted in MOST and (size > PIECE_BYTES or not self._within_rate(wanted, now_ns)):
            wanted, reason = (Fate.PASS if before else None), "fragment_refused"
        queued = before or wanted in MOST
        self._known[key] = _Datagram(now_ns, wanted, queued)
        return wanted if queued and wanted else reason

    def hold(self, at: int, packet: bytes, vlan: int | None, fate: Fate, now: float) -> Iterator[Settled]:
        """Fragment ``at`` met the agent; what is settled by it: (fragment, reason), or ``diverted``."""
        for one in self._held.add(decode_fragment(packet, vlan), at, fate, now):
            yield from _settled(one)

    def due(self, now: float) -> Iterator[Settled]:
        """What has waited for too long."""
        for one in self._held.due(now):
            yield from _settled(one)

    def flush(self) -> Iterator[Settled]:
        """The end: what is still held has waited in vain."""
        yield from ((at, "timeout") for one in self._held.flush() for at in one.packets)

    def _within_rate(self, fate: Fate, now_ns: int) -> bool:
        if now_ns - self._window_ns > WINDOW_NS:
            self._window_ns, self._asked = now_ns, dict.fromkeys(MOST, 0)
        self._asked[fate] += 1
        return self._asked[fate] <= MOST[fate]


def piece_key(tunnel: TunnelKey, ident: int) -> FragmentKey:
    """What the fragments of one datagram have in common."""
    return FragmentKey(tunnel.source, tunnel.destination, 17, ident, tunnel.vlan)


def _settled(one: Whole[int] | Released[int]) -> Iterator[Settled]:
    reason = one.reason if isinstance(one, Released) else _delivered(one)
    yield from ((at, reason) for at in one.packets)


def _delivered(whole: Whole[int]) -> str:
    try:
        _, packet = user_packet(whole.key, whole.payload)
    except DecodeError:
        return "not_a_gpdu"
    out = frames(1, packet, APPS_MTU, 0)
    return "diverted" if out.onward or out.back else "too_big"
