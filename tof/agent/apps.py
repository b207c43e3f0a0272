"""The life cycle of ME Apps: events in, what is to be done next for the app out.

What is next is derived from what is known of an app, never remembered: an app that is wanted is found, built, asked,
its services provisioned; one that is not, or whose last step failed, has its services withdrawn and is destroyed. So
whatever happens half-way, a crash of the agent included, the same derivation leads on from what is there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from tof.agent.app import App, AppFault, AppRow, AppState, AppView, Built, Restart, Step
from tof.errors import Conflict, NotFound

FIRST_WAIT_S, LONGEST_WAIT_S, SETTLED_S = 1.0, 60.0, 60.0
"""Before something is tried again; doubled each time; from the beginning again after an app has run for so long."""

FORWARD: Final = (Step.FIND, Step.BUILD, Step.PROBE, Step.PROVISION)
ABORTED: Final = (Step.BUILD, Step.PROBE, Step.PROVISION, Step.WAIT)
"""What is broken off when an app is not wanted any more, or has died."""


# Events


@dataclass(frozen=True, slots=True)
class Found:
    """Of an app that was known before the agent started: what the VIM has of it, and whether its services are in force.

    ``dead``: why it does not run, though there is something of it.
    """

    built: Built | None
    dead: str = ""
    served: bool = False


@dataclass(frozen=True, slots=True)
class Done:
    """The step succeeded; ``built``: of ``Step.BUILD``."""

    built: Built | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """The step did not succeed, and will not by itself."""

    message: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Aborted:
    """The step was broken off, and whatever it had begun is not known."""


@dataclass(frozen=True, slots=True)
class Unwanted:
    """Whoever asked for the app wants it no longer."""


@dataclass(frozen=True, slots=True)
class Lost:
    """The app has ended by itself, or is not what it was."""

    why: str


Event = Found | Done | Failed | Aborted | Unwanted | Lost


# Commands


@dataclass(frozen=True, slots=True)
class Do:
    """Carry out this step of an app and tell how it went; ``wait_s``: of ``Step.WAIT``."""

    name: str
    step: Step
    wait_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Abort:
    """Break off the step that is being carried out, and tell when it is."""

    name: str


Command = Do | Abort


@dataclass(slots=True)
class Life:
    """One app: what is known of it, and the step being carried out."""

    app: App
    began: float
    wanted: bool = True
    ready_once: bool = False
    looked: bool = True
    """Whether the VIM's idea of the app is known."""
    built: Built | None = None
    anything: bool = False
    """Whether the VIM may have anything of it."""
    answered: bool = False
    served: bool = False
    provisioned: bool = False
    """Whether any of its services may be."""
    undo: AppFault | None = None
    """Why everything is being undone."""
    fault: AppFault | None = None
    """What last went wrong."""
    restarts: int = 0
    waited: int = 0
    pause: bool = False
    doing: Step | None = None
    since: float = 0.0
    aborting: bool = False
    timings: dict[str, float] = field(default_factory=dict)

    @property
    def row(self) -> AppRow:
        """What has to be on disk before the next step begins."""
        return AppRow(self.app, self.wanted, self.ready_once, self.fault if self.over else None)

    @property
    def over(self) -> bool:
        """Whether it failed for good; nothing of it is left."""
        return self.undo is not None and not self._leaving_step and not self.comes_again and self.wanted

    @property
    def settled(self) -> bool:
        """Whether nothing is to be done for it until something happens."""
        return self.doing is None and (self.over or self.state is AppState.READY)

    @property
    def view(self) -> AppView:
        """The app as it is now."""
        times = tuple(self.timings.items())
        return AppView(self.app, self.state, self.doing, self.built, self.fault, self.restarts, times)

    @property
    def state(self) -> AppState:
        """In one word."""
        if not self.wanted:
            return AppState.TERMINATING
        if self.over:
            return AppState.FAILED
        if not self.looked:
            return AppState.REQUESTED
        if self.undo is not None or self.pause:
            return AppState.RESTARTING if self.ready_once and self.comes_again else AppState.UNDOING
        states = {Step.BUILD: AppState.BUILDING, Step.PROBE: AppState.PROBING, None: AppState.READY}
        states |= {Step.PROVISION: AppState.PROVISIONING}
        return states.get(self._forward_step, AppState.REQUESTED)

    @property
    def next_step(self) -> Step | None:
        """What is to be done; None if nothing is."""
        if self.pause:
            return Step.WAIT
        if not self.wanted:
            return self._leaving_step or Step.FORGET
        if self.undo is not None:
            return self._leaving_step
        return self._forward_step

    @property
    def wait_s(self) -> float:
        """For how long to wait before what failed is tried again."""
        return float(min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** min(self.waited, 10)))

    @property
    def _forward_step(self) -> Step | None:
        if not self.looked:
            return Step.FIND
        if self.built is None:
            return Step.BUILD
        if not self.answered:
            return Step.PROBE
        return None if self.served else Step.PROVISION

    @property
    def _leaving_step(self) -> Step | None:
        if self.provisioned:
            return Step.WITHDRAW
        return Step.DESTROY if self.anything else None

    @property
    def comes_again(self) -> bool:
        """Whether it is started again after it has ended."""
        return self.ready_once and self.app.restart is Restart.ALWAYS


