"""Services in force: the catalog joined with the next hops that answer, and the numbers the data path knows them by."""

from __future__ import annotations

from binascii import crc32
from collections import Counter
from collections.abc import Iterable, Mapping

from tof.agent.catalog import Catalog
from tof.agent.chains import Chains
from tof.agent.health import Health
from tof.agent.hours import are_now
from tof.agent.names import NamePolicy, Names
from tof.agent.plugged import Plugged
from tof.dataplane.desired import ServedService, ServiceRoute, Serving, Vnf
from tof.dataplane.selection import Facts, RuleLists, judge, place_of, rule_lists
from tof.model import GATEWAY_MAC, Chain, IpAddress, Mode, Policy, SecurityGroup, Service


class ServicePlane:
    """What may be diverted: a service is routed while the next hop of its application answers.

    The number of a service is a function of its name and of how often that was provisioned anew; it goes with the service
    when that is renamed, survives a restart of the agent, and connections of a deleted service are not taken by its
    successor.
    """

    def __init__(
        self,
        catalog: Catalog,
        names: Names | None = None,
        own: tuple[Service, ...] = (),
        vnfs: Iterable[Vnf] = (),
    ) -> None:
        self.catalog = catalog
        self.names = names or Names(catalog, NamePolicy(), Counter())
        self.own, self.own_lives = own, False
        """Services of the TOF's own, whose applications are in its kernel, and whether they are there."""
        self._next_hops: dict[IpAddress, bytes] = {}
        self._ids: dict[str, int] = {}
        self._retired: dict[int, int] = {}
        self.health, self.chains, self.plugged = Health(), Chains(vnfs), Plugged()
        self._rules = rule_lists(own)
        self._judged: tuple[tuple[Service, ...], int, frozenset[str]] = ((), 0, frozenset())
        self._minute: int | None = None
        self._off_duty: frozenset[str] = frozenset()
        for service in own:
            self._number(service.name)

    def adopt_ids(self, ids: Iterable[tuple[str, int]]) -> None:
        """The numbers, by name, under which the data path already diverts."""
        self._ids.update(ids)

    def add(self, service: Service) -> None:
        """Provision; RequestError changes nothing."""
        self._number(self.catalog.put_new(service).name)
        self._keep_needed()

    def replace(self, name: str, service: Service) -> None:
        """Re-provision; flows of kept addresses move with it."""
        before = self.catalog.get(name)
        after = self.catalog.replace(name, service)
        if place_of(after) != place_of(before):
            self._retire(before.name)
            self._number(after.name)
        elif after.name != before.name:
            self._ids[after.name] = self._ids.pop(before.name)
            self.names.rename(before.name, after.name)
        self._keep_needed()

    @property
    def policy(self) -> Policy:
        """Everything that is provisioned."""
        return Policy(self.catalog.services, self.chains.chains, self.plugged.groups)

    def replace_all(
        self, services: Iterable[Service], chains: Iterable[Chain] = (), groups: Iterable[SecurityGroup] = ()
    ) -> None:
        """Exactly these from now on; services that keep name and addresses keep their flows."""
        before = {service.name: service for service in self.catalog.services}
        self.catalog.replace_all(services, chains)
        self.chains.replace_all(self.catalog.chains)
        self.plugged.groups = tuple(sorted(groups, key=lambda group: group.name))
        after = {service.name: service for service in self.catalog.services}
        kept = {n for n in before.keys() & after.keys() if place_of(before[n]) == place_of(after[n])}
        for name in before.keys() - kept:
            self._retire(name)
        for name in after.keys() - kept:
            self._number(name)
        self._keep_needed()

    def remove(self, key: str) -> None:
        """Withdraw by name or service IP."""
        self._retire(self.catalog.remove(key).name)
        self._keep_needed()

    def next_hop(self, application: IpAddress) -> bytes | None:
        """The MAC address that packets for the application go to, while it answers."""
        if self.plugged.has(application):
            return self.plugged.mac(application)
        return self._next_hops.get(application)

    def next_hop_changed(self, application: IpAddress, mac: bytes | None) -> bool:
        """Note the next hop's MAC; whether that changes anything."""
        if self._next_hops.get(application) == mac:
            return False
        if mac is None:
            del self._next_hops[application]
        else:
            self._next_hops[application] = mac
        return True

    @property
    def applications(self) -> frozenset[IpAddress]:
        """The applications whose next hops must be asked for."""
        needed = {service.application_ip for service in self.catalog.services}
        return frozenset(application for application in needed if not self.plugged.has(application))

    @property
    def rules(self) -> RuleLists:
        """The rules by which packets are judged, of every service whose hours it is, whether it can be diverted or not."""
        judged = self.catalog.services, self.names.revision, self._off_duty
        if self._judged != judged:
            self._judged = judged
            on_duty = filter(self.is_on_duty, self.catalog.services)
            self._rules = rule_lists((*on_duty, *self.own), self.names.networks)
        return self._rules

    def minute_turned(self, minute: int) -> bool:
        """It is that minute of the week; whether that changes who selects packets."""
        if minute == self._minute:
            return False
        before, self._minute = self._off_duty, minute
        self._review_hours()
        return self._off_duty != before

    def is_on_duty(self, service: Service) -> bool:
        """Whether it selects packets at this hour."""
        return service.name not in self._off_duty

    def _review_hours(self) -> None:
        timed = [service for service in self.catalog.services if service.hours]
        minute = self._minute
        off = () if minute is None else (s.name for s in timed if not are_now(s.hours, minute))
        self._off_duty = frozenset(off)

    @property
    def served(self) -> tuple[ServedService, ...]:
        """What becomes of the packets of each service now."""
        return tuple(map(self._served, (*self.catalog.services, *self.own)))

    @property
    def answers(self) -> Mapping[str, frozenset[IpAddress]]:
        """What the DNS server at the edge says: the names of services whose packets are diverted now."""
        found: dict[str, set[IpAddress]] = {}
        for service in self.catalog.services:
            if service.domain and service.service_ip and self._serving(service) is Serving.DIVERT:
                found.setdefault(service.domain, set()).add(service.service_ip)
        return {domain: frozenset(addresses) for domain, addresses in found.items()}

    def own_changed(self, *, lives: bool) -> bool:
        """Note whether the TOF's own applications are there; whether that changes anything."""
        changed, self.own_lives = self.own_lives is not lives, lives
        return changed and bool(self.own)

    def judged(self, facts: Facts) -> ServedService | None:
        """The service that selects this packet."""
        rule = judge(self.rules, facts)
        return self._served(rule.service) if rule is not None else None

    def _served(self, service: Service) -> ServedService:
        return ServedService(service, self._ids[service.name], self._serving(service))

    @property
    def routes(self) -> tuple[ServiceRoute, ...]:
        """The services whose packets br-ue can carry now; a dead application is no reason to change it."""
        routed = (
            ServiceRoute(
                service,
                self._ids[service.name],
                mac,
                self.chains.path(service),
                self.plugged.has(service.application_ip),
            )
            for service in self.catalog.services
            if service.mode is Mode.DIVERT and (mac := self.next_hop(service.application_ip)) is not None
        )
        own = (ServiceRoute(service, self._ids[service.name], GATEWAY_MAC) for service in self.own)
        return (*routed, *own)

    def _serving(self, service: Service) -> Serving:
        if service in self.own:
            return Serving.DIVERT if self.own_lives else Serving.OFF
        if service.mode is Mode.SHADOW:
            return Serving.SHADOW
        lives = self.health.lives(service.name) and not self.chains.is_broken(service)
        return Serving.DIVERT if self.resolved(service) and lives else Serving.OFF

    def number(self, service: Service) -> int:
        """The number under which the data path knows the service."""
        return self._ids[service.name]

    def resolved(self, service: Service) -> bool:
        """Whether the application's next hop answers."""
        return self.next_hop(service.application_ip) is not None

    def _number(self, name: str) -> None:
        if name in self._ids:
            return
        # The last byte counts; what counts is not the name, with which a service may have been renamed.
        taken = {number & ~0xFF for number in self._ids.values()} | {0}
        series = crc32(name.encode()) & ~0xFF
        while series in taken:
            series = (series + 0x100) & 0xFFFFFFFF
        last = self._retired.get(series)
        self._ids[name] = series if last is None else series | ((last + 1) & 0xFF)

    def _retire(self, name: str) -> None:
        number = self._ids.pop(name)
        self._retired[number & ~0xFF] = number
        self.names.forget(name)

    def _keep_needed(self) -> None:
        self._review_hours()
        self.health.keep(self.catalog.services)
        self.names.keep()
        needed = self.applications
        self._next_hops = {hop: mac for hop, mac in self._next_hops.items() if hop in needed}
