"""OpenStack Nova: REST at Nova, Glance, Neutron and Placement, and the AMQP messages between Nova's services."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from tof.vim.analyzer.messages import Exchange, at, text
from tof.vim.analyzer.nova_steps import POLLED, Step, Steps, caller_id, request_ids, steps
from tof.vim.analyzer.phases import Analysis, Instantiation, Milestone, Outcome
from tof.vim.analyzer.reading import Messages

VIM: Final = "nova"
MILESTONES: Final = (
    Milestone("image", "GET /images/{image} at Glance"),
    Milestone("conductor", "AMQP schedule_and_build_instances"),
    Milestone("accepted", "HTTP 202", ends_phase=False),
    Milestone("scheduler", "AMQP select_destinations"),
    Milestone("allocation", "PUT /allocations/{server} at Placement"),
    Milestone("compute", "AMQP build_and_run_instance"),
    Milestone("port", "POST or PUT /ports at Neutron, for the server"),
    Milestone("changed", "network-changed at Nova", ends_phase=False, needed=False),
    Milestone("plugged", "network-vif-plugged at Nova", needed=False),
    Milestone("active", "AMQP object_action that saves vm_state active"),
)
ACCEPTED: Final = 202
_BY_AMQP: Final = frozenset({"conductor", "scheduler", "compute", "active"})
_SERVER: Final = re.compile(r"/servers/([0-9a-f-]{36})$")
_SERVERS: Final = re.compile(r"/v2(?:\.[0-9]+)?(?:/[0-9a-f-]{32,36})?/(?:servers|os-volumes_boot)/?$")


def is_request(exchange: Exchange) -> bool:
    """Whether this asks Nova for a server."""
    return exchange.request.method == "POST" and _SERVERS.search(exchange.request.path) is not None


def analyse(messages: Messages) -> Analysis:
    """All servers that were asked for, and those that were built though the capture has no request."""
    found = steps(messages)
    servers: dict[str, Instantiation] = {}
    for exchange in filter(is_request, messages.exchanges):
        for one in _asked(exchange, found):
            # Seen before and behind a proxy it is one request: the first counts.
            if servers.setdefault(one.key, one) is one:
                _follow(one, exchange, found, amqp=bool(messages.casts))
    asked = list(servers.values())
    return Analysis(VIM, MILESTONES, [*asked, *_unasked(found, servers, amqp=bool(messages.casts))])


def _asked(exchange: Exchange, found: Steps) -> Iterator[Instantiation]:
    """The servers of a request: the answer names one, with min_count there are more."""
    span, answer = exchange.request.span, exchange.answer
    document = None if answer is None else answer.document
    name = text(at(exchange.request.document, "server", "name"))
    named = text(at(document, "server", "id")) or _located(exchange)
    more = {server for request in request_ids(exchange) for server in found.servers.get(request, ())}
    for server in [named, *sorted(more - {named})] if named else sorted(more) or [f"packet {span.number}"]:
        yield Instantiation(server, found.names.get(server) or name, span.ended_ns, span.number)


def _located(exchange: Exchange) -> str:
    """The server that an answer's Location names."""
    found = None if exchange.answer is None else _SERVER.search(exchange.answer.headers.get("location", ""))
    return "" if found is None else found[1]


def _follow(one: Instantiation, exchange: Exchange, found: Steps, *, amqp: bool) -> None:
    answer = exchange.answer
    if answer is None:
        _unknown(one, "the request has no answer in the capture, so the server's id is not known")
        return
    if answer.status >= 400:
        one.outcome, one.fault = Outcome.FAILED, _refusal(answer.status, answer.document)
        _unknown(one, "Nova refused the request")
        return
    if answer.status != ACCEPTED:
        _unknown(one, f"its answer is lost: HTTP {answer.status} is not Nova's to this")
        return
    one.reached["accepted"] = answer.span.ended_ns
    if one.key not in found.by_id and not request_ids(exchange):
        _unknown(one, "the answer is cut or no JSON, so the server's id is not known")
        return
    known = found.of({one.key, *request_ids(exchange)})
    _settle(one, _with_image(exchange, known, found), found.kinds, amqp=amqp)


