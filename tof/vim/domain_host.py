"""What the ``libvirt`` VIM asks of libvirt and the host, as a Protocol."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from tof.agent.domain import Domain, Hypervisor, Image, Machine


class DomainHost(Protocol):
    """A hypervisor, as far as domains go; every call may be made again. What is refused is a DomainError.

    Calls for one machine follow each other, even where the caller did not wait for the earlier one.
    """

    async def known(self) -> Sequence[Domain]:
        """Every domain of this VIM's."""
        ...

    async def hypervisor(self) -> Hypervisor:
        """What domains run on."""
        ...

    async def define(self, machine: Machine, xml: str) -> None:
        """Make its domain known; libvirt checks the XML against its schema."""
        ...

    async def start(self, machine: Machine) -> None:
        """Its adapter and its process are there when it returns; it does not run yet."""
        ...

    async def hush(self, machine: Machine) -> None:
        """Have the host's own stack say nothing on its adapter; BackendError if that is not on this host."""
        ...

    async def release(self, machine: Machine) -> None:
        """Let it begin."""
        ...

    async def end(self, machine: Machine) -> None:
        """End it, without asking it."""
        ...

    async def undefine(self, machine: Machine) -> None:
        """Remove its domain, and what is noted there."""
        ...

    async def clean(self, machine: Machine) -> None:
        """Remove its files."""
        ...

    async def remains(self, machine: Machine) -> Sequence[str]:
        """What is still there, but for its domain."""
        ...

    async def exists(self, machine: Machine) -> bool:
        """Whether its domain is there."""
        ...

    def image(self, name: str) -> Image:
        """The image of that name; BackendError if there is none."""
        ...

    def log(self, machine: Machine) -> str:
        """Where its console is written to."""
        ...

    def last_words(self, machine: Machine) -> str:
        """What its console said last."""
        ...

    async def trim(self) -> None:
        """Keep logs within their bounds."""
        ...

    def close(self) -> None:
        """Let go."""
        ...
