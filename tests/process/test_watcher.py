"""One life of the background thread, step by step, with a clock that moves only while it rests."""

import logging
from collections.abc import Callable
from itertools import pairwise
from typing import Any, cast

import pytest

from maintenance import MaintenanceState
from maintenance.base.options import Settings
from maintenance.base.values import Change, Details, Instance, Load, Row, Snapshot
from maintenance.errors import LateRegistrationError, RegistrationError, StoreError
from maintenance.process.in_flight import EVERYTHING, Sources
from maintenance.process.lease import Lease, fallback
from maintenance.process.life import Event, Thread
from maintenance.process.listeners import Listeners
from maintenance.process.watcher import IDLE_LOOK, LOOK, Watcher
from maintenance.proof.membership import DRAIN_REPORT, HEARTBEAT, Membership
from maintenance.proof.membership import Row as Registration
from tests.support.clock import Clock, Queue, Sleeper, refuse, runtime
from tests.support.faulty import FaultyStore
from tests.support.waiting import eventually

TTL = 10.0
UNREGISTERED = "this process is not registered, so `maintenance on --wait` will not wait for it"
ON = Change(enabled=True, details=Details())


class Requests:
    """The middlewares of a state, as far as a watcher asks them."""

    def __init__(self) -> None:
        self.load: Load | None = Load()

    def measure(self, _: Snapshot) -> Load | None:
        return self.load

    def is_idle(self) -> bool:
        load = self.measure(EVERYTHING)
        return load is None or load.in_flight == 0


class Life:
    """A watcher whose steps the test takes itself."""

    def __init__(self, **settings: Any) -> None:
        self.clock, self.store = Clock(), FaultyStore()
        self.waker = Sleeper(self.clock)
        self.requests = Requests()
        self.tries = 0
        self.after_try: Callable[[], object] = lambda: None
        self.high = 1.0
        self.settings = Settings(**{"ttl": TTL, **settings})
        self.machine = runtime(
            self.clock, waker=lambda: self.waker, uniform=lambda low, high: low + self.high * (high - low)
        )
        self.lease = Lease(fallback(None), settings=self.settings, runtime=self.machine)
        self.lease.life.apply(Event.START)
        sources, listeners = cast("Sources", self.requests), cast("Listeners", self)
        self.watcher = Watcher(self.store, self.lease, sources, listeners)
        self.watcher._waker = self.waker  # as if the thread runs

    def notify_in_thread(self) -> None:
        """What the watcher does after each try."""
        self.tries += 1
        self.after_try()

    @property
    def membership(self) -> Membership:
        return self.watcher.reader.membership

    @property
    def load(self) -> Load | None:
        return self.requests.load

    @load.setter
    def load(self, load: Load | None) -> None:
        self.requests.load = load

    def attempt(self) -> None:
        self.watcher._try()

    def retire(self) -> None:
        """What leaving does to the watcher."""
        self.lease.end(Event.LEAVE)
        self.watcher.wake()

    def rest(self) -> float:
        """Rest, and return for how long."""
        began = self.clock.now
        self.watcher._rest(began)
        return self.clock.now - began

    def flip(self) -> int:
        row = self.store.inner.connect().write(ON)
        assert isinstance(row.revision, int)
        return row.revision

    @property
    def registered(self) -> list[str]:
        return [one.id for one in self.store.inner.connect().fleet().instances]


@pytest.fixture
def life() -> Life:
    return Life()


@pytest.fixture
def make() -> Callable[..., Life]:
    return Life


# What a try does, in which order


def test_it_registers_before_it_reads_and_acknowledges_only_what_is_installed(life: Life) -> None:
    revision, seen = life.flip(), []
    life.store.meanwhile = lambda: seen.append(("read", life.registered == [life.membership.instance.id]))
    life.store.at_report = lambda: seen.append(("report", life.lease.known.revision))
    life.attempt()
    assert seen == [("report", 0), ("read", True), ("report", revision)]
    assert [one.revision for one in life.store.reports] == [None, revision]


def test_the_lease_runs_from_before_the_read_was_sent(life: Life) -> None:
    def slow() -> None:
        life.clock.now += 2.0

    life.store.meanwhile = slow
    life.attempt()
    assert life.lease.until == 1000.0 + TTL


def test_a_read_that_an_own_write_overtakes_is_not_taken_and_repeated_at_once(life: Life) -> None:
    life.attempt()
    own = Row(True, {}, 2).snapshot(read_at=life.clock.now)
    life.store.meanwhile = lambda: life.lease.install(own, ticket=life.lease.ticket())
    life.waker.woken = False
    life.attempt()
    assert life.lease.known.enabled
    assert life.rest() == 0.0  # woken by itself


