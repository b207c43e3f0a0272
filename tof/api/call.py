"""A call of an operation, and what carries it out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web


@dataclass(frozen=True, slots=True)
class Call:
    """A request that the document has accepted."""

    request: web.Request
    query: Mapping[str, Any] = field(default_factory=dict)
    body: Mapping[str, object] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The ``{name}`` of the path."""
        return self.request.match_info["name"]


OperationHandler = Callable[[Call], Awaitable[web.StreamResponse]]
