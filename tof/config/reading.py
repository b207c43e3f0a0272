"""TOML text becomes a Config, or a SetupError with the path of what is wrong."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from ipaddress import ip_address, ip_interface
from pathlib import Path

from tof.config.applications import checked_application, read_applications
from tof.config.fields import (
    Table,
    choice,
    collector,
    directory,
    host_interface,
    interface,
    listed,
    listen,
    maybe,
    network,
    number,
    optional,
    ovs,
    pattern,
    refuse,
    several,
    unicast,
    whole,
)
from tof.config.settings import (
    S1,
    Accounting,
    Agent,
    Api,
    AppLcm,
    Collector,
    Config,
    Dns,
    IpNetwork,
    Log,
    Mirror,
    Pinger,
    State,
    TcpListen,
    Tunnels,
    Ue,
    UnixListen,
    Vnf,
)
from tof.config.vims import read_vims
from tof.errors import SetupError


def load(path: str | Path) -> Config:
    """Read and check a configuration file; SetupError says what is wrong and where."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise SetupError(f"{path}: {error.strerror or error}") from error
    except ValueError as error:
        raise SetupError(f"{path}: not a UTF-8 text file") from error
    try:
        return parse(text)
    except SetupError as error:
        raise SetupError(f"{path}: {error}") from error


def parse(text: str) -> Config:
    """Check a configuration text; SetupError names the culprit by its path (``s1.sgw[1]: ...``)."""
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise SetupError(f"not TOML: {error}") from error
    root = Table("", document)
    agent, s1, ue = _agent(root), _s1(root), _ue(root)
    pinger, tunnels, state = _pinger(root), _tunnels(root), _state(root)
    config = Config(
        agent, s1, ue, pinger, _dns(root, ue), tunnels, _api(root, state), state, _log(root), _vnfs(root),
        _accounting(root), _mirror(root), read_applications(root), read_vims(root, ue),
        _app_lcm(root),
    )  # fmt: skip
    root.done()
    _check_interfaces(config)
    _check_vnfs(config)
    for application in config.applications:
        checked_application(application, config, config.applications)
    return config


def _agent(root: Table) -> Agent:
    table = root.table("agent")
    agent = Agent(
        table.take("name", pattern(r"[a-z0-9-]{1,7}", "1 to 7 of a-z, 0-9 and -"), "default"),
        table.take("queue_base", whole(0, 65534), 0),
    )
    table.done()
    return agent


def _app_lcm(root: Table) -> AppLcm:
    table = root.table("app_lcm")
    read = AppLcm(table.take("callbacks", listed(network), AppLcm().callbacks))
    table.done()
    return read


def _s1(root: Table) -> S1:
    table = root.table("s1")
    s1 = S1(
        table.take("enb_interface", several(interface)),
        table.take("sgw_interface", several(interface)),
        table.take("enb", listed(network), ()),
        table.take("sgw", listed(network), ()),
        table.take("xdp", choice("auto", "native", "generic"), "auto"),
    )
    table.done()
    _check_sides(s1)
    return s1


def _ue(root: Table) -> Ue:
    table = root.table("ue")
    ue = Ue(
        app_interface=table.take("app_interface", interface),
        app_address=table.take("app_address", several(host_interface), (ip_interface("192.168.50.1/24"),)),
        app_gateway=table.take("app_gateway", optional(several(unicast)), ()),
        ovs=table.take("ovs", ovs, "private"),
    )
    table.done()
    _one_per_family("ue.app_address", [address.version for address in ue.app_address])
    _one_per_family("ue.app_gateway", [address.version for address in ue.app_gateway])
    for gateway in ue.app_gateway:
        if not any(gateway in own.network and gateway != own.ip for own in ue.app_address):
            refuse("ue.app_gateway", f"{gateway} is not a neighbour in the network of ue.app_address")
    return ue


def _pinger(root: Table) -> Pinger:
    table = root.table("pinger")
    default = (ip_address("8.8.8.8"), ip_address("2001:4860:4860::8888"))
    pinger = Pinger(
        table.take("target", several(unicast), default),
        table.take("interval_s", number(0.05, 3600), 1.0),
        table.take("attempts", whole(1, 1000), 5),
    )
    table.done()
    return pinger


