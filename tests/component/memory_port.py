"""A ControlPort that keeps its state in memory: the real catalog, and tunnels put there by the test."""

from __future__ import annotations

from datetime import UTC, datetime
from ipaddress import ip_address, ip_network

from prometheus_client.core import GaugeMetricFamily

from tof.agent.accounting import Usage
from tof.agent.catalog import Catalog
from tof.api.port import (
    Check,
    HealthState,
    HealthView,
    LearntAddress,
    ServiceState,
    ServiceStatus,
    SessionView,
    TunnelView,
    UsageView,
)
from tof.model import Direction, Policy, TunnelKey, TunnelState

SEEN = datetime(2026, 1, 2, 3, 4, 5, 500000, tzinfo=UTC)


def tunnel(
    teid,
    direction="uplink",
    source="10.0.0.1",
    destination="10.0.1.1",
    vlan=None,
    ues=("10.45.0.2",),
    qfi=None,
):
    state = TunnelState.PAIRED
    return TunnelView(Direction(direction), vlan, source, destination, teid, ues, qfi, state, 3, 252, SEEN)


class MemoryPort:
    """What the daemon will be, without a data plane."""

    def __init__(self):
        self.catalog = Catalog([ip_address("8.8.8.8")], [ip_address("192.168.50.1")])
        self.groups = ()
        self.held: list[TunnelView] = []
        self.used: list[Usage] = []
        self.unresolved: set[str] = set()
        self.learnt: dict[str, tuple[LearntAddress, ...]] = {}
        self.refuses: Exception | None = None
        self.ovs_is_up = True

    async def list_services(self):
        return self.catalog.services

    async def add_service(self, service):
        self._refuse()
        return self.catalog.put_new(service)

    async def replace_service(self, name, service):
        self._refuse()
        return self.catalog.replace(name, service)

    async def remove_service(self, key):
        self._refuse()
        self.catalog.remove(key)

    async def policy(self):
        return Policy(self.catalog.services, self.catalog.chains, self.groups)

    async def replace_policy(self, policy):
        self._refuse()
        self.catalog.replace_all(policy.services, policy.chains)
        self.groups = policy.groups
        return await self.policy()

    async def service_status(self, name):
        self.catalog.get(name)
        if name in self.unresolved:
            return ServiceStatus(name, ServiceState.UNRESOLVED, "192.168.50.10 does not answer")
        return ServiceStatus(name, ServiceState.IN_FORCE, learnt=self.learnt.get(name))

    async def tunnels(self, query):
        views = {key_of(view): view for view in self.held}
        keys = (key for key, view in views.items() if query.wants(key, ues_of(view)))
        return [views[key] for key in query.page(keys)]

    async def sessions(self):
        ues = sorted({ue for view in self.held for ue in view.ues})
        return [self._session(ue) for ue in ues]

    async def usage(self):
        self._refuse()
        return [UsageView(one, SEEN, SEEN) for one in self.used]

    async def health(self):
        ovs = (
            Check("ovs", HealthState.OK)
            if self.ovs_is_up
            else Check("ovs", HealthState.DEGRADED, "no answer")
        )
        return HealthView((ovs, Check("xdp", HealthState.OK, "native")))

    async def metrics(self):
        return [GaugeMetricFamily("tof_services", "Provisioned services", value=len(self.catalog.services))]

    def _refuse(self):
        if self.refuses is not None:
            raise self.refuses

    def _session(self, ue):
        mine = [view for view in self.held if ue in view.ues]
        up = tuple(v for v in mine if v.direction is Direction.UPLINK)
        down = tuple(v for v in mine if v.direction is Direction.DOWNLINK)
        return SessionView(ue, up, down, TunnelState.PAIRED if up and down else TunnelState.LEARNT)


def key_of(view):
    source, destination = ip_address(view.source).packed, ip_address(view.destination).packed
    return TunnelKey(source, destination, view.teid, view.vlan)


def ues_of(view):
    return [ip_network(ue).network_address.packed[: 8 if "/" in ue else 16] for ue in view.ues]
