"""Laboratory: scenarios of UEs that move, with a running ping to the Internet and one to the service."""

from __future__ import annotations

from collections.abc import Generator

from tof.lab.emulation.bearers import S1U, Shape, Ue, n3
from tof.lab.emulation.network import Network
from tof.lab.emulation.player import Script, Wait, answers, pause, quiet
from tof.lab.emulation.procedures import (
    Handover,
    ask,
    attach,
    hand_over,
    notify,
    push,
    relocate,
    request,
    stop_forwarding,
    stream,
    switch_path,
)
from tof.lab.emulation.scenarios import insist

BEFORE_SWITCH_S = 0.06
"""Between the UE's arrival at the target and the core's path switch."""
AROUND_S = 0.3


def x2_handover(net: Network) -> Script:
    """X2 handover: downlink forwarded between the eNBs, path switch, End Marker relayed to the target."""
    yield from _handover(net, S1U, indirect=False)


def s1_handover(net: Network) -> Script:
    """S1 handover: downlink forwarded through the SGW, so that user packets for the UE come from an eNB."""
    yield from _handover(net, S1U, indirect=True)


def n2_handover(net: Network) -> Script:
    """N2 handover of a PDU session: forwarded through the UPF, containers and End Marker as on N3."""
    yield from _handover(net, n3(9, 5), indirect=True)


def handover_without_end_marker(net: Network) -> Script:
    """X2 handover whose core sends no End Marker: the source lets go after a while."""
    yield from _handover(net, S1U, indirect=False, end_marker=False)


def handover_and_back(net: Network) -> Script:
    """To another eNB and back, where the UE gets the TEID it had: that of a tunnel with an End Marker in it."""
    ue = attach(net, net.radio(), net.core())
    yield from _running(net, ue)
    away = yield from _move(net, ue, 1)
    yield from _settled(net, ue)
    hand_over_back = hand_over(ue, net.radio(), back=away)
    yield pause(BEFORE_SWITCH_S)
    switch_path(net, hand_over_back)
    yield pause(AROUND_S)
    yield from _settled(net, ue)
    yield from _stopped(net)


def sgw_relocation(net: Network) -> Script:
    """Another SGW takes over: uplink TEID and outer address change, the eNB's TEID stays."""
    ue = attach(net, net.radio(), net.core())
    yield from _running(net, ue)
    relocate(ue, net.core(1))
    yield pause(AROUND_S)
    yield from _settled(net, ue)
    yield from _stopped(net)


def edge_only_handover(net: Network) -> Script:
    """A UE that speaks to the service alone is handed over: no packet but its own shows the new path."""
    ue = attach(net, net.radio(), net.core())
    yield answers(ask(net, ue), request(net, ue))
    stream(net, ue, to_service=True)
    yield pause(AROUND_S)
    yield from _move(net, ue, 1)
    yield from _stopped(net)
    yield from insist(net, ue)
    yield answers(request(net, ue))


def _handover(net: Network, shape: Shape, *, indirect: bool, end_marker: bool = True) -> Script:
    ue = attach(net, net.radio(), net.core(), shape=shape)
    yield from _running(net, ue)
    yield from _move(net, ue, 1, indirect=indirect, end_marker=end_marker)
    yield from _settled(net, ue)
    yield from _stopped(net)


def _running(net: Network, ue: Ue) -> Script:
    yield answers(ask(net, ue), request(net, ue))
    stream(net, ue, to_service=False)
    stream(net, ue, to_service=True)
    yield pause(AROUND_S)


def _move(
    net: Network, ue: Ue, target: int, *, indirect: bool = False, end_marker: bool = True
) -> Generator[Wait, None, Handover]:
    handover = hand_over(ue, net.radio(target), indirect=indirect)
    yield pause(BEFORE_SWITCH_S)
    switch_path(net, handover, end_marker=end_marker)
    yield pause(AROUND_S)
    stop_forwarding(handover)
    return handover


def _settled(net: Network, ue: Ue) -> Script:
    yield from insist(net, ue)
    yield answers(request(net, ue), ask(net, ue))
    yield answers(push(net, ue), notify(net, ue))


def _stopped(net: Network) -> Script:
    for running in net.streams:
        running.running = False
    yield quiet(net)
    yield pause(0.1)
