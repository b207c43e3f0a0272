"""Finding idle tunnels in the data path's own last-seen, slice by slice, so that the loop stays responsive."""

from __future__ import annotations

import asyncio

from tof.drivers.layout import INJECTED_WORD, LAST_SEEN_WORD, TUNNEL_SIZE, unpack_tunnel
from tof.drivers.xdp import XdpEndpoints

_WORDS = TUNNEL_SIZE // 8


async def idle_tunnels(endpoints: XdpEndpoints, before_ns: int) -> list[int]:
    """Indices of the tunnels that have carried nothing since ``before_ns`` (CLOCK_MONOTONIC)."""
    idle: list[int] = []
    for _keys, values, _size, count in endpoints.slices():
        words = memoryview(values).cast("Q")
        used = map(max, words[LAST_SEEN_WORD::_WORDS].tolist(), words[INJECTED_WORD::_WORDS].tolist())
        idle += [
            unpack_tunnel(values, at * TUNNEL_SIZE).number
            for at, last_ns in zip(range(count), used, strict=False)
            if last_ns < before_ns
        ]
        await asyncio.sleep(0)
    return idle
