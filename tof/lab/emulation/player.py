"""Laboratory: a scenario as a sequence of waits, moved on by time and by frames; no input or output."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import NamedTuple

from tof.lab.emulation.bearers import Exchange
from tof.lab.emulation.network import Network

PATIENCE_S = 2.5
"""How long an answer may take; two rounds of a Pinger that asks every second."""
QUIET_S = 0.5


class Wait(NamedTuple):
    """Go on as soon as ``met``, or when ``within_s`` is over; what was not met, the checks tell."""

    met: Callable[[], bool]
    within_s: float


Script = Generator[Wait, None, None]
Scenario = Callable[[Network], Script]


def pause(seconds: float) -> Wait:
    """Let time pass."""
    return Wait(lambda: False, seconds)


def answers(*exchanges: Exchange, within_s: float = PATIENCE_S) -> Wait:
    """All of these are answered."""
    return Wait(lambda: all(exchange.answered for exchange in exchanges), within_s)


def arrivals(*exchanges: Exchange) -> Wait:
    """All of these are with the application or the core."""
    return Wait(lambda: all(exchange.reached for exchange in exchanges), QUIET_S)


def quiet(net: Network) -> Wait:
    """All that is under way has come out."""
    return Wait(lambda: not net.ledger.in_flight, QUIET_S)


class Player:
    """Plays a script over a network; ask ``wake_at`` when to call ``advance`` at the latest."""

    def __init__(self, net: Network, script: Script, now: float) -> None:
        self.net = net
        net.now = now
        self._script = script
        self._wait: Wait | None = next(script, None)
        self._deadline = now + (self._wait.within_s if self._wait else 0.0)

    @property
    def done(self) -> bool:
        """Whether the script is at its end."""
        return self._wait is None

    @property
    def wake_at(self) -> float:
        """When time alone moves something."""
        due = self.net.wake_at
        return self._deadline if due is None else min(due, self._deadline)

    def advance(self, now: float) -> None:
        """Go on as far as can be; frames to send are in the network's outbox."""
        self.net.tick(now)
        while self._wait is not None and (self._wait.met() or now >= self._deadline):
            self._wait = next(self._script, None)
            self._deadline = now + (self._wait.within_s if self._wait else 0.0)
