"""What the ETSI MEC 010-2 API asks of whoever keeps application instances, as a Protocol."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn, Protocol

from tof.agent.lcm import Descriptor, Instance, Occurrence, Operation, Power
from tof.agent.lcm_subscription import Subscription
from tof.errors import BackendError


class LcmPort(Protocol):
    """What returns is kept; errors are RequestError (400, 403, 404, 409) and BackendError (503)."""

    def descriptors(self) -> Sequence[Descriptor]:
        """Every one, sorted by identifier."""
        ...

    def descriptor(self, identifier: str) -> Descriptor:
        """One, or NotFound."""
        ...

    async def declare(self, descriptor: Descriptor) -> bool:
        """Have this one, in the place of an earlier one with its identifier; whether there was none."""
        ...

    async def retract(self, identifier: str) -> None:
        """Have it no longer."""
        ...

    def instances(self) -> Sequence[Instance]:
        """Every one, in the order of their identifiers."""
        ...

    def instance(self, identifier: str) -> Instance:
        """One, or NotFound."""
        ...

    async def create(self, descriptor: str, name: str | None, description: str | None) -> Instance:
        """Have a new instance; BadRequest without such a descriptor."""
        ...

    async def delete(self, identifier: str) -> None:
        """Have it no longer; Conflict while it is instantiated."""
        ...

    def occurrences(self) -> Sequence[Occurrence]:
        """Every operation that is remembered, the oldest first."""
        ...

    def occurrence(self, identifier: str) -> Occurrence:
        """One, or NotFound."""
        ...

    async def begin(
        self, identifier: str, operation: Operation, target: Power, vim: str | None = None
    ) -> Occurrence:
        """Begin an operation on an instance, on another VIM than its descriptor says if one is given."""
        ...

    def subscriptions(self) -> Sequence[Subscription]:
        """Every one, in the order of their identifiers."""
        ...

    def subscription(self, identifier: str) -> Subscription:
        """One, or NotFound."""
        ...

    async def subscribe(self, subscription: Subscription) -> Subscription:
        """Have it; what is kept has an identifier."""
        ...

    async def unsubscribe(self, identifier: str) -> None:
        """Have it no longer."""
        ...


class NoLcm:
    """An agent without VIMs: nothing is there, and nothing can be."""

    def __getattr__(self, _name: str) -> NoReturn:
        raise BackendError("this agent has no VIM")
