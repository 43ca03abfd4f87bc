"""One contract for every store: the same tests over PostgreSQL, SQLite and memory."""

import datetime as dt
import json
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from maintenance import MaintenanceState
from maintenance.base.flags import SEEDED
from maintenance.base.instances import SENTINEL
from maintenance.base.runtime import SocketWaker
from maintenance.base.scopes import KEY, scope_key
from maintenance.base.values import MAX_TEXT, Change, Details, Row
from maintenance.errors import RegistrationError, StoreError
from maintenance.stores import MemoryStore, PostgresStore, Session, SQLiteStore, Store, open_store
from tests.stores.helpers import LONG, OFF, ON, flip, in_child, in_thread, instance, read, run_sql, snapshot, succeeded
from tests.support.waiting import eventually

EVERYTHING = Details(
    mode="read_only",
    message='Zurück um 5 — 维护中 🛠 "quoted"\n\\',
    until=dt.datetime(2031, 5, 1, 12, 30, 15, 250_000, tzinfo=dt.timezone(dt.timedelta(hours=2))),
    retry_after=120,
    actor="Zoë",
    reason="l'index; DROP TABLE --",
    secret="0123456789abcdef" * 4,
)
ALL_ON = Change(enabled=True, details=EVERYTHING)


class ByHand:
    """An operator who writes the flag's row without the library."""

    def __init__(self, store: Store, url: str | None) -> None:
        self._store = store
        self._url = url

    def remove_row(self) -> None:
        self._write(None, f"DELETE FROM platform_settings WHERE key = '{KEY}'")

    def spoil_row(self) -> None:
        self._write(Row(None, {}, 1), f"UPDATE platform_settings SET value_bool = NULL WHERE key = '{KEY}'")

    def switch_on(self, details: object) -> None:
        sql = f"UPDATE platform_settings SET value_bool = true, details = '{json.dumps(details)}' WHERE key = '{KEY}'"
        self._write(Row(True, details, self._next_revision()), sql)

    def _next_revision(self) -> int:
        with closing(self._store.connect()) as session:
            return snapshot(session).revision + 1

    def _write(self, row: Row | None, sql: str) -> None:
        if isinstance(self._store, MemoryStore):
            self._store.row = row
        else:
            assert self._url is not None
            run_sql(self._url, sql)


@pytest.fixture
def by_hand(store: Store, request: pytest.FixtureRequest) -> ByHand:
    names: dict[type, str] = {PostgresStore: "migrated_url", SQLiteStore: "sqlite_url"}
    name = names.get(type(store))
    return ByHand(store, request.getfixturevalue(name) if name else None)


def test_every_store_keeps_the_protocol(store: Store) -> None:
    assert isinstance(store, Store)
    assert not isinstance("memory://", Store)


# The flag


def test_a_migrated_store_is_off(session: Session) -> None:
    found = session.read().snapshot(read_at=3.5)
    assert (found.enabled, found.mode, found.source, found.read_at) == (False, "full", "store", 3.5)
    assert found.revision > 0
    assert found.updated_at == SEEDED, "it is older than any flip"


def test_every_detail_comes_back_as_it_was_written(session: Session, other: Session) -> None:
    who = uuid4()
    written = session.write(Change(enabled=True, details=EVERYTHING, updated_by=who)).row
    assert written == read(session) == read(other)
    assert Details.from_json(written.details) == (EVERYTHING, ())
    assert written.snapshot(read_at=0.0) == written.snapshot(read_at=0.0, written=EVERYTHING)
    assert (written.value_bool, written.updated_by) == (True, who)
    row = session.write(OFF).row
    assert (row.value_bool, Details.from_json(row.details), row.updated_by) == (False, (Details(), ()), None)


