"""tof.vim.analyzer: the recordings of real servers, and captures of other versions, deployments and faults by hand."""

from __future__ import annotations

import random
import re
from contextlib import suppress
from pathlib import Path
from struct import pack
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.nova_talk import IMAGE, Cloud, request_id, server_id
from tests.vim_wire import LINKS, RECORDED, Wire, answer, recorded, request, rpc, yamux
from tof.errors import DecodeError, TofError
from tof.vim.analyzer import report
from tof.vim.analyzer.analysis import NothingFoundError, analyse, read
from tof.vim.analyzer.phases import Analysis, Instantiation, Outcome, phases, since_request, total
from tof.wire.capture import Frame, dump, frames

SHARED = Path(__file__).parents[3] / "shared" / "vim" / "recordings"
NOVA, NOMAD = "vim_nova_zed_create", "vim_nomad_0.8.7_five_jobs"


def of(data: bytes | Wire | Cloud, vim: str | None = None) -> Analysis:
    if isinstance(data, Cloud):
        data = data.wire
    return analyse(read(data.pcap() if isinstance(data, Wire) else data), vim)


def only(analysis: Analysis) -> Instantiation:
    (one,) = analysis.instantiations
    return one


def ms(values: Any) -> dict[str, float]:
    return {key: round(seconds * 1000, 3) for key, seconds in values.items()}


def phases_ms(analysis: Analysis, one: Instantiation) -> dict[str, float]:
    return {phase.key: round(phase.seconds * 1000, 3) for phase in phases(analysis, one)}


# Recordings


def test_the_recording_of_nova() -> None:
    """The milestones as they were measured beforehand, in whole milliseconds."""
    analysis = of(recorded(NOVA))
    one = only(analysis)
    assert (analysis.vim, one.name, one.outcome) == ("nova", "app1", Outcome.ACTIVE)
    assert {key: round(seconds * 1000) for key, seconds in since_request(one).items()} == {
        "image": 13,
        "conductor": 550,
        "accepted": 554,
        "scheduler": 568,
        "allocation": 1000,
        "compute": 1076,
        "port": 2150,
        "changed": 2985,
        "plugged": 4371,
        "active": 4633,
    }
    assert not one.missing
    lasted = phases_ms(analysis, one)
    assert list(lasted) == [
        "image",
        "conductor",
        "scheduler",
        "allocation",
        "compute",
        "port",
        "plugged",
        "active",
    ]
    assert sum(lasted.values()) == pytest.approx((total(analysis, one) or 0) * 1000, abs=0.01)


def test_the_recording_of_nomad() -> None:
    """Held against the packets: what is looked for stands in them in the clear."""
    data = recorded(NOMAD)
    analysis = of(data)
    assert analysis.vim == "nomad"
    assert [one.key for one in analysis.instantiations] == [f"example{at}" for at in range(1, 6)]
    captured = list(frames(data))
    for one in analysis.instantiations:
        job = one.key.encode()
        asked = next(f for f in captured if b"PUT /v1/jobs " in f.data and b'"ID": "%s"' % job in f.data)
        carried = next(
            f for f in captured if b"Alloc.GetAllocs" in f.data and b"\xa5JobID\xa8" + job in f.data
        )
        carries = re.findall(rb"\xa2ID\xda\x00\x24([0-9a-f-]{36})", carried.data)
        ran = next(
            f
            for f in captured
            if b"Node.UpdateAlloc" in f.data and b"\xa7running" in f.data and f.number > carried.number
            if any(one in f.data for one in carries)
        )
        assert (one.outcome, one.missing) == (Outcome.ACTIVE, {})
        lasted = phases(analysis, one)
        assert [phase.key for phase in lasted] == ["scheduling", "driver"]
        assert lasted[0].seconds * 1e9 == pytest.approx(carried.time_ns - asked.time_ns, abs=1)
        assert lasted[1].seconds * 1e9 == pytest.approx(ran.time_ns - carried.time_ns, abs=1)


def test_the_transcript_of_openvim() -> None:
    analysis = of((RECORDED / "vim_openvim_transcript.txt").read_bytes())
    assert analysis.vim == "openvim"
    made, clash, invalid, no_image = analysis.instantiations
    assert (made.name, made.outcome, ms(since_request(made))) == ("app1", Outcome.ACTIVE, {"rest": 16.0})
    assert made.missing["active"] == "a transcript has no times between requests"
    assert total(analysis, made) is None
    assert [one.fault.partition(":")[0] for one in (clash, invalid, no_image)] == [
        "HTTP 409",
        "HTTP 400",
        "HTTP 404",
    ]
    assert "already in use for 'mac'" in clash.fault


