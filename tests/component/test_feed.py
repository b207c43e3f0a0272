"""The door of the agent: real packets and ring-buffer records in, a data path in memory, virtual time."""

from __future__ import annotations

from struct import pack
from types import SimpleNamespace

import pytest

from tests.agent_world import ENB, SERVER, SERVER_V6, SGW, TARGET, UE, UE2, UE_V6, World, check, pristine
from tof.agent.events import TunnelsAdopted, TunnelsIdle
from tof.config import parse
from tof.daemon.feed import Feed
from tof.daemon.run import _ping_frame
from tof.daemon.switch import Switch
from tof.drivers import layout
from tof.drivers.memory import MemoryEndpoints
from tof.model import Link, Side, TunnelKey, tunnel_mac
from tof.wire import gtpu, icmp, inet

CONFIG = """
[s1]
enb_interface = "enb0"
sgw_interface = "sgw0"
[ue]
app_interface = "apps0"
"""
END_MARKER = gtpu.Message(0x30, gtpu.END_MARKER, 2)


class VirtualClock:
    def __init__(self):
        self.seconds = 0.0

    def now(self):
        return self.seconds

    def now_ns(self):
        return int(self.seconds * 1e9)


class Wire:
    """The feed of an agent between an eNB and an SGW."""

    def __init__(self, most=1000):
        self.endpoints, self.clock, self.injected = MemoryEndpoints(most), VirtualClock(), []
        self.start()

    def start(self):
        world = World()
        self.agent = world.agent
        self.switch = Switch(parse(CONFIG), None, self.agent, self.endpoints, self.clock)
        ue_side = SimpleNamespace(send=self.injected.append)
        self.feed = Feed(self.agent, self.endpoints, ue_side, self.clock, self.switch)

    def tick(self, after_s=0.02):
        self.clock.seconds += after_s
        self.feed.tick()
        sent, self.switch.outbox[:] = list(self.switch.outbox), []
        return sent

    def up(self, payload, teid=1, enb=ENB):
        return self.feed.packet(Side.ENB, frame(outer(enb, SGW, gpdu(teid, payload))))

    def down(self, payload, teid=2, enb=ENB):
        return self.feed.packet(Side.SGW, frame(outer(SGW, enb, gpdu(teid, payload))))

    def record(self, kind, data, tunnel=0, side=Side.ENB, length=None):
        length = len(data) if length is None else length
        self.feed.record(
            pack("=IIIIIHH", kind, side.value, 3, tunnel, length, layout.NO_VLAN, len(data)) + data
        )

    def number(self, source, destination, teid):
        return self.endpoints.tunnel(TunnelKey(source, destination, teid)).number


def gpdu(teid, payload):
    return gtpu.Message(0x30, gtpu.G_PDU, teid, payload=payload)


def outer(source, destination, message, flags=0, cut=None):
    datagram = inet.encode_udp(inet.UDP(2152, 2152, gtpu.encode(message)))
    return inet.encode_ipv4(inet.IPv4(source, destination, 17, datagram[:cut], tos=0x88, flags=flags))


def udp(source, destination):
    return inet.encode_ipv4(inet.IPv4(source, destination, 17, inet.encode_udp(inet.UDP(1, 2, b"data"))))


def frame(packet):
    return b"\x02\x00\x00\x00\x00\x02" + b"\x02\x00\x00\x00\x00\x01" + b"\x08\x00" + packet


@pytest.fixture
def wire():
    return Wire()


def test_a_first_packet_passes_and_its_tunnel_is_there(wire):
    assert wire.up(udp(UE, SERVER))
    assert wire.endpoints.tunnel(TunnelKey(ENB, SGW, 1)).ues == (UE,)


