"""Scopes, schedules, edits and the history on the command line."""

import datetime as dt
import re
from contextlib import closing
from typing import Any

import pytest

from maintenance.process.state import MaintenanceState
from maintenance.stores import open_store
from tests.stores.helpers import flip, instance, run_sql
from tests.support.command import Cli, fleet_of, operator

HOUR = dt.timedelta(hours=1)


def flags(url: str) -> Any:
    state = operator(url)
    state.refresh()
    return state.status().flags


def test_a_scope_is_flipped_alone_and_status_shows_every_flag(each_url: str, cli: Cli):
    done = cli("on", "--scope", "shop", "--message", "stocktaking")
    assert (done.status, done.err) == (0, "")
    assert done.lines[0].startswith("maintenance for shop is ON in ")
    status = cli("status")
    assert status.status == 0, "the site is open"
    assert [line.partition(" in ")[0] for line in status.lines if line.startswith("maintenance")] == [
        "maintenance is OFF",
        "maintenance for shop is ON",
    ]
    [shown] = cli("status", "--json").json
    assert [(it["scope"], it["enabled"]) for it in shown["scopes"]] == [("shop", True)]
    assert cli("off", "--scope", "shop").status == 0
    assert not flags(each_url).scopes


@pytest.mark.parametrize("when", [("--in", "2h"), ("--in", "120 min"), ("--in", "1hour 60minutes")])
def test_a_schedule_is_written_and_shown(url: str, cli: Cli, when: tuple[str, str]):
    before = dt.datetime.now(dt.UTC).replace(microsecond=0)
    done = cli("on", *when, "--for", "30m", "--auto-off", "--scope", "shop")
    assert (done.status, done.err) == (0, "")
    assert done.lines[0].startswith("maintenance for shop is OFF, and planned, in ")
    assert "ends then)" in done.out
    flag = flags(url).scopes["shop"]
    assert before + 2 * HOUR <= flag.starts <= before + 2 * HOUR + dt.timedelta(minutes=1)
    assert (flag.until - flag.starts, flag.auto_off, flag.enabled) == (HOUR / 2, True, False)


def test_a_wait_for_a_planned_maintenance_begins_with_it(each_url: str, cli: Cli):
    with fleet_of(each_url, 2):
        done = cli("on", "--in", "3s", "--scope", "shop", "--wait", "--drain", "--expect", "2")
        assert (done.status, done.err) == (0, "")
        assert "it begins in " in done.out
        assert "leaves the schedule" in done.out
        assert "proven after " in done.lines[-1]
    assert flags(each_url).scopes["shop"].enabled
    cli("on", "--in", "1s")
    done = cli("wait", "--expect", "1", "--timeout", "0", "--drain")
    assert (done.status, "; the schedule stays (revision " in done.err) == (4, True)


def test_a_time_with_a_zone_is_taken_as_it_is_written(url: str, cli: Cli):
    assert cli("on", "--at", "2031-05-01 02:00+02:00").status == 0
    assert flags(url).site.starts == dt.datetime(2031, 5, 1, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--at 2020-01-01T00:00Z", "the start is .*, which has passed: use a later time"),
        ("--until 2020-01-01T00:00Z", "the end is .*, which has passed"),
        ("--at 9999-12-31T23:59:59Z --for 2h", "the end is after the year 9999"),
        ("--at 2031-05-01T02:00", "no time zone: use .*Z for UTC"),
        ("--at 2031-05-01T02:00Z --until 2031-05-01T01:00Z", "until is .*, which is not after starts"),
        ("--auto-off", "auto_off is True and until is None"),
        ("--in 2weeks", "not a duration"),
        ("--at 18:00", "no time zone: use .*Z for UTC"),
        ("--in 9000000d", "ends after the year 9999"),
        ("--scope a%b", "not a scope: use 1 to 100 letters"),
        ("--if-off --if-revision 7", "use either --if-off or --if-revision"),
        ("--wait --expect web=x", "not a number of processes"),
        ("--wait --expect =3", "not a number of processes"),
        ("--wait --expect web=1 --expect web=2", "--expect is given twice"),
    ],
)
def test_a_wrong_schedule_is_refused_before_anything_is_written(url: str, cli: Cli, arguments: str, message: str):
    before = flags(url).revision
    done = cli("on", *arguments.split())
    assert done.status == 2
    assert re.search(message, done.err)
    assert flags(url).revision == before


