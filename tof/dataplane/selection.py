"""Which service a UE's packet belongs to: the one judgement that XDP, the agent and `tof explain` share.

A packet is a service's if it goes to one of the service's addresses and the service's selection holds. Where several
services select it, the one with the highest priority has it, then the one with the longest prefix; services of equal
rank must not select the same packet, which ``overlap`` tells.

``rule_lists`` is the same as data: by destination prefix, rules in the order in which the first that holds decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from itertools import product
from types import MappingProxyType
from typing import Final, NamedTuple

from tof.model import IpNetwork, PortRange, Service, TunnelKey
from tof.wire.inet import is_global_unicast

PROTOCOLS_WITH_PORTS: Final = frozenset({6, 17, 132})
_FRAGMENT: Final = 44
ANY_PROTOCOL: Final = 0xFFFF
ANY_VLAN: Final = 0xFFFF
ANY_PORT: Final = PortRange(0, 0xFFFF)

Learnt = Mapping[str, tuple[IpNetwork, ...]]
"""By name of a service that is given by domain, the addresses that it has now."""
NOTHING_LEARNT: Final[Learnt] = MappingProxyType({})


class Facts(NamedTuple):
    """What a packet is judged by; addresses packed, ``vlan`` 0: untagged, ``port`` None: it has none.

    ``later``: it is a fragment that does not show its port; if that matters, it belongs to no service by itself.
    """

    ue: bytes
    destination: bytes
    protocol: int
    port: int | None
    dscp: int
    enb: bytes
    sgw: bytes
    vlan: int = 0
    later: bool = False


def uplink_facts(tunnel: TunnelKey, packet: bytes) -> Facts:
    """The facts of a UE's packet, well-formed, that came in an uplink tunnel."""
    return _facts(packet, tunnel.source, tunnel.destination, tunnel.vlan, from_ue=True)


def downlink_facts(tunnel: TunnelKey, packet: bytes) -> Facts:
    """The facts of the packet that this one, on its way to the UE in a downlink tunnel, answers."""
    return _facts(packet, tunnel.destination, tunnel.source, tunnel.vlan, from_ue=False)


def _facts(packet: bytes, enb: bytes, sgw: bytes, vlan: int | None, *, from_ue: bool) -> Facts:
    """As `look_closer` in tof/drivers/bpf/tof.bpf.c: of IPv6 extension headers only a fragment header is looked into."""
    if packet[0] >> 4 == 4:
        source, destination, dscp = packet[12:16], packet[16:20], packet[1] >> 2
        protocol, l4, later = packet[9], (packet[0] & 15) * 4, int.from_bytes(packet[6:8], "big") & 0x1FFF
    else:
        source, destination, dscp = packet[8:24], packet[24:40], (packet[0] & 15) << 2 | packet[1] >> 6
        protocol, l4, later = packet[6], 40, 0
        if protocol == _FRAGMENT and len(packet) >= 48:
            protocol, l4, later = packet[40], 48, int.from_bytes(packet[42:44], "big") & 0xFFF8
    seen = protocol in PROTOCOLS_WITH_PORTS and not later and len(packet) >= l4 + 4
    at = l4 + 2 if from_ue else l4
    port = int.from_bytes(packet[at : at + 2], "big") if seen else None
    ends = (source, destination) if from_ue else (destination, source)
    return Facts(*ends, protocol, port, dscp, enb, sgw, vlan or 0, later != 0)


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
        """Whether the packet is selected, its destination and port aside."""
        return (
            self.protocol in (ANY_PROTOCOL, facts.protocol)
            and (not self.dscps or facts.dscp in self.dscps)
            and self.vlan in (ANY_VLAN, facts.vlan)
            and _within(facts.ue, self.ues)
            and _within(facts.enb, self.enbs)
            and _within(facts.sgw, self.sgws)
        )

    def port_holds(self, facts: Facts) -> bool:
        """Whether the packet's port is selected; one that is not shown is not."""
        if not self.looks_at_ports:
            return True
        if facts.later or facts.port is None or facts.protocol not in PROTOCOLS_WITH_PORTS:
            return False
        return self.ports.first <= facts.port <= self.ports.last


@dataclass(frozen=True, slots=True)
class RuleLists:
    """By destination prefix, the rules in the order in which they are asked; ``lengths``: of the prefixes, longest first."""

    lists: Mapping[IpNetwork, tuple[Rule, ...]]
    lengths: Mapping[int, tuple[int, ...]]

    def towards(self, destination: bytes) -> tuple[Rule, ...]:
        """The rules for packets to this address; prefixes have no multicast, loopback or link-local addresses."""
        address = ip_address(destination)
        for length in self.lengths[address.version]:
            if length < address.max_prefixlen and not is_global_unicast(destination):
                break
            found = self.lists.get(ip_network((address, length), strict=False))
            if found is not None:
                return found
        return ()


def rank(service: Service) -> tuple[int, int, str]:
    """Sorts services in the order in which they are asked."""
    return -service.priority, -service.length, service.name


def rules_of(service: Service) -> Iterator[Rule]:
    """The service's selection as rules any one of which may hold."""
    s = service.selection
    protocol = ANY_PROTOCOL if s.protocol is None else s.protocol
    for ports, vlan in product(s.ports or (ANY_PORT,), sorted(s.vlans) or (ANY_VLAN,)):
        yield Rule(service, protocol, ports, s.dscps, vlan, s.ues, s.enbs, s.sgws)


def networks_of(service: Service, learnt: Learnt = NOTHING_LEARNT) -> tuple[IpNetwork, ...]:
    """The addresses of a service, those that a name has by now among them."""
    return learnt.get(service.name, ()) if service.network is None else (service.network,)


def rule_lists(services: Iterable[Service], learnt: Learnt = NOTHING_LEARNT) -> RuleLists:
    """For each prefix that a service has: the rules for its addresses, those of the prefixes around it included."""
    ordered = sorted(services, key=rank)
    networks = {network for service in ordered for network in networks_of(service, learnt)}
    around: dict[IpNetwork, list[Service]] = {network: [] for network in networks}
    for service in ordered:
        for outer in networks_of(service, learnt):
            if outer.prefixlen == outer.max_prefixlen:
                around[outer].append(service)
                continue
            for network, inside in around.items():
                if _contains(outer, network):
                    inside.append(service)
    lists = {
        network: tuple(rule for service in inside for rule in rules_of(service))
        for network, inside in around.items()
    }
    lengths = {
        version: tuple(sorted({n.prefixlen for n in networks if n.version == version}, reverse=True))
        for version in (4, 6)
    }
    return RuleLists(lists, lengths)


def judge(lists: RuleLists, facts: Facts) -> Rule | None:
    """The rule that decides on the packet, None: it is no service's."""
    for rule in lists.towards(facts.destination):
        if rule.holds(facts):
            if facts.later and rule.looks_at_ports:
                return None
            if rule.port_holds(facts):
                return rule
    return None


def overlap(one: Service, other: Service) -> bool:
    """Whether some packet is selected by both, and neither ranks above the other."""
    return place_of(one) == place_of(other) and rival(one, other)


def place_of(service: Service) -> IpNetwork | str:
    """What a service is provisioned at: its addresses, or the domain that it learns them from."""
    return service.network or service.domain or ""


def rival(one: Service, other: Service) -> bool:
    """Whether ``overlap`` would hold if both had the same addresses."""
    if rank(one)[:2] != rank(other)[:2]:
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
