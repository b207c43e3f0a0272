"""What the user plane taught: tunnels, the UEs behind them, and which uplink answers into which downlink.

A context is one UE address behind one pair of nodes (and VLAN); overlapping addresses behind other pairs are other
contexts. Every change is told to the data path by commands appended to ``out``.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tof.agent.commands import AMBIGUOUS, Command, DropTunnel, PutTunnel, SetDefault, SetOwners, SetPeer
from tof.agent.events import AdoptedTunnel
from tof.agent.nodes import Nodes
from tof.agent.tunnels import Context, Pair, Tunnel, key_of, pair_of, ue_of
from tof.model import Direction, Form, Link, TunnelKey

LAST_INDEX = 0xFFFFFFF0
UNUSED_AFTER_RESTART = 1 << 24
"""Numbers given just before a crash may still stand in the data path's flow table: do not give them again."""


@dataclass(slots=True)
class _Ue:
    """A UE address: its contexts, oldest first, and the default downlink tunnel that the data path was told."""

    address: bytes
    contexts: tuple[Context, ...] = ()
    default: int = 0


MOST_BEARERS = 64
"""Tunnels of one UE address between two nodes and in one direction; a UE has eleven bearers at most (TS 23.401), the
rest is what was left behind without a sign. Stops a UE's own address from being sent under invented TEIDs."""
MOST_PAIRS = 64
"""Pairs of nodes that one UE address may be behind at a time; stops the same with invented outer addresses."""


