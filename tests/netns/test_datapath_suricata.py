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
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from gtp_apps import udp_echo, ue_kernel
from gtp_packets import Bearer, new_bearer, new_bearer6, pieces, udp
from gtp_peers import APP, APP6, Setting, Tof, running_tof, until
from test_datapath_chains import BLOCKED, ECHO, SERVICE, Stream, Vnf, Vnfs, answer, ask, attached, watching
from test_datapath_marks import NSH_MTU, SERVICE6, chain, put, room, soon_answered

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


@dataclass
class Suricata(Vnf):
    """Suricata between the two interfaces, and nothing else."""

    logs: Path = field(init=False)
    process: subprocess.Popen[str] | None = None

    def fill(self) -> None:
        self.logs = self.tof.dir / "suricata"
        self.logs.mkdir(exist_ok=True)
        (self.logs / "tof.rules").write_text(RULES)
        for port in ("near", "far"):
            self.netns.run("ethtool", "-K", port, "gro", "off", "tx", "off")

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

    def events(self, kind: str, ue: str = "") -> list[dict[str, Any]]:
        """What it has written of this kind, with this UE at either end."""
        written = (self.logs / "eve.json").read_text().splitlines(keepends=True)
        told = [json.loads(line) for line in written if line.endswith("\n")]
        return [
            one
            for one in told
            if one["event_type"] == kind and (not ue or ue in (one["src_ip"], one["dest_ip"]))
        ]

    def told(self, kind: str, ue: str, number: int) -> list[tuple[str, str, str, str, list[int]]]:
        """Source, destination, rule, action and VLANs of so many events, once they are there."""
        until(f"Suricata tells of {number}", lambda: len(self.events(kind, ue)) >= number)
        return [
            (
                one["src_ip"],
                one["dest_ip"],
                one["alert"]["signature"],
                one["alert"]["action"],
                one.get("vlan", []),
            )
            for one in self.events(kind, ue)
        ]


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
    tags = [mark["vlan"]] if "vlan" in mark else []
    there, back = (
        (bearer.ue, SERVICE, "seen", "allowed", tags),
        (SERVICE, bearer.ue, "seen", "allowed", tags),
    )
    assert ids.told("alert", bearer.ue, 6) == [there, back] * 3
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
        tof.ran.silent(lambda one: one.inner.source == SERVICE, 0.5)
    assert [sum(f"{bearer.ue}.4001 > " in line for line in lines) for lines in (before, behind)] == [1, 0]
    assert [sum(f" > {bearer.ue}.4003" in line for line in lines) for lines in (before, behind)] == [0, 1]
    told = [one[:4] for one in ids.told("alert", bearer.ue, 2)]
    assert told == [
        (bearer.ue, SERVICE, "refused", "blocked"),
        (SERVICE, bearer.ue, "refused to UEs", "blocked"),
    ]
    assert len(ids.told("drop", bearer.ue, 2)) == 2
    assert not [one for one in tof.core.gpdus() if one.inner.destination == SERVICE]


def test_ipv6(tof: Tof, ids: Suricata) -> None:
    put(tof, chain(*ORDER), services=((SERVICE6, APP6),))
    bearer = new_bearer6()
    tof.attach(bearer)
    for data in (b"forbidden", b"curious"):
        tof.ran.send(bearer.uplink(udp(bearer.ue, SERVICE6, 4000, ECHO, data)))
    answer(tof, b"curious")
    tof.ran.silent(lambda one: b"forbidden" in one.inner.data, 0.3)
    assert [one[2] for one in ids.told("alert", bearer.ue, 3)] == ["refused", "seen", "seen"]


def test_what_fragments_are_together_is_judged(tof: Tof, ids: Suricata) -> None:
    put(tof, chain(*ORDER))
    bearer = attached(tof)
    for number, word in enumerate((b"harmless.", b"forbidden")):
        data = bytes(970) + word + bytes(1000)  # the word lies across the end of the first
        for piece in pieces(udp(bearer.ue, SERVICE, 4000 + number, ECHO, data), 976, 77 + number):
            tof.ran.send(bearer.uplink(piece))
    got = tof.ran.gpdu(lambda one: one.inner.source == SERVICE)
    assert got.teid == bearer.down
    tof.ran.silent(lambda one: one.inner.source == SERVICE and one.inner.ports[1:] == (4001,), 0.5)
    assert [one[2] for one in ids.told("alert", bearer.ue, 1)] == ["refused"]


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
