"""tools/bench/failover: how long a service's traffic is lost when something dies, and until it is served again.

A UE asks the service every millisecond. When an application, a VNF or Open vSwitch dies, its requests have to come out
on the core's side, or at the next application; when that is back, the application has to answer again. Both are told
beside what the settings say.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from tof.errors import BackendError, TofError
from tof.lab.namespaces import Lab
from tools.bench.machine import machine, machine_line
from tools.bench.report import table
from tools.bench.served import APP, FURTHER, GAP_S, SERVICE_IP, Scene, Watch, served_scene

INTERVAL_S, FALL, VNF_INTERVAL_S, VNF_FALL = 0.2, 3, 0.1, 3
PATIENCE_S = 20.0
_MOMENT_S = 0.02
_VNFS = f"""
[vnfs.bridge]
ingress = "vnf-i"
egress = "vnf-e"
health = "frames"
interval_s = {VNF_INTERVAL_S}
fall = {VNF_FALL}
"""


@dataclass(frozen=True, slots=True)
class Case:
    """Something that dies and comes back, by itself or by ``live``; ``bound_s``: by when the settings have its traffic at
    the core, or at the application that ``stands_by``.
    """

    name: str
    chained: bool
    bound_s: float
    die: Callable[[Scene], Awaitable[object]]
    live: Callable[[Scene], Awaitable[object]] | None
    stands_by: bool = False


async def _kill_application(scene: Scene) -> None:
    scene.signal(signal.SIGKILL)


async def _hang_application(scene: Scene) -> None:
    scene.signal(signal.SIGSTOP)


async def _resume_application(scene: Scene) -> None:
    scene.signal(signal.SIGCONT)


async def _kill_switch(scene: Scene) -> None:
    for pid in scene.tof.pids_of("ovs-vswitchd"):
        os.kill(pid, signal.SIGKILL)


async def _stop_bridge(scene: Scene) -> None:
    await scene.lab.ip("vnf", "link", "set", "br0", "down")


async def _start_bridge(scene: Scene) -> None:
    await scene.lab.ip("vnf", "link", "set", "br0", "up")


async def _cut(scene: Scene) -> None:
    await scene.lab.ip("vnf", "link", "set", "far", "down")


async def _mend(scene: Scene) -> None:
    await scene.lab.ip("vnf", "link", "set", "far", "up")


CASES = (
    Case("application refuses", False, FALL * INTERVAL_S, _kill_application, Scene.start_application),
    Case("application hangs", False, (FALL + 1) * INTERVAL_S, _hang_application, _resume_application),
    Case(
        "application refuses, another stands by",
        False,
        FALL * INTERVAL_S,
        _kill_application,
        Scene.start_application,
        stands_by=True,
    ),
    Case("VNF passes nothing", True, (2 * VNF_FALL + 1) * VNF_INTERVAL_S, _stop_bridge, _start_bridge),
    Case("VNF's link is gone", True, VNF_INTERVAL_S, _cut, _mend),
    Case("Open vSwitch dies", False, 0.9, _kill_switch, None),
)


async def measure(rounds: int) -> dict[str, object]:
    """Everything, as the JSON document."""
    facts, began = machine(), time.monotonic()
    rows = []
    async with Lab() as lab, _vnf(lab), served_scene(lab, _VNFS) as scene:
        watch = Watch(lab)
        watch.start()
        try:
            for case in CASES:
                await _provision(scene, watch, case)
                runs = [await _once(scene, watch, case) for _ in range(rounds)]
                away, back = (sorted(times) for times in zip(*runs, strict=True))
                ratio = statistics.median(away) / case.bound_s
                row = {"case": case.name, "bound_s": round(case.bound_s, 3), "away_s": away, "back_s": back}
                rows.append({**row, "ratio": ratio})
                print(row, file=sys.stderr, flush=True)
        finally:
            watch.stop()
    return {"machine": facts, "seconds": round(time.monotonic() - began, 1), "rounds": rounds, "cases": rows}


@asynccontextmanager
async def _vnf(lab: Lab) -> AsyncIterator[None]:
    """A namespace that bridges; its wires into the TOF's come with the service."""
    await lab.namespace("vnf", "net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1")
    await lab.ip("vnf", "link", "add", "br0", "type", "bridge")
    await lab.ip("vnf", "link", "set", "br0", "up")
    yield


