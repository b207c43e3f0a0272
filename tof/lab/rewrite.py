"""The replayer's frames: sorted by side, and with addresses, TEIDs and UEs replaced on request."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from struct import Struct
from typing import NamedTuple

from tof.errors import DecodeError, SetupError
from tof.lab.capture import Frame
from tof.model import Side
from tof.wire import gtpu, inet

_U16 = Struct("!H")
_ARP_ADDRESSES = (14, 24)


@dataclass(frozen=True, slots=True)
class Rewriting:
    """What to replace; addresses are packed, an eight-byte UE is an IPv6 /64; ``fix`` repairs outer IPv4."""

    addresses: Mapping[bytes, bytes] = field(default_factory=dict)
    teids: Mapping[int, int] = field(default_factory=dict)
    ues: Mapping[bytes, bytes] = field(default_factory=dict)
    fix: bool = False


def address_pairs(texts: Iterable[str]) -> dict[bytes, bytes]:
    """``OLD=NEW`` texts of addresses or IPv6 /64 prefixes as packed pairs; SetupError for any other text."""
    pairs = {}
    for text in texts:
        try:
            old, new = (_packed(part) for part in text.split("="))
        except ValueError:
            raise SetupError(f"{text!r} is not OLD=NEW with two addresses or IPv6 /64 prefixes") from None
        if len(old) != len(new):
            raise SetupError(f"{text!r} mixes address families, or an address with a prefix")
        pairs[old] = new
    return pairs


def teid_pairs(texts: Iterable[str]) -> dict[int, int]:
    """``OLD=NEW`` texts of TEIDs (decimal or 0x…) as pairs; SetupError for any other text."""
    pairs = {}
    for text in texts:
        try:
            old, new = (int(part, 0) for part in text.split("="))
        except ValueError:
            raise SetupError(f"{text!r} is not OLD=NEW with two TEIDs") from None
        if not (0 <= old < 2**32 and 0 <= new < 2**32):
            raise SetupError(f"{text!r} holds a TEID beyond 32 bits")
        pairs[old] = new
    return pairs


def _packed(text: str) -> bytes:
    if "/" not in text:
        return ip_address(text).packed
    network = ip_network(text)
    if network.version != 6 or network.prefixlen != 64:
        raise ValueError(text)
    return network.network_address.packed[:8]


def rewrite(data: bytes, rules: Rewriting) -> bytes:
    """The frame with everything replaced; what does not parse (a bad G-PDU, say) stays as it is.

    TCP and UDP checksums move by the difference: a wrong one stays wrong, a partial one partial.
    """
    try:
        frame = inet.decode_ethernet(data)
    except DecodeError:
        return data
    packet = bytearray(frame.payload)
    if frame.ethertype == inet.ETHERTYPE_ARP and len(packet) >= 28:
        for offset in _ARP_ADDRESSES:
            _replace(packet, offset, 4, rules.addresses)
    elif frame.ethertype in (inet.ETHERTYPE_IPV4, inet.ETHERTYPE_IPV6):
        _rewrite_ip(packet, rules)
    return data[: len(data) - len(packet)] + packet


def _replace(packet: bytearray, offset: int, size: int, mapping: Mapping[bytes, bytes]) -> None:
    old = bytes(packet[offset : offset + size])
    new = mapping.get(old)
    if new is None and old[:8] in mapping:
        new = mapping[old[:8]] + old[8:]
    if new is not None and len(new) == size:
        packet[offset : offset + size] = new


def _rewrite_ip(packet: bytearray, rules: Rewriting) -> None:
    original = bytes(packet)
    version_4 = original[:1] < b"\x60"
    try:
        whole = inet.decode_ipv4(original) if version_4 else inet.decode_ipv6(original)
    except DecodeError:
        return
    l4 = 20 + len(whole.options) if isinstance(whole, inet.IPv4) else 40 + len(whole.headers)
    end = l4 + len(whole.payload)
    _rewrite_gpdu(packet, end, rules)
    before, after = _rewrite_addresses(packet, 0, rules.addresses)
    if whole.protocol == inet.UDP_PROTOCOL and not whole.offset and end - l4 >= 8:
        length = int.from_bytes(original[l4 + 4 : l4 + 6], "big")
        sums = [
            inet.ones_sum(inet.pseudo_header(ends, b"", whole.protocol, length)) for ends in (before, after)
        ]
        if _U16.unpack_from(original, l4 + 6)[0] == sums[0]:
            _U16.pack_into(packet, l4 + 6, sums[1])
        else:
            _move_checksum(
                packet, l4 + 6, before + original[l4 + 8 : end], after + packet[l4 + 8 : end], udp=True
            )
    if version_4 and (before != after or rules.fix):
        packet[:] = inet.fix_ipv4_header(bytes(packet))


def _rewrite_gpdu(packet: bytearray, end: int, rules: Rewriting) -> None:
    try:
        message = gtpu.decode_gpdu(bytes(packet), partial_ok=True).message
    except DecodeError:
        return
    start = end - len(message.payload)
    header = start - len(gtpu.encode(message._replace(payload=b"")))
    packet[header + 4 : header + 8] = rules.teids.get(message.teid, message.teid).to_bytes(4, "big")
    if message.type == gtpu.G_PDU:
        _rewrite_user_packet(packet, start, rules)


def _rewrite_user_packet(packet: bytearray, start: int, rules: Rewriting) -> None:
    try:
        _, _, protocol, offset = gtpu.inner(bytes(packet[start:]), cut=True)
    except DecodeError:
        return
    before, after = _rewrite_addresses(packet, start, rules.ues)
    if len(before) == 8:
        _move_checksum(packet, start + 10, before, after)
    covered = inet.checksum_offset(protocol)
    if covered is not None and start + offset + covered + 2 <= len(packet):
        udp = protocol == inet.UDP_PROTOCOL
        _move_checksum(packet, start + offset + covered, before, after, udp=udp)


def _rewrite_addresses(packet: bytearray, start: int, mapping: Mapping[bytes, bytes]) -> tuple[bytes, bytes]:
    """Replace source and destination of the IP header at ``start``; both, joined, before and after."""
    first, size = (12, 4) if packet[start] < 0x60 else (8, 16)
    first += start
    before = bytes(packet[first : first + 2 * size])
    for offset in (first, first + size):
        _replace(packet, offset, size, mapping)
    return before, bytes(packet[first : first + 2 * size])


def _move_checksum(packet: bytearray, offset: int, before: bytes, after: bytes, *, udp: bool = False) -> None:
    """Change the checksum at ``offset`` by what changed under it; in UDP zero is none, and stays."""
    value = _U16.unpack_from(packet, offset)[0]
    if before != after and (value or not udp):
        _U16.pack_into(packet, offset, inet.update_checksum(value, before, after) or (0xFFFF if udp else 0))


def find_enbs(frames: Iterable[Frame]) -> frozenset[bytes]:
    """The eNB addresses, packed: the source of the first G-PDU, and who else must then be one.

    Every GTP-U packet joins an eNB and an SGW, so one end tells the other; among nodes joined to none of
    those seen before, the first sender is an eNB. X2 forwarding breaks this: name the eNBs there.
    """
    pairs = dict.fromkeys(sorted(filter(None, map(_gtpu_ends, frames)), key=lambda ends: not ends.is_gpdu))
    found: dict[bytes, Side] = {}
    for seed in pairs:
        if not found.keys() & {seed.source, seed.destination}:
            found[seed.source] = Side.ENB
        while _spread(found, pairs):
            pass
    return frozenset(address for address, side in found.items() if side is Side.ENB)


def sides(frames: Sequence[Frame], enbs: Collection[bytes]) -> list[Side]:
    """The side each frame came from: by outer (or ARP sender) address, else by MAC address.

    eNB: an address in ``enbs``; SGW: any other end of GTP-U. Other senders stand where their MAC address was
    seen, else across from the node they talk to, else, strangers both, on the eNB's side.
    """
    known = dict.fromkeys(enbs, Side.ENB)
    for ends in filter(None, map(_gtpu_ends, frames)):
        known.setdefault(ends.source, Side.SGW)
        known.setdefault(ends.destination, Side.SGW)
    outers = [_outer(frame) for frame in frames]
    macs: dict[bytes, Side] = {}
    for outer in outers:
        if outer.source in known:
            macs.setdefault(outer.source_mac, known[outer.source])
    found = []
    for outer in outers:
        side = known.get(outer.source) or macs.get(outer.source_mac) or _across(outer, known, macs)
        _place(macs, outer, side)
        found.append(side)
    return found


class _Ends(NamedTuple):
    source: bytes
    destination: bytes
    is_gpdu: bool


class _Outer(NamedTuple):
    source_mac: bytes
    destination_mac: bytes
    source: bytes
    destination: bytes


def _spread(found: dict[bytes, Side], pairs: Iterable[_Ends]) -> bool:
    """Give the unknown end of each pair the other side; whether any was left to give."""
    before = len(found)
    for source, destination, _ in pairs:
        for one, other in ((source, destination), (destination, source)):
            if one in found:
                found.setdefault(other, found[one].other)
    return len(found) > before


def _place(macs: dict[bytes, Side], outer: _Outer, side: Side) -> None:
    macs.setdefault(outer.source_mac, side)
    if outer.destination_mac[:1] and not outer.destination_mac[0] & 1:
        macs.setdefault(outer.destination_mac, side.other)


def _across(outer: _Outer, known: Mapping[bytes, Side], macs: Mapping[bytes, Side]) -> Side:
    facing = known.get(outer.destination) or macs.get(outer.destination_mac)
    return facing.other if facing else Side.ENB


def _gtpu_ends(frame: Frame) -> _Ends | None:
    outer = _outer(frame)
    if not outer.source:
        return None
    try:
        packet = inet.decode_ethernet(frame.data).payload
        message = gtpu.decode_gpdu(packet, partial_ok=True).message
    except DecodeError as error:
        return _Ends(*outer[2:], False) if error.reason.startswith("gtpu_") else None
    return _Ends(*outer[2:], message.type == gtpu.G_PDU)


def _outer(frame: Frame) -> _Outer:
    """MAC addresses, and IP addresses or an ARP's sender and target, each empty when there is none."""
    source, destination = b"", b""
    try:
        ethernet = inet.decode_ethernet(frame.data)
    except DecodeError:
        return _Outer(frame.data[6:12], frame.data[:6], source, destination)
    payload = ethernet.payload
    if ethernet.ethertype == inet.ETHERTYPE_IPV4 and len(payload) >= 20:
        source, destination = payload[12:16], payload[16:20]
    elif ethernet.ethertype == inet.ETHERTYPE_IPV6 and len(payload) >= 40:
        source, destination = payload[8:24], payload[24:40]
    elif ethernet.ethertype == inet.ETHERTYPE_ARP and len(payload) >= 28:
        source, destination = payload[14:18], payload[24:28]
    return _Outer(ethernet.source, ethernet.destination, source, destination)
