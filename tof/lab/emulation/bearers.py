"""Laboratory: UEs, the bearers that carry their packets, and what they said and heard."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import count, pairwise
from typing import TYPE_CHECKING, NamedTuple

from tof.model import Form
from tof.wire import gtpu

if TYPE_CHECKING:
    from tof.lab.emulation.nodes import Core, Radio


class End(StrEnum):
    """An end of the box under test."""

    ENB = "enb"
    SGW = "sgw"
    APPS = "apps"


class Shape(NamedTuple):
    """How a bearer's G-PDUs look each way; ``qfis``: its QoS flows (by port), where it is a PDU session."""

    up: Form = Form()
    down: Form = Form()
    qfis: tuple[int, ...] = ()


S1U = Shape()
S1U_SEQUENCE = Shape(Form(0x32), Form(0x32))


def n3(*qfis: int) -> Shape:
    """A PDU session with these QoS flows, the default one first."""
    return Shape(Form(0x34, qfis[0]), Form(0x34, qfis[0]), qfis)


@dataclass(slots=True, eq=False)
class Bearer:
    """An EPS bearer or PDU session: tunnel ``up`` ends at ``core``; ``path`` is where the core sends, None: idle.

    A dedicated bearer carries the flows to and from servers' ``ports`` (its traffic flow template).
    """

    ue: Ue
    core: Core
    up: int
    path: tuple[Radio, int] | None
    shape: Shape = S1U
    ports: frozenset[int] = frozenset()
    source_port: int = gtpu.PORT
    sequences: dict[int, count[int]] = field(default_factory=lambda: {0: count(), 1: count()})

    def form(self, direction: int, port: int) -> Form:
        """How a G-PDU looks (0 down, 1 up) that carries a packet to or from a server's ``port``."""
        form = self.shape.up if direction else self.shape.down
        if form.qfi is None or not self.shape.qfis:
            return form
        return form._replace(qfi=self.shape.qfis[port % len(self.shape.qfis)])

    def message(self, direction: int, teid: int, packet: bytes, port: int) -> gtpu.Message:
        """The G-PDU that carries ``packet``."""
        form = self.form(direction, port)
        sequence = next(self.sequences[direction]) & 0xFFFF if form.flags & gtpu.FLAG_S else None
        extensions = container(direction, form.qfi)
        return gtpu.Message(gtpu.VERSION_1, gtpu.G_PDU, teid, sequence, None, extensions, packet)

    def misfit(self, message: gtpu.Message, port: int) -> str:
        """What an eNB could not take in a downlink G-PDU that the box made; empty if nothing."""
        expected = self.form(0, port).qfi
        if message.qfi != expected:
            return f"QFI {message.qfi}, not {expected}"
        kinds = {extension.type for extension in message.extensions}
        if kinds - {gtpu.PDU_SESSION_CONTAINER} or (expected is not None and message.pdu_type != 0):
            return "extension headers that its downlink never had"
        return ""


def container(direction: int, qfi: int | None) -> tuple[gtpu.Extension, ...]:
    """The PDU Session Container (TS 38.415: type 0 down, 1 up), none without a QFI."""
    return () if qfi is None else (gtpu.Extension(gtpu.PDU_SESSION_CONTAINER, bytes((direction << 4, qfi))),)


@dataclass(slots=True, eq=False)
class Ue:
    """A UE: its addresses (of an IPv6 /64 the one it uses), where it is, its bearers, the default one first."""

    name: str
    addresses: tuple[bytes, ...]
    radio: Radio | None = None
    bearers: list[Bearer] = field(default_factory=list)
    foreign: int = 0
    """Packets that reached it and were none of its own."""

    def owns(self, address: bytes) -> bool:
        """Whether a packet to or from this address is the UE's own; link-local and multicast count."""
        if len(address) == 16 and (address[0] == 0xFF or address[:2] == b"\xfe\x80"):
            return any(len(own) == 16 for own in self.addresses)
        return any(address == own or (len(own) == 16 and address[:8] == own[:8]) for own in self.addresses)

    @property
    def cores(self) -> tuple[bytes, ...]:
        """The addresses of its SGWs."""
        return tuple(bearer.core.place.address for bearer in self.bearers)

    def bearer_for(self, port: int) -> Bearer:
        """The bearer whose traffic flow template takes a flow with a server's ``port``."""
        return next((bearer for bearer in self.bearers if port in bearer.ports), self.bearers[0])


class Asked(StrEnum):
    """Who began an exchange, towards whom."""

    CORE = "UE to the Internet"
    SERVICE = "UE to the service"
    PUSH = "Internet to the UE"
    NOTIFY = "application to the UE"


@dataclass(slots=True, eq=False)
class Exchange:
    """A request and its answer, or a push; ``optional``: nothing is lost if it is not answered."""

    token: bytes
    ue: Ue
    asked: Asked
    packet: bytes
    sent_at: float
    cores: tuple[bytes, ...]
    """Where the UE's SGWs were then: what is under way at a relocation may still come from there."""
    bearer: Bearer | None = None
    optional: bool = False
    reached: list[End] = field(default_factory=list)
    answered_at: float | None = None
    answers: int = 0
    answered_in: Bearer | None = None
    wrong: str = ""

    @property
    def answered(self) -> bool:
        """Whether the answer, or the pushed packet, is with the UE."""
        return self.answered_at is not None

    @property
    def took_s(self) -> float:
        """How long it was until then; 0 if it never was."""
        return 0.0 if self.answered_at is None else self.answered_at - self.sent_at

    @property
    def at_edge(self) -> bool:
        """Whether the application got it and the core did not."""
        return End.APPS in self.reached and End.SGW not in self.reached


@dataclass(slots=True, eq=False)
class Stream:
    """A running exchange: ``ask`` every ``interval_s`` until it is stopped."""

    name: str
    ask: Callable[[], Exchange]
    interval_s: float
    next_at: float
    exchanges: list[Exchange] = field(default_factory=list)
    running: bool = True

    @property
    def longest_gap_s(self) -> float:
        """The longest time without an answer while it ran."""
        times = sorted(one.answered_at for one in self.exchanges if one.answered_at is not None)
        bounds = [one.sent_at for one in self.exchanges[:1]] + times
        return max((after - before for before, after in pairwise(bounds)), default=0.0)
