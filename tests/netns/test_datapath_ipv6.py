"""IPv6 UEs: a /64 each, with and without IPv4 beside it, learnt from global addresses alone; IPv6 services, real kernels."""

from __future__ import annotations

import os
import socket
import struct
import threading
import time
from collections.abc import Iterator

import pytest
from gtp_apps import (
    ECHO,
    SERVICE,
    SERVICE6,
    answer,
    echo,
    looks_as_from_the_core,
    serving_tof,
    to_core,
    ue_kernel,
)
from gtp_core import AnsweringCore
from gtp_packets import (
    ELSEWHERE6,
    TARGET6,
    Bearer,
    container,
    ip,
    is_pinger,
    new_bearer,
    new_bearer6,
    packed,
    ping,
    pong,
    udp,
)
from gtp_peers import APP, APP6, Setting, Tof, until

from tof.wire.inet import ICMPV6

pytestmark = pytest.mark.netns

LINK_LOCAL, ROUTERS, NODES = "fe80::a", "ff02::2", "ff02::1"


@pytest.fixture(scope="module", params=["generic", "native"])
def tof(request: pytest.FixtureRequest) -> Iterator[Tof]:
    with serving_tof(Setting(xdp=request.param)) as running:
        yield running


@pytest.fixture(autouse=True)
def _fresh(tof: Tof) -> None:
    until("earlier pings have ended", lambda: not tof.metrics()["tof_pings_active"], 8)
    tof.drain()


def crosses(tof: Tof, bearer: Bearer, inner: bytes, *, down: bool = False) -> None:
    source, sink = (tof.core, tof.ran) if down else (tof.ran, tof.core)
    frame = bearer.downlink(inner) if down else bearer.uplink(inner)
    source.send(frame)
    sink.expect(frame)


def prefix_of(bearer: Bearer) -> str:
    return bearer.ue.removesuffix("99") + "/64"


def solicitation(source: str = LINK_LOCAL) -> bytes:
    return ip(source, ROUTERS, ICMPV6, b"\x85\0\0\0" + bytes(4), ttl=255)


def advertisement(prefix: str, destination: str = NODES) -> bytes:
    """RFC 4861 section 4.2 with one prefix information option."""
    option = b"\x03\x04\x40\x40" + b"\xff" * 8 + bytes(4) + packed(prefix)
    return ip("fe80::1", destination, ICMPV6, b"\x86\0\0\0\x40\0\xff\xff" + bytes(8) + option, ttl=255)


def listener_report(source: str) -> bytes:
    """RFC 3810: behind a hop-by-hop header with a router alert."""
    return ip(
        source,
        "ff02::16",
        0,
        b"\x3a\0\x05\x02\0\0\1\0" + b"\x8f\0\0\0\0\0\0\1\4\0\0\0" + packed("ff02::1:ff00:a"),
    )


@pytest.mark.parametrize("generation", ["4G", "5G"])
def test_an_attach_from_the_router_solicitation_on(tof: Tof, generation: str) -> None:
    """TS 23.401 section 5.3.1.2.2: nothing is learnt before the UE uses an address of its /64."""
    bearer = new_bearer6(qfi=None if generation == "4G" else 9)
    prefix = bearer.ue.removesuffix("99")
    crosses(tof, bearer, listener_report("::"))
    crosses(
        tof,
        bearer,
        ip("::", "ff02::1:ff00:a", ICMPV6, b"\x87\0\0\0" + bytes(4) + packed(LINK_LOCAL), ttl=255),
    )
    crosses(tof, bearer, solicitation())
    crosses(
        tof, bearer.but(qfi=None), advertisement(prefix), down=True
    )  # row 15: without the extension header
    crosses(tof, bearer, advertisement(prefix, LINK_LOCAL), down=True)
    crosses(tof, bearer, listener_report(LINK_LOCAL))
    assert not tof.known(bearer)
    tof.core.silent(is_pinger, 0.2)
    tof.drain()
    tof.ran.send(echo(bearer, b"the first user packet"))
    request = tof.answer_ping(bearer)
    assert (request.inner.source, request.inner.destination) == (bearer.ue, TARGET6)
    looks_as_from_the_core(answer(tof, bearer, b"the first user packet"), bearer)
    known = tof.known(bearer)
    assert [known[way]["ues"] for way in ("uplink", "downlink")] == [[prefix_of(bearer)]] * 2
    assert not to_core(tof, bearer)
    # Router advertisements go on coming, and change nothing.
    crosses(tof, bearer.but(qfi=None), advertisement(prefix), down=True)
    crosses(tof, bearer, solicitation())
    tof.ran.send(echo(bearer, b"after another advertisement"))
    looks_as_from_the_core(answer(tof, bearer, b"after another advertisement"), bearer)
    assert tof.known(bearer)["downlink"]["ues"] == [prefix_of(bearer)]


