"""``kill -9`` and a new agent, under traffic: the data path loses nothing and the new agent holds the same."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator

import pytest
from gtp_apps import udp_echo
from gtp_packets import ELSEWHERE, Bearer, carried, gpdu_of, gtp, is_pinger, new_bearer, new_bearer6, udp
from gtp_peers import APP, Setting, Tof, running_tof, until

pytestmark = pytest.mark.netns

SERVICE, ECHO = "203.0.113.10", 7


@pytest.fixture(scope="module", params=["generic", "native"])
def tof(request: pytest.FixtureRequest) -> Iterator[Tof]:
    with running_tof(Setting(xdp=request.param)) as running:
        udp_echo(running.netns["apps"], APP, ECHO)
        running.provision("echo", SERVICE)
        yield running


def ask(tof: Tof, bearer: Bearer) -> None:
    """The service's application answers."""
    tof.ran.send(bearer.uplink(udp(bearer.ue, SERVICE, 4000, ECHO, b"asked")))
    assert tof.ran.to_ue(bearer.ue).inner.data == b"app:asked"


def _data(frame: bytes) -> bytes:
    one = gpdu_of(frame)
    return one.inner.data if one is not None else b""


class Traffic:
    """Numbered packets on known tunnels, both ways, and one diverted flow, while something happens."""

    def __init__(self, tof: Tof, bearer: Bearer, gap_s: float = 0.002) -> None:
        self.tof, self.bearer, self.gap_s = tof, bearer, gap_s
        self.sent = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def frames(self, n: int) -> tuple[bytes, bytes, bytes]:
        number, ue = b"%08d" % n, self.bearer.ue
        return (
            self.bearer.uplink(udp(ue, ELSEWHERE, 1, 2, number)),
            self.bearer.downlink(udp(ELSEWHERE, ue, 2, 1, number)),
            self.bearer.uplink(udp(ue, SERVICE, 4444, ECHO, number)),
        )

    def _run(self) -> None:
        while not self._over.is_set():
            up, down, asked = self.frames(self.sent)
            self.tof.ran.send(up, asked)
            self.tof.core.send(down)
            self.sent += 1
            time.sleep(self.gap_s)

    def __enter__(self) -> Traffic:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def judge(self) -> None:
        """Every packet has arrived, once, in order, byte for byte; every diverted one was answered."""
        self.tof.ran.find(lambda _: False, 0.3)
        self.tof.core.find(lambda _: False, 0)
        every = [self.frames(n) for n in range(self.sent)]
        ups, downs = {up for up, _, _ in every}, {down for _, down, _ in every}
        assert [f for f in self.tof.core.history if f in ups] == [up for up, _, _ in every]
        assert [f for f in self.tof.ran.history if f in downs] == [down for _, down, _ in every]
        answers = [data for f in self.tof.ran.history if (data := _data(f)).startswith(b"app:0")]
        assert answers == [b"app:%08d" % n for n in range(self.sent)]


def tunnel_set(tof: Tof) -> set[tuple[object, ...]]:
    names = ("direction", "vlan", "source", "destination", "teid", "qfi", "state")
    return {(*(one[name] for name in names), *one["ues"]) for one in tof.tunnels()}


def test_kill_and_restart_under_traffic(tof: Tof) -> None:
    """Nothing of a known tunnel is lost, diverted traffic included; the next agent holds the same and adds nothing."""
    bearer, fifth = new_bearer(), new_bearer(qfi=9, vlan=5)
    tof.attach(bearer, fifth)
    ask(tof, bearer)
    before = tunnel_set(tof)
    tof.drain()
    with Traffic(tof, bearer) as traffic:
        time.sleep(0.3)
        tof.signal(signal.SIGKILL)
        time.sleep(0.5)
        tof.start()
        time.sleep(0.5)
    traffic.judge()
    assert tunnel_set(tof) == before
    assert [service["name"] for service in tof.get("/service")] == ["echo"]
    assert not [one for one in tof.core.gpdus() if is_pinger(one)]
    ask(tof, fifth)


def test_a_stopped_agent_harms_no_known_tunnel_and_unknown_ones_pass_in_the_end(tof: Tof) -> None:
    bearer, unknown = new_bearer(), new_bearer()
    tof.attach(bearer)
    ask(tof, bearer)
    tof.drain()
    first = unknown.uplink(udp(unknown.ue, ELSEWHERE, 1, 2, b"while it sleeps"))
    with Traffic(tof, bearer, 0.005) as traffic:
        tof.signal(signal.SIGSTOP)
        try:
            time.sleep(0.2)
            tof.ran.send(first)
            time.sleep(0.3)
        finally:
            tof.signal(signal.SIGCONT)
        time.sleep(0.2)
    traffic.judge()
    assert first in tof.core.history
    until("learnt", lambda: tof.known(unknown))


def test_a_new_agent_asks_for_the_addresses_that_ues_have_used(tof: Tof) -> None:
    once, before = new_bearer6(), new_bearer6()
    after = before.but(ue=before.ue.replace("::99", "::77"))  # a temporary address (RFC 8981)
    tof.up(once)
    tof.up(before)
    time.sleep(0.2)
    tof.up(after)
    tof.signal(signal.SIGKILL)
    tof.drain()
    tof.start()

    def asked() -> set[str]:
        tof.core.find(lambda _: False, 0.1)
        return {one.inner.source for one in tof.core.gpdus() if is_pinger(one)}

    until("both are asked for", lambda: {once.ue, after.ue} <= asked())
    assert before.ue not in asked()


def test_an_agent_that_hangs_holds_up_neither_signals_nor_new_ues(tof: Tof) -> None:
    """Its nodes would give each other up for dead without the answers to their Echo Requests (TS 23.007 section 20)."""
    bearer, unknown = new_bearer(), new_bearer()
    tof.attach(bearer)
    answer = carried(
        bearer.sgw, bearer.enb, gtp(0, b"\x0e\x00", kind=2, flags=0x32, sequence=1), macs=bearer.macs[::-1]
    )
    frame = unknown.uplink(udp(unknown.ue, ELSEWHERE, 1, 2, b"while it hangs"))
    before = tof.packets("agent_hangs")
    tof.signal(signal.SIGSTOP)
    try:
        time.sleep(2.5)
        for _ in range(3):
            tof.core.send(answer)
            tof.ran.expect(answer, 0.5)
            tof.ran.send(frame)
            tof.core.expect(frame, 0.5)
    finally:
        tof.signal(signal.SIGCONT)
    assert tof.packets("agent_hangs") == before + 6
    until("the agent goes on", lambda: tof.up(unknown) or tof.known(unknown))
    hung = tof.packets("agent_hangs")
    tof.up(new_bearer())
    assert tof.packets("agent_hangs") == hung
