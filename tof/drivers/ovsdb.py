"""Open vSwitch itself: the daemons (our own, or the host's), the bridge br-ue and its ports."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

from tof.drivers.unixctl import new_port, unixctl
from tof.errors import BackendError, SetupError

_SCHEMA: Final = Path("/usr/share/openvswitch/vswitch.ovsschema")
_SERVER: Final = "ovsdb-server"
_SWITCH: Final = "ovs-vswitchd"
_TIMEOUT_S: Final = 10.0

# Without a prefix tree a rule for one IPv6 address makes a megaflow for every other address.
_SHORTEST_FRAGMENT: Final = 400
_PREFIXES: Final = {0: "nw_dst,ipv6_dst", 1: "nw_src,ipv6_src,ipv6_dst"}


@dataclass(frozen=True, slots=True)
class Port:
    """A device to be a port of the bridge, its OpenFlow number, and a CFM endpoint if it beats the heart.

    ``optional``: nothing depends on it; it may come later, or never.
    """

    device: str
    ofport: int
    cfm_mpid: int | None = None
    optional: bool = False


async def run(
    *argv: str,
    env: Mapping[str, str] | None = None,
    timeout_s: float = _TIMEOUT_S,
    package: str = "openvswitch-switch",
) -> str:
    """Standard output of a program; BackendError with its complaint, SetupError if it is not installed."""
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, **(env or {})},
        )
    except FileNotFoundError as error:
        raise SetupError(f"{argv[0]} is not installed: install the package {package}") from error
    try:
        async with asyncio.timeout(timeout_s):
            output, complaint = await process.communicate()
    except TimeoutError as error:
        raise BackendError(f"{argv[0]} did not end within {timeout_s} s") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        lines = complaint.decode(errors="replace").strip().splitlines() or [f"exit {process.returncode}"]
        raise BackendError(f"{Path(argv[0]).name}: {lines[0]}")
    return output.decode()


class Ovs:
    """The bridge and its ports on a running Open vSwitch, reached by its database socket."""

    def __init__(self, run_dir: Path, db_socket: Path, instance: str) -> None:
        self.run_dir = run_dir.absolute()
        self.db_socket = db_socket
        self.instance = instance

    def management_socket(self, bridge: str) -> Path:
        """Where the bridge speaks OpenFlow with whoever manages it."""
        return self.run_dir / f"{bridge}.mgmt"

    def pids(self) -> dict[str, int]:
        """Process id of each Open vSwitch daemon that runs, by name."""
        found = ((name, self._pid(name)) for name in (_SERVER, _SWITCH))
        return {name: pid for name, pid in found if pid is not None}

    async def ensure_running(self) -> None:
        """Raise SetupError unless both daemons run."""
        missing = {_SERVER, _SWITCH} - self.pids().keys()
        if missing:
            raise SetupError(
                f"{' and '.join(sorted(missing))} does not run in {self.run_dir}: start Open vSwitch"
            )

    async def ensure_bridge(self, bridge: str) -> None:
        """Make the bridge exist with the TOF's settings; SetupError if another owner has that name."""
        if await self._owner(bridge) not in (None, self.instance):
            raise SetupError(
                f"bridge {bridge} exists and is not the TOF's ({self.instance}): rename or remove it"
            )
        if await self._mark(bridge) == _bridge_mark():
            return
        prefixes: list[str] = []
        for table, fields in _PREFIXES.items():
            prefixes += ["--", f"--id=@t{table}", "create", "Flow_Table", f"prefixes={fields}"]
        await self.vsctl(
            *("--may-exist", "add-br", bridge, "--", "set", "Bridge", bridge, "datapath_type=netdev"),
            *("fail_mode=secure", "protocols=OpenFlow13,OpenFlow14", f"external_ids:tof={self.instance}"),
            f"external_ids:tof-settings={_bridge_mark()}",
            *(
                "other_config:disable-in-band=true",
                *(f"flow_tables:{table}=@t{table}" for table in _PREFIXES),
            ),
            *prefixes,
        )

    async def ensure_ports(
        self, bridge: str, ports: Sequence[Port], beside: Set[str] = frozenset()
    ) -> dict[str, int]:
        """Make exactly these the TOF's ports of the bridge, others and those ``beside`` left alone: device -> number."""
        present, wanted = await self._our_ports(bridge) - beside, {port.device for port in ports}
        mark = sha256(repr(sorted(map(repr, ports))).encode()).hexdigest()[:16]
        if present == wanted and await self._mark(bridge, "tof-ports") == mark:
            return {port.device: await self._check(port) for port in ports}
        stale = present - wanted
        command: list[str] = []
        for device in sorted(stale):
            command += ["--", "--if-exists", "del-port", bridge, device]
        for port in ports:
            command += ["--", "--may-exist", "add-port", bridge, port.device]
            command += ["--", "set", "Port", port.device, f"external_ids:tof={self.instance}"]
            command += ["--", "set", "Interface", port.device, f"ofport_request={port.ofport}"]
            if port.cfm_mpid is not None:
                command += [f"cfm_mpid={port.cfm_mpid}", "other_config:cfm_interval=100"]
        command += ["--", "set", "Bridge", bridge, f"external_ids:tof-ports={mark}"]
        await self.vsctl(*command[1:])
        return {port.device: await self._check(port) for port in ports}

    async def add_anew(self, bridge: str, ports: Sequence[Port]) -> None:
        """Have Open vSwitch open devices again that went and came back under their names."""
        command: list[str] = []
        for port in ports:
            command += ["--", "--if-exists", "del-port", bridge, port.device]
        await self.vsctl(*command[1:])
        command = []
        for port in ports:
            command += ["--", "--may-exist", "add-port", bridge, port.device]
            command += ["--", "set", "Port", port.device, f"external_ids:tof={self.instance}"]
            command += ["--", "set", "Interface", port.device, f"ofport_request={port.ofport}"]
        await self.vsctl(*command[1:])

    async def add_ports(self, bridge: str, ports: Sequence[Port]) -> None:
        """Make these ports of the bridge, too; BackendError if one is refused."""
        present = await self._our_ports(bridge) if ports else set()
        command: list[str] = []
        for port in ports:
            if port.device not in present or await self._number(port.device) != str(port.ofport):
                command += ["--", "--may-exist", "add-port", bridge, port.device]
                command += ["--", "set", "Port", port.device, f"external_ids:tof={self.instance}"]
                command += ["--", "set", "Interface", port.device, f"ofport_request={port.ofport}"]
        if command:
            await self.vsctl(*command[1:])
        for port in ports:
            await self._check(port)

    async def add_port(self, bridge: str, port: Port) -> None:
        """Make this a port of the bridge, too, or give it that number; BackendError if it is refused."""
        new = await new_port(self.db_socket, bridge, port.device, port.ofport, self.instance, _TIMEOUT_S)
        if new is not None:
            number, why = new
            if number != str(port.ofport):
                raise BackendError(f"OVS port {port.device}: {why or f'number {number}, not {port.ofport}'}")
            return
        await self.vsctl(
            *("--may-exist", "add-port", bridge, port.device),
            *("--", "set", "Port", port.device, f"external_ids:tof={self.instance}"),
            *("--", "set", "Interface", port.device, f"ofport_request={port.ofport}"),
        )
        await self._check(port)

    async def drop_port(self, bridge: str, device: str) -> None:
        """Make it no port of the bridge any more; nothing to do is fine."""
        await self.vsctl("--if-exists", "del-port", bridge, device)

    async def remove_bridge(self, bridge: str) -> None:
        """Remove the bridge with all its ports if it is the TOF's; otherwise leave it alone."""
        if await self._owner(bridge) == self.instance:
            await self.vsctl("--if-exists", "del-br", bridge)

    async def vsctl(self, *arguments: str) -> str:
        """Run an ovs-vsctl command on this database."""
        return await run(
            "ovs-vsctl", f"--db=unix:{self.db_socket}", f"--timeout={_TIMEOUT_S:.0f}", *arguments
        )

    async def appctl(self, *arguments: str) -> str:
        """Have this switch carry out a command of ovs-appctl's, without that program: it takes longer than the command."""
        return await unixctl(self._control(), arguments, _TIMEOUT_S)

    async def track_short_fragments(self) -> None:
        """Have connection tracking put IPv4 fragments together from the shortest on that it can be made to take.

        By default it drops what is shorter than 1200 bytes and not the last one.
        """
        await self.appctl("dpctl/ipf-set-min-frag", "v4", str(_SHORTEST_FRAGMENT))

    async def forget_cached_flows(self) -> None:
        """Have the next packet of every flow meet the tables as they are now.

        The datapath follows a change of the tables by and by, some milliseconds on an idle host and more on a busy one.
        """
        await self.appctl("revalidator/purge")

    def _control(self) -> Path:
        return self.run_dir / f"{_SWITCH}.{self._pid(_SWITCH)}.ctl"

    def _pid(self, name: str) -> int | None:
        try:
            pid = int((self.run_dir / f"{name}.pid").read_text())
            arguments = os.fsdecode(Path(f"/proc/{pid}/cmdline").read_bytes()).split("\0")
        except (OSError, ValueError):
            return None
        return pid if self._is_ours(name, arguments) else None

    def _is_ours(self, name: str, arguments: list[str]) -> bool:
        return Path(arguments[0]).name == name

    async def _owner(self, bridge: str) -> str | None:
        if bridge not in (await self.vsctl("list-br")).split():
            return None
        return (await self.vsctl("br-get-external-id", bridge, "tof")).strip()

    async def _mark(self, bridge: str, key: str = "tof-settings") -> str:
        """What was last written there in full: writing it again would stall the switch for nothing."""
        if bridge not in (await self.vsctl("list-br")).split():
            return ""
        return (await self.vsctl("br-get-external-id", bridge, key)).strip()

    async def _our_ports(self, bridge: str) -> set[str]:
        ours = await self.vsctl(
            "--bare", "--columns=name", "find", "Port", f"external_ids:tof={self.instance}"
        )
        return set(ours.split()) & set((await self.vsctl("list-ports", bridge)).split())

    async def _check(self, port: Port) -> int:
        if port.optional:
            return port.ofport
        number = await self._number(port.device)
        if number != str(port.ofport):
            why = (await self.vsctl("get", "Interface", port.device, "error")).strip(' "[]\n')
            raise BackendError(f"OVS port {port.device}: {why or f'number {number}, not {port.ofport}'}")
        return port.ofport

    async def _number(self, device: str) -> str:
        return (await self.vsctl("get", "Interface", device, "ofport")).strip()


