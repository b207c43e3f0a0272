"""A zoo of frames, the same at each call: what S1-U and N3 carry, what they might, and what nobody should send.

    for case in zoo(base=1):                 # other bases: other TEIDs and UEs, so that no tunnel is known yet
        case.name, case.side, case.frames

A family is a function from the end that sends to names and frames; ``FAMILIES`` lists them. Frames come from the MAC
address of the end that sends: a bridge and the TOF learn by it.
"""

from __future__ import annotations

import itertools
import random
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from gtp_packets import (
    CORE_MAC,
    ELSEWHERE,
    ELSEWHERE6,
    RAN_MAC,
    SYN,
    carried,
    container,
    ethernet,
    gtp,
    ip,
    packed,
    ping,
    tcp,
    udp,
)

from tof.model import Side
from tof.wire.gtpu import Extension
from tof.wire.inet import IPv4, checksum, encode_ipv4, pseudo_header

MOST_ON_1500 = 1500 + 14 + 4


class Case(NamedTuple):
    """Frames that one end sends, one after another."""

    name: str
    side: Side
    frames: tuple[bytes, ...]


@dataclass
class End:
    """Who sends: MAC addresses, outer addresses, tunnels nobody has used before."""

    side: Side
    base: int
    macs: tuple[bytes, bytes]
    outer: tuple[str, str]
    outer6: tuple[str, str]
    number: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def fresh(self) -> tuple[int, str, str]:
        """A TEID of its own, and the addresses of its UE."""
        n = next(self.number)
        both = self.base << 1 | (self.side is Side.SGW)
        return (
            both << 16 | n,
            f"10.{64 + both}.{n // 250}.{n % 250 + 1}",
            f"2001:db8:{both + 0x4500:x}:{n:x}::1",
        )

    def between(self, ue: str, data: bytes, **more: Any) -> bytes:
        """A user packet, from the UE or to it."""
        other = ELSEWHERE6 if ":" in ue else ELSEWHERE
        pair, ports = ((ue, other), (1000, 2000)) if self.side is Side.ENB else ((other, ue), (2000, 1000))
        return udp(*pair, *ports, data, **more)

    def inner(self, data: bytes = b"in the zoo", **more: Any) -> bytes:
        return self.between(self.fresh()[1], data, **more)

    def framed(self, message: bytes, *, six: bool = False, **more: Any) -> bytes:
        """The frame that carries a GTP-U message to the other end."""
        return carried(*(self.outer6 if six else self.outer), message, macs=self.macs, **more)

    def gpdu(self, inner: bytes | None = None, **more: Any) -> bytes:
        """The frame of a G-PDU in a tunnel of its own."""
        outer = {key: more.pop(key) for key in ("six", "vlan", "tos", "sport", "ttl") if key in more}
        teid, ue, _ = self.fresh()
        return self.framed(
            gtp(teid, self.between(ue, b"a G-PDU") if inner is None else inner, **more), **outer
        )

    def packet(self, payload: bytes, vlan: int | None = None) -> bytes:
        """The frame of an IP packet."""
        return ethernet(payload, 0x0800 if payload[0] >> 4 == 4 else 0x86DD, self.macs, vlan)


Frames = Iterator[tuple[str, bytes | tuple[bytes, ...]]]


def changed(frame: bytes, at: int, data: bytes) -> bytes:
    return frame[:at] + data + frame[at + len(data) :]


def tagged(frame: bytes, tci: int, tpid: int = 0x8100) -> bytes:
    return frame[:12] + struct.pack("!HH", tpid, tci) + frame[12:]


def resummed(frame: bytes) -> bytes:
    """The IPv4 header checksum of an untagged frame made right."""
    end = 14 + (frame[14] & 15) * 4
    return changed(frame, 24, struct.pack("!H", checksum(frame[14:24] + b"\0\0" + frame[26:end])))


UDP_AT, GTP_AT, INNER_AT = 34, 42, 50


# GTP-U

