"""A service as JSON: the body that the API takes and gives, and that the store keeps."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from tof.agent.addresses import network_of, parse_address, parse_prefix, prefix_text
from tof.agent.health_body import health_body, parse_health
from tof.agent.hours import hours_body, parse_hours
from tof.agent.mirror_body import mirror_body, parse_mirror
from tof.agent.service_check import checked
from tof.agent.spread_body import parse_spread, spread_body
from tof.errors import BadRequest
from tof.model import Initiates, IpAddress, IpNetwork, Mode, PortRange, Selection, Service

REQUIRED: Final = ("name", "applicationIP")
FIELDS: Final = (
    "name",
    "serviceIP",
    "domain",
    "applicationIP",
    "protocol",
    "ports",
    "applicationPort",
    "dscp",
    "vlans",
    "ues",
    "enbs",
    "sgws",
    "priority",
    "mode",
    "health",
    "chain",
    "hours",
    "mirror",
    "spread",
    "initiates",
)
PROTOCOLS: Final[Mapping[str, int]] = {"tcp": 6, "udp": 17, "sctp": 132}
ICMP: Final[Mapping[int, int]] = {4: 1, 6: 58}
"""By version of IP."""
PORT_RANGE: Final = re.compile(r"([0-9]{1,5})-([0-9]{1,5})")


def parse(body: Mapping[str, object]) -> Service:
    """The service a body describes; BadRequest names the field at fault."""
    for field in body:
        if field not in FIELDS:
            raise BadRequest(f"{field} is not a field of a service", field)
    name = _text(body, "name")
    address: IpAddress | None = None
    length = None
    if "serviceIP" in body or "domain" not in body:
        address, length = _prefix(_text(body, "serviceIP"), "serviceIP")
    application = _address(_text(body, "applicationIP"), "applicationIP")
    return checked(
        Service(
            name,
            address,
            application,
            length,
            _selection(body, application.version),
            _integer(body.get("applicationPort"), "applicationPort") if "applicationPort" in body else None,
            _integer(body.get("priority", 0), "priority"),
            _mode(body.get("mode", Mode.DIVERT)),
            parse_health(body["health"]) if "health" in body else None,
            _text(body, "domain") if "domain" in body else None,
            _text(body, "chain") if "chain" in body else None,
            parse_hours(body["hours"]) if "hours" in body else (),
            parse_mirror(body["mirror"]) if "mirror" in body else None,
            parse_spread(body["spread"]) if "spread" in body else None,
            _initiates(body["initiates"]) if "initiates" in body else None,
        ),
    )


def body_of(service: Service) -> dict[str, object]:
    """What ``parse`` reads; beyond the three fields of the source document, only what is not as it is by default."""
    selection = service.selection
    optional: dict[str, object] = {
        "protocol": _protocol_shown(selection.protocol, service.application_ip.version),
        "ports": [first if first == last else f"{first}-{last}" for first, last in selection.ports],
        "applicationPort": service.application_port,
        "dscp": sorted(selection.dscps),
        "vlans": sorted(selection.vlans),
        "ues": [prefix_text(n) for n in selection.ues],
        "enbs": [prefix_text(n) for n in selection.enbs],
        "sgws": [prefix_text(n) for n in selection.sgws],
        "priority": service.priority or None,
        "mode": None if service.mode is Mode.DIVERT else service.mode.value,
        "health": None if service.health is None else health_body(service.health),
        "chain": service.chain,
        "hours": hours_body(service.hours),
        "mirror": None if service.mirror is None else mirror_body(service.mirror),
        "spread": None if service.spread is None else spread_body(service.spread),
        "initiates": None if service.initiates is None else service.initiates.value,
    }
    network = service.network
    return {
        "name": service.name,
        **({} if network is None else {"serviceIP": prefix_text(network)}),
        **({} if service.domain is None else {"domain": service.domain}),
        "applicationIP": str(service.application_ip),
        **{field: value for field, value in optional.items() if value not in (None, [])},
    }


def _selection(body: Mapping[str, object], version: int) -> Selection:
    return Selection(
        protocol=_protocol(body["protocol"], version) if "protocol" in body else None,
        ports=tuple(port_range(entry) for entry in _list(body, "ports")),
        dscps=frozenset(_integer(entry, "dscp") for entry in _list(body, "dscp")),
        ues=_networks(body, "ues"),
        enbs=_networks(body, "enbs"),
        sgws=_networks(body, "sgws"),
        vlans=frozenset(_integer(entry, "vlans") for entry in _list(body, "vlans")),
    )


def _protocol(value: object, version: int) -> int:
    if isinstance(value, str):
        number = ICMP[version] if value == "icmp" else PROTOCOLS.get(value)
        if number is not None:
            return number
        raise BadRequest("protocol is neither tcp, udp, sctp, icmp nor a number", "protocol")
    return _integer(value, "protocol")


def _protocol_shown(number: int | None, version: int) -> str | int | None:
    words = {number: word for word, number in PROTOCOLS.items()} | {ICMP[version]: "icmp"}
    return number if number is None else words.get(number, number)


def port_range(entry: object) -> PortRange:
    """A port, or a range of them; BadRequest names the field ``ports``."""
    if isinstance(entry, str):
        found = PORT_RANGE.fullmatch(entry)
        if found is None:
            raise BadRequest('ports holds text that is no range such as "8000-8100"', "ports")
        return PortRange(int(found[1]), int(found[2]))
    number = _integer(entry, "ports")
    return PortRange(number, number)


def _networks(body: Mapping[str, object], field: str) -> tuple[IpNetwork, ...]:
    return tuple(network_of(*_prefix(entry, field), field) for entry in _list(body, field))


def _mode(value: object) -> Mode:
    for mode in Mode:
        if value == mode:
            return mode
    raise BadRequest("mode is neither divert nor shadow", "mode")


def _initiates(value: object) -> Initiates:
    for initiates in Initiates:
        if value == initiates:
            return initiates
    raise BadRequest("initiates is neither any nor none", "initiates")


def _list(body: Mapping[str, object], field: str) -> list[object]:
    value = body.get(field, [])
    if not isinstance(value, list):
        raise BadRequest(f"{field} is not a list", field)
    return value


def _integer(value: object, field: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise BadRequest(f"{field}: whole numbers only", field)
    return value


def _text(body: Mapping[str, object], field: str) -> str:
    value = body.get(field)
    if not isinstance(value, str):
        raise BadRequest(f"{field} is missing or not a string", field)
    return value


def _address(text: str, field: str) -> IpAddress:
    try:
        return parse_address(text)
    except ValueError:
        raise BadRequest(f"{field} is not an IP address", field) from None


def _prefix(text: object, field: str) -> tuple[IpAddress, int | None]:
    try:
        return parse_prefix(str(text))
    except ValueError:
        raise BadRequest(f"{field} is neither an IP address nor a prefix", field) from None
