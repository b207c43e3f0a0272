"""Attacks: honest UEs' traffic runs before, during and after; what they have stays theirs; a counter names the attack."""

from __future__ import annotations

import os
import random
import socket
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from gtp_apps import udp_echo, ue_kernel
from gtp_attacks import Honest, flood, resident_kib
from gtp_packets import (
    CORE_MAC,
    ELSEWHERE,
    ENB,
    RAN_MAC,
    SGW,
    TARGET,
    Bearer,
    carried,
    ethernet,
    gtp,
    new_bearer,
    packed,
    ping,
    pong,
    udp,
)
from gtp_peers import APP, Setting, Tof, running_tof, until

from tof.wire.inet import checksum

pytestmark = pytest.mark.netns

SERVICE, ECHO, WEB = "203.0.113.10", 7, 8080
MOST = 2_000
chance = random.Random(29281)


@pytest.fixture(scope="module", params=["native"])
def tof(request: pytest.FixtureRequest) -> Iterator[Tof]:
    with running_tof(Setting(xdp=request.param, max_tunnels=MOST)) as running:
        udp_echo(running.netns["apps"], APP, ECHO)
        running.provision("echo", SERVICE)
        running.attach(spoofer)
        yield running


@pytest.fixture(scope="module")
def honest(tof: Tof) -> Iterator[Honest]:
    population = Honest(tof, SERVICE, ECHO)
    yield population
    population.close()


@pytest.fixture(autouse=True)
def _fresh(tof: Tof) -> None:
    tof.drain()


def anyone() -> str:
    """A UE's address at random."""
    return f"10.{chance.randrange(64, 128)}.{chance.randrange(256)}.{chance.randrange(1, 255)}"


def any_node() -> str:
    return f"10.{chance.randrange(128, 192)}.{chance.randrange(256)}.{chance.randrange(1, 255)}"


def any_teid() -> int:
    return chance.randrange(0x10000, 1 << 32)


def from_enb(teid: int, inner: bytes, enb: str = ENB, sgw: str = SGW) -> bytes:
    return carried(enb, sgw, gtp(teid, inner), macs=(RAN_MAC, CORE_MAC))


def from_sgw(teid: int, inner: bytes, enb: str = ENB, sgw: str = SGW) -> bytes:
    return carried(sgw, enb, gtp(teid, inner), macs=(CORE_MAC, RAN_MAC))


@dataclass(frozen=True)
class Attack:
    """``frame`` makes one of ``count`` frames, which enter at ``wire``; ``counter`` says that it was seen."""

    wire: str
    counter: str | tuple[str, ...]
    frame: Callable[[Honest], bytes]
    count: int = 5_000
    share: float = 0.9
    """Of the frames, how many the counter shows at least: the agent's counters see what the queue let through."""


def victim(honest: Honest) -> Bearer:
    return chance.choice(honest.bearers)


NEW = ("queued", "crowded", "crowded_lost")
FRAGMENTS = ("bridged_fragment", "fragment_queued", "fragment_refused")
END_MARKER, ERROR_INDICATION, ECHO_RESPONSE = 254, 26, 2
spoofer = new_bearer()


def as_spoofer(_: Honest, source: str, destination: str) -> bytes:
    """From a tunnel that is known, in the name of somebody else."""
    return spoofer.uplink(udp(source, destination, chance.randrange(1, 65536), ECHO))


def nested(_: Honest, message: bytes, destination: str = SGW) -> bytes:
    """GTP-U as the user data of a UE."""
    return spoofer.uplink(udp(spoofer.ue, destination, 2152, 2152, message))


def error_indication(teid: int, peer: str) -> bytes:
    """TS 29.281 section 7.3.1, with its two information elements."""
    elements = b"\x10" + teid.to_bytes(4, "big") + b"\x85\x00\x04" + packed(peer)
    return gtp(0, elements, kind=ERROR_INDICATION, flags=0x32, sequence=0)


def echo_response() -> bytes:
    return gtp(0, bytes((14, chance.randrange(256))), kind=ECHO_RESPONSE, flags=0x32, sequence=1)


def ping_answer(ue: str) -> bytes:
    """An echo reply of the target with a token at random."""
    return pong(ping(ue, TARGET, chance.randrange(1, 500), 1, chance.randbytes(8) + b"tof-pinger"))


def answering(bearer: Bearer) -> bytes:
    return bearer.downlink(ping_answer(bearer.ue))


