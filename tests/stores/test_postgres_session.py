"""One connection to PostgreSQL, where it goes wrong: poolers, lost connections, forks, and what the errors say."""

import collections
import datetime as dt
import gc
import json
import os
import re
import socket
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from typing import Any, LiteralString, Self
from urllib.parse import quote
from uuid import uuid4

import psycopg
import pytest
from psycopg.adapt import AdaptersMap
from psycopg.errors import ProtocolViolation
from psycopg.types.json import set_json_dumps, set_json_loads
from psycopg.types.string import StrDumper, TextLoader

from maintenance import ConfigurationError, MaintenanceState, StoreError
from maintenance.base.runtime import SocketWaker
from maintenance.base.values import Change, Details, Instance
from maintenance.errors import RegistrationError
from maintenance.stores import PostgresStore, postgres_session
from maintenance.stores.postgres_session import PostgresSession
from tests.support.ports import free_port
from tests.support.postgres import Server
from tests.support.waiting import eventually

ON = Change(enabled=True, details=Details())


def instance() -> Instance:
    return Instance(id=uuid4().hex, host="h", boot="b", pid=1, program="p", version="1", when_stale="serve", ttl=1.0)


@contextmanager
def session_of(url: str, **options: Any) -> Iterator[PostgresSession]:
    with closing(PostgresStore(url, **options).connect(listen=True)) as session:
        yield session


