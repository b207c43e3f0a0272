"""Where records of accounting go: a file of JSON lines that turns over, and a collector by UDP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from logging import Formatter, LogRecord, makeLogRecord
from logging.handlers import RotatingFileHandler
from pathlib import Path

from tof.config import Collector
from tof.errors import BackendError


class RecordFile:
    """Lines of JSON, at most ``max_octets`` in a file; full ones become PATH.1, PATH.2 ... of which ``kept`` are left."""

    def __init__(self, path: Path, max_octets: int, kept: int) -> None:
        self._path = path
        self._handler = _Handler(path, maxBytes=max_octets, backupCount=kept, encoding="utf-8", delay=True)
        self._handler.setFormatter(Formatter("%(message)s"))

    def write(self, records: Iterable[dict[str, object]]) -> None:
        """Append; BackendError if that cannot be done, in which case some lines may be there."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            for record in records:
                self._handler.emit(makeLogRecord({"msg": json.dumps(record)}))
        except OSError as error:
            self.reopen()
            raise BackendError(f"{self._path}: {error.strerror or error}") from error

    def reopen(self) -> None:
        """Another may have renamed the file: the next record goes to the one of this name."""
        self._handler.close()


class _Handler(RotatingFileHandler):
    """Errors reach the caller; the standard library prints them."""

    def handleError(self, record: LogRecord) -> None:  # noqa: N802
        raise  # noqa: PLE0704


class CollectorSocket:
    """Datagrams to a collector; ``failed`` counts those that the host or the network is known to have refused."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector
        self._transport: asyncio.DatagramTransport | None = None
        self._stale = False
        self.failed = 0

    async def open(self) -> None:
        """Look the collector up, unless that is done and it does not refuse; BackendError if it has no address."""
        if self._transport is not None and not self._stale:
            return
        self.close()
        where = self._collector.host, self._collector.port
        try:
            self._transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
                lambda: _Errors(self), remote_addr=where
            )
        except OSError as error:
            self.failed += 1
            raise BackendError(f"udp://{where[0]}:{where[1]}: {error.strerror or error}") from error
        self._stale = False

    def send(self, datagram: bytes) -> None:
        """Send; that it arrives nobody can say."""
        if self._transport is not None:
            self._transport.sendto(datagram)

    def refused(self) -> None:
        """A datagram did not get through."""
        self.failed, self._stale = self.failed + 1, True

    def close(self) -> None:
        """Send no more; the next ``open`` looks the collector up again."""
        if self._transport is not None:
            self._transport.close()
            self._transport = None


class _Errors(asyncio.DatagramProtocol):
    def __init__(self, owner: CollectorSocket) -> None:
        self._owner = owner

    def error_received(self, exc: Exception) -> None:
        self._owner.refused()
