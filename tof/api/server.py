"""Listening: Unix sockets and loopback ports, nothing else without TLS and authentication."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from ipaddress import ip_address
from pathlib import Path

from aiohttp import web
from yarl import URL

from tof.errors import SetupError

SHUTDOWN_TIMEOUT_S = 5.0
SOCKET_MODE = 0o660


@asynccontextmanager
async def serve(app: web.Application, listen: Sequence[str]) -> AsyncIterator[tuple[str, ...]]:
    """Serve ``app`` at every address of ``listen`` while the context lasts; yields the addresses bound."""
    parsed = [parse_listen(address) for address in listen]
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_TIMEOUT_S)
    async with AsyncExitStack() as stack:
        # The sockets first: what is entered first outlives the runner that accepts from them.
        sockets = [stack.enter_context(_listening(address)) for address in parsed]
        bound = tuple(_name(sock) for sock in sockets)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        for sock in sockets:
            await web.SockSite(runner, sock).start()
        yield bound


def parse_listen(address: str) -> Path | tuple[str, int]:
    """A socket's path, or a loopback address and port; SetupError for anything else."""
    if address.startswith("unix:"):
        path = Path(address.removeprefix("unix:"))
        if not path.is_absolute():
            raise SetupError(f"api.listen: {address} is not unix: and an absolute path")
        return path
    try:
        url = URL(address)
        host, port = url.host, url.port
    except ValueError as error:
        raise SetupError(f"api.listen: {address}: {error}") from error
    if url.scheme != "http" or host is None or port is None or url.path not in ("", "/"):
        raise SetupError(f"api.listen: {address} is neither unix:/path nor http://ADDRESS:PORT")
    return _loopback(address, host), port


def _loopback(address: str, host: str) -> str:
    if host == "localhost":
        return "127.0.0.1"
    try:
        loopback = ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise SetupError(
            f"api.listen: {address} is not a loopback address; TLS and authentication are required there "
            "and not configured: listen on unix:/path or http://127.0.0.1:PORT"
        )
    return host


@contextmanager
def _listening(address: Path | tuple[str, int]) -> Iterator[socket.socket]:
    try:
        sock = _bind_unix(address) if isinstance(address, Path) else _bind_tcp(*address)
    except OSError as error:
        where = address if isinstance(address, Path) else f"{address[0]}:{address[1]}"
        raise SetupError(f"api.listen: cannot listen on {where}: {error.strerror or error}") from error
    inode = os.stat(address).st_ino if isinstance(address, Path) else None
    try:
        yield sock
    finally:
        sock.close()
        if isinstance(address, Path):
            _remove(address, inode)


def _bind_tcp(host: str, port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
    except OSError:
        sock.close()
        raise
    return sock


def _bind_unix(path: Path) -> socket.socket:
    _remove_stale(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    sock = socket.socket(socket.AF_UNIX)
    try:
        # Closed from the first moment, then opened: the umask is never wider than the mode.
        os.fchmod(sock.fileno(), 0o600)
        sock.bind(str(path))
        path.chmod(SOCKET_MODE)
    except OSError:
        sock.close()
        raise
    return sock


def _remove_stale(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise SetupError(f"api.listen: {path} exists and is not a socket: remove it or choose another path")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except BlockingIOError:
            pass
    raise SetupError(f"api.listen: something already answers at {path}: is another agent running?")


def _remove(path: Path, inode: int | None) -> None:
    # Another agent may have put its own socket there since.
    try:
        if path.lstat().st_ino == inode:
            path.unlink()
    except FileNotFoundError:
        return


def _name(sock: socket.socket) -> str:
    name = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        return f"unix:{name}"
    host = f"[{name[0]}]" if sock.family == socket.AF_INET6 else name[0]
    return f"http://{host}:{name[1]}"
