"""What packets teach: tunnels, who is behind them, and that a question of the Pinger is answered.

The source document's Figure 16: steps 2-5 are ``_uplink``, steps 8-11 ``_ping_answered``.
"""

from __future__ import annotations

from collections import Counter

from tof.agent.asking import Asker
from tof.agent.catalog import Catalog
from tof.agent.commands import AMBIGUOUS, Command, DropPacket, ReleaseFrame
from tof.agent.doubting import Doubting
from tof.agent.events import DownlinkMoved, ForeignSourceSeen, FrameHeld, GpduSeen, UplinkReturned
from tof.agent.holding import Holding
from tof.agent.pinging import Haste, Ping, Pinging
from tof.agent.sessions import Sessions
from tof.agent.tunnels import Tunnel, ue_of
from tof.model import Direction, Side
from tof.wire.inet import is_global_unicast

PATIENCE_S = 0.5
"""A reply waits this long for the core to say which tunnel is its own; then the bearer's former one, or the default."""


class Learning:
    """Facts about user packets into sessions."""

    def __init__(
        self, sessions: Sessions, asker: Asker, pinging: Pinging, holding: Holding, doubting: Doubting,
        catalog: Catalog, counts: Counter[str],
    ) -> None:  # fmt: skip
        self._catalog = catalog
        self._sessions, self._asker, self._pinging, self._holding = sessions, asker, pinging, holding
        self._doubting, self._counts = doubting, counts
        self._impatient: dict[int, float] = {}

    @property
    def wake_at(self) -> float | None:
        """When ``due`` has something to do."""
        return next(iter(self._impatient.values()), None)

    def gpdu(self, event: GpduSeen, now: float, out: list[Command]) -> None:
        """A G-PDU met the agent."""
        if event.token is not None and event.side is Side.SGW and self._pinging.recognises(event.token):
            out.append(DropPacket())
            if (ping := self._pinging.answered(event.token)) is not None:
                self._ping_answered(event, ping, now, out)
        elif event.side is Side.ENB:
            self._uplink(event, now, out)
        elif self._is_ue_address(event.destination) and (down := self._downlink(event, now, out)) is not None:
            self._release(down, out)

    def _is_ue_address(self, address: bytes) -> bool:
        """Whether a UE can own it: a service's address as a UE's would end the service for everybody."""
        if address in self._catalog.taken:
            self._counts["refused_address"] += 1
            return False
        return is_global_unicast(address)

    def foreign_source(self, event: ForeignSourceSeen, now: float, out: list[Command]) -> None:
        """A known uplink tunnel carried a source that is none of its UE's."""
        tunnel = self._sessions.at(event.index)
        if tunnel is None or not tunnel.uplink:
            return
        if self._is_ue_address(event.source):
            self._source(tunnel, event.source, now, out)
        else:
            self._doubting.nobody(tunnel, out)

    def uplink_returned(self, event: UplinkReturned, now: float, out: list[Command]) -> None:
        """An uplink tunnel that its UE had left by a handover carried a packet of it."""
        tunnel = self._sessions.at(event.index)
        if tunnel is not None and tunnel.left:
            self._doubting.returned(tunnel, now, out)

    def downlink_moved(self, event: DownlinkMoved, now: float, out: list[Command]) -> None:
        """A known downlink tunnel carried a destination that is none of its UE's."""
        tunnel = self._sessions.at(event.index)
        if tunnel is None or tunnel.uplink:
            return
        if not self._is_ue_address(event.destination):
            self._doubting.says_nothing(tunnel, out)
            return
        if tunnel.ended:  # its TEID is in use anew: its next packet teaches all about it
            self._sessions.forget(tunnel, out)
            return
        self._move(tunnel, event.destination, now, out)
        self._review_ups(tunnel, now)
        self._release(tunnel, out)

    def frame_held(self, event: FrameHeld, now: float, out: list[Command]) -> None:
        """An app speaks to a UE whose downlink is not known for sure: ask, through the flow's own uplink if it has one."""
        ue = ue_of(event.ue)
        if not self._sessions.knows_ue(ue):
            self._counts["frame_for_nobody"] += 1
        elif self._holding.hold(ue, event.frame, now):
            via = self._sessions.at(event.via)
            if event.doubted and via is not None:
                self._believe_doubt(via, out)
            via = via if via is not None and via.uplink else None
            if event.moved:
                self._ask_for_moved(via, ue, now)
            elif not (self._ask_for_ue(ue, now) if via is None else self._ask_for_reply(via, ue, now)):
                self._holding.answered(ue)

    def _ask_for_moved(self, via: Tunnel | None, ue: bytes, now: float) -> None:
        """Its flow leads into a tunnel that is not known to be of ``ue``; another one that ``ue`` has does not help it."""
        if via is None or ue not in via.ues:
            self._ask_for_ue(ue, now)
        elif (peer := self._sessions.at(via.peer)) is not None and ue in peer.ues:
            self._holding.answered(ue)  # learnt meanwhile
        else:
            self._ask_for(self._current(via), ue, now)

    def _current(self, via: Tunnel) -> Tunnel:
        """The tunnel of ``via``'s bearer that its UE speaks through now."""
        return next((mate for mate in self._sessions.mates(via) if not mate.left), via)

    def _believe_doubt(self, via: Tunnel, out: list[Command]) -> None:
        """The data path doubts a tunnel; what made it do so may have been lost on its way here."""
        down = self._sessions.at(via.peer) if via.uplink else via
        if down is not None:
            self._sessions.doubt(down, True, out)

    def _ask_for_reply(self, via: Tunnel, ue: bytes, now: float) -> bool:
        peer = self._sessions.at(via.peer)
        if peer is not None and not peer.doubted:
            return False
        self._impatient.setdefault(via.index, now + PATIENCE_S)
        self._ask_for(self._current(via), ue, now)
        return True

    def _ask_for_ue(self, ue: bytes, now: float) -> bool:
        default = self._sessions.default(ue)
        down = self._sessions.at(default)
        if down is not None and not down.doubted:
            return False
        for context in self._sessions.contexts_of(ue):
            up = context.first
            if up is not None and not up.left and (default == AMBIGUOUS or not up.peer or down is not None):
                self._ask_for(up, ue, now)
        return True

    def _ask_for(self, up: Tunnel, ue: bytes, now: float) -> None:
        if (exact := self._asker.may_ask(up, ue)) is not None:
            self._asker.ask(up, exact, now, Haste.AWAITED)

    def due(self, now: float, out: list[Command]) -> None:
        """Replies that have waited long enough for the core's word take the likeliest tunnel."""
        while self._impatient and (first := next(iter(self._impatient.items())))[1] <= now:
            del self._impatient[first[0]]
            up = self._sessions.at(first[0])
            if up is not None and self._sessions.guess(up, out):
                for ue in up.ues:
                    self._holding.answered(ue)

    def _uplink(self, event: GpduSeen, now: float, out: list[Command]) -> None:
        known = self._sessions.get(event.key)
        if not self._is_ue_address(event.source) or (known is not None and not known.uplink):
            return
        if known is not None:
            self._source(known, event.source, now, out)
        elif not self._is_forwarding(event):
            tunnel = self._sessions.learn(
                Direction.UPLINK, event.key, event.source, event.form, out, link=event.link
            )
            if tunnel is not None:
                self._asker.review(tunnel, now)
                for context in self._sessions.contexts_with(tunnel):
                    if (first := context.first) is not None and first is not tunnel:
                        self._asker.review(first, now)
                self._doubting.new_claim(tunnel, now, out)

    def _is_forwarding(self, event: GpduSeen) -> bool:
        """A packet *to* a UE that an eNB relays to the next one or to the SGW (TS 23.401 section 5.5.1).

        To one that the core speaks to: anybody can be named as the source of a packet. UEs that talk to each other do so
        through a core node, and are known both.
        """
        if not self._sessions.is_served(ue_of(event.destination)):
            return False
        from_ue = self._sessions.knows_ue(ue_of(event.source))
        return not (from_ue and self._sessions.nodes.is_core(event.key.destination))

    def _source(self, up: Tunnel, source: bytes, now: float, out: list[Command]) -> None:
        ue = ue_of(source)
        if ue in up.ues:
            self._sessions.own(up, source, out)
        elif self._sessions.take_over(up, source, out):
            self._asker.review(up, now)
        elif self._sessions.is_beside(up, ue):
            self._sessions.own(up, source, out)
            self._asker.review(up, now)
        else:
            self._doubting.candidate(up, source, now, out)

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
                self._elsewhere(down, now)
        if down is not None:
            self._review_ups(down, now)
        return down

    def _elsewhere(self, down: Tunnel, now: float) -> None:
        """A UE known behind another node is spoken to here: a handover, or another UE. Its uplink is asked."""
        for ue in down.ues:
            for context in self._sessions.contexts_of(ue):
                if context.pair != down.pair and context.first is not None and not context.first.left:
                    self._asker.ask_owner(context.first, now, Haste.AWAITED)

    def _move(self, down: Tunnel, exact: bytes, now: float, out: list[Command]) -> None:
        """The core says who is behind a downlink tunnel; uplinks beside it follow only if they said so too.

        An address of the other family may be the same UE's, or that of the one that had the tunnel before: unless an uplink
        is known to be of both, the core has to speak of it again.
        """
        if ue_of(exact) in down.ues:
            return
        self._counts["tunnel_moved"] += 1
        ups = [up for context in self._sessions.contexts_with(down) for up in context.ups]
        others = self._in_question(down, exact, ups)
        self._sessions.own(down, exact, out)
        self._sessions.doubt(down, False, out)
        for up in ups:
            if up.foreign == exact:
                self._confirmed(up, exact, out)
        for other in others:
            self._sessions.disown(down, other, out)
        for up in ups:
            for other in others:
                if self._sessions.is_first(up) and (asked := self._asker.may_ask(up, other)) is not None:
                    self._asker.ask(up, asked, now, Haste.IN_DOUBT)
            self._asker.review(up, now)

    def _in_question(self, down: Tunnel, exact: bytes, ups: list[Tunnel]) -> list[bytes]:
        if any(ue_of(exact) in up.ues for up in ups):
            return []
        others = (other for other in down.exact if len(other) != len(exact) and self._pinging.may_ask(other))
        return [ue_of(other) for other in others]

    def _confirmed(self, up: Tunnel, exact: bytes, out: list[Command]) -> None:
        self._counts["candidate_confirmed"] += 1
        if not self._sessions.take_over(up, exact, out, confirmed=True):
            self._sessions.own(up, exact, out)

    def _review_ups(self, down: Tunnel, now: float) -> None:
        for ue in down.ues:
            for context in self._sessions.contexts_of(ue):
                for up in context.ups:
                    self._asker.review(up, now)

    def _release(self, down: Tunnel, out: list[Command]) -> None:
        """What waits for a UE of ``down``, after everything about it was told to the data path."""
        for ue in down.ues if not down.doubted else ():
            out.extend(ReleaseFrame(frame) for frame in self._holding.release(ue))

    def _ping_answered(self, event: GpduSeen, ping: Ping, now: float, out: list[Command]) -> None:
        up = self._sessions.at(ping.index)
        if up is None or event.destination != ping.ue:
            self._counts["ping_answered_elsewhere"] += 1
            return
        self._counts["ping_answered"] += 1
        ping.answered = True
        known = self._sessions.get(event.key)
        if up.foreign == ping.ue and self._doubting.contested(up, known, now, out):
            return
        down = self._downlink(event, now, out, dropped=event.size)
        if self._sessions.at(up.index) is not up:  # in a flood, room for one tunnel is another's
            return
        if up.foreign == ping.ue:
            self._confirmed(up, ping.ue, out)
        if down is None or ue_of(ping.ue) not in up.ues:
            return
        if self._doubting.is_questioned(up, ping.ue) and down.index != up.peer:
            self._doubting.give_up_address(up, ping.ue, out)
            return
        self._sessions.pair(up, down, out)
        self._doubting.answered(up, down, ping.ue, now, out)
        self._asker.review(up, now)
        self._release(down, out)
