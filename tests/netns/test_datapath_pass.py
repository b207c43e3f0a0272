"""What the TOF does not divert leaves byte for byte as it came, in order; and what it learns from it."""

from __future__ import annotations

import itertools
import os
import socket
import struct
import time
from collections.abc import Iterator

import pytest
from gtp_packets import (
    CORE_MAC,
    ELSEWHERE,
    RAN_MAC,
    SYN,
    Bearer,
    carried,
    container,
    ethernet,
    gtp,
    ip,
    new_bearer,
    new_bearer6,
    tcp,
    udp,
)
from gtp_peers import CORE_KERNEL, RAN_KERNEL, Setting, Tof, running_tof, until
from gtp_wires import Wire

from tof.wire.gtpu import Extension
from tof.wire.inet import ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, IPv4, encode_ipv4

pytestmark = pytest.mark.netns

UP, DOWN = (RAN_MAC, CORE_MAC), (CORE_MAC, RAN_MAC)


@pytest.fixture(scope="module", params=["generic", "native"])
def tof(request: pytest.FixtureRequest) -> Iterator[Tof]:
    with running_tof(Setting(xdp=request.param)) as running:
        yield running


@pytest.fixture(autouse=True)
def _fresh(tof: Tof) -> None:
    tof.drain()


def packet(bearer: Bearer, size: int = 40) -> bytes:
    """An uplink inner packet to no service."""
    elsewhere = "2001:db8:ffff::7" if ":" in bearer.ue else ELSEWHERE
    return udp(bearer.ue, elsewhere, 1000, 2000, os.urandom(size))


def reply(bearer: Bearer, size: int = 40) -> bytes:
    """A downlink inner packet."""
    elsewhere = "2001:db8:ffff::7" if ":" in bearer.ue else ELSEWHERE
    return udp(elsewhere, bearer.ue, 2000, 1000, os.urandom(size))


def crosses(source: Wire, sink: Wire, frame: bytes) -> None:
    source.send(frame)
    sink.expect(frame)


def crosses_four_times(source: Wire, sink: Wire, frame: bytes) -> None:
    """By the queue, while it settles, and by the fast lane."""
    for pause_s in (0, 0, 0.12, 0):
        time.sleep(pause_s)
        crosses(source, sink, frame)


def test_first_packet_of_an_unknown_tunnel_is_not_lost(tof: Tof) -> None:
    bearer = new_bearer()
    crosses(tof.ran, tof.core, bearer.uplink(packet(bearer)))
    crosses(tof.core, tof.ran, bearer.downlink(reply(bearer)))
    known = until("both tunnels are known", lambda: len(tof.known(bearer)) == 2 and tof.known(bearer))
    assert [known[d]["ues"] for d in ("uplink", "downlink")] == [[bearer.ue]] * 2
    assert known["uplink"]["packets"] == known["downlink"]["packets"] == 1


@pytest.mark.parametrize("order", ["uplink first", "downlink first"])
def test_learnt_in_any_order(tof: Tof, order: str) -> None:
    bearer = new_bearer()
    steps = [
        ("uplink", lambda: crosses(tof.ran, tof.core, bearer.uplink(packet(bearer)))),
        ("downlink", lambda: crosses(tof.core, tof.ran, bearer.downlink(reply(bearer)))),
    ]
    if order == "downlink first":
        steps.reverse()
    (first, one), (_, other) = steps
    one()
    known = until("the first tunnel is known", lambda: tof.known(bearer))
    assert {d: t["state"] for d, t in known.items()} == {first: "learnt"}
    other()
    until("paired", lambda: [t["state"] for t in tof.known(bearer).values()] == ["paired"] * 2)


def test_many_nodes_use_the_same_teids(tof: Tof) -> None:
    bearers = [
        new_bearer(enb=f"10.1.1.{enb}", sgw=f"10.1.2.{sgw}").but(up=7, down=7)
        for enb, sgw in itertools.product((1, 2, 3), (1, 2))
    ]
    for bearer in bearers:
        crosses(tof.ran, tof.core, bearer.uplink(packet(bearer)))
    for bearer in reversed(bearers):
        crosses(tof.core, tof.ran, bearer.downlink(reply(bearer)))
    for bearer in bearers:
        crosses(tof.ran, tof.core, bearer.uplink(packet(bearer)))
        known = until("both tunnels", lambda b=bearer: len(tof.known(b)) == 2 and tof.known(b))
        assert all(tunnel["ues"] == [bearer.ue] for tunnel in known.values())


