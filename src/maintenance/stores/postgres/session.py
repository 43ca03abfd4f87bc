"""One session of PostgreSQL: the statements of the protocol, and the errors of psycopg in plain words."""

import contextlib
import datetime as dt
import functools
import json
import re
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, Final
from uuid import UUID

import psycopg
from psycopg import errors as pg
from psycopg.types.json import Jsonb

from maintenance.base.flags import Flags, Reading
from maintenance.base.history import Entry
from maintenance.base.instances import Fleet, Instance
from maintenance.base.runtime import Waker
from maintenance.base.scopes import KEY, scope_key
from maintenance.base.values import Change, Row, Written
from maintenance.errors import BusyError, LateError, LateRegistrationError, RegistrationError, StoreError
from maintenance.stores.postgres.connection import Connection, GivenUpError, UnresolvedError
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

READING: Final = 8
"""The number of columns of a reading."""

LOCK_TIMEOUT: Final = 5.0
"""Seconds that a migration waits for a lock on a table, while readers queue behind it."""

BATCH: Final = 0.02
"""Seconds in which notifications of other keys are collected. Any role can send thousands a second."""

_SQL: Final = load_statements("maintenance.stores.postgres")
_LATE: Final = (pg.ConnectionTimeout, pg.LockNotAvailable, pg.QueryCanceled, GivenUpError, UnresolvedError)
_BUSY: Final = re.compile(
    "too many (clients|connections)|connection slots are reserved|database system is (starting|shutting)"
    "|not (yet |currently )?accepting connections|no more connections allowed"  # the last one is PgBouncer's
)
# By a word of the server's message. The empty word is in every message.
_GRANTS: Final = {
    "must be owner": ": migrate as the tables' owner",
    "may change the row": ": grant that role to this one, or connect as one of them",
    "as complete": ": connect as a role that flips",
    "sequence": ": grant this role USAGE on that sequence",
    "schema": ": grant this role USAGE there; to migrate, be the tables' owner, or have CREATE to make new ones",
    "maintenance_instances": ": grant this role SELECT there, and INSERT, UPDATE and DELETE too if it serves",
    "": ": grant this role SELECT there, and INSERT and UPDATE too if it flips; only the tables' owner migrates",
}
_NEXT_STEPS: Final[dict[type[Exception], str]] = {
    pg.UndefinedTable: ": run `maintenance migrate`",
    pg.UndefinedColumn: ": run `maintenance migrate`",
    pg.InvalidSchemaName: ": run `maintenance migrate`",
    pg.ConnectionTimeout: ": check the host, the port and the firewall",
    UnresolvedError: ": check the name, and this machine's name servers",
    pg.LockNotAvailable: ": end the transaction that holds the lock, or try again",
    pg.QueryCanceled: ": another transaction may hold the row, or the server is slow: end that, or try again",
    pg.ForeignKeyViolation: ": use an updated_by that is in public.users, or leave it out",
    pg.ReadOnlySqlTransaction: ": connect to the primary, or let this role write (default_transaction_read_only)",
}


