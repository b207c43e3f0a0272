"""``[vim.NAME]`` with ``backend = "libvirt"``."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tof.config.fields import (
    Table,
    choice,
    directory,
    interface,
    listed,
    maybe,
    network,
    number,
    pattern,
    refuse,
    several,
    whole,
)
from tof.config.settings import IpNetwork, Ue
from tof.config.vim_settings import LibvirtVim

_USUAL: Final = LibvirtVim()


def read_libvirt(name: str, table: Table, _ue: Ue) -> LibvirtVim:
    """Apps as virtual machines."""
    none: tuple[str, ...] = ()
    bridge = table.take("platform_bridge", maybe(interface), none)
    platform_pool = table.take("platform_pool", listed(network), _USUAL.platform_pool)
    if platform_pool and not bridge:
        refuse(f"vim.{name}.platform_pool", "without platform_bridge there is no network for it")
    check_families(f"vim.{name}.platform_pool", platform_pool)
    return LibvirtVim(
        name,
        table.take(
            "uri", pattern(r"[a-z+]+://[^\0\s]*", "a libvirt URI, such as qemu:///system"), _USUAL.uri
        ),
        table.take("hypervisor", choice("auto", "kvm", "qemu", "xen"), _USUAL.hypervisor),
        table.take("pool", several(network)),
        table.take("images", directory, _USUAL.images),
        table.take(
            "image", pattern(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", "the name of an image"), _USUAL.image
        ),
        table.take("memory_mb", whole(4, 1_000_000), _USUAL.memory_mb),
        next(iter(bridge), ""),
        platform_pool,
        str(table.take("vif_script", directory, Path(_USUAL.vif_script))),
        table.take("max_apps", whole(1, 4096), _USUAL.max_apps),
        table.take("log_max_kb", whole(4, 1_000_000), _USUAL.log_max_kb),
        table.take("build_timeout_s", number(0.5, 3600), _USUAL.build_timeout_s),
        table.take("probe_timeout_s", number(0.5, 3600), _USUAL.probe_timeout_s),
    )


def check_families(path: str, pool: tuple[IpNetwork, ...]) -> None:
    """Refuse a second prefix of a family."""
    for at, prefix in enumerate(pool):
        if any(prefix.version == other.version for other in pool[:at]):
            refuse(f"{path}[{at}]", f"a second prefix of IPv{prefix.version}")
