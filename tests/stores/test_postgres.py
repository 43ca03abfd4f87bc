"""One session of PostgreSQL in trouble: poolers, lost connections, forks, privileges, and the errors that name them."""

import collections
import datetime as dt
import gc
import json
import os
import re
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from typing import Any, LiteralString, Self
from uuid import uuid4

import psycopg
import pytest
from psycopg import Connection
from psycopg.adapt import AdaptersMap
from psycopg.errors import ProtocolViolation
from psycopg.types.json import set_json_dumps, set_json_loads
from psycopg.types.string import StrDumper, TextLoader

from maintenance import MaintenanceState, StoreError
from maintenance.base.flags import Flags
from maintenance.base.runtime import SocketWaker
from maintenance.base.values import Change, Details, Snapshot
from maintenance.errors import RegistrationError
from maintenance.stores import PostgresStore
from maintenance.stores.postgres import connection as postgres_connection
from maintenance.stores.postgres import session as postgres_session
from maintenance.stores.postgres.session import PostgresSession
from maintenance.stores.rows import describe_caller
from tests.stores.helpers import ON, in_thread, instance, run_sql, snapshot
from tests.support.command import operator
from tests.support.life import enter_request
from tests.support.ports import free_port
from tests.support.postgres import Server
from tests.support.sql import flip
from tests.support.waiting import eventually


@contextmanager
def session_of(url: str, **options: Any) -> Iterator[PostgresSession]:
    with closing(PostgresStore(url, **options).connect(listen=True)) as opened:
        yield opened


@pytest.fixture
def session(migrated_url: str) -> Iterator[PostgresSession]:
    with session_of(migrated_url) as opened:
        yield opened


@pytest.fixture
def psql(migrated_url: str) -> Iterator[Connection]:
    """Another client of the same database."""
    with psycopg.connect(migrated_url, autocommit=True) as opened:
        yield opened


@contextmanager
def held(url: str, statement: LiteralString) -> Iterator[Connection]:
    """A transaction of another client that stays open for the block."""
    with psycopg.connect(url) as holder:
        holder.execute(statement)
        yield holder


def end_backend(psql: Connection, session: PostgresSession) -> None:
    psql.execute("SELECT pg_terminate_backend(%s)", [session._connection.info.backend_pid])


# Poolers


class Pooler:
    """Passes everything on, and makes up the key that it hands out, as PgBouncer does."""

    def __init__(self, upstream: int) -> None:
        self.port, self._upstream = free_port(), upstream

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._upstream))
                threading.Thread(target=self._pump, args=(server, client, True), daemon=True).start()
                threading.Thread(target=self._pump, args=(client, server, False), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, rewrite: bool) -> None:
        key = b"K\0\0\0\x0c"  # BackendKeyData: its length, the process, the secret
        with suppress(OSError):
            while chunk := source.recv(65_536):
                if rewrite and (at := chunk.find(key)) >= 0:
                    chunk = chunk[: at + 5] + b"\x7f\0\0\1" + chunk[at + 9 :]
                    rewrite = False
                sink.sendall(chunk)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


def test_behind_a_pooler_it_polls(
    postgres: Server, migrated_url: str, session: PostgresSession, waker: SocketWaker
) -> None:
    with (
        Pooler(postgres.port) as pooler,
        session_of(postgres.url(migrated_url.rpartition("/")[2], port=pooler.port)) as pooled,
    ):
        assert (pooled.listening, session.listening) == (False, True)
        session.write(ON)
        assert snapshot(pooled).enabled
        assert not pooled.wait(0.0, waker)


def test_an_error_of_a_pooler_has_a_next_step_if_there_is_one() -> None:
    """PgBouncer's own message, as `test_pgbouncer` gets it."""
    pooled = ProtocolViolation("transaction blocks not allowed in statement pooling mode")
    assert postgres_session._next_step(pooled) == ": pool by transaction, or connect to the server's own address"
    assert postgres_session._next_step(ProtocolViolation("no such database: shop")) == ""


