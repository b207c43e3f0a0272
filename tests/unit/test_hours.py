"""Hours: read as they are written, and when they are."""

from __future__ import annotations

from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.agent_world import World
from tof.agent.catalog import Catalog
from tof.agent.commands import Converge
from tof.agent.events import MinuteTurned, ServiceAdded
from tof.agent.hours import A_DAY, DAYS, MOST, are_now, hours_body, parse_hours
from tof.agent.service_body import body_of, parse
from tof.agent.services import ServicePlane
from tof.daemon.clock import Clock
from tof.dataplane.selection import Facts
from tof.errors import BadRequest
from tof.model import Hours


def at(day: str, clock: str) -> int:
    hour, minute = map(int, clock.split(":"))
    return DAYS.index(day) * A_DAY + hour * 60 + minute


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("08:00-18:00", [("Mon", "08:00"), ("Sun", "17:59")], [("Mon", "07:59"), ("Wed", "18:00")]),
        ("Mon-Fri 08:00-18:00", [("Fri", "12:00")], [("Sat", "12:00"), ("Mon", "18:00")]),
        ("Sat,Sun", [("Sat", "00:00"), ("Sun", "23:59")], [("Fri", "23:59"), ("Mon", "00:00")]),
        ("Fri-Mon 22:00-06:00", [("Sun", "23:00"), ("Tue", "05:59")], [("Tue", "06:00"), ("Tue", "22:00")]),
        ("Sun 23:00-01:00", [("Mon", "00:59"), ("Sun", "23:00")], [("Sun", "00:30"), ("Mon", "01:00")]),
        ("Wed 00:00-24:00", [("Wed", "23:59")], [("Thu", "00:00")]),
    ],
)
def test_when_it_is(text, inside, outside):
    hours = parse_hours([text])
    assert [are_now(hours, at(*one)) for one in inside] == [True] * len(inside)
    assert [are_now(hours, at(*one)) for one in outside] == [False] * len(outside)


def test_no_hours_are_always():
    assert are_now((), 17)
    assert parse_hours([]) == ()


@pytest.mark.parametrize(
    "wrong",
    [
        "always", {}, [8], [""], ["8:00-18:00"], ["Mon-"], ["Mon-Fri-Sun"], ["Foo"], ["Mon Tue"], ["08:60-09:00"],
        ["24:01-09:00"], ["24:00-09:00"], ["08:00-08:00"], ["mon"], ["Mon08:00-"], ["Mon"] * (MOST + 1),
    ],
)  # fmt: skip
def test_what_are_no_hours(wrong):
    with pytest.raises(BadRequest, match=r"^hours") as refused:
        parse_hours(wrong)
    assert refused.value.field == "hours"


HOURS = st.builds(
    lambda days, begin, length: Hours(tuple(sorted(days)), begin, (begin + length) % A_DAY or A_DAY),
    st.sets(st.integers(0, 6), min_size=1),
    st.integers(0, A_DAY - 1),
    st.integers(1, A_DAY - 1),
)


def test_whole_days_are_written_without_a_clock():
    assert hours_body(parse_hours(["Mon-Fri 00:00-24:00", "Sun"])) == ["Mon-Fri", "Sun"]


@given(st.sets(HOURS, max_size=5))
def test_they_are_read_as_they_are_written(hours):
    assert parse_hours(hours_body(hours)) == tuple(sorted(hours))


@given(HOURS, st.integers(0, 7 * A_DAY - 1))
def test_they_last_as_long_as_they_say(hours, minute):
    length = (hours.end - hours.begin) % A_DAY or A_DAY
    begins = [day * A_DAY + hours.begin for day in hours.days]
    assert are_now((hours,), minute) == any((minute - begin) % (7 * A_DAY) < length for begin in begins)


# Services

BODY = {
    "name": "day",
    "serviceIP": "203.0.113.10",
    "applicationIP": "192.168.50.10",
    "hours": ["Mon 08:00-18:00"],
}
FACTS = Facts(bytes((10, 0, 0, 1)), bytes((203, 0, 113, 10)), 17, 53, 0, bytes(4), bytes(4))


def test_a_service_has_hours():
    assert body_of(parse(BODY)) == BODY
    assert "hours" not in body_of(parse({**BODY, "hours": []}))


def test_outside_of_its_hours_a_service_leaves_its_packets_to_others():
    plane = ServicePlane(Catalog())
    plane.add(parse(BODY))
    plane.add(parse({"name": "net", "serviceIP": "203.0.113.0/24", "applicationIP": "192.168.50.11"}))
    assert plane.judged(FACTS).service.name == "day"  # nobody has said yet what hour it is
    assert not plane.minute_turned(at("Mon", "08:00"))
    assert plane.judged(FACTS).service.name == "day"
    assert plane.minute_turned(at("Mon", "18:00"))
    assert plane.judged(FACTS).service.name == "net"
    assert not plane.is_on_duty(parse(BODY))
    assert not plane.minute_turned(at("Mon", "18:01"))
    assert not plane.minute_turned(at("Mon", "18:01"))
    plane.replace("day", parse({**BODY, "hours": ["18:00-19:00"]}))
    assert plane.judged(FACTS).service.name == "day"


def test_the_agent_converges_when_hours_begin_and_end():
    world = World()
    world.say(ServiceAdded(parse(BODY)))
    assert world.say(MinuteTurned(at("Sun", "12:00"))) == [Converge(2)]
    assert world.say(MinuteTurned(at("Sun", "12:01"))) == []
    assert world.say(MinuteTurned(at("Mon", "08:00"))) == [Converge(3)]


def test_the_minute_of_the_week():
    before, minute = datetime.now().astimezone(), Clock().minute_of_week()
    expected = (before.weekday() * 24 + before.hour) * 60 + before.minute
    assert (minute - expected) % (7 * A_DAY) in (0, 1)
