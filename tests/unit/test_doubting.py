"""Whose an address is: claims against claims, with the core as the judge. No packet of one UE goes to another."""

from __future__ import annotations

import pytest

from tests.agent_world import (
    ENB,
    ENB2,
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
    uplink,
)
from tof.agent.commands import AMBIGUOUS, DropPacket, PutTunnel, ReleaseFrame, SendPing, SetDoubt, SetSession
from tof.agent.doubting import CONTESTS, DEAF_S, TRUST_S
from tof.agent.events import (
    DownlinkMoved,
    EndMarkerSeen,
    ErrorIndicationSeen,
    ForeignSourceSeen,
    FrameHeld,
    Tick,
    UplinkReturned,
)
from tof.agent.losing import OURS, OURS_S
from tof.agent.pinging import URGENCY, Ping
from tof.model import Side

NOBODY = bytes((224, 0, 0, 9))
UE_OTHER = bytes((10, 0, 0, 99))


@pytest.fixture
def world():
    return World()


def run(world: World, seconds: float, answers=None) -> list:
    """Let time pass in small steps; ``answers`` maps the uplink TEIDs whose pings the core answers to a downlink."""
    said = []
    for _ in range(round(seconds / 0.1)):
        for ping in world.pings(0.1):
            up = world.sessions.at(ping.index)
            if up is not None and (place := (answers or {}).get((up.key.source, up.key.teid))):
                teid, enb, sgw = place
                said += world.say(downlink(teid, ping.ue, enb, sgw, token=ping.token))
    return said


# A second claim to an address


def test_a_second_bearer_of_a_living_ue_costs_its_downlink_one_answer(world):
    up, down = world.paired()
    second, commands = world.hear(uplink(3))
    assert SetDoubt(down.key, down.index, True) in commands
    (ping,) = world.pings()
    assert ping.index == up.index
    assert SetDoubt(down.key, down.index, False) in world.say(downlink(token=ping.token))
    assert world.pings(1.0) == []
    assert world.peer(second) == 0
    third, commands = world.hear(uplink(5))  # trusted for a while
    assert third is not None
    assert not any(isinstance(command, SetDoubt) for command in commands)


def test_an_address_given_to_another_ue_goes_over_with_the_core_s_word(world):
    """Silent detach: the address comes up under other TEIDs, the old ones are with somebody else by now."""
    up, down = world.paired(1, 2)
    new, _ = world.hear(uplink(3))
    world.say(FrameHeld(b"for the address", UE))
    said = run(world, 1.0 + 5 * URGENCY, {(ENB, 3): (4, ENB, SGW)})
    assert world.sessions.get(up.key) is None
    assert world.sessions.get(down.key) is None
    assert world.peer(new) == world.sessions.get(downlink(4).key).index
    assert world.path.defaults == {UE: world.peer(new)}
    assert ReleaseFrame(b"for the address") in said + run(world, 0.2)


def test_an_address_given_to_a_ue_behind_other_nodes_goes_over_too(world):
    world.paired(1, 2)
    new, _ = world.hear(uplink(3, enb=ENB2, sgw=SGW2))
    run(world, 2.0, {(ENB2, 3): (4, ENB2, SGW2)})
    assert [t.key.teid for t in world.sessions] == [3, 4]
    assert world.path.defaults == {UE: world.peer(new)}


def test_two_ues_with_one_address_are_both_confirmed_and_stay_apart(world):
    up, down = world.paired(1, 2)
    twin, _ = world.hear(uplink(3, enb=ENB2, sgw=SGW2))
    run(world, 2.0, {(ENB, 1): (2, ENB, SGW), (ENB2, 3): (4, ENB2, SGW2)})
    assert world.peer(up) == down.index
    assert world.peer(twin) == world.sessions.get(downlink(4, enb=ENB2, sgw=SGW2).key).index
    assert world.path.defaults == {UE: AMBIGUOUS}
    assert world.path.doubted == set()