def lying(_: Honest, at: int) -> bytes:
    """A 16-bit length somewhere is wrong."""
    frame = bytearray(spoofer.uplink(udp(spoofer.ue, SERVICE, 1, 2, b"length")))
    right = int.from_bytes(frame[at : at + 2], "big")
    frame[at : at + 2] = chance.choice(
        [n for n in (0, 1, right + 1, right + 700, 65535) if n != right]
    ).to_bytes(2, "big")
    return bytes(frame)


def chained(_: Honest, chain: bytes) -> bytes:
    body = b"\0\0\0\x20" + chain
    message = struct.pack("!BBHI", 0x34, 255, len(body), spoofer.up) + body
    return carried(ENB, SGW, message, macs=(RAN_MAC, CORE_MAC))


def fragment(h: Honest, offset: int, *, more: bool) -> bytes:
    """A piece of a datagram with a victim's outer addresses, TEID and service."""
    frame = bytearray(victim(h).but(tos=0).uplink(udp(victim(h).ue, SERVICE, 4000, ECHO, bytes(64))))
    frame[18:20] = chance.randrange(64).to_bytes(2, "big")
    frame[20:22] = (more << 13 | offset).to_bytes(2, "big")
    frame[24:26] = b"\0\0"
    frame[24:26] = checksum(bytes(frame[14:34])).to_bytes(2, "big")
    return bytes(frame)


ATTACKS = {
    "random TEIDs from the eNB": Attack(
        "ran", NEW, lambda _: from_enb(any_teid(), udp(anyone(), ELSEWHERE, 1, 2))
    ),
    "random TEIDs from the SGW": Attack(
        "core", NEW, lambda _: from_sgw(any_teid(), udp(ELSEWHERE, anyone(), 1, 2))
    ),
    "random nodes and TEIDs from the eNB": Attack(
        "ran", NEW, lambda _: from_enb(any_teid(), udp(anyone(), ELSEWHERE, 1, 2), any_node(), any_node())
    ),
    "random nodes and TEIDs from the SGW": Attack(
        "core", NEW, lambda _: from_sgw(any_teid(), udp(ELSEWHERE, anyone(), 1, 2), any_node(), any_node())
    ),
    "served UEs' addresses under random TEIDs, to the service": Attack(
        "ran", NEW, lambda h: from_enb(any_teid(), udp(victim(h).ue, SERVICE, 4000, ECHO, b"mine"))
    ),
    "served UEs' addresses under random TEIDs from the SGW": Attack(
        "core", NEW, lambda h: from_sgw(any_teid(), udp(ELSEWHERE, victim(h).ue, 1, 2))
    ),
    "served UEs' addresses behind random nodes": Attack(
        "ran", NEW,
        lambda h: from_enb(any_teid(), udp(victim(h).ue, SERVICE, 4000, ECHO, b"mine"), any_node(), any_node()),
    ),
    "a spoofer's random sources": Attack(
        "ran", "spoofed", lambda h: as_spoofer(h, anyone(), ELSEWHERE)
    ),
    "a spoofer as served UEs, to the service": Attack(
        "ran", "spoofed", lambda h: as_spoofer(h, victim(h).ue, SERVICE)
    ),
    "a spoofer as served UEs, elsewhere": Attack(
        "ran", "spoofed", lambda h: as_spoofer(h, victim(h).ue, ELSEWHERE)
    ),
    "a spoofer as the service": Attack("ran", "spoofed", lambda h: as_spoofer(h, SERVICE, victim(h).ue)),
    "a spoofer as the Pinger's target": Attack("ran", "spoofed", lambda h: as_spoofer(h, TARGET, victim(h).ue)),
    "nested End Markers": Attack("ran", "nested", lambda h: nested(h, gtp(victim(h).down, kind=END_MARKER))),
    "nested Error Indications": Attack("ran", "nested", lambda h: nested(h, error_indication(victim(h).up, SGW))),
    "nested Echo Responses": Attack("ran", "nested", lambda h: nested(h, echo_response())),
    "nested GTP-U to the service": Attack(
        "ran", "nested", lambda h: nested(h, gtp(victim(h).down, kind=END_MARKER), SERVICE)
    ),
    "G-PDUs from the wrong side, down": Attack(
        "ran", "wrong_side", lambda h: from_enb(victim(h).down, udp(ELSEWHERE, anyone(), 1, 2), SGW, ENB)
    ),
    "G-PDUs from the wrong side, up": Attack(
        "core", "wrong_side", lambda h: from_sgw(victim(h).up, udp(anyone(), SERVICE, 1, ECHO), SGW, ENB)
    ),
    "lengths that lie, outer": Attack("ran", "bridged_length", lambda h: lying(h, chance.choice((16, 38, 44)))),
    "lengths that lie, inner": Attack("ran", "bridged_inner", lambda h: lying(h, 52)),
    "extension headers of no length": Attack("ran", "bridged_extension", lambda h: chained(h, bytes(4) * 20)),
    "extension headers up to the end": Attack(
        "ran", "bridged_extension", lambda h: chained(h, b"\x01\0\0\x20" * chance.randrange(9, 300))
    ),
    "End Markers from the wrong side": Attack(
        "ran", "learning_total{end_marker_wrong_side",
        lambda h: carried(SGW, ENB, gtp(victim(h).down, kind=END_MARKER), macs=(RAN_MAC, CORE_MAC)), share=0.5,
    ),
    "Error Indications from the wrong side": Attack(
        "ran", "learning_total{error_indication_wrong_side",
        lambda h: carried(SGW, ENB, error_indication(victim(h).up, SGW), macs=(RAN_MAC, CORE_MAC)), share=0.5,
    ),
    "Error Indications about nothing": Attack(
        "core", "learning_total{error_indication_unknown",
        lambda _: carried(SGW, ENB, error_indication(any_teid(), SGW), macs=(CORE_MAC, RAN_MAC)), share=0.5,
    ),
    "Echo Responses from the wrong side": Attack(
        "ran", "learning_total{echo_response_wrong_side",
        lambda _: carried(SGW, ENB, echo_response(), macs=(RAN_MAC, CORE_MAC)), share=0.5,
    ),
    "Echo Responses of nobody": Attack(
        "core", "queued", lambda _: carried(any_node(), ENB, echo_response(), macs=(CORE_MAC, RAN_MAC))
    ),
    "forged answers to the Pinger": Attack(
        "core", "passed",
        lambda h: answering(victim(h)),
    ),
    "first fragments": Attack("ran", FRAGMENTS, lambda h: fragment(h, 0, more=True)),
    "later fragments": Attack("ran", FRAGMENTS, lambda h: fragment(h, chance.randrange(1, 8000), more=True)),
    "overlapping fragments": Attack(
        "ran", FRAGMENTS, lambda h: fragment(h, chance.randrange(4), more=chance.random() < 0.7)
    ),
}  # fmt: skip


