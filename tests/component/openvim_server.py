"""An OpenVIM (the Xen and ClickOS fork, in test mode) that keeps its state in memory and answers as it was recorded to."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from hashlib import md5
from ipaddress import ip_address, ip_network
from typing import Any

from aiohttp import web
from vim_trouble import TroubledServer

REASONS = {
    400: "Bad Request",
    401: "Unauthorized",
    404: "Not Found",
    409: "Conflict",
    500: "Internal Server Error",
}
LARGEST_RAM = 65535
USUAL_LIMIT = 100
LISTED = {
    "tenants": ("id", "name", "description", "enabled"),
    "flavors": ("id", "name", "description", "public"),
    "images": ("id", "name", "checksum", "description", "path", "public"),
    "servers": ("id", "name", "description", "hostId", "imageRef", "flavorRef", "status", "tenant_id"),
    "networks": ("id", "name", "tenant_id", "type", "shared", "status", "provider:vlan", "provider:physical"),
    "ports": ("id", "name", "network_id", "mac_address", "device_owner", "device_id", "status", "ip_address"),
}
"""What lists may be filtered by; anything else is refused."""


class RefusedError(Exception):
    """A status and what is said with it."""

    def __init__(self, status: int, description: str) -> None:
        super().__init__(description)
        self.status, self.description = status, description


class OpenVimServer(TroubledServer):
    """Both ports of one OpenVIM: hosts can be added on the admin's alone.

    ``looks``: how often a new server is still seen CREATING. ``broken``: images that do not start, and why. ``host_mb``: the
    memory of its host. ``dhcp``: whether ports get addresses. ``run``: what a server that has become
    ACTIVE does, if anything.
    """

    def __init__(self, *, looks: int = 1, host_mb: int = 16384) -> None:
        super().__init__()
        self.looks, self.host_mb = looks, host_mb
        self.broken: dict[str, str] = {}
        self.dhcp, self.url = True, ""
        self.tables: dict[str, dict[str, dict[str, Any]]] = {kind: {} for kind in (*LISTED, "hosts")}
        self.seen: dict[str, int] = {}
        self.run: Callable[[dict[str, Any]], Any] = lambda _server: None
        self.ran: dict[str, Any] = {}

    @property
    def left(self) -> list[str]:
        """Everything of apps that is still there."""
        mine = ("servers", "flavors", "ports")
        told = [
            row["name"]
            for row in self.tables["images"].values()
            if (row["description"] or "").startswith("tof.")
        ]
        return [f"{kind} {row['name']}" for kind in mine for row in self.tables[kind].values()] + told

    def prepared(self, networks: str = "192.168") -> None:
        """A tenant, an image, two networks, a host."""
        self._host({"name": "host-0", "ip_name": "host0"})
        tenant = self._tenant({"name": "mec"})["id"]
        image = {"name": "clickos-ping", "path": "/var/lib/libvirt/images/clickos_ping"}
        self._image(tenant, image)
        for at, name in enumerate(("meapp-net", "mep-net")):
            net = {
                "name": name,
                "type": "bridge_data",
                "cidr": f"{networks}.{77 + at}.0/24",
                "enable_dhcp": True,
            }
            self._network(net | {"shared": True, "provider": "OVS:default", "tenant_id": tenant})

    def application(self) -> web.Application:
        app = web.Application(middlewares=[self._format(), self.middleware(), self._errors()])
        base, tenant = "/openvim", "/openvim/{tenant}"
        app.router.add_post(f"{base}/hosts", self._made("host", lambda _t, body: self._host(body)))
        app.router.add_get(f"{base}/hosts", self._hosts)
        for kind, make in (("tenant", self._tenant), ("network", self._network)):
            app.router.add_post(f"{base}/{kind}s", self._made(kind, lambda _t, body, make=make: make(body)))
        for kind, of_tenant in (("flavor", self._flavor), ("image", self._image), ("server", self._server)):
            app.router.add_post(f"{tenant}/{kind}s", self._made(kind, of_tenant))
            app.router.add_get(f"{tenant}/{kind}s", self._listed(f"{kind}s"))
        for kind in ("tenants", "networks", "ports"):
            app.router.add_get(f"{base}/{kind}", self._listed(kind))
        app.router.add_get(f"{tenant}/servers/{{id}}", self._show)
        app.router.add_post(f"{tenant}/servers/{{id}}/action", self._action)
        app.router.add_delete(f"{tenant}/servers/{{id}}", self._end)
        app.router.add_delete(f"{base}/networks/{{id}}", self._end_network)
        app.router.add_delete(f"{base}/tenants/{{id}}", self._end_tenant)
        app.router.add_delete(f"{tenant}/{{kind:flavors|images}}/{{id}}", self._end_shared)
        return app

    def _format(self) -> Any:
        @web.middleware
        async def formatted(request: web.Request, handler: Any) -> web.StreamResponse:
            self.url = f"http://{request.host}/openvim"
            return await handler(request)

        return formatted

    def _errors(self) -> Any:
        @web.middleware
        async def errors(request: web.Request, handler: Any) -> web.StreamResponse:
            try:
                tenant = request.match_info.get("tenant")
                if tenant is not None and tenant not in self.tables["tenants"]:
                    raise RefusedError(404, f"tenant '{tenant}' not found")
                return await handler(request)
            except RefusedError as why:
                kind = f"{why.status} {REASONS[why.status]}"
                body = {"error": {"code": why.status, "type": kind, "description": why.description}}
                return web.Response(status=why.status, text=_text(body), content_type="application/json")

        return errors

    # requests

    def _made(self, kind: str, make: Any) -> Any:
        async def post(request: web.Request) -> web.Response:
            body = await request.json()
            if not isinstance(body, dict) or kind not in body:
                raise RefusedError(400, f"Invalid content : '{kind}' is a required property")
            return _granted({kind: make(request.match_info.get("tenant", ""), body[kind])})

        return post

    def _listed(self, kind: str) -> Any:
        async def get(request: web.Request) -> web.Response:
            wanted, limit = dict(request.query), USUAL_LIMIT
            limit = int(wanted.pop("limit", limit))
            for name, value in wanted.items():
                if name not in LISTED[kind]:
                    raise RefusedError(400, f"Invalid query string at '{name}={value}'")
            rows = [self._row(kind, row) for row in self.tables[kind].values()]
            rows = [row for row in rows if all(str(row.get(name)) == value for name, value in wanted.items())]
            return _granted({kind: rows[:limit]})

        return get

    def _row(self, kind: str, row: dict[str, Any]) -> dict[str, Any]:
        if kind == "servers":
            short = {"imageRef": row["image"]["id"], "flavorRef": row["flavor"]["id"]}
            names = ("status", "hostId", "description", "name", "id")
            return {name: row[name] for name in names} | short | self._links("servers", row)
        if kind in ("flavors", "images"):
            return {name: row.get(name) for name in LISTED[kind]}
        return dict(row)

    async def _hosts(self, _request: web.Request) -> web.Response:
        names = ("status", "description", "admin_state_up", "ip_name", "name", "hypervisors", "id")
        rows = []
        for host in self.tables["hosts"].values():
            shown = {"status": "ok", **host, "admin_state_up": True}
            link = {"href": f"{self.url}/hosts/{host['id']}", "rel": "bookmark"}
            rows.append({name: shown[name] for name in names} | {"links": [link]})
        return _granted({"hosts": rows})

    async def _show(self, request: web.Request) -> web.Response:
        server = self._known(request.match_info["id"])
        self._goes_on(server)
        return _granted({"server": server})

    async def _action(self, request: web.Request) -> web.Response:
        self._known(request.match_info["id"])
        await request.json()
        return _granted(
            {"result": "deleting in process"}
        )  # whatever the action is, which test mode does not carry out

    async def _end(self, request: web.Request) -> web.Response:
        number = request.match_info["id"]
        if number not in self.tables["servers"]:
            raise RefusedError(404, f"server {number} not found")
        del self.tables["servers"][number]
        if process := self.ran.pop(number, None):
            process.kill()
        ports = self.tables["ports"]
        self.tables["ports"] = {at: port for at, port in ports.items() if port["device_id"] != number}
        return _granted({"result": "deleting in process"})

    async def _end_network(self, _request: web.Request) -> web.Response:
        raise RefusedError(400, "'NoneType' object has no attribute 'read'")

    async def _end_tenant(self, request: web.Request) -> web.Response:
        number = request.match_info["id"]
        if self.tables["tenants"].pop(number, None) is None:
            raise RefusedError(404, f"tenant '{number}' not found")
        return _granted({"result": f"tenant '{number}' deleted"})

    async def _end_shared(self, request: web.Request) -> web.Response:
        kind, number, tenant = (request.match_info[name] for name in ("kind", "id", "tenant"))
        one = kind.removesuffix("s")
        if any(server[one]["id"] == number for server in self.tables["servers"].values()):
            raise RefusedError(409, f"{one} '{number}' is used by servers")
        if self.tables[kind].pop(number, None) is None:
            raise RefusedError(404, f"{one} '{number}' from tenant '{tenant}' not found")
        return _granted({"result": f"{one} '{number}' from tenant '{tenant}' completely deleted"})

    # what is made

    def _host(self, body: dict[str, Any]) -> dict[str, Any]:
        more = {"ranking": 300, "admin_state_up": "true", "description": "", "hypervisors": "kvm,xen-unik"}
        body = {name: value for name, value in body.items() if name in (*more, "name", "ip_name")}
        return self._put("hosts", more | body)

    def _tenant(self, body: dict[str, Any]) -> dict[str, Any]:
        self._only("tenants", "name", body["name"])
        return self._put("tenants", {"description": None, "enabled": True} | body)

    def _flavor(self, tenant: str, body: dict[str, Any]) -> dict[str, Any]:
        if body["ram"] > LARGEST_RAM:
            said = "Database internal Error 1264: Out of range value for column 'ram' at row 1"
            raise RefusedError(500, said)
        row = {"extended": None, "description": None, "disk": None, "public": "no"} | body
        row = self._put("flavors", row)
        return row | self._links("flavors", row, tenant)

    def _image(self, tenant: str, body: dict[str, Any]) -> dict[str, Any]:
        self._only("images", "path", body["path"])
        row = {
            "status": "ACTIVE",
            "updated": None,
            "description": None,
            "created": "2026-11-21T00:25:27",
            "progress": 100,
        }
        row |= {"checksum": md5(body["path"].encode()).hexdigest(), "public": "no"}
        row = self._put("images", row | {n: v for n, v in body.items() if n != "metadata"})
        return row | self._links("images", row, tenant)

    def _network(self, body: dict[str, Any]) -> dict[str, Any]:
        cidr = ip_network(body["cidr"])
        vlan = 3000 + len(self.tables["networks"])
        row = {
            "gateway_ip": str(cidr[1]), "dhcp_first_ip": str(cidr[3]), "dhcp_last_ip": str(cidr[-2]), "status": "ACTIVE",
            "provider:physical": f"OVS:{vlan}", "admin_state_up": True, "region": "__OVS__", "provider:vlan": vlan,
        }  # fmt: skip
        return self._put(
            "networks", row | {name: value for name, value in body.items() if name != "provider"}
        )

    def _server(self, tenant: str, body: dict[str, Any]) -> dict[str, Any]:
        for name in ("flavorRef", "imageRef"):
            if name not in body:
                raise RefusedError(400, f"Invalid content at 'server': '{name}' is a required property")
        flavor = self.tables["flavors"].get(body["flavorRef"])
        if flavor is None:
            raise RefusedError(404, f"flavor_id {body['flavorRef']} not found")
        image = self.tables["images"].get(body["imageRef"])
        if image is None:
            raise RefusedError(404, f"image_id {body['imageRef']} not found or not ACTIVE")
        free = self.host_mb - sum(server["ram"] for server in self.tables["servers"].values())
        if flavor["ram"] > free:
            room = f"Cannot find a host with {flavor['ram']} MB memory and {flavor['vcpus']} cpus available"
            raise RefusedError(400, f"No room at data center. {room}")
        for network in body["networks"]:
            if network["uuid"] not in self.tables["networks"]:
                raise RefusedError(404, f"network {network['uuid']} not found")
            self._only("ports", "mac_address", network["mac_address"], "mac")
        names = ("description", "name", "hypervisor", "osImageType")
        row = {name: body[name] for name in names if name in body} | {
            "status": "CREATING", "hostId": next(iter(self.tables["hosts"])), "ram": flavor["ram"], "vcpus": flavor["vcpus"],
            "image": {"id": image["id"], **self._links("images", image, tenant)}, "created": "2026-11-21T00:25:27",
            "flavor": {"id": flavor["id"], **self._links("flavors", flavor, tenant)}, "tenant_id": tenant, "progress": 0,
        }  # fmt: skip
        server = self._put("servers", row)
        server["networks"] = [self._port(server["id"], network) for network in body["networks"]]
        return server

    def _port(self, server: str, body: dict[str, Any]) -> dict[str, Any]:
        network = self.tables["networks"][body["uuid"]]
        port = {
            "status": "ACTIVE", "admin_state_up": True, "network_id": network["id"], "device_owner": "instance:ovs",
            "device_id": server, "mac_address": body["mac_address"], "binding:vlan": network["provider:vlan"],
            "name": body["name"],
        }  # fmt: skip
        if self.dhcp:
            taken = {each.get("ip_address") for each in self.tables["ports"].values()}
            first = ip_address(network["dhcp_first_ip"]) + 1  # the first is the DHCP server's own
            while str(first) in taken:
                first += 1
            port["ip_address"] = str(first)
        port = self._put("ports", port)
        shown = {
            "name": port["name"],
            "iface_id": port["id"],
            "mac_address": port["mac_address"],
            "net_id": network["id"],
        }
        return shown | ({"ip_address": port["ip_address"]} if self.dhcp else {})

    def _goes_on(self, server: dict[str, Any]) -> None:
        number = server["id"]
        self.seen[number] = self.seen.get(number, 0) + 1
        if server["status"] != "CREATING" or self.seen[number] <= self.looks:
            return
        why = self.broken.get(self.tables["images"][server["image"]["id"]]["name"])
        server |= {"status": "ERROR", "last_error": why} if why else {"status": "ACTIVE", "progress": 100}
        self.ran[number] = None if why else self.run(server)

    def _known(self, number: str) -> dict[str, Any]:
        if number not in self.tables["servers"]:
            raise RefusedError(404, f"instance '{number}'not found.")
        return self.tables["servers"][number]

    def _only(self, kind: str, name: str, value: str, called: str = "") -> None:
        if any(row[name] == value for row in self.tables[kind].values()):
            raise RefusedError(409, f"Value '{value}' already in use for '{called or name}'")

    def _put(self, kind: str, row: dict[str, Any]) -> dict[str, Any]:
        row = {**row, "id": str(uuid.uuid4())}
        self.tables[kind][row["id"]] = row
        return row

    def _links(self, kind: str, row: dict[str, Any], tenant: str = "") -> dict[str, Any]:
        at = f"{self.url}/{tenant or row['tenant_id']}/{kind}/{row['id']}"
        return {"links": [{"href": at, "rel": "bookmark"}]}


def _granted(body: Any) -> web.Response:
    return web.Response(text=_text(body), content_type="application/json")


def _text(body: Any) -> str:
    return json.dumps(body, indent=4) + "\n"
