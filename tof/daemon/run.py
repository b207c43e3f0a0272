"""``tof agent``: one process, one event loop, one owner for every task.

Start: host plumbing, data path (taking over what is there), Open vSwitch, services, queues, API. Shutdown: the API, the
queues (from then on packets bypass them), the drivers; the data plane stays in force until ``tof down``.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import secrets
import signal
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any

import structlog

from tof.agent.catalog import Catalog
from tof.agent.commands import SendPing
from tof.agent.core import Agent, AgentPolicy
from tof.agent.events import (
    MinuteTurned,
    ServiceAdded,
    ServicesReplaced,
    SwitchReturned,
    TunnelsAdopted,
    TunnelsIdle,
)
from tof.agent.names import NamePolicy
from tof.agent.pinging import PingPolicy
from tof.api.app import create_app
from tof.api.server import serve
from tof.config import Config
from tof.daemon.accounting import Accounting
from tof.daemon.app_steps import Offer
from tof.daemon.appports import AppPorts
from tof.daemon.apps import AppManager
from tof.daemon.clock import Clock
from tof.daemon.control import Control
from tof.daemon.edgedns import EdgeDns, own_services
from tof.daemon.feed import Feed
from tof.daemon.fragments import Fragments
from tof.daemon.idle import idle_tunnels
from tof.daemon.lcm import LcmManager
from tof.daemon.logs import configure_logs
from tof.daemon.mirroring import Mirroring
from tof.daemon.naming import Naming
from tof.daemon.notifying import Notifier
from tof.daemon.observation import Observation
from tof.daemon.prober import Prober
from tof.daemon.resolver import Resolver
from tof.daemon.switch import Switch, mirrors_of, vnfs_of
from tof.daemon.toobig import TooBig
from tof.daemon.vims import offers_of
from tof.daemon.vnfs import VnfWatch
from tof.drivers import netfilter
from tof.drivers.callbacks import Callbacks
from tof.drivers.host import Host
from tof.drivers.nfqueue import PacketQueue, listened_to
from tof.drivers.ovsdb import Ovs, PrivateOvs, SystemOvs
from tof.drivers.sockets import FrameSocket
from tof.drivers.splices import Splices
from tof.drivers.store import FILE_NAME, Store
from tof.drivers.unbound import Unbound
from tof.drivers.xdp import XdpEndpoints
from tof.errors import RequestError, SetupError
from tof.model import Chain, Side, tunnel_mac
from tof.vim.interface import AppNetwork
from tof.wire.icmp import Echo, echo_packet

log = structlog.get_logger("tof")

IDLE_SCAN_S = 2.0
TICK_S = 0.02
PINGER_ADDRESSES = {4: bytes((192, 0, 0, 8)), 6: bytes.fromhex("01000000000000000000000000000001")}
"""The Pinger's own source addresses, of dummy blocks (RFC 7600, RFC 6666); OpenFlow puts the UE's in their place."""


def run(config: Config) -> int:
    """Run the agent until SIGTERM or SIGINT; the exit status."""
    configure_logs(config.log)
    with _only_one(config):
        # What blocks is done before the loop runs.
        plumbing = Host(config).up()
        netfilter.ensure(netfilter.wanted(config))
        endpoints = XdpEndpoints(plumbing, config.tunnels.max, config.s1, config.accounting)
        try:
            endpoints.attach()
            asyncio.run(Daemon(config, endpoints).run())
        finally:
            endpoints.close()
    return 0


@contextmanager
def _only_one(config: Config) -> Iterator[None]:
    """Hold the pid file; SetupError if an agent with the same run_dir holds it."""
    run_dir = config.state.run_dir
    run_dir.mkdir(parents=True, exist_ok=True)
    with (run_dir / "agent.pid").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SetupError(
                f"an agent runs already in {run_dir}: stop it, or set another agent.name"
            ) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


class Daemon:
    """One agent and its drivers."""

    def __init__(self, config: Config, endpoints: XdpEndpoints) -> None:
        self._config, self._endpoints = config, endpoints
        self._clock = Clock()
        self._stop = asyncio.Event()
        self._bug: BaseException | None = None
        self.app_ports: AppPorts | None = None
        """Plugs what runs here into br-ue, once that is up."""

    async def run(self) -> None:
        """Everything, until told to stop."""
        loop = asyncio.get_running_loop()
        for sign in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(sign, self._stop.set)
        loop.set_exception_handler(self._failed)
        async with AsyncExitStack() as stack:
            await self._assemble(stack)
            log.info("in force", instance=self._config.agent.name)
            await self._stop.wait()
            log.info("stopping; the data plane stays in force")
        if self._bug is not None:
            raise self._bug

    def _failed(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """A callback (queue, ring buffer, neighbours) raised: a bug, so end; a new agent takes over what is there."""
        loop.default_exception_handler(context)
        if "handle" in context:
            self._bug = self._bug or context.get("exception")
            self._stop.set()

    async def _assemble(self, stack: AsyncExitStack) -> None:
        config, endpoints, loop = self._config, self._endpoints, asyncio.get_running_loop()
        agent = Agent(_policy(config), _catalog(config), iter(lambda: secrets.randbits(64), -1))
        ue_side, pinger_side, apps_side = (
            _frames(stack, name)
            for name in (config.names.ue_ovs, config.names.pinger0, config.ue.app_interface)
        )
        switch = Switch(config, _ovs(config), agent, endpoints, self._clock)
        feed = Feed(agent, endpoints, ue_side, self._clock, switch)
        switch.send_ping = lambda ping: pinger_side.send(_ping_frame(ping, pinger_side.mac))
        switch.returned = lambda: feed.handle(SwitchReturned())
        onward = _frames(stack, config.names.ue)
        accounting = Accounting(config, endpoints, agent.services, self._clock)
        mirroring = Mirroring(config)
        switch.followers += [accounting.note, mirroring.note]
        fragments = Fragments(
            feed, endpoints, onward, ue_side, apps_side, self._clock, account=accounting.add
        )  # fmt: skip
        too_big = TooBig(agent, endpoints, config.ue, ue_side, apps_side, onward, self._clock)
        feed.too_big, feed.apps_too_big = too_big.handle, too_big.from_ue
        self._adopt(endpoints, feed)
        endpoints.set_resolvers(config.dns.believed)
        store = await stack.enter_async_context(Store(config.state.dir / FILE_NAME))
        feed.handle(MinuteTurned(self._clock.minute_of_week()))
        await self._load_services(store, feed)
        naming = Naming(feed, endpoints, store, self._clock, config.dns.idle_s)
        await naming.recall()
        stack.push_async_callback(accounting.close)
        loop.add_signal_handler(signal.SIGHUP, accounting.reopen)
        group = await stack.enter_async_context(asyncio.TaskGroup())
        tasks: list[asyncio.Task[None]] = []
        stack.callback(lambda: [task.cancel() for task in tasks])
        resolver = Resolver(config.ue, config.names.gw0, agent.services, feed.handle)
        stack.callback(resolver.neighbours.close)
        resolver.neighbours.start()
        ports = AppPorts(config, Splices(config, endpoints.splices), switch, feed, resolver.review)
        too_big.side_of = ports.side
        await ports.begin()
        await self._resolve_all(resolver, agent)
        edge = await self._edge_dns(agent, feed)
        prober = Prober(config.names.gw0, agent.services, feed.handle)
        vnfs = VnfWatch(config.vnfs, feed.handle, switch.add_anew, config.ue.app_interface)
        vnfs.look()
        tasks += [
            group.create_task(switch.run(), name="switch"),
            group.create_task(prober.run(), name="prober"),
            group.create_task(naming.run(), name="naming"),
            group.create_task(vnfs.run(), name="vnfs"),
            group.create_task(ports.run(), name="application ports"),
            group.create_task(edge.run(), name="edge DNS"),
            group.create_task(self._ticks(feed, fragments), name="ticks"),
            group.create_task(self._hours(feed), name="hours"),
            group.create_task(self._purge(feed, endpoints), name="purge"),
            group.create_task(accounting.run(), name="accounting"),
            group.create_task(mirroring.run(), name="mirroring"),
        ]
        self._watch(stack, loop, feed, fragments, endpoints)
        observation = Observation(
            feed, endpoints, switch, fragments, self._clock, vnfs, accounting, mirroring
        )
        observation.missing_ports = lambda: ports.missing
        observation.edge_dns = config.dns.server != "off"
        base = config.agent.queue_base
        observation.queues_read = lambda: listened_to((base, base + 1))
        control = Control(
            feed, switch, endpoints, store, resolver, prober, observation, edge, vnfs, mirrors_of(config)
        )
        await self._first_convergence(switch)
        self.app_ports = ports
        apps = AppManager(
            self.offers(ports), control, store, self._clock,
            instance=config.agent.name, device=config.names.gw0,
        )  # fmt: skip
        await apps.recall()
        lcm = await self._life_cycles(stack, apps, store)
        tasks.append(group.create_task(apps.run(), name="apps"))
        tasks.append(group.create_task(lcm.run(), name="application instances"))
        observation.also += [apps, lcm]
        app = create_app(control, apps=apps, lcm=lcm)
        bound = await stack.enter_async_context(serve(app, config.api.listen))
        log.info("API", listen=bound)

    async def _life_cycles(self, stack: AsyncExitStack, apps: AppManager, store: Store) -> LcmManager:
        callbacks = await stack.enter_async_context(Callbacks(self._config.app_lcm.callbacks))
        lcm = LcmManager(apps, store, callbacks, Notifier(callbacks), self._clock)
        await lcm.recall()
        apps.followers.append(lcm.wake)
        return lcm

    def offers(self, network: AppNetwork) -> Mapping[str, Offer]:
        """The VIMs, whose apps' interfaces become ports of ``network``."""
        return offers_of(self._config, network)

    def _adopt(self, endpoints: XdpEndpoints, feed: Feed) -> None:
        if not endpoints.adopted:
            return
        services = endpoints.adopt_services()
        feed.handle(TunnelsAdopted(endpoints.adopt(), services, endpoints.adopt_tokens()))
        log.info("took over", tunnels=len(feed.agent.sessions), services=len(services))

    async def _load_services(self, store: Store, feed: Feed) -> None:
        chains: list[Chain] = []
        groups = tuple(await store.load_groups())
        feed.handle(ServicesReplaced((), (), groups))
        for chain in await store.load_chains():
            try:
                feed.handle(ServicesReplaced((), (*chains, chain), groups))
                chains.append(chain)
            except RequestError as error:
                log.warning("a stored chain is not provisioned", name=chain.name, reason=str(error))
        for service in await store.load():
            try:
                feed.handle(ServiceAdded(service))
            except RequestError as error:
                log.warning("a stored service is not provisioned", name=service.name, reason=str(error))

    async def _edge_dns(self, agent: Agent, feed: Feed) -> EdgeDns:
        dns = self._config.dns
        server = Unbound(self._config.state.run_dir, dns)
        if dns.server == "off":
            await server.stop()  # an earlier agent may have had one
        edge = EdgeDns(None if dns.server == "off" else server, agent.services, feed.handle)
        await edge.review()
        return edge

    async def _resolve_all(self, resolver: Resolver, agent: Agent) -> None:
        """Before the first reconciliation, so that taking over does not interrupt what is being diverted."""
        await resolver.resolve(agent.services.applications, 1.5)

    def _watch(
        self, stack: AsyncExitStack, loop: asyncio.AbstractEventLoop, feed: Feed, fragments: Fragments,
        endpoints: XdpEndpoints,
    ) -> None:  # fmt: skip
        for ring in (endpoints.events(feed.record), endpoints.seen(feed.seen)):
            stack.callback(ring.close)
            loop.add_reader(ring.fd, ring.drain)
            stack.callback(loop.remove_reader, ring.fd)
        base = self._config.agent.queue_base
        for side in Side:
            queue = PacketQueue(base + side.value, side, feed.packet, fragments.packet)
            stack.callback(queue.close)
            loop.add_reader(queue.fd, queue.read)
            stack.callback(loop.remove_reader, queue.fd)
        stack.callback(fragments.flush)  # before the queues are closed: the kernel drops what is in them then
        features = endpoints.attachment.features
        if features is not None:

            def changed() -> None:
                features.drain()
                loop.run_in_executor(None, endpoints.attachment.choose_mode)  # netlink round trips, and rare

            loop.add_reader(features.fd, changed)
            stack.callback(loop.remove_reader, features.fd)

    async def _first_convergence(self, switch: Switch) -> None:
        try:
            async with asyncio.timeout(10):
                await switch.ready.wait()
        except TimeoutError:
            log.warning("Open vSwitch is not ready: services go to the core until it is")

    async def _ticks(self, feed: Feed, fragments: Fragments) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            fragments.tick()
            due = feed.agent.wake_at
            if due is not None and due <= self._clock.now():
                feed.tick()

    async def _hours(self, feed: Feed) -> None:
        while True:
            await asyncio.sleep(1)  # the clock may be set
            feed.handle(MinuteTurned(self._clock.minute_of_week()))

    async def _purge(self, feed: Feed, endpoints: XdpEndpoints) -> None:
        timeout_ns = int(self._config.tunnels.idle_timeout_s * 1e9)
        while True:
            await asyncio.sleep(IDLE_SCAN_S)
            idle = await idle_tunnels(endpoints, self._clock.now_ns() - timeout_ns)
            if idle:
                feed.handle(TunnelsIdle(frozenset(idle)))


