"""One life of the background thread, step by step, with a clock that moves only while it rests."""

import logging
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest

from maintenance.base.flags import Flags
from maintenance.base.instances import Load
from maintenance.base.values import Row, Snapshot
from maintenance.errors import LateError, LateRegistrationError, RegistrationError, StoreError
from maintenance.process.lease import LAGGING, Lease
from maintenance.process.life import Thread
from maintenance.process.watcher import BOOT_PAUSE, CALM, IDLE_LOOK, LOOK
from maintenance.proof.membership import HEARTBEAT
from maintenance.proof.membership import Row as Registration
from tests.support.clock import Queue, refuse, runtime
from tests.support.life import Life

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
    life.store.meanwhile = life.flip_here
    life.attempt()
    assert life.lease.known.site.enabled
    assert life.rest() == 0.0


def test_the_thread_acknowledges_an_own_flip_without_a_read(life: Life) -> None:
    life.attempt()
    reads = life.store.reads

    def flip() -> None:
        life.waker.meanwhile = lambda: None
        own = Row(True, {}, 2).snapshot(read_at=life.clock.now)
        life.lease.install(replace(life.lease.known.put(own), revision=2), ticket=life.lease.ticket())
        life.watcher.wake(read=False)

    life.waker.meanwhile = flip
    life.rest()
    assert life.reported == [None, 1, 2]
    assert life.store.reads == reads


