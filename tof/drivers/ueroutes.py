"""The way from the TOF's own kernel to UEs: what leaves from an address of ours goes out of the gateway adapter.

There is no route to a UE on this host, and there must be none: a rule sends what comes *from* these addresses, and nothing
else, to a table of its own, whose next hop is the gateway adapter's own MAC address. On br-ue that means: to a UE.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from typing import Any, Final
from zlib import crc32

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from tof.config import IpInterface
from tof.errors import BackendError
from tof.model import GATEWAY_MAC, IpAddress

PRIORITY: Final = 7015
HOPS: Final = {4: "169.254.112.1", 6: "fe80::70f:1"}
"""Nobody's addresses; they stand for a neighbour with the gateway's MAC address."""
_FAMILIES: Final = {4: socket.AF_INET, 6: socket.AF_INET6}
_PERMANENT: Final = 0x80


def table_of(instance: str) -> int:
    """The routing table of an instance."""
    return 0x70F00000 | crc32(instance.encode()) & 0xFFFF


def put(instance: str, ifindex: int, addresses: Iterable[IpAddress], networks: Iterable[IpInterface]) -> None:
    """What leaves from ``addresses``, and only that, goes out of ``ifindex``; neighbours in ``networks`` as such."""
    wanted = {str(address): address.version for address in addresses}
    table = table_of(instance)
    try:
        with IPRoute() as ip:
            there = _drop_rules(ip, table, keep=wanted)
            for version in set(wanted.values()):
                _put_routes(ip, table, ifindex, version, networks)
            for source, version in wanted.items():
                if source not in there:
                    ip.rule("add", family=_FAMILIES[version], src=source, src_len=32 if version == 4 else 128,
                            table=table, priority=PRIORITY)  # fmt: skip
    except NetlinkError as error:
        raise BackendError(f"cannot route what leaves from {', '.join(wanted)}: {error.args[-1]}") from error


def remove(instance: str) -> bool:
    """Take the rules away; whether there were any. (The routes go with their adapter.)"""
    try:
        with IPRoute() as ip:
            before = list(_rules(ip, table_of(instance)))
            _drop_rules(ip, table_of(instance), keep=())
    except NetlinkError as error:
        raise BackendError(f"cannot remove routing rules: {error.args[-1]}") from error
    return bool(before)


def _put_routes(ip: IPRoute, table: int, ifindex: int, version: int, networks: Iterable[IpInterface]) -> None:
    family, hop = _FAMILIES[version], HOPS[version]
    ip.neigh(
        "replace", family=family, dst=hop, lladdr=GATEWAY_MAC.hex(":"), ifindex=ifindex, state=_PERMANENT
    )
    for own in networks:
        if own.version == version:
            ip.route("replace", family=family, dst=str(own.network), oif=ifindex, table=table)
    onlink = {"flags": ["onlink"]}
    ip.route("replace", family=family, dst="default", gateway=hop, oif=ifindex, table=table, **onlink)


def _rules(ip: IPRoute, table: int) -> Iterable[tuple[int, Any]]:
    for family in _FAMILIES.values():
        for rule in ip.get_rules(family=family):
            if rule.get_attr("FRA_TABLE") == table:
                yield family, rule


def _drop_rules(ip: IPRoute, table: int, keep: Iterable[str]) -> set[str]:
    kept = set()
    for family, rule in list(_rules(ip, table)):
        source = rule.get_attr("FRA_SRC")
        if source in keep:
            kept.add(source)
        else:
            ip.rule("del", family=family, src=source, src_len=rule["src_len"], table=table, priority=PRIORITY)
    return kept
