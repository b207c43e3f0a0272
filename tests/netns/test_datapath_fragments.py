"""Outer and inner fragments: a service's are diverted whole, all others pass as what they are."""

from __future__ import annotations

import itertools
import os
import random
import signal
import socket
import time
from collections.abc import Iterator

import pytest
from gtp_apps import udp_echo
from gtp_packets import (
    ACK,
    ELSEWHERE,
    SYN,
    Bearer,
    cut,
    elsewhere,
    ethernet,
    gpdu_of,
    new_bearer,
    new_bearer6,
    packed,
    pieces,
    tcp,
    udp,
)
from gtp_peers import APP, APP6, CORE_KERNEL, RAN_KERNEL, Setting, Tof, running_tof, until

from tof.agent.reassembly import DATAGRAMS, FRAGMENTS
from tof.wire.inet import ETHERTYPE_IPV4

pytestmark = pytest.mark.netns

SERVICE, SERVICE6, ECHO = "203.0.113.10", "2001:db8:113::10", 7


@pytest.fixture(scope="module", params=["generic", "native"])
def tof(request: pytest.FixtureRequest) -> Iterator[Tof]:
    with running_tof(Setting(xdp=request.param)) as running:
        udp_echo(running.netns["apps"], APP, ECHO)
        udp_echo(running.netns["apps"], APP6, ECHO)
        running.provision("echo", SERVICE)
        running.provision("echo6", SERVICE6, APP6)
        yield running


@pytest.fixture(autouse=True)
def _fresh(tof: Tof) -> None:
    tof.drain()


ports = itertools.count(20000)


def service_of(bearer: Bearer) -> str:
    return SERVICE6 if ":" in bearer.ue else SERVICE


def said(bearer: Bearer, data: bytes, port: int | None = None) -> bytes:
    """The frame in which the UE speaks to the service."""
    return bearer.uplink(udp(bearer.ue, service_of(bearer), port or next(ports), ECHO, data))


def fragments(tof: Tof, reason: str) -> int:
    return int(tof.metrics()[f"tof_fragments_total{{{reason}}}"])


def heard(tof: Tof, *data: bytes) -> None:
    """The application's kernel got these datagrams whole: it answers each with what it got."""
    app = Bench(tof)
    for one in data:
        app.expect(one)


class Bench:
    """What the application sent back, put together from the inner fragments in which it reaches the eNB."""

    def __init__(self, tof: Tof) -> None:
        self.tof, self.parts = tof, {}

    def expect(self, data: bytes) -> None:
        wanted = b"app:" + data
        until("the application's answer", lambda: self._seen(wanted), 4, 0)

    def _seen(self, wanted: bytes) -> bool:
        frame = self.tof.ran.receive(0.05)
        one = gpdu_of(frame) if frame else None
        if one is not None:
            packet = one.message.payload
            ident = packet[4:6] if packet[0] >> 4 == 4 else packet[44:48] if packet[6] == 44 else packet[:40]
            key = (one.inner.destination, ident)
            self.parts.setdefault(key, []).append(packet)
        return any(wanted in joined(parts) for parts in self.parts.values())


def joined(parts: list[bytes]) -> bytes:
    """The payload of the fragments by their offsets."""
    found = {}
    for packet in parts:
        if packet[0] >> 4 == 4:
            found[int.from_bytes(packet[6:8], "big") & 0x1FFF] = packet[20:]
        elif packet[6] == 44:
            found[int.from_bytes(packet[42:44], "big") >> 3] = packet[48:]
        else:
            found[0] = packet[40:]
    return b"".join(found[at] for at in sorted(found))


def to_core(tof: Tof) -> list[bytes]:
    """Every frame that the core has seen, but the Pinger's, and ARP and multicasts of the kernels at the ends."""
    tof.core.find(lambda _: False, 0.1)
    own = [frame for frame in tof.core.history if frame[12:14] != b"\x08\x06" and not frame[0] & 1]
    return [frame for frame in own if b"tof-pinger" not in frame]


KINDS = {
    "4G": new_bearer(),
    "5G in a VLAN": new_bearer(vlan=70, qfi=5),
    "IPv6 UE": new_bearer6(),
    "outer IPv6": new_bearer(enb="2001:db8:1::11", sgw="2001:db8:1::1"),
    "IPv6 in IPv6 in a VLAN": new_bearer6(enb="2001:db8:1::11", sgw="2001:db8:1::1", vlan=71),
}


def order(name: str, parts: list[bytes]) -> list[bytes]:
    if name == "shuffled":
        middle = parts[1:]
        random.Random(7).shuffle(middle)
        return [middle[0], parts[0], *middle[1:]]
    return parts if name == "in order" else parts[::-1]


