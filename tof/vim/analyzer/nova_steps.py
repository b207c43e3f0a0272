"""Messages of OpenStack → steps: which milestone of which servers a message may be.

A step belongs to the ids in it: the server's, and the request's (X-OpenStack-Request-ID, ``_context_request_id``), which
Nova hands on to whomever it asks.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from tof.vim.analyzer.amqp import envelope
from tof.vim.analyzer.messages import Cast, Exchange, at, items, text
from tof.vim.analyzer.phases import Outcome
from tof.vim.analyzer.reading import Messages

METHODS: Final = {
    "schedule_and_build_instances": "conductor",
    "build_instances": "conductor",
    "select_destinations": "scheduler",
    "build_and_run_instance": "compute",
}
EVENTS: Final = {"network-changed": "changed", "network-vif-plugged": "plugged"}
POLLED: Final = "polled"
"""A client saw the server's state."""

_ID: Final = re.compile(rb"(?:req-)?[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_IMAGE: Final = re.compile(r"/v[12]/images/([0-9a-f-]{36})(?:/file)?$")
_SERVER: Final = re.compile(r"/servers/(?:detail|[0-9a-f-]{36})$")
_ALLOCATIONS: Final = re.compile(r"/allocations(?:/([0-9a-f-]{36}))?$")
_PORTS: Final = re.compile(r"/v2\.0/ports(?:/[0-9a-f-]{36})?(?:\.json)?$")
_EVENTS: Final = re.compile(r"/os-server-external-events$")


class Step(NamedTuple):
    """A message that may be somebody's milestone; with an ``outcome`` it ends an instantiation, by ``fault`` or well."""

    key: str
    time_ns: int
    number: int
    ids: frozenset[str]
    outcome: Outcome | None = None
    fault: str = ""


@dataclass(slots=True)
class Steps:
    """The steps of a capture by the ids in them; ``kinds``: which there are; ``servers``: those of a request, by its id."""

    by_id: dict[str, list[Step]] = field(default_factory=dict)
    kinds: set[str] = field(default_factory=set)
    servers: dict[str, list[str]] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)

    def add(self, step: Step) -> None:
        """Take a step."""
        self.kinds.add(step.key)
        for one in step.ids:
            self.by_id.setdefault(one, []).append(step)

    def of(self, ids: Iterable[str]) -> list[Step]:
        """The steps that bear one of these ids, in order of time."""
        found = {id(step): step for one in ids for step in self.by_id.get(one, ())}
        return sorted(found.values(), key=lambda step: step.time_ns)


def steps(messages: Messages) -> Steps:
    """All steps of a capture."""
    found = Steps()
    for exchange in messages.exchanges:
        for step in _of_exchange(exchange):
            found.add(step)
    asked: dict[str, frozenset[str]] = {}
    for cast in messages.casts:
        _of_cast(cast, found, asked)
    return found


def request_ids(exchange: Exchange) -> set[str]:
    """The ids that Nova gave a request."""
    answered = {} if exchange.answer is None else exchange.answer.headers
    return set(
        filter(None, (answered.get(name, "") for name in ("x-openstack-request-id", "x-compute-request-id")))
    )


def caller_id(exchange: Exchange) -> str:
    """The id that the caller gave a request; a client may give many of its requests the same."""
    return exchange.request.headers.get("x-openstack-request-id", "")


def _of_exchange(exchange: Exchange) -> Iterator[Step]:
    request = exchange.request
    if request.method in ("GET", "HEAD"):
        yield from _of_get(exchange)
    elif request.method in ("POST", "PUT"):
        span, document = request.span, request.document
        for key, server in _of_change(request.path, document):
            yield Step(key, span.ended_ns, span.number, frozenset((server,)))


