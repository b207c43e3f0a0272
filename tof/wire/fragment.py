"""Fragments of outer IP datagrams (RFC 791 section 3.2, RFC 8200 section 4.5): bytes to values."""

from __future__ import annotations

from struct import Struct
from typing import NamedTuple

from tof.errors import DecodeError
from tof.wire.inet import IPV6_FRAGMENT, decode_ipv4

LARGEST = 65535
"""An IPv4 total length and an IPv6 payload length have 16 bits."""

_IPV6 = Struct("!IHBx16s16s")
_FRAGMENT = Struct("!BxHI")


class FragmentKey(NamedTuple):
    """What the fragments of one datagram have in common; ``vlan`` keeps networks apart."""

    source: bytes
    destination: bytes
    protocol: int
    identification: int
    vlan: int | None = None


class Fragment(NamedTuple):
    """A part of a datagram's payload, at ``offset`` bytes; ``most``: the longest payload its datagram can have."""

    key: FragmentKey
    offset: int
    more: bool
    payload: bytes
    most: int = LARGEST


def decode_fragment(packet: bytes, vlan: int | None = None) -> Fragment:
    """Parse an IP packet that is a fragment; DecodeError ``ip_whole`` for any other, others as ``tof.wire.inet``.

    An IPv6 packet with a fragment header is one, even if that says that it is all there (RFC 6946).
    """
    if packet and packet[0] >> 4 == 6:
        return _ipv6(packet, vlan)
    whole = decode_ipv4(packet)
    more = bool(whole.flags & 1)
    if not more and not whole.offset:
        raise DecodeError("ip_whole")
    key = FragmentKey(whole.source, whole.destination, whole.protocol, whole.identification, vlan)
    return Fragment(key, whole.offset, more, whole.payload, LARGEST - 20 - len(whole.options))


def _ipv6(packet: bytes, vlan: int | None) -> Fragment:
    if len(packet) < 40:
        raise DecodeError("ip_truncated")
    _, length, header, source, destination = _IPV6.unpack_from(packet)
    end = 40 + length
    if end > len(packet):
        raise DecodeError("ip_length")
    if header != IPV6_FRAGMENT:
        raise DecodeError("ip_whole")
    if length < 8:
        raise DecodeError("ip_truncated")
    protocol, word, identification = _FRAGMENT.unpack_from(packet, 40)
    key = FragmentKey(source, destination, protocol, identification, vlan)
    return Fragment(key, word & 0xFFF8, bool(word & 1), packet[48:end])
