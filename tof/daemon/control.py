"""The agent as the API sees it: changes return when they are in force in the data plane and on disk."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial

from prometheus_client import Metric

from tof.agent.app_body import at_service
from tof.agent.events import Event, ServiceAdded, ServiceRemoved, ServiceReplaced, ServicesReplaced
from tof.agent.hours import hours_body
from tof.agent.service_check import checked
from tof.api.port import (
    HealthView,
    ServiceState,
    ServiceStatus,
    SessionView,
    TunnelQuery,
    TunnelView,
    UsageView,
)
from tof.daemon.edgedns import EdgeDns
from tof.daemon.feed import Feed
from tof.daemon.observation import Observation
from tof.daemon.prober import Prober
from tof.daemon.resolver import Resolver
from tof.daemon.switch import Switch
from tof.daemon.vnfs import VnfWatch
from tof.dataplane.desired import Mirrors
from tof.drivers.store import Store
from tof.drivers.xdp import XdpEndpoints
from tof.errors import BadRequest
from tof.model import Mode, Policy, Service

IN_FORCE_S, IN_FORCE_EACH_S = 5.0, 0.005
"""How long Open vSwitch may take for a change, and more for each service that changes: 10 000 are 40 000 rules."""
RESOLVE_S = 1.0


class Control:
    """One change at a time; a change that fails on its way is taken back before the error is told."""

    def __init__(
        self, feed: Feed, switch: Switch, endpoints: XdpEndpoints, store: Store, resolver: Resolver,
        prober: Prober, observation: Observation, edge_dns: EdgeDns, vnfs: VnfWatch, mirrors: Mirrors,
    ) -> None:  # fmt: skip
        self._mirrors = mirrors
        self._feed, self._switch, self._endpoints, self._store = feed, switch, endpoints, store
        self._resolver, self._prober, self._observation = resolver, prober, observation
        self._edge_dns = edge_dns
        self._services, self._vnfs = feed.agent.services, vnfs
        self._lock = asyncio.Lock()

    async def list_services(self) -> Sequence[Service]:
        """Every service, sorted by name."""
        return self._services.catalog.services

    async def add_service(self, service: Service) -> Service:
        """Provision a new service."""
        async with self._lock:
            self._check_mirrors([service])
            self._feed.handle(ServiceAdded(service))
            added = self._services.catalog.get(service.name)
            await self._settle(ServiceRemoved(service.name), partial(self._store.put, added), [added])
            return added

    async def replace_service(self, name: str, service: Service) -> Service:
        """Put ``service`` in the place of the one called ``name``."""
        async with self._lock:
            before = self._services.catalog.get(name)
            self._check_mirrors([service])
            self._feed.handle(ServiceReplaced(name, service))
            after = self._services.catalog.get(service.name)
            await self._settle(
                ServiceReplaced(after.name, before), partial(self._store.put, after, replaces=name), [after]
            )
            return after

    async def remove_service(self, key: str) -> None:
        """Withdraw the service with this name, else with this service IP."""
        async with self._lock:
            before = self._services.catalog.lookup(key)
            number = self._services.number(before)
            self._feed.handle(ServiceRemoved(key))
            # From here on its traffic goes to the core, whatever Open vSwitch does with the flows left behind.
            self._endpoints.drop_services([number])
            undo = ServiceAdded(before)
            if self._switch.up:
                await self._settle(undo, partial(self._store.delete, before.name), [])
            else:
                await self._store.delete(before.name)
            self._review()

    def check_new(self, services: Iterable[Service]) -> None:
        """Raise what ``provision`` would of services that are refused."""
        new = tuple(services)
        self._services.catalog.check_new(new)
        for at, service in enumerate(new):
            try:
                self._check_mirrors([service])
            except BadRequest as error:
                raise at_service(at, error) from error

    async def provision(self, services: Sequence[Service]) -> None:
        """Provision all of these, or none; what is there just so already is as good."""
        async with self._lock:
            self._check_mirrors(services)
            have = self._services.catalog.services
            new = [service for service in services if checked(service) not in have]
            undo: list[Event] = []
            try:
                for service in new:
                    self._feed.handle(ServiceAdded(service))
                    undo.insert(0, ServiceRemoved(service.name))
            except BaseException:
                self._take_back(undo)
                raise
            if new:
                added = [self._services.catalog.get(service.name) for service in new]
                await self._settle(undo, partial(self._store.change, put=added), added)

    async def withdraw(self, names: Sequence[str]) -> None:
        """Withdraw all of these, or none."""
        async with self._lock:
            before = [self._services.catalog.get(name) for name in names]
            numbers = [self._services.number(service) for service in before]
            undo: list[Event] = []
            for service in before:
                self._feed.handle(ServiceRemoved(service.name))
                undo.insert(0, ServiceAdded(service))
            self._endpoints.drop_services(numbers)
            keep = partial(self._store.change, drop=[service.name for service in before])
            if self._switch.up and before:
                await self._settle(undo, keep, [])
            elif before:
                await keep()
            self._review()

    async def policy(self) -> Policy:
        """Everything that is provisioned."""
        return self._services.policy

    async def replace_policy(self, policy: Policy) -> Policy:
        """Exactly this, or none of the change."""
        async with self._lock:
            before = self._services.policy
            self._check_mirrors(policy.services)
            self._feed.handle(ServicesReplaced(policy.services, policy.chains, policy.groups))
            after = self._services.policy
            new = [service for service in after.services if service not in before.services]
            undo = ServicesReplaced(before.services, before.chains, before.groups)
            changed = len({*before.services} ^ {*after.services})
            await self._settle(undo, partial(self._store.replace_all, after), new, changed)
            self._review()
            return after

    def _check_mirrors(self, services: Sequence[Service]) -> None:
        """Whoever may call the API may not have packets sent out of any interface, nor written anywhere."""
        for service in services:
            if why := self._not_mirrored(service):
                field = "mirror.file" if service.mirror and service.mirror.file else "mirror.interface"
                raise BadRequest(f"service {service.name}: {why}", field)

    def _not_mirrored(self, service: Service) -> str:
        """Why a service's packets cannot go where its mirror is; empty if they can."""
        if service.mirror is None or self._mirrors.port(service) is not None:
            return ""
        if service.mirror.file:
            return f"the file {service.mirror.file} needs mirror.dir in the TOF's configuration"
        return f"{service.mirror.interface} is not one of mirror.interfaces in the TOF's configuration"

    async def _settle(
        self,
        undo: Event | Sequence[Event],
        keep: Callable[[], Awaitable[None]],
        services: Sequence[Service],
        changed: int = 0,
    ) -> None:
        try:
            await self._resolver.resolve({one for s in services for one in s.applications}, RESOLVE_S)
            await asyncio.gather(*(self._prober.first_answer(each, RESOLVE_S) for each in services))
            within_s = IN_FORCE_S + IN_FORCE_EACH_S * max(len(services), changed)
            await self._switch.in_force(self._feed.agent.revision, within_s)
            await self._edge_dns.changed()
            await keep()
        except BaseException:
            self._take_back(undo)
            raise

    def _take_back(self, undo: Event | Sequence[Event]) -> None:
        for event in undo if isinstance(undo, Sequence) else (undo,):
            self._feed.handle(event)
        self._review()

    def _review(self) -> None:
        self._resolver.review()
        self._prober.review()

    async def service_status(self, name: str) -> ServiceStatus:
        """What becomes of the service's packets, and why."""
        service = self._services.catalog.get(name)
        learnt = None if service.network is not None else self._observation.learnt(name)
        return ServiceStatus(name, *self._state(service), learnt)

    def _state(self, service: Service) -> tuple[ServiceState, str]:
        if service.mode is Mode.SHADOW:
            return ServiceState.SHADOW, "nothing is diverted; see tof_service_packets_total"
        if not self._services.is_on_duty(service):
            return ServiceState.OUT_OF_HOURS, ", ".join(hours_body(service.hours))
        if not any(map(self._services.is_resolved, service.applications)):
            return ServiceState.UNRESOLVED, self._why_unusable(service)
        if not any(self._services.is_usable(service, one) for one in service.applications):
            return ServiceState.UNHEALTHY, self._why_unusable(service)
        if self._services.chains.is_broken(service):
            dead = {name: self._vnfs.dead.get(name, "") for name in self._services.chains.dead(service)}
            return ServiceState.BROKEN_CHAIN, "; ".join(f"VNF {name}: {why}" for name, why in dead.items())
        if service.network is None and not self._services.names.of(service.name):
            return ServiceState.UNLEARNT, f"no answer has said yet which addresses {service.domain} has"
        return ServiceState.IN_FORCE, self._why_unusable(service) or self._not_mirrored(service)

    def _why_unusable(self, service: Service) -> str:
        """What is the matter with those applications of the service that get no flows."""
        said = {
            application: self._prober.why(service, application)
            if self._services.is_resolved(application)
            else self._resolver.why(application)
            for application in service.applications
            if not self._services.is_usable(service, application)
        }
        if service.spread is None:
            return "".join(said.values())
        return "; ".join(f"{application}: {why}" for application, why in said.items())

    async def tunnels(self, query: TunnelQuery) -> Sequence[TunnelView]:
        """The tunnels that ``query`` wants."""
        return await self._observation.tunnels(query)

    async def sessions(self) -> Sequence[SessionView]:
        """Every session."""
        return await self._observation.sessions()

    async def usage(self) -> Sequence[UsageView]:
        """Every account."""
        return await self._observation.usage()

    async def health(self) -> HealthView:
        """How the TOF is, now."""
        return self._observation.health()

    async def metrics(self) -> Iterable[Metric]:
        """Counters and gauges."""
        return await self._observation.metrics()