@pytest.mark.parametrize("known", ["unknown", "known"])
@pytest.mark.parametrize("source", [LINK_LOCAL, "::", "ff02::1", "::1", "::ffff:10.1.1.1"])
def test_what_is_no_global_address_is_no_ues(tof: Tof, source: str, known: str) -> None:
    bearer = new_bearer6()
    if known == "known":
        tof.attach(bearer)
    spoofed = tof.packets("spoofed")
    crosses(tof, bearer, udp(source, ELSEWHERE6, 1, 2, b"from no UE"))
    crosses(tof, bearer, udp(source, SERVICE6, 1, ECHO, b"from no UE"))
    if known == "known":
        assert tof.known(bearer)["uplink"]["ues"] == [prefix_of(bearer)]
        assert tof.packets("spoofed") == spoofed + 1
    else:
        assert not tof.known(bearer)
    tof.core.silent(is_pinger, 0.1)


def test_all_addresses_of_a_prefix_are_one_ue(tof: Tof) -> None:
    """RFC 8981: a UE uses several, and new ones every day."""
    bearer = new_bearer6()
    tof.attach(bearer)
    prefix = bearer.ue.removesuffix(":99")
    for n, suffix in enumerate((":1", "abcd:ef01:2345:6789", ":99", "ffff:ffff:ffff:ffff")):
        one = bearer.but(ue=prefix + suffix)
        tof.ran.send(echo(one, b"address %d" % n, port=4000 + n))
        looks_as_from_the_core(answer(tof, one, b"address %d" % n), bearer)
        with tof.netns["apps"].entered(), socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as app:
            app.bind((APP6, 0))
            app.sendto(b"push %d" % n, (one.ue, 9))
        pushed = tof.ran.to_ue(one.ue)
        assert (pushed.teid, pushed.inner.data) == (bearer.down, b"push %d" % n)
    assert tof.known(bearer)["uplink"]["ues"] == [prefix_of(bearer)]
    assert not to_core(tof, bearer)


def test_the_next_prefix_is_another_ue(tof: Tof) -> None:
    one = new_bearer6()
    other = new_bearer6()
    tof.attach(one, other)
    thief = echo(one.but(ue=other.ue), b"as the other")
    tof.ran.send(thief)
    tof.core.expect(thief)
    # The one that claimed another's address has to wait for the core's word; the other is not concerned.
    tof.ran.send(echo(other, b"still mine"))
    assert answer(tof, other, b"still mine").teid == other.down


@pytest.mark.parametrize("first", ["IPv4", "IPv6"])
def test_a_dual_stack_ue_in_one_tunnel(tof: Tof, first: str) -> None:
    """TS 23.401 section 5.3.1.1: PDN type IPv4v6 is one bearer with an address of each family."""
    four, six = new_bearer(), new_bearer6()
    six = six.but(up=four.up, down=four.down)
    families = (four, six) if first == "IPv4" else (six, four)
    with AnsweringCore(tof, four, six):
        for bearer in families:
            tof.up(bearer)
            tof.down(bearer)
            until("learnt", lambda b=bearer: len(tof.known(b)) == 2)
        until("both families", lambda: all(len(one["ues"]) == 2 for one in tof.known(four).values()))
    for tunnel in tof.known(four).values():
        assert set(tunnel["ues"]) == {four.ue, prefix_of(six)}
    tof.settle(four, six)
    for bearer in (four, six, four):
        tof.ran.send(echo(bearer, b"both"))
        looks_as_from_the_core(answer(tof, bearer, b"both"), bearer)
        assert not to_core(tof, bearer)
    for bearer, service in ((four, SERVICE), (six, SERVICE6)):
        tof.ran.send(bearer.uplink(ping(bearer.ue, service, 5)))
        assert tof.ran.to_ue(bearer.ue).inner.source == service