_OPTIONS = {
    "S": {"sequence": 0xFFFF},
    "PN": {"npdu": 0x9C},
    "E": {"extensions": (Extension(0xC0, b"\x12\x34"),)},
}


@pytest.mark.parametrize("flags", ["".join(c) for n in range(4) for c in itertools.combinations(_OPTIONS, n)])
def test_every_combination_of_header_flags(tof: Tof, flags: str) -> None:
    bearer, more = new_bearer(), {}
    for flag, field in _OPTIONS.items():
        more |= field if flag in flags else {}
    # Downlink first: then the Pinger has nothing to ask, and nothing more to count.
    crosses_four_times(tof.core, tof.ran, bearer.downlink(reply(bearer), **more))
    crosses_four_times(tof.ran, tof.core, bearer.uplink(packet(bearer), **more))
    known = tof.known(bearer)
    assert [known[d]["ues"] for d in ("uplink", "downlink")] == [[bearer.ue]] * 2
    assert [known[d]["packets"] for d in ("uplink", "downlink")] == [4, 4]


def test_chains_of_extension_headers(tof: Tof) -> None:
    bearer = new_bearer()
    chain = (
        Extension(0x40, b"\x08\x68"), Extension(0x03, bytes(6)), Extension(0x20, b"\1\2"), Extension(0x84, bytes(22)),
        Extension(0x85, bytes((0x10, 0x80 | 9, 0, 0, 0, 1))), Extension(0xC0, b"\x12\x34"),
    )  # fmt: skip
    crosses_four_times(tof.ran, tof.core, bearer.uplink(packet(bearer), extensions=chain, sequence=5))
    assert tof.known(bearer)["uplink"]["qfi"] == 9


def test_qfi_is_learnt_per_direction(tof: Tof) -> None:
    bearer = new_bearer()
    crosses(tof.ran, tof.core, bearer.uplink(packet(bearer), extensions=(container(1, 5),)))
    crosses(tof.core, tof.ran, bearer.downlink(reply(bearer), extensions=(container(0, 9),)))
    known = until("both tunnels", lambda: len(tof.known(bearer)) == 2 and tof.known(bearer))
    assert (known["uplink"]["qfi"], known["downlink"]["qfi"]) == (5, 9)


@pytest.mark.parametrize(
    "bearer",
    [
        new_bearer(vlan=100),
        new_bearer(enb="2001:db8:1::11", sgw="2001:db8:1::1"),
        new_bearer(enb="2001:db8:1::11", sgw="2001:db8:1::1", vlan=4094),
        new_bearer6(),
        new_bearer6(enb="2001:db8:1::11", sgw="2001:db8:1::1", qfi=1),
        new_bearer(tos=0xB8),
    ],
    ids=["VLAN", "outer IPv6", "outer IPv6 in a VLAN", "IPv6 UE", "IPv6 UE in IPv6, 5G", "DSCP"],
)
def test_tunnels_of_every_kind(tof: Tof, bearer: Bearer) -> None:
    crosses_four_times(tof.core, tof.ran, bearer.downlink(reply(bearer)))
    crosses_four_times(tof.ran, tof.core, bearer.uplink(packet(bearer)))
    ue = bearer.ue if "." in bearer.ue else bearer.ue.removesuffix("99") + "/64"
    known = tof.known(bearer)
    assert [(known[d]["ues"], known[d]["packets"]) for d in ("uplink", "downlink")] == [([ue], 4)] * 2


def test_equal_tunnels_in_two_vlans_are_two(tof: Tof) -> None:
    one = new_bearer(vlan=7)
    other = one.but(vlan=8, ue=new_bearer().ue)
    for bearer in (one, other, one.but(vlan=None, ue=new_bearer().ue)):
        crosses(tof.ran, tof.core, bearer.uplink(packet(bearer)))
        until("learnt", lambda b=bearer: tof.known(b).get("uplink", {}).get("ues") == [b.ue])


