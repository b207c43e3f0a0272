"""tof.vim.analyzer.segments and .streams: every link type, and TCP as captures have it: lost, doubled, out of order, cut."""

from __future__ import annotations

import random
from contextlib import suppress
from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop
from scapy.layers.l2 import Dot1Q, Ether

from tests.vim_wire import LINKS, LOOP, NULL, RAW, START_NS, Wire, end, frame
from tof.errors import DecodeError
from tof.vim.analyzer.segments import End, Segment, segment
from tof.vim.analyzer.streams import Piece, connections
from tof.wire.capture import ETHERNET, Frame

ONE = Segment(1, START_NS, end("192.0.2.1:40001"), end("198.51.100.2:8774"), 7, 0x18, b"hello")
SIX = ONE._replace(source=end("[2001:db8::1]:40001"), destination=end("[2001:db8::2]:8774"))


@pytest.mark.parametrize("one", [ONE, SIX], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("tags", [0, 1, 2])
@pytest.mark.parametrize("link", LINKS)
def test_every_link_type_and_vlan_tags(one: Segment, link: int, tags: int) -> None:
    assert segment(frame(one, link=link, tags=tags)) == one


@pytest.mark.parametrize(
    ("packet", "data"),
    [
        (Ether() / IP(options=b"\1\1\1\0") / TCP(sport=1, dport=2, options=[("MSS", 1460)]) / b"x", b"x"),
        (Ether() / Dot1Q(vlan=5) / IPv6() / IPv6ExtHdrHopByHop() / TCP(sport=1, dport=2) / b"six", b"six"),
        (Ether() / IPv6() / IPv6ExtHdrDestOpt() / IPv6ExtHdrFragment() / TCP(sport=1, dport=2) / b"y", b"y"),
    ],
)
def test_headers_as_scapy_writes_them(packet: Ether, data: bytes) -> None:
    raw = bytes(packet)
    found = segment(Frame(1, 0, raw + bytes(4), len(raw) + 4))
    assert found is not None
    assert (found.source.port, found.destination.port, found.data) == (1, 2, data)


def test_an_authentication_header() -> None:
    raw = bytearray(frame(SIX, link=RAW).data)
    raw[4:7] = pack("!HB", len(raw) - 40 + 12, 51)
    raw[40:40] = bytes((6, 1)) + bytes(10)
    found = segment(Frame(1, 0, bytes(raw), len(raw), RAW))
    assert found is not None
    assert found.data == b"hello"


@pytest.mark.parametrize(
    "data",
    [
        bytes(Ether() / IP(frag=3) / TCP()),
        bytes(Ether() / IP(flags="MF") / TCP()),
        bytes(Ether() / IPv6() / IPv6ExtHdrFragment(offset=3) / TCP()),
        bytes(Ether() / IP(proto=17) / bytes(8)),
        bytes(Ether() / IPv6(nh=17) / bytes(8)),
        bytes(Ether(type=0x0806) / bytes(28)),
    ],
)
def test_what_is_no_tcp_is_passed_over(data: bytes) -> None:
    assert segment(Frame(1, 0, data, len(data))) is None


@pytest.mark.parametrize(
    ("data", "link", "reason"),
    [
        (bytes(5), ETHERNET, "link_truncated"),
        (b"", RAW, "ip_version"),
        (b"\x15" + bytes(60), RAW, "ip_version"),
        (b"\x45" + bytes(9), RAW, "ip_truncated"),
        (b"\x60" + bytes(9), RAW, "ip_truncated"),
        (b"\x44\0\0\x40" + bytes(60), RAW, "ip_length"),
        (b"\x45\0\xff\xff" + bytes(60), RAW, "ip_length"),
        (b"\x60\0\0\0\xff\xff\x06\0" + bytes(60), RAW, "ip_length"),
        (b"\x60\0\0\0\0\4\0\0" + bytes(36), RAW, "ip_truncated"),
        (b"\x45\0\0\x1e" + bytes(5) + b"\6" + bytes(20), RAW, "tcp_truncated"),
        (b"\x45\0\0\x28" + bytes(5) + b"\6" + bytes(30), RAW, "tcp_length"),
        (bytes(50), 999, "link type 999 is not known"),
        (bytes(50), NULL, "ip_version"),
        (bytes(50), LOOP, "ip_version"),
    ],
)
def test_refusals_have_names(data: bytes, link: int, reason: str) -> None:
    with pytest.raises(DecodeError) as caught:
        segment(Frame(1, 0, data, len(data), link))
    assert caught.value.reason == reason


@given(st.binary(max_size=120), st.sampled_from([*LINKS, 999]), st.integers(0, 200))
def test_any_bytes_are_read_or_refused(data: bytes, link: int, more: int) -> None:
    with suppress(DecodeError):
        segment(Frame(1, 0, data, len(data) + more, link))


def test_a_packet_that_the_snap_length_cut_says_what_is_missing() -> None:
    whole = frame(ONE)
    cut = whole._replace(data=whole.data[:-3])
    assert segment(cut) == ONE._replace(data=b"he", missing=3)


def test_segmentation_offload_writes_no_length() -> None:
    raw = bytearray(frame(ONE, link=RAW).data)
    raw[2:4] = bytes(2)
    assert segment(Frame(1, START_NS, bytes(raw), len(raw), RAW)) == ONE
    raw = bytearray(frame(SIX, link=RAW).data)
    raw[4:6] = bytes(2)
    assert segment(Frame(1, START_NS, bytes(raw), len(raw), RAW)) == SIX


def test_ends_are_told_as_people_write_them() -> None:
    assert str(ONE.source) == "192.0.2.1:40001"
    assert str(SIX.source) == "[2001:db8::1]:40001"


def pieces(wire: Wire, order: list[int] | None = None) -> list[Piece]:
    segments = wire.segments if order is None else [wire.segments[at] for at in order]
    (connection,) = connections(segments)
    return connection.pieces(end("192.0.2.1:40001"))


def data(found: list[Piece]) -> bytes:
    return b"".join(piece.data for piece in found)


@given(
    st.binary(min_size=1, max_size=400),
    st.integers(1, 50),
    st.randoms(use_true_random=False),
    st.sampled_from([0, 2**31, 2**32 - 20]),
    st.booleans(),
)
def test_any_order_and_any_repetition_give_the_same_bytes(
    sent: bytes, mss: int, chance: random.Random, sequence: int, syn: bool
) -> None:
    wire = Wire()
    wire.open("198.51.100.2:1", syn=syn, sequence=sequence).ask(1, sent, mss)
    middle = wire.segments[2:] if syn else wire.segments[1:]
    # Without a SYN the place where the stream begins is that of its first packet.
    first = wire.segments[: 2 if syn else 1]
    mixed = [*middle, *chance.choices(middle, k=len(middle))] if middle else []
    chance.shuffle(mixed)
    wire.segments = [*first, *mixed]
    found = pieces(wire)
    assert data(found) == sent
    assert not any(piece.hole for piece in found)
    assert [piece.time_ns for piece in found] == sorted(piece.time_ns for piece in found)


def test_bytes_count_when_those_before_have_come() -> None:
    wire = Wire()
    talk = wire.open("198.51.100.2:1")
    talk.ask(1, b"first")
    talk.ask(9, b"late")
    talk.ask(2, b"early")
    found = pieces(wire)
    assert [(piece.time_ns - START_NS, piece.data) for piece in found] == [
        (1_000_000, b"first"),
        (9_000_000, b"late"),
        (9_000_000, b"early"),
    ]


def test_lost_bytes_are_a_hole_of_their_size() -> None:
    wire = Wire()
    wire.open("198.51.100.2:1").ask(1, bytes(range(50)), mss=10)
    del wire.segments[3:5]
    assert [(piece.hole, len(piece.data)) for piece in pieces(wire)] == [(0, 10), (20, 10), (0, 10)]


def test_the_first_segment_may_be_lost_too() -> None:
    wire = Wire()
    wire.open("198.51.100.2:1").ask(1, b"0123456789", mss=5)
    del wire.segments[2]
    assert [(piece.hole, piece.data) for piece in pieces(wire)] == [(5, b"56789")]


def test_a_longer_retransmission_adds_what_is_new() -> None:
    wire = Wire()
    talk = wire.open("198.51.100.2:1")
    talk.ask(1, b"abc")
    wire.add(2, talk.client, talk.server, talk.sequences[talk.client] - 3, b"abcdef", 0x18)
    assert data(pieces(wire)) == b"abcdef"


def test_a_probe_of_a_connection_that_sleeps_is_no_hole() -> None:
    wire = Wire()
    talk = wire.open("198.51.100.2:1", syn=False)
    wire.add(0, talk.client, talk.server, talk.sequences[talk.client] - 1, b"", 0x10)
    talk.ask(1, b"awake")
    assert [(piece.hole, piece.data) for piece in pieces(wire)] == [(0, b"awake")]


def test_a_forged_segment_is_refused_and_counted() -> None:
    wire = Wire()
    talk = wire.open("198.51.100.2:1")
    talk.ask(1, b"abc")
    wire.add(2, talk.client, talk.server, talk.sequences[talk.client] + (1 << 31) - 1, b"far", 0x18)
    (connection,) = connections(wire.segments)
    assert connection.refused == 1
    assert data(connection.pieces(talk.client)) == b"abc"


def test_used_ports_may_be_used_again() -> None:
    wire = Wire()
    for sequence in (10, 3_000_000_000):
        wire.open("198.51.100.2:1", "192.0.2.1:40001", sequence=sequence).ask(1, b"%d" % sequence)
    # A SYN that is sent twice opens nothing new.
    wire.segments.insert(3, replace_number(wire.segments[0]))
    found = connections(wire.segments)
    assert [data(one.pieces(end("192.0.2.1:40001"))) for one in found] == [b"10", b"3000000000"]
    assert [one.opener for one in found] == [end("192.0.2.1:40001")] * 2
    assert str(found[0]) == "192.0.2.1:40001 - 198.51.100.2:1"


def replace_number(one: Segment) -> Segment:
    return one._replace(number=99)


def test_who_said_nothing_has_no_pieces() -> None:
    wire = Wire()
    talk = wire.open("198.51.100.2:1", syn=False)
    talk.ask(1, b"abc")
    (connection,) = connections(wire.segments)
    assert connection.pieces(talk.server) == []
    assert connection.pieces(End(b"\0\0\0\0", 1)) == []