async def _provision(scene: Scene, watch: Watch, case: Case) -> None:
    health = {"kind": "http", "port": 8080, "interval": INTERVAL_S, "timeout": INTERVAL_S, "fall": FALL}
    service: dict[str, object] = {"name": "bench", "serviceIP": SERVICE_IP, "applicationIP": APP}
    if case.stands_by:  # only once the first one lives and has the flow
        await scene.provision([service | {"health": health}])
        await asyncio.sleep(2.0)
        await scene.provision([service | {"health": health, "spread": {"applications": [FURTHER]}}])
    elif case.chained:
        await _wire_vnf(scene.lab)
        await scene.provision([service | {"chain": "bench"}], [{"name": "bench", "vnfs": ["bridge"]}])
    else:
        await scene.provision([service | {"health": health}])
    await _since(time.monotonic(), lambda: watch.answered)


async def _wire_vnf(lab: Lab) -> None:
    if await lab.ip_json("vnf", "link", "show", "type", "veth"):
        return
    for far, here in (("near", "vnf-i"), ("far", "vnf-e")):
        await lab.veth("vnf", far, "tof", here)
        await lab.ip("vnf", "link", "set", far, "master", "br0")
    await asyncio.sleep(2.0)


async def _once(scene: Scene, watch: Watch, case: Case) -> tuple[float, float]:
    """Seconds until the core has its requests; seconds from what brings it back until the application answers again."""
    await asyncio.sleep(1.0)
    died = time.monotonic()
    await case.die(scene)
    if case.stands_by:  # what is answered a moment later is the other's
        await asyncio.sleep(_MOMENT_S)
        away = await _since(died + _MOMENT_S, lambda: watch.answered) + _MOMENT_S
        await case.live(scene)  # type: ignore[misc]
        await scene.provision([])  # the flow would stay
        await _provision(scene, watch, case)
        return round(away, 3), 0.0
    away = await _since(died, lambda: watch.at_core)
    lived = died
    if case.live is not None:
        await asyncio.sleep(0.5)
        lived = time.monotonic()
        await case.live(scene)
    back = await _since(max(lived, died + away), lambda: watch.answered)
    return round(away, 3), round(back + max(lived, died + away) - lived, 3)


async def _since(then: float, seen: Callable[[], float]) -> float:
    give_up = then + PATIENCE_S
    while (at := seen()) <= then:
        if time.monotonic() > give_up:
            raise BackendError(f"nothing came within {PATIENCE_S:g} s")
        await asyncio.sleep(GAP_S)
    return at - then


def text(document: dict[str, object]) -> str:
    """The document for people."""
    cases: list[dict[str, object]] = document["cases"]  # type: ignore[assignment]
    rows = []
    for case in cases:
        away: list[float] = case["away_s"]  # type: ignore[assignment]
        back: list[float] = case["back_s"]  # type: ignore[assignment]
        figures = (statistics.median(away), max(away), case["ratio"], statistics.median(back), max(back))
        rows.append((str(case["case"]), f"{case['bound_s']}", *(f"{figure:.2f}" for figure in figures)))
    head = (
        "what dies", "settings say, s", "elsewhere, s", "at worst", "ratio", "served again, s", "at worst",
    )  # fmt: skip
    measured = f"Measured on {machine_line(document['machine'])}; {document['rounds']} rounds."  # type: ignore[arg-type]
    return "\n".join((measured, "", table(head, rows)))


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="tools/bench/failover", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the document only")
    parser.add_argument("--quick", action="store_true", help="one round each")
    options = parser.parse_args()
    if os.geteuid():
        print("the bench needs root: it makes network namespaces and runs an agent", file=sys.stderr)
        return 2
    try:
        document = asyncio.run(measure(1 if options.quick else 5))
    except TofError as error:
        print(error, file=sys.stderr)
        return 1
    print(json.dumps(document, indent=2) if options.json else text(document))
    return 0


if __name__ == "__main__":
    sys.exit(main())
