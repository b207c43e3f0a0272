"""A Nomad that keeps its state in memory and answers as 0.8.7 and 1.0.18 were recorded to, oddities included."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable
from typing import Any

from aiohttp import web
from vim_trouble import TroubledServer

WORDS = """DownloadError DriverError DriverMessage FailedSibling GenericSource KillError KillReason Message RestartReason
SetupError TaskSignal TaskSignalReason ValidationError VaultError"""
NUMBERS = "DiskLimit ExitCode KillTimeout Signal StartDelay"
EVENT = (
    dict.fromkeys(WORDS.split(), "") | dict.fromkeys(NUMBERS.split(), 0) | {"Details": {}, "FailsTask": False}
)
METRIC = {
    "AllocationTime": 6540, "ClassExhausted": None, "ClassFiltered": None, "CoalescedFailures": 0,
    "ConstraintFiltered": None, "DimensionExhausted": None, "NodesAvailable": {"dc1": 1}, "NodesEvaluated": 1,
    "NodesExhausted": 0, "NodesFiltered": 0, "QuotaExhausted": None, "Scores": None,
}  # fmt: skip
OLD, NEW = "0.8.7", "1.0.18"
STUB = (
    "ClientDescription", "ClientStatus", "CreateIndex", "CreateTime", "DeploymentStatus", "DesiredDescription",
    "DesiredStatus", "DesiredTransition", "EvalID", "FollowupEvalID", "ID", "JobID", "JobVersion", "ModifyIndex",
    "ModifyTime", "Name", "NodeID", "RescheduleTracker", "TaskGroup", "TaskStates",
)  # fmt: skip
"""What an allocation has in a list, of 0.8.7."""
WORKED_S = 0.01
ADDRESS = "10.99.1.2"


class NomadServer(TroubledServer):
    """One server and one client node. ``memory_mb``: what the node has. ``run``: what a started task does, if anything."""

    def __init__(self, version: str = NEW, *, token: str = "", memory_mb: int = 1000) -> None:
        super().__init__()
        self.version, self.token, self.memory_mb = version, token, memory_mb
        self.index = 7
        self.jobs: dict[str, dict[str, Any]] = {}
        self.evaluations: list[dict[str, Any]] = []
        self.allocations: list[dict[str, Any]] = []
        self.news = asyncio.Event()
        self.node, self.address = str(uuid.uuid4()), ADDRESS
        self.networks = True
        self.run: Callable[[dict[str, Any]], Any] = lambda _task: None
        self.ran: dict[str, Any] = {}

    @property
    def left(self) -> list[str]:
        """Everything of apps that is still there."""
        running = [a["ID"] for a in self.allocations if a["ClientStatus"] in ("pending", "running")]
        return [*self.jobs, *running]

    def application(self) -> web.Application:
        app = web.Application(middlewares=[self.middleware(), self._checked()])
        app.router.add_get("/v1/agent/self", self._self)
        app.router.add_get("/v1/jobs", self._list)
        app.router.add_put("/v1/jobs", self._register)
        app.router.add_post("/v1/jobs", self._register)
        app.router.add_get("/v1/job/{id}", self._job)
        app.router.add_delete("/v1/job/{id}", self._deregister)
        app.router.add_get("/v1/job/{id}/evaluations", self._evaluations)
        app.router.add_get("/v1/job/{id}/allocations", self._allocations)
        app.router.add_get("/v1/allocation/{id}", self._allocation)
        app.router.add_get("/v1/node/{id}", self._node)
        return app

    def end(self, key: str, code: int = 1) -> None:
        """The task of a job ends by itself."""
        for allocation in self.allocations:
            if allocation["JobID"] == key and allocation["ClientStatus"] == "running":
                self._event(allocation, "Terminated", f"Exit Code: {code}", ExitCode=code)
                self._event(allocation, "Not Restarting", "Policy allows no restarts", FailsTask=True)
                self._now(allocation, "failed" if code else "complete")
                self.ran.pop(allocation["ID"], None)

    def lose_node(self, key: str) -> None:
        """The node of a job is lost: it is placed once more."""
        (lost,) = [
            each for each in self.allocations if each["JobID"] == key and each["ClientStatus"] == "running"
        ]
        self._now(lost, "lost")
        job = self.jobs[key]
        task = job["TaskGroups"][0]["Tasks"][0]
        self.address = "10.99.1.3"
        self._start(self._placed(job, {"ID": lost["EvalID"]}, task), task)

    # requests

    def _checked(self) -> Any:
        @web.middleware
        async def checked(request: web.Request, handler: Any) -> web.StreamResponse:
            if self.token and request.headers.get("X-Nomad-Token") != self.token:
                return web.Response(status=403, text="Permission denied")
            if request.query.get("region", "global") != "global":
                return web.Response(status=500, text="No path to region")
            return await handler(request)

        return checked

    async def _self(self, request: web.Request) -> web.Response:
        version = {"Revision": "", "Version": self.version, "VersionMetadata": "", "VersionPrerelease": ""}
        return self._answer(request, {"config": {"Version": version}})

    async def _list(self, request: web.Request) -> web.Response:
        prefix = request.query.get("prefix", "")
        names = (
            "ID",
            "Name",
            "Type",
            "Priority",
            "Stop",
            "Status",
            "CreateIndex",
            "ModifyIndex",
            "JobModifyIndex",
        )
        found = [
            {name: job[name] for name in names} | {"JobSummary": self._summary(job)}
            for key, job in sorted(self.jobs.items())
            if key.startswith(prefix)
        ]
        return self._answer(request, found)

    def _summary(self, job: dict[str, Any]) -> dict[str, Any]:
        ours = [
            each["ClientStatus"]
            for each in self.allocations
            if each["JobID"] == job["ID"] and each["CreateIndex"] >= job["CreateIndex"]
        ]
        names = {
            "Complete": "complete",
            "Failed": "failed",
            "Running": "running",
            "Starting": "pending",
            "Lost": "lost",
        }
        return {
            "JobID": job["ID"],
            "Summary": {"app": {name: ours.count(status) for name, status in names.items()}},
        }

    async def _register(self, request: web.Request) -> web.Response:
        body = await request.json()
        job = body["Job"]
        wrong = [] if job.get("Datacenters") else ["Missing job datacenters"]
        wrong += [] if job.get("TaskGroups") else ["Missing job task groups"]
        if wrong:
            lines = "".join(f"\t* {each}\n" for each in wrong)
            return web.Response(status=500, text=f"{len(wrong)} errors occurred:\n{lines}\n")
        if body.get("EnforceIndex") and body["JobModifyIndex"] == 0 and job["ID"] in self.jobs:
            return web.Response(status=500, text="Enforcing job modify index 0: job already exists")
        at = self._bump()
        self.jobs[job["ID"]] = job | {
            "CreateIndex": at,
            "ModifyIndex": at,
            "JobModifyIndex": at,
            "Stop": False,
        }
        self.jobs[job["ID"]]["Status"] = "pending"
        return self._evaluated(request, job["ID"], at, {"Warnings": ""}, self._schedule)

    async def _deregister(self, request: web.Request) -> web.Response:
        key, at = request.match_info["id"], self._bump()
        job = self.jobs.get(key)
        if job is not None and request.query.get("purge") == "true":
            del self.jobs[key]
        elif job is not None:
            job |= {"Stop": True, "Status": "dead"}
        more = {} if self.version == OLD else {"VolumeEvalID": "", "VolumeEvalIndex": 0}
        return self._evaluated(request, key, at, more, self._stop)

    def _evaluated(self, request: web.Request, key: str, at: int, more: Any, then: Any) -> web.Response:
        """The evaluation has the job's index in 1.0, the next one in 0.8."""
        index = self._bump() if self.version == OLD else at
        evaluation = {
            "ID": str(uuid.uuid4()), "JobID": key, "Status": "pending", "CreateIndex": index, "ModifyIndex": index,
            "JobModifyIndex": at, "FailedTGAllocs": None, "BlockedEval": "", "StatusDescription": "",
        }  # fmt: skip
        self.evaluations.append(evaluation)
        asyncio.get_running_loop().call_later(WORKED_S, then, evaluation)
        answer = {"EvalCreateIndex": index, "EvalID": evaluation["ID"], "Index": index, "JobModifyIndex": at}
        return self._answer(
            request, answer | {"KnownLeader": False, "LastContact": 0} | more, index, query=False
        )

    async def _job(self, request: web.Request) -> web.Response:
        job = self.jobs.get(request.match_info["id"])
        return web.Response(status=404, text="job not found") if job is None else self._answer(request, job)

    async def _evaluations(self, request: web.Request) -> web.Response:
        return await self._news_of(request, self.evaluations, lambda each: each)

    async def _allocations(self, request: web.Request) -> web.Response:
        return await self._news_of(
            request, self.allocations, lambda each: {name: each[name] for name in STUB}
        )

    async def _allocation(self, request: web.Request) -> web.Response:
        for each in self.allocations:
            if each["ID"] == request.match_info["id"]:
                return self._answer(request, each)
        return web.Response(status=404, text="alloc not found")

    async def _node(self, request: web.Request) -> web.Response:
        attributes = {"unique.network.ip-address": self.address}
        return self._answer(request, {"ID": self.node, "Attributes": attributes})

    async def _news_of(self, request: web.Request, table: Any, shown: Any) -> web.Response:
        """A blocking query, which waits for an index above the one it is given."""
        key = request.match_info["id"]
        until = asyncio.get_running_loop().time() + float(request.query.get("wait", "5s").removesuffix("s"))
        while True:
            rows = [each for each in table if each["JobID"] == key]
            index = max((each["ModifyIndex"] for each in rows), default=self.index)
            remaining = until - asyncio.get_running_loop().time()
            if index > int(request.query.get("index", 0)) or remaining <= 0:
                return self._answer(request, [shown(each) for each in rows], index)
            try:
                async with asyncio.timeout(remaining):
                    await self.news.wait()
            except TimeoutError:
                continue

    def _answer(
        self, request: web.Request, body: Any, index: int | None = None, *, query: bool = True
    ) -> web.Response:
        headers = {"X-Nomad-Index": str(self.index if index is None else index), "Vary": "Accept-Encoding"}
        if query:
            headers |= {"X-Nomad-Knownleader": "true", "X-Nomad-Lastcontact": "0"}
        response = web.json_response(body, headers=headers)
        response.enable_compression(web.ContentCoding.gzip)
        return response

    # what happens by itself

    def _schedule(self, evaluation: dict[str, Any]) -> None:
        job = self.jobs.get(evaluation["JobID"])
        evaluation |= {"Status": "complete", "ModifyIndex": self._bump()}
        if job is None:
            return
        group = job["TaskGroups"][0]
        task = group["Tasks"][0]
        metric: dict[str, Any] = {}
        if task["Driver"] not in ("raw_exec", "exec", "docker"):
            metric = {"ConstraintFiltered": {"missing drivers": 1}, "NodesFiltered": 1}
        elif task["Resources"]["MemoryMB"] > self.memory_mb:
            metric = {"DimensionExhausted": {"memory": 1}, "NodesExhausted": 1}
        if metric:
            newer = {} if self.version == OLD else {"ScoreMetaData": None}
            evaluation |= {"FailedTGAllocs": {group["Name"]: METRIC | newer | metric}}
            blocked = evaluation | {"ID": str(uuid.uuid4()), "Status": "blocked", "CreateIndex": self._bump()}
            evaluation["BlockedEval"] = blocked["ID"]
            self.evaluations.append(blocked)
            return
        allocation = self._placed(job, evaluation, task)
        asyncio.get_running_loop().call_later(WORKED_S, self._start, allocation, task)

    def _placed(
        self, job: dict[str, Any], evaluation: dict[str, Any], task: dict[str, Any]
    ) -> dict[str, Any]:
        at = self._bump()
        job["Status"] = "running"
        networks = [{"IP": self.address, "Device": "eth0", "MBits": 1}] if self.networks else None
        asked = task["Resources"].get("Networks") and networks
        if self.version == OLD:
            places: dict[str, Any] = {
                "Resources": {"Networks": asked},
                "TaskResources": {task["Name"]: {"Networks": asked}},
            }
        else:
            tasks = {task["Name"]: {"Networks": asked}}
            places = {
                "AllocatedResources": {"Tasks": tasks, "Shared": {"Networks": None}},
                "NetworkStatus": None,
            }
        allocation = {
            "ClientDescription": "", "ClientStatus": "pending", "CreateIndex": at, "CreateTime": time.time_ns(),
            "DeploymentStatus": None, "DesiredDescription": "", "DesiredStatus": "run",
            "DesiredTransition": {"ForceReschedule": None, "Migrate": None, "Reschedule": None},
            "EvalID": evaluation["ID"], "FollowupEvalID": "", "ID": str(uuid.uuid4()), "JobID": job["ID"], "JobVersion": 0,
            "ModifyIndex": at, "ModifyTime": time.time_ns(), "Name": f"{job['ID']}.app[0]", "NodeID": self.node,
            "RescheduleTracker": None, "TaskGroup": "app", "TaskStates": None, **places,
        }  # fmt: skip
        self.allocations.append(allocation)
        return allocation

    def _start(self, allocation: dict[str, Any], task: dict[str, Any]) -> None:
        if allocation["ClientStatus"] != "pending":
            return
        self._event(allocation, "Received", "Task received by client")
        building = "Building Task Directory"
        self._event(allocation, "Task Setup", building, Message=building, Details={"message": building})
        if task["Config"].get("command") == "/nonexistent":
            old = f'failed to start task "app" for alloc "{allocation["ID"]}": binary "/nonexistent" could not be found'
            new = "failed to launch command with executor: rpc error: code = Unknown desc = "
            new += 'binary "/nonexistent" could not be found'
            self._event(allocation, "Driver Failure", old if self.version == OLD else new, FailsTask=True)
            self._event(allocation, "Not Restarting", "Policy allows no restarts", FailsTask=True)
            if self.version == NEW:
                self._event(allocation, "Alloc Unhealthy", "Unhealthy because of failed task")
            self._now(allocation, "failed")
            return
        self.ran[allocation["ID"]] = self.run(task)
        self._event(allocation, "Started", "Task started by client")
        self._now(allocation, "running")

    def _stop(self, evaluation: dict[str, Any]) -> None:
        evaluation |= {"Status": "complete", "ModifyIndex": self._bump()}
        for each in self.allocations:
            if each["JobID"] == evaluation["JobID"] and each["ClientStatus"] in ("pending", "running"):
                each |= {"DesiredStatus": "stop", "ModifyIndex": self._bump()}
                asyncio.get_running_loop().call_later(WORKED_S, self._stopped, each)

    def _stopped(self, allocation: dict[str, Any]) -> None:
        process = self.ran.pop(allocation["ID"], None)
        if process is not None:
            process.kill()
        self._event(allocation, "Killed", "Task successfully killed")
        self._now(allocation, "complete")

    def _event(self, allocation: dict[str, Any], kind: str, said: str, **more: Any) -> None:
        states = allocation["TaskStates"] or {
            "app": {"Events": [], "Failed": False, "State": "pending", "Restarts": 0}
        }
        states["app"] |= {"FinishedAt": None, "LastRestart": None, "StartedAt": None}
        states["app"]["Events"].append(
            EVENT | {"Type": kind, "DisplayMessage": said, "Time": time.time_ns()} | more
        )
        allocation["TaskStates"] = states

    def _now(self, allocation: dict[str, Any], status: str) -> None:
        allocation |= {"ClientStatus": status, "ModifyIndex": self._bump(), "ModifyTime": time.time_ns()}
        state = "running" if status == "running" else "dead"
        allocation["TaskStates"]["app"] |= {"State": state, "Failed": status == "failed"}
        if status == "running":
            allocation["TaskStates"]["app"]["StartedAt"] = "2026-11-20T23:33:10.096460895Z"
        job = self.jobs.get(allocation["JobID"])
        if job is not None:
            job["Status"] = state

    def _bump(self) -> int:
        self.index += 1
        news, self.news = self.news, asyncio.Event()
        news.set()
        return self.index
