"""Which answer requests may use, and until when: with a clock that the test moves."""

import datetime as dt
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from maintenance.base.options import Settings
from maintenance.base.values import Snapshot
from maintenance.errors import ConfigurationError
from maintenance.process.lease import GRACE, Lease, fallback
from maintenance.process.life import Event
from tests.support.clock import Clock, Queue, runtime
from tests.support.entering import is_open

TTL = 10.0
NEVER = float("-inf")
NOON = dt.datetime(2026, 11, 21, 12, tzinfo=dt.UTC)
OFF = Snapshot(enabled=False, revision=1)
ON = Snapshot(enabled=True, revision=2, mode="read_only", message="back soon", until=NOON, retry_after=30)
OFF_LATER = replace(OFF, revision=3)


def make(clock: Clock, when_stale: Any = "serve", **machine: Any) -> Lease:
    settings = Settings(ttl=TTL, when_stale=when_stale)
    return Lease(fallback(None), settings=settings, runtime=runtime(clock, **machine))


@pytest.fixture
def lease(clock: Clock) -> Lease:
    return make(clock)


def read(lease: Lease, snapshot: Snapshot, *, at: float = 1000.0, ticket: int | None = None, **more: Any) -> bool:
    """Install what a read brings; it renews the lease unless `more` has another epoch."""
    number = lease.ticket() if ticket is None else ticket
    return lease.install(replace(snapshot, read_at=at), ticket=number, **{"epoch": lease.life.epoch} | more)


OWN_WRITE: dict[str, Any] = {"epoch": None}
STANDBY = {"epoch": None, "lagging": True}


@pytest.mark.parametrize(
    ("steps", "revision", "until"),
    [
        # (what, when it was sent, its ticket: 1 to 3 are from before all steps, options, whether it is taken)
        pytest.param([(ON, 0, None, OWN_WRITE, True), (OFF, 1000, 1, {}, False)], 2, NEVER, id="read before a write"),
        pytest.param([(OFF, 1000, None, {}, True), (ON, 0, None, OWN_WRITE, True)], 2, 1010, id="own write"),
        pytest.param([(OFF, 1001, 2, {}, True), (ON, 1000, 1, {}, False)], 1, 1011, id="overtaken read"),
        pytest.param([(ON, 1002, None, {}, True), (OFF, 1003, None, {}, True)], 1, 1013, id="restored backup"),
        pytest.param([(ON, 1000, 1, {}, True), (ON, 1001, 2, {}, True)], 2, 1011, id="reads that overlap"),
        pytest.param([(ON, 1000, 1, {}, True), (OFF, 1001, 2, {}, False)], 2, 1010, id="overlap, and it is older"),
        pytest.param([(ON, 1000, None, {}, True), (OFF, 0, None, OWN_WRITE | {"asked": 1}, False)], 2, 1010,
                     id="own write, and a read that shows more"),
        pytest.param([(ON, 1000, None, {}, True), (OFF, 0, None, STANDBY, False)], 2, 1010, id="standby that lags"),
        pytest.param([(OFF, 1000, None, {}, True), (ON, 0, None, STANDBY, True)], 2, 1010, id="standby that is ahead"),
    ],
)  # fmt: skip
def test_of_two_answers_the_one_asked_for_last_is_used(
    lease: Lease, steps: list[tuple[Any, ...]], revision: int, until: float
) -> None:
    for _ in range(3):
        lease.ticket()
    for snapshot, at, ticket, options, taken in steps:
        assert read(lease, snapshot, at=at, ticket=ticket, **options) is taken
    assert (lease.known.revision, lease.until) == (revision, until)
    assert (lease.current.snapshot, lease.current.deadline) == (lease.known, until)
    assert is_open(lease.current) is (revision == 1)


def test_before_the_first_read_requests_may_use_nothing(lease: Lease, clock: Clock) -> None:
    assert not lease.running
    assert clock.now >= lease.current.deadline
    assert lease.known.source == "default"


def test_the_lease_runs_for_the_ttl_from_before_the_read_was_sent(lease: Lease, clock: Clock) -> None:
    clock.now += 3  # a slow answer gains nothing
    read(lease, OFF)
    clock.now = 1000 + TTL - 0.001
    assert lease.running
    clock.now = 1000 + TTL
    assert not lease.running
    assert clock.now >= lease.current.deadline


