"""``tof lab play`` through a TOF, a plain bridge, a router, and boxes with a fault: the checks judge each as it is."""

from __future__ import annotations

import contextlib
import json
import select
import threading
from collections.abc import Callable, Iterator

import pytest
from gtp_peers import Setting, Tof, running_tof
from netns_helper import MakeNetns, Netns

from tof.lab.emulation.catalogue import SCENARIOS
from tof.lab.emulation.frames import arrived
from tof.lab.emulation.network import Numbers
from tof.lab.play_scene import PlayOptions, run
from tof.lab.wire_ends import open_ends
from tof.wire import gtpu, inet

pytestmark = pytest.mark.netns

SERVICE, SERVICE6 = "203.0.113.77", "2001:db8:113::77"
APP, APP6 = "192.168.50.77", "fd00:50::77"


def played(
    capsys: pytest.CaptureFixture[str], *names: str, **more: object
) -> tuple[int, list[dict[str, object]]]:
    """Exit status and the scenarios' documents."""
    status = run(PlayOptions(names, json_output=True, **more))  # type: ignore[arg-type]
    document = json.loads(capsys.readouterr().out)
    assert document["ok"] == (status == 0)
    return status, document["scenarios"]


def failed(scenario: dict[str, object]) -> dict[str, str]:
    """Check -> what was seen, of the checks that do not hold."""
    checks: list[dict[str, str]] = scenario["checks"]  # type: ignore[assignment]
    return {check["name"].partition(":")[0]: check["seen"] for check in checks if not check["ok"]}


@pytest.fixture(scope="module")
def tof() -> Iterator[Tof]:
    with running_tof(Setting(xdp="generic")) as running:
        # The emulated nodes speak for themselves: these kernels say nothing.
        for role in ("ran", "core"):
            running.netns[role].run("ip", "address", "flush", "dev", "s0")
            running.netns[role].run("sysctl", "-q", "-w", "net.ipv6.conf.s0.disable_ipv6=1")
        yield running


@pytest.fixture(scope="module")
def provisioned(tof: Tof) -> Tof:
    tof.provision("play", SERVICE, APP)
    tof.provision("play6", SERVICE6, APP6)
    return tof


def played_through(
    tof: Tof, capsys: pytest.CaptureFixture[str], name: str, pool: int, **more: object
) -> tuple[int, list[dict[str, object]]]:
    """Through a TOF that serves, with UEs out of this pool.

    The nodes of each run forget the UEs of the run before, the TOF does not: drawn twice, an address would be in use
    still, and what its second UE says to the service would go to the core.
    """
    return played(
        capsys,
        name,
        enb_interface=f"{tof.netns['ran'].name}/s0",
        sgw_interface=f"{tof.netns['core'].name}/s0",
        app_interface=f"{tof.netns['apps'].name}/eth0",
        service=(SERVICE, SERVICE6),
        application=(APP, APP6),
        app_gateway=("192.168.50.1", "fd00:50::1"),
        api=f"unix:{tof.dir}/api.sock",
        ue_pool=(f"10.{pool}.0.0/16", f"2001:db8:{pool}::/48"),
        **more,
    )