def both_families(tof: Tof) -> tuple[Bearer, Bearer]:
    """A dual-stack UE, known under both its addresses."""
    four = new_bearer()
    six = new_bearer6().but(up=four.up, down=four.down)
    with AnsweringCore(tof, four, six):
        tof.attach(four)
        tof.ran.send(echo(six, b"too early"))
        until("both families", lambda: all(len(one["ues"]) == 2 for one in tof.known(four).values()))
    tof.drain()
    return four, six


def test_a_source_of_another_family_is_not_diverted_before_the_core_has_spoken_for_it(tof: Tof) -> None:
    four = new_bearer()
    six = new_bearer6().but(up=four.up, down=four.down)
    tof.attach(four)
    spoofed = tof.packets("spoofed")
    for n in range(5):
        frame = echo(six, b"of nobody %d" % n)
        tof.ran.send(frame)
        tof.core.expect(frame)
    assert tof.packets("spoofed") == spoofed + 5
    tof.ran.send(echo(four, b"the UE itself"))
    looks_as_from_the_core(answer(tof, four, b"the UE itself"), four)
    owner = new_bearer6().but(ue=six.ue)  # whose address it is gets no less for it
    tof.attach(owner)
    tof.ran.send(echo(owner, b"the owner"))
    looks_as_from_the_core(answer(tof, owner, b"the owner"), owner)
    assert tof.known(four)["uplink"]["ues"] == [four.ue]


def test_tunnels_that_go_to_a_ue_of_the_other_family_after_a_silent_detach(tof: Tof) -> None:
    gone = new_bearer()
    heir = new_bearer6().but(up=gone.up, down=gone.down)
    other, dedicated = new_bearer(), new_bearer()
    with AnsweringCore(tof, gone, other) as core:
        tof.attach(gone)
        tof.ran.send(echo(gone, b"before"))
        answer(tof, gone, b"before")
        tof.attach(other)
        tof.up(dedicated.but(ue=other.ue))  # has the core answer somebody in IPv4
        until("asked", lambda: (other.up, other.ue) in core.asked)
        core.bearers[:] = [heir, other]
        tof.ran.send(echo(heir, b"first of the heir"))
        until("confirmed", lambda: tof.known(heir)["downlink"]["ues"] == [prefix_of(heir)])
        tof.drain()
        with tof.netns["apps"].entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as app:
            app.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            app.bind((APP, 6001))
            for _ in range(20):
                app.sendto(b"for the one that is gone", (gone.ue, 4000))
                time.sleep(0.1)
        until("given up", lambda: tof.known(heir)["uplink"]["ues"] == [prefix_of(heir)])
        tof.ran.send(echo(heir, b"served"))
        looks_as_from_the_core(answer(tof, heir, b"served"), heir)
    tof.ran.silent(lambda one: one.inner.destination == gone.ue, 0.2)


def test_a_handover_of_a_dual_stack_ue(tof: Tof) -> None:
    four, six = both_families(tof)
    new4, new6 = (one.but(enb="10.1.0.12", down=one.down + 0x20000) for one in (four, six))
    for bearer in (four, six):
        tof.ran.send(echo(bearer, b"before"))
        answer(tof, bearer, b"before")
    with AnsweringCore(tof, new4, new6):
        for bearer in (new4, new6, new4, new6):
            tof.ran.send(echo(bearer, b"after"))
            looks_as_from_the_core(answer(tof, bearer, b"after"), bearer)
            time.sleep(0.05)


def test_the_pinger_asks_a_dual_stack_ue_in_the_family_that_speaks(tof: Tof) -> None:
    six = new_bearer6()
    four = new_bearer().but(up=six.up, down=six.down)
    tof.up(six)
    request = tof.answer_ping(six)
    assert (request.inner.source, request.inner.destination) == (six.ue, TARGET6)
    until("paired", lambda: len(tof.known(six)) == 2)
    # The address of the other family is another claim: the core speaks for it, and again for the first one beside it.
    first = echo(four, b"the first IPv4 packet")
    tof.ran.send(first)
    tof.core.expect(first)
    assert tof.answer_ping(four).inner.source == four.ue
    assert tof.answer_ping(six).inner.source == six.ue
    until("the tunnel has both", lambda: all(len(one["ues"]) == 2 for one in tof.known(four).values()))
    tof.drain()
    tof.ran.send(echo(four, b"and now IPv4"))
    looks_as_from_the_core(answer(tof, four, b"and now IPv4"), four)
    assert not to_core(tof, four)


