"""Policies as files: what is read is what is written, and errors point at line and field."""

from __future__ import annotations

import json

import pytest

from tof.agent.policy import parse_policy, policy_body
from tof.api.policy_file import policy_text, read_policy
from tof.errors import BadRequest, SetupError

GOOD = """\
services:
  - name: video
    serviceIP: 198.51.100.10
    applicationIP: 192.168.50.10
  - name: games      # a comment
    serviceIP: 203.0.113.0/24
    applicationIP: 192.168.50.30
    protocol: udp
    ports: [3478, 27000-27100]
    health:
      kind: icmp
    mirror:
      interface: mon0
"""


def refusal(text: str) -> str:
    with pytest.raises(SetupError) as refused:
        read_policy(text, "p.yaml")
    return str(refused.value)


def test_a_file_there_and_back() -> None:
    body = read_policy(GOOD, "p.yaml").body
    assert [one["name"] for one in body["services"]] == ["games", "video"]  # type: ignore[attr-defined]
    assert read_policy(policy_text(body), "again").body == body
    assert read_policy(json.dumps(body), "p.json").body == body
    assert read_policy("services: []", "empty").services == ()


def test_services_by_domain_there_and_back() -> None:
    text = GOOD.replace("serviceIP: 198.51.100.10", "domain: '*.Example.com'")
    body = read_policy(text, "p.yaml").body
    assert {"name": "video", "domain": "*.example.com", "applicationIP": "192.168.50.10"} in body["services"]  # type: ignore[operator]
    assert read_policy(policy_text(body), "again").body == body
    wrong = text.replace("*.Example.com", "no domain")
    assert refusal(wrong).startswith("p.yaml:3: services[0].domain: domain no domain is not a name")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("27000-27100", "99999", "p.yaml:9: services[1].ports: 99999 is not between 1 and 65535"),
        ("kind: icmp", "kind: smtp", "p.yaml:11: services[1].health.kind: health.kind is neither tcp, http nor icmp"),
        ("kind: icmp", "colour: red", "p.yaml:11: services[1].health.colour: colour is not a field of health"),
        ("interface: mon0", "file: a/b", "p.yaml:13: services[1].mirror.file: mirror.file must match"),
        ("interface: mon0", "port: mon0", "p.yaml:13: services[1].mirror.port: port is not a field of mirror"),
        ("name: games      # a comment", "name: video", "p.yaml:5: services[1].name: there is already a service"),
        ("    applicationIP: 192.168.50.30\n", "", "p.yaml:5: services[1].applicationIP: "),
        ("protocol: udp", "protokoll: udp", "p.yaml:8: services[1].protokoll: protokoll is not a field of a service"),
        ("protocol: udp", "name: again", "p.yaml:8: name is given twice"),
        ("protocol: udp", "[1]: again", "p.yaml:8: a field is no text"),
        ("protocol: udp", "protocol: *udp", "p.yaml:8: found undefined alias"),
        ("services:", "service:", "p.yaml:1: service is not a field of a policy"),
        ("    protocol: udp", "  protocol: udp", "p.yaml:8: expected <block end>"),
    ],
)  # fmt: skip
def test_an_error_points_at_line_and_field(old: str, new: str, message: str) -> None:
    assert refusal(GOOD.replace(old, new)).startswith(message)


def test_two_services_that_select_the_same_are_both_named() -> None:
    more = "  - {name: other, serviceIP: 203.0.113.0/24, applicationIP: 192.168.50.9}\n"
    told = refusal(GOOD + more)
    assert told.startswith("p.yaml:14: services[2].serviceIP: ")
    assert "other" in told
    assert "games" in told


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "p.yaml:1: a policy is an object"),
        ("- a", "p.yaml:1: a policy is an object"),
        ("services: {}", "p.yaml:1: services is missing or not a list"),
        ("services:\n- 5\n", "p.yaml:2: services[0] is not an object"),
        ("services: [", "p.yaml:1: "),
        ("services: &all [*all]", "p.yaml:1: aliases are not taken"),
        ("services:\n- &a {x: 1}\n- *a\n", "p.yaml:2: aliases are not taken"),
        ("services: \x00", "p.yaml: "),
        ("services: !!python/object:os.system x", "p.yaml:1: could not determine a constructor"),
        ("services: " + 5000 * "[", "p.yaml: is nested too deeply"),
    ],
)
def test_what_is_no_policy(text: str, message: str) -> None:
    assert refusal(text).startswith(message)


def test_a_policy_of_the_api_names_the_entry() -> None:
    body = {"services": [*policy_body(read_policy(GOOD, "p").policy)["services"], {"name": "x"}]}  # type: ignore[misc]
    with pytest.raises(BadRequest) as refused:
        parse_policy(body)
    assert refused.value.field == "services[2].serviceIP"


def test_a_file_has_security_groups_and_errors_name_their_lines() -> None:
    text = (
        "services: []\n"
        "securityGroups:\n"
        "  - name: web\n"
        "    rules:\n"
        "      - {direction: egress, protocol: tcp, ports: [5432], remote: 'group:db'}\n"
        "      - {direction: ingress, protocol: icmp}\n"
        "  - name: db\n"
    )
    assert [group.name for group in read_policy(text, "f").policy.groups] == ["db", "web"]
    with pytest.raises(SetupError, match=r"f:6: securityGroups\[0\]\.rules\[1\]\.protocol: "):
        read_policy(text.replace("icmp", "ipsec"), "f")
    with pytest.raises(
        SetupError, match=r"f:5: securityGroups\[\d\]\.rules\[0\]\.remote: there is no security group"
    ):
        read_policy(text.replace("name: db", "name: other"), "f")
