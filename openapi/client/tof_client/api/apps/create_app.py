from http import HTTPStatus
from typing import Any

import httpx

from ... import errors
from ...client import AuthenticatedClient, Client
from ...models.app import App
from ...models.app_view import AppView
from ...models.problem import Problem
from ...types import UNSET, Response, Unset


def _get_kwargs(
    *,
    body: App,
    wait: int | Unset = UNSET,
) -> dict[str, Any]:
    headers: dict[str, Any] = {}

    params: dict[str, Any] = {}

    params["wait"] = wait

    params = {k: v for k, v in params.items() if v is not UNSET and v is not None}

    _kwargs: dict[str, Any] = {
        "method": "post",
        "url": "/apps",
        "params": params,
    }

    _kwargs["json"] = body.to_dict()

    headers["Content-Type"] = "application/json"

    _kwargs["headers"] = headers
    return _kwargs


def _parse_response(*, client: AuthenticatedClient | Client, response: httpx.Response) -> AppView | Problem | None:
    if response.status_code == 201:
        response_201 = AppView.from_dict(response.json())

        return response_201

    if response.status_code == 202:
        response_202 = AppView.from_dict(response.json())

        return response_202

    if response.status_code == 400:
        response_400 = Problem.from_dict(response.json())

        return response_400

    if response.status_code == 409:
        response_409 = Problem.from_dict(response.json())

        return response_409

    if response.status_code == 502:
        response_502 = Problem.from_dict(response.json())

        return response_502

    if response.status_code == 503:
        response_503 = Problem.from_dict(response.json())

        return response_503

    if response.status_code == 504:
        response_504 = Problem.from_dict(response.json())

        return response_504

    if client.raise_on_unexpected_status:
        raise errors.UnexpectedStatus(response.status_code, response.content)
    else:
        return None


def _build_response(*, client: AuthenticatedClient | Client, response: httpx.Response) -> Response[AppView | Problem]:
    return Response(
        status_code=HTTPStatus(response.status_code),
        content=response.content,
        headers=response.headers,
        parsed=_parse_response(client=client, response=response),
    )


def sync_detailed(
    *,
    client: AuthenticatedClient | Client,
    body: App,
    wait: int | Unset = UNSET,
) -> Response[AppView | Problem]:
    """Have an ME App

     Its VIM makes it, it is asked through the data plane until it answers, then its services are in
    force: all of them,
    or none. If anything fails, nothing of it is left but the record that says why. The same body again
    is the same
    app; an app that has failed begins anew.

    Args:
        wait (int | Unset):
        body (App): An ME App, and the services that it backs

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Response[AppView | Problem]
    """

    kwargs = _get_kwargs(
        body=body,
        wait=wait,
    )

    response = client.get_httpx_client().request(
        **kwargs,
    )

    return _build_response(client=client, response=response)


def sync(
    *,
    client: AuthenticatedClient | Client,
    body: App,
    wait: int | Unset = UNSET,
) -> AppView | Problem | None:
    """Have an ME App

     Its VIM makes it, it is asked through the data plane until it answers, then its services are in
    force: all of them,
    or none. If anything fails, nothing of it is left but the record that says why. The same body again
    is the same
    app; an app that has failed begins anew.

    Args:
        wait (int | Unset):
        body (App): An ME App, and the services that it backs

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        AppView | Problem
    """

    return sync_detailed(
        client=client,
        body=body,
        wait=wait,
    ).parsed


async def asyncio_detailed(
    *,
    client: AuthenticatedClient | Client,
    body: App,
    wait: int | Unset = UNSET,
) -> Response[AppView | Problem]:
    """Have an ME App

     Its VIM makes it, it is asked through the data plane until it answers, then its services are in
    force: all of them,
    or none. If anything fails, nothing of it is left but the record that says why. The same body again
    is the same
    app; an app that has failed begins anew.

    Args:
        wait (int | Unset):
        body (App): An ME App, and the services that it backs

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Response[AppView | Problem]
    """

    kwargs = _get_kwargs(
        body=body,
        wait=wait,
    )

    response = await client.get_async_httpx_client().request(**kwargs)

    return _build_response(client=client, response=response)


async def asyncio(
    *,
    client: AuthenticatedClient | Client,
    body: App,
    wait: int | Unset = UNSET,
) -> AppView | Problem | None:
    """Have an ME App

     Its VIM makes it, it is asked through the data plane until it answers, then its services are in
    force: all of them,
    or none. If anything fails, nothing of it is left but the record that says why. The same body again
    is the same
    app; an app that has failed begins anew.

    Args:
        wait (int | Unset):
        body (App): An ME App, and the services that it backs

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        AppView | Problem
    """

    return (
        await asyncio_detailed(
            client=client,
            body=body,
            wait=wait,
        )
    ).parsed
