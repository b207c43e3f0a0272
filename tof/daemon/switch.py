"""The reconciler of br-ue: what the agent wants there, rendered, compared with what is there, applied as one bundle.

Order across the two halves of the data path: a service is diverted only after its flows are in; it ceases to be
diverted before they go. Pings are sent only once their source-rewrite flows are in force.
"""

from __future__ import annotations

import asyncio
from binascii import crc32
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

import structlog

from tof.agent.commands import SendPing
from tof.agent.core import Agent
from tof.config import Config
from tof.daemon.clock import Clock
from tof.dataplane import nat, pinger
from tof.dataplane.desired import AppPort, Desired, Mirrors, Ports, ServedService, ServiceRoute, Vnf
from tof.dataplane.flow import Flow
from tof.dataplane.pipeline import render
from tof.dataplane.plan import Plan, diff
from tof.dataplane.refusals import REASONS, refusals
from tof.dataplane.selection import RuleLists
from tof.drivers.openflow import OpenFlowChannel
from tof.drivers.ovsdb import Ovs, Port
from tof.drivers.socket_buffers import deepen
from tof.drivers.xdp import XdpEndpoints
from tof.errors import BackendError, SetupError
from tof.model import IpAddress, MarkKind, SecurityGroup

log = structlog.get_logger("tof.switch")

RESTART_AFTER_S = 1.0
"""A dead Open vSwitch is started again after this time: its traffic is with the core by then."""
OFPORTS = Ports(ue=1, heartbeat=2, apps=3, gateway=4, pinger=5)
_BEAT_SOURCE = 6
_FIRST_VNF, _VNFS = 4096, 8192
_FILE_MIRROR, _FIRST_MIRROR = 7, 16
_AUDIT_S = 30.0


def mirrors_of(config: Config) -> Mirrors:
    """The ports that mirrored packets can go to."""
    interfaces = tuple((name, _FIRST_MIRROR + at) for at, name in enumerate(config.mirror.interfaces))
    return Mirrors(interfaces, None if config.mirror.dir is None else _FILE_MIRROR)


def vnfs_of(config: Config) -> tuple[Vnf, ...]:
    """The VNFs with their OpenFlow ports, which follow from a VNF's name alone unless two fall together."""
    found: list[Vnf] = []
    taken: set[int] = set()
    for vnf in config.vnfs:
        number = crc32(vnf.name.encode()) % _VNFS
        while number in taken:
            number = (number + 1) % _VNFS
        taken.add(number)
        near = _FIRST_VNF + 2 * number
        found.append(Vnf(vnf.name, near, near + 1, frozenset(map(MarkKind, vnf.speaks))))
    return tuple(found)


