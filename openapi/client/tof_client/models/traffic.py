from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from attrs import define as _attrs_define

T = TypeVar("T", bound="Traffic")


@_attrs_define
class Traffic:
    """Users' packets, diverted uplink or injected downlink, with their IP headers

    Attributes:
        packets (int):
        bytes_ (int):
    """

    packets: int
    bytes_: int

    def to_dict(self) -> dict[str, Any]:
        packets = self.packets

        bytes_ = self.bytes_

        field_dict: dict[str, Any] = {}

        field_dict.update(
            {
                "packets": packets,
                "bytes": bytes_,
            }
        )

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        d = dict(src_dict)
        packets = d.pop("packets")

        bytes_ = d.pop("bytes")

        traffic = cls(
            packets=packets,
            bytes_=bytes_,
        )

        return traffic
