"""An honest population whose traffic runs while others attack, and floods at a pace."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import socket
import struct
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from gtp_packets import ELSEWHERE, gpdu_of, new_bearer, udp
from gtp_peers import Tof
from gtp_wires import Wire

HONEST_TOS = 0x48
"""What honest tunnels carry in the outer header and attackers do not: a socket filter tells them apart."""

SO_ATTACH_FILTER = 26  # Linux UAPI socket.h
_AUXILIARY = -4096  # Linux UAPI filter.h: SKF_AD_OFF


def honest_only(wire: Wire) -> Wire:
    """Let the socket see frames of honest tunnels alone, so that no flood fills it."""
    program = (
        struct.pack("=HBBI", 0x30, 0, 0, 15),  # ldb [15]: DSCP and ECN of untagged IPv4
        struct.pack("=HBBI", 0x15, 0, 1, HONEST_TOS),
        struct.pack("=HBBI", 0x06, 0, 0, 0x40000),
        struct.pack("=HBBI", 0x06, 0, 0, 0),
    )
    code = ctypes.create_string_buffer(b"".join(program))
    wire.socket.setsockopt(
        socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HL", len(program), ctypes.addressof(code))
    )
    wire.drain()
    return wire


class Honest:
    """UEs with their own traffic: up, down, and asking a service, all at a modest pace."""

    def __init__(self, tof: Tof, service: str, port: int, ues: int = 3) -> None:
        self.tof, self._service, self._port = tof, service, port
        self.bearers = [new_bearer(tos=HONEST_TOS) for _ in range(ues)]
        for bearer in self.bearers:
            tof.attach(bearer)
        self._ran, self._core = (honest_only(Wire(tof.netns[n], "s0")) for n in ("ran", "core"))
        self._serial = itertools.count()
        self._sent: dict[str, list[bytes]] = {"up": [], "down": [], "ask": []}

    def step(self) -> None:
        """One packet of each kind from and to each UE."""
        for bearer in self.bearers:
            data = next(self._serial).to_bytes(8, "big")
            up = bearer.uplink(udp(bearer.ue, ELSEWHERE, 1000, 2000, data))
            down = bearer.downlink(udp(ELSEWHERE, bearer.ue, 2000, 1000, data))
            self._sent["up"].append(up)
            self._sent["down"].append(down)
            self._sent["ask"].append(data)
            self._ran.send(up, bearer.uplink(udp(bearer.ue, self._service, 4000, self._port, data)))
            self._core.send(down)

    @contextlib.contextmanager
    def busy(self, every_s: float = 0.01) -> Iterator[None]:
        """Traffic runs; at the end everything has arrived: byte for byte, in order, once, and answered."""
        done = threading.Event()

        def run() -> None:
            while not done.is_set():
                self.step()
                done.wait(every_s)

        for kind in self._sent.values():
            kind.clear()
        self._ran.drain()
        self._core.drain()
        thread = threading.Thread(target=run)
        thread.start()
        try:
            time.sleep(0.1)
            yield
            time.sleep(0.1)
        finally:
            done.set()
            thread.join()
        self._all_arrived()

    def _all_arrived(self) -> None:
        for wire in (self._core, self._ran):
            wire.find(lambda _: False, 0.3)
        assert len(self._sent["up"]) > 10
        answers = [one.inner.data[4:] for frame in self._ran.history if (one := gpdu_of(frame)) is not None]
        for kind, arrived in (("up", self._core.history), ("down", self._ran.history), ("ask", answers)):
            sent = self._sent[kind]
            wanted = set(sent)
            seen = [one for one in arrived if one in wanted]
            if kind == "ask":  # by way of an application, whose answers to several UEs have no order
                seen.sort()
            assert seen == sent, f"{kind}: {len(sent)} sent, {len(seen)} seen, {len(wanted - {*seen})} lost"

    def known(self) -> None:
        """Their tunnels are still known, paired and theirs."""
        for bearer in self.bearers:
            ends = {(bearer.enb, bearer.up), (bearer.sgw, bearer.down)}
            mine = [one for one in self.tof.tunnels(ue=bearer.ue) if (one["source"], one["teid"]) in ends]
            assert [(one["ues"], one["state"]) for one in mine] == [([bearer.ue], "paired")] * 2, mine

    def close(self) -> None:
        self._ran.close()
        self._core.close()


def flood(wire: Wire, frames: Iterable[bytes], per_second: int = 25_000) -> int:
    """Send in bursts at that rate; how many that were."""
    began, sent, each = time.monotonic(), 0, iter(frames)
    while burst := list(itertools.islice(each, 50)):
        wire.send(*burst)
        sent += len(burst)
        if (ahead := sent / per_second - (time.monotonic() - began)) > 0:
            time.sleep(ahead)
    return sent


def resident_kib(pid: int) -> int:
    """Resident memory of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0])
