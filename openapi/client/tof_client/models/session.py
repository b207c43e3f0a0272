from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from attrs import define as _attrs_define

from ..models.session_state import SessionState

if TYPE_CHECKING:
    from ..models.tunnel import Tunnel


T = TypeVar("T", bound="Session")


@_attrs_define
class Session:
    """
    Attributes:
        ue (str): Address of the UE; an IPv6 UE is its /64 prefix
        uplink (list[Tunnel]):
        downlink (list[Tunnel]):
        state (SessionState): `paired`: both directions are known. `ended`: an End Marker passed.
    """

    ue: str
    uplink: list[Tunnel]
    downlink: list[Tunnel]
    state: SessionState

    def to_dict(self) -> dict[str, Any]:
        ue = self.ue

        uplink = []
        for uplink_item_data in self.uplink:
            uplink_item = uplink_item_data.to_dict()
            uplink.append(uplink_item)

        downlink = []
        for downlink_item_data in self.downlink:
            downlink_item = downlink_item_data.to_dict()
            downlink.append(downlink_item)

        state = self.state.value

        field_dict: dict[str, Any] = {}

        field_dict.update(
            {
                "ue": ue,
                "uplink": uplink,
                "downlink": downlink,
                "state": state,
            }
        )

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        from ..models.tunnel import Tunnel  # noqa: PLC0415

        d = dict(src_dict)
        ue = d.pop("ue")

        uplink = []
        _uplink = d.pop("uplink")
        for uplink_item_data in _uplink:
            uplink_item = Tunnel.from_dict(uplink_item_data)

            uplink.append(uplink_item)

        downlink = []
        _downlink = d.pop("downlink")
        for downlink_item_data in _downlink:
            downlink_item = Tunnel.from_dict(downlink_item_data)

            downlink.append(downlink_item)

        state = SessionState(d.pop("state"))

        session = cls(
            ue=ue,
            uplink=uplink,
            downlink=downlink,
            state=state,
        )

        return session
