"""libvirt itself takes the XML of every kind of domain: checked against its schema, defined, started, in its test driver."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address, ip_interface
from typing import Any

import pytest

from tof.agent.app import Flavour
from tof.agent.domain import (
    NOTE_URI,
    Hypervisor,
    Image,
    Platform,
    Shape,
    machine_of,
    parse_note,
    platform_mac,
)
from tof.agent.domain_xml import domain_xml
from tof.drivers.libvirt_binding import binding
from tof.errors import SetupError

IMAGES = {
    "linux": Image("/images/guest/kernel", "/images/guest/initrd", arguments="quiet <&> \"'"),
    "unikernel": Image("/images/clickos/kernel"),
    "disk": Image(disk="/images/debian/disk.qcow2", disk_format="qcow2"),
}


@pytest.fixture(scope="module")
def libvirt() -> Any:
    try:
        return binding()
    except SetupError as error:
        pytest.skip(str(error))


@pytest.fixture
def connection(libvirt: Any) -> Iterator[Any]:
    opened = libvirt.open("test:///default")
    yield opened
    opened.close()


@pytest.mark.parametrize("image", IMAGES)
@pytest.mark.parametrize("hypervisor", Hypervisor)
@pytest.mark.parametrize("platform", [False, True])
def test_libvirt_takes_it(
    libvirt: Any, connection: Any, hypervisor: Hypervisor, image: str, *, platform: bool
) -> None:
    if hypervisor is Hypervisor.XEN and image == "disk":
        pytest.skip("on Xen an image has to have a kernel")
    machine = machine_of("tof.default.web", "web", "/run/tof/vim/kvm")
    machine = replace(
        machine, addresses=(ip_interface("192.168.50.130/24"), ip_interface("fd00:50::82/64")),
        gateways=(ip_address("192.168.50.1"),), groups=("web",),
        platform=Platform("mp0", platform_mac(machine), (ip_interface("10.30.0.1/24"),)) if platform else None,
    )  # fmt: skip
    shape = Shape(
        hypervisor, IMAGES[image], "/run/tof/vim/kvm/web.log", flavour=Flavour(1.5, 64), command=("a", "b c"),
        environment=(("A", "<&>"),), vif_script="/etc/xen/scripts/vif-tof",
    )  # fmt: skip
    xml = domain_xml(machine, shape)
    made = connection.defineXMLFlags(xml, libvirt.VIR_DOMAIN_DEFINE_VALIDATE)
    assert made.UUIDString() == machine.uuid
    assert parse_note(made.metadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, NOTE_URI)) == machine
    made.create()
    made.destroy()
    again = made.XMLDesc()
    connection.defineXMLFlags(again, libvirt.VIR_DOMAIN_DEFINE_VALIDATE)
    made.undefine()


def test_what_the_schema_does_not_know_is_refused(libvirt: Any, connection: Any) -> None:
    """The check is one: the same call refuses a disk without a target."""
    machine = machine_of("k", "web", "/p")
    xml = domain_xml(machine, Shape(Hypervisor.KVM, IMAGES["disk"], "/l"))
    wrong = xml.replace('<target dev="vda" bus="virtio" />', "")
    assert wrong != xml
    with pytest.raises(libvirt.libvirtError, match=r"schema|target"):
        connection.defineXMLFlags(wrong, libvirt.VIR_DOMAIN_DEFINE_VALIDATE)
