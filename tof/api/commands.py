"""The commands of ``tof`` that talk to a running agent; heavy imports wait until one is called."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

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
Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the service.")]
ServiceIp = Annotated[str, typer.Argument(metavar="SERVICE_IP", help="The address that UEs use.")]
ApplicationIp = Annotated[str, typer.Argument(metavar="APPLICATION_IP", help="The application at the edge.")]

services = typer.Typer(help="The services that are answered at the edge.", invoke_without_command=True)


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


@services.callback()
def services_default(context: typer.Context, api: Api = None, json_output: Json = False) -> None:
    """List the services, or change them."""
    # Subcommands inherit it: `tof services --api … add` means what `tof services add --api …` means.
    context.obj = api or context.obj
    if context.invoked_subcommand is None:
        services_list(context, api, json_output)


@services.command("list")
def services_list(context: typer.Context, api: Api = None, json_output: Json = False) -> None:
    """List the services."""
    body = call(context, lambda client: client.get("/service"), api)
    if json_output:
        print_json(body)
        return
    rows = [(s["name"], s["serviceIP"], s["applicationIP"]) for s in body]
    print_table(("name", "serviceIP", "applicationIP"), rows)


@services.command("add")
def services_add(
    context: typer.Context,
    name: Name,
    service_ip: ServiceIp,
    application_ip: ApplicationIp,
    api: Api = None,
    json_output: Json = False,
) -> None:
    """Add a service: new flows to SERVICE_IP are answered by APPLICATION_IP."""
    body = _service(name, service_ip, application_ip)
    done = call(context, lambda client: client.post("/service", body), api)
    print_json(done) if json_output else typer.echo(_in_force(done))


@services.command("set")
def services_set(
    context: typer.Context,
    name: Name,
    service_ip: ServiceIp,
    application_ip: ApplicationIp,
    rename: Annotated[str | None, typer.Option(help="Its new name.")] = None,
    api: Api = None,
    json_output: Json = False,
) -> None:
    """Change a service; its flows move at once."""
    body = _service(rename or name, service_ip, application_ip)
    done = call(context, lambda client: client.put(_path(name), body), api)
    print_json(done) if json_output else typer.echo(_in_force(done))


@services.command("remove")
def services_remove(
    context: typer.Context,
    key: Annotated[str, typer.Argument(metavar="NAME|SERVICE_IP", help="Which service.")],
    api: Api = None,
    json_output: Json = False,
) -> None:
    """Remove a service, by its name or its service IP; its flows end at once."""
    call(context, lambda client: client.delete(_path(key)), api)
    print_json({"removed": key}) if json_output else typer.echo(f"{key}: removed")


@services.command("status")
def services_status(context: typer.Context, name: Name, api: Api = None, json_output: Json = False) -> None:
    """Whether traffic to a service reaches its application."""
    body = call(context, lambda client: client.get(_path(name) + "/status"), api)
    if json_output:
        print_json(body)
        return
    typer.echo(": ".join(filter(None, (body["name"], body["state"], body["detail"]))))


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


def _service(name: str, service_ip: str, application_ip: str) -> dict[str, str]:
    return {"name": name, "serviceIP": service_ip, "applicationIP": application_ip}


def _path(key: str) -> str:
    return "/service/" + quote(key, safe="")


def _in_force(service: dict[str, str]) -> str:
    return f"{service['name']}: {service['serviceIP']} is answered by {service['applicationIP']}"


def _cell(value: object) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value))
    return "-" if value is None else str(value)


def _ends(tunnels: Sequence[dict[str, Any]]) -> str:
    return "  ".join(f"{t['source']} > {t['destination']} {t['teid']:#010x}" for t in tunnels) or "-"
