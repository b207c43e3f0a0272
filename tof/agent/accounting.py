"""Accounts of UEs with services: what is to be reported of them, and in which words.

The data path adds up; the agent compares with what it has reported before. So a report that fails is made up for by the
next one, and an agent that starts goes on where the last one ended. An account is closed only once all of it has been
reported and it has been silent for a while.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from hashlib import blake2b
from ipaddress import ip_address
from typing import Final, NamedTuple

from tof.dataplane.desired import ServedService
from tof.model import IpNetwork, address_text
from tof.wire import ipfix

ACTIVE, IDLE, FORCED, LACKING = 2, 1, 4, 5
"""flowEndReason (RFC 5102 section 5.11.3): it goes on; silent; its service is no more; closed to make room."""
REASONS: Final[Mapping[int, str]] = {ACTIVE: "active", IDLE: "idle", FORCED: "removed", LACKING: "crowded"}


class AccountKey(NamedTuple):
    """A UE (an IPv6 one by the first half of its address), its nodes, and a service's number."""

    ue: bytes
    enb: bytes
    sgw: bytes
    vlan: int | None
    service: int
    by_agent: bool = False
    """Counted by the agent: what it has put together of fragments."""


class Account(NamedTuple):
    """Users' packets since the account began; the times are CLOCK_MONOTONIC."""

    up_packets: int
    down_packets: int
    up_octets: int
    down_octets: int
    first_ns: int
    last_ns: int

    def since(self, before: Account | None) -> Account:
        """What has come since ``before`` was reported; all of it, if that was of an earlier account."""
        if before is None or before.first_ns != self.first_ns:
            return self
        return self._replace(
            up_packets=self.up_packets - before.up_packets,
            down_packets=self.down_packets - before.down_packets,
            up_octets=self.up_octets - before.up_octets,
            down_octets=self.down_octets - before.down_octets,
        )

    def plus(self, other: Account | None) -> Account:
        """Both together."""
        if other is None:
            return self
        return Account(
            self.up_packets + other.up_packets, self.down_packets + other.down_packets,
            self.up_octets + other.up_octets, self.down_octets + other.down_octets,
            min(self.first_ns, other.first_ns), max(self.last_ns, other.last_ns),
        )  # fmt: skip

    @property
    def empty(self) -> bool:
        """Whether there is nothing to report."""
        return not self.up_packets and not self.down_packets


Accounts = Mapping[AccountKey, Account]


@dataclass(frozen=True, slots=True)
class Usage:
    """Traffic of a UE with a service; ``network``: the service's addresses, unless it was gone when this agent began."""

    key: AccountKey
    service: str
    network: IpNetwork | None
    traffic: Account
    reason: int = ACTIVE

    @property
    def flow_id(self) -> int:
        """Tells the accounts of one TOF apart, however often the agent begins anew."""
        key = self.key._replace(by_agent=False)
        return int.from_bytes(blake2b(repr(key).encode(), digest_size=8).digest(), "big")


@dataclass(frozen=True, slots=True)
class Silence:
    """When an account is closed: silent since then (CLOCK_MONOTONIC), or, of a service that is no more, since then."""

    idle_ns: int
    removed_ns: int
    crowded: bool = False
    """The table is full: whatever has been silent since ``removed_ns`` goes."""


