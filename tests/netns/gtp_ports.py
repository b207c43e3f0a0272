"""Applications that have ports of their own: a namespace each, whose adapter has the offloads that it is born with."""

from __future__ import annotations

from dataclasses import dataclass, field

from gtp_peers import TOF_APPS, TOF_APPS6, Tof
from netns_helper import Netns

from tof.dataplane.applications import link_local


@dataclass
class App:
    """An application behind the interface ``app-NAME`` of the TOF."""

    tof: Tof
    name: str
    number: int
    netns: Netns = field(init=False)

    def __post_init__(self) -> None:
        self.netns = Netns(self.name)
        self.wire_up()

    def wire_up(self) -> None:
        self.tof.netns["tof"].veth(self.interface, self.netns, "eth0")
        run = self.netns.run
        run("sysctl", "-q", "-w", "net.ipv6.conf.all.accept_dad=0", "net.ipv6.conf.eth0.accept_dad=0")
        run("ip", "link", "set", "eth0", "down")
        run("ip", "link", "set", "eth0", "address", self.mac.hex(":"))
        run("ip", "link", "set", "eth0", "up")
        run("ip", "address", "add", f"{self.ip}/24", "dev", "eth0")
        run("ip", "address", "add", f"{self.ip6}/64", "dev", "eth0", "nodad")
        run("ip", "route", "add", "default", "via", TOF_APPS)
        run("ip", "route", "add", "default", "via", TOF_APPS6)

    def close(self) -> None:
        self.tof.netns["tof"].run("ip", "link", "del", self.interface, check=False)
        self.netns.close()

    @property
    def interface(self) -> str:
        return f"app-{self.name}"

    @property
    def mac(self) -> bytes:
        return mac_of(self.number)

    @property
    def ip(self) -> str:
        return f"192.168.50.{self.number}"

    @property
    def ip6(self) -> str:
        return f"fd00:50::{self.number}"

    @property
    def link_local(self) -> str:
        return str(link_local(self.mac))


def mac_of(number: int) -> bytes:
    return bytes((2, 0, 0, 0, 5, number))


def section(name: str, number: int, *groups: str) -> str:
    """The application in the TOF's configuration."""
    return (
        f'[applications.{name}]\ninterface = "app-{name}"\nmac = "{mac_of(number).hex(":")}"\n'
        f'addresses = ["192.168.50.{number}", "fd00:50::{number}"]\n'
        f"security_groups = {list(groups)}\n"
    )
