"""Who waits for the store, and for how long: with a clock that moves only while somebody waits."""

import contextlib
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from maintenance import MaintenanceState
from maintenance.errors import LateError
from maintenance.process.lease import GRACE, Answer
from maintenance.process.life import Event, Thread
from maintenance.process.lifecycle import LEAVE_LIMIT
from maintenance.process.waiting import PATIENCE, SHORT_PATIENCE
from maintenance.wsgi import MaintenanceMiddleware
from tests.support.clock import Bell, Clock, Queue, Waits, hang, refuse, runtime
from tests.support.entering import enter, is_open
from tests.support.faulty import FaultyStore
from tests.support.plain_apps import wsgi
from tests.support.waiting import eventually

TTL = 10.0


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def waits(clock: Clock) -> Waits:
    return Waits(clock)


@pytest.fixture
def store() -> FaultyStore:
    return FaultyStore()


Make = Callable[..., MaintenanceState]


@pytest.fixture
def hanging(store: FaultyStore, clock: Clock, waits: Waits) -> Make:
    """A process whose thread hangs in a read that never comes back."""

    def made(**options: Any) -> MaintenanceState:
        state = MaintenanceState(
            store, ttl=TTL, runtime=runtime(clock, start=hang, event=waits.event), register=False, **options
        )
        state.start()
        assert state.lifecycle.watcher is not None
        state.lifecycle.watcher.thread = Thread.RUNNING
        state.lifecycle.watcher.trying_since = clock.now
        return state

    return made


def read(state: MaintenanceState) -> None:
    """What the thread does when the read comes back."""
    assert state.lifecycle.watcher is not None
    state.lifecycle.watcher._try()


def open_until(held: Answer, clock: Clock) -> bool:
    return is_open(held) and clock.now < held.deadline


# The first read


@pytest.mark.parametrize(("word", "passes"), [(None, True), ("off", True), ("on", False)])
def test_every_first_request_waits_for_boot_timeout_and_then_the_environment_stands(
    hanging: Make, waits: Waits, clock: Clock, monkeypatch: pytest.MonkeyPatch, word: str | None, *, passes: bool
) -> None:
    if word:
        monkeypatch.setenv("MAINTENANCE_MODE", word)
    state = hanging(boot_timeout=3.0)
    assert state.peek() is None
    assert is_open(state.wait_for_answer()) is passes
    assert waits.waited == [3.0]
    assert state.lease.known.source == ("environment" if word else "default")
    clock.now += GRACE
    assert state.peek() is not None  # the time for booting is over, for whoever comes later too


@pytest.mark.parametrize("word", [None, "off"])
def test_block_admits_nothing_before_the_first_read_whatever_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, store: FaultyStore, clock: Clock, waits: Waits, word: str | None
) -> None:
    if word:
        monkeypatch.setenv("MAINTENANCE_MODE", word)
    machine = runtime(clock, start=hang, event=waits.event)
    state = MaintenanceState(store, when_stale="block", boot_timeout=3.0, runtime=machine)
    store.away()
    assert not is_open(state.wait_for_answer())
    assert waits.waited == [3.0]
    clock.now += GRACE
    assert not is_open(state.wait_for_answer())


def test_a_first_request_gets_what_the_first_read_brings(hanging: Make, waits: Waits, store: FaultyStore) -> None:
    MaintenanceState(store).set(True)
    state = hanging()
    waits.meanwhile = lambda: read(state)
    held = state.wait_for_answer()
    assert (is_open(held), held.snapshot.source) == (False, "store")


def test_a_first_read_that_fails_is_tried_again_for_the_time_that_one_request_may_wait(
    hanging: Make, waits: Waits, store: FaultyStore, clock: Clock
) -> None:
    state = hanging(boot_timeout=60.0)
    store.away()

    def try_in_vain() -> None:
        clock.now += 0.3
        read(state)

    waits.meanwhile = try_in_vain
    assert is_open(state.wait_for_answer())
    assert clock.now == pytest.approx(1000.3 + PATIENCE, abs=0.3)
    assert not state.lifecycle.booting


