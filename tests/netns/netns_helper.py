"""Network namespaces for tests.

    from netns_helper import MakeNetns

    def test_something(netns: MakeNetns) -> None:
        host, peer = netns("host"), netns("peer")      # "tof-<random>-host": gone when the test ends
        host.veth("enb0", peer, "eth0")                # enb0 here, eth0 in peer, both up
        peer.run("ip", "addr", "add", "10.0.0.1/24", "dev", "eth0")
        with host.entered():                           # this thread is inside: sockets, netlink, /proc/sys
            Host(config).up()
        listener = peer.start("tcpdump", "-i", "eth0")  # ended with the namespace, it alone

``Netns`` is also a context manager for use without the fixture. Inside ``entered()``, asyncio works too, as
long as the loop runs in the same thread. /sys/class/net still shows the outer namespace there: ask netlink,
or ``run``.
"""

import contextlib
import ctypes
import secrets
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)

MakeNetns = Callable[[str], "Netns"]


class Netns:
    """A namespace of its own, removed by ``close`` together with the processes started in it."""

    def __init__(self, role: str) -> None:
        self.name = f"tof-{secrets.token_hex(3)}-{role}"
        self._processes: list[subprocess.Popen[str]] = []
        subprocess.run(["ip", "netns", "add", self.name], check=True)
        self.run("ip", "link", "set", "lo", "up")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, *command: str, check: bool = True, stdin: str = "", timeout: float = 60) -> str:
        """Run a command inside; what it printed, or AssertionError with what it complained about."""
        argv = ["ip", "netns", "exec", self.name, *command]
        done = subprocess.run(argv, input=stdin, text=True, capture_output=True, check=False, timeout=timeout)
        assert not check or done.returncode == 0, (
            f"{command}: {done.returncode}: {done.stderr or done.stdout}"
        )
        return done.stdout

    def start(self, *command: str) -> "subprocess.Popen[str]":
        """Start a command inside, with pipes; it is ended by ``close`` at the latest."""
        argv = ["ip", "netns", "exec", self.name, *command]
        pipe = subprocess.PIPE
        process = subprocess.Popen(argv, text=True, stdin=pipe, stdout=pipe, stderr=pipe)
        self._processes.append(process)
        return process

    def veth(self, mine: str, peer: "Netns", theirs: str) -> None:
        """A wire from ``mine`` here to ``theirs`` in the other namespace, both ends up."""
        ends = ("name", mine, "netns", self.name, "type", "veth", "peer", "name", theirs, "netns", peer.name)
        subprocess.run(["ip", "link", "add", *ends], check=True)
        self.run("ip", "link", "set", mine, "up")
        peer.run("ip", "link", "set", theirs, "up")

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Move the calling thread into the namespace for the length of the block."""
        with Path("/proc/thread-self/ns/net").open("rb") as home:
            with Path(f"/run/netns/{self.name}").open("rb") as inside:
                _setns(inside.fileno())
            try:
                yield
            finally:
                _setns(home.fileno())

    def close(self) -> None:
        """End the processes started here, then remove the namespace."""
        for process in self._processes:
            process.kill()
            process.communicate()
        subprocess.run(["ip", "netns", "del", self.name], check=False)


def _setns(handle: int) -> None:
    if _libc.setns(handle, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")
