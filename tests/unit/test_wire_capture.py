"""Capture files of any link type; what is common with Ethernet's alone is in test_lab_capture."""

from __future__ import annotations

from struct import pack

import pytest

from tof.errors import DecodeError
from tof.wire.capture import Frame, dump, frames


@pytest.mark.parametrize("link", [0, 1, 101, 113, 276])
def test_frames_know_their_link_type(link: int) -> None:
    written = [Frame(1, 5, b"abc", 9, link)]
    assert list(frames(dump(written, link_type=link))) == written


def test_interfaces_of_a_pcapng_may_differ() -> None:
    def block(kind: int, body: bytes) -> bytes:
        body += bytes(-len(body) % 4)
        return pack("<II", kind, len(body) + 12) + body + pack("<I", len(body) + 12)

    data = block(0x0A0D0D0A, pack("<IHHq", 0x1A2B3C4D, 1, 0, -1))
    data += block(1, pack("<HHI", 1, 0, 0)) + block(1, pack("<HHI", 276, 0, 0))
    data += b"".join(block(6, pack("<IIIII", at, 0, 1, 3, 3) + b"xyz") for at in (1, 0))
    assert [(one.link_type, one.data) for one in frames(data)] == [(276, b"xyz"), (1, b"xyz")]


def test_what_comes_before_a_fault_can_be_had() -> None:
    reader = frames(dump([Frame(1, 0, b"whole", 5), Frame(2, 0, b"broken", 6)])[:-1])
    assert next(reader).data == b"whole"
    with pytest.raises(DecodeError, match="ends in the middle of packet 2"):
        next(reader)
