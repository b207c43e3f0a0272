"""Links, bridges, addresses and queueing disciplines through rtnetlink, typed."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_interface
from types import TracebackType
from typing import Any, Self

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from tof.config import IpInterface
from tof.drivers.qdiscs import has_clsact
from tof.errors import BackendError

IFF_UP = 0x1
IFF_PROMISC = 0x100
_XDP_FLAGS_SKB_MODE, _XDP_FLAGS_DRV_MODE = 0x2, 0x4
_ABSENT = (errno.ENODEV, errno.ENOENT)
# What an operator can set on a bridge's port.
_PORT_SETTINGS = (
    *("priority", "cost", "mode", "guard", "protect", "fast_leave", "learning", "unicast_flood"),
    *("mcast_flood", "bcast_flood", "proxyarp", "proxyarp_wifi", "mcast_to_ucast", "vlan_tunnel"),
    *("group_fwd_mask", "neigh_suppress", "isolated", "locked", "mab", "multicast_router"),
)


@dataclass(frozen=True, slots=True)
class Link:
    """A network device as the kernel shows it; ``master`` is the index of its bridge, if any."""

    index: int
    name: str
    kind: str
    mac: str
    mtu: int
    flags: int
    master: int | None
    alias: str
    xdp: bool
    port: Mapping[str, int]
    peer: int | None

    @property
    def up(self) -> bool:
        """Administratively up."""
        return bool(self.flags & IFF_UP)

    @property
    def promisc(self) -> bool:
        """Set to promiscuous mode by an operator (a bridge's own doing does not show here)."""
        return bool(self.flags & IFF_PROMISC)


class Netlink:
    """One rtnetlink socket in the caller's network namespace; raises BackendError when the kernel refuses."""

    def __init__(self) -> None:
        self._ip = IPRoute()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ip.close()

    def links(self) -> tuple[Link, ...]:
        """Every device of the namespace."""
        with _asking("list links"):
            return tuple(_link(message) for message in self._ip.get_links())

    def link(self, name: str) -> Link | None:
        """The device of that name, or None."""
        with contextlib.suppress(_AbsentError), _asking(f"look up {name}"):
            return _link(self._ip.link("get", ifname=name)[0])
        return None

    def add_bridge(self, name: str, *, queue: bool) -> None:
        """Create a plain bridge, down; ``queue``: its frames meet iptables."""
        with _asking(f"create bridge {name}"):
            self._ip.link(
                "add",
                ifname=name,
                kind="bridge",
                br_stp_state=0,
                br_mcast_snooping=0,
                br_nf_call_iptables=int(queue),
                br_nf_call_ip6tables=0,
                br_nf_call_arptables=0,
            )

    def add_veth(self, name: str, peer: str, mtu: int, mac: str | None = None) -> None:
        """Create a pair of virtual adapters, both down; ``mac`` is the first one's."""
        own = {"address": mac} if mac else {}
        with _asking(f"create {name} and {peer}"):
            self._ip.link("add", ifname=name, kind="veth", mtu=mtu, peer={"ifname": peer, "mtu": mtu}, **own)

    def change(self, index: int, **settings: Any) -> None:
        """Change a device: ``mtu``, ``master`` (0: none), ``ifalias``, ``address``."""
        with _asking(f"change device {index}: {settings}"):
            self._ip.link("set", index=index, **settings)

    def flag(self, index: int, mask: int, *, on: bool) -> None:
        """Set or clear flags such as IFF_UP."""
        with _asking(f"change flags of device {index}"):
            self._ip.link("set", index=index, flags=mask if on else 0, mask=mask)

    def change_port(self, index: int, settings: Mapping[str, int]) -> None:
        """Change settings of a bridge's port, named as in Link.port."""
        with _asking(f"change bridge port {index}"):
            self._ip.brport("set", index=index, **settings)

    def delete(self, name: str) -> bool:
        """Delete a device; False when there was none."""
        with contextlib.suppress(_AbsentError), _asking(f"delete {name}"):
            self._ip.link("del", ifname=name)
            return True
        return False

    def addresses(self, index: int) -> frozenset[IpInterface]:
        """The device's IP addresses, IPv6 link-local ones excepted (the kernel gives those itself)."""
        with _asking(f"list addresses of device {index}"):
            found = [
                ip_interface(f"{_own_address(message)}/{message['prefixlen']}")
                for message in self._ip.get_addr(index=index)
            ]
        return frozenset(one for one in found if one.version == 4 or not one.is_link_local)

    def add_address(self, index: int, address: IpInterface) -> None:
        """Give a device an address."""
        with _asking(f"add {address} to device {index}"):
            self._ip.addr("add", index=index, address=str(address.ip), prefixlen=address.network.prefixlen)

    def drop_address(self, index: int, address: IpInterface) -> None:
        """Take an address from a device."""
        with _asking(f"remove {address} from device {index}"):
            self._ip.addr("del", index=index, address=str(address.ip), prefixlen=address.network.prefixlen)

    def has_clsact(self, index: int) -> bool:
        """Whether the device has a clsact (or ingress) discipline."""
        return has_clsact(index)

    def drop_clsact(self, index: int) -> None:
        """Remove the clsact discipline and all its filters, if there."""
        with contextlib.suppress(_AbsentError), _asking(f"remove clsact of device {index}"):
            self._ip.tc("del", "clsact", index)

    def drop_filters(self, index: int, prefix: str) -> None:
        """Remove the clsact filters whose BPF program's name begins with ``prefix``, no others."""
        for parent in (0xFFFFFFF2, 0xFFFFFFF3):
            with contextlib.suppress(_AbsentError), _asking(f"remove filters of device {index}"):
                for message in list(self._ip.get_filters(index=index, parent=parent)):
                    self._drop_filter(index, parent, message, prefix)

    def _drop_filter(self, index: int, parent: int, message: Any, prefix: str) -> None:
        options = message.get_attr("TCA_OPTIONS")
        name = options.get_attr("TCA_BPF_NAME") if message.get_attr("TCA_KIND") == "bpf" and options else None
        if name and name.startswith(prefix):
            self._ip.tc(
                "del-filter", "bpf", index, handle=message["handle"], parent=parent, info=message["info"]
            )

    def detach_xdp(self, index: int) -> None:
        """Detach whatever XDP programs the device has."""
        for mode in (_XDP_FLAGS_SKB_MODE, _XDP_FLAGS_DRV_MODE):
            # A driver without native XDP refuses the second; nothing can be attached there then.
            with contextlib.suppress(BackendError), _asking(f"detach XDP from device {index}"):
                detach = [("IFLA_XDP_FD", -1), ("IFLA_XDP_FLAGS", mode)]
                self._ip.link("set", index=index, xdp={"attrs": detach})


class _AbsentError(BackendError):
    """The device is not there (any more)."""


@contextlib.contextmanager
def _asking(what: str) -> Iterator[None]:
    try:
        yield
    except NetlinkError as error:
        kind = _AbsentError if error.code in _ABSENT else BackendError
        raise kind(f"cannot {what}: {error.args[-1]}") from error
    except OSError as error:
        raise BackendError(f"cannot {what}: {error.strerror}") from error


def _own_address(message: Any) -> str:
    return str(message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS"))


def _link(message: Any) -> Link:
    info = message.get_attr("IFLA_LINKINFO")
    xdp = message.get_attr("IFLA_XDP")
    return Link(
        index=message["index"],
        name=message.get_attr("IFLA_IFNAME"),
        kind=(info.get_attr("IFLA_INFO_KIND") if info else None) or "",
        mac=message.get_attr("IFLA_ADDRESS") or "",
        mtu=message.get_attr("IFLA_MTU"),
        flags=message["flags"],
        master=message.get_attr("IFLA_MASTER") or None,
        alias=message.get_attr("IFLA_IFALIAS") or "",
        xdp=bool(xdp and xdp.get_attr("IFLA_XDP_ATTACHED")),
        port=_port(info),
        peer=message.get_attr("IFLA_LINK") or None,
    )


def _port(info: Any) -> dict[str, int]:
    if not info or info.get_attr("IFLA_INFO_SLAVE_KIND") != "bridge":
        return {}
    data = info.get_attr("IFLA_INFO_SLAVE_DATA")
    values = {name: data.get_attr(f"IFLA_BRPORT_{name.upper()}") for name in _PORT_SETTINGS}
    return {name: value for name, value in values.items() if value is not None}
