"""The Pinger's schedule, in virtual time."""

from __future__ import annotations

from itertools import count

from tof.agent import pinging as pinging_module
from tof.agent.pinging import GRACE_S, URGENCY, Haste, Pinging, PingPolicy

UE, OTHER = bytes((10, 0, 0, 1)), bytes((10, 0, 0, 2))
UE_V6 = bytes.fromhex("20010db8000100000000000000000007")
TARGET, TARGET_V6 = bytes((8, 8, 8, 8)), bytes.fromhex("20014860486000000000000000008888")


def pinging(**policy):
    return Pinging(PingPolicy((TARGET, TARGET_V6), **policy), count(100))


def test_nothing_to_do_wakes_nobody():
    p = pinging()
    assert p.wake_at is None
    assert (p.due(0.0), p.late(0.0), p.active) == ([], [], ())


def test_a_tunnel_is_asked_at_once_then_every_interval_until_attempts_are_used_up():
    p = pinging(interval_s=1.0, attempts=3)
    p.ask(1, UE, 0.0)
    assert p.wake_at == 0.0
    assert [(ping.index, ping.ue, ping.target, ping.token) for ping in p.due(0.0)] == [(1, UE, TARGET, 100)]
    assert p.wake_at == 1.0
    assert p.due(0.9) == []
    assert [ping.sequence for ping in p.due(1.0)] == [2]
    assert [ping.sequence for ping in p.due(2.0)] == [3]
    assert len(p.active) == 1  # the last answer may still come
    assert p.due(3.0) == []
    assert p.active == ()
    assert not p.pending(1, UE)


def test_asking_again_for_the_same_is_no_new_question():
    p = pinging()
    p.ask(1, UE, 0.0)
    assert p.ask(1, UE, 0.0) is None
    p.due(0.0)
    assert p.ask(1, UE, 0.0) is None


def test_a_family_without_target_is_not_asked():
    p = Pinging(PingPolicy((TARGET,)), count(100))
    assert not p.may_ask(UE_V6)
    assert p.may_ask(UE)
    assert p.ask(1, UE_V6, 0.0) is None
    assert p.wake_at is None


def test_targets_are_chosen_by_family():
    p = pinging()
    p.ask(1, UE_V6, 0.0)
    assert p.due(0.0)[0].target == TARGET_V6


def test_asked_means_that_a_request_went_out():
    p = pinging()
    assert not p.asked(1)
    p.ask(1, UE, 0.0)
    assert (p.pending(1, UE), p.asked(1)) == (True, False)
    p.due(0.0)
    assert (p.pending(1, UE), p.asked(1)) == (True, True)
    p.stop(1, 0.0)
    assert (p.pending(1, UE), p.asked(1)) == (False, False)


def test_only_so_many_at_once_and_the_newest_first():
    p = pinging(at_once=2, attempts=1, interval_s=1.0)
    for index in (1, 2, 3):
        p.ask(index, UE, 0.0)
    assert [ping.index for ping in p.due(0.0)] == [2, 3]
    assert p.wake_at == 1.0
    assert p.due(0.5) == []
    p.stop(3, 0.5)
    assert p.wake_at == 0.0
    assert [ping.index for ping in p.due(0.5)] == [1]
    assert [ping.index for ping in p.active] == [2, 1]


def test_what_somebody_waits_for_has_a_share_of_its_own():
    p = pinging(at_once=3)
    for index in range(10):
        p.ask(index, UE, 0.0)
    p.due(0.0)
    p.ask(20, UE, 0.0, Haste.AWAITED)
    p.ask(0, UE, 0.0, Haste.IN_DOUBT)  # it was waiting without haste
    p.ask(9, UE, 0.0, Haste.IN_DOUBT)  # and this one is being asked
    assert {ping.index for ping in p.due(0.1)} == {20, 0, 6, 9}
    assert {ping.index for ping in p.due(0.1 + URGENCY)} == {0, 9}


