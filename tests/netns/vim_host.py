"""A host for the ``local`` VIM in a namespace of its own: a bridge for the applications' network, calls that fail."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

from netns_helper import Netns

from tof.agent.sandbox import sandbox_of
from tof.config import LocalVim as Settings
from tof.drivers.commands import command
from tof.drivers.sandboxes import Sandboxes
from tof.errors import BackendError
from tof.vim.interface import AppSpec
from tof.vim.local import LocalPolicy, LocalVim

GATEWAY = "192.168.50.1"
KEY = "tof.default.web"
WEB = ("/usr/bin/python3", "-m", "http.server", "80")


class BridgeNetwork:
    """The applications' network as a plain bridge."""

    def __init__(self) -> None:
        self.ports: dict[str, str] = {}

    async def plug(self, name: str, interface: str, *_: Any) -> None:
        await command("ip", "link", "set", interface, "master", "br0")
        self.ports[name] = interface

    async def unplug(self, name: str) -> None:
        self.ports.pop(name, None)


@dataclass
class Fault:
    """What happens at the call number ``at``, and only there: ``how`` is before, after or cancel."""

    at: int = 0
    how: str = "before"
    calls: list[str] = field(default_factory=list)

    def due(self, name: str) -> bool:
        self.calls.append(name)
        return len(self.calls) == self.at


class Faulty:
    """Passes calls on, one of which fails."""

    def __init__(self, real: Any, fault: Fault) -> None:
        self._real, self._fault = real, fault

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._real, name)
        if not asyncio.iscoroutinefunction(real):
            return real

        async def call(*args: Any) -> Any:
            due = self._fault.due(name)
            if due and self._fault.how == "before":
                raise BackendError(f"{name} refused")
            if due and self._fault.how == "cancel":
                task = asyncio.current_task()
                assert task is not None
                task.cancel()
            result = await real(*args)
            if due and self._fault.how == "after":
                raise BackendError(f"{name} broke off")
            return result

        return call


@dataclass
class VimHost:
    """The namespace and what the VIM keeps."""

    netns: Netns
    dir: Path
    images: Path
    network: BridgeNetwork = field(default_factory=BridgeNetwork)

    def vim(self, fault: Fault | None = None, **settings: Any) -> LocalVim:
        """A VIM as an agent has it, anew after each of its restarts."""
        fault = fault or Fault()
        chosen = Settings(images=self.images, **settings)
        real = Sandboxes(chosen, self.dir, "default")
        policy = LocalPolicy(
            str(self.dir),
            (ip_network("192.168.50.128/25"),),
            (ip_network("192.168.50.0/24"),),
            (ip_address(GATEWAY),),
            max_apps=chosen.max_apps,
        )
        return LocalVim(Faulty(real, fault), Faulty(self.network, fault), policy)

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        with self.netns.entered():
            return asyncio.run(work)

    def left(self) -> list[str]:
        """Everything of an app that is still there, found without the VIM's help."""
        links = self.netns.run("ip", "-br", "link").split("\n")
        found = [line for line in links if line.startswith("tofv")]
        names = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
        found += [line for line in names.splitlines() if line.startswith("tof-web-")]
        found += [str(path) for path in self.dir.glob("*")]
        for place in Path("/sys/fs/cgroup").glob("*/tof/default.local.*/*"):
            found += [str(place)] if place.is_dir() else []
        return found + [f"port {name}" for name in self.network.ports] + marked(self.dir, "web")


def marked(directory: Path, *names: str) -> list[str]:
    """Processes that a VIM with its files there has started for the apps of these names, or is about to start."""
    signs = [str(directory).encode()]
    for name in names:
        sandbox = sandbox_of(f"tof.default.{name}", name, place=str(directory))
        signs.append(f"TOF_SANDBOX={sandbox.namespace}/{sandbox.device}\0".encode())
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            text = (entry / "cmdline").read_bytes() + b"\0" + (entry / "environ").read_bytes()
        except OSError:
            continue
        if any(sign in text for sign in signs) and b"pytest" not in text and b"agent" not in text:
            found.append(f"process {entry.name}: {text[:200]!r}")
    return found


def spec(name: str = "web", command: tuple[str, ...] = WEB, **more: Any) -> AppSpec:
    return AppSpec(name, command=command, networks=("apps",), **more)


@contextmanager
def vim_host(make: Callable[[str], Netns], directory: Path) -> Iterator[VimHost]:
    netns = make("vim")
    netns.run("ip", "link", "add", "br0", "type", "bridge")
    netns.run("ip", "address", "add", f"{GATEWAY}/24", "dev", "br0")
    netns.run("ip", "link", "set", "br0", "up")
    host = VimHost(netns, directory / "vim", directory / "images")
    try:
        yield host
    finally:
        host.run(_clear(host))


async def _clear(host: VimHost) -> None:
    vim = host.vim()
    deadline = asyncio.get_running_loop().time() + 30
    for one in await vim.list():
        await vim.delete(one.key, deadline=deadline)
