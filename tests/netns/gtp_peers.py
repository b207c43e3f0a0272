"""Both ends of S1-U and N3 for tests: raw sockets, a TOF of its own between them, an app.

    with running_tof() as tof:                       # namespaces ran, core, apps and tof; the agent is up
        bearer = new_bearer()
        tof.ran.send(bearer.uplink(udp(bearer.ue, "198.51.100.7", 1000, 2000, b"hello")))
        tof.core.expect(the_same_frame)

The eNBs' and SGWs' addresses belong to no kernel, so nothing but the tests answers for them; the kernels at both ends
have addresses of their own (10.9.0.1, 10.9.0.2) for traffic that is no GTP-U.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gtp_packets import (
    APP_MAC,
    CORE_MAC,
    RAN_MAC,
    Bearer,
    Gpdu,
    elsewhere,
    is_pinger,
    pong,
    serial,
    udp,
)
from gtp_wires import Wire
from netns_helper import Netns

RAN_KERNEL, CORE_KERNEL = "10.9.0.1", "10.9.0.2"
APP, TOF_APPS = "192.168.50.10", "192.168.50.1"
APP6, TOF_APPS6 = "fd00:50::10", "fd00:50::1"


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("tof", timeout=20)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(20)
        self.sock.connect(self._path)


def until(what: str, probe: Callable[[], Any], within: float = 5.0, every: float = 0.02) -> Any:
    """Ask until ``probe`` answers something true."""
    deadline = time.monotonic() + within
    while not (found := probe()):
        assert time.monotonic() < deadline, f"waited {within:g} s in vain: {what}"
        time.sleep(every)
    return found


_CONFIG = """\
[s1]
enb_interface = {enb}
sgw_interface = "sgw0"
xdp = "{xdp}"
{nodes}
[dns]
{dns}
[ue]
app_interface = "apps0"
app_address = ["192.168.50.1/24", "fd00:50::1/64"]
[pinger]
target = ["8.8.8.8", "2001:4860:4860::8888"]
interval_s = {ping_interval_s}
attempts = {ping_attempts}
[tunnels]
idle_timeout_s = {idle_timeout_s}
max = {max_tunnels}
[api]
listen = ["unix:{dir}/api.sock"]
[state]
dir = "{dir}/state"
run_dir = "{dir}/run"
[log]
level = "debug"
{more}"""


@dataclass
class Setting:
    """What differs between the modules' TOFs."""

    xdp: str = "generic"
    enbs: int = 1
    mtu: int = 1500
    apps_mtu: int = 1500
    ping_interval_s: float = 0.3
    ping_attempts: int = 5
    idle_timeout_s: int = 300
    nodes: str = ""
    """Lines of [s1] that restrict the TOF to provisioned eNBs and SGWs."""
    max_tunnels: int = 1_000_000
    dns: str = ""
    """Lines of [dns]."""
    more: str = ""
    """Further sections; ``{dir}`` is the TOF's directory."""


