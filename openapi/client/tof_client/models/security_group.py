from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from attrs import define as _attrs_define

from ..types import UNSET, Unset

if TYPE_CHECKING:
    from ..models.security_rule import SecurityRule


T = TypeVar("T", bound="SecurityGroup")


@_attrs_define
class SecurityGroup:
    """What the applications' ports that are in it let in and out, beyond the answers to what they let in and out

    Attributes:
        name (str):
        rules (list[SecurityRule] | Unset):
    """

    name: str
    rules: list[SecurityRule] | Unset = UNSET

    def to_dict(self) -> dict[str, Any]:
        name = self.name

        rules: list[dict[str, Any]] | Unset = UNSET
        if not isinstance(self.rules, Unset):
            rules = []
            for rules_item_data in self.rules:
                rules_item = rules_item_data.to_dict()
                rules.append(rules_item)

        field_dict: dict[str, Any] = {}

        field_dict.update(
            {
                "name": name,
            }
        )
        if rules is not UNSET:
            field_dict["rules"] = rules

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        from ..models.security_rule import SecurityRule  # noqa: PLC0415

        d = dict(src_dict)
        name = d.pop("name")

        _rules = d.pop("rules", UNSET)
        rules: list[SecurityRule] | Unset = UNSET
        if _rules is not UNSET:
            rules = []
            for rules_item_data in _rules:
                rules_item = SecurityRule.from_dict(rules_item_data)

                rules.append(rules_item)

        security_group = cls(
            name=name,
            rules=rules,
        )

        return security_group
