"""Open vSwitch's daemons asked without their programs, which take longer than what they ask for (JSON-RPC 1.0, RFC 7047)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tof.errors import BackendError

_MOST: Final = 1 << 20
_CHUNK: Final = 1 << 16
_PATIENCE_MS: Final = 8000


async def unixctl(path: Path, command: Sequence[str], timeout_s: float) -> str:
    """What a daemon answers to a command of ovs-appctl's; BackendError if it refuses, or is not there."""
    method, *params = command
    return str(await _asked(path, method, params, timeout_s) or "")


async def new_port(
    path: Path, bridge: str, device: str, ofport: int, owner: str, timeout_s: float
) -> tuple[str, str] | None:
    """Make a new port of the bridge: its number and, if Open vSwitch refuses the device, why.

    None if there is a port, or an interface, of that name already.
    """
    made = await _transaction(path, _insertion(bridge, device, ofport, owner), timeout_s)
    if any("error" in (one or {}) for one in made):
        return None
    where = [["name", "==", device]]
    nothing = {"ofport": ["set", []]}
    looked = await _transaction(
        path,
        (
            {"op": "wait", "table": "Interface", "where": where, "columns": ["ofport"], "until": "!=",
             "rows": [nothing], "timeout": _PATIENCE_MS},
            {"op": "select", "table": "Interface", "where": where, "columns": ["ofport", "error"]},
        ),
        timeout_s,
    )  # fmt: skip
    rows = (looked[1] or {}).get("rows", ()) if len(looked) > 1 else ()
    if not rows:
        raise BackendError(f"OVS port {device}: Open vSwitch has not looked at it")
    number, why = (rows[0][column] for column in ("ofport", "error"))
    return str(number), "" if isinstance(why, list) else str(why)


def _insertion(bridge: str, device: str, ofport: int, owner: str) -> tuple[Mapping[str, Any], ...]:
    ports = [["ports", "insert", ["set", [["named-uuid", "port"]]]]]
    mine = ["map", [["tof", owner]]]
    return (
        {"op": "wait", "table": "Bridge", "where": [["name", "==", bridge]], "columns": ["name"], "until": "==",
         "rows": [{"name": bridge}], "timeout": 0},
        {"op": "insert", "table": "Interface", "uuid-name": "interface",
         "row": {"name": device, "ofport_request": ofport}},
        {"op": "insert", "table": "Port", "uuid-name": "port",
         "row": {"name": device, "interfaces": ["named-uuid", "interface"], "external_ids": mine}},
        {"op": "mutate", "table": "Bridge", "where": [["name", "==", bridge]], "mutations": ports},
        {"op": "mutate", "table": "Open_vSwitch", "where": [], "mutations": [["next_cfg", "+=", 1]]},
    )  # fmt: skip


async def _transaction(
    path: Path, operations: Sequence[Mapping[str, Any]], timeout_s: float
) -> list[dict[str, Any] | None]:
    answer = await _asked(path, "transact", ["Open_vSwitch", *operations], timeout_s)
    return list(answer) if isinstance(answer, list) else []


async def _asked(path: Path, method: str, params: Sequence[object], timeout_s: float) -> Any:
    request = json.dumps({"id": 0, "method": method, "params": params})
    try:
        async with asyncio.timeout(timeout_s):
            answer = await _exchange(path, request.encode())
    except TimeoutError as error:
        raise BackendError(f"{method}: Open vSwitch did not answer within {timeout_s:g} s") from error
    except (OSError, ValueError, TypeError) as error:
        raise BackendError(f"{method}: {error}") from error
    if answer.get("error") is not None:
        raise BackendError(f"{method}: {str(answer['error']).strip()}")
    return answer.get("result")


async def _exchange(path: Path, request: bytes) -> dict[str, Any]:
    reader, writer = await asyncio.open_unix_connection(str(path))
    try:
        writer.write(request)
        text = b""
        while len(text) < _MOST and (chunk := await reader.read(_CHUNK)):
            text += chunk
            try:
                return dict(json.loads(text))
            except json.JSONDecodeError:  # there is more to come
                continue
        raise ValueError("Open vSwitch broke off")
    finally:
        writer.close()
