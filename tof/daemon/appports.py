"""Ports of br-ue that applications have of their own: those of the configuration, and those that come and go.

What was plugged at run time stays plugged over a restart of the agent: its traffic goes on, and whoever plugged it says so
again within ``REPLUG_S``, or it goes. A file in ``run_dir`` tells the next agent which there were; no reboot survives it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar
from zlib import crc32

import structlog

from tof.agent.events import AppPortsChanged
from tof.config import Application, Config, checked_application
from tof.daemon.feed import Feed
from tof.daemon.plugged import Plugged, PluggedFile
from tof.daemon.switch import Switch
from tof.dataplane.desired import AppPort
from tof.drivers.ovsdb import Port
from tof.drivers.record import PLUGGED
from tof.drivers.sockets import FrameSocket
from tof.drivers.splices import Splices
from tof.drivers.vnf_ports import indices, is_up
from tof.errors import BackendError, BadRequest, NotFound, SetupError
from tof.model import IpAddress

log = structlog.get_logger("tof.ports")

T = TypeVar("T")

FIRST_PORT, PORTS = 0x8000, 0x7E00
"""OpenFlow numbers of application ports; they are conntrack zones as well."""
REPLUG_S = 60.0
LOOK_S, RETRY_S = 0.2, 1.0
IN_FORCE_S = 5.0


class AppPorts:
    """Keeps the applications' ports; one change at a time."""

    def __init__(
        self, config: Config, splices: Splices, switch: Switch, feed: Feed, review: Callable[[], object]
    ) -> None:
        self._config, self._splices, self._switch, self._feed = config, splices, switch, feed
        self._review = review
        self._file = PluggedFile(config.state.run_dir / PLUGGED)
        self._given = {application.name for application in config.applications}
        self._ports: dict[str, Application] = {}
        self._numbers: dict[str, int] = {}
        self._inherited: set[str] = set()
        self._joined: dict[str, int] = {}
        self._sides: dict[str, FrameSocket] = {}
        self._told: AppPortsChanged | None = None
        self._why: dict[str, str] = {}
        self._retry_at: dict[str, float] = {}
        self._lock = asyncio.Lock()
        switch.app_ports = self._devices

    @property
    def missing(self) -> dict[str, str]:
        """The ports that are not there, and why."""
        return dict(self._why)

    def side(self, application: IpAddress) -> FrameSocket | None:
        """Where frames to an application with a port of its own are sent."""
        for name, port in self._ports.items():
            if application in port.addresses:
                return self._sides.get(name)
        return None

    async def begin(self) -> None:
        """Take over, before the first reconciliation, what is configured and what a former agent had plugged."""
        former = self._file.read()
        for application in self._config.applications:
            self._put(application)
        for application, number, given in former:
            if application.name not in self._ports and not given and not self._refusal(application):
                self._put(application, number)
                self._inherited.add(application.name)
        for application, _, _ in former:
            now = self._ports.get(application.name)
            if now is None or now.interface != application.interface:
                await self._leave(application)
        for application in self._ports.values():
            await self._join(application)
        self._look()
        self._save()

    async def run(self) -> None:
        """Follow their interfaces for ever, and drop what nobody plugs again."""
        forget_at = self._now() + REPLUG_S
        while True:
            await asyncio.sleep(LOOK_S)
            async with self._lock:
                for application in list(self._ports.values()):
                    await self._renew(application)
                self._look()
            if self._inherited and self._now() > forget_at:
                for name in sorted(self._inherited):
                    log.info("nobody has plugged a port again: it goes", application=name)
                    with suppress(BackendError):  # it is tried again
                        await self.unplug(name)

    async def plug(
        self,
        name: str,
        interface: str,
        mac: bytes,
        addresses: tuple[IpAddress, ...],
        groups: tuple[str, ...] = (),
    ) -> None:
        """Make the interface a port of br-ue for the application ``name``; in force when it returns.

        The same again changes nothing; another interface, address or group for a name that there is takes its place.
        RequestError or BackendError: everything is as it was.
        """
        application = Application(name, interface, mac, addresses, groups)
        async with self._lock:
            self._check(application)
            before = self._ports.get(name)
            self._inherited.discard(name)
            try:
                if before != application or name not in self._joined:
                    await self._plug(application, before)
                self._look()
                await self._switch.in_force(self._feed.agent.revision, IN_FORCE_S)
            except BaseException:
                await self._undo(application, before)
                raise

    async def unplug(self, name: str) -> None:
        """Give the interface of an application's port back; nothing to do is fine. NotFound if it is configured."""
        async with self._lock:
            if name in self._given:
                raise NotFound(f"{name} has its port from the configuration", "name")
            application = self._ports.get(name)
            if application is None:
                return
            self._drop(name)
            self._look()
            with suppress(BackendError):  # without Open vSwitch there is nothing to wait for
                await self._switch.in_force(self._feed.agent.revision, IN_FORCE_S)
            await self._leave(application)
            self._save()

    async def _plug(self, application: Application, before: Application | None) -> None:
        if before is not None and before.interface != application.interface:
            await self._leave(before)
        self._put(application)
        self._save()
        try:
            await self._join_now(application)
        except SetupError as error:
            raise BadRequest(str(error), "interface") from error

    async def _undo(self, application: Application, before: Application | None) -> None:
        if before is None or before.interface != application.interface:
            self._drop(application.name)
            self._look()
            await self._leave(application)
        if before is not None:
            self._put(before)
            await self._join(before)
        self._look()
        self._save()

    def _check(self, application: Application) -> None:
        if application.name in self._given:
            raise BadRequest(f"{application.name} has its port from the configuration", "name")
        known = {group.name for group in self._feed.agent.services.plugged.groups}
        for group in application.security_groups:
            if group not in known:
                raise BadRequest(f"there is no security group called {group}", "groups")
        if why := self._refusal(application):
            raise BadRequest(why)

    def _refusal(self, application: Application) -> str:
        try:
            checked_application(application, self._config, self._ports.values())
        except SetupError as error:
            return str(error)
        return ""

    def _put(self, application: Application, number: int | None = None) -> None:
        self._ports[application.name] = application
        if application.name in self._numbers:
            return
        taken = set(self._numbers.values())
        number = FIRST_PORT + crc32(application.name.encode()) % PORTS if number is None else number
        while number in taken:
            number = FIRST_PORT + (number + 1 - FIRST_PORT) % PORTS
        self._numbers[application.name] = number

    def _drop(self, name: str) -> None:
        self._ports.pop(name, None)
        self._numbers.pop(name, None)
        self._why.pop(name, None)
        self._inherited.discard(name)

    async def _join(self, application: Application) -> None:
        """Join it if that can be; it is tried again as long as it is wanted."""
        try:
            await self._join_now(application)
        except (BackendError, SetupError) as error:
            if self._why.get(application.name) != str(error):
                log.warning(
                    "an application's port is not there", application=application.name, why=str(error)
                )
            self._why[application.name] = str(error)

    async def _join_now(self, application: Application) -> None:
        name = application.name
        index = await _waited_for(self._splices.join, application)
        await self._switch.add_port(self._device(name))
        if (stale := self._sides.pop(name, None)) is not None:
            stale.close()
        self._sides[name] = FrameSocket(application.interface)
        self._joined[name] = index
        self._why.pop(name, None)

    async def _leave(self, application: Application) -> None:
        """Nothing of it is left behind, as far as the host lets go of it."""
        name = application.name
        self._joined.pop(name, None)
        if (side := self._sides.pop(name, None)) is not None:
            side.close()
        for step in (
            self._switch.drop_port(self._config.names.app_pair(name)[1]),
            _waited_for(self._splices.part, application),
        ):
            try:
                await step
            except (BackendError, SetupError) as error:
                log.warning("an application's port is not all gone", application=name, why=str(error))

    async def _renew(self, application: Application) -> None:
        """Join an interface that has come, or come again under its name."""
        try:
            (index,) = indices(application.interface)
        except BackendError:
            self._joined.pop(application.name, None)
            self._why[application.name] = f"there is no interface {application.interface}"
            return
        if self._joined.get(application.name) != index and self._now() >= self._retry_at.get(
            application.name, 0
        ):
            self._retry_at[application.name] = self._now() + RETRY_S
            await self._join(application)

    def _look(self) -> None:
        """Tell the agent which ports there are, and which have a link."""
        linked = {
            name for name, port in self._ports.items() if name in self._joined and is_up(port.interface)
        }
        ports = tuple(
            AppPort(name, self._numbers[name], port.mac, port.addresses, port.security_groups)
            for name, port in self._ports.items()
        )
        event = AppPortsChanged(ports, frozenset(linked))
        if event != self._told:
            self._told = event
            self._feed.handle(event)
            self._review()

    def _device(self, name: str) -> Port:
        return Port(self._config.names.app_pair(name)[1], self._numbers[name])

    def _devices(self) -> tuple[Port, ...]:
        return tuple(self._device(name) for name in self._joined)

    def _save(self) -> None:
        """What the next agent takes over."""
        self._file.write(
            Plugged(port, self._numbers[name], given=name in self._given)
            for name, port in self._ports.items()
        )

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()


async def _waited_for(call: Callable[[Application], T], application: Application) -> T:
    """What the call in a thread gives, which is waited for even by a caller that is cancelled: it cannot be stopped."""
    work = asyncio.ensure_future(asyncio.to_thread(call, application))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait([work])
        raise
