"""The ``openvim`` VIM: an app is a server whose MAC address, which OpenVIM gives only once, is derived from its key.

Its name is the key too, as is that of the flavour made for it, and an image that OpenVIM was told of has the key of the
first app that needed it as description. OpenVIM answers 200 to whatever it grants, and has no floating IPs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from hashlib import sha256
from ipaddress import ip_address
from math import ceil
from typing import Any, Final

from tof.vim.errors import (
    AlreadyExists,
    AuthFailed,
    BackendFault,
    NoCapacity,
    QuotaExceeded,
    Rejected,
    TimedOut,
    Unavailable,
    VimError,
)
from tof.vim.interface import AppSpec, Instance, InstanceState
from tof.vim.openvim_inventory import Inventory, Row
from tof.vim.phases import Phases
from tof.vim.remote import KEYS, UNSURE, RemoteVim, Seen, app_networks
from tof.vim.rest import Access, Rest, shaped

PLATFORM_NETWORK: Final = "platform"
"""The network that leads to the ME Platform; every app is on it if there is one."""
LONGEST_KEY: Final = 64
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.02, 0.25
MAC_PREFIX: Final = 0x06
"""Locally administered, unicast, and none of those that stand for tunnels and services on br-ue."""
UNIKERNEL: Final = {"hypervisor": "xen-unik", "osImageType": "clickos"}
UNIKERNEL_MB, USUAL_MB = 8, 512
STATES: Final[Mapping[str, InstanceState]] = {
    "ACTIVE": InstanceState.ACTIVE,
    "CREATING": InstanceState.BUILD,
}

WORDS: Final = (
    (r"needed admin", AuthFailed),
    (r"quota", QuotaExceeded),
    (r"already in use", AlreadyExists),
    (r"no room at data ?center|cannot find a host|no enough|not enough", NoCapacity),
    (r"out of range value|not found|invalid content", Rejected),
    (r"has no attribute|exception", BackendFault),
    (r"task queue", Unavailable),
    (r"timeout", TimedOut),
)


@dataclass(frozen=True, slots=True)
class OpenVimPolicy:
    """How apps become servers of ``tenant``. Networks and tenant: names or UUIDs.

    ``network`` leads to the TOF, ``platform_network`` to the ME Platform. ``unikernels``: patterns of names of images that
    are ClickOS; all others are started by ``hypervisor``. ``images``: name and path of images that OpenVIM is told of when
    they are first needed.
    """

    tenant: str
    network: str
    platform_network: str = ""
    hypervisor: str = "kvm"
    unikernels: tuple[str, ...] = ("clickos*",)
    images: tuple[tuple[str, str], ...] = ()


class OpenVim(RemoteVim):
    """Apps as servers, each with a flavour of its own."""

    def __init__(self, access: Access, site: str, policy: OpenVimPolicy) -> None:
        rest = Rest(access, WORDS)
        super().__init__(rest, site)
        self._policy, self._inventory = policy, Inventory(rest, policy.tenant)

    async def _listed(self, prefix: str) -> Sequence[Instance]:
        """Every server, and what is there of one that is not."""
        servers, flavours = [await self._inventory.rows(kind, "list") for kind in ("servers", "flavors")]
        images, ports = await self._inventory.rows("images", "list"), await self._inventory.ports("list")
        with shaped("list"):
            addresses = {str(port["mac_address"]).lower(): port.get("ip_address") for port in ports}
            keyed = [server for server in servers if str(server["name"]).startswith(prefix)]
            found = {str(s["name"]): _instance(s, addresses.get(mac_of(str(s["name"])))) for s in keyed}
            rest = [str(flavour["name"]) for flavour in flavours if str(flavour["name"]).startswith(prefix)]
            rest += [str(image["description"]) for image in _unused(images, servers, prefix)]
        for key in rest:
            fault = "its server is not there, though what was made for it is"
            found.setdefault(key, Instance(key, "", InstanceState.ERROR, fault=fault))
        return [await self._explained_error(one) for one in found.values()]

    async def _explained_error(self, one: Instance) -> Instance:
        """A list does not say why a server is in error."""
        if one.state is not InstanceState.ERROR or not one.backend_id:
            return one
        server = await self._inventory.server(one.backend_id, "list")
        with shaped("list"):
            return one if server is None else _instance(server, _address(server))

    async def _see(self, key: str) -> Seen | None:
        servers = await self._inventory.rows("servers", "lookup", key)
        if not servers:
            return None
        with shaped("lookup"):
            number = str(servers[0]["id"])
        server = await self._inventory.server(number, "lookup")
        if server is None:
            return None
        with shaped("lookup"):
            return Seen(_instance(server, _address(server)), str(server.get("description")))

    async def _make(
        self, spec: AppSpec, key: str, digest: str, seen: Seen | None, phases: Phases
    ) -> Instance:
        if seen is None:
            with phases.phase("prepare"):
                body = await self._described(spec, key, digest)
            with phases.phase("rest"):
                number = await self._posted(body, key, digest)
        else:
            number = seen.instance.backend_id
        with phases.phase("spawning"):
            return await self._active(number)

    async def _described(self, spec: AppSpec, key: str, digest: str) -> dict[str, Any]:
        """The server as it is asked for; image, networks and flavour are there when it returns."""
        assert spec.image is not None
        unikernel = any(fnmatchcase(spec.image, each) for each in self._policy.unikernels)
        both = (self._policy.network, self._policy.platform_network)
        networks = [
            {
                "name": f"vif{at}",
                "uuid": await self._inventory.network(network),
                "mac_address": mac_of(key, at),
            }
            for at, network in enumerate(both)
            if network
        ]
        image = await self._image(spec.image, key)
        ram = spec.flavour.memory_mb or (UNIKERNEL_MB if unikernel else USUAL_MB)
        flavour = {"name": key, "ram": ram, "vcpus": ceil(spec.flavour.cpu or 1)}
        return {
            "name": key,
            "description": digest,
            "imageRef": image,
            "flavorRef": await self._inventory.post_named("flavors", "flavour", flavour),
            "start": "yes",
            **(UNIKERNEL if unikernel else {"hypervisor": self._policy.hypervisor}),
            "networks": networks,
        }

    async def _image(self, name: str, key: str) -> str:
        number = await self._inventory.find("images", "image", name)
        if number:
            return number
        path = dict(self._policy.images).get(name)
        if path is None:
            hint = "name one that it has, or give its path in the section's images"
            raise Rejected(f"image: OpenVIM has no image {name}", hint)
        image = {"name": name, "path": path, "description": key, "metadata": {"use_incremental": "no"}}
        return await self._inventory.post_named("images", "image", image)

    async def _posted(self, body: Row, key: str, digest: str) -> str:
        """The server's number."""
        try:
            return await self._inventory.post("servers", "rest", body)
        except (AlreadyExists, *UNSURE) as error:
            late = await self._late(key, digest)
            if late is not None:
                return late.instance.backend_id
            raise await self._explained(error, key) from error

    async def _explained(self, error: VimError, key: str) -> VimError:
        """Whose the MAC address is, if it is in use."""
        if not isinstance(error, AlreadyExists):
            return error
        ports = await self._inventory.ports("rest", mac_of(key))
        with shaped("rest"):
            owners = ", ".join(str(port.get("device_id") or port["id"]) for port in ports)
        return AlreadyExists(f"{error.message}, by {owners or 'nobody any more'}", "see who made that server")

    async def _active(self, number: str) -> Instance:
        pause = FIRST_PAUSE_S
        while True:
            server = await self._inventory.server(number, "spawning")
            if server is None:
                raise BackendFault("spawning: the server has gone by itself")
            with shaped("spawning"):
                made = _instance(server, _address(server))
            if made.state is InstanceState.ERROR:
                raise BackendFault(f"spawning: {made.fault}", "see OpenVIM's log, and libvirt's on the host")
            if made.state is InstanceState.ACTIVE:
                if not made.addresses:
                    message = f"spawning: the port in {self._policy.network} has no address"
                    raise BackendFault(message, "enable DHCP in that network")
                return made
            await asyncio.sleep(pause)
            pause = min(1.5 * pause, LONGEST_PAUSE_S)

    async def _remove(self, key: str, digest: str | None) -> None:
        """The server, its flavour, and the image if OpenVIM was told of it and nothing else uses it."""
        used = {""}
        for server in await self._inventory.rows("servers", "remove", key):
            with shaped("remove"):
                ours = digest in (None, server.get("description"))
                used.add(str(server["imageRef"]))
            if not ours:
                return
            await self._inventory.delete("servers", "remove", server)
        for flavour in await self._inventory.rows("flavors", "remove", key):
            await self._inventory.delete("flavors", "remove", flavour)
        images = await self._inventory.rows("images", "remove")
        servers = await self._inventory.rows("servers", "remove")
        with shaped("remove"):
            free = _unused(images, servers, KEYS)
            free = [image for image in free if image["description"] == key or image["id"] in used]
        for image in free:
            await self._inventory.delete("images", "remove", image)
        for kind in ("servers", "flavors"):
            if await self._inventory.rows(kind, "remove", key):
                raise BackendFault(f"remove: {key} is still among the {kind}")

    def _check(self, spec: AppSpec, key: str) -> None:
        super()._check(spec, key)
        app_networks(spec, (PLATFORM_NETWORK,) if self._policy.platform_network else ())
        if spec.image is None:
            raise Rejected("image: OpenVIM starts images, and needs one")
        if spec.command or spec.environment:
            raise Rejected("command, environment: OpenVIM starts images and tells them nothing")
        if len(key) > LONGEST_KEY:
            raise Rejected(f"name: {key} is longer than {LONGEST_KEY}, which a server's may be")


