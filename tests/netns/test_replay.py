"""``tof replay``: every capture through a TOF, byte for byte; the replayer's own senses over a plain bridge."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from netns_helper import MakeNetns, Netns

from tof.errors import SetupError
from tof.lab import capture
from tof.lab.capture import Frame
from tof.lab.namespaces import PREFIX, orphans
from tof.lab.replay import ReplayOptions, prepare, run
from tof.wire import gtpu, icmp, inet

pytestmark = pytest.mark.netns

ROOT = Path(__file__).parents[2]
RECORDED = sorted((ROOT / "tests" / "vectors" / "recorded").glob("*.pcap"))
SHARED = ROOT.parent / "shared" / "pcaps"
OTHERS = sorted(SHARED.glob("*/*.pcap")) if SHARED.is_dir() else []
CAPTURES = {path.name: path for path in (*OTHERS, *RECORDED)}
TUNNELS = {
    "11_gtpu_inner_ipv4_tcp_bidirectional.pcap": 1,
    "19_gtpu_truncated_optional_header.pcap": 0,
    "20_gtpu_truncated_extension_header.pcap": 0,
    "gtp-u.pcap": 2,
    "gtp.pcap": 2,
    "gn_osmo_ping_http_seqnum_fragments.pcap": 2,
    "gn_osmo_three_ues_same_teid_both_directions.pcap": 6,
    "n3_open5gs_ueransim_ping_http_pdu_session_container.pcap": 2,
    "gtp10_not_0xff.pcap": 0,
    "gtp6_gtp_0x32.pcap": 2,
    "gtp7_ipv6.pcap": 0,
    "gtp_ext_header.pcap": 1,
}
ENB, SGW, UE = "192.0.2.1", "192.0.2.2", "10.45.0.2"


def replayed(*arguments: str, timeout: float = 240) -> tuple[int, dict[str, Any], str]:
    """Exit status, document and complaints of ``tof replay --json``."""
    argv = [sys.executable, "-m", "tof", "replay", *arguments, "--json"]
    done = subprocess.run(argv, capture_output=True, text=True, cwd=ROOT, timeout=timeout, check=False)
    return done.returncode, json.loads(done.stdout or "{}"), done.stderr


@pytest.fixture(autouse=True)
def _agents_find_this_tof(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


@pytest.fixture(scope="module")
def through_a_tof() -> dict[str, Any]:
    """All captures in one lab, each through a TOF that has seen nothing before: file name -> findings."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        _, found, errors = replayed(*map(str, CAPTURES.values()), "--lab")
    assert found, errors
    return {Path(each["file"]).name: each for each in found["files"]}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", sorted({*CAPTURES, *TUNNELS}))
def test_a_capture_crosses_byte_for_byte_and_is_learnt(name: str, request: pytest.FixtureRequest) -> None:
    if name not in CAPTURES:
        pytest.skip(f"shared/pcaps with {name} is not here")
    found = request.getfixturevalue("through_a_tof")[name]
    odd = [packet for packet in found["packets"] if packet["outcome"] != "identical"]
    assert odd == []
    assert found["identical"] == found["sent"] == len(capture.read(CAPTURES[name]))
    assert [each for each in found["conflicts"] if each["kind"] != "several_ues"] == []
    assert len(found["tunnels"]) == TUNNELS.get(name, 1)


@pytest.mark.parametrize("name", ["11_gtpu_inner_ipv4_tcp_bidirectional.pcap"])
def test_one_of_two_ues_behind_a_tunnel_owns_it(name: str, request: pytest.FixtureRequest) -> None:
    if name not in CAPTURES:
        pytest.skip(f"shared/pcaps with {name} is not here")
    found = request.getfixturevalue("through_a_tof")[name]
    (conflict,) = found["conflicts"]
    assert (conflict["kind"], conflict["expected"]) == ("several_ues", ["10.60.0.10", "10.60.0.20"])
    assert len(found["tunnels"][0]["ues"]) == 1


