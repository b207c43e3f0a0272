"""Answers and notifications in the words of ETSI MEC 010-2; ``base`` begins every address in them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final
from urllib.parse import quote

from tof.agent.lcm import Instance, Occurrence, Operation, Phase, Power
from tof.agent.lcm_subscription import News, Subject, Subscription

ROOT: Final = "/app_lcm/v1"
LCM_OPERATION: Final = {
    # Spelt so by the official document; clients made from it know no other word.
    Operation.INSTANTIATE: "INSTATIATE",
    Operation.OPERATE: "OPERATE",
    Operation.TERMINATE: "TERMINATE",
}


def instance_address(identifier: str) -> str:
    """The path of an instance."""
    return f"{ROOT}/app_instances/{quote(identifier, safe='')}"


def occurrence_address(identifier: str) -> str:
    """The path of an operation occurrence."""
    return f"{ROOT}/app_lcm_op_occs/{quote(identifier, safe='')}"


def subscription_address(identifier: str) -> str:
    """The path of a subscription."""
    return f"{ROOT}/subscriptions/{quote(identifier, safe='')}"


def instance_body(instance: Instance, base: str) -> dict[str, Any]:
    """An AppInstanceInfo."""
    of, place = instance.descriptor, base + instance_address(instance.id)
    tasks = ("instantiate",) if instance.power is Power.NOT_INSTANTIATED else ("terminate", "operate")
    body: dict[str, Any] = {
        "id": instance.id,
        "appInstanceName": instance.name,
        "appInstanceDescription": instance.description,
        "appDId": of.id,
        "appProvider": of.provider,
        "appName": of.name,
        "appSoftVersion": of.software,
        "appDVersion": of.version,
        "appPkgId": of.id,
        "instantiationState": "NOT_INSTANTIATED",
        "_links": {"self": _link(place), **{task: _link(f"{place}/{task}") for task in tasks}},
    }
    if instance.power is not Power.NOT_INSTANTIATED:
        body["instantiationState"] = "INSTANTIATED"
        body["instantiatedAppState"] = {"operationalState": instance.power.value}
    return {field: value for field, value in body.items() if value is not None}


def occurrence_body(occurrence: Occurrence, base: str) -> dict[str, Any]:
    """An AppInstanceLcmOpOcc; ``error``, which the standard has not, says why it failed."""
    body: dict[str, Any] = {
        "id": occurrence.id,
        "operationState": occurrence.phase.value,
        "stateEnteredTime": time_stamp(occurrence.entered),
        "startTime": time_stamp(occurrence.started),
        "lcmOperation": LCM_OPERATION[occurrence.operation],
        "operationParams": occurrence.operation.value,
        "_links": {
            "self": _link(base + occurrence_address(occurrence.id)),
            "appInstance": _link(base + instance_address(occurrence.instance)),
        },
    }
    if occurrence.phase is Phase.FAILED:
        body["error"] = {"title": "the operation failed", "status": 500, "detail": occurrence.detail}
    return body


def subscription_body(subscription: Subscription, base: str) -> dict[str, Any]:
    """An AppInstSubscriptionInfo or AppLcmOpOccSubscriptionInfo."""
    body: dict[str, Any] = {
        "id": subscription.id,
        "subscriptionType": subscription.subject.value,
        "callbackUri": subscription.callback,
        "_links": {"self": _link(base + subscription_address(subscription.id))},
    }
    if subscription.subject is Subject.INSTANCES:
        # The document demands one state; for a subscription to all of them it has no word.
        body["notificationType"] = (*subscription.states, Power.STARTED.value)[0]
    return body


def subscription_list(subscriptions: Iterable[Subscription], base: str) -> dict[str, Any]:
    """A SubscriptionLinkList."""
    links = [
        {"href": base + subscription_address(one.id), "subscriptionType": one.subject.value}
        for one in subscriptions
    ]
    return {"_links": {"self": _link(f"{base}{ROOT}/subscriptions"), "subscriptions": links}}


def notification(subscription: Subscription, news: News, identifier: str, now: float) -> dict[str, Any]:
    """An AppInstNotification or AppLcmOpOccNotification for one subscriber."""
    base = subscription.base
    links = {"subscription": _link(base + subscription_address(subscription.id))}
    body: dict[str, Any] = {
        "id": identifier,
        "notificationType": news.state,
        "subscriptionId": subscription.id,
        "timeStamp": time_stamp(now),
        "appInstanceId": news.instance.id,
        "_links": links,
    }
    if news.occurrence is None:
        return {**body, "appDId": news.instance.descriptor.id, "appPkgId": news.instance.descriptor.id}
    links["appInstance"] = _link(base + instance_address(news.instance.id))
    links["appLcmOpOcc"] = _link(base + occurrence_address(news.occurrence.id))
    return {**body, "appLcmOpOccId": news.occurrence.id}


def time_stamp(epoch: float) -> dict[str, int]:
    """A TimeStamp."""
    seconds, fraction = divmod(epoch, 1)
    return {"seconds": int(seconds), "nanoSeconds": int(fraction * 1e9)}


def _link(address: str) -> dict[str, str]:
    return {"href": address}
