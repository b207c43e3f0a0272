"""Laboratory: a tester with two ends and a TOF between them, for ``tof replay --lab`` and ``tof lab play``."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tof.errors import BackendError
from tof.lab.namespaces import Lab
from tof.lab.node import TofNode

WEST, EAST, APPS = "west", "east", "eth0"
EDGE = "192.168.50.10/24"
MTU = 9000
LARGEST_MTU = 65535

_SILENT = ("net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1")


class ReplayLab:
    """A TOF whose S1 adapters lead to ``west`` and ``east`` in the namespace ``netns``; idle at first.

    Its applications' adapter leads to ``APPS`` in the namespace ``edge``.
    """

    def __init__(self, lab: Lab) -> None:
        self.netns = lab.name("tester")
        self.edge = lab.name("edge")
        self.tof = TofNode(lab, "tof")

    @property
    def api(self) -> str:
        """Where the agent answers."""
        return f"unix:{self.tof.socket}"

    async def fresh(self, *, ipv6: bool = False) -> None:
        """A TOF that has seen nothing yet."""
        if self.tof.agent is not None:
            await self.tof.stop()
            gone = await self.tof.tof("down")
            if gone.code:
                raise BackendError(f"tof down: {gone.stderr.strip()[-500:]}")
            shutil.rmtree(self.tof.dir)
        self.tof.configure(ipv6=ipv6)
        await self.tof.start()


@asynccontextmanager
async def replay_lab(largest_frame: int, *edge: str) -> AsyncIterator[ReplayLab]:
    """A lab through which frames of this size fit, its edge at these addresses; nothing of it remains."""
    async with Lab() as lab:
        # The tester's own kernel says nothing: every frame on the wire is a capture's, or the TOF's.
        await lab.namespace("tester", *_SILENT)
        await lab.namespace("tof", "net.ipv6.conf.default.accept_dad=0")
        await lab.namespace("edge", *_SILENT)
        await lab.veth("tester", WEST, "tof", "enb0")
        await lab.veth("tester", EAST, "tof", "sgw0")
        await lab.veth("edge", APPS, "tof", "apps0")
        await lab.address("edge", APPS, *edge)
        mtu = str(min(LARGEST_MTU, max(MTU, largest_frame - 14)))
        for role, device in (("tester", WEST), ("tester", EAST), ("tof", "enb0"), ("tof", "sgw0")):
            await lab.ip(role, "link", "set", device, "mtu", mtu)
        yield ReplayLab(lab)
