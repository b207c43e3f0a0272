from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, cast

from attrs import define as _attrs_define

from ..models.spread_by import SpreadBy
from ..models.spread_on_death import SpreadOnDeath
from ..types import UNSET, Unset

T = TypeVar("T", bound="Spread")


@_attrs_define
class Spread:
    """Further applications beside `applicationIP`, of its family, all at the same `applicationPort`, `health` asked of
    each. A flow that has begun stays with its application while that lives; `by` says where a new one goes, or one
    whose application has died: to the first application in order that lives (`applicationIP`, then this list), or to
    the share that its UE, or the flow itself, falls into by consistent hashing

        Attributes:
            applications (list[str]): Addresses, none of them twice
            by (SpreadBy | Unset):  Default: SpreadBy.ORDER.
            on_death (SpreadOnDeath | Unset): Where the share of an application that is dead or does not resolve goes: to
                the `next` one, or to the `core`
                (not with `order`). When it lives again its share comes back, flow by flow
                 Default: SpreadOnDeath.NEXT.
    """

    applications: list[str]
    by: SpreadBy | Unset = SpreadBy.ORDER
    on_death: SpreadOnDeath | Unset = SpreadOnDeath.NEXT

    def to_dict(self) -> dict[str, Any]:
        applications = self.applications

        by: str | Unset = UNSET
        if not isinstance(self.by, Unset):
            by = self.by.value

        on_death: str | Unset = UNSET
        if not isinstance(self.on_death, Unset):
            on_death = self.on_death.value

        field_dict: dict[str, Any] = {}

        field_dict.update(
            {
                "applications": applications,
            }
        )
        if by is not UNSET:
            field_dict["by"] = by
        if on_death is not UNSET:
            field_dict["onDeath"] = on_death

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        d = dict(src_dict)
        applications = cast(list[str], d.pop("applications"))

        _by = d.pop("by", UNSET)
        by: SpreadBy | Unset
        if isinstance(_by, Unset):
            by = UNSET
        else:
            by = SpreadBy(_by)

        _on_death = d.pop("onDeath", UNSET)
        on_death: SpreadOnDeath | Unset
        if isinstance(_on_death, Unset):
            on_death = UNSET
        else:
            on_death = SpreadOnDeath(_on_death)

        spread = cls(
            applications=applications,
            by=by,
            on_death=on_death,
        )

        return spread
