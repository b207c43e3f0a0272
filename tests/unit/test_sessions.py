"""The registry of tunnels: there and back, in any order, leaves nothing; nobody is mixed up with anybody."""

from __future__ import annotations

from itertools import permutations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from tests.agent_world import ENB, ENB2, SGW, SGW2, UE, UE2, UE2_V6, UE3, UE_V6, check, pristine
from tof.agent.commands import AMBIGUOUS, DropTunnel, PutTunnel, SetDefault, SetOwners, SetPeer
from tof.agent.registry import LAST_INDEX
from tof.agent.sessions import MOST_BEARERS, MOST_PAIRS, UNUSED_AFTER_RESTART, Sessions
from tof.agent.tunnels import Tunnel, ue_of
from tof.drivers.memory import MemoryEndpoints
from tof.model import Direction, Form, TunnelKey

UP, DOWN = Direction.UPLINK, Direction.DOWNLINK
FORM = Form()


class Registry:
    """Sessions, and a data path that does all it is told."""

    def __init__(self, most: int = 1000, most_unconfirmed: int = 1000) -> None:
        self.sessions = Sessions(most, most_unconfirmed)
        self.path = MemoryEndpoints()
        self.out: list = []

    def up(self, teid: int, ue: bytes = UE, enb: bytes = ENB, sgw: bytes = SGW, vlan=None) -> Tunnel:
        return self.done(self.sessions.learn(UP, TunnelKey(enb, sgw, teid, vlan), ue, FORM, self.out))

    def down(self, teid: int, ue: bytes = UE, enb: bytes = ENB, sgw: bytes = SGW, vlan=None) -> Tunnel:
        return self.done(self.sessions.learn(DOWN, TunnelKey(sgw, enb, teid, vlan), ue, FORM, self.out))

    def call(self, method, *args):
        return self.done(method(*args, self.out))

    def done(self, result):
        for command in self.out:
            self.path.carry_out(command, 0)
        self.last, self.out = self.out, []
        check(self.sessions, self.path)
        return result

    def peer(self, tunnel: Tunnel) -> int:
        return self.path.peers[tunnel.index]


# Learning


@pytest.mark.parametrize("first", ["up", "down"])
def test_an_uplink_and_a_downlink_of_one_ue_pair_in_either_order(first):
    r = Registry()
    if first == "up":
        up, down = r.up(1), r.down(2)
    else:
        down, up = r.down(2), r.up(1)
    assert r.peer(up) == down.index
    assert r.path.defaults == {UE: down.index}


def test_order_of_learning_does_not_matter():
    """Three UEs behind one pair, all with the same TEIDs in both directions elsewhere: any order, one result."""

    def state(order):
        r = Registry()
        for direction, teid, ue, enb in order:
            (r.up if direction is UP else r.down)(teid, ue, enb)
        by_index = {t.index: t.key for t in r.sessions}
        return (
            {t.key: (t.ues, by_index.get(t.peer)) for t in r.sessions},
            {ue: by_index.get(index) for ue, index in r.path.defaults.items()},
        )

    facts = [
        (UP, 1, UE, ENB),
        (DOWN, 1, UE, ENB),
        (UP, 1, UE2, ENB2),
        (DOWN, 1, UE2, ENB2),
        (DOWN, 2, UE3, ENB),
    ]
    results = [state(order) for order in permutations(facts)]
    assert all(result == results[0] for result in results)


def test_learning_twice_is_learning_once():
    r = Registry()
    assert r.up(1) is r.up(1)
    assert r.last == []


def test_the_first_command_puts_the_tunnel():
    r = Registry()
    up = r.up(1)
    assert r.last == [PutTunnel(up.key, 1, 1, UP, (UE,), FORM)]
    down = r.down(2)
    assert r.last[1:] == [SetPeer(up.key, 1, down.index), SetDefault(UE, down.index)]


