"""The replayer's judgement: what was sent against what came out, packet by packet; pure."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import islice
from typing import NamedTuple

from tof.errors import DecodeError
from tof.lab.capture import Frame
from tof.model import Side, TunnelKey
from tof.wire import gtpu, inet

_MINIMUM_FRAME = 60
_MINIMUM_DIFFERENCE = 16
_CANDIDATES = 64
_FIRST_ETHERTYPE = 0x600

Ranges = tuple[tuple[int, int], ...]


class Outcome(StrEnum):
    """What became of a frame; ``skipped``: its capture cut it, so it was not sent."""

    IDENTICAL = "identical"
    CHANGED = "changed"
    DIVERTED = "diverted"
    LOST = "lost"
    REORDERED = "reordered"
    SKIPPED = "skipped"


class Sent(NamedTuple):
    """A frame of the capture and the side it was sent from."""

    frame: Frame
    side: Side


class Received(NamedTuple):
    """What came out: at the eNB's end, at the SGW's, and at the apps' end (None: not watched).

    With the apps' end unwatched, a missing packet to one of ``services`` (packed) counts as diverted.
    """

    enb: Sequence[bytes]
    sgw: Sequence[bytes]
    apps: Sequence[bytes] | None = None
    services: frozenset[bytes] = frozenset()


class Verdict(NamedTuple):
    """The outcome for one frame; ``changed`` holds half-open ranges of byte offsets in the sent frame."""

    number: int
    side: Side
    outcome: Outcome
    changed: Ranges = ()


class Injected(NamedTuple):
    """A frame nobody sent that came out at ``side``'s end: the TOF made it."""

    side: Side
    data: bytes


@dataclass(frozen=True, slots=True)
class Report:
    """The verdict on every frame, in the order sent, and the frames the TOF made."""

    verdicts: tuple[Verdict, ...]
    injected: tuple[Injected, ...]

    @property
    def counts(self) -> dict[str, int]:
        """``sent``, every outcome and ``injected``; skipped frames were not sent."""
        seen = Counter(verdict.outcome for verdict in self.verdicts)
        found = {outcome.value: seen[outcome] for outcome in Outcome}
        sent = len(self.verdicts) - seen[Outcome.SKIPPED]
        return {"sent": sent, **found, "injected": len(self.injected)}

    @property
    def ok(self) -> bool:
        """Whether nothing was lost, changed or reordered within a tunnel."""
        bad = {Outcome.LOST, Outcome.CHANGED, Outcome.REORDERED}
        return all(verdict.outcome not in bad for verdict in self.verdicts)