@pytest.mark.parametrize("scope", [None, "shop"])
def test_a_secret_link_ends_with_its_flag_also_by_hand(shared_url: str, scope: str | None) -> None:
    """And a flag that is switched on by hand has none, whatever it had before."""
    with closing(MaintenanceState(shared_url)) as state:
        token = state.set(True, scope=scope, secret=True, message="m").token
        assert token is not None
        assert state.lease.flags.get(scope).secret is not None
        for value in ("false", "true"):
            run_sql(shared_url, f"UPDATE platform_settings SET value_bool = {value} WHERE key = '{scope_key(scope)}'")
        state.refresh()
        flag = state.lease.flags.get(scope)
        assert (flag.enabled, flag.secret, flag.message) == (True, None, "m")
        assert token not in repr([(it.details, it.details_before) for it in state.history()])


def test_a_flag_that_is_planned_anew_keeps_its_secret(shared_url: str) -> None:
    with closing(MaintenanceState(shared_url)) as state:
        secret = state.set(True, secret=True).secret
        starts = dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)
        flag = state.update(starts=starts)
        assert (flag.enabled, flag.starts, flag.secret) == (False, starts, secret)


@pytest.mark.parametrize(
    "change",
    [
        OFF,
        ALL_ON,
        *(
            Change(enabled=True, details=Details(**detail))
            for detail in (
                {"mode": "read_only"},
                {"message": "m"},
                {"until": dt.datetime(2030, 1, 1, tzinfo=dt.UTC)},
                {"retry_after": 1},
                {"actor": "a"},
                {"reason": "r"},
            )
        ),
    ],
    ids=lambda change: str(sorted(change.details.to_json()) or "off"),
)
def test_each_change_takes_the_next_revision(session: Session, change: Change) -> None:
    before = flip(session)
    assert (flip(session, change), flip(session)) == (before + 1, before + 2)


def test_the_same_change_again_keeps_the_revision(session: Session) -> None:
    before = flip(session, ALL_ON)
    who = uuid4()
    after = session.write(Change(enabled=True, details=EVERYTHING, updated_by=who)).row
    assert (after.revision, after.updated_by) == (before, who)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (ByHand.remove_row, "no row 'maintenance_mode'"),
        (ByHand.spoil_row, "value_bool"),
    ],
)
def test_a_missing_or_wrong_row_is_named_and_a_write_repairs_it(
    session: Session, by_hand: ByHand, damage: Callable[[ByHand], None], message: str
) -> None:
    before = flip(session)
    damage(by_hand)
    with pytest.raises(StoreError, match=message):
        snapshot(session)
    assert flip(session) > before
    assert snapshot(session).enabled is True


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ({"mode": "FULL"}, "mode is 'FULL': use 'full' or 'read_only'"),
        ({"until": "2031-05-01T12:30:00"}, "until is '2031-05-01T12:30:00': use an ISO 8601 time with a time zone"),
        ({"retry_after": 60.0}, "retry_after is a float"),
        ({"reason": 5}, "reason is a int"),
        ({"actor": "x" * (MAX_TEXT + 1)}, f"actor has {MAX_TEXT + 1} characters"),
    ],
)
def test_a_flip_by_hand_counts_and_so_do_its_right_details(
    session: Session, by_hand: ByHand, wrong: dict[str, object], problem: str
) -> None:
    by_hand.switch_on({"message": "m", "a newer detail": 1, **wrong})
    found = snapshot(session)
    assert (found.enabled, found.mode, found.message) == (True, "full", "m")
    assert [one[: len(problem)] for one in found.problems] == [problem]
    assert session.fleet().reading.snapshot(read_at=0.0) == found
    flip(session)
    assert snapshot(session).problems == ()


@pytest.mark.parametrize("details", [[], "text", None, 5])
def test_a_flip_by_hand_counts_whatever_its_details_are(session: Session, by_hand: ByHand, details: object) -> None:
    by_hand.switch_on(details)
    found = snapshot(session)
    assert (found.enabled, found.mode, found.message) == (True, "full", None)
    assert found.problems == (f"details is {details!r}: use a JSON object, such as {{}}",)


