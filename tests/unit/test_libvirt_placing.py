"""Addresses and networks of virtual machines."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

import pytest

from tof.agent.domain import Image, Machine, machine_of
from tof.vim.errors import NoCapacity, QuotaExceeded, Rejected
from tof.vim.interface import AppSpec
from tof.vim.libvirt_placing import LibvirtPolicy, placed

POLICY = LibvirtPolicy(
    "/run/tof/vim/kvm",
    (ip_network("192.168.50.4/30"), ip_network("fd00:50::4/126")),
    (ip_network("192.168.50.0/24"), ip_network("fd00:50::/64")),
    (ip_address("192.168.50.1"), ip_address("fd00:50::1")),
    frozenset({ip_address("192.168.50.4")}),
    max_apps=8,
    platform_bridge="mp0",
    platform_pool=(ip_network("10.30.0.0/30"),),
)
LINUX = Image("/kernel", "/initrd")


def place(
    name: str,
    known: Iterable[Machine] = (),
    policy: LibvirtPolicy = POLICY,
    image: Image = LINUX,
    **more: Any,
) -> Machine:
    return placed(policy, AppSpec(name, **more), image, machine_of(name, name, policy.place), tuple(known))


def test_one_of_each_family_that_nobody_has() -> None:
    one = place("one", groups=("web",))
    assert one.addresses == (ip_interface("192.168.50.5/24"), ip_interface("fd00:50::4/64"))
    assert (one.gateways, one.groups, one.platform) == (POLICY.gateways, ("web",), None)
    two = place("two", [one])
    assert two.addresses == (ip_interface("192.168.50.6/24"), ip_interface("fd00:50::5/64"))


def test_gateways_of_its_families_alone() -> None:
    assert place("one", policy=replace(POLICY, pool=POLICY.pool[:1])).gateways == POLICY.gateways[:1]


def test_the_platform_is_asked_for() -> None:
    one = place("one", networks=("apps", "platform"))
    assert one.platform is not None
    assert (one.platform.bridge, one.platform.addresses) == ("mp0", (ip_interface("10.30.0.1/30"),))
    two = place("two", [one], networks=("platform", "apps"))
    assert two.platform is not None
    assert two.platform.addresses == (ip_interface("10.30.0.2/30"),)
    with pytest.raises(NoCapacity, match="platform_pool"):
        place("three", [one, two], networks=("platform",))
    bare = place("four", policy=replace(POLICY, platform_pool=()), networks=("platform",)).platform
    assert bare is not None
    assert bare.addresses == ()


def test_what_is_used_up() -> None:
    known = [place("a")]
    known += [place("b", known)]
    known += [place("c", known)]
    with pytest.raises(NoCapacity, match="no address of the pool"):
        place("d", known)
    with pytest.raises(QuotaExceeded, match="3 apps are there"):
        place("d", known, replace(POLICY, max_apps=3))


def test_addresses_that_are_built_in() -> None:
    fixed = Image("/kernel", addresses=(ip_address("192.168.50.99"),))
    one = place("one", image=fixed)
    assert one.addresses == (ip_interface("192.168.50.99/24"),)
    with pytest.raises(NoCapacity, match=r"192\.168\.50\.99, which is built into the image, is taken"):
        place("two", [one], image=fixed)
    with pytest.raises(Rejected, match="in no network"):
        place("two", image=Image("/kernel", addresses=(ip_address("10.9.9.9"),)))
