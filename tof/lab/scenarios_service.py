"""Laboratory: the Pinger and the Service API, as checks (points 5 and 6)."""

from __future__ import annotations

from typing import Any

from tof.lab.checks import Capture, Check, Checks, Figures, clock
from tof.lab.namespaces import until
from tof.lab.peers import CORE_TUN
from tof.lab.scenarios import tunnels_check
from tof.lab.world import EDGE, EDGE_TWO, PING_TARGET, SERVICE, SERVICE_TWO, World


async def pinger(world: World, figures: Figures) -> Checks:
    """Point 5: a UE that only ever talks to the edge gets its downlink tunnel by the Pinger."""
    ue = await world.attach()
    began = clock()
    async with (
        Capture(world.lab, "core", CORE_TUN, f"icmp and host {ue.address}") as at_core,
        Capture(world.lab, ue.role, "ue", "icmp") as at_ue,
    ):
        page = await ue.curl(f"http://{SERVICE}/", seconds=10)
        figures["first_service_answer_ms"] = (clock() - began) * 1000
        yield Check.equal(
            "5 pinger: a UE's first packet ever, to the service, is answered by the edge", "edge", page
        )

        async def known() -> bool | None:
            return "downlink" in await world.tof.tunnels_of(ue.address) or None

        await until("the downlink tunnel is learnt", known)
        yield await tunnels_check(world, ue, "5 pinger: the reply shows the downlink tunnel of")
        requests = [line for line in at_core.packets if f"{ue.address} > " in line and "echo request" in line]
        yield Check(
            "5 pinger: it pings on the UE's behalf",
            bool(requests),
            f"echo requests of {ue.address} at the core",
            requests[0] if requests else "none",
        )
        yield await _quiet(world, at_core)
        yield Check.equal("5 pinger: the UE sees no stray echo reply", 0, len(at_ue.packets))
    own = await ue.ping(PING_TARGET, "-i", "0.1", count=5)
    yield Check.equal("5 pinger: the UE's own pings to the same target are not touched", 5, own.received)


async def _quiet(world: World, at_core: Capture) -> Check:
    before = len(at_core.packets)
    await world.pause(2.0)
    return Check.equal(
        "5 pinger: it stops by itself: pings in the next 2 s", 0, len(at_core.packets) - before
    )


_GAME = {"name": "game", "serviceIP": SERVICE_TWO, "applicationIP": EDGE}
_REFUSED: tuple[tuple[str, str, str, object, int, str], ...] = (
    ("a name twice", "POST", "/service", _GAME | {"serviceIP": "203.0.113.99"}, 409, "name"),
    ("a service IP twice", "POST", "/service", _GAME | {"name": "other"}, 409, "serviceIP"),
    ("a field missing", "POST", "/service", {"name": "x", "serviceIP": "203.0.113.99"}, 400, "applicationIP"),
    ("a field unknown", "POST", "/service", _GAME | {"name": "x", "port": 80}, 400, "port"),
    ("no address", "POST", "/service", _GAME | {"name": "x", "serviceIP": "203.0.113"}, 400, "serviceIP"),
    ("PUT of nothing", "PUT", "/service/nothing", _GAME, 404, "name"),
    ("DELETE of nothing", "DELETE", "/service/nothing", None, 404, "name"),
)


async def service_api(world: World, figures: Figures) -> Checks:
    """Point 6: the Service API of the source document; what it says with 200 is so."""
    ue = world.ues[0]
    yield Check.equal(
        "6 API: before POST the Internet answers", "internet: a", await ue.udp(SERVICE_TWO, "a")
    )
    began = clock()
    answer = await world.tof.request("POST", "/service", _GAME)
    figures["post_service_ms"] = (clock() - began) * 1000
    yield Check.equal("6 API: POST answers 200 with the service", (200, _GAME), (answer.status, answer.body))
    yield Check.equal("6 API: right after POST the edge answers", "edge: b", await ue.udp(SERVICE_TWO, "b"))
    yield Check.equal("6 API: GET /service lists both", ["game", "video"], await _names(world))
    for label, method, path, body, status, field in _REFUSED:
        refused = await world.tof.request(method, path, body)
        seen = (refused.status, _field(refused.body))
        yield Check.equal(f"6 API: {label} is refused and says why", (status, field), seen)
    yield Check.equal("6 API: nothing was half-applied", ["game", "video"], await _names(world))
    moved = _GAME | {"applicationIP": EDGE_TWO}
    answer = await world.tof.request("PUT", "/service/game", moved)
    yield Check.equal("6 API: PUT answers 200 with the service", (200, moved), (answer.status, answer.body))
    yield Check.equal(
        "6 API: right after PUT the other app answers", "edge-two: c", await ue.udp(SERVICE_TWO, "c")
    )
    answer = await world.tof.request("DELETE", f"/service/{SERVICE_TWO}")
    yield Check.equal("6 API: DELETE by service IP answers 200", 200, answer.status)
    yield Check.equal(
        "6 API: right after DELETE the Internet answers", "internet: d", await ue.udp(SERVICE_TWO, "d")
    )
    page = await ue.curl(f"http://{SERVICE}/", seconds=5)
    yield Check.equal("6 API: the other service is as it was", "edge", page)


async def _names(world: World) -> list[str]:
    return sorted(each["name"] for each in (await world.tof.request("GET", "/service")).body)


def _field(body: Any) -> str:
    """The first field that a problem document names."""
    errors = body.get("errors", []) if isinstance(body, dict) else []
    return str(errors[0]["field"]) if errors else ""
