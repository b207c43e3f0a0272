"""Suricata, inline, as a VNF of a port-chain: between an nftables firewall and tcpdump, run as docs/services.md says."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from gtp_apps import udp_echo, ue_kernel
from gtp_packets import SYN, Bearer, new_bearer6, pieces, tcp, udp
from gtp_peers import APP, APP6, Setting, Tof, running_tof, until
from test_datapath_chains import BLOCKED, ECHO, SERVICE, Stream, Vnf, Vnfs, answer, ask, attached, watching
from test_datapath_marks import SERVICE6, chain, put, room, soon_answered

pytestmark = [
    pytest.mark.netns,
    pytest.mark.heavy,
    pytest.mark.skipif(not shutil.which("suricata"), reason="needs suricata: tools/setup --heavy"),
]

WEB = 8080
YAML = Path(__file__).parents[2] / "deploy/vnfs/suricata.yaml"
RULES = """\
alert ip any any -> any any (msg:"seen"; content:"curious"; sid:1;)
drop ip any any -> any any (msg:"refused"; content:"forbidden"; sid:2;)
drop udp any 7 -> any any (msg:"refused to UEs"; content:"app|3a|secret"; sid:3;)
drop http any any -> any any (msg:"refused page"; http.uri; content:"/evil"; sid:4;)
"""
CONFIG = "".join(
    f'[vnfs.{name}]\ningress = "{name}-i"\negress = "{name}-e"\nhealth = "frames"\ninterval_s = 0.1\n{more}\n'
    for name, more in (("firewall", ""), ("ids", 'speaks = ["vlan", "dscp", "nsh"]'), ("monitor", ""))
)
ORDER = ("firewall", "ids", "monitor")


class Told(NamedTuple):
    """A line of eve.json about a packet."""

    source: str
    destination: str
    rule: str
    action: str
    vlans: tuple[int, ...]

    @classmethod
    def of(cls, one: dict[str, Any]) -> Told:
        """Suricata writes IPv6 addresses in full."""
        source, destination = (str(ip_address(one[name])) for name in ("src_ip", "dest_ip"))
        alert = one["alert"]
        return cls(source, destination, alert["signature"], alert["action"], tuple(one.get("vlan", ())))


@dataclass
class Suricata(Vnf):
    """Suricata between the two interfaces, and nothing else."""

    logs: Path = field(init=False)
    process: subprocess.Popen[str] | None = None

    def fill(self) -> None:
        self.logs = self.tof.dir / "suricata"
        self.logs.mkdir(exist_ok=True)
        (self.logs / "tof.rules").write_text(RULES)

    def start(self) -> None:
        if self.process is None:
            argv = ["suricata", "-c", str(YAML), "-S", str(self.logs / "tof.rules"), "-l", str(self.logs)]
            self.process = self.netns.start(*argv, "--af-packet")
        self.process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.communicate()
        self.process = None

    def freeze(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def events(self, kind: str) -> list[dict[str, Any]]:
        """What it has written of this kind."""
        written = (self.logs / "eve.json").read_text().splitlines(keepends=True)
        told = [json.loads(line) for line in written if line.endswith("\n")]
        return [one for one in told if one["event_type"] == kind]

    def told(self, kind: str, ue: str, number: int) -> list[Told]:
        """What it has written of a UE, once that is so much."""

        def found() -> list[Told]:
            return [one for one in map(Told.of, self.events(kind)) if ue in (one.source, one.destination)]

        until(f"Suricata tells of {number}", lambda: len(found()) >= number)
        return found()

    def counted(self, *path: str) -> int:
        """A counter, as it was within the last second or so; 0 before it counts."""
        found: Any = (self.events("stats") or [{"stats": {}}])[-1]["stats"]
        for name in path:
            found = found.get(name, 0) if found else 0
        return int(found)


@pytest.fixture(scope="module", params=["generic", "native"])
def both(request: pytest.FixtureRequest) -> Iterator[tuple[Tof, Vnfs]]:
    with running_tof(Setting(xdp=request.param, more=CONFIG)) as tof, contextlib.ExitStack() as stack:
        vnfs = Vnfs()
        stack.callback(lambda: [vnf.netns.close() for vnf in vnfs.values()])
        for name in ORDER:
            vnfs[name] = (Suricata if name == "ids" else Vnf)(tof, name)
        room(vnfs["ids"])
        for address in (APP, APP6):
            udp_echo(tof.netns["apps"], address, ECHO)
        udp_echo(tof.netns["apps"], APP, BLOCKED)
        web(tof)
        until("all of them live", lambda: not tof.metrics()["tof_vnfs_dead"], 60)
        yield tof, vnfs


def web(tof: Tof) -> None:
    pages = tof.dir / "pages"
    pages.mkdir()
    for name in ("evil", "good"):
        (pages / name).write_text(f"the {name} page\n")
    server = [sys.executable, "-u", "-m", "http.server", "--bind", APP, "--directory", str(pages), str(WEB)]
    process = tof.netns["apps"].start(*server)
    assert process.stdout is not None
    assert process.stdout.readline().startswith("Serving")


@pytest.fixture
def tof(both: tuple[Tof, Vnfs]) -> Iterator[Tof]:
    tof, vnfs = both
    yield tof
    for vnf in vnfs.values():
        vnf.start()
        vnf.open()
    until("all of them live", lambda: not tof.metrics()["tof_vnfs_dead"], 60)
    put(tof)
    tof.drain()


@pytest.fixture
def vnfs(both: tuple[Tof, Vnfs]) -> Vnfs:
    return both[1]


@pytest.fixture
def ids(vnfs: Vnfs) -> Suricata:
    found = vnfs["ids"]
    assert isinstance(found, Suricata)
    return found


MARKS = pytest.mark.parametrize("mark", [{}, {"vlan": 40}, {"dscp": 10}, {"nsh": 77}], ids=str)


@MARKS
def test_it_sees_both_ways_with_the_ue_s_and_the_service_s_addresses(
    tof: Tof, vnfs: Vnfs, ids: Suricata, mark: dict[str, int]
) -> None:
    put(tof, chain(*ORDER, **mark))
    bearer = attached(tof)
    with watching(vnfs["monitor"]) as seen:
        for n in range(3):
            ask(tof, bearer, b"curious %d" % n)
            got = answer(tof, b"curious %d" % n)
            assert (got.teid, got.inner.source) == (bearer.down, SERVICE)
    assert sum(SERVICE in line for line in seen) == 6
    tags = (mark["vlan"],) if "vlan" in mark else ()
    there = Told(bearer.ue, SERVICE, "seen", "allowed", tags)
    back = Told(SERVICE, bearer.ue, "seen", "allowed", tags)
    assert Counter(ids.told("alert", bearer.ue, 6)) == {there: 3, back: 3}
    assert not [one for one in tof.core.gpdus() if one.inner.destination == SERVICE]


@MARKS
def test_what_a_rule_drops_is_gone_and_everything_else_served(
    tof: Tof, vnfs: Vnfs, ids: Suricata, mark: dict[str, int]
) -> None:
    put(tof, chain(*ORDER, **mark))
    vnfs["firewall"].firewall(f"ether type ip udp dport {BLOCKED} drop")
    bearer = attached(tof)
    with watching(vnfs["firewall"]) as before, watching(vnfs["monitor"]) as behind:
        for n, data in enumerate((b"hello", b"forbidden", b"hello again", b"secret", b"and again")):
            tof.ran.send(bearer.uplink(udp(bearer.ue, SERVICE, 4000 + n, ECHO, data)))
            if data not in (b"forbidden", b"secret"):
                answer(tof, data)
        if "vlan" not in mark:
            ask(tof, bearer, b"not for you", BLOCKED)
        tof.ran.find(lambda _: False, 0.5)
    served = {one.inner.data for one in tof.ran.gpdus() if one.inner.source == SERVICE}
    assert served == {b"app:hello", b"app:hello again", b"app:and again"}
    assert [sum(f"{bearer.ue}.4001 > " in line for line in lines) for lines in (before, behind)] == [1, 0]
    assert [sum(f" > {bearer.ue}.4003" in line for line in lines) for lines in (before, behind)] == [0, 1]
    wanted = [
        (bearer.ue, SERVICE, "refused", "blocked"),
        (SERVICE, bearer.ue, "refused to UEs", "blocked"),
    ]
    for kind in ("alert", "drop"):
        assert sorted(one[:4] for one in ids.told(kind, bearer.ue, 2)) == sorted(wanted)
    assert not [one for one in tof.core.gpdus() if one.inner.destination == SERVICE]


def test_ipv6(tof: Tof, ids: Suricata) -> None:
    put(tof, chain(*ORDER), services=((SERVICE6, APP6),))
    bearer = new_bearer6()
    tof.attach(bearer)
    for data in (b"forbidden", b"curious"):
        tof.ran.send(bearer.uplink(udp(bearer.ue, SERVICE6, 4000, ECHO, data)))
    answer(tof, b"curious")
    tof.ran.silent(lambda one: b"forbidden" in one.inner.data, 0.3)
    assert sorted(one.rule for one in ids.told("alert", bearer.ue, 3)) == ["refused", "seen", "seen"]


def test_what_fragments_are_together_is_judged(tof: Tof, vnfs: Vnfs, ids: Suricata) -> None:
    put(tof, chain(*ORDER))
    bearer = attached(tof)
    with watching(vnfs["monitor"], "ip src " + bearer.ue) as seen:
        refused_in_pieces(tof, ids, bearer)
    assert sum(f" {bearer.ue}" in line for line in seen) == 3 + 2, seen


def refused_in_pieces(tof: Tof, ids: Suricata, bearer: Bearer) -> None:
    for number, word in enumerate((b"harmless.", b"forbidden")):
        data = bytes(970) + word + bytes(1000)  # the word lies across the end of the first
        for piece in pieces(udp(bearer.ue, SERVICE, 4000 + number, ECHO, data), 976, 77 + number):
            tof.ran.send(bearer.uplink(piece))
    got = tof.ran.gpdu(lambda one: one.inner.source == SERVICE)
    assert got.teid == bearer.down
    tof.ran.silent(lambda one: one.inner.source == SERVICE and one.inner.ports[1:] == (4001,), 0.5)
    assert [one.rule for one in ids.told("alert", bearer.ue, 1)] == ["refused"]


def test_pages_are_refused_by_name(tof: Tof, ids: Suricata) -> None:
    put(tof, chain(*ORDER))
    bearer = attached(tof)
    with ue_kernel(tof, bearer):
        got = [
            tof.netns["ran"].run(
                "curl", "-s", "--max-time", "2", f"http://{SERVICE}:{WEB}/{page}", check=False
            )
            for page in ("good", "evil", "good")
        ]
    assert got == ["the good page\n", "", "the good page\n"]
    assert ids.told("alert", bearer.ue, 1)[0][:4] == (bearer.ue, SERVICE, "refused page", "blocked")


@contextlib.contextmanager
def connected(tof: Tof, bearer: Bearer, serve: Callable[[socket.socket], None]) -> Iterator[socket.socket]:
    """A UE's TCP connection to the application, which does this with it."""
    with tof.netns["apps"].entered():
        server = socket.create_server((APP, 8088))

    def accept() -> None:
        peer, _ = server.accept()
        with peer:
            serve(peer)

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    with server, ue_kernel(tof, bearer):
        with tof.netns["ran"].entered():
            connection = socket.create_connection((SERVICE, 8088), 5)
        with connection:
            connection.settimeout(60)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            yield connection
        thread.join(5)