_OPTIONAL: dict[str, dict[str, Any]] = {
    "S": {"sequence": 0xFFFF},
    "PN": {"npdu": 0x9C},
    "E": {"extensions": (Extension(0xC0, b"\x12\x34"),)},
}


def forms(end: End) -> Frames:
    """Every combination of flags, inner and outer families, tagged and not."""
    flags = ["".join(c) for n in range(4) for c in itertools.combinations(_OPTIONAL, n)]
    for each, six, inner6, vlan in itertools.product(flags, (False, True), (False, True), (None, 100, 4094)):
        more = {name: value for flag in _OPTIONAL if flag in each for name, value in _OPTIONAL[flag].items()}
        teid, ue, ue6 = end.fresh()
        message = gtp(teid, end.between(ue6 if inner6 else ue, b"form"), **more)
        name = f"form {each or '-'} outer {6 if six else 4} inner {6 if inner6 else 4} VLAN {vlan}"
        yield name, end.framed(message, six=six, vlan=vlan)


_TYPES = (0x01, 0x02, 0x03, 0x20, 0x21, 0x40, 0x42, 0x7F, 0x81, 0x82, 0x83, 0x84, 0x85, 0xC0, 0xC1, 0xFF)


def extensions(end: End) -> Frames:
    for kind, units in itertools.product(_TYPES, (1, 2, 3, 10, 64)):
        content = bytes((kind ^ n) & 0xFF for n in range(units * 4 - 2))
        yield f"extension {kind:02x} of {units} units", end.gpdu(extensions=(Extension(kind, content),))
    for count in (2, 3, 7, 8, 9, 16, 40):
        chain = tuple(Extension(_TYPES[n % len(_TYPES)], bytes((n, n))) for n in range(count))
        yield f"chain of {count}", end.gpdu(extensions=chain)
    twice = (container(1, 5), container(0, 9))
    yield "two containers", end.gpdu(extensions=twice)
    long = Extension(0x85, bytes((0x1C, 0x80 | 9)) + bytes(range(24)))
    yield (
        "a long container among others",
        end.gpdu(
            sequence=3, npdu=4, extensions=(Extension(0x40, b"\x08\x68"), long, Extension(0xC0, b"\1\2"))
        ),
    )
    one = end.gpdu(extensions=(Extension(0xC0, b"\1\2"), Extension(0x20, b"\3\4")))
    for at, data, name in (
        (12, b"\0", "first of length zero"), (16, b"\0", "second of length zero"), (12, b"\xff", "beyond the end"),
        (12, b"\x02", "swallows the second"), (15, b"\xc0", "the same type again"), (19, b"\xc0", "into the user packet"),
        (11, b"\0", "E set and no type"), (0, b"\x30", "extensions without the flag"), (0, b"\x32", "type without the flag"),
    ):  # fmt: skip
        yield f"extension: {name}", changed(one, GTP_AT + at, data)
    yield "nothing behind the extension", end.gpdu(b"", extensions=(container(1, 1),))


def flags(end: End) -> Frames:
    """Every first octet; the four optional octets are there and not."""
    for octet in range(256):
        yield f"first octet {octet:02x}", changed(end.gpdu(), GTP_AT, bytes((octet,)))
        yield f"first octet {octet:02x}, long", changed(end.gpdu(sequence=7), GTP_AT, bytes((octet,)))


def messages(end: End) -> Frames:
    """Every message type, empty, with a body, padded as the shortest frame is."""
    for kind in range(256):
        teid, _, _ = end.fresh()
        yield f"message {kind} of no tunnel", end.framed(gtp(0, kind=kind, sequence=kind))
        yield f"message {kind} with a body", end.framed(gtp(teid, b"\x10\0\0\0\1\x0e\7", kind=kind))
        short = end.framed(gtp(teid, kind=kind))
        yield f"message {kind} padded", short + bytes(60 - len(short))
    for kind in (1, 2, 26, 31, 254):
        for name, more in (("5906", {"sport": 5906}), ("VLAN", {"vlan": 7}), ("IPv6", {"six": True})):
            yield f"message {kind} by {name}", end.framed(gtp(0, kind=kind, sequence=1), **more)
    for length in range(20):
        yield (
            f"Error Indication of {length}",
            end.framed(gtp(0, (b"\x10\0\0\0\1\x85\0\4\x0a\1\0\1" * 2)[:length], kind=26)),
        )
    yield (
        "End Marker with a container",
        end.framed(gtp(end.fresh()[0], kind=254, extensions=(container(0, 1),))),
    )
    yield (
        "to a source port",
        end.packet(udp(*end.outer, 2152, 5906, gtp(0, b"\x10\0\0\0\1\x85\0\4\x0a\1\0\1", kind=26))),
    )


