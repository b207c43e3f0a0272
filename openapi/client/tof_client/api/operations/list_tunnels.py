from http import HTTPStatus
from typing import Any

import httpx

from ... import errors
from ...client import AuthenticatedClient, Client
from ...models.problem import Problem
from ...models.tunnel import Tunnel
from ...types import UNSET, Response, Unset


def _get_kwargs(
    *,
    ue: str | Unset = UNSET,
    teid: int | Unset = UNSET,
    source: str | Unset = UNSET,
    destination: str | Unset = UNSET,
    limit: int | Unset = UNSET,
    after: str | Unset = UNSET,
) -> dict[str, Any]:

    params: dict[str, Any] = {}

    params["ue"] = ue

    params["teid"] = teid

    params["source"] = source

    params["destination"] = destination

    params["limit"] = limit

    params["after"] = after

    params = {k: v for k, v in params.items() if v is not UNSET and v is not None}

    _kwargs: dict[str, Any] = {
        "method": "get",
        "url": "/tunnels",
        "params": params,
    }

    return _kwargs


def _parse_response(*, client: AuthenticatedClient | Client, response: httpx.Response) -> Problem | list[Tunnel] | None:
    if response.status_code == 200:
        response_200 = []
        _response_200 = response.json()
        for response_200_item_data in _response_200:
            response_200_item = Tunnel.from_dict(response_200_item_data)

            response_200.append(response_200_item)

        return response_200

    if response.status_code == 400:
        response_400 = Problem.from_dict(response.json())

        return response_400

    if client.raise_on_unexpected_status:
        raise errors.UnexpectedStatus(response.status_code, response.content)
    else:
        return None


def _build_response(
    *, client: AuthenticatedClient | Client, response: httpx.Response
) -> Response[Problem | list[Tunnel]]:
    return Response(
        status_code=HTTPStatus(response.status_code),
        content=response.content,
        headers=response.headers,
        parsed=_parse_response(client=client, response=response),
    )


def sync_detailed(
    *,
    client: AuthenticatedClient | Client,
    ue: str | Unset = UNSET,
    teid: int | Unset = UNSET,
    source: str | Unset = UNSET,
    destination: str | Unset = UNSET,
    limit: int | Unset = UNSET,
    after: str | Unset = UNSET,
) -> Response[Problem | list[Tunnel]]:
    """The GTP-U tunnels that the TOF has learnt

     Ordered by VLAN (untagged first), source, destination and TEID. Without `limit`, everything; with
    it, one
    page, and the address of the next one in `Link: <...>; rel="next"`.

    Args:
        ue (str | Unset):
        teid (int | Unset):
        source (str | Unset):
        destination (str | Unset):
        limit (int | Unset):
        after (str | Unset):

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Response[Problem | list[Tunnel]]
    """

    kwargs = _get_kwargs(
        ue=ue,
        teid=teid,
        source=source,
        destination=destination,
        limit=limit,
        after=after,
    )

    response = client.get_httpx_client().request(
        **kwargs,
    )

    return _build_response(client=client, response=response)


def sync(
    *,
    client: AuthenticatedClient | Client,
    ue: str | Unset = UNSET,
    teid: int | Unset = UNSET,
    source: str | Unset = UNSET,
    destination: str | Unset = UNSET,
    limit: int | Unset = UNSET,
    after: str | Unset = UNSET,
) -> Problem | list[Tunnel] | None:
    """The GTP-U tunnels that the TOF has learnt

     Ordered by VLAN (untagged first), source, destination and TEID. Without `limit`, everything; with
    it, one
    page, and the address of the next one in `Link: <...>; rel="next"`.

    Args:
        ue (str | Unset):
        teid (int | Unset):
        source (str | Unset):
        destination (str | Unset):
        limit (int | Unset):
        after (str | Unset):

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Problem | list[Tunnel]
    """

    return sync_detailed(
        client=client,
        ue=ue,
        teid=teid,
        source=source,
        destination=destination,
        limit=limit,
        after=after,
    ).parsed


async def asyncio_detailed(
    *,
    client: AuthenticatedClient | Client,
    ue: str | Unset = UNSET,
    teid: int | Unset = UNSET,
    source: str | Unset = UNSET,
    destination: str | Unset = UNSET,
    limit: int | Unset = UNSET,
    after: str | Unset = UNSET,
) -> Response[Problem | list[Tunnel]]:
    """The GTP-U tunnels that the TOF has learnt

     Ordered by VLAN (untagged first), source, destination and TEID. Without `limit`, everything; with
    it, one
    page, and the address of the next one in `Link: <...>; rel="next"`.

    Args:
        ue (str | Unset):
        teid (int | Unset):
        source (str | Unset):
        destination (str | Unset):
        limit (int | Unset):
        after (str | Unset):

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Response[Problem | list[Tunnel]]
    """

    kwargs = _get_kwargs(
        ue=ue,
        teid=teid,
        source=source,
        destination=destination,
        limit=limit,
        after=after,
    )

    response = await client.get_async_httpx_client().request(**kwargs)

    return _build_response(client=client, response=response)


async def asyncio(
    *,
    client: AuthenticatedClient | Client,
    ue: str | Unset = UNSET,
    teid: int | Unset = UNSET,
    source: str | Unset = UNSET,
    destination: str | Unset = UNSET,
    limit: int | Unset = UNSET,
    after: str | Unset = UNSET,
) -> Problem | list[Tunnel] | None:
    """The GTP-U tunnels that the TOF has learnt

     Ordered by VLAN (untagged first), source, destination and TEID. Without `limit`, everything; with
    it, one
    page, and the address of the next one in `Link: <...>; rel="next"`.

    Args:
        ue (str | Unset):
        teid (int | Unset):
        source (str | Unset):
        destination (str | Unset):
        limit (int | Unset):
        after (str | Unset):

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Problem | list[Tunnel]
    """

    return (
        await asyncio_detailed(
            client=client,
            ue=ue,
            teid=teid,
            source=source,
            destination=destination,
            limit=limit,
            after=after,
        )
    ).parsed
