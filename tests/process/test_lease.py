"""What requests may rest on, and until when: with a clock that the test moves."""

import datetime as dt
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from maintenance.base.values import Snapshot
from maintenance.errors import ConfigurationError
from maintenance.process.lease import GRACE, Lease, fallback
from tests.support.clock import Clock, Queue, runtime

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
        return Lease(before or fallback(None), ttl=TTL, when_stale=when_stale, runtime=runtime(clock))

    return made


def read(lease: Lease, snapshot: Snapshot, *, at: float, ticket: int | None = None, **more: Any) -> bool:
    number = lease.ticket() if ticket is None else ticket
    return lease.install(replace(snapshot, read_at=at), ticket=number, renew=True, **more)


def test_before_the_first_read_nothing_may_be_rested_on(make: Any, clock: Clock) -> None:
    lease = make()
    assert not lease.runs()
    assert not clock.now < lease.current.deadline
    assert lease.known.source == "default"


def test_the_lease_runs_from_before_the_read_was_sent_and_ends_exactly_then(make: Any, clock: Clock) -> None:
    lease = make()
    clock.now += 3  # a slow answer gains nothing
    read(lease, OFF, at=1000)
    assert lease.current.deadline == 1000 + TTL
    clock.now = 1000 + TTL - 0.001
    assert lease.runs()
    clock.now = 1000 + TTL
    assert not lease.runs()
    assert not clock.now < lease.current.deadline


def test_what_is_off_is_open_and_what_is_on_is_not(make: Any) -> None:
    lease = make()
    read(lease, OFF, at=1000)
    assert lease.current.open
    read(lease, ON, at=1001)
    assert not lease.current.open
    assert lease.current.snapshot.message == "back soon"


def test_a_read_sent_before_an_own_write_returned_never_replaces_it(make: Any) -> None:
    lease = make()
    early = lease.ticket()
    assert lease.install(ON, ticket=lease.ticket(), renew=False)
    assert not read(lease, OFF, at=1000, ticket=early)
    assert lease.known.enabled
    assert lease.current.snapshot.enabled
    assert not lease.runs()


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
    assert not lease.install(OFF, ticket=lease.ticket(), asked=asked, renew=False)
    assert (lease.known.revision, lease.current.open) == (3, False)


def test_an_own_write_changes_the_answer_and_not_the_lease(make: Any) -> None:
    lease = make()
    read(lease, OFF, at=1000)
    lease.install(ON, ticket=lease.ticket(), renew=False)
    assert (lease.current.open, lease.current.deadline) == (False, 1000 + TTL)


def test_an_older_answer_of_a_standby_never_replaces_what_is_known(make: Any) -> None:
    lease = make()
    read(lease, ON, at=1000)
    assert not lease.install(OFF, ticket=lease.ticket(), renew=False, lagging=True)
    assert lease.known.enabled


def test_a_standby_that_has_caught_up_changes_the_answer_and_not_the_lease(make: Any) -> None:
    lease = make()
    read(lease, OFF, at=1000)
    assert lease.install(ON, ticket=lease.ticket(), renew=False, lagging=True)
    assert (lease.current.open, lease.until) == (False, 1000 + TTL)


def test_a_failure_is_remembered_until_a_read_renews(make: Any) -> None:
    lease = make()
    lease.fail("away")
    assert (lease.failing, lease.error) == (True, "away")
    lease.install(ON, ticket=lease.ticket(), renew=False)
    assert lease.failing
    read(lease, OFF, at=1000)
    assert (lease.failing, lease.error) == (False, None)


def test_serve_rests_on_the_last_answer_for_a_grace_at_a_time(make: Any, clock: Clock) -> None:
    lease = make()
    read(lease, OFF, at=1000)
    clock.now = 1000 + TTL + 5
    assert lease.run_out().deadline == clock.now + GRACE
    assert lease.current.open
    clock.now += 0.5
    assert lease.run_out().deadline == clock.now + 0.5  # the grace that runs is not made longer
    assert not lease.runs()


