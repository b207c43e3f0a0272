"""Capture files, byte for byte, and as our own reader of captures has them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tof.wire import pcapng


def test_a_section_byte_for_byte() -> None:
    """draft-ietf-opsawg-pcapng sections 4.1 and 4.2."""
    assert pcapng.section(("up", "down")) == bytes.fromhex(
        "0a0d0d0a 1c000000 4d3c2b1a 0100 0000 ffffffffffffffff 1c000000"
        "01000000 28000000 6500 0000 00000000 0200 0200 75700000 0900 0100 09000000 00000000 28000000"
        "01000000 28000000 6500 0000 00000000 0200 0400 646f776e 0900 0100 09000000 00000000 28000000"
    )


@pytest.mark.parametrize(("way", "flags"), [(pcapng.UPLINK, "01"), (pcapng.DOWNLINK, "02")])
def test_a_packet_byte_for_byte(way: int, flags: str) -> None:
    """Section 4.3."""
    assert pcapng.packet(way, (7 << 32) + 9, b"\x45abcd") == bytes.fromhex(
        f"06000000 34000000 {way:02x}000000 07000000 09000000 05000000 05000000 4561626364 000000"
        f"0200 0400 {flags}000000 00000000 34000000"
    )


@given(st.lists(st.binary(max_size=70)))
def test_blocks_are_of_whole_words_and_say_their_length_twice(data: list[bytes]) -> None:
    raw = pcapng.section() + b"".join(pcapng.packet(at & 1, at, one) for at, one in enumerate(data))
    kinds, at = [], 0
    while at < len(raw):
        kinds.append(int.from_bytes(raw[at : at + 4], "little"))
        size = int.from_bytes(raw[at + 4 : at + 8], "little")
        assert size % 4 == 0
        assert raw[at + size - 4 : at + size] == raw[at + 4 : at + 8]
        at += size
    assert kinds == [0x0A0D0D0A, 1, 1, *[6] * len(data)]
