"""Marks of port-chains on real VNFs: bridges with nftables, which reads DSCP and NSH, and with tcpdump; read by tshark."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gtp_apps import udp_echo, ue_kernel
from gtp_packets import APP_MAC, Bearer, ethernet, new_bearer, new_bearer6, pieces, udp
from gtp_peers import APP, APP6, Setting, Tof, running_tof, until
from gtp_wires import Wire
from test_datapath_chains import BLOCKED, ECHO, SERVICE, Stream, Vnf, Vnfs, answer, ask, attached, flows

from tof.model import FAR_MAC, GATEWAY_MAC, NEAR_MAC, service_mac

pytestmark = pytest.mark.netns

OTHER, SERVICE6 = "203.0.113.11", "2001:db8:113::10"
APP_OTHER = "192.168.50.11"
SPEAKS = {"wall": '["vlan", "dscp", "nsh"]', "probe": '["vlan", "dscp", "nsh"]', "mute": "[]"}
NSH_MTU = 1500 + 14 + 24
CONFIG = "".join(
    f'[vnfs.{name}]\ningress = "{name}-i"\negress = "{name}-e"\nhealth = "frames"\ninterval_s = 0.1\n'
    f"speaks = {speaks}\n"
    for name, speaks in SPEAKS.items()
)
MARKS: tuple[dict[str, int], ...] = ({}, {"vlan": 40}, {"dscp": 10}, {"nsh": 77})


def room(vnf: Vnf, mtu: int = NSH_MTU, *, inside_too: bool = True) -> None:
    for mine in (f"{vnf.name}-i", f"{vnf.name}-e"):
        vnf.tof.netns["tof"].run("ip", "link", "set", mine, "mtu", str(mtu))
    for theirs in ("near", "far") if inside_too else ():
        vnf.netns.run("ip", "link", "set", theirs, "mtu", str(mtu))


@pytest.fixture(scope="module", params=["generic", "native"])
def both(request: pytest.FixtureRequest) -> Iterator[tuple[Tof, Vnfs]]:
    with running_tof(Setting(xdp=request.param, more=CONFIG)) as tof, contextlib.ExitStack() as stack:
        vnfs = Vnfs()
        stack.callback(lambda: [vnf.netns.close() for vnf in vnfs.values()])
        for name in SPEAKS:
            vnfs[name] = Vnf(tof, name)
            room(vnfs[name])
        tof.netns["apps"].run("ip", "address", "add", f"{APP_OTHER}/24", "dev", "eth0")
        for address in (APP, APP_OTHER, APP6):
            for port in (ECHO, BLOCKED):
                udp_echo(tof.netns["apps"], address, port)
        until("all of them live", lambda: not tof.metrics()["tof_vnfs_dead"], 20)
        yield tof, vnfs


@pytest.fixture
def tof(both: tuple[Tof, Vnfs]) -> Iterator[Tof]:
    tof, vnfs = both
    yield tof
    for vnf in vnfs.values():
        vnf.links("up")
        vnf.start()
        vnf.open()
        room(vnf)
    until("all of them live", lambda: not tof.metrics()["tof_vnfs_dead"], 20)
    put(tof)
    tof.drain()


@pytest.fixture
def vnfs(both: tuple[Tof, Vnfs]) -> Vnfs:
    return both[1]


def put(tof: Tof, *chains: dict[str, Any], services: tuple[tuple[str, str], ...] = ((SERVICE, APP),)) -> None:
    """Each service with the chain in its place; without chains, nothing at all."""
    body: dict[str, Any] = {
        "services": [
            {"name": f"s{n}", "serviceIP": service, "applicationIP": application, "chain": chain["name"]}
            for n, ((service, application), chain) in enumerate(zip(services, chains, strict=False))
        ]
    }
    if chains:
        body["chains"] = list(chains)
    assert tof.call("PUT", "/policy", body) == (200, body)


def chain(*vnfs: str, name: str = "a", **more: object) -> dict[str, Any]:
    return {"name": name, "vnfs": list(vnfs), **more}


@contextlib.contextmanager
def captured(vnf: Vnf, path: Path) -> Iterator[None]:
    """What is on the near side of a VNF, in a file."""
    file = path / f"{vnf.name}.pcap"
    argv = ["tcpdump", "-U", "--immediate-mode", "-i", "near", "-w", str(file), "not ether proto 0x88b5"]
    process = vnf.netns.start(*argv)
    assert process.stderr is not None
    while "listening" not in process.stderr.readline():
        pass
    try:
        yield
        time.sleep(0.3)
    finally:
        process.terminate()
        process.wait()


def read(vnf: Vnf, path: Path, *fields: str, only: str = "udp") -> list[tuple[str, ...]]:
    """What tshark makes of these fields, of each frame."""
    argv = ["tshark", "-r", str(path / f"{vnf.name}.pcap"), "-Y", only, "-T", "fields"]
    for name in fields:
        argv += ["-e", name]
    lines = subprocess.run(argv, check=True, text=True, capture_output=True).stdout.splitlines()
    return [tuple(line.split("\t")) for line in lines]


def nft(vnf: Vnf, *rules: str) -> None:
    vnf.firewall("\n".join(rules))


def headers(vnf: Vnf, path: Path) -> list[tuple[int, ...]]:
    """Version, TTL, length, MD type, next protocol, SPI, SI and the first context header of each frame."""
    names = ["version", "ttl", "length", "mdtype", "nextproto", "spi", "si", "contextheader"]
    rows = read(vnf, path, *(f"nsh.{name}" for name in names))
    return [(*(int(value, 0) for value in row[:-1]), int(row[-1].split(",")[0], 16)) for row in rows]


def test_vnfs_that_speak_nsh_get_it_and_others_plain_packets(tof: Tof, vnfs: Vnfs, tmp_path: Path) -> None:
    put(tof, chain("wall", "mute", "probe", nsh=77))
    bearer = attached(tof)
    with contextlib.ExitStack() as stack:
        for vnf in vnfs.values():
            stack.enter_context(captured(vnf, tmp_path))
        ask(tof, bearer, b"hello")
        got = answer(tof, b"hello")
    assert (got.teid, got.inner.source) == (bearer.down, SERVICE)
    for name, there, back in (("wall", 255, 250), ("probe", 253, 252)):
        wanted = [(0, 63, 6, 1, 3, 77, index, 0) for index in (there, back)]
        assert headers(vnfs[name], tmp_path) == wanted
        macs = read(vnfs[name], tmp_path, "eth.src", "eth.dst", "eth.type", "ip.src", "ip.dst", "udp.dstport")
        near, far = NEAR_MAC.hex(":"), FAR_MAC.hex(":")
        assert [one[0].split(",")[0] for one in macs] == [near, far]
        assert [one[1].split(",")[0] for one in macs] == [far, near]
        assert {one[2] for one in macs} == {"0x894f,0x0800"}
        assert [one[3:] for one in macs] == [(bearer.ue, SERVICE, "7"), (SERVICE, bearer.ue, "4000")]
    assert read(vnfs["mute"], tmp_path, "eth.type", "ip.dsfield", "nsh.spi") == [("0x0800", "0x00", "")] * 2
    assert read(vnfs["mute"], tmp_path, "frame.number", only="nsh") == []


def test_the_header_goes_on_with_what_a_vnf_wrote_into_it(tof: Tof, vnfs: Vnfs, tmp_path: Path) -> None:
    nft(
        vnfs["wall"],
        "ether type 0x894f @nh,56,8 255 @nh,64,32 set 0x1267",
        "ether type 0x894f @nh,56,8 255 @nh,56,8 set 254",  # as a service function has to
    )
    nft(vnfs["probe"], "ether type 0x894f @nh,56,8 253 @nh,64,32 set 0x1268")
    put(tof, chain("wall", "probe", nsh=77))
    bearer = attached(tof)
    with captured(vnfs["wall"], tmp_path), captured(vnfs["probe"], tmp_path):
        ask(tof, bearer, b"hello")
        answer(tof, b"hello")
    seen = {
        name: [(ttl, *rest) for _, ttl, _, _, _, *rest in headers(vnfs[name], tmp_path)]
        for name in ("wall", "probe")
    }
    assert seen["probe"] == [(62, 77, 254, 0x1267), (63, 77, 253, 0x1268)]
    assert seen["wall"] == [(63, 77, 255, 0), (62, 77, 252, 0x1268)]


@pytest.mark.parametrize("after", [(), ("probe",), ("mute",)], ids=str)
def test_a_vnf_may_give_back_metadata_of_the_other_type(tof: Tof, vnfs: Vnfs, after: tuple[str, ...]) -> None:
    nft(vnfs["wall"], "ether type 0x894f @nh,56,8 255 drop")  # this test is the VNF, on the way up
    put(tof, chain("wall", *after, nsh=77))
    bearer = attached(tof)
    near, far = (Wire(vnfs["wall"].netns, device) for device in ("near", "far"))
    with contextlib.closing(near), contextlib.closing(far):
        ask(tof, bearer, b"MD type 2")
        frame = near.find(lambda one: one[12:14] == b"\x89\x4f" and b"MD type 2" in one)
        assert frame is not None
        md2 = bytes.fromhex("0fc5020300004dfe0001aa08") + b"metadata"
        far.send(frame[:14] + md2 + frame[38:])
        answer(tof, b"MD type 2")


INNER_PORT = "@nh,480,16"
"""Of UDP in IPv4 in Ethernet in NSH."""


@pytest.mark.parametrize(
    ("first", "second", "rule"),
    [
        ({"nsh": 77}, {"nsh": 78}, f"ether type 0x894f @nh,32,24 78 {INNER_PORT} {BLOCKED} drop"),
        ({"dscp": 10}, {"dscp": 12}, f"ip dscp 12 udp dport {BLOCKED} drop"),
        ({"dscp": 0}, {"nsh": 78}, f"ether type 0x894f {INNER_PORT} {BLOCKED} drop"),
    ],
)
def test_a_shared_vnf_tells_chains_by_their_marks(
    tof: Tof, vnfs: Vnfs, first: dict[str, int], second: dict[str, int], rule: str
) -> None:
    nft(vnfs["wall"], rule)
    put(
        tof,
        chain("wall", name="a", **first),
        chain("mute", "wall", name="b", **second),
        services=((SERVICE, APP), (OTHER, APP_OTHER)),
    )
    bearer = attached(tof)
    for service, port, data, lets in (
        (SERVICE, BLOCKED, b"of the first, to 9", True),
        (OTHER, BLOCKED, b"of the second, to 9", False),
        (OTHER, ECHO, b"of the second, to 7", True),
    ):
        # The packet's own DSCP is the one that the rule is about: it does not count.
        tof.ran.send(bearer.uplink(udp(bearer.ue, service, 4000, port, data, tos=12 << 2)))
        if lets:
            answer(tof, data)
    tof.ran.silent(lambda one: b"of the second, to 9" in one.inner.data, 0.3)


def crossings(tof: Tof, bearer: Bearer, service: str, app: str) -> list[bytes]:
    """Packets of every DSCP and ECN, both ways: as the application gets them, then as the UE does."""
    apps, seen = tof.apps, []
    ethertype = 0x86DD if ":" in app else 0x0800
    apps.drain()
    for tos in range(256):
        tof.ran.send(bearer.uplink(udp(bearer.ue, service, 4000, ECHO, b"up %03d" % tos, 60, tos)))
        frame = apps.find(lambda frame, tos=tos: b"up %03d" % tos in frame and frame[:6] == APP_MAC)
        assert frame is not None, tos
        seen.append(frame[14:])
    tof.ran.drain()
    for tos in range(256):
        packet = udp(app, bearer.ue, ECHO, 4000, b"down %03d" % tos, 60, tos)
        apps.send(ethernet(packet, ethertype, (APP_MAC, GATEWAY_MAC)))
        got = tof.ran.gpdu(lambda one, tos=tos: one.inner.data == b"down %03d" % tos)
        seen.append(got.message.payload)
    return seen


@pytest.mark.parametrize("family", [4, 6])
def test_packets_are_byte_for_byte_as_without_a_mark(
    tof: Tof, vnfs: Vnfs, tmp_path: Path, family: int
) -> None:
    bearer = new_bearer() if family == 4 else new_bearer6()
    tof.attach(bearer)
    service, app = (SERVICE, APP) if family == 4 else (SERVICE6, APP6)
    seen = {}
    for mark in MARKS:
        put(tof, chain("wall", "mute", "probe", **mark), services=((service, app),))
        with captured(vnfs["probe"], tmp_path), captured(vnfs["mute"], tmp_path):
            seen[str(mark)] = crossings(tof, bearer, service, app)
        field = "ip.dsfield.dscp" if family == 4 else "ipv6.tclass.dscp"
        shown = {int(one[0]) for one in read(vnfs["probe"], tmp_path, field)}
        assert shown == ({10} if "dscp" in mark else set(range(64))), mark
        assert {int(one[0]) for one in read(vnfs["mute"], tmp_path, field)} == set(range(64)), mark
    plain = seen[str({})]
    assert len(plain) == 512
    assert all(packets == plain for packets in seen.values())


def test_a_service_is_still_selected_by_the_packet_s_own_dscp(tof: Tof) -> None:
    service = {"name": "s0", "serviceIP": SERVICE, "applicationIP": APP, "chain": "a", "dscp": [46]}
    body = {"services": [service], "chains": [chain("wall", "mute", dscp=10)]}
    assert tof.call("PUT", "/policy", body)[0] == 200
    bearer = attached(tof)
    tof.ran.send(bearer.uplink(udp(bearer.ue, SERVICE, 4000, ECHO, b"expedited", tos=46 << 2)))
    answer(tof, b"expedited")
    others = [bearer.uplink(udp(bearer.ue, SERVICE, 4001, ECHO, b"no", tos=dscp << 2)) for dscp in (0, 10)]
    for frame in others:
        tof.ran.send(frame)
        tof.core.expect(frame)


@pytest.mark.parametrize("mark", MARKS[2:], ids=str)
def test_fragments_are_marked_as_well(tof: Tof, vnfs: Vnfs, tmp_path: Path, mark: dict[str, int]) -> None:
    put(tof, chain("wall", "mute", "probe", **mark))
    bearer = attached(tof)
    data = bytes(range(256)) * 8
    with captured(vnfs["probe"], tmp_path):
        for piece in pieces(udp(bearer.ue, SERVICE, 4000, ECHO, data, tos=0xB8), 1000, 77):
            tof.ran.send(bearer.uplink(piece))
        got = tof.ran.gpdu(lambda one: one.inner.source == SERVICE)
    assert got.teid == bearer.down
    rows = read(vnfs["probe"], tmp_path, "nsh.spi", "ip.dsfield.dscp", only=f"ip.src == {bearer.ue}")
    assert rows == [("77", "46") if "nsh" in mark else ("", "10")] * 3


def test_marks_change_under_traffic_and_no_packet_is_lost(tof: Tof) -> None:
    put(tof, chain("wall", "probe"))
    bearer = attached(tof)
    with Stream(tof, bearer) as stream:
        for mark in (*MARKS, {"nsh": 78}, {"dscp": 63}, {"nsh": 77}, {"vlan": 40}, {}):
            for vnfs in (("wall", "probe"), ("probe", "mute", "wall"), ("wall",)):
                put(tof, chain(*vnfs, **mark))
                time.sleep(0.15)
    assert stream.sent > 300
    assert stream.answered() == stream.asked
    assert not [one for one in tof.core.gpdus() if one.inner.destination == SERVICE]


@pytest.mark.parametrize("mark", MARKS[2:], ids=str)
def test_a_dead_vnf_is_left_out_of_a_marked_chain(
    tof: Tof, vnfs: Vnfs, tmp_path: Path, mark: dict[str, int]
) -> None:
    pid = switch_pid(tof)
    put(tof, chain("wall", "mute", "probe", onFailure="skip", **mark))
    bearer = attached(tof)
    for dead in ("wall", "mute", "probe"):
        vnfs[dead].stop()
        until("it is found dead", lambda: tof.metrics()["tof_vnfs_dead"] == 1)
        others = [vnfs[name] for name in ("wall", "probe") if name != dead]
        with contextlib.ExitStack() as stack:
            for vnf in others:
                stack.enter_context(captured(vnf, tmp_path))
            soon_answered(tof, bearer, f"without {dead}")
        for vnf in others:
            rows = read(vnf, tmp_path, "nsh.si", "ip.dsfield.dscp")
            places = ("255", "250") if vnf.name == "wall" else ("253", "252")
            assert set(rows) == {(place, "0") if "nsh" in mark else ("", "10") for place in places}
        vnfs[dead].start()
        until("it is back", lambda: not tof.metrics()["tof_vnfs_dead"])
    assert switch_pid(tof) == pid


def soon_answered(tof: Tof, bearer: Bearer, what: str) -> None:
    """The agent says what has changed a moment before the switch does it."""
    for n in range(20):
        data = f"{what}, {n}".encode()
        ask(tof, bearer, data)
        with contextlib.suppress(AssertionError):
            answer(tof, data, 0.3)
            return
    pytest.fail(f"no answer {what}")


def switch_pid(tof: Tof) -> str:
    (file,) = (tof.dir / "run").rglob("*vswitchd.pid")
    return file.read_text()


@pytest.mark.parametrize("mark", MARKS[2:], ids=str)
def test_tcp_of_two_kernels_through_a_marked_chain(tof: Tof, mark: dict[str, int]) -> None:
    put(tof, chain("wall", "probe", "mute", **mark))
    bearer = attached(tof)
    data = os.urandom(1_000_000)
    with tof.netns["apps"].entered():
        server = socket.create_server((APP, 8088))

    def serve() -> None:
        peer, _ = server.accept()
        with peer:
            got = bytearray()
            while len(got) < len(data):
                got += peer.recv(1 << 20)
            peer.sendall(got)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    with server, ue_kernel(tof, bearer):
        with tof.netns["ran"].entered():
            connection = socket.create_connection((SERVICE, 8088), 5)
        with connection:
            connection.settimeout(30)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.sendall(data)
            back = bytearray()
            while len(back) < len(data) and (chunk := connection.recv(1 << 20)):
                back += chunk
        thread.join(5)
    assert bytes(back) == data


def test_the_largest_packet_fits_into_nsh(tof: Tof) -> None:
    put(tof, chain("wall", "probe", nsh=77))
    bearer = attached(tof)
    packet = udp(APP, bearer.ue, ECHO, 4000, bytes(1500 - 28))
    ask(tof, bearer, b"opens")
    answer(tof, b"opens")
    tof.apps.send(ethernet(packet, 0x0800, (APP_MAC, GATEWAY_MAC)))
    first = tof.ran.gpdu(lambda one: one.inner.source == SERVICE)  # cut to what fits into the tunnel
    assert first.teid == bearer.down


@pytest.mark.parametrize("inside", [False, True], ids=["its link", "inside of it"])
def test_a_vnf_without_room_for_nsh_is_dead(tof: Tof, vnfs: Vnfs, inside: bool) -> None:
    put(tof, chain("mute", "probe", nsh=77))
    bearer = attached(tof)
    if inside:
        vnfs["probe"].netns.run("ip", "link", "set", "far", "mtu", "1500")
    else:
        room(vnfs["probe"], 1500, inside_too=False)
    until("it is found dead", lambda: tof.get("/service/s0/status")["state"] == "broken_chain")
    detail = tof.get("/service/s0/status")["detail"]
    assert (
        "frames in a row" if inside else f"probe-i: MTU 1500 and probe-e: MTU 1500, less than {NSH_MTU}"
    ) in detail
    frame = bearer.uplink(udp(bearer.ue, SERVICE, 4001, ECHO, b"meanwhile"))
    tof.ran.send(frame)
    tof.core.expect(frame)
    room(vnfs["probe"])
    until("it is back", lambda: tof.get("/service/s0/status")["state"] == "in_force")
    soon_answered(tof, bearer, "after")


def test_a_vnf_that_does_not_take_every_packet_is_told_of(tof: Tof, vnfs: Vnfs) -> None:
    def told() -> dict[str, str]:
        return next(one for one in tof.get("/health")["checks"] if one["name"] == "vnfs")

    assert told()["state"] == "ok"
    room(vnfs["mute"], 1400)
    assert told()["state"] == "degraded"
    assert "not for every packet: mute (mute-i: MTU 1400 and mute-e: MTU 1400, less than 1500)" in str(told())
    assert not tof.metrics()["tof_vnfs_dead"]


def test_a_marked_chain_outlives_the_agent(tof: Tof) -> None:
    put(tof, chain("wall", "probe", nsh=77))
    before, rules = tof.get("/policy"), flows(tof)
    bearer = attached(tof)
    with Stream(tof, bearer) as stream:
        time.sleep(0.3)
        tof.signal(signal.SIGKILL)
        time.sleep(0.3)
        tof.start()
        time.sleep(0.5)
    assert (tof.get("/policy"), flows(tof)) == (before, rules)
    assert stream.answered() == stream.asked


def broken(seed: int, number: int) -> Iterator[bytes]:
    """Frames that a VNF should not give back."""
    chance = random.Random(seed)
    packet = udp("10.45.0.1", SERVICE, 1, 2, b"hello")
    inner = service_mac(1) + bytes.fromhex("0270000000070800") + packet
    head, base = FAR_MAC + NEAR_MAC + b"\x89\x4f", bytes.fromhex("0fc601030000") + b"\x4d\xff" + bytes(16)
    whole = head + base + inner
    for _ in range(number):
        frame, kind = bytearray(whole), chance.randrange(7)
        if kind == 0:
            del frame[chance.randrange(14, len(frame)) :]
        elif kind == 1:
            for _ in range(chance.randrange(1, 4)):
                frame[chance.randrange(14, len(frame))] = chance.randrange(256)
        elif kind == 2:
            frame[14:16] = (0xFC0 | chance.randrange(64)).to_bytes(2, "big")
        elif kind == 3:
            words = chance.randrange(64)
            variable = chance.randbytes(4 * max(0, words - 2))
            md2 = (0xFC0 | words).to_bytes(2, "big") + b"\x02\x03\0\0\x4d\xff"
            frame = bytearray(head + md2 + variable + inner)
        elif kind == 4:
            frame[17] = chance.choice([0, 1, 2, 4, 5, 255])
        elif kind == 5:
            for _ in range(chance.randrange(1, 12)):
                frame[:0] = head + base
        else:
            frame[38:] = chance.randbytes(chance.randrange(60))
        yield bytes(frame[:NSH_MTU])


def test_nothing_that_a_vnf_says_ends_open_vswitch(tof: Tof, vnfs: Vnfs) -> None:
    pid = switch_pid(tof)
    put(tof, chain("wall", "probe", "mute", nsh=77))
    bearer = attached(tof)
    for device in ("far", "near"):
        wire = Wire(vnfs["wall"].netns, device)
        with contextlib.closing(wire):
            for frame in broken(7, 2000):
                wire.send(frame)
    ask(tof, bearer, b"still here")
    answer(tof, b"still here")
    assert switch_pid(tof) == pid


def datapath(tof: Tof) -> list[str]:
    """Open vSwitch's flows between VNFs, the application and UEs, without their counts."""
    (control,) = (tof.dir / "run").rglob("*vswitchd.ctl")
    argv = ["ovs-appctl", "-t", str(control), "dpctl/dump-flows"]
    lines = subprocess.run(argv, check=True, text=True, capture_output=True).stdout.splitlines()
    return [line for line in lines if "eth_type(0x0800)" in line or "eth_type(0x894f)" in line]


