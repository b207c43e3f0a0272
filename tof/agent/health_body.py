"""A service's health check as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tof.errors import BadRequest
from tof.model import HealthCheck, ProbeKind

FIELDS: Final = ("kind", "port", "path", "interval", "timeout", "fall", "rise")


def parse_health(value: object) -> HealthCheck:
    """The check that a body's ``health`` describes; BadRequest names the field at fault."""
    if not isinstance(value, Mapping):
        raise BadRequest("health is not an object", "health")
    for field in value:
        if field not in FIELDS:
            raise BadRequest(f"{field} is not a field of health", f"health.{field}")
    usual = HealthCheck(_kind(value))
    return HealthCheck(
        usual.kind,
        _whole(value, "port") if "port" in value else None,
        _text(value, "path") if "path" in value else usual.path,
        _seconds(value, "interval", usual.interval_s),
        _seconds(value, "timeout", usual.timeout_s),
        _whole(value, "fall", usual.fall),
        _whole(value, "rise", usual.rise),
    )


def health_body(check: HealthCheck) -> dict[str, object]:
    """What ``parse_health`` reads: the kind, and what is not as it is by default."""
    given, usual = _values(check), _values(HealthCheck(check.kind))
    return {field: value for field, value in given.items() if field == "kind" or value != usual[field]}


def _values(check: HealthCheck) -> dict[str, object]:
    values = (
        check.kind.value,
        check.port,
        check.path,
        check.interval_s,
        check.timeout_s,
        check.fall,
        check.rise,
    )
    return dict(zip(FIELDS, values, strict=True))


def _kind(body: Mapping[str, object]) -> ProbeKind:
    for kind in ProbeKind:
        if body.get("kind") == kind:
            return kind
    raise BadRequest("health.kind is neither tcp, http nor icmp", "health.kind")


def _whole(body: Mapping[str, object], field: str, usual: int = 0) -> int:
    value = body.get(field, usual)
    if not isinstance(value, int) or isinstance(value, bool):
        raise BadRequest(f"health.{field} is not a whole number", f"health.{field}")
    return value


def _seconds(body: Mapping[str, object], field: str, usual: float) -> float:
    value = body.get(field, usual)
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise BadRequest(f"health.{field} is not a number", f"health.{field}")
    return float(value)


def _text(body: Mapping[str, object], field: str) -> str:
    value = body[field]
    if not isinstance(value, str):
        raise BadRequest(f"health.{field} is not text", f"health.{field}")
    return value
