"""`tof vim bench` on a real agent with the ``local`` VIM: it measures, and nothing of its own is left, whatever happens."""

from __future__ import annotations

import csv
import io
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gtp_peers import Setting, Tof, running_tof, until
from vim_host import marked

pytestmark = pytest.mark.netns

TINY = ("--runs", "3", "--background", "2,4", "--batch", "2")
OTHER: dict[str, Any] = {"name": "other", "command": ["/bin/sleep", "infinity"]}
POOL = """\
[vim.local]
backend = "local"
max_apps = 10
"""


@pytest.fixture(scope="module")
def tof() -> Iterator[Tof]:
    with running_tof(Setting(more=POOL)) as running:
        assert running.call("POST", "/apps?wait=20", OTHER)[0] == 201
        yield running
        running.call("DELETE", "/apps/other?wait=20")


@pytest.fixture(autouse=True)
def _nothing_of_it_is_left(tof: Tof) -> Iterator[None]:
    yield
    assert [app["name"] for app in tof.get("/apps")] == ["other"], "others are not touched"
    assert tof.get("/apps/other")["state"] == "ready"
    assert tof.get("/service") == []
    files = sorted(path.name for path in (tof.dir / "run" / "vim").glob("*/*"))
    assert [name for name in files if not name.startswith("other.")] == []
    assert [text for text in marked(tof.dir / "run" / "vim") if "tofbench" in text] == []
    links = tof.netns["tof"].run("ip", "-br", "link").splitlines()
    assert len([line for line in links if line.startswith("tofv")]) == 1


def started(tof: Tof, *words: str) -> subprocess.Popen[str]:
    argv = [sys.executable, "-m", "tof", "--api", f"unix:{tof.dir}/api.sock", "vim", "bench", *words]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(bench: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = bench.communicate(timeout=120)
    return bench.returncode, out, err


def test_the_three_experiments(tof: Tof, tmp_path: Path) -> None:
    table, picture = tmp_path / "bench.csv", tmp_path / "bench.svg"
    status, out, err = ended(started(tof, *TINY, "--json", "--csv", str(table), "--plot", str(picture)))
    assert status == 0, err
    found = json.loads(out)
    assert found["complete"]
    assert [(one["background"], one["batch"], one["runs"]) for one in found["experiments"]] == [
        (0, 1, 3), (0, 2, 3), (2, 1, 3), (4, 1, 3),
    ]  # fmt: skip
    for one in found["experiments"]:
        assert one["total"]["ci95_s"] is not None
        assert {"namespace", "network", "start", "app", "TOF: port", "TOF: rest"} <= set(one["parts"])
        assert 0 < one["tof"]["median_s"] < max(each["total_s"] for each in one["instantiations"])
    assert len(list(csv.DictReader(io.StringIO(table.read_text())))) == 3 + 6 + 3 + 3
    assert "source, 300 VMs" in picture.read_text()


def test_the_tables(tof: Tof) -> None:
    status, out, err = ended(started(tof, "--runs", "2"))
    assert status == 0, err
    assert "one more, 0 running" in out
    assert "TOF's own share: median" in out
    assert "2/2" in err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted(tof: Tof, number: signal.Signals) -> None:
    bench = started(tof, "--runs", "1000", "--background", "3")
    until("it is at work", lambda: any(app["name"].startswith("tofbench-") for app in tof.get("/apps")), 20)
    bench.send_signal(number)
    status, _, err = ended(bench)
    assert status == 1
    assert "interrupted; what was made is removed" in err


def test_an_app_that_fails(tof: Tof) -> None:
    status, _, err = ended(started(tof, "--runs", "2", "--", "/bin/sh", "-c", "echo giving up; exit 3"))
    assert status == 1
    assert "giving up" in " ".join(err.split())
    assert "what was made is removed" in " ".join(err.split())
    assert "Traceback" not in err


def test_too_many_are_refused_before_any_is_made(tof: Tof) -> None:
    made = tof.metrics().get("tof_app_restarts_total")
    status, _, err = ended(started(tof, "--runs", "1", "--background", "10"))
    assert status == 1
    assert "11 instances are too many for the VIM local: it takes 10 and has 1" in " ".join(err.split())
    assert tof.metrics().get("tof_app_restarts_total") == made


def test_a_vim_that_is_not_there(tof: Tof) -> None:
    status, _, err = ended(started(tof, "--vim", "elsewhere", "--runs", "1"))
    assert status == 1
    assert "there is no VIM called elsewhere" in " ".join(err.split())
