"""Errors as ``application/problem+json`` (RFC 9457), for every answer that is not what was asked for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from http import HTTPStatus

from aiohttp import web

from tof.api.document import FieldError
from tof.errors import BackendError, BadRequest, RequestError

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class InvalidFields(BadRequest):
    """A bad request with every field at fault, not only the first."""

    def __init__(self, errors: Sequence[FieldError]) -> None:
        super().__init__("; ".join(_sentence(e) for e in errors), errors[0].field)
        self.errors = tuple(errors)


class BrokenBody(BadRequest):
    """A body that was not read to its end: the connection cannot be used again."""


def problem(
    request: web.Request,
    status: int,
    detail: str,
    errors: Sequence[FieldError] = (),
    more: Mapping[str, str] | None = None,
) -> web.Response:
    """The response that says what is wrong; ``more``: members that this kind of problem has besides."""
    return web.json_response(
        {
            "type": "about:blank",
            "title": HTTPStatus(status).phrase,
            "status": status,
            "detail": detail,
            "instance": request.rel_url.raw_path,
            "errors": [{"field": e.field, "detail": e.detail} for e in errors],
            **(more or {}),
        },
        status=status,
        content_type="application/problem+json",
    )


@web.middleware
async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn the TOF's errors, and aiohttp's own, into problem documents."""
    try:
        return await handler(request)
    except RequestError as error:
        response = problem(request, error.status, error.detail, _fields(error))
        if isinstance(error, BrokenBody):
            response.force_close()
        return response
    except BackendError as error:
        return problem(request, HTTPStatus.SERVICE_UNAVAILABLE, str(error))
    except web.HTTPError as error:
        response = problem(request, error.status, _http_detail(request, error))
        if "Allow" in error.headers:
            response.headers["Allow"] = error.headers["Allow"]
        return response


def _fields(error: RequestError) -> Sequence[FieldError]:
    if isinstance(error, InvalidFields):
        return error.errors
    return (FieldError(error.field, error.detail),) if error.field else ()


def _http_detail(request: web.Request, error: web.HTTPError) -> str:
    if error.status == HTTPStatus.NOT_FOUND:
        return f"there is nothing at {request.rel_url.raw_path}"
    if error.status == HTTPStatus.METHOD_NOT_ALLOWED:
        return f"{request.method} is not possible here"
    return error.reason


def _sentence(error: FieldError) -> str:
    return f"{error.field}: {error.detail}" if error.field else error.detail
