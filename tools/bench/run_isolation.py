"""tools/bench/isolation: what it costs that an application is held to its rules, against one of which nothing is asked.

A service's requests and answers, one at a time and as many as Open vSwitch takes with 64 under way. Everything as a ratio
to an application behind the apps adapter that may say anything, measured in the same rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tof.errors import TofError
from tof.lab.namespaces import Lab
from tools.bench.machine import machine, machine_line
from tools.bench.report import table
from tools.bench.served import APP, SERVICE_IP, RoundTrips, Scene, serve_at, served_scene

OWN, MAC, RULES = "192.168.50.20", "02:00:00:00:05:20", 64
_CONFIG = f"""[applications.own]
interface = "own0"
mac = "{MAC}"
addresses = "{OWN}"
security_groups = ["own"]
"""
APPLICATIONS = {
    "behind the apps adapter": (APP, "any", 0),
    "the same, answers only": (APP, "none", 0),
    "a port of its own": (OWN, "none", 0),
    f"a port of its own, {RULES} rules": (OWN, "none", RULES),
}
BYTES = (50, 1300)
PLAIN = next(iter(APPLICATIONS))
CASES = [(case, size) for size in BYTES for case in APPLICATIONS]


async def _wire(scene: Scene) -> None:
    lab = scene.lab
    await lab.namespace("own", "net.ipv6.conf.all.disable_ipv6=1")
    await lab.veth("own", "eth0", "tof", "own0")
    await lab.ip("own", "link", "set", "eth0", "address", MAC)
    await lab.address("own", "eth0", f"{OWN}/24")
    await lab.ip("own", "route", "add", "default", "via", "192.168.50.1")
    await serve_at(lab, "own", OWN)


async def _provision(scene: Scene, application: str, initiates: str, rules: int) -> None:
    service = {"name": "bench", "serviceIP": SERVICE_IP, "applicationIP": application, "initiates": initiates}
    ports = [{"direction": "ingress", "protocol": "tcp", "ports": [1000 + 2 * n]} for n in range(rules)]
    await scene.provision([service], groups=[{"name": "own", "rules": ports}] if rules else [])


async def measure(rounds: int, count: int) -> dict[str, object]:
    """Everything, as the JSON document."""
    facts, began = machine(), time.monotonic()
    times: dict[tuple[str, int], list[float]] = {case: [] for case in CASES}
    rates: dict[tuple[str, int], list[float]] = {case: [] for case in CASES}
    work: dict[tuple[str, int], list[float]] = {case: [] for case in CASES}
    async with Lab() as lab, served_scene(lab, _CONFIG) as scene:
        await _wire(scene)
        await asyncio.sleep(3.0)  # Open vSwitch takes it in
        trips = RoundTrips(lab)
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1) as pool:
            for _ in range(rounds):
                for case in CASES:
                    trips.carry(case[1])
                    await _provision(scene, *APPLICATIONS[case[0]])
                    await loop.run_in_executor(pool, trips.measure, 100)
                    each = await loop.run_in_executor(pool, trips.measure, count)
                    times[case].append(statistics.median(each))
                    before = _worked_s(scene)
                    rates[case].append(await loop.run_in_executor(pool, trips.rate, 10 * count))
                    work[case].append((_worked_s(scene) - before) / (10 * count))
        trips.close()
    rows = [
        {
            "case": case[0], "bytes": case[1], "us": [round(1e6 * one, 1) for one in times[case]],
            "ovs_us": [round(1e6 * one, 1) for one in work[case]], "per_s": [round(one) for one in rates[case]],
            "ratio_us": _ratio(times[case], times[PLAIN, case[1]]), "ratio_ovs_us": _ratio(work[case], work[PLAIN, case[1]]),
            "ratio_per_s": _ratio(rates[case], rates[PLAIN, case[1]]),
        }
        for case in CASES
    ]  # fmt: skip
    return {"machine": facts, "seconds": round(time.monotonic() - began, 1), "rounds": rounds, "cases": rows}


def _worked_s(scene: Scene) -> float:
    """The processor time that Open vSwitch has taken."""
    (pid,) = scene.tof.pids_of("ovs-vswitchd")
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _ratio(seen: list[float], plain: list[float]) -> float:
    return statistics.median(one / other for one, other in zip(seen, plain, strict=True))


def text(document: dict[str, object]) -> str:
    """The document for people."""
    cases: list[dict[str, object]] = document["cases"]  # type: ignore[assignment]
    middle: Callable[[object], float] = statistics.median  # type: ignore[assignment]
    rows = [
        (
            str(case["case"]), str(case["bytes"]), f"{middle(case['us']):.0f}", f"{case['ratio_us']:.2f}",
            f"{middle(case['ovs_us']):.1f}", f"{case['ratio_ovs_us']:.2f}",
            f"{middle(case['per_s']):.0f}", f"{case['ratio_per_s']:.2f}",
        )
        for case in cases
    ]  # fmt: skip
    head = (
        "application",
        "bytes",
        "there and back, us",
        "ratio",
        "Open vSwitch works, us",
        "ratio",
        "answers a second",
        "ratio",
    )
    measured = f"Measured on {machine_line(document['machine'])}; {document['rounds']} rounds."  # type: ignore[arg-type]
    return "\n".join((measured, "", table(head, rows)))


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="tools/bench/isolation", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the document only")
    parser.add_argument("--quick", action="store_true", help="one short round")
    options = parser.parse_args()
    if os.geteuid():
        print("the bench needs root: it makes network namespaces and runs an agent", file=sys.stderr)
        return 2
    try:
        document = asyncio.run(measure(1, 200) if options.quick else measure(5, 2000))
    except TofError as error:
        print(error, file=sys.stderr)
        return 1
    print(json.dumps(document, indent=2) if options.json else text(document))
    return 0


if __name__ == "__main__":
    sys.exit(main())
