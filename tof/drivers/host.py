"""The TOF's plumbing on the host: bridges, veth pairs, adapters; made once, adopted ever after."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_interface

from tof.config import Config, IpInterface, QueueNames
from tof.drivers import adapters, sysctl, teardown, ueroutes
from tof.drivers.netlink import Link, Netlink
from tof.drivers.record import Record
from tof.drivers.veths import Veths, there
from tof.errors import SetupError
from tof.model import GATEWAY_MAC

QUEUE_MTU = 65535
BRIDGE_SYSCTLS = {
    "net/bridge/bridge-nf-call-iptables": "0",
    "net/bridge/bridge-nf-call-ip6tables": "0",
    "net/bridge/bridge-nf-call-arptables": "0",
}


@dataclass(frozen=True, slots=True)
class QueuePlumbing:
    """Interface indexes of one queue's detour."""

    bridge: int
    a: int
    b: int
    c: int
    d: int


@dataclass(frozen=True, slots=True)
class Plumbing:
    """Interface indexes by role (docs/architecture.md, Devices); ``br_s1`` is 0 with a shared adapter.

    ``s1_bare``: the first S1 adapter has no IPv4 address.
    """

    enb: tuple[int, ...]
    sgw: tuple[int, ...]
    br_s1: int
    s1_mtu: int
    apps_mtu: int
    s1_bare: bool
    queue: tuple[QueuePlumbing, QueuePlumbing]
    ue: int
    ue_ovs: int
    hb0: int
    hb1: int
    app: int
    app0: int
    app1: int
    gw0: int
    gw1: int
    pinger0: int
    pinger1: int


