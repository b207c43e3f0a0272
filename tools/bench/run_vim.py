"""tools/bench/vim: `tof vim bench` in a lab, against the same process in a bare network namespace without a TOF.

The bare one is made by `ip` as an operator would: a namespace, a wire, addresses, the process, until it answers an echo.
Rounds of it stand before and after the TOF's, so that what slows a run slows both.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import secrets
import statistics
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tof.api.client import connect
from tof.drivers.commands import command
from tof.errors import BackendError, TofError
from tof.lab.namespaces import Lab
from tof.lab.node import TofNode
from tof.vim.bench import report
from tof.vim.bench.plan import Plan
from tof.vim.bench.running import Bench, Work
from tof.vim.bench.samples import Results
from tools.bench.machine import machine, machine_line
from tools.bench.report import Target, table

FULL = (20, 10, (10, 50, 100, 200, 300), (5, 10))
QUICK = (3, 3, (2,), (2,))
APP = ("/bin/sleep", "infinity")
_VIM = """
[vim.local]
backend = "local"
pool = ["10.80.8.0/22"]
max_apps = 1000
"""


def say(line: str) -> None:
    """Progress, for people."""
    print(line, file=sys.stderr, flush=True)


@asynccontextmanager
async def vim_scene() -> AsyncIterator[TofNode]:
    """A running agent with addresses for a thousand apps; nothing of it remains."""
    async with Lab() as lab:
        for role in ("ran", "core", "edge", "tof"):
            await lab.namespace(role, "net.ipv6.conf.default.accept_dad=0")
        for role, inner, outer in (("ran", "s1", "enb0"), ("core", "s1", "sgw0"), ("edge", "eth0", "apps0")):
            await lab.veth(role, inner, "tof", outer)
        tof = TofNode(lab, "tof")
        tof.configure()
        text = tof.config.read_text().replace("192.168.50.1/24", "10.80.0.1/20")
        tof.config.write_text(text + _VIM)
        await tof.start()
        try:
            yield tof
        finally:
            await tof.stop()
            await tof.tof("down")


async def bare(rounds: int) -> list[float]:
    """Seconds that the same process takes until it answers in a namespace of its own, each time."""
    return [await _bare() for _ in range(rounds)]


async def _bare() -> float:
    name = f"tof-bench-{secrets.token_hex(3)}"
    outer = f"v{name[-6:]}"
    process = None
    began = time.monotonic()
    try:
        await command("ip", "netns", "add", name)
        await command("ip", "link", "add", outer, "type", "veth", "peer", "name", "eth0", "netns", name)
        await command("ip", "address", "add", "198.19.255.1/30", "dev", outer)
        await command("ip", "link", "set", outer, "up")
        inside = "address add 198.19.255.2/30 dev eth0\nlink set eth0 up\n"
        await command("ip", "-n", name, "-batch", "-", feed=inside)
        process = await asyncio.create_subprocess_exec("ip", "netns", "exec", name, *APP)
        await command("ping", "-q", "-c", "1", "-W", "2", "198.19.255.2")
        return time.monotonic() - began
    finally:
        if process is not None:
            process.kill()
            await process.wait()
        for words in (("netns", "del", name), ("link", "del", outer)):
            with contextlib.suppress(BackendError):  # the link may have gone with the namespace
                await command("ip", *words)


async def measure(rounds: int, plan: Plan) -> dict[str, Any]:
    """Everything, as the JSON document."""
    facts, began = machine(), time.monotonic()
    floor = await bare(rounds)
    async with vim_scene() as tof, connect((f"unix:{tof.socket}",)) as client:
        bench = Bench(client, Work(plan, {"vim": "local", "command": list(APP)}), _told)
        results = await bench.run()
        assert tof.agent is not None
        status = Path(f"/proc/{tof.agent.pid}/status").read_text()
    floor += await bare(rounds)
    if results.error:
        raise BackendError(f"{results.error}; left: {', '.join(results.left) or 'nothing'}")
    base = statistics.median(floor)
    rows = [_row(one, base) for one in results.measured()]
    return {
        "machine": facts,
        "seconds": round(time.monotonic() - began, 1),
        "bare_ms": round(base * 1000, 1),
        "agent_peak_mb": int(status.split("VmHWM:")[1].split()[0]) // 1024,
        "rows": rows,
        "targets": [target.as_json() for target in _targets(results)],
        "bench": report.document(results),
    }


def _told(what: str, _instances: int) -> None:
    if what:
        say(what)


def _row(one: Any, base: float) -> dict[str, Any]:
    parts = one.parts()
    walls = statistics.median(one.walls)
    return {
        "background": one.point.background,
        "batch": one.point.batch,
        "runs": len(one.walls),
        "median_ms": round(walls * 1000, 1),
        "ratio": round(walls / base, 2),
        "tof_ms": round(one.tof_median_s * 1000, 1),
        "tof_ratio": round(one.tof_median_s / base, 2),
        "port_ms": round(parts["TOF: port"].mean * 1000, 1),
    }


def _targets(results: Results) -> list[Target]:
    singles = [one for one in results.measured() if one.point.batch == 1]
    first, last = singles[0], singles[-1]
    growth = statistics.median(last.walls) / statistics.median(first.walls)
    return [
        Target("TOF's own share, ms", report.GOAL_S * 1000, first.tof_median_s * 1000, at_most=True),
        Target(
            f"one more on {last.point.background} against one alone (source: 1.74)",
            1.74,
            growth,
            at_most=True,
        ),
    ]


def text(document: dict[str, Any]) -> str:
    """The document for people."""
    head = ("running", "at once", "runs", "median ms", "x bare", "TOF's own ms", "x bare", "of it port")
    keys = ("background", "batch", "runs", "median_ms", "ratio", "tof_ms", "tof_ratio", "port_ms")
    rows = [[str(row[key]) for key in keys] for row in document["rows"]]
    measured = f"Measured on {machine_line(document['machine'])}; {document['seconds']} s."
    bare_line = (
        f"In a bare namespace: {document['bare_ms']} ms. Agent: {document['agent_peak_mb']} MB at most."
    )
    reached = [Target(t["name"], t["wanted"], t["seen"], t["at_most"]) for t in document["targets"]]
    return "\n".join((measured, bare_line, "", table(head, rows), "", *map(str, reached)))


def main() -> int:
    """Measure and print; 0 whether or not targets are met."""
    parser = argparse.ArgumentParser(prog="tools/bench/vim", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the document only")
    parser.add_argument("--quick", action="store_true", help="a tiny run that proves the bench, not the TOF")
    options = parser.parse_args()
    if os.geteuid():
        say("the bench needs root: it makes network namespaces and runs an agent")
        return 2
    rounds, runs, loads, batches = QUICK if options.quick else FULL
    try:
        document = asyncio.run(measure(rounds, Plan(runs, loads, batches)))
    except TofError as error:
        say(str(error))
        return 1
    print(json.dumps(document, indent=2) if options.json else text(document))
    return 0


if __name__ == "__main__":
    sys.exit(main())
