"""Laboratory: frames as the emulated nodes write and read them."""

from __future__ import annotations

from struct import Struct
from typing import NamedTuple

from tof.errors import DecodeError
from tof.wire import gtpu, icmp, inet

ECHO_PORT = 7
FLOW_PORTS = 5000
"""Servers answer on the echo port, and on all from here on."""
MARK = b"tof-lab:"
TOKEN = 8

_ARP = Struct("!HHBBH6s4s6s4s")
_ARP_REQUEST, _ARP_REPLY = 1, 2
_BROADCAST = b"\xff" * 6
_SOLICITATION, _ADVERTISEMENT = 135, 136
_ROUTER_SOLICITATION, _ROUTER_ADVERTISEMENT = 133, 134
_ALL_NODES = bytes.fromhex("ff020000000000000000000000000001")
_ALL_ROUTERS = bytes.fromhex("ff020000000000000000000000000002")
_CORE_LINK_LOCAL = bytes.fromhex("fe800000000000000000000000000001")


class Place(NamedTuple):
    """Where a node is: its address, packed, and its MAC."""

    address: bytes
    mac: bytes


class Arrived(NamedTuple):
    """A GTP-U message as a node gets it; ``injected``: the box between made it, none of the nodes did."""

    source: bytes
    destination: bytes
    source_port: int
    message: gtpu.Message
    vlan: int | None
    injected: bool


class UserPacket(NamedTuple):
    """A user's packet, read; ``port`` is its destination's UDP port, 0 for anything but UDP."""

    source: bytes
    destination: bytes
    protocol: int
    source_port: int
    port: int
    token: bytes
    segment: bytes


def ip_packet(source: bytes, destination: bytes, protocol: int, segment: bytes, ttl: int = 64) -> bytes:
    """An IP packet of the addresses' family, its upper checksum made right."""
    segment = inet.fill_checksum(source, destination, protocol, segment)
    if len(source) == 4:
        return inet.encode_ipv4(inet.IPv4(source, destination, protocol, segment, ttl))
    return inet.encode_ipv6(inet.IPv6(source, destination, protocol, segment, ttl))


def udp_packet(
    source: tuple[bytes, int], destination: tuple[bytes, int], data: bytes, ttl: int = 64
) -> bytes:
    """A UDP datagram in an IP packet; the ends are (address, port)."""
    datagram = inet.encode_udp(inet.UDP(source[1], destination[1], data))
    return ip_packet(source[0], destination[0], inet.UDP_PROTOCOL, datagram, ttl)


def frame(macs: tuple[bytes, bytes], packet: bytes, vlan: int | None = None) -> bytes:
    """The Ethernet frame of an IP packet; ``macs`` are source and destination."""
    tags = () if vlan is None else ((0x8100, vlan),)
    ethertype = inet.ETHERTYPE_IPV4 if packet[0] >> 4 == 4 else inet.ETHERTYPE_IPV6
    return inet.encode_ethernet(inet.Ethernet(macs[1], macs[0], ethertype, packet, tags))


def arrived(data: inet.Ethernet, *, injected: bool) -> Arrived | None:
    """The GTP-U message in a frame; None if it holds none. An Error Indication may go to any port."""
    try:
        version = data.payload[0] >> 4 if data.payload else 0
        packet = inet.decode_ipv4(data.payload) if version == 4 else inet.decode_ipv6(data.payload)
        if packet.protocol != inet.UDP_PROTOCOL:
            return None
        datagram = inet.decode_udp(packet.payload)
        message = gtpu.decode(datagram.payload)
    except DecodeError:
        return None
    if gtpu.PORT not in (datagram.destination_port, datagram.source_port):
        return None
    return Arrived(packet.source, packet.destination, datagram.source_port, message, data.vlan, injected)


def user_packet(packet: bytes) -> UserPacket | None:
    """Read a user's packet; None if it is not IP, or cut."""
    try:
        read = inet.decode_ipv4(packet) if packet[:1] and packet[0] >> 4 == 4 else inet.decode_ipv6(packet)
        ports = inet.decode_udp(read.payload)[:2] if read.protocol == inet.UDP_PROTOCOL else (0, 0)
    except DecodeError:
        return None
    at = read.payload.find(MARK)
    token = read.payload[at + len(MARK) : at + len(MARK) + TOKEN] if at >= 0 else b""
    return UserPacket(read.source, read.destination, read.protocol, *ports, token, read.payload)


def echo_of(packet: UserPacket) -> icmp.Echo | None:
    """The ICMP or ICMPv6 echo in a user's packet, if that is what it holds."""
    try:
        return icmp.decode_echo(packet.protocol, packet.segment)
    except DecodeError:
        return None


