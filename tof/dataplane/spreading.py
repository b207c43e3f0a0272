"""Which of a service's applications a new flow goes to; `application_of` in tof/drivers/bpf/tof.bpf.c decides alike.

Flows are hashed into slots, and each slot ranks the applications in an order of its own (rendezvous hashing): when one dies
its slots alone move, each to the next in its order, and when it is back they return. A flow that has begun stays with its
application while that lives, whatever its slot says by then.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Final, NamedTuple

from tof.dataplane.desired import ServedApplication
from tof.model import IpAddress, OnDeath, Spread, SpreadBy
from tof.wire.inet import ICMP, ICMPV6, TCP, UDP_PROTOCOL

SLOTS: Final = 256
_WORD: Final = 0xFFFFFFFF
_FRAGMENT: Final = 44
_FLAGS_AND_OFFSET: Final = 0x3FFF
_LEAST_L4: Final = 8


class FlowEnds(NamedTuple):
    """What a flow is spread by: the UE (IPv4 address, or the first half of an IPv6 one), protocol and ports.

    ``ports``: the UE's and the service's, of an echo its identifier twice, else 0; None: a fragment, by its UE alone.
    """

    ue: bytes
    protocol: int
    ports: tuple[int, int] | None


def ends_of(packet: bytes) -> FlowEnds:
    """Of a UE's packet, well-formed."""
    if packet[0] >> 4 == 4:
        ue, protocol, l4 = packet[12:16], packet[9], (packet[0] & 15) * 4
        piece = int.from_bytes(packet[6:8], "big") & _FLAGS_AND_OFFSET != 0
    else:
        ue, protocol, l4 = packet[8:16], packet[6], 40
        piece = protocol == _FRAGMENT
    return FlowEnds(ue, protocol, None if piece else _ports(packet[l4:], protocol))


def slot_of(ends: FlowEnds, by: SpreadBy) -> int:
    """The slot that a flow falls into."""
    words = [int.from_bytes(ends.ue[at : at + 4], "big") for at in range(0, len(ends.ue), 4)]
    mixed = words[0] * 0x9E3779B1
    if len(words) > 1:
        mixed ^= words[1] * 0x85EBCA6B
    if by is SpreadBy.FLOW and ends.ports is not None:
        mixed ^= (ends.ports[0] << 16 | ends.ports[1]) * 0xC2B2AE35 ^ ends.protocol * 0x27D4EB2F
    mixed &= _WORD
    mixed = (mixed ^ mixed >> 15) * 0x2C1B3C6D & _WORD
    return (mixed ^ mixed >> 12) % SLOTS


def slots(applications: Sequence[ServedApplication], spread: Spread) -> tuple[int, ...]:
    """The number of each slot's application; 0: its flows go to the core."""
    if spread.by is SpreadBy.ORDER:
        return (next((one.number for one in applications if one.lives), 0),) * SLOTS
    return tuple(_first_living(slot, applications, spread.on_death) for slot in range(SLOTS))


def _first_living(slot: int, applications: Sequence[ServedApplication], on_death: OnDeath) -> int:
    ranked = sorted(applications, key=lambda one: _rank(slot, one.address))
    for one in ranked if on_death is OnDeath.NEXT else ranked[:1]:
        if one.lives:
            return one.number
    return 0


def _rank(slot: int, address: IpAddress) -> bytes:
    return blake2b(slot.to_bytes(2, "big") + address.packed, digest_size=8).digest()


def _ports(l4: bytes, protocol: int) -> tuple[int, int]:
    if len(l4) < _LEAST_L4:
        return 0, 0
    if protocol in (TCP, UDP_PROTOCOL):
        return int.from_bytes(l4[:2], "big"), int.from_bytes(l4[2:4], "big")
    identifier = int.from_bytes(l4[4:6], "big") if protocol in (ICMP, ICMPV6) else 0
    return identifier, identifier