def test_the_pingers_reply_with_its_token_never_reaches_the_ue(tof: Tof) -> None:
    bearer = new_bearer6(qfi=5)
    own = ping(bearer.ue, TARGET6, 4711, 1, b"a UE's own, of any content")
    tof.ran.send(bearer.uplink(own))
    tof.core.expect(bearer.uplink(own))
    request = tof.pinger_request(bearer)
    assert request.inner.checksum_right
    reply = bearer.downlink(pong(request.message.payload))
    tof.core.send(reply)
    until("paired", lambda: len(tof.known(bearer)) == 2)
    tof.core.send(reply)
    tof.settle(bearer)
    tof.core.send(reply)
    tof.ran.silent(lambda one: one.inner.protocol == ICMPV6)
    theirs = bearer.downlink(pong(own))
    tof.core.send(theirs)
    tof.ran.expect(theirs)


@pytest.mark.parametrize("size", [8, 56, 1200])
def test_a_service_is_pinged(tof: Tof, size: int) -> None:
    bearer = new_bearer6()
    tof.attach(bearer)
    request = ping(bearer.ue, SERVICE6, 99, 3, os.urandom(size))
    tof.ran.send(bearer.uplink(request))
    answered = tof.ran.to_ue(bearer.ue)
    looks_as_from_the_core(answered, bearer)
    assert answered.inner.source == SERVICE6
    assert answered.inner.segment[4:] == request[44:]
    assert not to_core(tof, bearer)


def test_neighbour_discovery_of_a_ue_stays_in_its_tunnel(tof: Tof) -> None:
    """Nobody answers for anybody: solicitations for the service's address cross like all else from fe80::."""
    bearer = new_bearer6()
    tof.attach(bearer)
    diverted = tof.packets("diverted")
    for target in (SERVICE6, "fe80::1"):
        crosses(
            tof,
            bearer,
            ip(LINK_LOCAL, "ff02::1:ff00:10", ICMPV6, b"\x87\0\0\0" + bytes(4) + packed(target), ttl=255),
        )
    crosses(tof, bearer, ip(bearer.ue, "ff02::fb", 17, b"\x14\xe9\x14\xe9\0\x0c\0\0mdns"))
    assert tof.packets("diverted") == diverted


@pytest.mark.parametrize("offloads", ["on", "off"])
def test_tcp_of_two_kernels_both_directions(tof: Tof, offloads: str) -> None:
    """Ten megabytes each way with UE MTU 1500 on a 1500-byte S1; the app's adapter segments and sums by offload, or not."""
    bearer = new_bearer6()
    tof.attach(bearer)
    tof.netns["apps"].run(
        "ethtool", "-K", "eth0", "tso", offloads, "gso", offloads, "gro", offloads, "tx", offloads
    )
    data = os.urandom(10_000_000)
    with tof.netns["apps"].entered():
        server = socket.create_server((APP6, 9000), family=socket.AF_INET6)

    def serve() -> None:
        peer, _ = server.accept()
        with peer:
            got = bytearray()
            while len(got) < len(data):
                got += peer.recv(1 << 20)
            peer.sendall(got)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        with server, ue_kernel(tof, bearer):
            with tof.netns["ran"].entered():
                connection = socket.create_connection((SERVICE6, 9000), 5)
            with connection:
                connection.settimeout(30)
                # Closed at once: nothing of this UE is sent again once its address is gone.
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                sender = threading.Thread(target=connection.sendall, args=(data,), daemon=True)
                sender.start()
                back = bytearray()
                while len(back) < len(data) and (chunk := connection.recv(1 << 20)):
                    back += chunk
                sender.join()
            thread.join(5)
    finally:
        tof.netns["apps"].run(
            "ethtool", "-K", "eth0", "tso", "on", "gso", "on", "gro", "on", "tx", "on", check=False
        )
    assert bytes(back) == data
    assert not to_core(tof, bearer)


def test_the_qos_flow_of_an_ipv6_ue_is_mirrored(tof: Tof) -> None:
    bearer = new_bearer6(qfi=4)
    tof.attach(bearer)
    tof.ran.send(
        bearer.but(qfi=None).uplink(
            udp(bearer.ue, SERVICE6, 4000, ECHO, b"qfi"), extensions=(container(1, 7),)
        )
    )
    looks_as_from_the_core(answer(tof, bearer, b"qfi"), bearer.but(qfi=7))
