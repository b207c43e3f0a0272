"""Tables, JSON, CSV and pictures of a benchmark, the source document's figures beside."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from typing import Any, Final

from tof.vim import anchors
from tof.vim.bench.samples import APP, TOF_PORT, TOF_REST, Results, Series
from tof.vim.chart import Bar, Panel
from tof.vim.statistics import Estimate

GOAL_S: Final = 0.010
"""What the TOF may take of an instantiation."""
COLUMNS: Final = (
    "experiment", "runs", "VIM ms", "app ms", "TOF ms", "95 % ±", "median", "of it port", "all ms", "95 % ±", "source ms",
)  # fmt: skip
OURS: Final = ("app_s", "tof_s", "tof_port_s", "total_s", "batch_s")


def rows(results: Results) -> Iterator[tuple[str, ...]]:
    """A point each, means in milliseconds; of a batch ``all`` is until all of it was ready."""
    for one in results.measured():
        parts = one.parts()
        vim = sum(part.mean for key, part in parts.items() if key not in (APP, TOF_PORT, TOF_REST))
        times = (vim, parts[APP].mean, *_spread(one.tof), one.tof_median_s, parts[TOF_PORT].mean)
        yield one.point.label, str(len(one.walls)), *map(_ms, (*times, *_spread(one.total), source_s(one)))


def source_s(one: Series) -> float | None:
    """What the source measured of the like: ClickOS on Xen by the tuned OpenVIM."""
    if one.point.batch == 1:
        return anchors.load_total(one.point.background)
    return anchors.batch_total(one.point.background, one.point.batch)


def goal_line(results: Results) -> str:
    """Whether the TOF's own share of a single instantiation is what it should be, at the least load measured."""
    singles = [one for one in results.measured() if one.point.batch == 1]
    if not singles:
        return ""
    median = singles[0].tof_median_s
    verdict = "met" if median <= GOAL_S else "missed"
    where = singles[0].point.label
    return f"TOF's own share: median {_ms(median)} ms ({where}); at most {GOAL_S * 1000:.0f} ms: {verdict}"


def document(results: Results) -> dict[str, Any]:
    """All of it, times in seconds."""
    return {
        "vim": results.vim,
        "complete": not results.error,
        "error": results.error or None,
        "left": list(results.left),
        "goal": {"tof_median_s": GOAL_S},
        "experiments": [_experiment(one) for one in results.measured()],
        "source": "ClickOS on Xen, tuned OpenVIM (GARR 2017): compare shapes, not values",
    }


def table_csv(results: Results) -> str:
    """An instantiation each, times in seconds; ``batch_s``: until all of its batch was ready."""
    measured = list(results.measured())
    phases = list(dict.fromkeys(key for one in measured for sample in one.samples for key in sample.phases))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        ["background", "batch", "run", "name", *(f"vim_{key}_s" for key in phases), "vim_s", *OURS]
    )
    for one in measured:
        for sample in one.samples:
            each = [sample.phases.get(key, 0.0) for key in phases]
            ours = (sample.app_s, sample.tof_s, sample.port_s, sample.wall_s, one.walls[sample.run - 1])
            where = (one.point.background, one.point.batch, sample.run, sample.name)
            writer.writerow([*where, *(f"{seconds:.6f}" for seconds in (*each, sample.vim_s, *ours))])
    return out.getvalue()


def panels(results: Results) -> list[Panel]:
    """A picture for each experiment, the source's figures in it, paler."""
    singles = [one for one in results.measured() if one.point.batch == 1]
    batches = [one for one in results.measured() if one.point.batch > 1]
    alone = [one for one in singles if not one.point.background]
    loaded = [one for one in singles if one.point.background]
    found = []
    if alone:
        stock = [*_named("nova"), *_named("nomad")]
        found.append(Panel("single instantiation, nothing running", [*map(_bar, alone), *stock]))
    if loaded:
        found.append(Panel("one more", [*map(_bar, loaded), *anchors.bars("openvim")]))
    if batches:
        found.append(Panel("batches, until all are ready", list(_batch_bars(batches))))
    return [Panel(f"{results.vim}: {one.title}", one.bars) for one in found]


def _batch_bars(batches: Sequence[Series]) -> Iterator[Bar]:
    for one in batches:
        label = f"batch of {one.point.batch}, {one.point.background} running"
        yield Bar(label, (("batch", one.total),))
    for one in batches:
        quoted = anchors.batch_bar(one.point.background, one.point.batch)
        if quoted is not None:
            yield quoted


def _bar(one: Series) -> Bar:
    return Bar(f"{one.point.background} running", tuple(one.parts().items()), one.total)


def _named(vim: str) -> list[Bar]:
    return [Bar(f"{bar.label} {vim}", bar.parts, bar.total, bar.quoted) for bar in anchors.bars(vim)]


def _experiment(one: Series) -> dict[str, Any]:
    return {
        "background": one.point.background,
        "batch": one.point.batch,
        "runs": len(one.walls),
        "total": _estimate(one.total),
        "parts": {key: _estimate(part) for key, part in one.parts().items()},
        "tof": {**_estimate(one.tof), "median_s": one.tof_median_s},
        "source_s": source_s(one),
        "instantiations": [
            {"name": sample.name, "run": sample.run, "total_s": sample.wall_s, "parts": sample.parts}
            for sample in one.samples
        ],
    }


def _estimate(one: Estimate) -> dict[str, Any]:
    return {"mean_s": one.mean, "ci95_s": one.half_width, "runs": one.runs}


def _spread(one: Estimate) -> tuple[float, float | None]:
    return one.mean, one.half_width


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:.1f}"
