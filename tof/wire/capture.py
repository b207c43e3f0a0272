"""Capture files as bytes: pcap and pcapng in, pcap out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from struct import Struct
from typing import NamedTuple

from tof.errors import DecodeError

ETHERNET = 1

_NANOSECONDS = 1_000_000_000
_PCAP_MAGICS = {
    b"\xd4\xc3\xb2\xa1": ("<", 1000),
    b"\xa1\xb2\xc3\xd4": (">", 1000),
    b"\x4d\x3c\xb2\xa1": ("<", 1),
    b"\xa1\xb2\x3c\x4d": (">", 1),
}
_PCAP_HEADER = Struct("<IHHiIII")
_PCAP_RECORD = Struct("<IIII")
_PCAPNG_SECTION = b"\x0a\x0d\x0d\x0a"
_PCAPNG_ORDERS = {b"\x4d\x3c\x2b\x1a": "<", b"\x1a\x2b\x3c\x4d": ">"}
_INTERFACE, _OLD_PACKET, _SIMPLE_PACKET, _ENHANCED_PACKET = 1, 2, 3, 6
_OPTION_RESOLUTION, _OPTION_OFFSET = 9, 14


class Frame(NamedTuple):
    """A captured frame: number in the file from 1, nanoseconds since 1970, bytes, length on the wire, link type."""

    number: int
    time_ns: int
    data: bytes
    original_length: int
    link_type: int = ETHERNET

    @property
    def cut(self) -> bool:
        """Whether the capture's snap length cut it."""
        return len(self.data) < self.original_length


@dataclass(frozen=True, slots=True)
class _Interface:
    link_type: int
    snap_length: int
    units_per_s: int
    offset_s: int


@dataclass(slots=True)
class _Section:
    order: str = "<"
    interfaces: list[_Interface] = field(default_factory=list)


def frames(data: bytes) -> Iterator[Frame]:
    """The frames of a capture file's bytes, one by one; DecodeError, a sentence, at whatever does not parse."""
    if data[:4] == _PCAPNG_SECTION:
        records = _pcapng(data)
    elif data[:4] in _PCAP_MAGICS:
        records = _pcap(data)
    else:
        raise DecodeError("is neither pcap nor pcapng")
    for number, record in enumerate(records, 1):
        yield Frame(number, *record)


def dump(captured: Iterable[Frame], *, snap_length: int = 262_144, link_type: int = ETHERNET) -> bytes:
    """The frames as a pcap file with nanosecond times."""
    parts = [_PCAP_HEADER.pack(0xA1B23C4D, 2, 4, 0, 0, snap_length, link_type)]
    for frame in captured:
        seconds, nanoseconds = divmod(frame.time_ns, _NANOSECONDS)
        parts.append(_PCAP_RECORD.pack(seconds, nanoseconds, len(frame.data), frame.original_length))
        parts.append(frame.data)
    return b"".join(parts)


_Record = tuple[int, bytes, int, int]


def _pcap(data: bytes) -> Iterator[_Record]:
    order, scale = _PCAP_MAGICS[data[:4]]
    if len(data) < 24:
        raise DecodeError("ends in its file header")
    # The upper bits of the link type say how long a frame check sequence is; it counts as padding.
    link_type = Struct(order + "I").unpack_from(data, 20)[0] & 0xFFFF
    record = Struct(order + "IIII")
    offset, number = 24, 1
    while offset < len(data):
        start = offset + 16
        if start > len(data):
            raise DecodeError(f"ends in the middle of packet {number}")
        seconds, fraction, captured, original = record.unpack_from(data, offset)
        offset = start + captured
        if offset > len(data):
            raise DecodeError(f"ends in the middle of packet {number}")
        yield seconds * _NANOSECONDS + fraction * scale, data[start:offset], original, link_type
        number += 1


def _pcapng(data: bytes) -> Iterator[_Record]:
    section = _Section()
    offset = 0
    while offset < len(data):
        if data[offset : offset + 4] == _PCAPNG_SECTION:
            section = _Section(_byte_order(data, offset))
        kind, body, offset = _block(data, offset, section.order)
        if kind == _INTERFACE:
            section.interfaces.append(_interface(body, section.order))
        elif kind == _ENHANCED_PACKET:
            yield _enhanced_packet(body, section)
        elif kind == _SIMPLE_PACKET:
            yield _simple_packet(body, section)
        elif kind == _OLD_PACKET:
            raise DecodeError("holds obsolete Packet Blocks; convert it with 'editcap -F pcap'")


def _byte_order(data: bytes, offset: int) -> str:
    order = _PCAPNG_ORDERS.get(data[offset + 8 : offset + 12])
    if order is None:
        raise DecodeError("has a section without a byte-order mark")
    return order


def _block(data: bytes, offset: int, order: str) -> tuple[int, bytes, int]:
    if offset + 12 > len(data):
        raise DecodeError(f"ends in the middle of the block at byte {offset}")
    kind, length = Struct(order + "II").unpack_from(data, offset)
    end = offset + length
    if length < 12 or length % 4 or end > len(data):
        raise DecodeError(f"has a bad length in the block at byte {offset}, or ends in it")
    return kind, data[offset + 8 : end - 4], end


def _interface(body: bytes, order: str) -> _Interface:
    if len(body) < 8:
        raise DecodeError("has an interface block that is too short")
    link_type, snap_length = Struct(order + "HxxI").unpack_from(body)
    options = dict(_options(body, 8, order))
    resolution = options.get(_OPTION_RESOLUTION, b"\6")[:1] or b"\6"
    base, exponent = (2 if resolution[0] & 0x80 else 10), resolution[0] & 0x7F
    shift = options.get(_OPTION_OFFSET, b"")
    offset_s = Struct(order + "q").unpack(shift)[0] if len(shift) == 8 else 0
    return _Interface(link_type, snap_length, base**exponent, offset_s)


def _options(body: bytes, offset: int, order: str) -> Iterator[tuple[int, bytes]]:
    header = Struct(order + "HH")
    while offset + 4 <= len(body):
        code, length = header.unpack_from(body, offset)
        yield code, body[offset + 4 : offset + 4 + length]
        offset += 4 + length + -length % 4


def _enhanced_packet(body: bytes, section: _Section) -> _Record:
    if len(body) < 20:
        raise DecodeError("has a packet block that is too short")
    index, high, low, captured, original = Struct(section.order + "IIIII").unpack_from(body)
    interface = _described(section, index)
    if 20 + captured > len(body):
        raise DecodeError("has a packet block shorter than its packet")
    time_ns = (high << 32 | low) * _NANOSECONDS // interface.units_per_s
    return (
        time_ns + interface.offset_s * _NANOSECONDS,
        body[20 : 20 + captured],
        original,
        interface.link_type,
    )


def _simple_packet(body: bytes, section: _Section) -> _Record:
    if len(body) < 4:
        raise DecodeError("has a packet block that is too short")
    original: int = Struct(section.order + "I").unpack_from(body)[0]
    interface = _described(section, 0)
    limit = interface.snap_length or original
    return 0, body[4 : 4 + min(original, limit)], original, interface.link_type


def _described(section: _Section, index: int) -> _Interface:
    if index >= len(section.interfaces):
        raise DecodeError(f"has a packet of interface {index}, which it does not describe")
    return section.interfaces[index]
