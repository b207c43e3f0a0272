"""The programs of tof.bpf.c and the oracle on the same frames, in batches that reproduce alone.

A batch begins with known state, and its number (and the seed) decides all that follows. Verdict and frame are compared
packet by packet; counters, maps and events when the batch is over. Where only those differ, the batch is run again and
counters are compared packet by packet, which names the first one that counts wrongly.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tof.drivers import layout
from tools.fuzz.loaded import Loaded
from tools.fuzz.oracle import WRAPPER_BYTES, Oracle, Station, wrapped
from tools.fuzz.packets import LONGEST, LONGEST_JUMBO, SIZES, SIZES_JUMBO, Made, Source
from tools.fuzz.scenario import ENB2_MAC, ENB_MAC, SGW_MAC

BATCH = 2048
DRAIN = 256
ETHERNET_MINIMUM = 60
XDP_PROGRAMS = ("tof_s1_enb",) * 4 + ("tof_s1_sgw",) * 3 + ("tof_ue",) * 4 + ("tof_ret_enb", "tof_ret_sgw")
TC_PROGRAMS = ("tof_slow_enb",) * 4 + ("tof_slow_sgw",) * 3 + ("tof_onward_enb", "tof_onward_sgw")

Outcome = tuple[int, bytes]
Run = Callable[[bytes, int], Outcome]


@dataclass(frozen=True, slots=True)
class Disagreement:
    """Where the two differ: ``given`` is the frame, if it is one frame's doing."""

    seed: int
    batch: int
    packet: int
    program: str
    what: str
    given: bytes
    kernel: object
    oracle: object

    def __str__(self) -> str:
        lines = [f"{self.program}: {self.what} (seed {self.seed}, batch {self.batch}, packet {self.packet})"]
        for name, value in (("frame", self.given), ("kernel", self.kernel), ("oracle", self.oracle)):
            lines.append(f"  {name}: {_text(value)}")
        return "\n".join(lines)


def _text(value: object) -> str:
    if isinstance(value, bytes):
        return value.hex(" ", 2) if len(value) < 400 else f"{value[:200].hex(' ', 2)} ... {len(value)} bytes"
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[1], bytes):
        return f"verdict {value[0]}, {_text(value[1])}"
    return str(value)


@dataclass(slots=True)
class Tally:
    """What a run came to."""

    packets: int = 0
    counters: Counter[str] = field(default_factory=Counter)
    verdicts: Counter[str] = field(default_factory=Counter)
    disagreements: list[Disagreement] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.packets} packets, {len(self.disagreements)} disagreements"