def test_without_the_core_s_word_neither_claim_is_given_up(world):
    up, down = world.paired(1, 2)
    new, _ = world.hear(uplink(3))
    run(world, 10.0)
    assert {t.index for t in world.sessions} == {up.index, down.index, new.index}
    assert world.path.doubted == set()  # nobody is answered at all: that says nothing about these
    assert world.agent.counts["doubt_unsettled"] == 2
    world.paired(11, 12, UE2)
    world.hear(uplink(13, UE2))
    run(world, 2.0, {(ENB, 11): (12, ENB, SGW)})
    world.now += DEAF_S
    world.hear(uplink(15))
    run(world, 10.0)
    assert world.path.doubted == set()


def test_silence_about_a_tunnel_that_is_forgotten_or_has_no_pair_says_nothing(world):
    world.agent._doubting.unanswered(Ping(999, UE, TARGET, 7), 0.0, [])
    up, _ = world.hear(uplink())
    run(world, 7.0)
    world.say(ForeignSourceSeen(up.index, UE2))
    run(world, 3.0)
    assert world.pings() == []
    assert world.agent.counts["doubt_unsettled"] == 0


def test_while_others_are_answered_silence_keeps_the_doubt(world):
    up, down = world.paired(1, 2)
    world.paired(11, 12, UE2)
    world.hear(uplink(13, UE2))
    run(world, 1.0, {(ENB, 11): (12, ENB, SGW)})
    new, _ = world.hear(uplink(3))
    run(world, 10.0)
    assert world.path.doubted == {down.index}
    assert not world.sessions.guess(new, [])
    world.say(FrameHeld(b"frame", UE))
    assert [ping.index for ping in world.pings()] == [up.index]


def test_a_dedicated_bearer_s_downlink_goes_with_its_ue_only(world):
    world.paired(1, 2)
    dedicated, _ = world.hear(uplink(5))
    run(world, 1.0, {(ENB, 1): (2, ENB, SGW)})
    world.hear(downlink(6))
    world.say(FrameHeld(b"reply", UE, dedicated.index))
    run(world, 1.0, {(ENB, 1): (2, ENB, SGW), (ENB, 5): (6, ENB, SGW)})
    world.now += TRUST_S
    world.hear(uplink(7))
    run(world, 3.0, {(ENB, 5): (6, ENB, SGW)})
    assert sorted(t.key.teid for t in world.sessions) == [5, 6, 7]


# A foreign source


def test_a_foreign_source_casts_doubt_that_the_owner_s_answer_settles(world):
    up, down = world.paired()
    assert SetDoubt(down.key, down.index, True) in world.say(ForeignSourceSeen(up.index, UE2))
    assert world.pings()[0].ue == UE2
    world.say(FrameHeld(b"for the owner", UE, up.index))
    (ping,) = world.pings(0.1)
    assert ping.ue == UE
    commands = world.say(downlink(token=ping.token))
    assert SetDoubt(down.key, down.index, False) in commands
    assert ReleaseFrame(b"for the owner") in commands
    assert world.agent.counts["owner_reconfirmed"] == 1
    assert world.say(ForeignSourceSeen(up.index, UE3)) == [SetDoubt(down.key, down.index, False)]


def test_candidates_are_asked_for_once_in_a_while(world):
    up, down = world.paired()
    world.say(ForeignSourceSeen(up.index, UE2))
    run(world, 9.0)
    calm = [SetDoubt(down.key, down.index, False)]
    assert world.say(ForeignSourceSeen(up.index, UE2)) == calm
    assert world.say(ForeignSourceSeen(up.index, UE3)) == calm
    world.now += DEAF_S
    world.say(ForeignSourceSeen(up.index, UE2))
    assert [ping.ue for ping in world.pings()] == [UE2]
    assert world.agent.counts["candidate_asked"] == 2


def test_after_an_unanswered_candidate_the_owner_is_asked(world):
    up, down = world.paired()
    world.say(ForeignSourceSeen(up.index, UE2))
    asked = [ping.ue for _ in range(12) for ping in world.pings(0.1)]
    assert {UE, UE2} == set(asked)
    assert world.path.doubted == {down.index}
    world.say(FrameHeld(b"frame", UE, up.index))
    said = run(world, 4.0)
    assert ReleaseFrame(b"frame") in said or world.path.doubted == set()
    assert world.agent.counts["doubt_unsettled"] == 1