def test_a_fleet_follows_a_flip_by_hand_with_wrong_details_and_names_them_once(
    store: Store, by_hand: ByHand, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "maintenance")
    with closing(MaintenanceState(store, ttl=0.3)) as state:
        assert state.enabled is False
        for mode in ("FULL", "HALF"):
            by_hand.switch_on({"mode": mode, "message": "m"})
            eventually(lambda mode=mode: mode in str(state.status().snapshot.problems))
            status = state.status()
            assert (status.condition, status.last_error, status.snapshot.enabled) == ("fresh", None, True)
            eventually(lambda status=status: state.lease.known.site.read_at > status.snapshot.read_at + 0.5)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2
    assert lines[0] == (
        f"maintenance: the flag is followed (maintenance on at revision {status.snapshot.revision - 1}), "
        "but wrong values in its row are ignored: mode is 'FULL': use 'full' or 'read_only'"
    )


def test_migrating_again_resets_nothing(store: Store, session: Session) -> None:
    row = session.write(ALL_ON).row
    store.migrate()
    assert read(session) == row


# The same flag, written in SQL. `test_sql` has more, for PostgreSQL.


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
        before = snapshot(session)
        assert before.updated_at == long_ago
        run_sql(shared_url, sql)
        after = snapshot(session)
    assert after.revision - before.revision == int(grows)
    assert (after.updated_at != long_ago) is grows


def test_a_row_deleted_and_inserted_has_a_new_revision(shared_url: str) -> None:
    with closing(open_store(shared_url).connect()) as session:
        before = snapshot(session).revision
        run_sql(shared_url, "DELETE FROM platform_settings")
        run_sql(shared_url, f"INSERT INTO platform_settings (key, value_bool) VALUES ('{KEY}', false)")
        assert snapshot(session).revision > before


def test_a_time_cannot_be_taken_away_by_hand(shared_url: str) -> None:
    with pytest.raises((psycopg.errors.NotNullViolation, sqlite3.IntegrityError)):
        run_sql(shared_url, "UPDATE platform_settings SET updated_at = NULL")


# A drain


def test_a_drain_is_asked_for_at_one_revision_only(session: Session, other: Session) -> None:
    asked = flip(session)
    assert read(other).drain is False
    session.ask_drain(asked)
    assert read(other).drain is True
    assert snapshot(other).revision == asked
    flip(session, OFF)
    assert read(other).drain is False
    session.ask_drain(asked)
    assert read(other).drain is False


@pytest.mark.parametrize("before", ["off", "the same", "no row"])
def test_a_flip_can_ask_for_its_own_drain(
    session: Session, other: Session, waker: SocketWaker, by_hand: ByHand, before: str
) -> None:
    draining = Change(enabled=True, details=Details(), drain=True)
    if before == "the same":
        flip(session)
    elif before == "no row":
        by_hand.remove_row()
    while session.wait(0.1, waker):
        session.read()
    # One change of the row: a process is woken once, and reads both.
    with in_thread(lambda: session.wait(LONG, waker)) as results:
        revision = flip(other, draining)
    assert results == [True]
    row = read(session)
    assert (row.drain, row.revision) == (True, revision)
    assert session.wait(0.3, waker) is False
    assert flip(other, draining) == revision
    assert flip(other) == revision
    assert read(session).drain is True
    flip(other, OFF)
    assert read(session).drain is False


def test_a_missing_row_is_none(session: Session, by_hand: ByHand) -> None:
    by_hand.remove_row()
    assert session.read().row is None


# Instances


def test_a_report_comes_back_whole_and_the_next_one_replaces_it(session: Session, other: Session) -> None:
    first = instance()
    session.report(first)
    assert [replace(one, silent_for=0.0) for one in other.fleet().instances] == [first]
    load: dict[str, Any] = {"in_flight": 3, "websockets": 2, "oldest": "GET /größe", "oldest_age": 1.5}
    second = replace(first, revision=2**40, **load)
    session.report(second)
    [found] = other.fleet().instances
    assert replace(found, silent_for=0.0) == second
    assert 0.0 <= found.silent_for < LONG


def test_silence_is_counted_from_the_last_report(session: Session) -> None:
    reported = instance()
    session.report(reported)
    eventually(lambda: session.fleet().instances[0].silent_for > 0.5)
    session.report(reported)
    assert session.fleet().instances[0].silent_for < 0.5


