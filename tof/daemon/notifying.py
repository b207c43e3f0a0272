"""Notifications on their way to subscribers: each has a bounded queue and a task of its own, so that none delays another."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import structlog
from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily

from tof.agent.lcm_subscription import Subscription
from tof.errors import BackendError

log = structlog.get_logger("tof.app_lcm")

MOST_WAITING = 256
PAUSES_S = (1.0, 2.0, 4.0, 8.0)
"""Before a notification that was not accepted is sent again; after the last one it is given up."""


class Posting(Protocol):
    """How one is sent."""

    async def post(self, uri: str, body: Mapping[str, object]) -> None:
        """Accepted when it returns; BackendError otherwise."""
        ...


class Notifier:
    """In order to each subscriber, at least once, and given up rather than kept for ever."""

    def __init__(self, posting: Posting, pauses_s: tuple[float, ...] = PAUSES_S) -> None:
        self._posting, self._pauses_s = posting, pauses_s
        self._queues: dict[str, asyncio.Queue[Mapping[str, Any]]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._group: asyncio.TaskGroup | None = None
        self._uris: dict[str, str] = {}
        self.sent = 0
        self.lost = 0

    def add(self, subscription: Subscription) -> None:
        """There is this subscriber from now on."""
        self._queues[subscription.id] = asyncio.Queue(MOST_WAITING)
        self._uris[subscription.id] = subscription.callback
        if self._group is not None:
            self._begin(self._group, subscription.id)

    def remove(self, identifier: str) -> None:
        """There is no longer; what waits for it is not sent."""
        self._queues.pop(identifier, None)
        self._uris.pop(identifier, None)
        if task := self._tasks.pop(identifier, None):
            task.cancel()

    def tell(self, identifier: str, body: Mapping[str, Any]) -> None:
        """Have it sent; the oldest one that waits makes room. Nobody is told who is not there yet."""
        queue = self._queues.get(identifier)
        if queue is None:
            return
        if queue.full():
            queue.get_nowait()
            self.lost += 1
        queue.put_nowait(body)

    async def run(self) -> None:
        """Send, until cancelled."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            for identifier in self._queues:
                self._begin(group, identifier)
            await asyncio.Event().wait()

    def metrics(self) -> Iterable[Metric]:
        """How many were accepted and how many given up."""
        family = CounterMetricFamily(
            "tof_app_lcm_notifications", "Notifications of application life cycles", labels=["result"]
        )
        family.add_metric(["sent"], self.sent)
        family.add_metric(["lost"], self.lost)
        yield family

    def _begin(self, group: asyncio.TaskGroup, identifier: str) -> None:
        deliveries = self._deliver(self._queues[identifier], self._uris[identifier])
        self._tasks[identifier] = group.create_task(deliveries, name=f"notifications {identifier}")

    async def _deliver(self, queue: asyncio.Queue[Mapping[str, Any]], uri: str) -> None:
        while True:
            await self._send(uri, await queue.get())

    async def _send(self, uri: str, body: Mapping[str, Any]) -> None:
        for pause_s in (*self._pauses_s, None):
            try:
                await self._posting.post(uri, body)
            except BackendError as error:
                if pause_s is None:
                    self.lost += 1
                    log.warning("a notification is given up", to=uri, reason=str(error))
                else:
                    await asyncio.sleep(pause_s)
            else:
                self.sent += 1
                return
