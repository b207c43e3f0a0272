"""What must hold for any bytes whatever: the codecs and all that reads packets from the wire without I/O.

A target takes bytes and returns, or fails an assertion, or lets an exception out that is no DecodeError.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

from tof.agent.events import GpduSeen
from tof.agent.observe import observe
from tof.agent.toobig import remedy
from tof.errors import DecodeError
from tof.model import Service, Side
from tof.wire import gtpu, icmp, inet

_V4 = Service("four", ip_address("203.0.113.10"), ip_address("192.168.50.10"))
_V6 = Service("six", ip_address("2001:db8:ffff::10"), ip_address("2001:db8:50::10"))
_GATEWAYS = {4: ip_address("192.168.50.1"), 6: ip_address("2001:db8:50::1")}


def tried(function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """What ``function`` returns, None for a DecodeError."""
    try:
        return function(*arguments, **named)
    except DecodeError:
        return None


def gtpu_message(data: bytes) -> None:
    """Decoding is exact: what is encoded again differs in octets that their flags declare void, if at all."""
    message = tried(gtpu.decode, data)
    if message is None:
        return
    again = gtpu.encode(message)
    assert gtpu.decode(again) == message
    void = bytearray(data)
    if message.flags & 7:
        void[8:10] = void[8:10] if message.flags & gtpu.FLAG_S else b"\0\0"
        void[10] = void[10] if message.flags & gtpu.FLAG_PN else 0
        void[11] = void[11] if message.flags & gtpu.FLAG_E else 0
    assert again == bytes(void)
    assert message.qfi is None or 0 <= message.qfi <= 63
    assert (message.qfi is None) == (message.pdu_type is None)
    tried(gtpu.error_indication, message)
    value = tried(gtpu.recovery, message)
    assert value is None or 0 <= value <= 255
    strict = tried(gtpu.inner, message.payload)
    if strict is not None:
        assert 20 <= strict.payload_offset <= len(message.payload)
        assert tried(gtpu.inner, message.payload, cut=True) == strict
        for length in range(0, len(message.payload), 7):
            beginning = tried(gtpu.inner, message.payload[:length], cut=True)
            assert beginning is None or beginning[:2] == strict[:2]


def gtpu_packet(data: bytes) -> None:
    """What is accepted strictly is accepted leniently and read alike; so is any beginning of it."""
    strict, lenient = (tried(gtpu.decode_gpdu, data, partial_ok=partial) for partial in (False, True))
    if strict is None:
        return
    assert strict == lenient
    assert len(strict.source) == len(strict.destination) in (4, 16)
    for length in range(0, len(data), 5):
        beginning = tried(gtpu.decode_gpdu, data[:length], partial_ok=True)
        if beginning is not None:
            assert beginning[:4] == strict[:4]
            assert beginning.message[:6] == strict.message[:6]
            assert strict.message.payload.startswith(beginning.message.payload)


def inet_layers(data: bytes) -> None:
    """Every layer there and back; checksums computed in two ways agree."""
    frame = tried(inet.decode_ethernet, data)
    if frame is not None:
        assert inet.encode_ethernet(frame) == data
        assert frame.vlan is None or 0 < frame.vlan < 4096
    _ipv4(data)
    _ipv6(data)
    datagram = tried(inet.decode_udp, data)
    if datagram is not None:
        assert inet.encode_udp(datagram) == data[: 8 + len(datagram.payload)]
    if data:
        _segment(data[0], data[1:])


def _ipv4(data: bytes) -> None:
    packet = tried(inet.decode_ipv4, data)
    if packet is None:
        return
    again = inet.encode_ipv4(packet)
    assert again[:10] + again[12:] == (data[:10] + data[12:])[: len(again) - 2]
    assert inet.ones_sum(again[: (again[0] & 15) * 4]) == 0xFFFF
    assert inet.decode_ipv4(again) == packet
    assert inet.fix_ipv4_header(data[: len(again)]) == again
    inet.is_global_unicast(packet.source)
    for mtu in (68, 1500):
        pieces = tried(inet.fragment_ipv4, data[: len(again)], mtu)
        if pieces is None:
            beyond = packet.offset + len(packet.payload) > 0xFFFF
            assert beyond or packet.flags & inet.DONT_FRAGMENT or mtu - 20 - len(packet.options) < 8
            assert len(again) > mtu
            continue
        parts = [inet.decode_ipv4(piece) for piece in pieces]
        assert all(len(piece) <= mtu for piece in pieces)
        assert b"".join(part.payload for part in parts) == packet.payload
        assert [part.offset for part in parts] == [
            packet.offset + sum(len(part.payload) for part in parts[:at]) for at in range(len(parts))
        ]
        assert parts[-1].flags & 1 == packet.flags & 1
        assert all(part.flags & 1 for part in parts[:-1])


def _ipv6(data: bytes) -> None:
    packet = tried(inet.decode_ipv6, data)
    if packet is None:
        return
    again = inet.encode_ipv6(packet)
    assert again == data[: len(again)]
    assert inet.decode_ipv6(again) == packet
    assert packet.offset == 0 or packet.offset % 8 == 0
    inet.is_global_unicast(packet.source)


def _segment(protocol: int, segment: bytes) -> None:
    source, destination = bytes((10, 0, 0, 1)), bytes((203, 0, 113, 9))
    filled = tried(inet.fill_checksum, source, destination, protocol, segment)
    at = inet.checksum_offset(protocol)
    if filled is None or at is None:
        return
    assert filled[:at] + filled[at + 2 :] == segment[:at] + segment[at + 2 :]
    pseudo = inet.pseudo_header(source, destination, protocol, len(segment))
    assert inet.ones_sum(pseudo + filled) == 0xFFFF
    other = bytes((172, 16, 9, 255))
    value = inet.update_checksum(int.from_bytes(filled[at : at + 2], "big"), source, other)
    moved = filled[:at] + value.to_bytes(2, "big") + filled[at + 2 :]
    assert inet.ones_sum(inet.pseudo_header(other, destination, protocol, len(segment)) + moved) == 0xFFFF


def icmp_messages(data: bytes) -> None:
    """Errors about any packet quote it, are within bounds and right, and are never about an error."""
    for protocol in (inet.ICMP, inet.ICMPV6):
        echo = tried(icmp.decode_echo, protocol, data)
        if echo is not None:
            ends = (bytes(range(4)), bytes(4)) if protocol == inet.ICMP else (bytes(range(16)), bytes(16))
            packet = icmp.echo_packet(*ends, echo)
            decode = inet.decode_ipv4 if protocol == inet.ICMP else inet.decode_ipv6
            assert icmp.decode_echo(protocol, decode(packet).payload) == echo
    answer = tried(icmp.fragmentation_needed, data, 1400)
    if answer is not None:
        said = inet.decode_ipv4(answer)
        assert len(answer) <= 576
        assert inet.ones_sum(said.payload) == 0xFFFF
        assert data.startswith(said.payload[8:])
        assert tried(icmp.fragmentation_needed, answer, 1400) is None
    answer = tried(icmp.packet_too_big, data, 1400)
    if answer is not None:
        told = inet.decode_ipv6(answer)
        assert len(answer) <= 1280
        pseudo = inet.pseudo_header(told.source, told.destination, inet.ICMPV6, len(told.payload))
        assert inet.ones_sum(pseudo + told.payload) == 0xFFFF
        assert data.startswith(told.payload[8:])
        assert tried(icmp.packet_too_big, answer, 1400) is None


def observed(data: bytes) -> None:
    """An event is of the packet's own addresses, and the same from the whole packet and from a copy of it."""
    for side in Side:
        event = tried(observe, side, data, None)
        if event is None:
            continue
        assert tried(observe, side, data, None, cut=True) == event
        if isinstance(event, GpduSeen):
            assert event.key.teid
            assert event.token is None or side is Side.SGW
            assert event.key.source + event.key.destination in data[:40]
            assert event.source + event.destination in data
            assert 0 < event.size < len(data)


def too_big(data: bytes) -> None:
    """A frame that does not fit is answered or cut into pieces that fit, with every byte in them."""
    mtu = 1280 if data[:1] > b"\x40" else 100
    for service in (None, _V4, _V6):
        version = 4 if service is _V4 else 6
        if service is not None and (len(data) < 15 or data[14] >> 4 != version):
            continue
        done = remedy(data, mtu, service, _GATEWAYS[version])
        assert not (done.answer and done.pieces)
        assert service or not done.answer
        for piece in done.pieces:
            assert piece[:14] == data[:14]
            assert len(piece) <= 14 + mtu or piece == data
        if done.pieces:
            whole = b"".join(inet.decode_ipv4(piece[14:]).payload for piece in done.pieces)
            assert whole == inet.decode_ipv4(data[14:]).payload


TARGETS: dict[str, Callable[[bytes], None]] = {
    "gtpu_message": gtpu_message,
    "gtpu_packet": gtpu_packet,
    "inet": inet_layers,
    "icmp": icmp_messages,
    "observe": observed,
    "too_big": too_big,
}
