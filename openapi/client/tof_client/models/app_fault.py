from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from attrs import define as _attrs_define

T = TypeVar("T", bound="AppFault")


@_attrs_define
class AppFault:
    """What last went wrong

    Attributes:
        step (str): What was being done
        vim_message (str): What the VIM
        hint (str): What to do
    """

    step: str
    vim_message: str
    hint: str

    def to_dict(self) -> dict[str, Any]:
        step = self.step

        vim_message = self.vim_message

        hint = self.hint

        field_dict: dict[str, Any] = {}

        field_dict.update(
            {
                "step": step,
                "vim_message": vim_message,
                "hint": hint,
            }
        )

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        d = dict(src_dict)
        step = d.pop("step")

        vim_message = d.pop("vim_message")

        hint = d.pop("hint")

        app_fault = cls(
            step=step,
            vim_message=vim_message,
            hint=hint,
        )

        return app_fault
