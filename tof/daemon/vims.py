"""The VIMs that the configuration names, put together from their parts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import assert_never

from tof.config import AnyVim, Config, LibvirtVim, LocalVim, NomadVim, OpenVim, VimAccess
from tof.daemon.app_steps import Offer
from tof.drivers.domains import Domains
from tof.drivers.sandboxes import Sandboxes, directory_of, mtu_of
from tof.model import IpAddress
from tof.vim import libvirt, local, nomad, openvim
from tof.vim.interface import AppNetwork
from tof.vim.libvirt_placing import LibvirtPolicy
from tof.vim.nomad_job import NomadPolicy
from tof.vim.rest import Access

NOMAD_TOKEN, AUTHORIZATION = "X-Nomad-Token", "Authorization"


def offers_of(config: Config, network: AppNetwork) -> Mapping[str, Offer]:
    """Every VIM by name."""
    return {vim.name: _offer(config, vim, network) for vim in config.vims}


def _offer(config: Config, vim: AnyVim, network: AppNetwork) -> Offer:
    match vim:
        case LocalVim():
            return _local(config, vim, network)
        case LibvirtVim():
            return _libvirt(config, vim, network)
        case NomadVim():
            return _nomad(vim)
        case OpenVim():
            return _openvim(vim)
        case _:
            assert_never(vim)


def _nomad(vim: NomadVim) -> Offer:
    policy = NomadPolicy(vim.datacenters, vim.region, vim.namespace, vim.driver, vim.network, vim.mhz_per_cpu)
    made = nomad.NomadVim(_access(vim.access, NOMAD_TOKEN), vim.access.site, policy)
    return Offer(made, vim.build_timeout_s, vim.probe_timeout_s)


def _openvim(vim: OpenVim) -> Offer:
    images = tuple((name, str(path)) for name, path in vim.images)
    policy = openvim.OpenVimPolicy(
        vim.tenant, vim.network, vim.platform_network, vim.hypervisor, vim.unikernels, images
    )
    made = openvim.OpenVim(_access(vim.access, AUTHORIZATION), vim.access.site, policy)
    return Offer(made, vim.build_timeout_s, vim.probe_timeout_s)


def _access(access: VimAccess, header: str) -> Access:
    return Access(
        access.url, header, access.token_file, access.ca_file, access.cert_file, access.key_file,
        access.answer_timeout_s,
    )  # fmt: skip


def _libvirt(config: Config, vim: LibvirtVim, network: AppNetwork) -> Offer:
    directory = directory_of(config.state.run_dir, vim.name)
    policy = LibvirtPolicy(
        str(directory),
        vim.pool,
        tuple(own.network for own in config.ue.app_address),
        tuple(own.ip for own in config.ue.app_address),
        _taken(config),
        vim.max_apps,
        mtu_of(config.ue.app_interface),
        vim.memory_mb,
        vim.image,
        vim.platform_bridge,
        vim.platform_pool,
        vim.vif_script,
    )
    made = libvirt.LibvirtVim(Domains(vim, directory), network, policy)
    return Offer(made, vim.build_timeout_s, vim.probe_timeout_s)


def _local(config: Config, vim: LocalVim, network: AppNetwork) -> Offer:
    directory = directory_of(config.state.run_dir, vim.name)
    policy = local.LocalPolicy(
        str(directory),
        vim.pool,
        tuple(own.network for own in config.ue.app_address),
        tuple(own.ip for own in config.ue.app_address),
        _taken(config),
        vim.max_apps,
        mtu_of(config.ue.app_interface),
    )
    host = Sandboxes(vim, directory, config.agent.name)
    return Offer(local.LocalVim(host, network, policy), vim.build_timeout_s, vim.probe_timeout_s)


def _taken(config: Config) -> frozenset[IpAddress]:
    return frozenset((*config.dns.listen, *config.ue.app_gateway, *(own.ip for own in config.ue.app_address)))