def test_equal_teids_of_different_nodes_and_vlans_are_different_tunnels():
    r = Registry()
    tunnels = {r.up(1), r.up(1, UE2, ENB2), r.up(1, UE3, vlan=7), r.up(1, UE3, sgw=SGW2), r.down(1)}
    assert len({t.index for t in tunnels}) == 5
    assert set(r.sessions.towards(SGW, 1)) == {t for t in tunnels if t.key.destination == SGW}
    assert [t.direction for t in r.sessions.towards(ENB, 1)] == [DOWN]
    assert r.sessions.towards(ENB2, 1) == ()


def test_addresses_of_nodes_are_kept_once():
    r = Registry()
    first, second, answer = r.up(1), r.up(2, UE2, bytes(ENB), bytes(SGW)), r.down(3)
    other = r.sessions.learn(UP, TunnelKey(bytes(list(ENB)), bytes(list(SGW)), 9, None), UE3, FORM, r.out)
    assert other.key.source is first.key.source is second.key.source is answer.key.destination
    reverse = r.sessions.learn(DOWN, TunnelKey(bytes(list(SGW)), bytes(list(ENB)), 9, None), UE3, FORM, r.out)
    assert reverse.key.source is first.key.destination


# Two bearers


def test_a_dedicated_bearer_is_answered_as_the_core_says_and_the_default_one_s_way_at_a_guess():
    r = Registry()
    default_up, default_down = r.up(1), r.down(2)
    dedicated_up = r.up(3)
    assert r.peer(dedicated_up) == 0
    assert r.call(r.sessions.guess, dedicated_up)
    assert r.peer(dedicated_up) == default_down.index
    dedicated_down = r.down(4)
    assert r.peer(default_up) == default_down.index
    assert r.peer(dedicated_up) == 0
    r.call(r.sessions.pair, dedicated_up, dedicated_down)
    assert r.peer(dedicated_up) == dedicated_down.index
    assert r.peer(default_up) == default_down.index
    assert r.path.defaults == {UE: default_down.index}


def test_the_default_follows_the_first_uplink():
    """After idle mode the eNB gives the default bearer another downlink TEID; no End Marker says so."""
    r = Registry()
    up, old = r.up(1), r.down(2)
    r.call(r.sessions.pair, up, old)
    new = r.down(3)
    assert r.path.defaults == {UE: old.index}
    assert not up.exactly_paired
    r.call(r.sessions.pair, up, new)
    assert r.path.defaults == {UE: new.index}
    r.call(r.sessions.forget, old)
    assert r.peer(up) == new.index


def test_forgetting_a_bearer_leads_to_the_default():
    r = Registry()
    up, default, dedicated_up, dedicated = r.up(1), r.down(2), r.up(3), r.down(4)
    r.call(r.sessions.pair, dedicated_up, dedicated)
    r.call(r.sessions.forget, dedicated)
    assert r.peer(dedicated_up) == 0
    assert not dedicated_up.exactly_paired
    r.call(r.sessions.guess, dedicated_up)
    assert r.peer(dedicated_up) == default.index
    r.call(r.sessions.forget, default)
    assert r.peer(dedicated_up) == r.peer(up) == 0
    assert r.path.defaults == {}


# Dual stack


def test_a_dual_stack_ue_has_one_tunnel_for_both_families():
    r = Registry()
    up, down = r.up(1), r.down(2)
    r.call(r.sessions.own, up, UE_V6)
    assert r.last == [SetOwners(up.key, (UE, UE_V6[:8]))]
    r.call(r.sessions.own, down, UE_V6)
    assert r.path.defaults == {UE: down.index, UE_V6[:8]: down.index}
    assert up.exact == (UE, UE_V6)
    r.call(r.sessions.forget, down)
    assert r.peer(up) == 0
    r.call(r.sessions.forget, up)
    assert r.path.empty
    assert pristine(r.sessions)


def test_the_exact_address_follows_within_the_prefix():
    r = Registry()
    up = r.up(1, UE_V6)
    other = UE_V6[:8] + bytes(7) + b"\x09"
    r.call(r.sessions.own, up, other)
    assert up.exact == (other,)
    assert r.last == []


