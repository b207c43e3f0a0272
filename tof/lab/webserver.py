"""Laboratory: a server that says its own name: HTTP up and down in bulk, TCP and UDP echo."""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import re
from typing import cast

from aiohttp import web

MEGABYTE = 1_000_000
ECHO_PORT = 7
_BLOCK = b"".join(hashlib.sha256(str(count).encode()).digest() for count in range(MEGABYTE // 32))


def content_digest(megabytes: int) -> str:
    """SHA-256 of what ``/<n>MB`` answers."""
    digest = hashlib.sha256()
    for _ in range(megabytes):
        digest.update(_BLOCK)
    return digest.hexdigest()


def write_content(path: str, megabytes: int) -> None:
    """Write what ``/<n>MB`` answers into a file, for uploads."""
    with open(path, "wb") as file:
        for _ in range(megabytes):
            file.write(_BLOCK)


class _UdpEcho(asyncio.DatagramProtocol):
    """Answers each datagram with the server's name in front."""

    def __init__(self, name: str) -> None:
        self.name = name.encode()
        self.transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way to answer."""
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Echo."""
        if self.transport is not None:
            self.transport.sendto(self.name + b": " + data, addr)


def application(name: str) -> web.Application:
    """``GET /``: the name; ``GET /<n>MB``: bulk; ``PUT|POST``: name, size and SHA-256 of the body."""

    async def hello(request: web.Request) -> web.Response:
        return web.Response(text=f"{name}\n", headers={"X-Client": request.remote or ""})

    async def bulk(request: web.Request) -> web.StreamResponse:
        megabytes = int(request.match_info["megabytes"])
        response = web.StreamResponse(headers={"X-Server": name})
        response.content_length = megabytes * MEGABYTE
        await response.prepare(request)
        for _ in range(megabytes):
            await response.write(_BLOCK)
        return response

    async def receive(request: web.Request) -> web.Response:
        digest, size = hashlib.sha256(), 0
        async for chunk in request.content.iter_chunked(1 << 16):
            digest.update(chunk)
            size += len(chunk)
        return web.Response(text=f"{name} {size} {digest.hexdigest()}\n")

    app = web.Application()
    app.router.add_get(r"/{megabytes:\d+}MB", bulk)
    app.router.add_get("/{path:.*}", hello)
    for method in ("PUT", "POST"):
        app.router.add_route(method, "/{path:.*}", receive)
    return app


async def serve(name: str, addresses: list[str]) -> None:
    """Serve HTTP on port 80 and echo on port 7 of each address until cancelled."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(name.encode() + b": " + line)
            await writer.drain()
        writer.close()

    runner = web.AppRunner(application(name), access_log=None)
    await runner.setup()
    loop = asyncio.get_running_loop()
    for address in addresses:
        await web.TCPSite(runner, address, 80).start()
        await asyncio.start_server(echo, address, ECHO_PORT)
        await loop.create_datagram_endpoint(lambda: _UdpEcho(name), (address, ECHO_PORT))
    print("serving", flush=True)
    await asyncio.Event().wait()


def main() -> None:
    """Command line: ``python -m tof.lab.webserver NAME ADDRESS...``."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("name", type=lambda text: re.sub(r"[^\w-]", "", text))
    parser.add_argument("addresses", nargs="+")
    options = parser.parse_args()
    asyncio.run(serve(options.name, options.addresses))


if __name__ == "__main__":
    main()
