from __future__ import annotations

import pytest

from tools.bench.report import Target, count_word, table
from tools.bench.stats import highest_without_loss, net_nanoseconds, paired_ratio, summary


def test_summary_of_a_series() -> None:
    each = summary([1.0, 2.0, 3.0, 4.0, 5.0])
    assert (each.median, each.low, each.high, each.rounds) == (3.0, 2.0, 4.0, 5)
    assert each.spread == pytest.approx(1 / 3)


def test_summary_of_one_value() -> None:
    assert summary([7.0]).median == 7.0
    assert summary([7.0]).spread == 0.0
    assert summary([0.0, 0.0]).spread == 0.0


def test_a_slow_round_slows_both_and_cancels() -> None:
    assert paired_ratio([3.0, 1.5, 3.0], [1.0, 0.5, 1.0]) == 3.0


def test_rounds_that_do_not_pair_are_an_error() -> None:
    with pytest.raises(ValueError, match="zip"):
        paired_ratio([1.0], [1.0, 2.0])


def test_what_generator_and_sink_take_is_not_the_paths() -> None:
    assert net_nanoseconds(1e6, 4e6) == pytest.approx(750)


@pytest.mark.parametrize(
    ("tries", "best"),
    [
        ([], 0),
        ([(10, [True, True, False])], 10),
        ([(10, [True, False])], 0),
        ([(20, [True]), (10, [True]), (30, [False]), (40, [True])], 20),
    ],
)
def test_highest_rate_below_the_first_that_loses(tries: list[tuple[int, list[bool]]], best: int) -> None:
    assert highest_without_loss(tries) == best


@pytest.mark.parametrize(
    ("count", "word"), [(1, "1"), (1500, "1500"), (10_000, "10 k"), (100_000, "100 k"), (1_000_000, "1 M")]
)
def test_count_words(count: int, word: str) -> None:
    assert count_word(count) == word


def test_targets() -> None:
    assert Target("rate", 3, 3).met
    assert not Target("memory", 200, 213.27, at_most=True).met
    assert str(Target("memory", 200, 213.27, at_most=True)) == "MISSED: memory 213.27 (<= 200)"
    assert Target("rate", 3, 4).as_json() == {
        "name": "rate",
        "wanted": 3,
        "seen": 4,
        "at_most": False,
        "met": True,
    }


def test_a_table_lines_up() -> None:
    assert table(("path", "ns"), [("bridge", "1130"), ("bare", "104")]).splitlines() == [
        "| path   |   ns |",
        "| ------ | ---: |",
        "| bridge | 1130 |",
        "| bare   |  104 |",
    ]
