"""`tof explain` against a real TOF: what it calls diverted is what is diverted, and its reasons are the counters'."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from gtp_explained import SERVICE, SERVICES, oddities
from gtp_packets import new_bearer, udp
from gtp_peers import APP, Tof, running_tof

from tof.agent.service_body import parse
from tof.errors import RequestError
from tof.explain.reading import Part, read
from tof.explain.story import explain
from tof.explain.words import Explanation, Verdict
from tof.lab import capture, rewrite
from tof.lab.replay_lab import APPS, EAST, EDGE, WEST, ReplayLab, replay_lab
from tof.lab.verdict import Outcome, Received, Sent, compare
from tof.lab.wire_ends import open_ends
from tof.model import Direction, Service, Side, address_text

pytestmark = [pytest.mark.netns, pytest.mark.timeout(280)]

ROOT = Path(__file__).parents[2]
RECORDED = sorted((ROOT / "tests" / "vectors" / "recorded").glob("*.pcap"))
SHARED = ROOT.parent / "shared" / "pcaps"
CHOSEN = (
    "02_gtpu_inner_ipv4_udp.pcap", "04_gtpu_inner_ipv6_udp.pcap", "11_gtpu_inner_ipv4_tcp_bidirectional.pcap",
    "19_gtpu_truncated_optional_header.pcap", "gtp-u.pcap", "gtp.pcap", "gtp10_not_0xff.pcap", "gtp6_gtp_0x32.pcap",
    "gtp7_ipv6.pcap", "gtp_ext_header.pcap",
)  # fmt: skip
OTHERS = {path.name: path for path in SHARED.glob("*/*.pcap")} if SHARED.is_dir() else {}
GAP_S = 0.004
"""Between two frames, on the wire as in what is explained: events reach the agent meanwhile."""
LINGER_S = 0.6
EDGE6 = "fd00:50::10"
COUNTED = (
    "bridged_length", "bridged_version", "bridged_message", "bridged_extension", "bridged_inner", "spoofed",
    "flow_unknown", "flow_ambiguous", "inner_fragment", "wrong_side", "fragment_refused",
)  # fmt: skip
MISSING = (Outcome.LOST, Outcome.CHANGED, Outcome.DIVERTED)


@dataclass(frozen=True)
class Played:
    """What a TOF did with frames: those that did not come out at the other side, those at the edge, its counters."""

    missing: set[int]
    at_the_edge: set[int]
    packets: Counter[str]
    fragments: Counter[str]


def paced(sent: Sequence[Sent]) -> list[Sent]:
    """The same frames at the times at which they are put on the wire, numbered anew."""
    return [
        item._replace(frame=item.frame._replace(number=n, time_ns=int(n * GAP_S * 1e9)))
        for n, item in enumerate(sent, 1)
    ]


def of_file(path: Path) -> list[Sent]:
    frames = capture.read(path)
    sides = rewrite.sides(frames, rewrite.find_enbs(frames))
    return paced([Sent(frame, side) for frame, side in zip(frames, sides, strict=True)])


def services_for(sent: Sequence[Sent]) -> list[Service]:
    """A service at every address that UEs speak to in a capture, if it can be one."""
    seen = explain(sent, ())
    asked = dict.fromkeys(
        e.user.destination for e in seen if e.user is not None and e.direction is Direction.UPLINK
    )
    found = []
    for number, address in enumerate(asked):
        edge = EDGE.partition("/")[0] if len(address) == 4 else EDGE6
        with contextlib.suppress(RequestError):
            body = {"name": f"s{number}", "serviceIP": address_text(address), "applicationIP": edge}
            found.append(parse(body))
    return found


@contextlib.asynccontextmanager
async def lab() -> AsyncIterator[ReplayLab]:
    async with replay_lab(9000, EDGE) as one:
        tester = one.tof.lab
        await tester.run("edge", "sysctl", "-qw", f"net.ipv6.conf.{APPS}.disable_ipv6=0")
        await tester.ip("edge", "address", "add", f"{EDGE6}/64", "dev", APPS, "nodad")
        yield one


async def counted(one: ReplayLab, family: str) -> Counter[str]:
    """A family of counters, by reason."""
    result = await one.tof.lab.run(
        "tof", "curl", "-s", "--unix-socket", str(one.tof.socket), "http://tof/metrics"
    )
    found: Counter[str] = Counter()
    for line in result.stdout.splitlines():
        if line.startswith(family + '{reason="'):
            name, _, value = line.removeprefix(family + '{reason="').partition('"} ')
            found[name] = int(float(value))
    return found


async def play(one: ReplayLab, sent: Sequence[Sent], services: Sequence[Service]) -> Played:
    """Frame by frame through a TOF that has seen nothing yet."""
    await one.fresh(ipv6=True)
    for service in services:
        answer = await one.tof.provision(service.name, str(service.service_ip), str(service.application_ip))
        assert answer.status == 200, answer.body
    before = await counted(one, "tof_packets_total")
    ends = dict(zip(Side, open_ends((WEST, EAST), one.netns), strict=True))
    (edge,) = open_ends((APPS,), one.edge)
    with contextlib.ExitStack() as stack:
        for end in (*ends.values(), edge):
            stack.enter_context(contextlib.closing(end))
            end.receive()
        for item in sent:
            if not item.frame.cut:
                ends[item.side].send(item.frame.data)
            await asyncio.sleep(GAP_S)
        await asyncio.sleep(LINGER_S)
        report = compare(sent, Received(ends[Side.ENB].receive(), ends[Side.SGW].receive(), edge.receive()))
    return Played(
        {each.number for each in report.verdicts if each.outcome in MISSING},
        {each.number for each in report.verdicts if each.outcome is Outcome.DIVERTED},
        await counted(one, "tof_packets_total") - before,
        await counted(one, "tof_fragments_total"),
    )


def fragments(told: Sequence[Explanation], sent: Sequence[Sent]) -> set[int]:
    """The numbers of the outer fragments."""
    whole = {item.frame.number for item in sent if read(item.frame.data).part is Part.WHOLE}
    return {one.number for one in told} - whole


def follows_its_first(one: Explanation) -> bool:
    """A later fragment of a user's datagram, which is counted with its first one."""
    later = one.user is not None and one.user.part is Part.LATER
    return later and one.outcome.reason != "inner_fragment"


