"""Several adapters on a side, jumbo frames, and ways out by destination MAC."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from gtp_packets import CORE_MAC, ELSEWHERE, RAN_MAC, carried, gtp, is_pinger, new_bearer, udp
from gtp_peers import Setting, Tof, running_tof, until

pytestmark = pytest.mark.netns

SERVICE = "203.0.113.10"
OTHER_MAC = bytes.fromhex("020000000104")
HERE, THERE = (RAN_MAC, CORE_MAC), (OTHER_MAC, CORE_MAC)


@pytest.fixture(scope="module", params=["generic", "native"])
def tof(request: pytest.FixtureRequest) -> Iterator[Tof]:
    with running_tof(Setting(xdp=request.param, enbs=2, mtu=9000)) as running:
        yield running


@pytest.fixture(autouse=True)
def _fresh(tof: Tof) -> None:
    tof.drain()


def test_the_way_out_is_by_destination_mac(tof: Tof) -> None:
    near, far = new_bearer(), new_bearer(enb="10.1.0.12", macs=THERE)
    for bearer, wire in ((near, tof.wires["ran"]), (far, tof.wires["ran1"])):
        other = tof.wires["ran1"] if wire is tof.wires["ran"] else tof.wires["ran"]
        up = bearer.uplink(udp(bearer.ue, ELSEWHERE, 1, 2, b"up"))
        down = bearer.downlink(udp(ELSEWHERE, bearer.ue, 2, 1, b"down"))
        for _ in range(3):
            wire.send(up)
            tof.core.expect(up)
            tof.core.send(down)
            wire.expect(down)
            wire.find(lambda _: False, 0.12)
        other.find(lambda _: False, 0)
        assert down not in other.history


def test_x2_between_two_adapters_of_the_enb_side(tof: Tof) -> None:
    """One eNB forwards to another in a handover: byte for byte, to that adapter only, nothing learnt as uplink."""
    bearer = new_bearer()
    tof.attach(bearer)
    hello = new_bearer(enb="10.1.0.12", macs=THERE)
    frame = hello.uplink(udp(hello.ue, ELSEWHERE, 1, 2))
    tof.wires["ran1"].send(frame)
    tof.core.expect(frame)
    tof.drain()
    macs = (RAN_MAC, OTHER_MAC)
    forwarded = carried(
        "10.1.0.11", "10.1.0.12", gtp(0xABBA, udp(ELSEWHERE, bearer.ue, 2, 1, b"x2")), macs=macs
    )
    for _ in range(3):
        tof.ran.send(forwarded)
        tof.wires["ran1"].expect(forwarded)
    tof.core.silent(lambda one: one.teid == 0xABBA, 0.1)
    assert not tof.tunnels(teid=0xABBA)


def test_an_enb_that_moves_to_the_other_adapter_is_followed(tof: Tof) -> None:
    bearer = new_bearer(enb="10.1.0.13").but(macs=(bytes.fromhex("020000000105"), CORE_MAC))
    down = bearer.downlink(udp(ELSEWHERE, bearer.ue, 2, 1, b"down"))
    for role in ("ran", "ran1", "ran"):
        up = bearer.uplink(udp(bearer.ue, ELSEWHERE, 1, 2, role.encode()))
        tof.wires[role].send(up)
        tof.core.expect(up)
        tof.core.send(down)
        tof.wires[role].expect(down)
        tof.wires[role].find(lambda _: False, 0.12)


def test_replies_of_an_app_leave_by_the_right_adapter(tof: Tof) -> None:
    from gtp_apps import udp_echo
    from gtp_peers import APP

    udp_echo(tof.netns["apps"], APP)
    bearer = new_bearer(enb="10.1.0.12", macs=THERE)
    with tof.service(SERVICE):
        tof.wires["ran1"].send(bearer.uplink(udp(bearer.ue, SERVICE, 4000, 7, b"x")))
        request = tof.core.gpdu(lambda one: one.teid == bearer.up)
        assert is_pinger(request)
        assert request.macs == THERE
        tof.core.send(bearer.downlink(udp(ELSEWHERE, bearer.ue, 2, 1, b"downlink known")))
        answered = tof.wires["ran1"].gpdu(lambda one: one.inner.data == b"app:x")
        assert answered.macs == (CORE_MAC, OTHER_MAC)


@pytest.mark.parametrize("vlan", [None, 100])
def test_jumbo_frames_pass(tof: Tof, vlan: int | None) -> None:
    bearer = new_bearer(vlan=vlan)
    for pause_s in (0, 0, 0.12, 0):
        tof.ran.find(lambda _: False, pause_s)
        up = bearer.uplink(udp(bearer.ue, ELSEWHERE, 1, 2, os.urandom(8800)))
        down = bearer.downlink(udp(ELSEWHERE, bearer.ue, 2, 1, os.urandom(8800)))
        tof.ran.send(up)
        tof.core.expect(up)
        tof.core.send(down)
        tof.ran.expect(down)
    until("learnt", lambda: len(tof.known(bearer)) == 2)
