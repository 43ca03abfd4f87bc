"""One contract, kept by every store: the same tests over PostgreSQL, SQLite and memory."""

import datetime as dt
import os
import signal
import sqlite3
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from importlib.util import find_spec, module_from_spec
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit
from uuid import UUID, uuid4

import psycopg
import pytest

from maintenance.base.runtime import SocketWaker
from maintenance.base.values import KEY, SENTINEL, Change, Details, Instance, Row
from maintenance.errors import ConfigurationError, RegistrationError, StoreError
from maintenance.stores import MemoryStore, PostgresStore, Session, SQLiteStore, Store, open_store, sqlite_session
from tests.support.waiting import eventually

ON = Change(enabled=True, details=Details())
OFF = Change(enabled=False, details=Details())
EVERYTHING = Details(
    mode="read_only",
    message='Zurück um 5 — 维护中 🛠 "quoted"\n\\',
    until=dt.datetime(2031, 5, 1, 12, 30, 15, 250_000, tzinfo=dt.timezone(dt.timedelta(hours=2))),
    retry_after=120,
    actor="Zoë",
    reason="l'index; DROP TABLE --",
)
LONG = 10.0
"""Seconds that a wait is given which something else shall end; far above what that takes."""


@pytest.fixture
def session(store: Store) -> Iterator[Session]:
    with closing(store.connect(listen=True)) as opened:
        yield opened


@pytest.fixture
def other(store: Store) -> Iterator[Session]:
    """Another session of the same store, as another process has."""
    with closing(store.connect()) as opened:
        yield opened


@pytest.fixture
def waker() -> Iterator[SocketWaker]:
    with closing(SocketWaker()) as opened:
        yield opened


def instance(**changed: Any) -> Instance:
    """A whole report of one process."""
    told = {"id": uuid4().hex, "host": "web-1", "boot": "b/1", "pid": 17, "program": "gunicorn", "version": "1.0"}
    return Instance(**{**told, "when_stale": "block", "ttl": 10.0, **changed})


def path_of(url: str) -> str:
    return unquote(url.removeprefix("sqlite:///"))


def run_sql(url: str, sql: str) -> None:
    """Do what an operator does in psql or in the sqlite3 shell."""
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(path_of(url), timeout=5.0, isolation_level=None)) as connection:
            connection.execute(sql)
    else:
        with closing(psycopg.connect(url, autocommit=True)) as connection:
            connection.execute(sql)


class ByHand:
    """Somebody who writes the flag's row without the library."""

    def __init__(self, store: Store, url: str | None) -> None:
        self._store = store
        self._url = url

    def remove_row(self) -> None:
        if isinstance(self._store, MemoryStore):
            self._store.row = None
        else:
            self._sql(f"DELETE FROM platform_settings WHERE key = '{KEY}'")

    def spoil_row(self) -> None:
        if isinstance(self._store, MemoryStore):
            self._store.row = Row(None, {}, 1)
        else:
            self._sql(f"UPDATE platform_settings SET value_bool = NULL WHERE key = '{KEY}'")

    def spoil_details(self) -> None:
        if isinstance(self._store, MemoryStore):
            self._store.row = Row(True, {"retry_after": "soon"}, 1)
        else:
            self._sql(f"""UPDATE platform_settings SET details = '{{"retry_after": "soon"}}' WHERE key = '{KEY}'""")

    def _sql(self, sql: str) -> None:
        assert self._url is not None
        run_sql(self._url, sql)


@pytest.fixture
def by_hand(store: Store, request: pytest.FixtureRequest) -> ByHand:
    names: dict[type, str] = {PostgresStore: "migrated_url", SQLiteStore: "sqlite_url"}
    name = names.get(type(store))
    return ByHand(store, request.getfixturevalue(name) if name else None)


def test_what_is_a_store_can_be_asked(store: Store) -> None:
    assert isinstance(store, Store)
    assert not isinstance("memory://", Store)


def in_child(action: Callable[[], object]) -> int:
    """Fork, and run `action` in the child, which ends there; return its pid."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        action()
        status = 0
    except BaseException:  # noqa: BLE001 - nothing of the parent's may run in the child
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def succeeded(*pids: int) -> bool:
    """Wait for forked children; whether each one's action returned. One that hangs is ended, and has not."""
    return [_status(pid) for pid in pids] == [0] * len(pids)


def _status(pid: int) -> int:
    deadline = time.monotonic() + LONG
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return status
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            return os.waitpid(pid, 0)[1]
        time.sleep(0.005)


@contextmanager
def in_thread(action: Callable[[], object]) -> Iterator[list[BaseException | object]]:
    """Run `action` beside the block; what it returned or raised is in the list afterwards."""
    results: list[BaseException | object] = []

    def run() -> None:
        try:
            results.append(action())
        except BaseException as exc:  # noqa: BLE001 - the test looks at it
            results.append(exc)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield results
    finally:
        thread.join(LONG)
        assert not thread.is_alive()


