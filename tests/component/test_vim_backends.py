"""Nomad and OpenVIM: what an app becomes there, what is said of what cannot be."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import subprocess
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from nomad_server import ADDRESS, NEW, OLD, NomadServer
from openvim_server import OpenVimServer
from remote_vims import BACK_ENDS, CLICKOS, KEY, SITE, SLEEP, THERE, nomad_vim, openvim_server, openvim_vim

from tof.agent.app import Flavour
from tof.vim.errors import (
    AlreadyExists,
    AuthFailed,
    BackendFault,
    NoCapacity,
    Rejected,
    TimedOut,
    Unavailable,
    VimError,
)
from tof.vim.interface import AppSpec, Instance, InstanceState
from tof.vim.nomad import NomadVim
from tof.vim.nomad_job import NomadPolicy
from tof.vim.openvim import mac_of
from tof.vim.remote import RemoteVim
from tof.vim.rest import Access

versions = pytest.mark.parametrize("version", [OLD, NEW])


def soon(seconds: float = 20) -> float:
    return asyncio.get_running_loop().time() + seconds


async def made(vim: RemoteVim, spec: AppSpec, key: str = KEY) -> Instance:
    return await vim.create(spec, key=key, deadline=soon())


@pytest.mark.parametrize("name", BACK_ENDS)
async def test_an_app_lives_once_and_leaves_nothing(name: str) -> None:
    back_end = BACK_ENDS[name]
    async with back_end.running() as (server, url), contextlib.aclosing(back_end.vim(url)) as vim:
        vim.on_loss(lambda _key, _why: None)
        await vim.tend()
        assert await vim.get(KEY) is None
        assert list(await vim.list()) == []
        one = await made(vim, back_end.spec)
        assert (one.state, one.key, one.fault) == (InstanceState.ACTIVE, KEY, "")
        assert one.reach == one.app_ip is not None
        assert one.timings
        assert all(seconds >= 0 for _, seconds in one.timings)
        whole = server.left
        assert await vim.get(KEY) == replace(one, timings=()) == await made(vim, back_end.spec)
        assert [(each.key, each.state) for each in await vim.list()] == [(KEY, InstanceState.ACTIVE)]
        with pytest.raises(AlreadyExists, match="another app"):
            await made(vim, replace(back_end.spec, flavour=Flavour(memory_mb=64)))
        assert server.left == whole, "nothing of another app is touched"
        await vim.delete(KEY, deadline=soon())
        assert server.left == []
        await vim.delete(KEY, deadline=soon())
        again = await made(vim, back_end.spec)
        assert again.backend_id != one.backend_id
        await vim.delete(KEY, deadline=soon())


@pytest.mark.parametrize("name", BACK_ENDS)
async def test_two_sites_on_one_vim(name: str) -> None:
    """The same key is another app there, and nobody sees what is the other's."""
    back_end = BACK_ENDS[name]
    async with (
        back_end.running() as (server, url),
        contextlib.aclosing(back_end.vim(url)) as one,
        contextlib.aclosing(back_end.vim(url)) as two,
    ):
        two._prefix = "tof.edge-8."
        ours, theirs = await made(one, back_end.spec), await made(two, back_end.spec)
        assert ours.backend_id != theirs.backend_id
        for vim in (one, two):
            assert [each.key for each in await vim.list()] == [KEY]
        await one.delete(KEY, deadline=soon())
        assert await one.get(KEY) is None
        assert list(await one.list()) == []
        assert (await made(two, back_end.spec)).backend_id == theirs.backend_id
        await two.delete(KEY, deadline=soon())
        assert server.left == []


@pytest.mark.parametrize("name", BACK_ENDS)
async def test_what_can_never_be_is_not_asked_for(name: str) -> None:
    back_end = BACK_ENDS[name]
    async with back_end.running() as (server, url), contextlib.aclosing(back_end.vim(url)) as vim:
        for more, field in (({"groups": ("web",)}, "groups"), ({"networks": ("apps", "other")}, "networks")):
            with pytest.raises(Rejected, match=f"^{field}: "):
                await made(vim, replace(back_end.spec, **more))
        assert server.trouble.calls == []


