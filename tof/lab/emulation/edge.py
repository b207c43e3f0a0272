"""Laboratory: the application at the edge, and its next hop towards UEs."""

from __future__ import annotations

from collections.abc import Callable

from tof.lab.emulation.frames import (
    Place,
    UserPacket,
    answer,
    frame,
    neighbour_answer,
    neighbour_request,
    told_neighbour,
    user_packet,
    wanted_neighbour,
)
from tof.lab.emulation.settings import Edge
from tof.wire import inet

_IP = (inet.ETHERTYPE_IPV4, inet.ETHERTYPE_IPV6)


class Application:
    """Echoes UDP and ICMP; finds its gateway by ARP or neighbour discovery and is found by them."""

    def __init__(self, edge: Edge, send: Callable[[bytes], None]) -> None:
        self._edge, self._send = edge, send
        self._macs: dict[bytes, bytes] = {}
        self._waiting: list[bytes] = []
        self._last_mac: bytes | None = None
        self._thinking: list[bytes] | None = None

    def receive(self, eth: inet.Ethernet) -> UserPacket | None:
        """A frame at the applications' adapter; the packet, if it was for the application."""
        if (asked := wanted_neighbour(eth)) is not None:
            wanted, asker = asked
            for place in self._edge.applications:
                if place.address == wanted:
                    self._send(neighbour_answer(place, asker))
            return None
        if (told := told_neighbour(eth)) is not None:
            self._macs[told.address] = told.mac
            waiting, self._waiting = self._waiting, []
            for packet in waiting:
                self.say(packet)
            return None
        user = user_packet(eth.payload) if eth.ethertype in _IP else None
        if user is None or all(place.address != user.destination for place in self._edge.applications):
            return None
        self._last_mac = eth.source
        back = answer(user, b"app:")
        if back is not None and self._thinking is not None:
            self._thinking.append(back)
        elif back is not None:
            self.say(back)
        return user

    def think(self) -> None:
        """Answer nothing until ``speak``."""
        self._thinking = []

    def speak(self) -> None:
        """Answer everything that has been asked, in its order."""
        thoughts, self._thinking = self._thinking or [], None
        for packet in thoughts:
            self.say(packet)

    def say(self, packet: bytes) -> None:
        """Send an IP packet towards a UE, as soon as the next hop is known."""
        family = 4 if packet[0] >> 4 == 4 else 16
        own = self._edge.application(family)
        gateway = next((address for address in self._edge.gateways if len(address) == family), None)
        mac = self._macs.get(gateway) if gateway else self._last_mac
        if own is None:
            return
        if mac is not None:
            self._send(frame((own.mac, mac), packet))
            return
        self._waiting.append(packet)
        if gateway is not None:
            self._send(neighbour_request(Place(own.address, own.mac), gateway))