def read(session: Session) -> Row:
    row = session.read().row
    assert row is not None
    return row


def revision(session: Session) -> int:
    return session.read().snapshot(read_at=0.0).revision


# The flag


def test_a_migrated_store_is_off(session: Session) -> None:
    snapshot = session.read().snapshot(read_at=3.5)
    assert (snapshot.enabled, snapshot.mode, snapshot.source, snapshot.read_at) == (False, "full", "store", 3.5)
    assert snapshot.revision > 0
    assert snapshot.updated_at is not None
    # Hours may pass: the template of the databases is migrated once, when the first test asks for one.
    assert abs(snapshot.updated_at - dt.datetime.now(dt.UTC)) < dt.timedelta(days=1)


def test_every_detail_comes_back_as_it_was_written(session: Session, other: Session) -> None:
    who = uuid4()
    written = session.write(Change(enabled=True, details=EVERYTHING, updated_by=who))
    assert written == read(session) == read(other)
    snapshot = written.snapshot(read_at=0.0)
    assert {name: getattr(snapshot, name) for name in Details.__slots__} == {
        name: getattr(EVERYTHING, name) for name in Details.__slots__
    }
    assert (snapshot.enabled, snapshot.updated_by) == (True, who)


def test_a_write_forgets_the_details_of_the_one_before(session: Session) -> None:
    session.write(Change(enabled=True, details=EVERYTHING, updated_by=uuid4()))
    row = session.write(OFF)
    assert (row.value_bool, Details.from_json(row.details), row.updated_by) == (False, Details(), None)


@pytest.mark.parametrize(
    "details",
    [
        Details(mode="read_only"),
        Details(message="m"),
        Details(until=dt.datetime(2030, 1, 1, tzinfo=dt.UTC)),
        Details(retry_after=1),
        Details(actor="a"),
        Details(reason="r"),
    ],
    ids=lambda details: next(iter(sorted(details.to_json().items()))),
)
def test_each_detail_is_a_new_revision(session: Session, details: Details) -> None:
    before = session.write(ON).snapshot(read_at=0.0)
    after = session.write(Change(enabled=True, details=details)).snapshot(read_at=0.0)
    assert after.revision > before.revision


def test_the_flag_is_a_new_revision(session: Session) -> None:
    first, second, third = (session.write(change).snapshot(read_at=0.0).revision for change in (ON, OFF, ON))
    assert first < second < third


def test_the_same_again_is_the_same_revision(session: Session) -> None:
    before = session.write(Change(enabled=True, details=EVERYTHING))
    who = uuid4()
    after = session.write(Change(enabled=True, details=EVERYTHING, updated_by=who))
    assert (after.revision, after.updated_by) == (before.revision, who)


def test_a_missing_row_is_told_and_a_write_makes_it_again(session: Session, by_hand: ByHand) -> None:
    before = session.write(ON).snapshot(read_at=0.0).revision
    by_hand.remove_row()
    with pytest.raises(StoreError, match="no row 'maintenance_mode'"):
        session.read().snapshot(read_at=0.0)
    assert session.write(ON).snapshot(read_at=0.0).revision > before
    assert session.read().snapshot(read_at=0.0).enabled is True


@pytest.mark.parametrize("spoil", [ByHand.spoil_row, ByHand.spoil_details])
def test_a_wrong_row_is_told_and_a_write_repairs_it(
    session: Session, by_hand: ByHand, spoil: Callable[[ByHand], None]
) -> None:
    before = session.write(ON).snapshot(read_at=0.0).revision
    spoil(by_hand)
    with pytest.raises(StoreError, match=r"value_bool|details"):
        session.read().snapshot(read_at=0.0)
    assert session.write(ON).snapshot(read_at=0.0).revision > before
    assert session.read().snapshot(read_at=0.0).enabled is True


def test_migrating_again_resets_nothing(store: Store, session: Session) -> None:
    row = session.write(Change(enabled=True, details=EVERYTHING))
    store.migrate()
    assert read(session) == row


# The same flag, written in SQL


@pytest.mark.parametrize(
    ("sql", "grows"),
    [
        ("UPDATE platform_settings SET value_bool = true", True),
        ("UPDATE platform_settings SET value_text = 'x'", True),
        ("""UPDATE platform_settings SET details = '{"message": "x"}'""", True),
        ("UPDATE platform_settings SET value_bool = false", False),
        ("UPDATE platform_settings SET description = 'x'", False),
        ("UPDATE platform_settings SET updated_by = '00000000-0000-0000-0000-00000000000a'", False),
    ],
)
def test_sql_is_a_flip_like_any_other(shared_url: str, sql: str, *, grows: bool) -> None:
    with closing(open_store(shared_url).connect()) as session:
        long_ago = dt.datetime(2001, 1, 1, tzinfo=dt.UTC)
        run_sql(shared_url, f"UPDATE platform_settings SET updated_at = '{long_ago}'")
        before = session.read().snapshot(read_at=0.0)
        assert before.updated_at == long_ago
        run_sql(shared_url, sql)
        after = session.read().snapshot(read_at=0.0)
    assert (after.revision > before.revision) is grows
    assert (after.updated_at != long_ago) is grows
    assert grows or after.revision == before.revision