def lengths(end: End) -> Frames:
    whole = end.gpdu()
    claimed = len(whole) - INNER_AT
    for wrong in (0, 1, 3, 4, 8, 19, 20, 27, claimed - 1, claimed + 1, claimed + 4, 0x0100, 0x8000, 0xFFFF):
        yield f"GTP length {wrong}", changed(whole, GTP_AT + 2, struct.pack("!H", wrong))
        yield f"UDP length {wrong}", changed(whole, UDP_AT + 4, struct.pack("!H", wrong))
        yield f"total length {wrong}", resummed(changed(whole, 16, struct.pack("!H", wrong)))
        yield f"inner total length {wrong}", changed(whole, INNER_AT + 2, struct.pack("!H", wrong))
    six = end.gpdu(six=True)
    for wrong in (0, 7, 8, 15, 16, len(six) - 54 - 1, len(six) - 54 + 1, 0xFFFF):
        yield f"payload length {wrong}", changed(six, 18, struct.pack("!H", wrong))
    for header in range(16):
        yield f"header length {header}", resummed_any(changed(whole, 14, bytes((0x40 | header,))))
        yield f"inner header length {header}", changed(whole, INNER_AT, bytes((0x40 | header,)))
    yield "8 claimed, 4 there", end.framed(b"\x32\x01\0\x08\0\0\0\0\0\1\0\0")
    for size in range(15, len(whole)):
        yield f"cut after {size}", whole[:size]
    for size in range(14, len(six), 5):
        yield f"IPv6 cut after {size}", six[: max(size, 15)]
    for size in range(9):
        yield f"UDP with {size} octets", end.framed(b"\x30\xff\0\0\0\0\0\1"[:size])


def resummed_any(frame: bytes) -> bytes:
    return resummed(frame) if frame[14] & 15 >= 5 else frame