def test_when_neither_the_candidate_nor_the_owner_is_answered_the_owner_keeps_the_tunnel(world):
    other, _ = world.paired(11, 12, UE3)
    world.say(ForeignSourceSeen(other.index, UE_OTHER))
    run(world, 2.0, {(ENB, 11): (12, ENB, SGW)})
    up, down = world.paired()
    world.say(ForeignSourceSeen(up.index, UE2))
    run(world, 1.5)
    assert world.path.doubted == {down.index}
    run(world, 3.0)
    assert world.path.doubted == set()
    assert (up.ues, world.peer(up)) == ((UE,), down.index)


def test_a_confirmed_candidate_takes_the_tunnel_and_its_doubt(world):
    up, down = world.paired()
    world.say(ForeignSourceSeen(up.index, UE2))
    (ping,) = world.pings()
    world.say(downlink(ue=UE2, token=ping.token))
    assert (up.ues, down.ues) == ((UE2,), (UE2,))
    assert world.peer(up) == down.index
    assert world.path.doubted == set()
    assert world.agent.counts["candidate_confirmed"] == 1


def test_a_downlink_that_moves_is_in_doubt_no_more(world):
    up, down = world.paired()
    world.say(ForeignSourceSeen(up.index, UE2))
    world.say(DownlinkMoved(down.index, UE3))
    assert world.path.doubted == set()
    assert world.agent.counts["tunnel_moved"] == 1


def test_a_doubt_of_the_data_path_alone_is_asked_about(world):
    """Its event was lost: the frames that it holds back say so."""
    up, down = world.paired()
    for via in (up.index, down.index):
        commands = world.say(FrameHeld(b"frame", UE, via, doubted=True))
        assert SetDoubt(down.key, down.index, True) in commands
        (ping,) = world.pings()
        assert ReleaseFrame(b"frame") in world.say(downlink(token=ping.token))
    lone, _ = world.hear(uplink(31, UE3))
    world.say(FrameHeld(b"frame", UE3, lone.index, doubted=True))
    assert world.path.doubted == set()


def test_an_answer_for_a_newer_claim_does_not_clear_the_older_one(world):
    up, down = world.paired(1, 2)
    new, _ = world.hear(uplink(3))
    world.say(FrameHeld(b"reply", UE, new.index))
    run(world, 2.0, {(ENB, 3): (4, ENB, SGW)})
    assert world.sessions.get(up.key) is None
    assert world.sessions.get(down.key) is None


def test_a_spoofer_whom_a_careless_core_answers_does_not_take_a_living_ue_s_address(world):
    """The answer comes down in the tunnel of the UE whose address was taken: that UE is asked first."""
    world.paired(1, 2)
    up, down = world.paired(11, 12, UE2)
    spoofer = world.sessions.get(uplink(1).key)
    world.say(ForeignSourceSeen(spoofer.index, UE2))
    said = run(world, 2.0, {(ENB, 1): (12, ENB, SGW), (ENB, 11): (12, ENB, SGW)})
    assert said
    assert (spoofer.ues, up.ues) == ((UE,), (UE2,))
    assert world.peer(up) == down.index
    assert world.path.doubted == {world.peer(spoofer)} or not world.path.doubted
    assert world.agent.counts["candidate_contested"] >= 1


def test_a_ue_whose_address_is_with_another_now_loses_it_to_the_candidate(world):
    world.paired(1, 2)
    gone, down = world.paired(11, 12, UE2)
    heir = world.sessions.get(uplink(1).key)
    world.say(ForeignSourceSeen(heir.index, UE2))
    run(world, 4.0, {(ENB, 1): (12, ENB, SGW)})
    assert world.sessions.get(gone.key) is None
    assert heir.ues == (UE2,)
    assert world.sessions.get(down.key).ues == (UE2,)
    assert world.peer(heir) == world.sessions.get(down.key).index


