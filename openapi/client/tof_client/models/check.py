from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from attrs import define as _attrs_define

from ..models.health_state import HealthState

T = TypeVar("T", bound="Check")


@_attrs_define
class Check:
    """
    Attributes:
        name (str):
        state (HealthState):
        detail (str):
    """

    name: str
    state: HealthState
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

        state = HealthState(d.pop("state"))

        detail = d.pop("detail")

        check = cls(
            name=name,
            state=state,
            detail=detail,
        )

        return check
