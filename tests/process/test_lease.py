"""What requests may rest on, and until when: with a clock that the test moves."""

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
OFF = Snapshot(enabled=False, revision=1)
NOON = dt.datetime(2026, 11, 21, 12, tzinfo=dt.UTC)
ON = Snapshot(enabled=True, revision=2, mode="read_only", message="back soon", until=NOON, retry_after=30)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def make(clock: Clock) -> Any:
    def made(when_stale: Any = "serve", before: Snapshot | None = None) -> Lease:
        return Lease(
            before or fallback(None), settings=Settings(ttl=TTL, when_stale=when_stale), runtime=runtime(clock)
        )

    return made


def read(lease: Lease, snapshot: Snapshot, *, at: float, ticket: int | None = None, **more: Any) -> bool:
    number = lease.ticket() if ticket is None else ticket
    return lease.install(replace(snapshot, read_at=at), ticket=number, **{"epoch": lease.life.epoch} | more)


def test_before_the_first_read_nothing_may_be_rested_on(make: Any, clock: Clock) -> None:
    lease = make()
    assert not lease.running
    assert not clock.now < lease.current.deadline
    assert lease.known.source == "default"


def test_the_lease_runs_from_before_the_read_was_sent_and_ends_exactly_then(make: Any, clock: Clock) -> None:
    lease = make()
    clock.now += 3  # a slow answer gains nothing
    read(lease, OFF, at=1000)
    assert lease.current.deadline == 1000 + TTL
    clock.now = 1000 + TTL - 0.001
    assert lease.running
    clock.now = 1000 + TTL
    assert not lease.running
    assert not clock.now < lease.current.deadline


def test_what_is_off_is_open_and_what_is_on_is_not(make: Any) -> None:
    lease = make()
    read(lease, OFF, at=1000)
    assert is_open(lease.current)
    read(lease, ON, at=1001)
    assert not is_open(lease.current)
    assert lease.current.snapshot.message == "back soon"


def test_a_read_sent_before_an_own_write_returned_never_replaces_it(make: Any) -> None:
    lease = make()
    early = lease.ticket()
    assert lease.install(ON, ticket=lease.ticket(), epoch=None)
    assert not read(lease, OFF, at=1000, ticket=early)
    assert lease.known.enabled
    assert lease.current.snapshot.enabled
    assert not lease.running


def test_the_read_sent_last_wins_whatever_its_revision(make: Any) -> None:
    lease = make()
    first, second = lease.ticket(), lease.ticket()
    assert read(lease, OFF, at=1001, ticket=second)  # a restored backup: revision 1 after 2
    assert not read(lease, ON, at=1000, ticket=first)
    assert read(lease, ON, at=1002)
    assert read(lease, OFF, at=1003)
    assert lease.known.revision == 1


def test_of_two_reads_that_overlap_the_one_sent_last_renews_the_lease_unless_it_knows_less(make: Any) -> None:
    lease = make()
    first, second, third = lease.ticket(), lease.ticket(), lease.ticket()
    assert read(lease, ON, at=1000, ticket=first)
    assert read(lease, ON, at=1001, ticket=second)
    assert not read(lease, OFF, at=1002, ticket=third)  # over another connection, which the first has overtaken
    assert (lease.known.revision, lease.until) == (2, 1001 + TTL)


def test_a_read_that_came_while_an_own_write_was_under_way_stands_where_it_knows_more(make: Any) -> None:
    lease = make()
    asked = lease.ticket()
    assert read(lease, replace(ON, revision=3), at=1000)
    assert not lease.install(OFF, ticket=lease.ticket(), asked=asked, epoch=None)
    assert (lease.known.revision, is_open(lease.current)) == (3, False)


def test_an_own_write_changes_the_answer_and_not_the_lease(make: Any) -> None:
    lease = make()
    read(lease, OFF, at=1000)
    lease.install(ON, ticket=lease.ticket(), epoch=None)
    assert (is_open(lease.current), lease.current.deadline) == (False, 1000 + TTL)


def test_an_older_answer_of_a_standby_never_replaces_what_is_known(make: Any) -> None:
    lease = make()
    read(lease, ON, at=1000)
    assert not lease.install(OFF, ticket=lease.ticket(), epoch=None, lagging=True)
    assert lease.known.enabled


def test_a_standby_that_has_caught_up_changes_the_answer_and_not_the_lease(make: Any) -> None:
    lease = make()
    read(lease, OFF, at=1000)
    assert lease.install(ON, ticket=lease.ticket(), epoch=None, lagging=True)
    assert (is_open(lease.current), lease.until) == (False, 1000 + TTL)


def test_a_failure_is_remembered_until_a_read_renews(make: Any) -> None:
    lease = make()
    lease.fail("away")
    assert (lease.failing, lease.error) == (True, "away")
    lease.install(ON, ticket=lease.ticket(), epoch=None)
    assert lease.failing
    read(lease, OFF, at=1000)
    assert (lease.failing, lease.error) == (False, None)


