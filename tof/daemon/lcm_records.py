"""What is known of ETSI MEC 010-2: descriptors, instances, operations, subscriptions; in memory, and on disk as told."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, Generic, TypeVar

from tof.agent.lcm import Descriptor, Instance, Occurrence
from tof.agent.lcm_body import Thing
from tof.agent.lcm_subscription import Subscription
from tof.drivers.store import Store
from tof.errors import BackendError, Forbidden, NotFound

MOST_DESCRIPTORS: Final = 1024
MOST_INSTANCES: Final = 1024
MOST_SUBSCRIPTIONS: Final = 64
MOST_OVER: Final = 1024
"""Operations that are over and still remembered."""

T = TypeVar("T", Descriptor, Instance, Occurrence, Subscription)


class Shelf(Generic[T]):
    """Things of one kind by identifier; ``most`` of them, without bound if None."""

    def __init__(self, what: str, most: int | None = None) -> None:
        self._what, self._most = what, most
        self._things: dict[str, T] = {}

    def __iter__(self) -> Iterator[T]:
        return iter(list(self._things.values()))

    def __contains__(self, identifier: str) -> bool:
        return identifier in self._things

    def get(self, identifier: str) -> T:
        """The one with this identifier, or NotFound."""
        if identifier not in self._things:
            raise NotFound(f"there is no {self._what} {identifier}", "id")
        return self._things[identifier]

    def put(self, thing: T) -> None:
        """Have it; Forbidden if there is no room."""
        if thing.id not in self._things and self._most is not None and len(self._things) >= self._most:
            raise Forbidden(f"there is room for {self._most} of {self._what}: remove some first")
        self._things[thing.id] = thing

    def drop(self, identifier: str) -> None:
        """Have it no longer."""
        self._things.pop(identifier, None)

    @property
    def in_order(self) -> list[T]:
        """Sorted by identifier."""
        return [self._things[identifier] for identifier in sorted(self._things)]


class Records:
    """Every shelf, and the store below them."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.descriptors: Shelf[Descriptor] = Shelf("descriptors", MOST_DESCRIPTORS)
        self.instances: Shelf[Instance] = Shelf("application instances", MOST_INSTANCES)
        self.occurrences: Shelf[Occurrence] = Shelf("operation occurrences")
        self.subscriptions: Shelf[Subscription] = Shelf("subscriptions", MOST_SUBSCRIPTIONS)
        self._unsaved: dict[tuple[type, str], Thing] = {}

    async def load(self) -> None:
        """Take over what earlier agents kept."""
        for thing in await self._store.load_lcm():
            self.set(thing)
        self._unsaved.clear()

    def set(self, thing: Thing) -> None:
        """Have it in memory; ``save`` puts it on disk."""
        match thing:
            case Descriptor():
                self.descriptors.put(thing)
            case Instance():
                self.instances.put(thing)
            case Occurrence():
                self.occurrences.put(thing)
            case Subscription():
                self.subscriptions.put(thing)
        self._unsaved[type(thing), thing.id] = thing

    def forget(self, thing: Thing) -> None:
        """Have it no longer in memory."""
        match thing:
            case Descriptor():
                self.descriptors.drop(thing.id)
            case Instance():
                self.instances.drop(thing.id)
            case Occurrence():
                self.occurrences.drop(thing.id)
            case Subscription():
                self.subscriptions.drop(thing.id)
        self._unsaved.pop((type(thing), thing.id), None)

    async def save(self, drop: Iterable[Thing] = ()) -> None:
        """Everything that was set is on disk when it returns, and what is to be dropped is not; BackendError if refused."""
        put, gone = dict(self._unsaved), tuple(drop)
        if not put and not gone:
            return
        await self._store.change_lcm(put.values(), gone)
        for key, thing in put.items():
            if self._unsaved.get(key) is thing:
                del self._unsaved[key]

    async def add(self, thing: Thing) -> None:
        """Have it, in memory and on disk, or not at all."""
        self.set(thing)
        try:
            await self.save()
        except BackendError:
            self.forget(thing)
            raise

    async def remove(self, thing: Thing) -> None:
        """Have it no longer, on disk either; as before if the disk refuses."""
        self.forget(thing)
        try:
            await self.save((thing,))
        except BackendError:
            self.set(thing)
            raise

    @property
    def going_on(self) -> list[Occurrence]:
        """Operations that are not over."""
        return [one for one in self.occurrences if not one.over]

    @property
    def stale(self) -> list[Occurrence]:
        """Operations that are over and more than are remembered, the oldest."""
        over = [one for one in self.occurrences if one.over]
        if len(over) <= MOST_OVER:
            return []
        return sorted(over, key=lambda one: one.entered)[: len(over) - MOST_OVER]
