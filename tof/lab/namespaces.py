"""Laboratory: network namespaces, wires between them and processes inside, gone when the block ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import shutil
import signal
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from tof.config import LocalVim
from tof.drivers.sandboxes import Sandboxes
from tof.errors import BackendError, SetupError

ROOT = Path("/run/tof-lab")
PREFIX = "tof-lab-"
_Found = TypeVar("_Found")
SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True, slots=True)
class Result:
    """What a finished command said."""

    code: int
    stdout: str
    stderr: str


@dataclass(frozen=True, slots=True)
class Job:
    """A process that the lab started, leader of its own process group; its output is in ``log``."""

    process: asyncio.subprocess.Process
    log: Path

    @property
    def pid(self) -> int:
        """Process id."""
        return self.process.pid

    @property
    def output(self) -> str:
        """Everything it has printed so far."""
        return self.log.read_text(errors="replace")


class Lab:
    """Namespaces ``tof-lab-<tag>-<role>``, of which nothing remains after the ``async with`` block.

    SIGINT and SIGTERM cancel the task in the block, so that the lab is taken down; ``interrupted`` tells.
    """

    def __init__(self) -> None:
        self.tag = secrets.token_hex(3)
        self.dir = ROOT / self.tag
        self.interrupted: signal.Signals | None = None
        self._jobs: list[Job] = []
        self._holding: asyncio.Event | None = None

    async def __aenter__(self) -> Self:
        """Clear up after labs whose owner died, then claim a directory."""
        if os.geteuid() != 0:
            raise SetupError("the lab needs root: it makes network namespaces")
        if missing := [tool for tool in ("ip", "osmo-ggsn", "sgsnemu", "curl") if not shutil.which(tool)]:
            raise SetupError(f"{', '.join(missing)} not found: run tools/setup")
        ROOT.mkdir(mode=0o700, exist_ok=True)
        for tag in await orphans():
            await _remove(tag)
        # appears with its owner inside, so that no other lab takes it for an orphan
        claim = Path(tempfile.mkdtemp(prefix=PREFIX, dir=ROOT.parent))
        (claim / "owner").write_text(_identity(os.getpid()))
        claim.rename(self.dir)
        task = asyncio.current_task()
        assert task is not None
        for number in SIGNALS:
            asyncio.get_running_loop().add_signal_handler(number, self._interrupt, number, task)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End every process of the lab and remove its namespaces and files."""
        try:
            await asyncio.gather(*(self.stop(job, signal.SIGKILL) for job in list(self._jobs)))
            await _remove(self.tag)
        finally:
            for number in SIGNALS:
                asyncio.get_running_loop().remove_signal_handler(number)

    def _interrupt(self, number: signal.Signals, task: asyncio.Task[object]) -> None:
        if self.interrupted is None:
            self.interrupted = number
            if self._holding is not None:
                self._holding.set()
            else:
                task.cancel()

    async def interruption(self) -> None:
        """Wait for SIGINT or SIGTERM, which then cancels nothing."""
        self._holding = asyncio.Event()
        await self._holding.wait()

    def name(self, role: str) -> str:
        """The namespace of ``role``."""
        return f"{PREFIX}{self.tag}-{role}"

    async def namespace(self, role: str, *sysctls: str) -> None:
        """Create the namespace of ``role``, with these ``key=value`` settings."""
        await command("ip", "netns", "add", self.name(role))
        await self.ip(role, "link", "set", "lo", "up")
        if sysctls:
            await self.run(role, "sysctl", "-q", "-w", *sysctls)

    async def veth(self, role: str, device: str, far_role: str, far_device: str) -> None:
        """Join two namespaces by a wire with default offloads, both ends up."""
        far = ("peer", "name", far_device, "netns", self.name(far_role))
        await command("ip", "link", "add", device, "netns", self.name(role), "type", "veth", *far)
        await self.ip(role, "link", "set", device, "up")
        await self.ip(far_role, "link", "set", far_device, "up")

    async def address(self, role: str, device: str, *addresses: str) -> None:
        """Give ``device`` these addresses (with prefix length)."""
        for address in addresses:
            nodad = ("nodad",) if ":" in address else ()
            await self.ip(role, "address", "add", address, "dev", device, *nodad)

    async def ip(self, role: str, *arguments: str) -> str:
        """Output of ``ip -n <namespace> arguments``."""
        return (await command("ip", "-n", self.name(role), *arguments)).stdout

    async def ip_json(self, role: str, *arguments: str) -> list[dict[str, Any]]:
        """What ``ip -json`` says in the namespace of ``role``."""
        found: list[dict[str, Any]] = json.loads(await self.ip(role, "-d", "-json", *arguments) or "[]")
        return found

    async def run(self, role: str, *argv: str, timeout: float = 60.0, check: bool = True) -> Result:
        """Run a command in the namespace of ``role`` to its end; a bad end is a BackendError if ``check``."""
        return await command("ip", "netns", "exec", self.name(role), *argv, timeout=timeout, check=check)

    async def start(self, role: str, title: str, *argv: str) -> Job:
        """Start a process in the namespace of ``role``; it ends with the lab at the latest."""
        log = self.dir / f"{title}.log"
        with log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                *("ip", "netns", "exec", self.name(role), *argv),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self.dir,
                start_new_session=True,
            )
        job = Job(process, log)
        self._jobs.append(job)
        return job

    async def stop(self, job: Job, number: signal.Signals = signal.SIGTERM, patience: float = 3.0) -> None:
        """End a job and its process group, politely at first; nothing happens if it has ended."""
        if job in self._jobs:
            self._jobs.remove(job)
        for each in (number, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(job.pid, each)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    await job.process.wait()
                break


async def until(what: str, probe: Callable[[], Awaitable[_Found | None]], within: float = 10.0) -> _Found:
    """Ask until ``probe`` finds something; a BackendError that names ``what`` if it does not in time."""
    try:
        async with asyncio.timeout(within):
            while True:
                if (found := await probe()) is not None:
                    return found
                await asyncio.sleep(0.05)
    except TimeoutError as error:
        raise BackendError(f"waited {within:g} s in vain: {what}") from error


async def command(*argv: str, timeout: float = 60.0, check: bool = True) -> Result:
    """Run a command to its end (killed after ``timeout``); a bad end is a BackendError if ``check``."""
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(timeout):
            stdout, stderr = await process.communicate()
    except TimeoutError as error:
        raise BackendError(f"no end after {timeout:g} s: {' '.join(argv)}") from error
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    result = Result(process.returncode or 0, stdout.decode(errors="replace"), stderr.decode(errors="replace"))
    if check and result.code:
        raise BackendError(f"exit status {result.code}: {' '.join(argv)}: {result.stderr.strip()[-500:]}")
    return result


def _identity(pid: int) -> str:
    """Process id and start time: unlike the id alone, this is never used again."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return f"{pid} {fields[19]}"


def _lives(tag: str) -> bool:
    """Whether the owner of lab ``tag`` still runs."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError, IndexError):
        recorded = (ROOT / tag / "owner").read_text()
        return _identity(int(recorded.split()[0])) == recorded
    return False


async def orphans() -> list[str]:
    """Tags of labs whose owner is no more but of which something is left."""
    names = [line.split()[0] for line in (await command("ip", "netns", "list")).stdout.splitlines()]
    tags = {name.removeprefix(PREFIX).partition("-")[0] for name in names if name.startswith(PREFIX)}
    tags |= {path.name for path in ROOT.glob("*")}
    return sorted(tag for tag in tags if not _lives(tag))


async def _remove(tag: str) -> None:
    """End what still runs in the namespaces of lab ``tag``, remove them and the lab's files."""
    prefix = f"{PREFIX}{tag}-"
    for line in (await command("ip", "netns", "list")).stdout.splitlines():
        name = line.split()[0]
        if not name.startswith(prefix):
            continue
        for pid in (await command("ip", "netns", "pids", name, check=False)).stdout.split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        await command("ip", "netns", "delete", name, check=False)
    # Apps run in namespaces of their own, and outlive the agent.
    for directory in (ROOT / tag).glob("*/run/vim/*"):
        with contextlib.suppress(BackendError):
            await Sandboxes(LocalVim(directory.name), directory, "default").clear()
    shutil.rmtree(ROOT / tag, ignore_errors=True)
