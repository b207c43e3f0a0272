"""The VIM Message Analyzer: two ends of one connection say anything whatever, in pieces, some of them lost."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from struct import pack

from tof.errors import TofError
from tof.vim.analyzer import report
from tof.vim.analyzer.analysis import ANALYSERS, analyse, read
from tof.vim.analyzer.phases import phases, total
from tof.wire.capture import Frame, dump

_RAW = 101
_ENDS = bytes((192, 0, 2, 1)), bytes((198, 51, 100, 2))
_SEPARATOR = b"\xff\xfe"


def vim(data: bytes) -> None:
    """Phases are never negative and add up to the whole; what is found is not missing; nothing else comes out."""
    with suppress(TofError):
        read(data)
    messages = read(dump(_frames(data), link_type=_RAW))
    for name in ANALYSERS:
        with suppress(TofError):
            analysis = analyse(messages, name)
            keys = {milestone.key for milestone in analysis.milestones}
            for one in analysis.instantiations:
                assert keys >= {*one.reached, *one.missing}
                assert not one.reached.keys() & one.missing.keys()
                lasted = phases(analysis, one)
                assert all(phase.seconds >= 0 for phase in lasted)
                whole = total(analysis, one)
                assert whole is None or abs(sum(phase.seconds for phase in lasted) - whole) < 1e-6
            report.document("x", messages, analysis)
            list(report.missing_rows(analysis))


def _frames(data: bytes) -> Iterator[Frame]:
    """First octet: how long a piece is; then what is said in turns, between separators; 0xFD begins a piece that is lost."""
    size = 1 + (data[0] if data else 0)
    sequences = [1, 1]
    number = 0
    for turn, said in enumerate(data[1:].split(_SEPARATOR)):
        end = turn % 2
        for start in range(0, len(said), size):
            piece = said[start : start + size]
            number += 1
            ports = (40_000, 80) if end == 0 else (80, 40_000)
            segment = pack("!HHIIBBHHH", *ports, sequences[end], 0, 0x50, 0x18, 9000, 0, 0) + piece
            head = pack("!BBHHHBBH", 0x45, 0, 20 + len(segment), 0, 0, 64, 6, 0)
            packet = head + _ENDS[end] + _ENDS[1 - end] + segment
            sequences[end] += len(piece)
            if piece[0] != 0xFD:
                yield Frame(number, number * 1_000_000, packet, len(packet), _RAW)


def conversations() -> Iterator[bytes]:
    """What VIMs say, shortened."""
    server = b"0d3cd08e-e542-11f1-ad55-e3249f243601"
    told = b'{"server": {"id": "%s", "status": "ACTIVE"}}' % server
    answer = b"HTTP/1.1 %s X\r\nX-OpenStack-Request-ID: req-1\r\nContent-Length: %d\r\n\r\n%s"
    ok = answer % (b"200", len(told), told)
    for path in (b"/v2.1/servers", b"/openvim/t/servers"):
        asked = b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 14\r\n\r\n" % path + b'{"server": {}}'
        poll = b"GET %s/%s HTTP/1.1\r\nHost: x\r\n\r\n" % (path, server)
        yield _SEPARATOR.join((b"\xc8" + asked, ok, poll, ok))
        yield _SEPARATOR.join((b"\x20" + asked, answer % (b"403", 26, b'{"forbidden": {"code": 4}}')))
    job = b'{"Job": {"ID": "w"}}'
    shown = b'[{"ID": "a", "JobID": "w", "ClientStatus": "running"}]'
    yield _SEPARATOR.join((
        b"\xff" + b"PUT /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(job), job),
        answer % (b"200", 15, b'{"EvalID": "e"}'),
        b"GET /v1/job/w/allocations HTTP/1.1\r\nHost: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(shown), shown),
    ))  # fmt: skip
    body = b'{"oslo.message": "{\\"method\\": \\"build_and_run_instance\\", \\"_context_request_id\\": \\"req-1\\"}"}'
    method = pack("!HHH", 60, 40, 0) + b"\x04nova\x07compute\0"
    frames = ((1, method), (2, pack("!HHQH", 60, 0, len(body), 0)), (3, body))
    yield b"\xff" + b"".join(pack("!BHI", kind, 1, len(one)) + one + b"\xce" for kind, one in frames)
    call = b"\x82\xadServiceMethod\xb0Node.UpdateAlloc\xa3Seq\x07\x81\xa5Alloc\x91\x82\xa2ID\xa1a\xacClientStatus\xa7running"
    yield b"\xff\x03" + pack("!BBHII", 0, 0, 0, 1, len(call)) + call
    yield b"\xff\x01" + call
    xml = b"<uuid>%s</uuid>" % server
    yield b"\xff" + pack("!IIIIIII", 28 + len(xml), 0x20008086, 1, 10, 0, 1, 0) + xml
