"""Diversion, packet by packet: what a UE says to a service, and what the application answers."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator

import pytest
from gtp_apps import (
    ECHO,
    SERVICE,
    answer,
    echo,
    looks_as_from_the_core,
    service_of,
    serving_tof,
    to_core,
    ue_kernel,
)
from gtp_packets import (
    ACK,
    APP_MAC,
    ELSEWHERE,
    SYN,
    Bearer,
    container,
    ethernet,
    is_pinger,
    new_bearer,
    new_bearer6,
    ping,
    pong,
    tcp,
    udp,
)
from gtp_peers import APP, APP6, Setting, Tof, until

from tof.model import GATEWAY_MAC, tunnel_mac
from tof.wire.icmp import fragmentation_needed, packet_too_big
from tof.wire.inet import ETHERTYPE_IPV4, TCP

pytestmark = pytest.mark.netns

WEB = 8080
# Linux UAPI in.h, which Python's socket module does not name.
IP_MTU_DISCOVER, IP_MTU, PMTUDISC_DONT, PMTUDISC_DO = 10, 14, 0, 2


@pytest.fixture(scope="module", params=["generic", "native"])
def tof(request: pytest.FixtureRequest) -> Iterator[Tof]:
    with serving_tof(Setting(xdp=request.param)) as running:
        with running.netns["apps"].entered():
            web = socket.create_server((APP, WEB), backlog=64)
        with web:
            yield running


@pytest.fixture(autouse=True)
def _fresh(tof: Tof) -> None:
    tof.drain()


def test_a_ues_very_first_packet_is_a_syn_to_a_service_that_shadows_a_live_server(tof: Tof) -> None:
    bearer = new_bearer()
    tof.ran.send(bearer.uplink(tcp(bearer.ue, SERVICE, 5000, WEB, SYN, mss=1460)))
    request = tof.answer_ping(bearer)
    assert (request.inner.source, request.source, request.destination) == (bearer.ue, bearer.enb, bearer.sgw)
    syn_ack = tof.ran.to_ue(bearer.ue)
    assert (syn_ack.inner.source, syn_ack.inner.tcp_flags) == (SERVICE, SYN | ACK)
    assert (syn_ack.source, syn_ack.destination, syn_ack.teid) == (bearer.sgw, bearer.enb, bearer.down)
    tof.core.silent(lambda one: one.teid == bearer.up and not is_pinger(one))


def test_the_first_packet_of_a_udp_flow_on_an_unknown_tunnel_is_diverted(tof: Tof) -> None:
    bearer = new_bearer(vlan=12)
    tof.down(bearer)
    tof.ran.send(echo(bearer))
    assert answer(tof, bearer).vlan == 12
    assert not to_core(tof, bearer)


KINDS = {
    "4G": new_bearer(),
    "DSCP": new_bearer(tos=0xB8),
    "5G": new_bearer(qfi=9),
    "VLAN": new_bearer(vlan=100, tos=0x28),
    "5G in a VLAN": new_bearer(vlan=101, qfi=5),
    "IPv6 UE": new_bearer6(),
    "outer IPv6": new_bearer(enb="2001:db8:1::11", sgw="2001:db8:1::1", tos=0x48),
    "5G, IPv6 in IPv6": new_bearer6(enb="2001:db8:1::11", sgw="2001:db8:1::1", qfi=63, vlan=9),
}


@pytest.mark.parametrize("kind", KINDS)
def test_udp_both_ways(tof: Tof, kind: str) -> None:
    bearer, data = KINDS[kind], os.urandom(33)
    tof.attach(bearer)
    tof.ran.send(echo(bearer, data, ttl=33))
    eth, asked = tof.apps.packet(lambda one: one.data == data)
    assert (eth.source, eth.destination, eth.vlan) == (GATEWAY_MAC, APP_MAC, None)
    assert (asked.source, asked.destination, asked.ttl) == (bearer.ue, APP6 if ":" in bearer.ue else APP, 33)
    assert asked.checksum_right
    answered = answer(tof, bearer, data)
    looks_as_from_the_core(answered, bearer)
    assert (answered.inner.source, answered.inner.ttl) == (service_of(bearer), 64)
    assert not to_core(tof, bearer)


@pytest.mark.parametrize("kind", ["4G", "5G", "IPv6 UE", "5G, IPv6 in IPv6"])
def test_icmp_both_ways(tof: Tof, kind: str) -> None:
    bearer = KINDS[kind]
    tof.attach(bearer)
    request = ping(bearer.ue, service_of(bearer), 77, 5, b"ping of a service")
    tof.ran.send(bearer.uplink(request))
    answered = tof.ran.to_ue(bearer.ue)
    looks_as_from_the_core(answered, bearer)
    assert answered.inner.segment == pong(request)[-len(answered.inner.segment) :]
    assert answered.inner.source == service_of(bearer)
    assert not to_core(tof, bearer)


def test_flags_of_the_uplink_are_not_copied_to_the_downlink(tof: Tof) -> None:
    bearer = new_bearer()
    tof.attach(bearer)
    inner = udp(bearer.ue, SERVICE, 4001, ECHO, b"flags")
    tof.ran.send(bearer.uplink(inner, sequence=9, npdu=1, extensions=(container(1, 5),)))
    looks_as_from_the_core(answer(tof, bearer, b"flags"), bearer)


def test_ethernet_padding_does_not_reach_the_application(tof: Tof) -> None:
    bearer = new_bearer()
    tof.attach(bearer)
    tof.ran.send(echo(bearer, b"pad") + bytes(19))
    eth, _ = tof.apps.packet(lambda one: one.data == b"pad")
    assert len(eth.payload) == 20 + 8 + 3
    answer(tof, bearer, b"pad")


LIMIT = 1500 - 20 - 8 - 16 - 20 - 20


@pytest.mark.parametrize("mss", [1460, 1300])
def test_mss_is_clamped_on_syn_and_syn_ack(tof: Tof, mss: int) -> None:
    bearer = new_bearer()
    tof.attach(bearer)
    tof.ran.send(bearer.uplink(tcp(bearer.ue, SERVICE, 5001, WEB, SYN, mss=mss)))
    _, syn = tof.apps.packet(lambda one: one.protocol == TCP and one.source == bearer.ue)
    assert (syn.mss, syn.checksum_right) == (min(mss, LIMIT), True)
    syn_ack = tof.ran.to_ue(bearer.ue)
    looks_as_from_the_core(syn_ack, bearer)
    assert syn_ack.inner.mss is not None
    assert syn_ack.inner.mss <= LIMIT


def test_everything_else_in_the_tunnel_is_untouched(tof: Tof) -> None:
    bearer = new_bearer()
    tof.attach(bearer)
    for inner in (
        tcp(bearer.ue, ELSEWHERE, 5000, WEB, SYN, mss=1460),
        udp(bearer.ue, "203.0.113.11", 4000, ECHO, b"a neighbour of the service"),
        ping(bearer.ue, ELSEWHERE, 1),
    ):
        frame = bearer.uplink(inner, sequence=1)
        tof.ran.send(frame)
        tof.core.expect(frame)
    for inner in (tcp(SERVICE, bearer.ue, WEB, 5000, SYN | ACK, mss=1460), ping(ELSEWHERE, bearer.ue, 1)):
        frame = bearer.downlink(inner, sequence=1)
        tof.core.send(frame)
        tof.ran.expect(frame)


def test_post_diverts_a_tcp_flow_only_from_its_syn(tof: Tof) -> None:
    bearer = new_bearer()
    tof.attach(bearer)
    middle = bearer.uplink(tcp(bearer.ue, SERVICE, 5002, WEB, ACK, seq=7, ack=9, data=b"GET"))
    before = tof.packets("flow_unknown")
    tof.ran.send(middle)
    tof.core.expect(middle)
    assert tof.packets("flow_unknown") == before + 1
    tof.drain()
    tof.ran.send(bearer.uplink(tcp(bearer.ue, SERVICE, 5002, WEB, SYN)))
    assert tof.ran.to_ue(bearer.ue).inner.tcp_flags == SYN | ACK
    tof.ran.send(middle)
    tof.apps.packet(lambda one: one.source == bearer.ue and one.segment.endswith(b"GET"))
    assert not to_core(tof, bearer)


def test_put_moves_and_delete_ends_flows_at_once(tof: Tof) -> None:
    bearer, address, other = new_bearer(), "203.0.113.30", "192.168.50.30"
    tof.attach(bearer)
    apps = tof.netns["apps"]
    apps.run("ip", "address", "replace", f"{other}/24", "dev", "eth0")
    with tof.service(address) as name:

        def segment(n: int, flags: int = ACK) -> bytes:
            return bearer.uplink(
                tcp(bearer.ue, address, 5003, WEB, flags, seq=n, data=b"" if flags == SYN else b"X")
            )

        tof.ran.send(segment(1, SYN), segment(2))
        tof.apps.packet(lambda one: one.destination == APP and one.segment.endswith(b"X"))
        body = {"name": name, "serviceIP": address, "applicationIP": other}
        assert tof.call("PUT", f"/service/{name}", body)[0] == 200
        tof.ran.send(segment(3))
        tof.ran.find(lambda _: False, 0.1)
        tof.ran.send(segment(3, SYN), segment(4))
        tof.apps.packet(lambda one: one.destination == other and one.segment.endswith(b"X"))
        tof.drain()
        tof.withdraw(name)
        tof.ran.send(segment(5))
        tof.core.expect(segment(5))


def test_a_foreign_source_passes_undiverted_until_the_core_confirms_it(tof: Tof) -> None:
    for confirmation in ("ping", "downlink"):
        bearer, foreign = new_bearer(), new_bearer().ue
        tof.attach(bearer)
        as_other = bearer.but(ue=foreign)
        before = tof.packets("spoofed")
        tof.ran.send(echo(as_other, b"who am I"))
        tof.core.expect(echo(as_other, b"who am I"))
        tof.ran.silent(lambda one, f=foreign: one.inner.destination == f, 0.1)
        assert tof.packets("spoofed") == before + 1
        if confirmation == "ping":
            tof.answer_ping(as_other)
        else:
            tof.core.send(as_other.downlink(udp(ELSEWHERE, foreign, 1, 2, b"for the new one")))
        until("the new address is confirmed", lambda b=as_other: tof.known(b)["uplink"]["ues"] == [b.ue])
        tof.drain()
        tof.ran.send(echo(as_other, b"now I am"))
        looks_as_from_the_core(answer(tof, as_other, b"now I am"), as_other)
        assert not to_core(tof, as_other)


def test_a_spoofer_cannot_take_the_address_of_a_ue_that_is_served(tof: Tof) -> None:
    victim, thief = new_bearer(), new_bearer(enb="10.1.0.66")
    tof.attach(victim, thief)
    stolen = echo(thief.but(ue=victim.ue), b"mine")
    tof.ran.send(stolen)
    tof.core.expect(stolen)
    tof.ran.send(echo(victim, b"still mine"))
    assert answer(tof, victim, b"still mine").teid == victim.down


def test_end_marker_stops_injection_and_the_next_downlink_takes_over(tof: Tof) -> None:
    bearer = new_bearer()
    tof.attach(bearer)
    marker = bearer.downlink(b"", kind=254)
    tof.core.send(marker)
    tof.ran.expect(marker)
    until("ended", lambda: tof.known(bearer)["downlink"]["state"] == "ended")
    tof.drain()
    tof.ran.send(echo(bearer, b"after"))
    moved = bearer.but(down=bearer.down + 0x10000, enb=bearer.enb)
    tof.ran.silent(lambda one: one.inner.destination == bearer.ue, 0.1)
    tof.answer_ping(moved)
    assert answer(tof, moved, b"after").teid == moved.down


def test_overlapping_ue_addresses_are_not_mixed(tof: Tof) -> None:
    one = new_bearer(enb="10.1.31.1", sgw="10.1.31.2")
    other = new_bearer(enb="10.1.32.1", sgw="10.1.32.2").but(ue=one.ue)
    tof.attach(one, other)
    for n, bearer in enumerate((one, other)):
        tof.ran.send(echo(bearer, b"%d" % n, port=4100 + n))
        looks_as_from_the_core(answer(tof, bearer, b"%d" % n), bearer)
    before = tof.packets("flow_ambiguous")
    clash = echo(other, b"the same ports as the first", port=4100)
    tof.ran.send(clash)
    tof.core.expect(clash)
    assert tof.packets("flow_ambiguous") == before + 1
    lost = tof.packets("ue_ambiguous")
    tof.apps.send(ethernet(udp(APP, one.ue, 9, 9, b"to whom?"), ETHERTYPE_IPV4, (APP_MAC, GATEWAY_MAC)))
    until("counted", lambda: tof.packets("ue_ambiguous") == lost + 1)
    tof.ran.silent(lambda seen: seen.inner.data == b"to whom?", 0.1)


def test_apps_cannot_pick_a_tunnel(tof: Tof) -> None:
    bearer = new_bearer()
    tof.attach(bearer)
    packet = udp(APP, bearer.ue, ECHO, 4000, b"picked")
    for n in range(1, 400):
        tof.apps.send(ethernet(packet, ETHERTYPE_IPV4, (APP_MAC, tunnel_mac(n))))
        tof.apps.send(ethernet(packet, ETHERTYPE_IPV4, (tunnel_mac(n), GATEWAY_MAC)))
    tof.ran.silent(lambda one: one.inner.data == b"picked")
    tof.core.silent(lambda one: one.inner.data == b"picked", 0)
    tof.apps.send(ethernet(packet, ETHERTYPE_IPV4, (APP_MAC, GATEWAY_MAC)))
    assert tof.ran.to_ue(bearer.ue).teid == bearer.down


def test_an_app_speaks_first_to_a_ue_whose_downlink_is_unknown(tof: Tof) -> None:
    bearer = new_bearer()
    tof.up(bearer)
    for _ in range(5):
        tof.pinger_request(bearer)  # nobody answers: the Pinger gives up
    until("given up", lambda: not tof.metrics()["tof_pings_active"])
    with tof.netns["apps"].entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as app:
        app.bind((APP, 6000))
        for n in range(3):
            app.sendto(b"push %d" % n, (bearer.ue, 6001))
    tof.ran.silent(lambda one: one.inner.destination == bearer.ue, 0.1)
    tof.answer_ping(bearer)
    for n in range(3):
        pushed = tof.ran.to_ue(bearer.ue)
        looks_as_from_the_core(pushed, bearer)
        assert (pushed.inner.source, pushed.inner.data) == (SERVICE, b"push %d" % n)


FITS = 1500 - 20 - 8 - 8  # the largest user packet of a 4G tunnel


def _app_socket(tof: Tof, port: int, *, dont_fragment: bool) -> socket.socket:
    with tof.netns["apps"].entered():
        app = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    app.bind((APP, port))
    app.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, PMTUDISC_DO if dont_fragment else PMTUDISC_DONT)
    return app


def test_an_app_is_told_what_fits_the_tunnel(tof: Tof) -> None:
    bearer = new_bearer()
    tof.attach(bearer)
    before = tof.packets("ue_too_big")
    with _app_socket(tof, 6100, dont_fragment=True) as app:
        app.connect((bearer.ue, 6101))
        app.send(bytes(FITS - 28))
        assert len(tof.ran.to_ue(bearer.ue).message.payload) == FITS
        app.send(bytes(FITS - 27))
        until("the app's kernel knows", lambda: app.getsockopt(socket.IPPROTO_IP, IP_MTU) == FITS)
    assert tof.packets("ue_too_big") == before + 1
    tof.ran.silent(lambda one: one.inner.destination == bearer.ue and len(one.message.payload) > FITS, 0.1)


def test_what_may_be_cut_is_cut_and_stays_in_its_flows_tunnel(tof: Tof) -> None:
    one = new_bearer(enb="10.1.33.1", sgw="10.1.33.2")
    other = new_bearer(enb="10.1.34.1", sgw="10.1.34.2").but(ue=one.ue)
    tof.attach(one, other)
    for n, bearer in enumerate((one, other)):
        with _app_socket(tof, 6200 + n, dont_fragment=False) as app:
            tof.ran.send(bearer.uplink(udp(bearer.ue, SERVICE, 6300, 6200 + n, b"come in")))
            app.settimeout(3)
            assert app.recvfrom(100) == (b"come in", (bearer.ue, 6300))
            data = os.urandom(1472)
            app.sendto(data, (bearer.ue, 6300))
            pieces = [tof.ran.to_ue(bearer.ue) for _ in range(2)]
        for piece in pieces:
            assert (piece.source, piece.destination, piece.teid) == (bearer.sgw, bearer.enb, bearer.down)
            assert len(piece.message.payload) <= FITS
        assert b"".join(piece.inner.segment for piece in pieces)[8:] == data


def test_tcp_of_two_kernels_both_directions_at_full_size(tof: Tof) -> None:
    """UE MTU 1500 on a 1500-byte S1; the app's adapter leaves checksums and segmentation to others."""
    bearer = new_bearer()
    tof.attach(bearer)
    data = os.urandom(3_000_000)
    with tof.netns["apps"].entered():
        server = socket.create_server((APP, 9000))

    def serve() -> None:
        peer, _ = server.accept()
        with peer:
            got = b""
            while len(got) < len(data):
                got += peer.recv(1 << 20)
            peer.sendall(got)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    with server, ue_kernel(tof, bearer):
        with tof.netns["ran"].entered():
            connection = socket.create_connection((SERVICE, 9000), 5)
        with connection:
            connection.settimeout(30)
            sender = threading.Thread(target=connection.sendall, args=(data,), daemon=True)
            sender.start()
            back = b""
            while len(back) < len(data) and (chunk := connection.recv(1 << 20)):
                back += chunk
            sender.join()
        thread.join(5)
    assert back == data
    assert not to_core(tof, bearer)


