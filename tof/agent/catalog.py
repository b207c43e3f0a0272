"""The services catalog: which services are provisioned, and which may be."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_address

from tof.errors import BadRequest, Conflict, NotFound
from tof.model import IpAddress, Service

NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
FIELDS = ("name", "serviceIP", "applicationIP")
BROADCAST = IPv4Address("255.255.255.255")


def parse_address(text: str) -> IpAddress:
    """The canonical address behind ``text`` (IPv4-mapped IPv6 is IPv4); ValueError if it is none."""
    address = canonical(ip_address(text))
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        raise ValueError(f"{text!r} has a scope")
    return address


def canonical(address: IpAddress) -> IpAddress:
    """One form for equal addresses: an IPv4-mapped IPv6 address is the IPv4 address."""
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def parse(body: Mapping[str, object]) -> Service:
    """The service a request body describes; BadRequest names the field at fault."""
    for field in body:
        if field not in FIELDS:
            raise BadRequest(f"{field} is not a field of a service", field)
    name, service_ip, application_ip = (_text(body, field) for field in FIELDS)
    return checked(
        Service(name, _address(service_ip, "serviceIP"), _address(application_ip, "applicationIP")),
    )


def checked(service: Service) -> Service:
    """``service`` with canonical addresses, or BadRequest when no TOF could carry it."""
    _check_name(service.name)
    service = replace(
        service,
        service_ip=canonical(service.service_ip),
        application_ip=canonical(service.application_ip),
    )
    _check_unicast(service.service_ip, "serviceIP")
    _check_unicast(service.application_ip, "applicationIP")
    if service.service_ip.version != service.application_ip.version:
        raise BadRequest("serviceIP and applicationIP are of different families", "applicationIP")
    return service


class Catalog:
    """The provisioned services; a call that raises has changed nothing."""

    def __init__(
        self, pinger_targets: Iterable[IpAddress] = (), own_addresses: Iterable[IpAddress] = ()
    ) -> None:
        self._forbidden = {canonical(a): "an address of the TOF" for a in own_addresses}
        self._forbidden |= {canonical(a): "a target of the Pinger" for a in pinger_targets}
        self._by_name: dict[str, Service] = {}
        self._name_of: dict[IpAddress, str] = {}
        self.taken = {address.packed for address in self._forbidden}
        """The addresses (packed) that are no UE's: the services', the Pinger's targets and the TOF's own."""

    @property
    def services(self) -> tuple[Service, ...]:
        """Every service, sorted by name."""
        return tuple(self._by_name[name] for name in sorted(self._by_name))

    def get(self, name: str) -> Service:
        """The service called ``name``, or NotFound."""
        if name not in self._by_name:
            raise NotFound(f"there is no service called {name}", "name")
        return self._by_name[name]

    def lookup(self, name_or_address: str) -> Service:
        """The service with this name, else with this service IP in any textual form, or NotFound."""
        return self.get(self._resolve(name_or_address))

    def put_new(self, service: Service) -> Service:
        """Add ``service``; Conflict if its name or service IP is taken."""
        service = self._admitted(service)
        self._check_free(service, replacing=None)
        self._put(service)
        return service

    def replace(self, name: str, service: Service) -> Service:
        """Put ``service`` in the place of ``name``, renaming it if the names differ."""
        service = self._admitted(service)
        old = self.get(name)
        self._check_free(service, replacing=name)
        self._drop(old)
        self._put(service)
        return service

    def remove(self, name_or_address: str) -> Service:
        """Remove by name, else by service IP in any textual form; what was removed."""
        service = self.lookup(name_or_address)
        self._drop(service)
        return service

    def _resolve(self, key: str) -> str:
        if key in self._by_name:
            return key
        try:
            address = parse_address(key)
        except ValueError:
            return key
        if address not in self._name_of:
            raise NotFound(f"there is no service at {address}", "name")
        return self._name_of[address]

    def _admitted(self, service: Service) -> Service:
        service = checked(service)
        for field, address in (("serviceIP", service.service_ip), ("applicationIP", service.application_ip)):
            if address in self._forbidden:
                raise BadRequest(f"{address} is {self._forbidden[address]}", field)
        return service

    def _check_free(self, service: Service, replacing: str | None) -> None:
        if service.name != replacing and service.name in self._by_name:
            raise Conflict(f"there is already a service called {service.name}", "name")
        owner = self._name_of.get(service.service_ip, replacing)
        if owner != replacing:
            raise Conflict(f"{service.service_ip} already belongs to service {owner}", "serviceIP")

    def _put(self, service: Service) -> None:
        self._by_name[service.name] = service
        self._name_of[service.service_ip] = service.name
        self.taken.add(service.service_ip.packed)

    def _drop(self, service: Service) -> None:
        del self._by_name[service.name]
        del self._name_of[service.service_ip]
        self.taken.discard(service.service_ip.packed)


def _text(body: Mapping[str, object], field: str) -> str:
    value = body.get(field)
    if not isinstance(value, str):
        raise BadRequest(f"{field} is missing or not a string", field)
    return value


def _address(text: str, field: str) -> IpAddress:
    try:
        return parse_address(text)
    except ValueError:
        raise BadRequest(f"{field} is not an IP address", field) from None


def _check_name(name: str) -> None:
    if not NAME_PATTERN.fullmatch(name):
        raise BadRequest("name must match " + NAME_PATTERN.pattern, "name")
    try:
        ip_address(name)
    except ValueError:
        return
    raise BadRequest("name must not be an IP address", "name")


def _check_unicast(address: IpAddress, field: str) -> None:
    kinds = {
        "multicast": address.is_multicast,
        "loopback": address.is_loopback,
        "unspecified": address.is_unspecified,
        "link-local": address.version == 6 and address.is_link_local,
        "broadcast": address == BROADCAST,
    }
    for kind, applies in kinds.items():
        if applies:
            raise BadRequest(f"{field} {address} is {kind}", field)
