"""The Pinger's rules (tables 1 and 4): its echo requests, and nothing else, leave on behalf of a UE."""

from __future__ import annotations

from collections.abc import Iterator

from tof.dataplane.desired import Desired, PingRoute
from tof.dataplane.flow import Flow, Goto, Match, Output, SetField, family
from tof.dataplane.tables import CLASSIFIER, OUTPUT
from tof.model import address_text, tunnel_mac


def rules(desired: Desired) -> Iterator[Flow]:
    """For every tunnel being pinged: admit its echo requests, give them the UE's source address."""
    for ping in desired.pings:
        match = _match(desired.ports.pinger, ping)
        note = f"Pinger: tunnel {ping.tunnel_index} as {address_text(ping.ue)}"
        yield Flow(CLASSIFIER, 100, match, (Goto(OUTPUT),), note)
        rewrite = SetField(family(ping.ue).source, ping.ue)
        yield Flow(OUTPUT, 100, match, (rewrite, Output(desired.ports.ue)), note)


def _match(in_port: int, ping: PingRoute) -> Match:
    ip = family(ping.target)
    tunnel = (("in_port", in_port), ("eth_dst", tunnel_mac(ping.tunnel_index)), ("eth_type", ip.eth_type))
    return (*tunnel, *ip.echo_request, (ip.destination, ping.target))
