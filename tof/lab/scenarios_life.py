"""Laboratory: what survives what: agent and OVS killed, bypass, idle purge, ``tof down`` (point 7)."""

from __future__ import annotations

import asyncio
import os
import signal

from tof.errors import BackendError
from tof.lab.checks import Check, Checks, Figures, answered, clock, probe_from
from tof.lab.namespaces import until
from tof.lab.prober import Probe
from tof.lab.snapshot import differences, snapshot
from tof.lab.webserver import content_digest
from tof.lab.world import PING_TARGET, SERVICE, World

IDLE_TIMEOUT_S = 2.0


async def agent_killed(world: World, figures: Figures) -> Checks:
    """Point 7: ``kill -9`` of the agent and its restart, unnoticed by running traffic."""
    known = await _keys(world)
    one, two, three = world.ues[:3]
    script = 'curl -sf --limit-rate 8M --max-time 30 "$0" | sha256sum'
    passing, diverted, new_flows, body, _ = await asyncio.gather(
        one.ping(PING_TARGET, "-i", "0.01", count=450),
        two.ping(SERVICE, "-i", "0.01", count=450),
        probe_from(two, SERVICE, 4.0),
        three.run("bash", "-c", script, f"http://{SERVICE}/40MB"),
        _kill_and_restart(world, figures),
    )
    yield Check.equal("7 life cycle: kill -9 of the agent: pass-through loses nothing", 450, passing.received)
    yield Check.equal(
        "7 life cycle: kill -9 of the agent: diverted ping loses nothing", 450, diverted.received
    )
    expected = f"edge: {len(new_flows)}"
    yield Check.equal(
        "7 life cycle: kill -9 of the agent: new flows are diverted", expected, answered(new_flows)
    )
    digest = content_digest(40)[:16]
    yield Check.equal(
        "7 life cycle: kill -9 of the agent: a diverted download goes on", digest, body.stdout[:16]
    )
    missing = known - await _keys(world)
    yield Check.equal("7 life cycle: the restarted agent knows the tunnels", set(), missing)
    services = [each["name"] for each in (await world.tof.request("GET", "/service")).body]
    yield Check.equal("7 life cycle: the restarted agent knows the services", ["video"], services)


async def _kill_and_restart(world: World, figures: Figures) -> None:
    await world.pause(1.0)
    await world.tof.kill()
    await world.pause(0.7)
    began = clock()
    await world.tof.start()
    figures["agent_restart_s"] = clock() - began


async def _keys(world: World) -> set[tuple[str, str, int]]:
    return {(each["source"], each["destination"], each["teid"]) for each in await world.tof.tunnels()}


async def switch_killed(world: World, figures: Figures) -> Checks:
    """Point 7: Open vSwitch dies: the wire stays, services fall back to the core and return."""
    one, two = world.ues[:2]
    passing, probes, died = await asyncio.gather(
        one.ping(PING_TARGET, "-i", "0.02", count=350), probe_from(two, SERVICE, 8.0), _kill_switch(world)
    )
    yield Check.equal("7 life cycle: OVS killed: pass-through never stops", 350, passing.received)
    fallback = _first(probes, "internet", died)
    if fallback < float("inf"):
        figures["ovs_fallback_s"] = fallback - died
    ok = fallback - died <= 1.1
    seen = f"after {fallback - died:.2f} s" if fallback < float("inf") else "never"
    yield Check("7 life cycle: OVS killed: the core answers within a second", ok, "after 1 s at most", seen)
    back = _first(probes, "edge", fallback)
    if back < float("inf"):
        figures["ovs_back_s"] = back - died
    seen = (
        f"after {back - died:.2f} s: {answered(probes)}"
        if back < float("inf")
        else f"not: {answered(probes)}"
    )
    yield Check(
        "7 life cycle: OVS back: the service is diverted again", back < float("inf"), "diverted", seen
    )


