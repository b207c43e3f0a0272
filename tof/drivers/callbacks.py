"""Posting to addresses that others gave: only where that is permitted, once the name has been resolved."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv6Address, ip_address
from types import TracebackType
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver

from tof.config import IpNetwork
from tof.errors import BackendError, BadRequest

if TYPE_CHECKING:
    from aiohttp.abc import ResolveResult

TIMEOUT_S = 5.0
MOST_CONNECTIONS = 64
"""One for each subscriber there may be: none waits for another."""
RESOLVING = 4
FIELD = "callbackUri"


class Callbacks:
    """Posts JSON; an async context manager that owns the connections."""

    def __init__(self, permitted: Iterable[IpNetwork]) -> None:
        self._permitted = tuple(permitted)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Callbacks:
        # No proxy, no cookies: whoever gave the address gets the notification and nothing else.
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                resolver=_Permitted(self._permits), limit=MOST_CONNECTIONS, use_dns_cache=False
            ),
            timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._session is not None
        await self._session.close()

    def check(self, uri: str) -> None:
        """BadRequest unless it is an address that may be posted to; a name's addresses are looked at when it is used."""
        try:
            parts = urlsplit(uri)
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise BadRequest(f"{FIELD}: {error}", FIELD) from error
        if parts.scheme not in ("http", "https") or not host or port == 0:
            raise BadRequest(f"{FIELD} is not http://HOST[:PORT]/... or https://...", FIELD)
        if parts.username is not None or parts.fragment or not uri.isascii() or not uri.isprintable():
            raise BadRequest(f"{FIELD} has a user, a fragment, or signs that no address has", FIELD)
        if not self._permits_host(host):
            raise BadRequest(f"{FIELD}: {_refusal(host)}", FIELD)

    async def post(self, uri: str, body: Mapping[str, object]) -> None:
        """Have it accepted (2xx) there; BackendError otherwise."""
        assert self._session is not None
        host = urlsplit(uri).hostname or ""
        if not self._permits_host(host):  # it may have been when it was given
            raise BackendError(_refusal(host))
        try:
            async with self._session.post(uri, json=body, allow_redirects=False) as response:
                if not response.ok or response.status >= 300:
                    raise BackendError(f"{uri} answers {response.status}")
        except TimeoutError as error:
            raise BackendError(f"{uri} does not answer within {TIMEOUT_S:g} s") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise BackendError(f"{uri}: {error}") from error

    def _permits_host(self, host: str) -> bool:
        try:
            ip_address(host)
        except ValueError:
            return True  # a name
        return self._permits(host)

    def _permits(self, address: str) -> bool:
        found = ip_address(address)
        if isinstance(found, IPv6Address) and found.ipv4_mapped is not None:
            found = found.ipv4_mapped
        return any(found in network for network in self._permitted)


class _Permitted(AbstractResolver):
    """The system's resolver, of whose answers only what may be posted to is given."""

    def __init__(self, permits: Callable[[str], bool]) -> None:
        self._permits = permits
        # Threads of its own: names that hang hold up nothing but callbacks.
        self._threads = ThreadPoolExecutor(RESOLVING, thread_name_prefix="tof-callbacks")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        found = await asyncio.get_running_loop().run_in_executor(self._threads, _addresses, host, port)
        permitted = [(kind, at) for kind, at in found if self._permits(at)]
        if not permitted:
            raise OSError(errno.EACCES, _refusal(host))
        flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
        return [
            {"hostname": host, "host": at, "port": port, "family": kind, "proto": 0, "flags": flags}
            for kind, at in permitted
        ]

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


def _addresses(host: str, port: int) -> list[tuple[socket.AddressFamily, str]]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    return [(kind, str(at[0])) for kind, *_, at in found]


def _refusal(host: str) -> str:
    return f"{host} is at no address that callbacks may go to: see [app_lcm] callbacks in the configuration"