def test_a_row_that_somebody_removed_is_there_again_before_the_read_that_a_lease_rests_on(life: Life) -> None:
    life.attempt()
    life.store.inner.connect().remove(life.membership.instance.id)
    registered_when_read: list[bool] = []
    life.store.meanwhile = lambda: registered_when_read.append(bool(life.registered))
    life.attempt()
    assert registered_when_read == [False, True]
    assert [one.revision for one in life.store.reports] == [None, 1, None, 1]


def test_a_heartbeat_a_minute_and_nothing_else_while_nothing_changes(life: Life) -> None:
    life.attempt()
    life.store.reports.clear()
    life.clock.now += HEARTBEAT - 1
    life.load = Load(in_flight=1)  # for which nobody waits
    life.attempt()
    assert life.store.reports == []
    assert not life.membership.draining
    life.clock.now += 1
    life.attempt()
    assert [one.revision for one in life.store.reports] == [1]


def test_requests_that_have_ended_are_soon_shown_no_more(life: Life) -> None:
    life.load = Load(in_flight=1)  # the request that brings the process into the fleet, say
    life.attempt()
    life.waker.meanwhile = lambda: setattr(life, "load", Load())
    life.rest()
    shown = [(one.revision, one.in_flight) for one in life.store.reports]
    assert shown == [(None, None), (1, 1), (1, 0)]
    assert life.waker.slept[0] == IDLE_LOOK
    assert len(life.waker.slept) == 2, "nothing is left to look at"


def test_requests_that_go_on_are_reported_again_for_nobody(life: Life) -> None:
    life.load = Load(in_flight=2)
    life.attempt()
    life.waker.meanwhile = lambda: setattr(life, "load", Load(in_flight=1))
    life.rest()
    assert [one.in_flight for one in life.store.reports] == [None, 2]


def test_an_own_flip_is_acknowledged_at_once_and_read_once(life: Life) -> None:
    life.attempt()
    reads, own = life.store.reads, Row(True, {}, 2).snapshot(read_at=life.clock.now)

    def flip() -> None:
        life.waker.meanwhile = lambda: None
        life.lease.install(own, ticket=life.lease.ticket())
        life.watcher.wake(read=False)

    life.waker.meanwhile = flip
    life.rest()
    assert [one.revision for one in life.store.reports] == [None, 1, 2]
    assert life.store.reads == reads


def test_a_flip_that_is_not_acknowledged_is_no_flip_of_one_that_cannot_register(life: Life) -> None:
    life.store.report_error = RegistrationError("instances cannot register: the disk is full")
    life.attempt()
    life.lease.install(Row(True, {}, 2).snapshot(read_at=life.clock.now), ticket=life.lease.ticket())
    life.store.report_error = None
    life.watcher.reader.follow_up()
    assert life.store.reports == []


def test_one_that_only_watches_says_nothing_and_reads(make: Callable[..., Life]) -> None:
    life = make(register=False)
    revision = life.flip()
    life.attempt()
    assert life.store.reports == []
    assert (life.lease.known.revision, life.lease.running) == (revision, True)


def test_serve_goes_on_where_it_cannot_register_and_says_why(life: Life, caplog: pytest.LogCaptureFixture) -> None:
    life.store.report_error = RegistrationError("instances cannot register: run `maintenance migrate`")
    life.attempt()
    life.attempt()
    assert [record.getMessage() for record in caplog.records] == [
        f"maintenance: {UNREGISTERED}: instances cannot register: run `maintenance migrate`"
    ]
    assert life.lease.running
    assert (life.membership.row is Registration.PRESENT, life.lease.error) == (False, None)
    assert life.membership.error == "instances cannot register: run `maintenance migrate`"
    life.store.report_error = None
    life.attempt()
    assert (life.membership.row is Registration.PRESENT, life.membership.error) == (True, None)
    life.store.report_error = RegistrationError("instances cannot register: the disk is full")
    life.flip()
    life.attempt()
    assert life.membership.row is Registration.PRESENT
    assert caplog.records[-1].getMessage() == (
        "maintenance: this process cannot report what it follows, so `maintenance on --wait` cannot confirm it: "
        "instances cannot register: the disk is full"
    )


