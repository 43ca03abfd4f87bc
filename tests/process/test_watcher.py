"""One life of the background thread, step by step, with a clock that moves only while it rests."""

import logging
from collections.abc import Callable
from itertools import pairwise

import pytest

from maintenance import MaintenanceState
from maintenance.base.values import Load, Row, Snapshot
from maintenance.errors import LateRegistrationError, RegistrationError, StoreError
from maintenance.process.life import Thread
from maintenance.process.watcher import IDLE_LOOK, LOOK
from maintenance.proof.membership import HEARTBEAT
from maintenance.proof.membership import Row as Registration
from tests.support.clock import Queue, refuse, runtime
from tests.support.faulty import FaultyStore
from tests.support.life import Life, watcher_of
from tests.support.waiting import eventually

TTL = 10.0
DENIED = RegistrationError("instances cannot register: permission denied")
LATE = LateRegistrationError("instances cannot register: lock timeout")


# The order of a try


def test_a_try_registers_then_reads_then_installs_then_acknowledges(life: Life) -> None:
    revision, seen = life.flip(), []
    life.store.meanwhile = lambda: seen.append(("read", life.registered))
    life.store.at_report = lambda: seen.append(("report", life.lease.known.revision))
    life.attempt()
    assert seen == [("report", 0), ("read", True), ("report", revision)]
    assert life.reported == [None, revision]


def test_the_lease_begins_before_the_read_is_sent(life: Life) -> None:
    life.store.meanwhile = lambda: setattr(life.clock, "now", 1002.0)
    life.attempt()
    assert life.lease.until == 1000.0 + TTL


def test_a_read_that_an_own_write_overtakes_is_repeated_at_once(life: Life) -> None:
    life.attempt()
    own = Row(True, {}, 2).snapshot(read_at=life.clock.now)
    life.store.meanwhile = lambda: life.lease.install(own, ticket=life.lease.ticket())
    life.attempt()
    assert life.lease.known.enabled
    assert life.rest() == 0.0


def test_a_removed_row_is_written_again_before_the_read_that_renews_the_lease(life: Life) -> None:
    life.attempt()
    life.remove_row()
    registered_when_read: list[bool] = []
    life.store.meanwhile = lambda: registered_when_read.append(life.registered)
    life.attempt()
    assert registered_when_read == [False, True]
    assert life.reported == [None, 1, None, 1]


def test_the_thread_acknowledges_an_own_flip_without_a_read(life: Life) -> None:
    life.attempt()
    reads = life.store.reads

    def flip() -> None:
        life.waker.meanwhile = lambda: None
        own = Row(True, {}, 2).snapshot(read_at=life.clock.now)
        life.lease.install(own, ticket=life.lease.ticket())
        life.watcher.wake(read=False)

    life.waker.meanwhile = flip
    life.rest()
    assert life.reported == [None, 1, 2]
    assert life.store.reads == reads


def test_a_process_that_is_not_registered_acknowledges_no_own_flip(life: Life) -> None:
    life.store.report_error = DENIED
    life.attempt()
    life.flip_here()
    life.store.report_error = None
    life.watcher.reader.follow_up()
    assert life.store.reports == []


def test_a_process_that_only_watches_reads_and_writes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "maintenance")
    life = Life(register=False)
    revision = life.flip()
    life.attempt()
    assert (life.lease.known.revision, life.lease.running, life.store.reports) == (revision, True, [])
    life.store.away()  # or a removal would be asked for, and logged
    life.run_to_end()
    assert (life.store.open, caplog.records) == (0, [])


# A registration that fails


