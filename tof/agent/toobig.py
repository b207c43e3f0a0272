"""An app's packet does not fit its UE's tunnel: tell the app, or cut the packet where that is allowed.

RFC 1191, RFC 8201: the answer quotes the packet as the application sent it, before its source was translated, because
the application's kernel looks the connection up by that.
"""

from __future__ import annotations

from dataclasses import dataclass

from tof.errors import DecodeError
from tof.model import IpAddress, Service, TunnelKey
from tof.wire.icmp import fragmentation_needed, packet_too_big
from tof.wire.inet import decode_ipv6, encode_ipv6, fix_ipv4_header, fragment_ipv4

_HEADER = 14
_SHORTEST = 20
_DONT_FRAGMENT = 0x40


@dataclass(frozen=True, slots=True)
class Remedy:
    """``answer``: an IP packet for the application; ``pieces``: frames that fit, for the UE."""

    answer: bytes | None = None
    pieces: tuple[bytes, ...] = ()


def room_in_tunnel(key: TunnelKey, mtu: int, container: bool) -> int:
    """The largest user packet that fits an S1 packet of ``mtu`` bytes (TS 29.281 section 4.2.2)."""
    outer = 40 if len(key.source) == 16 else 20
    return mtu - outer - 8 - (16 if container else 8)


def remedy(frame: bytes, mtu: int, service: Service | None, gateway: IpAddress | None) -> Remedy:
    """What to do about ``frame``, which came from br-ue with the service's address as its source."""
    packet = frame[_HEADER:]
    if len(packet) < _SHORTEST:
        return Remedy()
    try:
        if packet[0] >> 4 == 4 and not packet[6] & _DONT_FRAGMENT:
            return Remedy(pieces=tuple(frame[:_HEADER] + piece for piece in fragment_ipv4(packet, mtu)))
        if service is None or gateway is None:
            return Remedy()
        sent = _as_sent(packet, service)
        answer = fragmentation_needed if packet[0] >> 4 == 4 else packet_too_big
        return Remedy(answer=answer(sent, mtu, source=gateway.packed))
    except DecodeError:
        return Remedy()


def _as_sent(packet: bytes, service: Service) -> bytes:
    application = service.application_ip.packed
    if packet[0] >> 4 == 4:
        return fix_ipv4_header(packet[:12] + application + packet[16:])
    return encode_ipv6(decode_ipv6(packet)._replace(source=application))
