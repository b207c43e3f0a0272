"""Laboratory: where the emulated nodes are, and what the box between them is said to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from tof.lab.emulation.frames import Place

IPV4, IPV6 = 4, 16


def _places(side: int, addresses: Sequence[str]) -> tuple[Place, ...]:
    return tuple(
        Place(ip_address(text).packed, bytes((2, 0x1A, 0xB0, side, 0, number)))
        for number, text in enumerate(addresses, 1)
    )


ENBS = _places(1, ("10.1.0.11", "10.1.0.12", "10.1.0.13", "fd00:1::11", "fd00:1::12"))
SGWS = _places(2, ("10.1.0.1", "10.1.0.2", "fd00:1::1", "fd00:1::2"))
HUB_MAC = bytes.fromhex("021ab00200ff")
"""The router at the core's end, through which eNBs reach each other."""


@dataclass(frozen=True, slots=True)
class Edge:
    """A service that the box should divert, and the application that answers for it; one of each family at most.

    ``gateways`` are the application's next hops towards UEs; without one it answers where a packet came from.
    """

    services: tuple[bytes, ...] = ()
    applications: tuple[Place, ...] = ()
    gateways: tuple[bytes, ...] = ()

    def application(self, family: int) -> Place | None:
        """The application of this address family."""
        return next((place for place in self.applications if len(place.address) == family), None)


@dataclass(frozen=True, slots=True)
class Settings:
    """The scene of a play; a next hop's MAC on a side means that the box routes instead of bridging."""

    enbs: tuple[Place, ...] = ENBS
    sgws: tuple[Place, ...] = SGWS
    edge: Edge | None = None
    targets: tuple[bytes, ...] = tuple(
        ip_address(text).packed for text in ("8.8.8.8", "2001:4860:4860::8888")
    )
    """What the box may ping in a UE's name, to learn its downlink."""
    ues: int = 2
    ue_pool: bytes = bytes((10, 45, 0, 0))
    ue_pool6: bytes = bytes.fromhex("20010db80045") + bytes(10)
    vlan: int | None = None
    enb_next_hop: bytes | None = None
    sgw_next_hop: bytes | None = None

    @property
    def routed(self) -> bool:
        """Whether the box routes."""
        return self.enb_next_hop is not None or self.sgw_next_hop is not None

    def service(self, family: int) -> bytes:
        """What UEs take for the service's address: somebody answers there, with or without an edge."""
        offered = self.edge.services if self.edge else ()
        defaults = (bytes((203, 0, 113, 10)), ip_address("2001:db8:113::10").packed)
        return next(address for address in (*offered, *defaults) if len(address) == family)
