"""One direction of HTTP/1.x (RFC 9112) as it passes by: h11 parses each message; holes and cut packets are survived."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

import h11

from tof.vim.analyzer.messages import BODY_LIMIT, Span
from tof.vim.analyzer.streams import Piece

HEAD_LIMIT: Final = 64 << 10
_SHORT: Final = 256
_LINE: Final = re.compile(rb"[A-Z]{3,10} \S*$|HTTP/")
_FILLING: Final = bytes(64 << 10)


@dataclass(slots=True)
class Reading:
    """A message that is being read. ``seen``: its beginning, in case that the whole head never comes."""

    began_ns: int
    number: int
    parser: h11.Connection
    ended_ns: int = 0
    seen: bytes = b""
    head: h11.Request | h11.Response | None = None
    parts: list[bytes] = field(default_factory=list)
    size: int = 0
    holes: bool = False
    ended: bool = False

    @property
    def span(self) -> Span:
        """When it was seen."""
        return Span(self.began_ns, self.ended_ns, self.number, self.ended and not self.holes)

    @property
    def headers(self) -> dict[str, str]:
        """Its headers by their names in small letters; of those that repeat, the last."""
        head = self.head
        return (
            {} if head is None else {name.decode(): value.decode("latin-1") for name, value in head.headers}
        )

    @property
    def body(self) -> bytes:
        """What was kept of its body."""
        return b"".join(self.parts)

    def feed(self, data: bytes, time_ns: int) -> bytes:
        """Take bytes; what follows the message's end comes back. ProtocolError if this is no HTTP."""
        self.ended_ns = time_ns
        if self.head is None:
            self.seen += data[: HEAD_LIMIT - len(self.seen)]
        self.parser.receive_data(data)
        self._read()
        return self.parser.trailing_data[0] if self.ended else b""

    def bridge(self, hole: int) -> bool:
        """Go on behind a hole, if it lies within a body of known length."""
        length = self.headers.get("content-length", "")
        if not length.isdecimal() or len(length) > 15 or hole > int(length) - self.size:
            return False
        self.holes = True
        while hole and not self.ended:
            self.parser.receive_data(_FILLING[:hole])
            hole -= len(_FILLING[:hole])
            self._read()
        return not self.ended

    def close(self) -> None:
        """The sender closed, or the capture ends."""
        try:
            self.parser.receive_data(b"")
            self._read()
        except h11.ProtocolError:
            self.holes = True

    def _read(self) -> None:
        while not self.ended:
            event = self.parser.next_event()
            if event is h11.NEED_DATA or event is h11.PAUSED:
                return
            if isinstance(event, h11.Request | h11.Response):
                self.head = event
            elif isinstance(event, h11.Data):
                if self.size < BODY_LIMIT:
                    self.parts.append(bytes(event.data))
                self.size += len(event.data)
            elif isinstance(event, h11.EndOfMessage | h11.ConnectionClosed):
                self.ended = True


def readings(
    pieces: list[Piece], start: re.Pattern[bytes], parser: Callable[[int], h11.Connection]
) -> Iterator[Reading]:
    """The messages of one direction; ``start`` is how one begins, ``parser`` makes the parser of one that begins then."""
    reading: Reading | None = None
    rest = b""
    for piece in pieces:
        if piece.hole:
            rest = b""
            if reading is not None and not reading.bridge(piece.hole):
                yield reading
                reading = None
        data = rest + piece.data
        rest = b""
        while data:
            if reading is None:
                begin = start.search(data)
                if begin is None:
                    rest = _kept(data)
                    break
                data = data[begin.start() :]
                reading = Reading(piece.time_ns, piece.number, parser(piece.time_ns))
            data, broken = _fed(reading, data, piece.time_ns)
            if broken or reading.ended:
                yield reading
                reading = None
    if reading is not None:
        reading.close()
        yield reading


def _kept(data: bytes) -> bytes:
    """What may yet turn out to be the beginning of a message."""
    return data[-HEAD_LIMIT:] if _LINE.match(data) else data[-_SHORT:]


def _fed(reading: Reading, data: bytes, time_ns: int) -> tuple[bytes, bool]:
    """What is left over, and whether the message turned out to be none."""
    try:
        return reading.feed(data, time_ns), False
    except h11.ProtocolError:
        reading.holes = True
        return b"", True
