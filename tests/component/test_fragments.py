"""Verdicts on queued fragments: open until the datagram is whole, then dropped or accepted, each exactly once."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from ipaddress import ip_address

import pytest

from tests.agent_world import ENB, SERVER, SGW, UE, UE_V6
from tests.component.test_feed import Wire, frame, gpdu, outer, udp
from tof.agent.events import NextHopChanged, ServiceAdded, TunnelsIdle
from tof.agent.reassembly import DIVERTED_S, Fate
from tof.daemon.fragments import Fragments
from tof.model import Mode, Service, Side, TunnelKey, service_mac, tunnel_mac
from tof.wire import gtpu, inet

APP, APP6 = ip_address("192.168.50.10"), ip_address("fd00:50::10")
SERVICE6 = bytes.fromhex("20010db8ffff00000000000000000010")


@dataclass
class Packet:
    """What NFQUEUE hands out."""

    verdicts: list[str] = field(default_factory=list)

    def accept(self):
        self.verdicts.append("accept")

    def drop(self):
        self.verdicts.append("drop")


class Socket:
    """A device's raw socket."""

    def __init__(self):
        self.sent, self.full, self.mtu = [], False, 1500

    def send(self, one):
        self.sent.append(one)
        return not self.full


class Queue(Wire):
    """The wire of the feed's tests, with fragments."""

    def __init__(self):
        super().__init__()
        self.onward, self.back, self.packets = Socket(), Socket(), []
        self.fragments = Fragments(self.feed, self.endpoints, self.onward, self.back, self.onward, self.clock)
        for name, service, application in (("four", SERVER, APP), ("six", SERVICE6, APP6)):
            self.feed.handle(ServiceAdded(Service(name, ip_address(service), application)))
            self.feed.handle(NextHopChanged(application, b"\x02" * 6))

    def service(self, name="four"):
        return service_mac(self.feed.agent.services.number(self.feed.agent.services.catalog.get(name)))

    def put(self, *pieces, fate=Fate.DIVERT):
        for piece in pieces:
            self.packets.append(Packet())
            self.fragments.packet(Side.ENB, piece, fate, self.packets[-1])

    def forget(self):
        self.feed.handle(TunnelsIdle(frozenset({self.number(ENB, SGW, 1)})))

    @property
    def verdicts(self):
        assert all(len(packet.verdicts) <= 1 for packet in self.packets)
        return [packet.verdicts[0] if packet.verdicts else "" for packet in self.packets]

    def counts(self):
        return {name: count for name, count in self.fragments.counts.items() if count}


@pytest.fixture
def queue():
    return Queue()


def user(size=600, flags=0):
    return inet.encode_ipv4(inet.IPv4(UE, SERVER, 17, bytes(size - 20), flags=flags))


def pieces(packet, room=400, kind=gtpu.G_PDU, lie=0):
    """The frames that carry ``packet`` in outer fragments."""
    message = gtpu.encode(gtpu.Message(0x30, kind, 1, payload=packet))
    datagram = bytearray(inet.encode_udp(inet.UDP(2152, 2152, message)))
    datagram[5] += lie
    whole = inet.encode_ipv4(inet.IPv4(ENB, SGW, 17, bytes(datagram), identification=7))
    return [frame(piece) for piece in inet.fragment_ipv4(whole, room + 20)]


def known(queue):
    queue.up(udp(UE, SERVER))
    return queue.number(ENB, SGW, 1)


def test_a_datagram_goes_to_br_ue_as_xdp_would_have_sent_it(queue):
    index = known(queue)
    queue.put(*pieces(user()))
    assert queue.onward.sent == [queue.service() + tunnel_mac(index) + b"\x08\x00" + user()]
    assert queue.verdicts == ["drop", "drop"]
    assert queue.counts() == {"diverted": 2}


def test_what_times_out_is_accepted(queue):
    known(queue)
    queue.fragments.tick()
    queue.put(pieces(user())[0])
    queue.fragments.tick()
    assert queue.verdicts == [""]
    queue.clock.seconds += DIVERTED_S
    queue.fragments.tick()
    assert (queue.verdicts, queue.counts()) == (["accept"], {"timeout": 1})
    assert queue.endpoints.heard_ns == queue.clock.now_ns()


def test_the_end_lets_go(queue):
    known(queue)
    queue.put(pieces(user())[0])
    queue.fragments.flush()
    assert (queue.verdicts, queue.counts()) == (["accept"], {"shutdown": 1})


@pytest.mark.parametrize(
    ("reason", "spoil"),
    [
        ("no_tunnel", lambda q: q.forget()),
        ("bypass", lambda q: setattr(q.endpoints, "bypass", True)),
        ("not_sent", lambda q: setattr(q.onward, "full", True)),
    ],
)
def test_what_cannot_be_diverted_after_all_is_accepted(queue, reason, spoil):
    known(queue)
    first, second = pieces(user())
    queue.put(first)
    spoil(queue)
    queue.put(second)
    assert (queue.verdicts, queue.counts()) == (["accept", "accept"], {reason: 2})


