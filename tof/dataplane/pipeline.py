"""The pipeline of br-ue: all boxes rendered together, checked, and written out for people."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import lru_cache
from itertools import combinations
from typing import Final

from tof.dataplane import applications, classifier, marks, nat, pinger, ports, security, sff
from tof.dataplane.desired import Desired
from tof.dataplane.flow import Flow, Masked, PushNsh, bits, text
from tof.dataplane.tables import TABLE_NAMES

BOXES: Final = (
    ports.rules,
    applications.rules,
    marks.rules,
    classifier.rules,
    sff.rules,
    nat.rules,
    security.rules,
    pinger.rules,
)

_Mask = tuple[tuple[str, int], ...]


def render(desired: Desired) -> frozenset[Flow]:
    """Every rule that br-ue should hold, checked."""
    flows = frozenset(flow for box in BOXES for flow in box(desired))
    check(flows)
    return flows


def check(flows: Iterable[Flow]) -> None:
    """Raise ValueError if a rule goes to no higher table, or on with NSH put around, or two match with equal priority."""
    levels: dict[tuple[int, int], list[Flow]] = defaultdict(list)
    for flow in frozenset(flows):
        levels[flow.table, flow.priority].append(flow)
    for level in levels.values():
        _check_level(frozenset(level))


@lru_cache(maxsize=128)
def _check_level(level: frozenset[Flow]) -> None:
    """Those of one table and priority; remembered, because most changes leave most levels as they were."""
    alike: dict[_Mask, list[Flow]] = defaultdict(list)
    for flow in level:
        if any(table <= flow.table for table in flow.onward):
            raise ValueError(f"does not go to a higher table: {text(flow)}")
        if flow.onward and any(isinstance(action, PushNsh) for action in flow.actions):
            # Taking a header off in the pass that put it on is what ends Open vSwitch 3.1 with MPLS.
            raise ValueError(f"goes on with a header that it has put on: {text(flow)}")
        alike[_mask(flow)].append(flow)
    for mask, flows in alike.items():
        _check_disjoint(flows, [], mask)
    for (mask_a, a), (mask_b, b) in combinations(alike.items(), 2):
        other = dict(mask_b)
        _check_disjoint(a, b, tuple((name, one & other[name]) for name, one in mask_a if name in other))


def dump(desired: Desired) -> str:
    """The pipeline as a golden file: ovs-ofctl syntax, a comment for each table, box and service."""
    lines = []
    flows = sorted(render(desired), key=lambda flow: (flow.table, -flow.priority, flow.note, text(flow)))
    table, note = -1, ""
    for flow in flows:
        if flow.table != table:
            table, note = flow.table, ""
            lines += ["", f"# table {table}: {TABLE_NAMES[table]}"]
        if flow.note != note:
            note = flow.note
            lines.append(f"# {note}")
        lines.append(text(flow))
    return "\n".join(lines[1:]) + "\n"


def _check_disjoint(a: list[Flow], b: list[Flow], mask: _Mask) -> None:
    # Two shapes overlap exactly where their values agree in the bits that both look at.
    seen: dict[tuple[int, ...], Flow] = {}
    for flow in a:
        known = seen.setdefault(_project(flow, mask), flow)
        if known is not flow and not b:
            raise ValueError(f"ambiguous: {text(known)} | {text(flow)}")
    for flow in b:
        rival = seen.get(_project(flow, mask))
        if rival is not None:
            raise ValueError(f"ambiguous: {text(rival)} | {text(flow)}")


def _project(flow: Flow, mask: _Mask) -> tuple[int, ...]:
    values = _values(flow)
    return tuple([values[name] & one for name, one in mask])


@lru_cache(maxsize=1 << 16)
def _values(flow: Flow) -> Mapping[str, int]:
    return {name: bits(value) for name, value in flow.match}


@lru_cache(maxsize=1 << 16)
def _mask(flow: Flow) -> _Mask:
    return tuple(
        (name, bits(value.mask) if isinstance(value, Masked) else (1 << 128) - 1)
        for name, value in flow.match
    )
