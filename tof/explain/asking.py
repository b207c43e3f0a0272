"""What a running agent says about a UE and about the services that may have its packet."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any, Protocol
from urllib.parse import quote

from tof.agent.chain_body import parse_chain
from tof.agent.service_body import parse
from tof.explain.live import Known, Question
from tof.model import IpNetwork, address_text


class Client(Protocol):
    """The one call that is needed of ``tof.api.client.ApiClient``."""

    async def get(self, path: str, params: dict[str, str] | None = None) -> Any:
        """GET ``path``."""
        ...


async def ask(client: Client, question: Question) -> Known:
    """Ask the agent all that ``answers`` needs."""
    health = await client.get("/health")
    wrong = {check["name"]: check["detail"] for check in health["checks"] if check["state"] != "ok"}
    services = [parse(body) for body in await client.get("/service")]
    absent: dict[str, dict[str, str]] = {
        "unresolved": {},
        "unhealthy": {},
        "broken_chain": {},
        "out_of_hours": {},
    }
    learnt: dict[str, tuple[IpNetwork, ...]] = {}
    for service in services:
        if service.network is None or ip_address(question.to) in service.network:
            status = await client.get(f"/service/{quote(service.name, safe='')}/status")
            if service.network is None:
                learnt[service.name] = tuple(ip_network(each["address"]) for each in status["addresses"])
            if status["state"] in absent:
                absent[status["state"]][service.name] = status["detail"]
    chained = any(service.chain is not None for service in services)
    chains = (await client.get("/policy")).get("chains", []) if chained else []
    return Known(
        chains=tuple(map(parse_chain, chains)),
        tunnels=await client.get("/tunnels", {"ue": address_text(question.ue)}),
        services=services,
        learnt=learnt,
        **absent,
        bypass=wrong.get("bypass", ""),
        ovs_down=wrong.get("heartbeat", ""),
    )