# What does not parse


def _broken() -> dict[str, tuple[bytes, str]]:
    inner = udp("10.45.99.99", ELSEWHERE, 1, 2, b"broken")
    whole = carried("10.1.0.11", "10.1.0.1", gtp(0xB0B0, inner), macs=UP)

    def changed(at: int, data: bytes) -> bytes:
        return whole[: 42 + at] + data + whole[42 + at + len(data) :]

    def made(message: bytes) -> bytes:
        return carried("10.1.0.11", "10.1.0.1", message, macs=UP)

    zero = gtp(0xB0B0, inner, extensions=(Extension(0xC0, b"\0\0"),))
    return {
        "GTP length too long": (changed(2, b"\x01\x00"), "bridged_length"),
        "GTP length too short": (changed(2, b"\x00\x01"), "bridged_length"),
        "UDP length": (whole[:38] + b"\x00\x20" + whole[40:], "bridged_length"),
        "header cut short": (made(b"\x30\xff\x00\x00\x00"), "bridged_length"),
        "GTP version 2": (changed(0, b"\x50"), "bridged_version"),
        "GTP prime": (changed(0, b"\x20"), "bridged_version"),
        "extension of length zero": (made(zero[:12] + b"\x00" + zero[13:]), "bridged_extension"),
        "extension beyond the end": (made(zero[:12] + b"\xff" + zero[13:]), "bridged_extension"),
        "TEID zero": (made(gtp(0, inner)), "bridged_inner"),
        "inner is not IP": (made(gtp(0xB0B0, b"\x99" + inner[1:])), "bridged_inner"),
        "inner is cut short": (made(gtp(0xB0B0, inner[:-3])), "bridged_inner"),
        "no inner": (made(gtp(0xB0B0)), "bridged_inner"),
        "Echo Request": (made(gtp(0, kind=1, sequence=1)), "bridged_message"),
        "Supported Extension Headers": (made(gtp(0, b"\x8d\x01\x85", kind=31)), "bridged_message"),
    }


@pytest.mark.parametrize("case", _broken())
def test_broken_packets_pass_and_are_counted(tof: Tof, case: str) -> None:
    frame, reason = _broken()[case]
    before = tof.packets(reason)
    crosses(tof.ran, tof.core, frame)
    assert tof.packets(reason) == before + 1
    assert not tof.tunnels(teid=0xB0B0)


def test_an_error_indication_that_does_not_parse_is_counted_by_name(tof: Tof) -> None:
    before = tof.undecodable("gtpu_ie_truncated")
    crosses(tof.ran, tof.core, carried("10.1.0.11", "10.1.0.1", gtp(0, b"\x10\x00\x01", kind=26), macs=UP))
    until("counted", lambda: tof.undecodable("gtpu_ie_truncated") == before + 1)


def test_bad_outer_checksum_passes_and_teaches(tof: Tof) -> None:
    bearer = new_bearer()
    frame = bearer.uplink(packet(bearer))
    frame = frame[:24] + b"\xde\xad" + frame[26:]
    tof.down(bearer)  # so that the Pinger has nothing to ask, and nothing to count
    crosses_four_times(tof.ran, tof.core, frame)
    assert tof.known(bearer)["uplink"]["packets"] == 4


def test_outer_fragments_pass_and_teach(tof: Tof) -> None:
    bearer = new_bearer()
    whole = bearer.uplink(packet(bearer, 900))[14:]
    ip4 = IPv4(whole[12:16], whole[16:20], 17, whole[20:])
    first, rest = ip4.payload[:480], ip4.payload[480:]
    for one in (
        encode_ipv4(ip4._replace(payload=first, flags=1, identification=77)),
        encode_ipv4(ip4._replace(payload=rest, offset=480, identification=77)),
    ):
        crosses(tof.ran, tof.core, ethernet(one, ETHERTYPE_IPV4, UP))
    until("learnt from the first fragment", lambda: tof.known(bearer))


# What is no GTP-U


