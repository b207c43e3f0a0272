"""`tof vim bench`: what is planned, whose time is whose, tables, CSV, pictures; wrong usage."""

from __future__ import annotations

import csv
import io
import sys
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from tof.agent.sandbox import capacity, free_addresses
from tof.cli import main
from tof.errors import SetupError
from tof.vim import anchors, chart
from tof.vim.bench import report
from tof.vim.bench.plan import MOST, Point, numbers, plan_of
from tof.vim.bench.running import OWN, PREFIX
from tof.vim.bench.samples import Results, Sample, Series

TIMINGS = {
    "build": 0.100, "build.namespace": 0.010, "build.network": 0.030, "build.port": 0.050, "probe": 0.002,
    "provision": 0.005, "total": 0.110,
}  # fmt: skip


def series(point: Point, *walls: float) -> Series:
    one = Series(point, walls=list(walls))
    for run in range(1, len(walls) + 1):
        one.samples += [Sample(f"app-{place}", run, 0.112, TIMINGS) for place in range(point.batch)]
    return one


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", ()),
        ("5-10", (5, 6, 7, 8, 9, 10)),
        ("10,20,50", (10, 20, 50)),
        ("10,20,…,50", (10, 20, 30, 40, 50)),
        ("10,20,...,45", (10, 20, 30, 40, 45)),
        ("0, 10,20,…,40,100,7-8", (0, 7, 8, 10, 20, 30, 40, 100)),
        ("20,10,10", (10, 20)),
    ],
)
def test_numbers(text: str, found: tuple[int, ...]) -> None:
    assert numbers("--x", text) == found


@pytest.mark.parametrize(
    "text",
    [
        "a",
        "1,",
        "-5",
        "5--6",
        "…",
        "10,…,50",
        "10,20,…",
        "20,10,…,50",
        "10,20,…,15",
        str(MOST + 1),
        f"1-{10**18}",
    ],
)
def test_what_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(SetupError, match="--x"):
        numbers("--x", text)


def test_a_plan_goes_up_and_makes_each_background_once() -> None:
    plan = plan_of(3, "4,2", "5-6", "0,4")
    assert list(plan.points()) == [
        Point(0, 1, 3), Point(0, 5, 3), Point(0, 6, 3), Point(2, 1, 3),
        Point(4, 1, 3), Point(4, 5, 3), Point(4, 6, 3),
    ]  # fmt: skip
    assert plan.peak == 10
    assert plan.instances == 4 + 3 * (1 + 5 + 6 + 1 + 1 + 5 + 6)
    assert list(plan_of(1, "", "", "7").points()) == [Point(0, 1, 1)], "no batches, no background for them"


@pytest.mark.parametrize("words", [(0, "", "", ""), (1, "", "1-2", ""), (MOST + 1, "", "", "")])
def test_plans_that_cannot_be(words: tuple[int, str, str, str]) -> None:
    with pytest.raises(SetupError):
        plan_of(*words)


def test_the_port_is_the_tofs_own_time_not_the_vims() -> None:
    one = Sample("a", 1, 0.112, TIMINGS)
    assert one.phases == pytest.approx({"namespace": 0.010, "network": 0.030, "other": 0.010})
    assert (one.vim_s, one.app_s, one.port_s) == pytest.approx((0.050, 0.002, 0.050))
    assert one.tof_s == pytest.approx(0.060)
    assert sum(one.parts.values()) == pytest.approx(0.112)


def test_a_vim_without_phases() -> None:
    one = Sample("a", 1, 2.0, {"build": 1.5, "probe": 0.4})
    assert one.phases == {"other": 1.5}
    assert one.tof_s == pytest.approx(0.1)


