"""The whole agent behind its own door: any bytes are a history of packets, records, time and operators.

After every event the invariants hold: ``tests.agent_world.check`` (the registry's indices agree with each other and
with the data path, answers go to live downlinks of the same UE) and the bounds below.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from ipaddress import ip_address
from itertools import count
from struct import pack
from types import SimpleNamespace
from typing import TypeVar

import structlog

from tests.agent_world import TARGET, TARGET_V6, check
from tof.agent import asking, holding, losing, pinging, sessions
from tof.agent.catalog import Catalog
from tof.agent.core import Agent, AgentPolicy
from tof.agent.events import (
    EndMarkerSeen,
    Event,
    NextHopChanged,
    ServiceAdded,
    ServiceRemoved,
    ServiceReplaced,
    SwitchReturned,
    TunnelsAdopted,
    TunnelsIdle,
)
from tof.agent.observe import observe
from tof.agent.pinging import PingPolicy
from tof.config import parse
from tof.daemon.feed import Feed
from tof.daemon.switch import Switch
from tof.drivers import layout
from tof.drivers.memory import MemoryEndpoints
from tof.errors import DecodeError, RequestError
from tof.model import Direction, Service, Side
from tof.wire import gtpu, icmp, inet

# Small, so that a short history meets every bound.
sessions.MOST_BEARERS, sessions.MOST_PAIRS = 4, 3
losing.PEERS, asking.REFUSALS = 3, 2
holding.PER_UE, holding.UES = 2, 3
pinging.WAITING = 3
POLICY = AgentPolicy(PingPolicy((TARGET, TARGET_V6), attempts=2, at_once=2), 14, 6)
HELD_BY_THE_PATH = 13

CONFIG = '[s1]\nenb_interface = "enb0"\nsgw_interface = "sgw0"\n[ue]\napp_interface = "apps0"\n'
_RADIO = tuple(ip_address(a).packed for a in ("192.0.2.1", "192.0.2.2", "2001:db8::1", "192.0.2.101"))
_CORE = tuple(ip_address(a).packed for a in ("192.0.2.101", "192.0.2.102", "2001:db8::101", "192.0.2.1"))
_UES = tuple(
    ip_address(a).packed
    for a in ("10.0.0.1", "10.0.0.2", "2001:db8:1::7", "2001:db8:1::8", "2001:db8:2::7", "10.0.0.3", "0.0.0.0", "fe80::1")
)  # fmt: skip
_ELSEWHERE = tuple(ip_address(a).packed for a in ("203.0.113.9", "2001:db8:ffff::9"))
_VLANS = (None, None, None, 7)
_MACS = bytes((2, 0, 0, 0, 0, 2)), bytes((2, 0, 0, 0, 0, 1))
_SERVICES = tuple(
    Service(name, ip_address(ip), ip_address(application))
    for name, ip, application in (
        ("one", "203.0.113.9", "192.168.50.10"),
        ("two", "2001:db8:ffff::9", "2001:db8:50::10"),
        ("one", "203.0.113.10", "192.168.50.10"),
        ("three", "203.0.113.9", "192.168.50.11"),
    )
)

structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


T = TypeVar("T")


class Choices:
    """Bytes as a row of choices; zeros when they have come to their end."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def number(self, below: int) -> int:
        """A number less than ``below``, at most 256."""
        value = self._data[self._at] if self else 0
        self._at += 1
        return value % below

    def one(self, of: tuple[T, ...]) -> T:
        """One of these."""
        return of[self.number(len(of))]

    def raw(self, most: int) -> bytes:
        """Some of the bytes as they are."""
        size = self.number(most + 1)
        self._at += size
        return self._data[self._at - size : self._at]


class Clock:
    seconds = 1.0

    def now(self) -> float:
        return self.seconds

    def now_ns(self) -> int:
        return int(self.seconds * 1e9)


