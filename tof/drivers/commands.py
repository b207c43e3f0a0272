"""Programs of the host, run to their end."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tof.errors import BackendError, SetupError
from tof.settled import finished

_TIMEOUT_S = 10.0


async def command(*argv: str, feed: str = "", package: str = "iproute2") -> str:
    """Standard output of a program that was fed this; BackendError with its complaint, SetupError if it is missing.

    It runs to its end even if the caller is cancelled.
    """
    return await finished(_command(argv, feed, package))


async def _command(argv: tuple[str, ...], feed: str, package: str) -> str:
    pipe = asyncio.subprocess.PIPE
    try:
        process = await asyncio.create_subprocess_exec(*argv, stdin=pipe, stdout=pipe, stderr=pipe)
    except FileNotFoundError as error:
        raise SetupError(f"{argv[0]} is not installed: install the package {package}") from error
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            output, complaint = await process.communicate(feed.encode())
    except TimeoutError as error:
        raise BackendError(f"{argv[0]} did not end within {_TIMEOUT_S:g} s") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        lines = complaint.decode(errors="replace").strip().splitlines() or [f"exit {process.returncode}"]
        raise BackendError(f"{Path(argv[0]).name}: {lines[0]}")
    return output.decode()
