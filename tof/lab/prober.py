"""Laboratory: who answers, when: a UDP probe every few milliseconds, each from a port of its own."""

from __future__ import annotations

import argparse
import asyncio
import json
from dataclasses import dataclass, field
from functools import partial
from typing import cast

from tof.lab.webserver import ECHO_PORT


@dataclass(slots=True)
class Probe:
    """One datagram: when it was sent (monotonic clock, shared by all processes), and who answered."""

    sent: float
    server: str = ""


@dataclass(slots=True)
class _OneShot(asyncio.DatagramProtocol):
    probe: Probe
    transport: asyncio.DatagramTransport | None = field(default=None)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)
        self.transport.sendto(b"probe")

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.probe.server = data.partition(b":")[0].decode()
        if self.transport is not None:
            self.transport.close()

    def error_received(self, exc: Exception) -> None:
        """An ICMP error is no answer."""


async def probe(address: str, seconds: float, interval: float) -> list[Probe]:
    """Send probes for ``seconds``, then wait one more second for answers."""
    loop = asyncio.get_running_loop()
    probes: list[Probe] = []
    transports: list[asyncio.DatagramTransport] = []
    began = loop.time()
    while loop.time() < began + seconds:
        probes.append(Probe(loop.time()))
        factory = partial(_OneShot, probes[-1])
        transport, _ = await loop.create_datagram_endpoint(factory, remote_addr=(address, ECHO_PORT))
        transports.append(transport)
        await asyncio.sleep(max(0.0, began + len(probes) * interval - loop.time()))
    await asyncio.sleep(1.0)
    for transport in transports:
        transport.close()
    return probes


def main() -> None:
    """Command line: ``python -m tof.lab.prober ADDRESS SECONDS [INTERVAL]``; prints [[sent, server], ...]."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("address")
    parser.add_argument("seconds", type=float)
    parser.add_argument("interval", type=float, nargs="?", default=0.02)
    options = parser.parse_args()
    probes = asyncio.run(probe(options.address, options.seconds, options.interval))
    print(json.dumps([[each.sent, each.server] for each in probes]))


if __name__ == "__main__":
    main()
