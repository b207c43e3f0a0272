"""What UEs are told about names: which answers are believed, and what the agent does with them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from tof.agent.commands import Command
from tof.agent.events import AddressesRecalled, AddressesUnused, AnswerSeen
from tof.agent.names import Names
from tof.agent.sessions import Sessions
from tof.agent.tunnels import ue_of
from tof.errors import DecodeError
from tof.wire import dns, inet


def observe_answer(index: int, packet: bytes) -> AnswerSeen:
    """The event behind a packet to a UE in downlink tunnel ``index``; DecodeError unless it is sound down to the last byte.

    The data path has seen the question: it shows packets alone that answer one by address, port and number.
    """
    six = packet[:1] >= b"\x60"
    ip: inet.IPv4 | inet.IPv6 = inet.decode_ipv6(packet) if six else inet.decode_ipv4(packet)
    if ip.protocol != inet.UDP_PROTOCOL or ip.offset:
        raise DecodeError("dns_no_answer")
    datagram = inet.decode_udp(ip.payload)
    if datagram.source_port != dns.PORT or len(datagram.payload) + 8 != len(ip.payload):
        raise DecodeError("dns_no_answer")
    if datagram.checksum or six:
        pseudo = inet.pseudo_header(ip.source, ip.destination, inet.UDP_PROTOCOL, len(ip.payload))
        if inet.checksum(pseudo + ip.payload):
            raise DecodeError("dns_checksum")
    return AnswerSeen(index, ip.destination, dns.decode_answer(datagram.payload))


class Naming:
    """Believes what the core says to a UE in a tunnel that is that UE's."""

    def __init__(
        self, sessions: Sessions, names: Names, counts: Counter[str], converge: Callable[..., None]
    ) -> None:
        self._sessions, self._names, self._counts, self._converge = sessions, names, counts, converge

    def answer(self, event: AnswerSeen, now: float, out: list[Command]) -> None:
        """A resolver has answered."""
        if not self._is_paired(event):
            self._counts["names_refused_tunnel"] += 1
        elif self._names.heard(event.answer, now):
            self._converge(out)

    def unused(self, event: AddressesUnused, now: float, out: list[Command]) -> None:
        """Nobody uses these addresses."""
        if self._names.unused(event.addresses, now):
            self._converge(out)

    def recalled(self, event: AddressesRecalled, _now: float, out: list[Command]) -> None:
        """What an earlier agent knew."""
        self._names.recall(event.learnt)
        self._converge(out)

    def _is_paired(self, event: AnswerSeen) -> bool:
        tunnel = self._sessions.at(event.index)
        if (
            tunnel is None
            or tunnel.uplink
            or tunnel.ended
            or tunnel.doubted
            or ue_of(event.ue) not in tunnel.ues
        ):
            return False
        return any(context.ups for context in self._sessions.contexts_with(tunnel))
