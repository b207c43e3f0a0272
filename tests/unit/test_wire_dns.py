"""DNS answers: what is read as dnspython reads it, what is refused, and that nothing makes reading dear or endless."""

from __future__ import annotations

import contextlib
import itertools
import struct
from ipaddress import ip_address

import dns.flags
import dns.message
import dns.rcode
import dns.resolver
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tof.errors import DecodeError
from tof.wire.dns import MOST_RECORDS, Address, Answer, decode_answer

V4, V6 = bytes((203, 0, 113, 9)), bytes.fromhex("20010db8011300000000000000000009")


def response(name, *records, kind="A", authority=(), **flags):
    """The wire form of an answer; records are ``name ttl type data``."""
    made = dns.message.make_response(dns.message.make_query(name, kind, id=7), recursion_available=True)
    for section, texts in ((made.answer, records), (made.authority, authority)):
        for text in texts:
            owner, ttl, rtype, data = text.split(" ", 3)
            section.append(dns.rrset.from_text(owner, int(ttl), "IN", rtype, data))
    made.flags |= flags.get("flags", 0)
    made.set_rcode(flags.get("rcode", 0))
    return made.to_wire()


def why(message):
    with pytest.raises(DecodeError) as caught:
        decode_answer(message)
    return caught.value.reason


def read(message):
    """The answer, None if it is refused; anything else that is raised is a fault."""
    with contextlib.suppress(DecodeError):
        return decode_answer(message)
    return None


HEAD = struct.pack("!HHHHHH", 7, 0x8180, 1, 1, 0, 0)
ASKED = b"\5video\7example\3com\0" + struct.pack("!HH", 1, 1)
RECORD = b"\xc0\x0c" + struct.pack("!HHIH4s", 1, 1, 60, 4, V4)


def test_the_addresses_of_a_name():
    message = response(
        "Video.Example.com.", "video.example.com. 60 A 203.0.113.9", "video.example.com. 30 A 203.0.113.10"
    )
    assert decode_answer(message) == Answer(
        7, ("video.example.com",), (Address(V4, 60), Address(V4[:3] + b"\n", 30))
    )
    assert decode_answer(HEAD + ASKED + RECORD) == Answer(7, ("video.example.com",), (Address(V4, 60),))


def test_ipv6_addresses():
    message = response("a.example.", "a.example. 5 AAAA 2001:db8:113::9", kind="AAAA")
    assert decode_answer(message).addresses == (Address(V6, 5),)


def test_down_the_chain_of_aliases_in_whatever_order_they_stand():
    chain = [
        "a.example. 300 CNAME b.example.",
        "b.example. 20 CNAME c.example.",
        "c.example. 60 A 203.0.113.9",
    ]
    for records in (chain, chain[::-1]):
        assert decode_answer(response("a.example.", *records)) == Answer(
            7, ("a.example", "b.example", "c.example"), (Address(V4, 20),)
        )


def test_aliases_that_go_round_end():
    answer = decode_answer(
        response("a.example.", "a.example. 9 CNAME b.example.", "b.example. 9 CNAME a.example.")
    )
    assert answer == Answer(7, ("a.example", "b.example", "a.example"), ())


def test_addresses_of_another_name_are_not_its():
    message = response("a.example.", "b.example. 60 A 203.0.113.9", authority=["a.example. 60 NS b.example."])
    assert decode_answer(message) == Answer(7, ("a.example",), ())


def test_records_of_other_kinds_and_classes_are_passed_over():
    chaos = b"\xc0\x0c" + struct.pack("!HHIH", 1, 3, 60, 2) + b"hi"
    text = b"\xc0\x0c" + struct.pack("!HHIH", 16, 1, 60, 3) + b"\2hi"
    head = struct.pack("!HHHHHH", 7, 0x8180, 1, 3, 0, 0)
    assert decode_answer(head + ASKED + chaos + text + RECORD).addresses == (Address(V4, 60),)


