"""A reassembled datagram on its way to an application: the tunnel it came in, and the frames that carry it on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from tof.errors import DecodeError
from tof.model import GATEWAY_MAC, TunnelKey, service_mac, tunnel_mac
from tof.wire import gtpu
from tof.wire.fragment import FragmentKey
from tof.wire.icmp import fragmentation_needed, packet_too_big
from tof.wire.inet import (
    TCP,
    UDP_PROTOCOL,
    decode_ipv4,
    decode_ipv6,
    decode_udp,
    fix_ipv4_header,
    fragment_ipv4,
)

_DONT_FRAGMENT = 2
_VEILS = {UDP_PROTOCOL: 253, TCP: 254}
_VEIL_BIT = 0x80


class UserPacket(NamedTuple):
    """A UE's packet and the tunnel that carried it."""

    tunnel: TunnelKey
    packet: bytes


@dataclass(frozen=True, slots=True)
class Frames:
    """``onward``: into br-ue as XDP would have put them; ``back``: to the UE whose packet is too long to go on."""

    onward: tuple[bytes, ...] = ()
    back: tuple[bytes, ...] = ()


def user_packet(key: FragmentKey, payload: bytes) -> UserPacket:
    """What a datagram of UDP carries; DecodeError when the lengths of IP, UDP and GTP-U disagree."""
    datagram = decode_udp(payload)
    if len(datagram.payload) != len(payload) - 8:
        raise DecodeError("udp_length")
    if datagram.destination_port != gtpu.PORT:
        raise DecodeError("udp_port")
    message = gtpu.decode(datagram.payload)
    if message.type != gtpu.G_PDU:
        raise DecodeError("gtpu_message")
    gtpu.inner(message.payload)
    packet = message.payload
    length = (
        int.from_bytes(packet[2:4], "big") if packet[0] >> 4 == 4 else 40 + int.from_bytes(packet[4:6], "big")
    )
    return UserPacket(TunnelKey(key.source, key.destination, message.teid, key.vlan), packet[:length])


def frames(index: int, packet: bytes, mtu: int, number: int, *, veiled: bool = True) -> Frames:
    """``packet``, which came in tunnel ``index``, for service ``number``'s application behind a link of ``mtu`` bytes.

    Too long, it is cut where that is allowed; else its sender is told (RFC 1191, RFC 8201). ``veiled``: later
    fragments look on br-ue as `veil` in tof/drivers/bpf/tof.bpf.c makes them look.
    """
    six = packet[0] >> 4 == 6
    ethertype = b"\x86\xdd" if six else b"\x08\x00"
    head = service_mac(number) + tunnel_mac(index) + ethertype
    to_ue = GATEWAY_MAC + service_mac(number) + ethertype
    if len(packet) <= mtu:
        return Frames(onward=(head + (_veiled(packet) if veiled and not six else packet),))
    try:
        if six:
            return Frames(back=(to_ue + packet_too_big(packet, mtu, source=decode_ipv6(packet).destination),))
        if decode_ipv4(packet).flags & _DONT_FRAGMENT:
            return Frames(back=(to_ue + fragmentation_needed(packet, mtu),))
        pieces = fragment_ipv4(packet, mtu)
        return Frames(onward=tuple(head + (_veiled(piece) if veiled else piece) for piece in pieces))
    except DecodeError:
        return Frames()


def unveiled(packet: bytes) -> bytes:
    """A packet on br-ue as it was before it was ``_veiled``."""
    real = (
        {veil: protocol for protocol, veil in _VEILS.items()}.get(packet[9]) if packet[0] >> 4 == 4 else None
    )
    if real is None or not packet[6] & _VEIL_BIT or not int.from_bytes(packet[6:8], "big") & 0x1FFF:
        return packet
    shown = packet[:6] + bytes((packet[6] & ~_VEIL_BIT,)) + packet[7:9] + bytes((real,)) + packet[10:]
    return fix_ipv4_header(shown)


def _veiled(packet: bytes) -> bytes:
    """Hidden from an Open vSwitch that would "correct checksums" in a later fragment's data."""
    veil = _VEILS.get(packet[9])
    if veil is None or not int.from_bytes(packet[6:8], "big") & 0x1FFF:
        return packet
    hidden = packet[:6] + bytes((packet[6] | _VEIL_BIT,)) + packet[7:9] + bytes((veil,)) + packet[10:]
    return fix_ipv4_header(hidden)
