"""tools/bench/learning: how many new tunnels per second are learnt without a lost packet, and what a tunnel takes.

A rate counts as carried when most of its tries lost nothing: every packet arrived at the SGW's side, once the agent had
seen it, and every tunnel is in the data path.
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
from tools.bench.learner import Memory, Scene, Step, learning_scene
from tools.bench.machine import machine, machine_line
from tools.bench.report import Target, table
from tools.bench.stats import highest_without_loss

RATES = (2000, 5000, 7500, 10_000, 12_500, 15_000, 20_000)
FILL_RATE, FILL = 5000, 100_000
TRIES, STEP_S = 3, 2.0
WANTED_RATE, WANTED_MB = 5000, 200


def say(line: str) -> None:
    """Progress, for people."""
    print(line, file=sys.stderr, flush=True)


async def measure(fill: int, rates: tuple[int, ...], tries: int, step_s: float) -> dict[str, object]:
    """Everything, as the JSON document."""
    facts, began = machine(), time.monotonic()
    async with learning_scene() as scene:
        empty = await scene.memory()
        say(f"learning {fill} tunnels at {FILL_RATE}/s, uplinks and their downlinks")
        filling = await scene.fill(FILL_RATE, fill // 2)
        full = await scene.memory()
        listed = len(await scene.tof.tunnels())
        # what asking for the whole list leaves behind is the agent's as well
        after_listing = await scene.memory()
        steps = [step for rate in rates for step in await _tries(scene, rate, tries, step_s)]
        unanswered = await scene.memory()
    best = highest_without_loss(
        [
            (rate, [s.clean for s in steps if s.rate == rate])
            for rate in rates
            if any(s.rate == rate for s in steps)
        ]
    )
    return {
        "machine": facts,
        "seconds": round(time.monotonic() - began, 1),
        "fill": [_row(step) for step in filling],
        "listed": listed,
        "memory": _memory(empty, full, after_listing, unanswered),
        "steps": [_row(step) for step in steps],
        "tunnels_per_second": best,
        "targets": [
            target.as_json()
            for target in (
                Target("new tunnels/s without loss", WANTED_RATE, best),
                Target(f"agent's resident MB with {full.tunnels} tunnels", WANTED_MB, full.agent / 1e6, True),
            )
        ],
    }


async def _tries(scene: Scene, rate: int, tries: int, step_s: float) -> list[Step]:
    steps = []
    for _ in range(tries):
        steps.append(await scene.step(rate, int(rate * step_s)))
        say(f"{rate}/s: {steps[-1]}")
    return steps


def _row(step: Step) -> dict[str, object]:
    return {**asdict(step), "seconds": round(step.seconds, 3), "clean": step.clean}


def _memory(empty: Memory, full: Memory, after_listing: Memory, unanswered: Memory) -> dict[str, object]:
    tunnels = max(1, full.tunnels - empty.tunnels)
    return {
        "empty": asdict(empty),
        "full": asdict(full),
        "after_listing": asdict(after_listing),
        "with_unanswered": asdict(unanswered),
        "kernel_bytes_per_tunnel": round((full.maps - empty.maps) / tunnels),
        "agent_bytes_per_tunnel": round((full.agent - empty.agent) / tunnels),
        "agent_bytes_per_unanswered_uplink": round(
            (unanswered.agent - after_listing.agent) / max(1, unanswered.tunnels - after_listing.tunnels)
        ),
    }


def text(document: dict[str, object]) -> str:
    """The document for people."""
    steps: list[dict[str, object]] = document["steps"]  # type: ignore[assignment]
    memory: dict[str, object] = document["memory"]  # type: ignore[assignment]
    reached: list[dict[str, object]] = document["targets"]  # type: ignore[assignment]
    rows = [
        (
            f"{step['rate']}", f"{float(str(step['sent'])) / float(str(step['seconds'])):.0f}", f"{step['sent']}",
            f"{step['arrived']}", f"{step['learnt']}", "yes" if step["clean"] else "no",
        )
        for step in (*document["fill"], *steps)  # type: ignore[misc]
    ]  # fmt: skip
    verdicts = (
        Target(str(t["name"]), float(str(t["wanted"])), float(str(t["seen"])), bool(t["at_most"]))
        for t in reached
    )
    stages = {
        "empty": "empty",
        "full": "uplinks and their downlinks",
        "after_listing": "the same, after GET /tunnels",
        "with_unanswered": "and uplinks that nobody answers",
    }
    return "\n".join(
        (
            f"Measured on {machine_line(document['machine'])}; {document['seconds']} s.",  # type: ignore[arg-type]
            "",
            table(("new tunnels/s wanted", "sent/s", "sent", "arrived", "learnt", "clean"), rows),
            "",
            f"Per tunnel: {memory['kernel_bytes_per_tunnel']} bytes of maps, "
            f"{memory['agent_bytes_per_tunnel']} bytes in the agent "
            f"({memory['agent_bytes_per_unanswered_uplink']} for an uplink that nobody answers).",
            "",
            table(
                ("held", "tunnels", "agent MB", "maps MB"),
                [(title, *_megabytes(memory[name])) for name, title in stages.items()],  # type: ignore[arg-type]
            ),
            f"GET /tunnels listed {document['listed']}.",
            "",
            *map(str, verdicts),
        )
    )


def _megabytes(memory: dict[str, int]) -> tuple[str, str, str]:
    return f"{memory['tunnels']}", f"{memory['agent'] / 1e6:.1f}", f"{memory['maps'] / 1e6:.1f}"


def main() -> int:
    """Measure and print; 0 whether or not targets are met."""
    parser = argparse.ArgumentParser(prog="tools/bench/learning", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the document only")
    parser.add_argument(
        "--quick", action="store_true", help="a tiny run that proves the bench, not the agent"
    )
    options = parser.parse_args()
    if os.geteuid():
        say("the bench needs root: it makes network namespaces and runs an agent")
        return 2
    try:
        if options.quick:
            document = asyncio.run(measure(500, (500,), 1, 0.5))
        else:
            document = asyncio.run(measure(FILL, RATES, TRIES, STEP_S))
    except TofError as error:
        say(str(error))
        return 1
    print(json.dumps(document, indent=2) if options.json else text(document))
    return 0


if __name__ == "__main__":
    sys.exit(main())
