"""``tof apps``: the commands that show the ME Apps of a running agent, have them made and removed."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final
from urllib.parse import quote

import typer

from tof.api.commands import Api, Json, call, print_json, print_table
from tof.errors import BackendError, NotFound, SetupError

if TYPE_CHECKING:
    from tof.api.client import ApiClient

ASK_EACH_S: Final = 0.1
Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the app.")]
Wait = Annotated[
    bool, typer.Option("--wait/--no-wait", help="Return when it is done; else when it is accepted.")
]
Timeout = Annotated[float, typer.Option("--timeout", metavar="SECONDS", help="Wait no longer than so.")]
File = Annotated[
    Path | None, typer.Option("--file", "-f", metavar="FILE", help="The app, YAML or JSON; - is stdin.")
]

apps = typer.Typer(help="ME Apps, which a VIM runs, and their services.", invoke_without_command=True)


@apps.callback()
def apps_default(context: typer.Context, api: Api = None, json_output: Json = False) -> None:
    """List the apps, or change them."""
    context.obj = api or context.obj
    if context.invoked_subcommand is None:
        apps_list(context, api, json_output)


@apps.command("list")
def apps_list(context: typer.Context, api: Api = None, json_output: Json = False) -> None:
    """List the apps."""
    body = call(context, lambda client: client.get("/apps"), api)
    if json_output:
        print_json(body)
        return
    rows = [(a["name"], a["vim"], a["state"], a["reach"] or "-", _services(a), _why(a)) for a in body]
    print_table(("name", "vim", "state", "address", "services", "error"), rows)


@apps.command("show")
def apps_show(context: typer.Context, name: Name, api: Api = None, json_output: Json = False) -> None:
    """How an app is, and how long each of its phases took."""
    body = call(context, lambda client: client.get(_path(name)), api)
    if json_output:
        print_json(body)
        return
    for line in _shown(body):
        typer.echo(line)


@apps.command("create")
def apps_create(
    context: typer.Context,
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Its name, unless FILE has it.")
    ] = None,
    command: Annotated[
        list[str] | None, typer.Argument(metavar="[-- COMMAND...]", help="What it runs.")
    ] = None,
    file: File = None,
    vim: Annotated[str | None, typer.Option(help="Which VIM makes it.")] = None,
    image: Annotated[str | None, typer.Option(help="An image that the VIM knows.")] = None,
    cpu: Annotated[float | None, typer.Option(help="Processors that it may take.")] = None,
    memory: Annotated[int | None, typer.Option(metavar="MB", help="MiB of memory that it may take.")] = None,
    env: Annotated[list[str] | None, typer.Option("--env", metavar="NAME=VALUE", help="(repeatable)")] = None,
    group: Annotated[list[str] | None, typer.Option("--group", help="Security group (repeatable).")] = None,
    health: Annotated[str | None, typer.Option(metavar="KIND[:PORT][/PATH]")] = None,
    service: Annotated[
        list[str] | None,
        typer.Option(
            "--service",
            metavar="NAME=IP[:PORT[:APPLICATION_PORT]]",
            help="It answers there, by TCP if a port is given.",
        ),
    ] = None,
    restart: Annotated[str | None, typer.Option(metavar="always|never")] = None,
    wait: Wait = True,
    timeout: Timeout = 300.0,
    api: Api = None,
    json_output: Json = False,
) -> None:
    """Have an app: return when its services are in force."""
    body: dict[str, Any] = {} if file is None else read_app(file)
    body |= {} if name is None else {"name": name}
    body |= _given(
        vim=vim, image=image, restart=restart, command=command, groups=group,
        flavour=_flavour(cpu, memory), environment=dict(_pair(text) for text in env or ()),
        services=[_service(text) for text in service or ()], health=_health(health),
    )  # fmt: skip
    if "name" not in body:
        raise typer.BadParameter("a name is needed, here or in the file", param_hint="NAME")
    done = call(context, lambda client: _create(client, body, timeout if wait else 0), api)
    if json_output:
        print_json(done)
        return
    for line in _shown(done):
        typer.echo(line)


@apps.command("delete")
def apps_delete(
    context: typer.Context,
    name: Name,
    wait: Wait = True,
    timeout: Timeout = 300.0,
    api: Api = None,
    json_output: Json = False,
) -> None:
    """Have an app no longer: its services are withdrawn, then it is removed."""
    call(context, lambda client: _delete(client, name, timeout if wait else 0), api)
    what = "deleted" if wait else "deleting"
    print_json({what: name}) if json_output else typer.echo(f"{name}: {what}")


async def _create(client: ApiClient, body: Mapping[str, Any], timeout_s: float) -> Any:
    view = await client.post("/apps", body)
    view = await _followed(client, view, timeout_s, ("ready", "failed"))
    if view["state"] == "failed":
        error = view["error"]
        raise BackendError(f"{view['name']}: {error['step']}: {error['vim_message']}; {error['hint']}")
    return view


async def _delete(client: ApiClient, name: str, timeout_s: float) -> None:
    await client.delete(_path(name))
    if not timeout_s:
        return
    try:
        await _followed(client, await client.get(_path(name)), timeout_s, ())
    except NotFound:
        return


async def _followed(client: ApiClient, view: Any, timeout_s: float, ends: tuple[str, ...]) -> Any:
    """The app once it is in one of these states; what it goes through is told on standard error."""
    loop, told = asyncio.get_running_loop(), ""
    began = loop.time()
    while timeout_s and view["state"] not in ends:
        if told != view["state"]:
            told = view["state"]
            print(f"{loop.time() - began:7.3f} s  {view['name']}: {told}", file=sys.stderr)
        if loop.time() - began > timeout_s:
            raise BackendError(
                f"{view['name']} is {told} after {timeout_s:g} s; it goes on: see `tof apps show`"
            )
        await asyncio.sleep(ASK_EACH_S)
        view = await client.get(_path(view["name"]))
    return view


def _shown(view: Mapping[str, Any]) -> list[str]:
    step = f" ({view['step']})" if view["step"] else ""
    lines = [f"{view['name']}: {view['state']}{step} on {view['vim']}"]
    lines += [f"  address {', '.join(view['addresses'])}"] if view["addresses"] else []
    lines += [f"  services {_services(view)}"] if view["spec"].get("services") else []
    lines += [f"  {phase:18} {seconds * 1000:9.1f} ms" for phase, seconds in view["timings"].items()]
    if error := view["error"]:
        lines += [
            f"  failed in {error['step']}: {error['vim_message']}",
            f"  what to do: {error['hint'] or '-'}",
        ]
    return lines


def _services(view: Mapping[str, Any]) -> str:
    return ", ".join(service.get("name", "?") for service in view["spec"].get("services", [])) or "-"


def _why(view: Mapping[str, Any]) -> str:
    error = view["error"]
    return "-" if error is None else f"{error['step']}: {error['vim_message']}"[:80]


def _given(**fields: object) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value not in (None, [], {}, ())}


def _flavour(cpu: float | None, memory: int | None) -> dict[str, Any]:
    return _given(cpu=cpu, memoryMb=memory)


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise typer.BadParameter(f"{text!r} is not NAME=VALUE", param_hint="--env")
    return name, value


def _service(text: str) -> dict[str, Any]:
    name, equals, place = text.partition("=")
    address, *ports = place.rsplit(":", 2) if place.count(":") < 3 else [place]
    if not name or not equals or not all(port.isdecimal() for port in ports):
        raise typer.BadParameter(f"{text!r} is not NAME=IP[:PORT[:APPLICATION_PORT]]", param_hint="--service")
    body: dict[str, Any] = {"name": name, "serviceIP": address}
    if ports:
        body |= {"protocol": "tcp", "ports": [int(ports[0])]}
    return body | ({"applicationPort": int(ports[1])} if len(ports) > 1 else {})


def _health(text: str | None) -> dict[str, Any]:
    from tof.api.service_commands import health_option

    return {} if text is None else health_option(text)


def read_app(file: Path) -> dict[str, Any]:
    """An app that a file describes; SetupError if it does not."""
    import yaml

    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
        body = yaml.safe_load(text)
    except OSError as error:
        raise SetupError(f"{file}: {error.strerror}") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise SetupError(f"{file}: neither YAML nor JSON: {error}") from error
    if not isinstance(body, dict):
        raise SetupError(f"{file}: is no app, which is an object")
    return body


def _path(name: str) -> str:
    return "/apps/" + quote(name, safe="")
