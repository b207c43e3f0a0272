"""Security groups (tables 6 and 8): what an application port lets out to others than UEs, and what it lets in.

A connection is marked with the rule that let it in. While that rule is there its packets pass, both ways; those of the
direction that it began in are judged anew when it is not. So a rule that goes takes its connections with it, others stay,
and no entry of connection tracking has to be flushed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from hashlib import blake2b
from ipaddress import IPv4Address, summarize_address_range
from typing import Final, NamedTuple

from tof.dataplane.desired import AppPort, Desired
from tof.dataplane.flow import (
    CT_INVALID,
    CT_REPLY,
    CT_TRACKED,
    IPV4,
    IPV6,
    Action,
    Commit,
    Family,
    Flow,
    Goto,
    Masked,
    Match,
    Output,
    Value,
    family,
)
from tof.dataplane.tables import EGRESS, INGRESS, LAN
from tof.model import Heading, IpAddress, IpNetwork, PortRange, SecurityRule

TRUSTED: Final = 1
"""Marks what is let in and out without a rule: the TOF's own flows, and what it answers."""
VALID: Final = ("ct_state", Masked(CT_TRACKED, CT_TRACKED | CT_INVALID))
ASKING: Final = ("ct_state", Masked(CT_TRACKED, CT_TRACKED | CT_INVALID | CT_REPLY))
"""Tracked, and of the direction in which the connection began: such packets are held against the rules."""
_MARKED, _OURS, _FIRST_RULE, _REST = 20_000, 15_000, 10_000, 1
_ENDS: Final = {IPV4.eth_type: ("ct_nw_src", "ct_nw_dst"), IPV6.eth_type: ("ct_ipv6_src", "ct_ipv6_dst")}
"""What rules look at is the connection as it began: the same for all fragments of a packet, that have no ports."""
_ECHO_REQUEST: Final[dict[int, Match]] = {
    4: (("ct_nw_proto", 1), ("ct_tp_src", 8)),
    6: (("ct_nw_proto", 58), ("ct_tp_src", 128)),
}
_ICMP: Final = {IPV4.eth_type: 1, IPV6.eth_type: 58}
_ALL_PORTS: Final = 0xFFFF
_DNS: Final = 53


class Opening(NamedTuple):
    """What one rule lets in or out at a port: ``match`` says it without the port and without the group of the remote."""

    priority: int
    match: Match
    mark: int
    group: int = 0
    """The bit of the group that the other end has to be in; 0: of none."""


def rules(desired: Desired) -> Iterator[Flow]:
    """What may leave an application port, and what may enter it."""
    common = replace(desired, services=(), pings=(), vnfs=(), app_ports=())
    for port in desired.app_ports:
        yield from _of_port(common, port)


@lru_cache(maxsize=4096)
def _of_port(common: Desired, port: AppPort) -> tuple[Flow, ...]:
    """Those of one port, which no other port and no service changes."""
    return (*_egress(common, port), *_ingress(common, port))


def openings(desired: Desired, port: AppPort, heading: Heading, *, ues: bool = False) -> tuple[Opening, ...]:
    """What the port's groups let in or out, from or to UEs or all others; rules are told apart by their priority."""
    declared = {group.name: group for group in desired.groups}
    wanted = {
        rule
        for name in port.groups
        for rule in (declared[name].rules if name in declared else ())
        if rule.heading is heading and rule.ues is ues
    }
    bit_of = remote_groups(desired)
    found: dict[tuple[Match, int], Opening] = {}
    for place, rule in enumerate(sorted(wanted, key=repr)):
        group = 0 if rule.group is None else bit_of[rule.group]
        for match in _matches(rule):
            mark = _mark(rule, match)
            found.setdefault((match, group), Opening(_FIRST_RULE - place, match, mark, group))
    return tuple(found.values())


def remote_groups(desired: Desired) -> Mapping[str, int]:
    """The groups that rules name as remotes, each with its bit in the registers of the two ends."""
    named = {rule.group for group in desired.groups for rule in group.rules if rule.group is not None}
    return {name: 1 << place for place, name in enumerate(sorted(named))}


def membership(desired: Desired) -> Mapping[int, int]:
    """The bits of the groups that each port is in, by its number."""
    bit_of = remote_groups(desired)
    return {port.port: sum(bit_of.get(name, 0) for name in set(port.groups)) for port in desired.app_ports}


def _other_end(register: str, group: int) -> Match:
    return ((register, Masked(group, group)),) if group else ()


