"""A few threads for a library whose calls wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeVar

T = TypeVar("T")
_Job = tuple[asyncio.AbstractEventLoop, "asyncio.Future[Any]", Callable[[], Any]]


class WorkerThreads:
    """Started as they are needed; a call that never returns does not keep the process from ending.

    That is why this is no ThreadPoolExecutor, which joins its threads at exit.
    """

    def __init__(self, most: int, name: str) -> None:
        self._most, self._name, self._started = most, name, 0
        self.unanswered = 0
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()

    def run(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """What ``work`` returns or raises, from one of the threads; it goes on if nobody waits any more."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self.unanswered += 1
        if self._started < min(self._most, self.unanswered):
            self._started += 1
            Thread(target=self._serve, name=f"{self._name}-{self._started}", daemon=True).start()
        self._jobs.put((loop, future, work))
        return future

    def close(self) -> None:
        """Let the threads end once they have done what was begun."""
        for _ in range(self._started):
            self._jobs.put(None)
        self._started = 0

    def _serve(self) -> None:
        while True:
            job = self._jobs.get()
            if job is None:
                return
            loop, future, work = job
            try:
                result, error = work(), None
            except BaseException as caught:
                result, error = None, caught
            with suppress(RuntimeError):  # the loop was closed meanwhile
                loop.call_soon_threadsafe(self._settle, future, result, error)

    def _settle(self, future: asyncio.Future[Any], result: object, error: BaseException | None) -> None:
        self.unanswered -= 1
        if future.done():
            return
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)
