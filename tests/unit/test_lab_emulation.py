"""Every scenario over boxes in memory: a wire passes, and each fault of a box is found by the check made for it."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random

import pytest

from tests.emulated_box import OPPOSITE, Box, play, wire
from tof.errors import SetupError
from tof.lab.emulation import mobility
from tof.lab.emulation.bearers import Asked, End, n3
from tof.lab.emulation.catalogue import SCENARIOS, chosen, line
from tof.lab.emulation.edge import Application
from tof.lab.emulation.frames import (
    Place,
    arrived,
    frame,
    neighbour_answer,
    neighbour_request,
    told_neighbour,
    udp_packet,
    wanted_neighbour,
)
from tof.lab.emulation.judging import figures, judge
from tof.lab.emulation.network import Network, Numbers
from tof.lab.emulation.player import Player
from tof.lab.emulation.procedures import attach, push, spoof
from tof.lab.emulation.settings import ENBS, SGWS, Edge, Settings
from tof.wire import gtpu, inet

ROUTER = bytes.fromhex("02000000aa01")
APPLICATION = Place(bytes((192, 168, 50, 10)), bytes.fromhex("020000000301"))


def failed(net: Network) -> list[str]:
    return [check.name.partition(":")[0] for check in judge(net) if not check.ok]


def message(frame: bytes) -> gtpu.Message | None:
    found = arrived(inet.decode_ethernet(frame), injected=False)
    return found.message if found else None


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_wire_passes_every_scenario(name: str) -> None:
    net = play(name)
    assert failed(net) == []
    assert net.ledger.background == 0
    assert len(net.ledger.sent) >= 4
    assert figures(net)["frames"] == len(net.ledger.sent)


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_scenario_can_be_played_on_a_vlan(name: str) -> None:
    net = play(name, settings=Settings(vlan=7))
    assert failed(net) == []
    assert all(item.frame.data[12:16] == b"\x81\0\0\x07" for item in net.ledger.sent)


def routing(end: End, frame: bytes) -> Iterable[tuple[End, bytes]]:
    """A router: other MACs, a TTL less; what is for an eNB goes out at the eNBs' end, wherever it came in."""
    eth = inet.decode_ethernet(frame)
    assert eth.destination == ROUTER, "sent to the next hop"
    packet = eth.payload
    destination = packet[16:20] if packet[0] >> 4 == 4 else packet[24:40]
    out = End.ENB if destination in {place.address for place in ENBS} else End.SGW
    at = 8 if packet[0] >> 4 == 4 else 7
    packet = packet[:at] + bytes((packet[at] - 1,)) + packet[at + 1 :]
    packet = inet.fix_ipv4_header(packet) if at == 8 else packet
    place = next(place for place in (*ENBS, *SGWS) if place.address == destination)
    return [(out, inet.encode_ethernet(eth._replace(destination=place.mac, source=ROUTER, payload=packet)))]


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_router_passes_every_scenario(name: str) -> None:
    assert failed(play(name, routing, Settings(enb_next_hop=ROUTER, sgw_next_hop=ROUTER))) == []


def without(kind: int) -> Box:
    def box(end: End, frame: bytes) -> Iterable[tuple[End, bytes]]:
        found = message(frame)
        return () if found is not None and found.type == kind else wire(end, frame)

    return box


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *(
            (name, gtpu.END_MARKER)
            for name in ("x2-handover", "s1-handover", "n2-handover", "handover-and-back")
        ),
        ("error-indication", gtpu.ERROR_INDICATION),
        ("restart", gtpu.ECHO_RESPONSE),
    ],
)
def test_a_box_that_drops_signalling_is_found(name: str, kind: int) -> None:
    assert "transparent" in failed(play(name, without(kind)))


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_box_that_changes_a_byte_is_found(name: str) -> None:
    count = 0

    def box(end: End, frame: bytes) -> Iterable[tuple[End, bytes]]:
        nonlocal count
        count += 1
        return wire(end, frame[:-1] + bytes((frame[-1] ^ 1,)) if count == 2 else frame)

    assert "transparent" in failed(play(name, box))


def test_a_box_that_loses_repeats_or_reorders_is_found() -> None:
    held: list[bytes] = []

    def reordering(end: End, frame: bytes) -> Iterable[tuple[End, bytes]]:
        held.append(frame)
        if len(held) == 1:
            return []
        return [(OPPOSITE[end], held.pop()), (OPPOSITE[end], held.pop())]

    assert failed(play("storm", lambda end, frame: [])) == ["transparent", "answered"]
    assert failed(play("4g", lambda end, frame: [*wire(end, frame)] * 2)) != []
    storm = play("x2-handover", reordering)
    assert "transparent" in failed(storm)


