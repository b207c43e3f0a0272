"""A bounded run of every coverage-guided target: so many inputs, always from the same seed."""

from __future__ import annotations

import pytest

from tools.fuzz.run_cover import NAMES, run

pytest.importorskip("atheris", reason="atheris has no wheel for this machine")

RUNS = {"agent": 3000, "inet": 20000, "gtpu_packet": 15000, "vim": 10000}


@pytest.mark.parametrize("target", NAMES)
def test_no_input_breaks_an_invariant(target):
    report = run(target, runs=RUNS.get(target, 40000))
    assert not report["failure"], report["failure"]
    assert report["runs"] >= RUNS.get(target, 40000)
    assert report["covered"] > 50