def answer(packet: UserPacket, prefix: bytes) -> bytes | None:
    """What a server says to a user's packet: an echo reply, or UDP data behind ``prefix``; None to others."""
    echo = echo_of(packet)
    if echo is not None and not echo.reply:
        return icmp.echo_packet(packet.destination, packet.source, echo._replace(reply=True), hop_limit=55)
    if packet.port == ECHO_PORT or packet.port >= FLOW_PORTS:
        ends = (packet.destination, packet.port), (packet.source, packet.source_port)
        return udp_packet(*ends, prefix + packet.segment[8:], ttl=55)
    return None


def router_solicitation(link_local: bytes) -> bytes:
    """What an IPv6 UE says first (RFC 4861 section 4.1)."""
    segment = bytes((_ROUTER_SOLICITATION,)) + bytes(7)
    return ip_packet(link_local, _ALL_ROUTERS, inet.ICMPV6, segment, 255)


def router_advertisement(packet: UserPacket, prefix: bytes) -> bytes | None:
    """The answer to a router solicitation: the UE's /64 (RFC 4861 section 4.2); None to anything else."""
    if packet.protocol != inet.ICMPV6 or packet.segment[:1] != bytes((_ROUTER_SOLICITATION,)):
        return None
    header = bytes((_ROUTER_ADVERTISEMENT, 0, 0, 0, 64, 0, 0xFF, 0xFF)) + bytes(8)
    option = bytes((3, 4, 64, 0x40)) + b"\xff" * 8 + bytes(4) + prefix[:8] + bytes(8)
    return ip_packet(_CORE_LINK_LOCAL, _ALL_NODES, inet.ICMPV6, header + option, 255)


def neighbour_request(asker: Place, wanted: bytes, vlan: int | None = None) -> bytes:
    """The ARP request or neighbour solicitation for ``wanted``, as a frame."""
    if len(wanted) == 4:
        body = _ARP.pack(1, 0x800, 6, 4, _ARP_REQUEST, asker.mac, asker.address, bytes(6), wanted)
        return _arp((asker.mac, _BROADCAST), body, vlan)
    group = bytes.fromhex("ff0200000000000000000001ff") + wanted[13:]
    segment = bytes((_SOLICITATION,)) + bytes(7) + wanted + b"\x01\x01" + asker.mac
    packet = ip_packet(asker.address, group, inet.ICMPV6, segment, 255)
    return frame((asker.mac, b"\x33\x33\xff" + wanted[13:]), packet, vlan)


def wanted_neighbour(data: inet.Ethernet) -> tuple[bytes, Place] | None:
    """The address that an ARP request or neighbour solicitation asks for, and who asks."""
    if data.ethertype == inet.ETHERTYPE_ARP and len(data.payload) >= _ARP.size:
        *_, operation, mac, source, _, wanted = _ARP.unpack_from(data.payload)
        return (wanted, Place(source, mac)) if operation == _ARP_REQUEST else None
    packet = user_packet(data.payload) if data.ethertype == inet.ETHERTYPE_IPV6 else None
    if packet is None or packet.protocol != inet.ICMPV6 or packet.segment[:1] != bytes((_SOLICITATION,)):
        return None
    return packet.segment[8:24], Place(packet.source, data.source)


def neighbour_answer(owner: Place, asker: Place, vlan: int | None = None) -> bytes:
    """The ARP reply or neighbour advertisement that tells ``asker`` where ``owner`` is."""
    if len(owner.address) == 4:
        body = _ARP.pack(1, 0x800, 6, 4, _ARP_REPLY, owner.mac, owner.address, asker.mac, asker.address)
        return _arp((owner.mac, asker.mac), body, vlan)
    segment = bytes((_ADVERTISEMENT, 0, 0, 0, 0x60, 0, 0, 0)) + owner.address + b"\x02\x01" + owner.mac
    return frame(
        (owner.mac, asker.mac), ip_packet(owner.address, asker.address, inet.ICMPV6, segment, 255), vlan
    )


def told_neighbour(data: inet.Ethernet) -> Place | None:
    """Who an ARP reply or neighbour advertisement is about."""
    if data.ethertype == inet.ETHERTYPE_ARP and len(data.payload) >= _ARP.size:
        *_, operation, mac, source, _, _ = _ARP.unpack_from(data.payload)
        return Place(source, mac) if operation == _ARP_REPLY else None
    packet = user_packet(data.payload) if data.ethertype == inet.ETHERTYPE_IPV6 else None
    if packet is None or packet.protocol != inet.ICMPV6 or packet.segment[:1] != bytes((_ADVERTISEMENT,)):
        return None
    return Place(packet.segment[8:24], data.source)


def _arp(macs: tuple[bytes, bytes], body: bytes, vlan: int | None) -> bytes:
    tags = () if vlan is None else ((0x8100, vlan),)
    return inet.encode_ethernet(inet.Ethernet(macs[1], macs[0], inet.ETHERTYPE_ARP, body, tags))
