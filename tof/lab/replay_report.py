"""The replayer's findings, as the document of ``--json`` and as tables for people; pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tof.lab.learner import Conflict, describe
from tof.lab.verdict import Outcome, Report, Verdict
from tof.model import Side

COUNTS = ("sent", "identical", "changed", "diverted", "lost", "reordered", "injected", "skipped")
ENDS = {Side.ENB: "west", Side.SGW: "east"}
_SHOWN = 40
_SHOWN_BYTES = 128


@dataclass(frozen=True, slots=True)
class Finding:
    """What became of one capture; ``tunnels`` as GET /tunnels answers, None if no agent was there to ask."""

    name: str
    report: Report
    tunnels: list[dict[str, Any]] | None
    conflicts: Sequence[Conflict]
    replied: int = 0

    def document(self) -> dict[str, Any]:
        """As one element of ``files``: the counts, and every packet."""
        return {
            "file": self.name,
            "ok": self.report.ok,
            **{name: self.report.counts[name] for name in COUNTS},
            "replied": self.replied,
            "tunnels": self.tunnels or [],
            "conflicts": [conflict.document() for conflict in self.conflicts],
            "packets": [_packet(verdict) for verdict in self.report.verdicts],
            "injected_frames": [
                {"out": ENDS[side], "length": len(data), "start": data[:_SHOWN_BYTES].hex()}
                for side, data in self.report.injected
            ],
        }


def document(findings: Sequence[Finding], *, one_learner: bool) -> dict[str, Any]:
    """The document of ``--json``; counts are sums; ``one_learner``: the last answer holds all tunnels."""
    parts = [finding.document() for finding in findings]
    of_learner = parts[-1:] if one_learner else parts
    return {
        "ok": all(part["ok"] for part in parts),
        **{name: sum(part[name] for part in parts) for name in COUNTS},
        "tunnels": [tunnel for part in of_learner for tunnel in part["tunnels"]],
        "conflicts": [conflict for part in parts for conflict in part["conflicts"]],
        "files": parts,
    }


def show(console: Console, finding: Finding) -> None:
    """Print the totals of one capture, each packet that is not identical, and the tunnels."""
    state = "[green]ok[/]" if finding.report.ok else "[bold red]NOT ok[/]"
    console.print(f"\n[bold]{escape(finding.name)}[/]: {state}", highlight=False)
    console.print(_totals(finding))
    for line in _odd_packets(finding.report):
        console.print(f"  {line}", highlight=False, markup=False)
    if finding.tunnels is None:
        console.print("  no agent answered: what it learnt is not known", highlight=False)
    elif finding.tunnels:
        console.print(_tunnels(finding.tunnels))
    for line in describe(finding.conflicts):
        console.print(f"  {line}", highlight=False, markup=False)


def _packet(verdict: Verdict) -> dict[str, Any]:
    skipped = verdict.outcome is Outcome.SKIPPED
    out = verdict.outcome in (Outcome.IDENTICAL, Outcome.CHANGED, Outcome.REORDERED)
    return {
        "number": verdict.number,
        "in": None if skipped else ENDS[verdict.side],
        "out": ENDS[verdict.side.other] if out else None,
        "outcome": verdict.outcome.value,
        "changed": [list(piece) for piece in verdict.changed],
    }


def _totals(finding: Finding) -> Table:
    names = (*COUNTS, "replied") if finding.replied else COUNTS
    counts = {**finding.report.counts, "replied": finding.replied}
    table = Table(*names, box=None, padding=(0, 2), header_style="bold")
    table.add_row(*(str(counts[name]) for name in names))
    return table


def _odd_packets(report: Report) -> Iterator[str]:
    odd = [verdict for verdict in report.verdicts if verdict.outcome is not Outcome.IDENTICAL]
    for verdict in odd[:_SHOWN]:
        ways = f"{ENDS[verdict.side]} to {ENDS[verdict.side.other]}"
        pieces = ", ".join(f"{first}-{stop - 1}" for first, stop in verdict.changed)
        yield f"packet {verdict.number}, {ways}: {verdict.outcome}" + (f", bytes {pieces}" if pieces else "")
    if len(odd) > _SHOWN:
        yield f"and {len(odd) - _SHOWN} more, see --json"


def _tunnels(tunnels: Sequence[dict[str, Any]]) -> Table:
    columns = ("direction", "vlan", "source", "destination", "teid", "ues", "qfi", "state", "packets")
    table = Table(*columns, box=None, padding=(0, 2), header_style="bold")
    for tunnel in tunnels[:_SHOWN]:
        cells = {**tunnel, "teid": f"{tunnel['teid']:#010x}", "ues": " ".join(tunnel["ues"])}
        table.add_row(*("-" if cells[name] is None else str(cells[name]) for name in columns))
    if len(tunnels) > _SHOWN:
        table.caption = f"and {len(tunnels) - _SHOWN} more, see --json"
    return table
