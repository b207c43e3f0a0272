"""An agent that kills itself with SIGKILL at a call that has to do with an app.

python dying_agent.py CONFIG CALLS_FILE AT

Every call is noted in the file; it dies at the one with number AT (never: 0), or at the first of the name AT.
"""

import asyncio
import os
import signal
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from tof.config import load

daemon: Any = import_module("tof.daemon.run")


class Dying:
    """Passes calls on, up to the one at which the agent dies."""

    calls: list[str] = []  # noqa: RUF012
    file, at = Path(), "0"

    def __init__(self, real: Any, only: tuple[str, ...] = ()) -> None:
        self._real, self._only = real, only

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._real, name)
        if not asyncio.iscoroutinefunction(real) or (self._only and name not in self._only):
            return real

        async def call(*args: Any, **more: Any) -> Any:
            self.calls.append(name)
            with self.file.open("a") as file:
                file.write(name + "\n")
            if self.at in (name, str(len(self.calls))):
                os.kill(os.getpid(), signal.SIGKILL)
            return await real(*args, **more)

        return call


class DyingDaemon(daemon.Daemon):  # type: ignore[misc]
    def offers(self, network: Any) -> Any:
        offers = super().offers(network)
        for offer in offers.values():
            only = (
                "note",
                "forget",
                "enclose",
                "wire",
                "name",
                "limit",
                "release",
                "end",
                "unwire",
                "unname",
            )
            offer.vim._host = Dying(
                offer.vim._host, (*only, "unlimit", "define", "start", "hush", "clean", "undefine")
            )
            offer.vim._network = Dying(network)
        return offers


class DyingManager(daemon.AppManager):  # type: ignore[misc]
    def __init__(self, offers: Any, control: Any, store: Any, clock: Any, **more: Any) -> None:
        kept = Dying(store, ("put_app", "delete_app"))
        super().__init__(offers, Dying(control, ("provision", "withdraw")), kept, clock, **more)


class DyingLcm(daemon.LcmManager):  # type: ignore[misc]
    def __init__(self, apps: Any, store: Any, *more: Any) -> None:
        super().__init__(apps, Dying(store, ("change_lcm",)), *more)


if __name__ == "__main__":
    Dying.file, Dying.at = Path(sys.argv[2]), sys.argv[3]
    daemon.Daemon, daemon.AppManager, daemon.LcmManager = DyingDaemon, DyingManager, DyingLcm
    sys.exit(daemon.run(load(sys.argv[1])))
