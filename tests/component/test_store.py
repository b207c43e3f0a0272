"""The services store on a real disk."""

from __future__ import annotations

import json
import sqlite3
import threading
from dataclasses import replace
from ipaddress import ip_address

import pytest

from tof.agent.app import App, AppRow
from tof.agent.lcm import Descriptor, Instance, Power
from tof.agent.service_body import parse
from tof.drivers.store import Store
from tof.errors import BackendError, SetupError
from tof.model import (
    Chain,
    Heading,
    Mark,
    MarkKind,
    OnFailure,
    Policy,
    SecurityGroup,
    SecurityRule,
    Service,
)


def service(name, number):
    return Service(name, ip_address(f"198.51.100.{number}"), ip_address("192.168.50.10"))


V6 = Service("six", ip_address("2001:db8::1"), ip_address("2001:db8::2"))
SELECTIVE = parse(
    {
        "name": "selective",
        "serviceIP": "203.0.113.0/24",
        "applicationIP": "192.168.50.10",
        "protocol": "tcp",
        "ports": [80],
        "applicationPort": 8080,
        "dscp": [46],
        "vlans": [0, 100],
        "ues": ["10.45.0.0/16"],
        "enbs": ["10.0.0.1"],
        "sgws": ["2001:db8::/64"],
        "priority": -7,
        "mode": "shadow",
    }
)
SCHEMA_1 = """
CREATE TABLE service (
    name TEXT PRIMARY KEY,
    service_ip TEXT NOT NULL UNIQUE,
    application_ip TEXT NOT NULL
) STRICT
"""


def write(path, *statements):
    """Change a file behind the store's back."""
    db = sqlite3.connect(path)
    for statement in statements:
        db.execute(statement)
    db.commit()
    db.close()


def written(path, query):
    db = sqlite3.connect(path)
    try:
        return db.execute(query).fetchall()
    finally:
        db.close()


async def test_what_was_put_is_there_after_a_restart(tmp_path):
    path = tmp_path / "state" / "services.db"
    async with Store(path) as store:
        assert await store.load() == []
        await store.put(service("b", 2))
        await store.put(service("a", 1))
        await store.put(V6)
        await store.put(SELECTIVE)
    async with Store(path) as store:
        assert await store.load() == [service("a", 1), service("b", 2), SELECTIVE, V6]


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
        await store.replace_all(Policy((service("b", 1), V6)))
        assert await store.load() == [service("b", 1), V6]


async def test_what_names_mean_is_there_after_a_restart(tmp_path):
    path = tmp_path / "services.db"
    learnt = [("a", ip_address("203.0.113.81"), 1e9 + 0.5), ("a", ip_address("2001:db8::81"), 2e9)]
    async with Store(path) as store:
        assert await store.load_learnt() == []
        await store.keep_learnt([*learnt, ("b", ip_address("203.0.113.81"), 0.0)])
        await store.keep_learnt(iter(learnt))
    async with Store(path) as store:
        assert sorted(await store.load_learnt(), key=str) == sorted(learnt, key=str)
    write(path, "UPDATE learnt SET address = 'nonsense' || address")
    async with Store(path) as store:
        with pytest.raises(SetupError, match="damaged"):
            await store.load_learnt()
    write(path, "DROP TABLE learnt")
    async with Store(path) as store:
        with pytest.raises(BackendError):
            await store.keep_learnt(learnt)


async def test_a_file_of_the_second_schema_is_carried_over(tmp_path):
    path = tmp_path / "services.db"
    async with Store(path) as store:
        await store.put(SELECTIVE)
    write(
        path,
        "DROP TABLE learnt",
        "DROP TABLE chain",
        "DROP TABLE security_group",
        "DROP TABLE app",
        "DROP TABLE lcm",
        "PRAGMA user_version = 2",
    )
    async with Store(path) as store:
        assert await store.load() == [SELECTIVE]
        assert await store.load_learnt() == []
    assert written(path, "PRAGMA user_version") == [(7,)]


async def test_chains_are_stored_with_the_services_that_walk_them(tmp_path):
    path = tmp_path / "services.db"
    chains = (Chain("a", ("x", "y"), OnFailure.SKIP, Mark(MarkKind.NSH, 40)), Chain("b", ("x",)))
    async with Store(path) as store:
        await store.replace_all(Policy((SELECTIVE,), chains))
        assert await store.load_chains() == list(chains)
        await store.replace_all(Policy((SELECTIVE,), chains[1:]))
    async with Store(path) as store:
        assert await store.load_chains() == [chains[1]]
    write(path, "UPDATE chain SET body = '{}'")
    async with Store(path) as store:
        with pytest.raises(SetupError, match="is damaged"):
            await store.load_chains()


