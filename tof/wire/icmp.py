"""ICMP and ICMPv6: the Pinger's echoes, and the errors for packets that do not fit their tunnel."""

from __future__ import annotations

from struct import Struct
from typing import NamedTuple

from tof.errors import DecodeError
from tof.wire.inet import (
    ICMP,
    ICMPV6,
    IPv4,
    IPv6,
    decode_ipv4,
    decode_ipv6,
    encode_ipv4,
    encode_ipv6,
    fill_checksum,
)

_HEADER = Struct("!BBHHH")
_ECHO_TYPES = {ICMP: (8, 0), ICMPV6: (128, 129)}
_QUERY_TYPES = frozenset({0, 8, 9, 10, 13, 14, 15, 16, 17, 18})
_QUOTE_LIMIT_V4 = 576
_QUOTE_LIMIT_V6 = 1280


class Echo(NamedTuple):
    """An echo request or reply of either family."""

    identifier: int
    sequence: int
    payload: bytes = b""
    reply: bool = False


def decode_echo(protocol: int, segment: bytes) -> Echo:
    """Parse an ICMP (1) or ICMPv6 (58) echo; the checksum is not judged."""
    if protocol not in _ECHO_TYPES:
        raise DecodeError("icmp_protocol")
    if len(segment) < 8:
        raise DecodeError("icmp_truncated")
    kind, code, _, identifier, sequence = _HEADER.unpack_from(segment)
    if kind not in _ECHO_TYPES[protocol] or code != 0:
        raise DecodeError("icmp_type")
    return Echo(identifier, sequence, segment[8:], kind == _ECHO_TYPES[protocol][1])


def echo_packet(source: bytes, destination: bytes, echo: Echo, *, hop_limit: int = 64) -> bytes:
    """A complete IP packet, of the addresses' family, that carries ``echo``."""
    protocol = ICMP if len(source) == 4 else ICMPV6
    kind = _ECHO_TYPES[protocol][echo.reply]
    segment = _HEADER.pack(kind, 0, 0, echo.identifier, echo.sequence) + echo.payload
    return _packet(source, destination, segment, hop_limit)


def fragmentation_needed(packet: bytes, mtu: int, *, source: bytes | None = None) -> bytes:
    """ICMP type 3 code 4 (RFC 792, 1191) for an IPv4 packet, from ``source`` or else its own destination.

    Raises ``icmp_unanswerable`` for packets that RFC 1122 3.2.2 forbids to answer.
    """
    about = decode_ipv4(packet)
    segment_type = about.payload[0] if about.payload else 0
    is_error = about.protocol == ICMP and segment_type not in _QUERY_TYPES
    if is_error or about.offset or not _answerable_v4(about):
        raise DecodeError("icmp_unanswerable")
    segment = _HEADER.pack(3, 4, 0, 0, mtu) + packet[: _QUOTE_LIMIT_V4 - 28]
    return _packet(source or about.destination, about.source, segment, 64)


def packet_too_big(packet: bytes, mtu: int, *, source: bytes | None = None) -> bytes:
    """ICMPv6 type 2 (RFC 4443 3.2) for an IPv6 packet, from ``source`` or else its own destination.

    Raises ``icmp_unanswerable`` for ICMPv6 errors, redirects and sources that are no single node.
    """
    about = decode_ipv6(packet)
    segment_type = about.payload[0] if about.payload else 0
    is_error = about.protocol == ICMPV6 and (segment_type < 128 or segment_type == 137)
    if is_error or about.source[0] == 0xFF or about.source == bytes(16):
        raise DecodeError("icmp_unanswerable")
    segment = _HEADER.pack(2, 0, 0, mtu >> 16, mtu & 0xFFFF) + packet[: _QUOTE_LIMIT_V6 - 48]
    return _packet(source or about.destination, about.source, segment, 64)


def _answerable_v4(about: IPv4) -> bool:
    single_source = 0 < about.source[0] < 224 and about.source[0] != 127
    return single_source and about.destination[0] < 224


def _packet(source: bytes, destination: bytes, segment: bytes, hop_limit: int) -> bytes:
    if len(source) == 4:
        segment = fill_checksum(source, destination, ICMP, segment)
        return encode_ipv4(IPv4(source, destination, ICMP, segment, hop_limit))
    segment = fill_checksum(source, destination, ICMPV6, segment)
    return encode_ipv6(IPv6(source, destination, ICMPV6, segment, hop_limit))
