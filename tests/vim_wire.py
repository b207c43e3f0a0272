"""TCP conversations written by hand into captures of any form, and what VIMs say in them."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from struct import pack
from typing import Any

import msgpack

from tof.vim.analyzer.segments import SYN, End, Segment
from tof.wire.capture import ETHERNET, Frame, dump

RECORDED = Path(__file__).parent / "vectors" / "recorded"
NULL, RAW, LOOP, SLL, SLL2 = 0, 101, 108, 113, 276
LINKS = (ETHERNET, NULL, RAW, LOOP, SLL, SLL2)
START_NS = 1_800_000_000_000_000_000


def end(text: str) -> End:
    address, _, port = text.rpartition(":")
    return End(ip_address(address.strip("[]")).packed, int(port))


@dataclass
class Talk:
    """One TCP connection."""

    wire: Wire
    client: End
    server: End
    sequences: dict[End, int]

    def ask(self, at_ms: float, data: bytes, mss: int = 1460) -> None:
        self._send(self.client, self.server, at_ms, data, mss)

    def answer(self, at_ms: float, data: bytes, mss: int = 1460) -> None:
        self._send(self.server, self.client, at_ms, data, mss)

    def _send(self, source: End, destination: End, at_ms: float, data: bytes, mss: int) -> None:
        for start in range(0, len(data), mss):
            chunk = data[start : start + mss]
            self.wire.add(at_ms, source, destination, self.sequences[source], chunk, 0x18)
            self.sequences[source] = (self.sequences[source] + len(chunk)) % 2**32


@dataclass
class Wire:
    """What a capture has seen."""

    segments: list[Segment] = field(default_factory=list)
    port: int = 40_000

    def open(
        self, server: str, client: str = "", at_ms: float = 0, *, syn: bool = True, sequence: int = 7000
    ) -> Talk:
        self.port += 1
        one, other = end(client or f"192.0.2.1:{self.port}"), end(server)
        talk = Talk(self, one, other, {one: sequence, other: sequence + 100})
        if syn:
            self.add(at_ms, one, other, sequence, b"", SYN)
            self.add(at_ms, other, one, sequence + 100, b"", SYN | 0x10)
            talk.sequences = {one: (sequence + 1) % 2**32, other: (sequence + 101) % 2**32}
        return talk

    def add(
        self, at_ms: float, source: End, destination: End, sequence: int, data: bytes, flags: int
    ) -> None:
        time_ns = START_NS + round(at_ms * 1_000_000)
        number = len(self.segments) + 1
        self.segments.append(Segment(number, time_ns, source, destination, sequence % 2**32, flags, data))

    def frames(self, link: int = ETHERNET, tags: int = 0) -> list[Frame]:
        ordered = sorted(self.segments, key=lambda one: (one.time_ns, one.number))
        return [frame(one, number, link, tags) for number, one in enumerate(ordered, 1)]

    def pcap(self) -> bytes:
        return dump(self.frames())


def frame(one: Segment, number: int = 1, link: int = ETHERNET, tags: int = 0) -> Frame:
    packet = ip_packet(one)
    kind = b"\x08\x00" if packet[0] >> 4 == 4 else b"\x86\xdd"
    tagged = b"".join(b"\x81\x00" + pack("!H", 100 + at) for at in range(tags)) + kind
    heads = {
        ETHERNET: bytes(12) + tagged,
        NULL: pack("<I", 2),
        LOOP: pack(">I", 2),
        RAW: b"",
        SLL: bytes(14) + tagged,
        SLL2: tagged[:2] + bytes(18) + tagged[2:],
    }
    data = heads[link] + packet
    return Frame(number, one.time_ns, data, len(data), link)


def ip_packet(one: Segment) -> bytes:
    head = pack(
        "!HHIIBBHHH", one.source.port, one.destination.port, one.sequence, 0, 0x50, one.flags, 9000, 0, 0
    )
    size = len(head) + len(one.data)
    if len(one.source.address) == 16:
        front = pack("!IHBB", 6 << 28, size, 6, 64) + one.source.address + one.destination.address
    else:
        front = pack("!BBHHHBBH", 0x45, 0, 20 + size, 0, 0, 64, 6, 0)
        front += one.source.address + one.destination.address
    return front + head + one.data


def recorded(name: str) -> bytes:
    return gzip.decompress((RECORDED / f"{name}.pcap.gz").read_bytes())


# HTTP


def request(
    method: str, target: str, document: Any = None, headers: Iterable[tuple[str, str]] = (), body: bytes = b""
) -> bytes:
    body = body if document is None else json.dumps(document).encode()
    lines = [f"{method} {target} HTTP/1.1", "Host: vim", *(f"{name}: {value}" for name, value in headers)]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def answer(
    status: int, document: Any = None, headers: Iterable[tuple[str, str]] = (), body: bytes = b""
) -> bytes:
    body = body if document is None else json.dumps(document).encode()
    lines = [f"HTTP/1.1 {status} X", *(f"{name}: {value}" for name, value in headers)]
    lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


# AMQP


def amqp_frame(kind: int, channel: int, payload: bytes) -> bytes:
    return pack("!BHI", kind, channel, len(payload)) + payload + b"\xce"


def short(text: str) -> bytes:
    return bytes((len(text),)) + text.encode()


def publish(
    body: bytes, key: str = "conductor", exchange: str = "nova", channel: int = 1, frame_max: int = 131_064
) -> bytes:
    method = pack("!HHH", 60, 40, 0) + short(exchange) + short(key) + b"\0"
    return _message(method, body, channel, frame_max)


def deliver(body: bytes, key: str = "conductor", channel: int = 1, frame_max: int = 131_064) -> bytes:
    method = pack("!HH", 60, 60) + short("tag") + pack("!QB", 1, 0) + short("nova") + short(key)
    return _message(method, body, channel, frame_max)


def get_ok(body: bytes, key: str = "conductor") -> bytes:
    method = pack("!HHQB", 60, 71, 1, 0) + short("nova") + short(key) + pack("!I", 0)
    return _message(method, body, 1, 131_064)


def _message(method: bytes, body: bytes, channel: int, frame_max: int) -> bytes:
    header = pack("!HHQH", 60, 0, len(body), 0x8000) + short("application/json")
    parts = [body[at : at + frame_max] for at in range(0, len(body), frame_max)]
    frames = [amqp_frame(1, channel, method), amqp_frame(2, channel, header)]
    return b"".join([*frames, *(amqp_frame(3, channel, part) for part in parts)])


def oslo(method: str, args: Any = None, request_id: str = "", **more: Any) -> bytes:
    inner = {"method": method, "args": args or {}, "_context_request_id": request_id, **more}
    return json.dumps({"oslo.version": "2.0", "oslo.message": json.dumps(inner)}).encode()


def oslo_answer(message_id: str, failure: Any = None) -> bytes:
    inner = {
        "result": None,
        "failure": failure and json.dumps(failure),
        "_msg_id": message_id,
        "ending": True,
    }
    return json.dumps({"oslo.version": "2.0", "oslo.message": json.dumps(inner)}).encode()


# Nomad


def yamux(stream: int, data: bytes, flags: int = 0) -> bytes:
    return pack("!BBHII", 0, 0, flags, stream, len(data)) + data


def rpc(method: str, sequence: int, body: Any, error: str | None = None) -> bytes:
    header = {"ServiceMethod": method, "Seq": sequence}
    if error is not None:
        header["Error"] = error
    return bytes(msgpack.packb(header)) + bytes(msgpack.packb(body))
