"""What a process's own code calls, over the real stores; and what is refused before anything is written."""

import builtins
import datetime as dt
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from maintenance import ConfigurationError, MaintenanceState, Snapshot, StoreError
from maintenance.base.options import LONGEST
from maintenance.base.values import Change, Details, Row
from maintenance.process.in_flight import Entry
from maintenance.process.lease import GRACE
from maintenance.process.life import Thread
from maintenance.process.state import _fork_all, _leave_all
from maintenance.process.watcher import Watcher
from maintenance.stores import MemoryStore, PostgresStore, SQLiteStore, Store
from maintenance.wsgi import MaintenanceMiddleware
from tests.support.clients import call_wsgi
from tests.support.clock import Bell, Clock, hang, refuse, runtime
from tests.support.entering import enter, is_open
from tests.support.faulty import FaultyStore
from tests.support.plain_apps import wsgi
from tests.support.waiting import eventually

NOON = dt.datetime(2026, 11, 21, 12, tzinfo=dt.UTC)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def faulty() -> FaultyStore:
    return FaultyStore()


@pytest.fixture
def still(faulty: FaultyStore, clock: Clock) -> MaintenanceState:
    """A state with no thread and a clock of the test's."""
    return MaintenanceState(faulty, runtime=runtime(clock, start=refuse))


@pytest.fixture
def state(store: Store) -> Iterator[MaintenanceState]:
    """A state over each kind of store."""
    state = MaintenanceState(store)
    yield state
    state.close()


def registered(store: Store) -> set[str]:
    session = store.connect()
    try:
        return {one.id for one in session.fleet().instances}
    finally:
        session.close()


