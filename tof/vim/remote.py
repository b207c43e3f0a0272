"""What VIMs behind an API have in common: made once by key, whole or not at all, removed until nothing is left."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from tof.agent.app import APPS_NETWORK
from tof.agent.sandbox import digest_of
from tof.settled import finished
from tof.vim.errors import AlreadyExists, AuthFailed, BackendFault, Rejected, TimedOut, Unavailable, VimError
from tof.vim.interface import AppSpec, Instance, InstanceState
from tof.vim.phases import Phases
from tof.vim.rest import Rest

KEYS: Final = "tof."
"""What keys begin with; in a VIM the site of the TOF comes next."""
UNDO_S: Final = 15.0
REMOVE_TRIES: Final = 4
LATE_S: Final = (0.1, 0.4)
"""What was asked for and not answered may be done yet: it is looked for again after so long."""
UNSURE: Final = (TimedOut, Unavailable, BackendFault)
"""Errors that do not say whether what was asked for was done."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What there is under a key, and which description it was made from."""

    instance: Instance
    digest: str


class RemoteVim(ABC):
    """Apps by key on a VIM that is asked over a network.

    What a back-end makes carries the key and the digest of the description in itself: after a kill, a timeout, a lost
    answer it is found by them. Nothing is asked for twice without a look whether it is there.
    """

    def __init__(self, rest: Rest, site: str) -> None:
        self._rest = rest
        self._prefix = f"{KEYS}{site}."

    def on_loss(self, told: Callable[[str, str], None]) -> None:
        """It does not tell; it is asked by ``list``."""
        return

    async def tend(self) -> None:
        """Nothing has to be done."""
        return

    async def aclose(self) -> None:
        """Close the connections; apps go on."""
        await self._rest.close()

    async def create(self, spec: AppSpec, *, key: str, deadline: float) -> Instance:
        """The app under ``key``: adopted if it is there, else made."""
        return replace(await self._create(spec, self._sited(key), deadline), key=key)

    async def get(self, key: str) -> Instance | None:
        """What there is under ``key``."""
        seen = await self._see(self._sited(key))
        return None if seen is None else replace(seen.instance, key=key)

    async def list(self) -> Sequence[Instance]:
        """Everything of this site's TOFs that is there."""
        found = await self._listed(self._prefix)
        return [replace(one, key=KEYS + one.key.removeprefix(self._prefix)) for one in found]

    async def delete(self, key: str, *, deadline: float) -> None:
        """Remove everything under ``key``."""
        remaining = deadline - asyncio.get_running_loop().time()
        await finished(self._clear(self._sited(key), None, min(UNDO_S, max(1.0, remaining)), ()))

    # of a back-end, where keys have the site in them

    @abstractmethod
    async def _listed(self, prefix: str) -> Sequence[Instance]:
        """Everything whose key begins so."""

    @abstractmethod
    async def _see(self, key: str) -> Seen | None:
        """What there is under ``key``."""

    @abstractmethod
    async def _make(
        self, spec: AppSpec, key: str, digest: str, seen: Seen | None, phases: Phases
    ) -> Instance:
        """Make it and wait until it runs; ``seen`` is there and on its way already."""

    @abstractmethod
    async def _remove(self, key: str, digest: str | None) -> None:
        """Remove what there is under ``key``, or of it what was made from that description; read back that it is gone."""

    def _check(self, spec: AppSpec, key: str) -> None:
        """Rejected if it can never be."""
        if spec.groups:
            raise Rejected("groups: security groups are for ports of br-ue, which its apps have none of")

    def _sited(self, key: str) -> str:
        return self._prefix + key.removeprefix(KEYS)

    async def _create(self, spec: AppSpec, key: str, deadline: float) -> Instance:
        digest, phases, begun = digest_of(spec), Phases(), False
        self._check(spec, key)
        try:
            async with asyncio.timeout_at(deadline):
                seen = await self._known(key, digest)
                if seen is not None and seen.instance.state is InstanceState.ACTIVE:
                    return seen.instance
                begun = True
                if seen is not None and seen.instance.state is not InstanceState.BUILD:
                    await self._remove(key, digest)
                    seen = None
                made = await self._make(spec, key, digest, seen, phases)
                await asyncio.sleep(0)  # a cancellation that came while nothing waited is heard here
        except BaseException as error:
            told = await self._undone(key, digest, error, phases, begun)
            if told is error:
                raise
            raise told from error
        return replace(made, timings=tuple(phases.found))

    async def _known(self, key: str, digest: str) -> Seen | None:
        seen = await self._see(key)
        if seen is not None and seen.digest != digest:
            raise AlreadyExists(f"{key} is another app than the one asked for")
        return seen

    async def _late(self, key: str, digest: str) -> Seen | None:
        """What became of a request that was not answered."""
        for pause in (0.0, *LATE_S):
            await asyncio.sleep(pause)
            seen = await self._known(key, digest)
            if seen is not None:
                return seen
        return None

    async def _undone(
        self, key: str, digest: str, error: BaseException, phases: Phases, begun: bool
    ) -> BaseException:
        """Undo; the error to raise."""
        if isinstance(error, TimeoutError):
            error = TimedOut(
                f"{phases.now or 'lookup'}: it was not up in time, and what was there of it is removed"
            )
        if not begun:
            return error
        late = () if isinstance(error, VimError) and not isinstance(error, UNSURE) else LATE_S
        try:
            await finished(self._clear(key, digest, UNDO_S, late))
        except VimError as left:
            if isinstance(error, VimError):
                return type(error)(f"{error.message}; {left.message}", error.remedy)
        return error

    async def _clear(self, key: str, digest: str | None, within_s: float, late: Sequence[float]) -> None:
        """Remove until nothing is left; VimError names why it is not."""
        why = f"not gone within {within_s:g} s"
        try:
            async with asyncio.timeout(within_s):
                for attempt in range(REMOVE_TRIES):
                    try:
                        await self._remove(key, digest)
                        for pause in late:
                            await asyncio.sleep(pause)
                            await self._remove(key, digest)
                        return
                    except AuthFailed:
                        raise
                    except VimError as error:
                        why = error.message
                    await asyncio.sleep(0.05 * 4**attempt)
        except TimeoutError:
            raise TimedOut(
                f"cannot remove {key}: {why}", "it is tried again; see the VIM's own log"
            ) from None
        raise BackendFault(f"cannot remove {key}: {why}", "it is tried again; see the VIM's own log")


def app_networks(spec: AppSpec, known: Sequence[str]) -> None:
    """Rejected if an app wants a network that the VIM does not give."""
    for network in spec.networks:
        if network not in (APPS_NETWORK, *known):
            have = ", ".join((APPS_NETWORK, *known))
            raise Rejected(f"networks: there is no network {network}; there are {have}")
