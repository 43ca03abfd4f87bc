"""The condition of a process, since when, and one line in the log for each change."""

import datetime as dt
import logging

import pytest

from maintenance import MaintenanceState
from maintenance.process.lease import GRACE
from tests.support.clock import Clock, refuse, runtime
from tests.support.entering import is_open
from tests.support.faulty import FaultyStore
from tests.support.life import watcher_of

TTL = 10.0
CANNOT = "maintenance: cannot read the flag from the database"


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


def test_one_line_is_logged_when_the_answer_is_too_old_and_one_when_it_is_fresh_again(
    threadless: MaintenanceState, faulty: FaultyStore, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "maintenance")
    threadless.wait_for_answer()
    assert threadless.status().condition == "fresh"
    clock.now += TTL
    assert threadless.status().condition == "stale"
    assert lines(caplog) == [], "neither the first read nor an old answer is news"
    faulty.away()
    for _ in range(5):
        clock.now += TTL
        threadless.wait_for_answer()
    assert threadless.status().condition == "stale"
    assert lines(caplog) == [f"{CANNOT}, using the last known value (maintenance off): the server is away"]
    caplog.clear()
    faulty.back()
    for _ in range(2):
        clock.now += TTL
        threadless.wait_for_answer()
    assert threadless.status().condition == "fresh"
    assert lines(caplog) == ["maintenance: the flag is fresh again, at revision 1"]


def test_a_read_that_fails_is_no_news_while_the_lease_runs(
    threadless: MaintenanceState, faulty: FaultyStore, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    threadless.wait_for_answer()
    faulty.away()
    clock.now += TTL - 1
    watcher_of(threadless)._try()
    assert (threadless.status().condition, threadless.status().last_error) == ("fresh", "the server is away")
    assert lines(caplog) == []
    clock.now += 1
    assert threadless.status().condition == "stale"
    assert len(lines(caplog)) == 1


@pytest.mark.parametrize(
    ("when_stale", "effect"),
    [("block", "refusing all requests"), ("serve", "using the last known value (maintenance on)")],
)
def test_the_line_names_the_effect_on_requests(
    faulty: FaultyStore, clock: Clock, caplog: pytest.LogCaptureFixture, when_stale: str, effect: str
) -> None:
    state = MaintenanceState(faulty, when_stale=when_stale, runtime=runtime(clock, start=refuse))  # type: ignore[arg-type]
    state.set(True)
    faulty.away("no route to host")
    clock.now += TTL
    state.wait_for_answer()
    assert lines(caplog) == [f"{CANNOT}, {effect}: no route to host"]


def test_since_is_when_the_condition_began(threadless: MaintenanceState, clock: Clock) -> None:
    never = threadless.status()
    assert never.since.utcoffset() == dt.timedelta(0)
    threadless.wait_for_answer()
    fresh = threadless.status()
    assert fresh.since > never.since
    clock.now += GRACE
    assert threadless.status().since == fresh.since


def test_the_environment_counts_as_never_read(
    faulty: FaultyStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAINTENANCE_MODE", "on")
    state = MaintenanceState(faulty, runtime=runtime(clock, start=refuse))
    faulty.away()
    assert not is_open(state.wait_for_answer())
    assert (state.status().condition, state.status().snapshot.source) == ("never read", "environment")


def test_a_log_that_fails_prevents_no_request_and_no_read(
    threadless: MaintenanceState, faulty: FaultyStore, clock: Clock, failing_log: list[str]
) -> None:
    threadless.wait_for_answer()
    for fail, condition in ((faulty.away, "stale"), (faulty.back, "fresh")):
        fail()
        clock.now += TTL
        assert is_open(threadless.wait_for_answer())
        assert threadless.status().condition == condition
    assert [line.partition(",")[0] for line in failing_log] == [CANNOT, "maintenance: the flag is fresh again"]
    faulty.away()
    assert not threadless.prime().enabled
