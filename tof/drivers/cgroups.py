"""Limits of processes by control groups: version 2, or the controllers of version 1 where the host still has those."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tof.agent.app import Flavour
from tof.errors import BackendError

ROOT: Final = Path("/sys/fs/cgroup")
CONTROLLERS: Final[tuple[str, ...]] = ("cpu", "memory", "pids")
_PERIOD_US: Final = 100_000
_PATIENCE: Final = 50


@dataclass(frozen=True, slots=True)
class Layout:
    """Where each controller's hierarchy is; ``unified``: version 2. ``why``: what is missing; None: not to be asked."""

    places: Mapping[str, Path]
    unified: bool = False
    why: str | None = ""


def layout(root: Path = ROOT) -> Layout:
    """What this host has."""
    try:
        if (root / "cgroup.controllers").exists():
            there = (root / "cgroup.controllers").read_text(encoding="ascii").split()
            unified = True
        else:
            there = [name for name in CONTROLLERS if (root / name / "cgroup.procs").exists()]
            unified = False
        if not there and not any(root.iterdir()):
            return Layout({}, unified, None)
    except OSError:
        return Layout({}, False, None)
    places = {name: root if unified else root / name for name in CONTROLLERS if name in there}
    missing = [name for name in CONTROLLERS if name not in places]
    return Layout(places, unified, f"no controller {', '.join(missing)}" if missing else "")


class ControlGroups:
    """Groups of one TOF, below ``tof/<tag>`` of each hierarchy."""

    def __init__(self, tag: str, root: Path = ROOT) -> None:
        self._tag = tag
        self.layout = layout(root)

    async def limit(self, name: str, pid: int, flavour: Flavour, processes: int) -> str:
        """Put a process into the group of that name; what could not be limited, if anything that was asked for."""
        wanted = _settings(flavour, processes, unified=self.layout.unified)
        asked = {"cpu": flavour.cpu, "memory": flavour.memory_mb}
        missing = []
        for group, controllers in self._groups(name).items():
            try:
                self._make(group, controllers)
                for controller in controllers:
                    for file, value in wanted.get(controller, {}).items():
                        (group / file).write_text(value, encoding="ascii")
                (group / "cgroup.procs").write_text(str(pid), encoding="ascii")
            except OSError as error:
                await self._drop(group)
                if any(asked.get(controller) is not None for controller in controllers):
                    missing.append(f"{'/'.join(controllers)}: {error.strerror}")
        missing += [f"no controller {name}" for name, value in asked.items()
                    if value is not None and name not in self.layout.places]  # fmt: skip
        return "; ".join(missing)

    async def remove(self, name: str) -> None:
        """Remove the groups of that name, whose processes have ended; BackendError if one stays."""
        for group in self._groups(name):
            if not await self._drop(group):
                raise BackendError(f"the control group {group} is not empty")
            for above in (group.parent, group.parent.parent):
                with suppress(OSError):
                    above.rmdir()

    def remains(self, name: str) -> list[str]:
        """The groups of that name that there are."""
        return [str(group) for group in self._groups(name) if group.exists()]

    def _groups(self, name: str) -> dict[Path, list[str]]:
        groups: dict[Path, list[str]] = {}
        for controller, place in self.layout.places.items():
            groups.setdefault(place / "tof" / self._tag / name, []).append(controller)
        return groups

    def _make(self, group: Path, controllers: list[str]) -> None:
        for above in (group.parent.parent.parent, group.parent.parent, group.parent):
            above.mkdir(exist_ok=True)
            if self.layout.unified:
                words = " ".join(f"+{controller}" for controller in controllers)
                (above / "cgroup.subtree_control").write_text(words, encoding="ascii")
        group.mkdir(exist_ok=True)

    async def _drop(self, group: Path) -> bool:
        for _ in range(_PATIENCE):
            try:
                group.rmdir()
            except FileNotFoundError:
                return True
            except OSError:
                await asyncio.sleep(0.002)  # its last process has ended, and is still being taken out
            else:
                return True
        return False


def _settings(flavour: Flavour, processes: int, *, unified: bool) -> dict[str, dict[str, str]]:
    found = {"pids": {"pids.max": str(processes)}}
    if flavour.cpu is not None:
        quota = str(max(1000, int(flavour.cpu * _PERIOD_US)))
        two, one = {"cpu.max": f"{quota} {_PERIOD_US}"}, {"cpu.cfs_period_us": str(_PERIOD_US)}
        found["cpu"] = two if unified else {**one, "cpu.cfs_quota_us": quota}
    if flavour.memory_mb is not None:
        size = str(flavour.memory_mb << 20)
        found["memory"] = {"memory.max" if unified else "memory.limit_in_bytes": size}
    return found
