"""What the user plane taught: tunnels, the UEs behind them, and which uplink answers into which downlink.

A context is one UE address behind one pair of nodes (and VLAN); overlapping addresses behind other pairs are other
contexts. Every change is told to the data path by commands appended to ``out``.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from tof.agent.commands import AMBIGUOUS, Command, DropTunnel, PutTunnel, SetDefault, SetOwners, SetPeer
from tof.agent.events import AdoptedTunnel
from tof.model import Direction, Form, Link, TunnelKey

Pair = tuple[bytes, bytes, int | None]  # eNB, SGW, VLAN
LAST_INDEX = 0xFFFFFFF0


@dataclass(slots=True, eq=False)
class Tunnel:
    """One GTP-U tunnel; ``exact`` are the UE's addresses as last seen, ``ues`` the same with IPv6 as /64."""

    key: TunnelKey
    index: int
    session: int
    direction: Direction
    form: Form
    ues: tuple[bytes, ...] = ()
    exact: tuple[bytes, ...] = ()
    peer: int = 0
    exactly_paired: bool = False
    ended: bool = False
    foreign: bytes | None = None

    @property
    def pair(self) -> Pair:
        """The two nodes at the tunnel's ends, eNB first, and the VLAN."""
        if self.direction is Direction.UPLINK:
            return self.key.source, self.key.destination, self.key.vlan
        return self.key.destination, self.key.source, self.key.vlan


@dataclass(slots=True)
class Context:
    """The tunnels of one UE address behind one pair; the first of each list is the default bearer's."""

    ups: list[Tunnel] = field(default_factory=list)
    downs: list[Tunnel] = field(default_factory=list)

    def default(self) -> Tunnel | None:
        """The downlink tunnel for what no flow ties to another."""
        return next((down for down in self.downs if not down.ended), None)


def ue_of(exact: bytes) -> bytes:
    """What identifies a UE: its IPv4 address, or the /64 that an IPv6 UE owns (TS 23.401 section 5.3.1.2.2)."""
    return exact if len(exact) == 4 else exact[:8]


def is_ue_address(exact: bytes) -> bool:
    """Whether a UE may own the address: unicast, and of more than link scope."""
    first, second = exact[0], exact[1]
    if len(exact) == 4:
        return (
            first not in (0, 127)
            and not 224 <= first <= 239
            and exact != b"\xff" * 4
            and not (first == 169 and second == 254)
        )
    return first != 0xFF and not (first == 0xFE and second & 0xC0 == 0x80) and any(exact[:8])


def _end(destination: bytes, teid: int) -> bytes:
    return destination + teid.to_bytes(4, "big")


