"""GTP-U as tests write and read it: frames of a bearer, inner packets of either family."""

from __future__ import annotations

import itertools
import struct
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import Any, NamedTuple

from tof.wire.gtpu import G_PDU, PDU_SESSION_CONTAINER, Extension, Message, decode_gpdu, encode
from tof.wire.icmp import Echo, decode_echo, echo_packet
from tof.wire.inet import (
    ETHERTYPE_IPV4,
    ETHERTYPE_IPV6,
    ICMP,
    ICMPV6,
    TCP,
    UDP,
    UDP_PROTOCOL,
    Ethernet,
    IPv4,
    IPv6,
    checksum,
    decode_ethernet,
    decode_ipv4,
    decode_ipv6,
    encode_ethernet,
    encode_ipv4,
    encode_ipv6,
    encode_udp,
    fill_checksum,
    pseudo_header,
)

RAN_MAC = bytes.fromhex("020000000101")
CORE_MAC = bytes.fromhex("020000000202")
APP_MAC = bytes.fromhex("020000000303")
ENB, SGW = "10.1.0.11", "10.1.0.1"
TARGET, TARGET6 = "8.8.8.8", "2001:4860:4860::8888"
ELSEWHERE, ELSEWHERE6 = "198.51.100.7", "2001:db8:ffff::7"
SYN, ACK = 0x02, 0x10


def packed(address: str) -> bytes:
    return ip_address(address).packed


def ip(source: str, destination: str, protocol: int, segment: bytes, ttl: int = 64, tos: int = 0) -> bytes:
    """An IP packet of the addresses' family around a segment whose checksum is made right."""
    a, b = packed(source), packed(destination)
    segment = fill_checksum(a, b, protocol, segment)
    if len(a) == 4:
        return encode_ipv4(IPv4(a, b, protocol, segment, ttl, tos))
    return encode_ipv6(IPv6(a, b, protocol, segment, ttl, tos))


def udp(
    source: str, destination: str, sport: int, dport: int, data: bytes = b"", ttl: int = 64, tos: int = 0
) -> bytes:
    return ip(source, destination, UDP_PROTOCOL, encode_udp(UDP(sport, dport, data)), ttl, tos)


def tcp(
    source: str, destination: str, sport: int, dport: int, flags: int, *, seq: int = 1000, ack: int = 0,
    mss: int | None = None, data: bytes = b"",
) -> bytes:  # fmt: skip
    options = b"" if mss is None else struct.pack("!BBH", 2, 4, mss)
    head = struct.pack("!HHIIBBHHH", sport, dport, seq, ack, (20 + len(options)) << 2, flags, 65000, 0, 0)
    return ip(source, destination, TCP, head + options + data)


def ping(source: str, destination: str, ident: int, sequence: int = 1, data: bytes = b"a UE's own") -> bytes:
    return echo_packet(packed(source), packed(destination), Echo(ident, sequence, data))


def pong(request: bytes) -> bytes:
    """The echo reply to an echo request."""
    inner = Inner.of(request)
    echo = decode_echo(inner.protocol, inner.segment)
    return echo_packet(packed(inner.destination), packed(inner.source), echo._replace(reply=True))


class Inner(NamedTuple):
    """An IP packet, read."""

    source: str
    destination: str
    protocol: int
    ttl: int
    tos: int
    segment: bytes

    @classmethod
    def of(cls, packet: bytes) -> Inner:
        one: IPv4 | IPv6 = decode_ipv4(packet) if packet[0] >> 4 == 4 else decode_ipv6(packet)
        ttl = one.ttl if isinstance(one, IPv4) else one.hop_limit
        names = str(ip_address(one.source)), str(ip_address(one.destination))
        return cls(*names, one.protocol, ttl, one.tos, one.payload)

    @property
    def ports(self) -> tuple[int, int]:
        return struct.unpack_from("!HH", self.segment)  # type: ignore[return-value]

    @property
    def data(self) -> bytes:
        return self.segment[8:]

    @property
    def tcp_flags(self) -> int:
        return self.segment[13]

    @property
    def mss(self) -> int | None:
        at, end = 20, (self.segment[12] >> 4) * 4
        while at < end:
            kind = self.segment[at]
            if kind == 2:
                return int.from_bytes(self.segment[at + 2 : at + 4], "big")
            at += 1 if kind < 2 else self.segment[at + 1]
        return None

    @property
    def checksum_right(self) -> bool:
        pseudo = b""
        if self.protocol != ICMP:
            pseudo = pseudo_header(
                packed(self.source), packed(self.destination), self.protocol, len(self.segment)
            )
        return checksum(pseudo + self.segment) == 0


def container(pdu_type: int, qfi: int) -> Extension:
    return Extension(PDU_SESSION_CONTAINER, bytes((pdu_type << 4, qfi)))


def gtp(teid: int, payload: bytes = b"", *, kind: int = G_PDU, **more: Any) -> bytes:
    """A GTP-U message; ``more`` are fields of ``Message`` (flags, sequence, npdu, extensions)."""
    return encode(Message(more.pop("flags", 0x30), kind, teid, payload=payload, **more))


def carried(
    source: str, destination: str, message: bytes, *, macs: tuple[bytes, bytes], vlan: int | None = None,
    tos: int = 0, sport: int = 2152, ttl: int = 64,
) -> bytes:  # fmt: skip
    """The frame that carries a GTP-U message."""
    packet = udp(source, destination, sport, 2152, message, ttl, tos)
    ethertype = ETHERTYPE_IPV4 if packet[0] >> 4 == 4 else ETHERTYPE_IPV6
    return ethernet(packet, ethertype, macs, vlan)