def test_a_flip_says_what_it_replaces(each_url: str, cli: Cli):
    assert "replaced" not in cli("on", "--actor", "Ann", "--reason", "upgrade", "--mode", "read_only").out
    done = cli("off")
    [line] = [line for line in done.lines if line.startswith("replaced: ")]
    assert line.startswith("replaced: on, read_only, since ")
    assert line.endswith(", by Ann, because: upgrade")
    cli("on", "--in", "2h")
    assert "replaced: planned" in cli("off").out
    [shown] = cli("on", "--json").json
    assert shown["replaced"]["enabled"] is False


def test_a_flip_is_refused_if_another_operator_was_faster(each_url: str, cli: Cli):
    cli("on", "--scope", "shop")
    revision = flags(each_url).scopes["shop"].revision
    cli("off", "--scope", "shop")
    done = cli("on", "--scope", "shop", "--if-revision", str(revision))
    assert (done.status, f"at revision {revision + 1}, not {revision}" in done.err) == (5, True)
    for scope in ([], ["--scope", "shop"], ["--scope", "new"]):
        assert cli("on", "--if-off", *scope).status == 0
        done = cli("on", "--if-off", *scope)
        assert (done.status, "is on or planned already (on, full, since " in done.err) == (5, True)


def test_a_schedule_that_has_passed_unseen_is_no_obstacle(each_url: str, cli: Cli):
    cli("on", "--in", "1h", "--for", "1h", "--auto-off")
    passed = '{"starts": "2026-01-01T02:00:00+00:00", "until": "2026-01-01T03:00:00+00:00", "auto_off": true}'
    run_sql(each_url, f"UPDATE platform_settings SET details = '{passed}' WHERE key = 'maintenance_mode'")
    shown = cli("status")
    assert "maintenance is OFF in " in shown.out
    assert "planned" not in shown.out
    assert "the end of maintenance has passed, and no process has written it" in shown.err + shown.out
    assert cli("status", "--json").json[0]["unwritten"] == [None]
    assert cli("on", "--if-off").status == 0


def test_an_edit_changes_what_it_names_and_nothing_else(each_url: str, cli: Cli):
    cli("on", "--scope", "shop", "--message", "soon", "--mode", "read_only", "--for", "1h", "--reason", "r")
    before = flags(each_url).scopes["shop"]
    assert cli("extend", "30m", "--scope", "shop").status == 0
    assert cli("edit", "--scope", "shop", "--message", "later").status == 0
    after = flags(each_url).scopes["shop"]
    assert (after.until, after.message) == (before.until + HOUR / 2, "later")
    assert (after.mode, after.reason, after.enabled) == ("read_only", "r", True)
    assert cli("edit", "--scope", "shop", "--message", "x", "--if-revision", "1").status == 5
    assert cli("edit", "--scope", "shop", "--until", "2020-01-01T00:00Z").status == 2
    done = cli("edit", "--scope", "shop")
    assert (done.status, "name what to change" in done.err) == (2, True)
    for command in (["extend", "30m"], ["edit", "--message", "m"]):
        done = cli(*command)
        assert (done.status, "maintenance is off" in done.err) == (5, True)


def test_an_end_that_has_passed_or_is_unknown_is_extended_from_now(url: str, cli: Cli):
    cli("on")
    before = dt.datetime.now(dt.UTC).replace(microsecond=0)
    assert cli("extend", "30m").status == 0
    assert before + HOUR / 2 <= flags(url).site.until <= before + HOUR


def test_two_operators_who_extend_at_once_lose_no_extension(url: str, cli: Cli, monkeypatch: pytest.MonkeyPatch):
    cli("on", "--for", "1h")
    before = flags(url).site
    update = MaintenanceState.update

    def be_late(state: MaintenanceState, **details: Any) -> Any:
        monkeypatch.undo()
        monkeypatch.setenv("MAINTENANCE_DATABASE_URL", url)
        assert cli("extend", "30m").status == 0
        return update(state, **details)

    monkeypatch.setattr(MaintenanceState, "update", be_late)
    assert cli("extend", "10m").status == 5
    assert flags(url).site.until == before.until + HOUR / 2


def test_a_scope_that_is_off_is_waited_for(each_url: str, cli: Cli):
    cli("on", "--scope", "shop")
    cli("off", "--scope", "shop")
    cli("on")
    assert cli("wait", "--scope", "shop", "--timeout", "0").status == 0
    done = cli("wait", "--scope", "shpo", "--timeout", "0")
    assert (done.status, "no flag of the scope 'shpo'" in done.err) == (1, True)


