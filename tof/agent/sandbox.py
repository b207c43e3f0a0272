"""An app as a process of this host: the names that it takes here, its address, and the command that isolates it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from ipaddress import ip_address, ip_interface
from typing import Any, Final

from tof.model import IpAddress, IpNetwork

DEVICE: Final = "eth0"
"""What an app calls its interface."""
STATUS_FD: Final = 3
OPTIONS_FD: Final = 5
TMPFS_BYTES: Final = 64 << 20
_APART: Final = (
    *("--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"),
    *("--die-with-parent", "--new-session", "--json-status-fd", str(STATUS_FD)),
)
PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ADDRESS_VARIABLE, NAME_VARIABLE = "TOF_APP_ADDRESS", "TOF_APP_NAME"


@dataclass(frozen=True, slots=True)
class Process:
    """A process, so that another one with its number is not taken for it: when it began, in which boot of the host."""

    pid: int
    started: int
    boot: str


@dataclass(frozen=True, slots=True)
class Sandbox:
    """What an app takes of the host; written down before any of it is made.

    ``addresses`` are packed with their prefix lengths' networks; ``gateways``: the TOF's own addresses there.
    """

    key: str
    app: str
    namespace: str
    device: str
    mac: bytes
    addresses: tuple[IpAddress, ...]
    lengths: tuple[int, ...]
    gateways: tuple[IpAddress, ...]
    groups: tuple[str, ...] = ()
    digest: str = ""
    process: Process | None = None
    running: bool = False
    """Whether it was let go."""

    def with_process(self, process: Process | None, *, running: bool = False) -> Sandbox:
        """The same with this process."""
        return replace(self, process=process, running=running)


def sandbox_of(key: str, app: str, digest: str = "", place: str = "") -> Sandbox:
    """The names that follow from a key, and from the ``place`` that tells TOFs of one host apart; no addresses yet."""
    mark = sha256(f"{place} {key}".encode()).digest()
    mac = bytes([0x06]) + mark[4:9]
    return Sandbox(
        key, app, f"tof-{app}-{mark.hex()[:6]}", f"tofv{mark.hex()[:8]}", mac, (), (), (), (), digest
    )


def free_addresses(
    pool: Sequence[IpNetwork], networks: Sequence[IpNetwork], taken: Collection[IpAddress]
) -> tuple[IpAddress, ...] | None:
    """The first address of each prefix of the pool that nobody has; None if one has no more."""
    found = []
    for prefix in pool:
        ends = {end for network in networks for end in (network.network_address, network.broadcast_address)}
        free = next((a for a in _addresses(prefix) if a not in taken and a not in ends), None)
        if free is None:
            return None
        found.append(free)
    return tuple(found)


def capacity(pool: Sequence[IpNetwork], networks: Sequence[IpNetwork], taken: Collection[IpAddress]) -> int:
    """How many apps there are addresses for."""
    ends = {end for network in networks for end in (network.network_address, network.broadcast_address)}
    return min(
        (prefix.num_addresses - sum(one in prefix for one in {*taken, *ends}) for prefix in pool), default=0
    )


def _addresses(prefix: IpNetwork) -> Iterator[IpAddress]:
    first = int(prefix.network_address)
    for number in range(prefix.num_addresses):
        yield type(prefix.network_address)(first + number)


def digest_of(*parts: object) -> str:
    """What two descriptions of one app have in common, and no others."""
    return sha256(repr(parts).encode()).hexdigest()[:16]


# as text


def sandbox_body(sandbox: Sandbox) -> dict[str, Any]:
    """What is written down of a sandbox."""
    process = sandbox.process
    pairs = zip(sandbox.addresses, sandbox.lengths, strict=True)
    return {
        "key": sandbox.key,
        "app": sandbox.app,
        "namespace": sandbox.namespace,
        "device": sandbox.device,
        "mac": sandbox.mac.hex(),
        "addresses": [f"{address}/{length}" for address, length in pairs],
        "gateways": [str(gateway) for gateway in sandbox.gateways],
        "groups": list(sandbox.groups),
        "digest": sandbox.digest,
        "process": None if process is None else [process.pid, process.started, process.boot],
        "running": sandbox.running,
    }


def parse_sandbox(body: Mapping[str, Any]) -> Sandbox:
    """What ``sandbox_body`` wrote."""
    addresses = [ip_interface(text) for text in body["addresses"]]
    return Sandbox(
        str(body["key"]),
        str(body["app"]),
        str(body["namespace"]),
        str(body["device"]),
        bytes.fromhex(body["mac"]),
        tuple(one.ip for one in addresses),
        tuple(one.network.prefixlen for one in addresses),
        tuple(map(ip_address, body["gateways"])),
        tuple(body["groups"]),
        str(body["digest"]),
        None if body["process"] is None else Process(*body["process"]),
        bool(body["running"]),
    )


# the command


@dataclass(frozen=True, slots=True)
class Root:
    """What an app sees as its file system: directories of the host, or links, by their paths there; all read-only."""

    binds: tuple[tuple[str, str], ...]
    links: tuple[tuple[str, str], ...] = ()
    """Target, path."""


@dataclass(frozen=True, slots=True)
class User:
    """Who an app is on the host."""

    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Isolated:
    """A command, and the options that bubblewrap reads from ``OPTIONS_FD``, where nobody else sees them."""

    argv: tuple[str, ...]
    options: tuple[str, ...]


def isolated(
    sandbox: Sandbox,
    root: Root,
    user: User,
    command: Sequence[str],
    environment: Sequence[tuple[str, str]] = (),
    *,
    own_users: bool = True,
) -> Isolated:
    """How ``command`` is run apart from the host; to be started as root in the app's network namespace.

    ``own_users``: rights are given up first, and a user namespace gives what is needed to mount; without, they are given
    up last, by a setpriv that has to be in ``root``.
    """
    drop = ("setpriv", f"--reuid={user.uid}", f"--regid={user.gid}", "--clear-groups", "--no-new-privs",
            "--inh-caps=-all", "--")  # fmt: skip
    bwrap = ("bwrap", "--args", str(OPTIONS_FD), "--")
    common = (*_APART, "--hostname", sandbox.app, *_variables(sandbox, environment), *_files(root))
    if own_users:
        users = ("--unshare-user", "--uid", str(user.uid), "--gid", str(user.gid), "--cap-drop", "ALL")
        return Isolated((*drop, *bwrap, *command), (*users, *common))
    kept = ("--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID")
    return Isolated((*bwrap, *drop, *command), (*kept, *common))


def _variables(sandbox: Sandbox, environment: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    own = {"PATH": PATH, "HOME": "/tmp", NAME_VARIABLE: sandbox.app}
    own[ADDRESS_VARIABLE] = " ".join(map(str, sandbox.addresses))
    words: list[str] = ["--clearenv"]
    for name, value in {**own, **dict(environment)}.items():
        words += ["--setenv", name, value]
    return tuple(words)


def _files(root: Root) -> tuple[str, ...]:
    words: list[str] = []
    for source, path in root.binds:
        words += ["--ro-bind", source, path]
    for target, path in root.links:
        words += ["--symlink", target, path]
    for path in ("/tmp", "/run", "/var/tmp"):
        words += ["--perms", "1777", "--size", str(TMPFS_BYTES), "--tmpfs", path]
    return (*words, "--proc", "/proc", "--dev", "/dev", "--remount-ro", "/", "--chdir", "/")