async def _kill_switch(world: World) -> float:
    await world.pause(1.5)
    pids = world.tof.pids_of("ovs-vswitchd")
    if not pids:
        raise BackendError("no ovs-vswitchd pid file in run_dir")
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    return clock()


def _first(probes: list[Probe], server: str, after: float) -> float:
    return min(
        (each.sent for each in probes if each.server == server and each.sent >= after), default=float("inf")
    )


async def bypass(world: World, figures: Figures) -> Checks:
    """Point 7: the emergency stop sends everything to the wire at once."""
    probes, (on, off) = await asyncio.gather(probe_from(world.ues[1], SERVICE, 6.5), _bypass_on_off(world))
    during = [each for each in probes if on <= each.sent < off - 1.0]
    expected = f"internet: {len(during)}"
    yield Check.equal("7 life cycle: bypass on: the core answers at once", expected, answered(during))
    after = [each for each in probes if each.sent >= off]
    yield Check.equal(
        "7 life cycle: bypass off: diverted again at once", f"edge: {len(after)}", answered(after)
    )
    lost = sum(not each.server for each in probes)
    # What an application was answering when the switch was thrown.
    name = "7 life cycle: bypass on and off: no more is lost than was on its way"
    yield Check(name, lost <= 2, "1 each time at most", str(lost))


async def _bypass_on_off(world: World) -> tuple[float, float]:
    await world.pause(1.0)
    for word in ("on", "off"):
        result = await world.tof.tof("bypass", word)
        if result.code:
            raise BackendError(f"tof bypass {word}: {result.stderr.strip()}")
        if word == "on":
            on = clock()
            await world.pause(1.0)
    return on, clock()


async def purge(world: World, figures: Figures) -> Checks:
    """Point 7: SIGTERM leaves the data plane; with a short idle timeout, idle tunnels go."""
    ue = world.ues[0]
    await world.tof.stop()
    page = await ue.curl(f"http://{SERVICE}/", seconds=5)
    yield Check.equal("7 life cycle: SIGTERM leaves the data plane in force", "edge", page)
    world.tof.configure(idle_timeout_s=IDLE_TIMEOUT_S)
    await world.tof.start()
    await ue.ping(PING_TARGET, "-i", "0.2", count=3)
    began = clock()
    held = sorted(await world.tof.tunnels_of(ue.address))
    yield Check.equal("7 life cycle: tunnels in use are held", ["downlink", "uplink"], held)

    async def gone() -> bool | None:
        return None if await world.tof.tunnels_of(ue.address) else True

    await until("the idle tunnels are purged", gone, within=IDLE_TIMEOUT_S + 6)
    took = clock() - began
    figures["purge_s"] = took
    limits = (IDLE_TIMEOUT_S - 0.5, IDLE_TIMEOUT_S + 5.5)
    wanted = f"{IDLE_TIMEOUT_S:g} s to {IDLE_TIMEOUT_S + 5:g} s after the last packet"
    yield Check(
        "7 life cycle: idle tunnels are purged", limits[0] <= took <= limits[1], wanted, f"after {took:.1f} s"
    )
    again = await ue.ping(PING_TARGET, count=1)
    yield Check.equal("7 life cycle: a purged UE's next packet passes", 1, again.received)


async def down(world: World, figures: Figures) -> Checks:
    """Point 7: ``tof down`` leaves the host as it was, stopping a running agent first; twice does no harm."""
    began = clock()
    codes = [(await world.tof.tof("down")).code for _ in range(2)]
    figures["down_s"] = (clock() - began) / 2
    yield Check.equal("7 life cycle: tof down succeeds, twice", [0, 0], codes)
    after = await snapshot(world.lab, "tof")
    left = differences(world.before, after)
    seen = "; ".join(f"{name}: {after.get(name, 'gone')}"[:160] for name in left) or "as it was"
    yield Check("7 life cycle: tof down leaves the namespace as it was", not left, "as it was", seen)
