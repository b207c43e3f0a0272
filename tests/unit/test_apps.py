"""The life cycle of ME Apps: what comes next, whatever happens."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tof.agent.app import App, AppFault, AppRow, AppState, Built, Restart, Step
from tof.agent.apps import (
    FIRST_WAIT_S,
    LONGEST_WAIT_S,
    SETTLED_S,
    Abort,
    Aborted,
    Apps,
    Command,
    Do,
    Done,
    Event,
    Failed,
    Found,
    Lost,
    Unwanted,
)
from tof.errors import Conflict, NotFound

ADDRESS = ip_address("192.168.50.128")
BUILT = Built((ADDRESS,), ADDRESS, "x", (("start", 0.25),))
WEB = App("web", command=("/bin/web",))
ONCE = replace(WEB, restart=Restart.NEVER)


class World:
    """The life cycle with a clock that goes on by one second a step."""

    def __init__(self) -> None:
        self.apps, self.now = Apps(), 0.0

    def tell(self, event: Event) -> list[Command]:
        self.now += 1
        return self.apps.handle("web", event, self.now)

    def request(self, app: App = WEB) -> list[Command]:
        return self.apps.request(app, self.now)

    def ready(self, app: App = WEB) -> None:
        assert self.request(app) == [do(Step.BUILD)]
        assert self.tell(Done(BUILT)) == [do(Step.PROBE)]
        assert self.tell(Done()) == [do(Step.PROVISION)]
        assert self.tell(Done()) == []
        assert self.state is AppState.READY

    @property
    def state(self) -> AppState:
        return self.apps.get("web").state

    @property
    def fault(self) -> AppFault | None:
        return self.apps.get("web").view.fault


def do(step: Step, wait_s: float = 0.0) -> Do:
    return Do("web", step, wait_s)


@pytest.fixture
def world() -> World:
    return World()


def test_an_app_is_built_asked_and_provisioned(world: World) -> None:
    assert world.request() == [do(Step.BUILD)]
    assert world.state is AppState.BUILDING
    assert world.tell(Done(BUILT)) == [do(Step.PROBE)]
    assert world.state is AppState.PROBING
    assert world.apps.get("web").view.built == BUILT
    assert world.tell(Done()) == [do(Step.PROVISION)]
    assert world.state is AppState.PROVISIONING
    assert not world.apps.get("web").row.ready
    assert world.tell(Done()) == []
    life = world.apps.get("web")
    assert (life.state, life.settled, life.row) == (AppState.READY, True, AppRow(WEB, ready=True))
    assert life.timings == {"build": 1, "build.start": 0.25, "probe": 1, "provision": 1, "total": 3}
    assert [one.app.name for one in world.apps] == ["web"]


def test_the_same_app_again_is_the_same(world: World) -> None:
    world.ready()
    assert world.request() == []
    with pytest.raises(Conflict, match="another app called web"):
        world.request(ONCE)
    world.tell(Unwanted())
    with pytest.raises(Conflict, match="being removed"):
        world.request()


def test_deleting_withdraws_first(world: World) -> None:
    world.ready()
    assert world.tell(Unwanted()) == [do(Step.WITHDRAW)]
    assert world.state is AppState.TERMINATING
    assert not world.apps.get("web").row.wanted
    assert world.tell(Unwanted()) == [], "it is being done"
    assert world.tell(Done()) == [do(Step.DESTROY)]
    assert world.tell(Done()) == [do(Step.FORGET)]
    world.apps.forget("web")
    with pytest.raises(NotFound):
        world.apps.get("web")


@pytest.mark.parametrize("done", [0, 1, 2])
def test_deleting_breaks_off_what_is_being_done(world: World, done: int) -> None:
    world.request()
    for _ in range(done):
        world.tell(Done(BUILT))
    assert world.tell(Unwanted()) == [Abort("web")]
    assert world.tell(Unwanted()) == []
    served = [do(Step.WITHDRAW)] if done == 2 else [do(Step.DESTROY)]
    assert world.tell(Aborted()) == served


def test_a_step_that_ends_while_it_is_broken_off_counts(world: World) -> None:
    world.request()
    assert world.tell(Unwanted()) == [Abort("web")]
    assert world.tell(Done(BUILT)) == [do(Step.DESTROY)]


@pytest.mark.parametrize(("step", "done"), [(Step.BUILD, 0), (Step.PROBE, 1), (Step.PROVISION, 2)])
def test_what_fails_is_undone_and_told(world: World, step: Step, done: int) -> None:
    world.request()
    for _ in range(done):
        world.tell(Done(BUILT))
    commands = world.tell(Failed("no", "try again"))
    assert world.state is AppState.UNDOING
    if step is Step.PROVISION:
        assert commands == [do(Step.WITHDRAW)]
        commands = world.tell(Done())
    assert commands == [do(Step.DESTROY)]
    assert world.tell(Done()) == []
    life = world.apps.get("web")
    assert (life.state, life.settled) == (AppState.FAILED, True)
    assert life.fault == AppFault(step, "no", "try again")
    assert life.row == AppRow(WEB, fault=life.fault)
    assert world.request(ONCE) == [do(Step.BUILD)], "a failed one begins anew, as another one even"


def test_a_failed_app_can_be_deleted(world: World) -> None:
    world.request()
    world.tell(Failed("no"))
    world.tell(Done())
    assert world.tell(Unwanted()) == [do(Step.FORGET)]


@pytest.mark.parametrize("step", [Step.WITHDRAW, Step.DESTROY, Step.FORGET])
def test_removing_is_tried_until_it_succeeds(world: World, step: Step) -> None:
    world.ready()
    (command,) = world.tell(Unwanted())
    while command != do(step):
        (command,) = world.tell(Done())
    wait = FIRST_WAIT_S
    for _ in range(8):
        assert world.tell(Failed("not now")) == [do(Step.WAIT, wait)]
        assert world.fault == AppFault(step, "not now")
        assert world.tell(Done()) == [do(step)]
        wait = min(2 * wait, LONGEST_WAIT_S)


def test_deleting_again_does_not_wait(world: World) -> None:
    world.ready()
    world.tell(Unwanted())
    assert world.tell(Failed("not now")) == [do(Step.WAIT, 1)]
    assert world.tell(Unwanted()) == [Abort("web")]
    assert world.tell(Aborted()) == [do(Step.WITHDRAW)]


def test_an_app_that_ends_comes_again(world: World) -> None:
    world.ready()
    assert world.tell(Lost("exit status 1")) == [do(Step.WITHDRAW)]
    assert world.state is AppState.RESTARTING
    assert world.tell(Lost("twice")) == []
    assert world.tell(Done()) == [do(Step.DESTROY)]
    assert world.tell(Done()) == [do(Step.WAIT, 1)]
    assert world.state is AppState.RESTARTING
    assert world.tell(Done()) == [do(Step.BUILD)]
    assert world.fault == AppFault(Step.RUN, "exit status 1", "see what it wrote last, and start it by hand")
    assert world.tell(Failed("no host")) == [do(Step.DESTROY)]
    assert world.tell(Done()) == [do(Step.WAIT, 2)], "longer from time to time"
    assert world.tell(Done()) == [do(Step.BUILD)]
    world.tell(Done(BUILT))
    world.tell(Done())
    assert world.tell(Done()) == []
    assert (world.state, world.fault, world.apps.restarts) == (AppState.READY, None, 1)
    world.now += 2 * SETTLED_S
    world.tell(Lost("much later"))
    world.tell(Done())
    assert world.tell(Done()) == [do(Step.WAIT, 1)], "from the beginning, after it has run for long"


def test_an_app_that_is_not_to_come_again(world: World) -> None:
    world.ready(ONCE)
    world.tell(Lost("exit status 1"))
    assert world.state is AppState.UNDOING
    world.tell(Done())
    assert world.tell(Done()) == []
    assert world.state is AppState.FAILED


def test_an_app_that_ends_before_it_answers(world: World) -> None:
    world.request()
    assert world.tell(Lost("too early to be known")) == []
    world.tell(Done(BUILT))
    assert world.tell(Lost("exit status 1")) == [Abort("web")]
    assert world.tell(Aborted()) == [do(Step.DESTROY)]
    assert world.tell(Done()) == []
    assert (world.state, world.fault) == (
        AppState.FAILED,
        AppFault(Step.RUN, "exit status 1", "see what it wrote last, and start it by hand"),
    )


# over a restart of the agent


def recalled(world: World, row: AppRow) -> list[Command]:
    return world.apps.recall(row, world.now)


def test_a_ready_app_is_taken_over(world: World) -> None:
    assert recalled(world, AppRow(WEB, ready=True)) == [do(Step.FIND)]
    assert world.state is AppState.REQUESTED
    assert world.tell(Found(BUILT, served=True)) == []
    assert world.state is AppState.READY


def test_a_ready_app_whose_services_are_not(world: World) -> None:
    recalled(world, AppRow(WEB, ready=True))
    assert world.tell(Found(BUILT)) == [do(Step.PROBE)]


@pytest.mark.parametrize(
    ("dead", "why"), [("exit status 1", "exit status 1"), ("", "it was gone when the agent started")]
)
def test_a_ready_app_that_has_ended_meanwhile(world: World, dead: str, why: str) -> None:
    recalled(world, AppRow(WEB, ready=True))
    assert world.tell(Found(None, dead)) == [do(Step.WITHDRAW)]
    assert world.fault == AppFault(Step.RUN, why, "")
    assert world.state is AppState.RESTARTING


@pytest.mark.parametrize("found", [Found(None), Found(None, "dead"), Found(BUILT, served=True)])
def test_an_app_that_was_being_made_is_made(world: World, found: Found) -> None:
    assert recalled(world, AppRow(WEB)) == [do(Step.FIND)]
    assert world.tell(found) == [do(Step.BUILD)], "which is the same for what is there already"


def test_a_vim_that_cannot_be_asked_is_asked_again(world: World) -> None:
    recalled(world, AppRow(WEB, ready=True))
    assert world.tell(Failed("down")) == [do(Step.WAIT, 1)]
    assert world.state is AppState.REQUESTED
    assert world.tell(Done()) == [do(Step.FIND)]


def test_a_removal_goes_on(world: World) -> None:
    assert recalled(world, AppRow(WEB, wanted=False)) == [do(Step.WITHDRAW)]
    assert world.state is AppState.TERMINATING


def test_a_failed_app_stays_failed(world: World) -> None:
    fault = AppFault(Step.BUILD, "no")
    assert recalled(world, AppRow(WEB, ready=True, fault=fault)) == []
    assert (world.state, world.fault) == (AppState.FAILED, fault)
    assert world.tell(Unwanted()) == [do(Step.FORGET)]


class Lives(RuleBasedStateMachine):
    """Whatever happens in whatever order: one step at a time, and an app that is removed leaves nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.apps, self.now = Apps(), 0.0
        self.doing: Step | None = None
        self.built = self.served = self.aborting = False
        self._take(self.apps.request(WEB, 0.0))

    def _take(self, commands: list[Command]) -> None:
        for command in commands:
            if isinstance(command, Abort):
                assert self.doing is not None
                self.aborting = True
            else:
                assert self.doing is None, "one at a time"
                self.doing = command.step
                if command.step is Step.BUILD:
                    assert not self.built
                if command.step is Step.DESTROY:
                    assert not self.served, "withdrawn first"
                if command.step is Step.FORGET:
                    assert not self.built
                    assert not self.served

    def _tell(self, event: Event, *, ends: bool) -> None:
        self.now += 1
        if ends:
            self.doing, self.aborting = None, False
        self._take(self.apps.handle("web", event, self.now))

    @precondition(lambda self: self.doing is not None)
    @rule()
    def succeed(self) -> None:
        match self.doing:
            case Step.BUILD:
                self.built = True
            case Step.PROVISION:
                self.served = True
            case Step.WITHDRAW:
                self.served = False
            case Step.DESTROY:
                self.built = False
            case Step.FORGET:
                self.apps.forget("web")
                self.doing = None
                self._take(self.apps.request(WEB, self.now))
                return
        self._tell(Done(BUILT), ends=True)

    @precondition(lambda self: self.doing not in (None, Step.WAIT))
    @rule()
    def fail(self) -> None:
        self._tell(Failed("no"), ends=True)

    @precondition(lambda self: self.aborting)
    @rule(done=st.booleans())
    def abort(self, done: bool) -> None:
        """What was broken off may have been done."""
        self.built |= done and self.doing is Step.BUILD
        self.served |= done and self.doing is Step.PROVISION
        self._tell(Aborted(), ends=True)

    @rule()
    def unwanted(self) -> None:
        self._tell(Unwanted(), ends=False)

    @rule()
    def lost(self) -> None:
        self._tell(Lost("gone"), ends=False)

    @invariant()
    def something_goes_on_or_it_has_settled(self) -> None:
        life = self.apps.get("web")
        assert (self.doing is None) == life.settled
        if life.state is AppState.READY:
            assert self.built
            assert self.served
        if life.state is AppState.FAILED:
            assert not self.built
            assert not self.served


TestLives = Lives.TestCase
TestLives.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