def _egress(desired: Desired, port: AppPort) -> Iterator[Flow]:
    here: Match = (("in_port", port.port),)
    onward: tuple[Action, ...] = (Goto(LAN),)
    yield from _admitted(desired, port, Flow(EGRESS, _MARKED, here, onward), "reg6")
    trusted = (Commit(port.zone, TRUSTED), *onward)
    for own, asks in _services_of_ours(desired):
        ip = family(own.packed)
        match = (*here, ASKING, ("eth_type", ip.eth_type), (_ENDS[ip.eth_type][1], own.packed), *asks)
        yield Flow(EGRESS, _OURS, match, trusted, f"{port.name}: what the TOF answers")
    for opening in openings(desired, port, Heading.EGRESS):
        commit = (Commit(port.zone, opening.mark), *onward)
        match = (*here, ASKING, *_other_end("reg6", opening.group), *opening.match)
        yield Flow(EGRESS, opening.priority, match, commit, f"{port.name}: out")
    yield Flow(EGRESS, _REST, here, (), f"{port.name}: no rule lets it out")


def _ingress(desired: Desired, port: AppPort) -> Iterator[Flow]:
    here: Match = (("reg4", port.port),)
    onward: tuple[Action, ...] = (Output(port.port),)
    yield from _admitted(desired, port, Flow(INGRESS, _MARKED, here, onward), "reg5")
    trusted = (Commit(port.zone, TRUSTED), *onward)
    for ip in (IPV4, IPV6):
        ours = (*here, ("in_port", desired.ports.gateway), ASKING, ("eth_type", ip.eth_type))
        yield Flow(INGRESS, _OURS, ours, trusted, f"{port.name}: what the TOF says")
    for opening in openings(desired, port, Heading.INGRESS):
        commit = (Commit(port.zone, opening.mark), *onward)
        match = (*here, ASKING, *_other_end("reg5", opening.group), *opening.match)
        yield Flow(INGRESS, opening.priority, match, commit, f"{port.name}: in")
    yield Flow(INGRESS, _REST, here, (), f"{port.name}: no rule lets it in")


def _admitted(desired: Desired, port: AppPort, like: Flow, register: str) -> Iterator[Flow]:
    """Packets of connections that some rule of now, of either heading, has let in or out; ``register``: the other end's."""
    marks = {
        (opening.mark, opening.group) for heading in Heading for opening in openings(desired, port, heading)
    }
    note = f"{port.name}: connections that a rule has let in or out"
    for mark, group in sorted({(TRUSTED, 0), *marks}):
        match = (*like.match, VALID, ("ct_mark", mark), *_other_end(register, group))
        yield Flow(like.table, like.priority, match, like.actions, note)


def _services_of_ours(desired: Desired) -> Iterator[tuple[IpAddress, Match]]:
    """What an application may ask of the TOF itself: whether it is there, and its DNS server."""
    for own in (*desired.app_addresses, *desired.local):
        yield own, _ECHO_REQUEST[own.version]
    for own in desired.local:
        for protocol in (6, 17):
            yield own, (("ct_nw_proto", protocol), ("ct_tp_dst", _DNS))


def _matches(rule: SecurityRule) -> Iterator[Match]:
    for ip in (IPV4, IPV6):
        if rule.prefix is not None and family(rule.prefix.network_address.packed) is not ip:
            continue
        for transport in _transports(rule, ip):
            yield (("eth_type", ip.eth_type), *_remote(rule, ip), *transport)


def _remote(rule: SecurityRule, ip: Family) -> Match:
    """The address of the other end, in packets of the rule's heading."""
    if rule.prefix is None or rule.prefix.prefixlen == 0:
        return ()
    source, destination = _ENDS[ip.eth_type]
    return ((source if rule.heading is Heading.INGRESS else destination, _prefix(rule.prefix)),)


def _prefix(network: IpNetwork) -> Value:
    if network.prefixlen == network.max_prefixlen:
        return network.network_address.packed
    return Masked(network.network_address.packed, network.netmask.packed)


def _transports(rule: SecurityRule, ip: Family) -> Iterator[Match]:
    if rule.protocol is None:
        yield ()
        return
    protocol = _ICMP[ip.eth_type] if rule.protocol == _ICMP[IPV4.eth_type] else rule.protocol
    if not rule.ports:
        yield (("ct_nw_proto", protocol),)
    for ports in rule.ports:
        for value in port_values(ports):
            yield (("ct_nw_proto", protocol), ("ct_tp_dst", value))


def port_values(ports: PortRange) -> Iterator[int | Masked]:
    """A range of ports as the fewest values under masks."""
    for part in summarize_address_range(IPv4Address(ports.first), IPv4Address(ports.last)):
        mask = int(part.netmask) & _ALL_PORTS
        first = int(part.network_address)
        yield first if mask == _ALL_PORTS else Masked(first, mask)


def _mark(rule: SecurityRule, match: Match) -> int:
    digest = blake2b(repr((rule.heading.value, rule.group, match)).encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") | 0x80000000
