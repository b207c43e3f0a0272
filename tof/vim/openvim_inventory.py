"""What OpenVIM has: things of a kind by name, in one tenant; each answer read, each request made once."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from tof.vim.errors import AlreadyExists, Rejected
from tof.vim.remote import UNSURE
from tof.vim.rest import Rest, shaped

Row = Mapping[str, Any]

ALL: Final = "100000"
"""Lists have a hundred rows unless told otherwise."""
UUID: Final = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


class Inventory:
    """The things of one tenant, by kind: ``servers``, ``flavors``, ``images``."""

    def __init__(self, rest: Rest, tenant: str) -> None:
        self._rest, self._tenant = rest, tenant
        self._number = tenant if UUID.fullmatch(tenant) else ""

    async def rows(self, kind: str, step: str, name: str = "") -> Sequence[Row]:
        """All of a kind, or those of that name."""
        return await self._rows(await self._at(kind, step), kind, step, name)

    async def find(self, kind: str, step: str, name: str) -> str:
        """The UUID of what is called so, or has that UUID; empty if there is none."""
        if UUID.fullmatch(name):
            return name
        return _only(await self.rows(kind, step, name), step, name)

    async def network(self, name: str) -> str:
        """The UUID of a network, which are of no tenant."""
        if UUID.fullmatch(name):
            return name
        found = _only(await self._rows("/networks", "networks", "network", name), "network", name)
        if not found:
            raise Rejected(
                f"network: OpenVIM has no network {name}", "correct the names in the VIM's section"
            )
        return found

    async def ports(self, step: str, mac: str = "") -> Sequence[Row]:
        """All ports, or the one with that MAC address."""
        query = {"limit": ALL, **({"mac_address": mac} if mac else {})}
        answer = (await self._rest.ask("GET", "/ports", step=step, query=query)).body
        with shaped(step):
            return list(answer["ports"])

    async def server(self, number: str, step: str) -> Row | None:
        """All about one server; None if it is not there."""
        path = f"{await self._at('servers', step)}/{number}"
        answer = (await self._rest.ask("GET", path, step=step, absent_ok=True)).body
        with shaped(step):
            return None if answer is None else dict(answer["server"])

    async def post(self, kind: str, step: str, body: Row) -> str:
        """Ask for one; its UUID."""
        one = kind.removesuffix("s")
        path = await self._at(kind, step)
        answer = (await self._rest.ask("POST", path, step=step, body={one: body})).body
        with shaped(step):
            return str(answer[one]["id"])

    async def post_named(self, kind: str, step: str, body: Row) -> str:
        """The same; what became of a request without an answer is looked up by its name."""
        try:
            return await self.post(kind, step, body)
        except (AlreadyExists, *UNSURE):
            number = await self.find(kind, step, str(body["name"]))
            if not number:
                raise
            return number

    async def delete(self, kind: str, step: str, row: Row) -> None:
        """Remove one; it may have gone."""
        with shaped(step):
            number = str(row["id"])
        await self._rest.ask("DELETE", f"{await self._at(kind, step)}/{number}", step=step, absent_ok=True)

    async def _rows(self, path: str, kind: str, step: str, name: str) -> Sequence[Row]:
        query = {"limit": ALL, **({"name": name} if name else {})}
        answer = (await self._rest.ask("GET", path, step=step, query=query)).body
        with shaped(step):
            return [row for row in answer[kind] if not name or row["name"] == name]

    async def _at(self, kind: str, step: str) -> str:
        if not self._number:
            self._number = _only(
                await self._rows("/tenants", "tenants", step, self._tenant), step, self._tenant
            )
        if not self._number:
            message = f"{step}: OpenVIM has no tenant {self._tenant}"
            raise Rejected(message, "have it made, or correct the VIM's section")
        return f"/{self._number}/{kind}"


def _only(rows: Sequence[Row], step: str, name: str) -> str:
    if len(rows) > 1:
        raise Rejected(f"{step}: {len(rows)} are called {name}", "name it by its UUID")
    with shaped(step):
        return str(rows[0]["id"]) if rows else ""
