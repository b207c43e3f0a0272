"""The command line; each command imports what it needs when it runs, so that `tof version` is instant."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from tof.api import app_commands, commands, policy_commands, service_commands
from tof.api.commands import Api, Json, print_json, print_table
from tof.errors import SetupError, TofError
from tof.explain.command import explain
from tof.vim.analyzer.command import vim
from tof.vim.bench.command import bench

DEFAULT_CONFIG = Path("/etc/tof/tof.toml")

ConfigFile = Annotated[Path, typer.Option("--config", "-c", metavar="FILE", help="The configuration, TOML.")]
ConfigArgument = Annotated[Path, typer.Argument(metavar="[FILE]", help="The configuration, TOML.")]
Mappings = Annotated[list[str] | None, typer.Option(metavar="A=B")]

app = typer.Typer(
    name="tof",
    help="MEC Traffic Offloading Function.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(commands.status)
app.command()(commands.tunnels)
app.command()(commands.sessions)
app.command()(policy_commands.apply)
service_commands.services.command("export")(policy_commands.export)
app.add_typer(service_commands.services, name="services")
app.add_typer(app_commands.apps, name="apps")
app.command()(explain)
vim.command("bench")(bench)
app.add_typer(vim, name="vim")


def main() -> None:
    """Run the command line; every error the TOF raises on purpose is one line and an exit status."""
    try:
        app()
    except TofError as error:
        print(f"tof: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, SetupError) else 1)


@app.callback()
def root(context: typer.Context, api: Api = None) -> None:
    """MEC Traffic Offloading Function: services at the edge, on S1-U and N3."""
    context.obj = api


@app.command()
def agent(config: ConfigFile = DEFAULT_CONFIG, json_output: Json = False) -> None:
    """Run the agent until SIGTERM; the data plane stays in force afterwards."""
    from tof.config import load

    settings = load(config)
    from tof.daemon import run

    status = run(settings)
    if json_output:
        print_json({"ok": status == 0})
    raise typer.Exit(status)


@app.command()
def down(config: ConfigFile = DEFAULT_CONFIG, json_output: Json = False) -> None:
    """Stop a running agent and remove everything the TOF put on the host."""
    from tof.config import load
    from tof.drivers.teardown import down as take_down

    removed = take_down(load(config))
    if json_output:
        print_json({"ok": True, "removed": removed})
        return
    for line in removed or ["nothing to remove"]:
        typer.echo(line)


@app.command("check-config")
def check_config(config: ConfigArgument = DEFAULT_CONFIG, json_output: Json = False) -> None:
    """Check a configuration file as the agent would."""
    from tof.config import load

    try:
        load(config)
    except SetupError as error:
        if json_output:
            print_json({"ok": False, "error": str(error)})
        raise
    print_json({"ok": True}) if json_output else typer.echo(f"{config}: ok")


@app.command()
def bypass(
    switch: Annotated[str, typer.Argument(metavar="on|off", help="on: everything to the wire, at once.")],
    config: ConfigFile = DEFAULT_CONFIG,
    json_output: Json = False,
) -> None:
    """Emergency stop: with it on, everything goes to the wire. Needs no running agent."""
    if switch not in ("on", "off"):
        raise SetupError(f"bypass is on or off, not {switch}")
    from tof.config import load
    from tof.drivers.bypass import set_bypass

    set_bypass(load(config), on=switch == "on")
    print_json({"bypass": switch}) if json_output else typer.echo(f"bypass is {switch}")


@app.command()
def doctor(
    config: Annotated[Path | None, typer.Option("--config", "-c", metavar="FILE")] = None,
    json_output: Json = False,
) -> None:
    """What this host can and cannot do for a TOF, and what to do about it."""
    from tof.config import load
    from tof.drivers.doctor import State, examine

    findings = examine(load(config) if config else None)
    if json_output:
        fields = ("name", "state", "detail", "remedy")
        print_json([{field: getattr(finding, field) for field in fields} for finding in findings])
    else:
        rows = [(f.name, f.state, f.detail, f.remedy) for f in findings]
        print_table(("capability", "state", "detail", "what to do"), rows)
    # What has a remedy is needed; what has none has a fallback.
    raise typer.Exit(1 if any(f.state is State.MISSING and f.remedy for f in findings) else 0)


@app.command()
def demo(
    keep: Annotated[bool, typer.Option(help="Leave the lab standing at the end.")] = False,
    json_output: Json = False,
) -> None:
    """Show the whole main job in a lab of namespaces, with real GTP-U peers."""
    from tof.lab.demo import run

    raise typer.Exit(run(json_output=json_output, keep=keep))


@app.command()
def replay(
    context: typer.Context,
    captures: Annotated[list[Path], typer.Argument(metavar="CAPTURE...", help="pcap or pcapng files.")],
    lab: Annotated[bool, typer.Option("--lab", help="Build namespaces with a TOF between.")] = False,
    enb: Annotated[str, typer.Option(metavar="ADDRESS,...", help="The eNodeBs' addresses.")] = "",
    west: Annotated[str, typer.Option(metavar="IF", help="Adapter at the eNB side of the TOF.")] = "",
    east: Annotated[str, typer.Option(metavar="IF", help="Adapter at the SGW side of the TOF.")] = "",
    netns: Annotated[str, typer.Option(metavar="NS", help="Namespace of these adapters.")] = "",
    fix: Annotated[bool, typer.Option("--fix", help="Repair outer IPv4 checksums first.")] = False,
    map_address: Mappings = None,
    map_teid: Mappings = None,
    map_ue: Mappings = None,
    reply: Annotated[bool, typer.Option("--reply", help="Keep replying as the other side.")] = False,
    api: Api = None,
    json_output: Json = False,
) -> None:
    """Send captures through a TOF and tell what came out where."""
    if not lab and not (west and east):
        raise SetupError("replay needs --west IF and --east IF, or --lab")
    mappings = {
        "map_address": _pairs("--map-address", map_address),
        "map_teid": _pairs("--map-teid", map_teid),
        "map_ue": _pairs("--map-ue", map_ue),
    }
    from tof.lab.replay import ReplayOptions, run

    options = ReplayOptions(
        captures=tuple(captures),
        lab=lab,
        enb=tuple(filter(None, enb.split(","))),
        west=west,
        east=east,
        netns=netns,
        fix=fix,
        reply=reply,
        api=api or context.obj,
        json_output=json_output,
        **mappings,
    )
    raise typer.Exit(run(options))


@app.command(
    "lab",
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    add_help_option=False,
)
def lab_commands(context: typer.Context) -> None:
    """Labs of namespaces, to try things in (`tof lab --help`)."""
    from tof.lab.cli import app as lab_app

    lab_app(args=context.args, prog_name="tof lab")


@app.command()
def version(json_output: Json = False) -> None:
    """The version of this tof."""
    from tof import __version__

    print_json({"version": __version__}) if json_output else typer.echo(f"tof {__version__}")


def _pairs(option: str, texts: list[str] | None) -> tuple[tuple[str, str], ...]:
    pairs = tuple((text.partition("=")[0], text.partition("=")[2]) for text in texts or ())
    if not all(left and right for left, right in pairs):
        raise SetupError(f"{option} wants A=B")
    return pairs
