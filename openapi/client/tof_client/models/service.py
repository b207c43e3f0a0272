from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from attrs import define as _attrs_define

T = TypeVar("T", bound="Service")


@_attrs_define
class Service:
    """Traffic of UEs to `serviceIP` is answered by `applicationIP`. Both are of one family and neither multicast,
    broadcast, loopback, unspecified, IPv6 link-local, a Pinger target nor an address of the TOF. An IPv4-mapped
    IPv6 address is the IPv4 address.

        Attributes:
            name (str): 1 to 63 letters, digits, dots, underscores and hyphens, the first a letter or digit; no address
            service_ip (str): The address that UEs use
            application_ip (str): The address of the application at the edge
    """

    name: str
    service_ip: str
    application_ip: str

    def to_dict(self) -> dict[str, Any]:
        name = self.name

        service_ip = self.service_ip

        application_ip = self.application_ip

        field_dict: dict[str, Any] = {}

        field_dict.update(
            {
                "name": name,
                "serviceIP": service_ip,
                "applicationIP": application_ip,
            }
        )

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        d = dict(src_dict)
        name = d.pop("name")

        service_ip = d.pop("serviceIP")

        application_ip = d.pop("applicationIP")

        service = cls(
            name=name,
            service_ip=service_ip,
            application_ip=application_ip,
        )

        return service
