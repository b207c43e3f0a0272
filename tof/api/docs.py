"""``/docs``: Swagger UI from the installed bundle, with nothing fetched from elsewhere."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import swagger_ui_bundle
from aiohttp import web

from tof.api.document import Document

ASSETS = ("swagger-ui.css", "swagger-ui-bundle.js", "favicon-32x32.png")
SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data:; connect-src 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
}
PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>tof API</title>
<link rel="icon" href="/docs/favicon-32x32.png">
<link rel="stylesheet" href="/docs/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="/docs/swagger-ui-bundle.js"></script>
<script src="/docs/start.js"></script>
</body>
</html>
"""
START = """window.onload = () => SwaggerUIBundle({
  url: "/docs/openapi-3.0.json", dom_id: "#swagger-ui", deepLinking: true, validatorUrl: null
});
"""


def docs_page() -> web.Response:
    """The page at ``/docs``."""
    return web.Response(text=PAGE, content_type="text/html", headers=SECURITY_HEADERS)


def add_assets(app: web.Application, document: Document) -> None:
    """Serve what the page loads: scripts, styles, and the document in the form Swagger UI 4 reads."""
    older = json.dumps(as_openapi_30(document.content))
    for name in ASSETS:
        app.router.add_route("GET", f"/docs/{name}", _asset)
    app.router.add_route("GET", "/docs/start.js", _text(START, "text/javascript"))
    app.router.add_route("GET", "/docs/openapi-3.0.json", _text(older, "application/json"))


def as_openapi_30(node: Any) -> Any:
    """The document as OpenAPI 3.0, which is all that the bundled Swagger UI understands."""
    if isinstance(node, list):
        return [as_openapi_30(item) for item in node]
    if not isinstance(node, Mapping):
        return node
    older = {key: as_openapi_30(value) for key, value in node.items()}
    if "openapi" in older:
        older["openapi"] = "3.0.3"
    if isinstance(older.get("type"), list):
        older |= _as_one_type(older.pop("type"))
    if isinstance(older.get("oneOf"), list):
        kinds = [one for one in older["oneOf"] if one != {"type": "null"}]
        older |= {"oneOf": kinds, "nullable": True} if len(kinds) < len(older["oneOf"]) else {}
    if isinstance(older.get("examples"), list):
        older["example"] = older.pop("examples")[0]
    return older


def _as_one_type(kinds: Sequence[str]) -> dict[str, Any]:
    others = [kind for kind in kinds if kind != "null"]
    nullable = {"nullable": "null" in kinds}
    if len(others) == 1:
        return {"type": others[0], **nullable}
    return {"anyOf": [{"type": kind} for kind in others], **nullable}


async def _asset(request: web.Request) -> web.StreamResponse:
    name = request.path.rpartition("/")[2]
    return web.FileResponse(swagger_ui_bundle.swagger_ui_path / name, headers=SECURITY_HEADERS)


def _text(text: str, content_type: str) -> Any:
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(text=text, content_type=content_type, headers=SECURITY_HEADERS)

    return answer