class Apps:
    """Every app by name; ``handle`` and ``request`` answer what is to be done next for the one concerned."""

    def __init__(self) -> None:
        self._lives: dict[str, Life] = {}
        self.restarts = 0

    def __iter__(self) -> Iterator[Life]:
        return iter([self._lives[name] for name in sorted(self._lives)])

    def get(self, name: str) -> Life:
        """The app called ``name``, or NotFound."""
        if name not in self._lives:
            raise NotFound(f"there is no app called {name}", "name")
        return self._lives[name]

    def request(self, app: App, now: float) -> list[Command]:
        """An app is asked for: Conflict if there is another one of that name; one that failed for good begins anew."""
        life = self._lives.get(app.name)
        if life is not None and not life.over:
            if not life.wanted:
                raise Conflict(f"{app.name} is being removed: wait until it is gone", "name")
            if life.app != app:
                raise Conflict(f"there is another app called {app.name}: delete it first", "name")
            return []
        self._lives[app.name] = life = Life(app, now)
        return self._go_on(life, now)

    def recall(self, row: AppRow, now: float) -> list[Command]:
        """An app of an earlier agent, in whatever state that left it."""
        life = Life(row.app, now, row.wanted, row.ready)
        self._lives[row.app.name] = life
        if row.fault is not None:
            life.undo = life.fault = row.fault
            life.ready_once = False
            return []
        life.looked, life.anything, life.provisioned = not row.wanted, True, True
        return self._go_on(life, now)

    def handle(self, name: str, event: Event, now: float) -> list[Command]:
        """What happened to an app."""
        life = self.get(name)
        match event:
            case Unwanted():
                life.wanted = False
                return self._break_off(life, now)
            case Lost(why):
                return self._lost(life, why, now)
            case Found():
                self._found(life, event)
            case Done():
                self._done(life, event, now)
            case Failed():
                self._failed(life, event)
            case _:
                pass  # broken off: what it had begun is undone
        life.doing, life.aborting = None, False
        if life.state is AppState.READY and not life.ready_once:
            life.ready_once = True
        return self._go_on(life, now)

    def forget(self, name: str) -> None:
        """Nothing is left of the app, on disk either."""
        del self._lives[name]

    def _go_on(self, life: Life, now: float) -> list[Command]:
        if life.undo is not None and life.next_step is None and life.comes_again:
            life.undo, life.pause = None, True
        step = life.next_step
        if step is None:
            return []
        if step is Step.BUILD:
            life.anything, life.began, life.timings = True, now, {}
        life.provisioned |= step is Step.PROVISION
        life.doing, life.since = step, now
        return [Do(life.app.name, step, life.wait_s if step is Step.WAIT else 0.0)]

    def _break_off(self, life: Life, now: float) -> list[Command]:
        if life.doing is None:
            life.pause = False
            return self._go_on(life, now)
        if life.doing not in ABORTED or life.aborting:
            return []
        life.aborting, life.pause = True, False
        return [Abort(life.app.name)]

    def _lost(self, life: Life, why: str, now: float) -> list[Command]:
        if life.built is None or life.undo is not None or not life.wanted:
            return []
        self._to_undo(life, AppFault(Step.RUN, why, "see what it wrote last, and start it by hand"), now)
        return self._break_off(life, now)

    def _to_undo(self, life: Life, fault: AppFault, now: float) -> None:
        life.undo = life.fault = fault
        if life.ready_once:
            life.restarts += 1
            self.restarts += 1
            life.waited = 0 if now - life.began > SETTLED_S else life.waited

    def _found(self, life: Life, event: Found) -> None:
        life.looked = True
        if event.built is not None and not event.dead:
            life.built = event.built if life.ready_once else None
            life.answered = life.served = life.ready_once and event.served
        elif life.ready_once:
            why = event.dead or "it was gone when the agent started"
            self._to_undo(life, AppFault(Step.RUN, why, ""), life.began)

    def _done(self, life: Life, event: Done, now: float) -> None:
        step = life.doing
        assert step is not None
        life.timings[step.value] = now - life.since
        match step:
            case Step.BUILD:
                life.built = event.built
                for phase, seconds in event.built.timings if event.built else ():
                    life.timings[f"build.{phase}"] = seconds
            case Step.PROBE:
                life.answered = True
            case Step.PROVISION:
                life.served, life.fault = True, None
                life.timings["total"] = now - life.began
            case Step.WITHDRAW:
                life.provisioned = life.served = False
            case Step.DESTROY:
                life.anything, life.built, life.answered = False, None, False
            case _:
                life.pause = False
                life.waited += 1

    def _failed(self, life: Life, event: Failed) -> None:
        step = life.doing
        assert step is not None
        life.fault = AppFault(step, event.message, event.hint)
        if step in (Step.BUILD, Step.PROBE, Step.PROVISION):
            life.undo = life.undo or life.fault
        else:
            life.pause = True