def test_a_box_that_speaks_for_itself_is_found() -> None:
    echoed: list[int] = []

    def box(end: End, frame: bytes) -> Iterable[tuple[End, bytes]]:
        out = [*wire(end, frame)]
        found = message(frame)
        if found and found.type == gtpu.G_PDU and end is End.ENB and not echoed:
            echoed.append(1)
            changed = inet.decode_ethernet(frame)
            out.append((End.ENB, inet.encode_ethernet(changed._replace(payload=changed.payload[:-1] + b"?"))))
        return out

    assert "nothing extra" in failed(play("4g", box))


def test_others_on_the_wire_are_not_the_boxes_fault() -> None:
    noise = inet.encode_ethernet(
        inet.Ethernet(b"\x01\x80\xc2\0\0\x0e", b"\x02neigh", 0x88CC, b"a link layer discovery frame")
    )
    net = play("4g", lambda end, frame: [*wire(end, frame), (End.ENB, noise), (End.SGW, b"short")])
    assert failed(net) == []
    assert net.ledger.background > 0


def test_neighbours_are_found_through_and_at_the_box() -> None:
    draw = Random(1)
    net = Network(Settings(), draw, Numbers.drawn(draw))
    box = Place(bytes((10, 1, 0, 99)), ROUTER)
    for wanted in (SGWS[0], SGWS[2]):
        asker = box if len(wanted.address) == 4 else Place(b"\xfd" + bytes(14) + b"\x63", ROUTER)
        net.receive(End.SGW, neighbour_request(asker, wanted.address), 1.0)
        end, reply = net.outbox.pop()
        assert end is End.SGW
        assert told_neighbour(inet.decode_ethernet(reply)) == wanted
    net.receive(End.ENB, neighbour_request(box, SGWS[0].address), 1.0)
    assert net.outbox == [], "an SGW is not at the eNBs' end"


class DivertingBox:
    """Does what a TOF does, by knowing all: requests to the service to the application, answers into the tunnel."""

    def __init__(self, fault: str = "") -> None:
        self.fault = fault
        self.downs: dict[bytes, bytes] = {}
        """UE address -> a downlink frame that carried something to it."""

    def __call__(self, end: End, frame: bytes) -> Iterable[tuple[End, bytes]]:
        if end is End.APPS:
            return self.from_application(inet.decode_ethernet(frame))
        found = message(frame)
        if found is None or found.type != gtpu.G_PDU:
            return wire(end, frame)
        packet = inet.decode_ipv4(found.payload)
        if end is End.SGW:
            self.downs[packet.destination] = frame
        elif packet.destination == SERVICE and self.fault != "undiverted":
            out = packet._replace(destination=APPLICATION.address)
            return [(End.APPS, self.ethernet(inet.encode_ipv4(out)))]
        return wire(end, frame)

    def from_application(self, eth: inet.Ethernet) -> Iterable[tuple[End, bytes]]:
        packet = inet.decode_ipv4(eth.payload)._replace(source=SERVICE)
        ues = list(self.downs)
        ue = packet.destination if self.fault != "another UE" else ues[ues.index(packet.destination) - 1]
        if ue not in self.downs:
            return
        carrier = inet.decode_ethernet(self.downs[ue])
        outer = inet.decode_ipv4(carrier.payload)
        inside = gtpu.decode(inet.decode_udp(outer.payload).payload)
        extensions = () if self.fault == "no container" else inside.extensions
        new = inside._replace(payload=inet.encode_ipv4(packet), extensions=extensions, flags=0x30)
        datagram = inet.encode_udp(inet.UDP(2152, 2152, gtpu.encode(new)))
        source = bytes((10, 1, 0, 2)) if self.fault == "another core" else outer.source
        outer = outer._replace(payload=datagram, source=source)
        yield End.ENB, inet.encode_ethernet(carrier._replace(payload=inet.encode_ipv4(outer)))

    def ethernet(self, packet: bytes) -> bytes:
        return inet.encode_ethernet(inet.Ethernet(APPLICATION.mac, ROUTER, 0x0800, packet))


