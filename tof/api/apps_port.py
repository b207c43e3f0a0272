"""What the API asks of whoever drives ME Apps, as a Protocol."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn, Protocol

from tof.agent.app import App, AppView
from tof.errors import BackendError


class AppsPort(Protocol):
    """Changes return when they are accepted and kept; what becomes of them is asked afterwards.

    Errors are RequestError (400, 404, 409) and BackendError (503).
    """

    async def views(self) -> Sequence[AppView]:
        """Every app, sorted by name."""
        ...

    async def view(self, name: str) -> AppView:
        """One app, or NotFound."""
        ...

    async def request(self, app: App) -> None:
        """Have an app; the same one again is the same app."""
        ...

    async def remove(self, name: str) -> None:
        """Have it no longer."""
        ...

    async def settled(self, name: str, within_s: float) -> AppView | None:
        """The app once it is ready or has failed, or as it is after that time; None once it is gone."""
        ...


class NoApps:
    """An agent without VIMs."""

    async def views(self) -> Sequence[AppView]:
        """None."""
        return ()

    async def view(self, name: str) -> AppView:
        """Not here."""
        self._refuse()

    async def request(self, app: App) -> None:
        """Not here."""
        self._refuse()

    async def remove(self, name: str) -> None:
        """Not here."""
        self._refuse()

    async def settled(self, name: str, within_s: float) -> AppView | None:
        """Not here."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise BackendError("this agent has no VIM")