@pytest.mark.parametrize(
    ("name", "vim", "count"), [("nova-create-zed", "nova", 1), ("nomad-0.8.7-two-node", "nomad", 5)]
)
def test_the_whole_recordings(name: str, vim: str, count: int) -> None:
    if not SHARED.is_dir():
        pytest.skip("no shared recordings beside the checkout; the vectors hold what matters of them")
    analysis = of((SHARED / f"{name}.pcap").read_bytes())
    assert (analysis.vim, len(analysis.instantiations)) == (vim, count)
    assert all(one.outcome is Outcome.ACTIVE and not one.missing for one in analysis.instantiations)


def test_a_recording_in_any_form_says_the_same() -> None:
    plain = of(recorded(NOMAD))
    captured = list(frames(recorded(NOMAD)))
    packed = (RECORDED / f"{NOMAD}.pcap.gz").read_bytes()
    assert of(packed) == plain
    for order in "<>":
        assert of(pcapng(captured, order)) == plain
    shuffled = sorted(captured, key=lambda one: (one.time_ns // 300_000, one.number * 7919 % 13))
    doubled = [one for each in shuffled for one in (each, each)]
    moved = of(dump(doubled, link_type=276))
    assert [ms(since_request(one)) for one in moved.instantiations] == [
        ms(since_request(one)) for one in plain.instantiations
    ]


def pcapng(captured: list[Frame], order: str) -> bytes:
    def block(kind: int, body: bytes) -> bytes:
        body += bytes(-len(body) % 4)
        return pack(order + "II", kind, len(body) + 12) + body + pack(order + "I", len(body) + 12)

    out = block(0x0A0D0D0A, pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1))
    out += block(1, pack(order + "HHIHHBxxx", captured[0].link_type, 0, 0, 9, 1, 9))
    for one in captured:
        head = pack(
            order + "IIIII",
            0,
            one.time_ns >> 32,
            one.time_ns & 0xFFFFFFFF,
            len(one.data),
            one.original_length,
        )
        out += block(6, head + one.data)
    return out


# Nova


WANTED = {
    "image": 10,
    "conductor": 40,
    "scheduler": 20,
    "allocation": 20,
    "compute": 10,
    "port": 200,
    "plugged": 400,
    "active": 300,
}


def test_a_server_by_hand() -> None:
    cloud = Cloud()
    cloud.created(5, 1)
    analysis = of(cloud)
    one = only(analysis)
    assert phases_ms(analysis, one) == WANTED
    assert (total(analysis, one), one.fault) == (1.0, "")
    assert list(one.missing) == ["changed"]


@pytest.mark.parametrize("tags", [0, 1])
@pytest.mark.parametrize("link", LINKS)
def test_any_link_type(link: int, tags: int) -> None:
    cloud = Cloud()
    cloud.created(5, 1)
    analysis = of(dump(cloud.wire.frames(link, tags), link_type=link))
    assert phases_ms(analysis, only(analysis)) == WANTED


def test_other_ports_and_an_older_version() -> None:
    """No request ids handed on, tenants in paths, POST /ports, messages without an envelope, small AMQP frames."""
    cloud = Cloud(ports={"nova": 18774, "rabbit": 15672, "glance": 80}, hands_on=False, frame_max=50)
    cloud.requested(0, 1, path="/v2/3684099bb236437c8acb6e90315ed0ae/servers")
    cloud.image(10, 1)
    cloud.told(50, "build_instances", 1, {"instances": [{"uuid": server_id(1), "hostname": "old"}]})
    cloud.told(70, "select_destinations", 1, {"request_spec": {"instance_uuids": [server_id(1)]}})
    cloud.compute(100, 1)
    cloud.port(300, 1, "POST")
    cloud.event(700, 1, "network-changed")
    cloud.event(750, 1)
    cloud.event(800, 1)
    cloud.saved(1000, 1)
    one = only(of(cloud))
    assert ms(since_request(one)) == {
        "image": 10, "conductor": 50, "accepted": 54, "scheduler": 70, "compute": 100, "port": 300, "changed": 700,
        "plugged": 800, "active": 1000,
    }  # fmt: skip
    assert one.missing == {"allocation": "no such message is in the capture"}


def test_another_order_of_messages_still_adds_up() -> None:
    cloud = Cloud()
    cloud.requested(0, 1)
    cloud.allocation(60, 1)
    cloud.scheduler(65, 1)
    cloud.conductor(80, 1)
    cloud.event(90, 1)
    cloud.compute(100, 1)
    cloud.port(150, 1)
    cloud.saved(200, 1)
    cloud.event(900, 1)
    analysis = of(cloud)
    one = only(analysis)
    assert phases_ms(analysis, one) == {
        "allocation": 60, "scheduler": 5, "conductor": 15, "plugged": 10, "compute": 10, "port": 50, "active": 50,
    }  # fmt: skip
    assert total(analysis, one) == 0.2


@given(st.lists(st.integers(0, 3000), min_size=2, max_size=8, unique=True))
@settings(max_examples=30, deadline=None)
def test_several_servers_at_once_are_told_apart(begins: list[int]) -> None:
    cloud = Cloud()
    for number, begin in enumerate(begins, 1):
        cloud.created(begin, number)
    analysis = of(cloud)
    assert {one.key for one in analysis.instantiations} == {server_id(at) for at in range(1, len(begins) + 1)}
    assert all(phases_ms(analysis, one) == WANTED for one in analysis.instantiations)
    found = report.summary(analysis)
    assert found.total is not None
    assert found.total[0] == pytest.approx(1)
    assert found.total[1] == pytest.approx(0, abs=1e-9)


def test_several_servers_of_one_request() -> None:
    cloud = Cloud()
    cloud.requested(0, 1)
    cloud.conductor(60, 1)
    cloud.compute(100, 1)
    cloud.compute(110, 1, server=2)
    cloud.saved(500, 1)
    cloud.saved(600, 2)
    analysis = of(cloud)
    assert [(one.key, one.name, total(analysis, one)) for one in analysis.instantiations] == [
        (server_id(1), "app1", 0.5),
        (server_id(2), "app1", 0.6),
    ]
    assert [ms(since_request(one))["compute"] for one in analysis.instantiations] == [100, 110]


def test_a_quota_that_is_exceeded() -> None:
    cloud = Cloud()
    cloud.requested(0, 1, 403, {"forbidden": {"code": 403, "message": "Quota exceeded for cores"}})
    cloud.created(100, 2)
    refused, made = of(cloud).instantiations
    assert (refused.outcome, refused.fault) == (Outcome.FAILED, "HTTP 403: Quota exceeded for cores")
    assert set(refused.missing.values()) == {"Nova refused the request"}
    assert made.outcome is Outcome.ACTIVE


def test_a_refusal_without_words() -> None:
    cloud = Cloud()
    cloud.requested(0, 1, 503, [])
    assert only(of(cloud)).fault == "HTTP 503"


def test_no_valid_host_is_found_in_the_schedulers_answer() -> None:
    cloud = Cloud()
    cloud.requested(0, 1)
    cloud.conductor(50, 1)
    cloud.scheduler(70, 1)
    cloud.no_valid_host(90, 1)
    analysis = of(cloud)
    one = only(analysis)
    assert (one.outcome, one.fault) == (Outcome.FAILED, "NoValidHost: No valid host")
    assert (one.missing["active"], one.missing["compute"]) == ("it failed", "it failed before")
    assert phases_ms(analysis, one) == {"conductor": 50, "scheduler": 20}
    assert report.summary(analysis).total is None


@pytest.mark.parametrize(
    ("failure", "fault"),
    [
        ('{"class": "X"}', "X: "),
        ('{"message": "why"}', "why"),
        ("no json", "the scheduler failed"),
        ("{}", "the scheduler failed"),
    ],
)
def test_odd_failures_of_the_scheduler(failure: str, fault: str) -> None:
    from tests.vim_wire import oslo

    cloud = Cloud()
    cloud.requested(0, 1)
    cloud.scheduler(70, 1)
    cloud.cast(90, oslo("", failure=failure, _msg_id="msg1"))
    assert only(of(cloud)).fault == fault


def test_a_fault_that_a_client_saw_says_more() -> None:
    cloud = Cloud()
    cloud.requested(0, 1)
    cloud.compute(100, 1)
    cloud.saved(300, 1, "error")
    cloud.polled(400, 1, "ERROR", "Exceeded maximum number of retries")
    assert only(of(cloud)).fault == "Exceeded maximum number of retries"
    cloud = Cloud()
    cloud.requested(0, 1)
    cloud.saved(300, 1, "error")
    assert only(of(cloud)).fault == "its vm_state became error"


def test_only_rest_in_the_clear() -> None:
    cloud = Cloud()
    cloud.requested(0, 1)
    cloud.port(100, 1)
    cloud.polled(200, 1, "BUILD")
    cloud.polled(300, 1, "ACTIVE")
    analysis = of(cloud)
    one = only(analysis)
    assert (total(analysis, one), one.missing["compute"]) == (0.301, "the capture has no AMQP")
    assert one.remarks == ["the end is when a client saw ACTIVE: Nova's own message is not in the capture"]


def test_only_amqp_in_the_clear() -> None:
    cloud = Cloud()
    cloud.conductor(50, 1)
    cloud.compute(100, 1)
    cloud.saved(300, 1)
    analysis = of(cloud)
    one = only(analysis)
    assert (one.name, one.began_ns, phases(analysis, one), total(analysis, one)) == ("app1", None, [], None)
    assert ms(since_request(one)) == {"conductor": 0, "compute": 50, "active": 250}
    assert "POST /servers is not in the capture" in one.remarks[0]
    assert report.document("x", read(cloud.wire.pcap()), analysis)["instantiations"][0]["requested"] is None


def test_a_request_without_an_answer() -> None:
    cloud = Cloud()
    cloud.requested(0, 1)
    cloud.talk("nova", "1")
    cloud.wire.segments = [one for one in cloud.wire.segments if one.source.port != 8774]
    one = only(of(cloud))
    assert (one.key, one.outcome) == ("packet 2", Outcome.UNFINISHED)
    assert set(one.missing.values()) == {
        "the request has no answer in the capture, so the server's id is not known"
    }


def test_the_end_is_not_in_the_capture() -> None:
    cloud = Cloud()
    cloud.created(0, 1)
    cloud.created(50, 2)
    segments = cloud.wire.segments
    cloud.wire.segments = [one for one in segments if one.time_ns < segments[0].time_ns + 1_020_000_000]
    done, cut = of(cloud).instantiations
    assert (done.outcome, cut.outcome) == (Outcome.ACTIVE, Outcome.UNFINISHED)
    assert cut.missing["active"] == "the capture has no end of it"


def test_a_proxy_in_front_is_no_second_request() -> None:
    cloud = Cloud()
    cloud.created(0, 1)
    cloud.talks.pop("nova 1")
    cloud.requested(3, 1)
    analysis = of(cloud)
    assert total(analysis, only(analysis)) == 1.0


def test_saves_of_other_things_and_odd_messages_are_no_end() -> None:
    cloud = Cloud()
    cloud.requested(0, 1)
    cloud.saved(100, 1, "active", changes=("task_state",))
    cloud.saved(150, 1, "building")
    cloud.told(160, "object_action", 1, {"objmethod": "save", "objinst": 7})
    cloud.told(170, "build_and_run_instance", 1, ["odd"])
    cloud.saved(200, 1)
    analysis = of(cloud)
    assert total(analysis, only(analysis)) == 0.2


def test_placement_takes_several_at_once_too() -> None:
    cloud = Cloud()
    cloud.requested(0, 1)
    raw = request("POST", "/allocations", {server_id(1): {"allocations": {}}})
    cloud.ask("placement", 60, raw, answer(204))
    cloud.ask("placement", 61, request("POST", "/allocations", [1]), answer(400))
    cloud.saved(100, 1)
    assert ms(since_request(only(of(cloud))))["allocation"] == 60


def test_a_clients_own_request_id_is_handed_on_to_glance() -> None:
    """One id for all of its requests: only Glance's messages have no better one."""
    cloud = Cloud()
    for number, begin in ((1, 0), (2, 30)):
        asked = request(
            "POST",
            "/v2.1/servers",
            {"server": {"imageRef": f"http://glance/{server_id(7)}"}},
            [("X-OpenStack-Request-ID", "req-mine")],
        )
        back = answer(
            202, {"server": {"id": server_id(number)}}, [("X-OpenStack-Request-ID", request_id(number))]
        )
        cloud.ask("nova", begin, asked, back, 20, client=str(number))
        image = request("GET", f"/v2/images/{server_id(7)}", None, [("X-OpenStack-Request-ID", "req-mine")])
        cloud.ask("glance", begin + 5, image, answer(200))
        cloud.saved(begin + 100, number)
    assert [ms(since_request(one))["image"] for one in of(cloud).instantiations] == [5, 5]


def test_kernel_and_ramdisk_are_no_image_of_the_server() -> None:
    cloud = Cloud()
    cloud.requested(0, 1)
    for after_ms, image in ((5, server_id(8)), (7, IMAGE), (9, IMAGE)):
        raw = request("GET", f"/v2/images/{image}", None, [("X-OpenStack-Request-ID", request_id(1))])
        cloud.ask("glance", after_ms, raw, answer(200))
    assert ms(since_request(only(of(cloud))))["image"] == 7


# What is wrong with captures


@pytest.mark.parametrize(
    ("snap_length", "found", "why"),
    [
        (96, {"accepted"}, "the answer is cut or no JSON, so the server's id is not known"),
        (
            300,
            {"accepted", "image", "allocation", "port", "plugged", "scheduler"},
            "none of this server's is in the capture",
        ),
        (
            420,
            {"accepted", "image", "allocation", "port", "plugged", "scheduler", "conductor", "compute"},
            "",
        ),
    ],
)
def test_a_capture_with_a_snap_length_is_read_as_far_as_it_goes(
    snap_length: int, found: set[str], why: str
) -> None:
    cloud = Cloud()
    cloud.created(5, 1)
    cut = [one._replace(data=one.data[:snap_length]) for one in cloud.wire.frames()]
    messages = read(dump(cut))
    assert "cut by the capture's snap length" in messages.notes[0]
    one = only(analyse(messages))
    assert (set(one.reached), one.outcome) == (found, Outcome.UNFINISHED)
    assert one.missing.get("compute", "") == why
    whole = since_request(only(of(cloud)))
    assert all(after_s == whole[key] for key, after_s in since_request(one).items())


def test_the_answers_location_names_the_server_too() -> None:
    cloud = Cloud()
    asked, location = (
        request("POST", "/v2.1/servers", {"server": {}}),
        f"http://nova/v2.1/servers/{server_id(1)}",
    )
    cloud.ask("nova", 0, asked, answer(202, None, [("Location", location)]))
    cloud.saved(100, 1)
    assert only(of(cloud)).key == server_id(1)
    cloud = Cloud()
    cloud.ask("nova", 0, asked, answer(202, None, [("Location", location)]))
    assert only(of(cloud)).key == server_id(1)


def test_lost_packets_are_named() -> None:
    cloud = Cloud()
    cloud.created(5, 1)
    messages = read(dump([one for one in cloud.wire.frames() if b"build_and_run" not in one.data]))
    assert re.fullmatch(
        r"\d+ bytes of 192\.0\.2\.1:\d+ - 198\.51\.100\.2:5672 are not in the capture", messages.notes[0]
    )
    analysis = analyse(messages)
    one = only(analysis)
    assert one.missing["compute"] == "no such message is in the capture"
    # Its time is in the next phase.
    assert phases_ms(analysis, one) == {**{k: v for k, v in WANTED.items() if k != "compute"}, "port": 210}


def test_what_ran_while_bytes_were_lost_is_in_doubt() -> None:
    """A first message that is lost may have a later one like it; only that can be told."""
    cloud = Cloud()
    cloud.created(0, 1)
    cloud.created(2000, 2)
    lost = re.compile(b"build_and_run.*" + server_id(1).encode(), re.DOTALL)
    captured = [one for one in cloud.wire.frames() if not lost.search(one.data)]
    first, second = of(dump(captured)).instantiations
    assert first.remarks == ["bytes were lost while it ran: what is missing, or seen late, may be in them"]
    assert second.remarks == []


def test_an_answer_of_something_else_is_none() -> None:
    """The answer is lost, and the next request: what comes then is that one's."""
    cloud = Cloud()
    cloud.requested(0, 1, 200, {"server": {"id": server_id(1), "status": "BUILD"}})
    assert only(of(cloud)).missing["active"] == "its answer is lost: HTTP 200 is not Nova's to this"


def test_losses_of_several_connections_are_one_note() -> None:
    cloud = Cloud()
    cloud.created(5, 1)
    cloud.created(2000, 2)
    lost = re.compile(rb"PUT /v2\.0.*%s|build_and_run" % server_id(1).encode(), re.DOTALL)
    (note,) = read(dump([one for one in cloud.wire.frames() if not lost.search(one.data)])).notes
    assert re.match(r"\d+ bytes of 2 connections, most of .*:5672, are not in the capture$", note)


def test_a_file_that_ends_in_a_packet_is_read_up_to_there() -> None:
    messages = read(recorded(NOMAD)[:-5])
    assert messages.notes == [
        "the file ends in the middle of packet 552; the 551 packets before that were read"
    ]
    assert len(analyse(messages).instantiations) == 5


def test_packets_that_do_not_parse_are_named() -> None:
    captured = list(frames(recorded(NOMAD)))
    captured.insert(3, Frame(4, captured[3].time_ns, b"\x08", 1, 276))
    messages = read(dump(captured, link_type=276))
    assert (
        messages.notes == ["1 packets do not parse (link_truncated), the first is packet 4"]
        or "packet 4" in messages.notes[0]
    )


@pytest.mark.parametrize(
    ("said", "note"),
    [
        (b"\x16\x03\x01\0\x10" + bytes(16), "encrypted (TLS)"),
        (b"\x04\x16\x03\x01\0\x10", "encrypted (TLS)"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "HTTP/2"),
    ],
)
@pytest.mark.parametrize("syn", [True, False])
def test_what_cannot_be_read_is_named(said: bytes, note: str, syn: bool) -> None:
    wire = Wire()
    wire.open("198.51.100.2:4647", syn=syn).ask(1, said)
    assert read(wire.pcap()).notes == [
        f"a connection is {note} (198.51.100.2:4647): nothing in it can be read"
    ]
    with pytest.raises(NothingFoundError, match="no instantiation of nova or nomad or openvim"):
        of(wire)
    wire.open("198.51.100.2:4647", syn=syn).ask(1, said)
    assert "2 connections are" in read(wire.pcap()).notes[0]


def test_a_forged_packet_is_left_out_and_named() -> None:
    cloud = Cloud()
    cloud.created(5, 1)
    wire, talk = cloud.wire, cloud.talk("rabbit")
    wire.add(200, talk.client, talk.server, talk.sequences[talk.client] + (1 << 31), b"far", 0x18)
    messages = read(cloud.wire.pcap())
    assert "out of all sequence" in messages.notes[0]
    analysis = analyse(messages)
    assert phases_ms(analysis, only(analysis)) == WANTED


def test_captures_of_two_vims_want_a_choice() -> None:
    cloud = Cloud()
    cloud.created(5, 1)
    talk = cloud.wire.open("198.51.100.2:4646")
    talk.ask(6, request("PUT", "/v1/jobs", {"Job": {"ID": "j"}}))
    with pytest.raises(NothingFoundError, match="of nova and nomad: choose one with --vim"):
        of(cloud)
    assert of(cloud, "nomad").vim == "nomad"
    with pytest.raises(NothingFoundError, match="no instantiation of openvim is in the capture"):
        of(cloud, "openvim")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "neither pcap nor pcapng"),
        (b"\x1f\x8bjunk", "broken gzip"),
        ((RECORDED / f"{NOMAD}.pcap.gz").read_bytes()[:500], "not a whole gzip"),
        (recorded(NOMAD)[:30], "ends in the middle of packet 1"),
    ],
)
def test_files_that_cannot_be_used(data: bytes, message: str) -> None:
    with pytest.raises(DecodeError, match=message):
        read(data)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from([NOMAD, "cloud"]), st.randoms(use_true_random=False))
