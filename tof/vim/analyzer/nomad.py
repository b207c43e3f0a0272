"""Nomad: jobs that are registered over HTTP, and the RPC between clients and servers; several allocations a job included."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import unquote

from tof.vim.analyzer.messages import Exchange, at, text
from tof.vim.analyzer.nomad_allocations import ENDS, Allocation, allocations, failed_placements
from tof.vim.analyzer.phases import Analysis, Instantiation, Milestone, Outcome
from tof.vim.analyzer.reading import Messages

VIM: Final = "nomad"
MILESTONES: Final = (
    Milestone("accepted", "HTTP 200", ends_phase=False),
    Milestone("scheduling", "RPC answer that carries the allocation and its job (Alloc.GetAllocs)"),
    Milestone("driver", "RPC Node.UpdateAlloc that says running"),
)
_JOBS: Final = re.compile(r"/v1/jobs$|/v1/job/([^/]+)$")


def is_request(exchange: Exchange) -> bool:
    """Whether this registers a job."""
    request = exchange.request
    return request.method in ("PUT", "POST") and _JOBS.search(request.path) is not None


def analyse(messages: Messages) -> Analysis:
    """All jobs that were registered, an instantiation for each allocation."""
    placed = allocations(messages)
    failed = dict(failed_placements(messages.exchanges))
    found: list[list[Instantiation]] = []
    until_ns: dict[str, int] = {}
    for exchange in reversed(list(filter(is_request, messages.exchanges))):
        job = _job(exchange)
        mine = _placed(exchange, placed, until_ns.get(job, 1 << 63))
        found.append(list(_followed(exchange, mine, failed, rpc=bool(messages.calls))))
        until_ns[job] = exchange.request.span.ended_ns
    return Analysis(VIM, MILESTONES, [one for each in reversed(found) for one in each])


def _placed(exchange: Exchange, placed: list[Allocation], until_ns: int) -> list[Allocation]:
    """The allocations of a registration: of its evaluation, or of its job until that is registered again."""
    job, evaluation, begin = _job(exchange), _evaluation(exchange), exchange.request.span.ended_ns
    return [
        one
        for one in placed
        if (one.evaluation == evaluation and evaluation)
        or (one.job == job and begin <= one.time_ns < until_ns)
    ]


def _followed(
    exchange: Exchange, mine: list[Allocation], failed: dict[str, str], *, rpc: bool
) -> Iterator[Instantiation]:
    """What became of a registration."""
    span, answer, job = exchange.request.span, exchange.answer, _job(exchange)
    one = Instantiation(job or f"packet {span.number}", job, span.ended_ns, span.number)
    if answer is not None and answer.status >= 400:
        said = answer.body.decode("utf-8", "replace").strip()
        one.outcome, one.fault = Outcome.FAILED, f"HTTP {answer.status}: {said}"
        one.missing = {milestone.key: "Nomad refused the job" for milestone in MILESTONES}
        yield one
        return
    if not mine:
        _accept(one, exchange)
        _unplaced(one, failed.get(_evaluation(exchange)) or failed.get(job, ""), rpc=rpc)
        yield one
    for allocation in mine:
        key = allocation.key if len(mine) > 1 else one.key
        each = Instantiation(key, job, span.ended_ns, span.number)
        _accept(each, exchange)
        _settle(each, allocation)
        yield each


def _accept(one: Instantiation, exchange: Exchange) -> None:
    answer = exchange.answer
    one.reach("accepted", None if answer is None else answer.span.ended_ns, "no answer is in the capture")


def _settle(one: Instantiation, allocation: Allocation) -> None:
    late = "the answer that carried the allocation first is not in the capture"
    one.reach("scheduling", None if allocation.late else allocation.time_ns, late)
    if allocation.shown:
        one.remarks.append(
            "times are when a client of the API saw it: Nomad's RPC of it is not in the capture"
        )
    first = next((told for told in allocation.told if told.status in ENDS), None)
    if first is None:
        one.missing["driver"] = "nothing in the capture says that this allocation runs"
    elif first.status in ("failed", "lost"):
        one.outcome, one.fault = Outcome.FAILED, first.fault or f"the allocation is {first.status}"
        one.missing["driver"] = "it failed"
    else:
        one.outcome = Outcome.ACTIVE
        one.reached["driver"] = first.time_ns
        if first.status == "complete":
            one.remarks.append(
                "it was over before anyone told that it ran: the driver's time is an upper bound"
            )


def _unplaced(one: Instantiation, fault: str, *, rpc: bool) -> None:
    why = "no RPC answer carries an allocation of this job" if rpc else "the capture has no RPC of Nomad's"
    if fault:
        one.outcome, one.fault, why = Outcome.FAILED, fault, "no allocation was placed"
    for key in ("scheduling", "driver"):
        one.missing[key] = why


def _job(exchange: Exchange) -> str:
    """The id of the job that is registered."""
    path = _JOBS.search(exchange.request.path)
    named = text(at(exchange.request.document, "Job", "ID"))
    return named or (unquote(path[1]) if path is not None and path[1] else "")


def _evaluation(exchange: Exchange) -> str:
    return "" if exchange.answer is None else text(at(exchange.answer.document, "EvalID"))