@pytest.mark.parametrize("when_stale", ["serve", "block"])
def test_a_registration_that_comes_to_nothing_is_none(
    make: Callable[..., Life], caplog: pytest.LogCaptureFixture, when_stale: str
) -> None:
    """As a trigger on the table, or a policy, may have it."""
    life = make(when_stale=when_stale)
    life.store.swallows = True
    life.attempt()
    life.attempt()
    assert life.lease.running is (when_stale == "serve")
    assert life.membership.row is not Registration.PRESENT
    [record] = caplog.records
    assert record.getMessage() == (
        f"maintenance: {UNREGISTERED}: its row was written and is not there: "
        "look for a trigger or a policy that drops it"
    )
    life.store.swallows = False
    life.attempt()
    assert life.lease.running
    assert (life.membership.row is Registration.PRESENT, life.membership.error) == (True, None)


def test_a_registration_that_somebody_holds_up_is_tried_again_soon(life: Life) -> None:
    """Under `serve` it admits meanwhile, and no wait sees it."""
    life.store.report_error = LateRegistrationError("instances cannot register: lock timeout")
    life.attempt()
    assert life.lease.running
    assert life.rest() <= life.settings.limit < 0.6 * life.settings.ttl
    life.store.report_error = RegistrationError("instances cannot register: permission denied")
    life.attempt()
    assert life.rest() >= 0.6 * life.settings.ttl  # which takes a person
    life.store.report_error = LateRegistrationError("instances cannot register: lock timeout")
    life.attempt()
    life.store.report_error = None
    life.attempt()
    assert life.rest() >= 0.6 * life.settings.ttl


def test_an_acknowledgement_that_somebody_holds_up_is_said_again_soon(life: Life) -> None:
    life.attempt()
    revision = life.flip()
    life.store.report_error = LateRegistrationError("instances cannot register: lock timeout")
    life.attempt()
    assert life.rest() <= life.settings.limit < 0.6 * life.settings.ttl
    life.store.report_error = None
    life.attempt()
    assert life.store.reports[-1].revision == revision
    assert life.rest() >= 0.6 * life.settings.ttl


def test_where_it_cannot_register_nothing_is_acknowledged_either(life: Life) -> None:
    life.attempt()
    life.store.inner.connect().remove(life.membership.instance.id)
    session = life.watcher.reader.session
    assert session is not None
    report, reported = session.report, []

    def full_for_a_moment(instance: Instance) -> None:
        reported.append(instance.revision)
        if len(reported) == 1:
            raise RegistrationError("instances cannot register: the disk is full")
        report(instance)

    session.report = full_for_a_moment  # type: ignore[method-assign]
    life.flip()
    life.attempt()
    assert reported == [None]
    life.attempt()
    assert reported == [None, None, 2]


@pytest.fixture
def unheard(make: Callable[..., Life]) -> Callable[..., Life]:
    """A new process that finds the flag on, and whose every registration takes the connection with it."""

    def made(**settings: Any) -> Life:
        life = make(**settings)
        life.flip()
        life.store.report_error = StoreError("the server closed the connection")
        life.attempt()
        assert (life.store.reads, life.watcher.reader.answered, life.store.open) == (0, False, 0)
        return life

    return made


def test_a_registration_that_hangs_hides_no_flag(unheard: Callable[..., Life]) -> None:
    life = unheard()
    told: list[tuple[bool, bool]] = []
    life.after_try = lambda: told.append((life.lease.known.enabled, life.watcher.reader.answered))
    life.attempt()
    assert told == [(True, True)] * 2  # before the registration hangs again, and after
    assert (life.lease.running, life.lease.failing) == (True, True)
    assert (life.membership.row is Registration.PRESENT, life.store.reports) == (False, [])
    assert life.membership.error == "the server closed the connection"


def test_under_block_too_and_no_lease_rests_on_it(unheard: Callable[..., Life]) -> None:
    life = unheard(when_stale="block")
    life.attempt()
    assert (life.lease.known.enabled, life.lease.running) == (True, False)
    life.store.report_error = None
    life.attempt()
    assert (life.lease.running, life.lease.failing) == (True, False)


def test_under_block_no_lease_rests_on_it_whatever_keeps_the_row_from_being_written(make: Callable[..., Life]) -> None:
    life = make(when_stale="block")
    life.flip()
    life.store.report_error = ZeroDivisionError("a bug of ours")
    for _ in range(2):
        life.attempt()
    assert (life.lease.known.enabled, life.lease.running) == (True, False)


def test_what_is_read_ahead_of_a_registration_is_not_acknowledged(unheard: Callable[..., Life]) -> None:
    life = unheard()
    life.store.report_error = None
    seen: list[tuple[str, bool]] = []
    life.store.meanwhile = lambda: seen.append(("read", bool(life.registered)))
    life.store.at_report = lambda: seen.append(("report", bool(life.registered)))
    life.attempt()
    assert seen == [("read", False), ("report", False), ("read", True), ("report", True)]
    assert [one.revision for one in life.store.reports] == [None, 2]
    seen.clear()
    life.attempt()
    assert seen == [("read", True)]


