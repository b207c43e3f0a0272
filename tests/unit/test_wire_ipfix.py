"""IPFIX messages, byte for byte and as Wireshark's dissector reads them."""

from __future__ import annotations

import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.dissector import dissect, flows
from tof.wire import ipfix
from tof.wire.ipfix import Element, Message, Record, Template

NAME = Template(256, (ipfix.APPLICATION_NAME, ipfix.PACKET_DELTA_COUNT))
BOTH_WAYS = Template(
    300, (ipfix.SOURCE_IPV4_ADDRESS, ipfix.OCTET_DELTA_COUNT, ipfix.OCTET_DELTA_COUNT.reverse)
)


def lone(*records: Record, **more: int) -> bytes:
    (message,) = ipfix.messages(records, 1_700_000_000, 7, 9, **more)
    assert message.records == len(records)
    return message.octets


def test_a_message_byte_for_byte() -> None:
    """RFC 7011 sections 3.1 to 3.4, and 7 for the text."""
    assert lone(Record(NAME, ("web", 258))) == bytes.fromhex(
        "000a 0030 6553f100 00000007 00000009"  # version, length, export time, sequence, domain
        "0002 0010 0100 0002 0060 ffff 0002 0008"  # template set, template 256 of two elements
        "0100 0010 03 776562 0000000000000102"  # data set
    )


def test_a_reverse_element_names_its_enterprise() -> None:
    """RFC 5103 section 6.1."""
    assert ipfix.encode_template(BOTH_WAYS) == bytes.fromhex(
        "012c 0003 0008 0004 0001 0008 8001 0008 00007279"
    )


@pytest.mark.parametrize(("length", "head"), [(0, "00"), (254, "fe"), (255, "ff00ff"), (300, "ff012c")])
def test_long_text(length: int, head: str) -> None:
    assert ipfix.encode_record(Record(NAME, ("x" * length, 0))) == bytes.fromhex(
        head
    ) + b"x" * length + bytes(8)


@pytest.mark.parametrize("values", [("a",), ("a", 1, 2), ("a", -1), ("a", 1 << 64), ("a", bytes(7))], ids=str)
def test_what_is_not_the_templates_is_refused(values: tuple[ipfix.Value, ...]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        ipfix.encode_record(Record(NAME, values))


@pytest.mark.parametrize("number", [0, 255, 65536])
def test_numbers_of_templates(number: int) -> None:
    with pytest.raises(ValueError, match=str(number)):
        Template(number, ())


def test_nothing_is_no_message() -> None:
    assert list(ipfix.messages([], 0, 0, 0)) == []


RECORDS = st.lists(
    st.one_of(
        st.builds(lambda name, n: Record(NAME, (name, n)), st.text("aé", max_size=40), st.integers(0, 99)),
        st.builds(lambda n: Record(BOTH_WAYS, (bytes(4), n, n + 1)), st.integers(0, 99)),
    ),
    max_size=40,
)


@given(RECORDS, st.integers(150, 600), st.integers(0xFFFFFFF0, 0xFFFFFFFF))
def test_messages_fit_and_count(records: list[Record], room: int, sequence: int) -> None:
    made: list[Message] = list(ipfix.messages(records, 5, sequence, 1, room))
    assert sum(message.records for message in made) == len(records)
    for message in made:
        assert len(message.octets) == int.from_bytes(message.octets[2:4], "big") <= room
        assert int.from_bytes(message.octets[8:12], "big") == sequence
        sequence = sequence + message.records & 0xFFFFFFFF


def test_a_record_longer_than_the_room_goes_alone() -> None:
    long, short = Record(NAME, ("x" * 100, 1)), Record(NAME, ("x", 1))
    assert [one.records for one in ipfix.messages([short, long, short], 0, 0, 0, 60)] == [1, 1, 1]


@pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")
def test_wireshark_reads_it() -> None:
    more = Template(
        65535, (ipfix.FLOW_ID, ipfix.FLOW_START_MILLISECONDS, ipfix.FLOW_END_MILLISECONDS, Element(136, 1))
    )
    records = [
        Record(NAME, ("Vidéo", 3)),
        Record(BOTH_WAYS, (bytes((10, 0, 0, 1)), 5, 6)),
        Record(NAME, ("y" * 300, 4)),
        Record(more, (77, 1_700_000_000_123, 1_700_000_001_456, 2)),
    ]
    (tree,) = dissect([lone(*records)])
    assert (tree["cflow.version"], tree["cflow.sequence"], tree["cflow.od_id"]) == ("10", "7", "9")
    names, ways, times = flows([tree])[:2], flows([tree])[2], flows([tree])[3]
    assert [(one["cflow.appl_name"], one["cflow.packets"]) for one in names] == [
        ("Vidéo", "3"),
        ("y" * 300, "4"),
    ]
    assert (ways["cflow.srcaddr"], ways["cflow.octets"]) == ("10.0.0.1", ["5", "6"])
    assert (times["cflow.flow_id"], times["cflow.flow_end_reason"]) == ("77", "2")
    assert times["cflow.timedelta"].startswith("1.333")
