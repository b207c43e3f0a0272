"""Laboratory: what UEs, nodes and servers do: procedures of TS 23.401 and 23.502 as the user plane sees them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tof.lab.emulation.bearers import S1U, Asked, Bearer, Exchange, Shape, Stream, Ue
from tof.lab.emulation.frames import (
    ECHO_PORT,
    MARK,
    TOKEN,
    router_solicitation,
    udp_packet,
)
from tof.lab.emulation.network import ELSEWHERE, Network
from tof.lab.emulation.nodes import Core, Outgoing, Radio, Relay
from tof.lab.emulation.settings import IPV4
from tof.wire import icmp

UE_PORT = 40_000


def new_address(net: Network, family: int = IPV4) -> bytes:
    """An address that no UE of this network has had."""
    if family == IPV4:
        pool, number = net.settings.ue_pool, net.next_ue
    else:
        pool, number = net.settings.ue_pool6, net.next_ue << 64 | 0x99
    net.next_ue += 1
    return (int.from_bytes(pool, "big") + number).to_bytes(family, "big")


def attach(
    net: Network, radio: Radio, core: Core, addresses: tuple[bytes, ...] = (), shape: Shape = S1U,
    *, up: int | None = None, down: int | None = None,
) -> Ue:  # fmt: skip
    """A UE with a default bearer; new addresses and TEIDs unless given."""
    ue = Ue(f"ue{len(net.ues) + 1}", addresses or (new_address(net),), radio)
    net.ues.append(ue)
    add_bearer(ue, core, shape, up=up, down=down)
    return ue


def add_bearer(
    ue: Ue, core: Core, shape: Shape = S1U, ports: Iterable[int] = (),
    *, up: int | None = None, down: int | None = None,
) -> Bearer:  # fmt: skip
    """One more bearer where the UE is; ``ports`` make it a dedicated one."""
    up = core.allocate() if up is None else up
    bearer = core.tunnels[up] = Bearer(ue, core, up, None, shape, frozenset(ports))
    if ue.radio is not None:
        bearer.path = ue.radio, ue.radio.serve(bearer, down)
    ue.bearers.append(bearer)
    return bearer


def detach(net: Network, ue: Ue) -> None:
    """Gone without a sign on the user plane."""
    for bearer in ue.bearers:
        bearer.core.tunnels.pop(bearer.up, None)
    for radio in net.radios:
        radio.release(ue)
    ue.bearers.clear()
    ue.radio = None


def go_idle(ue: Ue) -> None:
    """S1 release (TS 23.401 section 5.3.5): the core keeps its end, the eNB forgets all."""
    if ue.radio is not None:
        ue.radio.release(ue)
    ue.radio = None
    for bearer in ue.bearers:
        bearer.path = None


def resume(net: Network, ue: Ue, radio: Radio) -> None:
    """Service request (TS 23.401 section 5.3.4): new downlink TEIDs, and what was buffered comes."""
    ue.radio = radio
    for bearer in ue.bearers:
        bearer.path = radio, radio.serve(bearer)
    for core in {bearer.core for bearer in ue.bearers}:
        send(net, core.resume(ue))


@dataclass(frozen=True, slots=True)
class Handover:
    """A handover on its way: the TEIDs under which the target expects each bearer."""

    ue: Ue
    source: Radio
    target: Radio
    teids: tuple[tuple[Bearer, int, int], ...]
    """Bearer, downlink TEID at the source, at the target."""


def hand_over(ue: Ue, target: Radio, *, indirect: bool = False, back: Handover | None = None) -> Handover:
    """The UE moves; downlink packets are forwarded, through the core if ``indirect``.

    ``back``: it comes back from that handover, and gets the TEIDs it had before, as small eNBs do.
    """
    again = {bearer: old for bearer, old, _ in back.teids} if back else {}
    source = ue.radio
    assert source is not None
    teids = []
    for bearer in ue.bearers:
        assert bearer.path is not None
        old = bearer.path[1]
        new, forwarding = target.serve(bearer, again.get(bearer)), target.serve(bearer)
        relay = Relay(target, forwarding)
        if indirect:
            through = bearer.core.allocate()
            bearer.core.relays[through] = relay
            relay = Relay(bearer.core, through)
        source.hand_over(bearer, old, relay)
        teids.append((bearer, old, new))
    ue.radio = target
    return Handover(ue, source, target, tuple(teids))


def switch_path(net: Network, handover: Handover, *, end_marker: bool = True) -> None:
    """The core sends to the target from now on (TS 23.401 section 5.5.1.1.2), and says so to the source."""
    for bearer, old, new in handover.teids:
        bearer.path = handover.target, new
        if end_marker:
            net.send(bearer.core.end_marker(bearer, handover.source, old))


def stop_forwarding(handover: Handover) -> None:
    """The source releases the UE without having seen an End Marker."""
    for _, old, _ in handover.teids:
        handover.source.relays.pop(old, None)


def relocate(ue: Ue, core: Core) -> None:
    """Another SGW (TS 23.401 section 5.5.1.1.3): new uplink TEIDs, the eNB and its TEIDs stay."""
    for bearer in ue.bearers:
        bearer.core.tunnels.pop(bearer.up, None)
        bearer.core, bearer.up = core, core.allocate()
        core.tunnels[bearer.up] = bearer


def ask(net: Network, ue: Ue, *, port: int = 0, size: int = 32, optional: bool = False) -> Exchange:
    """The UE asks the Internet: an ICMP echo, or UDP to a server's ``port``."""
    return _asked(net, ue, Asked.CORE, ELSEWHERE[len(ue.addresses[0])], (UE_PORT, port), size, optional)


