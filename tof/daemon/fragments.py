"""Keeps the verdicts on queued fragments open until their datagram is whole; then it goes to br-ue in one piece.

The queue is the holding area: whatever is not diverted gets ACCEPT in the order it came, and reaches the core as it
was sent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from tof.agent.delivery import frames, user_packet
from tof.agent.reassembly import Fate, Reassembly, Released, Whole
from tof.daemon.clock import Clock
from tof.daemon.feed import Feed, unframed
from tof.dataplane.desired import Serving
from tof.dataplane.selection import uplink_facts
from tof.drivers.layout import HEARTBEAT_NS
from tof.drivers.nfqueue import QueuedPacket
from tof.drivers.sockets import FrameSocket
from tof.drivers.xdp import XdpEndpoints
from tof.errors import DecodeError
from tof.model import Direction, Link, Side, TunnelKey
from tof.wire.fragment import decode_fragment

REASONS = (
    "diverted", "passed", "timeout", "overflow", "shutdown", "overlap", "end_inconsistent", "odd_length",
    "beyond_maximum", "too_many", "refused_before", "not_a_gpdu", "no_tunnel", "no_service", "bypass", "too_big",
    "undecodable", "not_sent",
)  # fmt: skip


class Fragments:
    """``onward``: frames sent there enter br-ue; ``back``: frames sent there enter a tunnel."""

    def __init__(
        self, feed: Feed, endpoints: XdpEndpoints, onward: FrameSocket, back: FrameSocket, apps: FrameSocket,
        clock: Clock, account: Callable[[int, TunnelKey, bytes], object] = lambda *_: None,
    ) -> None:  # fmt: skip
        self._feed, self._endpoints, self._clock = feed, endpoints, clock
        self._onward, self._back, self._apps = onward, back, apps
        self._account = account
        self.held: Reassembly[QueuedPacket] = Reassembly()
        self.counts = Counter(dict.fromkeys(REASONS, 0))

    def packet(self, side: Side, frame: bytes, fate: Fate, packet: QueuedPacket) -> None:
        """A queued fragment, whose verdict is given here, now or later."""
        vlan, payload = unframed(frame)
        try:
            fragment = decode_fragment(payload, vlan)
        except DecodeError:
            self._accept("undecodable", [packet])
            return
        if fate is Fate.UNDECIDED and not fragment.offset:
            fate = self._learn(side, frame, payload, vlan)
        self._settle(self.held.add(fragment, packet, fate, self._clock.now()))

    def tick(self) -> None:
        """Time has passed."""
        self._endpoints.agent_lives(self._clock.now_ns())
        if self.held:
            self._settle(self.held.due(self._clock.now()))

    def flush(self) -> None:
        """Let go of everything, before the queues are closed."""
        self._settle(self.held.flush())

    def _learn(self, side: Side, frame: bytes, payload: bytes, vlan: int | None) -> Fate:
        """The first fragment to a service on a tunnel that the data path did not know."""
        seen = self._feed.first_fragment(side, payload, vlan, _link(frame, payload))
        tunnel = self._feed.agent.sessions.get(seen.key) if seen is not None else None
        if (
            seen is None
            or tunnel is None
            or tunnel.direction is not Direction.UPLINK
            or not self._may_divert()
        ):
            return Fate.PASS
        own = seen.source if len(seen.source) == 4 else seen.source[:8]
        return Fate.DIVERT if own in tunnel.ues else Fate.PASS

    def _settle(self, outcomes: Iterable[Whole[QueuedPacket] | Released[QueuedPacket]]) -> None:
        for one in outcomes:
            if isinstance(one, Released):
                self._accept(one.reason, one.packets)
                continue
            refusal = self._deliver(one)
            if refusal:
                self._accept(refusal, one.packets)
                continue
            self.counts["diverted"] += len(one.packets)
            for packet in one.packets:
                packet.drop()

    def _accept(self, reason: str, packets: Iterable[QueuedPacket]) -> None:
        for packet in packets:
            self.counts[reason] += 1
            packet.accept()

    def _deliver(self, whole: Whole[QueuedPacket]) -> str:
        """Send the user's packet on; why not, if its fragments are to go to the core after all."""
        try:
            key, packet = user_packet(whole.key, whole.payload)
        except DecodeError:
            return "not_a_gpdu"
        tunnel = self._feed.agent.sessions.get(key)
        if tunnel is None or tunnel.direction is not Direction.UPLINK:
            return "no_tunnel"
        if self._endpoints.bypass:
            return "bypass"
        services = self._feed.agent.services
        served = services.judged(uplink_facts(key, packet))
        if served is None or served.serving is not Serving.DIVERT:
            return "no_service"
        application = services.application_of(served, packet)
        if application is None:
            return "no_service"
        veiled = application.address.packed not in self._endpoints.tracked
        out = frames(tunnel.index, packet, self._apps.mtu, application.number, veiled=veiled)
        for frame in out.back:
            self._back.send(frame)
        if not all(self._onward.send(frame) for frame in out.onward):
            return "not_sent"
        if out.onward:
            self._account(served.service_id, key, packet)
        return "" if out.onward or out.back else "too_big"

    def _may_divert(self) -> bool:
        beat = self._clock.now_ns() - self._endpoints.heartbeat_ns()
        return beat < HEARTBEAT_NS and not self._endpoints.bypass


def _link(frame: bytes, packet: bytes) -> Link:
    tos = int.from_bytes(packet[:2], "big") >> 4 & 0xFF if packet[0] >> 4 == 6 else packet[1]
    return Link(frame[6:12], frame[:6], 0, tos)
