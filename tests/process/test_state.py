"""The calls of the app's code, over the real stores, and the arguments that are refused before anything is written."""

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
from weakref import WeakValueDictionary

import pytest

from maintenance import ConfigurationError, MaintenanceState, Snapshot, StoreError
from maintenance.base.options import LONGEST
from maintenance.base.values import Change, Details, Row, Written
from maintenance.process import leaving
from maintenance.process.lease import LAGGING
from maintenance.process.life import Event, Purpose, Thread
from maintenance.process.state import _fork_all
from maintenance.process.watcher import Watcher
from maintenance.stores import MemoryStore, PostgresStore, SQLiteStore, Store
from maintenance.wsgi import MaintenanceMiddleware
from tests.support.clients import call_wsgi
from tests.support.clock import Bell, Clock, refuse, runtime
from tests.support.entering import enter, is_open
from tests.support.faulty import FaultyStore
from tests.support.life import enter_request, watcher_of
from tests.support.plain_apps import wsgi
from tests.support.waiting import eventually

NOON = dt.datetime(2026, 11, 21, 12, tzinfo=dt.UTC)


@pytest.fixture
def state(store: Store) -> Iterator[MaintenanceState]:
    """A state over each kind of store."""
    with closing(MaintenanceState(store)) as state:
        yield state


@pytest.fixture
def started() -> list[Any]:
    """What `starting` was asked to start."""
    return []


@pytest.fixture
def starting(faulty: FaultyStore, clock: Clock, started: list[Any]) -> MaintenanceState:
    """A state whose threads are started, and never run."""
    return MaintenanceState(faulty, runtime=runtime(clock, start=started.append, waker=Bell))


def registered(store: Store) -> set[str]:
    with closing(store.connect()) as session:
        return {instance.id for instance in session.fleet().instances}


def flip(store: Store, enabled: bool, **details: Any) -> Snapshot:
    """Flip the flag from another process."""
    return MaintenanceState(store, register=False).set(enabled, **details)


# Options that are refused


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        *[({name: value}, error) for name in ("ttl", "boot_timeout") for value, error in [
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
        ({"service": "web 1"}, "service is 'web 1': use at most 50 letters, digits and ._-"),
        ({"when_stale": "panic"}, "when_stale is 'panic': use 'serve' or 'block'"),
        ({"when_stale": None}, "when_stale is None"),
        ({"when_stale": ["serve"]}, "when_stale is"),
        ({"when_stale": "block", "register": False}, "only a registered process may admit"),
        *[({"register": value}, "register is .*: use True or False") for value in (1, None, "yes")],
        *[({"store": wrong}, rf"store is the class {wrong.__name__}: use {wrong.__name__}\(")
          for wrong in (PostgresStore, SQLiteStore, MemoryStore)],
        *[({"store": value}, rf"store is a {type(value).__name__}: use a Store, or a URL such as postgresql://[^:]*$")
          for value in (None, 5, b"postgresql://me:hunter2@h/d", object())],
    ],
)  # fmt: skip
def test_a_wrong_option_is_refused_with_what_to_write(wrong: dict[str, Any], error: str) -> None:
    with pytest.raises(ConfigurationError, match=error):
        MaintenanceState(**{"store": "memory://", **wrong})


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
def test_the_shortest_and_the_longest_time_are_accepted(seconds: float) -> None:
    MaintenanceState("memory://", ttl=seconds, boot_timeout=seconds)


