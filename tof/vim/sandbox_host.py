"""What the ``local`` VIM asks of the host, as a Protocol."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from tof.agent.app import Flavour
from tof.agent.sandbox import Isolated, Process, Root, Sandbox, User


class SandboxHost(Protocol):
    """The host, as far as sandboxes go; every call may be made again."""

    async def known(self) -> Sequence[Sandbox]:
        """Every sandbox of which something may be there."""
        ...

    async def note(self, sandbox: Sandbox) -> None:
        """Write down what is about to be made."""
        ...

    async def forget(self, sandbox: Sandbox) -> None:
        """Nothing is left of it."""
        ...

    async def enclose(self, sandbox: Sandbox, launch: Isolated) -> Process:
        """A process in a network namespace of its own, which waits for ``release``."""
        ...

    async def wire(self, sandbox: Sandbox, mtu: int) -> None:
        """Its adapter, with addresses and routes."""
        ...

    async def name(self, sandbox: Sandbox) -> None:
        """A name for its network namespace."""
        ...

    async def limit(self, sandbox: Sandbox, flavour: Flavour) -> str:
        """Limits; what could not be limited, though asked for."""
        ...

    async def release(self, sandbox: Sandbox) -> None:
        """Let its process begin."""
        ...

    async def end(self, sandbox: Sandbox) -> None:
        """End its processes."""
        ...

    async def unwire(self, sandbox: Sandbox) -> None:
        """Remove its adapter."""
        ...

    async def unname(self, sandbox: Sandbox) -> None:
        """Remove the name of its namespace."""
        ...

    async def unlimit(self, sandbox: Sandbox) -> None:
        """Remove its limits."""
        ...

    async def remains(self, sandbox: Sandbox) -> Sequence[str]:
        """What is still there."""
        ...

    def lives(self, sandbox: Sandbox) -> bool:
        """Whether its process runs."""
        ...

    def watch(self, sandbox: Sandbox, told: Callable[[], None]) -> None:
        """Have it told once when its process ends."""
        ...

    def epitaph(self, sandbox: Sandbox) -> str:
        """How it ended."""
        ...

    async def isolation(self) -> bool:
        """Whether apps get user namespaces of their own; BackendError if they cannot be isolated at all."""
        ...

    def root(self, image: str | None) -> Root:
        """What an app sees as its file system."""
        ...

    def user(self) -> User:
        """Who apps are."""
        ...

    async def trim(self, sandboxes: Sequence[Sandbox]) -> None:
        """Keep logs within their bounds."""
        ...

    def close(self) -> None:
        """Let go."""
        ...
