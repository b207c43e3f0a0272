"""ME Apps, driven: what the life cycle asks for is carried out, and how it went is told to it.

One step of an app at a time, each a task of its own; what has to survive a crash is on disk before a step begins.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence

import structlog
from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from tof.agent.app import App, AppRow, AppState, AppView, Step
from tof.agent.apps import Aborted, Apps, Command, Do, Done, Event, Failed, Found, Life, Lost, Unwanted
from tof.api.port import Check, HealthState
from tof.daemon.app_steps import DESTROY_S, AppSteps, Offer, ServiceControl, failure, within
from tof.daemon.clock import Clock
from tof.drivers.store import Store
from tof.errors import BackendError, BadRequest, Conflict, NotFound, TofError
from tof.settled import finished
from tof.vim.errors import VimError
from tof.vim.interface import InstanceState, Vim

log = structlog.get_logger("tof.apps")

TEND_S, LOOK_EACH = 1.0, 5


class AppManager:
    """The apps of one TOF on its VIMs."""

    def __init__(
        self, offers: Mapping[str, Offer], control: ServiceControl, store: Store, clock: Clock, *,
        instance: str, device: str, tend_s: float = TEND_S,
    ) -> None:  # fmt: skip
        self.apps = Apps()
        self._steps = AppSteps(offers, control, store, instance=instance, device=device)
        self._offers, self._control, self._store, self._clock = offers, control, store, clock
        self._tend_s = tend_s
        self._saved: dict[str, AppRow] = {}
        self._running: dict[str, asyncio.Task[None]] = {}
        self._group: asyncio.TaskGroup | None = None
        self._pending: list[Command] = []
        self._news = asyncio.Event()
        self.followers: list[Callable[[], None]] = []
        """Called after something has become of an app."""
        for offer in offers.values():
            offer.vim.on_loss(self._lost)

    # what the API asks

    async def views(self) -> Sequence[AppView]:
        """Every app, sorted by name."""
        return [life.view for life in self.apps]

    async def view(self, name: str) -> AppView:
        """The app called ``name``, or NotFound."""
        return self.apps.get(name).view

    async def request(self, app: App) -> None:
        """Have an app from now on: noted durably when it returns; the same one again is the same app."""
        if app.vim not in self._offers:
            have = ", ".join(sorted(self._offers))
            raise BadRequest(f"vim: there is no VIM called {app.vim}; there are {have}", "vim")
        if not self._has(app.name):
            self._control.check_new(app.services)
            self._check_promised(app)
        commands = self.apps.request(app, self._clock.now())
        try:
            if commands:
                await finished(self._save(self.apps.get(app.name)))
        except BackendError:
            self.apps.forget(app.name)
            commands = []
            raise
        finally:
            self._carry_out(commands)

    async def remove(self, name: str) -> None:
        """Have it no longer."""
        self.apps.get(name)
        self._tell(name, Unwanted())
        await finished(self._save(self.apps.get(name)))

    async def settled(self, name: str, within_s: float) -> AppView | None:
        """The app once nothing is done for it any more, or as it is after that time; None once it is gone."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + within_s
        while any(life.app.name == name for life in self.apps):
            life = self.apps.get(name)
            if life.settled and life.wanted and self._saved.get(name) == life.row:
                return life.view
            try:
                async with asyncio.timeout_at(deadline):
                    await self._news.wait()
            except TimeoutError:
                return life.view
        return None

    def _has(self, name: str) -> bool:
        return any(life.app.name == name and not life.over for life in self.apps)

    def _check_promised(self, app: App) -> None:
        """Names that an app which is being built has asked for already."""
        for life in self.apps:
            taken = (
                {s.name for s in life.app.services} if life.app.name != app.name and not life.over else set()
            )
            for at, service in enumerate(app.services):
                if service.name in taken:
                    field = f"services[{at}].name"
                    raise Conflict(f"{field}: {service.name} is a service of the app {life.app.name}", field)

    # what the daemon runs

    async def recall(self) -> None:
        """Take over the apps of earlier agents."""
        for row in await self._store.load_apps():
            self._saved[row.app.name] = row
            self._pending += self.apps.recall(row, self._clock.now())

    async def run(self) -> None:
        """Carry out, watch, tend; apps go on when it is cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                pending, self._pending = self._pending, []
                self._carry_out(pending)
                group.create_task(self._clear_orphans(), name="orphans")
                await self._tend()
        finally:
            for offer in self._offers.values():
                await offer.vim.aclose()

    async def _tend(self) -> None:
        turn = 0
        while True:
            await asyncio.sleep(self._tend_s)
            turn += 1
            for name, offer in self._offers.items():
                try:
                    await offer.vim.tend()
                    if turn % LOOK_EACH == 0:
                        await self._look(name, offer.vim)
                except (VimError, OSError) as error:
                    log.warning("a VIM cannot be asked", vim=name, error=str(error))

    async def _look(self, name: str, vim: Vim) -> None:
        there = {one.key: one for one in await vim.list()}
        for life in self.apps:
            if life.app.vim == name and life.state is AppState.READY:
                one = there.get(self._steps.key(life.app.name))
                if one is None or one.state is not InstanceState.ACTIVE:
                    self._tell(life.app.name, Lost(one.fault if one else "the VIM has it no longer"))

    async def _clear_orphans(self) -> None:
        """What a VIM has of this TOF's and no app explains: left by an agent that was killed at the wrong moment."""
        for name, offer in self._offers.items():
            while True:
                try:
                    await self._clear_orphans_of(name, offer.vim)
                    break
                except VimError as error:
                    log.warning("orphans cannot be removed", vim=name, error=str(error))
                    await asyncio.sleep(DESTROY_S)

    async def _clear_orphans_of(self, name: str, vim: Vim) -> None:
        for one in await vim.list():
            app = self._steps.app_of(one.key)
            if app is not None and not any(
                life.app.name == app and life.app.vim == name and not life.over for life in self.apps
            ):
                await vim.delete(one.key, deadline=within(DESTROY_S))
                log.info("removed an orphan", vim=name, key=one.key)

    # steps

    def _tell(self, name: str, event: Event) -> None:
        try:
            commands = self.apps.handle(name, event, self._clock.now())
        except NotFound:  # a late word of one that is gone
            return
        life = self.apps.get(name)
        if life.fault is not None and isinstance(event, Failed | Lost):
            log.warning("an app failed", app=name, step=life.fault.step.value, why=life.fault.message)
        elif life.state is AppState.READY and isinstance(event, Done | Found):
            log.info("an app is ready", app=name, timings=dict(life.timings))
        self._carry_out(commands)
        self._notify()

    def _notify(self) -> None:
        self._news.set()
        self._news = asyncio.Event()
        for follower in self.followers:
            follower()

    def _carry_out(self, commands: Iterable[Command]) -> None:
        for command in commands:
            if self._group is None:
                self._pending.append(command)
            elif isinstance(command, Do):
                task = self._group.create_task(self._step(command), name=f"app {command.name}")
                self._running[command.name] = task
            else:
                self._running[command.name].cancel()

    async def _step(self, do: Do) -> None:
        life = self.apps.get(do.name)
        event: Event
        try:
            await self._save(life)
            event = await self._steps.perform(life, do)
            if do.step is Step.FORGET:
                self._saved.pop(do.name, None)
        except asyncio.CancelledError:
            if not life.aborting:
                raise  # the agent ends: what was begun is taken up by the next one
            event = Aborted()
        except TofError as error:
            event = failure(error)
        if do.step is Step.FORGET and isinstance(event, Done):
            self.apps.forget(do.name)
            self._notify()
            log.info("an app is gone", app=do.name)
            return
        self._tell(do.name, event)
        try:
            await self._save(life)
        except BackendError as error:
            log.warning("an app's state cannot be kept", app=do.name, error=str(error))
        self._notify()

    async def _save(self, life: Life) -> None:
        row, name = life.row, life.app.name
        if self._saved.get(name) != row:
            await self._store.put_app(row)
            self._saved[name] = row

    def _lost(self, key: str, why: str) -> None:
        name = self._steps.app_of(key)
        if name is not None:
            self._tell(name, Lost(why))

    # what operators see

    def check(self) -> Check:
        """Whether every app is as it was asked for."""
        bad = {life.app.name: life for life in self.apps if life.fault is not None}
        detail = ", ".join(f"{name} {life.state}" for name, life in bad.items())
        return Check(
            "apps", HealthState.DEGRADED if bad else HealthState.OK, detail or f"{_count(self.apps)}"
        )

    def metrics(self) -> Iterable[Metric]:
        """How many there are in each state, how often they were started again."""
        states = GaugeMetricFamily("tof_apps", "ME Apps by state", labels=["state"])
        counts = dict.fromkeys(AppState, 0)
        for life in self.apps:
            counts[life.state] += 1
        for state, count in counts.items():
            if state is not AppState.GONE:
                states.add_metric([state.value], count)
        yield states
        capacity = GaugeMetricFamily("tof_vim_capacity", "ME Apps that a VIM takes at once", labels=["vim"])
        for name, offer in self._offers.items():
            if offer.capacity is not None:
                capacity.add_metric([name], offer.capacity)
        yield capacity
        text = "Times that an ME App had ended by itself, or failed to come up again"
        yield CounterMetricFamily("tof_app_restarts", text, value=self.apps.restarts)


def _count(apps: Apps) -> str:
    ready = sum(life.state is AppState.READY for life in apps)
    return f"{ready} ready"