def test_another_ue_in_the_tunnel_takes_both_families():
    """Addresses live as long as their PDN connection: a new one of either family means another UE."""
    r = Registry()
    up, down = r.up(1), r.down(2)
    for tunnel in (up, down):
        r.call(r.sessions.own, tunnel, UE_V6)
    r.call(r.sessions.own, down, UE2)
    assert down.ues == (UE2,)
    assert r.peer(up) == 0
    assert r.path.defaults == {UE2: down.index}
    r.call(r.sessions.own, up, UE2)
    assert r.peer(up) == down.index


def test_an_uplink_that_changes_hands_is_not_answered_into_its_former_ue_s_tunnel():
    r = Registry()
    up, down = r.up(1), r.down(2)
    r.call(r.sessions.own, up, UE2)
    assert r.peer(up) == 0
    assert r.path.defaults == {UE: down.index}


def test_an_uplink_that_changes_hands_answers_into_its_new_ue_s_tunnel():
    r = Registry()
    up, _ = r.up(1), r.down(2)
    other = r.down(4, UE2)
    r.call(r.sessions.own, up, UE2)
    assert r.peer(up) == other.index


def test_when_one_family_s_downlink_goes_the_other_s_answers():
    """Both lead to the UE; the uplink is paired with one of them at any time."""
    r = Registry()
    up = r.up(1)
    r.call(r.sessions.own, up, UE_V6)
    four, six = r.down(2, UE), r.down(3, UE_V6)
    assert r.peer(up) == four.index
    r.call(r.sessions.forget, four)
    assert r.peer(up) == six.index
    r.call(r.sessions.forget, six)
    assert r.peer(up) == 0


# One address cannot fill the tables


def test_an_address_under_invented_teids_gives_up_its_oldest_but_the_default_and_the_confirmed():
    r = Registry()
    first, down = r.up(1), r.down(2)
    confirmed = r.up(3)
    r.call(r.sessions.pair, confirmed, down)
    for teid in range(100, 100 + 3 * MOST_BEARERS):
        assert r.up(teid) is not None
    ups = [t for t in r.sessions if t.uplink]
    assert len(ups) == MOST_BEARERS
    assert {first, confirmed} <= set(ups)
    assert r.sessions.at(down.index) is down


