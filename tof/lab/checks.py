"""Laboratory: what a scenario yields: what was expected, what was seen; and how to watch for it."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Self

from tof.lab.namespaces import Job, Lab, until
from tof.lab.peers import Ue
from tof.lab.prober import Probe
from tof.lab.world import World

Figures = dict[str, float]


@dataclass(frozen=True, slots=True)
class Check:
    """One statement about the TOF, shown as it happens."""

    name: str
    ok: bool
    expected: str
    seen: str

    @classmethod
    def equal(cls, name: str, expected: object, seen: object) -> Self:
        """The check that two things are the same."""
        return cls(name, expected == seen, str(expected), str(seen))


Checks = AsyncGenerator[Check, None]
Scenario = Callable[[World, Figures], Checks]


class Capture:
    """Packets counted on a device while the block lasts."""

    def __init__(self, lab: Lab, role: str, device: str, what: str) -> None:
        self._lab = lab
        self._role = role
        self._argv = ("tcpdump", "--immediate-mode", "-l", "-n", "-t", "-i", device, *what.split())
        self._job: Job | None = None

    async def __aenter__(self) -> Self:
        """Start; returns when packets are being seen."""
        job = await self._lab.start(self._role, f"tcpdump-{id(self):x}", *self._argv)
        self._job = job

        async def listening() -> bool | None:
            return "listening on" in job.output or None

        await until("tcpdump listens", listening)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop."""
        if self._job is not None:
            await self._lab.stop(self._job)

    @property
    def packets(self) -> list[str]:
        """One line per packet so far."""
        lines = self._job.output.splitlines() if self._job else []
        return [line for line in lines if line.startswith(("IP ", "IP6 ", "ARP"))]


async def probe_from(ue: Ue, address: str, seconds: float) -> list[Probe]:
    """Ask every 20 ms who answers at ``address``."""
    argv = (sys.executable, "-m", "tof.lab.prober", address, f"{seconds:g}")
    result = await ue.run(*argv, timeout=seconds + 20)
    return [Probe(sent, server) for sent, server in json.loads(result.stdout or "[]")]


def answered(probes: list[Probe]) -> str:
    """Summary: how many probes each server answered."""
    counts: dict[str, int] = {}
    for probe in probes:
        counts[probe.server or "nobody"] = counts.get(probe.server or "nobody", 0) + 1
    return ", ".join(f"{server}: {count}" for server, count in counts.items()) or "no probe"


def clock() -> float:
    """The monotonic clock that probes are stamped with."""
    return asyncio.get_running_loop().time()