class PostgresSession(Session):
    """A connection to PostgreSQL."""

    listening = False

    def __init__(
        self, name: str, parameters: dict[str, Any], *, listen: bool, statement_timeout: float, limit: float
    ) -> None:
        """Connect, and LISTEN if the server supports it, within `limit` seconds."""
        end = time.monotonic() + limit
        self._name = name
        self._milliseconds = int(statement_timeout * 1000) or 1
        self._notified_of_flag = False
        with self._wrapped():
            self._connection = Connection.open(parameters, deadline=end)
        # Kept, because a cursor learns how to adapt its statement's values. With a new cursor for each statement, a
        # fleet takes a quarter longer to follow a flip.
        self._cursors = defaultdict[str, psycopg.Cursor[Any]](functools.partial(psycopg.Cursor, self._connection))
        try:
            # `connect_timeout` ends with the login: a server that hangs after it would keep this waiting forever.
            with self.within(max(min(statement_timeout, end - time.monotonic()), 0.0)):
                direct = self._probe()
                if listen and direct:
                    self.listening = self._try_listen()
        except StoreError:
            self.close()
            raise

    def _probe(self) -> bool:
        """Learn whether the instances can be read, and whether this is the server, not a pooler."""
        [backend, self._instances] = self._one(None, "probe")
        # A pooler makes up the key that it hands out. It accepts LISTEN, but delivers nothing.
        return bool(backend == self._connection.info.backend_pid)

    def _try_listen(self) -> bool:
        try:
            self._run({"milliseconds": self._milliseconds}, "listen")
        except StoreError:
            if self._connection.closed:
                raise
            return False  # for example on a hot standby, which can still be polled
        self._connection.prepare_threshold = 0
        self._connection.add_notify_handler(self._on_notify)
        return True

    def read(self, instance: str | None = None, *, known: Flags | None = None) -> Reading:
        if not self._instances:
            self._probe()
        values = {"instance": instance, **describe_caller(known)}
        try:
            columns = self._run_often(values, "read" if self._instances else "read_flag")[0]
        except StoreError as exc:
            if not isinstance(exc.__cause__, pg.LockNotAvailable):
                raise
            columns = self._one(values, "short_lock_timeout", "read_flag")  # only the instances may be locked
        return self._make_reading(columns)

    def _make_reading(self, columns: Sequence[Any]) -> Reading:
        site, scopes, *facts = columns
        return make_reading(_load(site), _load(scopes), facts, store=self._name)

    def write(self, change: Change) -> Written:
        values = {
            "key": scope_key(change.scope),
            "enabled": change.value,
            "details": _dump(change.details.to_json()),
            "updated_by": change.updated_by,
            "drain": change.drain,
            "if_revision": change.if_revision,
        }
        row = None
        try:
            # COMMIT is a message of its own: a write that is given up while it waits for a lock must not happen later.
            with self._wrapped(), self._connection.transaction():
                before, now = self._lock(values)
                check_revision(change, before, store=self._name)
                change.check_times(_read_clock(now))
                if not (written := self._run(values, "write")):
                    # Another caller may have inserted the row since.
                    check_revision(change, self._lock(values)[0], store=self._name)
                self._take_one(written)
                row, last, now = self._one(values, "written")
        except StoreError as exc:
            if row is None or not self._connection.closed:
                raise
            raise StoreError(
                f"{exc}; it is unknown whether the change was saved: run `maintenance status` to check"
            ) from exc.__cause__
        return Written(make_row(_load(row)), before, last, _read_clock(now))

    def _lock(self, values: dict[str, Any]) -> tuple[Row | None, Any]:
        """Lock a flag's row; return it, and the clock."""
        row, now = self._one(values, "durable", "lock")
        return row and make_row(_load(row)), now

    def carry_out(self, scope: str | None, revision: int, *, enabled: bool) -> bool:
        values = {"key": scope_key(scope), "revision": revision, "enabled": enabled}
        try:
            return bool(self._run(values, "short_lock_timeout", "durable", "carry_out"))
        except StoreError:
            # Such as a role that may not write. Each process follows the schedule without the value.
            if self._connection.closed:
                raise
            return False

    def history(self, scope: str | None, *, limit: int) -> tuple[Entry, ...]:
        key = None if scope is None else scope_key(scope)
        return tuple(make_entry(columns) for columns in self._run({"key": key, "limit": limit}, "history"))

    def report(self, instance: Instance) -> None:
        values = instance_values(instance)
        acknowledges = self.listening and instance.revision is not None
        try:
            if not (acknowledges and self._run_often(values, "acknowledge")):
                self._run(values, "short_lock_timeout", "durable", "report")
        except StoreError as exc:
            # Whatever prevents the write, such as a full disk or a trigger, the flag can still be read.
            if self._connection.closed:
                raise
            kind = LateRegistrationError if isinstance(exc, LateError) else RegistrationError
            raise kind(f"instances cannot register: {exc}") from exc.__cause__

    def remove(self, *instances: str) -> int:
        values = {"ids": list(_uuids(instances)), "null": "null" in instances}
        try:
            # A process that ends can wait for a lock: the row that it leaves behind would hold up every proof.
            return len(self._run(values, "no_lock_timeout", "durable", "remove"))
        except StoreError as exc:
            if not isinstance(exc.__cause__, pg.InsufficientPrivilege):
                raise
            raise RegistrationError(f"instances cannot be removed: {exc}") from exc.__cause__

    def fleet(self, scope: str | None = None) -> Fleet:
        values = {"token": None, "keys": [] if scope is None else [scope_key(scope)], "beginning": ""}
        rows = self._run_with_texts(values, "fleet")
        facts = next(row for row in rows if row[READING] is not None)
        found = [row[READING + 2 :] for row in rows if row[READING + 1] is not None]
        return make_fleet(self._make_reading(facts[:READING]), found)

    def find(self, beginning: str) -> tuple[Instance, ...]:
        return make_instances(self._run_with_texts({"beginning": beginning}, "instances"))

    def _run_with_texts(self, values: dict[str, Any], name: str) -> list[tuple[Any, ...]]:
        """Run a statement, even if a database in SQL_ASCII returns bytes that are no text."""
        try:
            return self._run(values, name)
        except StoreError as exc:
            if not isinstance(exc.__cause__, pg.CharacterNotInRepertoire):
                raise
        # In LATIN1, each byte is a character. It lasts until the rows are fetched.
        self._run(None, "any_bytes")
        try:
            return self._run(values, name)
        finally:
            self._run(None, "no_bytes")

    def ask_drain(self, revision: int, scope: str | None = None) -> None:
        self._run({"key": scope_key(scope), "revision": revision}, "ask_drain")

    def wait(self, timeout: float, waker: Waker) -> bool:
        end = time.monotonic() + timeout
        with self._wrapped():
            fd = self._connection.fileno() if self.listening else None
        # Checked before each wait, because a notification that arrived during a query leaves nothing to read.
        pausing = False
        while not self._notified():
            left = end - time.monotonic()
            if left <= 0 or waker.wait(min(left, BATCH) if pausing else left, fd=None if pausing else fd):
                return False
            pausing = not pausing  # what arrived is about other keys; more of that must not wake the thread each time
        return True

    def _notified(self) -> bool:
        if not self.listening:
            return False
        with self._wrapped():
            # As `Connection.notifies(timeout=0)`, in a tenth of the time.
            self._connection.pgconn.consume_input()
            while notify := self._connection.pgconn.notifies():
                self._notified_of_flag = self._notified_of_flag or notify.extra.startswith(KEY.encode())
        notified, self._notified_of_flag = self._notified_of_flag, False
        return notified

    def _on_notify(self, notify: psycopg.Notify) -> None:
        """Note a notification that arrived during a query."""
        self._notified_of_flag = self._notified_of_flag or notify.payload.startswith(KEY)

    def migrate(self, migrations: tuple[tuple[str, str], ...]) -> None:
        """Apply SQL files in one transaction. A second migration waits, and then changes nothing."""
        with self._wrapped(), self._connection.transaction():
            # An ALTER that queues behind a long transaction would hold up every reader behind it.
            self._connection.execute(f"SET LOCAL lock_timeout = {LOCK_TIMEOUT * 1000:.0f}")
            for _, sql in migrations:
                self._connection.execute(sql)

    @contextlib.contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        # The kernel's time-outs are not enough, because a frozen server still sends ACKs.
        self._connection.limit, self._connection.deadline = seconds, time.monotonic() + seconds
        try:
            yield
        finally:
            self._connection.deadline = float("inf")

    def abandon(self) -> None:
        self._connection.abandon()

    def close(self) -> None:
        if self.listening:
            self._connection.remove_notify_handler(self._on_notify)
            self.listening = False
        self._connection.close()

    def _one(self, values: dict[str, Any] | None, *names: str) -> tuple[Any, ...]:
        return self._take_one(self._run(values, *names))

    def _take_one(self, rows: list[tuple[Any, ...]]) -> tuple[Any, ...]:
        if not rows:
            raise StoreError(f"{self._name}: the row was not written: look for a trigger that suppresses it")
        return rows[0]

    def _run(self, values: dict[str, Any] | None, *names: str) -> list[tuple[Any, ...]]:
        """Run named statements in one round trip, as one transaction; return the rows of the last one."""
        sql = [f"SET LOCAL statement_timeout = {self._milliseconds};", *(_SQL[name] for name in names)]
        with self._wrapped(), self._connection.cursor() as cursor:
            cursor.execute("\n".join(sql), values)
            while cursor.nextset():
                pass
            return cursor.fetchall() if cursor.description else []

    def _run_often(self, values: dict[str, Any], name: str) -> list[tuple[Any, ...]]:
        """Run a statement that the whole fleet sends at the same moment. It is prepared if this session listens."""
        if not self.listening:
            return self._run(values, "short_lock_timeout", name)
        with self._wrapped():
            return self._cursors[name].execute(_SQL[name], values).fetchall()

    @contextlib.contextmanager
    def _wrapped(self) -> Iterator[None]:
        try:
            yield
        except (psycopg.Error, OSError, UnicodeError) as exc:  # a surrogate cannot be sent
            kind = BusyError if _is_busy(exc) else LateError if isinstance(exc, _LATE) else StoreError
            raise kind(f"{self._name}: {_describe(exc)}{_next_step(exc)}") from exc


