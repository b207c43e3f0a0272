"""What the TOF's learner holds after a replay, against what the capture shows; pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass
from ipaddress import ip_address, ip_network
from typing import Any

from tof.model import TunnelKey, address_text

Tunnel = Mapping[str, Any]
Expected = Mapping[TunnelKey, frozenset[bytes]]

SEVERAL_UES = "several_ues"
MISSING_TUNNEL = "missing_tunnel"
UNEXPECTED_TUNNEL = "unexpected_tunnel"
WRONG_UE = "wrong_ue"


@dataclass(frozen=True, slots=True)
class Conflict:
    """A tunnel about which capture and learner do not agree, or (several UEs) cannot; addresses as text.

    ``several_ues`` says that the capture shows more UE addresses of one family than a tunnel can own.
    """

    kind: str
    vlan: int | None
    source: str
    destination: str
    teid: int
    expected: tuple[str, ...]
    seen: tuple[str, ...]

    def document(self) -> dict[str, Any]:
        """As one element of ``conflicts``."""
        return asdict(self)


def tunnel_key(tunnel: Tunnel) -> TunnelKey:
    """The key of an element of ``GET /tunnels``."""
    source, destination = (ip_address(tunnel[end]).packed for end in ("source", "destination"))
    return TunnelKey(source, destination, tunnel["teid"], tunnel["vlan"])


def owners(tunnel: Tunnel) -> frozenset[bytes]:
    """The UEs of an element of ``GET /tunnels``, packed; an IPv6 UE is its /64, eight bytes."""
    return frozenset(_packed(text) for text in tunnel["ues"])


def several_ues(expected: Expected, tunnels: Iterable[Tunnel] = ()) -> list[Conflict]:
    """Tunnels behind which the capture shows more than one UE address of one family, and who got them."""
    held = {tunnel_key(tunnel): owners(tunnel) for tunnel in tunnels}
    crowded = {key: ues for key, ues in expected.items() if len({len(ue) for ue in ues}) < len(ues)}
    return [_conflict(SEVERAL_UES, key, ues, held.get(key, ())) for key, ues in crowded.items()]


def disagreements(
    expected: Expected, tunnels: Iterable[Tunnel], before: AbstractSet[TunnelKey] = frozenset()
) -> list[Conflict]:
    """What the learner lacks, holds beyond the capture (and did not ``before`` it), or has for another UE."""
    held = {tunnel_key(tunnel): owners(tunnel) for tunnel in tunnels}
    found = [_conflict(MISSING_TUNNEL, key, ues) for key, ues in expected.items() if key not in held]
    for key, seen in held.items():
        ues = expected.get(key)
        if ues is None and key not in before:
            found.append(_conflict(UNEXPECTED_TUNNEL, key, (), seen))
        if ues is not None and not _agrees(ues, seen):
            found.append(_conflict(WRONG_UE, key, ues, seen))
    return found


def _agrees(expected: frozenset[bytes], seen: frozenset[bytes]) -> bool:
    """Whether one address of each family that was shown is held, and no other."""
    families = sorted({len(ue) for ue in expected})
    return seen <= expected and sorted(len(ue) for ue in seen) == families


def _conflict(kind: str, key: TunnelKey, expected: Iterable[bytes], seen: Iterable[bytes] = ()) -> Conflict:
    ends = address_text(key.source), address_text(key.destination)
    return Conflict(kind, key.vlan, *ends, key.teid, _texts(expected), _texts(seen))


def _texts(ues: Iterable[bytes]) -> tuple[str, ...]:
    return tuple(address_text(ue) for ue in sorted(ues))


def _packed(text: str) -> bytes:
    if "/" in text:
        return ip_network(text).network_address.packed[:8]
    packed = ip_address(text).packed
    return packed[:8] if len(packed) == 16 else packed


def describe(conflicts: Sequence[Conflict]) -> list[str]:
    """One line per conflict, for people."""
    return [
        f"{conflict.kind.replace('_', ' ')}: {conflict.source} > {conflict.destination} {conflict.teid:#010x}"
        + (f" vlan {conflict.vlan}" if conflict.vlan is not None else "")
        + f": capture {' '.join(conflict.expected) or '-'}"
        + f", learner {' '.join(conflict.seen) or '-'}"
        for conflict in conflicts
    ]
