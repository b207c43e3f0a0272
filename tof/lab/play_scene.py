"""Laboratory: what ``tof lab play`` plays against: a TOF of its own, or whatever is between two adapters."""

from __future__ import annotations

import asyncio
import json
import secrets
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, closing, contextmanager, suppress
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

from rich.console import Console

from tof.api.client import ApiClient, connect
from tof.errors import BackendError, SetupError
from tof.lab.demo import INTERRUPTED
from tof.lab.emulation.bearers import End
from tof.lab.emulation.frames import Place
from tof.lab.emulation.settings import ENBS, IPV4, IPV6, SGWS, Edge, Settings
from tof.lab.namespaces import until
from tof.lab.play import PlayReport, Wires, play_all
from tof.lab.replay_lab import APPS, EAST, MTU, WEST, replay_lab
from tof.lab.wire_ends import WireEnd, open_ends
from tof.model import address_text
from tof.wire.inet import is_global_unicast

RESOLVE_S = 1.5
APP_MAC = bytes.fromhex("021ab0030001")
LAB_EDGE = (
    ("203.0.113.10", "192.168.50.10", "192.168.50.1"),
    ("2001:db8:113::10", "fd00:50::10", "fd00:50::1"),
)
"""Service, application, and the TOF's own address beside it, of each family."""
_LARGEST_POOL = {4: 16, 6: 48}


@dataclass(frozen=True, slots=True)
class PlayOptions:
    """What the command line asks for; adapters are IF or NAMESPACE/IF, nodes ADDRESS or ADDRESS=MAC."""

    names: tuple[str, ...]
    ues: int = 2
    seed: int | None = None
    enb_interface: str = ""
    sgw_interface: str = ""
    app_interface: str = ""
    enb: tuple[str, ...] = ()
    sgw: tuple[str, ...] = ()
    service: tuple[str, ...] = ()
    application: tuple[str, ...] = ()
    app_gateway: tuple[str, ...] = ()
    pinger_target: tuple[str, ...] = ()
    ue_pool: tuple[str, ...] = ()
    vlan: int | None = None
    enb_next_hop: str = ""
    sgw_next_hop: str = ""
    api: str | None = None
    json_output: bool = False


def run(options: PlayOptions) -> int:
    """``tof lab play``: 0: every check holds; 1: not so; 130: interrupted."""
    seed = secrets.randbits(32) if options.seed is None else options.seed
    console = Console(file=sys.stderr if options.json_output else sys.stdout, soft_wrap=True)
    report = PlayReport(console, seed)
    settings = settings_of(options)
    try:
        asyncio.run(_play(options, settings, report))
    except (asyncio.CancelledError, KeyboardInterrupt):
        print("tof: play interrupted", file=sys.stderr)
        return INTERRUPTED
    if options.json_output:
        print(json.dumps(report.document(), indent=2))
    else:
        report.conclude()
    return 0 if report.ok else 1


async def _play(options: PlayOptions, settings: Settings, report: PlayReport) -> None:
    scene = _foreign(options) if options.enb_interface else _own()
    async with scene as (ends, api):
        wires = Wires(ends, settings, report.seed)
        with wires.open():
            async with AsyncExitStack() as stack:
                agent = await stack.enter_async_context(connect((api,))) if api else None
                if agent is not None and not options.enb_interface:
                    await _provision(agent, settings)
                if settings.edge is not None:
                    await _application_found(agent)
                await play_all(list(options.names), wires, agent, report.add)


@asynccontextmanager
async def _own() -> AsyncIterator[tuple[Mapping[End, WireEnd], str | None]]:
    async with replay_lab(MTU) as lab:
        await lab.fresh(ipv6=True)
        s1, apps = open_ends((WEST, EAST), lab.netns), open_ends((APPS,), lab.edge)
        with _closing((*s1, *apps)) as ends:
            yield ends, lab.api


@asynccontextmanager
async def _foreign(options: PlayOptions) -> AsyncIterator[tuple[Mapping[End, WireEnd], str | None]]:
    names = [options.enb_interface, options.sgw_interface, options.app_interface]
    opened = []
    for name in filter(None, names):
        netns, _, device = name.rpartition("/")
        opened += open_ends((device,), netns)
    with _closing(opened) as ends:
        yield ends, options.api


@contextmanager
def _closing(ends: Sequence[WireEnd]) -> Iterator[dict[End, WireEnd]]:
    with ExitStack() as stack:
        for end in ends:
            stack.enter_context(closing(end))
        yield dict(zip(End, ends, strict=False))


async def _provision(agent: ApiClient, settings: Settings) -> None:
    edge = settings.edge
    if edge is None:
        return
    for number, (service, application) in enumerate(zip(edge.services, edge.applications, strict=True), 1):
        addresses = address_text(service), address_text(application.address)
        body = {"name": f"play-{number}", "serviceIP": addresses[0], "applicationIP": addresses[1]}
        await agent.post("/service", body)