def _bridge_mark() -> str:
    return sha256(repr(_PREFIXES).encode()).hexdigest()[:16]


class SystemOvs(Ovs):
    """The host's Open vSwitch: used, never started or stopped."""

    def __init__(self, db_socket: Path, instance: str) -> None:
        super().__init__(db_socket.parent, db_socket, instance)


class PrivateOvs(Ovs):
    """An Open vSwitch of the TOF's own under ``run_dir``; it outlives the agent, which adopts it again."""

    def __init__(self, run_dir: Path, instance: str, flow_limit: int = 200_000) -> None:
        super().__init__(run_dir, run_dir.absolute() / "db.sock", instance)
        self._flow_limit = flow_limit
        self._database = self.run_dir / "conf.db"
        self._env = dict.fromkeys(("OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR"), str(self.run_dir))

    async def ensure_running(self) -> None:
        """Adopt the daemons that run, start those that do not."""
        self.run_dir.mkdir(parents=True, exist_ok=True)
        running = self.pids()
        if _SERVER not in running:
            await self._start_server()
        if _SWITCH not in running:
            await self._start_daemon(_SWITCH, f"unix:{self.db_socket}")

    async def stop(self) -> None:
        """End the daemons, and only them, and remove their files; nothing to do is fine."""
        for name in (_SWITCH, _SERVER):
            pid = self._pid(name)
            if pid is not None:
                await terminate(pid)
        for pattern in (
            "conf.db*",
            ".conf.db.~lock~",
            "db.sock",
            "ovs*.pid",
            "ovs*.ctl",
            "*.mgmt",
            "*.snoop",
        ):
            for path in self.run_dir.glob(pattern):
                path.unlink(missing_ok=True)

    async def _start_server(self) -> None:
        if not self._database.exists():
            if not _SCHEMA.exists():
                raise SetupError(f"{_SCHEMA} is missing: install the package openvswitch-switch")
            await run("ovsdb-tool", "create", str(self._database), str(_SCHEMA), env=self._env)
        await self._start_daemon(_SERVER, f"--remote=punix:{self.db_socket}", str(self._database))
        limits = f"other_config:flow-limit={self._flow_limit}"
        await self.vsctl("--no-wait", "init", "--", "set", "Open_vSwitch", ".", limits)

    async def _start_daemon(self, name: str, *arguments: str) -> None:
        files = (f"--pidfile={self._pidfile(name)}", f"--log-file={self.run_dir / name}.log")
        control = f"--unixctl={self.run_dir / name}.ctl"
        await run(name, *arguments, *files, control, "--detach", "-vconsole:off", env=self._env)

    def _control(self) -> Path:
        return self.run_dir / f"{_SWITCH}.ctl"

    def _pidfile(self, name: str) -> Path:
        return self.run_dir / f"{name}.pid"

    def _is_ours(self, name: str, arguments: list[str]) -> bool:
        # The process id may have been given to someone else's daemon since.
        return super()._is_ours(name, arguments) and f"--pidfile={self._pidfile(name)}" in arguments


async def terminate(pid: int, patience_s: float = 5.0) -> None:
    """End a daemon of ours: asked first, then not asked any more."""
    with suppress(ProcessLookupError):
        handle = os.pidfd_open(pid)
        try:
            signal.pidfd_send_signal(handle, signal.SIGTERM)
            if not await _ended(handle, patience_s):
                signal.pidfd_send_signal(handle, signal.SIGKILL)
                await _ended(handle, patience_s)
        finally:
            os.close(handle)


async def _ended(handle: int, patience_s: float) -> bool:
    loop = asyncio.get_running_loop()
    gone = asyncio.Event()
    loop.add_reader(handle, gone.set)
    try:
        async with asyncio.timeout(patience_s):
            await gone.wait()
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(handle)
    return True
