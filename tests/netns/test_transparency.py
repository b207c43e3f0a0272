"""Thousands of frames of every kind leave the TOF as they leave a Linux bridge that netfilter does not touch.

Both get the same frames at the same ends (``gtp_zoo``); what comes out, and in which order, is compared byte for byte. The
only frames more than a bridge's are the Pinger's requests.
"""

from __future__ import annotations

import contextlib
import itertools
import signal
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from gtp_packets import CORE_MAC, RAN_MAC, new_bearer
from gtp_peers import APP6, Setting, Tof, running_tof
from gtp_wires import Wire
from gtp_zoo import Case, zoo
from netns_helper import Netns

from tof.model import Side

pytestmark = pytest.mark.netns

PINGER = b"tof-pinger"
MOST_FAILURES = 30


@dataclass
class Box:
    """What is between the two ends."""

    name: str
    ran: Wire
    core: Wire

    def ends(self, side: Side) -> tuple[Wire, Wire]:
        return (self.ran, self.core) if side is Side.ENB else (self.core, self.ran)

    def drain(self) -> None:
        """Until nothing has come for a while."""
        for wire in (self.ran, self.core):
            wire.find(lambda _: False, 0.3)
            wire.drain()


def _quiet(netns: Netns, *devices: str) -> None:
    """The kernel here says nothing of its own, and answers nobody."""
    for device in devices:
        netns.run("sysctl", "-q", "-w", f"net.ipv6.conf.{device}.disable_ipv6=1")
        netns.run("ip", "address", "flush", "dev", device)


@pytest.fixture(scope="module")
def plain() -> Iterator[Box]:
    with contextlib.ExitStack() as stack:
        ran, core, switch = (stack.enter_context(Netns(role)) for role in ("pran", "pcore", "plain"))
        switch.run(
            "sysctl",
            "-q",
            "-w",
            "net.bridge.bridge-nf-call-iptables=0",
            "net.bridge.bridge-nf-call-ip6tables=0",
        )
        switch.run("sysctl", "-q", "-w", "net.bridge.bridge-nf-call-arptables=0")
        switch.run("ip", "link", "add", "br0", "type", "bridge", "stp_state", "0", "mcast_snooping", "0")
        for far, near, mac in ((ran, "enb0", RAN_MAC), (core, "sgw0", CORE_MAC)):
            switch.veth(near, far, "s0")
            far.run("ip", "link", "set", "s0", "address", mac.hex(":"))
            _quiet(far, "s0")
            _quiet(switch, near)
            switch.run("ip", "link", "set", near, "master", "br0")
        _quiet(switch, "br0")
        switch.run("ip", "link", "set", "br0", "up")
        box = Box(
            "bridge", *(stack.enter_context(contextlib.closing(Wire(far, "s0"))) for far in (ran, core))
        )
        box.drain()
        yield box


@pytest.fixture(scope="module", params=["generic", "native"])
def tof(request: pytest.FixtureRequest) -> Iterator[Tof]:
    with running_tof(Setting(xdp=request.param)) as running:
        for role in ("ran", "core"):
            _quiet(running.netns[role], "s0")
        yield running


@pytest.fixture
def through(tof: Tof) -> Box:
    """The TOF, knowing where both ends are."""
    box = Box("TOF", tof.ran, tof.core)
    tof.up(new_bearer())
    tof.down(new_bearer())
    box.drain()
    return box


_marks = itertools.count()


def by_the_bridge(plain: Box, case: Case) -> tuple[list[bytes], list[bytes]]:
    """What leaves the bridge on the other side, and on the side it came from."""
    here, there = plain.ends(case.side)
    macs = (CORE_MAC + RAN_MAC) if case.side is Side.ENB else (RAN_MAC + CORE_MAC)
    mark = macs + b"\x88\xb6" + struct.pack("!Q", next(_marks)) + bytes(40)
    here.drain()
    there.drain()
    here.send(*case.frames, mark)
    assert there.find(mark.__eq__, 2) is not None, "the bridge keeps its order"
    here.drain()
    return there.history[:-1], here.history


