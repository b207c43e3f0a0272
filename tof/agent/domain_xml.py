"""A machine for libvirt: the XML of its domain, and the command line by which its guest is told who it is."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Sequence
from math import ceil
from shlex import join, quote
from typing import Final
from xml.etree import ElementTree as ET

from tof.agent.domain import NOTE_URI, Hypervisor, Image, Machine, Shape, note_of
from tof.errors import BadRequest

MOST_ARGUMENTS: Final = {Hypervisor.KVM: 2047, Hypervisor.QEMU: 2047, Hypervisor.XEN: 1023}
"""How long a guest's command line may be: COMMAND_LINE_SIZE of Linux, MAX_GUEST_CMDLINE of Xen."""
_PERIOD_US: Final = 100_000
_OFFLOADS: Final = ("csum", "gso", "tso4", "tso6", "ecn", "ufo")
_HOST_ONLY: Final = ("gso",)


def arguments_of(machine: Machine, shape: Shape) -> str:
    """The command line of a guest's kernel; BadRequest if it would be too long."""
    words = [shape.image.arguments, *_words(machine, shape)]
    line = " ".join(filter(None, words))
    most = MOST_ARGUMENTS[shape.hypervisor]
    if len(line) > most:
        raise BadRequest(f"command and environment take {len(line) - most} bytes more than fit", "command")
    return line


def _words(machine: Machine, shape: Shape) -> Iterator[str]:
    yield "console=hvc0" if shape.hypervisor is Hypervisor.XEN else "console=ttyS0"
    yield "panic=-1"
    yield f"tof.name={machine.app}"
    yield f"tof.eth0={_joined(machine.addresses)}"
    if machine.gateways:
        yield f"tof.gateways={_joined(machine.gateways)}"
    if machine.platform is not None and machine.platform.addresses:
        yield f"tof.eth1={_joined(machine.platform.addresses)}"
    gateway = next((str(one) for one in machine.gateways if one.version == 4), "")
    for one in machine.addresses:
        if one.version == 4:
            yield f"ip={one.ip}::{gateway}:{one.netmask}:{machine.app}:eth0:off"
    if shape.environment:
        yield "tof.env=" + _packed("\n".join(f"export {name}={quote(v)}" for name, v in shape.environment))
    if shape.command:
        yield "tof.app=" + _packed("exec " + join(shape.command))


def _joined(values: Sequence[object]) -> str:
    return ",".join(map(str, values))


def _packed(text: str) -> str:
    return b64encode(f"{text}\n".encode()).decode()


# the domain


def domain_xml(machine: Machine, shape: Shape) -> str:
    """What libvirt is told."""
    top = ET.Element("domain", type=shape.hypervisor.value)
    _text(top, "name", machine.domain)
    _text(top, "uuid", machine.uuid)
    note = ET.SubElement(ET.SubElement(top, "metadata"), "tof:app", {"xmlns:tof": NOTE_URI})
    note.text = note_of(machine)
    _text(top, "memory", str(shape.flavour.memory_mb or shape.memory_mb), unit="MiB")
    _processors(top, shape.flavour.cpu)
    _boot(top, machine, shape)
    if shape.hypervisor is not Hypervisor.XEN:
        ET.SubElement(ET.SubElement(top, "features"), "acpi")
        # without KVM everything that can be emulated, with it everything that the processor has
        ET.SubElement(
            top, "cpu", mode="host-passthrough" if shape.hypervisor is Hypervisor.KVM else "maximum"
        )
    ET.SubElement(top, "clock", offset="utc")
    for event in ("on_poweroff", "on_reboot", "on_crash"):
        _text(top, event, "destroy")
    _devices(ET.SubElement(top, "devices"), machine, shape)
    return ET.tostring(top, encoding="unicode")


