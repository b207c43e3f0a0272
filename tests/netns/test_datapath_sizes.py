"""Sizes: a UE's MTU of 1500 on a 1500-byte S1, as real kernels use it."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Iterator

import pytest
from gtp_apps import ue_kernel
from gtp_packets import gpdu_of, new_bearer, udp
from gtp_peers import APP, Setting, Tof, running_tof
from netns_helper import Netns

pytestmark = pytest.mark.netns

SERVICE, PORT = "203.0.113.10", 8080
MEGABYTES = 100
IP_MTU_DISCOVER, PMTUDISC_DONT = 10, 0

_WEB = """\
import http.server, sys
class Web(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        size = int(self.path[1:])
        self.send_response(200)
        self.send_header("Content-Length", str(size))
        self.end_headers()
        block = bytes(range(256)) * 4096
        while size:
            self.wfile.write(block[:size])
            size -= min(size, len(block))
    def do_PUT(self):
        left = int(self.headers["Content-Length"])
        good = 0
        while left:
            part = self.rfile.read(min(left, 1 << 20))
            good += part.count(b"x")
            left -= len(part)
        text = str(good).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)
    def log_message(self, *_): pass
server = http.server.ThreadingHTTPServer((sys.argv[1], int(sys.argv[2])), Web)
print("ready", flush=True)
server.serve_forever()
"""


@pytest.fixture(scope="module", params=["generic", "native"])
def tof(request: pytest.FixtureRequest) -> Iterator[Tof]:
    with running_tof(Setting(xdp=request.param)) as running:
        web = running.netns["apps"].start(sys.executable, "-c", _WEB, APP, str(PORT))
        assert web.stdout is not None
        assert web.stdout.readline() == "ready\n"
        running.provision("web", SERVICE)
        yield running


def retransmitted(netns: Netns) -> tuple[int, int]:
    """TCP segments of the namespace's kernel so far: sent, and sent again (RFC 4022)."""
    names, values = (
        line.split() for line in netns.run("cat", "/proc/net/snmp").splitlines() if line.startswith("Tcp:")
    )
    table = dict(zip(names, values, strict=True))
    return int(table["OutSegs"]), int(table["RetransSegs"])


@pytest.mark.parametrize("way", ["download", "upload"])
def test_curl_of_100_megabytes(tof: Tof, way: str) -> None:
    """Nothing is too big on the way, nothing is cut, next to nothing is sent twice."""
    bearer = new_bearer()
    tof.attach(bearer)
    ran, apps, size = tof.netns["ran"], tof.netns["apps"], MEGABYTES * 1_000_000
    sender = apps if way == "download" else ran
    reasons = ("ue_too_big", "inner_fragment", "fragment_queued", "bridged_fragment")
    counts, (out, again) = [tof.packets(reason) for reason in reasons], retransmitted(sender)
    command = ["curl", "-sS", "--max-time", "200", "-o", "/dev/null", "-w", "%{size_download} %{size_upload}"]
    source = tof.dir / "upload"
    with ue_kernel(tof, bearer):
        if way == "download":
            answer = ran.run(*command, f"http://{SERVICE}:{PORT}/{size}", timeout=240)
            assert answer == f"{size} 0"
        else:
            source.write_bytes(b"x" * size)
            command[4:6] = []
            answer = ran.run(*command, "-T", str(source), f"http://{SERVICE}:{PORT}/", timeout=240)
            assert answer == f"{size}{len(str(size))} {size}"
    source.unlink(missing_ok=True)
    assert [tof.packets(reason) for reason in reasons] == counts
    sent, twice = retransmitted(sender)
    assert sent - out > size / 1500
    assert twice - again < (sent - out) / 100


def test_video_of_1500_byte_datagrams_that_may_be_cut(tof: Tof) -> None:
    """Each is 36 bytes too long for the tunnel: two fragments to the UE, none lost."""
    bearer, count = new_bearer(), 1500
    tof.attach(bearer)
    with tof.netns["apps"].entered():
        app = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with app:
        app.bind((APP, 5004))
        app.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, PMTUDISC_DONT)
        app.settimeout(3)
        tof.ran.send(bearer.uplink(udp(bearer.ue, SERVICE, 5005, 5004, b"play")))
        assert app.recvfrom(100) == (b"play", (bearer.ue, 5005))
        tof.drain()
        filler = os.urandom(1468)
        for n in range(count):
            app.sendto(n.to_bytes(4, "big") + filler, (bearer.ue, 5005))
            if n % 50 == 49:
                time.sleep(0.02)
    pieces: dict[bytes, dict[int, bytes]] = {}
    whole: set[int] = set()
    while len(whole) < count and (frame := tof.ran.receive(5)) is not None:
        one = gpdu_of(frame)
        if one is None or one.inner.destination != bearer.ue:
            continue
        packet = one.message.payload
        assert (one.teid, len(frame) <= 1514) == (bearer.down, True)
        parts = pieces.setdefault(packet[4:6], {})
        parts[int.from_bytes(packet[6:8], "big") & 0x1FFF] = packet[20:]
        data = b"".join(parts[at] for at in sorted(parts))
        if len(data) == 1480:
            assert data[12:] == filler
            whole.add(int.from_bytes(data[8:12], "big"))
            parts.clear()
    assert len(whole) == count
