"""The ``nomad`` VIM: an app is a job whose ID is its key, registered only if there is none of that ID.

Works with the API of 0.8 as of 1.0, which differ in where an allocation has its networks and in whether the evaluation
of a job is of the job's index or of a later one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

from tof.vim.errors import (
    AlreadyExists,
    AuthFailed,
    BackendFault,
    QuotaExceeded,
    Rejected,
    Unavailable,
    VimError,
)
from tof.vim.interface import AppSpec, Instance, InstanceState
from tof.vim.nomad_answers import (
    addresses_of,
    ended,
    fault_of,
    fresh,
    misplaced,
    moved,
    node_address,
    state_of,
    stub_state,
)
from tof.vim.nomad_job import DIGEST_META, KEY_META, NomadPolicy, job_of
from tof.vim.phases import Phases
from tof.vim.remote import UNSURE, RemoteVim, Seen, app_networks
from tof.vim.rest import Access, Answer, Rest, shaped

MOVED: Final = "Nomad lost its node, and has started it on another"
QUIET_S: Final = 0.1
"""Between two looks where the server does not wait."""
WORDS: Final = (
    (r"permission denied|acl token not found|acl support disabled", AuthFailed),
    (r"job already exists|enforcing job modify index", AlreadyExists),
    (r"quota", QuotaExceeded),
    (r"no cluster leader|no path to region|connection refused|no servers|rate limit", Unavailable),
    (r"errors? occurred|missing |invalid|nonexistent namespace|validation", Rejected),
)


class NomadVim(RemoteVim):
    """Apps as jobs of one allocation."""

    def __init__(self, access: Access, site: str, policy: NomadPolicy) -> None:
        super().__init__(Rest(access, WORDS), site)
        self.policy = policy

    async def _listed(self, prefix: str) -> Sequence[Instance]:
        """Without addresses, which only ``get`` asks for."""
        stubs = _listed(await self.ask("GET", "/v1/jobs", step="list", query={"prefix": prefix}), "list")
        found = []
        with shaped("list"):
            for stub in stubs:
                state = stub_state(stub)
                fault = (
                    await self._why(stub["ID"], int(stub["CreateIndex"]))
                    if state is InstanceState.ERROR
                    else ""
                )
                found.append(Instance(stub["ID"], stub["ID"], state, fault=fault))
        return found

    async def _see(self, key: str) -> Seen | None:
        job = await self._job(key, "lookup")
        if job is None:
            return None
        with shaped("lookup"):
            meta = job.get("Meta") or {}
            if meta.get(KEY_META) != key:
                return Seen(Instance(key, key, InstanceState.ERROR, fault="a job that no TOF made"), "")
            digest, begun, stopped = (
                str(meta.get(DIGEST_META)),
                int(job["CreateIndex"]),
                bool(job.get("Stop")),
            )
        allocations = await self._allocations(key, begun)
        if stopped or moved(allocations):
            fault = "the job has been stopped" if stopped else MOVED
            return Seen(Instance(key, key, InstanceState.ERROR, fault=fault), digest)
        if not allocations:
            return Seen(Instance(key, key, InstanceState.BUILD), digest)
        return Seen(await self._shown(key, allocations[0]), digest)

    async def _make(
        self, spec: AppSpec, key: str, digest: str, seen: Seen | None, phases: Phases
    ) -> Instance:
        with phases.phase("rest"):
            begun = await self._registered(spec, key, digest, seen)
        with phases.phase("scheduling"):
            if seen is None or not await self._allocations(key, begun):
                await self._placed(key, begun)
        with phases.phase("driver"):
            allocation = await self._running(key, begun)
        with phases.phase("address"):
            made = await self._shown(key, allocation)
        if not made.addresses:
            raise BackendFault(f"address: neither allocation {made.backend_id} nor its node has one")
        return made

    async def _registered(self, spec: AppSpec, key: str, digest: str, seen: Seen | None) -> int:
        """The index since when the job is there."""
        body = {"Job": job_of(spec, key, digest, self.policy), "EnforceIndex": True, "JobModifyIndex": 0}
        try:
            if seen is None:
                await self.ask(
                    "POST", "/v1/jobs", step="register", body=body
                )  # a PUT aiohttp would repeat by itself
        except (AlreadyExists, *UNSURE):
            if await self._late(key, digest) is None:
                raise
        job = await self._job(key, "register")
        if job is None:
            raise BackendFault("register: the job is gone as soon as it was made")
        with shaped("register"):
            return int(job["CreateIndex"])

    async def _placed(self, key: str, begun: int) -> None:
        """Wait until it has been scheduled, or cannot be."""
        watch = _Watch(self, f"{_of(key)}/evaluations", "scheduling")
        while True:
            evaluations = await watch.next()
            with shaped("scheduling"):
                ours = fresh(evaluations, begun)
                error = misplaced(ours)
                over = any(each["Status"] == "complete" for each in ours)
            if error is not None:
                raise error
            if over:
                return

    async def _running(self, key: str, begun: int) -> Mapping[str, Any]:
        """The allocation, once it runs."""
        watch = _Watch(self, f"{_of(key)}/allocations", "driver")
        while True:
            allocations = await watch.next()
            with shaped("driver"):
                ours = fresh(allocations, begun)
                if moved(ours):
                    raise BackendFault(f"driver: {MOVED}")
                for each in ours:
                    state = state_of(each)
                    if state is InstanceState.ERROR:
                        raise _driver_fault(each)
                    if state is InstanceState.ACTIVE:
                        return each

    async def _shown(self, key: str, stub: Mapping[str, Any]) -> Instance:
        """An allocation, of which its job's list tells the state but not the addresses."""
        with shaped("address"):
            number, node, state = str(stub["ID"]), str(stub["NodeID"]), state_of(stub)
            fault = fault_of(stub) if state is InstanceState.ERROR else ""
        if state is not InstanceState.ACTIVE:
            return Instance(key, number, state, fault=fault)
        allocation = (await self.ask("GET", f"/v1/allocation/{number}", step="address")).body
        with shaped("address"):
            addresses = addresses_of(allocation)
        if not addresses:
            asked = (await self.ask("GET", f"/v1/node/{node}", step="address")).body
            with shaped("address"):
                addresses = node_address(asked)
        return Instance(key, number, state, addresses, next(iter(addresses), None), fault)

    async def _remove(self, key: str, digest: str | None) -> None:
        job = await self._job(key, "remove")
        if job is not None:
            with shaped("remove"):
                meta = job.get("Meta") or {}
                ours = meta.get(KEY_META) == key and digest in (None, meta.get(DIGEST_META))
            if not ours:
                return
            answer = await self.ask(
                "DELETE", _of(key), step="remove", query={"purge": "true"}, absent_ok=True
            )
            with shaped("remove"):
                _ = answer.body is None or answer.body["EvalID"]
        watch = _Watch(self, f"{_of(key)}/allocations", "remove")
        while True:
            allocations = await watch.next()
            with shaped("remove"):
                if all(ended(each) for each in allocations):
                    break
        if job is not None and await self._job(key, "remove") is not None:
            raise BackendFault(f"remove: the job {key} is still there")

    def _check(self, spec: AppSpec, key: str) -> None:
        super()._check(spec, key)
        app_networks(spec, ())
        job_of(spec, key, "", self.policy)

    async def _allocations(self, key: str, begun: int) -> Sequence[Mapping[str, Any]]:
        answer = await self.ask("GET", f"{_of(key)}/allocations", step="lookup")
        allocations = _listed(answer, "lookup")
        with shaped("lookup"):
            return fresh(allocations, begun)

    async def _why(self, key: str, begun: int) -> str:
        """Why a job runs no more, or not where it did."""
        allocations = await self._allocations(key, begun)
        if moved(allocations):
            return MOVED
        with shaped("list"):
            return fault_of(allocations[0]) if allocations else "it was never placed"

    async def _job(self, key: str, step: str) -> Any:
        job = (await self.ask("GET", _of(key), step=step, absent_ok=True)).body
        with shaped(step):
            if job is not None and job["ID"] != key:
                raise ValueError(f"the job {job['ID']}")
        return job

    async def ask(self, method: str, path: str, *, step: str, **more: Any) -> Answer:
        """Ask in the region and namespace of the configuration."""
        scope = {"region": self.policy.region, "namespace": self.policy.namespace}
        query = {name: value for name, value in scope.items() if value} | (more.pop("query", None) or {})
        return await self._rest.ask(method, path, step=step, query=query, **more)


