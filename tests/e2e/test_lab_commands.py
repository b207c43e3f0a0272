"""``tof lab play`` and ``tof lab run`` as an operator calls them; nothing of them remains."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

import pytest

pytestmark = [pytest.mark.netns, pytest.mark.usefixtures("nothing_left")]

LAB = [sys.executable, "-m", "tof", "lab"]


def test_scenarios_through_a_tof_of_ones_own() -> None:
    argv = [*LAB, "play", "attach", "x2-handover", "ipv6", "--json", "--seed", "5"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)
    document = json.loads(done.stdout)
    bad = [
        (each["name"], check) for each in document["scenarios"] for check in each["checks"] if not check["ok"]
    ]
    assert bad == []
    assert done.returncode == 0
    assert document["seed"] == 5
    assert [each["name"] for each in document["scenarios"]] == ["attach", "x2-handover", "ipv6"]
    handover = document["scenarios"][1]
    assert handover["figures"]["injected"] > 10
    assert "service_longest_gap_ms" in handover["figures"]
    assert {check["name"].partition(":")[0] for check in handover["checks"]} >= {
        "transparent",
        "nothing extra",
        "separate",
        "answered",
        "diverted",
        "fitting",
        "withheld",
        "learnt",
    }
    assert "x2-handover ok" in done.stderr


@pytest.mark.parametrize("after_s", [0.5, 6.0])
def test_an_interrupted_play_leaves_nothing_behind(after_s: float) -> None:
    argv = [*LAB, "play", "--all", "--json"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        time.sleep(after_s)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
    assert process.returncode == 130


def test_a_standing_lab_says_where_it_is() -> None:
    argv = [*LAB, "run", "--ues", "1", "--json"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        text = ""
        while not text.endswith("\n}\n") and (line := process.stdout.readline()):
            text += line
        standing = json.loads(text)
        ping = ["ip", "netns", "exec", standing["namespaces"]["ue1"], "ping", "-c", "1", "8.8.8.8"]
        pinged = subprocess.run(ping, capture_output=True, check=False, timeout=30)
        asked = subprocess.run(
            [sys.executable, "-m", "tof", "tunnels", "--api", standing["api"], "--json"],
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=30)
    assert pinged.returncode == 0
    assert {tunnel["direction"] for tunnel in json.loads(asked.stdout)} == {"uplink", "downlink"}
    assert standing["ues"][0]["role"] == "ue1"
    assert rest == "", "stdout is the document alone"
