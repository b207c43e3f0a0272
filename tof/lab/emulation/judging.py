"""Laboratory: the verdicts on a played scenario."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice

from tof.lab.checks import Check, Figures
from tof.lab.emulation.bearers import Asked, Exchange
from tof.lab.emulation.network import Network

NAMED = 3
"""How many culprits a check names."""


def judge(net: Network) -> Iterator[Check]:
    """Transparency always; with an edge, how the service's traffic was diverted."""
    edge = net.settings.edge
    yield from _transparency(net)
    yield _nothing("separate: no UE gets what is another's", net.failures, "packet")
    judged = [one for one in net.exchanges.values() if not one.optional]
    others = [one for one in judged if one.asked is not Asked.SERVICE]
    yield _all("answered: what a UE asks and what is sent to it arrives", others, _unanswered)
    if edge is None:
        return
    requests = [one for one in judged if one.asked is Asked.SERVICE]
    yield _all("diverted: the application answers, in the UE's own tunnel", requests, _undiverted)
    misfits = [f"{_name(one)}: {one.wrong}" for one in net.exchanges.values() if one.wrong]
    yield _nothing("fitting: the box's own packets look like their tunnel's", misfits, "misfit")
    leaked = [data.hex() for data in net.ledger.leaked]
    yield _nothing("withheld: answers to the box's own packets go no further", leaked, "frame")


def figures(net: Network) -> Figures:
    """What is told and not judged."""
    answered = [one for one in net.exchanges.values() if one.answered_at is not None]
    found: Figures = {
        "frames": len(net.ledger.sent),
        "longest_answer_ms": 1000 * max((one.took_s for one in answered), default=0.0),
    }
    for stream in net.streams:
        found[f"{stream.name}_longest_gap_ms"] = 1000 * stream.longest_gap_s
        found[f"{stream.name}_unanswered"] = sum(not one.answered for one in stream.exchanges)
    if net.settings.edge is not None:
        found["probes"] = net.ledger.probes
        found["injected"] = net.ledger.injected
        found["withheld"] = net.ledger.withheld
        elsewhere = [one for one in answered if one.at_edge and one.answered_in is not one.bearer]
        found["answers_in_another_bearer"] = len(elsewhere)
    return found


def _transparency(net: Network) -> Iterator[Check]:
    edge = net.settings.edge
    report = net.ledger.report(frozenset(edge.services if edge else ()))
    counts = report.counts
    bad = [f"{counts[name]} {name}" for name in ("lost", "changed", "reordered") if counts[name]]
    passed = f"{counts['identical']} frames, {counts['diverted']} diverted"
    yield Check(
        "transparent: what is sent comes out as it was sent",
        not bad,
        f"{counts['sent']} frames",
        ", ".join((passed, *bad)),
    )
    extra = [f"{one.data.hex()} at the {one.side.name.lower()} end" for one in report.injected]
    yield _nothing("nothing extra: the box makes up nothing", extra, "frame")


def _nothing(name: str, found: Sequence[str], what: str) -> Check:
    seen = f"{len(found)}: " + "; ".join(islice(found, NAMED)) if found else f"no {what}"
    return Check(name, not found, f"no {what}", seen)


def _all(name: str, exchanges: Sequence[Exchange], wrong: Callable[[Exchange], str]) -> Check:
    found = [f"{_name(one)} {reason}" for one in exchanges if (reason := wrong(one))]
    seen = f"{len(exchanges) - len(found)} of {len(exchanges)}"
    return Check(name, not found, f"{len(exchanges)} of {len(exchanges)}", "; ".join((seen, *found[:NAMED])))


def _name(exchange: Exchange) -> str:
    return f"{exchange.asked} ({exchange.ue.name})"


def _unanswered(exchange: Exchange) -> str:
    return "" if exchange.answered else "not answered"


def _undiverted(exchange: Exchange) -> str:
    if not exchange.at_edge:
        where = " and ".join(exchange.reached)
        return f"reached {where}" if where else "was lost"
    return _unanswered(exchange)
