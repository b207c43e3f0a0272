"""Go's net/rpc with msgpack as it passes by, as Nomad speaks it: alone on its connection, or in streams of yamux."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from struct import Struct
from typing import Any, Final

import msgpack

from tof.vim.analyzer.messages import Call, Span, text
from tof.vim.analyzer.streams import Piece

STREAMS: Final = 4096
"""Streams of a connection that are followed at once; the one that was silent longest gives way."""
OBJECT_LIMIT: Final = 64 << 20

# What a connection of Nomad's begins with: plain RPC, multiplexed, multiplexed with a type per stream.
_PLAIN, _MULTIPLEXED, _MULTIPLEXED_2 = 0x01, 0x03, 0x06
_DATA, _GO_AWAY = 0, 3
_HEADER = Struct("!BBHII")
_LONGEST_FRAME: Final = 16 << 20
_BROKEN: Final = (msgpack.exceptions.UnpackException, ValueError, TypeError, RecursionError)


def speaks_rpc(pieces: list[Piece]) -> bool:
    """Whether a direction holds msgpack RPC: a header of it in a plausible place."""
    return any(b"\xadServiceMethod" in piece.data[:64] and _plausible(piece.data) for piece in pieces)


def calls(pieces: list[Piece]) -> Iterator[Call]:
    """The requests and answers that one direction carries."""
    reader = _Plain() if _is_plain(pieces) else _Multiplexed()
    for piece in pieces:
        if piece.hole:
            reader.lost()
        yield from reader.feed(piece)


def _plausible(data: bytes) -> bool:
    """Whether an RPC header, a small map, begins here or behind what a connection, frame or stream begins with."""
    return any(data[at : at + 1] in (b"\x82", b"\x83") for at in (0, 1, 12, 13, 14))


def _is_plain(pieces: list[Piece]) -> bool:
    """Whether no yamux is between TCP and RPC: nothing that looks like its frames."""
    return not any(_frame_at(piece.data, at) for piece in pieces for at in (0, 1))


@dataclass(slots=True)
class _Stream:
    """Objects of one stream: a header, its body, a header, ..."""

    unpacker: Any = field(default_factory=lambda: _unpacker())
    header: dict[str, Any] | None = None
    began: Piece | None = None

    def feed(self, data: bytes, piece: Piece) -> Iterator[Call]:
        """Take bytes; whatever is no header where one is due is passed over."""
        if self.began is None:
            self.began = piece
        try:
            self.unpacker.feed(data)
            for one in self.unpacker:
                yield from self._take(one, piece)
        except _BROKEN:
            self.unpacker, self.header, self.began = _unpacker(), None, None

    def _take(self, one: Any, piece: Piece) -> Iterator[Call]:
        header, self.header = self.header, None
        if header is None:
            if isinstance(one, dict) and "ServiceMethod" in one and "Seq" in one:
                self.header = one
            return
        began, self.began = self.began or piece, None
        sequence = header["Seq"] if isinstance(header["Seq"], int) else 0
        span = Span(began.time_ns, piece.time_ns, began.number)
        method, error = text(header["ServiceMethod"]), text(header.get("Error"))
        yield Call(span, "Error" in header, method, sequence, error, one)


class _Plain:
    def __init__(self) -> None:
        self._stream = _Stream()

    def lost(self) -> None:
        """Bytes are missing."""
        self._stream = _Stream()

    def feed(self, piece: Piece) -> Iterator[Call]:
        """Take bytes."""
        yield from self._stream.feed(piece.data, piece)


class _Multiplexed:
    """yamux: frames of 12 bytes and, if they are of data, as many more as they say."""

    def __init__(self) -> None:
        self._streams: dict[int, _Stream] = {}
        self._buffer = b""
        self._synchronous = False
        self._stream: int | None = None
        self._due = 0

    def lost(self) -> None:
        """Bytes are missing."""
        self._streams.clear()
        self._buffer, self._synchronous, self._stream, self._due = b"", False, None, 0

    def feed(self, piece: Piece) -> Iterator[Call]:
        """Take bytes."""
        data, at = self._buffer + piece.data, 0
        self._buffer = b""
        if not self._synchronous:
            at = 0 if _frame_at(data, 0) else 1
            self._synchronous = bool(_frame_at(data, at))
        while self._synchronous and at < len(data):
            if self._due:
                chunk = data[at : at + self._due]
                self._due -= len(chunk)
                at += len(chunk)
                yield from self._taken(chunk, piece)
                continue
            if len(data) < at + _HEADER.size:
                self._buffer = data[at:]
                return
            if not _frame_at(data, at):
                self.lost()
                return
            _, kind, _, stream, length = _HEADER.unpack_from(data, at)
            at += _HEADER.size
            self._stream, self._due = (stream, length) if kind == _DATA else (None, 0)

    def _taken(self, chunk: bytes, piece: Piece) -> Iterator[Call]:
        number = self._stream or 0
        stream = self._streams.pop(number, None) or _Stream()
        # The one that spoke last stands last.
        self._streams[number] = stream
        if len(self._streams) > STREAMS:
            del self._streams[next(iter(self._streams))]
        yield from stream.feed(chunk, piece)


def _frame_at(data: bytes, at: int) -> bool:
    """Whether what stands here can be a frame's header."""
    if len(data) < at + _HEADER.size:
        return False
    version, kind, flags, stream, length = _HEADER.unpack_from(data, at)
    if version or kind > _GO_AWAY or flags > 15:
        return False
    return bool((stream == 0) == (kind > 1) and (length <= _LONGEST_FRAME or kind > _DATA))


def _unpacker() -> Any:
    return msgpack.Unpacker(
        raw=False, unicode_errors="replace", strict_map_key=False, max_buffer_size=OBJECT_LIMIT
    )
