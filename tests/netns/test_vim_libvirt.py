"""The ``libvirt`` VIM on a real libvirtd with QEMU, which emulates the processor."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
from gtp_peers import until
from libvirt_host import Libvirtd, guest_images, private_libvirtd
from netns_helper import Netns
from vim_host import GATEWAY, KEY, BridgeNetwork, Fault, Faulty

from tof.agent.app import Flavour
from tof.config import LibvirtVim as Settings
from tof.drivers.domains import MOST_UNANSWERED, Domains
from tof.vim.errors import (
    AlreadyExists,
    BackendFault,
    NoCapacity,
    QuotaExceeded,
    Rejected,
    TimedOut,
    Unavailable,
    VimError,
)
from tof.vim.interface import AppSpec, Instance, InstanceState
from tof.vim.libvirt import LibvirtVim
from tof.vim.libvirt_placing import LibvirtPolicy

pytestmark = pytest.mark.netns


@dataclass
class Host:
    """A hypervisor, and a bridge that is the applications' network; another leads to the ME platform."""

    libvirtd: Libvirtd
    dir: Path
    images: Path
    network: BridgeNetwork = field(default_factory=BridgeNetwork)

    def vim(self, fault: Fault | None = None, hypervisor: str = "qemu", **policy: Any) -> LibvirtVim:
        """A VIM as an agent has it, anew after each of its restarts."""
        fault = fault or Fault()
        settings = Settings(uri=self.libvirtd.uri, images=self.images, hypervisor=hypervisor, log_max_kb=4)
        usual = LibvirtPolicy(
            str(self.dir),
            (ip_network("192.168.50.128/25"), ip_network("fd00:50::/120")),
            (ip_network("192.168.50.0/24"), ip_network("fd00:50::/64")),
            (ip_address(GATEWAY), ip_address("fd00:50::1")),
            platform_bridge="mp0",
            platform_pool=(ip_network("10.30.0.0/24"),),
            **policy,
        )
        return LibvirtVim(Faulty(Domains(settings, self.dir), fault), Faulty(self.network, fault), usual)

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        with self.libvirtd.netns.entered():
            return asyncio.run(work)

    def left(self) -> list[str]:
        found = self.libvirtd.left() + [f"port {name}" for name in self.network.ports]
        return found + [str(path) for path in self.dir.glob("*")]


@pytest.fixture(scope="module")
def libvirtd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Libvirtd]:
    with Netns("kvm") as netns, private_libvirtd(netns, tmp_path_factory.mktemp("vim")) as running:
        for bridge, address in (("br0", f"{GATEWAY}/24"), ("mp0", "10.30.0.254/24")):
            netns.run("ip", "link", "add", bridge, "type", "bridge")
            netns.run("ip", "address", "add", address, "dev", bridge)
            netns.run("ip", "link", "set", bridge, "up")
        netns.run("ip", "address", "add", "fd00:50::1/64", "dev", "br0", "nodad")
        yield running


@pytest.fixture(scope="module")
def images() -> Path:
    return guest_images()


@pytest.fixture
def host(libvirtd: Libvirtd, images: Path, tmp_path: Path) -> Iterator[Host]:
    made = Host(libvirtd, tmp_path / "vim", images)
    yield made
    made.run(clear(made))
    assert made.left() == []


async def clear(host: Host) -> None:
    vim = host.vim()
    for one in await vim.list():
        await vim.delete(one.key, deadline=soon())


def soon(seconds: float = 30) -> float:
    return asyncio.get_running_loop().time() + seconds


def spec(name: str = "web", **more: Any) -> AppSpec:
    return AppSpec(name, networks=more.pop("networks", ("apps",)), **more)


def get(host: Host, address: object, path: str = "/") -> str:
    where = f"[{address}]" if ":" in str(address) else address
    argv = ("curl", "-s", "-g", "-m", "2", f"http://{where}{path}")
    answer = until("it answers", lambda: host.libvirtd.netns.run(*argv, check=False), 60, 0.1)
    return str(answer)


