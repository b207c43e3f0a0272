"""The control socket of an Open vSwitch daemon (ovs-appctl): one JSON-RPC 1.0 request, one answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tof.errors import BackendError

_MOST: Final = 1 << 20
_CHUNK: Final = 1 << 16


async def unixctl(path: Path, command: Sequence[str], timeout_s: float) -> str:
    """What the daemon answers; BackendError if it refuses, or is not there."""
    method, *params = command
    request = json.dumps({"id": 0, "method": method, "params": params})
    try:
        async with asyncio.timeout(timeout_s):
            answer = await _exchange(path, request.encode())
    except TimeoutError as error:
        raise BackendError(f"{method}: Open vSwitch did not answer within {timeout_s:g} s") from error
    except (OSError, ValueError) as error:
        raise BackendError(f"{method}: {error}") from error
    if answer.get("error") is not None:
        raise BackendError(f"{method}: {str(answer['error']).strip()}")
    return str(answer.get("result") or "")


async def _exchange(path: Path, request: bytes) -> dict[str, object]:
    reader, writer = await asyncio.open_unix_connection(str(path))
    try:
        writer.write(request)
        text = b""
        while chunk := await reader.read(_CHUNK):
            text += chunk
            if len(text) > _MOST:
                break
            try:
                return dict(json.loads(text))
            except json.JSONDecodeError:  # there is more to come
                continue
        raise ValueError("Open vSwitch broke off")
    finally:
        writer.close()
