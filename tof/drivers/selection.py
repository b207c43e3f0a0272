"""The rules by which XDP tells services' packets, kept in step; a change is in force address by address, whole.

tof_rules has two halves: new lists are written into the one that nobody reads, then each address is led there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from operator import or_

from tof.dataplane.desired import ServedService, Serving
from tof.dataplane.selection import Rule, RuleLists
from tof.dataplane.spreading import slots
from tof.drivers import layout
from tof.drivers.layout import ServedRecord
from tof.drivers.libbpf import Map
from tof.errors import BackendError
from tof.model import IpAddress, IpNetwork, SpreadBy

HALF = 32_768
LONGEST_LIST = 1024
_ALL = (1 << 64) - 1
_FILTERED = 6
"""A prefix with at most two to this many addresses has its own bits in the filter."""

Networks = tuple[IpNetwork, ...]


def filter_bits(rules: RuleLists) -> int:
    """``service_filter``: one bit, by hash, for each service address."""
    return reduce(or_, map(_bits_of, rules.lists), 0)


def _bits_of(network: IpNetwork) -> int:
    if network.max_prefixlen - network.prefixlen > _FILTERED:
        return _ALL
    return reduce(or_, (layout.filter_bit(address.packed) for address in network), 0)


class SelectionMaps:
    """tof_served, tof_rules, tof_sets, tof_services and tof_prefixes."""

    def __init__(self, maps: Mapping[str, Map]) -> None:
        self._maps = maps
        self._served = dict(self.served())
        self._spread: dict[int, ServedService] = {}
        self._rules: RuleLists | None = None
        self._sets: dict[Networks, int] = {}
        self._next_set = 1 + max(
            (int.from_bytes(key[4:8], "little") for key in self._keys("tof_sets")), default=0
        )
        starts = [int.from_bytes(value, "little") for _, value in self._entries("tof_services")]
        starts += [int.from_bytes(value, "little") for _, value in self._entries("tof_prefixes")]
        self._upper = bool(starts) and starts[0] > HALF

    def served(self) -> Iterator[tuple[int, ServedRecord]]:
        """Number, and what the data path holds of that service."""
        for key, value in self._entries("tof_served"):
            yield int.from_bytes(key, "little"), layout.unpack_served(value)

    def put(self, wanted: Sequence[ServedService], rules: RuleLists, tracked: frozenset[bytes]) -> bool:
        """Put services and rules in force; whether rules have changed. BackendError if they are too many."""
        for one in wanted:
            self._put_service(one, tracked)
        if rules == self._rules:
            return False
        numbers = {one.service.name: one.service_id for one in wanted}
        starts = self._write_lists(rules, numbers)
        self._lead(starts)
        self._drop_unused_sets(rules)
        self._rules = rules
        return True

    def stop(self, number: int) -> None:
        """What this service selects goes to the core from now on, what would go to this application to the others."""
        record = self._served.get(number)
        if record is None:
            return
        several = self._spread.get(record.service)
        if several is None:
            self._put_served(number, record._replace(state=0))
            return
        left = [replace(one, lives=one.lives and one.number != number) for one in several.applications]
        # Its number may be that of the whole service, of which something may be left.
        self._put_served(number, record._replace(state=record.state & ~layout.LIVES))
        self._put_spread(replace(several, applications=tuple(left)))

    def drop_others(self, wanted: Sequence[ServedService]) -> None:
        """Forget services that are no more."""
        spread = {one.service_id for one in wanted if one.applications}
        further = {further.number for one in wanted for further in one.applications}
        for number in self._served.keys() - {one.service_id for one in wanted} - further:
            self._maps["tof_served"].drop(number.to_bytes(4, "little"))
            del self._served[number]
        for key in self._keys("tof_spread"):
            if (number := int.from_bytes(key, "little")) not in spread:
                self._maps["tof_spread"].drop(key)
                self._spread.pop(number, None)

    def _put_service(self, one: ServedService, tracked: frozenset[bytes]) -> None:
        number, service = one.service_id, one.service
        for further in one.applications[1:]:
            state = _state_of(further.address, tracked, lives=further.lives)
            self._put_served(further.number, ServedRecord(0, 0, state, number, str(further.address)))
        first = one.applications[0].lives if one.applications else one.serving is Serving.DIVERT
        state = layout.SERVING[one.serving] | _state_of(service.application_ip, tracked, lives=first)
        if one.applications:
            self._put_spread(one)
            state |= layout.SPREAD
        self._put_served(number, ServedRecord(0, 0, state, number, service.name))

    def _put_spread(self, one: ServedService) -> None:
        spread = one.service.spread
        if spread is None or self._spread.get(one.service_id) == one:
            return
        value = layout.pack_spread(slots(one.applications, spread), by_flow=spread.by is SpreadBy.FLOW)
        self._maps["tof_spread"].put(one.service_id.to_bytes(4, "little"), value)
        self._spread[one.service_id] = one

    def _put_served(self, number: int, wanted: ServedRecord) -> None:
        """Put it in force but for its counts, which go on."""
        known = self._served.get(number)
        if known is not None and known._replace(packets=0, octets=0) == wanted._replace(packets=0, octets=0):
            return
        table, key = self._maps["tof_served"], number.to_bytes(4, "little")
        raw = table.get(key) if known is not None else None
        so_far = layout.unpack_served(raw) if raw is not None else wanted
        record = wanted._replace(packets=so_far.packets, octets=so_far.octets)
        table.put(key, layout.pack_served(record))
        self._served[number] = record

    def _write_lists(self, rules: RuleLists, numbers: Mapping[str, int]) -> dict[IpNetwork, int]:
        """Into the half that is not in use; where each list begins there, plus one."""
        _check_size(rules)
        at, starts, table = 0 if self._upper else HALF, {}, self._maps["tof_rules"]
        for network, listed in rules.lists.items():
            starts[network] = at + 1
            for rule in listed:
                sets = tuple(map(self._set_of, _sets_of(rule)))
                value = layout.pack_rule(rule, numbers[rule.service.name], sets, last=rule is listed[-1])
                table.put(at.to_bytes(4, "little"), value)
                at += 1
        return starts

    def _set_of(self, networks: Networks) -> int:
        if not networks:
            return 0
        if networks not in self._sets:
            self._sets[networks] = self._next_set
            self._next_set += 1
            for network in networks:
                self._maps["tof_sets"].put(layout.prefix_key(network, self._sets[networks]), bytes(4))
        return self._sets[networks]

    def _lead(self, starts: Mapping[IpNetwork, int]) -> None:
        hosts = {layout.mapped(n.network_address.packed): at for n, at in starts.items() if _is_host(n)}
        prefixes = {layout.prefix_key(n): at for n, at in starts.items() if not _is_host(n)}
        # Prefixes first: an address that leaves its host's list for the prefix around it finds that one there.
        for name, wanted in (("tof_prefixes", prefixes), ("tof_services", hosts)):
            for key, at in wanted.items():
                self._maps[name].put(key, at.to_bytes(4, "little"))
        for name, wanted in (("tof_services", hosts), ("tof_prefixes", prefixes)):
            for key in set(self._keys(name)) - wanted.keys():
                self._maps[name].drop(key)
        self._upper = not self._upper

    def _drop_unused_sets(self, rules: RuleLists) -> None:
        used = {networks for listed in rules.lists.values() for rule in listed for networks in _sets_of(rule)}
        self._sets = {networks: number for networks, number in self._sets.items() if networks in used}
        kept = {number.to_bytes(4, "little") for number in self._sets.values()}
        for key in self._keys("tof_sets"):
            if key[4:8] not in kept:
                self._maps["tof_sets"].drop(key)

    def _keys(self, name: str) -> list[bytes]:
        return [key for key, _ in self._entries(name)]

    def _entries(self, name: str) -> Iterator[tuple[bytes, bytes]]:
        table = self._maps[name]
        sizes = table.key_size, table.value_size
        for keys, values, count in table.slices():
            for at in range(count):
                key, value = (
                    raw[at * size : (at + 1) * size] for raw, size in zip((keys, values), sizes, strict=True)
                )
                yield key, value


def _state_of(application: IpAddress, tracked: frozenset[bytes], *, lives: bool) -> int:
    return lives * layout.LIVES | (application.packed in tracked) * layout.TRACKED


def _sets_of(rule: Rule) -> tuple[Networks, Networks, Networks]:
    return rule.ues, rule.enbs, rule.sgws


def _is_host(network: IpNetwork) -> bool:
    return network.prefixlen == network.max_prefixlen


def _check_size(rules: RuleLists) -> None:
    total = sum(map(len, rules.lists.values()))
    if total > HALF:
        raise BackendError(
            f"{total} rules of services, at most {HALF} fit: fewer ports, VLANs or prefixes around others"
        )
    for network, listed in rules.lists.items():
        if len(listed) > LONGEST_LIST:
            raise BackendError(f"{len(listed)} rules for {network}, at most {LONGEST_LIST} can be asked")
