"""The file that tells the next agent which ports applications have had; it is in ``run_dir``, so no reboot survives it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from ipaddress import ip_address
from pathlib import Path
from typing import Any, NamedTuple

import structlog

from tof.config import Application
from tof.errors import BackendError

log = structlog.get_logger("tof.ports")


class Plugged(NamedTuple):
    """An application's port and its OpenFlow number; ``given``: by the configuration."""

    application: Application
    number: int
    given: bool


class PluggedFile:
    """All of it at once, or as it was before."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> list[Plugged]:
        """What was written last; nothing if that cannot be read."""
        try:
            return [_plugged(row) for row in json.loads(self._path.read_text())]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("what a former agent had plugged is not known", file=str(self._path), why=str(error))
            return []

    def write(self, ports: Iterable[Plugged]) -> None:
        """Exactly these; BackendError if the disk refuses."""
        fresh = self._path.with_suffix(".new")
        try:
            fresh.write_text(json.dumps([_row(port) for port in ports]))
            fresh.replace(self._path)
        except OSError as error:
            raise BackendError(f"{self._path}: {error.strerror}") from error


def _row(port: Plugged) -> dict[str, object]:
    application = port.application
    return {
        "name": application.name, "interface": application.interface, "mac": application.mac.hex(),
        "addresses": list(map(str, application.addresses)), "groups": application.security_groups,
        "port": port.number, "given": port.given,
    }  # fmt: skip


def _plugged(row: dict[str, Any]) -> Plugged:
    application = Application(
        row["name"], row["interface"], bytes.fromhex(row["mac"]), tuple(map(ip_address, row["addresses"])),
        tuple(row["groups"]),
    )  # fmt: skip
    return Plugged(application, row["port"], row["given"])
