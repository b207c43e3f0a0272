"""The steps of an ME App's life, carried out: on its VIM, through the data plane, with its services."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from tof.agent.app import PLACEHOLDERS, App, Built, Step
from tof.agent.apps import Do, Done, Event, Failed, Found, Life
from tof.drivers.probes import ProbeError, probe
from tof.drivers.store import Store
from tof.errors import RequestError, TofError
from tof.model import HealthCheck, IpAddress, Service
from tof.vim.errors import Unavailable, VimError
from tof.vim.interface import AppSpec, Instance, InstanceState, Vim

DESTROY_S = 30.0
PROBE_PAUSE_S, LONGEST_PROBE_PAUSE_S = 0.005, 0.25


@dataclass(frozen=True, slots=True)
class Offer:
    """A VIM, how long it and what it made may take, and how many apps it takes at once, if that is known."""

    vim: Vim
    build_timeout_s: float = 30.0
    probe_timeout_s: float = 30.0
    capacity: int | None = None


class ServiceControl(Protocol):
    """How services are provisioned: all of them or none."""

    def check_new(self, services: Iterable[Service]) -> None:
        """Raise what ``provision`` would say of them now."""
        ...

    async def list_services(self) -> Sequence[Service]:
        """Every service."""
        ...

    async def provision(self, services: Sequence[Service]) -> None:
        """In force when it returns."""
        ...

    async def withdraw(self, names: Sequence[str]) -> None:
        """Gone when it returns."""
        ...


class AppSteps:
    """What a step means; each raises a TofError if it does not succeed."""

    def __init__(
        self, offers: Mapping[str, Offer], control: ServiceControl, store: Store, *, instance: str, device: str
    ) -> None:  # fmt: skip
        self.offers, self.control = offers, control
        self._store, self._instance, self._device = store, instance, device

    async def perform(self, life: Life, do: Do) -> Event:
        """Carry one out; what came of it."""
        match do.step:
            case Step.FIND:
                return await self._find(life)
            case Step.BUILD:
                return Done(_built(await self._create(life)))
            case Step.PROBE:
                await self._probe(life)
            case Step.PROVISION:
                assert life.built is not None
                await self.control.provision(_services(life.app, life.built))
            case Step.WITHDRAW:
                await self.control.withdraw(await self._owned(life))
            case Step.DESTROY:
                await self._offer(life).vim.delete(self.key(life.app.name), deadline=within(DESTROY_S))
            case Step.FORGET:
                await self._store.delete_app(life.app.name)
            case _:
                await asyncio.sleep(do.wait_s)
        return Done()

    async def _find(self, life: Life) -> Found:
        found = await self._offer(life).vim.get(self.key(life.app.name))
        if found is None:
            return Found(None)
        if found.state is not InstanceState.ACTIVE:
            return Found(None, found.fault or found.state.value)
        built = _built(await self._create(life))
        have = await self.control.list_services()
        return Found(built, served=all(mine in have for mine in _services(life.app, built)))

    async def _create(self, life: Life) -> Instance:
        app, offer = life.app, self._offer(life)
        spec = AppSpec(
            app.name, app.image, app.command, app.flavour, app.networks, app.environment, app.groups
        )
        return await offer.vim.create(spec, key=self.key(app.name), deadline=within(offer.build_timeout_s))

    async def _probe(self, life: Life) -> None:
        """Ask, by way of the data plane, until it answers."""
        assert life.built is not None
        check, port = life.app.probe
        address, within_s = life.built.reach, self._offer(life).probe_timeout_s
        why, pause = "", PROBE_PAUSE_S
        try:
            async with asyncio.timeout(within_s):
                while True:
                    try:
                        await probe(address, check, port, self._device)
                        return
                    except ProbeError as error:
                        why = str(error)
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, LONGEST_PROBE_PAUSE_S)
        except TimeoutError:
            where = _where(check, address, port)
            message = f"no good answer from {where} within {within_s:g} s: {why or 'none at all'}"
            raise VimError(message, "see whether it has come up, and listens there") from None

    async def _owned(self, life: Life) -> list[str]:
        """Those of its services that are provisioned, and were not made something else."""
        have = {service.name: service for service in await self.control.list_services()}
        addresses = {*life.built.addresses, life.built.reach} if life.built else set()
        owned = []
        for mine in life.app.services_at(PLACEHOLDERS.values()):
            found = have.get(mine.name)
            if found is not None:
                place = PLACEHOLDERS[found.application_ip.version]
                if found.application_ip in addresses or replace(found, application_ip=place) == mine:
                    owned.append(mine.name)
        return owned

    def _offer(self, life: Life) -> Offer:
        offer = self.offers.get(life.app.vim)
        if offer is None:
            raise Unavailable(f"no VIM called {life.app.vim} is configured", "put its section back")
        return offer

    def key(self, name: str) -> str:
        """What the app called ``name`` is for a VIM."""
        return f"tof.{self._instance}.{name}"

    def app_of(self, key: str) -> str | None:
        """The app with that key; None if the key is none of this TOF's."""
        ours = self.key("")
        return key.removeprefix(ours) if key.startswith(ours) else None


def within(seconds: float) -> float:
    """The moment in so many seconds, by the event loop's clock."""
    return asyncio.get_running_loop().time() + seconds


def _built(instance: Instance) -> Built:
    reach = instance.reach or instance.app_ip
    if reach is None or instance.state is not InstanceState.ACTIVE:
        raise VimError(instance.fault or f"it is {instance.state}", "see the VIM's own log")
    return Built(instance.addresses, reach, instance.backend_id, instance.timings)


def failure(error: TofError) -> Failed:
    """What an error says of a step."""
    if isinstance(error, VimError):
        return Failed(error.message, error.remedy)
    if isinstance(error, RequestError):
        return Failed(error.detail, "change the app's services, or what they clash with")
    return Failed(str(error), "see the agent's log and `tof status`, and try again")


def _where(check: HealthCheck, address: IpAddress, port: int) -> str:
    return f"{check.kind.value} {address}" + (f" port {port}" if port else "")


def _services(app: App, built: Built) -> tuple[Service, ...]:
    try:
        return app.services_at((*built.addresses, built.reach))
    except KeyError as error:
        message = f"the VIM gave no IPv{error.args[0]} address, which a service needs"
        raise VimError(message, "give the VIM a pool of that family, or the service another one") from None
