"""Values to the bodies of the API, and cursors to text and back."""

from __future__ import annotations

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Any

from tof.agent.accounting import body_of
from tof.api.port import HealthView, ServiceStatus, SessionView, TunnelView, UsageView
from tof.errors import BadRequest
from tof.model import TunnelKey


def status(value: ServiceStatus) -> dict[str, Any]:
    """The status of a service."""
    body: dict[str, Any] = {"name": value.name, "state": value.state.value, "detail": value.detail}
    if value.learnt is not None:
        body["addresses"] = [{"address": one.address, "until": _time(one.until)} for one in value.learnt]
    return body


def tunnel(value: TunnelView) -> dict[str, Any]:
    """One element of ``GET /tunnels``."""
    return {
        "direction": value.direction.value,
        "vlan": value.vlan,
        "source": value.source,
        "destination": value.destination,
        "teid": value.teid,
        "ues": list(value.ues),
        "qfi": value.qfi,
        "state": value.state.value,
        "packets": value.packets,
        "bytes": value.bytes,
        "last_seen": _time(value.last_seen),
    }


def session(value: SessionView) -> dict[str, Any]:
    """One element of ``GET /sessions``."""
    return {
        "ue": value.ue,
        "uplink": [tunnel(t) for t in value.uplink],
        "downlink": [tunnel(t) for t in value.downlink],
        "state": value.state.value,
    }


def usage(value: UsageView) -> dict[str, Any]:
    """One element of ``GET /usage``."""
    return body_of(value.usage, _time(value.start), _time(value.end))


def health(value: HealthView, version: str) -> dict[str, Any]:
    """The body of ``GET /health``."""
    checks = [{"name": c.name, "state": c.state.value, "detail": c.detail} for c in value.checks]
    return {"state": value.state.value, "version": version, "checks": checks}


def cursor(last: TunnelView) -> str:
    """Where the page after ``last`` begins, as opaque text."""
    vlan = "" if last.vlan is None else str(last.vlan)
    plain = f"{vlan} {last.source} {last.destination} {last.teid}"
    return urlsafe_b64encode(plain.encode()).decode().rstrip("=")


def parse_cursor(text: str | None) -> TunnelKey | None:
    """What ``cursor`` wrote; BadRequest for anything else."""
    if text is None:
        return None
    try:
        plain = urlsafe_b64decode(text.encode() + b"=" * (-len(text) % 4)).decode()
        return _key(plain.split(" "))
    except (ValueError, binascii.Error):
        raise BadRequest("after is not a cursor of this API", "after") from None


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _key(words: Sequence[str]) -> TunnelKey:
    vlan, source, destination, teid = words
    return TunnelKey(
        ip_address(source).packed,
        ip_address(destination).packed,
        int(teid),
        int(vlan) if vlan else None,
    )
