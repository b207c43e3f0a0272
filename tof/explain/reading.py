"""A frame as the programs in the kernel read it: bytes to a ``Reading``, with their name for what cannot be judged.

``tof.wire`` reads as the agent does, which is more lenient about the user's packet and about what follows it; this is
``parse`` in tof/drivers/bpf/tof.bpf.c, and tests/unit/test_explain_reading.py holds it against the fuzzer's oracle.
"""

from __future__ import annotations

from enum import Enum
from struct import Struct
from typing import Final, NamedTuple

from tof.errors import DecodeError
from tof.model import TunnelKey
from tof.wire import gtpu, inet

MOST_EXTENSIONS: Final = 8
MOST_HEADER: Final = 1536
SCTP: Final = 132
ANSWERS: Final = (gtpu.ERROR_INDICATION, gtpu.ECHO_RESPONSE)
SIGNALS: Final = (*ANSWERS, gtpu.END_MARKER)
_ODD: Final = {
    "gtpu_truncated": "bridged_length",
    "gtpu_length": "bridged_length",
    "gtpu_extension_truncated": "bridged_extension",
    "gtpu_extension_length": "bridged_extension",
}
_SYN, _ACK = 0x02, 0x10
_U16 = Struct("!H")
_IPV4, _IPV6, _UDP = Struct("!BBHHHBBH4s4s"), Struct("!IHBB16s16s"), Struct("!HHHH")
_GTP = Struct("!BBHI")


class Kind(Enum):
    """``ODD``: GTP-U that cannot be judged. ``FRAGMENT``: the first outer fragment of a G-PDU, ``PIECE`` any other."""

    OTHER = 0
    ODD = 1
    FRAGMENT = 2
    PIECE = 3
    GPDU = 4
    SIGNAL = 5
    MESSAGE = 6


class Part(Enum):
    """Of what may be a fragment."""

    WHOLE = 0
    FIRST = 1
    LATER = 2


class User(NamedTuple):
    """A user's packet. ``ports``: an echo's identifier twice; None where there are none to be seen."""

    source: bytes
    destination: bytes
    protocol: int
    size: int
    dscp: int = 0
    ports: tuple[int, int] | None = None
    opens: bool = False
    """The first segment of a TCP connection."""
    nested: bool = False
    """GTP-U itself."""
    part: Part = Part.WHOLE
    ident: bytes = b""
    headers: int = 0
    """What is read of it: its own header and the beginning of the next."""

    @property
    def port(self) -> int | None:
        """The destination port, of a protocol that has ports."""
        return None if self.ports is None or self.protocol in (inet.ICMP, inet.ICMPV6) else self.ports[1]


class Reading(NamedTuple):
    """What a frame is; ``reason`` is set where it takes the bridge for what it is."""

    kind: Kind = Kind.OTHER
    reason: str = ""
    key: TunnelKey | None = None
    message: int = 0
    qfi: int | None = None
    user: User | None = None
    part: Part = Part.WHOLE
    ident: int = 0


class _Carrier(NamedTuple):
    """An outer IP packet: where its payload begins and ends in the frame."""

    source: bytes
    destination: bytes
    vlan: int | None
    start: int
    end: int

    def key(self, teid: int) -> TunnelKey:
        return TunnelKey(self.source, self.destination, teid, self.vlan)


def read(frame: bytes) -> Reading:
    """Ethernet with at most one 802.1Q tag, IPv4 or IPv6, UDP to 2152, GTP-U version 1: anything else is other."""
    kind, at, vlan = frame[12:14], 14, None
    if kind == b"\x81\x00" and len(frame) >= 18:
        vlan = (_U16.unpack_from(frame, 14)[0] & 0xFFF) or None
        kind, at = frame[16:18], 18
    if kind == b"\x08\x00" and len(frame) >= at + 20:
        return _ipv4(frame, at, vlan)
    if kind == b"\x86\xdd" and len(frame) >= at + 40:
        return _ipv6(frame, at, vlan)
    return Reading()


def _ipv4(frame: bytes, at: int, vlan: int | None) -> Reading:
    first, _, total, ident, fragment, _, protocol, _, source, destination = _IPV4.unpack_from(frame, at)
    if first >> 4 != 4 or protocol != inet.UDP_PROTOCOL:
        return Reading()
    header = (first & 15) * 4
    carrier = _Carrier(source, destination, vlan, at + header, at + total)
    if not 20 <= header <= total <= len(frame) - at:
        return Reading(Kind.ODD, "bridged_length", carrier.key(0))
    if fragment & 0x3FFF:
        return _piece(frame, carrier, fragment & 0x1FFF, ident)
    return _udp(frame, carrier)


def _ipv6(frame: bytes, at: int, vlan: int | None) -> Reading:
    first, length, protocol, _, source, destination = _IPV6.unpack_from(frame, at)
    start, end = at + 40, at + 40 + length
    carrier = _Carrier(source, destination, vlan, start, end)
    if first >> 28 != 6 or protocol not in (inet.UDP_PROTOCOL, inet.IPV6_FRAGMENT):
        return Reading()
    if protocol == inet.UDP_PROTOCOL:
        fits = end <= len(frame)
        return _udp(frame, carrier) if fits else Reading(Kind.ODD, "bridged_length", carrier.key(0))
    if len(frame) < start + 8 or frame[start] != inet.UDP_PROTOCOL or length < 8 or end > len(frame):
        return Reading(Kind.ODD, "bridged_fragment", carrier.key(0))
    word, ident = _U16.unpack_from(frame, start + 2)[0], int.from_bytes(frame[start + 4 : start + 8], "big")
    return _piece(frame, carrier._replace(start=start + 8), word & 0xFFF8, ident)


