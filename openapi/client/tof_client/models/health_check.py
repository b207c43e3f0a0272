from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from attrs import define as _attrs_define

from ..models.health_check_kind import HealthCheckKind
from ..types import UNSET, Unset

T = TypeVar("T", bound="HealthCheck")


@_attrs_define
class HealthCheck:
    """How the application is asked whether it lives, from the TOF's own address on the applications' side. While it does
    not, the service's traffic goes to the core. A new service is in force with the first answer.

        Attributes:
            kind (HealthCheckKind): `tcp`: a connection is accepted. `http`: a status below 400. `icmp`: an echo is
                answered.
            port (int | Unset): Of tcp and http; without it `applicationPort`, else the first of `ports`
            path (str | Unset): Of http; without it /
            interval (float | Unset): Seconds between probes; without it 1
            timeout (float | Unset): Seconds that an answer may take; without it 1
            fall (int | Unset): Probes in a row without an answer until it counts as dead; without it 3
            rise (int | Unset): Answers in a row until it lives again; without it 2
    """

    kind: HealthCheckKind
    port: int | Unset = UNSET
    path: str | Unset = UNSET
    interval: float | Unset = UNSET
    timeout: float | Unset = UNSET
    fall: int | Unset = UNSET
    rise: int | Unset = UNSET

    def to_dict(self) -> dict[str, Any]:
        kind = self.kind.value

        port = self.port

        path = self.path

        interval = self.interval

        timeout = self.timeout

        fall = self.fall

        rise = self.rise

        field_dict: dict[str, Any] = {}

        field_dict.update(
            {
                "kind": kind,
            }
        )
        if port is not UNSET:
            field_dict["port"] = port
        if path is not UNSET:
            field_dict["path"] = path
        if interval is not UNSET:
            field_dict["interval"] = interval
        if timeout is not UNSET:
            field_dict["timeout"] = timeout
        if fall is not UNSET:
            field_dict["fall"] = fall
        if rise is not UNSET:
            field_dict["rise"] = rise

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        d = dict(src_dict)
        kind = HealthCheckKind(d.pop("kind"))

        port = d.pop("port", UNSET)

        path = d.pop("path", UNSET)

        interval = d.pop("interval", UNSET)

        timeout = d.pop("timeout", UNSET)

        fall = d.pop("fall", UNSET)

        rise = d.pop("rise", UNSET)

        health_check = cls(
            kind=kind,
            port=port,
            path=path,
            interval=interval,
            timeout=timeout,
            fall=fall,
            rise=rise,
        )

        return health_check