def test_an_error_has_no_addresses():
    for code in (dns.rcode.NXDOMAIN, dns.rcode.SERVFAIL):
        assert decode_answer(response("a.example.", rcode=code)) == Answer(7, ("a.example",), ())
    assert not decode_answer(response("a.example.", "a.example. 9 A 203.0.113.9", rcode=3)).addresses


def test_the_same_address_twice_holds_as_long_as_the_shorter_one_says():
    other = RECORD[:6] + struct.pack("!I", 10) + RECORD[10:]
    head = struct.pack("!HHHHHH", 7, 0x8180, 1, 2, 0, 0)
    for records in (RECORD + other, other + RECORD):
        assert decode_answer(head + ASKED + records).addresses == (Address(V4, 10),)


def test_a_time_to_live_with_its_first_bit_set_is_none():
    record = RECORD[:6] + struct.pack("!I", 0x80000001) + RECORD[10:]
    assert decode_answer(HEAD + ASKED + record).addresses == (Address(V4, 0),)


def test_additional_records_are_stepped_over():
    query = dns.message.make_query("a.example.", "A", use_edns=0, payload=1232)
    made = dns.message.make_response(query)
    made.answer.append(dns.rrset.from_text("a.example.", 60, "IN", "A", "203.0.113.9"))
    assert decode_answer(made.to_wire()).addresses == (Address(V4, 60),)


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (b"", "dns_short"),
        (HEAD, "dns_short"),
        (HEAD + ASKED[:-1], "dns_short"),
        (HEAD + ASKED[:7], "dns_short"),
        (HEAD + ASKED, "dns_short"),
        (HEAD + ASKED + b"\xc0", "dns_short"),
        (HEAD + ASKED + RECORD[:-1], "dns_short"),
        (HEAD + ASKED + RECORD[:11], "dns_short"),
        (HEAD + ASKED + RECORD + b"\0", "dns_length"),
        (HEAD[:2] + b"\x01\x80" + HEAD[4:] + ASKED + RECORD, "dns_no_answer"),
        (HEAD[:2] + b"\xa8\x00" + HEAD[4:] + ASKED + RECORD, "dns_no_answer"),
        (HEAD[:5] + b"\2" + HEAD[6:] + ASKED + ASKED + RECORD, "dns_no_answer"),
        (HEAD + ASKED[:-1] + b"\3" + RECORD, "dns_no_answer"),
        (response("a.example.", flags=dns.flags.TC), "dns_truncated"),
        (HEAD[:7] + bytes((MOST_RECORDS + 1,)) + HEAD[8:] + ASKED + RECORD * (MOST_RECORDS + 1), "dns_too_many"),
        (HEAD + ASKED + RECORD[:10] + struct.pack("!H3s", 3, V4[:3]), "dns_length"),
        (HEAD + b"\xc0\x0c\0\1\0\1" + RECORD, "dns_name"),
        (HEAD + b"\xc0\xff\0\1\0\1" + RECORD, "dns_name"),
        (HEAD + ASKED + b"\xc0\x1d" + RECORD[2:], "dns_name"),
        (HEAD + ASKED + b"\x40ab" + RECORD[2:], "dns_name"),
        (HEAD + b"\3a.b\3com\0\0\1\0\1" + RECORD, "dns_name"),
        (HEAD + b"\5vid", "dns_short"),
        (HEAD + (b"\x3f" + b"a" * 63) * 4 + b"\0\0\1\0\1" + RECORD, "dns_name"),
        (HEAD[:7] + b"\0\0\1" + HEAD[10:] + ASKED + b"\x40" + bytes(80), "dns_name"),
        (HEAD[:7] + b"\0\0\1" + HEAD[10:] + ASKED + b"\3ab", "dns_short"),
        (HEAD[:7] + b"\0\0\1" + HEAD[10:] + ASKED + b"\3abc\0" + RECORD[2:-1], "dns_short"),
        (HEAD + ASKED + b"\xc0\x0c" + struct.pack("!HHIH", 5, 1, 60, 3) + b"\xc0\x0c\0", "dns_length"),
    ],
)  # fmt: skip
def test_what_is_refused(message, reason):
    assert why(message) == reason


