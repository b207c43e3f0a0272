"""Addresses and prefixes that people write: one canonical form for equal ones."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final

from tof.errors import BadRequest
from tof.model import IpAddress, IpNetwork

LENGTH: Final = re.compile(r"0|[1-9][0-9]{0,2}")
MAPPED_BITS: Final = 96
BROADCAST: Final = IPv4Address("255.255.255.255")
SHORTEST_UNSPECIFIED: Final = 8
"""Shorter prefixes of the unspecified address have addresses that are somebody's; 0.0.0.0/0 is everything."""


def canonical(address: IpAddress) -> IpAddress:
    """One form for equal addresses: an IPv4-mapped IPv6 address is the IPv4 address."""
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def parse_address(text: str) -> IpAddress:
    """The canonical address behind ``text`` (IPv4-mapped IPv6 is IPv4); ValueError if it is none."""
    return canonical(_unscoped(text))


def parse_prefix(text: str) -> tuple[IpAddress, int | None]:
    """The address behind ``text``, and the prefix length that follows it; ValueError if it is neither."""
    plain, slash, length = text.partition("/")
    if not slash:
        return parse_address(plain), None
    if not LENGTH.fullmatch(length):
        raise ValueError(f"{length!r} is no prefix length")
    return _unscoped(plain), int(length)


def network_of(address: IpAddress, length: int | None, field: str) -> IpNetwork:
    """The canonical prefix, of one address without ``length``; BadRequest names ``field`` if there is none such."""
    if length is None:
        return ip_network(canonical(address))
    if not 0 <= length <= address.max_prefixlen:
        longest = f"a prefix of IPv{address.version} is no longer than /{address.max_prefixlen}"
        raise BadRequest(f"{field} {address}/{length}: {longest}", field)
    if length >= MAPPED_BITS and canonical(address) is not address:
        address, length = canonical(address), length - MAPPED_BITS
    network = ip_network((address, length), strict=False)
    if network.network_address != address:
        raise BadRequest(
            f"{field} {address}/{length} has bits set behind the prefix: "
            f"{network} is the prefix, {address} the one address",
            field,
        )
    return network


def is_host(network: IpNetwork) -> bool:
    """Whether the prefix is one address."""
    return network.prefixlen == network.max_prefixlen


def prefix_text(network: IpNetwork) -> str:
    """How a prefix is shown: one address without its length."""
    return str(network.network_address if is_host(network) else network)


def _unscoped(text: str) -> IpAddress:
    address = ip_address(text)
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        raise ValueError(f"{text!r} has a scope")
    return address


def check_usable(network: IpNetwork, field: str) -> None:
    """BadRequest if these are no addresses of a server, whoever may be that."""
    ends = (network.network_address, network.broadcast_address)
    kinds = {
        "multicast": all(a.is_multicast for a in ends),
        "loopback": all(a.is_loopback for a in ends),
        "unspecified": ends[0].is_unspecified and network.prefixlen >= SHORTEST_UNSPECIFIED,
        "link-local": network.version == 6 and all(a.is_link_local for a in ends),
        "broadcast": ends[0] == BROADCAST,
    }
    for kind, applies in kinds.items():
        if applies:
            raise BadRequest(f"{field} {prefix_text(network)} is {kind}", field)
