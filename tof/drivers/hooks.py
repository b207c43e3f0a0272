"""Attaching BPF programs to devices: XDP by netlink, clsact by tc; replaced in place, never off in between."""

from __future__ import annotations

import errno

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from tof.drivers.libbpf import program_tag, program_tag_of
from tof.errors import BackendError

SKB_MODE, DRIVER_MODE = 1 << 1, 1 << 2
CLSACT_INGRESS, CLSACT_EGRESS = 0xFFFFFFF2, 0xFFFFFFF3
PRIORITY = 0x70F


class Hooks:
    """Programs on devices, by interface index."""

    def __init__(self) -> None:
        self._ip = IPRoute()

    def close(self) -> None:
        """Close the netlink socket; what is attached stays."""
        self._ip.close()

    def mac(self, ifindex: int) -> bytes:
        """The device's MAC address."""
        return bytes.fromhex(
            next(iter(self._ip.get_links(ifindex))).get_attr("IFLA_ADDRESS").replace(":", "")
        )

    def xdp_programs(self, ifindex: int) -> tuple[int, int]:
        """Ids of the device's native and generic XDP program, 0 where there is none."""
        links = list(self._ip.get_links(ifindex))
        xdp = links[0].get_attr("IFLA_XDP") if links else None
        if xdp is None:
            return 0, 0
        native, generic = (
            xdp.get_attr(name) or 0 for name in ("IFLA_XDP_DRV_PROG_ID", "IFLA_XDP_SKB_PROG_ID")
        )
        mode, single = xdp.get_attr("IFLA_XDP_ATTACHED"), xdp.get_attr("IFLA_XDP_PROG_ID") or 0
        if mode == 1:
            native = single
        elif mode == 2:
            generic = single
        return native, generic

    def attach_xdp(self, ifindex: int, fd: int, *, native: bool, adopting: bool = False) -> None:
        """Attach in the wanted mode and detach what the other mode had; BackendError if the driver refuses.

        ``adopting``: an equal program that is attached already uses the same maps and stays. Each change of a device
        makes Open vSwitch look at all its devices anew, which holds its traffic up.
        """
        mine, other = self.xdp_programs(ifindex)[:: 1 if native else -1]
        if adopting and mine and program_tag_of(mine) == program_tag(fd):
            return
        if other:
            # The kernel has one mode at a time; the bridge carries traffic for the instant between.
            self._set_xdp(ifindex, -1, SKB_MODE if native else DRIVER_MODE)
        self._set_xdp(ifindex, fd, DRIVER_MODE if native else SKB_MODE)

    def detach_xdp(self, ifindex: int) -> None:
        """Detach whatever XDP program the device has."""
        native, generic = self.xdp_programs(ifindex)
        if native:
            self._set_xdp(ifindex, -1, DRIVER_MODE)
        if generic:
            self._set_xdp(ifindex, -1, SKB_MODE)

    def _add_clsact(self, ifindex: int) -> None:
        """Unless it is there: to ask, the kernel would list those of all devices."""
        try:
            self._ip.tc("add", "clsact", index=ifindex)
        except NetlinkError as error:
            if error.code != errno.EEXIST:
                raise

    def _set_xdp(self, ifindex: int, fd: int, flags: int) -> None:
        try:
            attributes = [("IFLA_XDP_FD", fd), ("IFLA_XDP_FLAGS", flags)]
            self._ip.link("set", index=ifindex, xdp={"attrs": attributes})
        except NetlinkError as error:
            raise BackendError(f"XDP on interface {ifindex}: {error.args[-1]}") from error

    def attach_tc(self, ifindex: int, fd: int, name: str, parent: int = CLSACT_INGRESS) -> None:
        """Attach a direct-action classifier to the device, in the place of an older one of ours."""
        try:
            self._add_clsact(ifindex)
            self._ip.tc(
                "replace-filter", "bpf", index=ifindex, fd=fd, name=name, parent=parent,
                prio=PRIORITY, handle=1, direct_action=True, classid=1,
            )  # fmt: skip
        except NetlinkError as error:
            raise BackendError(f"tc on interface {ifindex}: {error.args[-1]}") from error