def inners(end: End) -> Frames:
    teid, ue, ue6 = end.fresh()
    up = end.side is Side.ENB
    other = ELSEWHERE if up else ue
    mine = ue if up else ELSEWHERE
    mine6, other6 = (ue6, ELSEWHERE6) if up else (ELSEWHERE6, ue6)
    whole = udp(mine, other, 1, 2, bytes(40))
    yield "TEID zero", end.framed(gtp(0, whole))
    yield "TEID of all ones", end.framed(gtp(0xFFFFFFFF, whole))
    for first in range(16):
        yield f"inner version {first}", end.gpdu(bytes((first << 4 | 5,)) + whole[1:])
    for size in (*range(24), 39, 40, 41):
        yield f"inner of {size}", end.gpdu(whole[:size])
        yield f"inner IPv6 of {size}", end.gpdu(udp(mine6, other6, 1, 2, bytes(40))[:size])
    yield "inner with a trailer", end.gpdu(whole + b"trailer")
    yield "inner IPv6 with a trailer", end.gpdu(udp(mine6, other6, 1, 2) + b"trailer")
    yield "inner checksum wrong", end.gpdu(changed(whole, 10, b"\xba\xd0"))
    yield "inner UDP checksum wrong", end.gpdu(changed(whole, 26, b"\xba\xd0"))
    yield "inner UDP checksum zero", end.gpdu(changed(whole, 26, b"\0\0"))
    one = IPv4(packed(mine), packed(other), 17, whole[20:])
    yield "inner options", end.gpdu(encode_ipv4(one._replace(options=b"\x94\x04\0\0\x01\x01\x01\x00")))
    yield "inner fragments", (
        end.framed(gtp(teid, encode_ipv4(one._replace(payload=whole[20:44], flags=1, identification=9)))),
        end.framed(gtp(teid, encode_ipv4(one._replace(payload=whole[44:], offset=24, identification=9)))),
    )  # fmt: skip
    yield "inner IPv6 fragment", end.gpdu(ip(mine6, other6, 44, b"\x11\0\0\1\0\0\0\7" + bytes(16)))
    for header in (0, 43, 44, 50, 51, 59, 60, 135):
        yield (
            f"inner IPv6 with header {header}",
            end.gpdu(ip(mine6, other6, header, bytes((59, 0)) + bytes(14))),
        )
    for protocol in range(256):
        yield (
            f"inner protocol {protocol}",
            end.gpdu(ip(mine, other, protocol, b"\x08\0\0\0\0\1\0\1" + bytes(24))),
        )
    for source, destination in (
        ("0.0.0.0", "255.255.255.255"), ("127.0.0.1", "127.0.0.1"), ("224.0.0.1", mine), (mine, "224.0.0.22"), (mine, mine),
        ("169.254.1.1", "169.254.1.2"), ("255.255.255.255", mine), ("240.0.0.1", "0.0.0.0"), ("fe80::1", "ff02::2"),
        ("::", "ff02::16"), ("::", "::"), ("::1", "::1"), ("fe80::1", "fe80::2"), ("ff02::1", mine6), (mine6, "ff05::2"),
        ("::ffff:10.1.1.1", mine6), ("64:ff9b::808:808", mine6), (mine6, mine6),
    ):  # fmt: skip
        yield f"inner {source} to {destination}", end.gpdu(udp(source, destination, 1, 2, b"odd"))
    for kind in range(133, 138):
        yield (
            f"inner ND {kind}",
            end.gpdu(ip("fe80::1", "ff02::1", 58, bytes((kind, 0)) + bytes(30), ttl=255)),
        )
    nested = udp(mine, end.outer[1], 2152, 2152, gtp(teid, whole))
    yield "GTP-U in GTP-U", end.gpdu(nested)
    yield "GTP-U in GTP-U in GTP-U", end.gpdu(udp(mine, end.outer[1], 2152, 2152, gtp(teid, nested)))
    for kind in (1, 2, 26, 254):
        yield f"message {kind} inside", end.gpdu(udp(mine, end.outer[1], 2152, 2152, gtp(teid, kind=kind)))
    yield "inner port 2152 that is no GTP", end.gpdu(udp(mine, other, 5353, 2152, b"\x00\x01dns or what"))
    for attempt in range(4):
        yield (
            f"ping of a Pinger target {attempt}",
            end.gpdu(ping(mine, "8.8.8.8" if up else ue, 7, attempt, bytes(24))),
        )
    yield (
        "echo reply of a Pinger target",
        end.gpdu(ip("8.8.8.8", other, 1, b"\0\0\0\0\0\7\0\1" + bytes(16) + b"tof-pinger")),
    )
    yield "TCP", end.gpdu(tcp(mine, other, 5000, 80, SYN, mss=1460))
    yield "Ethernet inside", end.gpdu(end.macs[1] + end.macs[0] + b"\x08\0" + whole)
    yield "of full size", end.gpdu(end.inner(bytes(1500 - 36 - 28)))
    yield "of full size, IPv6", end.gpdu(udp(mine6, other6, 1, 2, bytes(1500 - 36 - 48)))
    yield "of full size and a tag", end.gpdu(end.inner(bytes(1500 - 36 - 28)), vlan=9)


# UDP, IP, Ethernet


