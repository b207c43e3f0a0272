"""An app as a virtual machine or unikernel: the names and addresses that it takes, and what is noted of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256
from ipaddress import IPv4Interface, IPv6Interface, ip_address, ip_interface
from typing import Any, Final
from uuid import NAMESPACE_URL, uuid5
from xml.etree import ElementTree as ET

from tof.agent.app import Flavour
from tof.errors import BackendError
from tof.model import IpAddress

NOTE_URI: Final = "urn:tof:app:1"
"""The namespace of the element of a domain's metadata that holds what the TOF has to know of it."""
PLATFORM_NETWORK: Final = "platform"
"""The network that leads to the ME platform; an app may be on it besides."""


class DomainError(BackendError):
    """What libvirt said, by its own numbers: ``code`` a virErrorNumber, ``origin`` a virErrorDomain."""

    def __init__(self, message: str, code: int = 0, origin: int = 0) -> None:
        super().__init__(message)
        self.code, self.origin = code, origin


class Hypervisor(StrEnum):
    """What runs the domains; ``qemu`` emulates the processor."""

    KVM = "kvm"
    QEMU = "qemu"
    XEN = "xen"


class Condition(StrEnum):
    """Of a domain; ``held``: made, and not yet let go."""

    RUNNING = "running"
    HELD = "held"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Image:
    """What is booted, by paths of the hypervisor's host: a kernel, or a disk, or both.

    A kernel alone is a unikernel on Xen. ``addresses``: those that are built into it; else it is told them.
    """

    kernel: str = ""
    initrd: str = ""
    disk: str = ""
    disk_format: str = "raw"
    arguments: str = ""
    addresses: tuple[IpAddress, ...] = ()


@dataclass(frozen=True, slots=True)
class Platform:
    """A machine's second adapter: a port of a bridge of the host."""

    bridge: str
    mac: bytes
    addresses: tuple[IPv4Interface | IPv6Interface, ...] = ()


@dataclass(frozen=True, slots=True)
class Machine:
    """What an app takes of the host; ``place`` tells VIMs and TOFs of one host apart."""

    key: str
    app: str
    place: str
    uuid: str
    domain: str
    device: str
    mac: bytes
    digest: str = ""
    addresses: tuple[IPv4Interface | IPv6Interface, ...] = ()
    gateways: tuple[IpAddress, ...] = ()
    groups: tuple[str, ...] = ()
    platform: Platform | None = None

    @property
    def ips(self) -> tuple[IpAddress, ...]:
        """Its addresses in the applications' network."""
        return tuple(one.ip for one in self.addresses)


@dataclass(frozen=True, slots=True)
class Domain:
    """A machine as libvirt has it; ``why``: how it ended."""

    machine: Machine
    condition: Condition
    why: str = ""


@dataclass(frozen=True, slots=True)
class Shape:
    """How a machine is made, beyond what it takes: everything that goes into its domain and is noted nowhere."""

    hypervisor: Hypervisor
    image: Image
    log: str
    mtu: int = 1500
    memory_mb: int = 256
    flavour: Flavour = field(default=Flavour())
    command: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    vif_script: str = ""
    """Xen's script for the adapter towards the TOF; it must not put it into a bridge."""


def machine_of(key: str, app: str, place: str) -> Machine:
    """The names that follow from a key and a place; no addresses yet."""
    mark = sha256(f"{place} {key}".encode()).digest()
    uuid = str(uuid5(NAMESPACE_URL, f"{NOTE_URI}:{place}:{key}"))
    device, mac = f"tofm{mark.hex()[:8]}", bytes([0x06]) + mark[4:9]
    return Machine(key, app, place, uuid, f"tof-{app}-{mark.hex()[:6]}", device, mac)


def platform_mac(machine: Machine) -> bytes:
    """The address of its second adapter."""
    return bytes([0x0A]) + machine.mac[1:]


# what is noted


def note_of(machine: Machine) -> str:
    """What is noted in its domain."""
    platform = machine.platform
    return json.dumps(
        {
            "key": machine.key, "app": machine.app, "place": machine.place, "uuid": machine.uuid,
            "domain": machine.domain, "device": machine.device, "mac": machine.mac.hex(), "digest": machine.digest,
            "addresses": list(map(str, machine.addresses)), "gateways": list(map(str, machine.gateways)),
            "groups": list(machine.groups),
            "platform": platform
            and {
                "bridge": platform.bridge, "mac": platform.mac.hex(), "addresses": list(map(str, platform.addresses)),
            },
        }
    )  # fmt: skip


def parse_note(element: str) -> Machine:
    """The machine that an element of a domain's metadata speaks of; ValueError, KeyError or TypeError if it is another's."""
    try:
        body: Mapping[str, Any] = json.loads(ET.fromstring(element).text or "")
    except ET.ParseError as error:
        raise ValueError(str(error)) from error
    platform = body["platform"]
    return Machine(
        str(body["key"]), str(body["app"]), str(body["place"]), str(body["uuid"]), str(body["domain"]),
        str(body["device"]), bytes.fromhex(body["mac"]), str(body["digest"]),
        tuple(map(ip_interface, body["addresses"])), tuple(map(ip_address, body["gateways"])), tuple(body["groups"]),
        platform
        and Platform(
            str(platform["bridge"]), bytes.fromhex(platform["mac"]), tuple(map(ip_interface, platform["addresses"]))
        ),
    )  # fmt: skip
