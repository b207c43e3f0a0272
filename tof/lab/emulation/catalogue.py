"""Laboratory: the scenarios by name."""

from __future__ import annotations

from collections.abc import Mapping

from tof.errors import SetupError
from tof.lab.emulation import faults, forms, mobility, scenarios
from tof.lab.emulation.player import Scenario

SCENARIOS: Mapping[str, Scenario] = {
    "attach": scenarios.attach,
    "first-packet": scenarios.first_packet,
    "detach": scenarios.detach,
    "two-bearers": scenarios.two_bearers,
    "x2-handover": mobility.x2_handover,
    "s1-handover": mobility.s1_handover,
    "n2-handover": mobility.n2_handover,
    "handover-without-end-marker": mobility.handover_without_end_marker,
    "handover-and-back": mobility.handover_and_back,
    "edge-only-handover": mobility.edge_only_handover,
    "sgw-relocation": mobility.sgw_relocation,
    "idle": scenarios.idle,
    "paging": scenarios.paging,
    "reuse-address": scenarios.reuse_address,
    "reuse-teid": scenarios.reuse_teid,
    "overlap": scenarios.overlap,
    "spoofing": faults.spoofing,
    "error-indication": faults.error_indication,
    "restart": faults.restart,
    "storm": faults.storm,
    "4g": forms.s1u,
    "4g-sequence": forms.s1u_sequence,
    "5g": forms.n3_flows,
    "ipv6": forms.ipv6,
    "ipv6-transport": forms.ipv6_transport,
    "mixed": forms.mixed,
}


def line(name: str) -> str:
    """What a scenario plays, in a line."""
    return (SCENARIOS[name].__doc__ or "").strip()


def chosen(names: list[str]) -> list[str]:
    """The names if all are known; SetupError says which are not."""
    unknown = [name for name in names if name not in SCENARIOS]
    if unknown:
        raise SetupError(f"no scenario {', '.join(unknown)}; `tof lab scenarios` lists them")
    return names
