"""Bytes of a capture → the analysis: the VIM is the one that is named, or the one whose instantiations are in it."""

from __future__ import annotations

import zlib
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from typing import Final

from tof.errors import DecodeError, TofError
from tof.vim.analyzer import nomad, nova, openvim, reading, transcript
from tof.vim.analyzer.phases import Analysis
from tof.vim.analyzer.reading import Messages

ANALYSERS: Final[dict[str, Callable[[Messages], Analysis]]] = {
    nova.VIM: nova.analyse,
    nomad.VIM: nomad.analyse,
    openvim.VIM: openvim.analyse,
}

LARGEST: Final = 2 << 30
"""No packed capture is unpacked beyond this."""
_GZIP: Final = b"\x1f\x8b"


class NothingFoundError(TofError):
    """The capture holds no instantiation, or those of several VIMs; the message says what there is instead."""


def read(data: bytes) -> Messages:
    """The messages of a capture file or a transcript, packed or not; DecodeError if it is neither."""
    data = _unpacked(data) if data.startswith(_GZIP) else data
    return transcript.read(data) if transcript.is_transcript(data) else reading.read(data)


def analyse(messages: Messages, vim: str | None = None) -> Analysis:
    """The instantiations of ``vim``, or of whichever VIM the messages are of."""
    chosen = ANALYSERS if vim is None else {vim: ANALYSERS[vim]}
    found = [one for one in (each(messages) for each in chosen.values()) if one.instantiations]
    if not found:
        raise NothingFoundError(_nothing(messages, " or ".join(chosen)))
    if len(found) > 1:
        names = " and ".join(one.vim for one in found)
        raise NothingFoundError(f"the capture holds instantiations of {names}: choose one with --vim")
    _doubt(found[0], messages.holes_ns)
    return found[0]


def _doubt(analysis: Analysis, holes_ns: list[int]) -> None:
    """What ran while bytes were lost may have lost a first message, and has a later one like it instead."""
    for one in analysis.instantiations:
        end = max(one.reached.values(), default=one.since_ns)
        if bisect_right(holes_ns, end) > bisect_left(holes_ns, one.since_ns):
            one.remarks.append("bytes were lost while it ran: what is missing, or seen late, may be in them")


def _unpacked(data: bytes) -> bytes:
    unpacker = zlib.decompressobj(wbits=31)
    try:
        unpacked = unpacker.decompress(data, LARGEST)
    except zlib.error as error:
        raise DecodeError("is a broken gzip file") from error
    if not unpacker.eof:
        raise DecodeError("is not a whole gzip file, or unpacks to more than 2 GiB")
    return unpacked


def _nothing(messages: Messages, wanted: str) -> str:
    http, amqp, rpc = len(messages.exchanges), len(messages.casts), len(messages.calls)
    seen = f"in it are {http} HTTP requests, {amqp} AMQP and {rpc} RPC messages"
    return "; ".join((f"no instantiation of {wanted} is in the capture", seen, *messages.notes))