def datagrams(end: End) -> Frames:
    whole = end.gpdu()
    right = whole[UDP_AT + 6 : UDP_AT + 8]
    segment = whole[UDP_AT:]
    half = checksum(pseudo_header(whole[26:30], whole[30:34], 17, len(segment))) ^ 0xFFFF
    for name, value in (
        ("right", right),
        ("zero", b"\0\0"),
        ("wrong", b"\xba\xd0"),
        ("partial", struct.pack("!H", half)),
    ):
        yield f"UDP checksum {name}", changed(end.gpdu(), UDP_AT + 6, value)
        yield f"UDP checksum {name}, IPv6", changed(end.gpdu(six=True), 60, value)
    for port in (0, 1, 53, 2123, 2151, 2152, 2153, 3386, 5906, 40000, 65535):
        yield f"from port {port}", end.gpdu(sport=port)
        yield f"to port {port}", end.packet(udp(*end.outer, 2152, port, gtp(*_tunnel(end))))
        yield f"to port {port} over IPv6", end.packet(udp(*end.outer6, 2152, port, gtp(*_tunnel(end))))
    yield (
        "DNS from port 2152",
        end.packet(udp(*end.outer, 2152, 53, b"\x30\xff\x01\0\0\1\0\0\0\0\0\0\3www\0")),
    )
    yield (
        "DNS to port 2152",
        end.packet(udp(*end.outer, 53, 2152, b"\x30\x39\x81\x80\0\1\0\1\0\0\0\0\3www\0")),
    )
    yield (
        "GTP-C version 2",
        end.packet(udp(*end.outer, 2123, 2123, bytes.fromhex("48200010000000000000010003000100c4000000"))),
    )
    yield (
        "GTP-C version 1",
        end.packet(udp(*end.outer, 2123, 2123, bytes.fromhex("32100004000000000001000002"))),
    )
    yield "GTP prime", end.packet(udp(*end.outer, 3386, 3386, bytes.fromhex("0f0100040001") + bytes(4)))
    yield "GTP prime on 2152", end.framed(bytes.fromhex("4ef0000600010000fe01c0ff"))
    yield (
        "GTP version 0",
        end.packet(udp(*end.outer, 3386, 3386, bytes.fromhex("1e0100000001ffffffff") + bytes(10))),
    )
    yield "IKE", end.packet(udp(*end.outer, 500, 500, bytes(28)))
    yield "ESP in UDP", end.packet(udp(*end.outer, 4500, 4500, bytes.fromhex("c0ffee0100000001") + bytes(64)))
    yield "BFD", end.packet(udp(*end.outer, 49152, 3784, bytes.fromhex("20c00318") + bytes(20), ttl=255))
    yield "TCP SYN of BGP", end.packet(tcp(*end.outer, 40000, 179, SYN, mss=1460))
    yield "TCP to port 2152", end.packet(tcp(*end.outer, 2152, 2152, SYN, mss=1460))
    quoted = end.gpdu()[14:]
    yield "ICMP that quotes a G-PDU", end.packet(ip(*end.outer, 1, b"\3\3\0\0\0\0\0\0" + quoted[:64]))
    yield "fragmentation needed", end.packet(ip(*end.outer, 1, b"\3\4\0\0\0\0\x05\x78" + quoted[:28]))


def _tunnel(end: End) -> tuple[int, bytes]:
    teid, ue, _ = end.fresh()
    return teid, end.between(ue, b"elsewhere")


def protocols(end: End) -> Frames:
    """Every IP protocol and IPv6 next header."""
    for protocol in range(256):
        content = bytes.fromhex("08680868002c000030ff001c00000001") + bytes(28)
        yield f"protocol {protocol}", end.packet(ip(*end.outer, protocol, content))
        yield f"next header {protocol}", end.packet(ip(*end.outer6, protocol, content))
    heartbeat = bytes.fromhex("8e3c8e3c00000001deadbeef0400001800010014") + bytes(16)
    yield "SCTP heartbeat", end.packet(ip(*end.outer, 132, heartbeat))
    yield (
        "VRRP",
        ethernet(
            ip("10.1.0.2", "224.0.0.18", 112, bytes(8), ttl=255),
            0x800,
            (end.macs[0], bytes.fromhex("01005e000012")),
        ),
    )
    yield (
        "OSPF",
        ethernet(
            ip("10.1.0.2", "224.0.0.5", 89, bytes(44), ttl=1),
            0x800,
            (end.macs[0], bytes.fromhex("01005e000005")),
        ),
    )


