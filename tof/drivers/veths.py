"""Veth pairs of the TOF's own: made once, adopted ever after, signed so that they can be told and removed."""

from __future__ import annotations

from tof.drivers import ethtool, sysctl
from tof.drivers.netlink import IFF_UP, Link, Netlink
from tof.drivers.record import Record
from tof.errors import SetupError

# Frames must leave these veths complete: checksums filled in, nothing left to segment (FACTS section 4).
_VETH_OFF = (
    "tx-checksum-",
    "tx-scatter-gather",
    "tx-tcp",
    "tx-udp-seg",
    "tx-gso",
    "tx-generic-seg",
    "rx-gro",
)


class Veths:
    """Makes pairs for one instance; a device called ``speaks`` is the kernel's own voice, the others are mute."""

    def __init__(self, net: Netlink, record: Record, instance: str, speaks: str = "") -> None:
        self._net, self._record, self._instance, self._speaks = net, record, instance, speaks

    def pair(self, first: str, second: str, mtu: int) -> None:
        """Make or adopt a pair, with this MTU."""
        one, other = self._net.link(first), self._net.link(second)
        if one is None or other is None or one.peer != other.index:
            self._record.note_device(first)
            self._record.note_device(second)
            for stale in (first, second):
                self._net.delete(stale)
            self._net.add_veth(first, second, mtu)
        for name in (first, second):
            self.sign(name)
            if name != self._speaks:
                sysctl.write(sysctl.no_ipv6(name), "1")
                # What OVS reads from a port, the kernel behind it sees as well: the gateway alone answers.
                sysctl.write(f"net/ipv4/conf/{name}/arp_ignore", "8")
            link = there(self._net, name)
            if link.mtu != mtu:
                self._net.change(link.index, mtu=mtu)

    def complete(self, name: str) -> None:
        """Have frames leave it as they are to arrive, and set it up."""
        features = ethtool.matching(ethtool.read(name), _VETH_OFF)
        ethtool.write(name, dict.fromkeys(features, False))
        self.raise_(name)

    def sign(self, name: str, more: str = "") -> None:
        """Say in its alias whose it is."""
        link, alias = there(self._net, name), f"tof {self._instance}{more}"
        if not link.alias.startswith(alias):
            self._net.change(link.index, ifalias=alias)

    def raise_(self, name: str) -> None:
        """Set it up."""
        link = there(self._net, name)
        if not link.up:
            self._net.flag(link.index, IFF_UP, on=True)


def there(net: Netlink, name: str) -> Link:
    """The device of that name; SetupError if it has gone."""
    link = net.link(name)
    if link is None:
        raise SetupError(f"{name} vanished while the TOF was being set up; start it again")
    return link