class Differ:
    """Both sides of the comparison."""

    def __init__(self, devices: Mapping[str, int], seed: int) -> None:
        self._devices, self._seed = devices, seed
        self.loaded = Loaded(devices)
        self.tally = Tally()

    def close(self) -> None:
        self.loaded.close()

    def batch(self, number: int, packets: int = BATCH) -> None:
        """One batch; what it finds is in the tally."""
        found = self._attempt(number, packets, careful=False)
        if found is not None and not found.given:
            found = self._attempt(number, packets, careful=True) or found
        if found is not None:
            self.tally.disagreements.append(found)

    def _attempt(self, number: int, packets: int, *, careful: bool) -> Disagreement | None:
        source = Source(f"{self._seed}/{number}")
        oracle = self._oracle(source)
        self.loaded.prepare(oracle)
        before = self.loaded.counters()
        classifiers = source.random.random() < 0.25
        programs = TC_PROGRAMS if classifiers else XDP_PROGRAMS
        events: list[layout.RawEvent] = []
        differ: Disagreement | None = None
        for at in range(packets):
            if at % DRAIN == 0:
                self.loaded.beat(oracle)
                events += self.loaded.events()
            program, frame, ifindex, run, expect = self._next(source, oracle, source.random.choice(programs))
            kernel, wanted = run(frame, ifindex), expect(frame, ifindex)
            if kernel != wanted:
                what = "verdict" if kernel[0] != wanted[0] else "frame"
                differ = Disagreement(self._seed, number, at, program, what, frame, kernel, wanted)
            elif careful and (counted := self._counted(before)) != _known(oracle, counted):
                differ = Disagreement(
                    self._seed,
                    number,
                    at,
                    program,
                    "counters",
                    frame,
                    counted - oracle.counts,
                    oracle.counts - counted,
                )
            if differ is not None:
                self.tally.packets += at + 1
                return differ
            self.tally.verdicts[f"{program.removesuffix('_jumbo')} {kernel[0]}"] += 1
        self.tally.packets += packets
        events += self.loaded.events()
        self.tally.counters += self._counted(before)
        return self._afterwards(number, packets, before, oracle, events)

    def _oracle(self, source: Source) -> Oracle:
        """The state in which a batch begins: most often all is well."""
        random, devices = source.random, self._devices
        several = random.random() < 0.3
        ports = (devices["enb"], devices["enb-far"]) if several else (devices["enb"],)
        oracle = Oracle((ports, (devices["sgw"],)), devices["ue"])
        oracle.bypass, oracle.heart_dead = random.random() < 0.04, random.random() < 0.08
        if random.random() < 0.8:
            for vlan in (None, 7):
                oracle.stations[ENB_MAC, vlan] = Station(devices["enb"], 0)
                oracle.stations[SGW_MAC, vlan] = Station(devices["sgw"], 1)
                oracle.stations[ENB2_MAC, vlan] = Station(ports[-1], 0)
        return oracle

    def _next(self, source: Source, oracle: Oracle, program: str) -> tuple[str, bytes, int, Run, Run]:
        """Program, frame, where it comes in, and what the two make of it."""
        random, loaded = source.random, self.loaded
        side = int("sgw" in program)
        ifindex = random.choice(oracle.ports[side])
        jumbo = program not in TC_PROGRAMS and random.random() < 0.3
        source.sizes = SIZES_JUMBO if jumbo and random.random() < 0.1 else SIZES
        made: Made = source.ue() if program == "tof_ue" else source.s1(side)
        longest = LONGEST_JUMBO if jumbo else LONGEST
        frame = source.bent(made, longest)
        if program in TC_PROGRAMS:
            frame = frame.ljust(
                ETHERNET_MINIMUM, b"\0"
            )  # the kernel refuses to test with less than an IP header
            fd = loaded.programs[program]
            return program, frame, ifindex, lambda f, i: loaded.tc(fd, f, i), _expected(oracle, program, side)
        if program.startswith("tof_ret") and random.random() < 0.95 and len(frame) < longest - WRAPPER_BYTES:
            frame = wrapped(frame, random.randrange(2))
        name = program + "_jumbo" * jumbo
        fd = loaded.programs[name]
        return name, frame, ifindex, lambda f, i: loaded.xdp(fd, f, i), _expected(oracle, program, side)

    def _counted(self, before: Counter[str]) -> Counter[str]:
        return self.loaded.counters() - before

    def _afterwards(
        self, number: int, packets: int, before: Counter[str], oracle: Oracle, events: list[layout.RawEvent]
    ) -> Disagreement | None:
        counted = self._counted(before)
        pairs: list[tuple[str, object, object]] = [("counters", counted, _known(oracle, counted))]
        for key, record in self.loaded.tunnels().items():
            mine = oracle.tunnels[key]
            flags = (
                mine.settling * layout.SETTLING | mine.ended * layout.ENDED | mine.container * layout.CONTAINER
                | mine.moved * layout.MOVED | mine.left * layout.LEFT
            )  # fmt: skip
            held = (
                record.packets,
                record.octets,
                record.flags,
                record.qfi,
                *record.link,
                record.injected_ns != 0,
            )
            link = mine.source_mac, mine.destination_mac, mine.ifindex, mine.tos
            pairs.append(
                (
                    f"tunnel {record.number}",
                    held,
                    (mine.packets, mine.octets, flags, mine.qfi, *link, mine.injected),
                )
            )
        pairs.append(("stations", self.loaded.entries("tof_stations"), _stations(oracle)))
        pairs.append(("flows", _flows(self.loaded.entries("tof_flows")), _packed_flows(oracle)))
        pairs.append(
            (
                "pending",
                set(self.loaded.entries("tof_pending")),
                {layout.general_key(k) for k in oracle.pending},
            )
        )
        accounts = {
            key: list(layout.unpack_account(value)[:4])
            for key, value in self.loaded.entries("tof_accounts").items()
        }
        counted_by = {layout.pack_account_key(key): sums for key, sums in oracle.accounts.items()}
        pairs.append(("accounts", accounts, counted_by))
        handed = [
            (e.kind, e.tunnel, e.data)
            for e in events
            if e.kind in (layout.HELD, layout.DOUBTED, layout.MOVED_ON, layout.TOO_BIG)
        ]
        pairs.append(("frames held", handed, oracle.handed))
        kinds = (layout.SPOOFED, layout.DOWNLINK_MOVED, layout.RETURNED)
        told = {(e.kind, e.tunnel, e.data) for e in events if e.kind in kinds}
        pairs.append(("told", told - oracle.told, set()))
        for what, kernel, wanted in pairs:
            if kernel != wanted:
                return Disagreement(
                    self._seed, number, packets, "batch", what, b"", *_differing(kernel, wanted)
                )
        return None


