"""A security group as JSON: what a policy takes and gives, and the store keeps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from tof.agent.addresses import network_of, parse_prefix, prefix_text
from tof.agent.service_body import PROTOCOLS, port_range
from tof.agent.service_check import NAME_PATTERN, merged
from tof.dataplane.selection import PROTOCOLS_WITH_PORTS
from tof.errors import BadRequest
from tof.model import Heading, SecurityGroup, SecurityRule

FIELDS: Final = ("name", "rules")
RULE_FIELDS: Final = ("direction", "protocol", "ports", "remote")
MOST_RULES: Final = 64
"""Of one group."""
MOST_REMOTES: Final = 32
"""Groups that rules name as remotes: each is a bit of a register of br-ue."""
_ICMP, _ICMPV6, _LAST_PROTOCOL = 1, 58, 255
_UES, _GROUP = "ues", "group:"
_WORDS: Final = {**PROTOCOLS, "icmp": _ICMP}


def parse_group(body: Mapping[str, object]) -> SecurityGroup:
    """The group that a body describes; BadRequest names the field at fault."""
    for field in body:
        if field not in FIELDS:
            raise BadRequest(f"{field} is not a field of a security group", field)
    name, rules = body.get("name"), body.get("rules", [])
    if not isinstance(name, str) or not NAME_PATTERN.fullmatch(name):
        raise BadRequest("name must match " + NAME_PATTERN.pattern, "name")
    if not isinstance(rules, list):
        raise BadRequest("rules is not a list", "rules")
    if len(rules) > MOST_RULES:
        raise BadRequest(f"rules has {len(rules)} entries, more than {MOST_RULES}", "rules")
    return SecurityGroup(name, tuple(_rule(at, rule) for at, rule in enumerate(rules)))


def group_body(group: SecurityGroup) -> dict[str, object]:
    """What ``parse_group`` reads."""
    return {"name": group.name, "rules": [_rule_body(rule) for rule in group.rules]}


def check_remotes(groups: Iterable[SecurityGroup]) -> None:
    """BadRequest if a rule names a group that is not among these, or if too many are named."""
    groups = tuple(groups)
    names = {group.name for group in groups}
    remotes = {rule.group for group in groups for rule in group.rules if rule.group is not None}
    if len(remotes) > MOST_REMOTES:
        what = f"{len(remotes)} groups are remotes of rules, more than {MOST_REMOTES}"
        raise BadRequest(f"securityGroups: {what}", "securityGroups")
    for place, group in enumerate(groups):
        for at, rule in enumerate(group.rules):
            if rule.group is not None and rule.group not in names:
                where = f"securityGroups[{place}].rules[{at}].remote"
                raise BadRequest(f"{where}: there is no security group called {rule.group}", where)


def _rule(at: int, body: object) -> SecurityRule:
    where = f"rules[{at}]"
    if not isinstance(body, Mapping):
        raise BadRequest(f"{where} is not an object", where)
    try:
        return _parse_rule(body)
    except BadRequest as error:
        raise BadRequest(f"{where}.{error}", f"{where}.{error.field}") from error


def _parse_rule(body: Mapping[str, object]) -> SecurityRule:
    for field in body:
        if field not in RULE_FIELDS:
            raise BadRequest(f"{field} is not a field of a rule", str(field))
    direction, ports = body.get("direction"), body.get("ports", [])
    if direction not in tuple(Heading):
        raise BadRequest("direction is neither ingress nor egress", "direction")
    protocol = _protocol(body.get("protocol"))
    if not isinstance(ports, list):
        raise BadRequest("ports is not a list", "ports")
    if ports and protocol not in PROTOCOLS_WITH_PORTS:
        raise BadRequest("ports needs protocol tcp, udp or sctp", "ports")
    rule = SecurityRule(Heading(str(direction)), protocol, merged([port_range(entry) for entry in ports]))
    return _with_remote(rule, body.get("remote"))


def _protocol(value: object) -> int | None:
    if value is None:
        return None
    number = _WORDS.get(value) if isinstance(value, str) else value
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number <= _LAST_PROTOCOL:
        raise BadRequest("protocol is neither tcp, udp, sctp, icmp nor a number up to 255", "protocol")
    return _ICMP if number == _ICMPV6 else number


def _with_remote(rule: SecurityRule, remote: object) -> SecurityRule:
    given = rule.heading, rule.protocol, rule.ports
    if remote is None:
        return rule
    if not isinstance(remote, str):
        raise BadRequest("remote is not a string", "remote")
    if remote == _UES:
        if rule.heading is Heading.INGRESS:
            raise BadRequest("remote: what UEs may say to an application, its services say", "remote")
        return SecurityRule(*given, ues=True)
    if remote.startswith(_GROUP):
        return SecurityRule(*given, group=remote.removeprefix(_GROUP))
    try:
        return SecurityRule(*given, prefix=network_of(*parse_prefix(remote), "remote"))
    except ValueError:
        raise BadRequest("remote is neither ues, group:NAME, an IP address nor a prefix", "remote") from None


def _rule_body(rule: SecurityRule) -> dict[str, object]:
    words = {number: word for word, number in _WORDS.items()}
    remote = None
    if rule.ues:
        remote = _UES
    elif rule.group is not None:
        remote = _GROUP + rule.group
    elif rule.prefix is not None:
        remote = prefix_text(rule.prefix)
    optional = {
        "protocol": None if rule.protocol is None else words.get(rule.protocol, rule.protocol),
        "ports": [first if first == last else f"{first}-{last}" for first, last in rule.ports] or None,
        "remote": remote,
    }
    shown = {field: value for field, value in optional.items() if value is not None}
    return {"direction": rule.heading.value, **shown}
