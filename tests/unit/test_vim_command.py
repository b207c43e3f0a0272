"""`tof vim analyze` on the command line; statistics, anchors and pictures."""

from __future__ import annotations

import json
import random
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.nova_talk import Cloud
from tests.vim_wire import RECORDED, Wire
from tof.cli import main
from tof.errors import SetupError
from tof.vim import anchors, chart
from tof.vim.chart import Bar
from tof.vim.statistics import Estimate, estimate, student_t

NOMAD = RECORDED / "vim_nomad_0.8.7_five_jobs.pcap.gz"
NOVA = RECORDED / "vim_nova_zed_create.pcap.gz"
TRANSCRIPT = RECORDED / "vim_openvim_transcript.txt"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Exit status, stdout and stderr of ``tof vim analyze``."""

    def command(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["tof", "vim", "analyze", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return command


def captured(tmp_path: Path, cloud: Cloud) -> Path:
    path = tmp_path / "cloud.pcap"
    path.write_bytes(cloud.wire.pcap())
    return path


def test_the_tables(run: Run) -> None:
    status, out, err = run(NOMAD)
    assert (status, err) == (0, "")
    assert [line.split() for line in out.splitlines()[:2]] == [
        ["instantiation", "name", "outcome", "scheduling", "driver", "total", "ms", "fault"],
        ["example1", "example1", "active", "8.9", "180.0", "189.0", "-"],
    ]
    assert "total       150.3    26.9    5     from the request to the end" in out


def test_the_document(run: Run) -> None:
    status, out, _ = run(NOVA, "--json")
    found = json.loads(out)
    assert (status, found["vim"], found["capture"], found["packets"]) == (0, "nova", str(NOVA), 739)
    assert found["total"] == {"mean_s": pytest.approx(4.632595), "ci95_s": None, "runs": 1}
    (one,) = found["instantiations"]
    assert (one["outcome"], one["requested"], one["missing"]) == ("active", "2026-11-21T00:23:41.772106Z", [])
    assert sum(phase["seconds"] for phase in one["phases"]) == pytest.approx(one["total_s"])
    assert found["phases"][0] == {
        "key": "image",
        "until": "GET /images/{image} at Glance",
        "mean_s": pytest.approx(0.013359),
        "ci95_s": None,
        "runs": 1,
        "reached_mean_s": pytest.approx(0.013359),
    }


def test_what_is_missing_is_said_by_name(run: Run, tmp_path: Path) -> None:
    cloud = Cloud()
    for number in (1, 2):
        cloud.requested(number * 100, number)
        cloud.polled(number * 100 + 90, number, "ACTIVE")
    cloud.requested(400, 3, 403, {"forbidden": {"message": "Quota exceeded"}})
    status, out, _ = run(captured(tmp_path, cloud))
    assert status == 0
    assert "2 of them      image       GET /images/{image} at Glance" in out
    assert "the capture has no AMQP" in out
    assert "HTTP 403: Quota exceeded" in out
    assert "refused the request" not in out
    assert (
        "note: 00000001-0000-4000-8000-000000000001, 00000002-0000-4000-8000-000000000002: the end is when"
        in out
    )


def test_a_remark_on_all_is_said_once(run: Run, tmp_path: Path) -> None:
    cloud = Cloud()
    for number in (1, 2):
        cloud.requested(number * 100, number)
        cloud.polled(number * 100 + 90, number, "ACTIVE")
    assert "note: all: the end is when a client saw ACTIVE" in run(captured(tmp_path, cloud))[1]


def test_a_transcript(run: Run) -> None:
    status, out, _ = run(TRANSCRIPT)
    assert status == 0
    assert "a transcript has no times between requests" in out
    assert "note: a transcript: only how long each answer took is known" in out
    assert json.loads(run(TRANSCRIPT, "--json")[1])["instantiations"][0]["requested"] is None


def test_nothing_found_is_a_failure(run: Run, tmp_path: Path) -> None:
    assert run(NOMAD, "--vim", "openvim") == (
        1,
        "",
        "tof: no instantiation of openvim is in the capture; in it are 24 HTTP requests, 0 AMQP and 162 RPC messages\n",
    )
    (tmp_path / "empty.pcap").write_bytes(Wire().pcap())
    assert run(tmp_path / "empty.pcap")[0] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("/nonexistent.pcap",), "/nonexistent.pcap: No such file"),
        ((__file__,), "is neither pcap nor pcapng"),
        ((NOMAD, "--plot", "x.txt"), "--plot: x.txt should end in .pdf, .png, .svg"),
        ((NOMAD, "--plot", "/nonexistent/x.png"), "--plot: /nonexistent/x.png: No such file"),
        ((NOMAD, "--anchors"), "--anchors goes with --plot FILE"),
        ((NOMAD, "--vim", "xen"), "Invalid value for '--vim'"),
    ],
)
def test_wrong_usage(run: Run, arguments: tuple[object, ...], message: str) -> None:
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    assert message in err


def test_a_picture_of_nothing(run: Run, tmp_path: Path) -> None:
    cloud = Cloud()
    cloud.requested(0, 1, 403, {})
    status, _, err = run(captured(tmp_path, cloud), "--plot", tmp_path / "x.svg")
    assert (status, err) == (2, "tof: --plot: no instantiation of the capture became active\n")


@pytest.mark.parametrize(("suffix", "magic"), [("png", b"\x89PNG"), ("PDF", b"%PDF"), ("svg", b"<?xml")])
def test_pictures(run: Run, tmp_path: Path, suffix: str, magic: bytes) -> None:
    path = tmp_path / f"x.{suffix}"
    assert run(NOMAD, "--plot", path)[0] == 0
    assert path.read_bytes().startswith(magic)


def words(path: Path) -> list[str]:
    found = ElementTree.parse(path).iter("{http://www.w3.org/2000/svg}text")
    return ["".join(one.itertext()).strip() for one in found]


def test_a_picture_names_its_bars_and_phases(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "x.svg"
    run(NOMAD, "--plot", path, "--anchors")
    said = words(path)
    assert {"mean of 5", "example1", "source, stock", "scheduling", "driver", "seconds"} <= set(said)
    once = path.read_bytes()
    run(NOMAD, "--plot", path, "--anchors")
    assert path.read_bytes() == once


def test_of_one_run_there_is_no_mean_and_of_many_nothing_else(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "x.svg"
    run(NOVA, "--plot", path)
    assert "app1" in words(path)
    assert not any(word.startswith("mean") for word in words(path))
    cloud = Cloud()
    for number in range(1, 31):
        cloud.created(number * 2000, number, scale=1 + number % 3 / 10)
    run(captured(tmp_path, cloud), "--plot", path)
    assert "mean of 30" in words(path)
    assert not any(word.startswith("app") for word in words(path))


def test_without_matplotlib_the_user_is_told(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    status, _, err = run(NOMAD, "--plot", "x.png")
    assert (status, err) == (2, "tof: --plot needs matplotlib: pip install 'tof[plot]'\n")


def test_a_bar_has_its_interval() -> None:
    with pytest.raises(SetupError):
        chart.draw([Bar("x", (("y", Estimate(1, 0.1, 3)),), Estimate(1, 0.1, 3))], Path("x.gif"), "t")


@pytest.mark.parametrize(
    ("freedom", "t"),
    [
        (1, 12.7062),
        (2, 4.3027),
        (3, 3.1824),
        (4, 2.7764),
        (9, 2.2622),
        (10, 2.2281),
        (30, 2.0423),
        (99, 1.9842),
    ],
)
def test_students_t_as_tables_have_it(freedom: int, t: float) -> None:
    assert student_t(freedom) == pytest.approx(t, abs=5e-5)


def test_students_t_at_other_levels_and_for_many() -> None:
    assert student_t(5, 0.99) == pytest.approx(4.0321, abs=5e-5)
    assert student_t(100_000) == pytest.approx(statistics.NormalDist().inv_cdf(0.975), abs=1e-4)


@given(st.lists(st.floats(0, 1e6), min_size=2, max_size=50))
def test_means_and_intervals(values: list[float]) -> None:
    found = estimate(values)
    assert found.mean == pytest.approx(statistics.fmean(values))
    assert found.half_width is not None
    wanted = student_t(len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5
    assert found.half_width == pytest.approx(wanted, rel=1e-6, abs=1e-6)
    assert estimate(values[:1]) == Estimate(values[0], None, 1)


def test_nineteen_of_twenty_intervals_hold_the_mean() -> None:
    chance = random.Random(7)
    held = 0
    for _ in range(1000):
        found = estimate([chance.gauss(5, 2) for _ in range(6)])
        held += abs(found.mean - 5) <= (found.half_width or 0)
    assert 930 < held < 970


def test_the_sources_figures() -> None:
    """The sums as the source has them, in the shape that it speaks of."""
    assert [round(load.total, 3) for load in anchors.OPENVIM_LOADS] == [
        0.350, 0.388, 0.384, 0.432, 0.473, 0.515, 0.553, 0.610,
    ]  # fmt: skip
    assert all(load.scheduling <= 0.006 for load in anchors.OPENVIM_LOADS)
    assert [load.libvirt for load in anchors.OPENVIM_LOADS] == sorted(
        load.libvirt for load in anchors.OPENVIM_LOADS
    )
    assert {sum(map(len, anchors.OPENVIM_BATCHES.values())), len(anchors.OPENVIM_BATCHES)} == {30, 5}
    assert [len(anchors.bars(vim)) for vim in ("nova", "nomad", "openvim", "local")] == [1, 1, 8, 0]
