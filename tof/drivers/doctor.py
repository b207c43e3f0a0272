"""``tof doctor``: what this host has and lacks for a TOF, each with a remedy; nothing is changed."""

from __future__ import annotations

import ctypes
import fcntl
import os
import platform
import re
import shutil
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from tof.config import Config, LibvirtVim, UnixListen
from tof.drivers import adapters, cgroups, libvirt_probe, spread, sysctl
from tof.drivers.netlink import Netlink
from tof.errors import BackendError, SetupError

_CAPABILITIES = {"NET_ADMIN": 12, "NET_RAW": 13, "SYS_ADMIN": 21, "PERFMON": 38, "BPF": 39}
_OLDEST_KERNEL = (6, 1)
_KNOWN_OVS = ((2, 17), (3, 7))
_TOOLS = {
    "ovs-vswitchd": "openvswitch-switch",
    "ovsdb-server": "openvswitch-switch",
    "ovs-vsctl": "openvswitch-switch",
    "iptables": "iptables",
}
_DNS_TOOLS = {"unbound": "unbound", "unbound-control": "unbound"}
_TUNSETIFF, _IFF_TAP, _IFF_NO_PI = 0x400454CA, 0x2, 0x1000
_BPF_PROG_LOAD, _BPF_PROG_TYPE_XDP = 5, 6
_BPF_SYSCALL = {"x86_64": 321, "aarch64": 280, "riscv64": 280}


class State(StrEnum):
    """What is known about a capability: there, not there, or it could not be asked."""

    OK = "ok"
    MISSING = "missing"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Finding:
    """One capability, how it stands, and what to do when it does not stand well."""

    name: str
    state: State
    detail: str
    remedy: str = ""


def examine(config: Config | None = None) -> list[Finding]:
    """Look at everything a TOF needs; with a configuration also at what that one needs."""
    findings = [
        _kernel(),
        *_capabilities(),
        *_kernel_features(),
        *_sysctls(),
        *_tools(_TOOLS),
        _ovs(),
        _libbpf(),
        *_local_apps(),
    ]
    if config:
        findings += _tools(_DNS_TOOLS) if config.dns.server != "off" else ()
        findings += [*_adapters(config), *_directories(config), *_socket_path(config)]
        findings += [one for vim in config.vims if isinstance(vim, LibvirtVim) for one in _libvirt(vim)]
        findings += [*map(_receive_queues, config.s1.interfaces), _ipsec()]
    return findings


def _local_apps() -> Iterator[Finding]:
    there = shutil.which("bwrap")
    what = there or "no bwrap, so no apps of a local VIM: install the package bubblewrap"
    yield Finding("isolation of local apps", State.OK if there else State.MISSING, what)
    found = cgroups.layout()
    version = "version 2" if found.unified else "version 1"
    if found.why is None:
        yield Finding("limits of local apps", State.UNKNOWN, f"{cgroups.ROOT} is not there, or empty")
    elif found.why:
        yield Finding("limits of local apps", State.MISSING, f"{version}: {found.why}, so no flavours")
    else:
        yield Finding("limits of local apps", State.OK, f"control groups, {version}")


def _libvirt(vim: LibvirtVim) -> Iterator[Finding]:
    name, found = f"vim.{vim.name}", [*libvirt_probe.troubles(vim)]
    yield from (Finding(name, State.MISSING, why, remedy) for why, remedy in found)
    if not found:
        yield Finding(name, State.OK, f"{vim.uri} answers, and has the image {vim.image}")


def _kernel() -> Finding:
    release = platform.release()
    version = _version(release)
    state = State.UNKNOWN if version is None else State.OK if version >= _OLDEST_KERNEL else State.MISSING
    return Finding("kernel", state, release, "" if state is State.OK else "use Linux 6.1 or newer")


