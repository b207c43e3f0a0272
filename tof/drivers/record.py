"""How the host looked before the TOF: written down durably before each change, read back by ``tof down``."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from tof.errors import BackendError, SetupError

PLUGGED = "ports.json"
"""In ``run_dir``: the ports of applications that are plugged, for the next agent."""


@dataclass(frozen=True, slots=True)
class AdapterBefore:
    """An operator's adapter as it was found."""

    up: bool
    promisc: bool
    mtu: int
    alias: str
    master: str
    port: dict[str, int]
    features: dict[str, bool]
    clsact: bool


@dataclass(frozen=True, slots=True)
class Before:
    """Everything found: adapters by name, sysctls by path, and the devices that the TOF set out to create."""

    instance: str
    adapters: dict[str, AdapterBefore] = field(default_factory=dict)
    sysctls: dict[str, str] = field(default_factory=dict)
    devices: dict[str, bool] = field(default_factory=dict)


class Record:
    """``host.json`` in the state directory; what is noted once is never overwritten until forgotten."""

    def __init__(self, directory: Path, instance: str) -> None:
        self._path = directory / "host.json"
        self._waits = False
        self.before = self._load(instance)
        if self.before.instance != instance:
            raise SetupError(
                f"{self._path}: belongs to the instance {self.before.instance!r}; "
                f"give {instance!r} a state.dir of its own"
            )

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """What is noted in the block is written when it ends: nothing may be changed before."""
        self._waits = True
        try:
            yield
        finally:
            self._waits = False
        self._save()

    def note_adapter(self, name: str, adapter: AdapterBefore) -> None:
        """Note how an adapter was found, before it is touched."""
        self._note(self.before.adapters, name, adapter)

    def note_sysctl(self, path: str, value: str) -> None:
        """Note a sysctl's value, before it is changed."""
        self._note(self.before.sysctls, path, value)

    def note_device(self, name: str) -> None:
        """Note that a device is about to be created."""
        self._note(self.before.devices, name, True)

    def forget_port(self, adapter: str, devices: tuple[str, ...], sysctls: tuple[str, ...]) -> None:
        """An application's port is gone, and its adapter given back."""
        for section, keys in (
            (self.before.adapters, (adapter,)),
            (self.before.devices, devices),
            (self.before.sysctls, sysctls),
        ):
            for key in keys:
                section.pop(key, None)
        self._save()

    def forget(self) -> None:
        """Everything is as it was: the record goes."""
        self._path.unlink(missing_ok=True)

    def _note(self, section: dict[str, Any], key: str, value: Any) -> None:
        if key not in section:
            section[key] = value
            if not self._waits:
                self._save()

    def _save(self) -> None:
        text = json.dumps(self.before, default=_shallow, sort_keys=True)
        fresh = self._path.with_suffix(".new")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with fresh.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self._path)
        except OSError as error:
            raise SetupError(f"{self._path}: cannot be written: {error.strerror}; see state.dir") from error

    def _load(self, instance: str) -> Before:
        try:
            data = json.loads(self._path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return Before(instance)
        except (OSError, ValueError) as error:
            raise BackendError(f"{self._path}: cannot be read ({error}); repair or remove it") from error
        adapters = {name: AdapterBefore(**adapter) for name, adapter in data["adapters"].items()}
        return Before(data["instance"], adapters, data["sysctls"], data["devices"])


def _shallow(one: Any) -> dict[str, Any]:
    return {each.name: getattr(one, each.name) for each in fields(one)}