def test_mutated_captures_are_read_or_refused(name: str, chance: random.Random) -> None:
    data = bytearray(MUTATED[name])
    for _ in range(chance.randrange(1, 60)):
        at = chance.randrange(len(data))
        data[at : at + chance.randrange(1, 5)] = chance.randbytes(chance.randrange(5))
    with suppress(TofError):
        analysis = of(bytes(data))
        report.document("x", read(bytes(data)), analysis)
        [*report.rows(analysis), *report.mean_rows(analysis), *report.missing_rows(analysis)]


@settings(max_examples=30, deadline=None)
@given(st.randoms(use_true_random=False))
def test_documents_of_any_shape_are_read(chance: random.Random) -> None:
    """Values of known messages, exchanged for others."""
    cloud = Cloud()
    cloud.created(5, 1)
    cloud.polled(1100, 1, "ACTIVE")
    data = cloud.wire.pcap()
    odd = [b'""', b"[]", b"{}", b"12", b"null"]
    for found in list(re.finditer(rb'"[a-z_-]{1,30}"', data)):
        if chance.random() < 0.1:
            word = chance.choice(odd).ljust(found.end() - found.start())
            data = data[: found.start()] + word + data[found.end() :]
    with suppress(TofError):
        report.document("x", read(data), of(data))


