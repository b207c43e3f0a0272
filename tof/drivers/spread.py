"""Over how many receive queues, and so CPUs, an adapter spreads the packets of S1, and by what (receive side scaling).

All user packets between an eNB and an SGW carry the same addresses, and mostly the same ports: an adapter that looks no
further brings them to one queue, and the fast lane runs on one CPU.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

from tof.drivers import ethtool
from tof.errors import BackendError

# Linux UAPI ethtool.h; the kinds of GTP-U and the TEID are there since Linux 6.9.
GTPU = {"gtpu4": 0x13, "gtpu6": 0x14, "gtpu4e": 0x19, "gtpu6e": 0x1A}
"""G-PDUs without and with a PDU Session Container, by ethtool's names."""
UDP = {"udp4": 0x02, "udp6": 0x06}
BY_SOURCE_PORT, BY_TEID = 1 << 6, 1 << 8
_GCHANNELS, _GRXFH = 0x3C, 0x29
_RXNFC_BYTES = 192


@dataclass(frozen=True, slots=True)
class Spread:
    """Receive queues in use, the most there can be, and the fields of a packet hashed for each kind that can be asked."""

    queues: int
    most: int
    fields: Mapping[str, int] = field(default_factory=dict)

    def by(self, bit: int, kinds: Mapping[str, int]) -> list[str]:
        """The kinds of packets whose hash takes in this field."""
        return [kind for kind in kinds if self.fields.get(kind, 0) & bit]


def read(interface: str) -> Spread | None:
    """How this adapter spreads packets; None if it cannot be asked."""
    try:
        raw = ethtool.ask(interface, struct.pack("=9I", _GCHANNELS, *bytes(8)))
    except BackendError:
        return None
    _, most, _, _, most_combined, receiving, _, _, combined = struct.unpack("=9I", raw)
    found = {kind: _fields(interface, number) for kind, number in (UDP | GTPU).items()}
    known = {kind: fields for kind, fields in found.items() if fields is not None}
    return Spread(receiving + combined, max(most + most_combined, 1), known)


def _fields(interface: str, flow: int) -> int | None:
    request = struct.pack("=IIQ", _GRXFH, flow, 0) + bytes(_RXNFC_BYTES - 16)
    try:
        return int(struct.unpack_from("=Q", ethtool.ask(interface, request), 8)[0])
    except BackendError:
        return None


def advice(interface: str, spread: Spread, cpus: int) -> tuple[str, str]:
    """How it stands, and what would spread the packets of a tunnel's nodes over more CPUs, if anything is known to."""
    if spread.queues <= 1:
        more = min(spread.most, cpus)
        remedy = f"ethtool -L {interface} combined {more} (or rx {more})" if more > 1 else ""
        return "one: one CPU has all packets that arrive here", remedy
    teid, ports = spread.by(BY_TEID, GTPU), spread.by(BY_SOURCE_PORT, UDP)
    remedies = [f"ethtool -N {interface} rx-flow-hash {kind} sde" for kind in GTPU if kind not in teid]
    if teid:
        return f"{spread.queues}, {', '.join(teid)} spread by TEID", "; ".join(remedies)
    wish = f"if the adapter can (Linux 6.9): {'; '.join(remedies)}"
    if ports:
        return (
            f"{spread.queues}, {', '.join(ports)} spread by port: as evenly as nodes vary their source ports",
            wish,
        )
    without = f"if nodes vary their source ports: ethtool -N {interface} rx-flow-hash udp4 sdfn, and udp6"
    return (
        f"{spread.queues}, but all packets between an eNB and an SGW may arrive on one",
        f"{wish}; {without}",
    )
