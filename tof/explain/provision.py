"""A file of services: JSON or YAML, bodies as the API takes them; errors point at the entry and its field."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tof.agent.catalog import Catalog, parse
from tof.errors import RequestError, SetupError
from tof.model import Service


def services(text: str) -> tuple[Service, ...]:
    """The services that ``text`` describes: a list of bodies, or an object whose ``services`` is that list."""
    catalog = Catalog()
    for number, body in enumerate(_bodies(_document(text))):
        where = f"services[{number}]"
        if not isinstance(body, Mapping):
            raise SetupError(f"{where}: is not an object with the fields of a service")
        try:
            catalog.put_new(parse(body))
        except RequestError as error:
            where += f".{error.field}" if error.field else ""
            raise SetupError(f"{where}: {error.detail}") from error
    return catalog.services


def _document(text: str) -> Any:
    import yaml

    try:
        return json.loads(text)
    except ValueError:
        pass
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise SetupError(f"is neither JSON nor YAML: {' '.join(str(error).split())}") from error


def _bodies(document: Any) -> list[Any]:
    found = document.get("services") if isinstance(document, dict) else document
    if not isinstance(found, list):
        raise SetupError("services: is missing or no list")
    return found