def ethernet(payload: bytes, ethertype: int, macs: tuple[bytes, bytes], vlan: int | None = None) -> bytes:
    tags = () if vlan is None else ((0x8100, vlan),)
    return encode_ethernet(Ethernet(macs[1], macs[0], ethertype, payload, tags))


@dataclass(frozen=True, slots=True)
class Bearer:
    """A UE's bearer: one tunnel up, one down. With a QFI it is a 5G one."""

    ue: str
    up: int
    down: int
    enb: str = ENB
    sgw: str = SGW
    vlan: int | None = None
    qfi: int | None = None
    tos: int = 0
    macs: tuple[bytes, bytes] = (RAN_MAC, CORE_MAC)

    def uplink(self, inner: bytes, **more: Any) -> bytes:
        """The frame that carries ``inner`` from the UE."""
        more |= {} if self.qfi is None else {"extensions": (container(1, self.qfi),)}
        return carried(
            self.enb, self.sgw, gtp(self.up, inner, **more), macs=self.macs, vlan=self.vlan, tos=self.tos
        )

    def downlink(self, inner: bytes, **more: Any) -> bytes:
        """The frame that carries ``inner`` to the UE."""
        more |= {} if self.qfi is None else {"extensions": (container(0, self.qfi),)}
        macs, message = self.macs[::-1], gtp(self.down, inner, **more)
        return carried(self.sgw, self.enb, message, macs=macs, vlan=self.vlan, tos=self.tos)

    def but(self, **changes: Any) -> Bearer:
        return replace(self, **changes)


serial = itertools.count(2)


def new_bearer(**more: Any) -> Bearer:
    """A bearer of a UE that no test has seen before."""
    n = next(serial)
    return Bearer(f"10.45.{n // 250}.{n % 250 + 1}", 0x1000 + n, 0x2000 + n, **more)


def new_bearer6(**more: Any) -> Bearer:
    """The same with an IPv6 UE."""
    n = next(serial)
    return Bearer(f"2001:db8:45:{n:x}::99", 0x1000 + n, 0x2000 + n, **more)


class Gpdu(NamedTuple):
    """A frame with a G-PDU in it, read."""

    macs: tuple[bytes, bytes]
    vlan: int | None
    source: str
    destination: str
    tos: int
    outer: Inner
    message: Message

    @classmethod
    def of(cls, frame: bytes) -> Gpdu:
        eth = decode_ethernet(frame)
        one, outer = decode_gpdu(eth.payload), Inner.of(eth.payload)
        macs = (eth.source, eth.destination)
        return cls(macs, eth.vlan, outer.source, outer.destination, one.tos, outer, one.message)

    @property
    def teid(self) -> int:
        return self.message.teid

    @property
    def inner(self) -> Inner:
        return Inner.of(self.message.payload)

    @property
    def checksum_zero_or_right(self) -> bool:
        return self.outer.segment[6:8] == b"\0\0" or self.outer.checksum_right


def gpdu_of(frame: bytes) -> Gpdu | None:
    """The G-PDU in a frame, None if there is none."""
    eth = decode_ethernet(frame)
    if eth.ethertype not in (ETHERTYPE_IPV4, ETHERTYPE_IPV6) or len(eth.payload) < 36:
        return None
    at = 20 if eth.payload[0] >> 4 == 4 else 40
    at_protocol = 9 if at == 20 else 6
    if eth.payload[at_protocol] != UDP_PROTOCOL or eth.payload[at + 2 : at + 4] != b"\x08\x68":
        return None
    return Gpdu.of(frame) if eth.payload[at + 9 : at + 10] == b"\xff" else None


def is_pinger(one: Gpdu) -> bool:
    """Whether this is an echo request of the Pinger's (by what it says after its token)."""
    inner = one.inner
    return inner.protocol in (ICMP, ICMPV6) and inner.segment[16:] == b"tof-pinger"


def elsewhere(bearer: Bearer) -> str:
    return ELSEWHERE6 if ":" in bearer.ue else ELSEWHERE


_idents = itertools.count(0x1000)


def cut(frame: bytes, room: int = 1480, ident: int | None = None) -> list[bytes]:
    """The frame's outer packet in fragments that carry at most ``room`` bytes each, as frames."""
    eth = decode_ethernet(frame)
    ident = next(_idents) % 0xFFFF if ident is None else ident
    return [encode_ethernet(eth._replace(payload=piece)) for piece in pieces(eth.payload, room, ident)]


def pieces(packet: bytes, room: int, ident: int) -> list[bytes]:
    """An IP packet in fragments that carry at most ``room`` bytes each (a multiple of eight)."""
    if packet[0] >> 4 == 4:
        whole = decode_ipv4(packet)
        parts = _parts(whole.payload, room)
        return [
            encode_ipv4(whole._replace(payload=part, offset=at, flags=int(more), identification=ident))
            for at, part, more in parts
        ]
    six = decode_ipv6(packet)
    return [
        encode_ipv6(
            six._replace(
                payload=part,
                next_header=44,
                headers=struct.pack("!BxHI", six.protocol, at | int(more), ident),
            )
        )
        for at, part, more in _parts(six.payload, room)
    ]


def _parts(data: bytes, room: int) -> list[tuple[int, bytes, bool]]:
    return [(at, data[at : at + room], at + room < len(data)) for at in range(0, len(data), room)]
