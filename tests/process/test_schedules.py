"""A process begins and ends on time, reports it, and one process writes the value: with a clock that a test moves."""

import datetime as dt
from dataclasses import replace
from typing import Any

import pytest

from maintenance import ConflictError, MaintenanceState
from maintenance.base.flags import StoreClock
from maintenance.base.secret import hash_token
from maintenance.base.values import Change, Details
from maintenance.errors import StoreError
from maintenance.process.reader import CARRY_OUT_PAUSE, CARRY_OUT_SPREAD
from maintenance.process.status import TAKEN_BACK
from maintenance.stores import Store
from tests.support.clock import Clock, refuse, runtime
from tests.support.entering import is_open
from tests.support.faulty import FaultyStore
from tests.support.life import Life

HOUR = dt.timedelta(hours=1)


@pytest.fixture
def life() -> Life:
    """A process that has read a flag which begins in an hour and ends by itself an hour later."""
    life = Life(ttl=10_000.0)
    life.attempt()
    life.plan(starts=HOUR, until=2 * HOUR, auto_off=True)
    life.attempt()
    return life


def test_the_start_is_followed_reported_and_written(life: Life) -> None:
    begin = life.lease.holds_until
    assert begin == pytest.approx(1000.0 + 3600.0 * 0.999 / 1.001, abs=5.0)
    tries, reports = life.tries, len(life.store.reports)
    life.clock.now = begin
    life.turn()
    assert (is_open(life.lease.current), life.lease.flags.site.enabled) == (False, True)
    assert (life.tries, len(life.store.reports)) == (tries + 1, reports + 1), (
        "listeners are notified, and the row shows it"
    )
    assert not life.stored().enabled, "not at once: one process of the fleet is enough"
    life.clock.now += CARRY_OUT_SPREAD
    life.turn()
    assert life.stored().enabled
    life.attempt()
    life.clock.now = life.lease.holds_until
    for _ in range(2):
        life.turn()
        life.clock.now += CARRY_OUT_SPREAD
    assert (is_open(life.lease.current), life.stored().enabled, life.stored().starts) == (True, False, None)


def test_a_schedule_that_has_passed_unseen_is_over_and_is_written(life: Life) -> None:
    """Such as one of a night in which no process ran. It must not count as planned for ever."""
    life.clock.now += 3 * 3600.0
    life.turn()
    site = life.lease.flags.site
    assert (site.enabled, site.starts, site.in_force) == (False, None, False)
    assert life.stored().in_force
    life.clock.now += CARRY_OUT_SPREAD
    life.turn()
    assert not life.stored().in_force


def test_a_process_that_may_not_write_follows_all_the_same_and_tries_again(
    life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[float] = []
    session = type(life.watcher.reader.session)
    monkeypatch.setattr(session, "carry_out", lambda *_, **__: tried.append(life.clock.now) is not None)
    begin = life.clock.now = life.lease.holds_until
    for _ in range(40):
        life.turn()
        life.clock.now += 1.0
    assert not is_open(life.lease.current)
    assert tried == pytest.approx([begin + 1.0 + n * CARRY_OUT_PAUSE for n in range(4)])


def test_another_process_that_was_faster_is_enough(life: Life) -> None:
    life.clock.now = life.lease.holds_until
    life.turn()
    site = life.stored()
    assert life.store.inner.connect().carry_out(None, site.revision, enabled=True)
    life.attempt()
    revision = life.stored().revision
    life.clock.now += 1.0
    life.turn()
    assert (life.stored().revision, life.reported[-1]) == (revision, revision)


def test_without_a_connection_the_thread_wakes_at_the_start(life: Life) -> None:
    life.store.away()
    life.attempt()
    begin = life.lease.holds_until
    life.clock.now = begin - 0.01
    tries = life.tries
    life.rest()
    life.rest()
    assert life.tries > tries
    assert not is_open(life.lease.stale_answer(grace=1.0))


# A state


@pytest.fixture
def state(threadless: MaintenanceState) -> MaintenanceState:
    return threadless


def soon(**more: Any) -> dict[str, Any]:
    return {"starts": dt.datetime.now(dt.UTC) + HOUR, **more}


def test_what_begins_next_is_announced_and_then_it_is_on(
    state: MaintenanceState, faulty: FaultyStore, clock: Clock
) -> None:
    assert state.upcoming() is None
    later = state.set(True, scope="shop", **soon(message="later"))
    assert (later.enabled, later.scope) == (False, "shop")
    first = state.set(True, starts=dt.datetime.now(dt.UTC) + HOUR / 2)
    assert state.upcoming() == first
    assert [state.is_enabled(scope) for scope in (None, "shop")] == [False, False]
    faulty.away()  # nor does it take the store
    clock.now += 2000.0
    assert state.upcoming() == later
    assert (state.enabled, state.is_enabled("shop"), state.is_enabled("blog")) == (True, True, True)
    faulty.back()
    state.set(False)
    faulty.away()
    clock.now += 4000.0
    assert [state.is_enabled(scope) for scope in (None, "shop", "blog")] == [False, True, False]
    with pytest.raises(ValueError, match="scope is 'a b'"):
        state.is_enabled("a b")


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (
            {"starts": dt.datetime.fromisoformat("2031-01-01")},
            ValueError,
            "starts is 2031-01-01 00:00:00, which names no time zone",
        ),
        ({"starts": "noon"}, TypeError, "starts is a str: use an aware datetime"),
        ({"starts": dt.datetime(2020, 1, 1, tzinfo=dt.UTC)}, ValueError, "use a later time"),
        (soon(until=dt.datetime.now(dt.UTC)), ValueError, "until is .*, which is not after starts"),
        ({"auto_off": True}, ValueError, "auto_off is True and until is None"),
        ({"auto_off": 1}, TypeError, "auto_off is 1: use True or False"),
        ({"scope": "a b"}, ValueError, "scope is 'a b': use 1 to 100 letters"),
        ({"scope": 7}, TypeError, "scope is a int"),
        ({"if_revision": "7"}, TypeError, "if_revision is '7': use the revision of a Snapshot"),
        ({"if_revision": True}, TypeError, "if_revision is True"),
        ({"enabled": False, **soon()}, ValueError, "starts is given and enabled is False"),
    ],
)
def test_a_wrong_schedule_is_refused_before_anything_is_written(
    state: MaintenanceState, faulty: FaultyStore, wrong: dict[str, Any], error: type, message: str
) -> None:
    last = faulty.inner.connect().read().last
    with pytest.raises(error, match=message):
        state.set(**{"enabled": True, **wrong})
    assert faulty.inner.connect().read().last == last


