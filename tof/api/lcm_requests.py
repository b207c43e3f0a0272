"""Requests in the words of ETSI MEC 010-2, as values; BadRequest names the field at fault.

The document has been checked already: types, words and what is required. Here is what it says in notes only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tof.agent.lcm import Power
from tof.agent.lcm_subscription import Product, Selector, Subject, Subscription
from tof.errors import BadRequest


def vim_of(body: Mapping[str, Any]) -> str | None:
    """The VIM that an InstantiateAppRequest names, if any; BadRequest for what cannot be granted."""
    for field in ("virtualComputeDescriptor", "virtualStorageDescriptor"):
        if body.get(field):
            raise BadRequest(f"{field}: what the descriptor says cannot be overridden", field)
    connections = body.get("vimConnectionInfo", [])
    if len(connections) > 1:
        raise BadRequest("vimConnectionInfo: an app is on one VIM", "vimConnectionInfo")
    for connection in connections:
        return str(connection.get("vimId", connection["id"]))
    return None


def operate_target(body: Mapping[str, Any]) -> Power:
    """What an OperateAppRequest is to bring about."""
    target = Power(body["changeStateTo"])
    kind, patience = body.get("stopType"), body.get("gracefulStopTimeout")
    if target is Power.STARTED:
        for field in ("stopType", "gracefulStopTimeout"):
            if field in body:
                raise BadRequest(f"{field} is of STOPPED only", field)
    elif kind == "GRACEFUL" and patience is None:
        raise BadRequest("gracefulStopTimeout is missing: the stop is GRACEFUL", "gracefulStopTimeout")
    elif kind != "GRACEFUL" and patience is not None:
        raise BadRequest("gracefulStopTimeout is of GRACEFUL only", "gracefulStopTimeout")
    return target


def check_terminate(body: Mapping[str, Any]) -> None:
    """BadRequest if a TerminateAppRequest contradicts itself."""
    if body["terminationType"] != "GRACEFUL" and "gracefulTerminationTimeout" in body:
        field = "gracefulTerminationTimeout"
        raise BadRequest(f"{field} is of GRACEFUL only", field)


def parse_subscription(body: Mapping[str, Any], base: str) -> Subscription:
    """An AppInstSubscriptionRequest or AppLcmOpOccSubscriptionRequest, without an identifier yet."""
    subject = Subject(body["subscriptionType"])
    chosen: Mapping[str, Any] = body
    operations: tuple[str, ...] = ()
    if subject is Subject.INSTANCES:
        states = _one(body, "appInstanceState")
    else:
        chosen = body.get("appLcmOpOccSubscriptionFilter", {})
        states, operations = _one(chosen, "operationStates"), _one(chosen, "operationTypes")
    instances = chosen.get("appInstanceSubscriptionFilter", {"appInstSelectorType": Selector.VOID})
    return Subscription(
        "",
        subject,
        body["callbackUri"],
        base,
        Selector(instances["appInstSelectorType"]),
        tuple(instances.get("appInstances", ())),
        tuple(_product(one) for one in instances.get("appsFromProviders", ())),
        states,
        operations,
    )


def _one(body: Mapping[str, Any], field: str) -> tuple[str, ...]:
    return (body[field],) if field in body else ()


def _product(body: Mapping[str, Any]) -> Product:
    product = body.get("appProducts", {})
    versions = product.get("versions", {})
    named: Iterable[str] = versions.get("appDVersion", ())
    return Product(
        body["appProvider"],
        product.get("appName", ""),
        versions.get("appSoftVersion", ""),
        tuple(named),
    )
