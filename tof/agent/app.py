"""ME Apps as values: what an orchestrator asks for, and what becomes of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from ipaddress import ip_address
from typing import Final

from tof.model import HealthCheck, IpAddress, ProbeKind, Service, probe_port

PLACEHOLDERS: Final = {4: ip_address("192.0.2.1"), 6: ip_address("2001:db8::1")}
"""The application's address in a service that has none yet, by version of IP (RFC 5737, RFC 3849)."""
TCP: Final = 6
APPS_NETWORK: Final = "apps"
"""The network that leads to the TOF; every app is on it."""


class Restart(StrEnum):
    """What becomes of an app that ended by itself: started again, or left, its services withdrawn."""

    ALWAYS = "always"
    NEVER = "never"


class AppState(StrEnum):
    """``undoing``: something failed, and what was made is being removed. ``gone`` is told to those who wait for it."""

    REQUESTED = "requested"
    BUILDING = "building"
    PROBING = "probing"
    PROVISIONING = "provisioning"
    READY = "ready"
    UNDOING = "undoing"
    RESTARTING = "restarting"
    FAILED = "failed"
    TERMINATING = "terminating"
    GONE = "gone"


class Step(StrEnum):
    """What is done for an app, one at a time; ``run`` is what an app does by itself."""

    FIND = "find"
    BUILD = "build"
    PROBE = "probe"
    PROVISION = "provision"
    RUN = "run"
    WITHDRAW = "withdraw"
    DESTROY = "destroy"
    FORGET = "forget"
    WAIT = "wait"


@dataclass(frozen=True, slots=True)
class Flavour:
    """How much of the host an app may take: processors and MiB of memory; None: as much as there is."""

    cpu: float | None = None
    memory_mb: int | None = None


@dataclass(frozen=True, slots=True)
class App:
    """An ME App. ``services`` have a placeholder for the application's address until the VIM gave one.

    ``image``: a root file system (or image) that the VIM knows; without it the VIM's usual one. ``health``: how it is asked
    whether it has come up; its services are in force only then.
    """

    name: str
    vim: str = "local"
    image: str | None = None
    command: tuple[str, ...] = ()
    flavour: Flavour = Flavour()
    networks: tuple[str, ...] = (APPS_NETWORK,)
    environment: tuple[tuple[str, str], ...] = ()
    groups: tuple[str, ...] = ()
    health: HealthCheck | None = None
    services: tuple[Service, ...] = ()
    restart: Restart = Restart.ALWAYS

    def services_at(self, addresses: Iterable[IpAddress]) -> tuple[Service, ...]:
        """Its services, answered by these addresses; KeyError if there is none of a family that one needs."""
        by_version = {address.version: address for address in addresses}
        usual = None if self.health is None else self.probe[0]
        return tuple(
            replace(
                service,
                application_ip=by_version[service.application_ip.version],
                health=service.health or usual,
            )
            for service in self.services
        )

    @property
    def probe(self) -> tuple[HealthCheck, int]:
        """How and at which port it is asked whether it has come up: a TCP port of its services, else an echo."""
        ports = [probe_port(service) or 0 for service in self.services if service.selection.protocol == TCP]
        port = next(filter(None, ports), 0)
        if self.health is None:
            return (HealthCheck(ProbeKind.TCP, port), port) if port else (HealthCheck(ProbeKind.ICMP), 0)
        if self.health.kind is ProbeKind.ICMP:
            return self.health, 0
        port = self.health.port or port
        return replace(self.health, port=port or None), port


@dataclass(frozen=True, slots=True)
class AppFault:
    """Why an app is not as it was asked for: what was being done, what the VIM said, what to do about it."""

    step: Step
    message: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Built:
    """What a VIM gave: addresses in the applications' network, where it is reached, how long each phase took."""

    addresses: tuple[IpAddress, ...]
    reach: IpAddress
    backend_id: str = ""
    timings: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class AppRow:
    """What is kept of an app over restarts of the agent; ``ready``: it has been once."""

    app: App
    wanted: bool = True
    ready: bool = False
    fault: AppFault | None = None


@dataclass(frozen=True, slots=True)
class AppView:
    """An app as it is now; ``step`` is what is being done for it, if anything."""

    app: App
    state: AppState
    step: Step | None = None
    built: Built | None = None
    fault: AppFault | None = None
    restarts: int = 0
    timings: tuple[tuple[str, float], ...] = field(default=())
