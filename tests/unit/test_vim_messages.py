"""HTTP, AMQP, Go's RPC and libvirt's as they pass by: whole, in any pieces, with holes, among garbage."""

from __future__ import annotations

import gzip
import json
import random
import zlib
from struct import pack

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.vim_wire import (
    START_NS,
    Wire,
    amqp_frame,
    answer,
    deliver,
    get_ok,
    oslo,
    publish,
    request,
    rpc,
    yamux,
)
from tof.vim.analyzer import amqp, libvirt, messages
from tof.vim.analyzer import http as http_
from tof.vim.analyzer import rpc as rpc_
from tof.vim.analyzer.http import exchanges
from tof.vim.analyzer.messages import Call, Cast, Exchange, Span, at
from tof.vim.analyzer.streams import Piece, connections


def in_pieces(data: bytes, sizes: list[int]) -> list[Piece]:
    """The data in pieces of these sizes, over and over, a millisecond each."""
    found: list[Piece] = []
    start = 0
    while start < len(data):
        size = sizes[len(found) % len(sizes)]
        number = len(found) + 1
        found.append(Piece(number * 1_000_000, number, data[start : start + size]))
        start += size
    return found


def spoken(wire: Wire) -> list[Exchange]:
    (connection,) = connections(wire.segments)
    return exchanges(connection)


def told(found: list[Exchange]) -> list[tuple[str, int | None, bytes, bytes]]:
    """Target, status and bodies of each."""
    return [
        (
            one.request.target,
            None if one.answer is None else one.answer.status,
            one.request.body,
            b"" if one.answer is None else one.answer.body,
        )
        for one in found
    ]


# HTTP


def test_an_exchange_has_the_times_of_its_first_and_last_bytes() -> None:
    wire = Wire()
    talk = wire.open("198.51.100.2:8774")
    raw = request("POST", "/a?b=c", {"d": 1})
    talk.ask(1, raw[:30])
    talk.ask(3, raw[30:])
    talk.answer(5, answer(202, {"id": 7}, [("X-Id", "q")]))
    (one,) = spoken(wire)
    assert one.server == "198.51.100.2:8774"
    assert one.request.span == Span(START_NS + 1_000_000, START_NS + 3_000_000, 3)
    assert (one.request.method, one.request.path, one.request.document) == ("POST", "/a", {"d": 1})
    assert one.answer is not None
    assert (one.answer.status, one.answer.document, one.answer.headers["x-id"]) == (202, {"id": 7}, "q")


@pytest.mark.parametrize("mss", [1, 7, 40, 100_000])
def test_pipelined_requests_and_answers_of_every_form(mss: int) -> None:
    wire = Wire()
    talk = wire.open("198.51.100.2:80")
    asked = [request("GET", f"/{at}") for at in range(4)]
    asked[1] = request("HEAD", "/1")
    chunked = (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nT: t\r\n\r\n"
    )
    talk.ask(1, b"".join(asked), mss)
    # An answer to HEAD says a length and has no body; 100 is no answer at all; the last one ends with the connection.
    answered = b"HTTP/1.1 100 Continue\r\n\r\n" + chunked + b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n"
    answered += answer(204) + b"HTTP/1.0 200 OK\r\n\r\nuntil the end"
    talk.answer(2, answered, mss)
    assert told(spoken(wire)) == [
        ("/0", 200, b"", b"abcde"),
        ("/1", 200, b"", b""),
        ("/2", 204, b"", b""),
        ("/3", 200, b"", b"until the end"),
    ]


