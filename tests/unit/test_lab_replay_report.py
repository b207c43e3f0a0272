"""tof.lab.replay_report: the document of --json, and the tables."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from tof.lab.learner import Conflict
from tof.lab.replay_report import COUNTS, Finding, document, show
from tof.lab.verdict import Injected, Outcome, Report, Verdict
from tof.model import Side

TUNNEL: dict[str, Any] = {
    "direction": "uplink",
    "vlan": None,
    "source": "192.0.2.1",
    "destination": "192.0.2.2",
    "teid": 7,
    "ues": ["10.45.0.2"],
    "qfi": 9,
    "state": "learnt",
    "packets": 3,
}
CONFLICT = Conflict("several_ues", None, "192.0.2.1", "192.0.2.2", 7, ("10.45.0.2", "10.45.0.3"), ())


def finding(*outcomes: Outcome, name: str = "a.pcap", tunnels: list[dict[str, Any]] | None = None) -> Finding:
    verdicts = tuple(
        Verdict(number, Side.ENB, outcome, ((12, 14), (20, 21)) if outcome is Outcome.CHANGED else ())
        for number, outcome in enumerate(outcomes, 1)
    )
    return Finding(name, Report(verdicts, (Injected(Side.SGW, b"\1\2"),)), tunnels, (CONFLICT,))


def shown(what: Finding) -> str:
    console = Console(file=io.StringIO(), width=200)
    show(console, what)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_document_has_the_keys_of_the_contract():
    body = document([finding(Outcome.IDENTICAL, tunnels=[TUNNEL])], one_learner=False)
    assert list(body) == ["ok", *COUNTS, "tunnels", "conflicts", "files"]
    assert (body["ok"], body["sent"], body["identical"], body["injected"]) == (True, 1, 1, 1)
    assert body["tunnels"] == [TUNNEL]
    assert body["conflicts"] == [CONFLICT.document()]
    assert body["files"][0]["packets"] == [
        {"number": 1, "in": "west", "out": "east", "outcome": "identical", "changed": []}
    ]
    assert body["files"][0]["injected_frames"] == [{"out": "east", "length": 2, "start": "0102"}]


def test_counts_are_sums_and_one_bad_file_is_enough():
    good = finding(Outcome.IDENTICAL, Outcome.SKIPPED, tunnels=[TUNNEL])
    bad = finding(Outcome.LOST, Outcome.CHANGED, Outcome.REORDERED, Outcome.DIVERTED, tunnels=[TUNNEL])
    body = document([good, bad], one_learner=False)
    counts = {name: body[name] for name in COUNTS}
    assert counts == {
        "sent": 5,
        "identical": 1,
        "changed": 1,
        "diverted": 1,
        "lost": 1,
        "reordered": 1,
        "injected": 2,
        "skipped": 1,
    }
    assert not body["ok"]
    assert [part["ok"] for part in body["files"]] == [True, False]
    assert len(body["tunnels"]) == 2
    assert len(document([good, bad], one_learner=True)["tunnels"]) == 1


def test_where_packets_came_out():
    packets = finding(Outcome.LOST, Outcome.CHANGED, Outcome.SKIPPED).document()["packets"]
    assert [(packet["in"], packet["out"]) for packet in packets] == [
        ("west", None),
        ("west", "east"),
        (None, None),
    ]
    assert packets[1]["changed"] == [[12, 14], [20, 21]]


def test_the_odd_packets_are_shown_with_their_bytes():
    text = shown(finding(Outcome.IDENTICAL, Outcome.CHANGED, Outcome.LOST, tunnels=[TUNNEL]))
    assert "NOT ok" in text
    assert "packet 2, west to east: changed, bytes 12-13, 20-20" in text
    assert "packet 3, west to east: lost" in text
    assert "packet 1" not in text
    assert "0x00000007" in text
    assert "several ues" in text


def test_long_lists_are_cut_and_an_unknown_learner_is_said():
    text = shown(finding(*[Outcome.LOST] * 100))
    assert "and 60 more" in text
    assert "no agent answered" in text
    assert "and 10 more" in shown(finding(Outcome.IDENTICAL, tunnels=[TUNNEL] * 50))
