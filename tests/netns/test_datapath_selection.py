"""Services that select: by prefix, protocol, port, UE, node, VLAN and DSCP; what is selected, and what becomes of it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Iterator
from datetime import datetime
from ipaddress import ip_address, ip_network
from random import Random
from typing import Any

import pytest
from gtp_apps import udp_echo, ue_kernel
from gtp_packets import Bearer, cut, ip, new_bearer, new_bearer6, packed, pieces, udp
from gtp_peers import APP, APP6, Setting, Tof, running_tof, until

from tof.agent.service_body import parse
from tof.dataplane.selection import judge, overlap, rule_lists, uplink_facts
from tof.model import Mode, Service, TunnelKey

pytestmark = pytest.mark.netns

APP2, ECHO, OTHER = "192.168.50.11", 7, 9
ADDRESS, NETWORK = "203.0.113.70", "203.0.113.64/26"


@pytest.fixture(scope="module", params=["generic", "native"])
def tof(request: pytest.FixtureRequest) -> Iterator[Tof]:
    with running_tof(Setting(xdp=request.param)) as running:
        apps = running.netns["apps"]
        apps.run("ip", "address", "add", f"{APP2}/24", "dev", "eth0")
        for address, port in ((APP, ECHO), (APP, OTHER), (APP2, ECHO), (APP6, ECHO)):
            udp_echo(apps, address, port)
        yield running


@pytest.fixture(autouse=True)
def _fresh(tof: Tof) -> None:
    tof.drain()


@contextlib.contextmanager
def services(tof: Tof, *bodies: dict[str, Any]) -> Iterator[None]:
    """These services are in force while the block lasts."""
    names = []
    try:
        for number, body in enumerate(bodies):
            whole = {"name": f"s{number}", "applicationIP": APP, **body}
            status, answer = tof.call("POST", "/service", whole)
            assert status == 200, answer
            names.append(whole["name"])
        yield
    finally:
        for name in names:
            tof.call("DELETE", f"/service/{name}")


def said(bearer: Bearer, to: str, data: bytes, port: int = ECHO, own_port: int = 4000, tos: int = 0) -> bytes:
    return bearer.uplink(udp(bearer.ue, to, own_port, port, data, tos=tos))


def is_answered(tof: Tof, bearer: Bearer, to: str, data: bytes, port: int = ECHO) -> None:
    """The application's answer comes from where the UE asked."""
    one = tof.ran.gpdu(lambda one: one.inner.data == b"app:" + data)
    assert (one.inner.source, one.inner.ports, one.teid) == (to, (port, 4000), bearer.down)
    assert one.inner.checksum_right


def passes(tof: Tof, frame: bytes) -> None:
    """The core gets it as it was sent."""
    tof.ran.send(frame)
    tof.core.expect(frame)


def test_a_prefix_is_answered_from_each_of_its_addresses(tof: Tof) -> None:
    bearer, six = new_bearer(), new_bearer6()
    tof.attach(bearer, six)
    with services(
        tof, {"serviceIP": NETWORK}, {"serviceIP": "2001:db8:113:8000::/49", "applicationIP": APP6}
    ):
        for one, to in ((bearer, "203.0.113.65"), (bearer, "203.0.113.126"), (six, "2001:db8:113:ffff::9")):
            data = os.urandom(9)
            tof.ran.send(said(one, to, data))
            is_answered(tof, one, to, data)
        passes(tof, said(bearer, "203.0.113.63", b"beside"))
        passes(tof, said(six, "2001:db8:113:7fff::9", b"beside"))


def test_everything_but_what_cannot_be_a_servers_address(tof: Tof) -> None:
    bearer = new_bearer()
    tof.attach(bearer)
    with services(tof, {"serviceIP": "0.0.0.0/0", "protocol": "udp", "ports": [ECHO]}):
        tof.ran.send(said(bearer, "198.51.100.99", b"any"))
        is_answered(tof, bearer, "198.51.100.99", b"any")
        for to in ("224.0.0.251", "169.254.1.1", "255.255.255.255"):
            passes(tof, said(bearer, to, b"no server's"))


def test_ports_of_one_address_belong_to_different_applications(tof: Tof) -> None:
    bearer = new_bearer()
    tof.attach(bearer)
    with services(
        tof,
        {"serviceIP": ADDRESS, "protocol": "udp", "ports": [ECHO]},
        {"serviceIP": ADDRESS, "protocol": "udp", "ports": ["80-89"], "applicationIP": APP2, "priority": 5},
    ):
        tof.ran.send(said(bearer, ADDRESS, b"seven"))
        _, one = tof.apps.packet(lambda one: one.data == b"seven")
        assert one.destination == APP
        is_answered(tof, bearer, ADDRESS, b"seven")
        tof.ran.send(said(bearer, ADDRESS, b"eighty", 80), said(bearer, ADDRESS, b"eighty nine", 89))
        for data in (b"eighty", b"eighty nine"):
            _, one = tof.apps.packet(lambda one, data=data: one.data == data)
            assert one.destination == APP2
        passes(tof, said(bearer, ADDRESS, b"ninety", 90))


