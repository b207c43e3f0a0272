"""tof.bpf.o in the kernel with the scenario in its maps, and its programs on one frame at a time."""

from __future__ import annotations

import ctypes
import time
from collections import Counter
from collections.abc import Mapping

from tof.drivers import layout
from tof.drivers.layout import DataPathConfig, TunnelRecord
from tof.drivers.libbpf import BpfObject, Map, RingBuffer, check, lib
from tof.drivers.selection import SelectionMaps, filter_bits
from tof.drivers.testrun import TestRun, XdpContext
from tof.drivers.xdp import counter_names, object_path
from tof.model import Link, TunnelKey
from tools.fuzz.oracle import Oracle
from tools.fuzz.scenario import DEFAULTS, MTU, RULES, SERVED, TOKEN, TRACKED, TUNNELS

LARGEST = 9200
_ROOM = 16384
_FUTURE_NS = 1 << 62
_NO_LINK = Link(bytes(6), bytes(6), 0, 0)
_SIZES = {"tof_tunnels4": 1000, "tof_tunnels6": 1000, "tof_outlets": 1000, "tof_ues": 1000}


class Loaded:
    """One load of the data path; ``devices`` are interface indexes by name."""

    def __init__(self, devices: Mapping[str, int]) -> None:
        self._devices = devices
        self._object = BpfObject(object_path(), _SIZES, {})
        self._maps, self.programs = self._object.maps, self._object.programs
        self._names = counter_names()
        self.records: list[layout.RawEvent] = []
        self._ring = RingBuffer(
            self._maps["tof_events"], lambda raw: self.records.append(layout.unpack_event(raw)), 1 << 30
        )
        self._source = ctypes.create_string_buffer(LARGEST)
        self._target = ctypes.create_string_buffer(_ROOM)
        self._xdp, self._skb = XdpContext(), ctypes.create_string_buffer(192)
        self._options = TestRun(
            sz=ctypes.sizeof(TestRun), data_in=ctypes.addressof(self._source), repeat=1,
            data_out=ctypes.addressof(self._target),
        )  # fmt: skip
        self._pointer = ctypes.byref(self._options)
        self._run = lib.bpf_prog_test_run_opts

    def close(self) -> None:
        self._ring.close()
        self._object.close()

    # State

    def prepare(self, oracle: Oracle) -> None:
        """The maps as the oracle begins."""
        devices = self._devices
        config = DataPathConfig(
            bypass=int(oracle.bypass), services=len(RULES.lists), pinging=1, ue_ifindex=oracle.ue_ifindex, mtu=MTU,
            queues=(devices["enb-far"], devices["sgw-far"]), ports=oracle.ports, prefixes=1, accounting=1,
            service_filter=filter_bits(RULES),
        )  # fmt: skip
        self._maps["tof_config"].put(bytes(4), config.pack())
        state = (bytes(8) + (1).to_bytes(4, "little")).ljust(self._maps["tof_state"].value_size, b"\0")
        self._maps["tof_state"].put(bytes(4), state)
        self.beat(oracle)
        for name in (
            "tof_stations",
            "tof_flows",
            "tof_pending",
            "tof_tunnels4",
            "tof_tunnels6",
            "tof_outlets",
            "tof_ues",
            "tof_accounts",
        ):
            self._empty(self._maps[name])
        for one in TUNNELS:
            flags = one.settling * layout.SETTLING | one.ended * layout.ENDED | one.left * layout.LEFT
            record = TunnelRecord(
                0, 0, 0, one.ues, one.number, one.session, one.direction,
                flags | (layout.CONTAINER if one.qfi is not None else 0), one.qfi or 0, _NO_LINK,
                _FUTURE_NS if one.young else 0,
            )  # fmt: skip
            # Calm: how often a foreign source makes the agent doubt is a matter of time.
            value = layout.with_calm(layout.pack_tunnel(record), time.monotonic_ns() + 10**12)
            self._table(one.key).put(layout.tunnel_key(one.key), value)
            outlet = layout.pack_outlet(one.key, one.peer, _FUTURE_NS if one.doubted else 0)
            self._maps["tof_outlets"].put(one.number.to_bytes(4, "little"), outlet)
        for ue, number in DEFAULTS.items():
            self._maps["tof_ues"].put(layout.ue_key(ue), number.to_bytes(4, "little"))
        SelectionMaps(self._maps).put(SERVED, RULES, TRACKED)
        for address in TRACKED:
            self._maps["tof_tracked"].put(layout.mapped(address), (1).to_bytes(4, "little"))
        self._maps["tof_tokens"].put(TOKEN.to_bytes(8, "big"), bytes(4))
        for (mac, vlan), station in oracle.stations.items():
            key = mac + (layout.NO_VLAN if vlan is None else vlan).to_bytes(2, "little")
            self._maps["tof_stations"].put(key, station.pack())
        self.events()

    @staticmethod
    def _empty(table: Map) -> None:
        for keys, _, count in list(table.slices()):
            for at in range(count):
                table.drop(keys[at * table.key_size : (at + 1) * table.key_size])

    def _table(self, key: TunnelKey) -> Map:
        return self._maps["tof_tunnels6" if layout.is_v6(key) else "tof_tunnels4"]

    def beat(self, oracle: Oracle) -> None:
        """What OVS's heartbeat does, while OVS lives."""
        later = time.monotonic_ns() + 10**12  # nothing is to depend on how busy this machine is
        stamp = 0 if oracle.heart_dead else later
        before = self._maps["tof_state"].get(bytes(4)) or b""
        # One window for fragments until the next beat; what is known of their datagrams is not left to time either.
        state = stamp.to_bytes(8, "little") + before[8:32] + later.to_bytes(8, "little") + bytes(8)
        self._maps["tof_state"].put(bytes(4), state)
        self._maps["tof_agent"].put(bytes(4), later.to_bytes(8, "little"))
        self._empty(self._maps["tof_pieces"])
        # All that is in the queues comes back now.
        for side, ticket in enumerate(oracle.tickets):
            self._maps["tof_queues"].put(
                side.to_bytes(4, "little"), ticket.to_bytes(4, "little") * 2 + bytes(16)
            )
        oracle.pieces.clear()
        oracle.outer_pieces.clear()

    def counters(self) -> Counter[str]:
        """Every counter that is not zero."""
        table = self._maps["tof_counters"]
        sums = (
            sum(int.from_bytes(one, "little") for one in table.get_per_cpu(at.to_bytes(4, "little")))
            for at in range(len(self._names))
        )
        return Counter({name: value for name, value in zip(self._names, sums, strict=True) if value})

    def events(self) -> list[layout.RawEvent]:
        """What the ring buffer holds, which is empty afterwards."""
        self._ring.drain()
        found, self.records = self.records, []
        return found

    def tunnels(self) -> dict[TunnelKey, TunnelRecord]:
        """Every tunnel of the scenario as the maps have it now."""
        return {
            one.key: layout.unpack_tunnel(self._table(one.key).get(layout.tunnel_key(one.key)) or b"")
            for one in TUNNELS
        }

    def entries(self, name: str) -> dict[bytes, bytes]:
        """All entries of a map."""
        table = self._maps[name]
        found = {}
        for keys, values, count in table.slices():
            for at in range(count):
                key = keys[at * table.key_size : (at + 1) * table.key_size]
                found[key] = values[at * table.value_size : (at + 1) * table.value_size]
        return found

    # Programs

    def xdp(self, program: int, frame: bytes, ifindex: int) -> tuple[int, bytes]:
        """An XDP program on a frame that came in at ``ifindex``: verdict and frame afterwards."""
        size, options = len(frame), self._options
        context = self._xdp
        context.data_end, context.ingress_ifindex = size, ifindex
        options.ctx_in, options.ctx_size_in = ctypes.addressof(context), ctypes.sizeof(context)
        return self._once(program, frame, size)

    def tc(self, program: int, frame: bytes, ifindex: int) -> tuple[int, bytes]:
        """A classifier on a frame that came in at ``ifindex``."""
        options = self._options
        ctypes.memset(self._skb, 0, len(self._skb))
        self._skb[_SKB_IFINDEX : _SKB_IFINDEX + 4] = ifindex.to_bytes(4, "little")
        options.ctx_in, options.ctx_size_in = ctypes.addressof(self._skb), len(self._skb)
        return self._once(program, frame, len(frame))

    def _once(self, program: int, frame: bytes, size: int) -> tuple[int, bytes]:
        options = self._options
        ctypes.memmove(self._source, frame, size)
        options.data_size_in, options.data_size_out = size, _ROOM
        if self._run(program, self._pointer) < 0:
            check(-1, f"BPF_PROG_TEST_RUN of {size} bytes")
        return options.retval, ctypes.string_at(self._target, options.data_size_out)


_SKB_IFINDEX = 40
"""``ifindex`` in struct __sk_buff: behind ten 32-bit words."""