def exactly(connection: socket.socket, number: int) -> bytes:
    got = bytearray()
    while len(got) < number and (chunk := connection.recv(1 << 20)):
        got += chunk
    return bytes(got)


@pytest.mark.parametrize("mark", [{}, {"vlan": 40}, {"nsh": 77}], ids=str)
def test_tcp_in_bulk_with_every_checksum_right(tof: Tof, ids: Suricata, mark: dict[str, int]) -> None:
    put(tof, chain(*ORDER, **mark))
    bearer = attached(tof)
    packets, connections = ids.counted("decoder", "tcp"), ids.counted("tcp", "sessions")
    wrong = ids.counted("tcp", "invalid_checksum")
    data = os.urandom(4_000_000)

    def back(peer: socket.socket) -> None:
        peer.sendall(exactly(peer, len(data)))

    with connected(tof, bearer, back) as connection:
        connection.sendall(data)
        assert exactly(connection, len(data)) == data
    least = packets + 2 * len(data) / 1400
    until("Suricata has counted them", lambda: ids.counted("decoder", "tcp") > least, 20)
    until("and the connection", lambda: ids.counted("tcp", "sessions") > connections, 20)
    assert ids.counted("tcp", "invalid_checksum") == wrong
    tof.ran.send(bearer.uplink(tcp(bearer.ue, SERVICE, 4000, 8088, SYN)[:-2] + b"!!"))
    until("it finds one that is wrong", lambda: ids.counted("tcp", "invalid_checksum") == wrong + 1, 20)
    assert not ids.counted("capture", "afpacket", "send_errors")