@pytest.mark.parametrize("arrival", ["in order", "reversed", "shuffled"])
@pytest.mark.parametrize("kind", KINDS)
def test_service_datagrams_reach_the_application_whole(tof: Tof, kind: str, arrival: str) -> None:
    bearer = KINDS[kind]
    tof.attach(bearer)
    data = [os.urandom(size) for size in (1380 if ":" in bearer.ue else 1472, 700)]
    diverted, passed = fragments(tof, "diverted"), len(to_core(tof))
    sent = [order(arrival, cut(said(bearer, one), room)) for one, room in zip(data, (1400, 160), strict=True)]
    for parts in sent:
        tof.ran.send(*parts)
    heard(tof, *data)
    assert len(to_core(tof)) == passed
    assert fragments(tof, "diverted") - diverted == sum(len(parts) for parts in sent)
    assert tof.known(bearer)["uplink"]["packets"] >= 4


def test_a_datagram_longer_than_the_applications_link_is_cut_for_it(tof: Tof) -> None:
    bearer = new_bearer()
    tof.attach(bearer)
    data = os.urandom(8000 - 28)
    for name in ("in order", "reversed", "shuffled"):
        tof.ran.send(*order(name, cut(said(bearer, data))))
        heard(tof, data)
    assert not to_core(tof)


def test_a_datagram_too_long_for_the_application_that_may_not_be_cut_is_answered(tof: Tof) -> None:
    bearer = new_bearer()
    tof.attach(bearer)
    inner = bytearray(udp(bearer.ue, SERVICE, 5000, ECHO, bytes(4000)))
    inner[6] |= 0x40
    tof.ran.send(*cut(bearer.uplink(bytes(inner))))
    told = tof.ran.to_ue(bearer.ue)
    assert (told.inner.source, told.inner.protocol, told.inner.segment[:2]) == (SERVICE, 1, b"\x03\x04")
    assert told.inner.segment[6:8] == (1500).to_bytes(2, "big")
    assert told.teid == bearer.down
    assert not to_core(tof)


def test_datagrams_of_two_ues_interleaved(tof: Tof) -> None:
    bearers = [new_bearer(), new_bearer()]
    tof.attach(*bearers)
    data = [os.urandom(1400) for _ in bearers]
    parts = [cut(said(bearer, one), 400) for bearer, one in zip(bearers, data, strict=True)]
    tof.ran.send(*(part for both in zip(parts[0], reversed(parts[1]), strict=True) for part in both))
    heard(tof, *data)
    assert not to_core(tof)


def test_a_ues_very_first_packet_in_fragments(tof: Tof) -> None:
    for name in ("in order", "reversed"):
        bearer = new_bearer()
        data = os.urandom(1472)
        tof.ran.send(*order(name, cut(said(bearer, data), 760)))
        tof.answer_ping(bearer)
        heard(tof, data)
        assert not to_core(tof)
        assert tof.known(bearer)["uplink"]["ues"] == [bearer.ue]


def test_all_other_fragments_pass_byte_for_byte_in_order(tof: Tof) -> None:
    one, other = new_bearer(), new_bearer(enb="2001:db8:1::12", sgw="2001:db8:1::1")
    tof.attach(one, other)
    frames: list[bytes] = []
    tagged, unknown = one.but(vlan=33), new_bearer()
    tof.attach(tagged)
    for n, bearer in enumerate((one, other, tagged, unknown)):
        inner = udp(bearer.ue, elsewhere(bearer), 1000, 2000, os.urandom(1472))
        frames += cut(bearer.uplink(inner), 1400)
        frames += cut(bearer.uplink(inner), 512)
        if bearer is not unknown:
            frames.append(bearer.uplink(udp(bearer.ue, elsewhere(bearer), 1000, 2000, b"%d" % n)))
    frames += cut(
        ethernet(udp("10.1.0.11", "10.1.0.1", 2123, 2123, bytes(900)), ETHERTYPE_IPV4, one.macs), 400
    )
    before = tof.packets("fragment_queued")
    for frame in frames:
        tof.ran.send(frame)
    assert to_core(tof) == frames
    assert tof.packets("fragment_queued") == before
    tof.drain()
    back = cut(one.downlink(udp(ELSEWHERE, one.ue, 1, 2, os.urandom(1472))))[::-1]
    tof.core.send(*back)
    tof.ran.expect(back[0])
    tof.ran.expect(back[1])


