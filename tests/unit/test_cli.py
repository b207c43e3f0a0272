"""The command line: exit statuses, one clear line for errors, and only the document on stdout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from typer.testing import CliRunner

from tof import __version__
from tof.cli import app, main

NOWHERE = "unix:/nonexistent/api.sock"


def tof(*args, monkeypatch, capsys):
    """Exit status, stdout and stderr of a command, run in this process."""
    monkeypatch.setattr(sys, "argv", ["tof", *args])
    with pytest.raises(SystemExit) as ended:
        main()
    captured = capsys.readouterr()
    return ended.value.code or 0, captured.out, captured.err


@pytest.fixture
def run(monkeypatch, capsys):
    return lambda *args: tof(*args, monkeypatch=monkeypatch, capsys=capsys)


def one_line(err):
    assert err.startswith("tof: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err
    return err


def test_version_is_quick_and_needs_no_library_of_the_agent():
    begin = time.monotonic()
    code = "import sys; from tof.cli import app; app(['version'], standalone_mode=False); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert time.monotonic() - begin < 2, "a loaded machine may take its time, but not that much"
    first, modules = done.stdout.splitlines()
    assert first == f"tof {__version__}"
    heavy = {"aiohttp", "rich", "yaml", "jsonschema_rs", "prometheus_client", "pyroute2", "os_ken", "sqlite3"}
    assert not heavy & set(modules.split())


def test_python_m_tof():
    done = subprocess.run(
        [sys.executable, "-m", "tof", "version", "--json"], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == {"version": __version__}


COMMANDS = [
    "agent",
    "down",
    "check-config",
    "status",
    "tunnels",
    "sessions",
    "services",
    "apply",
    "bypass",
    "doctor",
    "demo",
    "replay",
    "version",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_takes_json_and_explains_itself(command):
    result = CliRunner(env={"COLUMNS": "120", "TERM": "dumb", "NO_COLOR": "1"}).invoke(
        app, [command, "--help"]
    )
    assert result.exit_code == 0
    assert "--json" in result.output


@pytest.mark.parametrize(
    "args",
    [
        ["nonsense"],
        ["status", "--nonsense"],
        ["services", "add", "video"],
        ["services", "add", "video", "198.51.100.10", "192.168.50.10", "--dscp", "x"],
        ["services", "add", "video", "198.51.100.10", "192.168.50.10", "--mode", "mirror"],
        ["tunnels", "--teid", "x"],
        ["bypass"],
        ["bypass", "maybe"],
        ["apply"],
        ["apply", "-f", "/nonexistent.yaml"],
        ["services", "add", "video", "198.51.100.10", "192.168.50.10", "--health", "tcp:x"],
        ["services", "add", "video", "198.51.100.10", "192.168.50.10", "--mirror", "mon0"],
        ["services", "add", "video", "198.51.100.10", "192.168.50.10", "--by", "ue"],
        [
            "services",
            "add",
            "video",
            "198.51.100.10",
            "192.168.50.10",
            "--also",
            "192.168.50.11",
            "--by",
            "luck",
        ],
        ["services", "add", "video", "198.51.100.10", "192.168.50.10", "--mirror", "file:"],
        ["replay"],
        ["replay", "x.pcap"],
        ["replay", "x.pcap", "--lab", "--map-teid", "7"],
        ["status", "--api", "ftp://x"],
        ["status", "--api", "http://[x"],
        ["agent", "--config", "/nonexistent.toml"],
        ["down", "--config", "/nonexistent.toml"],
        ["check-config", "/nonexistent.toml"],
    ],
)
def test_wrong_usage_or_config_is_2(run, args):
    status, out, err = run(*args)
    assert (status, out) == (2, "")
    assert err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    "args",
    [
        ["status"],
        ["tunnels"],
        ["sessions"],
        ["services"],
        ["services", "list"],
        ["services", "usage"],
        ["services", "remove", "video"],
    ],
)
def test_no_agent_is_1_and_one_line(run, args):
    status, out, err = run(*args, "--api", NOWHERE)
    assert (status, out) == (1, "")
    assert NOWHERE in one_line(err)


def test_check_config(run, tmp_path):
    good = tmp_path / "good.toml"
    good.write_text(
        '[s1]\nenb_interface = "enb0"\nsgw_interface = "sgw0"\n'
        '[ue]\napp_interface = "apps0"\napp_address = "192.168.50.1/24"\n'
    )
    assert run("check-config", str(good)) == (0, f"{good}: ok\n", "")
    assert run("check-config", str(good), "--json") == (0, '{\n  "ok": true\n}\n', "")
    bad = tmp_path / "bad.toml"
    bad.write_text("[s1]\nenb_interface = 7\n")
    status, out, err = run("check-config", str(bad))
    assert (status, out) == (2, "")
    assert "s1.enb_interface" in one_line(err)
    status, out, err = run("check-config", str(bad), "--json")
    assert status == 2
    assert json.loads(out)["ok"] is False
    assert "s1.enb_interface" in json.loads(out)["error"]


# --- against an agent ---------------------------------------------------------------------------------------

TUNNEL = {
    "direction": "uplink",
    "vlan": None,
    "source": "10.0.0.1",
    "destination": "10.0.1.1",
    "teid": 7,
    "ues": ["10.45.0.2", "2001:db8:0:1::/64"],
    "qfi": None,
    "state": "learnt",
    "packets": 3,
    "bytes": 252,
    "last_seen": "2026-01-02T03:04:05Z",
}
USAGE = {
    "service": "video",
    "serviceIP": "198.51.100.10",
    "ue": "10.45.0.2",
    "enb": "10.0.0.1",
    "sgw": "10.0.1.1",
    "vlan": None,
    "flow_id": "00000000000000ab",
    "start": "2026-01-02T03:04:05Z",
    "end": "2026-01-02T03:04:06Z",
    "uplink": {"packets": 3, "bytes": 252},
    "downlink": {"packets": 4, "bytes": 4000},
}
SERVICE = {"name": "video", "serviceIP": "198.51.100.10", "applicationIP": "192.168.50.10"}
SELECTIVE = {
    "name": "games",
    "serviceIP": "203.0.113.0/24",
    "applicationIP": "192.168.50.11",
    "protocol": "tcp",
    "ports": [80],
    "applicationPort": 8080,
    "dscp": [0, 46],
    "vlans": [0, 100],
    "ues": ["10.45.0.0/16"],
    "enbs": ["10.0.0.1"],
    "sgws": ["10.0.1.1", "10.0.1.2"],
    "priority": -5,
    "mode": "shadow",
}
NAMED = {"name": "cinema", "domain": "cinema.example.com", "applicationIP": "192.168.50.12"}
SELECTED = (
    "tcp port 80 dscp 0,46 vlan 0,100 ue 10.45.0.0/16 enb 10.0.0.1 sgw 10.0.1.1,10.0.1.2 priority -5 shadow"
)
BODIES = {
    "/health": {
        "state": "ok",
        "version": "9.9",
        "checks": [{"name": "ovs", "state": "ok", "detail": "[up]"}],
    },
    "/tunnels": [TUNNEL],
    "/usage": [USAGE],
    "/sessions": [{"ue": "10.45.0.2", "uplink": [TUNNEL], "downlink": [], "state": "learnt"}],
    "/service": [SERVICE, SELECTIVE, NAMED],
    "/policy": {"services": [SERVICE, SELECTIVE]},
    "/service/video/status": {"name": "video", "state": "unresolved", "detail": "no answer"},
    "/service/cinema/status": {
        "name": "cinema",
        "state": "in_force",
        "detail": "",
        "addresses": [{"address": "203.0.113.81", "until": "2026-01-02T03:04:05Z"}],
    },
}


class Agent(BaseHTTPRequestHandler):
    """Answers like an agent and writes down what it was asked."""

    protocol_version = "HTTP/1.1"
    asked: list

    def answer(self):
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        self.asked.append((self.command, self.path, body))
        path = self.path.partition("?")[0]
        if self.command == "DELETE":
            return self.reply(200, "application/octet-stream", b"")
        if body and body.get("name") == "taken":
            problem = {"status": 409, "detail": "there is already a service called taken"}
            return self.reply(409, "application/problem+json", json.dumps(problem).encode())
        if path == "/service/broken/status":
            return self.reply(500, "text/plain", b"oops")
        return self.reply(200, "application/json", json.dumps(body or BODIES[path]).encode())

    def reply(self, status, kind, raw):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *args):
        pass


for method in ("GET", "POST", "PUT", "DELETE"):
    setattr(Agent, f"do_{method}", Agent.answer)


@pytest.fixture
def agent(monkeypatch):
    Agent.asked = []
    with HTTPServer(("127.0.0.1", 0), Agent) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        monkeypatch.setenv("TOF_API", f"http://127.0.0.1:{server.server_port}")
        yield Agent.asked
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("args", "path"),
    [
        (["status"], "/health"),
        (["tunnels"], "/tunnels"),
        (["sessions"], "/sessions"),
        (["services", "usage"], "/usage"),
        (["services"], "/service"),
        (["services", "list"], "/service"),
        (["services", "status", "video"], "/service/video/status"),
    ],
)
def test_json_is_the_body_of_the_api(agent, run, args, path):
    status, out, err = run(*args, "--json")
    assert (status, json.loads(out), err) == (0, BODIES[path], "")
    assert agent == [("GET", path, None)]


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["status"], ["tof 9.9: ok", "ovs", "[up]"]),
        (["tunnels"], ["uplink", "10.45.0.2 2001:db8:0:1::/64", "2026-01-02T03:04:05Z"]),
        (["services", "usage"], ["video", "10.45.0.2", "252", "4000"]),
        (["sessions"], ["10.45.0.2", "10.0.0.1 > 10.0.1.1 0x00000007"]),
        (["services"], ["video", "198.51.100.10", "192.168.50.10", " all"]),
        (["services"], ["games", "203.0.113.0/24", "192.168.50.11 port 8080", SELECTED]),
        (["services"], ["cinema", "cinema.example.com", "192.168.50.12"]),
        (["services", "status", "video"], ["video: unresolved: no answer"]),
        (
            ["services", "status", "cinema"],
            ["cinema: in_force\n", "  203.0.113.81 until 2026-01-02T03:04:05Z"],
        ),
    ],
)
def test_tables_for_people(agent, run, args, says):
    status, out, _ = run(*args)
    assert status == 0
    assert all(text in out for text in says), out


def test_filters_of_tunnels(agent, run):
    run(
        "tunnels", "--ue", "2001:db8::/64", "--teid", "0", "--source", "10.0.0.1", "--destination", "10.0.1.1"
    )
    assert agent[0][1] == "/tunnels?ue=2001:db8::/64&teid=0&source=10.0.0.1&destination=10.0.1.1"


def test_services_add_set_remove(agent, run):
    values = list(SERVICE.values())
    assert json.loads(run("services", "add", *values, "--json")[1]) == SERVICE
    assert run("services", "add", *values)[1] == "video: 198.51.100.10 is answered by 192.168.50.10\n"
    run("services", "set", *values, "--rename", "films")
    assert json.loads(run("services", "set", *values, "--json")[1]) == SERVICE
    assert run("services", "remove", "::ffff:198.51.100.10")[1] == "::ffff:198.51.100.10: removed\n"
    assert json.loads(run("services", "remove", "a/b", "--json")[1]) == {"removed": "a/b"}
    assert agent == [
        ("POST", "/service", SERVICE),
        ("POST", "/service", SERVICE),
        ("PUT", "/service/video", {**SERVICE, "name": "films"}),
        ("PUT", "/service/video", SERVICE),
        ("DELETE", "/service/%3A%3Affff%3A198.51.100.10", None),
        ("DELETE", "/service/a%2Fb", None),
    ]


def test_services_by_domain(agent, run):
    values = list(NAMED.values())
    assert run("services", "add", *values)[1] == "cinema: cinema.example.com is answered by 192.168.50.12\n"
    run("services", "set", "cinema", "*.example.com", "192.168.50.12")
    for address in ("fd00::1", "203.0.113.300", "abcd/8"):
        run("services", "add", "cinema", address, "192.168.50.12")
    run("services", "remove", "cinema.example.com")
    assert agent == [
        ("POST", "/service", NAMED),
        ("PUT", "/service/cinema", {**NAMED, "domain": "*.example.com"}),
        *(
            ("POST", "/service", {"name": "cinema", "serviceIP": one, "applicationIP": "192.168.50.12"})
            for one in ("fd00::1", "203.0.113.300", "abcd/8")
        ),
        ("DELETE", "/service/cinema.example.com", None),
    ]


OPTIONS = [
    *("--protocol", "tcp", "--port", "80", "--application-port", "8080"),
    *("--dscp", "0", "--dscp", "46", "--vlan", "0", "--vlan", "100"),
    *("--ue", "10.45.0.0/16", "--enb", "10.0.0.1", "--sgw", "10.0.1.1", "--sgw", "10.0.1.2"),
    *("--priority", "-5", "--mode", "shadow"),
]


def test_services_add_and_set_with_a_selection(agent, run):
    values = ["games", "203.0.113.0/24", "192.168.50.11"]
    assert json.loads(run("services", "add", *values, *OPTIONS, "--json")[1]) == SELECTIVE
    says = f"games: 203.0.113.0/24 ({SELECTED}) would be answered by 192.168.50.11 port 8080\n"
    assert run("services", "set", *values, *OPTIONS)[1] == says
    ports = ["--protocol", "6", "--port", "80", "--port", "8000-8100", "--priority", "0"]
    says = "games: 203.0.113.0/24 (6 port 80,8000-8100 priority 0) is answered by 192.168.50.11\n"
    assert run("services", "add", *values, *ports)[1] == says
    assert run("services", "remove", "203.0.113.0/24")[0] == 0
    plain = dict(zip(("name", "serviceIP", "applicationIP"), values, strict=True))
    assert agent == [
        ("POST", "/service", SELECTIVE),
        ("PUT", "/service/games", SELECTIVE),
        ("POST", "/service", {**plain, "protocol": 6, "ports": [80, "8000-8100"], "priority": 0}),
        ("DELETE", "/service/203.0.113.0%2F24", None),
    ]


def test_services_with_several_applications(agent, run):
    plain = {"spread": {"applications": ["192.168.50.11", "192.168.50.12"]}}
    full = {"spread": {**plain["spread"], "by": "flow", "onDeath": "core"}}
    further = ("--also", "192.168.50.11", "--also", "192.168.50.12")
    for verb in ("add", "set"):
        for more, spread in (((), plain), (("--by", "flow", "--on-death", "core"), full)):
            run("services", verb, *SERVICE.values(), *further, *more)
            assert agent[-1][2] == {**SERVICE, **spread}


def test_services_add_with_a_mirror(agent, run):
    for given, mirror in (("interface:mon0", {"interface": "mon0"}), ("file:video", {"file": "video"})):
        for verb, method, path in (("add", "POST", "/service"), ("set", "PUT", "/service/video")):
            run("services", verb, *SERVICE.values(), "--mirror", given)
            assert agent[-1] == (method, path, {**SERVICE, "mirror": mirror})


def test_services_add_with_a_health_check(agent, run):
    for given, health in (
        ("icmp", {"kind": "icmp"}),
        ("tcp:80", {"kind": "tcp", "port": 80}),
        ("http:8080/healthz", {"kind": "http", "port": 8080, "path": "/healthz"}),
    ):
        run("services", "add", *SERVICE.values(), "--health", given)
        assert agent[-1] == ("POST", "/service", {**SERVICE, "health": health})


MOVED = {**SERVICE, "applicationIP": "192.168.50.12"}
MORE = {"name": "more", "serviceIP": "198.51.100.99", "applicationIP": "192.168.50.10"}


@pytest.fixture
def policy(tmp_path):
    file = tmp_path / "services.yaml"
    file.write_text(json.dumps({"services": [MOVED, MORE]}))  # JSON is YAML
    return str(file)


def test_apply_shows_the_difference_and_puts_the_whole(agent, run, policy):
    status, out, _ = run("apply", "-f", policy)
    assert (status, out.splitlines()) == (
        0,
        [
            "+ more: serviceIP 198.51.100.99, applicationIP 192.168.50.10",
            "~ video",
            "    applicationIP: 192.168.50.10 -> 192.168.50.12",
            f"- games: {', '.join(f'{field} {value}' for field, value in list(SELECTIVE.items())[1:])}",
            "1 added, 1 changed, 1 removed",
        ],
    )
    assert agent == [("GET", "/policy", None), ("PUT", "/policy", {"services": [MORE, MOVED]})]


def test_apply_may_only_show(agent, run, policy):
    assert run("apply", "-f", policy, "--dry-run")[1].endswith("would be 1 added, 1 changed, 1 removed\n")
    document = json.loads(run("apply", "-f", policy, "--dry-run", "--json")[1])
    assert document == {
        "added": [MORE],
        "changed": [{"before": SERVICE, "after": MOVED}],
        "removed": [SELECTIVE],
        "applied": False,
    }
    assert {method for method, _, _ in agent} == {"GET"}


def test_what_is_exported_changes_nothing_when_it_is_applied(agent, run, tmp_path):
    file = tmp_path / "out.yaml"
    text = run("services", "export")[1]
    assert run("services", "export", "-o", str(file))[0] == 0
    assert file.read_text() == text
    assert json.loads(run("services", "export", "--json")[1]) == BODIES["/policy"]
    assert run("apply", "-f", str(file))[1] == "nothing to change\n"
    status, _, err = run("services", "export", "-o", str(tmp_path / "no" / "such"))
    assert (status, "No such file" in err) == (2, True)
    assert {method for method, _, _ in agent} == {"GET"}


def test_an_invalid_file_is_2_points_at_its_line_and_asks_nobody(agent, run, tmp_path):
    file = tmp_path / "bad.yaml"
    file.write_text("services:\n- name: a\n  serviceIP: 198.51.100.10\n  applicationIP: nowhere\n")
    status, _, err = run("apply", "-f", str(file))
    expected = f"tof: {file}:4: services[0].applicationIP: applicationIP is not an IP address\n"
    assert (status, one_line(err)) == (2, expected)
    file.write_bytes(b"\xff\xfe\x00")
    assert run("apply", "-f", str(file))[0] == 2
    assert agent == []


def test_a_problem_is_one_line_and_1(agent, run):
    status, out, err = run("services", "add", "taken", "198.51.100.10", "192.168.50.10", "--json")
    assert (status, out, err) == (1, "", "tof: there is already a service called taken\n")
    assert run("services", "status", "broken") == (1, "", "tof: the agent answered 500\n")


def test_api_may_stand_anywhere(agent, run, monkeypatch):
    address = os.environ["TOF_API"]
    monkeypatch.setenv("TOF_API", NOWHERE)
    values = list(SERVICE.values())
    assert run("--api", address, "status")[0] == 0
    assert run("status", "--api", address)[0] == 0
    assert run("services", "--api", address)[0] == 0
    assert run("services", "--api", address, "add", *values)[0] == 0
    assert run("--api", NOWHERE, "services", "add", *values, "--api", address)[0] == 0
    assert run("status")[0] == 1