def request(
    net: Network, ue: Ue, *, port: int = ECHO_PORT, own_port: int = UE_PORT, size: int = 32,
    optional: bool = False,
) -> Exchange:  # fmt: skip
    """The UE asks the service (port 0: an ICMP echo); without an edge the core answers for it."""
    asked = Asked.SERVICE if net.settings.edge else Asked.CORE
    target = net.settings.service(len(ue.addresses[0]))
    return _asked(net, ue, asked, target, (own_port, port), size, optional)


def push(net: Network, ue: Ue, *, optional: bool = False) -> Exchange:
    """The Internet speaks to the UE first; to one that is gone, in vain."""
    exchange = _push(net, ue, Asked.PUSH, ELSEWHERE[len(ue.addresses[0])], optional)
    for core in {bearer.core for bearer in ue.bearers}:
        send(net, core.downlink(ue, exchange.packet, ECHO_PORT))
    return exchange


def notify(net: Network, ue: Ue, *, optional: bool = False) -> Exchange:
    """The application speaks to the UE first; without an edge a server in the Internet does."""
    edge = net.settings.edge
    application = edge.application(len(ue.addresses[0])) if edge else None
    if application is None or net.application is None:
        return push(net, ue, optional=optional)
    exchange = _push(net, ue, Asked.NOTIFY, application.address, optional)
    net.application.say(exchange.packet)
    return exchange


def solicit(net: Network, ue: Ue) -> None:
    """An IPv6 UE's first words: from its link-local address, for its prefix."""
    link_local = b"\xfe\x80" + bytes(6) + ue.addresses[-1][8:]
    _up(net, ue, router_solicitation(link_local), 0)


def stream(net: Network, ue: Ue, *, to_service: bool, interval_s: float = 0.02) -> Stream:
    """Ask every ``interval_s`` from now on."""
    speak = request if to_service else ask
    name = "service" if to_service else "internet"
    running = Stream(name, lambda: speak(net, ue, optional=True), interval_s, net.now)
    net.streams.append(running)
    return running


def spoof(net: Network, ue: Ue, source: bytes) -> None:
    """The UE sends with a source that is not its own."""
    ends = (source, UE_PORT), (ELSEWHERE[len(source)], ECHO_PORT)
    _up(net, ue, udp_packet(*ends, b"not mine"), ECHO_PORT)


def send(net: Network, messages: Iterable[Outgoing]) -> None:
    """Put a node's messages on the wire."""
    for out in messages:
        net.send(out)


def _asked(
    net: Network, ue: Ue, asked: Asked, target: bytes, ports: tuple[int, int], size: int, optional: bool
) -> Exchange:
    own, port = (ue.addresses[0], ports[0]), ports[1]
    token = net.draw.randbytes(TOKEN)
    data = (MARK + token).ljust(size, b".")
    if port:
        packet = udp_packet(own, (target, port), data)
    else:
        packet = icmp.echo_packet(own[0], target, icmp.Echo(net.draw.randrange(1 << 16), 1, data))
    exchange = Exchange(token, ue, asked, packet, net.now, ue.cores, ue.bearer_for(port), optional)
    net.exchanges[token] = exchange
    _up(net, ue, packet, port)
    return exchange


def _up(net: Network, ue: Ue, packet: bytes, port: int) -> None:
    if ue.radio is not None:
        net.send(ue.radio.uplink(ue.bearer_for(port), packet, port))


def _push(net: Network, ue: Ue, asked: Asked, source: bytes, optional: bool) -> Exchange:
    token = net.draw.randbytes(TOKEN)
    packet = udp_packet((source, ECHO_PORT), (ue.addresses[0], UE_PORT), MARK + token)
    exchange = Exchange(token, ue, asked, packet, net.now, ue.cores, None, optional)
    net.exchanges[token] = exchange
    return exchange