def test_an_answer_ends_the_grace(make: Any, clock: Clock) -> None:
    lease = make()
    clock.now += 1
    lease.run_out()
    assert clock.now < lease.current.deadline
    assert lease.current.open
    read(lease, ON, at=clock.now)
    assert not lease.current.open


def test_block_admits_nothing_once_the_lease_has_run_out(make: Any, clock: Clock) -> None:
    lease = make("block")
    read(lease, ON, at=1000)
    clock.now = 1000 + TTL
    stale = lease.run_out()
    assert lease.run_out() is stale  # so that what is rendered of it is kept
    assert not stale.open
    assert stale.deadline == float("-inf")
    said = stale.snapshot
    assert (said.enabled, said.mode, said.message, said.until, said.retry_after) == (True, "full", None, None, None)
    assert lease.known.mode == "read_only"  # what is known is still known


def test_expiring_ends_the_lease_and_no_read_under_way_renews_it(make: Any, clock: Clock) -> None:
    lease = make()
    read(lease, OFF, at=1000)
    lease.fail("away")
    early = lease.ticket()
    lease.expire()
    assert (lease.runs(), lease.failing) == (False, False)
    assert read(lease, ON, at=1000, ticket=early)
    assert lease.known.enabled
    assert not lease.runs()
    read(lease, ON, at=1000)
    assert lease.runs()


def test_a_fork_keeps_what_is_known_and_no_lease_and_no_lock(make: Any) -> None:
    lease = make()
    read(lease, ON, at=1000)
    lease._lock.acquire()  # another thread of the parent, which the child does not have
    lease.forked()
    assert not lease.runs()
    assert lease.known.enabled
    lease.fail("not stuck")


@pytest.mark.parametrize("when_stale", ["serve", "block"])
def test_closed_admits_nothing_whatever_arrives(make: Any, clock: Clock, when_stale: str) -> None:
    lease = make(when_stale)
    read(lease, OFF, at=1000)
    lease.close()
    read(lease, OFF, at=1000)
    for held in (lease.current, lease.run_out(), lease.current):
        assert not held.open
        assert held.snapshot.enabled
        assert not clock.now < held.deadline


@pytest.mark.parametrize("second", [lambda it: read(it, OFF, at=1000, ticket=2), Lease.run_out, Lease.expire])
def test_what_another_thread_installs_first_is_not_undone(clock: Clock, second: Callable[[Lease], object]) -> None:
    lock = Queue()
    lease = Lease(fallback(None), ttl=TTL, when_stale="serve", runtime=runtime(clock, lock=lambda: lock))
    lock.first = lambda: read(lease, ON, at=1000, ticket=3)
    second(lease)
    assert lease.known.revision == lease.current.snapshot.revision == 2
    assert not lease.current.open


def test_what_another_thread_installs_as_it_closes_admits_nothing(clock: Clock) -> None:
    lock = Queue()
    lease = Lease(fallback(None), ttl=TTL, when_stale="serve", runtime=runtime(clock, lock=lambda: lock))
    lock.first = lambda: read(lease, OFF, at=1000)
    lease.close()
    assert lease.known.revision == lease.current.snapshot.revision == 1
    assert lease.current.snapshot.enabled
    assert not lease.current.open


@pytest.mark.parametrize("word", ["1", "true", "yes", "on", "ON", " True "])
def test_the_environment_can_say_on(word: str) -> None:
    assert fallback(word) == Snapshot(enabled=True, source="environment")


@pytest.mark.parametrize("word", ["0", "false", "no", "off", "Off"])
def test_the_environment_can_say_off(word: str) -> None:
    assert fallback(word) == Snapshot(enabled=False, source="environment")


@pytest.mark.parametrize("word", ["", "2", "maybe", "enabled", "y"])
def test_the_environment_can_say_nothing_else(word: str) -> None:
    with pytest.raises(ConfigurationError, match=f"MAINTENANCE_MODE is '{word}': write 1, true, yes or on, or 0"):
        fallback(word)
