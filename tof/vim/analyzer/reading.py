"""A capture's bytes → the messages in it, whatever their ports, and what could not be read, by name."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from tof.errors import DecodeError
from tof.vim.analyzer import amqp, http, libvirt, rpc
from tof.vim.analyzer.messages import Call, Cast, Exchange
from tof.vim.analyzer.segments import Segment, segment
from tof.vim.analyzer.streams import Connection, Piece, connections
from tof.wire.capture import Frame, frames

_TLS: Final = re.compile(rb"\x04?[\x14-\x17]\x03[\x00-\x04]")
_HTTP2: Final = b"PRI * HTTP/2.0\r\n"


@dataclass(slots=True)
class Messages:
    """All messages of a capture in the order of their ends; ``notes``: what is to be said about the capture.

    ``holes_ns``: when bytes were found to be missing. ``timed`` is False for a transcript, which says how long each answer
    took and nothing of the time between.
    """

    exchanges: list[Exchange] = field(default_factory=list)
    casts: list[Cast] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    domains: list[libvirt.Domain] = field(default_factory=list)
    packets: int = 0
    connections: int = 0
    notes: list[str] = field(default_factory=list)
    holes_ns: list[int] = field(default_factory=list)
    timed: bool = True


def read(data: bytes) -> Messages:
    """The messages of a capture file; DecodeError if not even its first packet can be read."""
    messages = Messages()
    captured = _frames(data, messages)
    found = connections(_segments(captured, messages))
    messages.packets, messages.connections = len(captured), len(found)
    unread: Counter[str] = Counter()
    for connection in found:
        kind = _listen(connection, messages)
        if kind:
            unread[f"{kind} ({_server(connection)})"] += 1
    messages.notes += [*_losses(found), *(_unread(kind, count) for kind, count in sorted(unread.items()))]
    messages.holes_ns = sorted(_holes(found))
    messages.exchanges.sort(key=lambda one: one.request.span.ended_ns)
    messages.casts.sort(key=lambda one: one.span.ended_ns)
    messages.calls.sort(key=lambda one: one.span.ended_ns)
    messages.domains.sort(key=lambda one: one.span.ended_ns)
    return messages


def _frames(data: bytes, messages: Messages) -> list[Frame]:
    captured: list[Frame] = []
    try:
        for frame in frames(data):
            captured.append(frame)  # noqa: PERF402  (what came before a fault is wanted)
    except DecodeError as error:
        if not captured:
            raise
        messages.notes.append(f"the file {error}; the {len(captured)} packets before that were read")
    cut = [frame for frame in captured if frame.cut]
    if cut:
        messages.notes.append(
            f"{len(cut)} packets are cut by the capture's snap length, the first is packet {cut[0].number}: "
            "messages in them are read as far as they go"
        )
    return captured


def _segments(captured: list[Frame], messages: Messages) -> list[Segment]:
    found: list[Segment] = []
    faults: dict[str, list[int]] = {}
    for frame in captured:
        try:
            one = segment(frame)
        except DecodeError as error:
            faults.setdefault(error.reason, []).append(frame.number)
            continue
        if one is not None:
            found.append(one)
    for reason, numbers in sorted(faults.items()):
        messages.notes.append(
            f"{len(numbers)} packets do not parse ({reason}), the first is packet {numbers[0]}"
        )
    return found


def _listen(connection: Connection, messages: Messages) -> str | None:
    """Read a connection's messages; what it is if they cannot be read."""
    directions = [connection.pieces(end) for end in connection.ends]
    if any(map(rpc.speaks_rpc, directions)):
        messages.calls += [call for pieces in directions for call in rpc.calls(pieces)]
    elif any(map(http.speaks_http, directions)):
        messages.exchanges += http.exchanges(connection)
    elif any(map(libvirt.speaks_libvirt, directions)):
        messages.domains += libvirt.domains(*directions)
    elif any(map(amqp.speaks_amqp, directions)):
        messages.casts += [cast for pieces in directions for cast in amqp.casts(pieces)]
    else:
        return _closed([piece for pieces in directions for piece in pieces])
    return None


def _losses(found: list[Connection]) -> Iterator[str]:
    """What is missing of connections, and what was left out."""
    lost = {str(one): sum(piece.hole for end in one.ends for piece in one.pieces(end)) for one in found}
    yield from _told(lost, "bytes of {} are not in the capture")
    refused = {str(one): one.refused for one in found}
    yield from _told(refused, "packets of {} are out of all sequence: left out")


def _holes(found: list[Connection]) -> Iterator[int]:
    return (piece.time_ns for one in found for end in one.ends for piece in one.pieces(end) if piece.hole)


def _told(counts: dict[str, int], sentence: str) -> Iterator[str]:
    which = {name: count for name, count in counts.items() if count}
    if which:
        most = max(which, key=lambda name: which[name])
        others = f"{len(which)} connections, most of {most}," if len(which) > 1 else most
        yield f"{sum(which.values())} {sentence.format(others)}"


def _closed(pieces: list[Piece]) -> str | None:
    if any(_TLS.match(piece.data) for piece in pieces):
        return "encrypted (TLS)"
    if any(piece.data.startswith(_HTTP2) for piece in pieces):
        return "HTTP/2"
    return None


def _server(connection: Connection) -> str:
    """Where it went: to the end that did not open it, else to the lower port."""
    if connection.opener is not None:
        return str(next(end for end in connection.ends if end != connection.opener))
    return str(min(connection.ends, key=lambda end: end.port))


def _unread(kind: str, count: int) -> str:
    if count == 1:
        return f"a connection is {kind}: nothing in it can be read"
    return f"{count} connections are {kind}: nothing in them can be read"