def served_after(honest: Honest) -> None:
    honest.known()
    with honest.busy():
        pass


IN_GENERIC_MODE_TOO = (
    "served UEs' addresses under random TEIDs, to the service",
    "a spoofer as served UEs, to the service",
    "G-PDUs from the wrong side, down",
    "overlapping fragments",
)


def stand(tof: Tof, honest: Honest, attack: Attack) -> None:
    """Honest traffic runs before, during and after; memory stays; the counter moves."""
    frames = [attack.frame(honest) for _ in range(attack.count)]
    assert tof.agent is not None
    before, memory = seen(tof, attack), resident_kib(tof.agent.pid)
    with honest.busy():
        flood(tof.wires[attack.wire], frames)
    until("counted", lambda: seen(tof, attack) - before > attack.count * attack.share)
    assert tof.metrics()["tof_tunnels"] <= MOST
    assert resident_kib(tof.agent.pid) - memory < 20_000
    served_after(honest)


def seen(tof: Tof, attack: Attack) -> float:
    """What the attack's counters say: names of tof_packets, or of another family as ``family{name``."""
    names = (attack.counter,) if isinstance(attack.counter, str) else attack.counter
    found = tof.metrics()
    return sum(
        found.get(f"tof_{name}}}" if "{" in name else f"tof_packets_total{{{name}}}", 0) for name in names
    )


def test_a_stolen_mac_address_is_back_with_its_owners_next_packet(tof: Tof, honest: Honest) -> None:
    """Somebody sends in the name of the SGW's MAC from the RAN: a plain bridge recovers, and so does the fast lane."""
    one = honest.bearers[0]
    for _ in range(3):
        before = tof.packets("station_moved")
        tof.ran.send(ethernet(b"whatever" * 8, 0x88B5, (CORE_MAC, RAN_MAC)))
        until("stolen", lambda b=before: tof.packets("station_moved") == b + 1)
        for _ in range(2):
            frame = one.downlink(udp(ELSEWHERE, one.ue, 1, 2, os.urandom(8)))
            tof.core.send(frame)
            tof.ran.expect(frame)
        tof.up(one)
        arp = ethernet(b"by the bridge" * 4, 0x88B5, (RAN_MAC, CORE_MAC))
        tof.ran.send(arp)
        tof.core.expect(arp)
    served_after(honest)


