"""Whose packet is it: bearers, QoS flows, reuse of addresses and TEIDs, moves, Error Indications; on the real data path.

GTPU.md's rule behind all of them: no packet of one UE ever goes to another, and a bearer that lives is never torn down.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from ipaddress import ip_network

import pytest
from gtp_apps import udp_echo, ue_kernel
from gtp_core import AnsweringCore
from gtp_packets import (
    ACK,
    ELSEWHERE,
    SYN,
    Bearer,
    Gpdu,
    carried,
    container,
    gtp,
    ip,
    is_pinger,
    new_bearer,
    new_bearer6,
    packed,
    pong,
    tcp,
    udp,
)
from gtp_peers import APP, APP6, Setting, Tof, running_tof, until

from tof.wire.gtpu import END_MARKER, ERROR_INDICATION, EXTENSION_UDP_PORT, Extension
from tof.wire.inet import TCP

pytestmark = pytest.mark.netns

SERVICE, ECHO, PUSH = "203.0.113.10", 7, 6000
ENB2, SGW2 = "10.1.0.12", "10.1.0.2"


@pytest.fixture(scope="module", params=["generic", "native"])
def tof(request: pytest.FixtureRequest) -> Iterator[Tof]:
    with running_tof(Setting(xdp=request.param)) as running:
        apps = running.netns["apps"]
        udp_echo(apps, APP, ECHO)
        udp_echo(apps, APP6, ECHO)
        running.provision("echo", SERVICE)
        yield running


@pytest.fixture(autouse=True)
def _fresh(tof: Tof) -> None:
    tof.drain()


@pytest.fixture
def app(tof: Tof) -> Iterator[socket.socket]:
    """The application, when it speaks first."""
    with tof.netns["apps"].entered():
        app = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with app:
        app.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        app.bind((APP, PUSH))
        yield app


def request(bearer: Bearer, data: bytes, port: int = 4000) -> bytes:
    """The UE speaks to the service."""
    return bearer.uplink(udp(bearer.ue, SERVICE, port, ECHO, data))


def reply(tof: Tof, data: bytes, timeout_s: float = 3.0) -> Gpdu:
    return tof.ran.gpdu(lambda one: one.inner.data == b"app:" + data, timeout_s)


def prefix_of(bearer: Bearer) -> str:
    return str(ip_network((bearer.ue, 64), strict=False))


def pushed(tof: Tof, data: bytes, timeout_s: float = 6.0) -> Gpdu:
    return tof.ran.gpdu(lambda one: one.inner.data == data, timeout_s)


def never(tof: Tof, *teids: int) -> None:
    """Nothing that the application said ever came down these tunnels."""
    tof.ran.silent(lambda one: one.teid in teids and one.inner.source == SERVICE, 0.1)


# Several QoS flows, several bearers


def test_a_reply_mirrors_the_qfi_of_its_flow(tof: Tof) -> None:
    """TS 23.501 section 5.7.5.3: two QoS flows in one tunnel, each answered in its own."""
    bearer = new_bearer(qfi=1)
    tof.attach(bearer)
    for port, qfi in ((4001, 1), (4002, 5), (4003, 63), (4001, 7)):
        data = b"qfi %d" % qfi
        tof.ran.send(request(bearer.but(qfi=qfi), data, port))
        answered = reply(tof, data)
        assert (answered.message.pdu_type, answered.message.qfi, answered.teid) == (0, qfi, bearer.down)


def test_the_qfi_of_each_of_very_many_flows(tof: Tof) -> None:
    """As many as fill half of a UE's part of the flow table: most of its places are wanted by several of them."""
    bearer = new_bearer(qfi=1)
    tof.attach(bearer)
    ports, wanted = range(10_000, 12_000), {}
    for start in range(0, len(ports), 50):
        for port in ports[start : start + 50]:
            wanted[b"app:port %d" % port] = qfi = 1 + port % 63
            tof.ran.send(request(bearer.but(qfi=qfi), b"port %d" % port, port))
        reply(tof, b"port %d" % ports[start + 49])
    tof.drain()
    for start in range(0, len(ports), 50):  # each once more, as what it was: nothing but the flow tells
        for port in ports[start : start + 50]:
            tof.ran.send(request(bearer.but(qfi=1 + port % 63), b"port %d" % port, port))
        reply(tof, b"port %d" % ports[start + 49])
    answers = {one.inner.data: one.message.qfi for one in tof.ran.gpdus()}
    assert {data: answers.get(data) for data in wanted} == wanted