def test_contests_are_bounded():
    world = World(most=10_000, most_unconfirmed=10_000, at_once=5000)
    agent = world.agent
    ues = [(0x0A010000 + n).to_bytes(4, "big") for n in range(2 * CONTESTS + 4)]
    for n, ue in enumerate(ues, 1):
        agent.handle(uplink(n, ue), 0.0)
        agent.handle(downlink(n, ue), 0.0)
    half = CONTESTS + 1
    for n in range(half):
        agent.handle(ForeignSourceSeen(agent.sessions.get(uplink(n + 1).key).index, ues[half + n]), 0.0)
    pings = [command for command in agent.handle(Tick(), 0.0) if isinstance(command, SendPing)]
    for n, ping in enumerate(sorted(pings, key=lambda one: one.index)):
        agent.handle(downlink(half + n + 1, ping.ue, token=ping.token), 0.0)
    assert len(agent._doubting._contests) == CONTESTS


def test_a_source_that_is_nobody_s_leaves_the_tunnel_to_its_owner(world):
    """The data path doubts at once what it cannot tell from a UE's address: a service's, say."""
    up, down = world.paired()
    commands = world.say(ForeignSourceSeen(up.index, NOBODY))
    assert commands[0] == SetDoubt(down.key, down.index, False)
    assert world.pings() == []
    world.say(ForeignSourceSeen(up.index, UE2))
    assert not any(isinstance(c, SetDoubt) for c in world.say(ForeignSourceSeen(up.index, NOBODY)))
    assert world.path.doubted == {down.index}


# Handover


def test_during_a_handover_replies_wait_for_the_core_s_word_and_no_longer_than_their_patience(world):
    _, old = world.paired()
    moved, _ = world.hear(uplink(enb=ENB2))
    world.say(FrameHeld(b"reply", UE, moved.index))
    said = run(world, 0.7)
    assert ReleaseFrame(b"reply") in said or world.peer(moved) == old.index
    assert world.peer(moved) == old.index


def test_an_answer_down_the_old_way_is_used_until_the_new_one_shows(world):
    _, old = world.paired()
    moved, _ = world.hear(uplink(enb=ENB2))
    (ping,) = world.pings()
    world.say(downlink(token=ping.token))
    assert world.peer(moved) == old.index
    assert world.pings(1.0)[0].index == moved.index
    new, _ = world.hear(downlink(9, enb=ENB2))
    assert world.peer(moved) == new.index
    assert world.path.defaults == {UE: new.index}


def test_an_end_marker_down_the_old_way_asks_at_once(world):
    _, old = world.paired()
    moved, _ = world.hear(uplink(enb=ENB2))
    world.say(downlink(token=world.pings()[0].token))
    run(world, 7.0)
    world.say(EndMarkerSeen(old.key))
    assert world.peer(moved) == 0
    (ping,) = world.pings()
    new, _ = world.hear(downlink(9, enb=ENB2, token=ping.token))
    assert world.peer(moved) == new.index


def test_a_handover_seen_downlink_first_is_asked_for_through_the_old_uplink(world):
    up, _ = world.paired()
    new, _ = world.hear(downlink(9, enb=ENB2))
    world.say(FrameHeld(b"app speaks", UE))
    (ping,) = world.pings()
    assert ping.index == up.index
    commands = world.say(downlink(9, enb=ENB2, token=ping.token))
    assert ReleaseFrame(b"app speaks") in commands
    assert world.peer(up) == new.index
    assert world.path.defaults == {UE: new.index}


def test_a_ue_that_comes_back_is_asked_for(world):
    up, _ = world.paired()
    moved, _ = world.hear(uplink(enb=ENB2))
    new, _ = world.hear(downlink(9, enb=ENB2))
    commands = world.say(UplinkReturned(up.index))
    assert (up.left, moved.left) == (False, True)
    assert SetDoubt(new.key, new.index, True) in commands
    (ping,) = world.pings()
    assert ping.index == up.index
    again, _ = world.hear(downlink(7, token=ping.token))
    assert world.peer(up) == world.peer(moved) == again.index
    assert world.say(UplinkReturned(up.index)) == []
    assert world.say(UplinkReturned(999)) == []


