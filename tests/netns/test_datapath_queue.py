"""Whatever crosses the queue leaves it byte for byte: padding, trailers, tags, options, bad checksums, jumbo frames."""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Callable, Iterator

import pytest
from gtp_packets import CORE_MAC, RAN_MAC, Bearer, carried, gtp, new_bearer, new_bearer6, udp
from gtp_peers import CORE_KERNEL, RAN_KERNEL, Setting, Tof, running_tof, until

from tof.wire.inet import ETHERTYPE_IPV4, IPv4, encode_ipv4

pytestmark = pytest.mark.netns

UP, DOWN = (RAN_MAC, CORE_MAC), (CORE_MAC, RAN_MAC)
SERVER, SERVER6 = "198.51.100.7", "2001:db8:ffff::7"


@pytest.fixture(scope="module", params=["generic", "native"])
def tof(request: pytest.FixtureRequest) -> Iterator[Tof]:
    with running_tof(Setting(xdp=request.param, mtu=9000)) as running:
        yield running


@pytest.fixture(autouse=True)
def _fresh(tof: Tof) -> None:
    tof.drain()


def _inner(bearer: Bearer, size: int) -> bytes:
    return udp(bearer.ue, SERVER6 if ":" in bearer.ue else SERVER, 1000, 2000, os.urandom(size))


def _options(frame: bytes) -> bytes:
    """The same with IPv4 options: router alert, record route (RFC 2113, RFC 791)."""
    packet = frame[14:]
    options = b"\x94\x04\0\0" + b"\x07\x13\x04" + bytes(16) + b"\0"
    return frame[:14] + encode_ipv4(IPv4(packet[12:16], packet[16:20], 17, packet[20:], options=options))


def _bad_checksum(frame: bytes) -> bytes:
    return frame[:24] + bytes((frame[24] ^ 0x5A, frame[25] ^ 0xA5)) + frame[26:]


def _retagged(frame: bytes, tci: int) -> bytes:
    return frame[:14] + struct.pack("!H", tci) + frame[16:]


ODD: dict[str, tuple[Callable[[], Bearer], int, Callable[[bytes], bytes]]] = {
    "plain": (new_bearer, 40, lambda frame: frame),
    "padding": (new_bearer, 0, lambda frame: frame + b"\xee" * 17),
    "trailer": (new_bearer, 40, lambda frame: frame + os.urandom(100)),
    "trailer behind IPv6": (
        lambda: new_bearer6(enb="2001:db8:1::11", sgw="2001:db8:1::1"),
        40,
        lambda frame: frame + b"\xee" * 9,
    ),
    "bad outer checksum": (new_bearer, 40, _bad_checksum),
    "options": (new_bearer, 40, _options),
    "options, bad checksum, trailer": (
        new_bearer,
        40,
        lambda frame: _bad_checksum(_options(frame)) + b"trailer",
    ),
    "VLAN, priority 5, drop eligible": (
        lambda: new_bearer(vlan=100),
        40,
        lambda frame: _retagged(frame, 0xB064) + bytes(7),
    ),
    "priority tag": (
        new_bearer,
        40,
        lambda frame: frame[:12] + b"\x81\x00\xe0\x00" + frame[12:] + bytes(3),
    ),
    "jumbo": (new_bearer, 8900, lambda frame: frame),
    "jumbo, VLAN, trailer": (lambda: new_bearer(vlan=7), 8900, lambda frame: frame + bytes(11)),
    "no UDP checksum": (new_bearer, 40, lambda frame: frame[:40] + bytes(2) + frame[42:]),
    "wrong UDP checksum": (new_bearer, 40, lambda frame: frame[:40] + b"\xba\xd0" + frame[42:]),
    "from a group address": (
        lambda: new_bearer(macs=(b"\x03" + RAN_MAC[1:], CORE_MAC)),
        40,
        lambda frame: frame,
    ),
    "TTL 0": (new_bearer, 40, lambda frame: frame[:22] + b"\0" + frame[23:]),
}


