"""Which requests wait for the store, and for how long: with a clock that moves only during a wait."""

import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from maintenance import MaintenanceState, Snapshot
from maintenance.errors import LateError, StoreError
from maintenance.process.lease import GRACE, Answer
from maintenance.process.life import Purpose, Thread
from maintenance.process.lifecycle import LEAVE_LIMIT
from maintenance.process.waiting import PATIENCE, SHORT_PATIENCE
from maintenance.wsgi import MaintenanceMiddleware
from tests.support.clock import Bell, Clock, Queue, Waits, hang, refuse, runtime
from tests.support.entering import is_open
from tests.support.faulty import FaultyStore
from tests.support.life import enter_request, watcher_of
from tests.support.waiting import eventually

TTL = 10.0
Make = Callable[..., MaintenanceState]


@pytest.fixture
def hanging(faulty: FaultyStore, clock: Clock, waits: Waits) -> Make:
    """Makes a process whose thread hangs in a read."""

    def make(**options: Any) -> MaintenanceState:
        machine = runtime(clock, start=hang, event=waits.event)
        state = MaintenanceState(faulty, ttl=TTL, runtime=machine, **options)
        state.start()
        let_hang(state, clock)
        return state

    return make


def let_hang(state: MaintenanceState, clock: Clock) -> None:
    watcher_of(state).thread = Thread.RUNNING
    watcher_of(state).trying_since = clock.now


def read(state: MaintenanceState) -> None:
    """What the thread does when the read returns."""
    watcher_of(state)._try()


def ask_as_request(state: MaintenanceState) -> Snapshot:
    return state.wait_for_answer().snapshot


def admits(answer: Answer | None, clock: Clock) -> bool:
    """Whether requests may use an answer now, and are admitted."""
    assert answer is not None
    return is_open(answer) and clock.now < answer.deadline


def switch_on(store: FaultyStore) -> None:
    MaintenanceState(store.inner, register=False).set(True)


def rows(store: FaultyStore) -> int:
    return len(store.inner.connect().fleet().instances)


# The first read


@pytest.mark.parametrize(
    ("word", "when_stale", "admitted"),
    [
        (None, "serve", True),
        ("off", "serve", True),
        ("on", "serve", False),
        (None, "block", False),
        ("off", "block", False),
    ],
)
def test_a_first_request_waits_for_boot_timeout_and_then_gets_what_the_environment_names(
    hanging: Make,
    waits: Waits,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    *,
    word: str,
    when_stale: str,
    admitted: bool,
) -> None:
    if word:
        monkeypatch.setenv("MAINTENANCE_MODE", word)
    state = hanging(boot_timeout=3.0, when_stale=when_stale)
    assert state.peek() is None
    assert is_open(state.wait_for_answer()) is admitted
    assert waits.waited == [3.0]
    assert state.lease.known.site.source == ("environment" if word else "default")
    clock.now += GRACE
    answer = state.peek()  # the time for booting is over, for later requests too
    assert answer is not None
    assert is_open(answer) is admitted


@pytest.mark.parametrize("ask", [MaintenanceState.snapshot, ask_as_request])
def test_a_first_request_and_the_app_s_code_get_what_the_first_read_brings(
    hanging: Make, waits: Waits, faulty: FaultyStore, ask: Any
) -> None:
    switch_on(faulty)
    state = hanging()
    waits.meanwhile = lambda: read(state)
    snapshot = ask(state)
    assert (snapshot.enabled, snapshot.source, len(waits.waited)) == (True, "store", 1)


AWAY, SLOW = StoreError("the server is away"), LateError("the server is slow")


