"""The smallest ordered change that turns the rules a switch holds into those it should hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tof.dataplane.flow import Flow, is_ours


@dataclass(frozen=True, slots=True)
class Plan:
    """Rules to put, downstream tables first, then cookies to drop, upstream tables first."""

    put: tuple[Flow, ...] = ()
    drop: tuple[int, ...] = ()

    @property
    def empty(self) -> bool:
        """Whether there is nothing to do."""
        return not self.put and not self.drop


def diff(actual: Mapping[int, int], wanted: frozenset[Flow]) -> Plan:
    """From ``actual`` (cookie -> table, as read back) to ``wanted``; rules of others are left alone."""
    keep = {flow.cookie for flow in wanted}
    put = sorted(
        (flow for flow in wanted if flow.cookie not in actual),
        key=lambda flow: (-flow.table, -flow.priority, flow.cookie),
    )
    drop = sorted(
        (table, cookie) for cookie, table in actual.items() if is_ours(cookie) and cookie not in keep
    )
    return Plan(tuple(put), tuple(cookie for _, cookie in drop))
