"""The bench's own programs: compiled, loaded, and the generator run."""

from __future__ import annotations

import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from struct import Struct

from tof.drivers.libbpf import BpfObject
from tof.drivers.testrun import run_xdp

HERE = Path(__file__).parent
TOF_SOURCES = HERE.parents[1] / "tof/drivers/bpf"
HEAD = 72
ZERO = bytes(4)
_CONF = Struct(f"=IIIIII{HEAD}s")
_FRAME = Struct(f"=I{HEAD}s")


def load(name: str) -> BpfObject:
    """Compile ``name``.bpf.c with the flags of tools/setup and load it."""
    triplet = subprocess.run(
        ["gcc", "-dumpmachine"], capture_output=True, text=True, check=True
    ).stdout.strip()
    with tempfile.TemporaryDirectory(prefix="tof-bench-") as place:
        target = Path(place) / f"{name}.bpf.o"
        subprocess.run(
            ["clang", "-O2", "-g", "-target", "bpf", "-mcpu=v3", "-Wall", "-Werror", f"-I/usr/include/{triplet}",
             f"-I{TOF_SOURCES}", "-c", str(HERE / f"{name}.bpf.c"), "-o", str(target)],
            check=True,
        )  # fmt: skip
        return BpfObject(target, {}, {})


@dataclass(frozen=True, slots=True)
class Traffic:
    """What is generated: a frame, where a tunnel's number and its UE stand in it, and out of which device."""

    frame: bytes
    number_at: int
    ue_at: int
    first_ue: int
    target: int


@dataclass(frozen=True, slots=True)
class Run:
    """One run of the generator."""

    sent: int
    arrived: int
    seconds: float

    @property
    def per_second(self) -> float:
        """Packets per second that arrived."""
        return self.arrived / self.seconds


class Bench:
    """Generator and sinks."""

    def __init__(self) -> None:
        self._object = load("bench")
        self.programs = self._object.programs
        self._maps = self._object.maps

    def aim(self, traffic: Traffic, tunnels: int, onward: int) -> None:
        """From now on generate ``traffic`` for one of ``tunnels`` at random; bench_bare leads to ``onward``."""
        conf = _CONF.pack(
            traffic.target, tunnels, traffic.first_ue, traffic.number_at, traffic.ue_at, onward,
            traffic.frame[:HEAD],
        )  # fmt: skip
        self._maps["bench_config"].put(ZERO, conf)

    def run(self, traffic: Traffic, packets: int) -> Run:
        """Send this many packets as fast as they go."""
        before, began = self.arrived(), time.perf_counter_ns()
        run_xdp(self.programs["bench_generate"], traffic.frame, ifindex=0, repeat=packets, live=True)
        seconds = (time.perf_counter_ns() - began) / 1e9
        return Run(packets, self.arrived() - before, seconds)

    def arrived(self) -> int:
        """Packets that the sinks have counted."""
        return sum(int.from_bytes(one, "little") for one in self._maps["bench_count"].get_per_cpu(ZERO))

    def close(self) -> None:
        """Let go of the programs."""
        self._object.close()


def pack_original(frame: bytes) -> bytes:
    """The value of repeat.bpf.c's bench_original."""
    return _FRAME.pack(len(frame), frame[:HEAD])
