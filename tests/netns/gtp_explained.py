"""Frames for `tof explain`: one or more for every reason, and what a TOF has to be told before."""

from __future__ import annotations

from collections.abc import Iterator

from tests.netns.gtp_packets import (
    ACK,
    CORE_MAC,
    RAN_MAC,
    SYN,
    Bearer,
    carried,
    gtp,
    ip,
    ping,
    tcp,
    udp,
)
from tof.agent.service_body import parse
from tof.lab.capture import Frame
from tof.lab.verdict import Sent
from tof.model import Side
from tof.wire import gtpu, inet

EDGE, EDGE6 = "192.168.50.10", "fd00:50::10"
SERVICE, SERVICE6, ELSEWHERE = "203.0.113.10", "2001:db8:ffff::10", "198.51.100.9"
SERVICES = [
    parse({"name": "web", "serviceIP": SERVICE, "applicationIP": EDGE}),
    parse({"name": "six", "serviceIP": SERVICE6, "applicationIP": EDGE6}),
]
UE, UE6 = "10.45.0.2", "2001:db8:45:2::99"
FOUR = Bearer(UE, 0x1001, 0x2001)
FIVE = Bearer("10.45.0.3", 0x1002, 0x2002, qfi=9)
TAGGED = Bearer("10.45.0.4", 0x1003, 0x2003, vlan=7)
SIX = Bearer("10.45.0.5", 0x1004, 0x2004, enb="2001:db8:a::1", sgw="2001:db8:a::101")
FRESH, FRESH_TCP = Bearer("10.45.0.6", 0x1005, 0x2005), Bearer("10.45.0.7", 0x1006, 0x2006)
TWIN = Bearer(UE, 0x1007, 0x2007, enb="10.1.0.12", sgw="10.1.0.2")
MACS = RAN_MAC, CORE_MAC

Sided = tuple[Side, bytes]


def up(frame: bytes) -> Sided:
    return Side.ENB, frame


def down(frame: bytes) -> Sided:
    return Side.SGW, frame


def pieces(frame: bytes, mtu: int) -> list[bytes]:
    """The frame's outer IPv4 packet in fragments."""
    parts = inet.fragment_ipv4(frame[14:], mtu)
    return [frame[:14] + part for part in parts]


def inner_pieces(packet: bytes, mtu: int) -> list[bytes]:
    return inet.fragment_ipv4(packet, mtu)


def bent(frame: bytes, at: int, value: int) -> bytes:
    return frame[:at] + bytes((value,)) + frame[at + 1 :]


def learning() -> Iterator[Sided]:
    """Tunnels of both directions; the first packet of one is a service's already."""
    yield up(FOUR.uplink(udp(UE, SERVICE, 1000, 2000, b"the very first")))
    yield down(FOUR.downlink(udp(ELSEWHERE, UE, 2000, 1000)))
    for bearer in (FIVE, TAGGED, SIX):
        yield up(bearer.uplink(udp(bearer.ue, ELSEWHERE, 1000, 2000)))
        yield down(bearer.downlink(udp(ELSEWHERE, bearer.ue, 2000, 1000)))


def flows() -> Iterator[Sided]:
    """What is a service's and what is not."""
    for bearer in (FOUR, FIVE, TAGGED, SIX):
        ue = bearer.ue
        yield up(bearer.uplink(udp(ue, SERVICE, 1000, 53, b"asked")))
        yield up(bearer.uplink(ping(ue, SERVICE, 7)))
        yield up(bearer.uplink(tcp(ue, SERVICE, 1001, 80, ACK, data=b"began before")))
        yield up(bearer.uplink(tcp(ue, SERVICE, 1002, 80, SYN, mss=1460)))
        yield up(bearer.uplink(tcp(ue, SERVICE, 1002, 80, ACK, data=b"GET")))
        yield up(bearer.uplink(tcp(ue, SERVICE, 1003, 80, SYN | ACK)))
        yield up(bearer.uplink(udp(ue, ELSEWHERE, 1000, 53, b"to the core")))
    yield up(FOUR.uplink(udp(UE, ELSEWHERE, 1000, 2152, gtp(9, ping(UE, ELSEWHERE, 9)))))
    yield up(FOUR.uplink(ip(UE, SERVICE, 50, b"a protocol of which no port is seen")))


def owners() -> Iterator[Sided]:
    """Whose an address is."""
    yield up(FOUR.uplink(udp("10.45.9.9", SERVICE, 1000, 2000, b"spoofed")))
    yield up(FOUR.uplink(udp("10.45.9.9", ELSEWHERE, 1000, 2000, b"spoofed too")))
    yield up(FOUR.uplink(udp("169.254.1.1", SERVICE, 1000, 2000, b"nobody's")))
    yield up(FIVE.uplink(udp(UE6, SERVICE6, 1000, 2000, b"its second family, not known yet")))
    yield up(TWIN.uplink(udp(UE, SERVICE, 1000, 53, b"the same flow behind other nodes")))
    yield up(TWIN.uplink(udp(UE, SERVICE, 1009, 53, b"another flow")))
    yield down(FOUR.uplink(udp(UE, SERVICE, 1000, 53, b"from the wrong side")))
    yield up(FOUR.downlink(udp(ELSEWHERE, UE, 1000, 53, b"from the wrong side")))