@pytest.mark.parametrize("mark", MARKS, ids=str)
def test_datapath_flows_do_not_grow_with_ues(tof: Tof, mark: dict[str, int]) -> None:
    put(tof, chain("wall", "probe", "mute", **mark))
    bearers = [new_bearer() for _ in range(12)]
    tof.attach(*bearers)
    counts = []
    for half in (bearers[:6], bearers[6:]):
        for bearer in half:
            ask(tof, bearer, b"of " + bearer.ue.encode())
            answer(tof, b"of " + bearer.ue.encode())
        counts.append(len(datapath(tof)))
    assert counts[0] > 5
    assert counts[1] - counts[0] <= 4, "\n".join(datapath(tof))
    # A tunnel's address is looked at in the part that is the same in all of them, at most.
    assert not [flow for flow in datapath(tof) if re.search(r"eth\(src=02:70[0-9a-f:]*[,)]", flow)]


def test_marks_that_cannot_be_are_refused(tof: Tof) -> None:
    put(tof, chain("wall", nsh=77))
    before = tof.get("/policy")
    for chains, status, why in (
        ([chain("wall", nsh=5), chain("probe", name="b", nsh=5)], 409, "chains a and b have the same"),
        ([chain("wall", dscp=5), chain("wall", name="b", dscp=5)], 409, "share the VNF wall"),
        ([chain("wall", nsh=5, dscp=5)], 400, "one mark"),
        ([chain("wall", nsh=1 << 24)], 400, "nsh"),
        ([chain("mute", dscp=5)], 400, "none of its VNFs"),
    ):
        answered, problem = tof.call("PUT", "/policy", {"services": [], "chains": chains})
        assert (answered, why in problem["detail"]) == (status, True), problem
    assert tof.get("/policy") == before


def test_there_and_back_leaves_the_switch_as_it_was(tof: Tof) -> None:
    put(tof, chain("wall", "probe"))
    before = flows(tof)
    for mark in MARKS[1:]:
        put(tof, chain("wall", "probe", **mark))
        assert flows(tof) != before
        put(tof, chain("wall", "probe"))
        assert flows(tof) == before
