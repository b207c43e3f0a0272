from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar, cast

from attrs import define as _attrs_define

from ..models.app_restart import AppRestart
from ..types import UNSET, Unset

if TYPE_CHECKING:
    from ..models.app_environment import AppEnvironment
    from ..models.app_services_item import AppServicesItem
    from ..models.flavour import Flavour
    from ..models.health_check import HealthCheck


T = TypeVar("T", bound="App")


@_attrs_define
class App:
    """An ME App, and the services that it backs

    Attributes:
        name (str): 1 to 32 of a-z, 0-9 and -, hyphens only between others
        vim (str | Unset): Which VIM makes it, by its name in the configuration; without it `local`
        image (str | Unset): An image that the VIM knows; of a local VIM, a directory below its `images`
        command (list[str] | Unset): The program and its arguments; needed where there is no image
        flavour (Flavour | Unset): What it may take; without a number, as much as there is
        networks (list[str] | Unset): Networks that it is on; `apps`, which leads to the TOF, is one of them
        environment (AppEnvironment | Unset): Environment variables
        groups (list[str] | Unset): Security groups of its port
        health (HealthCheck | Unset): How the application is asked whether it lives, from the TOF's own address on the
            applications' side. While it does
            not, the service's traffic goes to the core. A new service is in force with the first answer.
        services (list[AppServicesItem] | Unset): Services, as `POST /service` takes them, without `applicationIP`: the
            VIM gives the application its address
        restart (AppRestart | Unset): What becomes of it when it has ended by itself; without it `always`
    """

    name: str
    vim: str | Unset = UNSET
    image: str | Unset = UNSET
    command: list[str] | Unset = UNSET
    flavour: Flavour | Unset = UNSET
    networks: list[str] | Unset = UNSET
    environment: AppEnvironment | Unset = UNSET
    groups: list[str] | Unset = UNSET
    health: HealthCheck | Unset = UNSET
    services: list[AppServicesItem] | Unset = UNSET
    restart: AppRestart | Unset = UNSET

    def to_dict(self) -> dict[str, Any]:
        name = self.name

        vim = self.vim

        image = self.image

        command: list[str] | Unset = UNSET
        if not isinstance(self.command, Unset):
            command = self.command

        flavour: dict[str, Any] | Unset = UNSET
        if not isinstance(self.flavour, Unset):
            flavour = self.flavour.to_dict()

        networks: list[str] | Unset = UNSET
        if not isinstance(self.networks, Unset):
            networks = self.networks

        environment: dict[str, Any] | Unset = UNSET
        if not isinstance(self.environment, Unset):
            environment = self.environment.to_dict()

        groups: list[str] | Unset = UNSET
        if not isinstance(self.groups, Unset):
            groups = self.groups

        health: dict[str, Any] | Unset = UNSET
        if not isinstance(self.health, Unset):
            health = self.health.to_dict()

        services: list[dict[str, Any]] | Unset = UNSET
        if not isinstance(self.services, Unset):
            services = []
            for services_item_data in self.services:
                services_item = services_item_data.to_dict()
                services.append(services_item)

        restart: str | Unset = UNSET
        if not isinstance(self.restart, Unset):
            restart = self.restart.value

        field_dict: dict[str, Any] = {}

        field_dict.update(
            {
                "name": name,
            }
        )
        if vim is not UNSET:
            field_dict["vim"] = vim
        if image is not UNSET:
            field_dict["image"] = image
        if command is not UNSET:
            field_dict["command"] = command
        if flavour is not UNSET:
            field_dict["flavour"] = flavour
        if networks is not UNSET:
            field_dict["networks"] = networks
        if environment is not UNSET:
            field_dict["environment"] = environment
        if groups is not UNSET:
            field_dict["groups"] = groups
        if health is not UNSET:
            field_dict["health"] = health
        if services is not UNSET:
            field_dict["services"] = services
        if restart is not UNSET:
            field_dict["restart"] = restart

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        from ..models.app_environment import AppEnvironment  # noqa: PLC0415
        from ..models.app_services_item import AppServicesItem  # noqa: PLC0415
        from ..models.flavour import Flavour  # noqa: PLC0415
        from ..models.health_check import HealthCheck  # noqa: PLC0415

        d = dict(src_dict)
        name = d.pop("name")

        vim = d.pop("vim", UNSET)

        image = d.pop("image", UNSET)

        command = cast(list[str], d.pop("command", UNSET))

        _flavour = d.pop("flavour", UNSET)
        flavour: Flavour | Unset
        if isinstance(_flavour, Unset):
            flavour = UNSET
        else:
            flavour = Flavour.from_dict(_flavour)

        networks = cast(list[str], d.pop("networks", UNSET))

        _environment = d.pop("environment", UNSET)
        environment: AppEnvironment | Unset
        if isinstance(_environment, Unset):
            environment = UNSET
        else:
            environment = AppEnvironment.from_dict(_environment)

        groups = cast(list[str], d.pop("groups", UNSET))

        _health = d.pop("health", UNSET)
        health: HealthCheck | Unset
        if isinstance(_health, Unset):
            health = UNSET
        else:
            health = HealthCheck.from_dict(_health)

        _services = d.pop("services", UNSET)
        services: list[AppServicesItem] | Unset = UNSET
        if _services is not UNSET:
            services = []
            for services_item_data in _services:
                services_item = AppServicesItem.from_dict(services_item_data)

                services.append(services_item)

        _restart = d.pop("restart", UNSET)
        restart: AppRestart | Unset
        if isinstance(_restart, Unset):
            restart = UNSET
        else:
            restart = AppRestart(_restart)

        app = cls(
            name=name,
            vim=vim,
            image=image,
            command=command,
            flavour=flavour,
            networks=networks,
            environment=environment,
            groups=groups,
            health=health,
            services=services,
            restart=restart,
        )

        return app