def _mutated() -> dict[str, bytes]:
    cloud = Cloud()
    cloud.created(5, 1)
    return {NOMAD: recorded(NOMAD), "cloud": cloud.wire.pcap()}


MUTATED = _mutated()


# Nomad


def nomad(
    *,
    plain: bool = False,
    status: str = "running",
    evaluation: str = "e1",
    tasks: Any = None,
    allocations: int = 1,
) -> Wire:
    """A job that is registered, placed and told of."""
    wire = Wire()
    http, talk = wire.open("198.51.100.2:80"), wire.open("198.51.100.2:81")
    wrap = (lambda data: data) if plain else (lambda data: yamux(1, data))
    http.ask(1, request("PUT", "/v1/jobs", {"Job": {"ID": "web"}}))
    http.answer(3, answer(200, {"EvalID": "e1"}))
    placed = [
        {
            "ID": f"a{at}",
            "JobID": "web",
            "EvalID": evaluation,
            "Job": {"ID": "web"},
            "ClientStatus": "pending",
        }
        for at in range(allocations)
    ]
    talk.ask(4, (b"\x01" if plain else b"\x03") + wrap(rpc("Alloc.GetAllocs", 1, {"AllocIDs": ["a0"]})))
    talk.answer(6, wrap(rpc("Alloc.GetAllocs", 1, {"Allocs": placed}, error="")))
    for begin, told in ((100, "pending"), (200, status), (300, status)):
        for at in range(allocations):
            update = [{"ID": f"a{at}", "ClientStatus": told, "TaskStates": tasks}]
            talk.ask(begin + at, wrap(rpc("Node.UpdateAlloc", 2, {"Alloc": update})))
    return wire