@pytest.mark.parametrize("name", BACK_ENDS)
async def test_two_apps_at_once(name: str) -> None:
    back_end = BACK_ENDS[name]
    async with back_end.running() as (server, url), contextlib.aclosing(back_end.vim(url)) as vim:
        keys = [f"tof.default.app-{at}" for at in range(5)]
        ones = await asyncio.gather(*(made(vim, back_end.spec, key) for key in keys))
        assert len({one.backend_id for one in ones}) == 5
        assert sorted(one.key for one in await vim.list()) == keys
        await asyncio.gather(*(vim.delete(key, deadline=soon()) for key in keys))
        assert server.left == []


# Nomad


@versions
@pytest.mark.parametrize(
    ("spec", "policy", "kind", "said"),
    [
        (
            replace(SLEEP, command=("/nonexistent",)),
            {},
            Rejected,
            '^driver: .*"/nonexistent" could not be found',
        ),
        (
            SLEEP,
            {"driver": "none-such"},
            NoCapacity,
            r"^scheduling: no node for app: .*missing drivers \(1\)",
        ),
        (replace(SLEEP, flavour=Flavour(2, 5000)), {}, NoCapacity, r"memory \(1\)"),
        (SLEEP, {"datacenters": ()}, Rejected, "^register: 1 errors? occurred: .* Missing job datacenters"),
        (SLEEP, {"region": "mars"}, Unavailable, "^lookup: No path to region"),
        (replace(SLEEP, image="x"), {}, Rejected, "^image: "),
        (replace(SLEEP, command=()), {}, Rejected, "^command: "),
        (SLEEP, {"driver": "docker"}, Rejected, "^image: "),
    ],
)
async def test_nomad_refuses(
    version: str, spec: AppSpec, policy: Any, kind: type[VimError], said: str
) -> None:
    server = NomadServer(version)
    async with server.running() as url, contextlib.aclosing(nomad_vim(url, **policy)) as vim:
        with pytest.raises(kind, match=said) as caught:
            await made(vim, spec)
        assert caught.value.remedy
        assert server.left == []


@versions
@pytest.mark.parametrize("networks", [True, False])
async def test_nomad_gives_the_address_of_the_allocation_or_of_its_node(version: str, networks: bool) -> None:
    server = NomadServer(version)
    server.networks, server.address = networks, ADDRESS
    async with server.running() as url, contextlib.aclosing(nomad_vim(url)) as vim:
        assert (await made(vim, SLEEP)).addresses == (ip_address(ADDRESS),)
        asked = [call for call in server.trouble.calls if "/v1/node/" in call]
        assert bool(asked) is not networks
        await vim.delete(KEY, deadline=soon())


@versions
async def test_a_nomad_job_that_ends_is_told_and_made_again(version: str) -> None:
    server = NomadServer(version)
    async with server.running() as url, contextlib.aclosing(nomad_vim(url)) as vim:
        one = await made(vim, SLEEP)
        server.end(THERE, 3)
        found = await vim.get(KEY)
        assert found is not None
        assert (found.state, found.fault) == (InstanceState.ERROR, "Exit Code: 3")
        assert [each.fault for each in await vim.list()] == ["Exit Code: 3"]
        again = await made(vim, SLEEP)
        assert again.state is InstanceState.ACTIVE
        assert again.backend_id != one.backend_id
        await vim.delete(KEY, deadline=soon())


