"""The learner fed with real captures, in capture order, ends with exactly the tunnels and UEs they hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.agent_world import World, check
from tof.agent.observe import observe
from tof.errors import DecodeError
from tof.lab import capture, rewrite, verdict
from tof.lab.learner import several_ues
from tof.wire import inet

PCAPS = Path(__file__).resolve().parents[3] / "shared" / "pcaps"
CAPTURES = sorted(PCAPS.glob("*/*.pcap*"))
pytestmark = pytest.mark.skipif(not CAPTURES, reason="../shared/pcaps is not there")


def sent(path):
    frames = capture.read(path)
    sides = rewrite.sides(frames, rewrite.find_enbs(frames))
    return [verdict.Sent(frame, side) for frame, side in zip(frames, sides, strict=True)]


def feed(world, packets):
    """Every packet as the slow lane shows it: known tunnels' packets do not come."""
    for frame, side in packets:
        try:
            ethernet = inet.decode_ethernet(frame.data)
            event = None if frame.cut else observe(side, ethernet.payload, ethernet.vlan, cut=True)
        except DecodeError:
            continue
        if event is not None:
            world.say(event)


@pytest.mark.parametrize("path", CAPTURES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_the_learner_ends_with_the_capture_s_tunnels(path):
    world, packets = World(), sent(path)
    expected = verdict.expected_tunnels(packets)
    feed(world, packets)
    held = {tunnel.key: frozenset(tunnel.ues) for tunnel in world.sessions}
    assert held.keys() == expected.keys()
    ambiguous = {(c.source, c.teid) for c in several_ues(expected)}
    if not ambiguous:
        assert held == expected
    assert all(held[key] <= expected[key] for key in held)


def test_one_agent_learns_all_captures_one_after_the_other():
    world = World()
    for path in CAPTURES:
        feed(world, sent(path))
    wanted = {key for path in CAPTURES for key in verdict.expected_tunnels(sent(path))}
    assert {tunnel.key for tunnel in world.sessions} == wanted
    check(world.sessions, world.path)
