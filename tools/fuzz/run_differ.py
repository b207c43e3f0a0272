"""Runs batches of differential fuzzing in several processes, each with a stage and a load of the data path of its own."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import TypedDict

from tools.bench.scene import scene
from tools.fuzz.differ import BATCH, Differ, Tally

MOST_DISAGREEMENTS = 20
"""A process that has found so many stops: one fault shows in very many packets."""
_SAY_S = 30.0


class Comparison(TypedDict):
    """What all processes came to."""

    packets: int
    seconds: float
    packets_per_second: int
    disagreements: list[str]
    verdicts: dict[str, int]
    counters: dict[str, int]


def compare(packets: int, *, seed: int = 1, processes: int = 2) -> Comparison:
    """At least so many packets in whole batches, numbered from 0."""
    batches = range(-(-packets // BATCH))
    shares = [batches[at::processes] for at in range(min(processes, len(batches)))]
    began = time.monotonic()
    if len(shares) == 1:
        tallies = [work(seed, shares[0])]
    else:
        with ProcessPoolExecutor(len(shares), mp_context=get_context("spawn")) as pool:
            tallies = list(pool.map(work, [seed] * len(shares), shares))
    return _summary(tallies, time.monotonic() - began)


def work(seed: int, batches: Sequence[int]) -> Tally:
    """These batches, one after the other; no longer than who asked for them lives."""
    parent = os.getppid()
    with scene() as devices:
        differ = Differ(devices, seed)
        said = time.monotonic()
        for done, number in enumerate(batches, 1):
            differ.batch(number)
            if time.monotonic() - said > _SAY_S:
                said = time.monotonic()
                print(f"{done} of {len(batches)} batches, {differ.tally}", file=sys.stderr)
            if len(differ.tally.disagreements) >= MOST_DISAGREEMENTS or os.getppid() != parent:
                break
        differ.close()
        return differ.tally


def _summary(tallies: list[Tally], seconds: float) -> Comparison:
    whole = Tally()
    for tally in tallies:
        whole.packets += tally.packets
        whole.counters += tally.counters
        whole.verdicts += tally.verdicts
        whole.disagreements += tally.disagreements
    return Comparison(
        packets=whole.packets, seconds=round(seconds, 1), packets_per_second=int(whole.packets / seconds),
        disagreements=[str(one) for one in whole.disagreements],
        verdicts=dict(sorted(whole.verdicts.items())), counters=dict(sorted(whole.counters.items())),
    )  # fmt: skip
