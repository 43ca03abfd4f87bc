"""SQLite alone: the file, its journal, its locks, and what SQLite does not check."""

import datetime as dt
import os
import resource
import signal
import sqlite3
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from importlib.util import find_spec, module_from_spec
from pathlib import Path

import pytest

from maintenance import MaintenanceState
from maintenance.base.runtime import SocketWaker
from maintenance.errors import RegistrationError, StoreError
from maintenance.stores import Session, SQLiteStore
from maintenance.stores.sqlite import session as sqlite_session
from maintenance.wsgi import MaintenanceMiddleware
from tests.stores.helpers import (
    LONG,
    OFF,
    ON,
    flip,
    in_child,
    in_thread,
    instance,
    path_of,
    read,
    run_sql,
    snapshot,
    succeeded,
)
from tests.stores.test_contract import hanging
from tests.support.clients import call_wsgi
from tests.support.plain_apps import wsgi


@pytest.fixture
def opened(sqlite_url: str) -> Iterator[Session]:
    """A session of a new file."""
    with closing(SQLiteStore(sqlite_url).connect()) as session:
        yield session


def test_makes_its_file_when_it_first_connects_and_never_again(sqlite_url: str) -> None:
    store = SQLiteStore(sqlite_url)
    path = Path(path_of(sqlite_url))
    assert not path.exists()
    with closing(store.connect()) as session:
        assert snapshot(session).enabled is False
    path.unlink()
    with pytest.raises(StoreError, match="maintenance migrate"):
        store.connect()
    assert not path.exists()
    store.migrate()
    store.connect().close()


@pytest.mark.parametrize("replaced", [True, False])
def test_does_not_go_on_reading_a_file_that_was_taken_away(sqlite_url: str, *, replaced: bool) -> None:
    store = SQLiteStore(sqlite_url)
    path = Path(path_of(sqlite_url))
    with closing(store.connect()) as session:
        path.rename(path.with_suffix(".old"))
        if replaced:
            SQLiteStore(sqlite_url).connect().close()
        with pytest.raises(StoreError, match="was replaced" if replaced else "is missing"):
            session.read()


def test_a_report_to_a_lost_file_is_not_a_refused_report(sqlite_url: str, opened: Session) -> None:
    Path(path_of(sqlite_url)).unlink()
    with pytest.raises(StoreError, match="is missing") as caught:
        opened.report(instance())
    assert not isinstance(caught.value, RegistrationError)  # which would say that the flag can still be read


def test_an_abandoned_connection_stays_open(sqlite_url: str) -> None:
    session = SQLiteStore(sqlite_url).connect()
    session.abandon()
    del session
    with closing(sqlite_session._inherited.pop()) as kept:
        assert kept.execute("SELECT value_bool FROM platform_settings").fetchall() == [(0,)]


