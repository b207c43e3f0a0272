from __future__ import annotations

import io

import pytest
from rich.console import Console

from tof.lab.checks import Check, answered
from tof.lab.demo import SCENARIOS, Report
from tof.lab.peers import PingResult, parse_ping
from tof.lab.prober import Probe
from tof.lab.snapshot import differences
from tof.lab.webserver import MEGABYTE, content_digest, write_content

PING = """PING 8.8.8.8 (8.8.8.8) 56(84) bytes of data.

--- 8.8.8.8 ping statistics ---
3 packets transmitted, 2 received, 33% packet loss, time 409ms
rtt min/avg/max/mdev = 0.168/0.257/0.315/0.064 ms
"""


@pytest.mark.parametrize(("text", "result"), [(PING, PingResult(3, 2, 0.257)), ("", PingResult(0, 0, 0.0))])
def test_ping_is_read(text: str, result: PingResult) -> None:
    assert parse_ping(text) == result


def test_probes_are_counted_by_server() -> None:
    assert answered([Probe(1.0, "edge"), Probe(2.0), Probe(3.0, "edge")]) == "edge: 2, nobody: 1"
    assert answered([]) == "no probe"


def test_differences_are_named() -> None:
    assert differences({"a": "1", "b": "2"}, {"a": "1", "c": "3"}) == ["b", "c"]


def test_content_has_its_size_and_digest(tmp_path) -> None:
    import hashlib

    path = tmp_path / "content"
    write_content(str(path), 2)
    assert path.stat().st_size == 2 * MEGABYTE
    assert hashlib.sha256(path.read_bytes()).hexdigest() == content_digest(2)


def test_a_report_is_ok_only_if_every_check_is() -> None:
    report = Report(Console(file=io.StringIO()))
    assert not report.ok
    report.add(Check.equal("2 interception: one", 1, 1))
    report.figures["total_s"] = 1.23456
    assert report.document() == {
        "ok": True,
        "checks": [{"name": "2 interception: one", "ok": True, "expected": "1", "seen": "1"}],
        "figures": {"total_s": 1.235},
    }
    report.add(Check.equal("2 interception: two", 1, 2))
    assert not report.ok
    report.console.print(report.table())
    assert "1 of 2 checks" in report.console.file.getvalue()


def test_every_scenario_says_its_point() -> None:
    points = [(scenario.__doc__ or "").partition(":")[0] for scenario in SCENARIOS]
    assert points[:-1] == sorted(points[:-1]), "all but the end of it"
    assert points[-1] == "Point 7"
    assert {point[-1] for point in points} == set("2345678")
