"""The VIM Message Analyzer on what real kernels, aiohttp and tcpdump make of it: two nodes, many instantiations at once."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from struct import pack, unpack

import aiohttp
import pytest
from aiohttp import web
from netns_helper import MakeNetns, Netns

from tof.errors import DecodeError
from tof.vim.analyzer.analysis import analyse, read
from tof.vim.analyzer.phases import Analysis, Outcome, phases, total
from tof.vim.analyzer.segments import segment
from tof.wire.capture import frames

pytestmark = pytest.mark.netns

CORE, NODE = "10.9.0.1", "10.9.0.2"
REST, LIBVIRT, MARK = 19080, 26509, 9
COUNT = 12


@dataclass
class OpenVim:
    """An OpenVIM of few words: schedules, answers, then has libvirt on the node create the domain."""

    servers: dict[str, str] = field(default_factory=dict)
    tasks: set[asyncio.Future[None]] = field(default_factory=set)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def create(self, request: web.Request) -> web.StreamResponse:
        name = (await request.json())["server"]["name"]
        if name == "refused":
            error = {"error": {"code": 409, "type": "409 Conflict", "description": "no such flavour"}}
            return web.json_response(error, status=409)
        server = f"0d3cd08e-e542-11f1-ad55-{len(self.servers):012x}"
        self.servers[server] = "CREATING"
        self.tasks.add(asyncio.ensure_future(self._spawn(server)))
        response = web.json_response({"server": {"id": server, "status": "CREATING", "x": "y" * 4000}})
        response.enable_compression()
        return response

    async def show(self, request: web.Request) -> web.StreamResponse:
        server = request.match_info["server"]
        response = web.json_response({"server": {"id": server, "status": self.servers[server]}})
        response.enable_chunked_encoding()
        return response

    async def _spawn(self, server: str) -> None:
        xml = f"<domain><uuid>{server}</uuid>{'<!-- -->' * 400}</domain>".encode()
        reader, writer = await asyncio.open_connection(NODE, LIBVIRT)
        writer.write(pack("!IIIIIII", 28 + len(xml), 0x20008086, 1, 10, 0, 7, 0) + xml)
        await reader.readexactly(28)
        writer.close()
        self.servers[server] = "ACTIVE"


async def libvirtd(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Takes its time over a domain."""
    head = await reader.readexactly(28)
    length, program, version, procedure, _, serial, _ = unpack("!IIIIIII", head)
    await reader.readexactly(length - 28)
    await asyncio.sleep(0.02)
    writer.write(pack("!IIIIIII", 28, program, version, procedure, 1, serial, 0))
    await writer.drain()
    writer.close()


@asynccontextmanager
async def served(application: web.Application) -> AsyncIterator[None]:
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, CORE, REST).start()
    try:
        yield
    finally:
        await runner.cleanup()


async def instantiate(session: aiohttp.ClientSession, name: str) -> tuple[float, float]:
    """How long a client waited for the answer, and for ACTIVE."""
    begin = time.monotonic()
    async with session.post("/openvim/t1/servers", json={"server": {"name": name}}) as answer:
        document = await answer.json()
    accepted = time.monotonic() - begin
    if "server" not in document:
        return accepted, 0
    while True:
        async with session.get(f"/openvim/t1/servers/{document['server']['id']}") as answer:
            if (await answer.json())["server"]["status"] == "ACTIVE":
                return accepted, time.monotonic() - begin
        await asyncio.sleep(0.005)


async def play(core: Netns, node: Netns) -> dict[str, tuple[float, float]]:
    openvim = OpenVim()
    application = web.Application()
    application.router.add_post("/openvim/t1/servers", openvim.create)
    application.router.add_get("/openvim/t1/servers/{server}", openvim.show)
    with node.entered():
        listening = await asyncio.start_server(libvirtd, NODE, LIBVIRT)
    with core.entered():
        async with listening, served(application):
            names = ["refused", *(f"app{at}" for at in range(COUNT))]
            limit = aiohttp.TCPConnector(limit=3)
            async with aiohttp.ClientSession(f"http://{CORE}:{REST}", connector=limit) as session:
                waited = await asyncio.gather(*(instantiate(session, name) for name in names))
            return dict(zip(names, waited, strict=True))


def captured(
    netns: MakeNetns, path: Path, *options: str
) -> tuple[Analysis, list[str], dict[str, tuple[float, float]]]:
    """What is read out of tcpdump's capture, what is said of it, and what the clients saw."""
    core, node = netns("core"), netns("node")
    core.veth("eth0", node, "eth0")
    core.run("ip", "addr", "add", f"{CORE}/24", "dev", "eth0")
    node.run("ip", "addr", "add", f"{NODE}/24", "dev", "eth0")
    # A slot of its ring is as large as the snap length.
    ring = ("-B", "65536", "-s", "65535", "--immediate-mode", "-U")
    tcpdump = core.start("tcpdump", "-i", "any", *ring, *options, "-w", str(path), "tcp")
    assert tcpdump.stderr is not None
    while "listening on" not in tcpdump.stderr.readline():
        assert tcpdump.poll() is None
    waited = asyncio.run(play(core, node))
    await_mark(core, path)
    tcpdump.terminate()
    tcpdump.communicate()
    messages = read(path.read_bytes())
    return analyse(messages), messages.notes, waited


def await_mark(core: Netns, path: Path) -> None:
    """tcpdump forgets what it has not read when it ends: wait until it has a connection that comes after all else."""
    with core.entered(), socket.socket() as mark:
        mark.connect_ex((CORE, MARK))
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with contextlib.suppress(DecodeError):
            for frame in frames(path.read_bytes()):
                found = segment(frame)
                if found is not None and found.destination.port == MARK:
                    return
        time.sleep(0.05)
    raise AssertionError("tcpdump did not catch up")


@pytest.mark.parametrize("link", [(), ("-y", "LINUX_SLL")], ids=["cooked 2", "cooked 1"])
def test_instantiations_at_once(netns: MakeNetns, tmp_path: Path, link: tuple[str, ...]) -> None:
    """On any interface tcpdump sees loopback's packets, and those to the node."""
    analysis, notes, waited = captured(netns, tmp_path / "vim.pcap", *link)
    assert notes == []
    assert analysis.vim == "openvim"
    assert sorted(one.name for one in analysis.instantiations) == sorted(waited)
    for one in analysis.instantiations:
        if one.name == "refused":
            assert (one.outcome, one.fault) == (Outcome.FAILED, "HTTP 409: no such flavour")
            continue
        lasted = phases(analysis, one)
        assert (one.outcome, one.missing) == (Outcome.ACTIVE, {})
        assert {phase.key for phase in lasted} == {"rest", "spawning", "libvirt", "active"}
        # The wire lies between the client's begin and end.
        accepted, active = waited[one.name]
        assert 0 < (one.reached["rest"] - one.since_ns) / 1e9 <= accepted
        assert (total(analysis, one) or 0) <= active
        assert one.reached["libvirt"] - one.reached["spawning"] >= 15_000_000


def test_a_snap_length(netns: MakeNetns, tmp_path: Path) -> None:
    """What is cut is said; heads are still read."""
    analysis, notes, waited = captured(netns, tmp_path / "vim.pcap", "-s", "200")
    assert "cut by the capture's snap length" in notes[0]
    assert len(analysis.instantiations) == len(waited)
