"""Everything that is provisioned, as one document."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tof.agent.catalog import Catalog
from tof.agent.service_body import body_of, parse
from tof.errors import BadRequest, Conflict
from tof.model import Service


def parse_policy(body: Mapping[str, object]) -> tuple[Service, ...]:
    """The services that a policy declares; BadRequest or Conflict name the entry at fault, as ``services[2].ports``."""
    for field in body:
        if field != "services":
            raise BadRequest(f"{field} is not a field of a policy", field)
    entries = body.get("services")
    if not isinstance(entries, list):
        raise BadRequest("services is missing or not a list", "services")
    catalog = Catalog()
    for number, entry in enumerate(entries):
        where = f"services[{number}]"
        if not isinstance(entry, Mapping):
            raise BadRequest(f"{where} is not an object", where)
        try:
            catalog.put_new(parse(entry))
        except (BadRequest, Conflict) as error:
            field = f"{where}.{error.field}" if error.field else where
            raise type(error)(f"{field}: {str(error).removeprefix(f'{error.field}: ')}", field) from error
    return catalog.services


def policy_body(services: Iterable[Service]) -> dict[str, object]:
    """What ``parse_policy`` reads."""
    return {"services": [body_of(service) for service in services]}
