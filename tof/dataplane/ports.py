"""Tables 0 and 4: which port may say what, and the way out of br-ue."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from tof.dataplane import nat, security
from tof.dataplane.desired import Desired, ServiceRoute, by_application
from tof.dataplane.flow import (
    CT_INVALID,
    CT_NEW,
    CT_REPLY,
    CT_TRACKED,
    IPV4,
    IPV6,
    Action,
    Commit,
    Flow,
    Goto,
    Masked,
    Match,
    Output,
    SetField,
    family,
)
from tof.dataplane.marks import into
from tof.dataplane.tables import BACK, CLASSIFIER, DOWN, OUTPUT, PORTS, UP
from tof.model import GATEWAY_MAC, TUNNEL_MAC_PREFIX, Heading, service_mac

_TUNNEL_MACS: Final = Masked(TUNNEL_MAC_PREFIX + bytes(4), b"\xff\xff" + bytes(4))
_BROADCAST: Final = b"\xff" * 6
_IPV6_MULTICAST: Final = Masked(b"\x33\x33" + bytes(4), b"\xff\xff" + bytes(4))
_CFM: Final = 0x8902
_ARP: Final = 0x0806
_NEIGHBOUR_DISCOVERY: Final = range(133, 138)
_ASKED: Final = CT_TRACKED | CT_INVALID | CT_REPLY | CT_NEW
_FIRST: Final = ("ct_state", Masked(CT_TRACKED | CT_NEW, _ASKED))
_FURTHER: Final = ("ct_state", Masked(CT_TRACKED, _ASKED))
_REPLY: Final = ("ct_state", Masked(CT_REPLY | CT_TRACKED, CT_REPLY | CT_TRACKED))


def rules(desired: Desired) -> Iterator[Flow]:
    """Rules of table 0 (who may send what where) and table 4 (next hops)."""
    yield from _heartbeat(desired)
    yield from _ue(desired)
    yield from _gateway(desired)
    yield from _apps(desired)
    yield from _pinger(desired)
    for group in by_application(desired.services):
        yield from _to_application(desired, group)
        yield from _to_ue(desired, group)


def _heartbeat(desired: Desired) -> Iterator[Flow]:
    match = (("in_port", desired.ports.heartbeat), ("eth_type", _CFM))
    yield Flow(PORTS, 100, match, (Output(desired.ports.ue),), "heartbeat: proves OVS and its flows to XDP")


def _ue(desired: Desired) -> Iterator[Flow]:
    for ip in (IPV4, IPV6):
        match = (("in_port", desired.ports.ue), ("eth_type", ip.eth_type))
        yield Flow(PORTS, 100, match, _going(UP), "UE side")


def _going(direction: int) -> tuple[Action, ...]:
    return SetField("reg3", direction), Goto(CLASSIFIER)


def _pinger(desired: Desired) -> Iterator[Flow]:
    for ip in (IPV4, IPV6):
        match = (("in_port", desired.ports.pinger), ("eth_type", ip.eth_type))
        yield Flow(PORTS, 100, match, (Goto(CLASSIFIER),), "Pinger")


def _gateway(desired: Desired) -> Iterator[Flow]:
    match: Match = (("in_port", desired.ports.gateway),)
    yield Flow(PORTS, 100, match, (Output(desired.ports.apps),), "gateway: the TOF's own address")
    for address in desired.local:
        ip = family(address.packed)
        to_ue = (*match, ("eth_dst", GATEWAY_MAC), ("eth_type", ip.eth_type), (ip.source, address.packed))
        yield Flow(PORTS, 200, to_ue, _going(DOWN), "gateway: an application of the TOF's own, to UEs")


def _apps(desired: Desired) -> Iterator[Flow]:
    apps: Match = (("in_port", desired.ports.apps),)
    to_us: Match = (*apps, ("eth_dst", GATEWAY_MAC))
    to_gateway = (Output(desired.ports.gateway),)
    yield Flow(PORTS, 300, (*apps, ("eth_src", _TUNNEL_MACS)), (), "anti-spoof: tunnel MACs are the TOF's")
    for destination in (GATEWAY_MAC, _BROADCAST):
        match = (*apps, ("eth_dst", destination), ("eth_type", _ARP))
        yield Flow(PORTS, 200, match, to_gateway, "ARP")
    for to in (GATEWAY_MAC, _IPV6_MULTICAST):
        for kind in _NEIGHBOUR_DISCOVERY:
            icmp = (("eth_type", IPV6.eth_type), ("ip_proto", 58), ("icmpv6_type", kind))
            yield Flow(PORTS, 200, (*apps, ("eth_dst", to), *icmp), to_gateway, "neighbour discovery")
    for address in (*desired.app_addresses, *desired.local):
        ip = family(address.packed)
        match = (*to_us, ("eth_type", ip.eth_type), (ip.destination, address.packed))
        yield Flow(PORTS, 150, match, to_gateway, "to the TOF's own address")
    for ip in (IPV4, IPV6):
        match = (*to_us, ("eth_type", ip.eth_type))
        yield Flow(PORTS, 100, match, _going(DOWN), "applications")
    yield Flow(PORTS, 50, (*apps, ("eth_dst", _TUNNEL_MACS)), (), "anti-spoof: no application picks a tunnel")


def _to_application(desired: Desired, group: tuple[ServiceRoute, ...]) -> Iterator[Flow]:
    application_ip = group[0].service.application_ip.packed
    # Conntrack does not translate what it finds invalid, such as the answer to a flow it never saw begin.
    address = (SetField(family(application_ip).destination, application_ip),) if nat.is_tracked(group) else ()
    for route in group:
        match = _service(UP, route)
        out = Output(desired.port_of(route.service.application_ip))
        actions = (*address, SetField("eth_dst", route.next_hop_mac), out)
        yield Flow(OUTPUT, 100, match, actions, f"{route.service.name}: to its application")


def _to_ue(desired: Desired, group: tuple[ServiceRoute, ...]) -> Iterator[Flow]:
    owner = group[0]
    match = _service(DOWN, owner)
    if desired.vnfs:
        for route in group:
            home = (SetField("eth_dst", GATEWAY_MAC), *_home(desired, route))
            yield Flow(
                OUTPUT, 100, _service(BACK, route), home, f"{route.service.name}: to the UE, from its chain"
            )
    if not nat.is_tracked(group):
        yield Flow(OUTPUT, 100, match, _out(desired, owner), f"{owner.service.name}: to the UE")
        return
    # Translated back to a service that is gone by now: ended, at once and without touching conntrack.
    yield Flow(OUTPUT, 110, (*match, _REPLY), (), "reply on behalf of a service that was removed")
    for route in group:
        reply = (*match, _REPLY, ("ct_mark", route.service_id))
        yield Flow(OUTPUT, 120, reply, _out(desired, route), f"{route.service.name}: to the UE")
    yield from _openings(desired, group)


def _openings(desired: Desired, group: tuple[ServiceRoute, ...]) -> Iterator[Flow]:
    """What an application says first it says as the one address of a service: anything, or what its groups let out."""
    match, hosts = _service(DOWN, group[0]), [route for route in group if route.service.is_host]
    speaker = next((route for route in hosts if route.opens), None)
    if speaker is not None:
        address = nat.address_of(speaker.service)
        actions = (SetField(family(address).source, address), *_out(desired, speaker))
        note = f"{speaker.service.name}: flows that conntrack does not know"
        yield Flow(OUTPUT, 100, match, actions, note)
        return
    application = group[0].service.application_ip
    port = desired.app_port(application)
    voices = [route for route in hosts if route.service.initiates is None]
    for opening in security.openings(desired, port, Heading.EGRESS, ues=True) if port and voices else ():
        if ("eth_type", family(application.packed).eth_type) not in opening.match:
            continue
        # Its packets stay those of the direction that the connection began in, and are judged one by one.
        asking = (*match, *(one for one in opening.match if one[0] != "eth_type"))
        commit = Commit(nat.zone_of(application), nat_src=nat.address_of(voices[0].service))
        note = f"{voices[0].service.name}: flows that its application may open"
        home = _out(desired, voices[0])
        yield Flow(OUTPUT, opening.priority, (*asking, _FIRST), (commit, *home), note)
        yield Flow(OUTPUT, opening.priority, (*asking, _FURTHER), home, note)


def _out(desired: Desired, route: ServiceRoute) -> tuple[Action, ...]:
    """To the UE, or into the chain that leads there, from its far end."""
    named = SetField("eth_src", service_mac(route.service_id))
    if route.path.vnfs:
        return (named, *into(route.path, len(route.path.vnfs) - 1, DOWN))
    home = _home(desired, route)
    return (named, *home) if len(home) > 1 or desired.accounting or route.named else home


def _home(desired: Desired, route: ServiceRoute) -> tuple[Action, ...]:
    """To the UE, and a copy to where the service is mirrored."""
    to_ue, mirror = Output(desired.ports.ue), desired.mirrors.port(route.service)
    return (to_ue,) if mirror is None else (Output(mirror), to_ue)


def _service(direction: int, route: ServiceRoute) -> Match:
    eth_type = family(route.service.application_ip.packed).eth_type
    return (("reg3", direction), ("eth_type", eth_type), ("reg2", route.service_id))