@pytest.mark.parametrize("plain", [True, False])
def test_a_job_by_hand(plain: bool) -> None:
    analysis = of(nomad(plain=plain))
    one = only(analysis)
    assert (one.key, phases_ms(analysis, one)) == ("web", {"scheduling": 5, "driver": 194})
    assert ms(since_request(one))["accepted"] == 2


def test_a_job_of_several_allocations() -> None:
    analysis = of(nomad(allocations=3))
    assert [(one.key, one.name, total(analysis, one)) for one in analysis.instantiations] == [
        ("a0", "web", 0.199),
        ("a1", "web", 0.2),
        ("a2", "web", 0.201),
    ]


@pytest.mark.parametrize(
    ("tasks", "fault"),
    [
        ({"app": {"Events": [{"DriverError": ""}, {"DriverError": "no binary"}]}}, "no binary"),
        (
            {"app": {"Events": [{"FailsTask": True, "DisplayMessage": "setup went wrong"}]}},
            "setup went wrong",
        ),
        (None, "the allocation is failed"),
        ({"app": 7}, "the allocation is failed"),
    ],
)
def test_an_allocation_that_fails(tasks: Any, fault: str) -> None:
    one = only(of(nomad(status="failed", tasks=tasks)))
    assert (one.outcome, one.fault, one.missing) == (Outcome.FAILED, fault, {"driver": "it failed"})


