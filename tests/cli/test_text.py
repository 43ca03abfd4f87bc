"""How values look."""

import datetime as dt
import json
from uuid import UUID

import pytest

from maintenance.base.values import Snapshot
from maintenance.cli import text
from tests.support.command import instance, machine_in

NOW = dt.datetime(2026, 11, 21, 12, 0, 0, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (-1, "0.00 s"), (0.25, "0.25 s"), (0.999, "1.0 s"), (9.94, "9.9 s"), (9.96, "10 s"), (90, "90 s"),
        (120, "2 min"), (7199, "120 min"), (7200, "2 h"), (172_800, "2 d"),
    ],
)  # fmt: skip
def test_spans_read_well(seconds, shown):
    assert text.format_span(seconds) == shown


def test_control_sequences_are_shown_escaped():
    assert text.escape("GET /\x1b[2J\n\u202e ü") == "GET /\\x1b[2J\\n\\u202e ü"


def test_json_has_other_values_as_text_and_times_in_utc(capsys):
    west = dt.datetime(9999, 12, 31, 23, tzinfo=dt.timezone(-dt.timedelta(hours=5)))  # in UTC there is no such year
    text.print_json([UUID(int=1), NOW.astimezone(dt.timezone(dt.timedelta(hours=2))), west])
    assert json.loads(capsys.readouterr().out) == [
        "00000000-0000-0000-0000-000000000001", "2026-11-21T12:00:00+00:00", "9999-12-31T23:00:00-05:00",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("zone", "when", "shown"),
    [
        ("CET-1", "2099-11-22T06:00:00+00:00", "2099-11-22 07:00:00 CET"),
        # This machine's own time has no such year.
        ("CET-1", "9999-12-31T23:59:59+00:00", "9999-12-31 23:59:59 UTC"),
        ("EST5", "0001-01-01T00:00:00+00:00", "0001-01-01 00:00:00 UTC"),
    ],
)
def test_people_read_the_time_of_their_machine(zone, when, shown):
    with machine_in(zone):
        assert text.format_time(dt.datetime.fromisoformat(when)) == shown


@pytest.mark.parametrize(
    ("enabled", "left", "shown"),
    [
        (True, 1800, "(in 30 min)"),
        (True, 0, "(passed; maintenance stays on until you run `maintenance off`)"),
        (False, -5, "(passed)"),
    ],
)
def test_the_expected_end_is_shown_with_what_follows_from_it(enabled, left, shown):
    snapshot = Snapshot(enabled=enabled, until=NOW + dt.timedelta(seconds=left), revision=3)
    assert text.list_details(snapshot, now=NOW)["until"].endswith(shown)


def test_a_process_is_silent_after_a_heartbeat_and_its_lease():
    assert not text.is_silent(instance(silent_for=69.0))
    assert text.is_silent(instance(silent_for=71.0))


def test_an_answer_is_at_most_as_old_as_can_be_proven():
    assert text.compute_answer_age(instance(silent_for=50.0)) is None
    assert text.compute_answer_age(instance(silent_for=50.0, revision=7)) == 60.0
    assert text.compute_answer_age(instance(silent_for=50.0, revision=7, when_stale="block")) == 10.0


def test_a_report_says_what_the_process_was_doing():
    busy = instance(revision=7, in_flight=2, oldest="GET /x", oldest_age=3.2, websockets=1, silent_for=180.0)
    assert text.describe_report(busy) == (
        "last seen 3 min ago with revision 7, 2 requests in flight "
        "(oldest: GET /x, running for 3 min if it has not ended), 1 WebSocket open"
    )
    assert text.describe_report(busy, work=False) == "last seen 3 min ago"
    assert text.describe_report(instance()) == "last seen 0.00 s ago with no revision yet, requests in flight unknown"