@pytest.mark.parametrize(
    ("report_error", "swallows", "error"),
    [(DENIED, False, str(DENIED)), (None, True, "its row was written and is not there: look for a trigger")],
    ids=["refused", "dropped by a trigger"],
)
@pytest.mark.parametrize("when_stale", ["serve", "block"])
def test_an_unregistered_process_has_a_lease_under_serve_alone(
    when_stale: str, report_error: Exception | None, error: str, *, swallows: bool
) -> None:
    life = Life(when_stale=when_stale)
    life.store.report_error, life.store.swallows = report_error, swallows
    life.attempt()
    life.attempt()
    serves = when_stale == "serve"
    assert (life.lease.running, life.lease.failing) == (serves, not serves)
    assert life.lease.known.source == "store"
    assert (life.membership.error or "").startswith(error)
    assert serves or (life.lease.error or "").startswith(error)
    life.store.report_error, life.store.swallows = None, False
    life.attempt()
    assert (life.lease.running, life.lease.error, life.membership.error) == (True, None, None)
    assert life.membership.row is Registration.PRESENT


def test_block_renews_no_lease_while_its_row_is_removed() -> None:
    life = Life(when_stale="block")
    life.attempt()
    life.remove_row()
    life.store.report_error = DENIED
    life.clock.now += 1
    life.attempt()
    assert life.lease.until == 1000.0 + TTL


def test_a_write_that_a_lock_holds_up_is_repeated_soon(life: Life) -> None:
    soon, later = life.settings.limit, 0.6 * TTL
    life.store.report_error = LATE
    life.attempt()  # a registration
    assert life.lease.running
    assert life.rest() <= soon < later
    life.store.report_error = DENIED  # which takes a person
    life.attempt()
    assert life.rest() >= later
    life.store.report_error = LATE
    life.attempt()
    life.store.report_error = None
    life.attempt()
    assert life.rest() >= later
    revision = life.flip()
    life.store.report_error = LATE
    life.attempt()  # an acknowledgement
    assert life.rest() <= soon
    life.store.report_error = None
    life.attempt()
    assert life.reported[-1] == revision
    assert life.rest() >= later


def lose_first_registration(**settings: str) -> Life:
    """A new process that finds the flag on. Its registration took the connection with it."""
    life = Life(**settings)
    life.flip()
    life.store.report_error = StoreError("the server closed the connection")
    life.attempt()
    assert (life.store.reads, life.watcher.reader.answered, life.store.open) == (0, False, 0)
    return life


def test_a_process_follows_the_flag_while_each_registration_loses_the_connection() -> None:
    life = lose_first_registration()
    seen: list[tuple[bool, bool]] = []
    life.after_try = lambda: seen.append((life.lease.known.enabled, life.watcher.reader.answered))
    life.attempt()
    assert seen == [(True, True)] * 2  # before the registration fails again, and after
    assert (life.lease.running, life.lease.failing) == (True, True)
    assert (life.membership.row, life.store.reports) == (Registration.UNCERTAIN, [])
    assert life.membership.error == "the server closed the connection"
    life.store.inner.connect().report(life.membership.instance)  # it was committed after all
    life.store.report_error = None
    life.run_to_end()
    assert life.ended


@pytest.mark.parametrize("error", [StoreError("the server closed the connection"), ZeroDivisionError("a bug of ours")])
def test_block_has_no_lease_while_each_registration_loses_the_connection(error: Exception) -> None:
    life = lose_first_registration(when_stale="block")
    life.store.report_error = error
    life.attempt()
    assert (life.lease.known.enabled, life.lease.running) == (True, False)
    life.store.report_error = None
    life.attempt()
    assert (life.lease.running, life.lease.failing) == (True, False)


def test_an_answer_ahead_of_the_registration_is_not_acknowledged() -> None:
    life = lose_first_registration()
    life.store.report_error = None
    seen: list[tuple[str, bool]] = []
    life.store.meanwhile = lambda: seen.append(("read", life.registered))
    life.store.at_report = lambda: seen.append(("report", life.registered))
    life.attempt()
    assert seen == [("read", False), ("report", False), ("read", True), ("report", True)]
    assert life.reported == [None, 2]
    seen.clear()
    life.attempt()
    assert seen == [("read", True)]