def test_an_allocation_that_is_over_at_once_or_never_told_of() -> None:
    one = only(of(nomad(status="complete")))
    assert (one.outcome, "upper bound" in one.remarks[0]) == (Outcome.ACTIVE, True)
    one = only(of(nomad(status="pending")))
    assert one.missing == {"driver": "nothing in the capture says that this allocation runs"}


def test_an_allocation_that_is_seen_late_has_no_scheduling() -> None:
    wire = Wire()
    http, talk = wire.open("198.51.100.2:80"), wire.open("198.51.100.2:81")
    http.ask(1, request("PUT", "/v1/jobs", {"Job": {"ID": "web"}}))
    http.answer(3, answer(200, {"EvalID": "e1"}))
    stopped = {"ID": "a", "JobID": "web", "EvalID": "e1", "Job": {}, "DesiredStatus": "stop"}
    talk.answer(400, yamux(1, rpc("Alloc.GetAllocs", 1, {"Allocs": [stopped]}, error="")))
    one = only(of(wire))
    assert one.missing["scheduling"] == "the answer that carried the allocation first is not in the capture"


def test_a_job_registered_again_is_its_own_instantiation() -> None:
    wire = nomad(evaluation="")
    http, talk = wire.open("198.51.100.2:80"), wire.open("198.51.100.2:81")
    http.ask(1001, request("POST", "/v1/job/web", {"Job": {}}))
    http.answer(1003, answer(200, {"EvalID": "e2"}))
    again = {"ID": "b0", "JobID": "web", "EvalID": "e2", "Job": {"ID": "web"}}
    talk.answer(1010, yamux(1, rpc("Alloc.GetAllocs", 9, {"Allocs": [again]}, error="")))
    talk.ask(1100, yamux(1, rpc("Node.UpdateAlloc", 2, {"Alloc": [{"ID": "b0", "ClientStatus": "running"}]})))
    analysis = of(wire)
    assert [phases_ms(analysis, one) for one in analysis.instantiations] == [
        {"scheduling": 5, "driver": 194},
        {"scheduling": 9, "driver": 90},
    ]


