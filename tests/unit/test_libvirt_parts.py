"""Parts of the ``libvirt`` VIM that need no libvirt: images, threads, a binding that is not there."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path

import pytest

from tof.agent.domain import Image
from tof.config import LibvirtVim
from tof.drivers import libvirt_binding, libvirt_probe
from tof.drivers.domains import image_of
from tof.drivers.worker_threads import WorkerThreads
from tof.errors import BackendError, SetupError


def image(place: Path, *files: str, about: str | None = None) -> Path:
    directory = place / "web"
    directory.mkdir()
    for name in files:
        (directory / name).touch()
    if about is not None:
        (directory / "image.json").write_text(about)
    return directory


def test_an_image_with_everything(tmp_path: Path) -> None:
    about = json.dumps({"arguments": "quiet", "addresses": ["192.168.50.9"], "packages": ["x"]})
    place = image(tmp_path, "kernel", "initrd", "disk.qcow2", about=about)
    assert image_of(tmp_path, "web") == Image(
        f"{place}/kernel",
        f"{place}/initrd",
        f"{place}/disk.qcow2",
        "qcow2",
        "quiet",
        (ip_address("192.168.50.9"),),
    )


def test_a_unikernel_and_a_disk(tmp_path: Path) -> None:
    place = image(tmp_path, "kernel")
    assert image_of(tmp_path, "web") == Image(f"{place}/kernel")
    (place / "kernel").rename(place / "disk.raw")
    assert image_of(tmp_path, "web") == Image(disk=f"{place}/disk.raw")


@pytest.mark.parametrize("name", ["none", ".", "..", "../web", "a/b"])
def test_no_such_image(tmp_path: Path, name: str) -> None:
    image(tmp_path, "kernel")
    with pytest.raises(BackendError, match="there is no image"):
        image_of(tmp_path, name)


@pytest.mark.parametrize("about", ["{", "[]", '{"addresses": ["x"]}', '{"addresses": 1}'])
def test_an_image_that_cannot_be_understood(tmp_path: Path, about: str) -> None:
    image(tmp_path, "kernel", about=about)
    with pytest.raises(BackendError, match=r"image\.json cannot be read"):
        image_of(tmp_path, "web")


def test_an_image_of_nothing(tmp_path: Path) -> None:
    image(tmp_path, "initrd")
    with pytest.raises(BackendError, match="neither kernel nor disk"):
        image_of(tmp_path, "web")


async def test_threads_return_raise_and_are_few() -> None:
    threads, both, names = WorkerThreads(2, "few"), threading.Barrier(2, timeout=20), set()

    def work() -> str:
        both.wait()
        names.add(threading.current_thread().name)
        return "done"

    def fails() -> None:
        raise BackendError("no")

    assert await asyncio.gather(*(threads.run(work) for _ in range(6))) == ["done"] * 6
    assert names == {"few-1", "few-2"}
    assert threads.unanswered == 0
    with pytest.raises(BackendError, match="no"):
        await threads.run(fails)
    threads.close()


async def test_a_call_that_was_given_up_goes_on() -> None:
    threads, gate, ended = WorkerThreads(1, "one"), threading.Event(), threading.Event()

    def work() -> None:
        gate.wait(20)
        ended.set()

    future = threads.run(work)
    future.cancel()
    gate.set()
    await threads.run(lambda: None)
    assert ended.is_set()
    threads.close()


def test_a_call_that_outlives_its_loop_is_nobodys_trouble() -> None:
    threads, gate = WorkerThreads(1, "late"), threading.Event()

    async def begin() -> None:
        threads.run(lambda: gate.wait(20))

    asyncio.run(begin())
    gate.set()
    asyncio.run(_wait(lambda: threads.run(lambda: None)))
    threads.close()


async def _wait(start: Callable[[], asyncio.Future[None]]) -> None:
    await start()


def test_a_binding_that_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(libvirt_binding, "SYSTEM", str(tmp_path))
    monkeypatch.setitem(sys.modules, "libvirt", None)
    monkeypatch.setitem(sys.modules, "libvirtmod", None)
    with pytest.raises(SetupError, match="python3-libvirt"):
        libvirt_binding.binding()
    ((why, remedy),) = libvirt_probe.troubles(LibvirtVim(images=tmp_path))
    assert "python3-libvirt" in why
    assert remedy == "apt install python3-libvirt"


def test_what_the_doctor_finds(tmp_path: Path) -> None:
    try:
        libvirt_binding.binding()
    except SetupError as error:
        pytest.skip(str(error))
    nowhere = LibvirtVim(uri=f"qemu:///system?socket={tmp_path}/none", images=tmp_path)
    found = [*libvirt_probe.troubles(nowhere)]
    assert len(found) == 2
    assert "Failed to connect socket" in found[0][0]
    assert all(remedy for _, remedy in found)
    image(tmp_path, "kernel")
    fine = LibvirtVim(uri="test:///default", images=tmp_path, image="web")
    assert [*libvirt_probe.troubles(fine)] == []
