"""Which answer requests may use, and until when: with a clock that the test moves."""

import datetime as dt
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from maintenance import MaintenanceState
from maintenance.base.flags import Flags, StoreClock
from maintenance.base.options import Settings
from maintenance.base.values import Details, Row, Snapshot, Written
from maintenance.errors import ConfigurationError
from maintenance.process.lease import GRACE, Lease, fallback
from maintenance.process.life import Event
from tests.support.clock import Clock, Queue, runtime
from tests.support.entering import is_open

TTL = 10.0
NEVER = float("-inf")
NEVER_ENDS = float("inf")
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
    flags = Flags(site=replace(snapshot, read_at=at), revision=snapshot.revision)
    return lease.install(flags, ticket=number, **{"epoch": lease.life.epoch} | more)


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
    assert (lease.current.snapshot, lease.current.deadline) == (lease.known.site, until)
    assert is_open(lease.current) is (revision == 1)


def test_before_the_first_read_requests_may_use_nothing(lease: Lease, clock: Clock) -> None:
    assert not lease.running
    assert clock.now >= lease.current.deadline
    assert lease.known.site.source == "default"


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
    read(lease, ON, **OWN_WRITE)
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
    assert lease.known.site.mode == "read_only"


def test_the_end_of_a_life_ends_the_lease_and_no_earlier_read_renews_it(lease: Lease) -> None:
    read(lease, OFF)
    lease.fail("away")
    early, epoch = lease.ticket(), lease.life.epoch
    lease.end(Event.LEAVE)
    assert (lease.running, lease.failing) == (False, False)
    assert read(lease, ON, ticket=early, epoch=epoch)
    assert (lease.known.site.enabled, lease.running) == (True, False)
    read(lease, ON)
    assert lease.running


def test_a_fork_keeps_the_answer_but_no_lease_and_no_lock(lease: Lease) -> None:
    read(lease, ON)
    lease._lock.acquire()  # type: ignore[attr-defined] # another thread of the parent, which the child does not have
    lease.fork()
    assert (lease.known.site.enabled, lease.running) == (True, False)
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


# Own writes


def put(lease: Lease, revision: int, *, before: int, scope: str | None = None, asked: int | None = None) -> bool:
    """Take an own write that switches a flag on."""
    row = Row(True, {}, revision, NOON, scope=scope)
    old = None if before == revision else Row(False, {}, before, NOON, scope=scope)
    written = Written(row, old, last=revision, now=NOON)
    clock = StoreClock(NOON, 1000.0, 1000.0)
    number = lease.ticket() if asked is None else asked
    return lease.put(written, row.snapshot(read_at=1000.0), clock=clock, asked=number)


@pytest.mark.parametrize("scope", [None, "shop"])
def test_an_own_write_is_acknowledged_only_by_who_knew_all_before(lease: Lease, scope: str | None) -> None:
    read(lease, OFF)
    assert put(lease, 2, before=1, scope=scope)
    assert (lease.known.revision, lease.known.get(scope).enabled) == (2, True)
    assert not put(lease, 4, before=2, scope=scope), "somebody else made change 3"
    assert (lease.known.revision, lease.known.get(scope).revision, lease.known.token) == (2, 4, None)
    assert not read(lease, OFF_LATER, **STANDBY), "it lags"


@pytest.mark.parametrize("scope", [None, "shop"])
def test_a_later_flip_that_a_read_shows_stays(lease: Lease, scope: str | None) -> None:
    asked = lease.ticket()
    read(lease, replace(OFF, revision=3))
    assert not put(lease, 2, before=1, scope=scope, asked=asked)
    assert (lease.known.revision, is_open(lease.current)) == (3, True)


# Schedules


def plan(lease: Lease, **details: Any) -> None:
    """Install a flag with a schedule, when the store's clock shows noon and this machine's 1000."""
    flag = Row(details.pop("value", False), Details(**details).to_json(), 2, NOON).snapshot(read_at=1000.0)
    flags = Flags(site=flag, revision=2, clock=StoreClock(NOON, 1000.0, 1001.0))
    assert lease.install(flags, ticket=lease.ticket(), epoch=lease.life.epoch)


def test_every_process_begins_and_ends_by_the_store_s_clock_even_if_it_is_cut_off(lease: Lease, clock: Clock) -> None:
    plan(lease, starts=NOON + dt.timedelta(hours=1), until=NOON + dt.timedelta(hours=2), auto_off=True)
    slow, fast = 0.999 / 1.001, 1.001 / 0.999  # this machine's clock, measured by the store's
    begin, end = 1000.0 + 3600.0 * slow, 1001.0 + 7200.0 * fast
    steps = [
        (begin - 1, True, begin),
        (begin + 1e-6, False, end),
        (end - 1e-6, False, end),
        (end + 1, True, NEVER_ENDS),
    ]
    for now, opens, holds_until in steps:
        clock.now = now
        answer = lease.stale_answer(grace=GRACE)
        assert (is_open(answer), lease.holds_until) == (opens, pytest.approx(holds_until))
        assert answer.deadline == min(now + GRACE, lease.holds_until)
        assert answer.snapshot.enabled is not opens


