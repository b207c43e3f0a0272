"""The Service Function Forwarder (table 2): walks a chain hop by hop, in either direction."""

from __future__ import annotations

from collections.abc import Iterator

from tof.dataplane.desired import DIRECT, Desired, Path
from tof.dataplane.flow import IPV4, IPV6, Flow, Goto, Match, SetField
from tof.dataplane.marks import into
from tof.dataplane.tables import BACK, DOWN, NAT, OUTPUT, SFF, UP
from tof.model import MarkKind


def rules(desired: Desired) -> Iterator[Flow]:
    """Where a packet goes next: by direction, chain, and the VNF that it comes out of.

    From a UE ``reg1`` is the number of VNFs behind it. Towards a UE it is the place in the chain of the VNF that it comes
    out of; what comes from an application has to be translated back first, and then enters the chain from table 4.
    """
    yield Flow(SFF, 100, _at(DOWN, DIRECT, 0), (Goto(NAT),), "from an application: translated back first")
    for path in sorted({DIRECT, *(route.path for route in desired.services)}, key=lambda path: path.id):
        yield from _walk(path)


def _walk(path: Path) -> Iterator[Flow]:
    last = len(path.vnfs)
    for place in range(last):
        yield from _hop(UP, path, place, place)
        if place == 0:
            home = (SetField("reg3", BACK), Goto(OUTPUT))
            yield Flow(SFF, 100, _at(DOWN, path, 0), home, f"{path.name}: down, through all of it")
        else:
            yield from _hop(DOWN, path, place, place - 1)
    yield Flow(SFF, 100, _at(UP, path, last), (Goto(NAT),), f"{path.name}: up, through all of it")


def _hop(direction: int, path: Path, place: int, to: int) -> Iterator[Flow]:
    way = "up" if direction == UP else "down"
    match, actions = _at(direction, path, place), into(path, to, direction)
    note = f"{path.name}: {way} into {path.vnfs[to].name}"
    if path.mark is None or path.mark.kind is not MarkKind.DSCP:
        yield Flow(SFF, 100, match, actions, note)
        return
    for ip in (IPV4, IPV6):  # OpenFlow writes a DSCP only where the match says that there is one
        yield Flow(SFF, 100, (*match, ("eth_type", ip.eth_type)), actions, note)


def _at(direction: int, path: Path, place: int) -> Match:
    return (("reg3", direction), ("reg0", path.id), ("reg1", place))
