"""tof.wire.inet: known bytes, there-and-back, scapy as an independent oracle."""

from __future__ import annotations

from contextlib import suppress
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop
from scapy.layers.l2 import Dot1AD, Dot1Q, Ether
from scapy.packet import Raw

from tof.errors import DecodeError
from tof.wire import inet

A4, B4 = bytes((192, 0, 2, 1)), bytes((198, 51, 100, 7))
A6, B6 = bytes.fromhex("20010db8") + bytes(11) + b"\1", bytes.fromhex("20010db8") + bytes(11) + b"\2"
u8, u16 = st.integers(0, 255), st.integers(0, 65535)
v4, v6 = st.binary(min_size=4, max_size=4), st.binary(min_size=16, max_size=16)
ipv4 = st.builds(
    inet.IPv4,
    v4,
    v4,
    u8,
    st.binary(max_size=60),
    ttl=u8,
    tos=u8,
    identification=u16,
    flags=st.integers(0, 7),
    offset=st.integers(0, 8191).map(lambda n: n * 8),
    options=st.integers(0, 10).flatmap(lambda n: st.binary(min_size=4 * n, max_size=4 * n)),
)
ipv6 = st.builds(
    inet.IPv6,
    v6,
    v6,
    st.sampled_from([6, 17, 58, 59, 51, 255]),
    st.binary(max_size=60),
    hop_limit=u8,
    tos=u8,
    flow_label=st.integers(0, 0xFFFFF),
    next_header=st.none(),
    headers=st.just(b""),
    offset=st.just(0),
    more_fragments=st.just(False),
)


def reason(call: object, *args: object) -> str:
    with pytest.raises(DecodeError) as caught:
        call(*args)  # type: ignore[operator]
    return caught.value.reason


def test_ethernet_with_two_tags() -> None:
    data = bytes(
        Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / Dot1AD(vlan=7) / Dot1Q(vlan=9) / b"xy"
    )
    frame = inet.decode_ethernet(data)
    assert frame.vlan == 7
    assert [tag[0] for tag in frame.tags] == [0x88A8, 0x8100]
    assert (frame.source[-1], frame.destination[-1], frame.payload) == (1, 2, b"xy")
    assert inet.encode_ethernet(frame) == data


def test_ethernet_without_vlan() -> None:
    plain = inet.Ethernet(b"d" * 6, b"s" * 6, inet.ETHERTYPE_IPV4, b"p")
    assert plain.vlan is None
    assert plain._replace(tags=((0x8100, 0xE000),)).vlan is None
    assert inet.decode_ethernet(inet.encode_ethernet(plain)) == plain


@pytest.mark.parametrize("size", [0, 13, 14, 15, 17])
def test_ethernet_truncated(size: int) -> None:
    assert reason(inet.decode_ethernet, (bytes(12) + b"\x81\0\0\1\x08\0")[:size]) == "eth_truncated"


def test_ipv4_against_scapy() -> None:
    theirs = (
        IP(src="192.0.2.1", dst="198.51.100.7", ttl=9, tos=0xB8, id=77, flags="MF", frag=3, proto=17)
        / b"hello"
    )
    ours = inet.IPv4(A4, B4, 17, b"hello", 9, 0xB8, 77, inet.MORE_FRAGMENTS, 24)
    assert inet.decode_ipv4(bytes(theirs) + b"padding") == ours
    assert inet.encode_ipv4(ours) == bytes(theirs)


@given(ipv4)
def test_ipv4_there_and_back(packet: inet.IPv4) -> None:
    data = inet.encode_ipv4(packet)
    assert inet.decode_ipv4(data) == packet
    assert inet.checksum(data[: 20 + len(packet.options)]) == 0


def test_ipv4_refusals() -> None:
    good = inet.encode_ipv4(inet.IPv4(A4, B4, 17, b"x"))
    assert reason(inet.decode_ipv4, good[:19]) == "ip_truncated"
    assert reason(inet.decode_ipv4, b"\x60" + good[1:]) == "ip_version"
    assert reason(inet.decode_ipv4, b"\x44" + good[1:]) == "ip_length"
    assert reason(inet.decode_ipv4, good[:-1]) == "ip_length"
    assert reason(inet.decode_ipv4, good[:2] + b"\0\x13" + good[4:]) == "ip_length"


def test_fix_ipv4_header() -> None:
    good = inet.encode_ipv4(inet.IPv4(A4, B4, 17, b"x", options=b"\1\1\1\0"))
    assert inet.fix_ipv4_header(good[:10] + b"\0\0" + good[12:]) == good
    assert reason(inet.fix_ipv4_header, b"") == "ip_truncated"
    assert reason(inet.fix_ipv4_header, good[:23]) == "ip_truncated"
    assert reason(inet.fix_ipv4_header, b"\x44" + good[1:]) == "ip_truncated"


@given(ipv6)
def test_ipv6_there_and_back(packet: inet.IPv6) -> None:
    decoded = inet.decode_ipv6(inet.encode_ipv6(packet))
    assert decoded == packet._replace(next_header=packet.protocol)


def test_ipv6_extension_headers_against_scapy() -> None:
    theirs = bytes(
        IPv6(src="2001:db8::1", dst="2001:db8::2", tc=0xB8, fl=5, hlim=3)
        / IPv6ExtHdrHopByHop(nh=44)
        / IPv6ExtHdrFragment(nh=17, m=1, id=9)
        / b"data"
    )
    packet = inet.decode_ipv6(theirs)
    assert (packet.protocol, packet.payload, packet.tos, packet.flow_label) == (17, b"data", 0xB8, 5)
    assert (packet.more_fragments, packet.offset, len(packet.headers)) == (True, 0, 16)
    assert inet.encode_ipv6(packet) == theirs