def ipv4(end: End) -> Frames:
    whole = end.gpdu()
    for tos in range(256):
        yield f"type of service {tos:02x}", end.gpdu(tos=tos)
    for ttl in (0, 1, 2, 128, 255):
        yield f"TTL {ttl}", resummed(changed(whole, 22, bytes((ttl,))))
    for flags in (0x0000, 0x4000, 0x8000, 0xC000):
        yield f"flags {flags:04x}", resummed(changed(end.gpdu(), 20, struct.pack("!H", flags)))
    for bad in (b"\0\0", b"\xff\xff", b"\xde\xad"):
        yield f"header checksum {bad.hex()}", changed(end.gpdu(), 24, bad)
    one = IPv4(whole[26:30], whole[30:34], 17, whole[UDP_AT:])
    for name, options in (
        ("router alert", "94040000"), ("end of options", "00000000"), ("NOPs", "01010101" * 10),
        ("record route", "07270400" + "00" * 36), ("timestamp", "44240500" + "00" * 32),
        ("source route", "8307040a01010100"), ("malformed", "07ff04ff"), ("length zero", "07000000"),
    ):  # fmt: skip
        fresh = end.gpdu()
        yield (
            f"options: {name}",
            end.packet(encode_ipv4(one._replace(payload=fresh[UDP_AT:], options=bytes.fromhex(options)))),
        )
    for version in range(16):
        yield f"version {version}", changed(end.gpdu(), 14, bytes((version << 4 | 5,)))
    for at, name in ((26, "source"), (30, "destination")):
        for address in ("0.0.0.0", "127.0.0.1", "224.0.0.1", "240.1.1.1", "255.255.255.255", "169.254.0.1"):
            yield f"{name} {address}", resummed(changed(end.gpdu(), at, packed(address)))


def ipv6(end: End) -> Frames:
    whole = end.gpdu(six=True)
    for tc in range(0, 256, 5):
        yield f"traffic class {tc:02x}", end.gpdu(six=True, tos=tc)
    for hops in (0, 1, 255):
        yield f"hop limit {hops}", changed(whole, 21, bytes((hops,)))
    for label in (b"\x60\x0f\xff\xff", b"\x6f\xf1\x23\x45"):
        yield f"flow label {label.hex()}", changed(end.gpdu(six=True), 14, label)
    for version in range(16):
        yield f"version {version}", changed(end.gpdu(six=True), 14, bytes((version << 4,)))
    segment = whole[54:]
    for header, content in (
        (0, "1100050200000100"), (43, "110000000000000000"[:16]), (60, "1100010400000000"), (60, "11ff010400000000"),
        (44, "1100000000000007"), (44, "1100000100000007"), (44, "1100001000000007"), (51, "1104000000000000"), (59, ""),
    ):  # fmt: skip
        packet = ip(*end.outer6, header, bytes.fromhex(content) + segment)
        yield f"extension header {header} {content}", end.packet(packet)
    for kind in range(133, 138):
        yield f"ND {kind}", end.packet(ip("fe80::1", "ff02::1", 58, bytes((kind, 0)) + bytes(22), ttl=255))


