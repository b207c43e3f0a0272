"""Storms of new tunnels: nothing is lost, nothing overtakes within a tunnel, all are learnt, services are served."""

from __future__ import annotations

import itertools
import signal
import struct
import time
from collections import defaultdict
from collections.abc import Iterator

import pytest
from gtp_packets import APP_MAC, ELSEWHERE, Bearer, new_bearer, pong, udp
from gtp_peers import Setting, Tof, running_tof, until
from gtp_wires import Wire

pytestmark = pytest.mark.netns

SERVICE = "203.0.113.77"
_MARK = b"tof-storm"
_serial = itertools.count(1)


@pytest.fixture(scope="module", params=["generic", "native"])
def running(request: pytest.FixtureRequest) -> Iterator[Tof]:
    with running_tof(Setting(xdp=request.param)) as one:
        yield one


@pytest.fixture
def tof(running: Tof) -> Tof:
    running.drain()
    return running


class Storm:
    """``count`` tunnels that nobody has seen, ``each`` packets in every one."""

    def __init__(self, count: int, each: int, *, down: bool = False) -> None:
        self.number, self.count, self.each = next(_serial), count, each
        bearer, data = Bearer("10.64.0.0", 0, 0), _MARK + bytes(8)
        frame, ue_at = bearer.uplink(udp(bearer.ue, ELSEWHERE, 1000, 2000, data)), 62
        if down:
            frame, ue_at = bearer.downlink(udp(ELSEWHERE, bearer.ue, 2000, 1000, data)), 66
        self._head, self._middle, self._tail = frame[:46], frame[50:ue_at], frame[ue_at + 4 : -8]

    def frame(self, n: int, packet: int) -> bytes:
        teid, ue = self.number << 20 | n + 1, 0x0A400000 + (self.number << 16) + n + 1
        told = struct.pack("!II", n, packet)
        return b"".join(
            (self._head, teid.to_bytes(4, "big"), self._middle, ue.to_bytes(4, "big"), self._tail, told)
        )

    def rounds(self) -> Iterator[bytes]:
        """The first packet of every tunnel, then the second of every one, and so on."""
        return (self.frame(n, packet) for packet in range(self.each) for n in range(self.count))

    def bursts(self) -> Iterator[bytes]:
        """All packets of a tunnel at once, then those of the next."""
        return (self.frame(n, packet) for n in range(self.count) for packet in range(self.each))

    def lost_or_overtaken(self, arrived: list[bytes]) -> tuple[int, int]:
        """How many packets did not arrive, and how many tunnels' packets did in another order."""
        orders: dict[int, list[int]] = defaultdict(list)
        for frame in arrived:
            if _MARK in frame:
                n, packet = struct.unpack("!II", frame[-8:])
                assert frame == self.frame(n, packet)
                orders[n].append(packet)
        overtaken = sum(order != sorted(order) for order in orders.values())
        return self.count * self.each - sum(map(len, orders.values())), overtaken


def arriving(wire: Wire, silence_s: float = 1.0) -> list[bytes]:
    """What comes until there is silence but for the Pinger."""
    quiet = time.monotonic()
    while time.monotonic() - quiet < silence_s:
        frame = wire.receive(0.05)
        if frame is not None and _MARK in frame:
            quiet = time.monotonic()
    return wire.history


def learnt(tof: Tof) -> int:
    return int(tof.metrics()["tof_tunnels"])


def directions(tof: Tof, bearer: Bearer) -> set[str]:
    """The directions in which the UE's tunnels are known; there are too many tunnels to look through all."""
    return {one["direction"] for one in tof.tunnels(ue=bearer.ue)}


