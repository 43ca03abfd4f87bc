"""``maintenance status`` and ``watch``: the flag, now and as it changes."""

import datetime as dt
import json
import re
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from maintenance.base.flags import Flags, Reading
from maintenance.base.instances import Fleet
from maintenance.base.values import Snapshot
from maintenance.cli.commands.status import Trouble, _complete, build_event_json, follow, judge_fleet
from maintenance.errors import StoreError
from maintenance.process.state import MaintenanceState
from maintenance.stores import open_store
from tests.support.command import Acting, Cli, change, instance, machine_in, operator, read_until, register, run, start


def test_status_shows_people_their_time_and_machines_utc(url: str, cli: Cli):
    operator(url).set(True, until=dt.datetime(2099, 11, 22, 6, tzinfo=dt.UTC), reason="why")
    with machine_in("CET-1"):
        assert "2099-11-22 07:00:00 CET (in " in (shown := cli("status").out)
    assert "  reason      why\n" in shown
    done = cli("status", "--json")
    assert (done.status, done.json[0]["until"], done.json[0]["problem"]) == (3, "2099-11-22T06:00:00+00:00", None)


def test_status_begins_with_a_verdict(url: str, cli: Cli):
    assert cli("status").lines[0] == "no process is registered"
    flag = operator(url).set(True)
    following = [instance(revision=flag.revision) for _ in range(5)]
    register(open_store(url), *following, instance(host="web-3", pid=28242, revision=1))
    change(url, "UPDATE maintenance_instances SET seen_at = seen_at - 180 WHERE host = 'web-3'")
    verdict = "5 of 6 processes follow; web-3 pid 28242 has not reported for 3 min and may still serve"
    assert cli("status").lines[0] == verdict
    [shown] = cli("status", "--json").json
    assert (shown["processes"], shown["following"]) == (6, 5)
    register(open_store(url), *(instance() for _ in range(4)))
    assert cli("status").lines[0].endswith("; 2 more do not follow either: run `maintenance fleet`")


def test_status_is_shown_if_the_processes_cannot_be_read(url: str, cli: Cli, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object, **__: object) -> None:
        raise StoreError("permission denied")

    # A role that may read the flags only needs a server of its own.
    monkeypatch.setattr(MaintenanceState, "fleet", refuse)
    done = cli("status")
    assert (done.status, done.lines[0]) == (0, "how many processes follow is unknown: permission denied")
    [shown] = cli("status", "--json").json
    assert (shown["processes"], shown["following"]) == (None, None)


NOW = dt.datetime(2031, 5, 1, tzinfo=dt.UTC)
ON = Snapshot(enabled=True, revision=6, updated_at=NOW - dt.timedelta(minutes=1))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"problem": "x", "revision": 7}, "has a row that cannot be trusted and may still serve"),
        ({}, "follows no revision yet and may still serve"),
        ({"revision": 5}, "follows only revision 5 and may still serve"),
        ({"revision": 6}, "follows only revision 6"),
        ({"revision": 9}, "follows revision 9, which the database does not have"),
        ({"revision": 7, "silent_for": 300.0}, "has not reported for 5 min"),
        ({"when_stale": "block", "ttl": 10.0}, "follows no revision yet"),
        ({"when_stale": "block", "ttl": 90.0}, "follows no revision yet and may still serve"),
    ],
)
def test_the_verdict_says_why_a_process_does_not_follow(given: dict[str, Any], says: str):
    fleet = Fleet(Reading(None, last=7, now=NOW), (instance(host="web\x1b[2J", **given),), intact=True)
    shown = judge_fleet(fleet, Flags(site=ON))
    assert shown == f"0 of 1 process follows; web\\x1b[2J pid 4242 {says}"
    assert "may still serve" not in judge_fleet(fleet, Flags(site=replace(ON, enabled=False)))


