"""Services given by domain, as time passes: which of their addresses nobody uses any more, and what a restart keeps."""

from __future__ import annotations

import asyncio

import structlog

from tof.agent.events import AddressesRecalled, AddressesUnused
from tof.daemon.clock import Clock
from tof.daemon.feed import Feed
from tof.drivers.layout import flow_target
from tof.drivers.store import Store
from tof.drivers.xdp import XdpEndpoints
from tof.errors import BackendError

log = structlog.get_logger("tof.naming")

REVIEW_S = 1.0
CONFIRMED_S = 30.0
"""How often it is stored that what was known holds longer; what is new is stored with the next review."""


class Naming:
    """Reviews what has been learnt, and remembers it.

    The table of flows is looked through while an address is overdue, at most ten times in ``idle_s``: it may be long.
    """

    def __init__(
        self, feed: Feed, endpoints: XdpEndpoints, store: Store, clock: Clock, idle_s: float
    ) -> None:
        self._feed, self._endpoints, self._store, self._clock = feed, endpoints, store, clock
        self._idle_ns, self._look_s, self._looked_at = int(idle_s * 1e9), idle_s / 10, 0.0
        self._names = feed.agent.services.names
        self._stored = self._names.revision, self._names.changes
        self._stored_at = 0.0

    async def recall(self) -> None:
        """Take over what an earlier agent had learnt."""
        learnt = await self._store.load_learnt()
        if learnt:
            ago = self._clock.epoch() - self._clock.now()
            entries = tuple((name, address, until - ago) for name, address, until in learnt)
            self._feed.handle(AddressesRecalled(entries))
        self._stored = self._names.revision, self._names.changes

    async def run(self) -> None:
        """Review, again and again."""
        try:
            while True:
                await asyncio.sleep(REVIEW_S)
                await self._expire()
                await self._remember()
        finally:
            await self._remember(at_once=True)

    async def _expire(self) -> None:
        overdue = self._names.overdue(self._clock.now())
        if not overdue or self._clock.now() < self._looked_at + self._look_s:
            return
        self._looked_at = self._clock.now()
        used: set[bytes] = set()
        wanted = {flow_target(address): address for address in overdue}
        for targets in self._endpoints.flow_targets(self._clock.now_ns() - self._idle_ns):
            used |= {wanted[target] for target in wanted.keys() & targets}
            await asyncio.sleep(0)
        self._feed.handle(AddressesUnused(overdue - used))

    async def _remember(self, *, at_once: bool = False) -> None:
        now, known = self._clock.now(), (self._names.revision, self._names.changes)
        if known == self._stored:
            return
        if known[0] == self._stored[0] and now < self._stored_at + CONFIRMED_S and not at_once:
            return
        ago = self._clock.epoch() - now
        try:
            await self._store.keep_learnt(
                (name, address, until + ago) for name, address, until in self._names.all()
            )
        except BackendError as error:
            log.warning("what names mean is not remembered", error=str(error))
            return
        self._stored, self._stored_at = known, now