def gpdu(number: int = 0, teid: int = 7, vlan: int | None = None, size: int = 20, up: bool = True) -> bytes:
    ends = (ENB, SGW) if up else (SGW, ENB)
    source, destination = (ip_address(each).packed for each in ends)
    echo = icmp.Echo(number, 1, bytes(size))
    user = icmp.echo_packet(ip_address(UE).packed, ip_address("8.8.8.8").packed, echo)
    message = gtpu.encode(gtpu.Message(0x30, gtpu.G_PDU, teid, payload=user))
    datagram = inet.encode_udp(inet.UDP(2152, 2152, message))
    packet = inet.encode_ipv4(inet.IPv4(source, destination, 17, datagram))
    macs = (b"\2\0\0\0\0\2", b"\2\0\0\0\0\1") if up else (b"\2\0\0\0\0\1", b"\2\0\0\0\0\2")
    tags = () if vlan is None else ((0x8100, vlan),)
    return inet.encode_ethernet(inet.Ethernet(*macs, inet.ETHERTYPE_IPV4, packet, tags))


def write(path: Path, *datas: bytes, gap_ns: int = 0) -> str:
    capture.write(path, [Frame(n, n * gap_ns, data, len(data)) for n, data in enumerate(datas, 1)])
    return str(path)


class Bridge:
    """A tester with ends ``west`` and ``east``, and an ordinary bridge between."""

    def __init__(self, netns: MakeNetns) -> None:
        self.tester, self.middle = netns("tester"), netns("bridge")
        self.quiet(self.tester)
        self.quiet(self.middle)
        self.middle.run("ip", "link", "add", "br0", "type", "bridge", "mcast_snooping", "0")
        self.middle.run("sysctl", "-qw", "net.bridge.bridge-nf-call-iptables=0")
        for end, port in (("west", "w"), ("east", "e")):
            self.tester.veth(end, self.middle, port)
            self.middle.run("ip", "link", "set", port, "master", "br0")
        self.middle.run("ip", "link", "set", "br0", "up")

    def quiet(self, namespace: Netns) -> None:
        keys = (f"net.ipv6.conf.{scope}.disable_ipv6=1" for scope in ("all", "default"))
        namespace.run("sysctl", "-qw", *keys)

    def replay(self, *arguments: str) -> tuple[int, dict[str, Any], str]:
        where = ("--west", "west", "--east", "east", "--netns", self.tester.name)
        return replayed(*arguments, *where)


@pytest.fixture
def bridge(netns: MakeNetns) -> Bridge:
    return Bridge(netns)


def test_without_an_agent_the_packets_are_judged_all_the_same(bridge: Bridge, tmp_path: Path) -> None:
    status, found, errors = bridge.replay(
        write(tmp_path / "a.pcap", gpdu(1), gpdu(2, vlan=5), gpdu(3, up=False))
    )
    assert (status, found["sent"], found["identical"], found["injected"]) == (0, 3, 3, 0)
    assert (found["tunnels"], found["conflicts"]) == ([], [])
    assert "no agent answers" in errors


def test_an_agent_that_was_named_must_answer(bridge: Bridge, tmp_path: Path) -> None:
    status, found, errors = bridge.replay(
        write(tmp_path / "a.pcap", gpdu()), "--api", "unix:/nonexistent.sock"
    )
    assert (status, found) == (1, {})
    assert "no agent answers at unix:/nonexistent.sock" in errors


def test_lost_and_injected(bridge: Bridge, tmp_path: Path) -> None:
    bridge.middle.run("ip", "link", "set", "e", "down")
    bridge.tester.run("ip", "link", "set", "east", "up")
    status, found, _ = bridge.replay(write(tmp_path / "a.pcap", gpdu(1), gpdu(2)))
    assert (status, found["ok"], found["lost"], found["identical"]) == (1, False, 2, 0)


def test_changed_names_the_bytes(bridge: Bridge, tmp_path: Path) -> None:
    bridge.middle.run("ebtables", "-t", "nat", "-A", "PREROUTING", "-j", "dnat", "--to-dst", "2:0:0:0:0:99")
    status, found, _ = bridge.replay(write(tmp_path / "a.pcap", gpdu(1)))
    assert (status, found["changed"]) == (1, 1)
    assert found["files"][0]["packets"][0]["changed"] == [[5, 6]]


