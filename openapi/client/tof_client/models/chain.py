from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, cast

from attrs import define as _attrs_define

from ..models.chain_on_failure import ChainOnFailure
from ..types import UNSET, Unset

T = TypeVar("T", bound="Chain")


@_attrs_define
class Chain:
    """VNFs, which the configuration names, in the order in which packets from UEs meet them

    Attributes:
        name (str):
        vnfs (list[str]):
        on_failure (ChainOnFailure | Unset): While one of them is dead: `core`, as without it: the chain's services go
            to the core. `skip`: that one is left out.
        vlan (int | Unset): VLAN id that marks the chain's frames for the VNFs that speak VLANs (`vnfs.NAME.speaks`). A
            chain has one mark
            at most: `vlan`, `dscp` or `nsh`.
        dscp (int | Unset): DSCP that the chain's packets have in VNFs that speak it; outside of these they have their
            own. Chains with the
            same one share no VNF that speaks it (409).
        nsh (int | Unset): Service Path Identifier: the chain's frames are in NSH (RFC 8300) in VNFs that speak it. No
            two chains have
            the same one (409).
    """

    name: str
    vnfs: list[str]
    on_failure: ChainOnFailure | Unset = UNSET
    vlan: int | Unset = UNSET
    dscp: int | Unset = UNSET
    nsh: int | Unset = UNSET

    def to_dict(self) -> dict[str, Any]:
        name = self.name

        vnfs = self.vnfs

        on_failure: str | Unset = UNSET
        if not isinstance(self.on_failure, Unset):
            on_failure = self.on_failure.value

        vlan = self.vlan

        dscp = self.dscp

        nsh = self.nsh

        field_dict: dict[str, Any] = {}

        field_dict.update(
            {
                "name": name,
                "vnfs": vnfs,
            }
        )
        if on_failure is not UNSET:
            field_dict["onFailure"] = on_failure
        if vlan is not UNSET:
            field_dict["vlan"] = vlan
        if dscp is not UNSET:
            field_dict["dscp"] = dscp
        if nsh is not UNSET:
            field_dict["nsh"] = nsh

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        d = dict(src_dict)
        name = d.pop("name")

        vnfs = cast(list[str], d.pop("vnfs"))

        _on_failure = d.pop("onFailure", UNSET)
        on_failure: ChainOnFailure | Unset
        if isinstance(_on_failure, Unset):
            on_failure = UNSET
        else:
            on_failure = ChainOnFailure(_on_failure)

        vlan = d.pop("vlan", UNSET)

        dscp = d.pop("dscp", UNSET)

        nsh = d.pop("nsh", UNSET)

        chain = cls(
            name=name,
            vnfs=vnfs,
            on_failure=on_failure,
            vlan=vlan,
            dscp=dscp,
            nsh=nsh,
        )

        return chain