def test_what_an_app_says_first_goes_into_the_default_qos_flow(tof: Tof, app: socket.socket) -> None:
    bearer = new_bearer(qfi=1)
    tof.attach(bearer)
    other = bearer.but(qfi=5).downlink(udp(ELSEWHERE, bearer.ue, 1, 2, b"a dedicated QoS flow"))
    tof.core.send(other)
    tof.ran.expect(other)
    app.sendto(b"push", (bearer.ue, 1))
    assert pushed(tof, b"push").message.qfi == 1


def test_a_qfi_in_the_uplink_alone_is_not_shown_to_an_enb_that_never_sent_one(tof: Tof) -> None:
    bearer = new_bearer()
    tof.attach(bearer)
    inner = udp(bearer.ue, SERVICE, 4000, ECHO, b"mixed")
    tof.ran.send(bearer.uplink(inner, extensions=(container(1, 5),)))
    assert reply(tof, b"mixed").message.flags == 0x30


def test_the_longest_container_is_understood(tof: Tof) -> None:
    bearer = new_bearer(qfi=9)
    tof.attach(bearer)
    long_one = Extension(0x85, bytes((0x10, 33)) + bytes(1016))  # 255 units of four octets
    inner = udp(bearer.ue, SERVICE, 4000, ECHO, b"long")
    tof.ran.send(bearer.but(qfi=None).uplink(inner, extensions=(Extension(0xC0, b"\1\2"), long_one)))
    assert reply(tof, b"long").message.qfi == 33


def test_each_bearer_is_answered_in_its_own_pair_and_pinged_only_when_a_reply_needs_it(tof: Tof) -> None:
    default = new_bearer()
    dedicated = default.but(up=default.up + 0x20000, down=default.down + 0x20000)
    with AnsweringCore(tof, default, dedicated) as core:
        for bearer in (default, dedicated):
            tof.up(bearer)
            tof.down(bearer)
        until("the default bearer was asked", lambda: (default.up, default.ue) in core.asked)
        time.sleep(0.5)
        assert (dedicated.up, default.ue) not in core.asked
        for n, bearer in enumerate((default, dedicated, default)):
            tof.ran.send(request(bearer, b"bearer %d" % n, 4200 + n))
            assert reply(tof, b"bearer %d" % n).teid == bearer.down
    tof.ran.send(request(dedicated, b"again", 4300))
    assert reply(tof, b"again").teid == dedicated.down


def test_a_bearer_that_nobody_answers_for_takes_the_default_one_s_way(tof: Tof) -> None:
    default = new_bearer()
    dedicated = default.but(up=default.up + 0x20000)
    with AnsweringCore(tof, default):
        tof.attach(default)
        tof.up(dedicated)
        tof.ran.send(request(dedicated, b"which way?"))
        assert reply(tof, b"which way?").teid == default.down


# Reuse


def test_an_address_given_to_another_ue_after_a_silent_detach(tof: Tof, app: socket.socket) -> None:
    """The former UE's TEIDs are with a third UE by then."""
    gone = new_bearer()
    with AnsweringCore(tof, gone) as core:
        tof.attach(gone)
        app.sendto(b"before", (gone.ue, 1))
        assert pushed(tof, b"before").teid == gone.down
        heir = new_bearer().but(ue=gone.ue)
        core.bearers[:] = [heir]
        tof.drain()
        tof.up(heir)
        app.sendto(b"for the heir", (heir.ue, 1))
        tof.ran.send(request(heir, b"hello"))
        assert reply(tof, b"hello").teid == heir.down
        until("the former claim is given up", lambda: not tof.known(gone))
        app.sendto(b"later", (heir.ue, 1))
        assert pushed(tof, b"later").teid == heir.down
        assert [one.teid for one in tof.ran.gpdus() if one.inner.data == b"for the heir"] == [heir.down]
    never(tof, gone.down)


