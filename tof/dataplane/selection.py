"""Which service a UE's packet belongs to: the one judgement that XDP, the agent and `tof explain` share.

A packet is a service's if it goes to one of the service's addresses and the service's selection holds. Where several
services select it, the one with the highest priority has it, then the one with the longest prefix; services of equal
rank must not select the same packet, which ``overlap`` tells.

``rule_lists`` is the same as data: by destination prefix, rules in the order in which the first that holds decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from itertools import product
from typing import Final, NamedTuple

from tof.model import IpNetwork, PortRange, Service

PROTOCOLS_WITH_PORTS: Final = frozenset({6, 17, 132})
ANY_PROTOCOL: Final = 0xFFFF
ANY_VLAN: Final = 0xFFFF
ANY_PORT: Final = PortRange(0, 0xFFFF)


class Facts(NamedTuple):
    """What a packet is judged by; addresses packed, ``vlan`` 0: untagged, ``port`` None: it has none that can be seen."""

    ue: bytes
    destination: bytes
    protocol: int
    port: int | None
    dscp: int
    enb: bytes
    sgw: bytes
    vlan: int = 0


@dataclass(frozen=True, slots=True)
class Rule:
    """One conjunction of a service's selection; an empty set of prefixes holds always."""

    service: Service
    protocol: int = ANY_PROTOCOL
    ports: PortRange = ANY_PORT
    dscps: frozenset[int] = frozenset()
    vlan: int = ANY_VLAN
    ues: tuple[IpNetwork, ...] = ()
    enbs: tuple[IpNetwork, ...] = ()
    sgws: tuple[IpNetwork, ...] = ()

    @property
    def looks_at_ports(self) -> bool:
        """Whether a packet whose port cannot be seen cannot be judged."""
        return self.ports != ANY_PORT

    def holds(self, facts: Facts) -> bool:
        """Whether the packet is selected, its destination aside."""
        return (
            self.protocol in (ANY_PROTOCOL, facts.protocol)
            and self._port_holds(facts)
            and (not self.dscps or facts.dscp in self.dscps)
            and self.vlan in (ANY_VLAN, facts.vlan)
            and _within(facts.ue, self.ues)
            and _within(facts.enb, self.enbs)
            and _within(facts.sgw, self.sgws)
        )

    def _port_holds(self, facts: Facts) -> bool:
        if not self.looks_at_ports:
            return True
        if facts.port is None or facts.protocol not in PROTOCOLS_WITH_PORTS:
            return False
        return self.ports.first <= facts.port <= self.ports.last


RuleLists = Mapping[IpNetwork, tuple[Rule, ...]]


def rank(service: Service) -> tuple[int, int, str]:
    """Sorts services in the order in which they are asked."""
    return -service.priority, -service.network.prefixlen, service.name


def rules_of(service: Service) -> Iterator[Rule]:
    """The service's selection as rules any one of which may hold."""
    s = service.selection
    protocol = ANY_PROTOCOL if s.protocol is None else s.protocol
    for ports, vlan in product(s.ports or (ANY_PORT,), sorted(s.vlans) or (ANY_VLAN,)):
        yield Rule(service, protocol, ports, s.dscps, vlan, s.ues, s.enbs, s.sgws)


def rule_lists(services: Iterable[Service]) -> RuleLists:
    """For each prefix that a service has: the rules for its addresses, those of the prefixes around it included."""
    ordered = sorted(services, key=rank)
    networks = {service.network for service in ordered}
    return {
        network: tuple(
            rule for service in ordered if _contains(service.network, network) for rule in rules_of(service)
        )
        for network in networks
    }


def judge(lists: RuleLists, facts: Facts) -> Rule | None:
    """The rule that decides on the packet, None: it is no service's."""
    address = ip_address(facts.destination)
    found = max((n for n in lists if address in n), key=lambda network: network.prefixlen, default=None)
    if found is None:
        return None
    return next((rule for rule in lists[found] if rule.holds(facts)), None)


def overlap(one: Service, other: Service) -> bool:
    """Whether some packet is selected by both, and neither ranks above the other."""
    if rank(one)[:2] != rank(other)[:2] or one.network != other.network:
        return False
    a, b = one.selection, other.selection
    return (
        (a.protocol is None or b.protocol is None or a.protocol == b.protocol)
        and _meet_ports(a.ports, b.ports)
        and all(not x or not y or x & y for x, y in ((a.dscps, b.dscps), (a.vlans, b.vlans)))
        and all(_meet(x, y) for x, y in ((a.ues, b.ues), (a.enbs, b.enbs), (a.sgws, b.sgws)))
    )


def _within(address: bytes, networks: tuple[IpNetwork, ...]) -> bool:
    return not networks or any(ip_address(address) in network for network in networks)


def _contains(outer: IpNetwork, inner: IpNetwork) -> bool:
    return outer.version == inner.version and inner.subnet_of(outer)  # type: ignore[arg-type]


def _meet(one: tuple[IpNetwork, ...], other: tuple[IpNetwork, ...]) -> bool:
    return not one or not other or any(a.overlaps(b) for a in one for b in other)


def _meet_ports(one: tuple[PortRange, ...], other: tuple[PortRange, ...]) -> bool:
    return (
        not one or not other or any(max(a.first, b.first) <= min(a.last, b.last) for a in one for b in other)
    )
