"""Reading requests: bounded in size and time, strict about JSON, checked against the document."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping, Sequence
from ipaddress import ip_network
from typing import Any

from aiohttp import web

from tof.agent.addresses import parse_address
from tof.api.document import FieldError, Operation
from tof.api.problems import BrokenBody, InvalidFields
from tof.errors import BadRequest

MAX_BODY = 64 * 1024
MAX_BODIES = {"replacePolicy": 8 * 1024 * 1024}
"""Of operations whose bodies may be larger."""
READ_TIMEOUT_S = 10.0


async def read_body(request: web.Request, operation: Operation, timeout_s: float) -> Mapping[str, object]:
    """The request's JSON object, as the document wants it; BadRequest otherwise."""
    if request.content_type != "application/json":
        raise BrokenBody("the body must be application/json", "Content-Type")
    if request.headers.get("Content-Encoding", "identity") != "identity":
        raise BrokenBody("the body must not be compressed", "Content-Encoding")
    most = MAX_BODIES.get(operation.operation_id, MAX_BODY)
    body = decode(await _read(request, timeout_s, most))
    try:
        errors = operation.check_body(body)
    except ValueError as error:
        # jsonschema-rs speaks UTF-8 only: a lone surrogate (\ud800) does not get through to it.
        raise BadRequest("the body holds text that is not Unicode") from error
    if errors:
        raise InvalidFields(errors)
    assert isinstance(body, dict), operation.operation_id
    return body


async def _read(request: web.Request, timeout_s: float, most: int) -> bytes:
    if (request.content_length or 0) > most:
        raise BrokenBody(f"the body is larger than {most} bytes")
    chunks = bytearray()
    try:
        async with asyncio.timeout(timeout_s):
            async for chunk in request.content.iter_any():
                chunks += chunk
                if len(chunks) > most:
                    raise BrokenBody(f"the body is larger than {most} bytes")
    except TimeoutError as error:
        raise BrokenBody(f"the body did not arrive within {timeout_s:g} s") from error
    except (web.RequestPayloadError, OSError) as error:
        raise BrokenBody("the body is broken off or garbled") from error
    return bytes(chunks)


def decode(raw: bytes) -> object:
    """The JSON value in ``raw``: UTF-8, no duplicate keys, no NaN; BadRequest otherwise."""
    try:
        return json.loads(raw.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"the body is not JSON: {error}") from error


def read_query(request: web.Request, operation: Operation) -> dict[str, Any]:
    """The query's parameters with the document's types; BadRequest names the one at fault."""
    values: dict[str, object] = {}
    twice = [name for name in set(request.query) if len(request.query.getall(name)) > 1]
    if twice and operation.query:
        raise InvalidFields([FieldError(name, "given more than once") for name in sorted(twice)])
    for name, text in request.query.items():
        schema = operation.query.get(name, {}).get("schema", {})
        values[name] = _typed(text, schema)
    if errors := operation.check_query(values):
        raise InvalidFields(errors)
    return values


def packed_address(text: str | None, field: str) -> bytes | None:
    """The bytes of an address given as a parameter."""
    if text is None:
        return None
    try:
        return parse_address(text).packed
    except ValueError:
        raise BadRequest(f"{field} is not an IP address", field) from None


def packed_ue(text: str | None) -> bytes | None:
    """The bytes of a UE's address, or the first eight of an IPv6 /64 prefix."""
    if text is None or "/" not in text:
        return packed_address(text, "ue")
    try:
        prefix = ip_network(text)
    except ValueError:
        raise BadRequest("ue is neither an IP address nor a prefix", "ue") from None
    if prefix.version != 6 or prefix.prefixlen != 64:
        raise BadRequest("ue must be an address or an IPv6 /64 prefix", "ue")
    return prefix.network_address.packed[:8]


def _typed(text: str, schema: Mapping[str, Any]) -> object:
    if schema.get("type") == "integer" and re.fullmatch("[0-9]{1,20}", text):
        return int(text)
    return text


def _unique(pairs: Sequence[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for key, value in pairs:
        if key in found:
            raise InvalidFields([FieldError(key, "given more than once")])
        found[key] = value
    return found


def _no_constant(text: str) -> object:
    raise ValueError(f"{text} is not JSON")