class Sessions:
    """The registry of tunnels. Unpaired uplinks are bounded on their own and evict each other, so that a flood of
    invented TEIDs cannot push out a UE that the core has answered.
    """

    def __init__(self, most: int, most_unconfirmed: int) -> None:
        self._most, self._most_unconfirmed = most, most_unconfirmed
        self._by_key: dict[TunnelKey, Tunnel] = {}
        self._by_index: dict[int, Tunnel] = {}
        self._ues: dict[bytes, _Ue] = {}
        self._unconfirmed: OrderedDict[int, None] = OrderedDict()
        self._forms: dict[Form, Form] = {}
        self._next = 1
        self.nodes = Nodes()

    def __len__(self) -> int:
        return len(self._by_key)

    def __iter__(self) -> Iterator[Tunnel]:
        return iter(self._by_key.values())

    def get(self, key: TunnelKey) -> Tunnel | None:
        """The tunnel under ``key``."""
        return self._by_key.get(key)

    def at(self, index: int) -> Tunnel | None:
        """The tunnel numbered ``index``."""
        return self._by_index.get(index)

    def towards(self, destination: bytes, teid: int) -> tuple[Tunnel, ...]:
        """The tunnels that end at ``destination`` under ``teid``, whoever sends."""
        found = (self._by_key.get(key) for key in self.nodes.keys_towards(destination, teid))
        return tuple(tunnel for tunnel in found if tunnel is not None)

    def knows_ue(self, ue: bytes) -> bool:
        """Whether any context has ``ue``."""
        return ue in self._ues

    def default(self, ue: bytes) -> int:
        """The default downlink tunnel of ``ue``: 0 if none is known, AMBIGUOUS if no single one is right."""
        return self._ues[ue].default if ue in self._ues else 0

    def contexts_of(self, ue: bytes) -> Iterator[Context]:
        """Every context of ``ue``, oldest first."""
        return iter(self._ues[ue].contexts if ue in self._ues else ())

    def contexts_with(self, tunnel: Tunnel) -> Iterator[Context]:
        """The contexts that ``tunnel`` is in: one for each address of its UE."""
        pair = tunnel.pair
        for ue in tunnel.ues:
            yield from (context for context in self._ues[ue].contexts if context.pair == pair)

    def contexts(self) -> Iterator[tuple[bytes, Context]]:
        """Every UE with its tunnels."""
        return ((ue.address, context) for ue in self._ues.values() for context in ue.contexts)

    def learn(
        self, direction: Direction, key: TunnelKey, exact: bytes, form: Form, out: list[Command],
        *, link: Link | None = None, dropped: int = 0,
    ) -> Tunnel | None:  # fmt: skip
        """The tunnel under ``key``, new if need be with the UE at ``exact``; None if there is no room."""
        if (tunnel := self._by_key.get(key)) is not None:
            return tunnel
        if not self._make_room_beside(direction, key, ue_of(exact), out) or not self._make_room(
            direction, out
        ):
            return None
        pair, form = self.nodes.shared(pair_of(direction, key)), self._forms.setdefault(form, form)
        index, key = self._free_index(), key_of(direction, pair, key.teid)
        tunnel = Tunnel(key, pair, index, index, direction, form)
        tunnel.session = self._session_before(tunnel, ue_of(exact)) or index
        self._enter(tunnel)
        out.append(
            PutTunnel(
                key, index, tunnel.session, direction, (ue_of(exact),), form, link=link, dropped=dropped
            )
        )
        self._attach(tunnel, exact, out)
        return tunnel

    def adopt(self, found: Iterable[AdoptedTunnel], out: list[Command]) -> None:
        """Take over what the data path holds; pairings that are right stay, defaults are told anew."""
        ordered = sorted(found, key=lambda old: old.index)
        told: list[Command] = []
        for old in ordered:
            pair = self.nodes.shared(pair_of(old.direction, old.key))
            key = key_of(old.direction, pair, old.key.teid)
            tunnel = Tunnel(key, pair, old.index, old.session, old.direction, old.form, ended=old.ended)
            tunnel.peer = old.peer if tunnel.uplink else 0
            self._enter(tunnel)
            for ue in old.ues:
                self._attach(tunnel, ue if len(ue) == 4 else ue + bytes(7) + b"\x01", told)
            self._next = max(self._next, old.index + UNUSED_AFTER_RESTART)
        for old in ordered:
            tunnel = self._by_index[old.index]
            self._keep_right_peer(tunnel, told)
            if tunnel.peer != old.peer and tunnel.uplink:
                out.append(SetPeer(tunnel.key, tunnel.index, tunnel.peer))
        out.extend(SetDefault(ue.address, ue.default) for ue in self._ues.values() if ue.default)

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
        tunnel.foreign = None
        self._attach(tunnel, exact, out)
        out.append(SetOwners(tunnel.key, tunnel.ues))

    def pair(self, up: Tunnel, down: Tunnel, out: list[Command]) -> None:
        """The core answered ``up`` in ``down``: so do we."""
        up.exactly_paired = True
        self._set_peer(up, down.index, out)
        for ue in up.ues:
            self._review_default(ue, out)

    def end(self, down: Tunnel, out: list[Command]) -> None:
        """An End Marker passed in ``down``: nothing more is injected into it."""
        down.ended = True
        for context in self.contexts_with(down):
            self._lead_away(down, context, out)
        for ue in down.ues:
            self._review_default(ue, out)

    def forget(self, tunnel: Tunnel, out: list[Command]) -> None:
        """Drop ``tunnel`` and everything that points at it."""
        del self._by_key[tunnel.key]
        del self._by_index[tunnel.index]
        self._unconfirmed.pop(tunnel.index, None)
        for ue in tunnel.ues:
            self._detach(tunnel, ue, out)
        self.nodes.leave(tunnel.pair)
        out.append(DropTunnel(tunnel.key, tunnel.index))

    def _enter(self, tunnel: Tunnel) -> None:
        self._by_key[tunnel.key] = tunnel
        self._by_index[tunnel.index] = tunnel
        self.nodes.enter(tunnel.pair)
        if tunnel.uplink and not tunnel.peer:
            self._unconfirmed[tunnel.index] = None

    def _free_index(self) -> int:
        index = self._next if self._next <= LAST_INDEX else 1
        while index in self._by_index:
            index = index + 1 if index < LAST_INDEX else 1
        self._next = index + 1
        return index

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
        for victim in victims:
            self.forget(victim, out)
        return bool(victims)

    def _make_room(self, direction: Direction, out: list[Command]) -> bool:
        crowded = direction is Direction.UPLINK and len(self._unconfirmed) >= self._most_unconfirmed
        if not crowded and len(self._by_key) < self._most:
            return True
        if not self._unconfirmed:
            return False
        self.forget(self._by_index[next(iter(self._unconfirmed))], out)
        return True

    def _session_before(self, new: Tunnel, ue: bytes) -> int | None:
        """After a handover the uplink TEID and SGW stay and the source changes (TS 23.401 section 5.5.1)."""
        if not new.uplink:
            return None
        for context in self.contexts_of(ue):
            for up in context.ups:
                if up.key.teid == new.key.teid and context.pair[1:] == new.pair[1:]:
                    return up.session
        return None

    def _context(self, pair: Pair, ue: _Ue) -> Context:
        for context in ue.contexts:
            if context.pair == pair:
                return context
        context = Context(pair)
        ue.contexts += (context,)
        return context

    def _attach(self, tunnel: Tunnel, exact: bytes, out: list[Command]) -> None:
        address = ue_of(exact)
        ue = self._ues.get(address) or self._ues.setdefault(address, _Ue(address))
        tunnel.exact += (ue.address if len(exact) == 4 else exact,)
        context = self._context(tunnel.pair, ue)
        context.add(tunnel)
        if tunnel.uplink:
            self._answer(tunnel, context, out)
        elif not tunnel.ended:
            for up in context.ups:
                # A new downlink may be a dedicated bearer's, or the old one's after the UE was idle: to be asked.
                up.exactly_paired = False
                self._answer(up, context, out)
        self._review_default(address, out)

    def _answer(self, up: Tunnel, context: Context, out: list[Command]) -> None:
        default = context.default()
        if not up.peer and default is not None:
            self._set_peer(up, default.index, out)

    def _detach(self, tunnel: Tunnel, address: bytes, out: list[Command]) -> None:
        tunnel.exact = tuple(exact for exact in tunnel.exact if ue_of(exact) != address)
        ue = self._ues[address]
        context = self._context(tunnel.pair, ue)
        context.remove(tunnel)
        if tunnel.uplink:
            self._keep_right_peer(tunnel, out)
        else:
            self._lead_away(tunnel, context, out)
        if not context.tunnels:
            ue.contexts = tuple(other for other in ue.contexts if other is not context)
        self._review_default(address, out)
        if not ue.contexts:
            del self._ues[address]

    def _keep_right_peer(self, up: Tunnel, out: list[Command]) -> None:
        """No answer into a tunnel of another UE."""
        if up.peer and not any(
            down.index == up.peer for context in self.contexts_with(up) for down in context.live
        ):
            up.exactly_paired = False
            self._set_peer(up, 0, out)
            for context in self.contexts_with(up):
                self._answer(up, context, out)

    def _lead_away(self, down: Tunnel, context: Context, out: list[Command]) -> None:
        default = context.default()
        for up in context.ups:
            if up.peer == down.index:
                up.exactly_paired = False
                self._set_peer(up, default.index if default else 0, out)
                for other in self.contexts_with(up):  # the UE's other family may have a downlink of its own
                    self._answer(up, other, out)

    def _set_peer(self, up: Tunnel, peer: int, out: list[Command]) -> None:
        if up.peer == peer or up.index not in self._by_index:
            return
        up.peer = peer
        if peer:
            self._unconfirmed.pop(up.index, None)
        else:
            self._unconfirmed[up.index] = None
        out.append(SetPeer(up.key, up.index, peer))

    def _review_default(self, address: bytes, out: list[Command]) -> None:
        ue = self._ues[address]
        index = _default_of(ue.contexts)
        if ue.default != index:
            ue.default = index
            out.append(SetDefault(ue.address, index))


def _default_of(contexts: tuple[Context, ...]) -> int:
    if len(contexts) == 1:
        only = contexts[0].default()
        return only.index if only is not None else 0
    answering = [(context, down) for context in contexts if (down := context.default()) is not None]
    if not answering:
        return 0
    newest, default = answering[-1]
    sessions = {up.session for up in newest.ups}
    for context, _ in answering[:-1]:
        if not sessions & {up.session for up in context.ups}:
            return AMBIGUOUS  # two UEs with one address; only flows can tell them apart
    return default.index
