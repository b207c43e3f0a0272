"""Nomad and OpenVIM: a failure, a cancellation, a kill at every single call leaves a whole app, or nothing of it."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from remote_vims import BACK_ENDS, KEY, BackEnd
from vim_trouble import AFTER, BEFORE, REFUSALS, Trouble

from tof.vim.errors import AuthFailed, BackendFault, TimedOut, Unavailable, VimError
from tof.vim.interface import Instance, InstanceState
from tof.vim.remote import RemoteVim

ANSWER_S = 1.5
KINDS: dict[str, type[VimError]] = {"auth": AuthFailed, "reset": Unavailable, "hang": TimedOut}
TROUBLES = [
    ("reset", BEFORE),
    ("reset", AFTER),
    ("reset", "late"),
    ("hang", BEFORE),
    ("hang", AFTER),
    ("fault", AFTER),
]
TROUBLES += [(how, BEFORE) for how in REFUSALS] + [("garbage", AFTER)]
AT_ONCE = 24

back_ends = pytest.mark.parametrize("name", BACK_ENDS)


def soon(seconds: float = 20) -> float:
    return asyncio.get_running_loop().time() + seconds


async def created(vim: RemoteVim, back_end: BackEnd) -> Instance:
    return await vim.create(back_end.spec, key=KEY, deadline=soon())


async def calls_of(back_end: BackEnd, *, deleting: bool = False) -> list[str]:
    """What is asked when nothing goes wrong."""
    async with back_end.running() as (server, url):
        async with contextlib.aclosing(back_end.vim(url)) as vim:
            await created(vim, back_end)
            if deleting:
                server.trouble = Trouble()
                await vim.delete(KEY, deadline=soon())
        return list(server.trouble.calls)


async def all_of(one: Callable[..., Awaitable[None]], count: int, *, troubled: bool = False) -> None:
    """``one`` for each call, with each trouble, many at once."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def gated(at: int, *how: str) -> None:
        async with gate:
            await one(at, *how)

    assert count > 3
    each = TROUBLES if troubled else [()]
    await asyncio.gather(*(gated(at, *how) for at in range(1, count + 1) for how in each))


async def gone(server: Any, trouble: Trouble | None = None) -> None:
    """What was done late has been done, and nothing is left."""
    await asyncio.gather(*server.later)
    assert server.left == [], trouble or server.trouble


@back_ends
async def test_trouble_at_any_call_of_create(name: str) -> None:
    back_end = BACK_ENDS[name]

    async def one(at: int, how: str, when: str) -> None:
        async with back_end.running() as (server, url):
            server.trouble = trouble = Trouble(at, how, when)
            async with contextlib.aclosing(back_end.vim(url, ANSWER_S)) as vim:
                (outcome,) = await asyncio.gather(created(vim, back_end), return_exceptions=True)
                server.trouble = Trouble()
                if isinstance(outcome, VimError):
                    assert isinstance(outcome, KINDS.get(how, BackendFault)), (
                        trouble.name,
                        how,
                        when,
                        outcome,
                    )
                    assert ": " in outcome.message
                    assert outcome.remedy
                    await gone(server, trouble)
                    return
                assert isinstance(outcome, Instance), (trouble.name, how, when, outcome)
                assert outcome.state is InstanceState.ACTIVE, "what had become of the request was found out"
                await vim.delete(KEY, deadline=soon())
                await gone(server, trouble)

    await all_of(one, len(await calls_of(back_end)), troubled=True)


@back_ends
async def test_trouble_at_any_call_of_delete(name: str) -> None:
    back_end = BACK_ENDS[name]

    async def one(at: int, how: str, when: str) -> None:
        async with (
            back_end.running() as (server, url),
            contextlib.aclosing(back_end.vim(url, ANSWER_S)) as vim,
        ):
            async with contextlib.aclosing(back_end.vim(url)) as patient:
                await created(patient, back_end)
            server.trouble = Trouble(at, how, when)
            with contextlib.suppress(AuthFailed):  # which trying again does not cure; everything else it does
                await vim.delete(KEY, deadline=soon())
            await vim.delete(KEY, deadline=soon())
            await gone(server)

    await all_of(one, len(await calls_of(back_end, deleting=True)), troubled=True)


