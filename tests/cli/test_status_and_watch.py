"""``maintenance status`` and ``watch``: the flag, now and as it changes."""

import datetime as dt
import signal
from pathlib import Path

import pytest

from maintenance.base.values import Reading, Snapshot
from maintenance.cli.commands.status import build_event_json, follow
from tests.support.command import Acting, Cli, change, machine_in, operator, read_until, run, start


def test_status_shows_people_their_time_and_machines_utc(url: str, cli: Cli):
    operator(url).set(True, until=dt.datetime(2099, 11, 22, 6, tzinfo=dt.UTC), reason="why")
    with machine_in("CET-1"):
        assert "2099-11-22 07:00:00 CET (in " in (shown := cli("status").out)
    assert "  reason      why\n" in shown
    done = cli("status", "--json")
    assert (done.status, done.json[0]["until"], done.json[0]["problem"]) == (3, "2099-11-22T06:00:00+00:00", None)


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
    assert isinstance(next(events), Snapshot)
    path.rename(path.with_suffix(".away"))
    event = build_event_json(next(events), "a store", now=dt.datetime.now(dt.UTC))
    state.close()
    assert (event["event"], event["store"]) == ("store", "a store")
    assert "missing" in event["error"]
