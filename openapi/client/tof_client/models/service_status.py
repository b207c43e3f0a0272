from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from attrs import define as _attrs_define

from ..models.service_status_state import ServiceStatusState

T = TypeVar("T", bound="ServiceStatus")


@_attrs_define
class ServiceStatus:
    """
    Attributes:
        name (str):
        state (ServiceStatusState): `in_force`: diverted to the application. `unresolved`: the application's address
            does not resolve, so its
            traffic goes to the core. `unhealthy`: the application does not answer its probes, the same. `shadow`: the
            same by the service's mode; what it selects is counted.
        detail (str): Why, in a sentence; may be empty
    """

    name: str
    state: ServiceStatusState
    detail: str

    def to_dict(self) -> dict[str, Any]:
        name = self.name

        state = self.state.value

        detail = self.detail

        field_dict: dict[str, Any] = {}

        field_dict.update(
            {
                "name": name,
                "state": state,
                "detail": detail,
            }
        )

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        d = dict(src_dict)
        name = d.pop("name")

        state = ServiceStatusState(d.pop("state"))

        detail = d.pop("detail")

        service_status = cls(
            name=name,
            state=state,
            detail=detail,
        )

        return service_status
