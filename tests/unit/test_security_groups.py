"""Security groups as an operator declares them."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from tof.agent.group_body import MOST_REMOTES, MOST_RULES, group_body, parse_group
from tof.agent.policy import parse_policy, policy_body
from tof.agent.service_body import body_of, parse
from tof.errors import BadRequest, Conflict
from tof.model import Heading, Initiates, PortRange, SecurityGroup, SecurityRule

SERVICE = {"name": "web", "serviceIP": "203.0.113.10", "applicationIP": "192.168.50.10"}
WEB = {
    "name": "web",
    "rules": [
        {"direction": "egress", "protocol": "tcp", "ports": [5432, "6000-6010"], "remote": "group:db"},
        {"direction": "egress", "protocol": "udp", "remote": "ues"},
        {"direction": "ingress", "protocol": "icmp"},
        {"direction": "ingress", "protocol": 47, "remote": "192.168.50.64/26"},
        {"direction": "ingress", "remote": "fd00:50::7"},
    ],
}


def test_a_group_is_read_as_it_is_written() -> None:
    assert parse_group(WEB) == SecurityGroup(
        "web",
        (
            SecurityRule(Heading.EGRESS, 6, (PortRange(5432, 5432), PortRange(6000, 6010)), group="db"),
            SecurityRule(Heading.EGRESS, 17, ues=True),
            SecurityRule(Heading.INGRESS, 1),
            SecurityRule(Heading.INGRESS, 47, prefix=ip_network("192.168.50.64/26")),
            SecurityRule(Heading.INGRESS, prefix=ip_network("fd00:50::7")),
        ),
    )
    assert group_body(parse_group(WEB)) == WEB
    assert parse_group({"name": "db"}) == SecurityGroup("db")


def test_icmp_is_that_of_either_family() -> None:
    (rule,) = parse_group({"name": "g", "rules": [{"direction": "ingress", "protocol": 58}]}).rules
    assert rule.protocol == 1


@pytest.mark.parametrize(
    ("change", "field", "why"),
    [
        ({"colour": 1}, "colour", "not a field of a security group"),
        ({"name": "-"}, "name", "must match"),
        ({"name": 1}, "name", "must match"),
        ({"rules": {}}, "rules", "not a list"),
        ({"rules": [{"direction": "ingress"}] * (MOST_RULES + 1)}, "rules", "more than"),
        ({"rules": [1]}, "rules[0]", "is not an object"),
    ],
)
def test_what_is_no_group_is_refused_by_its_field(change: dict[str, object], field: str, why: str) -> None:
    with pytest.raises(BadRequest, match=why) as refused:
        parse_group({**WEB, **change})
    assert refused.value.field == field


@pytest.mark.parametrize(
    ("rule", "field", "why"),
    [
        ({"port": 80}, "port", "not a field of a rule"),
        ({"direction": None}, "direction", "neither ingress nor egress"),
        ({"direction": "sideways"}, "direction", "neither ingress nor egress"),
        ({"protocol": "ip"}, "protocol", "neither tcp"),
        ({"protocol": 256}, "protocol", "neither tcp"),
        ({"protocol": True}, "protocol", "neither tcp"),
        ({"protocol": []}, "protocol", "neither tcp"),
        ({"ports": 80}, "ports", "not a list"),
        ({"ports": [80]}, "ports", "needs protocol"),
        ({"protocol": "icmp", "ports": [80]}, "ports", "needs protocol"),
        ({"protocol": "tcp", "ports": ["80-"]}, "ports", "no range"),
        ({"protocol": "tcp", "ports": [0]}, "ports", "between 1 and 65535"),
        ({"remote": 7}, "remote", "not a string"),
        ({"remote": "anybody"}, "remote", "neither ues"),
        ({"remote": "10.0.0.1/8"}, "remote", "remote"),
        ({"remote": "ues"}, "remote", "its services say"),
    ],
)
def test_what_is_no_rule_is_refused_by_its_field(rule: dict[str, object], field: str, why: str) -> None:
    with pytest.raises(BadRequest, match=why) as refused:
        parse_group({"name": "g", "rules": [{"direction": "ingress", **rule}]})
    assert refused.value.field == f"rules[0].{field}"


def test_a_policy_has_groups() -> None:
    policy = {"services": [SERVICE], "securityGroups": [{"name": "db", "rules": []}, WEB]}
    assert policy_body(parse_policy(policy)) == policy
    assert [group.name for group in parse_policy(policy).groups] == ["db", "web"]


@pytest.mark.parametrize(
    ("groups", "field", "kind"),
    [
        ([WEB], "securityGroups[0].rules[0].remote", BadRequest),
        ([{"name": "a", "rules": [1]}], "securityGroups[0].rules[0]", BadRequest),
        ([{"name": "a"}, {"name": "a"}], "securityGroups[1].name", Conflict),
        ({}, "securityGroups", BadRequest),
    ],
)
def test_what_is_wrong_with_a_policy_s_groups_is_named(
    groups: object, field: str, kind: type[BadRequest | Conflict]
) -> None:
    with pytest.raises(kind) as refused:
        parse_policy({"services": [], "securityGroups": groups})
    assert refused.value.field == field


def test_so_many_groups_are_remotes_of_rules_and_no_more() -> None:
    def groups(count: int) -> dict[str, object]:
        rules = [{"direction": "ingress", "remote": f"group:g{n}"} for n in range(count)]
        return {
            "services": [],
            "securityGroups": [{"name": f"g{n}", "rules": rules[n : n + 1]} for n in range(count)],
        }

    assert len(parse_policy(groups(MOST_REMOTES)).groups) == MOST_REMOTES
    with pytest.raises(BadRequest, match="33 groups are remotes of rules, more than 32"):
        parse_policy(groups(MOST_REMOTES + 1))


@pytest.mark.parametrize("initiates", list(Initiates))
def test_a_service_says_whether_its_application_opens_flows(initiates: Initiates) -> None:
    service = parse({**SERVICE, "initiates": initiates.value})
    assert service.initiates is initiates
    assert body_of(service) == {**SERVICE, "initiates": initiates.value}


def test_a_service_says_nothing_else_of_that() -> None:
    with pytest.raises(BadRequest, match="neither any nor none"):
        parse({**SERVICE, "initiates": "some"})
