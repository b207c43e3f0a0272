"""Runs the coverage-guided targets one after the other, each in a process of its own, from a fresh seed corpus."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from hashlib import sha256
from pathlib import Path
from typing import TypedDict

from tools.fuzz.seeds import ROOT, seeds
from tools.fuzz.wire_targets import TARGETS

NAMES = (*TARGETS, "pieces", "vim", "agent")
_COVERED = re.compile(r"cov: (\d+) ft: (\d+) corp: (\d+)")


class Report(TypedDict):
    """What a run of one target came to; ``failure`` is the trace with the input that failed."""

    target: str
    runs: int
    seconds: float
    covered: int
    corpus: int
    failure: str


RSS_LIMIT = "-rss_limit_mb=8192"
"""A process is accounted the peak of the one that started it (getrusage), and a test run may have had a large one."""


def run(
    target: str, *, seed: int = 1, runs: int = -1, seconds: int = 0, corpus: Path | None = None
) -> Report:
    """Fuzz one target for so many runs or seconds, whatever ends first; a given corpus is kept and grows."""
    with tempfile.TemporaryDirectory(prefix="tof-fuzz-") as place:
        kept = corpus / target if corpus is not None else Path(place, "corpus")
        kept.mkdir(parents=True, exist_ok=True)
        for one in seeds(target):
            (kept / sha256(one).hexdigest()[:24]).write_bytes(one)
        argv = [
            sys.executable, "-m", "tools.fuzz.cover", target, f"-seed={seed}", f"-runs={runs}", "-max_len=700",
            f"-max_total_time={seconds}", "-timeout=60", RSS_LIMIT, "-print_final_stats=1",
            f"-artifact_prefix={place}/", str(kept),
        ]  # fmt: skip
        done = subprocess.run(
            argv, cwd=ROOT, env={**os.environ, "PYTHONHASHSEED": "0"}, capture_output=True, text=True, errors="replace",
            check=False,
        )  # fmt: skip
        return _report(target, done.returncode, done.stdout + done.stderr)


def _report(target: str, code: int, text: str) -> Report:
    stats = dict(re.findall(r"stat::(\w+):\s+(\d+)", text))
    covered, _, corpus = (_COVERED.findall(text) or [(0, 0, 0)])[-1]
    ended = re.search(r"Done \d+ runs in (\d+) second", text)
    failure = ""
    if code:
        trace = re.search(r"=== Uncaught.*?(?=\nINFO: |\n==\d+==|\Z)", text, re.DOTALL)
        given = re.search(r"Base64: \S*", text)
        said = trace[0] if trace else text[-2000:]
        failure = "\n".join((said, *([given[0]] if given else [])))
    return Report(
        target=target, runs=int(stats.get("number_of_executed_units", 0)),
        seconds=float(ended[1]) if ended else 0.0, covered=int(covered), corpus=int(corpus), failure=failure,
    )  # fmt: skip