def test_a_row_that_may_have_come_to_be_is_removed(unheard: Callable[..., Life]) -> None:
    life = unheard()
    life.attempt()
    life.store.inner.connect().report(life.membership.instance)  # committed after all
    life.watcher.reader.session = life.store.connect()
    life.watcher._leave()
    assert life.registered == []


@pytest.mark.parametrize("when_stale", ["serve", "block"])
def test_a_heartbeat_or_acknowledgement_that_fails_is_repeated_and_costs_no_lease(
    make: Callable[..., Life], when_stale: str
) -> None:
    life = make(when_stale=when_stale)
    life.attempt()
    life.store.report_error = RegistrationError("instances cannot register: the disk is full")
    revision = life.flip()
    for _ in range(3):
        life.clock.now += HEARTBEAT
        life.attempt()
        assert life.membership.row is Registration.PRESENT
        assert (life.lease.until, life.lease.failing) == (life.clock.now + TTL, False)
    assert life.membership.error == "instances cannot register: the disk is full"
    life.store.report_error = None
    life.store.reports.clear()
    life.attempt()
    assert [one.revision for one in life.store.reports] == [revision]
    assert life.membership.error is None


def test_over_a_new_connection_what_is_known_is_acknowledged_again(life: Life) -> None:
    revision = life.flip()
    life.attempt()
    life.store.reports.clear()
    life.store.away()
    life.attempt()
    life.store.back()
    life.attempt()
    assert [one.revision for one in life.store.reports] == [revision]
    life.attempt()
    assert len(life.store.reports) == 1


def test_block_admits_nothing_where_it_cannot_register(make: Callable[..., Life]) -> None:
    life = make(when_stale="block")
    life.store.report_error = RegistrationError("instances cannot register")
    life.attempt()
    assert not life.lease.running
    assert life.lease.error == "instances cannot register"
    assert life.lease.known.source == "store"  # it knows, and still admits nothing
    life.store.report_error = None
    life.attempt()
    assert life.lease.running


def test_block_renews_no_lease_while_its_row_is_away(make: Callable[..., Life]) -> None:
    life = make(when_stale="block")
    life.attempt()
    life.store.inner.connect().remove(life.membership.instance.id)
    life.store.report_error = RegistrationError("instances cannot register")
    life.clock.now += 1
    life.attempt()
    assert life.lease.until == 1000.0 + TTL


def test_a_standby_updates_the_answer_and_never_the_lease(life: Life) -> None:
    life.store.standby = True
    life.flip()
    life.attempt()
    assert life.lease.known.enabled
    assert not life.lease.running
    assert "a standby answered" in str(life.lease.error)
    assert life.watcher.reader.session is None  # where the address leads the next time, there may be a primary


def test_a_standby_that_lags_takes_nothing_back(life: Life) -> None:
    life.flip()
    life.attempt()
    life.store.standby, life.store.inner.row = True, Row(False, {}, 1)
    life.attempt()
    assert life.lease.known.enabled


def test_a_wrong_row_is_a_failed_read_over_a_good_connection(life: Life) -> None:
    life.attempt()
    life.store.inner.row = None
    life.clock.now += 1
    life.attempt()
    assert life.lease.until == 1000.0 + TTL
    assert "has no row" in (life.lease.error or "")
    assert life.store.connects == 1
    assert life.rest() == 2.5  # and soon asked again


def test_a_store_that_is_away_is_let_go_of_and_connected_to_anew(life: Life) -> None:
    life.attempt()
    life.store.away()
    life.attempt()
    assert (life.lease.error, life.store.open) == ("the server is away", 0)
    life.store.back()
    life.attempt()
    assert (life.lease.error, life.store.open, life.tries) == (None, 1, 3)


def test_whatever_fails_is_logged_and_tried_again(life: Life, caplog: pytest.LogCaptureFixture) -> None:
    life.store.error = ZeroDivisionError("a bug of ours")
    life.attempt()
    assert life.lease.error == "an unexpected ZeroDivisionError, which the log shows"
    assert "ZeroDivisionError: a bug of ours" in caplog.text
    assert (life.tries, life.watcher.trying_since) == (1, None)
    life.store.back()
    life.attempt()
    assert life.lease.running


# When the next one comes


