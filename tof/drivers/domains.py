"""Domains of libvirt: each call in a thread of its own few, those for one machine after each other.

Every call may be made again; what is not there is removed already. Only domains with the TOF's note are touched.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from threading import Lock
from typing import Any, Final, TypeVar

from tof.agent.domain import (
    NOTE_URI,
    Condition,
    Domain,
    DomainError,
    Hypervisor,
    Image,
    Machine,
    parse_note,
)
from tof.config import LibvirtVim
from tof.drivers import sysctl
from tof.drivers.libvirt_binding import binding
from tof.drivers.sandbox_files import rotate
from tof.drivers.worker_threads import WorkerThreads
from tof.errors import BackendError

T = TypeVar("T")
THREADS: Final = 4
MOST_UNANSWERED: Final = 64
"""Calls that may wait for a libvirtd that hangs."""
_LAST_WORDS, _READ = 400, 16_384
_ENDS: Final = {
    1: "it shut itself down", 2: "it was destroyed", 3: "it crashed", 6: "it could not be started",
    8: "libvirt ended it",
}  # fmt: skip
"""By virDomainShutoffReason."""


class Domains:
    """Those of one ``libvirt`` VIM."""

    def __init__(self, settings: LibvirtVim, directory: Path) -> None:
        self._settings, self._dir, self._place = settings, directory, str(directory)
        self._libvirt = binding()
        self._threads = WorkerThreads(THREADS, f"libvirt-{settings.name}")
        self._connection: Any = None
        self._opening = Lock()
        self._busy: dict[str, asyncio.Future[Any]] = {}
        self._hypervisor: Hypervisor | None = None

    # what is asked

    async def known(self) -> list[Domain]:
        """Every domain of this VIM's."""
        return await self._call(lambda: list(filter(None, map(self._read, self._open().listAllDomains()))))

    async def hypervisor(self) -> Hypervisor:
        """What domains run on: as configured, or KVM where libvirt can have it."""
        if self._settings.hypervisor != "auto":
            return Hypervisor(self._settings.hypervisor)
        if self._hypervisor is None:
            self._hypervisor = await self._call(self._probe)
        return self._hypervisor

    async def exists(self, machine: Machine) -> bool:
        """Whether its domain is there."""
        return await self._of(machine, lambda found: True) is not None

    async def remains(self, machine: Machine) -> list[str]:
        """What is still there, but for its domain."""
        running = await self._of(machine, lambda found: bool(found.isActive()))
        found = [f"domain {machine.domain}, running"] if running else []
        found += [machine.device] if _exists(machine.device) else []
        return found + list(map(str, self._logs(machine)))

    def image(self, name: str) -> Image:
        """The image of that name; BackendError if there is none."""
        return image_of(self._settings.images, name)

    def log(self, machine: Machine) -> str:
        """Where its console is written to."""
        return str(self._dir / f"{machine.app}.log")

    def _logs(self, machine: Machine) -> list[Path]:
        """With its older parts, the TOF's and virtlogd's."""
        return [
            path for path in self._dir.glob(f"{machine.app}.*") if path.name.startswith(f"{machine.app}.log")
        ]

    def last_words(self, machine: Machine) -> str:
        """What its console said last."""
        try:
            text = Path(self.log(machine)).read_bytes()[-_READ:].decode(errors="replace")
        except OSError:
            return ""
        lines = ["".join(filter(str.isprintable, line)).strip() for line in text.splitlines()]
        # what a kernel says after it has given up its reason is long, and of no use
        panic = next((line for line in lines if "Kernel panic" in line), "")
        return panic or "; ".join(filter(None, lines))[-_LAST_WORDS:]

    # what is made

    async def define(self, machine: Machine, xml: str) -> None:
        """Make its domain known; libvirt checks the XML against its schema."""
        try:
            self._dir.mkdir(parents=True, exist_ok=True, mode=0o700)
            await self.clean(machine)
        except OSError as error:
            raise BackendError(f"{self._dir}: {error.strerror}") from error
        validate = self._libvirt.VIR_DOMAIN_DEFINE_VALIDATE
        await self._call(lambda: self._open().defineXMLFlags(xml, validate), machine)

    async def start(self, machine: Machine) -> None:
        """Its adapter and its process are there when it returns; it does not run yet."""
        paused = self._libvirt.VIR_DOMAIN_START_PAUSED
        await self._must(machine, lambda found: found.createWithFlags(paused))

    async def hush(self, machine: Machine) -> None:
        """Have the host's own stack say nothing on its adapter."""
        if not _exists(machine.device):
            raise BackendError(
                f"there is no {machine.device} here: libvirt has to run in the network namespace of the TOF"
            )
        sysctl.write(sysctl.no_ipv6(machine.device), "1")
        sysctl.write(f"net/ipv4/conf/{machine.device}/arp_ignore", "8")

    async def release(self, machine: Machine) -> None:
        """Let it begin."""
        await self._must(machine, lambda found: found.resume())

    # what is removed

    async def end(self, machine: Machine) -> None:
        """End it, without asking it."""
        await self._of(machine, lambda found: found.destroy() if found.isActive() else None)

    async def undefine(self, machine: Machine) -> None:
        """Remove its domain, and what is noted there."""
        await self._of(machine, lambda found: found.undefine())

    async def clean(self, machine: Machine) -> None:
        """Remove its files."""
        for path in self._logs(machine):
            path.unlink(missing_ok=True)

    async def clear(self) -> list[str]:
        """Remove every domain of this VIM's; their apps. BackendError names what stays."""
        names = []
        for domain in await self.known():
            for step in (self.end, self.clean, self.undefine):
                await step(domain.machine)
            if await self.exists(domain.machine):
                raise BackendError(f"the domain {domain.machine.domain} is still there")
            names.append(domain.machine.app)
        for place in (self._dir, self._dir.parent):
            with contextlib.suppress(OSError):
                place.rmdir()
        return names

    async def trim(self) -> None:
        """Begin the logs anew that have become too long; one older part of each is kept."""
        most = self._settings.log_max_kb << 10
        for log in self._dir.glob("*.log"):
            with contextlib.suppress(FileNotFoundError):
                if log.stat().st_size > most:
                    await asyncio.to_thread(rotate, log, most)

    def close(self) -> None:
        """Let go; domains run on."""
        connection, self._connection = self._connection, None

        def closing() -> None:
            with contextlib.suppress(self._libvirt.libvirtError):
                connection.close()

        if connection is not None:
            self._threads.run(closing)  # libvirtd is told, which nobody need wait for
        self._threads.close()

    # in the threads

    def _open(self) -> Any:
        with self._opening:
            if self._connection is None or not self._connection.isAlive():
                self._connection = self._libvirt.open(self._settings.uri)
            return self._connection

    def _read(self, found: Any) -> Domain | None:
        """None if it is none of this VIM's, or gone meanwhile."""
        try:
            machine = self._noted(found)
            state, reason = found.state()
        except self._libvirt.libvirtError as error:
            if error.get_error_code() == self._libvirt.VIR_ERR_NO_DOMAIN:
                return None
            raise
        if machine is None:
            return None
        if state in (self._libvirt.VIR_DOMAIN_RUNNING, self._libvirt.VIR_DOMAIN_BLOCKED):
            return Domain(machine, Condition.RUNNING)
        if state == self._libvirt.VIR_DOMAIN_PAUSED:
            return Domain(machine, Condition.HELD)
        ended = state in (self._libvirt.VIR_DOMAIN_SHUTOFF, self._libvirt.VIR_DOMAIN_CRASHED)
        why = _ENDS.get(reason, "it ended, or its host was restarted") if ended else "it is ending"
        return Domain(machine, Condition.ENDED, why)

    def _noted(self, found: Any) -> Machine | None:
        try:
            note = found.metadata(self._libvirt.VIR_DOMAIN_METADATA_ELEMENT, NOTE_URI)
            machine = parse_note(note)
        except self._libvirt.libvirtError as error:
            if error.get_error_code() == self._libvirt.VIR_ERR_NO_DOMAIN_METADATA:
                return None
            raise
        except (ValueError, KeyError, TypeError) as error:
            raise BackendError(
                f"the domain {found.name()} has a note of a TOF's that cannot be read: remove it"
            ) from error
        return machine if machine.place == self._place else None

    def _probe(self) -> Hypervisor:
        connection = self._open()
        if connection.getType() == "Xen":
            return Hypervisor.XEN
        try:
            connection.getDomainCapabilities(None, "x86_64", "q35", "kvm")
        except self._libvirt.libvirtError:
            return Hypervisor.QEMU
        return Hypervisor.KVM

    def _find(self, machine: Machine) -> Any:
        """Its domain, or None; another's of its UUID is none."""
        try:
            found = self._open().lookupByUUIDString(machine.uuid)
            noted = self._noted(found)
        except self._libvirt.libvirtError as error:
            if error.get_error_code() == self._libvirt.VIR_ERR_NO_DOMAIN:
                return None
            raise
        return found if noted is not None and noted.key == machine.key else None

    # between loop and threads

    async def _must(self, machine: Machine, work: Callable[[Any], T]) -> T:
        def with_domain() -> T:
            found = self._find(machine)
            if found is None:
                raise DomainError(f"the domain {machine.domain} is gone")
            return work(found)

        return await self._call(with_domain, machine)

    async def _of(self, machine: Machine, work: Callable[[Any], T]) -> T | None:
        """None if its domain is not there, or goes meanwhile."""

        def with_domain() -> T | None:
            found = self._find(machine)
            try:
                return None if found is None else work(found)
            except self._libvirt.libvirtError as error:
                if error.get_error_code() == self._libvirt.VIR_ERR_NO_DOMAIN:
                    return None
                raise

        return await self._call(with_domain, machine)

    async def _call(self, work: Callable[[], T], machine: Machine | None = None) -> T:
        """In a thread; what was begun for the same machine has ended then, whether or not anybody waited for it."""

        def guarded() -> T:
            try:
                return work()
            except self._libvirt.libvirtError as error:
                text = error.get_error_message() or str(error)
                raise DomainError(text, error.get_error_code() or 0, error.get_error_domain() or 0) from error

        if self._threads.unanswered >= MOST_UNANSWERED:
            raise DomainError("libvirt does not answer", self._libvirt.VIR_ERR_NO_CONNECT)
        if machine is None:
            return await asyncio.shield(self._threads.run(guarded))
        while (before := self._busy.get(machine.uuid)) is not None:
            await asyncio.wait([before])
        future = self._threads.run(guarded)
        self._busy[machine.uuid] = future
        future.add_done_callback(lambda done: self._ended(machine.uuid, done))
        return await asyncio.shield(future)

    def _ended(self, uuid: str, done: asyncio.Future[Any]) -> None:
        if self._busy.get(uuid) is done:
            del self._busy[uuid]
        if not done.cancelled():
            done.exception()  # whoever waits has it as well


