"""Laboratory: ``tof lab``: the demo's scene to play with, and scenarios to play against any GTP-U box."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import typer

from tof.api.commands import Api, Json, print_json, print_table
from tof.errors import SetupError

app = typer.Typer(
    help="A laboratory of network namespaces, real GTP-U peers and emulated ones.", no_args_is_help=True
)

Adapter = Annotated[str, typer.Option(metavar="[NETNS/]IF")]
Several = Annotated[list[str] | None, typer.Option(metavar="IP")]
Nodes = Annotated[list[str] | None, typer.Option(metavar="IP[=MAC]")]
Mac = Annotated[str, typer.Option(metavar="MAC")]


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
        int, typer.Option(min=1, max=200, help="How many UEs take part where any number can.")
    ] = 2,
    seed: Annotated[int | None, typer.Option(help="Of UE addresses and TEIDs; random unless given.")] = None,
    enb_interface: Adapter = "",
    sgw_interface: Adapter = "",
    app_interface: Adapter = "",
    enb: Nodes = None,
    sgw: Nodes = None,
    service: Several = None,
    application: Nodes = None,
    app_gateway: Several = None,
    pinger_target: Several = None,
    vlan: Annotated[int | None, typer.Option(min=1, max=4094, help="Everything on this VLAN.")] = None,
    enb_next_hop: Mac = "",
    sgw_next_hop: Mac = "",
    api: Api = None,
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
