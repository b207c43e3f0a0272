"""The commands of ``tof`` that ask a running agent; heavy imports wait until one is called."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from tof.api.client import ApiClient

ADDRESS_VARIABLE = "TOF_API"
PIPE_WIDTH = 250

Api = Annotated[
    str | None,
    typer.Option("--api", metavar="URL|unix:PATH", help="Which agent; default: the socket, then port 8080."),
]
Json = Annotated[bool, typer.Option("--json", help="Print a JSON document and nothing else on stdout.")]


def status(context: typer.Context, api: Api = None, json_output: Json = False) -> None:
    """How the agent is: its health, check by check."""
    body = call(context, lambda client: client.get("/health"), api)
    if json_output:
        print_json(body)
        return
    typer.echo(f"tof {body['version']}: {body['state']}")
    print_table(("check", "state", "detail"), [(c["name"], c["state"], c["detail"]) for c in body["checks"]])


def tunnels(
    context: typer.Context,
    ue: Annotated[str | None, typer.Option(help="Only tunnels of this UE.")] = None,
    teid: Annotated[int | None, typer.Option(help="Only tunnels with this TEID.")] = None,
    source: Annotated[str | None, typer.Option(help="Only tunnels from this address.")] = None,
    destination: Annotated[str | None, typer.Option(help="Only tunnels to this address.")] = None,
    api: Api = None,
    json_output: Json = False,
) -> None:
    """The GTP-U tunnels that have been learnt."""
    given = {"ue": ue, "teid": teid, "source": source, "destination": destination}
    params = {name: str(value) for name, value in given.items() if value is not None}
    body = call(context, lambda client: client.get("/tunnels", params), api)
    if json_output:
        print_json(body)
        return
    columns = (
        "direction",
        "vlan",
        "source",
        "destination",
        "teid",
        "ues",
        "qfi",
        "state",
        "packets",
        "bytes",
    )
    print_table(
        (*columns, "last_seen"), [[_cell(row[name]) for name in (*columns, "last_seen")] for row in body]
    )


def sessions(context: typer.Context, api: Api = None, json_output: Json = False) -> None:
    """The UEs, with their uplink and downlink tunnels."""
    body = call(context, lambda client: client.get("/sessions"), api)
    if json_output:
        print_json(body)
        return
    rows = [(s["ue"], _ends(s["uplink"]), _ends(s["downlink"]), s["state"]) for s in body]
    print_table(("ue", "uplink", "downlink", "state"), rows)


def call(context: typer.Context, action: Callable[[ApiClient], Awaitable[Any]], api: str | None) -> Any:
    """What ``action`` gets from the agent that ``--api`` (or TOF_API, or the default places) means."""
    from tof.api.client import DEFAULT_ADDRESSES, connect

    chosen = api or context.obj or os.environ.get(ADDRESS_VARIABLE)

    async def run() -> Any:
        async with connect((chosen,) if chosen else DEFAULT_ADDRESSES) as client:
            return await action(client)

    return asyncio.run(run())


def print_json(document: object) -> None:
    """The document, alone on stdout."""
    typer.echo(json.dumps(document, indent=2))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table for people; never cut when it goes into a pipe."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console(width=None if sys.stdout.isatty() else PIPE_WIDTH).print(table)


def _cell(value: object) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value))
    return "-" if value is None else str(value)


def _ends(tunnels: Sequence[dict[str, Any]]) -> str:
    return "  ".join(f"{t['source']} > {t['destination']} {t['teid']:#010x}" for t in tunnels) or "-"