def _dns(root: Table, ue: Ue) -> Dns:
    table = root.table("dns")
    dns = Dns(
        table.take("resolvers", listed(network), ()),
        table.take("least_hold_s", number(0, 86_400), 60.0),
        table.take("most_hold_s", number(1, 604_800), 3600.0),
        table.take("idle_s", number(0, 86_400), 300.0),
        table.take("server", choice("off", "unbound"), "off"),
        table.take("listen", listed(unicast), ()),
        table.take("divert", listed(unicast), ()),
        table.take("upstream", listed(unicast), ()),
    )
    table.done()
    _check_dns_server(dns, ue)
    if dns.least_hold_s > dns.most_hold_s:
        refuse("dns.least_hold_s", f"{dns.least_hold_s:g} is more than dns.most_hold_s, {dns.most_hold_s:g}")
    return dns


MOST_VNFS = 64


def _vnfs(root: Table) -> tuple[Vnf, ...]:
    table = root.table("vnfs")
    vnfs = []
    for name in table.keys:
        if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,30}", name):
            refuse(f"vnfs.{name}", "a name is 1 to 31 of a-z, 0-9 and -")
        one = table.table(name)
        vnfs.append(
            Vnf(
                name,
                one.take("ingress", interface),
                one.take("egress", interface),
                one.take("health", choice("port", "frames"), "port"),
                one.take("interval_s", number(0.05, 60), 0.2),
                one.take("fall", whole(1, 100), 3),
                one.take("speaks", optional(listed(choice("vlan", "dscp", "nsh"))), ("vlan",)),
            )
        )
        one.done()
    if len(vnfs) > MOST_VNFS:
        refuse("vnfs", f"{len(vnfs)} of them; {MOST_VNFS} at most")
    return tuple(sorted(vnfs, key=lambda vnf: vnf.name))


def _tunnels(root: Table) -> Tunnels:
    table = root.table("tunnels")
    tunnels = Tunnels(
        table.take("idle_timeout_s", number(0.1, 31_536_000), 300.0),
        table.take("max", whole(1, 16_000_000), 1_000_000),
    )
    table.done()
    return tunnels


def _state(root: Table) -> State:
    table = root.table("state")
    state = State(
        table.take("dir", directory, Path("/var/lib/tof")),
        table.take("run_dir", directory, Path("/run/tof")),
    )
    table.done()
    return state


def _api(root: Table, state: State) -> Api:
    table = root.table("api")
    default = (UnixListen(str(state.run_dir / "api.sock")), TcpListen("127.0.0.1", 8080))
    api = Api(table.take("listen", several(listen), default))
    table.done()
    return api


def _log(root: Table) -> Log:
    table = root.table("log")
    log = Log(
        table.take("level", choice("debug", "info", "warning", "error"), "info"),
        table.take("format", choice("text", "json"), "text"),
    )
    table.done()
    return log


def _check_dns_server(dns: Dns, ue: Ue) -> None:
    for key in ("listen", "divert", "upstream"):
        if dns.server == "off" and getattr(dns, key):
            refuse(f"dns.{key}", "dns.server is off")
    if dns.server == "off":
        return
    for key in ("listen", "upstream"):
        if not getattr(dns, key):
            refuse(f"dns.{key}", f"required, because dns.server is {dns.server}")
    _one_per_family("dns.listen", [address.version for address in dns.listen])
    for address in dns.listen:
        if not any(address in own.network and address != own.ip for own in ue.app_address):
            refuse("dns.listen", f"{address} is not another address in the network of ue.app_address")
    for index, address in enumerate(dns.divert):
        if address.version not in {own.version for own in dns.listen}:
            refuse(f"dns.divert[{index}]", f"{address} is of a family that dns.listen has no address of")