def broken() -> Iterator[Sided]:
    """What cannot be judged."""
    frame = FOUR.uplink(udp(UE, SERVICE, 1000, 53, b"broken"))
    yield up(bent(frame, 14 + 20 + 8 + 3, 0xEE))  # GTP-U length
    yield up(bent(frame, 14 + 20 + 8, 0x50))  # version 2
    yield up(bent(frame, 14 + 20 + 8, 0x20))  # GTP'
    yield up(carried(FOUR.enb, FOUR.sgw, gtp(0, kind=gtpu.ECHO_REQUEST, sequence=1), macs=MACS))
    yield down(carried(FOUR.sgw, FOUR.enb, gtp(0, kind=gtpu.ECHO_RESPONSE, sequence=1), macs=MACS[::-1]))
    extended = FIVE.uplink(udp(FIVE.ue, SERVICE, 1000, 53))
    yield up(bent(extended, 14 + 20 + 8 + 12, 0))  # an extension header of length 0
    yield up(FOUR.uplink(b"\x10 no IP at all"))
    yield up(FOUR.but(up=0).uplink(udp(UE, SERVICE, 1000, 53)))
    yield up(frame[:12] + b"\x88\xa8\0\x05" + frame[12:])  # a tag of another kind
    yield up(frame[:12] + b"\x08\x06" + bytes(46))


def inner_fragments() -> Iterator[Sided]:
    """A UE's own fragments follow their first one."""
    for piece in inner_pieces(udp(UE, SERVICE, 1000, 53, bytes(2000)), 800):
        yield up(FOUR.uplink(piece))
    first, *later = inner_pieces(tcp(UE, SERVICE, 1010, 80, ACK, data=bytes(2000)), 800)
    for piece in (first, *later):
        yield up(FOUR.uplink(piece))
    _, later_tcp, *_ = inner_pieces(ip(UE, SERVICE, 6, bytes(2000)), 900)
    identified = later_tcp[:4] + b"\x77\x77" + later_tcp[6:]
    yield up(FOUR.uplink(inet.fix_ipv4_header(identified)))


def outer_fragments() -> Iterator[Sided]:
    """A service's datagrams in pieces on S1."""

    def identified(frame: bytes, ident: int) -> bytes:
        return frame[:14] + inet.fix_ipv4_header(frame[14:18] + ident.to_bytes(2, "big") + frame[20:])

    asked = FOUR.uplink(udp(UE, SERVICE, 1000, 53, bytes(1000)))
    for piece in pieces(identified(asked, 1), 576):
        yield up(piece)
    for piece in reversed(pieces(identified(asked, 2), 576)):
        yield up(piece)
    yield up(pieces(identified(asked, 3), 576)[0])  # its rest never comes
    yield up(pieces(identified(asked, 4), 576)[1])  # its first never comes
    for piece in pieces(identified(FOUR.uplink(udp(UE, ELSEWHERE, 1000, 53, bytes(1000))), 5), 576):
        yield up(piece)
    for piece in pieces(identified(FRESH.uplink(udp(FRESH.ue, SERVICE, 1000, 53, bytes(1000))), 6), 576):
        yield up(piece)
    opening = FRESH_TCP.uplink(tcp(FRESH_TCP.ue, SERVICE, 1000, 80, SYN, data=bytes(1000)))
    for piece in pieces(identified(opening, 7), 576):
        yield up(piece)
    for piece in pieces(identified(FOUR.uplink(udp(UE, SERVICE, 1000, 53, bytes(5000))), 8), 3000):
        yield up(piece)
    for piece in pieces(identified(FOUR.downlink(udp(SERVICE, UE, 53, 1000, bytes(1000))), 9), 576):
        yield down(piece)


def ending() -> Iterator[Sided]:
    """What the agent has learnt meanwhile; an End Marker, and what comes afterwards."""
    yield up(FIVE.uplink(udp(UE6, SERVICE6, 1000, 2000, b"known by now")))
    yield down(FOUR.downlink(udp(ELSEWHERE, UE, 2000, 1000)))
    yield up(carried(FIVE.sgw, FIVE.enb, gtp(FIVE.down, kind=gtpu.END_MARKER), macs=MACS))
    yield down(carried(FIVE.sgw, FIVE.enb, gtp(FIVE.down, kind=gtpu.END_MARKER), macs=MACS[::-1]))
    yield up(FIVE.uplink(udp(FIVE.ue, SERVICE, 1000, 53, b"asked again")))


def oddities() -> list[Sent]:
    """All of them in an order that means something."""
    parts = (learning(), flows(), owners(), broken(), inner_fragments(), outer_fragments(), ending())
    frames = [sided for part in parts for sided in part]
    return [
        Sent(Frame(number, number, data, len(data)), side) for number, (side, data) in enumerate(frames, 1)
    ]
