"""DNS answers (RFC 1035), as much of them as says which addresses a name has: strict, and bounded in what they may cost."""

from __future__ import annotations

from struct import Struct
from typing import Final, NamedTuple

from tof.errors import DecodeError

PORT: Final = 53
A, CNAME, AAAA = 1, 5, 28
MOST_RECORDS: Final = 128
MOST_JUMPS: Final = 16
LONGEST_NAME: Final = 253

_HEADER = Struct("!HHHHHH")
_QUESTION_END = Struct("!HH")
_RECORD = Struct("!HHIH")
_IN: Final = 1
_RESPONSE, _OPCODE, _TRUNCATED, _RCODE = 0x8000, 0x7800, 0x0200, 0x000F
_SIZES: Final = {A: 4, AAAA: 16}


class Address(NamedTuple):
    """One address (packed) of the name, and for how many seconds that may be relied on."""

    address: bytes
    ttl: int


class Answer(NamedTuple):
    """``names``: the one asked for and those it stands for, in that order; ``addresses``: of the last of them."""

    ident: int
    names: tuple[str, ...]
    addresses: tuple[Address, ...]


class _Record(NamedTuple):
    owner: str
    kind: int
    ttl: int
    start: int
    size: int


def decode_answer(message: bytes) -> Answer:
    """What a response says; DecodeError when it is none, was truncated (RFC 1035 section 4.1.1), or is not well-formed.

    A response that is an error has no addresses. Names are in lower case, without the dot at their end.
    """
    if len(message) < _HEADER.size:
        raise DecodeError("dns_short")
    ident, flags, questions, answers, *others = _HEADER.unpack_from(message)
    if not flags & _RESPONSE or flags & _OPCODE or questions != 1:
        raise DecodeError("dns_no_answer")
    if flags & _TRUNCATED:
        raise DecodeError("dns_truncated")
    if answers + sum(others) > MOST_RECORDS:
        raise DecodeError("dns_too_many")
    asked, at = _name(message, _HEADER.size)
    if len(message) < at + _QUESTION_END.size:
        raise DecodeError("dns_short")
    if _QUESTION_END.unpack_from(message, at)[1] != _IN:
        raise DecodeError("dns_no_answer")
    at += _QUESTION_END.size
    records = []
    for _ in range(answers):
        record, at = _record(message, at)
        records += [record] if record is not None else []
    for _ in range(sum(others)):
        at = _skip_record(message, at)
    if at != len(message):
        raise DecodeError("dns_length")
    return Answer(ident, *_follow(message, asked, records if not flags & _RCODE else []))


def _follow(
    message: bytes, asked: str, records: list[_Record]
) -> tuple[tuple[str, ...], tuple[Address, ...]]:
    """Down the chain of aliases (RFC 1034 section 3.6.2): its names, and the addresses at its end."""
    aliases = {record.owner: record for record in reversed(records) if record.kind == CNAME}
    names, ttl = [asked], 0x7FFFFFFF
    while (alias := aliases.pop(names[-1], None)) is not None:
        target, end = _name(message, alias.start)
        if end != alias.start + alias.size:
            raise DecodeError("dns_length")
        names.append(target)
        ttl = min(ttl, alias.ttl)
    found: dict[bytes, int] = {}
    for record in records:
        if record.owner == names[-1] and record.kind in _SIZES:
            address = message[record.start : record.start + record.size]
            found[address] = min(ttl, record.ttl, found.get(address, ttl))
    return tuple(names), tuple(Address(address, ttl) for address, ttl in found.items())


def _record(message: bytes, at: int) -> tuple[_Record | None, int]:
    """The record at ``at``, if its class is that of the Internet, and where the next one begins."""
    owner, at = _name(message, at)
    kind, group, ttl, size, at = _record_head(message, at)
    if kind in _SIZES and group == _IN and size != _SIZES[kind]:
        raise DecodeError("dns_length")
    if ttl >> 31:  # RFC 2181 section 8
        ttl = 0
    return _Record(owner, kind, ttl, at, size) if group == _IN else None, at + size


def _skip_record(message: bytes, at: int) -> int:
    while True:
        if at >= len(message):
            raise DecodeError("dns_short")
        size = message[at]
        at += 2 if size >= 0xC0 else 1 + size
        if not size or size >= 0xC0:
            break
        if size > 63:
            raise DecodeError("dns_name")
    *_, size, at = _record_head(message, at)
    return at + size


def _record_head(message: bytes, at: int) -> tuple[int, int, int, int, int]:
    if len(message) < at + _RECORD.size:
        raise DecodeError("dns_short")
    kind, group, ttl, size = _RECORD.unpack_from(message, at)
    at += _RECORD.size
    if len(message) < at + size:
        raise DecodeError("dns_short")
    return kind, group, ttl, size, at


def _name(message: bytes, at: int) -> tuple[str, int]:
    """The name at ``at``, and where what follows it begins.

    A pointer leads to before the name it is in (RFC 1035 section 4.1.4: "a prior occurrence"), so there are no loops.
    """
    labels: list[str] = []
    end, start, jumps, length = 0, at, 0, 0
    while True:
        if at >= len(message):
            raise DecodeError("dns_short")
        size = message[at]
        if size >= 0xC0:
            if at + 2 > len(message):
                raise DecodeError("dns_short")
            target = int.from_bytes(message[at : at + 2], "big") & 0x3FFF
            jumps += 1
            if target >= start or jumps > MOST_JUMPS:
                raise DecodeError("dns_name")
            end = end or at + 2
            at = start = target
            continue
        at += 1
        if not size:
            return ".".join(labels), end or at
        label = message[at : at + size]
        length += size + 1
        if size > 63 or length > LONGEST_NAME + 1 or b"." in label:
            raise DecodeError("dns_name")
        if len(label) < size:
            raise DecodeError("dns_short")
        labels.append(label.lower().decode("latin-1"))
        at += size
