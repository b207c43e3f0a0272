"""Reassembly: fragments of few datagrams in any order, with lies in them, and time that passes."""

from __future__ import annotations

from itertools import count

from tof.agent import reassembly
from tof.agent.reassembly import Fate, Reassembly, Released, Whole
from tof.errors import DecodeError
from tof.wire.fragment import Fragment, FragmentKey, decode_fragment
from tof.wire.inet import IPv4, encode_ipv4

# Small, so that few fragments meet every bound.
reassembly.DATAGRAMS, reassembly.FRAGMENTS_OF_ONE = 3, 5
reassembly.FRAGMENTS, reassembly.OCTETS = 8, 300

_FATES = (Fate.UNDECIDED, Fate.DIVERT, Fate.DIVERT, Fate.PASS)


def pieces(data: bytes) -> None:
    """Every fragment comes out exactly once, with those of its datagram in the order in which they came."""
    try:
        read = decode_fragment(data)
        assert read.more or read.offset or data[0] >> 4 == 6  # RFC 6946: whole by itself
        assert read.payload in data
    except DecodeError:
        pass
    held: Reassembly[int] = Reassembly()
    inside: dict[int, Fragment] = {}
    now, numbers = 0.0, count()
    for at in range(0, len(data) - 3, 4):
        what, offset, size, fill = data[at : at + 4]
        if what >= 0xE0:
            now += (what & 31) / 100
            _leave(list(held.due(now)), inside)
        else:
            payload = bytes((fill & 3,)) * (size % 48)
            flags = int(what & 8 != 0)
            packet = encode_ipv4(
                IPv4(
                    b"\1" * 4,
                    b"\2" * 4,
                    17,
                    payload,
                    flags=flags,
                    offset=8 * (offset % 12),
                    identification=what & 3,
                )
            )
            try:
                fragment = decode_fragment(packet, None)
            except DecodeError:
                continue
            number = next(numbers)
            inside[number] = fragment
            _leave(list(held.add(fragment, number, _FATES[what >> 4 & 3], now)), inside)
        assert len(held) <= reassembly.DATAGRAMS
        assert held.fragments == len(inside) <= reassembly.FRAGMENTS
        assert held.octets <= reassembly.OCTETS
    _leave(list(held.flush()), inside)
    assert not inside
    assert held.fragments == held.octets == 0


def _leave(outcomes: list[Whole[int] | Released[int]], inside: dict[int, Fragment]) -> None:
    for outcome in outcomes:
        assert outcome.packets == sorted(outcome.packets), "out of order"
        fragments = [inside.pop(number) for number in outcome.packets]
        keys: set[FragmentKey] = {fragment.key for fragment in fragments}
        assert len(keys) == 1
        assert all(fragment.key not in keys or isinstance(outcome, Released) for fragment in inside.values())
        if isinstance(outcome, Whole):
            assert keys == {outcome.key}
            assert all(outcome.payload[f.offset : f.offset + len(f.payload)] == f.payload for f in fragments)
            assert max(f.offset + len(f.payload) for f in fragments) == len(outcome.payload)
            covered = {at for f in fragments for at in range(f.offset, f.offset + len(f.payload))}
            assert len(covered) == len(outcome.payload)
