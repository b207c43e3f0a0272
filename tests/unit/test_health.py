"""Which applications live, as their probes say."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest

from tof.agent.health import Health
from tof.model import HealthCheck, Mode, ProbeKind, Selection, Service, Spread

CHECK = HealthCheck(ProbeKind.TCP, port=80, fall=3, rise=2)
VIDEO = Service("video", ip_address("198.51.100.10"), ip_address("192.168.50.10"), health=CHECK)
PLAIN = replace(VIDEO, name="plain", health=None)


@pytest.fixture
def health():
    one = Health()
    one.keep([VIDEO, PLAIN])
    return one


APP = VIDEO.application_ip


def say(health, *answers, name="video", application=APP):
    """Whether each probe changed anything."""
    return [health.checked(name, application, answered=answer) for answer in answers]


def test_whom_nobody_asks_lives(health):
    assert health.lives("plain", APP)
    assert health.asked("plain", APP)
    assert say(health, False, False, False, False, name="plain") == [False] * 4
    assert health.lives("nobody", APP)


def test_the_first_answer_is_enough_to_begin_with(health):
    assert not health.lives("video", APP)
    assert not health.asked("video", APP)
    assert say(health, True) == [True]
    assert health.lives("video", APP)
    assert health.asked("video", APP)


def test_the_first_silence_says_that_it_was_asked(health):
    assert say(health, False) == [False]
    assert health.asked("video", APP)
    assert not health.lives("video", APP)
    assert say(health, True, True) == [False, True]


def test_it_dies_after_as_many_failures_in_a_row_and_lives_after_as_many_answers(health):
    say(health, True)
    assert say(health, False, False, True, False, False) == [False] * 5
    assert say(health, False) == [True]
    assert say(health, False, True, False, True) == [False] * 4
    assert say(health, True) == [True]
    assert health.lives("video", APP)


@pytest.mark.parametrize(
    "change",
    [
        {"application_ip": ip_address("192.168.50.11")},
        {"health": replace(CHECK, port=81)},
        {"application_port": 8080},
        {"selection": Selection(protocol=6)},
    ],
)
def test_what_is_asked_elsewhere_begins_anew(health, change):
    say(health, True)
    changed = replace(VIDEO, **change)
    health.keep([changed])
    assert not health.lives("video", changed.application_ip)


def test_what_stays_the_same_goes_on(health):
    say(health, True)
    health.keep([replace(VIDEO, priority=5), PLAIN])
    assert health.lives("video", APP)
    health.keep([])
    health.keep([VIDEO])
    assert not health.lives("video", APP)


def test_a_shadow_is_not_asked(health):
    health.keep([replace(VIDEO, mode=Mode.SHADOW)])
    assert health.lives("video", APP)


def test_what_was_diverted_when_the_agent_started_lives_until_probes_say_no():
    health = Health()
    health.inherit([("video", None)])
    health.keep([VIDEO])
    assert health.lives("video", APP)
    assert health.asked("video", APP)
    assert say(health, False, False, False) == [False, False, True]


def test_each_of_several_applications_is_asked():
    other = ip_address("192.168.50.11")
    health = Health()
    health.inherit([("video", other)])
    health.keep([replace(VIDEO, spread=Spread((other,)))])
    assert not health.lives("video", APP)
    assert health.lives("video", other)
    assert say(health, True) == [True]
    assert say(health, False, False, False, application=other) == [False, False, True]
    assert health.lives("video", APP)
    assert not health.lives("video", other)
