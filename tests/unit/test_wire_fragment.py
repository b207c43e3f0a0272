"""Outer fragments: bytes to values, against scapy's own fragmentation."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, fragment
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment, fragment6
from scapy.packet import Raw

from tof.errors import DecodeError
from tof.wire.fragment import FragmentKey, decode_fragment
from tof.wire.inet import IPv4, encode_ipv4

A4, B4 = bytes((10, 0, 0, 1)), bytes((10, 0, 0, 2))
A6, B6 = (bytes.fromhex("20010db8" + "00" * 11 + end) for end in ("01", "02"))


def reason(packet: bytes) -> str:
    with pytest.raises(DecodeError) as caught:
        decode_fragment(packet)
    return caught.value.reason


def test_ipv4_against_scapy() -> None:
    data = bytes(range(256)) * 12
    pieces = fragment(IP(src="10.0.0.1", dst="10.0.0.2", id=777, proto=17) / Raw(data), fragsize=1480)
    read = [decode_fragment(bytes(piece), 7) for piece in pieces]
    assert [one.offset for one in read] == [0, 1480, 2960]
    assert [one.more for one in read] == [True, True, False]
    assert b"".join(one.payload for one in read) == data
    assert {one.key for one in read} == {FragmentKey(A4, B4, 17, 777, 7)}
    assert {one.most for one in read} == {65515}


def test_ipv4_padding_is_no_payload_and_options_are_no_room() -> None:
    packet = encode_ipv4(IPv4(A4, B4, 17, bytes(16), identification=1, flags=1, options=bytes(4)))
    read = decode_fragment(packet + bytes(6))
    assert (read.payload, read.most) == (bytes(16), 65511)


def test_ipv6_against_scapy() -> None:
    data = bytes(range(256)) * 12
    whole = IPv6(src="2001:db8::1", dst="2001:db8::2") / IPv6ExtHdrFragment(id=0xFEDCBA98, nh=17) / Raw(data)
    read = [decode_fragment(bytes(piece) + bytes(3)) for piece in fragment6(whole, 1280)]
    assert b"".join(one.payload for one in read) == data
    assert [one.more for one in read] == [True, True, False]
    assert [one.offset for one in read] == [0, 1232, 2464]
    assert {one.key for one in read} == {FragmentKey(A6, B6, 17, 0xFEDCBA98, None)}
    assert {one.most for one in read} == {65535}


def test_what_is_no_fragment() -> None:
    six = bytes(IPv6(src="2001:db8::1", dst="2001:db8::2") / IPv6ExtHdrFragment(nh=17, m=1) / Raw(bytes(8)))
    assert reason(encode_ipv4(IPv4(A4, B4, 17, bytes(8), flags=2))) == "ip_whole"
    assert reason(bytes(IPv6(nh=17) / Raw(bytes(8)))) == "ip_whole"
    assert reason(b"") == "ip_truncated"
    assert reason(six[:39]) == "ip_truncated"
    assert reason(six[:-1]) == "ip_length"
    assert reason(six[:4] + b"\0\x07" + six[6:]) == "ip_truncated"


@given(st.binary(max_size=80), st.sampled_from([b"", b"\x45", b"\x60" + bytes(5) + b"\x2c"]))
def test_any_bytes_are_read_or_refused(data: bytes, beginning: bytes) -> None:
    try:
        read = decode_fragment(beginning + data)
    except DecodeError:
        return
    assert read.offset % 8 == 0
    assert read.more or read.offset or len(read.key.source) == 16
