"""A service's further applications as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from enum import StrEnum
from typing import Final, TypeVar

from tof.agent.addresses import canonical, check_usable, network_of, parse_address
from tof.errors import BadRequest
from tof.model import IpAddress, OnDeath, Service, Spread, SpreadBy

FIELDS: Final = ("applications", "by", "onDeath")
MOST: Final = 15
"""Further applications of a service."""
Word = TypeVar("Word", bound=StrEnum)


def parse_spread(value: object) -> Spread:
    """What a body's ``spread`` describes; BadRequest names the field at fault."""
    if not isinstance(value, Mapping):
        raise BadRequest("spread is not an object", "spread")
    for field in value:
        if field not in FIELDS:
            raise BadRequest(f"{field} is not a field of spread", f"spread.{field}")
    listed = value.get("applications")
    if not isinstance(listed, list) or not listed:
        raise BadRequest(
            "spread.applications is not a list of the addresses of further applications",
            "spread.applications",
        )
    return Spread(
        tuple(map(_address, listed)),
        _word(value.get("by", SpreadBy.ORDER), SpreadBy, "by"),
        _word(value.get("onDeath", OnDeath.NEXT), OnDeath, "onDeath"),
    )


def spread_body(spread: Spread) -> dict[str, object]:
    """What ``parse_spread`` reads."""
    optional = {
        "by": None if spread.by is SpreadBy.ORDER else spread.by.value,
        "onDeath": None if spread.on_death is OnDeath.NEXT else spread.on_death.value,
    }
    return {
        "applications": [str(address) for address in spread.applications],
        **{field: word for field, word in optional.items() if word is not None},
    }


def checked_spread(service: Service, spread: Spread) -> Spread:
    """In canonical form; BadRequest unless these can be the service's applications beside its first one."""
    field = "spread.applications"
    if len(spread.applications) > MOST:
        raise BadRequest(f"{field} has {len(spread.applications)} entries, more than {MOST}", field)
    applications = tuple(map(canonical, spread.applications))
    known = {service.application_ip}
    for address in applications:
        check_usable(network_of(address, None, field), field)
        if address.version != service.application_ip.version:
            raise BadRequest(f"{field}: {address} is not of the family of applicationIP", field)
        if address in known:
            raise BadRequest(f"{field}: {address} is there twice, or is applicationIP", field)
        known.add(address)
    if spread.by is SpreadBy.ORDER and spread.on_death is OnDeath.CORE:
        raise BadRequest(
            'spread.onDeath: with by "order" the further applications are what a death is for; '
            'use by "ue" or "flow", or one application',
            "spread.onDeath",
        )
    return replace(spread, applications=applications)


def _address(value: object) -> IpAddress:
    try:
        return parse_address(value if isinstance(value, str) else "")
    except ValueError:
        raise BadRequest(
            f"spread.applications: {value} is not an IP address", "spread.applications"
        ) from None


def _word(value: object, words: type[Word], field: str) -> Word:
    for word in words:
        if value == word:
            return word
    raise BadRequest(f"spread.{field} is none of {', '.join(words)}", f"spread.{field}")
