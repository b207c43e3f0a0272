"""``tof services``: the commands that show the services of a running agent, and change them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final
from urllib.parse import quote

import typer

from tof.api.commands import Api, Json, call, print_json, print_table
from tof.model import Mode, OnDeath, SpreadBy

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the service.")]
ServiceIp = Annotated[
    str,
    typer.Argument(
        metavar="SERVICE_IP|DOMAIN",
        help="The address that UEs use, a prefix, or the domain they ask DNS for.",
    ),
]
ApplicationIp = Annotated[str, typer.Argument(metavar="APPLICATION_IP", help="The application at the edge.")]
Protocol = Annotated[
    str | None, typer.Option("--protocol", help="Only tcp, udp, sctp, icmp, or this protocol number.")
]
Ports = Annotated[
    list[str] | None,
    typer.Option("--port", metavar="PORT|FIRST-LAST", help="Only these destination ports (repeatable)."),
]
ApplicationPort = Annotated[
    int | None, typer.Option("--application-port", help="The one --port is this port at the application.")
]
Dscps = Annotated[list[int] | None, typer.Option("--dscp", help="Only this DSCP (repeatable).")]
Vlans = Annotated[list[int] | None, typer.Option("--vlan", help="Only this VLAN; 0: untagged (repeatable).")]
Ues = Annotated[
    list[str] | None, typer.Option("--ue", metavar="PREFIX", help="Only UEs of this prefix (repeatable).")
]
Enbs = Annotated[
    list[str] | None,
    typer.Option("--enb", metavar="PREFIX", help="Only behind an eNB of this prefix (repeatable)."),
]
Sgws = Annotated[
    list[str] | None,
    typer.Option("--sgw", metavar="PREFIX", help="Only towards an SGW of this prefix (repeatable)."),
]
Priority = Annotated[
    int | None, typer.Option("--priority", help="Above services with a lower one, -1000 to 1000; default 0.")
]
ModeOption = Annotated[Mode | None, typer.Option("--mode", help="shadow: count, and divert nothing.")]
HealthOption = Annotated[
    str | None,
    typer.Option(
        "--health", metavar="KIND[:PORT][/PATH]", help="Ask whether it lives: tcp, http:8080/healthz, icmp."
    ),
]
ChainOption = Annotated[
    str | None,
    typer.Option("--chain", metavar="CHAIN", help="Its packets walk this port-chain of the policy."),
]
HoursOption = Annotated[
    list[str] | None,
    typer.Option("--hours", metavar="HOURS", help="Only then: 'Mon-Fri 08:00-18:00', Sat,Sun (repeatable)."),
]
MirrorOption = Annotated[
    str | None,
    typer.Option(
        "--mirror", metavar="interface:IF|file:NAME", help="Duplicate its packets, both ways, to there."
    ),
]
AlsoOption = Annotated[
    list[str] | None,
    typer.Option("--also", metavar="APPLICATION_IP", help="A further application of it (repeatable)."),
]
ByOption = Annotated[
    SpreadBy | None,
    typer.Option(
        "--by", help="Its applications share its UEs or flows; order: the first one that lives has all."
    ),
]
OnDeathOption = Annotated[
    OnDeath | None, typer.Option("--on-death", help="Where a dead application's share goes; default next.")
]
InitiatesOption = Annotated[
    str | None,
    typer.Option("--initiates", metavar="any|none", help="Whether its application may open flows to UEs."),
]

FIELDS: Final[Mapping[str, str]] = {
    "service_ip": "serviceIP",
    "application_ip": "applicationIP",
    "protocol": "protocol",
    "ports": "ports",
    "application_port": "applicationPort",
    "dscps": "dscp",
    "vlans": "vlans",
    "ues": "ues",
    "enbs": "enbs",
    "sgws": "sgws",
    "priority": "priority",
    "mode": "mode",
    "health": "health",
    "chain": "chain",
    "hours": "hours",
    "mirror": "mirror",
    "initiates": "initiates",
}
"""What the parameters of ``add`` and ``set`` are in the API."""
SHOWN: Final[Mapping[str, str]] = {
    "protocol": "",
    "ports": "port",
    "dscp": "dscp",
    "vlans": "vlan",
    "ues": "ue",
    "enbs": "enb",
    "sgws": "sgw",
    "priority": "priority",
    "mode": "",
}
"""The fields of a selection and the words before them, in the order in which they are read."""

services = typer.Typer(help="The services that are answered at the edge.", invoke_without_command=True)


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
    rows = [(s["name"], _place(s), _application(s), selection_text(s) or "all") for s in body]
    print_table(("name", "service", "applicationIP", "selection"), rows)


@services.command("add")
def services_add(
    context: typer.Context,
    name: Name,
    service_ip: ServiceIp,
    application_ip: ApplicationIp,
    protocol: Protocol = None,
    ports: Ports = None,
    application_port: ApplicationPort = None,
    dscps: Dscps = None,
    vlans: Vlans = None,
    ues: Ues = None,
    enbs: Enbs = None,
    sgws: Sgws = None,
    priority: Priority = None,
    mode: ModeOption = None,
    health: HealthOption = None,
    chain: ChainOption = None,
    hours: HoursOption = None,
    mirror: MirrorOption = None,
    also: AlsoOption = None,
    by: ByOption = None,
    on_death: OnDeathOption = None,
    initiates: InitiatesOption = None,
    api: Api = None,
    json_output: Json = False,
) -> None:
    """Add a service: new flows to SERVICE_IP are answered by APPLICATION_IP."""
    body = _service(name, context.params)
    done = call(context, lambda client: client.post("/service", body), api)
    print_json(done) if json_output else typer.echo(_in_force(done))


@services.command("set")
def services_set(
    context: typer.Context,
    name: Name,
    service_ip: ServiceIp,
    application_ip: ApplicationIp,
    rename: Annotated[str | None, typer.Option(help="Its new name.")] = None,
    protocol: Protocol = None,
    ports: Ports = None,
    application_port: ApplicationPort = None,
    dscps: Dscps = None,
    vlans: Vlans = None,
    ues: Ues = None,
    enbs: Enbs = None,
    sgws: Sgws = None,
    priority: Priority = None,
    mode: ModeOption = None,
    health: HealthOption = None,
    chain: ChainOption = None,
    hours: HoursOption = None,
    mirror: MirrorOption = None,
    also: AlsoOption = None,
    by: ByOption = None,
    on_death: OnDeathOption = None,
    initiates: InitiatesOption = None,
    api: Api = None,
    json_output: Json = False,
) -> None:
    """Make a service what is given here, whatever it was; its flows move at once."""
    body = _service(rename or name, context.params)
    done = call(context, lambda client: client.put(_path(name), body), api)
    print_json(done) if json_output else typer.echo(_in_force(done))


@services.command("remove")
def services_remove(
    context: typer.Context,
    key: Annotated[str, typer.Argument(metavar="NAME|SERVICE_IP|DOMAIN", help="Which service.")],
    api: Api = None,
    json_output: Json = False,
) -> None:
    """Remove a service, by its name, its service IP or its domain; its flows end at once."""
    call(context, lambda client: client.delete(_path(key)), api)
    print_json({"removed": key}) if json_output else typer.echo(f"{key}: removed")


@services.command("usage")
def services_usage(context: typer.Context, api: Api = None, json_output: Json = False) -> None:
    """Each UE's traffic with each service, both ways, since its account began."""
    body = call(context, lambda client: client.get("/usage"), api)
    if json_output:
        print_json(body)
        return
    rows = [(u["service"], u["ue"], u["enb"], u["sgw"], *map(str, _both_ways(u)), u["end"]) for u in body]
    print_table(("service", "UE", "eNB", "SGW", "up", "bytes", "down", "bytes", "last"), rows)


