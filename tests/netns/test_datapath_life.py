"""The data path without its agent, without Open vSwitch, and over the years."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from gtp_apps import udp_echo, ue_kernel
from gtp_packets import ACK, ELSEWHERE, SYN, Bearer, gpdu_of, new_bearer, tcp, udp
from gtp_peers import APP, Setting, Tof, running_tof, until

pytestmark = pytest.mark.netns

SERVICE, ECHO, WEB = "203.0.113.10", 7, 8080


@pytest.fixture(scope="module")
def tof() -> Iterator[Tof]:
    with running_tof(Setting(xdp="native")) as running:
        udp_echo(running.netns["apps"], APP, ECHO)
        with running.netns["apps"].entered():
            web = socket.create_server((APP, WEB), backlog=64)
        with web:
            running.provision("echo", SERVICE)
            yield running


@pytest.fixture(autouse=True)
def _fresh(tof: Tof) -> None:
    tof.drain()


def echo(bearer: Bearer, data: bytes, port: int = 4000) -> bytes:
    return bearer.uplink(udp(bearer.ue, SERVICE, port, ECHO, data))


def is_diverted(tof: Tof, bearer: Bearer, within_s: float = 0.3) -> bool:
    """Whether the service's application answers now."""
    data = os.urandom(6)
    tof.ran.send(echo(bearer, data))
    return tof.ran.find(lambda frame: _data(frame) == b"app:" + data, within_s) is not None


def _data(frame: bytes) -> bytes:
    one = gpdu_of(frame)
    return one.inner.data if one is not None else b""


def test_unknown_tunnels_pass_without_an_agent_and_are_learnt_by_the_next(tof: Tof) -> None:
    bearer = new_bearer()
    tof.signal(signal.SIGKILL)
    try:
        for _ in range(3):
            tof.up(bearer)
            tof.down(bearer)
    finally:
        tof.start()
    time.sleep(0.12)
    tof.up(bearer)
    tof.down(bearer)
    until("learnt", lambda: len(tof.known(bearer)) == 2)


def test_a_real_connection_outlives_the_agent(tof: Tof) -> None:
    bearer = new_bearer()
    tof.attach(bearer)
    with tof.netns["apps"].entered():
        server = socket.create_server((APP, 9000))
    with server, ue_kernel(tof, bearer):
        with tof.netns["ran"].entered():
            client = socket.create_connection((SERVICE, 9000), 5)
        served, _ = server.accept()
        with client, served:
            for step in (lambda: None, lambda: tof.signal(signal.SIGKILL), tof.start):
                step()
                for one, other in ((client, served), (served, client)):
                    other.settimeout(3)
                    data = os.urandom(5000)
                    one.sendall(data)
                    got = b""
                    while len(got) < len(data):
                        got += other.recv(65536)
                    assert got == data


def vswitchd(tof: Tof) -> int:
    return int(next(Path(tof.dir / "run").rglob("ovs-vswitchd*.pid")).read_text())


@pytest.mark.parametrize("end", ["kill", "stop"])
def test_without_ovs_services_are_answered_by_the_core_within_a_second(tof: Tof, end: str) -> None:
    bearer = new_bearer()
    tof.attach(bearer)
    assert is_diverted(tof, bearer)
    pid = vswitchd(tof)
    os.kill(pid, signal.SIGKILL if end == "kill" else signal.SIGSTOP)
    began = time.monotonic()
    try:
        data = b"to the core"
        asked = echo(bearer, data)

        def at_core() -> bool:
            tof.ran.send(asked)
            return tof.core.find(lambda frame: frame == asked, 0.05) is not None

        until("service traffic reaches the core", at_core, 3)
        assert time.monotonic() - began < 1.2
        elsewhere = bearer.uplink(udp(bearer.ue, ELSEWHERE, 1, 2, b"pass-through"))
        tof.ran.send(elsewhere)
        tof.core.expect(elsewhere)
    finally:
        if end == "stop":
            os.kill(pid, signal.SIGCONT)
    until("diverted again", lambda: is_diverted(tof, bearer), 15)


def test_a_connection_that_began_at_the_core_stays_there(tof: Tof) -> None:
    bearer = new_bearer()
    tof.attach(bearer)
    pid = vswitchd(tof)
    os.kill(pid, signal.SIGSTOP)
    syn = bearer.uplink(tcp(bearer.ue, SERVICE, 5000, WEB, SYN))
    try:
        time.sleep(1.1)
        tof.ran.send(syn)
        tof.core.expect(syn)
    finally:
        os.kill(pid, signal.SIGCONT)
    until("diverted again", lambda: is_diverted(tof, bearer), 15)
    middle = bearer.uplink(tcp(bearer.ue, SERVICE, 5000, WEB, ACK, seq=1001, data=b"GET"))
    tof.ran.send(middle)
    tof.core.expect(middle)


@pytest.mark.parametrize("agent", ["with an agent", "without one"])
def test_bypass_is_instant(tof: Tof, agent: str) -> None:
    bearer = new_bearer()
    tof.attach(bearer)
    assert is_diverted(tof, bearer)
    with contextlib.ExitStack() as stack:
        if agent == "without one":
            tof.signal(signal.SIGKILL)
            stack.callback(tof.start)
        stack.callback(tof.tof, "bypass", "off")
        tof.tof("bypass", "on")
        asked = echo(bearer, b"bypassed")
        tof.ran.send(asked)
        tof.core.expect(asked, 0.5)
        if agent == "with an agent":
            assert tof.metrics()["tof_bypass"] == 1
        unknown = new_bearer()
        queued = unknown.uplink(udp(unknown.ue, ELSEWHERE, 1, 2))
        tof.ran.send(queued)
        tof.core.expect(queued, 0.5)
    tof.tof("bypass", "off")
    assert is_diverted(tof, bearer)
    assert not tof.known(unknown)


def test_sigterm_leaves_the_data_plane_in_force(tof: Tof) -> None:
    bearer = new_bearer()
    tof.attach(bearer)
    tof.signal(signal.SIGTERM)
    try:
        assert is_diverted(tof, bearer)
        tof.up(bearer)
    finally:
        tof.start()
    assert len(tof.known(bearer)) == 2


FLOOD = 20_000  # more than the queue holds


def test_a_full_queue_fails_open(tof: Tof) -> None:
    """The agent sleeps, the queue fills up: what no longer fits passes at once, what waits passes later."""
    frames = [
        Bearer(f"10.{60 + n // 65536}.{n // 256 % 256}.{n % 256}", 0x700000 + n, 0).uplink(
            udp(f"10.{60 + n // 65536}.{n // 256 % 256}.{n % 256}", ELSEWHERE, 1, 2)
        )
        for n in range(FLOOD)
    ]
    wanted = set(frames)
    tof.signal(signal.SIGSTOP)
    try:
        tof.ran.send(*frames)
        assert tof.core.find(wanted.__contains__) is not None
    finally:
        tof.signal(signal.SIGCONT)
    began = time.monotonic()
    assert tof.get("/health")["checks"]
    assert time.monotonic() - began < 1.5, "the flood has all the agent's time"
    until("all have come", lambda: tof.core.find(lambda _: False, 0.2) or wanted <= {*tof.core.history}, 20)
