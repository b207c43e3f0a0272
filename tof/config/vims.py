"""``[vim.NAME]``: the Virtual Infrastructure Managers that apps are started by."""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import ip_network
from pathlib import Path

from tof.config.fields import Table, choice, directory, listed, network, number, pattern, refuse, whole
from tof.config.libvirt_vim import check_families, read_libvirt
from tof.config.remote_vims import read_nomad, read_openvim
from tof.config.settings import AnyVim, IpNetwork, LocalVim, Ue

MOST_VIMS = 16
_USUAL = LocalVim()


def read_vims(root: Table, ue: Ue) -> tuple[AnyVim, ...]:
    """The VIMs by name; one called ``local`` is there without being named."""
    table = root.table("vim")
    found: dict[str, AnyVim] = {}
    for name in table.keys:
        if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,14}[a-z0-9])?", name):
            refuse(f"vim.{name}", "a name is 1 to 16 of a-z, 0-9 and -, hyphens only between others")
        found[name] = _vim(name, table.table(name), ue)
    if "local" not in found:
        taken = [prefix for vim in found.values() for prefix in vim.pool]
        pool = tuple(p for p in _pool(ue) if not any(_overlap(p, other) for other in taken))
        found["local"] = LocalVim(pool=pool)
    if len(found) > MOST_VIMS:
        refuse("vim", f"{len(found)} of them; {MOST_VIMS} at most")
    vims = tuple(found[name] for name in sorted(found))
    _check_pools(vims)
    return vims


def _vim(name: str, table: Table, ue: Ue) -> AnyVim:
    kinds: dict[str, Callable[[str, Table, Ue], AnyVim]]
    kinds = {"local": _local, "libvirt": read_libvirt, "nomad": read_nomad, "openvim": read_openvim}
    vim = kinds[table.take("backend", choice(*kinds))](name, table, ue)
    table.done()
    for at, prefix in enumerate(vim.pool):
        if not any(_within(prefix, own.network) for own in ue.app_address):
            refuse(f"vim.{name}.pool[{at}]", f"{prefix} is not inside a network of ue.app_address")
    check_families(f"vim.{name}.pool", vim.pool)
    return vim


def _local(name: str, table: Table, ue: Ue) -> LocalVim:
    vim = LocalVim(
        name,
        table.take("pool", listed(network), _pool(ue)),
        table.take("images", directory, _USUAL.images),
        table.take("paths", listed(directory), _USUAL.paths),
        table.take("user", pattern(r"[a-z_][a-z0-9_-]{0,31}", "the name of a user"), _USUAL.user),
        table.take("max_apps", whole(1, 4096), _USUAL.max_apps),
        table.take("max_processes", whole(8, 1_000_000), _USUAL.max_processes),
        table.take("log_max_kb", whole(4, 1_000_000), _USUAL.log_max_kb),
        table.take("build_timeout_s", number(0.5, 3600), _USUAL.build_timeout_s),
        table.take("probe_timeout_s", number(0.5, 3600), _USUAL.probe_timeout_s),
    )
    for at, shown in enumerate(vim.paths):
        if shown == Path("/") or ".." in shown.parts:
            refuse(f"vim.{name}.paths[{at}]", "expected a directory below /")
    return vim


def _pool(ue: Ue) -> tuple[IpNetwork, ...]:
    """The upper half of the applications' networks; of IPv6 the last 65 536 addresses of it."""
    pools: list[IpNetwork] = []
    for own in ue.app_address:
        last = own.network.broadcast_address
        length = own.network.prefixlen + 1
        if length > own.network.max_prefixlen - 2:
            continue
        pools.append(ip_network((last, max(length, 112) if own.version == 6 else length), strict=False))
    return tuple(pools)


def _check_pools(vims: tuple[AnyVim, ...]) -> None:
    for at, vim in enumerate(vims):
        for other in vims[:at]:
            for prefix in vim.pool:
                if any(_overlap(prefix, taken) for taken in other.pool):
                    refuse(f"vim.{vim.name}.pool", f"{prefix} overlaps the pool of vim.{other.name}")


def _within(inner: IpNetwork, outer: IpNetwork) -> bool:
    return inner.version == outer.version and inner[0] in outer and inner[-1] in outer


def _overlap(one: IpNetwork, other: IpNetwork) -> bool:
    return one.version == other.version and (one[0] in other or other[0] in one)