def test_the_table_has_the_sources_figures_beside() -> None:
    results = Results("local", [
        series(Point(0, 1, 2), 0.112, 0.112), series(Point(10, 1, 1), 0.112), series(Point(0, 5, 1), 0.3),
        Series(Point(20, 1, 9)),
    ])  # fmt: skip
    rows = [dict(zip(report.COLUMNS, row, strict=True)) for row in report.rows(results)]
    assert [row["experiment"] for row in rows] == [
        "one more, 0 running", "one more, 10 running", "a batch of 5, 0 running",
    ]  # fmt: skip
    assert [row["source ms"] for row in rows] == ["-", "350.0", "319.0"]
    assert (rows[0]["VIM ms"], rows[0]["TOF ms"], rows[0]["of it port"]) == ("50.0", "60.0", "50.0")
    assert "median 60.0 ms" in report.goal_line(results)
    assert report.goal_line(results).endswith("missed")
    assert report.goal_line(Results("local")) == ""


def test_csv_and_document() -> None:
    results = Results("x", [series(Point(2, 2, 2), 0.2, 0.3)], "broke off")
    rows = list(csv.DictReader(io.StringIO(report.table_csv(results))))
    assert len(rows) == 4
    assert {(row["background"], row["batch"], row["run"], row["batch_s"]) for row in rows} == {
        ("2", "2", "1", "0.200000"), ("2", "2", "2", "0.300000"),
    }  # fmt: skip
    assert rows[0]["vim_network_s"] == "0.030000"
    assert float(rows[0]["vim_s"]) + float(rows[0]["app_s"]) + float(rows[0]["tof_s"]) == pytest.approx(0.112)
    found = report.document(results)
    assert (found["complete"], found["error"]) == (False, "broke off")
    assert found["experiments"][0]["total"]["mean_s"] == pytest.approx(0.25)
    assert report.table_csv(Results("x")).startswith("background,batch,run,name,vim_s,")


def test_pictures_have_the_sources_bars_paler(tmp_path: Path) -> None:
    points = (Point(0, 1, 2), Point(10, 1, 2), Point(0, 5, 2), Point(3, 5, 2))
    panels = report.panels(Results("local", [series(point, 0.1, 0.2) for point in points]))
    assert [panel.title for panel in panels] == [
        "local: single instantiation, nothing running", "local: one more", "local: batches, until all are ready",
    ]  # fmt: skip
    assert all(any(bar.quoted for bar in panel.bars) for panel in panels)
    assert sum(bar.quoted for bar in panels[2].bars) == 1, "the source has no batch with 3 running"
    file = tmp_path / "bench.svg"
    chart.draw_panels(panels, file)
    text = file.read_text()
    assert "source, 300 VMs" in text
    assert "TOF: port" in text
    assert report.panels(Results("local")) == []


def test_anchors() -> None:
    assert anchors.load_total(300) == pytest.approx(0.610)
    assert anchors.load_total(7) is None
    assert anchors.batch_total(200, 10) == 0.863
    assert anchors.batch_bar(0, 4) is None


def test_its_names_are_its_own() -> None:
    assert OWN.fullmatch(f"{PREFIX}0123ab-299")
    assert not OWN.fullmatch("tofbench-mine")


def test_the_capacity_is_as_many_as_addresses_are_given() -> None:
    networks = (ip_network("192.0.2.0/24"), ip_network("2001:db8::/64"))
    pool = (ip_network("192.0.2.240/28"), ip_network("2001:db8::/120"))
    taken = {ip_address("192.0.2.241"), ip_address("192.0.2.1")}
    promised, given = capacity(pool, networks, taken), 0
    while found := free_addresses(pool, networks, taken):
        taken |= set(found)
        given += 1
    assert promised == given == 14
    assert capacity((), networks, taken) == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--runs", "0"], "--runs"),
        (["--background", "x"], "--background"),
        (["--batch", "1-3"], "--batch"),
        (["--plot", "x.gif"], "--plot"),
        (["--csv", "/nowhere/at/all.csv"], "--csv"),
        (["--file", "{app}"], "services: the benchmark gives"),
    ],
)
def test_wrong_usage(
    words: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    app = tmp_path / "app.yaml"
    app.write_text("services: []\n")
    words = [word.format(app=app) for word in words]
    monkeypatch.setattr(sys, "argv", ["tof", "--api", f"unix:{tmp_path}/none", "vim", "bench", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert said in capsys.readouterr().err
