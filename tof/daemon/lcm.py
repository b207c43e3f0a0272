"""Application life-cycle management of ETSI MEC 010-2: operations are asked of the apps, and what becomes of them derived.

An operation is on disk before the core is asked and after each step. One that an agent did not get the core to accept
before it died is asked for again by the next one; asking twice is asking once.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import replace

import structlog
from prometheus_client import Metric

from tof.agent.app import AppView
from tof.agent.lcm import (
    GONE,
    Descriptor,
    Instance,
    Next,
    Occurrence,
    Operation,
    Phase,
    Power,
    check_allowed,
    next_of,
    power_of,
    reason,
)
from tof.agent.lcm_subscription import News, Subscription, wants
from tof.api.apps_port import AppsPort
from tof.api.lcm_render import notification
from tof.api.port import Check, HealthState
from tof.daemon.clock import Clock
from tof.daemon.lcm_records import Records
from tof.daemon.notifying import Notifier
from tof.drivers.callbacks import Callbacks
from tof.drivers.store import Store
from tof.errors import BackendError, BadRequest, Conflict, NotFound, RequestError
from tof.settled import finished

log = structlog.get_logger("tof.app_lcm")

RETRY_S = 1.0


class LcmManager:
    """The application instances of one TOF; ``wake`` is to be called when something has become of an app."""

    def __init__(
        self, apps: AppsPort, store: Store, callbacks: Callbacks, notifier: Notifier, clock: Clock
    ) -> None:
        self._apps, self._callbacks, self._notifier, self._clock = apps, callbacks, notifier, clock
        self._records = Records(store)
        self._news = asyncio.Event()

    # what the API asks

    def descriptors(self) -> Sequence[Descriptor]:
        """Every descriptor, sorted by identifier."""
        return self._records.descriptors.in_order

    def descriptor(self, identifier: str) -> Descriptor:
        """One, or NotFound."""
        return self._records.descriptors.get(identifier)

    async def declare(self, descriptor: Descriptor) -> bool:
        """Have this descriptor; whether there was none of its identifier."""
        new = descriptor.id not in self._records.descriptors
        before = None if new else self.descriptor(descriptor.id)
        try:
            await finished(self._records.add(descriptor))
        except BackendError:
            if before is not None:
                self._records.set(before)
            raise
        return new

    async def retract(self, identifier: str) -> None:
        """Have that descriptor no longer."""
        await finished(self._records.remove(self.descriptor(identifier)))

    def instances(self) -> Sequence[Instance]:
        """Every instance, in the order of their identifiers."""
        return self._records.instances.in_order

    def instance(self, identifier: str) -> Instance:
        """One, or NotFound."""
        return self._records.instances.get(identifier)

    async def create(self, descriptor: str, name: str | None, description: str | None) -> Instance:
        """Have a new instance; BadRequest without such a descriptor."""
        if descriptor not in self._records.descriptors:
            raise BadRequest(f"appDId: there is no descriptor {descriptor}", "appDId")
        made = Instance(_identifier(), self.descriptor(descriptor), name, description)
        await finished(self._records.add(made))
        return made

    async def delete(self, identifier: str) -> None:
        """Have that instance no longer; Conflict while it is instantiated, or an operation goes on."""
        instance = self.instance(identifier)
        self._check_idle(instance)
        if instance.power is not Power.NOT_INSTANTIATED:
            raise Conflict("the application instance is instantiated: terminate it first")
        await finished(self._records.remove(instance))

    def occurrences(self) -> Sequence[Occurrence]:
        """Every operation that is remembered, the oldest first."""
        return sorted(self._records.occurrences, key=lambda one: (one.started, one.id))

    def occurrence(self, identifier: str) -> Occurrence:
        """One, or NotFound."""
        return self._records.occurrences.get(identifier)

    async def begin(
        self, identifier: str, operation: Operation, target: Power, vim: str | None = None
    ) -> Occurrence:
        """Begin an operation on an instance: accepted by the core when it returns, and kept."""
        instance = self.instance(identifier)
        self._check_idle(instance)
        check_allowed(instance, operation, target)
        now = self._clock.epoch()
        begun = Occurrence(_identifier(), identifier, operation, target, now, now)
        return await finished(self._begin(instance, instance.on(vim), begun))

    def subscriptions(self) -> Sequence[Subscription]:
        """Every subscription, in the order of their identifiers."""
        return self._records.subscriptions.in_order

    def subscription(self, identifier: str) -> Subscription:
        """One, or NotFound."""
        return self._records.subscriptions.get(identifier)

    async def subscribe(self, subscription: Subscription) -> Subscription:
        """Have it, with an identifier."""
        self._callbacks.check(subscription.callback)
        made = replace(subscription, id=_identifier())
        await finished(self._records.add(made))
        self._notifier.add(made)
        return made

    async def unsubscribe(self, identifier: str) -> None:
        """Have it no longer."""
        await finished(self._records.remove(self.subscription(identifier)))
        self._notifier.remove(identifier)

    # what the daemon runs

    async def recall(self) -> None:
        """Take over what earlier agents kept."""
        await self._records.load()
        for subscription in self._records.subscriptions:
            self._notifier.add(subscription)

    def wake(self) -> None:
        """Something has become of an app."""
        self._news.set()

    async def run(self) -> None:
        """Follow the apps, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._notifier.run(), name="notifications")
            for occurrence in self._records.going_on:
                if occurrence.phase is Phase.STARTING:
                    await self._resume(occurrence)
            self.wake()
            while True:
                await self._news.wait()
                self._news.clear()
                try:
                    await self._review()
                except BackendError as error:
                    log.warning("application instances cannot be followed", reason=str(error))
                    await asyncio.sleep(RETRY_S)
                    self.wake()

    def check(self) -> Check:
        """How many instances there are."""
        return Check("app_lcm", HealthState.OK, f"{len(self.instances())} application instances")

    def metrics(self) -> Iterable[Metric]:
        """What became of notifications."""
        return self._notifier.metrics()

    # operations

    def _check_idle(self, instance: Instance) -> None:
        for one in self._records.going_on:
            if one.instance == instance.id:
                raise Conflict(f"{one.operation} of the application instance goes on: {one.id}")

    async def _begin(self, before: Instance, instance: Instance, begun: Occurrence) -> Occurrence:
        self._records.set(instance)
        try:
            await self._records.add(begun)
            await self._ask(instance, begun)
        except (RequestError, BackendError):
            self._records.set(before)
            self._records.forget(begun)
            await self._records.save((begun,))
            raise
        return await self._accepted(instance, begun)

    async def _resume(self, occurrence: Occurrence) -> None:
        """One that the core may not have heard of."""
        instance = self.instance(occurrence.instance)
        try:
            await self._ask(instance, occurrence)
        except (RequestError, BackendError) as error:
            self._end(instance, occurrence, Phase.FAILED, str(error))
            await self._save_later()
        else:
            await self._accepted(instance, occurrence)

    async def _ask(self, instance: Instance, occurrence: Occurrence) -> None:
        if occurrence.target is Power.STARTED:
            await self._apps.request(instance.app)
        else:
            await self._remove_app(instance)

    async def _remove_app(self, instance: Instance) -> None:
        try:
            await self._apps.remove(instance.id)
        except NotFound:
            log.info("there is no app to remove", app=instance.id)

    async def _accepted(self, instance: Instance, occurrence: Occurrence) -> Occurrence:
        self._tell(News(instance, occurrence))
        going_on = occurrence.at(Phase.PROCESSING, self._clock.epoch())
        self._records.set(going_on)
        self._tell(News(instance, going_on))
        await self._save_later()
        self.wake()
        return going_on

    async def _review(self) -> None:
        """See what has become of every instance's app."""
        views = {view.app.name: view for view in await self._apps.views()}
        busy = set()
        failed = []
        for occurrence in self._records.going_on:
            busy.add(occurrence.instance)
            if occurrence.phase is Phase.PROCESSING:
                instance = self.instance(occurrence.instance)
                if self._go_on(instance, occurrence, views.get(instance.id)):
                    failed.append(instance)
        for instance in self._records.instances:
            if instance.id not in busy:
                self._become(instance, power_of(instance, views.get(instance.id)))
        await self._save_old()
        for instance in failed:
            await self._remove_app(instance)

    def _go_on(self, instance: Instance, occurrence: Occurrence, view: AppView | None) -> bool:
        """Note what has become of an operation; whether its app is to be removed because it failed."""
        match next_of(occurrence, view):
            case Next.DONE:
                self._end(instance, occurrence, Phase.COMPLETED, "")
            case Next.FAIL:
                self._end(instance, occurrence, Phase.FAILED, occurrence.detail or GONE)
            case Next.NOTE:
                assert view is not None
                self._records.set(replace(occurrence, detail=reason(view.fault)))
                return True
            case Next.REMOVE:
                return True
            case Next.WAIT:
                pass
        return False

    def _end(self, instance: Instance, occurrence: Occurrence, phase: Phase, detail: str) -> None:
        ended = occurrence.at(phase, self._clock.epoch(), detail)
        self._records.set(ended)
        power = occurrence.target if phase is Phase.COMPLETED else occurrence.left_at
        now = self._become(instance, power)
        self._tell(News(now, ended))

    def _become(self, instance: Instance, power: Power) -> Instance:
        if power is instance.power:
            return instance
        now = replace(instance, power=power)
        self._records.set(now)
        self._tell(News(now))
        return now

    async def _save_old(self) -> None:
        stale = self._records.stale
        await self._records.save(stale)
        for one in stale:
            self._records.forget(one)

    async def _save_later(self) -> None:
        """What the disk refuses now it is asked for again; until then an agent that dies does the same once more."""
        try:
            await self._records.save()
        except BackendError as error:
            log.warning("an operation cannot be kept", reason=str(error))
            self.wake()

    def _tell(self, news: News) -> None:
        identifier, now = _identifier(), self._clock.epoch()
        for subscription in self._records.subscriptions:
            if wants(subscription, news):
                self._notifier.tell(subscription.id, notification(subscription, news, identifier, now))


def _identifier() -> str:
    return secrets.token_hex(12)
