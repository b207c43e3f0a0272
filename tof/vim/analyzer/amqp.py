"""AMQP 0-9-1 as it passes by: frames, messages out of method, header and body, and oslo.messaging's envelope in them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from struct import Struct
from typing import Any, Final, NamedTuple

from tof.errors import DecodeError
from tof.vim.analyzer.messages import BODY_LIMIT, Cast, Span
from tof.vim.analyzer.streams import Piece

FRAME_LIMIT: Final = 16 << 20
"""No frame is longer: RabbitMQ's own limit is 128 KB unless a client asks for more."""
CHANNELS: Final = 4096
"""Messages that are on their way at once in one direction; a broker's limit is 2047 channels."""

_METHOD, _HEADER, _BODY, _HEARTBEAT = 1, 2, 3, 8
_PUBLISH, _DELIVER, _GET_OK = 0x3C0028, 0x3C003C, 0x3C0047
_END: Final = 0xCE
_PROTOCOL: Final = b"AMQP\0\0\x09\x01"
_FRAME = Struct("!BHI")
_U32 = Struct("!I")
_HEAD = Struct("!HHQ")
# A method frame with a class and a method of the specification, or a heartbeat: where reading can begin anywhere.
_START: Final = re.compile(
    rb"\x01..\x00...\x00[\x0a\x14\x1e\x28\x32\x3c\x55\x5a]\x00.|\x08\x00\x00\x00\x00\x00\x00\xce|AMQP\0\0\x09\x01",
    re.DOTALL,
)
_INNER_METHOD: Final = re.compile(r'\\*"method\\*": *\\*"(\w+)\\*"')


class _Frame(NamedTuple):
    kind: int
    channel: int
    payload: bytes


@dataclass(slots=True)
class _Message:
    began_ns: int
    number: int
    delivered: bool
    exchange: str
    routing_key: str
    last_ns: int
    size: int | None = None
    seen: int = 0
    parts: list[bytes] = field(default_factory=list)

    def cast(self, *, whole: bool) -> Cast:
        span = Span(self.began_ns, self.last_ns, self.number, whole)
        return Cast(span, self.delivered, self.exchange, self.routing_key, b"".join(self.parts))


def speaks_amqp(pieces: list[Piece]) -> bool:
    """Whether a direction begins like AMQP, or a piece of it is whole frames."""
    return any(piece.data.startswith(_PROTOCOL) or _framed(piece.data) for piece in pieces)


def casts(pieces: list[Piece]) -> Iterator[Cast]:
    """The messages that one direction carries."""
    reader = _Reader()
    for piece in pieces:
        if piece.hole:
            yield from reader.lost()
        yield from reader.feed(piece)
    yield from reader.lost()


def envelope(body: bytes) -> dict[str, Any]:
    """What oslo.messaging sent: the message in its envelope or a bare one; of a cut one only its method."""
    text = body.decode("utf-8", "replace")
    try:
        document = json.loads(text)
        if isinstance(document, dict) and "oslo.message" in document:
            document = json.loads(document["oslo.message"])
        return document if isinstance(document, dict) else {}
    except (ValueError, TypeError, RecursionError):
        found = _INNER_METHOD.search(text)
        return {"method": found[1]} if found else {}


