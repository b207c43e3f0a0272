"""A server on a real socket that answers one request, by its number, in some wrong way."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

REFUSALS = {
    "auth": (403, "Permission denied"),
    "fault": (500, "something broke"),
    "garbage": (200, '{"index": 1, "tru'),
    "list": (200, "[1]"),
    "null": (200, "null"),
    "strange": (200, '{"servers": [{}], "server": {}, "Meta": 3}'),
    "page": (200, "<html>a portal</html>"),
}
"""Answers that are given instead of the right one."""
BEFORE, AFTER = "before", "after"
"""Whether what was asked for is done, too. ``late``: it is done when the client has long gone."""


@dataclass
class Trouble:
    """What happens to the request number ``at``, and only to it; ``gone``: to all that come later, too."""

    at: int = 0
    how: str = ""
    when: str = BEFORE
    told: Callable[[], None] = lambda: None
    """Called when that request comes, or has been done."""
    calls: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.calls[self.at - 1] if 0 < self.at <= len(self.calls) else "nothing"


class TroubledServer:
    """The middleware of a stateful server."""

    def __init__(self) -> None:
        self.trouble = Trouble()
        self.closing = asyncio.Event()
        self.later: set[asyncio.Task[web.StreamResponse]] = set()

    def application(self) -> web.Application:
        raise NotImplementedError

    @asynccontextmanager
    async def running(self, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
        """Its URL."""
        runner = web.AppRunner(self.application(), access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
        await site.start()
        try:
            yield f"http{'s' if tls else ''}://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            self.closing.set()
            await asyncio.gather(*self.later)
            await runner.cleanup()

    def middleware(self) -> Callable[[web.Request, Handler], Awaitable[web.StreamResponse]]:
        @web.middleware
        async def troubled(request: web.Request, handler: Handler) -> web.StreamResponse:
            trouble = self.trouble
            trouble.calls.append(f"{request.method} {request.path_qs}")
            if trouble.how == "gone" and len(trouble.calls) >= trouble.at and request.transport is not None:
                request.transport.abort()  # for good
                return web.Response()
            if len(trouble.calls) != trouble.at:
                return await handler(request)
            await request.read()
            return await self._wrong(request, handler, trouble)

        return troubled

    async def _wrong(self, request: web.Request, handler: Handler, trouble: Trouble) -> web.StreamResponse:
        right: web.StreamResponse | None = None
        if trouble.when == AFTER:
            right = await handler(request)
        elif trouble.when == "late":
            self.later.add(asyncio.ensure_future(_later(request, handler)))
        trouble.told()
        if trouble.how in REFUSALS:
            status, text = REFUSALS[trouble.how]
            return web.Response(status=status, text=text)
        if trouble.how == "reset" and request.transport is not None:
            request.transport.abort()
        elif trouble.how == "hang":
            await self.closing.wait()
        elif right is None:
            return await handler(request)
        return right or web.Response()


async def _later(request: web.Request, handler: Handler) -> web.StreamResponse:
    await asyncio.sleep(0.05)
    return await handler(request)
