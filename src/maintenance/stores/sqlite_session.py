"""One connection to an SQLite file. The only module that imports sqlite3, and where its errors are wrapped."""

import contextlib
import datetime as dt
import functools
import json
import operator
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, fields
from importlib.resources import files
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from maintenance.base.runtime import REAL, Waker
from maintenance.base.values import KEY, SENTINEL, Change, Fleet, Instance, Reading, Row
from maintenance.errors import LateError, RegistrationError, StoreError

POLL: Final = 0.1
"""Seconds between two looks at the file while waiting for a change."""

BUSY_TIMEOUT: Final = 1.0
"""Seconds that a call waits for another process's transaction; one of ours takes milliseconds."""

MIGRATE_TIMEOUT: Final = 5.0
"""The same while the tables are made: many processes may begin at once. A flip is no more patient than a read, which it
keeps waiting, in every process, for as long as it waits itself."""

STEPS: Final = 10_000
"""SQLite's instructions between two looks at the clock; a read takes about a hundred (measured)."""

_NOW: Final = "strftime('%Y-%m-%d %H:%M:%fZ', 'now')"
_EPOCH: Final = "(julianday('now') - 2440587.5) * 86400.0"
_FLAG: Final = (
    "s.key IS NOT NULL, s.value_bool, s.details, s.revision, "
    "coalesce(strftime('%Y-%m-%d %H:%M:%fZ', s.updated_at), s.updated_at), s.updated_by, s.drain_revision IS s.revision"
)
_SETTINGS: Final = "(SELECT 1) LEFT JOIN platform_settings s ON s.key = :key"
_IS_MADE: Final = "SELECT 1 FROM sqlite_master WHERE name = 'platform_settings_revise'"  # what is made last
_READ: Final = f"SELECT {_FLAG}, EXISTS (SELECT 1 FROM maintenance_instances WHERE id = :instance) FROM {_SETTINGS}"
_HAS_INSTANCES: Final = "SELECT 1 FROM sqlite_master WHERE name = 'maintenance_instances'"
_READ_ALONE: Final = f"SELECT {_FLAG}, 0 FROM {_SETTINGS}"
_WRITE: Final = f"""
INSERT INTO platform_settings (key, value_bool, details, updated_by, updated_at)
VALUES (:key, :enabled, :details, :updated_by, {_NOW})
ON CONFLICT (key) DO UPDATE SET value_bool = excluded.value_bool, details = excluded.details,
    updated_by = excluded.updated_by, updated_at = excluded.updated_at
"""
_FIELDS: Final = tuple(field.name for field in fields(Instance))
_COLUMNS: Final = _FIELDS[:-1]  # how long it has been silent follows from `seen_at`
_REPORT: Final = f"""
INSERT INTO maintenance_instances ({", ".join(_COLUMNS)}, seen_at)
VALUES ({", ".join(f":{name}" for name in _COLUMNS)}, {_EPOCH})
ON CONFLICT (id) DO UPDATE SET {", ".join(f"{name} = excluded.{name}" for name in (*_COLUMNS[1:], "seen_at"))}
"""
_FLEET: Final = f"""
SELECT {_FLAG}, {", ".join(f"i.{name}" for name in _COLUMNS)}, {_EPOCH} - i.seen_at
FROM {_SETTINGS} LEFT JOIN maintenance_instances i ON true
ORDER BY i.host, i.pid, i.id
"""
_NEXT_STEPS: Final = {
    sqlite3.SQLITE_BUSY: "another process keeps a transaction open; end that, or try again",
    sqlite3.SQLITE_INTERRUPT: "it took too long; look whether the disk hangs",
    sqlite3.SQLITE_READONLY: "let this user write the file and its folder",
    sqlite3.SQLITE_CANTOPEN: "let this user open the file; where it is gone, restore it or run `maintenance migrate`",
    sqlite3.SQLITE_NOTADB: "name a file of SQLite's, or one that does not exist yet",
    sqlite3.SQLITE_CORRUPT: "restore the file from a backup",
}

_LATE: Final = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_INTERRUPT)

_inherited: list[sqlite3.Connection] = []

# A fork during a call would leave the child with SQLite's mutexes and file locks as they stood, for good: its
# writes failed as "locked" for ever (measured). So a fork waits for the call under way.
_call = REAL.lock()
if hasattr(os, "register_at_fork"):
    _let_go = functools.partial(_call.__exit__, None, None, None)
    os.register_at_fork(before=_call.__enter__, after_in_parent=_let_go, after_in_child=_let_go)


