"""Laboratory: ``tof lab``: the demo's scene, to play with."""

from __future__ import annotations

import asyncio

import typer

from tof.errors import TofError
from tof.lab.demo import error_status
from tof.lab.namespaces import Lab
from tof.lab.world import advice, build

app = typer.Typer(help="A laboratory of network namespaces with real GTP-U peers.", no_args_is_help=True)


@app.callback()
def lab() -> None:
    """Keep ``run`` a subcommand."""


@app.command()
def run(ues: int = typer.Option(3, min=1, max=9, help="How many UEs attach.")) -> None:
    """Build the lab with a TOF in it and keep it until Ctrl-C."""
    try:
        asyncio.run(_hold(ues))
    except (asyncio.CancelledError, KeyboardInterrupt):
        typer.echo("lab removed", err=True)
    except TofError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(error_status(error)) from error


async def _hold(ues: int) -> None:
    async with Lab() as lab:
        world = await build(lab)
        world.tof.configure()
        await world.tof.start()
        for _ in range(ues):
            await world.attach()
        typer.echo(advice(world))
        await lab.interruption()
