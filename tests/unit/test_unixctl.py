"""The control socket of Open vSwitch, spoken to by a server that answers as it does."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from tof.drivers.unixctl import new_port, unixctl
from tof.errors import BackendError


async def asked(tmp_path: Path, pieces: list[bytes], pause_s: float = 0.0) -> tuple[str, object]:
    """What is made of an answer in these pieces, and the request."""
    heard = bytearray()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            heard.extend(await reader.read(4096))
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0.01)
            await asyncio.sleep(pause_s)
        finally:
            writer.close()

    path = tmp_path / "ctl"
    async with await asyncio.start_unix_server(serve, str(path)):
        answer = await unixctl(path, ("revalidator/purge", "x"), 0.5)
    return answer, json.loads(heard)


def test_an_answer_in_any_pieces(tmp_path: Path) -> None:
    pieces = [b'{"id":0,"res', b'ult":"done","error":nu', b"ll}"]
    answer, request = asyncio.run(asked(tmp_path, pieces))
    assert answer == "done"
    assert request == {"id": 0, "method": "revalidator/purge", "params": ["x"]}


@pytest.mark.parametrize(
    ("pieces", "pause_s", "said"),
    [
        ([b'{"id":0,"result":null,"error":"no such command\\n"}'], 0, "no such command"),
        ([b'{"id":0'], 0, "broke off"),
        ([], 2, "did not answer"),
        ([b"[1]"], 0, "revalidator/purge"),
    ],
)
def test_what_is_no_answer(tmp_path: Path, pieces: list[bytes], pause_s: float, said: str) -> None:
    with pytest.raises(BackendError, match=said):
        asyncio.run(asked(tmp_path, pieces, pause_s))


def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="purge"):
        asyncio.run(unixctl(tmp_path / "none", ("purge",), 1.0))


async def plugged(tmp_path: Path, answers: list[object]) -> tuple[object, list[dict[str, object]]]:
    """What becomes of a new port when the database answers so, and what it was asked."""
    heard: list[dict[str, object]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(json.loads(await reader.read(65536)))
        writer.write(json.dumps({"id": 0, "error": None, "result": answers[len(heard) - 1]}).encode())
        writer.close()

    path = tmp_path / "db"
    async with await asyncio.start_unix_server(serve, str(path)):
        return await new_port(path, "br-ue", "tofp1", 7, "default", 1.0), heard


@pytest.mark.parametrize(
    ("row", "made"),
    [
        ({"ofport": 7, "error": ["set", []]}, ("7", "")),
        ({"ofport": -1, "error": "could not open"}, ("-1", "could not open")),
    ],
)
def test_a_new_port(tmp_path: Path, row: object, made: tuple[str, str]) -> None:
    found, heard = asyncio.run(plugged(tmp_path, [[{}, {}, {}, {}, {}], [{}, {"rows": [row]}]]))
    assert found == made
    assert [one["method"] for one in heard] == ["transact", "transact"]


def test_a_port_that_is_there_is_not_new(tmp_path: Path) -> None:
    answers: list[object] = [[{}, {}, {}, {}, {}, {"error": "constraint violation"}]]
    assert asyncio.run(plugged(tmp_path, answers))[0] is None


@pytest.mark.parametrize("looked", [[{"error": "timed out"}, None], [], [{}, {"rows": []}]])
def test_a_port_that_open_vswitch_does_not_look_at(tmp_path: Path, looked: object) -> None:
    with pytest.raises(BackendError, match="has not looked"):
        asyncio.run(plugged(tmp_path, [[{}], looked]))
