"""One connection to PostgreSQL: the only module that imports psycopg, and where its errors are wrapped."""

import contextlib
import datetime as dt
import functools
import json
import os
import re
import socket
import time
import weakref
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import fields
from difflib import get_close_matches
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl
from uuid import UUID

import psycopg
from psycopg import errors as pg
from psycopg.abc import PQGen
from psycopg.adapt import AdaptersMap
from psycopg.conninfo import conninfo_to_dict
from psycopg.postgres import register_default_adapters
from psycopg.types.json import Jsonb, set_json_loads

from maintenance.base.runtime import Waker
from maintenance.base.values import CHANNEL, KEY, SENTINEL, Change, Fleet, Instance, Reading, Row
from maintenance.errors import ConfigurationError, LateError, LateRegistrationError, RegistrationError, StoreError

Result = TypeVar("Result")

MIGRATE_TIMEOUT: Final = 30.0
"""Seconds that a migration waits for those that began before it; each takes a fraction of a second."""

LOCK_TIMEOUT: Final = 5.0
"""Seconds that a migration waits for a lock on a table, and readers behind it."""

# Measured: with these a listener on a dead network is freed in 3 s and a query in 3.4 s. No `options`: PgBouncer
# refuses it. Only parameters that the URL does not name.
_DEFAULTS: Final = {
    "application_name": "maintenance",
    "client_encoding": "utf8",
    "connect_timeout": "2",
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "2",
    "tcp_user_timeout": "5000",
}

_INTEGERS: Final = (
    "connect_timeout", "tcp_user_timeout", "keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count",
)  # fmt: skip
_NUMBERS: Final = {"port": range(1, 65_536), **dict.fromkeys(_INTEGERS, range(-(2**31), 2**31))}
"""The parameters that are whole numbers, and which."""