def test_a_read_finds_whether_the_instance_is_registered(session: Session, other: Session) -> None:
    registered = instance()
    other.report(registered)
    assert session.read(registered.id).registered is True
    assert session.read(uuid4().hex).registered is False
    assert session.read().registered is False
    assert other.remove(registered.id) == 1
    assert other.remove(registered.id) == 0
    assert other.remove("no id") == other.remove() == 0
    assert session.read(registered.id).registered is False


def test_the_fleet_is_ordered_and_includes_the_flag(session: Session) -> None:
    assert session.fleet().instances == ()
    for one in (instance(host="b", pid=1), instance(host="a", pid=20), instance(host="a", pid=3)):
        session.report(one)
    flip(session)
    fleet = session.fleet()
    assert [(one.host, one.pid) for one in fleet.instances] == [("a", 3), ("a", 20), ("b", 1)]
    assert fleet.reading.snapshot(read_at=0.0).enabled is True
    assert fleet.intact is True


def test_the_sentinel_is_not_an_instance(session: Session) -> None:
    sentinel = UUID(int=0).hex
    assert session.remove(sentinel) == 0
    assert session.find("0" * 8) == ()
    assert session.fleet().intact is True


def test_instances_are_found_by_the_beginning_of_their_id_and_removed_in_one_step(session: Session) -> None:
    for number in range(3):
        session.report(instance(id=f"a{number}" + "0" * 30))
    assert [one.id[:2] for one in session.find("a1")] == ["a1"]
    assert [one.id[:2] for one in session.find("a")] == ["a0", "a1", "a2"]
    assert session.find("b") == session.find("%") == ()
    assert session.remove(*(one.id for one in session.find("a")), uuid4().hex, "x") == 3
    assert session.fleet().instances == ()


def test_a_fleet_without_a_flag_is_still_found(session: Session, by_hand: ByHand) -> None:
    session.report(instance())
    by_hand.remove_row()
    fleet = session.fleet()
    assert (fleet.reading.row, len(fleet.instances), fleet.intact) == (None, 1, True)


def test_an_emptied_table_is_not_intact_until_the_sentinel_is_back(shared_url: str) -> None:
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


def test_without_the_table_of_instances_the_flag_is_followed(shared_url: str) -> None:
    store = open_store(shared_url)
    with closing(store.connect()) as before:
        run_sql(shared_url, "DROP TABLE maintenance_instances")
        with closing(store.connect()) as session, closing(store.connect(listen=True)) as other:
            assert session.write(ON).row.value_bool is True
            reading = other.read(uuid4().hex)
            assert (reading.snapshot(read_at=0.0).enabled, reading.registered) == (True, False)
            for one in (before, other):
                with pytest.raises(RegistrationError, match="instances cannot register: .*`maintenance migrate"):
                    one.report(instance())


# Waiting


@pytest.mark.parametrize(
    "act",
    [
        lambda other, _: other.write(ON),
        lambda other, _: other.ask_drain(snapshot(other).revision),
        lambda _, waker: waker.wake(),
    ],
    ids=["another session writes", "a drain is asked for", "it is woken"],
)
def test_a_wait_ends_early_when(
    session: Session, other: Session, waker: SocketWaker, act: Callable[..., object], request: pytest.FixtureRequest
) -> None:
    session.read()
    with in_thread(lambda: session.wait(LONG, waker)) as results:
        begun = time.monotonic()
        act(other, waker)
    assert results == ["woken" not in request.node.name]  # whether the flag may have changed
    assert time.monotonic() - begun < LONG / 2


def test_a_change_before_a_wait_ends_it(session: Session, other: Session, waker: SocketWaker) -> None:
    session.read()
    other.write(ON)
    begun = time.monotonic()
    assert session.wait(LONG, waker) is True
    assert time.monotonic() - begun < LONG / 2