@pytest.mark.parametrize("when_stale", ["serve", "block"])
def test_a_report_that_fails_is_repeated_and_costs_no_lease(when_stale: str) -> None:
    life = Life(when_stale=when_stale)
    life.attempt()
    life.store.report_error = DENIED
    revision = life.flip()
    for _ in range(3):
        life.clock.now += HEARTBEAT
        life.attempt()
        assert life.membership.row is Registration.PRESENT
        assert (life.lease.until, life.lease.failing) == (life.clock.now + TTL, False)
    assert life.membership.error == str(DENIED)
    life.store.report_error = None
    life.attempt()
    assert life.reported == [None, 1, revision]
    assert life.membership.error is None


# Other answers


def test_a_new_connection_acknowledges_again(life: Life) -> None:
    life.attempt()
    life.store.away()
    life.attempt()
    assert (life.lease.error, life.store.open) == ("the server is away", 0)
    life.store.back()
    life.attempt()
    life.attempt()
    assert (life.lease.error, life.store.open, life.tries) == (None, 1, 4)
    assert life.reported == [None, 1, 1]


def test_a_standby_updates_the_answer_but_not_the_lease(life: Life) -> None:
    life.store.standby = True
    life.flip()
    life.attempt()
    assert (life.lease.known.enabled, life.lease.running) == (True, False)
    assert "a standby answered" in str(life.lease.error)
    assert life.watcher.reader.session is None  # the address may lead to a primary next time
    life.store.inner.row = Row(False, {}, 1)  # a standby that lags
    life.attempt()
    assert life.lease.known.enabled


def test_a_wrong_row_keeps_the_connection_and_is_read_again_with_jitter(life: Life) -> None:
    life.attempt()
    life.store.inner.row = None
    life.clock.now += 1
    pauses = []
    for life.high in (0.0, 0.5, 1.0):
        life.attempt()
        pauses.append(life.rest())
    assert life.lease.until == 1000.0 + TTL
    assert "has no row" in (life.lease.error or "")
    assert life.store.connects == 1
    assert pauses == pytest.approx([1.25, 1.875, 2.5])


def test_an_unexpected_error_is_logged_and_the_read_repeated(life: Life, caplog: pytest.LogCaptureFixture) -> None:
    life.store.error = ZeroDivisionError("a bug of ours")
    life.attempt()
    assert life.lease.error == "an unexpected ZeroDivisionError, which the log shows"
    assert "ZeroDivisionError: a bug of ours" in caplog.text
    assert (life.tries, life.watcher.trying_since) == (1, None)
    life.store.back()
    life.attempt()
    assert life.lease.running


# The time until the next try


@pytest.mark.parametrize("ttl", [0.1, 0.5, 2.0, 10.0, 60.0])
@pytest.mark.parametrize("high", [0.0, 1.0])
def test_reads_precede_the_end_of_the_lease_and_retries_stay_within_its_bounds(ttl: float, high: float) -> None:
    life = Life(ttl=ttl)
    life.high = high
    life.attempt()
    assert life.rest() == pytest.approx(ttl * (0.8 if high else 0.6))
    limit = max(min(ttl, 5.0) / 2, 0.2)
    assert life.settings.limit == limit
    life.store.away()
    pauses = []
    for _ in range(12):
        life.attempt()
        pauses.append(life.rest())
    assert pauses[0] == pytest.approx(min(limit, 0.1) * (1.0 if high else 0.5))
    assert all(later >= earlier - 1e-9 for earlier, later in pairwise(pauses))
    assert pauses[-1] == pytest.approx(limit * (1.0 if high else 0.5))
    assert limit + pauses[-1] <= max(min(ttl, 5.0), 0.4) + 1e-9


def test_the_pause_stays_the_same_through_days_and_counts_from_the_begin_of_a_try(life: Life) -> None:
    life.store.away()
    life.watcher._backoff.failures = 100_000
    life.attempt()
    assert life.rest() == life.settings.limit
    began = life.clock.now
    life.clock.now += 2.0  # as long as libpq takes to give up on a host
    life.watcher._rest(began)
    assert life.clock.now == began + life.settings.limit
    life.clock.now = began + 4.0
    life.watcher._rest(began)
    assert life.clock.now == began + 4.0  # the next one is due