SERVICE = bytes((203, 0, 113, 10))
EDGE = Settings(edge=Edge((SERVICE,), (APPLICATION,)))


@pytest.mark.parametrize("name", ["attach", "4g", "detach", "spoofing", "storm"])
def test_a_diverting_box_passes(name: str) -> None:
    net = play(name, DivertingBox(), EDGE)
    # It knows nothing of Error Indications, so it lets through those that it causes itself.
    assert set(failed(net)) <= ({"withheld"} if name == "detach" else set())
    assert net.ledger.injected > 0
    requests = [one for one in net.exchanges.values() if one.asked is Asked.SERVICE]
    assert all(one.at_edge for one in requests)
    assert net.ledger.report(frozenset({SERVICE})).counts["diverted"] == len(requests)


@pytest.mark.parametrize(
    ("name", "fault", "check"),
    [
        ("4g", "undiverted", "diverted"),
        ("attach", "another UE", "separate"),
        ("4g", "another core", "fitting"),
        ("5g", "no container", "fitting"),
        ("detach", "", "withheld"),
        ("error-indication", "", "separate"),
    ],
)
def test_a_diverting_box_with_a_fault_is_found(name: str, fault: str, check: str) -> None:
    assert check in failed(play(name, DivertingBox(fault), EDGE))


def test_a_box_that_may_not_divert_makes_up_what_it_injects() -> None:
    assert "nothing extra" in failed(play("4g", Inventing()))


class Inventing:
    """Asks the core in the UE's name."""

    def __init__(self) -> None:
        self.asked = False

    def __call__(self, end: End, frame: bytes) -> Iterable[tuple[End, bytes]]:
        out = [*wire(end, frame)]
        found = message(frame)
        if found and end is End.ENB and not self.asked:
            self.asked = True
            target = Settings().targets[0]
            eth = inet.decode_ethernet(frame)
            outer = inet.decode_ipv4(eth.payload)
            inner = inet.decode_ipv4(found.payload)._replace(destination=target)
            new = found._replace(payload=inet.encode_ipv4(inner))
            datagram = inet.encode_udp(inet.UDP(2152, 2152, gtpu.encode(new)))
            packet = inet.encode_ipv4(outer._replace(payload=datagram))
            out.append((End.SGW, inet.encode_ethernet(eth._replace(payload=packet))))
        return out


@pytest.mark.parametrize("name", ["attach", "ipv6-transport"])
def test_a_box_that_eats_neighbour_requests_is_found(name: str) -> None:
    def box(end: End, frame: bytes) -> Iterable[tuple[End, bytes]]:
        return wire(end, frame) if message(frame) else ()

    assert "transparent" in failed(play(name, box))


def test_an_application_asks_for_its_gateway_once_and_thinks_when_told() -> None:
    sent: list[bytes] = []
    gateway = Place(bytes((192, 168, 50, 1)), ROUTER)
    application = Application(Edge((SERVICE,), (APPLICATION,), (gateway.address,)), sent.append)

    def asked(text: bytes) -> None:
        ends = (bytes((10, 45, 0, 9)), 40_000), (APPLICATION.address, 7)
        application.receive(inet.decode_ethernet(frame((ROUTER, APPLICATION.mac), udp_packet(*ends, text))))

    asked(b"one")
    assert wanted_neighbour(inet.decode_ethernet(sent.pop())) == (gateway.address, APPLICATION)
    application.receive(inet.decode_ethernet(neighbour_answer(gateway, APPLICATION)))
    assert sent.pop()[:6] == ROUTER
    application.think()
    asked(b"two")
    asked(b"three")
    assert sent == []
    application.speak()
    assert [data[-len(text) :] for data, text in zip(sent, (b"two", b"three"), strict=True)] == [
        b"two",
        b"three",
    ]
    sent.clear()
    application.receive(inet.decode_ethernet(neighbour_request(gateway, APPLICATION.address)))
    assert told_neighbour(inet.decode_ethernet(sent.pop())) == APPLICATION
    application.receive(inet.decode_ethernet(neighbour_request(gateway, bytes(4))))
    application.receive(inet.Ethernet(APPLICATION.mac, ROUTER, 0x0800, b"no packet"))
    application.say(bytes((0x60,)) + bytes(60))
    assert sent == []


