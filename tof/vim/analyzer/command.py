"""``tof vim analyze``: the command line; heavy imports wait until it is called."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tof.api.commands import Json, print_json, print_table
from tof.errors import DecodeError, SetupError

if TYPE_CHECKING:
    from tof.vim.analyzer.phases import Analysis
    from tof.vim.analyzer.reading import Messages

vim = typer.Typer(
    help="Virtual Infrastructure Managers: what they do and how long it takes.", no_args_is_help=True
)


class Vims(Enum):
    """The VIMs whose messages are understood."""

    NOVA = "nova"
    NOMAD = "nomad"
    OPENVIM = "openvim"


Capture = Annotated[
    Path,
    typer.Argument(metavar="CAPTURE", help="pcap or pcapng, also gzipped; or an OpenVIM transcript."),
]
Plot = Annotated[Path | None, typer.Option(metavar="FILE", help="Draw the phases: .png, .svg or .pdf.")]
Which = Annotated[Vims | None, typer.Option("--vim", help="Whose messages; default: whose there are.")]
Anchors = Annotated[bool, typer.Option("--anchors", help="Draw the source document's figures beside.")]


@vim.callback()
def group() -> None:
    """Virtual Infrastructure Managers: what they do and how long it takes."""


@vim.command()
def analyze(
    capture: Capture,
    which: Which = None,
    plot: Plot = None,
    anchors: Anchors = False,
    json_output: Json = False,
) -> None:
    """From a capture of a VIM's messages alone: the time of each phase of each instantiation."""
    from tof.vim.analyzer import analysis, report
    from tof.vim.chart import check_format

    if plot is not None:
        check_format(plot)
    elif anchors:
        raise SetupError("--anchors goes with --plot FILE")
    messages = _read(capture)
    found = analysis.analyse(messages, None if which is None else which.value)
    if plot is not None:
        _draw(found, plot, capture.name, anchors=anchors)
    if json_output:
        print_json(report.document(str(capture), messages, found))
    else:
        _print(found, messages.notes)


def _read(capture: Path) -> Messages:
    from tof.vim.analyzer import analysis

    try:
        return analysis.read(capture.read_bytes())
    except OSError as error:
        raise SetupError(f"{capture}: {error.strerror}") from error
    except DecodeError as error:
        raise SetupError(f"{capture}: {error}") from error


def _draw(found: Analysis, plot: Path, name: str, *, anchors: bool) -> None:
    from tof.vim import chart
    from tof.vim.analyzer import report
    from tof.vim.anchors import bars

    measured = report.bars(found)
    if not measured:
        raise SetupError("--plot: no instantiation of the capture became active")
    chart.draw([*measured, *(bars(found.vim) if anchors else [])], plot, f"{found.vim}: {name}")


def _print(found: Analysis, notes: list[str]) -> None:
    from tof.vim.analyzer import report

    print_table(report.columns(found), report.rows(found))
    means, missing = list(report.mean_rows(found)), list(report.missing_rows(found))
    for columns, rows in ((report.MEAN_COLUMNS, means), (report.MISSING_COLUMNS, missing)):
        if rows:
            typer.echo()
            print_table(columns, rows)
    said = [*report.remarks(found), *notes]
    if said:
        typer.echo()
    for line in said:
        typer.echo(f"note: {line}")
