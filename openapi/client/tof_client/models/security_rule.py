from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, cast

from attrs import define as _attrs_define

from ..models.security_rule_direction import SecurityRuleDirection
from ..types import UNSET, Unset

T = TypeVar("T", bound="SecurityRule")


@_attrs_define
class SecurityRule:
    """
    Attributes:
        direction (SecurityRuleDirection): `ingress` is towards the application
        protocol (int | str | Unset): `tcp`, `udp`, `sctp`, `icmp`, or the number of an IP protocol; without it, every
            protocol
        ports (list[int | str] | Unset): Destination ports of tcp, udp or sctp, as of a service
        remote (str | Unset): The other end: an address or prefix, `group:NAME` for the ports in that group, `ues` for
            UEs (of `egress`: flows
            that the application opens; what UEs may say to it, its services say). Without it: everybody but UEs.
    """

    direction: SecurityRuleDirection
    protocol: int | str | Unset = UNSET
    ports: list[int | str] | Unset = UNSET
    remote: str | Unset = UNSET

    def to_dict(self) -> dict[str, Any]:
        direction = self.direction.value

        protocol: int | str | Unset
        if isinstance(self.protocol, Unset):
            protocol = UNSET
        else:
            protocol = self.protocol

        ports: list[int | str] | Unset = UNSET
        if not isinstance(self.ports, Unset):
            ports = []
            for ports_item_data in self.ports:
                ports_item: int | str
                ports_item = ports_item_data
                ports.append(ports_item)

        remote = self.remote

        field_dict: dict[str, Any] = {}

        field_dict.update(
            {
                "direction": direction,
            }
        )
        if protocol is not UNSET:
            field_dict["protocol"] = protocol
        if ports is not UNSET:
            field_dict["ports"] = ports
        if remote is not UNSET:
            field_dict["remote"] = remote

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        d = dict(src_dict)
        direction = SecurityRuleDirection(d.pop("direction"))

        def _parse_protocol(data: object) -> int | str | Unset:
            if isinstance(data, Unset):
                return data
            return cast(int | str | Unset, data)

        protocol = _parse_protocol(d.pop("protocol", UNSET))

        _ports = d.pop("ports", UNSET)
        ports: list[int | str] | Unset = UNSET
        if _ports is not UNSET:
            ports = []
            for ports_item_data in _ports:

                def _parse_ports_item(data: object) -> int | str:
                    return cast(int | str, data)

                ports_item = _parse_ports_item(ports_item_data)

                ports.append(ports_item)

        remote = d.pop("remote", UNSET)

        security_rule = cls(
            direction=direction,
            protocol=protocol,
            ports=ports,
            remote=remote,
        )

        return security_rule
