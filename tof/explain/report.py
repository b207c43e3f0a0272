"""Explanations as documents for ``--json`` and as rows for people; pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from tof.agent.chain_body import chain_body
from tof.dataplane.desired import ServedApplication
from tof.dataplane.spreading import FlowEnds, slot_of, slots
from tof.explain.choosing import UNKNOWN_PROTOCOL, protocol_text
from tof.explain.live import Answer, Question, Tunnel
from tof.explain.reading import Part, User
from tof.explain.reasons import REASONS
from tof.explain.story import Flow
from tof.explain.words import Explanation, Outcome
from tof.model import Chain, Service, SpreadBy, TunnelKey, address_text

Row = tuple[str, ...]
Chains = Sequence[Chain]
FLOW_COLUMNS = (
    "frames", "count", "from", "direction", "tunnel", "ue", "packet", "verdict", "reason", "service", "detail"
)  # fmt: skip
FRAME_COLUMNS = ("frame", *FLOW_COLUMNS[2:], "learnt")
ANSWER_COLUMNS = ("uplink", "verdict", "reason", "service", "reply", "detail")


def capture_document(
    name: str, told: Sequence[Explanation], services: Sequence[Service], parts: dict[str, Any]
) -> dict[str, Any]:
    """The document about a capture; ``parts``: its ``flows``, or its ``explained`` frames."""
    verdicts = Counter(one.outcome.verdict.value for one in told)
    reasons = Counter(one.outcome.reason for one in told)
    return {
        "capture": name,
        "frames": len(told),
        "services": len(services),
        "verdicts": dict(verdicts),
        "reasons": {reason: {"frames": number, "why": REASONS[reason]} for reason, number in reasons.items()},
        **parts,
    }


def flow_document(flow: Flow, chains: Chains = ()) -> dict[str, Any]:
    """One element of ``flows``."""
    frames = {"first": flow.first.number, "last": flow.last, "frames": flow.count}
    return frames | _said(flow.first, chains)


def frame_document(one: Explanation, chains: Chains = ()) -> dict[str, Any]:
    """One element of ``explained``."""
    return {"frame": one.number} | _said(one, chains) | {"learnt": list(one.outcome.learnt)}


def answer_document(question: Question, answers: Sequence[Answer], chains: Chains = ()) -> dict[str, Any]:
    """What a running TOF would do."""
    ends = FlowEnds(question.ue, question.protocol, None)
    asked = {
        "ue": address_text(question.ue),
        "to": address_text(question.to),
        "protocol": None if question.protocol == UNKNOWN_PROTOCOL else protocol_text(question.protocol),
        "port": question.port,
        "dscp": question.dscp,
    }
    return asked | {"answers": [_answer(each, ends, chains) for each in answers]}


def flow_rows(flows: Iterable[Flow], chains: Chains = ()) -> list[Row]:
    """A row of ``FLOW_COLUMNS`` for each flow."""
    return [
        (_frames(flow), str(flow.count), *_cells(flow.first, chains), flow.first.outcome.detail)
        for flow in flows
    ]


def frame_rows(told: Iterable[Explanation], chains: Chains = ()) -> list[Row]:
    """A row of ``FRAME_COLUMNS`` for each frame."""
    return [
        (str(one.number), *_cells(one, chains), one.outcome.detail, " ".join(one.outcome.learnt))
        for one in told
    ]


def reason_rows(reasons: Iterable[str]) -> list[Row]:
    """Each reason with its explanation."""
    return [(reason, REASONS[reason]) for reason in dict.fromkeys(reasons)]


def answer_rows(answers: Iterable[Answer], chains: Chains = ()) -> list[Row]:
    """A row of ``ANSWER_COLUMNS`` for each answer."""
    return [
        (
            "not known yet" if one.uplink is None else _shown(one.uplink),
            one.outcome.verdict.value,
            one.outcome.reason,
            _service_text(one.outcome.service, None, chains),
            "-"
            if one.reply is None
            else "  ".join((one.reply.reason, *(_shown(tunnel) for tunnel in one.reply.tunnels))),
            one.outcome.detail,
        )
        for one in answers
    ]


def _said(one: Explanation, chains: Chains) -> dict[str, Any]:
    return {
        "from": one.side.name.lower(),
        "direction": None if one.direction is None else one.direction.value,
        "tunnel": None if one.tunnel is None else _tunnel(one.tunnel, one.qfi),
        "ue": None if one.ue is None else address_text(one.ue),
        "packet": None if one.user is None else _packet(one.user),
        **_judged(one.outcome, _ends(one), chains),
    }


def _judged(outcome: Outcome, ends: FlowEnds | None, chains: Chains) -> dict[str, Any]:
    service = outcome.service
    return {
        "verdict": outcome.verdict.value,
        "reason": outcome.reason,
        "why": REASONS[outcome.reason],
        "detail": outcome.detail,
        "service": None if service is None else service.name,
        "chain": None if (chain := _chain(service, chains)) is None else chain_body(chain),
        "application": None if service is None else _application(service, ends),
    }


def _tunnel(key: TunnelKey, qfi: int | None) -> dict[str, Any]:
    return {
        "vlan": key.vlan,
        "source": address_text(key.source),
        "destination": address_text(key.destination),
        "teid": key.teid or None,
        "qfi": qfi,
    }


def _packet(user: User) -> dict[str, Any]:
    return {
        "source": address_text(user.source),
        "destination": address_text(user.destination),
        "protocol": protocol_text(user.protocol),
        "ports": None if user.port is None or user.ports is None else list(user.ports),
        "dscp": user.dscp,
        "fragment": user.part.name.lower(),
    }


def _answer(one: Answer, ends: FlowEnds, chains: Chains) -> dict[str, Any]:
    reply = one.reply and {
        "reason": one.reply.reason,
        "why": REASONS[one.reply.reason],
        "downlinks": [dict(tunnel) for tunnel in one.reply.tunnels],
    }
    return {
        "uplink": None if one.uplink is None else dict(one.uplink),
        **_judged(one.outcome, ends, chains),
        "reply": reply,
    }


def _cells(one: Explanation, chains: Chains) -> Row:
    outcome = one.outcome
    return (
        one.side.name.lower(),
        "-" if one.direction is None else one.direction.value,
        "-" if one.tunnel is None else _key_text(one.tunnel, one.qfi),
        "-" if one.ue is None else address_text(one.ue),
        "-" if one.user is None else _packet_text(one.user),
        outcome.verdict.value,
        outcome.reason,
        _service_text(outcome.service, _ends(one), chains),
    )


def _frames(flow: Flow) -> str:
    return str(flow.last) if flow.count == 1 else f"{flow.first.number}-{flow.last}"


def _key_text(key: TunnelKey, qfi: int | None) -> str:
    return _ends_text(address_text(key.source), address_text(key.destination), key.teid, key.vlan, qfi)


def _shown(tunnel: Tunnel) -> str:
    return _ends_text(*(tunnel[name] for name in ("source", "destination", "teid", "vlan", "qfi")))


def _ends_text(source: str, destination: str, teid: int, vlan: int | None, qfi: int | None) -> str:
    text = f"{source} > {destination}" + (f" {teid:#010x}" if teid else "")
    text += "" if vlan is None else f" vlan {vlan}"
    return text + ("" if qfi is None else f" qfi {qfi}")


def _packet_text(user: User) -> str:
    ends = [address_text(user.source), address_text(user.destination)]
    if user.port is not None and user.ports is not None:
        ends = [
            f"{end}:{port}" if "." in end else f"[{end}]:{port}"
            for end, port in zip(ends, user.ports, strict=True)
        ]
    return f"{protocol_text(user.protocol)} {ends[0]} > {ends[1]}"


def _service_text(service: Service | None, ends: FlowEnds | None, chains: Chains) -> str:
    if service is None:
        return "-"
    chain = _chain(service, chains)
    return " > ".join((service.name, *(chain.vnfs if chain else ()), _application(service, ends)))


def _chain(service: Service | None, chains: Chains) -> Chain | None:
    """The port-chain that the service's packets walk while its VNFs live."""
    if service is None or service.chain is None:
        return None
    return next((chain for chain in chains if chain.name == service.chain), None)


def _ends(one: Explanation) -> FlowEnds | None:
    user = one.user
    if user is None:
        return None
    return FlowEnds(user.source, user.protocol, user.ports or (0, 0) if user.part is Part.WHOLE else None)


def _application(service: Service, ends: FlowEnds | None) -> str:
    """Whose share the flow falls into while all of them live; all of them where it does not say enough."""
    spread = service.spread
    if spread is None or spread.by is SpreadBy.ORDER:
        return str(service.application_ip)
    if ends is None or (spread.by is SpreadBy.FLOW and ends.ports is None):
        return ", ".join(map(str, service.applications))
    living = [ServedApplication(one, n, lives=True) for n, one in enumerate(service.applications, 1)]
    return str(service.applications[slots(living, spread)[slot_of(ends, spread.by)] - 1])
