"""Frames to fuzz with: made of every form and content that the scenario knows, then bent, with the structure in mind."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import NamedTuple

from tof.model import GATEWAY_MAC, Direction, TunnelKey, service_mac, tunnel_mac
from tof.wire import gtpu, icmp, inet
from tof.wire.gtpu import Extension, Message
from tools.fuzz.scenario import (
    ELSEWHERE,
    ELSEWHERE6,
    ENB2_MAC,
    ENB_MAC,
    NODES,
    SERVICE,
    SERVICE6,
    SERVICES,
    SGW_MAC,
    TOKEN,
    TUNNELS,
)

SHORTEST, LONGEST = 14, 3400
"""What BPF_PROG_TEST_RUN takes of one page; the programs for fragments take frames up to LONGEST_JUMBO."""
LONGEST_JUMBO = 9000
_POOL = 128
SIZES, SIZES_JUMBO = (0, 1, 20, 120, 1300, 1450), (3000, 3300, 4000, 7000, 8500)
_OF_SIDE = tuple(
    tuple(known for known in TUNNELS if known.direction is direction)
    for direction in (Direction.UPLINK, Direction.DOWNLINK)
)
MACS = (
    ENB_MAC,
    ENB2_MAC,
    SGW_MAC,
    bytes(6),
    b"\xff" * 6,
    b"\x01\0\x5e\0\0\x01",
    b"\x01\x80\xc2\0\0\x0e",
    b"\x02\0\0\0\0\x09",
)


_FAR4 = (*(address for address in SERVICES if len(address) == 4), SERVICE, ELSEWHERE)
_FAR6 = (*(address for address in SERVICES if len(address) == 16), SERVICE6, ELSEWHERE6)
_TOS = (0, 0, 34 << 2, 46 << 2 | 1)


class Made(NamedTuple):
    """A frame and where things are in it: IP, UDP, GTP, user's packet, its L4 header (0: nowhere)."""

    frame: bytes
    ip: int
    udp: int
    gtp: int
    inner: int
    l4: int