def _foreign() -> dict[str, bytes]:
    arp = struct.pack(
        "!HHBBH6s4s6s4s", 1, 0x800, 6, 4, 1, RAN_MAC, bytes((10, 3, 0, 1)), bytes(6), bytes((10, 3, 0, 9))
    )
    sctp = ip("10.3.0.1", "10.3.0.9", 132, bytes.fromhex("8e3c8e3c00000000deadbeef01000014") + bytes(16))
    gtpc = udp("10.3.0.1", "10.3.0.9", 2123, 2123, bytes.fromhex("48200010000000000000010003000100c4000000"))
    return {
        "ARP": ethernet(arp, ETHERTYPE_ARP, (RAN_MAC, b"\xff" * 6)),
        "ICMP": ethernet(ip("10.3.0.1", "10.3.0.9", 1, b"\x08\0\0\0\0\1\0\1ping"), ETHERTYPE_IPV4, UP),
        "TCP": ethernet(tcp("10.3.0.1", "10.3.0.9", 1, 2, SYN, mss=1460), ETHERTYPE_IPV4, UP),
        "GTP-C": ethernet(gtpc, ETHERTYPE_IPV4, UP),
        "SCTP": ethernet(sctp, ETHERTYPE_IPV4, UP),
        "IPv6": ethernet(udp("fd00::1", "fd00::9", 5, 6, b"six"), ETHERTYPE_IPV6, UP),
        "from port 2152": ethernet(udp("10.3.0.1", "10.3.0.9", 2152, 53, b"dns"), ETHERTYPE_IPV4, UP),
        "broadcast": ethernet(udp("10.3.0.1", "10.3.0.255", 5, 6, b"all"), ETHERTYPE_IPV4, (RAN_MAC, b"\xff" * 6)),
        "bad IP checksum": ethernet(b"\x45\0\0\x1c\0\1\0\0\x40\x11\xba\xd0\x0a\3\0\1\x0a\3\0\x09" + bytes(8), 0x800, UP),
        "with padding": ethernet(udp("10.3.0.1", "10.3.0.9", 5, 6, b"x"), ETHERTYPE_IPV4, UP) + bytes(17),
        "LLC": CORE_MAC + RAN_MAC + b"\0\x26BB\3" + bytes(35),
        "MACsec": ethernet(os.urandom(64), 0x88E5, UP),
    }  # fmt: skip


@pytest.mark.parametrize("vlan", [None, 100], ids=["untagged", "VLAN"])
@pytest.mark.parametrize("case", _foreign())
def test_everything_else_crosses_as_on_a_switch(tof: Tof, case: str, vlan: int | None) -> None:
    frame = _foreign()[case]
    if vlan is not None:
        frame = frame[:12] + struct.pack("!HH", 0x8100, vlan) + frame[12:]
    queued = tof.packets("queued")
    crosses(tof.ran, tof.core, frame)
    if not frame[0] & 1:
        back = frame[6:12] + frame[:6] + frame[12:]
        crosses(tof.core, tof.ran, back)
    assert tof.packets("queued") == queued


def test_the_kernels_at_both_ends_reach_each_other(tof: Tof) -> None:
    ran, core = tof.netns["ran"], tof.netns["core"]
    assert "3 received" in ran.run("ping", "-c3", "-i0.05", "-W2", CORE_KERNEL)
    listener = _listen(tof, CORE_KERNEL, 5001)
    with ran.entered(), socket.create_connection((CORE_KERNEL, 5001), 3) as connection:
        served, _ = listener.accept()
        data = os.urandom(200_000)
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        with served, listener:
            assert b"".join(iter(lambda: served.recv(65536), b"")) == data
    assert core.name


def _listen(tof: Tof, address: str, port: int) -> socket.socket:
    with tof.netns["core"].entered():
        listener = socket.create_server((address, port))
    listener.settimeout(3)
    return listener