_NOBODY: Final = UUID(SENTINEL.id)
# The time as a number, because psycopg reads no other DateStyle than ISO. What does not match a name of PostgreSQL's
# own exactly is written with its schema: in public anybody may have put a better match.
_ROW: Final = "s.value_bool, s.details, s.revision, extract(epoch FROM s.updated_at)::float8, s.updated_by"
_FLAG: Final = (
    f"s.key IS NOT NULL, {_ROW}, s.drain_revision IS NOT DISTINCT FROM s.revision, pg_catalog.pg_is_in_recovery()"
)
_SETTINGS: Final = "(VALUES (1)) AS one LEFT JOIN public.platform_settings s ON s.key = %(key)s"
_READ: Final = (
    f"SELECT {_FLAG}, EXISTS (SELECT FROM public.maintenance_instances WHERE id = %(instance)s) FROM {_SETTINGS}"
)
_READ_ALONE: Final = f"SELECT {_FLAG}, false FROM {_SETTINGS}"
_WRITE: Final = f"""
INSERT INTO public.platform_settings AS s (key, value_bool, details, updated_by, updated_at)
VALUES (%(key)s, %(enabled)s, %(details)s, %(updated_by)s, pg_catalog.now())
ON CONFLICT (key) DO UPDATE SET value_bool = EXCLUDED.value_bool, details = EXCLUDED.details,
    updated_by = EXCLUDED.updated_by, updated_at = EXCLUDED.updated_at
RETURNING {_ROW}
"""
_FIELDS: Final = tuple(field.name for field in fields(Instance))
_COLUMNS: Final = _FIELDS[:-1]  # how long it has been silent follows from `seen_at`
_SAID: Final = _COLUMNS[_COLUMNS.index("revision") :]
_REPORT: Final = f"""
INSERT INTO public.maintenance_instances ({", ".join(_COLUMNS)}, seen_at)
VALUES ({", ".join(f"%({name})s" for name in _COLUMNS)}, pg_catalog.now())
ON CONFLICT (id) DO UPDATE SET {", ".join(f"{name} = EXCLUDED.{name}" for name in _SAID)}, seen_at = pg_catalog.now()
"""
# An acknowledgement may be lost in a crash, as no flip is: the row then says what was true before, and proves less.
# Never through a pooler, which would hide the crash from the process that has to say it again.
_SAY: Final = f"""
UPDATE public.maintenance_instances SET {", ".join(f"{name} = %({name})s" for name in _SAID)},
    seen_at = pg_catalog.now()
WHERE id = %(id)s AND pg_catalog.set_config('synchronous_commit', 'off', true) = 'off' RETURNING true
"""
# As numeric, for the role's extra_float_digits may round what is read of a float8, and a shorter TTL proves too much.
_TIMES: Final = {
    "ttl": "i.ttl::numeric",
    "silent_for": "extract(epoch FROM pg_catalog.clock_timestamp() - i.seen_at)::numeric",
}
_FLEET: Final = f"""
SELECT {_FLAG}, {", ".join(_TIMES.get(name, f"i.{name}") for name in _FIELDS)}
FROM {_SETTINGS} LEFT JOIN public.maintenance_instances i ON true
ORDER BY i.host, i.pid, i.id
"""
_PROBE: Final = """
SELECT pg_catalog.pg_backend_pid(), coalesce(
    pg_catalog.has_table_privilege(pg_catalog.to_regclass('public.maintenance_instances'), 'SELECT'), false)
"""
# A flip or a registration that a crash forgets proves nothing, whatever the role's own setting.
_DURABLE: Final = (
    "SELECT pg_catalog.set_config('synchronous_commit', 'on', true) "
    "WHERE pg_catalog.current_setting('synchronous_commit') IN ('off', 'local');"
)
# Who locks the tables for long must not keep the readers from what can still be read.
_NO_QUEUE: Final = "SET LOCAL lock_timeout = 250;"
_QUEUE: Final = "SET LOCAL lock_timeout = 0;"
# The same time-outs for the whole session, where it is surely nobody else's, and not with each statement.
_FOLLOW: Final = "LISTEN {channel}; SET statement_timeout = {milliseconds}; SET lock_timeout = 250"
_SHORT: Final = 4
_UNPREPARED: Final = (pg.UndefinedTable, pg.UndefinedColumn, pg.InvalidSchemaName)
# By a word of the server's message; the last one is in every message.
_GRANTS: Final = {
    "must be owner": ": migrate as the tables' owner",
    "sequence": ": grant this role USAGE on that sequence",
    "schema": ": grant this role USAGE there; to migrate, be the tables' owner, or have CREATE where there are none",
    "maintenance_instances": ": grant this role SELECT there, and INSERT, UPDATE and DELETE too where it serves",
    "": ": grant this role SELECT there, and INSERT and UPDATE too where it flips; only the tables' owner migrates",
}
_NEXT_STEPS: Final[dict[type[Exception], str]] = {
    pg.ConnectionTimeout: ": nobody answers there: look at the host, the port and the firewall",
    pg.LockNotAvailable: ": end the transaction that holds the lock, or try again",
    pg.QueryCanceled: ": another transaction may hold the row, or the server is slow: end that, or try again",
    pg.ForeignKeyViolation: ": write an updated_by that is in public.users, or leave it out",
    pg.ReadOnlySqlTransaction: ": connect to the primary, or let this role write (default_transaction_read_only)",
}

# psycopg's own, whatever the application registered in `psycopg.adapters` for its connections.
_ADAPTERS: Final = AdaptersMap(types=psycopg.adapters.types)
register_default_adapters(_ADAPTERS)


