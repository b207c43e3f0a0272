"""The services catalog: which services are provisioned, and which may be."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from tof.agent.addresses import canonical, network_of, parse_prefix, prefix_text
from tof.agent.app_body import at_service
from tof.agent.chain_body import check_mark, check_vnfs
from tof.agent.service_check import checked
from tof.dataplane.selection import overlap, place_of
from tof.errors import BadRequest, Conflict, NotFound
from tof.model import Chain, IpAddress, IpNetwork, MarkKind, Service


class Catalog:
    """The provisioned services; a call that raises has changed nothing."""

    def __init__(
        self,
        pinger_targets: Iterable[IpAddress] = (),
        own_addresses: Iterable[IpAddress] = (),
        *,
        learns: bool = True,
        vnfs: Mapping[str, Collection[MarkKind]] | None = None,
        answers: bool = True,
    ) -> None:
        """``vnfs``: those that chains may walk, by name, and the marks that they speak; None: any."""
        self._forbidden = {canonical(a): "an address of the TOF" for a in own_addresses}
        self._forbidden |= {canonical(a): "a target of the Pinger" for a in pinger_targets}
        self._learns, self._answers, self._vnfs = learns, answers, vnfs
        self.chains: tuple[Chain, ...] = ()
        """What services may walk; ``replace_all`` checks them."""
        self._by_name: dict[str, Service] = {}
        self._sorted: tuple[Service, ...] | None = None
        self._names_at: dict[IpNetwork | str, set[str]] = {}
        self.taken = {address.packed for address in self._forbidden}
        """The addresses (packed) that are no UE's: the host services', the Pinger's targets and the TOF's own."""

    @property
    def services(self) -> tuple[Service, ...]:
        """Every service, sorted by name."""
        if self._sorted is None:  # asked for by packet, changed by hand
            self._sorted = tuple(self._by_name[name] for name in sorted(self._by_name))
        return self._sorted

    def get(self, name: str) -> Service:
        """The service called ``name``, or NotFound."""
        if name not in self._by_name:
            raise NotFound(f"there is no service called {name}", "name")
        return self._by_name[name]

    def lookup(self, key: str) -> Service:
        """The service with this name, else the one at this service IP in any textual form, or of this domain.

        NotFound, or Conflict where several services have that service IP.
        """
        return self.get(self._resolve(key))

    def put_new(self, service: Service) -> Service:
        """Add ``service``; Conflict if its name is taken, or packets that it selects are."""
        service = self._admitted(service)
        self._check_free(service, replacing=None)
        self._put(service)
        return service

    def check_new(self, services: Iterable[Service]) -> None:
        """Raise what ``put_new`` would for the first of these that cannot be added, as a field of ``services``."""
        tried: dict[int, Service] = {}
        try:
            for at, service in enumerate(services):
                tried[at] = self.put_new(service)
        except (BadRequest, Conflict) as error:
            raise at_service(len(tried), error) from error
        finally:
            for service in tried.values():
                self._drop(service)

    def replace(self, name: str, service: Service) -> Service:
        """Put ``service`` in the place of ``name``, renaming it if the names differ."""
        service = self._admitted(service)
        old = self.get(name)
        self._check_free(service, replacing=name)
        self._drop(old)
        self._put(service)
        return service

    def replace_all(self, services: Iterable[Service], chains: Iterable[Chain] = ()) -> None:
        """Exactly these from now on; an error names the service or chain at fault."""
        fresh = Catalog(learns=self._learns, answers=self._answers)
        fresh._forbidden, fresh.chains = self._forbidden, tuple(chains)
        for at, chain in enumerate(fresh.chains):
            try:
                self._check_chain(chain, fresh.chains[:at])
            except (BadRequest, Conflict) as error:
                raise type(error)(f"chain {chain.name}: {error}", error.field) from error
        for service in services:
            try:
                fresh.put_new(service)
            except (BadRequest, Conflict) as error:
                raise type(error)(f"service {service.name}: {error}", error.field) from error
        self._by_name, self._names_at, self.chains = fresh._by_name, fresh._names_at, fresh.chains
        self._sorted = None
        self.taken = fresh.taken | {address.packed for address in self._forbidden}

    def remove(self, key: str) -> Service:
        """Remove what ``lookup`` finds; what was removed."""
        service = self.lookup(key)
        self._drop(service)
        return service

    def _check_chain(self, chain: Chain, before: Iterable[Chain]) -> None:
        if self._vnfs is not None:
            check_vnfs(chain, self._vnfs)
        check_mark(chain, before, self._vnfs)

    def _resolve(self, key: str) -> str:
        if key in self._by_name:
            return key
        place: IpNetwork | str
        try:
            place = network_of(*parse_prefix(key), "name")
        except (ValueError, BadRequest):
            place = key.lower().removesuffix(".")
            if place not in self._names_at:
                return key
        names = sorted(self._names_at.get(place, ()))
        if not names:
            raise NotFound(f"there is no service at {_where(place)}", "name")
        if len(names) > 1:
            raise Conflict(
                f"{_where(place)} belongs to several services, use a name: {', '.join(names)}", "name"
            )
        return names[0]

    def _admitted(self, service: Service) -> Service:
        service = checked(service)
        if service.service_ip is None and not self._learns:
            raise BadRequest(
                "domain: the addresses of a name are learnt from the answers of dns.resolvers, and the "
                "configuration names none",
                "domain",
            )
        if service.chain is not None and all(chain.name != service.chain for chain in self.chains):
            raise BadRequest(f"chain: there is no chain called {service.chain}", "chain")
        if service.service_ip is not None and service.domain is not None and not self._answers:
            raise BadRequest(
                "domain with serviceIP: dns.server is off, so nobody answers it at the edge", "domain"
            )
        further = [("spread.applications", address) for address in service.applications[1:]]
        for field, address in (
            ("serviceIP", service.service_ip), ("applicationIP", service.application_ip), *further
        ):  # fmt: skip
            # A prefix may have such addresses among its own: the Pinger's requests are no UE's packets.
            if address in self._forbidden and (service.is_host or field != "serviceIP"):
                raise BadRequest(f"{address} is {self._forbidden[address]}", field)
        return service

    def _check_free(self, service: Service, replacing: str | None) -> None:
        if service.name != replacing and service.name in self._by_name:
            raise Conflict(f"there is already a service called {service.name}", "name")
        for name in sorted(self._names_at.get(place_of(service), set()) - {replacing}):
            other = self._by_name[name]
            if overlap(service, other):
                raise _clash(service, other)

    def _put(self, service: Service) -> None:
        self._by_name[service.name] = service
        self._sorted = None
        self._names_at.setdefault(place_of(service), set()).add(service.name)
        if service.is_host and service.service_ip is not None:
            self.taken.add(service.service_ip.packed)

    def _drop(self, service: Service) -> None:
        del self._by_name[service.name]
        self._sorted = None
        names = self._names_at[place_of(service)]
        names.remove(service.name)
        if not names:
            del self._names_at[place_of(service)]
        if service.is_host and service.service_ip is not None and not names:
            self.taken.discard(service.service_ip.packed)


def _clash(service: Service, other: Service) -> Conflict:
    field = "domain" if service.network is None else "serviceIP"
    where = _where(place_of(service))
    if _is_plain(service) and _is_plain(other):
        return Conflict(f"{where} already belongs to service {other.name}", field)
    return Conflict(
        f"services {service.name} and {other.name} select the same packets to {where} with priority "
        f"{service.priority}: give one a different priority, or both selections that do not overlap",
        field,
    )


def _where(place: IpNetwork | str) -> str:
    return place if isinstance(place, str) else prefix_text(place)


def _is_plain(service: Service) -> bool:
    return service == Service(service.name, service.service_ip, service.application_ip, domain=service.domain)
