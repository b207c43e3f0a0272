"""A capture explained: frame by frame, then by flow."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from tof.agent.reassembly import Fate
from tof.explain.judging import BRIDGED, Judge
from tof.explain.pieces import PIECE_NS, Pieces, piece_key
from tof.explain.reading import Kind, Reading, read
from tof.explain.words import Explanation, Outcome, Verdict
from tof.lab.capture import Frame
from tof.lab.verdict import Sent
from tof.model import Direction, Service, Side, TunnelKey
from tof.wire import inet
from tof.wire.fragment import FragmentKey

_HEADER: Final = 14
_ENOUGH: Final = 96
"""So much of a frame tells whether it is GTP-U."""


@dataclass(frozen=True, slots=True)
class Flow:
    """The frames of one 5-tuple in one tunnel that met the same fate."""

    first: Explanation
    last: int
    count: int


def explain(sent: Iterable[Sent], services: Iterable[Service]) -> list[Explanation]:
    """What becomes of each frame, in their order."""
    story = _Story(services)
    for item in sent:
        story.frame(item)
    story.end()
    return story.told


def flows(explanations: Iterable[Explanation]) -> list[Flow]:
    """The frames by tunnel, 5-tuple and outcome, in the order in which these appeared."""
    found: dict[object, list[Explanation]] = {}
    for one in explanations:
        found.setdefault(_flow_key(one), []).append(one)
    return [Flow(members[0], members[-1].number, len(members)) for members in found.values()]


def _flow_key(one: Explanation) -> object:
    user, outcome = one.user, one.outcome
    five = user and (user.source, user.destination, user.protocol, user.ports)
    service = outcome.service and outcome.service.name
    return one.side, one.direction, one.tunnel, one.qfi, five, outcome.verdict, outcome.reason, service


class _Story:
    def __init__(self, services: Iterable[Service]) -> None:
        self.told: list[Explanation] = []
        self._judge = Judge(services)
        self._path = self._judge.path
        self._pieces = Pieces()
        self._firsts: dict[FragmentKey, tuple[int, int]] = {}
        self._stations: dict[tuple[bytes, int | None], Side] = {}
        self._began_ns: int | None = None

    def frame(self, item: Sent) -> None:
        """One more frame."""
        if self._began_ns is None:
            self._began_ns = item.frame.time_ns
        self._path.now_ns = max(self._path.now_ns, item.frame.time_ns - self._began_ns)
        self._path.tick()
        self._settle(self._pieces.due(self._path.now))
        data, seen = _whole(item.frame)
        stays = self._stays(data, item.side)
        if seen is None:
            self._tell(item, Reading(), Outcome(Verdict.CUT, "cut"))
        elif seen.key is not None and seen.kind in (Kind.FRAGMENT, Kind.PIECE):
            self._piece(item, seen, seen.key, data)
        elif stays and seen.kind in (Kind.GPDU, Kind.SIGNAL) and not self._known(seen):
            self._tell(item, seen, Outcome(Verdict.PASSES, "same_side"))
        else:
            self._tell(item, seen, self._judge.whole(seen, item.side, data))

    def end(self) -> None:
        """Nothing more comes."""
        self._settle(self._pieces.flush())

    def _known(self, seen: Reading) -> bool:
        return seen.kind is Kind.GPDU and seen.key is not None and self._path.tunnel(seen.key) is not None

    def _stays(self, data: bytes, side: Side) -> bool:
        """Learn where the sender is; whether the receiver is on the same side, so that the frame does not cross.

        A capture of a loopback adapter, where all are at one address, says nothing of that.
        """
        if len(data) <= _HEADER or data[:6] == data[6:12]:
            return False
        vlan = inet.decode_ethernet(data.ljust(64, b"\0")).vlan
        if not data[6] & 1:
            self._stations[data[6:12], vlan] = side
        return self._stations.get((data[:6], vlan)) is side

    def _tell(self, item: Sent, seen: Reading, outcome: Outcome) -> None:
        direction = None
        if seen.user is not None and seen.key is not None:
            record = self._path.tunnel(seen.key)
            by_side = Direction.UPLINK if item.side is Side.ENB else Direction.DOWNLINK
            direction = by_side if record is None else record.direction
        self.told.append(
            Explanation(item.frame.number, item.side, outcome, seen.key, direction, seen.qfi, seen.user)
        )

    def _piece(self, item: Sent, seen: Reading, tunnel: TunnelKey, data: bytes) -> None:
        key, at, outcome, fate = piece_key(tunnel, seen.ident), len(self.told), BRIDGED, Fate.PASS
        if seen.user is not None:
            self._firsts[key] = at, self._path.now_ns
            outcome, fate = self._judge.first(tunnel, seen.user, item.side, data)
        self._tell(item, seen, outcome)
        first, since_ns = self._firsts.get(key, (at, 0))
        if self._path.now_ns - since_ns < PIECE_NS:
            self._follow(at, first)
        if item.side is Side.ENB and self._path.services:
            self._queue(at, key, seen, fate, data)

    def _queue(self, at: int, key: FragmentKey, seen: Reading, fate: Fate, data: bytes) -> None:
        """The agent may reassemble it."""
        queued = self._pieces.queue(key, seen.part, fate, len(data), self._path.now_ns)
        if isinstance(queued, str):
            self._settle([(at, queued)] if queued != BRIDGED.reason else [])
            return
        if queued is Fate.UNDECIDED and seen.user is not None and seen.key is not None:
            learnt, queued = self._judge.learn_first(seen.key, data)
            self._change(at, learnt=learnt)
        ethernet = inet.decode_ethernet(data)
        self._settle(self._pieces.hold(at, ethernet.payload, ethernet.vlan, queued, self._path.now))

    def _settle(self, settled: Iterable[tuple[int, str]]) -> None:
        """What became of fragments that took the queue: of one datagram, or of several that waited in vain."""
        decided = list(settled)
        first = next((at for at, _ in decided if self.told[at].user is not None), 0)
        for at, reason in decided:
            if reason != "passed":
                self._change(at, reason=reason)
            if reason == "diverted":
                self._change(at, verdict=Verdict.DIVERTED)
            if reason in ("diverted", "passed"):
                self._follow(at, first)

    def _change(self, at: int, **changes: object) -> None:
        one = self.told[at]
        self.told[at] = replace(one, outcome=one.outcome._replace(**changes))  # type: ignore[arg-type]

    def _follow(self, at: int, first: int) -> None:
        """A later fragment is of the tunnel and the flow of its first one."""
        one, shown = self.told[at], self.told[first]
        if one.user is None and shown.user is not None:
            self.told[at] = replace(
                shown,
                number=one.number,
                side=one.side,
                outcome=one.outcome._replace(service=shown.outcome.service),
            )


def _whole(frame: Frame) -> tuple[bytes, Reading | None]:
    """The frame at its length on the wire, and what it is; None: what its capture cut off would have to be known."""
    if not frame.cut:
        return frame.data, read(frame.data)
    zeros, ones = (frame.data.ljust(frame.original_length, filler) for filler in (b"\0", b"\xff"))
    seen = read(zeros)
    uncertain = seen.kind is Kind.SIGNAL or (seen.kind is Kind.OTHER and len(frame.data) < _ENOUGH)
    return zeros, None if uncertain or seen != read(ones) else seen
