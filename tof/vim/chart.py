"""Stacked bars with 95 % confidence intervals, as in the source document's figures; matplotlib draws (extra ``plot``)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tof.errors import SetupError
from tof.vim.statistics import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FORMATS: Final = frozenset({".png", ".svg", ".pdf"})
_COLOURS: Final = (
    "#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#bbbbbb", "#994f00", "#44aa99", "#332288",
    "#ddaa33", "#88ccee", "#882255", "#999933", "#004488", "#bb5566", "#117733", "#7f7f7f",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar: its parts in order, each with its interval; ``total``: the interval of the whole. ``quoted``: not measured."""

    label: str
    parts: tuple[tuple[str, Estimate], ...]
    total: Estimate | None = None
    quoted: bool = False


def check_format(path: Path) -> None:
    """SetupError unless a picture can be written to this file."""
    if path.suffix.lower() not in FORMATS:
        raise SetupError(f"--plot: {path} should end in {', '.join(sorted(FORMATS))}")
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise SetupError("--plot needs matplotlib: pip install 'tof[plot]'") from None


@dataclass(frozen=True, slots=True)
class Panel:
    """Bars that are to be compared with each other."""

    title: str
    bars: Sequence[Bar]


def draw(bars: Sequence[Bar], path: Path, title: str) -> None:
    """Draw the bars from the top down, into a file of the format that its name says."""
    draw_panels([Panel(title, bars)], path)


def draw_panels(panels: Sequence[Panel], path: Path) -> None:
    """Draw the panels one below the other; a part has the same colour in all of them."""
    check_format(path)
    import matplotlib as mpl
    from matplotlib.figure import Figure

    # Text stays text, and the same data make the same file.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "tof", "font.size": 9}):
        heights = [max(2, len(panel.bars)) for panel in panels]
        size = (10, 1.2 + 0.6 * len(panels) + 0.42 * sum(heights))
        figure = Figure(figsize=size, layout="constrained")
        keys = list(dict.fromkeys(key for panel in panels for bar in panel.bars for key, _ in bar.parts))
        named: set[str] = set()
        all_axes = figure.subplots(len(panels), squeeze=False, height_ratios=heights)[:, 0]
        for axes, panel in zip(all_axes, panels, strict=True):
            _draw_panel(axes, panel, keys, named)
        figure.legend(loc="outside lower center", ncols=5, frameon=False)
        dated = {"Date": None} if path.suffix.lower() == ".svg" else None
        try:
            figure.savefig(path, dpi=150, metadata=dated)
        except OSError as error:
            raise SetupError(f"--plot: {path}: {error.strerror}") from error


def _draw_panel(axes: Axes, panel: Panel, keys: Sequence[str], named: set[str]) -> None:
    _draw_bars(axes, panel.bars, keys, named)
    axes.set_yticks(range(len(panel.bars)), [bar.label for bar in panel.bars])
    axes.invert_yaxis()
    axes.set_xlabel("seconds")
    axes.set_title(panel.title)
    axes.grid(visible=True, axis="x", linewidth=0.4)
    axes.set_axisbelow(True)


def _draw_bars(axes: Axes, bars: Sequence[Bar], keys: Sequence[str], named: set[str]) -> None:
    for place, bar in enumerate(bars):
        left = 0.0
        for key, part in bar.parts:
            axes.barh(
                place,
                part.mean,
                left=left,
                height=0.6,
                color=_COLOURS[keys.index(key) % len(_COLOURS)],
                label=None if key in named else key,
                alpha=0.45 if bar.quoted else 1.0,
                edgecolor="white",
                linewidth=0.5,
            )
            named.add(key)
            left += part.mean
            _draw_interval(axes, place + 0.14, left, part.half_width)
        if bar.total is not None:
            _draw_interval(axes, place - 0.14, bar.total.mean, bar.total.half_width)


def _draw_interval(axes: Axes, place: float, end: float, half_width: float | None) -> None:
    if half_width is not None:
        axes.errorbar(end, place, xerr=half_width, color="black", capsize=2, linewidth=0.9)