def test_an_address_behind_invented_pairs_gives_up_those_that_no_core_answered():
    r = Registry()
    up, down = r.up(1), r.down(2)
    for number in range(3 * MOST_PAIRS):
        assert r.up(7, enb=bytes((10, 9, number // 256, number % 256))) is not None
    assert len(list(r.sessions.contexts_of(UE))) == MOST_PAIRS
    assert {up, down} <= set(r.sessions)


def test_an_address_whose_pairs_are_all_answered_takes_no_more():
    r = Registry()
    for number in range(MOST_PAIRS):
        r.down(7, enb=bytes((10, 9, number // 256, number % 256)))
    assert r.sessions.learn(Direction.UPLINK, TunnelKey(ENB, SGW, 1), UE, Form(), []) is None


# Handover, End Marker


def test_handover_keeps_the_session_and_switches_with_the_first_downlink():
    r = Registry()
    up, down = r.up(1), r.down(2)
    moved = r.up(1, enb=ENB2)
    assert moved.session == up.session
    assert r.peer(moved) == 0
    assert r.path.defaults == {UE: down.index}
    new = r.down(9, enb=ENB2)
    assert r.peer(moved) == new.index
    assert r.path.defaults == {UE: new.index}
    assert r.peer(up) == new.index
    assert (up.left, moved.left) == (True, False)


def test_handover_seen_downlink_first_is_ambiguous_until_the_uplink_says_whose_it_is():
    r = Registry()
    r.up(1)
    r.down(2)
    new = r.down(9, enb=ENB2)
    assert r.path.defaults == {UE: AMBIGUOUS}
    r.up(1, enb=ENB2)
    assert r.path.defaults == {UE: new.index}


def test_an_end_marker_leads_away():
    r = Registry()
    up, down = r.up(1), r.down(2)
    r.call(r.sessions.end, down)
    assert r.peer(up) == 0
    assert r.path.defaults == {}
    late = r.up(3)
    assert r.peer(late) == 0
    new = r.down(4)
    assert r.peer(up) == new.index
    assert r.peer(late) == 0


def test_another_ue_in_an_ended_tunnel_does_not_get_paired():
    r = Registry()
    down = r.down(2)
    r.call(r.sessions.end, down)
    up = r.up(1, UE2)
    r.call(r.sessions.own, down, UE2)
    assert r.peer(up) == 0


# Overlapping addresses


def test_overlapping_addresses_are_contexts_of_their_own():
    r = Registry()
    up, down = r.up(1), r.down(2)
    twin_up, twin_down = r.up(5, enb=ENB2, sgw=SGW2), r.down(6, enb=ENB2, sgw=SGW2)
    assert (r.peer(up), r.peer(twin_up)) == (down.index, twin_down.index)
    assert r.path.defaults == {UE: AMBIGUOUS}
    r.call(r.sessions.forget, twin_down)
    assert r.peer(twin_up) == 0
    assert r.path.defaults == {UE: down.index}
    assert len(list(r.sessions.contexts_of(UE))) == 2


def test_the_same_address_on_another_vlan_is_another_ue():
    r = Registry()
    r.up(1), r.down(2)
    twin = r.up(1, vlan=7)
    assert r.peer(twin) == 0


def test_unknown_addresses_have_nothing():
    sessions = Sessions(1, 1)
    assert list(sessions.contexts_of(UE)) == []
    assert sessions.default(UE) == 0
    assert not sessions.knows_ue(UE)
    assert sessions.get(TunnelKey(ENB, SGW, 1)) is None
    assert sessions.at(7) is None


# Bounds


def test_a_flood_of_downlinks_evicts_only_its_own():
    r = Registry(most=100, most_unconfirmed=10)
    up, down = r.up(1), r.down(2)
    for teid in range(100, 160):
        r.down(teid, bytes((10, 7, 0, teid)))
    assert len(r.sessions) == 12
    assert {up, down} <= set(r.sessions)


def test_a_served_address_under_invented_teids_fills_its_share_and_no_more():
    """Every one of them looks answered, as the UE behind the address is; that confirms none of them."""
    r = Registry(most=100, most_unconfirmed=8)
    up, down = r.up(1), r.down(2)
    for teid in range(100, 112):
        r.call(r.sessions.guess, r.up(teid))
    assert len(r.sessions) == 10
    assert {up, down} <= set(r.sessions)


def test_a_flood_of_unconfirmed_uplinks_evicts_only_its_own():
    r = Registry(most=100, most_unconfirmed=10)
    up, down = r.up(1), r.down(2)
    for teid in range(100, 160):
        r.up(teid, UE2)
    assert len(r.sessions) == 12
    assert r.sessions.get(up.key) is up
    assert r.sessions.get(down.key) is down


def test_a_full_table_gives_way_only_where_unconfirmed():
    r = Registry(most=4, most_unconfirmed=4)
    r.up(1), r.down(2), r.up(3, UE2)
    fresh = r.up(5, UE3)
    assert r.up(6, UE3).index > fresh.index
    assert r.sessions.get(TunnelKey(ENB, SGW, 3)) is None
    assert r.down(7, UE3) is not None
    assert r.sessions.learn(UP, TunnelKey(ENB, SGW, 8), UE3, FORM, []) is None
    assert len(r.sessions) == 4


def test_indices_wrap_without_meeting_one_in_use():
    r = Registry()
    kept = r.up(1)
    r.sessions._next = LAST_INDEX
    assert r.up(2, UE2).index == LAST_INDEX
    assert r.up(3, UE3).index == 2
    r.sessions._next = LAST_INDEX
    assert r.up(4, UE3).index == 3
    assert kept.index == 1


# Restart


def test_an_agent_that_restarts_finds_everything_as_it_was():
    r = Registry()
    up, down = r.up(1), r.down(2)
    for tunnel in (up, down):
        r.call(r.sessions.own, tunnel, UE_V6)
    dedicated_up, dedicated = r.up(3), r.down(4)
    r.call(r.sessions.pair, dedicated_up, dedicated)
    ended = r.down(8, UE2)
    r.call(r.sessions.end, ended)
    r.path.end(ended.key)
    lone = r.up(9, UE3, ENB2)
    before = r.path.adopt(), dict(r.path.defaults)
    r.sessions = Sessions(1000, 1000)
    r.call(r.sessions.adopt, r.path.adopt())
    assert (r.path.adopt(), r.path.defaults) == before
    assert {type(command) for command in r.last} == {SetDefault}
    assert r.sessions.get(ended.key).ended
    assert r.sessions.get(up.key).exact[1][:8] == UE_V6[:8]
    assert list(r.sessions._unconfirmed) == [ended.index, lone.index]
    assert r.up(77, UE2, ENB2).index >= lone.index + UNUSED_AFTER_RESTART


def test_a_wrong_pairing_found_at_start_is_put_right():
    r = Registry()
    up, down = r.up(1), r.down(2)
    other = r.down(4, UE2)
    r.path.peers[up.index] = other.index
    r.sessions = Sessions(1000, 1000)
    r.call(r.sessions.adopt, r.path.adopt())
    assert r.last[0] == SetPeer(up.key, up.index, down.index)


def test_forgetting_drops_last():
    r = Registry()
    up, down = r.up(1), r.down(2)
    r.call(r.sessions.forget, down)
    assert r.last == [SetPeer(up.key, up.index, 0), SetDefault(UE, 0), DropTunnel(down.key, down.index)]
    r.call(r.sessions.forget, up)
    assert r.last == [DropTunnel(up.key, up.index)]
    assert pristine(r.sessions)


# There and back


class ThereAndBack(RuleBasedStateMachine):
    """Anything that may happen, in any order; then everything is forgotten."""

    tunnels = Bundle("tunnels")
    addresses = st.sampled_from([UE, UE2, UE3, UE_V6, UE2_V6])

    def __init__(self):
        super().__init__()
        self.r = Registry(most=12, most_unconfirmed=4)

    @rule(
        target=tunnels,
        up=st.booleans(),
        teid=st.integers(1, 4),
        ue=addresses,
        enb=st.sampled_from([ENB, ENB2]),
        sgw=st.sampled_from([SGW, SGW2]),
    )
    def learn(self, up, teid, ue, enb, sgw):
        tunnel = (self.r.up if up else self.r.down)(teid, ue, enb, sgw)
        return multiple() if tunnel is None else tunnel

    def now(self, tunnel):
        """The tunnel under the same key, which after a restart is another object; None if forgotten."""
        return self.r.sessions.get(tunnel.key)

    @rule(tunnel=tunnels, ue=addresses)
    def own(self, tunnel, ue):
        if (tunnel := self.now(tunnel)) is not None:
            self.r.call(self.r.sessions.own, tunnel, ue)
            assert ue_of(ue) in tunnel.ues

    @rule(up=tunnels, down=tunnels)
    def pair(self, up, down):
        up, down = self.now(up), self.now(down)
        if up is None or down is None or not up.uplink or down.uplink or down.ended:
            return
        if up.pair == down.pair and set(up.ues) & set(down.ues):
            self.r.call(self.r.sessions.pair, up, down)
            assert self.r.peer(up) == down.index

    @rule(tunnel=tunnels)
    def end(self, tunnel):
        if (tunnel := self.now(tunnel)) is not None and not tunnel.uplink:
            self.r.call(self.r.sessions.end, tunnel)
            self.r.path.end(tunnel.key)

    @rule(tunnel=consumes(tunnels))
    def forget(self, tunnel):
        if (tunnel := self.now(tunnel)) is not None:
            self.r.call(self.r.sessions.forget, tunnel)

    @rule()
    def restart(self):
        before = self.r.path.adopt()
        self.r.sessions = Sessions(12, 4)
        self.r.call(self.r.sessions.adopt, before)
        assert self.r.path.adopt() == before

    @invariant()
    def within_bounds(self):
        assert len(self.r.sessions) <= 12

    def teardown(self):
        for tunnel in list(self.r.sessions):
            self.r.call(self.r.sessions.forget, tunnel)
        assert self.r.path.empty
        assert pristine(self.r.sessions)


ThereAndBack.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestThereAndBack = ThereAndBack.TestCase
