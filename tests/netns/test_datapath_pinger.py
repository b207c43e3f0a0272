"""The Pinger on the wire: it asks as the UE, in the right tunnel, and nobody but the agent hears the answer."""

from __future__ import annotations

import time
from collections.abc import Iterator
from ipaddress import ip_address

import pytest
from gtp_packets import (
    CORE_MAC,
    ELSEWHERE,
    RAN_MAC,
    TARGET,
    TARGET6,
    Bearer,
    carried,
    gpdu_of,
    gtp,
    is_pinger,
    new_bearer,
    new_bearer6,
    ping,
    pong,
    udp,
)
from gtp_peers import Setting, Tof, running_tof, until

from tof.wire.icmp import decode_echo

pytestmark = pytest.mark.netns

ATTEMPTS = 3


@pytest.fixture(scope="module")
def tof() -> Iterator[Tof]:
    with running_tof(Setting(xdp="native", ping_attempts=ATTEMPTS)) as running:
        yield running


@pytest.fixture(autouse=True)
def _fresh(tof: Tof) -> None:
    until("earlier pings have ended", lambda: not tof.metrics()["tof_pings_active"])
    tof.drain()


KINDS = {
    "4G": new_bearer(tos=0x48),
    "5G": new_bearer(qfi=9),
    "VLAN": new_bearer(vlan=100),
    "IPv6 UE": new_bearer6(),
    "outer IPv6": new_bearer(enb="2001:db8:1::11", sgw="2001:db8:1::1"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_it_asks_as_the_ue_learns_from_the_reply_and_stops(tof: Tof, kind: str) -> None:
    bearer = KINDS[kind]
    tof.up(bearer)
    request = tof.answer_ping(bearer)
    assert (request.source, request.destination, request.teid) == (bearer.enb, bearer.sgw, bearer.up)
    assert (request.macs, request.vlan, request.tos) == ((RAN_MAC, CORE_MAC), bearer.vlan, bearer.tos)
    forms = [request.message.flags, request.message.pdu_type, request.message.qfi]
    assert forms == ([0x30, None, None] if bearer.qfi is None else [0x34, 1, bearer.qfi])
    target = TARGET6 if ":" in bearer.ue else TARGET
    assert (request.inner.source, request.inner.destination) == (bearer.ue, target)
    assert request.inner.checksum_right
    assert request.checksum_zero_or_right
    known = until("paired", lambda: len(tof.known(bearer)) == 2 and tof.known(bearer))
    assert [tunnel["state"] for tunnel in known.values()] == ["paired"] * 2
    assert (known["downlink"]["teid"], known["downlink"]["qfi"]) == (bearer.down, bearer.qfi)
    until("it has stopped", lambda: not tof.metrics()["tof_pings_active"])
    tof.core.drain()
    tof.core.silent(is_pinger, 0.7)
    tof.ran.silent(lambda one: one.teid == bearer.down, 0)


def test_late_and_doubled_replies_never_reach_the_ue(tof: Tof) -> None:
    bearer = new_bearer()
    tof.up(bearer)
    requests = [tof.pinger_request(bearer) for _ in range(2)]
    replies = [bearer.downlink(pong(one.message.payload)) for one in requests]
    tof.core.send(*replies, *replies)
    until("paired", lambda: len(tof.known(bearer)) == 2)
    tof.core.send(*replies)
    tof.settle(bearer)
    tof.core.send(*replies)
    tof.ran.silent(lambda one: one.inner.protocol == 1)


def test_replies_on_a_known_tunnel_are_recognised_too(tof: Tof) -> None:
    bearer = new_bearer()
    tof.up(bearer)
    request = tof.pinger_request(bearer)
    tof.down(bearer)
    tof.settle(bearer)
    tof.core.send(bearer.downlink(pong(request.message.payload)))
    tof.ran.silent(lambda one: one.inner.protocol == 1)


def test_a_ues_own_ping_to_the_target_is_untouched(tof: Tof) -> None:
    bearer = new_bearer()
    own = bearer.uplink(ping(bearer.ue, TARGET, 4711, 1, b"a UE's own, of any content"))
    tof.ran.send(own)
    tof.core.expect(own)
    request = tof.answer_ping(bearer)
    replied = bearer.downlink(pong(ping(bearer.ue, TARGET, 4711, 1, b"a UE's own, of any content")))
    tof.core.send(replied)
    tof.ran.expect(replied)
    # Even with the Pinger's own identifier and sequence number, as long as the token is another.
    echo = decode_echo(request.inner.protocol, request.inner.segment)
    twin = bearer.downlink(pong(ping(bearer.ue, TARGET, echo.identifier, echo.sequence, b"not-a-token" * 2)))
    tof.core.send(twin)
    tof.ran.expect(twin)


def test_it_gives_up_after_its_attempts(tof: Tof) -> None:
    bearer = new_bearer()
    tof.up(bearer)
    tof.core.find(lambda _: False, 0.3 * (ATTEMPTS + 3))
    asked = [one for one in tof.core.gpdus() if is_pinger(one)]
    assert len(asked) == ATTEMPTS
    assert not tof.metrics()["tof_pings_active"]


def test_a_downlink_known_before_needs_no_ping(tof: Tof) -> None:
    bearer = new_bearer()
    tof.down(bearer)
    tof.up(bearer)
    tof.core.silent(is_pinger, 0.5)


def test_handover_fires_it_again_and_the_new_downlink_takes_over(tof: Tof) -> None:
    before = new_bearer(enb="10.1.0.21")
    after = before.but(enb="10.1.0.22", down=before.down + 0x30000)
    tof.attach(before)
    tof.up(after)
    tof.answer_ping(after)
    until("the new pair", lambda: len(tof.known(after)) == 2)
    assert tof.known(after)["uplink"]["state"] == "paired"
    tof.ran.silent(lambda one: one.inner.protocol == 1, 0)


def test_a_relayed_downlink_packet_from_an_enb_is_not_a_ue(tof: Tof) -> None:
    """Indirect forwarding in a handover: what comes from the eNB side is not always uplink."""
    bearer = new_bearer()
    tof.attach(bearer)
    relay = Bearer(ELSEWHERE, 0xF0F0, 0xF0F1, enb=bearer.enb, sgw="10.1.0.99")
    frame = relay.uplink(udp(ELSEWHERE, bearer.ue, 2000, 1000, b"relayed"))
    tof.ran.send(frame)
    tof.core.expect(frame)
    tof.core.silent(is_pinger, 0.4)
    assert not tof.known(relay)


# Row 23: sparingly, and not at all where the core complains


@pytest.mark.parametrize("shape", ["IE 16", "header TEID"])
def test_a_tunnel_that_answers_with_an_error_indication_is_left_alone(tof: Tof, shape: str) -> None:
    """The request provoked it: nobody else complains of this bearer, and the eNB must not hear of it."""
    bearer = new_bearer()
    tof.up(bearer)
    request = tof.pinger_request(bearer)
    teid = bearer.up.to_bytes(4, "big")
    body = b"\x10" + teid + b"\x85\x00\x04" + ip_address(bearer.sgw).packed if shape == "IE 16" else b""
    message = gtp(0 if body else bearer.up, body, kind=26)

    def held_back() -> float:
        return tof.metrics().get("tof_learning_total{error_indication_held_back}", 0)

    before = held_back()
    tof.core.send(
        carried(bearer.sgw, bearer.enb, message, macs=(CORE_MAC, RAN_MAC), sport=request.outer.ports[1])
    )
    until("held back", lambda: held_back() == before + 1)
    tof.drain()
    for _ in range(5):
        tof.up(bearer)
        tof.core.silent(lambda one: is_pinger(one) and one.teid == bearer.up, 0.3)
    tof.ran.find(lambda _: False, 0)
    assert not any(message in frame for frame in tof.ran.history)


def test_requests_are_limited_per_tunnel_and_altogether(tof: Tof) -> None:
    """Each tunnel no more often than its attempts, however much its UE sends; 256 tunnels at once."""
    bearers = [new_bearer() for _ in range(400)]
    seen = dict.fromkeys((bearer.up for bearer in bearers), 0)
    end = time.monotonic() + 0.3 * (ATTEMPTS + 5) * 2
    active = 0.0
    while time.monotonic() < end:
        for bearer in bearers[:: 1 if not any(seen.values()) else 40]:
            tof.ran.send(bearer.uplink(udp(bearer.ue, ELSEWHERE, 1, 2)))
        active = max(active, tof.metrics()["tof_pings_active"])
        while (frame := tof.core.receive(0.01)) is not None:
            one = gpdu_of(frame)
            if one is not None and is_pinger(one):
                seen[one.teid] += 1
    assert active <= 256
    assert sum(map(bool, seen.values())) > 256, "the next ones have had their turn"
    assert max(seen.values()) == ATTEMPTS
