"""What is written down of sandboxes, and what their apps write."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tof.agent.sandbox import Sandbox, parse_sandbox, sandbox_body
from tof.errors import BackendError

_LAST_WORDS: Final = 400


class SandboxFiles:
    """The files of one ``local`` VIM, which this process alone writes."""

    def __init__(self, directory: Path, log_max: int) -> None:
        self.dir, self._log_max = directory, log_max
        self._known: dict[str, Sandbox] | None = None

    def known(self) -> list[Sandbox]:
        """Every sandbox of which something may be there."""
        if self._known is None:
            self._known = {one.key: one for one in self._read()}
        return list(self._known.values())

    def _read(self) -> list[Sandbox]:
        found = []
        for path in sorted(self.dir.glob("*.json")):
            try:
                found.append(parse_sandbox(json.loads(path.read_text(encoding="utf-8"))))
            except FileNotFoundError:
                continue
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise BackendError(f"{path}: cannot be read ({error}); repair or remove it") from error
        return found

    def note(self, sandbox: Sandbox) -> None:
        """Write down, durably, what is about to be made."""
        path = self.path(sandbox, "json")
        fresh = path.with_suffix(".new")
        try:
            self.dir.mkdir(parents=True, exist_ok=True, mode=0o700)
            with fresh.open("w", encoding="utf-8") as file:
                json.dump(sandbox_body(sandbox), file)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(path)
        except OSError as error:
            raise BackendError(f"{path}: cannot be written: {error.strerror}") from error
        self.known()
        assert self._known is not None
        self._known[sandbox.key] = sandbox

    def forget(self, sandbox: Sandbox) -> None:
        """Nothing is left of it: its files go, the one that names it last."""
        for kind in ("args", "status", "log", "log.1", "new", "json"):
            self.path(sandbox, kind).unlink(missing_ok=True)
        if self._known is not None:
            self._known.pop(sandbox.key, None)

    def epitaph(self, sandbox: Sandbox) -> str:
        """How it ended, and what it wrote last."""
        how = "it was killed, or its host was restarted"
        with contextlib.suppress(OSError, ValueError):
            for line in self.path(sandbox, "status").read_text(encoding="utf-8").splitlines():
                how = f"exit status {json.loads(line)['exit-code']}" if "exit-code" in line else how
        with contextlib.suppress(OSError):
            text = self.path(sandbox, "log").read_bytes()[-_LAST_WORDS:].decode(errors="replace").strip()
            how = f"{how}; its last words: {text}" if text else how
        return how

    async def trim(self, sandboxes: Sequence[Sandbox]) -> None:
        """Begin the logs anew that have become too long; one older part of each is kept."""
        for sandbox in sandboxes:
            log = self.path(sandbox, "log")
            with contextlib.suppress(FileNotFoundError):
                if log.stat().st_size > self._log_max:
                    await asyncio.to_thread(rotate, log, self._log_max)

    def path(self, sandbox: Sandbox, kind: str) -> Path:
        """Its file of that kind."""
        return self.dir / f"{sandbox.app}.{kind}"


def rotate(log: Path, most: int) -> None:
    """Keep the last part as ``.1``: its writer has it open to append, so it is copied and cut, not renamed."""
    with log.open("rb") as source:
        source.seek(-most, os.SEEK_END)
        log.with_suffix(".log.1").write_bytes(source.read(most))
    os.truncate(log, 0)
