"""Machines as values, and the XML of their domains; whether libvirt takes it is for component/test_libvirt_xml."""

from __future__ import annotations

from base64 import b64decode
from dataclasses import replace
from ipaddress import ip_address, ip_interface
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from tof.agent.app import Flavour
from tof.agent.domain import (
    NOTE_URI,
    DomainError,
    Hypervisor,
    Image,
    Machine,
    Platform,
    Shape,
    machine_of,
    parse_note,
    platform_mac,
)
from tof.agent.domain_xml import arguments_of, domain_xml
from tof.errors import BadRequest

LINUX = Image("/images/guest/kernel", "/images/guest/initrd", arguments="quiet")
UNIKERNEL = Image("/images/clickos/kernel")
DISK = Image(disk="/images/debian/disk.qcow2", disk_format="qcow2")


def machine(**more: Any) -> Machine:
    usual = {
        "digest": "d", "groups": ("web",), "gateways": (ip_address("192.168.50.1"), ip_address("fd00:50::1")),
        "addresses": (ip_interface("192.168.50.130/24"), ip_interface("fd00:50::82/64")),
    }  # fmt: skip
    return replace(machine_of("tof.default.web", "web", "/run/tof/vim/kvm"), **(usual | more))


def shape(hypervisor: Hypervisor = Hypervisor.QEMU, image: Image = LINUX, **more: Any) -> Shape:
    return Shape(hypervisor, image, "/run/tof/vim/kvm/web.log", **more)


def tree(made: Machine, how: Shape) -> ET.Element:
    return ET.fromstring(domain_xml(made, how))


def with_platform() -> Machine:
    one = machine()
    return replace(one, platform=Platform("mp0", platform_mac(one), (ip_interface("10.30.0.1/24"),)))


def test_names_follow_from_key_and_place() -> None:
    one, same = machine_of("k", "web", "/a"), machine_of("k", "web", "/a")
    assert one == same
    others = (machine_of("k", "web", "/b"), machine_of("l", "web", "/a"))
    for name in ("uuid", "domain", "device", "mac"):
        assert len({getattr(each, name) for each in (one, *others)}) == 3, name
    assert len(one.device) <= 15
    assert one.mac[0] & 3 == 2, "one adapter's, locally given"
    assert platform_mac(one)[0] & 3 == 2
    assert platform_mac(one) != one.mac


@pytest.mark.parametrize("one", [machine(), with_platform()])
def test_what_is_noted_is_read_again_from_the_xml(one: Machine) -> None:
    note = tree(one, shape()).find(f"metadata/{{{NOTE_URI}}}app")
    assert note is not None
    assert parse_note(ET.tostring(note, encoding="unicode")) == one
    assert one.ips == tuple(address.ip for address in one.addresses)


@pytest.mark.parametrize("note", ["", "<a", "<a/>", "<a>{}</a>", "<a>[]</a>", '<a>{"platform": 1}</a>'])
def test_a_note_of_somebody_elses_is_refused(note: str) -> None:
    with pytest.raises((ValueError, KeyError, TypeError)):
        parse_note(note)


def test_the_guest_is_told_who_it_is() -> None:
    command = ("sh", "-c", "echo 'a b'")
    line = arguments_of(with_platform(), shape(command=command, environment=(("A", "it's"), ("B", ""))))
    words = dict(word.partition("=")[::2] for word in line.split())
    assert words.pop("ip") == "192.168.50.130::192.168.50.1:255.255.255.0:web:eth0:off"
    assert b64decode(words.pop("tof.env")).decode() == "export A='it'\"'\"'s'\nexport B=''\n"
    assert b64decode(words.pop("tof.app")).decode() == "exec sh -c 'echo '\"'\"'a b'\"'\"''\n"
    assert words == {
        "quiet": "", "console": "ttyS0", "panic": "-1", "tof.name": "web",
        "tof.eth0": "192.168.50.130/24,fd00:50::82/64", "tof.gateways": "192.168.50.1,fd00:50::1",
        "tof.eth1": "10.30.0.1/24",
    }  # fmt: skip


def test_a_guest_of_ipv6_alone() -> None:
    one = machine(addresses=(ip_interface("fd00:50::82/64"),), gateways=(), platform=Platform("mp0", b""))
    line = arguments_of(one, shape(Hypervisor.XEN, UNIKERNEL))
    assert line == "console=hvc0 panic=-1 tof.name=web tof.eth0=fd00:50::82/64"


