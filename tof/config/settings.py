"""The settings: frozen, checked values."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv4Network, IPv6Interface, IPv6Network, ip_network
from pathlib import Path

from tof.config.names import Names, names_of
from tof.config.vim_settings import LibvirtVim, NomadVim, OpenVim
from tof.model import IpAddress

IpNetwork = IPv4Network | IPv6Network
IpInterface = IPv4Interface | IPv6Interface


@dataclass(frozen=True, slots=True)
class Agent:
    """``[agent]``: which instance this is; it listens on NFQUEUE ``queue_base`` and ``queue_base + 1``."""

    name: str = "default"
    queue_base: int = 0


@dataclass(frozen=True, slots=True)
class S1:
    """``[s1]``: the adapters of the S1 interface; ``shared``: one adapter serves both sides."""

    enb_interfaces: tuple[str, ...]
    sgw_interfaces: tuple[str, ...]
    enb: tuple[IpNetwork, ...] = ()
    sgw: tuple[IpNetwork, ...] = ()
    xdp: str = "auto"

    @property
    def shared(self) -> bool:
        """True when a single adapter is both sides."""
        return self.enb_interfaces == self.sgw_interfaces

    @property
    def interfaces(self) -> tuple[str, ...]:
        """Every S1 adapter once, eNB side first."""
        return self.enb_interfaces if self.shared else self.enb_interfaces + self.sgw_interfaces


@dataclass(frozen=True, slots=True)
class Ue:
    """``[ue]``: the UE-decapsulated side; at most one address and one gateway per family."""

    app_interface: str
    app_address: tuple[IpInterface, ...]
    app_gateway: tuple[IpAddress, ...] = ()
    ovs: str = "private"


@dataclass(frozen=True, slots=True)
class Pinger:
    """``[pinger]``: whom to ping on behalf of a UE, how often, how many times."""

    target: tuple[IpAddress, ...]
    interval_s: float = 1.0
    attempts: int = 5


@dataclass(frozen=True, slots=True)
class Dns:
    """``[dns]``: whose answers say which addresses services given by domain have, and how long that holds.

    ``idle_s``: a flow to such an address is in use until it has been silent for so long. ``server``: what answers UEs' DNS
    to the addresses of ``divert`` at the edge, at ``listen``; what it does not know it asks ``upstream``.
    """

    resolvers: tuple[IpNetwork, ...] = ()
    least_hold_s: float = 60.0
    most_hold_s: float = 3600.0
    idle_s: float = 300.0
    server: str = "off"
    listen: tuple[IpAddress, ...] = ()
    divert: tuple[IpAddress, ...] = ()
    upstream: tuple[IpAddress, ...] = ()

    @property
    def believed(self) -> tuple[IpNetwork, ...]:
        """Whose answers are believed: what is answered at the edge, too."""
        return (*self.resolvers, *map(ip_network, self.divert))


@dataclass(frozen=True, slots=True)
class Vnf:
    """``[vnfs.NAME]``: a VNF for port-chains; frames enter it by ``ingress`` on their way to an application and leave it by
    ``egress``, the other way round on their way back.

    ``health``: what it lives by, the links of its ``port``s alone, or ``frames`` that the TOF sends through it.
    ``speaks``: the marks of chains that it is shown; it sees frames of chains with another as they are without any.
    """

    name: str
    ingress: str
    egress: str
    health: str = "port"
    interval_s: float = 0.2
    fall: int = 3
    speaks: tuple[str, ...] = ("vlan",)


@dataclass(frozen=True, slots=True)
class Application:
    """``[applications.NAME]``: an application with a port of its own, behind ``interface``; it has this MAC address, these
    addresses, and no others.
    """

    name: str
    interface: str
    mac: bytes
    addresses: tuple[IpAddress, ...]
    security_groups: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Tunnels:
    """``[tunnels]``: when an idle tunnel is purged, and how many are held."""

    idle_timeout_s: float = 300.0
    max: int = 1_000_000


@dataclass(frozen=True, slots=True)
class UnixListen:
    """The API on a Unix socket."""

    path: str


@dataclass(frozen=True, slots=True)
class TcpListen:
    """The API on a loopback address; port 0 lets the kernel choose."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Api:
    """``[api]``: where the API listens."""

    listen: tuple[UnixListen | TcpListen, ...]


@dataclass(frozen=True, slots=True)
class State:
    """``[state]``: ``dir`` outlives a reboot, ``run_dir`` need not."""

    dir: Path = Path("/var/lib/tof")
    run_dir: Path = Path("/run/tof")


@dataclass(frozen=True, slots=True)
class Log:
    """``[log]``: level and format."""

    level: str = "info"
    format: str = "text"


@dataclass(frozen=True, slots=True)
class Collector:
    """Where IPFIX goes, by UDP."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Accounting:
    """``[accounting]``: records of each UE's traffic with each service, to a file of JSON lines, to an IPFIX collector."""

    file: Path | None = None
    file_max_mb: int = 100
    files: int = 5
    ipfix: Collector | None = None
    interval_s: float = 60.0
    max_accounts: int = 262_144

    @property
    def on(self) -> bool:
        """Whether anything is counted."""
        return self.file is not None or self.ipfix is not None


@dataclass(frozen=True, slots=True)
class Mirror:
    """``[mirror]``: what services' packets may be duplicated to: interfaces, which become ports of br-ue, and files."""

    interfaces: tuple[str, ...] = ()
    dir: Path | None = None
    file_max_mb: int = 100
    files: int = 1


@dataclass(frozen=True, slots=True)
class LocalVim:
    """``[vim.NAME]`` with ``backend = "local"``: apps as processes of this host, each in namespaces of its own.

    ``pool``: where their addresses are from, at most one prefix a family. ``images``: a directory of root file systems.
    ``paths``: what apps without an image see of the host, read-only. ``user``: who they are.
    """

    name: str = "local"
    pool: tuple[IpNetwork, ...] = ()
    images: Path = Path("/var/lib/tof/images")
    paths: tuple[Path, ...] = (Path("/usr"), Path("/etc"), Path("/opt"))
    user: str = "nobody"
    max_apps: int = 256
    max_processes: int = 512
    log_max_kb: int = 1024
    build_timeout_s: float = 30.0
    probe_timeout_s: float = 30.0


AnyVim = LocalVim | LibvirtVim | NomadVim | OpenVim


@dataclass(frozen=True, slots=True)
class AppLcm:
    """``[app_lcm]``: where notifications of application life cycles may be posted to; by default to this host alone."""

    callbacks: tuple[IpNetwork, ...] = (ip_network("127.0.0.0/8"), ip_network("::1/128"))


@dataclass(frozen=True, slots=True)
class Config:
    """Everything an operator can set."""

    agent: Agent
    s1: S1
    ue: Ue
    pinger: Pinger
    dns: Dns
    tunnels: Tunnels
    api: Api
    state: State
    log: Log
    vnfs: tuple[Vnf, ...] = ()
    accounting: Accounting = Accounting()
    mirror: Mirror = Mirror()
    applications: tuple[Application, ...] = ()
    vims: tuple[AnyVim, ...] = ()
    app_lcm: AppLcm = AppLcm()

    @property
    def names(self) -> Names:
        """The names this instance uses on the host."""
        return names_of(self.agent.name)
