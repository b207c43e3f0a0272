"""Several applications behind one service: shares, deaths, returns; a flow that has begun stays where it is."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from gtp_apps import ue_kernel
from gtp_packets import Bearer, gpdu_of, new_bearer, new_bearer6, pieces, udp
from gtp_peers import APP, APP6, Setting, Tof, running_tof, until
from netns_helper import Netns

from tof.dataplane.desired import ServedApplication
from tof.dataplane.spreading import ends_of, slot_of, slots
from tof.model import IpAddress, OnDeath, Spread, SpreadBy, ip_address

pytestmark = pytest.mark.netns

PORT = 7
SERVICE, SERVICE6 = "203.0.113.10", "2001:db8:113::10"
APPS = [APP, "192.168.50.11", "192.168.50.12"]
APPS6 = [APP6, "fd00:50::11"]
NAMES = {**{address: b"%d:" % n for n, address in enumerate(APPS)}, APP6: b"six:", APPS6[1]: b"seven:"}
FAST = {"kind": "tcp", "port": PORT, "interval": 0.1, "timeout": 0.3, "fall": 2}

_SERVER = """\
import select, socket, sys
name, address, port = sys.argv[1].encode(), sys.argv[2], int(sys.argv[3])
family = socket.AF_INET6 if ":" in address else socket.AF_INET
datagrams, listener = socket.socket(family, socket.SOCK_DGRAM), socket.socket(family, socket.SOCK_STREAM)
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
for one in (datagrams, listener):
    one.bind((address, port))
listener.listen()
print("ready", flush=True)
open_ones = [datagrams, listener]
while True:
    for one in select.select(open_ones, [], [])[0]:
        if one is datagrams:
            data, peer = one.recvfrom(65535)
            one.sendto(name + data, peer)
        elif one is listener:
            open_ones.append(one.accept()[0])
        else:
            try:
                data = one.recv(65535)
            except OSError:
                data = b""
            if data:
                one.sendall(name + data)
            else:
                open_ones.remove(one)
                one.close()
