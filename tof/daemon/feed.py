"""The door between the world and the agent: events in, commands carried out, the verdict in the same call."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import structlog

from tof.agent import commands as do
from tof.agent.commands import TunnelCommand
from tof.agent.core import Agent
from tof.agent.events import (
    DownlinkMoved,
    ErrorIndicationSeen,
    Event,
    ForeignSourceSeen,
    FrameHeld,
    GpduSeen,
    Tick,
    TunnelRefused,
    UplinkReturned,
)
from tof.agent.naming import observe_answer
from tof.agent.observe import observe
from tof.daemon.clock import Clock
from tof.daemon.switch import Switch
from tof.drivers import layout
from tof.drivers.nfqueue import FRAME_BYTES
from tof.drivers.sockets import FrameSocket
from tof.drivers.xdp import XdpEndpoints
from tof.errors import BackendError, DecodeError
from tof.model import Link, Side

log = structlog.get_logger("tof.feed")

_ETHERTYPE_AT = 12
_TAGGED = b"\x81\x00"
INJECTED_NS = 3_000_000_000
"""An Error Indication answers what its receiver sent at most this long ago."""


class Feed:
    """Feeds one agent; everything here is synchronous, so that a packet is answered at once."""

    def __init__(
        self, agent: Agent, endpoints: XdpEndpoints, ue_side: FrameSocket, clock: Clock, switch: Switch
    ) -> None:
        self.agent, self._endpoints, self._ue_side, self._clock = agent, endpoints, ue_side, clock
        self._switch = switch
        self.undecodable: Counter[str] = Counter()
        self.too_big: Callable[[bytes, int], None] = lambda _frame, _index: None
        self.apps_too_big: Callable[[bytes], None] = lambda _frame: None

    def packet(self, side: Side, frame: bytes) -> bool:
        """The verdict on a queued packet, which comes as its whole frame: whether it passes."""
        vlan, payload = unframed(frame)
        try:
            event = observe(side, payload, vlan, cut=len(frame) >= FRAME_BYTES)
        except DecodeError as error:
            self.undecodable[error.reason] += 1
            return True
        if isinstance(event, ErrorIndicationSeen):
            event = replace(event, ours=self._ours(event))
        return event is None or self.handle(event)

    def first_fragment(self, side: Side, packet: bytes, vlan: int | None, link: Link) -> GpduSeen | None:
        """Learn from the first fragment of a G-PDU; what it said."""
        try:
            event = observe(side, packet, vlan, link=link, cut=True)
        except DecodeError as error:
            self.undecodable[error.reason] += 1
            return None
        if not isinstance(event, GpduSeen):
            return None
        self.handle(event)
        return event

    def _ours(self, event: ErrorIndicationSeen) -> frozenset[int]:
        """The tunnels that ``event`` may be about in which a packet of the TOF was the last."""
        since = self._clock.now_ns() - INJECTED_NS
        found = []
        for tunnel in self.agent.sessions.towards(event.sender, event.teid):
            record = self._endpoints.tunnel(tunnel.key)
            if record is not None and record.injected_ns > since:
                found.append(tunnel.index)
        return frozenset(found)

    def record(self, raw: bytes) -> None:
        """A record of the data path's ring buffer."""
        record = layout.unpack_event(raw)
        if record.kind == layout.SAMPLE:
            self._sample(record)
        elif record.kind in (layout.SPOOFED, layout.DOWNLINK_MOVED):
            half = record.length // 2
            source, destination = record.data[:half], record.data[half : 2 * half]
            if record.kind == layout.SPOOFED:
                self.handle(ForeignSourceSeen(record.tunnel, source))
            else:
                self.handle(DownlinkMoved(record.tunnel, destination))
        elif record.kind == layout.RETURNED:
            self.handle(UplinkReturned(record.tunnel))
        elif record.kind in (layout.HELD, layout.DOUBTED, layout.MOVED_ON):
            ue = _destination(record.data)
            if ue is not None:
                doubted, moved = record.kind == layout.DOUBTED, record.kind == layout.MOVED_ON
                self.handle(FrameHeld(record.data, ue, record.tunnel, doubted, moved))
        elif record.kind == layout.TOO_BIG:
            self.too_big(record.data, record.tunnel)
        elif record.kind == layout.ANSWER:
            self._answer(record)
        elif record.kind == layout.APPS_TOO_BIG:
            self.apps_too_big(record.data)

    def _answer(self, record: layout.RawEvent) -> None:
        try:
            event = observe_answer(record.tunnel, record.data)
        except DecodeError as error:
            self.undecodable[error.reason] += 1
            return
        self.handle(event)

    def seen(self, raw: bytes) -> None:
        """A G-PDU of an unknown tunnel that passed beside the crowded queue."""
        one = layout.unpack_seen(raw)
        self.handle(
            GpduSeen(Side(one.side), one.key, one.source, one.destination, one.form, one.size, link=one.link)
        )

    def _sample(self, record: layout.RawEvent) -> None:
        frame = record.data
        link = Link(frame[6:12], frame[:6], record.ifindex, frame[15] if frame[_ETHERTYPE_AT] == 8 else 0)
        try:
            event = observe(Side(record.side), frame[14:], record.vlan, link=link, cut=True)
        except DecodeError as error:
            self.undecodable[error.reason] += 1
            return
        if event is not None:
            self.handle(event)

    def tick(self) -> None:
        """Time has passed."""
        self.handle(Tick())

    def handle(self, event: Event) -> bool:
        """Let the agent decide and carry that out; False if the packet that raised ``event`` goes no further."""
        passes, refused = True, []
        for command in self.agent.handle(event, self._clock.now()):
            match command:
                case do.DropPacket():
                    passes = False
                case do.SendPing():
                    self._switch.outbox.append(command)
                    self._switch.dirty.set()
                case do.ReleaseFrame(frame):
                    self._ue_side.send(frame)
                case do.Converge():
                    self._switch.dirty.set()
                case _:
                    if not self._carry_out(command) and isinstance(command, do.PutTunnel):
                        refused.append(command.index)
        for index in refused:
            self.handle(TunnelRefused(index))
        return passes

    def _carry_out(self, command: TunnelCommand) -> bool:
        try:
            self._endpoints.carry_out(command, self._clock.now_ns())
        except BackendError as error:
            # The packet passes all the same; its tunnel stays unknown to the data path and is tried again.
            self.undecodable["data_path_refused"] += 1
            log.warning("the data path refused", command=type(command).__name__, error=str(error))
            return False
        return True


def unframed(frame: bytes) -> tuple[int | None, bytes]:
    """The VLAN of a frame and what it carries."""
    if frame[_ETHERTYPE_AT : _ETHERTYPE_AT + 2] == _TAGGED:
        # IEEE 802.1Q: VLAN 0 is a priority alone.
        return int.from_bytes(frame[14:16], "big") & 0xFFF or None, frame[18:]
    return None, frame[14:]


def _destination(frame: bytes) -> bytes | None:
    """Packed inner destination of a frame from br-ue."""
    if frame[12:14] == b"\x08\x00" and len(frame) >= 34:
        return frame[30:34]
    if frame[12:14] == b"\x86\xdd" and len(frame) >= 54:
        return frame[38:54]
    return None
