"""How long each phase of an instantiation takes, and which one it is in."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


class Phases:
    """Of one instantiation; ``now`` is the last that began."""

    def __init__(self) -> None:
        self.found: list[tuple[str, float]] = []
        self.now = ""

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """What is done within is that phase; it counts if it succeeds."""
        loop = asyncio.get_running_loop()
        began, self.now = loop.time(), name
        yield
        self.found.append((name, loop.time() - began))
