from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from attrs import define as _attrs_define

from ..models.health_state import HealthState

if TYPE_CHECKING:
    from ..models.check import Check


T = TypeVar("T", bound="Health")


@_attrs_define
class Health:
    """
    Attributes:
        state (HealthState):
        version (str): Version of the TOF
        checks (list[Check]):
    """

    state: HealthState
    version: str
    checks: list[Check]

    def to_dict(self) -> dict[str, Any]:
        state = self.state.value

        version = self.version

        checks = []
        for checks_item_data in self.checks:
            checks_item = checks_item_data.to_dict()
            checks.append(checks_item)

        field_dict: dict[str, Any] = {}

        field_dict.update(
            {
                "state": state,
                "version": version,
                "checks": checks,
            }
        )

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        from ..models.check import Check  # noqa: PLC0415

        d = dict(src_dict)
        state = HealthState(d.pop("state"))

        version = d.pop("version")

        checks = []
        _checks = d.pop("checks")
        for checks_item_data in _checks:
            checks_item = Check.from_dict(checks_item_data)

            checks.append(checks_item)

        health = cls(
            state=state,
            version=version,
            checks=checks,
        )

        return health