def _of_get(exchange: Exchange) -> Iterator[Step]:
    request = exchange.request
    image = _IMAGE.search(request.path)
    if image is not None:
        asked = frozenset(filter(None, (caller_id(exchange), image[1])))
        yield Step("image", request.span.ended_ns, request.span.number, asked)
    elif _SERVER.search(request.path) is not None and exchange.answer is not None:
        document, span = exchange.answer.document, exchange.answer.span
        for server in [at(document, "server"), *items(at(document, "servers"))]:
            outcome = {"ACTIVE": Outcome.ACTIVE, "ERROR": Outcome.FAILED}.get(text(at(server, "status")))
            if outcome is not None:
                fault = text(at(server, "fault", "message"))
                ids = frozenset((text(at(server, "id")),))
                yield Step(POLLED, span.ended_ns, span.number, ids, outcome, fault)


def _of_change(path: str, document: Any) -> Iterator[tuple[str, str]]:
    """What a POST or PUT means for which servers."""
    allocations = _ALLOCATIONS.search(path)
    if allocations is not None:
        named = [allocations[1]] if allocations[1] else document if isinstance(document, dict) else []
        yield from (("allocation", server) for server in named)
    elif _PORTS.search(path) is not None:
        ports = [at(document, "port"), *items(at(document, "ports"))]
        yield from (("port", server) for port in ports if (server := text(at(port, "device_id"))))
    elif _EVENTS.search(path) is not None:
        for event in items(at(document, "events")):
            key = EVENTS.get(text(at(event, "name")))
            if key is not None:
                yield key, text(at(event, "server_uuid"))


def _of_cast(cast: Cast, found: Steps, asked: dict[str, frozenset[str]]) -> None:
    """Add a message's steps; ``asked``: who waits for an answer of the scheduler, by the message's id."""
    message = envelope(cast.body)
    method, span = text(message.get("method")), cast.span
    if method in METHODS:
        requests = set(filter(None, (text(message.get("_context_request_id")),)))
        servers = _servers(method, message.get("args"), found.names)
        both = servers if servers and method == "build_and_run_instance" else servers | requests
        known = frozenset(both or {one.decode() for one in _ID.findall(cast.body)})
        found.add(Step(METHODS[method], span.ended_ns, span.number, known))
        asked[text(message.get("_msg_id"))] = known
        if method == "build_and_run_instance":
            for request in requests:
                built = found.servers.setdefault(request, [])
                built.extend(one for one in servers if one not in built)
    elif method == "object_action":
        _of_object_action(cast, message, found)
    elif message.get("failure"):
        waiting = asked.get(text(message.get("_msg_id")), frozenset())
        found.add(Step("failure", span.ended_ns, span.number, waiting, Outcome.FAILED, _fault(message)))


def _servers(method: str, args: Any, names: dict[str, str]) -> set[str]:
    """The servers that a message is about; their names are noted where it has them."""
    if method == "select_destinations":
        asked = [*items(at(args, "instance_uuids")), *items(at(args, "request_spec", "instance_uuids"))]
        return set(filter(None, map(text, asked)))
    described = [at(args, "instance"), *items(at(args, "instances")), *items(at(args, "build_requests"))]
    found = set()
    for one in described:
        data = at(one, "nova_object.data") or one
        server = text(at(data, "instance_uuid")) or text(at(data, "uuid"))
        if server:
            found.add(server)
            names[server] = names.get(server) or text(at(data, "display_name")) or text(at(data, "hostname"))
    return found


def _of_object_action(cast: Cast, message: dict[str, Any], found: Steps) -> None:
    args = message.get("args")
    data = at(args, "objinst", "nova_object.data")
    changes = items(at(args, "objinst", "nova_object.changes"))
    if at(args, "objmethod") != "save" or "vm_state" not in changes:
        return
    outcome = {"active": Outcome.ACTIVE, "error": Outcome.FAILED}.get(text(at(data, "vm_state")))
    if outcome is not None:
        ids, span = frozenset((text(at(data, "uuid")),)), cast.span
        fault = "" if outcome is Outcome.ACTIVE else "its vm_state became error"
        found.add(Step("active", span.ended_ns, span.number, ids, outcome, fault))


def _fault(message: dict[str, Any]) -> str:
    """What an exception that was sent instead of an answer says."""
    try:
        failure = json.loads(text(message.get("failure")))
    except (ValueError, RecursionError):
        return "the scheduler failed"
    name, said = text(at(failure, "class")), text(at(failure, "message"))
    return f"{name}: {said}" if name else said or "the scheduler failed"
