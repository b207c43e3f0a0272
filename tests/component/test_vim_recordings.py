"""The test servers answer as the real ones were recorded to: request by request, status and shape."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from nomad_server import NEW, OLD, NomadServer
from openvim_server import OpenVimServer

VECTORS = Path(__file__).parents[1] / "vectors" / "vim"
IDENTITY = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
NONE = "00000000-0000-0000-0000-000000000000"
FREE = {"checksum", "created", "href", "CreateTime", "ModifyTime", "Time", "StartedAt", "AllocationTime"}
"""What differs from run to run."""


@dataclass
class Translation:
    """Identities of the recording, in the words of the test server."""

    known: dict[str, str] = field(default_factory=dict)

    def of(self, text: str) -> str:
        return IDENTITY.sub(lambda found: self.known.get(found[0], found[0]), text)

    def compare(self, recorded: Any, answer: Any, where: str = "", exact: bool = True) -> None:
        """The same keys, the same kinds, and what is not free the same values; identities are learnt."""
        if isinstance(recorded, dict):
            assert recorded.keys() == answer.keys(), where
            for name, value in recorded.items():
                self.compare(value, answer[name], f"{where}.{name}", exact and name not in FREE)
        elif isinstance(recorded, list):
            assert len(recorded) == len(answer), where
            for at, value in enumerate(recorded):
                self.compare(value, answer[at], f"{where}[{at}]", exact)
        elif isinstance(recorded, str) and IDENTITY.fullmatch(recorded) and recorded != NONE:
            assert IDENTITY.fullmatch(answer), where
            assert self.known.setdefault(recorded, answer) == answer, where
        elif not exact:
            assert type(recorded) is type(answer), where
        elif isinstance(recorded, str):
            assert self.of(recorded) == answer, where
        else:
            assert recorded == answer, where


# OpenVIM


@dataclass(frozen=True)
class Exchange:
    method: str
    path: str
    body: str
    status: int
    answer: str


def exchanges() -> Iterator[Exchange]:
    text = (VECTORS / "openvim_transcript.txt").read_text()
    for part in text.split("\n>>> ")[1:]:
        (first, *body), said = part[: part.index("<<< ")].splitlines(), part[part.index("<<< ") + 4 :]
        found = re.fullmatch(r"(\d+) \(\d+ ms\) (.*)", said.strip(), re.DOTALL)
        assert found is not None
        method, at = first.split()
        yield Exchange(method, at.split("/", 1)[1], "".join(body).strip(), int(found[1]), found[2])


def as_asked(body: str) -> Any:
    """The body; of one that was cut short the first of its two objects."""
    if not body:
        return None
    try:
        return json.loads(body)
    except ValueError:
        host = json.JSONDecoder().raw_decode(body.removeprefix('{"host": '))[0]
        described = re.search(r'"description": "([^"]*)"', body)
        return {"host": host | {"description": described[1] if described else ""}}


async def test_openvim() -> None:
    server, words, whole = OpenVimServer(looks=5), Translation(), 0
    async with server.running() as url, aiohttp.ClientSession() as session:
        for one in exchanges():
            path, body = words.of(one.path), as_asked(words.of(one.body))
            async with session.request(one.method, f"{url}/{path}", json=body) as response:
                assert response.status == one.status, one
                answer = await response.json()
            try:
                recorded = json.loads(one.answer)
            except ValueError:  # cut short: at least what it begins with
                assert one.answer.startswith('{ "' + next(iter(answer))), one
                if one.path.endswith("openvim/hosts"):
                    learn(words, one.answer, answer)
                continue
            words.compare(recorded, answer)
            whole += 1
    assert whole >= 28


def learn(words: Translation, recorded: str, answer: Any) -> None:
    found = IDENTITY.search(recorded)
    assert found is not None
    words.known[found[0]] = answer["host"]["id"]


# Nomad


async def test_nomad_of_a_capture() -> None:
    """Deeds and blocking queries of five jobs; the lists are compared once they say the same."""
    server, words = NomadServer(OLD), Translation()
    rows = [json.loads(line) for line in (VECTORS / "nomad_http_0.8.7.jsonl").read_text().splitlines()]
    assert len(rows) == 24
    async with server.running() as url, aiohttp.ClientSession() as session:
        for row in rows:
            recorded = row["answer"]
            path = row["path"].split("?")[0]
            for _ in range(50):
                async with session.request(row["method"], url + path, json=row["request"]) as response:
                    answer, headers = await response.json(), response.headers
                    assert response.status == row["status"]
                if not isinstance(recorded, list) or at_same_point(recorded, answer):
                    break
                await asyncio.sleep(0.002)
            assert row["headers"].keys() <= headers.keys()
            assert headers["Content-Encoding"] == row["headers"]["Content-Encoding"]
            if recorded:
                relative(recorded, row["headers"])
                relative(answer, headers)
                words.compare(recorded, answer)


def at_same_point(recorded: list[Any], answer: list[Any]) -> bool:
    """An empty list may have been passed already; a pending allocation too, but a running one comes."""
    return not recorded or (bool(answer) and answer[0]["ClientStatus"] == recorded[0]["ClientStatus"])


def relative(answer: Any, headers: Any) -> None:
    """Indexes as distances: only these are the same from server to server."""
    if isinstance(answer, dict):
        for name in ("EvalCreateIndex", "JobModifyIndex"):
            answer[name] -= answer["Index"]
        assert answer.pop("Index") == int(headers["X-Nomad-Index"])
        return
    for each in answer:
        each |= {"CreateIndex": 0, "ModifyIndex": each["ModifyIndex"] > each["CreateIndex"], "NodeID": NONE}


@pytest.mark.parametrize("version", [OLD, NEW])
async def test_nomad_of_what_a_client_saw(version: str) -> None:
    """The session that the text tells of, told again."""
    server, lines = NomadServer(version), (VECTORS / f"nomad_api_{version}.txt").read_text()
    told: list[str] = []
    async with server.running() as url, aiohttp.ClientSession() as session:

        async def ask(method: str, path: str, body: Any = None) -> tuple[int, str]:
            async with session.request(method, f"{url}/v1{path}", json=body) as response:
                return response.status, await response.text()

        async def until_over(key: str) -> Any:
            for _ in range(100):
                allocations = json.loads((await ask("GET", f"/job/{key}/allocations"))[1])
                if allocations and allocations[0]["ClientStatus"] in ("running", "failed"):
                    return allocations[0]
                await asyncio.sleep(0.005)
            raise AssertionError("never")

        version_of = json.loads((await ask("GET", "/agent/self"))[1])["config"]["Version"]
        told.append(f"version {version_of}")
        put = [await ask("PUT", "/jobs", enforced("meapp-1")), await ask("PUT", "/jobs", enforced("meapp-1"))]
        assert (await until_over("meapp-1"))["ClientStatus"] == "running"
        put.append(await ask("PUT", "/jobs", enforced("meapp-bad", command="/nonexistent")))
        bad = await until_over("meapp-bad")
        put.append(await ask("PUT", "/jobs", enforced("meapp-none", driver="none-such")))
        await asyncio.sleep(0.1)
        evaluations = json.loads((await ask("GET", "/job/meapp-none/evaluations"))[1])
        told += [f"PUT /jobs {status} {text}" for status, text in put]
        events = [event["DisplayMessage"] for event in bad["TaskStates"]["app"]["Events"]]
        told.append(f"{bad['ClientStatus']} {events}")
        told.append(f"FAILED placement {json.dumps(evaluations[0]['FailedTGAllocs'], sort_keys=True)}")
        told.append("invalid: {} {}".format(*await ask("PUT", "/jobs", {"Job": {"ID": "x"}})))
        told.append("missing: {} {}".format(*await ask("GET", "/job/none")))
        for key in ("meapp-1", "meapp-bad", "meapp-none"):
            told.append("DELETE {} {}".format(*await ask("DELETE", f"/job/{key}?purge=true")))
        told.append(f"jobs left {json.loads((await ask('GET', '/jobs'))[1])}")
    recorded = without_numbers(lines)
    for line in told:
        said = without_numbers(line)
        cut_short = any(len(each) > 100 and said.startswith(each) for each in recorded.splitlines())
        assert said in recorded or cut_short, line


def without_numbers(text: str) -> str:
    """Identities and indexes as signs; JSON with the spaces of Python's, as the recording client wrote some of it."""
    text = IDENTITY.sub("ID", text).replace('": ', '":').replace(', "', ',"')
    return re.sub(r'(Index|AllocationTime)":\d+', r'\1":N', text)


def enforced(key: str, *, command: str = "/bin/sleep", driver: str = "raw_exec") -> dict[str, Any]:
    resources = {"CPU": 20, "MemoryMB": 10, "Networks": None}
    task = {"Name": "app", "Driver": driver, "Config": {"command": command}, "Resources": resources}
    job = {"ID": key, "Name": key, "Datacenters": ["dc1"], "TaskGroups": [{"Name": "app", "Tasks": [task]}]}
    return {"Job": job, "EnforceIndex": True, "JobModifyIndex": 0}
