"""The agent's decisions: events in, commands out, virtual time; the data path in memory does what it is told."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from tests.agent_world import (
    ENB,
    ENB2,
    SERVER_V6,
    SGW,
    SGW2,
    TARGET,
    TARGET_V6,
    UE,
    UE2,
    UE2_V6,
    UE3,
    UE_V6,
    World,
    downlink,
    pristine,
    uplink,
)
from tof.agent import asking, holding, losing
from tof.agent.commands import (
    AMBIGUOUS,
    Converge,
    DropPacket,
    DropToken,
    DropTunnel,
    PutTunnel,
    ReleaseFrame,
    SendPing,
    SetCalm,
    SetDoubt,
)
from tof.agent.doubting import DEAF_S
from tof.agent.events import (
    AdoptedService,
    AdoptedTunnel,
    ApplicationProbed,
    DownlinkMoved,
    EchoResponseSeen,
    EndMarkerSeen,
    ErrorIndicationSeen,
    ForeignSourceSeen,
    FrameHeld,
    NextHopChanged,
    ServiceAdded,
    ServiceRemoved,
    ServiceReplaced,
    ServicesReplaced,
    SwitchReturned,
    Tick,
    TunnelRefused,
    TunnelsAdopted,
    TunnelsIdle,
    UplinkReturned,
)
from tof.agent.learning import PATIENCE_S
from tof.agent.pinging import GRACE_S
from tof.errors import Conflict
from tof.model import Direction, Form, HealthCheck, ProbeKind, Service, Side, TunnelKey

LINK_LOCAL = bytes.fromhex("fe800000000000000000000000000001")


@pytest.fixture
def world():
    return World()


def kinds(commands):
    return [type(command) for command in commands]


# Learning and asking


def test_an_unknown_uplink_is_learnt_and_asked_through(world):
    commands = world.say(uplink())
    assert kinds(commands) == [PutTunnel]
    assert world.agent.wake_at == 0.0
    (ping,) = world.pings()
    assert (ping.ue, ping.target, ping.sequence) == (UE, TARGET, 1)
    assert [(route.ue, route.target) for route in world.agent.ping_routes] == [(UE, TARGET)]


def test_the_pinger_s_reply_pairs_exactly_and_goes_no_further(world):
    up, _ = world.hear(uplink())
    (ping,) = world.pings()
    down, commands = world.hear(downlink(token=ping.token))
    assert kinds(commands)[0] is DropPacket
    assert commands[1].dropped == 100
    assert world.peer(up) == down.index
    assert up.exactly_paired
    assert world.agent.ping_routes == ()


def test_the_ping_stops_with_any_downlink_of_the_ue(world):
    world.say(uplink())
    world.pings()
    commands = world.say(downlink())
    assert Converge in kinds(commands)
    assert world.agent.ping_routes == ()


def test_the_ping_gives_up_and_its_token_expires(world):
    world.say(uplink())
    assert [len(world.pings(1.0)) for _ in range(7)] == [1, 1, 1, 1, 1, 0, 0]
    world.now += GRACE_S
    assert kinds(world.say(Tick())) == [DropToken]
    assert world.agent.wake_at is None
    assert world.path.tokens == {}


def test_uplinks_that_were_asked_in_vain_are_asked_again_when_the_switch_is_back(world):
    world.hear(uplink())
    world.paired(11, 12, UE2)
    while world.pings(2.0):
        pass
    world.say(SwitchReturned())
    assert [ping.ue for ping in world.pings()] == [UE]


def test_a_reply_too_late_for_a_forgotten_tunnel_is_dropped_all_the_same(world):
    up, _ = world.hear(uplink())
    (ping,) = world.pings()
    assert Converge in kinds(world.say(TunnelsIdle(frozenset({up.index}))))
    assert kinds(world.say(downlink(token=ping.token))) == [DropPacket]


def test_a_reply_to_another_address_than_was_asked_for_teaches_nothing(world):
    world.say(uplink())
    (ping,) = world.pings()
    assert kinds(world.say(downlink(ue=UE2, token=ping.token))) == [DropPacket]


def test_a_late_reply_does_not_pair_a_tunnel_that_changed_hands(world):
    up, _ = world.hear(uplink())
    (ping,) = world.pings()
    world.say(uplink(ue=UE2))
    (other,) = world.pings(1.0)
    world.say(downlink(5, UE2, token=other.token))
    assert up.ues == (UE2,)
    down, commands = world.hear(downlink(2, UE, token=ping.token))
    assert DropPacket in kinds(commands)
    assert down.ues == (UE,)
    assert world.peer(up) == world.sessions.get(downlink(5).key).index


def test_a_reply_in_another_pair_s_tunnel_says_where_replies_go(world):
    """The UE moved while it was asked for: the reply comes down to the new eNB."""
    up, _ = world.hear(uplink())
    (ping,) = world.pings()
    down, _ = world.hear(downlink(9, enb=ENB2, token=ping.token))
    assert down.ues == (UE,)
    assert world.peer(up) == down.index
    assert len(world.pings(1.0)) == 1  # the way may still be changing


def test_a_token_from_the_enb_side_or_of_nobody_is_a_plain_packet(world):
    world.say(uplink())
    assert PutTunnel in kinds(world.say(downlink(token=12345)))


def test_a_dual_stack_ue_is_asked_for_in_the_family_that_has_a_target():
    world = World(targets=(TARGET_V6,))
    world.say(uplink())
    assert world.pings() == []
    world.say(uplink(ue=UE_V6))
    (ping,) = world.pings()
    assert (ping.ue, ping.target) == (UE_V6, TARGET_V6)
    world.say(downlink(ue=UE_V6, token=ping.token))
    up, _ = world.hear(uplink())
    assert up.ues == (UE, UE_V6[:8])
    down, _ = world.hear(downlink())
    assert down.ues == (UE_V6[:8], UE)
    world.say(EndMarkerSeen(down.key))
    (ping,) = world.pings()
    assert (ping.ue, ping.target) == (UE_V6, TARGET_V6)


@pytest.mark.parametrize("address", [bytes(4), bytes((127, 0, 0, 1)), bytes((224, 0, 0, 1)), LINK_LOCAL])
def test_addresses_that_no_ue_owns_teach_nothing(world, address):
    assert world.say(uplink(ue=address)) == []
    assert world.say(downlink(ue=address)) == []
    up, _ = world.hear(uplink())
    assert kinds(world.say(ForeignSourceSeen(up.index, address))) == [SetCalm]
    down, _ = world.hear(downlink())
    # The data path has stopped injection by itself: what it took for another UE's says nothing of whose the tunnel is.
    assert world.say(DownlinkMoved(down.index, address)) == [SetDoubt(down.key, down.index, False)]


def test_form_of_the_tunnel_s_own_packets_is_kept(world):
    commands = world.say(downlink(form=Form(0x34, 9)))
    assert commands[0].form == Form(0x34, 9)


# Several bearers


def test_bearers_are_paired_by_what_comes_back_through_each(world):
    default_up, default_down = world.paired()
    dedicated_up, _ = world.hear(uplink(3))
    dedicated_down, _ = world.hear(downlink(4))
    (ping,) = world.pings()  # a dedicated bearer is asked through only when a reply has to go its way
    assert ping.index == default_up.index
    world.say(downlink(2, token=ping.token))
    assert world.peer(dedicated_up) == 0
    world.say(FrameHeld(b"reply", UE, dedicated_up.index))
    (ping,) = world.pings()
    assert ping.index == dedicated_up.index
    commands = world.say(downlink(4, token=ping.token))
    assert ReleaseFrame(b"reply") in commands
    assert world.peer(default_up) == default_down.index
    assert world.peer(dedicated_up) == dedicated_down.index
    assert world.path.defaults == {UE: default_down.index}
    assert world.agent.ping_routes == ()


def test_a_reply_that_waits_in_vain_takes_the_default_bearer(world):
    _, default_down = world.paired()
    dedicated_up, _ = world.hear(uplink(3))
    world.say(downlink(2, token=world.pings()[0].token))
    world.say(FrameHeld(b"reply", UE, dedicated_up.index))
    assert ReleaseFrame(b"reply") not in world.say(Tick())
    world.now += PATIENCE_S
    assert ReleaseFrame(b"reply") in world.say(Tick())
    assert world.peer(dedicated_up) == default_down.index
    assert not dedicated_up.exactly_paired


def test_after_idle_mode_the_new_downlink_is_asked_for_and_found(world):
    up, _ = world.hear(uplink())
    world.say(downlink(token=world.pings()[0].token))
    new, _ = world.hear(downlink(3))
    assert world.peer(up) != new.index
    world.say(downlink(3, token=world.pings(1.0)[0].token))
    assert world.peer(up) == new.index
    assert world.path.defaults == {UE: new.index}


# Handover


def test_handover(world):
    up, old = world.paired()
    moved, _ = world.hear(uplink(enb=ENB2))
    assert moved.session == up.session
    assert world.path.defaults == {UE: old.index}
    (ping,) = world.pings()
    assert ping.index == moved.index
    new, _ = world.hear(downlink(9, enb=ENB2, token=ping.token))
    assert world.peer(moved) == new.index
    assert world.path.defaults == {UE: new.index}
    assert world.peer(up) == new.index  # what its last flows brought is answered where the UE is
    assert (up.left, moved.left) == (True, False)
    assert world.say(EndMarkerSeen(old.key)) == []
    assert old.ended
    assert world.agent.ping_routes == ()


def test_end_markers_of_uplinks_and_of_nobody_change_nothing(world):
    up, _ = world.paired()
    assert world.say(EndMarkerSeen(up.key)) == []
    assert world.say(EndMarkerSeen(TunnelKey(SGW, ENB, 99))) == []


def test_a_teid_in_use_anew_after_its_end_marker_is_learnt_anew(world):
    up, down = world.paired()
    world.say(EndMarkerSeen(down.key))
    again, commands = world.hear(downlink())
    assert kinds(commands)[:2] == [DropTunnel, PutTunnel]
    assert again is not down
    assert world.peer(up) == again.index
    world.say(EndMarkerSeen(again.key))
    assert kinds(world.say(DownlinkMoved(again.index, UE2))) == [DropTunnel]


def test_forwarding_between_enbs_is_not_learnt(world):
    world.paired()
    assert world.say(uplink(77, ue=bytes((203, 0, 113, 9)), enb=ENB, sgw=ENB2, to=UE)) == []


def test_forwarding_by_way_of_the_sgw_is_not_learnt(world):
    world.paired()
    assert world.say(uplink(77, ue=bytes((203, 0, 113, 9)), to=UE)) == []


def test_ues_that_talk_to_each_other_are_learnt(world):
    world.paired()
    world.paired(11, 12, UE2)
    assert PutTunnel in kinds(world.say(uplink(13, UE2, to=UE)))


# Who owns an address


def test_a_foreign_source_is_asked_for_and_confirmed_by_the_answer(world):
    up, down = world.paired()
    assert kinds(world.say(ForeignSourceSeen(up.index, UE2))) == [SetDoubt]
    assert up.ues == (UE,)
    (ping,) = world.pings()
    assert ping.ue == UE2
    new, commands = world.hear(downlink(9, UE2, token=ping.token))
    assert up.ues == (UE2,)
    assert world.peer(up) == new.index
    assert up.foreign is None
    assert down.ues == (UE,)
    assert DropPacket in kinds(commands)


def test_a_foreign_source_is_confirmed_by_a_downlink_packet_to_it(world):
    """Open5GS gives a TEID to the next UE: both directions change hands."""
    up, down = world.paired()
    world.say(ForeignSourceSeen(up.index, UE2))
    world.say(DownlinkMoved(down.index, UE2))
    assert up.ues == down.ues == (UE2,)
    assert world.peer(up) == down.index
    assert world.path.defaults == {UE2: down.index}


def test_a_downlink_that_moves_does_not_take_an_uplink_that_never_said_so(world):
    up, down = world.paired()
    world.say(DownlinkMoved(down.index, UE2))
    assert up.ues == (UE,)
    assert world.peer(up) == 0
    assert world.pings()[0].ue == UE


def test_a_queued_downlink_packet_moves_its_tunnel_too(world):
    _, down = world.paired()
    world.say(downlink(ue=UE2))
    assert down.ues == (UE2,)


def test_one_candidate_at_a_time_and_the_same_one_not_again(world):
    up, _ = world.paired()
    assert kinds(world.say(uplink(ue=UE2))) == [SetDoubt]
    assert world.say(uplink(ue=UE2)) == []
    assert world.say(uplink(ue=UE3)) == []
    for _ in range(19):
        world.pings(1.0)
    assert kinds(world.say(uplink(ue=UE2))) == [SetDoubt]
    world.now += DEAF_S
    world.say(uplink(ue=UE3))
    assert up.foreign == UE3
    assert world.pings()[0].ue == UE3


def test_a_candidate_that_did_not_answer_does_not_stop_the_ue_itself_from_being_asked_for(world):
    up, down = world.paired()
    world.say(uplink(ue=UE2))
    assert world.say(downlink()) == []  # the candidate is being asked for
    for _ in range(7):
        world.pings(1.0)
    world.say(EndMarkerSeen(down.key))
    assert world.pings(1.0)[0].ue == UE
    assert up.ues == (UE,)


def test_events_about_tunnels_that_are_gone_or_of_the_other_direction_change_nothing(world):
    up, down = world.paired()
    assert world.say(ForeignSourceSeen(999, UE2)) == []
    assert world.say(DownlinkMoved(999, UE2)) == []
    assert world.say(ForeignSourceSeen(down.index, UE2)) == []
    assert world.say(DownlinkMoved(up.index, UE2)) == []


def test_a_packet_from_the_wrong_side_does_not_touch_a_tunnel(world):
    up, down = world.paired()
    assert world.say(uplink(2, UE2, SGW, ENB)) == []
    assert world.say(downlink(1, UE2, SGW, ENB)) == []
    assert (up.ues, down.ues) == ((UE,), (UE,))


def test_overlapping_addresses_are_not_mixed(world):
    up, down = world.paired()
    twin_up, twin_down = world.paired(5, 6, UE, ENB2, SGW2)
    assert world.peer(up) == down.index
    assert world.peer(twin_up) == twin_down.index
    assert world.path.defaults == {UE: AMBIGUOUS}


# Held frames


def test_a_frame_for_a_ue_without_downlink_is_held_asked_for_and_released(world):
    world.say(uplink())
    for _ in range(7):
        world.pings(1.0)
    world.say(FrameHeld(b"syn-ack", UE))
    assert world.say(FrameHeld(b"more", UE)) == []
    (ping,) = world.pings(1.0)
    commands = world.say(downlink(token=ping.token))
    assert [c.frame for c in commands if isinstance(c, ReleaseFrame)] == [b"syn-ack", b"more"]


def test_frames_for_nobody_or_beyond_the_share_are_not_held(world):
    assert world.say(FrameHeld(b"frame", UE)) == []
    assert world.agent.wake_at is None
    world.say(uplink())
    for number in range(holding.PER_UE + 4):
        world.say(FrameHeld(bytes((number,)), UE))
    assert world.agent.holding.expired == 4
    assert world.agent.counts["frame_for_nobody"] == 1


def test_frames_expire_with_the_tick(world):
    world.say(uplink())
    world.pings()
    world.say(FrameHeld(b"frame", UE))
    world.now += 60.0
    world.say(Tick())
    assert world.agent.holding.expired == 1


def test_a_frame_that_crossed_with_its_tunnel_is_released_at_the_next_tick(world):
    world.paired()
    assert world.say(FrameHeld(b"frame", UE)) == []
    assert world.agent.wake_at == 0.0
    assert world.say(Tick()) == [ReleaseFrame(b"frame")]


def test_a_frame_of_a_former_ue_s_flow_is_not_given_back(world):
    world.paired()
    assert world.say(FrameHeld(b"frame", UE, moved=True)) == []
    assert world.say(Tick()) == []
    world.now += holding.HOLD_S
    assert world.say(Tick()) == []
    assert world.agent.holding.expired == 1


def test_a_frame_for_an_ambiguous_address_waits_in_vain(world):
    world.paired()
    world.paired(5, 6, UE, ENB2, SGW2)
    world.say(FrameHeld(b"frame", UE))
    assert ReleaseFrame not in kinds(world.say(Tick()))


def test_a_frame_for_an_ipv6_ue_asks_on_behalf_of_its_exact_address(world):
    world.say(uplink(ue=UE_V6, to=SERVER_V6))
    world.pings(30.0)
    for _ in range(7):
        world.pings(1.0)
    world.say(FrameHeld(b"frame", UE_V6[:8] + bytes(8)))
    assert world.pings(1.0)[0].ue == UE_V6


# Error Indications, restarts, idle tunnels


def test_an_error_indication_forgets_the_tunnel_and_passes(world):
    up, down = world.paired()
    assert world.say(ErrorIndicationSeen(ENB, 99, None, Side.ENB)) == []
    assert world.say(ErrorIndicationSeen(ENB, 2, 7, Side.ENB)) == []
    commands = world.say(ErrorIndicationSeen(ENB, 2, None, Side.ENB))
    assert kinds(commands)[-1] is DropTunnel
    assert [ping.index for ping in world.pings()] == [up.index]
    assert world.agent.counts["error_indication_unknown"] == 2
    assert world.sessions.get(down.key) is None
    assert world.peer(up) == 0


def test_an_error_indication_forgets_every_tunnel_of_that_end(world):
    world.say(uplink(1, UE))
    world.say(uplink(1, UE2, ENB2))
    world.say(ErrorIndicationSeen(SGW, 1, None, Side.SGW))
    assert len(world.sessions) == 0


@pytest.mark.parametrize("sender", [ENB, SGW])
def test_an_error_indication_of_a_node_that_is_radio_and_core_both(world, sender):
    """As of two eNodeBs that forward to each other: each of their tunnels is lost once."""
    world.hear(uplink(1, UE))
    world.hear(uplink(1, UE2, enb=SGW, sgw=ENB))
    (kept,) = (t for t in world.sessions if t.key.destination != sender)
    world.say(ErrorIndicationSeen(sender, 1, None, Side.SGW))
    assert list(world.sessions) == [kept]


def test_an_error_indication_that_a_ping_caused_is_held_back_and_ends_the_asking(world):
    world.say(uplink())
    (ping,) = world.pings()
    commands = world.say(ErrorIndicationSeen(SGW, 1, None, Side.SGW, frozenset({ping.index})))
    assert DropPacket in kinds(commands)
    assert Converge in kinds(commands)
    assert world.agent.counts["error_indication_held_back"] == 1
    assert kinds(world.say(uplink())) == [PutTunnel]
    assert DropPacket not in kinds(world.say(ErrorIndicationSeen(SGW, 1, None, Side.SGW)))
    assert DropPacket in kinds(world.say(ErrorIndicationSeen(SGW, 1, None, Side.SGW)))  # of the same volley
    assert world.pings() == []
    world.now += asking.REFUSED_S
    world.say(uplink())
    assert len(world.pings()) == 1


def test_another_ue_in_a_refused_tunnel_is_asked_for(world):
    world.say(uplink())
    world.pings()
    world.say(ErrorIndicationSeen(SGW, 1, None, Side.SGW))
    world.say(uplink(ue=UE2))
    assert [ping.ue for ping in world.pings()] == [UE2]


def test_refusals_are_bounded():
    agent = World(at_once=10_000, most=10_000, most_unconfirmed=10_000).agent
    ues = [(0x0A010000 + number).to_bytes(4, "big") for number in range(asking.REFUSALS + 1)]
    for teid, ue in enumerate(ues, 1):
        agent.handle(uplink(teid, ue), 0.0)
    agent.handle(Tick(), 0.0)
    for teid in range(1, len(ues) + 1):
        agent.handle(ErrorIndicationSeen(SGW, teid, None, Side.SGW), 0.0)
    agent.handle(uplink(1, ues[0]), 0.0)
    agent.handle(uplink(2, ues[1]), 0.0)
    assert [c.ue for c in agent.handle(Tick(), 0.0) if isinstance(c, SendPing)] == [ues[0]]


def test_a_restarted_peer_has_lost_its_tunnels(world):
    world.paired()
    other, _ = world.paired(1, 2, UE2, ENB2, SGW2)
    tagged, _ = world.hear(uplink(vlan=7))
    for recovery in (None, 3, 3, None):
        assert world.say(EchoResponseSeen(SGW, recovery, None, Side.SGW)) == []
    world.say(EchoResponseSeen(SGW, 9, 7, Side.SGW))
    assert len(world.sessions) == 5
    world.say(EchoResponseSeen(SGW, 4, None, Side.SGW))
    assert set(world.sessions) == {other, world.sessions.at(other.peer), tagged}


def test_restart_counters_are_bounded(world):
    world.paired()
    world.say(EchoResponseSeen(SGW, 1, None, Side.SGW))
    for number in range(losing.PEERS):
        world.say(EchoResponseSeen((0xC6336400 + number).to_bytes(4, "big"), 1, None, Side.SGW))
    assert len(world.agent.losing._recovery) == losing.PEERS
    world.say(EchoResponseSeen(SGW, 2, None, Side.SGW))
    assert len(world.sessions) == 0


def test_restart_counters_of_known_peers_only_make_room_for_the_oldest():
    world = World(most=40_000, most_unconfirmed=40_000)
    agent, nodes = world.agent, [(0xC6336400 + n).to_bytes(4, "big") for n in range(losing.PEERS + 1)]
    for teid, node in enumerate(nodes, 1):
        agent.handle(uplink(teid, (0x0A010000 + teid).to_bytes(4, "big"), sgw=node), 0.0)
        agent.handle(EchoResponseSeen(node, 1, None, Side.SGW), 0.0)
    assert agent.handle(EchoResponseSeen(nodes[0], 2, None, Side.SGW), 0.0) == []
    assert DropTunnel in kinds(agent.handle(EchoResponseSeen(nodes[2], 2, None, Side.SGW), 0.0))


def test_a_peer_that_restarts_all_the_time_is_not_believed(world):
    world.paired()
    world.say(EchoResponseSeen(SGW, 1, None, Side.SGW))
    world.say(EchoResponseSeen(SGW, 2, None, Side.SGW))
    world.paired()
    assert world.say(EchoResponseSeen(SGW, 1, None, Side.SGW)) == []
    assert world.agent.counts["echo_recovery_too_often"] == 1
    world.now += losing.RESTART_S
    assert DropTunnel in kinds(world.say(EchoResponseSeen(SGW, 1, None, Side.SGW)))


def test_an_echo_response_from_the_side_where_its_sender_cannot_be_changes_nothing(world):
    world.paired()
    for recovery in (1, 2):
        assert world.say(EchoResponseSeen(SGW, recovery, None, Side.ENB)) == []
        assert world.say(EchoResponseSeen(ENB, recovery, None, Side.SGW)) == []
    assert world.agent.counts["echo_response_wrong_side"] == 4


def test_nobody_s_address_can_be_a_ue_s(world):
    world.say(ServiceAdded(Service("video", ip_address("198.51.100.10"), ip_address("192.168.50.10"))))
    service = ip_address("198.51.100.10").packed
    assert world.say(uplink(ue=service)) == []
    assert world.say(downlink(ue=service)) == []
    assert PutTunnel in kinds(world.say(uplink(2, UE, to=service)))
    assert world.agent.counts["refused_address"] == 2


def test_a_source_that_the_core_never_spoke_to_stops_nobody(world):
    """A spoofer names a popular server as its source: packets to that server are no forwarding for it."""
    server = bytes((8, 8, 4, 4))
    world.say(uplink(66, server))
    assert PutTunnel in kinds(world.say(uplink(1, UE, to=server)))


def test_idle_tunnels_are_purged_together_with_their_pair_only(world):
    up, down = world.paired()
    assert world.say(TunnelsIdle(frozenset({up.index, 999}))) == []
    assert world.say(TunnelsIdle(frozenset({down.index}))) == []
    commands = world.say(TunnelsIdle(frozenset({up.index, down.index})))
    assert kinds(commands).count(DropTunnel) == 2
    assert world.path.table == {}
    assert pristine(world.sessions)


def test_an_idle_downlink_that_is_only_a_guess_is_purged(world):
    up, old = world.paired()
    new, _ = world.hear(downlink(3))
    assert world.peer(up) == old.index
    world.say(TunnelsIdle(frozenset({old.index})))
    assert world.peer(up) == new.index


def test_an_idle_bearer_whose_uplink_is_exactly_its_own_stays(world):
    up, _ = world.hear(uplink())
    world.say(downlink(3))
    world.say(downlink(2))
    (ping,) = world.pings()
    down, _ = world.hear(downlink(2, token=ping.token))
    assert up.exactly_paired
    assert world.say(TunnelsIdle(frozenset({down.index}))) == []


def test_a_tunnel_that_the_data_path_refused_is_not_known(world):
    up, down = world.paired()
    world.say(TunnelRefused(down.index))
    assert world.sessions.get(down.key) is None
    assert world.peer(up) == 0
    assert world.say(TunnelRefused(down.index)) == []


# Bounds


def test_an_evicted_tunnel_is_asked_no_more():
    world = World(most_unconfirmed=4)
    for teid in range(1, 20):
        world.say(uplink(teid, bytes((10, 0, 1, teid))))
    assert len(world.sessions) == 4
    assert len(world.pings()) == 4
    for teid in range(20, 40):
        world.say(uplink(teid, bytes((10, 0, 1, teid))))
    assert len(world.agent.ping_routes) == 0


def test_a_full_table_leaves_packets_to_the_bridge():
    world = World(most=2)
    world.paired()
    assert world.say(uplink(5, UE2)) == []
    assert world.say(downlink(6, UE2)) == []


def test_an_answer_that_finds_no_room_is_still_not_the_ue_s_to_see():
    world = World(most=3, most_unconfirmed=1)
    world.paired()
    world.say(uplink(5, UE2))
    (ping,) = world.pings()
    assert DropPacket in kinds(world.say(downlink(6, UE2, token=ping.token)))


# Restart of the agent


def test_a_restarted_agent_takes_over(world):
    up, down = world.paired()
    world.say(uplink(5, UE2))
    (old_ping,) = world.pings()
    before = dict(world.path.table), dict(world.path.peers), dict(world.path.defaults)
    world.start()
    world.say(
        TunnelsAdopted(world.path.adopt(), (AdoptedService("video", 77, 77),), world.path.adopt_tokens())
    )
    assert (world.path.table, world.path.peers, world.path.defaults) == before
    assert world.peer(up) == down.index
    assert kinds(world.say(downlink(6, UE2, token=old_ping.token))) == [DropPacket]
    (ping,) = world.pings()
    assert ping.ue == UE2
    world.say(ServiceAdded(Service("video", ip_address("198.51.100.10"), ip_address("192.168.50.10"))))
    world.say(NextHopChanged(ip_address("192.168.50.10"), b"\x02" * 6))
    assert world.agent.services.routes[0].service_id == 77


def test_a_tunnel_found_without_owner_is_taken_over_and_not_asked_through(world):
    key = TunnelKey(ENB, SGW, 1)
    world.path.table, world.path.peers = {}, {}
    found = AdoptedTunnel(key, 5, 5, Direction.UPLINK, (), Form(), False, 0)
    assert world.agent.handle(TunnelsAdopted((found,)), 0.0) == []
    assert world.sessions.get(key).index == 5


# Services


def test_probes_and_whole_policies_converge_when_they_change_something(world):
    app = ip_address("192.168.50.10")
    video = Service("video", ip_address("198.51.100.10"), app, health=HealthCheck(ProbeKind.TCP, 80))
    assert world.say(ServicesReplaced((video,))) == [Converge(1)]
    assert world.say(NextHopChanged(app, b"\x02" * 6)) == [Converge(2)]
    assert world.say(ApplicationProbed("video", app, True)) == [Converge(3)]
    assert world.say(ApplicationProbed("video", app, True)) == []
    assert world.say(ApplicationProbed("nobody", app, False)) == []
    with pytest.raises(Conflict):
        world.say(ServicesReplaced((video, replace(video, name="other"))))
    assert world.agent.services.catalog.services == (video,)
    assert world.say(ServicesReplaced(())) == [Converge(4)]


def test_services_converge_and_refusals_change_nothing(world):
    app = ip_address("192.168.50.10")
    video = Service("video", ip_address("198.51.100.10"), app)
    assert world.say(ServiceAdded(video)) == [Converge(1)]
    with pytest.raises(Conflict):
        world.say(ServiceAdded(video))
    assert world.agent.revision == 1
    assert world.say(NextHopChanged(app, b"\x02" * 6)) == [Converge(2)]
    assert world.say(NextHopChanged(app, b"\x02" * 6)) == []
    assert world.say(ServiceReplaced("video", Service("film", video.service_ip, app))) == [Converge(3)]
    assert world.say(ServiceRemoved("film")) == [Converge(4)]


# Anything, in any order


def test_an_answer_whose_tunnel_takes_the_place_of_the_one_that_asked():
    """Unanswered tunnels are so many that the answer to one finds room at its expense alone."""
    world = World(most=10, most_unconfirmed=4, at_once=2, attempts=2)
    world.say(uplink(2, UE))
    world.say(downlink(1, UE, sgw=SGW2))
    world.say(uplink(1, UE))
    world.say(uplink(3, UE))
    asking = next(iter(world.sessions))
    world.say(ForeignSourceSeen(asking.index, UE2))
    (ping,) = world.pings()
    assert ping.index == asking.index
    world.say(downlink(1, ping.ue, token=ping.token))
    assert world.sessions.at(asking.index) is None
    assert world.sessions.get(TunnelKey(SGW, ENB, 1)) is not None


class Anything(RuleBasedStateMachine):
    """Whatever is seen in whatever order, World.say checks what must hold; at the end nothing is left."""

    teids, ues = st.integers(1, 4), st.sampled_from([UE, UE2, UE3, UE_V6, UE2_V6])
    enbs, sgws = st.sampled_from([ENB, ENB2]), st.sampled_from([SGW, SGW2])
    waits = st.sampled_from([0.0, 0.02, 0.5, 1.0, 20.0])

    def __init__(self):
        super().__init__()
        self.w = World(most=10, most_unconfirmed=4, at_once=2, attempts=2)
        self.sent = []

    def tunnel(self, number):
        tunnels = list(self.w.sessions)
        return tunnels[number % len(tunnels)] if tunnels else None

    @rule(teid=teids, ue=ues, enb=enbs, sgw=sgws, to=ues)
    def up(self, teid, ue, enb, sgw, to):
        self.w.say(uplink(teid, ue, enb, sgw, to=to if teid == 4 else TARGET))

    @rule(teid=teids, ue=ues, enb=enbs, sgw=sgws)
    def down(self, teid, ue, enb, sgw):
        self.w.say(downlink(teid, ue, enb, sgw))

    @rule(wait=waits)
    def time_passes(self, wait):
        self.sent += self.w.pings(wait)

    @rule(number=st.integers(0, 50), teid=teids, enb=enbs, sgw=sgws)
    def answer(self, number, teid, enb, sgw):
        if self.sent:
            ping = self.sent[number % len(self.sent)]
            ours = self.w.agent.pinging.recognises(ping.token)
            commands = self.w.say(downlink(teid, ping.ue, enb, sgw, token=ping.token))
            assert (DropPacket in kinds(commands)) == ours

    @rule(number=st.integers(0, 20), ue=ues, up=st.booleans())
    def moved(self, number, ue, up):
        if (tunnel := self.tunnel(number)) is not None:
            self.w.say((ForeignSourceSeen if up else DownlinkMoved)(tunnel.index, ue))

    @rule(number=st.integers(0, 20))
    def ended(self, number):
        tunnel = self.tunnel(number)
        if tunnel is not None and not tunnel.uplink:
            self.w.path.end(tunnel.key)
            self.w.say(EndMarkerSeen(tunnel.key))

    @rule(node=st.sampled_from([ENB, SGW]), teid=teids, side=st.sampled_from(Side))
    def error(self, node, teid, side):
        self.w.say(ErrorIndicationSeen(node, teid, None, side))

    @rule(node=st.sampled_from([ENB, SGW]), recovery=st.integers(1, 2), side=st.sampled_from(Side))
    def echo(self, node, recovery, side):
        self.w.say(EchoResponseSeen(node, recovery, None, side))

    @rule(ue=ues, via=st.integers(0, 20))
    def held(self, ue, via):
        tunnel = self.tunnel(via)
        self.w.say(FrameHeld(b"frame", ue, tunnel.index if tunnel and via else 0))

    @rule(number=st.integers(0, 20))
    def returned(self, number):
        if (tunnel := self.tunnel(number)) is not None:
            self.w.say(UplinkReturned(tunnel.index))

    @rule(number=st.integers(0, 20), other=st.integers(0, 20))
    def idle(self, number, other):
        found = [tunnel.index for n in (number, other) if (tunnel := self.tunnel(n)) is not None]
        self.w.say(TunnelsIdle(frozenset(found)))

    @rule()
    def restart(self):
        w = self.w
        before = w.path.adopt()
        w.start()
        w.say(TunnelsAdopted(before, (), w.path.adopt_tokens()))
        assert w.path.adopt() == before

    def teardown(self):
        w = self.w
        w.say(TunnelsIdle(frozenset(t.index for t in w.sessions)))
        assert pristine(w.sessions)
        assert w.agent.ping_routes == ()
        w.now += 60.0
        w.say(Tick())
        assert (w.path.table, w.path.peers, w.path.defaults) == ({}, {}, {})
        assert w.agent.wake_at is None


Anything.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestAnything = Anything.TestCase