@pytest.mark.parametrize("name", list(SCENARIOS))
def test_a_tof_plays(provisioned: Tof, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, scenarios = played_through(provisioned, capsys, name, 100 + list(SCENARIOS).index(name))
    assert failed(scenarios[0]) == {}
    assert status == 0
    assert scenarios[0]["figures"]["frames"] > 0  # type: ignore[index]


def test_the_tof_says_why_it_did_not_divert(
    provisioned: Tof, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second network with other TEIDs and the addresses of the first, whose flows are still in use."""
    monkeypatch.setattr(Numbers, "drawn", lambda _: Numbers(0x10000, 1))
    _, scenarios = played_through(provisioned, capsys, "first-packet", 99)
    assert failed(scenarios[0]) == {}
    monkeypatch.setattr(Numbers, "drawn", lambda _: Numbers(0x20000, 1))
    _, scenarios = played_through(provisioned, capsys, "first-packet", 99)
    assert set(failed(scenarios[0])) == {"diverted"}
    assert failed(scenarios[0])["diverted"].endswith("the TOF counted flow_ambiguous 2")


def test_without_a_service_a_tof_still_passes_everything(
    provisioned: Tof, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its Pinger's requests are then what the checks say they are: frames that nobody sent."""
    ends = (f"{provisioned.netns[role].name}/s0" for role in ("ran", "core"))
    status, scenarios = played(
        capsys, "x2-handover", **dict(zip(("enb_interface", "sgw_interface"), ends, strict=True))
    )
    assert set(failed(scenarios[0])) <= {"nothing extra"}
    assert (status == 1) == bool(failed(scenarios[0]))


class Box:
    """A namespace between two others, for anything that is to be a box."""

    def __init__(self, netns: MakeNetns) -> None:
        self.west, self.inside, self.east = netns("west"), netns("box"), netns("east")
        for each in (self.west, self.inside, self.east):
            each.run("sysctl", "-q", "-w", "net.ipv6.conf.default.disable_ipv6=1")
        self.inside.veth("w", self.west, "s0")
        self.inside.veth("e", self.east, "s0")

    @property
    def ends(self) -> dict[str, str]:
        return {"enb_interface": f"{self.west.name}/s0", "sgw_interface": f"{self.east.name}/s0"}

    def bridge(self) -> None:
        self.inside.run("ip", "link", "add", "br0", "type", "bridge", "mcast_snooping", "0")
        for device in ("w", "e"):
            self.inside.run("ip", "link", "set", device, "master", "br0")
        self.inside.run("ip", "link", "set", "br0", "up")

    def route(self) -> tuple[str, str]:
        """Route between 10.1.0.0/25 and 10.1.0.128/25; the MACs of its two sides."""
        run_inside = self.inside.run
        run_inside("sysctl", "-q", "-w", "net.ipv4.ip_forward=1", "net.ipv4.conf.all.send_redirects=0")
        run_inside(
            "sysctl", "-q", "-w", "net.ipv4.conf.w.send_redirects=0", "net.ipv4.conf.e.send_redirects=0"
        )
        run_inside("ip", "address", "add", "10.1.0.126/25", "dev", "w")
        run_inside("ip", "address", "add", "10.1.0.254/25", "dev", "e")
        links = json.loads(run_inside("ip", "-json", "link", "show"))
        macs = {link["ifname"]: link["address"] for link in links}
        return macs["w"], macs["e"]

    @contextlib.contextmanager
    def forwarding(self, fault: Callable[[bytes], bytes | None]) -> Iterator[None]:
        """A wire that puts every frame through ``fault``."""
        ends = open_ends(("w", "e"), self.inside.name)
        over = threading.Event()

        def work() -> None:
            while not over.is_set():
                for ready in select.select(ends, [], [], 0.05)[0]:
                    other = ends[1] if ready is ends[0] else ends[0]
                    for frame in ready.receive():
                        if (out := fault(frame)) is not None:
                            other.send(out)

        worker = threading.Thread(target=work)
        worker.start()
        try:
            yield
        finally:
            over.set()
            worker.join()
            for end in ends:
                end.close()


@pytest.fixture
def box(netns: MakeNetns) -> Box:
    return Box(netns)


def test_a_plain_bridge_passes_every_scenario(box: Box, capsys: pytest.CaptureFixture[str]) -> None:
    box.bridge()
    status, scenarios = played(capsys, *SCENARIOS, **box.ends)
    assert {scenario["name"]: failed(scenario) for scenario in scenarios if not scenario["ok"]} == {}
    assert [scenario["name"] for scenario in scenarios] == list(SCENARIOS)
    assert status == 0


def test_a_router_passes(box: Box, capsys: pytest.CaptureFixture[str]) -> None:
    west, east = box.route()
    names = ("attach", "x2-handover", "s1-handover", "sgw-relocation", "error-indication", "restart", "5g")
    status, scenarios = played(
        capsys,
        *names,
        **box.ends,
        enb=("10.1.0.11", "10.1.0.12", "10.1.0.13"),
        sgw=("10.1.0.129", "10.1.0.130=02:1a:b0:02:00:77"),
        enb_next_hop=west,
        sgw_next_hop=east,
    )
    assert {scenario["name"]: failed(scenario) for scenario in scenarios if not scenario["ok"]} == {}
    assert status == 0


def _kind(frame: bytes) -> int | None:
    found = arrived(inet.decode_ethernet(frame), injected=False)
    return found.message.type if found else None


def test_a_box_that_drops_end_markers_fails(box: Box, capsys: pytest.CaptureFixture[str]) -> None:
    with box.forwarding(lambda frame: None if _kind(frame) == gtpu.END_MARKER else frame):
        status, (handover, plain) = played(capsys, "x2-handover", "4g", **box.ends)
    assert status == 1
    assert set(failed(handover)) == {"transparent"}
    assert "1 lost" in failed(handover)["transparent"]
    assert plain["ok"]


def test_a_box_that_rewrites_a_byte_fails(box: Box, capsys: pytest.CaptureFixture[str]) -> None:
    """The TTL of the inner packet: where a GTP-U port of a switch is known to look."""

    def fault(frame: bytes) -> bytes:
        return frame[:58] + b"\x40" + frame[59:] if _kind(frame) == gtpu.G_PDU and frame[58] == 55 else frame

    with box.forwarding(fault):
        status, (scenario,) = played(capsys, "4g", **box.ends)
    assert status == 1
    assert "changed" in failed(scenario)["transparent"]


def test_a_box_that_drops_sequence_numbers_fails(box: Box, capsys: pytest.CaptureFixture[str]) -> None:
    def fault(frame: bytes) -> bytes:
        return frame[:42] + b"\x30" + frame[43:] if frame[42:44] == b"\x32\xff" else frame

    with box.forwarding(fault):
        status, (sequenced, plain) = played(capsys, "4g-sequence", "4g", **box.ends)
    assert status == 1
    assert not sequenced["ok"]
    assert plain["ok"]


def test_an_application_that_nothing_reaches_is_told(
    box: Box, netns: MakeNetns, capsys: pytest.CaptureFixture[str]
) -> None:
    """A bridge that is said to divert."""
    box.bridge()
    apps: Netns = netns("apps")
    box.inside.veth("apps0", apps, "eth0")
    status, (scenario,) = played(
        capsys, "4g", **box.ends, app_interface=f"{apps.name}/eth0", service=(SERVICE,), application=(APP,)
    )
    assert status == 1
    assert "reached sgw" in failed(scenario)["diverted"]
