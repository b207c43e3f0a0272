"""``tof lab play``: emulated eNBs, SGWs, UEs and an application around a box, scenario by scenario."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from random import Random
from typing import Any

from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console
from rich.markup import escape

from tof.api.client import ApiClient
from tof.errors import BackendError
from tof.lab.checks import Check, Figures, clock
from tof.lab.emulation.bearers import End
from tof.lab.emulation.catalogue import SCENARIOS, line
from tof.lab.emulation.judging import NAMED, figures, judge
from tof.lab.emulation.network import Network, Numbers
from tof.lab.emulation.player import Player, Script, pause
from tof.lab.emulation.settings import Settings
from tof.lab.learner import describe, disagreements, tunnel_key
from tof.lab.wire_ends import WireEnd
from tof.model import TunnelKey

LEARN_S = 2.0
POLL_S = 0.05
LEAKS_S = 0.15
"""How long what must not come out is waited for at the end."""
UNDIVERTED = frozenset(
    {"crowded", "flow_ambiguous", "flow_unknown", "flow_waits", "fragment_refused", "ovs_down", "spoofed"}
)
"""Reasons of the TOF's packet counters for which service traffic is left to the core."""


@dataclass(frozen=True, slots=True)
class Played:
    """A scenario's checks and figures."""

    name: str
    checks: list[Check]
    figures: Figures

    @property
    def ok(self) -> bool:
        """Whether all checks hold."""
        return all(check.ok for check in self.checks)

    def document(self) -> dict[str, Any]:
        """As one element of ``scenarios``."""
        rounded = {name: round(value, 3) for name, value in self.figures.items()}
        checks = [asdict(check) for check in self.checks]
        return {"name": self.name, "ok": self.ok, "checks": checks, "figures": rounded}


class Wires:
    """Adapters at the box's ends, read all the time, and the network behind them."""

    def __init__(self, ends: Mapping[End, WireEnd], settings: Settings, seed: int) -> None:
        self._ends, self._settings, self._draw = ends, settings, Random(seed)
        self._moved = asyncio.Event()
        self._broken: BackendError | None = None
        self.net = Network(settings, self._draw, Numbers.drawn(self._draw))

    @contextmanager
    def open(self) -> Iterator[None]:
        """Read while the block lasts."""
        loop = asyncio.get_running_loop()
        for end, adapter in self._ends.items():
            adapter.receive()
            loop.add_reader(adapter, self._collect, end)
        try:
            yield
        finally:
            for adapter in self._ends.values():
                loop.remove_reader(adapter)

    async def play(self, name: str) -> Network:
        """Play a scenario in a network of its own; what it left there tells how it went."""
        for adapter in self._ends.values():
            adapter.dropped()
        self.net = Network(self._settings, self._draw, self.net.unused)
        player = Player(self.net, _with_rest(SCENARIOS[name](self.net)), clock())
        while not player.done:
            player.advance(clock())
            self._flush()
            self._moved.clear()
            try:
                async with asyncio.timeout_at(player.wake_at):
                    await self._moved.wait()
            except TimeoutError:
                player.advance(clock())
            if self._broken is not None:
                raise self._broken
        for adapter in self._ends.values():
            if dropped := adapter.dropped():
                raise BackendError(f"{adapter.name}: {dropped} frames did not fit into the receive buffer")
        return self.net

    def _collect(self, end: End) -> None:
        try:
            for data in self._ends[end].receive():
                self.net.receive(end, data, clock())
            self._flush()
        except BackendError as error:
            self._broken = error
        except OSError as error:
            self._broken = BackendError(f"{self._ends[end].name}: {error.strerror}")
        self._moved.set()

    def _flush(self) -> None:
        going, self.net.outbox = self.net.outbox, []
        for end, data in going:
            if end in self._ends:
                self._ends[end].send(data)


def _with_rest(script: Script) -> Script:
    yield from script
    yield pause(LEAKS_S)


@dataclass(slots=True)
class PlayReport:
    """The scenarios so far, shown as they are played."""

    console: Console
    seed: int
    played: list[Played] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether something was played and every check holds."""
        return bool(self.played) and all(each.ok for each in self.played)

    def add(self, played: Played) -> None:
        """Record and show a scenario."""
        self.played.append(played)
        state = "[green]ok[/]" if played.ok else "[bold red]FAILED[/]"
        self.console.print(
            f"\n[bold]{escape(played.name)}[/] {state}  {escape(line(played.name))}", highlight=False
        )
        for check in played.checks:
            mark = "[green]ok    [/]" if check.ok else "[bold red]FAILED[/]"
            self.console.print(f"  {mark} {escape(check.name)}: {escape(check.seen)}", highlight=False)
        told = ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in played.figures.items())
        self.console.print(f"  {told}", style="dim", highlight=False)

    def conclude(self) -> None:
        """The last line."""
        good = sum(each.ok for each in self.played)
        self.console.print(f"\n{good} of {len(self.played)} scenarios ok (seed {self.seed})", highlight=False)

    def document(self) -> dict[str, Any]:
        """The body of ``--json``."""
        return {"ok": self.ok, "seed": self.seed, "scenarios": [each.document() for each in self.played]}


async def play_all(
    names: list[str], wires: Wires, agent: ApiClient | None, tell: Callable[[Played], None]
) -> None:
    """Play the scenarios one after the other; one that breaks off is a failed check."""
    for name in names:
        before = frozenset(map(tunnel_key, await agent.get("/tunnels"))) if agent else frozenset()
        counted = await _undiverted(agent)
        try:
            net = await wires.play(name)
        except BackendError as error:
            tell(Played(name, [Check("runs to its end", ok=False, expected="no error", seen=str(error))], {}))
            continue
        reasons = ", ".join(f"{reason} {n}" for reason, n in (await _undiverted(agent) - counted).items())
        checks = [_explained(check, reasons) for check in judge(net)]
        if agent is not None:
            checks.append(await _learnt(net, agent, before))
        tell(Played(name, checks, figures(net)))


def _explained(check: Check, reasons: str) -> Check:
    if check.ok or not reasons or not check.name.startswith("diverted"):
        return check
    return replace(check, seen=f"{check.seen}; the TOF counted {reasons}")


async def _undiverted(agent: ApiClient | None) -> Counter[str]:
    """For what reasons, and how often, the TOF has left service traffic to the core so far."""
    text = await agent.get("/metrics") if agent else ""
    samples = (sample for family in text_string_to_metric_families(text) for sample in family.samples)
    return Counter(
        {
            sample.labels["reason"]: int(sample.value)
            for sample in samples
            if sample.name == "tof_packets_total" and sample.labels["reason"] in UNDIVERTED
        }
    )


async def _learnt(net: Network, agent: ApiClient, before: frozenset[TunnelKey]) -> Check:
    """Whether the agent holds the tunnels in use with their UEs, asked until it does, or for ``LEARN_S``."""
    expected = net.expected_tunnels
    give_up = clock() + LEARN_S
    while True:
        conflicts = disagreements(expected, await agent.get("/tunnels"), before | net.used)
        if not conflicts or clock() > give_up:
            break
        await asyncio.sleep(POLL_S)
    wanted = f"{len(expected)} tunnels"
    found = (f"{len(conflicts)} conflicts", *describe(conflicts[:NAMED])) if conflicts else (wanted,)
    return Check("learnt: the agent holds the tunnels in use", not conflicts, wanted, "; ".join(found))
