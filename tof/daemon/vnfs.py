"""Watches the VNFs and tells the agent which of them live."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable

import structlog

from tof.agent.events import VnfSeen
from tof.config import Vnf
from tof.drivers.vnf_ports import ETHERNET_BYTES, NSH_BYTES, Passage, indices, is_up, mtu
from tof.errors import BackendError
from tof.model import MarkKind

log = structlog.get_logger("tof.vnfs")


class VnfWatch:
    """One task a VNF.

    A link that is down is seen within ``interval_s``, frames that do not come out within ``fall`` times two of that.
    ``beyond`` is the interface of the applications: what that takes, VNFs have to take.
    """

    def __init__(
        self,
        vnfs: Iterable[Vnf],
        tell: Callable[[VnfSeen], object],
        add_anew: Callable[[str], Awaitable[None]],
        beyond: str,
    ) -> None:
        self._vnfs, self._tell, self._add_anew, self._beyond = tuple(vnfs), tell, add_anew, beyond
        self._indices: dict[str, tuple[int, ...]] = {}
        self._why = {vnf.name: "nobody has looked at it yet" for vnf in self._vnfs}

    @property
    def dead(self) -> dict[str, str]:
        """The VNFs that are dead, and why."""
        return dict(self._why)

    @property
    def narrow(self) -> dict[str, str]:
        """The VNFs that live, and do not take every packet; why."""
        tight = {vnf.name: self._tight(vnf) for vnf in self._vnfs if vnf.name not in self._why}
        return {name: why for name, why in tight.items() if why}

    def look(self) -> None:
        """A first look, at the links alone: what a former agent sent through goes on until frames say otherwise."""
        for vnf in self._vnfs:
            why = self._unfit(vnf)
            if not why:
                self._indices[vnf.name] = indices(vnf.ingress, vnf.egress)
            self._note(vnf, why)

    async def run(self) -> None:
        """Look for ever."""
        async with asyncio.TaskGroup() as group:
            for vnf in self._vnfs:
                group.create_task(self._watch(vnf), name=f"vnf {vnf.name}")

    async def _watch(self, vnf: Vnf) -> None:
        misses = 0
        while True:
            why = self._unfit(vnf) or await self._renewed(vnf)
            if not why and vnf.health == "frames":
                passed = await self._passes(vnf)
                misses = 0 if passed else misses + 1
                lives = passed or (vnf.name not in self._why and misses < vnf.fall)
                why = "" if lives else f"{misses} frames in a row have not come through"
            self._note(vnf, why)
            await asyncio.sleep(vnf.interval_s)

    async def _renewed(self, vnf: Vnf) -> str:
        """Give Open vSwitch interfaces that are not those of before; why that was not possible."""
        try:
            found = indices(vnf.ingress, vnf.egress)
            if self._indices.get(vnf.name) != found:
                await self._add_anew(vnf.name)
                self._indices[vnf.name] = found
        except BackendError as error:
            return str(error)
        return ""

    async def _passes(self, vnf: Vnf) -> bool:
        try:
            passage = Passage(vnf.ingress, vnf.egress)
            try:
                # Where there has to be room for NSH, what is sent through takes it.
                size = self._needed(vnf) + ETHERNET_BYTES if MarkKind.NSH in vnf.speaks else 60
                return await passage.passes(vnf.interval_s, size)
            finally:
                passage.close()
        except BackendError:
            return False

    def _unfit(self, vnf: Vnf) -> str:
        """Why it is given nothing: without a link, or without room for NSH, in which every full packet would be lost."""
        return self._down(vnf) or (self._tight(vnf) if MarkKind.NSH in vnf.speaks else "")

    def _tight(self, vnf: Vnf) -> str:
        sizes = {device: mtu(device) for device in (vnf.ingress, vnf.egress)}
        tight = [f"{device}: MTU {size}" for device, size in sizes.items() if size < self._needed(vnf)]
        return f"{' and '.join(tight)}, less than {self._needed(vnf)}" if tight else ""

    def _needed(self, vnf: Vnf) -> int:
        return mtu(self._beyond) + (NSH_BYTES if MarkKind.NSH in vnf.speaks else 0)

    @staticmethod
    def _down(vnf: Vnf) -> str:
        down = [device for device in (vnf.ingress, vnf.egress) if not is_up(device)]
        return f"{' and '.join(down)}: no link" if down else ""

    def _note(self, vnf: Vnf, why: str) -> None:
        if bool(why) != (vnf.name in self._why):
            what = "a VNF is dead" if why else "a VNF lives"
            log.info(what, vnf=vnf.name, why=why)
        self._why.pop(vnf.name, None)
        if why:
            self._why[vnf.name] = why
        self._tell(VnfSeen(vnf.name, not why))