def test_a_ping_there_and_back(wire):
    """What the Pinger sends comes back from the PDN, pairs the tunnels, and goes no further."""
    wire.up(udp(UE, SERVER))
    (ping,) = wire.tick()
    assert wire.switch.dirty.is_set()
    sent = inet.decode_ethernet(_ping_frame(ping, bytes(6)))
    assert sent.destination == tunnel_mac(ping.index)
    request = inet.decode_ipv4(sent.payload)
    assert request.destination == TARGET
    echo = icmp.decode_echo(inet.ICMP, request.payload)
    reply = icmp.echo_packet(TARGET, UE, echo._replace(reply=True))
    assert not wire.down(reply)
    assert wire.endpoints.peers[ping.index] == wire.number(SGW, ENB, 2)
    assert not wire.down(reply)  # however often
    assert wire.down(icmp.echo_packet(TARGET, UE, icmp.Echo(1, 1, b"the UE's own", reply=True)))
    assert [wire.tick(1.0) for _ in range(3)] == [[], [], []]


def test_what_does_not_parse_passes_and_is_counted(wire):
    assert wire.feed.packet(Side.ENB, b"")
    assert wire.up(udp(UE, SERVER), teid=0)
    assert wire.feed.packet(Side.ENB, frame(outer(ENB, SGW, gtpu.Message(0x32, gtpu.ECHO_REQUEST, 0, 1))))
    assert wire.feed.undecodable == {"ip_truncated": 1, "gtpu_teid_zero": 1}
    assert wire.endpoints.empty


@pytest.mark.parametrize(("inner6", "qfi", "vlan"), [(0, None, None), (1, 9, 7)])
def test_what_passed_beside_the_crowded_queue_teaches_as_a_packet_does(wire, inner6, qfi, vlan):
    ue, server = (UE_V6, SERVER_V6) if inner6 else (UE, SERVER)
    key = ENB.ljust(16, b"\0") + SGW.ljust(16, b"\0") + pack("!I", 1)
    key += pack("=HH", layout.NO_VLAN if vlan is None else vlan, 4)
    wire.feed.seen(
        key + ue.ljust(16, b"\0") + server.ljust(16, b"\0") + b"s" * 6 + b"d" * 6
        + pack("=IHBBBBBB", 3, 60, Side.ENB.value, inner6, 0xB8, 0x34 if qfi else 0x30, qfi is not None, qfi or 0)
    )  # fmt: skip
    found = wire.endpoints.tunnel(TunnelKey(ENB, SGW, 1, vlan))
    assert found.ues == (ue[:8] if inner6 else ue,)
    assert found.form.qfi == qfi
    assert found.link == Link(b"s" * 6, b"d" * 6, 3, 0xB8)


@pytest.mark.parametrize(("tci", "vlan"), [(0x6007, 7), (0xE000, None)])
def test_the_tag_of_a_queued_frame_is_part_of_the_key(wire, tci, vlan):
    untagged = frame(outer(ENB, SGW, gpdu(1, udp(UE, SERVER))))
    assert wire.feed.packet(Side.ENB, untagged[:12] + pack("!HH", 0x8100, tci) + untagged[12:])
    assert wire.endpoints.tunnel(TunnelKey(ENB, SGW, 1, vlan)).ues == (UE,)


def test_a_first_fragment_is_learnt_from_a_copy(wire):
    fragment = outer(ENB, SGW, gpdu(1, udp(UE, SERVER)), inet.MORE_FRAGMENTS, cut=60)
    wire.record(layout.SAMPLE, frame(fragment))
    record = wire.endpoints.tunnel(TunnelKey(ENB, SGW, 1))
    assert record.ues == (UE,)
    assert (record.link.source_mac, record.link.ifindex, record.link.tos) == (b"\x02\0\0\0\0\x01", 3, 0x88)


def test_a_copy_that_does_not_parse_is_counted_and_one_that_says_nothing_is_not(wire):
    wire.record(layout.SAMPLE, frame(b"\x45" + bytes(30)))
    wire.record(layout.SAMPLE, frame(outer(ENB, SGW, gtpu.Message(0x32, gtpu.ECHO_REQUEST, 0, 1))))
    assert list(wire.feed.undecodable) == ["ip_length"]


def test_records_about_owners(wire):
    wire.up(udp(UE, SERVER)), wire.down(udp(SERVER, UE))
    up, down = wire.number(ENB, SGW, 1), wire.number(SGW, ENB, 2)
    wire.record(layout.SPOOFED, UE2 + SERVER, up)
    wire.record(layout.DOWNLINK_MOVED, SERVER + UE2, down)
    assert wire.endpoints.tunnel(TunnelKey(ENB, SGW, 1)).ues == (UE2,)
    assert wire.endpoints.defaults == {UE2: down}