def test_a_job_that_finds_no_place() -> None:
    wire = Wire()
    http = wire.open("198.51.100.2:80")
    http.ask(1, request("PUT", "/v1/jobs", {"Job": {"ID": "web"}}))
    http.answer(3, answer(200, {"EvalID": "e1"}))
    why = {"NodesEvaluated": 1, "ConstraintFiltered": {"missing drivers": 1}, "DimensionExhausted": None}
    http.ask(5, request("GET", "/v1/evaluation/e1"))
    http.answer(6, answer(200, {"ID": "e1", "JobID": "web", "FailedTGAllocs": {"app": why, "db": {}}}))
    one = only(of(wire))
    assert (one.outcome, one.fault) == (
        Outcome.FAILED,
        "no place for group app: missing drivers (1); no place for group db: 0 nodes evaluated",
    )
    assert one.missing == dict.fromkeys(("scheduling", "driver"), "no allocation was placed")


def test_a_job_that_nomad_refuses() -> None:
    wire = Wire()
    http = wire.open("198.51.100.2:80")
    http.ask(1, request("PUT", "/v1/jobs", {"Job": {"ID": "web"}}))
    http.answer(3, answer(500, body=b"Enforcing job modify index 0: job already exists"))
    one = only(of(wire))
    assert (one.outcome, one.fault) == (
        Outcome.FAILED,
        "HTTP 500: Enforcing job modify index 0: job already exists",
    )


