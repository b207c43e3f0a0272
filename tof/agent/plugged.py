"""Applications that have ports of their own: which there are, which have a link, and what their security groups say."""

from __future__ import annotations

from collections.abc import Iterable

from tof.dataplane.desired import AppPort
from tof.model import IpAddress, SecurityGroup


class Plugged:
    """The application ports of now; their next hops are known without asking."""

    def __init__(self) -> None:
        self.ports: tuple[AppPort, ...] = ()
        self.groups: tuple[SecurityGroup, ...] = ()
        """Those of the policy, sorted by name; a port may be in one that is not declared, which lets nothing through."""
        self._by_address: dict[IpAddress, AppPort] = {}
        self._linked: frozenset[str] = frozenset()

    def changed(self, ports: Iterable[AppPort], linked: frozenset[str]) -> bool:
        """Exactly these from now on, of which ``linked`` have a link; whether that changes anything."""
        wanted = tuple(sorted(ports, key=lambda port: port.name))
        if (wanted, linked) == (self.ports, self._linked):
            return False
        self.ports, self._linked = wanted, linked
        self._by_address = {address: port for port in wanted for address in port.addresses}
        return True

    def has(self, application: IpAddress) -> bool:
        """Whether the application has a port of its own."""
        return application in self._by_address

    def mac(self, application: IpAddress) -> bytes | None:
        """The MAC address of an application with a port of its own, while that has a link."""
        port = self._by_address.get(application)
        return port.mac if port is not None and port.name in self._linked else None
