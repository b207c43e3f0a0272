"""tof.lab.verdict: every outcome, one by one; the tunnels of the real captures, checked against tshark."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tof.lab import capture, rewrite, verdict
from tof.lab.capture import Frame
from tof.lab.verdict import Outcome, Received, Sent
from tof.model import Side, TunnelKey
from tof.wire import gtpu, inet

CAPTURES = Path(__file__).parents[3] / "shared" / "pcaps"
E, S = Side.ENB, Side.SGW
ENB, SGW = "192.0.2.1", "192.0.2.2"
UE, SERVER = "10.45.0.2", "203.0.113.10"


def ip(text: str) -> bytes:
    return ip_address(text).packed


def user(source: str = UE, destination: str = SERVER, payload: bytes = b"data", protocol: int = 17) -> bytes:
    ends = ip(source), ip(destination)
    segment = payload
    if protocol == 17:
        segment = inet.fill_checksum(*ends, 17, inet.encode_udp(inet.UDP(1000, 2000, payload)))
    if len(ends[0]) == 4:
        return inet.encode_ipv4(inet.IPv4(*ends, protocol, segment))
    return inet.encode_ipv6(inet.IPv6(*ends, protocol, segment))


def ethernet(packet: bytes, kind: int = 0, vlan: int | None = None) -> bytes:
    ethertype = kind or (inet.ETHERTYPE_IPV4 if packet[:1] < b"\x60" else inet.ETHERTYPE_IPV6)
    tags = () if vlan is None else ((0x8100, vlan),)
    return inet.encode_ethernet(inet.Ethernet(b"\2\0\0\0\0\2", b"\2\0\0\0\0\1", ethertype, packet, tags))


def outer(payload: bytes, source: str = ENB, destination: str = SGW, teid: int = 1, kind: int = 255) -> bytes:
    datagram = inet.encode_udp(
        inet.UDP(2152, 2152, gtpu.encode(gtpu.Message(0x30, kind, teid, payload=payload)))
    )
    if ":" in source:
        return inet.encode_ipv6(inet.IPv6(ip(source), ip(destination), 17, datagram))
    return inet.encode_ipv4(inet.IPv4(ip(source), ip(destination), 17, datagram))


def gpdu(number: int = 0, **options: object) -> bytes:
    return ethernet(outer(user(payload=b"packet %d" % number), **options))  # type: ignore[arg-type]


def fragments(packet: bytes, at: int, ident: int = 77) -> list[bytes]:
    whole = inet.decode_ipv4(packet)._replace(identification=ident)
    return [
        ethernet(inet.encode_ipv4(whole._replace(payload=whole.payload[:at], flags=1))),
        ethernet(inet.encode_ipv4(whole._replace(payload=whole.payload[at:], offset=at))),
    ]


def fragments_v6(packet: bytes, at: int) -> list[bytes]:
    whole = inet.decode_ipv6(packet)
    pieces = []
    for offset, more, payload in ((0, 1, whole.payload[:at]), (at, 0, whole.payload[at:])):
        header = bytes((17, 0)) + (offset | more).to_bytes(2, "big") + b"\0\0\0\x09"
        pieces.append(
            ethernet(inet.encode_ipv6(whole._replace(next_header=44, headers=header, payload=payload)))
        )
    return pieces


def sent(*datas: bytes, side: Side = E) -> list[Sent]:
    return [Sent(Frame(number, 0, data, len(data)), side) for number, data in enumerate(datas, 1)]


def outcomes(items: Sequence[Sent], received: Received) -> list[Outcome]:
    return [item.outcome for item in verdict.compare(items, received).verdicts]


def test_identical_on_both_sides() -> None:
    up, down = gpdu(1), gpdu(2, source=SGW, destination=ENB)
    items = sent(up) + sent(down, side=S)
    report = verdict.compare(items, Received(enb=[down], sgw=[up]))
    assert [item.outcome for item in report.verdicts] == [Outcome.IDENTICAL] * 2
    assert [item.side for item in report.verdicts] == [E, S]
    assert (report.ok, report.injected) == (True, ())
    assert report.counts == {
        "sent": 2,
        "identical": 2,
        "changed": 0,
        "diverted": 0,
        "lost": 0,
        "reordered": 0,
        "skipped": 0,
        "injected": 0,
    }


def test_out_of_the_side_it_came_in_is_lost_and_injected() -> None:
    report = verdict.compare(sent(gpdu()), Received(enb=[gpdu()], sgw=[]))
    assert [item.outcome for item in report.verdicts] == [Outcome.LOST]
    assert report.injected == ((E, gpdu()),)
    assert not report.ok


def test_equal_frames_are_told_apart_by_number_only() -> None:
    assert outcomes(sent(gpdu(), gpdu(), gpdu()), Received([], [gpdu(), gpdu()])) == [
        Outcome.IDENTICAL,
        Outcome.IDENTICAL,
        Outcome.LOST,
    ]


@pytest.mark.parametrize(
    "frame",
    [
        gpdu(),
        ethernet(bytes(28), inet.ETHERTYPE_ARP),
        ethernet(inet.encode_ipv6(inet.IPv6(bytes(16), bytes(16), 17, b"12345678"))),
        ethernet(b"\x42\x42\3", 3),
        ethernet(b"lldp", 0x88CC),
    ],
)
def test_padding_is_ignored(frame: bytes) -> None:
    padded = frame + bytes(max(0, 60 - len(frame)))
    assert outcomes(sent(frame), Received([], [padded])) == [Outcome.IDENTICAL]
    assert outcomes(sent(padded), Received([], [frame])) == [Outcome.IDENTICAL]


def test_what_is_no_padding() -> None:
    unknown = ethernet(bytes(60), 0x88CC)
    assert verdict.without_padding(unknown) == unknown
    offloaded = ethernet(b"\x45\0\0\0" + bytes(60))
    assert verdict.without_padding(offloaded) == offloaded
    jumbo = ethernet(b"\x60" + bytes(60))
    assert verdict.without_padding(jumbo) == jumbo
    assert verdict.without_padding(b"runt\0") == b"runt\0"


def test_changed_names_the_bytes() -> None:
    frame = gpdu()
    changed = bytearray(frame)
    changed[22] -= 1
    changed[24] ^= 0xFF
    changed[25] ^= 0xFF
    report = verdict.compare(sent(gpdu(9), frame), Received([], [gpdu(9), bytes(changed)]))
    assert report.verdicts[1] == (2, E, Outcome.CHANGED, ((22, 23), (24, 26)))
    assert (report.ok, report.injected) == (False, ())


def test_changed_length() -> None:
    assert verdict.differences(b"abcd", b"abXdef") == ((2, 3), (4, 6))
    assert verdict.differences(b"abcd", b"ab") == ((2, 4),)
    assert verdict.differences(b"", b"") == ()


def test_unlike_frames_are_no_change() -> None:
    made = ethernet(bytes(range(200)), 0x88CC)
    report = verdict.compare(sent(gpdu()), Received([], [made]))
    assert [item.outcome for item in report.verdicts] == [Outcome.LOST]
    assert report.injected == ((S, made),)


def test_reordered_within_a_tunnel_is_what_arrives_late() -> None:
    one, two, three = gpdu(1), gpdu(2), gpdu(3)
    assert outcomes(sent(one, two, three), Received([], [two, three, one])) == [
        Outcome.REORDERED,
        Outcome.IDENTICAL,
        Outcome.IDENTICAL,
    ]


@pytest.mark.parametrize(
    "other",
    [
        gpdu(2, teid=2),
        gpdu(2, destination="192.0.2.3"),
        gpdu(2, source="192.0.2.3"),
        ethernet(outer(user()), vlan=7),
        ethernet(user()),
    ],
)
def test_other_tunnels_may_overtake(other: bytes) -> None:
    assert outcomes(sent(gpdu(1), other), Received([], [other, gpdu(1)])) == [Outcome.IDENTICAL] * 2


@pytest.mark.parametrize(
    "pieces",
    [
        fragments(outer(user(payload=bytes(200))), 64),
        fragments_v6(outer(user(payload=bytes(200)), "2001:db8::1", "2001:db8::2"), 64),
    ],
)
def test_later_fragments_belong_to_their_first_ones_tunnel(pieces: list[bytes]) -> None:
    first, later = pieces
    assert outcomes(sent(first, later), Received([], [later, first])) == [
        Outcome.REORDERED,
        Outcome.IDENTICAL,
    ]
    # Without a first fragment before it nobody can tell its tunnel.
    assert outcomes(sent(later, first), Received([], [first, later])) == [Outcome.IDENTICAL] * 2


def test_cut_frames_are_skipped() -> None:
    items = [Sent(Frame(1, 0, gpdu()[:50], len(gpdu())), E)]
    report = verdict.compare(items, Received([], []))
    assert (report.verdicts[0].outcome, report.counts["sent"], report.ok) == (Outcome.SKIPPED, 0, True)
    assert verdict.expected_tunnels(items) == {}


def nat(packet: bytes, application: str = "192.168.50.10") -> bytes:
    whole = inet.decode_ipv4(packet)
    segment = inet.fill_checksum(whole.source, ip(application), whole.protocol, whole.payload)
    return ethernet(inet.encode_ipv4(whole._replace(destination=ip(application), ttl=9, payload=segment)))


def tcp(clamped: bool) -> bytes:
    mss = (1400 if clamped else 1460).to_bytes(2, "big")
    return bytes.fromhex("1000 2000 00000001 00000000 6002 ffff 0000 0000 0204") + mss


@pytest.mark.parametrize(
    ("packet", "delivered"),
    [
        (user(), user()),
        (user(protocol=6, payload=tcp(False)), user(protocol=6, payload=tcp(True))),
        (
            user(protocol=1, payload=b"\x08\0\0\0\0\1\0\1ping"),
            user(protocol=1, payload=b"\x08\0\0\0\0\1\0\1ping"),
        ),
        (user(protocol=132, payload=b"sctp"), user(protocol=132, payload=b"sctp")),
    ],
)
def test_diverted_is_what_comes_out_at_the_apps(packet: bytes, delivered: bytes) -> None:
    items = sent(ethernet(outer(packet)), ethernet(outer(packet)))
    report = verdict.compare(items, Received([], [], apps=[nat(delivered), b"runt", ethernet(b"arp", 0x806)]))
    assert [item.outcome for item in report.verdicts] == [Outcome.DIVERTED, Outcome.LOST]
    assert verdict.compare(items[:1], Received([], [], apps=[nat(delivered)])).ok


def test_diverted_ipv6() -> None:
    packet = user("2001:db8::5", "2001:db8:ffff::1")
    assert outcomes(sent(ethernet(outer(packet))), Received([], [], apps=[ethernet(packet)])) == [
        Outcome.DIVERTED
    ]


def test_not_diverted() -> None:
    other = ethernet(b"lldp", 0x88CC)
    signal = ethernet(outer(user(), kind=gtpu.END_MARKER))
    assert outcomes(sent(other, gpdu()), Received([], [], apps=[])) == [Outcome.LOST] * 2
    services = frozenset({ip("198.51.100.1")})
    assert outcomes(sent(other, gpdu(), signal), Received([], [], services=services)) == [Outcome.LOST] * 3


def test_diverted_by_service_when_the_apps_end_is_not_watched() -> None:
    first, later = fragments(outer(user(payload=bytes(200))), 64)
    received = Received([], [], services=frozenset({ip(SERVER)}))
    assert outcomes(sent(gpdu(), first, later), received) == [Outcome.DIVERTED] * 3


def test_injected() -> None:
    report = verdict.compare(sent(gpdu(1)), Received(enb=[gpdu(5)], sgw=[gpdu(1), gpdu(6)]))
    assert report.injected == ((E, gpdu(5)), (S, gpdu(6)))
    assert report.ok


@given(st.lists(st.integers(0, 5), max_size=12), st.randoms(use_true_random=False))
def test_any_loss_and_order_adds_up(numbers: list[int], random: Random) -> None:
    datas = [gpdu(number, teid=number % 2) for number in numbers]
    arriving = random.sample(datas, random.randint(0, len(datas)))
    report = verdict.compare(sent(*datas), Received([], arriving))
    counts = report.counts
    assert counts["identical"] + counts["reordered"] + counts["changed"] == len(arriving)
    assert counts["injected"] == 0
    assert counts["lost"] == len(datas) - len(arriving)
    assert verdict.compare(sent(*datas), Received([], datas)).ok


def key(teid: int = 1, source: str = ENB, destination: str = SGW, vlan: int | None = None) -> TunnelKey:
    return TunnelKey(ip(source), ip(destination), teid, vlan)


def test_expected_tunnels_and_their_ues() -> None:
    six = user("2001:db8:45::5", "2001:4860::8")
    uplink = sent(ethernet(outer(user())), ethernet(outer(user("10.45.0.3"))), ethernet(outer(six), vlan=7))
    downlink = sent(ethernet(outer(user(SERVER, UE), SGW, ENB)), side=S)
    assert verdict.expected_tunnels(uplink + downlink) == {
        key(): {ip("10.45.0.2"), ip("10.45.0.3")},
        key(vlan=7): {ip("2001:db8:45::")[:8]},
        key(source=SGW, destination=ENB): {ip(UE)},
    }


def test_expected_tunnels_from_a_first_fragment() -> None:
    first, later = fragments(outer(user(payload=bytes(200))), 64)
    assert verdict.expected_tunnels(sent(first, later)) == {key(): {ip(UE)}}
    assert verdict.expected_tunnels(sent(later)) == {}


@pytest.mark.parametrize(
    "data",
    [
        ethernet(outer(user(), teid=0)),
        ethernet(outer(user("fe80::1", "ff02::2"))),
        ethernet(outer(b"\0no IP")),
        ethernet(outer(user(), kind=gtpu.END_MARKER)),
        ethernet(outer(user())[:-1]),
        ethernet(user()),
        b"runt",
    ],
)
def test_what_makes_no_tunnel(data: bytes) -> None:
    assert verdict.expected_tunnels(sent(data)) == {}


def load(path: Path) -> list[Sent]:
    frames = capture.read(path)
    return [
        Sent(*pair) for pair in zip(frames, rewrite.sides(frames, rewrite.find_enbs(frames)), strict=True)
    ]


def tshark_tunnels(path: Path) -> set[tuple[str, str, int]]:
    """Every whole or reassembled G-PDU to port 2152 that carries no link-local packet, as tshark sees it."""
    fields = ["ip.src", "ip.dst", "ipv6.src", "gtp.teid"]
    command = ["tshark", "-r", path, "-Y", "gtp.message == 255 && udp.dstport == 2152", "-T", "fields"]
    command += ["-E", "occurrence=a", *(part for name in fields for part in ("-e", name))]
    found = set()
    for line in subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines():
        source, destination, inner6, teid = line.split("\t")
        if "," in source or (inner6 and not inner6.startswith("fe80")):
            found.add((source.split(",")[0], destination.split(",")[0], int(teid, 16)))
    return found


def shared_captures(test: Callable[..., None]) -> Callable[..., None]:
    paths = sorted(CAPTURES.glob("*/*.pcap")) or [None]
    return pytest.mark.parametrize("path", paths, ids=lambda path: path.name if path else "absent")(test)


@shared_captures
def test_tunnels_of_a_real_capture_are_tsharks(path: Path | None) -> None:
    if path is None:
        pytest.skip("no shared captures beside the checkout")
    if not shutil.which("tshark"):
        pytest.skip("tshark is not installed")
    ours = verdict.expected_tunnels(load(path))
    assert {
        (str(ip_address(k.source)), str(ip_address(k.destination)), k.teid) for k in ours
    } == tshark_tunnels(path)


@shared_captures
def test_a_real_capture_that_crossed_untouched_is_identical(path: Path | None) -> None:
    if path is None:
        pytest.skip("no shared captures beside the checkout")
    items = load(path)
    through = {
        side: [item.frame.data + bytes(4) for item in items if item.side is side.other] for side in Side
    }
    report = verdict.compare(items, Received(through[E], through[S]))
    assert report.ok, report.counts
    assert report.counts["identical"] == report.counts["sent"] > 0
