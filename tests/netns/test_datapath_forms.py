"""What a tunnel's packets may look like, and what injected ones look like: forms of either generation, marks, tags.

An eNB or SGW is sent nothing that its own peer did not show it understands: the plain header, or one PDU Session Container
with the QFI that this tunnel last carried.
"""

from __future__ import annotations

import itertools
import os
import struct
from collections.abc import Iterator
from typing import Any

import pytest
from gtp_apps import SERVICE, SERVICE6, answer, echo, looks_as_from_the_core, service_of, serving_tof, to_core
from gtp_packets import (
    CORE_MAC,
    ELSEWHERE,
    RAN_MAC,
    Bearer,
    Gpdu,
    carried,
    container,
    elsewhere,
    ethernet,
    gtp,
    ip,
    new_bearer,
    new_bearer6,
    packed,
    pong,
    udp,
)
from gtp_peers import Setting, Tof, until
from gtp_zoo import GTP_AT, INNER_AT, UDP_AT, changed, resummed, tagged

from tof.wire.gtpu import Extension
from tof.wire.inet import ETHERTYPE_IPV4, IPv4, checksum, decode_ipv4, encode_ipv4, pseudo_header

pytestmark = pytest.mark.netns

UP, DOWN = (RAN_MAC, CORE_MAC), (CORE_MAC, RAN_MAC)


@pytest.fixture(scope="module", params=["generic", "native"])
def tof(request: pytest.FixtureRequest) -> Iterator[Tof]:
    with serving_tof(Setting(xdp=request.param)) as running:
        yield running


@pytest.fixture(autouse=True)
def _fresh(tof: Tof) -> None:
    tof.drain()


def served(tof: Tof, bearer: Bearer, frame: bytes, data: bytes) -> Gpdu:
    """The frame's user packet reaches the application and not the core; the answer as the eNB gets it."""
    tof.ran.send(frame)
    answered = answer(tof, bearer, data)
    looks_as_from_the_core(answered, bearer)
    assert answered.message.sequence is None
    assert answered.message.npdu is None
    assert not to_core(tof, bearer)
    return answered


def passes(tof: Tof, bearer: Bearer, frame: bytes) -> None:
    """To the core, byte for byte, and not to the application."""
    diverted = tof.packets("diverted")
    tof.ran.send(frame)
    tof.core.expect(frame)
    assert tof.packets("diverted") == diverted
    tof.drain()


# Rows 1 and 20: identity


def test_one_teid_everywhere(tof: Tof) -> None:
    """Two eNBs, two SGWs, both directions, three VLANs: TEID 1 and the same UE ports throughout."""
    bearers = [
        new_bearer(enb=f"10.1.3.{enb}", sgw=f"10.1.4.{sgw}", vlan=vlan).but(up=1, down=1)
        for enb, sgw, vlan in itertools.product((1, 2), (1, 2), (None, 7, 8))
    ]
    tof.attach(*bearers)
    for n, bearer in enumerate(bearers):
        served(tof, bearer, echo(bearer, b"TEID 1, %d" % n), b"TEID 1, %d" % n)


def test_the_same_ue_and_tunnel_in_two_vlans(tof: Tof) -> None:
    """Two operators behind one wire: everything is equal but the VLAN and the UE's port."""
    one = new_bearer(vlan=31)
    other = one.but(vlan=32)
    tof.attach(one, other)
    for n, bearer in enumerate((one, other)):
        served(tof, bearer, echo(bearer, b"VLAN %d" % n, port=4100 + n), b"VLAN %d" % n)


# Row 2: flags

_UPLINK: dict[str, dict[str, Any]] = {
    "S": {"sequence": 0x1234},
    "PN": {"npdu": 7},
    "E": {"extensions": (Extension(0xC0, b"\x12\x34"), container(1, 5))},
}
_FLAGS = ["".join(c) for n in range(4) for c in itertools.combinations(_UPLINK, n)]


@pytest.mark.parametrize("downlink", ["plain", "S", "container"])
@pytest.mark.parametrize("uplink", _FLAGS, ids=lambda flags: flags or "plain")
def test_uplink_and_downlink_forms_are_independent(tof: Tof, uplink: str, downlink: str) -> None:
    """TS 29.281 section 5.1: the optional octets are there if any of the three flags is set."""
    bearer, data = new_bearer(qfi=9 if downlink == "container" else None), os.urandom(12)
    more = {name: value for flag in _UPLINK if flag in uplink for name, value in _UPLINK[flag].items()}
    plain = bearer.but(qfi=None)
    elsewhere = udp(ELSEWHERE, bearer.ue, 2000, 1000, data)
    down = bearer.downlink(elsewhere, **({"sequence": 77} if downlink == "S" else {}))
    tof.core.send(down)
    tof.ran.expect(down)
    # TS 23.501 section 5.7.5.3: of a session with QoS flows, a reply goes back in the one that its packet came in.
    shown = bearer.but(qfi=5) if "E" in uplink and downlink == "container" else bearer
    for port in (4000, 4001, 4002):  # on an unknown tunnel, on a settling one, on the fast lane
        served(tof, shown, plain.uplink(udp(bearer.ue, SERVICE, port, 7, data), **more), data)


