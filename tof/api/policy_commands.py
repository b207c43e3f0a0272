"""``tof apply`` and ``tof services export``: everything that is provisioned, from a file and into one."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from tof.api.commands import Api, Json, call, print_json
from tof.errors import SetupError

PolicyPath = Annotated[
    Path, typer.Option("--file", "-f", metavar="FILE", help="The policy, YAML or JSON; - is standard input.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would change, and change nothing.")]
Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="FILE", help="Write there instead of standard output."),
]


def apply(
    context: typer.Context,
    file: PolicyPath,
    dry_run: DryRun = False,
    api: Api = None,
    json_output: Json = False,
) -> None:
    """Provision exactly the services, chains and security groups of a file: all of the change or nothing."""
    from tof.api.policy_file import read_policy

    wanted = read_policy(_read(file), str(file)).body
    before = call(context, lambda client: client.get("/policy"), api)
    changes = _changes(before, wanted)
    if any(changes.values()) and not dry_run:
        call(context, lambda client: client.put("/policy", wanted), api)
    if json_output:
        print_json({**changes, "applied": not dry_run})
        return
    for line in _told(changes):
        typer.echo(line)
    counts = ", ".join(f"{len(entries)} {what}" for what, entries in changes.items())
    typer.echo(("would be " if dry_run else "") + counts if any(changes.values()) else "nothing to change")


def export(context: typer.Context, output: Output = None, api: Api = None, json_output: Json = False) -> None:
    """Write all services as a file that `tof apply` takes."""
    body = call(context, lambda client: client.get("/policy"), api)
    if json_output:
        print_json(body)
        return
    from tof.api.policy_file import policy_text

    if output is None:
        typer.echo(policy_text(body), nl=False)
        return
    try:
        output.write_text(policy_text(body))
    except OSError as error:
        raise SetupError(f"{output}: {error.strerror}") from error


def _read(file: Path) -> str:
    try:
        return sys.stdin.read() if str(file) == "-" else file.read_text()
    except OSError as error:
        raise SetupError(f"{file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SetupError(f"{file}: is not text: {error.reason}") from error


def _changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, list[Any]]:
    old, new = (
        {("", one["name"]): one for one in policy["services"]}
        | {
            (what, one["name"]): {**one, "name": f"{what} {one['name']}"}
            for field, what in (("chains", "chain"), ("securityGroups", "security group"))
            for one in policy.get(field, [])
        }
        for policy in (before, after)
    )
    return {
        "added": [new[name] for name in sorted(new.keys() - old.keys())],
        "changed": [
            {"before": old[name], "after": new[name]}
            for name in sorted(new.keys() & old.keys())
            if old[name] != new[name]
        ],
        "removed": [old[name] for name in sorted(old.keys() - new.keys())],
    }


def _told(changes: Mapping[str, list[Any]]) -> list[str]:
    lines = [f"+ {one['name']}: {_rest(one)}" for one in changes["added"]]
    for one in changes["changed"]:
        before, after = one["before"], one["after"]
        lines.append(f"~ {after['name']}")
        fields = [field for field in {**before, **after} if before.get(field) != after.get(field)]
        lines += [
            f"    {field}: {before.get(field, 'unset')} -> {after.get(field, 'unset')}" for field in fields
        ]
    return lines + [f"- {one['name']}: {_rest(one)}" for one in changes["removed"]]


def _rest(service: Mapping[str, Any]) -> str:
    return ", ".join(f"{field} {value}" for field, value in service.items() if field != "name")
