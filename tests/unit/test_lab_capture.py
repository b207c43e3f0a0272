"""tof.lab.capture: both formats, both byte orders, all resolutions; tshark's tools as the oracle."""

from __future__ import annotations

import shutil
import subprocess
from contextlib import suppress
from pathlib import Path
from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.utils import rdpcap

from tof.errors import SetupError
from tof.lab import capture
from tof.lab.capture import Frame

CAPTURES = Path(__file__).parents[3] / "shared" / "pcaps"
frames = st.lists(
    st.builds(
        lambda time, data, more: (time, data, len(data) + more),
        st.integers(0, 2**32 * 10**9 - 1),
        st.binary(max_size=40),
        st.integers(0, 9),
    ),
    max_size=4,
).map(lambda records: [Frame(number, *record) for number, record in enumerate(records, 1)])


def pcap(order: str = "<", magic: int = 0xA1B2C3D4, link: int = 1, fraction: int = 7) -> bytes:
    header = pack(order + "IHHiIII", magic, 2, 4, 0, 0, 65535, link)
    return header + pack(order + "IIII", 3, fraction, 5, 9) + b"hello"


def block(order: str, kind: int, body: bytes) -> bytes:
    body += bytes(-len(body) % 4)
    return pack(order + "II", kind, len(body) + 12) + body + pack(order + "I", len(body) + 12)


def section(order: str) -> bytes:
    return block(order, 0x0A0D0D0A, pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1))


def interface(order: str, link: int = 1, snap: int = 0, options: bytes = b"") -> bytes:
    return block(order, 1, pack(order + "HHI", link, 0, snap) + options)


def packet(order: str, units: int, data: bytes, index: int = 0) -> bytes:
    return block(
        order, 6, pack(order + "IIIII", index, units >> 32, units & 0xFFFFFFFF, len(data), 99) + data
    )


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("magic", "scale"), [(0xA1B2C3D4, 1000), (0xA1B23C4D, 1)])
def test_pcap(order: str, magic: int, scale: int) -> None:
    (frame,) = capture.parse(pcap(order, magic))
    assert frame == Frame(1, 3 * 10**9 + 7 * scale, b"hello", 9)
    assert frame.cut
    assert not Frame(1, 0, b"hello", 5).cut


@given(frames)
def test_there_and_back(written: list[Frame]) -> None:
    assert capture.parse(capture.dump(written)) == written


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("options", "units", "time_ns"),
    [
        ("", 5_000_007, 5_000_007_000),
        ("9:09", 2**33, 2**33),
        ("9:8a", 1024 + 512, 1_500_000_000),
        ("1:686970,14:offset", 1, 60_000_001_000),
        ("9:", 1, 1000),
        ("14:00", 1, 1000),
    ],
)
def test_pcapng_times(order: str, options: str, units: int, time_ns: int) -> None:
    encoded = b""
    for option in filter(None, options.split(",")):
        code, _, value = option.partition(":")
        data = pack(order + "q", 60) if value == "offset" else bytes.fromhex(value)
        encoded += pack(order + "HH", int(code), len(data)) + data + bytes(-len(data) % 4)
    data = section(order) + interface(order, options=encoded) + packet(order, units, b"hello")
    assert capture.parse(data) == [Frame(1, time_ns, b"hello", 99)]


def test_pcapng_sections_may_differ_in_byte_order_and_hold_other_blocks() -> None:
    simple = block(">", 3, pack(">I", 6) + b"simple")
    data = section("<") + interface("<") + block("<", 5, b"statistics") + packet("<", 1, b"one")
    data += section(">") + interface(">", snap=4) + simple + section(">") + interface(">") + simple
    assert [(f.number, f.data, f.original_length) for f in capture.parse(data)] == [
        (1, b"one", 99),
        (2, b"simp", 6),
        (3, b"simple", 6),
    ]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "neither pcap nor pcapng"),
        (b"#!/bin/sh\n", "neither pcap nor pcapng"),
        (pcap()[:20], "ends in its file header"),
        (pcap(link=113), "link type 113; only Ethernet"),
        (pcap()[:-1], "middle of packet 1"),
        (pcap() + b"x", "middle of packet 2"),
        (section("<")[:8], "byte-order mark"),
        (section("<") + b"\1\0\0\0", "middle of the block at byte 28"),
        (section("<") + pack("<III", 1, 8, 8), "bad length in the block at byte 28"),
        (section("<") + pack("<III", 1, 13, 13) + b"x", "bad length"),
        (section("<") + pack("<III", 1, 100, 100), "bad length"),
        (section("<") + block("<", 1, b"\1\0\0\0"), "interface block that is too short"),
        (section("<") + packet("<", 1, b"x"), "packet of interface 0"),
        (section("<") + interface("<", link=276) + packet("<", 1, b"x"), "link type 276"),
        (section("<") + interface("<") + block("<", 6, bytes(16)), "packet block that is too short"),
        (section("<") + interface("<") + block("<", 3, b""), "packet block that is too short"),
        (
            section("<") + interface("<") + block("<", 6, pack("<IIIII", 0, 0, 0, 9, 9)),
            "shorter than its packet",
        ),
        (section("<") + interface("<") + block("<", 2, bytes(20)), "obsolete Packet Blocks"),
    ],
)
def test_refusals_name_the_file(data: bytes, message: str) -> None:
    with pytest.raises(SetupError, match=message) as caught:
        capture.parse(data, "x.pcap")
    assert str(caught.value).startswith("x.pcap: ")


@given(
    st.binary(max_size=60), st.sampled_from([b"", pcap()[:24], section("<"), section(">") + interface(">")])
)
def test_any_bytes_parse_or_raise(data: bytes, start: bytes) -> None:
    with suppress(SetupError):
        capture.parse(start + data)


def test_unreadable_file() -> None:
    with pytest.raises(SetupError, match="No such file"):
        capture.read(Path("/nonexistent.pcap"))


def test_real_captures_against_scapy_and_editcap(tmp_path: Path) -> None:
    if not CAPTURES.is_dir():
        pytest.skip("no shared captures beside the checkout")
    for path in sorted(CAPTURES.glob("*/*.pcap")):
        ours = capture.read(path)
        theirs = rdpcap(str(path))
        assert [f.data for f in ours] == [bytes(p) for p in theirs], path
        assert [f.original_length for f in ours] == [p.wirelen for p in theirs], path
        assert [f.time_ns for f in ours] == [int(p.time * 10**9) for p in theirs], path
        if shutil.which("editcap"):
            converted = tmp_path / "x.pcapng"
            subprocess.run(["editcap", "-F", "pcapng", path, converted], check=True)
            assert capture.read(converted) == ours, path


def test_tshark_reads_what_we_write(tmp_path: Path) -> None:
    if not shutil.which("capinfos"):
        pytest.skip("capinfos (package wireshark-common) is not installed")
    path = tmp_path / "ours.pcap"
    capture.write(path, [Frame(1, 1_234_567_890, bytes(60), 60), Frame(2, 2_000_000_000, bytes(60), 1500)])
    said = subprocess.run(
        ["capinfos", "-c", "-E", "-d", path], check=True, capture_output=True, text=True
    ).stdout
    assert "Number of packets:   2" in said
    assert "Data size:           1560 bytes" in said