class _Reader:
    def __init__(self) -> None:
        self._buffer = b""
        self._synchronous = False
        self._last_ns = 0
        self._messages: dict[int, _Message] = {}

    def feed(self, piece: Piece) -> Iterator[Cast]:
        """Take bytes."""
        data, at = self._buffer + piece.data, 0
        self._last_ns = piece.time_ns
        while True:
            if not self._synchronous:
                begin = _START.search(data, at)
                if begin is None:
                    at = max(at, len(data) - 16)
                    break
                at, self._synchronous = begin.start(), True
            if data.startswith(_PROTOCOL, at):
                at += len(_PROTOCOL)
                continue
            try:
                frame, after = _frame(data, at)
            except DecodeError:
                self._synchronous = False
                at += 1
                yield from self._abandon()
                continue
            if frame is None:
                break
            at = after
            yield from self._take(frame, piece)
        self._buffer = data[at:]

    def lost(self) -> Iterator[Cast]:
        """Bytes are missing, or nothing follows: what was begun is all there is."""
        self._keep_beginning()
        self._buffer, self._synchronous = b"", False
        yield from self._abandon()

    def _keep_beginning(self) -> None:
        """What there is of a body's frame belongs to its message."""
        if self._synchronous and len(self._buffer) > _FRAME.size:
            kind, channel, _ = _FRAME.unpack_from(self._buffer)
            message = self._messages.get(channel)
            if kind == _BODY and message is not None:
                message.last_ns = self._last_ns
                message.parts.append(self._buffer[_FRAME.size :])

    def _abandon(self) -> Iterator[Cast]:
        for message in self._messages.values():
            yield message.cast(whole=False)
        self._messages.clear()

    def _take(self, frame: _Frame, piece: Piece) -> Iterator[Cast]:
        if frame.kind == _METHOD:
            yield from self._method(frame, piece)
            return
        message = self._messages.get(frame.channel)
        if message is None:
            return
        message.last_ns = piece.time_ns
        if frame.kind == _HEADER and len(frame.payload) >= _HEAD.size:
            message.size = _HEAD.unpack_from(frame.payload)[2]
        elif frame.kind == _BODY:
            if message.seen < BODY_LIMIT:
                message.parts.append(frame.payload)
            message.seen += len(frame.payload)
        if message.size is not None and message.seen >= message.size:
            del self._messages[frame.channel]
            yield message.cast(whole=message.seen == message.size <= BODY_LIMIT)

    def _method(self, frame: _Frame, piece: Piece) -> Iterator[Cast]:
        begun = self._messages.pop(frame.channel, None)
        if begun is not None:
            yield begun.cast(whole=False)
        message = _begun(frame.payload, piece)
        if message is not None and len(self._messages) < CHANNELS:
            self._messages[frame.channel] = message


def _framed(data: bytes) -> bool:
    """Whether the bytes are one or more whole frames, of which the first is a method or a heartbeat."""
    if not _START.match(data):
        return False
    try:
        return _frame(data, 0)[0] is not None
    except DecodeError:
        return False


def _frame(data: bytes, at: int) -> tuple[_Frame | None, int]:
    """The frame at ``at`` and what follows it; None while it is not all there."""
    if len(data) < at + _FRAME.size:
        return None, at
    kind, channel, size = _FRAME.unpack_from(data, at)
    start = at + _FRAME.size
    if kind not in (_METHOD, _HEADER, _BODY, _HEARTBEAT) or size > FRAME_LIMIT:
        raise DecodeError("amqp_frame")
    if len(data) <= start + size:
        return None, at
    if data[start + size] != _END:
        raise DecodeError("amqp_frame_end")
    return _Frame(kind, channel, data[start : start + size]), start + size + 1


def _begun(payload: bytes, piece: Piece) -> _Message | None:
    """The message that a method announces; None if it announces none."""
    kind = _U32.unpack_from(payload)[0] if len(payload) >= 4 else 0
    try:
        start = _names_start(kind, payload)
        if start is None:
            return None
        exchange, after = _string(payload, start)
        key, _ = _string(payload, after)
    except DecodeError:
        return None
    return _Message(piece.time_ns, piece.number, kind != _PUBLISH, exchange, key, piece.time_ns)


def _names_start(kind: int, payload: bytes) -> int | None:
    """Where exchange and routing key stand in a method that announces a message."""
    if kind == _PUBLISH:
        return 6
    if kind == _GET_OK:
        return 13
    return _string(payload, 4)[1] + 9 if kind == _DELIVER else None


def _string(payload: bytes, at: int) -> tuple[str, int]:
    """A short string, and what follows it."""
    if at >= len(payload) or at + 1 + payload[at] > len(payload):
        raise DecodeError("amqp_string")
    end = at + 1 + payload[at]
    return payload[at + 1 : end].decode("utf-8", "replace"), end
