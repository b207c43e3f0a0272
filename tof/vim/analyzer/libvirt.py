"""libvirt's RPC over TCP as it passes by (rpc/virnetprotocol.x): domains that are defined, created and started."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from struct import Struct
from typing import Final, NamedTuple

from tof.vim.analyzer.messages import Span
from tof.vim.analyzer.streams import Piece

_PROGRAM: Final = 0x20008086
_LONGEST: Final = 32 << 20
_HEAD = Struct("!IIIIIII")
_CALL, _REPLY = 0, 1
# remote_protocol.x: createXML and defineXML carry the domain's description, create starts a defined one.
_CREATE, _CREATE_XML, _DEFINE_XML, _CREATE_WITH_FLAGS, _DEFINE_XML_FLAGS = 9, 10, 11, 196, 350
_OF_DOMAINS: Final = frozenset({_CREATE, _CREATE_XML, _DEFINE_XML, _CREATE_WITH_FLAGS, _DEFINE_XML_FLAGS})
_STARTING: Final = frozenset({_CREATE, _CREATE_XML, _CREATE_WITH_FLAGS})


@dataclass(frozen=True, slots=True)
class Domain:
    """A call about a domain: from its first byte to the last of the reply; ``body`` names it. ``starts``: it is to run."""

    span: Span
    starts: bool
    body: bytes
    failed: bool


class _Packet(NamedTuple):
    piece: Piece
    procedure: int
    kind: int
    serial: int
    status: int
    body: bytes


def speaks_libvirt(pieces: list[Piece]) -> bool:
    """Whether a direction is libvirt's: a piece of it begins with a packet of its program."""
    return any(_head(piece.data) is not None for piece in pieces)


def domains(one: list[Piece], other: list[Piece]) -> Iterator[Domain]:
    """The calls about domains of a connection with their replies."""
    packets = [*_packets(one), *_packets(other)]
    replies = {packet.serial: packet for packet in packets if packet.kind == _REPLY}
    for call in packets:
        reply = replies.get(call.serial)
        if call.kind == _CALL and call.procedure in _OF_DOMAINS:
            ended = call.piece if reply is None else reply.piece
            span = Span(call.piece.time_ns, ended.time_ns, call.piece.number, reply is not None)
            failed = reply is not None and reply.status != 0
            yield Domain(span, call.procedure in _STARTING, call.body, failed)


def _packets(pieces: list[Piece]) -> Iterator[_Packet]:
    buffer = b""
    for piece in pieces:
        buffer = piece.data if piece.hole else buffer + piece.data
        while len(buffer) >= _HEAD.size:
            head = _head(buffer)
            if head is None:
                buffer = b""
                break
            if len(buffer) < head[0]:
                break
            length, _, _, procedure, kind, serial, status = head
            yield _Packet(piece, procedure, kind, serial, status, buffer[_HEAD.size : length])
            buffer = buffer[length:]


def _head(data: bytes) -> tuple[int, ...] | None:
    """A packet's length, program, version, procedure, kind, serial and status."""
    if len(data) < _HEAD.size:
        return None
    head = _HEAD.unpack_from(data)
    return head if head[1] == _PROGRAM and _HEAD.size <= head[0] <= _LONGEST else None
