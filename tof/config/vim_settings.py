"""``[vim.NAME]`` of VIMs that are no part of the TOF, as settings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tof.model import IpNetwork


@dataclass(frozen=True, slots=True)
class VimAccess:
    """Where a VIM's API is; ``https`` means TLS.

    ``site``: what this TOF's apps are told by from those of other TOFs there. ``token_file``: what is in it is who we are.
    ``ca_file``: whom we trust, instead of the system's authorities.
    """

    url: str
    site: str
    token_file: Path | None = None
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    answer_timeout_s: float = 10.0


@dataclass(frozen=True, slots=True)
class NomadVim:
    """``[vim.NAME]`` with ``backend = "nomad"``: apps as jobs; ``network`` is ``host``, ``none`` or ``cni/NAME``."""

    name: str
    access: VimAccess
    datacenters: tuple[str, ...] = ("dc1",)
    region: str = ""
    namespace: str = ""
    driver: str = "exec"
    network: str = "host"
    mhz_per_cpu: int = 1000
    build_timeout_s: float = 60.0
    probe_timeout_s: float = 30.0

    @property
    def pool(self) -> tuple[()]:
        """The VIM itself gives addresses."""
        return ()


@dataclass(frozen=True, slots=True)
class OpenVim:
    """``[vim.NAME]`` with ``backend = "openvim"``: apps as servers of ``tenant``.

    ``network`` leads to the TOF, ``platform_network`` to the ME Platform. ``unikernels``: patterns of names of images that
    are ClickOS. ``images``: name and path of those that OpenVIM is told of when they are first needed.
    """

    name: str
    access: VimAccess
    tenant: str
    network: str
    platform_network: str = ""
    hypervisor: str = "kvm"
    unikernels: tuple[str, ...] = ("clickos*",)
    images: tuple[tuple[str, Path], ...] = ()
    build_timeout_s: float = 60.0
    probe_timeout_s: float = 30.0

    @property
    def pool(self) -> tuple[()]:
        """The VIM itself gives addresses."""
        return ()


@dataclass(frozen=True, slots=True)
class LibvirtVim:
    """``[vim.NAME]`` with ``backend = "libvirt"``: apps as virtual machines, or unikernels on Xen.

    ``images``: a directory of images, of which ``image`` is what apps have that name none. ``platform_bridge``: a bridge of
    this host that leads to the ME platform. ``vif_script``: what Xen runs for an adapter towards the TOF.
    """

    name: str = "libvirt"
    uri: str = "qemu:///system"
    hypervisor: str = "auto"
    pool: tuple[IpNetwork, ...] = ()
    images: Path = Path("/var/lib/tof/images")
    image: str = "guest"
    memory_mb: int = 256
    platform_bridge: str = ""
    platform_pool: tuple[IpNetwork, ...] = ()
    vif_script: str = "/etc/xen/scripts/vif-tof"
    max_apps: int = 64
    log_max_kb: int = 1024
    build_timeout_s: float = 60.0
    probe_timeout_s: float = 60.0