# What is said about packets


@pytest.mark.parametrize("new", [new_bearer, new_bearer6])
def test_a_closed_port_is_told_to_the_ue_s_kernel(tof: Tof, new: Callable[[], Bearer]) -> None:
    """Which believes an error only about a packet that it has sent: to the service's address."""
    bearer = new()
    tof.attach(bearer)
    family = socket.AF_INET6 if ":" in bearer.ue else socket.AF_INET
    with ue_kernel(tof, bearer):
        with tof.netns["ran"].entered():
            asking = socket.socket(family, socket.SOCK_DGRAM)
        with asking:
            asking.settimeout(3)
            asking.bind((bearer.ue, 0))
            asking.connect((service_of(bearer), 9999))
            asking.send(b"anybody?")
            with pytest.raises(ConnectionRefusedError):
                asking.recv(100)


@pytest.mark.parametrize("new", [new_bearer, new_bearer6])
def test_a_shorter_link_behind_the_ue_is_told_to_the_application_s_kernel(
    tof: Tof, new: Callable[[], Bearer]
) -> None:
    """Which believes it only about a packet from its own address."""
    bearer = new()
    tof.attach(bearer)
    tof.ran.send(echo(bearer, bytes(1300)))
    too_long = answer(tof, bearer, bytes(1300)).message.payload
    here = socket.inet_pton(socket.AF_INET6 if ":" in bearer.ue else socket.AF_INET, bearer.ue)
    said = (packet_too_big if ":" in bearer.ue else fragmentation_needed)(too_long, 1280, source=here)
    route = ("ip", "route", "get", bearer.ue)
    assert "mtu 1280" not in tof.netns["apps"].run(*route)
    tof.ran.send(bearer.uplink(said))
    until("the kernel knows", lambda: "mtu 1280" in tof.netns["apps"].run(*route))
