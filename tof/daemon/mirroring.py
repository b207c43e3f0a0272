"""Writes the files of services' packets: what br-ue sends to the mirror's port, by the MAC that names a service."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence

import structlog

from tof.agent.delivery import unveiled
from tof.config import Config
from tof.dataplane.desired import ServedService
from tof.drivers.capture import CaptureFile, CaptureSocket
from tof.errors import BackendError
from tof.model import SERVICE_MAC_PREFIX
from tof.wire.pcapng import DOWNLINK, UPLINK

log = structlog.get_logger("tof.mirroring")

REASONS = ("written", "not_written", "no_service", "no_room")
FLUSH_S = 0.2
A_TURN = 64
"""Packets between two looks at everything else that the agent has to do."""
A_FLUSH = 4096
"""Packets in FLUSH_S: what is above that waits in the kernel, and is lost when it has no room."""


class Mirroring:
    """The files; ``counts``: see docs/operations.md."""

    def __init__(self, config: Config) -> None:
        self._settings, self._device = config.mirror, config.names.mirror0
        self._names: dict[int, str] = {}
        self._files: dict[str, CaptureFile] = {}
        self._socket: CaptureSocket | None = None
        self._counts = Counter(dict.fromkeys(REASONS, 0))

    @property
    def counts(self) -> Counter[str]:
        """What became of mirrored packets, by name."""
        lost = self._socket.lost if self._socket is not None else 0
        return Counter({**self._counts, "no_room": lost})

    def note(self, served: Sequence[ServedService]) -> None:
        """These services are about to be in force; what has come so far is of those before."""
        self._drain()
        self._names = {
            number: one.service.mirror.file
            for one in served
            if one.service.mirror is not None and one.service.mirror.file
            for number in one.numbers
        }

    async def run(self) -> None:
        """Write what comes, in turns."""
        if self._settings.dir is None:
            return
        self._socket = CaptureSocket(self._device)
        try:
            while True:
                await self._some(self._socket)
                self._tidy()
                await asyncio.sleep(FLUSH_S)
        finally:
            self._drain()
            self._names = {}
            self._tidy()
            self._socket.close()
            self._socket = None

    def _drain(self) -> None:
        if self._socket is None:
            return
        for _ in range(A_FLUSH):
            if (one := self._socket.receive()) is None:
                return
            self._frame(*one)

    async def _some(self, capture: CaptureSocket) -> None:
        for at in range(A_FLUSH):
            one = capture.receive()
            if one is None:
                return
            self._frame(*one)
            if at % A_TURN == A_TURN - 1:
                await asyncio.sleep(0)

    def _frame(self, time_ns: int, frame: bytes) -> None:
        way = UPLINK if frame[:2] == SERVICE_MAC_PREFIX else DOWNLINK
        mac = frame[:6] if way == UPLINK else frame[6:12]
        name = self._names.get(int.from_bytes(mac[2:], "big")) if mac[:2] == SERVICE_MAC_PREFIX else None
        if name is None or self._settings.dir is None:
            self._counts["no_service"] += 1
            return
        if name not in self._files:
            most = self._settings.file_max_mb << 20
            self._files[name] = CaptureFile(self._settings.dir, name, most, self._settings.files)
        try:
            self._files[name].write(way, time_ns, unveiled(frame[14:]))
        except BackendError as error:
            self._failed(error)
            return
        self._counts["written"] += 1

    def _tidy(self) -> None:
        wanted = set(self._names.values())
        for name, file in list(self._files.items()):
            try:
                if name in wanted:
                    file.flush()
                else:
                    del self._files[name]
                    file.close()
            except BackendError as error:
                self._failed(error)

    def _failed(self, error: BackendError) -> None:
        if not self._counts["not_written"]:
            log.warning("a mirror's file cannot be written", error=str(error))
        self._counts["not_written"] += 1