@versions
async def test_what_an_earlier_job_of_that_id_left_listed_does_not_count(version: str) -> None:
    server = NomadServer(version, memory_mb=1)
    async with server.running() as url, contextlib.aclosing(nomad_vim(url)) as vim:
        with pytest.raises(NoCapacity):
            await made(vim, SLEEP)
        server.memory_mb = 1000
        assert (await made(vim, SLEEP)).state is InstanceState.ACTIVE
        await vim.delete(KEY, deadline=soon())
        with pytest.raises(Rejected):
            await made(vim, replace(SLEEP, command=("/nonexistent",)))
        assert (await made(vim, SLEEP)).state is InstanceState.ACTIVE
        await vim.delete(KEY, deadline=soon())


@versions
async def test_an_app_that_nomad_moved_is_made_again_for_its_address_is_another(version: str) -> None:
    server = NomadServer(version)
    async with server.running() as url, contextlib.aclosing(nomad_vim(url)) as vim:
        await made(vim, SLEEP)
        server.lose_node(THERE)
        (listed,), found = await vim.list(), await vim.get(KEY)
        assert found is not None
        assert listed.state is found.state is InstanceState.ERROR
        assert "on another" in listed.fault == found.fault
        assert (await made(vim, SLEEP)).addresses == (ip_address("10.99.1.3"),)
        await vim.delete(KEY, deadline=soon())
        assert server.left == []


async def test_a_nomad_job_that_no_tof_made_is_left_alone() -> None:
    server = NomadServer()
    async with server.running() as url, contextlib.aclosing(nomad_vim(url)) as vim:
        job = {"ID": THERE, "Name": THERE, "Datacenters": ["dc1"], "Type": "batch", "Priority": 50}
        task = {"Name": "app", "Driver": "exec", "Config": {}, "Resources": {"MemoryMB": 10}}
        job["TaskGroups"] = [{"Name": "app", "Tasks": [task]}]
        async with aiohttp.ClientSession() as session, session.put(f"{url}/v1/jobs", json={"Job": job}):
            pass
        with pytest.raises(AlreadyExists):
            await made(vim, SLEEP)
        await vim.delete(KEY, deadline=soon())
        assert THERE in server.jobs
        found = await vim.get(KEY)
        assert found is not None
        assert found.state is InstanceState.ERROR


async def test_a_stopped_nomad_job_is_replaced() -> None:
    server = NomadServer()
    async with server.running() as url, contextlib.aclosing(nomad_vim(url)) as vim:
        await made(vim, SLEEP)
        async with aiohttp.ClientSession() as session, session.delete(f"{url}/v1/job/{THERE}"):
            pass
        found = await vim.get(KEY)
        assert found is not None
        assert "stopped" in found.fault
        assert (await made(vim, SLEEP)).state is InstanceState.ACTIVE
        await vim.delete(KEY, deadline=soon())


async def test_the_token_is_read_each_time(tmp_path: Path) -> None:
    server, file = NomadServer(token="secret"), tmp_path / "token"
    async with server.running() as url:
        access = Access(url, "X-Nomad-Token", file)
        async with contextlib.aclosing(NomadVim(access, SITE, NomadPolicy(driver="exec", wait_s=0.3))) as vim:
            with pytest.raises(AuthFailed, match="token_file"):
                await made(vim, SLEEP)
            file.write_text("wrong\n")
            with pytest.raises(AuthFailed, match=r"^lookup: Permission denied"):
                await made(vim, SLEEP)
            file.write_text("secret\n")
            assert (await made(vim, SLEEP)).state is InstanceState.ACTIVE
            await vim.delete(KEY, deadline=soon())


async def test_over_tls_with_certificates_of_both(tmp_path: Path) -> None:
    for who in ("server", "client"):
        await asyncio.to_thread(
            subprocess.run,
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={who}", "-days", "2",
             "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", tmp_path / f"{who}.key", "-out", tmp_path / f"{who}.pem"],
            check=True, capture_output=True,
        )  # fmt: skip
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=tmp_path / "client.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(tmp_path / "server.pem", tmp_path / "server.key")
    server = NomadServer()
    ours = {"ca_file": tmp_path / "server.pem"}
    known = ours | {"cert_file": tmp_path / "client.pem", "key_file": tmp_path / "client.key"}
    async with server.running(context) as url:
        assert url.startswith("https://")
        for files in ({}, ours):
            async with contextlib.aclosing(NomadVim(Access(url, **files), SITE, NomadPolicy())) as vim:
                with pytest.raises(Unavailable, match=r"certificate|disconnected|SSL"):
                    await vim.get(KEY)
        async with contextlib.aclosing(NomadVim(Access(url, **known), SITE, NomadPolicy())) as vim:
            assert await vim.get(KEY) is None


