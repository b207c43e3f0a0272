"""Laboratory: ``tof demo``: the TOF's whole job on real peers, told as it happens."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import aclosing
from dataclasses import asdict, dataclass, field
from typing import Any

import aiohttp
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tof.errors import SetupError, TofError
from tof.lab.checks import Check, Figures, Scenario, clock
from tof.lab.namespaces import Lab
from tof.lab.scenarios import diversion, interception, learning
from tof.lab.scenarios_apps import apps
from tof.lab.scenarios_life import agent_killed, bypass, down, purge, switch_killed
from tof.lab.scenarios_service import pinger, service_api
from tof.lab.world import World, advice, build

SCENARIOS: tuple[Scenario, ...] = (
    interception,
    learning,
    diversion,
    pinger,
    service_api,
    agent_killed,
    switch_killed,
    bypass,
    purge,
    apps,
    down,
)

INTERRUPTED = 130


@dataclass(slots=True)
class Report:
    """Checks and figures so far; each check is printed when it is made."""

    console: Console
    checks: list[Check] = field(default_factory=list)
    figures: Figures = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether there were checks and all of them hold."""
        return bool(self.checks) and all(check.ok for check in self.checks)

    def add(self, check: Check) -> None:
        """Record and show a check."""
        self.checks.append(check)
        mark = "[green]ok    [/]" if check.ok else "[bold red]FAILED[/]"
        self.console.print(f"{mark} {escape(check.name)}", highlight=False)
        self.console.print(f"         expected {escape(check.expected)}", style="dim", highlight=False)
        self.console.print(f"         seen     {escape(check.seen)}", style="dim", highlight=False)

    def document(self) -> dict[str, Any]:
        """The body of ``--json``."""
        rounded = {name: round(value, 3) for name, value in self.figures.items()}
        return {"ok": self.ok, "checks": [asdict(check) for check in self.checks], "figures": rounded}

    def table(self) -> Table:
        """The last table: how the points did, and the figures."""
        table = Table("what", "figure", title="TOF demo")
        for point in sorted({check.name[0] for check in self.checks}):
            checks = [check for check in self.checks if check.name[0] == point]
            good = sum(check.ok for check in checks)
            table.add_row(checks[0].name.partition(":")[0], f"{good} of {len(checks)} checks")
        table.add_section()
        for name, value in self.figures.items():
            table.add_row(name.replace("_", " "), f"{value:.2f}")
        return table


async def tell(world: World, report: Report, scenario: Scenario) -> None:
    """Run one scenario; one that breaks off is a failed check."""
    report.console.print(f"\n[bold]{escape((scenario.__doc__ or '').strip())}[/]", highlight=False)
    point = (scenario.__doc__ or "").partition("Point ")[2][:1]
    try:
        async with aclosing(scenario(world, report.figures)) as checks:
            async for check in checks:
                report.add(check)
    except (TofError, aiohttp.ClientError, OSError, TimeoutError, ValueError, KeyError) as error:
        name = f"{point} {scenario.__name__.replace('_', ' ')}: runs to its end"
        report.add(Check(name, ok=False, expected="no error", seen=f"{type(error).__name__}: {error}"))


async def play(report: Report, *, keep: bool) -> None:
    """Build the lab, start the TOF, run every scenario; ``keep``: stay up at the end, until interrupted."""
    began = clock()
    async with Lab() as lab:
        world = await build(lab)
        report.figures["lab_s"] = clock() - began
        started = clock()
        world.tof.configure()
        await world.tof.start()
        report.figures["agent_start_s"] = clock() - started
        for scenario in SCENARIOS:
            if scenario is not down or not keep:
                await tell(world, report, scenario)
        if not report.ok and world.tof.agent is not None:
            report.console.print(
                "\nThe agent's last words:", escape(world.tof.agent.output[-3000:]), highlight=False
            )
        if keep:
            report.console.print(escape(advice(world)), highlight=False)
            await lab.interruption()
    report.figures["total_s"] = clock() - began


def run(*, json_output: bool, keep: bool = False) -> int:
    """``tof demo``: exit status 0: every check holds; 1: not so; 2: cannot start; 130: interrupted."""
    report = Report(Console(file=sys.stderr if json_output else sys.stdout, soft_wrap=True))
    status = _run(report, keep=keep)
    if json_output:
        print(json.dumps(report.document(), indent=2))
    else:
        report.console.print(report.table())
    return status


def _run(report: Report, *, keep: bool) -> int:
    try:
        asyncio.run(play(report, keep=keep))
    except (asyncio.CancelledError, KeyboardInterrupt):
        report.add(Check("1 demo: runs to its end", ok=False, expected="not interrupted", seen="interrupted"))
        return INTERRUPTED
    except TofError as error:
        report.add(Check("1 demo: can start", ok=False, expected="no error", seen=str(error)))
        return error_status(error)
    return 0 if report.ok else 1


def error_status(error: TofError) -> int:
    """Exit status for an error that ends a lab command: 2 if the host is to blame."""
    return 2 if isinstance(error, SetupError) else 1
