"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def machine() -> dict[str, object]:
    """Cores, processor, kernel, and how busy the machine is right now."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return {
        "cores": os.cpu_count(),
        "processor": model or platform.machine(),
        "kernel": platform.release(),
        "load": round(os.getloadavg()[0], 2),
    }


def machine_line(facts: dict[str, object]) -> str:
    """The same in a line."""
    return f"{facts['cores']} cores, {facts['processor']}, Linux {facts['kernel']}, load {facts['load']}"


def stolen_ticks() -> int:
    """Clock ticks that the hypervisor gave to others since boot."""
    return int(Path("/proc/stat").read_text().split("\n", 1)[0].split()[8])