async def test_certificates_that_cannot_be_read(tmp_path: Path) -> None:
    vim = NomadVim(Access("https://127.0.0.1:1", ca_file=tmp_path / "none.pem"), SITE, NomadPolicy())
    with pytest.raises(AuthFailed, match="certificates"):
        await vim.get(KEY)


# OpenVIM


async def test_openvim_starts_a_unikernel_on_two_networks() -> None:
    server = openvim_server()
    async with server.running() as url, contextlib.aclosing(openvim_vim(url)) as vim:
        one = await made(vim, CLICKOS)
        (row,) = server.tables["servers"].values()
        assert (row["hypervisor"], row["osImageType"], row["ram"], row["vcpus"]) == (
            "xen-unik",
            "clickos",
            8,
            1,
        )
        assert [port["mac_address"] for port in row["networks"]] == [mac_of(THERE), mac_of(THERE, 1)]
        assert [port["ip_address"] for port in row["networks"]] == ["192.168.77.4", "192.168.78.4"]
        assert one.addresses == (ip_address("192.168.77.4"),)
        assert [phase for phase, _ in one.timings] == ["prepare", "rest", "spawning"]
        assert [each.addresses for each in await vim.list()] == [one.addresses]
        await vim.delete(KEY, deadline=soon())


async def test_openvim_starts_a_machine() -> None:
    server = openvim_server()
    images = (("debian", "/images/debian.qcow2"),)
    async with server.running() as url, contextlib.aclosing(openvim_vim(url, images=images)) as vim:
        await made(vim, replace(CLICKOS, image="debian", flavour=Flavour(1.5, 256)))
        (row,) = server.tables["servers"].values()
        assert (row["hypervisor"], row["ram"], row["vcpus"]) == ("kvm", 256, 2)
        assert "osImageType" not in row
        await vim.delete(KEY, deadline=soon())
        assert server.left == []


async def test_an_image_that_openvim_was_told_of_stays_while_it_is_used() -> None:
    server = openvim_server()
    async with server.running() as url, contextlib.aclosing(openvim_vim(url)) as vim:
        await made(vim, CLICKOS)
        await made(vim, CLICKOS, "tof.default.two")
        assert len(server.tables["images"]) == 2
        await vim.delete(KEY, deadline=soon())
        assert len(server.tables["images"]) == 2
        await vim.delete("tof.default.two", deadline=soon())
        assert [row["name"] for row in server.tables["images"].values()] == ["clickos-ping"], "its own stays"


@pytest.mark.parametrize(
    ("spec", "policy", "kind", "said"),
    [
        (replace(CLICKOS, image="none"), {}, Rejected, "^image: OpenVIM has no image none"),
        (
            replace(CLICKOS, flavour=Flavour(64, 10_000_000)),
            {},
            Rejected,
            "^flavour: Database internal Error 1264",
        ),
        (replace(CLICKOS, flavour=Flavour(1, 60_000)), {}, NoCapacity, "^rest: No room at data center"),
        (CLICKOS, {"tenant": "nobody"}, Rejected, "has no tenant nobody"),
        (
            CLICKOS,
            {"tenant": "0d381b0c-e542-11f1-ad55-e3249f243601"},
            Rejected,
            "^lookup: tenant .* not found",
        ),
        (CLICKOS, {"network": "none"}, Rejected, "has no network none"),
        (
            CLICKOS,
            {"platform_network": "0d381b0c-e542-11f1-ad55-e3249f243601"},
            Rejected,
            "^rest: network .* not found",
        ),
        (replace(CLICKOS, image=None), {}, Rejected, "^image: "),
        (replace(CLICKOS, command=("x",)), {}, Rejected, "^command, environment: "),
    ],
)
async def test_openvim_refuses(spec: AppSpec, policy: Any, kind: type[VimError], said: str) -> None:
    server = openvim_server()
    async with server.running() as url, contextlib.aclosing(openvim_vim(url, **policy)) as vim:
        with pytest.raises(kind, match=said) as caught:
            await made(vim, spec)
        assert caught.value.remedy
        assert server.left == []


