"""Nomad's allocations: as servers hand them out by RPC and clients tell of them; without RPC, as HTTP shows them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from tof.vim.analyzer.messages import Call, Exchange, at, items, text
from tof.vim.analyzer.reading import Messages

ENDS: Final = frozenset({"running", "complete", "failed", "lost"})
"""What an allocation is, once its driver has done what it can."""
_SHOWN: Final = re.compile(
    r"/v1/(?:allocations|allocation/[^/]+|job/[^/]+/allocations|evaluation/[^/]+/allocations)$"
)
_ERRORS: Final = ("DriverError", "SetupError", "DownloadError", "ValidationError")


class Told(NamedTuple):
    """How an allocation is, as its client tells or as the API shows."""

    time_ns: int
    status: str
    fault: str


@dataclass(slots=True)
class Allocation:
    """An allocation and when it was seen with its job; then what was told of it.

    ``shown``: by HTTP alone. ``late``: whoever saw it first was not told of something new.
    """

    key: str
    job: str
    evaluation: str
    time_ns: int
    shown: bool = False
    late: bool = False
    told: list[Told] = field(default_factory=list)


def allocations(messages: Messages) -> list[Allocation]:
    """All allocations in the order in which they were seen first."""
    found: dict[str, Allocation] = {}
    for call in messages.calls:
        _hear(call, found)
    for exchange in messages.exchanges:
        _look(exchange, found)
    return list(found.values())


def failed_placements(exchanges: list[Exchange]) -> Iterator[tuple[str, str]]:
    """Evaluations that found no place, by their ids and their jobs', as clients of the API read them."""
    for exchange in exchanges:
        document = None if exchange.answer is None else exchange.answer.document
        for one in document if isinstance(document, list) else [document]:
            groups = at(one, "FailedTGAllocs")
            if isinstance(groups, dict) and groups:
                fault = "; ".join(
                    f"no place for group {group}: {_metric(why)}" for group, why in groups.items()
                )
                yield text(at(one, "JobID")), fault
                yield text(at(one, "ID")), fault


def _hear(call: Call, found: dict[str, Allocation]) -> None:
    """The first answer that carries an allocation and its job; what clients tell of allocations later."""
    for one in (*items(at(call.body, "Allocs")), *items(at(call.body, "Alloc"))):
        key = text(at(one, "ID"))
        if call.answers and isinstance(at(one, "Job"), dict):
            job = text(at(one, "JobID")) or text(at(one, "Job", "ID"))
            late = at(one, "ClientStatus") in ENDS or at(one, "DesiredStatus") in ("stop", "evict")
            carried = Allocation(key, job, text(at(one, "EvalID")), call.span.ended_ns, late=late)
            found.setdefault(key, carried)
        elif not call.answers and call.method == "Node.UpdateAlloc" and key in found:
            found[key].told.append(Told(call.span.ended_ns, text(at(one, "ClientStatus")), _fault(one)))


def _look(exchange: Exchange, found: dict[str, Allocation]) -> None:
    if exchange.answer is None or _SHOWN.search(exchange.request.path) is None:
        return
    document, ended_ns = exchange.answer.document, exchange.answer.span.ended_ns
    for one in document if isinstance(document, list) else [document]:
        key, job = text(at(one, "ID")), text(at(one, "JobID"))
        if key and job:
            shown = Allocation(key, job, text(at(one, "EvalID")), ended_ns, shown=True)
            known = found.setdefault(key, shown)
            if known.shown:
                known.told.append(Told(ended_ns, text(at(one, "ClientStatus")), _fault(one)))


def _fault(allocation: Any) -> str:
    """What the events of its tasks say went wrong."""
    tasks = at(allocation, "TaskStates")
    for state in tasks.values() if isinstance(tasks, dict) else ():
        for event in items(at(state, "Events")):
            said = [text(at(event, name)) for name in _ERRORS]
            said.append(text(at(event, "DisplayMessage")) if at(event, "FailsTask") is True else "")
            if any(said):
                return next(filter(None, said))
    return text(at(allocation, "ClientDescription"))


def _metric(why: Any) -> str:
    """Why nodes were left out, out of a placement's metrics."""
    reasons = [
        f"{reason} ({count})"
        for name in ("ConstraintFiltered", "DimensionExhausted", "ClassFiltered", "ClassExhausted")
        if isinstance(counts := at(why, name), dict)
        for reason, count in counts.items()
    ]
    return ", ".join(reasons) or f"{at(why, 'NodesEvaluated') or 0} nodes evaluated"
