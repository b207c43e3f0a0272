"""Laboratory: ``tof lab``: the demo's scene to play with, and scenarios to play against any GTP-U box."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import typer

from tof.api.commands import Json, print_json, print_table
from tof.errors import SetupError

app = typer.Typer(
    help="A laboratory of network namespaces, real GTP-U peers and emulated ones.", no_args_is_help=True
)


def _option(metavar: str, text: str) -> Any:
    return typer.Option(metavar=metavar, help=text)


@app.command()
def run(
    ues: Annotated[int, typer.Option(min=1, max=9, help="How many UEs attach.")] = 3,
    json_output: Json = False,
) -> None:
    """Build the demo's lab with a TOF in it and keep it until Ctrl-C."""
    try:
        asyncio.run(_hold(ues, json_output=json_output))
    except (asyncio.CancelledError, KeyboardInterrupt):
        typer.echo("lab removed", err=True)


@app.command()
def scenarios(json_output: Json = False) -> None:
    """What `tof lab play` can play."""
    from tof.lab.emulation.catalogue import SCENARIOS, line

    if json_output:
        print_json([{"name": name, "plays": line(name)} for name in SCENARIOS])
    else:
        print_table(("name", "plays"), [(name, line(name)) for name in SCENARIOS])


@app.command()
def play(
    names: Annotated[list[str] | None, typer.Argument(metavar="NAME...", help="Scenarios.")] = None,
    all_of_them: Annotated[bool, typer.Option("--all", help="Play every scenario.")] = False,
    ues: Annotated[
        int, typer.Option(min=1, max=100, help="How many UEs take part where any number can.")
    ] = 2,
    seed: Annotated[int | None, typer.Option(help="Of UE addresses and TEIDs; random unless given.")] = None,
    enb_interface: Annotated[
        str, _option("[NETNS/]IF", "The eNBs' end of your box; none: a TOF is built.")
    ] = "",
    sgw_interface: Annotated[str, _option("[NETNS/]IF", "Its SGWs' end.")] = "",
    app_interface: Annotated[str, _option("[NETNS/]IF", "Its applications' end.")] = "",
    enb: Annotated[
        list[str] | None, _option("IP[=MAC]", "An emulated eNB; at least two of a family.")
    ] = None,
    sgw: Annotated[
        list[str] | None, _option("IP[=MAC]", "An emulated SGW; at least two of a family.")
    ] = None,
    service: Annotated[list[str] | None, _option("IP", "The address that your box diverts.")] = None,
    application: Annotated[list[str] | None, _option("IP[=MAC]", "The emulated application for it.")] = None,
    app_gateway: Annotated[list[str] | None, _option("IP", "The application's next hop to the UEs.")] = None,
    pinger_target: Annotated[list[str] | None, _option("IP", "What your box may ping as a UE.")] = None,
    ue_pool: Annotated[list[str] | None, _option("NETWORK", "Where UEs' addresses are from.")] = None,
    vlan: Annotated[int | None, typer.Option(min=1, max=4094, help="Everything on this VLAN.")] = None,
    enb_next_hop: Annotated[str, _option("MAC", "Your box routes: its MAC at the eNBs' end.")] = "",
    sgw_next_hop: Annotated[str, _option("MAC", "The same at the SGWs' end.")] = "",
    api: Annotated[str | None, _option("URL|unix:PATH", "Your box is a TOF: compare what it learnt.")] = None,
    json_output: Json = False,
) -> None:
    """Play scenarios with emulated eNBs and SGWs through a TOF in namespaces, or any box between two adapters."""
    from tof.lab.emulation.catalogue import SCENARIOS, chosen
    from tof.lab.play_scene import PlayOptions
    from tof.lab.play_scene import run as run_play

    selected = list(SCENARIOS) if all_of_them else chosen(names or [])
    if not selected:
        raise SetupError("which scenario? `tof lab scenarios` lists them, --all plays them all")
    options = PlayOptions(
        tuple(selected),
        ues=ues,
        seed=seed,
        enb_interface=enb_interface,
        sgw_interface=sgw_interface,
        app_interface=app_interface,
        enb=tuple(enb or ()),
        sgw=tuple(sgw or ()),
        service=tuple(service or ()),
        application=tuple(application or ()),
        app_gateway=tuple(app_gateway or ()),
        pinger_target=tuple(pinger_target or ()),
        ue_pool=tuple(ue_pool or ()),
        vlan=vlan,
        enb_next_hop=enb_next_hop,
        sgw_next_hop=sgw_next_hop,
        api=api,
        json_output=json_output,
    )
    raise typer.Exit(run_play(options))


async def _hold(ues: int, *, json_output: bool) -> None:
    from tof.lab.namespaces import Lab
    from tof.lab.world import World, advice, build

    async with Lab() as lab:
        world: World = await build(lab)
        world.tof.configure()
        await world.tof.start()
        for _ in range(ues):
            await world.attach()
        print_json(_standing(world)) if json_output else typer.echo(advice(world))
        await lab.interruption()


def _standing(world: Any) -> dict[str, Any]:
    roles = ("ran", "tof", "core", "internet", "edge", *(ue.role for ue in world.ues))
    return {
        "api": f"unix:{world.tof.socket}",
        "namespaces": {role: world.lab.name(role) for role in roles},
        "ues": [{"role": ue.role, "address": ue.address, "enb": ue.enb} for ue in world.ues],
    }
