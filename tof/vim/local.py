"""The ``local`` VIM: apps as processes of this host, each isolated by namespaces, on a port of br-ue of its own.

Everything that is about to be made is written down first. A ``create`` that fails, at whatever call and by whatever
means, undoes what it did in the reverse order, reads back that nothing is left, and only then forgets; what a killed
agent leaves is found by what is written down.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from tof.agent.app import APPS_NETWORK
from tof.agent.sandbox import (
    Isolated,
    Sandbox,
    digest_of,
    free_addresses,
    isolated,
    sandbox_of,
)
from tof.errors import BackendError, RequestError, SetupError, TofError
from tof.model import IpAddress, IpNetwork
from tof.settled import finished
from tof.vim.errors import (
    AlreadyExists,
    BackendFault,
    NoCapacity,
    QuotaExceeded,
    Rejected,
    TimedOut,
    Unavailable,
    VimError,
)
from tof.vim.interface import AppNetwork, AppSpec, Instance, InstanceState
from tof.vim.phases import Phases
from tof.vim.sandbox_host import SandboxHost

UNDO_S = 15.0
UNDO_TRIES = 4
START = "/init"
"""What an image without a command is started by."""


@dataclass(frozen=True, slots=True)
class LocalPolicy:
    """What the configuration says. ``taken``: addresses that are no app's; ``place`` tells TOFs of one host apart."""

    place: str
    pool: tuple[IpNetwork, ...]
    networks: tuple[IpNetwork, ...]
    gateways: tuple[IpAddress, ...]
    taken: frozenset[IpAddress] = frozenset()
    max_apps: int = 256
    mtu: int = 1500


