"""A file of services: JSON or YAML, a policy or the list of services in one; errors point at the entry and its field."""

from __future__ import annotations

import json
from typing import Any

from tof.agent.policy import parse_policy
from tof.errors import RequestError, SetupError
from tof.model import Policy


def policy(text: str) -> Policy:
    """What ``text`` describes: a list of services' bodies, or an object whose ``services`` is that list."""
    document = _document(text)
    try:
        return parse_policy(document if isinstance(document, dict) else {"services": document})
    except RequestError as error:
        raise SetupError(str(error)) from error


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
