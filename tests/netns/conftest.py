"""Fixtures of the namespace tests; ``netns_helper`` says how to use them."""

import contextlib
import os
from collections.abc import Iterator

import pytest
from netns_helper import MakeNetns, Netns


@pytest.fixture
def netns() -> Iterator[MakeNetns]:
    """A maker of namespaces that are gone after the test."""
    with contextlib.ExitStack() as stack:
        yield lambda role: stack.enter_context(Netns(role))


@pytest.fixture(autouse=True)
def _as_root() -> None:
    if os.geteuid():
        pytest.skip("namespace tests need root")
