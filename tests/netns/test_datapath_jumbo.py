"""Links of different lengths: a jumbo S1 before applications of 1500 bytes, and the other way round."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator

import pytest
from gtp_apps import ECHO, service_of, serving_tof
from gtp_packets import Bearer, Gpdu, new_bearer, new_bearer6, udp
from gtp_peers import APP, APP6, Setting, Tof

from tof.wire.fragment import decode_fragment
from tof.wire.inet import ICMP, ICMPV6, decode_ipv4, encode_ipv4

pytestmark = pytest.mark.netns

MODES = ["generic", "native"]
LENGTHS = [1473, 2048, 3000, 8000, 8900]
IP_MTU_DISCOVER, IPV6_MTU_DISCOVER, PMTUDISC_DONT, PMTUDISC_DO = 10, 23, 0, 2


@pytest.fixture(scope="module", params=MODES)
def jumbo_s1(request: pytest.FixtureRequest) -> Iterator[Tof]:
    with serving_tof(Setting(xdp=request.param, mtu=9100)) as tof:
        yield tof


@pytest.fixture(scope="module", params=MODES)
def jumbo_apps(request: pytest.FixtureRequest) -> Iterator[Tof]:
    with serving_tof(Setting(xdp=request.param, apps_mtu=9000)) as tof:
        yield tof


def application(tof: Tof, bearer: Bearer, discover: int) -> socket.socket:
    """A UDP socket of the application's host."""
    six = ":" in bearer.ue
    with tof.netns["apps"].entered():
        app = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_DGRAM)
    app.bind((APP6 if six else APP, 0))
    if six:
        app.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, discover)
    else:
        app.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, discover)
    return app


def to_ue(tof: Tof, bearer: Bearer) -> bytes:
    """What reaches the UE, its fragments put together: the payload of IP."""
    parts: dict[int, bytes] = {}
    while True:
        packet = tof.ran.to_ue(bearer.ue).message.payload
        if ":" in bearer.ue:
            fragment = decode_fragment(packet, None) if packet[6] == 44 else None
            at, data, more = (
                (fragment.offset, fragment.payload, fragment.more) if fragment else (0, packet[40:], False)
            )
        else:
            whole = decode_ipv4(packet)
            at, data, more = whole.offset, whole.payload, bool(whole.flags & 1)
        parts[at] = data
        if not more and sum(map(len, parts.values())) == at + len(data):
            return b"".join(parts[each] for each in sorted(parts))


@pytest.mark.parametrize("length", LENGTHS)
def test_a_ue_s_packet_that_may_be_cut_reaches_the_application_in_pieces(jumbo_s1: Tof, length: int) -> None:
    """RFC 791 section 3.2: whoever carries it on cuts it."""
    bearer, data = new_bearer(), os.urandom(length)
    jumbo_s1.attach(bearer)
    before = jumbo_s1.packets("apps_too_big")
    jumbo_s1.ran.send(bearer.uplink(udp(bearer.ue, service_of(bearer), 4000, ECHO, data)))
    assert to_ue(jumbo_s1, bearer)[8:] == b"app:" + data
    assert jumbo_s1.packets("apps_too_big") == before + 1
    jumbo_s1.core.silent(lambda one: data[:64] in one.message.payload)


@pytest.mark.parametrize("qfi", [None, 9], ids=["S1-U", "N3"])
@pytest.mark.parametrize("make", [new_bearer, new_bearer6], ids=["IPv4", "IPv6"])
def test_a_ue_is_told_what_fits_the_applications_link(
    jumbo_s1: Tof, make: Callable[..., Bearer], qfi: int | None
) -> None:
    """RFC 1191, RFC 8201: in its own tunnel, from the service, about its very packet."""
    bearer = make(qfi=qfi)
    jumbo_s1.attach(bearer)
    packet = udp(bearer.ue, service_of(bearer), 4000, ECHO, os.urandom(8000))
    six = ":" in bearer.ue
    if not six:
        packet = encode_ipv4(decode_ipv4(packet)._replace(flags=2))
    jumbo_s1.ran.send(bearer.uplink(packet))
    told: Gpdu = jumbo_s1.ran.to_ue(bearer.ue)
    assert (told.teid, told.message.qfi, told.inner.source) == (bearer.down, qfi, service_of(bearer))
    assert told.inner.protocol == (ICMPV6 if six else ICMP)
    assert told.inner.segment[:2] == (b"\2\0" if six else b"\3\4")
    assert int.from_bytes(told.inner.segment[4:8], "big") == 1500
    assert packet.startswith(told.inner.segment[8:])
    assert told.inner.checksum_right


def test_jumbo_frames_in_masses_take_no_room_from_learning(jumbo_s1: Tof) -> None:
    """What is too much is dropped and counted; new tunnels are learnt, known UEs served, S1 passes."""
    flooder, bearer = new_bearer(), new_bearer()
    jumbo_s1.attach(flooder, bearer)
    large = flooder.uplink(udp(flooder.ue, service_of(flooder), 4000, ECHO, bytes(8900)))
    for n in range(20):
        jumbo_s1.ran.send(*[large] * 100)
        newcomer = new_bearer()
        jumbo_s1.up(newcomer)
        jumbo_s1.down(newcomer)
        data = b"%d" % n
        jumbo_s1.ran.send(bearer.uplink(udp(bearer.ue, service_of(bearer), 4000, ECHO, data)))
        jumbo_s1.ran.gpdu(lambda one, data=data: one.inner.data == b"app:" + data)
        assert len(jumbo_s1.known(newcomer)) == 2


@pytest.mark.parametrize("make", [new_bearer, new_bearer6], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("length", LENGTHS)
def test_an_application_s_jumbo_datagram_reaches_the_ue(
    jumbo_apps: Tof, make: Callable[..., Bearer], length: int
) -> None:
    """IPv4 without DF is cut on the way; over IPv6 the application's kernel cuts it once it has been told."""
    bearer, data = make(), os.urandom(length)
    jumbo_apps.attach(bearer)
    with application(jumbo_apps, bearer, PMTUDISC_DONT) as app:
        for _ in range(2):
            app.sendto(data, (bearer.ue, 4000))
            time.sleep(0.1)
    assert to_ue(jumbo_apps, bearer)[8:] == data


@pytest.mark.parametrize("make", [new_bearer, new_bearer6], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("length", LENGTHS)
def test_an_application_learns_what_fits_the_tunnel(
    jumbo_apps: Tof, make: Callable[..., Bearer], length: int
) -> None:
    bearer = make()
    jumbo_apps.attach(bearer)
    with application(jumbo_apps, bearer, PMTUDISC_DO) as app:
        app.connect((bearer.ue, 4000))
        app.send(bytes(length))
        jumbo_apps.ran.silent(lambda one: one.inner.destination == bearer.ue)
        with pytest.raises(OSError, match="Message too long"):
            app.send(bytes(length))