HOW = pytest.mark.parametrize("how", ["killed", "frozen"])


def end(ids: Suricata, how: str) -> None:
    ids.stop() if how == "killed" else ids.freeze()


@HOW
def test_without_it_the_service_is_the_core_s(tof: Tof, ids: Suricata, how: str) -> None:
    put(tof, chain(*ORDER))
    bearer = attached(tof)
    ask(tof, bearer, b"before")
    answer(tof, b"before")
    end(ids, how)
    until("it is found dead", lambda: tof.get("/service/s0/status")["state"] == "broken_chain")
    assert "ids" in tof.get("/service/s0/status")["detail"]
    soon_at_the_core(tof, bearer)
    ids.start()
    until("it is back", lambda: tof.get("/service/s0/status")["state"] == "in_force", 60)
    soon_answered(tof, bearer, "curious, after")
    assert ids.told("alert", bearer.ue, 2)
    refuses(tof, bearer)


def soon_at_the_core(tof: Tof, bearer: Bearer) -> None:
    """The agent says what has changed a moment before the data path does it."""
    for n in range(20):
        frame = bearer.uplink(udp(bearer.ue, SERVICE, 4001, ECHO, b"meanwhile, forbidden, %d" % n))
        tof.ran.send(frame)
        with contextlib.suppress(AssertionError):
            tof.core.expect(frame, 0.3)
            return
    pytest.fail("nothing reached the core")