class SQLiteSession:
    """See `maintenance.stores.Session`."""

    def __init__(self, name: str, path: str, *, listen: bool = False, prepare: bool = False) -> None:
        """Open the file; make it, and its tables, where `prepare` says so and they are missing."""
        self.listening = listen
        self._name = name
        self._path = path
        self._inode: tuple[int, int] | None = None
        self._version: object = None
        self._seen: list[Any] = []
        self._late = late = [float("inf")]  # shared with the handler, which must not keep this session alive
        with _call, self._wrapped():
            self._connection = sqlite3.connect(
                f"{Path(path).as_uri()}?mode={'rwc' if prepare else 'rw'}",
                uri=True,
                timeout=BUSY_TIMEOUT,
                isolation_level=None,
                check_same_thread=False,  # one thread at a time, but not always the same
            )
            self._connection.set_progress_handler(_is_over(late), STEPS)
        try:
            self._set_up(prepare=prepare)
            if listen:
                self.read()
        except StoreError:
            self.close()
            raise

    def _set_up(self, *, prepare: bool) -> None:
        with self._conversation() as execute:
            # Beyond FULL, EXTRA makes the end of the journal durable too, and with it the commit.
            execute("PRAGMA synchronous = EXTRA")
            if execute("PRAGMA journal_mode").fetchone() == ("wal",):
                raise StoreError(
                    f"{self._name} is in WAL mode, in which a forked process may read an old copy: give the flag a "
                    "file of its own, or run `PRAGMA journal_mode = DELETE` in the sqlite3 shell"
                )
            if prepare and not execute(_IS_MADE).fetchone():
                self._make_tables()
        with self._wrapped():
            self._inode = _inode(self._path)

    def migrate(self) -> None:
        """Make what is missing, in one transaction; whoever comes second waits, and finds nothing to do."""
        with self._conversation():
            self._make_tables()

    def _make_tables(self) -> None:
        self._connection.execute(f"PRAGMA busy_timeout = {MIGRATE_TIMEOUT * 1000:.0f}")
        schema = (files("maintenance.stores") / "sqlite.sql").read_text(encoding="utf-8")
        self._connection.executescript(f"BEGIN IMMEDIATE;\n{schema}\nCOMMIT;")
        self._connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT * 1000:.0f}")

    def read(self, instance: str | None = None) -> Reading:
        """See `Session.read`."""
        with self._conversation() as execute:
            # Asked first, so that whatever is written after it ends the next `wait`.
            [self._version] = execute("PRAGMA data_version").fetchone()
            sql = _READ if execute(_HAS_INSTANCES).fetchone() else _READ_ALONE
            *self._seen, registered = execute(sql, {"key": KEY, "instance": instance}).fetchone()
            return _reading(self._seen, store=self._name, registered=bool(registered))

    def write(self, change: Change) -> Row:
        """See `Session.write`."""
        values = {
            "key": KEY,
            "enabled": change.enabled,
            "details": json.dumps(change.details.to_json(), ensure_ascii=False, sort_keys=True),
            "updated_by": change.updated_by and str(change.updated_by),
        }
        # RETURNING would show the row as it was before the triggers.
        with self._conversation() as execute, self._connection:
            execute("BEGIN IMMEDIATE")
            execute(_WRITE, values)
            _, *row, _, _ = execute(_READ_ALONE, {"key": KEY}).fetchone()
            return _row(*row)

    def report(self, instance: Instance) -> None:
        """See `Session.report`."""
        try:
            self._run(_REPORT, asdict(instance))
        except StoreError as exc:
            if _code(exc.__cause__) == sqlite3.SQLITE_READONLY or _unprepared(exc.__cause__):
                raise RegistrationError(f"instances cannot register: {exc}") from exc.__cause__
            raise

    def remove(self, instance: str) -> bool:
        """See `Session.remove`."""
        sql = "DELETE FROM maintenance_instances WHERE id = :id AND id <> :nobody"
        return self._run(sql, {"id": instance, "nobody": SENTINEL.id}) > 0

    def fleet(self) -> Fleet:
        """See `Session.fleet`."""
        with self._conversation() as execute:
            rows = execute(_FLEET, {"key": KEY}).fetchall()
            found = [_instance(row[7:]) for row in rows if row[7] not in (None, SENTINEL.id)]
            return Fleet(
                _reading(rows[0][:7], store=self._name), tuple(found), intact=any(row[7] == SENTINEL.id for row in rows)
            )

    def ask_drain(self, revision: int) -> None:
        """See `Session.ask_drain`."""
        self._run(
            "UPDATE platform_settings SET drain_revision = revision WHERE key = :key AND revision = :revision",
            {"key": KEY, "revision": revision},
        )

    def wait(self, timeout: float, waker: Waker) -> bool:
        """See `Session.wait`; SQLite tells nobody of a change, so the file is looked at every `POLL` seconds."""
        end = time.monotonic() + timeout
        while not self._changed():
            left = end - time.monotonic()
            if left <= 0 or waker.wait(min(left, POLL) if self.listening else left):
                return False
        return True

    def _changed(self) -> bool:
        """Whether the flag is not what it was when last read; other commits, such as heartbeats, do not count."""
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
        """See `Session.within`; a wait for another process's lock ends by itself after `BUSY_TIMEOUT`.

        No other thread watches: one that is about to end would be in the way of a server that forks without Python's
        hooks, as uWSGI does; its child then hangs in the lock of the interpreter (seen).
        """
        self._late[0] = time.monotonic() + seconds
        try:
            yield
        finally:
            self._late[0] = float("inf")

    def abandon(self) -> None:
        """See `Session.abandon`; kept, so that nothing closes it here."""
        _inherited.append(self._connection)

    def close(self) -> None:
        """See `Session.close`."""
        with _call:
            self._connection.close()

    def _run(self, sql: str, values: dict[str, Any]) -> int:
        """Run one statement, durably; return how many rows it changed."""
        with self._conversation() as execute:
            return execute(sql, values).rowcount

    @contextlib.contextmanager
    def _conversation(self) -> Iterator[Callable[..., sqlite3.Cursor]]:
        with _call, self._wrapped():
            # A file that was moved away would still be read, as it was, for as long as it is open.
            if self._inode not in (None, _inode(self._path)):
                raise StoreError(f"{self._name}: the file was replaced by another one: connect again")
            yield self._connection.execute

    @contextlib.contextmanager
    def _wrapped(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as exc:
            raise StoreError(f"{self._name}: the file is gone: restore it, or run {self._migrate_command}") from exc
        except (sqlite3.Error, OSError) as exc:
            step = f"run {self._migrate_command}" if _unprepared(exc) else _NEXT_STEPS.get(_code(exc), "")
            kind = LateError if _code(exc) in _LATE else StoreError
            raise kind(f"{self._name}: {exc}{step and ': '}{step}") from exc

    @property
    def _migrate_command(self) -> str:
        return f"`maintenance migrate --database {self._name}`"


def _is_over(late: list[float]) -> Callable[[], bool]:
    """Whether the time in a list is over; without a step of Python's own.

    In one, the interpreter would run the handler of a signal that has come, and what that raises, such as the end that
    Ctrl-C asks for, would be lost inside SQLite.
    """
    end: Iterator[float] = iter(functools.partial(max, late), None)
    return map(operator.gt, iter(time.monotonic, None), end).__next__


def _inode(path: str) -> tuple[int, int]:
    found = os.stat(path)
    return found.st_dev, found.st_ino


def _code(exc: BaseException | None) -> int:
    """SQLite's primary result code, or 0 where the error is not SQLite's own."""
    return getattr(exc, "sqlite_errorcode", 0) & 0xFF


def _unprepared(exc: BaseException | None) -> bool:
    return _code(exc) == sqlite3.SQLITE_ERROR and str(exc).startswith(("no such table", "no such column"))


def _reading(flag: Sequence[Any], *, store: str, registered: bool = False) -> Reading:
    there, *row, drain = flag
    return Reading(_row(*row) if there else None, registered=registered, drain=bool(there and drain), store=store)


def _row(value_bool: Any, details: str, revision: object, updated_at: str | None, updated_by: str | None) -> Row:
    with contextlib.suppress(ValueError, RecursionError):  # left as it is, for `Row.snapshot` to name
        details = json.loads(details)
    try:
        when = None if updated_at is None else dt.datetime.fromisoformat(updated_at)
        who = None if updated_by is None else UUID(updated_by)
    except (TypeError, ValueError, AttributeError) as exc:
        raise StoreError(f"platform_settings.updated_at or updated_by of {KEY!r} is wrong: {exc}") from exc
    return Row({0: False, 1: True}.get(value_bool, value_bool), details, revision, when, who)


def _instance(row: tuple[Any, ...]) -> Instance:
    return Instance(**dict(zip(_FIELDS, row, strict=True)))