def test_nomad_without_its_rpc() -> None:
    wire = Wire()
    wire.open("198.51.100.2:80").ask(1, request("PUT", "/v1/jobs", {"Job": 7}))
    one = only(of(wire))
    assert one.key == "packet 3"
    assert one.missing == {
        "accepted": "no answer is in the capture",
        "scheduling": "the capture has no RPC of Nomad's",
        "driver": "the capture has no RPC of Nomad's",
    }


def test_nomad_on_a_single_node_shows_its_allocations_over_http() -> None:
    wire = Wire()
    http = wire.open("198.51.100.2:4646")
    http.ask(1, request("PUT", "/v1/jobs", {"Job": {"ID": "web"}}))
    http.answer(3, answer(200, {"EvalID": "e1"}))
    for at, status in ((5, "pending"), (150, "running"), (300, "complete")):
        http.ask(at, request("GET", "/v1/job/web/allocations?index=1"))
        shown = {"ID": "a0", "JobID": "web", "EvalID": "e1", "ClientStatus": status}
        http.answer(at + 1, answer(200, [shown, {"ID": "", "JobID": "web"}]))
    http.ask(400, request("GET", "/v1/allocation/a0"))
    analysis = of(wire)
    one = only(analysis)
    assert phases_ms(analysis, one) == {"scheduling": 5, "driver": 145}
    assert "a client of the API saw it" in one.remarks[0]


def test_the_rpc_is_believed_before_the_api() -> None:
    wire = nomad()
    http = wire.open("198.51.100.2:4646")
    http.ask(5, request("GET", "/v1/job/web/allocations"))
    shown = {"ID": "a0", "JobID": "web", "EvalID": "e1", "ClientStatus": "running"}
    http.answer(5, answer(200, [shown]))
    analysis = of(wire)
    assert phases_ms(analysis, only(analysis)) == {"scheduling": 5, "driver": 194}
    assert not only(analysis).remarks


# OpenVIM


def openvim(*, libvirt: bool = True, replies: bool = True, status: int = 0, state: str = "ACTIVE") -> Wire:
    """A server with its libvirt on TCP."""
    from tests.unit.test_vim_messages import virt

    wire = Wire()
    http, talk = wire.open("198.51.100.2:9080"), wire.open("198.51.100.3:16509")
    http.ask(0, request("POST", "/openvim/t1/servers", {"server": {"name": "app"}}))
    http.answer(11, answer(200, {"server": {"id": "u-1", "status": "CREATING"}}))
    if libvirt:
        talk.ask(200, virt(10, 0, 4, body=b"<uuid>u-1</uuid>"))
    if replies:
        talk.answer(360, virt(10, 1, 4, status))
    http.ask(390, request("GET", "/openvim/t1/servers/u-1"))
    http.answer(400, answer(200, {"server": {"id": "u-1", "status": state, "last_error": "no memory"}}))
    return wire


def test_openvim_by_hand() -> None:
    analysis = of(openvim())
    one = only(analysis)
    assert phases_ms(analysis, one) == {"rest": 11, "spawning": 189, "libvirt": 160, "active": 40}
    assert "upper bound" in one.remarks[0]


def test_openvim_without_its_libvirt() -> None:
    one = only(of(openvim(libvirt=False, replies=False)))
    assert "the capture has no libvirt RPC" in one.missing["spawning"]
    one = only(of(openvim(replies=False)))
    assert one.missing == {"libvirt": "libvirt's reply is not in the capture"}
    wire = openvim()
    wire.open("198.51.100.2:9080").ask(500, request("POST", "/openvim/t1/servers", {"server": {}}))
    other = of(wire).instantiations[1]
    assert other.missing["rest"] == "no answer is in the capture"
    assert other.missing["libvirt"] == "none of this server's domain is in the capture"


def test_openvim_servers_that_fail() -> None:
    one = only(of(openvim(status=1, state="ERROR")))
    assert (one.outcome, one.fault) == (Outcome.FAILED, "no memory")
    one = only(of(openvim(status=1, state="CREATING")))
    assert (one.outcome, one.fault) == (Outcome.FAILED, "libvirt refused the domain")
    one = only(of(openvim(state="CREATING")))
    assert (one.outcome, one.missing["active"]) == (
        Outcome.UNFINISHED,
        "the capture has no answer that says how it ended",
    )


def test_openvim_says_errors_with_200_too() -> None:
    wire = Wire()
    http = wire.open("198.51.100.2:9080")
    http.ask(0, request("POST", "/openvim/t1/servers", {"server": {"name": "app"}}))
    http.answer(9, answer(200, {"error": {"code": 400, "description": "no such flavour"}}))
    one = only(of(wire))
    assert (one.outcome, one.fault) == (Outcome.FAILED, "HTTP 200: no such flavour")
