"""Mirrors on the real data path: what a UE and a service say to one another, once more, to an interface or a file."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gtp_apps import ECHO, answer, udp_echo
from gtp_packets import SYN, Bearer, cut, new_bearer, new_bearer6, pieces, tcp, udp
from gtp_peers import APP, APP6, Setting, Tof, running_tof, until
from gtp_wires import Wire

from tof.wire.inet import decode_ethernet

pytestmark = pytest.mark.netns

SERVICE, SERVICE6, OTHER = "203.0.113.10", "2001:db8:113::10", "203.0.113.11"
SECTION = """
[mirror]
interfaces = ["mon0", "mon1"]
dir = "{dir}/mirror"
file_max_mb = 1
files = 1
"""


@pytest.fixture(scope="module")
def tof() -> Iterator[Tof]:
    with running_tof(Setting(more=SECTION)) as running:
        udp_echo(running.netns["apps"], APP, ECHO)
        udp_echo(running.netns["apps"], APP6, ECHO)
        # After the agent's start: an interface may come later.
        running.netns["tof"].veth("mon0", running.netns["apps"], "far0")
        running.netns["apps"].run("sysctl", "-qw", "net.ipv6.conf.far0.disable_ipv6=1")
        running.netns["tof"].run("sysctl", "-qw", "net.ipv6.conf.mon0.disable_ipv6=1")
        running.wires["monitor"] = Wire(running.netns["apps"], "far0")
        until("the interface is a port", lambda: "16(mon0)" in ports(running), 10)
        yield running


@pytest.fixture(autouse=True)
def _fresh(tof: Tof) -> Iterator[None]:
    tof.drain()
    yield
    assert tof.call("PUT", "/policy", {"services": []})[0] == 200


def ofctl(tof: Tof, *command: str) -> str:
    bridge = f"unix:{tof.dir}/run/br-ue.mgmt"
    return tof.netns["tof"].run("ovs-ofctl", "-O", "OpenFlow14", *command[:1], bridge, *command[1:])


def ports(tof: Tof) -> str:
    return ofctl(tof, "show")


def flows(tof: Tof) -> set[str]:
    return {
        re.sub(r"(duration|n_packets|n_bytes)=[^ ]* ?", "", line).strip()
        for line in ofctl(tof, "dump-flows").splitlines()
        if "cookie" in line
    }


def body(name: str = "watched", service: str = SERVICE, app: str = APP, **more: object) -> dict[str, object]:
    return {"name": name, "serviceIP": service, "applicationIP": app, **more}


def provision(tof: Tof, *bodies: dict[str, object]) -> None:
    status, problem = tof.call("PUT", "/policy", {"services": list(bodies)})
    assert status == 200, problem


def monitored(tof: Tof) -> list[bytes]:
    """The IP packets that the monitor has got since the last look."""
    wire = tof.wires["monitor"]
    wire.find(lambda _: False, 0.3)
    found = [decode_ethernet(frame).payload for frame in wire.history]
    wire.history.clear()
    return found


def asked(bearer: Bearer, service: str, data: bytes) -> bytes:
    return udp(bearer.ue, service, 4000, ECHO, data)


def talk(tof: Tof, bearer: Bearer, service: str, count: int, size: int = 60) -> list[tuple[bytes, bytes]]:
    """Packets to the service and its answers, as the UE has sent and got them."""
    told = []
    for n in range(count):
        data = b"%08d" % n + bytes(size)
        packet = asked(bearer, service, data)
        tof.ran.send(bearer.uplink(packet))
        told.append((packet, answer(tof, bearer, data).message.payload))
    return told


def test_an_interface_gets_both_ways_as_the_ue_sees_them(tof: Tof) -> None:
    bearer = new_bearer(vlan=12)
    tof.attach(bearer)
    provision(tof, body(mirror={"interface": "mon0"}), body("other", OTHER))
    told = talk(tof, bearer, SERVICE, 5)
    assert monitored(tof) == [packet for pair in told for packet in pair]
    talk(tof, bearer, OTHER, 3)
    assert monitored(tof) == []


def test_set_and_unset_leaves_the_flows_as_before(tof: Tof) -> None:
    bearer = new_bearer()
    tof.attach(bearer)
    provision(tof, body(), body("other", OTHER))
    before = flows(tof)
    for mirror in ({"interface": "mon0"}, {"file": "there-and-back"}):
        assert tof.call("PUT", "/service/watched", body(mirror=mirror))[0] == 200
        assert tof.get("/service")[1]["mirror"] == mirror
        assert flows(tof) != before
        assert len(flows(tof)) == len(before)
        talk(tof, bearer, SERVICE, 1)
        assert tof.call("PUT", "/service/watched", body())[0] == 200
        assert "mirror" not in tof.get("/service")[1]
        assert flows(tof) == before
        monitored(tof)
        talk(tof, bearer, SERVICE, 2)
        assert monitored(tof) == []


def test_a_shared_application_is_mirrored_service_by_service(tof: Tof) -> None:
    """There the way back is found by connection tracking."""
    bearer = new_bearer()
    tof.attach(bearer)
    provision(tof, body(mirror={"interface": "mon0"}), body("other", OTHER))
    mirrored = talk(tof, bearer, SERVICE, 2)
    talk(tof, bearer, OTHER, 2)
    assert monitored(tof) == [packet for pair in mirrored for packet in pair]


def test_what_goes_to_the_core_is_not_mirrored(tof: Tof) -> None:
    bearer = new_bearer()
    tof.attach(bearer)
    provision(tof, body(mirror={"interface": "mon0"}, mode="shadow"))
    frame = bearer.uplink(asked(bearer, SERVICE, b"shadowed"))
    tof.ran.send(frame)
    tof.core.expect(frame)
    assert monitored(tof) == []


def test_an_interface_that_is_not_there_is_no_trouble(tof: Tof) -> None:
    bearer = new_bearer()
    tof.attach(bearer)
    provision(tof, body(mirror={"interface": "mon1"}))
    talk(tof, bearer, SERVICE, 2)
    assert tof.get("/health")["state"] == "ok"


def test_frames_from_the_monitor_go_nowhere(tof: Tof) -> None:
    bearer = new_bearer()
    tof.attach(bearer)
    provision(tof, body(mirror={"interface": "mon0"}))
    talk(tof, bearer, SERVICE, 1)
    monitored(tof)
    for head in (
        bytes.fromhex("0270ffffffff 020000000001 0800"),
        bytes.fromhex("ffffffffffff 020000000001 0800"),
    ):
        tof.wires["monitor"].send(head + udp(APP, bearer.ue, ECHO, 4000, b"from the monitor"))
    tof.ran.silent(lambda one: one.inner.data == b"from the monitor", 0.3)
    assert not tof.apps.find(lambda frame: b"from the monitor" in frame, 0.1)


@pytest.mark.parametrize(
    ("mirror", "field"),
    [
        ({"interface": "sgw0"}, "mirror.interface"),
        ({"interface": "apps0"}, "mirror.interface"),
        ({"interface": "mon0", "file": "x"}, "mirror"),
        ({"file": "../../etc/passwd"}, "mirror.file"),
        ({}, "mirror"),
    ],
)
def test_what_is_refused(tof: Tof, mirror: dict[str, object], field: str) -> None:
    before = flows(tof)
    for method, path, wanted in (
        ("POST", "/service", body(mirror=mirror)), ("PUT", "/policy", {"services": [body(mirror=mirror)]}),
    ):  # fmt: skip
        status, problem = tof.call(method, path, wanted)
        assert status == 400
        assert field in problem["errors"][0]["field"]
    assert flows(tof) == before


# Files


def read(path: Path) -> list[dict[str, Any]]:
    """The packets of a capture as tshark reads them."""
    run = subprocess.run(
        ["tshark", "-r", str(path), "-T", "json", "-x", "-o", "ip.defragment:FALSE"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    return [one["_source"]["layers"] for one in json.loads(run.stdout)]


def packets(path: Path) -> list[tuple[str, bytes]]:
    return [
        (one["frame"]["frame.interface_id_tree"]["frame.interface_name"], bytes.fromhex(one["frame_raw"][0]))
        for one in read(path)
    ]


def file(tof: Tof, name: str) -> Path:
    return tof.dir / "mirror" / f"{name}.pcapng"


def written(tof: Tof) -> int:
    return int(tof.metrics()["tof_mirror_total{written}"])


@pytest.mark.parametrize("six", [False, True], ids=["IPv4", "IPv6"])
def test_a_file_has_both_ways_as_the_ue_sees_them(tof: Tof, six: bool) -> None:
    bearer, name = new_bearer6() if six else new_bearer(), "six" if six else "four"
    service = SERVICE6 if six else SERVICE
    tof.attach(bearer)
    provision(tof, body("watched", service, APP6 if six else APP, mirror={"file": name}))
    before, began = written(tof), time.time()
    told = talk(tof, bearer, service, 5)
    until("written", lambda: written(tof) == before + 10)
    until("flushed", lambda: len(packets(file(tof, name))) == 10)
    expected = [
        (way, packet) for pair in told for way, packet in zip(("uplink", "downlink"), pair, strict=True)
    ]
    assert packets(file(tof, name)) == expected
    times = [float(one["frame"]["frame.time_epoch"]) for one in read(file(tof, name))]
    assert times == sorted(times)
    assert began - 1 < times[0] <= times[-1] < time.time() + 1
    assert file(tof, name).stat().st_mode & 0o777 == 0o600


def test_fragments_are_in_the_file_as_the_ue_sent_them(tof: Tof) -> None:
    """On br-ue later ones are veiled; a datagram in outer fragments is whole by then."""
    bearer = new_bearer()
    tof.attach(bearer)
    provision(tof, body(mirror={"file": "fragments"}))
    inner = pieces(asked(bearer, SERVICE, bytes(900)), 480, 77)
    tof.ran.send(*map(bearer.uplink, inner))
    answer(tof, bearer, bytes(900))
    whole = asked(bearer, SERVICE, b"w" * 1200)
    tof.ran.send(*cut(bearer.uplink(whole), 704))
    answer(tof, bearer, b"w" * 1200)
    until(
        "written",
        lambda: file(tof, "fragments").exists() and len(packets(file(tof, "fragments"))) == len(inner) + 3,
    )
    assert [one for way, one in packets(file(tof, "fragments")) if way == "uplink"] == [*inner, whole]


def test_a_syn_is_there_as_it_went_to_the_application(tof: Tof) -> None:
    bearer = new_bearer()
    tof.attach(bearer)
    provision(tof, body(mirror={"file": "syn"}))
    tof.ran.send(bearer.uplink(tcp(bearer.ue, SERVICE, 5000, 9, SYN, mss=1460)))
    refused = tof.ran.to_ue(bearer.ue).message.payload
    until("written", lambda: file(tof, "syn").exists() and len(packets(file(tof, "syn"))) == 2)
    assert packets(file(tof, "syn"))[1] == ("downlink", refused)


def test_a_file_is_bounded(tof: Tof) -> None:
    bearer = new_bearer()
    tof.attach(bearer)
    provision(tof, body(mirror={"file": "full"}))
    before = written(tof)
    for n in range(60):
        tof.ran.send(
            *(
                bearer.uplink(asked(bearer, SERVICE, b"%08d" % (n * 40 + at) + bytes(1100)))
                for at in range(40)
            )
        )
        time.sleep(0.02)
    until("written", lambda: written(tof) > before + 3000, 15)
    time.sleep(0.5)
    sizes = {path.name: path.stat().st_size for path in file(tof, "full").parent.glob("full*")}
    assert set(sizes) == {"full.pcapng", "full.1.pcapng"}
    assert all(size <= 1 << 20 for size in sizes.values())
    last = [one[28:36] for way, one in packets(file(tof, "full")) if way == "uplink"][-1]
    assert last == b"%08d" % 2399
    assert len(packets(file(tof, "full.1"))) > 700


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "stopped"])
def test_a_file_goes_on_with_the_next_agent(tof: Tof, number: signal.Signals) -> None:
    bearer, name = new_bearer(), f"again-{number.name}"
    tof.attach(bearer)
    provision(tof, body(mirror={"file": name}))
    told = talk(tof, bearer, SERVICE, 3)
    until("written", lambda: file(tof, name).exists() and len(packets(file(tof, name))) == 6)
    tof.signal(number)
    talk(tof, bearer, SERVICE, 2)  # nobody writes
    tof.start()
    told += talk(tof, bearer, SERVICE, 2)
    until("all are there", lambda: len(packets(file(tof, name))) == 10)
    assert [one for _, one in packets(file(tof, name))] == [packet for pair in told for packet in pair]


def test_a_directory_that_cannot_be_written_is_counted(tof: Tof) -> None:
    bearer = new_bearer()
    tof.attach(bearer)
    file(tof, "blocked").mkdir(parents=True)
    provision(tof, body(mirror={"file": "blocked"}))
    talk(tof, bearer, SERVICE, 2)
    until("counted", lambda: tof.metrics()["tof_mirror_total{not_written}"] == 4)
    file(tof, "blocked").rmdir()
    told = talk(tof, bearer, SERVICE, 1)
    until(
        "written after all",
        lambda: file(tof, "blocked").is_file() and len(packets(file(tof, "blocked"))) == 2,
    )
    assert [one for _, one in packets(file(tof, "blocked"))] == list(told[0])


def test_a_mirror_that_is_configured_no_more_and_then_tof_down() -> None:
    with running_tof(Setting(more=SECTION)) as tof:
        node, bearer = tof.netns["tof"], new_bearer()
        udp_echo(tof.netns["apps"], APP, ECHO)
        node.veth("mon0", tof.netns["apps"], "far0")
        until("a port", lambda: "16(mon0)" in ports(tof), 10)
        assert "tofmir0" in node.run("ip", "link")
        provision(tof, body())
        before = flows(tof)
        provision(tof, body(mirror={"interface": "mon0"}))
        tof.attach(bearer)
        talk(tof, bearer, SERVICE, 1)
        tof.signal(signal.SIGTERM)
        text = tof.config.read_text()
        tof.config.write_text(text[: text.index("[mirror]")])
        tof.start()
        talk(tof, bearer, SERVICE, 2)
        assert tof.get("/service/watched/status") == {
            "name": "watched", "state": "in_force",
            "detail": "mon0 is not one of mirror.interfaces in the TOF's configuration",
        }  # fmt: skip
        assert flows(tof) == before
        assert "mon0" not in ports(tof)
        tof.tof("down")
        links = node.run("ip", "link")
        assert "tofmir" not in links
        assert "mon0" in links
        assert "promiscuity 0" in node.run("ip", "-d", "link", "show", "mon0")