def test_answers_to_the_pinger_never_reach_a_ue_in_a_storm(tof: Tof) -> None:
    """They take the queue however full it is: the verdict on them is DROP."""
    asking, storm = [new_bearer() for _ in range(20)], Storm(20_000, 1, down=True)
    for bearer in asking:
        frame = bearer.uplink(udp(bearer.ue, ELSEWHERE, 1000, 2000, b"up"))
        tof.ran.send(frame)
        tof.core.expect(frame)
    requests = {bearer.up: tof.pinger_request(bearer, 5) for bearer in asking}
    for n, frame in enumerate(storm.rounds()):
        tof.core.send(frame)
        if n % 1000 == 500:
            bearer = asking[n // 1000]
            tof.core.send(bearer.downlink(pong(requests[bearer.up].message.payload)))
    assert storm.lost_or_overtaken(arriving(tof.ran)) == (0, 0)
    assert not [frame for frame in tof.ran.history if b"tof-pinger" in frame]
    for bearer in asking:
        until("the answer taught the downlink", lambda b=bearer: len(directions(tof, b)) == 2, 20)


@pytest.mark.parametrize("shape", ["one each", "rounds", "bursts"])
def test_twenty_thousand_new_tunnels_at_once(tof: Tof, shape: str) -> None:
    storm = Storm(20_000, 1 if shape == "one each" else 3)
    before, crowded = learnt(tof), tof.packets("crowded")
    for frame in storm.bursts() if shape == "bursts" else storm.rounds():
        tof.ran.send(frame)
    assert storm.lost_or_overtaken(arriving(tof.core)) == (0, 0)
    until("all are learnt", lambda: learnt(tof) - before >= storm.count, 60, 0.5)
    assert tof.packets("crowded") > crowded, "the queue kept up: nothing was proven"
    assert tof.packets("crowded_lost") == 0


def test_services_are_served_from_the_first_packet_in_a_storm(tof: Tof) -> None:
    """Honest UEs attach in the midst of it; what they send to the service never reaches the core."""
    storm, honest = Storm(20_000, 1), [new_bearer() for _ in range(100)]
    with tof.service(SERVICE):
        until("diversion", lambda: _diverted(tof))
        tof.drain()
        crowded = tof.packets("crowded")
        for n, frame in enumerate(storm.rounds()):
            tof.ran.send(frame)
            if n % 200 == 100:
                bearer = honest[n // 200]
                tof.ran.send(bearer.uplink(udp(bearer.ue, SERVICE, 1000, 2000, b"first")))
        assert storm.lost_or_overtaken(arriving(tof.core)) == (0, 0)
        assert not [frame for frame in tof.core.history if b"first" in frame]
        assert tof.packets("crowded") > crowded
        asked = {bearer.ue for bearer in honest}
        while asked:
            eth, one = tof.apps.packet(lambda one: one.segment.endswith(b"first"))
            assert eth.destination == APP_MAC
            asked.discard(one.source)
        tof.core.drain()
        # Their tunnels serve on, and the answers find the way once the core has told the downlink.
        for bearer in honest[:5]:
            tof.core.send(bearer.downlink(udp(ELSEWHERE, bearer.ue, 2000, 1000)))
            until("both tunnels", lambda b=bearer: len(directions(tof, b)) == 2, 20)
            tof.ran.send(bearer.uplink(udp(bearer.ue, SERVICE, 1000, 2000, b"again")))
            tof.apps.packet(lambda one, b=bearer: one.source == b.ue and one.segment.endswith(b"again"))


def _diverted(tof: Tof) -> bool:
    bearer = new_bearer()
    frame = bearer.uplink(udp(bearer.ue, SERVICE, 1000, 2000, b"ready?"))
    tof.ran.send(frame)
    return tof.apps.find(lambda one: one.endswith(b"ready?"), 0.3) is not None


def test_an_agent_that_stands_still_in_a_storm(tof: Tof) -> None:
    """What it holds waits for it, all else passes beside it; then it learns."""
    storm, before = Storm(20_000, 2), learnt(tof)
    tof.signal(signal.SIGSTOP)
    try:
        for frame in storm.rounds():
            tof.ran.send(frame)
        passed = len([frame for frame in arriving(tof.core) if _MARK in frame])
    finally:
        tof.signal(signal.SIGCONT)
    assert storm.lost_or_overtaken(arriving(tof.core))[0] == 0
    assert passed > storm.count * storm.each - 3000
    until("all are learnt", lambda: learnt(tof) - before >= storm.count, 60, 0.5)


def test_an_agent_killed_in_a_storm() -> None:
    """At most what is in the queue dies with it; the queue is not taken for crowded ever after."""
    storm = Storm(10_000, 1)
    frames = list(storm.rounds())
    with running_tof() as tof:
        tof.ran.send(*frames[:5000])
        tof.signal(signal.SIGKILL)
        try:
            arriving(tof.core)
            tof.ran.send(*frames[5000:])
            assert 0 <= storm.lost_or_overtaken(arriving(tof.core))[0] < 3000
        finally:
            tof.start()
        crowded = tof.packets("crowded")
        for _ in range(5):
            bearer = new_bearer()
            tof.up(bearer)
            until("learnt", lambda b=bearer: directions(tof, b) == {"uplink"})
        assert tof.packets("crowded") == crowded
