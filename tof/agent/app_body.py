"""An ME App as JSON: the body that the API takes and gives, and that the store keeps."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from tof.agent.addresses import parse_prefix
from tof.agent.app import APPS_NETWORK, PLACEHOLDERS, App, AppFault, AppRow, AppView, Flavour, Restart, Step
from tof.agent.health_body import health_body, parse_health
from tof.agent.service_body import body_of, parse
from tof.agent.service_check import checked_health
from tof.errors import BadRequest, Conflict
from tof.model import ProbeKind, Service

FIELDS: Final = (
    "name",
    "vim",
    "image",
    "command",
    "flavour",
    "networks",
    "environment",
    "groups",
    "health",
    "services",
    "restart",
)
NAME: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")
"""Apps' names become names on hosts and of servers: the strictest of these."""
IMAGE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
MOST_WORDS, MOST_VARIABLES, MOST_SERVICES, LONGEST_TEXT = 256, 256, 64, 4096
LEAST_CPU, MOST_CPU, LEAST_MB, MOST_MB = 0.01, 1024, 4, 16 * 1024 * 1024


def parse_app(body: Mapping[str, object]) -> App:
    """The app that a body describes; BadRequest or Conflict name the field at fault."""
    for field in body:
        if field not in FIELDS:
            raise BadRequest(f"{field} is not a field of an app", field)
    app = App(
        name=_matching(body, "name", NAME, "1 to 32 of a-z, 0-9 and -, hyphens only between others"),
        vim=_matching(body, "vim", NAME, "the name of a VIM") if "vim" in body else "local",
        image=_matching(body, "image", IMAGE, "the name of an image") if "image" in body else None,
        command=_words(body, "command", MOST_WORDS),
        flavour=_flavour(body.get("flavour", {})),
        networks=_words(body, "networks", 16) or (APPS_NETWORK,),
        environment=_environment(body.get("environment", {})),
        groups=_words(body, "groups", 16),
        health=checked_health(parse_health(body["health"])) if "health" in body else None,
        services=_services(body.get("services", [])),
        restart=_restart(body.get("restart", Restart.ALWAYS)),
    )
    return _checked(app)


def app_body(app: App) -> dict[str, object]:
    """What ``parse_app`` reads; only what is not as it is by default."""
    flavour = {"cpu": app.flavour.cpu, "memoryMb": app.flavour.memory_mb}
    optional: dict[str, object] = {
        "image": app.image,
        "command": list(app.command),
        "flavour": {name: value for name, value in flavour.items() if value is not None},
        "networks": [] if app.networks == (APPS_NETWORK,) else list(app.networks),
        "environment": dict(app.environment),
        "groups": list(app.groups),
        "health": None if app.health is None else health_body(app.health),
        "services": [service_template(service) for service in app.services],
        "restart": None if app.restart is Restart.ALWAYS else app.restart.value,
    }
    shown = {field: value for field, value in optional.items() if value not in (None, [], {})}
    return {"name": app.name, "vim": app.vim, **shown}


def service_template(service: Service) -> dict[str, object]:
    """The body of a service that has no application's address yet."""
    return {field: value for field, value in body_of(service).items() if field != "applicationIP"}


def fault_body(fault: AppFault | None) -> dict[str, str] | None:
    """The ``error`` of an app."""
    if fault is None:
        return None
    return {"step": fault.step.value, "vim_message": fault.message, "hint": fault.hint}


def parse_fault(body: Mapping[str, str] | None) -> AppFault | None:
    """What ``fault_body`` wrote."""
    return None if body is None else AppFault(Step(body["step"]), body["vim_message"], body["hint"])


def row_body(row: AppRow) -> dict[str, object]:
    """What is kept of an app."""
    fault = fault_body(row.fault)
    return {"app": app_body(row.app), "wanted": row.wanted, "ready": row.ready, "error": fault}


def parse_row(body: Mapping[str, Any]) -> AppRow:
    """What ``row_body`` wrote."""
    return AppRow(
        parse_app(body["app"]), bool(body["wanted"]), bool(body["ready"]), parse_fault(body["error"])
    )


def view_body(view: AppView) -> dict[str, object]:
    """One app as the API shows it."""
    built = view.built
    return {
        "name": view.app.name,
        "vim": view.app.vim,
        "state": view.state.value,
        "step": None if view.step is None else view.step.value,
        "addresses": [] if built is None else [str(address) for address in built.addresses],
        "reach": None if built is None else str(built.reach),
        "restarts": view.restarts,
        "timings": {phase: round(seconds, 6) for phase, seconds in view.timings},
        "error": fault_body(view.fault),
        "spec": app_body(view.app),
    }