def test_a_row_deleted_and_inserted_has_a_new_revision(shared_url: str) -> None:
    with closing(open_store(shared_url).connect()) as session:
        before = revision(session)
        run_sql(shared_url, "DELETE FROM platform_settings")
        run_sql(shared_url, f"INSERT INTO platform_settings (key, value_bool) VALUES ('{KEY}', false)")
        assert revision(session) > before


# A drain


def test_a_drain_is_asked_for_at_one_revision_only(session: Session, other: Session) -> None:
    asked = session.write(ON).snapshot(read_at=0.0).revision
    assert other.read().drain is False
    session.ask_drain(asked)
    assert (other.read().drain, other.fleet().reading.drain) == (True, True)
    assert revision(other) == asked
    session.write(OFF)
    assert other.read().drain is False


def test_a_drain_asked_for_too_late_is_not_asked_for(session: Session) -> None:
    late = session.write(ON).snapshot(read_at=0.0).revision
    session.write(OFF)
    session.ask_drain(late)
    assert session.read().drain is False


def test_a_missing_row_asks_for_no_drain(session: Session, by_hand: ByHand) -> None:
    by_hand.remove_row()
    reading = session.read()
    assert (reading.row, reading.drain) == (None, False)


# Instances


def test_a_report_comes_back_whole_and_the_next_one_replaces_it(session: Session, other: Session) -> None:
    first = instance()
    session.report(first)
    assert [replace(one, silent_for=0.0) for one in other.fleet().instances] == [first]
    told: dict[str, Any] = {
        "revision": 2**40,
        "in_flight": 3,
        "websockets": 2,
        "oldest": "GET /größe",
        "oldest_age": 1.5,
    }
    second = replace(first, **told)
    session.report(second)
    [found] = other.fleet().instances
    assert replace(found, silent_for=0.0) == second
    assert 0.0 <= found.silent_for < LONG


def test_silence_is_counted_from_the_last_report(session: Session) -> None:
    reported = instance()
    session.report(reported)
    eventually(lambda: session.fleet().instances[0].silent_for > 0.05)
    session.report(reported)
    assert session.fleet().instances[0].silent_for < 0.05


def test_a_read_says_whether_the_instance_is_registered(session: Session, other: Session) -> None:
    registered = instance()
    other.report(registered)
    assert session.read(registered.id).registered is True
    assert session.read(uuid4().hex).registered is False
    assert session.read().registered is False
    assert other.remove(registered.id) is True
    assert other.remove(registered.id) is False
    assert session.read(registered.id).registered is False


def test_the_fleet_is_ordered_and_sees_the_flag(session: Session) -> None:
    assert session.fleet().instances == ()
    told = [instance(host="b", pid=1), instance(host="a", pid=20), instance(host="a", pid=3)]
    for one in told:
        session.report(one)
    session.write(ON)
    fleet = session.fleet()
    assert [(one.host, one.pid) for one in fleet.instances] == [("a", 3), ("a", 20), ("b", 1)]
    assert fleet.reading.snapshot(read_at=0.0).enabled is True
    assert fleet.intact is True


def test_nobody_is_not_an_instance(session: Session) -> None:
    nobody = UUID(int=0).hex
    assert session.remove(nobody) is False
    assert session.fleet().intact is True


def test_a_fleet_without_a_flag_is_still_seen(session: Session, by_hand: ByHand) -> None:
    session.report(instance())
    by_hand.remove_row()
    fleet = session.fleet()
    assert (fleet.reading.row, len(fleet.instances), fleet.intact) == (None, 1, True)


def test_an_emptied_table_is_told_until_somebody_vouches(shared_url: str) -> None:
    store = open_store(shared_url)
    with closing(store.connect()) as session:
        session.report(instance())
        run_sql(shared_url, "DELETE FROM maintenance_instances")
        session.report(instance())
        assert session.fleet().intact is False
        store.migrate()
        assert session.fleet().intact is False
        session.report(SENTINEL)
        session.report(SENTINEL)
        assert (session.fleet().intact, len(session.fleet().instances)) == (True, 1)


def test_a_missing_table_of_instances_is_no_registration(shared_url: str) -> None:
    with closing(open_store(shared_url).connect()) as session:
        run_sql(shared_url, "DROP TABLE maintenance_instances")
        with pytest.raises(RegistrationError, match="maintenance migrate"):
            session.report(instance())