def test_a_return_before_any_downlink_is_known_asks_only(world):
    up, _ = world.hear(uplink())
    world.hear(uplink(enb=ENB2))
    world.say(UplinkReturned(up.index))
    assert {ping.index for ping in world.pings()} >= {up.index}


def test_sgw_relocation(world):
    _, old = world.paired()
    moved, _ = world.hear(uplink(21, sgw=SGW2))
    run(world, 2.0, {(ENB, 21): (22, ENB, SGW2)})
    assert world.sessions.get(old.key) is None
    assert world.path.defaults == {UE: world.peer(moved)}


def test_sgw_relocation_with_a_former_sgw_that_complains(world):
    up, _ = world.paired()
    world.hear(uplink(21, sgw=SGW2))
    world.pings()
    assert DropPacket() in world.say(ErrorIndicationSeen(SGW, 1, None, Side.SGW, frozenset({up.index})))
    assert [t.key.teid for t in world.sessions] == [21]


# Error Indications and End Markers


def test_error_indications_of_one_volley_are_all_held_back(world):
    up, down = world.paired()
    ours = ErrorIndicationSeen(ENB, 2, None, Side.ENB, frozenset({down.index}))
    later = ErrorIndicationSeen(ENB, 2, None, Side.ENB)
    assert DropPacket() in world.say(ours)
    assert world.peer(up) == 0
    assert world.say(later) == [DropPacket()]
    assert world.agent.counts["error_indication_held_back"] == 2
    world.now += OURS_S
    assert world.say(later) == []


def test_an_error_indication_after_the_core_has_spoken_passes(world):
    _, down = world.paired()
    world.say(ErrorIndicationSeen(ENB, 2, None, Side.ENB, frozenset({down.index})))
    world.say(downlink())
    assert DropPacket() not in world.say(ErrorIndicationSeen(ENB, 2, None, Side.ENB))


def test_remembered_volleys_are_bounded():
    world = World(most=2 * OURS, most_unconfirmed=2 * OURS)
    agent = world.agent
    for teid in range(1, OURS + 2):
        agent.handle(downlink(teid, (0x0A010000 + teid).to_bytes(4, "big")), 0.0)
        index = agent.sessions.get(downlink(teid).key).index
        agent.handle(ErrorIndicationSeen(ENB, teid, None, Side.ENB, frozenset({index})), 0.0)
    assert agent.handle(ErrorIndicationSeen(ENB, 1, None, Side.ENB), 0.0) == []
    assert agent.handle(ErrorIndicationSeen(ENB, 2, None, Side.ENB), 0.0) == [DropPacket()]


def test_signals_from_the_wrong_side_change_nothing(world):
    up, down = world.paired()
    world.say(EndMarkerSeen(down.key, Side.ENB))
    world.say(ErrorIndicationSeen(ENB, 2, None, Side.SGW))
    assert not down.ended
    assert world.peer(up) == down.index
    counts = world.agent.counts
    assert (counts["end_marker_wrong_side"], counts["error_indication_wrong_side"]) == (1, 1)


def test_an_uplink_that_the_core_refuses_takes_its_ue_s_downlinks_with_it(world):
    world.paired()
    world.say(ErrorIndicationSeen(SGW, 1, None, Side.SGW))
    assert len(world.sessions) == 0


def test_a_dedicated_uplink_that_the_core_refuses_leaves_the_ue_alone(world):
    up, down = world.paired()
    world.hear(uplink(3))
    world.say(ErrorIndicationSeen(SGW, 3, None, Side.SGW))
    assert {t.index for t in world.sessions} == {up.index, down.index}


# Held frames


def test_a_frame_whose_reply_tunnel_is_known_by_now_is_released_at_the_next_tick(world):
    up, _ = world.paired()
    world.say(FrameHeld(b"frame", UE, up.index))
    assert world.say(Tick()) == [ReleaseFrame(b"frame")]