def _loads(text: str | bytes) -> object:
    """JSON that Python may be unable to read, too deep or too long a number, is left as it is: `Row` names it."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text if isinstance(text, str) else bytes(text).decode()


set_json_loads(_loads, _ADAPTERS)

_inherited: list[object] = []
_connections: "weakref.WeakSet[_Connection]" = weakref.WeakSet()


def _forked() -> None:
    """In the child of a fork, also of one while another thread was about to connect."""
    for connection in list(_connections):
        connection.abandon()


if hasattr(os, "register_at_fork"):  # pragma: no branch - Windows forks nothing
    os.register_at_fork(after_in_child=_forked)


def conninfo(url: str) -> dict[str, str]:
    """The connection parameters that a URL names, over the defaults.

    Raises:
        ConfigurationError: libpq cannot parse the URL.
    """
    found = None
    with contextlib.suppress(psycopg.Error):
        found = conninfo_to_dict(url)
    # Raised out here: libpq's own words, even as the context of this error, may quote what it took the password for.
    if found is None:
        if unknown := _unknown(url):
            raise ConfigurationError(f"the database URL holds a parameter that libpq does not know: {unknown}")
        raise ConfigurationError(
            "the database URL cannot be parsed: write postgresql://user@host:port/database, "
            "with %-encoding for special characters, also in a password"
        )
    given = {name: str(value) for name, value in found.items() if value is not None}
    _check_numbers(given)
    return _DEFAULTS | _primary(given) | given


def _primary(given: dict[str, str]) -> dict[str, str]:
    """What has libpq choose the server that takes writes, where several are named, in the URL or the environment."""
    options = psycopg.pq.Conninfo.get_defaults()
    usual = {option.keyword.decode(): (option.val or b"").decode() for option in options}
    named = usual | given
    several = "," in named["host"] or "," in named["hostaddr"]
    # libpq's own default is "any"; another one was set by somebody.
    return {"target_session_attrs": "read-write"} if several and usual["target_session_attrs"] in ("", "any") else {}


def _check_numbers(given: dict[str, str]) -> None:
    """Refuse what libpq refuses too, but at each connection, as if the server were away."""
    for name in _NUMBERS.keys() & given.keys():
        for value in filter(None, given[name].split(",")):
            # psycopg reads this one itself, and takes "2.5".
            number = re.sub(r"\.[0-9]*$", "", value) if name == "connect_timeout" else value
            if not re.fullmatch(r"\s*[+-]?[0-9]{1,10}\s*", number) or int(number) not in _NUMBERS[name]:
                wanted = " from 1 to 65535" if name == "port" else ""
                raise ConfigurationError(f"the database URL holds a wrong {name}: write a whole number{wanted}")


def _unknown(url: str) -> str | None:
    """What to write in place of a parameter in the URL; never its name, which may be a piece of a password."""
    known = [option.keyword.decode() for option in psycopg.pq.Conninfo.get_defaults()]
    given = [name for name, _ in parse_qsl(url.partition("?")[2], keep_blank_values=True) if name not in known]
    meant = next((close[0] for name in given if (close := get_close_matches(name, known, 1, 0.75))), None)
    if meant:
        return f"did you mean {meant}?"
    return "leave out what is not libpq's own, and write %26 for each & in a value" if given else None


class _GivenUp(psycopg.OperationalError):
    """A wait that this process has ended."""


_LATE: Final = (pg.ConnectionTimeout, pg.LockNotAvailable, pg.QueryCanceled, _GivenUp)


class _Connection(psycopg.Connection[Any]):
    """One whose waits end, in the very thread that waits: a thread that watches would cost more than a read."""

    patience = late = float("inf")
    given_up = False

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        _connections.add(self)

    def abandon(self) -> None:
        """In the child of a fork: close the descriptor, once, and say nothing to the server.

        Its client is the parent. Left open, it would keep the server talking to a parent that has ended.
        """
        if self in _connections:
            _connections.discard(self)
            _inherited.append(self)
            with contextlib.suppress(OSError, psycopg.Error):
                os.close(self.fileno())

    def wait(self, gen: PQGen[Result], *args: Any, **options: Any) -> Result:
        return super().wait(self._watched(gen), *args, **options)

    def _watched(self, gen: PQGen[Result]) -> PQGen[Result]:
        ready: Any = None
        try:
            while True:
                # Looked at first, and when nothing is ready, which psycopg says each 0.1 s.
                if not ready and time.monotonic() >= self.late:
                    self._give_up()
                wants = gen.send(ready)
                ready = yield wants
        except StopIteration as ended:
            result: Result = ended.value
            return result
        except psycopg.OperationalError as exc:
            if not self.given_up:
                raise
            said = f"no answer within {self.patience:.3g} s: look whether the server hangs, or waits for a standby"
            raise _GivenUp(said) from exc

    def _give_up(self) -> None:
        # Made as sockets are: on Windows os.dup takes none.
        with socket.socket(fileno=socket.dup(self.fileno())) as handle, contextlib.suppress(OSError):
            handle.shutdown(socket.SHUT_RDWR)
        self.given_up = True


class PostgresSession:
    """See `maintenance.stores.Session`."""

    def __init__(self, name: str, info: dict[str, Any], *, listen: bool, statement_timeout: float) -> None:
        """Connect, and LISTEN where that can work."""
        self._name = name
        self._secrets = [info[key] for key in ("password", "sslpassword") if info.get(key)]
        self._milliseconds = int(statement_timeout * 1000) or 1
        self._timeout = f"SET LOCAL statement_timeout = {self._milliseconds};"
        self.listening = self._heard = False
        with self._wrapped():
            self._connection = _Connection.connect(
                "",
                autocommit=True,
                prepare_threshold=None,
                cursor_factory=psycopg.ClientCursor,
                context=_ADAPTERS,
                **info,
            )
        # Else flips at the same time fail where the role's own is a stricter one.
        self._connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
        # Kept, because a cursor learns how its statement's values are adapted: anew each time, a fleet takes a quarter
        # longer to follow a flip.
        self._cursors = defaultdict[str, psycopg.Cursor[Any]](functools.partial(psycopg.Cursor, self._connection))
        try:
            # `connect_timeout` ends with the login: a server that falls silent after it would hang this for ever.
            with self.within(statement_timeout):
                direct = self._probe()
                if listen and direct:
                    self.listening = self._try_listen()
        except StoreError:
            self.close()
            raise

    def _probe(self) -> bool:
        """Learn whether instances can be read, and whether this is the server itself and not a pooler."""
        [backend, self._instances] = self._one(_PROBE)
        # A pooler makes up the key it hands out; behind one, LISTEN is accepted and nothing is ever delivered.
        return bool(backend == self._connection.info.backend_pid)

    def _try_listen(self) -> bool:
        try:
            self._run(_FOLLOW.format(channel=CHANNEL, milliseconds=self._milliseconds))
        except StoreError:
            if self._connection.closed:
                raise
            return False  # a hot standby refuses; whatever else is in the way, what can be read is followed by polling
        self._connection.prepare_threshold = 0
        self._connection.add_notify_handler(self._hear)
        return True

    def read(self, instance: str | None = None) -> Reading:
        """See `Session.read`."""
        if not self._instances:
            self._probe()
        values = {"key": KEY, "instance": instance or SENTINEL.id}
        try:
            *flag, registered = self._follow(_READ if self._instances else _READ_ALONE, values)[0]
        except StoreError as exc:
            if not isinstance(exc.__cause__, pg.LockNotAvailable):
                raise
            *flag, registered = self._one(_NO_QUEUE + _READ_ALONE, values)  # only the instances may be locked
        return _reading(flag, store=self._name, registered=registered and instance is not None)

    def write(self, change: Change) -> Row:
        """See `Session.write`."""
        # As they are: where the database's encoding is SQL_ASCII, jsonb takes no escapes.
        details = Jsonb(change.details.to_json(), dumps=functools.partial(json.dumps, ensure_ascii=False))
        values = {"key": KEY, "enabled": change.enabled, "details": details, "updated_by": change.updated_by}
        row = None
        try:
            # Committed by a message of its own: a write that is given up while it waits must not happen later.
            with self._wrapped(), self._connection.transaction():
                row = _row(*self._one(_DURABLE + _WRITE, values))
        except StoreError as exc:
            if row is None or not self._connection.closed:
                raise
            raise StoreError(f"{exc}; whether it was committed `maintenance status` tells") from exc.__cause__
        return row

    def report(self, instance: Instance) -> None:
        """See `Session.report`."""
        values = {name: getattr(instance, name) for name in _COLUMNS}
        try:
            if not (self.listening and instance.revision is not None and self._follow(_SAY, values)):
                self._run(_NO_QUEUE + _DURABLE + _REPORT, values)
        except StoreError as exc:
            # Whatever forbids to write, a full disk or a trigger, what can be read is still true.
            if self._connection.closed:
                raise
            kind = LateRegistrationError if isinstance(exc, LateError) else RegistrationError
            raise kind(f"instances cannot register: {exc}") from exc.__cause__

    def remove(self, instance: str) -> bool:
        """See `Session.remove`."""
        sql = "DELETE FROM public.maintenance_instances WHERE id = %(id)s AND id <> %(nobody)s RETURNING id"
        # A process that leaves has the time, also in a session that listens: what it leaves behind is a laggard.
        try:
            values = {"id": UUID(instance), "nobody": _NOBODY}
        except ValueError:
            return False  # nobody has such an id
        return bool(self._run(_QUEUE + _DURABLE + sql, values))

    def fleet(self) -> Fleet:
        """See `Session.fleet`."""
        rows = self._run(_FLEET, {"key": KEY})
        found = [_instance(row[8:]) for row in rows if row[8] not in (None, _NOBODY)]
        return Fleet(
            _reading(rows[0][:8], store=self._name), tuple(found), intact=any(row[8] == _NOBODY for row in rows)
        )

    def ask_drain(self, revision: int) -> None:
        """See `Session.ask_drain`."""
        self._run(
            "UPDATE public.platform_settings SET drain_revision = revision "
            "WHERE key = %(key)s AND revision = %(revision)s AND drain_revision IS DISTINCT FROM revision",
            {"key": KEY, "revision": revision},
        )

    def wait(self, timeout: float, waker: Waker) -> bool:
        """See `Session.wait`."""
        end = time.monotonic() + timeout
        with self._wrapped():
            fd = self._connection.fileno() if self.listening else None
        # Drained before each wait: what arrived during a query sits in psycopg, where no file tells of it.
        while not self._notified():
            left = end - time.monotonic()
            if left <= 0 or waker.wait(left, fd=fd):
                return False
        return True

    def _notified(self) -> bool:
        if not self.listening:
            return False
        with self._wrapped():
            # As `Connection.notifies(timeout=0)`, in a tenth of the time.
            self._connection.pgconn.consume_input()
            while notify := self._connection.pgconn.notifies():
                self._heard = self._heard or notify.extra == KEY.encode()
        heard, self._heard = self._heard, False
        return heard

    def _hear(self, notify: psycopg.Notify) -> None:
        """Hear of what arrived during a query."""
        self._heard = self._heard or notify.payload == KEY

    def migrate(self, files: tuple[tuple[str, str], ...]) -> None:
        """Apply SQL files in one transaction; whoever comes second waits, and finds nothing to do."""
        with self._wrapped(), self._connection.transaction():
            self._wait_for_migrations()
            # Queued behind a long transaction, an ALTER would hold up every reader behind it.
            self._connection.execute(f"SET LOCAL lock_timeout = {LOCK_TIMEOUT * 1000:.0f}")
            for _, sql in files:
                self._connection.execute(sql)

    def _wait_for_migrations(self) -> None:
        """Take the lock that the files take too, with more time: many processes may begin at once."""
        try:
            self._connection.execute(
                f"SET LOCAL lock_timeout = {MIGRATE_TIMEOUT * 1000:.0f}; "
                "SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended('maintenance migrate', 0))"
            )
        except pg.LockNotAvailable as exc:
            raise StoreError(
                f"{self._name}: another migration has not ended within {MIGRATE_TIMEOUT:g} s: end it, or try again"
            ) from exc

    @contextlib.contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """See `Session.within`; a frozen server still acknowledges, so no time-out of the kernel's ends a read."""
        self._connection.patience, self._connection.late = seconds, time.monotonic() + seconds
        try:
            yield
        finally:
            self._connection.late = float("inf")

    def abandon(self) -> None:
        """See `Session.abandon`."""
        self._connection.abandon()

    def close(self) -> None:
        """See `Session.close`."""
        if self.listening:
            self._connection.remove_notify_handler(self._hear)
            self.listening = False
        self._connection.close()

    def _one(self, sql: str, values: dict[str, Any] | None = None) -> tuple[Any, ...]:
        rows = self._run(sql, values)
        if not rows:
            raise StoreError(f"{self._name}: the row was not written: look for a trigger that suppresses it")
        return rows[0]

    def _run(self, sql: str, values: dict[str, Any] | None = None) -> list[tuple[Any, ...]]:
        """Run statements in one round trip, as one transaction; return what the last one returned."""
        with self._wrapped(), self._connection.cursor() as cursor:
            cursor.execute(self._timeout + sql, values)
            while cursor.nextset():
                pass
            return cursor.fetchall() if cursor.description else []

    def _follow(self, sql: str, values: dict[str, Any]) -> list[tuple[Any, ...]]:
        """Run a statement that the whole fleet sends at the same moment: prepared, where this session listens."""
        if not self.listening:
            return self._run(_NO_QUEUE + sql, values)
        with self._wrapped():
            return self._cursors[sql].execute(sql, values).fetchall()

    @contextlib.contextmanager
    def _wrapped(self) -> Iterator[None]:
        try:
            yield
        except (psycopg.Error, OSError, UnicodeError) as exc:  # a surrogate cannot be sent
            kind = LateError if isinstance(exc, _LATE) else StoreError
            raise kind(f"{self._name}: {self._without_secrets(exc)}{_next_step(exc)}") from exc

    def _without_secrets(self, exc: Exception) -> str:
        # Without the line of the statement that the server adds: it is the library's own.
        said = getattr(getattr(exc, "diag", None), "message_primary", None) or str(exc)
        for secret in self._secrets:
            # A short one is within many words: masked there, it could be told from what is left.
            if len(secret) < _SHORT and secret in said:
                kind = f"{type(exc).__name__} {getattr(exc, 'sqlstate', None) or ''}".rstrip()
                return f"{kind} (in words that are not shown, because the password is a part of them)"
            said = said.replace(secret, "***")
        return " ".join(said.split()) or type(exc).__name__


