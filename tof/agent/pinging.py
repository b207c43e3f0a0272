"""The Pinger's schedule: which uplink tunnels are asked for an answer, when, and under which token.

The 64-bit token in an echo request comes back in the reply: it says which uplink tunnel the downlink tunnel that
carries it belongs to, and that the reply is ours and not the UE's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

GRACE_S = 10.0
"""A reply that comes this late after the last request is still ours, and still not the UE's to see."""

URGENCY = 0.2
"""The share of the configured interval at which urgent requests follow each other."""


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
    urgent: bool = False
    answered: bool = False


class Pinging:
    """Tunnels that wait for their turn, tunnels that are being asked, and tokens that may still come back."""

    def __init__(self, policy: PingPolicy, tokens: Iterator[int]) -> None:
        self._policy, self._tokens = policy, tokens
        self._waiting: dict[int, Ping] = {}
        self._active: dict[int, Ping] = {}
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
        if self._waiting and len(self._active) < self._policy.at_once:
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

    def pending(self, index: int) -> bool:
        """Whether uplink tunnel ``index`` waits or is being asked."""
        return index in self._waiting or index in self._active

    def asked(self, index: int) -> bool:
        """Whether a request went out through ``index`` and is not answered yet."""
        ping = self._active.get(index)
        return ping is not None and ping.sequence > 0

    def ask(self, index: int, ue: bytes, now: float, *, urgent: bool = False) -> int | None:
        """Ask through uplink tunnel ``index`` for ``ue``; the new token, None if that is under way or cannot be.

        ``urgent``: something waits for the answer, or for its absence: attempts follow each other faster.
        """
        target = self._policy.target_for(ue)
        old = self._waiting.get(index) or self._active.get(index)
        if target is None or (old is not None and old.ue == ue):
            return None
        self._retire(self._waiting.pop(index, None), now)
        token = next(self._tokens)
        self._waiting[index] = self._by_token[token] = Ping(index, ue, target, token, urgent=urgent)
        return token

    def recognises(self, token: int) -> bool:
        """Whether ``token`` is the Pinger's."""
        return token in self._by_token or token in self._inherited

    def answered(self, token: int) -> Ping | None:
        """The ping that ``token`` answers, if it is one of ours."""
        return self._by_token.get(token)

    def stop(self, index: int, now: float) -> None:
        """Nothing more to ask through ``index``."""
        self._retire(self._waiting.pop(index, None), now)
        if index in self._active:
            self._retire(self._active.pop(index), now)
            self.changes += 1

    def due(self, now: float) -> list[Ping]:
        """The requests to send now, each counted as an attempt; tunnels out of attempts are left alone."""
        for ping in self.active:
            if ping.next_at <= now and ping.sequence >= self._policy.attempts:
                self._retire(self._active.pop(ping.index), now)
                self.changes += 1
                if not ping.answered:
                    self.unanswered.append(ping)
        while self._waiting and len(self._active) < self._policy.at_once:
            index = next(iter(self._waiting))
            self._retire(self._active.pop(index, None), now)
            self._active[index] = self._waiting.pop(index)
            self.changes += 1
        sending = [ping for ping in self._active.values() if ping.next_at <= now]
        for ping in sending:
            ping.sequence += 1
            ping.next_at = now + self._policy.interval_s * (URGENCY if ping.urgent else 1.0)
        return sending

    def late(self, now: float) -> list[int]:
        """Tokens whose grace is over."""
        gone: list[int] = []
        while self._late and self._late[0][0] <= now:
            token = self._late.popleft()[1]
            self._by_token.pop(token, None)
            gone.append(token)
        return gone

    def _retire(self, ping: Ping | None, now: float) -> None:
        if ping is not None:
            self._late.append((now + GRACE_S, ping.token))