def test_patience_with_a_tunnel_that_is_forgotten_ends_quietly(world):
    up, _ = world.hear(uplink())
    world.say(FrameHeld(b"frame", UE, up.index))
    world.say(ErrorIndicationSeen(SGW, 1, None, Side.SGW))
    world.now += 1.0
    world.say(Tick())
    assert world.sessions.get(up.key) is None


def test_a_frame_in_a_family_that_its_uplink_does_not_know_waits(world):
    up, _ = world.hear(uplink())
    other, _ = world.hear(uplink(11, UE_V6))
    assert other is not None
    world.say(FrameHeld(b"frame", UE_V6, up.index))
    assert {ping.ue for ping in world.pings()} == {UE, UE_V6}


# A second address family


def test_a_second_family_is_the_ue_s_own_once_the_core_has_spoken_for_both(world):
    up, down = world.paired()
    assert world.say(ForeignSourceSeen(up.index, UE_V6)) == []  # more often the same UE's: no doubt
    (ping,) = world.pings()
    assert ping.ue == UE_V6
    world.say(downlink(ue=UE_V6, token=ping.token))
    world.say(FrameHeld(b"for the first one", UE, up.index, moved=True))
    assert (up.ues, down.ues) == ((UE, UE_V6[:8]), (UE_V6[:8],))
    assert world.path.defaults == {UE_V6[:8]: down.index}
    (ping,) = world.pings()
    assert ping.ue == UE
    assert ReleaseFrame(b"for the first one") in world.say(downlink(token=ping.token))
    assert (up.ues, down.ues) == ((UE, UE_V6[:8]), (UE_V6[:8], UE))
    assert world.path.defaults == {UE: down.index, UE_V6[:8]: down.index}
    assert run(world, 2.0) == []


def test_the_core_s_packets_say_of_both_families_what_its_answers_say(world):
    up, down = world.paired()
    world.say(ForeignSourceSeen(up.index, UE_V6))
    world.say(DownlinkMoved(down.index, UE_V6))
    assert (up.ues, down.ues) == ((UE, UE_V6[:8]), (UE_V6[:8],))
    world.say(DownlinkMoved(down.index, UE))
    assert down.ues == (UE_V6[:8], UE)
    assert world.pings(0.1) == []


def test_tunnels_that_go_to_a_ue_of_the_other_family_are_not_the_former_one_s_too(world):
    up, down = world.paired()
    world.paired(11, 12, UE2)
    world.say(uplink(13, UE2))
    run(world, 1.0, {(ENB, 11): (12, ENB, SGW)})  # pings are answered here
    world.say(ForeignSourceSeen(up.index, UE_V6))
    world.say(downlink(ue=UE_V6, token=world.pings()[0].token))
    assert world.sessions.knows_ue(UE)
    world.say(FrameHeld(b"for the former one", UE, up.index, moved=True))
    assert {ping.ue for _ in range(15) for ping in world.pings(0.1)} == {UE}
    assert (up.ues, down.ues) == ((UE_V6[:8],), (UE_V6[:8],))
    assert not world.sessions.knows_ue(UE)
    assert world.agent.counts["address_given_up"] == 1
    assert ReleaseFrame(b"for the former one") not in run(world, 6.0)


def test_the_former_ue_s_other_bearers_stay_its_own(world):
    up, _ = world.paired()
    dedicated, _ = world.hear(uplink(5))
    run(world, 1.0, {(ENB, 1): (2, ENB, SGW)})
    world.say(ForeignSourceSeen(up.index, UE_V6))
    world.say(downlink(ue=UE_V6, token=world.pings()[0].token))
    run(world, 2.0)
    assert (up.ues, dedicated.ues) == ((UE_V6[:8],), (UE,))


def test_an_older_claim_that_cannot_be_asked_stays_in_doubt():
    world = World(targets=(TARGET_V6,))
    _, down = world.paired()
    world.say(uplink(3))
    assert world.pings() == []
    assert world.path.doubted == {down.index}


