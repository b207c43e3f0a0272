"""The ``local`` VIM on a real host: namespaces, bubblewrap, control groups."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pwd
import re
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from netns_helper import MakeNetns
from vim_host import KEY, Fault, VimHost, marked, spec, vim_host

from tof.agent.app import Flavour
from tof.agent.sandbox import sandbox_body, sandbox_of
from tof.drivers.cgroups import layout
from tof.drivers.commands import command
from tof.drivers.processes import identified
from tof.errors import BackendError
from tof.vim.errors import (
    AlreadyExists,
    BackendFault,
    QuotaExceeded,
    Rejected,
    TimedOut,
    Unavailable,
    VimError,
)
from tof.vim.interface import AppSpec, Instance, InstanceState

pytestmark = pytest.mark.netns


@pytest.fixture
def host(netns: MakeNetns, tmp_path: Path) -> Iterator[VimHost]:
    with vim_host(netns, tmp_path) as made:
        yield made


def soon() -> float:
    return asyncio.get_running_loop().time() + 20


def get(host: VimHost, address: object, path: str = "/") -> str:
    url = f"http://{address}{path}"
    return host.netns.run("curl", "-s", "--retry", "20", "--retry-connrefused", "--retry-delay", "0", url)


def test_an_app_answers_and_leaves_nothing(host: VimHost) -> None:
    async def life() -> Instance:
        vim = host.vim()
        made: Instance = await vim.create(spec(), key=KEY, deadline=soon())
        assert made.state is InstanceState.ACTIVE
        assert "Directory listing" in await asyncio.to_thread(get, host, made.app_ip)
        assert await vim.get(KEY) is not None
        assert len(marked(host.dir, "web")) == 2, "bubblewrap and the init of its namespace"
        assert made.backend_id in await command("ip", "netns", "list"), "where names are seen"
        await vim.delete(KEY, deadline=soon())
        assert await vim.get(KEY) is None
        return made

    made = host.run(life())
    assert [phase for phase, _ in made.timings] == ["namespace", "network", "port", "start"]
    assert host.left() == []


@pytest.mark.parametrize("how", ["before", "after", "cancel"])
def test_a_failure_at_any_call_of_create_leaves_nothing(host: VimHost, how: str) -> None:
    clean = Fault()

    async def counted() -> None:
        vim = host.vim(clean)
        await vim.create(spec(), key=KEY, deadline=soon())
        await host.vim().delete(KEY, deadline=soon())

    async def failing(at: int) -> str:
        fault = Fault(at, how)
        vim = host.vim(fault)
        wanted = asyncio.CancelledError if how == "cancel" else VimError
        with pytest.raises(wanted) as caught:
            await asyncio.ensure_future(vim.create(spec(), key=KEY, deadline=soon()))
        await vim.aclose()
        if isinstance(caught.value, VimError):
            assert fault.calls[at - 1] in caught.value.message
            assert caught.value.remedy
        return fault.calls[at - 1]

    host.run(counted())
    assert {"known", "note", "enclose", "wire", "name", "plug", "limit", "release"} <= {*clean.calls}
    for at in range(1, len(clean.calls) + 1):
        name = host.run(failing(at))
        assert host.left() == [], f"call {at}, {name}"


@pytest.mark.parametrize("how", ["before", "after", "cancel"])
def test_a_failure_at_any_call_of_delete_is_made_good(host: VimHost, how: str) -> None:
    clean = Fault()

    async def life(fault: Fault) -> None:
        await host.vim().create(spec(), key=KEY, deadline=soon())
        vim = host.vim(fault)
        with contextlib.suppress(asyncio.CancelledError, VimError):
            await asyncio.ensure_future(vim.delete(KEY, deadline=soon()))
        await host.vim().delete(KEY, deadline=soon())

    host.run(life(clean))
    assert host.left() == []
    for at in range(1, len(clean.calls) + 1):
        host.run(life(Fault(at, how)))
        assert host.left() == [], f"call {at}, {clean.calls[at - 1]}"


def test_what_cannot_be_removed_is_not_forgotten(host: VimHost) -> None:
    async def life() -> None:
        vim = host.vim()
        await vim.create(spec(), key=KEY, deadline=soon())
        stubborn = host.vim()
        stubborn._network.unplug = refusing  # type: ignore[attr-defined]
        with pytest.raises(BackendFault, match=r"cannot remove web: .*no switch"):
            await stubborn.delete(KEY, deadline=soon())
        left = await vim.get(KEY)
        assert left is not None
        assert left.state is InstanceState.ERROR
        await vim.delete(KEY, deadline=soon())

    async def refusing(_name: str) -> None:
        raise BackendError("no switch")

    host.run(life())
    assert host.left() == []


SEES = """\
import os, pathlib, socket, sys
def tries(what):
    try:
        return str(what())
    except OSError as error:
        return type(error).__name__
