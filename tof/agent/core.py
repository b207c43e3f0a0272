"""The TOF Control Agent: events in, commands and desired state out; no clock, no I/O.

The verdict on a packet and the tunnel it teaches come out of the same call (source document, Figure 16, steps 2-4
and 8-10). Nothing starts or stops the Pinger: an uplink tunnel without an answering downlink *is* a ping that is due.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from tof.agent.asking import Asker
from tof.agent.catalog import Catalog
from tof.agent.commands import Command, Converge, DropToken, DropTunnel, PutToken, ReleaseFrame, SendPing
from tof.agent.doubting import Doubting
from tof.agent.events import (
    AddressesRecalled,
    AddressesUnused,
    AnswerSeen,
    ApplicationProbed,
    AppPortsChanged,
    DownlinkMoved,
    EchoResponseSeen,
    EndMarkerSeen,
    ErrorIndicationSeen,
    Event,
    ForeignSourceSeen,
    FrameHeld,
    GpduSeen,
    MinuteTurned,
    NextHopChanged,
    OwnApplicationChanged,
    ServiceAdded,
    ServiceRemoved,
    ServiceReplaced,
    ServicesReplaced,
    SwitchReturned,
    Tick,
    TunnelRefused,
    TunnelsAdopted,
    TunnelsIdle,
    UplinkReturned,
    VnfSeen,
)
from tof.agent.holding import Holding
from tof.agent.learning import Learning
from tof.agent.losing import Losing
from tof.agent.names import NamePolicy, Names
from tof.agent.naming import Naming
from tof.agent.pinging import Pinging, PingPolicy
from tof.agent.services import ServicePlane
from tof.agent.sessions import Sessions
from tof.dataplane.desired import PingRoute, Vnf
from tof.model import Service


@dataclass(frozen=True, slots=True)
class AgentPolicy:
    """The bounds and habits of the agent, from the configuration."""

    ping: PingPolicy
    most_tunnels: int = 1_000_000
    most_unconfirmed: int = 500_000
    own_services: tuple[Service, ...] = ()
    names: NamePolicy = field(default_factory=NamePolicy)
    vnfs: tuple[Vnf, ...] = ()
    generation: int = 0


class Agent:
    """Feed it events with the time; carry out what it answers, in order."""

    def __init__(self, policy: AgentPolicy, catalog: Catalog, tokens: Iterator[int]) -> None:
        self.counts: Counter[str] = Counter()
        """What was decided how often, by name; among them every kind of attack and of odd behaviour."""
        self.sessions = Sessions(policy.most_tunnels, policy.most_unconfirmed, self.counts)
        names = Names(catalog, policy.names, self.counts)
        self.services = ServicePlane(catalog, names, policy.own_services, policy.vnfs, policy.generation)
        self.holding = Holding()
        self.pinging = Pinging(policy.ping, tokens)
        self.revision = 0
        self._asker = Asker(self.sessions, self.pinging)
        self._routed = self.pinging.changes
        self._doubting = Doubting(self.sessions, self._asker, self.pinging, self.holding, self.counts)
        self._learning = learning = Learning(
            self.sessions, self._asker, self.pinging, self.holding, self._doubting, catalog, self.counts
        )
        self.losing = losing = Losing(self.sessions, self._asker, self.counts)
        naming = Naming(self.sessions, self.services.names, self.counts, self._converge)
        self._handlers: dict[type, Callable[..., None]] = {
            GpduSeen: learning.gpdu,
            ForeignSourceSeen: learning.foreign_source,
            DownlinkMoved: learning.downlink_moved,
            FrameHeld: learning.frame_held,
            UplinkReturned: learning.uplink_returned,
            AnswerSeen: naming.answer,
            OwnApplicationChanged: self._own_changed,
            AddressesUnused: naming.unused,
            AddressesRecalled: naming.recalled,
            EndMarkerSeen: losing.end_marker,
            ErrorIndicationSeen: losing.error_indication,
            EchoResponseSeen: losing.echo_response,
            TunnelsIdle: losing.idle,
            TunnelRefused: losing.tunnel_refused,
            TunnelsAdopted: self._adopted,
            ServiceAdded: self._service_added,
            ServiceReplaced: self._service_replaced,
            ServiceRemoved: self._service_removed,
            ServicesReplaced: self._services_replaced,
            NextHopChanged: self._next_hop_changed,
            AppPortsChanged: self._app_ports_changed,
            ApplicationProbed: self._application_probed,
            VnfSeen: self._vnf_seen,
            MinuteTurned: self._minute_turned,
            SwitchReturned: self._review_pings,
            Tick: self._tick,
        }

    def handle(self, event: Event, now: float) -> list[Command]:
        """Decide; RequestError (services only) changes nothing. ``now`` is in seconds and never goes back."""
        out: list[Command] = []
        self._handlers[type(event)](event, now, out)
        for command in out:
            if type(command) is DropTunnel:
                self.pinging.stop(command.index, now)
        self._follow_pings(out)
        return out

    @property
    def wake_at(self) -> float | None:
        """When to send the next Tick."""
        times = (self.pinging.wake_at, self.holding.wake_at, self._learning.wake_at)
        return min((t for t in times if t is not None), default=None)

    @property
    def ping_routes(self) -> tuple[PingRoute, ...]:
        """The source-rewrite flows that the Pinger needs now."""
        return tuple(PingRoute(ping.index, ping.ue, ping.target) for ping in self.pinging.active)

    def _adopted(self, event: TunnelsAdopted, now: float, out: list[Command]) -> None:
        self.pinging.inherit(event.tokens)
        self.sessions.adopt(event.tunnels, out)
        self.services.adopt(event.services)
        self._review_pings(event, now, out)

    def _review_pings(self, _event: Event, now: float, _out: list[Command]) -> None:
        for tunnel in self.sessions:
            if tunnel.uplink:
                self._asker.review(tunnel, now)

    def _tick(self, _event: Tick, now: float, out: list[Command]) -> None:
        sending = self.pinging.due(now)
        unanswered, self.pinging.unanswered = self.pinging.unanswered, []
        for ping in unanswered:
            self._doubting.unanswered(ping, now, out)
        self._learning.due(now, out)
        self._follow_pings(out)
        out.extend(PutToken(ping.token, ping.index) for ping in sending if ping.sequence == 1)
        out.extend(SendPing(ping.index, ping.ue, ping.target, ping.token, ping.sequence) for ping in sending)
        out.extend(DropToken(token) for token in self.pinging.late(now))
        out.extend(ReleaseFrame(frame) for frame in self.holding.due(now))

    def _follow_pings(self, out: list[Command]) -> None:
        if self._routed != self.pinging.changes:
            self._routed = self.pinging.changes
            self._converge(out)

    def _service_added(self, event: ServiceAdded, _now: float, out: list[Command]) -> None:
        self.services.add(event.service)
        self._converge(out)

    def _service_replaced(self, event: ServiceReplaced, _now: float, out: list[Command]) -> None:
        self.services.replace(event.name, event.service)
        self._converge(out)

    def _service_removed(self, event: ServiceRemoved, _now: float, out: list[Command]) -> None:
        self.services.remove(event.key)
        self._converge(out)

    def _services_replaced(self, event: ServicesReplaced, _now: float, out: list[Command]) -> None:
        self.services.replace_all(event.services, event.chains, event.groups)
        self._converge(out)

    def _next_hop_changed(self, event: NextHopChanged, _now: float, out: list[Command]) -> None:
        if self.services.next_hop_changed(event.application, event.mac):
            self._converge(out)

    def _app_ports_changed(self, event: AppPortsChanged, _now: float, out: list[Command]) -> None:
        if self.services.plugged.changed(event.ports, event.linked):
            self._converge(out)

    def _minute_turned(self, event: MinuteTurned, _now: float, out: list[Command]) -> None:
        if self.services.minute_turned(event.minute):
            self._converge(out)

    def _vnf_seen(self, event: VnfSeen, _now: float, out: list[Command]) -> None:
        if self.services.chains.seen(event.name, alive=event.alive):
            self._converge(out)

    def _application_probed(self, event: ApplicationProbed, _now: float, out: list[Command]) -> None:
        if self.services.health.checked(event.name, event.application, answered=event.answered):
            self._converge(out)

    def _own_changed(self, event: OwnApplicationChanged, _now: float, out: list[Command]) -> None:
        if self.services.own_changed(lives=event.lives):
            self._converge(out)

    def _converge(self, out: list[Command]) -> None:
        self.revision += 1
        out.append(Converge(self.revision))
