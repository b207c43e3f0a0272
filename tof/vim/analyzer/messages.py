"""The messages that VIMs exchange, as values; each has the time of its first and of its last byte."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

BODY_LIMIT: Final = 8 << 20
"""Of a body that is longer, an image say, only this much is kept."""


@dataclass(frozen=True, slots=True)
class Span:
    """When a message was seen: first and last byte, the number of its first packet, and whether all of it was."""

    began_ns: int
    ended_ns: int
    number: int
    whole: bool = True


@dataclass(frozen=True, slots=True)
class Request:
    """An HTTP request."""

    span: Span
    method: str
    target: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def path(self) -> str:
        """Its target without host and query."""
        try:
            return urlsplit(self.target).path
        except ValueError:
            return self.target.partition("?")[0]

    @property
    def document(self) -> Any:
        """Its body as JSON, None if that is not to be had."""
        return json_body(self.headers, self.body)


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer."""

    span: Span
    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def document(self) -> Any:
        """Its body as JSON, None if that is not to be had."""
        return json_body(self.headers, self.body)


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request and its answer, if the capture has that; ``server`` is where it went."""

    server: str
    request: Request
    answer: Answer | None = None


@dataclass(frozen=True, slots=True)
class Cast:
    """An AMQP message on its way into the broker, or out of it; ``body`` as far as it was seen."""

    span: Span
    delivered: bool
    exchange: str
    routing_key: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Call:
    """A request or an answer of Go's net/rpc; ``error`` is an answer's, ``body`` what msgpack decodes to."""

    span: Span
    answers: bool
    method: str
    sequence: int
    error: str
    body: Any


def json_body(headers: Mapping[str, str], body: bytes) -> Any:
    """A body as JSON, unpacked if need be; None if it is none or not all there."""
    try:
        return json.loads(_unpacked(headers.get("content-encoding", ""), body))
    except (ValueError, RecursionError, zlib.error):
        return None


def _unpacked(coding: str, body: bytes) -> bytes:
    """The body without its coding; one that unpacks to more than the limit is cut, so that no bomb fills the memory."""
    coding = coding.strip().lower()
    if coding in ("gzip", "x-gzip"):
        return zlib.decompressobj(wbits=31).decompress(body, BODY_LIMIT)
    if coding == "deflate":
        # Some servers send the bare deflate stream instead of the zlib format that the name stands for.
        bare = len(body) < 2 or int.from_bytes(body[:2], "big") % 31
        return zlib.decompressobj(wbits=-15 if bare else 15).decompress(body, BODY_LIMIT)
    return body


def at(document: Any, *keys: str | int) -> Any:
    """What stands at a path of keys and places in a document; None where it does not go on."""
    for key in keys:
        if isinstance(document, Mapping):
            document = document.get(key)
        elif isinstance(document, list) and isinstance(key, int) and key < len(document):
            document = document[key]
        else:
            return None
    return document


def text(value: Any) -> str:
    """A string as it is, anything else as none."""
    return value if isinstance(value, str) else ""


def items(value: Any) -> list[Any]:
    """A list as it is, anything else as an empty one."""
    return value if isinstance(value, list) else []