def _processors(top: ET.Element, cpu: float | None) -> None:
    count = max(1, ceil(cpu or 1))
    _text(top, "vcpu", str(count))
    if cpu is not None and cpu != count:
        tune = ET.SubElement(top, "cputune")
        _text(tune, "period", str(_PERIOD_US))
        _text(tune, "quota", str(max(1000, int(_PERIOD_US * cpu / count))))


def _boot(top: ET.Element, machine: Machine, shape: Shape) -> None:
    image, boot = shape.image, ET.SubElement(top, "os")
    if shape.hypervisor is Hypervisor.XEN:
        _text(boot, "type", "linux", arch="x86_64", machine="xenpv")
    else:
        _text(boot, "type", "hvm", arch="x86_64", machine="q35")
    if image.kernel:
        _text(boot, "kernel", image.kernel)
        if image.initrd:
            _text(boot, "initrd", image.initrd)
        _text(boot, "cmdline", arguments_of(machine, shape))
        return
    # who boots from its disk has no command line: it finds the words in its firmware's tables
    ET.SubElement(boot, "boot", dev="hd")
    ET.SubElement(boot, "smbios", mode="sysinfo")
    strings = ET.SubElement(ET.SubElement(top, "sysinfo", type="smbios"), "oemStrings")
    for word in arguments_of(machine, shape).split():
        if word.startswith("tof."):
            _text(strings, "entry", word)


def _devices(devices: ET.Element, machine: Machine, shape: Shape) -> None:
    xen = shape.hypervisor is Hypervisor.XEN
    if not xen:
        ET.SubElement(devices, "controller", type="usb", model="none")
    if shape.image.disk:
        _disk(devices, shape.image)
    wire = ET.SubElement(devices, "interface", type="ethernet")
    ET.SubElement(wire, "mac", address=machine.mac.hex(":"))
    if xen and shape.vif_script:
        ET.SubElement(wire, "script", path=shape.vif_script)
    ET.SubElement(wire, "target", dev=machine.device)
    _adapter(wire, shape, shape.mtu)
    if machine.platform is not None:
        wire = ET.SubElement(devices, "interface", type="bridge")
        ET.SubElement(wire, "mac", address=machine.platform.mac.hex(":"))
        ET.SubElement(wire, "source", bridge=machine.platform.bridge)
        _adapter(wire, shape)
    if xen:
        console = ET.SubElement(devices, "console", type="pty")
        ET.SubElement(console, "target", type="xen", port="0")
        return
    serial = ET.SubElement(devices, "serial", type="file")
    ET.SubElement(serial, "source", path=shape.log, append="on")
    ET.SubElement(devices, "memballoon", model="none")


def _adapter(wire: ET.Element, shape: Shape, mtu: int | None = None) -> None:
    """Frames have to be complete, in both directions: no kernel behind br-ue finishes their checksums."""
    if shape.hypervisor is Hypervisor.XEN:
        ET.SubElement(wire, "model", type="netfront")
        return
    ET.SubElement(wire, "model", type="virtio")
    driver = ET.SubElement(wire, "driver")
    ET.SubElement(driver, "host", dict.fromkeys(_OFFLOADS, "off"))
    ET.SubElement(driver, "guest", {name: "off" for name in _OFFLOADS if name not in _HOST_ONLY})
    if mtu is not None:
        ET.SubElement(wire, "mtu", size=str(mtu))
    ET.SubElement(wire, "rom", enabled="no")


def _disk(devices: ET.Element, image: Image) -> None:
    """What a guest writes is its own, and gone with it."""
    disk = ET.SubElement(devices, "disk", type="file", device="disk")
    ET.SubElement(disk, "driver", name="qemu", type=image.disk_format)
    ET.SubElement(disk, "source", file=image.disk)
    ET.SubElement(disk, "target", dev="vda", bus="virtio")
    ET.SubElement(disk, "transient", shareBacking="yes")


def _text(parent: ET.Element, name: str, text: str, **attributes: str) -> None:
    ET.SubElement(parent, name, attributes).text = text
