"""Bytes to events: what a packet says to the agent."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tof.agent.events import EchoResponseSeen, EndMarkerSeen, ErrorIndicationSeen, GpduSeen
from tof.agent.observe import observe
from tof.errors import DecodeError
from tof.model import Form, Link, Side, TunnelKey
from tof.wire import gtpu, inet
from tof.wire.icmp import Echo, echo_packet

ENB, SGW = bytes((192, 0, 2, 1)), bytes((192, 0, 2, 101))
UE, SERVER = bytes((10, 0, 0, 1)), bytes((203, 0, 113, 9))
UE_V6 = bytes.fromhex("20010db8000100000000000000000007")
SERVER_V6 = bytes.fromhex("20010db8ffff00000000000000000009")
TOKEN = 0x1122334455667788
MARKED = TOKEN.to_bytes(8, "big") + b"tof-pinger"


def outer(message, source=ENB, destination=SGW, fragment=0):
    datagram = inet.encode_udp(inet.UDP(2152, 2152, gtpu.encode(message)))
    return inet.encode_ipv4(inet.IPv4(source, destination, 17, datagram, flags=fragment))


def gpdu(payload, teid=7, source=ENB, destination=SGW, extensions=()):
    return outer(
        gtpu.Message(0x30, gtpu.G_PDU, teid, payload=payload, extensions=extensions), source, destination
    )


def udp(source=UE, destination=SERVER, size=8):
    return inet.encode_ipv4(inet.IPv4(source, destination, 17, inet.encode_udp(inet.UDP(1, 2, bytes(size)))))


def reply(source=SERVER, destination=UE, payload=MARKED):
    return echo_packet(source, destination, Echo(1, 1, payload, reply=True))


def test_an_uplink_packet():
    packet = udp()
    assert observe(Side.ENB, gpdu(packet), 5) == GpduSeen(
        Side.ENB, TunnelKey(ENB, SGW, 7, 5), UE, SERVER, Form(0x30, None), len(packet)
    )


def test_form_and_link_are_told():
    link = Link(b"a" * 6, b"b" * 6, 3, 0x88)
    container = gtpu.Extension(gtpu.PDU_SESSION_CONTAINER, bytes((0x10, 9)))
    seen = observe(Side.ENB, gpdu(udp(), extensions=(container,)), None, link=link)
    assert (seen.form, seen.link) == (Form(0x34, 9), link)


@pytest.mark.parametrize(("server", "ue"), [(SERVER, UE), (SERVER_V6, UE_V6)])
def test_an_echo_reply_s_first_eight_bytes_are_a_token(server, ue):
    seen = observe(Side.SGW, gpdu(reply(server, ue), source=SGW, destination=ENB), None)
    assert seen.token == TOKEN


@pytest.mark.parametrize(
    "packet",
    [
        udp(SERVER, UE),
        reply(payload=b"short"),
        echo_packet(SERVER, UE, Echo(1, 1, TOKEN.to_bytes(8, "big"))),
        echo_packet(SERVER_V6, UE_V6, Echo(1, 1, TOKEN.to_bytes(8, "big"))),
    ],
)
def test_anything_else_from_the_core_has_none(packet):
    assert observe(Side.SGW, gpdu(packet), None).token is None


def test_an_echo_reply_from_the_ue_has_none():
    assert observe(Side.ENB, gpdu(reply()), None).token is None


def test_end_marker():
    message = gtpu.Message(0x30, gtpu.END_MARKER, 7)
    assert observe(Side.SGW, outer(message, SGW, ENB), 5) == EndMarkerSeen(TunnelKey(SGW, ENB, 7, 5))


@pytest.mark.parametrize(
    ("message", "teid"),
    [
        (gtpu.Message(0x32, 26, 0, 1, payload=b"\x10\x00\x00\x00\x09\x85\x00\x04" + ENB), 9),
        (gtpu.Message(0x36, 26, 9, 1, None, (gtpu.Extension(0x40, b"\x08\x68"),), b"\x85\x00\x04" + ENB), 9),
        (gtpu.Message(0x30, 26, 9), 9),
    ],
)
def test_error_indication_in_three_shapes(message, teid):
    assert observe(Side.ENB, outer(message), 5) == ErrorIndicationSeen(ENB, teid, 5, Side.ENB)


@pytest.mark.parametrize(("payload", "recovery"), [(b"\x0e\x03", 3), (b"", None)])
def test_echo_response(payload, recovery):
    message = gtpu.Message(0x32, gtpu.ECHO_RESPONSE, 0, 1, payload=payload)
    assert observe(Side.SGW, outer(message, SGW, ENB), 5) == EchoResponseSeen(SGW, recovery, 5, Side.SGW)


def test_other_messages_say_nothing():
    assert observe(Side.SGW, outer(gtpu.Message(0x32, gtpu.ECHO_REQUEST, 0, 1)), None) is None


def test_teid_zero_is_nobody_s():
    with pytest.raises(DecodeError, match="gtpu_teid_zero"):
        observe(Side.ENB, gpdu(udp(), teid=0), None)


def test_a_copy_of_a_beginning_is_enough():
    whole = gpdu(udp(size=1000))
    datagram = inet.decode_ipv4(whole).payload[:200]
    first = inet.encode_ipv4(inet.IPv4(ENB, SGW, 17, datagram, flags=inet.MORE_FRAGMENTS))
    assert observe(Side.ENB, first, None, cut=True).source == UE
    with pytest.raises(DecodeError, match="ip_fragment"):
        observe(Side.ENB, first, None)


@given(st.binary(max_size=120), st.booleans())
def test_any_bytes_are_an_event_or_a_decode_error(data, cut):
    for packet in (data, gpdu(data), outer(gtpu.Message(0x30, 26, 0, payload=data))):
        with suppress(DecodeError):
            observe(Side.SGW, packet, None, cut=cut)