def _with_image(exchange: Exchange, known: list[Step], found: Steps) -> list[Step]:
    """The steps without requests for other images (kernel and ramdisk have one each) but with one for the server's own.

    Nova hands on the id that the client gave, and older services none: the first to ask is taken for it then.
    """
    image = text(at(exchange.request.document, "server", "imageRef")).rpartition("/")[2]
    mine = [step for step in known if step.key != "image" or not image or image in step.ids]
    if any(step.key == "image" for step in mine):
        return mine
    begin, ids = exchange.request.span.ended_ns, {caller_id(exchange), image}
    asked = [step for step in found.of({image}) if step.key == "image" and step.time_ns >= begin]
    return [*mine, *[step for step in asked if step.ids <= ids][:1]]


def _unasked(found: Steps, servers: dict[str, Instantiation], *, amqp: bool) -> Iterator[Instantiation]:
    """Servers that were built, though the capture has no request for them."""
    for request, built in found.servers.items():
        for server in built:
            if server not in servers:
                known = found.of({server, request})
                one = Instantiation(server, found.names.get(server, ""), None, known[0].number)
                one.remarks.append("POST /servers is not in the capture: times count from the first message")
                one.missing["accepted"] = "POST /servers is not in the capture"
                servers[server] = one
                _settle(one, known, found.kinds, amqp=amqp)
                yield one


def _settle(one: Instantiation, known: Sequence[Step], kinds: set[str], *, amqp: bool) -> None:
    """Pick the milestones out of the steps that bear the server's or the request's id."""
    begin = one.since_ns
    known = [step for step in known if step.time_ns >= begin]
    _end(one, known)
    last = one.reached.get("active")
    for milestone in MILESTONES:
        key = milestone.key
        if key in one.reached or key in one.missing or key == "active":
            continue
        times = [step.time_ns for step in known if step.key == key]
        if key == "port":
            # What a client prepared is no step of Nova's.
            times = [time_ns for time_ns in times if time_ns >= one.reached.get("compute", begin)]
        elif key == "plugged":
            # With several ports the last one is what Nova waits for.
            times = [time_ns for time_ns in times if last is None or time_ns <= last][-1:]
        one.reach(key, min(times, default=None), _why_not(key, one, kinds, amqp=amqp))


def _end(one: Instantiation, known: Sequence[Step]) -> None:
    """How and when it ended: by what compute saved, else by what a client saw."""
    ends = [step for step in known if step.outcome is not None]
    told = [step for step in ends if step.key != POLLED] or ends
    if not told:
        one.missing["active"] = "the capture has no end of it"
        return
    end = told[0]
    one.outcome = end.outcome or Outcome.UNFINISHED
    if one.outcome is Outcome.FAILED:
        one.fault = next((step.fault for step in ends if step.key == POLLED and step.fault), end.fault)
        one.missing["active"] = "it failed"
        return
    one.reached["active"] = end.time_ns
    if end.key == POLLED:
        one.remarks.append("the end is when a client saw ACTIVE: Nova's own message is not in the capture")


def _why_not(key: str, one: Instantiation, kinds: set[str], *, amqp: bool) -> str:
    if one.outcome is Outcome.FAILED:
        return "it failed before"
    if key in _BY_AMQP and not amqp:
        return "the capture has no AMQP"
    return "none of this server's is in the capture" if key in kinds else "no such message is in the capture"


def _unknown(one: Instantiation, why: str) -> None:
    for milestone in MILESTONES:
        if milestone.key not in one.reached:
            one.missing[milestone.key] = why


def _refusal(status: int, document: object) -> str:
    """What an answer that is no success says."""
    inner = next(iter(document.values()), None) if isinstance(document, dict) else None
    said = text(at(inner, "message"))
    return f"HTTP {status}: {said}" if said else f"HTTP {status}"
