"""The lab itself, with a plain bridge where the TOF will be."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tof.errors import BackendError
from tof.lab.checks import Capture, answered, probe_from
from tof.lab.namespaces import Lab
from tof.lab.peers import CORE_TUN
from tof.lab.snapshot import differences, snapshot
from tof.lab.world import ELSEWHERE, PING_TARGET, SERVICE, World, build

pytestmark = [pytest.mark.netns, pytest.mark.usefixtures("nothing_left")]


async def _plain_bridge(world: World) -> None:
    await world.lab.ip("tof", "link", "add", "name", "br0", "type", "bridge")
    for device in ("enb0", "sgw0"):
        await world.lab.ip("tof", "link", "set", device, "master", "br0")
    await world.lab.ip("tof", "link", "set", "br0", "up")


async def test_three_ues_reach_the_internet_over_a_plain_bridge() -> None:
    async with Lab() as lab:
        world = await build(lab)
        await _plain_bridge(world)
        ues = [await world.attach() for _ in range(3)]
        assert len({ue.address for ue in ues}) == 3
        async with Capture(lab, "core", CORE_TUN, "icmp") as at_core:
            for ue in ues:
                assert (await ue.ping(PING_TARGET)).received == 1
            assert (await ues[0].ping(PING_TARGET, "-s", "1472")).received == 1
        assert len(at_core.packets) >= 8
        assert await ues[1].curl(f"http://{ELSEWHERE}/") == "internet"
        assert await ues[2].udp(SERVICE, "hello") == "internet: hello"
        assert (await ues[0].curl(f"http://{ELSEWHERE}/", "-T", "/etc/hostname")).startswith("internet ")
        probes = await probe_from(ues[0], SERVICE, 0.3)
        assert answered(probes) == f"internet: {len(probes)}"
        assert len(probes) > 10


async def test_a_snapshot_sees_what_was_added_and_that_it_is_gone() -> None:
    async with Lab() as lab:
        world = await build(lab)
        assert differences(world.before, await snapshot(lab, "tof")) == []
        await _plain_bridge(world)
        changed = differences(world.before, await snapshot(lab, "tof"))
        assert {"link br0", "link enb0", "link sgw0"} <= set(changed)
        await lab.ip("tof", "link", "delete", "br0")
        await lab.run("tof", "iptables", "-A", "FORWARD", "-p", "udp", "-j", "ACCEPT")
        assert any("iptables" in name for name in differences(world.before, await snapshot(lab, "tof")))
        await lab.run("tof", "iptables", "-D", "FORWARD", "-p", "udp", "-j", "ACCEPT")
        left = set(differences(world.before, await snapshot(lab, "tof")))
        assert left <= {"sysctl net.bridge"}


async def _lab_with_a_failing_command() -> None:
    async with Lab() as lab:
        await lab.namespace("one")
        await lab.start("one", "sleeper", "sleep", "1000")
        await lab.run("one", "false")


async def test_a_failing_command_takes_the_lab_down() -> None:
    with pytest.raises(BackendError, match="exit status"):
        await _lab_with_a_failing_command()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_takes_the_lab_down(number: signal.Signals, tmp_path: Path) -> None:
    script = tmp_path / "lab.py"
    script.write_text(
        "import asyncio\n"
        "from tof.lab.namespaces import Lab\n"
        "async def main():\n"
        "    async with Lab() as lab:\n"
        "        await lab.namespace('one')\n"
        "        await lab.start('one', 'sleeper', 'sleep', '1000')\n"
        "        print(lab.name('one'), flush=True)\n"
        "        await asyncio.sleep(1000)\n"
        "asyncio.run(main())\n"
    )
    argv = [sys.executable, str(script)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("tof-")
        process.send_signal(number)
        process.send_signal(number)
        assert process.wait(20) != 0


async def test_a_lab_whose_owner_was_killed_is_cleared_up_by_the_next(tmp_path: Path) -> None:
    script = tmp_path / "lab.py"
    script.write_text(
        "import asyncio, os, signal\n"
        "from tof.lab.namespaces import Lab\n"
        "async def main():\n"
        "    async with Lab() as lab:\n"
        "        await lab.namespace('one')\n"
        "        job = await lab.start('one', 'sleeper', 'sleep', '1000')\n"
        "        print(job.pid, flush=True)\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)  # noqa: ASYNC221
    assert done.returncode == -signal.SIGKILL
    async with Lab():
        pass
    command_line = Path(f"/proc/{int(done.stdout)}/cmdline")
    assert not command_line.exists() or not command_line.read_text(), "neither gone nor a zombie"