def agree(told: Sequence[Explanation], sent: Sequence[Sent], played: Played) -> None:
    """What was explained is what was done, frame by frame and counter by counter."""
    diverted = {one.number for one in told if one.outcome.verdict is Verdict.DIVERTED}
    shown = {one.number: (one.outcome, sent[one.number - 1].frame.data.hex()) for one in told}
    odd = {number: shown[number] for number in diverted ^ played.missing}
    assert not odd, f"explained as diverted {sorted(diverted)}, were {sorted(played.missing)}: {odd}"
    pieces = fragments(told, sent)
    assert played.at_the_edge == diverted - pieces
    assert played.packets["diverted"] == len(diverted - pieces)
    assert played.fragments["diverted"] == len(diverted & pieces)
    reasons = Counter(one.outcome.reason for one in told if not follows_its_first(one))
    assert {name: played.packets[name] for name in COUNTED} == {name: reasons[name] for name in COUNTED}


def test_captures_are_diverted_as_explained() -> None:
    """Every recorded capture, and some others, each through a TOF that diverts all it can."""
    paths = [*RECORDED, *(OTHERS[name] for name in CHOSEN if name in OTHERS)]

    async def run() -> dict[str, set[int]]:
        found = {}
        async with lab() as one:
            for path in paths:
                sent = of_file(path)
                services = services_for(sent)
                told = explain(sent, services)
                agree(told, sent, await play(one, sent, services))
                found[path.name] = {e.number for e in told if e.outcome.verdict is Verdict.DIVERTED}
        return found

    diverted = asyncio.run(run())
    assert all(diverted[path.name] for path in RECORDED)


