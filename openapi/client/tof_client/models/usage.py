from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar, cast

from attrs import define as _attrs_define

if TYPE_CHECKING:
    from ..models.traffic import Traffic


T = TypeVar("T", bound="Usage")


@_attrs_define
class Usage:
    """
    Attributes:
        service (str): Name of the service, or its number if it was gone when the agent started
        service_ip (str): The service's address or prefix; empty if not known any more
        ue (str): Address of the UE; an IPv6 UE is its /64 prefix
        enb (str): Outer address of the eNB or gNB
        sgw (str): Outer address of the SGW or UPF
        vlan (int | None): VLAN; null is untagged
        flow_id (str): The flowId of IPFIX in hexadecimal
        start (datetime.datetime): First packet
        end (datetime.datetime): Last packet
        uplink (Traffic): Users' packets, diverted uplink or injected downlink, with their IP headers
        downlink (Traffic): Users' packets, diverted uplink or injected downlink, with their IP headers
    """

    service: str
    service_ip: str
    ue: str
    enb: str
    sgw: str
    vlan: int | None
    flow_id: str
    start: datetime.datetime
    end: datetime.datetime
    uplink: Traffic
    downlink: Traffic

    def to_dict(self) -> dict[str, Any]:
        service = self.service

        service_ip = self.service_ip

        ue = self.ue

        enb = self.enb

        sgw = self.sgw

        vlan: int | None
        vlan = self.vlan

        flow_id = self.flow_id

        start = self.start.isoformat()

        end = self.end.isoformat()

        uplink = self.uplink.to_dict()

        downlink = self.downlink.to_dict()

        field_dict: dict[str, Any] = {}

        field_dict.update(
            {
                "service": service,
                "serviceIP": service_ip,
                "ue": ue,
                "enb": enb,
                "sgw": sgw,
                "vlan": vlan,
                "flow_id": flow_id,
                "start": start,
                "end": end,
                "uplink": uplink,
                "downlink": downlink,
            }
        )

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        from ..models.traffic import Traffic  # noqa: PLC0415

        d = dict(src_dict)
        service = d.pop("service")

        service_ip = d.pop("serviceIP")

        ue = d.pop("ue")

        enb = d.pop("enb")

        sgw = d.pop("sgw")

        def _parse_vlan(data: object) -> int | None:
            if data is None:
                return data
            return cast(int | None, data)

        vlan = _parse_vlan(d.pop("vlan"))

        flow_id = d.pop("flow_id")

        start = datetime.datetime.fromisoformat(d.pop("start"))

        end = datetime.datetime.fromisoformat(d.pop("end"))

        uplink = Traffic.from_dict(d.pop("uplink"))

        downlink = Traffic.from_dict(d.pop("downlink"))

        usage = cls(
            service=service,
            service_ip=service_ip,
            ue=ue,
            enb=enb,
            sgw=sgw,
            vlan=vlan,
            flow_id=flow_id,
            start=start,
            end=end,
            uplink=uplink,
            downlink=downlink,
        )

        return usage