def test_the_applications_own_port(tof: Tof) -> None:
    bearer = new_bearer()
    tof.attach(bearer)
    with services(tof, {"serviceIP": ADDRESS, "protocol": "udp", "ports": [5353], "applicationPort": ECHO}):
        tof.ran.send(said(bearer, ADDRESS, b"mapped", 5353))
        is_answered(tof, bearer, ADDRESS, b"mapped", 5353)


@pytest.mark.parametrize("address", [APP, APP6])
def test_a_tcp_connection_to_the_applications_own_port(tof: Tof, address: str) -> None:
    bearer, to = (new_bearer(), ADDRESS) if address == APP else (new_bearer6(), "2001:db8:113::70")
    tof.attach(bearer)
    apps, ran = tof.netns["apps"], tof.netns["ran"]
    family = socket.AF_INET if address == APP else socket.AF_INET6
    body = {"serviceIP": to, "protocol": "tcp", "ports": [80], "applicationPort": 8080}
    with apps.entered():
        server = socket.create_server((address, 8080), family=family)
    with server, services(tof, body | {"applicationIP": address}), ue_kernel(tof, bearer):
        with ran.entered():
            client = socket.create_connection((to, 80), timeout=10)
        with client:
            peer, _ = server.accept()
            with peer:
                sent = os.urandom(300_000)
                client.settimeout(20)
                client.sendall(sent[:1000])
                assert peer.recv(1000, socket.MSG_WAITALL) == sent[:1000]
                peer.sendall(sent)
                assert client.makefile("rb").read(len(sent)) == sent


def test_what_only_some_ues_nodes_vlans_and_classes_get(tof: Tof) -> None:
    plain, tagged, far = new_bearer(), new_bearer(vlan=31), new_bearer(enb="10.1.0.77", sgw="10.1.0.7")
    tof.attach(plain, tagged, far)
    for body, chosen, tos in (
        ({"ues": [plain.ue]}, plain, 0),
        ({"vlans": [31]}, tagged, 0),
        ({"vlans": [0], "ues": [f"{plain.ue}", f"{tagged.ue}"]}, plain, 0),
        ({"enbs": ["10.1.0.64/26"]}, far, 0),
        ({"sgws": ["10.1.0.7"]}, far, 0),
        ({"dscp": [46], "ues": [plain.ue]}, plain, 46 << 2),
    ):
        with services(tof, {"serviceIP": ADDRESS, **body}):
            data = os.urandom(8)
            tof.ran.send(said(chosen, ADDRESS, data, tos=tos))
            is_answered(tof, chosen, ADDRESS, data)
            for other in {plain, tagged, far} - {chosen}:
                passes(tof, said(other, ADDRESS, os.urandom(8), tos=tos))
            if tos:
                passes(tof, said(chosen, ADDRESS, os.urandom(8)))


def test_the_higher_priority_and_the_longer_prefix_come_first(tof: Tof) -> None:
    bearer, other = new_bearer(), new_bearer()
    tof.attach(bearer, other)
    with services(
        tof,
        {"serviceIP": NETWORK},
        {"serviceIP": ADDRESS, "applicationIP": APP2},
        {"serviceIP": NETWORK, "applicationIP": APP, "ues": [other.ue], "priority": 1},
    ):
        for one, to, application in (
            (bearer, ADDRESS, APP2), (bearer, "203.0.113.71", APP), (other, ADDRESS, APP),
        ):  # fmt: skip
            data = os.urandom(8)
            tof.ran.send(said(one, to, data))
            _, got = tof.apps.packet(lambda one, data=data: one.data == data)
            assert got.destination == application


def test_a_shadow_diverts_nothing_and_counts_what_it_would(tof: Tof) -> None:
    bearer = new_bearer()
    tof.attach(bearer)
    with services(
        tof, {"name": "shade", "serviceIP": ADDRESS, "mode": "shadow", "applicationIP": "192.168.50.99"}
    ):
        before = tof.packets("shadowed")
        for n in range(5):
            passes(tof, said(bearer, ADDRESS, b"shadowed %d" % n))
        passes(tof, said(bearer, "203.0.113.1", b"not selected"))
        assert tof.packets("shadowed") - before == 5
        assert tof.metrics()['tof_service_packets_total{service="shade}'] == 5
        assert (
            tof.call("PUT", "/service/shade", {"name": "shade", "serviceIP": ADDRESS, "applicationIP": APP})[
                0
            ]
            == 200
        )
        tof.ran.send(said(bearer, ADDRESS, b"diverted now", own_port=4000))
        is_answered(tof, bearer, ADDRESS, b"diverted now")