def next_of(wire: Wire, expected: bytes, timeout_s: float) -> bytes | None:
    """The next frame; the Pinger's requests are none, unless they are expected."""
    return wire.find(lambda frame: frame == expected or not frame.endswith(PINGER), timeout_s)


def compare(plain: Box, through: Box, cases: list[Case]) -> Counter[str]:
    """One case after the other; says how many frames crossed, and fails with the cases that differ."""
    failures, crossed = [], Counter[str]()
    for case in cases:
        wanted, reflected = by_the_bridge(plain, case)
        assert not reflected
        here, there = through.ends(case.side)
        here.send(*case.frames)
        came = []
        for frame in wanted:
            one = next_of(there, frame, 1)
            if one is None:
                break
            came.append(one)
        crossed[case.side.name] += len(came)
        if came != wanted:
            there.find(lambda _: False, 0.1)
            failures.append(f"{case.name}:\n{_hex(wanted)}\n  but\n{_hex(came)}")
            through.drain()
            assert len(failures) < MOST_FAILURES, "\n".join(failures)
    for wire in (through.ran, through.core):
        while (extra := next_of(wire, b"", 0.3)) is not None:
            failures.append(f"in addition: {extra.hex()}")
    assert not failures, "\n".join(failures)
    return crossed


def _hex(frames: list[bytes]) -> str:
    return "\n".join(f"    {frame.hex()}" for frame in frames) or "    nothing"


def enough(crossed: Counter[str]) -> None:
    """Frames crossed in both directions: an empty comparison proves nothing."""
    assert min(crossed["ENB"], crossed["SGW"]) > 3000


def test_unknown_tunnels_and_then_the_same_known(tof: Tof, plain: Box, through: Box) -> None:
    cases = zoo(base=1)
    enough(compare(plain, through, cases))
    assert len(tof.tunnels()) > 1000
    through.drain()
    fast = tof.packets("passed")
    enough(compare(plain, through, cases))
    assert tof.packets("passed") > fast + 1000


def test_traffic_to_no_service_while_services_are_in_force(tof: Tof, plain: Box, through: Box) -> None:
    with tof.service("203.0.113.10"), tof.service("2001:db8:113::10", APP6):
        cases, diverted = zoo(base=2), tof.packets("diverted")
        enough(compare(plain, through, cases))
        through.drain()
        enough(compare(plain, through, cases))
        assert tof.packets("diverted") == diverted


def test_with_bypass(tof: Tof, plain: Box, through: Box) -> None:
    tof.tof("bypass", "on")
    try:
        enough(compare(plain, through, zoo(base=3)))
        assert not tof.tunnels(teid=3 << 17 | 1)
    finally:
        tof.tof("bypass", "off")


def test_all_at_once(tof: Tof, plain: Box, through: Box) -> None:
    """Both ends send as fast as they can: nothing lost, nothing doubled, each tunnel's frames in their order."""
    cases = zoo(base=4)
    came: dict[str, dict[Side, list[bytes]]] = {}
    for box in (plain, through):
        box.drain()
        for case in cases:
            box.ends(case.side)[0].send(*case.frames)
        for wire in (box.ran, box.core):
            wire.find(lambda _: False, 2)
        came[box.name] = {
            side: [frame for frame in box.ends(side)[1].history if not frame.endswith(PINGER)]
            for side in Side
        }
    for side in Side:
        one, other = (Counter(came[box.name][side]) for box in (plain, through))
        assert one == other, _hex([*(one - other), b"", *(other - one)])
        place = {frame: n for n, frame in enumerate(came[through.name][side])}
        for case in cases:
            places = [place[frame] for frame in case.frames if case.side is side and one[frame] == 1]
            assert places == sorted(places), case.name


def test_without_an_agent(tof: Tof, plain: Box, through: Box) -> None:
    tof.signal(signal.SIGKILL)
    try:
        enough(compare(plain, through, zoo(base=5)))
        enough(compare(plain, through, zoo(base=1)))
    finally:
        tof.start()