@pytest.mark.parametrize(("uplink", "downlink"), [(5, None), (None, 9), (5, 9)])
def test_the_pinger_speaks_the_uplinks_form_alone(tof: Tof, uplink: int | None, downlink: int | None) -> None:
    bearer = new_bearer()
    up, down = bearer.but(qfi=uplink), bearer.but(qfi=downlink)
    frame = up.uplink(udp(bearer.ue, ELSEWHERE, 1, 2))
    tof.ran.send(frame)
    tof.core.expect(frame)
    asked = tof.pinger_request(bearer)
    forms = (asked.message.flags, asked.message.pdu_type, asked.message.qfi)
    assert forms == ((0x30, None, None) if uplink is None else (0x34, 1, uplink))
    tof.core.send(down.downlink(pong(asked.message.payload)))
    until("paired", lambda: len(tof.known(bearer)) == 2)
    tof.ran.send(up.uplink(udp(bearer.ue, SERVICE, 4000, 7, b"mixed")))
    shown = down if None in (uplink, downlink) else up
    looks_as_from_the_core(answer(tof, bearer, b"mixed"), shown)


def test_a_container_is_mirrored_from_the_first_downlink_packet_that_has_one(tof: Tof) -> None:
    """Row 15: a router advertisement may come without it in a tunnel whose packets have it."""
    bearer = new_bearer()
    tof.attach(bearer)
    served(tof, bearer, echo(bearer, b"before", port=4000), b"before")
    bare = udp(ELSEWHERE, bearer.ue, 2000, 1000, b"x")
    for qfi in (7, None, 7):
        frame = bearer.but(qfi=qfi).downlink(bare)
        tof.core.send(frame)
        tof.ran.expect(frame)
        served(tof, bearer.but(qfi=7), echo(bearer, b"after %r" % qfi, port=4001), b"after %r" % qfi)


# Row 3: extension headers

_LONG = Extension(0x85, bytes((0x1C, 0x80 | 9)) + bytes(range(24)))
CHAINS = {
    "container of 1 unit": (container(1, 5),),
    "container of 2 units": (Extension(0x85, bytes((0x18, 5)) + bytes(4)),),
    "container of 3 units": (Extension(0x85, bytes((0x1C, 5)) + bytes(8)),),
    "container of 7 units": (_LONG,),
    "PDCP PDU number": (Extension(0xC0, b"\x12\x34"),),
    "UDP port": (Extension(0x40, b"\x08\x68"),),
    "0x84": (Extension(0x84, bytes(22)),),
    "service class": (Extension(0x20, b"\1\2"),),
    "long PDCP PDU number": (Extension(0x82, bytes(6)),),
    "unknown, comprehension required": (Extension(0xFE, bytes(2)),),
    "unknown, may be ignored": (Extension(0x3E, bytes(2)),),
    "a container behind others": (Extension(0x40, b"\x08\x68"), Extension(0xC0, b"\1\2"), _LONG, Extension(0x20, b"\1\2")),
    "eight": tuple(Extension(kind, b"\1\2") for kind in (0x20, 0x40, 0x84, 0xC0, 0x03, 0x01, 0x85, 0x81)),
}  # fmt: skip


@pytest.mark.parametrize("case", CHAINS)
def test_service_traffic_behind_extension_headers_is_diverted(tof: Tof, case: str) -> None:
    bearer, data = new_bearer(), os.urandom(12)
    tof.down(bearer)
    for port in (4000, 4001):
        frame = bearer.uplink(udp(bearer.ue, SERVICE, port, 7, data), extensions=CHAINS[case], sequence=1)
        served(tof, bearer, frame, data)
    learnt = [n.content[1] & 0x3F for n in CHAINS[case] if n.type == 0x85]
    assert tof.known(bearer)["uplink"]["qfi"] == (learnt[0] if learnt else None)


