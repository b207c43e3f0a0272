"""A port-chain as JSON: what a policy takes and gives, and the store keeps."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Final

from tof.agent.service_check import NAME_PATTERN
from tof.errors import BadRequest, Conflict
from tof.model import Chain, Mark, MarkKind, OnFailure

MARKS: Final = {MarkKind.VLAN: (1, 4094), MarkKind.DSCP: (0, 63), MarkKind.NSH: (1, (1 << 24) - 1)}
"""The smallest and the largest number of each kind."""
FIELDS: Final = ("name", "vnfs", "onFailure", *MARKS)
MOST_VNFS: Final = 16
"""Of one chain."""


def parse_chain(body: Mapping[str, object]) -> Chain:
    """The chain that a body describes; BadRequest names the field at fault."""
    for field in body:
        if field not in FIELDS:
            raise BadRequest(f"{field} is not a field of a chain", field)
    name, vnfs = body.get("name"), body.get("vnfs")
    if not isinstance(name, str) or not NAME_PATTERN.fullmatch(name):
        raise BadRequest("name must match " + NAME_PATTERN.pattern, "name")
    if not isinstance(vnfs, list) or not vnfs or not all(isinstance(vnf, str) for vnf in vnfs):
        raise BadRequest("vnfs is missing, or no list of names", "vnfs")
    if len(vnfs) > MOST_VNFS:
        raise BadRequest(f"vnfs has {len(vnfs)} entries, more than {MOST_VNFS}", "vnfs")
    for at, vnf in enumerate(vnfs):
        if vnf in vnfs[:at]:
            raise BadRequest(f"vnfs: {vnf} is walked twice", f"vnfs[{at}]")
    return Chain(name, tuple(vnfs), _on_failure(body.get("onFailure", OnFailure.CORE)), _mark(body))


def chain_body(chain: Chain) -> dict[str, object]:
    """What ``parse_chain`` reads; only what is not as it is by default."""
    optional = {
        "onFailure": None if chain.on_failure is OnFailure.CORE else chain.on_failure.value,
    }
    shown: dict[str, object] = {field: value for field, value in optional.items() if value is not None}
    shown |= {} if chain.mark is None else {chain.mark.kind.value: chain.mark.number}
    return {"name": chain.name, "vnfs": list(chain.vnfs), **shown}


def check_vnfs(chain: Chain, known: Mapping[str, Collection[MarkKind]]) -> None:
    """BadRequest if the chain walks a VNF that there is none of, or none of its VNFs speaks its mark.

    ``known``: the VNFs that there are, and the marks that each speaks.
    """
    names = sorted(known)
    for at, vnf in enumerate(chain.vnfs):
        if vnf not in names:
            have = ", ".join(names) or "none"
            raise BadRequest(f"vnfs: there is no VNF called {vnf}; [vnfs] names {have}", f"vnfs[{at}]")

    kind = None if chain.mark is None else chain.mark.kind
    if kind is not None and not any(kind in known[vnf] for vnf in chain.vnfs):
        raise BadRequest(f"{kind}: none of its VNFs has it in vnfs.NAME.speaks", kind)


def check_mark(
    chain: Chain, others: Iterable[Chain], known: Mapping[str, Collection[MarkKind]] | None = None
) -> None:
    """Conflict if somebody could not tell the chain from one of the ``others``, which came before it.

    A service path identifier is one chain's alone; a DSCP, at each VNF that speaks it. VLANs may be shared.
    """
    for other in others:
        if chain.mark is None or chain.mark != other.mark or chain.mark.kind is MarkKind.VLAN:
            continue
        kind, number = chain.mark
        both = f"chains {other.name} and {chain.name}"
        if kind is MarkKind.NSH:
            raise Conflict(f"{kind}: {both} have the same service path identifier, {number}", kind)
        shared = [vnf for vnf in chain.vnfs if vnf in other.vnfs and known and kind in known.get(vnf, ())]
        if shared:
            raise Conflict(f"{kind}: {both} have the same, {number}, and share the VNF {shared[0]}", kind)


def _mark(body: Mapping[str, object]) -> Mark | None:
    given = [kind for kind in MARKS if body.get(kind) is not None]
    if not given:
        return None
    kind, number = given[0], body[given[0]]
    low, high = MARKS[kind]
    if type(number) is not int or not low <= number <= high:
        raise BadRequest(f"{kind} is not a number between {low} and {high}", kind)
    if len(given) > 1:
        raise BadRequest(f"{given[1]}: a chain has one mark, and {kind} is one", given[1])
    return Mark(kind, number)


def _on_failure(value: object) -> OnFailure:
    try:
        return OnFailure(str(value))
    except ValueError:
        raise BadRequest("onFailure is neither skip nor core", "onFailure") from None
