"""Application ports (tables 0, 5 and 7): nobody says there what is not its own, and who hears it.

What an application says to UEs goes on as that of any other application; what it says to others goes by the security
groups. Behind the apps adapter, and in the TOF's own kernel, are such others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from ipaddress import IPv6Address
from typing import Final

from tof.dataplane.desired import AppPort, Desired, Ports
from tof.dataplane.flow import (
    IPV4,
    IPV6,
    TAGGED,
    Action,
    Flow,
    Goto,
    Inspect,
    Masked,
    Match,
    Output,
    SetField,
    family,
)
from tof.dataplane.security import membership
from tof.dataplane.tables import CLASSIFIER, DOWN, EGRESS, INGRESS, LAN, PORTS, REMOTE
from tof.model import GATEWAY_MAC, SERVICE_MAC_PREFIX, TUNNEL_MAC_PREFIX, IpAddress

ARP: Final = ("eth_type", 0x0806)
TUNNEL_MACS: Final = Masked(TUNNEL_MAC_PREFIX + bytes(4), b"\xff\xff" + bytes(4))
SERVICE_MACS: Final = Masked(SERVICE_MAC_PREFIX + bytes(4), b"\xff\xff" + bytes(4))
NEIGHBOUR_DISCOVERY: Final = range(133, 138)
_ROUTER_SOLICITATION, _SOLICITATION, _ADVERTISEMENT = 133, 135, 136
_NO_MAC: Final = bytes(6)


def rules(desired: Desired) -> Iterator[Flow]:
    """Rules of application ports, and of others towards them; none where there are none."""
    if not desired.app_ports:
        return
    groups = membership(desired)
    ours = (*desired.app_addresses, *desired.local)
    for port in desired.app_ports:
        yield from _of_port(port, groups[port.port], ours, desired.ports)
    yield from _nobody_elses(desired)
    yield from _remotes(desired, groups)
    yield from _elsewhere(desired)


def link_local(mac: bytes) -> IPv6Address:
    """The link-local address that follows from a MAC address (RFC 4291)."""
    return IPv6Address(b"\xfe\x80" + bytes(6) + bytes((mac[0] ^ 2,)) + mac[1:3] + b"\xff\xfe" + mac[3:])


@lru_cache(maxsize=4096)
def _of_port(port: AppPort, groups: int, ours: tuple[IpAddress, ...], ports: Ports) -> tuple[Flow, ...]:
    """The rules that follow from one port; with hundreds of them, those of one alone are made anew when it comes."""
    own = (*_own_neighbours(port), *_own_packets(ours, port, groups))
    return (*own, *_refused(port), *_to_port(ports, port))


def _own_neighbours(port: AppPort) -> Iterator[Flow]:
    """ARP and neighbour discovery that say of the port's own addresses that they have its own MAC address."""
    here: Match = (("in_port", port.port), ("eth_src", port.mac))
    onward = (Goto(LAN),)
    own6 = _with_link_local(port)
    for address in _of(port.addresses, 4):
        match = (*here, ARP, ("arp_spa", address), ("arp_sha", port.mac))
        yield Flow(PORTS, 200, match, onward, f"{port.name}: its own ARP")
    for source in own6:
        for mac in (port.mac, _NO_MAC):
            asks = (*here, *_discovery(_SOLICITATION), ("ipv6_src", source), ("ipv6_nd_sll", mac))
            yield Flow(PORTS, 200, asks, onward, f"{port.name}: its own neighbour discovery")
            for target in own6:
                says = (("ipv6_src", source), ("ipv6_nd_target", target), ("ipv6_nd_tll", mac))
                match = (*here, *_discovery(_ADVERTISEMENT), *says)
                yield Flow(PORTS, 200, match, onward, f"{port.name}: its own neighbour discovery")


def _own_packets(tofs: tuple[IpAddress, ...], port: AppPort, groups: int) -> Iterator[Flow]:
    here: Match = (("in_port", port.port), ("eth_src", port.mac))
    judged = (SetField("reg5", groups), SetField("reg7", port.zone), Goto(REMOTE))
    for address in port.addresses:
        ip = family(address.packed)
        own: Match = (*here, ("eth_type", ip.eth_type), (ip.source, address.packed))
        for ours in _of(tofs, address.version):
            yield Flow(
                PORTS, 130, (*own, (ip.destination, ours)), judged, f"{port.name}: to the TOF's own address"
            )
        to_ue = (SetField("reg3", DOWN), Goto(CLASSIFIER))
        yield Flow(PORTS, 120, (*own, ("eth_dst", GATEWAY_MAC)), to_ue, f"{port.name}: to UEs")
        yield Flow(PORTS, 100, own, judged, f"{port.name}: to others")


def _refused(port: AppPort) -> Iterator[Flow]:
    """What is dropped by a rule of its own is counted there."""
    here: Match = (("in_port", port.port),)
    note = f"anti-spoof: {port.name}"
    yield Flow(PORTS, 310, (*here, ("vlan_vid", TAGGED)), (), note)
    yield Flow(PORTS, 190, (*here, ARP), (), note)
    for kind in NEIGHBOUR_DISCOVERY:
        yield Flow(PORTS, 190, (*here, *_discovery(kind)), (), note)
    for macs in (TUNNEL_MACS, SERVICE_MACS):
        yield Flow(PORTS, 110, (*here, ("eth_dst", macs)), (), note)
    yield Flow(PORTS, 10, here, (), note)
    yield from _idle_talk(port)


