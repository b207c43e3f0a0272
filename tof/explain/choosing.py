"""Why a packet is not a service's: the service that comes nearest, and its first condition that does not hold.

The judgement itself is ``tof.dataplane.selection``; here its conditions are asked one by one.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address
from typing import Any, Final, NamedTuple

from tof.dataplane.selection import NOTHING_LEARNT, Facts, Learnt, Rule, networks_of, rank, rules_of
from tof.model import PortRange, Service, address_text
from tof.wire import inet

UNKNOWN_PROTOCOL: Final = -1
"""Of a packet of which no protocol was said: no condition on the protocol holds."""
PROTOCOLS: Final = {
    inet.ICMP: "icmp",
    inet.TCP: "tcp",
    inet.UDP_PROTOCOL: "udp",
    inet.ICMPV6: "icmpv6",
    132: "sctp",
}
CONDITIONS: Final = {
    "protocol": "protocol",
    "ports": "port",
    "dscps": "DSCP",
    "vlan": "VLAN",
    "ues": "UE",
    "enbs": "eNB",
    "sgws": "SGW",
}
"""The conditions of a rule in the order in which they are named, and how they are called."""


class Miss(NamedTuple):
    """The service that comes nearest, and the name of its first condition that does not hold."""

    service: Service
    condition: str
    text: str


def missed(rule: Rule, facts: Facts) -> list[str]:
    """The rule's conditions that do not hold, each judged as if it were the only one."""
    only: dict[str, Any]
    found = []
    for name in CONDITIONS:
        only = {name: getattr(rule, name)}
        one = Rule(rule.service, **only)
        if not (one.holds(facts) and one.port_holds(facts)):
            found.append(name)
    return found


def nearest(services: Iterable[Service], facts: Facts, learnt: Learnt = NOTHING_LEARNT) -> Miss | None:
    """Of the services with this destination none of which selects the packet: the one with the fewest objections."""
    address = ip_address(facts.destination)
    candidates = [
        (missed(rule, facts), service)
        for service in sorted(services, key=rank)
        if any(address in network for network in networks_of(service, learnt))
        for rule in rules_of(service)
    ]
    objections, service = min(candidates, key=lambda each: len(each[0]), default=([], None))
    if service is None or not objections:
        return None
    first = objections[0]
    return Miss(service, CONDITIONS[first], f"{service.name}: {_objection(first, service, facts)}")


def protocol_text(protocol: int) -> str:
    """The name of an IP protocol, or its number."""
    return PROTOCOLS.get(protocol, str(protocol))


def _objection(condition: str, service: Service, facts: Facts) -> str:
    has, wanted = _has(condition, facts), _wanted(condition, service)
    word = CONDITIONS[condition]
    return f"{word} {has} is not {wanted}" if has else f"no {word} is known, it asks for {wanted}"


def _has(condition: str, facts: Facts) -> str:
    match condition:
        case "protocol":
            return "" if facts.protocol == UNKNOWN_PROTOCOL else protocol_text(facts.protocol)
        case "ports":
            return "" if facts.port is None else str(facts.port)
        case "dscps":
            return str(facts.dscp)
        case "vlan":
            return str(facts.vlan)
        case _:
            return address_text({"ues": facts.ue, "enbs": facts.enb, "sgws": facts.sgw}[condition])


def _wanted(condition: str, service: Service) -> str:
    s = service.selection
    values: Iterable[object]
    match condition:
        case "protocol":
            return protocol_text(s.protocol or 0)
        case "ports":
            values = map(_range, s.ports)
        case "dscps":
            values = sorted(s.dscps)
        case "vlan":
            values = sorted(s.vlans)
        case _:
            values = {"ues": s.ues, "enbs": s.enbs, "sgws": s.sgws}[condition]
    return " or ".join(map(str, values))


def _range(ports: PortRange) -> str:
    return str(ports.first) if ports.first == ports.last else f"{ports.first}-{ports.last}"