# What is refused at construction


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        *[({name: value}, says) for name in ("ttl", "boot_timeout") for value, says in [
            (0, f"{name} is 0: use seconds above 0"),
            (-1.0, f"{name} is -1.0: use seconds above 0"),
            (float("nan"), f"{name} is nan"),
            (float("inf"), f"{name} is inf"),
            (10**400, f"{name} is 1000"),
            (LONGEST * 2, f"{name} is 2000000.0: use seconds above 0 and at most 1e\\+06"),
            (True, f"{name} is True: use seconds above 0"),
            ("10", f"{name} is '10': use seconds"),
            (None, f"{name} is None"),
        ]],
        ({"when_stale": "panic"}, "when_stale is 'panic': use 'serve' or 'block'"),
        ({"when_stale": None}, "when_stale is None"),
        ({"when_stale": ["serve"]}, "when_stale is"),
        ({"when_stale": "block", "register": False}, "only a registered process may admit"),
    ],
)  # fmt: skip
def test_a_wrong_option_is_refused_with_what_to_write(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        MaintenanceState("memory://", **wrong)


@pytest.mark.parametrize("wrong", [PostgresStore, SQLiteStore, MemoryStore])
def test_a_store_that_was_not_made_is_refused(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match=rf"store is the class {wrong.__name__}: use {wrong.__name__}\("):
        MaintenanceState(wrong)


@pytest.mark.parametrize("wrong", [None, 5, b"memory://", object()])
def test_a_wrong_store_is_refused_with_what_to_write(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match="use a Store, or a URL such as postgresql://"):
        MaintenanceState(wrong)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:hunter2@x@h/d",
        "postgresql://me:hunter2#3@h/d",
        "postgresql://me:hunter2@[h/d",
        "postgresql://me:hunter2@h:port/d?connect_timeout",
        "postgresql+asyncpg://me:hunter2@h/d",
        "mysql://me:hunter2@h/d",
        "hunter2",
    ],
)
def test_a_wrong_url_never_shows_its_password(url: str) -> None:
    with pytest.raises(ConfigurationError, match="write|use") as caught:
        MaintenanceState(url)
    assert "hunter2" not in repr(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("seconds", [0.001, 1, LONGEST])
def test_the_least_and_the_longest_time_are_taken(seconds: float) -> None:
    MaintenanceState("memory://", ttl=seconds, boot_timeout=seconds)


def test_a_wrong_variable_is_refused_at_construction(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAINTENANCE_MODE", "perhaps")
    with pytest.raises(ConfigurationError, match="MAINTENANCE_MODE is 'perhaps'"):
        MaintenanceState("memory://")


def test_making_a_state_connects_to_nothing_and_starts_nothing(faulty: FaultyStore) -> None:
    before = threading.active_count()
    state = MaintenanceState(faulty)
    state.close()
    state.leave()
    assert (faulty.connects, threading.active_count()) == (0, before)


# set()


def test_a_flip_writes_the_store_first_and_returns_what_was_written(state: MaintenanceState, store: Store) -> None:
    told = state.set(
        True, message="m", until=NOON, retry_after=7, mode="read_only", actor="me", updated_by=None, reason="r"
    )
    assert (told.enabled, told.mode, told.message, told.until) == (True, "read_only", "m", NOON)
    assert (told.retry_after, told.actor, told.reason, told.source) == (7, "me", "r", "store")
    assert state.lease.known.revision == told.revision
    assert MaintenanceState(store).refresh().revision == told.revision


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ((1,), TypeError, "enabled is 1: (write|use) True or False"),
        (("on",), TypeError, "enabled is 'on'"),
        ((True, {"mode": "half"}), ValueError, "mode is 'half'"),
        ((True, {"until": dt.datetime(2026, 1, 1)}), ValueError, "names no time zone"),  # noqa: DTZ001
        ((True, {"retry_after": -1}), ValueError, "retry_after is -1"),
        ((True, {"message": 5}), TypeError, "message is a int"),
        ((True, {"updated_by": "me"}), ValueError, "updated_by is 'me': use a UUID, or None"),
        ((True, {"updated_by": 5}), TypeError, "updated_by is a int"),
    ],
)
def test_a_wrong_argument_is_refused_before_anything_is_written(
    faulty: FaultyStore, arguments: tuple[Any, ...], error: type, says: str
) -> None:
    enabled, *more = arguments
    with pytest.raises(error, match=says):
        MaintenanceState(faulty).set(enabled, **(more[0] if more else {}))
    assert faulty.connects == 0


@pytest.mark.parametrize("as_text", [True, False])
def test_who_flips_may_be_a_uuid_or_its_text(faulty: FaultyStore, *, as_text: bool) -> None:
    by = uuid4()
    told = MaintenanceState(faulty).set(True, updated_by=str(by) if as_text else by)
    assert told.updated_by == by
    assert isinstance(told.updated_by, UUID)


def test_a_write_that_did_not_happen_raises_and_changes_no_memory(still: MaintenanceState, faulty: FaultyStore) -> None:
    still.refresh()
    before, held = still.lease.known, still.lease.current
    told: list[Snapshot] = []
    still.on_change(told.append)
    faulty.away()
    with pytest.raises(StoreError, match="away"):
        still.set(True)
    assert (still.lease.known, still.lease.current, told) == (before, held, [])


def test_an_own_write_counts_at_once_and_renews_no_lease(still: MaintenanceState, clock: Clock) -> None:
    still.wait_for_answer()
    until = still.lease.until
    clock.now += 5
    still.set(True)
    assert still.enabled
    assert still.lease.current.deadline == until


