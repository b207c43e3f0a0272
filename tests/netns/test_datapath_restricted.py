"""Separate adapters, provisioned nodes: the TOF handles the tunnels between those, and no others."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from gtp_packets import ELSEWHERE, new_bearer, udp
from gtp_peers import Setting, Tof, running_tof, until

pytestmark = pytest.mark.netns

SERVICE = "203.0.113.10"


@pytest.fixture(scope="module", params=['enb = ["10.1.0.8/30"]', 'enb = ["10.1.0.11"]\nsgw = ["10.1.0.1"]'])
def tof(request: pytest.FixtureRequest) -> Iterator[Tof]:
    with running_tof(Setting(nodes=request.param)) as running:
        yield running


def test_provisioned_nodes_are_served_and_others_cross_unlearnt(tof: Tof) -> None:
    ours, strange = new_bearer(), new_bearer(enb="10.1.0.20")
    with tof.service(SERVICE):
        for _ in range(3):
            for bearer in (ours, strange):
                up = bearer.uplink(udp(bearer.ue, ELSEWHERE, 1, 2, b"up"))
                tof.ran.send(up)
                tof.core.expect(up)
                down = bearer.downlink(udp(ELSEWHERE, bearer.ue, 2, 1, b"down"))
                tof.core.send(down)
                tof.ran.expect(down)
        request = strange.uplink(udp(strange.ue, SERVICE, 1, 7, b"to the core"))
        tof.ran.send(request)
        tof.core.expect(request)
    until("both tunnels are known", lambda: set(tof.known(ours)) == {"uplink", "downlink"})
    assert tof.known(strange) == {}
