"""Application instances as ETSI MEC 010-2 has them, and what becomes of them: values and decisions.

The app of an instance is one of ``POST /apps``, called by the instance's identifier; there is no second life cycle. What
has become of an operation is derived from that app as it is now.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from tof.agent.app import App, AppFault, AppState, AppView
from tof.errors import Conflict


class Power(StrEnum):
    """What an instance is: without its app, with it running, or instantiated with nothing of it running."""

    NOT_INSTANTIATED = "NOT_INSTANTIATED"
    STARTED = "STARTED"
    STOPPED = "STOPPED"


class Operation(StrEnum):
    """What is asked of an instance."""

    INSTANTIATE = "INSTANTIATE"
    OPERATE = "OPERATE"
    TERMINATE = "TERMINATE"


class Phase(StrEnum):
    """How far an operation is: ``STARTING`` until the core has accepted it."""

    STARTING = "STARTING"
    PROCESSING = "PROCESSING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True)
class Descriptor:
    """What an ``appDId`` means; the name of ``app`` is a placeholder."""

    id: str
    provider: str
    name: str
    software: str
    version: str
    app: App


@dataclass(frozen=True, slots=True)
class Instance:
    """An application instance, with the descriptor as it was when the instance was created."""

    id: str
    descriptor: Descriptor
    name: str | None = None
    description: str | None = None
    power: Power = Power.NOT_INSTANTIATED

    @property
    def app(self) -> App:
        """What is asked of the core."""
        return replace(self.descriptor.app, name=self.id)

    def on(self, vim: str | None) -> Instance:
        """The same one, its app on that VIM if one is given."""
        if vim is None:
            return self
        return replace(self, descriptor=replace(self.descriptor, app=replace(self.descriptor.app, vim=vim)))


@dataclass(frozen=True, slots=True)
class Occurrence:
    """An operation on an instance, which is to bring it to ``target``; times in seconds since 1970."""

    id: str
    instance: str
    operation: Operation
    target: Power
    started: float
    entered: float
    phase: Phase = Phase.STARTING
    detail: str = ""
    """Why it fails, or has failed."""

    @property
    def over(self) -> bool:
        """Whether nothing more becomes of it."""
        return self.phase in (Phase.COMPLETED, Phase.FAILED)

    def at(self, phase: Phase, now: float, detail: str = "") -> Occurrence:
        """The same one, further on."""
        return replace(self, phase=phase, entered=now, detail=detail or self.detail)

    @property
    def left_at(self) -> Power:
        """What an instance is when this operation has failed; only what is to start can."""
        return Power.NOT_INSTANTIATED if self.operation is Operation.INSTANTIATE else Power.STOPPED


class Next(StrEnum):
    """What is to be done about an operation: wait, note why it fails, remove what failed, or call it done or failed."""

    WAIT = "wait"
    NOTE = "note"
    REMOVE = "remove"
    DONE = "done"
    FAIL = "fail"


GONE = "its app has been removed by another request"
ALLOWED: Mapping[tuple[Operation, Power], tuple[Power, ...]] = {
    (Operation.INSTANTIATE, Power.STARTED): (Power.NOT_INSTANTIATED,),
    (Operation.OPERATE, Power.STARTED): (Power.STOPPED,),
    (Operation.OPERATE, Power.STOPPED): (Power.STARTED,),
    (Operation.TERMINATE, Power.NOT_INSTANTIATED): (Power.STARTED, Power.STOPPED),
}
"""What an instance has to be for an operation and its target."""


def check_allowed(instance: Instance, operation: Operation, target: Power) -> None:
    """Conflict if the instance is not what the operation is for."""
    if instance.power not in ALLOWED[operation, target]:
        raise Conflict(f"{operation} is not possible: the application instance is {instance.power}")


def next_of(occurrence: Occurrence, view: AppView | None) -> Next:
    """What is to be done about an operation that the core has accepted, its app being so."""
    if occurrence.target is not Power.STARTED:
        return Next.DONE if view is None else Next.WAIT
    if view is None:
        return Next.FAIL
    if view.state is AppState.FAILED:
        return Next.REMOVE if occurrence.detail else Next.NOTE
    return Next.DONE if view.state is AppState.READY else Next.WAIT


def reason(fault: AppFault | None) -> str:
    """Why an app failed, in one line."""
    if fault is None:
        return "its app failed"
    return f"{fault.step.value}: {fault.message}" + (f"; {fault.hint}" if fault.hint else "")


def power_of(instance: Instance, view: AppView | None) -> Power:
    """What an instance is that no operation is about: its app may have failed for good, or been removed by others."""
    gone = view is None or view.state in (AppState.FAILED, AppState.TERMINATING)
    return Power.STOPPED if instance.power is Power.STARTED and gone else instance.power