def _piece(frame: bytes, carrier: _Carrier, offset: int, ident: int) -> Reading:
    """A fragment of UDP: the first one of a G-PDU has to hold all headers that are read."""
    part = Part.LATER if offset else Part.FIRST
    piece = Reading(Kind.PIECE, "bridged_fragment", carrier.key(0), part=part, ident=ident)
    room = carrier.end - carrier.start
    if offset or room < 16:
        return piece
    _, port, length, _ = _UDP.unpack_from(frame, carrier.start)
    flags, kind, _, teid = _GTP.unpack_from(frame, carrier.start + 8)
    if port != gtpu.PORT or length <= room or flags >> 4 != 3 or kind != gtpu.G_PDU:
        return piece
    whole = frame[carrier.start + 8 : carrier.end].ljust(length - 8, b"\0")
    found = _gpdu(whole, carrier.key(teid))
    if found.user is None or length - len(gtpu.decode(whole).payload) + found.user.headers > room:
        return piece
    return found._replace(kind=Kind.FRAGMENT, reason="bridged_fragment", part=part, ident=ident)


def _udp(frame: bytes, carrier: _Carrier) -> Reading:
    start, room = carrier.start, carrier.end - carrier.start
    odd = Reading(Kind.ODD, "bridged_length", carrier.key(0))
    if room < 8:
        return odd
    source_port, port, length, _ = _UDP.unpack_from(frame, start)
    if port != gtpu.PORT:
        return _answer(frame, carrier) if source_port == gtpu.PORT and length == room >= 16 else Reading()
    if length != room or length < 16:
        return odd
    flags, kind, size, teid = _GTP.unpack_from(frame, start + 8)
    if flags >> 4 != 3:
        return odd._replace(reason="bridged_version")
    if kind == gtpu.G_PDU:
        return _gpdu(frame[start + 8 : carrier.end], carrier.key(teid))
    if kind not in SIGNALS:
        return Reading(Kind.MESSAGE, "bridged_message", carrier.key(teid), kind)
    return Reading(Kind.SIGNAL, "", carrier.key(teid), kind) if length == size + 16 else odd


def _answer(frame: bytes, carrier: _Carrier) -> Reading:
    """To any port from 2152: only what cannot be anything but an answer (TS 29.281 section 4.4.2)."""
    flags, kind, size, teid = _GTP.unpack_from(frame, carrier.start + 8)
    if flags >> 4 == 3 and kind in ANSWERS and carrier.end - carrier.start == size + 16:
        return Reading(Kind.SIGNAL, "", carrier.key(teid), kind)
    return Reading()


def _gpdu(data: bytes, key: TunnelKey) -> Reading:
    odd = Reading(Kind.ODD, "bridged_inner", key, gtpu.G_PDU)
    try:
        message = gtpu.decode(data)
    except DecodeError as error:
        return odd._replace(reason=_ODD[error.reason])
    chain = message.extensions
    if chain and (len(chain) > MOST_EXTENSIONS or 12 + sum(len(e.content) + 2 for e in chain) > MOST_HEADER):
        return odd._replace(reason="bridged_extension")
    user = user_of(message.payload) if message.teid else None
    if user is None:
        return odd
    return Reading(Kind.GPDU, "", key, gtpu.G_PDU, message.qfi, user)


def user_of(payload: bytes) -> User | None:
    """The packet at the start of ``payload``, if it is one: what follows its length is none of it."""
    version = payload[0] >> 4 if payload else 0
    if version == 4 and len(payload) >= 20:
        return _user4(payload)
    if version == 6 and len(payload) >= 40:
        return _user6(payload)
    return None


def _user4(payload: bytes) -> User | None:
    first, tos, total, ident, fragment, _, protocol, _, source, destination = _IPV4.unpack_from(payload)
    header = (first & 15) * 4
    if not 20 <= header <= total <= len(payload):
        return None
    user = User(source, destination, protocol, total, tos >> 2, headers=20)
    if fragment & 0x1FFF:
        return user._replace(part=Part.LATER, ident=_U16.pack(ident))
    part = Part.FIRST if fragment & 0x2000 else Part.WHOLE
    return _with_l4(user._replace(part=part, ident=_U16.pack(ident)), payload[header:total])


def _user6(payload: bytes) -> User | None:
    first, length, protocol, _, source, destination = _IPV6.unpack_from(payload)
    size = 40 + length
    if size > len(payload):
        return None
    user = User(source, destination, protocol, size, first >> 22 & 0x3F, headers=min(48, size))
    if protocol != inet.IPV6_FRAGMENT:
        return _with_l4(user, payload[40:size])
    if length < 8:
        return user._replace(part=Part.LATER)
    user = user._replace(protocol=payload[40], ident=payload[44:48], part=Part.LATER)
    if _U16.unpack_from(payload, 42)[0] & 0xFFF8:
        return user
    return _with_l4(user._replace(part=Part.FIRST), payload[48:size])


def _with_l4(user: User, segment: bytes) -> User:
    ports = None
    if len(segment) >= 8:
        if user.protocol in (inet.TCP, inet.UDP_PROTOCOL, SCTP):
            ports = _U16.unpack_from(segment)[0], _U16.unpack_from(segment, 2)[0]
        elif user.protocol in (inet.ICMP, inet.ICMPV6):
            ports = (_U16.unpack_from(segment, 4)[0],) * 2
    opens = user.protocol == inet.TCP and len(segment) >= 14 and segment[13] & (_SYN | _ACK) == _SYN
    to = _U16.unpack_from(segment, 2)[0] if len(segment) >= 4 else 0
    nested = user.protocol == inet.UDP_PROTOCOL and to == gtpu.PORT
    headers = min(user.size - len(segment) + 14, user.size)
    return user._replace(ports=ports, opens=opens, nested=nested, headers=headers)
