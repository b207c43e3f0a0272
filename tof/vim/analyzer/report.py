"""An analysis as tables for people, as a document for programs, and as bars for a picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

from tof.vim.analyzer.phases import Analysis, Instantiation, Outcome, phases, since_request, total
from tof.vim.analyzer.reading import Messages
from tof.vim.chart import Bar
from tof.vim.statistics import Estimate, estimate

MOST_BARS: Final = 20
"""Of more instantiations only the mean is drawn."""
MISSING_COLUMNS: Final = ("instantiation", "not found", "which is", "why")
MEAN_COLUMNS: Final = ("phase", "mean ms", "95 % ±", "runs", "until", "which is after ms")

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Summary(NamedTuple):
    """Means over the instantiations that became active: of each phase, of when each milestone was reached, of the whole."""

    phases: dict[str, Estimate]
    reached: dict[str, Estimate]
    total: Estimate | None


def summary(analysis: Analysis) -> Summary:
    """The means, in the order of the milestones."""
    well = [one for one in analysis.instantiations if one.outcome is Outcome.ACTIVE]
    lasted: dict[str, list[float]] = {one.key: [] for one in analysis.milestones}
    reached: dict[str, list[float]] = {one.key: [] for one in analysis.milestones}
    for one in (one for one in well if one.began_ns is not None):
        for phase in phases(analysis, one):
            lasted[phase.key].append(phase.seconds)
        for key, after_s in since_request(one).items():
            reached[key].append(after_s)
    wholes = [seconds for one in well if (seconds := total(analysis, one)) is not None]
    return Summary(_means(lasted), _means(reached), estimate(wholes) if wholes else None)


def columns(analysis: Analysis) -> tuple[str, ...]:
    """Of the table of instantiations."""
    keys = (one.key for one in analysis.milestones if one.ends_phase)
    return ("instantiation", "name", "outcome", *keys, "total ms", "fault")


def rows(analysis: Analysis) -> Iterator[tuple[str, ...]]:
    """An instantiation each; phases in milliseconds."""
    for one in analysis.instantiations:
        lasted = {phase.key: phase.seconds for phase in phases(analysis, one)}
        cells = (_ms(lasted.get(each.key)) for each in analysis.milestones if each.ends_phase)
        yield (
            one.key,
            one.name or "-",
            one.outcome.value,
            *cells,
            _ms(total(analysis, one)),
            one.fault or "-",
        )


def mean_rows(analysis: Analysis) -> Iterator[tuple[str, ...]]:
    """A milestone and the phase that it ends each, and the whole."""
    found = summary(analysis)
    for one in analysis.milestones:
        if one.key in found.reached:
            lasted = _mean(found.phases.get(one.key))
            yield one.key, *lasted, one.message, _ms(found.reached[one.key].mean)
    if found.total is not None:
        yield "total", *_mean(found.total), "from the request to the end", _ms(found.total.mean)


def missing_rows(analysis: Analysis) -> Iterator[tuple[str, str, str, str]]:
    """What was not found, of each instantiation that did not fail; alike ones in one row."""
    seen: dict[tuple[str, str, str], list[str]] = {}
    for one in (one for one in analysis.instantiations if one.outcome is not Outcome.FAILED):
        for key, message, why in _missing(analysis, one):
            seen.setdefault((key, message, why), []).append(one.key)
    for (key, message, why), whose in seen.items():
        yield whose[0] if len(whose) == 1 else f"{len(whose)} of them", key, message, why


def remarks(analysis: Analysis) -> list[str]:
    """What is to be said of the instantiations; what counts for all of them once."""
    said: dict[str, list[str]] = {}
    for one in analysis.instantiations:
        for remark in one.remarks:
            said.setdefault(remark, []).append(one.key)
    every = len(analysis.instantiations)
    return [
        f"{'all' if len(whose) == every > 1 else ', '.join(whose[:3])}: {remark}"
        for remark, whose in said.items()
    ]


def document(name: str, messages: Messages, analysis: Analysis) -> dict[str, Any]:
    """All of it, times in seconds."""
    found = summary(analysis)
    return {
        "capture": name,
        "vim": analysis.vim,
        "packets": messages.packets,
        "connections": messages.connections,
        "notes": messages.notes,
        "phases": [
            {
                "key": one.key,
                "until": one.message,
                **_estimate(found.phases.get(one.key)),
                "reached_mean_s": found.reached[one.key].mean if one.key in found.reached else None,
            }
            for one in analysis.milestones
            if one.ends_phase
        ],
        "total": _estimate(found.total),
        "instantiations": [
            _instantiation(analysis, one, timed=messages.timed) for one in analysis.instantiations
        ],
    }


def bars(analysis: Analysis) -> list[Bar]:
    """The mean of those that became active if there are several, and each of them if they are not too many."""
    drawn = [(one, phases(analysis, one)) for one in analysis.instantiations if one.outcome is Outcome.ACTIVE]
    drawn = [(one, parts) for one, parts in drawn if parts]
    found = summary(analysis)
    mean = Bar(f"mean of {len(drawn)}", tuple(found.phases.items()), found.total)
    each = [
        Bar(_label(one), tuple((phase.key, Estimate(phase.seconds, None, 1)) for phase in parts))
        for one, parts in drawn
    ]
    if len(each) > MOST_BARS:
        return [mean]
    return [mean, *each] if len(each) > 1 else each


def _instantiation(analysis: Analysis, one: Instantiation, *, timed: bool) -> dict[str, Any]:
    began = None if one.began_ns is None or not timed else _time(one.began_ns)
    return {
        "id": one.key,
        "name": one.name,
        "packet": one.number,
        "requested": began,
        "outcome": one.outcome.value,
        "fault": one.fault,
        "total_s": total(analysis, one),
        "milestones_s": dict(sorted(since_request(one).items(), key=lambda reached: reached[1])),
        "phases": [{"key": phase.key, "seconds": phase.seconds} for phase in phases(analysis, one)],
        "missing": [
            {"key": key, "message": message, "why": why} for key, message, why in _missing(analysis, one)
        ],
        "remarks": one.remarks,
    }


def _missing(analysis: Analysis, one: Instantiation) -> Iterator[tuple[str, str, str]]:
    for milestone in analysis.milestones:
        if milestone.key in one.missing:
            optional = "" if milestone.needed else " (not every deployment has it)"
            yield milestone.key, milestone.message, one.missing[milestone.key] + optional


def _estimate(one: Estimate | None) -> dict[str, Any]:
    if one is None:
        return {"mean_s": None, "ci95_s": None, "runs": 0}
    return {"mean_s": one.mean, "ci95_s": one.half_width, "runs": one.runs}


def _means(values: dict[str, list[float]]) -> dict[str, Estimate]:
    return {key: estimate(each) for key, each in values.items() if each}


def _mean(one: Estimate | None) -> Sequence[str]:
    return ("-", "-", "-") if one is None else (_ms(one.mean), _ms(one.half_width), str(one.runs))


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:.1f}"


def _time(time_ns: int) -> str:
    return (_EPOCH + timedelta(microseconds=time_ns // 1000)).isoformat().replace("+00:00", "Z")


def _label(one: Instantiation) -> str:
    return one.name or one.key[:8]
