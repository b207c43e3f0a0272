"""``tof replay``: captures through a TOF, packet by packet, and what its learner then holds."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from rich.console import Console

from tof.api.client import DEFAULT_ADDRESSES, ApiClient, connect
from tof.api.commands import ADDRESS_VARIABLE, PIPE_WIDTH
from tof.errors import BackendError, DecodeError, SetupError
from tof.lab import capture, rewrite, verdict
from tof.lab.demo import INTERRUPTED
from tof.lab.injection import Injection
from tof.lab.learner import Conflict, Expected, disagreements, several_ues, tunnel_key
from tof.lab.replay_lab import EAST, EDGE, WEST, ReplayLab, replay_lab
from tof.lab.replay_report import Finding, document, show
from tof.lab.replying import Responder
from tof.lab.rewrite import Rewriting
from tof.lab.verdict import Received, Sent
from tof.lab.wire_ends import HEADER, TAG, WireEnd, open_ends
from tof.model import Side, TunnelKey
from tof.wire import gtpu, inet

LEARN_S = 2.0
POLL_S = 0.05
REPLY_QUIET_S = 2.0

Pairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class ReplayOptions:
    """What the command line asks for; ``enb``: the eNBs' addresses in the capture (empty: found out)."""

    captures: tuple[Path, ...]
    lab: bool = False
    enb: tuple[str, ...] = ()
    west: str = ""
    east: str = ""
    netns: str = ""
    fix: bool = False
    map_address: Pairs = ()
    map_teid: Pairs = ()
    map_ue: Pairs = ()
    reply: bool = False
    api: str | None = None
    json_output: bool = False


@dataclass(frozen=True, slots=True)
class Script:
    """A capture made ready: what is sent from which side."""

    name: str
    sent: tuple[Sent, ...]

    @property
    def largest(self) -> int:
        """Length of the longest frame that is sent."""
        return max((len(item.frame.data) for item in self.sent if not item.frame.cut), default=0)


def run(options: ReplayOptions) -> int:
    """``tof replay``: 0: all came out as it went in; 1: something lost, changed, reordered; 130: interrupted."""
    scripts = [prepare(path, options) for path in options.captures]
    console = Console(width=None if sys.stdout.isatty() else PIPE_WIDTH)
    try:
        findings = asyncio.run(_replay_all(scripts, options, console))
    except (asyncio.CancelledError, KeyboardInterrupt):
        print("tof: replay interrupted", file=sys.stderr)
        return INTERRUPTED
    found = document(findings, one_learner=not options.lab)
    if options.json_output:
        print(json.dumps(found, indent=2))
    return 0 if found["ok"] else 1


def prepare(path: Path, options: ReplayOptions) -> Script:
    """Read a capture, find the sides of its frames, and rewrite them as asked; SetupError if it cannot be."""
    frames = [_sendable(frame) for frame in capture.read(path)]
    enbs = frozenset(map(_address, options.enb)) or rewrite.find_enbs(frames)
    rules = Rewriting(
        rewrite.address_pairs(map("=".join, options.map_address)),
        rewrite.teid_pairs(map("=".join, options.map_teid)),
        rewrite.address_pairs(map("=".join, options.map_ue)),
        options.fix,
    )
    sent = (
        Sent(frame if frame.cut else frame._replace(data=_rewritten(frame.data, rules)), side)
        for frame, side in zip(frames, rewrite.sides(frames, enbs), strict=True)
    )
    return Script(str(path), tuple(sent))


def _sendable(frame: capture.Frame) -> capture.Frame:
    """Less than an Ethernet header cannot be sent: it counts as cut."""
    if len(frame.data) > HEADER:
        return frame
    return frame._replace(original_length=max(frame.original_length, len(frame.data) + 1))


def _rewritten(data: bytes, rules: Rewriting) -> bytes:
    return rewrite.rewrite(data, rules) if rules != Rewriting() else data


def _address(text: str) -> bytes:
    try:
        return ip_address(text.strip()).packed
    except ValueError:
        raise SetupError(f"--enb: {text!r} is not an address") from None


async def _replay_all(scripts: Sequence[Script], options: ReplayOptions, console: Console) -> list[Finding]:
    findings = []
    async with _scene(scripts, options) as (lab, ends):
        for script in scripts:
            if lab is not None:
                await lab.fresh()
            async with _agent(options, lab) as agent:
                finding = await _replay(script, ends, agent, reply=options.reply)
            findings.append(finding)
            if not options.json_output:
                show(console, finding)
    return findings


