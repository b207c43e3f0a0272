"""tof.lab.replying: answers as the other side."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from tof.lab.capture import Frame
from tof.lab.replying import Responder
from tof.lab.verdict import Sent
from tof.model import Side
from tof.wire import gtpu, icmp, inet

ENB, SGW = "192.0.2.1", "192.0.2.2"
UE, TARGET = "10.45.0.2", "8.8.8.8"
ECHO = icmp.Echo(77, 1, b"payload")


def ip(text: str) -> bytes:
    return ip_address(text).packed


def frame(
    source: str, destination: str, teid: int, packet: bytes, qfi: tuple[int, int] | None = None
) -> bytes:
    extensions = ()
    if qfi is not None:
        extensions = (gtpu.Extension(gtpu.PDU_SESSION_CONTAINER, bytes((qfi[0] << 4, qfi[1]))),)
    message = gtpu.Message(0x30, gtpu.G_PDU, teid, extensions=extensions, payload=packet)
    datagram = inet.encode_udp(inet.UDP(2152, 2152, gtpu.encode(message)))
    if ":" in source:
        outer = inet.encode_ipv6(inet.IPv6(ip(source), ip(destination), 17, datagram))
    else:
        outer = inet.encode_ipv4(inet.IPv4(ip(source), ip(destination), 17, datagram))
    kind = inet.ETHERTYPE_IPV6 if ":" in source else inet.ETHERTYPE_IPV4
    return inet.encode_ethernet(inet.Ethernet(b"\2\0\0\0\0\2", b"\2\0\0\0\0\1", kind, outer, ((0x8100, 5),)))


def ping(source: str = UE, target: str = TARGET, echo: icmp.Echo = ECHO) -> bytes:
    return icmp.echo_packet(ip(source), ip(target), echo)


def sent(data: bytes, side: Side) -> Sent:
    return Sent(Frame(1, 0, data, len(data)), side)


def opened(data: bytes | None) -> tuple[inet.Ethernet, gtpu.Datagram, icmp.Echo]:
    assert data is not None
    ethernet = inet.decode_ethernet(data)
    outer = gtpu.decode_gpdu(ethernet.payload)
    packet = outer.message.payload
    whole = inet.decode_ipv4(packet) if packet[0] < 0x60 else inet.decode_ipv6(packet)
    return ethernet, outer, icmp.decode_echo(whole.protocol, whole.payload)


def test_an_echo_request_is_answered_in_the_downlink_tunnel_of_the_capture():
    downlink = frame(SGW, ENB, 99, ping(TARGET, UE))
    ethernet, outer, echo = opened(
        Responder([sent(downlink, Side.SGW)]).reply(frame(ENB, SGW, 7, ping()), Side.SGW)
    )
    assert (ethernet.destination, ethernet.source, ethernet.vlan) == (b"\2\0\0\0\0\1", b"\2\0\0\0\0\2", 5)
    assert (outer.source, outer.destination, outer.message.teid) == (ip(SGW), ip(ENB), 99)
    assert echo == ECHO._replace(reply=True)
    inner = gtpu.inner(outer.message.payload)
    assert (inner.source, inner.destination) == (ip(TARGET), ip(UE))


def test_a_tunnel_that_the_capture_does_not_show_gets_the_same_teid():
    _, outer, _ = opened(Responder([]).reply(frame(ENB, SGW, 7, ping()), Side.SGW))
    assert (outer.destination, outer.message.teid) == (ip(ENB), 7)


def test_as_a_ue_too():
    uplink = frame(ENB, SGW, 7, ping())
    _, outer, echo = opened(
        Responder([sent(uplink, Side.ENB)]).reply(frame(SGW, ENB, 99, ping(TARGET, UE)), Side.ENB)
    )
    assert (outer.source, outer.message.teid, echo.reply) == (ip(ENB), 7, True)


@pytest.mark.parametrize(("asked", "answered"), [((1, 9), (0, 9)), ((0, 9), (1, 9))])
def test_5g_answers_carry_the_container_of_the_other_direction(asked, answered):
    _, outer, _ = opened(Responder([]).reply(frame(ENB, SGW, 7, ping(), asked), Side.SGW))
    assert (outer.message.pdu_type, outer.message.qfi) == answered


def test_ipv6_inside_and_outside():
    request = frame("2001:db8::1", "2001:db8::2", 7, ping("2001:db8:45::2", "2001:db8:8::8"))
    ethernet, outer, echo = opened(Responder([]).reply(request, Side.SGW))
    whole = inet.decode_ipv6(ethernet.payload)
    assert inet.fill_checksum(whole.source, whole.destination, 17, whole.payload) == whole.payload
    assert outer.source == ip("2001:db8::2")
    assert echo.reply


def test_what_the_capture_answers_itself_is_left_to_it():
    reply = frame(SGW, ENB, 99, ping(TARGET, UE, ECHO._replace(reply=True)))
    responder = Responder([sent(reply, Side.SGW)])
    assert responder.reply(frame(ENB, SGW, 7, ping()), Side.SGW) is None
    assert responder.reply(frame(ENB, SGW, 7, ping(echo=ECHO._replace(sequence=2))), Side.SGW) is not None


def test_what_wants_no_answer():
    responder = Responder([Sent(Frame(1, 0, b"cut", 100), Side.ENB), sent(b"runt", Side.ENB)])
    datagram = inet.encode_ipv4(inet.IPv4(ip(UE), ip(TARGET), 17, b"12345678"))
    echo_message = inet.decode_ethernet(frame(ENB, SGW, 7, ping()))
    for data in (
        b"runt",
        frame(ENB, SGW, 7, datagram),
        frame(ENB, SGW, 7, b"\0"),
        frame(ENB, SGW, 7, ping(echo=ECHO._replace(reply=True))),
        inet.encode_ethernet(echo_message._replace(payload=ping())),
    ):
        assert responder.reply(data, Side.SGW) is None
