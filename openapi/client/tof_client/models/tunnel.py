from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any, TypeVar, cast

from attrs import define as _attrs_define

from ..models.tunnel_direction import TunnelDirection
from ..models.tunnel_state import TunnelState

T = TypeVar("T", bound="Tunnel")


@_attrs_define
class Tunnel:
    """
    Attributes:
        direction (TunnelDirection):
        vlan (int | None): VLAN id, null when untagged
        source (str): Outer source address
        destination (str): Outer destination address
        teid (int):
        ues (list[str]): UE addresses behind the tunnel; an IPv6 UE is its /64 prefix
        qfi (int | None): QoS flow identifier last carried (5G), else null
        state (TunnelState): `paired`: the opposite tunnel is known. `ended`: an End Marker passed, nothing is injected.
        packets (int): All that entered or left in this tunnel
        bytes_ (int):
        last_seen (datetime.datetime):
    """

    direction: TunnelDirection
    vlan: int | None
    source: str
    destination: str
    teid: int
    ues: list[str]
    qfi: int | None
    state: TunnelState
    packets: int
    bytes_: int
    last_seen: datetime.datetime

    def to_dict(self) -> dict[str, Any]:
        direction = self.direction.value

        vlan: int | None
        vlan = self.vlan

        source = self.source

        destination = self.destination

        teid = self.teid

        ues = self.ues

        qfi: int | None
        qfi = self.qfi

        state = self.state.value

        packets = self.packets

        bytes_ = self.bytes_

        last_seen = self.last_seen.isoformat()

        field_dict: dict[str, Any] = {}

        field_dict.update(
            {
                "direction": direction,
                "vlan": vlan,
                "source": source,
                "destination": destination,
                "teid": teid,
                "ues": ues,
                "qfi": qfi,
                "state": state,
                "packets": packets,
                "bytes": bytes_,
                "last_seen": last_seen,
            }
        )

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        d = dict(src_dict)
        direction = TunnelDirection(d.pop("direction"))

        def _parse_vlan(data: object) -> int | None:
            if data is None:
                return data
            return cast(int | None, data)

        vlan = _parse_vlan(d.pop("vlan"))

        source = d.pop("source")

        destination = d.pop("destination")

        teid = d.pop("teid")

        ues = cast(list[str], d.pop("ues"))

        def _parse_qfi(data: object) -> int | None:
            if data is None:
                return data
            return cast(int | None, data)

        qfi = _parse_qfi(d.pop("qfi"))

        state = TunnelState(d.pop("state"))

        packets = d.pop("packets")

        bytes_ = d.pop("bytes")

        last_seen = datetime.datetime.fromisoformat(d.pop("last_seen"))

        tunnel = cls(
            direction=direction,
            vlan=vlan,
            source=source,
            destination=destination,
            teid=teid,
            ues=ues,
            qfi=qfi,
            state=state,
            packets=packets,
            bytes_=bytes_,
            last_seen=last_seen,
        )

        return tunnel
