"""What the agent remembers of a GTP-U tunnel, and of the tunnels of one UE address behind one pair of nodes."""

from __future__ import annotations

from dataclasses import dataclass

from tof.model import Direction, Form, TunnelKey

Pair = tuple[bytes, bytes, int | None]  # eNB, SGW, VLAN


def pair_of(direction: Direction, key: TunnelKey) -> Pair:
    """The two nodes at a tunnel's ends, eNB first, and the VLAN."""
    source, destination, _, vlan = key
    return (source, destination, vlan) if direction is Direction.UPLINK else (destination, source, vlan)


def key_of(direction: Direction, pair: Pair, teid: int) -> TunnelKey:
    """The key of the tunnel between the two nodes under ``teid``."""
    radio, core, vlan = pair
    if direction is Direction.UPLINK:
        return TunnelKey(radio, core, teid, vlan)
    return TunnelKey(core, radio, teid, vlan)


def ue_of(exact: bytes) -> bytes:
    """What identifies a UE: its IPv4 address, or the /64 that an IPv6 UE owns (TS 23.401 section 5.3.1.2.2)."""
    return exact if len(exact) == 4 else exact[:8]


@dataclass(slots=True, eq=False)
class Tunnel:
    """One GTP-U tunnel; ``exact`` are its UE's addresses as last seen, at most one of each family.

    Uplink: ``peer`` is where replies go, 0 while that has to be asked; ``exactly_paired``: the core said so,
    ``confirmed``: once at least; ``left``: the UE has gone on through another node; ``failed``: asked in vain since the
    tunnel is doubted; ``foreign``: an inner source that is none of the UE's and waits to be confirmed, the next one not
    before ``calm_until``; nothing casts doubt on what the core has confirmed before ``trusted_until``.
    Downlink: ``ended`` by an End Marker; ``doubted``: its core has to speak in it before anything is injected again.
    """

    key: TunnelKey
    pair: Pair
    index: int
    session: int
    direction: Direction
    form: Form
    exact: tuple[bytes, ...] = ()
    peer: int = 0
    exactly_paired: bool = False
    confirmed: bool = False
    ended: bool = False
    doubted: bool = False
    left: bool = False
    failed: bool = False
    trusted_until: float = 0.0
    calm_until: float = 0.0
    foreign: bytes | None = None

    @property
    def ues(self) -> tuple[bytes, ...]:
        """The UE behind the tunnel: ``exact`` with IPv6 as /64."""
        exact = self.exact
        if len(exact) == 1 and len(exact[0]) == 4:
            return exact
        return tuple([ue_of(address) for address in exact])

    @property
    def uplink(self) -> bool:
        """Whether it leads from the UE to the core."""
        return self.direction is Direction.UPLINK


@dataclass(slots=True, eq=False)
class Context:
    """The tunnels of one UE address behind one pair of nodes, in the order in which they appeared."""

    pair: Pair
    ups: tuple[Tunnel, ...] = ()
    downs: tuple[Tunnel, ...] = ()

    @property
    def tunnels(self) -> tuple[Tunnel, ...]:
        """All of them."""
        return self.ups + self.downs

    @property
    def live(self) -> tuple[Tunnel, ...]:
        """The downlink tunnels that may be injected into."""
        return tuple([down for down in self.downs if not down.ended])

    @property
    def first(self) -> Tunnel | None:
        """The uplink tunnel that stands for the default bearer: a UE's first packets have no other (TS 23.401 4.7.2).

        That of the oldest session: after a handover another bearer may speak first.
        """
        ups = self.ups
        return min(ups, key=_age) if len(ups) > 1 else ups[0] if ups else None

    def spare(self, direction: Direction, most: int) -> tuple[Tunnel, ...] | None:
        """None while there is room for one more; else the tunnel to give up, if there is one.

        That is the oldest but the first, which is the default bearer's, and but what the core has confirmed.
        """
        beside = self.ups if direction is Direction.UPLINK else self.downs
        if len(beside) < most:
            return None
        kept = {up.peer for up in self.ups if up.confirmed}
        first = self.first if direction is Direction.UPLINK else beside[0]
        return tuple([t for t in beside if t is not first and not t.confirmed and t.index not in kept][:1])

    def add(self, tunnel: Tunnel) -> None:
        """``tunnel`` belongs to it from now on."""
        if tunnel.uplink:
            self.ups += (tunnel,)
        else:
            self.downs += (tunnel,)

    def remove(self, tunnel: Tunnel) -> None:
        """``tunnel`` does not belong to it any more."""
        self.ups = tuple([up for up in self.ups if up is not tunnel])
        self.downs = tuple([down for down in self.downs if down is not tunnel])


def _age(up: Tunnel) -> tuple[int, int]:
    return up.session, up.index
