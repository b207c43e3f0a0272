"""Which rules of br-ue refuse what an application port says or would hear: what they count is told."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from tof.dataplane.desired import AppPort
from tof.dataplane.flow import Flow
from tof.dataplane.tables import EGRESS, INGRESS, PORTS

REASONS: Final = {PORTS: ("in_port", "spoofed"), EGRESS: ("in_port", "egress"), INGRESS: ("reg4", "ingress")}
"""By table: what of a rule names the port, and what it means that it drops."""


def refusals(flows: Iterable[Flow], ports: Iterable[AppPort]) -> Mapping[int, tuple[str, str]]:
    """Application and reason of every rule that refuses something at its port, by the rule's cookie.

    What is under the port's own MAC address, and is dropped all the same, is no more than idle talk.
    """
    names = {port.port: port.name for port in ports}
    found: dict[int, tuple[str, str]] = {}
    for flow in flows:
        if flow.actions or flow.table not in REASONS:
            continue
        field, reason = REASONS[flow.table]
        match = dict(flow.match)
        port = match.get(field)
        if isinstance(port, int) and port in names and "eth_src" not in match:
            found[flow.cookie] = names[port], reason
    return found
