from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any, TypeVar

from attrs import define as _attrs_define

T = TypeVar("T", bound="LearntAddress")


@_attrs_define
class LearntAddress:
    """
    Attributes:
        address (str):
        until (datetime.datetime): When it is the service's no longer, unless it is confirmed or flows to it are in use
    """

    address: str
    until: datetime.datetime

    def to_dict(self) -> dict[str, Any]:
        address = self.address

        until = self.until.isoformat()

        field_dict: dict[str, Any] = {}

        field_dict.update(
            {
                "address": address,
                "until": until,
            }
        )

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        d = dict(src_dict)
        address = d.pop("address")

        until = datetime.datetime.fromisoformat(d.pop("until"))

        learnt_address = cls(
            address=address,
            until=until,
        )

        return learnt_address
