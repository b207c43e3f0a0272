"""``tof down``: removes all that an instance put on the host and puts back what it found there."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tof.config import Config, LibvirtVim, LocalVim
from tof.drivers import adapters, netfilter, restoring, sysctl, ueroutes
from tof.drivers.domains import Domains
from tof.drivers.netlink import Netlink
from tof.drivers.ovsdb import PrivateOvs, SystemOvs
from tof.drivers.record import PLUGGED, Record
from tof.drivers.sandboxes import Sandboxes, directory_of
from tof.drivers.unbound import Unbound
from tof.errors import BackendError, SetupError

_STOP_S = 10.0
_CLEAR_S = 30.0
_SYSTEM_OVS = "/run/openvswitch/db.sock"


def down(config: Config) -> list[str]:
    """Leave the host as it was before ``up``, however little is left; BackendError names what stayed."""
    return _Teardown(config).run()


_DATAPATH_TAP = "ovs-netdev"


class _Teardown:
    def __init__(self, config: Config) -> None:
        self._config = config
        self._record = Record(config.state.dir, config.agent.name)
        self._done: list[str] = []
        self._failed: list[str] = []

    def run(self) -> list[str]:
        self._try(self._stop_agent)
        self._try(self._remove_apps)
        self._try(self._forget_ports)
        self._try(self._stop_ovs)
        self._try(self._stop_dns)
        self._try(self._remove_rules)
        self._try(self._remove_ue_routes)
        with Netlink() as net:
            for name in {*self._record.before.adapters, *self._configured(net)}:
                self._try(partial(self._detach, net, name))
            self._try(partial(self._remove_devices, net))
            self._try(partial(self._remove_taps, net))
            for name in self._record.before.adapters:
                self._try(partial(self._restore, net, name))
            self._try(partial(self._restore_sysctls, net))
        if self._failed:
            raise BackendError("; ".join(self._failed) + "; run `tof down` again")
        self._record.forget()
        return self._done

    def _try(self, step: Callable[[], None]) -> None:
        try:
            step()
        except BackendError as error:
            self._failed.append(str(error))

    def _configured(self, net: Netlink) -> list[str]:
        # Without a record only what still is a port of our bridge is known to be ours.
        bridge = net.link(self._config.names.br_s1)
        if bridge is None or adapters.owner(bridge) != self._config.agent.name:
            return []
        return [link.name for link in net.links() if link.master == bridge.index]

    def _forget_ports(self) -> None:
        (self._config.state.run_dir / PLUGGED).unlink(missing_ok=True)

    def _stop_agent(self) -> None:
        pid = agent_pid(self._config.state.run_dir)
        if pid is None:
            return
        with contextlib.suppress(ProcessLookupError):
            handle = os.pidfd_open(pid)
            try:
                _end(handle)
            finally:
                os.close(handle)
            self._done.append(f"stopped the agent (process {pid})")
        (self._config.state.run_dir / "agent.pid").unlink(missing_ok=True)

    def _remove_apps(self) -> None:
        for vim in self._config.vims:
            if not isinstance(
                vim, LocalVim | LibvirtVim
            ):  # what others run is theirs: the next agent finds it again
                continue
            directory = directory_of(self._config.state.run_dir, vim.name)
            names = asyncio.run(_clear_apps(vim, directory, self._config.agent.name))
            self._done += [f"removed the app {name}" for name in names]

    def _stop_ovs(self) -> None:
        asyncio.run(_leave_ovs(self._config))

    def _stop_dns(self) -> None:
        if asyncio.run(Unbound(self._config.state.run_dir, self._config.dns).stop()):
            self._done.append("stopped unbound")

    def _remove_ue_routes(self) -> None:
        if ueroutes.remove(self._config.agent.name):
            self._done.append("removed the routing rules of the DNS server")

    def _remove_rules(self) -> None:
        if netfilter.remove(netfilter.wanted(self._config)):
            self._done.append(f"removed the netfilter chains {self._config.names.chain}")

    def _detach(self, net: Netlink, name: str) -> None:
        if restoring.detach(net, name, self._record.before.adapters.get(name)):
            self._done.append(f"detached XDP from {name}")

    def _remove_devices(self, net: Netlink) -> None:
        names = self._config.names.devices - {self._config.names.br_ue}
        for name in sorted({*names, *self._record.before.devices}):
            link = net.link(name)
            noted = name in self._record.before.devices
            if link and (noted or adapters.owner(link) == self._config.agent.name) and net.delete(name):
                self._done.append(f"removed {name}")

    def _remove_taps(self, net: Netlink) -> None:
        """A killed ovs-vswitchd leaves its taps behind; they are nobody's once none runs in this namespace."""
        if self._config.ue.ovs != "private" or _switch_runs_here():
            return
        for name in (self._config.names.br_ue, _DATAPATH_TAP):
            link = net.link(name)
            if link and link.kind == "tun" and net.delete(name):
                self._done.append(f"removed {name}")

    def _restore(self, net: Netlink, name: str) -> None:
        self._done.append(restoring.restore(net, self._record, name))

    def _restore_sysctls(self, net: Netlink) -> None:
        if adapters.sysctls_of_others(net, self._config.agent.name):
            return
        for path, value in self._record.before.sysctls.items():
            if path.startswith("net/bridge/") and value != "-":
                sysctl.write(path, value)


def agent_pid(run_dir: Path) -> int | None:
    """Process id of the running agent of that run_dir; None when there is none."""
    try:
        pid = int((run_dir / "agent.pid").read_text(encoding="ascii"))
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError):
        return None
    # The number may belong to another program by now.
    is_tof = any(b"tof" in word for word in words[:3])
    return pid if is_tof and b"agent" in words and pid != os.getpid() else None


def _switch_runs_here() -> bool:
    here = os.stat("/proc/self/ns/net").st_ino
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            is_switch = (entry / "comm").read_text().strip() == "ovs-vswitchd"
            if is_switch and os.stat(entry / "ns/net").st_ino == here:
                return True
    return False


async def _clear_apps(vim: LocalVim | LibvirtVim, directory: Path, instance: str) -> list[str]:
    if not isinstance(vim, LibvirtVim):
        return await Sandboxes(vim, directory, instance).clear()
    try:
        async with asyncio.timeout(_CLEAR_S):
            return await Domains(vim, directory).clear()
    except TimeoutError:
        raise BackendError(
            f"apps of vim.{vim.name}: libvirt has not answered within {_CLEAR_S:g} s"
        ) from None
    except (BackendError, SetupError) as error:
        raise BackendError(f"apps of vim.{vim.name}: {error}") from error


async def _leave_ovs(config: Config) -> None:
    if config.ue.ovs == "private":
        await PrivateOvs(config.state.run_dir, config.agent.name).stop()
        return
    database = Path(_SYSTEM_OVS if config.ue.ovs == "system" else config.ue.ovs.removeprefix("unix:"))
    if database.exists():
        await SystemOvs(database, config.agent.name).remove_bridge(config.names.br_ue)


def _end(handle: int) -> None:
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    for number in (signal.SIGTERM, signal.SIGKILL):
        signal.pidfd_send_signal(handle, number)
        if poll.poll(_STOP_S * 1000):
            return
    raise BackendError("the agent does not end")
