"""The TOF's maps, filled with any number of tunnels, and the frames that go with them."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address
from struct import Struct

from tof.dataplane.desired import ServedService, Serving
from tof.dataplane.selection import rule_lists
from tof.drivers import layout
from tof.drivers.layout import DataPathConfig, TunnelRecord
from tof.drivers.libbpf import BpfObject, Map
from tof.drivers.selection import SelectionMaps
from tof.drivers.xdp import object_path
from tof.model import GATEWAY_MAC, Direction, Link, Service
from tools.bench.programs import ZERO, Traffic
from tools.bench.scene import ENB_MAC, SGW_MAC

ENB, SGW = bytes((10, 1, 0, 11)), bytes((10, 2, 0, 1))
SERVICE, ELSEWHERE = bytes((203, 0, 113, 10)), bytes((198, 51, 100, 20))
FIRST_UE = 0x64400000
PACKET = 100
"""Bytes of an inner packet."""
LARGEST = 1_000_000
"""The agent's default bound: the tables are as large as it makes them."""
_DOWNLINKS = 1 << 24
"""Numbers of the downlink tunnels start here."""
_CHUNK = 1 << 16
_OWNER = Struct("=4sII")
_OWNER_AT = 32
_OWNER_END = _OWNER_AT + _OWNER.size
_STATE = Struct("=QIIQQ")
_BEAT_S = 0.2


def inner(source: bytes, destination: bytes) -> bytes:
    """An IPv4 packet with UDP of PACKET bytes."""
    head = (
        bytes((0x45, 0)) + PACKET.to_bytes(2, "big") + bytes(4) + bytes((64, 17, 0, 0)) + source + destination
    )
    udp = (40000).to_bytes(2, "big") + (53).to_bytes(2, "big") + (PACKET - 20).to_bytes(2, "big") + bytes(2)
    return head + udp + bytes(PACKET - 28)


def gpdu(
    packet: bytes, ends: tuple[bytes, bytes] = (ENB, SGW), macs: tuple[bytes, bytes] = (ENB_MAC, SGW_MAC)
) -> bytes:
    """The packet in a tunnel, as a frame; ``ends`` and ``macs`` are source and destination."""
    gtp = b"\x30\xff" + len(packet).to_bytes(2, "big") + bytes(4) + packet
    udp = (2152).to_bytes(2, "big") * 2 + (len(gtp) + 8).to_bytes(2, "big") + bytes(2) + gtp
    ip = bytes((0x45, 0)) + (20 + len(udp)).to_bytes(2, "big") + bytes(4) + bytes((64, 17)) + bytes(2)
    check = checksum(ip + ends[0] + ends[1])
    return macs[1] + macs[0] + b"\x08\x00" + ip[:10] + check + ends[0] + ends[1] + udp