def test_teids_given_to_another_ue_after_a_silent_detach(tof: Tof, app: socket.socket) -> None:
    gone = new_bearer()
    heir = gone.but(ue=new_bearer().ue)
    with AnsweringCore(tof, gone) as core:
        tof.attach(gone)
        core.bearers[:] = [heir]
        spoofed = tof.packets("spoofed")
        frame = request(heir, b"first of the heir")
        tof.ran.send(frame)
        app.sendto(b"late, for the one that is gone", (gone.ue, 1))
        tof.core.expect(frame)
        assert tof.packets("spoofed") == spoofed + 1
        until("confirmed", lambda: tof.known(heir)["uplink"]["ues"] == [heir.ue])
        tof.ran.send(request(heir, b"served"))
        assert reply(tof, b"served").teid == heir.down
    tof.ran.silent(lambda one: one.inner.destination == gone.ue, 0.2)


def test_a_downlink_packet_to_another_ue_stops_injection_at_once(tof: Tof, app: socket.socket) -> None:
    gone = new_bearer()
    heir = gone.but(ue=new_bearer().ue)
    tof.attach(gone)
    for n in range(50):
        tof.core.send(heir.downlink(udp(ELSEWHERE, heir.ue, 1, 2, b"%d" % n)))
        app.sendto(b"late", (gone.ue, 1))
    until("moved", lambda: tof.known(heir)["downlink"]["ues"] == [heir.ue])
    seen: list[bytes] = []
    while (frame := tof.ran.receive(0.2)) is not None:
        seen.append(frame)
    first = next(n for n, frame in enumerate(seen) if Gpdu.of(frame).inner.destination == heir.ue)
    assert all(Gpdu.of(frame).inner.destination == heir.ue for frame in seen[first:])


def test_a_ue_that_leaks_a_foreign_source_keeps_its_service(tof: Tof) -> None:
    """Tethered networks leak: the owner is confirmed by the core, the leak is not diverted."""
    bearer = new_bearer()
    with AnsweringCore(tof, bearer):
        tof.attach(bearer)
        for n in range(20):
            leak = bearer.uplink(udp("192.168.77.9", SERVICE, 4000, ECHO, b"leak %d" % n))
            tof.ran.send(leak, request(bearer, b"own %d" % n))
            tof.core.expect(leak)
            assert reply(tof, b"own %d" % n).teid == bearer.down


# Mobility


def echoes(tof: Tof, bearer: Bearer, core: AnsweringCore, moves: dict[int, tuple[Bearer, ...]]) -> list[Gpdu]:
    """A running request per 20 ms; at some of them the world is another: the UE's bearer, then what the core knows."""
    for n in range(60):
        if n in moves:
            bearer, *known = moves[n]
            core.bearers[:] = known
        tof.ran.send(request(bearer, b"echo %d" % n))
        time.sleep(0.02)
    while tof.ran.receive(0.3) is not None:
        pass
    came = {one.inner.data: one for one in tof.ran.gpdus() if one.inner.source == SERVICE}
    return [came[b"app:echo %d" % n] for n in range(60)]


def end_marker(bearer: Bearer) -> bytes:
    return carried(bearer.sgw, bearer.enb, gtp(bearer.down, kind=END_MARKER), macs=bearer.macs[::-1])


def test_handover_loses_nothing_of_a_running_exchange_with_the_edge(tof: Tof) -> None:
    """The UE talks to the edge alone: nothing but the Pinger can find the new downlink."""
    before = new_bearer()
    after = before.but(enb=ENB2, down=before.down + 0x20000)
    with AnsweringCore(tof, before) as core:
        tof.attach(before)
        answers = echoes(tof, before, core, {20: (after, after)})
    assert {one.teid for one in answers[:20]} == {before.down}
    assert {(one.destination, one.teid) for one in answers[20:]} == {(ENB2, after.down)}