# Waiting


def test_a_wait_ends_when_another_session_writes(session: Session, other: Session, waker: SocketWaker) -> None:
    session.read()
    with in_thread(lambda: session.wait(LONG, waker)) as results:
        begun = time.monotonic()
        other.write(ON)
    assert results == [True]
    assert time.monotonic() - begun < LONG / 2
    assert session.read().snapshot(read_at=0.0).enabled is True


def test_a_wait_ends_at_once_where_the_change_came_before_it(
    session: Session, other: Session, waker: SocketWaker
) -> None:
    session.read()
    other.write(ON)
    begun = time.monotonic()
    assert session.wait(LONG, waker) is True
    assert time.monotonic() - begun < LONG / 2


def test_a_change_just_after_a_wait_ends_the_next_one(session: Session, other: Session, waker: SocketWaker) -> None:
    for change in (ON, OFF) * 5:
        with in_thread(lambda change=change: other.write(change)):  # type: ignore[misc]
            assert session.wait(LONG, waker) is True
        while session.read().snapshot(read_at=0.0).enabled is not change.enabled:
            assert session.wait(LONG, waker) is True


def test_a_wait_ends_when_a_drain_is_asked_for(session: Session, other: Session, waker: SocketWaker) -> None:
    asked = revision(session)
    with in_thread(lambda: session.wait(LONG, waker)) as results:
        other.ask_drain(asked)
    assert results == [True]
    assert session.read().drain is True


def test_a_wait_ends_when_it_is_woken(session: Session, waker: SocketWaker) -> None:
    session.read()
    begun = time.monotonic()
    with in_thread(lambda: session.wait(LONG, waker)) as results:
        waker.wake()
    assert results == [True]
    assert time.monotonic() - begun < LONG / 2


def test_a_wait_without_a_change_lasts_as_long_as_it_may(session: Session, other: Session, waker: SocketWaker) -> None:
    """Heartbeats do not end it: each would wake every process of the fleet."""
    session.read()
    other.report(instance())
    other.remove(uuid4().hex)
    begun = time.monotonic()
    assert session.wait(0.3, waker) is False
    assert time.monotonic() - begun >= 0.29


def test_a_session_that_does_not_listen_waits_for_its_waker_alone(
    session: Session, other: Session, waker: SocketWaker
) -> None:
    assert (session.listening, other.listening) == (True, False)
    session.write(ON)
    assert other.wait(0.15, waker) is False
    waker.wake()
    assert other.wait(LONG, waker) is True


# Threads, processes and forks


def test_two_threads_with_a_session_each_lose_no_write(store: Store) -> None:
    def flip() -> list[object]:
        with closing(store.connect()) as session:
            changes = [Change(enabled=True, details=Details(message=uuid4().hex)) for _ in range(20)]
            return [session.write(change).revision for change in changes]

    with in_thread(flip) as first, in_thread(flip) as second:
        pass
    assert len({*first[0], *second[0]}) == 40  # type: ignore[misc]


def test_two_processes_see_each_other(shared_url: str) -> None:
    def flip() -> None:
        with closing(open_store(shared_url).connect()) as session:
            session.write(Change(enabled=True, details=EVERYTHING))

    assert succeeded(in_child(flip))
    with closing(open_store(shared_url).connect()) as session:
        assert Details.from_json(read(session).details) == EVERYTHING


def test_a_session_survives_a_fork_whose_child_abandons_it(shared_url: str, waker: SocketWaker) -> None:
    store = open_store(shared_url)
    with closing(store.connect(listen=True)) as session:
        before = revision(session)

        def begin_anew() -> None:
            session.abandon()
            with closing(store.connect()) as own:
                assert own.write(ON).snapshot(read_at=0.0).revision > before

        assert succeeded(in_child(begin_anew))
        assert session.wait(LONG, waker) is True
        assert session.read().snapshot(read_at=0.0).enabled is True
        assert session.write(OFF).value_bool is False


def test_a_child_is_heard_after_its_parent_has_closed(shared_url: str) -> None:
    """With a lock of SQLite's that the child believes to hold, its writes would go where nobody reads."""
    store = open_store(shared_url)
    session = store.connect()
    session.read()
    closed, close = os.pipe()

    def write_late() -> None:
        session.abandon()
        with closing(store.connect()) as own:
            own.read()
            os.read(closed, 1)
            own.write(ON)

    pid = in_child(write_late)
    session.close()
    os.write(close, b"x")
    assert succeeded(pid)
    with closing(store.connect()) as again:
        assert again.read().snapshot(read_at=0.0).enabled is True
    os.close(closed)
    os.close(close)


def test_closing_twice_is_closing_once(store: Store) -> None:
    session = store.connect()
    session.close()
    session.close()


