"""Next hops of applications: tells the agent what the kernel's neighbour table says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from tof.agent.events import NextHopChanged
from tof.agent.services import ServicePlane
from tof.config import Ue
from tof.drivers.neighbours import Neighbours, next_hop
from tof.model import IpAddress

GONE_AFTER_S = 2.0
"""A next hop that falls silent keeps its flows for this long: a lost probe must not move connections to the core."""


class Resolver:
    """Wants exactly the next hops of the provisioned applications."""

    def __init__(
        self, ue: Ue, device: str, services: ServicePlane, tell: Callable[[NextHopChanged], object]
    ) -> None:
        self._ue, self._services, self._tell = ue, services, tell
        self.neighbours = Neighbours(device, self.changed)
        self._leaving: dict[IpAddress, asyncio.TimerHandle] = {}
        self._macs: dict[IpAddress, bytes] = {}
        self._behind: dict[IpAddress | None, list[IpAddress]] = {}
        self._news = asyncio.Event()

    def changed(self, hop: IpAddress, mac: bytes | None) -> None:
        """The neighbour table's word about a next hop."""
        if (leaving := self._leaving.pop(hop, None)) is not None:
            leaving.cancel()
        if mac is None:
            loop = asyncio.get_running_loop()
            self._leaving[hop] = loop.call_later(GONE_AFTER_S, self._gone, hop)
            return
        self._macs[hop] = mac
        self._say(hop)
        self._news.set()

    def _gone(self, hop: IpAddress) -> None:
        del self._leaving[hop]
        self._macs.pop(hop, None)
        self._say(hop)

    def review(self) -> None:
        """Bring what is wanted and what the agent knows up to date."""
        behind: dict[IpAddress | None, list[IpAddress]] = {}
        for application in self._services.applications:
            behind.setdefault(next_hop(self._ue, application), []).append(application)
        self._behind = behind
        self.neighbours.want({hop for hop in behind if hop is not None})
        for hop in behind:
            self._say(hop)

    def _say(self, hop: IpAddress | None) -> None:
        mac = self._macs.get(hop) if hop is not None else None
        for application in self._behind.get(hop, ()):
            self._tell(NextHopChanged(application, mac))

    async def resolve(self, applications: Iterable[IpAddress], patience_s: float) -> None:
        """Wait a moment for the next hops of these to answer."""
        self.review()
        asked = self._services.applications
        hops = {next_hop(self._ue, application) for application in applications if application in asked} - {
            None
        }
        try:
            async with asyncio.timeout(patience_s):
                while not hops <= self._macs.keys():
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            return

    def why(self, application: IpAddress) -> str:
        """Why an application is unresolved, and what to do."""
        if self._services.plugged.has(application):
            return f"the port of {application} has no link"
        hop = next_hop(self._ue, application)
        if hop is None:
            return f"{application} is not on-link; set ue.app_gateway"
        return f"next hop {hop} does not answer"
