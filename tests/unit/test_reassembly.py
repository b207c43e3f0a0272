"""Reassembly: any split in any order makes the datagram again, nothing is lost, everything is bounded."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tof.agent.reassembly import (
    DATAGRAMS,
    DIVERTED_S,
    FRAGMENTS,
    FRAGMENTS_OF_ONE,
    OCTETS,
    REFUSED_S,
    UNDECIDED_S,
    Fate,
    Reassembly,
    Released,
    Whole,
)
from tof.wire.fragment import LARGEST, Fragment, FragmentKey

KEY = FragmentKey(bytes((10, 0, 0, 1)), bytes((10, 0, 0, 2)), 17, 1)
Out = list[Whole[int] | Released[int]]


def part(payload: bytes, at: int, *, more: bool = True, key: FragmentKey = KEY) -> Fragment:
    return Fragment(key, at, more, payload)


def key(number: int) -> FragmentKey:
    return KEY._replace(identification=number)


class Bench:
    """A reassembly that is fed numbered packets; all that came out, and the check that nothing comes out twice."""

    def __init__(self) -> None:
        self.reassembly: Reassembly[int] = Reassembly()
        self.given, self.out = 0, []

    def add(self, fragment: Fragment, fate: Fate = Fate.DIVERT, now: float = 0.0) -> Out:
        self.given += 1
        return self._seen(self.reassembly.add(fragment, self.given, fate, now))

    def due(self, now: float) -> Out:
        return self._seen(self.reassembly.due(now))

    def flush(self) -> Out:
        return self._seen(self.reassembly.flush())

    def _seen(self, outcomes: Iterable[Whole[int] | Released[int]]) -> Out:
        found = list(outcomes)
        self.out += [packet for one in found for packet in one.packets]
        assert len(set(self.out)) == len(self.out)
        assert self.reassembly.fragments == self.given - len(self.out)
        assert not self.reassembly.fragments or len(self.reassembly)
        return found


@pytest.fixture
def bench() -> Bench:
    return Bench()


@st.composite
def splits(draw: st.DrawFn) -> tuple[bytes, list[Fragment]]:
    data = draw(st.binary(min_size=9, max_size=600))
    cuts = draw(st.sets(st.integers(1, (len(data) - 1) // 8).map(lambda n: n * 8), min_size=1))
    edges = [0, *sorted(cuts), len(data)]
    parts = [part(data[a:b], a, more=b < len(data)) for a, b in pairwise(edges)]
    return data, draw(st.permutations(parts))


@given(splits())
def test_any_split_in_any_order_makes_the_datagram(split: tuple[bytes, list[Fragment]]) -> None:
    data, parts = split
    bench = Bench()
    if len(parts) > FRAGMENTS_OF_ONE:
        return
    for one in parts[:-1]:
        assert bench.add(one) == []
    assert bench.add(parts[-1]) == [Whole(KEY, data, list(range(1, len(parts) + 1)))]
    assert (len(bench.reassembly), bench.reassembly.octets) == (0, 0)


@given(splits(), st.data())
def test_any_overlap_is_refused_and_released_in_order(
    split: tuple[bytes, list[Fragment]], data: st.DataObject
) -> None:
    _, parts = split
    bench = Bench()
    there = data.draw(st.integers(1, len(parts) - 1))
    for one in parts[:there]:
        assert bench.add(one) == []
    hit = data.draw(st.sampled_from(parts[:there]))
    start = data.draw(st.integers(0, (hit.offset + len(hit.payload) - 1) // 8)) * 8
    shortest = max(1, hit.offset - start + 1)
    end = -(-(start + data.draw(st.integers(shortest, shortest + 64))) // 8) * 8
    wrong = part(bytes(x ^ 0xFF for x in hit.payload[:1]) * (end - start), start)
    [released] = bench.add(wrong)
    assert isinstance(released, Released)
    assert released.reason in ("overlap", "end_inconsistent")
    assert released.packets == list(range(1, there + 2))
    # Everything else of it goes on as well, RFC 5722: also what has not come yet.
    for one in parts[there:]:
        assert bench.add(one) == [Released("refused_before", [bench.given])]


@given(splits(), st.data())
def test_exact_duplicates_are_tolerated(split: tuple[bytes, list[Fragment]], data: st.DataObject) -> None:
    whole, parts = split
    bench = Bench()
    for one in parts[:-1]:
        assert bench.add(one) == []
        if data.draw(st.booleans()):
            assert bench.add(one) == []
    if bench.given < FRAGMENTS_OF_ONE:
        assert bench.add(parts[-1]) == [Whole(KEY, whole, list(range(1, bench.given + 1)))]


@pytest.mark.parametrize(
    ("before", "then", "reason"),
    [
        ([], part(b"", 8), "odd_length"),
        ([], part(b"", 8, more=False), "odd_length"),
        ([], part(bytes(9), 0), "odd_length"),
        ([], part(bytes(8), LARGEST - 7), "beyond_maximum"),
        ([], Fragment(KEY, 65512, False, bytes(4), 65515), "beyond_maximum"),
        ([part(bytes(8), 16, more=False)], part(bytes(8), 24, more=False), "end_inconsistent"),
        ([part(bytes(8), 16, more=False)], part(bytes(8), 0, more=False), "end_inconsistent"),
        ([part(bytes(8), 16, more=False)], part(bytes(8), 24), "end_inconsistent"),
        ([part(bytes(8), 16, more=False)], part(bytes(8), 16), "end_inconsistent"),
        ([part(bytes(8), 16)], part(bytes(8), 8, more=False), "end_inconsistent"),
        ([part(bytes(8), 16)], part(bytes(8), 16, more=False), "overlap"),
        ([part(bytes(8), 16)], part(b"x" * 8, 16), "overlap"),
        ([part(bytes(16), 0)], part(bytes(8), 8), "overlap"),
        ([part(bytes(8), 8)], part(bytes(16), 0), "overlap"),
    ],
)
def test_what_is_refused(bench: Bench, before: list[Fragment], then: Fragment, reason: str) -> None:
    for one in before:
        assert bench.add(one) == []
    assert bench.add(then) == [Released(reason, list(range(1, bench.given + 1)))]
    assert bench.reassembly.octets == 0


def test_the_largest_datagram(bench: Bench) -> None:
    data = bytes(range(256)) * 256
    step = 1232
    pieces = [data[at : at + step] for at in range(0, LARGEST, step)]
    pieces[-1] = pieces[-1][: LARGEST - step * (len(pieces) - 1)]
    for n, piece in enumerate(pieces):
        outcome = bench.add(part(piece, n * step, more=n < len(pieces) - 1))
    assert [one.payload for one in outcome if isinstance(one, Whole)] == [data[:LARGEST]]


def test_an_atomic_fragment_is_whole_by_itself(bench: Bench) -> None:
    """RFC 6946: IPv6 senders put a fragment header on datagrams that are not cut."""
    (whole,) = bench.add(part(b"all of it", 0, more=False))
    assert isinstance(whole, Whole)
    assert whole.payload == b"all of it"


def test_a_later_fragment_waits_for_its_first(bench: Bench) -> None:
    assert bench.add(part(b"end", 8, more=False), Fate.UNDECIDED) == []
    assert bench.add(part(b"12345678", 0), Fate.DIVERT) == [Whole(KEY, b"12345678end", [1, 2])]


def test_what_passes_takes_the_held_ones_with_it_in_order(bench: Bench) -> None:
    bench.add(part(bytes(8), 16, more=False), Fate.UNDECIDED)
    bench.add(part(bytes(8), 8), Fate.UNDECIDED)
    assert bench.add(part(bytes(8), 0), Fate.PASS) == [Released("passed", [1, 2, 3])]
    assert bench.add(part(bytes(8), 8), Fate.PASS) == [Released("passed", [4])]
    assert len(bench.reassembly) == 0


def test_undecided_ones_wait_less_than_diverted_ones(bench: Bench) -> None:
    bench.add(part(bytes(8), 8, key=key(1)), Fate.UNDECIDED, 1.0)
    bench.add(part(bytes(8), 0, key=key(2)), Fate.DIVERT, 1.0)
    assert bench.due(1.0 + UNDECIDED_S - 0.001) == []
    assert bench.due(1.0 + UNDECIDED_S) == [Released("timeout", [1])]
    assert bench.due(1.0 + DIVERTED_S - 0.001) == []
    bench.add(part(bytes(8), 8, key=key(2)), Fate.DIVERT, 1.1)
    assert bench.due(1.0 + DIVERTED_S) == [Released("timeout", [2, 3])]
    assert (len(bench.reassembly), bench.reassembly.octets) == (0, 0)


def test_complete_but_never_decided_goes_on(bench: Bench) -> None:
    bench.add(part(bytes(8), 0), Fate.UNDECIDED)
    assert bench.add(part(bytes(8), 8, more=False), Fate.UNDECIDED) == []
    assert bench.due(UNDECIDED_S) == [Released("timeout", [1, 2])]


def test_a_refused_identification_can_be_used_again(bench: Bench) -> None:
    bench.add(part(b"", 0))
    assert bench.due(REFUSED_S) == []
    assert bench.add(part(bytes(8), 0), now=REFUSED_S) == []
    assert bench.add(part(bytes(8), 8, more=False)) == [Whole(KEY, bytes(16), [2, 3])]


def test_a_datagram_has_its_share_of_fragments(bench: Bench) -> None:
    for n in range(FRAGMENTS_OF_ONE):
        assert bench.add(part(bytes(8), n * 8)) == []
    assert bench.add(part(bytes(8), FRAGMENTS_OF_ONE * 8)) == [
        Released("too_many", list(range(1, FRAGMENTS_OF_ONE + 2)))
    ]


def test_the_longest_waiting_datagram_gives_way(bench: Bench) -> None:
    for n in range(DATAGRAMS):
        assert bench.add(part(bytes(8), 0, key=key(n))) == []
    assert bench.add(part(bytes(8), 0, key=key(DATAGRAMS))) == [Released("overflow", [1])]
    assert len(bench.reassembly) == DATAGRAMS


def test_fragments_and_bytes_are_bounded_in_all(bench: Bench) -> None:
    for n in range(FRAGMENTS):
        assert bench.add(part(bytes(8), n % 60 * 8, key=key(n // 60))) == []
    assert bench.add(part(bytes(8), 0, key=key(FRAGMENTS))) == [Released("overflow", list(range(1, 61)))]
    big = Bench()
    share = LARGEST // 8 * 8
    for n in range(OCTETS // share):
        assert big.add(part(bytes(share), 0, key=key(n))) == []
    assert big.add(part(bytes(share), 0, key=key(DATAGRAMS))) == [Released("overflow", [1])]
    assert big.reassembly.octets <= OCTETS


def test_a_refused_datagram_gives_way_without_a_word(bench: Bench) -> None:
    bench.add(part(b"", 0, key=key(0)))
    for n in range(1, DATAGRAMS):
        bench.add(part(bytes(8), 0, key=key(n)))
    assert bench.add(part(bytes(8), 0, key=key(DATAGRAMS))) == []


def test_nothing_is_kept_at_the_end(bench: Bench) -> None:
    for n in range(3):
        bench.add(part(bytes(8), 0, key=key(n)))
    assert bench.flush() == [Released("shutdown", [n]) for n in (1, 2, 3)]
    assert len(bench.reassembly) == 0