def end_backend(url: str, session: PostgresSession) -> None:
    pid = session._connection.info.backend_pid
    with psycopg.connect(url, autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(%s)", [pid])


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


def test_behind_a_pooler_it_polls(postgres: Server, migrated_url: str) -> None:
    with Pooler(postgres.port) as pooler:
        through = postgres.url(migrated_url.rpartition("/")[2], port=pooler.port)
        with session_of(through) as pooled, session_of(migrated_url) as direct:
            assert (pooled.listening, direct.listening) == (False, True)
            direct.write(ON)
            assert pooled.read().snapshot(read_at=0.0).enabled
            waker = SocketWaker()
            assert not pooled.wait(0.0, waker)
            waker.close()


def test_what_a_pooler_refuses_has_a_next_step_where_there_is_one() -> None:
    """Its own words, as `test_pgbouncer` hears them."""
    told = postgres_session._next_step(ProtocolViolation("transaction blocks not allowed in statement pooling mode"))
    assert told == ": pool by transaction, or go to the server's own address"
    assert postgres_session._next_step(ProtocolViolation("no such database: shop")) == ""


def test_listening_can_be_turned_off(migrated_url: str) -> None:
    with session_of(migrated_url, listen=False) as session:
        assert not session.listening


# The application's own psycopg


@pytest.fixture
def meddled() -> Iterator[None]:
    """An application that wants text for everything, on each connection of its process."""

    class Shout(StrDumper):
        def dump(self, obj: str) -> Any:
            return super().dump(obj.upper())

    kept = AdaptersMap(psycopg.adapters)
    for name in ("bool", "int4", "int8", "float8", "uuid", "timestamptz", "jsonb"):
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
def test_what_the_application_taught_psycopg_changes_nothing(migrated_url: str) -> None:
    change = Change(enabled=True, details=Details(message="Back at noon."), updated_by=uuid4())
    with session_of(migrated_url) as session:
        assert session.listening
        written = session.write(change)
        reported = replace(instance(), in_flight=2, oldest="GET /", oldest_age=1.5)
        session.report(reported)
        reading = session.read(reported.id)
        [found] = session.fleet().instances
    assert written == reading.row
    assert (written.value_bool, written.details, written.updated_by) == (
        True,
        change.details.to_json(),
        change.updated_by,
    )
    assert reading.registered
    assert reading.primary
    assert replace(found, silent_for=reported.silent_for) == reported


# Lost connections


def test_whatever_ends_the_connection_is_a_store_error_in_every_call(migrated_url: str) -> None:
    with session_of(migrated_url) as session:
        end_backend(migrated_url, session)
        waker = SocketWaker()
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
            with pytest.raises(StoreError, match="postgresql://") as caught:
                call()
            assert not isinstance(caught.value, RegistrationError)
        waker.close()


def test_a_wait_ends_when_the_server_ends_the_connection(migrated_url: str) -> None:
    with session_of(migrated_url) as session:
        waker, said = SocketWaker(), []

        def wait() -> None:
            try:
                session.wait(20.0, waker)
            except StoreError as exc:
                said.append(exc)

        waiting = threading.Thread(target=wait)
        waiting.start()
        end_backend(migrated_url, session)
        waiting.join(10)
        assert len(said) == 1
        waker.close()


def test_other_keys_of_the_same_table_end_no_wait(migrated_url: str) -> None:
    with session_of(migrated_url) as session, psycopg.connect(migrated_url, autocommit=True) as other:
        waker = SocketWaker()
        other.execute("INSERT INTO platform_settings (key) VALUES ('something_else')")
        other.execute("NOTIFY platform_settings, 'something_else'")
        assert not session.wait(0.3, waker)
        waker.close()


def test_a_statement_that_takes_too_long_is_ended_by_the_server(migrated_url: str) -> None:
    with session_of(migrated_url, statement_timeout=0.2) as session, psycopg.connect(migrated_url) as holder:
        holder.execute("LOCK TABLE platform_settings")
        with pytest.raises(StoreError, match="statement timeout: another transaction may hold the row, or"):
            session.read()
        holder.rollback()
        assert session._connection.info.transaction_status == 0  # and the connection is good


def test_where_nothing_can_be_listened_to_the_flag_is_read_all_the_same(
    migrated_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_session, "_FOLLOW", "LISTEN {channel}; SELECT 1 / 0")
    with session_of(migrated_url) as session, session_of(migrated_url) as other:
        assert not session.listening
        other.write(Change(enabled=True, details=Details()))
        assert session.read().snapshot(read_at=0.0).enabled


def test_a_connection_that_is_lost_while_it_begins_to_listen_is_closed(
    migrated_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_session, "_FOLLOW", "SELECT pg_terminate_backend(pg_backend_pid())")
    with pytest.raises(StoreError, match="terminating connection"):
        PostgresStore(migrated_url).connect(listen=True)


def test_a_connection_that_fails_while_it_is_made_is_closed(migrated_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[PostgresSession] = []

    def fail(self: PostgresSession) -> bool:
        made.append(self)
        end_backend(migrated_url, self)
        self.read()
        raise AssertionError("the connection was ended")

    monkeypatch.setattr(PostgresSession, "_try_listen", fail)
    with pytest.raises(StoreError):
        PostgresStore(migrated_url).connect(listen=True)
    assert made[0]._connection.closed


@pytest.fixture
def setting(migrated_url: str, request: pytest.FixtureRequest) -> str:
    """The URL of a database whose sessions begin with a setting."""
    name, value = request.param
    with psycopg.connect(migrated_url, autocommit=True) as other:
        other.execute(f"ALTER DATABASE {migrated_url.rpartition('/')[2]} SET {name} = '{value}'")
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
    ],
    indirect=True,
)
def test_whatever_the_database_is_set_to_it_is_read_and_written(setting: str) -> None:
    with session_of(setting) as session:
        written = session.write(Change(enabled=True, details=Details(message="a\\b'c")))
        read = session.read()
        assert read.row == written
        assert read.snapshot(read_at=0.0).message == "a\\b'c"
        assert written.updated_at
        assert abs(written.updated_at.timestamp() - time.time()) < 60
        session.report(replace(instance(), revision=1))
        assert session.fleet().instances[0].silent_for < 60


