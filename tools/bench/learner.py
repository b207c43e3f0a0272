"""A TOF in a lab, and a node on either side that sends brand-new tunnels and counts what arrives."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tof.drivers.hooks import Hooks
from tof.drivers.libbpf import BpfObject, Map, maps_of
from tof.drivers.xdp import counter_names
from tof.lab.namespaces import Lab
from tof.lab.node import TofNode
from tools.bench.programs import load
from tools.bench.scene import ENB_MAC, SGW_MAC, entered
from tools.bench.tunnels import ELSEWHERE, ENB, FIRST_UE, SGW, gpdu, inner

SETTLE_S = 10.0
_TEID_AT, _SOURCE_AT, _DESTINATION_AT = 46, 62, 66
_PACE_S = 0.0005
_Found = TypeVar("_Found")


@dataclass(frozen=True, slots=True)
class Step:
    """One burst of new tunnels: sent, arrived at the other side, held by the data path.

    ``rate`` 0 is as fast as the sender can. ``settled_s``: from the first packet until nothing was missing, or in vain.
    """

    rate: int
    sent: int
    seconds: float
    arrived: int
    learnt: int
    settled_s: float

    @property
    def clean(self) -> bool:
        """Nothing lost, nothing unlearnt, and sent as fast as wanted."""
        return self.sent == self.arrived == self.learnt and self.sent / self.seconds > self.rate * 0.97


@dataclass(frozen=True, slots=True)
class Memory:
    """What tunnels take: the agent's resident set and the kernel's maps, in bytes."""

    tunnels: int
    agent: int
    maps: int


class Scene:
    """The built lab; ``next_teid`` is the first that was never sent."""

    def __init__(self, lab: Lab, tof: TofNode, sinks: BpfObject) -> None:
        self._lab, self.tof, self._sinks = lab, tof, sinks
        self.next_teid = 1

    async def inside(self, role: str, job: Callable[[], _Found]) -> _Found:
        """Run a blocking job in the namespace of ``role``, in a thread of its own."""

        def there() -> _Found:
            with entered(self._lab.name(role)):
                return job()

        with ThreadPoolExecutor(1) as pool:
            return await asyncio.get_running_loop().run_in_executor(pool, there)

    async def fill(self, rate: int, pairs: int) -> tuple[Step, Step]:
        """The uplinks of new UEs, then their downlinks: what the Pinger leaves behind once all have answered."""
        first_ue = self.next_teid
        return await self.step(rate, pairs), await self.step(rate, pairs, downlink_of=first_ue)

    async def step(
        self, rate: int, count: int, downlink_of: int | None = None, within_s: float = SETTLE_S
    ) -> Step:
        """Send ``count`` new tunnels at ``rate`` per second and wait for what comes of them."""
        first, self.next_teid = self.next_teid, self.next_teid + count
        before = await self.learnt()
        traffic = Uplinks(first) if downlink_of is None else Downlinks(first, downlink_of)
        role = "ran" if downlink_of is None else "core"
        began = time.monotonic()
        seconds = await self.inside(role, lambda: _send(traffic, count, rate))
        give_up = time.monotonic() + within_s
        while True:
            arrived, learnt = self._arrived(first, count), await self.learnt() - before
            if (arrived >= count and learnt >= count) or time.monotonic() > give_up:
                return Step(rate, count, seconds, arrived, learnt, time.monotonic() - began)
            await asyncio.sleep(0.2)

    def _arrived(self, first: int, count: int) -> int:
        seen = self._sinks.maps["bench_seen"]
        return sum(1 for n in range(first, first + count) if any(seen.get(n.to_bytes(4, "little")) or b""))

    async def learnt(self) -> int:
        """Tunnels that the data path holds."""
        return await self.inside("tof", _count_tunnels)

    async def counters(self, names: Iterable[str]) -> dict[str, int]:
        """Some of the data path's counters."""
        found = await self.inside("tof", _count_packets)
        return {name: found[name] for name in names}

    async def memory(self) -> Memory:
        """What is used now."""
        assert self.tof.agent is not None
        status = Path(f"/proc/{self.tof.agent.pid}/status").read_text()
        agent = int(status.split("VmRSS:")[1].split()[0]) * 1024
        return Memory(await self.learnt(), agent, await self.inside("tof", _map_bytes))