# Listening


def test_listening_can_be_turned_off(migrated_url: str) -> None:
    with session_of(migrated_url, listen=False) as session:
        assert not session.listening


def test_if_the_server_refuses_to_listen_the_flag_is_polled(
    migrated_url: str, session: PostgresSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real standby is asked in `test_database_faults`."""
    monkeypatch.setitem(postgres_session._SQL, "listen", "LISTEN x; SELECT 1 / 0")
    with session_of(migrated_url) as polling:
        assert not polling.listening
        session.write(ON)
        assert snapshot(polling).enabled


def test_a_connection_that_is_lost_while_it_is_made_is_closed(
    migrated_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[PostgresSession] = []
    begin = PostgresSession._try_listen
    monkeypatch.setattr(PostgresSession, "_try_listen", lambda self: made.append(self) or begin(self))
    monkeypatch.setitem(postgres_session._SQL, "listen", "SELECT pg_terminate_backend(pg_backend_pid())")
    with pytest.raises(StoreError, match="terminating connection"):
        PostgresStore(migrated_url).connect(listen=True)
    assert made[0]._connection.closed


def test_other_keys_of_the_same_table_end_no_wait(
    session: PostgresSession, psql: Connection, waker: SocketWaker
) -> None:
    psql.execute("INSERT INTO platform_settings (key) VALUES ('something_else')")
    psql.execute("NOTIFY platform_settings, 'something_else'")
    assert not session.wait(0.3, waker)


def test_what_arrives_during_a_query_ends_the_next_wait(
    session: PostgresSession, psql: Connection, waker: SocketWaker
) -> None:
    assert not session.wait(0.0, waker)
    psql.execute("UPDATE platform_settings SET value_bool = true")
    assert snapshot(session).enabled  # and with its answer comes the notification
    assert session.wait(5.0, waker)
    assert not session.wait(0.0, waker)


def test_a_session_that_listens_prepares_what_a_whole_fleet_sends_at_once(
    migrated_url: str, session: PostgresSession
) -> None:
    with session_of(migrated_url, listen=False) as polling:
        for one, prepared in ((session, 2), (polling, 0)):
            one.report(found := instance())
            one.report(replace(found, revision=1))
            assert one.read(found.id).registered
            count = one._connection.execute("SELECT count(*) FROM pg_prepared_statements")
            assert count.fetchone() == (prepared,)


def test_what_is_prepared_outlives_a_migration(migrated_url: str, session: PostgresSession, psql: Connection) -> None:
    session.report(found := instance())
    assert session.read(found.id).registered
    psql.execute("ALTER TABLE platform_settings ADD COLUMN extra text; DROP TABLE maintenance_instances")
    with pytest.raises(StoreError, match="maintenance migrate"):
        session.read(found.id)
    PostgresStore(migrated_url).migrate()
    assert not session.read(found.id).registered
    session.report(replace(found, revision=1))
    assert session.read(found.id).registered


# The application's own psycopg, and the database's own settings


@pytest.fixture
def meddled() -> Iterator[None]:
    """An application that wants text for everything, on each connection of its process."""

    class Shout(StrDumper):
        def dump(self, obj: str) -> Any:
            return super().dump(obj.upper())

    kept = AdaptersMap(psycopg.adapters)
    for name in ("bool", "int4", "int8", "float8", "uuid", "timestamptz", "jsonb", "numeric"):
        psycopg.adapters.register_loader(name, TextLoader)
    psycopg.adapters.register_dumper(str, Shout)
    set_json_loads(lambda _: "loaded")
    set_json_dumps(lambda _: '"dumped"')
    yield
    set_json_loads(json.loads)
    set_json_dumps(json.dumps)
    for name in ("_loaders", "_dumpers", "_dumpers_by_oid"):
        setattr(psycopg.adapters, name, getattr(kept, name))


@pytest.mark.usefixtures("meddled")
def test_the_application_s_psycopg_changes_nothing(session: PostgresSession) -> None:
    change = Change(enabled=True, details=Details(message="Back at noon."), updated_by=uuid4())
    written = session.write(change).row
    session.report(reported := instance(in_flight=2, oldest="GET /", oldest_age=1.5))
    reading = session.read(reported.id)
    [found] = session.fleet().instances
    assert written == reading.row
    found_change = (written.value_bool, written.details, written.updated_by)
    assert found_change == (True, change.details.to_json(), change.updated_by)
    assert (session.listening, reading.registered, reading.primary) == (True, True, True)
    assert replace(found, silent_for=reported.silent_for) == reported


@pytest.fixture
def setting(migrated_url: str, request: pytest.FixtureRequest) -> str:
    """The URL of a database whose sessions begin with a setting."""
    name, value = request.param
    run_sql(migrated_url, f"ALTER DATABASE {migrated_url.rpartition('/')[2]} SET {name} = '{value}'")
    return migrated_url


@pytest.mark.parametrize(
    "setting",
    [
        *(("DateStyle", style) for style in ("German", "SQL, DMY", "Postgres, MDY")),
        ("IntervalStyle", "sql_standard"),
        ("TimeZone", "Asia/Kathmandu"),
        ("bytea_output", "escape"),
        ("standard_conforming_strings", "off"),
        ("search_path", "nowhere"),
        ("extra_float_digits", "-15"),  # a shorter TTL would end a lease too early
    ],
    indirect=True,
)
def test_the_database_s_settings_change_nothing(setting: str) -> None:
    with session_of(setting) as session:
        written = session.write(Change(enabled=True, details=Details(message="a\\b'c"))).row
        assert session.read().row == written
        assert snapshot(session).message == "a\\b'c"
        assert written.updated_at
        assert abs(written.updated_at.timestamp() - time.time()) < 60
        session.report(instance(revision=1, ttl=14.4))
        [found] = session.fleet().instances
        assert (found.ttl, found.silent_for < 60) == (14.4, True)


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_an_older_encoding_keeps_the_message_and_the_program(
    encoding: str, postgres: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"old_{encoding.lower()}"
    monkeypatch.setattr("sys.argv", ["/srv/лавка"])
    run_sql(postgres.url(), f"CREATE DATABASE {name} ENCODING '{encoding}' TEMPLATE template0")
    try:
        store = PostgresStore(postgres.url(name))
        store.migrate()
        with closing(MaintenanceState(store, when_stale="block")) as state:
            state.set(True, message="Zurück um zwölf.")
            assert state.wait_for_answer().snapshot.message == "Zurück um zwölf."
            [one] = state.fleet().instances
            assert one.program == "\\u043b\\u0430\\u0432\\u043a\\u0430"
    finally:
        run_sql(postgres.url(), f"DROP DATABASE {name} WITH (FORCE)")


@pytest.mark.parametrize(
    "setting",
    [("default_transaction_isolation", level) for level in ("repeatable read", "serializable")],
    indirect=True,
)
def test_flips_at_the_same_time_all_succeed_whatever_the_isolation(setting: str) -> None:
    barrier = threading.Barrier(4)

    def flip(number: int) -> None:
        with session_of(setting) as session:
            for turn in range(10):
                barrier.wait(10.0)
                session.write(Change(enabled=True, details=Details(message=f"{number} {turn}")))

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(flip, range(4))) == [None] * 4


# A row that was written by hand


@pytest.mark.parametrize(
    ("details", "message", "problem"),
    [
        ("repeat('[', 3000) || repeat(']', 3000)", None, "details is"),
        ("""'{"message": "m", "retry_after": 1' || repeat('0', 5000) || '}'""", "m", "retry_after is a float"),
    ],
    ids=["too deep", "too long a number"],
)
def test_a_flip_counts_whose_details_python_cannot_parse(
    session: PostgresSession, psql: Connection, details: LiteralString, message: str | None, problem: str
) -> None:
    psql.execute(f"UPDATE platform_settings SET value_bool = true, details = ({details})::jsonb")
    found = snapshot(session)
    assert (found.enabled, found.message) == (True, message)
    assert [one[: len(problem)] for one in found.problems] == [problem]


@pytest.mark.parametrize(
    "time", ["2026-11-22 01:02:03.123457+00", "1999-12-31 23:59:59.999999+00", "9999-12-31 23:59:59+00"]
)
def test_a_time_is_read_to_the_microsecond(session: PostgresSession, psql: Connection, time: str) -> None:
    psql.execute("UPDATE platform_settings SET updated_at = %s", [time])
    assert snapshot(session).updated_at == dt.datetime.fromisoformat(time)


@pytest.mark.parametrize("time", ["infinity", "-infinity", "20000-01-01 00:00:00+00"])
def test_a_flip_counts_whose_time_python_has_not(session: PostgresSession, psql: Connection, time: str) -> None:
    psql.execute("UPDATE platform_settings SET value_bool = true, updated_at = %s", [time])
    found = snapshot(session)
    assert (found.enabled, found.updated_at) == (True, None)
    assert [problem[:14] for problem in found.problems] == ["updated_at is "]
    session.write(ON)
    assert snapshot(session).updated_at


def test_a_key_that_exists_twice_is_read_all_the_same(session: PostgresSession, psql: Connection) -> None:
    psql.execute("ALTER TABLE platform_settings DROP CONSTRAINT platform_settings_key_key")
    psql.execute("INSERT INTO platform_settings (key, value_bool) SELECT key, value_bool FROM platform_settings")
    assert not snapshot(session).enabled


def test_a_role_that_may_not_write_leaves_a_schedule_to_others(
    poor_url: str, session: PostgresSession, psql: Connection
) -> None:
    revision = snapshot(session).revision
    with closing(PostgresStore(poor_url).connect()) as poor:
        assert not poor.carry_out(None, revision, enabled=True)
    end_backend(psql, session)
    with pytest.raises(StoreError):
        session.carry_out(None, revision, enabled=True)


# Lost connections and time-outs


def test_a_lost_connection_is_a_store_error_in_every_call(
    session: PostgresSession, psql: Connection, waker: SocketWaker
) -> None:
    end_backend(psql, session)
    for call in (
        session.read,
        lambda: session.write(ON),
        lambda: session.report(instance()),
        lambda: session.remove(uuid4().hex),
        session.fleet,
        lambda: session.ask_drain(1),
        lambda: session.wait(0.0, waker),
        session._try_listen,
    ):
        with pytest.raises(StoreError, match=r"postgresql://.*(terminating|the connection is)") as caught:
            call()
        assert not isinstance(caught.value, RegistrationError)


def test_a_wait_ends_when_the_server_ends_the_connection(
    session: PostgresSession, psql: Connection, waker: SocketWaker
) -> None:
    with in_thread(lambda: session.wait(20.0, waker)) as results:
        end_backend(psql, session)
    assert [type(one) for one in results] == [StoreError]


def test_a_statement_that_takes_too_long_is_ended_by_the_server(migrated_url: str) -> None:
    with session_of(migrated_url, statement_timeout=0.2) as session:
        with (
            held(migrated_url, "LOCK TABLE platform_settings"),
            pytest.raises(StoreError, match="statement timeout: another transaction may hold the row, or"),
        ):
            session.read()
        assert session._connection.info.transaction_status == 0  # and the connection is good


def test_a_session_that_listens_bounds_each_statement_too(migrated_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(postgres_session._SQL, "sleep", "SELECT pg_sleep(5)")
    with session_of(migrated_url, statement_timeout=0.3) as session:
        with held(migrated_url, "LOCK TABLE platform_settings"), pytest.raises(StoreError, match="lock timeout"):
            session.read()
        with pytest.raises(StoreError, match="statement timeout"):
            session._run_often({}, "sleep")


def test_a_block_that_takes_too_long_fails_and_so_does_the_next_call(own_server: Server) -> None:
    store = PostgresStore(own_server.url(), statement_timeout=60.0)
    store.migrate()
    for call in (lambda it: it.read(), lambda it: it.write(ON), lambda it: it.report(instance())):
        with closing(store.connect(listen=True)) as session:
            own_server.freeze()
            begun = time.monotonic()
            with pytest.raises(StoreError, match=r"no answer within 0\.2 s: the server may hang"), session.within(0.2):
                call(session)
            assert time.monotonic() - begun < 2.0
            own_server.thaw()
            with pytest.raises(StoreError):
                session.read()


def test_a_commit_that_waits_for_a_standby_is_given_up_and_may_still_happen(own_server: Server) -> None:
    store = PostgresStore(own_server.url())
    store.migrate()
    with psycopg.connect(own_server.url(), autocommit=True) as other, session_of(own_server.url()) as session:

        def wait_for(standbys: str) -> None:
            other.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{standbys}'")
            other.execute("SELECT pg_reload_conf()")
            eventually(lambda: other.execute("SHOW synchronous_standby_names").fetchone() == (standbys,))
            other.execute("CHECKPOINT")  # its process passes the setting on to those that commit

        wait_for("one_that_is_gone")
        message = r"no answer within 0\.5 s: .*; it is unknown whether the change was saved: run `maintenance status`"
        with pytest.raises(StoreError, match=message), session.within(0.5):
            session.write(ON)
        with session_of(own_server.url()) as later:
            assert not snapshot(later).enabled
            wait_for("")
            eventually(lambda: snapshot(later).enabled, what="the commit that no client waits for")


def test_a_block_that_ends_in_time_bounds_nothing_after_it(session: PostgresSession) -> None:
    with session.within(0.2):
        session.read()
    assert session._connection.execute("SELECT 1 FROM pg_sleep(0.4)").fetchall() == [(1,)]


def test_a_block_ends_also_if_each_statement_is_fast(session: PostgresSession) -> None:
    begun = time.monotonic()
    with pytest.raises(StoreError), session.within(0.3):
        collections.deque(iter(session.read, None), maxlen=0)
    assert time.monotonic() - begun < 3.0


def test_the_handle_that_ends_a_wait_is_made_as_sockets_are(
    session: PostgresSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On Windows a socket's number is no file's, so that `os.dup` fails."""

    def fail(_: int) -> int:
        raise OSError("Bad file descriptor")

    monkeypatch.setattr(os, "dup", fail)
    with pytest.raises(StoreError, match="no answer within 0 s"), session.within(0.0):
        session.read()


def test_a_process_that_leaves_waits_for_a_lock_as_long_as_a_statement_may(
    migrated_url: str, session: PostgresSession
) -> None:
    session.report(found := instance())
    with held(migrated_url, "LOCK TABLE maintenance_instances") as holder:
        threading.Timer(0.5, holder.rollback).start()
        assert session.remove(found.id)


def test_the_flag_is_read_while_the_instances_are_locked(migrated_url: str, session: PostgresSession) -> None:
    session.write(ON)
    session.report(found := instance())
    with held(migrated_url, "LOCK TABLE maintenance_instances"):
        reading = session.read(found.id)
        assert (reading.snapshot(read_at=0.0).enabled, reading.registered) == (True, False)
    assert session.read(found.id).registered


def test_a_write_that_fails_leaves_the_session_good(migrated_url: str, psql: Connection) -> None:
    with session_of(migrated_url, statement_timeout=0.2) as session:
        with (
            held(migrated_url, "SELECT FROM platform_settings FOR UPDATE"),
            pytest.raises(StoreError, match="statement timeout"),
        ):
            session.write(ON)
        psql.execute("CREATE RULE never AS ON UPDATE TO platform_settings DO INSTEAD SELECT 1")
        with pytest.raises(StoreError):
            session.write(ON)
        psql.execute("DROP RULE never ON platform_settings")
        assert session._connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
        assert session.write(ON).row.value_bool
        assert snapshot(session).enabled


def test_a_write_that_a_trigger_suppresses_is_an_error(session: PostgresSession, psql: Connection) -> None:
    psql.execute("CREATE FUNCTION suppress() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'")
    psql.execute("CREATE TRIGGER a BEFORE UPDATE ON platform_settings FOR EACH ROW EXECUTE FUNCTION suppress()")
    with pytest.raises(StoreError, match="the row was not written: look for a trigger"):
        session.write(ON)
    assert not snapshot(session).enabled


# Forks


def test_abandoning_closes_the_descriptor_and_sends_nothing(migrated_url: str, psql: Connection) -> None:
    session = PostgresStore(migrated_url).connect()
    descriptor = session._connection.fileno()
    placeholder = os.open(os.devnull, os.O_RDONLY)
    session.abandon()
    os.dup2(placeholder, descriptor)  # so that nothing else gets the number that the connection still has
    try:
        assert not session._connection.closed  # psycopg does not know, so that it sends nothing
        assert session._connection in postgres_connection._inherited
        pid = session._connection.info.backend_pid
        eventually(
            lambda: not psql.execute("SELECT 1 FROM pg_stat_activity WHERE pid = %s", [pid]).fetchall(),
            what="the server's end of the connection",
        )
    finally:
        postgres_connection._inherited.remove(session._connection)
        session._connection.close()
        os.close(placeholder)


def test_a_fork_abandons_every_connection_once(migrated_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    connections: weakref.WeakSet[Any] = weakref.WeakSet()
    monkeypatch.setattr(postgres_connection, "_connections", connections)
    monkeypatch.setattr(postgres_connection, "_inherited", inherited := [])
    closed: list[int] = []
    sessions = [PostgresStore(migrated_url).connect() for _ in range(2)]
    assert len(connections) == 2
    with monkeypatch.context() as patch:
        patch.setattr(os, "close", closed.append)
        postgres_connection._abandon_all()
        sessions[0].abandon()  # as its watcher does, which notices the fork too
    assert sorted(closed) == sorted(session._connection.fileno() for session in sessions)
    assert set(inherited) == {session._connection for session in sessions}
    for session in sessions:
        session._connection.close()


def test_abandoning_a_closed_session_does_nothing(migrated_url: str) -> None:
    session = PostgresStore(migrated_url).connect()
    session.close()
    session.abandon()
    postgres_connection._inherited.remove(session._connection)


@pytest.mark.parametrize("listen", [True, False])
def test_a_closed_session_needs_no_garbage_collector(migrated_url: str, *, listen: bool) -> None:
    gc.disable()
    try:
        session = PostgresStore(migrated_url).connect(listen=listen)
        session.read()
        alive = weakref.ref(session)
        session.close()
        del session
        assert alive() is None
    finally:
        gc.enable()


# Errors and their next steps


def test_a_missing_migration_names_the_command(database_url: str) -> None:
    with session_of(database_url) as session:
        with pytest.raises(StoreError, match="run `maintenance migrate`") as caught:
            session.read()
        assert "LINE" not in str(caught.value)  # the library's own statement helps no one
        with pytest.raises(RegistrationError, match="instances cannot register: .*run `maintenance migrate`"):
            session.report(instance())


def test_a_host_that_never_answers_has_a_next_step() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        store = PostgresStore(f"postgresql://me@127.0.0.1:{silent.getsockname()[1]}/d")
        with pytest.raises(StoreError, match="check the host, the port and the firewall"):
            store.connect()


def test_an_unknown_user_has_a_next_step(migrated_url: str, session: PostgresSession, psql: Connection) -> None:
    psql.execute("CREATE TABLE public.users (id uuid PRIMARY KEY)")
    PostgresStore(migrated_url).migrate()
    with pytest.raises(StoreError, match="use an updated_by that is in public.users, or leave it out"):
        session.write(Change(enabled=True, details=Details(), updated_by=uuid4()))
    assert not snapshot(session).enabled


@pytest.fixture
def role(psql: Connection) -> Iterator[str]:
    """A role that may only read the tables of the migrated database."""
    name = f"reader_{uuid4().hex}"
    psql.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'hunter2'")
    psql.execute(f"GRANT SELECT ON public.platform_settings, public.maintenance_instances TO {name}")
    yield name
    psql.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")


@pytest.fixture
def poor_url(role: str, postgres: Server, migrated_url: str) -> str:
    return f"postgresql://{role}:hunter2@{postgres.host}:{postgres.port}/{migrated_url.rpartition('/')[2]}"


def test_each_missing_privilege_is_named(poor_url: str, role: str, psql: Connection) -> None:
    with session_of(poor_url) as session:
        with pytest.raises(StoreError, match="grant this role SELECT there, and INSERT and UPDATE too if it flips"):
            session.write(ON)
        with pytest.raises(RegistrationError, match="instances cannot register: .*permission denied"):
            session.report(instance())
        psql.execute(f"GRANT INSERT, UPDATE ON public.platform_settings TO {role}")
        with pytest.raises(StoreError, match="for sequence .*: grant this role USAGE on that sequence"):
            session.write(ON)
        assert not snapshot(session).enabled
        psql.execute("REVOKE ALL ON SCHEMA public FROM PUBLIC")
        with pytest.raises(StoreError, match="for schema public.*: grant this role USAGE there"):
            session.read()


def test_each_privilege_that_a_migration_lacks_is_named(poor_url: str, role: str, psql: Connection) -> None:
    psql.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    for grant, message in (
        ("USAGE ON SCHEMA public", "permission denied for table .*; only the tables' owner migrates"),
        (
            f"ALL ON ALL TABLES IN SCHEMA public TO {role}; GRANT ALL ON ALL SEQUENCES IN SCHEMA public",
            "grant this role USAGE there; to migrate, be the tables' owner, or have CREATE",
        ),
        ("CREATE ON SCHEMA public", "must be owner of .*: migrate as the tables' owner"),
    ):
        psql.execute(f"GRANT {grant} TO {role}")
        with pytest.raises(StoreError, match=message):
            PostgresStore(poor_url).migrate()


def test_a_role_that_is_read_only_has_a_next_step(poor_url: str, role: str, psql: Connection) -> None:
    psql.execute(f"ALTER ROLE {role} SET default_transaction_read_only = on")
    with session_of(poor_url) as session:
        with pytest.raises(StoreError, match="connect to the primary, or let this role write"):
            session.write(ON)
        assert not snapshot(session).enabled


@pytest.mark.parametrize("text", ["caf\udce9", "nul\0"])
def test_a_text_that_cannot_be_sent_is_a_store_error(session: PostgresSession, text: str) -> None:
    """Such as the name of a program that is not valid UTF-8."""
    with pytest.raises(RegistrationError, match="instances cannot register"):
        session.report(instance(program=text))
    session.report(found := instance())
    assert session.read(found.id).registered


def test_an_error_without_a_message_is_named(session: PostgresSession) -> None:
    with pytest.raises(StoreError, match="OSError"), session._wrapped():
        raise OSError


# Durability


@pytest.fixture
def levels(psql: Connection) -> Callable[[], list[str]]:
    """How durably each change of either table was committed since the last call; the server's setting is ``off``."""
    psql.execute("CREATE TABLE seen (nr serial, level text)")
    psql.execute(
        "CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS "
        "'BEGIN INSERT INTO seen (level) VALUES (current_setting(''synchronous_commit'')); RETURN NULL; END'"
    )
    for table in ("platform_settings", "maintenance_instances"):
        psql.execute(
            f"CREATE TRIGGER z_look AFTER INSERT OR UPDATE OR DELETE ON {table} FOR EACH ROW EXECUTE FUNCTION look()"
        )

    def since() -> list[str]:
        rows = psql.execute("WITH gone AS (DELETE FROM seen RETURNING *) SELECT level FROM gone ORDER BY nr")
        return [level for (level,) in rows]

    return since


@pytest.mark.parametrize("listen", [True, False])
def test_all_but_an_acknowledgement_is_committed_durably(
    migrated_url: str, levels: Callable[[], list[str]], *, listen: bool
) -> None:
    with session_of(migrated_url, listen=listen) as session:
        session.report(found := instance())
        assert levels() == ["on"]
        session.report(replace(found, revision=1, in_flight=0))
        assert levels() == ["off" if listen else "on"]  # a pooler keeps the session when the server has crashed
        session.report(found)
        session.write(ON)
        session.remove(found.id)
        assert levels() == ["on", "on", "on"]
        session.report(replace(found, revision=1))  # which registers it, because its row is gone
        assert levels() == ["on"]
        assert session.read(found.id).registered


def test_a_flip_in_psql_is_committed_durably_too(migrated_url: str, levels: Callable[[], list[str]]) -> None:
    with psycopg.connect(migrated_url, autocommit=True) as own:
        for level, flag in (("off", "true"), ("remote_apply", "false"), ("off", "true")):
            own.execute(f"SET synchronous_commit = {level}; UPDATE platform_settings SET value_bool = {flag}")
            assert own.execute("SHOW synchronous_commit").fetchone() == (level,)
    assert levels() == ["on", "remote_apply", "on"]


def test_a_role_that_asks_for_more_is_given_more(migrated_url: str, levels: Callable[[], list[str]]) -> None:
    with session_of(f"{migrated_url}?options=-c%20synchronous_commit%3Dremote_apply") as session:
        session.report(found := instance())
        session.report(replace(found, revision=1))
        session.write(ON)
    assert levels() == ["remote_apply", "off", "remote_apply"]


def test_without_a_kept_connection_a_process_holds_none_between_two_reads(migrated_url: str, psql: Connection) -> None:
    store = PostgresStore(migrated_url, keep_connection=False)
    others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"

    def count() -> int:
        return psql.execute(others).fetchall()[0][0]

    with closing(MaintenanceState(store, ttl=2.0)) as state, closing(operator(migrated_url)) as watching:
        state.start()
        for enabled in (True, False):
            eventually(lambda: watching.fleet().instances and count() == 0)
            flip(migrated_url, on=enabled)
            assert watching.prove(watching.refresh(), expect=1, timeout=10.0), "it follows within one TTL"
            assert state.enabled is enabled
        [one] = watching.fleet().instances
        assert one.revision == watching.refresh().revision
        entry = enter_request(state)
        flip(migrated_url, on=True)
        with ThreadPoolExecutor(1) as pool:
            proof = pool.submit(watching.prove, watching.refresh(), drain=True, timeout=30.0)
            eventually(lambda: state.lease.known.drains)
            eventually(lambda: count() == 2)  # the waiter, and the process that it waits for
            entry.clear()
            assert proof.result()
        eventually(lambda: count() == 0)


def test_a_read_looks_at_the_scopes_in_force_and_at_no_other(session: PostgresSession, psql: Connection) -> None:
    psql.execute(
        "INSERT INTO platform_settings (key, value_bool) "
        "SELECT 'maintenance_mode:' || n, n % 1000 = 0 FROM generate_series(1, 10000) AS n"
    )
    psql.execute("ANALYZE platform_settings")
    assert len(session.read().scopes or ()) == 10
    known = session.read().flags(Flags(site=Snapshot(enabled=False)), sent=0.0, received=0.0)
    for values, touched in ((None, 10), (known, 0)):
        asked = {"instance": None, **describe_caller(values)}
        read = postgres_session._SQL["read"]
        plan = "\n".join(line for (line,) in psql.execute(f"EXPLAIN (ANALYZE) {read}".encode(), asked))
        assert "Seq Scan on platform_settings " not in plan
        scans = re.findall(r"platform_settings_scopes.*?(?:\(actual [^)]*rows=(\d+)|never executed)", plan)
        assert [int(rows or 0) for rows in scans] == [touched], plan