def _lies(bearer: Bearer) -> dict[str, bytes]:
    """Service traffic that cannot be judged, each with what is wrong."""
    whole = bearer.uplink(
        udp(bearer.ue, SERVICE, 4000, 7, b"lies"), extensions=(Extension(0xC0, b"\1\2"), container(1, 5))
    )
    nine = tuple(Extension(0x20, b"\1\2") for _ in range(9))
    return {
        "extension of length zero": changed(whole, GTP_AT + 12, b"\0"),
        "second extension of length zero": changed(whole, GTP_AT + 16, b"\0"),
        "extension beyond the end": changed(whole, GTP_AT + 12, b"\xff"),
        "chain that does not end": changed(whole, GTP_AT + 19, b"\xc0"),
        "more extensions than anyone sends": bearer.uplink(udp(bearer.ue, SERVICE, 4000, 7), extensions=nine),
        "GTP length": changed(whole, GTP_AT + 2, b"\0\x08"),
        "GTP length beyond the end": changed(whole, GTP_AT + 2, b"\1\0"),
        "UDP length": changed(whole, UDP_AT + 4, b"\0\x10"),
        "total length": resummed(changed(whole, 16, b"\0\x60")),
        "TEID zero": changed(whole, GTP_AT + 4, bytes(4)),
        "version 2": changed(whole, GTP_AT, b"\x54"),
        "GTP prime": changed(whole, GTP_AT, b"\x24"),
        "inner version": changed(whole, INNER_AT + 12, b"\x55"),
        "inner length": changed(whole, INNER_AT + 14, b"\1\0"),
        "two tags": tagged(tagged(whole, 7), 8, 0x88A8),
        "a service tag": tagged(whole, 7, 0x88A8),
    }


@pytest.mark.parametrize("case", _lies(new_bearer()))
def test_what_cannot_be_judged_goes_to_the_core_even_to_a_service(tof: Tof, case: str) -> None:
    """Row 8 and row 18."""
    bearer = new_bearer()
    tof.attach(bearer)
    passes(tof, bearer, _lies(bearer)[case])
    unknown = new_bearer()
    passes(tof, unknown, _lies(unknown)[case])
    assert not tof.known(unknown)


# Row 6: checksums


@pytest.mark.parametrize("checksum_kind", ["zero", "right", "wrong", "partial"])
@pytest.mark.parametrize("six", [False, True], ids=["outer IPv4", "outer IPv6"])
def test_no_outer_checksum_matters(tof: Tof, checksum_kind: str, six: bool) -> None:
    bearer = new_bearer(enb="2001:db8:1::11", sgw="2001:db8:1::1") if six else new_bearer()
    at = 14 + (40 if six else 20) + 6

    def with_checksum(frame: bytes) -> bytes:
        segment = frame[at - 6 :]
        pseudo = checksum(pseudo_header(packed(bearer.enb), packed(bearer.sgw), 17, len(segment))) ^ 0xFFFF
        values = {
            "zero": b"\0\0",
            "right": frame[at : at + 2],
            "wrong": b"\xba\xd0",
            "partial": struct.pack("!H", pseudo),
        }
        return changed(frame, at, values[checksum_kind])

    tof.down(bearer)
    for port in (4000, 4001):
        served(tof, bearer, with_checksum(echo(bearer, b"sum %d" % port, port=port)), b"sum %d" % port)
    passes(tof, bearer, with_checksum(bearer.uplink(udp(bearer.ue, ELSEWHERE, 1, 2, b"on"))))


# Row 18: what is no user packet of ours


def _strange(bearer: Bearer) -> dict[str, bytes]:
    ends, to_service = (bearer.enb, bearer.sgw), udp(bearer.ue, SERVICE, 4000, 7, b"strange")

    def datagram(sport: int, dport: int, data: bytes) -> bytes:
        return ethernet(udp(*ends, sport, dport, data), ETHERTYPE_IPV4, UP)

    def user(inner: bytes) -> bytes:
        return bearer.uplink(inner)

    return {
        "DNS from port 2152": datagram(2152, 53, gtp(bearer.up, to_service)),
        "GTP-C": datagram(2123, 2123, gtp(bearer.up, to_service)),
        "GTP prime": datagram(3386, 3386, b"\x0f\x01\0\x04\0\1" + bytes(4)),
        "version 2 on 2152": datagram(2152, 2152, bytes.fromhex("48200008000000000000010003000100")),
        "an answer of a DNS to port 2152": datagram(53, 2152, bytes.fromhex("300081800001000100000000") + b"\3www\0"),
        "SCTP": ethernet(ip(*ends, 132, struct.pack("!HHII", 2152, 2152, 1, 2) + gtp(bearer.up, to_service)), 0x800, UP),
        "ESP": ethernet(ip(*ends, 50, struct.pack("!II", 0x100, 1) + os.urandom(80)), 0x800, UP),
        "ESP in UDP": datagram(4500, 4500, struct.pack("!II", 0x100, 1) + os.urandom(80)),
        "user packet that is no IP": user(b"\x99" + to_service[1:]),
        "nested GTP-U": user(udp(bearer.ue, bearer.sgw, 2152, 2152, gtp(bearer.up, to_service))),
        "nested End Marker": user(udp(bearer.ue, bearer.enb, 2152, 2152, gtp(bearer.down, kind=254))),
        "nested Error Indication": user(udp(bearer.ue, bearer.enb, 2152, 2152, gtp(bearer.down, kind=26))),
        "inner port 2152 that is no GTP": user(udp(bearer.ue, ELSEWHERE, 5353, 2152, b"\0\1whatever this is")),
    }  # fmt: skip