def test_a_name_of_255_bytes_is_the_longest():
    longest = (b"\x3f" + b"a" * 63) * 3 + b"\x3d" + b"b" * 61 + b"\0"
    assert len(longest) == 255
    answer = decode_answer(HEAD + longest + b"\0\1\0\1" + RECORD)
    assert len(answer.names[0]) == 253
    assert answer.addresses == (Address(V4, 60),)


def test_pointers_to_pointers_are_followed_so_far_only():
    def message(jumps):
        """The question is stored first; each record's owner points to the one before."""
        records, at, to = b"", len(HEAD) + len(ASKED), 12
        for _ in range(jumps):
            records += struct.pack("!H", 0xC000 | to) + struct.pack("!HHIH4s", 1, 1, 60, 4, V4)
            at, to = at + 16, at
        return struct.pack("!HHHHHH", 7, 0x8180, 1, jumps, 0, 0) + ASKED + records

    assert decode_answer(message(16)).addresses == (Address(V4, 60),)
    assert why(message(17)) == "dns_name"


@given(st.binary(max_size=300))
def test_noise_is_refused_with_a_reason_or_read(data):
    for message in (data, HEAD + data, HEAD + ASKED + data):
        answer = read(message)
        assert answer is None or len(answer.names[0]) <= 253


LABELS = st.from_regex(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,20}[A-Za-z0-9])?", fullmatch=True)
NAMES = st.lists(LABELS, min_size=1, max_size=5).map(lambda labels: ".".join(labels) + ".")


@st.composite
def responses(draw):
    """A question, a chain of aliases, addresses at its end and elsewhere, other records, in any order."""
    chain = draw(st.lists(NAMES, min_size=1, max_size=4, unique_by=str.lower))
    made = dns.message.make_response(dns.message.make_query(chain[0], "A", id=draw(st.integers(0, 65535))))
    ttls = st.integers(0, 0x7FFFFFFF)
    rrsets = [
        dns.rrset.from_text(one, draw(ttls), "IN", "CNAME", other) for one, other in itertools.pairwise(chain)
    ]
    for owner in {chain[-1], draw(NAMES)}:
        if owner.lower() not in {name.lower() for name in chain[:-1]}:
            texts = draw(st.lists(st.ip_addresses(v=4).map(str), max_size=4, unique=True))
            if texts:
                rrsets.append(dns.rrset.from_text(owner, draw(ttls), "IN", "A", *texts))
    made.answer = draw(st.permutations(rrsets))
    if draw(st.booleans()):
        made.authority.append(dns.rrset.from_text(chain[-1], 60, "IN", "NS", draw(NAMES)))
    return made


@given(responses())
def test_it_reads_as_dnspython_does(made):
    answer = decode_answer(made.to_wire())
    resolved = dns.message.from_wire(made.to_wire()).resolve_chaining()
    assert answer.ident == made.id
    assert answer.names[-1] == resolved.canonical_name.to_text(omit_final_dot=True).lower()
    expected = (
        {} if resolved.answer is None else {ip_address(rr.address).packed: None for rr in resolved.answer}
    )
    assert {each.address for each in answer.addresses} == expected.keys()
    if resolved.answer is not None:
        assert {each.ttl for each in answer.addresses} == {resolved.minimum_ttl}


@given(responses(), st.data())
def test_an_answer_that_is_cut_is_never_read(made, data):
    wire = made.to_wire()
    at = data.draw(st.integers(0, len(wire) - 1))
    assert why(wire[:at]).startswith("dns_")


@given(responses(), st.data())
def test_an_answer_with_spoilt_bytes_is_read_or_refused(made, data):
    wire = bytearray(made.to_wire())
    for _ in range(data.draw(st.integers(1, 8))):
        wire[data.draw(st.integers(0, len(wire) - 1))] = data.draw(st.integers(0, 255))
    read(bytes(wire))
