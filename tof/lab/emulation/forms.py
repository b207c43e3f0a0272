"""Laboratory: scenarios of the forms that GTP-U takes: S1-U, N3, sequence numbers, IPv6, VLANs, mixtures."""

from __future__ import annotations

from tof.lab.emulation.bearers import S1U, S1U_SEQUENCE, Shape, Ue, n3
from tof.lab.emulation.network import Network
from tof.lab.emulation.player import Script, answers
from tof.lab.emulation.procedures import ask, attach, new_address, notify, push, request, solicit
from tof.lab.emulation.settings import IPV4, IPV6
from tof.model import Form

FLOWS = (5000, 5001, 5002)
"""Servers' ports, each on a QoS flow of its own."""

VLANS = (101, 102)


def s1u(net: Network) -> Script:
    """4G: plain headers, 0x30."""
    yield from _everything(net, attach(net, net.radio(), net.core(), shape=S1U))


def s1u_sequence(net: Network) -> Script:
    """4G with running sequence numbers, 0x32, as some SGWs send."""
    yield from _everything(net, attach(net, net.radio(), net.core(), shape=S1U_SEQUENCE))


def n3_flows(net: Network) -> Script:
    """5G: PDU Session Containers, three QoS flows in one session; an answer is in the flow of its request."""
    ue = attach(net, net.radio(), net.core(), shape=n3(9, 1, 5))
    yield from _everything(net, ue)
    for port in FLOWS:
        yield answers(ask(net, ue, port=port))
    for own_port, port in enumerate(FLOWS, 40_500):
        yield answers(request(net, ue, port=port, own_port=own_port))


def ipv6(net: Network) -> Script:
    """IPv6 UEs, a /64 each: router solicitation first, then the Internet and the service, on S1-U and N3."""
    for shape in (S1U, n3(9)):
        ue = attach(net, net.radio(), net.core(), (new_address(net, IPV6),), shape)
        solicit(net, ue)
        yield from _everything(net, ue)


def ipv6_transport(net: Network) -> Script:
    """Tunnels over outer IPv6, with IPv4 and IPv6 UEs in them."""
    net.resolve(net.radio(0, IPV6), net.core(0, IPV6))
    for family in (IPV4, IPV6):
        ue = attach(net, net.radio(0, IPV6), net.core(0, IPV6), (new_address(net, family),))
        yield from _everything(net, ue)


def mixed(net: Network) -> Script:
    """Each direction in a form of its own, and two VLANs with the same addresses and TEIDs."""
    for up, down in ((0x30, 0x32), (0x32, 0x30)):
        yield from _everything(net, attach(net, net.radio(), net.core(), shape=Shape(Form(up), Form(down))))
    container_up = Shape(Form(0x34, 9), Form(0x30))
    yield from _everything(net, attach(net, net.radio(), net.core(), shape=container_up))
    if net.settings.routed or net.settings.vlan is not None:
        return
    for vlan in VLANS:
        net.add_nodes(vlan)
    # The nodes of each VLAN count their TEIDs from the same number.
    for ue in [attach(net, net.radio(vlan=vlan), net.core(vlan=vlan)) for vlan in VLANS]:
        yield from _everything(net, ue)


def _everything(net: Network, ue: Ue) -> Script:
    yield answers(ask(net, ue))
    yield answers(request(net, ue), request(net, ue, port=0))
    yield answers(push(net, ue), notify(net, ue))
