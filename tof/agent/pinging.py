"""The Pinger's schedule: which uplink tunnels are asked for an answer, when, and under which token.

The 64-bit token in an echo request comes back in the reply: it says which uplink tunnel the downlink tunnel that
carries it belongs to, and that the reply is ours and not the UE's.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum

GRACE_S = 10.0
"""A reply that comes this late after the last request is still ours, and still not the UE's to see."""

URGENCY = 0.2
"""The share of the configured interval at which requests about doubts follow each other."""
WAITING = 65536
"""Tunnels that wait for their turn without haste; the oldest are given up, and asked for again when they matter."""


_Key = tuple[int, int]
_FAMILIES = (4, 16)


class Haste(IntEnum):
    """What depends on the answer: nothing yet, frames that wait for it, whether somebody's frames may be delivered."""

    NONE = 0
    AWAITED = 1
    IN_DOUBT = 2


@dataclass(frozen=True, slots=True)
class PingPolicy:
    """How often and how long to ask, and how many tunnels at once (bounds the source-rewrite flows)."""

    targets: tuple[bytes, ...]
    interval_s: float = 1.0
    attempts: int = 5
    at_once: int = 256

    def target_for(self, ue: bytes) -> bytes | None:
        """The first target of the UE's address family."""
        return next((target for target in self.targets if len(target) == len(ue)), None)


@dataclass(slots=True, eq=False)
class Ping:
    """One uplink tunnel being asked on behalf of the exact address ``ue``."""

    index: int
    ue: bytes
    target: bytes
    token: int
    sequence: int = 0
    next_at: float = 0.0
    haste: Haste = Haste.NONE
    answered: bool = False

    @property
    def key(self) -> _Key:
        """What it is asked about: the tunnel and the address family, of which its UE may have both."""
        return self.index, len(self.ue)


