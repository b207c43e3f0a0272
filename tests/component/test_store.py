"""The services store on a real disk."""

from __future__ import annotations

import sqlite3
import threading
from ipaddress import ip_address

import pytest

from tof.drivers.store import Store
from tof.errors import BackendError, SetupError
from tof.model import Service


def service(name, number):
    return Service(name, ip_address(f"198.51.100.{number}"), ip_address("192.168.50.10"))


V6 = Service("six", ip_address("2001:db8::1"), ip_address("2001:db8::2"))


async def test_what_was_put_is_there_after_a_restart(tmp_path):
    path = tmp_path / "state" / "services.db"
    async with Store(path) as store:
        assert await store.load() == []
        await store.put(service("b", 2))
        await store.put(service("a", 1))
        await store.put(V6)
    async with Store(path) as store:
        assert await store.load() == [service("a", 1), service("b", 2), V6]


async def test_put_is_durable_before_it_returns(tmp_path):
    path = tmp_path / "services.db"
    async with Store(path) as store:
        await store.put(service("a", 1))
        other = sqlite3.connect(path)
        try:
            assert other.execute("SELECT name FROM service").fetchall() == [("a",)]
            assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        finally:
            other.close()


async def test_put_replaces_and_renames(tmp_path):
    async with Store(tmp_path / "services.db") as store:
        await store.put(service("a", 1))
        await store.put(service("a", 2))
        assert await store.load() == [service("a", 2)]
        await store.put(service("b", 2), replaces="a")
        assert await store.load() == [service("b", 2)]


async def test_delete_and_replace_all(tmp_path):
    async with Store(tmp_path / "services.db") as store:
        await store.put(service("a", 1))
        await store.delete("a")
        await store.delete("never")
        assert await store.load() == []
        await store.put(service("a", 1))
        await store.replace_all([service("b", 1), V6])
        assert await store.load() == [service("b", 1), V6]


async def test_a_refused_write_changes_nothing(tmp_path):
    async with Store(tmp_path / "services.db") as store:
        await store.put(service("a", 1))
        with pytest.raises(BackendError, match="cannot write"):
            await store.put(service("b", 1))
        with pytest.raises(BackendError):
            await store.replace_all([service("c", 3), service("d", 3)])
        assert await store.load() == [service("a", 1)]


async def test_work_is_done_in_one_thread_which_ends(tmp_path):
    async with Store(tmp_path / "services.db") as store:
        for number in range(1, 6):
            await store.put(service(f"s{number}", number))
        assert len([t for t in threading.enumerate() if t.name.startswith("tof-store")]) == 1
    assert not [t for t in threading.enumerate() if t.name.startswith("tof-store")]


@pytest.mark.parametrize(
    "junk", [b"not a database, but long enough to be read as one" * 100, b"SQLite format 3\0junk"]
)
async def test_a_damaged_file_says_what_to_do(tmp_path, junk):
    path = tmp_path / "services.db"
    path.write_bytes(junk)
    with pytest.raises(SetupError, match="move it away"):
        async with Store(path):
            pass
    assert path.read_bytes() == junk


async def test_a_file_damaged_in_the_middle(tmp_path):
    path = tmp_path / "services.db"
    async with Store(path) as store:
        await store.replace_all(service(f"s{n}", n) for n in range(250))
    raw = bytearray(path.read_bytes())
    raw[4096:8192] = b"\xff" * 4096
    path.write_bytes(raw)
    with pytest.raises(SetupError, match="move it away"):
        async with Store(path) as store:
            await store.load()


async def test_unreadable_rows(tmp_path):
    path = tmp_path / "services.db"
    async with Store(path):
        pass
    db = sqlite3.connect(path)
    db.execute("INSERT INTO service VALUES ('a', 'no address', '192.0.2.1')")
    db.commit()
    db.close()
    async with Store(path) as store:
        with pytest.raises(SetupError, match="damaged"):
            await store.load()


async def test_a_newer_schema_is_refused(tmp_path):
    path = tmp_path / "services.db"
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 7")
    db.close()
    with pytest.raises(SetupError, match="newer tof"):
        async with Store(path):
            pass


async def test_a_place_that_cannot_hold_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SetupError, match=r"state\.dir"):
        async with Store(tmp_path / "file" / "services.db"):
            pass
    with pytest.raises(SetupError, match=r"state\.dir"):
        async with Store(tmp_path):
            pass
