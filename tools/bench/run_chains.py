"""tools/bench/chains: the time of a request to the edge and its answer, by the number of services and of VNFs in the chain,
and by the chain's mark.

One request at a time, so that it is the way's length that is measured. The VNFs are bare wires: what is left is what the
TOF adds for each. Everything as a ratio to one service without a chain, measured in the same rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from tof.errors import TofError
from tof.lab.namespaces import Lab
from tools.bench.machine import machine, machine_line
from tools.bench.report import table
from tools.bench.served import APP, SERVICE_IP, RoundTrips, Scene, served_scene

HOPS, SERVICES = (1, 2, 4, 8), (100, 10_000)
MARKS = {"": {}, "vlan": {"vlan": 40}, "dscp": {"dscp": 10}, "nsh": {"nsh": 77}}
_MARKED_HOPS, _MTU = 4, 1538
_VNFS = "".join(
    f'[vnfs.v{n}]\ningress = "vnf{n}-i"\negress = "vnf{n}-e"\nspeaks = ["vlan", "dscp", "nsh"]\n'
    for n in range(max(HOPS))
)
Case = tuple[int, int, str]


async def _wire_vnfs(lab: Lab) -> None:
    for n in range(max(HOPS)):
        await lab.ip("tof", "link", "add", f"vnf{n}-i", "type", "veth", "peer", "name", f"vnf{n}-e")
        for device in (f"vnf{n}-i", f"vnf{n}-e"):
            await lab.ip("tof", "link", "set", device, "mtu", str(_MTU), "up")


async def _provision(scene: Scene, services: int, hops: int, mark: str) -> None:
    one: dict[str, object] = {"name": "bench", "serviceIP": SERVICE_IP, "applicationIP": APP}
    others = [
        {
            "name": f"other{n}",
            "serviceIP": f"198.18.{n >> 8}.{n & 255}",
            "applicationIP": f"198.19.{n >> 8}.{n & 255}",
        }
        for n in range(services - 1)
    ]
    chain = [{"name": "bench", "vnfs": [f"v{n}" for n in range(hops)], **MARKS[mark]}] if hops else []
    await scene.provision([one | ({"chain": "bench"} if hops else {}), *others], chain)


async def measure(rounds: int, count: int) -> dict[str, object]:
    """Everything, as the JSON document."""
    facts, began = machine(), time.monotonic()
    cases: list[Case] = [(1, 0, ""), *((services, 0, "") for services in SERVICES)]
    cases += [(1, hops, "") for hops in HOPS]
    cases += [(1, _MARKED_HOPS, mark) for mark in MARKS if mark]
    times: dict[Case, list[float]] = {case: [] for case in cases}
    async with Lab() as lab, served_scene(lab, _VNFS) as scene:
        await _wire_vnfs(lab)
        await asyncio.sleep(3.0)  # Open vSwitch takes them in
        trips = RoundTrips(lab)
        with ThreadPoolExecutor(1) as pool:
            for _ in range(rounds):
                for case in cases:
                    await _provision(scene, *case)
                    await asyncio.get_running_loop().run_in_executor(pool, trips.measure, 100)
                    each = await asyncio.get_running_loop().run_in_executor(pool, trips.measure, count)
                    times[case].append(statistics.median(each))
        trips.close()
    base = times[1, 0, ""]
    rows = [
        {
            "services": services, "vnfs": hops, "mark": mark, "us": [round(1e6 * one, 1) for one in seen],
            "ratio": statistics.median(one / plain for one, plain in zip(seen, base, strict=True)),
        }
        for (services, hops, mark), seen in times.items()
    ]  # fmt: skip
    return {"machine": facts, "seconds": round(time.monotonic() - began, 1), "rounds": rounds, "cases": rows}


def text(document: dict[str, object]) -> str:
    """The document for people."""
    cases: list[dict[str, object]] = document["cases"]  # type: ignore[assignment]
    rows = []
    for case in cases:
        seen: list[float] = case["us"]  # type: ignore[assignment]
        spread = f"{min(seen):.0f}-{max(seen):.0f}"
        figures = (
            f"{case['vnfs']} {case['mark']}".strip(),
            f"{statistics.median(seen):.0f}",
            spread,
            f"{case['ratio']:.2f}",
        )
        rows.append((f"{case['services']} services", *figures))
    head = ("provisioned", "VNFs in the chain", "there and back, us", "rounds", "ratio")
    measured = f"Measured on {machine_line(document['machine'])}; {document['rounds']} rounds."  # type: ignore[arg-type]
    return "\n".join((measured, "", table(head, rows)))


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="tools/bench/chains", description=__doc__)
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
