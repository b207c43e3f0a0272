"""Services given by domain: what a resolver answers to a UE is what the UE's next connection finds at the edge."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
from gtp_apps import udp_echo, ue_kernel
from gtp_names import (
    RESOLVER,
    RESOLVER6,
    Behind,
    answered,
    ask,
    asking,
    question,
    resolve,
    saying,
    unbound,
)
from gtp_packets import Bearer, cut, new_bearer, new_bearer6, udp
from gtp_peers import APP, APP6, Setting, Tof, running_tof, until

pytestmark = pytest.mark.netns

ECHO = 7
HOLD_S = 1.0
VIDEO = ("203.0.113.81", "203.0.113.82", "2001:db8:113::81")


@pytest.fixture(scope="module", params=["generic", "native"])
def tof(request: pytest.FixtureRequest) -> Iterator[Tof]:
    dns = f'resolvers = ["{RESOLVER}", "{RESOLVER6}", "8.8.4.4"]\nleast_hold_s = {HOLD_S}\nidle_s = 1.5'
    with running_tof(Setting(xdp=request.param, dns=dns)) as running:
        for address in (APP, APP6):
            udp_echo(running.netns["apps"], address, ECHO)
        yield running


@pytest.fixture(scope="module")
def behind(tof: Tof) -> Iterator[Behind]:
    core = Behind(tof, f"{RESOLVER}/32", f"{RESOLVER6}/128")
    records = [f"video.example.com. 300 IN {'AAAA' if ':' in one else 'A'} {one}" for one in VIDEO]
    with contextlib.closing(core), contextlib.ExitStack() as stack:
        for address in (RESOLVER, RESOLVER6):
            stack.enter_context(unbound(tof.netns["core"], tof.dir, address, *records))
        yield core


@pytest.fixture(autouse=True)
def _fresh(tof: Tof) -> None:
    tof.drain()


@contextlib.contextmanager
def services(tof: Tof, *bodies: dict[str, Any]) -> Iterator[None]:
    """These services are in force while the block lasts."""
    names = []
    try:
        for number, body in enumerate(bodies):
            whole = {"name": f"s{number}", "applicationIP": APP, **body}
            status, answer = tof.call("POST", "/service", whole)
            assert status == 200, answer
            names.append(whole["name"])
        yield
    finally:
        for name in names:
            tof.call("DELETE", f"/service/{name}")


def learnt(tof: Tof, name: str = "s0") -> set[str]:
    return {each["address"] for each in tof.get(f"/service/{name}/status")["addresses"]}


def has_learnt(tof: Tof, *addresses: str, name: str = "s0") -> None:
    until(f"{name} has {addresses}", lambda: learnt(tof, name) == set(addresses))


def decided(tof: Tof, reason: str) -> int:
    return int(tof.metrics().get(f"tof_learning_total{{{reason}}}", 0))


def is_diverted(tof: Tof, bearer: Bearer, to: str) -> None:
    """The application answers, and the answer comes from where the UE asked."""
    data = os.urandom(9)
    tof.ran.send(bearer.uplink(udp(bearer.ue, to, 4000, ECHO, data)))
    one = tof.ran.gpdu(lambda one: one.inner.data == b"app:" + data)
    assert (one.inner.source, one.inner.ports, one.teid) == (to, (ECHO, 4000), bearer.down)
    assert one.inner.checksum_right


def passes(tof: Tof, bearer: Bearer, to: str, port: int = 4000) -> None:
    """The core gets it as it was sent."""
    frame = bearer.uplink(udp(bearer.ue, to, port, ECHO, os.urandom(9)))
    tof.ran.send(frame)
    tof.core.expect(frame)


KINDS = {
    "4G": new_bearer(),
    "5G in a VLAN": new_bearer(vlan=101, qfi=5),
    "outer IPv6": new_bearer(enb="2001:db8:1::11", sgw="2001:db8:1::1"),
    "IPv6 UE": new_bearer6(),
    "5G, IPv6 in IPv6": new_bearer6(enb="2001:db8:1::11", sgw="2001:db8:1::1", qfi=63, vlan=9),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_service_has_the_addresses_that_a_real_resolver_answers(
    tof: Tof, behind: Behind, kind: str
) -> None:
    bearer = KINDS[kind]
    six = ":" in bearer.ue
    tof.attach(bearer)
    expected = [address for address in VIDEO if (":" in address) == six]
    with services(tof, {"domain": "Video.Example.COM.", "applicationIP": APP6 if six else APP}):
        assert tof.get("/service")[0]["domain"] == "video.example.com"
        status = tof.get("/service/s0/status")
        assert (status["state"], status["addresses"]) == ("unlearnt", [])
        passes(tof, bearer, expected[0])
        resolve(tof, bearer, behind, "video.example.com", "AAAA" if six else "A")
        has_learnt(tof, *expected)
        assert tof.get("/service/s0/status")["state"] == "in_force"
        for address in expected:
            is_diverted(tof, bearer, address)
        passes(tof, bearer, "2001:db8:113::99" if six else "203.0.113.99")
    for address in expected:
        passes(tof, bearer, address)


def test_a_tcp_connection_to_a_learnt_address(tof: Tof, behind: Behind) -> None:
    bearer = new_bearer()
    tof.attach(bearer)
    with tof.netns["apps"].entered():
        server = socket.create_server((APP, 8080))
    body = {"domain": "video.example.com", "protocol": "tcp", "ports": [80], "applicationPort": 8080}
    with server, services(tof, body):
        resolve(tof, bearer, behind, "video.example.com")
        has_learnt(tof, *VIDEO[:2])
        with ue_kernel(tof, bearer):
            for address in VIDEO[:2]:
                with tof.netns["ran"].entered():
                    client = socket.create_connection((address, 80), timeout=10)
                with client:
                    peer, _ = server.accept()
                    with peer:
                        peer.sendall(b"from the edge")
                        assert client.recv(100) == b"from the edge"
        passes(tof, bearer, VIDEO[0])


def test_the_first_packets_of_a_ue_are_question_and_answer(tof: Tof) -> None:
    bearer = new_bearer()
    with services(tof, {"domain": "video.example.com"}):
        ask(tof, bearer, "video.example.com", "video.example.com. 60 IN A 203.0.113.83")
        has_learnt(tof, "203.0.113.83")
        until("the tunnels are paired", lambda: len(tof.known(bearer)) == 2)
        is_diverted(tof, bearer, "203.0.113.83")


def test_aliases_and_wildcards(tof: Tof) -> None:
    bearer = new_bearer()
    tof.attach(bearer)
    with services(
        tof,
        {"domain": "video.example.com"},
        {"domain": "*.example.com"},
        {"domain": "*.cdn.example.net"},
    ):
        chain = (
            "www.example.org. 60 IN CNAME edge.cdn.example.net.",
            "edge.cdn.example.net. 60 IN A 203.0.113.84",
        )
        ask(tof, bearer, "www.example.org", *chain)
        ask(tof, bearer, "a.b.example.com", "a.b.example.com. 60 IN A 203.0.113.85")
        ask(tof, bearer, "VIDEO.example.com", "VIDEO.example.com. 60 IN A 203.0.113.86")
        ask(tof, bearer, "example.com", "example.com. 60 IN A 203.0.113.87")
        for name, address in (("s2", "203.0.113.84"), ("s1", "203.0.113.85"), ("s0", "203.0.113.86")):
            has_learnt(tof, address, name=name)
            is_diverted(tof, bearer, address)
        passes(tof, bearer, "203.0.113.87")


def test_an_address_goes_back_to_the_core_when_its_time_is_over_and_nobody_uses_it(tof: Tof) -> None:
    bearer = new_bearer()
    tof.attach(bearer)
    with services(tof, {"domain": "video.example.com"}):
        records = (f"video.example.com. {ttl} IN A {to}" for ttl, to in ((0, VIDEO[0]), (0, VIDEO[1])))
        ask(tof, bearer, "video.example.com", *records)
        has_learnt(tof, *VIDEO[:2])
        expired = decided(tof, "names_expired")
        began = time.monotonic()
        while time.monotonic() < began + HOLD_S + 3:  # a flow that lives
            is_diverted(tof, bearer, VIDEO[0])
            time.sleep(0.2)
        assert learnt(tof) == {VIDEO[0]}
        assert decided(tof, "names_expired") == expired + 1
        passes(tof, bearer, VIDEO[1])
        until("the other one is gone too", lambda: not learnt(tof), 6)
        passes(tof, bearer, VIDEO[0])


def test_without_a_service_given_by_domain_nothing_is_shown(tof: Tof) -> None:
    bearer = new_bearer()
    tof.attach(bearer)
    with services(tof, {"serviceIP": VIDEO[0]}):
        before = tof.packets("names_shown")
        ask(tof, bearer, "video.example.com", f"video.example.com. 60 IN A {VIDEO[1]}")
        assert tof.packets("names_shown") == before
        passes(tof, bearer, VIDEO[1])


def test_answers_that_nobody_asked_for_are_not_believed(tof: Tof) -> None:
    bearer, other = new_bearer(), new_bearer()
    tof.attach(bearer, other)
    lie = "video.example.com. 60 IN A 203.0.113.66"
    with services(tof, {"domain": "video.example.com"}):
        unasked, shown = tof.packets("names_unasked"), tof.packets("names_shown")
        asked = question("video.example.com")
        port, frame = asking(bearer, asked)
        tof.ran.send(frame)
        tof.core.expect(frame)
        wrong = question("video.example.com")
        lies = [
            saying(bearer, port, answered(wrong, lie)),  # another number
            saying(bearer, port + 1, answered(asked, lie)),  # another port
            saying(other, port, answered(asked, lie)),  # another UE
            saying(bearer, port, answered(asked, lie), "8.8.4.4"),  # another resolver
        ]
        tof.core.send(*lies, saying(bearer, port, answered(asked, lie), "198.51.100.66"))
        for each in lies:
            tof.ran.expect(each)
        # From the UE itself, and from the core's side of another UE's tunnel.
        tof.ran.send(bearer.uplink(udp(RESOLVER, bearer.ue, 53, port, answered(asked, lie))))
        tof.core.gpdu(lambda one: one.inner.source == RESOLVER)
        # A server that is no resolver of ours.
        port, frame = asking(bearer, asked, "198.51.100.66")
        tof.ran.send(frame)
        tof.core.expect(frame)
        tof.core.send(saying(bearer, port, answered(asked, lie), "198.51.100.66"))
        time.sleep(0.2)
        assert tof.packets("names_unasked") == unasked + 4
        assert tof.packets("names_shown") == shown
        assert not learnt(tof)
        passes(tof, bearer, "203.0.113.66")


def test_an_answer_is_believed_once(tof: Tof) -> None:
    bearer = new_bearer()
    tof.attach(bearer)
    with services(tof, {"domain": "video.example.com"}):
        asked = question("video.example.com")
        port, frame = asking(bearer, asked)
        tof.ran.send(frame)
        tof.core.expect(frame)
        for last in (91, 92):
            said = answered(asked, f"video.example.com. 60 IN A 203.0.113.{last}")
            tof.core.send(saying(bearer, port, said))
            tof.ran.expect(saying(bearer, port, said))
        has_learnt(tof, "203.0.113.91")
        assert learnt(tof) == {"203.0.113.91"}


def test_addresses_of_others_are_refused(tof: Tof) -> None:
    bearer = new_bearer()
    tof.attach(bearer)
    taken = ("203.0.113.88", "192.168.50.1", "8.8.8.8", RESOLVER)
    unusable = ("127.0.0.1", "224.0.0.1", "0.0.0.0", "255.255.255.255")
    with services(tof, {"domain": "video.example.com"}, {"serviceIP": "203.0.113.88", "priority": -5}):
        before = decided(tof, "names_refused_taken"), decided(tof, "names_refused_unusable")
        said = [f"video.example.com. 60 IN A {to}" for to in (*taken, *unusable, "203.0.113.89")]
        ask(tof, bearer, "video.example.com", *said)
        has_learnt(tof, "203.0.113.89")
        now = decided(tof, "names_refused_taken"), decided(tof, "names_refused_unusable")
        assert now == (before[0] + len(taken), before[1] + len(unusable))


def test_what_is_no_sound_answer_passes_and_teaches_nothing(tof: Tof) -> None:
    bearer = new_bearer()
    tof.attach(bearer)
    sound = "video.example.com. 60 IN A 203.0.113.67"
    with services(tof, {"domain": "video.example.com"}):
        shown = tof.packets("names_shown")
        for spoil in (
            lambda said: said + b"\0",
            lambda said: said[:-1],
            lambda said: said[:12] + b"\xc0\x0c" + said[14:],  # a name that points to itself
            lambda said: said[:2] + b"\x83" + said[3:],  # truncated
            lambda said: said[:4] + b"\0\2" + said[6:],  # two questions
        ):
            asked = question("video.example.com")
            port, frame = asking(bearer, asked)
            tof.ran.send(frame)
            tof.core.expect(frame)
            frame = saying(bearer, port, spoil(answered(asked, sound)))
            tof.core.send(frame)
            tof.ran.expect(frame)
        until("all were shown", lambda: tof.packets("names_shown") == shown + 5)
        time.sleep(0.1)
        assert not learnt(tof)


def test_a_flood_of_answers_passes_and_is_shown_in_part(tof: Tof) -> None:
    bearer, count = new_bearer(), 2000
    tof.attach(bearer)
    with services(tof, {"domain": "video.example.com"}):
        before = tof.packets("names_shown"), tof.packets("names_unshown")
        questions, answers = [], []
        for _ in range(count):
            asked = question("other.example.com")
            port, frame = asking(bearer, asked)
            questions.append(frame)
            answers.append(saying(bearer, port, answered(asked, "other.example.com. 9 IN A 203.0.113.68")))
        tof.ran.send(*questions)
        tof.core.expect(questions[-1], 20)
        tof.core.send(*answers)
        ours, seen = set(answers), []
        while len(seen) < count and (frame := tof.ran.receive(2)) is not None:
            seen += [frame] if frame in ours else []  # beside what the kernel of that end says by itself
        assert seen == answers
        shown, unshown = (now - then for now, then in zip(
            (tof.packets("names_shown"), tof.packets("names_unshown")), before, strict=True))  # fmt: skip
        assert shown + unshown == count
        assert 0 < shown < count
        assert not learnt(tof)


def test_fragments_of_an_answer_pass_unread(tof: Tof) -> None:
    bearer = new_bearer()
    tof.attach(bearer)
    with services(tof, {"domain": "video.example.com"}):
        asked = question("video.example.com")
        port, frame = asking(bearer, asked)
        tof.ran.send(frame)
        tof.core.expect(frame)
        for piece in cut(saying(bearer, port, answered(asked, f"video.example.com. 60 IN A {VIDEO[0]}")), 64):
            tof.core.send(piece)
            tof.ran.expect(piece)
        assert not learnt(tof)


def test_answers_from_a_resolver_at_the_edge(tof: Tof) -> None:
    bearer, apps = new_bearer(), tof.netns["apps"]
    tof.attach(bearer)
    record = f"video.example.com. 300 IN A {VIDEO[0]}"
    edge = {"serviceIP": "8.8.4.4", "protocol": "udp", "ports": [53]}
    with unbound(apps, tof.dir, APP, record), services(tof, {"domain": "video.example.com"}, edge):
        asked = question("video.example.com")
        port, frame = asking(bearer, asked, "8.8.4.4")
        tof.ran.send(frame)
        one = tof.ran.gpdu(lambda one: one.inner.ports == (53, port))
        assert one.inner.source == "8.8.4.4"
        has_learnt(tof, VIDEO[0])
        is_diverted(tof, bearer, VIDEO[0])


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGTERM])
def test_a_restart_of_the_agent_forgets_nothing(tof: Tof, sign: signal.Signals) -> None:
    bearer = new_bearer()
    tof.attach(bearer)
    with services(tof, {"domain": "video.example.com"}):
        ask(tof, bearer, "video.example.com", f"video.example.com. 600 IN A {VIDEO[0]}")
        has_learnt(tof, VIDEO[0])
        before = tof.get("/service/s0/status")["addresses"]
        if sign is signal.SIGKILL:
            time.sleep(1.5)  # what a crash takes is what was learnt in the last second
        tof.signal(sign)
        is_diverted(tof, bearer, VIDEO[0])
        tof.start()
        after = tof.get("/service/s0/status")["addresses"]
        assert [each["address"] for each in after] == [VIDEO[0]]
        assert after[0]["until"][:18] == before[0]["until"][:18]
        is_diverted(tof, bearer, VIDEO[0])


def test_a_service_changes_between_domain_and_address(tof: Tof) -> None:
    bearer = new_bearer()
    tof.attach(bearer)
    body = {"name": "s0", "domain": "video.example.com", "applicationIP": APP}
    with services(tof, body):
        ask(tof, bearer, "video.example.com", f"video.example.com. 600 IN A {VIDEO[0]}")
        has_learnt(tof, VIDEO[0])
        assert tof.call("PUT", "/service/s0", body | {"priority": 5})[0] == 200
        assert learnt(tof) == {VIDEO[0]}
        is_diverted(tof, bearer, VIDEO[0])
        fixed = {"name": "s0", "serviceIP": VIDEO[1], "applicationIP": APP}
        assert tof.call("PUT", "/service/s0", fixed)[0] == 200
        passes(tof, bearer, VIDEO[0], 4001)
        is_diverted(tof, bearer, VIDEO[1])
        assert tof.call("PUT", "/service/s0", body)[0] == 200
        assert not learnt(tof)
        passes(tof, bearer, VIDEO[1], 4002)


def test_explain_knows_the_addresses_of_the_moment(tof: Tof) -> None:
    bearer = new_bearer()
    tof.attach(bearer)
    with services(tof, {"domain": "video.example.com"}):
        ask(tof, bearer, "video.example.com", f"video.example.com. 600 IN A {VIDEO[0]}")
        has_learnt(tof, VIDEO[0])
        api = f"unix:{tof.dir}/api.sock"
        said = tof.netns["tof"].run(
            sys.executable, "-m", "tof", "explain", "--ue", bearer.ue, "--to", VIDEO[0], "--api", api
        )
        assert "s0" in said
        assert "diverted" in said