def checksum(header: bytes) -> bytes:
    """The Internet checksum (RFC 1071) of a header whose checksum field is zero."""
    total = sum(int.from_bytes(header[at : at + 2], "big") for at in range(0, len(header), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return (~total & 0xFFFF).to_bytes(2, "big")


def uplink(destination: bytes, target: int) -> Traffic:
    """G-PDUs of random tunnels to ``destination``."""
    return Traffic(gpdu(inner(bytes(4), destination)), 46, 62, FIRST_UE, target)


def replies(target: int) -> Traffic:
    """Frames as br-ue sends them: from the service to a random UE."""
    frame = GATEWAY_MAC + b"\x02\x00\x00\x00\x00\x09" + b"\x08\x00" + inner(SERVICE, bytes(4))
    return Traffic(frame, 42, 30, FIRST_UE, target)


class DataPath:
    """One load of the data path's object with ``count`` tunnels each way."""

    def __init__(self, devices: Mapping[str, int], count: int, loaded: BpfObject | None = None) -> None:
        most = max(LARGEST, 2 * count)
        sizes = {"tof_tunnels4": most, "tof_outlets": 2 * most, "tof_ues": 2 * most}
        self._object = loaded or BpfObject(object_path(), sizes, {})
        self._maps, self.programs, self.count = self._object.maps, self._object.programs, count
        self._configure(devices)
        self._fill(devices)
        self.beat()

    def beat(self) -> None:
        """What OVS's heartbeat does."""
        self._maps["tof_state"].put(ZERO, _STATE.pack(time.monotonic_ns(), 1, 0, 0, 0))

    def set_services(self, wanted: bool) -> None:
        """Whether any service is provisioned."""
        self._config.services = int(wanted)
        self._config.service_filter = layout.filter_bit(SERVICE) if wanted else 0
        self._maps["tof_config"].put(ZERO, self._config.pack())

    def counters(self) -> list[int]:
        """The data path's counters."""
        table = self._maps["tof_counters"]
        return [
            sum(int.from_bytes(one, "little") for one in table.get_per_cpu(at.to_bytes(4, "little")))
            for at in range(table.max_entries)
        ]

    def close(self) -> None:
        """Let go of programs and maps."""
        self._object.close()

    def _configure(self, devices: Mapping[str, int]) -> None:
        ports = ((devices["enb"],), (devices["sgw"],))
        self._config = DataPathConfig(
            services=1, ue_ifindex=devices["ue"], ports=ports, service_filter=layout.filter_bit(SERVICE)
        )
        self._maps["tof_config"].put(ZERO, self._config.pack())
        address = IPv4Address(SERVICE)
        served = ServedService(Service("bench", address, address), 1, Serving.DIVERT)
        SelectionMaps(self._maps).put((served,), rule_lists((served.service,)), frozenset())
        for side, (mac, device) in enumerate(((ENB_MAC, "enb"), (SGW_MAC, "sgw"))):
            station = devices[device].to_bytes(4, "little") + side.to_bytes(4, "little")
            self._maps["tof_stations"].put(mac + layout.NO_VLAN.to_bytes(2, "little"), station)

    def _fill(self, devices: Mapping[str, int]) -> None:
        up = _shape(Direction.UPLINK, Link(ENB_MAC, SGW_MAC, devices["enb"], 0))
        down = _shape(Direction.DOWNLINK, Link(SGW_MAC, ENB_MAC, devices["sgw"], 0))
        for first in range(0, self.count, _CHUNK):
            numbers = range(first, min(first + _CHUNK, self.count))
            self._put("tof_tunnels4", _keys(ENB, SGW, numbers), _values(up, numbers, 0))
            self._put("tof_tunnels4", _keys(SGW, ENB, numbers), _values(down, numbers, _DOWNLINKS))
            self._put("tof_outlets", _indexes(numbers, 0), _outlets(ENB, SGW, numbers, _DOWNLINKS))
            self._put("tof_outlets", _indexes(numbers, _DOWNLINKS), _outlets(SGW, ENB, numbers, None))
            self._put("tof_ues", (layout.ue_key(_ue(n)) for n in numbers), _indexes(numbers, _DOWNLINKS))

    def _put(self, name: str, keys: Iterator[bytes], values: Iterator[bytes]) -> None:
        self._maps[name].put_many(b"".join(keys), b"".join(values))

    def table(self, name: str) -> Map:
        """One of the maps."""
        return self._maps[name]


def _ue(number: int) -> bytes:
    return (FIRST_UE + number).to_bytes(4, "big")


def _shape(direction: Direction, link: Link) -> bytes:
    record = TunnelRecord(0, 0, 0, (), 0, 0, direction, 0, 0, link, 0)
    return layout.pack_tunnel(record)


def _values(shape: bytes, numbers: range, offset: int) -> Iterator[bytes]:
    head, tail = shape[:_OWNER_AT], shape[_OWNER_END:]
    return (head + _OWNER.pack(_ue(n), n + 1 + offset, n + 1) + tail for n in numbers)


def _keys(source: bytes, destination: bytes, numbers: range) -> Iterator[bytes]:
    head, tail = source + destination, layout.NO_VLAN.to_bytes(2, "little") + bytes(2)
    return (head + (n + 1).to_bytes(4, "big") + tail for n in numbers)


def _indexes(numbers: range, offset: int) -> Iterator[bytes]:
    return ((n + 1 + offset).to_bytes(4, "little") for n in numbers)


def _outlets(source: bytes, destination: bytes, numbers: range, peer: int | None) -> Iterator[bytes]:
    head = source + bytes(12) + destination + bytes(12)
    tail = layout.NO_VLAN.to_bytes(2, "little") + (4).to_bytes(2, "little")
    for n in numbers:
        paired = 0 if peer is None else n + 1 + peer
        yield head + (n + 1).to_bytes(4, "big") + tail + paired.to_bytes(4, "little") + bytes(12)


class Heart(threading.Thread):
    """Keeps data paths believing that OVS is alive, as CFM does."""

    def __init__(self, paths: list[DataPath]) -> None:
        super().__init__(daemon=True)
        self._paths, self._over = paths, threading.Event()

    def run(self) -> None:
        """Beat until stopped, on whatever CPU is not the generator's."""
        os.sched_setaffinity(0, range(os.cpu_count() or 1))
        while not self._over.wait(_BEAT_S):
            for path in self._paths:
                path.beat()

    def stop(self) -> None:
        """Let it stand still."""
        self._over.set()
        self.join()