@back_ends
@pytest.mark.parametrize("when", [BEFORE, AFTER])
async def test_cancelled_at_any_call(name: str, when: str) -> None:
    back_end = BACK_ENDS[name]

    async def one(at: int) -> None:
        async with back_end.running() as (server, url), contextlib.aclosing(back_end.vim(url)) as vim:
            task = asyncio.ensure_future(created(vim, back_end))
            server.trouble = trouble = Trouble(at, when=when, told=task.cancel)
            (outcome,) = await asyncio.gather(task, return_exceptions=True)
            server.trouble = Trouble()
            if isinstance(outcome, Instance):  # it took one call less than usual
                await vim.delete(KEY, deadline=soon())
            else:
                assert isinstance(outcome, asyncio.CancelledError), (trouble.name, outcome)
            await gone(server, trouble)

    await all_of(one, len(await calls_of(back_end)))


@back_ends
async def test_a_deadline_at_any_moment(name: str) -> None:
    back_end = BACK_ENDS[name]

    async def one(at: int) -> None:
        async with back_end.running() as (server, url), contextlib.aclosing(back_end.vim(url)) as vim:
            made = vim.create(back_end.spec, key=KEY, deadline=soon(0.004 * at))
            (outcome,) = await asyncio.gather(made, return_exceptions=True)
            if not isinstance(outcome, Instance):
                assert isinstance(outcome, TimedOut)
                await gone(server)

    await all_of(one, 20)


@back_ends
@pytest.mark.parametrize("then", ["made again", "removed"])
async def test_killed_at_any_call(name: str, then: str) -> None:
    back_end = BACK_ENDS[name]

    async def one(at: int) -> None:
        async with back_end.running() as (server, url):
            client = Path(__file__).with_name("killed_client.py")
            process = await asyncio.create_subprocess_exec(sys.executable, str(client), name, url)
            server.trouble = trouble = Trouble(at, "hang", AFTER, told=process.kill)
            await process.wait()
            server.trouble = Trouble()
            vim, left = back_end.vim(url), server.left
            listed = [one.key for one in await vim.list()]
            assert listed == ([KEY] if left else []), trouble.name
            if then == "made again":
                made = await created(vim, back_end)
                assert (made.state, made.key) == (InstanceState.ACTIVE, KEY)
                assert len(await vim.list()) == 1
                whole = sorted(server.left)
                assert (await created(vim, back_end)).backend_id == made.backend_id
                assert sorted(server.left) == whole
            await vim.delete(KEY, deadline=soon())
            await gone(server)
            await vim.aclose()

    await all_of(one, len(await calls_of(back_end)))


@back_ends
async def test_a_vim_that_is_down(name: str) -> None:
    back_end = BACK_ENDS[name]
    async with back_end.running() as (_, url):
        pass
    vim = back_end.vim(url)
    for ask in (created(vim, back_end), vim.get(KEY), vim.list()):
        with pytest.raises(Unavailable) as caught:
            await ask
        assert url in caught.value.message
    with pytest.raises(VimError, match="cannot remove"):
        await vim.delete(KEY, deadline=soon(1))
    await vim.aclose()


@back_ends
async def test_a_vim_that_goes_down_in_the_middle(name: str) -> None:
    """What cannot be removed is told, besides what went wrong; it is removed once the VIM is back."""
    back_end = BACK_ENDS[name]
    async with back_end.running() as (server, url), contextlib.aclosing(back_end.vim(url)) as vim:
        server.trouble = Trouble(len(await calls_of(back_end)) - 1, "gone")
        with pytest.raises(Unavailable, match=r"; cannot remove tof\.edge-7\.default\.web: ") as caught:
            await created(vim, back_end)
        assert caught.value.remedy
        server.trouble = Trouble()
        assert [one.key for one in await vim.list()] == [KEY]
        await vim.delete(KEY, deadline=soon())
        await gone(server)
