"""Subscriptions to what becomes of application instances and of operations on them, and what they match."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from tof.agent.lcm import Instance, Occurrence


class Subject(StrEnum):
    """What a subscription is to; the values are those of ETSI MEC 010-2."""

    INSTANCES = "AppInstanceStateChange"
    OPERATIONS = "AppLcmOpOccStateChange"


class Selector(StrEnum):
    """By what instances are chosen."""

    VOID = "VOID"
    IDENTITY = "APP_IDENTITY"
    NAME = "APP_NAME"
    DESCRIPTOR = "APP_D_ID"
    PROVIDER = "APP_FROM_PROVIDER"


@dataclass(frozen=True, slots=True)
class Product:
    """Applications of a provider; empty fields match whatever there is."""

    provider: str
    name: str = ""
    software: str = ""
    versions: tuple[str, ...] = ()

    def matches(self, instance: Instance) -> bool:
        """Whether the instance is of such an application."""
        of = instance.descriptor
        return (
            self.provider == of.provider
            and self.name in ("", of.name)
            and self.software in ("", of.software)
            and (not self.versions or of.version in self.versions)
        )


@dataclass(frozen=True, slots=True)
class Subscription:
    """Where notifications go, and of what.

    ``base`` begins the addresses in them: where the subscriber reached this API. ``states``: of instances or of operations;
    ``operations``: kinds of them; empty means all.
    """

    id: str
    subject: Subject
    callback: str
    base: str
    selector: Selector = Selector.VOID
    values: tuple[str, ...] = ()
    products: tuple[Product, ...] = ()
    states: tuple[str, ...] = ()
    operations: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class News:
    """What an instance has become, or how far an operation on it is now."""

    instance: Instance
    occurrence: Occurrence | None = None

    @property
    def subject(self) -> Subject:
        """What subscriptions are told."""
        return Subject.INSTANCES if self.occurrence is None else Subject.OPERATIONS

    @property
    def state(self) -> str:
        """The new one."""
        return (self.instance.power if self.occurrence is None else self.occurrence.phase).value


def wants(subscription: Subscription, news: News) -> bool:
    """Whether the subscriber is to be told."""
    if subscription.subject is not news.subject or not _among(news.state, subscription.states):
        return False
    if news.occurrence is not None and not _among(news.occurrence.operation.value, subscription.operations):
        return False
    return _chosen(subscription, news.instance)


def _among(value: str, wanted: tuple[str, ...]) -> bool:
    return not wanted or value in wanted


def _chosen(subscription: Subscription, instance: Instance) -> bool:
    match subscription.selector:
        case Selector.VOID:
            return True
        case Selector.PROVIDER:
            return any(product.matches(instance) for product in subscription.products)
        case Selector.IDENTITY:
            value: str | None = instance.id
        case Selector.NAME:
            value = instance.name
        case _:
            value = instance.descriptor.id
    return value in subscription.values
