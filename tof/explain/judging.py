"""The judgement on a frame, as the fast lane, the queue and the agent pass it on together."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from tof.agent.observe import observe
from tof.agent.reassembly import Fate
from tof.errors import DecodeError
from tof.explain.path import Path
from tof.explain.pieces import PIECE_BYTES
from tof.explain.reading import Kind, Reading, User
from tof.explain.words import Outcome, Verdict
from tof.model import Direction, Service, Side, TunnelKey
from tof.wire import gtpu, inet
from tof.wire.inet import is_global_unicast

SIGNALS: Final = {
    gtpu.END_MARKER: "end_marker",
    gtpu.ERROR_INDICATION: "error_indication",
    gtpu.ECHO_RESPONSE: "echo_response",
}
BRIDGED: Final = Outcome(Verdict.PASSES, "bridged_fragment")
_SIDES: Final = {Direction.UPLINK: Side.ENB, Direction.DOWNLINK: Side.SGW}


class Judge:
    """Judges one frame after the other."""

    def __init__(self, services: Iterable[Service]) -> None:
        self.path = Path(services)

    def whole(self, seen: Reading, side: Side, data: bytes) -> Outcome:
        """What becomes of a frame that is no outer fragment."""
        if seen.kind is Kind.OTHER:
            return Outcome(Verdict.PASSES, "not_gtpu")
        if seen.key is not None and seen.kind is Kind.SIGNAL:
            return self._signal(seen.key, seen.message, side, data)
        if seen.key is not None and seen.user is not None:
            return self._gpdu(seen.key, seen.user, side, data)
        return Outcome(Verdict.PASSES, seen.reason)

    def first(self, key: TunnelKey, user: User, side: Side, data: bytes) -> tuple[Outcome, Fate]:
        """``judge_first`` of tof.bpf.c: the first fragment of a G-PDU decides for its datagram."""
        record = self.path.tunnel(key)
        if record is None:
            return self._first_of_unknown(key, user, side, data)
        if _SIDES[record.direction] is not side:
            return BRIDGED._replace(reason="wrong_side"), Fate.PASS
        learnt, spoofed = self.path.notice(key, record, user)
        if side is Side.SGW:
            return BRIDGED._replace(learnt=learnt), Fate.PASS
        outcome = self.path.serve(key, record, user, spoofed=spoofed)._replace(learnt=learnt)
        if outcome.verdict is Verdict.DIVERTED:
            return BRIDGED._replace(service=outcome.service, learnt=learnt), Fate.DIVERT
        if outcome.service is None:
            return outcome._replace(reason=BRIDGED.reason), Fate.PASS
        verdict = Verdict.SHADOW if outcome.verdict is Verdict.SHADOW else Verdict.PASSES
        return outcome._replace(verdict=verdict), Fate.PASS

    def learn_first(self, key: TunnelKey, data: bytes) -> tuple[tuple[str, ...], Fate]:
        """The agent decides on a first fragment to a service, of a tunnel that the data path did not know."""
        learnt, _ = self._observe(Side.ENB, data, cut=True)
        record = self.path.tunnel(key)
        known = record is not None and record.direction is Direction.UPLINK
        return learnt, Fate.DIVERT if known else Fate.PASS

    def _first_of_unknown(self, key: TunnelKey, user: User, side: Side, data: bytes) -> tuple[Outcome, Fate]:
        service = self.path.to_service(key, user) if side is Side.ENB else None
        if service is not None and user.protocol != inet.TCP:
            return BRIDGED._replace(service=service), Fate.UNDECIDED
        learnt, _ = self._observe(side, data, cut=True)
        verdict = Verdict.TEACHES if learnt else Verdict.PASSES
        return BRIDGED._replace(verdict=verdict, learnt=learnt, service=service), Fate.PASS

    def _signal(self, key: TunnelKey, message: int, side: Side, data: bytes) -> Outcome:
        record = self.path.tunnel(key) if message == gtpu.END_MARKER and side is Side.SGW else None
        ends = record is not None and record.direction is Direction.DOWNLINK
        if ends:
            self.path.endpoints.end(key)
        learnt, undecodable = self._observe(side, data)
        if undecodable:
            return Outcome(Verdict.PASSES, "undecodable", detail=undecodable)
        name = SIGNALS[message]
        reason = next((each for each in learnt if each.startswith(name)), name)
        teaches = ends or "tunnel_forgotten" in learnt
        return Outcome(Verdict.TEACHES if teaches else Verdict.PASSES, reason, learnt=learnt)

    def _gpdu(self, key: TunnelKey, user: User, side: Side, data: bytes) -> Outcome:
        record = self.path.tunnel(key)
        if record is None:
            return self._unknown(key, user, side, data)
        if _SIDES[record.direction] is not side:
            return Outcome(Verdict.PASSES, "wrong_side")
        learnt, spoofed = self.path.notice(key, record, user)
        if side is Side.ENB:
            return self.path.serve(key, record, user, spoofed=spoofed)._replace(learnt=learnt)
        return Outcome(Verdict.TEACHES if learnt else Verdict.PASSES, "downlink", learnt=learnt)

    def _unknown(self, key: TunnelKey, user: User, side: Side, data: bytes) -> Outcome:
        """By the queue: the agent learns, then the packet is judged like any other."""
        learnt, undecodable = self._observe(side, data)
        record = self.path.tunnel(key)
        if record is None:
            return _unlearnt(user, side, learnt, undecodable)
        taught = Outcome(Verdict.TEACHES, "tunnel_learnt", learnt=learnt)
        if side is Side.SGW:
            return taught
        outcome = self.path.serve(key, record, user)
        if outcome.service is None:
            return taught._replace(detail=outcome.detail)
        return outcome._replace(learnt=learnt)

    def _observe(self, side: Side, data: bytes, *, cut: bool = False) -> tuple[tuple[str, ...], str]:
        """Show the agent a packet: what it learnt, and what it could not read."""
        ethernet = inet.decode_ethernet(data)
        try:
            event = observe(side, ethernet.payload, ethernet.vlan, cut=cut or len(data) >= PIECE_BYTES)
        except DecodeError as error:
            return (), error.reason
        return (() if event is None else self.path.tell(event)), ""


def _unlearnt(user: User, side: Side, learnt: tuple[str, ...], undecodable: str) -> Outcome:
    """An unknown tunnel that remains unknown."""
    if undecodable:
        return Outcome(Verdict.PASSES, "undecodable", detail=undecodable)
    refused = next((name for name in learnt if name.startswith("refused_")), None)
    if refused:
        return Outcome(Verdict.PASSES, refused, learnt=learnt)
    address = user.source if side is Side.ENB else user.destination
    return Outcome(Verdict.PASSES, "forwarded" if is_global_unicast(address) else "no_ue_address")
