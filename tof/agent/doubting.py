"""Whose an address or a tunnel is, when something speaks against what is known.

A detach has no sign on the user plane, and both UE addresses and TEIDs are soon given to the next UE. So when a second
claim to an address appears, or a foreign source in a tunnel, nothing more is injected into the downlinks in question until
the core has spoken in them again: by a packet of its own (the data path sees that by itself) or by its answer to a ping.
An older claim that is asked in vain is given up once a newer one was answered.
"""

from __future__ import annotations

from collections import Counter, OrderedDict

from tof.agent.asking import Asker
from tof.agent.commands import Command, SetCalm, SetDoubt
from tof.agent.holding import Holding
from tof.agent.pinging import Haste, Ping, Pinging
from tof.agent.sessions import Sessions
from tof.agent.tunnels import Context, Tunnel, ue_of

TRUST_S = 10.0
"""For this long after the core has settled a doubt for a UE no other claim raises one: bounds what forged packets delay."""

CALM_S = 20.0
"""Foreign sources in one tunnel are asked for so often: a UE may leak addresses of other networks all day."""

CONTESTS = 1024
DEAF_S = 600.0
"""For this long what the core would not settle is left alone, and the Pinger counts as heard after an answer to anybody."""


class Doubting:
    """Raises doubts about downlink tunnels, and settles them."""

    def __init__(
        self, sessions: Sessions, asker: Asker, pinging: Pinging, holding: Holding, counts: Counter[str]
    ) -> None:
        self._sessions, self._asker, self._pinging, self._holding = sessions, asker, pinging, holding
        self._counts = counts
        self._contests: OrderedDict[int, int] = OrderedDict()
        self._heard_at: dict[int, float] = {}

    def new_claim(self, new: Tunnel, now: float, out: list[Command]) -> None:
        """An uplink tunnel that is no handover: if its UE's address is in use already, ask whether it still is."""
        for ue in new.ues:
            for context in self._sessions.contexts_of(ue):
                old = context.first
                if old is not None and old.session != new.session and now >= old.trusted_until:
                    self._doubt(context, out)
                    self._asker.ask_owner(old, now, Haste.IN_DOUBT)

    def _doubt(self, context: Context, out: list[Command]) -> None:
        self._counts["claim_doubted"] += 1
        for down in context.live:
            self._sessions.doubt(down, True, out)

    def candidate(self, up: Tunnel, source: bytes, now: float, out: list[Command]) -> None:
        """A foreign ``source`` came through ``up``: ask, one candidate at a time, whether it is the UE's now."""
        peer = self._sessions.at(up.peer)
        if up.foreign is not None and (
            now < up.calm_until or self._asker.asks_candidate(up, len(up.foreign))
        ):
            self._dismiss(up, out)
            return
        up.foreign, up.calm_until = source, now + CALM_S
        self._counts["candidate_asked"] += 1
        # A first address of its family is more often the same UE's second one: no doubt where nobody would settle it.
        same_family = any(len(exact) == len(source) for exact in up.exact)
        if peer is not None and (same_family or self._hears(len(source), now)):
            self._sessions.doubt(peer, True, out)
        self._asker.ask(up, source, now, Haste.IN_DOUBT)

    def _hears(self, family: int, now: float) -> bool:
        """Whether pings for addresses of that length are answered."""
        return now < self._heard_at.get(family, -DEAF_S) + DEAF_S

    def nobody(self, up: Tunnel, out: list[Command]) -> None:
        """A source that can be no UE's came through ``up``: that says nothing about whose the tunnel is."""
        self._dismiss(up, out)
        out.append(SetCalm(up.key, CALM_S))

    def _dismiss(self, up: Tunnel, out: list[Command]) -> None:
        peer = self._sessions.at(up.peer)
        if peer is not None:
            self.says_nothing(peer, out)

    def says_nothing(self, down: Tunnel, out: list[Command]) -> None:
        """Take back the doubt about ``down`` that the data path has raised by itself."""
        if not down.doubted:
            out.append(SetDoubt(down.key, down.index, False))

    def contested(self, up: Tunnel, down: Tunnel | None, now: float, out: list[Command]) -> bool:
        """The core answered for the candidate of ``up`` in ``down``: whether that is another uplink's, which is asked then.

        A core without a check of sources answers a spoofer in the tunnel of the UE whose address it took.
        """
        others = self._sessions.answering(down) if down is not None and down.index != up.peer else ()
        other = next((o for o in others if o.session != up.session and not o.failed and not o.left), None)
        if other is None:
            return False
        self._counts["candidate_contested"] += 1
        self._contests[other.index] = up.index
        if len(self._contests) > CONTESTS:
            self._contests.popitem(last=False)
        self._doubt_context(other, out)
        self._asker.ask_owner(other, now, Haste.IN_DOUBT)
        return True

    def _doubt_context(self, up: Tunnel, out: list[Command]) -> None:
        for context in self._sessions.contexts_with(up):
            self._doubt(context, out)

    def returned(self, up: Tunnel, now: float, out: list[Command]) -> None:
        """The UE came back to a node that it had left: where its replies go now has to be asked."""
        self._counts["uplink_returned"] += 1
        self._sessions.returned(up, out)
        peer = self._sessions.at(up.peer)
        if peer is not None:
            self._sessions.doubt(peer, True, out)
        self._asker.ask_owner(up, now, Haste.IN_DOUBT)

    def answered(self, up: Tunnel, down: Tunnel, exact: bytes, now: float, out: list[Command]) -> None:
        """The core confirmed that ``up`` is the UE's at ``exact``, and that replies go into ``down``."""
        if up.foreign is not None and down.doubted:
            self._counts["owner_reconfirmed"] += 1
            out.append(SetCalm(up.key, CALM_S))
            up.calm_until = now + CALM_S
        self._heard_at[len(exact)] = now
        self._contests.pop(up.index, None)
        mates = self._sessions.mates(up)
        doubted = {down.index: down} if down.doubted else {}
        for context in (context for mate in mates for context in self._sessions.contexts_with(mate)):
            if context.first in mates:  # the UE is still the one that has been here all the time
                doubted |= {other.index: other for other in context.live if other.doubted}
        for other in doubted.values():
            self._sessions.doubt(other, False, out)
        for mate in mates:
            mate.failed = False
            if doubted:
                mate.trusted_until = now + TRUST_S
        for old in self._claims_beside(up):
            if old.failed and old.index < up.index:
                self._give_up(old, out)

    def unanswered(self, ping: Ping, now: float, out: list[Command]) -> None:
        """A question was asked in vain."""
        self._counts["ping_unanswered"] += 1
        up = self._sessions.at(ping.index)
        if up is not None and ping.ue == up.foreign:
            self._candidate_failed(up, now, out)
        elif up is not None and self.is_questioned(up, ping.ue):
            self._address_failed(up, ping.ue, now, out)
        elif up is not None:
            self._claim_failed(up, now, out)

    def is_questioned(self, up: Tunnel, exact: bytes) -> bool:
        """Whether the core has spoken to the UE of ``up`` under its other address, and not under ``exact`` since."""
        peer = self._sessions.at(up.peer)
        return peer is not None and ue_of(exact) in up.ues and ue_of(exact) not in peer.ues

    def _address_failed(self, up: Tunnel, exact: bytes, now: float, out: list[Command]) -> None:
        if self._hears(len(exact), now):
            self.give_up_address(up, exact, out)
        else:  # nobody is answered: silence says nothing about this one
            self._counts["doubt_unsettled"] += 1
            for down in self._downs_beside(up):
                self._sessions.own(down, exact, out)

    def give_up_address(self, up: Tunnel, exact: bytes, out: list[Command]) -> None:
        """``exact`` was the address of the one that had these tunnels before."""
        self._counts["address_given_up"] += 1
        ue = ue_of(exact)
        beside = [other for c in self._sessions.contexts_of(ue) if c.pair == up.pair for other in c.ups]
        for other in beside:
            if len(other.ues) > 1:
                self._sessions.disown(other, ue, out)

    def _claim_failed(self, up: Tunnel, now: float, out: list[Command]) -> None:
        rivals = self._claims_beside(up)
        doubted = [claim for claim in (up, *rivals) if self._in_doubt(claim)]
        if not doubted:
            return
        if up.foreign is not None and not up.failed:
            self._asker.ask(up, up.foreign, now, Haste.IN_DOUBT)
        up.failed = True
        challenger = self._sessions.at(self._contests.pop(up.index, 0))
        if challenger is not None and challenger.foreign is not None:
            self._give_up(up, out)
            self._asker.ask(challenger, challenger.foreign, now, Haste.IN_DOUBT)
        elif up in doubted and any(newer.index > up.index and newer.exactly_paired for newer in rivals):
            self._give_up(up, out)
        elif unasked := [newer for newer in rivals if newer.index > up.index and not newer.failed]:
            for newer in unasked:
                self._asker.ask_owner(newer, now, Haste.IN_DOUBT)
        elif (
            now >= max(self._heard_at.values(), default=-DEAF_S) + DEAF_S
        ):  # nobody is answered: silence says nothing about these
            for claim in doubted:
                self._leave_as_it_was(claim, now, out)

    def _candidate_failed(self, up: Tunnel, now: float, out: list[Command]) -> None:
        if self._in_doubt(up) and up.failed:
            self._leave_as_it_was(up, now, out)
        elif self._in_doubt(up):
            self._asker.ask_owner(up, now, Haste.IN_DOUBT)

    def _leave_as_it_was(self, up: Tunnel, now: float, out: list[Command]) -> None:
        """The core says nothing at all: the one that it spoke for before keeps the tunnel, and is not soon doubted again."""
        self._counts["doubt_unsettled"] += 1
        up.failed, up.calm_until, up.trusted_until = False, now + DEAF_S, now + DEAF_S
        out.append(SetCalm(up.key, DEAF_S))
        for down in self._downs_beside(up):
            self._sessions.doubt(down, False, out)
        for ue in up.ues:
            self._holding.answered(ue)

    def _in_doubt(self, up: Tunnel) -> bool:
        return any(down.doubted for down in self._downs_beside(up))

    def _downs_beside(self, up: Tunnel) -> list[Tunnel]:
        peer = self._sessions.at(up.peer)
        beside = [down for context in self._sessions.contexts_with(up) for down in context.downs]
        return beside if peer is None else [*beside, peer]

    def _claims_beside(self, up: Tunnel) -> list[Tunnel]:
        """The uplink tunnels of other bearers, or other UEs, under the same address."""
        contexts = [context for ue in up.ues for context in self._sessions.contexts_of(ue)]
        found = {other.index: other for context in contexts for other in context.ups}
        return [other for other in found.values() if other.session != up.session]

    def _give_up(self, old: Tunnel, out: list[Command]) -> None:
        """The UE of ``old`` is gone: forget it with the downlinks that nobody else is known to use."""
        self._counts["claim_given_up"] += 1
        for ue in old.ues:
            self._holding.answered(ue)
        mates = self._sessions.mates(old)
        contexts = [context for mate in mates for context in self._sessions.contexts_with(mate)]
        for mate in mates:
            self._sessions.forget(mate, out)
        for down in {down.index: down for context in contexts for down in context.downs}.values():
            if not self._sessions.answering(down) or not any(context.ups for context in contexts):
                self._sessions.forget(down, out)