def _frames(stack: AsyncExitStack, device: str) -> FrameSocket:
    frames = FrameSocket(device)
    stack.callback(frames.close)
    return frames


def _policy(config: Config) -> AgentPolicy:
    most = config.tunnels.max
    targets = tuple(target.packed for target in config.pinger.target)
    ping = PingPolicy(targets, config.pinger.interval_s, config.pinger.attempts)
    names = NamePolicy(config.dns.believed, config.dns.least_hold_s, config.dns.most_hold_s)
    generation = secrets.randbelow(256)
    return AgentPolicy(
        ping, most, max(1, most // 2), own_services(config.dns), names, vnfs_of(config), generation
    )


def _catalog(config: Config) -> Catalog:
    own = [*(address.ip for address in config.ue.app_address), *config.dns.listen]
    learns, answers = bool(config.dns.believed), config.dns.server != "off"
    vnfs = {vnf.name: vnf.speaks for vnf in vnfs_of(config)}
    return Catalog(config.pinger.target, own, learns=learns, answers=answers, vnfs=vnfs)


def _ovs(config: Config) -> Ovs:
    if config.ue.ovs == "private":
        return PrivateOvs(config.state.run_dir, config.agent.name)
    socket = "/run/openvswitch/db.sock" if config.ue.ovs == "system" else config.ue.ovs.removeprefix("unix:")
    return SystemOvs(Path(socket), config.agent.name)


def _ping_frame(ping: SendPing, source_mac: bytes) -> bytes:
    """The Pinger's echo request as it leaves its adapter: the destination MAC says which tunnel it is for."""
    version = 4 if len(ping.ue) == 4 else 6
    echo = Echo(ping.index & 0xFFFF, ping.sequence, ping.token.to_bytes(8, "big") + b"tof-pinger")
    packet = echo_packet(PINGER_ADDRESSES[version], ping.target, echo)
    ethertype = b"\x08\x00" if version == 4 else b"\x86\xdd"
    return tunnel_mac(ping.index) + source_mac + ethertype + packet