def test_a_guest_answers_on_both_networks_and_leaves_nothing(host: Host) -> None:
    async def life() -> Instance:
        vim = host.vim()
        made = await vim.create(spec(networks=("apps", "platform")), key=KEY, deadline=soon())
        assert made.state is InstanceState.ACTIVE
        assert [name for name, _ in made.timings] == ["define", "start", "port", "release"]
        for address in (*made.addresses, "10.30.0.1"):
            assert await asyncio.to_thread(get, host, address) == "hello from web\n"
        assert await vim.get(KEY) is not None
        await vim.delete(KEY, deadline=soon())
        assert await vim.get(KEY) is None
        await vim.delete(KEY, deadline=soon())
        return made

    made = host.run(life())
    assert [address.version for address in made.addresses] == [4, 6]
    assert host.left() == []


def test_command_and_environment_reach_the_guest(host: Host) -> None:
    script = """mkdir /tmp/w; echo "$GREETING; $TOF_APP_ADDRESS; $TOF_APP_NAME" >/tmp/w/x; httpd -f -p 80 -h /tmp/w"""
    wanted = 'it\'s "me" $HOME'

    async def life() -> str:
        app = spec(command=("sh", "-c", script), environment=(("GREETING", wanted),))
        made = await host.vim().create(app, key=KEY, deadline=soon())
        return await asyncio.to_thread(get, host, made.app_ip, "/x")

    assert host.run(life()) == f"{wanted}; 192.168.50.128 fd00:50::2; web\n"


@pytest.mark.parametrize("how", ["before", "after", "cancel"])
def test_a_failure_at_any_call_of_create_leaves_nothing(host: Host, how: str) -> None:
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
    assert {"known", "hypervisor", "define", "start", "hush", "plug", "release"} <= {*clean.calls}
    for at in range(1, len(clean.calls) + 1):
        name = host.run(failing(at))
        assert host.left() == [], f"call {at}, {name}"


@pytest.mark.parametrize("how", ["before", "after", "cancel"])
def test_a_failure_at_any_call_of_delete_is_made_good(host: Host, how: str) -> None:
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


def test_it_is_made_once(host: Host) -> None:
    async def life() -> None:
        one = await host.vim().create(spec(), key=KEY, deadline=soon())
        again = await host.vim().create(spec(), key=KEY, deadline=soon())
        assert (one.backend_id, one.addresses) == (again.backend_id, again.addresses)
        assert len(host.libvirtd.machines()) == 1
        with pytest.raises(AlreadyExists):
            await host.vim().create(spec(command=("other",)), key=KEY, deadline=soon())
        other = await host.vim().create(spec("two"), key="tof.default.two", deadline=soon())
        assert {*other.addresses}.isdisjoint(one.addresses)
        with pytest.raises(QuotaExceeded):
            await host.vim(max_apps=2).create(spec("three"), key="tof.default.three", deadline=soon())

    host.run(life())


def test_two_at_once_have_addresses_of_their_own(host: Host) -> None:
    async def life() -> None:
        vim = host.vim()
        made = await asyncio.gather(
            *(vim.create(spec(name), key=f"tof.default.{name}", deadline=soon()) for name in ("one", "two"))
        )
        assert len({address for one in made for address in one.addresses}) == 4

    host.run(life())


def test_what_was_never_let_go_is_made_anew(host: Host) -> None:
    """An agent that is killed between start and release leaves this."""

    async def life() -> None:
        vim = host.vim(Fault())
        vim._undo = forgetting  # type: ignore[method-assign]
        vim._host.release = forgetting  # type: ignore[attr-defined]
        await vim.create(spec(), key=KEY, deadline=soon())
        left = await host.vim().get(KEY)
        assert left is not None
        assert left.state is InstanceState.BUILD
        made = await host.vim().create(spec(), key=KEY, deadline=soon())
        assert made.state is InstanceState.ACTIVE

    async def forgetting(*_: object) -> None:
        pass

    host.run(life())


