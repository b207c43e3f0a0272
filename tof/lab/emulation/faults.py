"""Laboratory: scenarios of nodes that have lost something, and of very many UEs at once."""

from __future__ import annotations

from tof.lab.emulation.network import Network
from tof.lab.emulation.nodes import ErrorShape
from tof.lab.emulation.player import Script, Wait, answers, pause, quiet
from tof.lab.emulation.procedures import ask, attach, detach, notify, push, request, spoof

STORM = 250
RESTARTS_APART_S = 1.1
"""To a box that remembers an earlier play the nodes have restarted already; it may believe that once a second."""


def error_indication(net: Network) -> Script:
    """Unknown TEIDs both ways, answered in the three shapes; then a tunnel that only the application still uses."""
    for shape in ErrorShape:
        net.core().error_shape = net.radio().error_shape = shape
        ue = attach(net, net.radio(), net.core())
        ue.bearers[0].source_port = 5906 if shape is ErrorShape.UDP_PORT else 2152
        yield answers(ask(net, ue), request(net, ue))
        del net.core().tunnels[ue.bearers[0].up]
        ask(net, ue, optional=True)
        yield Wait(lambda: bool(net.radio().torn_down), 1.0)
        net.radio().torn_down.clear()
        detach(net, ue)
        ue = attach(net, net.radio(), net.core())
        yield answers(ask(net, ue), request(net, ue))
        yield quiet(net)
        net.radio().release(ue)
        push(net, ue, optional=True)
        yield Wait(lambda: bool(net.core().torn_down), 1.0)
        net.core().torn_down.clear()
        detach(net, ue)
    yield from _provoked(net)


def _provoked(net: Network) -> Script:
    """The eNB has silently lost a UE that the application speaks to: the core must not hear of it."""
    ue = attach(net, net.radio(), net.core())
    yield answers(ask(net, ue), request(net, ue))
    yield quiet(net)
    net.radio().release(ue)
    notify(net, ue, optional=True)
    yield pause(0.3)
    if net.settings.edge is not None and net.core().torn_down:
        net.failures.append("the core heard of an Error Indication that only the application's packet caused")
    detach(net, ue)


def spoofing(net: Network) -> Script:
    """A UE uses another's address as its source: it gets nothing of it, and the other loses nothing."""
    honest, liar = attach(net, net.radio(), net.core()), attach(net, net.radio(1), net.core())
    yield answers(ask(net, honest), request(net, honest), ask(net, liar), request(net, liar))
    for _ in range(5):
        spoof(net, liar, honest.addresses[0])
        yield pause(0.02)
    yield quiet(net)
    yield answers(request(net, honest), notify(net, honest))
    yield answers(request(net, liar), ask(net, honest))


def restart(net: Network) -> Script:
    """The SGW, then the eNB restarts and says so by its Recovery counter; others get the TEIDs it had given."""
    for node, peer in ((net.core(), net.radio()), (net.radio(), net.core())):
        net.send(peer.echo_request(node))
        yield quiet(net)
        before = [attach(net, net.radio(), net.core()) for _ in range(net.settings.ues)]
        yield answers(*(one for ue in before for one in (ask(net, ue), request(net, ue))))
        yield quiet(net)
        tunnels = [(ue.bearers[0].up, ue.bearers[0].path) for ue in before]
        yield pause(RESTARTS_APART_S)
        node.restart()
        net.send(peer.echo_request(node))
        yield quiet(net)
        yield pause(0.1)
        for ue in net.ues:
            detach(net, ue)
        for up, path in reversed(tunnels):
            after = attach(net, net.radio(), net.core(), up=up, down=path[1] if path else None)
            yield answers(ask(net, after), request(net, after))
            yield answers(notify(net, after))


def storm(net: Network) -> Script:
    """Very many new tunnels at once, uplink and downlink, as fast as they can be sent."""
    ues = [attach(net, net.radio(n % 2), net.core(n % 2)) for n in range(net.settings.ues * STORM)]
    talk = [ask(net, ue) for ue in ues]
    yield answers(*talk)
    yield quiet(net)
    yield answers(*(request(net, ue) for ue in ues[:: max(1, len(ues) // 20)]))
