"""VLAN tags that a sender's kernel keeps beside the frame, as over a veth: no XDP program sees them.

The far ends are Linux bridges, which take the tag out of each frame that they carry and hand it to the wire beside it.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from gtp_apps import answer, echo, looks_as_from_the_core, serving_tof, to_core
from gtp_packets import CORE_MAC, ELSEWHERE, RAN_MAC, Bearer, carried, ethernet, gtp, new_bearer, udp
from gtp_peers import Setting, Tof, until
from gtp_wires import Wire
from gtp_zoo import tagged
from netns_helper import Netns

pytestmark = pytest.mark.netns


def bridged(netns: Netns, device: str) -> Wire:
    """A wire that ends at the bridge which ``device`` is a port of."""
    netns.run("ip", "link", "add", "sw", "type", "bridge", "stp_state", "0", "mcast_snooping", "0")
    netns.run(
        "ip", "link", "set", device, "address", "02:00:00:00:0f:01"
    )  # a bridge keeps what is to its ports' own
    netns.run("ip", "link", "add", "raw0", "type", "veth", "peer", "name", "raw1")
    for port in (device, "raw1"):
        netns.run("ip", "address", "flush", "dev", port)
        netns.run("ip", "link", "set", port, "master", "sw")
    for one in ("sw", "raw0", "raw1"):
        netns.run("sysctl", "-q", "-w", f"net.ipv6.conf.{one}.disable_ipv6=1")
        netns.run("ip", "link", "set", one, "up")
    return Wire(netns, "raw0")


@pytest.fixture(params=["generic", "native"])
def tof(request: pytest.FixtureRequest) -> Iterator[Tof]:
    with serving_tof(Setting(xdp=request.param)) as running:
        for role in ("ran", "core"):
            running.wires[role].close()
            running.wires[role] = bridged(running.netns[role], "s0")
        yield running


def crosses(tof: Tof, bearer: Bearer) -> None:
    """A packet each way, byte for byte, tag included."""
    for _ in range(3):
        tof.up(bearer)
        tof.down(bearer)


def introduce(tof: Tof, vlan: int) -> None:
    """Nodes ask for each other's MAC addresses before they say anything else in a VLAN."""
    for sender, receiver, mac in ((tof.ran, tof.core, RAN_MAC), (tof.core, tof.ran, CORE_MAC)):
        frame = ethernet(bytes(28), 0x0806, (mac, b"\xff" * 6), vlan)
        sender.send(frame)
        receiver.expect(frame)


def is_served(tof: Tof, bearer: Bearer, data: bytes) -> None:
    tof.drain()
    tof.ran.send(echo(bearer, data, port=4000 + (bearer.vlan or 0)))
    looks_as_from_the_core(answer(tof, bearer, data), bearer)
    assert not to_core(tof, bearer)


def test_a_tagged_tunnel_is_told_from_its_untagged_twin(tof: Tof) -> None:
    """Equal addresses, TEIDs and UE; the untagged one is known when the VLAN's first frame comes."""
    plain = new_bearer()
    twin = plain.but(vlan=31)
    tof.attach(plain)
    crosses(tof, plain)
    introduce(tof, 31)
    crosses(tof, twin)
    crosses(tof, plain)
    for n, bearer in enumerate((plain, twin, plain, twin)):
        is_served(tof, bearer, b"%d" % n)
    known = {bearer: tof.known(bearer) for bearer in (plain, twin)}
    assert all(set(found) == {"uplink", "downlink"} for found in known.values())


def test_tags_in_the_frame_and_beside_it(tof: Tof) -> None:
    """Several VLANs, untagged tunnels among them, priority tags: each as it came."""
    bearers = [new_bearer(vlan=vlan) for vlan in (None, 5, 6, 4094)]
    for bearer in bearers:
        tof.attach(bearer)
    for bearer in bearers:
        crosses(tof, bearer)
        is_served(tof, bearer, b"in %r" % bearer.vlan)
    one = bearers[0]
    frame = tagged(one.uplink(udp(one.ue, ELSEWHERE, 1, 2, b"priority")), 5 << 13)
    for _ in range(3):
        tof.ran.send(frame)
        tof.core.expect(frame)


def test_tunnels_are_counted_and_not_queued_for_ever(tof: Tof) -> None:
    """Known tunnels of such adapters pass by the bridge, with their traffic counted; what is a service's takes the queue."""
    bearer = new_bearer(vlan=31)
    tof.attach(bearer)
    crosses(tof, bearer)
    until("the bearer has settled", lambda: not _queued_by(tof, bearer))
    before = tof.known(bearer)["uplink"]["packets"]
    crosses(tof, bearer)
    assert tof.known(bearer)["uplink"]["packets"] == before + 3
    is_served(tof, bearer, b"still")


def _queued_by(tof: Tof, bearer: Bearer) -> int:
    before = tof.packets("queued")
    crosses(tof, bearer)
    return tof.packets("queued") - before


def test_sequence_of_a_storm(tof: Tof) -> None:
    """The packets of a new tunnel keep their order on their way from the queue to the bridge."""
    bearer = new_bearer(vlan=77)
    tof.up(bearer.but(up=1, down=1))  # the tag is known to be beside the frame
    frames = [bearer.uplink(udp(bearer.ue, ELSEWHERE, 1000, 2000, n.to_bytes(4, "big"))) for n in range(1000)]
    tof.drain()
    tof.ran.send(*frames)
    seen = []
    for _ in frames:
        one = tof.core.gpdu(lambda one: one.teid == bearer.up and one.inner.destination == ELSEWHERE)
        seen.append(int.from_bytes(one.inner.data, "big"))
    assert seen == list(range(1000))


def test_an_end_marker_beside_its_tag(tof: Tof) -> None:
    """Only its own tunnel ends with it."""
    plain = new_bearer()
    twin = plain.but(vlan=12)
    introduce(tof, 12)
    tof.attach(plain, twin)
    end = carried(plain.sgw, plain.enb, gtp(plain.down, kind=254), macs=(CORE_MAC, RAN_MAC), vlan=12)
    tof.core.send(end)
    tof.ran.expect(end)
    until("the tunnel has ended", lambda: tof.known(twin)["downlink"]["state"] == "ended")
    assert tof.known(plain)["downlink"]["state"] == "paired"
    is_served(tof, plain, b"goes on")