@given(st.lists(st.integers(1, 90), min_size=1, max_size=5), st.integers(1, 4))
def test_any_segmentation_reads_the_same(sizes: list[int], count: int) -> None:
    wire = Wire()
    talk = wire.open("198.51.100.2:80")
    for at_ in range(count):
        raw, back = request("PUT", f"/{at_}", {"n": at_}), answer(200, {"m": at_})
        for piece in in_pieces(raw, sizes):
            talk.ask(at_ * 10, piece.data)
        for piece in in_pieces(back, sizes):
            talk.answer(at_ * 10 + 5, piece.data)
    assert [(one.request.document, one.answer and one.answer.document) for one in spoken(wire)] == [
        ({"n": at_}, {"m": at_}) for at_ in range(count)
    ]


@pytest.mark.parametrize(
    ("coding", "pack_"),
    [
        ("gzip", gzip.compress),
        ("x-gzip", gzip.compress),
        ("deflate", zlib.compress),
        ("deflate", lambda body: zlib.compress(body, wbits=-15)),
        ("identity", bytes),
    ],
)
def test_packed_bodies(coding: str, pack_: object) -> None:
    wire = Wire()
    talk = wire.open("198.51.100.2:80")
    talk.ask(1, request("GET", "/"))
    body = pack_(b'{"packed": true}')  # type: ignore[operator]
    talk.answer(2, answer(200, None, [("Content-Encoding", coding)], body))
    (one,) = spoken(wire)
    assert one.answer is not None
    assert one.answer.document == {"packed": True}


def test_a_bomb_is_cut_and_a_broken_body_is_none() -> None:
    bomb = gzip.compress(b'"' + b"x" * (messages.BODY_LIMIT + 10) + b'"')
    assert messages.json_body({"content-encoding": "gzip"}, bomb) is None
    assert messages.json_body({"content-encoding": "gzip"}, b"junk") is None
    assert messages.json_body({"content-encoding": "deflate"}, b"") is None
    assert messages.json_body({}, b"{") is None
    assert messages.json_body({}, b"[" * 100_000) is None


def test_a_capture_may_begin_after_the_request() -> None:
    wire = Wire()
    talk = wire.open("198.51.100.2:80", syn=False)
    talk.answer(1, answer(200, {"of": "before"}))
    talk.ask(2, request("GET", "/seen"))
    talk.answer(3, answer(404))
    assert told(spoken(wire)) == [("/seen", 404, b"", b"")]


def test_a_capture_may_begin_in_the_middle_of_a_body() -> None:
    wire = Wire()
    talk = wire.open("198.51.100.2:80", syn=False)
    talk.ask(1, b"the rest of a body")
    talk.ask(2, request("GET", "/seen"))
    talk.answer(3, answer(200))
    assert told(spoken(wire)) == [("/seen", 200, b"", b"")]


def test_who_asks_is_found_out_without_a_syn() -> None:
    """The first packet may be the server's."""
    wire = Wire()
    talk = wire.open("198.51.100.2:80", syn=False)
    wire.add(0, talk.server, talk.client, 1, b"", 0x10)
    talk.sequences[talk.server] = 1
    talk.ask(2, request("GET", "/seen"))
    talk.answer(3, answer(200))
    (one,) = spoken(wire)
    assert (one.server, one.request.target, one.answer is not None) == ("198.51.100.2:80", "/seen", True)


def lossy(body: bytes, lost: slice, coding: str = "") -> list[Exchange]:
    """An exchange whose answer lacks packets, and another one."""
    wire = Wire()
    talk = wire.open("198.51.100.2:80")
    talk.ask(1, request("GET", "/lossy"))
    before = len(wire.segments)
    talk.answer(2, body, mss=100)
    del wire.segments[before + lost.start : before + lost.stop]
    talk.ask(3, request("GET", "/next"))
    talk.answer(4, answer(200, {"next": 1}))
    return spoken(wire)


def test_a_hole_in_a_body_of_known_length_loses_the_body_alone() -> None:
    one, other = lossy(answer(200, {"x": "y" * 500}), slice(2, 4))
    assert one.answer is not None
    assert (one.answer.status, one.answer.document, one.answer.span.whole) == (200, None, False)
    assert other.answer is not None
    assert other.answer.document == {"next": 1}


