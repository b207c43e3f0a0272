"""Asking an application whether it lives, by way of the adapter that leads to the applications."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import Final

import aiohttp

from tof.errors import DecodeError
from tof.model import HealthCheck, IpAddress, ProbeKind
from tof.wire.icmp import Echo, decode_echo, echo_packet
from tof.wire.inet import ICMP, ICMPV6, decode_ipv4

_BAD_STATUS: Final = 400


class ProbeError(Exception):
    """The application did not answer; the text says how."""


async def probe(address: IpAddress, check: HealthCheck, port: int, device: str) -> None:
    """Ask once; ProbeError if there is no good answer in time."""
    asked = {ProbeKind.TCP: _tcp, ProbeKind.HTTP: _http, ProbeKind.ICMP: _icmp}[check.kind]
    try:
        async with asyncio.timeout(check.timeout_s):
            await asked(address, check, port, device)
    except TimeoutError:
        raise ProbeError(f"no answer within {check.timeout_s:g} s") from None
    except OSError as error:
        raise ProbeError(os.strerror(error.errno) if error.errno else str(error)) from error
    except aiohttp.ClientError as error:
        raise ProbeError(str(error) or "no HTTP answer") from error


async def _tcp(address: IpAddress, _check: HealthCheck, port: int, device: str) -> None:
    with _socket(address, socket.SOCK_STREAM, 0, device) as connection:
        await asyncio.get_running_loop().sock_connect(connection, (str(address), port))


async def _http(address: IpAddress, check: HealthCheck, port: int, device: str) -> None:
    host = f"[{address}]" if address.version == 6 else str(address)
    connector = aiohttp.TCPConnector(
        socket_factory=lambda info: _socket(address, info[1], info[2], device), force_close=True
    )
    async with aiohttp.ClientSession(connector=connector) as session:
        url = f"http://{host}:{port}{check.path}"
        async with session.get(url, allow_redirects=False) as answer:
            if answer.status >= _BAD_STATUS:
                raise ProbeError(f"HTTP status {answer.status}")


async def _icmp(address: IpAddress, _check: HealthCheck, _port: int, device: str) -> None:
    protocol = ICMP if address.version == 4 else ICMPV6
    loop, token = asyncio.get_running_loop(), os.urandom(8)
    with _socket(address, socket.SOCK_RAW, protocol, device) as raw:
        request = Echo(int.from_bytes(token[:2], "big"), 1, token)
        whole = echo_packet(address.packed, address.packed, request)
        segment = (
            whole[20:] if address.version == 4 else whole[40:]
        )  # the kernel makes the header, and ICMPv6's checksum
        await loop.sock_sendto(raw, segment, (str(address), 0))
        while True:
            data = await loop.sock_recv(raw, 2048)
            if _answers(data, protocol, token):
                return


def _answers(data: bytes, protocol: int, token: bytes) -> bool:
    try:
        echo = decode_echo(protocol, decode_ipv4(data).payload if protocol == ICMP else data)
    except DecodeError:
        return False
    return echo.reply and echo.payload == token


def _socket(address: IpAddress, kind: int, protocol: int, device: str) -> socket.socket:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    made = socket.socket(family, kind, protocol)
    made.setblocking(False)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
    return made