async def test_openvim_says_why_a_server_does_not_start() -> None:
    server = openvim_server()
    server.broken = {"clickos-firewall": "libvirt: no domain"}
    async with server.running() as url, contextlib.aclosing(openvim_vim(url)) as vim:
        with pytest.raises(BackendFault, match=r"^spawning: libvirt: no domain"):
            await made(vim, CLICKOS)
        assert server.left == []


async def test_a_network_without_dhcp() -> None:
    server = openvim_server()
    server.dhcp = False
    async with server.running() as url, contextlib.aclosing(openvim_vim(url)) as vim:
        with pytest.raises(BackendFault, match="no address"):
            await made(vim, CLICKOS)
        assert server.left == []


async def test_a_server_that_never_starts_is_removed_in_time() -> None:
    server = openvim_server()
    server.looks = 10_000
    async with server.running() as url, contextlib.aclosing(openvim_vim(url)) as vim:
        with pytest.raises(TimedOut, match=r"^spawning: "):
            await vim.create(CLICKOS, key=KEY, deadline=soon(0.3))
        assert server.left == []


async def test_a_mac_address_that_is_somebody_elses() -> None:
    server = openvim_server()
    async with server.running() as url, contextlib.aclosing(openvim_vim(url)) as vim:
        await made(vim, CLICKOS)
        (row,) = server.tables["servers"].values()
        row |= {"name": "a stranger", "flavor": {"id": "its own"}}
        with pytest.raises(AlreadyExists, match=f"already in use for 'mac', by {row['id']}"):
            await made(vim, CLICKOS)
        assert [each for each in server.left if each.startswith("servers")] == ["servers a stranger"]


async def test_more_servers_than_openvim_lists_by_itself() -> None:
    server = openvim_server()
    async with server.running() as url, contextlib.aclosing(openvim_vim(url)) as vim:
        await made(vim, CLICKOS)
        (row,) = server.tables["servers"].values()
        for at in range(150):
            number = f"{at:08d}-0000-0000-0000-000000000000"
            other = row | {"id": number, "name": f"other-{at}", "flavor": {"id": "another"}}
            server.tables["servers"] = {number: other, **server.tables["servers"]}
        assert [each.key for each in await vim.list()] == [KEY]
        await vim.delete(KEY, deadline=soon())
        assert len(server.tables["servers"]) == 150


async def test_an_openvim_server_that_broke_is_replaced() -> None:
    server: OpenVimServer = openvim_server()
    async with server.running() as url, contextlib.aclosing(openvim_vim(url)) as vim:
        one = await made(vim, CLICKOS)
        server.tables["servers"][one.backend_id] |= {"status": "ERROR", "last_error": "host down"}
        assert [(each.state, each.fault) for each in await vim.list()] == [(InstanceState.ERROR, "host down")]
        assert (await made(vim, CLICKOS)).backend_id != one.backend_id
        await vim.delete(KEY, deadline=soon())
        assert server.left == []


async def test_names_that_are_not_unique() -> None:
    server = openvim_server()
    net = next(iter(server.tables["networks"].values()))
    server.tables["networks"]["copy"] = net | {"id": "copy"}
    async with server.running() as url, contextlib.aclosing(openvim_vim(url)) as vim:
        with pytest.raises(Rejected, match="2 are called meapp-net"):
            await made(vim, CLICKOS)
