"""The TOF Control Agent: events in, commands and desired state out; no clock, no I/O.

The verdict on a packet and the tunnel it teaches come out of the same call (source document, Figure 16, steps 2-4
and 8-10). Nothing starts or stops the Pinger: an uplink tunnel without an answering downlink *is* a ping that is due.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from tof.agent.catalog import Catalog
from tof.agent.commands import Command, Converge, DropPacket, DropToken, PutToken, ReleaseFrame, SendPing
from tof.agent.events import (
    DownlinkMoved,
    EchoResponseSeen,
    EndMarkerSeen,
    ErrorIndicationSeen,
    Event,
    ForeignSourceSeen,
    FrameHeld,
    GpduSeen,
    NextHopChanged,
    ServiceAdded,
    ServiceRemoved,
    ServiceReplaced,
    Tick,
    TunnelsAdopted,
    TunnelsIdle,
)
from tof.agent.holding import Holding
from tof.agent.pinging import Pinging, PingPolicy
from tof.agent.services import ServicePlane
from tof.agent.sessions import Sessions, Tunnel, is_ue_address, ue_of
from tof.dataplane.desired import PingRoute
from tof.model import Direction, Side


@dataclass(frozen=True, slots=True)
class AgentPolicy:
    """The bounds and habits of the agent, from the configuration."""

    ping: PingPolicy
    most_tunnels: int = 1_000_000
    most_unconfirmed: int = 500_000


class Agent:
    """Feed it events with the time; carry out what it answers, in order."""

    def __init__(self, policy: AgentPolicy, catalog: Catalog, tokens: Iterator[int]) -> None:
        self.sessions = Sessions(policy.most_tunnels, policy.most_unconfirmed)
        self.services = ServicePlane(catalog)
        self.holding = Holding()
        self.pinging = Pinging(policy.ping, tokens)
        self.revision = 0
        self._recovery: dict[bytes, int] = {}
        self._foreign_tokens: frozenset[int] = frozenset()
        self._now = 0.0
        self._handlers: dict[type, Callable[..., None]] = {
            GpduSeen: self._gpdu,
            EndMarkerSeen: self._end_marker,
            ErrorIndicationSeen: self._error_indication,
            EchoResponseSeen: self._echo_response,
            ForeignSourceSeen: self._foreign_source,
            DownlinkMoved: self._downlink_moved,
            FrameHeld: self._frame_held,
            TunnelsIdle: self._idle,
            TunnelsAdopted: self._adopted,
            ServiceAdded: self._service_added,
            ServiceReplaced: self._service_replaced,
            ServiceRemoved: self._service_removed,
            NextHopChanged: self._next_hop_changed,
            Tick: self._tick,
        }

    def handle(self, event: Event, now: float) -> list[Command]:
        """Decide; RequestError (services only) changes nothing. ``now`` is in seconds and never goes back."""
        self._now = now
        out: list[Command] = []
        self._handlers[type(event)](event, out)
        return out

    @property
    def wake_at(self) -> float | None:
        """When to send the next Tick."""
        times = [t for t in (self.pinging.wake_at, self.holding.wake_at) if t is not None]
        return min(times, default=None)

    @property
    def ping_routes(self) -> tuple[PingRoute, ...]:
        """The source-rewrite flows that the Pinger needs now."""
        return tuple(PingRoute(ping.index, ping.ue, ping.target) for ping in self.pinging.active)

    # What the wire says

    def _gpdu(self, event: GpduSeen, out: list[Command]) -> None:
        if event.token is not None and event.side is Side.SGW:
            if event.token in self._foreign_tokens:
                out.append(DropPacket())
                return
            if (ping := self.pinging.answered(event.token)) is not None:
                self._ping_answered(event, ping.index, ping.ue, out)
                return
        if event.side is Side.ENB:
            self._uplink(event, out)
        elif is_ue_address(event.destination):
            self._downlink(event, event.destination, 0, out)

    def _uplink(self, event: GpduSeen, out: list[Command]) -> None:
        if not is_ue_address(event.source) or self._is_forwarding(event):
            return
        known = self.sessions.get(event.key)
        if known is not None:
            self._uplink_source(known, event.source, out)
            return
        tunnel = self.sessions.learn(
            Direction.UPLINK, event.key, event.source, event.form, out, link=event.link
        )
        if tunnel is not None:
            self._review_ping(tunnel, out)

    def _is_forwarding(self, event: GpduSeen) -> bool:
        """Downlink packets relayed between eNBs (TS 23.401 section 5.5.1): to a known UE, but not to a core node."""
        return not self.sessions.is_core(event.key.destination) and self.sessions.knows_ue(
            ue_of(event.destination)
        )

    def _uplink_source(self, tunnel: Tunnel, source: bytes, out: list[Command]) -> None:
        ue = ue_of(source)
        if ue in tunnel.ues or all(len(known) != len(ue) for known in tunnel.ues):
            self.sessions.own(tunnel, source, out)
        elif tunnel.foreign != source:
            tunnel.foreign = source
            self._ask(tunnel, source, out)

    def _downlink(self, event: GpduSeen, exact: bytes, dropped: int, out: list[Command]) -> Tunnel | None:
        tunnel = self.sessions.get(event.key)
        if tunnel is None:
            tunnel = self.sessions.learn(
                Direction.DOWNLINK, event.key, exact, event.form, out, link=event.link, dropped=dropped
            )
        elif tunnel.direction is Direction.DOWNLINK:
            self._move(tunnel, exact, out)
        if tunnel is not None:
            self._after_downlink(tunnel, out)
        return tunnel

    def _move(self, down: Tunnel, exact: bytes, out: list[Command]) -> None:
        """The core says who is behind a downlink tunnel; uplinks paired with it follow only if they said so too."""
        ue = ue_of(exact)
        if ue in down.ues:
            return
        replaces = any(len(known) == len(ue) for known in down.ues)
        ups = [up for context in map(self._context, down.ues, [down] * len(down.ues)) for up in context]
        self.sessions.own(down, exact, out)
        if not replaces:
            return
        for up in ups:
            if up.foreign == exact:
                self.sessions.own(up, exact, out)

    def _context(self, ue: bytes, down: Tunnel) -> list[Tunnel]:
        return [up for c in self.sessions.contexts_of(ue) if down in c.downs for up in c.ups]

    def _after_downlink(self, down: Tunnel, out: list[Command]) -> None:
        for ue in down.ues:
            for context in self.sessions.contexts_of(ue):
                for up in context.ups:
                    self._review_ping(up, out)
        for exact in down.exact:
            out.extend(ReleaseFrame(frame) for frame in self.holding.release(ue_of(exact)))

    def _ping_answered(self, event: GpduSeen, index: int, ue: bytes, out: list[Command]) -> None:
        out.append(DropPacket())
        up = self.sessions.at(index)
        if up is None or event.destination != ue:
            return
        if up.foreign == ue:
            self.sessions.own(up, ue, out)
        down = self._downlink(event, ue, event.size, out)
        if down is not None and down.pair == up.pair:
            self.sessions.pair(up, down, out, exactly=True)
            self._review_ping(up, out)

    def _end_marker(self, event: EndMarkerSeen, out: list[Command]) -> None:
        tunnel = self.sessions.get(event.key)
        if tunnel is not None and tunnel.direction is Direction.DOWNLINK:
            ups = [up for ue in tunnel.ues for up in self._context(ue, tunnel)]
            self.sessions.end(tunnel, out)
            for up in ups:
                self._review_ping(up, out)

    def _error_indication(self, event: ErrorIndicationSeen, out: list[Command]) -> None:
        """The sender has no such tunnel: forget every one that leads to it under that TEID."""
        for tunnel in self.sessions.towards(event.sender, event.teid):
            if tunnel.key.vlan == event.vlan:
                self._forget(tunnel, out)

    def _echo_response(self, event: EchoResponseSeen, out: list[Command]) -> None:
        """A changed restart counter means that the peer lost its tunnels (TS 23.007 section 18)."""
        if event.recovery is None:
            return
        before = self._recovery.get(event.sender)
        self._recovery[event.sender] = event.recovery
        if len(self._recovery) > 4096:
            self._recovery.pop(next(iter(self._recovery)))
        if before is None or before == event.recovery:
            return
        for tunnel in [t for t in self.sessions if event.sender in (t.key.source, t.key.destination)]:
            self._forget(tunnel, out)

    def _foreign_source(self, event: ForeignSourceSeen, out: list[Command]) -> None:
        tunnel = self.sessions.at(event.index)
        if tunnel is not None and is_ue_address(event.source):
            self._uplink_source(tunnel, event.source, out)

    def _downlink_moved(self, event: DownlinkMoved, out: list[Command]) -> None:
        tunnel = self.sessions.at(event.index)
        if tunnel is not None and is_ue_address(event.destination):
            self._move(tunnel, event.destination, out)
            self._after_downlink(tunnel, out)

    def _frame_held(self, event: FrameHeld, out: list[Command]) -> None:
        """An app speaks to a UE whose downlink is unknown: ask through every uplink it has."""
        ue = ue_of(event.ue)
        if not self.sessions.knows_ue(ue) or not self.holding.hold(ue, event.frame, self._now):
            return
        for context in self.sessions.contexts_of(ue):
            for up in context.ups:
                if not up.peer:
                    self._ask(up, self._exact(up, ue), out)

    def _idle(self, event: TunnelsIdle, out: list[Command]) -> None:
        """Purge what is idle together with its pair."""
        for index in event.indices:
            tunnel = self.sessions.at(index)
            if tunnel is not None and not self._busy(tunnel, event):
                self._forget(tunnel, out)

    def _busy(self, tunnel: Tunnel, event: TunnelsIdle) -> list[Tunnel]:
        """The tunnels paired with ``tunnel`` that are not idle."""
        if tunnel.direction is Direction.UPLINK:
            peers = [self.sessions.at(tunnel.peer)]
        else:
            peers = [up for ue in tunnel.ues for up in self._context(ue, tunnel) if up.peer == tunnel.index]
        return [peer for peer in peers if peer is not None and peer.index not in event.indices]

    def _forget(self, tunnel: Tunnel, out: list[Command]) -> None:
        self.pinging.stop(tunnel.index, self._now)
        self.sessions.forget(tunnel, out)

    def _adopted(self, event: TunnelsAdopted, out: list[Command]) -> None:
        self._foreign_tokens = frozenset(event.tokens)
        self.sessions.adopt(event.tunnels, out)
        self.services.adopt_ids(event.service_ids)
        for tunnel in self.sessions:
            if tunnel.direction is Direction.UPLINK:
                self._review_ping(tunnel, out)

    # The Pinger

    def _review_ping(self, up: Tunnel, out: list[Command]) -> None:
        """Ask through ``up`` exactly while its answering tunnel is unknown, or one of several and not yet told."""
        if up.foreign is not None:
            return
        several = any(
            len(context.downs) > 1
            for ue in up.ues
            for context in self.sessions.contexts_of(ue)
            if up in context.ups
        )
        if not up.peer or (several and not up.exactly_paired):
            if up.exact:
                self._ask(up, up.exact[0], out)
        else:
            before = self.pinging.active
            self.pinging.stop(up.index, self._now)
            if len(self.pinging.active) != len(before):
                self._converge(out)

    def _ask(self, up: Tunnel, exact: bytes, out: list[Command]) -> None:
        token = self.pinging.ask(up.index, exact)
        if token is not None:
            out.append(PutToken(token, up.index))

    @staticmethod
    def _exact(up: Tunnel, ue: bytes) -> bytes:
        return up.exact[up.ues.index(ue)]

    def _tick(self, _event: Tick, out: list[Command]) -> None:
        before = self.pinging.active
        sending = self.pinging.due(self._now)
        if self.pinging.active != before:
            self._converge(out)
        out.extend(SendPing(ping.index, ping.ue, ping.target, ping.token, ping.sequence) for ping in sending)
        out.extend(DropToken(token) for token in self.pinging.late(self._now))
        self.holding.expire(self._now)

    # Services

    def _service_added(self, event: ServiceAdded, out: list[Command]) -> None:
        self.services.add(event.service)
        self._converge(out)

    def _service_replaced(self, event: ServiceReplaced, out: list[Command]) -> None:
        self.services.replace(event.name, event.service)
        self._converge(out)

    def _service_removed(self, event: ServiceRemoved, out: list[Command]) -> None:
        self.services.remove(event.key)
        self._converge(out)

    def _next_hop_changed(self, event: NextHopChanged, out: list[Command]) -> None:
        if self.services.next_hop_changed(event.application, event.mac):
            self._converge(out)

    def _converge(self, out: list[Command]) -> None:
        self.revision += 1
        out.append(Converge(self.revision))


def tunnel_state(tunnel: Tunnel, paired: Iterable[int]) -> str:
    """``ended`` after an End Marker, ``paired`` when the opposite tunnel is known, else ``learnt``."""
    if tunnel.ended:
        return "ended"
    return "paired" if tunnel.peer or tunnel.index in paired else "learnt"
