"""A policy as a file, YAML or JSON: read with the line of every entry, so that errors can name it; and written."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from tof.agent.policy import parse_policy, policy_body
from tof.errors import RequestError, SetupError
from tof.model import Policy, Service


@dataclass(frozen=True, slots=True)
class PolicyFile:
    """What a file declares."""

    policy: Policy

    @property
    def services(self) -> tuple[Service, ...]:
        """The services that it declares."""
        return self.policy.services

    @property
    def body(self) -> dict[str, object]:
        """As the API takes it."""
        return policy_body(self.policy)


def read_policy(text: str, name: str) -> PolicyFile:
    """What a file called ``name`` declares; SetupError says where it is wrong: ``FILE:LINE: services[1].ports: ...``."""
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if not isinstance(node, yaml.MappingNode):
            raise SetupError(f"{name}:1: a policy is an object with a list `services`")
        lines: dict[str, int] = {}
        for path, line in _lines(node, "", name, set()):
            lines.setdefault(path, line)
        body = loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        at = error.problem_mark.line + 1 if error.problem_mark else 1
        raise SetupError(f"{name}:{at}: {error.problem}") from error
    except (yaml.YAMLError, ValueError) as error:
        raise SetupError(f"{name}: {error}") from error
    except RecursionError as error:
        raise SetupError(f"{name}: is nested too deeply") from error
    try:
        return PolicyFile(parse_policy(body))
    except RequestError as error:
        raise SetupError(f"{name}:{_line_of(error.field or '', lines)}: {error}") from error


def policy_text(body: Mapping[str, Any]) -> str:
    """The YAML of a policy that the API gave."""
    return yaml.safe_dump(dict(body), sort_keys=False, allow_unicode=True, width=120)


def _lines(node: yaml.Node, path: str, name: str, met: set[int]) -> Iterable[tuple[str, int]]:
    line = node.start_mark.line + 1
    if id(node) in met:  # what refers to itself, or to much many times over, has no end
        raise SetupError(f"{name}:{line}: aliases are not taken")
    met.add(id(node))
    yield path, line
    if isinstance(node, yaml.SequenceNode):
        for number, item in enumerate(node.value):
            yield from _lines(item, f"{path}[{number}]", name, met)
    if isinstance(node, yaml.MappingNode):
        keys: set[str] = set()
        for key, value in node.value:
            inner = f"{path}.{key.value}" if path else f"{key.value}"
            yield inner, key.start_mark.line + 1
            if inner in keys or not isinstance(key, yaml.ScalarNode):
                what = f"{key.value} is given twice" if inner in keys else "a field is no text"
                raise SetupError(f"{name}:{key.start_mark.line + 1}: {what}")
            keys.add(inner)
            yield from _lines(value, inner, name, met)


def _line_of(field: str, lines: Mapping[str, int]) -> int:
    """The line of a field, or of the nearest thing around it that is there."""
    while field not in lines and field:
        field = re.sub(r"(\.[^.\[\]]*|\[\d+\]|[^.\[\]]+)$", "", field)
    return lines[field]
