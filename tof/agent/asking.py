"""When the Pinger asks: an uplink tunnel without an answering downlink *is* a ping that is due.

A UE's default bearer is asked through at once. Any other bearer only when a reply has to go its way, because some cores
drop a dedicated bearer in which its uplink filter finds foreign traffic.
"""

from __future__ import annotations

from collections import OrderedDict

from tof.agent.pinging import Haste, Pinging
from tof.agent.sessions import Sessions
from tof.agent.tunnels import Tunnel, ue_of
from tof.model import TunnelKey

REFUSALS = 4096
REFUSED_S = 60.0


class Asker:
    """Derives what to ask from the sessions.

    A UE whose tunnel answered with an Error Indication is not asked for again there for a while.
    """

    def __init__(self, sessions: Sessions, pinging: Pinging) -> None:
        self._sessions, self._pinging = sessions, pinging
        self._refused: OrderedDict[TunnelKey, tuple[tuple[bytes, ...], float]] = OrderedDict()

    def review(self, up: Tunnel, now: float) -> None:
        """Ask through ``up`` exactly while its downlink is unknown, or may not be the right one any more.

        For each of its UE's addresses by itself: the core may have said where one is, and not yet of the other.
        """
        for exact in up.exact:
            if self.asks_candidate(up, len(exact)):
                continue
            if self._settled(up, ue_of(exact)):
                self._pinging.stop(up.index, now, (len(exact),))
            elif not up.left and self._sessions.is_first(up):
                self.ask(up, exact, now)

    def asks_candidate(self, up: Tunnel, family: int) -> bool:
        """Whether a foreign source of that address length is being asked for through ``up``."""
        foreign = up.foreign
        return foreign is not None and len(foreign) == family and self._pinging.pending(up.index, foreign)

    def review_changed(self, up: Tunnel, now: float) -> None:
        """The same at once, because the tunnel of the last answer is no more."""
        self.review(up, now)
        self._pinging.again(up.index, now)

    def _settled(self, up: Tunnel, ue: bytes) -> bool:
        peer = self._sessions.at(up.peer)
        if peer is None or peer.pair != up.pair or peer.doubted or ue not in peer.ues:
            return False
        return up.exactly_paired or all(len(context.live) < 2 for context in self._sessions.contexts_with(up))

    def may_ask(self, up: Tunnel, ue: bytes) -> bytes | None:
        """The exact address under which ``up`` can be asked for ``ue``, if there is a target of its family."""
        return next((e for e in up.exact if ue_of(e) == ue and self._pinging.may_ask(e)), None)

    def ask_owner(self, up: Tunnel, now: float, haste: Haste = Haste.NONE) -> None:
        """Ask through ``up`` on behalf of its UE."""
        exact = next((exact for exact in up.exact if self._pinging.may_ask(exact)), None)
        if exact is not None:
            self.ask(up, exact, now, haste)

    def ask(self, up: Tunnel, exact: bytes, now: float, haste: Haste = Haste.NONE) -> None:
        """Ask through ``up`` on behalf of ``exact``, unless that was refused or is under way."""
        refused, until = self._refused.get(up.key, ((), 0.0))
        if exact in refused and now < until:
            return
        self._pinging.ask(up.index, exact, now, haste)

    def refused(self, tunnel: Tunnel, now: float) -> None:
        """An Error Indication came back for ``tunnel``: if a request of ours may have caused it, no more of them."""
        if self._pinging.asked(tunnel.index):
            self._refused[tunnel.key] = tunnel.exact, now + REFUSED_S
            self._refused.move_to_end(tunnel.key)
            if len(self._refused) > REFUSALS:
                self._refused.popitem(last=False)