@pytest.mark.parametrize(
    ("value", "details", "says"),
    [
        (0, {"starts": "2020-01-01T00:00Z"}, "warning: the start of maintenance{} has passed, and no process"),
        (1, {"until": "2020-01-01T00:00Z", "auto_off": True}, "warning: the end of maintenance{} has passed, and no"),
    ],
    ids=["start", "end"],
)
def test_status_shows_a_schedule_that_nobody_has_written(url: str, cli: Cli, value, details, says):
    cli("on", "--scope", "shop")
    cli("off", "--scope", "shop")
    change(url, f"UPDATE platform_settings SET value_bool = {value}, details = '{json.dumps(details)}'")
    for scope, where in (None, ""), ("shop", " for shop"):
        done = cli("status", *(() if scope is None else ("--scope", scope)))
        assert says.format(where) in done.err
        assert done.status == (0 if value else 3)
    assert cli("status", "--json").json[0]["unwritten"] == [None, "shop"]


def test_status_of_a_scope_is_3_if_it_or_the_site_is_closed(each_url: str, cli: Cli):
    done = cli("status", "--scope", "shop")
    assert (done.status, "Is this its name?" in done.err) == (0, True)
    cli("on", "--scope", "shop")
    cli("on", "--scope", "blog")
    done = cli("status", "--scope", "shop")
    assert (done.status, done.err, "blog" in done.out) == (3, "", False)
    cli("off", "--scope", "shop")
    assert cli("status", "--scope", "shop").status == 0
    [shown] = cli("status", "--scope", "shop", "--json").json
    assert [(it["scope"], it["enabled"]) for it in shown["scopes"]] == [("shop", False)]
    cli("on")
    assert cli("status", "--scope", "shop").status == 3


@pytest.mark.parametrize("command", ["status", "fleet"])
def test_an_answer_of_a_standby_is_warned_of(url: str, cli: Cli, monkeypatch, command: str):
    init = Reading.__init__
    # SQLite has no standby; with PostgreSQL, one takes seconds to set up.
    monkeypatch.setattr(Reading, "__init__", lambda *args, **more: init(*args, **{**more, "primary": False}))
    assert "warning: a standby answered" in cli(command).err
    assert "a standby answered" in cli(command, "--json").json[0]["problem"]