class Uplinks:
    """G-PDUs from the eNB, each of a new tunnel and a new UE."""

    def __init__(self, first: int) -> None:
        self._first, self._ue, self._ue_at = first, FIRST_UE + first, _SOURCE_AT
        self._frame = bytearray(gpdu(inner(bytes(4), ELSEWHERE)))

    def frame(self, number: int) -> bytearray:
        """The frame of the ``number``-th tunnel, good until the next call."""
        self._frame[_TEID_AT : _TEID_AT + 4] = (self._first + number).to_bytes(4, "big")
        self._frame[self._ue_at : self._ue_at + 4] = (self._ue + number).to_bytes(4, "big")
        return self._frame


class Downlinks(Uplinks):
    """G-PDUs from the SGW, each of a new tunnel, to UEs whose uplinks were sent before."""

    def __init__(self, first: int, first_ue: int) -> None:
        self._first, self._ue, self._ue_at = first, FIRST_UE + first_ue, _DESTINATION_AT
        self._frame = bytearray(gpdu(inner(ELSEWHERE, bytes(4)), ends=(SGW, ENB), macs=(SGW_MAC, ENB_MAC)))


def _send(traffic: Uplinks, count: int, rate: int) -> float:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.bind(("s1", 0))
        began, sent = time.perf_counter(), 0
        while sent < count:
            due = min(count, int((time.perf_counter() - began) * rate) + 1) if rate else count
            for number in range(sent, due):
                raw.send(traffic.frame(number))
            sent = due
            time.sleep(_PACE_S)
        return time.perf_counter() - began


def _agent_maps() -> dict[str, Map]:
    hooks, found = Hooks(), {}
    try:
        for device in ("enb0", "ue0"):
            programs = hooks.xdp_programs(socket.if_nametoindex(device))
            for name, each in maps_of(next(program for program in programs if program)).items():
                if name in found:
                    each.close()
                else:
                    found[name] = each
    finally:
        hooks.close()
    return found


def _count_tunnels() -> int:
    maps = _agent_maps()
    try:
        return sum(count for _, _, count in maps["tof_tunnels4"].slices(1 << 16))
    finally:
        for each in maps.values():
            each.close()


def _count_packets() -> dict[str, int]:
    maps = _agent_maps()
    try:
        table = maps["tof_counters"]
        return {
            name: sum(int.from_bytes(one, "little") for one in table.get_per_cpu(at.to_bytes(4, "little")))
            for at, name in enumerate(counter_names())
        }
    finally:
        for each in maps.values():
            each.close()


def _map_bytes() -> int:
    maps, total = _agent_maps(), 0
    for each in maps.values():
        facts = Path(f"/proc/self/fdinfo/{each.fd}").read_text()
        total += int(facts.split("memlock:")[1].split()[0])
        each.close()
    return total


@asynccontextmanager
async def learning_scene() -> AsyncIterator[Scene]:
    """A running agent between two nodes that send and count (``ran``, ``core``); nothing of it remains."""
    sinks = load("bench")
    async with Lab() as lab:
        for role in ("ran", "core", "edge"):
            await lab.namespace(
                role, "net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1"
            )
        await lab.namespace("tof", "net.ipv6.conf.default.accept_dad=0")
        await lab.veth("ran", "s1", "tof", "enb0")
        await lab.veth("core", "s1", "tof", "sgw0")
        await lab.veth("edge", "eth0", "tof", "apps0")
        await lab.ip("ran", "link", "set", "s1", "address", ENB_MAC.hex(":"))
        await lab.ip("core", "link", "set", "s1", "address", SGW_MAC.hex(":"))
        tof = TofNode(lab, "tof")
        scene = Scene(lab, tof, sinks)
        for role in ("ran", "core"):
            await scene.inside(role, lambda: _attach(sinks.programs["bench_seen_sink"]))
        tof.configure()
        await tof.start()
        await scene.inside("core", lambda: _greet(ENB_MAC, SGW_MAC))
        await scene.inside("ran", lambda: _greet(SGW_MAC, ENB_MAC))
        yield scene
        await tof.stop()
        await tof.tof("down")
    sinks.close()


def _attach(program: int) -> None:
    hooks = Hooks()
    try:
        hooks.attach_xdp(socket.if_nametoindex("s1"), program, native=True)
    finally:
        hooks.close()


def _greet(destination: bytes, source: bytes) -> None:
    """One frame, so that the TOF knows where the node is."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.bind(("s1", 0))
        raw.send(destination + source + b"\x88\xb5" + bytes(46))
