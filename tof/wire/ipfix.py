"""IPFIX messages (RFC 7011): templates and data records, with the reverse elements of a biflow (RFC 5103).

Every message carries the templates of its records, so that each can be read alone: UDP may lose any other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from struct import Struct
from typing import Final, NamedTuple

VERSION: Final = 10
REVERSE: Final = 29305
"""The enterprise number under which an element counts what flows the other way (RFC 5103 section 6.1)."""
VARIABLE: Final = 0xFFFF
_TEMPLATE_SET: Final = 2
_FIRST_TEMPLATE: Final = 256
_ENTERPRISE: Final = 0x8000

_HEADER = Struct("!HHIII")
_TWO = Struct("!HH")
_SPECIFIER = Struct("!HH")

Value = int | bytes | str


class Element(NamedTuple):
    """An information element of the IANA registry; ``length`` VARIABLE: text."""

    number: int
    length: int
    enterprise: int = 0

    @property
    def reverse(self) -> Element:
        """The same of the other direction."""
        return self._replace(enterprise=REVERSE)


OCTET_DELTA_COUNT: Final = Element(1, 8)
PACKET_DELTA_COUNT: Final = Element(2, 8)
SOURCE_IPV4_ADDRESS: Final = Element(8, 4)
DESTINATION_IPV4_ADDRESS: Final = Element(12, 4)
DESTINATION_IPV4_PREFIX_LENGTH: Final = Element(13, 1)
SOURCE_IPV6_ADDRESS: Final = Element(27, 16)
DESTINATION_IPV6_ADDRESS: Final = Element(28, 16)
SOURCE_IPV6_PREFIX_LENGTH: Final = Element(29, 1)
DESTINATION_IPV6_PREFIX_LENGTH: Final = Element(30, 1)
APPLICATION_NAME: Final = Element(96, VARIABLE)
FLOW_END_REASON: Final = Element(136, 1)
FLOW_ID: Final = Element(148, 8)
FLOW_START_MILLISECONDS: Final = Element(152, 8)
FLOW_END_MILLISECONDS: Final = Element(153, 8)
DOT1Q_VLAN_ID: Final = Element(243, 2)


@dataclass(frozen=True, slots=True)
class Template:
    """The elements of a record, in order; ``number`` is 256 or more."""

    number: int
    elements: tuple[Element, ...]

    def __post_init__(self) -> None:
        if not _FIRST_TEMPLATE <= self.number <= 0xFFFF:
            raise ValueError(f"no number of a template: {self.number}")


class Record(NamedTuple):
    """The values of a template's elements, in its order."""

    template: Template
    values: tuple[Value, ...]


class Message(NamedTuple):
    """A datagram for a collector, and how many data records it holds."""

    octets: bytes
    records: int


def messages(
    records: Iterable[Record], time_s: int, sequence: int, domain: int, room: int = 1400
) -> Iterator[Message]:
    """``records`` in as few messages of at most ``room`` bytes as their order allows.

    ``time_s``: of the export, since 1970. ``sequence``: data records sent so far in this domain (RFC 7011 section 3.1).
    """
    group: list[tuple[Template, bytes]] = []
    used, templates = _HEADER.size + _TWO.size, set[Template]()
    for record in records:
        template, raw = record.template, encode_record(record)
        more = len(raw) + (0 if template in templates else _TWO.size + len(encode_template(template)))
        if group and used + more > room:
            yield Message(_message(group, time_s, sequence, domain), len(group))
            sequence = sequence + len(group) & 0xFFFFFFFF
            group, used, templates = [], _HEADER.size + _TWO.size, set()
            more = len(raw) + _TWO.size + len(encode_template(template))
        group.append((template, raw))
        templates.add(template)
        used += more
    if group:
        yield Message(_message(group, time_s, sequence, domain), len(group))


def encode_template(template: Template) -> bytes:
    """A template record (RFC 7011 section 3.4.1)."""
    out = _TWO.pack(template.number, len(template.elements))
    for one in template.elements:
        if one.enterprise:
            out += _SPECIFIER.pack(one.number | _ENTERPRISE, one.length) + one.enterprise.to_bytes(4, "big")
        else:
            out += _SPECIFIER.pack(one.number, one.length)
    return out


def encode_record(record: Record) -> bytes:
    """A data record (RFC 7011 section 3.4.3); ValueError if the values are not the template's."""
    pairs = zip(record.template.elements, record.values, strict=True)
    return b"".join(_value(element, value) for element, value in pairs)


def _value(element: Element, value: Value) -> bytes:
    if isinstance(value, int):
        try:
            return value.to_bytes(element.length, "big")
        except OverflowError:
            raise ValueError(f"{value} does not fit element {element.number}") from None
    raw = value.encode() if isinstance(value, str) else value
    if element.length == VARIABLE:  # RFC 7011 section 7
        short = len(raw) < 255
        return (bytes((len(raw),)) if short else b"\xff" + len(raw).to_bytes(2, "big")) + raw
    if len(raw) != element.length:
        raise ValueError(f"{len(raw)} bytes for element {element.number}")
    return raw


def _message(encoded: Sequence[tuple[Template, bytes]], time_s: int, sequence: int, domain: int) -> bytes:
    templates = tuple(dict.fromkeys(template for template, _ in encoded))
    sets = _set(_TEMPLATE_SET, b"".join(map(encode_template, templates)))
    for template in templates:
        sets += _set(template.number, b"".join(raw for its, raw in encoded if its is template))
    return _HEADER.pack(VERSION, _HEADER.size + len(sets), time_s & 0xFFFFFFFF, sequence, domain) + sets


def _set(number: int, content: bytes) -> bytes:
    return _TWO.pack(number, _TWO.size + len(content)) + content