class LocalVim:
    """Apps on this host, by key."""

    def __init__(self, host: SandboxHost, network: AppNetwork, policy: LocalPolicy) -> None:
        self._host, self._network, self._policy = host, network, policy
        self._told: Callable[[str, str], None] = lambda _key, _why: None
        self._reserved: dict[str, tuple[IpAddress, ...]] = {}

    def on_loss(self, told: Callable[[str, str], None]) -> None:
        """Have ``told(key, why)`` called when an app ends by itself."""
        self._told = told

    async def create(self, spec: AppSpec, *, key: str, deadline: float) -> Instance:
        """The app under ``key``: adopted if it runs, else made."""
        digest = digest_of(spec)
        try:
            async with asyncio.timeout_at(deadline):
                before = await self._of(key)
                if before is not None and before.digest != digest:
                    raise AlreadyExists(f"{key} is another app than the one asked for")
                if before is not None and before.running and self._host.lives(before):
                    return await self._adopt(before)
                if before is not None:
                    await finished(self._undo(before))
                return await self._make(spec, key, digest)
        except TimeoutError:
            raise TimedOut("the app was not made in time, and what was there of it is removed") from None
        except VimError:
            raise
        except RequestError as error:
            raise Rejected(str(error)) from error
        except (TofError, OSError) as error:
            raise BackendFault(str(error)) from error

    async def get(self, key: str) -> Instance | None:
        """What there is under ``key``."""
        sandbox = await self._of(key)
        return None if sandbox is None else self._shown(sandbox)

    async def list(self) -> Sequence[Instance]:
        """Every app of which something may be there."""
        return [self._shown(sandbox) for sandbox in await self._known()]

    async def delete(self, key: str, *, deadline: float) -> None:
        """End it and remove everything that it took."""
        sandbox = await self._of(key)
        if sandbox is None:
            return
        remaining = deadline - asyncio.get_running_loop().time()
        await finished(self._undo(sandbox, min(UNDO_S, max(1.0, remaining))))

    async def tend(self) -> None:
        """Logs are kept within their bounds."""
        await self._host.trim(await self._known())

    async def aclose(self) -> None:
        """Apps go on."""
        self._host.close()

    async def _make(self, spec: AppSpec, key: str, digest: str) -> Instance:
        self._check(spec)
        phases = Phases()
        sandbox = await self._place(spec, key, digest)
        try:
            command = await self._command(spec, sandbox)
            await self._host.note(sandbox)
            with phases.phase("namespace"):
                sandbox = sandbox.with_process(await self._host.enclose(sandbox, command))
                await self._host.note(sandbox)
            with phases.phase("network"):
                await self._host.wire(sandbox, self._policy.mtu)
                await self._host.name(sandbox)
            with phases.phase("port"):
                await self._plug(sandbox)
            with phases.phase("start"):
                if missing := await self._host.limit(sandbox, spec.flavour):
                    raise Rejected(
                        f"the host cannot limit it: {missing}", "leave flavour out, see `tof doctor`"
                    )
                await self._host.release(sandbox)
                sandbox = sandbox.with_process(sandbox.process, running=True)
                await self._host.note(sandbox)
            await asyncio.sleep(0)  # a cancellation that came while nothing waited is heard here
            if not self._host.lives(sandbox):
                raise BackendFault(f"it ended at once: {self._host.epitaph(sandbox)}", "start it by hand")
        except BaseException:
            await finished(self._undo(sandbox))
            raise
        finally:
            self._reserved.pop(key, None)
        self._watch(sandbox)
        return replace(self._shown(sandbox), timings=tuple(phases.found))

    async def _adopt(self, sandbox: Sandbox) -> Instance:
        await self._plug(sandbox)
        self._watch(sandbox)
        return self._shown(sandbox)

    async def _place(self, spec: AppSpec, key: str, digest: str) -> Sandbox:
        """Names and addresses; nobody else gets these meanwhile."""
        policy, known = self._policy, await self._known()
        if len({*(one.key for one in known), *self._reserved}) >= policy.max_apps:
            raise QuotaExceeded(f"{policy.max_apps} apps are there already", "delete apps, or raise max_apps")
        taken = {a for one in known for a in one.addresses} | {*policy.taken, *policy.gateways}
        taken |= {a for addresses in self._reserved.values() for a in addresses}
        addresses = free_addresses(policy.pool, policy.networks, taken)
        if not addresses:
            raise NoCapacity("no address of the pool is free", "delete apps, or give the VIM a larger pool")
        self._reserved[key] = addresses
        lengths = tuple(next(n.prefixlen for n in policy.networks if a in n) for a in addresses)
        versions = {address.version for address in addresses}
        gateways = tuple(g for g in policy.gateways if g.version in versions)
        names = sandbox_of(key, spec.name, digest, policy.place)
        return replace(names, addresses=addresses, lengths=lengths, gateways=gateways, groups=spec.groups)

    def _check(self, spec: AppSpec) -> None:
        others = [network for network in spec.networks if network != APPS_NETWORK]
        if others:
            raise Rejected(f"there is no network {others[0]}: a local app is on {APPS_NETWORK} alone")

    async def _command(self, spec: AppSpec, sandbox: Sandbox) -> Isolated:
        try:
            own_users = await self._host.isolation()
        except (BackendError, SetupError) as error:
            raise Unavailable(
                str(error), "see `tof doctor`, and the VIM's section of the configuration"
            ) from error
        try:
            root = self._host.root(spec.image)
        except (BackendError, OSError) as error:
            raise Rejected(str(error), "name a directory below the VIM's images") from error
        command = spec.command or (START,)
        return isolated(sandbox, root, self._host.user(), command, spec.environment, own_users=own_users)

    async def _plug(self, sandbox: Sandbox) -> None:
        await self._network.plug(sandbox.app, sandbox.device, sandbox.mac, sandbox.addresses, sandbox.groups)

    def _watch(self, sandbox: Sandbox) -> None:
        self._host.watch(sandbox, lambda: self._told(sandbox.key, self._host.epitaph(sandbox)))

    async def _undo(self, sandbox: Sandbox, within_s: float = UNDO_S) -> None:
        """Remove everything, however little is there, and forget it; VimError names what stays, which is not forgotten."""
        why: Sequence[str] = []
        for attempt in range(UNDO_TRIES):
            try:
                async with asyncio.timeout(within_s):
                    why = await self._undo_once(sandbox)
            except TimeoutError:
                why = [f"not removed within {within_s:g} s"]
            if not why:
                return
            await asyncio.sleep(0.05 * 2**attempt)
        raise BackendFault(
            f"cannot remove {sandbox.app}: {'; '.join(why)}", "it is tried again; see the log of the agent"
        )

    async def _undo_once(self, sandbox: Sandbox) -> Sequence[str]:
        host = self._host
        steps: Iterable[Callable[[], Awaitable[None]]] = (
            lambda: host.end(sandbox),
            lambda: host.unlimit(sandbox),
            lambda: self._network.unplug(sandbox.app),
            lambda: host.unname(sandbox),
            lambda: host.unwire(sandbox),
        )
        why = []
        for step in steps:
            try:
                await step()
            except (TofError, OSError) as error:
                why.append(str(error))
        try:
            if not why:
                why = [f"{thing} is still there" for thing in await host.remains(sandbox)]
            if not why:
                await host.forget(sandbox)
        except (TofError, OSError) as error:
            why.append(str(error))
        return why

    async def _known(self) -> Sequence[Sandbox]:
        try:
            return await self._host.known()
        except (BackendError, OSError) as error:
            raise Unavailable(str(error)) from error

    async def _of(self, key: str) -> Sandbox | None:
        return next((one for one in await self._known() if one.key == key), None)

    def _shown(self, sandbox: Sandbox) -> Instance:
        reach = next(iter(sandbox.addresses), None)
        alive = self._host.lives(sandbox)
        state = InstanceState.ACTIVE if alive and sandbox.running else InstanceState.ERROR
        fault = "" if state is InstanceState.ACTIVE else self._host.epitaph(sandbox)
        if alive and not sandbox.running:
            state, fault = InstanceState.BUILD, "it was never let go"
        return Instance(sandbox.key, sandbox.namespace, state, sandbox.addresses, reach, fault)
