"""Reports of accounting: what is told once and only once, whatever fails on the way; real files, a real collector."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from ipaddress import ip_address
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.dissector import dissect, flows
from tof.agent.accounting import Account, AccountKey
from tof.config import parse
from tof.daemon.accounting import Accounting
from tof.daemon.clock import Clock
from tof.dataplane.desired import ServedService, Serving
from tof.errors import BackendError
from tof.model import Service, TunnelKey
from tof.wire import inet

WEB = ServedService(
    Service("web", ip_address("203.0.113.10"), ip_address("192.168.50.10")), 256, Serving.DIVERT
)
KEY = AccountKey(bytes((10, 45, 0, 2)), bytes((10, 0, 0, 1)), bytes((10, 0, 1, 1)), None, 256)


class MemoryAccounts:
    """tof_accounts and tof_reported; ``late``: what comes between the last look at an account and its end."""

    def __init__(self) -> None:
        self.held: dict[AccountKey, Account] = {}
        self.told: dict[AccountKey, Account] = {}
        self.late: dict[AccountKey, Account] = {}
        self.room = 1000

    def accounts(self) -> Iterator[dict[AccountKey, Account]]:
        yield dict(self.held)

    def reported(self) -> Iterator[dict[AccountKey, Account]]:
        yield dict(self.told)

    def report(self, key: AccountKey, account: Account) -> None:
        self.told[key] = account

    def forget(self, key: AccountKey) -> None:
        self.told.pop(key, None)

    def close(self, key: AccountKey) -> Account | None:
        last = self.held.pop(key, None)
        return last.plus(self.late.pop(key, None)) if last is not None else None

    def add(self, key: AccountKey, more: Account) -> None:
        key = key._replace(by_agent=True)
        if key not in self.held and len(self.held) >= self.room:
            raise BackendError("map tof_accounts: full")
        so_far = self.held.get(key)
        self.held[key] = more if so_far is None else so_far.plus(more)._replace(first_ns=so_far.first_ns)


class Reports:
    def __init__(self, directory: Path, more: str = "") -> None:
        self.file = directory / "a" / "accounting.jsonl"
        self.maps, self.clock = MemoryAccounts(), Clock()
        self.lost = 0
        config = parse(
            '[s1]\nenb_interface = "enb0"\nsgw_interface = "sgw0"\n[ue]\napp_interface = "apps0"\n'
            f'[accounting]\nfile = "{self.file}"\n{more}\n'
        )
        endpoints = SimpleNamespace(accounts=self.maps, counters=lambda: {"unaccounted": self.lost})
        services = SimpleNamespace(served=(WEB,))
        self.accounting = Accounting(config, endpoints, services, self.clock)  # type: ignore[arg-type]

    def count(self, packets: int, age_s: float = 0, key: AccountKey = KEY) -> None:
        then = self.clock.now_ns() - int(age_s * 1e9)
        more = Account(packets, 2 * packets, 100 * packets, 1000 * packets, then, then)
        before = self.maps.held.get(key)
        self.maps.held[key] = more.plus(before)._replace(first_ns=before.first_ns if before else then)

    def lines(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.file.read_text().splitlines()] if self.file.exists() else []

    def ups(self) -> list[tuple[int, str]]:
        return [(one["uplink"]["packets"], one["reason"]) for one in self.lines()]  # type: ignore[index]

    def close(self) -> None:
        self.accounting.reopen()
        if self.accounting._collector is not None:
            self.accounting._collector.close()


@pytest.fixture
async def make(tmp_path: Path) -> AsyncIterator[Callable[..., Reports]]:
    made: list[Reports] = []

    def another(more: str = "") -> Reports:
        made.append(Reports(tmp_path, more))
        return made[-1]

    yield another
    for one in made:
        one.close()
    await asyncio.sleep(0)


@pytest.fixture
async def reports(make: Callable[..., Reports]) -> Reports:
    return make()


async def test_each_report_tells_what_is_new(reports: Reports) -> None:
    for packets in (3, 4):
        reports.count(packets)
        await reports.accounting.report()
        await reports.accounting.report()
    assert reports.ups() == [(3, "active"), (4, "active")]
    assert reports.accounting.counts["exported"] == 2


async def test_an_idle_account_is_closed_when_all_of_it_is_told(reports: Reports) -> None:
    reports.count(3, age_s=301)
    await reports.accounting.report()
    assert (reports.ups(), reports.maps.held, reports.maps.told) == ([(3, "active")], {}, {})
    assert reports.accounting.counts["closed"] == 1
    reports.count(2)
    await reports.accounting.report()
    assert reports.ups() == [(3, "active"), (2, "active")]


async def test_what_comes_while_an_account_is_closed_is_told(reports: Reports) -> None:
    reports.count(3, age_s=301)
    reports.maps.late[KEY] = reports.maps.held[KEY]._replace(up_packets=5)
    await reports.accounting.report()
    assert reports.ups() == [(3, "active"), (5, "idle")]
    assert (reports.maps.held, reports.maps.told) == ({}, {})


async def test_and_if_it_cannot_be_told_then_by_the_next_report(reports: Reports) -> None:
    reports.count(3, age_s=301)
    reports.maps.late[KEY] = reports.maps.held[KEY]._replace(up_packets=5)
    write, tries = reports.accounting._file.write, []  # type: ignore[union-attr]

    def second_fails(records: object) -> None:
        tries.append(1)
        if len(tries) == 2:
            raise BackendError("the disk is full")
        write(records)  # type: ignore[arg-type]

    reports.accounting._file.write = second_fails  # type: ignore[union-attr, method-assign]
    with pytest.raises(BackendError):
        await reports.accounting.report()
    assert reports.accounting.behind == "the disk is full"
    await reports.accounting.report()
    assert [up for up, _ in reports.ups()] == [3, 5]
    assert (reports.maps.held, reports.accounting.behind) == ({}, "")


async def test_a_disk_that_fails_in_the_middle_tells_nothing_twice(reports: Reports) -> None:
    keys = [KEY._replace(vlan=n) for n in range(1, 201)]
    for key in keys:
        reports.count(1, key=key)
    write, tries = reports.accounting._file.write, []  # type: ignore[union-attr]

    def third_fails(records: object) -> None:
        tries.append(1)
        if len(tries) == 3:
            raise BackendError("the disk is full")
        write(records)  # type: ignore[arg-type]

    reports.accounting._file.write = third_fails  # type: ignore[union-attr, method-assign]
    with pytest.raises(BackendError):
        await reports.accounting.report()
    assert 0 < len(reports.lines()) < 200
    await reports.accounting.report()
    assert sorted(one["vlan"] for one in reports.lines()) == list(range(1, 201))  # type: ignore[type-var]


async def test_both_halves_of_an_account_are_one_record(reports: Reports) -> None:
    packet = inet.encode_ipv4(inet.IPv4(KEY.ue, bytes((203, 0, 113, 10)), 17, bytes(80)))
    reports.count(3)
    reports.accounting.add(256, TunnelKey(KEY.enb, KEY.sgw, 7), packet)
    await reports.accounting.report()
    reports.accounting.add(256, TunnelKey(KEY.enb, KEY.sgw, 7), packet)
    await reports.accounting.report()
    assert reports.ups() == [(4, "active"), (1, "active")]
    (shown,) = await reports.accounting.usage()
    assert (shown.usage.traffic.up_packets, shown.usage.traffic.up_octets) == (5, 300 + 200)
    reports.maps.room = 0
    reports.accounting.add(257, TunnelKey(KEY.enb, KEY.sgw, 7), packet)
    assert reports.accounting.counts["table_full"] == 1


async def test_the_file_turns_over(make: Callable[..., Reports]) -> None:
    reports = make("file_max_mb = 1\nfiles = 2")
    for turn in range(1, 31):
        for n in range(1, 401):
            reports.count(turn, key=KEY._replace(vlan=n))
        await reports.accounting.report()
    sizes = {path.name: path.stat().st_size for path in reports.file.parent.iterdir()}
    assert set(sizes) == {"accounting.jsonl", "accounting.jsonl.1", "accounting.jsonl.2"}
    assert all(size <= 1 << 20 for size in sizes.values())
    for path in reports.file.parent.iterdir():
        assert all(json.loads(line)["service"] == "web" for line in path.read_text().splitlines())


async def test_a_collector_gets_messages_in_sequence_and_may_come_later(make: Callable[..., Reports]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
    reports = make(f'ipfix = "udp://localhost:{port}"')
    for _ in range(2):
        reports.count(1)
        await reports.accounting.report()
        await asyncio.sleep(0.05)
    assert reports.accounting.counts["collector_failed"] > 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bound:
        bound.bind(("127.0.0.1", port))
        bound.setblocking(False)
        for n in range(1, 101):
            reports.count(n, key=KEY._replace(vlan=n))
        await reports.accounting.report()
        await asyncio.sleep(0.05)
        got = []
        while True:
            try:
                got.append(bound.recv(65535))
            except BlockingIOError:
                break
        await reports.accounting.close()
    assert len(got) > 1
    assert all(len(one) <= 1400 for one in got)
    trees = dissect(got)
    told = flows(trees)
    assert {int(one["cflow.dot1q_vlan_id"]): one["cflow.packets"] for one in told} == {
        n: [str(n), str(2 * n)] for n in range(1, 101)
    }
    sequence = [int(tree["cflow.sequence"]) for tree in trees]
    assert sequence[0] == 2
    assert all(
        following - before == len(flows([tree]))
        for before, following, tree in zip(sequence, sequence[1:], trees, strict=False)
    )


async def test_a_collector_without_an_address_is_no_trouble(make: Callable[..., Reports]) -> None:
    reports = make('ipfix = "udp://nowhere.invalid:4739"')
    reports.count(1)
    await reports.accounting.report()
    assert reports.ups() == [(1, "active")]
    assert reports.accounting.counts["collector_failed"] == 1
