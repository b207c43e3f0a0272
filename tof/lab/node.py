"""Laboratory: a TOF in its namespace, run and spoken to as an operator would."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from tof.errors import BackendError
from tof.lab.namespaces import Job, Lab, Result, until

APP_ADDRESSES = ("192.168.50.1/24", "fd00:50::1/64")
TARGETS = ("8.8.8.8", "2001:4860:4860::8888")

_CONFIG = """\
[s1]
enb_interface = "enb0"
sgw_interface = "sgw0"
[ue]
app_interface = "apps0"
app_address = {app_addresses}
[pinger]
target = {targets}
[tunnels]
idle_timeout_s = {idle_timeout_s:g}
[api]
listen = ["unix:{dir}/api.sock"]
[state]
dir = "{dir}/state"
run_dir = "{dir}/run"
"""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer of the API: status and JSON body (None if empty)."""

    status: int
    body: Any


class TofNode:
    """The TOF under test: ``tof agent`` in the namespace of ``role``, its API on a Unix socket."""

    def __init__(self, lab: Lab, role: str) -> None:
        self.lab = lab
        self.role = role
        self.agent: Job | None = None
        self.dir = lab.dir / "node"
        self.config = self.dir / "tof.toml"
        self.socket = self.dir / "api.sock"

    def configure(self, idle_timeout_s: float = 300.0, *, ipv6: bool = False) -> None:
        """Write the configuration that the next start uses; ``ipv6``: applications and pings of both families."""
        for each in (self.dir, self.dir / "state", self.dir / "run"):
            each.mkdir(exist_ok=True)
        families = slice(None) if ipv6 else slice(1)
        lists = {"app_addresses": APP_ADDRESSES[families], "targets": TARGETS[families]}
        texts = {name: json.dumps(values) for name, values in lists.items()}
        self.config.write_text(_CONFIG.format(dir=self.dir, idle_timeout_s=idle_timeout_s, **texts))

    async def start(self) -> None:
        """Start the agent; returns when its API answers."""
        argv = (sys.executable, "-m", "tof", "agent", "--config", str(self.config))
        self.agent = await self.lab.start(self.role, "agent", *argv)
        await until("the agent's API answers", self._healthy, within=30.0)

    async def _healthy(self) -> bool | None:
        if self.agent is None or self.agent.process.returncode is not None:
            raise BackendError(f"the agent ended: {self.agent.output.strip()[-1000:] if self.agent else ''}")
        with contextlib.suppress(aiohttp.ClientError, OSError):
            return (await self.request("GET", "/health")).status == 200 or None
        return None

    async def kill(self) -> None:
        """``kill -9`` of the agent, and of nothing else."""
        if self.agent is not None:
            self.agent.process.kill()
            await self.agent.process.wait()

    async def stop(self) -> None:
        """SIGTERM to the agent: the data plane stays."""
        if self.agent is not None:
            self.agent.process.send_signal(signal.SIGTERM)
            await self.agent.process.wait()

    async def tof(self, *arguments: str) -> Result:
        """Run ``tof ... --config FILE`` beside the agent."""
        argv = (sys.executable, "-m", "tof", *arguments, "--config", str(self.config))
        return await self.lab.run(self.role, *argv, check=False)

    async def request(self, method: str, path: str, body: object = None, timeout_s: float = 15.0) -> Answer:
        """Ask the API."""
        connector = aiohttp.UnixConnector(path=str(self.socket), force_close=True)
        limit = aiohttp.ClientTimeout(total=timeout_s)
        async with (
            aiohttp.ClientSession(connector=connector, timeout=limit) as session,
            session.request(method, f"http://tof{path}", json=body) as answer,
        ):
            text = await answer.text()
            is_json = "json" in answer.content_type
            return Answer(answer.status, await answer.json(content_type=None) if is_json and text else None)

    async def tunnels(self) -> list[dict[str, Any]]:
        """``GET /tunnels``."""
        body: list[dict[str, Any]] = (await self.request("GET", "/tunnels")).body
        return body

    async def tunnels_of(self, ue: str) -> dict[str, dict[str, Any]]:
        """What is known of one UE: direction -> tunnel."""
        return {each["direction"]: each for each in await self.tunnels() if ue in each["ues"]}

    async def provision(self, name: str, service: str, application: str) -> Answer:
        """``POST /service``."""
        body = {"name": name, "serviceIP": service, "applicationIP": application}
        return await self.request("POST", "/service", body)

    async def withdraw(self, name: str) -> Answer:
        """``DELETE /service/{name}``."""
        return await self.request("DELETE", f"/service/{name}")

    def pids_of(self, program: str) -> list[int]:
        """Process ids that the private Open vSwitch left in ``run_dir``."""
        return [int(file.read_text()) for file in sorted(Path(self.dir / "run").rglob(f"{program}*.pid"))]
