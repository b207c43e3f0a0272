"""ME Apps as JSON, and what they say of their services and probes."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest

from tof.agent.app import (
    PLACEHOLDERS,
    App,
    AppFault,
    AppRow,
    AppState,
    AppView,
    Built,
    Flavour,
    Restart,
    Step,
)
from tof.agent.app_body import (
    MOST_SERVICES,
    app_body,
    at_service,
    parse_app,
    parse_row,
    row_body,
    view_body,
)
from tof.agent.catalog import Catalog
from tof.errors import BadRequest, Conflict
from tof.model import HealthCheck, ProbeKind, Service

WEB: dict[str, Any] = {"name": "web", "vim": "local", "command": ["/bin/web", "-p", "80"]}
FULL: dict[str, Any] = {
    **WEB,
    "image": "nginx",
    "flavour": {"cpu": 0.5, "memoryMb": 64},
    "networks": ["apps", "platform"],
    "environment": {"A": "b", "C": ""},
    "groups": ["web"],
    "health": {"kind": "http", "port": 8080, "path": "/ok"},
    "services": [
        {
            "name": "web",
            "serviceIP": "203.0.113.10",
            "protocol": "tcp",
            "ports": [80],
            "applicationPort": 8080,
        },
        {"name": "web6", "serviceIP": "2001:db8:1::1"},
        {"name": "named", "domain": "web.example.com"},
    ],
    "restart": "never",
}
V4, V6 = ip_address("192.168.50.128"), ip_address("fd00:50::80")


@pytest.mark.parametrize("body", [WEB, FULL])
def test_a_body_is_read_and_written(body: dict[str, Any]) -> None:
    app = parse_app(body)
    assert app_body(app) == body
    assert parse_row(row_body(AppRow(app, wanted=False, ready=True))) == AppRow(app, wanted=False, ready=True)
    row = AppRow(app, fault=AppFault(Step.BUILD, "no", "hm"))
    assert parse_row(row_body(row)) == row


def test_usual_values() -> None:
    app = parse_app({"name": "web", "image": "nginx"})
    assert (app.vim, app.networks, app.restart, app.flavour) == (
        "local",
        ("apps",),
        Restart.ALWAYS,
        Flavour(),
    )


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"color": "red"}, "color"),
        ({"name": "Web"}, "name"),
        ({"name": "-web"}, "name"),
        ({"name": 7}, "name"),
        ({"vim": "No"}, "vim"),
        ({"image": "../etc"}, "image"),
        ({"command": "/bin/web"}, "command"),
        ({"command": ["a"] * 257}, "command"),
        ({"command": ["a", 7]}, "command[1]"),
        ({"command": ["a\0"]}, "command[0]"),
        ({"command": ["a" * 4097]}, "command[0]"),
        ({"command": []}, "command"),
        ({"flavour": 1}, "flavour"),
        ({"flavour": {"gpu": 1}}, "flavour.gpu"),
        ({"flavour": {"cpu": 0}}, "flavour.cpu"),
        ({"flavour": {"cpu": True}}, "flavour.cpu"),
        ({"flavour": {"memoryMb": 1.5}}, "flavour.memoryMb"),
        ({"flavour": {"memoryMb": 1}}, "flavour.memoryMb"),
        ({"networks": ["platform"]}, "networks"),
        ({"environment": []}, "environment"),
        ({"environment": {"A B": "c"}}, "environment"),
        ({"environment": {"A": 7}}, "environment.A"),
        ({"groups": 7}, "groups"),
        ({"health": {"kind": "http"}}, "health.port"),
        ({"health": {"kind": "tcp", "port": 70000}}, "health.port"),
        ({"health": {"kind": "smoke"}}, "health.kind"),
        ({"services": {}}, "services"),
        ({"services": [7]}, "services[0]"),
        ({"services": [{"name": "x", "serviceIP": "203.0.113.1"}] * (MOST_SERVICES + 1)}, "services"),
        ({"services": [{"name": "x", "serviceIP": "203.0.113.1", "applicationIP": "1.2.3.4"}]}, "services[0].applicationIP"),
        ({"services": [{"name": "x", "serviceIP": "no"}]}, "services[0].serviceIP"),
        ({"services": [{"name": "x", "serviceIP": "203.0.113.1"}] * 2}, "services[1].name"),
        ({"restart": "sometimes"}, "restart"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_by_field(more: dict[str, Any], field: str) -> None:
    with pytest.raises(BadRequest) as caught:
        parse_app({**WEB, **more})
    assert caught.value.field == field


def test_services_get_the_address_of_their_family() -> None:
    app = parse_app(FULL)
    first, second, third = app.services_at((V4, V6))
    assert [first.application_ip, second.application_ip, third.application_ip] == [V4, V6, V4]
    assert first.health == HealthCheck(ProbeKind.HTTP, 8080, "/ok"), (
        "the app's, as they have none of their own"
    )
    with pytest.raises(KeyError):
        app.services_at((V4,))
    own = parse_app(
        {**WEB, "services": [{"name": "x", "serviceIP": "203.0.113.1", "health": {"kind": "icmp"}}]}
    )
    assert own.services_at((V4,))[0].health == HealthCheck(ProbeKind.ICMP)


@pytest.mark.parametrize(
    ("more", "kind", "port"),
    [
        ({}, ProbeKind.ICMP, 0),
        ({"services": FULL["services"]}, ProbeKind.TCP, 8080),
        (
            {"services": [{"name": "x", "serviceIP": "203.0.113.1", "protocol": "udp", "ports": [53]}]},
            ProbeKind.ICMP,
            0,
        ),
        ({"health": {"kind": "icmp"}}, ProbeKind.ICMP, 0),
        ({"health": {"kind": "http", "port": 81}, "services": FULL["services"]}, ProbeKind.HTTP, 81),
        ({"health": {"kind": "http"}, "services": FULL["services"]}, ProbeKind.HTTP, 8080),
    ],
)
def test_how_it_is_asked_whether_it_has_come_up(more: dict[str, Any], kind: ProbeKind, port: int) -> None:
    check, asked = parse_app({**WEB, **more}).probe
    assert (check.kind, asked) == (kind, port)


def test_an_app_as_it_is_shown() -> None:
    app = parse_app(WEB)
    bare = view_body(AppView(app, AppState.REQUESTED))
    assert (bare["step"], bare["addresses"], bare["reach"], bare["error"]) == (None, [], None, None)
    fault = AppFault(Step.RUN, "exit status 1", "look")
    built = Built((V4, V6), V4)
    shown = view_body(AppView(app, AppState.RESTARTING, Step.WAIT, built, fault, 2, (("build", 0.12345678),)))
    assert shown == {
        "name": "web", "vim": "local", "state": "restarting", "step": "wait", "addresses": [str(V4), str(V6)],
        "reach": str(V4), "restarts": 2, "timings": {"build": 0.123457}, "spec": WEB,
        "error": {"step": "run", "vim_message": "exit status 1", "hint": "look"},
    }  # fmt: skip


def test_the_catalog_says_which_service_of_an_app_cannot_be() -> None:
    catalog = Catalog()
    held = catalog.put_new(Service("held", ip_address("203.0.113.1"), V4))
    new = Service("new", ip_address("203.0.113.2"), PLACEHOLDERS[4])
    catalog.check_new([new])
    assert catalog.services == (held,)
    with pytest.raises(Conflict) as caught:
        catalog.check_new([new, Service("held", ip_address("203.0.113.3"), V4)])
    assert caught.value.field == "services[1].name"
    with pytest.raises(Conflict) as caught:
        catalog.check_new([new, Service("other", new.service_ip, V4)])
    assert caught.value.field == "services[1].serviceIP"
    assert catalog.services == (held,)
    assert at_service(3, BadRequest("no")).field == "services[3]"


def test_an_app_needs_something_to_run() -> None:
    assert parse_app({"name": "web", "image": "nginx"}) == App("web", image="nginx")
