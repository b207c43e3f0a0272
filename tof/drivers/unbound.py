"""A DNS server of the TOF's own: Debian's unbound under ``run_dir``, told at run time what to answer.

It outlives the agent, which adopts it again, and ends with `tof down`. What it was told is written down beside it, so that
the agent that adopts it knows.
"""

from __future__ import annotations

import json
import os
import pwd
from collections.abc import Mapping
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from tof.config import Dns
from tof.drivers.ovsdb import run, terminate
from tof.errors import BackendError, SetupError
from tof.model import IpAddress

TTL_S: Final = 30
_SERVER: Final = "unbound"
_PATIENCE_S: Final = 3.0

Answers = Mapping[str, frozenset[IpAddress]]
"""By name, the addresses that it has at the edge."""

_CONFIG: Final = """\
server:
  directory: "{run_dir}"
  chroot: ""
  username: "{user}"
  pidfile: "{pidfile}"
  use-syslog: yes
  log-identity: "tof-unbound"
  module-config: "iterator"
{interfaces}
  do-ip6: yes
  access-control: 0.0.0.0/0 allow
  access-control: ::0/0 allow
remote-control:
  control-enable: yes
  control-interface: "{control}"
  control-use-cert: no
forward-zone:
  name: "."
{upstream}
"""


class Unbound:
    """The server, by its files."""

    def __init__(self, run_dir: Path, dns: Dns) -> None:
        self._dir = run_dir.absolute() / "dns"
        self._dns = dns
        self._config, self._data = self._dir / "unbound.conf", self._dir / "answers.json"
        self._pidfile, self._socket = self._dir / "unbound.pid", self._dir / "control.sock"
        self.told: dict[str, frozenset[IpAddress]] = {}
        """What it answers, as far as this agent knows."""

    async def ensure_running(self) -> None:
        """Adopt the server if it runs as configured, else start it."""
        text = self._text()
        if self._pid() is not None and self._config.exists() and self._config.read_text() == text:
            self.told = self.told or self._read_answers()
            return
        await self.stop()
        self.told = {}
        self._dir.mkdir(parents=True, exist_ok=True)
        self._config.write_text(text)
        await run(_SERVER, "-c", str(self._config), package="unbound")

    async def lives(self) -> bool:
        """Whether it answers its control socket."""
        with suppress(BackendError):
            await self._control("status")
            return True
        return False

    async def tell(self, answers: Answers) -> None:
        """Have it answer exactly these."""
        if self.told == answers:
            return
        for name in [name for name, addresses in self.told.items() if addresses != answers.get(name)]:
            await self._control("local_data_remove", name)
            del self.told[name]
        for name in answers.keys() - self.told.keys():
            for address in answers[name]:
                kind = "A" if address.version == 4 else "AAAA"
                await self._control("local_data", f"{name}.", str(TTL_S), "IN", kind, str(address))
            self.told[name] = answers[name]
        self._write_answers()

    async def stop(self) -> bool:
        """End the server, and only it, and remove its files; whether it ran."""
        pid = self._pid()
        if pid is not None:
            await terminate(pid)
        for path in (self._pidfile, self._socket, self._config, self._data):
            path.unlink(missing_ok=True)
        with suppress(OSError):
            self._dir.rmdir()
        return pid is not None

    async def _control(self, *words: str) -> str:
        argv = ("unbound-control", "-c", str(self._config), "-q", *words)
        return await run(*argv, timeout_s=_PATIENCE_S, package="unbound")

    def _pid(self) -> int | None:
        try:
            pid = int(self._pidfile.read_text())
            words = os.fsdecode(Path(f"/proc/{pid}/cmdline").read_bytes()).split("\0")
        except (OSError, ValueError):
            return None
        # The process id may have been given to someone else since.
        return pid if Path(words[0]).name == _SERVER and str(self._config) in words else None

    def _text(self) -> str:
        return _CONFIG.format(
            run_dir=self._dir,
            user=_user(),
            pidfile=self._pidfile,
            control=self._socket,
            interfaces="\n".join(f"  interface: {address}" for address in self._dns.listen),
            upstream="\n".join(f"  forward-addr: {address}" for address in self._dns.upstream),
        )

    def _write_answers(self) -> None:
        fresh = self._data.with_suffix(".new")
        try:
            fresh.write_text(json.dumps({name: sorted(map(str, told)) for name, told in self.told.items()}))
            fresh.replace(self._data)
        except OSError as error:
            raise BackendError(f"cannot write {self._data}: {error.strerror}") from error

    def _read_answers(self) -> dict[str, frozenset[IpAddress]]:
        try:
            written = json.loads(self._data.read_text())
        except (OSError, ValueError):
            return {}
        return {name: frozenset(map(ip_address, told)) for name, told in written.items()}


def _user() -> str:
    """Debian's user for it, to whom it changes once its sockets are open."""
    try:
        return pwd.getpwnam("unbound").pw_name
    except KeyError:
        raise SetupError("there is no user unbound: install the package unbound") from None
