"""Frames as `tof explain` reads them: as the fuzzer's oracle does, which is held against the kernel."""

from __future__ import annotations

from collections import Counter

import pytest

from tof.explain.reading import SCTP, Kind, Part, User, read, user_of
from tof.wire import inet
from tools.fuzz import oracle
from tools.fuzz.packets import Source

KINDS = {
    Kind.OTHER: oracle.OTHER,
    Kind.ODD: oracle.ODD,
    Kind.FRAGMENT: oracle.FRAGMENT,
    Kind.PIECE: oracle.PIECE,
    Kind.GPDU: oracle.GPDU,
    Kind.SIGNAL: oracle.SIGNAL,
    Kind.MESSAGE: oracle.MESSAGE,
}
FRAMES = 20_000
UE, SERVER = bytes((10, 0, 0, 1)), bytes((203, 0, 113, 9))


def same_user(mine: User, theirs: oracle.Inner) -> bool:
    facts = mine.source, mine.destination, mine.protocol, mine.part.value, mine.size
    ports = (0, 0) if mine.ports is None or mine.protocol == SCTP else mine.ports
    return facts == (
        theirs.source, theirs.destination, theirs.protocol, theirs.piece, len(theirs.packet)
    ) and (ports, mine.opens, mine.nested) == (
        theirs.ports(), theirs.opens(), theirs.protocol == inet.UDP_PROTOCOL and theirs.goes_to(2152)
    )  # fmt: skip


@pytest.mark.parametrize("side", [0, 1])
def test_every_frame_is_what_the_oracle_says_it_is(side):
    source, seen = Source(f"explain {side}"), Counter()
    for _ in range(FRAMES):
        made = source.s1(side)
        frame = source.bent(made) if source.random.random() < 0.8 else made.frame
        mine, theirs = read(frame), oracle.read(frame)
        assert KINDS[mine.kind] == theirs.kind, frame.hex()
        if mine.kind is not Kind.OTHER:
            assert mine.reason == theirs.reason, frame.hex()
        if mine.kind in (Kind.GPDU, Kind.SIGNAL, Kind.FRAGMENT):
            assert mine.key == theirs.key, frame.hex()
        if mine.kind in (Kind.GPDU, Kind.FRAGMENT):
            assert mine.qfi == theirs.qfi, frame.hex()
            assert same_user(mine.user, theirs.inner), frame.hex()
        if mine.kind in (Kind.FRAGMENT, Kind.PIECE):
            assert (mine.part.value, mine.ident) == (theirs.piece, theirs.ident), frame.hex()
        seen[mine.kind, mine.reason] += 1
    assert {kind for kind, _ in seen} == set(Kind)
    assert {reason for _, reason in seen} >= {
        "bridged_length", "bridged_version", "bridged_message", "bridged_extension", "bridged_inner",
        "bridged_fragment",
    }  # fmt: skip


def test_the_facts_that_a_selection_looks_at():
    segment = inet.encode_udp(inet.UDP(1000, 443, b""))
    four = user_of(inet.encode_ipv4(inet.IPv4(UE, SERVER, 17, segment, tos=0xB8)))
    six = user_of(inet.encode_ipv6(inet.IPv6(UE * 4, SERVER * 4, 17, segment, tos=0xB8)))
    assert [(user.dscp, user.port, user.ports) for user in (four, six)] == [(46, 443, (1000, 443))] * 2


def test_an_echo_has_no_port_and_a_later_fragment_none_to_be_seen():
    echo = user_of(inet.encode_ipv4(inet.IPv4(UE, SERVER, 1, b"\x08\0\0\0\0\x07\0\x01")))
    assert (echo.ports, echo.port) == ((7, 7), None)
    later = user_of(inet.encode_ipv4(inet.IPv4(UE, SERVER, 17, bytes(16), offset=800)))
    assert (later.ports, later.port, later.part) == (None, None, Part.LATER)
