"""What the API asks of the agent, as a Protocol, and the values that cross it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from heapq import nsmallest
from typing import Protocol

from prometheus_client import Metric

from tof.agent.accounting import Usage
from tof.model import Direction, Policy, Service, TunnelKey, TunnelState


class ServiceState(StrEnum):
    """``unresolved``: the application's address does not resolve. ``unhealthy``: it does not answer its probes.

    ``broken_chain``: a VNF of its chain is dead. Of these and of a ``shadow`` the traffic goes to the core. ``unlearnt``: no
    address of its domain is known. ``out_of_hours``: it selects nothing now.
    """

    IN_FORCE = "in_force"
    UNRESOLVED = "unresolved"
    UNHEALTHY = "unhealthy"
    SHADOW = "shadow"
    UNLEARNT = "unlearnt"
    BROKEN_CHAIN = "broken_chain"
    OUT_OF_HOURS = "out_of_hours"


class HealthState(StrEnum):
    """``degraded``: traffic passes, but something does less than it should."""

    OK = "ok"
    DEGRADED = "degraded"


@dataclass(frozen=True, slots=True)
class LearntAddress:
    """An address of a service given by domain, and until when it is, timezone-aware; longer while flows to it live."""

    address: str
    until: datetime


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """Whether traffic to a service reaches its application, and why not; ``learnt``: None unless given by domain."""

    name: str
    state: ServiceState
    detail: str = ""
    learnt: tuple[LearntAddress, ...] | None = None


@dataclass(frozen=True, slots=True)
class TunnelView:
    """A tunnel as ``GET /tunnels`` shows it; ``last_seen`` is timezone-aware."""

    direction: Direction
    vlan: int | None
    source: str
    destination: str
    teid: int
    ues: tuple[str, ...]
    qfi: int | None
    state: TunnelState
    packets: int
    bytes: int
    last_seen: datetime


@dataclass(frozen=True, slots=True)
class SessionView:
    """A UE with its tunnels, as ``GET /sessions`` shows it."""

    ue: str
    uplink: tuple[TunnelView, ...]
    downlink: tuple[TunnelView, ...]
    state: TunnelState


@dataclass(frozen=True, slots=True)
class UsageView:
    """A UE's traffic with a service since its account began; both moments are timezone-aware."""

    usage: Usage
    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class Check:
    """One named aspect of health: ovs, heartbeat, queue, xdp, bypass, ..."""

    name: str
    state: HealthState
    detail: str = ""


@dataclass(frozen=True, slots=True)
class HealthView:
    """The TOF's health: its checks, and their sum."""

    checks: tuple[Check, ...]

    @property
    def state(self) -> HealthState:
        """Degraded as soon as one check is."""
        degraded = any(check.state is HealthState.DEGRADED for check in self.checks)
        return HealthState.DEGRADED if degraded else HealthState.OK


@dataclass(frozen=True, slots=True)
class TunnelQuery:
    """Which tunnels are asked for; addresses packed, an IPv6 prefix of a UE is its first eight bytes."""

    ue: bytes | None = None
    teid: int | None = None
    source: bytes | None = None
    destination: bytes | None = None
    limit: int | None = None
    after: TunnelKey | None = None

    def wants(self, key: TunnelKey, ues: Collection[bytes]) -> bool:
        """Whether the tunnel ``key`` with ``ues`` behind it (packed, /64 as eight bytes) is asked for."""
        if self.teid is not None and key.teid != self.teid:
            return False
        if self.source is not None and key.source != self.source:
            return False
        if self.destination is not None and key.destination != self.destination:
            return False
        return self.ue is None or self.ue in ues or (len(self.ue) == 16 and self.ue[:8] in ues)

    def page(self, keys: Iterable[TunnelKey]) -> list[TunnelKey]:
        """``keys`` in the order of the API, from after the cursor, at most ``limit`` of them."""
        if self.after is not None:
            start = _order(self.after)
            keys = (key for key in keys if _order(key) > start)
        if self.limit is None:
            return sorted(keys, key=_order)
        return nsmallest(self.limit, keys, key=_order)


class ControlPort(Protocol):
    """The agent as the API sees it: changes return when they are in force, or raise and changed nothing.

    Errors are RequestError (400, 404, 409) and BackendError (503). The port serialises changes.
    """

    async def list_services(self) -> Sequence[Service]:
        """Every service, sorted by name."""
        ...

    async def add_service(self, service: Service) -> Service:
        """Provision a new service."""
        ...

    async def replace_service(self, name: str, service: Service) -> Service:
        """Put ``service`` in the place of the one called ``name``."""
        ...

    async def remove_service(self, key: str) -> None:
        """Withdraw the service with this name, else with this service IP."""
        ...

    async def policy(self) -> Policy:
        """Everything that is provisioned."""
        ...

    async def replace_policy(self, policy: Policy) -> Policy:
        """Exactly this from now on; all of the change or nothing."""
        ...

    async def service_status(self, name: str) -> ServiceStatus:
        """Whether the service's application is reachable."""
        ...

    async def tunnels(self, query: TunnelQuery) -> Sequence[TunnelView]:
        """The tunnels that ``query`` wants, ordered and cut as ``query.page`` does."""
        ...

    async def sessions(self) -> Sequence[SessionView]:
        """Every session."""
        ...

    async def usage(self) -> Sequence[UsageView]:
        """Every account, by service and UE; Conflict if accounting is off."""
        ...

    async def health(self) -> HealthView:
        """How the TOF is, now."""
        ...

    async def metrics(self) -> Iterable[Metric]:
        """What ``GET /metrics`` shows: what a prometheus_client collector's ``collect`` yields."""
        ...


def _order(key: TunnelKey) -> tuple[int, bytes, bytes, int]:
    # The length first, so that IPv4 sorts before IPv6 whatever the bytes are.
    return (-1 if key.vlan is None else key.vlan, _sized(key.source), _sized(key.destination), key.teid)


def _sized(address: bytes) -> bytes:
    return bytes((len(address),)) + address
