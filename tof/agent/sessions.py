"""What the user plane taught: which tunnels there are, when they begin, change hands, move and end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from tof.agent.commands import (
    Command,
    DropTunnel,
    PutTunnel,
    SetDefault,
    SetDoubt,
    SetLeft,
    SetOwners,
    SetPeer,
    SetSession,
)
from tof.agent.events import AdoptedTunnel
from tof.agent.registry import Registry
from tof.agent.tunnels import Tunnel, key_of, pair_of, ue_of
from tof.model import Direction, Form, Link, TunnelKey

UNUSED_AFTER_RESTART = 1 << 24
"""Numbers given just before a crash may still stand in the data path's flow table: do not give them again."""
MOST_BEARERS = 16
"""Tunnels of one UE address between two nodes and in one direction; a UE has eleven bearers at most (TS 23.401), the
rest is what was left behind without a sign. Stops a UE's own address from being sent under invented TEIDs."""
MOST_PAIRS = 64
"""Pairs of nodes that one UE address may be behind at a time; stops the same with invented outer addresses."""


class Sessions(Registry):
    """The registry of tunnels. Unpaired ones are bounded on their own and evict each other, so that a flood of invented
    TEIDs cannot push out a UE that the core has answered.
    """

    def __init__(self, most: int, most_unconfirmed: int, counts: Counter[str] | None = None) -> None:
        super().__init__()
        self._most, self._most_unconfirmed = most, most_unconfirmed
        self._counts = Counter() if counts is None else counts
        self._forms: dict[Form, Form] = {}

    def learn(
        self, direction: Direction, key: TunnelKey, exact: bytes, form: Form, out: list[Command],
        *, link: Link | None = None, dropped: int = 0, like: TunnelKey | None = None,
    ) -> Tunnel | None:  # fmt: skip
        """The tunnel under ``key``, new if need be with the UE at ``exact``; None if there is no room."""
        if (tunnel := self._by_key.get(key)) is not None:
            return tunnel
        if not self._make_room_beside(direction, key, ue_of(exact), out) or not self._make_room(out):
            return None
        pair, form = self.nodes.shared(pair_of(direction, key)), self._forms.setdefault(form, form)
        index, key = self._free_index(), key_of(direction, pair, key.teid)
        tunnel = Tunnel(key, pair, index, index, direction, form)
        before = self._before_handover(tunnel, ue_of(exact))
        tunnel.session = before[0].session if before else index
        self._enter(tunnel)
        both = (exact, *_others(before, exact))
        ues = tuple(map(ue_of, both))
        out.append(
            PutTunnel(
                key, index, tunnel.session, direction, ues, form, link=link, dropped=dropped,
                identifier=next((one[8:] for one in both if len(one) == 16), bytes(8)), like=like,
            )
        )  # fmt: skip
        for one in both:
            self._attach(tunnel, one, out)
        for up in before:
            self._set_left(up, True, out)
        self._bring_default(tunnel, before, link, out)
        return tunnel

    def _bring_default(
        self, new: Tunnel, before: tuple[Tunnel, ...], link: Link | None, out: list[Command]
    ) -> None:
        """A handover moves all bearers of a UE (TS 23.401 section 5.5.1): the default one is at the new node too, whichever
        speaks first there."""
        for first in [
            first for up in before for c in self.contexts_with(up) if (first := c.first) is not None
        ]:
            if first not in before and not first.left:
                key = key_of(Direction.UPLINK, new.pair, first.key.teid)
                self.learn(Direction.UPLINK, key, first.exact[0], first.form, out, link=link, like=new.key)

    def adopt(self, found: Iterable[AdoptedTunnel], out: list[Command]) -> None:
        """Take over what the data path holds; pairings that are right stay, defaults are told anew."""
        ordered = sorted(found, key=lambda old: old.index)
        told: list[Command] = []
        for old in ordered:
            pair = self.nodes.shared(pair_of(old.direction, old.key))
            key = key_of(old.direction, pair, old.key.teid)
            tunnel = Tunnel(key, pair, old.index, old.session, old.direction, old.form)
            tunnel.ended, tunnel.doubted, tunnel.left = old.ended, old.doubted, old.left
            self._enter(tunnel)
            for ue in old.ues:
                self._attach(tunnel, ue, told)
            self._next = max(self._next, old.index + UNUSED_AFTER_RESTART)
        for old in ordered:
            tunnel = self._by_index[old.index]
            if tunnel.uplink:
                tunnel.peer, tunnel.confirmed = old.peer, bool(old.peer)
                if old.peer:
                    self._keep_right_peer(tunnel, told)
                if tunnel.peer != old.peer:
                    out.append(SetPeer(tunnel.key, tunnel.index, tunnel.peer))
        for tunnel in self._by_index.values():
            self._review_confirmed(tunnel)
        for known in self._ues.values():
            known.default = self._default_of(known)
            if known.default:
                out.append(SetDefault(known.address, known.default))

    def own(self, tunnel: Tunnel, exact: bytes, out: list[Command]) -> None:
        """``exact`` is an address of this tunnel's UE from now on.

        One in place of another of its family means another UE: addresses live as long as their PDN connection.
        """
        ue, before = ue_of(exact), tunnel.ues
        if ue in before:
            tunnel.exact = tuple(exact if ue_of(old) == ue else old for old in tunnel.exact)
            return
        if any(len(old) == len(ue) for old in before):
            for old in before:
                self._detach(tunnel, old, out)
        tunnel.foreign, tunnel.failed = None, False
        self._attach(tunnel, exact, out)
        out.append(SetOwners(tunnel.key, tunnel.ues))

    def disown(self, tunnel: Tunnel, ue: bytes, out: list[Command]) -> None:
        """``ue`` is no address of this tunnel's UE any more; it has another one."""
        self._detach(tunnel, ue, out)
        out.append(SetOwners(tunnel.key, tunnel.ues))

    def take_over(self, up: Tunnel, exact: bytes, out: list[Command], *, confirmed: bool = False) -> bool:
        """Whether ``exact`` came through ``up`` by a handover: then it is its UE's, who has left the former node.

        ``up`` may be known as another's: of a packet with a foreign source that came first, or from an earlier time. Once
        the core has spoken for that one it has to be ``confirmed`` that it speaks for this one now.
        """
        before = self._before_handover(up, ue_of(exact))
        same = any(mate.session == up.session for mate in before)
        if not before or (up.exactly_paired and not same and not confirmed):
            return False
        if not same:
            for ue in up.ues:
                self._detach(up, ue, out)
            up.session, up.confirmed = before[0].session, False
            out.append(SetSession(up.key, up.session))
        for one in (exact, *_others(before, exact)):
            self.own(up, one, out)
        for mate in before if not up.left else ():
            self._set_left(mate, True, out)
        return True

    def is_beside(self, up: Tunnel, ue: bytes) -> bool:
        """Whether another bearer of the UE behind ``up`` has ``ue``, of a family that ``up`` has no address of."""
        if any(len(known) == len(ue) for known in up.ues):
            return False
        contexts = [context for context in self.contexts_of(ue) if context.pair == up.pair]
        return any(set(other.ues) & set(up.ues) for context in contexts for other in context.ups)

    def pair(self, up: Tunnel, down: Tunnel, out: list[Command]) -> None:
        """The core answered ``up`` in ``down``: so do we, whatever node the UE's packets came through."""
        for mate in self._mates_with(up, down):
            mate.exactly_paired = mate.confirmed = True
            self._set_peer(mate, down.index, out)
            self._review_confirmed(mate)

    def guess(self, up: Tunnel, out: list[Command]) -> bool:
        """Answer ``up`` as its bearer was answered before, else as the default bearer; whether that can be done."""
        if not up.peer:
            known = [mate.peer for mate in self.mates(up)]
            known += [
                self._default_in(context, ue)
                for ue in up.ues
                for context in self._ues[ue].contexts
                if context.pair == up.pair
            ]
            best = next((i for i in known if i and not self._by_index[i].doubted), 0)
            self._set_peer(up, best, out)
        return up.peer != 0

    def doubt(self, down: Tunnel, doubted: bool, out: list[Command]) -> None:
        """Whether the core has to speak in ``down`` again before anything is injected."""
        if down.doubted != doubted:
            down.doubted = doubted
            out.append(SetDoubt(down.key, down.index, doubted))

    def returned(self, up: Tunnel, out: list[Command]) -> None:
        """The UE speaks through ``up`` again."""
        for mate in self.mates(up):
            self._set_left(mate, mate is not up, out)

    def end(self, down: Tunnel, out: list[Command]) -> None:
        """An End Marker passed in ``down``: nothing more is injected into it."""
        down.ended = True
        self._lead_away(down, out)
        for ue in down.ues:
            self._review_default(ue, out)

    def forget(self, tunnel: Tunnel, out: list[Command]) -> None:
        """Drop ``tunnel`` and everything that points at it."""
        del self._by_key[tunnel.key]
        del self._by_index[tunnel.index]
        self._unconfirmed.pop(tunnel.index, None)
        for ue in tunnel.ues:
            self._detach(tunnel, ue, out)
        if (down := self._by_index.get(tunnel.peer)) is not None:
            self._review_confirmed(down)
        self.nodes.leave(tunnel.pair)
        out.append(DropTunnel(tunnel.key, tunnel.index))

    def _make_room_beside(
        self, direction: Direction, key: TunnelKey, address: bytes, out: list[Command]
    ) -> bool:
        """Keep one address from filling the tables, and from making every packet of its own dear."""
        if (ue := self._ues.get(address)) is None:
            return True
        pair = pair_of(direction, key)
        context = next((context for context in ue.contexts if context.pair == pair), None)
        if context is None:
            if len(ue.contexts) < MOST_PAIRS:
                return True
            unanswered = next((context for context in ue.contexts if not context.downs), None)
            victims = unanswered.ups if unanswered is not None else ()
        elif (spare := context.spare(direction, MOST_BEARERS)) is None:
            return True
        else:
            victims = spare
        self._counts["refused_pairs" if context is None else "refused_bearers"] += 1
        for victim in victims:
            self.forget(victim, out)
        return bool(victims)

    def _make_room(self, out: list[Command]) -> bool:
        if len(self._unconfirmed) < self._most_unconfirmed and len(self._by_key) < self._most:
            return True
        if not self._unconfirmed:
            self._counts["refused_room"] += 1
            return False
        self._counts["evicted_unconfirmed"] += 1
        self.forget(self._by_index[next(iter(self._unconfirmed))], out)
        return True

    def _before_handover(self, new: Tunnel, ue: bytes) -> tuple[Tunnel, ...]:
        """The tunnels that ``new`` takes over from: uplink TEID and SGW stay, the source changes (TS 23.401 5.5.1)."""
        if not new.uplink:
            return ()
        return tuple(
            up
            for context in self.contexts_of(ue)
            for up in context.ups
            if up.key.teid == new.key.teid and context.pair[1:] == new.pair[1:]
        )

    def _set_left(self, up: Tunnel, left: bool, out: list[Command]) -> None:
        if up.left != left:
            up.left = left
            out.append(SetLeft(up.key, left))


def _others(before: tuple[Tunnel, ...], exact: bytes) -> tuple[bytes, ...]:
    """The address of the other family that a UE has besides ``exact``, as its bearer's former tunnels know it."""
    return tuple([other for up in before for other in up.exact if len(other) != len(exact)][:1])
