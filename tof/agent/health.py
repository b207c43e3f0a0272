"""Which applications live: what their probes said, in a row."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from tof.model import IpAddress, Mode, Service

Application = tuple[str, IpAddress]
"""Of a service, by its name."""
Inherited = tuple[str, IpAddress | None]
"""The same, None being the service's first application."""


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
        self._states: dict[Application, _State] = {}
        self._inherited: set[Inherited] = set()

    def inherit(self, applications: Iterable[Inherited]) -> None:
        """Applications that were being diverted to when the agent started: they live until a probe says no."""
        self._inherited = set(applications)

    def keep(self, services: Collection[Service]) -> None:
        """Watch these, those without a check and shadows aside; a service that is not what it was begins anew."""
        wanted = {
            (s.name, application): s
            for s in services
            if s.health is not None and s.mode is Mode.DIVERT
            for application in s.applications
        }
        known, self._states = self._states, {}
        for application, service in wanted.items():
            state = known.get(application)
            if state is None or _watched(state.service) != _watched(service):
                place = service.name, None if application[1] == service.application_ip else application[1]
                inherited = place in self._inherited
                state = _State(service, inherited, asked=inherited)
            state.service = service
            self._states[application] = state
        if self._inherited:
            present = {service.name for service in services}
            self._inherited = {place for place in self._inherited if place[0] not in present}

    def lives(self, name: str, application: IpAddress) -> bool:
        """Whether this application of the service answers, or nobody asks it."""
        state = self._states.get((name, application))
        return state is None or state.alive

    def asked(self, name: str, application: IpAddress) -> bool:
        """Whether the first probe has been answered or given up, or there is none."""
        state = self._states.get((name, application))
        return state is None or state.asked

    def checked(self, name: str, application: IpAddress, *, answered: bool) -> bool:
        """A probe is over; whether its application lives now and did not before, or the other way round."""
        state = self._states.get((name, application))
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
    return service.application_port, service.selection, service.health
