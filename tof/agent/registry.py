"""The registry of tunnels: whose they are, which downlink answers which uplink, where a UE's replies go by default.

A context is one UE address behind one pair of nodes (and VLAN); overlapping addresses behind other pairs are other
contexts. Every change is told to the data path by commands appended to ``out``.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

from tof.agent.commands import AMBIGUOUS, Command, SetDefault, SetPeer
from tof.agent.nodes import Nodes
from tof.agent.tunnels import Context, Pair, Tunnel, ue_of
from tof.model import TunnelKey

LAST_INDEX = 0xFFFFFFF0


@dataclass(slots=True)
class _Ue:
    """A UE address: its contexts, oldest first, and the default downlink tunnel that the data path was told."""

    address: bytes
    contexts: tuple[Context, ...] = ()
    default: int = 0


class Registry:
    """Tunnels by key, number and UE, and how they belong together."""

    def __init__(self) -> None:
        self._by_key: dict[TunnelKey, Tunnel] = {}
        self._by_index: dict[int, Tunnel] = {}
        self._ues: dict[bytes, _Ue] = {}
        self._unconfirmed: OrderedDict[int, None] = OrderedDict()
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
        keys = dict.fromkeys(
            self.nodes.keys_towards(destination, teid)
        )  # two nodes may be radio and core both
        found = (self._by_key.get(key) for key in keys)
        return tuple(tunnel for tunnel in found if tunnel is not None)

    def knows_ue(self, ue: bytes) -> bool:
        """Whether any context has ``ue``."""
        return ue in self._ues

    def is_served(self, ue: bytes) -> bool:
        """Whether the core speaks to ``ue``."""
        return any(context.downs for context in self.contexts_of(ue))

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

    def mates(self, up: Tunnel) -> tuple[Tunnel, ...]:
        """The uplink tunnels of the same bearer, ``up`` included: before and after a handover."""
        contexts = [context for ue in up.ues for context in self._ues[ue].contexts]
        found = {other.index: other for c in contexts for other in c.ups if other.session == up.session}
        return tuple(found.values())

    def _mates_with(self, up: Tunnel, down: Tunnel) -> Iterator[Tunnel]:
        return (mate for mate in self.mates(up) if set(mate.ues) & set(down.ues))

    def is_first(self, up: Tunnel) -> bool:
        """Whether ``up`` stands for the default bearer of its UE."""
        return any(context.first is up for context in self.contexts_with(up))

    def answering(self, down: Tunnel) -> tuple[Tunnel, ...]:
        """The uplink tunnels whose replies go into ``down``."""
        found = (up for ue in down.ues for up in _answering(self._ues[ue], down))
        return tuple({up.index: up for up in found}.values())

    def _enter(self, tunnel: Tunnel) -> None:
        self._by_key[tunnel.key] = tunnel
        self._by_index[tunnel.index] = tunnel
        self.nodes.enter(tunnel.pair)

    def _free_index(self) -> int:
        index = self._next if self._next <= LAST_INDEX else 1
        while index in self._by_index:
            index = index + 1 if index < LAST_INDEX else 1
        self._next = index + 1
        return index

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
            self._answer(tunnel, out)
            for other in context.ups:  # it may be older than the one that stood for the default bearer
                self._review_confirmed(other)
        elif not tunnel.ended:
            self._consider(tunnel, context, out)
        self._review_confirmed(tunnel)
        self._review_default(address, out)

    def _consider(self, down: Tunnel, context: Context, out: list[Command]) -> None:
        """A new downlink may be a dedicated bearer's, or any bearer's after idle mode or a handover: to be asked."""
        for up in context.ups:
            up.exactly_paired = False
            if up is not context.first:
                self._set_peer(up, 0, out)
            elif not up.peer or self._by_index[up.peer].pair != up.pair:
                for mate in self._mates_with(up, down):
                    self._set_peer(mate, down.index, out)

    def _answer(self, up: Tunnel, out: list[Command]) -> None:
        """The default bearer is answered in what is known; any other has to be asked."""
        for context in self.contexts_with(up):
            if context.first is up and not up.peer and (live := context.live):
                self._set_peer(up, live[0].index, out)

    def _detach(self, tunnel: Tunnel, address: bytes, out: list[Command]) -> None:
        tunnel.exact = tuple(exact for exact in tunnel.exact if ue_of(exact) != address)
        ue = self._ues[address]
        context = self._context(tunnel.pair, ue)
        context.remove(tunnel)
        if not tunnel.uplink:
            self._lead_away(tunnel, out, ue)
        elif tunnel.index in self._by_index:
            self._keep_right_peer(tunnel, out)
        if context.first is not None:
            self._answer(context.first, out)
            self._review_confirmed(context.first)
        if not context.tunnels:
            ue.contexts = tuple(other for other in ue.contexts if other is not context)
        self._review_default(address, out)
        if not ue.contexts:
            del self._ues[address]

    def _keep_right_peer(self, up: Tunnel, out: list[Command]) -> None:
        """No answer into a tunnel of another UE."""
        peer = self._by_index.get(up.peer)
        if peer is None or peer.ended or not set(peer.ues) & set(up.ues):
            up.exactly_paired = False
            self._set_peer(up, 0, out)
            self._answer(up, out)

    def _lead_away(self, down: Tunnel, out: list[Command], gone: _Ue | None = None) -> None:
        """``down`` is no more, or no more of the UE ``gone``: its uplinks are answered elsewhere, once that is known."""
        for up in self.answering(down) if gone is None else _answering(gone, down):
            if gone is None or not set(up.ues) & set(down.ues):
                up.exactly_paired = False
                self._set_peer(up, 0, out)

    def _set_peer(self, up: Tunnel, peer: int, out: list[Command]) -> None:
        if up.peer == peer:
            return
        before, up.peer = up.peer, peer
        out.append(SetPeer(up.key, up.index, peer))
        self._review_confirmed(up)
        for index in (before, peer):
            if (down := self._by_index.get(index)) is not None:
                self._review_confirmed(down)
        for ue in up.ues:
            self._review_default(ue, out)

    def _review_confirmed(self, tunnel: Tunnel) -> None:
        """Two directions confirm each other; of several uplinks of a UE the others need the core's own word."""
        if not tunnel.uplink:
            confirmed = bool(self.answering(tunnel))
        else:
            confirmed = bool(tunnel.peer) and (tunnel.confirmed or self.is_first(tunnel))
        if confirmed:
            self._unconfirmed.pop(tunnel.index, None)
        else:
            self._unconfirmed.setdefault(tunnel.index)

    def _default_in(self, context: Context, ue: bytes) -> int:
        """The downlink tunnel for what no flow ties to another: the default bearer's, else the first."""
        peer = self._by_index.get(context.first.peer) if context.first is not None else None
        if peer is not None and ue in peer.ues:
            return peer.index
        return next((down.index for down in context.downs if not down.ended), 0)

    def _default_of(self, ue: _Ue) -> int:
        claims = [(c, index) for c in ue.contexts if (index := self._default_in(c, ue.address))]
        if not claims:
            return 0
        newest, default = claims[-1]
        sessions = {up.session for up in newest.ups}
        for context, index in claims[:-1]:
            if index != default and not sessions & {up.session for up in context.ups}:
                return AMBIGUOUS  # two UEs with one address; only flows can tell them apart
        return default

    def _review_default(self, address: bytes, out: list[Command]) -> None:
        ue = self._ues[address]
        index = self._default_of(ue)
        if ue.default != index:
            ue.default = index
            out.append(SetDefault(ue.address, index))


def _answering(ue: _Ue, down: Tunnel) -> tuple[Tunnel, ...]:
    return tuple(up for context in ue.contexts for up in context.ups if up.peer == down.index)