@pytest.mark.parametrize("case", ODD)
def test_odd_frames_of_an_unknown_tunnel(tof: Tof, case: str) -> None:
    make, size, change = ODD[case]
    bearer = make()
    queued = tof.packets("queued")
    frames = [change(bearer.uplink(_inner(bearer, size))) for _ in range(6)]
    tof.ran.send(*frames[:4])  # through the queue, back to back
    for frame in frames[:4]:
        tof.core.expect(frame)
    assert tof.packets("queued") > queued
    until("learnt", lambda: "uplink" in tof.known(bearer))
    time.sleep(0.12)
    tof.ran.send(*frames[4:])  # and past it
    for frame in frames[4:]:
        tof.core.expect(frame)
    assert tof.known(bearer)["uplink"]["packets"] >= 6  # and the Pinger's


@pytest.mark.parametrize(
    ("kind", "body", "more"),
    [
        (254, b"", {}),
        (2, b"\x0e\x05", {"sequence": 3}),
        (26, b"\x10\0\0\x77\x77\x85\0\x04\x0a\x01\0\x0b", {"sequence": 0}),
    ],
    ids=["End Marker", "Echo Response", "Error Indication"],
)
@pytest.mark.parametrize("vlan", [None, 42], ids=["untagged", "VLAN"])
def test_signals_keep_their_padding(
    tof: Tof, kind: int, body: bytes, more: dict[str, int], vlan: int | None
) -> None:
    """46 bytes are the least that Ethernet carries; these messages are shorter."""
    queued = tof.packets("queued")
    for n, pad in enumerate((b"\0", b"\xa5")):
        bearer = new_bearer(vlan=vlan)
        message = gtp(bearer.down, body, kind=kind, **more)
        frame = carried(bearer.sgw, bearer.enb, message, macs=DOWN, vlan=vlan)
        padded = frame + pad * max(60 - len(frame), 4)
        tof.core.send(padded)
        tof.ran.expect(padded)
        assert tof.packets("queued") == queued + n + 1


def test_the_order_of_everything_in_the_queue(tof: Tof) -> None:
    bearer = new_bearer()
    shapes = [change for make, _, change in ODD.values() if make is new_bearer]
    frames = [shapes[n % len(shapes)](bearer.uplink(_inner(bearer, 40))) for n in range(200)]
    tof.ran.send(*frames)
    wanted = set(frames)
    assert [tof.core.find(wanted.__contains__, 2) for _ in frames] == frames


def test_conntrack_does_not_reassemble_in_the_queue(tof: Tof) -> None:
    """Where any rule asks for conntrack, the kernel reassembles what netfilter sees."""
    node = tof.netns["tof"]
    node.run("iptables", "-A", "INPUT", "-m", "conntrack", "--ctstate", "INVALID", "-j", "DROP")
    try:
        bearer = new_bearer()
        frame = _options(bearer.uplink(_inner(bearer, 100)))
        tof.ran.send(frame)
        tof.core.expect(frame)
    finally:
        node.run("iptables", "-D", "INPUT", "-m", "conntrack", "--ctstate", "INVALID", "-j", "DROP")


# Answers to another port than 2152


def _answer(
    bearer: Bearer, kind: int, body: bytes, *, flags: int = 0x32, sport: int = 2152, dport: int = 5906
) -> bytes:
    message = gtp(0, body, kind=kind, sequence=0, flags=flags)
    packet = udp(bearer.sgw, bearer.enb, sport, dport, message)
    return DOWN[1] + DOWN[0] + struct.pack("!H", ETHERTYPE_IPV4) + packet


