"""Services in force: the catalog joined with the next hops that answer, and the numbers the data path knows them by."""

from __future__ import annotations

from binascii import crc32
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from ipaddress import ip_address

from tof.agent.catalog import Catalog
from tof.agent.chains import Chains
from tof.agent.events import AdoptedService
from tof.agent.health import Health
from tof.agent.hours import are_now
from tof.agent.names import NamePolicy, Names
from tof.agent.plugged import Plugged
from tof.dataplane.desired import ServedApplication, ServedService, ServiceRoute, Serving, Vnf
from tof.dataplane.selection import Facts, RuleLists, judge, place_of, rule_lists
from tof.dataplane.spreading import ends_of, slot_of, slots
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
        generation: int = 0,
    ) -> None:
        """``generation``, 0 to 255: of this agent; its services do not take the connections of those that others deleted."""
        self.catalog = catalog
        self.names = names or Names(catalog, NamePolicy(), Counter())
        self.own, self.own_lives = own, False
        """Services of the TOF's own, whose applications are in its kernel, and whether they are there."""
        self._next_hops: dict[IpAddress, bytes] = {}
        self._ids: dict[str, int] = {}
        self._application_ids: dict[tuple[int, IpAddress], int] = {}
        """Of further applications, by their service's number."""
        self._retired: dict[int, int] = {}
        self._generation = generation
        self.health, self.chains, self.plugged = Health(), Chains(vnfs), Plugged()
        self._rules = rule_lists(own)
        self._judged: tuple[tuple[Service, ...], int, frozenset[str]] = ((), 0, frozenset())
        self._minute: int | None = None
        self._off_duty: frozenset[str] = frozenset()
        for service in own:
            self._number(service.name)

    def adopt(self, services: Iterable[AdoptedService]) -> None:
        """The numbers under which the data path already diverts."""
        adopted = tuple(services)
        names = {one.number: one.name for one in adopted if one.number == one.service}
        further = {
            one.number: (one.service, ip_address(one.name)) for one in adopted if one.number != one.service
        }
        self._ids.update((name, number) for number, name in names.items())
        self._application_ids.update((place, number) for number, place in further.items())
        living = {one.number for one in adopted if one.lives}
        first = [(name, None) for number, name in names.items() if number in living]
        others = [
            (names[service], address)
            for number, (service, address) in further.items()
            if number in living and service in names
        ]
        self.health.inherit((*first, *others))

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
        needed = {one for service in self.catalog.services for one in service.applications}
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

    def behind(self, number: int) -> Service | None:
        """The service whose packets have this number on br-ue, with the application whose number it is."""
        for served in self.served:
            for one in served.applications:
                if one.number == number:
                    return replace(served.service, application_ip=one.address, spread=None)
            if served.service_id == number:
                return served.service
        return None

    def application_of(self, served: ServedService, packet: bytes) -> ServedApplication | None:
        """Where a UE's packet to this service goes, nothing being known of its flow; None: to the core."""
        service = served.service
        if service.spread is None:
            return ServedApplication(
                service.application_ip, served.service_id, served.serving is Serving.DIVERT
            )
        number = slots(served.applications, service.spread)[slot_of(ends_of(packet), service.spread.by)]
        return next((one for one in served.applications if one.number == number), None)

    def judged(self, facts: Facts) -> ServedService | None:
        """The service that selects this packet."""
        rule = judge(self.rules, facts)
        return self._served(rule.service) if rule is not None else None

    def _served(self, service: Service) -> ServedService:
        several: tuple[ServedApplication, ...] = ()
        if service.spread is not None:
            usable = {one: self.is_usable(service, one) for one in service.applications}
            several = tuple(
                ServedApplication(one, self._number_of(service, one), lives) for one, lives in usable.items()
            )
        return ServedService(service, self._ids[service.name], self._serving(service), several)

    @property
    def routes(self) -> tuple[ServiceRoute, ...]:
        """The services whose packets br-ue can carry now; a dead application is no reason to change it."""
        routed = (
            ServiceRoute(
                service if service.spread is None else replace(service, application_ip=one, spread=None),
                self._number_of(service, one), mac, self.chains.path(service), named=service.spread is not None,
                own_port=self.plugged.has(one),
            )
            for service in self.catalog.services
            if service.mode is Mode.DIVERT
            for one in service.applications
            if (mac := self.next_hop(one)) is not None
        )  # fmt: skip
        own = (ServiceRoute(service, self._ids[service.name], GATEWAY_MAC) for service in self.own)
        return (*routed, *own)

    def _serving(self, service: Service) -> Serving:
        if service in self.own:
            return Serving.DIVERT if self.own_lives else Serving.OFF
        if service.mode is Mode.SHADOW:
            return Serving.SHADOW
        if self.chains.is_broken(service):
            return Serving.OFF
        lives = any(self.is_usable(service, one) for one in service.applications)
        return Serving.DIVERT if lives else Serving.OFF

    def number(self, service: Service) -> int:
        """The number under which the data path knows the service."""
        return self._ids[service.name]

    def is_resolved(self, application: IpAddress) -> bool:
        """Whether the application's next hop answers."""
        return self.next_hop(application) is not None

    def is_usable(self, service: Service, application: IpAddress) -> bool:
        """Whether flows of the service may go to this application of it now."""
        return self.is_resolved(application) and self.health.lives(service.name, application)

    def _number_of(self, service: Service, application: IpAddress) -> int:
        number = self._ids[service.name]
        return number if application == service.application_ip else self._application_ids[number, application]

    def _number(self, name: str) -> None:
        if name in self._ids:
            return
        # The last byte counts; what counts is not the name, with which a service may have been renamed.
        series = self._free_series(name.encode())
        last = self._retired.get(series)
        self._ids[name] = series | (self._generation if last is None else (last + 1) & 0xFF)

    def _free_series(self, seed: bytes) -> int:
        taken = {n & ~0xFF for n in (*self._ids.values(), *self._application_ids.values())} | {0}
        series = crc32(seed) & ~0xFF
        while series in taken:
            series = (series + 0x100) & 0xFFFFFFFF
        return series

    def _number_applications(self) -> None:
        """A further application keeps its number as long as it is one of a service that keeps its own.

        What was adopted waits for its service to be loaded.
        """
        several = {
            self._ids[s.name]: s.applications[1:] for s in self.catalog.services if s.spread is not None
        }
        wanted = {(number, one) for number, further in several.items() for one in further}
        loaded = {self._ids[s.name] for s in self.catalog.services} if self._application_ids else set()
        self._application_ids = {
            place: number
            for place, number in self._application_ids.items()
            if place in wanted or place[0] not in loaded
        }
        for number, one in sorted(wanted - self._application_ids.keys(), key=str):
            self._application_ids[number, one] = self._free_series(number.to_bytes(4, "big") + one.packed)

    def _retire(self, name: str) -> None:
        number = self._ids.pop(name)
        self._retired[number & ~0xFF] = number
        self._application_ids = {
            place: one for place, one in self._application_ids.items() if place[0] != number
        }
        self.names.forget(name)

    def _keep_needed(self) -> None:
        self._review_hours()
        self._number_applications()
        self.health.keep(self.catalog.services)
        self.names.keep()
        needed = self.applications
        self._next_hops = {hop: mac for hop, mac in self._next_hops.items() if hop in needed}
