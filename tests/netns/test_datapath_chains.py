"""Port-chains with VNFs that nobody here wrote: a bridge with an nftables firewall, and one with tcpdump on it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from gtp_apps import udp_echo, ue_kernel
from gtp_packets import Bearer, Gpdu, new_bearer, pieces, udp
from gtp_peers import APP, Setting, Tof, running_tof, until
from netns_helper import Netns

pytestmark = pytest.mark.netns

SERVICE, ECHO, BLOCKED = "203.0.113.10", 7, 9
VNFS = ("firewall", "monitor", "third")
CONFIG = "".join(
    f'[vnfs.{name}]\ningress = "{name}-i"\negress = "{name}-e"\n'
    f'health = "{"port" if name == "monitor" else "frames"}"\ninterval_s = 0.1\n'
    for name in VNFS
)


@dataclass
class Vnf:
    """A namespace that bridges its two interfaces."""

    tof: Tof
    name: str
    netns: Netns = field(init=False)

    def __post_init__(self) -> None:
        self.netns = Netns(self.name)
        for mine, theirs in ((f"{self.name}-i", "near"), (f"{self.name}-e", "far")):
            self.tof.netns["tof"].veth(mine, self.netns, theirs)
        self.fill()
        self.start()

    def fill(self) -> None:
        """What is between its interfaces."""
        self.netns.run("ip", "link", "add", "br0", "type", "bridge")
        for port in ("near", "far"):
            self.netns.run("ip", "link", "set", port, "master", "br0")

    def start(self) -> None:
        self.netns.run("ip", "link", "set", "br0", "up")

    def stop(self) -> None:
        """Its links stay up, and nothing comes through any more."""
        self.netns.run("ip", "link", "set", "br0", "down")

    def links(self, state: str) -> None:
        for port in ("near", "far"):
            self.netns.run("ip", "link", "set", port, state)

    def firewall(self, rule: str) -> None:
        chain = f"chain c {{\ntype filter hook forward priority 0;\n{rule}\n}}"
        self.netns.run("nft", "-f", "-", stdin=f"table bridge f {{\n{chain}\n}}\n")

    def open(self) -> None:
        self.netns.run("nft", "flush", "ruleset")


class Vnfs(dict[str, Vnf]):
    """Those of one TOF."""


@pytest.fixture(scope="module", params=["generic", "native"])
def both(request: pytest.FixtureRequest) -> Iterator[tuple[Tof, Vnfs]]:
    with running_tof(Setting(xdp=request.param, more=CONFIG)) as tof, contextlib.ExitStack() as stack:
        vnfs = Vnfs()
        stack.callback(lambda: [vnf.netns.close() for vnf in vnfs.values()])
        for name in VNFS:
            vnfs[name] = Vnf(tof, name)
        udp_echo(tof.netns["apps"], APP, ECHO)
        udp_echo(tof.netns["apps"], APP, BLOCKED)
        until("all of them live", lambda: not tof.metrics()["tof_vnfs_dead"], 10)
        yield tof, vnfs


@pytest.fixture
def tof(both: tuple[Tof, Vnfs]) -> Iterator[Tof]:
    tof, vnfs = both
    yield tof
    for vnf in vnfs.values():
        vnf.links("up")
        vnf.start()
        vnf.open()
    until("all of them live", lambda: not tof.metrics()["tof_vnfs_dead"], 10)
    provision(tof)
    tof.drain()


@pytest.fixture
def vnfs(both: tuple[Tof, Vnfs]) -> Vnfs:
    return both[1]


def provision(tof: Tof, *vnfs: str, **more: object) -> None:
    """The service with this chain; with none, nothing at all."""
    service = {"name": "web", "serviceIP": SERVICE, "applicationIP": APP, "chain": "walked"}
    chain = {"name": "walked", "vnfs": list(vnfs), **more}
    body = {"services": [service], "chains": [chain]} if vnfs else {"services": []}
    status, answer = tof.call("PUT", "/policy", body)
    assert (status, answer) == (200, body)


def attached(tof: Tof) -> Bearer:
    bearer = new_bearer()
    tof.attach(bearer)
    tof.drain()
    return bearer


def ask(tof: Tof, bearer: Bearer, data: bytes, port: int = ECHO) -> None:
    tof.ran.send(bearer.uplink(udp(bearer.ue, SERVICE, 4000, port, data)))


def answer(tof: Tof, data: bytes, timeout_s: float = 3.0) -> Gpdu:
    return tof.ran.gpdu(lambda one: one.inner.data == b"app:" + data, timeout_s)


@contextlib.contextmanager
def watching(vnf: Vnf, what: str = "udp or vlan") -> Iterator[list[str]]:
    """What tcpdump sees on the bridge of a VNF, in the order of coming."""
    argv = ["tcpdump", "-l", "-n", "-e", "-t", "-i", "near", what]
    process = vnf.netns.start(*argv)
    lines: list[str] = []
    reader = threading.Thread(target=lambda: lines.extend(process.stdout or ()), daemon=True)
    assert process.stderr is not None
    while "listening" not in process.stderr.readline():
        pass
    reader.start()
    try:
        yield lines
        time.sleep(0.3)
    finally:
        process.terminate()
        process.wait()
        reader.join()


def test_packets_walk_the_chain_there_and_back(tof: Tof, vnfs: Vnfs) -> None:
    provision(tof, "firewall", "monitor")
    bearer = attached(tof)
    with (
        watching(vnfs["firewall"]) as first,
        watching(vnfs["monitor"]) as second,
        watching(vnfs["third"]) as third,
    ):
        for n in range(3):
            ask(tof, bearer, b"hello %d" % n)
            got = answer(tof, b"hello %d" % n)
            assert (got.teid, got.inner.source) == (bearer.down, SERVICE)
    for seen in (first, second):
        there = [line for line in seen if f"{bearer.ue}.4000 > {SERVICE}.7" in line]
        back = [line for line in seen if f"{SERVICE}.7 > {bearer.ue}.4000" in line]
        assert (len(there), len(back)) == (3, 3), seen
        assert all("02:72:" in line for line in (*there, *back))
    assert not [line for line in third if SERVICE in line]
    assert not [one for one in tof.core.gpdus() if one.inner.destination == SERVICE]


def test_a_firewall_in_the_chain_decides(tof: Tof, vnfs: Vnfs) -> None:
    provision(tof, "monitor", "firewall")
    bearer = attached(tof)
    vnfs["firewall"].firewall(f"udp dport {BLOCKED} drop")
    ask(tof, bearer, b"not for you", BLOCKED)
    ask(tof, bearer, b"welcome")
    answer(tof, b"welcome")
    tof.ran.silent(lambda one: b"not for you" in one.inner.data, 0.3)
    vnfs["firewall"].open()
    ask(tof, bearer, b"now for you", BLOCKED)
    answer(tof, b"now for you")


@pytest.mark.parametrize("vlan", [None, 40])
def test_marks_are_for_the_vnfs_alone(tof: Tof, vnfs: Vnfs, vlan: int | None) -> None:
    provision(tof, "firewall", "monitor", **({} if vlan is None else {"vlan": vlan}))
    bearer = attached(tof)
    with watching(vnfs["monitor"]) as seen:
        ask(tof, bearer, b"marked")
        answer(tof, b"marked")
    both = [line for line in seen if SERVICE in line]
    assert len(both) == 2
    assert all((f"vlan {vlan}," in line) == (vlan is not None) for line in both)


def test_vnfs_see_fragments_as_they_are(tof: Tof, vnfs: Vnfs) -> None:
    provision(tof, "firewall", "monitor")
    bearer = attached(tof)
    data = bytes(range(256)) * 8
    with watching(vnfs["monitor"], "ip") as seen:
        for piece in pieces(udp(bearer.ue, SERVICE, 4000, ECHO, data), 1000, 77):
            tof.ran.send(bearer.uplink(piece))
        got = tof.ran.gpdu(lambda one: one.inner.source == SERVICE)
    there = [line for line in seen if f"{bearer.ue}" in line and f"> {SERVICE}" in line]
    assert len(there) == 3, seen
    assert not any("ip-proto-253" in line for line in seen), seen
    assert got.teid == bearer.down


def test_tcp_of_two_kernels_through_a_chain(tof: Tof) -> None:
    provision(tof, "firewall", "monitor", "third")
    bearer = attached(tof)
    data = os.urandom(2_000_000)
    with tof.netns["apps"].entered():
        server = socket.create_server((APP, 8088))

    def serve() -> None:
        peer, _ = server.accept()
        with peer:
            got = bytearray()
            while len(got) < len(data):
                got += peer.recv(1 << 20)
            peer.sendall(got)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    with server, ue_kernel(tof, bearer):
        with tof.netns["ran"].entered():
            connection = socket.create_connection((SERVICE, 8088), 5)
        with connection:
            connection.settimeout(30)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.sendall(data)
            back = bytearray()
            while len(back) < len(data) and (chunk := connection.recv(1 << 20)):
                back += chunk
        thread.join(5)
    assert bytes(back) == data


class Stream:
    """A UE that asks every few milliseconds; ``judge`` wants every answer, at the edge."""

    def __init__(self, tof: Tof, bearer: Bearer) -> None:
        self.tof, self.bearer, self.sent = tof, bearer, 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._over.is_set():
            ask(self.tof, self.bearer, b"%06d" % self.sent)
            self.sent += 1
            time.sleep(0.003)

    def __enter__(self) -> Stream:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self.tof.ran.find(lambda _: False, 0.5)

    def answered(self) -> set[bytes]:
        return {one.inner.data[4:] for one in self.tof.ran.gpdus() if one.inner.data.startswith(b"app:0")}

    @property
    def asked(self) -> set[bytes]:
        return {b"%06d" % n for n in range(self.sent)}


def test_a_chain_changes_under_traffic_and_no_packet_is_lost(tof: Tof) -> None:
    provision(tof, "firewall")
    bearer = attached(tof)
    with Stream(tof, bearer) as stream:
        for vnfs in (
            ("firewall", "monitor"),
            ("monitor", "firewall"),
            ("third",),
            ("monitor", "third", "firewall"),
        ):
            time.sleep(0.3)
            provision(tof, *vnfs)
        time.sleep(0.3)
        provision(tof, "third", vlan=7)
        time.sleep(0.3)
    assert stream.sent > 100
    assert stream.answered() == stream.asked
    assert not [one for one in tof.core.gpdus() if one.inner.destination == SERVICE]


@pytest.mark.parametrize("how", ["link", "frames"])
def test_a_dead_vnf_sends_its_services_to_the_core(tof: Tof, vnfs: Vnfs, how: str) -> None:
    name = "monitor" if how == "link" else "firewall"
    provision(tof, "third", name)
    bearer = attached(tof)
    ask(tof, bearer, b"before")
    answer(tof, b"before")
    vnfs[name].links("down") if how == "link" else vnfs[name].stop()
    until("it is found dead", lambda: tof.get("/service/web/status")["state"] == "broken_chain")
    assert name in tof.get("/service/web/status")["detail"]
    until(
        "the core has them", lambda: reaches_core(tof, bearer, b"meanwhile")
    )  # the data path follows the status
    vnfs[name].links("up")
    vnfs[name].start()
    until("it is back", lambda: tof.get("/service/web/status")["state"] == "in_force")
    ask(tof, bearer, b"after")
    answer(tof, b"after")


def reaches_core(tof: Tof, bearer: Bearer, data: bytes) -> bool:
    frame = bearer.uplink(udp(bearer.ue, SERVICE, 4001, ECHO, data))
    tof.ran.send(frame)
    return tof.core.find(lambda one: one == frame, 0.3) is not None


@pytest.mark.parametrize("how", ["link", "frames"])
def test_a_dead_vnf_is_left_out(tof: Tof, vnfs: Vnfs, how: str) -> None:
    name = "monitor" if how == "link" else "firewall"
    provision(tof, "third", name, onFailure="skip")
    bearer = attached(tof)
    with Stream(tof, bearer) as stream:
        time.sleep(0.3)
        vnfs[name].links("down") if how == "link" else vnfs[name].stop()
        time.sleep(1.5)
        vnfs[name].links("up")
        vnfs[name].start()
        until("it is back", lambda: not tof.metrics()["tof_vnfs_dead"])
        time.sleep(0.3)
    lost = sorted(int(data) for data in stream.asked - stream.answered())
    assert lost, "a VNF that dies takes what is in it"
    assert lost[-1] - lost[0] < stream.sent / 2
    assert max(int(data) for data in stream.answered()) == stream.sent - 1
    assert not [one for one in tof.core.gpdus() if one.inner.destination == SERVICE]


def test_a_vnf_whose_namespace_goes_and_comes_again(tof: Tof, vnfs: Vnfs) -> None:
    provision(tof, "third")
    bearer = attached(tof)
    vnfs["third"].netns.close()
    until("it is found dead", lambda: tof.get("/service/web/status")["state"] == "broken_chain")
    until("its interfaces are gone", lambda: "third" not in tof.netns["tof"].run("ip", "-o", "link"))
    vnfs["third"] = Vnf(tof, "third")
    until("it is back", lambda: tof.get("/service/web/status")["state"] == "in_force", 10)
    for n in range(20):
        ask(tof, bearer, b"again %d" % n)
        with contextlib.suppress(AssertionError):
            answer(tof, b"again %d" % n, 0.3)
            break
    else:
        pytest.fail("no answer through the VNF that came again")


def test_a_chain_outlives_the_agent(tof: Tof) -> None:
    provision(tof, "firewall", "monitor", onFailure="skip", vlan=40)
    before = tof.get("/policy")
    bearer = attached(tof)
    with Stream(tof, bearer) as stream:
        time.sleep(0.3)
        tof.signal(signal.SIGKILL)
        time.sleep(0.3)
        tof.start()
        time.sleep(0.5)
    assert tof.get("/policy") == before
    assert stream.answered() == stream.asked


def test_there_and_back_leaves_the_switch_as_it_was(tof: Tof) -> None:
    provision(tof)
    before = flows(tof)
    provision(tof, "firewall", "monitor")
    assert flows(tof) != before
    provision(tof)
    assert flows(tof) == before


def flows(tof: Tof) -> list[str]:
    run_dir = tof.dir / "run"
    sockets = [path for path in run_dir.rglob("*.mgmt") if "br-ue" in path.name or "brue" in path.name]
    argv = ["ovs-ofctl", "-O", "OpenFlow14", "--no-stats", "dump-flows", f"unix:{sockets[0]}"]
    return sorted(subprocess.run(argv, check=True, text=True, capture_output=True).stdout.splitlines()[1:])


def test_a_policy_that_names_no_vnf_of_ours_changes_nothing(tof: Tof) -> None:
    provision(tof, "firewall")
    before = tof.get("/policy")
    body = {"services": [], "chains": [{"name": "c", "vnfs": ["firewall", "nobody"]}]}
    status, problem = tof.call("PUT", "/policy", body)
    assert status == 400
    assert "there is no VNF called nobody" in problem["detail"]
    status, problem = tof.call(
        "POST", "/service", {"name": "x", "serviceIP": "203.0.113.99", "applicationIP": APP, "chain": "c"}
    )
    assert (status, "there is no chain called c" in problem["detail"]) == (400, True)
    assert tof.get("/policy") == before
