"""Accounting on the real data path: to the packet and byte, both ways, to file and collector, over restarts."""

from __future__ import annotations

import json
import signal
import socket
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
from gtp_apps import ECHO, SERVICE, answer, echo, service_of, serving_tof
from gtp_packets import APP_MAC, Bearer, cut, ethernet, new_bearer, new_bearer6, udp
from gtp_peers import APP, Setting, Tof, until

from tests.dissector import PORT, dissect, flows
from tof.model import GATEWAY_MAC
from tof.wire.inet import ETHERTYPE_IPV4

pytestmark = pytest.mark.netns

ACCOUNTING = f"""
[accounting]
file = "{{dir}}/accounting.jsonl"
ipfix = "udp://127.0.0.1:{PORT}"
interval_s = 0.5
"""
UP, DOWN = 28 + 100, 28 + 4 + 100


@pytest.fixture(scope="module", params=["generic", "native"])
def tof(request: pytest.FixtureRequest) -> Iterator[Tof]:
    with serving_tof(Setting(xdp=request.param, more=ACCOUNTING)) as running:
        yield running


@pytest.fixture(scope="module")
def collector(tof: Tof) -> Iterator[socket.socket]:
    with tof.netns["tof"].entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bound:
        bound.bind(("127.0.0.1", PORT))
        bound.settimeout(0.01)
        yield bound


@pytest.fixture(autouse=True)
def _fresh(tof: Tof) -> None:
    tof.drain()


def talk(tof: Tof, bearer: Bearer, count: int) -> None:
    """``count`` packets of 100 bytes of data up, and each answered."""
    for n in range(count):
        data = b"%04d" % n + bytes(96)
        tof.ran.send(echo(bearer, data))
        answer(tof, bearer, data)


def usage(tof: Tof, bearer: Bearer) -> list[dict[str, Any]]:
    ue = bearer.ue if ":" not in bearer.ue else bearer.ue.split("::")[0]
    return [
        one for one in tof.get("/usage")
        if one["ue"].startswith(ue) and (one["enb"], one["sgw"], one["vlan"]) == (bearer.enb, bearer.sgw, bearer.vlan)
    ]  # fmt: skip


def both(one: dict[str, Any]) -> tuple[int, ...]:
    return tuple(one[way][unit] for way in ("uplink", "downlink") for unit in ("packets", "bytes"))


def lines(tof: Tof) -> list[dict[str, Any]]:
    text = "".join(path.read_text() for path in sorted(tof.dir.glob("accounting.jsonl*")))
    return [json.loads(line) for line in text.splitlines()]


def written(tof: Tof, bearer: Bearer) -> tuple[int, ...]:
    """The sum of this UE's lines."""
    mine = [
        both(one) for one in lines(tof)
        if one["ue"].startswith(bearer.ue.split("::")[0]) and (one["enb"], one["vlan"]) == (bearer.enb, bearer.vlan)
    ]  # fmt: skip
    return tuple(map(sum, zip(*mine, strict=True))) if mine else (0, 0, 0, 0)


def collected(bound: socket.socket, within_s: float = 1.5) -> list[bytes]:
    found, end = [], time.monotonic() + within_s
    while time.monotonic() < end:
        try:
            found.append(bound.recv(65535))
        except TimeoutError:
            continue
    return found