def test_status_shows_a_message_that_the_terminal_cannot_show_escaped(url: str):
    operator(url).set(True, message="Zurück")
    done = run("status", env={"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 3
    assert "Zur\\xfcck" in done.stdout


def test_status_and_fleet_name_the_column_that_is_wrong(url: str, cli: Cli):
    change(url, "UPDATE platform_settings SET value_bool = NULL")
    for command in ("status", "fleet"):
        done = cli(command)
        assert done.status == 1
        assert "platform_settings.value_bool" in done.err


WRONG = 'UPDATE platform_settings SET value_bool = 1, details = \'{"mode": "FULL", "message": "soon"}\''
PROBLEM = "mode is 'FULL': use 'full' or 'read_only'"


def test_status_names_details_that_are_wrong_and_ignored(url: str, cli: Cli):
    change(url, WRONG)
    done = cli("status")
    assert (done.status, done.err) == (3, "")
    assert "maintenance is ON in " in done.out
    for line in ("mode        full (all requests are refused)", "message     soon", f"problems    {PROBLEM}"):
        assert f"\n  {line}\n" in done.out
    [shown] = cli("status", "--json").json
    assert (shown["enabled"], shown["message"], shown["problems"], shown["problem"]) == (True, "soon", [PROBLEM], None)
    assert cli("fleet", "--json").json[0]["flag"]["problems"] == [PROBLEM]


@pytest.mark.parametrize("option", [[], ["--json"]])
def test_watch_names_details_that_are_wrong_and_ignored(url: str, cli: Cli, option: list[str]):
    output = Acting({
        ("maintenance is OFF" if not option else '"enabled": false'): lambda: change(url, WRONG),
        PROBLEM: lambda: signal.raise_signal(signal.SIGINT),
    })  # fmt: skip
    done = cli("watch", *option, output=output)
    assert done.status == 0
    assert "soon" in done.lines[-1]


def test_watch_shows_the_flag_then_each_change_until_ctrl_c(each_url: str):
    state = operator(each_url)
    with start("watch") as watching:
        read_until(watching, "maintenance is OFF in ")
        until = dt.datetime(2099, 1, 1, tzinfo=dt.UTC)
        flipped = state.set(True, message="soon", reason="why", actor="alice", until=until)
        line = read_until(watching, "maintenance is ON")
        for detail in (f"(revision {flipped.revision})", "actor: alice", "until: 20", "message: soon", "reason: why"):
            assert detail in line
        state.set(True, mode="read_only")
        assert "; mode: read_only" in read_until(watching, "maintenance is ON")
        assert state.fleet().instances == ()
        watching.send_signal(signal.SIGINT)
        out, err = watching.communicate(timeout=10)
        assert (out, err, watching.returncode) == ("", "", 0)


def test_watch_in_json_is_one_object_a_line(url: str, cli: Cli):
    output = Acting({
        '"enabled": false': lambda: operator(url).set(True),
        '"enabled": true': lambda: signal.raise_signal(signal.SIGINT),
    })  # fmt: skip
    done = cli("watch", "--json", output=output)
    assert done.status == 0
    first, second = done.json
    assert (first["event"], first["enabled"], second["enabled"]) == ("flag", False, True)
    assert dt.datetime.fromisoformat(second["at"]).utcoffset() == dt.timedelta(0)


def test_watch_shows_who_switched_a_scope_off(each_url: str, cli: Cli):
    cli("on", "--scope", "shop")
    output = Acting({
        "maintenance for shop is ON": lambda: operator(each_url).set(False, scope="shop", actor="Ben", reason="done"),
        "maintenance for shop is OFF": lambda: signal.raise_signal(signal.SIGINT),
    })  # fmt: skip
    cli("watch", output=output)
    line = output.getvalue().splitlines()[-1]
    assert "maintenance for shop is OFF" in line
    assert "actor: Ben; reason: done" in line


def test_a_scope_whose_row_says_no_more_is_shown_as_it_came(url: str):
    state, flag = operator(url), Snapshot(enabled=False, scope="shop")
    assert _complete(flag, state) is flag, "it has no row"
    state.set(True, scope="shop")
    assert _complete(flag, state) is flag, "it is on again"
    Path(url.removeprefix("sqlite:///")).unlink()
    assert _complete(flag, state) is flag


def test_watch_shows_when_the_database_is_away_and_when_it_answers_again(url: str, cli: Cli):
    path = Path(url.removeprefix("sqlite:///"))
    away = path.with_suffix(".away")
    output = Acting({
        "maintenance is OFF": lambda: path.rename(away),
        "cannot reach the database: ": lambda: away.rename(path),
        "the database answers again": lambda: signal.raise_signal(signal.SIGINT),
    })  # fmt: skip
    done = cli("watch", output=output)
    assert (done.status, len(done.lines)) == (0, 4)


def test_watch_reports_to_machines_why_the_database_is_away(url: str):
    state = operator(url)
    path = Path(url.removeprefix("sqlite:///"))
    events = follow(state)
    first, is_change = next(events)
    assert (isinstance(first, Snapshot), is_change) == (True, False)
    path.rename(path.with_suffix(".away"))
    event = build_event_json(next(events)[0], "a store", now=dt.datetime.now(dt.UTC))
    state.close()
    assert (event["event"], event["store"]) == ("store", "a store")
    assert "missing" in event["error"]


def test_watch_shows_a_database_that_was_taken_back_and_each_scope(url: str, cli: Cli):
    path = Path(url.removeprefix("sqlite:///"))
    old = path.read_bytes()
    output = Acting({
        "maintenance is OFF": lambda: operator(url).set(True),
        "maintenance is ON": lambda: path.write_bytes(old),
        "shows an older state": lambda: operator(url).set(False),
        "the older state of the database is settled": lambda: operator(url).set(True, scope="shop"),
        "maintenance for shop is ON": lambda: signal.raise_signal(signal.SIGINT),
    })  # fmt: skip
    done = cli("watch", output=output)
    assert done.status == 0
    # A file that is written in place may be read before it is complete.
    lines = [line for line in done.lines if not re.search("cannot reach the database|the database answers", line)]
    assert len(lines) == 7, done.out
    assert "older" not in lines[1]


def test_watch_reports_each_trouble_to_machines_too():
    now = dt.datetime.now(dt.UTC)
    event = {"event": "taken_back", "at": now, "error": None, "store": "s"}
    assert build_event_json(Trouble("taken_back", None), "s", now=now) == event