def test_the_gap_of_a_handover_is_one_round_of_the_pinger(tof: Tof) -> None:
    """Its first request goes out with the first packet from the new eNB; the first answer lets all replies go."""
    before = new_bearer()
    after = before.but(enb=ENB2, down=before.down + 0x20000)
    tof.attach(before)
    tof.ran.send(request(before, b"before"))
    assert reply(tof, b"before").teid == before.down
    tof.drain()
    tof.ran.send(request(after, b"one"))
    asked = tof.pinger_request(after)
    tof.ran.send(request(after, b"two"))
    tof.ran.silent(lambda one: one.inner.source == SERVICE)
    tof.core.send(after.downlink(pong(asked.message.payload)))
    for data in (b"one", b"two"):
        answered = reply(tof, data)
        assert (answered.destination, answered.teid) == (ENB2, after.down)


def test_a_dedicated_bearer_speaks_first_after_a_handover(tof: Tof, app: socket.socket) -> None:
    """The default bearer's tunnel is asked through all the same, and what an application says first goes down its."""
    default, dedicated = new_bearer(), new_bearer()
    dedicated = dedicated.but(ue=default.ue)
    moved, aside = (one.but(enb=ENB2, down=one.down + 0x20000) for one in (default, dedicated))
    with AnsweringCore(tof, default) as core:
        tof.attach(default)
        tof.up(dedicated)
        core.bearers[:] = [moved]
        core.asked.clear()
        tof.drain()
        tof.ran.send(request(aside, b"hello"))
        until("asked", lambda: (moved.up, moved.ue) in core.asked)
        app.sendto(b"push", (default.ue, 1))
        assert (got := pushed(tof, b"push")).teid == moved.down
        assert got.destination == ENB2
        tof.ran.send(request(moved, b"default", 4001))
        assert reply(tof, b"default").teid == moved.down
    never(tof, default.down)


def test_handover_with_the_path_switch_later(tof: Tof) -> None:
    """X2: for a while the core still sends to the old eNB, which forwards; the End Marker switches."""
    before = new_bearer()
    after = before.but(enb=ENB2, down=before.down + 0x20000)
    with AnsweringCore(tof, before) as core:
        tof.attach(before)
        tof.ran.send(request(after, b"one"))
        core.bearers[:] = [(after, before)]
        assert reply(tof, b"one").teid == before.down
        core.bearers[:] = [after]
        tof.core.send(end_marker(before))
        tof.ran.send(request(after, b"two"))
        answered = reply(tof, b"two")
        assert (answered.destination, answered.teid) == (ENB2, after.down)
        assert tof.known(before)["downlink"]["state"] == "ended"


def test_a_ue_that_comes_back_is_followed(tof: Tof) -> None:
    before = new_bearer()
    away = before.but(enb=ENB2, down=before.down + 0x20000)
    again = before.but(down=before.down + 0x40000)
    with AnsweringCore(tof, before) as core:
        tof.attach(before)
        answers = echoes(tof, before, core, {15: (away, away), 35: (again, again)})
    assert {one.teid for one in answers[:15]} == {before.down}
    assert {one.teid for one in answers[15:35]} == {away.down}
    assert {one.teid for one in answers[36:]} == {again.down}


def test_the_core_is_the_first_to_show_a_handover(tof: Tof, app: socket.socket) -> None:
    before = new_bearer()
    after = before.but(enb=ENB2, down=before.down + 0x20000)
    with AnsweringCore(tof, before) as core:
        tof.attach(before)
        core.bearers[:] = [(before, after)]
        tof.down(after)
        app.sendto(b"push", (before.ue, 1))
        got = pushed(tof, b"push")
        assert (got.destination, got.teid) == (ENB2, after.down)


def test_sgw_relocation(tof: Tof, app: socket.socket) -> None:
    before = new_bearer()
    after = before.but(sgw=SGW2, up=before.up + 0x20000, down=before.down + 0x20000)
    with AnsweringCore(tof, before) as core:
        tof.attach(before)
        tof.ran.send(request(before, b"before"))
        assert reply(tof, b"before").teid == before.down
        core.bearers[:] = [after]
        tof.drain()
        tof.up(after)
        until("the former path is given up", lambda: not tof.known(before))
        tof.ran.send(request(after, b"after"))  # the same flow
        assert (reply(tof, b"after").source, tof.ran.gpdus()[-1].teid) == (SGW2, after.down)
        app.sendto(b"push", (before.ue, 1))
        assert pushed(tof, b"push").source == SGW2
    never(tof, before.down)


