"""Gives the operator's adapters back as they were found."""

from __future__ import annotations

from tof.drivers import ethtool, sysctl
from tof.drivers.netlink import IFF_PROMISC, IFF_UP, Link, Netlink
from tof.drivers.record import AdapterBefore, Record


def detach(net: Netlink, name: str, before: AdapterBefore | None) -> bool:
    """Take the TOF's programs off an adapter; whether XDP was among them."""
    link = net.link(name)
    if link is None:
        return False
    if link.xdp:
        net.detach_xdp(link.index)
    if before and before.clsact:
        net.drop_filters(link.index, "tof_")
    elif net.has_clsact(link.index):
        net.drop_clsact(link.index)
    return link.xdp


def restore(net: Netlink, record: Record, name: str) -> str:
    """Give back an adapter that the record has; what was done."""
    link, before = net.link(name), record.before.adapters[name]
    if link is None:
        return f"{name} is gone, nothing to put back"
    if not before.up and link.up:
        net.flag(link.index, IFF_UP, on=False)
    value = record.before.sysctls.get(sysctl.no_ipv6(name))
    if value is not None:
        sysctl.write(sysctl.no_ipv6(name), value)
    if link.mtu != before.mtu:
        net.change(link.index, mtu=before.mtu)
    lost = _restore_master(net, link, before)
    if link.promisc != before.promisc:
        net.flag(link.index, IFF_PROMISC, on=before.promisc)
    if before.up and not link.up:
        net.flag(link.index, IFF_UP, on=True)
    ethtool.write(name, before.features)
    return f"put {name} back as it was" + (f", but {lost}, which it was in, is gone" if lost else "")


def _restore_master(net: Netlink, link: Link, before: AdapterBefore) -> str:
    """Back into the bridge where it was; the name of that if it is gone."""
    bridge = net.link(before.master) if before.master else None
    current, wanted = link.master or 0, bridge.index if bridge else 0
    if current != wanted:
        net.change(link.index, master=wanted)
    if bridge and before.port:
        net.change_port(link.index, before.port)
    return before.master if before.master and bridge is None else ""