def test_the_former_ue_is_answered_elsewhere(world):
    """A core without a check of sources: the address in question is the UE's that has come back under other tunnels."""
    up, down = world.paired()
    world.say(ForeignSourceSeen(up.index, UE_V6))
    world.say(downlink(ue=UE_V6, token=world.pings()[0].token))
    world.say(downlink(8, token=world.pings()[0].token))
    assert (up.ues, down.ues) == ((UE_V6[:8],), (UE_V6[:8],))
    assert world.peer(up) == down.index


def test_where_nobody_of_a_family_is_answered_silence_takes_no_address_away(world):
    up, down = world.paired()
    world.say(DownlinkMoved(down.index, UE_V6))
    assert down.ues == (UE_V6[:8],)
    up_index = up.index
    world.say(ForeignSourceSeen(up_index, UE_V6))
    world.say(downlink(ue=UE_V6, token=next(p.token for p in world.pings() if p.ue == UE_V6)))
    run(world, 3.0)
    assert (up.ues, down.ues) == ((UE, UE_V6[:8]), (UE_V6[:8], UE))
    assert world.agent.counts["doubt_unsettled"] == 1


def test_a_family_without_a_target_stays_beside_the_other():
    world = World(targets=(TARGET_V6,))
    up, down = world.paired()
    world.say(ForeignSourceSeen(up.index, UE_V6))
    world.say(downlink(ue=UE_V6, token=world.pings()[0].token))
    assert (up.ues, down.ues) == ((UE, UE_V6[:8]), (UE, UE_V6[:8]))


def test_an_unused_address_of_the_other_family_is_nobody_s_by_a_packet_alone(world):
    up, _ = world.paired()
    world.say(ForeignSourceSeen(up.index, UE_V6))
    run(world, 8.0)
    assert up.ues == (UE,)
    assert not world.sessions.knows_ue(UE_V6[:8])
    owner, _ = world.paired(3, 4, UE_V6)
    assert owner.ues == (UE_V6[:8],)
    assert world.path.doubted == set()


def test_where_pings_of_its_family_are_answered_a_second_family_casts_doubt(world):
    world.paired(11, 12, UE2_V6)
    world.say(uplink(13, UE2_V6))
    run(world, 1.0, {(ENB, 11): (12, ENB, SGW)})
    up, down = world.paired()
    assert world.say(ForeignSourceSeen(up.index, UE_V6)) == [SetDoubt(down.key, down.index, True)]


def test_another_bearer_of_a_ue_has_both_its_families(world):
    up, _ = world.paired()
    world.say(ForeignSourceSeen(up.index, UE_V6))
    world.say(downlink(ue=UE_V6, token=world.pings()[0].token))
    world.say(downlink(token=world.pings()[0].token))
    dedicated, _ = world.hear(uplink(5))
    world.say(uplink(5, UE_V6))
    assert dedicated.ues == (UE, UE_V6[:8])


def test_another_address_of_the_same_family_has_to_be_confirmed_whoever_has_it(world):
    up, _ = world.paired()
    dedicated, _ = world.hear(uplink(5))
    world.say(ForeignSourceSeen(up.index, UE_V6))
    ping = next(ping for ping in world.pings() if ping.ue == UE_V6)
    world.say(downlink(ue=UE_V6, token=ping.token))
    world.say(ForeignSourceSeen(dedicated.index, UE2))
    assert dedicated.ues == (UE,)
    assert not world.sessions.is_beside(dedicated, UE2)
    assert world.sessions.is_beside(dedicated, UE_V6[:8])


# Handover


def dual(world):
    up, down = world.paired()
    world.say(ForeignSourceSeen(up.index, UE_V6))
    world.say(downlink(ue=UE_V6, token=world.pings()[0].token))
    world.say(downlink(token=world.pings()[0].token))
    return up, down