def test_an_error_is_remembered_until_a_read_renews_the_lease(lease: Lease) -> None:
    lease.fail("away")
    lease.install(ON, ticket=lease.ticket())
    assert (lease.failing, lease.error) == (True, "away")
    read(lease, OFF)
    assert (lease.failing, lease.error) == (False, None)


def test_serve_uses_the_last_answer_for_a_grace_at_a_time(lease: Lease, clock: Clock) -> None:
    read(lease, OFF)
    clock.now = 1000 + TTL + 5
    assert lease.stale_answer(grace=GRACE).deadline == clock.now + GRACE
    assert is_open(lease.current)
    clock.now += 0.5
    assert lease.stale_answer(grace=GRACE).deadline == clock.now + 0.5  # a grace that runs is not made longer
    assert not lease.running
    read(lease, ON, at=clock.now)
    assert not is_open(lease.current)


def test_block_refuses_all_once_the_lease_is_over(clock: Clock) -> None:
    lease = make(clock, "block")
    read(lease, ON)
    clock.now = 1000 + TTL
    stale = lease.stale_answer(grace=GRACE)
    assert lease.stale_answer(grace=GRACE) is stale  # so that its rendered response stays cached
    assert not is_open(stale)
    assert stale.deadline == NEVER
    snapshot = stale.snapshot
    assert (snapshot.enabled, snapshot.mode, snapshot.message) == (True, "full", None)
    assert (snapshot.until, snapshot.retry_after) == (None, None)
    assert lease.known.mode == "read_only"


def test_the_end_of_a_life_ends_the_lease_and_no_earlier_read_renews_it(lease: Lease) -> None:
    read(lease, OFF)
    lease.fail("away")
    early, epoch = lease.ticket(), lease.life.epoch
    lease.end(Event.LEAVE)
    assert (lease.running, lease.failing) == (False, False)
    assert read(lease, ON, ticket=early, epoch=epoch)
    assert (lease.known.enabled, lease.running) == (True, False)
    read(lease, ON)
    assert lease.running


def test_a_fork_keeps_the_answer_but_no_lease_and_no_lock(lease: Lease) -> None:
    read(lease, ON)
    lease._lock.acquire()  # type: ignore[attr-defined] # another thread of the parent, which the child does not have
    lease.fork()
    assert (lease.known.enabled, lease.running) == (True, False)
    assert read(lease, OFF)


@pytest.mark.parametrize("when_stale", ["serve", "block"])
def test_a_closed_process_admits_nothing_after_any_answer(clock: Clock, when_stale: str) -> None:
    lease = make(clock, when_stale)
    read(lease, OFF)
    lease.end(Event.CLOSE)
    read(lease, OFF)
    for answer in (lease.current, lease.stale_answer(grace=GRACE), lease.current):
        assert not is_open(answer)
        assert clock.now >= answer.deadline


@pytest.mark.parametrize(
    ("second", "revision"),
    [
        (lambda lease: read(lease, OFF, ticket=2), 2),
        (lambda lease: lease.stale_answer(grace=GRACE), 2),
        (lambda lease: lease.end(Event.LEAVE), 2),
        (lambda lease: lease.end(Event.CLOSE), 1),
    ],
    ids=["install", "stale_answer", "leave", "close"],
)
def test_no_step_undoes_what_another_thread_installs_first(
    clock: Clock, second: Callable[[Lease], object], revision: int
) -> None:
    lock = Queue()
    lease = make(clock, lock=lambda: lock)
    lock.first = lambda: read(lease, ON if revision == 2 else OFF, ticket=3)
    second(lease)
    assert lease.known.revision == lease.current.snapshot.revision == revision
    assert not is_open(lease.current)


@pytest.mark.parametrize(
    ("words", "enabled"), [("1 true yes on ON", True), (" True ", True), ("0 false no off Off", False)]
)
def test_the_environment_may_name_on_or_off(words: str, *, enabled: bool) -> None:
    for word in [words] if words.startswith(" ") else words.split():
        assert fallback(word) == Snapshot(enabled=enabled, source="environment")


@pytest.mark.parametrize("word", ["", "2", "maybe", "enabled", "y"])
def test_any_other_word_in_the_environment_is_refused(word: str) -> None:
    with pytest.raises(ConfigurationError, match=f"MAINTENANCE_MODE is '{word}': use 1, true, yes or on, or 0"):
        fallback(word)