def test_gtpu_of_a_kernel_with_unfinished_checksums(tof: Tof) -> None:
    """A local sender's UDP checksum is completed by no adapter on a veth: the far socket must get all the same."""
    bearer = new_bearer(enb=RAN_KERNEL, sgw=CORE_KERNEL)
    with tof.netns["ran"].entered():
        enb = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        enb.bind((RAN_KERNEL, 2152))
    with tof.netns["core"].entered():
        sgw = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sgw.bind((CORE_KERNEL, 2152))
    with enb, sgw:
        sgw.settimeout(3)
        enb.settimeout(3)
        for pause_s in (0, 0, 0.12, 0, 0):
            time.sleep(pause_s)
            up, down = gtp(bearer.up, packet(bearer)), gtp(bearer.down, reply(bearer))
            enb.sendto(up, (CORE_KERNEL, 2152))
            assert sgw.recv(2000) == up
            sgw.sendto(down, (RAN_KERNEL, 2152))
            assert enb.recv(2000) == down
    assert len(tof.known(bearer)) == 2


# Order


def test_a_thousand_back_to_back_packets_of_a_new_tunnel(tof: Tof) -> None:
    bearer = new_bearer()
    tof.down(bearer)  # so that the Pinger has nothing to ask, and nothing to count
    frames = [bearer.uplink(udp(bearer.ue, ELSEWHERE, 1000, 2000, n.to_bytes(4, "big"))) for n in range(1000)]
    tof.ran.send(*frames)
    seen: list[bytes] = []
    wanted = set(frames)
    while len(seen) < len(frames) and (one := tof.core.find(wanted.__contains__, 2)) is not None:
        seen.append(one)
    assert seen == frames
    assert tof.known(bearer)["uplink"]["packets"] == len(frames)


def test_an_end_marker_does_not_overtake(tof: Tof) -> None:
    bearer = new_bearer()
    frames = [bearer.downlink(reply(bearer)) for _ in range(50)] + [bearer.downlink(b"", kind=254)]
    tof.core.send(*frames)
    wanted = set(frames)
    seen = [tof.ran.find(wanted.__contains__, 2) for _ in frames]
    assert seen == frames


# Signalling


def test_error_indication_passes_and_its_tunnel_is_forgotten(tof: Tof) -> None:
    shapes = [
        (0, b"\x10%b\x85\x00\x04\x0a\x01\x00\x0b", {}),
        (None, b"", {"sequence": 0, "extensions": (Extension(0x40, b"\x08\x68"),)}),
        (None, b"", {}),
    ]
    for header_teid, elements, more in shapes:
        bearer = new_bearer()
        tof.attach(bearer)
        teid = bearer.down.to_bytes(4, "big")
        body = elements % teid if elements else b""
        message = gtp(bearer.down if header_teid is None else 0, body, kind=26, **more)
        crosses(tof.ran, tof.core, carried(bearer.enb, bearer.sgw, message, macs=UP))
        until("the tunnel is forgotten", lambda b=bearer: "downlink" not in tof.known(b))
        assert "uplink" in tof.known(bearer)


def test_a_changed_recovery_counter_forgets_the_peers_tunnels(tof: Tof) -> None:
    mine, others = new_bearer(enb="10.1.77.1", sgw="10.1.77.2"), new_bearer()
    tof.attach(mine, others)
    for counter in (4, 5):
        response = gtp(0, bytes((14, counter)), kind=2, sequence=1)
        crosses(tof.core, tof.ran, carried(mine.sgw, mine.enb, response, macs=DOWN))
    until("forgotten", lambda: not tof.known(mine))
    assert len(tof.known(others)) == 2
    crosses(tof.ran, tof.core, mine.uplink(packet(mine)))
    until("learnt anew", lambda: "uplink" in tof.known(mine))


def test_link_local_and_multicast_inner_addresses_pass_and_teach_nothing(tof: Tof) -> None:
    n = new_bearer().up
    for source, destination in (("fe80::1", "ff02::2"), ("::", "ff02::16"), ("0.0.0.0", "255.255.255.255")):
        bearer = Bearer(source, n, n)
        crosses(tof.ran, tof.core, bearer.uplink(udp(source, destination, 1, 2, b"x")))
        crosses(
            tof.core,
            tof.ran,
            bearer.downlink(udp("fe80::9" if ":" in source else "10.0.0.1", destination, 1, 2)),
        )
    assert not tof.known(bearer)