def test_serve_rests_on_the_last_answer_for_a_grace_at_a_time(make: Any, clock: Clock) -> None:
    lease = make()
    read(lease, OFF, at=1000)
    clock.now = 1000 + TTL + 5
    assert lease.stale_answer(grace=GRACE).deadline == clock.now + GRACE
    assert is_open(lease.current)
    clock.now += 0.5
    assert lease.stale_answer(grace=GRACE).deadline == clock.now + 0.5  # the grace that runs is not made longer
    assert not lease.running


def test_an_answer_ends_the_grace(make: Any, clock: Clock) -> None:
    lease = make()
    clock.now += 1
    lease.stale_answer(grace=GRACE)
    assert clock.now < lease.current.deadline
    assert is_open(lease.current)
    read(lease, ON, at=clock.now)
    assert not is_open(lease.current)


def test_block_admits_nothing_once_the_lease_has_run_out(make: Any, clock: Clock) -> None:
    lease = make("block")
    read(lease, ON, at=1000)
    clock.now = 1000 + TTL
    stale = lease.stale_answer(grace=GRACE)
    assert lease.stale_answer(grace=GRACE) is stale  # so that what is rendered of it is kept
    assert not is_open(stale)
    assert stale.deadline == float("-inf")
    said = stale.snapshot
    assert (said.enabled, said.mode, said.message, said.until, said.retry_after) == (True, "full", None, None, None)
    assert lease.known.mode == "read_only"  # what is known is still known


def test_expiring_ends_the_lease_and_no_read_under_way_renews_it(make: Any, clock: Clock) -> None:
    lease = make()
    read(lease, OFF, at=1000)
    lease.fail("away")
    early, epoch = lease.ticket(), lease.life.epoch
    lease.end(Event.LEAVE)
    assert (lease.running, lease.failing) == (False, False)
    assert read(lease, ON, at=1000, ticket=early, epoch=epoch)
    assert lease.known.enabled
    assert not lease.running
    read(lease, ON, at=1000)
    assert lease.running


def test_a_fork_keeps_what_is_known_and_no_lease_and_no_lock(make: Any) -> None:
    lease = make()
    read(lease, ON, at=1000)
    lease._lock.acquire()  # another thread of the parent, which the child does not have
    lease.fork()
    assert not lease.running
    assert lease.known.enabled
    lease.fail("not stuck")


@pytest.mark.parametrize("when_stale", ["serve", "block"])
def test_closed_admits_nothing_whatever_arrives(make: Any, clock: Clock, when_stale: str) -> None:
    lease = make(when_stale)
    read(lease, OFF, at=1000)
    lease.end(Event.CLOSE)
    read(lease, OFF, at=1000)
    for held in (lease.current, lease.stale_answer(grace=GRACE), lease.current):
        assert not is_open(held)
        assert held.snapshot.enabled
        assert not clock.now < held.deadline


@pytest.mark.parametrize(
    "second",
    [
        lambda it: read(it, OFF, at=1000, ticket=2),
        lambda it: it.stale_answer(grace=GRACE),
        lambda it: it.end(Event.LEAVE),
    ],
    ids=["install", "stale_answer", "end"],
)
def test_what_another_thread_installs_first_is_not_undone(clock: Clock, second: Callable[[Lease], object]) -> None:
    lock = Queue()
    lease = Lease(fallback(None), settings=Settings(ttl=TTL), runtime=runtime(clock, lock=lambda: lock))
    lock.first = lambda: read(lease, ON, at=1000, ticket=3)
    second(lease)
    assert lease.known.revision == lease.current.snapshot.revision == 2
    assert not is_open(lease.current)


def test_what_another_thread_installs_as_it_closes_admits_nothing(clock: Clock) -> None:
    lock = Queue()
    lease = Lease(fallback(None), settings=Settings(ttl=TTL), runtime=runtime(clock, lock=lambda: lock))
    lock.first = lambda: read(lease, OFF, at=1000)
    lease.end(Event.CLOSE)
    assert lease.known.revision == lease.current.snapshot.revision == 1
    assert lease.current.snapshot.enabled
    assert not is_open(lease.current)


@pytest.mark.parametrize("word", ["1", "true", "yes", "on", "ON", " True "])
def test_the_environment_can_say_on(word: str) -> None:
    assert fallback(word) == Snapshot(enabled=True, source="environment")


@pytest.mark.parametrize("word", ["0", "false", "no", "off", "Off"])
def test_the_environment_can_say_off(word: str) -> None:
    assert fallback(word) == Snapshot(enabled=False, source="environment")


@pytest.mark.parametrize("word", ["", "2", "maybe", "enabled", "y"])
def test_the_environment_can_say_nothing_else(word: str) -> None:
    with pytest.raises(ConfigurationError, match=f"MAINTENANCE_MODE is '{word}': use 1, true, yes or on, or 0"):
        fallback(word)