def test_the_history_shows_who_changed_what(each_url: str, cli: Cli):
    assert cli("log", "--scope", "shop").lines == ["no change is recorded"]
    cli("on", "--scope", "shop", "--actor", "Ann", "--message", "\x1b[2J")
    cli("edit", "--scope", "shop", "--message", "m")
    cli("off", "--scope", "shop")
    cli("on", "--in", "2h")
    lines = cli("log", "--limit", "4").lines
    changes = ("the site planned", "scope shop off", "scope shop edited, on", "scope shop on")
    assert [change in line for change, line in zip(changes, lines, strict=True)] == [True] * 4
    assert "actor: Ann" in lines[3]
    assert "\\x1b[2J" in lines[3]
    entries = cli("log", "--scope", "shop", "--json").json
    assert [(it["before"], it["after"]) for it in entries] == [(True, False), (True, True), (None, True)]
    run_sql(each_url, "DELETE FROM platform_settings WHERE key = 'maintenance_mode:shop'")
    assert "scope shop deleted" in cli("log").lines[0]
    cli("off")
    assert "the site cancelled" in cli("log").lines[0]


def test_a_fleet_is_checked_by_service(each_url: str, cli: Cli):
    session = open_store(each_url).connect()
    with closing(session):
        revision = flip(session)
        for number, service in enumerate(["web", "web", "worker"]):
            session.report(instance(id=f"{number + 1}" * 32, revision=revision, service=service))
    assert cli("fleet", "--check").status == 0
    assert "SERVICE" in cli("fleet").out
    wait = ("wait", "--timeout", "0", "--expect", "web=2")
    assert cli(*wait, "--expect", "worker=1").status == 0
    done = cli(*wait, "--expect", "worker=2")
    assert (done.status, "1 of 2 expected processes of the service worker" in done.err) == (4, True)
    assert "--expect web=2 --expect worker=2" in done.out
    cli("on", "--scope", "shop")
    cli("on", "--scope", "blog", "--in", "2h")
    done = cli("fleet", "--check")
    assert done.status == 4
    assert [line.partition(" in ")[0] for line in done.lines[:3]] == [
        "maintenance is ON",
        "maintenance for blog is OFF, and planned,",
        "maintenance for shop is ON",
    ]
    done = cli("fleet", "--check", "--json")
    assert (done.status, [it["scope"] for it in done.json[0]["scopes"]]) == (4, ["blog", "shop"])


def test_a_database_that_was_taken_back_is_shown(url: str, cli: Cli):
    with closing(open_store(url).connect()) as session:
        session.report(instance(revision=99))
    done = cli("status")
    assert (done.status, "shows an older state" in done.err) == (3, True)
    assert cli("status", "--json").json[0]["taken_back"] is True
    done = cli("fleet")
    assert ("99 ahead" in done.out, "shows an older state" in done.err) == (True, True)
    cli("off")
    assert cli("status").status == 0


def test_a_message_for_each_language(each_url: str, cli: Cli):
    done = cli("on", "--message", "Soon.", "--message-for", "de", "Bald.", "--message-for", "pt-br", "Já volta.")
    assert done.lines[2:5] == ["  message     Soon.", "  in de       Bald.", "  in pt-BR    Já volta."]
    assert operator(each_url).refresh().messages == {"de": "Bald.", "pt-BR": "Já volta."}
    assert cli("edit", "--message-for", "de", "Gleich.").status == 0
    flag = operator(each_url).refresh()
    assert (flag.message, flag.messages) == ("Soon.", {"de": "Gleich.", "pt-BR": "Já volta."})
    cli("extend", "30m")
    assert operator(each_url).refresh().messages == flag.messages
    assert cli("edit", "--message", "Now.", "--message-for", "fr", "Là.").status == 0
    flag = operator(each_url).refresh()
    assert (flag.message, flag.messages) == ("Now.", {"fr": "Là."})
    cli("edit", "--message", "Later.")
    assert operator(each_url).refresh().messages is None
    for wrong in (["deutsch!", "x"], ["de", "x", "--message-for", "DE", "y"]):
        done = cli("on", "--message-for", *wrong)
        assert (done.status, "--message-for" in done.err) == (2, True)
