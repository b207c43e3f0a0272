"""A client of the API for the command line: a Unix socket or a URL, problems as the TOF's own errors."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any

import aiohttp
from yarl import URL

from tof.errors import BackendError, BadRequest, Conflict, NotFound, SetupError, TofError

DEFAULT_ADDRESSES = ("unix:/run/tof/api.sock", "http://127.0.0.1:8080")
# A change waits until it is in force; the agent answers 503 long before this.
TIMEOUT = aiohttp.ClientTimeout(total=60, sock_connect=5)
ERRORS = {error.status: error for error in (BadRequest, NotFound, Conflict)}


class ApiClient:
    """Calls to one agent; every method returns the parsed body or raises what the agent's problem means."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def get(self, path: str, params: Mapping[str, str] | None = None) -> Any:
        """GET ``path``."""
        return await self._call("GET", path, params=params)

    async def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """POST ``body`` to ``path``."""
        return await self._call("POST", path, json=body)

    async def put(self, path: str, body: Mapping[str, Any]) -> Any:
        """PUT ``body`` to ``path``."""
        return await self._call("PUT", path, json=body)

    async def delete(self, path: str) -> None:
        """DELETE ``path``."""
        await self._call("DELETE", path)

    async def _call(self, method: str, path: str, **more: Any) -> Any:
        try:
            async with self._session.request(method, URL(path, encoded=True), **more) as response:
                return _result(response.status, response.content_type, await response.read())
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise BackendError(f"the agent broke off: {error or type(error).__name__}") from error


@asynccontextmanager
async def connect(addresses: Sequence[str] = DEFAULT_ADDRESSES) -> AsyncIterator[ApiClient]:
    """A client of the first of ``addresses`` that answers; BackendError if none does."""
    for address in addresses:
        base, socket_path = parse_address(address)
        if await _answers(base, socket_path):
            connector = aiohttp.UnixConnector(socket_path) if socket_path else None
            async with aiohttp.ClientSession(base, connector=connector, timeout=TIMEOUT) as session:
                yield ApiClient(session)
            return
    places = " or ".join(addresses)
    raise BackendError(f"no agent answers at {places}: start one with `tof agent`, or say where with --api")


def parse_address(address: str) -> tuple[URL, str | None]:
    """The base URL and, for ``unix:PATH``, the socket's path; SetupError (usage) for anything else."""
    if address.startswith("unix:") and address != "unix:":
        return URL("http://localhost/"), address.removeprefix("unix:")
    try:
        url = URL(address)
    except ValueError as error:
        raise SetupError(f"--api {address}: {error}") from error
    if url.scheme not in ("http", "https") or not url.host:
        raise SetupError(f"--api {address!r} is neither unix:PATH nor http://HOST:PORT")
    return url.origin(), None


async def _answers(base: URL, socket_path: str | None) -> bool:
    try:
        async with asyncio.timeout(5):
            if socket_path:
                _, writer = await asyncio.open_unix_connection(socket_path)
            else:
                _, writer = await asyncio.open_connection(base.host, base.port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True


def _result(status: int, content_type: str, raw: bytes) -> Any:
    good = status in (HTTPStatus.OK, HTTPStatus.CREATED, HTTPStatus.ACCEPTED)
    if good and content_type == "application/json":
        return json.loads(raw)
    if good:
        return raw.decode()
    raise _error(status, content_type, raw)


def _error(status: int, content_type: str, raw: bytes) -> TofError:
    if content_type != "application/problem+json":
        return BackendError(f"the agent answered {status}")
    detail = str(json.loads(raw).get("detail", status))
    return ERRORS[status](detail) if status in ERRORS else BackendError(detail)