@pytest.mark.parametrize("loss", ["Error Indication", "Recovery"])
def test_a_connection_goes_on_when_its_tunnels_are_learnt_anew(tof: Tof, loss: str) -> None:
    """Forged or not: what it costs the UE is one packet by way of the queue."""
    bearer = new_bearer(enb="10.1.77.1", sgw="10.1.77.2")
    tof.attach(bearer)

    def forget() -> None:
        if loss == "Recovery":
            tof.core.send(*(
                carried(bearer.sgw, bearer.enb, gtp(0, bytes((14, n)), kind=ECHO_RESPONSE, flags=0x32, sequence=1),
                        macs=bearer.macs[::-1])
                for n in (3, 4)
            ))  # fmt: skip
        else:
            tof.core.send(
                carried(
                    bearer.sgw, bearer.enb, error_indication(bearer.up, bearer.sgw), macs=bearer.macs[::-1]
                )
            )
        until("forgotten", lambda: "uplink" not in tof.known(bearer))

    with tof.netns["apps"].entered():
        server = socket.create_server((APP, WEB + 1), backlog=8)
    with server, ue_kernel(tof, bearer):
        with tof.netns["ran"].entered():
            client = socket.create_connection((SERVICE, WEB + 1), 5)
        served, _ = server.accept()
        with client, served:
            forget()
            tof.core.send(bearer.downlink(udp(ELSEWHERE, bearer.ue, 1, 2)))
            for one, other, data in ((client, served, b"still here"), (served, client, b"and answered")):
                one.sendall(data)
                other.settimeout(3)
                assert other.recv(100) == data


def test_a_ue_that_floods_a_service_takes_no_others_connections(tof: Tof, honest: Honest) -> None:
    """600 000 flows of one UE, twice what the flow table holds: a silent connection of another UE goes on."""
    bystander, flooder = new_bearer(), new_bearer()
    tof.attach(bystander, flooder)
    with tof.netns["apps"].entered():
        server = socket.create_server((APP, WEB), backlog=8)
    with server, ue_kernel(tof, bystander):
        with tof.netns["ran"].entered():
            client = socket.create_connection((SERVICE, WEB), 5)
        served, _ = server.accept()
        with client, served:
            template = flooder.uplink(udp(flooder.ue, SERVICE, 1, 2, b"SYN or port flood"))
            at = template.index(b"\0\1\0\2\0\x19")

            def frames() -> Iterator[bytes]:
                for n in range(600_000):
                    ports = struct.pack("!HH", n & 0xFFFF, 9000 + (n >> 16))
                    frame = template[:at] + ports + template[at + 4 : at + 6] + b"\0\0" + template[at + 8 :]
                    yield frame
                    yield frame  # a flow of one packet would not push out those in use

            before = tof.packets("flow_displaced")
            flood(tof.ran, frames(), 1_000_000)
            assert tof.packets("flow_displaced") - before > 500_000
            client.sendall(b"still here")
            served.settimeout(3)
            assert served.recv(100) == b"still here"
            served.sendall(b"and answered")
            client.settimeout(3)
            assert client.recv(100) == b"and answered"
    served_after(honest)


@pytest.mark.parametrize("name", ATTACKS)
def test_honest_traffic_and_tunnels_outlive(tof: Tof, honest: Honest, name: str) -> None:
    stand(tof, honest, ATTACKS[name])


def test_a_newcomer_is_learnt_after_a_flood_from_the_sgw(tof: Tof, honest: Honest) -> None:
    attack = ATTACKS["random TEIDs from the SGW"]
    flood(tof.core, [attack.frame(honest) for _ in range(attack.count)])
    until("it has filled its share", lambda: tof.metrics()["tof_tunnels"] >= MOST // 2)
    until("its own push each other out", lambda: tof.metrics().get("tof_learning_total{evicted_unconfirmed}"))
    tof.drain()
    tof.attach(new_bearer())
    assert tof.metrics()["tof_tunnels"] < MOST


@pytest.mark.parametrize("name", IN_GENERIC_MODE_TOO)
@pytest.mark.parametrize("tof", ["generic"], indirect=True)
def test_in_generic_mode_too(tof: Tof, honest: Honest, name: str) -> None:
    stand(tof, honest, ATTACKS[name])
