"""The DNS server at the edge: unbound under the TOF's control, asked by UEs' kernels and by dig through their tunnels."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gtp_apps import udp_echo, ue_kernel
from gtp_names import asking, question, unbound
from gtp_packets import Bearer, new_bearer, new_bearer6, packed, udp
from gtp_peers import APP, Setting, Tof, running_tof, until

pytestmark = pytest.mark.netns

DNS, DNS6, DIVERTED, DIVERTED6 = "192.168.50.53", "fd00:50::53", "203.0.113.53", "2001:db8:113::53"
UPSTREAM = "10.99.0.53"
CINEMA = {
    "name": "cinema",
    "domain": "cinema.example.com",
    "serviceIP": "203.0.113.70",
    "applicationIP": APP,
}
_DNS = f"""\
least_hold_s = 1
server = "unbound"
listen = ["{DNS}", "{DNS6}"]
divert = ["{DIVERTED}", "{DIVERTED6}"]
upstream = "{UPSTREAM}"
"""


@pytest.fixture(scope="module")
def tof() -> Iterator[Tof]:
    with running_tof(Setting(dns=_DNS)) as running:
        node = running.netns["tof"]
        node.run("ip", "address", "add", f"{UPSTREAM}/32", "dev", "lo")
        records = ("other.example.com. 300 IN A 198.51.100.99", "learnt.example.com. 300 IN A 203.0.113.90")
        udp_echo(running.netns["apps"], APP)
        with unbound(node, running.dir, UPSTREAM, *records, "cinema.example.com. 300 IN A 198.51.100.98"):
            yield running


@pytest.fixture(autouse=True)
def _fresh(tof: Tof) -> None:
    until("the edge answers", lambda: in_force(tof), 10)
    tof.drain()


def in_force(tof: Tof) -> bool:
    told = tof.netns["tof"].run(
        "dig", "+short", "+tries=1", "+time=1", f"@{DNS}", "other.example.com", check=False
    )
    return told == "198.51.100.99\n"


@contextlib.contextmanager
def service(tof: Tof, body: dict[str, Any]) -> Iterator[None]:
    status, answer = tof.call("POST", "/service", body)
    assert status == 200, answer
    try:
        yield
    finally:
        tof.call("DELETE", f"/service/{body['name']}")


def dig(tof: Tof, *words: str) -> list[str]:
    """What a UE's dig says, through its tunnel."""
    said = tof.netns["ran"].run("dig", "+short", "+tries=2", "+time=2", *words)
    return said.splitlines()


@pytest.mark.parametrize("transport", ["+notcp", "+tcp"])
@pytest.mark.parametrize("server", [DIVERTED, DIVERTED6])
def test_dig_through_a_tunnel_is_answered_at_the_edge(tof: Tof, server: str, transport: str) -> None:
    bearer = new_bearer6() if ":" in server else new_bearer()
    tof.attach(bearer)
    with ue_kernel(tof, bearer):
        asked = (f"@{server}", transport)
        assert dig(tof, *asked, "cinema.example.com") == ["198.51.100.98"]
        with service(tof, CINEMA):
            # A 200 means that it is answered.
            assert dig(tof, *asked, "cinema.example.com") == ["203.0.113.70"]
            assert dig(tof, *asked, "cinema.example.com", "AAAA") == []
            assert dig(tof, *asked, "other.example.com") == ["198.51.100.99"]
        assert dig(tof, *asked, "cinema.example.com") == ["198.51.100.98"]
    assert not [
        one for one in tof.core.gpdus() if 53 in (one.inner.ports if one.inner.protocol in (6, 17) else ())
    ]


def test_the_answer_looks_as_from_the_server_that_was_asked(tof: Tof) -> None:
    bearer = new_bearer(qfi=5, vlan=7)
    tof.attach(bearer)
    with service(tof, CINEMA):
        asked = question("cinema.example.com")
        port, frame = asking(bearer, asked, DIVERTED)
        tof.ran.send(frame)
        one = tof.ran.gpdu(lambda one: one.inner.ports == (53, port))
        assert (one.inner.source, one.teid, one.vlan) == (DIVERTED, bearer.down, 7)
        assert one.inner.checksum_right
        data = b"to the address that the edge said"
        tof.ran.send(bearer.uplink(udp(bearer.ue, "203.0.113.70", 4000, 7, data)))
        assert tof.ran.gpdu(lambda one: one.inner.data == b"app:" + data).inner.source == "203.0.113.70"


def test_other_traffic_to_the_servers_address_passes(tof: Tof) -> None:
    bearer = new_bearer()
    tof.attach(bearer)
    frame = bearer.uplink(udp(bearer.ue, DIVERTED, 4000, 54, b"no DNS"))
    tof.ran.send(frame)
    tof.core.expect(frame)


def test_what_the_edge_answers_from_upstream_is_learnt_too(tof: Tof) -> None:
    bearer = new_bearer()
    tof.attach(bearer)
    with service(tof, {"name": "learnt", "domain": "learnt.example.com", "applicationIP": APP}):
        port, frame = asking(bearer, question("learnt.example.com"), DIVERTED)
        tof.ran.send(frame)
        tof.ran.gpdu(lambda one: one.inner.ports == (53, port))
        until("it is learnt", lambda: tof.get("/service/learnt/status")["addresses"])
        assert tof.get("/service/learnt/status")["addresses"][0]["address"] == "203.0.113.90"


