"""OpenVIM: its REST, and libvirt's RPC over TCP, which its tuned version uses."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from tof.vim.analyzer.libvirt import Domain
from tof.vim.analyzer.messages import Exchange, at, items, text
from tof.vim.analyzer.phases import Analysis, Instantiation, Milestone, Outcome
from tof.vim.analyzer.reading import Messages

VIM: Final = "openvim"
MILESTONES: Final = (
    Milestone("rest", "HTTP 200: REST, and the scheduling, which OpenVIM does before it answers"),
    Milestone("spawning", "libvirt RPC that creates or starts the domain"),
    Milestone("libvirt", "libvirt's reply to that"),
    Milestone("active", "GET /servers/{server} that says ACTIVE, as a client polled"),
)
_SERVERS: Final = re.compile(r"/openvim/[^/]+/servers$")
_SERVER: Final = re.compile(r"/openvim/[^/]+/servers(?:/([^/]+))?$")
_STATES: Final = {"ACTIVE": Outcome.ACTIVE, "ERROR": Outcome.FAILED}


class _State(NamedTuple):
    """How a server ended, and when a client was told."""

    time_ns: int
    outcome: Outcome
    fault: str


def is_request(exchange: Exchange) -> bool:
    """Whether this asks OpenVIM for a server."""
    return exchange.request.method == "POST" and _SERVERS.search(exchange.request.path) is not None


def analyse(messages: Messages) -> Analysis:
    """All servers that were asked for."""
    asked = filter(is_request, messages.exchanges)
    states = _states(messages.exchanges)
    return Analysis(VIM, MILESTONES, [_followed(exchange, messages, states) for exchange in asked])


def _followed(exchange: Exchange, messages: Messages, states: dict[str, _State]) -> Instantiation:
    span, answer = exchange.request.span, exchange.answer
    document = None if answer is None else answer.document
    server = text(at(document, "server", "id"))
    name = text(at(exchange.request.document, "server", "name"))
    one = Instantiation(server or f"packet {span.number}", name, span.ended_ns, span.number)
    # Its success is always 200 and errors may come with it.
    if answer is not None and (answer.status >= 400 or at(document, "error") is not None):
        said = text(at(document, "error", "description"))
        one.outcome = Outcome.FAILED
        one.fault = f"HTTP {answer.status}: {said}" if said else f"HTTP {answer.status}"
        one.missing = {milestone.key: "OpenVIM refused the request" for milestone in MILESTONES}
        return one
    one.reach("rest", None if answer is None else answer.span.ended_ns, "no answer is in the capture")
    _start(one, messages.domains)
    _end(one, states.get(one.key))
    if not messages.timed and one.reached.pop("active", None) is not None:
        one.remarks.clear()
        one.missing["active"] = "a transcript has no times between requests"
    return one


def _start(one: Instantiation, domains: list[Domain]) -> None:
    """The domain's start, if libvirt is driven over TCP in the clear."""
    mine = [domain for domain in domains if domain.starts and one.key.encode() in domain.body]
    if not mine:
        none = "none of this server's domain is in the capture"
        why = none if domains else "the capture has no libvirt RPC (over SSH or TLS it is not to be read)"
        one.missing["spawning"] = one.missing["libvirt"] = why
        return
    domain = mine[0]
    one.reached["spawning"] = domain.span.began_ns
    one.reach(
        "libvirt",
        domain.span.ended_ns if domain.span.whole else None,
        "libvirt's reply is not in the capture",
    )
    if domain.failed:
        one.outcome, one.fault = Outcome.FAILED, "libvirt refused the domain"


def _end(one: Instantiation, state: _State | None) -> None:
    if state is None:
        one.missing["active"] = "the capture has no answer that says how it ended"
    elif state.outcome is Outcome.ACTIVE:
        one.outcome, one.reached["active"] = Outcome.ACTIVE, state.time_ns
        one.remarks.append("active is when a client saw it: an upper bound, by how often it polled")
    else:
        one.outcome, one.missing["active"] = Outcome.FAILED, "it failed"
        one.fault = state.fault or one.fault or "its status became ERROR"


def _states(exchanges: list[Exchange]) -> dict[str, _State]:
    """How servers ended, as the first client that saw it was answered."""
    found: dict[str, _State] = {}
    for exchange in exchanges:
        path = _SERVER.search(exchange.request.path)
        if exchange.request.method != "GET" or path is None or exchange.answer is None:
            continue
        document = exchange.answer.document
        for server in [at(document, "server"), *items(at(document, "servers"))]:
            outcome = _STATES.get(text(at(server, "status")))
            if outcome is not None:
                ended_ns, fault = exchange.answer.span.ended_ns, text(at(server, "last_error"))
                found.setdefault(text(at(server, "id")), _State(ended_ns, outcome, fault))
    return found