def test_a_report_has_no_newer_revision_than_its_count(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flip may come between them: the requests that it refuses are not in that count."""
    life.attempt()
    look = Lease.flags.fget
    assert look is not None

    def look_slowly(lease: Lease) -> Flags:
        found: Flags = look(lease)
        monkeypatch.undo()
        life.flip_here()
        return found

    monkeypatch.setattr(Lease, "flags", property(look_slowly))
    assert life.watcher.reader._report().revision == 1
    assert life.watcher.reader._report().revision == 2


def test_a_process_that_only_watches_reads_and_writes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "maintenance")
    life = Life(register=False)
    revision = life.flip()
    life.attempt()
    assert (life.lease.known.revision, life.lease.running, life.store.reports) == (revision, True, [])
    life.store.away()  # or a removal would be asked for, and logged
    life.run_to_end()
    assert (life.store.open, caplog.records) == (0, [])


# The steps of a life, and what they lead to

NEVER = float("-inf")
LOST = "the server closed the connection"
DROPPED = "its row was written and is not there: look for a trigger or a policy that drops it"
UNEXPECTED = "an unexpected ZeroDivisionError, which the log shows"
STEPS: dict[str, Callable[[Life], object]] = {
    "attempt": Life.attempt,
    "flip": Life.flip,
    "flip_here": Life.flip_here,
    "follow_up": lambda life: life.watcher.reader.follow_up(),
    "remove_row": Life.remove_row,
    "commit_row": lambda life: life.store.inner.connect().report(life.membership.instance),
    "untrack": lambda life: setattr(life, "load", None),
    "away": lambda life: life.store.away(),
    "back": lambda life: life.store.back(),
    "stand_by": lambda life: setattr(life.store, "standby", True),
    "lag": lambda life: life.lag(),
    "second": lambda life: setattr(life.clock, "now", life.clock.now + 1),
    "minute": lambda life: setattr(life.clock, "now", life.clock.now + HEARTBEAT),
    # What becomes of each report
    "deny": lambda life: setattr(life.store, "report_error", DENIED),
    "lose": lambda life: setattr(life.store, "report_error", StoreError(LOST)),
    "break": lambda life: setattr(life.store, "report_error", ZeroDivisionError("a bug of ours")),
    "drop": lambda life: setattr(life.store, "swallows", True),
    "allow": lambda life: (setattr(life.store, "report_error", None), setattr(life.store, "swallows", False)),
}


def take_steps(life: Life, steps: str) -> None:
    for step in steps.split():
        STEPS[step](life)


SERVE, BLOCK, BOTH = ("serve",), ("block",), ("serve", "block")
UNREGISTERED = {"row": Registration.ABSENT, "why": str(DENIED)}
UNCERTAIN = {"row": Registration.UNCERTAIN, "why": LOST, "connections": 0, "on": True, "reports": []}


@pytest.mark.parametrize(
    ("when_stale", "steps", "expected"),
    [
        (when_stale, steps, expected)
        for modes, steps, expected in [
            (BOTH, "attempt", {}),
            (BOTH, "flip attempt", {"reports": [None, 2], "on": True}),
            # A process that cannot register has a lease under `serve` alone, and acknowledges nothing.
            (SERVE, "deny attempt attempt", UNREGISTERED | {"reports": []}),
            (BLOCK, "deny attempt attempt", UNREGISTERED | {"reports": [], "until": NEVER, "error": str(DENIED)}),
            (BOTH, "deny attempt allow attempt", {}),
            (SERVE, "drop attempt attempt", UNREGISTERED | {"reports": [None, None], "why": DROPPED}),
            (BLOCK, "drop attempt attempt",
             UNREGISTERED | {"reports": [None, None], "why": DROPPED, "until": NEVER, "error": DROPPED}),
            (BOTH, "drop attempt allow attempt", {"reports": [None, None, 1]}),
            (SERVE, "deny attempt flip_here allow follow_up", UNREGISTERED | {"reports": [], "on": True}),
            # A removed row is written again before the read that renews the lease.
            (BOTH, "attempt remove_row second attempt", {"reports": [None, 1, None, 1], "until": 1011}),
            (SERVE, "attempt remove_row deny second attempt", UNREGISTERED | {"until": 1011}),
            (BLOCK, "attempt remove_row deny second attempt", UNREGISTERED | {"error": str(DENIED)}),
            # A later report that fails costs no lease, and is repeated.
            (BOTH, "attempt flip deny minute attempt minute attempt", {"until": 1130, "on": True, "why": str(DENIED)}),
            (BOTH, "attempt flip deny minute attempt allow attempt",
             {"until": 1070, "on": True, "reports": [None, 1, 2]}),
            # Each registration takes the connection with it.
            (BOTH, "flip lose attempt", UNCERTAIN | {"on": False, "until": NEVER, "error": LOST}),
            (SERVE, "flip lose attempt attempt", UNCERTAIN | {"error": LOST}),
            (BLOCK, "flip lose attempt attempt", UNCERTAIN | {"until": NEVER, "error": LOST}),
            (BLOCK, "flip break attempt attempt", UNCERTAIN | {"until": NEVER, "error": UNEXPECTED, "why": None}),
            (BOTH, "flip lose attempt attempt allow attempt", {"reports": [None, 2], "on": True}),
            # Other connections
            (BOTH, "attempt away second attempt", {"connections": 0, "error": "the server is away"}),
            (BOTH, "attempt away attempt back attempt attempt", {"reports": [None, 1, 1]}),
            (BOTH, "flip stand_by attempt",
             {"connections": 0, "until": NEVER, "error": LAGGING, "on": True, "reports": [None]}),
            (BOTH, "flip attempt stand_by lag second attempt",
             {"connections": 0, "error": LAGGING, "on": True, "reports": [None, 2]}),
        ]
        for when_stale in modes
    ],
)  # fmt: skip
def test_steps_lead_to_these_facts(when_stale: str, steps: str, expected: dict[str, object]) -> None:
    life = Life(when_stale=when_stale)
    take_steps(life, steps)
    lease, membership = life.lease, life.membership
    facts = {"reports": life.reported, "row": membership.row, "why": membership.error, "until": lease.until}
    facts |= {"error": lease.error, "on": lease.known.site.enabled, "connections": life.store.open}
    usual = {"reports": [None, 1], "row": Registration.PRESENT, "why": None, "until": 1010}
    assert facts == usual | {"error": None, "on": False, "connections": 1} | expected


@pytest.mark.parametrize(
    ("steps", "connects"),
    [("attempt", 1), ("untrack attempt", 1), ("away attempt", 1), ("flip lose attempt attempt commit_row allow", 3)],
)
def test_a_life_removes_its_row_at_its_end_if_it_may_have_written_one(life: Life, steps: str, connects: int) -> None:
    take_steps(life, steps)
    life.run_to_end()
    assert life.ended
    assert life.store.connects == connects


# A write that fails


def test_a_write_that_a_lock_holds_up_is_repeated_soon(life: Life) -> None:
    soon, later = life.settings.limit, 0.4 * TTL
    life.store.report_error = LATE
    life.attempt()  # a registration
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


def test_the_flag_is_installed_before_a_registration_that_loses_the_connection_again(life: Life) -> None:
    take_steps(life, "flip lose attempt")
    seen: list[tuple[bool, bool]] = []
    life.after_try = lambda: seen.append((life.lease.known.site.enabled, life.watcher.reader.answered))
    life.attempt()
    assert seen == [(True, True)] * 2  # before the registration fails again, and after


def test_an_answer_ahead_of_the_registration_is_not_acknowledged(life: Life) -> None:
    take_steps(life, "flip lose attempt allow")
    seen: list[tuple[str, bool]] = []
    life.store.meanwhile = lambda: seen.append(("read", life.registered))
    life.store.at_report = lambda: seen.append(("report", life.registered))
    life.attempt()
    assert seen == [("read", False), ("report", False), ("read", True), ("report", True)]
    seen.clear()
    life.attempt()
    assert seen == [("read", True)]


# Other answers


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
    assert life.rest() == pytest.approx(ttl * (0.5 if high else 0.4))
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
    assert life.rest() == BOOT_PAUSE, "the first requests wait"
    life.clock.now = life.watcher.room.boot_until
    assert life.rest() == life.settings.limit
    began = life.clock.now
    life.clock.now += 2.0  # as long as libpq takes to give up on a host
    life.watcher._rest(began)
    assert life.clock.now == began + life.settings.limit
    life.clock.now = began + 4.0
    life.watcher._rest(began)
    assert life.clock.now == began + 4.0  # the next one is due


def test_a_store_that_keeps_no_connection_is_asked_over_a_new_one_each_time(life: Life) -> None:
    reader = life.watcher.reader
    reader._keeps = False
    for connects in (1, 2):
        life.attempt()
        assert (life.store.connects, life.store.open, life.watcher._backoff.failures) == (connects, 0, 0)
        reader.follow_up()
        life.clock.now += life.settings.ttl / 2
    assert len(life.reported) == 2, "a connection that was given back is no reason to report again"
    life.load = Load(in_flight=1)
    life.ask_drain()
    life.attempt()
    assert life.store.open == 1, "an operator waits for this process"
    life.load = Load()
    life.attempt()
    assert life.store.open == 0


HANG = LateError("no answer")
NOTICED = 0.1
"""Seconds after a limit at which psycopg looks at the clock at the latest."""


@pytest.mark.parametrize("ttl", [1.0, 2.0, 5.0, 10.0, 60.0])
@pytest.mark.parametrize("call", ["read", "report"])
def test_a_call_that_hangs_leaves_time_for_another_connection(ttl: float, call: str) -> None:
    life = Life(ttl=ttl, when_stale="block")

    def hang() -> None:
        life.store.meanwhile = life.store.at_report = lambda: None
        life.clock.now += life.store.limits[-1] + NOTICED
        raise HANG

    life.load = Load(in_flight=1)
    life.attempt()
    if call == "read":
        life.rest()
        life.store.meanwhile = hang
        life.attempt()
        assert life.lease.failing
    else:
        life.clock.now += 0.5 * ttl - 0.001
        life.load = Load()
        life.store.at_report = hang
    life.watcher._rest(1000.0)
    left = life.lease.until - life.clock.now
    assert left >= 0.1 * ttl
    life.attempt()
    assert life.store.connect_limits == [None, pytest.approx(left)]
    assert life.store.limits[-1] == life.settings.limit
    assert not life.lease.failing


def test_a_connect_after_the_lease_has_the_limit_of_the_store(life: Life) -> None:
    life.attempt()
    life.clock.now = life.lease.until - 0.01  # too little for any connect
    life.watcher.reader.hang_up()
    life.attempt()
    life.clock.now = life.lease.until
    life.watcher.reader.hang_up()
    life.attempt()
    assert life.store.connect_limits == [None] * 3


def test_a_store_that_is_always_slow_has_more_time_for_each_read(life: Life) -> None:
    quick, long = life.settings.quick_limit, life.settings.limit
    took = [0.0, 0.55 * quick, quick, 0.0, 0.0]
    for seconds in took:
        life.store.meanwhile = lambda seconds=seconds: setattr(life.clock, "now", life.clock.now + seconds)  # type: ignore[misc]
        life.attempt()
    assert life.store.limits == pytest.approx([long, quick, 1.1 * quick, long, quick])


def test_an_idle_process_writes_once_a_minute_however_often_it_reads(life: Life) -> None:
    while life.clock.now < 1000.0 + 10 * HEARTBEAT:
        life.attempt()
        life.rest()
    assert life.store.reads > 100
    assert len(life.store.reports) <= 2 + 10


def test_no_try_report_or_removal_lasts_longer_than_half_of_five_seconds(life: Life) -> None:
    life.load = Load(in_flight=1)
    life.ask_drain()
    life.attempt()
    life.load = Load()
    life.watcher.reader.follow_up()
    assert life.store.reports[-1].in_flight == 0
    life.watcher._leave()
    assert not life.registered
    assert life.store.limits == [2.5, 2.0, 2.5]


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


@pytest.mark.parametrize(("high", "calm"), [(0.0, CALM[0]), (1.0, CALM[1])])
def test_the_first_notification_is_followed_at_once_and_those_after_it_by_one_read(
    life: Life, high: float, calm: float
) -> None:
    life.high = high
    for turn in "abc":
        life.attempt()
        life.waker.meanwhile = lambda turn=turn: life.flip(turn)  # type: ignore[misc]
        assert life.rest() == 0.0
        began, reads = life.clock.now, life.store.reads
        life.attempt()
        for number in range(10):
            life.flip(f"{turn}{number}")
        life.waker.meanwhile = lambda: life.flip("during the pause")
        assert life.rest() == pytest.approx(calm)
        last = life.flip(f"{turn} last")
        life.attempt()
        assert (life.lease.known.revision, life.store.reads) == (last, reads + 2)
        life.waker.meanwhile = lambda: None
        life.rest()
        assert life.clock.now > began + 0.4 * TTL, "no notification is followed twice"


def test_neither_a_request_that_waits_nor_an_own_flip_waits_for_notifications(life: Life) -> None:
    def flip_here() -> None:
        life.waker.meanwhile = life.watcher.wake
        life.flip_here()
        life.watcher.wake(read=False)

    life.attempt()
    life.waker.meanwhile = lambda: life.store.inner.connect().ask_drain(1)
    life.rest()
    life.attempt()
    life.waker.meanwhile = flip_here
    assert life.rest() == 0.0
    assert life.reported == [None, 1, 2]


def test_a_drain_is_watched_closely_until_the_last_request_has_ended(life: Life) -> None:
    life.load = Load(in_flight=2, websockets=1, oldest="GET /slow", oldest_age=4.0)
    life.ask_drain()
    life.attempt()
    last = life.store.reports[-1]
    assert (last.in_flight, last.websockets, last.oldest, last.oldest_age) == (2, 1, "GET /slow", 4.0)
    life.waker.meanwhile = lambda: setattr(life, "load", Load()) if len(life.waker.slept) == 3 else None
    life.rest()
    assert life.waker.slept == [LOOK] * 3 + [pytest.approx(0.5 * TTL - 3 * LOOK)]
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


def test_the_thread_tries_again_until_the_life_is_over(life: Life) -> None:
    threads: list[Thread] = []

    def leave_at_the_third() -> None:
        threads.append(life.watcher.thread)
        if len(threads) == 3:
            life.leave()

    life.after_try = leave_at_the_third
    life.watcher._run()
    assert threads == [Thread.RUNNING] * 3
    assert life.clock.now == pytest.approx(1000.0 + 2 * 0.5 * TTL)
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
    assert noticed or life.store.connect_limits[-1] == life.settings.limit


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


def test_requests_try_without_a_pause_after_success_until_the_life_is_over(life: Life) -> None:
    for reads in (1, 2):
        assert life.watcher.try_here()
        assert life.store.reads == reads
    life.leave()
    life.watcher.join(0.0)
    life.clock.now += TTL
    assert life.watcher.try_here()
    assert (life.registered, life.store.open, life.store.reads) == (False, 0, 2)


def test_an_unexpected_error_in_the_try_of_a_request_is_remembered(life: Life) -> None:
    def fail() -> None:
        raise RuntimeError("outside of a request")

    life.after_try = fail
    assert life.watcher.try_here()
    assert life.lease.error == "an unexpected RuntimeError, which the log shows"
    assert life.watcher.trying_since is None