class Life:
    """An agent, its data path in memory, and everything that can happen to it."""

    def __init__(self, choices: Choices) -> None:
        self.choices, self.clock = choices, Clock()
        self.path, self.tokens = MemoryEndpoints(HELD_BY_THE_PATH), count(1001)
        self.frames: list[bytes] = []
        self.start()
        self.acts: tuple[Callable[[], object], ...] = (
            self.gpdu, self.gpdu, self.gpdu, self.gpdu, self.signal, self.ping_comes_back, self.pass_time,
            self.pass_time, self.raw_packet, self.told, self.frame_waits, self.sample, self.silence, self.restart,
            self.operator, self.raw_record,
        )  # fmt: skip

    def start(self) -> None:
        self.agent = Agent(POLICY, Catalog(), self.tokens)
        self.switch = Switch(parse(CONFIG), None, self.agent, self.path, self.clock)  # type: ignore[arg-type]
        ue_side = SimpleNamespace(send=self.frames.append)
        self.feed = Feed(self.agent, self.path, ue_side, self.clock, self.switch)  # type: ignore[arg-type]

    def go_on(self) -> None:
        """One thing happens, and all is in order afterwards."""
        self.choices.one(self.acts)()
        check(self.agent.sessions, self.path)
        bounded(self.agent, self.path)

    # What can happen

    def ends(self, side: Side) -> tuple[bytes, bytes]:
        radio, core = self.choices.one(_RADIO), self.choices.one(_CORE)
        if len(radio) != len(core):
            radio, core = _RADIO[2], _CORE[2]
        return (radio, core) if side is Side.ENB else (core, radio)

    def side(self) -> Side:
        return self.choices.one((Side.ENB, Side.SGW))

    def gpdu(self) -> None:
        side = self.side()
        mine, other = self.choices.one(_UES), self.choices.one(_UES + _ELSEWHERE * 4)
        if len(mine) != len(other):
            other = _ELSEWHERE[len(mine) == 16]
        inner = ip(mine, other, b"data", 17) if side is Side.ENB else ip(other, mine, b"data", 17)
        self.send(side, self.ends(side), gtpu.Message(0x30, 255, 1 + self.choices.number(6), payload=inner))

    def signal(self) -> None:
        side, teid = self.side(), self.choices.number(7)
        ends = self.ends(side)
        message = self.choices.one(
            (
                gtpu.Message(0x30, gtpu.END_MARKER, teid),
                gtpu.Message(0x30, gtpu.ERROR_INDICATION, 0, payload=b"\x10\0\0\0" + bytes((teid,))),
                gtpu.Message(0x30, gtpu.ERROR_INDICATION, teid),
                gtpu.Message(0x32, gtpu.ECHO_RESPONSE, 0, sequence=1, payload=bytes((14, teid))),
            )
        )
        self.send(side, ends, message)

    def ping_comes_back(self) -> None:
        """The core answers one of the Pinger's requests, or an earlier one's, in whatever tunnel."""
        tokens = tuple(self.path.tokens)
        if not tokens:
            return
        token = tokens[self.choices.number(len(tokens))]
        ping = self.agent.pinging.answered(token)
        ue = ping.ue if ping is not None and self.choices.number(4) else self.choices.one(_UES)
        echo = icmp.Echo(0, 1, token.to_bytes(8, "big"), reply=True)
        inner = icmp.echo_packet(TARGET if len(ue) == 4 else TARGET_V6, ue, echo)
        ends, teid = self.ends(Side.SGW), 1 + self.choices.number(6)
        up = self.agent.sessions.at(self.path.tokens[token])
        if up is not None and self.choices.number(4):
            ends = up.key.destination, up.key.source
        assert not self.send(Side.SGW, ends, gtpu.Message(0x30, 255, teid, payload=inner)), (
            "a UE would see it"
        )

    def pass_time(self) -> None:
        self.clock.seconds += (0.001, 0.1, 0.5, 1.0, 5.0, 12.0, 70.0)[self.choices.number(7)]
        self.feed.tick()
        for ping in self.switch.outbox:
            assert self.agent.sessions.at(ping.index) is not None
        self.switch.outbox.clear()

    def raw_packet(self) -> None:
        self.receive(self.side(), self.choices.raw(120), self.choices.one(_VLANS))

    def told(self) -> None:
        """A known tunnel carried another address (kinds 2 and 3)."""
        ue = self.choices.one(_UES)
        data = ue + ue
        self.record(2 + self.choices.number(2), data, self.choices.number(40))

    def frame_waits(self) -> None:
        ue = self.choices.one(_UES)
        ethertype = b"\x08\0" if len(ue) == 4 else b"\x86\xdd"
        frame = bytes(12) + ethertype + ip(_ELSEWHERE[len(ue) == 16], ue, b"data", 17)
        kind = self.choices.one((layout.HELD, layout.DOUBTED, layout.MOVED_ON, layout.RETURNED))
        self.record(kind, frame, self.choices.number(40))

    def sample(self) -> None:
        packet = ip(*self.ends(Side.ENB), self.choices.raw(60), 17)
        self.record(1, bytes(12) + b"\x08\0" + packet, 0, self.side())

    def raw_record(self) -> None:
        self.record(
            self.choices.one((1, 4, 6, 7)), self.choices.raw(80).ljust(34, b"\0"), self.choices.number(40)
        )

    def silence(self) -> None:
        numbers = sorted(tunnel.index for tunnel in self.agent.sessions)
        bits = self.choices.number(256) | self.choices.number(256) << 8
        idle = frozenset(number for at, number in enumerate(numbers) if bits >> at & 1)
        self.feed.handle(TunnelsIdle(idle))

    def restart(self) -> None:
        """A new agent takes over what the data path holds."""
        self.start()
        self.feed.handle(TunnelsAdopted(self.path.adopt(), (), self.path.adopt_tokens()))

    def operator(self) -> None:
        service, mac = self.choices.one(_SERVICES), self.choices.one((None, b"\x02" + bytes(5)))
        event: Event = self.choices.one(
            (
                ServiceAdded(service), ServiceReplaced("one", service), ServiceRemoved(service.name),
                NextHopChanged(service.application_ip, mac), SwitchReturned(),
            )
        )  # fmt: skip
        before = self.agent.services.catalog.services
        try:
            self.feed.handle(event)
        except RequestError:
            assert self.agent.services.catalog.services == before

    # How it comes in

    def send(self, side: Side, ends: tuple[bytes, bytes], message: gtpu.Message) -> bool:
        datagram = inet.encode_udp(inet.UDP(2152, 2152, gtpu.encode(message)))
        return self.receive(side, ip(*ends, datagram, 17), self.choices.one(_VLANS))

    def receive(self, side: Side, packet: bytes, vlan: int | None) -> bool:
        try:
            event = observe(side, packet, vlan)
        except DecodeError:
            event = None
        known = self.path.tunnel(event.key) if isinstance(event, EndMarkerSeen) else None
        right = isinstance(event, EndMarkerSeen) and side is Side.SGW
        if right and known is not None and known.direction is Direction.DOWNLINK:
            self.path.end(event.key)  # XDP saw it first
        ethertype = inet.ETHERTYPE_IPV4 if packet[:1] < b"\x60" else inet.ETHERTYPE_IPV6
        tags = () if vlan is None else ((0x8100, vlan),)
        frame = inet.encode_ethernet(inet.Ethernet(_MACS[0], _MACS[1], ethertype, packet, tags))
        return self.feed.packet(side, frame)

    def record(self, kind: int, data: bytes, tunnel: int, side: Side = Side.SGW) -> None:
        head = pack("=IIIIIHH", kind, side.value, 3, tunnel, len(data), layout.NO_VLAN, len(data))
        self.feed.record(head + data)


