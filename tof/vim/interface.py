"""What the TOF asks of a VIM, as a Protocol, and the values that cross it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

from tof.agent.app import Flavour
from tof.model import IpAddress

NO_LIMITS: Final = Flavour()


class InstanceState(StrEnum):
    """``build``: not there yet. ``error``: it has ended, or never came up; ``Instance.fault`` says why."""

    BUILD = "build"
    ACTIVE = "active"
    ERROR = "error"
    DELETED = "deleted"


@dataclass(frozen=True, slots=True)
class AppSpec:
    """What a VIM has to know of an app; ``owner``: whose it is, where the VIM has tenants."""

    name: str
    image: str | None = None
    command: tuple[str, ...] = ()
    flavour: Flavour = NO_LIMITS
    networks: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    groups: tuple[str, ...] = ()
    owner: str = ""


@dataclass(frozen=True, slots=True)
class Instance:
    """What a VIM has under a key.

    ``addresses``: in the applications' network, at most one a family; ``reach``: the one that packets for it go to, a
    floating IP perhaps. ``timings``: phases of its instantiation in seconds, in their order.
    """

    key: str
    backend_id: str
    state: InstanceState
    addresses: tuple[IpAddress, ...] = ()
    reach: IpAddress | None = None
    fault: str = ""
    timings: tuple[tuple[str, float], ...] = ()

    @property
    def app_ip(self) -> IpAddress | None:
        """Its first address."""
        return next(iter(self.addresses), None)


class Vim(Protocol):
    """One VIM. Deadlines are moments of the event loop's clock; errors are VimError (tof.vim.errors).

    A ``create`` or ``delete`` that is cancelled returns only once it has cleared up, with a deadline of its own.
    """

    async def create(self, spec: AppSpec, *, key: str, deadline: float) -> Instance:
        """The instance under ``key``, made if there is none that runs; if that fails, nothing is left of it."""
        ...

    async def get(self, key: str) -> Instance | None:
        """What there is under ``key``."""
        ...

    async def list(self) -> Sequence[Instance]:
        """Everything that the TOF has ever made there and that is still there."""
        ...

    async def delete(self, key: str, *, deadline: float) -> None:
        """Return once nothing is left; what is not there is gone."""
        ...

    def on_loss(self, told: Callable[[str, str], None]) -> None:
        """Have ``told(key, why)`` called when an instance ends; a VIM that does not tell is asked instead."""
        ...

    async def tend(self) -> None:
        """What has to be done from time to time; called every second."""
        ...

    async def aclose(self) -> None:
        """Let go of what this process holds; instances go on."""
        ...


class AppNetwork(Protocol):
    """Interfaces of this host become ports of br-ue for applications."""

    async def plug(
        self,
        name: str,
        interface: str,
        mac: bytes,
        addresses: tuple[IpAddress, ...],
        groups: tuple[str, ...] = (),
    ) -> None:
        """``interface`` is the port of application ``name``, in force when it returns; once more is as good as once."""
        ...

    async def unplug(self, name: str) -> None:
        """No port is application ``name``'s; nothing happens if none was."""
        ...
