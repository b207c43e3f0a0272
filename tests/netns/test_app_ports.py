"""Applications on ports of their own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
from gtp_apps import udp_echo
from gtp_packets import new_bearer, udp
from gtp_peers import Setting, Tof, running_tof, until
from gtp_ports import App, section

pytestmark = pytest.mark.netns

SERVICE, SERVICE6, ECHO = "203.0.113.10", "2001:db8:113::10", 7
CONFIG = section("one", 21, "one") + section("two", 22, "two")


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[Tof, App, App]]:
    with running_tof(Setting(more=CONFIG)) as tof, contextlib.ExitStack() as stack:
        one, two = App(tof, "one", 21), App(tof, "two", 22)
        stack.callback(one.close)
        stack.callback(two.close)
        for app in (one, two):
            for address in (app.ip, app.ip6):
                udp_echo(app.netns, address, ECHO)
        tof.provision("echo", SERVICE, one.ip)
        tof.provision("echo6", SERVICE6, one.ip6)
        until("the link is up", lambda: tof.get("/service/echo/status")["state"] == "in_force")
        yield tof, one, two


def test_a_service_works(running: tuple[Tof, App, App]) -> None:
    tof, _, _ = running
    bearer = new_bearer()
    tof.attach(bearer)
    tof.ran.send(bearer.uplink(udp(bearer.ue, SERVICE, 4000, ECHO, b"hello")))
    got = tof.ran.gpdu(lambda one: one.inner.data == b"app:hello")
    assert got.inner.source == SERVICE
