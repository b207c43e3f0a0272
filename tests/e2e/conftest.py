from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from tof.lab.namespaces import orphans


@pytest.fixture
def nothing_left() -> Iterator[None]:
    """Fail if a lab of the test has ended and something of it is still there."""
    before = asyncio.run(orphans())
    yield
    assert set(asyncio.run(orphans())) <= set(before)
