"""tof.lab.rewrite: what is replaced is replaced everywhere, and every checksum keeps its standing."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.l2 import ARP, Ether

from tof.errors import DecodeError, SetupError
from tof.lab import capture, rewrite
from tof.lab.capture import Frame
from tof.lab.rewrite import Rewriting
from tof.model import Side
from tof.wire import gtpu, inet

CAPTURES = Path(__file__).parents[3] / "shared" / "pcaps"
E, S = Side.ENB, Side.SGW


def ip(text: str) -> bytes:
    return ip_address(text).packed


def packed(*texts: str) -> dict[bytes, bytes]:
    return rewrite.address_pairs(texts)


def user(source: str = "10.45.0.2", destination: str = "8.8.8.8", protocol: int = 17, size: int = 9) -> bytes:
    ends = ip(source), ip(destination)
    segment = inet.fill_checksum(*ends, protocol, bytes(range(1, size + 1)) + bytes(20))
    if len(ends[0]) == 4:
        return inet.encode_ipv4(inet.IPv4(*ends, protocol, segment))
    return inet.encode_ipv6(inet.IPv6(*ends, protocol, segment))


def ethernet(
    packet: bytes, *, macs: tuple[int, int] = (1, 2), vlan: int | None = None, kind: int = 0
) -> bytes:
    ethertype = kind or (inet.ETHERTYPE_IPV4 if packet[:1] < b"\x60" else inet.ETHERTYPE_IPV6)
    tags = () if vlan is None else ((0x8100, vlan),)
    source, destination = (bytes((2, 0, 0, 0, 0, mac)) for mac in macs)
    return inet.encode_ethernet(inet.Ethernet(destination, source, ethertype, packet, tags))


def gpdu(
    source: str,
    destination: str,
    payload: bytes,
    *,
    teid: int = 1,
    kind: int = 255,
    checksum: bool = True,
    **more: int,
) -> bytes:
    ends = ip(source), ip(destination)
    message = gtpu.Message(
        0x30, kind, teid, 7, extensions=(gtpu.Extension(0x85, b"\x10\x09"),), payload=payload
    )
    datagram = inet.encode_udp(inet.UDP(2152, 2152, gtpu.encode(message)))
    if checksum:
        datagram = inet.fill_checksum(*ends, 17, datagram)
    if len(ends[0]) == 4:
        return inet.encode_ipv4(inet.IPv4(*ends, 17, datagram, **more))
    return inet.encode_ipv6(inet.IPv6(*ends, 17, datagram))


RULES = Rewriting(
    addresses=packed("192.0.2.1=192.0.2.77", "2001:db8::1=2001:db8::77"),
    teids={1: 0xCAFE0001},
    ues=packed("10.45.0.2=10.99.0.2", "2001:db8:45::/64=2001:db8:99::/64"),
)


@pytest.mark.parametrize("inner", ["10.45.0.2", "2001:db8:45::5"])
@pytest.mark.parametrize("protocol", [1, 6, 17, 58, 50])
@pytest.mark.parametrize("outer", [("192.0.2.1", "192.0.2.2"), ("2001:db8::1", "2001:db8::2")])
def test_everything_is_replaced_and_all_checksums_are_right(
    inner: str, protocol: int, outer: tuple[str, str]
) -> None:
    peer = "8.8.8.8" if "." in inner else "2001:4860::8"
    before = ethernet(gpdu(*outer, user(inner, peer, protocol)), vlan=5) + b"padding"
    new = {"10.45.0.2": "10.99.0.2", "2001:db8:45::5": "2001:db8:99::5"}[inner]
    moved = {"192.0.2.1": "192.0.2.77", "2001:db8::1": "2001:db8::77"}[outer[0]]
    expected = (
        ethernet(gpdu(moved, outer[1], user(new, peer, protocol), teid=0xCAFE0001), vlan=5) + b"padding"
    )
    assert rewrite.rewrite(before, RULES) == expected
    back = Rewriting(
        {v: k for k, v in RULES.addresses.items()}, {0xCAFE0001: 1}, {v: k for k, v in RULES.ues.items()}
    )
    assert rewrite.rewrite(expected, back) == before


def test_destinations_are_replaced_too() -> None:
    before = ethernet(gpdu("192.0.2.2", "192.0.2.1", user("8.8.8.8", "10.45.0.2")))
    expected = ethernet(gpdu("192.0.2.2", "192.0.2.77", user("8.8.8.8", "10.99.0.2"), teid=0xCAFE0001))
    assert rewrite.rewrite(before, RULES) == expected


def test_udp_checksum_that_is_absent_stays_absent() -> None:
    before = ethernet(gpdu("192.0.2.1", "192.0.2.2", user(), checksum=False))
    expected = ethernet(gpdu("192.0.2.77", "192.0.2.2", user("10.99.0.2"), teid=0xCAFE0001, checksum=False))
    assert rewrite.rewrite(before, RULES) == expected


def test_udp_checksum_that_is_partial_stays_partial() -> None:
    def partial(data: bytes) -> bytes:
        datagram = data[34:]
        pseudo = inet.ones_sum(inet.pseudo_header(data[26:30], data[30:34], 17, len(datagram)))
        return data[:40] + pseudo.to_bytes(2, "big") + data[42:]

    before = partial(ethernet(gpdu("192.0.2.1", "192.0.2.2", user())))
    expected = partial(ethernet(gpdu("192.0.2.77", "192.0.2.2", user("10.99.0.2"), teid=0xCAFE0001)))
    assert rewrite.rewrite(before, RULES) == expected


def test_udp_checksum_that_is_wrong_stays_wrong() -> None:
    before = bytearray(ethernet(gpdu("192.0.2.1", "192.0.2.2", user())))
    before[40] ^= 0x55
    after = rewrite.rewrite(bytes(before), RULES)
    assert inet.fill_checksum(after[26:30], after[30:34], 17, after[34:]) != after[34:]


def test_fragments_are_replaced_as_their_whole_would_be() -> None:
    def fragments(packet: bytes) -> list[bytes]:
        whole = inet.decode_ipv4(packet)
        pieces = (
            whole._replace(payload=whole.payload[:72], flags=1),
            whole._replace(payload=whole.payload[72:], offset=72),
        )
        return [ethernet(inet.encode_ipv4(piece)) for piece in pieces]

    before = fragments(gpdu("192.0.2.1", "192.0.2.2", user(size=60)))
    after = fragments(gpdu("192.0.2.77", "192.0.2.2", user("10.99.0.2", size=60), teid=0xCAFE0001))
    assert [rewrite.rewrite(data, RULES) for data in before] == after


def test_messages_without_user_packet() -> None:
    for kind, payload in ((gtpu.END_MARKER, user()), (gtpu.G_PDU, b"no IP")):
        before = ethernet(gpdu("192.0.2.2", "192.0.2.1", payload, kind=kind))
        after = ethernet(gpdu("192.0.2.2", "192.0.2.77", payload, kind=kind, teid=0xCAFE0001))
        assert rewrite.rewrite(before, RULES) == after


def test_user_packet_too_short_for_its_checksum() -> None:
    short = inet.encode_ipv4(inet.IPv4(ip("10.45.0.2"), ip("8.8.8.8"), 17, b"1234"))
    new = inet.encode_ipv4(inet.IPv4(ip("10.99.0.2"), ip("8.8.8.8"), 17, b"1234"))
    before = ethernet(gpdu("192.0.2.2", "192.0.2.1", short))
    assert rewrite.rewrite(before, RULES) == ethernet(gpdu("192.0.2.2", "192.0.2.77", new, teid=0xCAFE0001))


def test_other_traffic() -> None:
    tcp = inet.encode_ipv4(inet.IPv4(ip("192.0.2.1"), ip("192.0.2.2"), 6, bytes(20)))
    moved = inet.encode_ipv4(inet.IPv4(ip("192.0.2.77"), ip("192.0.2.2"), 6, bytes(20)))
    assert rewrite.rewrite(ethernet(tcp), RULES) == ethernet(moved)
    arp = Ether(src="02:00:00:00:00:01") / ARP(psrc="192.0.2.2", pdst="192.0.2.1")
    rewritten = Ether(rewrite.rewrite(bytes(arp), RULES))
    assert (rewritten.psrc, rewritten.pdst) == ("192.0.2.2", "192.0.2.77")
    for untouched in (
        b"short",
        ethernet(b"lldp", kind=0x88CC),
        ethernet(b"\x45bad"),
        ethernet(b"x", kind=0x806),
    ):
        assert rewrite.rewrite(untouched, RULES) == untouched


def test_fix_repairs_outer_ipv4_header_checksums_only() -> None:
    good = ethernet(gpdu("192.0.2.1", "192.0.2.2", user()))
    bad = good[:24] + b"\0\0" + good[26:]
    assert rewrite.rewrite(bad, Rewriting()) == bad
    assert rewrite.rewrite(bad, Rewriting(fix=True)) == good
    inner_bad = good[:-20] + b"\xff" + good[-19:]
    assert rewrite.rewrite(inner_bad, Rewriting(fix=True)) == inner_bad


@given(st.binary(max_size=80), st.sampled_from([b"", bytes(12) + b"\x08\0\x45", bytes(12) + b"\x86\xdd\x60"]))
def test_any_bytes_keep_their_length(data: bytes, start: bytes) -> None:
    assert len(rewrite.rewrite(start + data, RULES)) == len(start + data)


def test_pairs() -> None:
    assert rewrite.teid_pairs(["1=0x2", "3=4"]) == {1: 2, 3: 4}
    assert rewrite.address_pairs(["::1=::2"]) == {ip("::1"): ip("::2")}
    assert rewrite.address_pairs(["2001:db8::/64=fd00::/64"]) == {ip("2001:db8::")[:8]: ip("fd00::")[:8]}
    for text in ("1", "1=x", "1=2=3", "1=4294967296", "-1=1"):
        with pytest.raises(SetupError):
            rewrite.teid_pairs([text])
    for text in ("10.0.0.1", "10.0.0.1=x", "10.0.0.1=::1", "10.0.0.0/24=10.1.0.0/24", "fd00::/48=fd01::/48"):
        with pytest.raises(SetupError):
            rewrite.address_pairs([text])


def numbered(*datas: bytes) -> list[Frame]:
    return [Frame(number, 0, data, len(data)) for number, data in enumerate(datas, 1)]


def arp(sender: str, target: str, macs: tuple[int, int]) -> bytes:
    packet = ARP(psrc=sender, pdst=target)
    source, destination = (f"02:00:00:00:00:{mac:02x}" for mac in macs)
    return bytes(Ether(src=source, dst=destination) / packet)


def test_sides_of_a_pair_and_of_what_goes_with_it() -> None:
    frames = numbered(
        arp("192.0.2.2", "192.0.2.1", (2, 1)),
        ethernet(inet.encode_ipv6(inet.IPv6(ip("fe80::1"), ip("ff02::2"), 58, b"")), macs=(1, 0x33)),
        ethernet(gpdu("192.0.2.2", "192.0.2.1", b"x", kind=1), macs=(2, 1)),
        ethernet(gpdu("192.0.2.1", "192.0.2.2", user()), macs=(1, 2)),
        ethernet(gpdu("192.0.2.2", "192.0.2.1", user()), macs=(2, 1)),
        ethernet(b"lldp", macs=(2, 0x0E), kind=0x88CC),
        ethernet(gpdu("192.0.2.9", "192.0.2.2", user()), macs=(9, 2)),
        ethernet(b"\0", macs=(0x55, 2), kind=0x88CC),
        ethernet(inet.encode_ipv4(inet.IPv4(ip("192.0.2.50"), ip("192.0.2.1"), 1, b"")), macs=(0x66, 0x67)),
        b"runt",
    )
    enbs = rewrite.find_enbs(frames)
    assert enbs == {ip("192.0.2.1"), ip("192.0.2.9")}
    assert rewrite.sides(frames, enbs) == [S, E, S, E, S, S, E, E, S, E]


def test_named_enbs_decide() -> None:
    frames = numbered(
        ethernet(gpdu("192.0.2.1", "192.0.2.2", user()), macs=(1, 2)),
        ethernet(gpdu("192.0.2.2", "192.0.2.1", user()), macs=(2, 1)),
    )
    assert rewrite.sides(frames, {ip("192.0.2.2")}) == [S, E]


def test_pairs_that_share_no_node_each_have_an_enb() -> None:
    frames = numbered(
        ethernet(gpdu("192.0.2.4", "192.0.2.3", b"", kind=1), macs=(4, 3)),
        ethernet(gpdu("192.0.2.3", "192.0.2.4", b"", kind=2), macs=(3, 4)),
        ethernet(gpdu("192.0.2.1", "192.0.2.2", user()), macs=(1, 2)),
    )
    assert rewrite.find_enbs(frames) == {ip("192.0.2.1"), ip("192.0.2.4")}
    assert rewrite.sides(frames, rewrite.find_enbs(frames)) == [E, S, E]


def test_strangers_stand_across_from_each_other() -> None:
    frames = numbered(arp("10.0.0.1", "10.0.0.2", (1, 2)), arp("10.0.0.2", "10.0.0.1", (2, 1)))
    assert rewrite.find_enbs(frames) == frozenset()
    assert rewrite.sides(frames, ()) == [E, S]
    assert rewrite.sides(numbered(b""), ()) == [E]


def test_real_captures_never_have_a_mac_address_on_both_sides() -> None:
    if not CAPTURES.is_dir():
        pytest.skip("no shared captures beside the checkout")
    for path in sorted(CAPTURES.glob("*/*.pcap")):
        frames = capture.read(path)
        sides = rewrite.sides(frames, rewrite.find_enbs(frames))
        sources = {
            side: {f.data[6:12] for f, s in zip(frames, sides, strict=True) if s is side} for side in Side
        }
        assert not sources[E] & sources[S], path
        for frame, side in zip(frames, sides, strict=True):
            assert frame.data[:6] not in sources[side], (path, frame.number)


def test_real_captures_rewritten_and_back() -> None:
    if not CAPTURES.is_dir():
        pytest.skip("no shared captures beside the checkout")
    there = Rewriting(packed("10.98.0.1=172.16.0.1"), {1: 2, 0xAF35: 3}, packed("10.45.0.2=10.77.0.9"))
    back = Rewriting(packed("172.16.0.1=10.98.0.1"), {2: 1, 3: 0xAF35}, packed("10.77.0.9=10.45.0.2"))
    for path in sorted((CAPTURES / "recorded").glob("*.pcap")):
        for frame in capture.read(path):
            moved = rewrite.rewrite(frame.data, there)
            assert rewrite.rewrite(moved, back) == frame.data, (path, frame.number)
            payload = inet.decode_ethernet(moved).payload
            assert payload[0] >> 4 != 4 or inet.checksum(payload[:20]) == 0
            try:
                inner = gtpu.decode_gpdu(payload).message.payload
            except DecodeError:
                continue
            assert inet.checksum(inner[:20]) == 0
