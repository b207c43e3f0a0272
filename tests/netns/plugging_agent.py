"""An agent that plugs application ports as it is told on standard input, a JSON object a line; what came of it, it prints.

python plugging_agent.py CONFIG
{"plug": ["name", "interface", "02:...", ["192.168.50.20"], ["group"]]}
{"unplug": ["name"]}
"""

import asyncio
import json
import sys
from importlib import import_module
from ipaddress import ip_address
from typing import Any

from tof.config import load
from tof.errors import TofError

daemon: Any = import_module("tof.daemon.run")
import_module("tof.daemon.appports").REPLUG_S = 4.0


class PluggingDaemon(daemon.Daemon):  # type: ignore[misc]
    """The agent itself, with somebody beside it who plugs."""

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            listening = group.create_task(self._listen())
            await super().run()
            listening.cancel()

    async def _listen(self) -> None:
        reader = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        while line := await reader.readline():
            print(await self._done(json.loads(line)), flush=True)

    async def _done(self, asked: dict[str, Any]) -> str:
        while self.app_ports is None:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        try:
            if "unplug" in asked:
                await self.app_ports.unplug(*asked["unplug"])
            else:
                name, interface, mac, addresses, groups = asked["plug"]
                await self.app_ports.plug(
                    name,
                    interface,
                    bytes.fromhex(mac.replace(":", "")),
                    tuple(map(ip_address, addresses)),
                    tuple(groups),
                )
        except TofError as error:
            return f"{type(error).__name__}: {error}"
        return "done"


if __name__ == "__main__":
    daemon.Daemon = PluggingDaemon
    sys.exit(daemon.run(load(sys.argv[1])))
