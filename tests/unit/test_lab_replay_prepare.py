"""tof.lab.replay, wire_ends and injection: what can be said without a wire."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from struct import pack

import pytest

from tof.errors import SetupError
from tof.lab import capture
from tof.lab.capture import Frame
from tof.lab.injection import Injection, in_burst
from tof.lab.replay import ReplayOptions, inner_destination, judge, prepare, run
from tof.lab.verdict import Outcome, Sent
from tof.lab.wire_ends import open_ends, with_tag
from tof.model import Side

VECTORS = Path(__file__).parents[1] / "vectors" / "recorded"
THREE_UES = VECTORS / "gn_osmo_three_ues_same_teid_both_directions.pcap"


def options(**more: object) -> ReplayOptions:
    return ReplayOptions((THREE_UES,), **more)  # type: ignore[arg-type]


def item(number: int, time_ns: int, side: Side = Side.ENB, data: bytes = bytes(60)) -> Sent:
    return Sent(Frame(number, time_ns, data, len(data)), side)


def test_the_first_source_is_the_enb_unless_it_is_named():
    assert [sent.side for sent in prepare(THREE_UES, options()).sent] == [Side.ENB, Side.SGW] * 3
    named = prepare(THREE_UES, options(enb=("10.98.0.2", " 10.98.0.9")))
    assert [sent.side for sent in named.sent] == [Side.SGW, Side.ENB] * 3


def test_what_is_asked_for_is_rewritten():
    script = prepare(
        THREE_UES,
        options(
            map_address=(("10.98.0.1", "192.0.2.1"),),
            map_teid=(("1", "0x10"),),
            map_ue=(("10.45.0.2", "10.99.0.2"),),
        ),
    )
    data = script.sent[0].frame.data
    assert data[26:30] == ip_address("192.0.2.1").packed
    assert data[46:50] == b"\0\0\0\x10"
    assert ip_address("10.99.0.2").packed in data
    assert script.sent[0].side is Side.ENB
    assert script.largest == 138


def test_checksums_are_repaired_only_when_asked(tmp_path):
    frame = capture.read(THREE_UES)[0]
    broken = tmp_path / "broken.pcap"
    capture.write(broken, [frame._replace(data=frame.data[:24] + b"\0\0" + frame.data[26:])])
    assert prepare(broken, options()).sent[0].frame.data[24:26] == b"\0\0"
    assert prepare(broken, options(fix=True)).sent[0].frame.data == frame.data


def test_cut_frames_stay_and_runts_count_as_cut(tmp_path):
    path = tmp_path / "odd.pcap"
    capture.write(path, [Frame(1, 0, bytes(20), 100), Frame(2, 0, bytes(14), 14), Frame(3, 0, bytes(15), 15)])
    script = prepare(path, options(fix=True))
    assert [sent.frame.cut for sent in script.sent] == [True, True, False]
    assert script.largest == 15


@pytest.mark.parametrize(
    "wrong", [{"enb": ("nobody",)}, {"map_teid": (("1", "x"),)}, {"map_ue": (("1", "2"),)}]
)
def test_wrong_options_are_said(wrong):
    with pytest.raises(SetupError):
        prepare(THREE_UES, options(**wrong))


def test_a_missing_file_is_said_before_anything_is_built():
    with pytest.raises(SetupError, match="No such file"):
        run(ReplayOptions((Path("/nonexistent.pcap"),), lab=True))


def test_adapters_and_namespaces_that_are_not_there():
    with pytest.raises(SetupError, match="namespace tof-no-such: No such file"):
        open_ends(["lo"], "tof-no-such")


def test_pauses_and_changes_of_side_end_a_burst():
    first = item(1, 1_000_000)
    assert in_burst(first, item(2, 1_000_000))
    assert in_burst(first, item(2, 1_900_000))
    assert not in_burst(first, item(2, 2_000_000))
    assert not in_burst(first, item(2, 0)), "time that runs backwards is another recording"
    assert not in_burst(first, item(2, 1_000_000, Side.SGW))


def auxiliary(status: int, tci: int, tpid: int) -> tuple[int, int, bytes]:
    return 263, 8, pack("=IIIHHHH", status, 0, 0, 0, 0, tci, tpid)


def test_a_stripped_tag_is_put_back():
    data = bytes(12) + b"\x08\0rest"
    assert with_tag(data, []) == data
    assert with_tag(data, [(1, 2, b"")]) == data
    assert with_tag(data, [auxiliary(0, 5, 0x8100)]) == data
    assert with_tag(data, [auxiliary(0x50, 5, 0x88A8)]) == bytes(12) + b"\x88\xa8\0\5\x08\0rest"
    assert with_tag(data, [auxiliary(0x10, 5, 0)]) == bytes(12) + b"\x81\0\0\5\x08\0rest"


async def test_own_replies_are_not_taken_for_the_tofs_frames():
    sent = list(prepare(THREE_UES, options()).sent)[:1]
    injection = Injection({})
    injection.received[Side.SGW].append(sent[0].frame.data)
    injection.received[Side.ENB] += [b"the answer" * 10, b"the TOF's own" * 10]
    injection.replies.append((Side.SGW, b"the answer" * 10))
    report = judge(sent, injection, frozenset())
    assert [verdict.outcome for verdict in report.verdicts] == [Outcome.IDENTICAL]
    assert [each.data for each in report.injected] == [b"the TOF's own" * 10]


async def test_missing_packets_to_a_service_count_as_diverted():
    sent = prepare(THREE_UES, options()).sent[:1]
    service = inner_destination(sent[0].frame.data)
    assert service == ip_address("203.0.113.10").packed
    report = judge(sent, Injection({}), frozenset({service}))
    assert [verdict.outcome for verdict in report.verdicts] == [Outcome.DIVERTED]
    assert report.ok


def test_what_is_no_gpdu_goes_nowhere():
    frame = capture.read(THREE_UES)[0].data
    assert inner_destination(b"runt") == b""
    assert inner_destination(frame[:43] + b"\xfe" + frame[44:]) == b""