@pytest.mark.parametrize(
    ("boot_timeout", "lasts", "errors", "ends", "source", "rings"),
    [
        (60.0, 0.3, [AWAY] * 9, 1000.3 + PATIENCE, "default", 1),  # a thread that fails paces its tries
        (5.0, 0.4, [SLOW] * 99, 1005.0, "default", 13),  # a slow store is asked again at once
        (60.0, 1.0, [SLOW, *[AWAY] * 9], 1002.0 + PATIENCE, "default", 2),
        (60.0, 0.3, [AWAY, None], 1000.6, "store", 1),
    ],
    ids=["away", "slow", "slow, then away", "away, then back"],
)
def test_a_first_request_waits_a_second_for_a_store_that_is_away_and_boot_timeout_for_a_slow_one(
    hanging: Make, waits: Waits, faulty: FaultyStore, clock: Clock,
    *, boot_timeout: float, lasts: float, errors: list[StoreError | None], ends: float, source: str, rings: int,
) -> None:  # fmt: skip
    switch_on(faulty)
    state = hanging(boot_timeout=boot_timeout)
    bell = watcher_of(state)._waker = Bell()
    outcomes = iter(errors)

    def fail() -> None:
        faulty.error = next(outcomes)
        clock.now += lasts
        read(state)

    waits.meanwhile = fail
    answer = state.wait_for_answer()
    assert (answer.snapshot.source, bell.rings) == (source, rings)
    assert clock.now == pytest.approx(ends, abs=0.4)
    assert not state.lifecycle.booting


def test_any_first_answer_ends_the_time_for_booting(hanging: Make, faulty: FaultyStore, waits: Waits) -> None:
    state = hanging(boot_timeout=60.0)
    faulty.standby = True  # its answer renews no lease
    read(state)
    assert not state.lifecycle.booting
    assert is_open(state.wait_for_answer())
    assert waits.waited == []


def test_a_first_request_goes_on_when_the_process_closes(hanging: Make, waits: Waits, clock: Clock) -> None:
    state = hanging(boot_timeout=60.0)
    waits.once = [state.close]
    assert not is_open(state.wait_for_answer())
    assert state.lifecycle.watcher is None
    assert waits.waited == [60.0, LEAVE_LIMIT]
    assert clock.now == 1000.0 + LEAVE_LIMIT


def test_a_first_request_waits_for_the_next_life_when_the_process_leaves(
    hanging: Make, waits: Waits, clock: Clock, faulty: FaultyStore
) -> None:
    switch_on(faulty)
    state = hanging()
    waits.once = [state.leave, lambda: None, lambda: read(state)]  # the second wait is that of `leave`
    assert not is_open(state.wait_for_answer())
    assert clock.now == 1000.0 + LEAVE_LIMIT


def test_the_first_request_of_the_next_life_waits_for_boot_timeout_too(
    hanging: Make, waits: Waits, clock: Clock
) -> None:
    state = hanging(boot_timeout=3.0)
    read(state)
    state.leave()
    waits.waited.clear()
    state.start()
    let_hang(state, clock)
    assert is_open(state.wait_for_answer())
    assert is_open(state.wait_for_answer())
    assert waits.waited == [3.0]