@pytest.mark.parametrize(
    ("app", "policy", "kind", "said"),
    [
        (spec(image="none"), {}, Rejected, "there is no image none"),
        (spec(image="../guest"), {}, Rejected, "there is no image"),
        (
            spec(networks=("apps", "other")),
            {},
            Rejected,
            "there is no network other; there are apps, platform",
        ),
        (spec(environment=(("A", "x" * 2000),)), {}, Rejected, "bytes more than fit"),
        (spec(networks=("apps", "platform")), {"platform_bridge": "none0"}, Rejected, "none0"),
        (spec(flavour=Flavour(cpu=0.5)), {}, Rejected, "cgroup cpu is required"),
        (spec(flavour=Flavour(memory_mb=1 << 30)), {}, VimError, "memory"),
    ],
)
def test_what_is_refused_says_why(
    host: Host, app: AppSpec, policy: dict[str, Any], kind: type[VimError], said: str
) -> None:
    async def life() -> None:
        vim = host.vim()
        with contextlib.ExitStack() as stack:
            for name, value in policy.items():
                object.__setattr__(vim._policy, name, value)
            caught = stack.enter_context(pytest.raises(kind, match=said))
            await vim.create(app, key=KEY, deadline=soon())
        assert caught.value.remedy

    host.run(life())
    assert host.left() == []


@pytest.mark.parametrize("way", ["killed", "ended", "panicked"])
def test_a_guest_that_ends_is_told_of_and_can_be_made_again(host: Host, way: str) -> None:
    scripts = {"ended": "echo no more; exit 5", "panicked": "echo c >/proc/sysrq-trigger"}
    command = ("sh", "-c", scripts[way]) if way in scripts else ()
    told: list[tuple[str, str]] = []

    async def life() -> None:
        vim = host.vim()
        vim.on_loss(lambda key, why: told.append((key, why)))
        app = spec(command=command)
        await vim.create(app, key=KEY, deadline=soon())
        if way == "killed":
            os.kill(*host.libvirtd.machines(), signal.SIGKILL)
        for _ in range(600):
            await asyncio.sleep(0.1)
            await vim.tend()
            if told:
                break
        one = await vim.get(KEY)
        assert one is not None
        assert one.state is InstanceState.ERROR
        again = await vim.create(app, key=KEY, deadline=soon())
        assert again.state is InstanceState.ACTIVE

    host.run(life())
    ((key, why),) = told
    assert key == KEY
    wanted = {
        "killed": "crashed",
        "ended": "no more; guest: the app has ended with exit status 5",
        "panicked": "panic",
    }
    assert wanted[way] in why


def test_libvirtd_killed_in_the_middle_of_a_creation(host: Host) -> None:
    """What was begun is removed once there is a libvirtd again; the wait for it is bounded."""
    server = host.libvirtd

    async def life() -> None:
        vim = host.vim()
        start = vim._host.start

        async def killing(machine: Any) -> None:
            await start(machine)
            server.kill()

        vim._host.start = killing  # type: ignore[method-assign]
        with pytest.raises(BackendFault, match="cannot remove web within 15 s"):
            await vim.create(spec(), key=KEY, deadline=soon())
        with pytest.raises(Unavailable):
            await vim.list()
        await vim.tend()
        assert len(server.machines()) == 1
        await asyncio.to_thread(server.start)
        (left,) = await vim.list()
        assert left.key == KEY
        await vim.delete(KEY, deadline=soon())

    host.run(life())
    assert host.left() == []


def test_guests_outlive_libvirtd(host: Host) -> None:
    server, told = host.libvirtd, []

    async def life() -> None:
        vim = host.vim()
        vim.on_loss(lambda *lost: told.append(lost))
        made = await vim.create(spec(), key=KEY, deadline=soon())
        server.kill()
        await vim.tend()
        assert await asyncio.to_thread(get, host, made.app_ip) == "hello from web\n"
        await asyncio.to_thread(server.start)
        await vim.tend()
        again = await vim.create(spec(), key=KEY, deadline=soon())
        assert again.addresses == made.addresses

    host.run(life())
    assert told == []