# update()


def test_an_edit_changes_only_what_it_names(store: Store) -> None:
    state = MaintenanceState(store, register=False)
    planned = soon(message="m", mode="read_only", reason="r", actor="Ann", retry_after=7)
    before = state.set(True, scope="shop", **planned)
    until = planned["starts"] + HOUR
    after = state.update(scope="shop", until=until, auto_off=True)
    assert (after.until, after.auto_off, after.revision) == (until, True, before.revision + 1)
    kept = ("message", "mode", "reason", "actor", "retry_after", "starts", "enabled")
    assert {name: getattr(after, name) for name in kept} == {name: getattr(before, name) for name in kept}
    on = state.set(True, scope="shop", message="m", reason="r")
    assert state.update(scope="shop", message=None, if_revision=on.revision).reason == "r"


def test_an_edit_needs_a_flag_that_is_on_and_that_nobody_else_has_changed(state: MaintenanceState) -> None:
    with pytest.raises(ConflictError, match="maintenance is off, so it has no details"):
        state.update(message="m")
    revision = state.set(True).revision
    state.update(message="m")
    with pytest.raises(ConflictError, match=f"not {revision}: look at `maintenance log`"):
        state.update(message="n", if_revision=revision)
    with pytest.raises(TypeError, match="texts: use the details of set_maintenance"):
        state.update(texts="m")
    state.update(secret="a" * 32)
    assert state.lease.flags.site.secret == hash_token("a" * 32)
    assert state.lease.flags.site.message == "m"


@pytest.mark.parametrize("limit", [0, -1, "5", 10**9])
def test_a_history_has_a_limit(state: MaintenanceState, limit: Any) -> None:
    with pytest.raises(ValueError, match="use a whole number from 1 to 100000"):
        state.history(limit=limit)


# A database that was taken back


def test_a_database_that_was_taken_back_keeps_the_site_closed_until_a_flip(
    state: MaintenanceState, faulty: FaultyStore, caplog: pytest.LogCaptureFixture
) -> None:
    off = faulty.inner.row
    assert off is not None
    state.set(True, scope="shop")
    state.set(True)
    faulty.inner._table.rows.pop("shop")
    faulty.go_back(off)
    for _ in range(2):
        assert state.refresh().enabled
        assert state.is_enabled("shop")
    assert state.status().flags.taken_back
    state.set(False)
    state.set(False, scope="shop")
    assert not state.refresh().enabled
    assert not state.status().flags.taken_back
    lines = [record.getMessage() for record in caplog.records]
    assert lines == [f"maintenance: {TAKEN_BACK}", "maintenance: the flags of the database are followed again"]


@pytest.mark.parametrize("value", [False, True])
def test_a_process_that_starts_then_refuses_if_another_one_knows_more(
    faulty: FaultyStore, clock: Clock, *, value: bool
) -> None:
    assert faulty.inner.row is not None
    older = replace(faulty.inner.row, value_bool=value, details={"mode": "read_only"})
    other = Life()
    other.store.inner = faulty.inner
    other.flip()
    other.attempt()
    faulty.go_back(older)
    new = MaintenanceState(faulty, runtime=runtime(clock, start=refuse))
    for _ in range(2):
        assert (new.refresh().enabled, new.snapshot().mode, new.status().flags.taken_back) == (True, "full", True)
    new.set(False)
    assert (new.refresh().enabled, new.status().flags.taken_back) == (False, False)


def test_a_lease_that_knows_no_store_s_clock_uses_its_own(state: MaintenanceState) -> None:
    assert abs(state.lease.store_now - dt.datetime.now(dt.UTC)) < HOUR
    clock = StoreClock(dt.datetime(2031, 1, 1, tzinfo=dt.UTC), 5.0, 6.0)
    assert clock.read(16.0) == dt.datetime(2031, 1, 1, 0, 0, 10, tzinfo=dt.UTC)


def test_a_store_that_fails_while_the_value_is_written_is_tried_again(life: Life) -> None:
    life.clock.now = life.lease.holds_until
    life.turn()
    life.clock.now += 1.0
    life.store.away()
    with pytest.raises(StoreError):
        life.turn()
    life.store.back()
    life.clock.now += CARRY_OUT_PAUSE
    life.turn()
    assert life.stored().enabled


def test_a_change_needs_values_that_fit() -> None:
    with pytest.raises(TypeError, match="enabled is 1"):
        Change(enabled=1, details=Details())  # type: ignore[arg-type]