KINDS = {
    "4G": new_bearer(),
    "5G in a VLAN": new_bearer(vlan=101, qfi=5),
    "IPv6 UE": new_bearer6(),
    "outer IPv6": new_bearer(enb="2001:db8:1::11", sgw="2001:db8:1::1"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_packets_and_bytes_are_exact_both_ways(tof: Tof, kind: str) -> None:
    bearer = KINDS[kind]
    tof.attach(bearer)
    assert usage(tof, bearer) == []
    talk(tof, bearer, 7)
    (one,) = usage(tof, bearer)
    ip6 = 20 if ":" in bearer.ue else 0
    assert both(one) == (7, 7 * (UP + ip6), 7, 7 * (DOWN + ip6))
    assert (one["service"], one["serviceIP"]) == ("echo6" if ip6 else "echo", service_of(bearer))
    until("the file has it all", lambda: written(tof, bearer) == both(one))
    talk(tof, bearer, 3)
    total = (10, 10 * (UP + ip6), 10, 10 * (DOWN + ip6))
    assert both(usage(tof, bearer)[0]) == total
    until("the file has the rest", lambda: written(tof, bearer) == total)


def test_a_packet_that_waited_in_the_queue_counts_once(tof: Tof) -> None:
    """The first of a tunnel; its answer waits in the agent for the downlink."""
    bearer = new_bearer()
    data = bytes(100)
    tof.ran.send(echo(bearer, data))
    tof.answer_ping(bearer)
    answer(tof, bearer, data)
    assert [both(one) for one in usage(tof, bearer)] == [(1, UP, 1, DOWN)]


def test_a_reassembled_datagram_counts_once(tof: Tof) -> None:
    bearer = new_bearer()
    tof.attach(bearer)
    for n in range(3):
        data = bytes((n,)) * 1200
        tof.ran.send(*cut(echo(bearer, data), 704, 900 + n))
        answer(tof, bearer, data)
    assert [both(one) for one in usage(tof, bearer)] == [(3, 3 * 1228, 3, 3 * 1232)]
    until("the file has it", lambda: written(tof, bearer) == (3, 3 * 1228, 3, 3 * 1232))


def test_what_is_cut_for_the_tunnel_counts_as_what_is_injected(tof: Tof) -> None:
    bearer = new_bearer()
    tof.attach(bearer)
    packet = udp(APP, bearer.ue, ECHO, 4000, bytes(1472))
    tof.apps.send(ethernet(packet, ETHERTYPE_IPV4, (APP_MAC, GATEWAY_MAC)))
    got = [len(tof.ran.to_ue(bearer.ue).message.payload) for _ in range(2)]
    assert [both(one) for one in usage(tof, bearer)] == [(0, 0, 2, sum(got))]


def test_equal_ue_addresses_behind_other_nodes_are_apart(tof: Tof) -> None:
    one = new_bearer(enb="10.1.31.1", sgw="10.1.31.2")
    other = new_bearer(enb="10.1.32.1", sgw="10.1.32.2", vlan=9).but(ue=one.ue)
    tof.attach(one, other)
    for count, bearer in ((2, one), (3, other)):
        for n in range(count):
            data = b"%04d" % n + bytes(96)
            tof.ran.send(echo(bearer, data, port=4100 + count))
            answer(tof, bearer, data)
    for count, bearer in ((2, one), (3, other)):
        assert [both(each) for each in usage(tof, bearer)] == [(count, count * UP, count, count * DOWN)]
    ids = [usage(tof, bearer)[0]["flow_id"] for bearer in (one, other)]
    assert ids[0] != ids[1]


def test_what_passes_to_the_core_is_not_accounted(tof: Tof) -> None:
    bearer = new_bearer()
    tof.attach(bearer)
    assert usage(tof, bearer) == []


def test_a_collector_that_is_not_there_is_no_trouble(tof: Tof) -> None:
    bearer = new_bearer()
    tof.attach(bearer)
    talk(tof, bearer, 2)
    until("refusals are counted", lambda: tof.metrics()["tof_accounting_total{collector_failed}"] > 0)
    until("the file has it all", lambda: written(tof, bearer)[0] == 2)


def test_a_collector_gets_ipfix(tof: Tof, collector: socket.socket) -> None:
    bearer = new_bearer(vlan=33)
    tof.attach(bearer)
    collected(collector, 1.2)
    talk(tof, bearer, 5)
    trees = dissect(collected(collector, 2))
    mine = [one for one in flows(trees) if one.get("cflow.srcaddr") == bearer.ue]
    assert sum(int(one["cflow.packets"][0]) for one in mine) == 5
    assert sum(int(one["cflow.octets"][0]) for one in mine) == 5 * UP
    assert sum(int(one["cflow.packets"][1]) for one in mine) == 5
    assert sum(int(one["cflow.octets"][1]) for one in mine) == 5 * DOWN
    (account,) = usage(tof, bearer)
    for one in mine:
        assert (one["cflow.dstaddr"], one["cflow.dstmask"]) == (SERVICE, "32")
        assert (one["cflow.appl_name"], one["cflow.dot1q_vlan_id"]) == ("echo", "33")
        assert int(one["cflow.flow_id"]) == int(account["flow_id"], 16)
    numbers = [int(tree["cflow.sequence"]) for tree in trees]
    assert numbers == sorted(numbers)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "stopped"])
def test_totals_survive_the_agent_and_nothing_is_told_twice(tof: Tof, number: signal.Signals) -> None:
    bearer = new_bearer()
    tof.attach(bearer)
    talk(tof, bearer, 4)
    until("told", lambda: written(tof, bearer)[0] == 4)
    before = usage(tof, bearer)
    tof.signal(number)
    talk(tof, bearer, 6)  # with no agent at all
    tof.start()
    (after,) = usage(tof, bearer)
    total = (10, 10 * UP, 10, 10 * DOWN)
    assert both(after) == total
    assert after["flow_id"] == before[0]["flow_id"]
    until("the new agent tells the rest", lambda: written(tof, bearer) == total)
    time.sleep(1.2)
    assert written(tof, bearer) == total


