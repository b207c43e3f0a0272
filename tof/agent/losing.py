"""What makes tunnels end or be forgotten: End Markers, Error Indications, restarted peers, silence."""

from __future__ import annotations

from tof.agent.asking import Asker
from tof.agent.commands import Command, DropPacket
from tof.agent.events import EchoResponseSeen, EndMarkerSeen, ErrorIndicationSeen, TunnelRefused, TunnelsIdle
from tof.agent.sessions import Sessions
from tof.agent.tunnels import Tunnel

PEERS = 4096
"""Peers whose restart counters are remembered: bounds what invented Echo Responses can occupy."""


class Losing:
    """Facts about tunnels that are no more."""

    def __init__(self, sessions: Sessions, asker: Asker) -> None:
        self._sessions, self._asker = sessions, asker
        self._recovery: dict[tuple[bytes, int | None], int] = {}
        self.errors_held_back = 0

    def end_marker(self, event: EndMarkerSeen, now: float, out: list[Command]) -> None:
        """Nothing more is injected into the tunnel; its uplinks ask where to."""
        down = self._sessions.get(event.key)
        if down is None or down.uplink:
            return
        ups = [up for context in self._sessions.contexts_with(down) for up in context.ups]
        self._sessions.end(down, out)
        for up in ups:
            self._asker.review(up, now, out)

    def error_indication(self, event: ErrorIndicationSeen, now: float, out: list[Command]) -> None:
        """The sender has no such tunnel: forget every one that leads to it under that TEID.

        One that an injected packet caused goes no further: it would tear down a bearer that nobody else complains of.
        """
        held_back = False
        for tunnel in self._sessions.towards(event.sender, event.teid):
            if tunnel.key.vlan == event.vlan:
                held_back |= self._asker.refused(tunnel, now)
                self._sessions.forget(tunnel, out)
        if held_back:
            self.errors_held_back += 1
            out.append(DropPacket())

    def echo_response(self, event: EchoResponseSeen, _now: float, out: list[Command]) -> None:
        """A changed restart counter means that the peer lost its tunnels (TS 23.007 section 18)."""
        if event.recovery is None:
            return
        peer = event.sender, event.vlan
        before = self._recovery.pop(peer, event.recovery)
        self._recovery[peer] = event.recovery
        if len(self._recovery) > PEERS:
            del self._recovery[next(iter(self._recovery))]
        if before != event.recovery:
            for tunnel in [t for t in self._sessions if _ends_at(t, peer)]:
                self._sessions.forget(tunnel, out)

    def idle(self, event: TunnelsIdle, _now: float, out: list[Command]) -> None:
        """Purge what is idle together with its pair."""
        for index in event.indices:
            tunnel = self._sessions.at(index)
            if tunnel is not None and not self._busy(tunnel, event.indices):
                self._sessions.forget(tunnel, out)

    def tunnel_refused(self, event: TunnelRefused, _now: float, out: list[Command]) -> None:
        """What the data path does not hold is not known: its next packet is another attempt."""
        tunnel = self._sessions.at(event.index)
        if tunnel is not None:
            self._sessions.forget(tunnel, out)

    def _busy(self, tunnel: Tunnel, idle: frozenset[int]) -> bool:
        """Whether a tunnel paired with it is not idle; a guess among several live ones is no pair."""
        if tunnel.uplink:
            return self._sessions.at(tunnel.peer) is not None and tunnel.peer not in idle
        return any(
            up.peer == tunnel.index and up.index not in idle and (up.exactly_paired or len(context.live) == 1)
            for context in self._sessions.contexts_with(tunnel)
            for up in context.ups
        )


def _ends_at(tunnel: Tunnel, peer: tuple[bytes, int | None]) -> bool:
    address, vlan = peer
    return tunnel.key.vlan == vlan and address in (tunnel.key.source, tunnel.key.destination)
