"""Carries a plan out on a running agent, by its API alone; whatever happens, its own instances are removed.

An instance is an app of its own name, with a service of its own in 198.18.0.0/15 (RFC 2544, benchmarks), so that all that
the TOF does for an app is in what is measured.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Address
from typing import Any, Final, TypeVar

from tof.api.client import ApiClient
from tof.errors import BackendError, NotFound, TofError
from tof.settled import finished
from tof.vim.bench.plan import Plan, Point
from tof.vim.bench.samples import Results, Sample, Series

T = TypeVar("T")

PREFIX: Final = "tofbench-"
OWN: Final = re.compile(r"tofbench-[0-9a-f]{6}-\d+")
FIRST_SERVICE: Final = IPv4Address("198.18.0.1")
PARALLEL: Final = 4
"""Background instances are made, and all removed, so many at a time."""
LONGEST_CALL_S: Final = 50
"""The client gives up a call soon after."""
ASK_EACH_S, LOOK_AGAIN_S = 0.1, 0.2
_CAPACITY: Final = re.compile(r'^tof_vim_capacity\{vim="([^"]*)"\} (\S+)$', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Work:
    """What to do: the plan, the app (a body of POST /apps without name and services), how long one may take."""

    plan: Plan
    app: Mapping[str, Any]
    timeout_s: float = 120.0

    @property
    def vim(self) -> str:
        """On which VIM."""
        return str(self.app.get("vim", "local"))


class Bench:
    """One run of the benchmark; ``told(what, instances)`` hears of progress."""

    def __init__(self, client: ApiClient, work: Work, told: Callable[[str, int], object]) -> None:
        self._client, self._work, self._told = client, work, told
        self._own = f"{PREFIX}{secrets.token_hex(3)}-"
        self._made = 0
        self.results = Results(work.vim)

    async def run(self) -> Results:
        """Measure as far as it goes. A cancellation is an error like others: nothing of it is left."""
        try:
            await self._check_room()
            for point in self._work.plan.points():
                await self._fill(point.background)
                await self._measure(point)
        except TofError as error:
            self.results.error = str(error)
        except asyncio.CancelledError:
            self.results.error = "interrupted"
        finally:
            self._told("removing", 0)
            self.results.left = await finished(cleared(self._client, self._mine, self._work.timeout_s))
        return self.results

    def _mine(self, name: str) -> bool:
        return name.startswith(self._own)

    async def _check_room(self) -> None:
        """Refuse what the VIM has no room for before anything is made, if it says how many it takes."""
        text, apps = await self._client.get("/metrics"), await self._client.get("/apps")
        capacity = dict(_CAPACITY.findall(text)).get(self._work.vim)
        there = sum(app["vim"] == self._work.vim for app in apps)
        peak = self._work.plan.peak
        if capacity is not None and there + peak > float(capacity):
            raise BackendError(
                f"{peak} instances are too many for the VIM {self._work.vim}: it takes {float(capacity):.0f} and "
                f"has {there}; measure with fewer, or give it a larger pool and max_apps"
            )

    async def _fill(self, background: int) -> None:
        self._told(f"background of {background}", 0)
        await _at_most(PARALLEL, [partial(self._instantiate, 0)] * (background - self._made))

    async def _measure(self, point: Point) -> None:
        loop, series = asyncio.get_running_loop(), Series(point)
        self.results.series.append(series)
        self._told(point.label, 0)
        kept = self._made
        for run in range(1, point.runs + 1):
            began = loop.time()
            samples = await _at_most(point.batch, [partial(self._instantiate, run)] * point.batch)
            series.walls.append(loop.time() - began)
            series.samples += samples
            await _at_most(PARALLEL, [partial(self._remove, one.name) for one in samples])
            self._made = kept

    async def _instantiate(self, run: int) -> Sample:
        loop = asyncio.get_running_loop()
        place, self._made = self._made, self._made + 1
        name = f"{self._own}{place}"
        service = {"name": name, "serviceIP": str(FIRST_SERVICE + place)}
        body = {**self._work.app, "name": name, "services": [service], "restart": "never"}
        began = loop.time()
        view = await self._ready(name, body, began + self._work.timeout_s)
        sample = Sample(name, run, loop.time() - began, view["timings"])
        self._told("", 1)
        return sample

    async def _ready(self, name: str, body: Mapping[str, Any], deadline: float) -> Any:
        loop = asyncio.get_running_loop()
        wait = max(1, min(LONGEST_CALL_S, int(self._work.timeout_s)))
        try:
            return await self._client.post(f"/apps?wait={wait}", body)
        except BackendError:
            view = await self._client.get(f"/apps/{name}")
        while view["state"] not in ("ready", "failed") and loop.time() < deadline:
            await asyncio.sleep(ASK_EACH_S)
            view = await self._client.get(f"/apps/{name}")
        if view["state"] == "ready":
            return view
        error = view["error"] or {"step": view["step"], "vim_message": f"it is {view['state']}", "hint": ""}
        why = f"{name}: {error['step']}: {error['vim_message']}"
        raise BackendError(f"{why}; {error['hint']}" if error["hint"] else why)

    async def _remove(self, name: str) -> None:
        await self._client.delete(f"/apps/{name}?wait={LONGEST_CALL_S}")


async def cleared(client: ApiClient, mine: Callable[[str], bool], timeout_s: float) -> list[str]:
    """Remove the apps whose names are ``mine``; those that are still there in the end."""
    loop = asyncio.get_running_loop()
    deadline, names, empty = loop.time() + timeout_s, list[str](), 0
    while empty < 2 and loop.time() < deadline:
        try:
            names = [app["name"] for app in await client.get("/apps") if mine(app["name"])]
            empty = 0 if names else empty + 1
            await _at_most(PARALLEL, [partial(_gone, client, name) for name in names])
        except TofError:
            empty = 0
        # a request that was broken off may have been on its way still
        await asyncio.sleep(LOOK_AGAIN_S)
    return names


async def _gone(client: ApiClient, name: str) -> None:
    try:
        await client.delete(f"/apps/{name}?wait={LONGEST_CALL_S}")
    except NotFound:
        return


async def _at_most(parallel: int, jobs: Iterable[Callable[[], Awaitable[T]]]) -> list[T]:
    """What the jobs give, so many at a time; the first error ends them all and is raised alone."""
    turns, done = asyncio.Semaphore(parallel), list[T]()

    async def one(job: Callable[[], Awaitable[T]]) -> None:
        async with turns:
            done.append(await job())

    failed: BaseExceptionGroup[TofError] | None = None
    try:
        async with asyncio.TaskGroup() as group:
            for job in jobs:
                group.create_task(one(job))
    except* TofError as errors:
        failed = errors
    if failed is not None:
        raise BackendError(str(_first(failed)))
    return done


def _first(errors: BaseExceptionGroup[TofError]) -> BaseException:
    first: BaseException = errors
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    return first