@pytest.mark.parametrize("case", _strange(new_bearer()))
def test_strange_traffic_passes_teaches_nothing_and_ends_nothing(tof: Tof, case: str) -> None:
    unknown = new_bearer()
    frame = _strange(unknown)[case]
    learns = case.startswith(("nested", "inner"))  # the tunnel itself is an honest one
    for _ in range(2):
        passes(tof, unknown, frame)
    assert set(tof.known(unknown)) == ({"uplink"} if learns else set())
    bearer = new_bearer()
    tof.attach(bearer)
    passes(tof, bearer, _strange(bearer)[case])
    known = tof.known(bearer)
    assert {way: (tunnel["ues"], tunnel["state"]) for way, tunnel in known.items()} == {
        "uplink": ([bearer.ue], "paired"), "downlink": ([bearer.ue], "paired")
    }  # fmt: skip


def test_a_service_on_port_2152_is_served_like_any_other(tof: Tof) -> None:
    bearer = new_bearer()
    tof.attach(bearer)
    tof.ran.send(bearer.uplink(udp(bearer.ue, SERVICE, 2152, 2152, b"\x30\xff no GTP")))
    tof.apps.packet(lambda one: one.source == bearer.ue and one.data == b"\x30\xff no GTP")
    assert not to_core(tof, bearer)


# Row 19: source ports


@pytest.mark.parametrize("sport", [5906, 2152, 40000, 1, 65535])
def test_any_outer_source_port(tof: Tof, sport: int) -> None:
    """Only the destination port says that it is GTP-U (TS 29.281 section 4.4.2.3); what is injected comes from 2152."""
    bearer = new_bearer()

    def up(inner: bytes) -> bytes:
        return carried(bearer.enb, bearer.sgw, gtp(bearer.up, inner), macs=UP, sport=sport)

    down = udp(ELSEWHERE, bearer.ue, 1, 2)
    frame = carried(bearer.sgw, bearer.enb, gtp(bearer.down, down), macs=DOWN, sport=sport)
    tof.core.send(frame)
    tof.ran.expect(frame)
    for port in (4000, 4001):
        served(tof, bearer, up(udp(bearer.ue, SERVICE, port, 7, b"port")), b"port")
    passes(tof, bearer, up(udp(bearer.ue, ELSEWHERE, 1, 2)))


def test_source_ports_that_change_from_packet_to_packet(tof: Tof) -> None:
    bearer = new_bearer()
    tof.attach(bearer)
    before = tof.known(bearer)["uplink"]["packets"]
    for sport in range(49152, 49162):
        inner = udp(bearer.ue, SERVICE, 4000, 7, b"from %d" % sport)
        frame = carried(bearer.enb, bearer.sgw, gtp(bearer.up, inner), macs=UP, sport=sport)
        served(tof, bearer, frame, b"from %d" % sport)
    assert tof.known(bearer)["uplink"]["packets"] == before + 10


# Row 20: marks, tags, options

OUTER6 = {"enb": "2001:db8:1::11", "sgw": "2001:db8:1::1"}