def test_after_a_relocation_the_edge_goes_on_with_the_core_s_first_word(tof: Tof) -> None:
    """The UE talks to the edge alone: its flow goes over when the core has answered at the new SGW, before it is clear
    that the former path is no more."""
    before = new_bearer()
    after = before.but(sgw=SGW2, up=before.up + 0x20000, down=before.down + 0x20000)
    with AnsweringCore(tof, before) as core:
        tof.attach(before)
        tof.ran.send(request(before, b"before"))
        assert reply(tof, b"before").teid == before.down
        core.bearers[:] = [after]
        tof.drain()
        time.sleep(
            0.05
        )  # a relocation takes longer; within a tick of the clock it cannot be told from a second UE
        tof.ran.send(request(after, b"goes to the core"))
        until("the core has answered", lambda: "downlink" in tof.known(after))
        assert tof.known(before)
        tof.ran.send(request(after, b"after"))
        assert reply(tof, b"after").teid == after.down
        assert tof.known(before)


def test_a_handover_whose_first_packet_has_a_foreign_source(tof: Tof) -> None:
    """A tethered network leaks: the new tunnel is the same bearer's all the same, and its connection stays whole."""
    before = new_bearer()
    after = before.but(enb=ENB2, down=before.down + 0x20000)
    leak = after.but(ue=new_bearer().ue)
    with AnsweringCore(tof, before) as core, tof.netns["apps"].entered(), socket.create_server((APP, 8083)):
        tof.attach(before)
        tof.ran.send(before.uplink(tcp(before.ue, SERVICE, 5003, 8083, SYN)))
        opened = tof.ran.gpdu(lambda one: one.inner.source == SERVICE)
        core.bearers[:] = [after]
        tof.up(leak)
        seq = int.from_bytes(opened.inner.segment[4:8], "big") + 1
        tof.core.drain()
        for n in range(10):
            tof.ran.send(
                after.uplink(tcp(before.ue, SERVICE, 5003, 8083, ACK, seq=1001, ack=seq, data=b"on"))
            )
            tof.ran.send(request(after, b"datagram %d" % n))
            time.sleep(0.05)
        answered = tof.ran.gpdu(lambda one: one.inner.source == SERVICE and one.inner.tcp_flags == ACK)
        assert (answered.teid, answered.destination) == (after.down, ENB2)
        assert reply(tof, b"datagram 9").teid == after.down
        tof.core.silent(lambda one: one.inner.protocol == TCP)


def test_a_downlink_packet_to_an_address_of_a_service_stops_nothing(tof: Tof, app: socket.socket) -> None:
    bearer = new_bearer()
    tof.attach(bearer)
    for n in range(3):
        odd = bearer.downlink(udp(ELSEWHERE, SERVICE, 1, 2, b"%d" % n))
        tof.core.send(odd)
        tof.ran.expect(odd)
        app.sendto(b"push %d" % n, (bearer.ue, 1))
        assert pushed(tof, b"push %d" % n).teid == bearer.down


def test_a_connection_outlives_an_sgw_relocation(tof: Tof) -> None:
    """Its packets wait for the core's word: the service's server, which does not know it, would reset it."""
    before = new_bearer()
    after = before.but(sgw=SGW2, up=before.up + 0x20000, down=before.down + 0x20000)
    with AnsweringCore(tof, before) as core, tof.netns["apps"].entered(), socket.create_server((APP, 8082)):
        tof.attach(before)
        tof.ran.send(before.uplink(tcp(before.ue, SERVICE, 5002, 8082, SYN)))
        opened = tof.ran.gpdu(lambda one: one.inner.source == SERVICE)
        core.bearers[:] = [after]
        seq = int.from_bytes(opened.inner.segment[4:8], "big") + 1
        data = after.uplink(tcp(before.ue, SERVICE, 5002, 8082, ACK, seq=1001, ack=seq, data=b"on"))
        tof.core.drain()
        for _ in range(20):
            tof.ran.send(data)
            time.sleep(0.1)
        answered = tof.ran.gpdu(lambda one: one.source == SGW2 and one.inner.tcp_flags == ACK)
        assert answered.teid == after.down
        tof.core.silent(lambda one: one.inner.protocol == TCP)