def fragments(end: End) -> Frames:
    for name, source in (
        ("GTP-U", end.gpdu(end.inner(bytes(900)))),
        ("other", end.packet(udp(*end.outer, 7, 8, bytes(900)))),
    ):
        whole = source[14:]
        one = IPv4(whole[12:16], whole[16:20], 17, whole[20:], identification=end.base << 8 | len(name))
        cuts = (0, 16, 480, 800, len(one.payload))
        pieces = [
            end.packet(
                encode_ipv4(one._replace(payload=one.payload[a:b], offset=a, flags=int(b < len(one.payload))))
            )
            for a, b in itertools.pairwise(cuts)
        ]
        yield f"fragments of {name}", tuple(pieces)
        yield f"fragments of {name} in a VLAN", tuple(tagged(piece, 33) for piece in pieces)
        reverse = [changed(piece, 18, b"\xab\xcd") for piece in reversed(pieces)]
        yield f"fragments of {name} reversed", tuple(map(resummed, reverse))
        another = [resummed(changed(piece, 18, b"\xab\xce")) for piece in pieces]
        overlapping = one._replace(payload=one.payload[8:600], offset=8, flags=1, identification=0xABCE)
        yield (
            f"overlapping fragments of {name}",
            (another[0], end.packet(encode_ipv4(overlapping)), *another[2:]),
        )
        for size in (8, 16, 24):
            tiny = one._replace(payload=one.payload[:size], flags=1, identification=size)
            yield f"a first fragment of {name} of {size}", end.packet(encode_ipv4(tiny))
        beyond = one._replace(payload=bytes(64), offset=65528, identification=4)
        yield f"a fragment of {name} beyond the end", end.packet(encode_ipv4(beyond))
    six = end.gpdu(end.inner(bytes(900)), six=True)[54:]
    yield (
        "fragments over IPv6",
        tuple(
            end.packet(
                ip(*end.outer6, 44, struct.pack("!BBHI", 17, 0, at | (at < 480), 5) + six[at : at + 480])
            )
            for at in range(0, len(six), 480)
        ),
    )


def links(end: End) -> Frames:
    whole = end.gpdu()
    for surplus in (1, 2, 7, 18, 46, 200):
        yield f"trailer of {surplus}", end.gpdu() + bytes(range(surplus))
        yield f"trailer of {surplus} on IPv6", end.gpdu(six=True) + bytes(surplus)
        yield f"trailer of {surplus} in a VLAN", end.gpdu(vlan=5) + bytes(surplus)
    for tci in (
        0x0000,
        0x0001,
        0x0FFE,
        0x0FFF,
        0x1000,
        0x1064,
        *(pcp << 13 for pcp in range(1, 8)),
        0xE064,
        0xFFFF,
    ):
        yield f"tag {tci:04x}", tagged(end.gpdu(), tci)
        yield f"tag {tci:04x} on IPv6", tagged(end.gpdu(six=True), tci)
        yield f"tag {tci:04x} on an End Marker", tagged(end.framed(gtp(end.fresh()[0], kind=254)), tci)
    for outer, inner in itertools.product((0x8100, 0x88A8, 0x9100), repeat=2):
        yield f"tags {outer:04x} {inner:04x}", tagged(tagged(end.gpdu(), 100, inner), 200, outer)
        yield (
            f"tags {outer:04x} {inner:04x} with priority",
            tagged(tagged(end.gpdu(), 0, inner), 0xA000, outer),
        )
    yield "three tags", tagged(tagged(tagged(end.gpdu(), 1), 2), 3)
    yield "service tag", tagged(end.gpdu(), 100, 0x88A8)
    for ethertype in (
        0x0000, 0x002E, 0x05DC, 0x0600, 0x0806, 0x0842, 0x22F0, 0x6558, 0x8035, 0x8137, 0x8809, 0x8847, 0x8848, 0x8863,
        0x8864, 0x886F, 0x888E, 0x88B5, 0x88CC, 0x88E5, 0x88E7, 0x88F7, 0x8902, 0x8906, 0x8915, 0x892F, 0x9000, 0xFFFF,
    ):  # fmt: skip
        yield f"ethertype {ethertype:04x}", ethernet(whole[14:], ethertype, end.macs)
        yield f"ethertype {ethertype:04x} in a VLAN", ethernet(bytes(50), ethertype, end.macs, 100)
    yield "MPLS", ethernet(bytes.fromhex("000141ff") + whole[14:], 0x8847, end.macs)
    yield "PPPoE", ethernet(bytes.fromhex("11000001004a0021") + whole[14:], 0x8864, end.macs)
    yield "LLC", end.macs[1] + end.macs[0] + b"\0\x26BB\3" + bytes(35)
    yield "SNAP", end.macs[1] + end.macs[0] + b"\0\x40\xaa\xaa\3\0\0\0\x08\0" + whole[14:70]
    for name, payload in (("G-PDU", None), ("End Marker", gtp(end.fresh()[0], kind=254)), ("UDP", b"")):
        for mac in (
            "ffffffffffff",
            "01005e000001",
            "3333000000fb",
            "02000000beef",
            "03000000beef",
            "0180c2000010",
        ):
            inner = (
                end.gpdu()
                if payload is None
                else end.framed(payload)
                if payload
                else end.packet(udp(*end.outer, 7, 8))
            )
            yield f"{name} to {mac}", bytes.fromhex(mac) + inner[6:]
    for last in range(16):
        yield (
            f"reserved address {last:x}",
            bytes.fromhex(f"0180c200000{last:x}") + end.macs[0] + b"\x88\xcc" + bytes(46),
        )
        yield f"reserved address {last:x}, GTP-U", bytes.fromhex(f"0180c200000{last:x}") + end.gpdu()[6:]
    yield "to its own side", end.macs[0] + end.gpdu()[6:]
    arp = struct.pack(
        "!HHBBH6s4s6s4s", 1, 0x800, 6, 4, 1, end.macs[0], packed(end.outer[0]), bytes(6), packed(end.outer[1])
    )
    for name, data in (
        ("request", arp),
        ("reply", changed(arp, 7, b"\2")),
        ("probe", changed(arp, 14, bytes(4))),
        ("cut", arp[:20]),
    ):
        yield f"ARP {name}", ethernet(data, 0x0806, (end.macs[0], b"\xff" * 6))
        yield f"ARP {name} padded", ethernet(data + bytes(18), 0x0806, end.macs)
        yield f"ARP {name} in a VLAN", ethernet(data, 0x0806, (end.macs[0], b"\xff" * 6), 100)
    yield (
        "gratuitous ARP",
        ethernet(changed(arp, 24, packed(end.outer[0])), 0x0806, (end.macs[0], b"\xff" * 6)),
    )