def test_a_libvirtd_that_hangs_holds_nobody_up(host: Host) -> None:
    server = host.libvirtd

    async def life() -> None:
        vim = host.vim()
        await vim.list()
        server.kill(signal.SIGSTOP)
        try:
            with pytest.raises((TimedOut, Unavailable)):
                await vim.create(spec(), key=KEY, deadline=soon(1))
            with pytest.raises(Unavailable, match="has not answered"):
                await vim.list()
            asking = [asyncio.ensure_future(vim.list()) for _ in range(MOST_UNANSWERED)]
            await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
            with pytest.raises(Unavailable, match="does not answer"):
                await vim.list()
            await vim.aclose()
            done = await asyncio.gather(*asking, return_exceptions=True)
            assert all(isinstance(one, Unavailable) for one in done)
        finally:
            server.kill(signal.SIGCONT)
        assert await host.vim().list() == []

    host.run(life())


def test_a_call_that_nobody_waits_for_is_over_before_the_next_one(host: Host) -> None:
    """A domain that is made by a call which was given up is removed all the same."""
    server = host.libvirtd

    async def life() -> None:
        vim = host.vim()
        define = vim._host.define

        async def stopping(machine: Any, xml: str) -> None:
            server.kill(signal.SIGSTOP)
            asyncio.get_running_loop().call_later(2, server.kill, signal.SIGCONT)
            await define(machine, xml)

        vim._host.define = stopping  # type: ignore[method-assign]
        with pytest.raises(TimedOut):
            await vim.create(spec(), key=KEY, deadline=soon(0.5))

    host.run(life())
    assert host.left() == []


def test_logs_are_kept_within_their_bounds(host: Host) -> None:
    async def life() -> None:
        vim = host.vim()
        command = ("sh", "-c", "while :; do echo 0123456789012345678901234567890123456789; done")
        await vim.create(spec(command=command), key=KEY, deadline=soon())
        log = host.dir / "web.log"
        await asyncio.to_thread(until, "it has written much", lambda: log.stat().st_size > 8192, 30)
        await vim.tend()
        assert (host.dir / "web.log.1").stat().st_size == 4096

    host.run(life())


def test_a_disk_is_left_as_it_was(host: Host, tmp_path: Path) -> None:
    """A guest's writes go to a file that is gone with it; two guests may have one image, to boot from or beside a kernel."""
    for name in ("disk", "both"):
        (tmp_path / "images" / name).mkdir(parents=True)
        (tmp_path / "images" / name / "disk.raw").write_bytes(bytes(1 << 20))
    for name in ("kernel", "initrd"):
        (tmp_path / "images" / "both" / name).symlink_to(host.images / "guest" / name)
    host.images = tmp_path / "images"
    apps = {"one": "disk", "two": "disk", "three": "both"}

    async def life() -> None:
        vim = host.vim()
        for name, image in apps.items():
            made = await vim.create(spec(name, image=image), key=f"tof.default.{name}", deadline=soon())
            assert made.state is InstanceState.ACTIVE
        for name in apps:
            await vim.delete(f"tof.default.{name}", deadline=soon())

    host.run(life())
    left = sorted(str(path.relative_to(host.images)) for path in host.images.glob("*/*"))
    assert left == ["both/disk.raw", "both/initrd", "both/kernel", "disk/disk.raw"]


def test_addresses_that_are_built_in(host: Host, tmp_path: Path) -> None:
    place = tmp_path / "images" / "fixed"
    place.mkdir(parents=True)
    for name in ("kernel", "initrd"):
        (place / name).symlink_to(host.images / "guest" / name)
    host.images = place.parent

    async def life(address: str) -> list[str]:
        (place / "image.json").write_text(json.dumps({"addresses": [address]}))
        made = await host.vim().create(spec(image="fixed"), key=KEY, deadline=soon())
        with pytest.raises(NoCapacity, match="taken"):
            await host.vim().create(spec("two", image="fixed"), key="tof.default.two", deadline=soon())
        return [str(one) for one in made.addresses]

    assert host.run(life("192.168.50.99")) == ["192.168.50.99"]
    host.run(clear(host))
    with pytest.raises(Rejected, match=r"10\.9\.9\.9, which is built into the image"):
        host.run(life("10.9.9.9"))
