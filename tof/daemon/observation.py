"""What operators see: tunnels with their counters, sessions, health, metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from tof.agent.tunnels import Tunnel
from tof.api.port import (
    Check,
    HealthState,
    HealthView,
    LearntAddress,
    SessionView,
    TunnelQuery,
    TunnelView,
    UsageView,
)
from tof.daemon.accounting import Accounting
from tof.daemon.clock import Clock
from tof.daemon.feed import Feed
from tof.daemon.fragments import Fragments
from tof.daemon.mirroring import Mirroring
from tof.daemon.switch import Switch
from tof.daemon.vnfs import VnfWatch
from tof.drivers.layout import ENDED, HEARTBEAT_NS, TunnelRecord
from tof.drivers.xdp import XdpEndpoints
from tof.model import Direction, IpAddress, Mode, Service, TunnelState, address_text

SLICE = 512


class Observed(Protocol):
    """Something else of the TOF's that says how it is."""

    def check(self) -> Check:
        """One aspect of health."""
        ...

    def metrics(self) -> Iterable[Metric]:
        """Its own."""
        ...


class Observation:
    """Reads the agent and the data path; changes nothing."""

    def __init__(
        self, feed: Feed, endpoints: XdpEndpoints, switch: Switch, fragments: Fragments, clock: Clock,
        vnfs: VnfWatch, accounting: Accounting, mirroring: Mirroring,
    ) -> None:  # fmt: skip
        self._fragments, self._vnfs, self._accounting = fragments, vnfs, accounting
        self._mirroring = mirroring
        self._feed, self._endpoints, self._switch, self._clock = feed, endpoints, switch, clock
        self._sessions = feed.agent.sessions
        self.edge_dns = False
        self.also: list[Observed] = []
        self.missing_ports: Callable[[], Mapping[str, str]] = dict
        """Applications whose ports are not there, and why."""
        self.queues_read: Callable[[], bool] = lambda: False

    async def tunnels(self, query: TunnelQuery) -> Sequence[TunnelView]:
        """The tunnels that ``query`` wants, in the API's order."""
        wanted = query.page(t.key for t in self._sessions if query.wants(t.key, (*t.ues, *t.exact)))
        views: list[TunnelView] = []
        for at in range(0, len(wanted), SLICE):
            for key in wanted[at : at + SLICE]:
                tunnel, record = self._sessions.get(key), self._endpoints.tunnel(key)
                if tunnel is not None and record is not None:
                    views.append(self._view(tunnel, record))
            await asyncio.sleep(0)
        return views

    async def sessions(self) -> Sequence[SessionView]:
        """Every UE with its tunnels."""
        views: list[SessionView] = []
        for at, (ue, context) in enumerate(list(self._sessions.contexts())):
            ups, downs = (self._views(tunnels) for tunnels in (context.ups, context.downs))
            state = TunnelState.PAIRED if any(up.peer for up in context.ups) else TunnelState.LEARNT
            views.append(SessionView(address_text(ue), ups, downs, state))
            if at % SLICE == 0:
                await asyncio.sleep(0)
        return views

    def _views(self, tunnels: Iterable[Tunnel]) -> tuple[TunnelView, ...]:
        found = ((tunnel, self._endpoints.tunnel(tunnel.key)) for tunnel in tunnels)
        return tuple(self._view(tunnel, record) for tunnel, record in found if record is not None)

    def _view(self, tunnel: Tunnel, record: TunnelRecord) -> TunnelView:
        key = tunnel.key
        return TunnelView(
            direction=tunnel.direction,
            vlan=key.vlan,
            source=address_text(key.source),
            destination=address_text(key.destination),
            teid=key.teid,
            ues=tuple(address_text(ue) for ue in tunnel.ues),
            qfi=record.form.qfi,
            state=self._state(tunnel, record),
            packets=record.packets,
            bytes=record.octets,
            last_seen=self._clock.calendar(record.used_ns),
        )

    def _state(self, tunnel: Tunnel, record: TunnelRecord) -> TunnelState:
        if record.flags & ENDED:
            return TunnelState.ENDED
        if tunnel.direction is Direction.UPLINK:
            paired = bool(tunnel.peer)
        else:
            contexts = (c for ue in tunnel.ues for c in self._sessions.contexts_of(ue))
            paired = any(up.peer == tunnel.index for c in contexts for up in c.ups)
        return TunnelState.PAIRED if paired else TunnelState.LEARNT

    def learnt(self, service: str) -> tuple[LearntAddress, ...]:
        """The addresses of a service that is given by domain."""
        held = self._feed.agent.services.names.of(service)
        return tuple(
            LearntAddress(str(one.address), self._clock.calendar(int(one.until * 1e9))) for one in held
        )

    async def usage(self) -> Sequence[UsageView]:
        """Every account."""
        return await self._accounting.usage()

    def health(self) -> HealthView:
        """The named checks."""
        beat = self._clock.now_ns() - self._endpoints.heartbeat_ns() < HEARTBEAT_NS
        bypass = self._endpoints.bypass
        services = self._feed.agent.services
        applications = [(s, one) for s in services.catalog.services for one in s.applications]
        unhealthy = [_named(s, one) for s, one in applications if not services.health.lives(s.name, one)]
        dead = [f"dead: {name} ({why})" for name, why in self._vnfs.dead.items()]
        dead += [f"not for every packet: {name} ({why})" for name, why in self._vnfs.narrow.items()]
        missing = [f"{name} ({why})" for name, why in self.missing_ports().items()]
        unresolved = [_named(s, one) for s, one in applications
                      if s.mode is Mode.DIVERT and not services.is_resolved(one)]  # fmt: skip
        return HealthView(
            (
                _check("ovs", self._switch.up, "connected", "Open vSwitch is not connected"),
                _check("heartbeat", beat, "beating", "no heartbeat through br-ue: services go to the core"),
                _check("queue", self.queues_read(), "bound", "the queues are not read"),
                Check("xdp", HealthState.OK, "native" if self._endpoints.attachment.native else "generic"),
                _check("bypass", not bypass, "off", "on: everything goes to the wire"),
                _check("services", not unresolved, "resolved", "unresolved: " + ", ".join(unresolved)),
                _check("accounting", not self._accounting.behind, "off or told", self._accounting.behind),
                _check("applications", not unhealthy, "alive", "dead: " + ", ".join(unhealthy)),
                _check("vnfs", not dead, "alive", ", ".join(dead)),
                _check("ports", not missing, "there", "missing: " + ", ".join(missing)),
                *(
                    [
                        _check(
                            "dns", services.own_lives, "answers", "the DNS server at the edge does not answer"
                        )
                    ]
                    if self.edge_dns
                    else []
                ),
                *(one.check() for one in self.also),
            )
        )

    async def metrics(self) -> Iterable[Metric]:
        """Everything that is counted."""
        refused = CounterMetricFamily(
            "tof_refused_packets",
            "Packets that an application's port was not let say (spoofed, egress) or hear (ingress)",
            labels=["application", "reason"],
        )
        for labels, packets in sorted((await self._switch.refused()).items()):
            refused.add_metric(list(labels), packets)
        return (refused, *self._counted())

    def _counted(self) -> Iterable[Metric]:
        """Counters of the data path by name, packets that did not parse by reason, gauges."""
        packets = CounterMetricFamily("tof_packets", "Packets by what was done with them", labels=["reason"])
        for name, value in self._endpoints.counters().items():
            packets.add_metric([name], value)
        yield packets
        odd = CounterMetricFamily("tof_undecodable", "Queued packets that passed unlearnt", labels=["reason"])
        for name, value in sorted(self._feed.undecodable.items()):
            odd.add_metric([name], value)
        yield odd
        pieces = CounterMetricFamily(
            "tof_fragments", "Queued outer fragments by what became of them", labels=["reason"]
        )
        for name, value in self._fragments.counts.items():
            pieces.add_metric([name], value)
        yield pieces
        for family, text, counts in (
            ("tof_accounting", "Records of accounting by what became of them", self._accounting.counts),
            ("tof_mirror", "Packets mirrored to files by what became of them", self._mirroring.counts),
        ):
            metric = CounterMetricFamily(family, text, labels=["reason"])
            for name, value in sorted(counts.items()):
                metric.add_metric([name], value)
            yield metric
        yield from self._service_metrics()
        for one in self.also:
            yield from one.metrics()
        agent = self._feed.agent
        decided = CounterMetricFamily("tof_learning", "What the agent met and decided", labels=["reason"])
        for name, value in sorted(agent.counts.items()):
            decided.add_metric([name], value)
        yield decided
        gauges = {
            "tof_tunnels": ("Tunnels known", len(agent.sessions)),
            "tof_services": ("Services provisioned", len(agent.services.catalog.services)),
            "tof_names_addresses": (
                "Learnt addresses of services",
                sum(1 for _ in agent.services.names.all()),
            ),
            "tof_chains": ("Port-chains provisioned", len(agent.services.chains.chains)),
            "tof_vnfs_dead": ("VNFs that are dead", len(self._vnfs.dead)),
            "tof_pings_active": ("Uplink tunnels being asked by the Pinger", len(agent.pinging.active)),
            "tof_held_frames_expired": ("Frames from apps given up", agent.holding.expired),
            "tof_fragments_held": ("Outer fragments held for reassembly", self._fragments.held.fragments),
            "tof_datagrams_held": ("Datagrams being reassembled", len(self._fragments.held)),
            "tof_bypass": ("Whether bypass is on", int(self._endpoints.bypass)),
            "tof_xdp_native": ("Whether XDP runs in the drivers", int(self._endpoints.attachment.native)),
            "tof_ovs_up": ("Whether Open vSwitch is connected", int(self._switch.up)),
        }
        for name, (text, value) in gauges.items():
            yield GaugeMetricFamily(name, text, value=value)

    def _service_metrics(self) -> Iterable[Metric]:
        what = "a service selected and that were, or in shadow mode would have been, diverted"
        packets = CounterMetricFamily(
            "tof_service_packets", f"Uplink packets that {what}", labels=["service"]
        )
        octets = CounterMetricFamily(
            "tof_service_bytes", f"Bytes of users' packets that {what}", labels=["service"]
        )
        for number, record in self._endpoints.selection.served():
            if record.service != number:  # a further application: its service counts
                continue
            packets.add_metric([record.name], record.packets)
            octets.add_metric([record.name], record.octets)
        yield packets
        yield octets


def _check(name: str, good: bool, fine: str, bad: str) -> Check:
    return Check(name, HealthState.OK if good else HealthState.DEGRADED, fine if good else bad)


def _named(service: Service, application: IpAddress) -> str:
    return service.name if service.spread is None else f"{service.name} ({application})"
