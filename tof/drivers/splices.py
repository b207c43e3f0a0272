"""The splices of applications that have ports of their own: each as the one of the apps adapter (decision 4)."""

from __future__ import annotations

from collections.abc import Mapping

from tof.config import Application, Config
from tof.drivers import adapters, restoring, sysctl
from tof.drivers.hooks import Hooks
from tof.drivers.libbpf import Map
from tof.drivers.netlink import Link, Netlink
from tof.drivers.record import Record
from tof.drivers.sandboxes import SANDBOX_ALIAS
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
            link = self._checked(net, application)
            veths = Veths(net, self._record, self._config.agent.name)
            pair = self._config.names.app_pair(application.name)
            with self._record.at_once():
                self._note(net, link)
                for end in pair:
                    self._record.note_device(end)
            veths.pair(*pair, link.mtu)
            for end in pair:
                veths.complete(end)
            veths.sign(pair[0], f" {adapters.USES}{name}")
            adapters.prepare_apps(net, name)
            self._maps.join(link.index, there(net, pair[0]).index)
            return link.index

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

    def _checked(self, net: Netlink, application: Application) -> Link:
        """The interface, which may be taken. One that a sandbox was made with is nobody else's: hundreds need no look."""
        name, key = application.interface, f"applications.{application.name}.interface"
        link = net.link(name)
        if link is None:
            raise BackendError(f"{key}: there is no interface {name}")
        if not link.alias.startswith(f"{SANDBOX_ALIAS} {self._config.agent.name} "):
            adapters.check_usable(net, {one.name: one for one in net.links()}, key, name, self._config)
        widest = there(net, self._config.ue.app_interface).mtu
        if link.mtu < widest:
            raise SetupError(
                f"{key}: the MTU of {name} is {link.mtu}, less than that of {self._config.ue.app_interface}, {widest}"
            )
        return link

    def _note(self, net: Netlink, link: Link) -> None:
        name = link.name
        self._record.note_adapter(name, adapters.before(net, link))
        value = sysctl.read(sysctl.no_ipv6(name))
        if value is not None:
            self._record.note_sysctl(sysctl.no_ipv6(name), value)
