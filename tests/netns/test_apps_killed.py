"""``kill -9`` of the agent at every call that makes or removes an app: afterwards it is there as a whole, or not at all."""

from __future__ import annotations

import contextlib
import http.client
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from gtp_peers import Setting, Tof, running_tof, until
from test_vim_apps import left, state, web

pytestmark = pytest.mark.netns

AGENT = Path(__file__).parent / "dying_agent.py"
MOST = 40


@pytest.fixture(scope="module")
def tof() -> Iterator[Tof]:
    with running_tof(Setting()) as running:
        yield running


def start_dying(tof: Tof, at: int | str) -> Path:
    """An agent that dies at that call; where it notes its calls."""
    calls = tof.dir / "calls"
    calls.unlink(missing_ok=True)
    argv = ["ip", "netns", "exec", tof.netns["tof"].name, sys.executable, str(AGENT)]
    with (tof.dir / "agent.log").open("ab") as log:
        tof.agent = subprocess.Popen([*argv, str(tof.config), str(calls), str(at)], stdout=log, stderr=log)
    until("the agent is healthy", tof._healthy, 30)
    return calls


def ask(tof: Tof, method: str, path: str, body: object = None) -> None:
    """It may die before it answers."""
    with contextlib.suppress(OSError, http.client.HTTPException):
        tof.call(method, path, body)


def died(tof: Tof) -> bool:
    assert tof.agent is not None
    with contextlib.suppress(subprocess.TimeoutExpired):
        tof.agent.wait(2)
    return tof.agent.poll() is not None


def killed_creating(tof: Tof, at: int | str) -> tuple[bool, list[str]]:
    """Whether it was killed, and the calls until then; the app is completed, or nothing is left."""
    tof.signal(signal.SIGTERM)
    calls = start_dying(tof, at)
    ask(tof, "POST", "/apps?wait=20", web())
    dead, seen = died(tof), calls.read_text().split()
    if not dead:
        tof.signal(signal.SIGTERM)
    tof.start()
    if tof.call("GET", "/apps/web")[0] == 200:
        until(f"killed at {at}, {seen[-1]}, it is completed", lambda: state(tof) == "ready", 20)
        assert tof.call("DELETE", "/apps/web?wait=20")[0] == 200
    until(f"killed at {at}, {seen[-1]}, nothing is left", lambda: left(tof) == [])
    return dead, seen


@pytest.mark.parametrize("at", ["put_app", "wire", "plug", "release", "provision"])
def test_killed_at_some_calls_of_a_creation(tof: Tof, at: str) -> None:
    assert killed_creating(tof, at)[0]


@pytest.mark.heavy
def test_killed_at_any_call_of_a_creation(tof: Tof) -> None:
    for at in range(1, MOST):
        dead, seen = killed_creating(tof, at)
        if not dead:
            assert {"put_app", "note", "enclose", "wire", "plug", "release", "provision"} <= {*seen}
            return
    pytest.fail(f"more than {MOST} calls")


@pytest.mark.parametrize("at", ["withdraw", "end", "unwire", "delete_app"])
def test_killed_at_some_calls_of_a_removal(tof: Tof, at: str) -> None:
    tof.signal(signal.SIGTERM)
    start_dying(tof, at)
    assert tof.call("POST", "/apps?wait=20", web())[0] == 201
    ask(tof, "DELETE", "/apps/web?wait=20")
    assert died(tof)
    tof.start()
    until("it is gone", lambda: tof.call("GET", "/apps/web")[0] == 404, 20)
    until("nothing is left", lambda: left(tof) == [])


@pytest.mark.heavy
def test_killed_at_any_call_of_a_removal(tof: Tof) -> None:
    seen = []
    for at in range(1, MOST):
        assert tof.call("POST", "/apps?wait=20", web())[0] == 201
        tof.signal(signal.SIGTERM)
        calls = start_dying(tof, 0)
        until("it is taken over", lambda: state(tof) == "ready")
        before = len(calls.read_text().split())
        tof.signal(signal.SIGTERM)
        calls = start_dying(tof, before + at)
        until("it is taken over", lambda: state(tof) == "ready")
        ask(tof, "DELETE", "/apps/web?wait=20")
        dead = died(tof)
        seen = calls.read_text().split()[before:]
        if not dead:
            break
        tof.start()
        if seen[-1] == "put_app":  # nothing may have been kept of the wish, which was not answered either
            assert tof.call("DELETE", "/apps/web?wait=20")[0] in (200, 404)
        until(f"killed at {at}, {seen[-1]}, it is gone", lambda: tof.call("GET", "/apps/web")[0] == 404, 20)
        until("nothing is left", lambda: left(tof) == [])
    else:
        pytest.fail(f"more than {MOST} calls: {seen}")
    tof.signal(signal.SIGTERM)
    tof.start()
    assert {"put_app", "withdraw", "end", "unplug", "unwire", "forget", "delete_app"} <= {*seen}
    assert left(tof) == []