@dataclass
class Tof:
    """Namespaces ran, core, apps around one with an agent in it."""

    setting: Setting
    dir: Path
    netns: dict[str, Netns]
    wires: dict[str, Wire] = field(default_factory=dict)
    agent: subprocess.Popen[bytes] | None = None

    @property
    def ran(self) -> Wire:
        return self.wires["ran"]

    @property
    def core(self) -> Wire:
        return self.wires["core"]

    @property
    def apps(self) -> Wire:
        return self.wires["apps"]

    @property
    def config(self) -> Path:
        return self.dir / "tof.toml"

    @property
    def log(self) -> str:
        return (self.dir / "agent.log").read_text()

    def start(self) -> None:
        """Start the agent, each time by an ``ip netns exec`` of its own; return when it is healthy."""
        argv = ["ip", "netns", "exec", self.netns["tof"].name, sys.executable, "-m", "tof", "agent"]
        with (self.dir / "agent.log").open("ab") as log:
            self.agent = subprocess.Popen([*argv, "--config", str(self.config)], stdout=log, stderr=log)
        until("the agent is healthy", self._healthy, 30)

    def _healthy(self) -> bool:
        assert self.agent is not None
        assert self.agent.poll() is None, f"the agent ended: {self.log[-2000:]}"
        try:
            checks = self.get("/health")["checks"]
        except OSError:
            return False
        return all(each["state"] == "ok" for each in checks if each["name"] in ("ovs", "heartbeat", "queue"))

    def signal(self, number: signal.Signals) -> None:
        assert self.agent is not None
        self.agent.send_signal(number)
        if number in (signal.SIGKILL, signal.SIGTERM):
            self.agent.wait()

    def tof(self, *arguments: str) -> str:
        """Run ``tof ... --config FILE`` beside the agent."""
        argv = (sys.executable, "-m", "tof", *arguments, "--config", str(self.config))
        return self.netns["tof"].run(*argv)

    # the API

    def call(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        connection = _UnixConnection(self.dir / "api.sock")
        with contextlib.closing(connection):
            text = None if body is None else json.dumps(body)
            connection.request(method, path, text, {"content-type": "application/json"} if text else {})
            answer = connection.getresponse()
            raw = answer.read()
            is_json = "json" in (answer.headers.get("content-type") or "")
            return answer.status, json.loads(raw) if is_json and raw else raw.decode()

    def get(self, path: str) -> Any:
        return self.call("GET", path)[1]

    def metrics(self) -> dict[str, float]:
        """Every sample by name, or ``name{reason}``."""
        found: dict[str, float] = {}
        for line in self.get("/metrics").splitlines():
            if line and not line.startswith("#"):
                name, _, value = line.rpartition(" ")
                found[name.replace('{reason="', "{").replace('"}', "}")] = float(value)
        return found

    def packets(self, reason: str) -> int:
        return int(self.metrics().get(f"tof_packets_total{{{reason}}}", 0))

    def undecodable(self, reason: str) -> int:
        return int(self.metrics().get(f"tof_undecodable_total{{{reason}}}", 0))

    def tunnels(self, **query: object) -> list[dict[str, Any]]:
        text = "&".join(f"{key}={value}" for key, value in query.items())
        return self.get(f"/tunnels?{text}")  # type: ignore[no-any-return]

    def known(self, bearer: Bearer) -> dict[str, dict[str, Any]]:
        """Direction -> tunnel, of those of this bearer that the TOF knows."""
        found = {}
        for one in self.tunnels():
            for direction, teid, ends in (
                ("uplink", bearer.up, (bearer.enb, bearer.sgw)),
                ("downlink", bearer.down, (bearer.sgw, bearer.enb)),
            ):
                mine = (one["source"], one["destination"], one["teid"], one["vlan"])
                if mine == (*ends, teid, bearer.vlan) and one["direction"] == direction:
                    found[direction] = one
        return found

    def provision(self, name: str, service: str, application: str = APP) -> None:
        body = {"name": name, "serviceIP": service, "applicationIP": application}
        status, answer = self.call("POST", "/service", body)
        assert status == 200, answer

    def withdraw(self, name: str) -> None:
        assert self.call("DELETE", f"/service/{name}")[0] == 200

    @contextlib.contextmanager
    def service(self, address: str, application: str = APP) -> Iterator[str]:
        name = f"s{next(serial)}"
        self.provision(name, address, application)
        try:
            yield name
        finally:
            self.call("DELETE", f"/service/{name}")

    # short cuts

    def drain(self) -> None:
        for wire in self.wires.values():
            wire.drain()

    def up(self, bearer: Bearer) -> None:
        """Teach the TOF the bearer's uplink tunnel, with a packet to no service."""
        frame = bearer.uplink(udp(bearer.ue, elsewhere(bearer), 1000, 2000, os.urandom(8)))
        self.ran.send(frame)
        self.core.expect(frame)

    def down(self, bearer: Bearer) -> None:
        """Teach the TOF the bearer's downlink tunnel."""
        frame = bearer.downlink(udp(elsewhere(bearer), bearer.ue, 2000, 1000, os.urandom(8)))
        self.core.send(frame)
        self.ran.expect(frame)

    def attach(self, *bearers: Bearer) -> None:
        """Teach the TOF both tunnels of these bearers, and let the queue come to rest."""
        for bearer in bearers:
            self.up(bearer)
            self.down(bearer)
            until("the tunnels are paired", lambda b=bearer: len(self.known(b)) == 2)
        self.settle(*bearers)

    def settle(self, *bearers: Bearer) -> None:
        """A packet each way once the queue is at rest, so that the tunnels take the fast lane."""
        time.sleep(0.11)
        for bearer in bearers:
            self.up(bearer)
            self.down(bearer)
        self.drain()

    def answer_ping(self, bearer: Bearer, timeout_s: float = 3.0) -> Gpdu:
        """The core answers the next of the Pinger's requests for this UE in the downlink tunnel."""
        request = self.pinger_request(bearer, timeout_s)
        self.core.send(bearer.downlink(pong(request.message.payload)))
        return request

    def pinger_request(self, bearer: Bearer, timeout_s: float = 3.0) -> Gpdu:
        return self.core.gpdu(lambda one: one.teid == bearer.up and is_pinger(one), timeout_s)


def _quiet(netns: Netns) -> None:
    netns.run("sysctl", "-q", "-w", "net.ipv6.conf.all.accept_dad=0", "net.ipv6.conf.default.accept_dad=0")


def _wire_up(tof: Tof) -> None:
    ran, core, apps, node = (tof.netns[role] for role in ("ran", "core", "apps", "tof"))
    for netns in (ran, core, apps, node):
        _quiet(netns)
    ends = [(ran, f"s{n}", f"enb{n}", "ran" if n == 0 else f"ran{n}") for n in range(tof.setting.enbs)]
    for far, device, near, _ in [*ends, (core, "s0", "sgw0", "core"), (apps, "eth0", "apps0", "apps")]:
        node.veth(near, far, device)
        for netns, name in ((node, near), (far, device)):
            mtu = tof.setting.apps_mtu if near == "apps0" else tof.setting.mtu
            netns.run("ip", "link", "set", name, "mtu", str(mtu))
        if tof.setting.xdp == "native":
            far.run("ethtool", "-K", device, "gro", "on")
    for netns, device, mac in ((ran, "s0", RAN_MAC), (core, "s0", CORE_MAC), (apps, "eth0", APP_MAC)):
        netns.run("ip", "link", "set", device, "address", mac.hex(":"))
    ran.run("ip", "address", "add", f"{RAN_KERNEL}/24", "dev", "s0")
    core.run("ip", "address", "add", f"{CORE_KERNEL}/24", "dev", "s0")
    apps.run("ip", "address", "add", f"{APP}/24", "dev", "eth0")
    apps.run("ip", "address", "add", f"{APP6}/64", "dev", "eth0", "nodad")
    apps.run("ip", "route", "add", "default", "via", TOF_APPS)
    apps.run("ip", "route", "add", "default", "via", TOF_APPS6)
    for far, device, _, role in [*ends, (core, "s0", "", "core"), (apps, "eth0", "", "apps")]:
        tof.wires[role] = Wire(far, device)


def _end(tof: Tof) -> None:
    """Take the TOF down, then end whatever it left running in its namespace."""
    if tof.agent is not None and tof.agent.poll() is None:
        tof.agent.send_signal(signal.SIGCONT)
        tof.agent.kill()
        tof.agent.wait()
    with contextlib.suppress(AssertionError, subprocess.TimeoutExpired):
        tof.tof("down")
    for wire in tof.wires.values():
        wire.close()
    pids = subprocess.run(
        ["ip", "netns", "pids", tof.netns["tof"].name], text=True, capture_output=True, check=False
    )
    for pid in pids.stdout.split():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)


@contextlib.contextmanager
def running_tof(setting: Setting | None = None) -> Iterator[Tof]:
    """A TOF that runs, with its far ends; nothing is left of it afterwards."""
    setting = setting or Setting()
    directory = Path(tempfile.mkdtemp(prefix="tof-"))
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        netns = {role: stack.enter_context(Netns(role)) for role in ("ran", "core", "apps", "tof")}
        tof = Tof(setting, directory, netns)
        stack.callback(_end, tof)
        _wire_up(tof)
        enbs = json.dumps([f"enb{n}" for n in range(setting.enbs)])
        values = {"xdp": "native" if setting.xdp == "native" else "auto", "dir": directory, "enb": enbs}
        for name in (
            "ping_interval_s",
            "ping_attempts",
            "idle_timeout_s",
            "max_tunnels",
            "nodes",
            "dns",
            "more",
        ):
            values[name] = getattr(setting, name)
        values["more"] = setting.more.format(dir=directory)
        tof.config.write_text(_CONFIG.format(**values))
        tof.start()
        yield tof
