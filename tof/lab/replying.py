"""The replayer as the other side: answers to the echo requests that a TOF lets out, or makes; pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from tof.errors import DecodeError
from tof.lab.verdict import Sent
from tof.model import Side, TunnelKey
from tof.wire import gtpu, icmp, inet

_UPLINK = 1


class _Ping(NamedTuple):
    """An echo in a G-PDU, with all that an answer to it needs."""

    frame: inet.Ethernet
    outer: gtpu.Datagram
    source: bytes
    destination: bytes
    echo: icmp.Echo


_EchoId = tuple[bytes, bytes, int, int]


class Responder:
    """Answers for both sides of a capture, in the tunnels that the capture knows.

    A UE of which the capture shows one direction only gets its answer under the same TEID.
    """

    def __init__(self, sent: Iterable[Sent]) -> None:
        self._tunnels: dict[tuple[Side, bytes, bytes], TunnelKey] = {}
        self._answered: set[_EchoId] = set()
        for frame, side in sent:
            if not frame.cut:
                self._note(frame.data, side)

    def reply(self, data: bytes, came_out: Side) -> bytes | None:
        """The answer to a frame that came out at this side's end; None: it wants none, or has one."""
        ping = _ping(data)
        if ping is None or ping.echo.reply or _echo_id(ping) in self._answered:
            return None
        ue = ping.source if came_out is Side.SGW else ping.destination
        known = self._tunnels.get((came_out, ping.outer.destination, _ue(ue)))
        teid = known.teid if known else ping.outer.message.teid
        target = known.destination if known else ping.outer.source
        return _answer(ping, teid, target)

    def _note(self, data: bytes, side: Side) -> None:
        seen = _carried(data)
        if seen is None:
            return
        frame, outer, user = seen
        ue = user.source if side is Side.ENB else user.destination
        key = TunnelKey(outer.source, outer.destination, outer.message.teid, frame.vlan)
        self._tunnels[side, outer.source, _ue(ue)] = key
        ping = _ping(data)
        if ping is not None and ping.echo.reply:
            reverse = ping.destination, ping.source, ping.echo.identifier, ping.echo.sequence
            self._answered.add(reverse)


def _ue(address: bytes) -> bytes:
    return address[:8] if len(address) == 16 else address


def _echo_id(ping: _Ping) -> _EchoId:
    return ping.source, ping.destination, ping.echo.identifier, ping.echo.sequence


def _carried(data: bytes) -> tuple[inet.Ethernet, gtpu.Datagram, gtpu.Inner] | None:
    try:
        frame = inet.decode_ethernet(data)
        outer = gtpu.decode_gpdu(frame.payload)
        if outer.message.type != gtpu.G_PDU:
            return None
        return frame, outer, gtpu.inner(outer.message.payload)
    except DecodeError:
        return None


def _ping(data: bytes) -> _Ping | None:
    seen = _carried(data)
    if seen is None:
        return None
    frame, outer, user = seen
    try:
        is_ipv4 = len(user.source) == 4
        packet = outer.message.payload
        whole = inet.decode_ipv4(packet) if is_ipv4 else inet.decode_ipv6(packet)
        echo = icmp.decode_echo(whole.protocol, whole.payload)
    except DecodeError:
        return None
    return _Ping(frame, outer, user.source, user.destination, echo)


def _answer(ping: _Ping, teid: int, target: bytes) -> bytes:
    request = ping.outer.message
    user_packet = icmp.echo_packet(ping.destination, ping.source, ping.echo._replace(reply=True))
    extensions: tuple[gtpu.Extension, ...] = ()
    if request.qfi is not None:
        other_way = 0 if request.pdu_type == _UPLINK else _UPLINK
        container = bytes((other_way << 4, request.qfi))
        extensions = (gtpu.Extension(gtpu.PDU_SESSION_CONTAINER, container),)
    message = gtpu.Message(gtpu.VERSION_1, gtpu.G_PDU, teid, extensions=extensions, payload=user_packet)
    ends = ping.outer.destination, target
    datagram = inet.encode_udp(inet.UDP(gtpu.PORT, gtpu.PORT, gtpu.encode(message)))
    datagram = inet.fill_checksum(*ends, inet.UDP_PROTOCOL, datagram)
    if len(target) == 4:
        packet = inet.encode_ipv4(inet.IPv4(*ends, inet.UDP_PROTOCOL, datagram))
    else:
        packet = inet.encode_ipv6(inet.IPv6(*ends, inet.UDP_PROTOCOL, datagram))
    frame = ping.frame
    return inet.encode_ethernet(
        frame._replace(destination=frame.source, source=frame.destination, payload=packet)
    )
