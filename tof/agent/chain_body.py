"""A port-chain as JSON: what a policy takes and gives, and the store keeps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from tof.agent.service_check import NAME_PATTERN
from tof.errors import BadRequest
from tof.model import Chain, OnFailure

FIELDS: Final = ("name", "vnfs", "onFailure", "vlan")
MOST_VNFS: Final = 16
"""Of one chain."""


def parse_chain(body: Mapping[str, object]) -> Chain:
    """The chain that a body describes; BadRequest names the field at fault."""
    for field in body:
        if field not in FIELDS:
            raise BadRequest(f"{field} is not a field of a chain", field)
    name, vnfs, vlan = body.get("name"), body.get("vnfs"), body.get("vlan")
    if not isinstance(name, str) or not NAME_PATTERN.fullmatch(name):
        raise BadRequest("name must match " + NAME_PATTERN.pattern, "name")
    if not isinstance(vnfs, list) or not vnfs or not all(isinstance(vnf, str) for vnf in vnfs):
        raise BadRequest("vnfs is missing, or no list of names", "vnfs")
    if len(vnfs) > MOST_VNFS:
        raise BadRequest(f"vnfs has {len(vnfs)} entries, more than {MOST_VNFS}", "vnfs")
    for at, vnf in enumerate(vnfs):
        if vnf in vnfs[:at]:
            raise BadRequest(f"vnfs: {vnf} is walked twice", f"vnfs[{at}]")
    if vlan is not None and (type(vlan) is not int or not 1 <= vlan <= 4094):
        raise BadRequest("vlan is not a number between 1 and 4094", "vlan")
    return Chain(name, tuple(vnfs), _on_failure(body.get("onFailure", OnFailure.CORE)), vlan)


def chain_body(chain: Chain) -> dict[str, object]:
    """What ``parse_chain`` reads; only what is not as it is by default."""
    optional = {
        "onFailure": None if chain.on_failure is OnFailure.CORE else chain.on_failure.value,
        "vlan": chain.vlan,
    }
    shown = {field: value for field, value in optional.items() if value is not None}
    return {"name": chain.name, "vnfs": list(chain.vnfs), **shown}


def check_vnfs(chain: Chain, known: Iterable[str]) -> None:
    """BadRequest if the chain walks a VNF that there is none of."""
    names = sorted(known)
    for at, vnf in enumerate(chain.vnfs):
        if vnf not in names:
            have = ", ".join(names) or "none"
            raise BadRequest(f"vnfs: there is no VNF called {vnf}; [vnfs] names {have}", f"vnfs[{at}]")


def _on_failure(value: object) -> OnFailure:
    try:
        return OnFailure(str(value))
    except ValueError:
        raise BadRequest("onFailure is neither skip nor core", "onFailure") from None