def test_an_unresolved_service_keeps_its_packets_from_those_below(tof: Tof) -> None:
    bearer = new_bearer()
    tof.attach(bearer)
    with services(
        tof, {"serviceIP": NETWORK}, {"name": "gone", "serviceIP": ADDRESS, "applicationIP": "192.168.50.98"}
    ):
        assert tof.get("/service/gone/status")["state"] == "unresolved"
        passes(tof, said(bearer, ADDRESS, b"to the core"))


def test_fragments_of_a_service_that_looks_at_ports(tof: Tof) -> None:
    """Inner ones follow their first, outer ones are judged whole; a later one without its first is nobody's."""
    bearer = new_bearer()
    tof.attach(bearer)
    with services(tof, {"serviceIP": ADDRESS, "protocol": "udp", "ports": [ECHO], "applicationIP": APP2}):
        data = os.urandom(2000)
        packet = udp(bearer.ue, ADDRESS, 4000, ECHO, data)
        for one in pieces(packet, 1000, 77):
            tof.ran.send(bearer.uplink(one))
        came = [
            tof.apps.packet(lambda one: one.source == bearer.ue)[1]
            for _ in range(len(pieces(packet, 1000, 77)))
        ]
        assert sum(len(one.segment) for one in came) == len(data) + 8
        whole = udp(bearer.ue, ADDRESS, 4000, ECHO, data[:1400])
        tof.ran.send(*cut(bearer.uplink(whole), 600))
        is_answered(tof, bearer, ADDRESS, data[:1400])
        for one in pieces(udp(bearer.ue, ADDRESS, 4000, OTHER, data), 1000, 78):
            passes(tof, bearer.uplink(one))
        later = bearer.uplink(pieces(packet, 1000, 79)[-1])
        passes(tof, later)


def test_a_change_disturbs_nobody_else(tof: Tof) -> None:
    """A hundred exchanges while services beside, above and below come and go."""
    bearer = new_bearer()
    tof.attach(bearer)
    with services(tof, {"name": "kept", "serviceIP": ADDRESS, "protocol": "udp", "ports": [ECHO]}):
        for n in range(20):
            other = {"name": "other", "applicationIP": APP2} | (
                {"serviceIP": NETWORK} if n % 2 else {"serviceIP": ADDRESS, "protocol": "tcp"}
            )
            assert tof.call("POST", "/service", other)[0] == 200
            for step in range(5):
                data = b"%d %d" % (n, step)
                tof.ran.send(said(bearer, ADDRESS, data))
                is_answered(tof, bearer, ADDRESS, data)
            assert tof.call("DELETE", "/service/other")[0] == 200
        assert not [one for one in tof.core.gpdus() if one.inner.destination == ADDRESS]


def test_a_killed_agent_s_successor_judges_as_it_did(tof: Tof) -> None:
    bearer = new_bearer()
    tof.attach(bearer)
    with services(
        tof,
        {"serviceIP": NETWORK, "protocol": "udp", "ports": [ECHO], "ues": [bearer.ue], "name": "one"},
        {"serviceIP": ADDRESS, "mode": "shadow", "priority": 1, "vlans": [99], "name": "two"},
    ):
        tof.ran.send(said(bearer, ADDRESS, b"before"))
        is_answered(tof, bearer, ADDRESS, b"before")
        packets = 'tof_service_packets_total{service="one}'
        before = tof.metrics()[packets]
        tof.signal(signal.SIGKILL)
        tof.ran.send(said(bearer, ADDRESS, b"without an agent"))
        is_answered(tof, bearer, ADDRESS, b"without an agent")
        tof.start()
        tof.ran.send(said(bearer, ADDRESS, b"after"))
        is_answered(tof, bearer, ADDRESS, b"after")
        assert tof.metrics()[packets] == before + 2


