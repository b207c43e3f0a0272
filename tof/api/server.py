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

from tof.config import TcpListen, UnixListen
from tof.errors import SetupError

SHUTDOWN_TIMEOUT_S = 5.0
# How long the rest of a refused body is read away, so that its sender sees the answer and no reset.
LINGERING_TIME_S = 2.0
SOCKET_MODE = 0o660

Listen = UnixListen | TcpListen


@asynccontextmanager
async def serve(app: web.Application, listen: Sequence[str | Listen]) -> AsyncIterator[tuple[str, ...]]:
    """Serve ``app`` at every address of ``listen`` while the context lasts; yields the addresses bound."""
    parsed = [parse_listen(a) if isinstance(a, str) else a for a in listen]
    runner = web.AppRunner(
        app,
        access_log=None,
        auto_decompress=False,
        lingering_time=LINGERING_TIME_S,
        shutdown_timeout=SHUTDOWN_TIMEOUT_S,
    )
    async with AsyncExitStack() as stack:
        # The sockets first: what is entered first outlives the runner that accepts from them.
        sockets = [stack.enter_context(_listening(address)) for address in parsed]
        bound = tuple(_name(sock) for sock in sockets)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        for sock in sockets:
            await web.SockSite(runner, sock).start()
        yield bound


def parse_listen(address: str) -> Listen:
    """``unix:/path`` or ``http://LOOPBACK:PORT``; SetupError for anything else."""
    if address.startswith("unix:/"):
        return UnixListen(address.removeprefix("unix:"))
    try:
        url = URL(address)
        host, port = url.host, url.port
    except ValueError as error:
        raise SetupError(f"api.listen: {address}: {error}") from error
    if url.scheme != "http" or host is None or port is None or url.path not in ("", "/"):
        raise SetupError(f"api.listen: {address!r} is neither unix:/path nor http://ADDRESS:PORT")
    return TcpListen(host, port)


def _loopback(host: str) -> str:
    if host == "localhost":
        return "127.0.0.1"
    try:
        loopback = ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise SetupError(
            f"api.listen: {host} is not a loopback address; TLS and authentication are required there "
            "and not configured: listen on unix:/path or http://127.0.0.1:PORT"
        )
    return host


@contextmanager
def _listening(address: Listen) -> Iterator[socket.socket]:
    if isinstance(address, TcpListen):
        with _refusals_of(f"{address.host}:{address.port}"):
            sock = _bind_tcp(_loopback(address.host), address.port)
        with sock:
            yield sock
        return
    path = Path(address.path)
    with _refusals_of(address.path):
        sock = _bind_unix(path)
        inode = path.stat().st_ino
    try:
        with sock:
            yield sock
    finally:
        _remove(path, inode)


@contextmanager
def _refusals_of(where: str) -> Iterator[None]:
    try:
        yield
    except (OSError, OverflowError) as error:
        raise SetupError(f"api.listen: cannot listen on {where}: {error}") from error


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


def _remove(path: Path, inode: int) -> None:
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
