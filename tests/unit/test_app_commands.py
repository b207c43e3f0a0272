"""``tof apps`` without an agent: what the options become, and what is wrong with them."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tof.cli import app

READY: dict[str, Any] = {
    "name": "web", "vim": "local", "state": "ready", "step": None, "addresses": ["192.168.50.128"],
    "reach": "192.168.50.128", "restarts": 0, "timings": {"build": 0.02, "total": 0.05}, "error": None,
    "spec": {"name": "web", "services": [{"name": "web"}]},
}  # fmt: skip
BUILDING = READY | {"state": "building", "step": "build", "addresses": [], "reach": None}
ERROR = {"step": "build", "vim_message": "no host", "hint": "add one"}
FAILED = READY | {"state": "failed", "error": ERROR}


class Agent(HTTPServer):
    """Answers from a list, and keeps what it was asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: list[tuple[int, Any]] = []
        self.asked: list[tuple[str, str, Any]] = []


class _Handler(BaseHTTPRequestHandler):
    def handle_one(self) -> None:
        assert isinstance(self.server, Agent)
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        self.server.asked.append((self.command, self.path, body))
        status, answer = self.server.answers.pop(0)
        text = json.dumps(answer).encode() if answer is not None else b""
        self.send_response(status)
        kind = "application/json" if status < 300 else "application/problem+json"
        self.send_header("Content-Type", kind if text else "application/octet-stream")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_POST = do_DELETE = handle_one  # noqa: N815

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def agent() -> Iterator[Agent]:
    server = Agent()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def run(agent: Agent, *words: str) -> Any:
    url = f"http://127.0.0.1:{agent.server_address[1]}"
    return CliRunner().invoke(app, ["--api", url, "apps", *words])


def test_options_become_an_app(agent: Agent, tmp_path: Path) -> None:
    file = tmp_path / "app.yaml"
    file.write_text("vim: other\ngroups: [given]\n")
    agent.answers = [(202, BUILDING), (200, READY)]
    options = ("--file", str(file), "--image", "nginx", "--cpu", "0.5", "--memory", "64", "--env", "A=b=c")
    more = (
        "--group",
        "web",
        "--health",
        "http:8080/ok",
        "--restart",
        "never",
        "--service",
        "web=203.0.113.1:80:8080",
    )
    done = run(
        agent, "create", "web", *options, *more, "--service", "six=2001:db8::1", "--", "/bin/web", "-v"
    )
    assert done.exit_code == 0, done.output
    assert "web: ready on local" in done.output
    assert agent.asked[0] == (
        "POST",
        "/apps",
        {
            "name": "web", "vim": "other", "image": "nginx", "flavour": {"cpu": 0.5, "memoryMb": 64},
            "environment": {"A": "b=c"}, "groups": ["web"], "restart": "never", "command": ["/bin/web", "-v"],
            "health": {"kind": "http", "port": 8080, "path": "/ok"},
            "services": [
                {"name": "web", "serviceIP": "203.0.113.1", "protocol": "tcp", "ports": [80], "applicationPort": 8080},
                {"name": "six", "serviceIP": "2001:db8::1"},
            ],
        },
    )  # fmt: skip
    assert agent.asked[1][:2] == ("GET", "/apps/web")


def test_without_waiting(agent: Agent) -> None:
    agent.answers = [(202, BUILDING)]
    done = run(agent, "create", "web", "--no-wait", "--json", "--", "/bin/web")
    assert (done.exit_code, json.loads(done.stdout)) == (0, BUILDING)
    agent.answers = [(202, BUILDING)]
    assert run(agent, "delete", "web", "--no-wait").exit_code == 0


def test_an_app_that_fails_is_an_exit_status(agent: Agent) -> None:
    agent.answers = [(202, FAILED)]
    done = run(agent, "create", "web", "--", "/bin/web")
    assert done.exit_code == 1
    assert str(done.exception) == "web: build: no host; add one"


def test_an_app_that_takes_too_long(agent: Agent) -> None:
    agent.answers = [(202, BUILDING)] + [(200, BUILDING)] * 5
    done = run(agent, "create", "web", "--timeout", "0.05", "--", "/bin/web")
    assert "it goes on" in str(done.exception)


def test_deleting_waits_until_it_is_gone(agent: Agent) -> None:
    gone = {"detail": "there is no app called web"}
    agent.answers = [(202, BUILDING), (200, READY | {"state": "terminating"}), (404, gone)]
    done = run(agent, "delete", "web")
    assert (done.exit_code, done.stdout) == (0, "web: deleted\n")


def test_lists_and_shows(agent: Agent) -> None:
    agent.answers = [(200, [READY, FAILED]), (200, FAILED), (200, READY), (200, [READY])]
    done = run(agent)
    assert "ready" in done.output
    assert "build: no host" in done.output
    assert "what to do: add one" in run(agent, "show", "web").output
    assert json.loads(run(agent, "show", "web", "--json").stdout) == READY
    assert json.loads(run(agent, "list", "--json").stdout) == [READY]


@pytest.mark.parametrize(
    "words",
    [
        ("--env", "nonsense", "x"),
        ("--service", "nonsense", "x"),
        ("--service", "a=203.0.113.1:http", "x"),
        ("--health", "Nonsense!", "x"),
        (),
    ],
)
def test_wrong_usage(agent: Agent, words: tuple[str, ...]) -> None:
    assert run(agent, "create", *words).exit_code == 2


@pytest.mark.parametrize("text", ["- a list\n", "a: [\n", "\x00"])
def test_a_file_that_is_no_app(agent: Agent, tmp_path: Path, text: str) -> None:
    file = tmp_path / "app.yaml"
    file.write_text(text)
    assert str(run(agent, "create", "-f", str(file)).exception).startswith(f"{file}: ")
    assert "No such file" in str(run(agent, "create", "-f", str(tmp_path / "none")).exception)
