"""The operator's own adapters: whether the TOF may take them, how they were, what the TOF sets on them."""

from __future__ import annotations

from tof.config import Config
from tof.drivers import ethtool, sysctl
from tof.drivers.netlink import IFF_PROMISC, IFF_UP, Link, Netlink
from tof.drivers.record import AdapterBefore
from tof.errors import SetupError

USES = "uses:"
SYSCTLS = "sysctls:"
# The TOF must see wire packets, tags included, and completes partial checksums on the way out.
_S1_OFF = ("rx-gro", "rx-lro", "rx-udp-gro", "rx-vlan-hw-parse", "rx-vlan-stag-hw", "tx-checksum-")
_S1_TSO = ("tx-tcp", "tx-udp-seg", "tx-gso")
_APPS_OFF = ("rx-lro", "rx-gro-hw")


def quiet(config: Config) -> tuple[str, ...]:
    """The adapters on which the host itself must not speak IPv6."""
    s1 = () if config.s1.shared else config.s1.interfaces
    return (*s1, config.ue.app_interface)


def check(net: Netlink, config: Config) -> dict[str, Link]:
    """The configured adapters; SetupError when one is missing, in use, or a name is taken."""
    links = {link.name: link for link in net.links()}
    _check_own_names(links, config)
    found = {}
    for key, name in _keyed(config):
        if name not in links:
            raise SetupError(f"{key}: there is no adapter {name} here; `ip link` lists those there are")
        found[name] = links[name]
        check_usable(net, links, key, name, config)
    return found


def check_usable(net: Netlink, links: dict[str, Link], key: str, name: str, config: Config) -> None:
    """SetupError if an adapter is in use, or carries an address."""
    _check_free(links, key, name, config)
    _check_bare(net, links[name], key, config)


def before(net: Netlink, link: Link) -> AdapterBefore:
    """How an adapter is now."""
    masters = {other.index: other.name for other in net.links()} if link.master else {}
    features = ethtool.read(link.name)
    return AdapterBefore(
        up=link.up,
        promisc=link.promisc,
        mtu=link.mtu,
        alias=link.alias,
        master=masters.get(link.master or 0, ""),
        port=dict(link.port),
        features={name: one.wanted for name, one in features.items() if one.changeable},
        clsact=net.has_clsact(link.index),
    )


def prepare_s1(net: Netlink, name: str, bridge: Link | None) -> None:
    """Make an S1 adapter ready, and a port of ``bridge`` if there is one."""
    link = _link(net, name)
    off = ethtool.matching(ethtool.read(name), (*_S1_OFF, *_S1_TSO))
    ethtool.write(name, dict.fromkeys(off, False))
    if bridge:
        sysctl.write(sysctl.no_ipv6(name), "1")
        if link.master != bridge.index:
            net.change(link.index, master=bridge.index)
    elif link.master:
        net.change(link.index, master=0)
    if not link.up:
        net.flag(link.index, IFF_UP, on=True)


def prepare_apps(net: Netlink, name: str) -> None:
    """Make the apps adapter ready: no bridge, promiscuous, silent."""
    link = _link(net, name)
    ethtool.write(name, dict.fromkeys(ethtool.matching(ethtool.read(name), _APPS_OFF), False))
    sysctl.write(sysctl.no_ipv6(name), "1")
    if link.master:
        net.change(link.index, master=0)
    if not link.promisc:
        net.flag(link.index, IFF_PROMISC, on=True)
    if not link.up:
        net.flag(link.index, IFF_UP, on=True)


def sysctls_of_others(net: Netlink, instance: str) -> list[str] | None:
    """What another running instance in this namespace found in the bridge sysctls, if there is one."""
    for link in net.links():
        words = link.alias.split()
        if words[:1] == ["tof"] and words[1:2] != [instance] and words[-1].startswith(SYSCTLS):
            return words[-1].removeprefix(SYSCTLS).split(",")
    return None


def owner(link: Link) -> str:
    """The instance that made a device, or nothing."""
    words = link.alias.split()
    return words[1] if len(words) > 1 and words[0] == "tof" else ""


def _keyed(config: Config) -> list[tuple[str, str]]:
    keyed = [("s1.enb_interface", name) for name in config.s1.enb_interfaces]
    keyed += [("s1.sgw_interface", name) for name in config.s1.sgw_interfaces]
    return [*keyed, ("ue.app_interface", config.ue.app_interface)]


def _check_own_names(links: dict[str, Link], config: Config) -> None:
    for name in sorted(config.names.devices & set(links)):
        # Open vSwitch makes br-ue; a device without alias may be ours from a start that was cut short.
        mine = owner(links[name]) == config.agent.name or name == config.names.br_ue
        if not mine and (links[name].alias or links[name].up):
            raise SetupError(f"a device {name} exists that is not the TOF's: rename or remove it")


def _check_free(links: dict[str, Link], key: str, name: str, config: Config) -> None:
    master = next((link for link in links.values() if link.index == links[name].master), None)
    taken = owner(master) if master else ""
    for link in links.values():
        used = link.alias.partition(USES)[2].split(",")
        if owner(link) and name in used:
            taken = taken or owner(link)
    if taken and taken != config.agent.name:
        raise SetupError(f"{key}: {name} is in use by the TOF instance {taken}; choose another adapter")
    if taken != config.agent.name and links[name].xdp:
        raise SetupError(f"{key}: {name} runs an XDP program already; detach it (ip link set {name} xdp off)")


def _check_bare(net: Netlink, link: Link, key: str, config: Config) -> None:
    if config.s1.shared and link.name in config.s1.interfaces:
        return
    for address in sorted(net.addresses(link.index), key=str):
        raise SetupError(
            f"{key}: {link.name} carries the address {address}; the TOF takes the whole adapter, "
            f"so move the address elsewhere (ip address del {address} dev {link.name})"
        )


def _link(net: Netlink, name: str) -> Link:
    link = net.link(name)
    if link is None:
        raise SetupError(f"{name} vanished while the TOF was being set up; start it again")
    return link