def _describe(exc: Exception) -> str:
    """The message in one line. It holds no password: libpq quotes one only if it cannot parse it, see `parse_url`."""
    # Without the line of the statement that the server adds, because the statement is the library's own.
    message = getattr(getattr(exc, "diag", None), "message_primary", None) or str(exc)
    return " ".join(message.split()) or type(exc).__name__


def _dump(value: Any) -> Jsonb:
    # Unescaped, because jsonb takes no escapes in a database whose encoding is SQL_ASCII.
    return Jsonb(value, dumps=functools.partial(json.dumps, ensure_ascii=False))


def _load(text: str | None) -> Any:
    return None if text is None else json.loads(text)


def _read_clock(seconds: Any) -> dt.datetime:
    return dt.datetime.fromtimestamp(float(seconds), dt.UTC)


def _uuids(texts: Sequence[str]) -> Iterator[UUID]:
    for text in texts:
        with contextlib.suppress(ValueError):
            yield UUID(text)


def _is_busy(exc: Exception) -> bool:
    # libpq does not pass on the code of an error at the login, so a server that speaks another language is not found.
    return isinstance(exc, psycopg.OperationalError) and _BUSY.search(str(exc)) is not None


def _next_step(exc: BaseException) -> str:
    if isinstance(exc, pg.InsufficientPrivilege):
        return next(step for word, step in _GRANTS.items() if word in (exc.diag.message_primary or ""))
    if isinstance(exc, pg.ProtocolViolation) and "statement pooling" in str(exc):  # PgBouncer's message
        return ": pool by transaction, or connect to the server's own address"
    return next((step for kind, step in _NEXT_STEPS.items() if isinstance(exc, kind)), "")
