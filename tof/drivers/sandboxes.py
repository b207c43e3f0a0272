"""Sandboxes on this host: network namespaces, wires, processes, limits, and the files that say which there are.

Every call may be made again; what is not there is removed already.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import socket
import struct
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Final

from tof.agent.app import Flavour
from tof.agent.sandbox import (
    DEVICE,
    Isolated,
    Process,
    Root,
    Sandbox,
    User,
)
from tof.config import LocalVim
from tof.drivers import ethtool, processes, sysctl
from tof.drivers.cgroups import ControlGroups
from tof.drivers.commands import command
from tof.drivers.sandbox_files import SandboxFiles
from tof.drivers.sandbox_view import own_users, root_of, user_of
from tof.errors import BackendError

NAMESPACES: Final = Path("/run/netns")
_OFF: Final = (
    "tx-checksum-",
    "tx-scatter-gather",
    "tx-tcp",
    "tx-udp-seg",
    "tx-gso",
    "tx-generic-seg",
    "rx-gro",
)
_SIOCGIFMTU: Final = 0x8921


def directory_of(run_dir: Path, vim: str) -> Path:
    """Where a ``local`` VIM keeps its files."""
    return run_dir.absolute() / "vim" / vim


class Sandboxes:
    """Those of one ``local`` VIM."""

    def __init__(self, settings: LocalVim, directory: Path, instance: str) -> None:
        self._settings, self._dir, self._instance = settings, directory, instance
        mark = sha256(str(directory).encode()).hexdigest()[:6]
        self._groups = ControlGroups(f"{instance}.{settings.name}.{mark}")
        self._files = SandboxFiles(directory, settings.log_max_kb << 10)
        self._own_users: bool | None = None
        self._gates: dict[str, processes.Gate] = {}
        self._watches: dict[str, processes.Watch] = {}

    # what is written down

    async def known(self) -> list[Sandbox]:
        """Every sandbox of which something may be there."""
        return self._files.known()

    async def note(self, sandbox: Sandbox) -> None:
        """Write down, durably, what is about to be made."""
        self._files.note(sandbox)

    async def forget(self, sandbox: Sandbox) -> None:
        """Nothing is left of it: its files go, the one that names it last."""
        self._files.forget(sandbox)

    # what is made

    async def enclose(self, sandbox: Sandbox, launch: Isolated) -> Process:
        """A process in a network namespace of its own, which waits for ``release``."""
        options = self._files.path(sandbox, "args")
        options.touch(mode=0o600)
        options.write_bytes(b"".join(os.fsencode(word) + b"\0" for word in launch.options))
        files = (self._files.path(sandbox, "log"), self._files.path(sandbox, "status"), options)
        ipv6 = any(address.version == 6 for address in sandbox.addresses)
        gate = await processes.gated(processes.Launch(launch.argv, *files, _mark(sandbox), ipv6))
        self._gates[sandbox.key] = gate
        return gate.process

    async def wire(self, sandbox: Sandbox, mtu: int) -> None:
        """A pair of virtual adapters, one end in the sandbox, with its addresses and default routes."""
        inner, process = f"{sandbox.device}p", _process(sandbox)
        pair = f"link add {inner} mtu {mtu} address {sandbox.mac.hex(':')} type veth"
        made = [f"{pair} peer name {sandbox.device} mtu {mtu}"]
        made += [f'link set {sandbox.device} alias "{self._alias(sandbox)}"']
        await command("ip", "-batch", "-", feed="\n".join(made) + "\n")
        for name in (inner, sandbox.device):
            # Frames must leave complete: no kernel behind br-ue finishes their checksums.
            features = ethtool.matching(ethtool.read(name), _OFF)
            ethtool.write(name, dict.fromkeys(features, False))
        sysctl.write(sysctl.no_ipv6(sandbox.device), "1")
        sysctl.write(f"net/ipv4/conf/{sandbox.device}/arp_ignore", "8")
        outside = [f"link set {inner} netns {process.pid} name {DEVICE}", f"link set {sandbox.device} up"]
        await command("ip", "-batch", "-", feed="\n".join(outside) + "\n")
        inside = ["link set lo up", f"link set {DEVICE} up"]
        pairs = zip(sandbox.addresses, sandbox.lengths, strict=True)
        inside += [f"address add {address}/{length} dev {DEVICE}" for address, length in pairs]
        inside += [f"route add default via {gateway}" for gateway in sandbox.gateways]
        argv = ("nsenter", f"--net=/proc/{process.pid}/ns/net", "ip", "-batch", "-")
        await command(*argv, feed="\n".join(inside) + "\n")

    async def name(self, sandbox: Sandbox) -> None:
        """Let the namespace be seen by ``ip netns``, if names that are given here are seen anywhere else."""
        if not _names_are_seen():
            return
        await self.unname(sandbox)
        await command("ip", "netns", "attach", sandbox.namespace, str(_process(sandbox).pid))

    async def limit(self, sandbox: Sandbox, flavour: Flavour) -> str:
        """Limits on what it may take; what could not be limited, though asked for."""
        pid = _process(sandbox).pid
        return await self._groups.limit(sandbox.app, pid, flavour, self._settings.max_processes)

    async def release(self, sandbox: Sandbox) -> None:
        """Let its process begin."""
        gate = self._gates.pop(sandbox.key, None)
        if gate is None:
            raise BackendError(f"nothing waits in the sandbox of {sandbox.app}")
        gate.open()

    # what is removed

    async def end(self, sandbox: Sandbox) -> None:
        """End its processes, if they are still those that were started."""
        self.unwatch(sandbox)
        gate = self._gates.pop(sandbox.key, None)
        if gate is not None:
            gate.close()
        await processes.end(sandbox.process or (gate.process if gate else None), _mark(sandbox))

    async def unwire(self, sandbox: Sandbox) -> None:
        """Remove its adapters."""
        if not _exists(sandbox.device):
            return
        try:
            await self._unwire(sandbox)
        except BackendError:
            if _exists(sandbox.device):  # else it went with the other end, in the app's namespace
                raise

    async def _unwire(self, sandbox: Sandbox) -> None:
        (link,) = json.loads(await command("ip", "-json", "link", "show", "dev", sandbox.device))
        # the other end goes with it; before it has its alias, nothing has used it
        if link.get("ifalias", "") not in ("", self._alias(sandbox)):
            raise BackendError(f"{sandbox.device} is none of the TOF's: rename or remove it")
        await command("ip", "link", "delete", "dev", sandbox.device)

    async def unname(self, sandbox: Sandbox) -> None:
        """Remove the name of its namespace."""
        if (NAMESPACES / sandbox.namespace).exists():
            await command("ip", "netns", "del", sandbox.namespace)

    async def unlimit(self, sandbox: Sandbox) -> None:
        """Remove its limits."""
        await self._groups.remove(sandbox.app)

    async def remains(self, sandbox: Sandbox) -> list[str]:
        """What is still there of it, but for its files."""
        found = []
        found += [f"process {one.pid}" for one in await asyncio.to_thread(processes.marked, _mark(sandbox))]
        found += [name for name in (sandbox.device, f"{sandbox.device}p") if _exists(name)]
        if (NAMESPACES / sandbox.namespace).exists():
            found.append(f"namespace {sandbox.namespace}")
        return found + self._groups.remains(sandbox.app)

    async def clear(self) -> list[str]:
        """Remove every sandbox; their apps. BackendError names what stays."""
        names = []
        for sandbox in await self.known():
            for step in (self.end, self.unlimit, self.unname, self.unwire):
                await step(sandbox)
            if left := await self.remains(sandbox):
                raise BackendError(f"of the app {sandbox.app} there is still {', '.join(left)}")
            await self.forget(sandbox)
            names.append(sandbox.app)
        for place in (self._dir, self._dir.parent):
            with contextlib.suppress(OSError):
                place.rmdir()
        return names

    # what is asked

    def lives(self, sandbox: Sandbox) -> bool:
        """Whether its process runs."""
        return sandbox.process is not None and processes.lives(sandbox.process)

    def watch(self, sandbox: Sandbox, told: Callable[[], None]) -> None:
        """Have it told once when its process ends."""
        self.unwatch(sandbox)
        try:
            self._watches[sandbox.key] = processes.Watch(_process(sandbox), told)
        except ProcessLookupError:
            asyncio.get_running_loop().call_soon(told)

    def unwatch(self, sandbox: Sandbox) -> None:
        """Tell no more."""
        if watch := self._watches.pop(sandbox.key, None):
            watch.close()

    def epitaph(self, sandbox: Sandbox) -> str:
        """How it ended, and what it wrote last."""
        return self._files.epitaph(sandbox)

    async def isolation(self) -> bool:
        """Whether apps get user namespaces of their own, tried once; BackendError if they cannot be isolated at all."""
        if self._own_users is None:
            self._own_users = await own_users(self.user(), self.root(None))
        return self._own_users

    def root(self, image: str | None) -> Root:
        """What an app sees; BackendError if there is no such image."""
        return root_of(self._settings, image)

    def user(self) -> User:
        """Who apps are; SetupError if they can be nobody such."""
        return user_of(self._settings)

    async def trim(self, sandboxes: Sequence[Sandbox]) -> None:
        """Begin the logs anew that have become too long."""
        await self._files.trim(sandboxes)

    def close(self) -> None:
        """Let go; what has begun goes on, what waits is dropped."""
        for gate in self._gates.values():
            gate.close()
        for watch in self._watches.values():
            watch.close()
        self._gates, self._watches = {}, {}

    def _alias(self, sandbox: Sandbox) -> str:
        return f"tof-app {self._instance} {sandbox.key}"


def _process(sandbox: Sandbox) -> Process:
    assert sandbox.process is not None, sandbox.app
    return sandbox.process


def _mark(sandbox: Sandbox) -> str:
    return f"{sandbox.namespace}/{sandbox.device}"


def mtu_of(device: str) -> int:
    """The largest packet of a device of this thread's network namespace."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        try:
            answer = fcntl.ioctl(asking, _SIOCGIFMTU, struct.pack("16si12x", device.encode(), 0))
        except OSError as error:
            raise BackendError(f"cannot ask the MTU of {device}: {error.strerror}") from error
    return int(struct.unpack("16si12x", answer)[1])


def _exists(device: str) -> bool:
    """Whether the network namespace of this thread has such a device."""
    try:
        return socket.if_nametoindex(device) > 0
    except OSError:
        return False


def _names_are_seen() -> bool:
    """Whether a mount below /run/netns is one of the host's, and not of this process's mount namespace alone."""
    try:
        lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return False
    places = {}
    for line in lines:
        words = line.split()
        places[words[4]] = words[6 : words.index("-")]
    found = next((places[at] for at in (str(NAMESPACES), "/run", "/") if at in places), [])
    return not any(option.startswith("master:") for option in found)