def _capabilities() -> Iterator[Finding]:
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        held = int(re.findall(r"CapEff:\s*([0-9a-f]+)", status)[0], 16)
    except (OSError, IndexError):
        yield Finding("capabilities", State.UNKNOWN, "/proc/self/status does not say", "mount /proc")
        return
    for name, bit in _CAPABILITIES.items():
        there = bool(held >> bit & 1)
        remedy = "" if there else f"run as root, or grant CAP_{name} (systemd: AmbientCapabilities=)"
        yield Finding(f"CAP_{name}", State.OK if there else State.MISSING, f"uid {os.geteuid()}", remedy)


def _kernel_features() -> Iterator[Finding]:
    yield _probe("XDP", _try_xdp, "enable CONFIG_BPF_SYSCALL, or lift the ban on the bpf system call")
    yield _probe("tun device", _try_tap, "modprobe tun; in a container pass /dev/net/tun")
    yield _tried_in_namespace("bridge", ["ip", "link", "add", "x0", "type", "bridge"], "modprobe bridge")
    yield _tried_in_namespace("veth", ["ip", "link", "add", "x0", "type", "veth"], "modprobe veth")
    base = ["iptables", "-t", "raw", "-A", "PREROUTING"]
    queue = [*base, "-j", "NFQUEUE", "--queue-num", "0", "--queue-bypass"]
    yield _tried_in_namespace("iptables NFQUEUE target", queue, "modprobe xt_NFQUEUE nfnetlink_queue")
    physdev = [*base, "-m", "physdev", "--physdev-in", "x0"]
    yield _tried_in_namespace("iptables physdev match", physdev, "modprobe xt_physdev br_netfilter")


def _probe(name: str, attempt: Callable[[], str], remedy: str) -> Finding:
    try:
        return Finding(name, State.OK, attempt())
    except PermissionError as error:
        return Finding(name, State.UNKNOWN, f"not allowed to ask: {error.strerror}", "run as root")
    except OSError as error:
        return Finding(name, State.MISSING, error.strerror or str(error), remedy)


def _try_xdp() -> str:
    """Load a program that does nothing: r0 = XDP_PASS; exit."""
    number = _BPF_SYSCALL.get(platform.machine())
    if number is None:
        raise PermissionError(0, f"no bpf system call number for {platform.machine()}")
    program = ctypes.create_string_buffer(struct.pack("=BBhiBBhi", 0xB7, 0, 0, 2, 0x95, 0, 0, 0))
    licence = ctypes.create_string_buffer(b"Apache-2.0")
    head = struct.pack("=IIQQ", _BPF_PROG_TYPE_XDP, 2, ctypes.addressof(program), ctypes.addressof(licence))
    attributes = ctypes.create_string_buffer(head + bytes(104))
    libc = ctypes.CDLL(None, use_errno=True)
    handle = libc.syscall(number, _BPF_PROG_LOAD, attributes, len(attributes) - 1)
    if handle < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    os.close(handle)
    return "a program loads"


def _try_tap() -> str:
    handle = os.open("/dev/net/tun", os.O_RDWR)
    try:
        # The kernel names it; it is gone when the handle is closed.
        fcntl.ioctl(handle, _TUNSETIFF, struct.pack("16sH22x", b"tofdoc%d", _IFF_TAP | _IFF_NO_PI))
    finally:
        os.close(handle)
    return "a tap device can be made"


