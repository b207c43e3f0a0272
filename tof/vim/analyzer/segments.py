"""Captured frames of any usual link type → TCP segments; what is no TCP is passed over."""

from __future__ import annotations

from ipaddress import ip_address
from struct import Struct
from typing import Final, NamedTuple

from tof.errors import DecodeError
from tof.wire.capture import ETHERNET, Frame
from tof.wire.inet import ETHERTYPE_IPV4, ETHERTYPE_IPV6, TAG_TYPES, TCP

SYN, RST, ACK = 0x02, 0x04, 0x10

_NULL, _LOOP, _SLL, _SLL2 = 0, 108, 113, 276
_RAW: Final = frozenset({12, 14, 101, 228, 229})
_FRAGMENT, _AUTHENTICATION = 44, 51
_IPV6_HEADERS: Final = frozenset({0, 43, 60, _FRAGMENT, _AUTHENTICATION})
# Where the EtherType stands, and where the packet begins.
_PLACES: Final = {ETHERNET: (12, 14), _SLL: (14, 16), _SLL2: (0, 20)}

_U16 = Struct("!H")
_TCP = Struct("!HHIIBB")


class End(NamedTuple):
    """One end of a connection; the address is packed."""

    address: bytes
    port: int

    def __str__(self) -> str:
        address = ip_address(self.address)
        return f"[{address}]:{self.port}" if address.version == 6 else f"{address}:{self.port}"


class Segment(NamedTuple):
    """A TCP segment; ``missing`` bytes at its end were cut off by the capture's snap length."""

    number: int
    time_ns: int
    source: End
    destination: End
    sequence: int
    flags: int
    data: bytes
    missing: int = 0


class _Packet(NamedTuple):
    """An IP packet's payload as captured; ``size`` is what it was on the wire."""

    source: bytes
    destination: bytes
    payload: bytes
    size: int


def segment(frame: Frame) -> Segment | None:
    """The TCP segment in a frame, None if it is something else; DecodeError if it does not parse."""
    start = _network(frame)
    packet = None if start is None else _internet(frame.data, start, frame.original_length)
    if packet is None:
        return None
    payload = packet.payload
    if len(payload) < 20:
        raise DecodeError("tcp_truncated")
    source, destination, sequence, _, offset, flags = _TCP.unpack_from(payload)
    start = (offset >> 4) * 4
    if not 20 <= start <= packet.size:
        raise DecodeError("tcp_length")
    data = payload[start:]
    return Segment(
        frame.number,
        frame.time_ns,
        End(packet.source, source),
        End(packet.destination, destination),
        sequence,
        flags,
        data,
        packet.size - start - len(data),
    )


def _network(frame: Frame) -> int | None:
    """Where the IP packet begins."""
    data, link = frame.data, frame.link_type
    if link in _RAW:
        return 0
    if link in (_NULL, _LOOP):
        return 4
    if link not in _PLACES:
        raise DecodeError(f"link type {link} is not known")
    at, start = _PLACES[link]
    kind = _u16(data, at)
    while kind in TAG_TYPES:
        kind, start = _u16(data, start + 2), start + 4
    return start if kind in (ETHERTYPE_IPV4, ETHERTYPE_IPV6) else None


def _u16(data: bytes, at: int) -> int:
    if len(data) < at + 2:
        raise DecodeError("link_truncated")
    value: int = _U16.unpack_from(data, at)[0]
    return value


def _internet(data: bytes, start: int, length: int) -> _Packet | None:
    """The TCP payload of the IP packet at ``start`` of a frame of ``length`` bytes."""
    version = data[start] >> 4 if len(data) > start else 0
    if version == 4:
        return _ipv4(data, start, length)
    if version == 6:
        return _ipv6(data, start, length)
    raise DecodeError("ip_version")


def _ipv4(data: bytes, start: int, length: int) -> _Packet | None:
    if len(data) < start + 20:
        raise DecodeError("ip_truncated")
    header = (data[start] & 15) * 4
    # A sender that leaves segmentation to its adapter may write a total length of zero.
    total = _u16(data, start + 2) or length - start
    if not 20 <= header <= total <= length - start:
        raise DecodeError("ip_length")
    # Fragments of TCP do not occur but in attacks; only whole packets are read.
    if data[start + 9] != TCP or _u16(data, start + 6) & 0x3FFF:
        return None
    source, destination = data[start + 12 : start + 16], data[start + 16 : start + 20]
    return _Packet(source, destination, data[start + header : start + total], total - header)


def _ipv6(data: bytes, start: int, length: int) -> _Packet | None:
    if len(data) < start + 40:
        raise DecodeError("ip_truncated")
    total = 40 + _u16(data, start + 4)
    total = length - start if total == 40 else total
    if total > length - start:
        raise DecodeError("ip_length")
    kind, at = data[start + 6], start + 40
    while kind in _IPV6_HEADERS:
        if len(data) < at + 8 or at + 8 > start + total:
            raise DecodeError("ip_truncated")
        if kind == _FRAGMENT and _u16(data, at + 2) & 0xFFF9:
            return None
        size = (data[at + 1] + 2) * 4 if kind == _AUTHENTICATION else (data[at + 1] + 1) * 8
        kind, at = data[at], at + (8 if kind == _FRAGMENT else size)
    if kind != TCP:
        return None
    source, destination = data[start + 8 : start + 24], data[start + 24 : start + 40]
    return _Packet(source, destination, data[at : start + total], start + total - at)
