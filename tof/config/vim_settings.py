"""``[vim.NAME]`` of VIMs behind an API, as settings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


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
