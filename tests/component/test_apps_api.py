"""ME Apps through the API: the real life cycle and store, a VIM and services in memory, a real application to be asked."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from memory_port import MemoryPort
from memory_vim import MemoryServices, MemoryVim
from prometheus_client import generate_latest
from prometheus_client.registry import Collector

from tof.agent.app import App, AppFault, AppRow, Step
from tof.agent.app_body import parse_app
from tof.api.app import create_app
from tof.api.server import serve
from tof.daemon.app_steps import Offer
from tof.daemon.apps import AppManager
from tof.daemon.clock import Clock
from tof.drivers.store import Store
from tof.errors import BackendError, Conflict
from tof.vim.errors import BackendFault, QuotaExceeded, Unavailable

KEY = "tof.default.web"


async def until(found: Callable[[], Awaitable[Any]]) -> Any:
    """What it finds, once that is something."""
    for _ in range(1000):
        if thing := await found():
            return thing
        await asyncio.sleep(0.01)
    raise AssertionError("waited in vain")


@dataclass
class World:
    """One TOF's apps: what outlives an agent, and the one that runs."""

    dir: Path
    port: int
    vim: MemoryVim
    services: MemoryServices
    manager: AppManager | None = None
    session: aiohttp.ClientSession | None = None

    def body(self, **more: Any) -> dict[str, Any]:
        service = {"name": "web", "serviceIP": "203.0.113.10", "protocol": "tcp", "ports": [self.port]}
        return {"name": "web", "vim": "local", "command": ["/bin/web"], "services": [service], **more}

    async def ask(self, method: str, path: str, body: object = None) -> tuple[int, Any, str]:
        assert self.session is not None
        async with self.session.request(method, path, json=body) as response:
            raw = await response.read()
            parsed = await response.json(content_type=None) if raw else None
            return response.status, parsed, response.headers.get("Location", "")

    @contextlib.asynccontextmanager
    async def agent(self) -> AsyncIterator[AppManager]:
        async with Store(self.dir / "services.db") as store, asyncio.TaskGroup() as group:
            offers = {"local": Offer(self.vim, 5, 0.5)}
            self.manager = AppManager(
                offers, self.services, store, Clock(), instance="default", device="lo", tend_s=0.02
            )
            await self.manager.recall()
            running = group.create_task(self.manager.run())
            app = create_app(MemoryPort(), apps=self.manager)
            async with serve(app, ["http://127.0.0.1:0"]) as (url,), aiohttp.ClientSession(url) as session:
                self.session = session
                yield self.manager
            running.cancel()

    async def becomes(self, state: str) -> Any:
        async def found() -> Any:
            view = (await self.ask("GET", "/apps/web"))[1]
            return view if view.get("state") == state else None

        return await until(found)

    @property
    def nothing(self) -> bool:
        return not self.vim.instances and not self.services.catalog.services


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0)
    async with server:
        yield World(tmp_path, server.sockets[0].getsockname()[1], MemoryVim(), MemoryServices())


async def test_an_app_is_created_shown_and_deleted(world: World) -> None:
    async with world.agent():
        status, view, where = await world.ask("POST", "/apps?wait=5", world.body())
        assert (status, where) == (201, "/apps/web")
        assert {"build", "build.start", "probe", "provision", "total"} <= view["timings"].keys()
        assert (view["state"], view["reach"], view["error"]) == ("ready", "127.0.0.1", None)
        assert view["spec"] == world.body()
        assert (await world.ask("GET", "/apps"))[1] == [view]
        assert (await world.ask("GET", "/apps/web"))[1] == view
        assert [str(s.application_ip) for s in world.services.provided.values()] == ["127.0.0.1"]
        assert (await world.ask("POST", "/apps?wait=5", world.body()))[:2] == (201, view)
        assert (await world.ask("POST", "/apps", world.body(restart="never")))[0] == 409
        assert await world.ask("DELETE", "/apps/web?wait=5") == (200, None, "")
        assert (await world.ask("DELETE", "/apps/web"))[0] == 404
        assert world.nothing
    assert world.vim.closed