class Pinging:
    """Tunnels that wait for their turn, tunnels that are being asked, and tokens that may still come back."""

    def __init__(self, policy: PingPolicy, tokens: Iterator[int]) -> None:
        self._policy, self._tokens = policy, tokens
        self._hasty: OrderedDict[_Key, Ping] = OrderedDict()
        self._calm: OrderedDict[_Key, Ping] = OrderedDict()
        self._queues = (True, self._hasty), (False, self._calm)
        self._active: dict[_Key, Ping] = {}
        self._by_token: dict[int, Ping] = {}
        self._inherited: frozenset[int] = frozenset()
        self._late: deque[tuple[float, int]] = deque()
        self.changes = 0
        """Grows whenever ``active`` changes."""
        self.unanswered: list[Ping] = []
        """Asked in vain; for whoever calls ``due`` to take."""

    @property
    def active(self) -> tuple[Ping, ...]:
        """The tunnels being asked now: each has its source-rewrite flow on br-ue."""
        return tuple(self._active.values())

    @property
    def wake_at(self) -> float | None:
        """When ``due`` or ``late`` has something to say."""
        times = [ping.next_at for ping in self._active.values()]
        if any(queue and self._room(hasty) for hasty, queue in self._queues):
            times.append(0.0)
        if self._late:
            times.append(self._late[0][0])
        return min(times, default=None)

    def inherit(self, tokens: Iterable[int]) -> None:
        """Replies with these tokens answer an earlier agent: nothing is learnt from them, and no UE sees them."""
        self._inherited = frozenset(tokens)

    def may_ask(self, ue: bytes) -> bool:
        """Whether there is a target of the address's family."""
        return self._policy.target_for(ue) is not None

    def pending(self, index: int, ue: bytes) -> bool:
        """Whether a question through uplink tunnel ``index`` about ``ue``'s address family waits or is under way."""
        return self._of((index, len(ue))) is not None

    def asked(self, index: int) -> bool:
        """Whether a request went out through ``index`` and is not answered yet."""
        return any(ping.sequence > 0 for ping in self._under_way(index))

    def _under_way(self, index: int) -> list[Ping]:
        found = (self._active.get((index, family)) for family in _FAMILIES)
        return [ping for ping in found if ping is not None]

    def ask(self, index: int, ue: bytes, now: float, haste: Haste = Haste.NONE) -> None:
        """Ask through uplink tunnel ``index`` for ``ue``, unless that is under way or there is no target for it."""
        key = index, len(ue)
        target, old = self._policy.target_for(ue), self._of(key)
        if target is None:
            return
        if old is None or old.ue != ue:
            self._withdraw(key, now)
            ping = Ping(index, ue, target, next(self._tokens), haste=haste)
            self._by_token[ping.token] = ping
            self._enqueue(ping, now)
        elif haste > old.haste:
            old.haste = haste
            old.next_at = min(old.next_at, now)
            if self._calm.pop(key, None) is not None:
                self._hasty[key] = old

    def _enqueue(self, ping: Ping, now: float) -> None:
        if ping.haste:
            self._hasty[ping.key] = ping
            return
        if len(self._calm) >= WAITING:
            self._retire(self._calm.popitem(last=False)[1], now)
        self._calm[ping.key] = ping

    def recognises(self, token: int) -> bool:
        """Whether ``token`` is the Pinger's."""
        return token in self._by_token or token in self._inherited

    def answered(self, token: int) -> Ping | None:
        """The ping that ``token`` answers, if it is one of ours."""
        return self._by_token.get(token)

    def again(self, index: int, now: float) -> None:
        """The way changed while ``index`` is being asked: do not wait for the next attempt's turn."""
        for ping in self._under_way(index):
            ping.next_at = now

    def stop(self, index: int, now: float, families: Iterable[int] = _FAMILIES) -> None:
        """Nothing more to ask through ``index``, or not about addresses of these lengths."""
        for family in families:
            key = index, family
            self._withdraw(key, now)
            if key in self._active:
                self._retire(self._active.pop(key), now)
                self.changes += 1

    def due(self, now: float) -> list[Ping]:
        """The requests to send now, each counted as an attempt; tunnels out of attempts are left alone."""
        for ping in self.active:
            if ping.next_at <= now and ping.sequence >= self._policy.attempts:
                self._retire(self._active.pop(ping.key), now)
                self.changes += 1
                if not ping.answered:
                    self.unanswered.append(ping)
        for hasty, queue in self._queues:
            # The newest have the room: after a flood of invented tunnels nobody has to wait for all of them.
            newest = [queue.popitem() for _ in range(min(len(queue), self._room(hasty)))]
            for key, ping in reversed(newest):
                self._retire(self._active.pop(key, None), now)
                self._active[key] = ping
                self.changes += 1
        sending = [ping for ping in self._active.values() if ping.next_at <= now]
        for ping in sending:
            ping.sequence += 1
            ping.next_at = now + self._pace(ping)
        return sending

    def late(self, now: float) -> list[int]:
        """Tokens whose grace is over."""
        gone: list[int] = []
        while self._late and self._late[0][0] <= now:
            token = self._late.popleft()[1]
            self._by_token.pop(token, None)
            gone.append(token)
        return gone

    def _of(self, key: _Key) -> Ping | None:
        return self._hasty.get(key) or self._calm.get(key) or self._active.get(key)

    def _room(self, hasty: bool) -> int:
        """How many more of a kind may be asked at once: neither takes the other's share.

        A calm one that comes to be hasty while it is asked gives its place up for no other.
        """
        most, active = self._policy.at_once, self._active.values()
        return min(most - sum(bool(ping.haste) is hasty for ping in active), 2 * most - len(active))

    def _pace(self, ping: Ping) -> float:
        return self._policy.interval_s * (URGENCY if ping.haste is Haste.IN_DOUBT else 1.0)

    def _withdraw(self, key: _Key, now: float) -> None:
        for _, queue in self._queues:
            self._retire(queue.pop(key, None), now)

    def _retire(self, ping: Ping | None, now: float) -> None:
        if ping is not None and ping.sequence:
            self._late.append((now + GRACE_S, ping.token))
        elif ping is not None:
            del self._by_token[ping.token]  # nobody has seen it