def test_a_tunnel_whose_way_changed_does_not_wait_for_its_turn():
    p = pinging()
    p.ask(1, UE, 0.0)
    p.due(0.0)
    p.again(1, 0.1)
    p.again(2, 0.1)
    assert [ping.sequence for ping in p.due(0.1)] == [2]


def test_what_waits_without_haste_is_bounded():
    p = pinging()
    for index in range(pinging_module.WAITING + 2):
        p.ask(index, UE, 0.0)
    assert not p.pending(0, UE)
    assert not p.pending(1, UE)
    assert p.pending(2, UE)
    assert len(p._by_token) == pinging_module.WAITING


def test_a_reply_is_ours_for_a_grace_time_after_the_last_request():
    p = pinging()
    p.ask(1, UE, 0.0)
    (token,) = [ping.token for ping in p.due(0.0)]
    assert p.answered(token).index == 1
    p.stop(1, 0.0)
    assert p.active == ()
    assert p.recognises(token)
    assert p.wake_at == GRACE_S
    assert p.late(GRACE_S - 0.1) == []
    assert p.late(GRACE_S) == [token]
    assert not p.recognises(token)
    assert p.answered(token) is None


def test_a_ping_that_waits_is_replaced_and_nobody_will_answer_it():
    p = pinging()
    p.ask(1, UE, 0.0)
    p.ask(1, OTHER, 0.0)
    assert [ping.ue for ping in p.due(0.0)] == [OTHER]
    assert p.late(GRACE_S) == []
    assert len(p._by_token) == 1


def test_a_ping_under_way_is_replaced_by_the_new_one():
    p = pinging()
    p.ask(1, UE, 0.0)
    (first,) = [ping.token for ping in p.due(0.0)]
    p.ask(1, OTHER, 0.0)
    p.ask(1, OTHER, 0.0)
    assert [ping.ue for ping in p.due(0.2)] == [OTHER]
    assert len(p.active) == 1
    assert p.late(0.2 + GRACE_S) == [first]


def test_stopping_what_only_waits_changes_nothing_active():
    p = pinging()
    p.ask(1, UE, 0.0)
    before = p.changes
    p.stop(1, 0.0)
    p.stop(2, 0.0)
    assert p.changes == before
    assert p.due(0.0) == []
    assert p.wake_at is None


def test_changes_counts_every_change_of_the_active_set():
    p = pinging(attempts=1, interval_s=1.0)
    seen = {p.changes}
    p.ask(1, UE, 0.0)
    assert p.changes in seen
    p.due(0.0)  # enters
    assert p.changes not in seen
    seen.add(p.changes)
    p.due(1.0)  # out of attempts
    assert p.changes not in seen


def test_an_earlier_agent_s_tokens_are_recognised_and_teach_nothing():
    p = pinging()
    p.inherit((7, 8))
    assert p.recognises(7)
    assert p.answered(7) is None
    assert not p.recognises(9)


def test_nothing_is_left_when_all_is_over():
    p = pinging(at_once=4, attempts=2, interval_s=0.5)
    for index in range(20):
        p.ask(index, UE, 0.0)
    gone, now = set(), 0.0
    while (wake := p.wake_at) is not None:
        now = max(now, wake)
        p.due(now)
        gone |= set(p.late(now))
        assert len(p.active) <= 4
    assert len(gone) == 20
    assert not any((p._calm, p._hasty, p._active, p._by_token, p._late))


def test_calm_pings_that_come_to_be_hasty_do_not_lift_the_bound():
    p = pinging(at_once=2)
    for first in (1, 3, 5, 7):
        for index in (first, first + 1):
            p.ask(index, UE, 0.0)
        p.due(0.0)
        for ping in p.active:
            p.ask(ping.index, UE, 0.0, Haste.IN_DOUBT)
        assert len(p.active) <= 4
