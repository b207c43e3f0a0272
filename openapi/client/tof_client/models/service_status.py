from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from attrs import define as _attrs_define

from ..models.service_status_state import ServiceStatusState
from ..types import UNSET, Unset

if TYPE_CHECKING:
    from ..models.learnt_address import LearntAddress


T = TypeVar("T", bound="ServiceStatus")


@_attrs_define
class ServiceStatus:
    """
    Attributes:
        name (str):
        state (ServiceStatusState): `in_force`: diverted to the application, or to those of several that live.
            `unresolved`: the application's address does not resolve, so its
            traffic goes to the core. `unhealthy`: the application does not answer its probes, the same. `shadow`: the
            same by the service's mode; what it selects is counted. `unlearnt`: no address of its domain is known yet.
            `broken_chain`: a VNF of its chain is dead. `out_of_hours`: the clock is outside its hours. Of both the
            traffic goes to the core.
        detail (str): Why, in a sentence; may be empty
        addresses (list[LearntAddress] | Unset): Of a service given by domain, the addresses that it has
    """

    name: str
    state: ServiceStatusState
    detail: str
    addresses: list[LearntAddress] | Unset = UNSET

    def to_dict(self) -> dict[str, Any]:
        name = self.name

        state = self.state.value

        detail = self.detail

        addresses: list[dict[str, Any]] | Unset = UNSET
        if not isinstance(self.addresses, Unset):
            addresses = []
            for addresses_item_data in self.addresses:
                addresses_item = addresses_item_data.to_dict()
                addresses.append(addresses_item)

        field_dict: dict[str, Any] = {}

        field_dict.update(
            {
                "name": name,
                "state": state,
                "detail": detail,
            }
        )
        if addresses is not UNSET:
            field_dict["addresses"] = addresses

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        from ..models.learnt_address import LearntAddress  # noqa: PLC0415

        d = dict(src_dict)
        name = d.pop("name")

        state = ServiceStatusState(d.pop("state"))

        detail = d.pop("detail")

        _addresses = d.pop("addresses", UNSET)
        addresses: list[LearntAddress] | Unset = UNSET
        if _addresses is not UNSET:
            addresses = []
            for addresses_item_data in _addresses:
                addresses_item = LearntAddress.from_dict(addresses_item_data)

                addresses.append(addresses_item)

        service_status = cls(
            name=name,
            state=state,
            detail=detail,
            addresses=addresses,
        )

        return service_status
