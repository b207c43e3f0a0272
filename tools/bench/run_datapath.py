"""tools/bench/datapath: packets per second and nanoseconds per packet, against a bridge and a bare redirect.

Every round runs every case once, so that what slows the machine for a while slows all of them; a ratio is the median of
the rounds' ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from contextlib import ExitStack
from dataclasses import asdict

from tools.bench.cases import BARE, BRIDGE, FLOOR, PASS, Case, Stage
from tools.bench.machine import machine, machine_line, stolen_ticks
from tools.bench.programs import Bench, Run
from tools.bench.repeat import REPEAT_JOBS, Repeat
from tools.bench.report import Target, count_word, table
from tools.bench.scene import scene
from tools.bench.stats import nanoseconds, net_nanoseconds, paired_ratio, summary
from tools.bench.tunnels import DataPath, Heart

COUNTS = (1, 10_000, 100_000, 1_000_000)
QUICK_COUNTS = (1, 1000)
_BY_TUNNEL = 3
"""Packets per tunnel that go through a case once before anything is measured, so that its caches are as in use."""


def say(line: str) -> None:
    """Progress, for people."""
    print(line, file=sys.stderr, flush=True)


class Series:
    """All rounds of all cases."""

    def __init__(self, stage: Stage, cases: list[Case]) -> None:
        self._stage, self.cases = stage, cases
        self.rates: list[list[float]] = [[] for _ in cases]
        self.lost = 0

    def warm(self) -> None:
        """Every tunnel has been seen once."""
        for case in self.cases:
            self._stage.run(case, 10_000, 20_000 + _BY_TUNNEL * case.tunnels)

    def round(self, packets: int) -> None:
        """Every case once."""
        for case, rates in zip(self.cases, self.rates, strict=True):
            run: Run = self._stage.run(case, packets, max(packets // 8, min(2 * case.tunnels, packets // 2)))
            if run.arrived < run.sent * 0.5:
                raise SystemExit(f"{case.name}, {case.tunnels} tunnels: {run.arrived} of {run.sent} arrived")
            self.lost += run.sent - run.arrived
            rates.append(run.per_second)

    def rows(self) -> list[dict[str, object]]:
        """The measured table."""
        by_name = {case.name: rates for case, rates in zip(self.cases, self.rates, strict=True)}
        floor, bridge, bare = (by_name[name] for name in (FLOOR, BRIDGE, BARE))
        return [self._row(c, r, floor, bridge, bare) for c, r in zip(self.cases, self.rates, strict=True)]

    def _row(
        self, case: Case, rates: list[float], floor: list[float], bridge: list[float], bare: list[float]
    ) -> dict[str, object]:
        each = summary(rates)
        net = [net_nanoseconds(a, b) for a, b in zip(rates, floor, strict=True)]
        bridge_net = [net_nanoseconds(a, b) for a, b in zip(bridge, floor, strict=True)]
        is_floor = case.name == FLOOR
        return {
            "case": case.name,
            "tunnels": case.tunnels,
            "packets_per_second": round(each.median),
            "spread": round(each.spread, 3),
            "ns": round(nanoseconds(each.median), 1),
            "net_ns": 0.0 if is_floor else round(summary(net).median, 1),
            "rate_to_bridge": round(paired_ratio(rates, bridge), 3),
            "rate_to_bare": round(paired_ratio(rates, bare), 3),
            "cost_to_bridge": None if is_floor else round(paired_ratio(bridge_net, net), 3),
        }


def measure(rounds: int, packets: int, counts: tuple[int, ...], runs: int) -> dict[str, object]:
    """Everything, as the JSON document."""
    facts, began, stolen = machine(), time.monotonic(), stolen_ticks()
    with ExitStack() as stack:
        devices = stack.enter_context(scene())
        bench = Bench()
        stack.callback(bench.close)
        stage = Stage(devices, bench)
        stack.callback(stage.close)
        paths = []
        for count in counts:
            say(f"filling {count_word(count)} tunnels each way")
            paths.append(DataPath(devices, count))
            stack.callback(paths[-1].close)
        heart = Heart(paths)
        heart.start()
        stack.callback(heart.stop)
        series = Series(stage, [*stage.baselines(), *(c for path in paths for c in stage.cases(path))])
        say("warming up")
        series.warm()
        repeat = Repeat(devices)
        stack.callback(repeat.close)
        kernel: dict[str, list[float]] = {job: [] for job in REPEAT_JOBS}
        for at in range(rounds):
            say(f"round {at + 1} of {rounds}")
            series.round(packets)
            for job in REPEAT_JOBS:
                kernel[job].append(repeat.measure(job, runs))
    rows = series.rows()
    return {
        "machine": facts,
        "rounds": rounds,
        "packets_per_case_and_round": packets,
        "seconds": round(time.monotonic() - began, 1),
        "stolen_ticks": stolen_ticks() - stolen,
        "lost": series.lost,
        "cases": rows,
        "repeat_ns": {job: _spread(values) for job, values in kernel.items()},
        "targets": [target.as_json() for target in targets(rows)],
    }


def _spread(values: list[float]) -> dict[str, float]:
    return {**{k: round(v, 3) for k, v in asdict(summary(values)).items()}, "least": round(min(values), 1)}


def targets(rows: list[dict[str, object]]) -> list[Target]:
    """What is to be reached, by both readings of "times the bridge"."""
    found = []
    for row in rows:
        wanted = {1: 3.0, 100_000: 1.5}.get(int(str(row["tunnels"])))
        if row["case"] == PASS and wanted is not None:
            where = f"pass-through at {count_word(int(str(row['tunnels'])))}"
            found.append(
                Target(f"{where}, bridge's net ns over ours", wanted, float(str(row["cost_to_bridge"])))
            )
            found.append(
                Target(f"{where}, packets/s over the bridge's", wanted, float(str(row["rate_to_bridge"])))
            )
    return found


def text(document: dict[str, object]) -> str:
    """The document for people."""
    rows: list[dict[str, object]] = document["cases"]  # type: ignore[assignment]
    head = (
        "path",
        "tunnels",
        "Mpackets/s",
        "±",
        "ns",
        "net ns",
        "rate / bridge",
        "rate / bare",
        "cost: bridge / ours",
    )
    lines = [
        (
            str(row["case"]), count_word(int(str(row["tunnels"]))), f"{float(str(row['packets_per_second'])) / 1e6:.2f}",
            f"{float(str(row['spread'])):.0%}", f"{row['ns']:.0f}", f"{row['net_ns']:.0f}",
            f"{row['rate_to_bridge']:.2f}", f"{row['rate_to_bare']:.2f}",
            "" if row["cost_to_bridge"] is None else f"{row['cost_to_bridge']:.2f}",
        )
        for row in rows
    ]  # fmt: skip
    repeat: dict[str, dict[str, float]] = document["repeat_ns"]  # type: ignore[assignment]
    kernel = [(job, f"{each['median']:.0f}", f"{each['least']:.0f}") for job, each in repeat.items()]
    reached: list[dict[str, object]] = document["targets"]  # type: ignore[assignment]
    verdicts = (
        Target(str(t["name"]), float(str(t["wanted"])), float(str(t["seen"])), bool(t["at_most"]))
        for t in reached
    )
    return "\n".join(
        (
            f"Measured on {machine_line(document['machine'])}; "  # type: ignore[arg-type]
            f"{document['rounds']} rounds of {document['packets_per_case_and_round']} packets, medians; "
            f"{document['lost']} packets lost; {document['seconds']} s.",
            "",
            table(head, lines),
            "",
            "One frame in cache, repeated in the kernel, no devices (ns per packet):",
            "",
            table(("path", "median", "least"), kernel),
            "",
            *map(str, verdicts),
        )
    )


def _counts(words: str) -> tuple[int, ...]:
    return tuple(int(word) for word in words.split(","))


def main() -> int:
    """Measure and print; 0 whether or not targets are met."""
    parser = argparse.ArgumentParser(prog="tools/bench/datapath", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the document only")
    parser.add_argument(
        "--quick", action="store_true", help="a tiny run that proves the bench, not the data path"
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--packets", type=int, default=600_000, help="per case and round")
    parser.add_argument(
        "--tunnels", type=_counts, default=COUNTS, help="comma-separated; 1,10000,100000,1000000"
    )
    options = parser.parse_args()
    if os.geteuid():
        say("the bench needs root: it makes a network namespace and loads BPF programs")
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    if options.quick:
        document = measure(2, 20_000, QUICK_COUNTS, 40_000)
    else:
        document = measure(options.rounds, options.packets, options.tunnels, 200_000)
    print(json.dumps(document, indent=2) if options.json else text(document))
    return 0


if __name__ == "__main__":
    sys.exit(main())
