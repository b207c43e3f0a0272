"""Boxes in memory for emulated networks: what goes in at an end comes out at another, in virtual time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from random import Random

from tof.lab.emulation.bearers import End
from tof.lab.emulation.catalogue import SCENARIOS
from tof.lab.emulation.network import Network, Numbers
from tof.lab.emulation.player import Player
from tof.lab.emulation.settings import Settings

Box = Callable[[End, bytes], Iterable[tuple[End, bytes]]]

OPPOSITE = {End.ENB: End.SGW, End.SGW: End.ENB}
HOP_S = 0.000_1


def wire(end: End, frame: bytes) -> Iterable[tuple[End, bytes]]:
    """A plain wire between the eNB's end and the SGW's."""
    return [(OPPOSITE[end], frame)] if end in OPPOSITE else []


def play(name: str, box: Box = wire, settings: Settings | None = None, seed: int = 1) -> Network:
    """The network after a scenario."""
    draw = Random(seed)
    net = Network(settings or Settings(), draw, Numbers.drawn(draw))
    now = 1000.0
    player = Player(net, SCENARIOS[name](net), now)
    while not player.done:
        player.advance(now)
        while net.outbox:
            going, net.outbox = net.outbox, []
            now += HOP_S
            for out, frame in [arriving for end, data in going for arriving in box(end, data)]:
                net.receive(out, frame, now)
            player.advance(now)
        if not player.done:
            now = max(now, player.wake_at)
    return net
