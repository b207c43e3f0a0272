"""Laboratory: ME Apps, as checks (point 8)."""

from __future__ import annotations

from typing import Final

from tof.lab.checks import Check, Checks, Figures, clock
from tof.lab.namespaces import until
from tof.lab.world import SERVICE_TWO, World

_PORT: Final = 8080
_SERVER: Final = """\
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"me-app")
http.server.ThreadingHTTPServer(("", 8080), Handler).serve_forever()
"""
_APP: Final = {
    "name": "game",
    "command": ["/usr/bin/python3", "-c", _SERVER],
    "health": {"kind": "http", "port": _PORT},
    "services": [
        {"name": "game", "serviceIP": SERVICE_TWO, "protocol": "tcp", "ports": [80], "applicationPort": _PORT}
    ],
}


async def apps(world: World, figures: Figures) -> Checks:
    """Point 8: an orchestrator has an ME App in one call; a UE reaches it; it is terminated, and nothing is left."""
    ue, page = world.ues[0], f"http://{SERVICE_TWO}/"
    before = await _links(world)
    yield Check.equal("8 apps: before, the Internet answers", "internet", await ue.curl(page, seconds=5))
    began = clock()
    answer = await world.tof.request("POST", "/apps?wait=30", _APP, timeout_s=40)
    figures["app_ready_ms"] = (clock() - began) * 1000
    timings = answer.body.get("timings", {}) if answer.status == 201 else {}
    for phase, seconds in timings.items():
        figures[f"app_{phase.replace('.', '_')}_ms"] = seconds * 1000
    seen = (answer.status, answer.body.get("state", answer.body.get("detail")))
    yield Check.equal("8 apps: POST answers 201 once the service is in force", (201, "ready"), seen)
    yield Check.equal("8 apps: the UE reaches the app", "me-app", await ue.curl(page, seconds=5))
    again = await world.tof.request("POST", "/apps?wait=30", _APP)
    yield Check.equal(
        "8 apps: the same call again is the same app", (201, answer.body), (again.status, again.body)
    )
    await world.tof.kill()
    yield Check.equal(
        "8 apps: kill -9 of the agent: the app goes on", "me-app", await ue.curl(page, seconds=5)
    )
    await world.tof.start()

    async def taken_over() -> bool | None:
        return (await world.tof.request("GET", "/apps/game")).body["state"] == "ready" or None

    await until("the app is taken over", taken_over)
    yield Check.equal("8 apps: the next agent takes it over", "me-app", await ue.curl(page, seconds=5))
    began = clock()
    answer = await world.tof.request("DELETE", "/apps/game?wait=30", timeout_s=40)
    figures["app_gone_ms"] = (clock() - began) * 1000
    yield Check.equal("8 apps: DELETE answers 200 once it is gone", 200, answer.status)
    yield Check.equal("8 apps: right after, the Internet answers", "internet", await ue.curl(page, seconds=5))
    yield Check.equal("8 apps: nothing of it is left", before, await _links(world))


async def _links(world: World) -> list[str]:
    result = await world.lab.run("tof", "ip", "-br", "link")
    return sorted(line.split()[0] for line in result.stdout.splitlines())
