"""Laboratory: scenarios of UEs that come, go, sleep, and are taken for each other."""

from __future__ import annotations

from tof.lab.emulation.bearers import Ue
from tof.lab.emulation.network import Network
from tof.lab.emulation.player import PATIENCE_S, Script, Wait, answers, arrivals, pause, quiet
from tof.lab.emulation.procedures import (
    add_bearer,
    ask,
    go_idle,
    notify,
    push,
    request,
    resume,
)
from tof.lab.emulation.procedures import attach as attached
from tof.lab.emulation.procedures import detach as gone

FLOW = 5004
"""A server's port whose flows a dedicated bearer carries."""
ATTEMPTS, ATTEMPT_S = 12, 0.2


def attach(net: Network) -> Script:
    """UEs attach; each talks to the Internet and to the service, and is spoken to by both."""
    for number in range(net.settings.ues):
        net.resolve(net.radio(number % 2), net.core())
        yield quiet(net)
        ue = attached(net, net.radio(number % 2), net.core())
        yield answers(push(net, ue) if number % 2 else ask(net, ue))
        yield answers(ask(net, ue), request(net, ue), request(net, ue, port=0))
        yield answers(ask(net, ue, size=1300), request(net, ue, size=1300))
        yield answers(push(net, ue), notify(net, ue))


def first_packet(net: Network) -> Script:
    """A UE's very first packet goes to the service."""
    for number in range(net.settings.ues):
        ue = attached(net, net.radio(number % 2), net.core())
        yield answers(request(net, ue))


def detach(net: Network) -> Script:
    """A UE leaves without a sign; the application still speaks to it, and nobody else may hear that."""
    leaver, stayer = (attached(net, net.radio(), net.core()) for _ in range(2))
    yield answers(*(one for ue in (leaver, stayer) for one in (ask(net, ue), request(net, ue))))
    gone(net, leaver)
    for _ in range(3):
        notify(net, leaver, optional=True)
        yield pause(0.1)
    yield answers(ask(net, stayer), request(net, stayer))


def two_bearers(net: Network) -> Script:
    """A default and a dedicated bearer: flows of each, to the Internet and to the service."""
    for _ in range(net.settings.ues):
        ue = attached(net, net.radio(), net.core())
        add_bearer(ue, net.core(), ports=(FLOW,))
        yield answers(ask(net, ue))
        yield answers(ask(net, ue, port=FLOW))
        for _ in range(3):
            yield answers(request(net, ue), request(net, ue, port=FLOW, own_port=40_001))
        yield answers(push(net, ue), notify(net, ue))


def idle(net: Network) -> Script:
    """A UE goes idle; the Internet speaks to it, the core pages it, and it is back under new TEIDs."""
    ue = attached(net, net.radio(), net.core())
    yield answers(ask(net, ue), request(net, ue))
    go_idle(ue)
    pushed = push(net, ue)
    yield Wait(lambda: bool(net.paged), PATIENCE_S)
    resume(net, ue, net.radio())
    yield answers(pushed)
    yield from insist(net, ue)
    yield answers(ask(net, ue), request(net, ue), notify(net, ue))


def paging(net: Network) -> Script:
    """A UE is idle; the application speaks to it until the core has paged it and something arrives."""
    ue = attached(net, net.radio(), net.core())
    yield answers(ask(net, ue), request(net, ue))
    yield quiet(net)
    go_idle(ue)
    sent = []
    for _ in range(15):
        sent.append(notify(net, ue, optional=True))
        yield Wait(lambda: bool(net.paged) or any(one.answered for one in sent), 0.2)
        if net.paged and ue.radio is None:
            yield pause(0.05)
            resume(net, ue, net.radio(1))
        if any(one.answered for one in sent):
            break
    sent[-1].optional = any(one.answered for one in sent)
    yield from insist(net, ue)
    yield answers(ask(net, ue), request(net, ue), notify(net, ue))


def reuse_address(net: Network) -> Script:
    """A UE leaves without a sign and another gets its address, elsewhere and under other TEIDs."""
    first = attached(net, net.radio(), net.core())
    yield answers(ask(net, first), request(net, first))
    gone(net, first)
    second = attached(net, net.radio(1), net.core(), first.addresses)
    yield answers(ask(net, second))
    yield from insist(net, second)
    yield answers(request(net, second), push(net, second), notify(net, second))


def reuse_teid(net: Network) -> Script:
    """A UE leaves without a sign and another gets its TEIDs, with another address."""
    first = attached(net, net.radio(), net.core())
    yield answers(ask(net, first), request(net, first))
    bearer, path = first.bearers[0], first.bearers[0].path
    assert path is not None
    gone(net, first)
    second = attached(net, net.radio(), net.core(), up=bearer.up, down=path[1])
    yield answers(ask(net, second))
    yield from insist(net, second)
    notify(net, first, optional=True)
    yield pause(0.2)
    yield answers(request(net, second), notify(net, second))


def overlap(net: Network) -> Script:
    """Two private networks use the same UE address: flows of their own, then the very same flow at once."""
    one = attached(net, net.radio(), net.core())
    other = attached(net, net.radio(1), net.core(1), one.addresses)
    yield answers(ask(net, one), ask(net, other))
    yield quiet(net)
    for port in (40_101, 40_102):
        yield answers(request(net, one, own_port=port), request(net, other, own_port=port + 100))
    # The application cannot tell these apart, so nobody can: they have to be left to the core.
    for _ in range(3):
        if net.application is not None:
            net.application.think()
        both = [request(net, ue, own_port=40_300, optional=True) for ue in (one, other)]
        yield arrivals(*both)
        if net.application is not None:
            net.application.speak()
        yield answers(*both)


def insist(net: Network, ue: Ue) -> Script:
    """Ask the service again until the application answers; a Pinger's round or two may be needed for that."""
    for attempt in range(ATTEMPTS):
        sent = request(net, ue, optional=attempt < ATTEMPTS - 1)
        yield answers(sent, within_s=ATTEMPT_S)
        if sent.answered and (sent.at_edge or net.settings.edge is None):
            return
        if sent.answered:
            yield pause(ATTEMPT_S)
