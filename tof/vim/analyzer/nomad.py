"""Nomad: jobs that are registered over HTTP, and the RPC between clients and servers; several allocations a job included."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple
from urllib.parse import unquote

from tof.vim.analyzer.messages import Call, Exchange, at, items, text
from tof.vim.analyzer.phases import Analysis, Instantiation, Milestone, Outcome
from tof.vim.analyzer.reading import Messages

VIM: Final = "nomad"
MILESTONES: Final = (
    Milestone("accepted", "HTTP 200", ends_phase=False),
    Milestone("scheduling", "RPC answer that carries the allocation and its job (Alloc.GetAllocs)"),
    Milestone("driver", "RPC Node.UpdateAlloc that says running"),
)
_JOBS: Final = re.compile(r"/v1/jobs$|/v1/job/([^/]+)$")
_READABLE: Final = ("scheduling", "driver")


class _Told(NamedTuple):
    """A client says how an allocation is."""

    time_ns: int
    status: str
    fault: str


@dataclass(slots=True)
class _Allocation:
    """An allocation as a server handed it to a client; then what that client told of it."""

    key: str
    job: str
    evaluation: str
    time_ns: int
    told: list[_Told] = field(default_factory=list)


def is_request(exchange: Exchange) -> bool:
    """Whether this registers a job."""
    request = exchange.request
    return request.method in ("PUT", "POST") and _JOBS.search(request.path) is not None


def analyse(messages: Messages) -> Analysis:
    """All jobs that were registered, an instantiation for each allocation."""
    allocations = _allocations(messages.calls)
    failed = dict(_failed_placements(messages.exchanges))
    asked = list(filter(is_request, messages.exchanges))
    found: list[list[Instantiation]] = []
    until_ns: dict[str, int] = {}
    for exchange in reversed(asked):
        job = _job(exchange)
        until = until_ns.get(job)
        found.append(list(_followed(exchange, allocations, failed, until, rpc=bool(messages.calls))))
        until_ns[job] = exchange.request.span.ended_ns
    return Analysis(VIM, MILESTONES, [one for each in reversed(found) for one in each])


def _followed(
    exchange: Exchange,
    allocations: list[_Allocation],
    failed: dict[str, str],
    until_ns: int | None,
    *,
    rpc: bool,
) -> Iterator[Instantiation]:
    """What became of a registration; ``until_ns``: when the same job was registered again."""
    span, answer, job = exchange.request.span, exchange.answer, _job(exchange)
    one = Instantiation(job or f"packet {span.number}", job, span.ended_ns, span.number)
    if answer is not None and answer.status >= 400:
        said = answer.body.decode("utf-8", "replace").strip()
        one.outcome, one.fault = Outcome.FAILED, f"HTTP {answer.status}: {said}"
        one.missing = {milestone.key: "Nomad refused the job" for milestone in MILESTONES}
        yield one
        return
    evaluation = "" if answer is None else text(at(answer.document, "EvalID"))
    mine = [
        allocation
        for allocation in allocations
        if (allocation.evaluation == evaluation and evaluation)
        or (allocation.job == job and span.ended_ns <= allocation.time_ns < (until_ns or 1 << 63))
    ]
    for allocation in mine:
        key = allocation.key if len(mine) > 1 else one.key
        each = Instantiation(key, job, span.ended_ns, span.number)
        _accept(each, exchange)
        _settle(each, allocation)
        yield each
    if not mine:
        _accept(one, exchange)
        _unplaced(one, failed.get(evaluation) or failed.get(job, ""), rpc=rpc)
        yield one


def _accept(one: Instantiation, exchange: Exchange) -> None:
    answer = exchange.answer
    one.reach("accepted", None if answer is None else answer.span.ended_ns, "no answer is in the capture")


def _settle(one: Instantiation, allocation: _Allocation) -> None:
    one.reached["scheduling"] = allocation.time_ns
    ends = [told for told in allocation.told if told.status in ("running", "complete", "failed", "lost")]
    if not ends:
        one.missing["driver"] = "no Node.UpdateAlloc of this allocation says running"
        return
    first = ends[0]
    if first.status in ("failed", "lost"):
        one.outcome, one.fault = Outcome.FAILED, first.fault or f"the allocation is {first.status}"
        one.missing["driver"] = "it failed"
        return
    one.outcome = Outcome.ACTIVE
    one.reached["driver"] = first.time_ns
    if first.status == "complete":
        one.remarks.append(
            "it was over before the client told that it ran: the driver's time is an upper bound"
        )


def _unplaced(one: Instantiation, fault: str, *, rpc: bool) -> None:
    why = "no RPC answer carries an allocation of this job" if rpc else "the capture has no RPC of Nomad's"
    if fault:
        one.outcome, one.fault, why = Outcome.FAILED, fault, "no allocation was placed"
    for key in _READABLE:
        one.missing[key] = why


def _job(exchange: Exchange) -> str:
    """The id of the job that is registered."""
    path = _JOBS.search(exchange.request.path)
    named = text(at(exchange.request.document, "Job", "ID"))
    return named or (unquote(path[1]) if path is not None and path[1] else "")


def _allocations(calls: list[Call]) -> list[_Allocation]:
    """The allocations that servers handed out, by the first answer that carries each and its job."""
    found: dict[str, _Allocation] = {}
    for call in calls:
        for one in _carried(call):
            key = text(at(one, "ID"))
            if call.answers and isinstance(at(one, "Job"), dict):
                job = text(at(one, "JobID")) or text(at(one, "Job", "ID"))
                evaluation = text(at(one, "EvalID"))
                found.setdefault(key, _Allocation(key, job, evaluation, call.span.ended_ns))
            elif not call.answers and call.method == "Node.UpdateAlloc" and key in found:
                told = _Told(call.span.ended_ns, text(at(one, "ClientStatus")), _fault(one))
                found[key].told.append(told)
    return list(found.values())


def _carried(call: Call) -> list[Any]:
    return [*items(at(call.body, "Allocs")), *items(at(call.body, "Alloc"))]


def _fault(allocation: Any) -> str:
    """What the events of its tasks say went wrong."""
    tasks = at(allocation, "TaskStates")
    for state in tasks.values() if isinstance(tasks, dict) else ():
        for event in items(at(state, "Events")):
            said = [
                text(at(event, name))
                for name in ("DriverError", "SetupError", "DownloadError", "ValidationError")
            ]
            said.append(text(at(event, "DisplayMessage")) if at(event, "FailsTask") is True else "")
            for one in filter(None, said):
                return one
    return text(at(allocation, "ClientDescription"))


def _failed_placements(exchanges: list[Exchange]) -> Iterator[tuple[str, str]]:
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


def _metric(why: Any) -> str:
    """Why nodes were left out, out of a placement's metrics."""
    reasons = [
        f"{reason} ({count})"
        for name in ("ConstraintFiltered", "DimensionExhausted", "ClassFiltered", "ClassExhausted")
        if isinstance(counts := at(why, name), dict)
        for reason, count in counts.items()
    ]
    nodes = at(why, "NodesEvaluated")
    return ", ".join(reasons) or f"{nodes or 0} nodes evaluated"
