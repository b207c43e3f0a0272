"""tools/fuzz/run: the coverage-guided targets for so many seconds in all."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from tools.fuzz.run_cover import NAMES, Report, run


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tools/fuzz/run", description=__doc__)
    parser.add_argument("--seconds", type=int, default=120, help="for the coverage-guided targets in all")
    parser.add_argument("--target", action="append", choices=NAMES, help="only this one; may be repeated")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--corpus", type=Path, help="keep the corpora in this directory, and go on with them")
    parser.add_argument("--json", action="store_true", help="standard output is one JSON document")
    return parser.parse_args()


def cover(given: argparse.Namespace) -> list[Report]:
    """Every target, half of the time for the agent, which has most states."""
    names = given.target or NAMES
    shares = {name: len(NAMES) - 1 if name == "agent" else 1 for name in names}
    reports = []
    for name in names:
        seconds = max(1, given.seconds * shares[name] // sum(shares.values()))
        one = run(name, seed=given.seed, seconds=seconds, corpus=given.corpus)
        print(f"{name:14} {one['runs']:>9} inputs, {one['covered']:>4} edges, {'FAILED' if one['failure'] else 'ok'}"
              + f"\n{one['failure']}" * bool(one["failure"]), file=sys.stderr)  # fmt: skip
        reports.append(one)
    return reports


def main() -> int:
    given = options()
    reports = cover(given)
    ok = not any(report["failure"] for report in reports)
    if given.json:
        print(json.dumps({"ok": ok, "coverage_guided": reports}, indent=1))
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