def test_no_try_report_or_removal_lasts_longer_than_half_of_five_seconds(life: Life) -> None:
    life.load = Load(in_flight=1)
    life.ask_drain()
    life.attempt()
    life.load = Load()
    life.watcher.reader.follow_up()
    assert life.store.reports[-1].in_flight == 0
    life.watcher._leave()
    assert not life.registered
    assert life.store.limits == [2.5] * 3


@pytest.mark.parametrize("error", [StoreError("terminated"), RuntimeError("dictionary changed size")], ids=repr)
def test_an_error_in_a_rest_counts_as_a_failure_until_a_rest_ends_well(life: Life, error: Exception) -> None:
    pauses = []
    for _ in range(4):
        life.attempt()
        assert life.lease.running
        life.store.wait_error = error
        pauses.append(life.rest())
        assert str(life.lease.error).startswith(("terminated", "an unexpected RuntimeError"))
        assert life.store.open == 0
    assert pauses == pytest.approx([0.1, 0.2, 0.4, 0.8])
    life.attempt()
    life.rest()
    assert life.watcher._backoff.failures == 0


def test_a_flip_or_a_wake_ends_a_rest(life: Life) -> None:
    life.attempt()
    life.waker.meanwhile = life.flip
    assert life.rest() == 0.0
    life.waker.meanwhile = lambda: None
    life.attempt()
    life.watcher.wake()
    assert life.rest() == 0.0


def test_a_drain_is_watched_closely_until_the_last_request_has_ended(life: Life) -> None:
    life.load = Load(in_flight=2, websockets=1, oldest="GET /slow", oldest_age=4.0)
    life.ask_drain()
    life.attempt()
    last = life.store.reports[-1]
    assert (last.in_flight, last.websockets, last.oldest, last.oldest_age) == (2, 1, "GET /slow", 4.0)
    life.waker.meanwhile = lambda: setattr(life, "load", Load()) if len(life.waker.slept) == 3 else None
    life.rest()
    assert life.waker.slept == [LOOK] * 3 + [pytest.approx(0.8 * TTL - 3 * LOOK)]
    assert life.store.reports[-1].in_flight == 0


def test_requests_that_have_ended_are_reported_soon_although_no_operator_waits(life: Life) -> None:
    life.load = Load(in_flight=1)  # such as the request that starts the life
    life.attempt()
    life.waker.meanwhile = lambda: setattr(life, "load", Load())
    life.rest()
    assert [(it.revision, it.in_flight) for it in life.store.reports] == [(None, None), (1, 1), (1, 0)]
    assert life.waker.slept[0] == IDLE_LOOK
    assert len(life.waker.slept) == 2, "nothing is left to look at"


# The end


def test_a_life_that_is_over_renews_no_lease_and_keeps_its_row_until_nothing_is_in_flight(life: Life) -> None:
    life.load = Load(in_flight=1)
    life.attempt()
    life.leave()
    life.clock.now += 1
    life.attempt()
    assert not life.lease.running
    life.waker.woken = life.watcher._read_now = False
    life.waker.meanwhile = lambda: setattr(life, "load", Load())
    assert life.rest() == pytest.approx(LOOK)
    assert [it.in_flight for it in life.store.reports] == [None, 1, 0]
    life.watcher._run()
    assert life.ended


def test_a_life_that_tracks_no_requests_ends_at_once(life: Life) -> None:
    life.load = None
    life.attempt()
    life.run_to_end()
    assert life.ended


def test_the_thread_tries_again_until_the_life_is_over(life: Life) -> None:
    threads: list[Thread] = []

    def leave_at_the_third() -> None:
        threads.append(life.watcher.thread)
        if len(threads) == 3:
            life.leave()

    life.after_try = leave_at_the_third
    life.watcher._run()
    assert threads == [Thread.RUNNING] * 3
    assert life.clock.now == pytest.approx(1000.0 + 2 * 0.8 * TTL)
    assert life.ended


