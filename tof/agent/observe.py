"""What a packet on S1-U or N3 says to the agent: bytes to an event."""

from __future__ import annotations

from tof.agent.events import EchoResponseSeen, EndMarkerSeen, ErrorIndicationSeen, GpduSeen
from tof.errors import DecodeError
from tof.model import Form, Link, Side, TunnelKey
from tof.wire import gtpu
from tof.wire.inet import ICMP, ICMPV6

Observation = GpduSeen | EndMarkerSeen | ErrorIndicationSeen | EchoResponseSeen


def observe(
    side: Side, packet: bytes, vlan: int | None, *, link: Link | None = None, cut: bool = False
) -> Observation | None:
    """The event behind ``packet``, which starts at the outer IP header; None if it says nothing.

    ``cut``: the packet is a copy of its beginning, or a first fragment. DecodeError names what does not parse.
    """
    datagram = gtpu.decode_gpdu(packet, partial_ok=cut)
    message = datagram.message
    if message.type == gtpu.G_PDU:
        key = TunnelKey(datagram.source, datagram.destination, message.teid, vlan)
        return _gpdu(side, key, message, link, cut)
    if message.type == gtpu.END_MARKER:
        return EndMarkerSeen(TunnelKey(datagram.source, datagram.destination, message.teid, vlan), side)
    if message.type == gtpu.ERROR_INDICATION:
        return ErrorIndicationSeen(datagram.source, gtpu.error_indication(message)[0], vlan, side)
    if message.type == gtpu.ECHO_RESPONSE:
        return EchoResponseSeen(datagram.source, gtpu.recovery(message), vlan, side)
    return None


def _gpdu(side: Side, key: TunnelKey, message: gtpu.Message, link: Link | None, cut: bool) -> GpduSeen:
    if not key.teid:
        raise DecodeError("gtpu_teid_zero")
    payload = message.payload
    inner = gtpu.inner(payload, cut=cut)
    token = None
    if side is Side.SGW and inner.protocol in (ICMP, ICMPV6):
        at = inner.payload_offset
        if len(payload) >= at + 16 and payload[at] == (0 if inner.protocol == ICMP else 129):
            token = int.from_bytes(payload[at + 8 : at + 16], "big")
    return GpduSeen(
        side,
        key,
        inner.source,
        inner.destination,
        Form(message.flags, message.qfi),
        len(payload),
        token,
        link,
    )
