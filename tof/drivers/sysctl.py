"""Sysctls of the caller's network namespace."""

from __future__ import annotations

from pathlib import Path

from tof.errors import BackendError

_ROOT = Path("/proc/sys")


def read(path: str) -> str | None:
    """The value of ``net/bridge/...``, None when this kernel has no such setting."""
    try:
        return (_ROOT / path).read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return None


def write(path: str, value: str) -> bool:
    """Set a value unless it is set already; False when this kernel has no such setting."""
    have = read(path)
    if have is None:
        return False
    if have != value:
        try:
            (_ROOT / path).write_text(value, encoding="ascii")
        except OSError as error:
            raise BackendError(f"cannot set {path} to {value}: {error.strerror}") from error
    return True


def no_ipv6(device: str) -> str:
    """Path of the switch that keeps IPv6 off a device."""
    return f"net/ipv6/conf/{device}/disable_ipv6"
