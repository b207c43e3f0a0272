"""Marks between hops: what tells a VNF that speaks it which chain a frame walks, put on and taken off.

A mark is on a frame only on its way through a VNF, and a frame says itself which one it has. So what comes out after its
chain has changed is understood, and a VNF that speaks none sees plain packets.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, assert_never

from tof.dataplane.desired import Desired, Path, Vnf
from tof.dataplane.flow import (
    IPV4,
    IPV6,
    NSH,
    TAGGED,
    UNTAGGED,
    Action,
    Flow,
    Goto,
    Masked,
    Match,
    Output,
    PassNsh,
    PopNsh,
    PopVlan,
    PushNsh,
    PushVlan,
    RestoreDscp,
    SetField,
    StowDscp,
)
from tof.dataplane.tables import CLASSIFIER, DOWN, PORTS, UP
from tof.model import FAR_MAC, NEAR_MAC, SERVICE_MAC_PREFIX, TUNNEL_MAC_PREFIX, MarkKind

_FIRST_INDEX: Final = 255
"""The service index that a path begins with (RFC 8300, section 2.3)."""
_ETHERNET: Final = 3
"""NSH's next protocol (RFC 8300, section 2.2)."""
_TUNNEL_MACS: Final = Masked(TUNNEL_MAC_PREFIX + bytes(4), b"\xff\xff" + bytes(4))
_SERVICE_MACS: Final = Masked(SERVICE_MAC_PREFIX + bytes(4), b"\xff\xff" + bytes(4))
_STOWED_MACS: Final = Masked(b"\x02\x74" + bytes(4), b"\x03\xff" + bytes(4))


def into(path: Path, place: int, direction: int) -> tuple[Action, ...]:
    """Give a frame to the VNF in this place of ``path``, with its mark if the VNF speaks it."""
    vnf = path.vnfs[place]
    port, service = (vnf.near, "eth_dst") if direction == UP else (vnf.far, "eth_src")
    return (*_put_on(path, place, direction, service), Output(port))


def rules(desired: Desired) -> Iterator[Flow]:
    """What was given to a VNF, and nothing else, comes out of it (table 0): a service's MAC address says what it is."""
    for vnf in desired.vnfs:
        for direction in (UP, DOWN):
            yield from _plain(vnf, direction)
            if MarkKind.DSCP in vnf.speaks:
                yield from _stowed(vnf, direction)
            if MarkKind.NSH in vnf.speaks:
                yield from _wrapped(vnf, direction)
    for path in sorted({route.path for route in desired.services}, key=lambda path: path.id):
        yield from _between(path)


def _plain(vnf: Vnf, direction: int) -> Iterator[Flow]:
    for match in _from(vnf, direction, _SERVICE_MACS):
        yield Flow(PORTS, 100, match, _going(direction), f"VNF {vnf.name}")
        tagged = (*match, ("vlan_vid", TAGGED))
        yield Flow(PORTS, 110, tagged, (PopVlan(), *_going(direction)), f"VNF {vnf.name}, marked")


def _stowed(vnf: Vnf, direction: int) -> Iterator[Flow]:
    service = "eth_dst" if direction == UP else "eth_src"
    for match in _from(vnf, direction, _STOWED_MACS):
        untagged = (*match, ("vlan_vid", UNTAGGED))
        actions = (RestoreDscp(service), *_going(direction))
        yield Flow(PORTS, 100, untagged, actions, f"VNF {vnf.name}, by its DSCP")


def _wrapped(vnf: Vnf, direction: int) -> Iterator[Flow]:
    port = ("in_port", _out_of(vnf, direction))
    match: Match = (port, ("eth_type", NSH), ("nsh_np", _ETHERNET))
    yield Flow(PORTS, 100, match, (PopNsh(), *_going(direction)), f"VNF {vnf.name}, in NSH")
    yield Flow(CLASSIFIER, 200, (port, ("vlan_vid", TAGGED)), (), f"VNF {vnf.name}: tagged inside of NSH")


def _between(path: Path) -> Iterator[Flow]:
    """From a VNF that speaks NSH to one that does, the header stays around the frame, with what VNFs wrote into it."""
    if path.mark is None or path.mark.kind is not MarkKind.NSH:
        return
    for place, (before, after) in enumerate(zip(path.vnfs, path.vnfs[1:], strict=False)):
        if not (MarkKind.NSH in before.speaks and MarkKind.NSH in after.speaks):
            continue
        ways = ((UP, before, place + 1, after.near), (DOWN, after, place, before.far))
        for direction, vnf, to, port in ways:
            match: Match = (
                ("in_port", _out_of(vnf, direction)),
                ("eth_type", NSH),
                ("nsh_np", _ETHERNET),
                ("nsh_spi", path.mark.number),
            )
            actions = (PassNsh(_index(path, to, direction), *_ends(direction)), Output(port))
            yield Flow(PORTS, 110, match, actions, f"{path.name}: in NSH from {vnf.name} to the next")


def _from(vnf: Vnf, direction: int, service: Masked) -> Iterator[Match]:
    for ip in (IPV4, IPV6):
        if direction == UP:
            yield (("in_port", vnf.far), ("eth_dst", service), ("eth_type", ip.eth_type))
        else:
            macs = (("eth_src", service), ("eth_dst", _TUNNEL_MACS))
            yield (("in_port", vnf.near), *macs, ("eth_type", ip.eth_type))


def _out_of(vnf: Vnf, direction: int) -> int:
    return vnf.far if direction == UP else vnf.near


def _going(direction: int) -> tuple[Action, ...]:
    return SetField("reg3", direction), Goto(CLASSIFIER)


def _put_on(path: Path, place: int, direction: int, service: str) -> tuple[Action, ...]:
    if path.mark is None or path.mark.kind not in path.vnfs[place].speaks:
        return ()
    number = path.mark.number
    match path.mark.kind:
        case MarkKind.VLAN:
            return (PushVlan(number),)
        case MarkKind.DSCP:
            return StowDscp(service), SetField("ip_dscp", number)
        case MarkKind.NSH:
            return (PushNsh(number, _index(path, place, direction), *_ends(direction)),)
        case _:  # pragma: no cover
            assert_never(path.mark.kind)


def _index(path: Path, place: int, direction: int) -> int:
    """One less for each VNF on the way there, those left out as well, and on for each on the way back."""
    chain = path.whole or tuple(vnf.name for vnf in path.vnfs)
    at = chain.index(path.vnfs[place].name)
    return _FIRST_INDEX - (at if direction == UP else 2 * len(chain) - 1 - at)


def _ends(direction: int) -> tuple[bytes, bytes]:
    return (NEAR_MAC, FAR_MAC) if direction == UP else (FAR_MAC, NEAR_MAC)