"""


class Applications:
    """The applications, each a process that says its name before what it was sent."""

    def __init__(self, netns: Netns) -> None:
        self._netns = netns
        self._running: dict[str, Any] = {}

    def start(self, address: str) -> None:
        if address in self._running:
            return
        process = self._netns.start(
            sys.executable, "-c", _SERVER, NAMES[address].decode(), address, str(PORT)
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        self._running[address] = process

    def end(self, address: str) -> None:
        process = self._running.pop(address)
        process.send_signal(signal.SIGKILL)
        process.wait()


@pytest.fixture(scope="module", params=["generic", "native"])
def tof(request: pytest.FixtureRequest) -> Iterator[Tof]:
    with running_tof(Setting(xdp=request.param)) as running:
        for address in APPS[1:]:
            running.netns["apps"].run("ip", "address", "add", f"{address}/24", "dev", "eth0")
        running.netns["apps"].run("ip", "address", "add", f"{APPS6[1]}/64", "dev", "eth0", "nodad")
        yield running


@pytest.fixture(scope="module")
def _applications(tof: Tof) -> Applications:
    return Applications(tof.netns["apps"])


@pytest.fixture
def applications(tof: Tof, _applications: Applications) -> Applications:
    for address in NAMES:
        _applications.start(address)
    tof.drain()
    return _applications


@contextlib.contextmanager
def service(tof: Tof, name: str = "spread", **spread: Any) -> Iterator[dict[str, Any]]:
    body = {
        "name": name, "serviceIP": SERVICE, "applicationIP": APP, "health": FAST,
        "spread": {"applications": APPS[1:], **spread},
    }  # fmt: skip
    status, answer = tof.call("POST", "/service", body)
    assert (status, answer) == (200, body)
    until("all applications live", lambda: tof.get(f"/service/{name}/status")["detail"] == "")
    try:
        yield body
    finally:
        tof.call("DELETE", f"/service/{name}")


def detail(tof: Tof, name: str = "spread") -> str:
    return str(tof.get(f"/service/{name}/status")["detail"])


def dies(tof: Tof, applications: Applications, address: str) -> None:
    applications.end(address)
    until("the application is known to be dead", lambda: address in detail(tof))


def lives(tof: Tof, applications: Applications, address: str) -> None:
    applications.start(address)
    until("the application is known to live", lambda: address not in detail(tof))


def frame_of(bearer: Bearer, data: bytes, port: int) -> bytes:
    return bearer.uplink(udp(bearer.ue, SERVICE6 if ":" in bearer.ue else SERVICE, port, PORT, data))


def who(tof: Tof, bearer: Bearer, port: int = 4000) -> bytes:
    """The name of the application that answers, or that it was the core that got it."""
    data = os.urandom(6)
    frame = frame_of(bearer, data, port)
    tof.ran.send(frame)
    names = {name + data: name for name in NAMES.values()}

    def answered(one: bytes) -> bool:
        found = gpdu_of(one)
        return found is not None and found.teid == bearer.down and found.inner.data in names

    answer = tof.ran.find(answered, 1.0)
    if answer is None:
        tof.core.expect(frame)
        return b"core"
    found = gpdu_of(answer)
    assert found is not None
    return names[found.inner.data]


def test_in_order_the_next_one_stands_in_and_flows_stay(tof: Tof, applications: Applications) -> None:
    bearer = new_bearer()
    tof.attach(bearer)
    with service(tof):
        assert [who(tof, bearer, port) for port in range(4000, 4020)] == [b"0:"] * 20
        dies(tof, applications, APPS[0])
        assert who(tof, bearer, 4000) == b"1:"
        assert who(tof, bearer, 4100) == b"1:"
        lives(tof, applications, APPS[0])
        assert who(tof, bearer, 4100) == b"1:"  # has begun there
        assert who(tof, bearer, 4200) == b"0:"
        for address in APPS[:2]:
            dies(tof, applications, address)
        assert who(tof, bearer, 4100) == b"2:"
        dies(tof, applications, APPS[2])
        until("the core has it", lambda: who(tof, bearer, 4300) == b"core")
        assert tof.get("/service/spread/status")["state"] == "unhealthy"


def chosen(living: list[str], packet: bytes, by: SpreadBy, on_death: OnDeath = OnDeath.NEXT) -> bytes:
    """What the pure module says."""
    addresses: list[IpAddress] = [ip_address(address) for address in APPS]
    applications = [
        ServedApplication(address, 1 + n, str(address) in living) for n, address in enumerate(addresses)
    ]
    number = slots(applications, Spread(tuple(addresses[1:]), by, on_death))[slot_of(ends_of(packet), by)]
    return b"core" if number == 0 else NAMES[APPS[number - 1]]


def test_ues_are_shared_and_a_death_moves_the_dead_one_s_alone(tof: Tof, applications: Applications) -> None:
    bearers = [new_bearer() for _ in range(24)]
    tof.attach(*bearers)
    with service(tof, by="ue"):
        packets = {bearer: udp(bearer.ue, SERVICE, 4000, PORT, b"") for bearer in bearers}
        before = {bearer: who(tof, bearer) for bearer in bearers}
        assert before == {one: chosen(APPS, packets[one], SpreadBy.UE) for one in bearers}
        assert len(set(before.values())) == 3
        assert all(
            who(tof, bearer, 4001) == before[bearer] for bearer in bearers
        )  # of the UE, not of the flow
        dies(tof, applications, APPS[1])
        after = {bearer: who(tof, bearer) for bearer in bearers}
        assert after == {one: chosen([APPS[0], APPS[2]], packets[one], SpreadBy.UE) for one in bearers}
        assert all(after[one] == before[one] for one in bearers if before[one] != b"1:")
        lives(tof, applications, APPS[1])
        assert {one: who(tof, one) for one in bearers} == after  # flows that have begun
        assert {one: who(tof, one, 4100) for one in bearers} == before


def test_flows_are_shared_and_the_dead_one_s_go_to_the_core(tof: Tof, applications: Applications) -> None:
    bearer = new_bearer()
    tof.attach(bearer)
    with service(tof, by="flow", onDeath="core"):
        ports = range(5000, 5030)
        packets = {port: udp(bearer.ue, SERVICE, port, PORT, b"") for port in ports}
        before = {port: who(tof, bearer, port) for port in ports}
        assert before == {port: chosen(APPS, packets[port], SpreadBy.FLOW) for port in ports}
        assert min(Counter(before.values()).values()) > 2
        dies(tof, applications, APPS[2])
        wanted = {port: b"core" if name == b"2:" else name for port, name in before.items()}
        assert {port: who(tof, bearer, port) for port in ports} == wanted
        assert tof.packets("no_application") >= list(wanted.values()).count(b"core")


def test_connections_stay_with_their_application(tof: Tof, applications: Applications) -> None:
    """Real TCP: over the return of the first in order, over PUT, over a restart of the agent."""
    bearer = new_bearer()
    tof.attach(bearer)
    with service(tof) as body, ue_kernel(tof, bearer), contextlib.ExitStack() as stack:

        def connect() -> socket.socket:
            with tof.netns["ran"].entered():
                one = stack.enter_context(socket.socket())
            one.settimeout(5)
            one.bind((bearer.ue, 0))
            one.connect((SERVICE, PORT))
            return one

        def says(one: socket.socket, name: bytes) -> None:
            one.sendall(b"hello")
            assert one.recv(100) == name + b"hello"

        first = connect()
        says(first, b"0:")
        dies(tof, applications, APPS[0])
        second = connect()
        says(second, b"1:")
        lives(tof, applications, APPS[0])
        says(second, b"1:")
        third = connect()
        says(third, b"0:")
        body["spread"]["applications"] = [APPS[1]]
        assert tof.call("PUT", "/service/spread", body)[0] == 200
        for one, name in ((second, b"1:"), (third, b"0:")):
            says(one, name)
        tof.signal(signal.SIGKILL)
        says(second, b"1:")
        tof.start()
        for one, name in ((second, b"1:"), (third, b"0:")):
            says(one, name)
        # Its application is none of the service's any more: it is no connection of the service's either.
        del body["spread"]
        assert tof.call("PUT", "/service/spread", body)[0] == 200
        tof.core.drain()
        second.sendall(b"anybody?")
        assert tof.core.gpdu(lambda one: one.inner.destination == SERVICE).inner.data.endswith(b"anybody?")
        says(third, b"0:")


def test_ipv6_ues_and_fragments(tof: Tof, applications: Applications) -> None:
    six = new_bearer6()
    tof.attach(six)
    body = {
        "name": "six", "serviceIP": SERVICE6, "applicationIP": APP6,
        "spread": {"applications": APPS6[1:], "by": "flow"},
    }  # fmt: skip
    assert tof.call("POST", "/service", body)[0] == 200
    assert len({who(tof, six, port) for port in range(4000, 4030)} - {b"core"}) == 2
    tof.call("DELETE", "/service/six")
    bearer = new_bearer()
    tof.attach(bearer)
    with service(tof, by="flow"):
        for port in range(6000, 6012):
            name = who(tof, bearer, port)
            whole = udp(bearer.ue, SERVICE, port, PORT, bytes(1200))
            tof.ran.send(*(bearer.uplink(piece) for piece in pieces(whole, 600, port)))
            answer = tof.ran.gpdu(lambda one: one.teid == bearer.down and one.inner.destination == bearer.ue)
            assert answer.message.payload[28 : 28 + len(name)] == name  # of the flow's own application
            tof.drain()


def test_what_an_application_says_first_is_answered_to_it(tof: Tof, applications: Applications) -> None:
    """By whichever of them, whatever the share of the UE."""
    bearers = [new_bearer() for _ in range(6)]
    tof.attach(*bearers)
    with service(tof, by="ue"):
        for port, address in enumerate(APPS, 9000):
            with tof.netns["apps"].entered():
                speaker = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            with contextlib.closing(speaker):
                speaker.bind((address, port))
                speaker.settimeout(3)
                for bearer in bearers:
                    speaker.sendto(b"knock", (bearer.ue, 9001))
                    came = tof.ran.to_ue(bearer.ue)
                    assert (came.inner.source, came.inner.data) == (SERVICE, b"knock")
                    tof.ran.send(bearer.uplink(udp(bearer.ue, SERVICE, 9001, port, b"yes")))
                    assert speaker.recv(100) == b"yes"