@pytest.mark.parametrize(("hypervisor", "most"), [(Hypervisor.QEMU, 2047), (Hypervisor.XEN, 1023)])
def test_what_does_not_fit_is_refused(hypervisor: Hypervisor, most: int) -> None:
    room = most - len(arguments_of(machine(), shape(hypervisor)))
    whole = Image("/k", "/i", arguments="quiet" + "x" * room)
    assert len(arguments_of(machine(), shape(hypervisor, whole))) == most
    with pytest.raises(BadRequest, match="take 1 bytes more than fit"):
        arguments_of(machine(), shape(hypervisor, replace(whole, arguments=whole.arguments + "x")))


@pytest.mark.parametrize(
    ("hypervisor", "cpu"), [(Hypervisor.QEMU, "maximum"), (Hypervisor.KVM, "host-passthrough")]
)
def test_a_virtual_machine(hypervisor: Hypervisor, cpu: str) -> None:
    top = tree(with_platform(), shape(hypervisor, mtu=1600))
    assert top.get("type") == hypervisor.value
    assert (top.findtext("os/type"), top.find("os/type").get("machine")) == ("hvm", "q35")  # type: ignore[union-attr]
    assert top.find("cpu").get("mode") == cpu  # type: ignore[union-attr]
    assert (top.findtext("memory"), top.findtext("vcpu")) == ("256", "1")
    assert top.find("cputune") is None
    apps, platform = top.findall("devices/interface")
    assert [wire.find("model").get("type") for wire in (apps, platform)] == ["virtio", "virtio"]  # type: ignore[union-attr]
    assert apps.find("target").get("dev") == machine().device  # type: ignore[union-attr]
    assert apps.find("mtu").get("size") == "1600"  # type: ignore[union-attr]
    assert platform.find("source").get("bridge") == "mp0"  # type: ignore[union-attr]
    assert platform.find("mtu") is None
    for wire in (apps, platform):
        switches = [
            value for end in ("host", "guest") for value in wire.find(f"driver/{end}").attrib.values()
        ]  # type: ignore[union-attr]
        assert {*switches} == {"off"}, "frames leave complete"
    assert top.find("devices/disk") is None


def test_a_unikernel_on_xen() -> None:
    """Xen's driver takes no other adapter than netfront, and none of its options."""
    top = tree(with_platform(), shape(Hypervisor.XEN, UNIKERNEL, vif_script="/etc/xen/scripts/vif-tof"))
    assert top.get("type") == "xen"
    assert top.find("os/type").attrib == {"arch": "x86_64", "machine": "xenpv"}  # type: ignore[union-attr]
    assert top.findtext("os/kernel") == UNIKERNEL.kernel
    assert top.find("os/initrd") is None
    assert {e.get("type") for e in top.iterfind("devices/interface/model")} == {"netfront"}
    assert [e.get("path") for e in top.iterfind("devices/interface/script")] == ["/etc/xen/scripts/vif-tof"]
    assert top.find("devices/interface/driver") is None
    assert {child.tag for child in top.find("devices") or ()} == {"interface", "console"}
    assert tree(machine(), shape(Hypervisor.XEN, UNIKERNEL)).find("devices/interface/script") is None


def test_a_disk_has_a_target_and_is_left_as_it_was() -> None:
    top = tree(machine(), shape(image=DISK))
    disk = top.find("devices/disk")
    assert disk is not None
    assert disk.find("target").attrib == {"dev": "vda", "bus": "virtio"}  # type: ignore[union-attr]
    assert disk.find("driver").get("type") == "qcow2"  # type: ignore[union-attr]
    assert disk.find("transient") is not None
    assert top.find("os/kernel") is None
    told = [entry.text for entry in top.iterfind("sysinfo/oemStrings/entry")]
    assert told == [
        word for word in arguments_of(machine(), shape(image=DISK)).split() if word.startswith("tof.")
    ]


@pytest.mark.parametrize(
    ("flavour", "count", "quota"),
    [
        (Flavour(2), "2", None),
        (Flavour(0.5, 64), "1", "50000"),
        (Flavour(1.5), "2", "75000"),
        (Flavour(0.001), "1", "1000"),
    ],
)
def test_flavours(flavour: Flavour, count: str, quota: str | None) -> None:
    top = tree(machine(), shape(flavour=flavour))
    assert (top.findtext("vcpu"), top.findtext("cputune/quota")) == (count, quota)
    assert top.findtext("memory") == str(flavour.memory_mb or 256)


def test_errors_keep_the_numbers_of_libvirt() -> None:
    error = DomainError("no domain", 42, 10)
    assert (str(error), error.code, error.origin) == ("no domain", 42, 10)
