"""The programs in the kernel against the oracle: a bounded run, and what longer ones have found, frame by frame."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import pytest

from tof.drivers import layout
from tof.model import GATEWAY_MAC, service_mac, tunnel_mac
from tof.wire import gtpu, icmp, inet
from tools.bench.scene import scene
from tools.fuzz import oracle as rules
from tools.fuzz.differ import BATCH, Differ
from tools.fuzz.loaded import Loaded
from tools.fuzz.oracle import DROP, PASS, REDIRECT, Oracle, Station
from tools.fuzz.scenario import ELSEWHERE, ENB, ENB_MAC, SERVICE, SGW, SGW_MAC, TOKEN

pytestmark = pytest.mark.netns

UE1, UE2_V6 = bytes((10, 0, 0, 1)), bytes.fromhex("20010db8000200000000000000000001")
SERVICE_V6 = bytes.fromhex("20010db8ffff00000000000000000010")
SEED, PACKETS = 3, 150_000


@pytest.fixture(scope="module")
def devices() -> Iterator[Mapping[str, int]]:
    with scene() as inside:
        yield inside


@pytest.fixture(scope="module")
def loaded(devices: Mapping[str, int]) -> Iterator[Loaded]:
    one = Loaded(devices)
    yield one
    one.close()


Run = Callable[[str, bytes], tuple[int, bytes]]


@pytest.fixture
def run(loaded: Loaded, devices: Mapping[str, int]) -> Run:
    """A program of the S1 adapters or of ue0 on a frame, the scenario being as it begins."""
    oracle = Oracle(((devices["enb"],), (devices["sgw"],)), devices["ue"])
    stations = {ENB_MAC: Station(devices["enb"], 0), SGW_MAC: Station(devices["sgw"], 1)}
    oracle.stations = {(mac, None): station for mac, station in stations.items()}
    loaded.prepare(oracle)
    ports = {"tof_s1_enb": devices["enb"], "tof_s1_sgw": devices["sgw"], "tof_ue": devices["ue"]}
    return lambda program, frame: loaded.xdp(loaded.programs[program], frame, ports[program])


def tunnelled(packet: bytes, teid: int, *, down: bool = False) -> bytes:
    """A frame with the packet in a tunnel between ENB and SGW."""
    ends, macs = ((SGW, ENB), (ENB_MAC, SGW_MAC)) if down else ((ENB, SGW), (SGW_MAC, ENB_MAC))
    datagram = inet.encode_udp(
        inet.UDP(2152, 2152, gtpu.encode(gtpu.Message(0x30, 255, teid, payload=packet)))
    )
    outer = inet.encode_ipv4(inet.IPv4(*ends, 17, datagram))
    return inet.encode_ethernet(inet.Ethernet(*macs, inet.ETHERTYPE_IPV4, outer))


def udp4(source: bytes, destination: bytes, size: int = 20) -> bytes:
    return inet.encode_ipv4(inet.IPv4(source, destination, 17, inet.encode_udp(inet.UDP(1, 2, bytes(size)))))


def test_a_bounded_run_agrees(devices: Mapping[str, int]) -> None:
    differ = Differ(devices, SEED)
    for number in range(PACKETS // BATCH):
        differ.batch(number)
        assert not differ.tally.disagreements, str(differ.tally.disagreements[0])
    differ.close()
    reached = {name for name, count in differ.tally.counters.items() if count > 9}
    assert reached >= {
        "passed", "diverted", "encapsulated", "queued", "returned", "bridged_partial", "bridged_way_unknown",
        "bridged_fragment", "bridged_length", "bridged_version", "bridged_message", "bridged_extension",
        "bridged_inner", "spoofed", "flow_unknown", "flow_ambiguous", "inner_fragment", "ue_malformed",
        "ue_no_tunnel", "ue_doubted", "ue_moved", "nested", "station_moved", "wrong_side", "fragment_queued",
        "ue_ended", "ue_too_big", "ue_ambiguous", "pinger_replies",
    }  # fmt: skip


@pytest.mark.parametrize(("name", "value"), [("MOST_EXTENSIONS", 7), ("WORST_GTP", 17)])
def test_a_wrong_oracle_is_found_out(
    devices: Mapping[str, int], monkeypatch: pytest.MonkeyPatch, name: str, value: int
) -> None:
    """So would a program be that is wrong in the same way."""
    monkeypatch.setattr(rules, name, value)
    differ = Differ(devices, SEED)
    for number in range(20):
        differ.batch(number)
        if differ.tally.disagreements:
            break
    differ.close()
    assert differ.tally.disagreements


@pytest.mark.parametrize("length", [0xFFD8, 0xFFD9, 0xFFFF])
def test_an_inner_ipv6_length_beyond_16_bits_is_no_packet(run: Run, length: int) -> None:
    """RFC 8200: with its header such a packet is longer than 65535 bytes."""
    packet = inet.encode_ipv6(inet.IPv6(UE2_V6, SERVICE_V6, 17, bytes(30)))
    packet = packet[:4] + length.to_bytes(2, "big") + packet[6:]
    frame = tunnelled(packet, 2)
    assert run("tof_s1_enb", frame) == (PASS, frame)
    frame = GATEWAY_MAC + ENB_MAC + b"\x86\xdd" + packet[:8] + packet[24:40] + packet[8:24] + packet[40:]
    assert run("tof_ue", frame) == (DROP, frame)


def test_what_follows_a_packet_never_leaves_with_it(run: Run) -> None:
    trailer = bytes(2100)
    packet = udp4(UE1, SERVICE)
    diverted = service_mac(1) + tunnel_mac(1) + b"\x08\x00" + packet
    assert run("tof_s1_enb", tunnelled(packet, 1) + trailer) == (REDIRECT, diverted)
    answer = udp4(SERVICE, UE1)
    verdict, frame = run("tof_ue", GATEWAY_MAC + ENB_MAC + b"\x08\x00" + answer + trailer)
    assert verdict == REDIRECT
    assert frame.endswith(answer)
    assert len(frame) == len(tunnelled(answer, 2, down=True))


def test_a_pinger_token_behind_a_packet_is_none(run: Run) -> None:
    whole = icmp.echo_packet(ELSEWHERE, UE1, icmp.Echo(1, 1, TOKEN.to_bytes(8, "big"), reply=True))
    short = inet.encode_ipv4(inet.IPv4(ELSEWHERE, UE1, inet.ICMP, whole[20:28]))
    assert run("tof_s1_sgw", tunnelled(whole, 2, down=True))[0] == PASS
    frame = tunnelled(short + whole[28:], 2, down=True)
    assert run("tof_s1_sgw", frame) == (REDIRECT, frame)


def test_an_mss_option_behind_a_packet_is_none(run: Run, loaded: Loaded) -> None:
    syn = bytes.fromhex("9c40005000000001000000006002721000000000020405b4")
    packet = inet.encode_ipv4(inet.IPv4(UE1, SERVICE, inet.TCP, syn[:20]))
    assert run("tof_s1_enb", tunnelled(packet + syn[20:], 1)) == (
        REDIRECT,
        service_mac(1) + tunnel_mac(1) + b"\x08\x00" + packet,
    )


def test_nothing_is_sent_back_where_it_came_from(run: Run) -> None:
    """Not even when tof_ue has found the way to the tunnel's end already."""
    astray = tunnelled(udp4(ELSEWHERE, UE1), 2, down=True)
    assert run("tof_s1_sgw", astray)[0] == REDIRECT
    assert run("tof_s1_enb", astray) == (PASS, astray)
    answer = GATEWAY_MAC + ENB_MAC + b"\x08\x00" + udp4(SERVICE, UE1)
    assert run("tof_ue", answer)[0] == REDIRECT
    assert run("tof_s1_enb", astray) == (PASS, astray)


def test_an_end_marker_leaves_uplinks_alone(run: Run, loaded: Loaded) -> None:
    marker = gtpu.encode(gtpu.Message(0x30, gtpu.END_MARKER, 1))
    outer = inet.encode_ipv4(inet.IPv4(ENB, SGW, 17, inet.encode_udp(inet.UDP(2152, 2152, marker))))
    run("tof_s1_enb", SGW_MAC + ENB_MAC + b"\x08\x00" + outer)
    assert not any(record.flags & layout.ENDED for record in loaded.tunnels().values() if record.number == 1)


def test_ports_of_a_datagram_without_udp_header_are_not_read(run: Run, loaded: Loaded) -> None:
    before = loaded.counters()
    outer = inet.encode_ipv4(inet.IPv4(ENB, SGW, 17, b"\x08\x68"))
    frame = SGW_MAC + ENB_MAC + b"\x08\x00" + outer + bytes(24)
    assert run("tof_s1_enb", frame) == (PASS, frame)
    assert (loaded.counters() - before)["bridged_length"] == 1
