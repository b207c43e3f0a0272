"""Where the fuzzers start: messages of every kind made here, and what captures hold, where there are any."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path

from tof.errors import DecodeError
from tof.lab import capture
from tof.wire import gtpu, icmp, inet
from tof.wire.gtpu import Extension, Message
from tools.fuzz.vim_target import conversations

ROOT = Path(__file__).resolve().parents[2]
CAPTURES = (ROOT / "tests/vectors", ROOT.parent / "shared/pcaps")
FRAMES_PER_CAPTURE = 40
LONGEST = 600

_V4 = bytes((10, 0, 0, 1)), bytes((203, 0, 113, 9))
_V6 = bytes.fromhex("20010db8000100000000000000000007"), bytes.fromhex("20010db8ffff00000000000000000009")
_OUTER4 = bytes((192, 0, 2, 1)), bytes((192, 0, 2, 101))
_OUTER6 = bytes.fromhex("20010db8" + "00" * 11 + "01"), bytes.fromhex("20010db8" + "00" * 10 + "0101")
_CONTAINER = Extension(0x85, b"\x10\x09")
_CHAINS: tuple[tuple[Extension, ...], ...] = (
    (),
    (_CONTAINER,),
    (Extension(0x85, b"\x00\x49" + bytes(8)),),
    (Extension(0xC0, b"\x12\x34"), _CONTAINER),
    (Extension(0x40, b"\x08\x68"), Extension(0x20, b"\x01\0"), Extension(0x84, bytes(14)), _CONTAINER),
    tuple(Extension(0xC0, bytes((n, n))) for n in range(9)),
)
_SYN = bytes.fromhex("9c4000500000000100000000600272100000000002040584040201010000")[:30] + bytes(2)


def _inner() -> Iterator[bytes]:
    for ends in (_V4, _V6):
        token = icmp.Echo(1, 1, bytes(range(8)), reply=True)
        yield icmp.echo_packet(*ends, token)
        for protocol, segment in ((17, inet.encode_udp(inet.UDP(5000, 53, b"query"))), (6, _SYN)):
            whole = inet.fill_checksum(*ends, protocol, segment)
            if len(ends[0]) == 4:
                yield inet.encode_ipv4(inet.IPv4(*ends, protocol, whole))
                yield inet.encode_ipv4(inet.IPv4(*ends, protocol, whole, flags=1, options=b"\x01" * 4))
                yield inet.encode_ipv4(inet.IPv4(*ends, protocol, whole[:16], offset=64))
            else:
                yield inet.encode_ipv6(inet.IPv6(*ends, protocol, whole))
                hop = bytes((protocol, 0)) + bytes(6)
                yield inet.encode_ipv6(inet.IPv6(*ends, protocol, whole, next_header=0, headers=hop))
                part = bytes((protocol, 0, 0, 9)) + bytes(4)
                yield inet.encode_ipv6(inet.IPv6(*ends, protocol, whole, next_header=44, headers=part))


def messages() -> Iterator[bytes]:
    """GTP-U messages: every type, form and chain."""
    for inner, chain in product(_inner(), _CHAINS):
        yield gtpu.encode(Message(0x30, gtpu.G_PDU, 1, extensions=chain, payload=inner))
    inner = next(_inner())
    for sequence, npdu in product((None, 7), (None, 9)):
        yield gtpu.encode(Message(0x30, gtpu.G_PDU, 1, sequence, npdu, payload=inner))
    for kind, payload in (
        (gtpu.ECHO_REQUEST, b""),
        (gtpu.ECHO_RESPONSE, b"\x0e\x05"),
        (gtpu.ERROR_INDICATION, b"\x10\0\0\0\x01\x85\0\x04" + _OUTER4[0]),
        (gtpu.ERROR_INDICATION, b""),
        (gtpu.SUPPORTED_EXTENSION_HEADERS, b"\x8d\x01\x85"),
        (gtpu.END_MARKER, b""),
    ):
        yield gtpu.encode(Message(0x32, kind, 1, 1, payload=payload))
    yield gtpu.encode(Message(0x34, gtpu.END_MARKER, 1, extensions=(_CONTAINER,)))


def packets() -> Iterator[bytes]:
    """The messages under UDP and IP of both families, whole and in fragments, and packets of captures."""
    for at, message in enumerate(messages()):
        datagram = inet.encode_udp(inet.UDP(2152, gtpu.PORT, message))
        if at % 2:
            yield inet.encode_ipv4(inet.IPv4(*_OUTER4, 17, datagram, flags=at % 3 % 2))
        else:
            yield inet.encode_ipv6(inet.IPv6(*_OUTER6, 17, datagram))
    for frame in frames():
        try:
            yield inet.decode_ethernet(frame).payload
        except DecodeError:
            continue


def frames() -> Iterator[bytes]:
    """Frames of the captures that there are, of different lengths."""
    for path in sorted(each for place in CAPTURES for each in place.rglob("*.pcap*") if each.suffix != ".gz"):
        seen: set[int] = set()
        for frame in capture.read(path):
            if len(frame.data) <= LONGEST and len(frame.data) not in seen and len(seen) < FRAMES_PER_CAPTURE:
                seen.add(len(frame.data))
                yield frame.data


def histories() -> Iterator[bytes]:
    """For the agent: act numbers with choices behind them, as agent_target.Life takes them."""
    for act in range(16):
        yield bytes((act, 0, 0, 0, 0, 0, 0, 0, 0, 0))
    learnt = bytes((0, 0, 0, 0, 0, 8, 0, 0)) + bytes((0, 1, 0, 0, 0, 8, 1, 0))
    for act in range(16):
        yield learnt + bytes((6, 0, act, 1, 0, 0, 0, 1, 0, 0)) + learnt + bytes((13, 6, 4))


def seeds(target: str) -> Iterator[bytes]:
    """A corpus for one of the targets."""
    match target:
        case "agent":
            yield from histories()
        case "pieces":
            yield from (
                bytes((0x18, 0, 16, 1)) + bytes((0x10 | what, 2, 24, 1, 0xE6, 0, 0, 0)) for what in range(16)
            )
            yield from packets()
        case "vim":
            yield from conversations()
        case "gtpu_message":
            yield from messages()
        case "icmp":
            yield from _inner()
            yield from (packet[20:] for packet in _inner())
        case "too_big":
            for packet in (*_inner(), *(packet + bytes(120) for packet in packets())):
                yield bytes(12) + (b"\x08\0" if packet[0] >> 4 == 4 else b"\x86\xdd") + packet
        case "inet":
            yield from (*frames(), *packets(), *_inner())
            yield from (bytes((packet[9],)) + packet[20:] for packet in _inner())
        case _:
            yield from packets()
