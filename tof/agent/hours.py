"""The hours in which a service selects packets: ``Mon-Fri 08:00-18:00``, ``Sat,Sun``, ``22:00-06:00``."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import groupby
from typing import Final

from tof.errors import BadRequest
from tof.model import Hours

DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
A_DAY: Final = 24 * 60
MOST: Final = 32
_FORM: Final = re.compile(
    r"(?P<days>[A-Z][a-z]{2}(?:[-,][A-Z][a-z]{2})*)?(?(days) ?)"
    r"(?:(?P<begin>\d\d:\d\d)-(?P<end>\d\d:\d\d))?"
)


def parse_hours(value: object) -> tuple[Hours, ...]:
    """What a body's ``hours`` says; BadRequest quotes the entry at fault."""
    if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
        raise BadRequest("hours is not a list of texts", "hours")
    if len(value) > MOST:
        raise BadRequest(f"hours has {len(value)} entries, more than {MOST}", "hours")
    return tuple(sorted({_entry(entry) for entry in value}))


def hours_body(hours: Iterable[Hours]) -> list[str]:
    """What ``parse_hours`` reads."""
    return [_text(each) for each in hours]


def are_now(hours: tuple[Hours, ...], minute: int) -> bool:
    """Whether ``minute`` of the week, from Monday 00:00 on, is in one of them; none at all are always."""
    return not hours or any(_holds(each, minute) for each in hours)


def _holds(one: Hours, minute: int) -> bool:
    day, of_day = divmod(minute, A_DAY)
    if one.begin < one.end:
        return day in one.days and one.begin <= of_day < one.end
    # Over midnight: the hours are the day's on which they begin.
    return (day in one.days and of_day >= one.begin) or ((day - 1) % 7 in one.days and of_day < one.end)


def _entry(text: str) -> Hours:
    form = _FORM.fullmatch(text)
    if form is None or not text:
        raise _wrong(text)
    days = tuple(range(7)) if form["days"] is None else _days(form["days"], text)
    if form["begin"] is None:
        return Hours(days, 0, A_DAY)
    begin, end = _minute(form["begin"], text), _minute(form["end"], text)
    if begin in (end, A_DAY):
        raise _wrong(text)
    return Hours(days, begin, end)


def _days(text: str, whole: str) -> tuple[int, ...]:
    found: set[int] = set()
    for part in text.split(","):
        ends = part.split("-")
        if len(ends) > 2 or not {*ends} <= {*DAYS}:
            raise _wrong(whole)
        first, last = DAYS.index(ends[0]), DAYS.index(ends[-1])
        found |= {day % 7 for day in range(first, last + 1 + 7 * (last < first))}
    return tuple(sorted(found))


def _minute(text: str, whole: str) -> int:
    hour, minute = map(int, text.split(":"))
    if minute > 59 or hour * 60 + minute > A_DAY:
        raise _wrong(whole)
    return hour * 60 + minute


def _wrong(text: str) -> BadRequest:
    return BadRequest(f"hours: {text!r} is not like Mon-Fri 08:00-18:00, Sat,Sun or 22:00-06:00", "hours")


def _text(one: Hours) -> str:
    days, times = "", f"{_clock(one.begin)}-{_clock(one.end)}"
    if len(one.days) < 7:
        runs = [[day for _, day in run] for _, run in groupby(enumerate(one.days), lambda at: at[1] - at[0])]
        days = ",".join(DAYS[run[0]] if len(run) == 1 else f"{DAYS[run[0]]}-{DAYS[run[-1]]}" for run in runs)
    if (one.begin, one.end) == (0, A_DAY) and days:
        return days
    return f"{days} {times}".strip()


def _clock(minute: int) -> str:
    return f"{minute // 60:02}:{minute % 60:02}"