def _checked(app: App) -> App:
    if not app.command and app.image is None:
        raise BadRequest("an app needs a command, an image, or both", "command")
    if APPS_NETWORK not in app.networks:
        raise BadRequest(f'networks lacks "{APPS_NETWORK}", which leads to the TOF', "networks")
    kind, port = app.probe
    if kind.kind is not ProbeKind.ICMP and not port:
        raise BadRequest("health.port is missing: no service of the app has a TCP port", "health.port")
    return app


def _services(value: object) -> tuple[Service, ...]:
    if not isinstance(value, list):
        raise BadRequest("services is not a list", "services")
    if len(value) > MOST_SERVICES:
        raise BadRequest(f"services has {len(value)} entries, more than {MOST_SERVICES}", "services")
    found: list[Service] = []
    for at, body in enumerate(value):
        where = f"services[{at}]"
        if not isinstance(body, Mapping):
            raise BadRequest(f"{where} is not an object", where)
        if "applicationIP" in body:
            why = f"{where}.applicationIP: the VIM gives the application its address"
            raise BadRequest(why, f"{where}.applicationIP")
        try:
            service = parse({**body, "applicationIP": _placeholder(body)})
        except BadRequest as error:
            raise at_service(at, error) from error
        if service.name in {other.name for other in found}:
            raise BadRequest(f"{where}.name: {service.name} is the name of another one", f"{where}.name")
        found.append(service)
    return tuple(found)


def at_service(at: int, error: BadRequest | Conflict) -> BadRequest | Conflict:
    """The error of the app's service number ``at``, as one of the app."""
    field = f"services[{at}].{error.field}" if error.field else f"services[{at}]"
    return type(error)(f"{field}: {str(error).removeprefix(f'{error.field}: ')}", field)


def _placeholder(body: Mapping[str, Any]) -> str:
    try:
        version = parse_prefix(str(body["serviceIP"]))[0].version
    except (KeyError, ValueError):  # by domain alone; or wrong, which the service's own reading tells
        version = 4
    return str(PLACEHOLDERS[version])


def _flavour(value: object) -> Flavour:
    if not isinstance(value, Mapping):
        raise BadRequest("flavour is not an object", "flavour")
    for field in value:
        if field not in ("cpu", "memoryMb"):
            raise BadRequest(f"{field} is not a field of flavour", f"flavour.{field}")
    cpu, memory = value.get("cpu"), value.get("memoryMb")
    _within(cpu, (LEAST_CPU, MOST_CPU), "flavour.cpu", (int, float))
    _within(memory, (LEAST_MB, MOST_MB), "flavour.memoryMb", (int,))
    return Flavour(None if cpu is None else float(cpu), memory)


def _within(value: Any, bounds: tuple[float, float], field: str, types: tuple[type, ...]) -> None:
    if value is None:
        return
    good = isinstance(value, types) and not isinstance(value, bool)
    if not good or not bounds[0] <= value <= bounds[1]:
        raise BadRequest(f"{field} is not a number from {bounds[0]:g} to {bounds[1]:g}", field)


def _environment(value: object) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, Mapping) or len(value) > MOST_VARIABLES:
        raise BadRequest(f"environment is not an object of at most {MOST_VARIABLES} variables", "environment")
    for name, text in value.items():
        if not VARIABLE.fullmatch(name):
            raise BadRequest(f"environment: {name!r} is not a variable's name", "environment")
        _text(text, f"environment.{name}")
    return tuple(sorted(value.items()))


def _words(body: Mapping[str, object], field: str, most: int) -> tuple[str, ...]:
    value = body.get(field, [])
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) > most:
        raise BadRequest(f"{field} is not a list of at most {most} texts", field)
    return tuple(_text(word, f"{field}[{at}]") for at, word in enumerate(value))


def _text(value: object, field: str) -> str:
    if not isinstance(value, str) or "\0" in value or len(value) > LONGEST_TEXT:
        raise BadRequest(f"{field} is not text of at most {LONGEST_TEXT} characters without NUL", field)
    return value


def _matching(body: Mapping[str, object], field: str, form: re.Pattern[str], meaning: str) -> str:
    value = body.get(field)
    if not isinstance(value, str) or not form.fullmatch(value):
        raise BadRequest(f"{field} is not {meaning}", field)
    return value


def _restart(value: object) -> Restart:
    for policy in Restart:
        if value == policy:
            return policy
    raise BadRequest("restart is neither always nor never", "restart")