def test_leaving_takes_no_session_from_a_request_that_tries(life: Life) -> None:
    still_open: list[int] = []

    def leave() -> None:
        life.leave()
        life.watcher.join(0.0)
        still_open.append(life.store.open)

    life.store.meanwhile = leave
    assert life.watcher.try_here()
    assert still_open == [1]
    assert not life.lease.running


def test_a_row_that_cannot_be_removed_is_logged(life: Life, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "maintenance")
    life.attempt()
    life.store.away()
    life.run_to_end()
    line = f"maintenance: the row of instance {life.membership.instance.id} is not removed: the server is away"
    assert [record.getMessage() for record in caplog.records] == [line] * 2  # over the connection, and over another
    assert life.store.open == 0


@pytest.mark.parametrize("noticed", [False, True])
def test_a_row_is_removed_over_another_connection_if_the_first_is_lost(life: Life, *, noticed: bool) -> None:
    def lose(_: str) -> bool:
        raise StoreError("the server closed the connection unexpectedly")

    life.attempt()
    session = life.watcher.reader.session
    assert session is not None
    if noticed:
        life.watcher.reader.hang_up()
    else:
        session.remove = lose  # type: ignore[method-assign]
    life.load = Load(in_flight=1)
    life.leave()
    assert life.watcher._turn()
    assert life.registered, "a request is in flight"
    life.load = Load()
    life.watcher._run()
    assert life.ended


def test_leave_removes_the_row_although_a_real_thread_has_just_lost_its_connection() -> None:
    store = FaultyStore()
    state = MaintenanceState(store)
    state.wait_for_answer()
    watcher = watcher_of(state)
    store.away()
    watcher.wake()
    eventually(lambda: watcher._backoff.failures, what="a read that fails")
    store.back()
    state.leave()
    assert state.fleet().instances == ()


def test_a_life_that_never_reached_its_store_asks_for_no_removal(life: Life) -> None:
    life.store.away()
    life.attempt()
    life.run_to_end()
    assert life.ended
    assert life.store.connects == 1


@pytest.mark.parametrize("away", [False, True])
def test_join_waits_for_the_thread(life: Life, *, away: bool) -> None:
    waited: list[float] = []
    life.watcher.thread = Thread.RUNNING
    life.watcher._ended.wait = waited.append  # type: ignore[method-assign]
    life.attempt()
    if away:
        life.store.away()
        life.attempt()
    life.watcher.join(1.0)
    assert waited == [1.0]


def test_the_child_of_a_fork_abandons_the_session_and_closes_the_waker(life: Life) -> None:
    life.watcher.abandon()
    assert life.waker.closed
    life.attempt()
    session = life.watcher.reader.session
    life.watcher.abandon()
    assert session.abandoned  # type: ignore[union-attr]


# The thread, and requests that try instead of it


def test_a_thread_is_started_once_and_replaced_after_it_has_ended(life: Life) -> None:
    def break_down() -> None:
        raise OSError("bad file descriptor")

    life.watcher._runtime = runtime(life.clock, start=refuse)
    with pytest.raises(RuntimeError):
        life.watcher.start()
    assert life.watcher.thread is Thread.NONE
    started: list[Callable[[], None]] = []
    life.watcher._runtime = runtime(life.clock, start=started.append)
    life.watcher.start()
    life.watcher.start()
    assert len(started) == 1
    life.waker.meanwhile = break_down
    life.store.away()
    with pytest.raises(OSError, match="descriptor"):
        started[0]()
    assert life.watcher.thread is Thread.NONE
    assert life.watcher._ended.wait(0)
    life.watcher.start()
    assert len(started) == 2
    assert not life.watcher._ended.wait(0)


class Unforeseen(BaseException):
    """Like SystemExit, which pytest would take for its own."""


