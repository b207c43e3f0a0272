"""Accounting: every interval, what has come into the accounts since the last report goes to the file and the collector.

The baseline moves on when the file has taken the records: what could not be written comes with the next report.
"""

from __future__ import annotations

import asyncio
from binascii import crc32
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import structlog

from tof.agent.accounting import REASONS as END_REASONS
from tof.agent.accounting import (
    Account,
    AccountKey,
    Accounts,
    Ledger,
    Silence,
    Usage,
    body_of,
    ipfix_record,
    unreported,
)
from tof.agent.services import ServicePlane
from tof.api.port import UsageView
from tof.config import Config
from tof.daemon.clock import Clock
from tof.dataplane.desired import ServedService
from tof.drivers.accounts import AccountMaps
from tof.drivers.export import CollectorSocket, RecordFile
from tof.drivers.xdp import XdpEndpoints
from tof.errors import BackendError, Conflict
from tof.model import TunnelKey
from tof.wire import ipfix

log = structlog.get_logger("tof.accounting")

REASONS = ("exported", "closed", "file_failed", "collector_failed", "table_full")
SETTLE_NS = 1_000_000_000
"""Packets of a service that is no more may still be on their way."""
LOOK_S = 1.0
"""How often it is looked whether the table of accounts is full."""
AT_ONCE = 64


