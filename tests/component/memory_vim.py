"""A VIM that keeps its instances in memory and fails as told; services in a real catalog."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from ipaddress import ip_address

from tof.agent.catalog import Catalog
from tof.model import Service
from tof.vim.interface import AppSpec, Instance, InstanceState

ADDRESS, REACH = ip_address("192.168.50.128"), ip_address("127.0.0.1")
"""What an instance has, and where it is reached: by a listener of the test."""


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
        made = Instance(key, f"x-{spec.name}", InstanceState.ACTIVE, (ADDRESS,), REACH, timings=timings)
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
    """Services that are in force at once; a catalog says which may be."""

    def __init__(self) -> None:
        self.catalog = Catalog()
        self.provided: dict[str, Service] = {}
        self.fails: list[Exception] = []

    def check_new(self, services: Iterable[Service]) -> None:
        self.catalog.check_new(services)

    async def list_services(self) -> Sequence[Service]:
        return tuple(self.provided.values())

    async def provision(self, services: Sequence[Service]) -> None:
        self._fail()
        for service in services:
            if self.provided.get(service.name) != service:
                self.catalog.put_new(replace(service, application_ip=ADDRESS))
                self.provided[service.name] = service

    async def withdraw(self, names: Sequence[str]) -> None:
        self._fail()
        for name in names:
            self.catalog.remove(name)
            del self.provided[name]

    def _fail(self) -> None:
        if self.fails:
            raise self.fails.pop(0)
