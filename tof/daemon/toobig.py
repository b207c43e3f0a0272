"""What is to be done about packets that fit neither tunnel nor applications' link, carried out; bounded per second."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tof.agent.core import Agent
from tof.agent.delivery import frames
from tof.agent.toobig import remedy, room_in_tunnel
from tof.config import Ue
from tof.daemon.clock import Clock
from tof.dataplane.selection import downlink_facts
from tof.drivers.sockets import FrameSocket
from tof.drivers.xdp import XdpEndpoints
from tof.model import GATEWAY_MAC, SERVICE_MAC_PREFIX, IpAddress, Service, TunnelKey, tunnel_mac

ANSWERS_PER_SECOND, CUTS_PER_SECOND = 500, 5000
"""On the whole: an app that ignores the answers cannot take the agent's time, and 60 Mbit/s of video can be cut."""

_DONT_FRAGMENT = 0x40


class TooBig:
    """Answers applications on the apps adapter and UEs in their tunnels; gives pieces to the UE side, or ``onward``."""

    def __init__(
        self, agent: Agent, endpoints: XdpEndpoints, ue: Ue, ue_side: FrameSocket, apps_side: FrameSocket,
        onward: FrameSocket, clock: Clock,
    ) -> None:  # fmt: skip
        self._agent, self._endpoints, self._clock = agent, endpoints, clock
        self._ue_side, self._apps_side, self._onward = ue_side, apps_side, onward
        self._gateways: Mapping[int, IpAddress] = {a.version: a.ip for a in ue.app_address}
        self.side_of: Callable[[IpAddress], FrameSocket | None] = lambda _application: None
        """Where an application is that is not on the apps adapter."""
        self._window, self._left = -1.0, {True: 0, False: 0}

    def handle(self, frame: bytes, index: int) -> None:
        """``frame`` did not fit tunnel ``index``."""
        tunnel = self._agent.sessions.at(index)
        record = self._endpoints.tunnel(tunnel.key) if tunnel is not None else None
        version = frame[14] >> 4
        if (
            tunnel is None
            or record is None
            or not self._may(cut=version == 4 and not frame[20] & _DONT_FRAGMENT)
        ):
            return
        service = self._speaker(tunnel.key, frame)
        room = room_in_tunnel(tunnel.key, self._endpoints.mtu, record.form.qfi is not None)
        done = remedy(frame, room, service, self._gateways.get(version))
        for piece in done.pieces:
            # By the tunnel's own MAC: a later piece has no ports from which its flow could be told.
            self._ue_side.send(tunnel_mac(index) + piece[6:])
        mac = self._agent.services.next_hop(service.application_ip) if service else None
        if service and done.answer and mac:
            ethertype = b"\x08\x00" if version == 4 else b"\x86\xdd"
            side = self.side_of(service.application_ip) or self._apps_side
            side.send(mac + GATEWAY_MAC + ethertype + done.answer)

    def from_ue(self, frame: bytes) -> None:
        """``frame``, as it would have gone to br-ue, is too long for the applications' link."""
        index = int.from_bytes(frame[8:12], "big")
        cut = frame[14] >> 4 == 4 and not frame[20] & _DONT_FRAGMENT
        if not self._may(cut=cut):
            return
        number = int.from_bytes(frame[2:6], "big")
        service = self._agent.services.behind(number)
        if service is None:
            return
        veiled = service.application_ip.packed not in self._endpoints.tracked
        out = frames(index, frame[14:], self._apps_side.mtu, number, veiled=veiled)
        for piece in out.onward:
            self._onward.send(piece)
        for answer in out.back:
            self._ue_side.send(answer)

    def _speaker(self, key: TunnelKey, frame: bytes) -> Service | None:
        """On whose behalf the frame goes to a UE: as its MAC address says, else as what it answers would be judged."""
        services = self._agent.services
        if frame.startswith(SERVICE_MAC_PREFIX, 6):
            return services.behind(int.from_bytes(frame[8:12], "big"))
        served = services.judged(downlink_facts(key, frame[14:]))
        return served.service if served else None

    def _may(self, *, cut: bool) -> bool:
        now = self._clock.now()
        if now - self._window >= 1.0:
            self._window, self._left = now, {True: CUTS_PER_SECOND, False: ANSWERS_PER_SECOND}
        self._left[cut] -= 1
        return self._left[cut] >= 0
