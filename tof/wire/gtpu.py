"""GTP-U (3GPP TS 29.281) and the PDU Session Container (TS 38.415): bytes to values and back."""

from __future__ import annotations

from struct import Struct
from typing import NamedTuple

from tof.errors import DecodeError
from tof.wire.inet import IPV6_FRAGMENT, UDP_PROTOCOL, walk_ipv6

PORT = 2152

ECHO_REQUEST = 1
ECHO_RESPONSE = 2
ERROR_INDICATION = 26
SUPPORTED_EXTENSION_HEADERS = 31
END_MARKER = 254
G_PDU = 255

MBMS_SUPPORT = 0x01
MS_INFO_CHANGE = 0x02
LONG_PDCP_PDU_NUMBER = 0x03
SERVICE_CLASS_INDICATOR = 0x20
EXTENSION_UDP_PORT = 0x40
RAN_CONTAINER = 0x81
XW_RAN_CONTAINER = 0x83
NR_RAN_CONTAINER = 0x84
PDU_SESSION_CONTAINER = 0x85
PDCP_PDU_NUMBER = 0xC0

VERSION_1 = 0x30
FLAG_PN = 0x01
FLAG_S = 0x02
FLAG_E = 0x04
_FLAGS_OPTIONAL = FLAG_PN | FLAG_S | FLAG_E

IE_RECOVERY = 14
IE_TEID = 16
IE_PEER_ADDRESS = 133
_IE_SIZES = {IE_RECOVERY: 1, IE_TEID: 4}

_HEADER = Struct("!BBHI")
_OPTIONAL = Struct("!HBB")
_IPV4 = Struct("!BBHxxHxBxx4s4s")
_IPV6 = Struct("!IHBx16s16s")
_UDP = Struct("!HHH")


class Extension(NamedTuple):
    """An extension header: its type and its content, without length and next type."""

    type: int
    content: bytes


class Message(NamedTuple):
    """A GTP-U message; ``sequence`` and ``npdu`` are None unless their flag is set."""

    flags: int
    type: int
    teid: int
    sequence: int | None = None
    npdu: int | None = None
    extensions: tuple[Extension, ...] = ()
    payload: bytes = b""

    @property
    def qfi(self) -> int | None:
        """QoS flow of the first PDU Session Container, if there is one."""
        content = self._container
        return None if content is None else content[1] & 0x3F

    @property
    def pdu_type(self) -> int | None:
        """0 downlink, 1 uplink, of the first PDU Session Container, if there is one."""
        content = self._container
        return None if content is None else content[0] >> 4

    @property
    def _container(self) -> bytes | None:
        for kind, content in self.extensions:
            if kind == PDU_SESSION_CONTAINER and len(content) > 1:
                return content
        return None


class Datagram(NamedTuple):
    """A GTP-U message with what carried it; addresses are packed bytes."""

    source: bytes
    destination: bytes
    tos: int
    source_port: int
    message: Message


class Inner(NamedTuple):
    """The user's IP packet; a later fragment, which has no upper-layer header, has protocol 44."""

    source: bytes
    destination: bytes
    protocol: int
    payload_offset: int


class _Carrier(NamedTuple):
    source: bytes
    destination: bytes
    tos: int
    protocol: int
    start: int
    end: int
    later_fragment: bool
    more_fragments: bool


def decode(data: bytes) -> Message:
    """Parse a UDP payload that must be exactly one GTP-U message."""
    return _message(data, 0, len(data), False)


