"""A libvirtd of its own for tests: in a network namespace of the test's, with directories that nobody else sees.

    with private_libvirtd(netns, tmp_path) as libvirtd:   # skips where libvirt or QEMU is not installed
        libvirtd.uri                                      # for whoever asks it
        libvirtd.kill(); libvirtd.start()

The host's own directories, users and services are not touched: they are covered in a mount namespace.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from gtp_peers import until
from netns_helper import Netns

from tof.drivers.libvirt_binding import binding
from tof.errors import SetupError

TOP = Path(__file__).resolve().parents[2]
CAPABILITIES = TOP / "build" / "libvirt-cache"
"""What libvirtd finds out about QEMU, which takes it seconds."""
IMAGES = TOP / "build" / "images"

_COVER = """\
set -e
for place in /run/libvirt /var/lib/libvirt /etc/libvirt /var/log/libvirt; do
  mkdir -p $place
  mount -t tmpfs private $place
done
mkdir -p /var/cache/libvirt "$2"
mount --bind "$2" /var/cache/libvirt
for kind in passwd group; do
  cp /etc/$kind "$1/$kind"
done
grep -q ^libvirt-qemu: "$1/passwd" || echo 'libvirt-qemu:x:64055:64055::/nonexistent:/usr/sbin/nologin' >>"$1/passwd"
grep -q ^libvirt-qemu: "$1/group" || echo 'libvirt-qemu:x:64055:' >>"$1/group"
grep -q ^kvm: "$1/group" || echo 'kvm:x:64056:' >>"$1/group"
for kind in passwd group; do
  mount --bind "$1/$kind" /etc/$kind
done
cat >/etc/libvirt/qemu.conf <<END
security_driver = "none"
user = "root"
group = "root"
cgroup_controllers = []
stdio_handler = "file"
namespaces = []
END
cat >"$1/libvirtd.conf" <<END
unix_sock_dir = "$1"
auth_unix_rw = "none"
auth_unix_ro = "none"
unix_sock_group = "root"
log_outputs = "3:file:$1/libvirtd.log"
END
touch "$1/covered"
exec sleep infinity
"""


def usable() -> Any:
    """libvirt's binding; skips, with the reason, where something is missing."""
    for program, package in (("libvirtd", "libvirt-daemon"), ("qemu-system-x86_64", "qemu-system-x86")):
        if shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin") is None:
            pytest.skip(f"{program} is not installed: install the package {package}")
    try:
        return binding()
    except SetupError as error:
        pytest.skip(str(error))


def guest_images() -> Path:
    """The directory with the image ``guest``, built if need be; skips where packages cannot be had."""
    argv = [sys.executable, str(TOP / "tools" / "guest-image"), str(IMAGES / "guest")]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=280)
    if done.returncode:
        pytest.skip(f"no guest image: {done.stderr.strip()}")
    return IMAGES


@dataclass
class Libvirtd:
    """The server, and what it has."""

    netns: Netns
    dir: Path
    libvirt: Any
    holder: subprocess.Popen[bytes]
    server: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        return f"qemu:///system?socket={self.dir}/libvirt-sock"

    def start(self) -> None:
        """Return when it answers."""
        enter = ["nsenter", "-t", str(self.holder.pid), "--mount", "--net"]
        argv = [
            *enter,
            "/usr/sbin/libvirtd",
            "--config",
            f"{self.dir}/libvirtd.conf",
            "--pid-file",
            f"{self.dir}/pid",
        ]
        self.server = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until("libvirtd answers", self._answers, 60, 0.1)

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        assert self.server is not None
        self.server.send_signal(number)
        if number in (signal.SIGKILL, signal.SIGTERM):
            self.server.wait()

    def _answers(self) -> bool:
        try:
            self.libvirt.open(self.uri).close()
        except self.libvirt.libvirtError:
            return False
        return True

    def domains(self) -> list[str]:
        connection = self.libvirt.open(self.uri)
        try:
            return [one.name() for one in connection.listAllDomains()]
        finally:
            connection.close()

    def machines(self) -> list[int]:
        """QEMU's processes, found without libvirt."""
        found = []
        for pid in map(int, _pids(self.netns)):
            with contextlib.suppress(OSError):
                if b"guest=tof-" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    found.append(pid)
        return found

    def left(self) -> list[str]:
        """Everything of an app that is still there."""
        links = self.netns.run("ip", "-br", "link").split("\n")
        found = [line for line in links if line.startswith("tofm")] + self.domains()
        return found + [f"process {pid}" for pid in self.machines()]


def _pids(netns: Netns) -> list[str]:
    argv = ["ip", "netns", "pids", netns.name]
    return subprocess.run(argv, text=True, capture_output=True, check=True).stdout.split()


@contextlib.contextmanager
def private_libvirtd(netns: Netns, directory: Path) -> Iterator[Libvirtd]:
    libvirt = usable()
    place = directory / "libvirt"
    place.mkdir()
    cover = ["unshare", "--mount", "--propagation", "private", "bash", "-c", _COVER, "cover"]
    argv = ["ip", "netns", "exec", netns.name, *cover, str(place), str(CAPABILITIES)]
    holder = subprocess.Popen(argv, stdin=subprocess.DEVNULL)
    libvirtd = Libvirtd(netns, place, libvirt, holder)
    try:
        until("the host's directories are covered", (place / "covered").exists)
        libvirtd.start()
        yield libvirtd
    finally:
        if libvirtd.server is not None and libvirtd.server.poll() is None:
            libvirtd.kill(signal.SIGCONT)
            libvirtd.kill()
        for pid in libvirtd.machines():
            os.kill(pid, signal.SIGKILL)
        holder.kill()
        holder.wait()