def test_the_name_of_a_removed_service_is_kept_until_its_account_is_told(tof: Tof) -> None:
    bearer = new_bearer()
    tof.attach(bearer)
    with tof.service("203.0.113.77") as name:
        tof.ran.send(bearer.uplink(udp(bearer.ue, "203.0.113.77", 4000, ECHO, bytes(100))))
        tof.ran.gpdu(lambda one: one.inner.data == b"app:" + bytes(100))
    until("told", lambda: any(one["service"] == name for one in lines(tof)))
    until("closed", lambda: usage(tof, bearer) == [], 8)
    assert written(tof, bearer) == (1, UP, 1, DOWN)


def test_the_file_is_opened_anew(tof: Tof) -> None:
    file, bearer = tof.dir / "accounting.jsonl", new_bearer()
    tof.attach(bearer)
    talk(tof, bearer, 1)
    until("written", lambda: written(tof, bearer)[0] == 1)
    file.rename(tof.dir / "accounting.jsonl-away")
    tof.signal(signal.SIGHUP)
    talk(tof, bearer, 1)
    until("a new file", lambda: file.exists() and bearer.ue in file.read_text())
    assert written(tof, bearer)[0] == 2


def test_a_file_that_cannot_be_written_loses_nothing(tof: Tof) -> None:
    file, bearer = tof.dir / "accounting.jsonl", new_bearer()
    tof.attach(bearer)
    file.rename(tof.dir / "accounting.jsonl-full")
    file.mkdir()
    tof.signal(signal.SIGHUP)
    talk(tof, bearer, 2)
    until("it is counted", lambda: tof.metrics()["tof_accounting_total{file_failed}"] > 0)
    checks = {one["name"]: one for one in tof.get("/health")["checks"]}
    assert checks["accounting"]["state"] == "degraded"
    assert "Is a directory" in checks["accounting"]["detail"]
    file.rmdir()
    until("written after all", lambda: file.exists() and written(tof, bearer) == (2, 2 * UP, 2, 2 * DOWN))


def test_the_command_shows_it(tof: Tof) -> None:
    bearer = new_bearer()
    tof.attach(bearer)
    talk(tof, bearer, 2)
    shown = tof.netns["tof"].run(
        sys.executable, "-m", "tof", "services", "usage",
        "--api", f"unix:{tof.dir}/api.sock",
    )  # fmt: skip
    (row,) = [line for line in shown.splitlines() if bearer.ue in line.split()]
    assert row.split()[:8] == [
        "echo",
        bearer.ue,
        bearer.enb,
        bearer.sgw,
        "2",
        str(2 * UP),
        "2",
        str(2 * DOWN),
    ]


CROWDED = """
[accounting]
file = "{dir}/accounting.jsonl"
interval_s = 600
max_accounts = 4
"""


def test_a_full_table_makes_room_and_says_so() -> None:
    with serving_tof(Setting(more=CROWDED)) as tof:
        bearers = [new_bearer() for _ in range(6)]
        tof.attach(*bearers)
        for bearer in bearers[:4]:
            talk(tof, bearer, 2)
        assert tof.packets("unaccounted") == 0
        time.sleep(1.5)  # the accounts are silent
        assert lines(tof) == []  # and the interval is far from over
        talk(tof, bearers[4], 1)
        until("the lost packets are counted", lambda: tof.packets("unaccounted") == 2)
        until("the silent are closed", lambda: tof.get("/usage") == [])
        for bearer in bearers[:4]:
            assert written(tof, bearer) == (2, 2 * UP, 2, 2 * DOWN)
        talk(tof, bearers[5], 3)
        assert [both(one) for one in usage(tof, bearers[5])] == [(3, 3 * UP, 3, 3 * DOWN)]
        assert tof.metrics()["tof_accounting_total{closed}"] == 4


def test_the_last_report_is_made_when_the_agent_is_stopped() -> None:
    with serving_tof(Setting(more=CROWDED)) as tof:
        bearer = new_bearer()
        tof.attach(bearer)
        talk(tof, bearer, 2)
        tof.signal(signal.SIGTERM)
        assert written(tof, bearer) == (2, 2 * UP, 2, 2 * DOWN)


def test_without_accounting_there_is_none() -> None:
    with serving_tof(Setting()) as tof:
        bearer = new_bearer()
        tof.attach(bearer)
        talk(tof, bearer, 1)
        status, problem = tof.call("GET", "/usage")
        assert (status, "accounting is off" in problem["detail"]) == (409, True)