async def test_a_file_of_the_third_schema_is_carried_over(tmp_path):
    path = tmp_path / "services.db"
    async with Store(path) as store:
        await store.put(SELECTIVE)
    write(
        path,
        "DROP TABLE chain",
        "DROP TABLE security_group",
        "DROP TABLE app",
        "DROP TABLE lcm",
        "PRAGMA user_version = 3",
    )
    async with Store(path) as store:
        assert await store.load() == [SELECTIVE]
        assert await store.load_chains() == []
    assert written(path, "PRAGMA user_version") == [(7,)]


async def test_security_groups_are_stored_with_the_services(tmp_path):
    path = tmp_path / "services.db"
    groups = (SecurityGroup("a", (SecurityRule(Heading.EGRESS, 6, ues=True),)), SecurityGroup("b"))
    async with Store(path) as store:
        await store.replace_all(Policy((SELECTIVE,), (), groups))
        assert await store.load_groups() == list(groups)
        await store.replace_all(Policy((SELECTIVE,), (), groups[1:]))
    async with Store(path) as store:
        assert await store.load_groups() == [groups[1]]
    write(path, "UPDATE security_group SET body = '{}'")
    async with Store(path) as store:
        with pytest.raises(SetupError, match="is damaged"):
            await store.load_groups()


async def test_a_file_of_the_fourth_schema_is_carried_over(tmp_path):
    path = tmp_path / "services.db"
    async with Store(path) as store:
        await store.put(SELECTIVE)
    write(path, "DROP TABLE security_group", "DROP TABLE app", "DROP TABLE lcm", "PRAGMA user_version = 4")
    async with Store(path) as store:
        assert await store.load() == [SELECTIVE]
        assert await store.load_groups() == []
    assert written(path, "PRAGMA user_version") == [(7,)]


async def test_a_file_of_the_fifth_schema_is_carried_over(tmp_path):
    path = tmp_path / "services.db"
    async with Store(path) as store:
        await store.put(SELECTIVE)
    write(path, "DROP TABLE app", "DROP TABLE lcm", "PRAGMA user_version = 5")
    async with Store(path) as store:
        assert await store.load() == [SELECTIVE]
        assert await store.load_apps() == []
    assert written(path, "PRAGMA user_version") == [(7,)]


async def test_a_file_of_the_sixth_schema_is_carried_over(tmp_path):
    path = tmp_path / "services.db"
    web = AppRow(App("web", command=("/x",)))
    async with Store(path) as store:
        await store.put_app(web)
    write(path, "DROP TABLE lcm", "PRAGMA user_version = 6")
    async with Store(path) as store:
        assert await store.load_apps() == [web]
        assert await store.load_lcm() == []
    assert written(path, "PRAGMA user_version") == [(7,)]


async def test_life_cycles_are_stored(tmp_path):
    path = tmp_path / "services.db"
    descriptor = Descriptor("d", "p", "n", "1", "2", App("app", command=("/x",)))
    instance = Instance("i", descriptor)
    async with Store(path) as store:
        await store.change_lcm(put=[descriptor, instance])
        await store.change_lcm(put=[replace(instance, power=Power.STARTED)], drop=[descriptor])
    async with Store(path) as store:
        assert await store.load_lcm() == [replace(instance, power=Power.STARTED)]
    write(path, "UPDATE lcm SET body = '{}'")
    async with Store(path) as store:
        with pytest.raises(SetupError, match="is damaged"):
            await store.load_lcm()
    write(path, "DROP TABLE lcm")
    async with Store(path) as store:
        with pytest.raises(BackendError):
            await store.change_lcm(put=[descriptor])


async def test_apps_are_stored(tmp_path):
    path = tmp_path / "services.db"
    web, other = AppRow(App("web", command=("/x",))), AppRow(App("other", command=("/x",)), ready=True)
    async with Store(path) as store:
        await store.put_app(web)
        await store.put_app(other)
        assert await store.load_apps() == [other, web]
        await store.put_app(replace(web, wanted=False))
        await store.delete_app("other")
    async with Store(path) as store:
        assert await store.load_apps() == [replace(web, wanted=False)]
    write(path, "UPDATE app SET body = '{}'")
    async with Store(path) as store:
        with pytest.raises(SetupError, match="is damaged"):
            await store.load_apps()
    write(path, "DROP TABLE app")
    async with Store(path) as store:
        with pytest.raises(BackendError):
            await store.put_app(web)


