"""`tof explain --ue` against a live API: what is asked, what is answered, and the document."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from memory_port import MemoryPort, tunnel

from tof.agent.chain_body import chain_body
from tof.agent.service_body import parse
from tof.api.app import create_app
from tof.api.client import connect
from tof.api.port import LearntAddress
from tof.api.server import serve
from tof.explain.asking import ask
from tof.explain.live import Question, answers
from tof.model import Chain
from tof.wire.inet import TCP

UE, TO = bytes((10, 45, 0, 2)), bytes((203, 0, 113, 10))
BOTH = tunnel(1), tunnel(2, "downlink", "10.0.1.1", "10.0.0.1")


@pytest.fixture
def port():
    one = MemoryPort()
    one.held = [*BOTH, tunnel(9, ues=("10.45.0.9",))]
    one.catalog.put_new(parse({"name": "web", "serviceIP": "203.0.113.10", "applicationIP": "192.168.50.10"}))
    one.catalog.put_new(parse({"name": "a.b", "serviceIP": "203.0.113.11", "applicationIP": "192.168.50.11"}))
    return one


@pytest.fixture
async def address(port, tmp_path):
    path = f"unix:{tmp_path}/api.sock"
    async with serve(create_app(port), [path]):
        yield path


async def asked(address, question):
    async with connect((address,)) as client:
        return answers(question, await ask(client, question))


async def test_diverted_and_answered(address):
    (one,) = await asked(address, Question(UE, TO, TCP, 80))
    assert (one.outcome.verdict.value, one.outcome.service.name) == ("diverted", "web")
    assert (one.uplink["teid"], one.reply.reason, one.reply.tunnels[0]["teid"]) == (1, "answered", 2)


async def test_what_is_wrong_is_named(address, port):
    port.unresolved = {"web"}
    (one,) = await asked(address, Question(UE, TO))
    assert (one.outcome.reason, one.outcome.detail) == ("unresolved", "192.168.50.10 does not answer")
    (other,) = await asked(address, Question(bytes((10, 45, 0, 77)), TO))
    assert (other.uplink, other.outcome.reason) == (None, "unresolved")


async def test_a_service_has_the_addresses_of_the_moment(address, port):
    body = {"name": "cinema", "domain": "cinema.example.com", "applicationIP": "192.168.50.12", "priority": 1}
    port.catalog.put_new(parse({**body, "protocol": "tcp", "ports": [80]}))
    port.learnt["cinema"] = ()
    there = Question(UE, bytes((203, 0, 113, 81)), TCP, 80)
    (one,) = await asked(address, there)
    assert (one.outcome.reason, one.outcome.detail) == ("no_service", "no service has 203.0.113.81")
    port.learnt["cinema"] = (LearntAddress("203.0.113.81", datetime(2026, 1, 2, tzinfo=UTC)),)
    (one,) = await asked(address, there)
    assert (one.outcome.verdict.value, one.outcome.service.name) == ("diverted", "cinema")
    (one,) = await asked(address, replace(there, port=81))
    assert "cinema: port 81 is not 80" in one.outcome.detail


async def test_the_chain_and_the_applications_that_a_service_has(address, port):
    chain = Chain("inspected", ("firewall",))
    port.catalog.replace_all(
        [parse({
            "name": "web", "serviceIP": "203.0.113.10", "applicationIP": "192.168.50.10", "chain": "inspected",
            "spread": {"applications": ["192.168.50.11"], "by": "flow"},
        })],
        [chain],
    )  # fmt: skip
    status, out, _ = await command(address, "--ue", "10.45.0.2", "--to", "203.0.113.10", "--json")
    (one,) = json.loads(out)["answers"]
    assert (status, one["chain"], one["application"]) == (
        0,
        chain_body(chain),
        "192.168.50.10, 192.168.50.11",
    )


async def test_of_an_unknown_ue(address):
    (one,) = await asked(address, Question(bytes((10, 45, 0, 77)), TO))
    assert (one.uplink, one.outcome.reason, one.reply.reason) == (None, "ue_unknown", "ue_no_tunnel")


async def command(address, *arguments):
    argv = (sys.executable, "-m", "tof", "explain", "--api", address, *arguments)
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*argv, stdout=pipe, stderr=pipe)
    out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


async def test_the_command(address):
    where = ("--ue", "10.45.0.2", "--to", "203.0.113.10", "--protocol", "tcp", "--port", "443")
    status, out, err = await command(address, *where, "--json")
    found = json.loads(out)
    assert (status, err) == (0, "")
    (one,) = found.pop("answers")
    assert found == {"ue": "10.45.0.2", "to": "203.0.113.10", "protocol": "tcp", "port": 443, "dscp": 0}
    assert one.keys() == {
        "uplink", "verdict", "reason", "why", "detail", "service", "chain", "application", "reply"
    }  # fmt: skip
    assert (one["uplink"]["teid"], [down["teid"] for down in one["reply"]["downlinks"]]) == (1, [2])
    status, out, err = await command(address, *where)
    assert (status, err) == (0, "")
    assert "10.0.0.1 > 10.0.1.1 0x00000001" in out
    assert "answered  10.0.1.1 > 10.0.0.1 0x00000002" in out


async def test_the_command_about_what_is_not_known(address):
    status, out, _ = await command(address, "--ue", "10.45.0.77", "--to", "198.51.100.1", "--json")
    found = json.loads(out)
    assert (status, found["protocol"]) == (0, None)
    (one,) = found["answers"]
    assert (one["uplink"], one["verdict"], one["reply"]) == (None, "teaches", None)
    status, out, _ = await command(
        address, "--ue", "10.45.0.77", "--to", "203.0.113.10", "--teid", "1", "--vlan", "0"
    )
    assert status == 0
    assert "not known yet" in out
