"""The operations of ME Apps."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from urllib.parse import quote

from aiohttp import web

from tof.agent.app import AppState, AppView
from tof.agent.app_body import fault_body, parse_app, view_body
from tof.api.apps_port import AppsPort
from tof.api.call import Call, OperationHandler
from tof.api.problems import problem


class AppHandlers:
    """The operations, over an AppsPort."""

    def __init__(self, port: AppsPort) -> None:
        self._port = port

    def by_operation(self) -> Mapping[str, OperationHandler]:
        """The handler of each operationId."""
        return {
            "listApps": self._list,
            "createApp": self._create,
            "getApp": self._get,
            "deleteApp": self._delete,
        }

    async def _list(self, call: Call) -> web.StreamResponse:
        return web.json_response([view_body(view) for view in await self._port.views()])

    async def _get(self, call: Call) -> web.StreamResponse:
        return web.json_response(view_body(await self._port.view(call.name)))

    async def _create(self, call: Call) -> web.StreamResponse:
        app = parse_app(call.body)
        await self._port.request(app)
        view = await self._port.settled(app.name, call.query.get("wait", 0))
        where = {"Location": _address(app.name)}
        if view is None:
            return _problem(call, HTTPStatus.BAD_GATEWAY, f"{app.name} was removed meanwhile", where)
        if view.state is AppState.FAILED:
            return _failed(call, view, where)
        if "wait" not in call.query:
            return web.json_response(view_body(view), status=HTTPStatus.ACCEPTED, headers=where)
        if view.state is AppState.READY:
            return web.json_response(view_body(view), status=HTTPStatus.CREATED, headers=where)
        return _late(call, view, where)

    async def _delete(self, call: Call) -> web.StreamResponse:
        await self._port.remove(call.name)
        view = await self._port.settled(call.name, call.query.get("wait", 0))
        if view is None:
            return web.Response()
        where = {"Location": _address(call.name)}
        if "wait" in call.query:
            return _late(call, view, where)
        return web.json_response(view_body(view), status=HTTPStatus.ACCEPTED, headers=where)


def _address(name: str) -> str:
    return f"/apps/{quote(name, safe='')}"


def _failed(call: Call, view: AppView, headers: Mapping[str, str]) -> web.Response:
    fault = view.fault
    detail = f"{fault.step}: {fault.message}; {fault.hint}" if fault else "it failed"
    error = fault_body(fault) or {}
    return _problem(call, HTTPStatus.BAD_GATEWAY, detail, headers, error)


def _late(call: Call, view: AppView, headers: Mapping[str, str]) -> web.Response:
    doing = f", {view.step}" if view.step else ""
    detail = f"{view.app.name} is {view.state}{doing} after {call.query['wait']} s; it goes on, see {headers['Location']}"
    return _problem(call, HTTPStatus.GATEWAY_TIMEOUT, detail, headers)


def _problem(
    call: Call,
    status: HTTPStatus,
    detail: str,
    headers: Mapping[str, str],
    more: Mapping[str, str] | None = None,
) -> web.Response:
    response = problem(call.request, status, detail, more=more)
    response.headers.update(headers)
    return response
