"""The addresses of services that are given by domain, as DNS says them.

Of an answer's names, the one asked for first, the first that a service is given by decides; of domains that fit it the
longest. Such services have the addresses for as long as DNS says, within bounds, and then for as long as flows to them live.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import NamedTuple

from tof.agent.addresses import check_usable
from tof.agent.catalog import Catalog
from tof.dataplane.selection import Learnt, rival, rules_of
from tof.errors import BadRequest
from tof.model import IpAddress, IpNetwork, Service
from tof.wire.dns import Answer

MOST_OF_A_SERVICE = 64
MOST_RULES, MOST_RULES_OF_AN_ADDRESS = 4096, 256
"""Of learnt addresses, the rules of prefixes around them included: no answer fills the data path."""


@dataclass(frozen=True, slots=True)
class NamePolicy:
    """Whose answers are believed, and the least and the most seconds for which one holds."""

    resolvers: tuple[IpNetwork, ...] = ()
    least_s: float = 60.0
    most_s: float = 3600.0


class Held(NamedTuple):
    """An address that a service has until then, or longer while flows to it live."""

    address: IpAddress
    until: float


class Names:
    """What has been learnt; ``changes`` counts every change, ``revision`` those of which addresses there are."""

    def __init__(self, catalog: Catalog, policy: NamePolicy, counts: Counter[str]) -> None:
        self._catalog, self._policy, self._counts = catalog, policy, counts
        self._by_domain: dict[str, list[Service]] = {}
        self._held: dict[str, dict[IpAddress, float]] = {}
        self._weights: dict[tuple[str, IpAddress], int] = {}
        self.revision = self.changes = 0

    def keep(self) -> None:
        """The catalog has changed."""
        services = {s.name: s for s in self._catalog.services if s.network is None}
        self._by_domain = {}
        for service in services.values():
            self._by_domain.setdefault(service.domain or "", []).append(service)
        for name in self._held.keys() - services.keys():
            self.forget(name)
        for name, held in self._held.items():
            for address in [a for a in held if not self._suits(services[name], a)]:
                self._drop(name, address)

    def forget(self, name: str) -> None:
        """The service called ``name`` has no addresses any more."""
        for address in list(self._held.pop(name, ())):
            del self._weights[name, address]
            self._changed()

    def rename(self, before: str, after: str) -> None:
        """The addresses go with the service."""
        for address in self._held.get(before, ()):
            self._weights[after, address] = self._weights.pop((before, address))
        if before in self._held:
            self._held[after] = self._held.pop(before)
            self._changed()

    def of(self, name: str) -> tuple[Held, ...]:
        """The addresses of a service."""
        return tuple(Held(address, until) for address, until in sorted(self._held.get(name, {}).items()))

    def all(self) -> Iterator[tuple[str, IpAddress, float]]:
        """Every service with an address and until when it has that."""
        return ((name, *each) for name, held in sorted(self._held.items()) for each in held.items())

    @property
    def networks(self) -> Learnt:
        """The addresses by service, as the judgement on packets takes them."""
        return {name: tuple(map(ip_network, held)) for name, held in self._held.items()}

    def heard(self, answer: Answer, now: float) -> bool:
        """Learn from a response that is to be believed; whether there are other addresses now."""
        before = self.revision
        services = self._asked(answer.names)
        if not services:
            self._counts["names_of_no_service"] += 1
        for service in services:
            for packed, ttl in answer.addresses:
                hold = min(max(ttl, self._policy.least_s), self._policy.most_s)
                self._learn(service, ip_address(packed), now + hold)
        return self.revision != before

    def recall(self, learnt: Iterable[tuple[str, IpAddress, float]]) -> None:
        """What an earlier agent had learnt."""
        services = {service.name: service for each in self._by_domain.values() for service in each}
        for name, address, until in learnt:
            if name in services:
                self._learn(services[name], address, until)

    def overdue(self, now: float) -> frozenset[bytes]:
        """The addresses that nothing but flows in use keeps."""
        return frozenset(address.packed for _, address, until in self.all() if until <= now)

    def unused(self, addresses: frozenset[bytes], now: float) -> bool:
        """No flow is in use to these: those that are overdue are no service's any more; whether there are such."""
        gone = [(name, each) for name, each, until in self.all() if until <= now and each.packed in addresses]
        for name, address in gone:
            self._drop(name, address)
            self._counts["names_expired"] += 1
        return bool(gone)

    def _asked(self, names: Iterable[str]) -> list[Service]:
        for name in names:
            if name in self._by_domain:
                return self._by_domain[name]
            while name:
                _, _, name = name.partition(".")
                if f"*.{name}" in self._by_domain:
                    return self._by_domain[f"*.{name}"]
        return []

    def _learn(self, service: Service, address: IpAddress, until: float) -> None:
        held = self._held.get(service.name, {})
        if address.version != service.application_ip.version:
            self._counts["names_of_other_family"] += 1
        elif address in held:
            self._counts["names_confirmed"] += 1
            held[address] = max(held[address], until)
            self.changes += 1
        elif not self._suits(service, address):
            self._counts["names_refused_taken"] += 1
        elif not _is_usable(address):
            self._counts["names_refused_unusable"] += 1
        elif not self._has_room(service, address):
            self._counts["names_refused_full"] += 1
        else:
            self._counts["names_learnt"] += 1
            self._held.setdefault(service.name, {})[address] = until
            self._weights[service.name, address] = self._weight(service, address)
            self._changed()

    def _has_room(self, service: Service, address: IpAddress) -> bool:
        weight = self._weight(service, address)
        return (
            len(self._held.get(service.name, ())) < MOST_OF_A_SERVICE
            and weight <= MOST_RULES_OF_AN_ADDRESS
            and sum(self._weights.values()) + weight <= MOST_RULES
        )

    def _weight(self, service: Service, address: IpAddress) -> int:
        around = (s for s in self._catalog.services if s.network is not None and address in s.network)
        return sum(1 for each in (service, *around) for _ in rules_of(each))

    def _suits(self, service: Service, address: IpAddress) -> bool:
        """Whether the service may have it: nobody's but of services beside which it can be."""
        if address.packed in self._catalog.taken or address.version != service.application_ip.version:
            return False
        if any(address in resolver for resolver in self._policy.resolvers if _is_host(resolver)):
            return False
        others = (self._catalog.get(name) for name, held in self._held.items() if address in held)
        return not any(other.name != service.name and rival(service, other) for other in others)

    def _drop(self, name: str, address: IpAddress) -> None:
        del self._held[name][address], self._weights[name, address]
        self._changed()

    def _changed(self) -> None:
        self.revision += 1
        self.changes += 1


def _is_host(network: IpNetwork) -> bool:
    return network.prefixlen == network.max_prefixlen


def _is_usable(address: IpAddress) -> bool:
    try:
        check_usable(ip_network(address), "domain")
    except BadRequest:
        return False
    return True