def mac_of(key: str, network: int = 0) -> str:
    """The MAC address of an app in its first or second network."""
    digest = sha256(f"{key} {network}".encode()).digest()
    return ":".join(f"{byte:02x}" for byte in (MAC_PREFIX, *digest[:5]))


def _unused(images: Sequence[Row], servers: Sequence[Row], prefix: str) -> list[Row]:
    """Images that OpenVIM was told of by a key that begins so, and that no server has."""
    used = {server["imageRef"] for server in servers}
    return [i for i in images if str(i.get("description")).startswith(prefix) and i["id"] not in used]


def _address(server: Row) -> str | None:
    """Its address in the network towards the TOF: that of the port with its first MAC address."""
    mac = mac_of(str(server["name"]))
    ports = [port for port in server.get("networks") or () if str(port["mac_address"]).lower() == mac]
    return ports[0].get("ip_address") if ports else None


def _instance(server: Row, address: str | None) -> Instance:
    status = str(server["status"])
    state = STATES.get(status, InstanceState.ERROR)
    addresses = (ip_address(address),) if address else ()
    fault = str(server.get("last_error") or f"the server is {status}") if state is InstanceState.ERROR else ""
    key = str(server["name"])
    return Instance(key, str(server["id"]), state, addresses, next(iter(addresses), None), fault)