def mutants(end: End) -> Frames:
    """G-PDUs and messages with some octets behind the MAC addresses turned into others."""
    dice = random.Random(end.base << 4 | end.side.value)
    for n in range(600):
        shapes: tuple[dict[str, Any], ...] = (
            {}, {"sequence": 1}, {"extensions": (container(1, 5),)}, {"six": True}, {"vlan": 7},
            {"six": True, "vlan": 7, "npdu": 1},
        )  # fmt: skip
        frame = bytearray(end.gpdu(**shapes[n % len(shapes)]))
        for _ in range(dice.choice((1, 1, 2, 4))):
            frame[dice.randrange(12, len(frame))] = dice.choice(
                (0, 0xFF, dice.randrange(256), 1 << dice.randrange(8))
            )
        if dice.random() < 0.1:
            frame += bytes(dice.randrange(1, 30))
        yield f"mutant {n}", bytes(frame)


Family = Callable[[End], Frames]
FAMILIES: tuple[Family, ...] = (
    forms, extensions, flags, messages, lengths, inners, datagrams, protocols, ipv4, ipv6, fragments, links, mutants
)  # fmt: skip


def zoo(base: int, families: tuple[Family, ...] = FAMILIES) -> list[Case]:
    """All frames of both ends, in turns, so that neither end is silent for long."""
    enb = End(
        Side.ENB, base, (RAN_MAC, CORE_MAC), ("10.1.0.11", "10.1.0.1"), ("2001:db8:1::11", "2001:db8:1::1")
    )
    sgw = End(
        Side.SGW, base, (CORE_MAC, RAN_MAC), ("10.1.0.1", "10.1.0.11"), ("2001:db8:1::1", "2001:db8:1::11")
    )
    cases = []
    for family in families:
        for pair in zip(family(enb), family(sgw), strict=True):
            for end, (name, frames) in zip((enb, sgw), pair, strict=True):
                whole = (frames,) if isinstance(frames, bytes) else frames
                cases.append(Case(f"{family.__name__}: {name} from the {end.side.name}", end.side, whole))
    return cases
