"""Ethernet, IPv4, IPv6 and UDP as values: lengths are judged, checksums computed but never required."""

from __future__ import annotations

from struct import Struct
from typing import NamedTuple

from tof.errors import DecodeError

ETHERTYPE_IPV4 = 0x0800
ETHERTYPE_ARP = 0x0806
ETHERTYPE_IPV6 = 0x86DD
TAG_TYPES = frozenset({0x8100, 0x88A8, 0x9100})

ICMP = 1
TCP = 6
UDP_PROTOCOL = 17
IPV6_FRAGMENT = 44
ICMPV6 = 58

MORE_FRAGMENTS = 1
DONT_FRAGMENT = 2

_IPV4 = Struct("!BBHHHBBH4s4s")
_IPV6 = Struct("!IHBB16s16s")
_UDP = Struct("!HHHH")
_U16 = Struct("!H")
_IPV6_HEADERS = frozenset({0, 43, IPV6_FRAGMENT, 60})
_CHECKSUM_OFFSET = {ICMP: 2, TCP: 16, UDP_PROTOCOL: 6, ICMPV6: 2}


class Ethernet(NamedTuple):
    """A frame; ``tags`` are (TPID, TCI) pairs, outermost first; the payload keeps any padding."""

    destination: bytes
    source: bytes
    ethertype: int
    payload: bytes
    tags: tuple[tuple[int, int], ...] = ()

    @property
    def vlan(self) -> int | None:
        """VLAN of the outermost tag; None when untagged or only priority-tagged."""
        return (self.tags[0][1] & 0xFFF or None) if self.tags else None


class IPv4(NamedTuple):
    """An IPv4 packet; ``flags`` are the three bits (MF 1, DF 2), ``offset`` counts bytes."""

    source: bytes
    destination: bytes
    protocol: int
    payload: bytes
    ttl: int = 64
    tos: int = 0
    identification: int = 0
    flags: int = 0
    offset: int = 0
    options: bytes = b""


class IPv6(NamedTuple):
    """An IPv6 packet; ``headers`` is the raw chain before ``protocol``, which ``next_header`` starts."""

    source: bytes
    destination: bytes
    protocol: int
    payload: bytes
    hop_limit: int = 64
    tos: int = 0
    flow_label: int = 0
    next_header: int | None = None
    headers: bytes = b""
    offset: int = 0
    more_fragments: bool = False


class UDP(NamedTuple):
    """A UDP datagram; checksum zero means none."""

    source_port: int
    destination_port: int
    payload: bytes
    checksum: int = 0


def decode_ethernet(data: bytes) -> Ethernet:
    """Split a frame, or raise ``eth_truncated``."""
    tags: list[tuple[int, int]] = []
    offset = 12
    while True:
        if len(data) < offset + 2:
            raise DecodeError("eth_truncated")
        ethertype: int = _U16.unpack_from(data, offset)[0]
        if ethertype not in TAG_TYPES:
            return Ethernet(data[:6], data[6:12], ethertype, data[offset + 2 :], tuple(tags))
        if len(data) < offset + 4:
            raise DecodeError("eth_truncated")
        tags.append((ethertype, _U16.unpack_from(data, offset + 2)[0]))
        offset += 4


def encode_ethernet(frame: Ethernet) -> bytes:
    """The frame's bytes, neither padded nor with a check sequence."""
    tags = b"".join(_U16.pack(kind) + _U16.pack(tci) for kind, tci in frame.tags)
    return frame.destination + frame.source + tags + _U16.pack(frame.ethertype) + frame.payload


def decode_ipv4(data: bytes) -> IPv4:
    """Parse an IPv4 packet, dropping what follows its total length; fragments are not judged."""
    if len(data) < 20:
        raise DecodeError("ip_truncated")
    first, tos, total, ident, fragment, ttl, protocol, _, source, destination = _IPV4.unpack_from(data)
    if first >> 4 != 4:
        raise DecodeError("ip_version")
    start = (first & 15) * 4
    if not 20 <= start <= total <= len(data):
        raise DecodeError("ip_length")
    return IPv4(
        source,
        destination,
        protocol,
        data[start:total],
        ttl,
        tos,
        ident,
        fragment >> 13,
        (fragment & 0x1FFF) * 8,
        data[20:start],
    )


def encode_ipv4(packet: IPv4) -> bytes:
    """The packet's bytes with a right header checksum; options are padded to a multiple of four."""
    options = packet.options + bytes(-len(packet.options) % 4)
    start = 20 + len(options)
    header = _IPV4.pack(
        0x40 | start // 4,
        packet.tos,
        start + len(packet.payload),
        packet.identification,
        packet.flags << 13 | packet.offset // 8,
        packet.ttl,
        packet.protocol,
        0,
        packet.source,
        packet.destination,
    )
    return fix_ipv4_header(header + options + packet.payload)


def fix_ipv4_header(packet: bytes) -> bytes:
    """The same packet with a right header checksum; DecodeError when the header is not all there."""
    start = (packet[0] & 15) * 4 if packet else 0
    if not 20 <= start <= len(packet):
        raise DecodeError("ip_truncated")
    value = checksum(packet[:10] + packet[12:start])
    return packet[:10] + _U16.pack(value) + packet[12:]


def fragment_ipv4(packet: bytes, mtu: int) -> list[bytes]:
    """The packet in pieces of at most ``mtu`` bytes (RFC 791 section 2.3); ``ip_dont_fragment`` if DF forbids it."""
    whole = decode_ipv4(packet)
    room = (mtu - 20 - len(whole.options)) & ~7
    if len(packet) <= mtu:
        return [packet]
    if whole.flags & 2 or room < 8:
        raise DecodeError("ip_dont_fragment")
    if whole.offset + len(whole.payload) > 0xFFFF:
        raise DecodeError("ip_length")  # a fragment of no datagram: its pieces' offsets have no room
    pieces = []
    for at in range(0, len(whole.payload), room):
        part = whole.payload[at : at + room]
        more = whole.flags & 1 or at + len(part) < len(whole.payload)
        pieces.append(
            encode_ipv4(whole._replace(payload=part, offset=whole.offset + at, flags=1 if more else 0))
        )
    return pieces


