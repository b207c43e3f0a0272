from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from attrs import define as _attrs_define

from ..types import UNSET, Unset

T = TypeVar("T", bound="Flavour")


@_attrs_define
class Flavour:
    """What it may take; without a number, as much as there is

    Attributes:
        cpu (float | Unset): Processors
        memory_mb (int | Unset): MiB of memory
    """

    cpu: float | Unset = UNSET
    memory_mb: int | Unset = UNSET

    def to_dict(self) -> dict[str, Any]:
        cpu = self.cpu

        memory_mb = self.memory_mb

        field_dict: dict[str, Any] = {}

        field_dict.update({})
        if cpu is not UNSET:
            field_dict["cpu"] = cpu
        if memory_mb is not UNSET:
            field_dict["memoryMb"] = memory_mb

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        d = dict(src_dict)
        cpu = d.pop("cpu", UNSET)

        memory_mb = d.pop("memoryMb", UNSET)

        flavour = cls(
            cpu=cpu,
            memory_mb=memory_mb,
        )

        return flavour
