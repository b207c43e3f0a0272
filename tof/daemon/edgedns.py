"""The DNS server at the edge: kept running, and told the names of services whose packets are diverted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from ipaddress import ip_address

import structlog

from tof.agent.events import OwnApplicationChanged
from tof.agent.services import ServicePlane
from tof.config import Dns
from tof.drivers.unbound import Unbound
from tof.errors import BackendError, SetupError
from tof.model import PortRange, Selection, Service
from tof.wire import dns as wire

log = structlog.get_logger("tof.edgedns")

REVIEW_S = 1.0
ABOVE_ALL = 1001
"""More than any service's priority: what goes to these addresses' DNS is the server's."""


def own_services(dns: Dns) -> tuple[Service, ...]:
    """What leads UEs' DNS to the server: for each address, by UDP and by TCP. Their names are no names of services."""
    port = (PortRange(wire.PORT, wire.PORT),)
    by_version = {ip_address(own).version: own for own in dns.listen}
    return tuple(
        Service(f"_dns-{word}-{address}", address, by_version[address.version],
                selection=Selection(protocol=protocol, ports=port), priority=ABOVE_ALL)
        for address in dns.divert for word, protocol in (("udp", 17), ("tcp", 6))
    )  # fmt: skip


class EdgeDns:
    """One server, followed; nothing at all when the configuration has none."""

    def __init__(
        self, server: Unbound | None, services: ServicePlane, tell: Callable[[OwnApplicationChanged], object]
    ) -> None:
        self._server, self._services, self._tell = server, services, tell
        self._lock = asyncio.Lock()

    async def run(self) -> None:
        """Review, again and again."""
        while self._server is not None:
            await self.review()
            await asyncio.sleep(REVIEW_S)

    async def review(self) -> None:
        """What can be done is done."""
        try:
            await self.settle()
        except (BackendError, SetupError, OSError) as error:
            log.warning("the DNS server at the edge is not as wanted", error=str(error))
            self._tell(OwnApplicationChanged(lives=False))

    async def changed(self) -> None:
        """Services have changed: return when it answers accordingly; BackendError if it does not."""
        if self._server is not None and self._server.told != self._services.answers:
            await self.settle()

    async def settle(self) -> None:
        """It runs, and answers what it should; BackendError if not."""
        if self._server is None:
            return
        async with self._lock:
            await self._server.ensure_running()
            if not await self._server.lives():
                raise BackendError("unbound does not answer its control socket")
            await self._server.tell(self._services.answers)
        self._tell(OwnApplicationChanged(lives=True))