def test_a_wrong_variable_is_refused_at_construction(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAINTENANCE_MODE", "perhaps")
    with pytest.raises(ConfigurationError, match="MAINTENANCE_MODE is 'perhaps'"):
        MaintenanceState("memory://")


def test_a_state_connects_to_nothing_and_starts_no_thread(faulty: FaultyStore) -> None:
    before = threading.active_count()
    state = MaintenanceState(faulty)
    state.close()
    state.leave()
    assert (faulty.connects, threading.active_count()) == (0, before)


# set()


def test_set_writes_the_store_and_returns_what_was_written(state: MaintenanceState, store: Store) -> None:
    given = {"message": "m", "until": NOON, "retry_after": 7, "mode": "read_only", "actor": "me", "reason": "r"}
    snapshot = state.set(True, updated_by=None, **given)  # type: ignore[arg-type]
    assert {name: getattr(snapshot, name) for name in given} == given
    assert (snapshot.enabled, snapshot.source) == (True, "store")
    assert state.lease.known.site == snapshot
    assert MaintenanceState(store).refresh().revision == snapshot.revision


@pytest.mark.parametrize(
    ("enabled", "options", "error", "message"),
    [
        (1, {}, TypeError, "enabled is 1: (write|use) True or False"),
        ("on", {}, TypeError, "enabled is 'on'"),
        (True, {"mode": "half"}, ValueError, "mode is 'half'"),
        (True, {"until": dt.datetime(2026, 1, 1)}, ValueError, "names no time zone"),  # noqa: DTZ001
        (True, {"retry_after": -1}, ValueError, "retry_after is -1"),
        (True, {"message": 5}, TypeError, "message is a int"),
        (True, {"updated_by": "me"}, ValueError, "updated_by is 'me': use a UUID, or None"),
        (True, {"updated_by": 5}, TypeError, "updated_by is a int"),
    ],
)
def test_a_wrong_argument_is_refused_before_anything_is_written(
    faulty: FaultyStore, enabled: Any, options: dict[str, Any], error: type, message: str
) -> None:
    with pytest.raises(error, match=message):
        MaintenanceState(faulty).set(enabled, **options)
    assert faulty.connects == 0


@pytest.mark.parametrize("as_given", [str, lambda by: by])
def test_updated_by_is_a_uuid_or_its_text(faulty: FaultyStore, as_given: Any) -> None:
    by = uuid4()
    assert MaintenanceState(faulty).set(True, updated_by=as_given(by)).updated_by == by


def test_a_write_that_fails_changes_no_memory(threadless: MaintenanceState, faulty: FaultyStore) -> None:
    threadless.refresh()
    before, called = (threadless.lease.known, threadless.lease.current), []
    threadless.on_change(called.append)
    faulty.away()
    with pytest.raises(StoreError, match="away"):
        threadless.set(True)
    assert (threadless.lease.known, threadless.lease.current) == before
    assert called == []


def test_an_own_write_counts_at_once_and_renews_no_lease(threadless: MaintenanceState, clock: Clock) -> None:
    threadless.wait_for_answer()
    until = threadless.lease.until
    clock.now += 5
    threadless.set(True)
    assert threadless.enabled
    assert threadless.lease.current.deadline == until


def test_an_own_write_wakes_the_thread_which_reads_only_if_the_last_read_failed(
    threadless: MaintenanceState, monkeypatch: pytest.MonkeyPatch
) -> None:
    threadless.wait_for_answer()
    reads: list[bool] = []
    monkeypatch.setattr(watcher_of(threadless), "wake", lambda *, read=True: reads.append(read))
    threadless.set(True)
    threadless.lease.fail("away")
    threadless.set(False)
    assert reads == [False, True]


def test_a_write_that_hangs_is_ended_from_another_thread(migrated_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import psycopg

    monkeypatch.setattr("maintenance.process.state.WRITE_LIMIT", 0.2)
    state = MaintenanceState(PostgresStore(migrated_url, statement_timeout=60))
    with psycopg.connect(migrated_url) as connection:
        connection.execute("LOCK TABLE platform_settings")
        with pytest.raises(StoreError):
            state.set(True)
    assert not state.lease.known.site.enabled
    assert not state.refresh().enabled


# prime() and refresh()


def test_prime_reads_now_and_starts_no_thread_and_no_lease(state: MaintenanceState, store: Store) -> None:
    flip(store, True)
    assert state.prime().enabled
    assert (state.lifecycle.watcher, state.lease.running, registered(store)) == (None, False, set())
    assert state.status().condition == "fresh"


def test_a_primed_process_begins_to_follow_when_its_code_asks_and_does_not_wait(
    starting: MaintenanceState, faulty: FaultyStore, started: list[Any]
) -> None:
    starting.prime()
    faulty.away()
    assert not starting.enabled
    assert not starting.enabled  # the second call does not wait for the thread's first read either
    assert (faulty.connects, len(started)) == (1, 1)
    assert starting.status().condition == "fresh"


@pytest.mark.parametrize("prime", [MaintenanceState.prime, lambda state: state.set(False)])
def test_the_app_s_code_sees_a_flip_of_another_process_at_once(shared_url: str, prime: Any) -> None:
    with (
        closing(MaintenanceState(shared_url, ttl=60.0)) as state,
        closing(MaintenanceState(shared_url, register=False)) as other,
    ):
        prime(state)
        assert not state.enabled
        other.set(True)
        eventually(lambda: state.enabled, 10.0)


def test_code_that_asks_during_an_import_starts_no_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, starting: MaintenanceState, started: list[Any]
) -> None:
    """A server that preloads imports the app, and forks after that."""
    (tmp_path / "asks_while_imported.py").write_text("import builtins\nanswer = builtins.state.enabled\n")
    monkeypatch.setattr(builtins, "state", starting, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    starting.prime()
    assert import_module("asks_while_imported").answer is False
    assert started == []


def test_a_refresh_that_another_answer_overtakes_wakes_the_thread(
    threadless: MaintenanceState, faulty: FaultyStore
) -> None:
    threadless.wait_for_answer()
    bell = watcher_of(threadless)._waker = Bell()
    own = replace(threadless.lease.known, revision=99)
    faulty.meanwhile = lambda: threadless.lease.install(own, ticket=threadless.lease.ticket())
    threadless.refresh()
    assert bell.rings == 1


def test_prime_logs_an_error_and_refresh_raises_it(
    threadless: MaintenanceState, faulty: FaultyStore, caplog: pytest.LogCaptureFixture
) -> None:
    faulty.away()
    assert threadless.prime().source == "default"
    assert threadless.status().last_error == "the server is away"
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "using MAINTENANCE_MODE, or off without it (maintenance off): the server is away" in caplog.text
    with pytest.raises(StoreError, match="away"):
        threadless.refresh()
    faulty.back()
    faulty.inner.row = None
    with pytest.raises(StoreError, match="has no row 'maintenance_mode'"):
        threadless.refresh()
    assert "has no row" in str(threadless.status().last_error)
    assert faulty.open == 0
    threadless.set(True, message="hi")
    assert threadless.status().last_error is None
    assert threadless.refresh().message == threadless.lease.known.site.message == "hi"


def test_an_own_flip_during_a_refresh_stays(threadless: MaintenanceState, faulty: FaultyStore) -> None:
    def flip_here() -> None:
        faulty.meanwhile = lambda: None
        threadless.set(True)
        faulty.inner.row = Row(False, {}, 99)

    faulty.meanwhile = flip_here
    assert threadless.refresh().enabled
    assert threadless.refresh().revision == 99


def test_a_later_flip_that_is_read_before_the_own_write_returns_stays(
    threadless: MaintenanceState, faulty: FaultyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = faulty.connect()
    write = session.write

    def return_late(change: Change) -> Written:
        written = write(change)
        monkeypatch.undo()
        faulty.inner.connect().write(Change(enabled=False, details=Details(message="later")))
        threadless.refresh()
        return written

    monkeypatch.setattr(session, "write", return_late)
    monkeypatch.setattr(faulty, "connect", lambda **_: session)
    threadless.set(True)
    assert (threadless.lease.known.site.enabled, threadless.lease.known.site.message) == (False, "later")


# snapshot() and enabled, in a process without a thread

AWAY = "the server is away"
SERVE, BLOCK, BOTH = ("serve",), ("block",), ("serve", "block")
STEPS: dict[str, Callable[[MaintenanceState, Any], object]] = {
    "prime": lambda state, _: state.prime(),
    "refresh": lambda state, _: state.refresh(),
    "set": lambda state, _: state.set(True),
    "ask": lambda state, _: state.enabled,
    "request": lambda state, _: state.wait_for_answer(),
    "leave": lambda state, _: state.leave(),
    "fork": lambda state, _: state.fork(),  # as a queue's worker forks for each job
    "hang": lambda state, _: setattr(watcher_of(state), "thread", Thread.RUNNING),
    "end": lambda state, _: setattr(watcher_of(state), "thread", Thread.NONE),
    "on": lambda _, store: flip(store.inner, True),
    "off": lambda _, store: flip(store.inner, False),
    "away": lambda _, store: store.away(),
    "back": lambda _, store: store.back(),
    "lag": lambda _, store: (setattr(store, "standby", True), store.go_back(Row(False, {}, 1))),
}


@pytest.mark.parametrize(
    ("when_stale", "steps", "condition", "error", "enabled", "reads"),
    [
        (when_stale, *row)
        for modes, *row in [
            (BOTH, "on", "never read", None, True, 1),
            (BOTH, "on ask ask", "fresh", None, True, 1),
            # An answer of `prime` or `set` counts for the TTL. Under `block` only a registered process may use it.
            (SERVE, "set", "fresh", None, True, 0),
            (BLOCK, "set", "fresh", None, True, 1),
            (SERVE, "prime on", "fresh", None, False, 1),
            (BLOCK, "prime on", "fresh", None, True, 2),
            (BOTH, "prime on ttl", "stale", None, True, 2),
            (BOTH, "prime leave on", "stale", None, True, 2),
            (BOTH, "prime fork on", "stale", None, True, 2),
            (SERVE, "set lag refresh", "fresh", LAGGING, True, 1),
            # Past each TTL, the caller reads.
            (BOTH, "request on", "fresh", None, False, 1),
            (BOTH, "request on ttl", "stale", None, True, 2),
            (BOTH, "request on ttl ask off ttl", "stale", None, False, 3),
            (BOTH, "prime on ttl fork ask off ttl fork", "stale", None, False, 3),
            # A thread that hangs reads for the caller. The answer of the caller makes no old answer valid for longer.
            (SERVE, "request hang ttl", "stale", None, False, 1),
            (BLOCK, "request hang ttl", "stale", None, True, 1),
            (SERVE, "request hang ttl ask end on", "stale", None, True, 2),
            # The store is away
            (SERVE, "set request away ttl request", "stale", AWAY, True, 2),
            (BLOCK, "request away ttl request", "stale", AWAY, True, 2),
            (BOTH, "away prime", "never read", AWAY, None, 0),
            (BOTH, "away prime back refresh", "fresh", None, False, None),
            (BOTH, "request ttl away request back refresh", "stale", AWAY, None, None),  # `refresh` renews no lease
        ]
        for when_stale in modes
    ],
)  # fmt: skip
def test_after_these_steps_the_app_s_code_gets(
    faulty: FaultyStore, clock: Clock, when_stale: Any, steps: str, *,
    condition: str, error: str | None, enabled: bool | None, reads: int | None,
) -> None:  # fmt: skip
    state = MaintenanceState(faulty, ttl=10.0, when_stale=when_stale, runtime=runtime(clock, start=refuse))
    for step in steps.split():
        if step == "ttl":
            clock.now += 11.0
        else:
            STEPS[step](state, faulty)
    status = state.status()
    assert (status.condition, status.last_error) == (condition, error)
    assert state.enabled is (when_stale == "block" if enabled is None else enabled)
    assert reads in (None, faulty.reads)


# status()


def test_a_status_shows_the_life_of_the_process(state: MaintenanceState, store: Store) -> None:
    before = state.status()
    assert (before.condition, before.instance, before.registered, before.listening) == (
        "never read",
        None,
        False,
        False,
    )
    assert (before.ttl, before.when_stale, before.store, before.in_flight) == (10.0, "serve", store.name, 0)
    state.wait_for_answer()
    now = eventually(lambda: status if (status := state.status()).registered else None)
    assert (now.condition, now.last_error, now.registration_error) == ("fresh", None, None)
    assert now.instance in registered(store)
    assert now.since >= before.since
    assert eventually(lambda: state.status().listening)


def test_a_status_counts_all_that_is_in_flight_and_asks_no_bypass(threadless: MaintenanceState) -> None:
    asked: list[object] = []
    app = MaintenanceMiddleware(wsgi, threadless, bypass=lambda request: bool(asked.append(request)))
    assert app._admission.in_flight is not None
    enter(app._admission.in_flight, "GET", "/health", "", {}, 0.0)
    threadless.set(True)
    asked.clear()
    assert threadless.status().in_flight == 1
    assert asked == []
    MaintenanceMiddleware(wsgi, threadless, in_flight=False)
    assert threadless.status().in_flight is None


# leave() and close()


def test_leave_removes_the_row_and_the_next_request_brings_it_back(state: MaintenanceState, store: Store) -> None:
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


def test_close_admits_nothing_and_removes_the_row(state: MaintenanceState, store: Store) -> None:
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


def test_close_keeps_the_row_until_the_requests_in_flight_have_ended(state: MaintenanceState, store: Store) -> None:
    state.wait_for_answer()
    mine = eventually(lambda: registered(store))
    entry = enter_request(state)
    state.close()
    assert registered(store) == mine
    entry.clear()
    eventually(lambda: registered(store) == set())


def test_a_request_that_comes_during_close_starts_nothing(
    threadless: MaintenanceState, faulty: FaultyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = threadless.lifecycle.begin

    def begin_late(purpose: Purpose) -> None:
        threadless.close()
        begin(purpose)

    monkeypatch.setattr(threadless.lifecycle, "begin", begin_late)
    assert not is_open(threadless.wait_for_answer())
    assert threadless.lifecycle.watcher is None
    assert (faulty.connects, registered(faulty)) == (0, set())


def test_close_ends_the_life_that_a_request_is_just_beginning(
    threadless: MaintenanceState, faulty: FaultyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    closing = threading.Thread(target=threadless.close)

    class Slow(Watcher):
        def __init__(self, *parts: Any, **options: Any) -> None:
            closing.start()
            closing.join(0.2)  # it must wait for what is made here
            super().__init__(*parts, **options)

    monkeypatch.setattr("maintenance.process.lifecycle.Watcher", Slow)
    threadless.peek()
    closing.join(10)
    assert threadless.lifecycle.watcher is None
    assert registered(faulty) == set()


def test_at_exit_every_state_leaves(state: MaintenanceState, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    only = WeakValueDictionary({1: state})  # not those of other tests
    monkeypatch.setattr("maintenance.process.state._states", only)
    state.wait_for_answer()
    eventually(lambda: registered(store))
    leaving._leave_all(Event.LEAVE)
    assert registered(store) == set()


# Forks


def test_the_child_of_a_fork_reads_for_itself_and_leaves_its_parent_alone(sqlite_url: str) -> None:
    state = MaintenanceState(sqlite_url)
    enter_request(state)
    state.wait_for_answer()
    mine = eventually(lambda: registered(state.store))
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        signal.alarm(20)
        try:
            runs, answer, status = state.lease.running, state.wait_for_answer(), state.status()
            report = f"{runs} {status.in_flight} {not answer.snapshot.enabled} {status.instance}"
            os.write(writer, report.encode())
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


def test_a_fork_resets_each_state(threadless: MaintenanceState) -> None:
    threadless.wait_for_answer()
    assert threadless.lease.running
    before = threadless.lifecycle._lock
    _fork_all()
    assert not threadless.lease.running
    assert threadless.lifecycle.watcher is None
    assert threadless.lifecycle._lock is not before
    assert is_open(threadless.wait_for_answer())


# fleet() and forget()


def test_fleet_lists_each_registered_process_and_forget_removes_one(store: Store, state: MaintenanceState) -> None:
    state.wait_for_answer()
    eventually(lambda: state.status().registered)
    observer = MaintenanceState(store, register=False)
    [instance] = observer.fleet().instances
    assert instance.pid == os.getpid()
    assert observer.forget(str(UUID(instance.id)).upper()), "in any form of a UUID"
    assert not observer.forget(uuid4().hex)
    assert not observer.forget("nonsense")
    with pytest.raises(TypeError, match="instance is 5: use its id"):
        observer.forget(5)  # type: ignore[arg-type]


def test_two_states_over_one_memory_store_share_the_flag() -> None:
    store = MemoryStore()
    flip(store, True)
    assert MaintenanceState(store).refresh().enabled


def test_if_a_server_freezes_threads_the_requests_read(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("maintenance.process.watcher.has_frozen_threads", lambda: True)
    with closing(MaintenanceState(store)) as state:
        wrapped = MaintenanceMiddleware(wsgi, state)
        assert call_wsgi(wrapped).status == 200
        assert watcher_of(state).thread is Thread.NONE
