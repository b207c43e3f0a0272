"""The ``libvirt`` VIM: apps as virtual machines on KVM or QEMU, or unikernels on Xen, each on a port of br-ue of its own.

What an app takes is noted in its domain's metadata, in the same call that makes the domain known, which goes last: what a
failure, a cancellation or a killed agent leaves is found there. Nothing is kept elsewhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

from tof.agent.app import APPS_NETWORK
from tof.agent.domain import (
    PLATFORM_NETWORK,
    Condition,
    Domain,
    DomainError,
    Hypervisor,
    Image,
    Machine,
    Shape,
    machine_of,
)
from tof.agent.domain_xml import domain_xml
from tof.agent.sandbox import digest_of
from tof.errors import BackendError, RequestError, TofError
from tof.settled import finished
from tof.vim.domain_host import DomainHost
from tof.vim.errors import (
    AlreadyExists,
    BackendFault,
    Rejected,
    TimedOut,
    Unavailable,
    VimError,
)
from tof.vim.interface import AppNetwork, AppSpec, Instance, InstanceState
from tof.vim.libvirt_errors import vim_error
from tof.vim.libvirt_placing import LibvirtPolicy, placed
from tof.vim.phases import Phases

UNDO_S, ASK_S, TEND_S = 15.0, 5.0, 1.0
UNDO_PAUSE_S, LONGEST_UNDO_PAUSE_S = 0.05, 1.0


class LibvirtVim:
    """Apps as libvirt's domains, by key."""

    def __init__(self, host: DomainHost, network: AppNetwork, policy: LibvirtPolicy) -> None:
        self._host, self._network, self._policy = host, network, policy
        self._told: Callable[[str, str], None] = lambda _key, _why: None
        self._reserved: dict[str, Machine] = {}
        self._watched: set[str] = set()

    def on_loss(self, told: Callable[[str, str], None]) -> None:
        """Have ``told(key, why)`` called when an app ends by itself."""
        self._told = told

    async def create(self, spec: AppSpec, *, key: str, deadline: float) -> Instance:
        """The app under ``key``: adopted if it runs, else made."""
        digest = digest_of(spec)
        try:
            async with asyncio.timeout_at(deadline), _errors():
                before = await self._of(key)
                if before is not None and before.machine.digest != digest:
                    raise AlreadyExists(f"{key} is another app than the one asked for")
                if before is not None and before.condition is Condition.RUNNING:
                    return await self._adopt(before)
                if before is not None:
                    await finished(self._undo(before.machine))
                return await self._make(spec, key, digest)
        except TimeoutError:
            raise TimedOut("the app was not made in time, and what was there of it is removed") from None

    async def get(self, key: str) -> Instance | None:
        """What there is under ``key``."""
        domain = await self._of(key)
        return None if domain is None else self._shown(domain)

    async def list(self) -> Sequence[Instance]:
        """Every app of which something may be there."""
        return [self._shown(domain) for domain in await self._known()]

    async def delete(self, key: str, *, deadline: float) -> None:
        """End it and remove everything that it took."""
        domain = await self._of(key)
        if domain is None:
            return
        remaining = deadline - asyncio.get_running_loop().time()
        await finished(self._undo(domain.machine, min(UNDO_S, max(1.0, remaining))))

    async def tend(self) -> None:
        """Tell of the apps that have ended; keep logs within their bounds."""
        try:
            domains = await self._known(TEND_S)
        except Unavailable:  # nothing is known of any; whoever asks is told
            return
        running = {one.machine.key for one in domains if one.condition is Condition.RUNNING}
        for lost in sorted(self._watched - running):
            self._watched.discard(lost)
            domain = next((one for one in domains if one.machine.key == lost), None)
            self._told(lost, self._epitaph(domain) if domain else "libvirt has it no longer")
        await self._host.trim()

    async def aclose(self) -> None:
        """Apps go on."""
        self._host.close()

    async def _make(self, spec: AppSpec, key: str, digest: str) -> Instance:
        image = self._image(spec)
        hypervisor = await self._host.hypervisor()
        phases = Phases()
        machine = await self._place(spec, image, key, digest)
        try:
            xml = domain_xml(machine, self._shape(spec, image, hypervisor, machine))
            with phases.phase("define"):
                await self._host.define(machine, xml)
            with phases.phase("start"):
                await self._host.start(machine)
                await self._host.hush(machine)
            with phases.phase("port"):
                await self._plug(machine)
            with phases.phase("release"):
                await self._host.release(machine)
            await asyncio.sleep(0)  # a cancellation that came while nothing waited is heard here
        except BaseException:
            await finished(self._undo(machine))
            raise
        finally:
            self._reserved.pop(key, None)
        self._watched.add(key)
        made = self._shown(Domain(machine, Condition.RUNNING))
        return replace(made, timings=tuple(phases.found))

    async def _adopt(self, domain: Domain) -> Instance:
        await self._host.hush(domain.machine)
        await self._plug(domain.machine)
        self._watched.add(domain.machine.key)
        return self._shown(domain)

    async def _place(self, spec: AppSpec, image: Image, key: str, digest: str) -> Machine:
        """Names and addresses; nobody else gets these meanwhile."""
        known = {one.machine.key: one.machine for one in await self._known()} | self._reserved
        machine = placed(
            self._policy, spec, image, machine_of(key, spec.name, self._policy.place), known.values()
        )
        self._reserved[key] = replace(machine, digest=digest)
        return self._reserved[key]

    def _image(self, spec: AppSpec) -> Image:
        have = {APPS_NETWORK, PLATFORM_NETWORK} if self._policy.platform_bridge else {APPS_NETWORK}
        for network in spec.networks:
            if network not in have:
                raise Rejected(f"there is no network {network}; there are {', '.join(sorted(have))}")
        try:
            return self._host.image(spec.image or self._policy.image)
        except BackendError as error:
            raise Rejected(
                str(error), "name a directory below the VIM's images, see tools/guest-image"
            ) from error

    def _shape(self, spec: AppSpec, image: Image, hypervisor: Hypervisor, machine: Machine) -> Shape:
        if hypervisor is Hypervisor.XEN and not image.kernel:
            raise Rejected("on Xen an image has to have a kernel", "use one with a kernel")
        policy, log = self._policy, self._host.log(machine)
        return Shape(
            hypervisor, image, log, policy.mtu, policy.memory_mb, spec.flavour, spec.command, spec.environment,
            policy.vif_script,
        )  # fmt: skip

    async def _plug(self, machine: Machine) -> None:
        await self._network.plug(machine.app, machine.device, machine.mac, machine.ips, machine.groups)

    async def _undo(self, machine: Machine, within_s: float = UNDO_S) -> None:
        """Remove everything, however little is there, and what is noted of it last; VimError names what stays."""
        self._watched.discard(machine.key)
        why: Sequence[str] = ["nothing was answered"]
        pause = UNDO_PAUSE_S
        try:
            async with asyncio.timeout(within_s):
                while why := await self._undo_once(machine):
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, LONGEST_UNDO_PAUSE_S)
                return
        except TimeoutError:
            pass
        raise BackendFault(
            f"cannot remove {machine.app} within {within_s:g} s: {'; '.join(why)}",
            "it is tried again; see the log of the agent, and of libvirt",
        )

    async def _undo_once(self, machine: Machine) -> Sequence[str]:
        host = self._host
        steps: Iterable[Callable[[], Awaitable[None]]] = (
            lambda: host.end(machine),
            lambda: self._network.unplug(machine.app),
            lambda: host.clean(machine),
        )
        why = []
        for step in steps:
            try:
                await step()
            except TofError as error:
                why.append(str(error))
        try:
            if not why:
                why = [f"{thing} is still there" for thing in await host.remains(machine)]
            if not why:
                await host.undefine(machine)
                why = ["its domain is still there"] if await host.exists(machine) else []
        except TofError as error:
            why.append(str(error))
        return why

    async def _known(self, within_s: float = ASK_S) -> Sequence[Domain]:
        try:
            async with asyncio.timeout(within_s), _errors():
                return await self._host.known()
        except TimeoutError:
            raise Unavailable(f"libvirt has not answered for {within_s:g} s") from None

    async def _of(self, key: str) -> Domain | None:
        return next((one for one in await self._known() if one.machine.key == key), None)

    def _shown(self, domain: Domain) -> Instance:
        machine = domain.machine
        reach = next(iter(machine.ips), None)
        match domain.condition:
            case Condition.RUNNING:
                state, fault = InstanceState.ACTIVE, ""
            case Condition.HELD:
                state, fault = InstanceState.BUILD, "it was never let go, or is suspended"
            case _:
                state, fault = InstanceState.ERROR, self._epitaph(domain)
        return Instance(machine.key, machine.uuid, state, machine.ips, reach, fault)

    def _epitaph(self, domain: Domain) -> str:
        words = self._host.last_words(domain.machine)
        return f"{domain.why}; its last words: {words}" if words else domain.why


@asynccontextmanager
async def _errors() -> AsyncIterator[None]:
    """Whatever goes wrong is a VimError."""
    try:
        yield
    except VimError:
        raise
    except DomainError as error:
        raise vim_error(error) from error
    except RequestError as error:
        raise Rejected(str(error)) from error
    except TofError as error:
        raise BackendFault(str(error)) from error
