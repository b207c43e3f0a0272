"""What is kept of ETSI MEC 010-2, as JSON; and descriptors as they are asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final

from tof.agent.app_body import app_body, parse_app
from tof.agent.lcm import Descriptor, Instance, Occurrence, Operation, Phase, Power
from tof.agent.lcm_subscription import Product, Selector, Subject, Subscription
from tof.errors import BadRequest, Conflict

PLACEHOLDER: Final = "app"
"""The name of a descriptor's app; that of an instance is its identifier."""
LONGEST_ID: Final = 256

Thing = Descriptor | Instance | Occurrence | Subscription


def parse_descriptor(identifier: str, body: Mapping[str, Any]) -> Descriptor:
    """What an ``appDId`` is to mean; BadRequest or Conflict name the field at fault."""
    if not 0 < len(identifier) <= LONGEST_ID:
        raise BadRequest(f"an appDId has 1 to {LONGEST_ID} characters", "appDId")
    app = body["app"]
    if "name" in app:
        raise BadRequest("app.name: instances name their apps", "app.name")
    try:
        parsed = parse_app({**app, "name": PLACEHOLDER})
    except (BadRequest, Conflict) as error:
        field = f"app.{error.field}" if error.field else "app"
        raise type(error)(f"app: {error.detail}", field) from error
    return Descriptor(
        identifier,
        body["appProvider"],
        body["appName"],
        body["appSoftVersion"],
        body["appDVersion"],
        parsed,
    )


def descriptor_body(descriptor: Descriptor) -> dict[str, Any]:
    """What ``parse_descriptor`` reads, and its identifier."""
    app = {field: value for field, value in app_body(descriptor.app).items() if field != "name"}
    return {
        "appDId": descriptor.id,
        "appProvider": descriptor.provider,
        "appName": descriptor.name,
        "appSoftVersion": descriptor.software,
        "appDVersion": descriptor.version,
        "app": app,
    }


def kept(thing: Thing) -> dict[str, Any]:
    """What is kept of one; ``recalled`` reads it."""
    if isinstance(thing, Descriptor):
        return descriptor_body(thing)
    if isinstance(thing, Instance):
        return {
            "id": thing.id,
            "descriptor": descriptor_body(thing.descriptor),
            "name": thing.name,
            "description": thing.description,
            "power": thing.power.value,
        }
    return asdict(thing)


def recalled(kind: str, body: Mapping[str, Any]) -> Thing:
    """What ``kept`` wrote of one of this kind; KeyError, ValueError, TypeError or BadRequest if it did not."""
    match kind:
        case "descriptor":
            return _descriptor(body)
        case "instance":
            return Instance(
                body["id"],
                _descriptor(body["descriptor"]),
                body["name"],
                body["description"],
                Power(body["power"]),
            )
        case "occurrence":
            made = Occurrence(**body)
            return Occurrence(
                made.id,
                made.instance,
                Operation(made.operation),
                Power(made.target),
                made.started,
                made.entered,
                Phase(made.phase),
                made.detail,
            )
        case "subscription":
            return _subscription(body)
    raise ValueError(f"{kind} is no kind")


def kind_of(thing: Thing) -> str:
    """The kind that ``recalled`` is told."""
    return type(thing).__name__.lower()


def _descriptor(body: Mapping[str, Any]) -> Descriptor:
    return parse_descriptor(body["appDId"], body)


def _subscription(body: Mapping[str, Any]) -> Subscription:
    return Subscription(
        body["id"],
        Subject(body["subject"]),
        body["callback"],
        body["base"],
        Selector(body["selector"]),
        tuple(body["values"]),
        tuple(Product(**{**one, "versions": tuple(one["versions"])}) for one in body["products"]),
        tuple(body["states"]),
        tuple(body["operations"]),
    )