async def _application_found(agent: ApiClient | None) -> None:
    """Give the box time to find the application, which nobody answered for before."""
    if agent is None:
        await asyncio.sleep(RESOLVE_S)
        return

    async def resolved() -> bool | None:
        checks = (await agent.get("/health"))["checks"]
        return any(check["name"] == "services" and check["state"] == "ok" for check in checks) or None

    with suppress(BackendError):
        await until("the application is found", resolved, within=2 * RESOLVE_S)


def settings_of(options: PlayOptions) -> Settings:
    """The scene that the options describe; SetupError names the option that cannot be."""
    own = not options.enb_interface
    if own == bool(options.sgw_interface):
        raise SetupError("--enb-interface and --sgw-interface go together")
    _check_own(options) if own else _check_ends(options)
    defaults = Settings()
    targets = tuple(_address("--pinger-target", text) for text in options.pinger_target)
    enbs, sgws = _places("--enb", options.enb, ENBS), _places("--sgw", options.sgw, SGWS)
    if both := {place.address for place in enbs} & {place.address for place in sgws}:
        raise SetupError(f"--enb and --sgw: {address_text(min(both))} cannot be both")
    return Settings(
        enbs=enbs,
        sgws=sgws,
        edge=_lab_edge() if own else _edge(options),
        targets=targets or defaults.targets,
        ues=options.ues,
        ue_pool=_pool(options.ue_pool, IPV4) or defaults.ue_pool,
        ue_pool6=_pool(options.ue_pool, IPV6) or defaults.ue_pool6,
        vlan=options.vlan,
        enb_next_hop=_mac("--enb-next-hop", options.enb_next_hop),
        sgw_next_hop=_mac("--sgw-next-hop", options.sgw_next_hop),
    )


def _check_own(options: PlayOptions) -> None:
    """What only makes sense for a box that is there already."""
    given = {
        "--service": options.service,
        "--app-interface": options.app_interface,
        "--application": options.application,
        "--app-gateway": options.app_gateway,
        "--pinger-target": options.pinger_target,
        "--api": options.api,
    }
    for option, value in given.items():
        if value:
            raise SetupError(f"{option} belongs to a box of yours: add --enb-interface and --sgw-interface")


def _check_ends(options: PlayOptions) -> None:
    ends = [end for end in (options.enb_interface, options.sgw_interface, options.app_interface) if end]
    if len(set(ends)) < len(ends):
        raise SetupError("--enb-interface, --sgw-interface and --app-interface are different adapters")


def _lab_edge() -> Edge:
    services, applications, gateways = (
        tuple(ip_address(text).packed for text in column) for column in zip(*LAB_EDGE, strict=True)
    )
    return Edge(services, tuple(Place(address, APP_MAC) for address in applications), gateways)


def _edge(options: PlayOptions) -> Edge | None:
    if not options.service:
        return None
    if not options.app_interface or len(options.application) != len(options.service):
        raise SetupError("--service needs --app-interface, and an --application of its family")
    services = tuple(_address("--service", text) for text in options.service)
    applications = _places("--application", options.application, (), default_mac=APP_MAC)
    if [len(address) for address in services] != [len(place.address) for place in applications]:
        raise SetupError("--service and --application come in pairs of one family")
    return Edge(
        services, applications, tuple(_address("--app-gateway", text) for text in options.app_gateway)
    )


def _places(
    option: str, texts: Sequence[str], defaults: tuple[Place, ...], default_mac: bytes | None = None
) -> tuple[Place, ...]:
    """The places given, and the default ones of a family of which none is given."""
    given = []
    for number, text in enumerate(texts):
        address, _, mac = text.partition("=")
        fallback = default_mac or defaults[number % len(defaults)].mac
        given.append(Place(_address(option, address), _mac(option, mac) or fallback))
    if len({place.address for place in given}) < len(given):
        raise SetupError(f"{option}: an address is given twice")
    for family in (IPV4, IPV6) if defaults else ():
        count = sum(len(place.address) == family for place in given)
        if count == 1:
            raise SetupError(f"{option}: two nodes of a family are needed, for handovers and relocations")
        if not count:
            given += [place for place in defaults if len(place.address) == family]
    return tuple(given)


def _pool(texts: Sequence[str], family: int) -> bytes | None:
    """First address of the UEs' network of this family, if one is given."""
    found = None
    for text in texts:
        try:
            network = ip_network(text)
        except ValueError:
            raise SetupError(f"--ue-pool: {text!r} is not a network") from None
        largest = _LARGEST_POOL[network.version]
        if not is_global_unicast(network.network_address.packed):
            raise SetupError(f"--ue-pool: {text} has no addresses that UEs can have")
        if network.prefixlen > largest:
            raise SetupError(f"--ue-pool: {text} is too small, a /{largest} is needed")
        if len(network.network_address.packed) == family:
            found = network.network_address.packed
    return found


def _address(option: str, text: str) -> bytes:
    try:
        return ip_address(text).packed
    except ValueError:
        raise SetupError(f"{option}: {text!r} is not an address") from None


def _mac(option: str, text: str) -> bytes | None:
    if not text:
        return None
    try:
        mac = bytes.fromhex(text.replace(":", ""))
    except ValueError:
        mac = b""
    if len(mac) != 6:
        raise SetupError(f"{option}: {text!r} is not a MAC address")
    return mac
