"""Processes that outlive the agent: started behind a gate, known by more than their number, ended for certain.

A process is told apart from a later one with its number by when it began; signals go through a pidfd that was opened
before that was compared.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tof.agent.sandbox import OPTIONS_FD, STATUS_FD, Process
from tof.errors import BackendError
from tof.settled import finished

MARK: Final = "TOF_SANDBOX"
GATE_S: Final = 5.0
END_S: Final = 5.0
_GATE_FD: Final = 4
_SWEEPS: Final = 5
_DEAD: Final = frozenset("ZXx")

# The gate opens only by a word: if the agent dies, the shell reads the end and goes.
_OUTER: Final = f'exec {_GATE_FD}<&0; unshare --net -- sh -c "$0" "$@" </dev/null 2>&1 &'
_INNER: Final = f"""\
cd / && umask 022
for conf in all default; do
  echo "$1" >/proc/sys/net/ipv6/conf/$conf/disable_ipv6
  echo 0 >/proc/sys/net/ipv6/conf/$conf/accept_ra
  echo 0 >/proc/sys/net/ipv6/conf/$conf/accept_dad
done 2>/dev/null
{{ echo 0 >/proc/sys/net/ipv4/ip_unprivileged_port_start; }} 2>/dev/null
log=$2 status=$3 options=$4; shift 4
echo $$
read -r go <&{_GATE_FD} && [ "$go" = go ] || exit 125
exec {_GATE_FD}<&-
exec "$@" </dev/null >>"$log" 2>&1 {STATUS_FD}>"$status" {OPTIONS_FD}<"$options"
"""


class Gate:
    """A process in a network namespace of its own that has not begun its command yet; if dropped, it never will."""

    def __init__(self, process: Process, handle: int) -> None:
        self.process = process
        self._handle = handle

    def open(self) -> None:
        """Let it begin."""
        try:
            os.write(self._handle, b"go\n")
        except OSError as error:
            raise BackendError(f"process {self.process.pid} did not wait: {error.strerror}") from error
        finally:
            self.close()

    def close(self) -> None:
        """Drop it, unless it was opened."""
        if self._handle >= 0:
            os.close(self._handle)
        self._handle = -1


@dataclass(frozen=True, slots=True)
class Launch:
    """What is started, where it writes, where its options are; ``mark`` is in its environment, and in no other's."""

    argv: tuple[str, ...]
    log: Path
    status: Path
    options: Path
    mark: str
    ipv6: bool = False


async def gated(launch: Launch) -> Gate:
    """Start a shell, a child of none of ours, that becomes the command once its gate is opened."""
    gates: list[Gate] = []

    async def start() -> None:
        gates.append(await _gated(launch))

    try:
        await finished(start())
    except BaseException:
        for gate in gates:
            gate.close()
        raise
    return gates[0]


async def _gated(launch: Launch) -> Gate:
    waits, opens = os.pipe()
    hears, says = os.pipe()
    files = (str(launch.log), str(launch.status), str(launch.options))
    words = ("sh", "-c", _OUTER, _INNER, "tof-app", "0" if launch.ipv6 else "1", *files)
    try:
        outer = await asyncio.create_subprocess_exec(
            *words,
            *launch.argv,
            stdin=waits,
            stdout=says,
            stderr=says,
            start_new_session=True,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", MARK: launch.mark},
        )
        os.close(says)
        says = -1
        await outer.wait()
        async with asyncio.timeout(GATE_S):
            text = await _line(hears)
        process = identified(int(text)) if text.isdecimal() else None
        if process is None:
            raise BackendError(f"cannot start a process: {text or 'it ended at once'}")
        return Gate(process, opens)
    except TimeoutError:
        os.close(opens)
        raise BackendError(f"a process did not come up within {GATE_S:g} s") from None
    except BaseException:
        os.close(opens)
        raise
    finally:
        for handle in (waits, hears, says):
            if handle >= 0:
                os.close(handle)


async def _line(handle: int) -> str:
    loop, found = asyncio.get_running_loop(), bytearray()
    os.set_blocking(handle, False)
    while not found.endswith(b"\n"):
        ready = asyncio.Event()
        loop.add_reader(handle, ready.set)
        try:
            await ready.wait()
        finally:
            loop.remove_reader(handle)
        chunk = os.read(handle, 4096)
        if not chunk:
            break
        found += chunk
    return found.decode(errors="replace").strip()


def boot_id() -> str:
    """Which boot of the host this is."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def identified(pid: int) -> Process | None:
    """The living process with that number."""
    fields = _stat(pid)
    if fields is None or fields[0] in _DEAD:
        return None
    return Process(pid, int(fields[19]), boot_id())


def lives(process: Process) -> bool:
    """Whether this very process has not ended."""
    return identified(process.pid) == process


def children(process: Process) -> list[Process]:
    """Those that it has started, as far as they live."""
    try:
        text = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text(encoding="ascii")
    except OSError:
        return []
    found = [identified(int(pid)) for pid in text.split()]
    return [child for child in found if child is not None] if lives(process) else []


@contextlib.contextmanager
def handle_of(process: Process) -> Iterator[int | None]:
    """A pidfd of this very process; None if it has ended."""
    try:
        handle = os.pidfd_open(process.pid)
    except (ProcessLookupError, ValueError):
        yield None
        return
    except OSError as error:
        raise BackendError(f"cannot watch process {process.pid}: {error.strerror}") from error
    try:
        yield handle if lives(process) else None
    finally:
        os.close(handle)


async def end(process: Process | None, mark: str) -> None:
    """Kill it and, with it, what it runs apart from the host; return when all of that is gone.

    What bears its mark is looked for besides: of a process that is killed as it begins, a part may go on.
    """
    await _kill([] if process is None else [process, *children(process)])
    for _ in range(_SWEEPS):
        left = await asyncio.to_thread(marked, mark)
        if not left:
            return
        await _kill(left)
    raise BackendError(f"processes of {mark} go on beginning")


def marked(mark: str) -> list[Process]:
    """The living processes that bear this mark."""
    sign = f"{MARK}={mark}\0".encode()
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if sign in (entry / "environ").read_bytes():
                found.append(identified(int(entry.name)))
    return [process for process in found if process is not None]


async def _kill(victims: Sequence[Process]) -> None:
    with contextlib.ExitStack() as stack:
        handles = [stack.enter_context(handle_of(one)) for one in victims]
        for handle in handles:
            if handle is not None:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
        for handle, victim in zip(handles, victims, strict=True):
            if handle is not None and not await _ended(handle):
                raise BackendError(f"process {victim.pid} does not end")


async def _ended(handle: int) -> bool:
    loop, gone = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(handle, gone.set)
    try:
        async with asyncio.timeout(END_S):
            await gone.wait()
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(handle)
    return True


class Watch:
    """Tells once when a process ends."""

    def __init__(self, process: Process, told: Callable[[], None]) -> None:
        self._told = told
        self._handle = os.pidfd_open(process.pid)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._handle, self._end)

    def _end(self) -> None:
        self.close()
        self._told()

    def close(self) -> None:
        """Tell no more."""
        if self._handle >= 0:
            self._loop.remove_reader(self._handle)
            os.close(self._handle)
        self._handle = -1


def _stat(pid: int) -> list[str] | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The name, in parentheses, may hold anything.
    return text.rpartition(")")[2].split()