def _both_ways(usage: Mapping[str, Any]) -> tuple[int, ...]:
    return tuple(usage[way][unit] for way in ("uplink", "downlink") for unit in ("packets", "bytes"))


@services.command("status")
def services_status(context: typer.Context, name: Name, api: Api = None, json_output: Json = False) -> None:
    """Whether traffic to a service reaches its application."""
    body = call(context, lambda client: client.get(_path(name) + "/status"), api)
    if json_output:
        print_json(body)
        return
    typer.echo(": ".join(filter(None, (body["name"], body["state"], body["detail"]))))
    for one in body.get("addresses", ()):
        typer.echo(f"  {one['address']} until {one['until']}")


def selection_text(service: Mapping[str, Any]) -> str:
    """What a service of the API selects, in words; empty if every packet to its addresses."""
    words: list[str] = []
    for field, word in SHOWN.items():
        if field in service:
            value = service[field]
            words += [word, ",".join(map(str, value)) if isinstance(value, list) else str(value)]
    return " ".join(filter(None, words))


def _service(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    body: dict[str, Any] = {"name": name}
    for parameter, field in FIELDS.items():
        value = given[parameter]
        if value not in (None, [], ()):
            body[field] = value
    if not _is_address(body["serviceIP"]):
        body["domain"] = body.pop("serviceIP")
    if "protocol" in body:
        body["protocol"] = _number_or_word(body["protocol"])
    if "ports" in body:
        body["ports"] = [_number_or_word(port) for port in body["ports"]]
    if "health" in body:
        body["health"] = health_option(body["health"])
    if "mirror" in body:
        body["mirror"] = _mirror(body["mirror"])
    words = {"by": given["by"], "onDeath": given["on_death"]}
    spread = {field: str(word) for field, word in words.items() if word is not None}
    if given["also"]:
        body["spread"] = {"applications": list(given["also"]), **spread}
    elif spread:
        raise typer.BadParameter("needs --also", param_hint="--by, --on-death")
    return body


def health_option(text: str) -> dict[str, Any]:
    """The health check that ``KIND[:PORT][/PATH]`` means."""
    found = re.fullmatch(r"(?P<kind>[a-z]+)(:(?P<port>[0-9]{1,5}))?(?P<path>/.*)?", text)
    if found is None:
        raise typer.BadParameter(f"{text!r} is not KIND[:PORT][/PATH]", param_hint="--health")
    kind, port, path = found["kind"], found["port"], found["path"]
    return {"kind": kind} | ({"port": int(port)} if port else {}) | ({"path": path} if path else {})


def _mirror(text: str) -> dict[str, Any]:
    kind, _, name = text.partition(":")
    if kind not in ("interface", "file") or not name:
        raise typer.BadParameter(f"{text!r} is neither interface:IF nor file:NAME", param_hint="--mirror")
    return {kind: name}


def _number_or_word(text: str) -> int | str:
    return int(text) if text.isdecimal() else text


def _is_address(text: str) -> bool:
    """Whether it is meant to be one: a domain has letters, and no colon or slash."""
    return ":" in text or "/" in text or not re.search("[A-Za-z]", text)


def _place(service: Mapping[str, Any]) -> str:
    return str(service.get("serviceIP") or service["domain"])


def _path(key: str) -> str:
    return "/service/" + quote(key, safe="")


def _application(service: Mapping[str, Any]) -> str:
    port, further = service.get("applicationPort"), service.get("spread", {}).get("applications", [])
    where = ", ".join((service["applicationIP"], *further))
    return f"{where} port {port}" if port else where


def _in_force(service: Mapping[str, Any]) -> str:
    selection = selection_text(service)
    what = f"{_place(service)} ({selection})" if selection else _place(service)
    verb = "would be" if service.get("mode") == Mode.SHADOW else "is"
    return f"{service['name']}: {what} {verb} answered by {_application(service)}"