def test_a_datagram_that_is_no_g_pdu_is_accepted(queue):
    known(queue)
    queue.put(*pieces(user(), lie=1))
    queue.put(*pieces(user(), kind=gtpu.ECHO_REQUEST))
    assert (queue.verdicts, queue.counts()) == (["accept"] * 4, {"not_a_gpdu": 4})


def test_what_is_no_fragment_is_accepted(queue):
    queue.put(frame(outer(ENB, SGW, gpdu(1, udp(UE, SERVER)))), b"")
    assert (queue.verdicts, queue.counts()) == (["accept", "accept"], {"undecodable": 2})


def test_a_packet_too_long_for_the_application_is_cut_answered_or_left(queue):
    known(queue)
    queue.onward.mtu = 300
    queue.put(*pieces(user()))
    assert len(queue.onward.sent) == 3
    queue.put(*pieces(user(flags=2)))
    assert (len(queue.onward.sent), len(queue.back.sent)) == (3, 1)
    error = inet.encode_ipv4(inet.IPv4(UE, SERVER, 1, b"\x03\x03" + bytes(500), flags=2))
    queue.put(*pieces(error))
    assert (len(queue.onward.sent), len(queue.back.sent)) == (3, 1)
    assert queue.counts() == {"diverted": 4, "too_big": 2}


def test_later_fragments_stay_as_they_are_where_conntrack_translates(queue):
    known(queue)
    later = inet.encode_ipv4(inet.IPv4(UE, SERVER, 17, bytes(600), offset=800))
    queue.put(*pieces(later))
    queue.endpoints.tracked = frozenset({APP.packed})
    queue.put(*pieces(later))
    hidden, plain = (one[14:] for one in queue.onward.sent)
    assert (hidden[9], plain) == (253, later)


def test_what_no_service_diverts_by_then_is_accepted(queue):
    known(queue)
    services = queue.feed.agent.services
    services.replace("four", replace(services.catalog.get("four"), mode=Mode.SHADOW))
    queue.put(*pieces(user()))
    services.remove("four")
    queue.put(*pieces(user()))
    assert (queue.onward.sent, queue.counts()) == ([], {"no_service": 4})


class TestUnknownTunnel:
    """The first fragment that the data path leaves to the agent to decide on."""

    def test_it_is_learnt_and_diverted(self, queue):
        queue.put(*pieces(user()), fate=Fate.UNDECIDED)
        known = queue.endpoints.tunnel(TunnelKey(ENB, SGW, 1))
        assert (known.ues, known.link.source_mac, known.link.tos) == ((UE,), b"\x02\x00\x00\x00\x00\x01", 0)
        assert queue.verdicts == ["drop", "drop"]

    def test_in_ipv6(self, queue):
        inner = inet.encode_ipv6(inet.IPv6(UE_V6, SERVICE6, 17, bytes(600)))
        datagram = inet.encode_udp(inet.UDP(2152, 2152, gtpu.encode(gpdu(1, inner))))
        enb, sgw = UE_V6[:15] + b"\x01", UE_V6[:15] + b"\x02"
        parts = [(0, 1, datagram[:400]), (400, 0, datagram[400:])]
        for at, more, part in parts:
            head = bytes((17, 0)) + (at | more).to_bytes(2, "big") + bytes(4)
            packet = inet.encode_ipv6(inet.IPv6(enb, sgw, 17, part, next_header=44, headers=head, tos=0xB8))
            queue.put(frame(packet), fate=Fate.UNDECIDED)
        known = queue.endpoints.tunnel(TunnelKey(enb, sgw, 1))
        assert (known.ues, known.link.tos, queue.verdicts) == ((UE_V6[:8],), 0xB8, ["drop", "drop"])

    def test_without_a_heartbeat_it_passes(self, queue):
        queue.clock.seconds = 5.0
        queue.put(*pieces(user()), fate=Fate.UNDECIDED)
        assert queue.verdicts[0] == "accept"

    def test_a_foreign_source_passes(self, queue):
        known(queue)
        foreign = inet.encode_ipv4(inet.IPv4(SGW, SERVER, 17, bytes(580)))
        queue.put(pieces(foreign)[0], fate=Fate.UNDECIDED)
        assert queue.counts() == {"passed": 1}

    @pytest.mark.parametrize("kind", [gtpu.ECHO_REQUEST, gtpu.END_MARKER])
    def test_other_messages_pass(self, queue, kind):
        queue.put(pieces(user(), kind=kind)[0], fate=Fate.UNDECIDED)
        assert queue.counts() == {"passed": 1}

    def test_what_does_not_parse_passes(self, queue):
        queue.put(pieces(bytes(600))[0], fate=Fate.UNDECIDED)
        assert queue.counts() == {"passed": 1}
        assert queue.feed.undecodable == {"inner_not_ip": 1}
