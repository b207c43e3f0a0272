"""What makes tunnels end or be forgotten: End Markers, Error Indications, restarted peers, silence.

A message that comes from the side on which its sender cannot be is passed on, counted, and changes nothing.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from itertools import islice

from tof.agent.asking import Asker
from tof.agent.commands import Command, DropPacket
from tof.agent.events import EchoResponseSeen, EndMarkerSeen, ErrorIndicationSeen, TunnelRefused, TunnelsIdle
from tof.agent.sessions import Sessions
from tof.agent.tunnels import Tunnel
from tof.model import Side

PEERS = 4096
"""Peers whose restart counters are remembered: bounds what invented Echo Responses can occupy."""
RESTART_S = 1.0
"""No peer restarts more often: bounds what forged Echo Responses cost, which name a peer's tunnels all at once."""
OURS = 4096
OURS_S = 3.0
"""Error Indications that come this late after the first one are still answers to what was injected."""


class Losing:
    """Facts about tunnels that are no more."""

    def __init__(self, sessions: Sessions, asker: Asker, counts: Counter[str]) -> None:
        self._sessions, self._asker, self._counts = sessions, asker, counts
        self._recovery: dict[tuple[bytes, int | None], tuple[int, float]] = {}
        self._ours: OrderedDict[tuple[bytes, int, int | None], float] = OrderedDict()

    def end_marker(self, event: EndMarkerSeen, now: float, out: list[Command]) -> None:
        """Nothing more is injected into the tunnel; its uplinks ask where to."""
        down = self._sessions.get(event.key)
        if down is None or down.uplink:
            return
        if event.side is not Side.SGW:
            self._counts["end_marker_wrong_side"] += 1
            return
        ups = self._sessions.answering(down)
        self._sessions.end(down, out)
        for up in ups:
            self._asker.review_changed(up, now)

    def error_indication(self, event: ErrorIndicationSeen, now: float, out: list[Command]) -> None:
        """The sender has no such tunnel: forget every one that leads to it under that TEID.

        One that an injected packet caused goes no further: it would tear down a bearer that nobody else complains of.
        """
        known = [t for t in self._sessions.towards(event.sender, event.teid) if t.key.vlan == event.vlan]
        about = [tunnel for tunnel in known if tunnel.uplink == (event.side is Side.SGW)]
        if not about:
            self._about_nothing(event, wrong_side=bool(known), now=now, out=out)
            return
        for tunnel in about:
            self._asker.refused(tunnel, now)
            ups = () if tunnel.uplink else self._sessions.answering(tunnel)
            self._lose(tunnel, out)
            for up in ups:
                self._asker.review_changed(up, now)
        if any(tunnel.index in event.ours for tunnel in about):
            self._ours[event.sender, event.teid, event.vlan] = now + OURS_S
            if len(self._ours) > OURS:
                self._ours.popitem(last=False)
            self._hold_back(out)

    def _about_nothing(
        self, event: ErrorIndicationSeen, *, wrong_side: bool, now: float, out: list[Command]
    ) -> None:
        if wrong_side:
            self._counts["error_indication_wrong_side"] += 1
        elif now < self._ours.get((event.sender, event.teid, event.vlan), 0.0):
            self._hold_back(out)  # several packets were on their way
        else:
            self._counts["error_indication_unknown"] += 1

    def _hold_back(self, out: list[Command]) -> None:
        self._counts["error_indication_held_back"] += 1
        out.append(DropPacket())

    def _lose(self, tunnel: Tunnel, out: list[Command]) -> None:
        """Forget ``tunnel``; with a UE's last uplink its downlinks, which the core will not use any more."""
        contexts = list(self._sessions.contexts_with(tunnel)) if tunnel.uplink else []
        self._sessions.forget(tunnel, out)
        for context in contexts:
            for down in context.downs:
                if not context.ups and not self._sessions.answering(down):
                    self._sessions.forget(down, out)

    def echo_response(self, event: EchoResponseSeen, now: float, out: list[Command]) -> None:
        """A changed restart counter means that the peer lost its tunnels (TS 23.007 section 18)."""
        if event.recovery is None:
            return
        nodes = self._sessions.nodes
        own_side = nodes.is_core if event.side is Side.SGW else nodes.is_radio
        other_side = nodes.is_radio if event.side is Side.SGW else nodes.is_core
        if other_side(event.sender) and not own_side(event.sender):
            self._counts["echo_response_wrong_side"] += 1
            return
        peer = event.sender, event.vlan
        before, changed_at = self._recovery.pop(peer, (event.recovery, now - RESTART_S))
        if before != event.recovery and now - changed_at < RESTART_S:
            self._counts["echo_recovery_too_often"] += 1
            self._recovery[peer] = before, changed_at
            return
        self._recovery[peer] = event.recovery, changed_at
        if before != event.recovery:
            self._recovery[peer] = event.recovery, now
            self._counts["echo_recovery_changed"] += 1
            for tunnel in [t for t in self._sessions if _ends_at(t, peer)]:
                self._sessions.forget(tunnel, out)
        elif len(self._recovery) > PEERS:
            self._forget_a_peer()

    def _forget_a_peer(self) -> None:
        """The oldest that no tunnel ends at, if one of the oldest is such: invented ones make room for each other."""
        oldest = islice(self._recovery, 16)
        nodes = self._sessions.nodes
        invented = (p for p in oldest if not nodes.is_core(p[0]) and not nodes.is_radio(p[0]))
        del self._recovery[next(invented, next(iter(self._recovery)))]

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
            return not tunnel.left and self._sessions.at(tunnel.peer) is not None and tunnel.peer not in idle
        return any(
            up.index not in idle and not up.left and (up.exactly_paired or self._is_only(tunnel))
            for up in self._sessions.answering(tunnel)
        )

    def _is_only(self, down: Tunnel) -> bool:
        return all(len(context.live) == 1 for context in self._sessions.contexts_with(down))


def _ends_at(tunnel: Tunnel, peer: tuple[bytes, int | None]) -> bool:
    address, vlan = peer
    return tunnel.key.vlan == vlan and address in (tunnel.key.source, tunnel.key.destination)
