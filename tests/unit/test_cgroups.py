"""Which control groups a host has, and what is written there: on directories that look like both versions."""

from __future__ import annotations

from pathlib import Path

import pytest

from tof.agent.app import Flavour
from tof.drivers.cgroups import ControlGroups, layout
from tof.errors import BackendError

LIMITED = Flavour(0.5, 64)


def host(root: Path, *, unified: bool, controllers: tuple[str, ...] = ("cpu", "memory", "pids")) -> Path:
    if unified:
        (root / "cgroup.controllers").write_text(" ".join(("io", *controllers)))
        return root
    for name in controllers:
        (root / name).mkdir()
        (root / name / "cgroup.procs").touch()
    return root


def written(root: Path) -> dict[str, str]:
    return {str(path.relative_to(root)): path.read_text() for path in root.glob("**/web/*")}


async def test_version_2(tmp_path: Path) -> None:
    groups = ControlGroups("x", host(tmp_path, unified=True))
    assert groups.layout.why == ""
    assert await groups.limit("web", 7, LIMITED, 100) == ""
    assert written(tmp_path) == {
        "tof/x/web/cpu.max": "50000 100000",
        "tof/x/web/memory.max": str(64 << 20),
        "tof/x/web/pids.max": "100",
        "tof/x/web/cgroup.procs": "7",
    }
    assert (tmp_path / "tof/cgroup.subtree_control").read_text() == "+cpu +memory +pids"
    assert len(groups.remains("web")) == 1


async def test_version_1(tmp_path: Path) -> None:
    groups = ControlGroups("x", host(tmp_path, unified=False))
    assert await groups.limit("web", 7, LIMITED, 100) == ""
    assert written(tmp_path) == {
        "cpu/tof/x/web/cpu.cfs_period_us": "100000",
        "cpu/tof/x/web/cpu.cfs_quota_us": "50000",
        "cpu/tof/x/web/cgroup.procs": "7",
        "memory/tof/x/web/memory.limit_in_bytes": str(64 << 20),
        "memory/tof/x/web/cgroup.procs": "7",
        "pids/tof/x/web/pids.max": "100",
        "pids/tof/x/web/cgroup.procs": "7",
    }


@pytest.mark.parametrize("unified", [True, False])
async def test_what_is_missing_is_told_if_it_was_asked_for(tmp_path: Path, unified: bool) -> None:
    groups = ControlGroups("x", host(tmp_path, unified=unified, controllers=("pids",)))
    assert groups.layout.why == "no controller cpu, memory"
    assert await groups.limit("web", 7, Flavour(), 100) == ""
    assert await groups.limit("web", 7, LIMITED, 100) == "no controller cpu; no controller memory"


async def test_a_host_that_refuses(tmp_path: Path) -> None:
    groups = ControlGroups("x", host(tmp_path, unified=True))
    (tmp_path / "tof").touch()
    assert "cpu/memory/pids: " in await groups.limit("web", 7, Flavour(cpu=1), 100)
    assert await groups.limit("web", 7, Flavour(), 100) == "", "nothing was asked for"


def test_a_host_that_cannot_be_asked(tmp_path: Path) -> None:
    assert layout(tmp_path).why is None
    assert layout(tmp_path / "nowhere").why is None


async def test_groups_are_removed_with_those_above(tmp_path: Path) -> None:
    groups = ControlGroups("x", host(tmp_path, unified=True))
    (tmp_path / "tof/x/web").mkdir(parents=True)
    (tmp_path / "tof/x/other").mkdir()
    await groups.remove("web")
    assert (tmp_path / "tof/x/other").exists()
    await groups.remove("other")
    assert not (tmp_path / "tof").exists()
    await groups.remove("other")
    (tmp_path / "tof/x/web/process").mkdir(parents=True)
    with pytest.raises(BackendError, match="is not empty"):
        await groups.remove("web")
