"""A VIM that keeps its instances in memory and fails as told; services in a real catalog."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from ipaddress import ip_address

from tof.agent.catalog import Catalog
from tof.model import Service
from tof.vim.interface import AppSpec, Instance, InstanceState

ADDRESS = ip_address("127.0.0.1")


class MemoryVim:
    """One that tells of losses only if ``tells``."""

    def __init__(self) -> None:
        self.instances: dict[str, Instance] = {}
        self.calls: list[str] = []
        self.fails: dict[str, list[Exception]] = {}
        self.holds = asyncio.Event()
        self.holds.set()
        self.told: Callable[[str, str], None] = lambda _key, _why: None
        self.closed = False

    async def create(self, spec: AppSpec, *, key: str, deadline: float) -> Instance:
        await self._called("create")
        timings = (("start", 0.001),)
        made = Instance(key, f"x-{spec.name}", InstanceState.ACTIVE, (ADDRESS,), ADDRESS, timings=timings)
        return self.instances.setdefault(key, made)

    async def get(self, key: str) -> Instance | None:
        await self._called("get")
        return self.instances.get(key)

    async def list(self) -> Sequence[Instance]:
        await self._called("list")
        return list(self.instances.values())

    async def delete(self, key: str, *, deadline: float) -> None:
        await self._called("delete")
        self.instances.pop(key, None)

    def on_loss(self, told: Callable[[str, str], None]) -> None:
        self.told = told

    async def tend(self) -> None:
        await self._called("tend")

    async def aclose(self) -> None:
        self.closed = True

    def lose(self, key: str, why: str) -> None:
        """It ends, and nobody is told."""
        self.instances[key] = replace(self.instances[key], state=InstanceState.ERROR, fault=why)

    async def _called(self, name: str) -> None:
        self.calls.append(name)
        await self.holds.wait()
        if self.fails.get(name):
            raise self.fails[name].pop(0)


class MemoryServices:
    """Services, in force as soon as they are in the catalog."""

    def __init__(self) -> None:
        self.catalog = Catalog()
        self.fails: list[Exception] = []
        self.calls: list[str] = []

    def check_new(self, services: Iterable[Service]) -> None:
        self.catalog.check_new(services)

    async def list_services(self) -> Sequence[Service]:
        return self.catalog.services

    async def provision(self, services: Sequence[Service]) -> None:
        self.calls.append("provision")
        self._fail()
        for service in services:
            if service not in self.catalog.services:
                self.catalog.put_new(service)

    async def withdraw(self, names: Sequence[str]) -> None:
        self.calls.append("withdraw")
        self._fail()
        for name in names:
            self.catalog.remove(name)

    def _fail(self) -> None:
        if self.fails:
            raise self.fails.pop(0)
