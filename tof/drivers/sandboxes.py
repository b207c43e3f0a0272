"""Sandboxes on this host: network namespaces, wires, processes, limits, and the files that say which there are.

Every call may be made again; what is not there is removed already.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import pwd
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
    isolated,
    parse_sandbox,
    sandbox_body,
)
from tof.config import LocalVim
from tof.drivers import ethtool, processes, sysctl
from tof.drivers.cgroups import ControlGroups
from tof.drivers.commands import command
from tof.errors import BackendError, SetupError

NAMESPACES: Final = Path("/run/netns")
_LINKED: Final = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
_OFF: Final = (
    "tx-checksum-",
    "tx-scatter-gather",
    "tx-tcp",
    "tx-udp-seg",
    "tx-gso",
    "tx-generic-seg",
    "rx-gro",
)
_LAST_WORDS: Final = 400
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
        self._known: dict[str, Sandbox] | None = None
        self._own_users: bool | None = None
        self._gates: dict[str, processes.Gate] = {}
        self._watches: dict[str, processes.Watch] = {}

    # what is written down

    async def known(self) -> list[Sandbox]:
        """Every sandbox of which something may be there."""
        if self._known is None:
            self._known = {one.key: one for one in self._read()}
        return list(self._known.values())

    def _read(self) -> list[Sandbox]:
        found = []
        for path in sorted(self._dir.glob("*.json")):
            try:
                found.append(parse_sandbox(json.loads(path.read_text(encoding="utf-8"))))
            except FileNotFoundError:
                continue
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise BackendError(f"{path}: cannot be read ({error}); repair or remove it") from error
        return found

    async def note(self, sandbox: Sandbox) -> None:
        """Write down, durably, what is about to be made."""
        path = self._file(sandbox, "json")
        fresh = path.with_suffix(".new")
        try:
            self._dir.mkdir(parents=True, exist_ok=True, mode=0o700)
            with fresh.open("w", encoding="utf-8") as file:
                json.dump(sandbox_body(sandbox), file)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(path)
        except OSError as error:
            raise BackendError(f"{path}: cannot be written: {error.strerror}") from error
        await self.known()
        assert self._known is not None
        self._known[sandbox.key] = sandbox

    async def forget(self, sandbox: Sandbox) -> None:
        """Nothing is left of it: its files go, the one that names it last."""
        for kind in ("args", "status", "log", "log.1", "new", "json"):
            self._file(sandbox, kind).unlink(missing_ok=True)
        if self._known is not None:
            self._known.pop(sandbox.key, None)

    # what is made

    async def enclose(self, sandbox: Sandbox, launch: Isolated) -> Process:
        """A process in a network namespace of its own, which waits for ``release``."""
        options = self._file(sandbox, "args")
        options.touch(mode=0o600)
        options.write_bytes(b"".join(os.fsencode(word) + b"\0" for word in launch.options))
        files = (self._file(sandbox, "log"), self._file(sandbox, "status"), options)
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
        how = "it was killed, or its host was restarted"
        with contextlib.suppress(OSError, ValueError):
            for line in self._file(sandbox, "status").read_text(encoding="utf-8").splitlines():
                how = f"exit status {json.loads(line)['exit-code']}" if "exit-code" in line else how
        with contextlib.suppress(OSError):
            text = self._file(sandbox, "log").read_bytes()[-_LAST_WORDS:].decode(errors="replace").strip()
            how = f"{how}; its last words: {text}" if text else how
        return how

    async def isolation(self) -> bool:
        """Whether apps get user namespaces of their own, tried once; BackendError if they cannot be isolated at all."""
        if self._own_users is None:
            self._own_users = await _tried(self.user(), self.root(None))
        return self._own_users

    def root(self, image: str | None) -> Root:
        """What an app sees: the image, or what the configuration shows of the host; BackendError if there is none such."""
        if image is not None:
            place = self._settings.images / image
            if not place.is_dir():
                raise BackendError(f"there is no image {image} in {self._settings.images}")
            skip = ("proc", "dev", "tmp", "run", "sys")
            entries = sorted(e for e in place.iterdir() if e.name not in skip)
            links = [(os.readlink(e), f"/{e.name}") for e in entries if e.is_symlink()]
            return Root(tuple((str(e), f"/{e.name}") for e in entries if not e.is_symlink()), tuple(links))
        binds = [(str(path), str(path)) for path in self._settings.paths if path.is_dir()]
        links = []
        for name in _LINKED:
            path = Path("/") / name
            if path.is_symlink():
                links.append((os.readlink(path), str(path)))
            elif path.is_dir():
                binds.append((str(path), str(path)))
        if Path("/etc/resolv.conf").is_file() and not Path("/etc/resolv.conf").is_symlink():
            # The host's resolvers are not reached from there: asking them would cost each app seconds.
            binds.append(("/dev/null", "/etc/resolv.conf"))
        return Root(tuple(binds), tuple(links))

    def user(self) -> User:
        """Who apps are; SetupError if there is no such user, or it is root."""
        try:
            found = pwd.getpwnam(self._settings.user)
        except KeyError:
            raise SetupError(
                f"vim.{self._settings.name}.user: there is no user {self._settings.user}"
            ) from None
        if found.pw_uid == 0:
            raise SetupError(f"vim.{self._settings.name}.user: apps must not be root")
        return User(found.pw_uid, found.pw_gid)

    async def trim(self, sandboxes: Sequence[Sandbox]) -> None:
        """Begin the logs anew that have become too long; one older part of each is kept."""
        for sandbox in sandboxes:
            log = self._file(sandbox, "log")
            with contextlib.suppress(FileNotFoundError):
                if log.stat().st_size > self._settings.log_max_kb << 10:
                    await asyncio.to_thread(_rotate, log, self._settings.log_max_kb << 10)

    def close(self) -> None:
        """Let go; what has begun goes on, what waits is dropped."""
        for gate in self._gates.values():
            gate.close()
        for watch in self._watches.values():
            watch.close()
        self._gates, self._watches = {}, {}

    def _file(self, sandbox: Sandbox, kind: str) -> Path:
        return self._dir / f"{sandbox.app}.{kind}"

    def _alias(self, sandbox: Sandbox) -> str:
        return f"tof-app {self._instance} {sandbox.key}"


def _process(sandbox: Sandbox) -> Process:
    assert sandbox.process is not None, sandbox.app
    return sandbox.process


def _mark(sandbox: Sandbox) -> str:
    return f"{sandbox.namespace}/{sandbox.device}"


async def _tried(user: User, root: Root) -> bool:
    nobody = Sandbox("", "try", "", "", b"", (), (), ())
    why = ""
    for own_users in (True, False):
        what = isolated(nobody, root, user, ("/usr/bin/true",), own_users=own_users)
        at, status = what.argv.index("--args"), what.options.index("--json-status-fd")
        options = (*what.options[:status], *what.options[status + 2 :])
        argv = (*what.argv[:at], *options, *what.argv[at + 2 :])
        try:
            await command(*argv, package="bubblewrap")
            return own_users
        except BackendError as error:
            why = str(error)
        except SetupError as error:
            raise BackendError(str(error)) from error
    raise BackendError(f"apps cannot be isolated: {why}")


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


def _rotate(log: Path, most: int) -> None:
    """Its writer has it open to append, so it is copied and cut, not renamed."""
    with log.open("rb") as source:
        source.seek(-most, os.SEEK_END)
        log.with_suffix(".log.1").write_bytes(source.read(most))
    os.truncate(log, 0)


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