def _expected(oracle: Oracle, program: str, side: int) -> Run:
    match program.split("_")[1]:
        case "s1":
            return lambda frame, ifindex: oracle.s1(frame, side, ifindex)
        case "slow":
            return lambda frame, ifindex: oracle.slow(frame, side, ifindex)
        case "ret":
            return lambda frame, _ifindex: oracle.back(frame, int(program == "tof_ret_sgw"))
        case "onward":
            return lambda frame, _ifindex: oracle.onward(frame)
    return lambda frame, _ifindex: oracle.ue(frame)


def _known(oracle: Oracle, counted: Counter[str]) -> Counter[str]:
    """The oracle's counts; how many copies the agent gets depends on the time they take."""
    samples = counted["sampled"], counted["sample_lost"]
    wanted = +oracle.counts
    if sum(samples) == oracle.samples:
        for name, value in zip(("sampled", "sample_lost"), samples, strict=True):
            wanted[name] = value
    elif oracle.samples:
        wanted["sampled"] = oracle.samples
    return +wanted


def _differing(kernel: object, wanted: object) -> tuple[object, object]:
    if isinstance(kernel, Counter) and isinstance(wanted, Counter):
        return kernel - wanted, wanted - kernel
    if isinstance(kernel, dict) and isinstance(wanted, dict):
        return tuple(  # type: ignore[return-value]
            {key.hex(): value for key, value in one.items() if other.get(key) != value}
            for one, other in ((kernel, wanted), (wanted, kernel))
        )
    if isinstance(kernel, list) and isinstance(wanted, list):
        at = next(
            (i for i, (a, b) in enumerate(zip(kernel, wanted, strict=False)) if a != b),
            min(len(kernel), len(wanted)),
        )
        return (len(kernel), kernel[at : at + 1]), (len(wanted), wanted[at : at + 1])
    if isinstance(kernel, set) and isinstance(wanted, set):
        return kernel - wanted, wanted - kernel
    return kernel, wanted


def _stations(oracle: Oracle) -> dict[bytes, bytes]:
    return {
        mac + (layout.NO_VLAN if vlan is None else vlan).to_bytes(2, "little"): station.pack()
        for (mac, vlan), station in oracle.stations.items()
    }


def _flows(entries: dict[bytes, bytes]) -> dict[bytes, bytes]:
    """By flow, wherever among its places one stands; whether among its UE's or in the pool."""
    return {
        value[24:64]: value[8:22] + bytes((key[:8] == bytes(8),))
        for key, value in entries.items()
        if not value[61]  # else it is over
    }


def _packed_flows(oracle: Oracle) -> dict[bytes, bytes]:
    packed = {}
    for (ue, service, ue_port, service_port, protocol), (*numbers, qfi, pooled) in oracle.flows.items():
        ports = ue_port.to_bytes(2, "big") + service_port.to_bytes(2, "big")
        key = ue.ljust(16, b"\0") + service.ljust(16, b"\0") + ports + bytes((protocol, 0, 0, 0))
        words = b"".join(number.to_bytes(4, "little") for number in numbers)
        packed[key] = words + bytes((qfi is not None, qfi or 0, pooled))
    return packed