def decode_gpdu(packet: bytes, *, partial_ok: bool = False) -> Datagram:
    """Parse an outer IP packet carrying UDP to port 2152, strictly, as the agent's queue delivers it.

    Error Indications and Echo Responses go to the port that what they answer came from: to them any port is open, if
    they come from port 2152 (TS 29.281 section 4.4.2).
    ``partial_ok`` admits a first fragment or a copy of the beginning: lengths may exceed what is there.
    """
    carrier = _carrier(packet, partial_ok)
    source, destination, tos, protocol, start, end, later, cut = carrier
    if later or (cut and not partial_ok):
        raise DecodeError("ip_fragment")
    if protocol != UDP_PROTOCOL:
        raise DecodeError("ip_protocol")
    if end - start < 8:
        raise DecodeError("udp_truncated")
    source_port, destination_port, length = _UDP.unpack_from(packet, start)
    if destination_port != PORT and (source_port != PORT or cut or not _is_answer(packet, start + 8)):
        raise DecodeError("udp_port")
    if length != end - start and not (cut and length > end - start):
        raise DecodeError("udp_length")
    return Datagram(source, destination, tos, source_port, _message(packet, start + 8, end, cut))


def _is_answer(packet: bytes, start: int) -> bool:
    head = packet[start : start + 2]
    return len(head) == 2 and head[0] >> 4 == 3 and head[1] in (ERROR_INDICATION, ECHO_RESPONSE)


def _carrier(packet: bytes, partial_ok: bool) -> _Carrier:
    if len(packet) < 20:
        raise DecodeError("ip_truncated")
    version = packet[0] >> 4
    if version == 6:
        return _ipv6_carrier(packet, partial_ok)
    if version != 4:
        raise DecodeError("ip_version")
    first, tos, total, fragment, protocol, source, destination = _IPV4.unpack_from(packet)
    start = (first & 15) * 4
    short = total > len(packet)
    if not 20 <= start <= min(total, len(packet)) or (short and not partial_ok):
        raise DecodeError("ip_length")
    later, more = fragment & 0x1FFF != 0, fragment & 0x2000 != 0
    return _Carrier(source, destination, tos, protocol, start, min(total, len(packet)), later, more or short)


def _ipv6_carrier(packet: bytes, partial_ok: bool) -> _Carrier:
    if len(packet) < 40:
        raise DecodeError("ip_truncated")
    first, length, protocol, source, destination = _IPV6.unpack_from(packet)
    short = 40 + length > len(packet)
    if short and not partial_ok:
        raise DecodeError("ip_length")
    end = min(40 + length, len(packet))
    protocol, start, fragment = walk_ipv6(packet, protocol, 40, end)
    later, more = fragment & 0xFFF8 != 0, fragment & 1 != 0 or short
    return _Carrier(source, destination, first >> 20 & 0xFF, protocol, start, end, later, more)


def _message(data: bytes, start: int, end: int, cut: bool) -> Message:
    body = start + 8
    if end < body:
        raise DecodeError("gtpu_truncated")
    flags, kind, length, teid = _HEADER.unpack_from(data, start)
    if flags >> 5 != 1:
        raise DecodeError("gtpu_version")
    if not flags & 0x10:
        raise DecodeError("gtpu_gtp_prime")
    if length != end - body and not (cut and length > end - body):
        raise DecodeError("gtpu_length")
    if not flags & _FLAGS_OPTIONAL:
        return Message(flags, kind, teid, None, None, (), data[body:end])
    # TS 29.281 5.1: all four octets are there when any of E, S, PN is set.
    if end < body + 4:
        raise DecodeError("gtpu_truncated")
    sequence, npdu, next_type = _OPTIONAL.unpack_from(data, body)
    body += 4
    extensions: tuple[Extension, ...] = ()
    if flags & FLAG_E:
        extensions, body = _extensions(data, next_type, body, end)
    return Message(
        flags,
        kind,
        teid,
        sequence if flags & FLAG_S else None,
        npdu if flags & FLAG_PN else None,
        extensions,
        data[body:end],
    )


def _extensions(data: bytes, kind: int, offset: int, end: int) -> tuple[tuple[Extension, ...], int]:
    found: list[Extension] = []
    while kind:
        if offset >= end:
            raise DecodeError("gtpu_extension_truncated")
        size = data[offset] * 4
        if size == 0:
            raise DecodeError("gtpu_extension_length")
        following = offset + size
        if following > end:
            raise DecodeError("gtpu_extension_truncated")
        found.append(Extension(kind, data[offset + 1 : following - 1]))
        kind = data[following - 1]
        offset = following
    return tuple(found), offset