def test_both_families_of_a_ue_are_handed_over(world):
    up, _ = dual(world)
    new, _ = world.hear(uplink(enb=ENB2))
    world.say(uplink(ue=UE_V6, enb=ENB2))
    assert new.ues == (UE, UE_V6[:8])
    assert (new.session, up.left, new.left) == (up.session, True, False)
    asked = {ping.ue: ping for ping in world.pings()}
    assert set(asked) == {UE, UE_V6}
    for ue in asked:
        world.say(downlink(9, ue, ENB2, token=asked[ue].token))
    assert world.sessions.at(world.peer(new)).ues == (UE, UE_V6[:8])


def test_a_frame_of_the_family_that_is_not_answered_at_the_new_node_is_asked_for(world):
    dual(world)
    new, _ = world.hear(uplink(enb=ENB2))
    world.say(uplink(ue=UE_V6, enb=ENB2))
    asked = {ping.ue: ping for ping in world.pings()}
    world.say(downlink(9, UE, ENB2, token=asked[UE].token))
    world.say(FrameHeld(b"six", UE_V6, new.index, moved=True))
    said = world.say(downlink(9, UE_V6, ENB2, token=asked[UE_V6].token))
    assert ReleaseFrame(b"six") in said
    world.say(FrameHeld(b"crossed", UE_V6, new.index, moved=True))
    assert ReleaseFrame(b"crossed") in world.say(Tick())


def test_a_handover_whose_first_packet_has_a_foreign_source(world):
    up, _ = world.paired()
    leak, _ = world.hear(uplink(ue=UE_OTHER, enb=ENB2))
    assert leak.session != up.session
    _, commands = world.hear(uplink(enb=ENB2))
    assert SetSession(leak.key, up.session) in commands
    assert (leak.ues, leak.session, up.left) == ((UE,), up.session, True)
    assert not world.sessions.knows_ue(UE_OTHER)


def test_a_tunnel_that_the_core_gave_to_another_is_handed_over_with_its_word_alone(world):
    up, _ = world.paired()
    stale, _ = world.paired(1, 9, UE2, ENB2)
    world.say(uplink(13, UE2, ENB2))
    run(world, 1.0, {(ENB2, 1): (9, ENB2, SGW)})
    assert stale.exactly_paired
    world.say(ForeignSourceSeen(stale.index, UE))
    assert (stale.ues, stale.session) == ((UE2,), stale.index)
    said = run(world, 1.0, {(ENB2, 1): (9, ENB2, SGW)})
    assert SetSession(stale.key, up.session) in said
    assert (stale.ues, up.left) == ((UE,), True)


def test_a_stray_packet_through_a_node_that_the_ue_has_left_moves_nothing(world):
    up, _ = world.paired()
    new, _ = world.hear(uplink(enb=ENB2))
    world.say(ForeignSourceSeen(new.index, UE_V6))
    ping = next(ping for ping in world.pings() if ping.ue == UE_V6)
    world.say(downlink(9, UE_V6, ENB2, token=ping.token))
    world.say(ForeignSourceSeen(up.index, UE_V6))
    assert (up.left, new.left) == (True, False)


def test_a_handover_brings_the_default_bearer_whichever_speaks_first(world):
    """It alone is pinged through: some cores end a dedicated bearer in which they find foreign traffic."""
    up, _ = world.paired()
    world.say(uplink(5))
    run(world, 1.0, {(ENB, 1): (2, ENB, SGW)})
    dedicated, commands = world.hear(uplink(5, enb=ENB2))
    default = world.sessions.get(uplink(enb=ENB2).key)
    (put,) = [one for one in commands if isinstance(one, PutTunnel) and one.index == default.index]
    assert (put.like, default.session, default.ues, up.left) == (dedicated.key, up.session, (UE,), True)
    assert [ping.index for ping in world.pings()] == [default.index]
    (context,) = [c for c in world.sessions.contexts_of(UE) if c.pair == default.pair]
    assert context.first is default
    assert world.say(uplink(enb=ENB2)) == []


def test_a_bearer_that_follows_later_brings_nothing_more(world):
    world.paired()
    world.say(uplink(5))
    world.say(uplink(enb=ENB2))
    before = len(world.sessions)
    world.say(uplink(5, enb=ENB2))
    assert len(world.sessions) == before + 1