@pytest.mark.parametrize("ttl", [0.1, 0.5, 2.0, 10.0, 60.0])
@pytest.mark.parametrize("high", [0.0, 1.0])
def test_reads_come_ahead_of_the_lease_s_end_and_retries_within_its_bounds(
    make: Callable[..., Life], ttl: float, high: float
) -> None:
    life = make(ttl=ttl)
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


def test_the_pause_stays_as_it_is_through_an_outage_of_days(life: Life) -> None:
    life.store.away()
    life.watcher._backoff.failures = 100_000
    life.attempt()
    assert life.rest() == life.settings.limit


def test_the_pause_is_counted_from_when_the_try_began(life: Life) -> None:
    """A try that takes its time must not push the next one further away than was promised."""
    life.store.away()
    for _ in range(10):
        life.attempt()
    began = life.clock.now
    life.clock.now += 2.0  # as long as libpq takes to give up on a host
    life.watcher._rest(began)
    assert life.clock.now == began + life.settings.limit
    life.clock.now = began + 4.0
    life.watcher._rest(began)
    assert life.clock.now == began + 4.0  # the next one is due


def test_a_wrong_row_is_asked_for_again_with_jitter(life: Life) -> None:
    life.store.inner.row = None
    pauses = []
    for life.high in (0.0, 0.5, 1.0):
        life.attempt()
        pauses.append(life.rest())
    assert pauses == pytest.approx([1.25, 1.875, 2.5])


def test_a_try_that_hangs_ends_after_half_of_five_seconds() -> None:
    life = Life()
    life.attempt()
    assert life.store.limits == [2.5]


def test_what_is_told_between_two_tries_and_at_the_end_hangs_no_longer_than_a_try(life: Life) -> None:
    life.load = Load(in_flight=1)
    ask_drain(life)
    life.attempt()
    session = life.watcher.reader.session
    assert session is not None
    life.load = Load()
    life.watcher.reader.follow_up()
    assert life.store.reports[-1].in_flight == 0
    life.watcher._leave()
    assert life.registered == []
    assert life.store.limits == [2.5] * 3


def test_a_rest_that_the_server_ends_is_a_failure_and_the_next_try_comes_after_a_pause(life: Life) -> None:
    life.attempt()
    life.store.wait_error = StoreError("terminated")
    assert life.rest() == pytest.approx(0.1)
    assert life.lease.error == "terminated"
    assert life.store.open == 0


def test_a_server_that_accepts_and_hangs_up_is_not_asked_as_fast_as_it_can(life: Life) -> None:
    pauses = []
    for _ in range(4):
        life.attempt()
        life.store.wait_error = StoreError("terminated")
        pauses.append(life.rest())
    assert pauses == pytest.approx([0.1, 0.2, 0.4, 0.8])
    life.attempt()
    life.rest()
    assert life.watcher._backoff.failures == 0


def test_whatever_fails_in_a_rest_ends_no_thread(life: Life, caplog: pytest.LogCaptureFixture) -> None:
    life.attempt()
    life.store.wait_error = RuntimeError("dictionary changed size during iteration")
    life.rest()
    assert "RuntimeError: dictionary changed size" in caplog.text
    life.attempt()
    assert life.lease.running


def test_a_rest_ends_when_the_flag_changes(life: Life) -> None:
    life.attempt()
    life.waker.meanwhile = life.flip
    assert life.rest() == 0.0


def test_a_rest_ends_when_it_is_woken(life: Life) -> None:
    life.attempt()
    life.watcher.wake()
    assert life.rest() == 0.0


# The drain


def ask_drain(life: Life) -> None:
    life.store.inner.connect().ask_drain(life.flip())


def test_while_somebody_waits_for_it_the_end_of_the_last_request_is_told_at_once(life: Life) -> None:
    life.load = Load(in_flight=2, websockets=1, oldest="GET /slow", oldest_age=4.0)
    ask_drain(life)
    life.attempt()
    told = life.store.reports[-1]
    assert (told.in_flight, told.websockets, told.oldest, told.oldest_age) == (2, 1, "GET /slow", 4.0)

    def end_at_the_third() -> None:
        if len(life.waker.slept) == 3:
            life.load = Load()

    life.waker.meanwhile = end_at_the_third
    life.rest()
    *looks, last = life.waker.slept
    assert looks == [LOOK] * 3
    assert last == pytest.approx(0.8 * TTL - 3 * LOOK)  # it looks no more
    assert life.store.reports[-1].in_flight == 0