def test_a_hole_in_a_chunked_body_loses_the_rest_of_it() -> None:
    chunks = b"".join(b"64\r\n" + b"z" * 100 + b"\r\n" for _ in range(5)) + b"0\r\n\r\n"
    one, other = lossy(b"HTTP/1.1 201 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks, slice(2, 3))
    assert one.answer is not None
    assert (one.answer.status, one.answer.span.whole) == (201, False)
    assert other.answer is not None
    assert other.answer.document == {"next": 1}


def test_an_answer_that_is_lost_is_not_taken_from_the_next_request() -> None:
    assert told(lossy(answer(500, body=b"z" * 50), slice(0, 2))) == [
        ("/lossy", None, b"", b""),
        ("/next", 200, b"", b'{"next": 1}'),
    ]


def test_a_head_that_is_cut_still_says_method_and_status() -> None:
    wire = Wire()
    talk = wire.open("198.51.100.2:80")
    talk.ask(1, request("POST", "/v2.1/servers", {"a": 1}, [("X-Long", "x" * 500)]), mss=200)
    del wire.segments[3]
    talk.answer(2, answer(202, {"b": 1}, [("X-Long", "x" * 500)]), mss=200)
    del wire.segments[-2]
    (one,) = spoken(wire)
    assert (one.request.method, one.request.target, one.request.span.whole) == (
        "POST",
        "/v2.1/servers",
        False,
    )
    assert one.answer is not None
    assert (one.answer.status, one.answer.headers) == (202, {})


def test_a_capture_may_end_in_a_message() -> None:
    wire = Wire()
    wire.open("198.51.100.2:80").ask(1, request("POST", "/x", {"a": "b" * 50})[:-20])
    (one,) = spoken(wire)
    assert (one.request.target, one.request.span.whole, one.answer) == ("/x", False, None)


def test_a_long_target_and_an_answer_that_never_comes() -> None:
    wire = Wire()
    talk = wire.open("198.51.100.2:80")
    target = "/v2.0/ports?" + "id=x&" * 2000
    talk.ask(1, request("GET", target), mss=900)
    talk.answer(2, answer(200))
    talk.ask(3, request("PUT", "/big"))
    talk.answer(4, b"HTTP/1.1 100 Continue\r\n\r\n")
    assert told(spoken(wire)) == [(target, 200, b"", b""), ("/big", None, b"", b"")]


def test_garbage_between_messages_is_passed_over() -> None:
    wire = Wire()
    talk = wire.open("198.51.100.2:80")
    talk.ask(1, request("GET", "/a") + b"\0\1\2 GET nothing")
    talk.ask(2, b"GET /bad HTTP/1.1\r\nno header at all\r\n\r\n")
    talk.ask(3, request("GET", "/b"))
    assert [one.request.target for one in spoken(wire)] == ["/a", "/bad", "/b"]


def test_an_odd_target_is_no_trouble() -> None:
    one = messages.Request(Span(0, 0, 1), "GET", "http://[odd/path?x")
    assert one.path == "http://[odd/path"


def test_of_a_long_body_only_so_much_is_kept() -> None:
    long = b"a" * (messages.BODY_LIMIT + (2 << 20))
    wire = Wire()
    wire.open("198.51.100.2:80").ask(1, request("PUT", "/image", body=long), mss=1 << 20)
    (one,) = spoken(wire)
    assert messages.BODY_LIMIT <= len(one.request.body) < len(long)


# AMQP


def listened(data: bytes, sizes: list[int]) -> list[Cast]:
    return list(amqp.casts(in_pieces(data, sizes)))


@given(st.lists(st.integers(1, 60), min_size=1, max_size=5), st.integers(8, 200))
def test_amqp_messages_in_any_pieces(sizes: list[int], frame_max: int) -> None:
    body = oslo("build_and_run_instance", {"a": 1}, "req-1")
    heartbeat = amqp_frame(8, 0, b"")
    data = (
        b"AMQP\0\0\x09\x01"
        + publish(body, frame_max=frame_max)
        + heartbeat
        + deliver(b"", "k")
        + get_ok(body)
    )
    found = listened(data, sizes)
    assert [(one.delivered, one.exchange, one.routing_key, one.body) for one in found] == [
        (False, "nova", "conductor", body),
        (True, "nova", "k", b""),
        (True, "nova", "conductor", body),
    ]
    assert all(one.span.whole for one in found)
    assert found[0].span.began_ns <= found[0].span.ended_ns
    assert amqp.envelope(found[0].body)["_context_request_id"] == "req-1"


def test_channels_are_interleaved() -> None:
    one, two = publish(b"one" * 9, "a", channel=1), publish(b"two" * 9, "b", channel=2)
    frames = [*split(one), *split(two)]
    mixed = b"".join(frames[at_] for at_ in (0, 3, 4, 1, 5, 2))
    assert [(cast.routing_key, cast.body) for cast in listened(mixed, [1000])] == [
        ("b", b"two" * 9),
        ("a", b"one" * 9),
    ]


def split(data: bytes) -> list[bytes]:
    found = []
    while data:
        size = 8 + int.from_bytes(data[3:7], "big")
        found.append(data[:size])
        data = data[size:]
    return found


def test_amqp_goes_on_in_the_middle_and_behind_holes() -> None:
    body = oslo("select_destinations")
    whole = publish(body, frame_max=40)
    pieces = [
        Piece(1, 1, b"rest of a frame\xce" + whole),
        Piece(2, 2, whole[:100]),
        Piece(3, 3, whole, hole=9),
    ]
    found = list(amqp.casts(pieces))
    assert [(one.body == body, one.span.whole) for one in found] == [
        (True, True),
        (False, False),
        (True, True),
    ]


def test_a_cut_message_still_says_its_method() -> None:
    body = oslo("schedule_and_build_instances", {"x": "y" * 500})
    (one,) = amqp.casts([Piece(1, 1, publish(body, frame_max=200)[:300])])
    assert not one.span.whole
    assert amqp.envelope(one.body) == {"method": "schedule_and_build_instances"}


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        (b'{"method": "old", "args": {}}', {"method": "old", "args": {}}),
        (b'{"oslo.message": "[]"}', {}),
        (b'{"oslo.message": 7}', {}),
        (b"[1]", {}),
        (b"\xff\xfe", {}),
    ],
)
def test_envelopes(body: bytes, wanted: dict[str, object]) -> None:
    assert amqp.envelope(body) == wanted


