"""One handler per operation of the document."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from aiohttp import web
from prometheus_client import Metric, generate_latest
from prometheus_client.registry import Collector

from tof import __version__
from tof.agent.policy import parse_policy, policy_body
from tof.agent.service_body import body_of, parse
from tof.api import render
from tof.api.call import Call, OperationHandler
from tof.api.docs import docs_page
from tof.api.document import Document
from tof.api.port import ControlPort, TunnelQuery
from tof.api.requests import packed_address, packed_ue

ROWS_AT_ONCE = 500
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"

T = TypeVar("T")


class Handlers:
    """The operations, over a ControlPort."""

    def __init__(self, port: ControlPort, document: Document) -> None:
        self._port = port
        self._document = document

    def by_operation(self) -> Mapping[str, OperationHandler]:
        """The handler of each operationId."""
        return {
            "listServices": self._list_services,
            "addService": self._add_service,
            "replaceService": self._replace_service,
            "removeService": self._remove_service,
            "getServiceStatus": self._service_status,
            "getPolicy": self._get_policy,
            "replacePolicy": self._replace_policy,
            "listTunnels": self._list_tunnels,
            "listSessions": self._list_sessions,
            "listUsage": self._list_usage,
            "getHealth": self._health,
            "getMetrics": self._metrics,
            "getDocument": self._get_document,
            "getDocs": self._get_docs,
        }

    async def _list_services(self, call: Call) -> web.StreamResponse:
        return web.json_response([body_of(s) for s in await self._port.list_services()])

    async def _add_service(self, call: Call) -> web.StreamResponse:
        return web.json_response(body_of(await self._port.add_service(parse(call.body))))

    async def _replace_service(self, call: Call) -> web.StreamResponse:
        service = await self._port.replace_service(call.name, parse(call.body))
        return web.json_response(body_of(service))

    async def _remove_service(self, call: Call) -> web.StreamResponse:
        await self._port.remove_service(call.name)
        return web.Response()

    async def _service_status(self, call: Call) -> web.StreamResponse:
        return web.json_response(render.status(await self._port.service_status(call.name)))

    async def _get_policy(self, call: Call) -> web.StreamResponse:
        return web.json_response(policy_body(await self._port.policy()))

    async def _replace_policy(self, call: Call) -> web.StreamResponse:
        return web.json_response(policy_body(await self._port.replace_policy(parse_policy(call.body))))

    async def _list_tunnels(self, call: Call) -> web.StreamResponse:
        query = _tunnel_query(call.query)
        if query.limit is None:
            tunnels = await self._port.tunnels(query)
            return await _array(call.request, tunnels, render.tunnel)
        # One more than asked for tells whether there is a next page.
        found = await self._port.tunnels(replace(query, limit=query.limit + 1))
        tunnels = found[: query.limit]
        headers = {}
        if len(found) > query.limit:
            link = call.request.rel_url.update_query(after=render.cursor(tunnels[-1]))
            headers["Link"] = f'<{link}>; rel="next"'
        return await _array(call.request, tunnels, render.tunnel, headers)

    async def _list_sessions(self, call: Call) -> web.StreamResponse:
        return await _array(call.request, await self._port.sessions(), render.session)

    async def _list_usage(self, call: Call) -> web.StreamResponse:
        return await _array(call.request, await self._port.usage(), render.usage)

    async def _health(self, call: Call) -> web.StreamResponse:
        return web.json_response(render.health(await self._port.health(), __version__))

    async def _metrics(self, call: Call) -> web.StreamResponse:
        text = generate_latest(_Samples(await self._port.metrics()))
        return web.Response(body=text, headers={"Content-Type": METRICS_TYPE})

    async def _get_document(self, call: Call) -> web.StreamResponse:
        return web.json_response(text=self._document.as_json)

    async def _get_docs(self, call: Call) -> web.StreamResponse:
        return docs_page()


class _Samples(Collector):
    """Metrics in the shape that prometheus_client writes out."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


def _tunnel_query(values: Mapping[str, Any]) -> TunnelQuery:
    return TunnelQuery(
        ue=packed_ue(values.get("ue")),
        teid=values.get("teid"),
        source=packed_address(values.get("source"), "source"),
        destination=packed_address(values.get("destination"), "destination"),
        limit=values.get("limit"),
        after=render.parse_cursor(values.get("after")),
    )


async def _array(
    request: web.Request,
    rows: Sequence[T],
    render_row: Callable[[T], dict[str, Any]],
    headers: Mapping[str, str] | None = None,
) -> web.StreamResponse:
    response = web.StreamResponse(headers=headers)
    response.content_type = "application/json"
    response.charset = "utf-8"
    await response.prepare(request)
    # In slices: the loop that writes a million rows also answers packets.
    for start in range(0, len(rows), ROWS_AT_ONCE):
        text = ", ".join(json.dumps(render_row(row)) for row in rows[start : start + ROWS_AT_ONCE])
        await response.write(f"{', ' if start else '['}{text}".encode())
        await asyncio.sleep(0)
    await response.write(b"]" if rows else b"[]")
    await response.write_eof()
    return response