class Ledger:
    """Names for numbers; services that are gone are remembered while they have accounts."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[str, IpNetwork | None]] = {}
        self._present: frozenset[int] = frozenset()

    def note(self, services: Iterable[ServedService]) -> None:
        """The services that there are now."""
        present = {one.service_id: (one.service.name, one.service.network) for one in services}
        self._known.update(present)
        self._present = frozenset(present)

    def forget_others(self, accounted: Set[int]) -> None:
        """Let go of services that are neither there nor, by their numbers, in an account."""
        kept = self._present | accounted
        self._known = {number: known for number, known in self._known.items() if number in kept}

    def usage(self, accounts: Accounts, reason: int = ACTIVE) -> list[Usage]:
        """What the accounts hold, both halves of each together."""
        whole: dict[AccountKey, Account] = {}
        for key, account in accounts.items():
            if not account.empty:
                key = key._replace(by_agent=False)
                whole[key] = account.plus(whole.get(key))
        found = []
        for key in sorted(whole, key=_order):
            name, network = self._known.get(key.service, (f"#{key.service}", None))
            found.append(Usage(key, name, network, whole[key], reason))
        return found

    def closing(self, accounts: Accounts, silence: Silence) -> dict[AccountKey, int]:
        """The accounts to be closed, and why."""
        found = {}
        for key, account in accounts.items():
            if account.last_ns < silence.idle_ns:
                found[key] = IDLE
            elif account.last_ns < silence.removed_ns and key.service not in self._present:
                found[key] = FORCED
            elif account.last_ns < silence.removed_ns and silence.crowded:
                found[key] = LACKING
        return found


def unreported(accounts: Accounts, reported: Accounts) -> dict[AccountKey, Account]:
    """What has come into each account since it was reported."""
    fresh = {key: account.since(reported.get(key)) for key, account in accounts.items()}
    return {key: account for key, account in fresh.items() if not account.empty}


def _order(key: AccountKey) -> tuple[int, int, bytes, bytes, bytes, int]:
    return key.service, len(key.ue), key.ue, key.enb, key.sgw, key.vlan or 0


_TAIL: Final = (
    ipfix.APPLICATION_NAME, ipfix.FLOW_ID, ipfix.DOT1Q_VLAN_ID,
    ipfix.PACKET_DELTA_COUNT, ipfix.OCTET_DELTA_COUNT,
    ipfix.PACKET_DELTA_COUNT.reverse, ipfix.OCTET_DELTA_COUNT.reverse,
    ipfix.FLOW_START_MILLISECONDS, ipfix.FLOW_END_MILLISECONDS, ipfix.FLOW_END_REASON,
)  # fmt: skip
TEMPLATES: Final = {
    4: ipfix.Template(
        256,
        (
            ipfix.SOURCE_IPV4_ADDRESS, ipfix.DESTINATION_IPV4_ADDRESS, ipfix.DESTINATION_IPV4_PREFIX_LENGTH, *_TAIL,
        ),
    ),
    6: ipfix.Template(
        257,
        (
            ipfix.SOURCE_IPV6_ADDRESS, ipfix.SOURCE_IPV6_PREFIX_LENGTH, ipfix.DESTINATION_IPV6_ADDRESS,
            ipfix.DESTINATION_IPV6_PREFIX_LENGTH, *_TAIL,
        ),
    ),
}  # fmt: skip
"""By the UE's version of IP. Forward is uplink."""


def ipfix_record(usage: Usage, start_ms: int, end_ms: int) -> ipfix.Record:
    """The data record of ``usage``."""
    version = 4 if len(usage.key.ue) == 4 else 6
    size = 4 if version == 4 else 16
    service = (bytes(size), 0)
    if usage.network is not None:
        service = usage.network.network_address.packed, usage.network.prefixlen
    ue: tuple[ipfix.Value, ...] = (usage.key.ue,) if version == 4 else (usage.key.ue + bytes(8), 64)
    one = usage.traffic
    return ipfix.Record(
        TEMPLATES[version],
        (
            *ue, *service, usage.service, usage.flow_id, usage.key.vlan or 0,
            one.up_packets, one.up_octets, one.down_packets, one.down_octets, start_ms, end_ms, usage.reason,
        ),
    )  # fmt: skip


def body_of(usage: Usage, start: str, end: str) -> dict[str, object]:
    """What the API shows, and a line of the file begins with, given the times as text."""
    key, one = usage.key, usage.traffic
    network = usage.network
    host = network is not None and network.prefixlen == network.max_prefixlen
    return {
        "service": usage.service,
        "serviceIP": "" if network is None else str(network.network_address if host else network),
        "ue": address_text(key.ue),
        "enb": str(ip_address(key.enb)),
        "sgw": str(ip_address(key.sgw)),
        "vlan": key.vlan,
        "flow_id": f"{usage.flow_id:016x}",
        "start": start,
        "end": end,
        "uplink": {"packets": one.up_packets, "bytes": one.up_octets},
        "downlink": {"packets": one.down_packets, "bytes": one.down_octets},
    }