def ip(source: bytes, destination: bytes, payload: bytes, protocol: int) -> bytes:
    """A packet of the addresses' family."""
    if len(source) == 4:
        return inet.encode_ipv4(inet.IPv4(source, destination, protocol, payload))
    return inet.encode_ipv6(inet.IPv6(source, destination, protocol, payload))


def bounded(agent: Agent, path: MemoryEndpoints) -> None:
    """Nothing that the network taught exceeds its bound, and nothing is remembered of what is gone."""
    known = agent.sessions
    assert len(known) <= POLICY.most_tunnels
    assert all(tunnel.ended == bool(path.table[tunnel.key].flags & layout.ENDED) for tunnel in known)
    assert len(agent.pinging.active) <= 2 * POLICY.ping.at_once, "hasty ones and calm ones"
    assert len(agent.pinging._calm) <= pinging.WAITING
    sent = {token for token, ping in agent.pinging._by_token.items() if ping.sequence}
    assert set(path.tokens) == sent | agent.pinging._inherited
    asked = {*agent.pinging._calm, *agent.pinging._hasty, *agent.pinging._active}
    assert {index for index, _ in asked} <= {tunnel.index for tunnel in known if tunnel.uplink}
    assert len(agent.holding._frames) <= holding.UES
    assert all(len(frames) <= holding.PER_UE for _, frames in agent.holding._frames.values())
    assert len(agent.losing._recovery) <= losing.PEERS
    assert len(agent._asker._refused) <= asking.REFUSALS
    assert len(known.nodes._count) <= len(known)


def life(data: bytes) -> None:
    """A history told by ``data``."""
    one = Life(Choices(data))
    while one.choices:
        one.go_on()