def test_a_hung_write_is_ended_from_another_thread(migrated_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import psycopg

    monkeypatch.setattr("maintenance.process.state.WRITE_LIMIT", 0.2)
    state = MaintenanceState(PostgresStore(migrated_url, statement_timeout=60))
    with psycopg.connect(migrated_url) as connection:
        connection.execute("LOCK TABLE platform_settings")
        with pytest.raises(StoreError):
            state.set(True)
    assert not state.lease.known.enabled
    assert not state.refresh().enabled


# prime() and refresh()


def test_priming_reads_now_and_starts_no_thread_and_no_lease(state: MaintenanceState, store: Store) -> None:
    MaintenanceState(store).set(True)
    assert state.prime().enabled
    assert state.lifecycle.watcher is None
    assert not state.lease.running
    assert registered(store) == set()
    assert state.status().condition == "fresh"


def test_code_that_asks_a_primed_process_has_it_follow_and_waits_for_nothing(faulty: FaultyStore, clock: Clock) -> None:
    started: list[Callable[[], None]] = []
    state = MaintenanceState(faulty, runtime=runtime(clock, start=started.append, waker=Bell))
    state.prime()
    faulty.away()
    assert not state.enabled
    assert not state.enabled  # nor does the second one wait for the thread's first read
    assert (faulty.connects, len(started)) == (1, 1)
    assert state.status().condition == "fresh"


@pytest.mark.parametrize("prime", [MaintenanceState.prime, lambda state: state.set(False)])
def test_a_flip_elsewhere_is_seen_at_once_by_code_that_asks(shared_url: str, prime: Any) -> None:
    with (
        closing(MaintenanceState(shared_url, ttl=60.0)) as state,
        closing(MaintenanceState(shared_url, register=False)) as other,
    ):
        prime(state)
        assert not state.enabled
        other.set(True)
        eventually(lambda: state.enabled, 10.0)


def test_code_that_asks_while_it_is_imported_starts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, faulty: FaultyStore, clock: Clock
) -> None:
    """The process may be about to fork: a server that preloads imports the app, and then does."""
    started: list[Callable[[], None]] = []
    state = MaintenanceState(faulty, runtime=runtime(clock, start=started.append, waker=Bell))
    (tmp_path / "asks_while_imported.py").write_text("import builtins\nanswer = builtins.state.enabled\n")
    monkeypatch.setattr(builtins, "state", state, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    state.prime()
    assert import_module("asks_while_imported").answer is False
    assert started == []


def test_what_this_process_has_written_is_an_answer_as_what_it_has_read_is(
    still: MaintenanceState, faulty: FaultyStore
) -> None:
    still.set(True)
    assert still.enabled
    assert faulty.connects == 1
    assert still.status().condition == "fresh"


def test_a_refresh_that_fails_is_told_by_the_status_and_a_write_that_goes_well_ends_that(
    still: MaintenanceState, faulty: FaultyStore
) -> None:
    faulty.inner._table.row = None  # type: ignore[attr-defined]
    with pytest.raises(StoreError):
        still.refresh()
    assert "has no row 'maintenance_mode'" in str(still.status().last_error)
    still.set(True)
    assert still.status().last_error is None


def test_under_block_what_was_primed_is_no_answer_for_code_either(clock: Clock, faulty: FaultyStore) -> None:
    """A proof does not wait for one that is not registered, so it must not say "off" from memory."""
    state = MaintenanceState(faulty, when_stale="block", runtime=runtime(clock, start=refuse))
    state.prime()
    MaintenanceState(faulty).set(True)
    assert state.enabled
    assert len(faulty.inner.connect().fleet().instances) == 1


def test_one_that_has_left_asks_again_before_it_answers(still: MaintenanceState, faulty: FaultyStore) -> None:
    still.prime()
    still.leave()
    MaintenanceState(faulty).set(True)
    assert still.enabled


def test_a_refresh_that_another_answer_overtakes_is_asked_for_again(
    still: MaintenanceState, faulty: FaultyStore, clock: Clock
) -> None:
    still.wait_for_answer()
    assert still.lifecycle.watcher is not None
    bell = still.lifecycle.watcher._waker = Bell()
    own = replace(still.lease.known, revision=99)
    faulty.meanwhile = lambda: still.lease.install(own, ticket=still.lease.ticket())
    still.refresh()
    assert bell.rings == 1


def test_what_was_primed_is_asked_for_again_once_it_is_old(
    still: MaintenanceState, clock: Clock, faulty: FaultyStore
) -> None:
    still.prime()
    clock.now += 10.0
    MaintenanceState(faulty).set(True)
    assert still.status().condition == "stale"
    assert still.enabled
    assert still.lifecycle.watcher is not None
    assert not is_open(still.wait_for_answer())


@pytest.mark.parametrize("when_stale", ["serve", "block"])
def test_a_child_that_is_forked_for_one_question_reads_before_it_answers(
    clock: Clock, faulty: FaultyStore, when_stale: Any
) -> None:
    """As a queue's worker forks for each job: nobody else reads there, and it asks once."""
    parent = MaintenanceState(faulty, ttl=10.0, when_stale=when_stale, runtime=runtime(clock, start=refuse))
    parent.prime()
    for enabled in (True, False):
        MaintenanceState(faulty).set(enabled)
        clock.now += 11.0
        parent.fork()
        assert parent.enabled is enabled


def test_without_a_thread_code_that_asks_reads_again_past_each_ttl(
    still: MaintenanceState, clock: Clock, faulty: FaultyStore
) -> None:
    for enabled in (True, False, True):
        MaintenanceState(faulty).set(enabled)
        clock.now += 11.0
        assert still.enabled is enabled


def test_priming_never_raises_what_the_store_raises(
    still: MaintenanceState, faulty: FaultyStore, caplog: pytest.LogCaptureFixture
) -> None:
    faulty.away()
    assert still.prime().source == "default"
    assert still.status().last_error == "the server is away"
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "using MAINTENANCE_MODE, or off without it (maintenance off): the server is away" in caplog.text


def test_refreshing_raises_it(still: MaintenanceState, faulty: FaultyStore) -> None:
    faulty.away()
    with pytest.raises(StoreError, match="away"):
        still.refresh()
    faulty.back()
    faulty.inner.row = None
    with pytest.raises(StoreError, match="has no row"):
        still.refresh()
    assert faulty.open == 0


def test_refreshing_brings_what_is_there(still: MaintenanceState, faulty: FaultyStore) -> None:
    MaintenanceState(faulty).set(True, message="hi")
    assert still.refresh().message == "hi"
    assert still.lease.known.message == "hi"


def test_a_flip_while_a_refresh_is_under_way_stands(still: MaintenanceState, faulty: FaultyStore) -> None:
    def flip() -> None:
        faulty.meanwhile = lambda: None
        still.set(True)
        faulty.inner.row = Row(False, {}, 99)

    read = faulty.inner.row
    faulty.meanwhile = flip
    assert still.refresh().enabled
    assert read is not None
    assert still.refresh().revision == 99


def test_a_flip_of_another_s_that_is_heard_before_the_own_write_returns_stands(
    still: MaintenanceState, faulty: FaultyStore
) -> None:
    session = faulty.connect()
    write = session.write

    def late(change: Change) -> Row:
        row = write(change)
        faulty.inner.connect().write(Change(enabled=False, details=Details(message="later")))
        still.refresh()
        return row

    session.write = late  # type: ignore[method-assign]
    connect, sessions = faulty.connect, [session]
    faulty.connect = lambda *, listen=False: sessions.pop() if sessions else connect(listen=listen)  # type: ignore[method-assign]
    still.set(True)
    assert (still.lease.known.enabled, still.lease.known.message) == (False, "later")


def test_a_standby_may_be_asked_and_never_takes_back_what_is_known(
    still: MaintenanceState, faulty: FaultyStore
) -> None:
    still.set(True)
    faulty.standby = True
    faulty.inner.row = Row(False, {}, 1)
    assert still.refresh().enabled


def test_a_refresh_says_that_the_store_is_back_only_where_no_thread_does(
    still: MaintenanceState, faulty: FaultyStore, clock: Clock
) -> None:
    faulty.away()
    still.prime()
    faulty.back()
    still.refresh()
    assert still.status().last_error is None
    still.wait_for_answer()
    clock.now += 10.0
    faulty.away()
    still.wait_for_answer()
    faulty.back()
    still.refresh()
    assert still.status().last_error == "the server is away"  # it renews no lease


# snapshot() and enabled


def test_before_the_first_read_code_that_asks_waits_as_a_request_does(
    still: MaintenanceState, faulty: FaultyStore
) -> None:
    MaintenanceState(faulty).set(True)
    assert still.enabled
    assert faulty.reads == 1
    assert still.snapshot().source == "store"
    assert faulty.reads == 1


def test_code_that_asks_lets_no_request_rest_on_an_old_answer(
    still: MaintenanceState, clock: Clock, faulty: FaultyStore
) -> None:
    still.wait_for_answer()
    assert still.lifecycle.watcher is not None
    still.lifecycle.watcher.thread = Thread.RUNNING  # a thread reads for it, and is late
    for _ in range(30):
        clock.now += 0.5
        assert not still.enabled
    assert not clock.now < still.lease.current.deadline
    still.lifecycle.watcher.thread = Thread.NONE
    MaintenanceState(faulty).set(True)
    assert not is_open(still.wait_for_answer())


def test_under_block_code_that_asks_hears_that_nothing_is_admitted(faulty: FaultyStore, clock: Clock) -> None:
    state = MaintenanceState(faulty, when_stale="block", runtime=runtime(clock, start=hang))
    state.start()
    assert state.lifecycle.watcher is not None
    state.lifecycle.watcher._try()
    state.lifecycle.watcher.thread = Thread.RUNNING
    assert not state.enabled
    clock.now += 10.0
    assert state.enabled


def test_while_the_store_is_away_code_that_asks_hears_what_requests_get(
    still: MaintenanceState, clock: Clock, faulty: FaultyStore
) -> None:
    still.set(True)
    still.wait_for_answer()
    faulty.away()
    clock.now += 11.0
    assert still.wait_for_answer().snapshot.enabled
    clock.now += GRACE
    assert still.enabled


# status()


def test_a_status_says_how_the_process_stands(state: MaintenanceState, store: Store) -> None:
    before = state.status()
    assert (before.condition, before.instance, before.registered, before.listening) == (
        "never read",
        None,
        False,
        False,
    )
    assert (before.ttl, before.when_stale, before.store, before.in_flight) == (10.0, "serve", store.name, 0)
    state.wait_for_answer()
    now = eventually(lambda: told if (told := state.status()).registered else None)
    assert (now.condition, now.last_error, now.registration_error) == ("fresh", None, None)
    assert now.instance in registered(store)
    assert now.since >= before.since
    assert eventually(lambda: state.status().listening)


def test_a_status_asks_no_bypass(still: MaintenanceState) -> None:
    asked: list[object] = []
    admission = MaintenanceMiddleware(wsgi, still, bypass=lambda request: bool(asked.append(request)))._admission
    assert admission.in_flight is not None
    enter(admission.in_flight, "GET", "/", "", {}, 0.0)
    still.set(True)
    asked.clear()
    assert still.status().in_flight == 1
    assert asked == []


def test_a_wrong_store_is_told_by_its_type_alone() -> None:
    with pytest.raises(ConfigurationError, match="store is a bytes: use a Store, or a URL") as caught:
        MaintenanceState(b"postgresql://me:hunter2@h/d")  # type: ignore[arg-type]
    assert "hunter2" not in str(caught.value)


def test_a_status_counts_all_in_flight_and_none_where_one_middleware_does_not_track(
    still: MaintenanceState,
) -> None:
    tracked = MaintenanceMiddleware(wsgi, still)._admission.in_flight
    assert tracked is not None
    enter(tracked, "GET", "/health", "", {}, 0.0)
    assert still.status().in_flight == 1
    MaintenanceMiddleware(wsgi, still, in_flight=False)
    assert still.status().in_flight is None


# on_change()


def test_a_change_is_told_once_for_each_flip_from_wherever_it_comes(
    still: MaintenanceState, faulty: FaultyStore
) -> None:
    still.refresh()
    told: list[Snapshot] = []
    assert still.on_change(told.append) is not None
    still.set(True, message="a")
    still.set(True, message="a", updated_by=uuid4())  # nothing that was said has changed
    still.refresh()
    MaintenanceState(faulty).set(True, message="b")
    still.refresh()
    still.refresh()
    assert [one.message for one in told] == ["a", "b"]


def test_a_callback_that_fails_is_logged_and_hinders_nobody(
    still: MaintenanceState, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[Snapshot] = []

    @still.on_change
    def bad(snapshot: Snapshot) -> None:
        raise ValueError("mine")

    still.on_change(told.append)
    assert still.set(True).enabled
    assert [one.enabled for one in told] == [True]
    assert "an on_change callback failed" in caplog.text
    assert "ValueError: mine" in caplog.text


def test_a_callback_may_flip_and_close(still: MaintenanceState) -> None:
    @still.on_change
    def back(snapshot: Snapshot) -> None:
        if snapshot.enabled:
            still.set(False)
            still.close()

    still.set(True)
    assert not still.lease.known.enabled
    assert still.closed


def test_of_two_flips_at_once_the_last_one_told_is_the_one_that_stands(still: MaintenanceState) -> None:
    told: list[str | None] = []
    first, go_on = threading.Event(), threading.Event()

    @still.on_change
    def slow(snapshot: Snapshot) -> None:
        if snapshot.message == "one":
            first.set()
            assert go_on.wait(10)
        told.append(snapshot.message)

    flipping = threading.Thread(target=lambda: still.set(True, message="one"))
    flipping.start()
    assert first.wait(10)
    still.set(True, message="two")
    assert told == []  # the first call is not over
    go_on.set()
    flipping.join(10)
    assert told == ["one", "two"]
    assert still.lease.known.message == "two"


def test_a_callback_that_takes_its_time_holds_up_no_reading() -> None:
    store, go_on = MemoryStore(), threading.Event()
    told: list[int | None] = []
    with closing(MaintenanceState(store, ttl=0.4)) as state:

        @state.on_change
        def slow(snapshot: Snapshot) -> None:
            told.append(snapshot.revision)
            assert go_on.wait(10)

        state.wait_for_answer()
        eventually(lambda: told, what="the first read")
        other = MaintenanceState(store, register=False)
        for enabled in (True, False, True):
            last = other.set(enabled).revision
            eventually(lambda: state.lease.known.revision == last and state.lease.running)  # noqa: B023
        read_at = state.lease.known.read_at
        eventually(lambda: state.lease.known.read_at > read_at, what="another read")
        assert told == [1]
        go_on.set()
        eventually(lambda: told == [1, last])


def test_a_read_that_brings_nothing_new_starts_no_thread_to_tell_it(faulty: FaultyStore, clock: Clock) -> None:
    started: list[Callable[[], None]] = []
    state = MaintenanceState(faulty, runtime=runtime(clock, start=started.append, waker=Bell))
    state.on_change(lambda _: None)
    state.refresh()
    for starts in (0, 1):
        state._listeners.notify_in_thread()
        assert len(started) == starts
        state.lease.install(replace(state.lease.known, revision=99), ticket=state.lease.ticket())


def test_where_no_thread_can_be_started_a_request_tells(still: MaintenanceState, faulty: FaultyStore) -> None:
    told: list[bool] = []
    still.on_change(lambda snapshot: told.append(snapshot.enabled))
    MaintenanceState(faulty).set(True)
    still.wait_for_answer()
    assert told == [True]


def test_a_callback_that_calls_exit_or_whose_failure_cannot_be_logged_hinders_nobody(
    still: MaintenanceState, failing_log: list[str]
) -> None:
    @still.on_change
    def leave(_: Snapshot) -> None:
        raise SystemExit("reload")

    told: list[Snapshot] = []
    still.on_change(told.append)
    still.set(True)
    still.set(False)
    assert [one.enabled for one in told] == [True, False]
    assert len(failing_log) == 2


def test_a_callback_that_is_interrupted_ends_no_later_call(still: MaintenanceState) -> None:
    told: list[bool] = []

    @still.on_change
    def interrupted(snapshot: Snapshot) -> None:
        told.append(snapshot.enabled)
        if snapshot.enabled:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        still.set(True)
    still.set(False)
    assert told == [True, False]


def test_the_child_of_a_fork_tells_although_its_parent_was_telling(still: MaintenanceState) -> None:
    told: list[bool] = []

    @still.on_change
    def fork(snapshot: Snapshot) -> None:
        told.append(snapshot.enabled)
        if snapshot.enabled:
            still.fork()
            still.set(False)

    still.set(True)
    assert told == [True, False]


# leave() and close()


def test_leaving_removes_the_row_and_the_next_request_brings_it_back(state: MaintenanceState, store: Store) -> None:
    app = MaintenanceMiddleware(wsgi, state)
    assert call_wsgi(app).status == 200
    first = eventually(lambda: registered(store))
    state.leave()
    assert registered(store) == set()
    assert not state.lease.running
    assert call_wsgi(app).status == 200
    second = eventually(lambda: registered(store))
    assert len(second) == 1
    assert not first & second


def test_closing_admits_nothing_and_removes_the_row(state: MaintenanceState, store: Store) -> None:
    app = MaintenanceMiddleware(wsgi, state)
    assert call_wsgi(app).status == 200
    eventually(lambda: registered(store))
    state.close()
    state.close()
    assert registered(store) == set()
    assert call_wsgi(app).status == 503
    assert call_wsgi(app, "/health").status == 200
    assert state.enabled
    state.start()
    assert state.lifecycle.watcher is None
    assert not state.set(False).enabled  # a flip is still one
    assert call_wsgi(app).status == 503


def test_the_row_stays_until_what_is_in_flight_has_ended(state: MaintenanceState, store: Store) -> None:
    admission = MaintenanceMiddleware(wsgi, state)._admission
    assert admission.in_flight is not None
    state.wait_for_answer()
    mine = eventually(lambda: registered(store))
    entry = enter(admission.in_flight, "POST", "/slow", "", {}, 0.0)
    state.close()
    assert registered(store) == mine
    entry.clear()
    eventually(lambda: registered(store) == set())


def test_a_request_that_meets_close_begins_nothing(still: MaintenanceState, faulty: FaultyStore) -> None:
    begin = still.lifecycle.begin

    def late() -> None:
        still.close()
        begin()

    still.lifecycle.begin = late  # type: ignore[method-assign]
    assert not is_open(still.wait_for_answer())
    assert still.lifecycle.watcher is None
    assert (faulty.connects, registered(faulty)) == (0, set())


def test_close_ends_what_a_request_is_just_beginning(
    still: MaintenanceState, faulty: FaultyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    closing = threading.Thread(target=still.close)

    class Slow(Watcher):
        def __init__(self, *parts: Any, **options: Any) -> None:
            closing.start()
            closing.join(0.2)  # it must wait for what is made here
            super().__init__(*parts, **options)

    monkeypatch.setattr("maintenance.process.lifecycle.Watcher", Slow)
    still.peek()
    closing.join(10)
    assert still.lifecycle.watcher is None
    assert registered(faulty) == set()


def test_at_exit_every_state_leaves(state: MaintenanceState, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("maintenance.process.state._states", {state})  # not those of other tests
    state.wait_for_answer()
    eventually(lambda: registered(store))
    _leave_all()
    assert registered(store) == set()


# Forks


def test_a_child_reads_for_itself_and_leaves_its_parent_alone(tmp_path: Any, sqlite_url: str) -> None:
    state = MaintenanceState(sqlite_url)
    admission = MaintenanceMiddleware(wsgi, state)._admission
    assert admission.in_flight is not None
    enter(admission.in_flight, "GET", "/the-parent-s", "", {}, 0.0)
    state.wait_for_answer()
    mine = eventually(lambda: registered(state.store))
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        signal.alarm(20)
        try:
            runs, answer, status = state.lease.running, state.wait_for_answer(), state.status()
            said = f"{runs} {status.in_flight} {not answer.snapshot.enabled} {status.instance}"
            os.write(writer, said.encode())
            eventually(lambda: state.status().registered)
            state.leave()
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    runs, in_flight, admits, instance = os.read(reader, 200).decode().split()
    os.close(reader)
    os.close(writer)
    assert (runs, in_flight, admits) == ("False", "0", "True")
    assert {instance}.isdisjoint(mine)
    assert registered(state.store) == mine
    assert state.lease.running
    state.close()


def test_each_state_is_told_of_a_fork(still: MaintenanceState) -> None:
    still.wait_for_answer()
    assert still.lease.running
    before = still.lifecycle._lock
    _fork_all()
    assert not still.lease.running
    assert still.lifecycle.watcher is None
    assert still.lifecycle._lock is not before
    assert is_open(still.wait_for_answer())


# fleet() and forget()


def test_the_fleet_is_who_has_registered_and_one_can_be_forgotten(store: Store, state: MaintenanceState) -> None:
    state.wait_for_answer()
    eventually(lambda: state.status().registered)
    watcher = MaintenanceState(store, register=False)
    seen = watcher.fleet()
    assert [one.pid for one in seen.instances] == [os.getpid()]
    assert watcher.forget(str(UUID(seen.instances[0].id)).upper()), "however it is written"
    assert not watcher.forget(uuid4().hex)
    assert not watcher.forget("nonsense")
    with pytest.raises(TypeError, match="instance is 5: use its id"):
        watcher.forget(5)  # type: ignore[arg-type]


def test_a_memory_store_shared_by_two_states_is_one_flag() -> None:
    store = MemoryStore()
    MaintenanceState(store).set(True)
    assert MaintenanceState(store).refresh().enabled


@pytest.mark.parametrize("wrong", [1, None, "yes"])
def test_an_option_that_is_neither_true_nor_false_is_refused(wrong: object) -> None:
    with pytest.raises(ConfigurationError, match="register is .*: use True or False"):
        MaintenanceState("memory://", register=wrong)  # type: ignore[arg-type]


def test_what_cannot_be_called_is_refused_as_a_callback() -> None:
    async def later(_: Snapshot) -> None:
        raise AssertionError("nobody awaits it")

    with pytest.raises(ConfigurationError, match="callback is the async function .*: use a plain one"):
        MaintenanceState("memory://").on_change(later)
    with pytest.raises(ConfigurationError, match="callback is None: use a function"):
        MaintenanceState("memory://").on_change(None)  # type: ignore[type-var]


def test_a_middleware_that_attaches_twice_is_counted_once() -> None:
    class InFlightSource:
        def entries(self, snapshot: Snapshot) -> list[tuple[Entry, bool]]:
            return [(Entry("GET", "/", "", 1.0, None), True)]

        def clear(self) -> None:
            """A fork in a later test tells this state too, while it is there."""

        def notify(self, snapshot: Snapshot) -> None:
            told.append(snapshot.enabled)

    told: list[bool] = []
    state, meter = MaintenanceState("memory://"), InFlightSource()
    state.attach(meter)
    state.attach(meter)
    assert state.status().in_flight == 1
    state.set(True)
    assert told == [True]
