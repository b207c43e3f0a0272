"""DNS as UEs and cores speak it: questions in a tunnel, and a real resolver (unbound) in a namespace behind the core."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import select
import struct
from collections.abc import Iterator
from pathlib import Path

import dns.message
import dns.rrset
from gtp_packets import Bearer, Gpdu, is_pinger, udp
from gtp_peers import Tof, until
from netns_helper import Netns

RESOLVER, RESOLVER6 = "198.51.100.53", "2001:db8:ffff::53"
_TUN_IOCTL, _TUN_NO_PI = 0x400454CA, 0x1001
_ports = itertools.count(20000)
_idents = itertools.count(1)

_UNBOUND = """\
server:
  directory: "{directory}"
  chroot: ""
  username: ""
  pidfile: ""
  use-syslog: no
  do-daemonize: no
  module-config: "iterator"
  interface: {address}
  access-control: 0.0.0.0/0 allow
  access-control: ::/0 allow
  local-zone: "example.com." transparent
{data}
remote-control:
  control-enable: no
"""


@contextlib.contextmanager
def unbound(netns: Netns, directory: Path, address: str, *records: str) -> Iterator[None]:
    """A resolver on ``address`` that knows these records."""
    file = directory / f"unbound-{next(_idents)}.conf"
    data = "\n".join(f"  local-data: '{record}'" for record in records)
    file.write_text(_UNBOUND.format(directory=directory, address=address, data=data))
    process = netns.start("unbound", "-d", "-c", str(file))
    try:
        bound = ["ss", "-Huln", "sport", "=", ":53"]
        until("unbound is bound", lambda: address in netns.run(*bound), 10)
        yield
    finally:
        process.kill()
        process.wait()


class Behind:
    """What stands behind the core: a kernel with addresses of its own, whose packets travel in bearers' tunnels."""

    def __init__(self, tof: Tof, *addresses: str) -> None:
        self._tof, core = tof, tof.netns["core"]
        with core.entered():
            self._tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
            fcntl.ioctl(self._tun, _TUN_IOCTL, struct.pack("16sH22x", b"sgi0", _TUN_NO_PI))
        core.run("ip", "link", "set", "sgi0", "up")
        for address in addresses:
            more = ("nodad",) if ":" in address else ()
            core.run("ip", "address", "add", address, "dev", "sgi0", *more)
        core.run("ip", "route", "add", "10.45.0.0/16", "dev", "sgi0")
        core.run("ip", "route", "add", "2001:db8:45::/48", "dev", "sgi0")

    def answer(self, packet: bytes) -> bytes:
        """What the kernel there sends back for ``packet``."""
        os.write(self._tun, packet)
        while select.select([self._tun], [], [], 5)[0]:
            back = os.read(self._tun, 65535)
            if (back[0] >> 4 == 4 and back[9] == 17) or (back[0] >> 4 == 6 and back[6] == 17):
                return back
        raise AssertionError("no answer came")

    def close(self) -> None:
        os.close(self._tun)


def question(name: str, kind: str = "A") -> dns.message.Message:
    return dns.message.make_query(name, kind, id=next(_idents))


def answered(asked: dns.message.Message, *records: str) -> bytes:
    """The answer to a question with these records: ``name. TTL IN TYPE DATA``."""
    response = dns.message.make_response(asked, recursion_available=True)
    for record in records:
        name, ttl, _, kind, data = record.split(" ")
        response.answer.append(dns.rrset.from_text(name, int(ttl), "IN", kind, data))
    return response.to_wire()


def asking(bearer: Bearer, asked: dns.message.Message, server: str = "") -> tuple[int, bytes]:
    """The UE's port, and the frame in which it asks."""
    port = next(_ports)
    return port, bearer.uplink(udp(bearer.ue, server or resolver_of(bearer), port, 53, asked.to_wire()))


def saying(bearer: Bearer, port: int, answer: bytes, server: str = "") -> bytes:
    """The frame in which a resolver behind the core answers."""
    return bearer.downlink(udp(server or resolver_of(bearer), bearer.ue, 53, port, answer))


def ask(tof: Tof, bearer: Bearer, name: str, *records: str, kind: str = "A") -> None:
    """The UE asks, is answered, and both pass byte for byte."""
    asked = question(name, kind)
    port, frame = asking(bearer, asked)
    tof.ran.send(frame)
    tof.core.expect(frame)
    frame = saying(bearer, port, answered(asked, *records))
    tof.core.send(frame)
    tof.ran.expect(frame)


def resolve(tof: Tof, bearer: Bearer, behind: Behind, name: str, kind: str = "A") -> Gpdu:
    """The UE asks the real resolver behind the core; question and answer pass byte for byte."""
    _, frame = asking(bearer, question(name, kind))
    tof.ran.send(frame)
    seen = tof.core.gpdu(lambda one: one.teid == bearer.up and not is_pinger(one))
    assert seen == Gpdu.of(frame)
    frame = bearer.downlink(behind.answer(seen.message.payload))
    tof.core.send(frame)
    tof.ran.expect(frame)
    return Gpdu.of(frame)


def resolver_of(bearer: Bearer) -> str:
    return RESOLVER6 if ":" in bearer.ue else RESOLVER
