from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar, cast

from attrs import define as _attrs_define

from ..models.app_view_state import AppViewState

if TYPE_CHECKING:
    from ..models.app import App
    from ..models.app_fault import AppFault
    from ..models.app_view_timings import AppViewTimings


T = TypeVar("T", bound="AppView")


@_attrs_define
class AppView:
    """
    Attributes:
        name (str):
        vim (str):
        state (AppViewState): `undoing`: something failed, what was made is being removed. `restarting`: it has ended,
            and is made again.
            `failed`: for good, and nothing is left. `ready`: its services are in force.
        step (None | str): What is being done for it
        addresses (list[str]): In the applications' network
        reach (None | str): Where packets to it are sent
        restarts (int):
        timings (AppViewTimings): Seconds by step, and by the VIM's phases of `build`
        error (AppFault | None):
        spec (App): An ME App, and the services that it backs
    """

    name: str
    vim: str
    state: AppViewState
    step: None | str
    addresses: list[str]
    reach: None | str
    restarts: int
    timings: AppViewTimings
    error: AppFault | None
    spec: App

    def to_dict(self) -> dict[str, Any]:
        from ..models.app_fault import AppFault  # noqa: PLC0415

        name = self.name

        vim = self.vim

        state = self.state.value

        step: None | str
        step = self.step

        addresses = self.addresses

        reach: None | str
        reach = self.reach

        restarts = self.restarts

        timings = self.timings.to_dict()

        error: dict[str, Any] | None
        if isinstance(self.error, AppFault):
            error = self.error.to_dict()
        else:
            error = self.error

        spec = self.spec.to_dict()

        field_dict: dict[str, Any] = {}

        field_dict.update(
            {
                "name": name,
                "vim": vim,
                "state": state,
                "step": step,
                "addresses": addresses,
                "reach": reach,
                "restarts": restarts,
                "timings": timings,
                "error": error,
                "spec": spec,
            }
        )

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        from ..models.app import App  # noqa: PLC0415
        from ..models.app_fault import AppFault  # noqa: PLC0415
        from ..models.app_view_timings import AppViewTimings  # noqa: PLC0415

        d = dict(src_dict)
        name = d.pop("name")

        vim = d.pop("vim")

        state = AppViewState(d.pop("state"))

        def _parse_step(data: object) -> None | str:
            if data is None:
                return data
            return cast(None | str, data)

        step = _parse_step(d.pop("step"))

        addresses = cast(list[str], d.pop("addresses"))

        def _parse_reach(data: object) -> None | str:
            if data is None:
                return data
            return cast(None | str, data)

        reach = _parse_reach(d.pop("reach"))

        restarts = d.pop("restarts")

        timings = AppViewTimings.from_dict(d.pop("timings"))

        def _parse_error(data: object) -> AppFault | None:
            if data is None:
                return data
            try:
                if not isinstance(data, dict):
                    raise TypeError()
                error_type_0 = AppFault.from_dict(data)

                return error_type_0
            except (TypeError, ValueError, AttributeError, KeyError):
                pass
            return cast(AppFault | None, data)

        error = _parse_error(d.pop("error"))

        spec = App.from_dict(d.pop("spec"))

        app_view = cls(
            name=name,
            vim=vim,
            state=state,
            step=step,
            addresses=addresses,
            reach=reach,
            restarts=restarts,
            timings=timings,
            error=error,
            spec=spec,
        )

        return app_view