def test_needs_no_fork(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows has none, nor anything to register for one."""
    monkeypatch.delattr(os, "register_at_fork")
    spec = find_spec(sqlite_session.__name__)
    windows = module_from_spec(spec)
    spec.loader.exec_module(windows)
    with closing(windows.SQLiteSession("s", path_of(sqlite_url), prepare=True)) as session:
        session.write(ON)
        assert snapshot(session).enabled is True


def test_is_made_once_by_many_processes_at_once(sqlite_url: str) -> None:
    def write() -> None:
        with closing(SQLiteStore(sqlite_url).connect()) as session:
            session.report(instance())

    assert succeeded(*[in_child(write) for _ in range(12)])
    with closing(SQLiteStore(sqlite_url).connect()) as session:
        fleet = session.fleet()
        assert (len(fleet.instances), fleet.intact, snapshot(session).revision) == (12, True, 1)


def test_can_write_in_a_child_forked_during_a_call(sqlite_url: str) -> None:
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


def test_takes_no_emptied_fleet_for_a_new_one(sqlite_url: str, opened: Session) -> None:
    opened.report(instance())
    run_sql(sqlite_url, "DROP TABLE maintenance_instances")
    SQLiteStore(sqlite_url).migrate()
    assert opened.fleet().intact is False


def test_gives_no_revision_twice_if_the_settings_are_recreated(sqlite_url: str, opened: Session) -> None:
    opened.report(replace(instance(), revision=70))
    for table in ("platform_settings", "platform_settings_revision"):
        run_sql(sqlite_url, f"DROP TABLE {table}")
    SQLiteStore(sqlite_url).migrate()
    assert snapshot(opened).revision > 70


def test_replaces_a_revision_written_by_hand(sqlite_url: str, opened: Session) -> None:
    opened.write(ON)
    before = flip(opened, OFF)
    run_sql(sqlite_url, "UPDATE platform_settings SET revision = 1")
    assert snapshot(opened).revision > before


@pytest.mark.parametrize("value", ["'true'", "2", "NULL", "x'01'", "0.5"])
def test_only_0_and_1_are_a_flag(sqlite_url: str, opened: Session, value: str) -> None:
    run_sql(sqlite_url, f"UPDATE platform_settings SET value_bool = {value}")
    with pytest.raises(StoreError, match="value_bool"):
        snapshot(opened)
    assert opened.write(OFF).row.value_bool is False


@pytest.mark.parametrize("details", ["", "{", "null", "soon", "[" * 100_000], ids=range(5))
def test_a_flip_counts_whose_details_python_cannot_parse(sqlite_url: str, opened: Session, details: str) -> None:
    run_sql(sqlite_url, f"UPDATE platform_settings SET value_bool = 1, details = '{details}'")
    found = snapshot(opened)
    assert found.enabled
    assert [problem.partition(": ")[2] for problem in found.problems] == ["use a JSON object, such as {}"]


def test_a_flip_counts_whose_details_are_in_another_encoding(sqlite_url: str, opened: Session) -> None:
    details = '{"message": "Zurück", "retry_after": 9}'.encode("latin-1").hex()
    run_sql(sqlite_url, f"UPDATE platform_settings SET value_bool = 1, details = CAST(x'{details}' AS TEXT)")
    found = snapshot(opened)
    assert (found.enabled, found.retry_after, found.message) == (True, 9, None)
    assert [problem[:13] for problem in found.problems] == ["message has a"]


@pytest.mark.parametrize(
    "assignment",
    ["updated_at = 'yesterday'", "updated_at = 5", "updated_by = 'alice'", "revision = 'x'", "details = NULL"],
)
def test_refuses_what_postgresql_would_refuse(sqlite_url: str, assignment: str) -> None:
    SQLiteStore(sqlite_url).migrate()
    with pytest.raises(sqlite3.IntegrityError):
        run_sql(sqlite_url, f"UPDATE platform_settings SET {assignment}")


def test_reads_the_times_that_sqlite_writes(sqlite_url: str, opened: Session) -> None:
    for written in ("2026-01-02 03:04:05.678", "2026-01-02T05:04:05.678+02:00", "2026-01-02 03:04:05.678Z"):
        run_sql(sqlite_url, f"UPDATE platform_settings SET updated_at = '{written}'")
        assert read(opened).updated_at == dt.datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("assignment", "problem"),
    [
        ("updated_at = 'yesterday'", "updated_at is 'yesterday': set it to the current time"),
        ("updated_at = '20260102T030405'", "updated_at is datetime.datetime(2026, 1, 2, 3, 4, 5): set"),
        ("updated_at = 5, details = CAST(5 AS BLOB)", "details is 5"),
        ("updated_by = 'alice'", "updated_by is 'alice': set it to a UUID, or to NULL"),
        ("updated_by = x'00'", "updated_by is b'\\x00'"),
    ],
)
def test_a_flip_counts_whose_time_or_user_is_wrong(
    sqlite_url: str, opened: Session, assignment: str, problem: str
) -> None:
    with closing(sqlite3.connect(path_of(sqlite_url), isolation_level=None)) as careless:
        careless.execute("PRAGMA ignore_check_constraints = ON")
        careless.execute(f"UPDATE platform_settings SET value_bool = 1, {assignment}")
    found = snapshot(opened)
    assert found.enabled
    assert found.problems[0].startswith(problem)
    opened.write(ON)
    assert snapshot(opened).problems == ()


def test_says_that_the_file_is_locked(sqlite_url: str, opened: Session) -> None:
    before = read(opened)
    with closing(sqlite3.connect(path_of(sqlite_url), isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        begun = time.monotonic()
        with pytest.raises(StoreError, match="locked: another process keeps a transaction open"):
            opened.write(ON)
        assert time.monotonic() - begun < 3.0
        assert read(opened) == before
    assert opened.write(ON).row.value_bool is True


def test_says_that_the_file_is_not_its_own(sqlite_url: str) -> None:
    Path(path_of(sqlite_url)).write_text("a letter " * 200)
    with pytest.raises(StoreError, match=r"maintenance\.db: file is not a database: use a file of SQLite's"):
        SQLiteStore(sqlite_url).connect()


def test_a_store_that_may_create_nothing_does_not(sqlite_url: str, tmp_path: Path) -> None:
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


def test_says_that_a_table_is_missing(sqlite_url: str, opened: Session) -> None:
    run_sql(sqlite_url, "DROP TABLE platform_settings")
    with pytest.raises(StoreError, match="run `maintenance migrate --database sqlite:///"):
        opened.read()


def test_refuses_wal_mode(sqlite_url: str) -> None:
    SQLiteStore(sqlite_url).migrate()
    run_sql(sqlite_url, "PRAGMA journal_mode = WAL")
    with pytest.raises(StoreError, match="give the flag a file of its own"):
        SQLiteStore(sqlite_url).connect()


def test_serves_a_reader_who_may_not_write() -> None:
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
                assert snapshot(session).enabled is False
                with pytest.raises(RegistrationError, match="let this user write"):
                    session.report(instance())

        looked = succeeded(in_child(look))
        Path(folder).chmod(0o755)
        assert looked


def test_a_process_whose_row_a_full_disk_refuses_follows_the_flag(sqlite_url: str, opened: Session) -> None:
    opened.write(ON)

    def start() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        state = MaintenanceState(sqlite_url)
        assert call_wsgi(MaintenanceMiddleware(wsgi, state)).status == 503
        status = state.status()
        assert (status.registered, status.listening, status.last_error) == (False, True, None)
        assert "whether the disk is full" in (status.registration_error or "")

    assert succeeded(in_child(start))


def test_a_report_that_a_trigger_refuses_is_a_refused_report(sqlite_url: str, opened: Session) -> None:
    never = "CREATE TRIGGER never BEFORE INSERT ON maintenance_instances BEGIN SELECT RAISE(ABORT, 'no'); END"
    run_sql(sqlite_url, never)
    with pytest.raises(RegistrationError, match="no"):
        opened.report(instance())


def test_the_file_is_checked_four_times_a_second_or_more(sqlite_url: str, opened: Session, waker: SocketWaker) -> None:
    assert sqlite_session.POLL <= 0.25
    with closing(SQLiteStore(sqlite_url).connect(listen=True)) as session:
        flip = threading.Timer(0.05, lambda: opened.write(ON))
        flip.start()
        begun = time.monotonic()
        assert session.wait(LONG, waker)
        flip.join()
    assert time.monotonic() - begun < 5 * 0.25


def test_a_signal_that_comes_during_a_call_is_not_lost(sqlite_url: str, opened: Session) -> None:
    """Its handler may raise, as Ctrl-C's does, and that must not look like an error of SQLite's."""

    class Arrived(Exception):
        pass

    def arrive(*_: object) -> None:
        raise Arrived

    before = signal.signal(signal.SIGALRM, arrive)
    try:
        with hanging(sqlite_url), opened.within(0.5):
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            with pytest.raises(Arrived):
                opened.write(ON)
    finally:
        signal.signal(signal.SIGALRM, before)


def test_a_write_that_a_trigger_removes_is_an_error(opened: Session, sqlite_url: str) -> None:
    run_sql(
        sqlite_url,
        "CREATE TRIGGER gone AFTER UPDATE ON platform_settings BEGIN DELETE FROM platform_settings; END",
    )
    with pytest.raises(StoreError, match="the row was not written: look for a trigger that removes it"):
        opened.write(ON)


def test_a_process_that_may_not_write_the_file_leaves_a_schedule_to_others(opened: Session, sqlite_url: str) -> None:
    run_sql(sqlite_url, "CREATE TRIGGER never BEFORE UPDATE ON platform_settings BEGIN SELECT RAISE(ABORT, 'no'); END")
    with pytest.raises(StoreError, match="no"):
        opened.carry_out(None, snapshot(opened).revision, enabled=True)
    opened._connection.execute("PRAGMA query_only = on")  # type: ignore[attr-defined]
    assert not opened.carry_out(None, snapshot(opened).revision, enabled=True)