class Sessions:
    """The registry of tunnels. Unpaired uplinks are bounded on their own and evict each other, so that a flood of
    invented TEIDs cannot push out a UE that the core has answered.
    """

    def __init__(self, most: int, most_unconfirmed: int) -> None:
        self._most, self._most_unconfirmed = most, most_unconfirmed
        self._by_key: dict[TunnelKey, Tunnel] = {}
        self._by_index: dict[int, Tunnel] = {}
        self._contexts: dict[tuple[Pair, bytes], Context] = {}
        self._places: dict[bytes, list[Pair]] = {}
        self._defaults: dict[bytes, int] = {}
        self._ends: dict[bytes, tuple[Tunnel, ...]] = {}
        self._cores: dict[bytes, int] = {}
        self._unconfirmed: OrderedDict[int, None] = OrderedDict()
        self._next = 1

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
        return self._ends.get(_end(destination, teid), ())

    def knows_ue(self, ue: bytes) -> bool:
        """Whether any context has ``ue``."""
        return ue in self._places

    def is_core(self, address: bytes) -> bool:
        """Whether a node of that outer address was seen at the core's end of a tunnel."""
        return address in self._cores

    def contexts_of(self, ue: bytes) -> Iterator[Context]:
        """Every context of ``ue``, oldest first."""
        return (self._contexts[pair, ue] for pair in self._places.get(ue, ()))

    def contexts(self) -> Iterator[tuple[bytes, Context]]:
        """Every UE with its tunnels."""
        return ((ue, context) for (_, ue), context in self._contexts.items())

    def learn(
        self, direction: Direction, key: TunnelKey, exact: bytes, form: Form, out: list[Command],
        *, link: Link | None = None, dropped: int = 0,
    ) -> Tunnel | None:  # fmt: skip
        """The tunnel under ``key``, new if need be with the UE at ``exact``; None if there is no room."""
        if (tunnel := self._by_key.get(key)) is not None:
            return tunnel
        if not self._make_room(direction, out):
            return None
        index = self._free_index()
        tunnel = Tunnel(key, index, index, direction, form)
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
        """Take over what the data path holds; peers and defaults are derived and told anew."""
        for old in sorted(found, key=lambda t: t.index):
            tunnel = Tunnel(old.key, old.index, old.session, old.direction, old.form, ended=old.ended)
            self._enter(tunnel)
            for ue in old.ues:
                self._attach(tunnel, ue if len(ue) == 4 else ue + bytes(7) + b"\x01", out)
            self._next = max(self._next, old.index + 1)
        for old in found:
            up, down = self._by_index[old.index], self._by_index.get(old.peer)
            if down is not None and up.peer != old.peer and down.direction is Direction.DOWNLINK:
                self.pair(up, down, out, exactly=False)

    def own(self, tunnel: Tunnel, exact: bytes, out: list[Command]) -> None:
        """``exact`` is an address of this tunnel's UE from now on, in place of one of the same family."""
        ue = ue_of(exact)
        if ue in tunnel.ues:
            at = tunnel.ues.index(ue)
            tunnel.exact = (*tunnel.exact[:at], exact, *tunnel.exact[at + 1 :])
            return
        for old in [u for u in tunnel.ues if len(u) == len(ue)]:
            self._detach(tunnel, old, out)
        tunnel.foreign = None
        self._attach(tunnel, exact, out)
        out.append(SetOwners(tunnel.key, tunnel.ues))

    def pair(self, up: Tunnel, down: Tunnel, out: list[Command], *, exactly: bool) -> None:
        """Replies to what comes from ``up`` go into ``down``."""
        up.exactly_paired = up.exactly_paired or exactly
        self._set_peer(up, down.index, out)

    def end(self, tunnel: Tunnel, out: list[Command]) -> None:
        """An End Marker passed in ``tunnel``: nothing more is injected into it."""
        tunnel.ended = True
        self._withdraw(tunnel, out)

    def forget(self, tunnel: Tunnel, out: list[Command]) -> None:
        """Drop ``tunnel`` and everything that points at it."""
        del self._by_key[tunnel.key]
        del self._by_index[tunnel.index]
        self._unconfirmed.pop(tunnel.index, None)
        end = _end(tunnel.key.destination, tunnel.key.teid)
        self._ends[end] = tuple(other for other in self._ends[end] if other is not tunnel)
        if not self._ends[end]:
            del self._ends[end]
        core = tunnel.pair[1]
        self._cores[core] -= 1
        if not self._cores[core]:
            del self._cores[core]
        for ue in tunnel.ues:
            self._detach(tunnel, ue, out)
        out.append(DropTunnel(tunnel.key, tunnel.index))

    def _enter(self, tunnel: Tunnel) -> None:
        self._by_key[tunnel.key] = tunnel
        self._by_index[tunnel.index] = tunnel
        end = _end(tunnel.key.destination, tunnel.key.teid)
        self._ends[end] = (*self._ends.get(end, ()), tunnel)
        core = tunnel.pair[1]
        self._cores[core] = self._cores.get(core, 0) + 1
        if tunnel.direction is Direction.UPLINK:
            self._unconfirmed[tunnel.index] = None

    def _free_index(self) -> int:
        while self._next in self._by_index:
            self._next += 1
        index = self._next
        self._next = index + 1 if index < LAST_INDEX else 1
        return index

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
        if new.direction is Direction.DOWNLINK:
            return None
        for context in self.contexts_of(ue):
            for up in context.ups:
                if up.key.teid == new.key.teid and up.pair[1:] == new.pair[1:]:
                    return up.session
        return None

    def _attach(self, tunnel: Tunnel, exact: bytes, out: list[Command]) -> None:
        ue, pair = ue_of(exact), tunnel.pair
        tunnel.ues = (*tunnel.ues, ue)
        tunnel.exact = (*tunnel.exact, exact)
        if (context := self._contexts.get((pair, ue))) is None:
            context = self._contexts[pair, ue] = Context()
            self._places.setdefault(ue, []).append(pair)
        if tunnel.direction is Direction.UPLINK:
            context.ups.append(tunnel)
            if not tunnel.peer and (down := context.default()) is not None:
                self._set_peer(tunnel, down.index, out)
            return
        context.downs.append(tunnel)
        if not tunnel.ended:
            for up in context.ups:
                if not up.peer:
                    self._set_peer(up, tunnel.index, out)
        self._review_default(ue, out)

    def _detach(self, tunnel: Tunnel, ue: bytes, out: list[Command]) -> None:
        at = tunnel.ues.index(ue)
        tunnel.ues = tunnel.ues[:at] + tunnel.ues[at + 1 :]
        tunnel.exact = tunnel.exact[:at] + tunnel.exact[at + 1 :]
        pair = tunnel.pair
        context = self._contexts[pair, ue]
        (context.ups if tunnel.direction is Direction.UPLINK else context.downs).remove(tunnel)
        self._lead_away(tunnel, context, out)
        if not context.ups and not context.downs:
            del self._contexts[pair, ue]
            self._places[ue].remove(pair)
            if not self._places[ue]:
                del self._places[ue]
        self._review_default(ue, out)

    def _withdraw(self, down: Tunnel, out: list[Command]) -> None:
        for ue in down.ues:
            self._lead_away(down, self._contexts[down.pair, ue], out)
            self._review_default(ue, out)

    def _lead_away(self, down: Tunnel, context: Context, out: list[Command]) -> None:
        default = context.default()
        for up in context.ups:
            if up.peer == down.index and (default is None or default is not down):
                up.exactly_paired = False
                self._set_peer(up, default.index if default else 0, out)

    def _set_peer(self, up: Tunnel, peer: int, out: list[Command]) -> None:
        if up.peer == peer:
            return
        up.peer = peer
        if peer:
            self._unconfirmed.pop(up.index, None)
        elif up.index in self._by_index:
            self._unconfirmed[up.index] = None
        out.append(SetPeer(up.key, up.index, peer))

    def _review_default(self, ue: bytes, out: list[Command]) -> None:
        index = self._default_of(ue)
        if self._defaults.get(ue, 0) == index:
            return
        if index:
            self._defaults[ue] = index
        else:
            del self._defaults[ue]
        out.append(SetDefault(ue, index))

    def _default_of(self, ue: bytes) -> int:
        answering = [
            (context, down) for context in self.contexts_of(ue) if (down := context.default()) is not None
        ]
        if not answering:
            return 0
        newest, default = answering[-1]
        sessions = {up.session for up in newest.ups}
        for context, _ in answering[:-1]:
            if not sessions & {up.session for up in context.ups}:
                return AMBIGUOUS  # two UEs with one address; only flows can tell them apart
        return default.index