def test_a_drain_that_goes_on_is_told_once_a_second_and_only_where_it_changed(life: Life) -> None:
    life.attempt()
    life.load = Load(in_flight=9)
    ask_drain(life)
    life.attempt()
    life.store.reports.clear()
    counts = iter([9] * 10 + [8] * 10 + [7] * 120 + [6] * 10 + [0] * 10)
    while life.membership.draining:
        life.load = Load(in_flight=next(counts))
        life.watcher.reader.follow_up()
        life.clock.now += LOOK
    assert [one.in_flight for one in life.store.reports] == [7, 6, 0]
    assert DRAIN_REPORT == 1.0


def test_a_drain_is_told_by_the_next_read_too(life: Life) -> None:
    life.attempt()
    life.load = Load(in_flight=1)
    ask_drain(life)
    life.attempt()
    assert life.membership.draining
    life.load = Load()
    life.attempt()
    assert not life.membership.draining
    assert life.store.reports[-1].in_flight == 0
    count = len(life.store.reports)
    life.attempt()
    assert len(life.store.reports) == count


def test_where_requests_are_not_tracked_it_says_so(life: Life) -> None:
    life.load = None
    ask_drain(life)
    life.attempt()
    assert (life.store.reports[-1].revision, life.store.reports[-1].in_flight) == (2, None)
    assert not life.membership.draining
    assert not life.lease.failing


def test_a_drain_during_which_they_are_tracked_no_more_goes_on_at_the_next_read(life: Life) -> None:
    life.load = Load(in_flight=1)
    ask_drain(life)
    life.attempt()
    life.load = None  # one more middleware
    life.rest()
    assert not life.lease.failing
    life.attempt()
    assert life.store.reports[-1].in_flight is None
    assert not life.membership.draining


# The end


def test_a_retired_thread_renews_no_lease_and_ends_once_nothing_is_in_flight(life: Life) -> None:
    life.load = Load(in_flight=1)
    life.attempt()
    life.retire()
    assert not life.lease.running
    life.clock.now += 1
    life.attempt()
    assert not life.lease.running
    assert not life.watcher._may_end()
    life.waker.woken = False
    began = life.clock.now

    def end() -> None:
        life.load = Load()

    life.waker.meanwhile = end
    life.watcher._read_now = False
    life.watcher._rest(life.clock.now)
    assert life.clock.now - began == pytest.approx(LOOK)
    assert [one.in_flight for one in life.store.reports] == [None, 1, 0]
    life.watcher._run()
    assert (life.registered, life.store.open, life.waker.closed) == ([], 0, True)
    assert life.watcher._ended.wait(0)


def test_one_that_tracks_no_requests_ends_at_once(life: Life) -> None:
    life.load = None
    life.attempt()
    life.retire()
    life.watcher._run()
    assert (life.registered, life.store.open) == ([], 0)


def test_leaving_waits_for_no_request_that_tries_and_takes_no_session_from_it(life: Life) -> None:
    still_open: list[int] = []

    def leave() -> None:
        life.retire()
        life.watcher.join(0.0)
        still_open.append(life.store.open)

    life.store.meanwhile = leave
    assert life.watcher.try_here()
    assert still_open == [1]
    assert not life.lease.running


def test_a_row_that_cannot_be_removed_stays_behind_and_is_told(life: Life, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "maintenance")
    life.attempt()
    life.store.away()
    life.retire()
    life.watcher._run()
    told = f"maintenance: the row of instance {life.membership.instance.id} is not removed: the server is away"
    assert [record.getMessage() for record in caplog.records] == [told] * 2  # over the connection, and over another
    assert life.store.open == 0


@pytest.mark.parametrize("noticed", [False, True])
def test_a_row_is_removed_also_where_the_connection_was_lost(life: Life, *, noticed: bool) -> None:
    life.attempt()
    session = life.watcher.reader.session
    assert session is not None
    if noticed:
        life.watcher.reader.hang_up()
    else:
        session.remove = lost  # type: ignore[method-assign]
    life.retire()
    life.watcher._run()
    assert (life.registered, life.store.open) == ([], 0)


def lost(_: str) -> bool:
    raise StoreError("the server closed the connection unexpectedly")


def test_a_row_stays_while_something_is_in_flight_also_where_the_connection_was_lost(life: Life) -> None:
    life.attempt()
    life.watcher.reader.hang_up()
    life.load = Load(in_flight=1)
    life.retire()
    assert life.watcher._turn()
    assert life.registered == [life.membership.instance.id]


def test_one_that_never_registered_has_nothing_to_remove(
    make: Callable[..., Life], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "maintenance")
    life = make(register=False)
    life.attempt()
    life.store.away()  # or this would be asked, and logged
    life.retire()
    life.watcher._run()
    assert life.store.open == 0
    assert caplog.records == []


