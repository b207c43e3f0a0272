"""ETSI MEC 010-2 over HTTP: the real life cycle and store, a VIM and services in memory, a real subscriber.

Every answer and every notification is checked against the official document.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
from aiohttp import web
from memory_port import MemoryPort
from memory_vim import MemoryServices, MemoryVim
from prometheus_client import generate_latest
from prometheus_client.registry import Collector
from test_apps_api import until

from tests.mec010_document import BASE, Official, official
from tof.agent.lcm import Instance, Occurrence, Operation, Phase, Power
from tof.agent.lcm_body import parse_descriptor
from tof.agent.lcm_subscription import Subject, Subscription
from tof.api.app import create_app
from tof.api.document import LCM_DOCUMENT, METHODS, load_document
from tof.api.server import serve
from tof.daemon import lcm, lcm_records, notifying
from tof.daemon.app_steps import Offer
from tof.daemon.apps import AppManager
from tof.daemon.clock import Clock
from tof.daemon.lcm import LcmManager
from tof.daemon.notifying import Notifier
from tof.drivers.callbacks import Callbacks
from tof.drivers.store import Store
from tof.errors import BackendError
from tof.vim.errors import BackendFault

HOST = {"selectedMECHostInfo": [{"hostId": {"name": "edge-1"}}]}
GRACEFUL = {"terminationType": "GRACEFUL", "gracefulTerminationTimeout": 5}
STOP, START = {"changeStateTo": "STOPPED"}, {"changeStateTo": "STARTED"}


@dataclass
class Subscriber:
    """An orchestrator that is told; ``answers`` are the statuses of its next answers, then 204."""

    url: str = ""
    told: list[Any] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.Response:
        status = self.answers.pop(0) if self.answers else 204
        if status == 204:
            self.told.append(await request.json())
        return web.Response(status=status, headers={"Location": "/elsewhere"} if status == 307 else {})

    def of(self, kind: str) -> list[Any]:
        return [one for one in self.told if kind in one["_links"]]


@dataclass
class World:
    """One TOF: what outlives an agent, and the one that runs."""

    dir: Path
    port: int
    document: Official
    subscriber: Subscriber
    vim: MemoryVim = field(default_factory=MemoryVim)
    services: MemoryServices = field(default_factory=MemoryServices)
    session: aiohttp.ClientSession | None = None
    store: Store | None = None
    notifier: Notifier | None = None

    def descriptor(self, **more: Any) -> dict[str, Any]:
        service = {"name": "web", "serviceIP": "203.0.113.10", "protocol": "tcp", "ports": [self.port]}
        app = {"command": ["/bin/web"], "services": [service], **more}
        words = {"appProvider": "example", "appName": "web", "appSoftVersion": "1", "appDVersion": "1.0"}
        return {**words, "app": app}

    async def ask(self, method: str, path: str, body: object = None, **more: Any) -> tuple[int, Any, str]:
        assert self.session is not None
        async with self.session.request(method, BASE + path, json=body, **more) as response:
            raw = await response.read()
            parsed = await response.json(content_type=None) if raw else None
            if "/app_descriptors" not in path and response.status not in (405, 503):
                self.document.check_answer(method, path, response.status, parsed)
                if body is not None and response.ok:
                    self.document.check_request(method, path, body)
            return response.status, parsed, response.headers.get("Location", "")

    @contextlib.asynccontextmanager
    async def agent(self) -> AsyncIterator[LcmManager]:
        clock = Clock()
        async with (
            Store(self.dir / "services.db") as store,
            Callbacks([ip_network("127.0.0.0/8")]) as callbacks,
            asyncio.TaskGroup() as group,
        ):
            self.store = store
            self.notifier = Notifier(callbacks, (0.01, 0.01))
            offers = {"local": Offer(self.vim, 5, 0.5), "other": Offer(self.vim, 5, 0.5)}
            apps = AppManager(
                offers, self.services, store, clock, instance="default", device="lo", tend_s=0.02
            )
            manager = LcmManager(apps, store, callbacks, self.notifier, clock)
            await manager.recall()
            apps.followers.append(manager.wake)
            await apps.recall()
            running = [group.create_task(apps.run()), group.create_task(manager.run())]
            app = create_app(MemoryPort(), apps=apps, lcm=manager)
            async with serve(app, ["http://127.0.0.1:0"]) as (url,), aiohttp.ClientSession(url) as session:
                self.session = session
                yield manager
            for task in running:
                task.cancel()

    async def declared(self, name: str = "web", **more: Any) -> None:
        status, body, _ = await self.ask(
            "PUT", f"/app_descriptors/{quote(name, safe='')}", self.descriptor(**more)
        )
        assert status in (200, 201), body

    async def created(self, **more: Any) -> str:
        status, body, where = await self.ask("POST", "/app_instances", {"appDId": "web", **more})
        assert (status, where) == (201, body["_links"]["self"]["href"]), body
        return str(body["id"])

    async def task(self, identifier: str, task: str, body: object) -> str:
        status, problem, where = await self.ask("POST", f"/app_instances/{identifier}/{task}", body)
        assert status == 202, problem
        return where.rpartition("/")[2]

    async def ended(self, occurrence: str) -> Any:
        async def over() -> Any:
            body = (await self.ask("GET", f"/app_lcm_op_occs/{occurrence}"))[1]
            return body if body["operationState"] in ("COMPLETED", "FAILED") else None

        return await until(over)

    async def done(self, identifier: str, task: str, body: object) -> Any:
        return await self.ended(await self.task(identifier, task, body))

    async def started(self) -> str:
        """An instance whose app runs."""
        await self.declared()
        identifier = await self.created()
        assert (await self.done(identifier, "instantiate", HOST))["operationState"] == "COMPLETED"
        return identifier

    async def instance(self, identifier: str) -> Any:
        return (await self.ask("GET", f"/app_instances/{identifier}"))[1]

    async def subscribed(self, kind: str, **more: Any) -> str:
        body = {"subscriptionType": kind, "callbackUri": self.subscriber.url, **more}
        status, answer, where = await self.ask("POST", f"/subscriptions?subscriptionType={kind}", body)
        assert (status, where) == (201, answer["_links"]["self"]["href"]), answer
        return str(answer["id"])


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    document = official()
    subscriber = Subscriber()
    receiving = web.Application()
    receiving.router.add_post("/told", subscriber.handle)
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0)
    async with server, serve(receiving, ["http://127.0.0.1:0"]) as (url,):
        subscriber.url = f"{url}/told"
        yield World(tmp_path, server.sockets[0].getsockname()[1], document, subscriber)


def state_of(instance: Any) -> str:
    return str(instance.get("instantiatedAppState", {}).get("operationalState", "NOT_INSTANTIATED"))


async def test_the_life_of_an_instance(world: World) -> None:
    async with world.agent():
        await world.subscribed("AppInstanceStateChange")
        await world.subscribed("AppLcmOpOccStateChange")
        await world.declared()
        identifier = await world.created(appInstanceName="web 1", appInstanceDescription="the first")
        instance = await world.instance(identifier)
        assert (state_of(instance), instance["appInstanceName"]) == ("NOT_INSTANTIATED", "web 1")
        assert instance["_links"].keys() == {"self", "instantiate"}
        assert (await world.done(identifier, "instantiate", HOST))["lcmOperation"] == "INSTATIATE"
        assert state_of(await world.instance(identifier)) == "STARTED"
        assert [s.name for s in world.services.provided.values()] == ["web"]
        assert world.vim.instances.keys() == {f"tof.default.{identifier}"}, "one life cycle"
        stop = {**STOP, "stopType": "GRACEFUL", "gracefulStopTimeout": 1}
        assert (await world.done(identifier, "operate", stop))["operationParams"] == "OPERATE"
        assert state_of(await world.instance(identifier)) == "STOPPED"
        assert not world.vim.instances
        await world.done(identifier, "operate", START)
        assert state_of(await world.instance(identifier)) == "STARTED"
        await world.done(identifier, "terminate", GRACEFUL)
        assert state_of(await world.instance(identifier)) == "NOT_INSTANTIATED"
        assert not world.vim.instances
        assert not world.services.provided
        assert (await world.ask("DELETE", f"/app_instances/{identifier}"))[0] == 204
        assert (await world.ask("GET", f"/app_instances/{identifier}"))[0] == 404
        occurrences = (await world.ask("GET", "/app_lcm_op_occs"))[1]
        assert [one["lcmOperation"] for one in occurrences] == [
            "INSTATIATE",
            "OPERATE",
            "OPERATE",
            "TERMINATE",
        ]

        async def told() -> bool:
            return len(world.subscriber.told) == 4 + 3 * 4

        await until(told)
    of_operations = world.subscriber.of("appLcmOpOcc")
    of_instances = [one for one in world.subscriber.told if one not in of_operations]
    assert [one["notificationType"] for one in of_instances] == [
        "STARTED", "STOPPED", "STARTED", "NOT_INSTANTIATED",
    ]  # fmt: skip
    assert [one["notificationType"] for one in of_operations] == ["STARTING", "PROCESSING", "COMPLETED"] * 4
    callback = world.document.operation("POST", "/user_defined_notification")["requestBody"]
    schema = callback["content"]["application/json"]["schema"]
    for one in world.subscriber.told:
        assert world.document.errors(schema, one) == []


def test_what_is_served_is_what_the_document_has() -> None:
    """Every operation of it, with statuses of it and 503; besides, descriptors and the document that is served."""
    document, served = official(), {}
    for one in load_document(LCM_DOCUMENT).operations:
        if "/app_descriptors" in one.path or one.path.endswith("/openapi.json"):
            continue
        responses = document.operation(one.method, one.path)["responses"]
        assert {str(status) for status in one.statuses} <= {*responses, "503"}, one.path
        served[one.method, one.path.removeprefix(BASE)] = one
    there = {
        (method.upper(), re.sub(r"\{\w+\}", "{id}", path))
        for path, item in document.content["paths"].items()
        for method in item
        if method in METHODS and path != "/user_defined_notification"
    }
    assert there == served.keys()
    assert len(there) == 13


async def test_what_the_state_forbids(world: World) -> None:
    async with world.agent():
        await world.declared()
        identifier = await world.created()
        place = f"/app_instances/{identifier}"
        for task, body in (("operate", START), ("operate", STOP), ("terminate", GRACEFUL)):
            assert (await world.ask("POST", f"{place}/{task}", body))[0] == 409
        world.vim.holds.clear()
        occurrence = await world.task(identifier, "instantiate", HOST)
        assert (await world.ask("GET", f"/app_lcm_op_occs/{occurrence}"))[1]["operationState"] == "PROCESSING"
        for task, body in (("instantiate", HOST), ("operate", STOP), ("terminate", GRACEFUL)):
            status, problem, _ = await world.ask("POST", f"{place}/{task}", body)
            assert status == 409
            assert occurrence in problem["detail"]
        assert (await world.ask("DELETE", place))[0] == 409
        world.vim.holds.set()
        await world.ended(occurrence)
        assert (await world.ask("POST", f"{place}/instantiate", HOST))[0] == 409
        assert (await world.ask("POST", f"{place}/operate", START))[0] == 409
        assert (await world.ask("DELETE", place))[0] == 409


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "at"),
    [
        ("POST", "/app_instances", {"appDId": "none"}, 400, "appDId"),
        ("POST", "/app_instances", {}, 400, "appDId"),
        ("POST", "/app_instances/{id}/instantiate", {}, 400, "selectedMECHostInfo"),
        (
            "POST",
            "/app_instances/{id}/instantiate",
            {**HOST, "virtualComputeDescriptor": "x"},
            400,
            "virtual",
        ),
        (
            "POST",
            "/app_instances/{id}/instantiate",
            {**HOST, "vimConnectionInfo": [{"id": "nowhere", "vimType": "x"}]},
            400,
            "vim",
        ),
        ("POST", "/app_instances/{id}/operate", {**START, "stopType": "FORCEFUL"}, 400, "stopType"),
        ("POST", "/app_instances/{id}/operate", {**STOP, "stopType": "GRACEFUL"}, 400, "gracefulStopTimeout"),
        ("POST", "/app_instances/{id}/operate", {"changeStateTo": "ON"}, 400, "changeStateTo"),
        ("POST", "/app_instances/{id}/terminate", {}, 400, "terminationType"),
        ("POST", "/app_instances/none/instantiate", HOST, 404, "id"),
        ("GET", "/app_instances/none", None, 404, "id"),
        ("DELETE", "/app_instances/none", None, 404, "id"),
        ("GET", "/app_lcm_op_occs/none", None, 404, "id"),
        ("GET", "/subscriptions/none?subscriptionType=AppInstanceStateChange", None, 404, "id"),
        ("DELETE", "/subscriptions/none", None, 404, "id"),
        ("GET", "/app_instances?filter=nonsense", None, 400, "filter"),
        ("GET", "/app_instances?colour=red", None, 400, "colour"),
        ("GET", "/app_lcm_op_occs?fields=a&exclude_fields=b", None, 400, "fields"),
    ],
)
async def test_what_is_refused_names_the_field(
    world: World, method: str, path: str, body: object, status: int, at: str
) -> None:
    async with world.agent():
        await world.declared()
        identifier = await world.created()
        answer = await world.ask(method, path.replace("{id}", identifier), body)
        assert answer[0] == status, answer
        assert answer[1]["errors"][0]["field"].startswith(at), answer
        assert state_of(await world.instance(identifier)) == "NOT_INSTANTIATED"
        assert (await world.ask("GET", "/app_lcm_op_occs"))[1] == []


async def test_only_json_is_spoken(world: World) -> None:
    async with world.agent():
        answer = await world.ask("GET", "/app_instances", headers={"Accept": "application/xml"})
        assert answer[0] == 406
        assert (await world.ask("GET", "/app_instances", headers={"Accept": "application/json;q=1"}))[
            0
        ] == 200


async def test_an_operation_that_fails_says_why_and_leaves_nothing(world: World) -> None:
    world.vim.fails["create"] = [BackendFault("no host", "add one")]
    async with world.agent():
        await world.declared()
        identifier = await world.created()
        ended = await world.done(identifier, "instantiate", HOST)
        assert ended["operationState"] == "FAILED"
        assert "no host" in ended["error"]["detail"]
        assert state_of(await world.instance(identifier)) == "NOT_INSTANTIATED"
        assert not world.vim.instances
        listed = (await world.ask("GET", "/app_lcm_op_occs?exclude_fields=error"))[1]
        assert [one.get("error") for one in listed] == [None]
        assert (await world.done(identifier, "instantiate", HOST))["operationState"] == "COMPLETED"
        await world.done(identifier, "operate", STOP)
        world.vim.fails["create"] = [BackendFault("no host any more", "add one")]
        ended = await world.done(identifier, "operate", START)
        assert "no host any more" in ended["error"]["detail"]
        assert state_of(await world.instance(identifier)) == "STOPPED"
        assert (await world.done(identifier, "terminate", GRACEFUL))["operationState"] == "COMPLETED"


async def test_a_clash_is_told_at_once_and_begins_nothing(world: World) -> None:
    async with world.agent():
        await world.started()
        other = await world.created()
        status, problem, _ = await world.ask("POST", f"/app_instances/{other}/instantiate", HOST)
        assert (status, problem["errors"][0]["field"]) == (409, "services[0].name")
        assert state_of(await world.instance(other)) == "NOT_INSTANTIATED"
        assert len((await world.ask("GET", "/app_lcm_op_occs"))[1]) == 1
        assert (await world.ask("DELETE", f"/app_instances/{other}"))[0] == 204


async def test_the_orchestrator_may_choose_the_vim(world: World) -> None:
    async with world.agent() as manager:
        await world.declared()
        identifier = await world.created()
        where = {"vimConnectionInfo": [{"id": "1", "vimId": "other", "vimType": "x"}]}
        await world.done(identifier, "instantiate", {**HOST, **where})
        assert manager.instance(identifier).app.vim == "other"


async def test_apps_that_others_removed_or_that_ended_are_stopped(world: World) -> None:
    async with world.agent():
        identifier = await world.started()
        assert world.session is not None
        async with world.session.delete(f"/apps/{identifier}?wait=5") as response:
            assert response.status == 200

        async def stopped() -> bool:
            return state_of(await world.instance(identifier)) == "STOPPED"

        await until(stopped)
        assert (await world.done(identifier, "operate", START))["operationState"] == "COMPLETED"
        world.vim.holds.clear()
        await world.task(identifier, "operate", STOP)
        world.vim.holds.set()
        await until(stopped)
        world.vim.holds.clear()
        occurrence = await world.task(identifier, "operate", START)
        async with world.session.delete(f"/apps/{identifier}?wait=0"):
            world.vim.holds.set()
        assert "another request" in (await world.ended(occurrence))["error"]["detail"]


async def test_an_app_that_is_not_to_come_again_stops_its_instance(world: World) -> None:
    async with world.agent():
        await world.declared(restart="never")
        identifier = await world.created()
        await world.done(identifier, "instantiate", HOST)
        world.vim.lose(f"tof.default.{identifier}", "exit status 1")

        async def stopped() -> bool:
            return state_of(await world.instance(identifier)) == "STOPPED"

        await until(stopped)
        assert (await world.done(identifier, "operate", START))["operationState"] == "COMPLETED"


async def test_the_next_agent_goes_on(world: World) -> None:
    async with world.agent():
        await world.subscribed("AppLcmOpOccStateChange")
        identifier = await world.started()
        await world.done(identifier, "operate", STOP)
        world.vim.holds.clear()
        occurrence = await world.task(identifier, "operate", START)
    world.vim.holds.set()
    async with world.agent():
        assert (await world.ended(occurrence))["operationState"] == "COMPLETED"
        assert state_of(await world.instance(identifier)) == "STARTED"
        assert len((await world.ask("GET", "/subscriptions"))[1]["_links"]["subscriptions"]) == 1
        assert (await world.ask("GET", "/app_descriptors/web"))[1]["appDId"] == "web"

        async def told() -> bool:
            ours = [one for one in world.subscriber.told if one["appLcmOpOccId"] == occurrence]
            return bool(ours) and ours[-1]["notificationType"] == "COMPLETED"

        await until(told)


@pytest.mark.parametrize("operation", [Operation.INSTANTIATE, Operation.TERMINATE])
async def test_what_the_core_had_not_heard_of_is_asked_for_again(world: World, operation: Operation) -> None:
    """The agent was killed between keeping the operation and asking the core."""
    target = Power.STARTED if operation is Operation.INSTANTIATE else Power.NOT_INSTANTIATED
    before = Power.NOT_INSTANTIATED if operation is Operation.INSTANTIATE else Power.STARTED
    instance = Instance("abc", parse_descriptor("web", world.descriptor()), power=before)
    async with Store(world.dir / "services.db") as store:
        await store.change_lcm((instance, Occurrence("op", "abc", operation, target, 1.0, 1.0)))
    async with world.agent():
        assert (await world.ended("op"))["operationState"] == "COMPLETED"
        assert state_of(await world.instance("abc")) == target.value


async def test_what_the_core_refuses_afterwards_has_failed(world: World) -> None:
    descriptor = parse_descriptor("web", world.descriptor(vim="gone"))
    waiting = Occurrence("op", "abc", Operation.INSTANTIATE, Power.STARTED, 1.0, 1.0)
    async with Store(world.dir / "services.db") as store:
        await store.change_lcm((Instance("abc", descriptor), waiting))
    async with world.agent():
        assert "no VIM called gone" in (await world.ended("op"))["error"]["detail"]


async def test_a_disk_that_refuses(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async with world.agent():
        await world.declared()
        identifier = await world.created()
        assert world.store is not None
        keep = world.store.change_lcm

        async def refuse(*_: Any) -> None:
            raise BackendError("disk full")

        monkeypatch.setattr(world.store, "change_lcm", refuse)
        for method, path, body in (
            ("POST", "/app_instances", {"appDId": "web"}),
            ("PUT", "/app_descriptors/web", world.descriptor(restart="never")),
            ("PUT", "/app_descriptors/new", world.descriptor()),
            ("POST", f"/app_instances/{identifier}/instantiate", HOST),
            ("DELETE", f"/app_instances/{identifier}", None),
        ):
            assert (await world.ask(method, path, body))[0] == 503
        monkeypatch.setattr(world.store, "change_lcm", keep)
        assert [one["id"] for one in (await world.ask("GET", "/app_instances"))[1]] == [identifier]
        assert (await world.ask("GET", "/app_lcm_op_occs"))[1] == []
        assert [one["appDId"] for one in (await world.ask("GET", "/app_descriptors"))[1]] == ["web"]
        assert "restart" not in (await world.ask("GET", "/app_descriptors/web"))[1]["app"]
        assert (await world.done(identifier, "instantiate", HOST))["operationState"] == "COMPLETED"


async def test_a_disk_that_refuses_while_an_operation_goes_on(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lcm, "RETRY_S", 0.01)
    async with world.agent():
        await world.declared()
        identifier = await world.created()
        world.vim.holds.clear()
        occurrence = await world.task(identifier, "instantiate", HOST)
        assert world.store is not None
        keep, refused = world.store.change_lcm, asyncio.Event()

        async def refuse(*_: Any) -> None:
            refused.set()
            raise BackendError("disk full")

        monkeypatch.setattr(world.store, "change_lcm", refuse)
        world.vim.holds.set()
        assert (await world.ended(occurrence))["operationState"] == "COMPLETED"
        await refused.wait()
        monkeypatch.setattr(world.store, "change_lcm", keep)

        async def kept() -> bool:
            assert world.store is not None
            there = {one.id: one for one in await world.store.load_lcm()}
            one = there[occurrence]
            return isinstance(one, Occurrence) and one.phase is Phase.COMPLETED

        await until(kept)


async def test_subscriptions_are_kept_shown_and_removed(world: World) -> None:
    async with world.agent():
        one = await world.subscribed("AppInstanceStateChange", appInstanceState="STOPPED")
        two = await world.subscribed("AppLcmOpOccStateChange")
        kind = "subscriptionType=AppInstanceStateChange"
        assert (await world.ask("GET", f"/subscriptions/{one}?{kind}"))[1]["notificationType"] == "STOPPED"
        assert (await world.ask("GET", f"/subscriptions/{two}?{kind}"))[0] == 404
        links = (await world.ask("GET", f"/subscriptions?{kind}"))[1]["_links"]["subscriptions"]
        assert [link["href"].rpartition("/")[2] for link in links] == [one]
        identifier = await world.started()
        await world.done(identifier, "operate", STOP)

        async def told() -> bool:
            return len(world.subscriber.told) == 1 + 6

        await until(told)
        assert (await world.ask("DELETE", f"/subscriptions/{two}"))[0] == 204
        assert (await world.ask("DELETE", f"/subscriptions/{one}"))[0] == 204
        assert (await world.ask("GET", "/subscriptions"))[1]["_links"]["subscriptions"] == []
        other = {"subscriptionType": "AppLcmOpOccStateChange", "callbackUri": world.subscriber.url}
        assert (await world.ask("POST", f"/subscriptions?{kind}", other))[0] == 400


@pytest.mark.parametrize(
    "uri",
    [
        "ftp://127.0.0.1/x",
        "http://",
        "http://127.0.0.1:0/",
        "http://127.0.0.1:99999/",
        "http://user@127.0.0.1/",
        "http://127.0.0.1/#x",
        "http://127.0.0.1/a b\n",
        "http://192.0.2.1/",
        "http://[::ffff:192.0.2.1]/",
        "http://[::1]/",
        "http://0.0.0.0/",
    ],
)
async def test_callbacks_go_only_where_the_operator_permits(world: World, uri: str) -> None:
    async with world.agent():
        body = {"subscriptionType": "AppInstanceStateChange", "callbackUri": uri}
        status, problem, _ = await world.ask("POST", "/subscriptions", body)
        assert (status, problem["errors"][0]["field"]) == (400, "callbackUri")


async def test_a_name_is_looked_at_when_it_is_used(world: World) -> None:
    port = world.subscriber.url.rpartition(":")[2]
    async with Callbacks([ip_network("127.0.0.0/8")]) as callbacks:
        callbacks.check(f"http://localhost:{port}")
        await callbacks.post(f"http://localhost:{port}", {"_links": {}})
        world.subscriber.answers = [307]
        with pytest.raises(BackendError, match="answers 307"):
            await callbacks.post(world.subscriber.url, {})
        with pytest.raises(BackendError, match=r"127\.0\.0\.1:1"):
            await callbacks.post("http://127.0.0.1:1/", {})
    async with Callbacks([ip_network("192.0.2.0/24")]) as callbacks:
        callbacks.check(f"http://localhost:{port}")
        with pytest.raises(BackendError, match="may go to"):
            await callbacks.post(f"http://localhost:{port}", {})
        with pytest.raises(BackendError, match="may go to"):
            await callbacks.post(world.subscriber.url, {})
        with pytest.raises(BackendError):
            await callbacks.post(f"http://2130706433:{port}", {})


async def test_notifications_are_sent_again_in_order_and_given_up(world: World) -> None:
    async with world.agent():
        await world.subscribed("AppInstanceStateChange")
        world.subscriber.answers = [500, 500, 204, 500, 404, 307]
        identifier = await world.started()
        await world.done(identifier, "operate", STOP)
        await world.done(identifier, "terminate", GRACEFUL)
        notifier = world.notifier
        assert notifier is not None

        async def counted() -> bool:
            return (notifier.sent, notifier.lost) == (2, 1)

        await until(counted)
        told = [one["notificationType"] for one in world.subscriber.told]
        assert told == ["STARTED", "NOT_INSTANTIATED"], "the second one was given up"

        class Samples(Collector):
            def collect(self) -> Any:
                return notifier.metrics()

        assert 'tof_app_lcm_notifications_total{result="lost"} 1.0' in generate_latest(Samples()).decode()


async def test_what_waits_is_bounded_and_nobody_delays_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notifying, "MOST_WAITING", 2)
    accepts, got = asyncio.Event(), []

    class Posts:
        async def post(self, uri: str, body: Any) -> None:
            if uri == "slow":
                await accepts.wait()
            got.append((uri, body["n"]))

    notifier = Notifier(Posts())
    some = Subscription("slow", Subject.INSTANCES, "slow", "http://localhost")
    async with asyncio.TaskGroup() as group:
        running = group.create_task(notifier.run())
        notifier.add(some)
        notifier.add(replace(some, id="fast", callback="fast"))
        await asyncio.sleep(0)
        for n in range(4):
            notifier.tell("slow", {"n": n})
            notifier.tell("fast", {"n": n})
            notifier.tell("nobody", {"n": n})
            await asyncio.sleep(0.01)
        assert got == [("fast", n) for n in range(4)]
        accepts.set()
        await asyncio.sleep(0.01)
        assert got[4:] == [("slow", 0), ("slow", 2), ("slow", 3)]
        notifier.remove("slow")
        notifier.remove("slow")
        running.cancel()
    assert notifier.lost == 1


async def test_lists_are_filtered(world: World) -> None:
    async with world.agent():
        identifier = await world.started()
        await world.declared("odd/id", services=[], health={"kind": "icmp"})
        other = await world.created(appDId="odd/id")

        async def found(query: str) -> list[str]:
            return [one["id"] for one in (await world.ask("GET", f"/app_instances?{query}"))[1]]

        assert await found("filter=(eq,instantiationState,INSTANTIATED)") == [identifier]
        assert await found("filter=(eq,appDId,odd/id)") == [other]
        assert await found("filter=(neq,instantiatedAppState/operationalState,STARTED)") == [other]
        assert {*await found("all_fields")} == {identifier, other}
        short = (await world.ask("GET", "/app_instances?exclude_fields=instantiatedAppState"))[1]
        assert all("instantiatedAppState" not in one for one in short)


async def test_descriptors_are_declared_replaced_and_retracted(world: World) -> None:
    async with world.agent():
        place = "/app_descriptors/urn%3Aexample%3Aweb"
        status, body, _ = await world.ask("PUT", place, world.descriptor())
        assert (status, body) == (
            201,
            {"appDId": "urn:example:web", **world.descriptor(), "app": body["app"]},
        )
        assert body["app"]["command"] == ["/bin/web"]
        assert (await world.ask("PUT", place, body))[0] == 200
        assert (await world.ask("GET", place))[1] == body
        assert (await world.ask("GET", "/app_descriptors"))[1] == [body]
        for wrong, field_ in (
            ({**body, "appDId": "other"}, "appDId"),
            ({**body, "app": {"name": "x", **body["app"]}}, "app.name"),
            ({**body, "app": {}}, "app.command"),
            ({**body, "app": {"command": 1}}, "app.command"),
        ):
            status, problem, _ = await world.ask("PUT", place, wrong)
            assert (status, problem["errors"][0]["field"]) == (400, field_)
        identifier = await world.created(appDId="urn:example:web")
        assert (await world.ask("DELETE", place))[0] == 204
        assert (await world.ask("DELETE", place))[0] == 404
        assert (await world.ask("POST", "/app_instances", {"appDId": "urn:example:web"}))[0] == 400
        assert (await world.done(identifier, "instantiate", HOST))["operationState"] == "COMPLETED"


async def test_there_is_no_room_for_everything(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lcm_records, "MOST_INSTANCES", 1)
    monkeypatch.setattr(lcm_records, "MOST_OVER", 1)
    async with world.agent():
        identifier = await world.started()
        assert (await world.ask("POST", "/app_instances", {"appDId": "web"}))[0] == 403
        await world.done(identifier, "operate", STOP)
        last = await world.task(identifier, "terminate", GRACEFUL)

        async def only_last() -> bool:
            listed = (await world.ask("GET", "/app_lcm_op_occs"))[1]
            return [one["id"] for one in listed] == [last] and listed[0]["operationState"] == "COMPLETED"

        await until(only_last)
    async with world.agent() as manager:
        assert [one.phase for one in manager.occurrences()] == [Phase.COMPLETED]


async def test_without_vims(world: World) -> None:
    async with (
        serve(create_app(MemoryPort()), ["http://127.0.0.1:0"]) as (url,),
        aiohttp.ClientSession(url) as session,
    ):
        world.session = session
        assert (await world.ask("GET", "/app_instances"))[0] == 503
        async with session.get(f"{BASE}/openapi.json") as response:
            assert (await response.json())["info"]["title"] == "tof, application life-cycle"