def test_a_closed_session_fails(shared_url: str) -> None:
    session = open_store(shared_url).connect()
    session.close()
    with pytest.raises(StoreError, match="clos"):
        session.read()


def test_without_the_table_of_instances_the_flag_is_followed(shared_url: str) -> None:
    store = open_store(shared_url)
    store.migrate()
    run_sql(shared_url, "DROP TABLE maintenance_instances")
    with closing(store.connect()) as session, closing(store.connect(listen=True)) as other:
        assert session.write(ON).value_bool is True
        reading = other.read(uuid4().hex)
        assert (reading.snapshot(read_at=0.0).enabled, reading.registered) == (True, False)
        with pytest.raises(RegistrationError, match="instances cannot register: .*`maintenance migrate"):
            other.report(instance())


def test_a_revision_in_memory_grows_also_after_one_that_was_set() -> None:
    store = MemoryStore()
    store.row = Row(True, {}, 7)
    assert [store.connect().write(Change(enabled=on, details=Details())).revision for on in (False, True)] == [8, 9]
    store.row = Row(True, {}, 2)
    assert store.connect().write(OFF).revision == 10
    store.row = Row(True, {}, None)
    assert store.connect().write(OFF).revision == 11


def test_a_file_is_looked_at_four_times_a_second_or_more(sqlite_url: str) -> None:
    assert sqlite_session.POLL <= 0.25
    store = SQLiteStore(sqlite_url)
    store.migrate()
    waker = SocketWaker()
    with closing(waker), closing(store.connect(listen=True)) as session, closing(store.connect()) as other:
        session.read()
        flip = threading.Timer(0.05, lambda: other.write(ON))
        flip.start()
        begun = time.monotonic()
        assert session.wait(LONG, waker)
        flip.join()
    assert time.monotonic() - begun < 5 * 0.25


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: PostgresStore("postgresql://h/d", statement_timeout="3"), "statement_timeout is '3': write seconds"),
        (lambda: PostgresStore("postgresql://h/d", statement_timeout=True), "statement_timeout is True: write seconds"),
        (lambda: PostgresStore("postgresql://h/d", listen="no"), "listen is 'no': write True or False"),
        (lambda: SQLiteStore(Path("x.db")), "not SQLite's: write sqlite:///path"),
        (lambda: SQLiteStore(None), "is not SQLite's"),
        (lambda: PostgresStore(None), "is not PostgreSQL's"),
        (lambda: PostgresStore(b"postgresql://h/d"), "not PostgreSQL's: write postgresql://user@host"),
    ],
)
def test_a_wrong_option_of_a_store_is_refused_with_what_to_write(build: Callable[[], object], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        build()


@pytest.mark.parametrize("wrong", ["ttl = 9e999", "oldest_age = 9e999"])
def test_no_row_says_what_json_cannot(shared_url: str, wrong: str) -> None:
    store = open_store(shared_url)
    with closing(store.connect()) as session:
        session.report(instance())
    statement = f"UPDATE maintenance_instances SET {wrong}"
    with pytest.raises((psycopg.errors.CheckViolation, sqlite3.IntegrityError)):
        run_sql(shared_url, statement if shared_url.startswith("sqlite") else statement.replace("9e999", "'Infinity'"))


# Faults


@contextmanager
def hanging(url: str) -> Iterator[None]:
    """Make a write hang for longer than the test lasts."""
    if url.startswith("sqlite"):
        endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
        run_sql(url, f"CREATE TRIGGER slow BEFORE UPDATE ON platform_settings BEGIN {endless}; END")
        yield
        run_sql(url, "DROP TRIGGER slow")
    else:
        with closing(psycopg.connect(url)) as connection:
            connection.execute("LOCK TABLE platform_settings")
            yield


def test_a_write_that_is_given_up_fails_and_leaves_the_flag_alone(shared_url: str) -> None:
    store = (
        SQLiteStore(shared_url) if shared_url.startswith("sqlite") else PostgresStore(shared_url, statement_timeout=60)
    )
    told = r"no answer within 0\.3 s: look|interrupted: it took too long; look"
    with (
        closing(store.connect()) as session,
        hanging(shared_url),
        pytest.raises(StoreError, match=told),
        session.within(0.3),
    ):
        session.write(ON)
    with closing(store.connect()) as again:
        assert again.read().snapshot(read_at=0.0).enabled is False


def test_a_signal_that_comes_during_a_call_is_not_lost(sqlite_url: str) -> None:
    """Its handler may raise, as that of Ctrl-C does, and that must not be taken for SQLite's own trouble."""

    class Arrived(Exception):
        pass

    def arrive(*_: object) -> None:
        raise Arrived

    open_store(sqlite_url).migrate()
    before = signal.signal(signal.SIGALRM, arrive)
    try:
        with closing(SQLiteStore(sqlite_url).connect()) as session, hanging(sqlite_url), session.within(0.5):
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            with pytest.raises(Arrived):
                session.write(ON)
    finally:
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:hunter2@127.0.0.1:1/nowhere",
        "postgresql://me@127.0.0.1:1/nowhere?password=hunter2",
        "postgresql://me:hunter2@no.such.host.invalid/nowhere",
    ],
)
def test_a_password_is_in_no_error_and_no_name(url: str) -> None:
    store = open_store(url)
    with pytest.raises(StoreError) as caught:
        store.connect()
    assert "hunter2" not in "".join(traceback.format_exception(caught.value)) + store.name + repr(store)


