"""The Service Function Forwarder (table 2): walks a chain hop by hop, in either direction."""

from __future__ import annotations

from collections.abc import Iterator

from tof.dataplane.desired import DIRECT, Desired, Path
from tof.dataplane.flow import Action, Flow, Goto, Match, Output, PushVlan, SetField
from tof.dataplane.tables import BACK, DOWN, NAT, OUTPUT, SFF, UP


def rules(desired: Desired) -> Iterator[Flow]:
    """Where a packet goes next: by direction, chain, and the VNF that it comes out of.

    From a UE ``reg1`` is the number of VNFs behind it. Towards a UE it is the place in the chain of the VNF that it comes
    out of; what comes from an application has to be translated back first, and then enters the chain from table 4.
    """
    yield Flow(SFF, 100, _at(DOWN, DIRECT, 0), (Goto(NAT),), "from an application: translated back first")
    for path in sorted({DIRECT, *(route.path for route in desired.services)}, key=lambda path: path.id):
        yield from _walk(path)


def into(path: Path, port: int) -> tuple[Action, ...]:
    """Give a frame to a VNF of ``path`` by this port."""
    return (Output(port),) if path.vlan is None else (PushVlan(path.vlan), Output(port))


def _walk(path: Path) -> Iterator[Flow]:
    last = len(path.vnfs)
    for place, vnf in enumerate(path.vnfs):
        yield Flow(SFF, 100, _at(UP, path, place), into(path, vnf.near), f"{path.name}: up into {vnf.name}")
        if place == 0:
            home = (SetField("reg3", BACK), Goto(OUTPUT))
            yield Flow(SFF, 100, _at(DOWN, path, 0), home, f"{path.name}: down, through all of it")
        else:
            before = path.vnfs[place - 1]
            note = f"{path.name}: down into {before.name}"
            yield Flow(SFF, 100, _at(DOWN, path, place), into(path, before.far), note)
    yield Flow(SFF, 100, _at(UP, path, last), (Goto(NAT),), f"{path.name}: up, through all of it")


def _at(direction: int, path: Path, place: int) -> Match:
    return (("reg3", direction), ("reg0", path.id), ("reg1", place))