def test_a_request_starts_the_next_life_if_the_process_leaves_as_it_comes(
    threadless: MaintenanceState, faulty: FaultyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    switch_on(faulty)
    peek = threadless.lifecycle.peek

    def leave_after(purpose: Purpose) -> Answer | None:
        monkeypatch.setattr(threadless.lifecycle, "peek", peek)
        answer = peek(purpose)
        threadless.leave()
        return answer

    monkeypatch.setattr(threadless.lifecycle, "peek", leave_after)
    assert not is_open(threadless.wait_for_answer())
    assert faulty.reads == 1


# A lease that is over


@pytest.fixture
def stale(hanging: Make, clock: Clock) -> MaintenanceState:
    """A process that has read once. Its lease is over, and a read hangs."""
    state = hanging()
    read(state)
    clock.now += TTL
    let_hang(state, clock)
    return state


@pytest.mark.parametrize("when_stale", ["serve", "block"])
def test_one_request_waits_a_second_and_later_ones_not_until_the_store_is_back(
    hanging: Make, waits: Waits, clock: Clock, when_stale: str
) -> None:
    state, serves = hanging(when_stale=when_stale), when_stale == "serve"
    read(state)
    assert admits(state.lease.current, clock)
    clock.now += TTL
    assert state.peek() is None
    assert admits(state.wait_for_answer(), clock) is serves
    assert state.lease.error == "no answer within 1 s"
    for _ in range(3):
        clock.now += GRACE
        assert admits(state.peek(), clock) is serves
        assert is_open(state.wait_for_answer()) is serves
    assert waits.waited == [PATIENCE]
    read(state)
    clock.now += TTL
    assert state.peek() is None
    state.wait_for_answer()
    assert waits.waited == [PATIENCE, PATIENCE]


@pytest.mark.parametrize(("sent", "waited"), [(0.04, SHORT_PATIENCE - 0.04), (0.5, 0.0), (None, SHORT_PATIENCE)])
def test_other_requests_wait_a_tenth_of_a_second_from_when_the_read_was_sent(
    stale: MaintenanceState, waits: Waits, clock: Clock, sent: float | None, waited: float
) -> None:
    def wait_too() -> None:
        for _ in range(2):
            watcher_of(stale).trying_since = None if sent is None else clock.now - sent
            assert admits(stale.wait_for_answer(), clock)
            assert not stale.lease.failing  # so short a wait proves nothing about the store
            clock.now = stale.lease.current.deadline

    waits.once = [wait_too]
    stale.wait_for_answer()
    assert waits.waited == [PATIENCE, *[pytest.approx(waited)] * 2]


def test_a_request_that_is_ended_while_it_waits_leaves_the_long_wait_to_the_next(
    stale: MaintenanceState, waits: Waits
) -> None:
    waits.once = [sys.exit]
    with pytest.raises(SystemExit):
        stale.wait_for_answer()
    stale.wait_for_answer()
    assert waits.waited == [PATIENCE, PATIENCE]


def test_a_request_gets_an_answer_that_arrives_while_it_waits(
    stale: MaintenanceState, waits: Waits, faulty: FaultyStore, clock: Clock
) -> None:
    switch_on(faulty)
    waits.meanwhile = lambda: read(stale)
    assert not is_open(stale.wait_for_answer())
    assert clock.now == 1000 + TTL


@pytest.mark.parametrize("error", [None, AWAY])
def test_a_request_does_not_wait_if_a_try_ends_as_it_comes(
    stale: MaintenanceState, waits: Waits, faulty: FaultyStore, monkeypatch: pytest.MonkeyPatch, error: Any
) -> None:
    room = watcher_of(stale).room
    enter_room = room.enter

    def enter_late() -> Any:
        faulty.error = error
        read(stale)
        return enter_room()

    monkeypatch.setattr(room, "enter", enter_late)
    assert is_open(stale.wait_for_answer())
    assert waits.waited == []


# A process without a thread


@pytest.fixture(params=["none can be started", "it never gets to run"])
def unthreaded(request: pytest.FixtureRequest, faulty: FaultyStore, clock: Clock, waits: Waits) -> MaintenanceState:
    start = refuse if "none" in request.param else hang
    return MaintenanceState(faulty, ttl=TTL, runtime=runtime(clock, start=start, event=waits.event))


def test_the_first_request_past_each_ttl_reads_and_waits_for_no_thread(
    unthreaded: MaintenanceState, faulty: FaultyStore, clock: Clock, waits: Waits
) -> None:
    assert is_open(unthreaded.wait_for_answer())
    starting = watcher_of(unthreaded).thread is Thread.STARTING
    assert waits.waited == ([5.0] if starting else []), "only a thread that is starting may read first"
    assert [unthreaded.peek() is not None for _ in range(3)] == [True] * 3
    assert faulty.reads == 1
    switch_on(faulty)
    waits.waited.clear()
    clock.now = unthreaded.lease.until
    assert not is_open(unthreaded.wait_for_answer())
    assert (faulty.reads, faulty.connects, waits.waited) == (2, 1, [])
    assert [instance.revision for instance in faulty.reports] == [None, 1, 2]


def test_a_request_connects_again_if_the_kept_connection_is_lost(
    unthreaded: MaintenanceState, faulty: FaultyStore, clock: Clock
) -> None:
    def lose(_: object) -> Any:
        raise AWAY

    unthreaded.wait_for_answer()
    switch_on(faulty)
    clock.now = unthreaded.lease.until
    watcher_of(unthreaded).reader.session.read = lose  # type: ignore[method-assign,union-attr]
    assert not is_open(unthreaded.wait_for_answer())
    assert (faulty.connects, unthreaded.lease.running) == (2, True)


def test_the_first_request_reads_although_the_process_was_paused_as_it_began(
    unthreaded: MaintenanceState, faulty: FaultyStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = unthreaded.lifecycle.begin

    def pause(purpose: Purpose) -> None:
        begin(purpose)
        clock.now += 60.0

    switch_on(faulty)
    monkeypatch.setattr(unthreaded.lifecycle, "begin", pause)
    assert not is_open(unthreaded.wait_for_answer())
    assert faulty.reads == 1


@pytest.mark.parametrize("when_stale", ["serve", "block"])
def test_requests_ask_a_store_that_is_away_with_pauses(faulty: FaultyStore, clock: Clock, when_stale: Any) -> None:
    state = MaintenanceState(faulty, ttl=TTL, when_stale=when_stale, runtime=runtime(clock, start=refuse))
    faulty.away()
    assert {is_open(state.wait_for_answer()) for _ in range(20)} == {when_stale == "serve"}
    assert faulty.connects == 1
    clock.now += 5.0
    state.wait_for_answer()
    assert faulty.connects == 2
    switch_on(faulty)
    faulty.back()
    clock.now += 5.0
    assert not is_open(state.wait_for_answer())
    assert state.status().last_error is None


def test_concurrent_first_requests_all_wait_for_the_one_read(threadless: MaintenanceState, faulty: FaultyStore) -> None:
    switch_on(faulty)
    reading, go_on, answers = threading.Event(), threading.Event(), []

    def read_slowly() -> None:
        reading.set()
        go_on.wait(10)

    faulty.meanwhile = read_slowly
    threads = [threading.Thread(target=lambda: answers.append(is_open(threadless.wait_for_answer()))) for _ in "1234"]
    threads[0].start()
    assert reading.wait(10)
    for thread in threads[1:]:
        thread.start()
    eventually(lambda: len(watcher_of(threadless).room._waiters) == 4)
    assert answers == []  # none leaks through
    go_on.set()
    for thread in threads:
        thread.join(10)
    assert answers == [False] * 4
    assert faulty.reads == 1


def test_a_thread_that_could_not_start_once_may_start_later(faulty: FaultyStore, clock: Clock) -> None:
    state = MaintenanceState(faulty, runtime=runtime(clock, start=refuse))
    state.wait_for_answer()
    assert watcher_of(state).thread is Thread.NONE
    watcher_of(state)._runtime = runtime(clock, start=hang)
    clock.now += TTL
    state.peek()
    assert watcher_of(state).thread is Thread.STARTING


# The end of a life


@pytest.mark.parametrize(("start", "in_flight", "left"), [(refuse, 0, 0), (hang, 0, 1), (refuse, 1, 1)])
def test_leave_removes_the_row_unless_a_thread_or_a_request_still_needs_it(
    faulty: FaultyStore, start: Any, in_flight: int, left: int
) -> None:
    state = MaintenanceState(faulty, runtime=runtime(Clock(), start=start))
    state.start()
    read(state)
    for _ in range(in_flight):
        enter_request(state)
    state.leave()
    assert (rows(faulty), faulty.open) == (left, left)


@pytest.mark.parametrize("again", [False, True])
def test_leave_ends_the_life_that_a_faster_request_has_begun(
    threadless: MaintenanceState, faulty: FaultyStore, *, again: bool
) -> None:
    if again:
        threadless.wait_for_answer()
    threadless.lifecycle._lock = lock = Queue()

    def begin() -> None:
        if again:
            threadless.leave()
        threadless.wait_for_answer()

    lock.first = begin
    threadless.leave()
    assert faulty.reads == 1 + again
    assert (rows(faulty), threadless.lifecycle.watcher) == (0, None)


def test_the_lease_ends_before_the_thread_may_remove_the_row(
    threadless: MaintenanceState, monkeypatch: pytest.MonkeyPatch
) -> None:
    threadless.wait_for_answer()
    watcher, end, seen = watcher_of(threadless), threadless.lease.end, []

    def end_late(*arguments: Any) -> bool:
        seen.append((threadless.lease.running, watcher._may_end()))
        return end(*arguments)

    monkeypatch.setattr(threadless.lease, "end", end_late)
    monkeypatch.setattr(watcher, "wake", lambda: seen.append((threadless.lease.running, watcher._may_end())))
    threadless.leave()
    assert seen == [(True, False), (False, True)]


def test_a_try_of_an_earlier_life_ends_no_wait_of_the_next(faulty: FaultyStore, clock: Clock, waits: Waits) -> None:
    state = MaintenanceState(faulty, runtime=runtime(clock, start=hang, event=waits.event))
    state.start()
    leaving = watcher_of(state)
    state.leave()
    state.start()
    waiter = threading.Event()
    watcher_of(state).room._waiters.append(waiter)
    leaving._try()
    assert not waiter.is_set()
    assert state.lifecycle.booting
    assert not state.lease.running


# A fork that runs no hooks


@pytest.fixture
def pid() -> list[int]:
    """The pid that a state finds. Change it for a fork without hooks."""
    return [100]


@pytest.fixture
def forkable(faulty: FaultyStore, clock: Clock, pid: list[int]) -> MaintenanceState:
    return MaintenanceState(faulty, ttl=TTL, runtime=runtime(clock, start=refuse, pid=lambda: pid[0]))


@pytest.mark.parametrize("thread", [Thread.NONE, Thread.RUNNING])
@pytest.mark.parametrize(("ask", "pids"), [(MaintenanceState.snapshot, {100}), (ask_as_request, {100, 101})])
def test_a_child_follows_for_itself_and_leaves_its_parent_alone(
    forkable: MaintenanceState, pid: list[int], faulty: FaultyStore, clock: Clock,
    *, ask: Any, pids: set[int], thread: Thread,
) -> None:  # fmt: skip
    forkable.wait_for_answer()
    parent = watcher_of(forkable)
    parent.thread = thread  # its copy in the child has the same value
    pid[0] = 101
    forkable.leave()
    assert rows(faulty) == 1
    clock.now += TTL
    switch_on(faulty)
    assert ask(forkable).enabled
    assert watcher_of(forkable) is not parent
    assert parent.reader.session.abandoned  # type: ignore[union-attr]
    assert {instance.pid for instance in faulty.inner.connect().fleet().instances} == pids


def test_a_child_waits_for_no_lock_of_its_parent(forkable: MaintenanceState, pid: list[int]) -> None:
    with forkable.lifecycle._lock:  # a thread that the child does not have holds it
        pid[0] = 101
        forkable.leave()
        assert is_open(forkable.wait_for_answer())


def test_the_request_that_notices_a_fork_is_in_flight(forkable: MaintenanceState, pid: list[int], clock: Clock) -> None:
    seen: list[int | None] = []
    app = MaintenanceMiddleware(lambda _environ, _start: seen.append(forkable.status().in_flight) or [], forkable)
    environ = {"REQUEST_METHOD": "POST", "PATH_INFO": "/", "SCRIPT_NAME": ""}
    for pid[0] in (100, 101):
        app(environ, lambda *_: None).close()
        clock.now += TTL
    assert watcher_of(forkable).reader.membership.instance.pid == 101
    assert seen == [1, 1]


@pytest.mark.parametrize("forks", [False, True])
def test_of_two_threads_that_begin_at_once_one_does(
    forkable: MaintenanceState, pid: list[int], monkeypatch: pytest.MonkeyPatch, *, forks: bool
) -> None:
    lock, begun = Queue(), []
    if forks:
        forkable.start()
        pid[0] = 101
        monkeypatch.setattr("maintenance.process.lifecycle._noticing", lock)
    else:
        forkable.lifecycle._lock = lock

    def begin() -> None:
        forkable.start()
        begun.append(watcher_of(forkable))

    lock.first = begin
    forkable.start()
    forkable.lifecycle.notice_fork()  # a thread that saw the pid of the parent as well
    assert begun == [watcher_of(forkable)]
