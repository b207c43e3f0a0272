"""The one place that reads a clock."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta


class Clock:
    """CLOCK_MONOTONIC, the data path's own clock, and its relation to the calendar."""

    def now(self) -> float:
        """Seconds."""
        return time.monotonic()

    def now_ns(self) -> int:
        """Nanoseconds."""
        return time.monotonic_ns()

    def epoch(self) -> float:
        """The date and time in seconds since 1970."""
        return datetime.now(UTC).timestamp()

    def minute_of_week(self) -> int:
        """From Monday 00:00 on, in the time zone of the host."""
        local = datetime.now().astimezone()
        return (local.weekday() * 24 + local.hour) * 60 + local.minute

    def calendar(self, monotonic_ns: int) -> datetime:
        """The date and time of a moment of the data path's clock."""
        ago = (time.monotonic_ns() - monotonic_ns) / 1000
        return datetime.now(UTC) - timedelta(microseconds=ago)