@asynccontextmanager
async def _scene(
    scripts: Sequence[Script], options: ReplayOptions
) -> AsyncIterator[tuple[ReplayLab | None, dict[Side, WireEnd]]]:
    async with AsyncExitStack() as stack:
        largest = max((script.largest for script in scripts), default=0)
        lab = await stack.enter_async_context(replay_lab(largest, EDGE)) if options.lab else None
        names = (WEST, EAST) if lab else (options.west, options.east)
        opened = open_ends(names, lab.netns if lab else options.netns)
        for end in opened:
            stack.enter_context(closing(end))
            _require_room(end, scripts)
        yield lab, dict(zip(Side, opened, strict=True))


def _require_room(end: WireEnd, scripts: Sequence[Script]) -> None:
    for script in scripts:
        # The kernel lets a tagged frame be longer by its tag, as a switch does.
        for item in script.sent:
            tag = TAG if item.frame.data[12:14] == b"\x81\0" else 0
            needed = len(item.frame.data) - HEADER - tag
            if needed > end.mtu and not item.frame.cut:
                what = f"{script.name}: packet {item.frame.number} needs an MTU of {needed}"
                raise SetupError(f"{what}, {end.name} has {end.mtu}")


@asynccontextmanager
async def _agent(options: ReplayOptions, lab: ReplayLab | None) -> AsyncIterator[ApiClient | None]:
    """A client of the TOF's agent; None when nobody said where it is and it is not at the usual places."""
    chosen = lab.api if lab else options.api or os.environ.get(ADDRESS_VARIABLE)
    async with AsyncExitStack() as stack:
        client: ApiClient | None = None
        try:
            client = await stack.enter_async_context(connect((chosen,) if chosen else DEFAULT_ADDRESSES))
        except BackendError as error:
            if chosen:
                raise
            # A TOF without an agent passes everything on; that too is worth a replay.
            print(f"tof: {error}", file=sys.stderr)
        yield client


async def _replay(
    script: Script, ends: dict[Side, WireEnd], agent: ApiClient | None, *, reply: bool
) -> Finding:
    before = frozenset(map(tunnel_key, await agent.get("/tunnels"))) if agent else frozenset()
    services = (
        frozenset(_address(each["serviceIP"]) for each in await agent.get("/service") if "serviceIP" in each)
        if agent
        else frozenset()
    )
    responder = Responder(script.sent).reply if reply else None
    injection = Injection(ends, responder, lambda data: inner_destination(data) not in services)
    await injection.run(script.sent)
    if reply:
        await injection.linger(REPLY_QUIET_S)
    report = judge(script.sent, injection, services)
    expected = verdict.expected_tunnels([*script.sent, *_as_sent(injection.replies)])
    tunnels, conflicts = await _learner(agent, expected, before) if agent else (None, [])
    return Finding(
        script.name,
        report,
        tunnels,
        [*several_ues(expected, tunnels or ()), *conflicts],
        len(injection.replies),
    )


def judge(sent: Sequence[Sent], injection: Injection, services: frozenset[bytes]) -> verdict.Report:
    """The verdict on every frame; answers of the replayer itself are not the TOF's frames."""
    received = Received(injection.received[Side.ENB], injection.received[Side.SGW], None, services)
    report = verdict.compare(sent, received)
    own = {(side.other, verdict.without_padding(data)) for side, data in injection.replies}
    made = tuple(each for each in report.injected if (each.side, each.data) not in own)
    return verdict.Report(report.verdicts, made)


def inner_destination(data: bytes) -> bytes:
    """Where the user's packet in a G-PDU goes; empty for any other frame."""
    try:
        message = gtpu.decode_gpdu(inet.decode_ethernet(data).payload, partial_ok=True).message
        if message.type != gtpu.G_PDU:
            return b""
        return gtpu.inner(message.payload, cut=True).destination
    except DecodeError:
        return b""


def _as_sent(replies: Sequence[tuple[Side, bytes]]) -> list[Sent]:
    return [Sent(capture.Frame(0, 0, data, len(data)), side) for side, data in replies]


async def _learner(
    agent: ApiClient, expected: Expected, before: frozenset[TunnelKey]
) -> tuple[list[dict[str, Any]], list[Conflict]]:
    """What the learner holds, asked until it is what it should be, or for ``LEARN_S``."""
    give_up = asyncio.get_running_loop().time() + LEARN_S
    while True:
        tunnels: list[dict[str, Any]] = await agent.get("/tunnels")
        conflicts = disagreements(expected, tunnels, before)
        if not conflicts or asyncio.get_running_loop().time() > give_up:
            return tunnels, conflicts
        await asyncio.sleep(POLL_S)