@pytest.mark.parametrize("error", [RuntimeError("outside of a request"), SystemExit("reload"), Unforeseen()])
@pytest.mark.parametrize("place", ["after_try", "measure", "_rest"])
def test_no_error_ends_the_thread(life: Life, error: BaseException, place: str) -> None:
    owner = life.watcher if place == "_rest" else life
    original, calls = getattr(owner, place), []

    def fail(*arguments: object) -> object:
        calls.append(place)
        if len(calls) <= 3:
            raise error
        return original(*arguments)

    setattr(owner, place, fail)
    life.waker.meanwhile = lambda: life.leave() if len(calls) > 3 else None
    life.watcher._run()
    assert life.waker.slept[:3] == pytest.approx([0.1, 0.2, 0.4])
    assert life.ended


def test_an_error_in_the_look_at_the_requests_delays_the_end_but_does_not_prevent_it(life: Life) -> None:
    life.attempt()
    measure, calls = life.measure, []

    def fail_once(snapshot: Snapshot) -> Load | None:
        calls.append(snapshot)
        if len(calls) == 1:
            raise RuntimeError("dictionary changed size during iteration")
        return measure(snapshot)

    def count() -> None:
        assert len(life.waker.slept) < 10

    life.measure, life.waker.meanwhile = fail_once, count  # type: ignore[method-assign]
    life.run_to_end()
    assert life.ended


def test_a_log_that_fails_leaves_no_broken_session(life: Life, failing_log: list[str]) -> None:
    life.attempt()
    life.store.error = ZeroDivisionError()
    life.attempt()
    assert failing_log == ["maintenance: unexpected error while refreshing the flag; will retry"]
    assert (life.watcher.reader.session, life.store.open) == (None, 0)
    assert life.lease.failing


def test_a_thread_that_starts_late_waits_for_the_request_that_tries(life: Life) -> None:
    seen: list[tuple[float | None, int]] = []

    def start_late() -> None:
        life.store.meanwhile = lambda: None
        life.watcher.thread = Thread.RUNNING
        assert life.watcher._turn()
        seen.append((life.watcher.trying_since, life.tries))

    life.store.meanwhile = start_late
    assert life.watcher.try_here()
    assert seen == [(1000.0, 0)]  # it has waited, and not tried
    assert life.waker.slept == [life.settings.limit]
    assert life.waker.woken
    assert (life.tries, life.store.reads, life.watcher.trying_since) == (1, 1, None)


def test_a_request_that_is_about_to_try_leaves_the_session_to_a_thread_that_has_started(
    life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = life.watcher._claim

    def claim_late() -> bool:
        life.watcher.thread = Thread.RUNNING
        return claim()

    monkeypatch.setattr(life.watcher, "_claim", claim_late)
    assert life.watcher.try_here()
    assert (life.store.connects, life.watcher.trying_since) == (0, None)


def test_of_two_threads_that_claim_the_reader_one_gets_it(life: Life) -> None:
    life.watcher._lock, claimed = Queue(), []
    life.watcher._lock.first = lambda: claimed.append(life.watcher._claim())
    assert not life.watcher._claim()
    assert claimed == [True]


def test_a_request_tries_again_without_a_pause_after_success(life: Life) -> None:
    for reads in (1, 2):
        assert life.watcher.try_here()
        assert life.store.reads == reads


def test_an_unexpected_error_in_the_try_of_a_request_is_remembered(life: Life) -> None:
    def fail() -> None:
        raise RuntimeError("outside of a request")

    life.after_try = fail
    assert life.watcher.try_here()
    assert life.lease.error == "an unexpected RuntimeError, which the log shows"
    assert life.watcher.trying_since is None


def test_no_request_tries_for_a_life_that_is_over(life: Life) -> None:
    life.watcher.try_here()
    life.leave()
    life.watcher.join(0.0)
    life.clock.now += TTL
    assert life.watcher.try_here()
    assert (life.registered, life.store.open) == (False, 0)
