"""Applications that die: their services' packets go to the core, and come back with them."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from gtp_apps import udp_echo
from gtp_packets import Bearer, gpdu_of, new_bearer, new_bearer6, udp
from gtp_peers import APP, APP6, Setting, Tof, running_tof, until

pytestmark = pytest.mark.netns

ECHO, WEB = 7, 8080
SERVICE, SERVICE6 = "203.0.113.10", "2001:db8:113::10"
FAST = {"interval": 0.1, "timeout": 0.3, "fall": 2}

_WEB = """\
import http.server, socket, socketserver, sys
class Server(socketserver.TCPServer):
    allow_reuse_address = True
    address_family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/healthz" else 503)
        self.end_headers()
    def log_message(self, *_):
        pass
server = Server((sys.argv[1], int(sys.argv[2])), Handler)
print("ready", flush=True)
server.serve_forever()
"""


@pytest.fixture(scope="module")
def tof() -> Iterator[Tof]:
    with running_tof(Setting()) as running:
        for address in (APP, APP6):
            udp_echo(running.netns["apps"], address, ECHO)
        yield running


@pytest.fixture(autouse=True)
def _fresh(tof: Tof) -> None:
    tof.drain()


@contextlib.contextmanager
def web(tof: Tof, address: str = APP) -> Iterator[subprocess.Popen[str]]:
    """A web server of the application, whose process a test may stop or end."""
    process = tof.netns["apps"].start(sys.executable, "-c", _WEB, address, str(WEB))
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def service(tof: Tof, health: dict[str, Any], **more: Any) -> Iterator[None]:
    body = {"name": "asked", "serviceIP": SERVICE, "applicationIP": APP, "health": health | FAST, **more}
    status, answer = tof.call("POST", "/service", body)
    assert (status, answer) == (200, body)
    try:
        yield
    finally:
        tof.call("DELETE", "/service/asked")


def state(tof: Tof) -> str:
    return str(tof.get("/service/asked/status")["state"])


def becomes(tof: Tof, wanted: str) -> None:
    until(f"the service is {wanted}", lambda: state(tof) == wanted)


def said(bearer: Bearer, data: bytes) -> bytes:
    return bearer.uplink(udp(bearer.ue, SERVICE6 if ":" in bearer.ue else SERVICE, 4000, ECHO, data))


def edge_answers(tof: Tof, bearer: Bearer, data: bytes) -> None:
    """At once, or as soon as the data path has followed what the status says."""

    def wanted(frame: bytes) -> bool:
        one = gpdu_of(frame)
        return one is not None and (one.inner.data, one.teid) == (b"app:" + data, bearer.down)

    def answered() -> bool:
        tof.ran.send(said(bearer, data))
        return tof.ran.find(wanted, 0.2) is not None

    until("the application answers", answered)


def core_gets(tof: Tof, bearer: Bearer, data: bytes) -> None:
    """The same."""
    frame = said(bearer, data)

    def came() -> bool:
        tof.ran.send(frame)
        return tof.core.find(lambda one: one == frame, 0.2) is not None

    until("the core gets it", came)


@pytest.mark.parametrize(
    "health", [{"kind": "http", "path": "/healthz", "port": WEB}, {"kind": "tcp", "port": WEB}]
)
def test_a_dead_application_s_packets_go_to_the_core_until_it_lives_again(
    tof: Tof, health: dict[str, Any]
) -> None:
    bearer = new_bearer()
    tof.attach(bearer)
    with web(tof) as server, service(tof, health):
        assert state(tof) == "in_force", "the POST waits for the first answer"
        edge_answers(tof, bearer, b"alive")
        server.kill()
        server.wait()
        becomes(tof, "unhealthy")
        assert "refused" in tof.get("/service/asked/status")["detail"]
        assert {c["name"]: c["detail"] for c in tof.get("/health")["checks"]}["applications"] == "dead: asked"
        core_gets(tof, bearer, b"dead")
        with web(tof):
            becomes(tof, "in_force")
            edge_answers(tof, bearer, b"alive again")


def test_an_application_that_hangs_is_as_good_as_dead(tof: Tof) -> None:
    bearer = new_bearer()
    tof.attach(bearer)
    with web(tof) as server, service(tof, {"kind": "http", "path": "/healthz", "port": WEB}):
        server.send_signal(signal.SIGSTOP)
        becomes(tof, "unhealthy")
        assert "no answer within 0.3 s" in tof.get("/service/asked/status")["detail"]
        core_gets(tof, bearer, b"hangs")
        server.send_signal(signal.SIGCONT)
        becomes(tof, "in_force")
        edge_answers(tof, bearer, b"goes on")


def test_an_http_status_of_failure(tof: Tof) -> None:
    with web(tof), service(tof, {"kind": "http", "port": WEB, "path": "/elsewhere"}):
        assert state(tof) == "unhealthy"
        assert tof.get("/service/asked/status")["detail"] == "http probe: HTTP status 503"


def test_an_application_of_ipv6(tof: Tof) -> None:
    bearer = new_bearer6()
    tof.attach(bearer)
    six = {"serviceIP": SERVICE6, "applicationIP": APP6}
    with web(tof, APP6) as server, service(tof, {"kind": "http", "path": "/healthz", "port": WEB}, **six):
        becomes(tof, "in_force")
        edge_answers(tof, bearer, b"alive")
        server.kill()
        becomes(tof, "unhealthy")
        core_gets(tof, bearer, b"dead")
    with service(tof, {"kind": "icmp"}, **six):
        becomes(tof, "in_force")
        edge_answers(tof, bearer, b"pinged")


def test_a_host_that_answers_no_ping(tof: Tof) -> None:
    bearer, apps = new_bearer(), tof.netns["apps"]
    tof.attach(bearer)
    with service(tof, {"kind": "icmp"}):
        edge_answers(tof, bearer, b"pinged")
        apps.run("sysctl", "-q", "-w", "net.ipv4.icmp_echo_ignore_all=1")
        try:
            becomes(tof, "unhealthy")
            core_gets(tof, bearer, b"silent")
        finally:
            apps.run("sysctl", "-q", "-w", "net.ipv4.icmp_echo_ignore_all=0")
        becomes(tof, "in_force")


def test_a_connection_goes_on_when_its_application_is_back(tof: Tof) -> None:
    """The flow is remembered while it is with the core."""
    bearer = new_bearer()
    tof.attach(bearer)
    with web(tof) as server, service(tof, {"kind": "tcp", "port": WEB}):
        edge_answers(tof, bearer, b"before")
        server.kill()
        becomes(tof, "unhealthy")
        core_gets(tof, bearer, b"meanwhile")
        with web(tof):
            becomes(tof, "in_force")
            edge_answers(tof, bearer, b"after")


def test_a_restarted_agent_goes_on_diverting(tof: Tof) -> None:
    bearer = new_bearer()
    tof.attach(bearer)
    with web(tof), service(tof, {"kind": "tcp", "port": WEB}):
        edge_answers(tof, bearer, b"before")
        tof.signal(signal.SIGKILL)
        tof.start()
        edge_answers(tof, bearer, b"after")
        assert state(tof) == "in_force"


def test_bad_checks_are_refused(tof: Tof) -> None:
    body = {"name": "bad", "serviceIP": SERVICE, "applicationIP": APP}
    status, answer = tof.call("POST", "/service", body | {"health": {"kind": "tcp"}})
    assert (status, answer["errors"][0]["field"]) == (400, "health.port")