def decode_ipv6(data: bytes) -> IPv6:
    """Parse an IPv6 packet up to its upper-layer protocol, dropping what follows its payload length."""
    if len(data) < 40:
        raise DecodeError("ip_truncated")
    first, length, next_header, hop_limit, source, destination = _IPV6.unpack_from(data)
    if first >> 28 != 6:
        raise DecodeError("ip_version")
    end = 40 + length
    if end > len(data):
        raise DecodeError("ip_length")
    protocol, start, fragment = walk_ipv6(data, next_header, 40, end)
    return IPv6(
        source,
        destination,
        protocol,
        data[start:end],
        hop_limit,
        first >> 20 & 0xFF,
        first & 0xFFFFF,
        next_header,
        data[40:start],
        fragment & 0xFFF8,
        bool(fragment & 1),
    )


def walk_ipv6(data: bytes, protocol: int, offset: int, end: int) -> tuple[int, int, int]:
    """Step over extension headers to (protocol, offset, fragment word: offset in bytes | M); word 0 is whole.

    Behind the header of a later fragment there is no further header, so the walk stops there.
    """
    fragment = 0
    while protocol in _IPV6_HEADERS and not fragment & 0xFFF8:
        if offset + 8 > end:
            raise DecodeError("ip_truncated")
        if protocol == IPV6_FRAGMENT:
            fragment |= _U16.unpack_from(data, offset + 2)[0] & 0xFFF9
            size = 8
        else:
            size = 8 + 8 * data[offset + 1]
        protocol = data[offset]
        offset += size
    if offset > end:
        raise DecodeError("ip_truncated")
    return protocol, offset, fragment


def encode_ipv6(packet: IPv6) -> bytes:
    """The packet's bytes; ``offset`` and ``more_fragments`` are in ``headers`` already."""
    next_header = packet.protocol if packet.next_header is None else packet.next_header
    first = 6 << 28 | packet.tos << 20 | packet.flow_label
    length = len(packet.headers) + len(packet.payload)
    header = _IPV6.pack(first, length, next_header, packet.hop_limit, packet.source, packet.destination)
    return header + packet.headers + packet.payload


def decode_udp(data: bytes) -> UDP:
    """Parse a UDP datagram, dropping what follows its length."""
    if len(data) < 8:
        raise DecodeError("udp_truncated")
    source_port, destination_port, length, value = _UDP.unpack_from(data)
    if not 8 <= length <= len(data):
        raise DecodeError("udp_length")
    return UDP(source_port, destination_port, data[8:length], value)


def encode_udp(datagram: UDP) -> bytes:
    """The datagram's bytes with the checksum as given; ``fill_checksum`` makes it right."""
    source_port, destination_port, payload, value = datagram
    return _UDP.pack(source_port, destination_port, 8 + len(payload), value) + payload


def ones_sum(data: bytes) -> int:
    """The 16-bit one's complement sum of ``data``, padded with a zero byte when odd."""
    number = int.from_bytes(data, "big") << (8 if len(data) & 1 else 0)
    # 2**16 is 1 modulo 0xFFFF, so the big number's remainder is the folded sum; zero stands for 0xFFFF.
    return number % 0xFFFF or (0xFFFF if number else 0)


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071) of ``data``."""
    return 0xFFFF - ones_sum(data)


def pseudo_header(source: bytes, destination: bytes, protocol: int, length: int) -> bytes:
    """The pseudo header that TCP, UDP and ICMPv6 checksums cover, of either family."""
    return source + destination + length.to_bytes(4, "big") + protocol.to_bytes(4, "big")


def fill_checksum(source: bytes, destination: bytes, protocol: int, segment: bytes) -> bytes:
    """The segment with a right TCP, UDP, ICMP or ICMPv6 checksum; other protocols stay as they are."""
    offset = _CHECKSUM_OFFSET.get(protocol)
    if offset is None:
        return segment
    if len(segment) < offset + 2:
        raise DecodeError("l4_truncated")
    pseudo = b"" if protocol == ICMP else pseudo_header(source, destination, protocol, len(segment))
    value = checksum(pseudo + segment[:offset] + b"\0\0" + segment[offset + 2 :])
    if protocol == UDP_PROTOCOL:
        value = value or 0xFFFF
    return segment[:offset] + _U16.pack(value) + segment[offset + 2 :]


def update_checksum(value: int, before: bytes, after: bytes) -> int:
    """The checksum after ``before``, at an even place under it, has become ``after`` (RFC 1624)."""
    return 0xFFFF - ones_sum(
        _U16.pack(0xFFFF - value) + _U16.pack(checksum(before)) + _U16.pack(ones_sum(after))
    )


def checksum_offset(protocol: int) -> int | None:
    """Where the checksum that covers the addresses lies in a segment of ``protocol``; None: nowhere."""
    return None if protocol == ICMP else _CHECKSUM_OFFSET.get(protocol)


def is_global_unicast(address: bytes) -> bool:
    """Whether a UE can own it: no loopback, link-local, multicast, reserved; private ones count."""
    if len(address) == 4:
        return address[0] not in (0, 127) and address[0] < 224 and address[:2] != b"\xa9\xfe"
    link_local = address[0] == 0xFE and address[1] & 0xC0 == 0x80
    return address[0] != 0xFF and not link_local and address[:8] != bytes(8)
