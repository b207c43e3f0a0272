"""``tof vim bench``: the command line; heavy imports wait until it is called."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from tof.api.commands import Api, Json, call, print_json, print_table
from tof.errors import BackendError, SetupError

if TYPE_CHECKING:
    from tof.api.client import ApiClient
    from tof.vim.bench.plan import Plan
    from tof.vim.bench.running import Work
    from tof.vim.bench.samples import Results

DEFAULT_COMMAND: Final = ("/bin/sleep", "infinity")
"""The least there is: its kernel answers an echo, as the source's ClickOS does."""
_GIVEN: Final = ("name", "services", "restart")


def bench(
    context: typer.Context,
    command: Annotated[
        list[str] | None, typer.Argument(metavar="[-- COMMAND...]", help="What each instance runs.")
    ] = None,
    runs: Annotated[int, typer.Option(help="How often each experiment is repeated.")] = 100,
    background: Annotated[str, typer.Option(metavar="N,N,…", help="Also with so many running.")] = "",
    batch: Annotated[str, typer.Option(metavar="N-N", help="Also so many at once.")] = "",
    batch_background: Annotated[
        str, typer.Option(metavar="N,N,…", help="Batches with so many running.")
    ] = "",
    vim: Annotated[str | None, typer.Option(help="Which VIM makes them; default: local.")] = None,
    image: Annotated[str | None, typer.Option(help="An image that the VIM knows.")] = None,
    file: Annotated[
        Path | None, typer.Option("--file", "-f", metavar="FILE", help="The app otherwise, YAML or JSON.")
    ] = None,
    timeout: Annotated[float, typer.Option(metavar="SECONDS", help="An instance takes no longer.")] = 120.0,
    csv: Annotated[Path | None, typer.Option(metavar="FILE", help="Every instantiation, CSV.")] = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw it: .png, .svg or .pdf.")] = None,
    api: Api = None,
    json_output: Json = False,
) -> None:
    """How long a running agent's VIM takes for one app, for one more, for several at once; and the TOF's own share."""
    from tof.vim.bench.plan import plan_of
    from tof.vim.bench.running import Work
    from tof.vim.chart import check_format

    if plot is not None:
        check_format(plot)
    plan = plan_of(runs, background, batch, batch_background)
    work = Work(plan, _app(file, vim=vim, image=image, command=command), timeout)
    if csv is not None:
        _write(csv, "")
    results = _measured(context, work, api)
    _tell(results, csv, plot, json_output=json_output)
    if results.left:
        names = ", ".join(results.left)
        raise BackendError(f"{results.error or 'measured'}; cannot remove {names}: see `tof apps`")
    if results.error:
        raise BackendError(f"{results.error}; what was made is removed")


def _measured(context: typer.Context, work: Work, api: str | None) -> Results:
    from tof.vim.bench.running import Bench

    with _progress(work.plan) as told:

        async def action(client: ApiClient) -> Results:
            task = asyncio.current_task()
            assert task is not None
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
            return await Bench(client, work, told).run()

        results: Results = call(context, action, api)
    return results


@contextmanager
def _progress(plan: Plan) -> Iterator[Callable[[str, int], None]]:
    """A bar on standard error: instances made, and what is being done."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(file=sys.stderr)) as bars:
        bar = bars.add_task("beginning", total=plan.instances)

        def told(what: str, instances: int) -> None:
            bars.update(bar, advance=instances, description=what or None)

        yield told


def _app(file: Path | None, **options: Any) -> dict[str, Any]:
    from tof.api.app_commands import read_app

    body = {} if file is None else read_app(file)
    for field in _GIVEN:
        if field in body:
            raise SetupError(f"{file}: {field}: the benchmark gives each instance its own")
    body |= {name: value for name, value in options.items() if value}
    if "image" not in body:
        body.setdefault("command", list(DEFAULT_COMMAND))
    return body


def _tell(results: Results, csv: Path | None, plot: Path | None, *, json_output: bool) -> None:
    from tof.vim.bench import report
    from tof.vim.chart import draw_panels

    if csv is not None:
        _write(csv, report.table_csv(results))
    drawn = report.panels(results)
    if plot is not None and drawn:
        draw_panels(drawn, plot)
    if json_output:
        print_json(report.document(results))
    elif drawn:
        print_table(report.COLUMNS, report.rows(results))
        typer.echo()
        typer.echo(report.goal_line(results))
        typer.echo("source: ClickOS on Xen, tuned OpenVIM; compare shapes, not values")


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise SetupError(f"--csv: {path}: {error.strerror}") from error
