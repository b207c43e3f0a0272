"""The VIMs that the configuration names, put together from their parts."""

from __future__ import annotations

from collections.abc import Mapping

from tof.config import Config, LocalVim
from tof.config.applications import MOST_APPLICATIONS
from tof.daemon.app_steps import Offer
from tof.drivers.sandboxes import Sandboxes, directory_of, mtu_of
from tof.model import IpAddress
from tof.vim import local
from tof.vim.interface import AppNetwork


def offers_of(config: Config, network: AppNetwork) -> Mapping[str, Offer]:
    """Every VIM by name."""
    return {vim.name: _local(config, vim, network) for vim in config.vims}


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
    room = min(policy.capacity, MOST_APPLICATIONS - len(config.applications))
    return Offer(local.LocalVim(host, network, policy), vim.build_timeout_s, vim.probe_timeout_s, room)


def _taken(config: Config) -> frozenset[IpAddress]:
    return frozenset((*config.dns.listen, *config.ue.app_gateway, *(own.ip for own in config.ue.app_address)))