class Host:
    """What an instance needs on the host besides Open vSwitch and netfilter rules."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._names = config.names
        self._instance = config.agent.name

    def up(self) -> Plumbing:
        """Make or adopt everything; SetupError when the host cannot carry it, nothing flaps when it does."""
        _load_br_netfilter()
        with Netlink() as net:
            found = adapters.check(net, self._config)
            record = Record(self._config.state.dir, self._instance)
            for link in found.values():
                record.note_adapter(link.name, adapters.before(net, link))
            self._note_sysctls(net, record)
            for path, value in BRIDGE_SYSCTLS.items():
                sysctl.write(path, value)
            self._make_s1(net, record)
            self._make_queues(net, record)
            self._make_ue_side(net, record)
            return self._plumbing(net)

    def down(self) -> list[str]:
        """Remove everything the TOF put on the host and put back what it changed; says what was done."""
        return teardown.down(self._config)

    def _note_sysctls(self, net: Netlink, record: Record) -> None:
        # Another instance changed them first: what that one found is what must come back in the end.
        inherited = adapters.sysctls_of_others(net, self._instance)
        for position, path in enumerate(BRIDGE_SYSCTLS):
            value = inherited[position] if inherited else sysctl.read(path)
            if value is not None:
                record.note_sysctl(path, value)
        for name in adapters.quiet(self._config):
            value = sysctl.read(sysctl.no_ipv6(name))
            if value is not None:
                record.note_sysctl(sysctl.no_ipv6(name), value)

    def _make_s1(self, net: Netlink, record: Record) -> None:
        s1 = self._config.s1
        bridge = None if s1.shared else self._bridge(net, record, self._names.br_s1, queue=False)
        for name in s1.interfaces:
            adapters.prepare_s1(net, name, bridge)
        if bridge:
            self._veths(net, record).raise_(bridge.name)

    def _veths(self, net: Netlink, record: Record) -> Veths:
        return Veths(net, record, self._instance, self._names.gw0)

    def _make_queues(self, net: Netlink, record: Record) -> None:
        veths = self._veths(net, record)
        for queue in self._names.queue:
            bridge = self._bridge(net, record, queue.bridge, queue=True)
            for first, second in ((queue.a, queue.b), (queue.c, queue.d)):
                veths.pair(first, second, QUEUE_MTU)
            for name in (queue.b, queue.c):
                port = there(net, name)
                if port.master != bridge.index:
                    net.change(port.index, master=bridge.index)
                    net.change_port(port.index, {"learning": 0, "unicast_flood": 1})
            for name in (queue.bridge, queue.a, queue.b, queue.c, queue.d):
                veths.raise_(name)
        uses = ",".join((*self._config.s1.interfaces, self._config.ue.app_interface))
        before = ",".join(record.before.sysctls.get(path, "-") for path in BRIDGE_SYSCTLS)
        first, second = (queue.bridge for queue in self._names.queue)
        veths.sign(first, f" {adapters.USES}{uses}")
        veths.sign(second, f" {adapters.SYSCTLS}{before}")

    def _make_ue_side(self, net: Netlink, record: Record) -> None:
        names, apps = self._names, there(net, self._config.ue.app_interface)
        widest = max([apps.mtu, *(there(net, name).mtu for name in self._config.s1.interfaces)])
        pairs = {
            (names.ue, names.ue_ovs): widest,
            (names.hb0, names.hb1): 1500,
            (names.app0, names.app1): apps.mtu,
            (names.gw0, names.gw1): apps.mtu,
            (names.pinger0, names.pinger1): 1500,
        }
        if self._config.mirror.dir is not None:
            pairs[names.mirror0, names.mirror1] = widest
        veths = self._veths(net, record)
        for (first, second), mtu in pairs.items():
            veths.pair(first, second, mtu)
        self._make_gateway(net)
        for pair in pairs:
            for name in pair:
                veths.complete(name)
        self._route_to_ues(net)
        adapters.prepare_apps(net, apps.name)

    def _route_to_ues(self, net: Netlink) -> None:
        index = there(net, self._names.gw0).index
        ueroutes.put(self._instance, index, self._config.dns.listen, self._config.ue.app_address)

    def _make_gateway(self, net: Netlink) -> None:
        link, wanted = there(net, self._names.gw0), set(self._config.ue.app_address)
        wanted |= {ip_interface(address) for address in self._config.dns.listen}
        mac = GATEWAY_MAC.hex(":")
        if link.mac != mac:
            net.change(link.index, address=mac)
        conf = f"net/ipv4/conf/{link.name}"
        # Apps must not reach the host's other addresses through this adapter.
        sysctl.write(f"{conf}/arp_ignore", "1")
        sysctl.write(f"{conf}/arp_announce", "2")
        for setting in ("accept_ra", "accept_dad", "autoconf"):
            sysctl.write(f"net/ipv6/conf/{link.name}/{setting}", "0")
        speaks_ipv6 = any(address.version == 6 for address in wanted)
        sysctl.write(sysctl.no_ipv6(link.name), "0" if speaks_ipv6 else "1")
        have = net.addresses(link.index)
        _settle(net, link.index, have, wanted)

    def _bridge(self, net: Netlink, record: Record, name: str, *, queue: bool) -> Link:
        link = net.link(name)
        if link is None:
            record.note_device(name)
            net.add_bridge(name, queue=queue)
        self._veths(net, record).sign(name)
        sysctl.write(sysctl.no_ipv6(name), "1")
        return there(net, name)

    def _plumbing(self, net: Netlink) -> Plumbing:
        index = {link.name: link.index for link in net.links()}
        names, s1 = self._names, self._config.s1
        first, second = (_queue(index, queue) for queue in names.queue)
        return Plumbing(
            enb=tuple(index[name] for name in s1.enb_interfaces),
            sgw=tuple(index[name] for name in s1.sgw_interfaces),
            br_s1=0 if s1.shared else index[names.br_s1],
            s1_bare=not any(one.version == 4 for one in net.addresses(index[s1.enb_interfaces[0]])),
            apps_mtu=there(net, self._config.ue.app_interface).mtu,
            s1_mtu=min(there(net, name).mtu for name in s1.interfaces),
            queue=(first, second),
            ue=index[names.ue],
            ue_ovs=index[names.ue_ovs],
            hb0=index[names.hb0],
            hb1=index[names.hb1],
            app=index[self._config.ue.app_interface],
            app0=index[names.app0],
            app1=index[names.app1],
            gw0=index[names.gw0],
            gw1=index[names.gw1],
            pinger0=index[names.pinger0],
            pinger1=index[names.pinger1],
        )


def _queue(index: dict[str, int], queue: QueueNames) -> QueuePlumbing:
    return QueuePlumbing(*(index[name] for name in (queue.bridge, queue.a, queue.b, queue.c, queue.d)))


def _settle(net: Netlink, index: int, have: Iterable[IpInterface], wanted: Iterable[IpInterface]) -> None:
    for address in set(have) - set(wanted):
        net.drop_address(index, address)
    for address in set(wanted) - set(have):
        net.add_address(index, address)


def _load_br_netfilter() -> None:
    if sysctl.read("net/bridge/bridge-nf-call-iptables") is None:
        # A module on stock kernels, loaded by nothing until someone asks.
        subprocess.run(["modprobe", "br_netfilter"], check=False, capture_output=True)
    if sysctl.read("net/bridge/bridge-nf-call-iptables") is None:
        raise SetupError("the kernel has no br_netfilter: load it (modprobe br_netfilter), see `tof doctor`")