# Error Indications


def shapes(sender: str, receiver: str, teid: int, macs: tuple[bytes, bytes], port: int = 2152) -> list[bytes]:
    """Row 7: the three shapes seen."""
    elements = b"\x10" + teid.to_bytes(4, "big") + b"\x85\x00\x04" + packed(sender)
    messages = (
        gtp(0, elements, kind=ERROR_INDICATION, sequence=0),
        gtp(teid, elements, kind=ERROR_INDICATION, sequence=0,
            extensions=(Extension(EXTENSION_UDP_PORT, b"\x08\x68"),)),
        gtp(teid, kind=ERROR_INDICATION),
    )  # fmt: skip
    return [carried(sender, receiver, message, macs=macs) for message in messages]


@pytest.mark.parametrize("shape", range(3))
def test_an_error_indication_that_an_injected_packet_caused_does_not_reach_the_core(
    tof: Tof, app: socket.socket, shape: int
) -> None:
    bearer = new_bearer()
    tof.attach(bearer)
    app.sendto(b"one", (bearer.ue, 1))
    app.sendto(b"two", (bearer.ue, 1))
    pushed(tof, b"two")
    complaint = shapes(bearer.enb, bearer.sgw, bearer.down, bearer.macs)[shape]
    tof.drain()
    tof.ran.send(complaint, complaint)
    until("the tunnel is forgotten", lambda: "downlink" not in tof.known(bearer))
    time.sleep(0.1)
    while tof.core.receive(0.1) is not None:
        pass
    assert complaint not in tof.core.history
    assert tof.metrics()["tof_learning_total{error_indication_held_back}"] >= 2


@pytest.mark.parametrize("shape", range(3))
def test_any_other_error_indication_passes_and_purges(tof: Tof, app: socket.socket, shape: int) -> None:
    bearer = new_bearer()
    tof.attach(bearer)
    app.sendto(b"injected", (bearer.ue, 1))
    pushed(tof, b"injected")
    tof.down(bearer)  # the core has spoken since
    complaint = shapes(bearer.enb, bearer.sgw, bearer.down, bearer.macs)[shape]
    tof.ran.send(complaint)
    tof.core.expect(complaint)
    until("the tunnel is forgotten", lambda: "downlink" not in tof.known(bearer))


def test_an_error_indication_that_a_ping_caused_does_not_reach_the_enb_while_the_ue_talks_to_the_edge(
    tof: Tof,
) -> None:
    bearer = new_bearer()
    tof.ran.send(request(bearer, b"unheard"))
    tof.pinger_request(bearer)
    tof.ran.send(request(bearer, b"unheard too"))
    complaint = shapes(bearer.sgw, bearer.enb, bearer.up, bearer.macs[::-1])[1]
    tof.core.send(complaint)
    until("forgotten", lambda: "uplink" not in tof.known(bearer))
    tof.ran.silent(lambda one: False, 0.2)
    assert complaint not in tof.ran.history
    tof.drain()
    tof.up(bearer)
    tof.core.silent(lambda one: one.teid == bearer.up and is_pinger(one), 1.0)


def test_a_packet_from_the_wrong_side_is_not_diverted_while_its_tunnel_is_new_either(tof: Tof) -> None:
    """The core's side sends what only the eNB may: by way of the queue, too, it passes as it is."""
    bearer = new_bearer()
    tof.up(bearer)
    forged = carried(
        bearer.enb,
        bearer.sgw,
        gtp(bearer.up, udp(bearer.ue, SERVICE, 4000, ECHO, b"forged")),
        macs=bearer.macs[::-1],
    )
    for _ in range(3):
        tof.core.send(forged)
        tof.ran.expect(forged)
    assert tof.apps.find(lambda frame: b"forged" in frame, 0.2) is None
    tof.ran.send(request(bearer, b"own"))
    assert tof.apps.find(lambda frame: b"own" in frame, 3.0) is not None


