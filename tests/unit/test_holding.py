"""Frames from apps that wait: bounded per UE, in UEs and in time."""

from __future__ import annotations

from tof.agent.holding import HOLD_S, PER_UE, UES, Holding

UE, OTHER = bytes((10, 0, 0, 1)), bytes((10, 0, 0, 2))


def test_frames_come_back_in_order_and_once():
    h = Holding()
    assert h.hold(UE, b"one", 0.0)
    assert h.hold(UE, b"two", 1.0)
    assert h.release(UE) == [b"one", b"two"]
    assert h.release(UE) == []
    assert h.wake_at is None


def test_a_ue_has_its_share():
    h = Holding()
    assert all(h.hold(UE, b"frame", 0.0) for _ in range(PER_UE))
    assert not h.hold(UE, b"too many", 0.0)
    assert h.hold(OTHER, b"frame", 0.0)
    assert h.expired == 1
    assert len(h.release(UE)) == PER_UE


def test_the_longest_waiting_ue_gives_way():
    h = Holding()
    for number in range(UES):
        h.hold(number.to_bytes(4, "big"), b"frame", float(number))
    h.hold(UE, b"frame", float(UES))
    assert h.expired == 1
    assert h.release(bytes(4)) == []
    assert h.release(UE) == [b"frame"]


def test_frames_expire():
    h = Holding()
    h.hold(UE, b"frame", 1.0)
    h.hold(OTHER, b"frame", 2.0)
    assert h.wake_at == 1.0 + HOLD_S
    assert h.due(1.0 + HOLD_S) == []
    assert h.expired == 1
    assert h.wake_at == 2.0 + HOLD_S
    assert h.release(OTHER) == [b"frame"]


def test_frames_that_crossed_with_their_tunnel_are_due_at_the_next_tick():
    h = Holding()
    h.hold(UE, b"frame", 0.0)
    h.hold(OTHER, b"waits", 0.0)
    h.answered(UE)
    assert h.wake_at == 0.0
    assert h.due(0.02) == [b"frame"]
    assert h.due(0.04) == []
    assert h.wake_at == HOLD_S
    assert h.expired == 0