def test_a_first_read_that_is_late_is_tried_again_at_once_for_boot_timeout(
    hanging: Make, waits: Waits, store: FaultyStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, woken = hanging(boot_timeout=5.0), []
    store.error = LateError("the server is slow")

    def try_in_vain() -> None:
        refresher = state.lifecycle.watcher
        assert refresher is not None
        monkeypatch.setattr(refresher, "wake", lambda **_: woken.append(clock.now))
        clock.now += 0.4
        read(state)

    waits.meanwhile = try_in_vain
    assert is_open(state.wait_for_answer())
    assert clock.now == pytest.approx(1005.0, abs=0.4)
    assert woken == pytest.approx([1000.4 + 0.4 * n for n in range(len(waits.waited) - 1)])
    store.away()
    read(state)
    assert not state.lifecycle.watcher.late


def test_a_store_that_is_slow_and_then_away_costs_no_more_than_one_that_is_away(
    hanging: Make, waits: Waits, store: FaultyStore, clock: Clock
) -> None:
    state = hanging(boot_timeout=60.0)
    store.error = LateError("the server is slow")

    def end() -> None:
        clock.now += 1.0
        read(state)
        store.away()

    waits.meanwhile = end
    assert is_open(state.wait_for_answer())
    assert clock.now == pytest.approx(1002.0 + PATIENCE)


def test_a_request_that_waits_wakes_the_thread_unless_that_paces_itself(hanging: Make, store: FaultyStore) -> None:
    for failing, rings in ((False, 1), (True, 0)):
        state = hanging()
        assert state.lifecycle.watcher is not None
        bell = state.lifecycle.watcher._waker
        assert isinstance(bell, Bell)
        if failing:
            store.away()
            read(state)
        state.wait_for_answer()
        assert bell.rings == rings


def test_the_first_answer_ends_the_time_for_booting(hanging: Make, store: FaultyStore, waits: Waits) -> None:
    state = hanging(boot_timeout=60.0)
    store.standby = True  # whose answer renews no lease
    read(state)
    assert not state.lifecycle.booting
    assert is_open(state.wait_for_answer())
    assert waits.waited == []


def test_a_store_that_comes_up_while_the_first_request_waits_is_heard(
    hanging: Make, waits: Waits, store: FaultyStore, clock: Clock
) -> None:
    MaintenanceState(store).set(True)
    state = hanging(boot_timeout=60.0)
    store.away()

    def come_up() -> None:
        clock.now += 0.3
        read(state)
        store.back()

    waits.meanwhile = come_up
    held = state.wait_for_answer()
    assert (is_open(held), held.snapshot.source) == (False, "store")


def test_a_request_that_waits_while_the_process_closes_is_let_go_and_starts_nothing(
    hanging: Make, waits: Waits, clock: Clock
) -> None:
    state = hanging(boot_timeout=60.0)

    def close() -> None:
        waits.meanwhile = lambda: None
        state.close()

    waits.meanwhile = close
    held = state.wait_for_answer()
    assert not is_open(held)
    assert state.lifecycle.watcher is None
    assert waits.waited == [60.0, LEAVE_LIMIT]
    assert clock.now == 1000.0 + LEAVE_LIMIT


def test_the_first_requests_of_a_next_life_wait_for_boot_timeout_too_and_those_after_them_for_nothing(
    hanging: Make, waits: Waits
) -> None:
    state = hanging(boot_timeout=3.0)
    read(state)
    state.leave()
    waits.waited.clear()
    state.start()
    assert state.lifecycle.watcher is not None
    state.lifecycle.watcher.thread = Thread.RUNNING
    assert is_open(state.wait_for_answer())
    assert is_open(state.wait_for_answer())
    assert waits.waited == [3.0]


def test_code_that_asks_waits_for_the_first_read_of_the_thread(hanging: Make, waits: Waits, store: FaultyStore) -> None:
    MaintenanceState(store).set(True)
    state = hanging()
    waits.meanwhile = lambda: read(state)
    assert state.enabled
    assert len(waits.waited) == 1


def test_a_first_request_that_waits_while_the_process_leaves_waits_for_its_next_life(
    hanging: Make, waits: Waits, clock: Clock, store: FaultyStore
) -> None:
    MaintenanceState(store).set(True)
    state = hanging()

    def leave() -> None:
        waits.meanwhile = lambda: None
        state.leave()
        waits.meanwhile = lambda: read(state)

    waits.meanwhile = leave
    assert not is_open(state.wait_for_answer())
    assert clock.now == 1000.0 + LEAVE_LIMIT


def test_a_request_whose_process_leaves_as_it_comes_starts_its_next_life(
    store: FaultyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    MaintenanceState(store, register=False).set(True)
    state = MaintenanceState(store, runtime=runtime(Clock(), start=refuse))
    peek = state.lifecycle.peek

    def leave_after() -> Answer | None:
        monkeypatch.setattr(state.lifecycle, "peek", peek)
        answer = peek()
        state.leave()
        return answer

    monkeypatch.setattr(state.lifecycle, "peek", leave_after)
    assert not is_open(state.wait_for_answer())
    assert store.reads == 1


# Later


@pytest.fixture
def stale(hanging: Make, clock: Clock) -> MaintenanceState:
    """A process that has read once, and whose lease has run out while a read hangs."""
    state = hanging()
    read(state)
    clock.now += TTL
    assert state.lifecycle.watcher is not None
    state.lifecycle.watcher.trying_since = clock.now
    return state


def test_one_request_waits_a_second_and_the_store_counts_as_away_then(
    stale: MaintenanceState, waits: Waits, clock: Clock
) -> None:
    assert stale.peek() is None
    assert open_until(stale.wait_for_answer(), clock)
    assert waits.waited == [PATIENCE]
    assert stale.lease.error == "no answer within 1 s"


def test_nobody_waits_while_the_store_is_away(stale: MaintenanceState, waits: Waits, clock: Clock) -> None:
    stale.wait_for_answer()
    for _ in range(3):
        clock.now += GRACE
        held = stale.peek()
        assert held is not None
        assert open_until(held, clock)
        assert is_open(stale.wait_for_answer())
    assert waits.waited == [PATIENCE]


def test_those_that_come_meanwhile_wait_a_tenth_of_a_second_from_when_the_read_was_sent(
    stale: MaintenanceState, waits: Waits, clock: Clock
) -> None:
    def others() -> None:
        waits.meanwhile = lambda: None
        clock.now += 0.04
        assert open_until(stale.wait_for_answer(), clock)
        assert not stale.lease.failing  # so short a wait says nothing of the store
        assert stale.lifecycle.watcher is not None
        stale.lifecycle.watcher.trying_since = None  # about to be sent
        clock.now = stale.lease.current.deadline
        stale.wait_for_answer()

    waits.meanwhile = others
    stale.wait_for_answer()
    assert waits.waited == [PATIENCE, pytest.approx(SHORT_PATIENCE - 0.04), pytest.approx(SHORT_PATIENCE)]


def test_a_read_sent_long_ago_is_not_waited_for_by_those_that_come_meanwhile(
    stale: MaintenanceState, waits: Waits, clock: Clock
) -> None:
    def another() -> None:
        waits.meanwhile = lambda: None
        clock.now += 0.5
        stale.wait_for_answer()

    waits.meanwhile = another
    stale.wait_for_answer()
    assert waits.waited == [PATIENCE, 0.0]


def test_a_later_request_may_wait_long_again_once_the_store_was_back(
    stale: MaintenanceState, waits: Waits, clock: Clock
) -> None:
    stale.wait_for_answer()
    read(stale)
    clock.now += TTL
    assert stale.peek() is None
    stale.wait_for_answer()
    assert waits.waited == [PATIENCE, PATIENCE]


def test_a_request_that_is_ended_while_it_waits_leaves_the_long_wait_to_the_next(
    stale: MaintenanceState, waits: Waits
) -> None:
    def end() -> None:
        waits.meanwhile = lambda: None
        raise SystemExit

    waits.meanwhile = end
    with pytest.raises(SystemExit):
        stale.wait_for_answer()
    stale.wait_for_answer()
    assert waits.waited == [PATIENCE, PATIENCE]


def test_a_request_gets_what_arrives_while_it_waits(
    stale: MaintenanceState, waits: Waits, store: FaultyStore, clock: Clock
) -> None:
    MaintenanceState(store).set(True)
    waits.meanwhile = lambda: read(stale)
    assert not is_open(stale.wait_for_answer())
    assert clock.now == 1000 + TTL


def test_a_request_that_comes_as_the_answer_does_waits_for_nothing(
    stale: MaintenanceState, waits: Waits, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert stale.lifecycle.watcher is not None
    enter_room = stale.lifecycle.watcher.room.enter

    def late() -> Any:
        read(stale)
        return enter_room()

    monkeypatch.setattr(stale.lifecycle.watcher.room, "enter", late)
    assert is_open(stale.wait_for_answer())
    assert waits.waited == []


def test_a_request_that_comes_as_a_try_fails_waits_for_no_other(
    stale: MaintenanceState, waits: Waits, store: FaultyStore
) -> None:
    def late() -> Any:
        store.away()
        read(stale)
        return waits.event()

    assert stale.lifecycle.watcher is not None
    stale.lifecycle.watcher.room._runtime = replace(stale.lifecycle._runtime, event=late)
    assert is_open(stale.wait_for_answer())
    assert waits.waited == []


def test_block_answers_503_to_all_that_come_while_the_store_is_away(
    store: FaultyStore, clock: Clock, waits: Waits
) -> None:
    state = MaintenanceState(store, ttl=TTL, when_stale="block", runtime=runtime(clock, start=hang, event=waits.event))
    state.start()
    assert state.lifecycle.watcher is not None
    state.lifecycle.watcher.thread = Thread.RUNNING
    read(state)
    assert open_until(state.lease.current, clock)
    clock.now += TTL
    assert not is_open(state.wait_for_answer())
    assert not is_open(state.wait_for_answer())
    assert waits.waited == [PATIENCE]


# Where no thread runs


@pytest.fixture(params=["none can be started", "it never gets to run"])
def threadless(request: pytest.FixtureRequest, store: FaultyStore, clock: Clock, waits: Waits) -> MaintenanceState:
    start = refuse if "none" in request.param else hang
    return MaintenanceState(store, ttl=TTL, runtime=runtime(clock, start=start, event=waits.event))


def test_the_first_request_reads_and_those_after_it_rest_on_that(
    threadless: MaintenanceState, store: FaultyStore
) -> None:
    MaintenanceState(store, register=False).set(True)
    assert not is_open(threadless.wait_for_answer())
    assert [threadless.peek() is not None for _ in range(3)] == [True] * 3
    assert store.reads == 1
    assert [one.revision for one in store.reports] == [None, 2]


def test_a_process_that_is_paused_as_it_begins_reads_all_the_same(
    threadless: MaintenanceState, store: FaultyStore, clock: Clock
) -> None:
    begin = threadless.lifecycle.begin

    def paused() -> None:
        begin()
        clock.now += 60.0

    MaintenanceState(store, register=False).set(True)
    threadless.lifecycle.begin = paused  # type: ignore[method-assign]
    assert not is_open(threadless.wait_for_answer())
    assert store.reads == 1


def test_the_next_request_past_the_ttl_reads_and_waits_for_no_thread(
    threadless: MaintenanceState, store: FaultyStore, clock: Clock, waits: Waits
) -> None:
    assert is_open(threadless.wait_for_answer())
    waits.waited.clear()
    MaintenanceState(store, register=False).set(True)
    clock.now = threadless.lease.until
    assert not is_open(threadless.wait_for_answer())
    assert store.reads == 2
    assert store.connects == 2  # its own, kept, and the flip's
    assert waits.waited == []


def test_a_store_that_was_away_is_asked_again_with_pauses(
    threadless: MaintenanceState, store: FaultyStore, clock: Clock
) -> None:
    store.away()
    assert is_open(threadless.wait_for_answer())
    asked = store.connects
    MaintenanceState(store.inner, register=False).set(True)
    assert is_open(threadless.lease.stale_answer(grace=GRACE))
    store.back()
    clock.now += 5.0
    assert not is_open(threadless.wait_for_answer())
    assert store.connects == asked + 1
    assert threadless.status().last_error is None


def test_block_does_not_ask_a_store_that_is_away_at_each_request(store: FaultyStore, clock: Clock) -> None:
    state = MaintenanceState(store, ttl=TTL, when_stale="block", runtime=runtime(clock, start=refuse))
    store.away()
    assert not any(is_open(state.wait_for_answer()) for _ in range(20))
    assert store.connects == 1
    clock.now += 5.0
    assert not is_open(state.wait_for_answer())
    assert store.connects == 2


def test_concurrent_first_requests_all_wait_for_the_one_read(store: FaultyStore) -> None:
    state = MaintenanceState(store, runtime=runtime(Clock(), start=refuse))
    MaintenanceState(store, register=False).set(True)
    held_up, go_on, answers = threading.Event(), threading.Event(), []

    def slow() -> None:
        held_up.set()
        go_on.wait(10)

    store.meanwhile = slow
    threads = [threading.Thread(target=lambda: answers.append(is_open(state.wait_for_answer()))) for _ in range(4)]
    threads[0].start()
    assert held_up.wait(10)
    for thread in threads[1:]:
        thread.start()
    eventually(lambda: len(state.lifecycle.watcher.room._waiters) == 4)
    assert answers == []  # none leaks through
    go_on.set()
    for thread in threads:
        thread.join(10)
    assert answers == [False] * 4
    assert store.reads == 1


def test_of_two_first_requests_at_once_one_begins(store: FaultyStore, clock: Clock) -> None:
    state = MaintenanceState(store, runtime=runtime(clock, start=hang))
    lock, begun = Queue(), []

    def other() -> None:
        state.start()
        begun.append(state.lifecycle.watcher)

    state.lifecycle._lock, lock.first = lock, other
    state.start()
    assert begun == [state.lifecycle.watcher]


def test_leaving_removes_the_row_without_a_thread_too(threadless: MaintenanceState, store: FaultyStore) -> None:
    threadless.wait_for_answer()
    assert len(store.inner.connect().fleet().instances) == 1
    refused = threadless.lifecycle.watcher is not None and threadless.lifecycle.watcher.thread is Thread.NONE
    threadless.leave()
    assert (len(store.inner.connect().fleet().instances) == 0) is refused
    assert (store.open == 0) is refused


def test_leaving_without_a_thread_leaves_the_row_while_something_is_in_flight(store: FaultyStore) -> None:
    from maintenance.wsgi import MaintenanceMiddleware

    state = MaintenanceState(store, runtime=runtime(Clock(), start=refuse))
    admission = MaintenanceMiddleware(wsgi, state)._admission
    state.wait_for_answer()
    assert admission.in_flight is not None
    enter(admission.in_flight, "GET", "/", "", {}, 1000.0)
    state.leave()
    assert len(store.inner.connect().fleet().instances) == 1


def test_a_thread_that_could_not_start_once_may_start_later(store: FaultyStore, clock: Clock) -> None:
    start = [refuse]

    def begin(run: Callable[[], None]) -> None:
        start[0](run)

    state = MaintenanceState(store, runtime=runtime(clock, start=begin, waker=Bell))
    state.wait_for_answer()
    assert state.lifecycle.watcher is not None
    assert state.lifecycle.watcher.thread is not Thread.STARTING
    start[0] = hang
    clock.now += TTL
    state.peek()
    assert state.lifecycle.watcher.thread is Thread.STARTING


# Forks


def forkable(store: FaultyStore, clock: Clock, start: Any = refuse) -> tuple[MaintenanceState, list[int]]:
    """A state, and the pid that it finds: whoever writes another one there has forked without hooks."""
    pid = [100]
    return MaintenanceState(store, ttl=TTL, runtime=runtime(clock, start=start, pid=lambda: pid[0])), pid


def test_a_child_forked_without_hooks_is_noticed_by_its_pid(store: FaultyStore, clock: Clock) -> None:
    state, pid = forkable(store, clock)
    state.wait_for_answer()
    parents = state.lifecycle.watcher
    assert parents is not None
    session = parents.reader.session
    pid[0] = 101
    state.leave()  # says nothing in the parent's name
    assert len(store.inner.connect().fleet().instances) == 1
    clock.now += TTL
    MaintenanceState(store, register=False).set(True)
    assert not is_open(state.wait_for_answer())
    assert state.lifecycle.watcher is not parents
    assert session.abandoned  # type: ignore[union-attr]
    assert {one.pid for one in store.inner.connect().fleet().instances} == {100, 101}


def test_code_that_asks_in_a_child_forked_without_hooks_has_it_follow(store: FaultyStore, clock: Clock) -> None:
    state, pid = forkable(store, clock)
    state.wait_for_answer()
    assert state.lifecycle.watcher is not None
    state.lifecycle.watcher.thread = Thread.RUNNING  # the parent's thread runs, and its copy in the child says so too
    pid[0] = 101
    clock.now += TTL
    MaintenanceState(store, register=False).set(True)
    assert state.enabled
    assert {one.pid for one in store.inner.connect().fleet().instances} == {100, 101}


def test_a_lock_that_a_child_forked_without_hooks_finds_taken_stops_nobody(store: FaultyStore, clock: Clock) -> None:
    state, pid = forkable(store, clock)
    with state.lifecycle._lock:  # by a thread that the child does not have
        pid[0] = 101
        state.leave()
        assert is_open(state.wait_for_answer())


def test_the_request_that_notices_a_fork_without_hooks_is_in_flight(store: FaultyStore, clock: Clock) -> None:
    seen: list[int | None] = []
    state, pid = forkable(store, clock)
    app = MaintenanceMiddleware(lambda _environ, _start: seen.append(state.status().in_flight) or [], state)
    environ = {"REQUEST_METHOD": "POST", "PATH_INFO": "/", "SCRIPT_NAME": ""}
    for pid[0] in (100, 101):
        app(environ, lambda *_: None).close()
        clock.now += TTL
    assert state.lifecycle.watcher is not None
    assert state.lifecycle.watcher.reader.membership.instance.pid == 101
    assert seen == [1, 1]


def test_two_that_leave_end_not_what_a_request_has_begun_since(store: FaultyStore) -> None:
    state = MaintenanceState(store, runtime=runtime(Clock(), start=refuse))
    state.wait_for_answer()
    state.lifecycle._lock = lock = Queue()

    def leave_and_come_back() -> None:
        state.leave()
        state.wait_for_answer()

    lock.first = leave_and_come_back
    state.leave()  # ends the second life, which began before it had the lock
    assert store.inner.connect().fleet().instances == ()
    assert state.lifecycle.watcher is None


def test_the_lease_ends_before_the_row_may_go(store: FaultyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    state = MaintenanceState(store, when_stale="block", runtime=runtime(Clock(), start=refuse))
    assert is_open(state.wait_for_answer())
    watcher, seen = state.lifecycle.watcher, []
    assert watcher is not None
    apply = state.lease.life.apply

    def end(event: Event, **options: Any) -> bool:
        if event is Event.LEAVE:
            seen.append(watcher._may_end())
            changed = apply(event, **options)
            watcher._try()  # a read that is sent here renews nothing
            seen.append(watcher._may_end())
            return changed
        return apply(event, **options)

    monkeypatch.setattr(state.lease, "_lock", contextlib.nullcontext())  # which `_try` takes too
    monkeypatch.setattr(state.lease.life, "apply", end)
    state.leave()
    assert seen == [False, True]
    assert not state.lease.running
    assert store.inner.connect().fleet().instances == ()


def test_what_one_that_leaves_still_learns_ends_no_wait_of_its_successors(store: FaultyStore, clock: Clock) -> None:
    state = MaintenanceState(store, ttl=TTL, runtime=runtime(clock, start=hang))
    state.start()
    leaving = state.lifecycle.watcher
    assert leaving is not None
    state.leave()
    state.start()
    waiter = threading.Event()
    assert state.lifecycle.watcher is not None
    state.lifecycle.watcher.room._waiters.append(waiter)
    leaving._try()
    assert not waiter.is_set()
    assert state.lifecycle.booting
    assert not state.lease.running


def test_leaving_ends_what_a_request_that_was_a_little_faster_has_begun(store: FaultyStore) -> None:
    state = MaintenanceState(store, runtime=runtime(Clock(), start=refuse))
    state.lifecycle._lock = lock = Queue()
    lock.first = state.wait_for_answer
    state.leave()
    assert store.reads == 1
    assert store.inner.connect().fleet().instances == ()


def test_of_two_threads_that_notice_a_fork_at_once_one_begins_anew(
    store: FaultyStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, pid = forkable(store, clock, hang)
    state.start()
    pid[0] = 101
    lock, begun = Queue(), []
    monkeypatch.setattr("maintenance.process.lifecycle._noticing", lock)

    def other() -> None:
        state.start()
        begun.append(state.lifecycle.watcher)

    lock.first = other
    state.start()
    assert begun == [state.lifecycle.watcher]


def test_a_fork_that_another_thread_has_noticed_is_not_noticed_again(store: FaultyStore, clock: Clock) -> None:
    state, pid = forkable(store, clock, hang)
    state.start()
    parents = state.lifecycle.watcher
    assert parents is not None
    pid[0] = 101
    state.lifecycle.notice_fork()
    state.start()
    own = state.lifecycle.watcher
    assert own not in (None, parents)
    state.lifecycle.notice_fork()  # the second thread, which saw the parent's pid as well
    assert state.lifecycle.watcher is own