def _idle_talk(port: AppPort) -> Iterator[Flow]:
    """What a kernel says of itself and nobody answers here: no forgery, so it is dropped apart from that."""
    here: Match = (("in_port", port.port), ("eth_src", port.mac))
    note = f"{port.name}: what nobody answers"
    yield Flow(PORTS, 195, (*here, *_discovery(_ROUTER_SOLICITATION)), (), note)
    yield Flow(PORTS, 195, (*here, *_discovery(_SOLICITATION), ("ipv6_src", bytes(16))), (), note)
    for source in (bytes(4), bytes(16), link_local(port.mac).packed):
        ip = family(source)
        yield Flow(PORTS, 20, (*here, ("eth_type", ip.eth_type), (ip.source, source)), (), note)


def _to_port(ports: Ports, port: AppPort) -> Iterator[Flow]:
    """ARP, neighbour discovery and packets for the port's addresses, from whoever may say that."""
    out = (Output(port.port),)
    for source in (ports.apps, ports.gateway):
        asking: Match = (("in_port", source),)
        for match in _neighbours(port.addresses, port.mac):
            yield Flow(PORTS, 220, (*asking, *match), out, f"neighbours of {port.name}")
        for match in _packets(port.addresses):
            yield Flow(PORTS, 210, (*asking, *match), _into(port), f"to {port.name}")
    for match in _neighbours(port.addresses, port.mac):
        yield Flow(LAN, 200, match, out, f"neighbours of {port.name}")
    for match in _packets(port.addresses):
        yield Flow(LAN, 150, match, _into(port), f"to {port.name}")


def _into(port: AppPort) -> tuple[Action, ...]:
    return SetField("eth_dst", port.mac), SetField("reg4", port.port), Inspect(port.zone, INGRESS)


def _remotes(desired: Desired, groups: Mapping[int, int]) -> Iterator[Flow]:
    """Which groups those are in whom an application port speaks to."""
    tracked = Inspect("reg7", EGRESS)
    for port in desired.app_ports:
        if groups[port.port]:
            for match in _packets(port.addresses):
                yield Flow(
                    REMOTE,
                    100,
                    match,
                    (SetField("reg6", groups[port.port]), tracked),
                    f"groups of {port.name}",
                )
    for ip in (IPV4, IPV6):
        yield Flow(REMOTE, 10, (("eth_type", ip.eth_type),), (tracked,), "in no group")


def _elsewhere(desired: Desired) -> Iterator[Flow]:
    """From application ports: to the TOF's own kernel, and to the network behind the apps adapter."""
    ours = (*desired.app_addresses, *desired.local)
    for match in _neighbours(ours, GATEWAY_MAC):
        yield Flow(LAN, 200, match, (Output(desired.ports.gateway),), "neighbours of the TOF")
    for match in _packets(ours):
        yield Flow(LAN, 150, match, (Output(desired.ports.gateway),), "to the TOF's own address")
    yield Flow(LAN, 10, (), (Output(desired.ports.apps),), "to the network of the apps adapter")


def _nobody_elses(desired: Desired) -> Iterator[Flow]:
    """Behind the apps adapter nobody is the TOF, or an application that has a port of its own."""
    apps: Match = (("in_port", desired.ports.apps),)
    note = "anti-spoof: addresses that are behind other ports"
    taken = {*desired.app_addresses, *desired.local}
    taken |= {address for port in desired.app_ports for address in port.addresses}
    link_locals = {link_local(mac) for mac in (GATEWAY_MAC, *(port.mac for port in desired.app_ports))}
    for address in sorted(taken | link_locals, key=lambda one: one.packed):
        ip = family(address.packed)
        if ip is IPV4:
            yield Flow(PORTS, 305, (*apps, ARP, ("arp_spa", address.packed)), (), note)
        else:
            says = (*_discovery(_ADVERTISEMENT), ("ipv6_nd_target", address.packed))
            yield Flow(PORTS, 306, (*apps, *says), (), note)
        yield Flow(PORTS, 305, (*apps, ("eth_type", ip.eth_type), (ip.source, address.packed)), (), note)


def _neighbours(addresses: tuple[IpAddress, ...], mac: bytes) -> Iterator[Match]:
    """ARP and neighbour discovery that ask for these, or answer them."""
    for address in _of(addresses, 4):
        yield (ARP, ("arp_tpa", address))
    for address in (*_of(addresses, 6), link_local(mac).packed):
        yield (*_discovery(_SOLICITATION), ("ipv6_nd_target", address))
        yield (*_discovery(_ADVERTISEMENT), ("ipv6_dst", address))


def _packets(addresses: tuple[IpAddress, ...]) -> Iterator[Match]:
    for address in addresses:
        ip = family(address.packed)
        yield (("eth_type", ip.eth_type), (ip.destination, address.packed))


def _with_link_local(port: AppPort) -> tuple[bytes, ...]:
    own = _of(port.addresses, 6)
    return (*own, link_local(port.mac).packed) if own else ()


def _of(addresses: tuple[IpAddress, ...], version: int) -> tuple[bytes, ...]:
    return tuple(address.packed for address in addresses if address.version == version)


def _discovery(kind: int) -> Match:
    return ("eth_type", IPV6.eth_type), ("ip_proto", 58), ("icmpv6_type", kind)