def test_a_change_just_after_a_wait_ends_the_next_one(session: Session, other: Session, waker: SocketWaker) -> None:
    for change in (ON, OFF) * 5:
        with in_thread(lambda change=change: other.write(change)):  # type: ignore[misc]
            assert session.wait(LONG, waker) is True
        while snapshot(session).enabled is not change.enabled:
            assert session.wait(LONG, waker) is True


def test_a_wait_without_a_change_lasts_to_its_end(session: Session, other: Session, waker: SocketWaker) -> None:
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
    begun = time.monotonic()
    assert other.wait(LONG, waker) is False
    assert time.monotonic() - begun < LONG / 2


# Threads, processes and forks


def test_two_threads_with_a_session_each_lose_no_write(store: Store) -> None:
    def flips() -> list[object]:
        with closing(store.connect()) as session:
            return [flip(session, Change(enabled=True, details=Details(message=uuid4().hex))) for _ in range(20)]

    with in_thread(flips) as first, in_thread(flips) as second:
        pass
    assert len({*first[0], *second[0]}) == 40  # type: ignore[misc]


def test_two_processes_see_each_other(shared_url: str) -> None:
    def write() -> None:
        with closing(open_store(shared_url).connect()) as session:
            session.write(ALL_ON)

    assert succeeded(in_child(write))
    with closing(open_store(shared_url).connect()) as session:
        assert Details.from_json(read(session).details) == (EVERYTHING, ())


def test_a_session_survives_a_fork_whose_child_abandons_it(shared_url: str, waker: SocketWaker) -> None:
    store = open_store(shared_url)
    with closing(store.connect(listen=True)) as session:
        before = snapshot(session).revision

        def start_again() -> None:
            session.abandon()
            with closing(store.connect()) as own:
                assert flip(own) > before

        assert succeeded(in_child(start_again))
        assert session.wait(LONG, waker) is True
        assert snapshot(session).enabled is True
        assert session.write(OFF).row.value_bool is False


def test_a_child_s_write_is_seen_after_its_parent_has_closed(shared_url: str) -> None:
    """If SQLite in the child took the parent's lock for its own, the write would go where no process reads."""
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
        assert snapshot(again).enabled is True
    os.close(closed)
    os.close(close)


def test_a_session_is_closed_once(store: Store) -> None:
    session = store.connect()
    session.close()
    session.close()
    if not isinstance(store, MemoryStore):
        with pytest.raises(StoreError, match="clos"):
            session.read()


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
    options = {} if shared_url.startswith("sqlite") else {"statement_timeout": 60}
    store = type(open_store(shared_url))(shared_url, **options)  # type: ignore[call-arg]
    message = r"no answer within 0\.3 s: the server may hang|interrupted: it took too long; check"
    with (
        closing(store.connect()) as session,
        hanging(shared_url),
        pytest.raises(StoreError, match=message),
        session.within(0.3),
    ):
        session.write(ON)
    with closing(store.connect()) as again:
        assert snapshot(again).enabled is False


# Memory alone


def test_each_store_in_memory_is_a_store_of_its_own() -> None:
    first, second = open_store("memory://").connect(), open_store("memory://").connect()
    first.write(ON)
    assert snapshot(second).enabled is False


def test_a_store_in_memory_measures_silence_with_its_clock() -> None:
    now = 100.0
    session = MemoryStore(clock=lambda: now).connect()
    session.report(instance())
    now = 107.0
    assert session.fleet().instances[0].silent_for == 7.0


def test_a_revision_in_memory_grows_also_after_one_that_was_set() -> None:
    store = MemoryStore()
    store.row = Row(True, {}, 7)
    assert [flip(store.connect(), change) for change in (OFF, ON)] == [8, 9]
    store.row = Row(True, {}, 2)
    assert flip(store.connect(), OFF) == 10
    store.row = Row(True, {}, None)
    assert flip(store.connect(), OFF) == 11


def test_the_row_in_memory_can_be_read_replaced_and_deleted() -> None:
    store = MemoryStore()
    before = store.row
    assert before is not None
    store.row = replace(before, value_bool=True, revision=7)
    assert store.row == replace(before, value_bool=True, revision=7)
    store.row = None
    assert store.connect().read().row is None
