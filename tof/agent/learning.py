"""What packets teach: tunnels, who is behind them, and that a question of the Pinger is answered.

The source document's Figure 16: steps 2-5 are ``_uplink``, steps 8-11 ``_ping_answered``.
"""

from __future__ import annotations

from tof.agent.asking import Asker
from tof.agent.commands import AMBIGUOUS, Command, DropPacket, ReleaseFrame
from tof.agent.events import DownlinkMoved, ForeignSourceSeen, FrameHeld, GpduSeen
from tof.agent.holding import Holding
from tof.agent.pinging import Ping, Pinging
from tof.agent.sessions import Sessions
from tof.agent.tunnels import Tunnel, ue_of
from tof.model import Direction, Side
from tof.wire.inet import is_global_unicast as is_ue_address


class Learning:
    """Facts about user packets into sessions."""

    def __init__(self, sessions: Sessions, asker: Asker, pinging: Pinging, holding: Holding) -> None:
        self._sessions, self._asker, self._pinging, self._holding = sessions, asker, pinging, holding

    def gpdu(self, event: GpduSeen, now: float, out: list[Command]) -> None:
        """A G-PDU met the agent."""
        if event.token is not None and event.side is Side.SGW and self._pinging.recognises(event.token):
            out.append(DropPacket())
            if (ping := self._pinging.answered(event.token)) is not None:
                self._ping_answered(event, ping, now, out)
        elif event.side is Side.ENB:
            self._uplink(event, now, out)
        elif is_ue_address(event.destination):
            self._downlink(event, now, out)

    def foreign_source(self, event: ForeignSourceSeen, now: float, out: list[Command]) -> None:
        """A known uplink tunnel carried a source that is none of its UE's."""
        tunnel = self._sessions.at(event.index)
        if tunnel is not None and tunnel.uplink and is_ue_address(event.source):
            self._source(tunnel, event.source, now, out)

    def downlink_moved(self, event: DownlinkMoved, now: float, out: list[Command]) -> None:
        """A known downlink tunnel carried a destination that is none of its UE's."""
        tunnel = self._sessions.at(event.index)
        if tunnel is None or tunnel.uplink or not is_ue_address(event.destination):
            return
        if tunnel.ended:
            self._sessions.forget(
                tunnel, out
            )  # its TEID is in use anew: its next packet teaches all about it
            return
        self._move(tunnel, event.destination, now, out)
        self._after_downlink(tunnel, now, out)

    def frame_held(self, event: FrameHeld, now: float, out: list[Command]) -> None:
        """An app speaks to a UE whose downlink is unknown: ask through every uplink it has."""
        ue = ue_of(event.ue)
        if not self._sessions.knows_ue(ue) or not self._holding.hold(ue, event.frame, now):
            return
        asking = False
        for context in self._sessions.contexts_of(ue):
            for up in context.ups:
                if not up.peer:
                    asking = True
                    self._asker.ask(up, up.exact[up.ues.index(ue)], now, out)
        if not asking and self._sessions.default(ue) not in (0, AMBIGUOUS):
            self._holding.answered(ue)

    def _uplink(self, event: GpduSeen, now: float, out: list[Command]) -> None:
        known = self._sessions.get(event.key)
        if not is_ue_address(event.source) or (known is not None and not known.uplink):
            return
        if known is not None:
            self._source(known, event.source, now, out)
        elif not self._is_forwarding(event):
            tunnel = self._sessions.learn(
                Direction.UPLINK, event.key, event.source, event.form, out, link=event.link
            )
            if tunnel is not None:
                self._asker.review(tunnel, now, out)

    def _is_forwarding(self, event: GpduSeen) -> bool:
        """A packet *to* a known UE that an eNB relays to the next one or to the SGW (TS 23.401 section 5.5.1).

        UEs that talk to each other do so through a core node, and are known both.
        """
        knows = self._sessions.knows_ue
        between_ues = self._sessions.nodes.is_core(event.key.destination) and knows(ue_of(event.source))
        return knows(ue_of(event.destination)) and not between_ues

    def _source(self, up: Tunnel, source: bytes, now: float, out: list[Command]) -> None:
        ue = ue_of(source)
        second_family = all(len(known) != len(ue) for known in up.ues) and not self._sessions.knows_ue(ue)
        if ue in up.ues or second_family:
            self._sessions.own(up, source, out)
        else:
            self._asker.candidate(up, source, now, out)

    def _downlink(
        self, event: GpduSeen, now: float, out: list[Command], *, dropped: int = 0
    ) -> Tunnel | None:
        down = self._sessions.get(event.key)
        if down is not None and down.uplink:
            return None
        if down is not None and down.ended:
            self._sessions.forget(down, out)  # its TEID is in use anew
            down = None
        if down is not None:
            self._move(down, event.destination, now, out)
        else:
            down = self._sessions.learn(
                Direction.DOWNLINK, event.key, event.destination, event.form, out,
                link=event.link, dropped=dropped,
            )  # fmt: skip
        if down is not None:
            self._after_downlink(down, now, out)
        return down

    def _move(self, down: Tunnel, exact: bytes, now: float, out: list[Command]) -> None:
        """The core says who is behind a downlink tunnel; uplinks beside it follow only if they said so too."""
        if ue_of(exact) in down.ues:
            return
        ups = [up for context in self._sessions.contexts_with(down) for up in context.ups]
        self._sessions.own(down, exact, out)
        for up in ups:
            if up.foreign == exact:
                self._sessions.own(up, exact, out)
            self._asker.review(up, now, out)

    def _after_downlink(self, down: Tunnel, now: float, out: list[Command]) -> None:
        for ue in down.ues:
            for context in self._sessions.contexts_of(ue):
                for up in context.ups:
                    self._asker.review(up, now, out)
            out.extend(ReleaseFrame(frame) for frame in self._holding.release(ue))

    def _ping_answered(self, event: GpduSeen, ping: Ping, now: float, out: list[Command]) -> None:
        up = self._sessions.at(ping.index)
        if up is None or event.destination != ping.ue:
            return
        if up.foreign == ping.ue:
            self._sessions.own(up, ping.ue, out)
        down = self._downlink(event, now, out, dropped=event.size)
        if down is not None and down.pair == up.pair and ue_of(ping.ue) in up.ues:
            self._sessions.pair(up, down, out)
            self._asker.review(up, now, out)
