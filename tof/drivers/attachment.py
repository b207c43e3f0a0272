"""Which program runs on which device, and in which XDP mode; followed when devices change."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tof.config import S1
from tof.drivers.features import XdpFeatures
from tof.drivers.hooks import CLSACT_EGRESS, Hooks
from tof.drivers.host import Plumbing
from tof.errors import BackendError, SetupError


class Attachment:
    """Puts loaded ``programs`` (name -> descriptor) on the devices of the plumbing.

    ``adopting``: the programs use the maps of those that are attached already; equal ones stay where they are.
    """

    def __init__(
        self, plumbing: Plumbing, s1: S1, hooks: Hooks, programs: Mapping[str, int], *, adopting: bool
    ) -> None:
        self._plumbing, self._s1, self._hooks, self._programs = plumbing, s1, hooks, programs
        self._adopting = adopting
        self.native = False
        self.features = _features()
        """Notifies when ``choose_mode`` may come to another answer; None on older kernels."""

    def attach(self) -> None:
        """Every program on its device, consumers before producers."""
        p, programs = self._plumbing, self._programs
        self._xdp(p.ue_ovs, "tof_nop_jumbo", native=True)
        if self._s1.shared:
            self._attach_neighbour_programs()
        self._hooks.attach_tc(p.app, programs["tof_apps_in"], "tof_apps_in")
        self._hooks.attach_tc(p.app0, programs["tof_apps_out"], "tof_apps_out")
        for side, queue in (("enb", p.queue[0]), ("sgw", p.queue[1])):
            self._xdp(queue.d, f"tof_ret_{side}", native=False)
            self._hooks.attach_tc(queue.d, programs[f"tof_onward_{side}"], f"tof_onward_{side}")
        self.choose_mode(first=True)
        for side, ifindex in self._adapters():
            self._hooks.attach_tc(ifindex, programs[f"tof_slow_{side}"], f"tof_slow_{side}")

    def close(self) -> None:
        """Stop watching; what is attached stays."""
        if self.features is not None:
            self.features.close()

    def _xdp(self, ifindex: int, program: str, *, native: bool) -> None:
        self._hooks.attach_xdp(ifindex, self._programs[program], native=native, adopting=self._adopting)

    def choose_mode(self, *, first: bool = False) -> None:
        """Native where every device that frames are redirected into takes them, else generic."""
        native = self._may_be_native()
        if native == self.native and not first:
            return
        try:
            self._attach_s1(native)
        except BackendError:
            if self._s1.xdp == "native" or not native:
                raise
            self._attach_s1(native=False)

    def _attach_neighbour_programs(self) -> None:
        """With a shared adapter the kernel finds the nodes that nobody heard yet."""
        p, programs = self._plumbing, self._programs
        self._hooks.attach_tc(p.ue, programs["tof_ue_onward"], "tof_ue_onward")
        if p.s1_bare:
            self._hooks.attach_tc(p.enb[0], programs["tof_shared_out"], "tof_shared_out", CLSACT_EGRESS)

    def _may_be_native(self) -> bool:
        if self._s1.xdp == "generic":
            return False
        if self.features is None:
            return self._s1.xdp == "native"  # nobody to ask before Linux 6.3: the operator's word
        targets = (*self._plumbing.enb, *self._plumbing.sgw, self._plumbing.ue)
        refusing = [ifindex for ifindex in targets if not self.features.takes_frames(ifindex)]
        if refusing and self._s1.xdp == "native":
            raise SetupError(
                f's1.xdp: "native", but interface {refusing[0]} takes no redirected frames; use "auto", or turn GRO '
                "on at the far end of a veth"
            )
        return not refusing

    def _attach_s1(self, native: bool) -> None:
        tail = "_jumbo" if native else ""
        self._xdp(self._plumbing.ue, f"tof_ue{tail}", native=native)
        for side, ifindex in self._adapters():
            self._xdp(ifindex, f"tof_s1_{side}{tail}", native=native)
        self.native = native

    def _adapters(self) -> Iterator[tuple[str, int]]:
        """Every S1 adapter with the kind of programs it runs."""
        if self._s1.shared:
            yield "shared", self._plumbing.enb[0]
            return
        yield from (("enb", ifindex) for ifindex in self._plumbing.enb)
        yield from (("sgw", ifindex) for ifindex in self._plumbing.sgw)


def _features() -> XdpFeatures | None:
    try:
        return XdpFeatures()
    except BackendError:
        return None