def test_an_error_indication_to_the_trigger_s_port_ends_the_tunnel(tof: Tof) -> None:
    bearer = new_bearer()
    tof.down(bearer)  # so that the Pinger has nothing to ask, and no Error Indication can be about that
    tof.up(bearer)
    until("learnt", lambda: "uplink" in tof.known(bearer))
    frame = _answer(bearer, 26, b"\x10" + struct.pack("!I", bearer.up))
    tof.core.send(frame)
    tof.ran.expect(frame)
    until("the tunnel is forgotten", lambda: "uplink" not in tof.known(bearer))


def test_a_changed_recovery_counter_at_any_port(tof: Tof) -> None:
    bearer = new_bearer(enb="10.1.78.1", sgw="10.1.78.2")
    tof.attach(bearer)
    for counter in (4, 5):
        frame = _answer(bearer, 2, bytes((14, counter)), dport=40000)
        tof.core.send(frame)
        tof.ran.expect(frame)
    until("forgotten", lambda: not tof.known(bearer))


def test_what_else_comes_from_port_2152_teaches_nothing(tof: Tof) -> None:
    bearer = new_bearer()
    tof.up(bearer)
    until("learnt", lambda: "uplink" in tof.known(bearer))
    ie, queued = b"\x10" + struct.pack("!I", bearer.up), tof.packets("queued")
    whole = _answer(bearer, 26, ie)
    others = {
        "a G-PDU": _answer(bearer, 255, udp(bearer.ue, SERVER, 1, 2)),
        "an End Marker": _answer(bearer, 254, b""),
        "GTP'": _answer(bearer, 26, ie)[:42] + b"\x22" + whole[43:],
        "a spare bit's neighbour": whole[:42] + b"\x52" + whole[43:],
        "longer than its length": whole[:14] + udp(bearer.sgw, bearer.enb, 2152, 5906, whole[42:] + b"x"),
        "from another port": _answer(bearer, 26, ie, sport=2153),
        "DNS": whole[:14]
        + udp(
            bearer.sgw,
            bearer.enb,
            2152,
            53,
            bytes.fromhex("3a1a81800001000100000000") + b"\x03tof\x04test\0\0\1\0\1",
        ),
    }
    for frame in others.values():
        tof.core.send(frame)
        tof.ran.expect(frame)
    assert tof.packets("queued") == queued
    assert "uplink" in tof.known(bearer)


# End Markers that end nothing


@pytest.mark.parametrize("case", ["from the wrong side", "longer than its length"])
def test_an_end_marker_that_does_not_count(tof: Tof, case: str) -> None:
    bearer = new_bearer()
    tof.attach(bearer)
    marker = bearer.downlink(b"", kind=254)
    if case == "from the wrong side":
        # The tunnel's own addresses and TEID, forged by someone on the eNB side.
        frame, source, sink = marker[6:12] + marker[:6] + marker[12:], tof.ran, tof.core
    else:
        message = gtp(bearer.down, kind=254)
        frame, source, sink = (
            carried(bearer.sgw, bearer.enb, message + b"x", macs=DOWN),
            tof.core,
            tof.ran,
        )
    source.send(frame)
    sink.expect(frame)
    assert tof.known(bearer)["downlink"]["state"] != "ended"
    tof.core.send(marker)
    tof.ran.expect(marker)
    assert tof.known(bearer)["downlink"]["state"] == "ended"


# Local senders


def test_a_local_sender_s_unfinished_checksum_is_finished_in_the_queue(tof: Tof) -> None:
    bearer = new_bearer(enb=RAN_KERNEL, sgw=CORE_KERNEL)
    with tof.netns["ran"].entered():
        enb = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        enb.bind((RAN_KERNEL, 2152))
    with tof.netns["core"].entered():
        sgw = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sgw.bind((CORE_KERNEL, 2152))
    with enb, sgw:
        sgw.settimeout(3)
        for size in (40, 3000, 8000):
            message = gtp(bearer.up + size, _inner(new_bearer(), size))
            enb.sendto(message, (CORE_KERNEL, 2152))
            assert sgw.recv(10000) == message
