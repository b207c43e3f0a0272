"""Back-ends behind an API, each with its test server: by name, for tests that hold for all of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from nomad_server import NEW, OLD, NomadServer
from openvim_server import OpenVimServer

from tof.vim.interface import AppSpec
from tof.vim.nomad import NomadVim
from tof.vim.nomad_job import NomadPolicy
from tof.vim.openvim import OpenVim, OpenVimPolicy
from tof.vim.remote import RemoteVim
from tof.vim.rest import Access

KEY = "tof.default.web"
SITE = "edge-7"
THERE = "tof.edge-7.default.web"
"""What KEY is in the VIM."""
IMAGES = (("clickos-firewall", "/var/lib/libvirt/images/clickos_firewall"),)


def nomad_vim(url: str, answer_s: float = 5.0, **policy: Any) -> NomadVim:
    return NomadVim(
        Access(url, answer_s=answer_s), SITE, NomadPolicy(**{"driver": "raw_exec", "wait_s": 0.3} | policy)
    )


def openvim_vim(url: str, answer_s: float = 5.0, **policy: Any) -> OpenVim:
    usual = {"tenant": "mec", "network": "meapp-net", "platform_network": "mep-net", "images": IMAGES}
    return OpenVim(Access(f"{url}/openvim", answer_s=answer_s), SITE, OpenVimPolicy(**usual | policy))


def openvim_server() -> OpenVimServer:
    server = OpenVimServer()
    server.prepared()
    return server


@dataclass(frozen=True)
class BackEnd:
    """``vim`` takes the server's URL and how long an answer may take."""

    server: Callable[[], Any]
    vim: Callable[..., RemoteVim]
    spec: AppSpec

    @asynccontextmanager
    async def running(self) -> AsyncIterator[tuple[Any, str]]:
        server = self.server()
        async with server.running() as url:
            yield server, url


SLEEP = AppSpec("web", command=("/bin/sleep", "600"), networks=("apps",), environment=(("LANG", "C"),))
CLICKOS = AppSpec("web", image="clickos-firewall", networks=("apps",))
BACK_ENDS = {
    f"nomad-{OLD}": BackEnd(lambda: NomadServer(OLD), nomad_vim, SLEEP),
    f"nomad-{NEW}": BackEnd(lambda: NomadServer(NEW), nomad_vim, SLEEP),
    "openvim": BackEnd(openvim_server, openvim_vim, CLICKOS),
}