def test_a_dead_application_is_not_answered_at_the_edge(tof: Tof) -> None:
    bearer = new_bearer()
    tof.attach(bearer)
    health = {"kind": "tcp", "port": 8080, "interval": 0.2, "fall": 1}
    with tof.netns["apps"].entered():
        web = socket.create_server((APP, 8080), backlog=64)
    with ue_kernel(tof, bearer), service(tof, {**CINEMA, "health": health}):
        assert dig(tof, f"@{DIVERTED}", "cinema.example.com") == ["203.0.113.70"]
        web.close()
        until(
            "the core's answer", lambda: dig(tof, f"@{DIVERTED}", "cinema.example.com") == ["198.51.100.98"]
        )


def pid_of(tof: Tof) -> int:
    return int((tof.dir / "run" / "dns" / "unbound.pid").read_text())


def said_by_the_edge(tof: Tof, bearer: Bearer, address: str) -> bool:
    _, frame = asking(bearer, question("cinema.example.com"), DIVERTED)
    tof.ran.send(frame)
    return tof.ran.find(lambda one: one.endswith(packed(address)), 0.3) is not None


def test_a_killed_server_is_started_again_and_told_everything(tof: Tof) -> None:
    bearer = new_bearer()
    tof.attach(bearer)
    with service(tof, CINEMA):
        before = pid_of(tof)
        os.kill(before, signal.SIGKILL)
        until("it is back", lambda: in_force(tof) and pid_of(tof) != before, 10)
        until("it says the service's address", lambda: said_by_the_edge(tof, bearer, "203.0.113.70"), 5)


def test_dns_goes_to_the_core_while_the_server_hangs(tof: Tof) -> None:
    bearer = new_bearer()
    tof.attach(bearer)
    os.kill(pid_of(tof), signal.SIGSTOP)

    def passes() -> bool:
        _, frame = asking(bearer, question("cinema.example.com"), DIVERTED)
        tof.ran.send(frame)
        return tof.core.find(lambda one: one == frame, 0.2) is not None

    until("DNS goes to the core", passes, 15)
    os.kill(pid_of(tof), signal.SIGCONT)
    until("and back", lambda: said_by_the_edge(tof, bearer, "198.51.100.98"), 10)


def test_the_server_outlives_the_agent_which_adopts_it(tof: Tof) -> None:
    bearer = new_bearer()
    tof.attach(bearer)
    with service(tof, CINEMA), ue_kernel(tof, bearer):
        before = pid_of(tof)
        tof.signal(signal.SIGKILL)
        assert dig(tof, f"@{DIVERTED}", "cinema.example.com") == ["203.0.113.70"]
        tof.start()
        assert pid_of(tof) == before
        assert dig(tof, f"@{DIVERTED}", "cinema.example.com") == ["203.0.113.70"]
        assert tof.call("DELETE", "/service/cinema")[0] == 200
        assert dig(tof, f"@{DIVERTED}", "cinema.example.com") == ["198.51.100.98"]


@pytest.mark.parametrize("body", [{"serviceIP": "203.0.113.0/24"}, {"domain": "*.example.com"}])
def test_one_name_has_one_address(tof: Tof, body: dict[str, str]) -> None:
    status, answer = tof.call("POST", "/service", {**CINEMA, **body})
    assert (status, answer["errors"][0]["field"]) == (400, "domain")


def test_an_agent_without_a_server_in_its_configuration_ends_the_one_that_runs() -> None:
    with running_tof(Setting(dns=_DNS)) as tof:
        until("the server runs", lambda: (tof.dir / "run" / "dns" / "unbound.pid").exists(), 10)
        assert [check["state"] for check in tof.get("/health")["checks"] if check["name"] == "dns"] == ["ok"]
        tof.signal(signal.SIGTERM)
        text = tof.config.read_text()
        tof.config.write_text(text.replace(_DNS, ""))
        tof.start()
        assert not (tof.dir / "run" / "dns").exists()
        assert not [check for check in tof.get("/health")["checks"] if check["name"] == "dns"]
        addresses = json.loads(tof.netns["tof"].run("ip", "-j", "address", "show", "dev", "tofgw0"))
        assert DNS not in [each["local"] for each in addresses[0]["addr_info"]]
        bearer = new_bearer()
        tof.attach(bearer)
        _, frame = asking(bearer, question("cinema.example.com"), DIVERTED)
        tof.ran.send(frame)
        tof.core.expect(frame)


def test_down_ends_the_server_and_takes_its_rules_away() -> None:
    with running_tof(Setting(dns=_DNS)) as tof:
        node = tof.netns["tof"]
        until("the server runs", lambda: (tof.dir / "run" / "dns" / "unbound.pid").exists(), 10)
        pid = pid_of(tof)
        rules = json.loads(node.run("ip", "-j", "rule"))
        assert [rule["src"] for rule in rules if rule["priority"] == 7015] == [DNS]
        time.sleep(0.2)
        said = tof.tof("down")
        assert "stopped unbound" in said
        with contextlib.suppress(FileNotFoundError):  # nobody may have waited for it yet
            assert Path(f"/proc/{pid}/cmdline").read_bytes() == b""
        for family in ("-4", "-6"):
            rules = json.loads(node.run("ip", "-j", family, "rule"))
            assert not [rule for rule in rules if rule["priority"] == 7015]
        assert not (tof.dir / "run" / "dns").exists()