@dataclass(slots=True)
class _End:
    """One end's frames without padding; ``free``: those that no sent frame has claimed, in order."""

    frames: list[bytes]
    by_content: dict[bytes, deque[int]] = field(default_factory=lambda: defaultdict(deque))
    free: dict[int, None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for position, data in enumerate(self.frames):
            self.by_content[data].append(position)
            self.free[position] = None

    def claim(self, data: bytes) -> int | None:
        """Take the first frame with this content, if there is one left."""
        positions = self.by_content.get(data)
        if not positions:
            return None
        position = positions.popleft()
        del self.free[position]
        return position

    def claim_similar(self, data: bytes) -> bytes | None:
        """Take the frame most like this one among the next few unclaimed, if one is like it at all."""
        candidates = list(islice(self.free, _CANDIDATES))
        limit = max(_MINIMUM_DIFFERENCE, len(data) // 4)
        best = min(candidates, key=lambda position: _distance(data, self.frames[position]), default=None)
        if best is None or _distance(data, self.frames[best]) > limit:
            return None
        del self.free[best]
        return self.frames[best]


def compare(sent: Sequence[Sent], received: Received) -> Report:
    """Judge every sent frame: it should come out at the other side's end, whole and in its tunnel's order.

    Reordered is what arrives after a later frame of its tunnel (RFC 4737); Ethernet padding does not count.
    """
    ends = {Side.ENB: _End(_stripped(received.enb)), Side.SGW: _End(_stripped(received.sgw))}
    whole = {index: without_padding(item.frame.data) for index, item in enumerate(sent) if not item.frame.cut}
    positions = {index: ends[sent[index].side.other].claim(data) for index, data in whole.items()}
    arrived = {index: position for index, position in positions.items() if position is not None}
    outcomes = dict.fromkeys(range(len(sent)), Outcome.SKIPPED) | dict.fromkeys(whole, Outcome.LOST)
    outcomes |= dict.fromkeys(arrived, Outcome.IDENTICAL) | dict.fromkeys(
        _late(sent, whole, arrived), Outcome.REORDERED
    )
    missing = {index: data for index, data in whole.items() if index not in arrived}
    outcomes |= dict.fromkeys(_diverted(missing, whole, received), Outcome.DIVERTED)
    changes: dict[int, Ranges] = {}
    for index in (index for index in missing if outcomes[index] is Outcome.LOST):
        similar = ends[sent[index].side.other].claim_similar(whole[index])
        if similar is not None:
            outcomes[index] = Outcome.CHANGED
            changes[index] = differences(whole[index], similar)
    verdicts = tuple(
        Verdict(item.frame.number, item.side, outcomes[index], changes.get(index, ()))
        for index, item in enumerate(sent)
    )
    injected = (Injected(side, end.frames[position]) for side, end in ends.items() for position in end.free)
    return Report(verdicts, tuple(injected))


def expected_tunnels(sent: Iterable[Sent]) -> dict[TunnelKey, frozenset[bytes]]:
    """The tunnels a learner must hold after these frames, each with its UEs (IPv6: as a /64, eight bytes).

    A tunnel is learnt from a G-PDU, or its first outer fragment, whose UE (inner source from the eNB's side,
    inner destination from the SGW's) is a global unicast address; TEID 0 is never learnt.
    """
    found: dict[TunnelKey, set[bytes]] = defaultdict(set)
    for frame, side in sent:
        seen = None if frame.cut else _gtpu(frame.data)
        if seen is None or seen.inner is None or seen.key.teid == 0:
            continue
        ue = seen.inner.source if side is Side.ENB else seen.inner.destination
        if inet.is_global_unicast(ue):
            found[seen.key].add(ue[:8] if len(ue) == 16 else ue)
    return {key: frozenset(ues) for key, ues in found.items()}


def without_padding(data: bytes) -> bytes:
    """The frame without what follows the packet in it, as far as the packet tells its length."""
    try:
        frame = inet.decode_ethernet(data)
    except DecodeError:
        return data
    size = _packet_size(frame)
    if size is None:
        return data.rstrip(b"\0") if len(data) <= _MINIMUM_FRAME else data
    return data[: len(data) - len(frame.payload) + size]


def differences(sent: bytes, received: bytes) -> Ranges:
    """Half-open ranges of the offsets at which two frames differ, a missing or added end included."""
    length = max(len(sent), len(received))
    changed = [at for at in range(length) if sent[at : at + 1] != received[at : at + 1]]
    starts = [at for i, at in enumerate(changed) if i == 0 or changed[i - 1] != at - 1]
    stops = [at + 1 for i, at in enumerate(changed) if i == len(changed) - 1 or changed[i + 1] != at + 1]
    return tuple(zip(starts, stops, strict=True))


class _Gtpu(NamedTuple):
    key: TunnelKey
    inner: gtpu.Inner | None
    user_packet: bytes


_FragmentKey = tuple[int | None, bytes, bytes, bytes]


def _stripped(frames: Iterable[bytes]) -> list[bytes]:
    return [without_padding(data) for data in frames]


def _packet_size(frame: inet.Ethernet) -> int | None:
    if frame.ethertype < _FIRST_ETHERTYPE:
        return frame.ethertype
    if frame.ethertype == inet.ETHERTYPE_ARP:
        return 28
    if frame.ethertype == inet.ETHERTYPE_IPV4:
        # Segmentation offload leaves a total length of zero in captures of local senders.
        return int.from_bytes(frame.payload[2:4], "big") or None
    if frame.ethertype == inet.ETHERTYPE_IPV6:
        length = int.from_bytes(frame.payload[4:6], "big")
        return 40 + length if length else None
    return None


def _distance(one: bytes, other: bytes) -> int:
    size = min(len(one), len(other))
    mixed = int.from_bytes(one[:size], "big") ^ int.from_bytes(other[:size], "big")
    return size - mixed.to_bytes(size, "big").count(0) + abs(len(one) - len(other))


def _gtpu(data: bytes) -> _Gtpu | None:
    """The GTP-U message in a frame or in a first fragment; ``inner`` only for G-PDUs that carry IP."""
    try:
        frame = inet.decode_ethernet(data)
        carried = gtpu.decode_gpdu(frame.payload, partial_ok=True)
    except DecodeError:
        return None
    key = TunnelKey(carried.source, carried.destination, carried.message.teid, frame.vlan)
    payload = carried.message.payload
    inner = None
    if carried.message.type == gtpu.G_PDU:
        with suppress(DecodeError):
            inner = gtpu.inner(payload, cut=_fragment_key(data) is not None)
    return _Gtpu(key, inner, payload)


def _fragment_key(data: bytes) -> _FragmentKey | None:
    """What the fragments of one packet have in common; None for a whole packet."""
    try:
        frame = inet.decode_ethernet(data)
        if frame.ethertype == inet.ETHERTYPE_IPV6:
            six = inet.decode_ipv6(frame.payload)
            fragment = six.offset or six.more_fragments
            return (frame.vlan, six.source, six.destination, six.headers[-4:]) if fragment else None
        four = inet.decode_ipv4(frame.payload)
    except DecodeError:
        return None
    fragment = four.offset or four.flags & inet.MORE_FRAGMENTS
    return (frame.vlan, four.source, four.destination, frame.payload[4:6]) if fragment else None


def _leaders(whole: Mapping[int, bytes]) -> dict[int, int]:
    """Each frame's index to that of the frame with its GTP header: itself, or its first fragment."""
    firsts: dict[_FragmentKey, int] = {}
    leaders = {}
    for index, data in whole.items():
        fragment = _fragment_key(data)
        if _gtpu(data) is not None:
            leaders[index] = index
            if fragment is not None:
                firsts[fragment] = index
        elif fragment in firsts:
            leaders[index] = firsts[fragment]
    return leaders


def _late(sent: Sequence[Sent], whole: Mapping[int, bytes], arrived: Mapping[int, int]) -> set[int]:
    # Packets forwarded between eNBs cross twice under one key, from either side.
    tunnels: dict[tuple[Side, TunnelKey], list[tuple[int, int]]] = defaultdict(list)
    for index, leader in _leaders(whole).items():
        seen = _gtpu(whole[leader])
        if index in arrived and seen is not None:
            tunnels[sent[index].side, seen.key].append((arrived[index], index))
    late = set()
    for members in tunnels.values():
        latest = -1
        for _, index in sorted(members):
            if index < latest:
                late.add(index)
            latest = max(latest, index)
    return late


def _diverted(missing: Mapping[int, bytes], whole: Mapping[int, bytes], received: Received) -> set[int]:
    if received.apps is None:
        to_service = {index for index, data in whole.items() if _inner_destination(data) in received.services}
        leaders = _leaders(whole)
        return {index for index in missing if leaders.get(index) in to_service}
    delivered = Counter(_identity(_payload(data)) for data in received.apps)
    found = set()
    for index, data in missing.items():
        seen = _gtpu(data)
        identity = _identity(seen.user_packet) if seen else None
        if identity is not None and delivered[identity]:
            delivered[identity] -= 1
            found.add(index)
    return found


def _payload(data: bytes) -> bytes:
    try:
        return inet.decode_ethernet(data).payload
    except DecodeError:
        return b""


def _inner_destination(data: bytes) -> bytes | None:
    seen = _gtpu(data)
    return seen.inner.destination if seen and seen.inner else None


def _identity(packet: bytes) -> tuple[bytes, int, bytes] | None:
    """What diversion leaves of a user's packet: not destination, TTL, checksums and TCP options."""
    try:
        whole = inet.decode_ipv6(packet) if packet[:1] >= b"\x60" else inet.decode_ipv4(packet)
    except DecodeError:
        return None
    segment = whole.payload
    if whole.protocol == inet.TCP and len(segment) >= 20:
        segment = segment[:12] + segment[13:16] + segment[(segment[12] >> 4) * 4 :]
    elif whole.protocol == inet.UDP_PROTOCOL:
        segment = segment[:6] + segment[8:]
    elif whole.protocol in (inet.ICMP, inet.ICMPV6):
        segment = segment[:2] + segment[4:]
    return whole.source, whole.protocol, segment