async def test_without_waiting_and_waiting_too_short(world: World) -> None:
    async with world.agent():
        world.vim.holds.clear()
        status, view, where = await world.ask("POST", "/apps", world.body())
        assert (status, view["state"], where) == (202, "building", "/apps/web")
        status, problem, where = await world.ask("POST", "/apps?wait=0", world.body())
        assert (status, where) == (504, "/apps/web")
        assert problem["detail"] == "web is building, build after 0 s; it goes on, see /apps/web"
        world.vim.holds.set()
        await world.becomes("ready")
        world.vim.holds.clear()
        assert (await world.ask("DELETE", "/apps/web"))[0] == 202
        assert (await world.ask("POST", "/apps", world.body()))[0] == 409, "it is being removed"
        assert (await world.ask("DELETE", "/apps/web?wait=0"))[0] == 504
        world.vim.holds.set()
        assert (await world.ask("DELETE", "/apps/web?wait=5"))[0] in (200, 404)


@pytest.mark.parametrize(
    ("error", "step"), [(QuotaExceeded("10 of 10"), "build"), (BackendFault("no host", "add one"), "build")]
)
async def test_a_vim_that_refuses(world: World, error: Exception, step: str) -> None:
    world.vim.fails["create"] = [error]
    async with world.agent():
        status, problem, _ = await world.ask("POST", "/apps?wait=5", world.body())
        assert (status, problem["step"], problem["vim_message"]) == (502, step, str(error))
        assert problem["hint"]
        assert world.nothing
        assert (await world.becomes("failed"))["error"]["vim_message"] == str(error)
    async with world.agent():
        assert (await world.becomes("failed"))["error"]["step"] == step, "it is remembered"
        assert (await world.ask("POST", "/apps?wait=5", world.body()))[0] == 201


async def test_services_that_are_refused(world: World) -> None:
    world.services.fails = [Conflict("taken meanwhile", "serviceIP")]
    async with world.agent():
        status, problem, _ = await world.ask("POST", "/apps?wait=5", world.body())
        assert (status, problem["step"], problem["vim_message"]) == (502, "provision", "taken meanwhile")
        assert world.nothing


async def test_an_app_that_does_not_answer(world: World) -> None:
    async with world.agent():
        body = world.body(health={"kind": "tcp", "port": 1})
        status, problem, _ = await world.ask("POST", "/apps?wait=5", body)
        assert (status, problem["step"]) == (502, "probe")
        assert "no good answer from tcp 127.0.0.1 port 1 within 0.5 s" in problem["vim_message"]
        assert world.nothing


async def test_a_service_of_a_family_that_the_vim_does_not_give(world: World) -> None:
    async with world.agent():
        body = world.body(
            services=[{"name": "six", "serviceIP": "2001:db8:1::1"}],
            health={"kind": "tcp", "port": world.port},
        )
        status, problem, _ = await world.ask("POST", "/apps?wait=5", body)
        assert (status, problem["vim_message"]) == (
            502,
            "the VIM gave no IPv6 address, which a service needs",
        )


async def test_removing_is_tried_again(world: World) -> None:
    async with world.agent():
        assert (await world.ask("POST", "/apps?wait=5", world.body()))[0] == 201
        world.vim.fails["delete"] = [Unavailable("down")]
        world.services.fails = [BackendError("no switch")]
        assert (await world.ask("DELETE", "/apps/web"))[0] == 202
        await world.becomes("terminating")

        async def told() -> Any:
            return (await world.ask("GET", "/apps/web"))[1].get("error")

        assert (await until(told))["step"] in ("withdraw", "destroy")
        assert (await world.ask("DELETE", "/apps/web?wait=8"))[0] == 200
        assert world.nothing


@pytest.mark.parametrize("told", [True, False])
async def test_an_app_that_ends_is_withdrawn_and_made_again(world: World, told: bool) -> None:
    async with world.agent() as manager:
        await world.ask("POST", "/apps?wait=5", world.body())
        world.vim.lose(KEY, "exit status 1")
        if told:
            world.vim.told(KEY, "exit status 1")
            world.vim.told("somebody.else", "x")
            world.vim.told("tof.default.nobody", "x")
        await world.becomes("restarting")

        async def withdrawn() -> bool:
            return not world.services.provided

        await until(withdrawn)
        view = await world.becomes("ready")
        assert (view["restarts"], view["error"]) == (1, None)

        class Samples(Collector):
            def collect(self) -> Any:
                return manager.metrics()

        text = generate_latest(Samples()).decode()
        assert 'tof_apps{state="ready"} 1.0' in text
        assert "tof_app_restarts_total 1.0" in text
        assert manager.check().detail == "1 ready"


async def test_a_vim_that_cannot_be_asked_is_no_death(world: World) -> None:
    async with world.agent():
        await world.ask("POST", "/apps?wait=5", world.body())
        world.vim.fails["tend"] = [Unavailable("down")] * 3
        world.vim.fails["list"] = [Unavailable("down")] * 3
        await asyncio.sleep(0.3)
        assert (await world.becomes("ready"))["restarts"] == 0


