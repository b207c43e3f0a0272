"""The benches run to their end and print what they promise; how fast, is not this test's question."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.netns, pytest.mark.heavy]


def _bench(name: str) -> dict[str, Any]:
    argv = [sys.executable, "-m", f"tools.bench.run_{name}", "--quick", "--json"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=ROOT, timeout=240)
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    assert document["machine"]["cores"]
    return document


def _namespaces() -> set[str]:
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    return {line.split()[0] for line in listed.splitlines() if line.startswith("tof-bench-")}


def test_datapath() -> None:
    before = _namespaces()
    document = _bench("datapath")
    names = {(case["case"], case["tunnels"]) for case in document["cases"]}
    assert {
        ("Linux bridge", 1),
        ("bare XDP redirect", 1),
        ("pass-through", 1000),
        ("encapsulate", 1),
    } <= names
    assert all(case["packets_per_second"] > 0 for case in document["cases"])
    assert all(each["least"] > 0 for each in document["repeat_ns"].values())
    assert {target["wanted"] for target in document["targets"]} == {3.0}
    assert _namespaces() <= before


def test_storm() -> None:
    document = _bench("storm")
    assert [run["sent"] for run in document["runs"]] == [500, 3000]
    assert all(target["met"] for target in document["targets"])


def test_learning() -> None:
    document = _bench("learning")
    assert document["listed"] == 500
    assert [step["sent"] for step in document["fill"]] == [250, 250]
    assert all(step["arrived"] == step["sent"] for step in (*document["fill"], *document["steps"]))
    assert document["memory"]["kernel_bytes_per_tunnel"] > 0


def test_failover() -> None:
    document = _bench("failover")
    assert len(document["cases"]) == 5
    assert all(min(case["away_s"]) > 0 < min(case["back_s"]) for case in document["cases"])


def test_chains() -> None:
    document = _bench("chains")
    assert {(case["services"], case["vnfs"]) for case in document["cases"]} >= {(1, 0), (10_000, 0), (1, 8)}
    assert all(case["ratio"] > 0 for case in document["cases"])


def test_isolation() -> None:
    document = _bench("isolation")
    assert {(case["case"], case["bytes"]) for case in document["cases"]} >= {
        ("behind the apps adapter", 50), ("a port of its own", 1300),
    }  # fmt: skip
    assert all(case["ratio_us"] > 0 for case in document["cases"])


def test_vim() -> None:
    before = _namespaces()
    document = _bench("vim")
    assert [(row["background"], row["batch"], row["runs"]) for row in document["rows"]] == [
        (0, 1, 3), (0, 2, 3), (2, 1, 3),
    ]  # fmt: skip
    assert document["bare_ms"] > 0
    assert document["bench"]["complete"]
    assert document["bench"]["left"] == []
    assert _namespaces() <= before