async def test_several_services_are_changed_as_one(tmp_path):
    async with Store(tmp_path / "services.db") as store:
        await store.change(put=[service("a", 1), service("b", 2)])
        await store.change(put=[service("a", 3), service("c", 4)], drop=["b"])
        assert await store.load() == [service("a", 3), service("c", 4)]


async def test_services_may_share_an_address(tmp_path):
    async with Store(tmp_path / "services.db") as store:
        await store.put(service("a", 1))
        await store.put(service("b", 1))
        await store.delete("a")
        assert await store.load() == [service("b", 1)]


async def test_a_refused_write_changes_nothing(tmp_path):
    async with Store(tmp_path / "services.db") as store:
        await store.put(service("a", 1))
        await store.put(service("b", 2))
        with pytest.raises(BackendError, match="cannot write"):
            await store.put(service("b", 3), replaces="a")
        with pytest.raises(BackendError):
            await store.replace_all(Policy((service("c", 3), service("c", 4))))
        assert await store.load() == [service("a", 1), service("b", 2)]


async def test_a_body_is_what_the_api_shows(tmp_path):
    path = tmp_path / "services.db"
    async with Store(path) as store:
        await store.put(service("a", 1))
    [(name, body)] = written(path, "SELECT name, body FROM service")
    assert name == "a"
    assert json.loads(body) == {
        "name": "a",
        "serviceIP": "198.51.100.1",
        "applicationIP": "192.168.50.10",
    }


async def test_a_file_of_the_first_schema_is_carried_over(tmp_path):
    path = tmp_path / "services.db"
    write(
        path,
        SCHEMA_1,
        "INSERT INTO service VALUES ('b', '198.51.100.2', '192.168.50.10')",
        "INSERT INTO service VALUES ('six', '2001:db8::1', '2001:db8::2')",
        "INSERT INTO service VALUES ('a', '198.51.100.1', '192.168.50.10')",
        "PRAGMA user_version = 1",
    )
    for _ in range(2):
        async with Store(path) as store:
            assert await store.load() == [service("a", 1), service("b", 2), V6]
    assert written(path, "PRAGMA user_version") == [(7,)]
    assert [row[1] for row in written(path, "PRAGMA table_info(service)")] == ["name", "body"]
    async with Store(path) as store:
        await store.put(SELECTIVE)
        assert await store.load() == [service("a", 1), service("b", 2), SELECTIVE, V6]


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO service VALUES ('b', 'no address', '192.0.2.1')",
        "INSERT INTO service VALUES ('b', '192.0.2.1', '')",
        "ALTER TABLE service RENAME COLUMN service_ip TO something",
    ],
)
async def test_a_file_of_the_first_schema_that_cannot_be_read_stays_as_it_is(tmp_path, statement):
    path = tmp_path / "services.db"
    good = "INSERT INTO service VALUES ('a', '198.51.100.1', '192.168.50.10')"
    write(path, SCHEMA_1, good, statement, "PRAGMA user_version = 1")
    before = written(path, "SELECT * FROM service")
    for _ in range(2):
        with pytest.raises(SetupError, match=r"services\.db"):
            async with Store(path):
                pass
    assert written(path, "SELECT * FROM service") == before
    assert written(path, "PRAGMA user_version") == [(1,)]


async def test_a_table_of_somebody_else_is_left_alone(tmp_path):
    path = tmp_path / "services.db"
    write(path, "CREATE TABLE service (other)", "INSERT INTO service VALUES (7)")
    with pytest.raises(SetupError, match="cannot open"):
        async with Store(path):
            pass
    assert written(path, "SELECT * FROM service") == [(7,)]


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
        await store.replace_all(Policy(tuple(service(f"s{n}", n) for n in range(250))))
    raw = bytearray(path.read_bytes())
    raw[4096:8192] = b"\xff" * 4096
    path.write_bytes(raw)
    with pytest.raises(SetupError, match="move it away"):
        async with Store(path) as store:
            await store.load()


@pytest.mark.parametrize(
    "body",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"name": "b", "serviceIP": "198.51.100.1", "applicationIP": "192.168.50.10"}',
        '{"name": "a", "serviceIP": "no address", "applicationIP": "192.168.50.10"}',
        '{"name": "a", "serviceIP": "198.51.100.1", "applicationIP": "192.168.50.10", "port": 80}',
    ],
)
async def test_unreadable_rows(tmp_path, body):
    path = tmp_path / "services.db"
    async with Store(path):
        pass
    write(path, f"INSERT INTO service VALUES ('a', '{body}')")
    async with Store(path) as store:
        with pytest.raises(SetupError, match="damaged"):
            await store.load()


async def test_a_newer_schema_is_refused(tmp_path):
    path = tmp_path / "services.db"
    write(path, "PRAGMA user_version = 8")
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