def test_amqp_frames_that_make_no_sense() -> None:
    bad = [
        amqp_frame(1, 1, pack("!HHH", 60, 40, 0) + b"\xffshort"),
        amqp_frame(1, 1, b"\0"),
        amqp_frame(3, 7, b"body of nothing"),
        amqp_frame(2, 7, b""),
        amqp_frame(1, 1, pack("!HHH", 60, 40, 0) + b"\1e\1k\0") + amqp_frame(2, 1, b"short"),
        amqp_frame(1, 1, pack("!HH", 60, 80) + bytes(9)),
        b"\1\0\1\xff\xff\xff\xff",
    ]
    found = listened(publish(b"a") + b"".join(bad) + b"\0\0" + publish(b"b"), [10_000])
    assert [one.body for one in found if one.span.whole] == [b"a", b"b"]


def test_what_is_amqp_is_found_out_by_its_frames() -> None:
    def speaks(data: bytes) -> bool:
        return amqp.speaks_amqp([Piece(1, 1, data)])

    assert speaks(b"AMQP\0\0\x09\x01")
    assert speaks(publish(b"x"))
    assert not speaks(publish(b"x")[:20])
    assert not speaks(amqp_frame(1, 1, pack("!HH", 60, 80))[:-1] + b"x")
    assert not speaks(b"GET / HTTP/1.1")


