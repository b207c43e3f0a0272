"""Probes the applications whose services say how, and tells the agent what came of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import structlog

from tof.agent.events import ApplicationProbed
from tof.agent.health import Application
from tof.agent.services import ServicePlane
from tof.drivers.probes import ProbeError, probe
from tof.model import HealthCheck, IpAddress, Mode, Service, probe_port

log = structlog.get_logger("tof.prober")


@dataclass(frozen=True, slots=True)
class _Target:
    name: str
    address: IpAddress
    port: int
    check: HealthCheck

    @property
    def application(self) -> Application:
        return self.name, self.address


class Prober:
    """One task an application; which ones follows from the services."""

    def __init__(
        self, device: str, services: ServicePlane, tell: Callable[[ApplicationProbed], object]
    ) -> None:
        self._device, self._services, self._tell = device, services, tell
        self._changed, self._news = asyncio.Event(), asyncio.Event()
        self._why: dict[Application, str] = {}

    async def run(self) -> None:
        """Probe for ever."""
        tasks: dict[_Target, asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as group:
            while True:
                self._changed.clear()
                wanted = {target for s in self._services.catalog.services for target in _targets(s)}
                for target in tasks.keys() - wanted:
                    tasks.pop(target).cancel()
                for target in wanted - tasks.keys():
                    tasks[target] = group.create_task(self._watch(target), name=f"probe {target.name}")
                await self._changed.wait()

    def review(self) -> None:
        """The services have changed."""
        self._changed.set()

    async def first_answer(self, service: Service, patience_s: float) -> None:
        """Wait a moment for the first probes of a new service."""
        self.review()
        health = self._services.health
        try:
            async with asyncio.timeout(patience_s):
                while not all(health.asked(service.name, one) for one in service.applications):
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            return

    def why(self, service: Service, application: IpAddress) -> str:
        """Why this application of the service counts as dead."""
        return self._why.get((service.name, application), "it has not answered a probe yet")

    async def _watch(self, target: _Target) -> None:
        loop = asyncio.get_running_loop()
        while True:
            began, before = loop.time(), self._services.health.lives(*target.application)
            answered = await self._ask(target)
            self._tell(ApplicationProbed(*target.application, answered))
            self._news.set()
            lives = self._services.health.lives(*target.application)
            if lives != before:
                what = "an application lives" if lives else "an application is dead"
                why = self._why.get(target.application, "")
                log.info(what, service=target.name, application=str(target.address), why=why)
            await asyncio.sleep(max(0.0, began + target.check.interval_s - loop.time()))

    async def _ask(self, target: _Target) -> bool:
        try:
            await probe(target.address, target.check, target.port, self._device)
        except ProbeError as error:
            self._why[target.application] = f"{target.check.kind} probe: {error}"
            return False
        self._why.pop(target.application, None)
        return True


def _targets(service: Service) -> Iterator[_Target]:
    if service.health is not None and service.mode is Mode.DIVERT:
        for application in service.applications:
            yield _Target(service.name, application, probe_port(service) or 0, service.health)
