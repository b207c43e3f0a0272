"""The OpenAPI document: where the routes and the validation of requests come from."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from jsonschema_rs import Draft202012Validator, ValidationError

from tof.errors import SetupError

DOCUMENT = Path(__file__).with_name("tof.yaml")
LCM_DOCUMENT = Path(__file__).with_name("mec010.yaml")
"""What is served of ETSI MEC 010-2."""
METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")

Node = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class FieldError:
    """One thing wrong with one field (a JSON path in the body, or the name of a parameter)."""

    field: str
    detail: str


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation of the document, ready to check requests."""

    operation_id: str
    method: str
    path: str
    statuses: frozenset[int]
    query: Mapping[str, Node]
    query_validator: Draft202012Validator
    body_validator: Draft202012Validator | None

    def check_query(self, values: Mapping[str, object]) -> list[FieldError]:
        """What is wrong with the query's parameters (already of the document's types)."""
        return [_field_error(e) for e in self.query_validator.iter_errors(values)]

    def check_body(self, body: object) -> list[FieldError]:
        """What is wrong with a JSON body."""
        assert self.body_validator is not None, self.operation_id
        return [_field_error(e) for e in self.body_validator.iter_errors(body)]


@dataclass(frozen=True, slots=True)
class Document:
    """The parsed document and its operations."""

    content: Node
    operations: tuple[Operation, ...]

    def operation(self, operation_id: str) -> Operation:
        """The one with this identifier; KeyError if there is none."""
        return {one.operation_id: one for one in self.operations}[operation_id]

    @property
    def as_json(self) -> str:
        """The document as JSON text."""
        return json.dumps(self.content)


def load_document(path: Path = DOCUMENT) -> Document:
    """Read and compile the document; SetupError if the installation lacks it."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        reason = f"cannot read the OpenAPI document {path}: {error.strerror}"
        raise SetupError(f"{reason}; install tof from a complete checkout (tools/setup)") from error
    return Document(content, tuple(_operations(content)))


def _operations(content: Node) -> Iterator[Operation]:
    for path, item in content["paths"].items():
        for method in METHODS:
            if method in item:
                yield _operation(content, path, method, item)


def _operation(content: Node, path: str, method: str, item: Node) -> Operation:
    node = item[method]
    given = (*item.get("parameters", ()), *node.get("parameters", ()))
    parameters = [_resolve(content, parameter) for parameter in given]
    query = {p["name"]: p for p in parameters if p["in"] == "query"}
    statuses = frozenset(int(code) for code in node["responses"])
    schema = {
        "type": "object",
        "properties": {name: p["schema"] for name, p in query.items()},
        "required": [name for name, p in query.items() if p.get("required")],
        # Where the contract has no 400 there is nothing to answer an unknown parameter with.
        "additionalProperties": 400 not in statuses,
    }
    return Operation(
        operation_id=node["operationId"],
        method=method.upper(),
        path=path,
        statuses=statuses,
        query=query,
        query_validator=_validator(content, schema),
        body_validator=_body_validator(content, node),
    )


def _body_validator(content: Node, node: Node) -> Draft202012Validator | None:
    if "requestBody" not in node:
        return None
    body = _resolve(content, node["requestBody"])
    return _validator(content, body["content"]["application/json"]["schema"])


def _validator(content: Node, schema: Node) -> Draft202012Validator:
    # The components ride along so that "#/components/..." resolves inside the schema itself.
    return Draft202012Validator({**schema, "components": content["components"]}, mask="value")


def _resolve(content: Node, node: Node) -> Node:
    if "$ref" not in node:
        return node
    found: Any = content
    for step in node["$ref"].removeprefix("#/").split("/"):
        found = found[step]
    return _resolve(content, found)


def _field_error(error: ValidationError) -> FieldError:
    path = [str(step) for step in error.instance_path]
    kind = error.kind
    if kind.name == "required":
        path.append(str(kind.as_dict()["property"]))
    elif kind.name == "additionalProperties":
        path.append(", ".join(kind.as_dict()["unexpected"]))
    return FieldError(".".join(path), error.message)