def test_a_start_that_passes_while_a_request_looks_is_not_missed(lease: Lease, clock: Clock) -> None:
    plan(lease, starts=NOON + dt.timedelta(seconds=5))
    clock.now = 1004.0
    assert not lease.advance()
    clock.now = 1006.0
    answer = lease.find_answer()
    assert answer is not None
    assert not is_open(answer)


def test_a_schedule_that_ends_before_it_begins_never_begins(lease: Lease, clock: Clock) -> None:
    hour = dt.timedelta(hours=1)
    plan(lease, starts=NOON + hour, until=NOON + hour - dt.timedelta(seconds=1), auto_off=True)
    clock.now = 1000.0 + 3598.0
    assert is_open(lease.stale_answer(grace=GRACE))


def test_no_answer_is_found_once_the_lease_is_over(lease: Lease, clock: Clock) -> None:
    read(lease, OFF)
    assert lease.find_answer() is lease.current
    clock.now = 1000 + TTL
    assert lease.find_answer() is None


@pytest.mark.parametrize(
    ("details", "opens"),
    [
        ({"value": True, "until": NOON}, False),  # without auto_off, passing the end switches nothing off
        ({"value": True, "until": NOON, "auto_off": True}, True),
        ({"value": True, "starts": NOON + dt.timedelta(hours=1)}, False),  # by hand: the value counts
        ({"value": True, "auto_off": True}, False),
        ({"until": NOON, "auto_off": True}, True),
        ({"starts": NOON}, False),
        ({"starts": NOON, "until": NOON - dt.timedelta(hours=1), "auto_off": True}, True),
    ],
)
def test_the_effective_value_follows_from_the_row_and_the_clock(
    lease: Lease, clock: Clock, details: dict[str, Any], *, opens: bool
) -> None:
    clock.now = 1002.0
    plan(lease, **details)
    assert is_open(lease.current) is opens


def test_before_the_first_read_no_schedule_is_known(lease: Lease) -> None:
    flag = replace(OFF, starts=NOON - dt.timedelta(hours=1))
    lease.install(Flags(site=flag, revision=1), ticket=lease.ticket())
    assert not lease.flags.site.enabled


# A database that was taken back

OLDER = NOON - dt.timedelta(hours=1)


def restore(lease: Lease, flag: Snapshot, *, scopes: dict[str, Snapshot] | None = None) -> Flags:
    """Install what a database shows after a restore."""
    flags = Flags(site=flag, scopes=scopes or {}, revision=1)
    lease.install(flags, ticket=lease.ticket(), epoch=lease.life.epoch)
    return lease.known


def test_an_older_value_switches_nothing_off_until_a_flip_settles_it(lease: Lease) -> None:
    on = replace(ON, revision=9, updated_at=NOON)
    closed = replace(on, scope="shop", mode="full")
    lease.install(Flags(site=on, scopes={"shop": closed}, revision=9), ticket=lease.ticket())
    old = replace(OFF, updated_at=OLDER)
    for known in (restore(lease, old), restore(lease, old)):
        assert (known.site, known.scopes, known.taken_back) == (on, {"shop": closed}, True)
        assert (known.revision, known.token) == (9, None)
    known = restore(
        lease,
        replace(OFF, updated_at=NOON),
        scopes={"shop": replace(closed, enabled=False, revision=1, updated_at=OLDER)},
    )
    assert (known.site.enabled, known.scopes.keys(), known.taken_back) == (False, {"shop"}, True)
    settled = replace(closed, enabled=False, revision=2, updated_at=NOON + dt.timedelta(hours=1))
    known = restore(lease, replace(OFF, updated_at=NOON), scopes={"shop": settled})
    assert (known.site.enabled, known.scopes, known.taken_back) == (False, {}, False)


@pytest.mark.parametrize(
    "read_back",
    [
        replace(OFF, revision=10, updated_at=OLDER),  # a clock that was set back
        replace(OFF, revision=8, updated_at=NOON),
        replace(OFF, revision=8),  # no time
    ],
)
def test_a_value_that_is_older_in_one_respect_only_is_followed(lease: Lease, read_back: Snapshot) -> None:
    read(lease, replace(ON, revision=9, updated_at=NOON))
    assert restore(lease, read_back).site.enabled is False


def test_an_older_value_switches_on(lease: Lease) -> None:
    read(lease, replace(OFF, revision=9, updated_at=NOON))
    assert restore(lease, replace(ON, updated_at=OLDER)).site.enabled


def test_the_clock_of_a_standby_moves_no_schedule(lease: Lease) -> None:
    """The schedule may be acknowledged by the clock of the primary."""
    snapshot = replace(OFF, starts=NOON)
    for seconds, more in ((60, {}), (90, STANDBY)):
        clock = StoreClock(NOON - dt.timedelta(seconds=seconds), 1000.0, 1000.0)
        flags = Flags(site=replace(snapshot, read_at=1000.0), revision=snapshot.revision, clock=clock)
        assert lease.install(flags, ticket=lease.ticket(), **{"epoch": lease.life.epoch} | more)
    assert lease.holds_until <= 1060.0


def test_a_process_that_has_read_nothing_has_no_age() -> None:
    assert MaintenanceState("memory://").lease.age is None
