"""One session of an SQLite file: the only module that imports sqlite3, whose errors it wraps."""

import contextlib
import datetime as dt
import functools
import json
import operator
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from maintenance.base.flags import Flags, Reading
from maintenance.base.history import Entry
from maintenance.base.instances import Fleet, Instance
from maintenance.base.runtime import REAL, Waker
from maintenance.base.scopes import KEY, scope_key
from maintenance.base.values import Change, Row, Written
from maintenance.errors import LateError, RegistrationError, StoreError
from maintenance.stores.protocol import Session
from maintenance.stores.rows import (
    check_revision,
    describe_caller,
    instance_values,
    load_statements,
    make_entry,
    make_fleet,
    make_instances,
    make_reading,
    make_row,
)

POLL: Final = 0.1
"""Seconds between two looks at the file while waiting for a change."""

BUSY_TIMEOUT: Final = 1.0
"""Seconds that a call waits for another process's transaction. The library's own take milliseconds."""

MIGRATE_TIMEOUT: Final = 5.0
"""The same while the tables are created, because many processes may start at once. A flip has no more time than a read,
because every process waits to read for as long as a flip waits to write."""

STEPS: Final = 10_000
"""SQLite's instructions between two checks of the clock. A read takes about a hundred (measured)."""

_SQL: Final = load_statements("maintenance.stores.sqlite")
_NEXT_STEPS: Final = {
    sqlite3.SQLITE_BUSY: "another process keeps a transaction open; end that transaction, or try again",
    sqlite3.SQLITE_INTERRUPT: "it took too long; check whether the disk hangs",
    sqlite3.SQLITE_READONLY: "let this user write the file and its folder",
    sqlite3.SQLITE_CANTOPEN: "let this user open the file; if it is missing, restore it or run `maintenance migrate`",
    sqlite3.SQLITE_FULL: "free some space on the disk",
    sqlite3.SQLITE_IOERR: "check whether the disk is full or broken",
    sqlite3.SQLITE_NOTADB: "use a file of SQLite's, or one that does not exist yet",
    sqlite3.SQLITE_CORRUPT: "restore the file from a backup",
}

_LATE: Final = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_INTERRUPT)

_UNWRITABLE: Final = (
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CANTOPEN,  # the journal, if the disk has room for no other file
    sqlite3.SQLITE_CONSTRAINT,  # a trigger
)
"""The codes of a report that cannot be written, while the flag may still be readable. If not, the next read fails."""

_inherited: list[sqlite3.Connection] = []

# A fork during a call would leave SQLite's mutexes and file locks held in the child forever: all its writes failed as
# "locked" (measured). So a fork waits until the current call ends.
_call = REAL.lock()
if hasattr(os, "register_at_fork"):
    _release = functools.partial(_call.__exit__, None, None, None)
    os.register_at_fork(before=_call.__enter__, after_in_parent=_release, after_in_child=_release)


