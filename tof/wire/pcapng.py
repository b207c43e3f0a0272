"""Capture files of users' packets (pcapng, draft-ietf-opsawg-pcapng): one interface a direction, times in nanoseconds."""

from __future__ import annotations

from struct import Struct
from typing import Final

RAW_IP: Final = 101
"""LINKTYPE_RAW: a packet begins with its IP header."""
UPLINK, DOWNLINK = 0, 1
"""The numbers of the interfaces."""

_SECTION, _INTERFACE, _PACKET = 0x0A0D0D0A, 1, 6
_IF_NAME, _IF_TSRESOL, _EPB_FLAGS = 2, 9, 2
_NANOSECONDS: Final = 9
_INBOUND, _OUTBOUND = 1, 2

_WORD = Struct("<I")
_BLOCK = Struct("<II")
_OPTION = Struct("<HH")
_SECTION_BODY = Struct("<IHHq")
_INTERFACE_BODY = Struct("<HHI")
_PACKET_BODY = Struct("<IIIII")


def section(names: tuple[str, str] = ("uplink", "downlink")) -> bytes:
    """How a section begins; a file may have several of them, one after the other."""
    head = _block(_SECTION, _SECTION_BODY.pack(0x1A2B3C4D, 1, 0, -1))
    return head + b"".join(map(_interface, names))


def packet(way: int, time_ns: int, data: bytes) -> bytes:
    """A packet of one direction; ``time_ns``: since 1970."""
    flags = _INBOUND if way == UPLINK else _OUTBOUND
    body = _PACKET_BODY.pack(way, time_ns >> 32, time_ns & 0xFFFFFFFF, len(data), len(data)) + _padded(data)
    return _block(_PACKET, body + _option(_EPB_FLAGS, _WORD.pack(flags)) + _OPTION.pack(0, 0))


def _interface(name: str) -> bytes:
    options = _option(_IF_NAME, name.encode()) + _option(_IF_TSRESOL, bytes((_NANOSECONDS,)))
    return _block(_INTERFACE, _INTERFACE_BODY.pack(RAW_IP, 0, 0) + options + _OPTION.pack(0, 0))


def _option(code: int, value: bytes) -> bytes:
    return _OPTION.pack(code, len(value)) + _padded(value)


def _block(kind: int, body: bytes) -> bytes:
    size = 12 + len(body)
    return _BLOCK.pack(kind, size) + body + _WORD.pack(size)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
