"""What an app hears about packets that do not fit, and what the UE gets in pieces."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from tof.agent.toobig import Remedy, remedy, room_in_tunnel
from tof.errors import DecodeError
from tof.model import Service, TunnelKey
from tof.wire.inet import (
    IPv4,
    IPv6,
    checksum,
    decode_ipv4,
    decode_ipv6,
    encode_ipv4,
    encode_ipv6,
    fragment_ipv4,
)

SERVICE, APP, UE, GATEWAY = "203.0.113.10", "192.168.50.10", "10.45.0.1", "192.168.50.1"
SERVICE6, APP6, UE6, GATEWAY6 = "2001:db8::10", "fd00::10", "2001:db8:1::1", "fd00::1"
HEAD = bytes.fromhex("0270ffffffff020000000001")


def packed(text: str) -> bytes:
    return ip_address(text).packed


def service(public: str, app: str) -> Service:
    return Service("video", ip_address(public), ip_address(app))


def frame4(size: int, flags: int, payload: bytes | None = None) -> bytes:
    body = payload if payload is not None else bytes(range(256)) * (size // 256 + 1)
    packet = IPv4(packed(SERVICE), packed(UE), 17, body[: size - 20], flags=flags, identification=7)
    return HEAD + b"\x08\x00" + encode_ipv4(packet)


@pytest.mark.parametrize(
    ("source", "container", "room"),
    [
        ("10.0.0.1", False, 1464),
        ("10.0.0.1", True, 1456),
        ("2001:db8::1", False, 1444),
        ("2001:db8::1", True, 1436),
    ],
)
def test_room_is_what_ip_udp_and_gtpu_leave(source: str, container: bool, room: int) -> None:
    key = TunnelKey(packed(source), packed(source), 1)
    assert room_in_tunnel(key, 1500, container) == room


def test_an_app_hears_the_mtu_and_sees_its_own_packet_quoted() -> None:
    done = remedy(frame4(1500, flags=2), 1464, service(SERVICE, APP), ip_address(GATEWAY))
    assert done.answer is not None
    answer = decode_ipv4(done.answer)
    assert (answer.source, answer.destination, answer.protocol) == (packed(GATEWAY), packed(APP), 1)
    assert answer.payload[:2] == bytes((3, 4))
    assert int.from_bytes(answer.payload[6:8], "big") == 1464
    assert checksum(answer.payload) == 0
    quoted = answer.payload[8:]
    assert (quoted[12:16], quoted[16:20]) == (packed(APP), packed(UE))
    assert checksum(quoted[:20]) == 0
    assert done.pieces == ()


def test_an_ipv6_app_hears_packet_too_big() -> None:
    packet = IPv6(packed(SERVICE6), packed(UE6), 17, bytes(1460))
    frame = HEAD + b"\x86\xdd" + encode_ipv6(packet)
    done = remedy(frame, 1444, service(SERVICE6, APP6), ip_address(GATEWAY6))
    assert done.answer is not None
    answer = decode_ipv6(done.answer)
    assert (answer.source, answer.destination) == (packed(GATEWAY6), packed(APP6))
    assert answer.payload[0] == 2
    assert int.from_bytes(answer.payload[4:8], "big") == 1444
    assert decode_ipv6(answer.payload[8:] + bytes(1500)).source == packed(APP6)


def test_without_df_the_ue_gets_pieces_that_fit_and_join() -> None:
    frame = frame4(1500, flags=0)
    done = remedy(frame, 1464, None, None)
    assert done.answer is None
    parts = [decode_ipv4(piece[14:]) for piece in done.pieces]
    assert all(len(piece) - 14 <= 1464 and piece[:14] == frame[:14] for piece in done.pieces)
    assert [part.flags for part in parts] == [1, 0]
    assert b"".join(part.payload for part in parts) == decode_ipv4(frame[14:]).payload
    assert [part.offset for part in parts] == [0, len(parts[0].payload)]
    assert {part.identification for part in parts} == {7}


def test_a_fragment_in_the_middle_stays_one() -> None:
    packet = encode_ipv4(IPv4(packed(SERVICE), packed(UE), 17, bytes(800), flags=1, offset=1480))
    parts = [decode_ipv4(piece) for piece in fragment_ipv4(packet, 500)]
    assert [part.flags for part in parts] == [1, 1]
    assert parts[0].offset == 1480


def test_what_fits_is_left_alone() -> None:
    packet = frame4(500, flags=0)[14:]
    assert fragment_ipv4(packet, 1464) == [packet]


def test_a_fragment_that_ends_behind_65535_is_refused() -> None:
    packet = encode_ipv4(IPv4(packed(SERVICE), packed(UE), 17, bytes(800), flags=1, offset=65000))
    with pytest.raises(DecodeError, match="ip_length"):
        fragment_ipv4(packet, 500)
    assert remedy(HEAD + b"\x08\x00" + packet, 500, None, None) == Remedy()


def test_a_frame_without_an_ip_header_is_left_alone() -> None:
    assert remedy(HEAD + b"\x08\x00" + b"\x45", 500, service(SERVICE, APP), ip_address(GATEWAY)) == Remedy()


@pytest.mark.parametrize(("flags", "mtu"), [(2, 1464), (0, 24)])
def test_what_must_not_be_cut_is_refused(flags: int, mtu: int) -> None:
    with pytest.raises(DecodeError, match="ip_dont_fragment"):
        fragment_ipv4(frame4(1500, flags)[14:], mtu)


def test_nothing_is_said_for_an_unknown_service_or_without_a_gateway() -> None:
    assert remedy(frame4(1500, flags=2), 1464, None, ip_address(GATEWAY)) == Remedy()
    assert remedy(frame4(1500, flags=2), 1464, service(SERVICE, APP), None) == Remedy()


def test_an_error_message_is_not_answered() -> None:
    packet = IPv4(packed(SERVICE), packed(UE), 1, b"\x03\x03" + bytes(1470), flags=2)
    frame = HEAD + b"\x08\x00" + encode_ipv4(packet)
    assert remedy(frame, 1464, service(SERVICE, APP), ip_address(GATEWAY)) == Remedy()