def test_others_that_come_reversed_pass_in_the_order_in_which_they_came(tof: Tof) -> None:
    bearer = new_bearer()
    tof.attach(bearer)
    frames = [
        frame
        for _ in range(20)
        for frame in cut(bearer.uplink(udp(bearer.ue, ELSEWHERE, 1000, 2000, os.urandom(1400))), 480)[::-1]
    ]
    tof.ran.send(*frames)
    assert to_core(tof) == frames


def test_a_tcp_segment_follows_its_connection(tof: Tof) -> None:
    bearer = new_bearer()
    tof.attach(bearer)
    middle = cut(bearer.uplink(tcp(bearer.ue, SERVICE, 5100, 9, ACK, seq=7, data=bytes(800))), 400)
    tof.ran.send(*middle)
    assert to_core(tof) == middle
    tof.drain()
    tof.ran.send(bearer.uplink(tcp(bearer.ue, SERVICE, 5100, 9, SYN)), *cut(middle[0], 10**4))
    tof.ran.send(*cut(bearer.uplink(tcp(bearer.ue, SERVICE, 5100, 9, ACK, seq=7, data=b"z" * 800)), 400))
    tof.apps.packet(lambda one: one.source == bearer.ue and one.segment.endswith(b"z" * 800))


def test_a_foreign_source_in_fragments_is_not_diverted(tof: Tof) -> None:
    bearer, before = new_bearer(), tof.packets("spoofed")
    tof.attach(bearer)
    stolen = cut(said(bearer.but(ue="10.99.99.99"), bytes(1400)), 800)
    tof.ran.send(*stolen)
    assert to_core(tof) == stolen
    assert tof.packets("spoofed") == before + 1


def test_what_is_incomplete_goes_on_after_a_while(tof: Tof) -> None:
    bearer = new_bearer()
    tof.attach(bearer)
    before = fragments(tof, "timeout")
    parts = cut(said(bearer, bytes(1400)), 400)
    del parts[2]
    tof.ran.send(*parts)
    for part in parts:
        tof.core.expect(part)
    lonely = cut(said(bearer, bytes(1400)), 400)[1:3]
    tof.ran.send(*lonely)
    for part in lonely:
        tof.core.expect(part)
    assert fragments(tof, "timeout") == before + len(parts) + len(lonely)


def test_overlaps_are_refused_and_reach_the_core_as_they_were_sent(tof: Tof) -> None:
    bearer = new_bearer()
    tof.attach(bearer)
    before = {reason: fragments(tof, reason) for reason in ("overlap", "refused_before", "diverted")}
    ident = 0x7777
    good, bad = (cut(said(bearer, bytes([n]) * 1400, 6000), 400, ident) for n in (1, 2))
    mixed = [good[0], good[1], bad[1], good[2], good[3]]
    tof.ran.send(*mixed)
    assert to_core(tof) == mixed
    assert fragments(tof, "overlap") == before["overlap"] + 3
    assert fragments(tof, "refused_before") == before["refused_before"] + 2
    assert fragments(tof, "diverted") == before["diverted"]


def test_a_datagram_whose_headers_lie_reaches_the_core(tof: Tof) -> None:
    bearer = new_bearer()
    tof.attach(bearer)
    frame = bytearray(said(bearer, bytes(1400)))
    frame[38:40] = (int.from_bytes(frame[38:40], "big") + 8).to_bytes(2, "big")  # UDP length
    frame[44:46] = (int.from_bytes(frame[44:46], "big") + 8).to_bytes(2, "big")  # GTP-U length
    before = fragments(tof, "not_a_gpdu")
    parts = cut(bytes(frame), 800)
    tof.ran.send(*parts)
    assert to_core(tof) == parts
    assert fragments(tof, "not_a_gpdu") == before + 2


def test_bypass_lets_go_of_everything(tof: Tof) -> None:
    bearer = new_bearer()
    tof.attach(bearer)
    parts = cut(said(bearer, bytes(1400)), 800)
    tof.ran.send(parts[0])
    time.sleep(0.02)
    try:
        tof.tof("bypass", "on")
        tof.ran.send(parts[1])
        found = to_core(tof) + to_core(tof)
        assert sorted(set(found)) == sorted(parts)
    finally:
        tof.tof("bypass", "off")


def test_nobody_listens_for_ovs(tof: Tof) -> None:
    """Without a heartbeat a service's fragments stay with the core, at bridge speed."""
    bearer = new_bearer()
    tof.attach(bearer)
    node = tof.netns["tof"]
    node.run("ip", "link", "set", "tofhb0", "down")
    try:
        before = tof.packets("heartbeats")
        until("silence", lambda: tof.packets("heartbeats") == before and not time.sleep(1.0), 5)
    except AssertionError:
        pass
    try:
        queued = tof.packets("fragment_queued")
        parts = cut(said(bearer, bytes(1400)), 800)
        tof.ran.send(*parts)
        assert to_core(tof) == parts
        assert tof.packets("fragment_queued") == queued
    finally:
        node.run("ip", "link", "set", "tofhb0", "up")
        until("the heart beats", lambda: tof.get("/health")["checks"][1]["state"] == "ok")


