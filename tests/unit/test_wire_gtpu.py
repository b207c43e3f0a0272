"""tof.wire.gtpu: TS 29.281 byte by byte, real captures, scapy's GTP layer as an independent oracle."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from pathlib import Path
from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.contrib.gtp import GTP_U_Header, GTPPDUSessionContainer
from scapy.layers.inet import UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment
from scapy.layers.l2 import Ether
from scapy.packet import Raw
from scapy.utils import rdpcap

from tof.errors import DecodeError
from tof.wire import gtpu, inet
from tof.wire.gtpu import Extension, Message

CAPTURES = Path(__file__).parents[3] / "shared" / "pcaps"
A4, B4 = bytes((192, 0, 2, 1)), bytes((198, 51, 100, 7))
A6, B6 = bytes.fromhex("20010db8") + bytes(11) + b"\1", bytes.fromhex("20010db8") + bytes(11) + b"\2"
USER4 = inet.encode_ipv4(inet.IPv4(bytes((10, 45, 0, 2)), bytes((8, 8, 8, 8)), 17, b"12345678"))
USER6 = inet.encode_ipv6(inet.IPv6(A6, B6, 17, b"12345678"))
u8, u16 = st.integers(0, 255), st.integers(0, 65535)
contents = st.integers(1, 6).flatmap(lambda n: st.binary(min_size=4 * n - 2, max_size=4 * n - 2))
messages = st.builds(
    Message,
    st.just(0x30),
    u8,
    st.integers(0, 2**32 - 1),
    st.none() | u16,
    st.none() | u8,
    st.lists(st.builds(Extension, st.integers(1, 255), contents), max_size=4).map(tuple),
    st.binary(max_size=64),
)


def reason(call: object, *args: object, **options: object) -> str:
    with pytest.raises(DecodeError) as caught:
        call(*args, **options)  # type: ignore[operator]
    return caught.value.reason


def outer(payload: bytes, *, port: int = 2152, flags: int = 0, offset: int = 0, protocol: int = 17) -> bytes:
    datagram = inet.encode_udp(inet.UDP(5906, port, payload))
    return inet.encode_ipv4(inet.IPv4(A4, B4, protocol, datagram, tos=0xB8, flags=flags, offset=offset))


@given(messages)
def test_there_and_back(message: Message) -> None:
    data = gtpu.encode(message)
    decoded = gtpu.decode(data)
    assert decoded == message._replace(flags=decoded.flags)
    assert gtpu.encode(decoded) == data
    assert bool(decoded.flags & 4) == bool(message.extensions)
    assert bool(decoded.flags & 2) == (message.sequence is not None)
    assert bool(decoded.flags & 1) == (message.npdu is not None)


@given(st.binary(max_size=60), st.sampled_from([b"", b"\x30\xff", b"\x34\xff", b"\x37\xff"]))
def test_any_bytes_decode_or_raise(data: bytes, start: bytes) -> None:
    packets = (start + data, outer(start + data), outer(pack("!BBHI", 0x37, 255, len(data), 1) + data))
    for packet in packets:
        for partial_ok in (False, True):
            with suppress(DecodeError):
                gtpu.decode_gpdu(packet, partial_ok=partial_ok)
        with suppress(DecodeError):
            message = gtpu.decode(packet)
            gtpu.recovery(message)
            gtpu.error_indication(message)


@given(
    st.sampled_from([USER4, USER6, b"\x45", b"\x60" + bytes(3) + b"\0\x10\0"]),
    st.binary(max_size=70),
    st.booleans(),
)
def test_any_inner_bytes_decode_or_raise(start: bytes, data: bytes, cut: bool) -> None:
    with suppress(DecodeError):
        gtpu.inner(start + data, cut=cut)


def test_plain_header() -> None:
    message = gtpu.decode(bytes.fromhex("30ff0002deadbeef") + b"xy")
    assert message == Message(0x30, gtpu.G_PDU, 0xDEADBEEF, payload=b"xy")
    assert (message.qfi, message.pdu_type) == (None, None)


@pytest.mark.parametrize(
    ("flags", "sequence", "npdu"),
    [(0x31, None, 9), (0x32, 0x0102, None), (0x33, 0x0102, 9), (0x3A, 0x0102, None)],
)
def test_optional_octets_mean_something_only_with_their_flag(
    flags: int, sequence: int | None, npdu: int | None
) -> None:
    # The next extension type (0x85 here) counts only with E.
    message = gtpu.decode(bytes((flags, 255)) + bytes.fromhex("0005000000070102098541"))[:]
    assert message == (flags, 255, 7, sequence, npdu, (), b"A")


def test_e_flag_without_extensions_survives() -> None:
    data = bytes.fromhex("34ff000400000007 00000000")
    assert gtpu.encode(gtpu.decode(data)) == data


def test_chain_of_extensions() -> None:
    data = bytes.fromhex(
        "34ff00 14 00000001 000000c0 01 1234 40 01 0868 85 02 100900000000 00".replace(" ", "")
    )
    message = gtpu.decode(data)
    assert message.extensions == (
        Extension(gtpu.PDCP_PDU_NUMBER, b"\x12\x34"),
        Extension(gtpu.EXTENSION_UDP_PORT, b"\x08\x68"),
        Extension(gtpu.PDU_SESSION_CONTAINER, bytes.fromhex("100900000000")),
    )
    assert (message.qfi, message.pdu_type, message.payload) == (9, 1, b"")
    assert gtpu.encode(message) == data


def test_qfi_is_six_bits_of_the_first_container() -> None:
    first, second = Extension(0x85, b"\x00\xff"), Extension(0x85, b"\x10\x01")
    message = Message(0x34, 255, 1, extensions=(Extension(0xC0, b"\0\0"), first, second))
    assert (message.qfi, message.pdu_type) == (63, 0)
    assert Message(0x34, 255, 1, extensions=(Extension(0x85, b"\0"),)).qfi is None


def test_encode_pads_extension_contents() -> None:
    assert gtpu.encode(Message(0x30, 255, 1, extensions=(Extension(0x85, b"\0\x09\x01"),)))[
        12:
    ] == bytes.fromhex("0200090100000000")
    assert gtpu.encode(Message(0x30, 255, 1, extensions=(Extension(0x85, b""),)))[12:] == bytes.fromhex(
        "01000000"
    )


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ("", "gtpu_truncated"),
        ("30ff0000000000", "gtpu_truncated"),
        ("48ff000000000001", "gtpu_version"),
        ("20ff000000000001", "gtpu_gtp_prime"),
        ("30ff000100000001", "gtpu_length"),
        ("30ff00000000000100", "gtpu_length"),
        ("32ff000300000001000000", "gtpu_truncated"),
        ("34ff00040000000100000085", "gtpu_extension_truncated"),
        ("34ff0008000000010000008500000000", "gtpu_extension_length"),
        ("34ff0008000000010000008502000000", "gtpu_extension_truncated"),
        ("34ff0008000000010000008501000985", "gtpu_extension_truncated"),
    ],
)
def test_refusals(data: str, why: str) -> None:
    assert reason(gtpu.decode, bytes.fromhex(data)) == why
    assert reason(gtpu.decode_gpdu, outer(bytes.fromhex(data))) == why


@given(messages, u16)
def test_decode_gpdu_ipv4_and_ipv6(message: Message, port: int) -> None:
    data = gtpu.encode(message)
    expected = gtpu.decode(data)
    datagram = inet.encode_udp(inet.UDP(port, 2152, data))
    v4 = inet.encode_ipv4(inet.IPv4(A4, B4, 17, datagram, tos=0xB8, options=b"\1\1\1\0"))
    assert gtpu.decode_gpdu(v4 + b"padding") == (A4, B4, 0xB8, port, expected)
    v6 = inet.encode_ipv6(inet.IPv6(A6, B6, 17, datagram, tos=0xB8))
    assert gtpu.decode_gpdu(v6) == (A6, B6, 0xB8, port, expected)


def test_decode_gpdu_refusals() -> None:
    good = outer(gtpu.encode(Message(0x30, 255, 1, payload=USER4)))
    assert reason(gtpu.decode_gpdu, good[:19]) == "ip_truncated"
    assert reason(gtpu.decode_gpdu, b"\x50" + good[1:]) == "ip_version"
    assert reason(gtpu.decode_gpdu, b"\x60" + good[1:39]) == "ip_truncated"
    assert reason(gtpu.decode_gpdu, b"\x44" + good[1:]) == "ip_length"
    assert reason(gtpu.decode_gpdu, good[:-1]) == "ip_length"
    assert reason(gtpu.decode_gpdu, outer(USER4, protocol=6)) == "ip_protocol"
    assert reason(gtpu.decode_gpdu, outer(USER4, port=53)) == "udp_port"
    short = inet.encode_ipv4(inet.IPv4(A4, B4, 17, bytes(7)))
    assert reason(gtpu.decode_gpdu, short) == "udp_truncated"
    long = inet.encode_ipv4(inet.IPv4(A4, B4, 17, inet.encode_udp(inet.UDP(1, 2152, USER4)) + b"x"))
    assert reason(gtpu.decode_gpdu, long) == "udp_length"
    v6 = inet.encode_ipv6(inet.IPv6(A6, B6, 17, inet.encode_udp(inet.UDP(1, 2152, USER4))))
    assert reason(gtpu.decode_gpdu, v6[:-1]) == "ip_length"


def test_answers_go_to_any_port() -> None:
    """TS 29.281 section 4.4.2; what else comes from port 2152 may be anything."""

    def sent(data: bytes, source: int = 2152, more: bytes = b"") -> bytes:
        return inet.encode_ipv4(inet.IPv4(A4, B4, 17, inet.encode_udp(inet.UDP(source, 5906, data)) + more))

    for kind in (gtpu.ERROR_INDICATION, gtpu.ECHO_RESPONSE):
        message = Message(0x32, kind, 7, 0, payload=b"\x10\0\0\0\1")
        data = gtpu.encode(message)
        assert gtpu.decode_gpdu(sent(data)).message == message
        assert reason(gtpu.decode_gpdu, sent(data, 2153)) == "udp_port"
        assert reason(gtpu.decode_gpdu, sent(b"\x22" + data[1:])) == "udp_port"
        assert reason(gtpu.decode_gpdu, sent(data + b"x")) == "gtpu_length"
        assert reason(gtpu.decode_gpdu, sent(data)[:-1], partial_ok=True) == "udp_port"
    for data in (gtpu.encode(Message(0x30, kind, 1, payload=USER4)) for kind in (255, 254, 1)):
        assert reason(gtpu.decode_gpdu, sent(data)) == "udp_port"
    assert reason(gtpu.decode_gpdu, sent(b"\x30")) == "udp_port"


def test_fragments_ipv4() -> None:
    whole = inet.encode_udp(inet.UDP(2152, 2152, gtpu.encode(Message(0x30, 255, 5, payload=USER4))))
    first = inet.encode_ipv4(inet.IPv4(A4, B4, 17, whole[:40], flags=inet.MORE_FRAGMENTS))
    assert reason(gtpu.decode_gpdu, first) == "ip_fragment"
    datagram = gtpu.decode_gpdu(first, partial_ok=True)
    assert (datagram.message.teid, datagram.message.payload) == (5, USER4[:24])
    assert gtpu.inner(datagram.message.payload, cut=True).source == bytes((10, 45, 0, 2))
    assert reason(gtpu.inner, datagram.message.payload) == "inner_length"
    later = inet.encode_ipv4(inet.IPv4(A4, B4, 17, whole[40:], offset=40))
    assert reason(gtpu.decode_gpdu, later, partial_ok=True) == "ip_fragment"


def test_first_fragment_lengths_may_exceed_but_not_fall_short() -> None:
    body = gtpu.encode(Message(0x30, 255, 5, payload=USER4))
    short_udp = inet.encode_udp(inet.UDP(1, 2152, body)) + b"x"
    first = inet.encode_ipv4(inet.IPv4(A4, B4, 17, short_udp, flags=inet.MORE_FRAGMENTS))
    assert reason(gtpu.decode_gpdu, first, partial_ok=True) == "udp_length"
    assert reason(gtpu.decode_gpdu, outer(body + b"x", flags=1), partial_ok=True) == "gtpu_length"
    # The leniency is for fragments only.
    assert reason(gtpu.decode_gpdu, outer(body + b"x"), partial_ok=True) == "gtpu_length"


def test_fragments_ipv6_against_scapy() -> None:
    gpdu = gtpu.encode(Message(0x30, 255, 5, payload=USER6))
    udp = UDP(sport=1, dport=2152) / gpdu
    addresses = {"src": "2001:db8::1", "dst": "2001:db8::2"}
    first = bytes(IPv6(**addresses) / IPv6ExtHdrFragment(nh=17, m=1) / bytes(udp)[:56])
    assert gtpu.decode_gpdu(first, partial_ok=True).message.teid == 5
    assert reason(gtpu.decode_gpdu, first) == "ip_fragment"
    later = bytes(IPv6(**addresses) / IPv6ExtHdrFragment(nh=17, offset=7) / b"later")
    assert reason(gtpu.decode_gpdu, later, partial_ok=True) == "ip_fragment"
    options = bytes(IPv6(**addresses) / IPv6ExtHdrDestOpt() / udp)
    assert gtpu.decode_gpdu(options).source == A6


def test_inner() -> None:
    assert gtpu.inner(USER4) == (bytes((10, 45, 0, 2)), bytes((8, 8, 8, 8)), 17, 20)
    assert gtpu.inner(USER6 + b"trailer") == (A6, B6, 17, 40)
    options = inet.encode_ipv4(inet.IPv4(A4, B4, 6, b"", options=bytes(8)))
    assert gtpu.inner(options) == (A4, B4, 6, 28)
    extended = bytes(IPv6(src="2001:db8::1", dst="2001:db8::2") / IPv6ExtHdrDestOpt() / UDP())
    assert gtpu.inner(extended) == (A6, B6, 17, 48)


def test_inner_later_fragments_have_no_upper_layer() -> None:
    assert gtpu.inner(inet.encode_ipv4(inet.IPv4(A4, B4, 6, bytes(8), offset=8))) == (A4, B4, 44, 20)
    assert gtpu.inner(inet.encode_ipv4(inet.IPv4(A4, B4, 6, bytes(8), flags=1))).protocol == 6
    later = bytes(IPv6(src="2001:db8::1", dst="2001:db8::2") / IPv6ExtHdrFragment(nh=6, offset=3) / b"x")
    assert gtpu.inner(later) == (A6, B6, 44, 48)


def test_inner_refusals() -> None:
    assert reason(gtpu.inner, b"") == "inner_not_ip"
    assert reason(gtpu.inner, b"\x30\xff" + bytes(40)) == "inner_not_ip"
    assert reason(gtpu.inner, USER4[:19], cut=True) == "inner_truncated"
    assert reason(gtpu.inner, USER6[:39], cut=True) == "inner_truncated"
    assert reason(gtpu.inner, USER4[:-1]) == "inner_length"
    assert reason(gtpu.inner, b"\x44" + USER4[1:]) == "inner_length"
    assert reason(gtpu.inner, USER6[:-1]) == "inner_length"
    assert gtpu.inner(USER6[:-1], cut=True).destination == B6
    chain = inet.encode_ipv6(inet.IPv6(A6, B6, 17, b"1234567", next_header=0))
    assert reason(gtpu.inner, chain) == "inner_truncated"


def test_error_indication_in_its_three_shapes() -> None:
    elements = bytes.fromhex("10 00000007 85 0004 c0000201".replace(" ", ""))
    full = Message(0x32, gtpu.ERROR_INDICATION, 0, 0, payload=elements)
    assert gtpu.error_indication(gtpu.decode(gtpu.encode(full))) == (7, A4)
    by_header = Message(0x36, 26, 9, 0, extensions=(Extension(0x40, b"\x08\x68"),), payload=elements[5:])
    assert gtpu.error_indication(by_header) == (9, A4)
    assert gtpu.error_indication(Message(0x30, 26, 9)) == (9, None)
    assert gtpu.error_indication(Message(0x30, 26, 9, payload=b"\x85\x00\x10" + A6)) == (9, A6)


def test_information_elements_refusals_and_unknowns() -> None:
    assert (
        reason(gtpu.error_indication, Message(0x30, 26, 9, payload=b"\x85\x00\x01\x01")) == "gtpu_ie_length"
    )
    assert reason(gtpu.error_indication, Message(0x30, 26, 9, payload=b"\x10\x00")) == "gtpu_ie_truncated"
    assert reason(gtpu.recovery, Message(0x32, 2, 0, payload=b"\xff\x00")) == "gtpu_ie_truncated"
    private_then_recovery = Message(0x32, 2, 0, payload=b"\xff\x00\x02ab\x0e\x05")
    assert gtpu.recovery(private_then_recovery) == 5
    assert gtpu.recovery(Message(0x32, 2, 0)) is None
    assert gtpu.recovery(Message(0x32, 2, 0, payload=b"\x0e\x07\x0e\x08")) == 7
    assert gtpu.recovery(Message(0x32, 2, 0, payload=b"\x0f\x0e\x07")) is None


@given(
    st.integers(0, 2**32 - 1),
    st.none() | u16,
    st.none() | u8,
    st.none() | st.integers(0, 63),
    st.sampled_from([0, 1]),
)
def test_scapy_reads_what_we_write(
    teid: int, sequence: int | None, npdu: int | None, qfi: int | None, pdu_type: int
) -> None:
    extensions = () if qfi is None else (Extension(0x85, bytes((pdu_type << 4, qfi))),)
    message = Message(0x30, 255, teid, sequence, npdu, extensions, USER4)
    theirs = GTP_U_Header(gtpu.encode(message))
    assert (theirs.teid, theirs.gtp_type, theirs.S, theirs.PN) == (
        teid,
        255,
        sequence is not None,
        npdu is not None,
    )
    assert sequence is None or theirs.seq == sequence
    assert npdu is None or theirs.npdu == npdu
    if qfi is not None:
        assert (theirs[GTPPDUSessionContainer].QFI, theirs[GTPPDUSessionContainer].type) == (qfi, pdu_type)
    assert bytes(theirs).endswith(USER4)


@given(st.integers(0, 2**32 - 1), u16, st.integers(0, 63))
def test_we_read_what_scapy_writes(teid: int, sequence: int, qfi: int) -> None:
    theirs = (
        GTP_U_Header(teid=teid, gtp_type=255, S=1, seq=sequence)
        / GTPPDUSessionContainer(type=1, QFI=qfi)
        / Raw(USER4)
    )
    message = gtpu.decode(bytes(theirs))
    assert (message.teid, message.sequence, message.qfi, message.pdu_type) == (teid, sequence, qfi, 1)
    assert message.payload == USER4


def test_real_captures_against_scapy() -> None:
    if not CAPTURES.is_dir():
        pytest.skip("no shared captures beside the checkout")
    seen: Counter[str] = Counter()
    for path in sorted(CAPTURES.glob("*/*.pcap")):
        for packet in rdpcap(str(path)):
            frame = inet.decode_ethernet(bytes(packet))
            try:
                datagram = gtpu.decode_gpdu(frame.payload)
            except DecodeError as error:
                seen[error.reason] += 1
                continue
            theirs = Ether(bytes(packet))[GTP_U_Header]
            assert (datagram.message.type, datagram.message.teid) == (theirs.gtp_type, theirs.teid), path
            assert (
                gtpu.encode(datagram.message)
                == inet.decode_udp(inet.decode_ipv4(frame.payload).payload).payload
            )
            if datagram.message.type == gtpu.G_PDU:
                gtpu.inner(datagram.message.payload)
            else:
                gtpu.error_indication(datagram.message)
                gtpu.recovery(datagram.message)
            seen[f"{datagram.message.type}"] += 1
    assert seen["255"] == 312
    assert set(seen) == {
        "255",
        "26",
        "1",
        "2",
        "ip_fragment",
        "ip_protocol",
        "ip_version",
        "udp_port",
        "gtpu_length",
    }
