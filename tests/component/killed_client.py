"""A process that has a back-end create an app, to be killed while it does."""

from __future__ import annotations

import asyncio
import sys

from remote_vims import BACK_ENDS, KEY


async def main(name: str, url: str) -> None:
    back_end = BACK_ENDS[name]
    vim = back_end.vim(url)
    deadline = asyncio.get_running_loop().time() + 30
    await vim.create(back_end.spec, key=KEY, deadline=deadline)
    await vim.aclose()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
