"""The official OpenAPI document of ETSI GS MEC 010-2, read from beside the project: it is not part of it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema_rs import Draft202012Validator

ROOT = Path(__file__).resolve().parents[1]
NAME = "specs/mec010-2/MEC010-2_AppLcm.yaml"
BASE = "/app_lcm/v1"


@dataclass(frozen=True)
class Official:
    """The document, and what it says of answers and requests."""

    content: dict[str, Any]

    def errors(self, schema: str | dict[str, Any], value: object) -> list[str]:
        """What is wrong with a value of a schema (by name), formats included."""
        node = {"$ref": f"#/components/schemas/{schema}"} if isinstance(schema, str) else schema
        whole = {**node, "components": {"schemas": self.content["components"]["schemas"]}}
        return [e.message for e in Draft202012Validator(whole, validate_formats=True).iter_errors(value)]

    def operation(self, method: str, path: str) -> dict[str, Any]:
        """The one that an address is of."""
        steps = path.partition("?")[0].removeprefix(BASE).strip("/").split("/")
        for template, item in self.content["paths"].items():
            parts = template.strip("/").split("/")
            if len(parts) == len(steps) and all(
                part == step or part.startswith("{") for part, step in zip(parts, steps, strict=True)
            ):
                found: dict[str, Any] = item[method.lower()]
                return found
        raise AssertionError(f"{path} is not in the document")

    def check_request(self, method: str, path: str, body: Any) -> None:
        """A body is what the document says that it is."""
        if not path.startswith("/subscriptions"):
            media = self.operation(method, path)["requestBody"]["content"]["application/json"]
            assert self.errors(media["schema"], body) == [], (method, path, body)
            return
        # The document wants exactly one of two, and whatever is the first one is the second one too.
        kind = "AppInst" if body["subscriptionType"] == "AppInstanceStateChange" else "AppLcmOpOcc"
        assert self.errors(f"{kind}SubscriptionRequest", body) == [], (method, path, body)

    def check_answer(self, method: str, path: str, status: int, body: object) -> None:
        """The status is one that the document lists, the body what it says of it."""
        responses = self.operation(method, path)["responses"]
        assert str(status) in responses, (method, path, status, body)
        response = responses[str(status)]
        if "$ref" in response:
            response = self.content["components"]["responses"][int(response["$ref"].rpartition("/")[2])]
        if "content" not in response:
            assert body is None, (method, path, status, body)
            return
        [media] = response["content"].values()
        if status >= 400:
            # A relative reference, as its description allows; its format says otherwise.
            assert isinstance(body, dict)
            body = {**body, "instance": f"http://localhost{body['instance']}"}
        assert self.errors(media["schema"], body) == [], (method, path, status, body)


@cache
def official() -> Official:
    """The document; skips where it is absent."""
    given = os.environ.get("TOF_SHARED")
    file = (Path(given) if given else ROOT.parent / "shared") / NAME
    if file.exists():
        return Official(yaml.safe_load(file.read_text(encoding="utf-8")))
    pytest.skip(f"the official document is absent: ../shared/{NAME} (TOF_SHARED says where shared is)")
