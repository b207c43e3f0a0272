"""The splices of applications that have ports of their own: each as the one of the apps adapter (decision 4)."""

from __future__ import annotations

from collections.abc import Mapping

from tof.config import Application, Config
from tof.drivers import adapters, restoring, sysctl
from tof.drivers.hooks import Hooks
from tof.drivers.libbpf import Map
from tof.drivers.netlink import Netlink
from tof.drivers.record import Record
from tof.drivers.veths import Veths, there
from tof.errors import BackendError, SetupError


class SpliceMaps:
    """The kernel's part: which interface is joined to which, and the programs that join them."""

    def __init__(self, table: Map, programs: Mapping[str, int], hooks: Hooks) -> None:
        self._table, self._programs, self._hooks = table, programs, hooks

    def join(self, interface: int, pair: int) -> None:
        """Frames from ``interface`` leave by ``pair``, and the other way round."""
        for here, other in ((pair, interface), (interface, pair)):
            self._table.put(here.to_bytes(4, "little"), other.to_bytes(4, "little"))
        self._hooks.attach_tc(pair, self._programs["tof_apps_out"], "tof_apps_out")
        self._hooks.attach_tc(interface, self._programs["tof_apps_in"], "tof_apps_in")

    def part(self, *interfaces: int) -> None:
        """Forget these."""
        for ifindex in interfaces:
            self._table.drop(ifindex.to_bytes(4, "little"))


class Splices:
    """Makes and removes them; every call asks the kernel and waits for it."""

    def __init__(self, config: Config, maps: SpliceMaps) -> None:
        self._config, self._maps = config, maps
        self._record = Record(config.state.dir, config.agent.name)

    def join(self, application: Application) -> int:
        """Make an application's splice, or adopt it; the index of its interface.

        SetupError if the interface may not be taken, BackendError if it is not there.
        """
        name = application.interface
        with Netlink() as net:
            links = {link.name: link for link in net.links()}
            if name not in links:
                raise BackendError(f"applications.{application.name}.interface: there is no interface {name}")
            adapters.check_usable(
                net, links, f"applications.{application.name}.interface", name, self._config
            )
            widest = there(net, self._config.ue.app_interface).mtu
            if links[name].mtu < widest:
                raise SetupError(
                    f"applications.{application.name}.interface: the MTU of {name} is {links[name].mtu}, less than "
                    f"that of {self._config.ue.app_interface}, {widest}"
                )
            self._note(net, name)
            veths = Veths(net, self._record, self._config.agent.name)
            pair = self._config.names.app_pair(application.name)
            veths.pair(*pair, links[name].mtu)
            for end in pair:
                veths.complete(end)
            veths.sign(pair[0], f" {adapters.USES}{name}")
            adapters.prepare_apps(net, name)
            self._maps.join(links[name].index, there(net, pair[0]).index)
            return links[name].index

    def part(self, application: Application) -> None:
        """Remove an application's splice and give its interface back; what is gone already is fine."""
        name, pair = application.interface, self._config.names.app_pair(application.name)
        with Netlink() as net:
            ends = (net.link(pair[0]), net.link(name))
            self._maps.part(*(link.index for link in ends if link is not None))
            known = name in self._record.before.adapters
            if known:
                restoring.detach(net, name, self._record.before.adapters[name])
            net.delete(pair[0])
            if known:
                restoring.restore(net, self._record, name)
        self._record.forget_port(name, pair, (sysctl.no_ipv6(name),))

    def _note(self, net: Netlink, name: str) -> None:
        self._record.note_adapter(name, adapters.before(net, there(net, name)))
        value = sysctl.read(sysctl.no_ipv6(name))
        if value is not None:
            self._record.note_sysctl(sysctl.no_ipv6(name), value)