@pytest.mark.parametrize("flood", ["first fragments", "later fragments", "overlaps"])
def test_floods_harm_nobody(tof: Tof, flood: str) -> None:
    honest, villain = new_bearer(), new_bearer(enb="10.1.0.99")
    tof.attach(honest, villain)
    rng = random.Random(1)
    template = cut(said(villain, bytes(1400), 6001), 400)

    def renumbered(frame: bytes, ident: int) -> bytes:
        packet = bytearray(frame[14:])
        packet[4:6], packet[10:12] = ident.to_bytes(2, "big"), b"\0\0"
        total = sum(int.from_bytes(packet[at : at + 2], "big") for at in range(0, 20, 2))
        total = (total & 0xFFFF) + (total >> 16)
        packet[10:12] = (0xFFFF - ((total & 0xFFFF) + (total >> 16))).to_bytes(2, "big")
        return frame[:14] + bytes(packet)

    sent: list[bytes] = []
    other = said(villain, b"z" * 1400, 6001)
    for n in range(6000):
        ident = n % 60000
        if flood == "first fragments":
            sent.append(renumbered(template[0], ident))
        elif flood == "later fragments":
            sent.append(renumbered(template[rng.randrange(1, 4)], ident))
        else:
            sent += [renumbered(template[0], ident), renumbered(cut(other, 400)[0], ident)]
    got: list[bytes] = []
    answers = Bench(tof)
    for at in range(0, len(sent), 100):
        tof.ran.send(*sent[at : at + 100])
        if at % 1000 == 0:
            beat = honest.uplink(udp(honest.ue, ELSEWHERE, 1, 2, b"honest %d" % at))
            tof.ran.send(beat)
            tof.core.expect(beat)
            data = b"to the service %d" % at
            tof.ran.send(said(honest, data))
            answers.expect(data)
    held = tof.metrics()
    assert held["tof_fragments_held"] <= FRAGMENTS
    assert held["tof_datagrams_held"] <= DATAGRAMS
    until("everything is let go", lambda: not tof.metrics()["tof_fragments_held"])
    tof.core.find(lambda _: False, 0.3)
    got = [
        frame for frame in tof.core.history if frame[26:30] == packed("10.1.0.99") and frame[20] | frame[21]
    ]
    assert sorted(got) == sorted(sent)
    data = os.urandom(1400)
    until("the window of the rate is over", lambda: not time.sleep(0.2) or True)
    tof.ran.send(*cut(said(honest, data), 800))
    answers.expect(data)


def test_fragments_that_a_kernel_makes(tof: Tof) -> None:
    """A real sender's 1536-byte packets on a 1500-byte link: to a service diverted, else passed to a real receiver."""
    ran, core = tof.netns["ran"], tof.netns["core"]
    bearer = new_bearer(enb=RAN_KERNEL, sgw=CORE_KERNEL)
    with core.entered():
        sgw = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with ran.entered():
        enb = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with sgw, enb:
        sgw.bind((CORE_KERNEL, 2152))
        sgw.settimeout(3)
        enb.bind((RAN_KERNEL, 2152))
        for port in range(30):
            inner = udp(bearer.ue, ELSEWHERE, port, 2000, os.urandom(1472))
            message = bearer.uplink(inner)[42:]
            enb.sendto(message, (CORE_KERNEL, 2152))
            while (got := sgw.recv(65535)).endswith(b"tof-pinger"):
                pass
            assert got == message
        down = bearer.downlink(udp(ELSEWHERE, bearer.ue, 1, 2, b"x"))[42:]
        sgw.sendto(down, (RAN_KERNEL, 2152))
        enb.settimeout(3)
        assert enb.recv(65535) == down
        diverted = fragments(tof, "diverted")
        for n in range(30):
            data = bytes([n]) * 1472
            enb.sendto(bearer.uplink(udp(bearer.ue, SERVICE, 7000 + n, ECHO, data))[42:], (CORE_KERNEL, 2152))
            answer: list[bytes] = []
            while len(joined(answer)) < 8 + 1476:
                answer.append(enb.recv(65535)[8:])
            assert joined(answer)[8:] == b"app:" + data
        assert fragments(tof, "diverted") == diverted + 60


