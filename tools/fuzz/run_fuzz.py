"""tools/fuzz/run: coverage-guided fuzzing of the Python side, then differential fuzzing of the kernel side."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from tools.fuzz.run_cover import NAMES, Report, run
from tools.fuzz.run_differ import Comparison, compare, work


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tools/fuzz/run", description=__doc__)
    parser.add_argument(
        "--seconds", type=int, default=120, help="for the coverage-guided targets in all; 0: none"
    )
    parser.add_argument(
        "--packets", type=int, default=1_000_000, help="through the programs in the kernel; 0: none"
    )
    parser.add_argument("--target", action="append", choices=NAMES, help="only this one; may be repeated")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--batch", type=int, help="run only this batch of packets, to see a disagreement again"
    )
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--corpus", type=Path, help="keep the corpora in this directory, and go on with them")
    parser.add_argument("--json", action="store_true", help="standard output is one JSON document")
    return parser.parse_args()


def cover(given: argparse.Namespace) -> list[Report]:
    """Every target, half of the time for the agent, which has most states."""
    names = given.target or NAMES
    shares = {name: len(NAMES) - 1 if name == "agent" else 1 for name in names}
    reports = []
    for name in names if given.seconds else ():
        seconds = max(1, given.seconds * shares[name] // sum(shares.values()))
        one = run(name, seed=given.seed, seconds=seconds, corpus=given.corpus)
        state = f"FAILED\n{one['failure']}" if one["failure"] else "ok"
        say(f"{name:14} {one['runs']:>9} inputs, {one['covered']:>4} edges, {state}")
        reports.append(one)
    return reports


def differ(given: argparse.Namespace) -> Comparison:
    """The packets asked for, or one batch."""
    found = compare(given.packets, seed=given.seed, processes=given.processes)
    for one in found["disagreements"]:
        say(one)
    say(
        f"{found['packets']} packets through the programs, {found['packets_per_second']} a second, "
        f"{len(found['disagreements'])} disagreements"
    )
    return found


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    given = options()
    if given.batch is not None:
        again = work(given.seed, [given.batch])
        say("\n".join(map(str, (*again.disagreements, again))))
        return 1 if again.disagreements else 0
    reports = cover(given)
    compared = differ(given) if given.packets else None
    ok = not any(report["failure"] for report in reports) and not (compared and compared["disagreements"])
    if given.json:
        print(json.dumps({"ok": ok, "coverage_guided": reports, "differential": compared}, indent=1))
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
