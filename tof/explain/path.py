"""The TOF as it would have met a capture: the real agent, its data path in memory, and the programs' judgement on top.

``fast``, ``back`` and ``judge`` of tof.bpf.c, with the capture's own clock. It is assumed that Open vSwitch runs, that
applications resolve, that the queue keeps up, that each event reaches the agent before the next frame, and that nobody
answers the Pinger.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address, ip_network
from itertools import count
from typing import Final

from tof.agent.catalog import Catalog
from tof.agent.commands import (
    Command,
    Converge,
    DropPacket,
    DropTunnel,
    PutTunnel,
    ReleaseFrame,
    SendPing,
    SetCalm,
    SetOwners,
    SetPeer,
)
from tof.agent.core import Agent, AgentPolicy
from tof.agent.events import DownlinkMoved, Event, ForeignSourceSeen, ServiceAdded, Tick, UplinkReturned
from tof.agent.pinging import PingPolicy
from tof.agent.tunnels import ue_of
from tof.dataplane.selection import Facts, judge, rule_lists
from tof.drivers.layout import ENDED, LEFT, TunnelRecord
from tof.drivers.memory import MemoryEndpoints
from tof.explain.choosing import nearest
from tof.explain.flows import DIVERTED, Flows
from tof.explain.reading import Part, User
from tof.explain.words import Outcome, Verdict
from tof.model import Chain, Direction, Mode, Service, TunnelKey, address_text
from tof.wire.inet import is_global_unicast

TARGETS: Final = tuple(ip_address(text).packed for text in ("8.8.8.8", "2001:4860:4860::8888"))
TELL_NS: Final = 100_000_000
"""At most one event about a known tunnel in this time."""


class Path:
    """What is known, and the judgement on users' packets by it; ``now_ns`` is the caller's to set."""

    def __init__(self, services: Iterable[Service]) -> None:
        self.now_ns = 0
        self.endpoints = MemoryEndpoints()
        services, catalog = tuple(services), Catalog()
        catalog.chains = tuple(Chain(name, ()) for name in {s.chain for s in services if s.chain is not None})
        self.agent = Agent(AgentPolicy(PingPolicy(TARGETS)), catalog, count(1))
        for service in services:
            self.agent.handle(ServiceAdded(service), 0.0)
        self.services = self.agent.services.catalog.services
        self._lists = rule_lists(self.services)
        self._flows = Flows()
        self._told: dict[int, int] = {}
        self._calm: dict[TunnelKey, int] = {}

    @property
    def now(self) -> float:
        """In seconds, as the agent counts."""
        return self.now_ns / 1e9

    def tick(self) -> None:
        """Time has passed."""
        if (at := self.agent.wake_at) is not None and at <= self.now:
            self.tell(Tick())

    def tell(self, event: Event) -> tuple[str, ...]:
        """Let the agent know; what it learnt or decided, by name."""
        before = self.agent.counts.copy()
        learnt: dict[str, None] = {}
        for command in self.agent.handle(event, self.now):
            learnt |= dict.fromkeys(self._carry_out(command))
        return *learnt, *(self.agent.counts - before)

    def tunnel(self, key: TunnelKey) -> TunnelRecord | None:
        """As the data path holds it."""
        return self.endpoints.tunnel(key)

    def notice(self, key: TunnelKey, record: TunnelRecord, user: User) -> tuple[tuple[str, ...], bool]:
        """What a packet in a known tunnel says about its UE: what is learnt of it, and whether it is spoofed."""
        uplink = record.direction is Direction.UPLINK
        address = user.source if uplink else user.destination
        owned = ue_of(address) in record.ues
        event: Event | None = None
        if (
            not owned
            and is_global_unicast(address)
            and (uplink or ip_network(address) not in self._lists.lists)
        ):
            event = (ForeignSourceSeen if uplink else DownlinkMoved)(record.number, address)
        elif owned and uplink and record.flags & LEFT:
            event = UplinkReturned(record.number)
        elif owned and not uplink and record.flags & ENDED:
            event = DownlinkMoved(record.number, address)
        spoofed = isinstance(event, ForeignSourceSeen)
        if event is None or (isinstance(event, ForeignSourceSeen) and self._calm.get(key, 0) > self.now_ns):
            return (), spoofed
        if self.now_ns - self._told.get(record.number, -TELL_NS) < TELL_NS:
            return (), spoofed
        self._told[record.number] = self.now_ns
        return self.tell(event), spoofed

    def serve(self, key: TunnelKey, record: TunnelRecord, user: User, *, spoofed: bool = False) -> Outcome:
        """The judgement on a packet that a UE sent in a known tunnel: ``divert`` of tof.bpf.c."""
        service, detail = self._service(key, record, user)
        if self._may_have_moved(record, user, service):
            outcome = Outcome(Verdict.DROPPED, "flow_waits", service)
        elif not service or ue_of(user.source) not in record.ues:
            outcome = _undiverted(record, user, service, detail, spoofed=spoofed)
        elif service.mode is Mode.SHADOW:
            outcome = Outcome(Verdict.SHADOW, "shadow", service)
        else:
            paired = self.endpoints.peers.get(record.number, 0) != 0
            taken = self._flows.take(user, record, service, self.now_ns, self.endpoints.peers, paired=paired)
            outcome = Outcome(_VERDICTS.get(taken, Verdict.PASSES), taken, service)
        self._flows.remember(user, record.session, service, outcome.reason, self.now_ns)
        return outcome

    def _may_have_moved(self, record: TunnelRecord, user: User, service: Service | None) -> bool:
        """Whether it is a segment of a diverted connection: it waits until its tunnel is known to be its UE's."""
        if service is None or service.mode is Mode.SHADOW or ue_of(user.source) in record.ues:
            return False
        return is_global_unicast(user.source) and self._flows.runs(
            user, service, self.now_ns, self.endpoints.peers
        )

    def to_service(self, key: TunnelKey, user: User) -> Service | None:
        """The service that diverts this packet, if its tunnel is the UE's."""
        rule = judge(self._lists, _facts(key, user))
        return rule.service if rule is not None and rule.service.mode is Mode.DIVERT else None

    def _service(self, key: TunnelKey, record: TunnelRecord, user: User) -> tuple[Service | None, str]:
        first = self._flows.first_of(user, record.session, self.now_ns)
        if first is not None:
            return first.service, ""
        facts = _facts(key, user)
        rule = judge(self._lists, facts)
        if rule is not None:
            return rule.service, ""
        miss = nearest(self.services, facts)
        return None, "" if miss is None else miss.text

    def _carry_out(self, command: Command) -> tuple[str, ...]:
        match command:
            case SendPing() | ReleaseFrame() | DropPacket() | Converge():
                return ()
            case SetCalm(key, seconds):
                self._calm[key] = self.now_ns + int(seconds * 1e9)
            case DropTunnel(key):
                self._calm.pop(key, None)
        self.endpoints.carry_out(command, self.now_ns)
        match command:
            case PutTunnel():
                return ("tunnel_learnt",)
            case DropTunnel():
                return ("tunnel_forgotten",)
            case SetOwners():
                return ("owner_learnt",)
            case SetPeer(_, _, peer) if peer:
                return ("tunnels_paired",)
        return ()


_VERDICTS: Final = {DIVERTED: Verdict.DIVERTED, "flow_waits": Verdict.DROPPED}


def _undiverted(
    record: TunnelRecord, user: User, service: Service | None, detail: str, *, spoofed: bool
) -> Outcome:
    """A packet that is no service's, or whose source is not the tunnel's UE."""
    if spoofed or (service and not is_global_unicast(user.source)):
        owners = " and ".join(map(address_text, record.ues)) or "nobody"
        return Outcome(
            Verdict.PASSES, "spoofed", service, f"{address_text(user.source)} in a tunnel of {owners}"
        )
    return Outcome(Verdict.PASSES, "nested" if user.nested else "no_service", None, detail)


def _facts(key: TunnelKey, user: User) -> Facts:
    port = user.port
    return Facts(
        user.source,
        user.destination,
        user.protocol,
        port,
        user.dscp,
        key.source,
        key.destination,
        key.vlan or 0,
        user.part is Part.LATER,
    )
