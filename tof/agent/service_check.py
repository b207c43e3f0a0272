"""Which services a TOF can carry, and the one form that equal ones have."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import replace
from ipaddress import ip_address
from typing import Final

from tof.agent.addresses import canonical, check_usable, is_host, network_of
from tof.agent.mirror_body import check_mirror
from tof.agent.spread_body import checked_spread
from tof.dataplane.selection import PROTOCOLS_WITH_PORTS
from tof.errors import BadRequest
from tof.model import HealthCheck, IpNetwork, PortRange, ProbeKind, Selection, Service, probe_port

NAME_PATTERN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
DOMAIN_LABEL: Final = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
LONGEST_DOMAIN: Final = 253
MOST_ENTRIES: Final = 64
"""Of each list of a service."""
MOST_COMBINATIONS: Final = 256
"""Of ports and VLANs: each is a rule of the data path."""


def checked(service: Service) -> Service:
    """``service`` in canonical form, or BadRequest when no TOF could carry it."""
    _check_name(service.name)
    service = replace(service, application_ip=canonical(service.application_ip))
    check_usable(network_of(service.application_ip, None, "applicationIP"), "applicationIP")
    if service.domain is not None:
        service = replace(service, domain=checked_domain(service.domain))
    if service.service_ip is not None or service.domain is None:
        service = _checked_addresses(service)
        if service.domain is not None and (not service.is_host or service.domain.startswith("*")):
            raise BadRequest(
                "domain with serviceIP: one name has one address, neither *. nor a prefix", "domain"
            )
    _check_range(service.priority, -1000, 1000, "priority")
    service = replace(
        service, selection=_checked_selection(service.selection, service.application_ip.version)
    )
    _check_application_port(service)
    if service.health is not None:
        _check_health(service, service.health)
    if service.mirror is not None:
        check_mirror(service.mirror)
    if service.spread is not None:
        service = replace(service, spread=checked_spread(service, service.spread))
    return service


def checked_domain(text: str) -> str:
    """A domain in lower case without the dot at its end; BadRequest if it is none."""
    domain = text.lower().removesuffix(".")
    labels = domain.removeprefix("*.").split(".")
    if len(domain) > LONGEST_DOMAIN or not all(map(DOMAIN_LABEL.fullmatch, labels)):
        raise BadRequest(
            f"domain {text} is not a name such as video.example.com or *.example.com, in ASCII", "domain"
        )
    if labels[-1].isdecimal():  # as no name of the Internet is, but what an address with a slip looks like
        raise BadRequest(f"domain {text} ends in a number", "domain")
    return domain


def _checked_addresses(service: Service) -> Service:
    if service.service_ip is None:
        raise BadRequest("serviceIP is missing, and so is domain", "serviceIP")
    network = network_of(service.service_ip, service.prefix_length, "serviceIP")
    check_usable(network, "serviceIP")
    if network.version != service.application_ip.version:
        raise BadRequest("serviceIP and applicationIP are of different families", "applicationIP")
    length = None if is_host(network) else network.prefixlen
    return replace(service, service_ip=network.network_address, prefix_length=length)


def _checked_selection(given: Selection, version: int) -> Selection:
    if given.protocol is not None:
        _check_range(given.protocol, 0, 255, "protocol")
    _check_numbers(given.dscps, 63, "dscp")
    _check_numbers(given.vlans, 4094, "vlans")
    selection = replace(
        given,
        ports=merged(given.ports),
        ues=_sorted(given.ues, "ues"),
        enbs=_sorted(given.enbs, "enbs"),
        sgws=_sorted(given.sgws, "sgws"),
    )
    if selection.ports and selection.protocol not in PROTOCOLS_WITH_PORTS:
        raise BadRequest("ports needs protocol tcp, udp or sctp", "ports")
    if len(selection.ports) * len(selection.vlans) > MOST_COMBINATIONS:
        raise BadRequest(
            f"ports and vlans have {len(selection.ports)} x {len(selection.vlans)} combinations, "
            f"more than {MOST_COMBINATIONS}: provision several services",
            "ports",
        )
    for network in selection.ues:
        if network.version != version:
            raise BadRequest(f"ues: {network} is not of the family of applicationIP", "ues")
    return selection


def _check_application_port(service: Service) -> None:
    if service.application_port is None:
        return
    _check_range(service.application_port, 1, 65535, "applicationPort")
    match service.selection.ports:
        case (PortRange(first, last),) if first == last:
            return
    raise BadRequest("applicationPort needs exactly one port in ports", "applicationPort")


def _check_health(service: Service, check: HealthCheck) -> None:
    checked_health(check)
    if check.kind is not ProbeKind.ICMP and probe_port(service) is None:
        raise BadRequest(f"health.port is missing: {service.name} has no ports", "health.port")


def checked_health(check: HealthCheck) -> HealthCheck:
    """The same, if a prober can carry it out; else BadRequest."""
    for field, value, first, last in (
        ("interval", check.interval_s, 0.1, 3600),
        ("timeout", check.timeout_s, 0.1, 60),
        ("fall", check.fall, 1, 100),
        ("rise", check.rise, 1, 100),
        ("port", 1 if check.port is None else check.port, 1, 65535),
    ):
        if not first <= value <= last:
            raise BadRequest(
                f"health.{field}: {value:g} is not between {first} and {last}", f"health.{field}"
            )
    if not re.fullmatch(r"/[!-~]{0,255}", check.path):
        raise BadRequest("health.path is not a path of at most 256 printable characters", "health.path")
    return check


def merged(ports: Collection[PortRange]) -> tuple[PortRange, ...]:
    """The same ports in order, adjoining ranges as one; BadRequest names the field ``ports``."""
    _check_length(ports, "ports")
    merged: list[PortRange] = []
    for first, last in sorted(ports):
        _check_range(first, 1, 65535, "ports")
        _check_range(last, 1, 65535, "ports")
        if first > last:
            raise BadRequest(f"ports: {first}-{last} ends before it begins", "ports")
        if merged and first <= merged[-1].last + 1:
            merged[-1] = PortRange(merged[-1].first, max(last, merged[-1].last))
        else:
            merged.append(PortRange(first, last))
    return tuple(merged)


def _sorted(networks: Collection[IpNetwork], field: str) -> tuple[IpNetwork, ...]:
    _check_length(networks, field)
    forms = {network_of(n.network_address, n.prefixlen, field) for n in networks}
    return tuple(sorted(forms, key=lambda n: (n.version, int(n.network_address), n.prefixlen)))


def _check_numbers(numbers: Collection[int], last: int, field: str) -> None:
    _check_length(numbers, field)
    for number in sorted(numbers):
        _check_range(number, 0, last, field)


def _check_length(entries: Collection[object], field: str) -> None:
    if len(entries) > MOST_ENTRIES:
        raise BadRequest(f"{field} has {len(entries)} entries, more than {MOST_ENTRIES}", field)


def _check_range(number: int, first: int, last: int, field: str) -> None:
    if not first <= number <= last:
        raise BadRequest(f"{field}: {number} is not between {first} and {last}", field)


def _check_name(name: str) -> None:
    if not NAME_PATTERN.fullmatch(name):
        raise BadRequest("name must match " + NAME_PATTERN.pattern, "name")
    try:
        ip_address(name)
    except ValueError:
        return
    raise BadRequest("name must not be an IP address", "name")
