"""Laboratory: the whole scene: RAN, TOF, core, Internet, edge, and UEs that attach through it."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass, field

from tof.lab.namespaces import Job, Lab, Result, until
from tof.lab.node import TofNode
from tof.lab.peers import Ue, attach, start_core
from tof.lab.snapshot import settled, snapshot

CORE = "10.1.0.1"
CORE6 = "fd00:1::1"
RAN6 = "fd00:1::11"
UE_POOL = "10.45.0.0/24"
TOF_APP_ADDRESS = "192.168.50.1"
EDGE = "192.168.50.10"
EDGE_TWO = "192.168.50.11"
SERVICE = "203.0.113.10"
"""The address a service gets; a live server on the Internet has it too."""
SERVICE_TWO = "203.0.113.20"
ELSEWHERE = "198.51.100.20"
PING_TARGET = "8.8.8.8"


def enb(number: int) -> str:
    """Address of the eNB of UE ``number``."""
    return f"10.1.0.{10 + number}"


@dataclass(slots=True)
class World:
    """A built scene: the node under test, its namespace as found ``before``, the UEs attached so far."""

    lab: Lab
    tof: TofNode
    before: dict[str, str]
    ues: list[Ue] = field(default_factory=list)

    async def attach(self) -> Ue:
        """Attach one more UE, through an eNB of its own."""
        number = len(self.ues) + 1
        await self.lab.address("ran", "s1", f"{enb(number)}/24")
        ue = await attach(self.lab, "ran", enb(number), CORE, number)
        self.ues.append(ue)
        return ue

    async def pause(self, seconds: float) -> None:
        """Let time pass, where the absence of something is to be seen."""
        await asyncio.sleep(seconds)

    async def ran(self, *argv: str) -> Result:
        """Run a command on the radio side."""
        return await self.lab.run("ran", *argv, check=False)


async def build(lab: Lab) -> World:
    """Build everything but the TOF itself: its namespace has adapters enb0, sgw0 and apps0, all idle."""
    await lab.namespace("ran")
    # without duplicate address detection the namespace does not change while it is looked at
    await lab.namespace("tof", "net.ipv6.conf.default.accept_dad=0")
    await lab.namespace("core", "net.ipv4.ip_forward=1")
    await lab.namespace("internet")
    await lab.namespace("edge")
    await lab.veth("ran", "s1", "tof", "enb0")
    await lab.veth("core", "s1", "tof", "sgw0")
    await lab.veth("core", "sgi", "internet", "sgi")
    await lab.veth("edge", "eth0", "tof", "apps0")
    await _addresses(lab)
    await start_core(lab, "core", CORE, UE_POOL)
    await _serve(lab, "internet", "internet", "10.2.0.2", ELSEWHERE, SERVICE, SERVICE_TWO)
    await _serve(lab, "core", "core", CORE)
    await _serve(lab, "edge", "edge", EDGE)
    await _serve(lab, "edge", "edge-two", EDGE_TWO)
    await until("the wires have settled", lambda: settled(lab, "tof"))
    return World(lab, TofNode(lab, "tof"), await snapshot(lab, "tof"))


async def _addresses(lab: Lab) -> None:
    await lab.address("ran", "s1", "10.1.0.10/24", f"{RAN6}/64")
    await lab.address("core", "s1", f"{CORE}/24", f"{CORE6}/64")
    await lab.address("core", "sgi", "10.2.0.1/24")
    await lab.address("internet", "sgi", "10.2.0.2/24")
    for address in (PING_TARGET, ELSEWHERE, SERVICE, SERVICE_TWO):
        await lab.address("internet", "lo", f"{address}/32")
    await lab.address("edge", "eth0", f"{EDGE}/24", f"{EDGE_TWO}/24")
    await lab.ip("edge", "route", "add", "default", "via", TOF_APP_ADDRESS)
    await lab.ip("core", "route", "add", "default", "via", "10.2.0.2")
    await lab.ip("internet", "route", "add", UE_POOL, "via", "10.2.0.1")


async def _serve(lab: Lab, role: str, name: str, *addresses: str) -> Job:
    job = await lab.start(role, f"web-{name}", sys.executable, "-m", "tof.lab.webserver", name, *addresses)

    async def serving() -> bool | None:
        return "serving" in job.output or None

    await until(f"web server {name} serves", serving, within=20.0)
    return job


def advice(world: World) -> str:
    """What one can try in a running lab."""
    inside = {role: f"ip netns exec {world.lab.name(role)}" for role in ("ue1", "tof", "core")}
    api = f"--api unix:{world.tof.socket}"
    return "\n".join(
        (
            "The lab is up until Ctrl-C. UEs: " + ", ".join(ue.address for ue in world.ues),
            "",
            f"  {inside['ue1']} ping {PING_TARGET}",
            f"  tof {api} tunnels",
            f"  curl --unix-socket {world.tof.socket} http://tof/service --json \\",
            f'    \'{{"name": "video", "serviceIP": "{SERVICE}", "applicationIP": "{EDGE}"}}\'',
            f"  {inside['ue1']} curl http://{SERVICE}/",
            f"  {inside['core']} tcpdump -n -i tun4",
        )
    )
