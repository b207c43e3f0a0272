"""When the Pinger asks: an uplink tunnel without an answering downlink *is* a ping that is due."""

from __future__ import annotations

from collections import OrderedDict

from tof.agent.commands import Command, PutToken
from tof.agent.pinging import Pinging
from tof.agent.sessions import Sessions
from tof.agent.tunnels import Tunnel
from tof.model import TunnelKey

REFUSALS = 4096
REFUSED_S = 60.0


class Asker:
    """Derives what to ask from the sessions.

    A UE whose tunnel answered with an Error Indication is not asked for again there: some cores drop a bearer for it.
    """

    def __init__(self, sessions: Sessions, pinging: Pinging) -> None:
        self._sessions, self._pinging = sessions, pinging
        self._refused: OrderedDict[TunnelKey, tuple[tuple[bytes, ...], float]] = OrderedDict()

    def review(self, up: Tunnel, now: float, out: list[Command]) -> None:
        """Ask through ``up`` exactly while its downlink is unknown, or one of several and not yet told."""
        if up.foreign is not None and self._pinging.pending(up.index):
            return
        several = any(len(context.live) > 1 for context in self._sessions.contexts_with(up))
        if not up.peer or (several and not up.exactly_paired):
            exact = next((exact for exact in up.exact if self._pinging.may_ask(exact)), None)
            if exact is not None:
                self.ask(up, exact, now, out)
        else:
            self._pinging.stop(up.index, now)

    def ask(self, up: Tunnel, exact: bytes, now: float, out: list[Command]) -> None:
        """Ask through ``up`` on behalf of ``exact``, unless that was refused or is under way."""
        refused, until = self._refused.get(up.key, ((), 0.0))
        if exact in refused and now < until:
            return
        token = self._pinging.ask(up.index, exact, now)
        if token is not None:
            out.append(PutToken(token, up.index))

    def candidate(self, up: Tunnel, source: bytes, now: float, out: list[Command]) -> None:
        """A foreign ``source`` came through ``up``: ask, one candidate at a time, whether it is the UE's now."""
        if up.foreign is not None and (up.foreign == source or self._pinging.pending(up.index)):
            return
        up.foreign = source
        self.ask(up, source, now, out)

    def refused(self, tunnel: Tunnel, now: float) -> bool:
        """An Error Indication came back for ``tunnel``; whether a request of ours may have caused it."""
        if not self._pinging.asked(tunnel.index):
            return False
        self._refused[tunnel.key] = tunnel.exact, now + REFUSED_S
        self._refused.move_to_end(tunnel.key)
        if len(self._refused) > REFUSALS:
            self._refused.popitem(last=False)
        return True
