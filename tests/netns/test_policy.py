"""Policies on a running TOF: all of the change is in force or none of it, under traffic."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gtp_apps import udp_echo
from gtp_packets import Bearer, new_bearer, udp
from gtp_peers import APP, Setting, Tof, running_tof

pytestmark = pytest.mark.netns

ECHO = 7
VIDEO = {"name": "video", "serviceIP": "203.0.113.10", "applicationIP": APP}
LAN = {
    "name": "lan",
    "serviceIP": "203.0.113.64/26",
    "applicationIP": APP,
    "protocol": "udp",
    "ports": [ECHO],
}


@pytest.fixture(scope="module")
def tof() -> Iterator[Tof]:
    with running_tof(Setting()) as running:
        udp_echo(running.netns["apps"], APP, ECHO)
        yield running


@pytest.fixture(autouse=True)
def _nothing(tof: Tof) -> None:
    assert tof.call("PUT", "/policy", {"services": []})[0] == 200
    tof.drain()


def command(tof: Tof, *arguments: str) -> subprocess.CompletedProcess[str]:
    argv = (sys.executable, "-m", "tof", "--api", f"unix:{tof.dir}/api.sock", *arguments)
    return subprocess.run(argv, text=True, capture_output=True, check=False)


def said(bearer: Bearer, to: str, data: bytes) -> bytes:
    return bearer.uplink(udp(bearer.ue, to, 4000, ECHO, data))


def answered(tof: Tof, bearer: Bearer, to: str, data: bytes) -> None:
    tof.ran.send(said(bearer, to, data))
    assert tof.ran.gpdu(lambda one: one.inner.data == b"app:" + data).inner.source == to


def passes(tof: Tof, bearer: Bearer, to: str, data: bytes) -> None:
    frame = said(bearer, to, data)
    tof.ran.send(frame)
    tof.core.expect(frame)


def test_a_file_is_in_force_when_apply_returns(tof: Tof, tmp_path: Path) -> None:
    bearer, file = new_bearer(), tmp_path / "services.yaml"
    tof.attach(bearer)
    passes(tof, bearer, "203.0.113.10", b"before")
    file.write_text(json.dumps({"services": [VIDEO, LAN]}))
    done = command(tof, "apply", "-f", str(file), "--json")
    assert (done.returncode, json.loads(done.stdout)["added"]) == (0, [LAN, VIDEO])
    answered(tof, bearer, "203.0.113.10", b"one")
    answered(tof, bearer, "203.0.113.99", b"two")
    file.write_text(json.dumps({"services": [LAN]}))
    assert command(tof, "apply", "-f", str(file)).stdout.endswith("0 added, 0 changed, 1 removed\n")
    passes(tof, bearer, "203.0.113.10", b"after")
    answered(tof, bearer, "203.0.113.99", b"kept")
    exported = tmp_path / "out.yaml"
    assert command(tof, "services", "export", "-o", str(exported)).returncode == 0
    assert command(tof, "apply", "-f", str(exported)).stdout == "nothing to change\n"


def test_what_is_refused_changes_nothing(tof: Tof, tmp_path: Path) -> None:
    bearer, file = new_bearer(), tmp_path / "services.yaml"
    tof.attach(bearer)
    assert tof.call("PUT", "/policy", {"services": [VIDEO]})[0] == 200
    forbidden = {"name": "own", "serviceIP": "203.0.113.11", "applicationIP": "192.168.50.1"}
    file.write_text(json.dumps({"services": [LAN, forbidden]}))
    done = command(tof, "apply", "-f", str(file))
    assert (done.returncode, done.stderr) == (1, "tof: service own: 192.168.50.1 is an address of the TOF\n")
    file.write_text("services:\n- {name: a, serviceIP: x, applicationIP: y}\n")
    assert command(tof, "apply", "-f", str(file)).returncode == 2
    assert tof.get("/policy") == {"services": [VIDEO]}
    answered(tof, bearer, "203.0.113.10", b"as before")
    passes(tof, bearer, "203.0.113.99", b"as before")


def test_nobody_who_stays_notices(tof: Tof) -> None:
    """Exchanges with a service that stays, while forty others come and go."""
    bearer = new_bearer()
    tof.attach(bearer)
    assert tof.call("PUT", "/policy", {"services": [LAN]})[0] == 200
    for turn in range(8):
        more: list[dict[str, Any]] = [
            {"name": f"n{turn}-{n}", "serviceIP": f"198.51.100.{n + 1}", "applicationIP": APP}
            for n in range(40)
        ]
        assert tof.call("PUT", "/policy", {"services": [LAN, *more] if turn % 2 else [LAN]})[0] == 200
        for n in range(5):
            answered(tof, bearer, "203.0.113.99", b"%d %d" % (turn, n))
    assert not [one for one in tof.core.gpdus() if one.inner.destination == "203.0.113.99"]


def test_an_agent_that_starts_again_has_the_policy(tof: Tof) -> None:
    assert tof.call("PUT", "/policy", {"services": [VIDEO, LAN]})[0] == 200
    tof.signal(signal.SIGKILL)
    tof.start()
    assert tof.get("/policy") == {"services": [LAN, VIDEO]}