def _next_step(exc: BaseException) -> str:
    if isinstance(exc, _UNPREPARED):
        return ": run `maintenance migrate`"
    if isinstance(exc, pg.InsufficientPrivilege):
        return next(step for word, step in _GRANTS.items() if word in (exc.diag.message_primary or ""))
    if isinstance(exc, pg.ProtocolViolation) and "statement pooling" in str(exc):  # PgBouncer's own words
        return ": pool by transaction, or go to the server's own address"
    return next((step for kind, step in _NEXT_STEPS.items() if isinstance(exc, kind)), "")


def _reading(flag: list[Any] | tuple[Any, ...], *, store: str, registered: bool = False) -> Reading:
    there, *row, drain, standby = flag
    found = _row(*row) if there else None
    return Reading(found, primary=not standby, registered=registered, drain=there and drain, store=store)


def _row(value_bool: Any, details: Any, revision: Any, updated_at: float | None, updated_by: UUID | None) -> Row:
    try:
        when = None if updated_at is None else dt.datetime.fromtimestamp(updated_at, dt.UTC)
    except (ValueError, OverflowError) as exc:  # such as infinity
        raise StoreError(f"platform_settings.updated_at of {KEY!r} is wrong: {exc}: set it to now()") from exc
    return Row(value_bool, details, revision, when, updated_by)


def _instance(row: tuple[Any, ...]) -> Instance:
    values = dict(zip(_FIELDS, row, strict=True))
    times = {name: float(values[name]) for name in _TIMES}
    return Instance(**values | times | {"id": values["id"].hex})
