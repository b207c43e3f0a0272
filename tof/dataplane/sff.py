"""The Service Function Forwarder (table 2): walks a chain hop by hop, in either direction."""

from __future__ import annotations

from collections.abc import Iterator

from tof.dataplane.desired import DEFAULT_CHAIN, Desired
from tof.dataplane.flow import Flow, Goto
from tof.dataplane.tables import NAT, SFF


def rules(desired: Desired) -> Iterator[Flow]:
    """Where (chain, hop, port) goes next: the default chain has one hop, NAT."""
    chain = DEFAULT_CHAIN
    for hop, name in enumerate(chain.hops):
        for in_port in (desired.ports.ue, desired.ports.apps):
            match = (("in_port", in_port), ("reg0", chain.id), ("reg1", hop))
            yield Flow(SFF, 100, match, (Goto(NAT),), f"chain {chain.name}, hop {hop}: {name}")