def image_of(images: Path, name: str) -> Image:
    """The image of that name in a directory of images; BackendError if there is none."""
    place = images / name
    if name in (".", "..") or "/" in name or not place.is_dir():
        raise BackendError(f"there is no image {name} in {images}")
    files = {kind: str(place / kind) if (place / kind).exists() else "" for kind in ("kernel", "initrd")}
    disk = next((path for path in (place / "disk.qcow2", place / "disk.raw") if path.exists()), None)
    if not files["kernel"] and disk is None:
        raise BackendError(f"the image {name} has neither kernel nor disk.qcow2 nor disk.raw")
    try:
        about = json.loads((place / "image.json").read_text(encoding="utf-8"))
        arguments = str(about.get("arguments", ""))
        addresses = tuple(map(ip_address, about.get("addresses", ())))
    except FileNotFoundError:
        arguments, addresses = "", ()
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise BackendError(f"{place / 'image.json'} cannot be read: {error}") from error
    kind = "qcow2" if disk is not None and disk.suffix == ".qcow2" else "raw"
    return Image(files["kernel"], files["initrd"], str(disk or ""), kind, arguments, addresses)


def _exists(device: str) -> bool:
    """Whether the network namespace of this thread has such a device."""
    try:
        return socket.if_nametoindex(device) > 0
    except OSError:
        return False
