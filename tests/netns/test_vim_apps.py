"""ME Apps from the API to a UE: a real TOF, real sandboxes on ports of br-ue."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gtp_apps import ue_kernel
from gtp_packets import Bearer, new_bearer
from gtp_peers import Setting, Tof, running_tof, until
from vim_host import marked

pytestmark = pytest.mark.netns

SERVICE = "203.0.113.10"
WEB = ["/usr/bin/python3", "-m", "http.server", "8080"]


def web(name: str = "web", **more: Any) -> dict[str, Any]:
    service = {"name": name, "serviceIP": SERVICE, "protocol": "tcp", "ports": [80], "applicationPort": 8080}
    return {"name": name, "command": WEB, "services": [service], **more}


@pytest.fixture(scope="module")
def tof() -> Iterator[Tof]:
    with running_tof(Setting()) as running:
        yield running


@pytest.fixture(autouse=True)
def _fresh(tof: Tof) -> Iterator[None]:
    tof.drain()
    yield
    for one in tof.get("/apps"):
        tof.call("DELETE", f"/apps/{one['name']}?wait=20")
    assert left(tof) == []


def left(tof: Tof) -> list[str]:
    """Everything of apps that is still there."""
    links = tof.netns["tof"].run("ip", "-br", "link").split("\n")
    found = [line for line in links if line.startswith(("tofv", "tofap-", "tofp"))]
    found += [str(path) for path in (tof.dir / "run" / "vim").glob("*/*")]
    found += [f"service {one['name']}" for one in tof.get("/service")]
    return found + marked(tof.dir / "run" / "vim" / "local", "web")


def fetched(tof: Tof, bearer: Bearer) -> str:
    with ue_kernel(tof, bearer):
        return tof.netns["ran"].run("curl", "-s", "-m", "5", f"http://{SERVICE}/", check=False)


def state(tof: Tof, name: str = "web") -> str:
    return str(tof.get(f"/apps/{name}").get("state"))


def test_a_ue_reaches_an_app_from_its_creation_until_it_is_deleted(tof: Tof) -> None:
    bearer = new_bearer()
    tof.attach(bearer)
    status, view = tof.call("POST", "/apps?wait=20", web())
    assert status == 201, view
    print(view["timings"])
    assert view["state"] == "ready"
    assert view["error"] is None
    assert [s["name"] for s in tof.get("/service")] == ["web"]
    assert tof.get("/service")[0]["applicationIP"] == view["addresses"][0]
    assert "Directory listing" in fetched(tof, bearer)
    assert left(tof), "there is something to be left"
    assert tof.call("POST", "/apps?wait=5", web())[0] == 201, "the same again is the same app"
    assert tof.call("POST", "/apps", web(restart="never"))[0] == 409
    status, body = tof.call("DELETE", "/apps/web?wait=20")
    assert (status, body) == (200, "")
    assert tof.call("GET", "/apps/web")[0] == 404
    assert left(tof) == []


def test_an_app_that_crashes_is_withdrawn_and_comes_again(tof: Tof) -> None:
    assert tof.call("POST", "/apps?wait=20", web())[0] == 201
    kill(tof, "web")
    until("it was restarted", lambda: tof.get("/apps/web")["restarts"] == 1)
    assert tof.get("/apps/web")["error"] is None or state(tof) != "ready"
    until("it is back", lambda: state(tof) == "ready", 20)
    assert tof.get("/apps/web")["error"] is None
    assert [s["name"] for s in tof.get("/service")] == ["web"]
    bearer = new_bearer()
    tof.attach(bearer)
    assert "Directory listing" in fetched(tof, bearer)
    assert tof.metrics()["tof_app_restarts_total"] >= 1


def test_an_app_that_is_not_to_come_again_leaves_only_the_reason(tof: Tof) -> None:
    assert tof.call("POST", "/apps?wait=20", web(restart="never"))[0] == 201
    kill(tof, "web")
    until("it has failed", lambda: state(tof) == "failed")
    error = tof.get("/apps/web")["error"]
    assert error["step"] == "run"
    assert "exit status 137" in error["vim_message"] or "killed" in error["vim_message"]
    assert error["hint"]
    assert left(tof) == []
    assert {c["name"]: c["detail"] for c in tof.get("/health")["checks"]}["apps"] == "web failed"
    assert tof.call("POST", "/apps?wait=20", web())[0] == 201, "a failed one begins anew"


@pytest.mark.parametrize(
    ("body", "step", "said"),
    [
        ({"command": ["/nothing"]}, "build or run", "No such file"),
        (
            {"command": ["/bin/sh", "-c", "echo giving up; exit 3"]},
            "build or run",
            "exit status 3; its last words: giving up",
        ),
        ({"image": "none"}, "build", "there is no image none"),
        ({"networks": ["apps", "other"]}, "build", "there is no network other"),
        ({"groups": ["unheard-of"]}, "build", "there is no security group called unheard-of"),
    ],
)
def test_what_fails_says_where_and_why_and_leaves_nothing(
    tof: Tof, body: dict[str, Any], step: str, said: str
) -> None:
    status, problem = tof.call("POST", "/apps?wait=20", web(**body))
    assert status == 502, problem
    assert problem["step"] in step, problem
    assert said in problem["vim_message"]
    assert problem["hint"]
    assert left(tof) == []
    assert state(tof) == "failed"


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({"services": [{"name": "x", "serviceIP": "no"}]}, 400, "services[0].serviceIP"),
        ({"services": [{"name": "x", "serviceIP": SERVICE, "ports": [1]}]}, 400, "services[0].ports"),
        ({"services": [{"name": "held", "serviceIP": "203.0.113.99"}]}, 409, "services[0].name"),
        ({"services": [{"name": "x", "serviceIP": "203.0.113.98"}]}, 409, "services[0].serviceIP"),
        (
            {"services": [{"name": "x", "serviceIP": SERVICE, "mirror": {"file": "x"}}]},
            400,
            "services[0].mirror.file",
        ),
        ({"vim": "elsewhere"}, 400, "vim"),
        ({"command": []}, 400, "command"),
        ({"flavour": {"cpu": 0}}, 400, "flavour.cpu"),
        ({"name": "Web"}, 400, "name"),
    ],
)
def test_what_cannot_be_is_refused_by_field(tof: Tof, body: dict[str, Any], status: int, field: str) -> None:
    held = {"name": "held", "serviceIP": "203.0.113.98", "applicationIP": "192.168.50.10"}
    assert tof.call("POST", "/service", held)[0] == 200
    try:
        answer = tof.call("POST", "/apps", web() | body)
        assert answer[0] == status, answer
        assert answer[1]["errors"][0]["field"] == field
        assert tof.get("/apps") == []
    finally:
        tof.call("DELETE", "/service/held")


def test_deleting_breaks_off_what_is_being_done(tof: Tof) -> None:
    """It never answers, so that it is probed for ever."""
    status, problem = tof.call("POST", "/apps?wait=1", web(command=["/bin/sleep", "1000"]))
    assert (status, state(tof)) == (504, "probing"), problem
    assert "it goes on, see /apps/web" in problem["detail"]
    assert tof.call("DELETE", "/apps/web?wait=10") == (200, "")
    assert left(tof) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_apps_go_on_without_an_agent_and_are_taken_over(tof: Tof, number: signal.Signals) -> None:
    bearer = new_bearer()
    tof.attach(bearer)
    assert tof.call("POST", "/apps?wait=20", web())[0] == 201
    before = tof.get("/apps/web")
    tof.signal(number)
    assert "Directory listing" in fetched(tof, bearer), "without an agent"
    tof.start()
    until("it is taken over", lambda: state(tof) == "ready")
    assert "Directory listing" in fetched(tof, bearer)
    assert tof.get("/apps/web")["addresses"] == before["addresses"]
    assert tof.get("/apps/web")["restarts"] == 0
    kill(tof, "web")
    until("its end is noticed", lambda: tof.get("/apps/web")["restarts"] == 1)


def test_an_app_that_ended_without_an_agent(tof: Tof) -> None:
    assert tof.call("POST", "/apps?wait=20", web())[0] == 201
    tof.signal(signal.SIGKILL)
    kill(tof, "web")
    tof.start()
    until("it is back", lambda: state(tof) == "ready" and tof.get("/apps/web")["restarts"] == 1, 20)


def test_tof_down_removes_apps_and_the_next_agent_makes_them_again(tof: Tof) -> None:
    assert tof.call("POST", "/apps?wait=20", web())[0] == 201
    assert "removed the app web" in tof.tof("down")
    assert marked(tof.dir / "run" / "vim" / "local", "web") == []
    assert not (tof.dir / "run" / "vim").exists()
    assert tof.agent is not None
    tof.agent.wait()
    tof.start()
    until("it is made again", lambda: state(tof) == "ready", 20)


def test_the_command_line(tof: Tof, tmp_path: Path) -> None:
    file = tmp_path / "app.yaml"
    file.write_text(
        "command: [/usr/bin/python3, -m, http.server, '8080']\nhealth: {kind: http, port: 8080}\n"
    )
    made = cli(
        tof, "create", "web", "--file", str(file), "--service", f"web={SERVICE}:80:8080", "--env", "A=b"
    )
    assert made.returncode == 0, made.stderr
    assert "web: ready on local" in made.stdout
    assert "building" in made.stderr or "requested" in made.stderr
    assert "ready" in cli(tof, "list").stdout
    assert '"environment"' in cli(tof, "show", "web", "--json").stdout
    assert cli(tof, "create", "web", "--", "/bin/other").returncode == 1
    assert cli(tof, "create", "--env", "nonsense", "x").returncode == 2
    assert cli(tof, "delete", "web").stdout == "web: deleted\n"
    assert cli(tof, "delete", "web").returncode == 1


def cli(tof: Tof, *words: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "tof", "--api", f"unix:{tof.dir}/api.sock", "apps", *words]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)


def kill(tof: Tof, name: str) -> None:
    """The app's own process, as the host sees it."""
    record = json.loads((tof.dir / "run" / "vim" / "local" / f"{name}.json").read_text())
    address = record["addresses"][0].partition("/")[0]
    wanted = {f"TOF_APP_NAME={name}".encode(), b"TOF_APP_ADDRESS=" + address.encode()}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = {word.partition(b" ")[0] for word in (entry / "environ").read_bytes().split(b"\0")}
            if wanted <= words:
                subprocess.run(["kill", "-KILL", entry.name], check=False)
