"""The ``local`` VIM on a real host: namespaces, bubblewrap, control groups."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from netns_helper import MakeNetns
from vim_host import KEY, Fault, VimHost, spec, vim_host

from tof.errors import BackendError
from tof.vim.errors import BackendFault, VimError
from tof.vim.interface import Instance, InstanceState

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
        await vim.delete(KEY, deadline=soon())
        assert await vim.get(KEY) is None
        return made

    made = host.run(life())
    print(made)
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