class Accounting:
    """The accounts of a running agent; ``counts``: see docs/operations.md."""

    def __init__(self, config: Config, endpoints: XdpEndpoints, services: ServicePlane, clock: Clock) -> None:
        self._settings, self._endpoints = config.accounting, endpoints
        self._maps: AccountMaps = endpoints.accounts
        self._services, self._clock = services, clock
        self._idle_ns = int(config.tunnels.idle_timeout_s * 1e9)
        self._domain, self._sequence = crc32(config.agent.name.encode()), 0
        where = self._settings
        self._file = RecordFile(where.file, where.file_max_mb << 20, where.files) if where.file else None
        self._collector = CollectorSocket(where.ipfix) if where.ipfix else None
        self._ledger = Ledger()
        self._lost = self._lost_so_far()
        self._last_ns = 0
        self._lock = asyncio.Lock()
        self.behind = ""
        """Why the file has not got everything."""
        self._counts = Counter(dict.fromkeys(REASONS, 0))

    @property
    def counts(self) -> Counter[str]:
        """What became of records, by name."""
        failed = self._collector.failed if self._collector else 0
        return Counter({**self._counts, "collector_failed": failed})

    def add(self, number: int, tunnel: TunnelKey, packet: bytes) -> None:
        """A diverted packet that XDP has not seen."""
        if not self._settings.on:
            return
        ue = packet[12:16] if packet[0] >> 4 == 4 else packet[8:16]
        key = AccountKey(ue, tunnel.source, tunnel.destination, tunnel.vlan, number)
        now_ns = self._clock.now_ns()
        self._add(key, Account(1, 0, len(packet), 0, now_ns, now_ns))

    def _add(self, key: AccountKey, more: Account) -> None:
        try:
            self._maps.add(key, more)
        except BackendError:
            self._counts["table_full"] += 1

    def note(self, served: Sequence[ServedService]) -> None:
        """These services are about to be in force: however short they last, their accounts have their names."""
        self._ledger.note(served)

    async def run(self) -> None:
        """Report every interval, and when the table is full."""
        if not self._settings.on:
            return
        await self._tidy()
        while True:
            crowded = await self._interval()
            try:
                await self.report(crowded=crowded)
            except BackendError as error:
                log.warning("accounting is behind", error=str(error))

    async def _interval(self) -> bool:
        """Wait until a report is due; whether that is because the table is full."""
        end = self._clock.now() + self._settings.interval_s
        while (left := end - self._clock.now()) > 0:
            await asyncio.sleep(min(left, LOOK_S))
            if self._is_full():
                return True
        return False

    def _is_full(self) -> bool:
        before, self._lost = self._lost, self._lost_so_far()
        return self._lost > before

    def _lost_so_far(self) -> int:
        return self._endpoints.counters()["unaccounted"] if self._settings.on else 0

    async def _tidy(self) -> None:
        """An agent that ended while it closed accounts leaves baselines without one."""
        accounts = await _all(self._maps.accounts())
        for key in (await _all(self._maps.reported())).keys() - accounts.keys():
            self._maps.forget(key)

    async def report(self, *, crowded: bool = False) -> None:
        """Everything that is new; accounts that have been silent are closed. BackendError: some of it comes next time."""
        async with self._lock:
            now_ns = self._clock.now_ns()
            self._ledger.note(self._services.served)
            accounts = await _all(self._maps.accounts())
            reported = await _all(self._maps.reported())
            # In a thread: there may be very many, and the loop answers packets.
            fresh = await asyncio.to_thread(unreported, accounts, reported)
            usages = await asyncio.to_thread(self._ledger.usage, fresh)
            await self._open_collector()
            for at in range(0, len(usages), AT_ONCE):
                self._tell(usages[at : at + AT_ONCE], fresh, accounts)
                await asyncio.sleep(0)
            silent_since = min(self._last_ns, now_ns - SETTLE_NS) if not crowded else now_ns - SETTLE_NS
            silence = Silence(now_ns - self._idle_ns, silent_since, crowded)
            closing = await asyncio.to_thread(self._ledger.closing, accounts, silence)
            for at, (key, reason) in enumerate(closing.items(), 1):
                self._close(key, accounts[key], reason)
                if at % AT_ONCE == 0:
                    await asyncio.sleep(0)
            self._ledger.forget_others(await asyncio.to_thread(lambda: {key.service for key in accounts}))
            self._last_ns, self.behind = now_ns, ""

    def _tell(self, usages: Sequence[Usage], fresh: Accounts, accounts: Accounts) -> None:
        """Whatever becomes of this agent: what is written is noted as told, in one go."""
        self._write(usages)
        for usage in usages:
            for key in (usage.key, usage.key._replace(by_agent=True)):
                if key in fresh:
                    self._maps.report(key, accounts[key])
        self._collect(usages)
        self._counts["exported"] += len(usages)

    def _close(self, key: AccountKey, account: Account, reason: int) -> None:
        last = self._maps.close(key)
        if last is not None and last != account:  # it has spoken after all
            late = {key: last.since(account)}
            try:
                self._tell(self._ledger.usage(late, reason), {}, {})
            except BackendError:
                self._add(key, late[key])  # so that the next report has it
                raise
        self._maps.forget(key)
        self._counts["closed"] += 1

    def _write(self, usages: Sequence[Usage]) -> None:
        if self._file is None:
            return
        time = _text(datetime.now(UTC))
        try:
            self._file.write(
                {"time": time, **body_of(one, *self._times(one)), "reason": END_REASONS[one.reason]}
                for one in usages
            )
        except BackendError as error:
            self._counts["file_failed"] += 1
            self.behind = str(error)
            raise

    async def _open_collector(self) -> None:
        if self._collector is None:
            return
        try:
            await self._collector.open()
        except BackendError as error:  # what a datagram carries may be lost on any way
            log.warning("the collector is not there", error=str(error))

    def _collect(self, usages: Sequence[Usage]) -> None:
        if self._collector is None:
            return
        records = (ipfix_record(one, *map(_ms, self._moments(one))) for one in usages)
        time_s = int(datetime.now(UTC).timestamp())
        for message in ipfix.messages(records, time_s, self._sequence, self._domain):
            self._collector.send(message.octets)
            self._sequence = self._sequence + message.records & 0xFFFFFFFF

    def _moments(self, usage: Usage) -> tuple[datetime, datetime]:
        traffic = usage.traffic
        return self._clock.calendar(traffic.first_ns), self._clock.calendar(traffic.last_ns)

    def _times(self, usage: Usage) -> tuple[str, str]:
        start, end = self._moments(usage)
        return _text(start), _text(end)

    async def usage(self) -> Sequence[UsageView]:
        """Every account as it is now; Conflict if nothing is counted."""
        if not self._settings.on:
            raise Conflict("accounting is off: set accounting.file or accounting.ipfix")
        self._ledger.note(self._services.served)
        return await asyncio.to_thread(self._views, await _all(self._maps.accounts()))

    def _views(self, accounts: dict[AccountKey, Account]) -> list[UsageView]:
        return [UsageView(one, *self._moments(one)) for one in self._ledger.usage(accounts)]

    def reopen(self) -> None:
        """The file may have been renamed: go on with one of its name."""
        if self._file is not None:
            self._file.reopen()

    async def close(self) -> None:
        """The last report of this agent; what comes later the next one reports."""
        if self._settings.on:
            try:
                await self.report()
            except BackendError as error:
                log.warning("accounting is behind", error=str(error))
        if self._collector is not None:
            self._collector.close()
        self.reopen()


async def _all(slices: Iterator[dict[AccountKey, Account]]) -> dict[AccountKey, Account]:
    found: dict[AccountKey, Account] = {}
    for some in slices:
        found |= some
        await asyncio.sleep(0)
    return found


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)