@pytest.mark.parametrize(
    "bearer",
    [new_bearer(), new_bearer(**OUTER6), new_bearer(vlan=9), new_bearer6(**OUTER6, qfi=4)],
    ids=["IPv4", "IPv6", "VLAN", "5G over IPv6"],
)
def test_injected_packets_carry_the_dscp_their_tunnel_last_carried(tof: Tof, bearer: Bearer) -> None:
    """And no other packet's mark of congestion: under one, an eNB drops a user packet that knows no ECN.

    RFC 6040 section 4.2.
    """
    tof.attach(bearer)
    elsewhere = "2001:db8:ffff::7" if ":" in bearer.ue else ELSEWHERE
    for tos in (0xB8, 0xBB, 0x03, 0x28, 0x2A, 0x00, 0xFC):
        frame = bearer.but(tos=tos).downlink(udp(elsewhere, bearer.ue, 1, 2, b"marked"))
        tof.core.send(frame)
        tof.ran.expect(frame)
        # The uplink's own mark is another, and no business of the downlink's.
        inner = udp(bearer.ue, service_of(bearer), 4000, 7, b"%02x" % tos)
        served(tof, bearer.but(tos=tos & 0xFC), bearer.but(tos=0x48).uplink(inner), b"%02x" % tos)


def test_the_pinger_carries_the_uplinks_dscp_and_no_congestion_mark(tof: Tof) -> None:
    for more in ({}, OUTER6):
        bearer = new_bearer(tos=0x4B, **more)
        tof.up(bearer)
        assert tof.answer_ping(bearer).tos == 0x48


def test_injected_packets_may_be_cut_where_the_tunnels_own_may(tof: Tof) -> None:
    """A router with a shorter link further on would tell the SGW, not the TOF, what fits (RFC 1191)."""
    bearer = new_bearer()
    tof.attach(bearer)
    idents = set()
    for n, flags in enumerate((0, 2, 0, 0)):
        frame = bearer.downlink(udp(elsewhere(bearer), bearer.ue, 2000, 1000, b"%d" % n))
        frame = frame[:14] + encode_ipv4(decode_ipv4(frame[14:])._replace(flags=flags))
        tof.core.send(frame)
        tof.ran.expect(frame)
        tof.ran.send(echo(bearer, b"%d" % n))
        found = tof.ran.find(lambda one, n=n: one.endswith(b"app:%d" % n), 1)
        assert found is not None
        outer = decode_ipv4(found[14:])
        assert outer.flags == flags
        idents.add(outer.identification)
        assert flags == 0 or outer.identification == 0
    assert len(idents) == 4


@pytest.mark.parametrize("priority", [0, 5, 7])
def test_a_priority_tag_is_no_vlan(tof: Tof, priority: int) -> None:
    """IEEE 802.1Q: VLAN 0 says a priority alone; what is injected into such a tunnel has no tag."""
    bearer = new_bearer()
    tof.down(bearer)
    for port in (4000, 4001):
        served(tof, bearer, tagged(echo(bearer, b"tagged", port=port), priority << 13), b"tagged")
    passes(tof, bearer, tagged(bearer.uplink(udp(bearer.ue, ELSEWHERE, 1, 2)), priority << 13))
    assert tof.known(bearer)["uplink"]["vlan"] is None


@pytest.mark.parametrize("case", ["options", "bad header checksum"])
def test_odd_outer_headers_are_no_hindrance(tof: Tof, case: str) -> None:
    """Of user packets of an unknown and of a known tunnel; what goes on, goes on as it came."""
    bearer = new_bearer()

    def odd(frame: bytes) -> bytes:
        if case == "options":
            one = IPv4(frame[26:30], frame[30:34], 17, frame[34:], options=b"\x94\x04\0\0")
            return ethernet(encode_ipv4(one), ETHERTYPE_IPV4, UP)
        return changed(frame, 24, b"\xde\xad")

    tof.down(bearer)
    for port in (4000, 4001):
        served(tof, bearer, odd(echo(bearer, b"odd %d" % port, port=port)), b"odd %d" % port)
        passes(tof, bearer, odd(bearer.uplink(udp(bearer.ue, ELSEWHERE, 1, port))))


# Point 5: families mixed


MIXES = {
    f"UE IPv{ue}, outer IPv{outer}, {generation}, VLAN {vlan}": (ue, outer, generation, vlan)
    for ue, outer, generation, vlan in itertools.product((4, 6), (4, 6), ("4G", "5G"), (None, 100))
}


@pytest.mark.parametrize("mix", MIXES)
def test_every_mix_of_families_generation_and_vlan(tof: Tof, mix: str) -> None:
    ue, outer, generation, vlan = MIXES[mix]
    more: dict[str, Any] = {
        "vlan": vlan,
        "qfi": 3 if generation == "5G" else None,
        **(OUTER6 if outer == 6 else {}),
    }
    bearer = (new_bearer6 if ue == 6 else new_bearer)(**more)
    tof.attach(bearer)
    service = SERVICE6 if ue == 6 else SERVICE
    data = os.urandom(1100)
    served(tof, bearer, bearer.uplink(udp(bearer.ue, service, 4000, 7, data)), data)
