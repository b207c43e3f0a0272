"""Which addresses a virtual machine gets, and on which networks it is."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from ipaddress import ip_interface

from tof.agent.domain import PLATFORM_NETWORK, Image, Machine, Platform, platform_mac
from tof.agent.sandbox import free_addresses
from tof.model import IpAddress, IpNetwork
from tof.vim.errors import NoCapacity, QuotaExceeded, Rejected
from tof.vim.interface import AppSpec


@dataclass(frozen=True, slots=True)
class LibvirtPolicy:
    """What the configuration says. ``taken``: addresses that are no app's; ``place`` tells VIMs of one host apart."""

    place: str
    pool: tuple[IpNetwork, ...]
    networks: tuple[IpNetwork, ...]
    gateways: tuple[IpAddress, ...]
    taken: frozenset[IpAddress] = frozenset()
    max_apps: int = 64
    mtu: int = 1500
    memory_mb: int = 256
    image: str = "guest"
    platform_bridge: str = ""
    platform_pool: tuple[IpNetwork, ...] = ()
    vif_script: str = ""


def placed(
    policy: LibvirtPolicy, spec: AppSpec, image: Image, machine: Machine, known: Collection[Machine]
) -> Machine:
    """The machine with addresses that none of the known ones has."""
    if len(known) >= policy.max_apps:
        raise QuotaExceeded(f"{policy.max_apps} apps are there already", "delete apps, or raise max_apps")
    taken = {address for one in known for address in one.ips} | {*policy.taken, *policy.gateways}
    if held := taken & {*image.addresses}:
        raise NoCapacity(
            f"{held.pop()}, which is built into the image, is taken", "delete the app that has it"
        )
    addresses = image.addresses or free_addresses(policy.pool, policy.networks, taken)
    if not addresses:
        raise NoCapacity("no address of the pool is free", "delete apps, or give the VIM a larger pool")
    versions = {address.version for address in addresses}
    return replace(
        machine, groups=spec.groups,
        addresses=tuple(ip_interface(f"{a}/{_length(policy, a)}") for a in addresses),
        gateways=tuple(g for g in policy.gateways if g.version in versions),
        platform=_platform(policy, machine, known) if PLATFORM_NETWORK in spec.networks else None,
    )  # fmt: skip


def _platform(policy: LibvirtPolicy, machine: Machine, known: Collection[Machine]) -> Platform:
    taken = {one.ip for other in known if other.platform for one in other.platform.addresses}
    addresses = free_addresses(policy.platform_pool, policy.platform_pool, taken)
    if addresses is None:
        raise NoCapacity("no address of platform_pool is free", "delete apps, or give the VIM a larger pool")
    lengths = {prefix.version: prefix.prefixlen for prefix in policy.platform_pool}
    own = tuple(ip_interface(f"{a}/{lengths[a.version]}") for a in addresses)
    return Platform(policy.platform_bridge, platform_mac(machine), own)


def _length(policy: LibvirtPolicy, address: IpAddress) -> int:
    length = next((n.prefixlen for n in policy.networks if address in n), None)
    if length is None:
        raise Rejected(f"{address}, which is built into the image, is in no network of ue.app_address")
    return length
