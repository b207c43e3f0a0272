"""The aiohttp application: the document's routes, each request checked before its handler sees it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus

from aiohttp import web
from aiohttp.typedefs import Middleware

from tof.api.app_handlers import AppHandlers
from tof.api.apps_port import AppsPort, NoApps
from tof.api.call import Call, OperationHandler
from tof.api.docs import add_assets
from tof.api.document import LCM_DOCUMENT, Document, Operation, load_document
from tof.api.handlers import Handlers
from tof.api.lcm_handlers import LcmHandlers
from tof.api.lcm_port import LcmPort, NoLcm
from tof.api.port import ControlPort
from tof.api.problems import Handler, problem, problems
from tof.api.requests import MAX_BODY, READ_TIMEOUT_S, read_body, read_query

LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True)
class ApiOptions:
    """What may differ between installations: ``hosts`` are further names this machine answers to."""

    hosts: frozenset[str] = frozenset()
    read_timeout_s: float = READ_TIMEOUT_S


def create_app(
    port: ControlPort,
    document: Document | None = None,
    options: ApiOptions = ApiOptions(),
    apps: AppsPort | None = None,
    lcm: LcmPort | None = None,
) -> web.Application:
    """The Service API and the operations API over ``port``, as ``document`` (default: ours) has them.

    ``apps``: what the operations of ME Apps are over, ``lcm``: those of ETSI MEC 010-2; without, they answer 503.
    """
    document = document or load_document()
    app = web.Application(
        client_max_size=MAX_BODY,
        middlewares=[problems, _host_check(LOOPBACK_HOSTS | {h.lower() for h in options.hosts})],
    )
    handlers = {**Handlers(port, document).by_operation(), **AppHandlers(apps or NoApps()).by_operation()}
    _add_routes(app, document, handlers, options)
    lcm_document = load_document(LCM_DOCUMENT)
    check_app = document.operation("createApp").check_body
    _add_routes(
        app, lcm_document, LcmHandlers(lcm or NoLcm(), lcm_document, check_app).by_operation(), options
    )
    add_assets(app, document)
    return app


def host_name(header: str) -> str:
    """The host in a Host header, without its port and brackets, in lower case."""
    if header.startswith("["):
        return header[1:].partition("]")[0].lower()
    return header.partition(":")[0].rstrip(".").lower()


def _add_routes(
    app: web.Application, document: Document, handlers: Mapping[str, OperationHandler], options: ApiOptions
) -> None:
    for operation in document.operations:
        handler = handlers[operation.operation_id]
        app.router.add_route(operation.method, operation.path, _route(operation, handler, options))


def _route(operation: Operation, handler: OperationHandler, options: ApiOptions) -> Handler:
    async def route(request: web.Request) -> web.StreamResponse:
        query = read_query(request, operation)
        if operation.body_validator is None:
            return await handler(Call(request, query))
        return await handler(
            Call(request, query, await read_body(request, operation, options.read_timeout_s))
        )

    return route


def _host_check(hosts: Iterable[str]) -> Middleware:
    allowed = frozenset(hosts)

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        # A web page can make a browser reach a TCP port here under a name of its own (DNS rebinding),
        # but never a Unix socket.
        over_tcp = request.transport is None or isinstance(
            request.transport.get_extra_info("sockname"), tuple
        )
        host = request.headers.get("Host", "")
        if over_tcp and host_name(host) not in allowed:
            detail = f"{host or 'an absent Host header'} does not name this machine"
            return problem(request, HTTPStatus.MISDIRECTED_REQUEST, detail)
        return await handler(request)

    return check
