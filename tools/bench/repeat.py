"""Nanoseconds per packet without noise: one frame, a million runs in the kernel, in cache, no devices."""

from __future__ import annotations

from collections.abc import Mapping

from tof.drivers.testrun import run_xdp
from tools.bench.cases import DIVERT, ENCAPSULATE, PASS
from tools.bench.programs import ZERO, Traffic, load, pack_original
from tools.bench.tunnels import ELSEWHERE, SERVICE, DataPath, replies, uplink

PASS_WITHOUT = "pass-through, no service provisioned"
REPEAT_JOBS = (PASS_WITHOUT, PASS, DIVERT, ENCAPSULATE)
_REDIRECT = 4
_SLICE = 20_000


class Repeat:
    """The data path's source in programs that put the frame back; one tunnel each way."""

    def __init__(self, devices: Mapping[str, int]) -> None:
        self._devices = devices
        self._path = DataPath(devices, 1, load("repeat"))

    def measure(self, job: str, runs: int) -> int:
        """Nanoseconds per packet of a job beyond those of putting the frame back."""
        self._path.set_services(job != PASS_WITHOUT)
        traffic, program, device = self._job(job)
        frame = bytearray(traffic.frame)
        frame[traffic.number_at : traffic.number_at + 4] = (1).to_bytes(4, "big")
        frame[traffic.ue_at : traffic.ue_at + 4] = traffic.first_ue.to_bytes(4, "big")
        self._path.table("bench_original").put(ZERO, pack_original(bytes(frame)))
        ifindex = self._devices[device]
        # The least of several short runs each: what interrupts a run only ever adds to it.
        pairs = [
            (self._run(program, bytes(frame), ifindex), self._run("bench_floor", bytes(frame), ifindex))
            for _ in range(max(2, runs // _SLICE))
        ]
        return min(busy for busy, _ in pairs) - min(floor for _, floor in pairs)

    def _job(self, job: str) -> tuple[Traffic, str, str]:
        if job == ENCAPSULATE:
            return replies(0), "bench_ue", "ue"
        return uplink(SERVICE if job == DIVERT else ELSEWHERE, 0), "bench_s1", "enb"

    def _run(self, program: str, frame: bytes, ifindex: int) -> int:
        self._path.beat()
        verdict, _, each = run_xdp(self._path.programs[program], frame, ifindex=ifindex, repeat=_SLICE)
        if verdict != _REDIRECT:
            raise SystemExit(f"{program}: verdict {verdict}, not a redirect: the bench is out of step")
        return each

    def close(self) -> None:
        """Let go of programs and maps."""
        self._path.close()
