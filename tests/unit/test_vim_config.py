"""``[vim.NAME]``: what may be set, and which addresses apps get."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from tof.config import AnyVim, LibvirtVim, LocalVim
from tof.config.reading import parse
from tof.errors import SetupError

BARE = '[s1]\nenb_interface = "enb0"\nsgw_interface = "sgw0"\n[ue]\napp_interface = "apps0"\n'


def vims(text: str, ue: str = "") -> tuple[AnyVim, ...]:
    return parse(f"{BARE}{ue}\n{text}").vims


def test_local_is_there_without_being_named() -> None:
    (local,) = vims("")
    assert local == LocalVim(pool=(ip_network("192.168.50.128/25"),))


def test_the_pool_is_the_upper_half_of_each_network() -> None:
    (local,) = vims("", 'app_address = ["10.1.2.1/24", "fd00:50::1/64"]')
    assert local.pool == (ip_network("10.1.2.128/25"), ip_network("fd00:50::ffff:ffff:ffff:0/112"))
    (local,) = vims("", 'app_address = ["10.1.2.1/31"]')
    assert local.pool == (), "too small for anybody else"


def test_several_at_once() -> None:
    found = vims('[vim.left]\nbackend = "local"\npool = "192.168.50.64/26"\nuser = "games"\nmax_apps = 3')
    assert [(vim.name, vim.pool, vim.user, vim.max_apps) for vim in found if isinstance(vim, LocalVim)] == [
        ("left", (ip_network("192.168.50.64/26"),), "games", 3),
        ("local", (ip_network("192.168.50.128/25"),), "nobody", 256),
    ]


def test_libvirt() -> None:
    text = '[vim.kvm]\nbackend = "libvirt"\npool = "192.168.50.64/27"\n'
    kvm, _ = vims(text)
    assert kvm == LibvirtVim("kvm", pool=(ip_network("192.168.50.64/27"),))
    more = (
        'platform_bridge = "mp0"\nplatform_pool = "10.30.0.0/24"\nhypervisor = "xen"\nuri = "xen:///system"\n'
    )
    xen, _ = vims(text + more)
    assert isinstance(xen, LibvirtVim)
    assert (xen.platform_bridge, xen.platform_pool) == ("mp0", (ip_network("10.30.0.0/24"),))
    assert (xen.uri, xen.hypervisor) == ("xen:///system", "xen")


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ('[vim.kvm]\nbackend = "libvirt"', "vim.kvm.pool: missing"),
        ('[vim.kvm]\nbackend = "libvirt"\npool = []', "vim.kvm.pool: must not be empty"),
        (
            '[vim.kvm]\nbackend = "libvirt"\npool = "10.0.0.0/8"',
            r"vim.kvm.pool\[0\]: 10.0.0.0/8 is not inside",
        ),
        ('[vim.kvm]\nbackend = "libvirt"\npool = "192.168.50.64/27"\nuri = "here"', "vim.kvm.uri"),
        (
            '[vim.kvm]\nbackend = "libvirt"\npool = "192.168.50.64/27"\nhypervisor = "bhyve"',
            "vim.kvm.hypervisor",
        ),
        ('[vim.kvm]\nbackend = "libvirt"\npool = "192.168.50.64/27"\nimage = "../x"', "vim.kvm.image"),
        (
            '[vim.kvm]\nbackend = "libvirt"\npool = "192.168.50.64/27"\nplatform_pool = "10.0.0.0/8"',
            "vim.kvm.platform_pool: without platform_bridge",
        ),
        (
            '[vim.kvm]\nbackend = "libvirt"\npool = "192.168.50.64/27"\nplatform_bridge = "b"\n'
            'platform_pool = ["10.0.0.0/24", "10.0.1.0/24"]',
            r"vim.kvm.platform_pool\[1\]: a second prefix",
        ),
        ("[vim.Local]", "vim.Local"),
        ("[vim.local]", "vim.local.backend: missing"),
        ('[vim.local]\nbackend = "cloud"', "vim.local.backend"),
        ('[vim.local]\nbackend = "local"\ncolour = 1', "vim.local.colour: unknown key"),
        (
            '[vim.local]\nbackend = "local"\npool = "10.0.0.0/8"',
            r"vim.local.pool\[0\]: 10.0.0.0/8 is not inside",
        ),
        (
            '[vim.local]\nbackend = "local"\npool = ["192.168.50.64/27", "192.168.50.96/27"]',
            r"vim.local.pool\[1\]: a second prefix",
        ),
        ('[vim.local]\nbackend = "local"\npaths = ["/"]', r"vim.local.paths\[0\]"),
        ('[vim.local]\nbackend = "local"\npaths = ["/usr/../etc"]', r"vim.local.paths\[0\]"),
        ('[vim.local]\nbackend = "local"\nuser = "No One"', "vim.local.user"),
        ('[vim.local]\nbackend = "local"\nmax_apps = 0', "vim.local.max_apps"),
        (
            '[vim.a]\nbackend = "local"\npool = "192.168.50.0/26"\n[vim.b]\nbackend = "local"\npool = "192.168.50.32/27"',
            "vim.b.pool: 192.168.50.32/27 overlaps the pool of vim.a",
        ),
        ("\n".join(f'[vim.v{n}]\nbackend = "local"\npool = []' for n in range(16)), "vim: 17 of them"),
    ],
)
def test_what_is_refused_names_its_path(text: str, path: str) -> None:
    with pytest.raises(SetupError, match=path):
        vims(text)