class Source:
    """Frames without end, all from one seed."""

    def __init__(self, seed: str) -> None:
        self.random = Random(seed)
        self.sizes = SIZES
        """How much the users' datagrams carry."""
        self._made: dict[tuple[object, ...], list[Made]] = {}

    # Whole frames

    def s1(self, side: int) -> Made:
        """A frame as it comes from one side: mostly G-PDUs of known tunnels, with services in them."""
        return self._again((side, self.sizes), lambda: self._s1(side))

    def ue(self) -> Made:
        """A frame as br-ue sends it: to a tunnel's MAC, or to the gateway's."""
        return self._again((self.sizes,), self._ue)

    def _again(self, kind: tuple[object, ...], make: Callable[[], Made]) -> Made:
        """Making one costs more than all else, so that most are bent several times, each time otherwise."""
        made = self._made.setdefault(kind, [])
        if len(made) < _POOL:
            made.append(make())
            return made[-1]
        at = self.random.randrange(4 * _POOL)
        if at < _POOL:
            made[at] = make()
        return made[at % _POOL]

    def _s1(self, side: int) -> Made:
        random = self.random
        known = random.choice(_OF_SIDE[side != (random.random() < 0.05)])
        key = known.key
        if random.random() < 0.1:
            key = key._replace(teid=random.choice((0, 1, 2, 77, 0x100)))
        if random.random() < 0.05:
            key = key._replace(vlan=random.choice((None, 7, 8)))
        payload, l4 = self.user(known.ues, known.direction is Direction.UPLINK)
        head, message = self.message(key.teid, payload)
        return self.carried(key, message, head, l4, int(known.direction is Direction.DOWNLINK))

    def carried(self, key: TunnelKey, message: bytes, head: int, l4: int, side: int) -> Made:
        """The message in UDP, IP and Ethernet; ``head``: bytes of its header, 0: it carries no user's packet."""
        random = self.random
        to = gtpu.PORT if head or random.random() < 0.8 else 49152
        datagram = inet.encode_udp(inet.UDP(random.choice((2152, 2152, 49152)), to, message))
        tos = random.choice((0, 0, 0x88, 0x8B))
        check = random.random()
        if check < 0.1:
            datagram = inet.fill_checksum(key.source, key.destination, 17, datagram)
        elif check < 0.2:
            pseudo = inet.ones_sum(inet.pseudo_header(key.source, key.destination, 17, len(datagram)))
            datagram = datagram[:6] + pseudo.to_bytes(2, "big") + datagram[8:]
        ident, at, more = random.randrange(3), 0, 0
        if random.random() < 0.06:
            edge = min(random.choice((8, 16, 24, 40, 64, 104)), len(datagram) & ~7) or 8
            at, more, datagram = random.choice(((0, 1, datagram[:edge]), (edge, 0, datagram[edge:])))
        if len(key.source) == 4:
            options = b"\x94\x04\0\0" if random.random() < 0.02 else b""
            packet = inet.encode_ipv4(
                inet.IPv4(
                    key.source, key.destination, 17, datagram, tos=tos, flags=more, options=options, offset=at,
                    identification=ident,
                )
            )  # fmt: skip
            ethertype, size = 0x0800, 20 + len(options)
        else:
            part = (
                bytes((17, 0)) + (at | more).to_bytes(2, "big") + ident.to_bytes(4, "big")
                if at or more
                else b""
            )
            whole = inet.IPv6(key.source, key.destination, 17, datagram, tos=tos, headers=part)
            packet = inet.encode_ipv6(whole._replace(next_header=44) if part else whole)
            ethertype, size = 0x86DD, 40 + len(part)
        tags: tuple[tuple[int, int], ...] = ()
        if key.vlan is not None:
            tags = ((0x8100, key.vlan | random.choice((0, 0x6000))),)
        elif random.random() < 0.03:
            tags = ((0x8100, 0x4000),)
        macs = (SGW_MAC, ENB_MAC) if side == 0 else (ENB_MAC, SGW_MAC)
        frame = inet.encode_ethernet(inet.Ethernet(*macs, ethertype, packet, tags))
        if random.random() < 0.2:
            frame += random.randbytes(random.choice((1, 4, 18, 46)))
        ip = 14 + 4 * len(tags)
        inner = ip + size + 8 + head if head else 0
        return Made(frame, ip, ip + size, ip + size + 8, inner, inner + l4 if head and l4 else 0)

    def message(self, teid: int, payload: bytes) -> tuple[int, bytes]:
        """Length of the header and the whole message: a G-PDU in one of its forms, or one of the others."""
        random = self.random
        if random.random() < 0.04:
            other = random.choice(
                (
                    Message(0x30, gtpu.END_MARKER, teid),
                    Message(
                        0x30,
                        gtpu.ERROR_INDICATION,
                        0,
                        payload=b"\x10" + teid.to_bytes(4, "big") + b"\x85\0\4\1\2\3\4",
                    ),
                    Message(0x32, gtpu.ECHO_RESPONSE, 0, 1, payload=b"\x0e\1"),
                    Message(0x32, gtpu.ECHO_REQUEST, 0, 1),
                    Message(0x30, gtpu.SUPPORTED_EXTENSION_HEADERS, 0, payload=b"\x8d\1\x85"),
                    Message(0x34, gtpu.END_MARKER, teid, extensions=(Extension(0x85, b"\0\1"),)),
                )
            )
            return 0, gtpu.encode(other)
        sequence = random.getrandbits(16) if random.random() < 0.3 else None
        npdu = random.getrandbits(8) if random.random() < 0.05 else None
        extensions: tuple[Extension, ...] = ()
        if random.random() < 0.4:
            kinds = (0x85, 0x85, 0x85, 0xC0, 0x40, 0x20, 0x84, 0x03)
            count = random.choice((1, 1, 1, 1, 2, 3, 8, 9, 12))
            extensions = tuple(
                Extension(random.choice(kinds), random.randbytes(4 * random.choice((1, 1, 1, 2, 3, 30)) - 2))
                for _ in range(count)
            )
        message = gtpu.encode(Message(0x30, gtpu.G_PDU, teid, sequence, npdu, extensions, payload))
        return len(message) - len(payload), message

    def user(self, ues: tuple[bytes, ...], uplink: bool) -> tuple[bytes, int]:
        """A user's packet, to or from a service more often than not, and the length of its IP header."""
        random = self.random
        ue = random.choice(ues)
        if len(ue) == 8:
            ue += random.choice((b"\0" * 7 + b"\1", random.randbytes(8)))
        far: bytes = random.choice(_FAR4 if len(ue) == 4 else _FAR6)
        if random.random() < 0.03:
            ue = random.choice((bytes((10, 0, 0, 200)), bytes((10, 0, 0, 2)))) if len(ue) == 4 else bytes(16)
        source, destination = (ue, far) if uplink else (far, ue)
        protocol, segment = self.segment(source, destination)
        if len(ue) == 4:
            options = b"\1\1\1\1" if random.random() < 0.03 else b""
            flags, offset = random.choice(((2, 0),) * 14 + ((1, 0), (1, 0), (1, 64), (0, 64), (4, 64)))
            if flags == 4:
                protocol = random.choice((253, 254, protocol))
            packet = inet.encode_ipv4(
                inet.IPv4(
                    source, destination, protocol, segment, flags=flags, offset=offset, options=options,
                    identification=random.randrange(3), tos=random.choice(_TOS),
                )
            )  # fmt: skip
            return packet, 20 + len(options)
        if random.random() < 0.12:
            chain = random.choice(
                (
                    (0, bytes((protocol, 0)) + bytes(6)),
                    (60, bytes((protocol, 1)) + bytes(14)),
                    (
                        44,
                        bytes((protocol, 0, 0, random.choice((0, 1, 9))))
                        + random.randrange(3).to_bytes(4, "big"),
                    ),
                )
            )
            whole = inet.IPv6(source, destination, protocol, segment, next_header=chain[0], headers=chain[1])
            return inet.encode_ipv6(whole), 40
        whole = inet.IPv6(source, destination, protocol, segment, tos=random.choice(_TOS))
        return inet.encode_ipv6(whole), 40

    def segment(self, source: bytes, destination: bytes) -> tuple[int, bytes]:
        """A protocol and a segment of it, few ports, so that flows meet again."""
        random = self.random
        ports = random.choice((5000, 5001, 80)), random.choice((80, 53, 5000, 2152))
        kind = random.random()
        if kind < 0.4:
            flags = random.choice((0x02, 0x02, 0x12, 0x10, 0x18, 0x11, 0x04))
            options = random.choice(OPTIONS) if flags & 2 else b""
            head = b"".join(p.to_bytes(2, "big") for p in ports) + random.randbytes(8)
            segment = head + bytes((0x50 + len(options) // 4 * 16, flags)) + b"\xff\xff\0\0\0\0" + options
            return inet.TCP, inet.fill_checksum(
                source, destination, inet.TCP, segment + random.randbytes(random.randrange(40))
            )
        if kind < 0.7:
            datagram = inet.encode_udp(inet.UDP(*ports, random.randbytes(random.choice(self.sizes))))
            return inet.UDP_PROTOCOL, inet.fill_checksum(source, destination, 17, datagram)
        if kind < 0.78:
            return self.error(source, destination)
        if kind < 0.95:
            token = TOKEN.to_bytes(8, "big") if random.random() < 0.5 else random.randbytes(8)
            echo = icmp.Echo(ports[0], 1, token[: random.choice((8, 8, 8, 7))], reply=random.random() < 0.6)
            packet = icmp.echo_packet(source, destination, echo)
            return (inet.ICMP, packet[20:]) if len(source) == 4 else (inet.ICMPV6, packet[40:])
        return random.choice((50, 132, 1, 58, 6, 17)), random.randbytes(random.randrange(40))

    def error(self, source: bytes, destination: bytes) -> tuple[int, bytes]:
        """An ICMP error, about a packet of its receiver's to its sender, or to whom that was before it was translated."""
        random, six = self.random, len(source) == 16
        to = source if random.random() < 0.3 else random.choice(_FAR6 if six else _FAR4)
        by = destination if random.random() < 0.9 else to
        datagram = inet.encode_udp(inet.UDP(5000, 80, random.randbytes(random.choice((0, 8, 600)))))
        if six:
            about = inet.encode_ipv6(inet.IPv6(by, to, inet.UDP_PROTOCOL, datagram))
        else:
            about = inet.encode_ipv4(inet.IPv4(by, to, inet.UDP_PROTOCOL, datagram))
        kind = random.choice((1, 2, 3, 4, 128)) if six else random.choice((3, 3, 11, 12, 5))
        message = bytes((kind, random.randrange(5), 0, 0)) + random.randbytes(4) + about
        protocol = inet.ICMPV6 if six else inet.ICMP
        return protocol, inet.fill_checksum(source, destination, protocol, message)

    def _ue(self) -> Made:
        random = self.random
        known = random.choice(TUNNELS)
        if random.random() < 0.01:
            return Made(GATEWAY_MAC + tunnel_mac(1) + b"\x89\x02" + random.randbytes(60), 0, 0, 0, 14, 0)
        packet, l4 = self.user(known.ues, uplink=random.random() < 0.15)
        to = (
            GATEWAY_MAC
            if random.random() < 0.6
            else tunnel_mac(random.choice((known.number, known.number, 0, 99)))
        )
        ethertype = b"\x08\0" if packet[0] >> 4 == 4 else b"\x86\xdd"
        source = (
            service_mac(random.choice((0, 1, 2, 11, 1102, 1201, 77)))
            if random.random() < 0.6
            else b"\x02\0\0\0\0\x09"
        )
        frame = to + source + ethertype + packet
        if random.random() < 0.1:
            frame += random.randbytes(random.choice((1, 8, 40, 900)))
        return Made(frame, 0, 0, 0, 14, 14 + l4)

    # Bending

    def bent(self, made: Made, longest: int = LONGEST) -> bytes:
        """The frame with none, one or some changes."""
        random = self.random
        count = random.choice((0, 0, 0, 1, 1, 1, 1, 2, 2, 4))
        if not count:
            return made.frame if len(made.frame) <= longest else made.frame[:longest]
        frame = bytearray(made.frame)
        for _ in range(count):
            random.choice(_CHANGES)(self, frame, made)
        while len(frame) < SHORTEST:
            frame.append(0)
        return bytes(frame[:longest])

    def flip(self, frame: bytearray, _made: Made) -> None:
        if frame:
            frame[self.random.randrange(len(frame))] ^= 1 << self.random.randrange(8)

    def byte(self, frame: bytearray, made: Made) -> None:
        """An interesting value, in the headers more often than not."""
        random = self.random
        reach = min(len(frame), (made.l4 or made.inner or made.gtp or 14) + 24)
        if reach:
            frame[random.randrange(reach)] = random.choice(
                (0, 1, 3, 4, 0x7F, 0x80, 0xFE, 0xFF, random.getrandbits(8))
            )

    def length(self, frame: bytearray, made: Made) -> None:
        """One of the lengths lies."""
        random = self.random
        v6 = len(frame) > made.ip and frame[made.ip] >> 4 == 6
        inner6 = len(frame) > made.inner and frame[made.inner] >> 4 == 6
        at = random.choice(
            (made.ip + (4 if v6 else 2), made.udp + 4, made.gtp + 2, made.inner + (4 if inner6 else 2))
        )
        self.near(frame, at)

    def consistent(self, frame: bytearray, made: Made) -> None:
        """Every outer length follows a change of size: of what is in the tunnel, or behind it."""
        random = self.random
        by = random.choice((-60, -20, -9, -4, -1, 1, 4, 40))
        if made.gtp and len(frame) + by > made.gtp + 8 and len(frame) >= made.gtp + 4:
            if by < 0:
                del frame[by:]
            else:
                frame += random.randbytes(by)
            v6 = frame[made.ip] >> 4 == 6
            for at in (made.ip + (4 if v6 else 2), made.udp + 4, made.gtp + 2):
                value = int.from_bytes(frame[at : at + 2], "big") + by
                frame[at : at + 2] = (value & 0xFFFF).to_bytes(2, "big")

    def near(self, frame: bytearray, at: int) -> None:
        random = self.random
        if at + 2 <= len(frame):
            value = int.from_bytes(frame[at : at + 2], "big")
            value = random.choice(
                (value + random.choice((-8, -4, -1, 1, 4, 8, 100)), 0, 0xFFFF, random.getrandbits(16))
            )
            frame[at : at + 2] = (value & 0xFFFF).to_bytes(2, "big")

    def cut(self, frame: bytearray, made: Made) -> None:
        random = self.random
        edge = random.choice(
            (made.ip, made.udp, made.gtp, made.inner, made.l4, len(frame))
        ) + random.randrange(-9, 25)
        del frame[max(SHORTEST, edge) :]

    def pad(self, frame: bytearray, _made: Made) -> None:
        frame += self.random.randbytes(self.random.choice((1, 2, 7, 46, 300, 2100)))

    def gtp_header(self, frame: bytearray, made: Made) -> None:
        """Flags, message type, TEID."""
        random = self.random
        if made.gtp and len(frame) >= made.gtp + 12:
            at = made.gtp
            match random.randrange(4):
                case 0:
                    frame[at] = random.choice(
                        (0x30, 0x31, 0x32, 0x34, 0x36, 0x37, 0x38, 0x20, 0x48, 0x50, random.getrandbits(8))
                    )
                case 1:
                    frame[at + 1] = random.choice((1, 2, 3, 26, 31, 254, 255, 253, random.getrandbits(8)))
                case 2:
                    frame[at + 4 : at + 8] = random.choice(TUNNELS).key.teid.to_bytes(4, "big")
                case 3:
                    frame[at + 11] = random.choice((0, 0x85, 0xC0, 0x40, random.getrandbits(8)))

    def extension(self, frame: bytearray, made: Made) -> None:
        """The chain: a length of zero, a long one, a next type where none follows."""
        random = self.random
        if made.gtp and len(frame) >= made.gtp + 32:
            at = made.gtp + 12 + 4 * random.randrange(4)
            frame[random.choice((at, at + 3))] = random.choice((0, 1, 2, 0x85, 0xFF, random.getrandbits(8)))

    def outer(self, frame: bytearray, made: Made) -> None:
        """Version, header length, fragment, protocol, addresses, header checksum."""
        random = self.random
        at = made.ip
        if not at or len(frame) < at + 40:
            return
        match random.randrange(7):
            case 0:
                frame[at] = random.choice((0x45, 0x46, 0x44, 0x4F, 0x60, 0x55, random.getrandbits(8)))
            case 1:
                frame[at + 6] = random.choice((0x20, 0x40, 0x80, 0, 0x3F, 1))
            case 2:
                frame[at + (6 if frame[at] >> 4 == 6 else 9)] = random.choice((6, 17, 44, 0, 132, 60))
            case 3:
                node = random.choice(NODES)
                place = at + random.choice((12, 16) if len(node) == 4 else (8, 24))
                frame[place : place + len(node)] = node
            case 4:
                self.near(frame, at + 10)
            case 5:
                frame[at + 7] = random.getrandbits(8)
            case 6:
                self.near(frame, made.udp + random.choice((0, 2, 6)))

    def ethernet(self, frame: bytearray, _made: Made) -> None:
        """Addresses, tags, type."""
        random = self.random
        match random.randrange(5):
            case 0:
                frame[:6] = random.choice(MACS)
            case 1:
                frame[6:12] = random.choice(MACS)
            case 2:
                tag = random.choice((b"\x81\0", b"\x81\0", b"\x88\xa8", b"\x91\0"))
                frame[12:12] = tag + random.choice((0, 7, 8, 0x6007, 0xFFF)).to_bytes(2, "big")
            case 3:
                frame[12:14] = random.choice(
                    (b"\x08\0", b"\x86\xdd", b"\x81\0", b"\x08\6", b"\x89\x02", b"\x88\xa8")
                )
            case 4:
                if frame[12:14] == b"\x81\0":
                    del frame[12:16]

    def inner(self, frame: bytearray, made: Made) -> None:
        """The user's packet: version, header length, fragment, protocol, addresses."""
        random = self.random
        at = made.inner
        if not at or len(frame) < at + 40:
            return
        v6 = frame[at] >> 4 == 6
        match random.randrange(5):
            case 0:
                frame[at] = random.choice((0x45, 0x46, 0x4F, 0x44, 0x60, 0x6F, 0x55, random.getrandbits(8)))
            case 1:
                frame[at + 6] = random.choice((0x20, 0x40, 0, 0x1F, 17, 6, 58, 44))
            case 2:
                frame[at + (6 if v6 else 9)] = random.choice((1, 6, 17, 58, 44, 0, 60, 132))
            case 3:
                address = random.choice([*(known.ues[0] for known in TUNNELS), *SERVICES])
                place = at + random.choice((8, 24) if v6 else (12, 16))
                frame[place : place + len(address)] = address
            case 4:
                self.near(frame, at + (4 if v6 else 2))

    def l4(self, frame: bytearray, made: Made) -> None:
        """Ports, TCP flags and options, ICMP type."""
        random = self.random
        at = made.l4
        if not at or len(frame) < at + 22:
            return
        match random.randrange(4):
            case 0:
                self.near(frame, at + random.choice((0, 2, 4)))
            case 1:
                frame[at + 13] = random.getrandbits(8)
            case 2:
                frame[at + 12] = random.choice((0x50, 0x60, 0xF0, 0x40, 0))
            case 3:
                frame[at + 20 : at + 22] = random.choice(
                    (b"\2\4", b"\1\2", b"\3\3", b"\2\0", b"\0\0", b"\5\xff")
                )

    def splice(self, frame: bytearray, _made: Made) -> None:
        """A part twice, or not at all."""
        random = self.random
        start = random.randrange(len(frame)) if frame else 0
        size = random.choice((1, 2, 4, 8, 20))
        if random.getrandbits(1):
            del frame[start : start + size]
        else:
            frame[start:start] = frame[start : start + size]

    def noise(self, frame: bytearray, _made: Made) -> None:
        """Nothing but noise from some point on, at times from the start."""
        random = self.random
        start = random.choice((0, 12, 14, random.randrange(len(frame) + 1)))
        frame[start:] = random.randbytes(min(len(frame), 200))


OPTIONS = (
    b"",
    b"\2\4\5\xb4",
    b"\2\4\5\xb4\1\3\3\7",
    b"\1\2\4\x23\0\1\1\1",
    b"\1\1\1\2\4\xff\xff\0",
    b"\2\4\2\0",
    b"\3\3\7\1\2\4\5\xa0",
    b"\4\2\x08\x0a" + bytes(8) + b"\2\4\5\xb4",
    b"\1" * 20 + b"\2\4\5\xb4",
    b"\1" * 36 + b"\2\4\5\xb4",
    b"\x22\1\2\4\5\xb4\0\0",
    b"\5\x22" + bytes(32) + b"\2\4\5\xb4\0\0",
)
_CHANGES: tuple[Callable[[Source, bytearray, Made], None], ...] = (
    Source.flip, Source.byte, Source.byte, Source.length, Source.length, Source.consistent, Source.cut, Source.pad,
    Source.gtp_header, Source.gtp_header, Source.extension, Source.outer, Source.outer, Source.ethernet,
    Source.inner, Source.inner, Source.l4, Source.l4, Source.splice, Source.noise,
)  # fmt: skip