def test_a_row_goes_also_where_the_connection_was_lost_just_before() -> None:
    store = FaultyStore()
    state = MaintenanceState(store)
    state.wait_for_answer()
    watcher = state.lifecycle.watcher
    assert watcher is not None
    store.away()
    watcher.wake()
    eventually(lambda: watcher._backoff.failures, what="a read that fails")
    store.back()
    state.leave()
    assert state.fleet().instances == ()


def test_the_end_of_a_thread_is_waited_for(life: Life) -> None:
    waited: list[float] = []
    life.watcher.thread = Thread.RUNNING
    life.watcher._ended.wait = waited.append  # type: ignore[method-assign]
    life.attempt()
    life.watcher.join(1.0)
    assert waited == [1.0]
    life.store.away()
    life.attempt()
    life.watcher.join(1.0)
    assert waited == [1.0, 1.0], "it may have to connect anew"


def test_a_thread_that_cannot_be_started_is_said_to_be_none(life: Life) -> None:
    life.watcher._runtime = runtime(life.clock, start=refuse)
    with pytest.raises(RuntimeError):
        life.watcher.start()
    assert life.watcher.thread is Thread.NONE


def test_a_thread_is_started_once() -> None:
    started: list[Any] = []
    life = Life()
    life.watcher._runtime = runtime(life.clock, start=started.append)
    life.watcher.start()
    life.watcher.start()
    assert len(started) == 1


def test_it_tries_again_and_again_until_it_is_retired(life: Life) -> None:
    threads: list[Thread] = []

    def end_the_third() -> None:
        threads.append(life.watcher.thread)
        if len(threads) == 3:
            life.retire()

    life.after_try = end_the_third
    life.watcher._run()
    assert threads == [Thread.RUNNING] * 3
    assert life.clock.now == pytest.approx(1000.0 + 2 * 0.8 * TTL)
    assert life.registered == []


def test_one_that_never_reached_its_store_just_ends(life: Life) -> None:
    life.store.away()
    life.attempt()
    life.retire()
    life.watcher._run()
    assert life.waker.closed
    assert life.store.connects == 1


def test_a_child_abandons_what_its_parent_never_opened(life: Life) -> None:
    life.watcher.abandon()
    assert life.waker.closed
    life.attempt()
    session = life.watcher.reader.session
    assert session is not None
    life.watcher.abandon()
    assert session.abandoned  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("argument", "program"),
    [("/srv/bin/gunicorn", "gunicorn"), ("/lib/uvicorn/__main__.py", "uvicorn"), ("", "python")],
)
def test_an_instance_says_what_runs(monkeypatch: pytest.MonkeyPatch, argument: str, program: str) -> None:
    monkeypatch.setattr("sys.argv", [argument])
    life = Life()
    life.attempt()
    [instance] = life.store.inner.connect().fleet().instances
    assert instance.program == program


@pytest.mark.parametrize(
    ("arguments", "program"),
    [([], "python"), (["/srv/caf\udce9/run\udce9"], "run\\udce9"), (["/srv/ж"], "\\u0436"), (["/srv/a\0b"], "a?b")],
)
def test_an_odd_command_line_or_host_is_made_storable(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], program: str
) -> None:
    monkeypatch.setattr("sys.argv", arguments)
    monkeypatch.setattr("socket.gethostname", lambda: "web\udcff")
    life = Life()
    life.attempt()
    [instance] = life.store.inner.connect().fleet().instances
    assert (instance.program, instance.host) == (program, "web\\udcff")


def test_an_interpreter_without_arguments_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("sys.argv")
    life = Life()
    life.attempt()
    [instance] = life.store.inner.connect().fleet().instances
    assert instance.program == "python"


# What nobody expected


class Unforeseen(BaseException):
    """Like SystemExit, which pytest would take for its own."""


@pytest.mark.parametrize("error", [RuntimeError("outside of a request"), SystemExit("reload"), Unforeseen()])
@pytest.mark.parametrize("place", ["after_try", "measure", "_rest"])
def test_whatever_is_raised_ends_no_thread(life: Life, error: BaseException, place: str) -> None:
    owner = {"after_try": life, "measure": life.requests, "_rest": life.watcher}[place]
    true, calls = getattr(owner, place), []

    def fails(*arguments: object) -> object:
        calls.append(place)
        if len(calls) <= 3:
            raise error
        life.store.back()
        return true(*arguments)

    def retire_once_it_goes_on() -> None:
        if len(calls) > 3:
            life.retire()

    setattr(owner, place, fails)
    life.waker.meanwhile = retire_once_it_goes_on
    life.watcher._run()
    assert life.waker.slept[:3] == pytest.approx([0.1, 0.2, 0.4])
    assert life.watcher._ended.wait(0)
    assert (life.registered, life.store.open) == ([], 0)


