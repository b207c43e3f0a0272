from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from attrs import define as _attrs_define

from ..types import UNSET, Unset

T = TypeVar("T", bound="Mirror")


@_attrs_define
class Mirror:
    """Where the service's diverted packets go a second time, both ways and as the UE sends and gets them: either out of an
    interface of those in the TOF's `mirror.interfaces`, or into a file of this name (without `.pcapng`) in
    `mirror.dir`.

        Attributes:
            interface (str | Unset):
            file (str | Unset):
    """

    interface: str | Unset = UNSET
    file: str | Unset = UNSET

    def to_dict(self) -> dict[str, Any]:
        interface = self.interface

        file = self.file

        field_dict: dict[str, Any] = {}

        field_dict.update({})
        if interface is not UNSET:
            field_dict["interface"] = interface
        if file is not UNSET:
            field_dict["file"] = file

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        d = dict(src_dict)
        interface = d.pop("interface", UNSET)

        file = d.pop("file", UNSET)

        mirror = cls(
            interface=interface,
            file=file,
        )

        return mirror
