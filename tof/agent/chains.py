"""Port-chains and the state of their VNFs: the path that a service's packets walk now."""

from __future__ import annotations

from collections.abc import Iterable

from tof.dataplane.desired import DIRECT, Path, Vnf
from tof.model import Chain, OnFailure, Service


class Chains:
    """The chains provisioned, and which of the configured VNFs live; one that nobody has looked at is dead."""

    def __init__(self, vnfs: Iterable[Vnf] = ()) -> None:
        self.vnfs = {vnf.name: vnf for vnf in vnfs}
        self._chains: dict[str, Chain] = {}
        self._alive: set[str] = set()

    @property
    def chains(self) -> tuple[Chain, ...]:
        """Every chain, sorted by name."""
        return tuple(self._chains[name] for name in sorted(self._chains))

    def replace_all(self, chains: Iterable[Chain]) -> None:
        """Exactly these from now on; they are checked already."""
        self._chains = {chain.name: chain for chain in chains}

    def seen(self, vnf: str, *, alive: bool) -> bool:
        """A VNF was looked at; whether it has changed."""
        if alive == (vnf in self._alive):
            return False
        self._alive ^= {vnf}
        return True

    def dead(self, service: Service) -> tuple[str, ...]:
        """The VNFs of the service's chain that are dead."""
        chain = self._of(service)
        return tuple(vnf for vnf in chain.vnfs if vnf not in self._alive) if chain is not None else ()

    def is_broken(self, service: Service) -> bool:
        """Whether the service's packets have to go to the core because of its chain."""
        chain = self._of(service)
        return chain is not None and chain.on_failure is OnFailure.CORE and bool(self.dead(service))

    def path(self, service: Service) -> Path:
        """What packets walk: without dead VNFs where those are left out; a broken chain is left as it is."""
        chain = self._of(service)
        if chain is None:
            return DIRECT
        walked = (v for v in chain.vnfs if v in self._alive or chain.on_failure is OnFailure.CORE)
        vnfs = tuple(self.vnfs[vnf] for vnf in walked if vnf in self.vnfs)
        return Path(chain.name, vnfs, chain.mark, chain.vnfs)

    def _of(self, service: Service) -> Chain | None:
        return None if service.chain is None else self._chains.get(service.chain)
