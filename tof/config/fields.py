"""How single settings are read from TOML values; every refusal names the path."""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path
from typing import Any, NoReturn, TypeVar
from urllib.parse import urlsplit

from tof.config.settings import Collector, IpInterface, IpNetwork, TcpListen, UnixListen
from tof.errors import SetupError
from tof.model import IpAddress

T = TypeVar("T")
Parser = Callable[[object, str], T]


class Table:
    """A TOML table being read: hands out keys once, refuses what is left over."""

    def __init__(self, path: str, data: dict[str, Any]) -> None:
        self._path = path
        self._rest = dict(data)

    def take(self, key: str, parser: Parser[T], default: T | None = None) -> T:
        """Parse and remove a key; without a default it is required."""
        path = self.path_of(key)
        if key in self._rest:
            return parser(self._rest.pop(key), path)
        if default is None:
            refuse(path, "missing")
        return default

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys that were not taken yet."""
        return tuple(self._rest)

    def table(self, key: str) -> Table:
        """Remove and open a sub-table; a missing one is empty."""
        path = self.path_of(key)
        data = self._rest.pop(key, {})
        if not isinstance(data, dict):
            refuse(path, "expected a table")
        return Table(path, data)

    def done(self) -> None:
        """Refuse whatever was not taken."""
        for key in self._rest:
            refuse(self.path_of(key), "unknown key")

    def path_of(self, key: str) -> str:
        """How a key is named in a refusal."""
        return f"{self._path}.{key}" if self._path else key


def refuse(path: str, why: str) -> NoReturn:
    """Raise the one-line SetupError for a path."""
    raise SetupError(f"{path}: {why}")


def text_of(value: object, path: str) -> str:
    """A string."""
    if not isinstance(value, str):
        refuse(path, f"expected a string, not {value!r}")
    return value


def pattern(regex: str, meaning: str) -> Parser[str]:
    """Parser of a string that matches ``regex`` as a whole; ``meaning`` says it in words."""

    def parse_pattern(value: object, path: str) -> str:
        text = text_of(value, path)
        return text if re.fullmatch(regex, text) else refuse(path, f"expected {meaning}, not {text!r}")

    return parse_pattern


def choice(*options: str) -> Parser[str]:
    """Parser of one of the given words."""
    return pattern("|".join(options), " or ".join(options))


_interface_text = pattern(r"[A-Za-z0-9_.@-]{1,15}", "an interface name of at most 15 characters")


def interface(value: object, path: str) -> str:
    """A network interface name the kernel would take."""
    name = _interface_text(value, path)
    return refuse(path, "not an interface name") if name in (".", "..", "lo", "all", "default") else name


def whole(low: int, high: int) -> Parser[int]:
    """Parser of a whole number in a range."""

    def parse_whole(value: object, path: str) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            refuse(path, f"expected a whole number from {low} to {high}, not {value!r}")
        return value

    return parse_whole


def number(low: float, high: float) -> Parser[float]:
    """Parser of a number in a range."""

    def parse_number(value: object, path: str) -> float:
        if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value <= high:
            refuse(path, f"expected a number from {low:g} to {high:g}, not {value!r}")
        return float(value)

    return parse_number


def listed(parser: Parser[T]) -> Parser[tuple[T, ...]]:
    """Accept one value or a list of values, without doubles."""

    def parse_listed(value: object, path: str) -> tuple[T, ...]:
        if not isinstance(value, list):
            return (parser(value, path),)
        parsed = tuple(parser(item, f"{path}[{index}]") for index, item in enumerate(value))
        for index, item in enumerate(parsed):
            if item in parsed[:index]:
                refuse(f"{path}[{index}]", f"{value[index]} is given twice")
        return parsed

    return parse_listed


def several(parser: Parser[T]) -> Parser[tuple[T, ...]]:
    """Parser of one value or a list of at least one, without doubles."""
    read = listed(parser)

    def parse_several(value: object, path: str) -> tuple[T, ...]:
        return read(value, path) or refuse(path, "must not be empty")

    return parse_several


def optional(parser: Parser[tuple[T, ...]]) -> Parser[tuple[T, ...]]:
    """Parser that takes an empty string or list for nothing."""

    def parse_optional(value: object, path: str) -> tuple[T, ...]:
        return () if value in ("", []) else parser(value, path)

    return parse_optional


def network(value: object, path: str) -> IpNetwork:
    """An IP prefix or address."""
    text = text_of(value, path)
    try:
        return ip_network(text)
    except ValueError as error:
        raise SetupError(f"{path}: expected an address or prefix without host bits, not {text!r}") from error


def unicast(value: object, path: str) -> IpAddress:
    """An IP address that a host elsewhere can have."""
    text = text_of(value, path)
    try:
        address = ip_address(text)
    except ValueError as error:
        raise SetupError(f"{path}: expected an IP address, not {text!r}") from error
    if address.is_multicast or address.is_loopback or address.is_unspecified or address.is_link_local:
        refuse(path, f"expected a global unicast address, not {text!r}")
    return address


def host_interface(value: object, path: str) -> IpInterface:
    """A host address with its prefix length."""
    text = text_of(value, path)
    try:
        address = ip_interface(text)
    except ValueError as error:
        raise SetupError(f"{path}: expected ADDRESS/PREFIX, not {text!r}") from error
    unicast(str(address.ip), path)
    wide = address.network.num_addresses > 2
    if "/" not in text or (wide and address.ip in (address.network[0], address.network.broadcast_address)):
        refuse(path, f"expected a host's ADDRESS/PREFIX, not {text!r}")
    return address


def directory(value: object, path: str) -> Path:
    """An absolute path."""
    text = text_of(value, path)
    if not text.startswith("/") or "\0" in text:
        refuse(path, f"expected an absolute path, not {text!r}")
    return Path(text)


def maybe(parser: Parser[T]) -> Parser[tuple[T, ...]]:
    """Parser of one value, or none for an empty string."""

    def parse_maybe(value: object, path: str) -> tuple[T, ...]:
        return () if value == "" else (parser(value, path),)

    return parse_maybe


def collector(value: object, path: str) -> Collector:
    """Where datagrams go: udp://HOST:PORT."""
    text = text_of(value, path)
    host, port = _split_url(text, path, "udp", "udp://host:port")
    if port == 0:
        refuse(path, "port 0 is nowhere")
    return Collector(host, port)


def ovs(value: object, path: str) -> str:
    """Which Open vSwitch: private, system, or the database socket of another."""
    return pattern(r"private|system|unix:/[^\0]+", "private, system or unix:/path")(value, path)


def listen(value: object, path: str) -> UnixListen | TcpListen:
    """Where the API listens: a Unix socket or plain HTTP on loopback."""
    text = text_of(value, path)
    if re.fullmatch(r"unix:/[^\0]{1,100}", text):
        return UnixListen(text.removeprefix("unix:"))
    host, port = _split_url(text, path, "http", "unix:/path or http://loopback:port")
    if host != "localhost" and not _is_loopback(host):
        refuse(path, f"{host} is not a loopback address; put a proxy with TLS and authentication in front")
    return TcpListen(host, port)


def _split_url(text: str, path: str, scheme: str, form: str) -> tuple[str, int]:
    why = f"expected {form}, not {text!r}"
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError as error:
        raise SetupError(f"{path}: {why}") from error
    if url.scheme != scheme or not url.hostname or port is None or text != f"{scheme}://{url.netloc}":
        refuse(path, why)
    return url.hostname, port


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
