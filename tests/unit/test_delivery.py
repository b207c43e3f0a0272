"""From a reassembled datagram to the frames that carry the UE's packet on."""

from __future__ import annotations

import pytest

from tof.agent.delivery import Frames, UserPacket, frames, unveiled, user_packet
from tof.errors import DecodeError
from tof.model import GATEWAY_MAC, TunnelKey, service_mac, tunnel_mac
from tof.wire import gtpu
from tof.wire.fragment import FragmentKey
from tof.wire.icmp import Echo, echo_packet
from tof.wire.inet import (
    UDP,
    UDP_PROTOCOL,
    IPv4,
    IPv6,
    checksum,
    decode_ipv4,
    decode_ipv6,
    encode_ipv4,
    encode_ipv6,
    encode_udp,
)

ENB, SGW = bytes((10, 1, 0, 11)), bytes((10, 1, 0, 1))
UE, SERVICE = bytes((10, 45, 0, 2)), bytes((203, 0, 113, 10))
UE6, SERVICE6 = (bytes.fromhex("20010db8" + "00" * 11 + end) for end in ("45", "10"))
KEY = FragmentKey(ENB, SGW, 17, 1, 7)


def user(size: int = 1500, **more: int) -> bytes:
    return encode_ipv4(IPv4(UE, SERVICE, UDP_PROTOCOL, bytes(size - 20), **more))


def user6(size: int = 1500) -> bytes:
    return encode_ipv6(IPv6(UE6, SERVICE6, UDP_PROTOCOL, bytes(size - 40)))


def whole(message: bytes, port: int = gtpu.PORT) -> bytes:
    return encode_udp(UDP(2152, port, message))


def gpdu(packet: bytes, kind: int = gtpu.G_PDU) -> bytes:
    return gtpu.encode(gtpu.Message(0x30, kind, 0x77, payload=packet))


@pytest.mark.parametrize("packet", [user(), user6()])
def test_the_users_packet_without_what_follows_it(packet: bytes) -> None:
    expected = UserPacket(TunnelKey(ENB, SGW, 0x77, 7), packet)
    assert user_packet(KEY, whole(gpdu(packet))) == expected
    assert user_packet(KEY, whole(gpdu(packet + b"trailer"))) == expected


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (whole(gpdu(user())) + b"more", "udp_length"),
        (whole(gpdu(user()))[:-1], "udp_length"),
        (whole(gpdu(user()), port=53), "udp_port"),
        (whole(gpdu(user()) + b"x"), "gtpu_length"),
        (whole(gpdu(user(), gtpu.END_MARKER)), "gtpu_message"),
        (whole(gpdu(user()[:-1])), "inner_length"),
    ],
)
def test_lengths_that_disagree(bad: bytes, reason: str) -> None:
    with pytest.raises(DecodeError, match=reason):
        user_packet(KEY, bad)


@pytest.mark.parametrize(("packet", "ethertype"), [(user(), b"\x08\x00"), (user6(), b"\x86\xdd")])
def test_what_fits_goes_as_xdp_would_have_sent_it(packet: bytes, ethertype: bytes) -> None:
    assert frames(5, packet, 1500, 9) == Frames(onward=(service_mac(9) + tunnel_mac(5) + ethertype + packet,))


def test_what_may_be_cut_is_cut() -> None:
    out = frames(5, user(4000), 1500, 9)
    assert out.back == ()
    assert {frame[:14] for frame in out.onward} == {service_mac(9) + tunnel_mac(5) + b"\x08\x00"}
    assert max(len(frame) for frame in out.onward) <= 1514
    pieces = [decode_ipv4(frame[14:]) for frame in out.onward]
    assert b"".join(piece.payload for piece in pieces) == user(4000)[20:]
    assert [(piece.protocol, piece.flags & 4) for piece in pieces] == [(17, 0), (253, 4), (253, 4)]
    assert all(checksum(frame[14:34]) == 0 for frame in out.onward)


@pytest.mark.parametrize(("protocol", "shown"), [(17, 253), (6, 254), (1, 1)])
def test_open_vswitch_takes_no_later_fragment_for_a_header(protocol: int, shown: int) -> None:
    later = encode_ipv4(IPv4(UE, SERVICE, protocol, bytes(800), offset=800))
    [frame] = frames(5, later, 1500, 9).onward
    seen = decode_ipv4(frame[14:])
    assert (seen.protocol, seen.flags, checksum(frame[14:34])) == (shown, 0 if shown == 1 else 4, 0)
    assert seen._replace(protocol=protocol, flags=0) == decode_ipv4(later)
    [plain] = frames(5, later, 1500, 9, veiled=False).onward
    assert plain[14:] == later
    assert unveiled(frame[14:]) == unveiled(later) == later


@pytest.mark.parametrize(
    "packet",
    [
        user(100),
        user6(100),
        encode_ipv4(IPv4(UE, SERVICE, 253, bytes(80), offset=800)),
        encode_ipv4(IPv4(UE, SERVICE, 253, bytes(80), flags=4)),
    ],
    ids=["IPv4", "IPv6", "another's protocol", "no later fragment"],
)
def test_what_was_never_veiled_is_not_unveiled(packet: bytes) -> None:
    assert unveiled(packet) == packet


def test_the_ue_is_told_what_fits() -> None:
    out = frames(5, user(4000, flags=2), 1500, 9)
    told = decode_ipv4(out.back[0][14:])
    assert (out.onward, told.source, told.destination) == ((), SERVICE, UE)
    assert (told.payload[:2], told.payload[6:8]) == (b"\x03\x04", (1500).to_bytes(2, "big"))
    out = frames(5, user6(4000), 1500, 9)
    told6 = decode_ipv6(out.back[0][14:])
    assert (out.onward, told6.source, told6.destination) == ((), SERVICE6, UE6)
    assert (told6.payload[:2], told6.payload[4:8]) == (b"\x02\x00", (1500).to_bytes(4, "big"))
    assert {frame[:12] for frame in out.back} == {GATEWAY_MAC + service_mac(9)}


def test_what_may_not_be_answered() -> None:
    error = encode_ipv4(IPv4(UE, SERVICE, 1, b"\x03\x03" + bytes(4000), flags=2))
    assert frames(5, error, 1500, 9) == Frames()
    assert frames(5, echo_packet(UE, SERVICE, Echo(1, 1, bytes(4000))), 1500, 9).onward