status = dict(line.split(":", 1) for line in open("/proc/self/status") if ":" in line)
print("uid", os.getuid(), "gid", os.getgid())
print("capabilities", status["CapEff"].strip(), status["NoNewPrivs"].strip())
print("processes", sorted(int(p) for p in os.listdir("/proc") if p.isdigit())[0:9])
print("hostname", socket.gethostname())
print("files", sorted(os.listdir("/proc/self/fd"))[:4])
print("shadow", tries(lambda: open("/etc/shadow").read()))
print("usr", tries(lambda: open("/usr/new", "w")))
print("etc", tries(lambda: open("/etc/new", "w")))
print("root", tries(lambda: open("/new", "w")), sorted(os.listdir("/")))
print("tmp", tries(lambda: pathlib.Path("/tmp/new").write_text("mine")), os.listdir("/tmp"))
print("links", sorted(name for _, name in socket.if_nameindex()))
print("address", os.environ["TOF_APP_ADDRESS"], os.environ["GIVEN"], len(os.environ))
print("raw", tries(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW)))
print("port", tries(lambda: socket.create_server(("", 80)).getsockname()[1]))
print("done", flush=True)
import time
time.sleep(1000)
"""


def said(host: VimHost, name: str = "web") -> dict[str, str]:
    log = host.dir / f"{name}.log"
    for _ in range(500):
        text = log.read_text() if log.exists() else ""
        if "done\n" in text or "Traceback" in text:
            return dict(line.partition(" ")[::2] for line in text.splitlines())
        time.sleep(0.01)
    raise AssertionError(text)


@pytest.mark.parametrize("own_users", [True, False])
def test_what_an_app_sees_and_may(host: VimHost, own_users: bool) -> None:
    """With a user namespace of its own, and as where the host gives none."""

    async def life() -> dict[str, str]:
        vim = host.vim()
        vim._host._real._own_users = own_users  # type: ignore[attr-defined]
        look = spec(command=("/usr/bin/python3", "-c", SEES), environment=(("GIVEN", "q7x-mine"),))
        await vim.create(look, key=KEY, deadline=soon())
        listed = await command("ps", "axww", "-o", "args")
        assert "q7x-mine" not in listed, "the environment is nobody else's business"
        found = await asyncio.to_thread(said, host)
        await vim.delete(KEY, deadline=soon())
        return found

    found = host.run(life())
    nobody = pwd.getpwnam("nobody")
    assert found["uid"] == f"{nobody.pw_uid} gid {nobody.pw_gid}"
    assert found["capabilities"].split()[0] == "0" * 16
    assert found["capabilities"].split()[-1] == "1"
    assert found["processes"] in ("[1, 2]", "[1, 2, 3]"), "its own and its init, no others"
    assert found["hostname"] == "web"
    assert found["files"] == "['0', '1', '2', '3']", "the last is the directory itself"
    assert found["shadow"] in ("PermissionError", "FileNotFoundError")
    assert (found["usr"], found["etc"], found["root"].split()[0]) == ("OSError", "OSError", "OSError")
    assert not {"home", "root", "srv", "boot"} & {*re.findall(r"\w+", found["root"])}
    assert found["tmp"] == "4 ['new']"
    assert found["links"] == "['eth0', 'lo']"
    assert found["address"].startswith("192.168.50.128 q7x-mine")
    assert found["raw"] == "PermissionError"
    assert found["port"] == "80"


def test_an_image_is_a_root_file_system(host: VimHost) -> None:
    """One program without any library, and nothing else."""
    image = host.images / "tiny"
    image.mkdir(parents=True)
    source = image.parent / "init.c"
    source.write_text(
        '#include <stdio.h>\n#include <unistd.h>\nint main(){puts("tiny done\\ndone");fflush(stdout);pause();}\n'
    )
    subprocess.run(["gcc", "-static", "-o", image / "init", source], check=True)
    for place in (host.images.parent, host.images, image):
        place.chmod(0o755)

    async def life() -> dict[str, str]:
        vim = host.vim()
        await vim.create(AppSpec("web", image="tiny", networks=("apps",)), key=KEY, deadline=soon())
        found = await asyncio.to_thread(said, host)
        await vim.delete(KEY, deadline=soon())
        return found

    if not os.access("/usr/lib/x86_64-linux-gnu/libc.a", os.R_OK):
        pytest.skip("no static libc")
    with readable(host.images):
        assert host.run(life())["tiny"] == "done"
    assert host.left() == []


@contextlib.contextmanager
def readable(path: Path) -> Iterator[None]:
    """pytest keeps its directories to itself; an app is somebody else."""
    changed = [above for above in path.parents if above != Path("/") and not above.stat().st_mode & 0o001]
    for above in changed:
        above.chmod(above.stat().st_mode | 0o001)
    try:
        yield
    finally:
        for above in changed:
            above.chmod(above.stat().st_mode & ~0o001)


def test_limits_hold_where_the_host_has_control_groups(host: VimHost) -> None:
    if layout().why != "":
        pytest.skip(f"this host cannot limit: {layout().why}")
    eats = "import sys\nx = []\nwhile True:\n    x.append(b'x' * (1 << 20)); print(len(x), flush=True)\n"

    async def life() -> Instance:
        vim = host.vim()
        ended = asyncio.Event()
        vim.on_loss(lambda _key, _why: ended.set())
        small = spec(command=("/usr/bin/python3", "-c", eats), flavour=Flavour(memory_mb=48))
        await vim.create(small, key=KEY, deadline=soon())
        async with asyncio.timeout(20):
            await ended.wait()
        found = await vim.get(KEY)
        assert found is not None
        await vim.delete(KEY, deadline=soon())
        return found

    found = host.run(life())
    assert found.state is InstanceState.ERROR
    megabytes = [int(n) for n in re.findall(r"\d+", found.fault.partition("last words:")[2])]
    assert 20 < max(megabytes) < 60, found.fault
    assert host.left() == []


def test_logs_are_bounded(host: VimHost) -> None:
    async def life() -> list[int]:
        vim = host.vim(log_max_kb=4)
        loud = "import sys, time\nfor n in range(4000): print(n, 'x' * 50)\n"
        loud += "print('done', flush=True)\ntime.sleep(1000)"
        await vim.create(spec(command=("/usr/bin/python3", "-c", loud)), key=KEY, deadline=soon())
        await asyncio.to_thread(said, host)
        await vim.tend()
        sizes = [path.stat().st_size for path in host.dir.glob("web.log*")]
        last = (host.dir / "web.log.1").read_text().splitlines()[-1]
        assert last == "done"
        await vim.delete(KEY, deadline=soon())
        return sizes

    assert sorted(host.run(life())) == [0, 4096]
    assert host.left() == []


def test_what_is_another_s_process_is_left_alone(host: VimHost) -> None:
    """A file that names a process which has begun at another time, or in another boot: the number was given again."""
    innocent = subprocess.Popen(["sleep", "1000"])
    try:
        mine = identified(innocent.pid)
        assert mine is not None
        for other in (replace(mine, started=mine.started - 1), replace(mine, boot="another")):
            sandbox = sandbox_of(KEY, "web", place="x").with_process(other, running=True)
            host.dir.mkdir(parents=True, exist_ok=True)
            (host.dir / "web.json").write_text(json.dumps(sandbox_body(sandbox)))

            async def life() -> None:
                vim = host.vim()
                found = await vim.get(KEY)
                assert found is not None
                assert found.state is InstanceState.ERROR
                await vim.delete(KEY, deadline=soon())

            host.run(life())
            assert innocent.poll() is None
            assert host.left() == []
    finally:
        innocent.kill()
        innocent.wait()


def test_each_app_has_an_address_of_its_own(host: VimHost) -> None:
    async def life() -> None:
        vim = host.vim(max_apps=4)
        names = ("a", "b", "c", "d")
        made = await asyncio.gather(
            *(vim.create(spec(name), key=f"tof.default.{name}", deadline=soon()) for name in names)
        )
        assert len({one.app_ip for one in made}) == 4
        assert len(await vim.list()) == 4
        with pytest.raises(AlreadyExists):
            await vim.create(spec("a", environment=(("A", "b"),)), key="tof.default.a", deadline=soon())
        again = await vim.create(spec("a"), key="tof.default.a", deadline=soon())
        assert again.app_ip == made[0].app_ip
        for name in names:
            await vim.delete(f"tof.default.{name}", deadline=soon())
        await vim.delete("tof.default.never", deadline=soon())

    host.run(life())
    assert host.left() == []


@pytest.mark.parametrize(
    ("vim", "asked", "error", "why"),
    [
        ({"max_apps": 0}, {}, QuotaExceeded, "0 apps are there already"),
        ({}, {"networks": ("apps", "other")}, Rejected, "no network other"),
        ({}, {"image": "none"}, Rejected, "no image none"),
        ({"user": "root"}, {}, Unavailable, "apps must not be root"),
        ({"user": "no-such-user"}, {}, Unavailable, "there is no user no-such-user"),
    ],
)
def test_what_cannot_be_says_why(
    host: VimHost, vim: dict[str, Any], asked: dict[str, Any], error: type[VimError], why: str
) -> None:
    async def life() -> None:
        wanted = replace(spec(), **asked)
        with pytest.raises(error, match=why) as caught:
            await host.vim(**vim).create(wanted, key=KEY, deadline=soon())
        assert caught.value.remedy

    host.run(life())
    assert host.left() == []


def test_a_deadline(host: VimHost) -> None:
    async def life() -> None:
        with pytest.raises(TimedOut):
            await host.vim().create(spec(), key=KEY, deadline=asyncio.get_running_loop().time() + 0.01)

    host.run(life())
    assert host.left() == []
