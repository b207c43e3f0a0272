"""Which applications live: what their probes said, in a row."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tof.model import Mode, Service


@dataclass(slots=True)
class _State:
    service: Service
    alive: bool
    asked: bool
    streak: int = 0
    """Probes in a row that spoke against ``alive``."""


class Health:
    """An application that nobody has asked yet is dead; the first answer is enough to begin with."""

    def __init__(self) -> None:
        self._states: dict[str, _State] = {}
        self._inherited: set[str] = set()

    def inherit(self, names: Iterable[str]) -> None:
        """Services that were being diverted when the agent started: their applications live until a probe says no."""
        self._inherited = set(names)

    def keep(self, services: Iterable[Service]) -> None:
        """Watch these, those without a check and shadows aside; a service that is not what it was begins anew."""
        wanted = {s.name: s for s in services if s.health is not None and s.mode is Mode.DIVERT}
        known, self._states = self._states, {}
        for name, service in wanted.items():
            state = known.get(name)
            if state is None or _watched(state.service) != _watched(service):
                state = _State(service, name in self._inherited, asked=name in self._inherited)
                self._inherited.discard(name)
            state.service = service
            self._states[name] = state

    def lives(self, name: str) -> bool:
        """Whether the application behind this service answers, or nobody asks it."""
        state = self._states.get(name)
        return state is None or state.alive

    def asked(self, name: str) -> bool:
        """Whether the first probe has been answered or given up, or there is none."""
        state = self._states.get(name)
        return state is None or state.asked

    def checked(self, name: str, *, answered: bool) -> bool:
        """A probe is over; whether its application lives now and did not before, or the other way round."""
        state = self._states.get(name)
        if state is None or state.service.health is None:
            return False
        first, state.asked = not state.asked, True
        if answered == state.alive:
            state.streak = 0
            return False
        state.streak += 1
        check = state.service.health
        if state.streak < (check.fall if state.alive else 1 if first else check.rise):
            return False
        state.alive, state.streak = answered, 0
        return True


def _watched(service: Service) -> tuple[object, ...]:
    return service.application_ip, service.application_port, service.selection, service.health