async def test_the_next_agent_takes_over(world: World) -> None:
    async with world.agent():
        await world.ask("POST", "/apps?wait=5", world.body())
    world.vim.calls.clear()
    world.vim.fails["get"] = [Unavailable("not yet")]
    async with world.agent():
        view = await world.becomes("ready")
        assert view["restarts"] == 0
        assert "delete" not in world.vim.calls
    world.vim.instances.clear()
    async with world.agent():
        assert (await world.becomes("ready"))["restarts"] == 1, "it was gone"


async def test_what_no_app_explains_is_removed_at_start(world: World) -> None:
    async with world.agent():
        await world.ask("POST", "/apps?wait=5", world.body())
        one = world.vim.instances[KEY]
    world.vim.instances["tof.default.orphan"] = one
    world.vim.instances["tof.another.web"] = one
    world.vim.instances = {key: replace(each, key=key) for key, each in world.vim.instances.items()}
    async with world.agent():

        async def removed() -> bool:
            return "tof.default.orphan" not in world.vim.instances

        await until(removed)
        await world.becomes("ready")
        assert world.vim.instances.keys() == {KEY, "tof.another.web"}


@pytest.mark.parametrize(
    "row",
    [
        AppRow(App("web", command=("/bin/web",)), wanted=False, ready=True),
        AppRow(App("web", command=("/bin/web",)), fault=AppFault(Step.BUILD, "no")),
        AppRow(App("web", vim="gone", command=("/bin/web",))),
    ],
)
async def test_what_was_kept_goes_on(world: World, row: AppRow) -> None:
    async with Store(world.dir / "services.db") as store:
        await store.put_app(row)
    async with world.agent() as manager:
        if not row.wanted:
            assert await manager.settled("web", 5) is None
        elif row.fault:
            assert (await world.becomes("failed"))["error"]["vim_message"] == "no"
        else:

            async def told() -> AppFault | None:
                return (await manager.view("web")).fault

            assert "no VIM called gone is configured" in (await until(told)).message


async def test_a_disk_that_refuses(world: World) -> None:
    async with world.agent() as manager:
        store = manager._store

        async def refuse(_row: AppRow) -> None:
            raise BackendError("disk full")

        keep, store.put_app = store.put_app, refuse  # type: ignore[method-assign]
        status, problem, _ = await world.ask("POST", "/apps", world.body())
        assert (status, problem["detail"]) == (503, "disk full")
        assert (await world.ask("GET", "/apps"))[1] == []
        store.put_app = keep  # type: ignore[method-assign]
        assert (await world.ask("POST", "/apps?wait=5", world.body()))[0] == 201


@pytest.mark.parametrize(
    ("more", "status", "field"),
    [
        ({"name": "Web"}, 400, "name"),
        ({"colour": 1}, 400, "colour"),
        ({"vim": "elsewhere"}, 400, "vim"),
        ({"services": [{"name": "x", "serviceIP": "no"}]}, 400, "services[0].serviceIP"),
        ({"services": [{"name": "taken", "serviceIP": "203.0.113.9"}]}, 409, "services[0].name"),
    ],
)
async def test_what_cannot_be_is_refused_by_field(world: World, more: Any, status: int, field: str) -> None:
    async with world.agent():
        other = world.body(name="other", services=[{"name": "taken", "serviceIP": "203.0.113.8"}])
        other["health"] = {"kind": "tcp", "port": world.port}
        world.vim.holds.clear()
        assert (await world.ask("POST", "/apps", other))[0] == 202
        answer = await world.ask("POST", "/apps", world.body(**more))
        assert answer[0] == status, answer
        assert [each["field"] for each in answer[1]["errors"]] == [field]
        world.vim.holds.set()


async def test_without_vims(world: World) -> None:
    async with (
        serve(create_app(MemoryPort()), ["http://127.0.0.1:0"]) as (url,),
        aiohttp.ClientSession(url) as session,
    ):
        world.session = session
        assert (await world.ask("GET", "/apps"))[:2] == (200, [])
        for method, path in (("GET", "/apps/x"), ("DELETE", "/apps/x"), ("POST", "/apps")):
            body = world.body() if method == "POST" else None
            assert (await world.ask(method, path, body))[0] == 503


def test_the_example_of_the_document_is_an_app() -> None:
    from tof.api.document import load_document

    content = load_document().content["paths"]["/apps"]["post"]["requestBody"]["content"]
    assert parse_app(content["application/json"]["example"]).name == "video"