def encode(message: Message) -> bytes:
    """The message's bytes; flags follow from the fields, extension contents are padded to 4n-2 bytes."""
    flags = message.flags
    flags |= FLAG_E if message.extensions else 0
    flags |= FLAG_S if message.sequence is not None else 0
    flags |= FLAG_PN if message.npdu is not None else 0
    body = message.payload
    if flags & _FLAGS_OPTIONAL:
        next_type, chain = 0, b""
        for kind, content in reversed(message.extensions):
            padded = content + bytes(-(len(content) + 2) % 4) if content else b"\0\0"
            chain = bytes(((len(padded) + 2) // 4,)) + padded + bytes((next_type,)) + chain
            next_type = kind
        body = _OPTIONAL.pack(message.sequence or 0, message.npdu or 0, next_type) + chain + body
    return _HEADER.pack(flags, message.type, len(body), message.teid) + body


def inner(payload: bytes, *, cut: bool = False) -> Inner:
    """The user's packet in a G-PDU; bytes after it are ignored; ``cut`` admits one that is not all there."""
    version = payload[0] >> 4 if payload else 0
    if version == 4:
        return _inner_ipv4(payload, cut)
    if version == 6:
        return _inner_ipv6(payload, cut)
    raise DecodeError("inner_not_ip")


def _inner_ipv4(payload: bytes, cut: bool) -> Inner:
    if len(payload) < 20:
        raise DecodeError("inner_truncated")
    first, _, total, fragment, protocol, source, destination = _IPV4.unpack_from(payload)
    start = (first & 15) * 4
    if not 20 <= start <= total or (total > len(payload) and not cut):
        raise DecodeError("inner_length")
    return Inner(source, destination, IPV6_FRAGMENT if fragment & 0x1FFF else protocol, start)


def _inner_ipv6(payload: bytes, cut: bool) -> Inner:
    if len(payload) < 40:
        raise DecodeError("inner_truncated")
    _, length, protocol, source, destination = _IPV6.unpack_from(payload)
    end = 40 + length
    if end > len(payload):
        if not cut:
            raise DecodeError("inner_length")
        end = len(payload)
    try:
        protocol, start, fragment = walk_ipv6(payload, protocol, 40, end)
    except DecodeError:
        raise DecodeError("inner_truncated") from None
    return Inner(source, destination, IPV6_FRAGMENT if fragment & 0xFFF8 else protocol, start)


def error_indication(message: Message) -> tuple[int, bytes | None]:
    """The TEID an Error Indication is about (IE 16, else the header's) and its owner's address (IE 133)."""
    elements = _elements(message.payload)
    teid = elements.get(IE_TEID)
    peer = elements.get(IE_PEER_ADDRESS)
    if peer is not None and len(peer) not in (4, 16):
        raise DecodeError("gtpu_ie_length")
    return (message.teid if teid is None else int.from_bytes(teid, "big")), peer


def recovery(message: Message) -> int | None:
    """The restart counter (IE 14) of an Echo Response; None when absent."""
    value = _elements(message.payload).get(IE_RECOVERY)
    return None if value is None else value[0]


def _elements(data: bytes) -> dict[int, bytes]:
    """First value of each information element; an unknown type of unknown size ends the walk."""
    found: dict[int, bytes] = {}
    offset = 0
    while offset < len(data):
        kind = data[offset]
        start = offset + (3 if kind & 0x80 else 1)
        if kind & 0x80:
            size = int.from_bytes(data[offset + 1 : start], "big")
        elif kind in _IE_SIZES:
            size = _IE_SIZES[kind]
        else:
            break
        offset = start + size
        if offset > len(data):
            raise DecodeError("gtpu_ie_truncated")
        found.setdefault(kind, data[start:offset])
    return found
