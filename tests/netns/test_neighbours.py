"""Next hops are followed on a real kernel: they appear, change their MAC, vanish and come back."""

import asyncio
from collections.abc import AsyncIterator
from ipaddress import ip_address
from pathlib import Path
from time import monotonic

import pytest
import pytest_asyncio
from netns_helper import MakeNetns, Netns

from tof.config import Ue, parse
from tof.drivers.neighbours import Neighbours, next_hop
from tof.model import IpAddress

pytestmark = pytest.mark.netns

APPS = {4: "192.168.50.10", 6: "fd50::10"}
FIRST, SECOND = "02:00:00:00:00:0a", "02:00:00:00:00:0b"


class Watched:
    """A gateway adapter in ``host``, an application's adapter in ``app``, and what Neighbours told."""

    def __init__(self, host: Netns, app: Netns) -> None:
        self.host, self.app = host, app
        self.told: dict[IpAddress, bytes | None] = {}
        self._news = asyncio.Event()
        with host.entered():
            self.neighbours = Neighbours("tofgw0", self._changed)

    def _changed(self, address: IpAddress, mac: bytes | None) -> None:
        self.told[address] = mac
        self._news.set()

    async def until(self, address: str, mac: str | None) -> float:
        """Wait until an address has that MAC; how long it took."""
        begin, wanted = monotonic(), bytes.fromhex(mac.replace(":", "")) if mac else None
        async with asyncio.timeout(5):
            while self.told.get(ip_address(address), b"") != wanted:
                self._news.clear()
                await self._news.wait()
        return monotonic() - begin


@pytest_asyncio.fixture
async def watched(netns: MakeNetns) -> AsyncIterator[Watched]:
    host, app = netns("host"), netns("app")
    for one in (host, app):
        one.run("sysctl", "-qw", "net.ipv6.conf.default.accept_dad=0")
    host.veth("tofgw0", app, "eth0")
    host.run("ip", "addr", "add", "192.168.50.1/24", "dev", "tofgw0")
    host.run("ip", "addr", "add", "fd50::1/64", "dev", "tofgw0")
    app.run("ip", "link", "set", "eth0", "address", FIRST)
    for address in APPS.values():
        app.run("ip", "addr", "add", f"{address}/{24 if '.' in address else 64}", "dev", "eth0")
    watched = Watched(host, app)
    watched.neighbours.start()
    yield watched
    watched.neighbours.close()


@pytest.mark.parametrize("family", [4, 6])
async def test_appears_changes_vanishes_returns(watched: Watched, family: int) -> None:
    address, app = APPS[family], watched.app
    watched.neighbours.want({ip_address(address)})
    assert await watched.until(address, FIRST) < 1
    app.run("ip", "link", "set", "eth0", "address", SECOND)
    assert await watched.until(address, SECOND) < 1.5
    app.run("ip", "link", "set", "eth0", "arp", "off")
    app.run("sysctl", "-qw", "net.ipv6.conf.eth0.disable_ipv6=1")
    assert await watched.until(address, None) < 1.5
    app.run("ip", "link", "set", "eth0", "arp", "on")
    app.run("sysctl", "-qw", "net.ipv6.conf.eth0.disable_ipv6=0")
    if family == 6:
        app.run("ip", "addr", "add", f"{address}/64", "dev", "eth0")
    assert await watched.until(address, SECOND) < 1.5


async def test_known_to_the_kernel_already(watched: Watched) -> None:
    watched.host.run("ping", "-c", "1", APPS[4])
    watched.neighbours.want({ip_address(APPS[4])})
    assert await watched.until(APPS[4], FIRST) < 0.2


async def test_unwanted_addresses_are_not_told(watched: Watched) -> None:
    both = {ip_address(address) for address in APPS.values()}
    watched.neighbours.want(both)
    await watched.until(APPS[4], FIRST)
    await watched.until(APPS[6], FIRST)
    watched.neighbours.want({ip_address(APPS[6])})
    watched.told.clear()
    watched.app.run("ip", "link", "set", "eth0", "address", SECOND)
    await watched.until(APPS[6], SECOND)
    await asyncio.sleep(1)
    assert ip_address(APPS[4]) not in watched.told


async def test_an_absent_application_appears(watched: Watched) -> None:
    watched.neighbours.want({ip_address("192.168.50.77")})
    await asyncio.sleep(1.2)
    assert watched.told == {}
    watched.app.run("ip", "addr", "add", "192.168.50.77/24", "dev", "eth0")
    assert await watched.until("192.168.50.77", FIRST) < 1.5


def ue(gateway: str) -> Ue:
    text = Path(__file__).parents[2].joinpath("deploy", "tof.toml").read_text()
    return parse(text.replace('app_gateway = ""', f'app_gateway = "{gateway}"')).ue


def test_next_hop() -> None:
    near, far = ip_address("192.168.50.9"), ip_address("10.1.1.1")
    assert next_hop(ue("192.168.50.254"), near) == near
    assert next_hop(ue("192.168.50.254"), far) == ip_address("192.168.50.254")
    assert next_hop(ue(""), far) is None
    assert next_hop(ue("192.168.50.254"), ip_address("fd00::1")) is None