def test_a_held_frame_is_delivered_when_the_downlink_is_learnt(wire):
    wire.up(udp(UE, SERVER))
    held = frame(udp(SERVER, UE))
    wire.record(layout.HELD, held)
    wire.record(layout.HELD, frame(b"")[:12] + b"\x08\x06")
    assert wire.injected == []
    wire.down(udp(SERVER, UE))
    assert wire.injected == [held]


def test_an_ipv6_frame_is_held_for_its_prefix(wire):
    ue, server = bytes.fromhex("20010db8" + "01" * 12), bytes.fromhex("20010db8" + "02" * 12)
    wire.up(inet.encode_ipv6(inet.IPv6(ue, server, 59, b"")))
    held = frame(b"")[:12] + b"\x86\xdd" + inet.encode_ipv6(inet.IPv6(server, ue[:8] + bytes(8), 59, b""))
    wire.record(layout.HELD, held)
    wire.down(inet.encode_ipv6(inet.IPv6(server, ue, 59, b"")))
    assert wire.injected == [held]


def test_frames_that_do_not_fit_are_told_with_their_tunnel(wire):
    told = []
    wire.feed.too_big = lambda frame, tunnel: told.append((frame, tunnel))
    wire.feed.apps_too_big = told.append
    wire.record(layout.TOO_BIG, b"frame", 7)
    wire.record(layout.APPS_TOO_BIG, b"large")
    wire.record(99, b"")  # of a newer data path: not understood, not harmful
    assert told == [(b"frame", 7), b"large"]


def test_handover_on_the_wire(wire):
    """Source eNB, target eNB, End Marker: replies follow the UE."""
    enb2 = bytes((192, 0, 2, 2))
    wire.up(udp(UE, SERVER)), wire.down(udp(SERVER, UE))
    session = wire.endpoints.tunnel(TunnelKey(ENB, SGW, 1)).session
    wire.up(udp(UE, SERVER), enb=enb2)
    moved = wire.endpoints.tunnel(TunnelKey(enb2, SGW, 1))
    assert moved.session == session
    assert [ping.index for ping in wire.tick()] == [moved.number]
    wire.down(udp(SERVER, UE), teid=9, enb=enb2)
    assert wire.feed.packet(Side.SGW, frame(outer(SGW, ENB, END_MARKER)))
    new = wire.number(SGW, enb2, 9)
    assert wire.endpoints.peers[moved.number] == new
    assert wire.endpoints.peers[wire.number(ENB, SGW, 1)] == new
    assert wire.endpoints.defaults == {UE: new}


def test_a_data_path_that_refuses_leaves_the_tunnel_unknown_and_is_tried_again():
    wire = Wire(most=2)
    wire.up(udp(UE, SERVER)), wire.up(udp(UE2, SERVER), 5)
    assert wire.down(udp(SERVER, UE))
    assert wire.feed.undecodable["data_path_refused"] >= 1
    check(wire.agent.sessions, wire.endpoints)
    wire.endpoints.most_tunnels = 3
    wire.down(udp(SERVER, UE))
    assert wire.endpoints.peers[wire.number(ENB, SGW, 1)] == wire.number(SGW, ENB, 2)


def test_a_killed_agent_s_successor_takes_over_without_touching_what_is_there(wire):
    wire.up(udp(UE, SERVER)), wire.down(udp(SERVER, UE)), wire.up(udp(UE2, SERVER), 5)
    before = dict(wire.endpoints.table), dict(wire.endpoints.peers), dict(wire.endpoints.defaults)
    wire.start()
    wire.feed.handle(TunnelsAdopted(wire.endpoints.adopt(), (), wire.endpoints.adopt_tokens()))
    assert (wire.endpoints.table, wire.endpoints.peers, wire.endpoints.defaults) == before
    assert [ping.ue for ping in wire.tick()] == [UE2]
    wire.feed.handle(TunnelsIdle(frozenset(range(1, 10))))
    assert pristine(wire.agent.sessions)
    assert not wire.endpoints.table
