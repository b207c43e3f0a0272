"""The services store: SQLite, in one worker thread of its own, durable when a call returns."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from tof.agent.app import AppRow
from tof.agent.app_body import parse_row, row_body
from tof.agent.chain_body import chain_body, parse_chain
from tof.agent.group_body import group_body, parse_group
from tof.agent.lcm_body import Thing, kept, kind_of, recalled
from tof.agent.service_body import body_of, parse
from tof.errors import BackendError, BadRequest, SetupError
from tof.model import Chain, IpAddress, Policy, SecurityGroup, Service

FILE_NAME = "services.db"
SCHEMA_VERSION = 7
SCHEMA = "CREATE TABLE service (name TEXT PRIMARY KEY, body TEXT NOT NULL) STRICT"
LEARNT_SCHEMA = (
    "CREATE TABLE learnt "
    "(service TEXT, address TEXT, until REAL NOT NULL, PRIMARY KEY (service, address)) STRICT"
)
"""Since version 3: the addresses of services given by domain, until when in seconds since 1970."""
CHAIN_SCHEMA = "CREATE TABLE chain (name TEXT PRIMARY KEY, body TEXT NOT NULL) STRICT"
"""Since version 4."""
GROUP_SCHEMA = "CREATE TABLE security_group (name TEXT PRIMARY KEY, body TEXT NOT NULL) STRICT"
"""Since version 5."""
INSERT_GROUP = "INSERT INTO security_group (name, body) VALUES (?, ?)"
APP_SCHEMA = "CREATE TABLE app (name TEXT PRIMARY KEY, body TEXT NOT NULL) STRICT"
"""Since version 6."""
LCM_SCHEMA = "CREATE TABLE lcm (kind TEXT, id TEXT, body TEXT NOT NULL, PRIMARY KEY (kind, id)) STRICT"
"""Since version 7: descriptors, instances, operations and subscriptions of ETSI MEC 010-2."""
INSERT_LCM = "INSERT OR REPLACE INTO lcm (kind, id, body) VALUES (?, ?, ?)"
INSERT_APP = "INSERT OR REPLACE INTO app (name, body) VALUES (?, ?)"
INSERT_CHAIN = "INSERT INTO chain (name, body) VALUES (?, ?)"
INSERT_LEARNT = "INSERT INTO learnt (service, address, until) VALUES (?, ?, ?)"
INSERT = "INSERT INTO service (name, body) VALUES (?, ?)"
SELECT_1 = "SELECT name, service_ip, application_ip FROM service"
"""What a file of schema version 1 holds."""

Learnt = tuple[str, IpAddress, float]
"""Service, address, until when in seconds since 1970."""
T = TypeVar("T")


class Store:
    """The provisioned services on disk; an async context manager that owns the file and the thread."""

    def __init__(self, path: Path) -> None:
        self._file = _File(path)
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="tof-store")

    async def __aenter__(self) -> Store:
        try:
            await self._submit(self._file.open)
        except SetupError:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._submit(self._file.close)
        self._worker.shutdown()

    async def load(self) -> list[Service]:
        """Every stored service, sorted by name; SetupError if the file is damaged."""
        return await self._load("SELECT name, body FROM service ORDER BY name", _read)

    async def put(self, service: Service, replaces: str | None = None) -> None:
        """Store ``service``, in the place of the one called ``replaces``; BackendError if refused."""
        await self._submit(lambda: self._file.write(drop=(replaces or service.name,), insert=(service,)))

    async def delete(self, name: str) -> None:
        """Forget the service called ``name``; BackendError if refused."""
        await self._submit(lambda: self._file.write(drop=(name,)))

    async def load_chains(self) -> list[Chain]:
        """Every stored chain, sorted by name; SetupError if the file is damaged."""
        return await self._load(
            "SELECT body FROM chain ORDER BY name", lambda body: parse_chain(json.loads(body))
        )

    async def load_groups(self) -> list[SecurityGroup]:
        """Every stored security group, sorted by name; SetupError if the file is damaged."""
        return await self._load(
            "SELECT body FROM security_group ORDER BY name", lambda body: parse_group(json.loads(body))
        )

    async def replace_all(self, policy: Policy) -> None:
        """Store exactly this; BackendError if refused, and then nothing changed."""
        await self._submit(lambda: self._file.replace_all(policy))

    async def change(self, put: Iterable[Service] = (), drop: Iterable[str] = ()) -> None:
        """Store these services and forget those, all or none; BackendError if refused."""
        added, names = tuple(put), tuple(drop)
        await self._submit(
            lambda: self._file.write(drop=(*names, *(one.name for one in added)), insert=added)
        )

    async def load_apps(self) -> list[AppRow]:
        """Every stored app, sorted by name; SetupError if the file is damaged."""
        return await self._load(
            "SELECT body FROM app ORDER BY name", lambda body: parse_row(json.loads(body))
        )

    async def put_app(self, row: AppRow) -> None:
        """Store an app as it is now; BackendError if refused."""
        text = json.dumps(row_body(row))
        await self._submit(lambda: self._file.execute(INSERT_APP, (row.app.name, text)))

    async def delete_app(self, name: str) -> None:
        """Forget the app called ``name``; BackendError if refused."""
        await self._submit(lambda: self._file.execute("DELETE FROM app WHERE name = ?", (name,)))

    async def load_lcm(self) -> list[Thing]:
        """Everything kept of ETSI MEC 010-2; SetupError if the file is damaged."""
        return await self._load(
            "SELECT kind, body FROM lcm ORDER BY kind, id",
            lambda kind, body: recalled(kind, json.loads(body)),
        )

    async def change_lcm(self, put: Iterable[Thing] = (), drop: Iterable[Thing] = ()) -> None:
        """Keep these and forget those, all or none; BackendError if refused."""
        rows = [(kind_of(one), one.id, json.dumps(kept(one))) for one in put]
        gone = [(kind_of(one), one.id) for one in drop]
        await self._submit(lambda: self._file.change_lcm(rows, gone))

    async def load_learnt(self) -> list[Learnt]:
        """The stored addresses of services given by domain; SetupError if the file is damaged."""
        return await self._load(
            "SELECT service, address, until FROM learnt ORDER BY service, address",
            lambda name, address, until: (name, ip_address(address), until),
        )

    async def keep_learnt(self, learnt: Iterable[Learnt]) -> None:
        """Store exactly these; BackendError if refused."""
        wanted = [(name, str(address), until) for name, address, until in learnt]
        await self._submit(lambda: self._file.keep_learnt(wanted))

    async def _load(self, query: str, read: Callable[..., T]) -> list[T]:
        return await self._submit(lambda: self._file.read(query, read))

    async def _submit(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._worker, work)


class _File:
    """The database, as the worker thread uses it: every method runs there."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._db: sqlite3.Connection | None = None

    def open(self) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(self._path, isolation_level=None)
            self._prepare(self._db)
        except (OSError, sqlite3.OperationalError) as error:
            raise SetupError(f"state.dir: cannot open {self._path}: {error}") from error
        except sqlite3.DatabaseError as error:
            raise self._damaged(error) from error

    def read(self, query: str, value: Callable[..., T]) -> list[T]:
        try:
            return [value(*row) for row in self._opened.execute(query)]
        except (ValueError, KeyError, TypeError, BadRequest, sqlite3.DatabaseError) as error:
            raise self._damaged(error) from error

    def change_lcm(self, rows: list[tuple[str, str, str]], gone: list[tuple[str, str]]) -> None:
        try:
            with _transaction(self._opened) as db:
                db.executemany("DELETE FROM lcm WHERE kind = ? AND id = ?", gone)
                db.executemany(INSERT_LCM, rows)
        except sqlite3.DatabaseError as error:
            raise BackendError(f"cannot write {self._path}: {error}") from error

    def execute(self, statement: str, values: tuple[str, ...]) -> None:
        try:
            with _transaction(self._opened) as db:
                db.execute(statement, values)
        except sqlite3.DatabaseError as error:
            raise BackendError(f"cannot write {self._path}: {error}") from error

    def keep_learnt(self, rows: list[tuple[str, str, float]]) -> None:
        try:
            with _transaction(self._opened) as db:
                db.execute("DELETE FROM learnt")
                db.executemany(INSERT_LEARNT, rows)
        except sqlite3.DatabaseError as error:
            raise BackendError(f"cannot write {self._path}: {error}") from error

    def replace_all(self, policy: Policy) -> None:
        rows = {
            INSERT: [_row(service) for service in policy.services],
            INSERT_CHAIN: [(chain.name, json.dumps(chain_body(chain))) for chain in policy.chains],
            INSERT_GROUP: [(group.name, json.dumps(group_body(group))) for group in policy.groups],
        }
        try:
            with _transaction(self._opened) as db:
                for table in ("service", "chain", "security_group"):
                    db.execute(f"DELETE FROM {table}")
                for insert, values in rows.items():
                    db.executemany(insert, values)
        except sqlite3.DatabaseError as error:
            raise BackendError(f"cannot write {self._path}: {error}") from error

    def write(self, drop: Iterable[str] = (), insert: Iterable[Service] = ()) -> None:
        rows = [_row(service) for service in insert]
        try:
            with _transaction(self._opened) as db:
                db.executemany("DELETE FROM service WHERE name = ?", [(name,) for name in drop])
                db.executemany(INSERT, rows)
        except sqlite3.DatabaseError as error:
            raise BackendError(f"cannot write {self._path}: {error}") from error

    def close(self) -> None:
        if self._db is not None:
            self._db.close()
        self._db = None

    def _prepare(self, db: sqlite3.Connection) -> None:
        db.execute("PRAGMA journal_mode = WAL")
        # FULL: in WAL mode, NORMAL could lose a service that has been answered 200 when the power fails.
        db.execute("PRAGMA synchronous = FULL")
        (verdict,) = db.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise self._damaged(verdict)
        with _transaction(db):
            self._bring_up(db)

    def _bring_up(self, db: sqlite3.Connection) -> None:
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version > SCHEMA_VERSION:
            raise SetupError(
                f"{self._path} was written by a newer tof (schema {version}, known is {SCHEMA_VERSION}): "
                "install that version, or move the file away and provision the services again"
            )
        if version == SCHEMA_VERSION:
            return
        rows = []
        if version == 1:
            rows = self._rows_of_version_1(db)
            db.execute("DROP TABLE service")
        if version < 2:
            db.execute(SCHEMA)
            db.executemany(INSERT, rows)
        if version < 3:
            db.execute(LEARNT_SCHEMA)
        if version < 4:
            db.execute(CHAIN_SCHEMA)
        if version < 5:
            db.execute(GROUP_SCHEMA)
        if version < 6:
            db.execute(APP_SCHEMA)
        db.execute(LCM_SCHEMA)
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def _rows_of_version_1(self, db: sqlite3.Connection) -> list[tuple[str, str]]:
        try:
            found = db.execute(SELECT_1).fetchall()
            return [_row(Service(name, ip_address(service), ip_address(app))) for name, service, app in found]
        except ValueError as error:
            raise self._damaged(error) from error

    @property
    def _opened(self) -> sqlite3.Connection:
        assert self._db is not None, "use the store inside `async with`"
        return self._db

    def _damaged(self, reason: object) -> SetupError:
        return SetupError(
            f"the services store {self._path} is damaged ({reason}): "
            "move it away (with its -wal and -shm files), restart, and provision the services again"
        )


def _row(service: Service) -> tuple[str, str]:
    return service.name, json.dumps(body_of(service))


def _read(name: str, text: str) -> Service:
    body = json.loads(text)
    if not isinstance(body, dict) or body.get("name") != name:
        raise ValueError(f"{name} has the body of something else")
    return parse(body)


@contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield db
        db.execute("COMMIT")
    finally:
        # A failed COMMIT (a full disk) leaves the transaction open.
        if db.in_transaction:
            db.execute("ROLLBACK")