class SQLiteSession(Session):
    """A connection to an SQLite file."""

    listening = False

    def __init__(self, name: str, path: str, *, listen: bool = False, prepare: bool = False) -> None:
        """Open the file. If `prepare` is true, create it and its tables if they are missing."""
        self.listening = listen
        self._name = name
        self._path = path
        self._inode: tuple[int, int] | None = None
        self._version: object = None
        self._seen: object = None
        self._deadline = deadline = [float("inf")]  # shared with the handler, which must not keep this session alive
        with _call, self._wrapped():
            self._connection = sqlite3.connect(
                f"{Path(path).as_uri()}?mode={'rwc' if prepare else 'rw'}",
                uri=True,
                timeout=BUSY_TIMEOUT,
                isolation_level=None,
                check_same_thread=False,  # one thread at a time, but not always the same
            )
            # An operator's terminal may write another encoding. Its flip counts all the same.
            self._connection.text_factory = functools.partial(str, encoding="utf-8", errors="surrogateescape")
            self._connection.set_progress_handler(_is_over(deadline), STEPS)
        try:
            self._set_up(prepare=prepare)
            if listen:
                self.read()
        except StoreError:
            self.close()
            raise

    def _set_up(self, *, prepare: bool) -> None:
        with self._conversation() as execute:
            # FULL syncs all but the deletion of the journal, which is the commit; EXTRA syncs that too.
            execute("PRAGMA synchronous = EXTRA")
            if execute("PRAGMA journal_mode").fetchone() == ("wal",):
                raise StoreError(
                    f"{self._name} is in WAL mode, in which a forked process may read an old copy: give the flag a "
                    "file of its own, or run `PRAGMA journal_mode = DELETE` in the sqlite3 shell"
                )
            if prepare and not execute(_SQL["is_prepared"]).fetchone():
                self._make_tables()
        with self._wrapped():
            self._inode = _inode(self._path)

    def migrate(self) -> None:
        """Create the tables that are missing, in one transaction. A second process waits, and then changes nothing."""
        with self._conversation():
            self._make_tables()

    def _make_tables(self) -> None:
        self._connection.execute(f"PRAGMA busy_timeout = {MIGRATE_TIMEOUT * 1000:.0f}")
        schema = (files("maintenance.stores.sqlite") / "schema.sql").read_text(encoding="utf-8")
        self._connection.executescript(f"BEGIN IMMEDIATE;\n{schema}\nCOMMIT;")
        self._connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT * 1000:.0f}")

    def read(self, instance: str | None = None, *, known: Flags | None = None) -> Reading:
        with self._conversation() as execute:
            # Read first, so that a commit after it ends the next `wait`.
            [self._version] = execute("PRAGMA data_version").fetchone()
            with self._transaction(execute):
                return self._read(execute, describe_caller(known) | {"instance": instance})

    def _read(self, execute: Callable[..., sqlite3.Cursor], caller: dict[str, Any]) -> Reading:
        site = execute(_SQL["one"], {"key": KEY}).fetchone()
        facts = "facts" if execute(_SQL["has_instances"]).fetchone() else "facts_of_flags"
        found = execute(_SQL[facts], caller).fetchone() or (None, None, 0, False, False, False)
        self._seen = found[1], site
        scopes = None
        if found[1] is None or found[1] != caller["token"]:
            asked = (execute(_SQL["one"], {"key": key}).fetchone() for key in caller["keys"])
            by_key = {row[0]: row for row in (*execute(_SQL["scopes"]).fetchall(), *filter(None, asked))}
            scopes = by_key.values()
        return make_reading(site, scopes, found, store=self._name)

    @contextlib.contextmanager
    def _transaction(self, execute: Callable[..., sqlite3.Cursor], kind: str = "") -> Iterator[None]:
        """One transaction: it commits, or rolls back after an error."""
        with self._connection:
            execute(f"BEGIN {kind}")
            yield

    def write(self, change: Change) -> Written:
        values = {
            "key": scope_key(change.scope),
            "enabled": change.value,
            "details": json.dumps(change.details.to_json(), ensure_ascii=False, sort_keys=True),
            "updated_by": change.updated_by and str(change.updated_by),
        }
        with self._conversation() as execute, self._transaction(execute, "IMMEDIATE"):
            before = self._find(execute, values["key"])
            check_revision(change, before, store=self._name)
            change.check_times(self._read_facts(execute)[1])
            execute(_SQL["write"], values)
            # Not RETURNING, which would show the row as it was before the triggers.
            row = self._find(execute, values["key"])
            if change.drain and row is not None:
                execute(_SQL["ask_drain"], {"key": values["key"], "revision": row.revision})
                row = self._find(execute, values["key"])
            last, now = self._read_facts(execute)
        if row is None:
            raise StoreError(f"{self._name}: the row was not written: look for a trigger that removes it")
        return Written(row, before, last, now)

    def _find(self, execute: Callable[..., sqlite3.Cursor], key: object) -> Row | None:
        columns = execute(_SQL["one"], {"key": key}).fetchone()
        return columns and make_row(columns)

    def _read_facts(self, execute: Callable[..., sqlite3.Cursor]) -> tuple[int, dt.datetime]:
        last, _, now, *_ = execute(_SQL["facts_of_flags"]).fetchone()
        return last, dt.datetime.fromtimestamp(now, dt.UTC)

    def carry_out(self, scope: str | None, revision: int, *, enabled: bool) -> bool:
        try:
            return self._run(_SQL["carry_out"], {"key": scope_key(scope), "revision": revision, "enabled": enabled}) > 0
        except StoreError as exc:
            if _code(exc.__cause__) == sqlite3.SQLITE_READONLY:
                return False
            raise

    def history(self, scope: str | None, *, limit: int) -> tuple[Entry, ...]:
        key = None if scope is None else scope_key(scope)
        with self._conversation() as execute:
            return tuple(map(make_entry, execute(_SQL["history"], {"key": key, "limit": limit}).fetchall()))

    def report(self, instance: Instance) -> None:
        try:
            self._run(_SQL["report"], instance_values(instance))
        except StoreError as exc:
            if _code(exc.__cause__) in _UNWRITABLE or _unprepared(exc.__cause__):
                raise RegistrationError(f"instances cannot register: {exc}") from exc.__cause__
            raise

    def remove(self, *instances: str) -> int:
        return self._run(_SQL["remove"], {"ids": json.dumps(instances)})

    def fleet(self, scope: str | None = None) -> Fleet:
        caller = describe_caller(None) | {"instance": None, "keys": [] if scope is None else [scope_key(scope)]}
        with self._conversation() as execute, self._transaction(execute):
            reading = self._read(execute, caller)
            return make_fleet(reading, execute(_SQL["instances"], {"beginning": ""}).fetchall())

    def find(self, beginning: str) -> tuple[Instance, ...]:
        with self._conversation() as execute:
            return make_instances(execute(_SQL["instances"], {"beginning": beginning}).fetchall())

    def ask_drain(self, revision: int, scope: str | None = None) -> None:
        self._run(_SQL["ask_drain"], {"key": scope_key(scope), "revision": revision})

    def wait(self, timeout: float, waker: Waker) -> bool:
        # SQLite does not notify other processes, so this checks the file every `POLL` seconds.
        end = time.monotonic() + timeout
        while not self._changed():
            left = end - time.monotonic()
            if left <= 0 or waker.wait(min(left, POLL) if self.listening else left):
                return False
        return True

    def _changed(self) -> bool:
        """Whether the flag differs from the last read. Other commits, such as heartbeats, do not count."""
        if not self.listening:
            return False
        with self._conversation() as execute:
            if execute("PRAGMA data_version").fetchone() == (self._version,):
                return False
        seen = self._seen
        self.read()
        return self._seen != seen

    @contextlib.contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        # A wait for another process's lock ends after BUSY_TIMEOUT in any case. No second thread checks the time: if
        # one is about to end while a server forks without Python's hooks, as uWSGI does, the child hangs (seen).
        self._deadline[0] = time.monotonic() + seconds
        try:
            yield
        finally:
            self._deadline[0] = float("inf")

    def abandon(self) -> None:
        # The connection is kept, so that nothing closes it in this process.
        _inherited.append(self._connection)

    def close(self) -> None:
        with _call:
            self._connection.close()

    def _run(self, sql: str, values: dict[str, Any]) -> int:
        """Run one statement, durably; return how many rows it changed."""
        with self._conversation() as execute:
            return execute(sql, values).rowcount

    @contextlib.contextmanager
    def _conversation(self) -> Iterator[Callable[..., sqlite3.Cursor]]:
        with _call, self._wrapped():
            # If the file is moved away, an open connection would go on reading its old content.
            if self._inode not in (None, _inode(self._path)):
                raise StoreError(f"{self._name}: the file was replaced by another one: connect again")
            yield self._connection.execute

    @contextlib.contextmanager
    def _wrapped(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as exc:
            raise StoreError(f"{self._name}: the file is missing: restore it, or run {self._migrate_command}") from exc
        except (sqlite3.Error, OSError) as exc:
            step = f"run {self._migrate_command}" if _unprepared(exc) else _NEXT_STEPS.get(_code(exc), "")
            kind = LateError if _code(exc) in _LATE else StoreError
            raise kind(f"{self._name}: {exc}{step and ': '}{step}") from exc

    @property
    def _migrate_command(self) -> str:
        return f"`maintenance migrate --database {self._name}`"


def _is_over(deadline: list[float]) -> Callable[[], bool]:
    """Make a function that compares the clock with a deadline, without running any Python code of its own.

    In Python code, the interpreter would run the handler of a pending signal. What the handler raises, such as Ctrl-C's
    KeyboardInterrupt, would be lost inside SQLite.
    """
    end: Iterator[float] = iter(functools.partial(max, deadline), None)
    return map(operator.gt, iter(time.monotonic, None), end).__next__


def _inode(path: str) -> tuple[int, int]:
    found = os.stat(path)
    return found.st_dev, found.st_ino


def _code(exc: BaseException | None) -> int:
    """SQLite's primary result code, or 0 if the error is not SQLite's own."""
    return getattr(exc, "sqlite_errorcode", 0) & 0xFF


def _unprepared(exc: BaseException | None) -> bool:
    return _code(exc) == sqlite3.SQLITE_ERROR and str(exc).startswith(("no such table", "no such column"))
