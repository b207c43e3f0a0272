"""The source document's Figure 16, TEID detection and tunnel setup, step by step on the agent."""

from __future__ import annotations

from tests.agent_world import ENB, SGW, TARGET, UE, World, downlink, uplink
from tof.agent.commands import Converge, DropPacket, PutToken, PutTunnel, SendPing, SetPeer
from tof.agent.events import Tick
from tof.model import Direction, TunnelKey


def test_teid_detection_and_tunnel_setup():
    tof = World()

    # 1. The UE generates traffic to a PDN, which is caught at the S1 interface by the GTP Filter.
    first_packet = uplink(teid=0x11, ue=UE, enb=ENB, sgw=SGW)

    # 2. The TEID from this eNB is from a new session: the TOF Control Agent is contacted.
    answer = tof.say(first_packet)

    # 3. It configures the GTP tunnel between eNB and SGW with the TEID of the packet; the packet itself passes.
    configured = answer[0]
    assert isinstance(configured, PutTunnel)
    assert configured.key == TunnelKey(ENB, SGW, 0x11)
    assert (configured.direction, configured.ues) == (Direction.UPLINK, (UE,))
    assert DropPacket() not in answer

    # 4. It waits for the end of tunnel configuration: the data path holds the tunnel when the call returns.
    assert tof.path.tunnel(first_packet.key).direction is Direction.UPLINK

    # 5. It configures the Pinger, which is to force a data packet from the SGW.
    configured_pinger, token, request = tof.say(Tick())
    assert isinstance(configured_pinger, Converge)
    assert isinstance(token, PutToken)
    (route,) = tof.agent.ping_routes
    assert (route.ue, route.target) == (UE, TARGET)

    # 6. The Pinger generates an ICMP Echo Request to a destination in the PDN through the tunnel of step 3.
    assert isinstance(request, SendPing)
    assert (request.index, request.ue, request.target) == (configured.index, UE, TARGET)

    # 7. The reply is caught by the GTP Filter.
    reply = downlink(teid=0x22, ue=UE, enb=ENB, sgw=SGW, token=request.token)

    # 8. The TEID from this SGW is a new session: the TOF Control Agent is contacted.
    answer = tof.say(reply)
    assert DropPacket() in answer  # the UE never asked

    # 9. It configures the GTP tunnel between SGW and eNB with the TEID of the packet.
    (configured_down,) = [command for command in answer if isinstance(command, PutTunnel)]
    assert configured_down.key == TunnelKey(SGW, ENB, 0x22)
    assert SetPeer(configured.key, configured.index, configured_down.index) in answer

    # 10. It waits for the end of tunnel configuration.
    assert tof.path.peers[configured.index] == configured_down.index
    assert tof.path.defaults == {UE: configured_down.index}

    # 11. It configures the Pinger to stop.
    assert isinstance(answer[-1], Converge)
    assert tof.agent.ping_routes == ()

    # 12. It waits for the end of Pinger configuration; the process is concluded: no request leaves any more.
    assert tof.pings(after_s=1.0) == []
    assert tof.pings(after_s=60.0) == []
    assert tof.agent.wake_at is None