def test_a_log_that_fails_leaves_no_broken_session_behind(life: Life, failing_log: list[str]) -> None:
    life.attempt()
    life.store.error = ZeroDivisionError()
    life.attempt()
    assert failing_log == ["maintenance: unexpected error while refreshing the flag; will retry"]
    assert (life.watcher.reader.session, life.store.open) == (None, 0)
    assert life.lease.failing


def test_a_thread_that_ended_all_the_same_is_replaced(life: Life) -> None:
    def broken() -> None:
        raise OSError("bad file descriptor")

    started: list[Callable[[], None]] = []
    life.watcher._runtime = runtime(life.clock, start=started.append)
    life.watcher.start()
    life.waker.meanwhile = broken
    life.store.away()
    with pytest.raises(OSError, match="descriptor"):
        started[0]()
    assert life.watcher.thread is Thread.NONE
    assert life.watcher._ended.wait(0)
    life.watcher.start()
    assert len(started) == 2
    assert not life.watcher._ended.wait(0)


def test_a_thread_that_comes_late_leaves_the_session_to_the_request_that_tries(life: Life) -> None:
    tries, over = [], []

    def late() -> None:
        if not tries:
            tries.append(life.watcher.trying_since)
            life.watcher.thread = Thread.RUNNING
            assert life.watcher._turn()
            over.append(life.tries)

    life.store.meanwhile = late
    assert life.watcher.try_here()
    assert tries == [1000.0]
    assert over == [0]  # it has waited, and not tried
    assert life.waker.slept == [life.settings.limit]
    assert life.waker.woken  # and is told
    assert (life.tries, life.store.reads) == (1, 1)
    assert life.watcher.trying_since is None


def test_a_request_whose_try_fails_as_nobody_expected_gets_what_is_known(life: Life) -> None:
    def fail() -> None:
        raise RuntimeError("outside of a request")

    life.after_try = fail
    assert life.watcher.try_here()
    assert life.lease.error == "an unexpected RuntimeError, which the log shows"
    assert life.watcher.trying_since is None


def test_after_a_request_s_try_that_went_well_the_next_one_needs_no_pause(life: Life) -> None:
    for reads in (1, 2):
        assert life.watcher.try_here()
        assert life.store.reads == reads


def test_nobody_tries_for_a_process_that_has_left(life: Life) -> None:
    life.watcher.try_here()
    life.retire()
    life.watcher.join(0.0)
    life.clock.now += TTL
    assert life.watcher.try_here()
    assert life.registered == []
    assert life.store.open == 0


def test_whatever_fails_as_the_thread_looks_whether_it_may_end_keeps_it_from_ending_no_longer(life: Life) -> None:
    life.attempt()
    life.retire()
    true, calls = life.requests.measure, []

    def fails_once(snapshot: Any) -> Load | None:
        calls.append(snapshot)
        if len(calls) == 1:
            raise RuntimeError("dictionary changed size during iteration")
        return true(snapshot)

    def looks_on() -> None:
        assert len(life.waker.slept) < 10

    life.requests.measure, life.waker.meanwhile = fails_once, looks_on
    life.watcher._run()
    assert (life.waker.closed, life.store.open) == (True, 0)


def test_of_two_that_would_try_at_once_one_does(life: Life) -> None:
    life.watcher._lock, claimed = Queue(), []
    life.watcher._lock.first = lambda: claimed.append(life.watcher._claim())
    assert not life.watcher._claim()
    assert claimed == [True]


def test_the_end_waits_for_no_opinion_of_a_bypass(life: Life) -> None:
    def measure(snapshot: Any) -> Load:
        assert not snapshot.enabled  # under a flag that is on, each request's bypass is asked
        return Load()

    life.flip()
    life.attempt()
    life.requests.measure = measure  # type: ignore[method-assign]
    life.retire()
    assert life.watcher._may_end()


def test_a_thread_that_comes_while_a_request_is_about_to_try_has_the_session(monkeypatch: pytest.MonkeyPatch) -> None:
    life = Life()
    claim = life.watcher._claim

    def claim_late() -> bool:
        life.watcher.thread = Thread.RUNNING
        return claim()

    monkeypatch.setattr(life.watcher, "_claim", claim_late)
    assert life.watcher.try_here()
    assert life.store.connects == 0
    assert life.watcher.trying_since is None