def test_signals_from_the_wrong_side_pass_and_change_nothing(tof: Tof, app: socket.socket) -> None:
    bearer = new_bearer()
    tof.attach(bearer)
    forged = [
        carried(bearer.sgw, bearer.enb, gtp(bearer.down, kind=END_MARKER), macs=bearer.macs),
        shapes(bearer.sgw, bearer.enb, bearer.up, bearer.macs)[0],
    ]
    for frame in forged:
        tof.ran.send(frame)
        tof.core.expect(frame)
    app.sendto(b"still", (bearer.ue, 1))
    assert pushed(tof, b"still").teid == bearer.down
    assert len(tof.known(bearer)) == 2
    metrics = tof.metrics()
    assert metrics["tof_learning_total{end_marker_wrong_side}"] >= 1
    assert metrics["tof_learning_total{error_indication_wrong_side}"] >= 1


def test_an_app_speaks_to_a_ue_that_was_seen_downlink_only(tof: Tof, app: socket.socket) -> None:
    """A push from the Internet has shown the tunnel; the UE has said nothing yet."""
    bearer = new_bearer(qfi=3)
    tof.down(bearer)
    app.sendto(b"good morning", (bearer.ue, 1))
    got = pushed(tof, b"good morning")
    assert (got.teid, got.message.qfi) == (bearer.down, 3)


@pytest.mark.parametrize("seen", ["both ways", "downlink only"])
def test_a_connection_that_an_app_opens_is_the_edges(tof: Tof, seen: str) -> None:
    """The UE's SYN-ACK is no SYN, and belongs to the application all the same."""
    bearer, ran = new_bearer(), tof.netns["ran"]
    (tof.attach if seen == "both ways" else tof.down)(bearer)
    with AnsweringCore(tof, bearer), ue_kernel(tof, bearer):
        with ran.entered():
            server = socket.create_server((bearer.ue, 7000))
        with tof.netns["apps"].entered():
            app = socket.socket()
        with server, app:
            app.bind((APP, 0))
            app.settimeout(5)
            server.settimeout(5)
            app.connect((bearer.ue, 7000))
            ue, (peer, _) = server.accept()
            with ue:
                assert peer == SERVICE
                app.sendall(b"from the application")
                assert ue.recv(100) == b"from the application"
                ue.sendall(b"from the UE")
                assert app.recv(100) == b"from the UE"
    tof.core.silent(lambda one: one.teid == bearer.up and one.inner.protocol == TCP, 0.1)


def test_a_syn_ack_that_nobody_asked_for_stays_with_the_core(tof: Tof) -> None:
    bearer = new_bearer()
    tof.attach(bearer)
    frame = bearer.uplink(tcp(bearer.ue, SERVICE, 7000, 9000, SYN | ACK))
    tof.ran.send(frame)
    tof.core.expect(frame)


def test_what_is_said_on_a_former_ue_s_flow_is_held_and_given_up(tof: Tof) -> None:
    """Its TEIDs are another's, its address a third one's: the frame goes to neither, nor round and round."""
    gone = new_bearer()
    heir, third = gone.but(ue=new_bearer().ue), new_bearer().but(ue=gone.ue)
    with tof.netns["apps"].entered():
        app = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with AnsweringCore(tof, gone) as core, app:
        app.bind((APP, 6001))
        app.settimeout(3)
        tof.attach(gone)
        tof.ran.send(gone.uplink(udp(gone.ue, SERVICE, 4000, 6001, b"hello")))
        assert app.recv(100) == b"hello"
        core.bearers[:] = [heir, third]
        for bearer in (heir, third):
            tof.up(bearer)
            tof.down(bearer)
            until("known", lambda b=bearer: tof.known(b).get("uplink", {}).get("ues") == [b.ue])
            until("paired", lambda b=bearer: len(tof.known(b)) == 2)
            tof.up(bearer)
            tof.down(bearer)
        tof.drain()
        before = tof.packets("ue_moved")
        app.sendto(b"late", (gone.ue, 4000))
        tof.ran.silent(lambda one: one.inner.data == b"late", 1.0)
        assert tof.packets("ue_moved") - before <= 3
        tof.ran.send(third.uplink(udp(third.ue, SERVICE, 4001, 6001, b"mine")))
        assert app.recv(100) == b"mine"
        app.sendto(b"yours", (third.ue, 4001))
        assert pushed(tof, b"yours").teid == third.down


