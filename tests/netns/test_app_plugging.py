"""Application ports that come and go while the TOF runs, as whoever starts applications plugs them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from gtp_apps import udp_echo
from gtp_packets import Bearer, new_bearer, udp
from gtp_peers import Setting, Tof, running_tof, until
from gtp_ports import App

pytestmark = pytest.mark.netns

SERVICE, ECHO = "203.0.113.10", 7
AGENT = Path(__file__).parent / "plugging_agent.py"


@dataclass
class Plugging:
    """A TOF whose agent plugs what it is told."""

    tof: Tof

    def stop(self, number: signal.Signals) -> None:
        self.tof.signal(number)
        for pipe in (self.tof.agent.stdin, self.tof.agent.stdout) if self.tof.agent else ():
            if pipe is not None:
                pipe.close()

    def start(self) -> None:
        argv = [
            "ip",
            "netns",
            "exec",
            self.tof.netns["tof"].name,
            sys.executable,
            str(AGENT),
            str(self.tof.config),
        ]
        pipe = subprocess.PIPE
        with (self.tof.dir / "agent.log").open("ab") as log:
            self.tof.agent = subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=log)
        until("the agent is healthy", self.tof._healthy, 30)

    def tell(self, **what: object) -> str:
        agent = self.tof.agent
        assert agent is not None
        assert agent.stdin is not None
        assert agent.stdout is not None
        agent.stdin.write(json.dumps(what).encode() + b"\n")
        agent.stdin.flush()
        while line := agent.stdout.readline().decode():
            if line.startswith(("done", "BadRequest", "BackendError", "NotFound", "Conflict")):
                return line.strip()
        raise AssertionError(self.tof.log[-3000:])

    def plug(self, app: App, *groups: str, **other: object) -> str:
        mine = {"interface": app.interface, "mac": app.mac.hex(":"), "addresses": [app.ip, app.ip6]} | other
        return self.tell(plug=[app.name, mine["interface"], mine["mac"], mine["addresses"], groups])

    def unplug(self, app: App) -> str:
        return self.tell(unplug=[app.name])


@pytest.fixture(scope="module")
def plugging() -> Iterator[Plugging]:
    with running_tof(Setting()) as tof:
        tof.signal(signal.SIGTERM)
        found = Plugging(tof)
        found.start()
        yield found
        found.stop(signal.SIGTERM)


@pytest.fixture
def app(plugging: Plugging) -> Iterator[App]:
    one = App(plugging.tof, "one", 31)
    udp_echo(one.netns, one.ip, ECHO)
    yield one
    plugging.unplug(one)
    one.close()


def links(tof: Tof) -> dict[str, dict[str, object]]:
    text = tof.netns["tof"].run("ip", "-d", "-j", "link")
    told = ("ifindex", "flags", "mtu", "master", "address", "promiscuity", "ifalias")
    return {one["ifname"]: {key: one.get(key) for key in told} for one in json.loads(text)}


def asked(tof: Tof, bearer: Bearer, data: bytes) -> bool:
    tof.drain()
    tof.ran.send(bearer.uplink(udp(bearer.ue, SERVICE, 4000, ECHO, data)))
    return tof.ran.find(lambda frame: b"app:" + data in frame, 1.0) is not None


def test_a_port_is_in_force_when_plug_returns_and_gone_when_unplug_does(plugging: Plugging, app: App) -> None:
    tof = plugging.tof
    before = links(tof)
    bearer = new_bearer()
    tof.attach(bearer)
    for n in range(2):
        assert plugging.plug(app) == "done"
        assert plugging.plug(app) == "done"
        with tof.service(SERVICE, app.ip):
            assert asked(tof, bearer, b"in force %d" % n)
            assert plugging.unplug(app) == "done"
            assert plugging.unplug(app) == "done"
            until("the service has nobody", lambda: not asked(tof, bearer, b"gone"))
        assert links(tof).keys() == before.keys()
        assert links(tof)[app.interface] == before[app.interface]
        assert "clsact" not in tof.netns["tof"].run("tc", "qdisc", "show", "dev", app.interface)


@pytest.mark.parametrize(
    ("other", "why"),
    [
        ({"interface": "nothing"}, "BackendError: applications.one.interface: there is no interface nothing"),
        ({"interface": "apps0"}, "BadRequest: applications.one.interface: apps0 is in use already"),
        ({"interface": "sgw0"}, "BadRequest: applications.one.interface: sgw0 is in use already"),
        ({"interface": "tofgw0"}, "BadRequest: applications.one.interface: tofgw0 is in use already"),
        ({"mac": "02:70:ff:ff:ff:ff"}, "BadRequest: applications.one.mac"),
        ({"mac": "01:00:00:00:00:01"}, "BadRequest: applications.one.mac"),
        (
            {"addresses": ["192.168.50.1"]},
            "BadRequest: applications.one.addresses: 192.168.50.1 is an address of the TOF",
        ),
        ({"addresses": []}, "BadRequest: applications.one.addresses"),
    ],
)
def test_what_cannot_be_plugged_leaves_nothing_behind(
    plugging: Plugging, app: App, other: dict[str, object], why: str
) -> None:
    before = links(plugging.tof)
    assert plugging.plug(app, **other).startswith(why)
    assert plugging.plug(app, "unheard-of") == "BadRequest: there is no security group called unheard-of"
    assert links(plugging.tof) == before
    assert json.loads((plugging.tof.dir / "run" / "ports.json").read_text()) == []


def test_without_open_vswitch_nothing_is_plugged(plugging: Plugging, app: App) -> None:
    tof = plugging.tof
    before = links(tof)
    pid = int((tof.dir / "run" / "ovs-vswitchd.pid").read_text())
    subprocess.run(["kill", "-STOP", str(pid)], check=True)
    try:
        assert plugging.plug(app).startswith("BackendError")
    finally:
        subprocess.run(["kill", "-CONT", str(pid)], check=True)
    until("the interface is given back", lambda: links(tof).keys() == before.keys(), 30)
    until("the agent is healthy", tof._healthy, 30)


def test_tof_down_gives_a_plugged_interface_back_and_forgets_it(plugging: Plugging, app: App) -> None:
    tof = plugging.tof
    before = links(tof)[app.interface]
    assert plugging.plug(app) == "done"
    plugging.stop(signal.SIGTERM)
    tof.tof("down")
    assert links(tof)[app.interface] == before
    assert not any(name.startswith("tofp") for name in links(tof))
    plugging.start()
    assert links(tof)[app.interface] == before


def test_a_killed_agent_s_ports_go_on_and_are_taken_over(plugging: Plugging, app: App) -> None:
    tof = plugging.tof
    bearer = new_bearer()
    tof.attach(bearer)
    assert plugging.plug(app) == "done"
    with tof.service(SERVICE, app.ip):
        assert asked(tof, bearer, b"before")
        plugging.stop(signal.SIGKILL)
        assert asked(tof, bearer, b"without an agent")
        plugging.start()
        assert asked(tof, bearer, b"with the next one")
        assert plugging.plug(app) == "done"
        assert asked(tof, bearer, b"plugged again")
        time.sleep(5)
        assert asked(tof, bearer, b"for good")


def test_what_nobody_plugs_again_is_given_back(plugging: Plugging, app: App) -> None:
    tof = plugging.tof
    before = links(tof)
    assert plugging.plug(app) == "done"
    plugging.stop(signal.SIGKILL)
    plugging.start()
    assert links(tof).keys() > before.keys()
    until("it is given back", lambda: links(tof).keys() == before.keys(), 20)
    until("it is as it was", lambda: links(tof)[app.interface] == before[app.interface])
    assert json.loads((tof.dir / "run" / "ports.json").read_text()) == []
