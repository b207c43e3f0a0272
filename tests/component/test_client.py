"""The generated client: it is what the document says, and it drives a live API."""

from __future__ import annotations

import asyncio
import filecmp
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from memory_port import SEEN, MemoryPort, tunnel

from tof.api.app import create_app
from tof.api.port import LearntAddress
from tof.api.server import serve
from tof.errors import BackendError

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "openapi" / "client"))

from tof_client import Client  # noqa: E402
from tof_client.api.operations import (  # noqa: E402
    get_docs,
    get_document,
    get_health,
    get_metrics,
    list_sessions,
    list_tunnels,
)
from tof_client.api.service import (  # noqa: E402
    add_service,
    get_service_status,
    list_services,
    remove_service,
    replace_service,
)
from tof_client.models import (  # noqa: E402
    HealthState,
    Problem,
    Service,
    ServiceMode,
    ServiceStatusState,
    TunnelDirection,
)
from tof_client.types import UNSET  # noqa: E402

VIDEO = Service(name="video", service_ip="198.51.100.10", application_ip="192.168.50.10")
GAMES = Service(
    name="games",
    service_ip="203.0.113.0/24",
    application_ip="192.168.50.10",
    protocol="udp",
    ports=[3478, "27000-27100"],
    dscp=[46],
    vlans=[0, 100],
    ues=["10.45.0.0/16"],
    enbs=["10.0.0.1"],
    sgws=["10.0.1.0/24"],
    priority=10,
    mode=ServiceMode.SHADOW,
)


def listing(directory):
    files = (path for path in directory.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return sorted(str(path.relative_to(directory)) for path in files)


async def test_the_committed_client_is_what_the_generator_makes(tmp_path):
    fresh = tmp_path / "client"
    tool = [str(ROOT / "tools" / "generate-client"), str(fresh)]
    done = await asyncio.to_thread(subprocess.run, tool, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    kept = ROOT / "openapi" / "client"
    names = listing(fresh)
    assert listing(kept) == names
    _, different, odd = filecmp.cmpfiles(kept, fresh, names, shallow=False)
    assert (different, odd) == ([], []), "run tools/generate-client"


@pytest.fixture
def port():
    return MemoryPort()


@pytest.fixture(params=["unix", "tcp"])
async def client(request, port, tmp_path):
    listen = f"unix:{tmp_path}/api.sock" if request.param == "unix" else "http://127.0.0.1:0"
    async with serve(create_app(port), [listen]) as (bound,):
        if request.param == "unix":
            transport = httpx.AsyncHTTPTransport(uds=f"{tmp_path}/api.sock")
            live = Client(base_url="http://localhost", httpx_args={"transport": transport})
        else:
            live = Client(base_url=bound)
        async with live:
            yield live


async def test_the_service_api(client, port):
    assert await list_services.asyncio(client=client) == []
    assert await add_service.asyncio(client=client, body=VIDEO) == VIDEO
    assert await list_services.asyncio(client=client) == [VIDEO]
    films = Service(name="films", service_ip="198.51.100.11", application_ip="192.168.50.11")
    assert await replace_service.asyncio("video", client=client, body=films) == films
    status = await get_service_status.asyncio("films", client=client)
    assert status.state is ServiceStatusState.IN_FORCE
    assert status.addresses is UNSET
    answer = await remove_service.asyncio_detailed("198.51.100.11", client=client)
    assert (answer.status_code, answer.content) == (200, b"")
    assert port.catalog.services == ()
    cinema = Service(name="cinema", domain="cinema.example.com", application_ip="192.168.50.11")
    assert await add_service.asyncio(client=client, body=cinema) == cinema
    port.learnt["cinema"] = (LearntAddress("203.0.113.81", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),)
    status = await get_service_status.asyncio("cinema", client=client)
    [one] = status.addresses
    assert (one.address, one.until) == ("203.0.113.81", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
    assert (await remove_service.asyncio_detailed("cinema.example.com", client=client)).status_code == 200


async def test_a_service_with_a_selection(client):
    assert await add_service.asyncio(client=client, body=GAMES) == GAMES
    other = Service(name="a", service_ip="203.0.113.0/24", application_ip="192.168.50.11", priority=10)
    clash = await add_service.asyncio(client=client, body=other)
    assert (clash.status, clash.errors[0].field) == (409, "serviceIP")
    assert await list_services.asyncio(client=client) == [GAMES]
    removed = await remove_service.asyncio_detailed("203.0.113.0/24", client=client)
    assert removed.status_code == 200


async def test_problems_are_typed(client, port):
    missing = await remove_service.asyncio("video", client=client)
    assert isinstance(missing, Problem)
    assert missing.status == 404
    await add_service.asyncio(client=client, body=VIDEO)
    taken = await add_service.asyncio(client=client, body=VIDEO)
    assert (taken.status, taken.errors[0].field) == (409, "name")
    wrong = Service(name="bad", service_ip="127.0.0.1", application_ip="192.168.50.10")
    refused = await add_service.asyncio(client=client, body=wrong)
    assert (refused.status, refused.errors[0].field) == (400, "serviceIP")
    port.refuses = BackendError("OVS is gone")
    unavailable = await remove_service.asyncio("video", client=client)
    assert (unavailable.status, unavailable.detail) == (503, "OVS is gone")


async def test_the_operations_api(client, port):
    port.held = [tunnel(teid=1, vlan=5), tunnel(teid=2, direction="downlink")]
    found = await list_tunnels.asyncio(client=client, teid=1)
    assert [(t.direction, t.vlan, t.qfi, t.last_seen) for t in found] == [
        (TunnelDirection.UPLINK, 5, None, SEEN)
    ]
    page = await list_tunnels.asyncio_detailed(client=client, limit=1)
    assert len(page.parsed) == 1
    assert 'rel="next"' in page.headers["Link"]
    assert (await list_tunnels.asyncio(client=client, ue="nobody")).errors[0].field == "ue"
    [session] = await list_sessions.asyncio(client=client)
    assert [t.teid for t in session.uplink + session.downlink] == [1, 2]
    assert (await get_health.asyncio(client=client)).state is HealthState.OK
    assert "tof_services" in await get_metrics.asyncio(client=client)
    assert (await get_document.asyncio(client=client))["openapi"].startswith("3.1")
    assert "swagger-ui" in await get_docs.asyncio(client=client)


def test_the_tool_explains_a_missing_environment(tmp_path):
    (tmp_path / "tools").mkdir()
    tool = tmp_path / "tools" / "generate-client"
    tool.write_bytes((ROOT / "tools" / "generate-client").read_bytes())
    tool.chmod(0o755)
    bare = {**os.environ, "PATH": "/usr/bin:/bin"}
    done = subprocess.run([str(tool)], capture_output=True, text=True, check=False, env=bare)
    assert done.returncode == 2
    assert "tools/setup" in done.stderr