def _tried_in_namespace(name: str, command: list[str], remedy: str) -> Finding:
    """Try a command where it can do no harm: in a network namespace that dies with it."""
    if os.geteuid():
        return Finding(name, State.UNKNOWN, "only root can try", "run as root")
    try:
        done = subprocess.run(
            ["unshare", "--net", *command], capture_output=True, text=True, check=False, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding(name, State.UNKNOWN, f"cannot try: {error}", "install util-linux and iproute2")
    if done.returncode == 0:
        return Finding(name, State.OK, "works")
    first = (done.stderr.strip().splitlines() or ["no reason given"])[0]
    absent = shutil.which(command[0]) is None
    return Finding(name, State.UNKNOWN if absent else State.MISSING, first, remedy)


def _sysctls() -> Iterator[Finding]:
    value = sysctl.read("net/bridge/bridge-nf-call-iptables")
    if value is None:
        yield Finding("br_netfilter", State.MISSING, "not loaded", "modprobe br_netfilter")
        return
    yield Finding("br_netfilter", State.OK, "loaded")
    others = (
        "" if value == "0" else "set to 0 while the TOF is up: other bridges here lose iptables filtering"
    )
    remedy = (
        "run the TOF in a network namespace of its own if container networks depend on it" if others else ""
    )
    yield Finding("bridge-nf-call-iptables", State.OK, others or "0 already", remedy)


def _tools(tools: Mapping[str, str]) -> Iterator[Finding]:
    for tool, package in tools.items():
        path = shutil.which(tool)
        remedy = "" if path else f"apt install {package}"
        yield Finding(tool, State.OK if path else State.MISSING, path or "not found", remedy)


def _ovs() -> Finding:
    name, remedy = "Open vSwitch version", "use 2.17 to 3.7, the versions known to work"
    try:
        done = subprocess.run(
            ["ovs-vswitchd", "--version"], capture_output=True, text=True, check=False, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding(name, State.UNKNOWN, f"cannot ask: {error}", "apt install openvswitch-switch")
    first = (done.stdout.splitlines() or [""])[0]
    version = _version(first)
    if version is None:
        return Finding(name, State.UNKNOWN, first or "says nothing", remedy)
    known = _KNOWN_OVS[0] <= version <= _KNOWN_OVS[1]
    return Finding(name, State.OK if known else State.UNKNOWN, first, "" if known else remedy)


def _libbpf() -> Finding:
    try:
        ctypes.CDLL("libbpf.so.1")
    except OSError as error:
        return Finding("libbpf.so.1", State.MISSING, str(error), "apt install libbpf1")
    return Finding("libbpf.so.1", State.OK, "loads")


def _adapters(config: Config) -> Iterator[Finding]:
    try:
        with Netlink() as net:
            adapters.check(net, config)
    except SetupError as error:
        yield Finding("adapters", State.MISSING, str(error), "see the message")
        return
    except BackendError as error:
        yield Finding("adapters", State.UNKNOWN, str(error), "run as root")
        return
    yield Finding("adapters", State.OK, ", ".join((*config.s1.interfaces, config.ue.app_interface)))


def _directories(config: Config) -> Iterator[Finding]:
    for key, path in (("state.dir", config.state.dir), ("state.run_dir", config.state.run_dir)):
        nearest = next(one for one in (path, *path.parents) if one.exists())
        fine = nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)
        remedy = "" if fine else f"make {nearest} a directory this user can write to, or change {key}"
        yield Finding(key, State.OK if fine else State.MISSING, str(path), remedy)


def _socket_path(config: Config) -> Iterator[Finding]:
    for listen in config.api.listen:
        if isinstance(listen, UnixListen):
            taken = _answers(listen.path)
            detail = f"{listen.path}: {'an agent answers there' if taken else 'free'}"
            yield Finding("API socket", State.OK, detail)


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(path) == 0


def _receive_queues(interface: str) -> Finding:
    name, found = f"receive queues of {interface}", spread.read(interface)
    if found is None:
        return Finding(name, State.UNKNOWN, "it cannot be asked", f"see ethtool -l {interface}")
    return Finding(name, State.OK, *spread.advice(interface, found, len(os.sched_getaffinity(0))))


def _ipsec() -> Finding:
    return Finding(
        "IPsec on S1",
        State.UNKNOWN,
        "the TOF cannot look into S1 traffic that is encrypted",
        "place the TOF between the security gateway and the SGW if S1 is protected by IPsec",
    )


def _version(text: str) -> tuple[int, int] | None:
    found = re.search(r"(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else None