INNER = {
    "IPv4": new_bearer(),
    "IPv6": new_bearer6(),
    "IPv4 in IPv6": new_bearer(enb="2001:db8:1::13", sgw="2001:db8:1::1"),
}


@pytest.mark.parametrize("kind", INNER)
@pytest.mark.parametrize("room", [1200, 1448])
def test_inner_fragments_follow_their_first_one(tof: Tof, kind: str, room: int) -> None:
    """A UE's datagram of 4 000 bytes arrives whole at a real socket, and the answer of 4 000 bytes comes back."""
    bearer = INNER[kind]
    tof.attach(bearer)
    data = os.urandom(4000)
    inner = udp(bearer.ue, service_of(bearer), next(ports), ECHO, data)
    for piece in pieces(inner, room, next(ports)):
        frame = bearer.uplink(piece)
        tof.ran.send(*(cut(frame, 1400) if len(frame) > 1514 else [frame]))
    if kind == "IPv6":  # its router may not cut: the application's kernel is told, and the second answer fits
        tof.ran.find(lambda _: False, 0.2)
        for piece in pieces(inner, room, next(ports)):
            tof.ran.send(*cut(bearer.uplink(piece), 1400))
    heard(tof, data)
    assert not to_core(tof)


def test_inner_fragments_to_an_application_behind_two_services(tof: Tof) -> None:
    bearer, data = new_bearer(), os.urandom(4000)
    tof.attach(bearer)
    with tof.service("203.0.113.40"):
        for service in (SERVICE, "203.0.113.40"):
            inner = udp(bearer.ue, service, 8000, ECHO, data)
            tof.ran.send(*(bearer.uplink(piece) for piece in pieces(inner, 1200, next(ports))))
            heard(tof, data)
            tof.ran.send(bearer.uplink(udp(bearer.ue, service, 8000, ECHO, b"short")))
            assert tof.ran.gpdu(lambda one: one.inner.data == b"app:short").inner.source == service


def test_inner_fragments_of_tcp_follow_their_connection(tof: Tof) -> None:
    bearer = new_bearer()
    tof.attach(bearer)
    tof.ran.send(bearer.uplink(tcp(bearer.ue, SERVICE, 5200, 9, SYN)))
    segment = tcp(bearer.ue, SERVICE, 5200, 9, ACK, seq=7, data=b"y" * 800)
    for piece in pieces(segment, 400, 99):
        tof.ran.send(bearer.uplink(piece))
    for size in (400, 400, 20):
        tof.apps.packet(lambda one, n=size: one.source == bearer.ue and len(one.segment) == n)
    tof.drain()
    stays = [
        bearer.uplink(piece)
        for piece in pieces(tcp(bearer.ue, SERVICE, 5201, 9, ACK, data=bytes(800)), 400, 98)
    ]
    tof.ran.send(*stays)
    assert to_core(tof) == stays


def test_an_agent_that_is_killed_loses_what_it_held_and_no_more(tof: Tof) -> None:
    bearer = new_bearer()
    tof.attach(bearer)
    parts = cut(said(bearer, bytes(1400)), 800)
    tof.ran.send(parts[0])
    time.sleep(0.02)
    tof.signal(signal.SIGKILL)
    try:
        tof.drain()
        tof.ran.send(parts[1])
        late = cut(said(bearer, bytes(1400)), 800)
        tof.ran.send(*late)
        assert to_core(tof) == [parts[1], *late]
    finally:
        tof.start()
    data = os.urandom(1400)
    tof.ran.send(*cut(said(bearer, data), 800))
    heard(tof, data)


def test_an_agent_that_hangs_is_given_no_fragments(tof: Tof) -> None:
    bearer = new_bearer()
    tof.attach(bearer)
    tof.signal(signal.SIGSTOP)
    try:
        time.sleep(0.7)
        parts = cut(said(bearer, bytes(1400)), 400)
        tof.ran.send(*parts[::-1])
        assert to_core(tof) == parts[::-1]
    finally:
        tof.signal(signal.SIGCONT)
    data = os.urandom(1400)
    until("the agent is back", lambda: tof.get("/health")["checks"])
    time.sleep(0.1)
    tof.ran.send(*cut(said(bearer, data), 800))
    heard(tof, data)


def test_an_agent_that_ends_lets_go_of_what_it_holds(tof: Tof) -> None:
    bearer = new_bearer()
    tof.attach(bearer)
    parts = cut(said(bearer, bytes(1400)), 400)[:3]
    tof.ran.send(*parts)
    time.sleep(0.02)
    tof.signal(signal.SIGTERM)
    try:
        assert to_core(tof) == parts
    finally:
        tof.start()