def test_a_wrong_password_is_in_no_error(migrated_url: str) -> None:
    url = migrated_url.replace(str(urlsplit(migrated_url).password), "hunter2")
    with pytest.raises(StoreError) as caught:
        open_store(url).connect()
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


# URLs


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("postgresql+psycopg://me:hunter2@h/d", "write postgresql:// instead"),
        ("postgres+asyncpg://me:hunter2@h/d", "write postgres:// instead"),
        ("sqlite+aiosqlite:///x.db", "write sqlite:// instead"),
        ("mysql+pymysql://me:hunter2@h/d", "write postgresql://user@host/database, sqlite:///path or memory://"),
        ("redis://me:hunter2@h", "begins with redis://: write postgresql://"),
        ("me:hunter2@h", "has no scheme: write postgresql://"),
        ("host=h user=me password=hunter2://x", "has no scheme: write postgresql://"),
        ("me:hunter2@h/d?application_name=a://b", "has no scheme: write postgresql://"),
        ("", "has no scheme"),
        ("memory://hunter2", "write memory://"),
        ("sqlite:", "has no scheme"),
        ("sqlite://", "names no file: write sqlite:///path, or memory://"),
        ("sqlite:///", "names no file"),
        ("sqlite:///:memory:", "or memory://"),
        ("sqlite://me:hunter2@host/path.db", "names a host: write sqlite:///path"),
        ("sqlite:///x.db?mode=memory", r"holds \?: write sqlite:///path alone"),
        ("sqlite:///x.db#y", "holds #"),
        ("sqlite:///x%00.db", "holds %00"),
        ("sqlite:///x\0", "holds a NUL character"),
        ("sqlite:////", "is a folder"),
        ("sqlite:///no/such/folder/x.db", "does not exist, or this user may not enter it: create it"),
    ],
)
def test_a_wrong_url_is_refused_with_what_to_write(url: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says) as caught:
        open_store(url)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("postgresql://me@h/d", PostgresStore),
        ("postgres://me@h/d", PostgresStore),
        ("sqlite:///x.db", SQLiteStore),
        ("memory://", MemoryStore),
    ],
)
def test_a_url_names_its_store(url: str, kind: type) -> None:
    assert type(open_store(url)) is kind


def test_each_store_in_memory_is_a_store_of_its_own() -> None:
    first, second = open_store("memory://").connect(), open_store("memory://").connect()
    first.write(ON)
    assert second.read().snapshot(read_at=0.0).enabled is False


def test_a_store_in_memory_measures_silence_with_its_clock() -> None:
    now = 100.0
    session = MemoryStore(clock=lambda: now).connect()
    session.report(instance())
    now = 107.0
    assert session.fleet().instances[0].silent_for == 7.0


# SQLite alone


@pytest.mark.parametrize("url", ["postgresql://me:hunter2@h/d", "sqlite:x.db", "x.db"])
def test_sqlite_refuses_the_url_of_another_store(url: str) -> None:
    with pytest.raises(ConfigurationError, match="not SQLite's: write sqlite:///path") as caught:
        SQLiteStore(url)
    assert "hunter2" not in str(caught.value)


def test_sqlite_keeps_its_path_when_the_folder_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = SQLiteStore("sqlite:///one%20%C3%BC%3F.db")
    monkeypatch.chdir("/")
    store.connect().close()
    assert (tmp_path / "one ü?.db").exists()
    assert SQLiteStore(store.name).name == store.name


def test_sqlite_makes_its_file_when_it_first_connects_and_never_again(sqlite_url: str) -> None:
    store = SQLiteStore(sqlite_url)
    path = Path(path_of(sqlite_url))
    assert not path.exists()
    with closing(store.connect()) as session:
        assert session.read().snapshot(read_at=0.0).enabled is False
    path.unlink()
    with pytest.raises(StoreError, match="maintenance migrate"):
        store.connect()
    assert not path.exists()
    store.migrate()
    store.connect().close()


@pytest.mark.parametrize("replaced", [True, False])
def test_sqlite_does_not_go_on_reading_a_file_that_was_taken_away(sqlite_url: str, *, replaced: bool) -> None:
    store = SQLiteStore(sqlite_url)
    path = Path(path_of(sqlite_url))
    with closing(store.connect()) as session:
        path.rename(path.with_suffix(".old"))
        if replaced:
            SQLiteStore(sqlite_url).connect().close()
        with pytest.raises(StoreError, match="was replaced" if replaced else "is gone"):
            session.read()


