"""The operations of ETSI MEC 010-2, application life-cycle management."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from http import HTTPStatus
from typing import Any

from aiohttp import web

from tof.agent.lcm import Operation, Power
from tof.agent.lcm_body import PLACEHOLDER, descriptor_body, parse_descriptor
from tof.agent.lcm_subscription import Subscription
from tof.api import lcm_render as render
from tof.api.call import Call, OperationHandler
from tof.api.document import Document, FieldError
from tof.api.lcm_filter import selected
from tof.api.lcm_port import LcmPort
from tof.api.lcm_requests import check_terminate, operate_target, parse_subscription, vim_of
from tof.api.problems import InvalidFields
from tof.errors import BadRequest, NotFound

AppCheck = Callable[[object], list[FieldError]]
"""What is wrong with a body of ``POST /apps``."""
NOT_ACCEPTABLE = 406
INSTANCE_OPTIONAL = ("instantiatedAppState",)
OCCURRENCE_OPTIONAL = ("error",)


class LcmHandlers:
    """The operations, over an LcmPort."""

    def __init__(self, port: LcmPort, document: Document, check_app: AppCheck) -> None:
        self._port = port
        self._document = document
        self._check_app = check_app

    def by_operation(self) -> Mapping[str, OperationHandler]:
        """The handler of each operationId."""
        found = {
            "listDescriptors": self._list_descriptors,
            "getDescriptor": self._get_descriptor,
            "declareDescriptor": self._declare,
            "retractDescriptor": self._retract,
            "listInstances": self._list_instances,
            "createInstance": self._create,
            "getInstance": self._get_instance,
            "deleteInstance": self._delete,
            "instantiate": self._instantiate,
            "operate": self._operate,
            "terminate": self._terminate,
            "listOccurrences": self._list_occurrences,
            "getOccurrence": self._get_occurrence,
            "listSubscriptions": self._list_subscriptions,
            "subscribe": self._subscribe,
            "getSubscription": self._get_subscription,
            "unsubscribe": self._unsubscribe,
            "getLcmDocument": self._get_document,
        }
        speaks = {one.operation_id for one in self._document.operations if NOT_ACCEPTABLE in one.statuses}
        return {name: _in_json(handler) if name in speaks else handler for name, handler in found.items()}

    async def _list_descriptors(self, call: Call) -> web.StreamResponse:
        return web.json_response([descriptor_body(one) for one in self._port.descriptors()])

    async def _get_descriptor(self, call: Call) -> web.StreamResponse:
        return web.json_response(descriptor_body(self._port.descriptor(_id(call))))

    async def _declare(self, call: Call) -> web.StreamResponse:
        body: Mapping[str, Any] = call.body
        if body.get("appDId", _id(call)) != _id(call):
            raise BadRequest("appDId is another one in the address", "appDId")
        if errors := self._check_app({"name": PLACEHOLDER, **body["app"]}):
            raise InvalidFields([FieldError(f"app.{one.field}", one.detail) for one in errors])
        descriptor = parse_descriptor(_id(call), body)
        new = await self._port.declare(descriptor)
        status = HTTPStatus.CREATED if new else HTTPStatus.OK
        return web.json_response(descriptor_body(descriptor), status=status)

    async def _retract(self, call: Call) -> web.StreamResponse:
        await self._port.retract(_id(call))
        return web.Response(status=HTTPStatus.NO_CONTENT)

    async def _list_instances(self, call: Call) -> web.StreamResponse:
        bodies = [render.instance_body(one, _base(call)) for one in self._port.instances()]
        return web.json_response(selected(bodies, call.query, INSTANCE_OPTIONAL))

    async def _get_instance(self, call: Call) -> web.StreamResponse:
        return web.json_response(render.instance_body(self._port.instance(_id(call)), _base(call)))

    async def _create(self, call: Call) -> web.StreamResponse:
        body: Mapping[str, Any] = call.body
        made = await self._port.create(
            body["appDId"], body.get("appInstanceName"), body.get("appInstanceDescription")
        )
        return web.json_response(
            render.instance_body(made, _base(call)),
            status=HTTPStatus.CREATED,
            headers={"Location": _base(call) + render.instance_address(made.id)},
        )

    async def _delete(self, call: Call) -> web.StreamResponse:
        await self._port.delete(_id(call))
        return web.Response(status=HTTPStatus.NO_CONTENT)

    async def _instantiate(self, call: Call) -> web.StreamResponse:
        return await self._begin(call, Operation.INSTANTIATE, Power.STARTED, vim_of(call.body))

    async def _operate(self, call: Call) -> web.StreamResponse:
        return await self._begin(call, Operation.OPERATE, operate_target(call.body))

    async def _terminate(self, call: Call) -> web.StreamResponse:
        check_terminate(call.body)
        return await self._begin(call, Operation.TERMINATE, Power.NOT_INSTANTIATED)

    async def _begin(
        self, call: Call, operation: Operation, target: Power, vim: str | None = None
    ) -> web.StreamResponse:
        begun = await self._port.begin(_id(call), operation, target, vim)
        where = _base(call) + render.occurrence_address(begun.id)
        return web.Response(status=HTTPStatus.ACCEPTED, headers={"Location": where})

    async def _list_occurrences(self, call: Call) -> web.StreamResponse:
        bodies = [render.occurrence_body(one, _base(call)) for one in self._port.occurrences()]
        return web.json_response(selected(bodies, call.query, OCCURRENCE_OPTIONAL))

    async def _get_occurrence(self, call: Call) -> web.StreamResponse:
        return web.json_response(render.occurrence_body(self._port.occurrence(_id(call)), _base(call)))

    async def _list_subscriptions(self, call: Call) -> web.StreamResponse:
        found = [one for one in self._port.subscriptions() if _asked_for(call, one)]
        return web.json_response(render.subscription_list(found, _base(call)))

    async def _subscribe(self, call: Call) -> web.StreamResponse:
        wanted = parse_subscription(call.body, _base(call))
        if not _asked_for(call, wanted):
            raise BadRequest("subscriptionType is another one in the body", "subscriptionType")
        made = await self._port.subscribe(wanted)
        return web.json_response(
            render.subscription_body(made, _base(call)),
            status=HTTPStatus.CREATED,
            headers={"Location": _base(call) + render.subscription_address(made.id)},
        )

    async def _get_subscription(self, call: Call) -> web.StreamResponse:
        found = self._port.subscription(_id(call))
        if not _asked_for(call, found):
            raise NotFound(f"{found.id} is a subscription to {found.subject}", "subscriptionType")
        return web.json_response(render.subscription_body(found, _base(call)))

    async def _unsubscribe(self, call: Call) -> web.StreamResponse:
        await self._port.unsubscribe(_id(call))
        return web.Response(status=HTTPStatus.NO_CONTENT)

    async def _get_document(self, call: Call) -> web.StreamResponse:
        return web.json_response(text=self._document.as_json)


def _in_json(handler: OperationHandler) -> OperationHandler:
    @wraps(handler)
    async def handle(call: Call) -> web.StreamResponse:
        accepted = call.request.headers.get("Accept", "*/*").lower()
        if not any(kind in accepted for kind in ("*/*", "application/*", "application/json")):
            raise web.HTTPNotAcceptable(reason="answers are application/json")
        return await handler(call)

    return handle


def _id(call: Call) -> str:
    return call.request.match_info["id"]


def _base(call: Call) -> str:
    return f"{call.request.scheme}://{call.request.host}"


def _asked_for(call: Call, subscription: Subscription) -> bool:
    return call.query.get("subscriptionType") in (None, subscription.subject.value)