@pytest.mark.skipif(not OTHERS, reason="../shared/pcaps is not there")
def test_the_chosen_captures_are_there() -> None:
    assert set(CHOSEN) <= set(OTHERS)


def test_without_a_service_nothing_is_diverted() -> None:
    async def run() -> None:
        async with lab() as one:
            sent = of_file(RECORDED[-1])
            agree(explain(sent, ()), sent, await play(one, sent, ()))

    asyncio.run(run())


def test_odd_frames_meet_the_reasons_that_are_named() -> None:
    """One frame or more for each reason: fragments, forged sources, sides, lengths, flows."""
    sent = paced(oddities())
    told = explain(sent, SERVICES)

    async def run() -> Played:
        async with lab() as one:
            return await play(one, sent, SERVICES)

    agree(told, sent, asyncio.run(run()))
    reasons = {one.outcome.reason for one in told}
    assert set(COUNTED) <= reasons
    assert {"diverted", "no_service", "nested", "timeout", "downlink", "tunnel_learnt", "not_gtpu"} <= reasons
    assert ip_address(SERVICES[0].application_ip) == ip_address(EDGE.partition("/")[0])


def explained(tof: Tof, ue: str, to: str, *more: str) -> dict[str, Any]:
    """The one answer of ``tof explain --ue UE --to TO``."""
    argv = (sys.executable, "-m", "tof", "explain", "--api", f"unix:{tof.dir}/api.sock", "--json")
    done = subprocess.run(
        [*argv, "--ue", ue, "--to", to, *more],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    (answer,) = json.loads(done.stdout)["answers"]
    return answer  # type: ignore[no-any-return]


def test_a_running_tof_is_asked() -> None:
    """What the live form says of a packet is what becomes of it, and of its reply."""
    with running_tof() as tof:
        bearer, other = new_bearer(), new_bearer()
        unknown = explained(tof, bearer.ue, SERVICE)
        assert (unknown["verdict"], unknown["reason"], unknown["uplink"]) == ("teaches", "ue_unknown", None)
        tof.attach(bearer)
        assert explained(tof, bearer.ue, SERVICE)["reason"] == "no_service"
        with tof.service(SERVICE):
            said = explained(tof, bearer.ue, SERVICE, "--protocol", "udp", "--port", "53")
            assert (said["verdict"], said["application"], said["uplink"]["teid"]) == (
                "diverted",
                APP,
                bearer.up,
            )
            assert [down["teid"] for down in said["reply"]["downlinks"]] == [bearer.down]
            tof.ran.send(bearer.uplink(udp(bearer.ue, SERVICE, 1000, 53, b"asked")))
            _, seen = tof.apps.packet(lambda one: one.source == bearer.ue and one.destination == APP)
            assert seen.data == b"asked"
            answered = tof.ran.gpdu(lambda one: one.inner.source == SERVICE)  # ICMP: nothing listens there
            assert answered.teid == said["reply"]["downlinks"][0]["teid"]
            tof.up(other)
            assert explained(tof, other.ue, SERVICE)["reply"]["reason"] == "ue_no_tunnel"
            assert explained(tof, other.ue, SERVICE, "--teid", "1")["reason"] == "uplink_unknown"
            tof.tof("bypass", "on")
            assert explained(tof, bearer.ue, SERVICE)["reason"] == "bypassed"
            tof.tof("bypass", "off")
        with tof.service(SERVICE, "192.168.50.99"):
            said = explained(tof, bearer.ue, SERVICE)
            assert (said["verdict"], said["reason"]) == ("passes", "unresolved")
            frame = bearer.uplink(udp(bearer.ue, SERVICE, 1001, 53, b"to the core"))
            tof.ran.send(frame)
            tof.core.expect(frame)
