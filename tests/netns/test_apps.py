"""ME Apps from the API to a UE: a real TOF, real sandboxes on ports of br-ue."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gtp_apps import ue_kernel
from gtp_packets import Bearer, new_bearer
from gtp_peers import Setting, Tof, running_tof, until
from vim_host import marked

pytestmark = pytest.mark.netns

SERVICE = "203.0.113.10"
WEB = ["/usr/bin/python3", "-m", "http.server", "8080"]


def web(name: str = "web", **more: Any) -> dict[str, Any]:
    service = {"name": name, "serviceIP": SERVICE, "protocol": "tcp", "ports": [80], "applicationPort": 8080}
    return {"name": name, "command": WEB, "services": [service], **more}


@pytest.fixture(scope="module")
def tof() -> Iterator[Tof]:
    with running_tof(Setting()) as running:
        yield running


@pytest.fixture(autouse=True)
def _fresh(tof: Tof) -> Iterator[None]:
    tof.drain()
    yield
    for one in tof.get("/apps"):
        tof.call("DELETE", f"/apps/{one['name']}?wait=20")
    assert left(tof) == []


def left(tof: Tof) -> list[str]:
    """Everything of apps that is still there."""
    links = tof.netns["tof"].run("ip", "-br", "link").split("\n")
    found = [line for line in links if line.startswith(("tofv", "tofap-", "tofp"))]
    found += [str(path) for path in (tof.dir / "run" / "vim").glob("*/*")]
    found += [f"service {one['name']}" for one in tof.get("/service")]
    return found + [text for text in marked(tof.dir / "run" / "vim") if "tof agent" not in text]


def fetched(tof: Tof, bearer: Bearer) -> str:
    with ue_kernel(tof, bearer):
        return tof.netns["ran"].run("curl", "-s", "-m", "5", f"http://{SERVICE}/", check=False)


def state(tof: Tof, name: str = "web") -> str:
    return str(tof.get(f"/apps/{name}").get("state"))


def test_a_ue_reaches_an_app_from_its_creation_until_it_is_deleted(tof: Tof) -> None:
    bearer = new_bearer()
    tof.attach(bearer)
    status, view = tof.call("POST", "/apps?wait=20", web())
    assert status == 201, view
    print(view["timings"])
    assert view["state"] == "ready"
    assert view["error"] is None
    assert [s["name"] for s in tof.get("/service")] == ["web"]
    assert tof.get("/service")[0]["applicationIP"] == view["addresses"][0]
    assert "Directory listing" in fetched(tof, bearer)
    assert tof.call("POST", "/apps?wait=5", web())[0] == 201, "the same again is the same app"
    assert tof.call("POST", "/apps", web(restart="never"))[0] == 409
    status, body = tof.call("DELETE", "/apps/web?wait=20")
    assert (status, body) == (200, "")
    assert tof.call("GET", "/apps/web")[0] == 404
    assert left(tof) == []
