"""tof.wire.icmp: echoes and "too big" errors, read back by scapy."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP
from scapy.layers.inet6 import ICMPv6EchoReply, ICMPv6EchoRequest, ICMPv6PacketTooBig, IPv6

from tof.errors import DecodeError
from tof.wire import icmp, inet

A4, B4 = bytes((192, 0, 2, 1)), bytes((198, 51, 100, 7))
A6, B6 = bytes.fromhex("20010db8") + bytes(11) + b"\1", bytes.fromhex("20010db8") + bytes(11) + b"\2"
u16 = st.integers(0, 65535)
echoes = st.builds(icmp.Echo, u16, u16, st.binary(max_size=64), st.booleans())


def reason(call: object, *args: object) -> str:
    with pytest.raises(DecodeError) as caught:
        call(*args)  # type: ignore[operator]
    return caught.value.reason


@given(echoes, st.sampled_from([(A4, B4), (A6, B6)]))
def test_echo_there_and_back(echo: icmp.Echo, ends: tuple[bytes, bytes]) -> None:
    data = icmp.echo_packet(*ends, echo)
    packet = inet.decode_ipv4(data) if len(ends[0]) == 4 else inet.decode_ipv6(data)
    assert (packet.source, packet.destination) == ends
    assert icmp.decode_echo(packet.protocol, packet.payload) == echo
    assert inet.fill_checksum(*ends, packet.protocol, packet.payload) == packet.payload


def test_echo_bytes_are_scapys() -> None:
    echo = icmp.Echo(5, 6, b"token")
    theirs = IP(src="192.0.2.1", dst="198.51.100.7", id=0, ttl=9) / ICMP(id=5, seq=6) / b"token"
    assert icmp.echo_packet(A4, B4, echo, hop_limit=9) == bytes(theirs)
    request = IPv6(src="2001:db8::1", dst="2001:db8::2") / ICMPv6EchoRequest(id=5, seq=6, data=b"token")
    assert icmp.echo_packet(A6, B6, echo) == bytes(request)
    reply = IPv6(src="2001:db8::1", dst="2001:db8::2") / ICMPv6EchoReply(id=5, seq=6, data=b"token")
    assert icmp.echo_packet(A6, B6, echo._replace(reply=True)) == bytes(reply)


def test_echo_refusals() -> None:
    assert reason(icmp.decode_echo, 17, bytes(8)) == "icmp_protocol"
    assert reason(icmp.decode_echo, 1, bytes(7)) == "icmp_truncated"
    assert reason(icmp.decode_echo, 1, b"\3" + bytes(7)) == "icmp_type"
    assert reason(icmp.decode_echo, 1, b"\x08\1" + bytes(6)) == "icmp_type"
    assert reason(icmp.decode_echo, 58, b"\x08" + bytes(7)) == "icmp_type"


def test_fragmentation_needed() -> None:
    packet = inet.encode_ipv4(inet.IPv4(A4, B4, 6, bytes(1480), flags=inet.DONT_FRAGMENT))
    theirs = IP(icmp.fragmentation_needed(packet, 1400))
    assert (theirs.src, theirs.dst) == ("198.51.100.7", "192.0.2.1")
    assert (theirs[ICMP].type, theirs[ICMP].code, theirs[ICMP].nexthopmtu) == (3, 4, 1400)
    assert len(theirs) == 576
    assert bytes(theirs)[28:] == packet[:548]
    segment = bytes(theirs)[20:]
    assert inet.checksum(segment) == 0
    assert IP(icmp.fragmentation_needed(packet, 1400, source=bytes((192, 0, 2, 9)))).src == "192.0.2.9"


@pytest.mark.parametrize(
    "packet",
    [
        inet.IPv4(A4, B4, 1, b"\3" + bytes(7)),
        inet.IPv4(A4, B4, 1, b""),
        inet.IPv4(A4, B4, 17, bytes(8), offset=8),
        inet.IPv4(bytes((224, 0, 0, 1)), B4, 17, b""),
        inet.IPv4(bytes(4), B4, 17, b""),
        inet.IPv4(bytes((127, 0, 0, 1)), B4, 17, b""),
        inet.IPv4(A4, bytes((239, 0, 0, 1)), 17, b""),
    ],
)
def test_fragmentation_needed_is_never_sent_about(packet: inet.IPv4) -> None:
    answered = packet.protocol == 1 and not packet.payload
    data = inet.encode_ipv4(packet)
    if answered:
        assert icmp.fragmentation_needed(data, 1400)
    else:
        assert reason(icmp.fragmentation_needed, data, 1400) == "icmp_unanswerable"


def test_an_echo_that_does_not_fit_is_answered() -> None:
    assert IP(icmp.fragmentation_needed(icmp.echo_packet(A4, B4, icmp.Echo(1, 1)), 576))[ICMP].type == 3
    assert (
        IPv6(icmp.packet_too_big(icmp.echo_packet(A6, B6, icmp.Echo(1, 1)), 1280))[ICMPv6PacketTooBig].mtu
        == 1280
    )


def test_packet_too_big() -> None:
    packet = inet.encode_ipv6(inet.IPv6(A6, B6, 17, bytes(1460)))
    data = icmp.packet_too_big(packet, 0x12345)
    theirs = IPv6(data)
    assert (theirs.src, theirs.dst, len(data)) == ("2001:db8::2", "2001:db8::1", 1280)
    assert theirs[ICMPv6PacketTooBig].mtu == 0x12345
    assert data[48:] == packet[:1232]
    assert inet.fill_checksum(B6, A6, 58, data[40:]) == data[40:]
    assert IPv6(icmp.packet_too_big(packet, 1400, source=A6[:-1] + b"\x09")).src == "2001:db8::9"


@pytest.mark.parametrize(
    "packet",
    [
        inet.IPv6(A6, B6, 58, b"\2" + bytes(7)),
        inet.IPv6(A6, B6, 58, b"\x89" + bytes(7)),
        inet.IPv6(b"\xff\2" + bytes(14), B6, 17, b""),
        inet.IPv6(bytes(16), B6, 17, b""),
    ],
)
def test_packet_too_big_is_never_sent_about(packet: inet.IPv6) -> None:
    assert reason(icmp.packet_too_big, inet.encode_ipv6(packet), 1400) == "icmp_unanswerable"


@given(st.binary(max_size=80), st.sampled_from([1, 58, 17]))
def test_any_bytes_decode_or_raise(data: bytes, protocol: int) -> None:
    for call, args in (
        (icmp.decode_echo, (protocol, data)),
        (icmp.fragmentation_needed, (data, 1400)),
        (icmp.packet_too_big, (data, 1400)),
    ):
        with suppress(DecodeError):
            call(*args)  # type: ignore[operator]
