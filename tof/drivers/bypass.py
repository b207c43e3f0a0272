"""``tof bypass on|off``: one write into the running data path, with or without an agent."""

from __future__ import annotations

from pyroute2 import IPRoute

from tof.config import Config
from tof.drivers.hooks import Hooks
from tof.drivers.libbpf import Map, maps_of
from tof.errors import SetupError

_ZERO = bytes(4)


def set_bypass(config: Config, on: bool) -> None:
    """Send everything to the wire at once (or stop doing so); SetupError if no data path is there."""
    table = _config_map(config)
    if table is None:
        raise SetupError("no TOF data path on the S1 adapters of this configuration: start `tof agent`")
    try:
        raw = table.get(_ZERO) or bytes(table.value_size)
        table.put(_ZERO, int(on).to_bytes(4, "little") + raw[4:])
    finally:
        table.close()


def _config_map(config: Config) -> Map | None:
    hooks = Hooks()
    try:
        with IPRoute() as ip:
            names = (*config.s1.enb_interfaces, *config.s1.sgw_interfaces)
            indices = [index for name in names for index in ip.link_lookup(ifname=name)]
        for ifindex in indices:
            for program in hooks.xdp_programs(ifindex):
                found = maps_of(program) if program else {}
                wanted = found.pop("tof_config", None)
                for other in found.values():
                    other.close()
                if wanted is not None:
                    return wanted
        return None
    finally:
        hooks.close()
