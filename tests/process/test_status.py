"""Which of fresh, stale and never read holds, since when; and one line in the log for each turn."""

import datetime as dt
import logging

import pytest

from maintenance import MaintenanceState
from maintenance.process.lease import GRACE
from tests.support.clock import Clock, refuse, runtime
from tests.support.entering import is_open
from tests.support.faulty import FaultyStore

TTL = 10.0


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store() -> FaultyStore:
    return FaultyStore()


@pytest.fixture
def state(store: FaultyStore, clock: Clock) -> MaintenanceState:
    return MaintenanceState(store, ttl=TTL, runtime=runtime(clock, start=refuse))


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


def test_the_first_good_read_is_no_news(state: MaintenanceState, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "maintenance")
    state.wait_for_answer()
    assert state.status().condition == "fresh"
    assert lines(caplog) == []


def test_one_line_when_it_goes_stale_and_one_when_it_is_back(
    state: MaintenanceState, store: FaultyStore, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    state.wait_for_answer()
    store.away()
    for _ in range(5):
        clock.now += TTL
        state.wait_for_answer()
    assert state.status().condition == "stale"
    [line] = lines(caplog)
    assert line == (
        "maintenance: cannot read the flag from the database, using the last known value (maintenance off): "
        "the server is away"
    )
    caplog.clear()
    store.back()
    clock.now += TTL
    state.wait_for_answer()
    clock.now += TTL
    state.wait_for_answer()
    assert state.status().condition == "fresh"
    assert lines(caplog) == ["maintenance: the flag is fresh again, at revision 1"]


def test_an_answer_that_is_merely_old_is_no_news(
    state: MaintenanceState, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    state.wait_for_answer()
    clock.now += TTL
    assert state.status().condition == "stale"
    assert lines(caplog) == []


def test_a_read_that_fails_while_the_lease_runs_is_no_news_yet(
    state: MaintenanceState, store: FaultyStore, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    state.wait_for_answer()
    store.away()
    clock.now += TTL - 1
    assert state.lifecycle.watcher is not None
    state.lifecycle.watcher._try()
    assert (state.status().condition, state.status().last_error) == ("fresh", "the server is away")
    assert lines(caplog) == []
    clock.now += 1
    assert state.status().condition == "stale"
    assert len(lines(caplog)) == 1


def test_it_says_what_requests_get(store: FaultyStore, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    state = MaintenanceState(store, ttl=TTL, when_stale="block", runtime=runtime(clock, start=refuse))
    store.away("no route to host")
    state.wait_for_answer()
    assert lines(caplog) == [
        "maintenance: cannot read the flag from the database, refusing all requests: no route to host"
    ]


def test_it_says_that_the_last_answer_was_on(
    state: MaintenanceState, store: FaultyStore, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    state.set(True)
    store.away()
    clock.now += TTL
    state.wait_for_answer()
    assert "using the last known value (maintenance on)" in lines(caplog)[-1]


def test_since_is_when_the_condition_began(state: MaintenanceState, store: FaultyStore, clock: Clock) -> None:
    never = state.status()
    assert never.since.utcoffset() == dt.timedelta(0)
    state.wait_for_answer()
    fresh = state.status()
    assert fresh.since > never.since
    clock.now += GRACE
    assert state.status().since == fresh.since


def test_the_environment_is_no_read(store: FaultyStore, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAINTENANCE_MODE", "on")
    state = MaintenanceState(store, runtime=runtime(clock, start=refuse))
    store.away()
    assert not is_open(state.wait_for_answer())
    assert (state.status().condition, state.status().snapshot.source) == ("never read", "environment")


def test_a_log_that_fails_hinders_no_request_and_no_read(
    state: MaintenanceState, store: FaultyStore, clock: Clock, failing_log: list[str]
) -> None:
    state.wait_for_answer()
    store.away()
    clock.now += TTL
    assert is_open(state.wait_for_answer())
    assert state.status().condition == "stale"
    store.back()
    clock.now += TTL
    assert is_open(state.wait_for_answer())
    assert state.status().condition == "fresh"
    assert [line.partition(",")[0] for line in failing_log] == [
        "maintenance: cannot read the flag from the database",
        "maintenance: the flag is fresh again",
    ]
    store.away()
    assert not state.prime().enabled
