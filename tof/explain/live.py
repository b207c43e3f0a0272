"""What a running TOF would do with a packet of a UE, from what its agent tells."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any, Final, NamedTuple

from tof.dataplane.selection import Facts, Learnt, judge, rule_lists
from tof.explain.choosing import UNKNOWN_PROTOCOL, nearest
from tof.explain.words import Outcome, Verdict
from tof.model import Chain, Direction, Mode, Service, TunnelState
from tof.wire.inet import TCP

Tunnel = Mapping[str, Any]
"""As ``GET /tunnels`` shows it."""
_NOWHERE: Final = bytes(4)
"""An address of a node that nobody has named."""


@dataclass(frozen=True, slots=True)
class Question:
    """A packet from ``ue`` to ``to`` (packed); the rest narrows down the tunnel. ``vlan`` 0: untagged."""

    ue: bytes
    to: bytes
    protocol: int = UNKNOWN_PROTOCOL
    port: int | None = None
    dscp: int = 0
    teid: int | None = None
    source: bytes | None = None
    destination: bytes | None = None
    vlan: int | None = None

    def wants(self, tunnel: Tunnel) -> bool:
        """Whether the packet may come in this tunnel."""
        return (
            tunnel["direction"] == Direction.UPLINK
            and self.teid in (None, tunnel["teid"])
            and self.source in (None, _packed(tunnel["source"]))
            and self.destination in (None, _packed(tunnel["destination"]))
            and self.vlan in (None, tunnel["vlan"] or 0)
        )


@dataclass(frozen=True, slots=True)
class Known:
    """What the agent said: the UE's tunnels, all services, the addresses that those given by domain have; whose
    application is not there and why; what is wrong.
    """

    tunnels: Sequence[Tunnel] = ()
    services: Sequence[Service] = ()
    chains: Sequence[Chain] = ()
    learnt: Learnt = field(default_factory=dict)
    unresolved: Mapping[str, str] = field(default_factory=dict)
    unhealthy: Mapping[str, str] = field(default_factory=dict)
    broken_chain: Mapping[str, str] = field(default_factory=dict)
    out_of_hours: Mapping[str, str] = field(default_factory=dict)
    bypass: str = ""
    ovs_down: str = ""


class Reply(NamedTuple):
    """Where the application's reply goes: by a named reason, with the tunnels in question."""

    reason: str
    tunnels: tuple[Tunnel, ...] = ()


class Answer(NamedTuple):
    """What happens to the packet if it comes in ``uplink``; None: in a tunnel that is not known yet."""

    uplink: Tunnel | None
    outcome: Outcome
    reply: Reply | None = None


def answers(question: Question, known: Known) -> list[Answer]:
    """One for each uplink tunnel that the packet may come in; at least one."""
    ups = [tunnel for tunnel in known.tunnels if question.wants(tunnel)]
    if not ups:
        return [_unknown(question, known)]
    return [_in_tunnel(question, known, up) for up in ups]


def _in_tunnel(question: Question, known: Known, up: Tunnel) -> Answer:
    vlan = up["vlan"] or 0
    facts = _facts(question, _packed(up["source"]), _packed(up["destination"]), vlan)
    outcome = _judge(facts, known)
    diverted = outcome.verdict is Verdict.DIVERTED
    return Answer(up, outcome, _reply(up, known.tunnels) if diverted else None)


def _unknown(question: Question, known: Known) -> Answer:
    nodes = question.source or _NOWHERE, question.destination or _NOWHERE
    outcome = _judge(_facts(question, *nodes, question.vlan or 0), known)
    reason = "uplink_unknown" if known.tunnels else "ue_unknown"
    if outcome.verdict is Verdict.DIVERTED:
        return Answer(None, outcome._replace(reason=reason), Reply("ue_no_tunnel"))
    if outcome.reason == "no_service":
        outcome = outcome._replace(verdict=Verdict.TEACHES, reason=reason)
    return Answer(None, outcome)


def _facts(question: Question, enb: bytes, sgw: bytes, vlan: int) -> Facts:
    q = question
    return Facts(q.ue, q.to, q.protocol, q.port, q.dscp, enb, sgw, vlan)


def _judge(facts: Facts, known: Known) -> Outcome:
    if known.bypass:
        return Outcome(Verdict.PASSES, "bypassed", detail=known.bypass)
    on_duty = [service for service in known.services if service.name not in known.out_of_hours]
    rule = judge(rule_lists(on_duty, known.learnt), facts)
    if rule is None and (off := judge(rule_lists(known.services, known.learnt), facts)) is not None:
        return Outcome(Verdict.PASSES, "out_of_hours", off.service, known.out_of_hours[off.service.name])
    if rule is None:
        miss = nearest(known.services, facts, known.learnt)
        return Outcome(Verdict.PASSES, "no_service", None, miss.text if miss else _no_such_address(facts))
    absent = (
        ("unresolved", known.unresolved),
        ("unhealthy", known.unhealthy),
        ("broken_chain", known.broken_chain),
    )
    for reason, names in absent:
        if rule.service.name in names:
            return Outcome(Verdict.PASSES, reason, rule.service, names[rule.service.name])
    if known.ovs_down:
        return Outcome(Verdict.PASSES, "ovs_down", rule.service, known.ovs_down)
    if rule.service.mode is Mode.SHADOW:
        return Outcome(Verdict.SHADOW, "shadow", rule.service)
    detail = (
        "from the SYN on: a connection that began at the core stays there" if facts.protocol == TCP else ""
    )
    return Outcome(Verdict.DIVERTED, "diverted", rule.service, detail)


def _no_such_address(facts: Facts) -> str:
    return f"no service has {ip_address(facts.destination)}"


def _reply(up: Tunnel, tunnels: Sequence[Tunnel]) -> Reply:
    """The API does not say which downlink an uplink is paired with: those between its nodes, else the UE's others."""
    downs = list(_downs(tunnels))
    beside = [down for down in downs if _between_the_same(up, down)]
    live = [d for d in beside if d["state"] != TunnelState.ENDED] or [
        d for d in downs if d["state"] != TunnelState.ENDED
    ]
    if up["state"] != TunnelState.PAIRED or not live:
        ended = bool(beside) and all(d["state"] == TunnelState.ENDED for d in beside)
        return Reply("ue_ended", tuple(beside)) if ended else Reply("ue_no_tunnel")
    return Reply("answered" if len(live) == 1 else "answered_in_one", tuple(live))


def _downs(tunnels: Sequence[Tunnel]) -> Iterator[Tunnel]:
    return (tunnel for tunnel in tunnels if tunnel["direction"] == Direction.DOWNLINK)


def _between_the_same(up: Tunnel, down: Tunnel) -> bool:
    ends = up["destination"], up["source"], up["vlan"]
    return bool((down["source"], down["destination"], down["vlan"]) == ends)


def _packed(text: str) -> bytes:
    return ip_address(text).packed