def _accounting(root: Table) -> Accounting:
    table = root.table("accounting")
    file: tuple[Path, ...] = table.take("file", maybe(directory), ())
    ipfix: tuple[Collector, ...] = table.take("ipfix", maybe(collector), ())
    accounting = Accounting(
        file=next(iter(file), None),
        file_max_mb=table.take("file_max_mb", whole(1, 1_000_000), 100),
        files=table.take("files", whole(1, 1000), 5),
        ipfix=next(iter(ipfix), None),
        interval_s=table.take("interval_s", number(0.1, 86_400), 60.0),
        max_accounts=table.take("max_accounts", whole(1, 16_000_000), 262_144),
    )
    table.done()
    return accounting


def _mirror(root: Table) -> Mirror:
    table = root.table("mirror")
    directories: tuple[Path, ...] = table.take("dir", maybe(directory), ())
    mirror = Mirror(
        interfaces=table.take("interfaces", listed(interface), ()),
        dir=next(iter(directories), None),
        file_max_mb=table.take("file_max_mb", whole(1, 1_000_000), 100),
        files=table.take("files", whole(1, 1000), 1),
    )
    table.done()
    if len(mirror.interfaces) > MOST_MIRRORS:
        refuse("mirror.interfaces", f"{len(mirror.interfaces)} interfaces; {MOST_MIRRORS} at most")
    return mirror


MOST_MIRRORS = 16
MOST_ADAPTERS = 8
"""Adapters a side; the data path's own bound."""


def _check_sides(s1: S1) -> None:
    if s1.shared and len(s1.enb_interfaces) == 1:
        _check_shared(s1)
        return
    for key, names in (("enb", s1.enb_interfaces), ("sgw", s1.sgw_interfaces)):
        if len(names) > MOST_ADAPTERS:
            refuse(f"s1.{key}_interface", f"{len(names)} adapters; a side takes {MOST_ADAPTERS} at most")
    for index, name in enumerate(s1.sgw_interfaces):
        if name in s1.enb_interfaces:
            refuse(
                f"s1.sgw_interface[{index}]",
                f"{name} is on the eNB side too; a shared adapter must be the only one on both sides",
            )


def _check_shared(s1: S1) -> None:
    for key, networks in (("enb", s1.enb), ("sgw", s1.sgw)):
        if not networks:
            refuse(f"s1.{key}", f"required, because {s1.enb_interfaces[0]} is shared by both sides")
    for index, core in enumerate(s1.sgw):
        for other in s1.enb:
            if _overlap(core, other):
                refuse(f"s1.sgw[{index}]", f"{core} overlaps {other} of s1.enb")


def _overlap(one: IpNetwork, other: IpNetwork) -> bool:
    return one.version == other.version and int(one[0]) <= int(other[-1]) and int(other[0]) <= int(one[-1])


def _check_interfaces(config: Config) -> None:
    if config.ue.app_interface in config.s1.interfaces:
        refuse("ue.app_interface", f"{config.ue.app_interface} is an S1 adapter; apps need another one")
    for name in config.mirror.interfaces:
        if name in (*config.s1.interfaces, config.ue.app_interface):
            refuse("mirror.interfaces", f"{name} is in use already: mirrors need interfaces of their own")
    for path, names in (
        ("mirror.interfaces", config.mirror.interfaces),
        ("s1.enb_interface", config.s1.enb_interfaces),
        ("s1.sgw_interface", config.s1.sgw_interfaces),
        ("ue.app_interface", (config.ue.app_interface,)),
    ):
        for name in names:
            if name in config.names.devices:
                refuse(path, f"{name} is a device of the TOF itself")


def _check_vnfs(config: Config) -> None:
    taken = {*config.s1.interfaces, config.ue.app_interface, *config.names.devices}
    for vnf in config.vnfs:
        for key, name in (("ingress", vnf.ingress), ("egress", vnf.egress)):
            if name in taken:
                refuse(
                    f"vnfs.{vnf.name}.{key}",
                    f"{name} is in use already: a VNF needs two interfaces of its own",
                )
            taken.add(name)


def _one_per_family(path: str, versions: Sequence[int]) -> None:
    if len(set(versions)) != len(versions):
        refuse(path, "at most one IPv4 and one IPv6 address")