def test_ipv6_later_fragment_stops_the_walk() -> None:
    theirs = bytes(IPv6() / IPv6ExtHdrFragment(nh=60, offset=2, m=0) / b"\xff\xff")
    packet = inet.decode_ipv6(theirs)
    assert (packet.protocol, packet.offset, packet.payload) == (60, 16, b"\xff\xff")


def test_ipv6_refusals() -> None:
    good = inet.encode_ipv6(
        inet.IPv6(A6, B6, 17, b"12345678", headers=bytes((17, 0)) + bytes(6), next_header=0)
    )
    assert reason(inet.decode_ipv6, good[:39]) == "ip_truncated"
    assert reason(inet.decode_ipv6, b"\x40" + good[1:]) == "ip_version"
    assert reason(inet.decode_ipv6, good[:-1]) == "ip_length"
    assert reason(inet.decode_ipv6, good[:41] + b"\2" + good[42:]) == "ip_truncated"
    cut = inet.encode_ipv6(inet.IPv6(A6, B6, 17, b"1234567", next_header=43))
    assert reason(inet.decode_ipv6, cut) == "ip_truncated"


@given(u16, u16, st.binary(max_size=40), u16)
def test_udp_there_and_back(source: int, destination: int, payload: bytes, value: int) -> None:
    datagram = inet.UDP(source, destination, payload, value)
    assert inet.decode_udp(inet.encode_udp(datagram) + b"trailer") == datagram


def test_udp_refusals() -> None:
    assert reason(inet.decode_udp, bytes(7)) == "udp_truncated"
    assert reason(inet.decode_udp, bytes(8)) == "udp_length"
    assert reason(inet.decode_udp, b"\0\0\0\0\0\x0a\0\0\0") == "udp_length"


def slow_checksum(data: bytes) -> int:
    total = sum(int.from_bytes((data + b"\0")[i : i + 2], "big") for i in range(0, len(data), 2))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return 0xFFFF - total


@given(st.binary(max_size=200))
def test_checksum_against_the_definition(data: bytes) -> None:
    assert inet.checksum(data) == slow_checksum(data)
    assert inet.checksum(b"\xff" * len(data)) == slow_checksum(b"\xff" * len(data))


@given(st.binary(min_size=8, max_size=8), st.binary(min_size=4, max_size=4))
def test_checksum_update(data: bytes, after: bytes) -> None:
    changed = data[:2] + after + data[6:]
    updated = inet.update_checksum(inet.checksum(data), data[2:6], after)
    # 0 and 0xFFFF are the same sum in one's complement.
    assert updated % 0xFFFF == inet.checksum(changed) % 0xFFFF


@pytest.mark.parametrize(
    "layer", [UDP(sport=1, dport=2) / b"odd", TCP(sport=1, dport=2) / b"x", ICMP() / b"abc"]
)
def test_fill_checksum_ipv4_against_scapy(layer: Raw) -> None:
    theirs = bytes(IP(src="192.0.2.1", dst="198.51.100.7") / layer)
    segment = bytearray(theirs[20:])
    at = {17: 6, 6: 16, 1: 2}[theirs[9]]
    segment[at : at + 2] = b"\xaa\xaa"
    assert inet.fill_checksum(A4, B4, theirs[9], bytes(segment)) == theirs[20:]


@pytest.mark.parametrize("layer", [UDP(sport=1, dport=2) / b"odd", ICMPv6EchoRequest(data=b"abc")])
def test_fill_checksum_ipv6_against_scapy(layer: Raw) -> None:
    theirs = bytes(IPv6(src="2001:db8::1", dst="2001:db8::2") / layer)
    assert inet.fill_checksum(A6, B6, theirs[6], theirs[40:]) == theirs[40:]


def test_fill_checksum_edges() -> None:
    assert inet.fill_checksum(A4, B4, 132, b"sctp") == b"sctp"
    assert reason(inet.fill_checksum, A4, B4, 17, bytes(7)) == "l4_truncated"
    # A sum that comes out as zero is sent as 0xFFFF, since zero means "none" (RFC 768).
    pseudo = inet.ones_sum(inet.pseudo_header(A4, B4, 17, 10) + b"\0\1\0\2\0\x0a")
    segment = inet.encode_udp(inet.UDP(1, 2, (0xFFFF - pseudo).to_bytes(2, "big")))
    assert inet.fill_checksum(A4, B4, 17, segment)[6:8] == b"\xff\xff"


def test_checksum_offset() -> None:
    assert [inet.checksum_offset(p) for p in (1, 6, 17, 58, 50)] == [None, 16, 6, 2, None]


def test_global_unicast() -> None:
    def packed(text: str) -> bytes:
        return ip_address(text).packed

    for text in ("10.0.0.1", "8.8.8.8", "100.64.0.1", "2001:db8::1", "fd00::1"):
        assert inet.is_global_unicast(packed(text)), text
    for text in (
        "0.0.0.0",
        "127.0.0.1",
        "169.254.1.1",
        "224.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "fe80::1",
        "ff02::2",
    ):
        assert not inet.is_global_unicast(packed(text)), text


@given(st.binary(max_size=80), st.sampled_from([b"", b"\x45\0", b"\x60"]))
def test_any_bytes_decode_or_raise(data: bytes, start: bytes) -> None:
    for decode in (inet.decode_ethernet, inet.decode_ipv4, inet.decode_ipv6, inet.decode_udp):
        with suppress(DecodeError):
            decode(start + data)  # type: ignore[operator]