@pytest.mark.parametrize("setting", [("extra_float_digits", "-15")], indirect=True)
def test_a_ttl_is_read_as_it_is_whatever_the_digits(setting: str) -> None:
    """A shorter one would have a wait take a lease for over."""
    with session_of(setting) as session:
        session.report(replace(instance(), ttl=14.4))
        assert [one.ttl for one in session.fleet().instances] == [14.4]


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_an_older_encoding_keeps_the_message_and_whoever_serves(
    encoding: str, postgres: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"old_{encoding.lower()}"
    monkeypatch.setattr("sys.argv", ["/srv/лавка"])
    with psycopg.connect(postgres.url(), autocommit=True) as other:
        other.execute(f"CREATE DATABASE {name} ENCODING '{encoding}' TEMPLATE template0")
        try:
            store = PostgresStore(postgres.url(name))
            store.migrate()
            with closing(MaintenanceState(store, when_stale="block")) as state:
                state.set(True, message="Zurück um zwölf.")
                assert state.wait_for_answer().snapshot.message == "Zurück um zwölf."
                [one] = state.fleet().instances
                assert one.program == "\\u043b\\u0430\\u0432\\u043a\\u0430"
        finally:
            other.execute(f"DROP DATABASE {name} WITH (FORCE)")


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


@pytest.mark.parametrize(
    "details",
    ["repeat('[', 3000) || repeat(']', 3000)", """'{"retry_after": 1' || repeat('0', 5000) || '}'"""],
    ids=["too deep", "too long a number"],
)
def test_details_that_python_cannot_read_are_a_wrong_row(migrated_url: str, details: LiteralString) -> None:
    with psycopg.connect(migrated_url, autocommit=True) as other:
        other.execute(f"UPDATE platform_settings SET details = ({details})::jsonb")
    with closing(MaintenanceState(migrated_url, register=False)) as state:
        assert state.prime().source == "default"
        assert "platform_settings.details of 'maintenance_mode' is wrong" in (state.status().last_error or "")
        assert state.set(True).enabled
        assert state.refresh().enabled


@pytest.mark.parametrize(
    "time", ["2026-11-22 01:02:03.123457+00", "1999-12-31 23:59:59.999999+00", "9999-12-31 23:59:59+00"]
)
def test_a_time_is_read_to_the_microsecond(migrated_url: str, time: str) -> None:
    with session_of(migrated_url) as session, psycopg.connect(migrated_url, autocommit=True) as other:
        other.execute("UPDATE platform_settings SET updated_at = %s", [time])
        assert session.read().snapshot(read_at=0.0).updated_at == dt.datetime.fromisoformat(time)


def test_a_time_that_python_has_not_is_a_wrong_row(migrated_url: str) -> None:
    with session_of(migrated_url) as session, psycopg.connect(migrated_url, autocommit=True) as other:
        other.execute("UPDATE platform_settings SET updated_at = 'infinity'")
        with pytest.raises(StoreError, match="updated_at of 'maintenance_mode' is wrong.*set it to now"):
            session.read()
        assert session.write(ON).updated_at


# Forks


def test_abandoning_closes_the_descriptors_and_says_nothing(migrated_url: str) -> None:
    session = PostgresStore(migrated_url).connect()
    descriptor = session._connection.fileno()
    placeholder = os.open(os.devnull, os.O_RDONLY)
    session.abandon()
    os.dup2(placeholder, descriptor)  # so that nobody else gets the number that the connection still holds
    try:
        assert not session._connection.closed  # never told, so that nothing is sent
        assert session._connection in postgres_session._inherited
        pid = session._connection.info.backend_pid
        with psycopg.connect(migrated_url, autocommit=True) as other:
            eventually(
                lambda: not other.execute("SELECT 1 FROM pg_stat_activity WHERE pid = %s", [pid]).fetchall(),
                what="the server's end of the connection",
            )
    finally:
        postgres_session._inherited.remove(session._connection)
        session._connection.close()
        os.close(placeholder)


def test_a_fork_abandons_every_connection_once(migrated_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    connections: weakref.WeakSet[Any] = weakref.WeakSet()
    monkeypatch.setattr(postgres_session, "_connections", connections)
    monkeypatch.setattr(postgres_session, "_inherited", inherited := [])
    closed: list[int] = []
    sessions = [PostgresStore(migrated_url).connect() for _ in range(2)]
    assert len(connections) == 2
    with monkeypatch.context() as patch:
        patch.setattr(os, "close", closed.append)
        postgres_session._forked()
        sessions[0].abandon()  # its refresher's, told of the fork too
    assert sorted(closed) == sorted(session._connection.fileno() for session in sessions)
    assert set(inherited) == {session._connection for session in sessions}
    for session in sessions:
        session._connection.close()


def test_abandoning_what_is_closed_is_nothing(migrated_url: str) -> None:
    session = PostgresStore(migrated_url).connect()
    session.close()
    session.abandon()
    postgres_session._inherited.remove(session._connection)


# What the errors say


def test_a_missing_migration_says_what_to_run(database_url: str) -> None:
    with session_of(database_url) as session:
        with pytest.raises(StoreError, match="run `maintenance migrate`") as caught:
            session.read()
        assert "LINE" not in str(caught.value)  # the library's own statement helps nobody
        with pytest.raises(RegistrationError, match="instances cannot register: .*run `maintenance migrate`"):
            session.report(instance())


def test_a_host_that_never_answers_says_where_to_look() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        store = PostgresStore(f"postgresql://me@127.0.0.1:{silent.getsockname()[1]}/d")
        with pytest.raises(StoreError, match="nobody answers there: look at the host, the port and the firewall"):
            store.connect()


def test_a_user_who_is_not_there_says_so(migrated_url: str) -> None:
    with psycopg.connect(migrated_url, autocommit=True) as other:
        other.execute("CREATE TABLE public.users (id uuid PRIMARY KEY)")
    PostgresStore(migrated_url).migrate()
    with session_of(migrated_url) as session:
        with pytest.raises(StoreError, match="write an updated_by that is in public.users, or leave it out"):
            session.write(Change(enabled=True, details=Details(), updated_by=uuid4()))
        assert not session.read().snapshot(read_at=0.0).enabled


@pytest.fixture
def poor_url(postgres: Server, migrated_url: str) -> Iterator[str]:
    """The migrated database, for a role that may only read there."""
    role = f"reader_{uuid4().hex}"
    with psycopg.connect(migrated_url, autocommit=True) as owner:
        owner.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'hunter2'")
        owner.execute(f"GRANT SELECT ON public.platform_settings, public.maintenance_instances TO {role}")
        yield f"postgresql://{role}:hunter2@{postgres.host}:{postgres.port}/{migrated_url.rpartition('/')[2]}"
        owner.execute(f"DROP OWNED BY {role}")
        owner.execute(f"DROP ROLE {role}")


def test_a_role_that_may_not_write_says_what_to_grant(migrated_url: str, poor_url: str) -> None:
    with session_of(poor_url) as session:
        with pytest.raises(StoreError, match="grant this role SELECT there, and INSERT and UPDATE too where it flips"):
            session.write(ON)
        with pytest.raises(RegistrationError, match="instances cannot register: .*permission denied"):
            session.report(instance())
        with psycopg.connect(migrated_url, autocommit=True) as owner:
            owner.execute(f"GRANT INSERT, UPDATE ON public.platform_settings TO {session._connection.info.user}")
        with pytest.raises(StoreError, match="for sequence .*: grant this role USAGE on that sequence"):
            session.write(ON)
        assert not session.read().snapshot(read_at=0.0).enabled


def test_a_role_that_may_not_enter_the_schema_says_what_to_grant(migrated_url: str, poor_url: str) -> None:
    with psycopg.connect(migrated_url, autocommit=True) as owner, session_of(poor_url) as session:
        owner.execute("REVOKE ALL ON SCHEMA public FROM PUBLIC")
        with pytest.raises(StoreError, match="for schema public.*: grant this role USAGE there"):
            session.read()


def test_a_role_that_may_not_migrate_says_what_to_grant(migrated_url: str, poor_url: str) -> None:
    role = poor_url.partition("://")[2].partition(":")[0]
    with psycopg.connect(migrated_url, autocommit=True) as owner:
        owner.execute(f"REVOKE CREATE ON SCHEMA public FROM PUBLIC; GRANT USAGE ON SCHEMA public TO {role}")
        with pytest.raises(
            StoreError, match="grant this role USAGE there; to migrate, be the tables' owner, or have CREATE"
        ):
            PostgresStore(poor_url).migrate()
        owner.execute(f"GRANT CREATE ON SCHEMA public TO {role}")
        with pytest.raises(StoreError, match="permission denied for table .*; only the tables' owner migrates"):
            PostgresStore(poor_url).migrate()
        owner.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}")
        owner.execute(f"GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {role}")
        with pytest.raises(StoreError, match="must be owner of .*: migrate as the tables' owner"):
            PostgresStore(poor_url).migrate()


def test_a_role_that_only_reads_says_where_to_write(migrated_url: str, poor_url: str) -> None:
    role = poor_url.partition("://")[2].partition(":")[0]
    with psycopg.connect(migrated_url, autocommit=True) as owner:
        owner.execute(f"ALTER ROLE {role} SET default_transaction_read_only = on")
    with session_of(poor_url) as session:
        with pytest.raises(StoreError, match="connect to the primary, or let this role write"):
            session.write(ON)
        assert not session.read().snapshot(read_at=0.0).enabled


def test_the_handle_that_ends_a_wait_is_made_as_sockets_are(migrated_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On Windows a socket's number is no file's, so that `os.dup` fails."""

    def fail(_: int) -> int:
        raise OSError("Bad file descriptor")

    monkeypatch.setattr(os, "dup", fail)
    with (
        session_of(migrated_url) as session,
        pytest.raises(StoreError, match="no answer within 0 s"),
        session.within(0.0),
    ):
        session.read()


@pytest.mark.parametrize(
    ("password", "says"),
    [
        ("hunter2", 'invalid input syntax for type integer: "\\*\\*\\*"'),
        ("hun  ter2", '"\\*\\*\\*"'),  # two spaces
        ("e", r"nowhere: InvalidTextRepresentation 22P02 \(in words that are not shown"),
        ("typ", r"nowhere: InvalidTextRepresentation 22P02 \(in words that are not shown"),
    ],
)
def test_what_the_server_quotes_never_shows_the_password(migrated_url: str, password: str, says: str) -> None:
    with session_of(migrated_url) as session:
        session._name, session._secrets = "nowhere", [password]
        with pytest.raises(StoreError, match=says) as caught, session._wrapped():
            session._connection.execute(f"SELECT '{password}'::int")  # an error that quotes what it was given
        assert f'"{password}"' not in str(caught.value)
        assert "ter2" not in str(caught.value)


def test_a_short_password_changes_no_other_word(migrated_url: str) -> None:
    with session_of(migrated_url) as session:
        end_backend(migrated_url, session)
        session._secrets = ["qq"]
        with pytest.raises(StoreError, match="terminating connection"):
            session.read()


@pytest.mark.parametrize("text", ["caf\udce9", "nul\0"])
def test_a_text_that_cannot_be_sent_is_a_store_error(migrated_url: str, text: str) -> None:
    """Such as the name of a program that is not valid UTF-8."""
    with session_of(migrated_url) as session:
        with pytest.raises(RegistrationError, match="instances cannot register"):
            session.report(replace(instance(), program=text))
        session.report(found := instance())
        assert session.read(found.id).registered


def test_a_write_that_fails_leaves_the_session_good(migrated_url: str) -> None:
    with session_of(migrated_url, statement_timeout=0.2) as session:
        with psycopg.connect(migrated_url) as holder:
            holder.execute("SELECT FROM platform_settings FOR UPDATE")
            with pytest.raises(StoreError, match="statement timeout"):
                session.write(ON)
        with psycopg.connect(migrated_url, autocommit=True) as other:
            other.execute("CREATE RULE never AS ON UPDATE TO platform_settings DO INSTEAD SELECT 1")
            with pytest.raises(StoreError):
                session.write(ON)
            other.execute("DROP RULE never ON platform_settings")
        assert session._connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
        assert session.write(ON).value_bool
        assert session.read().snapshot(read_at=0.0).enabled


def test_the_flag_is_read_while_somebody_locks_the_instances(migrated_url: str) -> None:
    with session_of(migrated_url) as session:
        session.write(ON)
        session.report(found := instance())
        with psycopg.connect(migrated_url) as holder:
            holder.execute("LOCK TABLE maintenance_instances")
            reading = session.read(found.id)
            assert (reading.snapshot(read_at=0.0).enabled, reading.registered) == (True, False)
        assert session.read(found.id).registered


def test_a_write_that_a_trigger_swallows_is_told(migrated_url: str) -> None:
    with session_of(migrated_url) as session, psycopg.connect(migrated_url, autocommit=True) as other:
        other.execute("CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'")
        other.execute("CREATE TRIGGER a BEFORE UPDATE ON platform_settings FOR EACH ROW EXECUTE FUNCTION swallow()")
        with pytest.raises(StoreError, match="the row was not written: look for a trigger"):
            session.write(ON)
        assert not session.read().snapshot(read_at=0.0).enabled


def test_an_error_without_words_is_named(migrated_url: str) -> None:
    with session_of(migrated_url) as session, pytest.raises(StoreError, match="OSError"), session._wrapped():
        raise OSError


# URLs


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("postgresql://me:hunter2@h@x/d", "more than one @: write %40 for each @ in user and password"),
        ("postgresql://me:p@hunter2@h/d", "more than one @"),
        ("postgresql://me:p@hun/ter2@h/d", "more than one @"),
        ("postgresql://me:hun/ter2@h/d", "write %2F for each /"),
        ("postgresql://me:1/hunter2@h/d", "write %2F for each /"),
        ("postgresql://me:hun?ter2@h/d", r"write %3F for each \?"),
        ("postgresql://me:1?dbname=hunter2@h/d", r"write %3F for each \?"),
        ("postgresql://me:hunter2#x@h/d", "write %23 for each #"),
        ("postgresql://h/d?password=hunter2#x", "write %23 for each #"),
        ("postgresql://h/d?password=hun@ter2", "%40 for each @ after the host"),
        ("postgresql://me:hunter2", "the port a number"),
        ("postgresql://me:hunter2@[::1/d", r"\[ and \] around an IPv6 address"),
        ("postgresql://me:hunter2[/d", r"\[ and \] around an IPv6 address"),
        ("postgresql://me:%zzhunter2@h/d", "cannot be parsed: write postgresql://user@host:port/database"),
        ("postgresql://h/d?password=%zzhunter2", "cannot be parsed"),
        ("postgresql://h/d?password=hun=ter2", "cannot be parsed"),
        ("postgresql://h/d?password=hun&ter2", "that libpq does not know: .* write %26 for each &"),
        ("postgresql://h/d?hunter2=1", "that libpq does not know: leave out what is not libpq's own"),
        ("postgresql://me:hunter2\0@h/d", "holds a NUL character"),
        ("postgresql://me:hunter2@h:65536/d", "holds a wrong port: write a whole number from 1 to 65535"),
        ("postgresql://me:hunter2@h,h:0/d", "holds a wrong port"),
        ("postgresql://me:hunter2@h/d?connect_timeout=2s", "holds a wrong connect_timeout: write a whole number"),
        ("postgresql://h/d?sslmod=require", r"a parameter that libpq does not know: did you mean sslmode\?"),
        ("postgresql://h/d?password=hun&ter2&conect_timeout=3", r"did you mean connect_timeout\?"),
        ("http://me:hunter2@h/d", "not PostgreSQL's: write postgresql://"),
    ],
)
def test_a_wrong_url_is_refused_with_what_to_write_and_without_its_password(url: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says) as caught:
        PostgresStore(url)
    assert pieces_in(caught.value) == []


def pieces_in(exc: BaseException | None, *texts: str) -> list[str]:
    """The texts that hold a piece of the password: those given, and the whole chain of errors, shown or not."""
    chain: list[BaseException] = []
    todo = [exc]
    while todo:
        if (found := todo.pop()) and found not in chain:
            chain.append(found)
            todo += [found.__cause__, found.__context__]
    return [text for text in (*texts, *map(repr, chain), *map(str, chain)) if re.search("hun|ter2", text)]


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:hunter2@127.0.0.1:1/d",
        "postgresql://me:hun%2Fter2@127.0.0.1:1/d",
        "postgresql://me:hun%40ter2%23@127.0.0.1:1/d",
        "postgresql://me:hun:ter2@127.0.0.1:1/d",
        "postgresql://me:hunter2\u2100@127.0.0.1:1/d",
        "postgresql://me:hunter2@[::1]:1,127.0.0.1:1/d",
        "postgresql://me:hunter2@/d?host=/nowhere/at/all",
        "postgresql://127.0.0.1:1/d?user=me&password=hunter2",
        "postgresql://127.0.0.1:1/d?user=me&password=hun%40ter2/x",
        "postgresql://127.0.0.1:1/d?user=me&sslpassword=hunter2",
    ],
)
def test_a_password_is_in_no_name_no_error_and_no_status(url: str) -> None:
    store = PostgresStore(url)
    with closing(MaintenanceState(store, register=False)) as state:
        with pytest.raises(StoreError) as caught:
            state.refresh()
        assert pieces_in(caught.value, store.name, repr(store), str(state.status()), repr(state)) == []


@pytest.mark.parametrize("wrong", [0, -1.0, float("inf"), float("nan")])
def test_a_wrong_timeout_is_refused(wrong: float) -> None:
    with pytest.raises(ConfigurationError, match="statement_timeout is .*: write seconds above 0"):
        PostgresStore("postgresql://h/d", statement_timeout=wrong)


def test_several_hosts_mean_the_primary_and_what_is_said_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    assert postgres_session.conninfo("postgresql://a,b/d")["target_session_attrs"] == "read-write"
    assert postgres_session.conninfo("postgresql://a,b/d?target_session_attrs=any")["target_session_attrs"] == "any"
    assert "target_session_attrs" not in postgres_session.conninfo("postgresql://a/d")
    assert postgres_session.conninfo("postgresql:///d?hostaddr=1.1.1.1,1.1.1.2")["target_session_attrs"] == "read-write"
    monkeypatch.setenv("PGHOST", "a,b")
    assert postgres_session.conninfo("postgresql:///d")["target_session_attrs"] == "read-write"
    assert "target_session_attrs" not in postgres_session.conninfo("postgresql://a/d")
    monkeypatch.setenv("PGTARGETSESSIONATTRS", "primary")
    assert "target_session_attrs" not in postgres_session.conninfo("postgresql:///d")
    for said in ("9", "+9", "9.5", " 9", "-1"):
        url = f"postgresql://a/d?connect_timeout={quote(said)}"
        assert postgres_session.conninfo(url)["connect_timeout"] == said


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("postgresql://me:hunter2@h:5433/d", "postgresql://me@h:5433/d"),
        ("postgres:///d?host=/tmp", "postgresql:///tmp/d"),
        ("postgresql://h", "postgresql://h/"),
        ("postgresql://me:hunter2@a:1,b:2/d", "postgresql://me@a:1,b:2/d"),
        ("postgresql://a,b/d?port=5433", "postgresql://a:5433,b:5433/d"),
        ("postgresql://a,b:5433/d", "postgresql://a,b:5433/d"),
        ("postgresql://me@[::1]:5433/d", "postgresql://me@[::1]:5433/d"),
    ],
)
def test_the_name_is_the_url_without_its_password(url: str, name: str) -> None:
    assert PostgresStore(url).name == name


def test_without_libpq_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "maintenance.stores.postgres_session")
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ConfigurationError, match=r"install libpq, or write pip install 'maintenance\[standard\]'"):
        PostgresStore("postgresql://h/d")


def test_an_error_needs_no_password_to_hide() -> None:
    with pytest.raises(StoreError, match="postgresql://me@127.0.0.1:1/nowhere: "):
        PostgresStore("postgresql://me@127.0.0.1:1/nowhere").connect()


def test_a_standby_that_refuses_to_listen_is_polled(migrated_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # A real one is asked in test_database_faults.py, by a thread of the library's own.
    def refuse(*_: Any, **__: Any) -> Any:
        raise StoreError("refused") from psycopg.errors.ReadOnlySqlTransaction("cannot execute LISTEN during recovery")

    with session_of(migrated_url) as session:
        monkeypatch.setattr(session, "_run", refuse)
        assert not session._try_listen()


# What is durable


@pytest.fixture
def levels(migrated_url: str) -> Iterator[Callable[[], list[str]]]:
    """How durably each change of either table was committed since the last call; the server's setting is ``off``."""
    with psycopg.connect(migrated_url, autocommit=True) as other:
        other.execute("CREATE TABLE seen (nr serial, level text)")
        other.execute(
            "CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS "
            "'BEGIN INSERT INTO seen (level) VALUES (current_setting(''synchronous_commit'')); RETURN NULL; END'"
        )
        for table in ("platform_settings", "maintenance_instances"):
            other.execute(
                f"CREATE TRIGGER z_look AFTER INSERT OR UPDATE OR DELETE ON {table} "
                "FOR EACH ROW EXECUTE FUNCTION look()"
            )

        def since() -> list[str]:
            rows = other.execute("WITH gone AS (DELETE FROM seen RETURNING *) SELECT level FROM gone ORDER BY nr")
            return [level for (level,) in rows]

        yield since


@pytest.mark.parametrize("listen", [True, False])
def test_all_but_what_a_row_says_is_committed_durably(
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
        session.report(replace(found, revision=1))  # and registers it, because its row is gone
        assert levels() == ["on"]
        assert session.read(found.id).registered


def test_a_flip_in_psql_is_committed_durably_too(migrated_url: str, levels: Callable[[], list[str]]) -> None:
    with psycopg.connect(migrated_url, autocommit=True) as psql:
        psql.execute("UPDATE platform_settings SET value_bool = true")
        psql.execute("SET synchronous_commit = remote_apply")
        psql.execute("UPDATE platform_settings SET value_bool = false")
        assert psql.execute("SHOW synchronous_commit").fetchone() == ("remote_apply",)
        psql.execute("SET synchronous_commit = off")
        psql.execute("UPDATE platform_settings SET value_bool = true")
        assert psql.execute("SHOW synchronous_commit").fetchone() == ("off",)
    assert levels() == ["on", "remote_apply", "on"]


def test_a_role_that_asks_for_more_is_given_more(migrated_url: str, levels: Callable[[], list[str]]) -> None:
    more = f"{migrated_url}?options=-c%20synchronous_commit%3Dremote_apply"
    with session_of(more) as session:
        session.report(found := instance())
        session.report(replace(found, revision=1))
        session.write(ON)
    assert levels() == ["remote_apply", "off", "remote_apply"]


# A session that follows


def test_a_session_that_listens_prepares_what_a_whole_fleet_asks_at_once(migrated_url: str) -> None:
    with session_of(migrated_url) as session, session_of(migrated_url, listen=False) as polling:
        for one in (session, polling):
            one.report(found := instance())
            one.report(replace(found, revision=1))
            assert one.read(found.id).registered
        kept = [one._run("SELECT count(*) FROM pg_prepared_statements")[0][0] for one in (session, polling)]
        assert kept == [2, 0]


def test_what_is_prepared_outlives_a_migration(migrated_url: str) -> None:
    with session_of(migrated_url) as session, psycopg.connect(migrated_url, autocommit=True) as other:
        session.report(found := instance())
        assert session.read(found.id).registered
        other.execute("ALTER TABLE platform_settings ADD COLUMN extra text")
        other.execute("DROP TABLE maintenance_instances")
        with pytest.raises(StoreError, match="maintenance migrate"):
            session.read(found.id)
        PostgresStore(migrated_url).migrate()
        assert not session.read(found.id).registered
        session.report(replace(found, revision=1))
        assert session.read(found.id).registered


def test_a_session_that_listens_bounds_each_statement_too(migrated_url: str) -> None:
    with session_of(migrated_url, statement_timeout=0.3) as session, psycopg.connect(migrated_url) as holder:
        holder.execute("LOCK TABLE platform_settings")
        with pytest.raises(StoreError, match="lock timeout"):
            session.read()
        with pytest.raises(StoreError, match="statement timeout"):
            session._follow("SELECT pg_sleep(%(seconds)s)", {"seconds": 5})


def test_what_arrives_during_a_query_ends_the_next_wait(migrated_url: str) -> None:
    waker = SocketWaker()
    with closing(waker), session_of(migrated_url) as session, session_of(migrated_url) as other:
        assert not session.wait(0.0, waker)
        other.write(ON)
        assert session.read().snapshot(read_at=0.0).enabled  # and with its answer comes the notification
        assert session.wait(5.0, waker)
        assert not session.wait(0.0, waker)


def test_a_block_that_takes_too_long_fails_and_so_does_what_follows_it(own_server: Server) -> None:
    store = PostgresStore(own_server.url(), statement_timeout=60.0)
    store.migrate()
    for call in (lambda it: it.read(), lambda it: it.write(ON), lambda it: it.report(instance())):
        with closing(store.connect(listen=True)) as session:
            own_server.freeze()
            begun = time.monotonic()
            with pytest.raises(StoreError, match=r"no answer within 0\.2 s: look whether"), session.within(0.2):
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

        wait_for("one_that_is_gone")
        told = r"no answer within 0\.5 s: .*; whether it was committed `maintenance status` tells"
        with pytest.raises(StoreError, match=told), session.within(0.5):
            session.write(ON)
        with session_of(own_server.url()) as later:
            assert not later.read().snapshot(read_at=0.0).enabled
            wait_for("")
            eventually(lambda: later.read().snapshot(read_at=0.0).enabled, what="the commit that nobody waits for")


def test_a_block_that_ends_in_time_bounds_nothing_after_it(migrated_url: str) -> None:
    with session_of(migrated_url) as session:
        with session.within(0.2):
            session.read()
        assert session._run("SELECT 1 FROM pg_sleep(0.4)") == [(1,)]


def test_a_block_ends_also_where_each_statement_is_fast(migrated_url: str) -> None:
    begun = time.monotonic()
    with session_of(migrated_url) as session, pytest.raises(StoreError), session.within(0.3):
        collections.deque(iter(session.read, None), maxlen=0)
    assert time.monotonic() - begun < 3.0


def test_who_leaves_waits_for_a_lock_as_long_as_a_statement_may(migrated_url: str) -> None:
    with session_of(migrated_url) as session, psycopg.connect(migrated_url) as holder:
        session.report(found := instance())
        holder.execute("LOCK TABLE maintenance_instances")
        threading.Timer(0.5, holder.rollback).start()
        assert session.remove(found.id)


def test_a_key_that_is_there_twice_is_read_all_the_same(migrated_url: str) -> None:
    with session_of(migrated_url) as session, psycopg.connect(migrated_url, autocommit=True) as other:
        other.execute("ALTER TABLE platform_settings DROP CONSTRAINT platform_settings_key_key")
        other.execute("INSERT INTO platform_settings (key, value_bool) SELECT key, value_bool FROM platform_settings")
        assert not session.read().snapshot(read_at=0.0).enabled


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
