from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from attrs import define as _attrs_define

from ..types import UNSET, Unset

if TYPE_CHECKING:
    from ..models.chain import Chain
    from ..models.security_group import SecurityGroup
    from ..models.service import Service


T = TypeVar("T", bound="Policy")


@_attrs_define
class Policy:
    """All services, the port-chains that they may walk, and the security groups of applications' ports

    Attributes:
        services (list[Service]):
        chains (list[Chain] | Unset):
        security_groups (list[SecurityGroup] | Unset):
    """

    services: list[Service]
    chains: list[Chain] | Unset = UNSET
    security_groups: list[SecurityGroup] | Unset = UNSET

    def to_dict(self) -> dict[str, Any]:
        services = []
        for services_item_data in self.services:
            services_item = services_item_data.to_dict()
            services.append(services_item)

        chains: list[dict[str, Any]] | Unset = UNSET
        if not isinstance(self.chains, Unset):
            chains = []
            for chains_item_data in self.chains:
                chains_item = chains_item_data.to_dict()
                chains.append(chains_item)

        security_groups: list[dict[str, Any]] | Unset = UNSET
        if not isinstance(self.security_groups, Unset):
            security_groups = []
            for security_groups_item_data in self.security_groups:
                security_groups_item = security_groups_item_data.to_dict()
                security_groups.append(security_groups_item)

        field_dict: dict[str, Any] = {}

        field_dict.update(
            {
                "services": services,
            }
        )
        if chains is not UNSET:
            field_dict["chains"] = chains
        if security_groups is not UNSET:
            field_dict["securityGroups"] = security_groups

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        from ..models.chain import Chain  # noqa: PLC0415
        from ..models.security_group import SecurityGroup  # noqa: PLC0415
        from ..models.service import Service  # noqa: PLC0415

        d = dict(src_dict)
        services = []
        _services = d.pop("services")
        for services_item_data in _services:
            services_item = Service.from_dict(services_item_data)

            services.append(services_item)

        _chains = d.pop("chains", UNSET)
        chains: list[Chain] | Unset = UNSET
        if _chains is not UNSET:
            chains = []
            for chains_item_data in _chains:
                chains_item = Chain.from_dict(chains_item_data)

                chains.append(chains_item)

        _security_groups = d.pop("securityGroups", UNSET)
        security_groups: list[SecurityGroup] | Unset = UNSET
        if _security_groups is not UNSET:
            security_groups = []
            for security_groups_item_data in _security_groups:
                security_groups_item = SecurityGroup.from_dict(security_groups_item_data)

                security_groups.append(security_groups_item)

        policy = cls(
            services=services,
            chains=chains,
            security_groups=security_groups,
        )

        return policy