def drawn(random: Random, number: int, bearers: tuple[Bearer, ...]) -> dict[str, Any]:
    """A service, of few addresses and many selections."""
    at = random.choice(
        (NETWORK, "203.0.113.64/28", "203.0.112.0/23", ADDRESS, "203.0.113.71", "203.0.113.100")
    )
    body: dict[str, Any] = {
        "name": f"drawn-{number}",
        "serviceIP": at,
        "applicationIP": random.choice((APP, APP2)),
    }
    body["priority"] = random.randrange(-2, 3)
    body["mode"] = random.choice(("divert", "divert", "shadow"))
    wanted = random.sample(("protocol", "ports", "dscp", "ues", "enbs", "vlans"), random.randrange(4))
    if "protocol" in wanted or "ports" in wanted:
        body["protocol"] = (
            random.choice(("udp", "udp", "sctp")) if "ports" in wanted else random.choice(("udp", 132, 50))
        )
    if "ports" in wanted:
        body["ports"] = [random.randrange(1, 6), f"{random.randrange(6, 8)}-{random.randrange(8, 11)}"]
    if "dscp" in wanted:
        body["dscp"] = random.sample((0, 8, 46), 2)
    if "ues" in wanted:
        body["ues"] = [
            random.choice(bearers).ue,
            str(ip_network((random.choice(bearers).ue, 31), strict=False)),
        ]
    if "enbs" in wanted:
        body["enbs"] = ["10.1.0.64/26"]
    if "vlans" in wanted:
        body["vlans"] = random.sample((0, 31, 32), 2)
    return body


@pytest.mark.parametrize("seed", range(4))
def test_the_data_path_judges_as_the_words_say_packet_for_packet(tof: Tof, seed: int) -> None:
    """Services and packets drawn at random: to whom each packet goes is what ``selection.judge`` says."""
    random = Random(seed)
    bearers = (new_bearer(), new_bearer(vlan=31), new_bearer(enb="10.1.0.77"), new_bearer())
    tof.attach(*bearers)
    bodies: list[dict[str, Any]] = []
    known: list[Service] = []
    while len(known) < 12:
        body = drawn(random, len(known), bearers)
        if not any(overlap(parse(body), other) for other in known):
            bodies.append(body)
            known.append(parse(body))
    lists, expected, seen = rule_lists(known), {}, {}
    with services(tof, *bodies):
        for number in range(150):
            bearer, token = random.choice(bearers), b"token %03d" % number
            to = f"203.0.{random.choice((112, 113, 113, 113))}.{random.choice((64, 70, 71, 79, 100, 200))}"
            ports = (5000 + number).to_bytes(2, "big") + random.randrange(1, 12).to_bytes(2, "big")
            protocol = random.choice((17, 17, 17, 132, 50))
            segment = ports + (8 + len(token)).to_bytes(2, "big") + bytes(2) + token
            packet = ip(bearer.ue, to, protocol, segment, tos=random.choice((0, 8 << 2, 46 << 2)))
            key = TunnelKey(packed(bearer.enb), packed(bearer.sgw), bearer.up, bearer.vlan)
            rule = judge(lists, uplink_facts(key, packet))
            diverted = rule is not None and rule.service.mode is Mode.DIVERT
            expected[token] = str(rule.service.application_ip) if rule and diverted else "core"
            tof.ran.send(bearer.uplink(packet))
        assert {"core"} < {*expected.values()}

        def all_there() -> bool:
            tof.apps.find(lambda _: False, 0.05)
            tof.core.find(lambda _: False, 0.05)
            for frame in (*tof.apps.history, *tof.core.history):
                at = frame.find(b"token ")
                if at >= 0:
                    core = frame in core_frames
                    seen[frame[at : at + 9]] = "core" if core else str(ip_address(frame[30:34]))
            return len(seen) == len(expected)

        core_frames = tof.core.history
        until("every packet is somewhere", all_there)
    assert seen == expected


def test_outside_of_its_hours_a_service_has_nothing(tof: Tof) -> None:
    """Days far enough from today, and today with its neighbours: midnight may pass while this runs."""
    days = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
    today = datetime.now().astimezone().weekday()
    now, later = ([",".join(days[(today + n) % 7] for n in near)] for near in ((-1, 0, 1), (3,)))
    bearer = new_bearer()
    tof.attach(bearer)
    body = {"name": "hourly", "serviceIP": ADDRESS, "applicationIP": APP}
    with services(tof, {**body, "hours": later}):
        status = tof.get("/service/hourly/status")
        assert (status["state"], status["detail"]) == ("out_of_hours", later[0])
        passes(tof, said(bearer, ADDRESS, b"too early"))
        assert tof.call("PUT", "/service/hourly", {**body, "hours": now})[0] == 200
        tof.ran.send(said(bearer, ADDRESS, b"in time"))
        is_answered(tof, bearer, ADDRESS, b"in time")
        assert tof.get("/service/hourly/status")["state"] == "in_force"