class _Watch:
    """A blocking query: the first answer comes at once, the next when there is news or after a while."""

    def __init__(self, vim: NomadVim, path: str, step: str) -> None:
        self._vim, self._path, self._step = vim, path, step
        self._index = 0

    async def next(self) -> list[Mapping[str, Any]]:
        """What there is now."""
        longest = self._vim.policy.wait_s
        query = {"index": str(self._index), "wait": f"{longest:g}s"} if self._index else {}
        wait_s = longest * 17 / 16 if query else 0.0  # the server adds up to a sixteenth
        answer = await self._vim.ask("GET", self._path, step=self._step, query=query, wait_s=wait_s)
        with shaped(self._step):
            index = int(answer.headers.get("X-Nomad-Index", "0"))
        if index <= self._index:
            await asyncio.sleep(QUIET_S)
        self._index = index if index >= self._index else 0  # it goes back when a server was restored
        return _listed(answer, self._step)


def _driver_fault(allocation: Mapping[str, Any]) -> VimError:
    why = fault_of(allocation)
    message = f"driver: allocation {allocation['ID']}: {why}"
    if "not be found" in why or "not found" in why or "no such file" in why:
        return Rejected(message, "name a command or image that the Nomad client has")
    return BackendFault(message, "see the allocation's events and logs on its Nomad client")


def _listed(answer: Answer, step: str) -> list[Mapping[str, Any]]:
    with shaped(step):
        if not isinstance(answer.body, list):
            raise TypeError("no list")
        return answer.body


def _of(key: str) -> str:
    return f"/v1/job/{quote(key, safe='')}"
