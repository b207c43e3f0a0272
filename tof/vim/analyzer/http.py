"""HTTP exchanges of a connection: its requests, each with the answer that is its own; pipelining and losses included."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

import h11

from tof.vim.analyzer.http_reading import HEAD_LIMIT, readings
from tof.vim.analyzer.messages import Answer, Exchange, Request
from tof.vim.analyzer.streams import Connection, Piece

_REQUEST: Final = re.compile(rb"([A-Z]{3,10}) (\S{1,16000}) HTTP/1\.[01]\r?\n")
_ANSWER: Final = re.compile(rb"HTTP/1\.[01] ([1-5][0-9][0-9])[ \r\n]")


def speaks_http(pieces: list[Piece]) -> bool:
    """Whether a direction holds the beginning of an HTTP message."""
    return any(_REQUEST.match(piece.data) or _ANSWER.match(piece.data) for piece in pieces)


def exchanges(connection: Connection) -> list[Exchange]:
    """The requests of a connection, each with its answer."""
    one, other = (connection.pieces(end) for end in connection.ends)
    backwards = any(_REQUEST.match(p.data) for p in other) or any(_ANSWER.match(p.data) for p in one)
    asking, answering = (other, one) if backwards else (one, other)
    lossy = connection.refused > 0 or any(piece.hole for piece in (*asking, *answering))
    pairing = _Pairing(list(_requests(asking)), lossy=lossy)
    for answer in _answers(answering, pairing):
        pairing.answer(answer)
    return pairing.exchanges(str(connection.ends[0 if backwards else 1]))


class _Pairing:
    """Which answer is which request's: the oldest one's, or where bytes are missing the latest one's before it."""

    def __init__(self, requests: list[Request], *, lossy: bool) -> None:
        self._requests = requests
        self._lossy = lossy
        self._next = 0
        self._found: dict[int, Answer] = {}

    def request(self, began_ns: int) -> Request | None:
        """The request that an answer which begins now would be for."""
        index = self._index(began_ns)
        return None if index is None else self._requests[index]

    def answer(self, answer: Answer) -> None:
        """An answer, in order."""
        index = self._index(answer.span.began_ns)
        if index is not None:
            self._found[index] = answer
            self._next = index + 1

    def exchanges(self, server: str) -> list[Exchange]:
        """All requests with what was found."""
        return [Exchange(server, one, self._found.get(at)) for at, one in enumerate(self._requests)]

    def _index(self, began_ns: int) -> int | None:
        at = self._next
        if self._lossy:
            while at + 1 < len(self._requests) and self._requests[at + 1].span.began_ns <= began_ns:
                at += 1
        return at if at < len(self._requests) and self._requests[at].span.began_ns <= began_ns else None


def _requests(pieces: list[Piece]) -> Iterator[Request]:
    for reading in readings(pieces, _REQUEST, _request_parser):
        head, line = reading.head, _REQUEST.match(reading.seen)
        if isinstance(head, h11.Request):
            target = head.target.decode("ascii", "replace")
            yield Request(reading.span, head.method.decode(), target, reading.headers, reading.body)
        elif line is not None:
            target = line[2].decode("ascii", "replace")
            yield Request(reading.span, line[1].decode(), target, _headers(reading.seen))


def _request_parser(_: int) -> h11.Connection:
    return h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_LIMIT)


def _answers(pieces: list[Piece], pairing: _Pairing) -> Iterator[Answer]:
    def parser(time_ns: int) -> h11.Connection:
        asked = pairing.request(time_ns)
        # An answer to HEAD has no body, whatever its length says.
        method = "HEAD" if asked is not None and asked.method == "HEAD" else "GET"
        connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_LIMIT)
        connection.send(h11.Request(method=method, target="/", headers=[("Host", "-")]))
        connection.send(h11.EndOfMessage())
        return connection

    for reading in readings(pieces, _ANSWER, parser):
        head, line = reading.head, _ANSWER.match(reading.seen)
        if isinstance(head, h11.Response):
            yield Answer(reading.span, head.status_code, reading.headers, reading.body)
        elif line is not None and not line[1].startswith(b"1"):
            yield Answer(reading.span, int(line[1]), _headers(reading.seen))


def _headers(beginning: bytes) -> dict[str, str]:
    """The headers that are whole, of a head that is not."""
    found = {}
    for line in beginning.split(b"\r\n")[1:-1]:
        name, colon, value = line.decode("latin-1").partition(":")
        if not colon:
            break
        found[name.strip().lower()] = value.strip()
    return found