def test_a_frame_beyond_the_mtu_is_said_first(bridge: Bridge, tmp_path: Path) -> None:
    large = write(tmp_path / "a.pcap", gpdu(1), gpdu(2, size=1600))
    status, found, errors = bridge.replay(large)
    assert (status, found) == (2, {})
    assert "packet 2 needs an MTU of 1664, west has 1500" in errors
    for namespace, device in ((bridge.tester, "west"), (bridge.tester, "east"), (bridge.middle, "w")):
        namespace.run("ip", "link", "set", device, "mtu", "9000")
    bridge.middle.run("ip", "link", "set", "e", "mtu", "9000")
    assert bridge.replay(large)[0] == 0


def test_a_thousand_back_to_back(bridge: Bridge, tmp_path: Path) -> None:
    status, found, _ = bridge.replay(write(tmp_path / "a.pcap", *(gpdu(n) for n in range(1000))))
    assert (status, found["identical"]) == (0, 1000)


def test_many_lost_ones_do_not_take_for_ever(bridge: Bridge, tmp_path: Path) -> None:
    bridge.middle.run("ip", "link", "set", "e", "nomaster")
    datas = [gpdu(n) for n in range(200)]
    began = time.monotonic()
    status, found, _ = bridge.replay(write(tmp_path / "a.pcap", *datas, gap_ns=2_000_000))
    assert (status, found["lost"]) == (1, 200)
    assert time.monotonic() - began < 20


def test_replying_as_the_other_side(bridge: Bridge, tmp_path: Path) -> None:
    status, found, _ = bridge.replay(write(tmp_path / "a.pcap", gpdu(1), gpdu(2, teid=8)), "--reply")
    assert (status, found["identical"], found["injected"]) == (0, 2, 0)
    assert found["files"][0]["replied"] == 2


def test_adapters_that_cannot_be_used(bridge: Bridge, tmp_path: Path) -> None:
    path = Path(write(tmp_path / "a.pcap", gpdu()))
    here = bridge.tester.name
    bridge.tester.run("ip", "link", "set", "east", "down")
    with pytest.raises(SetupError, match=f"east in namespace {here} is down"):
        run(ReplayOptions((path,), west="west", east="east", netns=here))
    with pytest.raises(SetupError, match=f"nowhere in namespace {here}: No such device"):
        run(ReplayOptions((path,), west="nowhere", east="east", netns=here))


@pytest.mark.timeout(120)
def test_the_pinger_gets_its_answer_in_the_lab(tmp_path: Path) -> None:
    """An uplink packet alone: the Pinger asks, the replayer answers as the SGW, the pair is learnt."""
    status, found, errors = replayed(write(tmp_path / "a.pcap", gpdu(1, teid=0x1234)), "--lab", "--reply")
    assert status == 0, errors
    assert found["files"][0]["replied"] >= 1
    assert {(each["direction"], each["teid"], each["state"]) for each in found["tunnels"]} == {
        ("uplink", 0x1234, "paired"),
        ("downlink", 0x1234, "paired"),
    }
    assert found["conflicts"] == []


@pytest.mark.timeout(120)
def test_checksums_are_repaired_on_request(tmp_path: Path) -> None:
    bad = gpdu(1)
    path = write(tmp_path / "a.pcap", bad[:24] + b"\0\0" + bad[26:])
    assert prepare(Path(path), ReplayOptions((), fix=True)).sent[0].frame.data == bad
    status, found, _ = replayed(path, "--lab", "--fix")
    assert (status, found["identical"], len(found["tunnels"])) == (0, 1, 1)


@pytest.mark.timeout(120)
def test_an_interrupt_leaves_nothing(tmp_path: Path) -> None:
    before = asyncio.run(orphans())
    argv = [sys.executable, "-m", "tof", "replay", write(tmp_path / "a.pcap", gpdu()), "--lab"]
    with subprocess.Popen(argv, stderr=subprocess.PIPE, cwd=ROOT) as process:
        deadline = time.monotonic() + 20
        while not _labs() and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(1.0)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
    assert set(asyncio.run(orphans())) <= set(before)


def _labs() -> list[str]:
    listing = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    return [line for line in listing.splitlines() if line.startswith(PREFIX)]
