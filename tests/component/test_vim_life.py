"""The life of ME Apps on Nomad and OpenVIM, from the API: back-ends as configured, test servers that start real programs."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from memory_port import MemoryPort
from memory_vim import MemoryServices
from nomad_server import NEW, OLD, NomadServer
from openvim_server import OpenVimServer

from tof.api.app import create_app
from tof.api.server import serve
from tof.config import parse
from tof.daemon.apps import AppManager
from tof.daemon.clock import Clock
from tof.daemon.vims import offers_of
from tof.drivers.store import Store

CONFIG = """
[s1]
enb_interface = "enb0"
sgw_interface = "sgw0"
[ue]
app_interface = "apps0"
[vim.edge]
backend = "nomad"
url = "{nomad}"
site = "lab"
driver = "raw_exec"
[vim.old]
backend = "openvim"
url = "{openvim}/openvim"
site = "lab"
tenant = "mec"
network = "meapp-net"
platform_network = "mep-net"
"""


@dataclass
class Edge:
    """Both VIMs, and what an agent keeps."""

    nomad: NomadServer
    openvim: OpenVimServer
    config: str
    dir: Path
    port: int
    services: MemoryServices
    session: aiohttp.ClientSession | None = None

    @contextlib.asynccontextmanager
    async def agent(self) -> AsyncIterator[AppManager]:
        config = parse(self.config)
        remote = tuple(vim for vim in config.vims if vim.name != "local")
        offers = offers_of(replace(config, vims=remote), None)  # type: ignore[arg-type]
        async with Store(self.dir / "services.db") as store, asyncio.TaskGroup() as group:
            manager = AppManager(
                offers, self.services, store, Clock(), instance="default", device="lo", tend_s=0.02
            )  # fmt: skip
            await manager.recall()
            running = group.create_task(manager.run())
            app = create_app(MemoryPort(), apps=manager)
            async with serve(app, ["http://127.0.0.1:0"]) as (url,), aiohttp.ClientSession(url) as session:
                self.session = session
                yield manager
            running.cancel()

    def body(self, vim: str, **more: Any) -> dict[str, Any]:
        what: dict[str, Any] = {"image": "clickos-ping"}
        if vim == "edge":
            what = {"command": [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(self.port)]}
        service = {"name": "web", "serviceIP": "203.0.113.10", "protocol": "tcp", "ports": [80]}
        service["applicationPort"] = self.port
        health = {"kind": "http", "port": self.port}
        return {"name": "web", "vim": vim, "health": health, "services": [service], **what, **more}

    async def ask(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        assert self.session is not None
        async with self.session.request(method, path, json=body) as response:
            return response.status, await response.json(content_type=None) if await response.read() else None

    async def becomes(self, state: str, restarts: int) -> Any:
        for _ in range(1500):
            view = (await self.ask("GET", "/apps/web"))[1]
            if (view["state"], view["restarts"]) == (state, restarts):
                return view
            await asyncio.sleep(0.01)
        raise AssertionError(view)

    @property
    def left(self) -> list[str]:
        running = [
            process for ran in (self.nomad.ran, self.openvim.ran) for process in ran.values() if process
        ]
        return [*self.nomad.left, *self.openvim.left, *self.services.provided, *map(str, running)]


class Program(subprocess.Popen[bytes]):
    """One that has gone when it is killed."""

    def kill(self) -> None:
        super().kill()
        self.wait()


def started(*command: str) -> Program:
    return Program(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@pytest.fixture(params=[OLD, NEW])
async def edge(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Edge]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    nomad, openvim = NomadServer(request.param), OpenVimServer()
    openvim.prepared("127.0")
    nomad.address = "127.0.0.1"
    nomad.run = lambda task: started(task["Config"]["command"], *task["Config"]["args"])
    openvim.run = lambda server: started(
        sys.executable, "-m", "http.server", "--bind", server["networks"][0]["ip_address"], str(port)
    )
    async with nomad.running() as nomad_url, openvim.running() as openvim_url:
        config = CONFIG.format(nomad=nomad_url, openvim=openvim_url)
        made = Edge(nomad, openvim, config, tmp_path, port, MemoryServices())
        yield made
        for ran in (nomad.ran, openvim.ran):
            for process in filter(None, ran.values()):
                process.kill()


@pytest.mark.parametrize(("vim", "address"), [("edge", "127.0.0.1"), ("old", "127.0.77.4")])
async def test_an_app_from_the_call_to_its_end(edge: Edge, vim: str, address: str) -> None:
    async with edge.agent():
        status, view = await edge.ask("POST", "/apps?wait=20", edge.body(vim))
        assert (status, view["state"], view["reach"], view["addresses"]) == (201, "ready", address, [address])
        phases = {"edge": "build.driver", "old": "build.spawning"}
        assert {phases[vim], "build.rest", "probe", "provision", "total"} <= view["timings"].keys()
        assert [str(one.application_ip) for one in edge.services.provided.values()] == [address]
        assert (await edge.ask("POST", "/apps?wait=20", edge.body(vim)))[0] == 201
    async with edge.agent():  # the next agent takes it over
        assert (await edge.becomes("ready", 0))["reach"] == address
        assert (await edge.ask("DELETE", "/apps/web?wait=20"))[0] == 200
        assert edge.left == []


async def test_an_app_that_ends_is_made_again(edge: Edge) -> None:
    async with edge.agent():
        assert (await edge.ask("POST", "/apps?wait=20", edge.body("edge")))[0] == 201
        (process,) = edge.nomad.ran.values()
        process.kill()
        edge.nomad.end("tof.lab.default.web", 137)
        await edge.becomes("ready", 1)
        assert (await edge.ask("DELETE", "/apps/web?wait=20"))[0] == 200
        assert edge.left == []


@pytest.mark.parametrize(
    ("vim", "more", "said"),
    [
        ("edge", {"command": ["/nonexistent"]}, "could not be found"),
        ("edge", {"flavour": {"memoryMb": 100_000}}, "memory (1)"),
        ("old", {"flavour": {"memoryMb": 60_000}}, "No room at data center"),
        ("old", {"image": "none"}, "OpenVIM has no image none"),
    ],
)
async def test_an_app_that_the_vim_refuses(edge: Edge, vim: str, more: dict[str, Any], said: str) -> None:
    async with edge.agent():
        status, problem = await edge.ask("POST", "/apps?wait=20", edge.body(vim, **more))
        assert (status, problem["step"]) == (502, "build")
        assert said in problem["vim_message"]
        assert problem["hint"]
        assert edge.left == []


async def test_an_app_that_never_answers(edge: Edge) -> None:
    edge.config = edge.config.replace("[vim.old]", "probe_timeout_s = 0.5\n[vim.old]")
    async with edge.agent():
        body = edge.body("edge", command=["/bin/sleep", "600"])
        status, problem = await edge.ask("POST", "/apps?wait=20", body)
        assert (status, problem["step"]) == (502, "probe")
        assert edge.left == []


@pytest.mark.parametrize("vim", ["edge", "old"])
async def test_orphans_are_removed_at_start(edge: Edge, vim: str) -> None:
    async with edge.agent():
        assert (await edge.ask("POST", "/apps?wait=20", edge.body(vim)))[0] == 201
    (edge.dir / "services.db").unlink()
    edge.services = MemoryServices()
    async with edge.agent():
        for _ in range(1000):
            if not edge.left:
                break
            await asyncio.sleep(0.01)
        assert edge.left == []
