"""Services in force: the catalog joined with the next hops that answer, and the numbers the data path knows them by."""

from __future__ import annotations

from binascii import crc32
from collections.abc import Iterable

from tof.agent.catalog import Catalog
from tof.dataplane.desired import ServiceRoute
from tof.model import IpAddress, Service


class ServicePlane:
    """What may be diverted: a service is routed while the next hop of its application answers.

    The number of a service is a function of its address and of how often that address was provisioned anew, so that
    it survives a restart of the agent, and connections of a deleted service are not taken by its successor.
    """

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self._next_hops: dict[IpAddress, bytes] = {}
        self._ids: dict[IpAddress, int] = {}
        self._retired: dict[IpAddress, int] = {}

    def adopt_ids(self, ids: Iterable[tuple[IpAddress, int]]) -> None:
        """The numbers under which the data path already diverts."""
        self._ids.update(ids)

    def add(self, service: Service) -> None:
        """Provision; RequestError changes nothing."""
        self._number(self.catalog.put_new(service).service_ip)

    def replace(self, name: str, service: Service) -> None:
        """Re-provision; flows of a kept service IP move with it."""
        before = self.catalog.get(name).service_ip
        after = self.catalog.replace(name, service).service_ip
        if after != before:
            self._retire(before)
            self._number(after)
        self._keep_needed_hops()

    def remove(self, key: str) -> None:
        """Withdraw by name or service IP."""
        self._retire(self.catalog.remove(key).service_ip)
        self._keep_needed_hops()

    def next_hop(self, application: IpAddress) -> bytes | None:
        """The MAC address that packets for the application go to, while it answers."""
        return self._next_hops.get(application)

    def next_hop_changed(self, application: IpAddress, mac: bytes | None) -> bool:
        """Note the next hop's MAC; whether that changes anything."""
        if self._next_hops.get(application) == mac:
            return False
        if mac is None:
            del self._next_hops[application]
        else:
            self._next_hops[application] = mac
        return True

    @property
    def applications(self) -> frozenset[IpAddress]:
        """The applications whose next hops must be known."""
        return frozenset(service.application_ip for service in self.catalog.services)

    @property
    def routes(self) -> tuple[ServiceRoute, ...]:
        """The services that can be diverted now."""
        return tuple(
            ServiceRoute(service, self._ids[service.service_ip], mac)
            for service in self.catalog.services
            if (mac := self._next_hops.get(service.application_ip)) is not None
        )

    def resolved(self, service: Service) -> bool:
        """Whether the application's next hop answers."""
        return service.application_ip in self._next_hops

    def _number(self, address: IpAddress) -> None:
        if address in self._ids:
            return
        number = self._retired.pop(address, None)
        number = (
            crc32(address.packed) & 0xFFFFFF00 if number is None else (number & ~0xFF) | ((number + 1) & 0xFF)
        )
        taken = set(self._ids.values()) | {0}
        while number in taken:
            number = (number + 0x100) & 0xFFFFFFFF
        self._ids[address] = number

    def _retire(self, address: IpAddress) -> None:
        self._retired[address] = self._ids.pop(address)

    def _keep_needed_hops(self) -> None:
        needed = self.applications
        self._next_hops = {hop: mac for hop, mac in self._next_hops.items() if hop in needed}
