"""The demo proves the main job, and leaves nothing behind, even when interrupted."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = [pytest.mark.netns, pytest.mark.usefixtures("nothing_left")]

LABS = Path("/run/tof-lab")
DEMO = [sys.executable, "-m", "tof", "demo", "--json"]


@pytest.mark.timeout(400)
def test_every_check_of_the_demo_holds() -> None:
    began = time.monotonic()
    done = subprocess.run(DEMO, stdout=subprocess.PIPE, text=True, check=False, timeout=380)
    document = json.loads(done.stdout)
    failed = [check for check in document["checks"] if not check["ok"]]
    assert failed == []
    assert document["ok"]
    assert done.returncode == 0
    assert time.monotonic() - began < 180
    assert document["figures"]["total_s"] > 0
    for point in "2345678":
        assert sum(check["name"].startswith(f"{point} ") for check in document["checks"]) >= 2


@pytest.mark.parametrize(
    ("number", "after_s"), [(signal.SIGINT, 0.2), (signal.SIGTERM, 5.0), (signal.SIGINT, 11.0)]
)
def test_an_interrupted_demo_leaves_nothing_behind(number: signal.Signals, after_s: float) -> None:
    """``after_s`` counts from the first trace that the lab leaves on the host."""
    labs = set(LABS.glob("*"))
    with subprocess.Popen(DEMO, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        deadline = time.monotonic() + 30
        while not set(LABS.glob("*")) - labs and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(after_s)
        process.send_signal(number)
        output, _ = process.communicate(timeout=30)
    document = json.loads(output)
    assert not document["ok"]
    assert process.returncode == 130
