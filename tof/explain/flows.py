"""Whether a user's packet to a service is one to divert: ``take_flow`` and ``judge_flow`` of tof.bpf.c, with dictionaries.

The bounds of the flow table in the kernel are not modelled: 4 096 flows of one UE at a time.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from typing import Final, NamedTuple

from tof.drivers.layout import TunnelRecord
from tof.explain.reading import Part, User
from tof.model import Service
from tof.wire import inet

FLOW_FRESH_NS: Final = 30_000_000_000
YOUNG_NS: Final = 2_000_000_000
PIECE_NS: Final = 1_000_000_000
DIVERTED: Final = "diverted"

FlowKey = tuple[bytes, bytes, int, tuple[int, int] | None]
PieceKey = tuple[int, bytes, bytes, bytes, int]


@dataclass(slots=True)
class _Flow:
    session: int
    service: str
    uplink: int
    last_ns: int


class First(NamedTuple):
    """What became of the first fragment of a user's datagram."""

    service: Service | None
    reason: str
    since_ns: int


class Flows:
    """The flows that are diverted, and the fragments that follow their first one."""

    def __init__(self) -> None:
        self._flows: dict[FlowKey, _Flow] = {}
        self._firsts: dict[PieceKey, First] = {}

    def first_of(self, user: User, session: int, now_ns: int) -> First | None:
        """The first fragment of the datagram that this later one is of."""
        if user.part is not Part.LATER:
            return None
        first = self._firsts.get(_piece(user, session))
        return first if first is not None and now_ns - first.since_ns < PIECE_NS else None

    def remember(self, user: User, session: int, service: Service | None, reason: str, now_ns: int) -> None:
        """The later fragments go where the first one went."""
        if user.part is Part.FIRST:
            self._firsts[_piece(user, session)] = First(service, reason, now_ns)

    def take(
        self, user: User, record: TunnelRecord, service: Service, now_ns: int, tunnels: Container[int],
        *, paired: bool,
    ) -> str:  # fmt: skip
        """The reason why the packet passes, or ``diverted``; ``tunnels``: the numbers of those that are known."""
        if user.part is not Part.LATER:
            return self._judge(user, record, service, now_ns, tunnels, paired=paired)
        first = self.first_of(user, record.session, now_ns)
        if first is not None:
            return first.reason
        return "inner_fragment" if user.protocol == inet.TCP else DIVERTED

    def runs(self, user: User, service: Service, now_ns: int, tunnels: Container[int]) -> bool:
        """Whether the packet belongs to a TCP connection that is diverted to ``service``."""
        known = self._flows.get((user.source, user.destination, user.protocol, user.ports))
        goes_on = user.protocol == inet.TCP and not user.opens and user.part is not Part.LATER
        return (
            goes_on
            and known is not None
            and known.service == service.name
            and _in_use(known, now_ns, tunnels)
        )

    def _judge(
        self, user: User, record: TunnelRecord, service: Service, now_ns: int, tunnels: Container[int],
        *, paired: bool,
    ) -> str:  # fmt: skip
        key = user.source, user.destination, user.protocol, user.ports
        known = self._flows.get(key)
        goes_on = user.protocol == inet.TCP and not user.opens
        if (
            known is not None
            and known.session != record.session
            and _in_use(known, now_ns, tunnels)
            and not (paired and known.last_ns < record.learnt_ns)  # its UE has come here from there
        ):
            young = now_ns - record.learnt_ns < YOUNG_NS
            return "flow_waits" if goes_on and young else "flow_ambiguous"
        if goes_on and (known is None or known.service != service.name):
            return "flow_unknown"
        self._flows[key] = _Flow(record.session, service.name, record.number, now_ns)
        return DIVERTED


def _in_use(known: _Flow, now_ns: int, tunnels: Container[int]) -> bool:
    return now_ns - known.last_ns < FLOW_FRESH_NS and known.uplink in tunnels


def _piece(user: User, session: int) -> PieceKey:
    return session, user.source, user.destination, user.ident, user.protocol