class Switch:
    """Keeps br-ue as the agent wants it, over restarts of Open vSwitch."""

    def __init__(self, config: Config, ovs: Ovs, agent: Agent, endpoints: XdpEndpoints, clock: Clock) -> None:
        self._config, self._ovs, self._agent, self._endpoints, self._clock = (
            config,
            ovs,
            agent,
            endpoints,
            clock,
        )
        self.dirty = asyncio.Event()
        self.ready = asyncio.Event()
        self.applied = -1
        self.send_ping: Callable[[SendPing], object] = lambda _ping: None
        self.returned: Callable[[], object] = lambda: None
        self.app_ports: Callable[[], Sequence[Port]] = tuple
        """The ports that applications have of their own."""
        self.followers: list[Callable[[Sequence[ServedService]], object]] = []
        self.outbox: list[SendPing] = []
        self._changed = asyncio.Condition()
        self._refusal: str = ""
        self._routes: tuple[ServiceRoute, ...] | None = None
        self._refusals: Mapping[int, tuple[str, str]] = {}
        self._channel: OpenFlowChannel | None = None
        self._guarded: tuple[tuple[AppPort, ...], tuple[SecurityGroup, ...]] = ((), ())
        self._served: tuple[ServedService, ...] = ()
        self._rules: RuleLists | None = None
        self._base: frozenset[Flow] = frozenset()
        self._present: dict[int, int] = {}
        self._local: tuple[IpAddress, ...] = config.dns.listen
        self._mirrors = mirrors_of(config)
        self._app_addresses: tuple[IpAddress, ...] = tuple(a.ip for a in config.ue.app_address)

    async def add_anew(self, vnf: str) -> None:
        """The interfaces of a VNF are new ones, under the same names."""
        await self._ovs.add_anew(self._config.names.br_ue, self._ports_of(vnf))

    def _ports_of(self, name: str | None = None) -> list[Port]:
        pairs = zip(self._config.vnfs, vnfs_of(self._config), strict=True)
        return [
            Port(device, number, optional=True)
            for vnf, ports in pairs
            for device, number in ((vnf.ingress, ports.near), (vnf.egress, ports.far))
            if name in (None, vnf.name)
        ]

    async def add_port(self, port: Port) -> None:
        """Make an application's port one of br-ue, if Open vSwitch is there."""
        if self.up:
            await self._ovs.add_port(self._config.names.br_ue, port)
            self._deepen({port.device})

    async def drop_port(self, device: str) -> None:
        """Make an application's port none of br-ue, if Open vSwitch is there."""
        if self.up:
            await self._ovs.drop_port(self._config.names.br_ue, device)

    def _deepen(self, devices: set[str]) -> None:
        for pid in self._ovs.pids().values():
            deepen(pid, devices)

    @property
    def up(self) -> bool:
        """Whether the switch is connected and as wanted."""
        return self.ready.is_set()

    async def run(self) -> None:
        """Connect, reconcile, stay; again whenever Open vSwitch went away."""
        while True:
            try:
                await self._session()
            except (BackendError, SetupError) as error:
                log.warning("Open vSwitch is not available", error=str(error))
            self.ready.clear()
            await self._refuse("Open vSwitch is not available")
            await asyncio.sleep(RESTART_AFTER_S)

    async def _session(self) -> None:
        await self._ovs.ensure_running()
        names = self._config.names
        await self._ovs.ensure_bridge(names.br_ue)
        ports = (
            Port(names.ue_ovs, OFPORTS.ue), Port(names.hb1, OFPORTS.heartbeat), Port(names.app1, OFPORTS.apps),
            Port(names.gw1, OFPORTS.gateway), Port(names.pinger1, OFPORTS.pinger),
            Port(names.hb0, _BEAT_SOURCE, cfm_mpid=1), *self._ports_of(),
            *(Port(device, number, optional=True) for device, number in self._mirrors.interfaces),
        )  # fmt: skip
        if self._mirrors.file is not None:
            ports = (*ports, Port(names.mirror1, self._mirrors.file))
        applications = self.app_ports()
        await self._ovs.ensure_ports(names.br_ue, ports, {port.device for port in applications})
        await self._ovs.add_ports(names.br_ue, applications)
        await self._ovs.track_short_fragments()
        self._deepen({port.device for port in (*ports, *applications)})
        channel = await OpenFlowChannel.connect(self._ovs.management_socket(names.br_ue))
        self._channel = channel
        try:
            await self._reconcile_all(channel)
            log.info("br-ue is as wanted", flows=len(self._present))
            await self._follow(channel)
        finally:
            self._channel = None
            await channel.close()

    async def _follow(self, channel: OpenFlowChannel) -> None:
        while not channel.closed.is_set():
            woken = await _first(self.dirty, channel.closed, timeout_s=_AUDIT_S)
            if channel.closed.is_set():
                return
            try:
                if woken:
                    await self._reconcile_changes(channel)
                else:
                    await self._reconcile_all(channel)
            except BackendError as error:
                await self._refuse(str(error))
                if channel.closed.is_set():
                    raise
                await asyncio.sleep(0.2)
                self.dirty.set()

    async def _reconcile_all(self, channel: OpenFlowChannel) -> None:
        """From what the switch says it holds."""
        self._present = dict(await channel.read_cookies())
        self._routes = None
        await self._reconcile_changes(channel)

    async def _reconcile_changes(self, channel: OpenFlowChannel) -> None:
        self.dirty.clear()
        services = self._agent.services
        revision, routes, served = self._agent.revision, services.routes, services.served
        rules, guarded = services.rules, (services.plugged.ports, services.plugged.groups)
        changed = routes != self._routes or guarded != self._guarded
        if changed:
            self._base = render(
                Desired(
                    OFPORTS,
                    self._app_addresses,
                    routes,
                    vnfs=vnfs_of(self._config),
                    local=self._local,
                    accounting=self._config.accounting.on,
                    mirrors=self._mirrors,
                    app_ports=guarded[0],
                    groups=guarded[1],
                )
            )
            self._refusals = refusals(self._base, guarded[0])
            kept = {route.service_id for route in routes}
            self._endpoints.drop_services(
                r.service_id for r in self._routes or () if r.service_id not in kept
            )
        pings = Desired(OFPORTS, self._app_addresses, (), self._agent.ping_routes)
        wanted = self._base | frozenset(pinger.rules(pings))
        plan = diff(self._present, wanted)
        if not plan.empty:
            await channel.apply(plan)
            self._note(plan)
            if (plan.drop and changed) or guarded != self._guarded:
                await self._ovs.forget_cached_flows()  # a change of services is in force when the API says so
        if changed or served != self._served or rules is not self._rules:
            for follower in self.followers:
                follower(served)
            own = {address for port in guarded[0] for address in port.addresses}
            self._endpoints.set_tracked(nat.tracked(routes) | own)
            self._endpoints.set_services(served, rules)
            self._routes, self._served, self._rules = routes, served, rules
            self._guarded = guarded
        self.applied, self._refusal = revision, ""
        if not self.up:
            self.ready.set()
            self.returned()
        async with self._changed:
            self._changed.notify_all()
        self._send_pings()

    def _note(self, plan: Plan) -> None:
        for cookie in plan.drop:
            self._present.pop(cookie, None)
        self._present.update((flow.cookie, flow.table) for flow in plan.put)

    def _send_pings(self) -> None:
        sending, self.outbox[:] = list(self.outbox), []
        for ping in sending:
            self.send_ping(ping)

    async def _refuse(self, why: str) -> None:
        self._refusal = why
        self.outbox.clear()
        async with self._changed:
            self._changed.notify_all()

    async def refused(self) -> Mapping[tuple[str, str], int]:
        """Packets refused at applications' ports, by application and reason; nothing while Open vSwitch is not there."""
        counts = dict.fromkeys(self._refusals.values(), 0)
        if self._channel is not None and counts:
            with suppress(BackendError):
                for table in REASONS:
                    for cookie, packets in (await self._channel.read_packets(table)).items():
                        if (what := self._refusals.get(cookie)) is not None:
                            counts[what] += packets
        return counts

    async def in_force(self, revision: int, deadline_s: float) -> None:
        """Return once ``revision`` is applied; BackendError if the switch refuses it or is not there."""
        if not self.up:
            raise BackendError(self._refusal or "Open vSwitch is not connected yet")
        self._refusal = ""
        self.dirty.set()
        try:
            async with asyncio.timeout(deadline_s), self._changed:
                await self._changed.wait_for(lambda: self.applied >= revision or bool(self._refusal))
        except TimeoutError:
            raise BackendError(f"Open vSwitch did not take the change within {deadline_s} s") from None
        if self.applied < revision:
            raise BackendError(self._refusal)


async def _first(one: asyncio.Event, other: asyncio.Event, timeout_s: float) -> bool:
    """Wait for either event; whether ``one`` is set."""
    waits: Sequence[asyncio.Future[object]] = [asyncio.ensure_future(e.wait()) for e in (one, other)]
    try:
        await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
    return one.is_set()
