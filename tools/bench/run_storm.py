"""tools/bench/storm: new tunnels as fast as a sender can, against a paced run: lost, learnt, and how long it took.

Every tunnel sends one packet. Whatever the queue cannot take is learnt from events beside it; nothing may be lost.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from dataclasses import asdict

from tof.errors import TofError
from tools.bench.learner import Scene, Step, learning_scene
from tools.bench.machine import machine, machine_line
from tools.bench.report import Target, table

PACED_RATE, STORMS = 5000, (20_000, 20_000, 20_000, 200_000)
WITHIN_S = 120.0
COUNTERS = ("queued", "crowded", "crowded_lost")


def say(line: str) -> None:
    """Progress, for people."""
    print(line, file=sys.stderr, flush=True)


async def measure(paced: int, storms: tuple[int, ...]) -> dict[str, object]:
    """Everything, as the JSON document."""
    facts, began = machine(), time.monotonic()
    async with learning_scene() as scene:
        rows = []
        for rate, count in ((PACED_RATE, paced), *((0, count) for count in storms)):
            rows.append(await _row(scene, rate, count))
            say(str(rows[-1]))
    unpaced = rows[1:]
    return {
        "machine": facts,
        "seconds": round(time.monotonic() - began, 1),
        "runs": rows,
        "targets": [
            Target("packets lost", 0, sum(int(row["lost"]) for row in unpaced), True).as_json(),
            Target("tunnels not learnt", 0, sum(int(row["unlearnt"]) for row in unpaced), True).as_json(),
        ],
    }


async def _row(scene: Scene, rate: int, count: int) -> dict[str, float]:
    before = await scene.counters(COUNTERS)
    step: Step = await scene.step(rate, count, within_s=WITHIN_S)
    after = await scene.counters(COUNTERS)
    return {
        **asdict(step),
        "lost": count - step.arrived,
        "unlearnt": count - step.learnt,
        "learnt_per_second": round(step.learnt / step.settled_s),
        **{name: after[name] - before[name] for name in after},
        "agent_bytes": (await scene.memory()).agent,
    }


def text(document: dict[str, object]) -> str:
    """The document for people."""
    runs: list[dict[str, float]] = document["runs"]  # type: ignore[assignment]
    reached: list[dict[str, object]] = document["targets"]  # type: ignore[assignment]
    rows = [
        (
            f"{run['rate']:.0f}" if run["rate"] else "unpaced", f"{run['sent']:.0f}",
            f"{run['sent'] / run['seconds']:.0f}", f"{run['lost']:.0f}", f"{run['unlearnt']:.0f}",
            f"{run['settled_s']:.1f}", f"{run['learnt_per_second']:.0f}", f"{run['queued']:.0f}",
            f"{run['crowded']:.0f}", f"{run['agent_bytes'] / 1e6:.0f}",
        )
        for run in runs
    ]  # fmt: skip
    head = (
        "new tunnels/s", "tunnels", "sent/s", "lost", "not learnt", "s until all learnt", "learnt/s", "queued",
        "beside the queue", "agent MB",
    )  # fmt: skip
    verdicts = (
        Target(str(t["name"]), float(str(t["wanted"])), float(str(t["seen"])), bool(t["at_most"]))
        for t in reached
    )
    measured = f"Measured on {machine_line(document['machine'])}; {document['seconds']} s."  # type: ignore[arg-type]
    return "\n".join((measured, "", table(head, rows), "", *map(str, verdicts)))


def main() -> int:
    """Measure and print; 0 whether or not targets are met."""
    parser = argparse.ArgumentParser(prog="tools/bench/storm", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the document only")
    parser.add_argument("--quick", action="store_true", help="a tiny run that proves the bench, not the TOF")
    options = parser.parse_args()
    if os.geteuid():
        say("the bench needs root: it makes network namespaces and runs an agent")
        return 2
    try:
        document = asyncio.run(measure(500, (3000,)) if options.quick else measure(20_000, STORMS))
    except TofError as error:
        say(str(error))
        return 1
    print(json.dumps(document, indent=2) if options.json else text(document))
    return 0


if __name__ == "__main__":
    sys.exit(main())