@pytest.mark.parametrize(("name", "tunnels"), [("4g", 2), ("overlap", 4), ("two-bearers", 8), ("detach", 2)])
def test_a_learner_should_hold_what_is_in_use(name: str, tunnels: int) -> None:
    net = play(name)
    assert len(net.expected_tunnels) == tunnels
    assert set(net.expected_tunnels) <= net.used
    assert net.unused.teid > net.radio().next_teid - 1
    assert all(owner[:2] == bytes((10, 45)) for owners in net.expected_tunnels.values() for owner in owners)


def test_an_answer_to_a_probe_is_the_boxes_to_keep() -> None:
    net = play("4g", Inventing(), EDGE)
    assert net.ledger.probes == 1
    assert "withheld" in failed(net), "a wire lets the answer through"


def test_ues_that_spoof_get_nothing_of_it() -> None:
    draw = Random(1)
    net = Network(Settings(), draw, Numbers.drawn(draw))
    ue = attach(net, net.radio(), net.core())
    spoof(net, ue, bytes((10, 45, 99, 99)))
    net.receive(End.SGW, net.outbox.pop()[1], 1.0)
    assert net.core().spoofed == 1
    assert net.outbox == []


def test_an_idle_ue_is_paged_and_gets_what_waited() -> None:
    net = play("idle")
    assert [ue.name for ue in net.paged] == ["ue1"]
    pushed = [one for one in net.exchanges.values() if one.asked is Asked.PUSH]
    assert all(one.answered for one in pushed)


def test_a_stream_tells_its_longest_gap() -> None:
    dead = False

    def box(end: End, frame: bytes) -> Iterable[tuple[End, bytes]]:
        nonlocal dead
        found = message(frame)
        dead = dead or (found is not None and found.type == gtpu.END_MARKER)
        return () if dead else wire(end, frame)

    net = play("x2-handover", box)
    told = figures(net)
    assert told["internet_unanswered"] > 10
    assert told["internet_longest_gap_ms"] < 50, "measured between answers"


def test_containers_carry_the_flows_qfi() -> None:
    draw = Random(1)
    net = Network(Settings(), draw, Numbers.drawn(draw))
    ue = attach(net, net.radio(), net.core(), shape=n3(9, 5))
    push(net, ue)
    found = message(net.outbox.pop()[1])
    assert found is not None
    assert (found.flags, found.pdu_type, found.qfi) == (0x34, 0, 5)


@pytest.mark.parametrize(
    ("name", "marker"),
    [("x2-handover", "30fe0000"), ("s1-handover", "30fe0000"), ("n2-handover", "34fe0008")],
)
def test_end_markers_are_relayed_to_the_target(name: str, marker: str) -> None:
    net = play(name)
    assert net.radio(0).end_markers == 1
    assert net.radio(1).end_markers == 1
    relayed = [item.frame.data for item in net.ledger.sent if marker in item.frame.data.hex()]
    assert len(relayed) == 3, "to the source, from it, and to the target"


def test_error_indications_take_three_shapes() -> None:
    net = play("error-indication")
    shapes = {
        (one.message.teid == 0, bool(one.message.extensions), bool(one.message.payload))
        for one in net.radio().errors
    }
    assert shapes == {(True, False, True), (False, True, True), (False, False, False)}
    assert len(net.radio().errors) == 3
    assert len(net.core().errors) == 4, "and the last, to a packet that an application would have sent"
    ports = {
        inet.decode_udp(
            inet.decode_ipv4(inet.decode_ethernet(item.frame.data).payload).payload
        ).destination_port
        for item in net.ledger.sent
    }
    assert ports == {2152, 5906}, "where the trigger came from"


def test_a_restarted_node_counts_on() -> None:
    net = play("restart")
    assert net.radio().peers == {SGWS[0].address: 2}
    assert net.core().peers == {ENBS[0].address: 2}


def test_scenarios_have_a_line_each_and_others_are_refused() -> None:
    assert all(line(name).endswith(".") and len(line(name)) < 115 for name in SCENARIOS)
    assert chosen(["4g", "5g"]) == ["4g", "5g"]
    with pytest.raises(SetupError, match="no scenario 6g"):
        chosen(["4g", "6g"])


def test_an_empty_script_is_done_at_once() -> None:
    draw = Random(1)
    net = Network(Settings(), draw, Numbers.drawn(draw))
    player = Player(net, iter(()), 5.0)  # type: ignore[arg-type]
    player.advance(5.0)
    assert player.done
    assert mobility.AROUND_S > mobility.BEFORE_SWITCH_S
