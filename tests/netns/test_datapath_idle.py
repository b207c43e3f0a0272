"""Idle tunnels are purged in time, over restarts; a flood of invented ones cannot push out a confirmed pair."""

from __future__ import annotations

import signal
import socket
import time

import pytest
from gtp_packets import ELSEWHERE, Bearer, new_bearer, udp
from gtp_peers import Setting, Tof, running_tof, until
from gtp_wires import Wire

pytestmark = pytest.mark.netns

SERVICE = "203.0.113.10"
IDLE_S = 6


def test_idle_tunnels_are_purged_in_time_and_a_restart_resets_nothing() -> None:
    with running_tof(Setting(idle_timeout_s=IDLE_S)) as tof:
        tof.provision("echo", SERVICE)
        idle, busy, injected = new_bearer(), new_bearer(), new_bearer()
        tof.attach(idle, busy, injected)
        last = time.monotonic()
        _keep_alive(tof, busy, injected, until_s=last + 2)
        tof.signal(signal.SIGKILL)
        tof.start()
        _keep_alive(tof, busy, injected, until_s=last + IDLE_S - 0.7)
        assert len(tof.known(idle)) == 2
        while tof.known(idle):
            assert time.monotonic() < last + IDLE_S + 5
            _keep_alive(tof, busy, injected, until_s=time.monotonic() + 0.2)
        assert [len(tof.known(one)) for one in (busy, injected)] == [2, 2]
        tof.up(idle)
        until("learnt anew", lambda: tof.known(idle))


def _keep_alive(tof: Tof, busy: Bearer, injected: Bearer, until_s: float) -> None:
    """One bearer passes uplink packets only, the other is only spoken to by the application."""
    wire: Wire = tof.ran
    while time.monotonic() < until_s:
        wire.send(busy.uplink(udp(busy.ue, ELSEWHERE, 1, 2)))
        with tof.netns["apps"].entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as app:
            app.sendto(b"push", (injected.ue, 9))
        time.sleep(0.1)


def test_a_confirmed_pair_outlives_a_flood_of_invented_tunnels() -> None:
    with running_tof(Setting(max_tunnels=100)) as tof:
        confirmed = new_bearer()
        tof.attach(confirmed)
        for _ in range(300):
            tof.up(new_bearer(enb="10.1.66.6"))
        assert len(tof.known(confirmed)) == 2
        assert 50 <= len(tof.tunnels()) <= 100
        tof.settle(confirmed)