def test_a_router_advertisement_ends_no_doubt(tof: Tof) -> None:
    """TEIDs of an IPv6 UE are another's: what the core sends to all nodes is no word about whose they are."""
    gone = new_bearer6()
    heir = gone.but(ue=new_bearer6().ue)
    with tof.netns["apps"].entered():
        app = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    with AnsweringCore(tof, gone) as core, app, tof.service("2001:db8:113::66", APP6):
        app.bind((APP6, 6002))
        tof.attach(gone)
        app.sendto(b"first", (gone.ue, 1))
        assert pushed(tof, b"first").teid == gone.down
        core.bearers[:] = []
        tof.up(heir)
        advertisement = heir.downlink(ip("fe80::1", "ff02::1", 58, bytes((134, 0, 0, 0)) + bytes(12)))
        tof.core.send(advertisement)
        tof.ran.expect(advertisement)
        app.sendto(b"secret", (gone.ue, 1))
        tof.ran.silent(lambda one: one.inner.data == b"secret", 0.3)
        core.bearers[:] = [heir]
        until("the heir has them", lambda: tof.known(heir).get("uplink", {}).get("ues") == [prefix_of(heir)])
    never(tof, heir.down)


def test_an_app_opens_a_connection_to_an_idle_ue(tof: Tof) -> None:
    """Its SYN waits while the Pinger asks, and goes out once, in the tunnel that the paging opened."""
    bearer = new_bearer()
    with AnsweringCore(tof) as core:
        tof.up(bearer)
        until("nobody answers", lambda: not tof.metrics()["tof_pings_active"], 10)
        tof.drain()
        with tof.netns["apps"].entered(), socket.socket() as app:
            app.bind((APP, 0))
            app.setblocking(False)
            app.connect_ex((bearer.ue, 7000))
            tof.ran.silent(lambda one: one.inner.destination == bearer.ue, 0.3)
            core.bearers[:] = [bearer]
            syn = tof.ran.gpdu(lambda one: one.inner.destination == bearer.ue)
        assert (syn.teid, syn.inner.source, syn.inner.tcp_flags) == (bearer.down, SERVICE, SYN)
        assert syn.inner.mss is not None
        assert syn.inner.mss <= 1500 - 20 - 8 - 16 - 20 - 20


def test_an_idle_ue_s_enb_complains_and_the_pinger_finds_it_again(tof: Tof, app: socket.socket) -> None:
    """S1 release has no sign: the eNB knows the TEID no more, paging gives the UE another one."""
    before = new_bearer()
    after = before.but(down=before.down + 0x20000)
    with AnsweringCore(tof, before) as core:
        tof.attach(before)
        core.bearers[:] = [after]
        app.sendto(b"lost", (before.ue, 1))
        pushed(tof, b"lost")
        tof.ran.send(shapes(before.enb, before.sgw, before.down, before.macs)[0])
        until("found", lambda: "downlink" in tof.known(after))
        app.sendto(b"found", (before.ue, 1))
        assert pushed(tof, b"found").teid == after.down


def test_tcp_syn_in_a_dedicated_bearer_is_answered_there(tof: Tof) -> None:
    default = new_bearer()
    dedicated = default.but(up=default.up + 0x20000, down=default.down + 0x20000)
    with (
        AnsweringCore(tof, default, dedicated),
        tof.netns["apps"].entered(),
        socket.create_server((APP, 8081)),
    ):
        tof.attach(default)
        tof.up(dedicated)
        tof.down(dedicated)
        tof.ran.send(dedicated.uplink(tcp(default.ue, SERVICE, 5001, 8081, SYN)))
        answered = tof.ran.gpdu(lambda one: one.inner.source == SERVICE)
        assert answered.teid == dedicated.down