def test_sqlite_tells_a_lost_file_from_one_that_only_refuses_reports(sqlite_url: str) -> None:
    with closing(SQLiteStore(sqlite_url).connect()) as session:
        Path(path_of(sqlite_url)).unlink()
        with pytest.raises(StoreError, match="is gone") as caught:
            session.report(instance())
    assert not isinstance(caught.value, RegistrationError)  # which would say that the flag can still be read


def test_sqlite_keeps_open_what_is_abandoned(sqlite_url: str) -> None:
    session = SQLiteStore(sqlite_url).connect()
    session.abandon()
    del session
    with closing(sqlite_session._inherited.pop()) as kept:
        assert kept.execute("SELECT value_bool FROM platform_settings").fetchall() == [(0,)]


def test_sqlite_needs_no_fork(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows has none, nor anything to register for one."""
    monkeypatch.delattr(os, "register_at_fork")
    spec = find_spec(sqlite_session.__name__)
    assert spec is not None
    assert spec.loader is not None
    windows = module_from_spec(spec)
    spec.loader.exec_module(windows)
    with closing(windows.SQLiteSession("s", path_of(sqlite_url), prepare=True)) as session:
        session.write(ON)
        assert session.read().snapshot(read_at=0.0).enabled is True


def test_sqlite_is_made_once_by_many_processes_at_once(sqlite_url: str) -> None:
    def write() -> None:
        with closing(SQLiteStore(sqlite_url).connect()) as session:
            session.report(instance())

    assert succeeded(*[in_child(write) for _ in range(12)])
    with closing(SQLiteStore(sqlite_url).connect()) as session:
        fleet = session.fleet()
        assert (len(fleet.instances), fleet.intact, revision(session)) == (12, True, 1)


def test_sqlite_can_write_in_a_child_forked_during_a_call(sqlite_url: str) -> None:
    store = SQLiteStore(sqlite_url)
    stop = threading.Event()

    def read_on() -> None:
        with closing(store.connect()) as session:
            while not stop.is_set():
                session.fleet()

    def report() -> None:
        with closing(store.connect()) as session:
            session.report(instance())

    with closing(store.connect()) as session:
        for _ in range(200):
            session.report(instance())
    with in_thread(read_on) as results:
        try:
            assert all(succeeded(in_child(report)) for _ in range(8))
        finally:
            stop.set()
    assert results == [None]


def test_sqlite_takes_no_emptied_fleet_for_a_new_one(sqlite_url: str) -> None:
    with closing(SQLiteStore(sqlite_url).connect()) as session:
        session.report(instance())
    run_sql(sqlite_url, "DROP TABLE maintenance_instances")
    SQLiteStore(sqlite_url).migrate()
    with closing(SQLiteStore(sqlite_url).connect()) as session:
        assert session.fleet().intact is False


def test_sqlite_gives_no_revision_twice_where_the_settings_are_made_anew(sqlite_url: str) -> None:
    store = SQLiteStore(sqlite_url)
    session = store.connect()
    session.report(replace(instance(), revision=70))
    session.close()
    with closing(sqlite3.connect(sqlite_url.removeprefix("sqlite:///"))) as file:
        file.executescript("DROP TABLE platform_settings; DROP TABLE platform_settings_revision")
    store.migrate()
    session = store.connect()
    assert session.read().snapshot(read_at=0.0).revision > 70
    session.close()


def test_sqlite_replaces_a_revision_written_by_hand(sqlite_url: str) -> None:
    with closing(SQLiteStore(sqlite_url).connect()) as session:
        session.write(ON)
        before = session.write(OFF).snapshot(read_at=0.0).revision
        run_sql(sqlite_url, "UPDATE platform_settings SET revision = 1")
        assert revision(session) > before


@pytest.mark.parametrize("value", ["'true'", "2", "NULL", "x'01'", "0.5"])
def test_sqlite_reads_nothing_but_0_and_1_as_a_flag(sqlite_url: str, value: str) -> None:
    with closing(SQLiteStore(sqlite_url).connect()) as session:
        run_sql(sqlite_url, f"UPDATE platform_settings SET value_bool = {value}")
        with pytest.raises(StoreError, match="value_bool"):
            session.read().snapshot(read_at=0.0)
        assert session.write(OFF).value_bool is False


@pytest.mark.parametrize("details", ["", "{", "[]", "null", '{"mode": "off"}', "[" * 100_000])
def test_sqlite_names_details_that_are_wrong(sqlite_url: str, details: str) -> None:
    with closing(SQLiteStore(sqlite_url).connect()) as session:
        run_sql(sqlite_url, f"UPDATE platform_settings SET details = '{details}'")
        with pytest.raises(StoreError, match="details"):
            session.read().snapshot(read_at=0.0)


@pytest.mark.parametrize(
    "assignment",
    ["updated_at = 'yesterday'", "updated_at = 5", "updated_by = 'alice'", "revision = 'x'", "details = NULL"],
)
def test_sqlite_refuses_what_postgresql_would_refuse(sqlite_url: str, assignment: str) -> None:
    SQLiteStore(sqlite_url).migrate()
    with pytest.raises(sqlite3.IntegrityError):
        run_sql(sqlite_url, f"UPDATE platform_settings SET {assignment}")


def test_sqlite_reads_the_times_that_sqlite_writes(sqlite_url: str) -> None:
    with closing(SQLiteStore(sqlite_url).connect()) as session:
        for written in ("2026-01-02 03:04:05", "2026-01-02T05:04:05+02:00", "2026-01-02 03:04:05Z"):
            run_sql(sqlite_url, f"UPDATE platform_settings SET updated_at = '{written}'")
            assert read(session).updated_at == dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)
        run_sql(sqlite_url, "UPDATE platform_settings SET updated_at = NULL")
        assert read(session).updated_at is None


@pytest.mark.parametrize("assignment", ["updated_at = 'yesterday'", "updated_by = 'alice'"])
def test_sqlite_names_a_time_or_a_user_that_is_wrong(sqlite_url: str, assignment: str) -> None:
    with closing(SQLiteStore(sqlite_url).connect()) as session:
        with closing(sqlite3.connect(path_of(sqlite_url), isolation_level=None)) as careless:
            careless.execute("PRAGMA ignore_check_constraints = ON")
            careless.execute(f"UPDATE platform_settings SET {assignment}")
        with pytest.raises(StoreError, match="updated_at or updated_by of 'maintenance_mode' is wrong"):
            session.read()
        session.write(ON)
        assert session.read().snapshot(read_at=0.0).enabled is True


def test_sqlite_says_that_the_file_is_locked(sqlite_url: str) -> None:
    with closing(SQLiteStore(sqlite_url).connect()) as session:
        before = read(session)
        with closing(sqlite3.connect(path_of(sqlite_url), isolation_level=None)) as holder:
            holder.execute("BEGIN IMMEDIATE")
            begun = time.monotonic()
            with pytest.raises(StoreError, match="locked: another process keeps a transaction open"):
                session.write(ON)
            assert time.monotonic() - begun < 3.0
            assert read(session) == before
        assert session.write(ON).value_bool is True


def test_sqlite_says_that_the_file_is_not_its_own(sqlite_url: str) -> None:
    Path(path_of(sqlite_url)).write_text("a letter " * 200)
    with pytest.raises(StoreError, match=r"maintenance\.db: file is not a database: name a file of SQLite's"):
        SQLiteStore(sqlite_url).connect()


def test_an_sqlite_store_that_may_create_nothing_does_not(sqlite_url: str, tmp_path: Path) -> None:
    store = SQLiteStore(sqlite_url, create=False)
    with pytest.raises(StoreError, match="unable to open database file: .* run `maintenance migrate`"):
        store.connect()
    assert not list(tmp_path.iterdir())
    Path(store.path).touch()
    with closing(store.connect()) as session, pytest.raises(StoreError, match="no such table: platform_settings: run"):
        session.read()
    store.migrate()
    with closing(store.connect()) as session:
        assert session.read().row


def test_sqlite_says_that_a_table_is_missing(sqlite_url: str) -> None:
    with closing(SQLiteStore(sqlite_url).connect()) as session:
        run_sql(sqlite_url, "DROP TABLE platform_settings")
        with pytest.raises(StoreError, match="run `maintenance migrate --database sqlite:///"):
            session.read()


def test_sqlite_refuses_wal_mode(sqlite_url: str) -> None:
    SQLiteStore(sqlite_url).migrate()
    run_sql(sqlite_url, "PRAGMA journal_mode = WAL")
    with pytest.raises(StoreError, match="give the flag a file of its own"):
        SQLiteStore(sqlite_url).connect()


def test_sqlite_serves_a_reader_who_may_not_write() -> None:
    # Not in tmp_path, which other users may not look into.
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        path = Path(folder, "maintenance.db")
        SQLiteStore(f"sqlite:///{path}").migrate()
        path.chmod(0o444)
        Path(folder).chmod(0o555)

        def look() -> None:
            if os.geteuid() == 0:
                os.setuid(65534)  # nobody: root may write everywhere
            with closing(SQLiteStore(f"sqlite:///{path}").connect()) as session:
                assert session.read().snapshot(read_at=0.0).enabled is False
                with pytest.raises(RegistrationError, match="let this user write"):
                    session.report(instance())

        looked = succeeded(in_child(look))
        Path(folder).chmod(0o755)
        assert looked