def refuses(tof: Tof, bearer: Bearer) -> None:
    """What a rule drops gets no answer; what comes after it does."""
    ask(tof, bearer, b"forbidden")
    ask(tof, bearer, b"welcome")
    answer(tof, b"welcome")
    assert b"app:forbidden" not in {one.inner.data for one in tof.ran.gpdus()}


@HOW
@pytest.mark.parametrize("mark", [{}, {"vlan": 40}], ids=str)
def test_it_is_left_out(tof: Tof, ids: Suricata, mark: dict[str, int], how: str) -> None:
    put(tof, chain(*ORDER, onFailure="skip", **mark))
    bearer = attached(tof)
    with Stream(tof, bearer) as stream:
        time.sleep(0.3)
        end(ids, how)
        until("it is found dead", lambda: tof.metrics()["tof_vnfs_dead"] == 1)
        soon_answered(tof, bearer, "forbidden, and nobody is there who says so")
        dead = stream.sent
        time.sleep(0.3)
        assert tof.metrics()["tof_vnfs_dead"] == 1
        back = stream.sent
        ids.start()
        until("it is back", lambda: not tof.metrics()["tof_vnfs_dead"], 60)
        time.sleep(0.5)
    lost = sorted(int(data) for data in stream.asked - stream.answered())
    assert lost or how == "frozen", "what is in one that is killed is lost; one that goes on gives it back"
    assert not [n for n in lost if dead < n < back]
    assert max(int(data) for data in stream.answered()) == stream.sent - 1
    assert not [one for one in tof.core.gpdus() if one.inner.destination == SERVICE]
    refuses(tof, bearer)


def test_a_connection_outlives_it_and_is_inspected_again(tof: Tof, ids: Suricata) -> None:
    put(tof, chain(*ORDER, onFailure="skip"))
    bearer = attached(tof)

    def echo(peer: socket.socket) -> None:
        while chunk := peer.recv(1 << 16):
            peer.sendall(chunk)

    with contextlib.suppress(ConnectionError), connected(tof, bearer, echo) as connection:
        for turn in (b"it is there", b"it is dead", b"it is back"):
            connection.sendall(turn)
            assert exactly(connection, len(turn)) == turn
            if turn == b"it is there":
                ids.stop()
                until("it is found dead", lambda: tof.metrics()["tof_vnfs_dead"] == 1)
            elif turn == b"it is dead":
                ids.start()
                until("it is back", lambda: not tof.metrics()["tof_vnfs_dead"], 60)
        connection.settimeout(2)
        connection.sendall(b"forbidden")
        with pytest.raises(TimeoutError):
            connection.recv(1 << 16)
    assert "refused" in {one.rule for one in ids.told("alert", bearer.ue, 1)}
