"""What the data path bench measures: who processes, what is generated, where it comes out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tof.drivers.hooks import Hooks
from tools.bench.programs import Bench, Run, Traffic
from tools.bench.tunnels import ELSEWHERE, SERVICE, DataPath, replies, uplink

FLOOR, BRIDGE, BARE = "generator and sink", "Linux bridge", "bare XDP redirect"
PASS, DIVERT, ENCAPSULATE = "pass-through", "decapsulate and divert", "encapsulate"
JOBS = (PASS, DIVERT, ENCAPSULATE)


@dataclass(frozen=True, slots=True)
class Case:
    """One line of the table: ``prepare`` puts it in place."""

    name: str
    tunnels: int
    traffic: Traffic
    prepare: Callable[[], None]


class Stage:
    """The devices with their programs, changed from case to case."""

    def __init__(self, devices: Mapping[str, int], bench: Bench) -> None:
        self._devices, self._bench, self._hooks = devices, bench, Hooks()
        for name, index in devices.items():
            if name.endswith("-far"):
                self._hooks.attach_xdp(index, bench.programs["bench_sink"], native=True)

    def _attach(self, **programs: int) -> None:
        for name in ("enb", "sgw", "ue"):
            if name in programs:
                self._hooks.attach_xdp(self._devices[name], programs[name], native=True)
            else:
                self._hooks.detach_xdp(self._devices[name])

    def baselines(self) -> list[Case]:
        """What everything else is compared with."""
        programs, passing = self._bench.programs, uplink(ELSEWHERE, self._devices["enb-far"])
        return [
            Case(FLOOR, 1, passing, lambda: self._attach(enb=programs["bench_sink"])),
            Case(BRIDGE, 1, passing, self._attach),
            Case(BARE, 1, passing, lambda: self._attach(enb=programs["bench_bare"])),
        ]

    def cases(self, path: DataPath) -> list[Case]:
        """The TOF's three jobs with this many tunnels."""

        def attach() -> None:
            programs = path.programs
            self._attach(enb=programs["tof_s1_enb"], sgw=programs["tof_s1_sgw"], ue=programs["tof_ue"])

        enb, ue = self._devices["enb-far"], self._devices["ue-far"]
        return [
            Case(PASS, path.count, uplink(ELSEWHERE, enb), attach),
            Case(DIVERT, path.count, uplink(SERVICE, enb), attach),
            Case(ENCAPSULATE, path.count, replies(ue), attach),
        ]

    def run(self, case: Case, packets: int, warm_up: int) -> Run:
        """Put a case in place, warm it up, measure."""
        case.prepare()
        self._bench.aim(case.traffic, case.tunnels, self._devices["sgw"])
        self._bench.run(case.traffic, warm_up)
        return self._bench.run(case.traffic, packets)

    def close(self) -> None:
        """Close the netlink socket."""
        self._hooks.close()