def test_of_a_long_amqp_message_only_so_much_is_kept() -> None:
    long = b"a" * (messages.BODY_LIMIT + (2 << 20))
    (one,) = listened(publish(long, frame_max=1 << 20), [1 << 24])
    assert (one.span.whole, len(one.body) < len(long)) == (False, True)


def test_amqp_channels_are_bounded() -> None:
    opened = b"".join(
        amqp_frame(1, at_, pack("!HHH", 60, 40, 0) + b"\0\0\0") for at_ in range(amqp.CHANNELS + 10)
    )
    assert len(listened(opened, [1 << 20])) == amqp.CHANNELS


# Go's RPC


def heard(data: bytes, sizes: list[int]) -> list[Call]:
    return list(rpc_.calls(in_pieces(data, sizes)))


SAID = rpc("Node.UpdateAlloc", 7, {"Alloc": [{"ID": "a"}]})


@pytest.mark.parametrize("begin", [b"", b"\x03", b"\x06"])
@given(st.lists(st.integers(12, 60), min_size=1, max_size=5))
def test_rpc_in_streams(begin: bytes, sizes: list[int]) -> None:
    back = b"\x01" + rpc("Alloc.GetAllocs", 1, {"Allocs": []}, error="")
    ping, window = pack("!BBHII", 0, 2, 1, 0, 7), pack("!BBHII", 0, 1, 0, 3, 300_000)
    data = (
        yamux(1, SAID[:9], 1) + ping + yamux(3, back[:20]) + window + yamux(1, SAID[9:]) + yamux(3, back[20:])
    )
    first, *rest = in_pieces(data, sizes)
    found = list(rpc_.calls([first._replace(data=begin + first.data), *rest]))
    assert [(one.method, one.sequence, one.answers, one.body) for one in found] == [
        ("Node.UpdateAlloc", 7, False, {"Alloc": [{"ID": "a"}]}),
        ("Alloc.GetAllocs", 1, True, {"Allocs": []}),
    ]


@given(st.lists(st.integers(1, 60), min_size=1, max_size=5))
def test_rpc_alone_on_its_connection(sizes: list[int]) -> None:
    found = heard(b"\x01" + SAID + rpc("Status.Ping", 8, None), sizes)
    assert [(one.method, one.body) for one in found] == [
        ("Node.UpdateAlloc", {"Alloc": [{"ID": "a"}]}),
        ("Status.Ping", None),
    ]


def test_rpc_goes_on_behind_a_hole() -> None:
    frames = [yamux(1, SAID[:9]), yamux(1, SAID), yamux(1, SAID)]
    pieces = [Piece(at_, at_, data, hole=5 * at_) for at_, data in enumerate(frames)]
    assert len(list(rpc_.calls(pieces))) == 2
    plain = [Piece(0, 0, SAID[:9]), Piece(1, 1, SAID, hole=3)]
    assert len(list(rpc_.calls(plain))) == 1


def test_rpc_objects_that_make_no_sense() -> None:
    odd = [
        b"\xc1",
        msgpack.packb({"ServiceMethod": 7, "Seq": "x"}) + msgpack.packb(1),
        msgpack.packb([1, 2]),
        b"\x81\x91\x01\x02",
        b"\xdd\xff\xff\xff\xff",
    ]
    data = b"".join(yamux(at_, one) for at_, one in enumerate(odd, 1)) + yamux(99, SAID)
    found = heard(data, [10_000])
    assert [one.method for one in found] == ["", "Node.UpdateAlloc"]
    assert heard(yamux(1, SAID) + b"no frame follows here", [10_000])


def test_streams_are_bounded() -> None:
    begun = b"".join(yamux(at_ + 1, SAID[:9]) for at_ in range(rpc_.STREAMS + 1))
    # The first one had to give way.
    assert len(heard(begun + yamux(2, SAID[9:]), [1 << 20])) == 1
    assert len(heard(begun + yamux(1, SAID[9:]), [1 << 20])) == 0


