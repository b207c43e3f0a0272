from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import httpx

from ... import errors
from ...client import AuthenticatedClient, Client
from ...models.problem import Problem
from ...models.service import Service
from ...types import Response


def _get_kwargs(
    name: str,
    *,
    body: Service,
) -> dict[str, Any]:
    headers: dict[str, Any] = {}

    _kwargs: dict[str, Any] = {
        "method": "put",
        "url": "/service/{name}".format(
            name=quote(str(name), safe=""),
        ),
    }

    _kwargs["json"] = body.to_dict()

    headers["Content-Type"] = "application/json"

    _kwargs["headers"] = headers
    return _kwargs


def _parse_response(*, client: AuthenticatedClient | Client, response: httpx.Response) -> Problem | Service | None:
    if response.status_code == 200:
        response_200 = Service.from_dict(response.json())

        return response_200

    if response.status_code == 400:
        response_400 = Problem.from_dict(response.json())

        return response_400

    if response.status_code == 404:
        response_404 = Problem.from_dict(response.json())

        return response_404

    if response.status_code == 409:
        response_409 = Problem.from_dict(response.json())

        return response_409

    if response.status_code == 503:
        response_503 = Problem.from_dict(response.json())

        return response_503

    if client.raise_on_unexpected_status:
        raise errors.UnexpectedStatus(response.status_code, response.content)
    else:
        return None


def _build_response(*, client: AuthenticatedClient | Client, response: httpx.Response) -> Response[Problem | Service]:
    return Response(
        status_code=HTTPStatus(response.status_code),
        content=response.content,
        headers=response.headers,
        parsed=_parse_response(client=client, response=response),
    )


def sync_detailed(
    name: str,
    *,
    client: AuthenticatedClient | Client,
    body: Service,
) -> Response[Problem | Service]:
    """Update a service

     Another name in the body renames the service. Flows move at once.

    Args:
        name (str):
        body (Service): Traffic of UEs to `serviceIP` that the selection holds for is answered by
            `applicationIP`. Both are of one family
            and neither multicast, broadcast, loopback, unspecified, IPv6 link-local, a Pinger target
            nor an address of the
            TOF (a prefix may contain such addresses). An IPv4-mapped IPv6 address is the IPv4
            address.

            `domain` stands in the place of `serviceIP` where the addresses are those that DNS says;
            one of the two is needed.
            The other fields are optional, and are in an answer only when they say something; an empty
            list is
            as if absent. The selection is `protocol`, `ports`, `dscp`, `vlans`, `ues`, `enbs` and
            `sgws`: a packet must suit
            all that are given, and in each list one entry. A packet that several services select
            belongs to the one with
            the highest `priority`, then to the one with the longest prefix; services that are still
            equal then must not
            select the same packets (409). Answers have lists sorted and without duplicates, and ports
            merged.

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Response[Problem | Service]
    """

    kwargs = _get_kwargs(
        name=name,
        body=body,
    )

    response = client.get_httpx_client().request(
        **kwargs,
    )

    return _build_response(client=client, response=response)


def sync(
    name: str,
    *,
    client: AuthenticatedClient | Client,
    body: Service,
) -> Problem | Service | None:
    """Update a service

     Another name in the body renames the service. Flows move at once.

    Args:
        name (str):
        body (Service): Traffic of UEs to `serviceIP` that the selection holds for is answered by
            `applicationIP`. Both are of one family
            and neither multicast, broadcast, loopback, unspecified, IPv6 link-local, a Pinger target
            nor an address of the
            TOF (a prefix may contain such addresses). An IPv4-mapped IPv6 address is the IPv4
            address.

            `domain` stands in the place of `serviceIP` where the addresses are those that DNS says;
            one of the two is needed.
            The other fields are optional, and are in an answer only when they say something; an empty
            list is
            as if absent. The selection is `protocol`, `ports`, `dscp`, `vlans`, `ues`, `enbs` and
            `sgws`: a packet must suit
            all that are given, and in each list one entry. A packet that several services select
            belongs to the one with
            the highest `priority`, then to the one with the longest prefix; services that are still
            equal then must not
            select the same packets (409). Answers have lists sorted and without duplicates, and ports
            merged.

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Problem | Service
    """

    return sync_detailed(
        name=name,
        client=client,
        body=body,
    ).parsed


async def asyncio_detailed(
    name: str,
    *,
    client: AuthenticatedClient | Client,
    body: Service,
) -> Response[Problem | Service]:
    """Update a service

     Another name in the body renames the service. Flows move at once.

    Args:
        name (str):
        body (Service): Traffic of UEs to `serviceIP` that the selection holds for is answered by
            `applicationIP`. Both are of one family
            and neither multicast, broadcast, loopback, unspecified, IPv6 link-local, a Pinger target
            nor an address of the
            TOF (a prefix may contain such addresses). An IPv4-mapped IPv6 address is the IPv4
            address.

            `domain` stands in the place of `serviceIP` where the addresses are those that DNS says;
            one of the two is needed.
            The other fields are optional, and are in an answer only when they say something; an empty
            list is
            as if absent. The selection is `protocol`, `ports`, `dscp`, `vlans`, `ues`, `enbs` and
            `sgws`: a packet must suit
            all that are given, and in each list one entry. A packet that several services select
            belongs to the one with
            the highest `priority`, then to the one with the longest prefix; services that are still
            equal then must not
            select the same packets (409). Answers have lists sorted and without duplicates, and ports
            merged.

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Response[Problem | Service]
    """

    kwargs = _get_kwargs(
        name=name,
        body=body,
    )

    response = await client.get_async_httpx_client().request(**kwargs)

    return _build_response(client=client, response=response)


async def asyncio(
    name: str,
    *,
    client: AuthenticatedClient | Client,
    body: Service,
) -> Problem | Service | None:
    """Update a service

     Another name in the body renames the service. Flows move at once.

    Args:
        name (str):
        body (Service): Traffic of UEs to `serviceIP` that the selection holds for is answered by
            `applicationIP`. Both are of one family
            and neither multicast, broadcast, loopback, unspecified, IPv6 link-local, a Pinger target
            nor an address of the
            TOF (a prefix may contain such addresses). An IPv4-mapped IPv6 address is the IPv4
            address.

            `domain` stands in the place of `serviceIP` where the addresses are those that DNS says;
            one of the two is needed.
            The other fields are optional, and are in an answer only when they say something; an empty
            list is
            as if absent. The selection is `protocol`, `ports`, `dscp`, `vlans`, `ues`, `enbs` and
            `sgws`: a packet must suit
            all that are given, and in each list one entry. A packet that several services select
            belongs to the one with
            the highest `priority`, then to the one with the longest prefix; services that are still
            equal then must not
            select the same packets (409). Answers have lists sorted and without duplicates, and ports
            merged.

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Problem | Service
    """

    return (
        await asyncio_detailed(
            name=name,
            client=client,
            body=body,
        )
    ).parsed
