"""The nodes at the ends of tunnels: who is radio, who is core, and who talks to whom."""

from __future__ import annotations

from collections.abc import Iterator

from tof.agent.tunnels import Pair
from tof.model import TunnelKey


class Nodes:
    """The pairs of nodes that have tunnels between them; forgotten with their last tunnel."""

    def __init__(self) -> None:
        self._known: dict[Pair, Pair] = {}
        self._count: dict[Pair, int] = {}
        self._of_radio: dict[bytes, tuple[Pair, ...]] = {}
        self._of_core: dict[bytes, tuple[Pair, ...]] = {}

    def shared(self, pair: Pair) -> Pair:
        """The equal pair that is held here already, so that every tunnel's addresses are held once."""
        return self._known.get(pair, pair)

    def enter(self, pair: Pair) -> None:
        """One more tunnel between the two."""
        count = self._count.get(pair, 0)
        self._count[pair] = count + 1
        if not count:
            self._known[pair] = pair
            radio, core, _ = pair
            self._of_radio[radio] = (*self._of_radio.get(radio, ()), pair)
            self._of_core[core] = (*self._of_core.get(core, ()), pair)

    def leave(self, pair: Pair) -> None:
        """One tunnel less."""
        self._count[pair] -= 1
        if self._count[pair]:
            return
        del self._count[pair], self._known[pair]
        for table, node in ((self._of_radio, pair[0]), (self._of_core, pair[1])):
            table[node] = tuple(other for other in table[node] if other != pair)
            if not table[node]:
                del table[node]

    def is_core(self, address: bytes) -> bool:
        """Whether a node of that outer address was seen at the core's end of a tunnel."""
        return address in self._of_core

    def is_radio(self, address: bytes) -> bool:
        """Whether a node of that outer address was seen at the radio's end of a tunnel."""
        return address in self._of_radio

    def keys_towards(self, address: bytes, teid: int) -> Iterator[TunnelKey]:
        """The key of every tunnel that may end at ``address`` under ``teid``."""
        for radio, core, vlan in self._of_core.get(address, ()):
            yield TunnelKey(radio, core, teid, vlan)
        for radio, core, vlan in self._of_radio.get(address, ()):
            yield TunnelKey(core, radio, teid, vlan)