# libvirt


def virt(procedure: int, kind: int, serial: int, status: int = 0, body: bytes = b"") -> bytes:
    return pack("!IIIIIII", 28 + len(body), 0x20008086, 1, procedure, kind, serial, status) + body


@given(st.lists(st.integers(1, 60), min_size=1, max_size=5))
def test_libvirt_calls_and_their_replies(sizes: list[int]) -> None:
    asked = virt(1, 0, 1) + virt(10, 0, 2, body=b"<domain>uuid</domain>") + virt(9, 0, 3, body=b"other")
    replied = virt(1, 1, 1) + virt(10, 1, 2) + virt(9, 1, 3, status=1)
    found = list(libvirt.domains(in_pieces(asked, sizes), in_pieces(replied, sizes)))
    assert [(one.starts, one.body, one.failed, one.span.whole) for one in found] == [
        (True, b"<domain>uuid</domain>", False, True),
        (True, b"other", True, True),
    ]


def test_libvirt_without_a_reply_or_with_a_hole() -> None:
    (one,) = libvirt.domains([Piece(1, 1, virt(11, 0, 2, body=b"xml"))], [Piece(2, 2, b"x" * 40)])
    assert (one.starts, one.span.whole, one.failed) == (False, False, False)
    cut = [Piece(1, 1, virt(9, 0, 2, body=b"long" * 9)[:40]), Piece(2, 2, virt(9, 0, 3), hole=24)]
    assert [one.span.number for one in libvirt.domains(cut, [])] == [2]


# Anything


@settings(max_examples=300)
@given(
    st.sampled_from([request("POST", "/x", {"a": 1}), answer(200, {"b": 2}), publish(oslo("x")), SAID, yamux(1, SAID)]),
    st.randoms(use_true_random=False),
    st.lists(st.integers(1, 80), min_size=1, max_size=4),
    st.integers(0, 4),
)  # fmt: skip
def test_mutated_bytes_never_break_a_reader(
    data: bytes, chance: random.Random, sizes: list[int], holes: int
) -> None:
    mutated = bytearray(data * 3)
    for _ in range(chance.randrange(1, 12)):
        mutated[chance.randrange(len(mutated))] = chance.randrange(256)
    pieces = in_pieces(bytes(mutated), sizes)
    for _ in range(holes):
        at_ = chance.randrange(len(pieces))
        pieces[at_] = pieces[at_]._replace(hole=chance.choice([1, 50, 1 << 29]))
    read_all(pieces)


@given(st.lists(st.binary(max_size=90), max_size=8))
def test_any_bytes_never_break_a_reader(parts: list[bytes]) -> None:
    read_all([Piece(at_, at_, part) for at_, part in enumerate(parts) if part])


def read_all(pieces: list[Piece]) -> None:
    list(amqp.casts(pieces))
    list(rpc_.calls(pieces))
    list(libvirt.domains(pieces, pieces))
    http_.speaks_http(pieces)
    amqp.speaks_amqp(pieces)
    rpc_.speaks_rpc(pieces)
    wire = Wire()
    talk = wire.open("198.51.100.2:80")
    for piece in pieces:
        talk.ask(1, piece.data)
        talk.answer(1, piece.data)
        talk.sequences = {end: (at_ + piece.hole) % 2**32 for end, at_ in talk.sequences.items()}
    for connection in connections(wire.segments):
        exchanges(connection)


def test_paths_in_documents() -> None:
    document = json.loads('{"a": [{"b": 1}], "c": null}')
    assert at(document, "a", 0, "b") == 1
    assert at(document, "a", 1) is None
    assert at(document, "a", "b") is None
    assert at(document, "c", "d") is None
    assert at(7, "a") is None
